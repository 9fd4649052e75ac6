"""Random float networks of any structure, and stimuli for them; drawn from the generator that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from random_networks import COMPARES, READOUTS, RESETS, random_stimulus
from random_structures import random_structure

from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import Convolution, FrozenLayer, FrozenNetwork, Projection, Synapses
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


def terms_of(network: FloatNetwork | None) -> set[str]:
    """What a random float network has, of all that one can have; of None all of that."""
    checks: dict[str, Callable[[FloatNetwork], bool]] = {
        "dense": lambda n: any(isinstance(p.connections, Synapses) and not p.fixed for p in projections(n)),
        "convolution": lambda n: any(isinstance(p.connections, Convolution) and not p.fixed for p in projections(n)),
        "pool": lambda n: any(p.pool is not None for p in projections(n)),
        "recurrence": lambda n: any(
            p.source == index for index, layer in enumerate(n.layers) for p in layer.projections
        ),
        "skip": lambda n: any(p.source < index - 1 for index, layer in enumerate(n.layers) for p in layer.projections),
        "identity": lambda n: any(p.fixed for p in projections(n)),
        "decay by neuron": lambda n: any(np.ptp(layer.decay) > 0 for layer in n.layers),
        "no decay": lambda n: any(bool(np.all(layer.decay == 1)) for layer in n.layers),
        "current": lambda n: any(layer.current_decay is not None for layer in n.layers),
        "late reset": lambda n: any(layer.reset_delay for layer in n.layers),
        "refractory": lambda n: any(layer.refractory > 0 for layer in n.layers),
        "input currents": lambda n: n.coding.is_current,
        "input events": lambda n: not n.coding.is_current,
    }
    for kind in RESETS:
        checks[f"reset {kind}"] = lambda n, kind=kind: any(layer.reset == kind for layer in n.layers)
    for sign in COMPARES:
        checks[f"compare {sign}"] = lambda n, sign=sign: any(layer.compare == sign for layer in n.layers)
    for readout in READOUTS:
        checks[readout] = lambda n, readout=readout: n.readout == readout
    return {name for name, holds in checks.items() if network is None or holds(network)}


def projections(network: FloatNetwork) -> list[Projection]:
    return [projection for layer in network.layers for projection in layer.projections]
