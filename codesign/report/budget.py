"""The hardware budget of a run: how the network came to fit it, and what place and route says."""

from __future__ import annotations

import math
from typing import Any

from codesign.cost.budget import UNITS
from codesign.report import plots
from codesign.report.blocks import Section, number, share
from codesign.report.collect import Record


def budget(record: Record) -> Section | None:
    """Trajectory of the estimates against the limits; choice, use and the formula's error. None without a budget."""
    document: dict[str, Any] = record.run.manifest.get("budget") or {}
    limits: dict[str, float] = document.get("limits") or {}
    if not limits:
        return None
    section = Section("budget", f"Hardware budget: {document['name']}")
    rows = [row for row in record.history if row.get("budget")]
    measured = document.get("measured") or {}
    _verdict(section, record, document, limits)
    if rows:
        section.panels(
            [
                (
                    plots.budget(rows, kind, UNITS[kind], limits.get(kind), measured.get(kind)),
                    f"estimated use of the budget over the epochs: {UNITS[kind]}",
                )
                for kind in plots.budget_kinds(rows, limits, list(UNITS))
            ],
            f"What the network in training would need with {rows[-1]['budget']['weight_bits']}-bit weights, the fewest "
            "allowed, on the lanes that suit best (jumps: other lanes suit better). Pale line: the formula; dark "
            "line: with its margin, which must come below the limit (red). Shaded: density falls no further."
            + (" Diamond: measured on the delivered Verilog." if measured else ""),
        )
    _table(section, document, limits, measured)
    return section


def _verdict(section: Section, record: Record, document: dict[str, Any], limits: dict[str, float]) -> None:
    failures = [record.run.stage(name).get("failure") for name in ("train", "budget", "verify")]
    found = next(filter(None, failures), None)
    if found is not None:
        section.alert("bad", "Does not fit.", str(found))
    elif document.get("fits"):
        # Without a device there is nothing to place on; memories are counted, and cycles simulated.
        placed = "by place and route of the delivered Verilog" if document["family"] else "without a device to place on"
        section.alert(
            "good",
            "Fits.",
            f"{document['weight_bits']} bits on {document['lanes']} lanes, density {share(document['density'])}, "
            f"{placed}.",
        )
    elif document.get("weight_bits"):
        section.missing("place and route", f"codesign budget {record.name}")


def _table(section: Section, document: dict[str, Any], limits: dict[str, float], measured: dict[str, float]) -> None:
    estimated, needed = document.get("estimated") or {}, document.get("needed") or {}
    errors, margins, link = document.get("error") or {}, document["margins"], document["overhead"]
    if not estimated:
        return
    kinds = [kind for kind in UNITS if kind in estimated and (kind in limits or kind in measured)]
    rows = [
        [
            UNITS[kind],
            number(limits.get(kind)),
            number(estimated[kind]),
            number(link.get(kind)),
            share(margins.get(kind)),
            number(needed[kind]),
            number(measured.get(kind)),
            share(errors.get(kind)),
        ]
        for kind in kinds
    ]
    head = ["kind", "limit", "formula", "of it link", "margin", "with margin", "measured", "formula is off by"]
    over = [row for row, kind in enumerate(kinds) if measured.get(kind, 0.0) > limits.get(kind, math.inf)]
    section.table(head, rows, over)
    section.caption(
        "Formula: the frozen network on the chosen lanes. Measured: logic and memory blocks by place and route, cycles "
        "by simulation of the delivered Verilog."
    )
    for item in document.get("rejected", []):
        section.text(
            f"Place and route refused {item['weight_bits']} bits on {item['lanes']} lanes although the formula allowed "
            f"it: {item['reason']}."
        )
