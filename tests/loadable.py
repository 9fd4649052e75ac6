"""Networks for one loadable machine: variants that differ in all that a load may change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bundles import small_network
from random_choices import random_choices
from random_networks import fitted, random_layer, random_network, random_stimulus

from codesign.basics.errors import CapacityError
from codesign.contract.network import FrozenLayer, FrozenNetwork, Leak, signed_width
from codesign.contract.sidecar import Sidecar
from codesign.contract.stimulus import Stimulus
from codesign.machine.capacity import CapacityOptions
from codesign.machine.load import Load, compile_load
from codesign.machine.mapping import LOADABLE, map_network
from rtl_templates.bundle import write_bundle
from sim.loads import LoadStep

ROOM = CapacityOptions(inputs=25, neurons=[17], timesteps=6)


def small_variant(seed: int, coding: str, *, n_in: int, hidden: int, timesteps: int, width: int) -> FrozenNetwork:
    """A network for the machine of :func:`bundles.small_network` with :data:`ROOM`."""
    rng = np.random.default_rng(seed)
    density = float(rng.uniform(0.2, 0.6))

    def weights(rows: int, columns: int) -> np.ndarray:
        return rng.integers(-15, 16, (rows, columns)) * (rng.random((rows, columns)) < density)

    low, high = ((100, 300), (40, 90)) if coding == "current" else ((15, 60), (10, 40))
    return FrozenNetwork.from_arrays(
        [weights(n_in, hidden), weights(hidden, 5)],
        threshold=[rng.integers(*low, hidden), rng.integers(*high, 5)],
        bias=[rng.integers(-20, 40, hidden), rng.integers(-5, 9, 5)],
        timesteps=timesteps,
        coding=small_network(coding).coding,
        leak=Leak("shift", 2),
        fraction_bits=2,
        membrane_width=[width, width - 1],
    )


def small_machine(folder: Path, coding: str) -> tuple[list[FrozenNetwork], Sidecar]:
    """A loadable bundle of three lanes and two; its own network, a smaller and a wider one; and its sidecar."""
    network = small_network(coding)
    sidecar = write_bundle(network, map_network(network, [3, 2], None, LOADABLE, capacity=ROOM), folder)
    smaller = small_variant(1, coding, n_in=9, hidden=5, timesteps=6, width=8)
    wider = small_variant(2, coding, n_in=25, hidden=17, timesteps=3, width=9)
    return [network, smaller, wider], sidecar


def samples_of(network: FrozenNetwork, seed: int, count: int = 3) -> Stimulus:
    return random_stimulus(np.random.default_rng(seed), network, count)


def variant(rng: np.random.Generator, network: FrozenNetwork) -> FrozenNetwork:
    """A random network with the fixed terms of ``network`` and other sizes, synapses, parameters and widths."""
    timesteps = int(rng.integers(1, network.timesteps + 1))
    widths = [int(rng.integers(1, layer.n_out + 1)) for layer in network.layers[:-1]] + [network.n_outputs]
    layers: list[FrozenLayer] = []
    n_in = int(rng.integers(1, network.n_inputs + 1))
    for index, (frozen, n_out) in enumerate(zip(network.layers, widths, strict=True)):
        integrates = network.membrane_readout and index == len(network.layers) - 1
        source_max = network.source_max(index)
        drawn = random_layer(rng, n_in, n_out, source_max=source_max, timesteps=timesteps, membrane_readout=integrates)
        limit = (1 << (frozen.weight_bits - 1)) - 1
        layer = FrozenLayer.from_dense(
            np.clip(drawn.dense(), -limit, limit),
            threshold=drawn.threshold,
            bias=drawn.bias,
            leak=_leak_like(rng, frozen.leak, frozen.n_out, n_out),
            current_leak=frozen.current_leak and _leak_like(rng, frozen.current_leak, frozen.n_out, n_out),
            reset=frozen.reset,
            reset_value=frozen.reset_value,
            reset_delay=frozen.reset_delay,
            compare=frozen.compare,
            current_width=frozen.current_width,
            refractory=frozen.refractory,
            fraction_bits=frozen.fraction_bits,
            membrane_width=frozen.membrane_width,
        )
        if integrates:
            layer = fitted(layer, timesteps, source_max)
        else:
            least = max(2, signed_width(min(0, frozen.reset_value), max(0, frozen.reset_value)))
            layer = replace(layer, membrane_width=int(rng.integers(least, frozen.membrane_width + 1)))
        layers.append(layer)
        n_in = n_out
    found = FrozenNetwork(tuple(layers), timesteps, network.coding, network.readout)
    found.validate()
    return found


def _leak_like(rng: np.random.Generator, leak: Leak, n: int, n_out: int) -> Leak:
    """A leak for ``n_out`` neurons: numbers that differ between the ``n`` of a layer are those of any, or of one."""
    at = rng.integers(0, n, n_out if rng.random() < 0.7 else 1) * np.ones(n_out, np.int64)
    return leak.each(lambda _, value: value[at])


def random_machine(
    seed: int, folder: Path, *, max_width: int, most_lanes: int
) -> tuple[FrozenNetwork, list[FrozenNetwork], Sidecar]:
    """A random loadable bundle, its network, two others that fit it, and its sidecar."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=max_width)
    lanes = [int(rng.integers(1, most_lanes + 1)) for _ in network.layers]
    # The fullest lane of fully connected neurons.
    most = max(layer.n_in * -(-layer.n_out // min(p, layer.n_out)) for layer, p in zip(network.layers, lanes))
    options = CapacityOptions(synapses=max(1, most), headroom=int(rng.integers(6, 12)))
    choices = random_choices(rng, network, loadable=True, synapse_memory="auto")
    sidecar = write_bundle(network, map_network(network, lanes, None, choices, capacity=options), folder)
    others: list[FrozenNetwork] = []
    for _ in range(200):
        candidate = variant(rng, network)
        try:
            compile_load(candidate, sidecar)
        except CapacityError:
            continue
        others.append(candidate)
        if len(others) == 2:
            return network, others, sidecar
    raise AssertionError(f"seed {seed}: no two variants fit")


def load_step(name: str, network: FrozenNetwork, load: Load, seed: int, **options: Any) -> LoadStep:
    """A step that loads ``network`` and runs it."""
    return LoadStep(name, load.image, network, samples_of(network, seed), load.sidecar, **options)


def port_hash(network: FrozenNetwork) -> int:
    return int(network.hash[:16], 16)


def flipped(image: bytes, place: int, bit: int = 4) -> bytes:
    """The image with one bit of one byte changed."""
    return image[:place] + bytes([image[place] ^ (1 << bit)]) + image[place + 1 :]
