"""Mutants of every machine are caught by simulation, an unmutated one is not, and what does not build is neither."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutated_machines import MACHINES, choices_of, machine, network_of

from codesign.basics.errors import CodesignError, InputError, MismatchError, ToolError
from codesign.contract.golden import projection_matrices
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import read_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.machine.choices import FEATURES, Choices, chosen
from codesign.machine.mapping import map_network
from codesign.pipeline.mutants import delivered_faults, judge_mutants, run_delivered
from rtl_templates.mapper_faults import _with_taps
from sim.bundle import check_files
from sim.decoder import compare_decoded
from sim.mutants import Faulty, Scene, rtl, run_mutants
from sim.mutants.edits import RtlEdit, apply_rtl_edit
from sim.mutants.pictures import TABLES, picture_edits
from sim.mutants.rtl import RTL_EDITS
from sim.mutants.run import make_mutants

Case = tuple[Path, FrozenNetwork, Stimulus]
PICTURES = [name for name, (options, _) in MACHINES.items() if "pictures" in options]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("mutants") / "b"
    return folder, *machine("default", folder)


def test_the_machines_have_every_choice() -> None:
    taken = {key for name in MACHINES for key in chosen(choices_of(name))}
    assert taken == set(FEATURES)


def components(name: str) -> set[str]:
    """Components of a machine, each of which must have a fault."""
    choices = choices_of(name)
    return {
        "neurons",
        "fetcher",
        "sweep",
        "serializer",
        "readout",
        "top",
        "memories",
        "guard" if choices.input_checks else "trusted input",
        *(["encoding"] if choices.synapses == "compact" else []),
        *(["lock step"] if choices.lockstep else []),
        *(["beats"] if choices.input_words > 1 and choices.event_streams == 1 else []),
        *(["streams"] if choices.event_streams > 1 else []),
        *(["collector"] if choices.schedule != "timestep" else []),
        *(["early exit"] if choices.exits else []),
        *(["fork"] if name == "fork, exit" else []),
        *(["loader"] if choices.loadable else []),
        *(["counters"] if choices.counters else []),
        *(["picture", "taps"] if name in PICTURES else []),
        *(["turns"] if name == "folded, turns" else []),
    }


# Between them they have every component, most in more than one surrounding.
FEW = (
    "tiny",
    "folded, compact",
    "folded, turns",
    "loadable, empty",
    "certain exit",
    "streams, one lane",
    "sample, streams",
    "membrane_max, short",
    "no input checks, current",
    "pictures, current, short",
    "leaks, current, short",
    "terms, folded",
)


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.deep) for name in MACHINES]
)
def test_every_part_of_every_machine_has_a_mutant_and_all_can_be_made(name: str, tmp_path: Path) -> None:
    network, stimulus = machine(name, tmp_path / "b")
    mutants = make_mutants(Scene(tmp_path / "b", network, stimulus), tmp_path / "work", kinds=("data", "rtl"))
    assert [mutant.error for mutant in mutants if mutant.error] == []
    assert {mutant.component for mutant in mutants} >= components(name)
    assert len({(mutant.kind, mutant.name) for mutant in mutants}) == len(mutants)
    for kind, least in (("data", 6), ("rtl", 8)):
        assert sum(mutant.kind == kind for mutant in mutants) >= least, kind
    before = read_sidecar(tmp_path / "b").files
    for mutant in mutants:
        check_files(mutant.bundle, read_sidecar(mutant.bundle))
        assert compare_decoded(mutant.bundle, network)["equal"] is (mutant.kind == "rtl"), mutant.name
        assert read_sidecar(mutant.bundle).files != before, mutant.name


@pytest.mark.parametrize("name", PICTURES)
def test_what_pictures_walk_is_the_network(name: str, tmp_path: Path) -> None:
    """Without a fault nothing shows."""
    network, stimulus = machine(name, tmp_path / "b")
    scene = Scene(tmp_path / "b", network, stimulus)
    reading = [entry.index for entry in scene.sidecar.layers if entry.projections[0].reads is not None]
    assert reading and scene.tap_layer in reading
    assert not scene.shows_images(tmp_path / "b") and not scene.shows_rows(lambda rows: rows, reading)
    for index in reading:
        assert not scene.shows_reading(index, 0)
        source, target, weight = scene.reached(index)
        found = np.zeros((network.layers[index].n_sources, network.layers[index].n_out), np.int64)
        np.add.at(found, (source, target), weight)
        want = [matrix.toarray() for matrix in projection_matrices(network.layers[index].projections[0], 1)]
        np.testing.assert_array_equal(found, reduce(np.matmul, (matrix.astype(np.int64) for matrix in want)))


def test_every_fault_of_a_part_for_pictures_shows_somewhere(tmp_path: Path) -> None:
    shown = set()
    for name in PICTURES:
        network, stimulus = machine(name, tmp_path / name)
        scene = Scene(tmp_path / name, network, stimulus)
        shown |= {edit.name for edit in picture_edits(scene)}
    assert shown == {
        *(table.name for table in TABLES),
        "taps land beyond every border",
        "taps land beyond the borders of y",
        "taps land beyond the borders of x",
        "steps of y and x exchanged",
        "base not added",
        "lane and rank exchanged",
        "rank cut off",
        "channel without its lane",
        "x does not wrap at the width",
        "a word of parameters for each slot",
    }


LEAK_FAULTS = {
    "leak forgotten",
    "leak shift in memory off by one",
    "leak multiplier in memory off by one",
    *(
        f"{what} in the {place} layer"
        for place in ("first", "last")
        for what in (
            "leak shift plus one",
            "leak multiplier minus one",
            "leaks of two neurons exchanged",
            "leak shifts a bit beside their field",
        )
    ),
}


TERM_FAULTS = {
    "delayed reset forgotten",
    "delayed reset decayed",
    "reset not delayed",
    "current not leaked",
    "current not saturated",
    "current leak shift in memory off by one",
    "current leak multiplier in memory off by one",
    *(
        f"current leak {what} in the {place} layer"
        for what in ("shift plus one", "multiplier minus one")
        for place in ("first", "last")
    ),
}


REST_FAULTS = {"rest forgotten", "rest never ends", "rest is disturbed", "fires in rest"}


@pytest.mark.deep
@pytest.mark.parametrize(
    ("option", "faults", "others"),
    [("terms", TERM_FAULTS, set()), ("rest", REST_FAULTS, set()), ("leaks", LEAK_FAULTS, {"leak shift off by one"})],
)
def test_every_fault_of_what_neurons_keep_shows_somewhere(
    option: str, faults: set[str], others: set[str], tmp_path: Path
) -> None:
    shown = set()
    for name, (options, _) in MACHINES.items():
        if option in options:
            network, stimulus = machine(name, tmp_path / name / "b")
            scene = Scene(tmp_path / name / "b", network, stimulus)
            mutants = make_mutants(scene, tmp_path / name / "work", kinds=("data", "rtl"))
            assert [mutant.error for mutant in mutants if mutant.error] == []
            shown |= {mutant.name for mutant in mutants}
    assert shown >= faults and not shown & others


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_taps_are_read_as_they_lie_whatever_the_streams(streams: int) -> None:
    mapping = map_network(network_of(pictures="padded"), [2, 2], None, Choices(event_streams=streams))
    layer = next(layer for layer in mapping.layers if layer.synapse_step is not None)
    again = _with_taps(layer, lambda taps: taps)
    np.testing.assert_array_equal(again.row_count, layer.row_count)
    assert again.synapse_step is not None and layer.synapse_step is not None
    for ours, theirs in zip(again.synapse_step, layer.synapse_step, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def made_by_the_mapper(name: str, folder: Path) -> None:
    network, stimulus = machine(name, folder / "b")
    faults, _ = delivered_faults(folder / "b", network)
    scene = Scene(folder / "b", network, stimulus)
    mutants = make_mutants(scene, folder / "work", faults, kinds=("mapper",))
    assert [mutant.error for mutant in mutants if mutant.error] == []
    assert len(mutants) >= 5
    kept = ("ports", "input_words", "early_exit", "output_spikes", "input_checks", "counters", "shape")
    for mutant in mutants:
        sidecar = read_sidecar(mutant.bundle)
        check_files(mutant.bundle, sidecar)
        assert not compare_decoded(mutant.bundle, network)["equal"], mutant.name
        # The machine is the delivered one, its neurons where they were.
        assert Scene(mutant.bundle, network, stimulus).choices == scene.choices
        assert [getattr(sidecar, key) for key in kept] == [getattr(scene.sidecar, key) for key in kept]
        assert [layer.lane for layer in sidecar.layers] == [layer.lane for layer in scene.sidecar.layers]


@pytest.mark.parametrize("name", ["tiny", "pictures, current, short"])
def test_mutants_of_the_mapper_are_of_the_delivered_machine(name: str, tmp_path: Path) -> None:
    made_by_the_mapper(name, tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("name", MACHINES)
def test_mutants_of_the_mapper_are_of_every_delivered_machine(name: str, tmp_path: Path) -> None:
    made_by_the_mapper(name, tmp_path)


def test_mutants_are_the_same_for_the_same_seed(case: Case, tmp_path: Path) -> None:
    bundle, network, stimulus = case
    one, two = (
        make_mutants(Scene(bundle, network, stimulus), tmp_path / name, kinds=("data",)) for name in ("one", "two")
    )
    for ours, theirs in zip(one, two, strict=True):
        assert read_sidecar(ours.bundle).files == read_sidecar(theirs.bundle).files


def test_what_only_later_timesteps_show_is_not_seen() -> None:
    # The first class leads by 2 after two timesteps of three; the third makes the second class fire.
    network = FrozenNetwork.from_arrays([np.array([[1, 0], [0, 1]])], threshold=1, timesteps=3)
    events = np.array([[[1, 0], [1, 0], [0, 1]]], bool)
    scene = Scene(Path("none"), network, Stimulus.from_dense(events, np.zeros(1, np.int32)))
    scene.__dict__["choices"] = Choices(early_exit="certain")
    assert scene.trace.exits.tolist() == [1] and scene.counts.tolist() == [[True, True, False]]
    layer = network.layers[0]
    for neuron, shown in ((0, True), (1, False)):
        threshold = layer.threshold.copy()
        threshold[neuron] = 5
        assert scene.shows(network.with_layers([scene.with_numbers(0, layer, {"threshold": threshold})])) is shown
    assert scene.active(0).tolist() == [True, False] and scene.spikes(0)[0, 2].tolist() == [False, False]


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
        apply_rtl_edit(text, "snn", RtlEdit("m", "c", module, pattern, "", "reason"))


def test_an_edit_stays_in_its_module() -> None:
    text = "module snn_a (clk);\n  one\nendmodule\nmodule snn_b (clk);\n  one\nendmodule\n"
    changed = apply_rtl_edit(text, "snn", RtlEdit("m", "c", "b", "one", "two", "reason"))
    assert changed == text[: text.rindex("one")] + "two" + text[text.rindex("one") + 3 :]


def test_escaped_mutants_and_those_that_cannot_be_built_end_differently() -> None:
    caught = {"name": "a", "caught": True, "error": None}
    judge_mutants([caught])
    with pytest.raises(MismatchError, match="1 of 2 mutants not caught: b"):
        judge_mutants([caught, {"name": "b", "caught": False, "error": None}])
    with pytest.raises(CodesignError, match=r"mutant 'c' could not be built \(why\)") as found:
        judge_mutants([caught, {"name": "c", "caught": False, "error": "why"}])
    assert type(found.value).exit_code == 1


def test_a_fault_of_the_generator_is_an_error_of_that_mutant(case: Case, tmp_path: Path) -> None:
    bundle, network, stimulus = case

    def make(folder: Path, rng: np.random.Generator) -> bool:
        raise KeyError("slot")

    (mutant,) = make_mutants(Scene(bundle, network, stimulus), tmp_path, [Faulty("broken", make)], kinds=("mapper",))
    assert mutant.error == "KeyError: 'slot'"


def test_the_bundle_of_another_network_is_refused(case: Case, tmp_path: Path) -> None:
    bundle, _, stimulus = case
    other, _ = machine("short, current", tmp_path / "other")
    with pytest.raises(InputError, match="not of this network"):
        run_delivered(bundle, other, stimulus, tmp_path / "work")


def assert_all_caught(result: dict[str, Any]) -> None:
    missed = [(entry["name"], entry["error"]) for entry in result["mutants"] if not entry["caught"]]
    assert missed == []
    assert result["caught"] == result["total"] == len(result["mutants"]) and result["errors"] == 0
    for entry in result["mutants"]:
        assert entry["first_divergence"]["what"]
    assert result["control"]["caught"] is False and result["control"]["error"] is None


@pytest.mark.hardware
def test_a_mutant_of_the_tiniest_machine_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, stimulus = machine("tiny", tmp_path / "b")
    names = ("second lane walks the first one's synapses",)
    monkeypatch.setattr(rtl, "RTL_EDITS", tuple(edit for edit in RTL_EDITS if edit.name in names))
    result = run_mutants(tmp_path / "b", network, stimulus, tmp_path / "work", kinds=("rtl",), workers=1)
    assert result["total"] == len(names)
    assert_all_caught(result)


@pytest.mark.deep
@pytest.mark.hardware
@pytest.mark.parametrize("name", MACHINES)
def test_all_mutants_of_every_machine_are_caught(name: str, tmp_path: Path) -> None:
    network, stimulus = machine(name, tmp_path / "b")
    result = run_delivered(tmp_path / "b", network, stimulus, tmp_path / "work")
    kinds = [entry["kind"] for entry in result["mutants"]]
    print(name, {kind: kinds.count(kind) for kind in ("data", "rtl", "mapper")}, result["caught"])  # noqa: T201
    assert kinds.count("data") >= 6 and kinds.count("rtl") >= 8 and kinds.count("mapper") >= 5
    assert_all_caught(result)
