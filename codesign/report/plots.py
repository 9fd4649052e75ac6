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
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from codesign.basics.files import atomic_path

# Widths in inches: of figures for a whole card, for half of one, and of panels, three or four side by side.
# A panel is no wider than a telephone's page.
FULL, HALF, THIRD, QUARTER = 11.2, 4.6, 3.45, 2.7
# How small a page may draw a figure before the figure scrolls in its place: text has at least this part of its size.
LEAST_SCALE = 0.75

INK, MUTED, GRID, SURFACE = "#1d2530", "#66707d", "#dde2e8", "#ffffff"
BLUE, ORANGE, GREEN, RED, PURPLE, TEAL = "#3f7fd0", "#e8853d", "#2f9e6e", "#d8434e", "#8b6cc4", "#2a9fb0"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, TEAL, RED)
SOFTWARE, HARDWARE = "#8fb8ee", "#d9661f"
# Of files of pictures. Labels that are kept apart are measured at it.
DPI = 130
# Lines beyond which a legend hides more than it says.
MAX_LEGEND = 9

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

DENSITY_MAP = LinearSegmentedColormap.from_list("counts", ["#f1f5fb", "#9dc0ec", BLUE, "#123a78"])


@contextmanager
def style() -> Iterator[None]:
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
    rest = re.sub(r"<!--.*?-->\n?", "", rest, flags=re.DOTALL)
    numbers = {found: f"{name}-{number}" for number, found in enumerate(re.findall(r'<[^>]*?\bid="([^"]+)"', rest))}

    def in_page(found: re.Match[str]) -> str:
        tag = re.sub(r'\bid="([^"]+)"', lambda match: f'id="{numbers[match[1]]}"', found[0])
        tag = re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{numbers[match[1]]})", tag)
        tag = re.sub(r'xlink:href="#([^"]+)"', lambda match: f'href="#{numbers[match[1]]}"', tag)
        tag = tag.replace("xlink:href=", "href=")
        for colour, variable in CSS_VARIABLES.items():
            tag = tag.replace(colour, variable)
        return tag

    # Tags alone: what stands between them are words, and names of the user's among these.
    rest = re.sub(r"<[^>]*>", in_page, rest)
    return (
        f'<svg class="figure" role="img" aria-label="{escape(description)}" viewBox="0 0 {view[1]} {view[2]}" '
        f'style="width:{width:.0f}px;min-width:{LEAST_SCALE * width:.0f}px">{rest.strip()}'
    )


def save_figure(figure: Figure, path: Path, *, dpi: int = DPI) -> None:
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
    with style():
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
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("accuracy")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


TRAINING = {
    "loss": ("Loss", "loss"),
    "accuracy": ("Accuracy", "accuracy"),
    "density": ("Density", "connections kept, of all"),
    "firing_rate": ("Firing rate", "spikes per neuron and timestep"),
    "index": ("PQ index", "index (higher: more can go)"),
}
"""Panels of the training: title and label of the vertical axis."""

# Lines of a panel that are of the whole network: keys of metrics.jsonl, with their names and colours.
NETWORK_LINES = {
    "loss": (("loss", "training", BLUE), ("validation_loss", "validation", GREEN)),
    "accuracy": (("training_accuracy", "training", BLUE), ("validation_accuracy", "validation", GREEN)),
    "density": (("density", "network", INK),),
}
LAYER_LINES = ("density", "firing_rate", "index")
# Panels whose values are shares, shown as percent.
SHARES = ("accuracy", "density", "firing_rate")


