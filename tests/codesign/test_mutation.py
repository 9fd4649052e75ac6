"""Mutants are caught by simulation, an unmutated bundle is not, and what does not build is never 'caught'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import random_bundle, small_bundle

from codesign import mutation
from codesign.errors import ToolError, UnsupportedError
from codesign.mutation import RTL_EDITS, Mutant, RtlEdit, apply_rtl_edit, run_mutants
from codesign.network import FrozenNetwork
from codesign.stimulus import Stimulus
from sim.bundle import check_files, read_sidecar
from sim.decoder import compare_decoded

Case = tuple[Path, FrozenNetwork, Stimulus]


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("mutation") / "b"
    network, stimulus = small_bundle(folder)
    return folder, network, stimulus


def made(case: Case, kind: str, work: Path) -> list[Mutant]:
    maker = getattr(mutation, f"_{kind}_mutants")
    bundle, network, stimulus = case
    return maker(bundle, network, stimulus.take(slice(0, 6)), work, np.random.default_rng(1))


@pytest.mark.parametrize(("kind", "least"), [("data", 10), ("rtl", 10), ("mapper", 5)])
def test_enough_mutants_apply_and_their_hashes_are_right(case: Case, kind: str, least: int, tmp_path: Path) -> None:
    mutants = made(case, kind, tmp_path)
    assert len(mutants) >= least
    assert [mutant.error for mutant in mutants if mutant.error] == []
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        check_files(mutant.bundle, read_sidecar(mutant.bundle))
        decoded = compare_decoded(mutant.bundle, case[1])
        assert decoded["equal"] is (kind == "rtl"), mutant.name
        assert read_sidecar(mutant.bundle).files != read_sidecar(case[0]).files


def test_lean_machines_have_no_mutants(tmp_path: Path) -> None:
    network, stimulus = random_bundle(2, tmp_path / "b", lean=True)
    with pytest.raises(UnsupportedError, match="mutants are made of machines with plain synapses, FIFOs and lanes"):
        mutation.run_mutants(tmp_path / "b", network, stimulus, tmp_path / "work")


def test_mutants_are_the_same_for_the_same_seed(case: Case, tmp_path: Path) -> None:
    one, two = made(case, "data", tmp_path / "one"), made(case, "data", tmp_path / "two")
    for ours, theirs in zip(one, two, strict=True):
        assert read_sidecar(ours.bundle).files == read_sidecar(theirs.bundle).files


@pytest.mark.parametrize(
    ("module", "pattern", "message"),
    [
        ("engine9", "a", "no module matches"),
        ("engine0", "absent", "0 matches"),
        ("engine0", "wire", "2 matches"),
    ],
)
def test_a_pattern_that_is_not_where_it_must_be_is_an_error(module: str, pattern: str, message: str) -> None:
    text = "module snn_engine0 (clk);\n  wire x;\n  wire y;\nendmodule\nmodule snn (clk);\n  absent\nendmodule\n"
    with pytest.raises(ToolError, match=message):
        apply_rtl_edit(text, "snn", RtlEdit("m", module, pattern, "", "reason"))


def test_an_edit_stays_in_its_module() -> None:
    text = "module snn_a (clk);\n  one\nendmodule\nmodule snn_b (clk);\n  one\nendmodule\n"
    changed = apply_rtl_edit(text, "snn", RtlEdit("m", "b", "one", "two", "reason"))
    assert changed == text[: text.rindex("one")] + "two" + text[text.rindex("one") + 3 :]


@pytest.mark.hardware
def test_a_mutant_that_does_not_build_is_an_error_and_not_caught(case: Case, tmp_path: Path, monkeypatch) -> None:
    bundle, network, stimulus = case
    broken = RtlEdit("broken", "readout", r"^module", "modul", "never")
    monkeypatch.setattr(mutation, "RTL_EDITS", (broken,))
    result = run_mutants(bundle, network, stimulus, tmp_path / "work", kinds=("rtl",))
    (mutant,) = result["mutants"]
    assert mutant["caught"] is False and "failed" in mutant["error"]
    assert result["control"]["caught"] is False and result["control"]["error"] is None


def assert_all_caught(result: dict[str, Any]) -> None:
    missed = [(entry["name"], entry["error"]) for entry in result["mutants"] if not entry["caught"]]
    assert missed == []
    assert result["caught"] == result["total"] == len(result["mutants"])
    for entry in result["mutants"]:
        assert {"name", "kind", "caught", "first_divergence"} <= set(entry)
        assert entry["first_divergence"]["what"]
    assert result["control"]["caught"] is False and result["control"]["error"] is None


@pytest.mark.hardware
def test_data_mutants_are_caught_and_the_control_passes(case: Case, tmp_path: Path) -> None:
    assert_all_caught(run_mutants(*case, tmp_path / "work", kinds=("data",)))


@pytest.mark.hardware
def test_some_rtl_mutants_are_caught(case: Case, tmp_path: Path, monkeypatch) -> None:
    names = ("far forwarding removed", "state survives the sample", "tie to the highest class")
    monkeypatch.setattr(mutation, "RTL_EDITS", tuple(edit for edit in RTL_EDITS if edit.name in names))
    result = run_mutants(*case, tmp_path / "work", kinds=("rtl",))
    assert result["total"] == len(names)
    assert_all_caught(result)


@pytest.mark.deep
@pytest.mark.hardware
@pytest.mark.parametrize("coding", ["current", "events"])
def test_all_mutants_are_caught(coding: str, tmp_path: Path) -> None:
    network, stimulus = small_bundle(tmp_path / "b", coding)
    result = run_mutants(tmp_path / "b", network, stimulus, tmp_path / "work")
    kinds = [entry["kind"] for entry in result["mutants"]]
    assert kinds.count("data") >= 10 and kinds.count("rtl") >= 10 and kinds.count("mapper") >= 5
    assert_all_caught(result)
