"""Runs side by side on one page: their figures, and the keys of their configurations that differ."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from codesign.basics.errors import InputError
from codesign.config.text import plain
from codesign.contract.network import FrozenNetwork
from codesign.records.rundir import HARDWARE_KEYS
from codesign.report import plots
from codesign.report.areas import RESOURCES, amount
from codesign.report.blocks import Mood, Section, number, share, tile, write_page
from codesign.report.collect import Record, collect
from codesign.report.headline import Cells, known_cells, subtitle

MISSING = number(None)


def write_comparison(folders: Sequence[str | Path], page: str | Path, report: str) -> list[dict[str, Any]]:
    """Write the page of runs, which opens offline, to the file ``page``; returns :func:`figures_of` each.

    folders : at least two, each another. report : name of a run's own report in its folder, which the page links to.

    Raises InputError for a folder that is no run or given twice, or if the page would replace the report of one;
    OutputError if the page cannot be written.
    """
    page = Path(page)
    places = [Path(folder) for folder in folders]
    for index, place in enumerate(places):
        if place.resolve() in [other.resolve() for other in places[:index]]:
            raise InputError(f"{place}: given twice; compare different runs")
        if page.resolve() == (place / report).resolve():
            raise InputError(f"{page}: is the report of a run; name another file for the page of several")
    records = [collect(place) for place in places]
    names = _names(records, places)
    rows = [figures_of(record) for record in records]
    parts = [_reports(names, records, page, report), _pictures(names, rows), _table(names, rows), _keys(names, records)]
    verified = sum(bool(row["samples_verified"]) for row in rows)
    write_page(
        page,
        title=f"{len(records)} runs side by side",
        subtitle=", ".join(names),
        verdict=_verdict(names, rows, records),
        tiles=[
            tile("runs", number(len(rows))),
            tile("verified", number(verified), "simulated in RTL, every spike and membrane"),
            _best("best accuracy", names, rows, "accuracy_frozen", max, lambda value: share(value, 2)),
            _best("fewest synapses", names, rows, "synapses", min, number),
            _best("fewest clocks a sample", names, rows, "latency_cycles", min, number),
        ],
        sections=[part for part in parts if part is not None],
        footer="Accuracies are on each run's test samples. Figures that nothing has measured are estimates and say so.",
    )
    return [{"run": str(place), **row} for place, row in zip(places, rows)]


def _names(records: Sequence[Record], places: Sequence[Path]) -> list[str]:
    """The folders' names, or their paths where two have the same name."""
    short = [record.name for record in records]
    return [name if short.count(name) == 1 else str(place) for name, place in zip(short, places)]


def figures_of(record: Record) -> dict[str, Any]:
    """What a run is compared by; None where it is not known.

    Clocks are means over the samples, ``cycles`` how they are known; one simulated sample has no ``interval_cycles``.
    ``accuracy_hardware`` is of the first ``samples_verified`` of ``test_samples``, in which ``mismatches`` values
    differ. ``latency_us`` and ``fmax_mhz`` are by target as placed and routed. ``energy_nj`` is an estimate
    (:mod:`codesign.cost.energy`). ``area`` has the cells of each family as they are known best: ``{family: {"how",
    lut, ff, ...}}``.
    """
    verification, estimate = record.verification or {}, record.estimate or {}
    simulated = verification.get("latency_cycles") is not None
    clocks = verification if simulated else estimate
    area: dict[str, Any] = {}
    for cells in known_cells(record):
        area.setdefault(cells.family, {"how": _how(cells), **{kind: cells.amounts.get(kind) for kind in RESOURCES}})
    # The bundle states what the estimate says of its machine.
    bits = estimate.get("memory_bits") if record.sidecar is None else record.sidecar.memory_bits.model_dump()
    figures, network = record.figures, record.network
    verified, mismatches = record.compared
    return {
        "network": subtitle(record),
        "accuracy_frozen": record.frozen_accuracy,
        "accuracy_hardware": record.hardware_accuracy,
        "density": None if network is None else network.density,
        "synapses": None if network is None else network.n_synapses,
        "weight_bits": _weight_bits(network),
        "timesteps": None if network is None else network.timesteps,
        "latency_cycles": clocks.get("latency_cycles"),
        "interval_cycles": clocks.get("interval_cycles"),
        "cycles": None if clocks.get("latency_cycles") is None else "simulated" if simulated else "estimated",
        "latency_us": figures.get("latency_us"),
        "fmax_mhz": figures.get("fmax_mhz"),
        "memory_bits": sum(bits.values()) if bits else None,
        "energy_nj": energy["sample_pj"] / 1000 if (energy := estimate.get("energy")) else None,
        "area": area,
        "samples_verified": verified,
        "test_samples": None if record.stimulus is None else len(record.stimulus),
        "mismatches": mismatches,
    }


def _how(cells: Cells) -> str:
    return cells.how if cells.where == cells.family else f"{cells.how} on {cells.where}"


