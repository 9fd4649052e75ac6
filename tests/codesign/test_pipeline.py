"""Stages: done once, done again when something they read has changed, taken up where they were stopped."""

import json
from pathlib import Path

import numpy as np
import pytest

from codesign.basics.errors import (
    AlteredError,
    CapacityError,
    CodesignError,
    InputError,
    MismatchError,
    OutputError,
    ToolError,
)
from codesign.config import Config, HardwareConfig, parse_config
from codesign.contract.network import FrozenNetwork
from codesign.cost.mapping import map_hardware
from codesign.pipeline.figures import merged_figures
from codesign.pipeline.runner import run_stages, with_settings
from codesign.pipeline.stage import Context, Outcome, Stage
from codesign.pipeline.stages import STAGES
from codesign.records import aside
from codesign.records.names import IMPORT_REPORT
from codesign.records.rundir import FIGURES, RunDirectory


class Line:
    """Three small stages: a writes the seed, b doubles it, c adds one to b; every call is recorded."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, BaseException] = {}
        self.failures: dict[str, CodesignError] = {}
        self.data = "first"
        self.stages = {
            "a": self.stage(
                "a", {}, "a.txt", lambda folder, c: c.config.train.seed, external=lambda c: {"d": self.data}
            ),
            "b": self.stage(
                "b", {"a.txt": "a"}, "b.txt", lambda folder, c: 2 * number(folder / "a.txt"), resumable=True
            ),
            "c": self.stage("c", {"b.txt": "b"}, "c", lambda folder, c: 1 + number(folder / "b.txt")),
        }

    def stage(self, name, inputs, output, compute, **more):
        def work(context):
            folder = context.run.path
            self.calls.append(name)
            partial = folder / output
            if name == "b" and partial.is_file():
                self.calls.append("b goes on")
            if name in self.errors:
                partial.write_text("partial")
                raise self.errors.pop(name)
            value = compute(folder, context)
            if name == "c":
                partial.mkdir()
                (partial / "c.txt").write_text(str(value))
            else:
                partial.write_text(str(value))
            return Outcome(figures={"synapses": value}, failure=self.failures.get(name))

        if name == "a":
            more["settings"] = lambda _: ("train",)
        options = lambda context: {"seed": context.config.train.seed} if name == "a" else {}  # noqa: E731
        return Stage(name, inputs, (output,), options, work, **more)

    def run(self, folder: Path, config: Config | None = None, names: str = "abc", **more) -> list[str]:
        """Run the stages; returns what was called."""
        self.calls = []
        run = RunDirectory.create(folder)
        with run.locked():
            run_stages(Context(run, config or Config()), names, stages=self.stages, **more)
        return self.calls


def number(path: Path) -> int:
    return int(path.read_text())


@pytest.fixture
def line():
    return Line()


def with_seed(seed: int) -> Config:
    return parse_config({"train": {"seed": seed}})


def test_second_run_does_nothing(line, tmp_path):
    assert line.run(tmp_path, with_seed(3)) == ["a", "b", "c"]
    assert number(tmp_path / "c" / "c.txt") == 7
    assert line.run(tmp_path, with_seed(3)) == []


def test_changed_option_redoes_what_follows_from_it(line, tmp_path):
    line.run(tmp_path, with_seed(3))
    assert line.run(tmp_path, with_seed(4)) == ["a", "b", "c"]
    assert number(tmp_path / "c" / "c.txt") == 9


def test_same_output_after_a_change_stops_the_change(line, tmp_path):
    line.run(tmp_path, with_seed(3))
    line.data = "second"
    assert line.run(tmp_path, with_seed(3)) == ["a"]


@pytest.mark.parametrize("names", ["abc", "b", "c"])
def test_altered_output_is_refused_by_name(line, tmp_path, names):
    """Neither used nor replaced, whether the stage that made it would be skipped or another would read it."""
    line.run(tmp_path)
    (tmp_path / "b.txt").write_text("8")
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(AlteredError, match=rf"b\.txt: differs from what `b` has recorded; .* `codesign b {tmp_path}`"):
        line.run(tmp_path, names=names)
    assert line.calls == []
    assert (tmp_path / "b.txt").read_text() == "8"
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert line.run(tmp_path, names="b", force=True) == ["b"]
    assert line.run(tmp_path) == []


def test_missing_output_is_made_again_and_not_done_without(line, tmp_path):
    line.run(tmp_path)
    (tmp_path / "c" / "c.txt").unlink()
    assert line.run(tmp_path) == ["c"]
    line.stages["d"] = line.stage("d", {"c": "c"}, "d.txt", lambda folder, c: 0)
    (tmp_path / "c" / "c.txt").unlink()
    with pytest.raises(AlteredError, match=r"c\.txt: is missing, although `c` has recorded it"):
        line.run(tmp_path, names="d")


def test_optional_input_is_held_against_its_record_too(line, tmp_path):
    line.stages["d"] = line.stage("d", {}, "d.txt", lambda folder, c: 0, optional_inputs=("c",))
    line.run(tmp_path, names="abcd")
    (tmp_path / "c" / "c.txt").write_text("99")
    with pytest.raises(AlteredError, match=r"c\.txt: differs from what `c` has recorded"):
        line.run(tmp_path, names="d", force=True)


def test_file_that_no_stage_recorded_is_taken_as_it_is(line, tmp_path):
    RunDirectory.create(tmp_path)
    (tmp_path / "b.txt").write_text("20")
    assert line.run(tmp_path, names="c") == ["c"]
    assert number(tmp_path / "c" / "c.txt") == 21


def test_changed_code_redoes_the_stage(line, tmp_path, monkeypatch):
    changed = line.stages["b"].work
    monkeypatch.setattr("codesign.pipeline.stage.code_hash", lambda work, unused: "old")
    line.run(tmp_path)
    monkeypatch.setattr("codesign.pipeline.stage.code_hash", lambda work, unused: "new" if work is changed else "old")
    assert line.run(tmp_path) == ["b"]


def test_force_redoes(line, tmp_path):
    line.run(tmp_path)
    assert line.run(tmp_path, force=True) == ["a", "b", "c"]


def test_single_stage_names_the_command_that_makes_its_input(line, tmp_path):
    with pytest.raises(InputError, match=r"a\.txt is missing; `codesign a "):
        line.run(tmp_path, names="b")


@pytest.mark.parametrize(("error", "status"), [(ToolError("no yosys"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_stopped_stage_is_recorded_and_the_next_run_goes_on_from_it(line, tmp_path, error, status):
    line.errors["c"] = error
    with pytest.raises(type(error)):
        line.run(tmp_path)
    record = RunDirectory.open(tmp_path).stage("c")
    assert record["status"] == status
    assert record["outputs"] == {}
    assert line.run(tmp_path) == ["c"]


def test_resumable_stage_finds_its_partial_output_and_others_do_not(line, tmp_path):
    line.errors["b"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        line.run(tmp_path)
    before = RunDirectory.open(tmp_path).stage("b")["seconds"]
    assert line.run(tmp_path) == ["b", "b goes on", "c"]
    assert RunDirectory.open(tmp_path).stage("b")["seconds"] >= before
    line.errors["b"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        line.run(tmp_path, with_seed(9))
    assert line.run(tmp_path, with_seed(10)) == ["a", "b", "c"]


def state(folder: Path) -> dict[str, bytes]:
    """All files of a run but its lock."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("error", [ToolError("no yosys"), KeyboardInterrupt()])
