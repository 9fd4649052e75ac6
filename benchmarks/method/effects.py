"""Effects of factors and of shares, with intervals: tables and plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.method.plan import (
    EXPONENTS,
    FACTORS,
    GRID,
    GRID_BASE,
    GROWTHS,
    LADDER,
    LARGER,
    RATIOS,
    RECIPES,
    SCHEDULES,
    SHARED,
    SHARES,
    TURNING,
)
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
    """Test accuracy, in per cent, as a sum of what a run's columns give (least squares).

    Runs vary alike, whatever their recipe: ``residual`` is the standard deviation of one, of ``freedom`` degrees.
    """

    columns: tuple[str, ...]
    estimates: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    freedom: int
    residual: float

    @classmethod
    def _of(cls, documents: Documents, columns: Sequence[str], parts: Callable[[Mapping[str, Any]], set[str]]) -> Model:
        """``parts`` : which columns are of a run; its seed's always is."""
        seeds = sorted({item["seed"] for item in documents})
        columns = [*columns, *(f"seed {seed}" for seed in seeds[1:])]
        rows = []
        for item in documents:
            chosen = {f"seed {item['seed']}", *parts(item)}
            rows.append([float(column in chosen) for column in columns])
        x, y = np.array(rows), np.array([100 * item["accuracy_test"] for item in documents])
        freedom = len(y) - len(columns)
        if freedom < 1 or np.linalg.matrix_rank(x) < len(columns):
            raise ValueError(f"{len(y)} runs do not tell {len(columns)} effects apart")
        inverse = np.linalg.inv(x.T @ x)
        estimates = inverse @ x.T @ y
        residual = float(np.sum((y - x @ estimates) ** 2) / freedom)
        return cls(tuple(columns), estimates, residual * inverse, freedom, math.sqrt(residual))

    @classmethod
    def fitted(cls, documents: Documents) -> Model:
        """What ratio, growth and density schedule give, an effect for every level but the first of each.

        Raises ValueError if the runs do not tell the effects apart.
        """
        columns = ["mean", *(level for levels in LEVELS.values() for level in levels[1:])]
        return cls._of(documents, columns, lambda item: {"mean", *item["preset"].split("+")})

    @classmethod
    def of_recipes(cls, documents: Documents) -> Model:
        """What each recipe gives. Raises ValueError if there is one run of each."""
        return cls._of(documents, sorted({item["preset"] for item in documents}), lambda item: {item["preset"]})

    def effect(self, level: str, against: str | None = None) -> Effect:
        """Of a column against another; against the first level of its factor, where that has none."""
        from scipy.stats import t

        weights = np.zeros(len(self.columns))
        weights[self.columns.index(level)] += 1
        if against is not None:
            weights[self.columns.index(against)] -= 1
        error = math.sqrt(float(weights @ self.covariance @ weights))
        half = float(t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * error
        return Effect(level, float(weights @ self.estimates), error, half)


def blocks(documents: Documents) -> dict[tuple[str, float], list[Mapping[str, Any]]]:
    """Runs by data set and target density."""
    found: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for item in sorted(documents, key=lambda item: (item["set"], -item["target_density"])):
        found.setdefault((item["set"], item["target_density"]), []).append(item)
    return found


def _crossed(documents: Documents) -> list[Mapping[str, Any]]:
    """Runs of the sets and densities where more was done than what the turning point is held against."""
    grouped = blocks(documents)
    return [
        item
        for runs in grouped.values()
        for item in runs
        if {found["preset"] for found in runs} - {TURNING, *LADDER} or item["preset"] not in LADDER
    ]


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
    documents = [item for item in _crossed(documents) if item["preset"] in FACTORS]
    found = models(documents)
    # A cell alone compares nothing; it is of a set in which shares were compared with it.
    counts = {key: len(runs) for key, runs in blocks(documents).items() if len({item["preset"] for item in runs}) > 1}
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
    head = "Points of test accuracy more than with the Erdős-Rényi share of the same schedule, fixed ratio and momentum"
    return _compared(documents, tuple(SHARED), _base, head, "share, density")


def grid_text(documents: Documents) -> str:
    """Tables of the options of the index: every cell, and its difference from the recipe that it changes."""
    head = f"Points of test accuracy more than {GRID_BASE.replace('+', ', ')}; of the scopes more than scope-layer"
    return _compared(documents, tuple(GRID), _grid_base, head, "one change")


def exponents_text(documents: Documents) -> str:
    """Tables of (p, q) = (1, 2) and of ratios as large without the index: every cell, and what it gives more."""
    index, *others = LARGER
    head = f"Points of test accuracy more than with {index} and the same connections"

    def base(recipe: str) -> str:
        return next((recipe.replace(other, index) for other in others if recipe.startswith(other)), recipe)

    return _compared(documents, tuple(EXPONENTS), base, head, "recipe")


def _compared(documents: Documents, recipes: Sequence[str], base: Callable[[str], str], head: str, column: str) -> str:
    """The difference of each recipe from its base, in every data set and density, then the cells themselves."""
    bases = tuple(dict.fromkeys(base(recipe) for recipe in recipes))
    listed = tuple(dict.fromkeys((*bases, *recipes)))
    grouped = blocks([item for item in documents if item["preset"] in listed])
    keys = [key for key, runs in grouped.items() if any(item["preset"] in recipes for item in runs)]
    parts = [
        f"{head}, with {100 * CONFIDENCE:g} % intervals; least squares over the runs of a column, seeds taken out.",
        "",
        f"| {column} | " + " | ".join(f"{name}, {100 * density:g} %" for name, density in keys) + " |",
        "|---" * (len(keys) + 1) + "|",
    ]
    fitted = {key: _of_recipes(grouped[key]) for key in keys}
    for recipe in recipes:
        cells = " | ".join(_difference(fitted[key], recipe, base(recipe)) for key in keys)
        parts += [f"| {recipe} | {cells} |"] * (recipe != base(recipe))
    deviations = " | ".join("-" if (model := fitted[key]) is None else f"{model.residual:.2f}" for key in keys)
    parts += [f"| one run, standard deviation | {deviations} |"]
    counts = {key: len(grouped[key]) for key in keys}
    found = [item for runs in grouped.values() for item in runs]
    parts += ["", *_cells(found, counts, listed, column)]
    return "\n".join(parts).rstrip() + "\n"


def _of_recipes(documents: Documents) -> Model | None:
    try:
        return Model.of_recipes(documents)
    except ValueError:
        return None


def _difference(model: Model | None, ours: str, theirs: str) -> str:
    if model is None or not {ours, theirs} <= set(model.columns):
        return "-"
    return str(model.effect(ours, theirs))


def _base(recipe: str) -> str:
    """What a share is compared with."""
    share, _, schedule = recipe.partition("+")
    return f"fixed+momentum+{schedule if share in SHARES else 'falling'}"


def _grid_base(recipe: str) -> str:
    """What a change of one option is compared with."""
    return "scope-layer" if recipe.startswith("scope-") else GRID_BASE


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


def reads_index(options: Mapping[str, Any]) -> bool:
    """True if a recipe with these options asks the PQ index how much to rewire, or where."""
    return options.get("ratio") == "pq" or options.get("share") == "index"


def best_text(documents: Documents) -> str:
    """Of each data set and density: the best recipe that reads the index, the best that does not, their difference.

    Both are chosen by what they are compared by, so that the interval is too narrow; said in the text.
    """
    lines = []
    for (name, density), runs in blocks([item for item in _crossed(documents) if item["preset"] != TURNING]).items():
        by_recipe: dict[str, list[Mapping[str, Any]]] = {}
        for item in runs:
            by_recipe.setdefault(item["preset"], []).append(item)
        ranked = sorted(by_recipe, key=lambda recipe: -mean(item["accuracy_test"] for item in by_recipe[recipe]))
        reads = [recipe for recipe in ranked if reads_index(RECIPES[recipe])]
        others = [recipe for recipe in ranked if recipe not in reads]
        if not reads or not others:
            continue
        lines.append(
            f"| {name}, {100 * density:g} % | {reads[0].replace('+', ', ')} | {others[0].replace('+', ', ')} | "
            f"{_difference(_of_recipes(runs), reads[0], others[0])} |"
        )
    head = [
        f"The best recipe that reads the index against the best that does not, with {100 * CONFIDENCE:g} % intervals. "
        "Each is the best of many, and the interval does not know that.",
        "",
        "| set, density | best with the index | best without | difference, points |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) + "\n" if lines else ""


def stop_text(documents: Documents) -> str:
    """Where the turning point ends, and the density at which a fixed target has the same validation accuracy."""
    lines = []
    for name in dict.fromkeys(item["set"] for item in documents if item["preset"] == TURNING):
        turned = [item for item in documents if item["set"] == name and item["preset"] == TURNING]
        cells = [name, spread([item["density"] for item in turned]), spread([i["accuracy_validation"] for i in turned])]
        for recipe in LADDER:
            ratios = []
            for item in turned:
                steps = [
                    run for run in documents
                    if (run["set"], run["preset"], run["seed"]) == (name, recipe, item["seed"])
                ]  # fmt: skip
                if len(steps) > 1:
                    ratios.append(item["density"] / as_accurate(steps, item["accuracy_validation"]))
            cells.append(ratio_text(ratios))
        lines.append(f"| {' | '.join(cells)} |")
    head = [
        "Density and validation accuracy in %, and the density over the one at which a fixed target has that accuracy: "
        f"geometric mean, {100 * CONFIDENCE:g} % interval over the seeds. Above 1 the fixed target is sparser. "
        "Beyond the fixed targets that were run it is that of the nearest.",
        "",
        "| set | density | validation accuracy | against "
        + " | against ".join(r.replace("+", ", ") for r in LADDER)
        + " |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) + "\n" if lines else ""


def as_accurate(
    steps: Documents, accuracy: float, measured: str = "accuracy_validation", size: str = "density"
) -> float:
    """The least density, or other ``size``, at which runs to fixed targets have an accuracy, by its logarithm between.

    Beyond the runs that there are it is that of the nearest.
    """
    ordered = sorted(steps, key=lambda run: run[size])
    for low, high in pairwise(ordered):
        below, above = low[measured], high[measured]
        if accuracy <= below:
            return float(low[size])
        if accuracy <= above:
            part = (accuracy - below) / (above - below)
            return float(low[size] * (high[size] / low[size]) ** part)
    return float(ordered[-1][size])


def ratio_text(values: Sequence[float]) -> str:
    """Geometric mean and interval."""
    from scipy.stats import t

    if not values:
        return "-"
    logs = np.log(values)
    if len(values) == 1:
        return f"{values[0]:.2f}"
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * float(np.std(logs, ddof=1)) / math.sqrt(len(values))
    centre = float(np.mean(logs))
    return f"{math.exp(centre):.2f} ({math.exp(centre - half):.2f} to {math.exp(centre + half):.2f})"
