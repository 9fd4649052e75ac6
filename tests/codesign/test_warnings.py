"""What codesign warns of is shown, and stays in the record of the stage in which it came."""

import warnings

import pytest

from codesign.config import Config
from codesign.errors import CodesignWarning
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context, Outcome, Stage
from codesign.rundir import RunDirectory


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
