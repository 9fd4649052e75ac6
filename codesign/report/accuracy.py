"""The cards of accuracy: of each network, the confusion matrix, and by class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.report import plots
from codesign.report.blocks import Section, gap, number, share
from codesign.report.collect import Record
from codesign.report.samples import thumbnails

MAX_CLASSES = 40


def accuracy(record: Record) -> Section:
    section = Section("accuracy", "Accuracy", "half")
    figures = record.figures
    names = {
        "trained, floating point": (figures.get("accuracy_float"), "freeze"),
        "frozen, integers": (record.frozen_accuracy, "freeze"),
        "hardware": (record.hardware_accuracy, "verify"),
    }
    if record.run.is_imported:
        del names["trained, floating point"]
    known = {name: value for name, (value, _) in names.items() if value is not None}
    counts = dict.fromkeys(known, len(record.stimulus) if record.stimulus is not None else 0)
    if "hardware" in known:
        counts["hardware"] = figures.get("samples_verified") or 0
    if known:
        caption = "On the test set. Bands: 95 % interval (Wilson) for the number of samples."
        if counts.get("hardware"):
            caption += f" Hardware: {record.of_test_samples(counts['hardware'])}, simulated."
        section.figure(plots.accuracy(known, counts), "accuracy of the trained, frozen and hardware network", caption)
    for name, (value, verb) in names.items():
        if value is None and verb == "freeze" and record.run.is_imported:
            section.missing(f"accuracy, {name}", state="no labelled samples came with the network")
        elif value is None:
            gap(section, record, f"accuracy, {name}", verb)
    if figures.get("balanced_accuracy") is not None:
        section.caption(
            f"Balanced accuracy of the frozen network, the mean over the classes: {figures['balanced_accuracy']:.2%}."
        )
    thumbnails(section, record)
    return section


def confusion(record: Record) -> Section:
    section = Section("confusion", "Confusion", "half")
    if record.decisions is None:
        gap(section, record, "decisions", "freeze")
        return section
    matrix = confusion_matrix(record)
    if matrix is None:
        section.missing("labels of the samples", state="unknown")
        return section
    total = int(matrix.sum())
    section.figure(
        plots.confusion(matrix, [record.class_name(index) for index in range(len(matrix))]),
        "confusion matrix of the frozen network",
        f"Frozen network on {total:,} test samples; {total - int(np.trace(matrix)):,} wrong (red).",
    )
    return section


def classes(record: Record) -> Section | None:
    """Per class: samples, how many of them are found, and how many of the decisions for it are right."""
    matrix = confusion_matrix(record)
    if matrix is None or len(matrix) > MAX_CLASSES:
        return None
    section = Section("classes", "Classes")
    rows = []
    for index, found in enumerate(np.diagonal(matrix)):
        labelled, decided = int(matrix[index].sum()), int(matrix[:, index].sum())
        mistaken = np.where(np.arange(len(matrix)) == index, 0, matrix[index])
        most = f"{record.class_name(int(mistaken.argmax()))} ({int(mistaken.max()):,})" if mistaken.any() else ""
        rows.append(
            [
                record.class_name(index), number(labelled), share(found / labelled if labelled else None),
                share(found / decided if decided else None), most,
            ]
        )  # fmt: skip
    section.table(["class", "test samples", "recall", "precision", "most often taken for"], rows)
    section.caption(
        "Frozen network on the test set. Recall: the share of a class's samples that are recognised. Precision: the "
        "share of the decisions for a class that are right. In brackets: the number of samples."
    )
    return section


def confusion_matrix(record: Record) -> npt.NDArray[np.int64] | None:
    """Counts, int64 (label, decision), of the frozen network on labelled test samples; None where there are none."""
    if record.decisions is None or record.network is None or record.stimulus is None:
        return None
    known = record.stimulus.labels >= 0
    if not known.any():
        return None
    labels, decisions = record.stimulus.labels[known], record.decisions[known]
    count = max(int(labels.max()) + 1, record.network.n_outputs)
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, decisions), 1)
    return matrix
