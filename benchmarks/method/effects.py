"""Effects of factors and of shares, with intervals: tables and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.method.plan import FACTORS, GROWTHS, RATIOS, RECIPES, SCHEDULES, SHARED, SHARES
from benchmarks.method.results import Documents, save_figure, spread

# Levels of each factor, the first of which the others are compared with.
LEVELS = {
    "ratio": ("fixed", *(name for name in RATIOS if name != "fixed")),
    "growth": GROWTHS,
    "density": tuple(SCHEDULES),
}
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Effect:
    """A difference of test accuracies in points, with its standard error and half the width of its interval."""

    name: str
    points: float
    error: float
    half: float

    def __str__(self) -> str:
        return f"{self.points:+.2f} ± {self.half:.2f}"


@dataclass(frozen=True)
class Model:
    """Test accuracy, in per cent, as a sum of what seed, ratio, growth and density schedule give (least squares).

    Each factor has an effect for every level but its first. Raises ValueError if the runs do not tell the effects
    apart.
    """

    columns: tuple[str, ...]
    estimates: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    freedom: int
    residual: float

    @classmethod
    def fitted(cls, documents: Documents) -> Model:
        seeds = sorted({item["seed"] for item in documents})
        columns = ["mean", *(f"seed {seed}" for seed in seeds[1:])]
        columns += [level for levels in LEVELS.values() for level in levels[1:]]
        rows = []
        for item in documents:
            chosen = {f"seed {item['seed']}", "mean", *item["preset"].split("+")}
            rows.append([float(column in chosen) for column in columns])
        x, y = np.array(rows), np.array([100 * item["accuracy_test"] for item in documents])
        freedom = len(y) - len(columns)
        if freedom < 1 or np.linalg.matrix_rank(x) < len(columns):
            raise ValueError(f"{len(y)} runs do not tell {len(columns)} effects apart")
        inverse = np.linalg.inv(x.T @ x)
        estimates = inverse @ x.T @ y
        residual = float(np.sum((y - x @ estimates) ** 2) / freedom)
        return cls(tuple(columns), estimates, residual * inverse, freedom, math.sqrt(residual))

    def effect(self, level: str) -> Effect:
        """Of a level against the first one of its factor."""
        from scipy.stats import t

        place = self.columns.index(level)
        error = math.sqrt(float(self.covariance[place, place]))
        half = float(t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * error
        return Effect(level, float(self.estimates[place]), error, half)


def difference(name: str, ours: Documents, theirs: Documents) -> Effect | None:
    """Of two groups of runs (Welch's interval); None where one has fewer than two runs."""
    from scipy.stats import t

    values = [np.array([100 * item["accuracy_test"] for item in group]) for group in (ours, theirs)]
    if any(len(value) < 2 for value in values):
        return None
    parts = [float(np.var(value, ddof=1)) / len(value) for value in values]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Effect(name, float(values[0].mean() - values[1].mean()), 0.0, 0.0)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, values, strict=True))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Effect(name, float(values[0].mean() - values[1].mean()), error, half)


def blocks(documents: Documents) -> dict[tuple[str, float], list[Mapping[str, Any]]]:
    """Runs by data set and target density."""
    found: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for item in sorted(documents, key=lambda item: (item["set"], -item["target_density"])):
        found.setdefault((item["set"], item["target_density"]), []).append(item)
    return found


def models(documents: Documents) -> dict[str, Model]:
    """A model for each data set and density whose runs are enough for one, by a text that names it."""
    found = {}
    for (name, density), runs in blocks([item for item in documents if item["preset"] in FACTORS]).items():
        try:
            found[f"{name}, {100 * density:g} %"] = Model.fitted(runs)
        except ValueError:
            continue
    return found


def factors_text(documents: Documents, images: str) -> str:
    """Tables of the factors: the effect of each level, then every cell."""
    documents = [item for item in documents if item["preset"] in FACTORS]
    found = models(documents)
    counts = {key: len(runs) for key, runs in blocks(documents).items()}
    parts = _table_of_effects(found, images) if found else []
    parts += _cells(documents, counts, list(FACTORS), "ratio, growth, density")
    return "\n".join(parts).rstrip() + "\n"


def _table_of_effects(found: Mapping[str, Model], images: str) -> list[str]:
    parts = [
        "Points of test accuracy that a level gives more than the first level of its factor, with "
        f"{100 * CONFIDENCE:g} % intervals; least squares over all runs of a set and density, seeds taken out.",
        "",
        "| | " + " | ".join(found) + " |",
        "|---" * (len(found) + 1) + "|",
    ]
    for factor, (first, *levels) in LEVELS.items():
        for level in levels:
            cells = " | ".join(str(model.effect(level)) for model in found.values())
            parts.append(f"| {factor}: {level} against {first} | {cells} |")
    parts.append("| one run, standard deviation | " + " | ".join(f"{m.residual:.2f}" for m in found.values()) + " |")
    parts.append("| runs | " + " | ".join(str(model.freedom + len(model.columns)) for model in found.values()) + " |")
    return [*parts, "", *(f"![Effects of {factor}]({images}/method-effect-{factor}.png)\n" for factor in LEVELS)]


