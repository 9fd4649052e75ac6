"""What `codesign tune` finds beside the design points: `python -m benchmarks.tuning [--design NAME] [--place 3]`.

Each point of :mod:`benchmarks.accelerator` is asked for again. The machines that the search prefers are placed and
routed, and stand beside the point's kept figures. ``--spread`` places more of them, at even steps of the whole ranking.
Over all machines that were placed for a device, Kendall's tau says how well estimates rank them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import accelerator, tables
from codesign.basics.errors import CodesignError
from codesign.basics.files import write_json
from codesign.pipeline.tuning import choices_of, find_target, hardware_keys, place_machine


def answer(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a point's machines that were placed, best first."""
    design = accelerator.DESIGNS[name]
    network, _, calibration = accelerator.load(design, given.work, given.network)
    kept = tables.newest()["accelerator"][name]
    area, mhz = kept["area"][design.target], kept["fmax_mhz"][design.target]
    print(
        f"{name:13} kept: {area['lut']} lut {area['bram']:g} bram, {kept['latency_cycles']:.0f} clocks, "
        f"{mhz:.1f} MHz, {kept['latency_us'][design.target]:.2f} us",
        flush=True,
    )
    work = given.work / "tune" / name
    rows = accelerator.searched(network, design, calibration, work, given.seeds, given.place)
    for number, row in enumerate(spread(rows, given.spread)):
        target = find_target(design.target)
        row |= place_machine(network, calibration, row, target, given.seeds, work / f"spread{number}")
    return [{"design": name, "target": design.target, **row} for row in rows if "placed_mhz" in row]


def spread(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many machines that were not placed, at even steps of the ranking; no two with the same figures."""
    distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["excluded"] is None and "placed_mhz" not in row:
            distinct.setdefault(tuple(row[kind] for kind in ("lut", "ff", "bram", "cycles")), row)
    ranked = list(distinct.values())
    count = min(count, len(ranked))
    return [ranked[int((number + 0.5) * len(ranked) / count)] for number in range(count)]


def agreement(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By device: how many different machines were placed, and Kendall's tau of logic cells and of latency."""
    from scipy.stats import kendalltau

    found = {}
    for target in dict.fromkeys(row["target"] for row in rows):
        chosen = {
            (accelerator.DESIGNS[row["design"]].network, tuple(row["lanes"]), choices_of(row)): row
            for row in rows
            if row["target"] == target and row["placed_mhz"]
        }
        machines = list(chosen.values())
        found[target] = {"machines": float(len(machines))}
        if len(machines) < 2:
            continue
        for kind in ("lut", "latency_us"):
            estimated, placed = ([row[key] for row in machines] for key in (kind, f"placed_{kind}"))
            tau: Any = kendalltau(estimated, placed)
            found[target][kind] = float(tau.statistic)
    return found


def line(row: dict[str, Any]) -> str:
    """A machine: estimated, placed."""
    return (
        f"{row['design']:13} {hardware_keys(row)} estimated {row['lut']:.0f} lut {row['bram']:g} bram "
        f"{row['cycles']:.0f} clocks; placed {row['placed_lut']} lut {row['placed_bram']:g} bram, "
        f"{row['placed_mhz'] or 0:.1f} MHz, {row.get('placed_latency_us', 0):.2f} us, "
        f"{row.get('placed_interval_us', 0):.2f} us back to back {row.get('missed', '(spread)')}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the machines that were placed, and how their estimates rank them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning", description="what a search for a machine finds, beside the design points"
    )
    parser.add_argument("--design", choices=accelerator.DESIGNS, action="append", help="default: all")
    parser.add_argument("--network", type=Path, help="run folder whose network the MNIST point takes")
    parser.add_argument("--work", type=Path, default=Path("runs/accelerator"), help="where everything is kept")
    parser.add_argument("--place", type=int, default=3, help="machines to place and route")
    parser.add_argument("--spread", type=int, default=0, help="more of them, at even steps of the ranking")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(accelerator.SEEDS), help="of place and route")
    given = parser.parse_args(arguments)
    rows = []
    try:
        for name in given.design or accelerator.DESIGNS:
            rows += (found := answer(name, given))
            print("\n".join(map(line, found)), flush=True)
    except CodesignError as error:
        sys.exit(f"{parser.prog}: {error}")
    ranked = agreement(rows)
    write_json(given.work / "tune.json", {"rows": rows, "agreement": ranked})
    for target, tau in ranked.items():
        if "lut" in tau:
            print(
                f"{target}: tau of {tau['machines']:g} machines: lut {tau['lut']:.2f}, latency {tau['latency_us']:.2f}"
            )


if __name__ == "__main__":
    main()
