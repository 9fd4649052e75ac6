"""Figures of single samples: what goes in, who spikes, what a neuron holds, how the decision comes about.

Every function takes numbers and returns one panel, wide enough to be read on a telephone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from codesign.report.plots import (
    BLUE,
    GREEN,
    HARDWARE,
    INK,
    MUTED,
    ORANGE,
    QUARTER,
    RED,
    SERIES,
    SOFTWARE,
    THIRD,
    style,
)

HEIGHT = 2.2
# Timesteps up to which spikes are drawn as bars along time, one row for each neuron; beyond it as upright ticks.
FEW_TIMESTEPS = 24
# Classes that are told apart by colour beside the decision.
MAX_CHANNELS = 6

RasterLayer = tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]
"""Name, software's and hardware's spikes, bool (timesteps, neurons); the hardware's None where not recorded."""


def picture(values: npt.NDArray[np.uint8], limit: int) -> Figure:
    """An input (channels, height, width) of 0..limit: one grey picture, a coloured one, or several side by side."""
    with style():
        shown = values[:MAX_CHANNELS]
        coloured = len(values) == 3
        count = 1 if coloured else len(shown)
        columns = min(count, 3)
        rows = -(-count // columns)
        figure = Figure(figsize=(QUARTER, HEIGHT * (1 if count == 1 else 0.55 * rows + 0.3)), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[count:]:
            axes.set_axis_off()
        for index, axes in enumerate(grid[:count]):
            if coloured:
                axes.imshow(np.moveaxis(shown, 0, 2) / max(limit, 1))
            else:
                axes.imshow(shown[index], cmap="gray", vmin=0, vmax=limit)
                if count > 1:
                    axes.set_title(f"channel {index}", fontsize=8)
            axes.set_xlabel("column, pixels")
            axes.set_ylabel("row, pixels")
            axes.grid(False)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(4, integer=True))
        if count == 1:
            grid[0].set_title("input")
    return figure


def draw_picture(axes: Axes, pixels: npt.NDArray[np.uint8]) -> None:
    """A picture (height, width) without axes, for figures that show it beside much else."""
    axes.imshow(pixels, cmap="gray")
    axes.set_title("input")
    axes.set_axis_off()


def series(values: npt.NDArray[np.uint8], limit: int, along: str) -> Figure:
    """An input (length, channels) of values 0..limit as lines over their place in the sample; ``along`` names that."""
    with style():
        figure, axes = panel("input")
        places = np.arange(len(values))
        channels = min(values.shape[1], MAX_CHANNELS)
        for channel in range(channels):
            colour = BLUE if channels == 1 else SERIES[channel % len(SERIES)]
            axes.step(places, values[:, channel], where="mid", color=colour, linewidth=1.2, label=f"channel {channel}")
        if channels > 1:
            axes.legend(loc="best", ncols=2)
        axes.set_ylim(-0.03 * limit, 1.03 * limit)
        axes.set_xlabel(along)
        axes.set_ylabel(f"value, 0 to {limit:,}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def panel(title: str, height: float = HEIGHT, width: float = QUARTER) -> tuple[Figure, Axes]:
    """A figure of one panel, as wide as a telephone's page."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def events(spikes: npt.NDArray[np.bool_], time: str, sources: str) -> Figure:
    """An input of events, bool (timesteps, sources); ``time`` and ``sources`` label the axes."""
    with style():
        figure, axes = panel("")
        draw_raster(axes, "input", spikes, None, "events")
        axes.set_xlabel(time)
        axes.set_ylabel(sources)
    return figure


def raster(layer: RasterLayer, time: str, neurons: str) -> Figure:
    """Spikes of one layer over time; ``time`` and ``neurons`` label the axes."""
    timesteps, count = layer[1].shape
    with style():
        height = max(HEIGHT, min(3.4, 1.0 + count / 40))
        figure, axes = panel("", height, THIRD if timesteps <= FEW_TIMESTEPS else 2 * QUARTER)
        draw_raster(axes, *layer)
        axes.set_xlabel(time)
        axes.set_ylabel(neurons)
    return figure


def draw_raster(
    axes: Axes,
    name: str,
    software: npt.NDArray[np.bool_],
    hardware: npt.NDArray[np.bool_] | None,
    called: str = "spikes",
) -> None:
    """Spikes of one layer: wide blue marks are the software's, narrow orange ones inside them the hardware's."""
    timesteps, neurons = software.shape
    axes.set_title(f"{name}: {int(software.sum()):,} {called}", fontsize=8.5)
    upright = timesteps > FEW_TIMESTEPS

    def marks(spikes: npt.NDArray[np.bool_], reach: float) -> npt.NDArray[np.float64]:
        at, who = np.nonzero(spikes)
        along = np.stack([who if upright else at] * 2, axis=1) + np.array([-reach, reach])
        across = np.stack([at if upright else who] * 2, axis=1).astype(float)
        return np.stack([across, along] if upright else [along, across], axis=2).astype(float)

    height = axes.get_window_extent().height * 72 / axes.figure.dpi if not upright else 0
    # No thicker than the row of a neuron: marks that overlap would look like more spikes than there are.
    thick = 2.6 if upright else max(0.2, min(14.0, 0.72 * (height or 260) / neurons))
    axes.add_collection(LineCollection(list(marks(software, 0.46)), colors=SOFTWARE, linewidths=thick))
    if hardware is not None:
        axes.add_collection(
            LineCollection(
                list(marks(hardware, 0.46 if upright else 0.30)),
                colors=HARDWARE,
                linewidths=max(min(0.7, thick), thick * 0.42),
            )
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


def raster_legend(figure: Any, layers: Sequence[RasterLayer]) -> None:
    """What the marks of :func:`draw_raster` mean, above a figure of several."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=SOFTWARE, linewidth=6, label="software (golden model)")]
    if any(hardware is not None for _, _, hardware in layers):
        handles.append(Line2D([], [], color=HARDWARE, linewidth=2.4, label="hardware (RTL simulation)"))
    if any(hardware is not None and np.any(software != hardware) for _, software, hardware in layers):
        handles.append(Line2D([], [], color=RED, marker="x", linestyle="", markeredgewidth=1.8, label="they differ"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)


def decision(
    values: npt.NDArray[np.int64], names: Sequence[str], decided: int, label: int, time: str, quantity: str
) -> Figure:
    """Readout values (timesteps, classes) over time: the class decided for, the next best, the label if it is another.

    ``label`` is -1 where unknown; ``quantity`` labels the values.
    """
    order = np.argsort(-values[-1], kind="stable")
    second = int(order[order != decided][0]) if values.shape[1] > 1 else decided
    with style():
        figure, axes = panel("readout of each class")
        steps = np.arange(len(values))
        marked = {decided: (BLUE, 2.0), second: (ORANGE, 1.5)} if second != decided else {decided: (BLUE, 2.0)}
        if label not in (-1, decided, second) and label < values.shape[1]:
            marked[label] = (GREEN, 1.5)
        for index in range(values.shape[1]):
            if index not in marked:
                axes.plot(steps, values[:, index], color=MUTED, linewidth=0.7, alpha=0.55)
        marker = "o" if len(steps) < 2 else None
        lines = [
            axes.plot(steps, values[:, index], color=colour, linewidth=width, marker=marker)[0]
            for index, (colour, width) in marked.items()
        ]
        # Named here: matplotlib leaves lines out whose own label begins with an underscore.
        called = [names[index] + (" (label)" if index == label else "") for index in marked]
        axes.legend(lines, called, loc="best", handlelength=1.2)
        axes.set_xlabel(time)
        axes.set_ylabel(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def neuron(
    name: str,
    potentials: npt.NDArray[np.int64],
    stored: npt.NDArray[np.int64],
    spikes: npt.NDArray[np.bool_],
    threshold: int | None,
    time: str,
    hardware: npt.NDArray[np.int64] | None = None,
) -> Figure:
    """One neuron over the timesteps: u before the reset, v stored after it, threshold, spikes, and the hardware's v."""
    with style():
        figure, axes = panel(name)
        steps = np.arange(potentials.size)
        few = steps.size <= 2 * FEW_TIMESTEPS
        if threshold is not None:
            axes.axhline(threshold, color=RED, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.step(steps, stored, where="mid", color=SOFTWARE, linewidth=1.3)
        marker = "." if few and hardware is None else None
        axes.plot(steps, potentials, color=BLUE, linewidth=1.5, marker=marker, markersize=5)
        if hardware is not None:
            axes.plot(steps, hardware, "o", color=HARDWARE, markersize=2.8 if few else 1.2)
        axes.plot(steps[spikes], potentials[spikes], "^", color=INK, markersize=5.5 if few else 3.5)
        axes.set_xlabel(time)
        axes.set_ylabel("membrane, integer units")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure
