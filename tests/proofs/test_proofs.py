# amaranth: UnusedElaboratable=no

import pytest
from amaranth.hdl import Elaboratable, Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from codesign.basics.errors import ToolError
from rtl_templates.memories import StreamFifo

from . import sby
from .__main__ import main
from .catalogue import all_proofs
from .check import check, emitted
from .defects import Edit, Narrower
from .harness import Harness

PROOFS = {proof.name: proof for proof in all_proofs()}
FAST = [name for name, proof in PROOFS.items() if proof.fast]


@pytest.mark.hardware
@pytest.mark.parametrize("name", FAST)
def test_proof_holds_and_breaks_with_each_defect(name, tmp_path):
    verdict = check(PROOFS[name], tmp_path)
    assert verdict.ok, verdict.line


def test_every_proof_has_a_defect_that_is_still_in_the_component_s_source():
    assert len(PROOFS) == len(all_proofs())
    for proof in PROOFS.values():
        assert proof.defects, proof.name
        for defect in proof.defects:
            assert defect.harness is not None
            if defect.edit is not None:
                with defect.edit.applied():
                    pass


def test_a_defect_whose_place_is_gone_is_an_error():
    with pytest.raises(LookupError, match=r"StreamFifo\.elaborate has no 'nowhere': seed this defect anew"):
        Edit(StreamFifo, "nowhere", "").applied().__enter__()


def test_a_defect_is_gone_after_its_harness_was_emitted():
    proof = PROOFS["engine-streaming-events"]
    before = emitted(proof.harness)
    for defect in proof.defects:
        with defect.edit.applied():
            assert emitted(proof.harness) != before
    assert emitted(proof.harness) == before
    assert any(isinstance(defect.edit, Narrower) for defect in proof.defects)


class Counter(wiring.Component):
    """A counter, a memory that is written and one that is not."""

    def __init__(self):
        super().__init__({"count": Out(3), "en": In(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.ram = ram = memory.Memory(shape=unsigned(3), depth=2, init=[5, 6])
        m.submodules.rom = rom = memory.Memory(shape=unsigned(3), depth=2, init=[7, 7])
        write, read, fixed = ram.write_port(), ram.read_port(), rom.read_port()
        m.d.comb += [write.en.eq(self.en), write.data.eq(self.count), fixed.addr.eq(read.data)]
        m.d.sync += self.count.eq(self.count + fixed.data)
        return m


class Small(Harness):
    """``count`` of a counter is below ``limit``; ``assumed`` of it, for the sake of the argument."""

    def __init__(self, limit: int, assumed: int = 8):
        super().__init__()
        self.limit, self.assumed = limit, assumed

    def build(self) -> None:
        self.m.submodules.dut = dut = Counter()
        self.m.d.comb += dut.en.eq(self.free(1, "en"))
        self.assume(dut.count < self.assumed, dut.count == 6)
        self.require(dut.count < self.limit)


def test_registers_and_written_memories_start_with_anything_and_the_others_with_their_contents():
    text = emitted(lambda: Small(8))
    counter = text[text.index("module \\top.dut") :]
    assert "attribute \\init" not in counter
    assert counter.count("cell $meminit_v2") == 1 and "6'111111" in counter


@pytest.mark.hardware
def test_a_false_claim_fails_with_a_counterexample(tmp_path):
    result = sby.run(emitted(lambda: Small(5)), tmp_path, mode="bmc", depth=6)
    assert result.status == "FAIL" and result.trace is not None and "failed assertion" in result.summary


@pytest.mark.hardware
def test_an_assumption_that_leaves_nothing_is_found_by_its_cover(tmp_path):
    text = emitted(lambda: Small(5, assumed=5))
    # The solver passes it, or refuses it where the assumptions contradict each other within the depth.
    assert sby.run(text, tmp_path, mode="bmc", depth=6).status in ("PASS", "ERROR")
    assert sby.run(text, tmp_path, mode="cover", depth=6).status in ("FAIL", "ERROR")


def test_an_assumption_without_a_cover_is_refused():
    with pytest.raises(ValueError, match="an assumption needs a cover"):
        Small(5).assume(Signal())


def test_unknown_names_and_modes_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["perpetual-motion"])
    assert "no proof is called 'perpetual-motion'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="mode 'guess' is none of prove, bmc, cover"):
        sby.run("", None, mode="guess", depth=1)


def test_a_missing_solver_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sby, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match=r"bitwuzla .* is not installed; run `pip install bitwuzla`"):
        sby.run("", tmp_path, mode="bmc", depth=1)


def test_the_list_names_every_proof(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PROOFS)