@pytest.mark.parametrize("stage", ["a", "c"])
def test_a_stage_that_fails_leaves_the_result_that_it_was_to_replace(line, tmp_path, stage, error):
    line.run(tmp_path, with_seed(3))
    before = state(tmp_path)
    line.errors[stage] = error
    with pytest.raises(type(error)):
        line.run(tmp_path, with_seed(3 if stage == "c" else 4), names=stage, force=True)
    assert line.calls == [stage]
    assert state(tmp_path) == before
    assert line.run(tmp_path, with_seed(3)) == []


def test_an_interrupted_attempt_beside_a_result_is_gone_on_with_and_dropped(line, tmp_path):
    line.run(tmp_path)
    before = state(tmp_path)
    line.errors["b"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        line.run(tmp_path, names="b", force=True)
    assert {name: content for name, content in state(tmp_path).items() if not name.startswith(".begun")} == before
    # Its key is that of the result, which is why nothing is to be done; another key is another attempt.
    assert line.run(tmp_path) == []
    (tmp_path / "a.txt").write_text("7")
    run = RunDirectory.open(tmp_path)
    run.record_files("a", ("a.txt",))
    line.errors["b"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        line.run(tmp_path, names="b")
    assert number(tmp_path / "b.txt") == 0 and (tmp_path / ".begun" / "b" / "b.txt").read_text() == "partial"
    assert line.run(tmp_path, names="b") == ["b", "b goes on"]
    assert number(tmp_path / "b.txt") == 14
    assert not list(tmp_path.glob(".be*"))


@pytest.mark.parametrize("moment", ["remember", "move", "work", "done"])
def test_what_a_killed_command_was_replacing_is_put_back_by_the_next(line, tmp_path, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def kill(*arguments, **options):
        raise Killed

    line.run(tmp_path, with_seed(3))
    before = state(tmp_path)
    with monkeypatch.context() as patch:
        # Nobody tidies up after a kill.
        patch.setattr(RunDirectory, "put_back", kill)
        if moment == "work":
            line.errors["a"] = Killed()
        elif moment == "done":
            patch.setattr("codesign.records.aside.drop", kill)
        else:
            original = getattr(aside, moment)
            patch.setattr(f"codesign.records.aside.{moment}", lambda *a, **o: (original(*a, **o), kill()))
        with pytest.raises(Killed):
            line.run(tmp_path, with_seed(4), names="a")
    run = RunDirectory.open(tmp_path)
    assert run.config.train.seed == number(tmp_path / "a.txt") == (4 if moment == "done" else 3)
    assert run.stage("a")["status"] == "done" and run.problem_of("a") is None
    assert moment == "done" or state(tmp_path) == before
    assert not list(tmp_path.glob(".be*"))


def test_the_configuration_takes_what_a_stage_reads_once_it_has_its_result(line, tmp_path):
    line.run(tmp_path, with_seed(3))
    changed = parse_config({"train": {"seed": 5}, "hardware": {"lanes": 7}})
    line.errors["b"] = ToolError("stopped")
    with pytest.raises(ToolError):
        line.run(tmp_path, changed)
    found = RunDirectory.open(tmp_path).config
    assert (found.train.seed, found.hardware.lanes) == (5, 1)
    line.run(tmp_path, changed)
    found = RunDirectory.open(tmp_path).config
    assert (found.train.seed, found.hardware.lanes) == (5, 7)


def test_settings_that_do_not_go_with_the_rest_bring_all():
    stored = parse_config({"network": {"hidden": [8]}, "hardware": {"lanes": [2, 2]}, "train": {"threads": 1}})
    other = parse_config({"network": {"hidden": [8, 8]}, "hardware": {"lanes": 1}, "train": {"threads": 2}})
    assert with_settings(stored, other, ("network",)) == other
    found = with_settings(stored, other, ("train.threads",))
    assert (found.train.threads, found.network.hidden, found.hardware.lanes) == (2, [8], [2, 2])


def test_figures_of_stages_that_no_longer_stand_become_null(line, tmp_path):
    line.run(tmp_path)
    assert set(RunDirectory.open(tmp_path).figures["seconds"]) == {"a", "b", "c"}
    line.errors["b"] = ToolError("stopped")
    with pytest.raises(ToolError):
        line.run(tmp_path, with_seed(5))
    figures = RunDirectory.open(tmp_path).figures
    assert list(figures) == list(FIGURES)
    # c belongs to the file of b that was put back.
    assert set(figures["seconds"]) == {"a", "c"}


def test_a_stage_that_shows_figures_stands_when_they_are_made_again(line, tmp_path):
    def shown(context):
        return {"figures": {name: value for name, value in context.run.figures.items() if name != "seconds"}}

    line.stages["d"] = Stage("d", {}, ("d.txt",), shown, line.stage("d", {}, "d.txt", lambda folder, c: 0).work)
    line.run(tmp_path, names="abcd")
    before = RunDirectory.open(tmp_path).figures
    (tmp_path / "b.txt").write_text("8")
    assert line.run(tmp_path, names="b", force=True) == ["b"]
    figures = RunDirectory.open(tmp_path).figures
    assert set(figures["seconds"]) == {"a", "b", "c", "d"}
    assert figures["synapses"] == before["synapses"]


def test_failure_is_recorded_with_its_figures_and_never_skipped(line, tmp_path):
    line.failures["b"] = MismatchError("3 values differ")
    # A resumable stage keeps what it has made, unless it is forced.
    for calls, force in ((["a", "b"], False), (["b", "b goes on"], False), (["a", "b"], True)):
        with pytest.raises(MismatchError, match="3 values differ"):
            line.run(tmp_path, force=force)
        assert line.calls == calls
        run = RunDirectory.open(tmp_path)
        assert run.stage("b")["failure"] == "3 values differ"
        assert run.figures["synapses"] == 0
    old = line.stages["c"]
    line.stages["c"] = Stage(old.name, old.inputs, old.outputs, old.options, old.work, always=True)
    with pytest.raises(MismatchError):
        line.run(tmp_path)
    assert line.calls == ["b", "b goes on", "c"]
    line.failures.clear()
    assert line.run(tmp_path) == ["b", "b goes on"]


@pytest.mark.parametrize(("names", "calls"), [("abc", ["a", "b", "c", "b", "c"]), ("ac", None)])
def test_a_stage_sends_back_to_one_before_it(line, tmp_path, names, calls):
    """c changes what b depends on, once; a command without b ends with what is wrong."""
    wishes = [1]
    old_b, old_c = line.stages["b"], line.stages["c"]

    def work(context):
        outcome = old_c.work(context)
        if not wishes:
            return outcome
        wishes.clear()
        return Outcome(figures=outcome.figures, failure=CapacityError("too large"), redo="b")

    options = lambda context: {"wishes": len(wishes)}  # noqa: E731
    line.stages["b"] = Stage("b", old_b.inputs, old_b.outputs, options, old_b.work)
    line.stages["c"] = Stage("c", old_c.inputs, old_c.outputs, old_c.options, work)
    if calls is None:
        line.run(tmp_path, names="ab")
        with pytest.raises(CapacityError, match="too large"):
            line.run(tmp_path, names=names)
    else:
        assert line.run(tmp_path, names=names) == calls


def test_manifest_is_whole_while_a_stage_runs(line, tmp_path):
    seen = {}
    old = line.stages["b"]

    def work(context):
        seen.update(json.loads((context.run.path / "manifest.json").read_text()))
        return old.work(context)

    line.stages["b"] = Stage(old.name, old.inputs, old.outputs, old.options, work)
    line.run(tmp_path)
    assert seen["stages"]["a"]["status"] == "done"
    assert seen["stages"]["b"]["status"] == "running"
    assert seen["stages"]["b"]["versions"]["codesign"]


def test_error_survives_a_disk_too_full_for_the_manifest(line, tmp_path, monkeypatch):
    line.errors["b"] = ToolError("the first error")
    save = RunDirectory.save

    def refuse(run):
        if run.stage("b").get("status") == "failed":
            raise OutputError("full")
        save(run)

    monkeypatch.setattr(RunDirectory, "save", refuse)
    with pytest.raises(ToolError, match="the first error"):
        line.run(tmp_path)


def test_versions_stay_with_what_they_have_made(line, tmp_path, monkeypatch):
    line.run(tmp_path)
    monkeypatch.setattr("codesign.pipeline.runner.versions", lambda: {"codesign": "99"})
    line.run(tmp_path, names="c", force=True)
    stages = RunDirectory.open(tmp_path).manifest["stages"]
    assert stages["c"]["versions"] == {"codesign": "99"} != stages["b"]["versions"]


def test_a_report_is_out_of_date_with_the_runs_name_and_the_report_of_its_import(tmp_path):
    def key(folder: str) -> str:
        run = RunDirectory.open(tmp_path / folder)
        return STAGES["report"].key(Context(run, Config()), {})

    RunDirectory.create(tmp_path / "one")
    first = key("one")
    (tmp_path / "one").rename(tmp_path / "two")
    second = key("two")
    (tmp_path / "two" / IMPORT_REPORT).write_text("{}")
    assert len({first, second, key("two")}) == 3


def test_steps_are_announced(line, tmp_path):
    heard = []
    line.run(tmp_path, names="ab")
    line.run(tmp_path, announce=lambda number, count, stage, event: heard.append((number, count, stage.name, event)))
    assert heard == [(1, 3, "a", "skip"), (2, 3, "b", "skip"), (3, 3, "c", "start"), (3, 3, "c", "done")]


def test_times_follow_from_cycles_and_clocks():
    verify = {"seconds": 1.0, "figures": {}, "cycles": {"latency": 500.0, "interval": 400.0}}
    synth = {"seconds": 2.0, "figures": {"fmax_mhz": {"ecp5-25f": 50.0}}}
    figures = merged_figures({"verify": verify, "synth": synth})
    assert figures["latency_us"] == {"ecp5-25f": 10.0}
    assert figures["interval_us"] == {"ecp5-25f": 8.0}
    assert figures["seconds"] == {"verify": 1.0, "synth": 2.0}
    assert "latency_us" not in merged_figures({"verify": verify})


def test_each_input_of_a_stage_is_an_output_of_the_stage_named():
    for stage in STAGES.values():
        for path, verb in stage.inputs.items():
            assert path in STAGES[verb].outputs
        outputs = {output for other in STAGES.values() for output in other.outputs}
        assert set(stage.optional_inputs) <= {*outputs, IMPORT_REPORT}


def test_choices_of_hardware_reach_the_mapping():
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 8, (30, 24)) * (rng.random((30, 24)) < 0.2)
    network = FrozenNetwork.from_arrays([weights], threshold=1, timesteps=1)
    plain = map_hardware(network, HardwareConfig(lanes=2), None)
    chosen = map_hardware(network, HardwareConfig(lanes=2, synapses="compact", pipeline="short"), None)
    two = FrozenNetwork.from_arrays([weights, np.ones((24, 3), int)], threshold=1, timesteps=1)
    folded = map_hardware(two, HardwareConfig(shape="folded"), None)
    assert (plain.layers[0].pipeline, plain.layers[0].encoding.is_plain) == ("deep", True)
    assert (chosen.layers[0].pipeline, chosen.layers[0].encoding.is_plain) == ("short", False)
    assert len(folded.engines) == 1


def test_threads_and_the_place_of_the_data_change_no_training(tmp_path):
    random = np.random.default_rng(0)
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    np.savez(tmp_path / "here" / "s.npz", x=random.random((60, 8)), y=np.arange(60) % 3)
    (tmp_path / "there" / "s.npz").write_bytes((tmp_path / "here" / "s.npz").read_bytes())
    run, said = RunDirectory.create(tmp_path / "run"), []

    def train(place: str = "here", **options) -> str:
        config = parse_config(
            {
                "data": {"set": "npz", "path": str(tmp_path / place / "s.npz"), "range": [0.0, 1.0]},
                "network": {"hidden": [6], "timesteps": 2},
                "train": {"epochs": 3, "batch_size": 16, "rewiring": {"preset": "static"}, **options},
            }
        )
        said.clear()
        with run.locked():
            run_stages(Context(run, config), ["train"], announce=lambda *given: said.append(given[-1]))
        return said[0]

    assert train(threads=1) == "start"
    assert train(threads=2) == "skip"
    assert train("there") == "skip"
    assert train(seed=1) == "start"
