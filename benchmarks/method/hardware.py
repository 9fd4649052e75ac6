"""What recipes ask of hardware: synaptic operations at equal accuracy, estimates of the machines of their networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks.method.effects import as_accurate, blocks, ratio_text, reads_index
from benchmarks.method.plan import EXPONENTS, FACTORS, LADDER, RECIPES, SHARED
from benchmarks.method.results import Documents, save_figure, spread

if TYPE_CHECKING:
    from codesign.config import Config
    from codesign.data import Dataset
    from codesign.train.loop import TrainResult

# Recipes that differ in where they are sparse or in how much they rewire, and those that they are compared with.
COMPARED = (*(name for name in FACTORS if "+momentum+" in name), *SHARED, *EXPONENTS)
GOALS = ("balanced",)
FAMILY = "ecp5"
OPERATIONS = "synaptic_operations_per_sample"


def machines(config: Config, result: TrainResult, dataset: Dataset) -> dict[str, Any]:
    """The network in integers (``[freeze]``'s defaults), and estimates of its machine for each of GOALS.

    ``accuracy_test`` of the integers; ``machines`` by goal: ``cycles`` of a sample (mean of calibration samples),
    ``memory_bits``, ``block_ram`` of FAMILY.
    """
    from codesign.config import HardwareConfig
    from codesign.explore.jobs import estimate_machines
    from codesign.quantise.freeze import freeze

    frozen = freeze(config, result, dataset)
    found = estimate_machines(frozen.network, [HardwareConfig(goal=goal) for goal in GOALS], frozen.calibration)
    return {
        "accuracy_test": frozen.figures["accuracy_frozen"],
        "machines": {
            goal: {
                "cycles": item["cycles"],
                "memory_bits": item["memory_bits"],
                "block_ram": item["area"][FAMILY]["bram"],
            }
            for goal, item in zip(GOALS, found, strict=True)
        },
    }


def operations_text(documents: Documents) -> str:
    """Operations of each recipe, over those at which the ladder without the index has the same test accuracy."""
    ladder = _ladder(documents)
    grouped = _held_against(ladder, documents)
    keys = list(grouped)
    if not keys:
        return ""
    parts = [
        f"Synaptic operations of a test sample, over those at which {LADDER[1].replace('+', ', ')} has the same test "
        "accuracy, between its runs to 20, 10, 5 and 2 % of the same seed: geometric mean, 95 % interval over the "
        "seeds. Below 1 the recipe takes fewer. *less*, *more*: a run of it is less, or more, accurate than each of "
        "those.",
        "",
        "| recipe | " + " | ".join(f"{name}, {100 * density:g} %" for name, density in keys) + " |",
        "|---" * (len(keys) + 1) + "|",
    ]
    for recipe in COMPARED:
        cells = []
        for key in keys:
            runs = [item for item in grouped[key] if item["preset"] == recipe and _run(item) in ladder]
            cells.append(_cell([(item, ladder[_run(item)]) for item in runs]) if recipe != LADDER[1] else "1")
        parts.append(f"| {recipe.replace('+', ', ')} | {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def _cell(compared: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]) -> str:
    """Runs, each with its ladder."""
    ratios = []
    for item, steps in compared:
        accuracies = [step["accuracy_test"] for step in steps]
        if item["accuracy_test"] < min(accuracies):
            return "less"
        if item["accuracy_test"] > max(accuracies):
            return "more"
        ratios.append(item[OPERATIONS] / as_accurate(steps, item["accuracy_test"], "accuracy_test", OPERATIONS))
    return ratio_text(ratios)


def _run(item: Mapping[str, Any]) -> tuple[str, int]:
    return item["set"], item["seed"]


def _ladder(documents: Documents) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Runs to falling targets without the index, by set and seed, where there are more than two."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for item in documents:
        if item["preset"] == LADDER[1]:
            found.setdefault(_run(item), []).append(item)
    return {run: steps for run, steps in found.items() if len(steps) > 2}


def _held_against(
    ladder: Mapping[tuple[str, int], object], documents: Documents
) -> dict[tuple[str, float], list[Mapping[str, Any]]]:
    """Runs by set and density; without a ladder, or with nothing beside it, there is nothing to compare with."""
    grouped = blocks([item for item in documents if item["preset"] in COMPARED])
    return {
        key: runs
        for key, runs in grouped.items()
        if any(_run(item) in ladder and item["preset"] not in LADDER for item in runs)
    }


def machines_text(documents: Documents) -> str:
    """Estimates of the machines of those runs that have them, means over the seeds."""
    grouped = blocks([item for item in documents if "hardware" in item])
    parts = []
    for (name, density), runs in grouped.items():
        parts += [
            f"Networks of {name} at {100 * density:g} %, in integers of 6 bits: test accuracy in %, mean ± sample "
            f"standard deviation (runs); estimates, means: thousand synaptic operations, clocks a sample and kilobits "
            f"of memory of the machines {' and '.join(f'*{goal}*' for goal in GOALS)}, and blocks of {FAMILY.upper()}.",
            "",
            "| recipe | accuracy | operations |"
            + "".join(f" {goal}: clocks | kbit | blocks |" for goal in GOALS),
            "|---" * (3 + 3 * len(GOALS)) + "|",
        ]  # fmt: skip
        for recipe in COMPARED:
            mine = [item for item in runs if item["preset"] == recipe]
            if not mine:
                continue
            cells = [spread([item["hardware"]["accuracy_test"] for item in mine])]
            cells.append(f"{mean(item[OPERATIONS] for item in mine) / 1000:.1f}")
            for goal in GOALS:
                of_goal = [item["hardware"]["machines"][goal] for item in mine]
                cells += [
                    f"{mean(item['cycles'] for item in of_goal):,.0f}",
                    f"{mean(item['memory_bits'] for item in of_goal) / 1000:.1f}",
                    f"{mean(item['block_ram'] for item in of_goal):.1f}",
                ]
            parts.append(f"| {recipe.replace('+', ', ')} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n" if parts else ""


def operations_plot(documents: Documents, path: Path) -> None:
    """Test accuracy against synaptic operations: a panel for each data set, a mark for each recipe and density."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    sets = {name for name, _ in _held_against(_ladder(documents), documents)}
    chosen = [item for item in documents if item["preset"] in COMPARED and item["set"] in sets]
    names = list(dict.fromkeys(item["set"] for item in chosen))
    figure = Figure(figsize=(5 * len(names), 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for recipe in COMPARED:
            by_density: dict[float, list[Mapping[str, Any]]] = {}
            for item in chosen:
                if (item["set"], item["preset"]) == (name, recipe):
                    by_density.setdefault(item["target_density"], []).append(item)
            points = sorted(
                (mean(item[OPERATIONS] for item in runs), 100 * mean(item["accuracy_test"] for item in runs))
                for runs in by_density.values()
            )
            if not points:
                continue
            falls = RECIPES[recipe]["density_schedule"] == "falling"
            axes.plot(
                *zip(*points, strict=True),
                linestyle="-" if recipe == LADDER[1] else "",
                marker="o" if falls else "s",
                markersize=5,
                color="C1" if falls else "C0",
                markerfacecolor=("C1" if falls else "C0") if reads_index(RECIPES[recipe]) else "white",
            )
        axes.set(xscale="log", xlabel="synaptic operations a sample", ylabel="test accuracy, %", title=name)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes = figure.axes[0]
    for label, style in (
        (f"{LADDER[1].replace('+', ', ')}, to 20, 10, 5, 2 %", {"linestyle": "-", "color": "C1"}),
        ("falling density, reads the index", {"marker": "o", "color": "C1"}),
        ("falling density, without", {"marker": "o", "color": "C1", "markerfacecolor": "white"}),
        ("steady density, reads the index", {"marker": "s", "color": "C0"}),
        ("steady density, without", {"marker": "s", "color": "C0", "markerfacecolor": "white"}),
    ):
        axes.plot([], [], label=label, **{"linestyle": "", "markersize": 5, **style})
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    save_figure(figure, path)
