"""Every fact of a sidecar is derived again: true of every kind of machine, and each lie is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import random_bundle, sidecar
from machines import MACHINES, build_machine
from random_networks import random_stimulus

from codesign.basics.errors import InputError, MismatchError
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import read_sidecar
from sim.facts import Facts, check_facts, compare_facts
from sim.netlist import read_netlist
from sim.sidecar_mutants import caught, leaves, run_sidecar_mutants, sidecar_mutants
from sim.verify import verify_bundle

pytestmark = pytest.mark.hardware

EVERY = 61


@pytest.fixture(scope="module", params=list(MACHINES))
def machine(request, tmp_path_factory) -> tuple[Path, FrozenNetwork]:
    bundle = tmp_path_factory.mktemp("machine") / request.param
    return bundle, build_machine(request.param, bundle)


def test_the_sidecar_of_every_kind_of_machine_is_true(machine) -> None:
    bundle, network = machine
    found = compare_facts(bundle, read_sidecar(bundle), network)
    assert not found.differences and found.compared > 150
    check_facts(bundle, read_sidecar(bundle))


def test_altered_leaves_are_caught(machine) -> None:
    """A part of the mutants; all of them in the deep test."""
    bundle, network = machine
    mutants = list(sidecar_mutants(read_sidecar(bundle)))
    assert len(mutants) > 1000
    chosen = mutants[sum(map(ord, bundle.name)) % EVERY :: EVERY]
    assert [mutant.name for mutant in chosen if caught(bundle, mutant.document, network) is None] == []


@pytest.mark.deep
def test_every_altered_leaf_is_caught(machine) -> None:
    bundle, network = machine
    altered = set()
    for mutant in sidecar_mutants(read_sidecar(bundle)):
        assert caught(bundle, mutant.document, network) is not None, mutant.name
        altered.add(mutant.name.partition(" ")[0])
    assert {".".join(map(str, path)) for path, _ in leaves(read_sidecar(bundle).to_json())} <= altered


def test_a_true_sidecar_is_not_caught(machine) -> None:
    bundle, network = machine
    assert caught(bundle, read_sidecar(bundle).to_json(), network) is None


def test_a_mutant_that_escapes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "b"
    network = build_machine("single", bundle)
    rows = run_sidecar_mutants(bundle, network)
    assert len(rows) > 25 and all(row["caught"] for row in rows)
    # Without the check of facts only the reader, the hashes and the images are left.
    monkeypatch.setattr("sim.sidecar_mutants.compare_facts", lambda *_: Facts(0, ()))
    escaped = {row["name"].split()[1] for row in run_sidecar_mutants(bundle, network) if not row["caught"]}
    assert {"timesteps", "readout", "counters", "memory_bits", "tools"} <= escaped


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(40))
def test_the_sidecars_of_random_machines_are_true(seed: int, tmp_path: Path) -> None:
    kinds = ({}, {"folded": True}, {"varied": True}, {"lean": True})
    network, *_ = random_bundle(seed, tmp_path / "b", **kinds[seed % 4])
    assert not compare_facts(tmp_path / "b", read_sidecar(tmp_path / "b"), network).differences


@pytest.fixture(scope="module")
def streaming(tmp_path_factory) -> tuple[Path, FrozenNetwork]:
    bundle = tmp_path_factory.mktemp("streaming") / "b"
    return bundle, build_machine("streaming", bundle)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"timesteps": 5}, "design.json: timesteps is 5, the frozen network has 4"),
        ({"readout": "membrane_sum"}, "design.json: readout is membrane_sum, the frozen network has spike_count"),
        ({"counters": False}, "design.json: counters is False, snn.v has True"),
        ({"early_exit": "certain"}, "design.json: early_exit is certain, snn.v has off"),
    ],
)
def test_verify_counts_and_names_what_is_not_true(streaming, tmp_path: Path, change, line: str) -> None:
    folder, network = streaming
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "design.json").write_text(json.dumps(sidecar(folder) | change))
    stimulus = random_stimulus(np.random.default_rng(0), network, 2)
    result = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "work")
    assert not result.passed and result.mismatches == len(result.sidecar) > 0 and result.samples == 0
    assert line in result.sidecar and result.comparisons["sidecar"] > 200
    if "network" not in line:
        with pytest.raises(MismatchError, match=r"design\.json"):
            check_facts(tmp_path / "b", read_sidecar(tmp_path / "b"))


def test_ports_memories_and_constants_are_read_from_the_verilog(streaming) -> None:
    folder, network = streaming
    found = read_netlist(folder / "snn.v", "snn")
    assert found.ports["m_axis_tdata"][0] == "output" and found.ports["s_axis_tdata"] == ("input", 8)
    assert found.constants["network_hash"] == int(network.hash[:16], 16)
    assert found.clocks == {("POS", "clk")}
    rows = found.memories["engine0.fetcher1.rows.rom.words"]
    assert (rows.file, rows.depth) == ("images/l0_p1_rows.mem", network.n_inputs)


def test_what_is_no_accelerator_is_refused_in_one_line(tmp_path: Path) -> None:
    for text in ("", "module other; endmodule", "module snn(", "\x00\xff"):
        (tmp_path / "snn.v").write_text(text)
        with pytest.raises(InputError, match=r"snn\.v: not an accelerator") as caught_error:
            read_netlist(tmp_path / "snn.v", "snn")
        assert "\n" not in str(caught_error.value)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("output busy;\n  wire busy;\n", "output [1:0] busy;\n  wire [1:0] busy;\n", "ports"),
        ("always @(posedge clk)", "always @(negedge clk)", "clock"),
        ("// Pipeline of each layer: deep", "// Pipeline of each layer: short", "pipeline"),
        ("amaranth 0", "amaranth 9", "tools"),
    ],
)
def test_verilog_that_is_not_as_described_is_found(streaming, tmp_path: Path, old: str, new: str, place: str) -> None:
    folder, network = streaming
    shutil.copytree(folder, tmp_path / "b")
    text = (folder / "snn.v").read_text()
    assert old in text
    (tmp_path / "b" / "snn.v").write_text(text.replace(old, new, 1))
    found = compare_facts(tmp_path / "b", read_sidecar(tmp_path / "b"), network).differences
    assert found and any(place in difference.place for difference in found)
