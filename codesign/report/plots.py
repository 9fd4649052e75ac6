"""Figures of the report and of the exploration, as matplotlib figures and inline SVG.

Every function takes numbers and returns a :class:`matplotlib.figure.Figure`; nothing here reads a file.
The neutral colours below are the light theme's; :func:`to_svg` turns them into CSS variables of the
page, so that one figure serves light and dark pages, and PNG files as it is.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from codesign.basics.files import atomic_path

FULL, HALF = 11.2, 5.2  # width in inches of figures for a whole card and for half of one

INK, MUTED, GRID, SURFACE = "#1d2530", "#66707d", "#dde2e8", "#ffffff"
BLUE, ORANGE, GREEN, RED, PURPLE, TEAL = "#3f7fd0", "#e8853d", "#2f9e6e", "#d8434e", "#8b6cc4", "#2a9fb0"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, TEAL, RED)
SOFTWARE, HARDWARE = "#8fb8ee", "#d9661f"

CSS_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", SURFACE: "var(--card)"}

STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "image.interpolation": "nearest",
}

DIVERGING = LinearSegmentedColormap.from_list("weights", [RED, "#f3f4f6", BLUE])
DENSITY_MAP = LinearSegmentedColormap.from_list("counts", ["#f1f5fb", "#9dc0ec", BLUE, "#123a78"])


RasterLayer = tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]
"""Name, software's and hardware's spikes, bool (timesteps, neurons); the hardware's None where not recorded."""


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(STYLE):
        yield


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Inline SVG of a figure: no external reference, text as text, neutral colours as CSS variables.

    ``name`` makes its ids unique in the page; ``description`` is what a screen reader says.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    opening, rest = text.split(">", 1)
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    assert view is not None
    width = float(view[1]) * 4 / 3
    numbers = {found: f"{name}-{number}" for number, found in enumerate(re.findall(r'\bid="([^"]+)"', rest))}
    rest = re.sub(r'\bid="([^"]+)"', lambda match: f'id="{numbers[match[1]]}"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{numbers[match[1]]})", rest)
    rest = re.sub(r'xlink:href="#([^"]+)"', lambda match: f'href="#{numbers[match[1]]}"', rest)
    rest = rest.replace("xlink:href=", "href=")
    for colour, variable in CSS_VARIABLES.items():
        rest = rest.replace(colour, variable)
    rest = re.sub(r"<!--.*?-->\n?", "", rest, flags=re.DOTALL)
    return (
        f'<svg class="figure" role="img" aria-label="{escape(description)}" viewBox="0 0 {view[1]} {view[2]}" '
        f'style="max-width:{width:.0f}px">{rest.strip()}'
    )


def save_figure(figure: Figure, path: Path, *, dpi: int = 130) -> None:
    """Write a figure as PNG or SVG (by the name's ending) on white, atomically."""
    kind = path.suffix.lstrip(".")
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else dict.fromkeys(("Date", "Creator"))
    rc = {**STYLE, "svg.hashsalt": "codesign"}
    with matplotlib.rc_context(rc), atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi, facecolor=SURFACE, metadata=metadata)