def shares_text(documents: Documents) -> str:
    """Tables of the shares: every cell, and its difference from the Erdos-Renyi share of the same schedule."""
    found = [item for item in documents if item["preset"] in SHARED or item["preset"] in _bases()]
    grouped = blocks(found)
    keys = [key for key, runs in grouped.items() if any(item["preset"] in SHARED for item in runs)]
    parts = [
        "Points of test accuracy more than with the Erdős-Rényi share of the same schedule (fixed ratio, growth by "
        f"momentum), with {100 * CONFIDENCE:g} % intervals (Welch).",
        "",
        "| share, density | " + " | ".join(f"{name}, {100 * density:g} %" for name, density in keys) + " |",
        "|---" * (len(keys) + 1) + "|",
    ]
    for recipe in SHARED:
        cells = []
        for key in keys:
            runs = [[item for item in grouped[key] if item["preset"] == name] for name in (recipe, _base(recipe))]
            effect = difference(recipe, *runs)
            cells.append("-" if effect is None else str(effect))
        parts.append(f"| {recipe} | " + " | ".join(cells) + " |")
    counts = {key: len(grouped[key]) for key in keys}
    parts += ["", *_cells(found, counts, [*_bases(), *SHARED], "share, density")]
    return "\n".join(parts).rstrip() + "\n"


def _bases() -> tuple[str, ...]:
    return tuple(f"fixed+momentum+{schedule}" for schedule in SCHEDULES)


def _base(recipe: str) -> str:
    """What a share is compared with."""
    share, _, schedule = recipe.partition("+")
    return f"fixed+momentum+{schedule if share in SHARES else 'falling'}"


def _cells(documents: Documents, keys: Mapping[tuple[str, float], int], recipes: Sequence[str], head: str) -> list[str]:
    """A table of mean and deviation of every recipe in every data set and density."""
    grouped = blocks(documents)
    parts = [
        "Test accuracy in %, mean ± sample standard deviation (runs).",
        "",
        f"| {head} | " + " | ".join(f"{name}, {100 * density:g} %" for name, density in keys) + " |",
        "|---" * (len(keys) + 1) + "|",
    ]
    for recipe in recipes:
        values = [[item["accuracy_test"] for item in grouped[key] if item["preset"] == recipe] for key in keys]
        parts.append(f"| {recipe.replace('+', ', ')} | " + " | ".join(map(spread, values)) + " |")
    return parts


def effect_plots(documents: Documents, folder: Path) -> None:
    """A PNG file for each factor: the effect of its levels with intervals, by data set and density."""
    from matplotlib.figure import Figure

    found = models(documents)
    for factor, (first, *levels) in LEVELS.items() if found else ():
        figure = Figure(figsize=(7, 0.8 + 0.32 * len(levels) * len(found)), layout="constrained")
        axes = figure.subplots()
        names = []
        for level in levels:
            for block, model in found.items():
                effect = model.effect(level)
                axes.errorbar(effect.points, -len(names), xerr=effect.half, fmt="o", color="C0", capsize=3)
                names.append(f"{level} against {first}: {block}")
        axes.axvline(0, color="grey", lw=0.8)
        axes.set_yticks([-place for place in range(len(names))], names, fontsize=8)
        axes.set_ylim(0.6 - len(names), 0.6)
        axes.set(xlabel=f"points of test accuracy, {100 * CONFIDENCE:g} % interval", title=factor)
        save_figure(figure, folder / f"method-effect-{factor}.png")


def _reads_index(options: Mapping[str, Any]) -> bool:
    return options.get("ratio") == "pq" or options.get("share") == "index"


def best_text(documents: Documents) -> str:
    """Of each data set and density: the best recipe that reads the index, the best that does not, their difference.

    Both are chosen by what they are compared by, so that the interval is too narrow; said in the text.
    """
    lines = []
    for (name, density), runs in blocks(documents).items():
        by_recipe: dict[str, list[Mapping[str, Any]]] = {}
        for item in runs:
            by_recipe.setdefault(item["preset"], []).append(item)
        ranked = sorted(by_recipe, key=lambda recipe: -mean(item["accuracy_test"] for item in by_recipe[recipe]))
        reads = [recipe for recipe in ranked if _reads_index(RECIPES[recipe])]
        others = [recipe for recipe in ranked if recipe not in reads]
        if not reads or not others:
            continue
        effect = difference(reads[0], by_recipe[reads[0]], by_recipe[others[0]])
        lines.append(
            f"| {name}, {100 * density:g} % | {reads[0].replace('+', ', ')} | {others[0].replace('+', ', ')} | "
            f"{'-' if effect is None else effect} |"
        )
    head = [
        "The best recipe that reads the index against the best that does not. Each is the best of many, and the "
        "interval does not know that.",
        "",
        "| set, density | best with the index | best without | difference, points |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) + "\n" if lines else ""
