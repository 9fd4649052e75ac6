"""Studies: what is sampled, what is kept, what is on the front, and that they go on where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from codesign.basics.errors import AlteredError, CodesignWarning, InputError, OutputError, ToolError
from codesign.explore import rows_of, study
from codesign.explore.fronts import hypervolume, pareto_front, spread
from codesign.explore.sampling import JOURNAL
from tests.fake_study import SPACE, Fakes, Stopped, essence, explore

# What the fake space leads to: trained networks, and points of three machines each.
NETWORKS = SPACE["budget"]["networks"]
POINTS = 3 * NETWORKS
TRAINED = [axis for axis in SPACE["axes"] if not axis.startswith("hardware.")]
PROGRAM = Path(__file__).resolve().parents[1] / "fake_study.py"


def beats(one, other):
    return all(a <= b for a, b in zip(one, other)) and any(a < b for a, b in zip(one, other))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_front_agrees_with_the_definition(seed, size):
    points = np.random.default_rng(seed).integers(1, 6, (12, size)).tolist()
    expected = [index for index, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert pareto_front(points) == expected


def test_a_front_of_nothing_is_empty():
    assert pareto_front([]) == []


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_hypervolume_is_the_share_of_cells_that_are_dominated(seed, size):
    """Of points on a grid of whole numbers, counted cell by cell."""
    points = np.random.default_rng(seed).integers(0, 5, (6, size))
    cells = np.stack(np.meshgrid(*[np.arange(4)] * size, indexing="ij"), axis=-1).reshape(-1, size)
    dominated = (cells[:, None] >= points[None]).all(axis=2).any(axis=1)
    assert hypervolume(points, [4] * size) == dominated.sum()


def test_points_beyond_the_reference_count_nothing():
    assert hypervolume([[5, 0], [0, 5]], [4, 4]) == 0
    assert hypervolume([], [4, 4]) == 0


def test_the_most_of_a_front_each_add_the_most():
    front = np.array([[0.0, 1.0], [0.05, 0.95], [0.5, 0.5], [0.52, 0.49], [1.0, 0.0]])
    found = spread(front, [1.1, 1.1], 3)
    for count in range(3):
        volumes = [hypervolume(front[[*found[:count], index]], [1.1, 1.1]) for index in range(5)]
        assert volumes[found[count]] == max(volumes)
    # One of each place, none of the neighbours.
    assert {index // 2 for index in found} == {0, 1, 2}
    assert len(spread(front, [1.1, 1.1], 9)) == 5


@pytest.fixture
def fakes(monkeypatch):
    fakes = Fakes()
    fakes.put(monkeypatch)
    return fakes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of an undisturbed study, by its sampler; each is made once."""

    @cache
    def found(sampler="tpe"):
        with pytest.MonkeyPatch.context() as patch:
            Fakes().put(patch)
            return explore(tmp_path_factory.mktemp("whole") / "study", sampler=sampler)

    return found


def test_networks_are_trained_once_and_machines_enumerated(tmp_path, fakes):
    document = explore(tmp_path / "study")
    assert len(document["networks"]) == NETWORKS and len(document["points"]) == POINTS
    assert len(set(fakes.done)) == len(fakes.done)
    assert sum(what == "freeze" for what, _ in fakes.done) == NETWORKS
    assert len({json.dumps(network["choices"]) for network in document["networks"]}) == NETWORKS
    assert document["complete"]


def test_the_longest_training_of_a_batch_begins_first(tmp_path, fakes):
    axes = {"network.hidden": [[4], [8], [16], [24], [32], [64]], "train.epochs": [20, 40], **SPACE["axes"]}
    document = explore(tmp_path / "study", axes=axes, batch=4, budget={"networks": 4})
    work = {
        Path(network["folder"]).name.split("-")[0]: network["choices"]["network.hidden"][0]
        * network["choices"]["train.epochs"]
        for network in document["networks"]
    }
    begun = [work[name] for what, name in fakes.done if what == "train"]
    assert begun == sorted(begun, reverse=True) and begun != [
        work[Path(network["folder"]).name.split("-")[0]] for network in document["networks"]
    ]


