"""The benchmark of searches tells studies apart, and shares what a sampler cannot choose."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import explore
from codesign.explore import load_space


def write(folder: Path, accuracy: float) -> None:
    point = {
        "name": "000-00",
        "network": 0,
        "choices": {"network.hidden": [8]},
        "metrics": {"accuracy": accuracy, "lut": 100.0},
        "front": True,
        "broken": [],
        "unknown": [],
    }
    folder.mkdir(parents=True)
    document = {"points": [point], "networks": [{"folder": "n"}]}
    document["space"] = {"objectives": {"accuracy": "maximise", "lut": "minimise"}}
    (folder / "explore.json").write_text(json.dumps(document))


@pytest.fixture
def studies(monkeypatch):
    """Accuracies of the studies to come, in place of trainings."""
    found: list[float] = []

    def study(space: Path, workers: int, folder: Path) -> dict[str, Any]:
        write(folder, found.pop(0))
        return {"workers": workers, "seconds": 1.0 / workers, "load": 0.0, "points": explore.points(folder)}

    def disturbed(space: Path, folder: Path, every: float) -> dict[str, Any]:
        write(folder, found.pop(0))
        return {"workers_killed": 2, "commands_killed": 1, "seconds": 3.0}

    monkeypatch.setattr(explore, "study", study)
    monkeypatch.setattr(explore, "disturbed", disturbed)
    return found


@pytest.mark.parametrize("question", ["workers", "killed"])
def test_other_points_are_an_error(studies, capsys, question):
    studies += [0.9, 0.9]
    explore.main([question, "--pairs", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"] == 2 if question == "workers" else found["workers_killed"] == 2
    studies += [0.9, 0.8]
    with pytest.raises(SystemExit, match="other points"):
        explore.main([question, "--pairs", "1"])


def test_a_shorter_space_keeps_the_axes_and_the_base(tmp_path):
    path = explore.shortened(explore.EXAMPLE, tmp_path, 3, sampler="random", seed=2)
    written, given = tomllib.loads(path.read_text()), tomllib.loads(explore.EXAMPLE.read_text())
    assert (written["sampler"], written["seed"], written["budget"]) == ("random", 2, {"networks": 3})
    assert list(written["axes"].items()) == list(given["axes"].items()) and written["front"] == {"most": 0}
    assert load_space(path).document["base"] == load_space(explore.EXAMPLE).document["base"]


def test_costs_leave_out_what_breaks_a_constraint(tmp_path):
    write(tmp_path / "study", 0.9)
    document = explore.table(tmp_path / "study")
    assert explore.costs(document) == [(0, [-0.9, 100.0])]
    document["points"][0]["broken"] = ["lut <= 50"]
    assert explore.costs(document) == []
