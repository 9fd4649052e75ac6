"""Small accelerators of every kind, for tests that hold of all: a network, its bundle, and how it was built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from bundles import small_network
from loadable import ROOM

from codesign.contract.network import (
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
)
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle


def membrane_network(readout: str, coding: str = "current") -> FrozenNetwork:
    """Two layers, the second of which integrates; thresholds and biases that are the same for a layer."""
    rng = np.random.default_rng(6)

    def weights(n_in: int, n_out: int) -> np.ndarray:
        return rng.integers(-3, 4, (n_in, n_out)) * (rng.random((n_in, n_out)) < 0.6)

    return FrozenNetwork.from_arrays(
        [weights(9, 7), weights(7, 4)],
        threshold=[20, 0],
        bias=[3, 0],
        timesteps=3,
        coding=InputCoding("current", 4) if coding == "current" else InputCoding(coding),  # type: ignore[arg-type]
        readout=readout,  # type: ignore[arg-type]
        leak=Leak("multiply", 3, 7),
        fraction_bits=1,
        reset=["subtract", "none"],
    )


def picture_network(pooled: bool) -> FrozenNetwork:
    """Two convolutions, the first behind a pool, or one of stride 2 and single synapses behind a pool."""
    rng = np.random.default_rng(7)

    def convolution(shape: tuple[int, int, int], channels: int, kernel: tuple[int, int], *moves: int) -> Convolution:
        return Convolution.from_dense(rng.integers(-3, 8, (channels, shape[0], *kernel)), shape, *moves)

    def layer(projection: Projection, channels: int) -> FrozenLayer:
        return FrozenLayer.from_projections(
            [projection], threshold=rng.integers(9, 20, channels), leak=Leak("shift", 1)
        )

    first = SumPool((2, 5, 9), 2) if pooled else None
    one = convolution(first.out_shape, 3, (2, 3), 1, 1) if first else convolution((2, 5, 6), 3, (3, 3), 2)
    pool = SumPool(one.out_shape, 2)
    if pooled:
        last = layer(Projection(0, convolution(one.out_shape, 4, one.out_shape[1:])), 4)
    else:
        last = layer(Projection(0, Synapses.from_dense(rng.integers(-3, 8, (pool.n_out, 4))), pool), 4)
    return FrozenNetwork((layer(Projection(-1, one, first), 3), last), 3, InputCoding("events"))


def term_network(coding: str, layers: tuple[int, ...]) -> FrozenNetwork:
    """The small network; these layers have a delayed reset and a synaptic current, leaking by neuron in the first, the
    others rest after a spike."""
    found, network = [], small_network(coding)
    for index, layer in enumerate(network.layers):
        if index in layers:
            shift = np.arange(layer.n_out) % 3 + 1 if index == 0 else 2
            width = layer.membrane_width - 1
            layer = replace(layer, reset_delay=True, current_leak=Leak("shift", shift), current_width=width)
        else:
            layer = replace(layer, refractory=2)
        found.append(layer)
    return network.with_layers(found)


# name: (network, lanes, choices)
MACHINES: dict[str, tuple[FrozenNetwork, list[int], Choices]] = {
    "streaming": (small_network("events"), [3, 2], Choices()),
    "current": (small_network("current"), [3, 2], Choices(input_words=2, queue_depth=4)),
    "folded": (small_network("events"), [3, 3], Choices(shape="folded")),
    "lockstep": (small_network("events"), [3, 2], Choices(lockstep=True, spike_fifos=False, output_spikes=False)),
    "compact": (membrane_network("membrane_sum", "rate"), [2, 1], Choices(synapses="compact", pipeline="short")),
    "loadable": (small_network("current"), [3, 2], Choices(loadable=True)),
    "spram": (small_network("events"), [3, 2], Choices(loadable=True, synapse_memory="spram")),
    "margin": (small_network("events"), [3, 2], Choices(early_exit=2, counters=False)),
    "certain": (small_network("events"), [1, 1], Choices(early_exit="certain")),
    "membrane": (membrane_network("membrane_last"), [2, 2], Choices(input_checks=False, counters=False)),
    "pictures": (picture_network(pooled=False), [2, 2], Choices()),
    "pictures, pooled": (picture_network(pooled=True), [3, 2], Choices(pipeline="short", spike_fifos=False)),
    "terms": (term_network("events", (0, 1)), [3, 2], Choices(output_spikes=False)),
    "terms, folded": (term_network("current", (1,)), [3, 3], Choices(shape="folded")),
    "terms, loadable": (term_network("current", (0,)), [3, 2], Choices(loadable=True)),
    "single": (small_network("events").with_layers(small_network("events").layers[:1]), [4], Choices(shape="folded")),
}


def build_machine(name: str, folder: Path) -> FrozenNetwork:
    """Write the bundle of a machine and return its network."""
    network, lanes, choices = MACHINES[name]
    mapping = map_network(network, lanes, None, choices, capacity=ROOM if choices.loadable else None)
    write_bundle(network, mapping, folder)
    return network
