"""The report of a run: one self-contained page that opens offline.

It only reads: what a stage has not measured is said to be missing, together with the command that measures
it. It imports neither torch nor amaranth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError
from codesign.report import plots, sections
from codesign.report.blocks import Mood, number, share, tile, write_page
from codesign.report.budget import budget
from codesign.report.collect import Record, collect

REPORT = "report.html"


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run directory and return its path.

    Raises InputError if ``folder`` is no run directory, OutputError if the page cannot be written.
    """
    record = collect(Path(folder))
    parts = [
        sections.warned(record),
        sections.accuracy(record),
        sections.confusion(record),
        sections.training(record),
        sections.spikes(record),
        sections.membranes(record),
        budget(record),
        sections.verification(record),
        sections.layers(record),
        sections.pictures(record),
        sections.area(record),
        sections.clock(record),
        sections.cycles(record),
        sections.weights(record),
        sections.connectivity(record),
        sections.reproduce(record),
    ]
    path = Path(folder) / REPORT
    write_page(
        path,
        title=record.name,
        subtitle=subtitle(record),
        verdict=verdict(record),
        tiles=headline(record),
        sections=[section for section in parts if section is not None],
        footer=f"Written by codesign {record.run.manifest.get('versions', {}).get('codesign', '')}. "
        "Accuracies are on the test set; training and choices saw training and validation samples alone.",
    )
    return path


def write_figure(folder: str | Path, path: str | Path) -> Path:
    """Write a run in one picture, PNG or SVG by the ending of ``path``: spikes, training, confusion matrix.

    Raises InputError unless the run is trained, frozen and verified.
    """
    record = collect(Path(folder))
    decisions, stimulus, network = record.decisions, record.stimulus, record.network
    if decisions is None or stimulus is None or network is None or record.observed is None or not record.history:
        raise InputError(f"{folder}: not trained, frozen and verified yet; run: codesign run {folder}")
    if Path(path).suffix not in (".png", ".svg"):
        raise InputError(f"{path}: the picture's name must end in .png or .svg")
    layers, picture = sections.raster_layers(record)
    rows, quantised = sections.training_rows(record)
    known = stimulus.labels >= 0
    matrix = sections.confusion_matrix(stimulus.labels[known], decisions[known], network.n_outputs)
    figure = plots.summary(
        layers, picture, rows, record.layer_names, quantised, matrix, sections.class_names(record, len(matrix))
    )
    plots.save_figure(figure, Path(path))
    return Path(path)


def subtitle(record: Record) -> str:
    parts = []
    if record.config is not None:
        parts.append(f"data set {record.config.data.set}")
    if record.network is not None:
        network = record.network
        shapes = [network.layers[0].projections[0].source_shape, *(layer.shape for layer in network.layers)]
        widths = [network.n_inputs, *(layer.n_out for layer in network.layers)]
        sizes = ["x".join(map(str, shape or (width,))) for shape, width in zip(shapes, widths, strict=True)]
        parts.append("-".join(sizes) + f" spiking network, {network.timesteps} timesteps")
    return ", ".join(parts) or "run directory"


def verdict(record: Record) -> tuple[Mood, str, str]:
    figures = record.figures
    mismatches, verified = figures.get("mismatches"), figures.get("samples_verified")
    found = record.verification
    if mismatches is None and found is not None and not found.get("passed"):
        mismatches, verified = found.get("mismatches"), found.get("samples")
    if mismatches or (found is not None and not found.get("passed")):
        return (
            "bad",
            "Hardware differs from software.",
            f"{number(mismatches)} values differ, {number(verified)} samples.",
        )
    guessing = record.accuracy is not None and record.accuracy.within_noise
    if mismatches == 0 and verified:
        equal = f"{verified:,} test samples simulated in RTL, 0 values differ."
        if record.accuracy is not None and guessing:
            return (
                "bad",
                "The network has not learnt; hardware equals software.",
                f"{capitalised(record.accuracy.sentence('accuracy of the frozen network'))}. {equal}",
            )
        if record.run.warnings:
            return "open", "Hardware equals software; something looks wrong.", f"{equal} See the warnings below."
        return "good", "Hardware equals software.", equal
    problem = record.network.hardware_support() if record.network is not None else None
    missing = "" if problem is None else f"No hardware yet: {problem}."
    if record.accuracy is not None and guessing:
        sentence = f"{capitalised(record.accuracy.sentence('accuracy of the frozen network'))}."
        return "bad", "The network has not learnt.", " ".join(part for part in (sentence, missing) if part)
    if problem is not None:
        return "open", "No hardware yet.", f"{capitalised(problem)}."
    return "open", "Not verified.", f"Run: codesign verify {record.name}"


def _operations(figures: dict[str, Any]) -> tuple[str, str]:
    tested = figures.get("synaptic_operations_per_sample")
    if tested is not None:
        return number(tested), "synaptic, per test sample"
    return number(figures.get("synaptic_operations_per_verified_sample")), "synaptic, per verified sample"


def headline(record: Record) -> list[dict[str, object]]:
    figures = record.figures
    mismatches = figures.get("mismatches")
    found = record.accuracy
    guessing = found is not None and found.within_noise
    network_hash = figures.get("network_hash") or (record.network.hash if record.network is not None else None)
    return [
        tile("accuracy, float", share(figures.get("accuracy_float"), 2), "before quantisation"),
        tile("accuracy, frozen", share(figures.get("accuracy_frozen"), 2), f"{weight_note(figures)}", bad=guessing),
        tile("accuracy, hardware", share(figures.get("accuracy_hardware"), 2), "decisions of the RTL", bad=guessing),
        *([tile("guessing", share(found.guess, 2), "commonest class, or any")] if found is not None else []),
        tile("density", share(figures.get("density")), f"{number(figures.get('synapses'))} synapses"),
        tile("operations", *_operations(figures)),
        tile("samples verified", number(figures.get("samples_verified")), "every spike and membrane"),
        tile("mismatches", number(mismatches), "hardware against software", bad=bool(mismatches)),
        tile("network", network_hash[:7] if network_hash else number(None), "start of its hash"),
    ]


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def weight_note(figures: dict[str, object]) -> str:
    bits = figures.get("weight_bits")
    return "integer weights" if bits is None else f"{bits}-bit weights"