def image_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """``data:`` URI of a grey uint8 (height, width) picture, for an <img> of the page."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png", cmap="gray", vmin=0, vmax=255)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def percent(axis: Any) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def wilson_interval(fraction: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a fraction measured on ``count`` samples (Wilson's score interval)."""
    centre = (fraction + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(fraction * (1 - fraction) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy(values: Mapping[str, float], counts: Mapping[str, int]) -> Figure:
    """Accuracies (fractions) by name, with Wilson intervals for the names in ``counts`` (samples)."""
    with _style():
        figure = Figure(figsize=(HALF, 0.62 * len(values) + 0.75), layout="constrained")
        axes = figure.subplots()
        colours = dict(zip(values, (PURPLE, BLUE, ORANGE), strict=False))
        low = 1.0
        for row, (name, value) in enumerate(values.items()):
            bounds = wilson_interval(value, counts[name]) if counts.get(name) else (value, value)
            low = min(low, *bounds)
            axes.plot(bounds, (row, row), color=colours.get(name, TEAL), linewidth=5, alpha=0.28)
            axes.plot([value], [row], "o", color=colours.get(name, TEAL), markersize=8)
            axes.annotate(f"{value:.2%}", (value, row), (0, 8), textcoords="offset points", ha="center", fontsize=8.5)
        axes.set_yticks(range(len(values)), list(values))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(values) - 0.5, -0.75)
        axes.set_xlim(max(0.0, math.floor((low - 0.005) * 50) / 50), 1.001)
        percent(axes.xaxis)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


def training(history: Sequence[Mapping[str, Any]], layer_names: Sequence[str], quantised_from: int | None) -> Figure:
    """Density, PQ index and validation accuracy over the epochs.

    Rows are those of ``metrics.jsonl``: ``density``, ``validation_accuracy``, ``change``, and per layer ``density``
    and ``index``; what a row does not have is not drawn. ``quantised_from`` is the first row of the fine-tuning in
    integers.
    """
    with _style():
        panels = [
            ("density", any(row.get("density") is not None for row in history)),
            ("index", any(row.get("layers") for row in history)),
            ("validation_accuracy", any(row.get("validation_accuracy") is not None for row in history)),
        ]
        shown = [name for name, there in panels if there] or ["density"]
        figure = Figure(figsize=(FULL, 2.7), layout="constrained")
        grid = figure.subplots(1, len(shown), squeeze=False)[0]
        draw_training(dict(zip(shown, grid, strict=True)), history, layer_names, quantised_from)
    return figure


def draw_training(
    panels: Mapping[str, Axes],
    history: Sequence[Mapping[str, Any]],
    layer_names: Sequence[str],
    quantised_from: int | None,
) -> None:
    """Draw :func:`training`'s panels, by name, into axes given."""
    epochs = np.arange(1, len(history) + 1)

    def series(name: str, layer: int | None = None) -> npt.NDArray[np.float64]:
        values = [row.get(name) for row in history]
        if layer is not None:
            found = [row.get("layers") or [] for row in history]
            values = [row[layer].get(name) if layer < len(row) else None for row in found]
        return np.array([np.nan if value is None else value for value in values], float)

    def line(axes: Axes, values: npt.NDArray[np.float64], **options: Any) -> None:
        known = ~np.isnan(values)
        axes.plot(epochs[known], values[known], **options)

    titles = {
        "density": "Density (nonzero / dense weights)",
        "index": "PQ index (higher: more compressible)",
        "validation_accuracy": "Validation accuracy",
    }
    for name, axes in panels.items():
        axes.set_title(titles[name])
        if name == "density":
            line(axes, series("density"), color=INK, linewidth=2, label="network")
            for index, layer in enumerate(layer_names):
                line(axes, series("density", index), color=SERIES[index % 6], linewidth=1.2, label=layer)
            axes.set_ylim(bottom=0)
            percent(axes.yaxis)
            axes.legend(loc="upper right", ncols=min(4, len(layer_names) + 1), handlelength=1.2, columnspacing=1)
        elif name == "index":
            for index, layer in enumerate(layer_names):
                line(axes, series("index", index), color=SERIES[index % 6], marker=".", markersize=4, label=layer)
            axes.legend(loc="best", ncols=min(4, len(layer_names)))
        else:
            line(axes, series("validation_accuracy"), color=GREEN, marker=".", markersize=4)
            percent(axes.yaxis)
        if quantised_from is not None and quantised_from < len(history):
            axes.axvspan(quantised_from + 0.5, len(history) + 0.5, color=PURPLE, alpha=0.1, linewidth=0)
            if axes is next(iter(panels.values())):
                axes.annotate(
                    "integer weights",
                    (len(history) + 0.5, 0.6),
                    (-3, 0),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    va="bottom",
                    ha="right",
                    fontsize=7.5,
                    color=PURPLE,
                )
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def raster(
    layers: Sequence[RasterLayer],
    picture: npt.NDArray[np.uint8] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Spike raster of one sample.

    ``picture``: the input as a grey picture (height, width), if it is one.
    """
    timesteps = layers[0][1].shape[0]
    with _style():
        if timesteps <= 24:
            widths = [0.8] * (picture is not None) + [1.0] * len(layers)
            figure = Figure(figsize=(FULL, 5.0), layout="constrained")
            grid = list(figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0])
        else:
            rows = len(layers) + (picture is not None)
            heights = [1.2 if picture is not None else 0] * (picture is not None) + [
                max(0.9, min(2.4, item[1].shape[1] / 40)) for item in layers
            ]
            figure = Figure(figsize=(FULL, sum(heights) + 0.35 * rows + 0.3), layout="constrained")
            grid = list(figure.subplots(rows, 1, squeeze=False, height_ratios=heights)[:, 0])
        if picture is not None:
            draw_picture(grid.pop(0), picture, "input")
        for axes, (name, software, hardware) in zip(grid, layers, strict=True):
            draw_raster(axes, name, software, hardware)
        for axes in grid if timesteps <= 24 else grid[-1:]:
            axes.set_xlabel("timestep")
        raster_legend(figure, layers, title)
    return figure


def draw_picture(axes: Axes, picture: npt.NDArray[np.uint8], title: str) -> None:
    axes.imshow(picture, cmap="gray")
    axes.set_title(title)
    axes.set_axis_off()


def draw_raster(axes: Axes, name: str, software: npt.NDArray[np.bool_], hardware: npt.NDArray[np.bool_] | None) -> None:
    """Spikes of one layer: wide pale marks are the software's, narrow dark ones the hardware's."""
    timesteps, neurons = software.shape
    axes.set_title(f"{name}\n{int(software.sum())} spikes, {neurons} neurons", fontsize=8.5)
    upright = timesteps > 24

    def marks(spikes: npt.NDArray[np.bool_], reach: float) -> npt.NDArray[np.float64]:
        at, who = np.nonzero(spikes)
        along = np.stack([who if upright else at] * 2, axis=1) + np.array([-reach, reach])
        across = np.stack([at if upright else who] * 2, axis=1).astype(float)
        return np.stack([across, along] if upright else [along, across], axis=2).astype(float)

    height = axes.get_window_extent().height * 72 / axes.figure.dpi if not upright else 0
    thick = 2.6 if upright else max(1.2, min(14.0, 0.72 * (height or 260) / neurons))
    axes.add_collection(LineCollection(list(marks(software, 0.46)), colors=SOFTWARE, linewidths=thick))
    if hardware is not None:
        axes.add_collection(
            LineCollection(list(marks(hardware, 0.30)), colors=HARDWARE, linewidths=max(0.7, thick * 0.42))
        )
        wrong = software != hardware
        if wrong.any():
            at, who = np.nonzero(wrong)
            axes.plot(at, who, "x", color=RED, markersize=7, markeredgewidth=1.8)
    axes.set_xlim(-0.6, timesteps - 0.4)
    axes.set_ylim(neurons - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6 if not upright else 4))
    axes.grid(False)


def raster_legend(figure: Any, layers: Sequence[RasterLayer], title: str = "") -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=SOFTWARE, linewidth=6, label="software (golden model)")]
    if any(hardware is not None for _, _, hardware in layers):
        handles.append(Line2D([], [], color=HARDWARE, linewidth=2.4, label="hardware (RTL simulation)"))
    if any(hardware is not None and np.any(software != hardware) for _, software, hardware in layers):
        handles.append(Line2D([], [], color=RED, marker="x", linestyle="", markeredgewidth=1.8, label="they differ"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, title=title or None)


def membranes(
    traces: Sequence[tuple[str, npt.NDArray[np.int64], npt.NDArray[np.int64] | None, int | None]],
) -> Figure:
    """Stored membranes of single neurons: (name, software v by timestep, hardware v or None, threshold or None)."""
    with _style():
        columns = min(4, len(traces))
        rows = -(-len(traces) // columns)
        figure = Figure(figsize=(FULL * columns / 4, 1.7 * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes in grid.ravel()[len(traces) :]:
            axes.set_axis_off()
        for axes, (name, software, hardware, threshold) in zip(grid.ravel(), traces, strict=False):
            steps = np.arange(software.size)
            if threshold is not None:
                axes.axhline(threshold, color=RED, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.step(steps, software, where="mid", color=BLUE, linewidth=1.6)
            if hardware is not None:
                axes.plot(steps, hardware, "o", color=HARDWARE, markersize=2.8 if software.size <= 40 else 1.6)
            axes.set_title(name, fontsize=8.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in grid[-1]:
            axes.set_xlabel("timestep")
    return figure


def weight_histogram(layers: Sequence[tuple[str, npt.NDArray[np.int8], int]]) -> Figure:
    """Integer weights of each layer: (name, nonzero weights, weight bits)."""
    with _style():
        columns = min(3, len(layers))
        rows = -(-len(layers) // columns)
        figure = Figure(figsize=(HALF, 2.3 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(layers) :]:
            axes.set_axis_off()
        for index, (axes, (name, weights, bits)) in enumerate(zip(grid, layers, strict=False)):
            limit = (1 << (bits - 1)) - 1
            values = np.arange(-limit, limit + 1)
            counts = np.bincount(weights.astype(np.int64) + limit, minlength=values.size)[: values.size]
            axes.bar(values, counts, width=0.92, color=SERIES[index % 6], linewidth=0)
            axes.set_title(f"{name}, {bits} bits")
            axes.set_xlabel("integer weight")
            axes.grid(False, axis="x")
        grid[0].set_ylabel("synapses")
    return figure


def connectivity_picture(fan_out: npt.NDArray[np.int64], fields: npt.NDArray[np.int64]) -> Figure:
    """First layer of a network on pictures.

    ``fan_out``: int (height, width), synapses of each pixel; ``fields``: int (n, height, width), the weights
    of n neurons.
    """
    with _style():
        columns = 8
        rows = max(1, -(-len(fields) // columns))
        figure = Figure(figsize=(FULL, 3.6), layout="constrained")
        left, right = cast(Any, figure.subfigures(1, 2, width_ratios=[1, 2.3]))
        axes = left.subplots()
        shown = axes.imshow(fan_out, cmap=DENSITY_MAP, vmin=0)
        axes.set_title("synapses of each input")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        left.colorbar(shown, ax=axes, shrink=0.8).outline.set_visible(False)
        grid = right.subplots(rows, columns, squeeze=False).ravel()
        limit = max(1, int(np.abs(fields).max(initial=1)))
        for item in grid:
            item.set_axis_off()
        for item, field in zip(grid, fields, strict=False):
            item.imshow(np.where(field == 0, np.nan, field), cmap=DIVERGING_STRONG, norm=TwoSlopeNorm(0, -limit, limit))
            item.add_patch(
                matplotlib.patches.Rectangle(  # type: ignore[attr-defined]
                    (-0.5, -0.5), field.shape[1], field.shape[0], fill=False, edgecolor=MUTED, linewidth=0.5
                )
            )
        right.suptitle(
            "what the most connected neurons see (blue +, red \N{MINUS SIGN}, blank: no synapse)",
            fontsize=8.5,
            x=0.01,
            ha="left",
        )
    return figure


DIVERGING_STRONG = LinearSegmentedColormap.from_list("signed", ["#a4161f", RED, "#eeb5b9", "#b3cdf0", BLUE, "#153f86"])


def kernels(name: str, dense: npt.NDArray[np.int64], shown: int) -> Figure:
    """A convolution: the taps between its channels, and its fullest kernels.

    ``dense``: int (out channels, in channels, height, width), 0 without a tap; ``shown``: kernels drawn, at most.
    """
    with _style():
        _, n_in, height, width = dense.shape
        taps = np.count_nonzero(dense, axis=(2, 3))
        order = np.argsort(-taps.ravel(), kind="stable")[:shown]
        columns = 8
        rows = max(1, -(-order.size // columns))
        figure = Figure(figsize=(FULL, 0.6 + 0.95 * max(2, rows)), layout="constrained")
        left, right = cast(Any, figure.subfigures(1, 2, width_ratios=[1, 2.3]))
        axes = left.subplots()
        counts = axes.imshow(taps, cmap=DENSITY_MAP, vmin=0, vmax=height * width, aspect="auto")
        axes.set_title(f"{name}: taps of each kernel")
        axes.set_xlabel("channel read")
        axes.set_ylabel("channel given")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(False)
        left.colorbar(counts, ax=axes, shrink=0.8).outline.set_visible(False)
        grid = right.subplots(rows, columns, squeeze=False).ravel()
        limit = max(1, int(np.abs(dense).max(initial=1)))
        for item in grid:
            item.set_axis_off()
        for item, place in zip(grid, order, strict=False):
            given, read = divmod(int(place), n_in)
            kernel = dense[given, read]
            item.imshow(
                np.where(kernel == 0, np.nan, kernel), cmap=DIVERGING_STRONG, norm=TwoSlopeNorm(0, -limit, limit)
            )
            item.set_title(f"{read} \N{RIGHTWARDS ARROW} {given}", fontsize=7, pad=2)
            item.add_patch(
                matplotlib.patches.Rectangle(  # type: ignore[attr-defined]
                    (-0.5, -0.5), width, height, fill=False, edgecolor=MUTED, linewidth=0.5
                )
            )
        right.suptitle(
            "its fullest kernels, channel read to channel given (blue +, red \N{MINUS SIGN}, blank: no tap)",
            fontsize=8.5,
            x=0.01,
            ha="left",
        )
    return figure


def connectivity_matrix(dense: npt.NDArray[np.int64]) -> Figure:
    """First layer as a matrix of weights, int (n_in, n_out); large ones are binned to densities."""
    with _style():
        figure = Figure(figsize=(FULL, 3.2), layout="constrained")
        axes = figure.subplots()
        limit = max(1, int(np.abs(dense).max(initial=1)))
        shown = np.where(dense == 0, np.nan, dense).T
        axes.imshow(shown, cmap=DIVERGING_STRONG, norm=TwoSlopeNorm(0, -limit, limit), aspect="auto")
        axes.set_title("first layer's synapses (blue +, red \N{MINUS SIGN}, blank: none)")
        axes.set_xlabel("input")
        axes.set_ylabel("neuron")
        axes.grid(False)
    return figure


def summary(
    layers: Sequence[RasterLayer],
    picture: npt.NDArray[np.uint8] | None,
    history: Sequence[Mapping[str, Any]],
    layer_names: Sequence[str],
    quantised_from: int | None,
    matrix: npt.NDArray[np.int64],
    classes: Sequence[str],
) -> Figure:
    """A run in one picture: spikes of a sample in software and hardware, training, confusion matrix."""
    with _style():
        figure = Figure(figsize=(11.2, 4.3), layout="constrained")
        spikes, curves, decided = cast(Any, figure.subfigures(1, 3, width_ratios=[4.6, 3.4, 3.2]))
        widths = [0.75] * (picture is not None) + [1.25, *[0.8] * (len(layers) - 1)]
        grid = list(spikes.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0])
        if picture is not None:
            draw_picture(grid.pop(0), picture, "input")
        for axes, (name, software, hardware) in zip(grid, layers, strict=True):
            draw_raster(axes, name, software, hardware)
            axes.set_xlabel("timestep")
        raster_legend(spikes, layers)
        panels = curves.subplots(3, 1, sharex=True)
        draw_training(
            dict(zip(("density", "index", "validation_accuracy"), panels, strict=True)),
            history,
            layer_names,
            quantised_from,
        )
        for axes in panels[:-1]:
            axes.set_xlabel("")
        axes = decided.subplots()
        draw_confusion(axes, matrix, classes)
        axes.set_title("decisions on the test set")
    return figure


def confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Confusion matrix, int (true, decided), counts written into the cells."""
    with _style():
        size = len(classes)
        side = max(2.6, min(5.2, 0.36 * size + 0.9))
        figure = Figure(figsize=(side + 0.3, side), layout="constrained")
        draw_confusion(figure.subplots(), matrix, classes)
    return figure


def draw_confusion(axes: Axes, matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    size = len(classes)
    right = np.where(np.eye(size, dtype=bool), matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), np.nan)
    wrong = np.where(~np.eye(size, dtype=bool) & (matrix > 0), matrix, np.nan)
    axes.imshow(right, cmap=_ramp("right", "#cfe0f7", BLUE), vmin=0.5, vmax=1.1)
    axes.imshow(wrong, cmap=_ramp("wrong", "#f7d4d6", RED), norm=Normalize(0, max(4.0, np.nanmax(wrong, initial=1))))
    if size <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center", color="#0d1420",
                fontsize=7.5 if size <= 15 else 5.5,
            )  # fmt: skip
    axes.set_xticks(range(size), list(classes))
    axes.set_yticks(range(size), list(classes))
    axes.set_xlabel("decision")
    axes.set_ylabel("label")
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _ramp(name: str, low: str, high: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(name, [low, high])


def area_bars(use: Sequence[tuple[str, Sequence[tuple[str, float, float]]]]) -> Figure:
    """Resources against budgets: (device, [(resource, used, budget)]); the line is the whole device."""
    with _style():
        rows = sum(len(resources) for _, resources in use) + 0.8 * len(use)
        figure = Figure(figsize=(HALF, 0.27 * rows + 0.75), layout="constrained")
        axes = figure.subplots()
        position, ticks, labels, top = 0.0, [], [], 1.0
        for device, resources in use:
            axes.text(0.0, position, device, fontsize=8.5, fontweight="bold", va="center", ha="left")
            position += 0.9
            for resource, used, budget in resources:
                share = used / budget if budget else (0.0 if not used else math.inf)
                drawn = min(share, 1.6)
                colour = RED if share > 1 else (ORANGE if share > 0.8 else BLUE)
                axes.barh(position, 1, height=0.62, color=GRID, alpha=0.6, linewidth=0)
                axes.barh(position, drawn, height=0.62, color=colour, linewidth=0)
                amount = f"{used:,.0f} of {budget:,.0f}  ({share:.1%})" if budget else f"{used:,.0f} of none"
                inside = drawn > 0.62
                axes.text(
                    drawn - 0.01 if inside else drawn + 0.01, position, amount, va="center", fontsize=8,
                    ha="right" if inside else "left", color="#ffffff" if inside else INK,
                )  # fmt: skip
                ticks.append(position)
                labels.append(resource)
                top = max(top, drawn)
                position += 1
            position += 0.3
        axes.axvline(1, color=RED, linewidth=1.3)
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(position - 0.4, -0.6)
        axes.set_xlim(0, top * 1.02)
        axes.set_xlabel("share of the device (red line: all of it)")
        percent(axes.xaxis)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


def budget(
    history: Sequence[Mapping[str, Any]],
    limits: Mapping[str, float],
    titles: Mapping[str, str],
    measured: Mapping[str, float],
) -> Figure:
    """Use of a hardware budget over the epochs: one panel per kind, the limit as a line.

    Rows of ``metrics.jsonl`` with ``budget`` (``estimated``, ``needed``, ``fits``). Drawn are logic, memory and
    cycles, and whatever else is limited and used. ``measured`` : by kind, a mark at the last epoch.
    """
    rows = [row["budget"] for row in history]
    used = rows[-1]["estimated"]
    memory = "bram" if "bram" in used and "memory_bits" not in limits else "memory_bits"
    kinds = [
        kind
        for kind in titles
        if kind in used and (kind in ("lut", memory, "cycles") or (limits.get(kind) and used[kind]))
    ]
    epochs = np.array([row["epoch"] for row in history])
    settled = settled_from([float(row["density"]) for row in history])
    with _style():
        figure = Figure(figsize=(FULL, 2.7), layout="constrained")
        for kind, axes in zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True):
            needed = np.array([row["needed"][kind] for row in rows])
            axes.plot(epochs, [row["estimated"][kind] for row in rows], color=BLUE, alpha=0.4, linewidth=1.2)
            axes.plot(epochs, needed, color=BLUE)
            if kind in limits:
                axes.axhline(limits[kind], color=RED, linewidth=1.3)
                axes.annotate(
                    f"limit {limits[kind]:,.0f}", (epochs[0], limits[kind]), (0, 3), textcoords="offset points",
                    color=RED, fontsize=8,
                )  # fmt: skip
            if kind in measured:
                axes.plot([epochs[-1]], [measured[kind]], "D", color=ORANGE, markersize=5, clip_on=False)
            axes.axvspan(epochs[settled] - 0.5, epochs[-1] + 0.5, color=GREEN, alpha=0.08, linewidth=0)
            axes.set_title(titles[kind])
            axes.set_xlabel("epoch")
            axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            axes.set_ylim(0, 1.12 * max(needed.max(), limits.get(kind, 0.0), measured.get(kind, 0.0)))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def settled_from(densities: Sequence[float]) -> int:
    """Position of the first of the last densities that are all the same."""
    position = len(densities) - 1
    while position and densities[position - 1] == densities[-1]:
        position -= 1
    return position


def cycle_bars(layers: Sequence[tuple[str, Mapping[str, float]]], total: float | None) -> Figure:
    """Clock cycles per sample of each layer by phase; the line is the mean time of a whole sample."""
    colours = {"accumulate": BLUE, "sweep": ORANGE, "idle": GRID, "other": PURPLE}
    with _style():
        figure = Figure(figsize=(HALF, 0.45 * len(layers) + 0.95), layout="constrained")
        axes = figure.subplots()
        for row, (_, phases) in enumerate(layers):
            left = 0.0
            for phase, cycles in phases.items():
                axes.barh(row, cycles, left=left, height=0.62, color=colours.get(phase, TEAL), linewidth=0)
                if cycles > 0.07 * max(sum(item.values()) for _, item in layers):
                    axes.text(
                        left + cycles / 2, row, f"{cycles:,.0f}", ha="center", va="center", fontsize=8,
                        color=INK if phase == "idle" else "#ffffff",
                    )  # fmt: skip
                left += cycles
        if total is not None:
            axes.axvline(total, color=RED, linewidth=1.2)
        axes.set_yticks(range(len(layers)), [name for name, _ in layers])
        axes.set_ylim(len(layers) - 0.5, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlabel("clock cycles per sample")
        axes.grid(False, axis="y")
        shown = {phase for _, phases in layers for phase in phases}
        handles = [
            matplotlib.patches.Patch(color=colour, label=phase)  # type: ignore[attr-defined]
            for phase, colour in colours.items()
            if phase in shown
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def pareto(points: Sequence[Mapping[str, Any]], axes_names: Mapping[str, str], rows: Mapping[str, str]) -> Figure:
    """Accuracy against cost: a column per cost, a row per accuracy.

    Points are rows of ``explore.json``'s table. Colour is density, shape the weight width, size the lanes;
    filled marks were measured, hollow ones estimated, a green ring marks what was verified in RTL. The line is the
    Pareto front, which belongs to the first row; later rows show where its points come out.
    """
    from matplotlib.lines import Line2D

    with _style():
        figure = Figure(figsize=(3.3 * len(axes_names) + 1.6, 3.1 * len(rows) + 0.2), layout="constrained")
        grid = figure.subplots(len(rows), len(axes_names), squeeze=False, sharey="row", sharex="col")
        densities = sorted({point["density"] for point in points})
        bits = sorted({point["weight_bits"] for point in points})
        lanes = sorted({point["lanes"] for point in points})
        shades = _ramp("density", "#86b6f2", "#0f2f6b")
        hue = {value: shades(i / max(1, len(densities) - 1)) for i, value in enumerate(densities)}
        mark = {value: MARKERS[i % len(MARKERS)] for i, value in enumerate(bits)}
        size = {value: 18 + 62 * i / max(1, len(lanes) - 1) for i, value in enumerate(lanes)}
        for row, (key, label) in enumerate(rows.items()):
            for column, (axis, name) in enumerate(axes_names.items()):
                axes = grid[row, column]
                shown = [p for p in points if p[key] is not None and p["cost"].get(axis) is not None]
                front = sorted((p for p in shown if axis in p["front"]), key=lambda p: (p["cost"][axis], p[key]))
                if row == 0 and front:
                    axes.plot(
                        [p["cost"][axis] for p in front], [p[key] for p in front], drawstyle="steps-post",
                        color=ORANGE, linewidth=2, alpha=0.85, zorder=1,
                    )  # fmt: skip
                for p in front:
                    axes.scatter(p["cost"][axis], p[key], s=190, color=ORANGE, alpha=0.28, linewidth=0, zorder=1)
                for p in shown:
                    colour = hue[p["density"]]
                    axes.scatter(
                        p["cost"][axis], p[key], marker=mark[p["weight_bits"]], s=size[p["lanes"]], zorder=3,
                        facecolor=colour if p["measured"][axis] else "none", edgecolor=colour, linewidth=1.3,
                    )  # fmt: skip
                    if p["samples_verified"] and p["mismatches"] == 0:
                        axes.scatter(
                            p["cost"][axis], p[key], s=size[p["lanes"]] + 70, facecolor="none", edgecolor=GREEN,
                            linewidth=1.1, zorder=2,
                        )  # fmt: skip
                values = [p["cost"][axis] for p in shown]
                if values and max(values) > 5 * min(values) > 0:
                    axes.set_xscale("log")
                    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                    axes.xaxis.set_minor_formatter(NullFormatter())
                if row == len(rows) - 1:
                    axes.set_xlabel(name)
                if column == 0:
                    axes.set_ylabel(label)
                percent(axes.yaxis)
        grey: dict[str, Any] = {"color": MUTED, "linestyle": ""}
        handles = [
            *(Line2D([], [], marker="o", color=hue[d], linestyle="", label=f"density {d:g}") for d in densities),
            *(Line2D([], [], marker=mark[b], label=f"{b}-bit weights", **grey) for b in bits),
            *(
                Line2D([], [], marker="o", markersize=size[n] ** 0.5, label=f"{n} lane{'s' * (n > 1)}", **grey)
                for n in lanes
            ),
            Line2D([], [], marker="o", label="measured", **grey),
            Line2D([], [], marker="o", markerfacecolor="none", label="estimated", **grey),
            Line2D(
                [], [], marker="o", color=GREEN, linestyle="", markerfacecolor="none", markersize=10,
                label="verified in RTL",
            ),
            Line2D([], [], color=ORANGE, linewidth=2, marker="o", markersize=10, alpha=0.6, label="Pareto front"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside right upper", labelspacing=0.75)
    return figure
