"""What a sparse network saves: the estimates of the same network with every connection, on the same machine.

Nothing is trained for it. What is assumed stands in :data:`ASSUMED`, for whoever shows the figures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from codesign.basics.errors import CodesignError
from codesign.contract import golden
from codesign.contract.network import Connections, Convolution, FrozenLayer, FrozenNetwork, Synapses, signed_width
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import MAX_SAMPLES, estimate, source_events
from codesign.machine.capacity import CapacityOptions
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.plan import plan_machine

# Connections beyond which no dense machine is planned: that takes seconds.
MOST_SYNAPSES = 1 << 20
ASSUMED = (
    "The dense network has the same neurons and every connection between them, with the same weight bits, lanes and "
    "choices of hardware. Its neurons are taken to fire as often as those of the sparse network. A connection that the "
    "sparse network lacks counts as a weight of +1 or -1."
)


def dense_network(network: FrozenNetwork) -> FrozenNetwork:
    """The network with every connection of its learned projections; weights that are there stay.

    Membranes and currents that a readout does not let saturate get the bits that the larger sums take.
    """
    layers = [
        replace(
            layer,
            projections=tuple(
                part if part.fixed else replace(part, connections=_filled(part.connections))
                for part in layer.projections
            ),
        )
        for layer in network.layers
    ]
    if network.membrane_readout:
        layers[-1] = _unsaturated(layers[-1], network.timesteps, network.source_max(len(layers) - 1))
    return network.with_layers(layers)


def _filled(connections: Connections) -> Connections:
    dense = connections.dense()
    signs = 1 - 2 * (np.indices(dense.shape[:2]).sum(axis=0) & 1)
    filled = np.where(dense == 0, signs.reshape(signs.shape + (1,) * (dense.ndim - 2)), dense)
    if isinstance(connections, Convolution):
        return Convolution.from_dense(filled, connections.in_shape, connections.stride, connections.padding)
    return Synapses.from_dense(filled)


def _unsaturated(layer: FrozenLayer, timesteps: int, source_max: int) -> FrozenLayer:
    needed = signed_width(*layer.unsaturated_range(timesteps, source_max))
    layer = replace(layer, membrane_width=max(layer.membrane_width, needed))
    if layer.has_current:
        needed = signed_width(*layer.unsaturated_current_range(timesteps, source_max))
        layer = replace(layer, current_width=max(layer.current_width, needed))
    return layer


def n_connections(network: FrozenNetwork) -> list[int]:
    """Connections of each layer if all are there; a tap of a kernel counts once, fixed projections do not count."""
    return [
        sum(
            part.connections.dense_weights
            if isinstance(part.connections, Convolution)
            else part.connections.n_in * part.connections.n_out
            for part in layer.projections
            if not part.fixed
        )
        for layer in network.layers
    ]


def dense_estimate(
    network: FrozenNetwork,
    mapping: HardwareMap,
    capacity: CapacityOptions | None = None,
    stimulus: Stimulus | None = None,
    trace: golden.Trace | None = None,
) -> dict[str, Any]:
    """Estimates of :func:`dense_network` on the machine of the sparse one.

    mapping : of the sparse network's machine; the dense one has its lanes, choices and ``capacity``, what a loadable
        machine is to hold, if it is enough.
    stimulus : samples whose events are counted, by the sparse network's spikes; ``trace`` : the golden model's on the
        first 100 of them, if it ran already.

    Returns ``synapses``, ``weight_memory_bits`` (the weights only, as a memory without indices and row tables would
    hold them), ``assumed``, ``estimate`` (of :func:`codesign.cost.estimate.estimate`, or None) and ``reason`` (why
    there is none).
    """
    counts = n_connections(network)
    found: dict[str, Any] = {
        "synapses": sum(counts),
        "weight_memory_bits": sum(
            count * layer.weight_bits for count, layer in zip(counts, network.layers, strict=True)
        ),
        "assumed": ASSUMED,
        "estimate": None,
        "reason": None,
    }
    if sum(counts) > MOST_SYNAPSES:
        return {**found, "reason": f"more than {MOST_SYNAPSES:,} connections are not planned"}
    chosen = None if stimulus is None or not len(stimulus) else stimulus.take(slice(0, MAX_SAMPLES))
    if chosen is not None:
        trace = trace or golden.run(network, chosen, membranes=False)
    try:
        dense = dense_network(network)
        dense.validate("the dense network")
        # The events are the sparse network's: its spikes stand in for those of a dense network that nobody trained.
        events = None if chosen is None else source_events(network, chosen, trace)
        plan = plan_machine(dense, map_network(dense, mapping.lanes, events, mapping.choices, capacity=capacity))
        # The spikes are not this network's, and there are many more synapses to walk: near is enough.
        return {**found, "estimate": estimate(plan, stimulus=chosen, trace=trace, exact=False)}
    except CodesignError as error:
        return {**found, "reason": str(error)}
