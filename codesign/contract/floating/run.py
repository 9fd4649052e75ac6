"""Arithmetic of the float network, in float64: the reference that imports and quantisation are measured against.

Per layer, neuron j and timestep t, with v = i = 0 before timestep 0 of every sample:

    acc = sum over projections and sources k of w_kj * x_k, + bias_j
    i   = current_decay_j * i + acc            without a synaptic current i = acc
    u   = decay_j * v + i                      with a delayed reset minus threshold_j where j fired at t - 1
    s   = u >= threshold_j                     (or u > threshold_j)
    v   = reset(u, s)                          with a delayed reset v = u

For ``refractory`` timesteps after a spike v stays as it is, u = v and s = 0; i goes on. Sources, pools, recurrence,
codings and readouts are those of :mod:`codesign.contract.golden`; nothing saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from codesign.contract.floating.network import FloatLayer, FloatNetwork
from codesign.contract.golden import CHUNK_BYTES, projection_matrices, weighted_sums
from codesign.contract.network import INPUT
from codesign.contract.stimulus import Stimulus

Float = npt.NDArray[np.float64]
# Of a neuron in one timestep: float64 holds them exactly.
MAX_SPIKES = 2.0**53


@dataclass(frozen=True, eq=False)
class FloatTrace:
    """What a float network did on N samples.

    decisions : int32 (N,); class with the greatest value, the lowest on a tie.
    values : float64 (N, n_outputs); readout values.
    spikes : one int64 (N, timesteps, n_out) per layer: spikes per timestep, 0 or 1 unless several were allowed.
    membranes, currents : one float64 (N, timesteps, n_out) per layer, v and i; empty unless recorded. Without a
        synaptic current i is the timestep's sum.
    """

    decisions: npt.NDArray[np.int32]
    values: Float
    spikes: list[npt.NDArray[np.int64]]
    membranes: list[Float]
    currents: list[Float]


def run(network: FloatNetwork, stimulus: Stimulus, *, membranes: bool = True, several: bool = False) -> FloatTrace:
    """Run every sample of ``stimulus``.

    ``several`` lets a neuron fire as often in one timestep as its threshold fits into u, each spike subtracting it, as
    some frameworks train; hardware fires once. Raises InputError if the stimulus is not valid or does not fit the
    network.

    >>> import codesign, numpy
    >>> network = codesign.FloatNetwork.from_arrays([[[0.6]]], timesteps=3, decay=0.5, reset_delay=True, compare=">")
    >>> trace = codesign.run_float(network, codesign.Stimulus.from_dense(numpy.ones((1, 3, 1), bool)))
    >>> trace.membranes[0].ravel().round(3).tolist(), trace.spikes[0].ravel().tolist()
    ([0.6, 0.9, 1.05], [0, 0, 1])
    """
    stimulus.check_for(network)
    matrices = [[projection_matrices(p, 1) for p in layer.projections] for layer in network.layers]
    widest = max(network.n_inputs, *(layer.n_out for layer in network.layers))
    chunk = max(1, CHUNK_BYTES // (8 * widest * network.timesteps))
    parts = [
        _run_chunk(network, matrices, stimulus.take(slice(start, start + chunk)), membranes, several)
        for start in range(0, max(len(stimulus), 1), chunk)
    ]

    def joined(name: str) -> list[Any]:
        return [np.concatenate(found) for found in zip(*(getattr(part, name) for part in parts), strict=True)]

    return FloatTrace(
        np.concatenate([part.decisions for part in parts]),
        np.concatenate([part.values for part in parts]),
        **{name: joined(name) for name in ("spikes", "membranes", "currents")},
    )


def _run_chunk(
    network: FloatNetwork, matrices: list[list[list[Any]]], stimulus: Stimulus, membranes: bool, several: bool
) -> FloatTrace:
    n_samples, timesteps = len(stimulus), network.timesteps
    spikes: list[npt.NDArray[np.int64]] = []
    stored: list[Float] = []
    currents: list[Float] = []
    fired = potentials = np.zeros((n_samples, timesteps, 0))
    for index, layer in enumerate(network.layers):
        acc = np.zeros((n_samples, timesteps, layer.n_out))
        own: list[list[Any]] = []
        for projection, factors in zip(layer.projections, matrices[index], strict=True):
            if projection.source == index:
                own.append(factors)
            elif projection.source == INPUT:
                acc += _input_sums(network, stimulus, factors)
            else:
                flat = spikes[projection.source].reshape(n_samples * timesteps, -1)
                acc += weighted_sums(flat, factors).reshape(acc.shape)
        silent = index == len(network.layers) - 1 and network.membrane_readout
        fired, v, potentials, i = lif_steps(layer, acc, own, spiking=not silent, several=several)
        spikes.append(fired)
        if membranes:
            stored.append(v)
            currents.append(i)
    values = {
        "spike_count": lambda: fired.sum(axis=1).astype(np.float64),
        "membrane_last": lambda: potentials[:, -1],
        "membrane_sum": lambda: potentials.sum(axis=1),
        "membrane_max": lambda: potentials.max(axis=1),
    }[network.readout]()
    return FloatTrace(np.argmax(values, axis=1).astype(np.int32), values, spikes, stored, currents)


def _input_sums(network: FloatNetwork, stimulus: Stimulus, factors: list[Any]) -> Float:
    """float64 (N, timesteps or 1, n_out) weighted sums of the input."""
    if stimulus.values is not None:
        return weighted_sums(stimulus.values * network.input_scale, factors)[:, None]
    assert stimulus.offsets is not None and stimulus.sources is not None
    rows = len(stimulus) * stimulus.timesteps
    ones = np.ones(stimulus.sources.size)
    events = sparse.csr_matrix((ones, stimulus.sources, stimulus.offsets), shape=(rows, stimulus.n_inputs))
    return weighted_sums(events, factors).reshape(len(stimulus), stimulus.timesteps, -1)


def lif_steps(
    layer: FloatLayer,
    sums: Float,
    own: list[list[Any]] | None = None,
    *,
    spiking: bool = True,
    several: bool = False,
) -> tuple[npt.NDArray[np.int64], Float, Float, Float]:
    """Dynamics of one layer for sums of earlier layers, float64 (N, timesteps, n_out), bias not yet added.

    ``own`` are the matrices of its recurrent projections. Returns spikes (int64), stored membranes v, potentials u and
    currents i, all (N, timesteps, n_out).
    """
    n_samples, timesteps, n_out = sums.shape
    fired = np.zeros(sums.shape, np.int64)
    stored, potentials, currents = (np.empty(sums.shape) for _ in range(3))
    v = i = np.zeros((n_samples, n_out))
    s = rest = np.zeros((n_samples, n_out), np.int64)
    for t in range(timesteps):
        acc = sums[:, t] + layer.bias
        if own and t > 0:
            acc = acc + reduce(np.add, [weighted_sums(s, factors) for factors in own])
        i = acc if layer.current_decay is None else layer.current_decay * i + acc
        u = layer.decay * v + i
        if layer.reset_delay:
            u = u - s * layer.threshold
        resting = rest > 0
        u = np.where(resting, v, u)
        s = _spikes(layer, u, several) * ~resting if spiking else np.zeros_like(s)
        rest = np.where(s > 0, layer.refractory, np.maximum(rest - 1, 0))
        v = u if layer.reset_delay else _after_reset(layer, u, s)
        fired[:, t], stored[:, t], potentials[:, t], currents[:, t] = s, v, u, i
    return fired, stored, potentials, currents


def _spikes(layer: FloatLayer, u: Float, several: bool) -> npt.NDArray[np.int64]:
    once = u >= layer.threshold if layer.compare == ">=" else u > layer.threshold
    if not several:
        return once.astype(np.int64)
    # Into u no threshold fits without end that is 0 or less: it is reached once.
    times = np.floor_divide(u, layer.threshold, where=once & (layer.threshold > 0), out=np.zeros_like(u))
    return np.where(once, np.clip(times, 1, MAX_SPIKES), 0).astype(np.int64)


def _after_reset(layer: FloatLayer, u: Float, s: npt.NDArray[np.int64]) -> Float:
    if layer.reset == "subtract":
        return u - s * layer.threshold
    if layer.reset == "none":
        return u
    return np.where(s > 0, layer.reset_value if layer.reset == "value" else 0.0, u)
