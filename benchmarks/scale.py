"""The generator and the simulator from 1,000 to 1,000,000 synapses: `python -m benchmarks.scale [--json]`.

Each network is random, six layers deep, 1/16 dense, 6-bit weights, 8 timesteps, with thresholds at which every layer
fires in some 10 % of the timesteps. Generating (placement and bundle) runs in a process of its own, whose time and peak
of resident memory are those of that work and its imports; writing the network is not counted. Simulating compares every
spike and every membrane of every layer with the golden model. "cpu" seconds are processor time, which other processes
on the machine hardly touch.

`--mnist NETWORK STIMULUS` verifies a whole test set (files `network.safetensors` and `stimulus.npz` of a run directory)
with two processes and an empty cache of simulators, so that every build is included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, Leak
from codesign.contract.stimulus import Stimulus

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SAMPLES = 100
LANES = 8
N_LAYERS = 6
N_CLASSES = 16
TIMESTEPS = 8
CELLS_PER_SYNAPSE = 16
EVENT_RATE = 0.1
WEIGHT_LIMIT = 31
THRESHOLD_SIGMAS = 1.6
MNIST_LANES = ((1, 1), (8, 2))


def layer_widths(n_synapses: int) -> list[int]:
    """Inputs and neurons of each layer, for which ``n_synapses`` are about 1 in 16 of all possible ones."""
    width = max(N_CLASSES, 2 * round((CELLS_PER_SYNAPSE * n_synapses / (N_LAYERS - 2)) ** 0.5 / 2))
    return [width // 2, *[width] * (N_LAYERS - 2), width // 2, N_CLASSES]


def random_network(n_synapses: int, seed: int = 1) -> FrozenNetwork:
    """Six layers of exactly ``n_synapses`` together, in proportion to the layers' sizes."""
    rng = np.random.default_rng(seed)
    widths = layer_widths(n_synapses)
    cells = np.array([n_in * n_out for n_in, n_out in pairwise(widths)])
    ends = np.rint(np.cumsum(cells) * (n_synapses / cells.sum())).astype(np.int64)
    weights, thresholds, biases = [], [], []
    for (n_in, n_out), count in zip(pairwise(widths), np.diff(ends, prepend=0).tolist(), strict=True):
        matrix = np.zeros(n_in * n_out, np.int64)
        chosen = rng.choice(matrix.size, count, replace=False, shuffle=False)
        matrix[chosen] = rng.integers(1, WEIGHT_LIMIT + 1, count) * rng.choice((-1, 1), count)
        weights.append(matrix.reshape(n_in, n_out))
        # Standard deviation of a sum over the events of one timestep.
        sigma = WEIGHT_LIMIT / 3**0.5 * (count / n_out * EVENT_RATE) ** 0.5
        middle = max(2.0, THRESHOLD_SIGMAS * sigma)
        thresholds.append(rng.integers(int(0.8 * middle), int(1.2 * middle) + 1, n_out))
        biases.append(rng.integers(-2, 3, n_out))
    return FrozenNetwork.from_arrays(
        weights,
        threshold=thresholds,
        bias=biases,
        timesteps=TIMESTEPS,
        leak=Leak("shift", 2),
        membrane_width=12,
    )


def random_stimulus(network: FrozenNetwork, count: int, seed: int = 2) -> Stimulus:
    """Events of every source in a tenth of the timesteps."""
    rng = np.random.default_rng(seed)
    return Stimulus.from_dense(rng.random((count, network.timesteps, network.n_inputs)) < EVENT_RATE)


def firing_rates(network: FrozenNetwork, stimulus: Stimulus) -> list[float]:
    """Spikes per neuron and timestep of each layer."""
    counts = golden.run(network, stimulus, membranes=False, spikes=False).spike_counts.sum(axis=0)
    steps = len(stimulus) * network.timesteps
    return [float(count / (steps * layer.n_out)) for count, layer in zip(counts, network.layers, strict=True)]


def generate(network_file: str, lanes: Sequence[int], folder: str, figures: Any) -> None:
    """Generate one bundle; send seconds and the process's peak of resident memory."""
    from codesign.machine.mapping import map_network
    from rtl_templates.bundle import write_bundle

    network = FrozenNetwork.load(network_file)
    started, processor = time.perf_counter(), processor_seconds()
    write_bundle(network, map_network(network, lanes), folder)
    figures.send(
        {
            "generate_seconds": time.perf_counter() - started,
            "generate_cpu_seconds": processor_seconds() - processor,
            # Amaranth's yosys is a child; that both peak at once is an upper bound.
            "generate_peak_bytes": peak_memory() + 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        }
    )