def test_points_that_break_a_constraint_are_on_no_front(whole):
    document = whole()
    broken = [point for point in document["points"] if point["metrics"]["cycles"] > 4500]
    assert broken and all(point["broken"] == ["cycles <= 4500"] and not point["front"] for point in broken)
    costs = [
        [-point["metrics"]["accuracy"], point["metrics"]["lut"], point["metrics"]["cycles"]]
        for point in document["points"]
        if not point["broken"]
    ]
    marked = [point["front"] for point in document["points"] if not point["broken"]]
    assert [index for index, front in enumerate(marked) if front] == pareto_front(costs)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_study_that_was_stopped_anywhere_ends_with_the_same_points(tmp_path, fakes, whole, sampler):
    for stop in (0, 1, 5, 6, 2):
        fakes.stop, fakes.done = stop, []
        with pytest.raises(Stopped):
            explore(tmp_path / "parts", sampler=sampler)
        fakes.stop = None
        table = json.loads((tmp_path / "parts" / "explore.json").read_text())
        assert not table["complete"]
    assert essence(explore(tmp_path / "parts", sampler=sampler)) == essence(whole(sampler))


def test_the_samplers_differ_and_so_do_seeds(tmp_path, fakes, whole):
    found = [essence(whole(sampler)) for sampler in ("tpe", "random", "nsga2")]
    found.append(essence(explore(tmp_path / "study", seed=1)))
    assert all(one != other for index, one in enumerate(found) for other in found[:index])


def test_a_study_that_was_stopped_while_it_sampled_ends_with_the_same_points(tmp_path, fakes, whole, monkeypatch):
    from codesign.explore.sampling import Trials

    add = Trials._add
    for count in (1, 2, 3):
        left = iter(range(count))

        def stopping(self, left=left):
            if next(left, None) is None:
                raise Stopped
            return add(self)

        with monkeypatch.context() as patch:
            patch.setattr(Trials, "_add", stopping)
            with pytest.raises(Stopped):
                explore(tmp_path / "parts")
    assert essence(explore(tmp_path / "parts")) == essence(whole())


@pytest.mark.parametrize("cut", [1, 40, 250])
def test_a_half_written_line_of_the_journal_is_taken_back(tmp_path, fakes, whole, cut):
    fakes.stop = 9
    with pytest.raises(Stopped):
        explore(tmp_path / "parts")
    fakes.stop = None
    journal = tmp_path / "parts" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert essence(explore(tmp_path / "parts")) == essence(whole())


@pytest.mark.parametrize("text", ["{}\n", "no json\n", '{"op_code": 4, "study_id": 0}\n', "[1]\n"])
def test_a_journal_of_something_else_is_refused(tmp_path, fakes, text):
    explore(tmp_path / "study", budget={"networks": 2})
    journal = tmp_path / "study" / JOURNAL
    journal.write_text(text + journal.read_text())
    with pytest.raises(InputError, match="is no journal of this study"):
        explore(tmp_path / "study")


@pytest.mark.parametrize(
    ("sampler", "index", "change"),
    [
        ("tpe", 0, {"system_attrs": "x"}),
        ("tpe", 0, {"params": dict.fromkeys(TRAINED, 1)}),
        ("tpe", -1, {"value": 0.5, "values": None}),
        ("tpe", -1, {"state": 1}),
        ("nsga2", 0, {"system_attrs": {"NSGAIISampler:generation": "x"}}),
    ],
)
def test_a_trial_that_no_study_writes_is_refused(tmp_path, fakes, sampler, index, change):
    """Of the first, which has its result, or of the last, which waits."""
    fakes.stop = 3
    with pytest.raises(Stopped):
        explore(tmp_path / "study", sampler=sampler)
    fakes.stop = None
    journal = tmp_path / "study" / JOURNAL
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    trial = [line for line in lines if "params" in line][index]
    assert change.keys() <= trial.keys() and change.get("params", {}).keys() in (set(), trial["params"].keys())
    trial.update(change)
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(InputError, match="is no journal of this study"):
        explore(tmp_path / "study", sampler=sampler)