def _weight_bits(network: FrozenNetwork | None) -> int | None:
    return None if network is None else max(layer.weight_bits for layer in network.layers)


def _verdict(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], records: Sequence[Record]
) -> tuple[Mood, str, str]:
    wrong = [name for name, row in zip(names, rows) if row["mismatches"]]
    if wrong:
        return "bad", f"Hardware differs from software in {' and '.join(wrong)}.", "See the reports of these runs."
    other = _other_samples(names, records)
    if other:
        return "open", "Not the same test samples.", f"{other} Their accuracies do not stand against each other."
    count = sum(bool(row["samples_verified"]) for row in rows)
    if count == len(rows):
        return "good", "Hardware equals software in all of them.", "Every spike and membrane of the simulated samples."
    text = f"{count} of {len(rows)} are" if count else "None is"
    return "open", f"{text} verified.", "The hardware of the others is not simulated as it is now." if count else ""


def _other_samples(names: Sequence[str], records: Sequence[Record]) -> str:
    """Which runs have other test samples than the first that has any, as their labels tell."""
    known = [(name, record.stimulus.labels) for name, record in zip(names, records) if record.stimulus is not None]
    other = [name for name, labels in known if not np.array_equal(labels, known[0][1])]
    return f"{' and '.join(other)}: others than {known[0][0]}." if other else ""


def _best(
    title: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    key: str,
    choose: Callable[[list[float]], float],
    text: Callable[[float], str],
) -> dict[str, Any]:
    known = [row[key] for row in rows if row[key] is not None]
    if not known:
        return tile(title, MISSING, "not known yet")
    best = choose(known)
    return tile(title, text(best), ", ".join(name for name, row in zip(names, rows) if row[key] == best))


def _reports(names: Sequence[str], records: Sequence[Record], page: Path, report: str) -> Section:
    section = Section("runs", "Runs")
    for name, record in zip(names, records):
        for text in record.damaged:
            section.alert("bad", f"{name}:", text)
    links = []
    for name, record in zip(names, records):
        path = record.run.path / report
        address = os.path.relpath(path.resolve(), page.resolve().parent)
        if path.is_file():
            links.append((name, quote(address), subtitle(record)))
        else:
            section.missing(f"report of {name}", f"codesign report {record.run.path}", "not written")
    if links:
        section.links(links)
    return section


