"""The page and the picture of an exploration, from the document that ``explore.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codesign.report import plots
from codesign.report.blocks import Section, number, share, tile, write_page

ROWS = {"validation_accuracy": "validation accuracy", "accuracy_frozen": "test accuracy"}
AXIS_UNITS = {"area": "logic", "memory": "memory", "latency": "latency"}


def write_exploration(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write ``explore.html``, ``explore.png`` and ``explore.svg`` into ``folder``; returns the page's path."""
    points = document["points"]
    done = [point for point in points if point["status"] == "done"]
    verified = [point for point in points if point["samples_verified"]]
    wrong = [point for point in verified if point["mismatches"]]
    picture, table = Section("picture", "Accuracy against cost"), Section("points", "Points")
    if done:
        figure = plots.pareto(done, axis_names(document), ROWS)
        for kind in ("png", "svg"):
            plots.save_figure(figure, folder / f"explore.{kind}")
        picture.figure(
            figure,
            "accuracy against logic, memory and latency of every point, Pareto front marked",
            "The front is drawn, and candidates were chosen, by validation accuracy. The lower row shows the same "
            "points on the test set, which chose nothing. Logic: filled marks were synthesised. Latency: filled marks "
            "were simulated in RTL. Memory follows from the mapping. An axis with measured points has its front among "
            "those.",
        )
    else:
        picture.missing("picture", state="no point could be finished")
    _table(table, document)
    failed = [point for point in points if point["status"] == "failed"]
    for point in failed:
        table.alert("bad", f"{point['name']} failed.", str(point["error"]))
    on_front = [point for point in done if point["front"]]
    mood: Any = "bad" if wrong or not done else "good" if verified and not failed else "open"
    best = max((point["validation_accuracy"] for point in done), default=None)
    path = folder / "explore.html"
    write_page(
        path,
        title=f"Exploration {folder.resolve().name}",
        subtitle=f"density x weight bits x lanes, {len(points)} points, family {document['grid']['family']}",
        verdict=(
            mood,
            "Hardware differs from software." if wrong else f"{len(done)} of {len(points)} points.",
            f"{len(wrong)} of {len(verified)} simulated points differ."
            if wrong
            else f"{len(verified)} were simulated in RTL, without a difference; {len(failed)} failed."
            if verified
            else f"None was simulated in RTL; {len(failed)} failed.",
        ),
        tiles=[
            tile("points", number(len(done)), f"of {len(points)}"),
            tile("on a front", number(len(on_front)), "by validation accuracy"),
            tile("verified", number(len(verified)), f"{document['grid']['verify_samples']} samples each, in RTL"),
            tile("synthesised", number(sum(point["measured"]["area"] for point in done)), "with yosys"),
            tile("best accuracy", share(best, 2), "validation"),
        ],
        sections=[picture, table],
        footer="Every point is a run directory: `codesign report points/NAME` writes its report.",
    )
    return path


def axis_names(document: Mapping[str, Any]) -> dict[str, str]:
    """Labels of the cost axes, with their units."""
    return {axis: f"{AXIS_UNITS[axis]} ({unit})" for axis, unit in document["axes"].items()}


def _table(section: Section, document: Mapping[str, Any]) -> None:
    axes = document["axes"]
    head = [
        "point", "density", "weight bits", "lanes", "validation", "test, frozen", *axes.values(), "verified", "front",
    ]  # fmt: skip
    rows, bad = [], []
    ordered = sorted(document["points"], key=lambda point: -(point["validation_accuracy"] or 0))
    for index, point in enumerate(ordered):
        costs = []
        for axis in axes:
            value = point["cost"].get(axis)
            mark = "" if value is None or point["measured"][axis] else " (estimated)"
            costs.append(number(value) + mark)
        if point["status"] != "done" or point["mismatches"]:
            bad.append(index)
        verified = point["samples_verified"]
        rows.append(
            [
                point["name"], f"{point['density']:g}", point["weight_bits"], point["lanes"],
                share(point["validation_accuracy"], 2), share(point["accuracy_frozen"], 2), *costs,
                "no" if not verified else f"{verified} samples, {point['mismatches']} differ",
                ", ".join(AXIS_UNITS[axis] for axis in point["front"]) or number(None),
            ]
        )  # fmt: skip
    section.table(head, rows, bad)
