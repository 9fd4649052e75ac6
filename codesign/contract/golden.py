"""Golden model: the normative integer arithmetic of a frozen network, vectorised.

Per layer, neuron j and timestep t, with ``v = 0`` before timestep 0 of every sample:

    acc = (sum over projections and sources i of w_ij * x_i) << F,  + bias_j
    u   = leak(v) + acc
    s   = u >= threshold_j                 (or u > threshold_j)
    v   = saturate(reset(u, s))            into [-2^(W-1), 2^(W-1) - 1]

With a synaptic current, i = 0 before timestep 0, and with a delayed reset, which is by subtraction:

    i = saturate_I(current_leak(i) + acc),    u = leak(v) + i
    v = saturate(u),                          the next u = leak(v) - s * threshold_j + ...

With a refractory period of R timesteps, in each of the R timesteps after a spike, while i goes on:

    u = v,    s = 0,    v stays

x_i is 1 if source i spiked at t, else 0. Layers run in order within a timestep: a projection from an earlier layer
uses its spikes of the same t; a recurrent one those of t - 1, silence before timestep 0. A pool of size s replaces
x by its sums over s x s windows. With coding 'current' the input's x is the sample's values, summed once per
sample and added at every timestep. With a membrane readout the last layer emits no spikes. ``>>`` is arithmetic.

All of it is exact. The time goes with the bytes, so that products and membranes are computed in the narrowest of int16,
int32 and int64 that weights and constants prove wide enough for every intermediate value; beyond 64 bits, which a
leak's product may need, in Python's integers.

Early exit: :mod:`codesign.contract.early_exit` says after which timestep a sample's values count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from codesign.contract.early_exit import EarlyExit, check_early_exit, exit_timesteps
from codesign.contract.network import INPUT, Convolution, FrozenLayer, FrozenNetwork, Projection, SumPool, Synapses
from codesign.contract.network.connections import wide
from codesign.contract.network.terms import plain_number
from codesign.contract.stimulus import Stimulus

# A chunk of samples is so large that the widest layer's values, at 8 bytes each, take this. It bounds the memory.
CHUNK_BYTES = 1 << 25
# Share of sources with an event below which a sparse product, which walks events, is faster than a dense one, which
# walks weights for many rows at once.
RARE = 0.01
INTEGERS: tuple[npt.DTypeLike, ...] = (np.int16, np.int32, np.int64, object)


@dataclass(frozen=True, eq=False)
class Trace:
    """What a network did on a stimulus of N samples.

    decisions : int32 (N,); class with the greatest value, the lowest on a tie.
    values : int64 (N, n_outputs); readout values.
    spikes : one bool (N, timesteps, n_out) per layer; empty unless recorded.
    membranes : one int64 (N, timesteps, n_out) per layer, v after reset and saturation; empty unless recorded.
    currents : one int64 (N, timesteps, n_out) per layer, i after saturation; (N, timesteps, 0) of a layer without;
        empty unless membranes are recorded.
    potentials : one int64 (N, timesteps, n_out) per layer, u before reset and saturation; empty unless recorded.
    exits : int64 (N,); last timestep that counts, timesteps - 1 without early exit.
    saturations : int64 (N,); neurons and timesteps in which the stored membrane or the synaptic current was clipped.
    synaptic_operations : int64 (N, n_layers); synapses and taps walked by events (by nonzero inputs for 'current').
        An event walks the taps of its pool's window if there is one; a recurrent event walks at the next timestep.
    spike_counts : int64 (N, n_layers); spikes.

    Spikes, membranes, currents and potentials are of all timesteps, also of those after an early exit, as if there
    were none; everything else is of the timesteps that count.
    """

    decisions: npt.NDArray[np.int32]
    values: npt.NDArray[np.int64]
    exits: npt.NDArray[np.int64]
    spikes: list[npt.NDArray[np.bool_]]
    membranes: list[npt.NDArray[np.int64]]
    currents: list[npt.NDArray[np.int64]]
    saturations: npt.NDArray[np.int64]
    synaptic_operations: npt.NDArray[np.int64]
    spike_counts: npt.NDArray[np.int64]
    potentials: list[npt.NDArray[np.int64]] = field(default_factory=list)

    @property
    def margins(self) -> npt.NDArray[np.int64]:
        """int64 (N,); value of the class decided for less that of the next best, 0 where there is one class alone."""
        best = np.sort(self.values, axis=1)[:, -2:]
        return best[:, -1] - best[:, 0]


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What one layer did on N samples, arrays (N, timesteps, n_out).

    spikes : bool. membranes : v as stored. potentials : u. currents : i, of a layer without (N, timesteps, 0). The last
    three have the dtype in which they were computed.
    saturations : int64 (N, timesteps); neurons whose membrane or synaptic current was clipped.
    """

    spikes: npt.NDArray[np.bool_]
    membranes: npt.NDArray[Any]
    potentials: npt.NDArray[Any]
    currents: npt.NDArray[Any]
    saturations: npt.NDArray[np.int64]


