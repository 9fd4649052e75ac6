"""A loadable machine in the simulator: three networks in one run, exact; what it has to refuse; seeded defects."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Const, Elaboratable, Module, Signal
from bundles import small_network, stamp
from loadable import flipped, load_step, port_hash, random_machine, samples_of, small_machine, small_variant

from codesign.basics.errors import InputError, ToolError, UnsupportedError
from codesign.machine.capacity import HEADER_BYTES
from codesign.machine.choices import Choices
from codesign.machine.load import compile_load
from codesign.machine.mapping import LOADABLE, map_network
from rtl_templates import arithmetic, loader, neurons
from rtl_templates.bundle import write_bundle
from rtl_templates.guard import InputGuard
from sim.loads import LoadStep, verify_loads
from sim.verify import verify_bundle

pytestmark = pytest.mark.hardware


@pytest.mark.parametrize("coding", ["current", pytest.param("events", marks=pytest.mark.deep)])
def test_three_networks_in_one_simulation_and_every_refusal(coding: str, tmp_path: Path) -> None:
    networks, sidecar = small_machine(tmp_path / "b", coding)
    own, smaller, wider = networks
    loads = [compile_load(network, sidecar) for network in networks]
    tighter = write_bundle(own, map_network(own, [3, 2], None, LOADABLE), tmp_path / "tighter")
    foreign = compile_load(own, tighter).image
    stays: dict[str, Any] = {"network": wider, "stimulus": samples_of(wider, 4), "sidecar": loads[2].sidecar}
    steps = [
        LoadStep("own", None, own, samples_of(own, 1)),
        load_step("smaller", smaller, loads[1], 2, expected_hash=port_hash(smaller)),
        load_step("wider, in mid-sample", wider, loads[2], 3, gap=100, overlaps=True),
        LoadStep("wrong hash", loads[1].image, **stays, expected_hash=port_hash(own), load_error=("wrong_hash",)),
        LoadStep("another machine", foreign, **stays, load_error=("does_not_fit",), overlaps=True),
        LoadStep("no image", b"x", **stays, load_error=("wrong_length",)),
        LoadStep("flipped", flipped(loads[0].image, HEADER_BYTES + 40), None, load_error=("wrong_checksum",)),
        LoadStep("truncated", loads[0].image[:-7], None, load_error=("wrong_length",)),
        load_step("own, again", own, loads[0], 5),
        LoadStep("too long", loads[1].image + bytes(3), None, load_error=("wrong_length",)),
        load_step("smaller, again", smaller, loads[1], 6, gap=30),
    ]
    result = verify_loads(tmp_path / "b", steps, tmp_path / "work")
    assert result.passed, str(result.first_divergence)
    assert list(result.steps) == [step.name for step in steps]
    assert result.steps["wider, in mid-sample"]["bytes_taken_inside_a_sample"] == 1
    assert all(result.steps[step.name]["load_error"] == 1 for step in steps[1:])


def test_a_machine_without_contents_runs_what_was_delivered_with_it(tmp_path: Path) -> None:
    network, bundle = small_network("current"), tmp_path / "b"
    written = write_bundle(
        network, map_network(network, [3, 2], None, Choices(loadable=True, synapse_memory="spram")), bundle
    )
    boot = bundle / "boot.bin"
    assert boot.read_bytes() == compile_load(network, written).image
    assert written.load is not None and written.load.boot == "boot.bin" and "boot.bin" in written.files
    result = verify_bundle(bundle, network, samples_of(network, 1), tmp_path / "work", stress_samples=2, waves=False)
    assert result.passed and result.samples == 3, str(result.first_divergence)
    smaller = small_variant(1, "current", n_in=9, hidden=5, timesteps=4, width=8)
    steps = [
        LoadStep("own", None, network, samples_of(network, 1)),
        load_step("another", smaller, compile_load(smaller, written), 2),
    ]
    assert verify_loads(bundle, steps, tmp_path / "loads").passed

    # Another row with a checksum that is right is a difference; a wrong checksum is a network that never came.
    whole = boot.read_bytes()
    body = flipped(whole, HEADER_BYTES + 40)[:-4]
    boot.write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
    stamp(bundle, "boot.bin")
    wrong = verify_bundle(bundle, network, samples_of(network, 1), tmp_path / "wrong", stress_samples=2, waves=False)
    assert not wrong.passed and wrong.mismatches > 0
    boot.write_bytes(flipped(whole, HEADER_BYTES + 40))
    stamp(bundle, "boot.bin")
    with pytest.raises(ToolError, match=r"boot\.bin is refused, load_error 1000"):
        verify_bundle(bundle, network, samples_of(network, 1), tmp_path / "none", stress_samples=2, waves=False)


def test_only_a_loadable_machine_starts_without_contents(tmp_path: Path) -> None:
    network = small_network("events")
    with pytest.raises(UnsupportedError, match="synapse_memory = 'spram' needs"):
        map_network(network, [1, 1], None, Choices(synapse_memory="spram"))


def random_loads(seed: int, folder: Path, **options: int) -> None:
    """Build network, two others, and the first of them again, after a refusal."""
    network, others, sidecar = random_machine(seed, folder / "b", **options)
    loads = [compile_load(other, sidecar) for other in others]
    steps = [
        LoadStep("own", None, network, samples_of(network, seed)),
        load_step("first", others[0], loads[0], seed + 1, gap=seed % 3 * 60, overlaps=seed % 2 == 1),
        load_step("second", others[1], loads[1], seed + 2, expected_hash=port_hash(others[1])),
        LoadStep(
            "refused",
            loads[0].image,
            others[1],
            samples_of(others[1], seed + 3),
            loads[1].sidecar,
            expected_hash=1,
            load_error=("wrong_hash",),
        ),
        load_step("first, again", others[0], loads[0], seed + 4),
    ]
    result = verify_loads(folder / "b", steps, folder / "work", seed=seed + 1)
    assert result.passed, f"seed {seed}: {result.first_divergence}"


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(24))
def test_random_machines_run_random_networks(seed: int, tmp_path: Path) -> None:
    random_loads(seed, tmp_path, max_width=20 if seed % 2 else 40, most_lanes=5)


# Seeded defects: each must be seen ----------------------------------------------------------------


def ignores_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.NetworkLoader, "_is_expected", lambda self, found: Const(1))


def keeps_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurons, "saturate_within", lambda value, width, clip: arithmetic.saturate(value, width))


def ignores_the_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind(Elaboratable):
        def __init__(self) -> None:
            self.start, self.data, self.valid = Signal(), Signal(8), Signal()
            self.match_detected = Const(1)

        def create(self) -> Blind:
            return self

        def elaborate(self, platform: object) -> Module:
            return Module()

    monkeypatch.setattr(loader, "CRC32_ISO_HDLC", Blind)


def skips_address_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def changed(path: Path, *arguments: Any, **options: Any) -> str:
        text = read(path, *arguments, **options)
        return text.replace("if (write_en) words", "if (write_en && write_addr != 1) words")

    monkeypatch.setattr("rtl_templates.bundle.Path.read_text", changed)


def goes_on_without_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtl_templates.accelerator.ResetInserter", lambda reset: lambda component: component)


def keeps_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard compares sources with the machine's inputs, not the network's."""

    class Lenient(InputGuard):
        def elaborate(self, platform: object):
            self.n_inputs = Const(25)
            return super().elaborate(platform)

    monkeypatch.setattr("rtl_templates.accelerator.InputGuard", Lenient)


