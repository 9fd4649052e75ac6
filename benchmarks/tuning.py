"""What `codesign tune` finds beside the design points: `python -m benchmarks.tuning [--design NAME] [--place 3]`.

Each point of :mod:`benchmarks.accelerator` that stands here is a question: the least logic, or the least latency, in no
more than the point takes of the rest. The machines that the search prefers are placed and routed, and stand beside the
point's kept figures. ``--spread`` places more of them, at even steps of the whole ranking. Over all machines that were
placed for a device, Kendall's tau says how well estimates rank them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import accelerator, tables
from codesign.basics.errors import CodesignError, ToolError
from codesign.basics.files import write_json
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.clocks import exact_cycles
from codesign.cost.search import AGREED, Objective
from codesign.machine.plan import plan_machine
from codesign.pipeline.tuning import VERIFIED_SAMPLES, choices_of, find_target, hardware_keys, place_machine, tune


@dataclass(frozen=True)
class Question:
    """What a point is to be found again with: limited to what it takes of each of ``within``."""

    target: str
    minimise: Objective
    within: tuple[str, ...] = ()


QUESTIONS = {
    "events-small": Question("ice40-hx8k", "area", ("bram", "cycles")),
    "events-fast": Question("ice40-hx8k", "latency", ("lut", "bram")),
    "small": Question("ecp5-25f", "area", ("bram", "cycles")),
    "balanced": Question("ecp5-25f", "latency", ("lut", "bram", "dsp")),
    "fast": Question("ecp5-85f", "latency", ("lut", "bram", "dsp")),
}


def answer(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a point's question that were placed, best first."""
    question, design = QUESTIONS[name], accelerator.DESIGNS[name]
    network, _, calibration = accelerator.load(design, given.work, given.network)
    point = the_point(name, network, calibration)
    print(
        f"{name:13} the point: {point['lut']} lut {point['bram']:g} bram, {point['cycles']:.0f} clocks, "
        f"{point['mhz']:.1f} MHz, {point['cycles'] / point['mhz']:.2f} us",
        flush=True,
    )
    rows = tune(
        network,
        calibration,
        question.target,
        minimise=question.minimise,
        within={kind: point[kind] for kind in question.within},
        # What the point itself leaves out.
        allow=[key for key, value in AGREED.items() if getattr(design.choices, key) == value],
        place=given.place,
        seeds=given.seeds,
        output=given.work / "tune" / name,
    )
    for number, row in enumerate(spread(rows, given.spread)):
        folder = given.work / "tune" / name / f"spread{number}"
        row |= place_machine(network, calibration, row, find_target(question.target), given.seeds, folder)
    return [{"question": name, "target": question.target, **row} for row in rows if "placed_mhz" in row]


def the_point(name: str, network: FrozenNetwork, calibration: Stimulus) -> dict[str, Any]:
    """Kept cells and ``mhz`` of a point, and ``cycles`` of the samples that the search goes by, exact."""
    question = QUESTIONS[name]
    kept = tables.newest()["accelerator"][name]
    plan = plan_machine(network, accelerator.mapped(network, accelerator.DESIGNS[name], calibration))
    told = exact_cycles(plan, calibration.take(slice(0, VERIFIED_SAMPLES)))
    if told is None:
        raise ToolError("the clocks of a point need a C++ compiler; `codesign doctor` says how to get one")
    clocks = {"cycles": told["latency_cycles"], "mhz": kept["fmax_mhz"][question.target]}
    return {**kept["area"][question.target], **clocks}


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
            (accelerator.DESIGNS[row["question"]].network, tuple(row["lanes"]), choices_of(row)): row
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
        f"{row['question']:13} {hardware_keys(row)} estimated {row['lut']:.0f} lut {row['bram']:g} bram "
        f"{row['cycles']:.0f} clocks; placed {row['placed_lut']} lut {row['placed_bram']:g} bram, "
        f"{row['placed_mhz'] or 0:.1f} MHz, {row.get('placed_latency_us', 0):.2f} us, "
        f"{row.get('placed_interval_us', 0):.2f} us back to back {row.get('missed', '(spread)')}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the machines that were placed, and how their estimates rank them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning", description="what a search for a machine finds, beside the design points"
    )
    parser.add_argument("--design", choices=QUESTIONS, action="append", help="default: all")
    parser.add_argument("--network", type=Path, help="run folder whose network the MNIST point takes")
    parser.add_argument("--work", type=Path, default=Path("runs/accelerator"), help="where everything is kept")
    parser.add_argument("--place", type=int, default=3, help="machines to place and route")
    parser.add_argument("--spread", type=int, default=0, help="more of them, at even steps of the ranking")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(accelerator.SEEDS), help="of place and route")
    given = parser.parse_args(arguments)
    rows = []
    try:
        for name in given.design or QUESTIONS:
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
