"""Speed of the golden model on a convolutional network: `python -m benchmarks.golden_speed [--json]`.

A random network of the shape of examples/mnist-conv.toml, 18 % of its taps and synapses, whose hidden neurons fire in
about 12 % of the timesteps, on random images. It is run as it comes, with narrow integers and dense products, and with
64-bit integers and sparse products; every value has to be equal. Absolute times depend on the machine; compare figures
of one run alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any
from unittest import mock

import numpy as np

from codesign.contract import golden
from codesign.contract.network import (
    PREVIOUS,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
)
from codesign.contract.stimulus import Stimulus

SAMPLES = 200
REPEATS = 3
TIMESTEPS = 4
DENSITY = 0.18
SPARSE = {"INTEGERS": (np.int64, object), "RARE": 2.0}


def random_network(seed: int = 1) -> FrozenNetwork:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return np.where(rng.random(shape) < DENSITY, rng.integers(-31, 32, shape), 0)

    def layer(projection: Projection, **parameters: Any) -> FrozenLayer:
        return FrozenLayer.from_projections([projection], leak=Leak("shift", 2), fraction_bits=2, **parameters)

    first = Convolution.from_dense(weights(24, 1, 5, 5), (1, 28, 28), stride=2, padding=2)
    second = Convolution.from_dense(weights(48, 24, 3, 3), first.out_shape, padding=1)
    pool = SumPool(second.out_shape, 2)
    third = Convolution.from_dense(weights(64, 48, 3, 3), pool.out_shape, padding=1)
    # These thresholds give the rates.
    layers = (
        layer(Projection(PREVIOUS, first), threshold=931, membrane_width=20),
        layer(Projection(PREVIOUS, second), threshold=239, membrane_width=18),
        layer(Projection(PREVIOUS, third, pool), threshold=882, membrane_width=18),
        layer(Projection(PREVIOUS, Synapses.from_dense(weights(third.n_out, 10))), reset="none", membrane_width=24),
    )
    network = FrozenNetwork(layers, TIMESTEPS, InputCoding("current", 4), "membrane_sum")
    network.validate()
    return network


def random_stimulus(count: int, seed: int = 2) -> Stimulus:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((count, 784)) < 0.2, rng.integers(1, 16, (count, 784)), 0)
    return Stimulus(784, TIMESTEPS, np.full(count, -1, np.int32), values=values.astype(np.uint8))


def is_equal(ours: golden.Trace, theirs: golden.Trace) -> bool:
    """True if every value of the traces is."""
    for name in (field.name for field in fields(golden.Trace)):
        found, expected = getattr(ours, name), getattr(theirs, name)
        if not isinstance(found, list):
            found, expected = [found], [expected]
        if not all(np.array_equal(array, other) for array, other in zip(found, expected, strict=True)):
            return False
    return True


def measured(samples: int, repeats: int = REPEATS) -> dict[str, Any]:
    """Milliseconds of this process's own time per image, the least of several runs in turns; rates; the ratio."""
    network, stimulus = random_network(), random_stimulus(samples)

    def as_it_comes() -> golden.Trace:
        return golden.run(network, stimulus, membranes=False)

    def with_membranes() -> golden.Trace:
        return golden.run(network, stimulus)

    def sparse() -> golden.Trace:
        with mock.patch.multiple(golden, **SPARSE):
            return golden.run(network, stimulus, membranes=False)

    ways: dict[str, Callable[[], golden.Trace]] = {
        "spikes": as_it_comes,
        "spikes and membranes": with_membranes,
        "spikes, sparse 64-bit": sparse,
    }
    least = dict.fromkeys(ways, float("inf"))
    traces: dict[str, golden.Trace] = {}
    # In turns, so that whatever else the machine does slows all of them.
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            traces[name] = way()
            least[name] = min(least[name], time.process_time() - start)
    if not is_equal(traces["spikes"], traces["spikes, sparse 64-bit"]):
        raise SystemExit("narrow and 64-bit integers differ")
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "samples": samples,
        "rates": [float(found.mean()) for found in traces["spikes"].spikes[:-1]],
        "milliseconds": {name: seconds * 1000 / samples for name, seconds in least.items()},
        "ratio": least["spikes"] / least["spikes, sparse 64-bit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golden_speed", description="speed of the golden model")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"images; default {SAMPLES}")
    options = parser.parse_args()
    found = measured(options.samples)
    if options.json:
        print(json.dumps(found))
        return
    for name, milliseconds in found["milliseconds"].items():
        print(f"{name:24} {milliseconds:8.2f} ms/image")
    print(f"{'ratio to sparse 64-bit':24} {found['ratio']:8.2f}")
    print(
        f"rates {', '.join(f'{rate:.1%}' for rate in found['rates'])}; {found['cores']} cores, load {found['load']:.1f}"
    )


if __name__ == "__main__":
    main()