# What is wrong, and the step in which it must be seen first, or any; the first two run with every test.
DEFECTS = {
    "ignores the hash": (ignores_the_hash, "wrong hash"),
    "skips address 1": (skips_address_one, "smaller"),
    "keeps the membranes' width": (keeps_the_width, "smaller"),
    "keeps the inputs": (keeps_the_inputs, None),
    "goes on without reset": (goes_on_without_reset, "smaller"),
    "ignores the checksum": (ignores_the_checksum, "flipped"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.deep] if at > 1 else []) for at, name in enumerate(DEFECTS)]
)
def test_a_defect_is_seen(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inject, step = DEFECTS[name]
    with monkeypatch.context() as patch:
        inject(patch)
        (own, smaller, _), sidecar = small_machine(tmp_path / "b", "events")
    load = compile_load(smaller, sidecar)
    steps = [
        LoadStep("own", None, own, samples_of(own, 1)),
        LoadStep("wrong hash", load.image, own, samples_of(own, 2), expected_hash=7, load_error=("wrong_hash",)),
        load_step("smaller", smaller, load, 3),
        LoadStep("flipped", flipped(load.image, HEADER_BYTES + 60), None, load_error=("wrong_checksum",)),
    ]
    result = verify_loads(tmp_path / "b", steps, tmp_path / "work")
    assert not result.passed and result.first_divergence is not None
    assert step is None or result.first_divergence.phase == step


def test_steps_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    (own, *_), sidecar = small_machine(tmp_path / "b", "events")
    fixed = sidecar.to_json() | {"load": None}
    step = LoadStep("own", None, own, samples_of(own, 1))
    for steps, message in (
        ([], "the first one a network"),
        ([LoadStep("first", b"", None)], "the first one a network"),
        ([step, step], "names of their own"),
        ([LoadStep("own", None, own)], "needs a network and samples"),
        ([step, LoadStep("bad", b"", None, load_error=("late",))], "load error 'late' is none of does_not_fit"),
        ([step, LoadStep("bad", b"", None, gap=256)], "gap 256 is outside"),
    ):
        with pytest.raises(InputError, match=message):
            verify_loads(tmp_path / "b", steps, tmp_path / "work")
    image = tmp_path / "b" / "images" / "l0_p0_rows.mem"
    image.write_text(image.read_text().replace("0", "1"))
    with pytest.raises(InputError, match=r"l0_p0_rows.mem: altered since generation"):
        verify_loads(tmp_path / "b", [step], tmp_path / "work")
    (tmp_path / "b" / "design.json").write_text(json.dumps(fixed))
    with pytest.raises(InputError, match="not the bundle of a loadable machine"):
        verify_loads(tmp_path / "b", [step], tmp_path / "work")
