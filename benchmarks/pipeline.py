"""Speed of the pipeline's parts on one random network of MNIST's size: `python -m benchmarks [--json FILE]`.

Absolute times depend on the machine; compare figures of one run alone. The network is random (784-128-10, 10 % dense,
6-bit weights, 8 timesteps, 150 active pixels an image), so that neither data nor training is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.files import write_json
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle
from sim.verify import verify_bundle

GOLDEN_SAMPLES = 2000
SIMULATED_SAMPLES = 300
LANES = (1, 8)


def random_network(seed: int = 1) -> FrozenNetwork:
    rng = np.random.default_rng(seed)

    def weights(n_in: int, n_out: int, density: float) -> np.ndarray:
        return np.where(rng.random((n_in, n_out)) < density, rng.integers(-31, 32, (n_in, n_out)), 0)

    return FrozenNetwork.from_arrays(
        [weights(784, 128, 0.1), weights(128, 10, 0.5)],
        threshold=[2000, 200],
        timesteps=8,
        coding=InputCoding("current", 4),
        leak=Leak("shift", 2),
        fraction_bits=2,
    )


def random_stimulus(count: int, seed: int = 2) -> Stimulus:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((count, 784)) < 150 / 784, rng.integers(1, 16, (count, 784)), 0)
    return Stimulus(784, 8, np.full(count, -1, np.int32), values=values.astype(np.uint8))


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Shortest of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(folder: Path) -> dict[str, Any]:
    """Every figure; bundles and simulations go below ``folder``."""
    network, stimulus = random_network(), random_stimulus(GOLDEN_SAMPLES)
    seconds = best_of(3, lambda: golden.run(network, stimulus, membranes=False))
    figures: dict[str, Any] = {"golden_samples_per_second": GOLDEN_SAMPLES / seconds, "lanes": {}}
    for lanes in LANES:
        bundle = folder / f"bundle{lanes}"

        def generate(lanes: int = lanes, bundle: Path = bundle) -> None:
            write_bundle(network, map_network(network, [lanes, lanes]), bundle, name="snn")

        generate_seconds = best_of(2, generate)
        found = verify_bundle(
            bundle, network, stimulus.take(slice(0, SIMULATED_SAMPLES)), folder / f"verify{lanes}", stress_samples=1,
            workers=1, latency=False, optimise="-O3",
        )  # fmt: skip
        if not found.passed:
            raise SystemExit(f"{lanes} lanes: hardware differs from software: {found.first_divergence}")
        figures["lanes"][str(lanes)] = {
            "generate_seconds": generate_seconds,
            "build_seconds": found.seconds["build"],
            "cycles_per_sample": found.cycles_per_sample,
            "simulated_cycles_per_second": found.simulated_cycles / found.seconds["simulate"],
            "lane_use": found.lane_use[0],
        }
    return figures


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    """The figures, which are printed too."""
    parser = argparse.ArgumentParser(description="speed of the pipeline's parts")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    print(f"golden model              {figures['golden_samples_per_second']:12,.0f} samples/s")
    names = {
        "generate_seconds": ("generate the bundle", "s"),
        "build_seconds": ("build the simulator", "s"),
        "simulated_cycles_per_second": ("simulate, checked", "clocks/s"),
        "cycles_per_sample": ("accelerator", "clocks/sample"),
        "lane_use": ("lane use, first layer", ""),
    }
    print(f"{'':25} " + " ".join(f"{f'{lanes} lanes':>12}" for lanes in figures["lanes"]))
    for key, (name, unit) in names.items():
        values = [entry[key] for entry in figures["lanes"].values()]
        cells = " ".join(f"{value:12,.0f}" if value >= 1000 else f"{value:12.2f}" for value in values)
        print(f"{name:25} {cells} {unit}")
    print(json.dumps(machine), "simulation on one core, start of the simulator included")
    if arguments.json:
        write_json(arguments.json, {**machine, **figures})
    return {**machine, **figures}


if __name__ == "__main__":
    main()