def processor_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def peak_memory() -> int:
    """Greatest resident size of this process in bytes; unlike getrusage's, it is not inherited from the parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_generation(network: FrozenNetwork, lanes: Sequence[int], folder: Path) -> dict[str, Any]:
    """Generate ``folder``/bundle in a process of its own."""
    network.save(folder / "network.safetensors")
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(
        target=generate, args=(str(folder / "network.safetensors"), lanes, str(folder / "bundle"), send)
    )
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise SystemExit("the generator failed; its message is above") from None
    finally:
        process.join()


def measure_simulation(
    bundle: Path, network: FrozenNetwork, stimulus: Stimulus, work: Path, *, workers: int, **options: Any
) -> dict[str, Any]:
    """Verify ``bundle``; speeds are of simulation and comparison together, the build apart."""
    from sim.verify import verify_bundle

    before = processor_seconds()
    found = verify_bundle(bundle, network, stimulus, work, workers=workers, **options)
    after = processor_seconds()
    if not found.passed:
        raise SystemExit(f"hardware differs from software: {found.first_divergence or found.decoder['first']}")
    return {
        "samples": found.samples,
        "comparisons": {kind: found.comparisons[kind] for kind in ("spikes", "membranes")},
        "build_seconds": found.seconds["build"],
        "simulate_seconds": found.seconds["simulate"],
        "verify_seconds": found.seconds["total"],
        "verify_cpu_seconds": after - before,
        "cycles_per_sample": found.cycles_per_sample,
        "clocks_per_second": found.simulated_cycles / found.seconds["simulate"],
        "samples_per_second": found.samples / found.seconds["simulate"],
        "lane_use": found.lane_use,
    }


def measure_size(n_synapses: int, samples: int = SAMPLES, lanes: int = LANES) -> dict[str, Any]:
    """Every figure of one network."""
    network = random_network(n_synapses)
    stimulus = random_stimulus(network, samples)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        generation = measure_generation(network, [lanes] * N_LAYERS, work)
        simulation = measure_simulation(
            work / "bundle", network, stimulus, work / "verify", workers=1, stress_samples=0, latency=False
        )
    return {
        "synapses": network.n_synapses,
        "widths": layer_widths(n_synapses),
        "lanes": lanes,
        "firing_rates": firing_rates(network, stimulus),
        **generation,
        **simulation,
    }


def measure_test_set(network_file: Path, stimulus_file: Path, workers: int) -> dict[str, Any]:
    """A whole test set on several lanes, simulators built anew."""
    network, stimulus = FrozenNetwork.load(network_file), Stimulus.load(stimulus_file)
    figures: dict[str, Any] = {"synapses": network.n_synapses, "workers": workers, "lanes": {}}
    for lanes in MNIST_LANES:
        with tempfile.TemporaryDirectory() as folder, empty_cache(folder):
            work = Path(folder)
            generation = measure_generation(network, lanes, work)
            simulation = measure_simulation(
                work / "bundle", network, stimulus, work / "verify", workers=workers, latency=False
            )
        figures["lanes"]["/".join(map(str, lanes))] = {**generation, **simulation}
    return figures


@contextmanager
def empty_cache(folder: str) -> Iterator[None]:
    """Keep simulators in ``folder`` for once."""
    before = os.environ.get("CODESIGN_CACHE")
    os.environ["CODESIGN_CACHE"] = str(Path(folder) / "cache")
    try:
        yield
    finally:
        if before is None:
            del os.environ["CODESIGN_CACHE"]
        else:
            os.environ["CODESIGN_CACHE"] = before


def machine() -> dict[str, Any]:
    """What the figures depend on; a load near or above the number of cores means that seconds are too long."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def table(figures: dict[str, Any]) -> str:
    """Figures as text."""
    rows = [
        f"{'synapses':>10} {'generate s':>11} {'(cpu)':>7} {'peak MiB':>9} {'build s':>8} {'clocks/sample':>14} "
        f"{'clocks/s':>10} {'samples/s':>10}"
    ]
    for entry in figures["sizes"]:
        rows.append(
            f"{entry['synapses']:10,} {entry['generate_seconds']:11.1f} {entry['generate_cpu_seconds']:7.1f} "
            f"{entry['generate_peak_bytes'] / 2**20:9,.0f} {entry['build_seconds']:8.1f} "
            f"{entry['cycles_per_sample']:14,.0f} {entry['clocks_per_second']:10,.0f} "
            f"{entry['samples_per_second']:10,.1f}"
        )
    for lanes, entry in figures.get("test_set", {}).get("lanes", {}).items():
        rows.append(
            f"{entry['samples']:,} samples on lanes {lanes}: {entry['verify_seconds']:.0f} s, build "
            f"{entry['build_seconds']:.0f} s; {entry['verify_cpu_seconds']:.0f} s of processor time"
        )
    return "\n".join([*rows, f"load of the machine {figures['load']:.1f} on {figures['cores']} cores"])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The figures, which are printed too."""
    parser = argparse.ArgumentParser(description="generator and simulator from 1,000 to 1,000,000 synapses")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="synapses of the networks")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples simulated of each network")
    parser.add_argument("--mnist", type=Path, nargs=2, metavar=("NETWORK", "STIMULUS"), help="verify a whole test set")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the test set")
    chosen = parser.parse_args(arguments)
    figures: dict[str, Any] = {**machine(), "sizes": [measure_size(size, chosen.samples) for size in chosen.sizes]}
    if chosen.mnist:
        network, stimulus = chosen.mnist
        figures["test_set"] = measure_test_set(network, stimulus, chosen.workers)
    print(json.dumps(figures) if chosen.json else table(figures))
    return figures


if __name__ == "__main__":
    main()
