"""Clocks told without simulation, against simulation: `python -m benchmarks.clocks [--samples N] [--json]`.

Machines: 784-128-10 on images of MNIST as grey levels, with random weights at a density of 0.2, on 1 and on 8 lanes a
layer; and the network of the shape of examples/mnist-conv.toml of :mod:`benchmarks.schedules`. For each: whether the
start and the decision of every sample, alone and back to back, are those of the simulated Verilog; the seconds that it
takes to tell them, to simulate (built already, every value compared) and to run the recurrence that stands in without a
compiler; and by how much that one is off.

`--recurrence N` simulates nothing: by how much the recurrence is off, in the median and in the worst, over the first N
random machines of :mod:`boards.designs` that have no early exit, which it does not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks import schedules
from boards.designs import random_machine
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus
from codesign.cost.clocks import check_clocks, exact_cycles, library
from codesign.cost.estimate import activity, cycle_estimate
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.plan import plan_machine

T = TypeVar("T")


def chain(timesteps: int, density: float = 0.2) -> FrozenNetwork:
    """784-128-10 with random weights."""
    rng = np.random.default_rng(1)
    weights = [rng.integers(-31, 32, shape) * (rng.random(shape) < density) for shape in ((784, 128), (128, 10))]
    return FrozenNetwork.from_arrays(
        weights,
        threshold=[2500, 150],
        timesteps=timesteps,
        coding=InputCoding("current", 4),
        leak=Leak("shift", 2),
        membrane_width=16,
    )


def machines(count: int) -> Iterator[tuple[str, FrozenNetwork, HardwareMap, Stimulus]]:
    """Name, network, placement and samples of each machine."""
    convolutions, _, samples = schedules.load(None)
    samples = samples.take(slice(0, count))
    small = chain(samples.timesteps)
    for lanes in (1, 8):
        yield f"784-128-10, {lanes} lanes", small, map_network(small, [lanes, lanes]), samples
    yield "shape of mnist-conv, lanes 2, 8, 16, 1", convolutions, map_network(convolutions, [2, 8, 16, 1]), samples


def random_samples(network: FrozenNetwork, seed: int, count: int) -> Stimulus:
    """Between 2 and 60 % of the inputs of a sample come, of each timestep if they are events."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.02, 0.6, (count, 1))
    if not network.coding.is_current:
        return Stimulus.from_dense(rng.random((count, network.timesteps, network.n_inputs)) < rates[:, :, None])
    values = rng.integers(1, network.source_max(0) + 1, (count, network.n_inputs))
    values *= rng.random(values.shape) < rates
    labels = np.full(count, -1, np.int32)
    return Stimulus(network.n_inputs, network.timesteps, labels, values=values.astype(np.uint8))


def off(numbers: int, samples: int) -> dict[str, Any]:
    """By how much the recurrence is off: ``machines``, and of latency and interval the median and both ends."""
    found: dict[str, list[float]] = {"latency_cycles": [], "interval_cycles": []}
    for number in range(numbers):
        network, mapping = random_machine(number)
        if mapping.choices.exits:
            continue
        plan, stimulus = plan_machine(network, mapping), random_samples(network, number, samples)
        exact = exact_cycles(plan, stimulus)
        if exact is None:
            raise SystemExit("there is no C++ compiler")
        near = cycle_estimate(plan, activity(network, mapping, stimulus))
        for kind, errors in found.items():
            errors.append(near[kind] / exact[kind] - 1)
    ends = {kind: (float(np.median(np.abs(part))), min(part), max(part)) for kind, part in found.items()}
    return {"machines": len(found["latency_cycles"]), **ends}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def row(name: str, network: FrozenNetwork, mapping: HardwareMap, samples: Stimulus) -> dict[str, Any]:
    """Figures of one machine."""
    from rtl_templates.bundle import write_bundle
    from sim.verify import verify_bundle

    plan = plan_machine(network, mapping)
    trace = golden.run(network, samples, membranes=False)
    exact, told = timed(lambda: exact_cycles(plan, samples, trace))
    near, recurrence = timed(lambda: cycle_estimate(plan, activity(network, mapping, samples, trace)))
    with tempfile.TemporaryDirectory() as work:
        write_bundle(network, mapping, Path(work) / "bundle", name="snn")
        found = verify_bundle(
            Path(work) / "bundle", network, samples, Path(work) / "verify", stress_samples=0, workers=1
        )
    check = check_clocks(plan, samples, found.times)
    if not found.passed or exact is None or check is None:
        raise SystemExit(f"{name}: {found.first_difference or 'there is no C++ compiler'}")
    return {
        "machine": name,
        "samples": len(samples),
        "compared": check.compared,
        "equal": check.equal,
        "first": check.first,
        **exact,
        "recurrence": {kind: near[kind] / value - 1 for kind, value in exact.items() if value},
        "seconds": {"told": told, "recurrence": recurrence, "simulated": found.seconds["simulate"]},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clocks", description="told clocks against simulation")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--recurrence", type=int, metavar="N", help="how near the recurrence is, of N random machines")
    options = parser.parse_args(arguments)
    library()
    if options.recurrence is not None:
        found = off(options.recurrence, options.samples)
        if options.json:
            print(json.dumps(found))
            return
        for kind in ("latency_cycles", "interval_cycles"):
            median, low, high = found[kind]
            print(f"{kind} of {found['machines']} machines: median {median:.1%}, {low:+.1%} to {high:+.1%}")
        return
    rows = []
    for machine in machines(options.samples):
        rows.append(row(*machine))
        if not options.json:
            print(line(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows))


def line(found: dict[str, Any]) -> str:
    seconds, off = found["seconds"], found["recurrence"]
    return (
        f"{found['machine']}: {found['equal']} of {found['compared']} equal; {found['latency_cycles']:,.1f} clocks "
        f"alone, {found['interval_cycles']:,.1f} back to back, told in {seconds['told']:.2f} s, simulated in "
        f"{seconds['simulated']:.1f} s ({seconds['simulated'] / seconds['told']:.0f} times); recurrence "
        f"{off['latency_cycles']:+.2%} and {off['interval_cycles']:+.2%} in {seconds['recurrence']:.2f} s"
    )


if __name__ == "__main__":
    main()
