"""Hidden neurons that cannot matter, removed without changing any decision, value or remaining spike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from codesign.contract import golden
from codesign.contract.network import FrozenLayer, FrozenNetwork, Projection, Synapses

Mask = npt.NDArray[np.bool_]


def remove_dead_code(network: FrozenNetwork, *, silent: bool = True) -> FrozenNetwork:
    """Drop hidden neurons that cannot matter, without changing any decision, value or remaining spike.

    A neuron goes if no path of synapses leads from it to the next layers, or if it never fires: it has no fan-in,
    its recurrent one is from neurons that never fire, and its bias alone does not make it fire within the network's
    timesteps (simulated). Inputs and the last layer keep their indices, a layer keeps at least one neuron. Pictures,
    and what a convolution or a pool reads or reaches, stay whole. Without ``silent`` only neurons without a path go:
    those are told from the connections alone.
    """
    changed = True
    while changed:
        changed = False
        for index in range(len(network.layers) - 1):
            if not _removable(network, index):
                continue
            kept = _kept(network, index, silent)
            if not kept.all():
                network = _take(network, index, kept)
                changed = True
    return network


def _removable(network: FrozenNetwork, index: int) -> bool:
    """True if single neurons of a layer can go."""
    layer = network.layers[index]
    readers = [p for other in network.layers for p in other.projections if p.source == index]
    return (
        layer.shape is None
        and all(isinstance(projection.connections, Synapses) for projection in (*layer.projections, *readers))
        and all(projection.pool is None for projection in readers)
    )


def _kept(network: FrozenNetwork, index: int, silent: bool) -> Mask:
    """bool (n_out,): neurons of a layer that may matter, at least one."""
    layer = network.layers[index]
    incoming = [_matrix(p) for p in layer.projections if p.source != index]
    own = [_matrix(p) for p in layer.projections if p.source == index]
    outgoing = [_matrix(p) for other in network.layers[index + 1 :] for p in other.projections if p.source == index]

    awake: Mask = np.ones(layer.n_out, bool)
    if silent:
        nothing = np.zeros((1, network.timesteps, layer.n_out), np.int64)
        awake = np.asarray(golden.lif_steps(layer, nothing, dtype=golden.membrane_dtype(layer)).spikes.any(axis=(0, 1)))
        for matrix in incoming:
            awake |= np.diff(matrix.tocsc().indptr) > 0
        awake = _closed(awake, [matrix.T for matrix in own])

    wanted = np.zeros(layer.n_out, bool)
    for matrix in outgoing:
        wanted |= np.diff(matrix.indptr) > 0
    kept = _closed(wanted, own) & awake
    if not kept.any():
        kept[0] = True
        # The neuron that stays keeps its spikes, and so whatever they depend on.
        kept = _closed(kept, own) & (awake | kept)
    return kept


def _closed(start: Mask, matrices: list[Any]) -> Mask:
    """``start`` and every neuron from which a path of the matrices' entries, row to column, leads into it."""
    reached = start
    while True:
        more = reached.copy()
        for matrix in matrices:
            more |= matrix @ reached
        if np.array_equal(more, reached):
            return reached
        reached = more


def _matrix(projection: Projection) -> Any:
    """CSR bool (n_sources, n_out) of a projection of synapses: where there is a weight."""
    connections = projection.connections
    assert isinstance(connections, Synapses)
    return scipy.sparse.csr_matrix(
        (np.ones(connections.n_weights, bool), connections.targets, connections.indptr),
        shape=(connections.n_in, connections.n_out),
    )


def _take(network: FrozenNetwork, index: int, kept: Mask) -> FrozenNetwork:
    """The network with these neurons of one layer alone."""
    layers: list[FrozenLayer] = []
    for number, layer in enumerate(network.layers):
        projections = tuple(
            replace(
                projection,
                connections=_select(
                    projection.connections,
                    kept if projection.source == index else None,
                    kept if number == index else None,
                ),
            )
            if index in (number, projection.source)
            else projection
            for projection in layer.projections
        )
        layer = replace(layer, projections=projections)
        if number == index:
            layer = replace(
                layer,
                n_out=int(np.count_nonzero(kept)),
                bias=layer.bias[kept],
                threshold=layer.threshold[kept],
                trained_index=layer.trained_index[kept],
                **{name: leak.each(lambda _, value: value[kept]) for name, leak in layer.leaks.items()},
            )
        layers.append(layer)
    return network.with_layers(layers)


def _select(connections: Any, sources: Mask | None, targets: Mask | None) -> Synapses:
    """Synapses between the chosen sources and targets, numbered anew."""
    assert isinstance(connections, Synapses)
    sources = np.ones(connections.n_in, bool) if sources is None else sources
    targets = np.ones(connections.n_out, bool) if targets is None else targets
    found = connections.sources
    chosen = sources[found] & targets[connections.targets]
    counts = np.bincount(found[chosen], minlength=connections.n_in)[sources]
    return Synapses(
        n_in=int(np.count_nonzero(sources)),
        n_out=int(np.count_nonzero(targets)),
        indptr=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        targets=(np.cumsum(targets) - 1)[connections.targets[chosen]].astype(np.int32),
        weights=connections.weights[chosen],
    )
