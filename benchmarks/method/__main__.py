"""Trains the study's unfinished runs and writes its tables and plots.

A finished run is one JSON file below the output folder and is not done again; a run that was killed goes on after its
last whole epoch. Every run has the same steps and learning-rate schedule as the others of its set.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.method.effects import (
    best_text,
    effect_plots,
    exponents_text,
    factors_text,
    grid_text,
    shares_text,
    stop_text,
)
from benchmarks.method.hardware import COMPARED, machines_text, operations_plot, operations_text
from benchmarks.method.kept import KEPT, keep, kept
from benchmarks.method.plan import EXPONENTS, FACTORS, GRID, GROUPS, RECIPES, SEEDS, SETS, SHARED, TURNING, Run, planned
from benchmarks.method.results import markdown, plots, update_page, write_text
from benchmarks.method.runs import end_with_the_study, execute
from codesign.config import apply_override

PAGE = Path("docs/method-study.md")


def finished(run: Run, folder: Path, overrides: dict[str, Any], known: Mapping[str, dict[str, Any]]) -> Any:
    """The result of a run with this very configuration, of the folder or else of those that are kept, or None."""
    try:
        document = json.loads((folder / f"{run.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = known.get(run.name, {})
    return document if document.get("key") == run.key(overrides) else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.method", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=["mnist", "fsdd-spikes"])
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=(*GROUPS, *RECIPES),
        metavar="RECIPE",
        help=f"groups ({', '.join(GROUPS)}) or single recipes of benchmarks/method/plan.py; default: presets, of "
        "cifar10 some of them",
    )
    parser.add_argument("--densities", nargs="+", type=float, help="default: 0.2 0.1 0.05 0.02")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one core each")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/method"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="shorten runs for a trial")
    parser.add_argument("--summary", action="store_true", help="train nothing, write tables and plots")
    parser.add_argument("--docs", action="store_true", help=f"also put tables and plots into {PAGE}")
    parser.add_argument("--keep", action="store_true", help=f"also write finished factors and shares into {KEPT.name}")
    parser.add_argument("--hardware", action="store_true", help="also freeze networks and estimate their machines")
    options = parser.parse_args(arguments)
    overrides: dict[str, Any] = {}
    for change in options.set:
        apply_override(overrides, change)
    presets = [name for given in options.presets or () for name in GROUPS.get(given, (given,))]
    runs = planned(options.sets, presets or None, options.densities, options.seeds)
    known = kept()
    done = {run: finished(run, options.output, overrides, known) for run in runs}
    waiting = [run for run in runs if done[run] is None or (options.hardware and "hardware" not in done[run])]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} finished", flush=True)
    failed = 0
    if not options.summary and waiting:
        os.environ["OMP_NUM_THREADS"] = "1"
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=end_with_the_study) as pool:
            started = {pool.submit(execute, run, options.output, overrides, options.hardware): run for run in waiting}
            for number, ended in enumerate(as_completed(started), 1):
                run = started[ended]
                try:
                    document = json.loads(ended.result().read_text(encoding="utf-8"))
                    text = f"test {100 * document['accuracy_test']:.2f} %, {document['cpu_seconds']:.0f} s of a core"
                except Exception as error:
                    failed += 1
                    text = f"failed: {error}"
                print(f"[{number}/{len(waiting)}] {run.name}: {text}", flush=True)
    found = {run: finished(run, options.output, overrides, known) for run in runs}
    documents = [document for document in found.values() if document is not None]
    missing = [run for run, document in found.items() if document is None]
    if options.keep:
        # The plots of the presets need the course of training, which is not kept.
        keep(item for item in documents if item["preset"] not in GROUPS["presets"])
    # Tables of factors, shares and options are of all runs that there are, whatever was asked for; of trials, of these.
    every = (
        documents if overrides else list({**known, **{run.name: found[run] for run in found if found[run]}}.values())
    )
    drawn = PAGE.parent / "images" if options.docs else options.output
    images = "images" if options.docs else "."
    # What there is to say of presets, factors and shares, each a part of the page of its own.
    parts = {}
    if any(run.preset in GROUPS["presets"] for run in runs):
        chosen = [item for item in documents if item["preset"] in GROUPS["presets"]]
        plots(chosen, drawn)
        parts["measured"] = markdown(chosen, [run for run in missing if run.preset in GROUPS["presets"]], images)
    if any(run.preset in FACTORS for run in runs):
        effect_plots(every, drawn)
        parts["factors"] = factors_text(every, images)
    if any(run.preset in SHARED for run in runs):
        parts["shares"] = f"{shares_text(every)}\n{best_text(every)}"
    if any(run.preset in GRID for run in runs):
        parts["grid"] = grid_text(every)
    if any(run.preset in EXPONENTS for run in runs):
        parts["exponents"] = exponents_text(every)
    if any(run.preset == TURNING for run in runs):
        parts["stop"] = stop_text(every)
    if any(run.preset in COMPARED for run in runs) and (text := operations_text(every)):
        operations_plot(every, drawn / "method-operations.png")
        picture = f"![Accuracy against synaptic operations]({images}/method-operations.png)\n"
        parts["hardware"] = "\n".join(filter(None, (text, picture, machines_text(every))))
    write_text(options.output / "study.md", "\n".join(parts.values()))
    for part, text in parts.items() if options.docs else ():
        update_page(PAGE, text, part)
    print(f"{options.output / 'study.md'}: {len(documents)} runs, {len(missing)} missing")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
