"""The picture of an exploration: accuracy against a cost, coloured by density, with others' figures beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from codesign.report.plots import BLUE, DPI, GRID, MUTED, ORANGE, RED, SURFACE, percent, style


def tradeoff(
    points: Sequence[Mapping[str, Any]], peers: Sequence[Mapping[str, Any]], cost: str, names: Mapping[str, str]
) -> Figure:
    """Accuracy against a cost, coloured by density, with others' published figures beside.

    points : rows of ``explore.json``'s table; those that break a constraint are left out. peers : as of
    :func:`codesign.report.explorer.peers_of`. cost : name of a metric. names : labels of ``cost`` and ``accuracy``.
    The line is what no point beats in these two; rings are the front over all objectives.
    """
    known = [p for p in points if not p["broken"] and None not in (p["metrics"][cost], p["metrics"]["accuracy"])]
    shown = [peer for peer in peers if cost in peer["metrics"] and "accuracy" in peer["metrics"]]
    with style():
        figure = Figure(figsize=(7.4, 4.4), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        if known:
            _draw_points(axes, known, cost)
        places = [(peer["metrics"][cost], peer["metrics"]["accuracy"]) for peer in shown]
        if shown:
            axes.scatter(
                *zip(*places), marker="D", s=44, facecolor="none", edgecolor=RED, linewidth=1.4, zorder=4,
                label="others",
            )  # fmt: skip
        every = [*(p["metrics"][cost] for p in known), *(place for place, _ in places)]
        if every and max(every) > 5 * min(every) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.1, y=0.1)
        axes.set_xlabel(names[cost])
        axes.set_ylabel(names["accuracy"])
        percent(axes.yaxis)
        if known or shown:
            axes.legend(loc="lower right", frameon=True, edgecolor=GRID, facecolor=SURFACE, framealpha=0.9)
        texts = [f"{peer['name']}, {peer['device']}" for peer in shown]
        _label_apart(axes, places, texts, [(p["metrics"][cost], p["metrics"]["accuracy"]) for p in known])
    return figure


def _draw_points(axes: Axes, points: Sequence[Mapping[str, Any]], cost: str) -> None:
    """Points, what none of them beats, and the bar of their colours."""
    across = [p["metrics"][cost] for p in points]
    up = [p["metrics"]["accuracy"] for p in points]
    density = [p["metrics"]["density"] for p in points]
    shades = LinearSegmentedColormap.from_list("density", ["#0f2f6b", BLUE, "#b9d4f7"][::-1])
    norm = LogNorm(min(density), max(density)) if min(density) < max(density) else None
    # The front lies above the others.
    for front, label in ((False, "other points"), (True, "front over all objectives")):
        part = [index for index, p in enumerate(points) if p["front"] == front]
        if not part:
            continue
        drawn = axes.scatter(
            [across[index] for index in part], [up[index] for index in part], c=[density[index] for index in part],
            cmap=shades, norm=norm, s=34 if front else 22, edgecolor=ORANGE if front else MUTED,
            linewidth=1.3 if front else 0.3, zorder=3.5 if front else 3, label=label,
        )  # fmt: skip
    bar = axes.figure.colorbar(drawn, ax=axes, pad=0.02, aspect=30)
    bar.set_label("density")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    best, steps = -math.inf, []
    for place, value in sorted(zip(across, up), key=lambda pair: (pair[0], -pair[1])):
        if value > best:
            best = value
            steps.append((place, value))
    axes.plot(*zip(*steps), drawstyle="steps-post", color=ORANGE, linewidth=1.8, alpha=0.9, zorder=2)


def _label_apart(
    axes: Axes, places: Sequence[tuple[float, float]], texts: Sequence[str], points: Sequence[tuple[float, float]]
) -> None:
    """Write a text at each place, above or below it, as near as it covers none of the others and none of ``points``."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    window = axes.get_window_extent()
    marks = axes.transData.transform([*points, *places])
    legend = axes.get_legend()
    taken: list[Bbox] = [] if legend is None else [legend.get_window_extent()]

    def is_free(box: Bbox) -> bool:
        inside = window.y0 <= box.y0 and box.y1 <= window.y1
        wide = box.padded(5, 2)
        return inside and not wide.count_contains(marks) and not wide.count_overlaps(taken)

    def move(label: Annotation, sign: int, away: int) -> Bbox:
        """Put a text above (1) or below (-1) its place; the box is that of the text, without the line to it."""
        label.set(position=(0, sign * away), va="bottom" if sign > 0 else "top")
        label.get_window_extent()  # Moves it.
        box = Text.get_window_extent(label)
        over = max(0.0, box.x1 - window.x1) - max(0.0, window.x0 - box.x0)
        label.set(x=-over * 72 / figure.dpi)
        return box.translated(-over, 0)

    near = (1, 8)
    tries = [(sign, near[1] + 13 * level) for level in range(12) for sign in (1, -1)]
    for place, text in sorted(zip(places, texts)):
        label = axes.annotate(
            text, place, xytext=(0, 0), textcoords="offset points", ha="center", fontsize=7.5, color=MUTED, zorder=5,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5},
        )  # fmt: skip
        label.set_in_layout(False)
        found = next((tried for tried in tries if is_free(move(label, *tried))), near)
        taken.append(move(label, *found))
        assert label.arrow_patch is not None
        label.arrow_patch.set_visible(found[1] > near[1])
