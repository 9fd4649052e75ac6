"""What an import has kept and changed, how near the integers are, and what bits and density cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codesign.report import plots
from codesign.report.blocks import Section, number, share
from codesign.report.collect import Record


def imported(record: Record) -> Section | None:
    """The three lists, agreement by layer, choice of bits, pruning. None for a network that was not imported."""
    found = record.imported
    if found is None:
        return None
    section = Section("import", "From the source's network to the frozen one")
    section.text(f"{found['file']}, as {found['source']} means it. Nothing was fine-tuned.")
    section.heading("Supported")
    section.table(["kept as it is"], [[line] for line in found["supported"]])
    section.heading("Changed")
    section.table(["where", "what"], [[change["where"], change["text"]] for change in found["changed"]])
    section.heading("Unsupported")
    section.table(["what"], [[line] for line in found["unsupported"] or ["nothing"]])
    agreement(section, found)
    bits(section, found)
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
        f"{measured['samples']} samples; {found.get('samples_that_choose')} others decided widths"
        + (" and bits." if found.get("bits_chosen") else ".")
    )


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
        plots.trade_off(curve["rows"], pruned["density"]),
        "decisions and accuracy over the share of the weights that stays",
        f"In integers against the source's network, on {curve['samples']} samples that chose nothing.",
    )
    section.table(["density", *HEAD], variants("density", curve["rows"]))


HEAD = ("synapses", "decisions the same", "accuracy")


def variants(name: str, rows: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    return [
        [f"{row[name]:g}", number(row["synapses"]), share(row["same_decisions"]), share(row["accuracy"], 2)]
        for row in rows
    ]
