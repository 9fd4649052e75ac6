"""The study's plan and its resumption, on digits in place of its data sets."""

import json

import pytest

from benchmarks.method import plan
from benchmarks.method.__main__ import main
from benchmarks.method.plan import LANDING, PRESETS, SETS, Run, planned
from benchmarks.method.results import spread, update_page

DIGITS = {
    "data": {"set": "digits", "train_limit": 256, "test_limit": 60, "validation": 100},
    "network": {"hidden": [12], "timesteps": 3, "readout": "spike_count"},
    "train": {"epochs": 4, "batch_size": 64, "learning_rate": 2e-3},
}


def test_the_plan_has_every_preset_density_and_seed_once():
    runs = planned(["mnist", "fsdd-spikes"], None, None, (0, 1, 2))
    assert len(set(runs)) == len(runs) == 2 * 3 * (7 * 4 + 1 + 3 * 4)
    presets = {"adaptive", "fixed", "adaptive-landing", "fixed-landing", "static", "dense"}
    assert {run.preset for run in planned(["cifar10"], None, None, (0,))} == presets


@pytest.mark.parametrize("name", sorted(SETS))
def test_runs_of_a_set_differ_in_connections_alone(name):
    configs = [run.config() for run in planned([name], (*PRESETS, *LANDING), (0.1, 0.02), (0,))]
    assert len({config.model_dump_json(exclude={"train": {"rewiring"}}) for config in configs}) == 1
    for config in configs:
        assert config.train.rewiring.preset == "dense" or config.train.rewiring.target_density in (0.1, 0.02)
    assert len({run.key() for run in planned([name], (*PRESETS, *LANDING), (0.1, 0.02), (0, 1))}) == 2 * (15 + 6)


def test_spread():
    assert spread([0.5]) == "50.00 (1)"
    assert spread([0.4, 0.6]) == "50.00 ± 14.14 (2)"
    assert spread([]) == "-"


def test_a_study_trains_what_is_missing_and_says_what_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(plan.SETS, "mnist", DIGITS)

    class Here:
        """A pool of this very process, where the plan is changed."""

        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def submit(self, work, *arguments):
            from concurrent.futures import Future

            future = Future()
            future.set_result(work(*arguments))
            return future

    monkeypatch.setattr("benchmarks.method.__main__.ProcessPoolExecutor", Here)
    command = ["--sets", "mnist", "--densities", "0.2", "--seeds", "0", "-o", str(tmp_path)]
    assert main([*command, "--presets", "adaptive"]) == 0
    run = Run("mnist", "adaptive", 0.2, 0)
    document = json.loads((tmp_path / f"{run.name}.json").read_text())
    assert document["density"] == pytest.approx(0.2, abs=1e-3) and 0 < document["accuracy_test"] < 1
    assert len(document["trajectory"]) == 4
    before = (tmp_path / f"{run.name}.json").stat().st_mtime_ns
    assert main([*command, "--presets", "adaptive", "dense"]) == 0
    assert "2 runs, 1 finished" in capsys.readouterr().out
    assert (tmp_path / f"{run.name}.json").stat().st_mtime_ns == before
    assert main([*command, "--presets", "adaptive", "dense", "static", "--summary"]) == 0
    page = (tmp_path / "study.md").read_text()
    assert "| adaptive | " in page and "- mnist, static: 1 runs" in page
    assert (tmp_path / "method-mnist-trajectory.png").stat().st_size > 1000


def test_only_the_measured_part_of_the_page_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("by hand\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nconclusion\n")
    update_page(page, "new\n")
    assert page.read_text() == "by hand\n<!-- measured: begin -->\n\nnew\n\n<!-- measured: end -->\nconclusion\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks the lines"):
        update_page(page, "new")
