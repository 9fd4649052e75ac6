"""The study's plan and its resumption, on digits in place of its data sets."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.method import plan
from benchmarks.method.__main__ import main
from benchmarks.method.effects import (
    LEVELS,
    Model,
    as_accurate,
    best_text,
    effect_plots,
    exponents_text,
    factors_text,
    grid_text,
    shares_text,
    stop_text,
)
from benchmarks.method.hardware import OPERATIONS, machines_text, operations_plot, operations_text
from benchmarks.method.kept import keep, kept
from benchmarks.method.plan import FACTORS, GRID, GROUPS, LANDING, PRESETS, RECIPES, SETS, SHARED, Run, planned
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


def test_factors_cross_every_level_and_shares_differ_from_their_base_in_the_share_alone():
    assert len(FACTORS) == 3 * 3 * 2 and set(RECIPES) == {name for names in GROUPS.values() for name in names}
    assert {tuple(name.split("+")) for name in FACTORS} == {
        (ratio, growth, density)
        for ratio in LEVELS["ratio"]
        for growth in LEVELS["growth"]
        for density in LEVELS["density"]
    }
    keys = {Run("mnist", name, 0.05, 0).key() for name in RECIPES}
    assert len(keys) == len(RECIPES)
    for name in SHARED:
        run = Run("mnist", name, 0.05, 0).config().train.rewiring
        schedule = "steady" if name.endswith("steady") else "falling"
        base = Run("mnist", f"fixed+momentum+{schedule}", 0.05, 0).config().train.rewiring
        changed = {key for key, value in run.model_dump().items() if value != base.model_dump()[key]}
        assert changed and changed <= {"share", "scope", "landing", "distribution", "growth"}, name


def cells(noise=0.0, seeds=(0, 1, 2), **effects):
    """Made-up results of every cell: 80 %, what each level gives, what each seed gives, and noise."""
    rng = np.random.default_rng(5)
    return [
        {
            "set": "mnist",
            "preset": name,
            "target_density": 0.05,
            "seed": seed,
            "accuracy_test": 0.8 + 0.01 * seed + sum(effects.get(level, 0) for level in name.split("+")) / 100
            + noise * rng.standard_normal() / 100,
        }
        for name in FACTORS
        for seed in seeds
    ]  # fmt: skip


def test_the_model_finds_the_effects_that_were_put_in():
    model = Model.fitted(cells(pq=-1.5, gradient=-0.5, falling=2.0))
    found = {level: model.effect(level) for levels in LEVELS.values() for level in levels[1:]}
    expected = {"pq": -1.5, "cosine": 0, "gradient": -0.5, "random": 0, "falling": 2.0}
    for level, points in expected.items():
        assert found[level].points == pytest.approx(points, abs=1e-9) and found[level].half < 1e-6
    assert model.freedom == 54 - 8


def test_intervals_hold_the_effect_about_as_often_as_they_say():
    rng, base, held = np.random.default_rng(9), cells(pq=1.0), 0
    for _ in range(200):
        effect = Model.fitted(
            [{**item, "accuracy_test": item["accuracy_test"] + 0.02 * rng.standard_normal()} for item in base]
        ).effect("pq")
        held += abs(effect.points - 1) <= effect.half
    assert 0.91 <= held / 200 <= 0.99


def test_too_few_runs_give_no_effect():
    with pytest.raises(ValueError, match="do not tell 8 effects apart"):
        Model.fitted(cells()[:6])
    text = factors_text(cells()[:6], "images")
    assert "| pq, momentum, steady | 81.00 ± 1.00 (3) |" in text and " against " not in text


def test_a_set_of_one_cell_makes_no_column_of_the_factors():
    alone = {**cells()[0], "set": "cifar10"}
    assert "cifar10" not in factors_text([*cells(), alone], "images")
    assert "cifar10" in factors_text([*cells(), alone, {**cells()[3], "set": "cifar10"}], "images")


def test_difference_of_two_recipes():
    with pytest.raises(ValueError, match="do not tell"):
        Model.of_recipes([{"preset": "a", "seed": 0, "accuracy_test": 0.5}])
    values = {"a": (0.51, 0.51, 0.54), "b": (0.40, 0.42, 0.44)}
    found = Model.of_recipes(
        [
            {"preset": name, "seed": seed, "accuracy_test": value}
            for name, of_seed in values.items()
            for seed, value in enumerate(of_seed)
        ]
    )
    effect = found.effect("a", "b")
    # The textbook's paired differences: 11, 9 and 10 points, and their 2 degrees of freedom.
    assert effect.points == pytest.approx(10) and effect.error == pytest.approx(1 / np.sqrt(3))
    assert effect.half == pytest.approx(4.302653 * effect.error)
    assert found.effect("b", "a").points == pytest.approx(-10)


def test_options_of_the_index_change_one_thing_each():
    for name in GRID:
        run = Run("mnist", name, 0.05, 0).config().train.rewiring
        base = Run("mnist", "pq+momentum+falling", 0.05, 0).config().train.rewiring
        changed = {key for key, value in run.model_dump().items() if value != base.model_dump()[key]}
        assert len(changed - {"landing"}) == (name != "scope-layer") or changed in (
            {"p", "q"},
            {"ratio", "fraction"},
        ), name
    base = cells(noise=0.1)
    better = [
        {**item, "preset": "eta-0", "accuracy_test": item["accuracy_test"] + 0.02}
        for item in base
        if item["preset"] == "pq+momentum+falling"
    ]
    text = grid_text([*base, *better])
    rows = {line.split(" | ")[0]: line for line in reversed(text.splitlines())}
    assert "+2.00 ±" in rows["| eta-0"] and rows["| gamma-2"].endswith("| - |") and text.count("| scope-layer |") == 1


def test_the_turning_point_is_held_against_the_target_of_the_same_accuracy():
    def run(preset, density, accuracy, seed=0):
        return {"set": "mnist", "preset": preset, "seed": seed, "density": density, "target_density": density,
                "accuracy_validation": accuracy, "accuracy_test": accuracy}  # fmt: skip

    steps = [run("pq+momentum+falling", density, accuracy) for density, accuracy in ((0.04, 0.8), (0.01, 0.6))]
    assert as_accurate(steps, 0.7) == pytest.approx(0.02)
    assert (as_accurate(steps, 0.5), as_accurate(steps, 0.9)) == (0.01, 0.04)
    dips = [*steps, run("pq+momentum+falling", 0.16, 0.7)]
    assert as_accurate(dips, 0.7) == pytest.approx(0.02) and as_accurate(dips, 0.75) == pytest.approx(0.04 * 0.25**0.25)
    text = stop_text([*steps, run("turning", 0.06, 0.7)])
    assert "| mnist | 6.00 (1) | 70.00 (1) | 3.00 | - |" in text and stop_text(steps) == ""
    # What is only for that comparison makes no columns of the other tables.
    assert "20 %" not in factors_text([*cells(), run("pq+momentum+falling", 0.2, 0.9)], "images")
    assert len(planned(["mnist"], GROUPS["stop"], None, (0,))) == 1 + 2 * 4


def test_shares_are_compared_with_the_same_schedule(tmp_path):
    base = cells(noise=0.1)
    shares = [
        {**item, "preset": f"global+{item['preset'].split('+')[-1]}", "accuracy_test": item["accuracy_test"] + 0.03}
        for item in base
        if item["preset"].startswith("fixed+momentum")
    ]
    text = shares_text([*base, *shares])
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert "+3.00 ±" in rows["| global+steady"] and "+3.00 ±" in rows["| global+falling"]
    assert rows["| granet"].endswith("| - |")
    assert "| mnist, 5 % | " in best_text(base)
    effect_plots(base, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"method-effect-{name}.png" for name in LEVELS}


def test_operations_are_compared_at_equal_accuracy(tmp_path):
    def run(preset, operations, accuracy, seed, density=0.05):
        return {"set": "mnist", "preset": preset, "seed": seed, "target_density": density,
                "accuracy_test": accuracy, OPERATIONS: operations}  # fmt: skip

    ladder = [
        run("fixed+momentum+falling", 1000 * density, accuracy + seed / 100, seed, density)
        for seed in (0, 1)
        for density, accuracy in ((0.2, 0.9), (0.05, 0.8), (0.02, 0.6))
    ]
    found = [
        # Half way from 20 to 50 operations, by their logarithm, and from 50 to 200.
        *(run("index-layer+steady", 2 * (20 * 50) ** 0.5, 0.7 + seed / 100, seed) for seed in (0, 1)),
        *(run("p-1-q-2", 0.8 * (50 * 200) ** 0.5, 0.85 + seed / 100, seed) for seed in (0, 1)),
        run("uniform+steady", 10, 0.7, 0), run("uniform+steady", 10, 0.5, 1),
        run("granet", 10, 0.95, 0),
    ]  # fmt: skip
    text = operations_text([*ladder, *found])
    rows = dict(line.strip("| ").rsplit(" | ", 1) for line in text.splitlines() if line.startswith("| "))
    assert rows["recipe"] == "mnist, 5 %" and rows["fixed, momentum, falling"] == "1"
    assert rows["index-layer, steady"] == "2.00 (2.00 to 2.00)" and rows["p-1-q-2"] == "0.80 (0.80 to 0.80)"
    assert (rows["uniform, steady"], rows["granet"], rows["index-layer, falling"]) == ("less", "more", "-")
    assert operations_text(found) == operations_text(ladder) == ""
    operations_plot([*ladder, *found], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_index_with_other_exponents_is_compared_with_the_same_connections():
    def runs(preset, accuracy):
        return [{"set": "mnist", "preset": preset, "seed": seed, "target_density": 0.05,
                 "accuracy_test": accuracy + seed / 1000} for seed in (0, 1, 2)]  # fmt: skip

    found = [
        *runs("p-1-q-2", 0.9),
        *runs("fixed-0.24", 0.88),
        *runs("p-1-q-2+steady", 0.7),
        *runs("cosine-0.48+steady", 0.8),
    ]
    rows = {line.split(" | ")[0]: line for line in reversed(exponents_text(found).splitlines())}
    assert "-2.00 ± 0.00" in rows["| fixed-0.24"] and "+10.00 ± 0.00" in rows["| cosine-0.48+steady"]
    assert rows["| cosine-0.48"].endswith("| - |")


def test_kept_runs_are_read_again_and_replaced_by_newer_ones(tmp_path):
    path = tmp_path / "runs.jsonl"
    documents = [{**item, "trajectory": [1]} for item in cells()[:3]]
    keep(documents, path)
    keep([{**documents[0], "accuracy_test": 0.1}], path)
    found = kept(path)
    assert len(found) == 3 and not any("trajectory" in item for item in found.values())
    assert found[Run("mnist", documents[0]["preset"], 0.05, documents[0]["seed"]).name]["accuracy_test"] == 0.1


def test_the_pages_tables_are_those_of_the_kept_runs():
    page, documents = Path("docs/method-study.md").read_text(encoding="utf-8"), list(kept().values())
    assert documents and all(item["key"] == Run(*(item[key] for key in NAMED)).key() for item in documents)
    assert factors_text(documents, "images").strip() in page
    assert f"{shares_text(documents)}\n{best_text(documents)}".strip() in page
    for text in (grid_text, exponents_text, stop_text, operations_text, machines_text):
        assert text(documents).strip() in page, text


NAMED = ("set", "preset", "target_density", "seed")


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
    monkeypatch.setattr("benchmarks.method.kept.KEPT", tmp_path / "kept.jsonl")
    assert main([*command, "--presets", "adaptive", "dense", "static", "--summary"]) == 0
    page = (tmp_path / "study.md").read_text()
    assert "| adaptive | " in page and "- mnist, static: 1 runs" in page
    assert main([*command, "--presets", "factors", "--summary"]) == 0
    assert "18 runs, 0 finished" in capsys.readouterr().out
    assert (tmp_path / "method-mnist-trajectory.png").stat().st_size > 1000
    # A finished run without what hardware is asked for is done again, to the same network.
    assert main([*command, "--presets", "adaptive", "--hardware"]) == 0
    again = json.loads((tmp_path / f"{run.name}.json").read_text())
    machine = again["hardware"]["machines"]["balanced"]
    assert again["accuracy_test"] == document["accuracy_test"] and 0 < again["hardware"]["accuracy_test"] < 1
    assert machine["cycles"] > 0 and machine["memory_bits"] > 0 and machine["block_ram"] >= 1
    before = (tmp_path / f"{run.name}.json").stat().st_mtime_ns
    assert main([*command, "--presets", "adaptive", "--hardware"]) == 0
    assert (tmp_path / f"{run.name}.json").stat().st_mtime_ns == before


def test_only_the_measured_part_of_the_page_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("by hand\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nconclusion\n")
    update_page(page, "new\n")
    assert page.read_text() == "by hand\n<!-- measured: begin -->\n\nnew\n\n<!-- measured: end -->\nconclusion\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks the lines"):
        update_page(page, "new")