def run(
    network: FrozenNetwork,
    stimulus: Stimulus,
    *,
    membranes: bool = True,
    spikes: bool = True,
    potentials: bool = False,
    early_exit: EarlyExit = "off",
) -> Trace:
    """Run every sample of ``stimulus``, a chunk at a time; memory grows with what is recorded.

    Raises InputError if the stimulus is not valid, or it or the early exit does not fit the network.

    >>> import codesign, numpy as np
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> samples = codesign.Stimulus.from_dense(np.ones((1, 3, 2), bool))
    >>> trace = codesign.run_golden(network, samples)
    >>> trace.spikes[0][0].T.astype(int), trace.membranes[0][0].T, trace.decisions
    (array([[1, 1, 1],
           [0, 1, 0]]), array([[0, 0, 0],
           [2, 0, 2]]), array([0], dtype=int32))
    """
    stimulus.check_for(network)
    early_exit = plain_number(early_exit)
    check_early_exit(network, early_exit)
    matrices: list[list[list[Any]]] = []
    dtypes: list[npt.DTypeLike] = []
    for index, layer in enumerate(network.layers):
        input_max = network.source_max(index)
        matrices.append([projection_matrices(p, input_max if p.source == INPUT else 1) for p in layer.projections])
        dtypes.append(membrane_dtype(layer, input_max))
    n_inputs = network.n_inputs // network.timesteps if stimulus.is_current else network.n_inputs
    widest = max(n_inputs, *(layer.n_out for layer in network.layers))
    chunk = max(1, CHUNK_BYTES // (8 * widest * network.timesteps))
    shapes = [(len(stimulus), network.timesteps, layer.n_out) for layer in network.layers]
    all_spikes = [np.empty(shape, bool) for shape in shapes if spikes]
    all_membranes = [np.empty(shape, np.int64) for shape in shapes if membranes]
    all_currents = [
        np.empty(shape if layer.has_current else (*shape[:2], 0), np.int64)
        for shape, layer in zip(shapes, network.layers, strict=True)
        if membranes
    ]
    all_potentials = [np.empty(shape, np.int64) for shape in shapes if potentials]
    parts: list[Trace] = []
    for start in range(0, max(len(stimulus), 1), chunk):
        chosen = slice(start, start + chunk)
        part = _run_chunk(network, matrices, dtypes, stimulus.take(chosen), membranes, spikes, potentials, early_exit)
        recorded = part.spikes + part.membranes + part.currents + part.potentials
        for kept, found in zip(all_spikes + all_membranes + all_currents + all_potentials, recorded, strict=True):
            kept[chosen] = found
        parts.append(replace(part, spikes=[], membranes=[], currents=[], potentials=[]))
    return Trace(
        spikes=all_spikes,
        membranes=all_membranes,
        currents=all_currents,
        potentials=all_potentials,
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("decisions", "values", "exits", "saturations", "synaptic_operations", "spike_counts")
        },
    )


def narrowest(bound: int) -> npt.DTypeLike:
    """The narrowest integers that hold -bound..bound: int16, int32, int64, or Python's as ``object``."""
    return next(dtype for dtype in INTEGERS if dtype is object or bound <= np.iinfo(dtype).max)


def sum_dtype(projection: Projection, source_max: int) -> npt.DTypeLike:
    """Integers that hold every partial sum of a projection from sources of 0..source_max, in whatever order.

    Sources are not negative, so that a partial sum lies between the sums of the negative and of the positive weights.
    """
    low, high = projection.sum_range(source_max)
    window = 1 if projection.pool is None else projection.pool.size**2
    return narrowest(max(-int(low.min()), int(high.max()), source_max * window))