def test_a_killed_study_goes_on_to_the_same_points(tmp_path, fakes, whole):
    command = [sys.executable, str(PROGRAM), str(tmp_path / "killed"), "tpe", "11"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    assert essence(explore(tmp_path / "killed")) == essence(whole())
    assert len(fakes.done) == 2 * NETWORKS - 11


def test_a_table_that_takes_long_is_written_less_often(tmp_path, fakes, whole, monkeypatch):
    """A study that is stopped in between goes on to the same points although its table is old."""
    expected, written = essence(whole()), []
    write_json = study.write_json
    monkeypatch.setattr(study, "write_json", lambda *given: written.append(1) or write_json(*given))
    monkeypatch.setattr(study, "WRITING", 1e9)
    fakes.stop = 9
    with pytest.raises(Stopped):
        explore(tmp_path / "study")
    fakes.stop = None
    assert essence(explore(tmp_path / "study")) == expected
    # At the beginning and at the end of both calls.
    assert len(written) == 4


def test_more_networks_go_on_from_those_there_are(tmp_path, fakes, whole):
    explore(tmp_path / "parts", budget={"networks": 4})
    assert essence(explore(tmp_path / "parts")) == essence(whole())


def test_a_finished_study_does_nothing_again(tmp_path, fakes):
    first = explore(tmp_path / "study")
    fakes.done.clear()
    assert explore(tmp_path / "study") == first and fakes.done == []


def test_a_study_ends_with_its_points_or_its_time(tmp_path, fakes):
    assert len(explore(tmp_path / "points", budget={"points": 10})["points"]) == 18
    with pytest.raises(InputError, match="the budget ended before the first network"):
        explore(tmp_path / "time", budget={"minutes": 1e-9})


def test_a_small_space_is_searched_to_its_end(tmp_path, fakes):
    axes = {"freeze.weight_bits": [3, 4, 5], "hardware.lanes": [1, 2]}
    document = explore(tmp_path / "study", axes=axes, budget={"networks": 50})
    assert sorted(network["choices"]["freeze.weight_bits"] for network in document["networks"]) == [3, 4, 5]


def test_hardware_can_be_all_that_is_searched(tmp_path, fakes):
    document = explore(tmp_path / "study", axes={"hardware.lanes": [1, 2, 4]})
    assert len(document["networks"]) == 1 and len(document["points"]) == 3


def test_combinations_that_are_refused_are_left_out(tmp_path, fakes):
    axes = {**SPACE["axes"], "train.rewiring.start_density": [0.1, 0.5]}
    document = explore(tmp_path / "study", axes=axes)
    found = [network["choices"] for network in document["networks"]]
    assert len(found) == NETWORKS
    assert all(c["train.rewiring.target_density"] <= c["train.rewiring.start_density"] for c in found)


def test_a_network_that_fails_leaves_the_others(tmp_path, fakes):
    first = explore(tmp_path / "first", budget={"networks": 4})["networks"][1]["choices"]
    fakes.fail[first["train.rewiring.target_density"], first["freeze.weight_bits"]] = "no luck"
    document = explore(tmp_path / "study")
    assert [network["error"] for network in document["networks"] if network["status"] == "failed"] == ["no luck"]
    assert len(document["points"]) == POINTS - 3


def test_nothing_but_failures_is_an_error(tmp_path, fakes):
    fakes.freeze = lambda *_, **__: None  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "freeze_network", lambda *_, **__: study.Failed("no data"))
        with pytest.raises(InputError, match="no network came to a point; network 0: no data"):
            explore(tmp_path / "study")


def test_objectives_that_are_not_estimated_are_said_and_left_out(tmp_path, fakes, monkeypatch):
    real = fakes.freeze

    def without(*arguments, **more):
        found = real(*arguments, **more)
        for row in found["machines"][1:]:
            row["area"]["ecp5"]["lut"] = None
        return found

    monkeypatch.setattr(study, "freeze_network", without)
    with pytest.warns(
        CodesignWarning, match=f"{POINTS - NETWORKS} of {POINTS} points are left out: lut is not estimated"
    ):
        document = explore(tmp_path / "study")
    assert all(
        point["unknown"] == ["lut"] and not point["front"] for point in document["points"] if point["lanes"] != [1, 1]
    )


@pytest.mark.parametrize("error", [OutputError("out: the disk is full"), AlteredError("x: differs")])
def test_a_fault_of_the_folder_ends_the_study_and_keeps_its_points(tmp_path, fakes, monkeypatch, error):
    real, count = fakes.freeze, iter(range(100))

    def full(*arguments, **more):
        if next(count) == 5:
            raise error
        return real(*arguments, **more)

    monkeypatch.setattr(study, "freeze_network", full)
    with pytest.raises(type(error)):
        explore(tmp_path / "study")
    table = json.loads((tmp_path / "study" / "explore.json").read_text())
    assert len(table["points"]) == 15


