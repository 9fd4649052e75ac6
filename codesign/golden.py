"""Golden model: the normative integer arithmetic of a frozen network, vectorised.

Per layer, neuron j and timestep t, with ``v = 0`` before timestep 0 of every sample:

    acc = (sum of w_ij over sources i that spiked at t) << F,  + bias_j
    u   = leak(v) + acc
    s   = u >= threshold_j                 (or u > threshold_j)
    v   = saturate(reset(u, s))            into [-2^(W-1), 2^(W-1) - 1]

Layers run in order within a timestep. With coding 'current' the first layer's sum is
``(sum w_ij * x_i) << F``, computed once per sample and added at every timestep. With a membrane
readout the last layer emits no spikes. ``>>`` is arithmetic. All sums are exact int64; the frozen
network's validation bounds them below 2^62.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from codesign.errors import InputError
from codesign.network import FrozenLayer, FrozenNetwork
from codesign.stimulus import Stimulus

CHUNK_BYTES = 1 << 27


@dataclass(frozen=True, eq=False)
class Trace:
    """What a network did on a stimulus of N samples.

    decisions : int32 (N,); class with the greatest value, the lowest on a tie.
    values : int64 (N, n_outputs); readout values.
    spikes : one bool (N, timesteps, n_out) per layer.
    membranes : one int64 (N, timesteps, n_out) per layer, v after reset and saturation; empty unless recorded.
    saturations : int64 (N,); times a stored membrane was clipped.
    synaptic_operations : int64 (N, n_layers); synapses walked by events (by nonzero inputs for 'current').
    """

    decisions: npt.NDArray[np.int32]
    values: npt.NDArray[np.int64]
    spikes: list[npt.NDArray[np.bool_]]
    membranes: list[npt.NDArray[np.int64]]
    saturations: npt.NDArray[np.int64]
    synaptic_operations: npt.NDArray[np.int64]


def run(network: FrozenNetwork, stimulus: Stimulus, *, membranes: bool = True) -> Trace:
    """Run every sample of ``stimulus``. Raises InputError if it does not fit the network."""
    check_stimulus(network, stimulus)
    widest = max(layer.n_out for layer in network.layers)
    chunk = max(1, CHUNK_BYTES // (8 * widest * network.timesteps))
    parts = [
        _run_chunk(network, stimulus.take(slice(start, start + chunk)), membranes)
        for start in range(0, max(len(stimulus), 1), chunk)
    ]
    count = len(network.layers)
    return Trace(
        decisions=np.concatenate([part.decisions for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        spikes=[np.concatenate([part.spikes[i] for part in parts]) for i in range(count)],
        membranes=[np.concatenate([part.membranes[i] for part in parts]) for i in range(count if membranes else 0)],
        saturations=np.concatenate([part.saturations for part in parts]),
        synaptic_operations=np.concatenate([part.synaptic_operations for part in parts]),
    )


def check_stimulus(network: FrozenNetwork, stimulus: Stimulus) -> None:
    """Raise InputError unless ``stimulus`` has the network's inputs, timesteps and coding."""
    if stimulus.n_inputs != network.n_inputs:
        raise InputError(f"stimulus has {stimulus.n_inputs} inputs, the network {network.n_inputs}")
    if stimulus.timesteps != network.timesteps:
        raise InputError(f"stimulus has {stimulus.timesteps} timesteps, the network {network.timesteps}")
    if stimulus.is_current != network.coding.is_current:
        raise InputError(f"stimulus does not have the network's input coding {network.coding.kind!r}")
    if stimulus.values is not None and stimulus.values.size:
        limit = network.source_max(0)
        if int(stimulus.values.max()) > limit:
            raise InputError(f"stimulus value {int(stimulus.values.max())} exceeds {network.coding.input_bits} bits")