def membrane_dtype(layer: FrozenLayer, source_max: int = 1) -> npt.DTypeLike:
    """Integers that hold every value in :func:`lif_steps` for inputs of 0..source_max: its terms' largest, added up."""
    low, high = layer.sum_range(source_max)
    largest = max(-int(low.min()), int(high.max())) << layer.fraction_bits
    # A leak's product comes before its shift, and no other kind of leak makes what leaks larger.
    widths = {"leak": layer.membrane_width, "current_leak": layer.current_width}
    for name, leak in layer.leaks.items():
        largest += (1 << (widths[name] - 1)) * max(1, int(np.max(leak.multiplier)))
    for constants in (layer.bias, layer.threshold):
        largest += max(-int(constants.min()), int(constants.max()))
    return narrowest(largest)


def projection_matrices(projection: Projection, source_max: int) -> list[Any]:
    """Factors of a projection's weight matrix, sources first: CSR of :func:`sum_dtype`, or float64 where the weights
    are, [pool, connections] or [connections]."""
    connections = projection.connections
    if isinstance(connections, Synapses):
        weights: Any = scipy.sparse.csr_matrix(
            (wide(connections.weights), connections.targets, connections.indptr),
            shape=(connections.n_in, connections.n_out),
        )
    else:
        weights = convolution_matrix(connections)
    factors = [weights] if projection.pool is None else [pool_matrix(projection.pool), weights]
    dtype = np.float64 if weights.dtype.kind == "f" else sum_dtype(projection, source_max)
    return [factor.astype(dtype) for factor in factors]