def test_a_study_that_cannot_begin_keeps_its_table(tmp_path, fakes, whole, monkeypatch):
    """Nobody who works, or a fault while what is kept is taken over."""
    folder = tmp_path / "study"
    explore(folder)
    before = (folder / "explore.json").read_bytes()

    @contextmanager
    def nobody(*_):
        raise ToolError("--scheduler: does not answer")
        yield

    def full(*arguments, **more):
        raise OutputError("the disk is full")

    for name, fault, error in (("workers", nobody, ToolError), ("freeze_network", full, OutputError)):
        with monkeypatch.context() as patch:
            patch.setattr(study, name, fault)
            with pytest.raises(error):
                explore(folder)
        assert (folder / "explore.json").read_bytes() == before


def test_a_kept_network_of_which_nothing_is_built_any_more_is_named(tmp_path, fakes, monkeypatch):
    explore(tmp_path / "study")
    monkeypatch.setattr(study.Space, "machines", lambda self, choices: ([], [{"machine": "x", "reason": "not so"}]))
    with pytest.raises(InputError, match=r"no machine of network 0 is built any more \(not so\)"):
        explore(tmp_path / "study")


def test_a_folder_of_something_else_is_left_alone(tmp_path, fakes):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty and not an exploration"):
        explore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
    (tmp_path / "explore.json").write_text('{"format": "something else"}')
    with pytest.raises(OutputError, match="not the table of an exploration"):
        explore(tmp_path)
    (tmp_path / "explore.json").write_text('{"format": "codesign-exploration", "version": 1}')
    with pytest.raises(InputError, match="of another version of codesign"):
        explore(tmp_path)


def test_a_study_of_another_space_says_what_differs(tmp_path, fakes):
    explore(tmp_path / "study", budget={"networks": 2})
    with pytest.raises(InputError, match=r"another space: seed is 0 there and 3 here; choose another folder"):
        explore(tmp_path / "study", seed=3)
    base = {"network": {"hidden": [9], "timesteps": 2}}
    with pytest.raises(InputError, match=r"base.network.hidden is \[8\] there and \[9\] here \(and 1 more\)"):
        explore(tmp_path / "study", base=base, seed=3)


def test_two_studies_share_a_folder_of_networks(tmp_path, fakes):
    from codesign.explore import run_study
    from codesign.explore.space import parse_space

    for name in ("one", "two"):
        space = parse_space({**SPACE, "objectives": {"accuracy": "maximise", "memory_bits": "minimise"}})
        run_study(space, tmp_path / name, 1, None, tmp_path / "networks", "cpu", lambda *_: None)
    assert len(fakes.done) == 2 * NETWORKS


def test_rows_are_flat_and_of_the_same_keys(whole):
    rows = rows_of(whole())
    assert len({tuple(row) for row in rows}) == 1 and len(rows) == POINTS
    assert {"name", "accuracy", "lut", "freeze.weight_bits", "front", "command"} <= set(rows[0])


def test_progress_ends_at_its_total(tmp_path, fakes):
    from codesign.explore import run_study
    from codesign.explore.space import parse_space

    calls = []
    run_study(
        parse_space(SPACE), tmp_path, 1, None, None, "cpu", lambda done, total, text="": calls.append((done, total))
    )
    assert all(done <= total for done, total in calls) and calls[-1] == (NETWORKS, NETWORKS)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_the_command_shows_the_front_and_goes_on(tmp_path, fakes, capsys):
    import tomlkit

    from codesign.cli import main

    (tmp_path / "space.toml").write_text(tomlkit.dumps(SPACE))
    arguments = ["explore", str(tmp_path / "space.toml"), "-o", str(tmp_path / "study"), "--workers", "1"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    document = json.loads((tmp_path / "study" / "explore.json").read_text())
    front = [point["name"] for point in document["points"] if point["front"]]
    assert all(name in out for name in front) and f"{len(front)} of {POINTS} points are on the front" in out.replace(
        "\n", " "
    )
    assert "network 3 done" in err or "explore" in err
    fakes.done.clear()
    assert main([*arguments, "--json"]) == 0 and fakes.done == []
    assert json.loads(capsys.readouterr().out)["points"] == document["points"]
    assert main([*arguments, "--set", "network.timesteps=3"]) == 2
    assert "base.network.timesteps is 2 there and 3 here" in capsys.readouterr().err


def test_a_space_that_is_wrong_is_refused_before_its_folder_is_made(tmp_path, fakes, capsys):
    from codesign.cli import main

    (tmp_path / "space.toml").write_text(
        '[budget]\nnetworks = 1\n[axes]\n"train.epoch" = [1]\n[objectives]\naccuracy = "maximise"\n'
    )
    assert main(["explore", str(tmp_path / "space.toml"), "-o", str(tmp_path / "study")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "study").exists()
