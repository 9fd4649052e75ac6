"""One run of the study: train, choose by validation, look at the test samples once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.method.plan import Run
from codesign.basics.files import write_json


def execute(run: Run, folder: Path, overrides: dict[str, Any] | None = None, hardware: bool = False) -> Path:
    """Train ``run`` and write ``<folder>/<run>.json``; a run that was stopped goes on after its last whole epoch.

    hardware : also freeze it, and estimate its machines.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from codesign.data import load_dataset
    from codesign.data.encoders import encode, input_coding
    from codesign.quantise.freeze import load_trained
    from codesign.train import train
    from codesign.train.batches import Batches
    from codesign.train.loop import EVALUATION_BATCH, evaluate

    config = run.config(overrides)
    dataset = load_dataset(config.data)
    work = folder / run.name
    start, cpu = time.monotonic(), time.process_time()
    result = train(config, dataset, work)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    network = load_trained(config, result, dataset)
    stimulus, _ = encode(dataset, dataset.test, config.data, config.network.timesteps)
    scale = 1.0 / input_coding(dataset, config.data).largest
    found = evaluate(network, Batches(stimulus, scale).ordered(EVALUATION_BATCH), config.train)
    path = folder / f"{run.name}.json"
    document = {
        "set": run.set,
        "preset": run.preset,
        "target_density": run.density,
        "seed": run.seed,
        "key": run.key(overrides),
        "data": dataset.hash,
        "accuracy_test": found.accuracy,
        "accuracy_validation": result.accuracy_validation,
        "epoch": result.epoch,
        "density": result.density,
        "layer_density": result.layer_density,
        "spikes_per_sample": sum(found.spikes),
        "synaptic_operations_per_sample": sum(found.operations),
        "steps": result.steps,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "trajectory": [
            {
                "epoch": row["epoch"],
                "density": row["density"],
                "index": [layer["index"] for layer in row["layers"]],
                "layer_density": [layer["density"] for layer in row["layers"]],
            }
            for row in result.history
        ],
    }
    if hardware:
        from benchmarks.method.hardware import machines

        document["hardware"] = machines(config, result, dataset)
    write_json(path, document)
    shutil.rmtree(work)
    return path


def end_with_the_study() -> None:
    """Have a worker end when the study does: a killed one would leave it training what nobody waits for."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