def convolution_matrix(convolution: Convolution) -> Any:
    """CSR int64 or float64 (n_in, n_out): source (i, y, x) reaches target (o, Y, X) by tap (o, i, ky, kx) where
    y = Y * stride + ky - padding and x = X * stride + kx - padding, if such a source exists."""
    _, height, width = convolution.in_shape
    _, out_height, out_width = convolution.out_shape
    rows: list[npt.NDArray[np.int32]] = []
    columns: list[npt.NDArray[np.int32]] = []
    values: list[npt.NDArray[Any]] = []
    for ky, kx in np.ndindex(*convolution.kernel):
        taps = (convolution.ky == ky) & (convolution.kx == kx)
        y = np.arange(out_height, dtype=np.int32) * convolution.stride + ky - convolution.padding
        x = np.arange(out_width, dtype=np.int32) * convolution.stride + kx - convolution.padding
        to_y, to_x = np.flatnonzero((y >= 0) & (y < height)), np.flatnonzero((x >= 0) & (x < width))
        source = (y[to_y, None] * width + x[to_x]).ravel()
        target = (to_y[:, None] * out_width + to_x).ravel().astype(np.int32)
        rows.append((convolution.in_channel[taps, None] * np.int32(height * width) + source).ravel())
        columns.append((convolution.out_channel[taps, None] * np.int32(out_height * out_width) + target).ravel())
        values.append(np.repeat(wide(convolution.weights[taps]), source.size))
    places = (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_matrix((np.concatenate(values), places), shape=(convolution.n_in, convolution.n_out))


def pool_matrix(pool: SumPool) -> Any:
    """CSR int64 (n_in, n_out): 1 where source (c, y, x) lies in the window of target (c, y // size, x // size)."""
    _, height, width = pool.out_shape
    c, y, x = np.indices(pool.shape).reshape(3, -1)
    inside = np.flatnonzero((y // pool.size < height) & (x // pool.size < width))
    target = ((c * height + y // pool.size) * width + x // pool.size)[inside]
    return scipy.sparse.csr_matrix((np.ones(inside.size, np.int64), (inside, target)), shape=(pool.n_in, pool.n_out))


def weighted_sums(events: Any, matrices: list[Any]) -> npt.NDArray[Any]:
    """Weighted sums (rows, n_out), in the matrices' dtype, of integer or bool (rows, n_sources) events."""
    found = reduce(lambda carried, matrix: carried @ matrix, matrices, events.astype(matrices[0].dtype))
    return found.toarray() if scipy.sparse.issparse(found) else found


def fan_out(matrices: list[Any]) -> npt.NDArray[np.int64]:
    """int64 (n_sources,): synapses or taps that one event of each source walks."""
    counts = np.diff(matrices[-1].indptr).astype(np.int64)
    return counts if len(matrices) == 1 else matrices[0] @ counts


def lif_steps(
    layer: FrozenLayer,
    sums: npt.NDArray[Any],
    *,
    spiking: bool = True,
    recurrence: Callable[[npt.NDArray[np.bool_]], npt.NDArray[Any]] | None = None,
    dtype: npt.DTypeLike = np.int64,
) -> LayerTrace:
    """LIF dynamics of one layer for unshifted weighted sums of earlier layers, ``dtype`` (N, timesteps, n_out).

    ``recurrence`` gives the sums, ``dtype`` (N, n_out), that the layer's own spikes of the timestep before add.
    ``dtype`` must hold every value on the way (:func:`membrane_dtype`).
    """
    n_samples, timesteps, n_out = sums.shape
    layer = _with_constants(layer, dtype)
    spikes = np.empty((n_samples, timesteps, n_out), bool)
    stored = np.empty((n_samples, timesteps, n_out), dtype)
    potentials = np.empty((n_samples, timesteps, n_out), dtype)
    currents = np.empty((n_samples, timesteps, n_out if layer.has_current else 0), dtype)
    saturations = np.zeros((n_samples, timesteps), np.int64)
    # What leaks, and what a delayed reset has still to subtract.
    v = i = owed = np.zeros((n_samples, n_out), dtype)
    # Timesteps of rest that are left.
    rest = np.zeros((n_samples, n_out), np.int32)
    for t in range(timesteps):
        total = sums[:, t]
        if recurrence is not None and t > 0:
            total = total + recurrence(spikes[:, t - 1])
        arriving = (total << layer.fraction_bits) + layer.bias
        clipped = None
        if layer.current_leak is not None:
            exact = layer.current_leak(i) + arriving
            arriving = i = np.clip(exact, layer.current_min, layer.current_max)
            currents[:, t], clipped = i, i != exact
        u = layer.leak(v) + arriving
        if layer.reset_delay:
            u = u - owed
        if layer.refractory:
            u = np.where(rest > 0, v, u)
        if not spiking:
            s = np.zeros(u.shape, bool)
        elif layer.compare == ">=":
            s = u >= layer.threshold
        else:
            s = u > layer.threshold
        if layer.refractory:
            s &= rest == 0
            rest = np.where(s, layer.refractory, np.maximum(rest - 1, 0))
        if layer.reset_delay:
            after, owed = u, np.where(s, layer.threshold, 0)
        elif layer.reset == "subtract":
            after = np.where(s, u - layer.threshold, u)
        elif layer.reset == "zero":
            after = np.where(s, 0, u)
        elif layer.reset == "value":
            after = np.where(s, layer.reset_value, u)
        else:
            after = u
        v = np.clip(after, layer.membrane_min, layer.membrane_max)
        lost = v != after
        if clipped is not None:
            lost |= clipped
        saturations[:, t] = np.count_nonzero(lost, axis=1)
        spikes[:, t], stored[:, t], potentials[:, t] = s, v, u
    return LayerTrace(spikes, stored, potentials, currents, saturations)


def _with_constants(layer: FrozenLayer, dtype: npt.DTypeLike) -> FrozenLayer:
    """The layer with its arrays as ``dtype``, so that no operation with them widens the other operand."""
    leaks = {name: leak.each(lambda _, value: value.astype(dtype)) for name, leak in layer.leaks.items()}
    return replace(layer, bias=layer.bias.astype(dtype), threshold=layer.threshold.astype(dtype), **leaks)


def readout_values(
    network: FrozenNetwork, spikes: npt.NDArray[np.bool_], potentials: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Readout values after each timestep, int64 (N, timesteps, n_outputs), from the last layer's spikes and u."""
    if network.readout == "spike_count":
        return spikes.cumsum(axis=1, dtype=np.int64)
    if network.readout == "membrane_last":
        return potentials
    if network.readout == "membrane_sum":
        return potentials.cumsum(axis=1)
    return np.maximum.accumulate(potentials, axis=1)


def _run_chunk(
    network: FrozenNetwork,
    matrices: list[list[list[Any]]],
    dtypes: list[npt.DTypeLike],
    stimulus: Stimulus,
    record_membranes: bool,
    record_spikes: bool,
    record_potentials: bool,
    early_exit: EarlyExit,
) -> Trace:
    n_samples, timesteps = len(stimulus), network.timesteps
    count = len(network.layers)
    events: dict[int, npt.NDArray[Any]] = {INPUT: _input_events(stimulus)}
    spikes: list[npt.NDArray[np.bool_]] = []
    membranes: list[npt.NDArray[np.int64]] = []
    currents: list[npt.NDArray[np.int64]] = []
    saturations = np.zeros((n_samples, timesteps), np.int64)
    operations = np.zeros((n_samples, timesteps, count), np.int64)
    spike_counts = np.zeros((n_samples, timesteps, count), np.int64)
    fired = np.zeros((n_samples, timesteps, 0), bool)
    potentials = np.zeros((n_samples, timesteps, 0), np.int64)
    recorded_potentials: list[npt.NDArray[np.int64]] = []
    for index, layer in enumerate(network.layers):
        parts, own = [], []
        for projection, factors in zip(layer.projections, matrices[index], strict=True):
            if projection.source == index:
                own.append(factors)
                continue
            sources = events[projection.source]
            # With coding 'current' one sum serves every timestep.
            rows = 1 if projection.source == INPUT and stimulus.is_current else timesteps
            found = weighted_sums(sources, factors).astype(dtypes[index], order="C")
            found = found.reshape(n_samples, rows, layer.n_out)
            parts.append(np.broadcast_to(found, (n_samples, timesteps, layer.n_out)))
            operations[:, :rows, index] += ((sources != 0) @ fan_out(factors)).reshape(n_samples, rows)

        result = lif_steps(
            layer,
            reduce(np.add, parts),
            spiking=not (index == count - 1 and network.membrane_readout),
            recurrence=partial(_recurrent_sums, own, dtypes[index]) if own else None,
            dtype=dtypes[index],
        )
        fired, potentials = result.spikes, result.potentials
        for factors in own:
            operations[:, 1:, index] += fired[:, :-1] @ fan_out(factors)
        events[index] = _as_events(fired.reshape(n_samples * timesteps, layer.n_out))
        saturations += result.saturations
        spike_counts[:, :, index] = fired.sum(axis=2)
        if record_spikes:
            spikes.append(fired)
        if record_membranes:
            membranes.append(result.membranes)
            currents.append(result.currents)
        if record_potentials:
            recorded_potentials.append(potentials)
    running = readout_values(network, fired, potentials.astype(np.int64))
    exits = exit_timesteps(running, early_exit)
    values = running[np.arange(n_samples), exits]
    counts = np.arange(timesteps) <= exits[:, None]
    return Trace(
        decisions=np.argmax(values, axis=1).astype(np.int32),
        values=values,
        exits=exits,
        spikes=spikes,
        membranes=membranes,
        currents=currents,
        potentials=recorded_potentials,
        saturations=(saturations * counts).sum(axis=1),
        synaptic_operations=(operations * counts[:, :, None]).sum(axis=1),
        spike_counts=(spike_counts * counts[:, :, None]).sum(axis=1),
    )


def _recurrent_sums(own: list[list[Any]], dtype: npt.DTypeLike, before: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """``dtype`` (N, n_out): what the layer's spikes of the timestep before, bool (N, n_out), add to its sums."""
    return reduce(np.add, [weighted_sums(before, factors).astype(dtype, order="C") for factors in own])


def operations_at_once(network: FrozenNetwork, stimulus: Stimulus, trace: Trace) -> npt.NDArray[np.int64]:
    """int64 (N, n_layers): synapses and taps that a layer walks if it walks those of each source that fires in a sample
    once, whatever the number of its spikes. ``trace`` : of these samples, with spikes."""
    found = np.zeros((len(stimulus), len(network.layers)), np.int64)
    inputs = stimulus.dense().any(axis=1) if stimulus.values is None else stimulus.values != 0
    for index, layer in enumerate(network.layers):
        for projection in layer.projections:
            if projection.source == INPUT:
                fired = inputs
            else:
                spikes = trace.spikes[projection.source]
                # Its own events of the last timestep reach nobody.
                fired = (spikes[:, :-1] if projection.source == index else spikes).any(axis=1)
            found[:, index] += fired @ fan_out(projection_matrices(projection, network.source_max(index)))
    return found


def _input_events(stimulus: Stimulus) -> Any:
    """Values uint8 (n_samples, n_inputs) of coding 'current', else events (n_samples * timesteps, n_inputs)."""
    if stimulus.values is not None:
        return _as_events(stimulus.values)
    assert stimulus.offsets is not None and stimulus.sources is not None
    return _as_events(
        scipy.sparse.csr_matrix(
            (np.ones(stimulus.sources.size, bool), stimulus.sources, stimulus.offsets),
            shape=(len(stimulus) * stimulus.timesteps, stimulus.n_inputs),
        )
    )


def _as_events(found: Any) -> Any:
    """The same (rows, n_sources) array: CSR if events are rare, else dense. No result depends on it."""
    count = found.nnz if scipy.sparse.issparse(found) else np.count_nonzero(found)
    if count < RARE * found.shape[0] * found.shape[1]:
        return scipy.sparse.csr_matrix(found)
    return found.toarray() if scipy.sparse.issparse(found) else found
