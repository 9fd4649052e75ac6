"""Which defaults suit a data set that nothing is known of: `python -m benchmarks.defaults`.

Every choice (readout, learning rate, number of optimiser steps) is trained and frozen on five data sets with all other
keys at their defaults, and compared by validation accuracy; the test samples are not looked at. docs/defaults.md
holds the table. Sets that are not there are left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from codesign.config import parse_config
from codesign.data import load_dataset
from codesign.data.samples import Dataset
from codesign.files import write_json
from codesign.freeze import freeze
from codesign.train import train

READOUTS = ("spike_count", "membrane_last", "membrane_sum", "membrane_max")

# What a set must be told, and a limit on its size that keeps a run to a quarter of a minute.
SETS: dict[str, dict[str, Any]] = {
    "digits": {"set": "digits"},
    "mnist": {"set": "mnist", "train_limit": 6000, "test_limit": 100},
    "fsdd-spikes": {"set": "fsdd-spikes", "coding": "events", "step_ms": 50.0},
    "mitbih-beats": {"set": "mitbih-beats", "train_limit": 6000, "test_limit": 100},
    "braille-tactile": {"set": "npz", "path": "braille-tactile/braille_letters.npz"},
}


def batch_size(samples: int) -> int:
    return min(128, max(16, 1 << round(math.log2(samples / 32))))


def epochs(samples: int, size: int, steps: int) -> int:
    return min(400, max(20, math.ceil(steps / math.ceil(samples / size))))


def document(data: dict[str, Any], samples: int, readout: str, rate: float, steps: int, seed: int) -> dict[str, Any]:
    size = batch_size(samples)
    count = epochs(samples, size, steps)
    return {
        "data": data,
        "network": {"readout": readout},
        "train": {
            "epochs": count,
            "batch_size": size,
            "learning_rate": rate,
            "seed": seed,
            "threads": 1,
            "rewiring": {"epochs_per_iteration": max(2, round(count / 30))},
        },
        "freeze": {"epochs": max(1, round(count / 5))},
    }


def measured(
    data: dict[str, Any], dataset: Dataset, readout: str, rate: float, steps: int, seed: int
) -> dict[str, Any]:
    """Validation accuracies of the float and the frozen network, 0..1, and seconds."""
    config = parse_config(document(data, len(dataset.train), readout, rate, steps, seed))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trained = train(config, dataset, Path(folder))
        frozen = freeze(config, trained, dataset)
    return {
        "readout": readout, "learning_rate": rate, "steps": steps, "seed": seed,
        "epochs": config.train.epochs, "batch_size": config.train.batch_size,
        "float": trained.accuracy_validation, "frozen": frozen.details["accuracy_validation"],
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("defaults.json"))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--readouts", nargs="+", default=list(READOUTS))
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-3])
    parser.add_argument("--steps", nargs="+", type=int, default=[1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    import os

    rows = []
    for name in options.sets:
        data = dict(SETS[name])
        if "path" in data:
            data["path"] = str(Path(os.environ["CODESIGN_DATA"]) / data["path"])
        dataset = load_dataset(parse_config({"data": data}).data)
        for readout in options.readouts:
            for rate in options.rates:
                for steps in options.steps:
                    for seed in options.seeds:
                        row = {"set": name, **measured(data, dataset, readout, rate, steps, seed)}
                        rows.append(row)
                        print(json.dumps(row), flush=True)
                        write_json(options.output, {"rows": rows})


if __name__ == "__main__":
    main()