def lif_steps(
    layer: FrozenLayer, sums: npt.NDArray[np.int64], *, spiking: bool = True
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """LIF dynamics of one layer for unshifted weighted sums, int64 (N, timesteps, n_out).

    Returns spikes (bool), stored membranes v and potentials u (int64), all (N, timesteps, n_out), and
    the number of saturations per sample, int64 (N,).
    """
    n_samples, timesteps, n_out = sums.shape
    spikes = np.zeros((n_samples, timesteps, n_out), bool)
    stored = np.zeros((n_samples, timesteps, n_out), np.int64)
    potentials = np.zeros((n_samples, timesteps, n_out), np.int64)
    saturations = np.zeros(n_samples, np.int64)
    v = np.zeros((n_samples, n_out), np.int64)
    for t in range(timesteps):
        u = layer.leak(v) + (sums[:, t] << layer.fraction_bits) + layer.bias
        if not spiking:
            s = np.zeros(u.shape, bool)
        elif layer.compare == ">=":
            s = u >= layer.threshold
        else:
            s = u > layer.threshold
        if layer.reset == "subtract":
            after = np.where(s, u - layer.threshold, u)
        elif layer.reset == "zero":
            after = np.where(s, 0, u)
        elif layer.reset == "value":
            after = np.where(s, layer.reset_value, u)
        else:
            after = u
        v = np.clip(after, layer.membrane_min, layer.membrane_max)
        saturations += np.count_nonzero(v != after, axis=1)
        spikes[:, t], stored[:, t], potentials[:, t] = s, v, u
    return spikes, stored, potentials, saturations


def readout_values(
    network: FrozenNetwork, spikes: npt.NDArray[np.bool_], potentials: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Readout values, int64 (N, n_outputs), from the last layer's spikes and potentials u."""
    if network.readout == "spike_count":
        return spikes.sum(axis=1, dtype=np.int64)
    if network.readout == "membrane_last":
        return potentials[:, -1]
    if network.readout == "membrane_sum":
        return potentials.sum(axis=1)
    return potentials.max(axis=1)


def _run_chunk(network: FrozenNetwork, stimulus: Stimulus, record_membranes: bool) -> Trace:
    n_samples, timesteps = len(stimulus), network.timesteps
    spikes: list[npt.NDArray[np.bool_]] = []
    membranes: list[npt.NDArray[np.int64]] = []
    saturations = np.zeros(n_samples, np.int64)
    operations = np.zeros((n_samples, len(network.layers)), np.int64)
    potentials = np.zeros((n_samples, timesteps, network.n_outputs), np.int64)
    for index, layer in enumerate(network.layers):
        matrix: Any = sparse.csr_matrix(
            (layer.weights.astype(np.int64), layer.targets, layer.indptr), shape=(layer.n_in, layer.n_out)
        )
        fan_out = np.diff(layer.indptr)
        if index == 0 and stimulus.values is not None:
            inputs = sparse.csr_matrix(stimulus.values.astype(np.int64))
            sums = np.broadcast_to((inputs @ matrix).toarray()[:, None], (n_samples, timesteps, layer.n_out))
            operations[:, 0] = (stimulus.values != 0) @ fan_out
        else:
            if index == 0:
                assert stimulus.offsets is not None and stimulus.sources is not None
                events = sparse.csr_matrix(
                    (np.ones(stimulus.sources.size, np.int64), stimulus.sources, stimulus.offsets),
                    shape=(n_samples * timesteps, layer.n_in),
                )
            else:
                events = sparse.csr_matrix(spikes[-1].reshape(n_samples * timesteps, layer.n_in).astype(np.int64))
            sums = (events @ matrix).toarray().reshape(n_samples, timesteps, layer.n_out)
            operations[:, index] = (events @ fan_out).reshape(n_samples, timesteps).sum(axis=1)
        is_last = index == len(network.layers) - 1
        fired, stored, potentials, clipped = lif_steps(layer, sums, spiking=not (is_last and network.membrane_readout))
        spikes.append(fired)
        saturations += clipped
        if record_membranes:
            membranes.append(stored)
    values = readout_values(network, spikes[-1], potentials)
    return Trace(
        decisions=np.argmax(values, axis=1).astype(np.int32),
        values=values,
        spikes=spikes,
        membranes=membranes,
        saturations=saturations,
        synaptic_operations=operations,
    )
