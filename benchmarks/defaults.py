"""Which defaults suit data of which nothing is known: `python -m benchmarks.defaults`.

Each choice of readout, learning rate and optimiser steps is trained and frozen on five data sets, all other keys at
their defaults, and compared by the validation accuracy of the frozen network; test samples are not looked at. Sets that
are not there are left out, and said to be. docs/defaults.md holds the table and what was chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np

from codesign.basics.errors import InputError
from codesign.basics.files import write_json
from codesign.config import parse_config
from codesign.contract.network import ReadoutKind
from codesign.data import load_dataset
from codesign.data.automatic import STEPS, resolve
from codesign.data.samples import Dataset
from codesign.quantise.freeze import freeze
from codesign.train import train

# What a set must be told, and limits that keep a run to seconds on one core.
SETS: dict[str, dict[str, Any]] = {
    "digits": {"set": "digits"},
    "mnist": {"set": "mnist", "train_limit": 6000, "test_limit": 100},
    "fsdd-spikes": {"set": "fsdd-spikes"},
    "mitbih-beats": {"set": "mitbih-beats", "train_limit": 6000, "test_limit": 100},
    "braille-tactile": {"set": "npz"},
}


@dataclass(frozen=True)
class Choice:
    """What is compared."""

    readout: str
    learning_rate: float
    steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/defaults.json"), help="all figures, as JSON")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--readouts", nargs="+", default=list(get_args(ReadoutKind)), choices=get_args(ReadoutKind))
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-3, 5e-3], help="learning rates")
    parser.add_argument("--steps", nargs="+", type=int, default=[STEPS], help="optimiser steps aimed at")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    choices = [Choice(*values) for values in product(options.readouts, options.rates, options.steps)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            try:
                data = described(name, Path(folder))
                dataset = load_dataset(parse_config({"data": data}).data)
            except InputError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            for row in measured(name, data, dataset, choices, options.seeds):
                rows.append(row)
                print(json.dumps(row), flush=True)
                write_json(options.output, {"rows": rows})
    print(table(rows))


def described(name: str, folder: Path) -> dict[str, Any]:
    """The set's section [data]. Touch recordings are written as an npz of your own, value = 1 - x / 255."""
    if name != "braille-tactile":
        return SETS[name]
    source = Path(os.environ.get("CODESIGN_DATA", "")) / name / "braille_letters.npz"
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    with np.load(source) as arrays:
        own = {"x": 255 - arrays["x"], "y": arrays["y"], "is_test": arrays["repetition"] >= 40}
    np.savez(folder / "braille.npz", **own)
    return {**SETS[name], "path": str(folder / "braille.npz")}


def measured(
    name: str, data: dict[str, Any], dataset: Dataset, choices: list[Choice], seeds: list[int]
) -> Iterator[dict[str, Any]]:
    """Validation accuracies of the float and the frozen network, 0..1, and seconds, for each choice and seed."""
    for choice, seed in product(choices, seeds):
        document = {
            "data": data,
            "network": {"readout": choice.readout},
            "train": {"learning_rate": choice.learning_rate, "seed": seed, "threads": 1},
        }
        config, _ = resolve(parse_config(document), dataset, choice.steps)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            trained = train(config, dataset, folder)
            frozen = freeze(config, trained, dataset)
        yield {
            "set": name,
            **vars(choice),
            "seed": seed,
            "epochs": config.train.epochs,
            "batch_size": config.train.batch_size,
            "float": trained.accuracy_validation,
            "frozen": frozen.details["accuracy_validation"],
            "seconds": round(time.monotonic() - start, 1),
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean validation accuracy of the frozen network over the seeds, by choice and set."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    found: dict[Choice, dict[str, list[float]]] = {}
    for row in rows:
        choice = Choice(row["readout"], row["learning_rate"], row["steps"])
        found.setdefault(choice, {}).setdefault(row["set"], []).append(100 * row["frozen"])
    lines = [
        "| readout | learning rate | steps | " + " | ".join(sets) + " | mean |",
        "|---" * (len(sets) + 4) + "|",
    ]
    for choice, by_set in found.items():
        means = [float(np.mean(by_set[name])) if name in by_set else float("nan") for name in sets]
        cells = " | ".join(f"{mean:.1f}" for mean in [*means, float(np.mean(means))])
        lines.append(f"| `{choice.readout}` | {choice.learning_rate:g} | {choice.steps:,} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
