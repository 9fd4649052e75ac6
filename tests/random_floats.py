"""Random float networks of any structure, and stimuli for them; drawn from the generator that is passed in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from random_networks import random_stimulus
from random_structures import random_structure

from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import FrozenLayer, FrozenNetwork, Projection
from codesign.contract.stimulus import Stimulus


def random_float_layer(rng: np.random.Generator, layer: FrozenLayer, silent: bool) -> FloatLayer:
    """A layer with the projections of a frozen one and random numbers."""
    size = float(10 ** rng.uniform(-2, 1))
    n_out = layer.n_out

    def projection(found: Projection) -> Projection:
        weights = found.connections.weights
        drawn = rng.normal(0, size, weights.size)
        drawn = np.where(np.abs(drawn) < 1e-6 * size, size, drawn)
        if found.fixed:
            drawn = np.full(weights.size, size)
        return replace(found, connections=replace(found.connections, weights=drawn))

    def number(low: float, high: float) -> np.ndarray:
        return np.full(n_out, rng.uniform(low, high)) if rng.random() < 0.5 else rng.uniform(low, high, n_out)

    reset = "none" if silent else str(rng.choice(["subtract", "zero", "value", "none"]))
    decay = np.ones(n_out) if rng.random() < 0.2 else number(0, 0.98)
    return FloatLayer.from_projections(
        [projection(found) for found in layer.projections],
        name=f"lif {rng.integers(100)}",
        shape=layer.shape,
        threshold=number(0.5 * size, 4 * size),
        bias=number(-0.2 * size, 0.4 * size) if rng.random() < 0.6 else 0.0,
        decay=decay,
        reset=reset,
        reset_value=float(rng.uniform(-size, 0.4 * size)) if reset == "value" else 0.0,
        compare=str(rng.choice([">", ">="])),
        current_decay=number(0, 0.98) if rng.random() < 0.5 else None,
        reset_delay=(late := bool(reset == "subtract" and rng.random() < 0.5)),
        refractory=0 if late or silent or rng.random() < 0.5 else int(rng.integers(1, 4)),
    )


def random_float_network(rng: np.random.Generator) -> tuple[FloatNetwork, Stimulus]:
    """A valid network of 1 to 4 layers and 5 samples."""
    frozen: FrozenNetwork = random_structure(rng)
    last = len(frozen.layers) - 1
    layers = tuple(
        random_float_layer(rng, layer, index == last and frozen.membrane_readout)
        for index, layer in enumerate(frozen.layers)
    )
    network = FloatNetwork(layers, frozen.timesteps, frozen.coding, frozen.readout)
    network.validate()
    return network, random_stimulus(rng, frozen, 5)
