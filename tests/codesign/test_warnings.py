"""What codesign warns of is shown, and stays in the record of the stage in which it came."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from codesign.basics.errors import CodesignWarning
from codesign.cli.console import Console
from codesign.config import Config, DataConfig
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context, DataSource, Outcome, Stage
from codesign.records.rundir import RunDirectory


def _stage(*texts: str) -> Stage:
    def work(context: Context) -> Outcome:
        for text in texts:
            warnings.warn(text, CodesignWarning, stacklevel=2)
        return Outcome()

    return Stage("train", {}, (), lambda context: {}, work)


def test_a_stages_warnings_are_shown_and_recorded_once_each(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    context = Context(run, Config())
    with pytest.warns(CodesignWarning) as shown:
        run_stages(context, ["train"], stages={"train": _stage("all inputs are 0", "a\nb", "all inputs are 0")})
    assert {str(warning.message) for warning in shown} == {"all inputs are 0", "a\nb"}
    assert run.stage("train")["warnings"] == ["all inputs are 0", "a b"]


def test_a_stage_without_warnings_has_none_in_its_record(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    run_stages(Context(run, Config()), ["train"], stages={"train": _stage()})
    assert "warnings" not in run.stage("train")


def test_what_loading_warned_of_is_in_the_record_of_every_stage_that_uses_the_data(tmp_path):
    """Also of one that finds the data loaded, and of another run that shares them."""
    np.savez(tmp_path / "own.npz", x=np.eye(40), y=np.arange(40) % 2 * 2)
    config = Config(data=DataConfig(set="npz", path=str(tmp_path / "own.npz"), validation=0.2))
    stages = {
        name: replace(_stage(*texts), name=name, external=external)
        for name, texts, external in (
            ("train", ("a",), lambda context: {"data": context.dataset.hash}),
            ("freeze", (), lambda context: {"data": context.dataset.hash}),
            ("generate", (), None),
        )
    }
    data = DataSource(config.data)
    for name in ("one", "two"):
        run = RunDirectory.create(tmp_path / name)
        with pytest.warns(CodesignWarning):
            run_stages(Context(run, config, data=data), list(stages), stages=stages)
        records = [run.stage(stage).get("warnings", []) for stage in stages]
        assert len(records[0]) == 2 and "no training samples of class '1'" in records[0][0] and records[0][1] == "a"
        assert records[1] == records[0][:1] and records[2] == []


def test_a_command_shows_each_warning_once(capfd):
    console = Console()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for text in ("one", "two"):
            console.start()
            for _ in range(2):
                warnings.warn(text, CodesignWarning, stacklevel=1)
    assert capfd.readouterr().err.splitlines() == ["codesign: warning: one", "codesign: warning: two"]