def _pictures(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Section | None:
    """A panel for each main figure that at least one run has."""
    family = _family(rows)
    logic = [None if family is None else (row["area"].get(family) or {}).get("lut") for row in rows]
    panels: list[tuple[str, list[float | None], bool]] = [
        ("accuracy, frozen network", [row["accuracy_frozen"] for row in rows], True),
        ("synapses", [row["synapses"] for row in rows], False),
        ("clocks of a sample alone", [row["latency_cycles"] for row in rows], False),
        (f"logic of {family}", logic, False),
        ("memory, bits", [row["memory_bits"] for row in rows], False),
    ]
    known = [panel for panel in panels if any(value is not None for value in panel[1])]
    if not known:
        return None
    section = Section("pictures", "Main figures")
    section.panels(
        [
            (beside(title, names, values, is_share=is_share), f"{title} of each run")
            for title, values, is_share in known
        ],
        "Accuracies are dots, on a scale of their own; bars begin at 0.",
    )
    return section


def _family(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The family whose logic most runs know; the first of equals."""
    families = list(dict.fromkeys(family for row in rows for family in row["area"]))

    def known(family: str) -> int:
        return sum((row["area"].get(family) or {}).get("lut") is not None for row in rows)

    return max(families, key=known, default=None)


def beside(title: str, names: Sequence[str], values: Sequence[float | None], *, is_share: bool = False) -> Figure:
    """One figure of each run: bars from 0, or dots where it is a share; a run that lacks it has a dash."""
    with plots.style():
        figure = Figure(figsize=(plots.THIRD, 0.75 + 0.3 * len(names)), layout="constrained")
        axes = figure.subplots()
        known = [value for value in values if value is not None]
        for index, value in enumerate(values):
            colour = plots.SERIES[index % len(plots.SERIES)]
            if value is None:
                axes.text(0.01, index, MISSING, transform=axes.get_yaxis_transform(), va="center", color=plots.MUTED)
                continue
            if is_share:
                axes.plot(value, index, "o", color=colour, markersize=7)
            else:
                axes.barh(index, value, height=0.62, color=colour, linewidth=0)
            axes.annotate(
                share(value, 2) if is_share else number(value), (value, index), xytext=(7, 0),
                textcoords="offset points", va="center", fontsize=8, color=plots.INK,
            )  # fmt: skip
        low, high = (min(known), max(known)) if is_share else (0.0, max(known))
        room = (high - low) or 0.02 * high or 1.0
        axes.set_xlim(low - 0.1 * room if is_share else 0.0, high + 0.45 * room)
        axes.set_ylim(len(names) - 0.4, -0.6)
        short = [name if len(name) <= 18 else f"...{name[-15:]}" for name in names]
        axes.set_yticks(range(len(names)), [plots.plain_text(name) for name in short])
        axes.tick_params(axis="y", length=0, labelcolor=plots.INK)
        axes.xaxis.set_major_locator(plots.MaxNLocator(3))
        axes.set_title(title)
        if is_share:
            plots.percent(axes.xaxis)
        else:
            axes.xaxis.set_major_formatter(plots.StrMethodFormatter("{x:,.0f}"))
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


def _table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Section:
    section = Section("figures", "Figures")

    def cells(title: str, text: Callable[[Mapping[str, Any]], str]) -> list[str]:
        return [title, *map(text, rows)]

    def clocks(key: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda row: MISSING if row[key] is None else f"{number(row[key])}, {row['cycles']}"

    table = [
        cells("accuracy, frozen", lambda row: share(row["accuracy_frozen"], 2)),
        cells("accuracy, hardware", _hardware_accuracy),
        cells("synapses", lambda row: number(row["synapses"])),
        cells("density", lambda row: share(row["density"])),
        cells("weight bits", lambda row: number(row["weight_bits"])),
        cells("timesteps", lambda row: number(row["timesteps"])),
        cells("clocks of a sample alone", clocks("latency_cycles")),
        cells("clocks between samples", clocks("interval_cycles")),
    ]
    for target in _targets(rows):
        table.append(cells(f"clock on {target}, MHz", lambda row, key=target: number(_of(row, "fmax_mhz", key), 1)))
        table.append(cells(f"latency on {target}, us", lambda row, key=target: number(_of(row, "latency_us", key), 1)))
    table.append(cells("memory, bits", lambda row: number(row["memory_bits"])))
    table.append(cells("energy of a sample, nJ, estimated", lambda row: number(row["energy_nj"], 1)))
    for family in dict.fromkeys(family for row in rows for family in row["area"]):
        for kind, title in RESOURCES.items():
            table.append(
                cells(f"{title}, {family}", lambda row, of=family, kind=kind: _amount(row["area"].get(of), kind))
            )
    table.append(cells("verified", _verified))
    section.table(["", *names], [row for row in table if any(cell != MISSING for cell in row[1:])])
    section.caption(
        "Clocks are means over the samples. Cells of families are different units; those of one family are as known "
        "best: placed and routed, else synthesised, else estimated. Times need a clock, which place and route gives."
    )
    return section


def _targets(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(target for row in rows for target in row["fmax_mhz"] or {}))


def _of(row: Mapping[str, Any], figure: str, target: str) -> float | None:
    return (row[figure] or {}).get(target)


def _amount(cells: Mapping[str, Any] | None, kind: str) -> str:
    value = (cells or {}).get(kind)
    if cells is None or value is None:
        return MISSING
    return f"{amount(value)}, {cells['how']}"


def _hardware_accuracy(row: Mapping[str, Any]) -> str:
    verified, there = row["samples_verified"], row["test_samples"]
    part = row["accuracy_hardware"] is not None and None not in (verified, there) and verified < there
    return share(row["accuracy_hardware"], 2) + (f", {number(verified)} of {number(there)} samples" if part else "")


def _verified(row: Mapping[str, Any]) -> str:
    if not row["samples_verified"]:
        return "not simulated as it is now"
    return f"{number(row['samples_verified'])} samples, {number(row['mismatches'])} values differ"


def _keys(names: Sequence[str], records: Sequence[Record]) -> Section:
    section = Section("configuration", "What differs in the configurations")
    known = [_flat(record) for record in records]
    unread = [name for name, record in zip(names, records) if record.config is None]
    for name in unread:
        section.missing(f"configuration of {name}", state="not readable")
    tables = [keys for keys, record in zip(known, records) if record.config is not None]
    rows = [
        [key, *(keys.get(key, MISSING) for keys in known)]
        for key in dict.fromkeys(key for keys in tables for key in keys)
        if len({keys.get(key) for keys in tables}) > 1
    ]
    if rows:
        section.table(["key", *names], rows)
        section.caption("A dash: the run has no such key. Keys that are the same in all runs are left out.")
    elif len(tables) > 1:
        section.text("Nothing: all keys are the same.")
    return section


def _flat(record: Record) -> dict[str, str]:
    """Keys of a run's configuration with dots, and their values as text; of an imported network the hardware's."""
    if record.config is None:
        return {}
    document = plain(record.config)
    if record.run.is_imported:
        document = {
            name: {key: value for key, value in document[name].items() if not keys or key in keys}
            for name, keys in HARDWARE_KEYS.items()
        }
    found: dict[str, str] = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{place}.{key}" if place else key)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, inner in enumerate(value):
                walk(inner, f"{place}.{index}")
        else:
            found[place] = value if isinstance(value, str) else json.dumps(value)

    walk(document, "")
    return found
