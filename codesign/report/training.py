"""The card of the training: curves over the epochs, and how the connections came to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codesign.config import RewiringConfig
from codesign.report import plots
from codesign.report.blocks import Section, gap, number
from codesign.report.collect import Record


def training(record: Record) -> Section | None:
    """Loss, accuracy, density, firing rates over the epochs. None for a network that was not trained here."""
    if record.run.is_imported:
        return None
    section = Section("training", "Training")
    if not record.history:
        gap(section, record, "training history", "train")
        return section
    rows, quantised = training_rows(record)
    names = plots.training_panels(rows)
    section.panels(
        [
            (plots.training(name, rows, record.layer_names, quantised), f"{plots.TRAINING[name][0]} over the epochs")
            for name in names
        ],
        " ".join(
            ([structure_text(record.config.train.rewiring)] if record.config is not None else [])
            + (["Shaded: fine-tuning in integers, connections fixed."] if quantised is not None else [])
            + [TRAINING_WORDS[name] for name in names if name in TRAINING_WORDS]
            + integrating_words(record, names)
            + work_sentences(record)
        ),
    )
    section.closer("Look closely at the epochs", curves(names, rows, record.layer_names, quantised))
    return section


def curves(
    names: Sequence[str], rows: Sequence[dict[str, Any]], layer_names: Sequence[str], quantised_from: int | None
) -> dict[str, Any]:
    """The panels of the training as data of an interactive figure."""
    return {
        "kind": "curves",
        "quantised_from": quantised_from,
        "panels": [
            {
                "title": plots.TRAINING[name][0],
                "label": plots.TRAINING[name][1],
                "percent": name in plots.SHARES,
                "lines": [
                    {"name": label, "colour": None if colour == plots.INK else colour, "values": values}
                    for label, colour, values in plots.training_lines(name, rows, layer_names)
                ],
            }
            for name in names
        ],
    }


TRAINING_WORDS = {
    "accuracy": "Accuracy in training: of the batches as they are trained on, while the weights still change; in "
    "validation: at the end of the epoch, on samples that no weight has learnt from.",
    "firing_rate": "Firing rate: on the validation samples.",
}


def integrating_words(record: Record, names: Sequence[str]) -> list[str]:
    """Why a line of the firing rates lies at zero."""
    if "firing_rate" not in names or record.network is None or not record.network.membrane_readout:
        return []
    return ["The output layer only integrates and never fires."]


def work_sentences(record: Record) -> list[str]:
    """What the training was told of the work of the network, and what came of it; nothing without a target."""
    target = None if record.config is None else record.config.train.operations_target
    if target is None:
        return []
    kept = record.figures.get("synaptic_operations_per_sample")
    return [
        f"The loss draws the network down to {number(target)} synaptic operations per sample"
        + (f"; the frozen network takes {number(kept)} on the test set." if kept is not None else ".")
    ]


def structure_text(rewiring: RewiringConfig) -> str:
    """How the connections came to be, in two sentences."""
    rules = rewiring.rules
    if rewiring.preset == "dense":
        return "Every connection exists from the first step."
    if not rules.changes:
        return "Sparse from the first step, at random; the connections stay as they are."
    fraction = {
        "pq": "the fraction that the PQ index allows",
        "constant": "a constant fraction",
        "cosine": "a fraction that falls by a cosine",
    }[rules.ratio]
    place = {
        "momentum": "as many grown where momentum is large",
        "gradient": "as many grown where the gradient is large",
        "random": "as many grown anywhere",
        "none": "none grown",
    }[rules.growth]
    text = f"Sparse from the first step: connections of small weight are pruned by {fraction}, {place}"
    share = f"; {rewiring.scope}s share what there is by their PQ index" if rewiring.share == "index" else ""
    if not rules.falls:
        return f"{text}; density stays{share}."
    landing = {
        "ratio": "",
        "pace": ", at an even pace",
        "distribution": "; every layer ends with its share of the target",
    }[rewiring.lands]
    return f"{text}; density falls at the end of each iteration{landing}{share}."


def training_rows(record: Record) -> tuple[list[dict[str, Any]], int | None]:
    """Rows of the history and of the fine-tuning in integers, and where the latter begins."""
    fine_tuning = [row for row in record.freezing.get("fine_tuning", []) if row.get("epoch")]
    rows = [*record.history, *({**row, "density": record.figures.get("density")} for row in fine_tuning)]
    return rows, len(record.history) if fine_tuning else None
