"""What an import has kept and changed, how near the integers are, and what bits and density cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, PercentFormatter

from codesign.report.blocks import Section, number, share
from codesign.report.collect import Record
from codesign.report.plots import BLUE, GREEN, HALF, MUTED, ORANGE, percent, style


def imported(record: Record) -> Section | None:
    """The three lists, agreement by layer, choice of bits, pruning. None for a network that was not imported."""
    found = record.imported
    if found is None:
        return None
    section = Section("import", "From the source's network to the frozen one")
    tuned = "Fine-tuned before it became integers." if found.get("fine_tuning") else "Nothing was fine-tuned."
    section.text(f"{found['file']}, as {found['source']} means it. {tuned}")
    section.heading("Supported")
    section.table(["kept as it is"], [[line] for line in found["supported"]])
    section.heading("Changed")
    section.table(["where", "what"], [[change["where"], change["text"]] for change in found["changed"]])
    section.heading("Unsupported")
    section.table(["what"], [[line] for line in found["unsupported"] or ["nothing"]])
    agreement(section, found)
    bits(section, found)
    fine_tuning(section, found)
    pruning(section, found)
    return section


def agreement(section: Section, found: Mapping[str, Any]) -> None:
    section.heading("The source's network against the integers")
    measured = found.get("measured")
    if measured is None:
        section.missing("agreement", state=found.get("note") or "the source's own integers: nothing was rounded")
        return
    section.table(
        ["layer", "spikes in float", "in integers", "Jaccard", "F1", "lag"],
        [
            [
                layer["layer"],
                number(layer["float_spikes"]),
                number(layer["frozen_spikes"]),
                number(layer["jaccard"], 3),
                number(layer["f1"], 3),
                layer["lag"],
            ]
            for layer in measured["layers"]
        ],
    )
    rows: list[tuple[str, object]] = [("decisions the same", share(measured["same_decisions"]))]
    if measured["accuracy_float"] is not None:
        rows.append(("accuracy in float", share(measured["accuracy_float"], 2)))
        rows.append(("accuracy in integers", share(measured["accuracy_frozen"], 2)))
    rows.append(("states saturated", f"{number(measured['saturations'])} times"))
    section.facts(rows)
    section.caption(
        f"Jaccard: spikes in both over spikes in either, at the lag in timesteps that fits best. On "
        f"{measured['samples']} samples{roles(found)}"
    )


def roles(found: Mapping[str, Any]) -> str:
    """What the samples that are not reported on were for."""
    samples = found.get("samples")
    if samples is None:
        return "."
    if samples["training"]:
        bits = " and bits" if found.get("bits_chosen") else ""
        return (
            f"; of others {samples['training']} were trained on, {samples['choosing']} chose the epoch{bits}, "
            f"{samples['calibration']} decided widths."
        )
    return f"; {samples['calibration']} others decided widths" + (" and bits." if found.get("bits_chosen") else ".")


def bits(section: Section, found: Mapping[str, Any]) -> None:
    chosen, costs = found.get("bits_chosen"), found.get("bit_costs")
    if chosen is not None:
        section.heading("Bits of the weights")
        section.facts(
            [
                ("bits by layer", ", ".join(map(str, chosen["bits"]))),
                ("accuracy in float", share(chosen["accuracy_float"], 2)),
                ("accuracy with these bits", share(chosen["accuracy"], 2)),
            ]
        )
        section.caption(f"Of the {chosen['samples']} samples that chose the bits, on which nothing else is reported.")
    if costs is not None:
        section.heading("What bits of the weights cost")
        section.table(["bits", *HEAD], variants("bits", costs["rows"]))
        section.caption(f"All layers alike, on {costs['samples']} samples that are not among the measured.")


def fine_tuning(section: Section, found: Mapping[str, Any]) -> None:
    tuned, samples = found.get("fine_tuning"), found.get("samples")
    if tuned is None or samples is None:
        return
    accuracies = [row["validation_accuracy"] for row in tuned["history"]]
    section.heading("Fine-tuning")
    section.facts(
        [
            ("samples trained on", number(samples["training"])),
            ("samples that chose the epoch", number(samples["choosing"])),
            ("epoch chosen", f"{tuned['epoch']} of {tuned['epochs']}"),
            ("accuracy in float before", share(accuracies[0], 2)),
            ("accuracy in float of that epoch", share(accuracies[tuned["epoch"]], 2)),
        ]
    )
    section.caption("Accuracies of the samples that chose the epoch, which are not among the measured.")


def pruning(section: Section, found: Mapping[str, Any]) -> None:
    pruned = found.get("pruning")
    if pruned is None:
        return
    section.heading("Pruning")
    section.text(
        f"{sum(pruned['kept']):,} of {sum(pruned['weights']):,} weights stay, the largest of each layer; the PQ index "
        "of its weights says how many."
    )
    section.table(
        ["layer", "weights", "stay", "share"],
        [
            [index, number(whole), number(kept), share(kept / whole if whole else None)]
            for index, (whole, kept) in enumerate(zip(pruned["weights"], pruned["kept"], strict=True))
        ],
    )
    curve = pruned["trade_off"]
    if curve is None:
        section.missing("what density costs", state="no samples that chose nothing")
        return
    section.figure(
        trade_off(curve, pruned["density"]),
        "decisions and accuracy over the share of the weights that stays",
        f"In integers against the source's network, on {curve['samples']} samples that chose nothing.",
    )
    head, rows = ["density", *HEAD], variants("density", curve["rows"])
    if curve.get("tuned") is not None:
        head += [f"{name}, fine-tuned" for name in HEAD]
        rows = [row + tuned[1:] for row, tuned in zip(rows, variants("density", curve["tuned"]), strict=True)]
    section.table(head, rows)


HEAD = ("synapses", "decisions the same", "accuracy")


def variants(name: str, rows: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    return [
        [f"{row[name]:g}", number(row["synapses"]), share(row["same_decisions"]), share(row["accuracy"], 2)]
        for row in rows
    ]


def trade_off(curve: Mapping[str, Any], chosen: float) -> Figure:
    """Over the density of the weights: accuracy before and after fine-tuning, or without one decisions and accuracy."""
    rows, tuned = curve["rows"], curve.get("tuned")
    if tuned is None:
        lines = [("decisions the same", "same_decisions", rows, BLUE), ("accuracy", "accuracy", rows, GREEN)]
    else:
        lines = [("fine-tuned", "accuracy", tuned, GREEN), ("pruned only", "accuracy", rows, ORANGE)]
    with style():
        figure = Figure(figsize=(HALF, 2.8), layout="constrained")
        axes = figure.subplots()
        for name, key, points, colour in lines:
            known = [(row["density"], row[key]) for row in points if row[key] is not None]
            if known:
                axes.plot(*zip(*known, strict=True), "o-", color=colour, markersize=4, label=name)
        if curve.get("accuracy_float") is not None:
            axes.axhline(curve["accuracy_float"], color=MUTED, linewidth=1, linestyle="--", label="accuracy in float")
        axes.axvline(chosen, color=MUTED, linewidth=1, linestyle=":", label="this network")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([row["density"] for row in rows]))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.02, 1.02)
        percent(axes.yaxis)
        axes.set_xlabel("weights that stay")
        axes.set_ylabel("of the samples" if tuned is None else "accuracy")
        axes.legend(loc="lower right")
    return figure
