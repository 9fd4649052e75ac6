"""A run in one picture, for pages that have room for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from codesign.report.plots import draw_confusion, draw_training, style
from codesign.report.signals import RasterLayer, draw_picture, draw_raster, raster_legend


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
    with style():
        figure = Figure(figsize=(11.2, 4.3), layout="constrained")
        spikes, curves, decided = cast(Any, figure.subfigures(1, 3, width_ratios=[4.6, 3.4, 3.2]))
        widths = [0.75] * (picture is not None) + [1.25, *[0.8] * (len(layers) - 1)]
        grid = list(spikes.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0])
        if picture is not None:
            draw_picture(grid.pop(0), picture)
        for axes, (name, software, hardware) in zip(grid, layers, strict=True):
            draw_raster(axes, name, software, hardware)
            axes.set_xlabel("timestep")
        raster_legend(spikes, layers)
        panels = curves.subplots(3, 1, sharex=True)
        for name, axes in zip(("density", "index", "accuracy"), panels, strict=True):
            draw_training(axes, name, history, layer_names, quantised_from)
        for axes in panels[:-1]:
            axes.set_xlabel("")
        axes = decided.subplots()
        draw_confusion(axes, matrix, classes)
        axes.set_title("decisions on the test set")
    return figure
