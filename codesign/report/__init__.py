"""The report of a run: one self-contained page that opens offline.

It only reads: what a stage has not measured is said to be missing, together with the command that measures
it. It imports neither torch nor amaranth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError
from codesign.basics.version import VERSION
from codesign.records.names import REPORT
from codesign.report import areas, plots
from codesign.report.accuracy import accuracy, classes, confusion, confusion_matrix
from codesign.report.blocks import write_page
from codesign.report.budget import budget
from codesign.report.collect import collect
from codesign.report.connections import connectivity, weights
from codesign.report.dense import dense
from codesign.report.freezing import freezing
from codesign.report.headline import headline, subtitle, verdict
from codesign.report.imported import imported
from codesign.report.layers import layers, pictures
from codesign.report.samples import raster_layers, samples, spikes
from codesign.report.side_by_side import write_comparison
from codesign.report.summary import summary
from codesign.report.timing import clock, cycles, schedules
from codesign.report.training import training, training_rows
from codesign.report.verification import verification
from codesign.report.whole import reproduce, warned


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run directory and return its path.

    Raises InputError if ``folder`` is no run directory, OutputError if the page cannot be written.
    """
    record = collect(Path(folder))
    parts = [
        warned(record),
        accuracy(record),
        confusion(record),
        classes(record),
        samples(record),
        training(record),
        freezing(record),
        imported(record),
        spikes(record),
        budget(record),
        verification(record),
        layers(record),
        pictures(record),
        connectivity(record),
        # Cards of half the width, two and two.
        weights(record),
        cycles(record),
        areas.area(record),
        clock(record),
        schedules(record),
        dense(record),
        areas.parts(record),
        reproduce(record),
    ]
    path = Path(folder) / REPORT
    write_page(
        path,
        title=record.name,
        subtitle=subtitle(record),
        verdict=verdict(record),
        tiles=headline(record),
        sections=[section for section in parts if section is not None],
        footer=f"Written by codesign {VERSION}. "
        "Accuracies are on the test set; training and choices saw only training and validation samples.",
    )
    return path


def compare_runs(folders: Sequence[str | Path], page: str | Path) -> list[dict[str, Any]]:
    """Write one page with the figures of several runs side by side to the file ``page``; returns a row for each run.

    A row has ``run`` and what :func:`codesign.report.side_by_side.figures_of` says.

    Raises InputError for a folder that is no run or is given twice, or if ``page`` is the report of one; OutputError
    if the page cannot be written.
    """
    return write_comparison(folders, page, REPORT)


def write_figure(folder: str | Path, path: str | Path) -> Path:
    """Write a run in one picture, PNG or SVG by the ending of ``path``: spikes, training, confusion matrix.

    Raises InputError unless the run is trained, frozen and verified.
    """
    record = collect(Path(folder))
    stimulus, matrix = record.stimulus, confusion_matrix(record)
    if stimulus is None or matrix is None or record.observed is None or not record.history:
        raise InputError(f"{folder}: not trained, frozen and verified yet; run: codesign run {folder}")
    if Path(path).suffix not in (".png", ".svg"):
        raise InputError(f"{path}: the picture's name must end in .png or .svg")
    rows, quantised = training_rows(record)
    names = [record.class_name(index) for index in range(len(matrix))]
    rasters = raster_layers(record)
    shape, chosen, picture = record.image_shape, stimulus.take([record.shown_sample]), None
    if chosen.values is None:
        rasters = [("input", chosen.dense()[0].astype(bool), None), *rasters]
    elif shape is not None:
        picture = chosen.values[0].reshape(shape)
    figure = summary(rasters, picture, rows, record.layer_names, quantised, matrix, names)
    plots.save_figure(figure, Path(path))
    return Path(path)