def training_panels(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """The panels for which these rows of metrics.jsonl have something, in order."""

    def there(name: str) -> bool:
        keys = [key for key, _, _ in NETWORK_LINES.get(name, ())]
        layers = [layer for row in history for layer in row.get("layers") or []] if name in LAYER_LINES else []
        return any(row.get(key) is not None for row in history for key in keys) or any(
            layer.get(name) is not None for layer in layers
        )

    return [name for name in TRAINING if there(name)]


def training_lines(
    name: str, history: Sequence[Mapping[str, Any]], layer_names: Sequence[str]
) -> list[tuple[str, str, list[float | None]]]:
    """Lines of a panel of :data:`TRAINING`: name, colour, and the value of each epoch, None where there is none."""
    lines = [(label, colour, [row.get(key) for row in history]) for key, label, colour in NETWORK_LINES.get(name, ())]
    if name in LAYER_LINES:
        found = [row.get("layers") or [] for row in history]
        for index, layer in enumerate(layer_names):
            values = [row[index].get(name) if index < len(row) else None for row in found]
            lines.append((layer, SERIES[index % len(SERIES)], values))
    return [line for line in lines if any(value is not None for value in line[2])]


def training(
    name: str, history: Sequence[Mapping[str, Any]], layer_names: Sequence[str], quantised_from: int | None
) -> Figure:
    """A panel of :data:`TRAINING` over the epochs.

    Rows are those of ``metrics.jsonl``; what a row does not have is not drawn. ``quantised_from`` is the first row of
    the fine-tuning in integers, which is shaded.
    """
    with style():
        figure = Figure(figsize=(THIRD, 2.5), layout="constrained")
        axes = figure.subplots()
        draw_training(axes, name, history, layer_names, quantised_from)
        axes.set_ylabel(TRAINING[name][1])
    return figure


def draw_training(
    axes: Axes,
    name: str,
    history: Sequence[Mapping[str, Any]],
    layer_names: Sequence[str],
    quantised_from: int | None,
) -> None:
    """Draw :func:`training`'s panel into axes given."""
    epochs = np.arange(1, len(history) + 1)

    def line(values: Sequence[float | None], **options: Any) -> None:
        numbers = np.array([np.nan if value is None else value for value in values], float)
        known = ~np.isnan(numbers)
        if known.any():
            # A single epoch makes no line.
            options["marker"] = options.get("marker", "." if known.sum() < 3 else None)
            axes.plot(epochs[known], numbers[known], **options)

    axes.set_title(TRAINING[name][0])
    of_network = {label for _, label, _ in NETWORK_LINES.get(name, ())}
    for label, colour, values in training_lines(name, history, layer_names):
        line(values, color=colour, linewidth=1.8 if label in of_network else 1.2, label=label)
    if name in SHARES:
        percent(axes.yaxis)
    if name in ("density", "firing_rate"):
        axes.set_ylim(bottom=0)
    if len(axes.lines) <= MAX_LEGEND:
        axes.legend(loc="best", ncols=1 if len(axes.lines) < 4 else 2, handlelength=1.2, columnspacing=1)
    if quantised_from is not None and quantised_from < len(history):
        axes.axvspan(quantised_from + 0.5, len(history) + 0.5, color=PURPLE, alpha=0.12, linewidth=0)
    axes.set_xlim(0.5, len(history) + 0.5)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def weight_histogram(layers: Sequence[tuple[str, npt.NDArray[np.int8], int]]) -> Figure:
    """Integer weights of each layer: (name, nonzero weights, weight bits)."""
    with style():
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
            axes.set_ylabel("synapses")
            axes.grid(False, axis="x")
    return figure


def fan_out_picture(fan_out: npt.NDArray[np.int64]) -> Figure:
    """Synapses of each pixel, int (height, width)."""
    with style():
        figure = Figure(figsize=(THIRD, 2.9), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(fan_out, cmap=DENSITY_MAP, vmin=0)
        axes.set_title("synapses of each input")
        axes.set_xlabel("column, pixels")
        axes.set_ylabel("row, pixels")
        axes.grid(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
        bar = figure.colorbar(shown, ax=axes, shrink=0.85, label="synapses")
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.locator = MaxNLocator(5, integer=True)
        bar.update_ticks()
    return figure


def small_pictures(items: Sequence[tuple[str, npt.NDArray[np.int64]]], title: str) -> Figure:
    """Weights as small pictures, each int (height, width) with its name: blue positive, red negative, blank none."""
    with style():
        columns = 6
        rows = max(1, -(-len(items) // columns))
        named = any(name for name, _ in items)
        figure = Figure(figsize=(1.6 * THIRD, 0.5 + (0.95 if named else 0.85) * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        limit = max(1, *(int(np.abs(picture).max(initial=1)) for _, picture in items)) if items else 1
        for axes in grid:
            axes.set_axis_off()
        for axes, (name, picture) in zip(grid, items, strict=False):
            shown = np.where(picture == 0, np.nan, picture)
            axes.imshow(shown, cmap=DIVERGING_STRONG, norm=TwoSlopeNorm(0, -limit, limit))
            axes.set_title(name, fontsize=7, pad=2, loc="center", fontweight="normal")
            height, width = picture.shape
            axes.add_patch(
                matplotlib.patches.Rectangle(  # type: ignore[attr-defined]
                    (-0.5, -0.5), width, height, fill=False, edgecolor=MUTED, linewidth=0.5
                )
            )
        figure.suptitle(title, fontsize=8.5, x=0.01, ha="left")
    return figure


DIVERGING_STRONG = LinearSegmentedColormap.from_list("signed", ["#a4161f", RED, "#eeb5b9", "#b3cdf0", BLUE, "#153f86"])


def kernel_taps(name: str, dense: npt.NDArray[np.int64]) -> Figure:
    """Taps between the channels of a convolution, int (out channels, in channels, height, width), 0 without a tap."""
    with style():
        taps = np.count_nonzero(dense, axis=(2, 3))
        figure = Figure(figsize=(THIRD, 2.6), layout="constrained")
        axes = figure.subplots()
        counts = axes.imshow(taps, cmap=DENSITY_MAP, vmin=0, vmax=dense.shape[2] * dense.shape[3], aspect="auto")
        axes.set_title(f"{name}: taps of each kernel")
        axes.set_xlabel("input channel")
        axes.set_ylabel("output channel")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.grid(False)
        figure.colorbar(counts, ax=axes, shrink=0.85, label="taps").outline.set_visible(False)  # type: ignore[operator]
    return figure


def kernels(dense: npt.NDArray[np.int64], shown: int) -> Figure:
    """The fullest kernels of a convolution, ``shown`` at most."""
    _, n_in, _, _ = dense.shape
    order = np.argsort(-np.count_nonzero(dense, axis=(2, 3)).ravel(), kind="stable")[:shown]
    places = [divmod(int(place), n_in) for place in order]
    return small_pictures(
        [(f"{read} \N{RIGHTWARDS ARROW} {given}", dense[given, read]) for given, read in places],
        "fullest kernels, input channel \N{RIGHTWARDS ARROW} output channel",
    )


def connectivity_matrix(dense: npt.NDArray[np.int64], source: str, target: str) -> Figure:
    """Weights from a source to a layer as a matrix, int (n_in, n_out)."""
    with style():
        figure = Figure(figsize=(FULL, 3.2), layout="constrained")
        axes = figure.subplots()
        limit = max(1, int(np.abs(dense).max(initial=1)))
        shown = np.where(dense == 0, np.nan, dense).T
        axes.imshow(shown, cmap=DIVERGING_STRONG, norm=TwoSlopeNorm(0, -limit, limit), aspect="auto")
        axes.set_title(f"{source} \N{RIGHTWARDS ARROW} {target}")
        axes.set_xlabel(f"neuron of {source}" if source != "input" else source)
        axes.set_ylabel(f"neuron of {target}")
        axes.grid(False)
    return figure


def confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Confusion matrix, int (true, decided), counts written into the cells."""
    with style():
        size = len(classes)
        names = 0.07 * max(map(len, classes), default=1)
        side = max(2.2, min(4.6, 0.36 * size + 0.6))
        figure = Figure(figsize=(min(side + 0.3 + names, HALF + 0.4), side + (names if names > 0.3 else 0)))
        figure.set_layout_engine("constrained")
        draw_confusion(figure.subplots(), matrix, classes)
    return figure


def draw_confusion(axes: Axes, matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    size = len(classes)
    # A class without samples has nothing to be right about.
    labelled = matrix.sum(axis=1, keepdims=True)
    right = np.where(np.eye(size, dtype=bool) & (labelled > 0), matrix / np.maximum(labelled, 1), np.nan)
    wrong = np.where(~np.eye(size, dtype=bool) & (matrix > 0), matrix, np.nan)
    axes.imshow(right, cmap=_ramp("right", "#cfe0f7", BLUE), vmin=0.5, vmax=1.1)
    axes.imshow(wrong, cmap=_ramp("wrong", "#f7d4d6", RED), norm=Normalize(0, max(4.0, np.nanmax(wrong, initial=1))))
    if size <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center", color="#0d1420",
                fontsize=7.5 if size <= 15 else 5.5,
            )  # fmt: skip
    ticks = range(0, size, -(-size // 40))
    names = [plain_text(classes[index]) for index in ticks]
    upright = max(map(len, classes), default=1) > 2
    axes.set_xticks(ticks, names, rotation=90 if upright else 0)
    axes.set_yticks(ticks, names)
    axes.set_xlabel("class decided for")
    axes.set_ylabel("label: the true class")
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def plain_text(text: str) -> str:
    """A name from the user's data as matplotlib shows it literally: without formulas."""
    return text.replace("$", r"\$")


def _ramp(name: str, low: str, high: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(name, [low, high])


def area_bars(use: Sequence[tuple[str, Sequence[tuple[str, float, float]]]]) -> Figure:
    """Resources against budgets: (device, [(resource, used, budget)]); the line is the whole device."""
    with style():
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


def budget_kinds(history: Sequence[Mapping[str, Any]], limits: Mapping[str, float], kinds: Sequence[str]) -> list[str]:
    """Of these kinds those to draw: logic, memory and cycles, and whatever else is limited and used.

    Rows of ``metrics.jsonl`` with ``budget``.
    """
    used = history[-1]["budget"]["estimated"]
    memory = "bram" if "bram" in used and "memory_bits" not in limits else "memory_bits"
    return [
        kind
        for kind in kinds
        if kind in used and (kind in ("lut", memory, "cycles") or (limits.get(kind) and used[kind]))
    ]


def budget(
    history: Sequence[Mapping[str, Any]], kind: str, title: str, limit: float | None, measured: float | None
) -> Figure:
    """Use of a hardware budget over the epochs, of one kind: the limit as a line, a mark for what was measured.

    Rows of ``metrics.jsonl`` with ``budget`` (``estimated``, ``needed``, ``fits``).
    """
    rows = [row["budget"] for row in history]
    epochs = np.array([row["epoch"] for row in history])
    settled = settled_from([float(row["density"]) for row in history])
    with style():
        figure = Figure(figsize=(THIRD, 2.5), layout="constrained")
        axes = figure.subplots()
        needed = np.array([row["needed"][kind] for row in rows])
        axes.plot(epochs, [row["estimated"][kind] for row in rows], color=BLUE, alpha=0.4, linewidth=1.2)
        axes.plot(epochs, needed, color=BLUE)
        if limit is not None:
            axes.axhline(limit, color=RED, linewidth=1.3)
            axes.annotate(
                f"limit {limit:,.0f}", (epochs[0], limit), (0, 3), textcoords="offset points", color=RED, fontsize=8
            )
        if measured is not None:
            axes.plot([epochs[-1]], [measured], "D", color=ORANGE, markersize=5, clip_on=False)
        axes.axvspan(epochs[settled] - 0.5, epochs[-1] + 0.5, color=GREEN, alpha=0.08, linewidth=0)
        axes.set_ylabel(title)
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.set_ylim(0, 1.12 * max(needed.max(), limit or 0.0, measured or 0.0))
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
    with style():
        figure = Figure(figsize=(HALF, 0.45 * len(layers) + 0.95), layout="constrained")
        axes = figure.subplots()
        for row, (_, phases) in enumerate(layers):
            left = 0.0
            for phase, cycles in phases.items():
                axes.barh(row, cycles, left=left, height=0.62, color=colours.get(phase, TEAL), linewidth=0)
                written = f"{cycles:,.0f}"
                # Where the number has room: a digit takes some 1.8 % of the width.
                if cycles > (0.025 + 0.018 * len(written)) * max(sum(item.values()) for _, item in layers):
                    axes.text(
                        left + cycles / 2, row, written, ha="center", va="center", fontsize=8,
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
