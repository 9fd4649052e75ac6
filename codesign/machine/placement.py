"""Which neuron sits on which lane, so that no lane works while the others wait.

Lanes are decoupled within an accumulation (a timestep, or a sample of coding 'current') and meet at its end. Its time
is therefore the load of the fullest lane, and what counts is the sum of these maxima over real accumulations: mean
rates say nothing of them. A short queue lets no lane run far ahead, so that each stretch of events is also to be even.
Both are minimised on calibration data, by exchanges of two neurons that lower the sum. Lanes in lock step meet after
every row: then it is the sum over events of the row's maximum. Deterministic: whole numbers alone, ties by index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

Int = npt.NDArray[np.int64]
Loads = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Walks:
    """What a layer walks when a source sends an event, synapses or taps in CSR by source.

    n_in, n_out : sources, and what is placed: neurons, or channels. indptr : int64 (n_in + 1,). targets : int32 (n,);
    a target may occur several times. trained_index : int64 (n_out,).
    """

    n_in: int
    n_out: int
    indptr: Int
    targets: npt.NDArray[np.int32]
    trained_index: Int

    @property
    def sources(self) -> Int:
        """int64 (n,): the source of each synapse."""
        return np.repeat(np.arange(self.n_in, dtype=np.int64), np.diff(self.indptr))


# Events over which a queue of the default depth levels the lanes; between 24 and 64 makes no difference.
WINDOW = 48
MIN_ROWS, MAX_STEPS = 32, 512
# Rates are compared in steps of this fraction of the largest.
RATE_STEPS = 255
# Neurons x neurons x rows that one placement may look at: a few seconds.
WORK = 1 << 30


def place(
    layer: Walks, lanes: int, events: npt.NDArray[np.generic], order: Int, *, lockstep: bool = False
) -> tuple[Int, float]:
    """Lane of each neuron, ``ceil(n_out / lanes)`` on a lane at most, and the balance reached on ``events``.

    Two first placements are compared: neurons by descending mean load to the least loaded lane, and the banks of a
    mask that was trained in balance (trained index modulo lanes). The better one is improved by exchanges.

    events : int64 (n_steps, n_in); events that each source sends in single accumulations.
    order : int64 (n_in,); place of each source in the order in which events arrive.
    lockstep : whether lanes meet after every row.

    Returns int64 (n_out,), and the mean over the greatest load of the lanes, summed over steps; 1 is perfect.
    """
    n_slots = -(-layer.n_out // lanes)
    if lockstep:
        whole = cost = _row_loads(layer, events, _most_rows(layer))
    else:
        events = _chosen(layer, events)
        stretches = windows(events, order)
        stretches = stretches[_spread(stretches.shape[0], _most_rows(layer) - len(events))]
        whole = _loads(layer, events)
        cost = np.concatenate([whole, _loads(layer, stretches)], axis=1)
    mean = whole.sum(axis=1, dtype=np.int64)
    starts = [_greedy(mean, lanes, n_slots), _banks(layer.trained_index % lanes, mean, lanes, n_slots)]
    lane = min(starts, key=lambda start: _peaks(cost, start, lanes))
    if lanes > 1:
        lane = _exchange(cost, lane, lanes, n_slots)
    return lane, _balance(whole, lane, lanes)


def balance_of(
    layer: Walks, lane: Int, lanes: int, events: npt.NDArray[np.generic], *, lockstep: bool = False
) -> float:
    """Balance of a placement on ``events``, as of :func:`place`."""
    if lockstep:
        return _balance(_row_loads(layer, events, _most_rows(layer)), lane, lanes)
    return _balance(_loads(layer, _chosen(layer, events)), lane, lanes)


def windows(events: npt.NDArray[np.generic], order: Int) -> Any:
    """Sparse (n_windows, n_in): the events of every step cut into stretches of about ``WINDOW``, as they arrive.

    A step that is one stretch is left out, since it is its own window.
    """
    arrival = np.argsort(order, kind="stable")
    ordered: Any = scipy.sparse.csr_matrix(events[:, arrival])
    before = np.cumsum(ordered.data) - ordered.data
    steps = np.repeat(np.arange(ordered.shape[0]), np.diff(ordered.indptr))
    totals = np.bincount(steps, weights=ordered.data, minlength=ordered.shape[0])
    first = np.cumsum(totals) - totals
    # Rates are no counts: a step of theirs has as many stretches as it has sources that send anything.
    counts = np.diff(ordered.indptr)
    per_step = np.maximum(1, -(-counts // WINDOW))
    within = (before - first[steps]) * per_step[steps] // np.maximum(1, totals)[steps]
    window = (np.cumsum(per_step) - per_step)[steps] + within.astype(np.int64)
    kept = per_step[steps] > 1
    _, rows = np.unique(window[kept], return_inverse=True)
    shape = (int(rows.max(initial=-1)) + 1, events.shape[1])
    return scipy.sparse.csr_matrix((ordered.data[kept], (rows, arrival[ordered.indices[kept]])), shape=shape)


def whole_events(events: npt.ArrayLike | None, n_in: int) -> Int:
    """int64 (n_steps, n_in) of what a placement is given: counts as they are, mean rates as one step."""
    if events is None:
        return np.ones((1, n_in), np.int64)
    found = np.asarray(events)
    if found.ndim == 2:
        return found.astype(np.int64)
    largest = found.max(initial=0)
    return np.rint(found * (RATE_STEPS / largest if largest else 1)).astype(np.int64)[None]


def _chosen(layer: Walks, events: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """As many steps as the work allows beside their windows."""
    return events[_spread(len(events), min(MAX_STEPS, _most_rows(layer) // 2))]


def _most_rows(layer: Walks) -> int:
    """Steps and windows for which all pairs of neurons can be looked at several times."""
    return max(MIN_ROWS, WORK // (4 * layer.n_out**2))


def _spread(count: int, most: int) -> Int:
    """At most ``most`` of ``count`` positions, evenly spread."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def _loads(layer: Walks, events: Any) -> Loads:
    """int32 (n_out, n_steps): synapses onto each neuron that each step's events walk."""
    synapses = scipy.sparse.csr_matrix(
        (np.ones(layer.targets.size, np.int64), layer.targets, layer.indptr), shape=(layer.n_in, layer.n_out)
    )
    found: Any = scipy.sparse.csr_matrix(events).astype(np.int64) @ synapses
    return np.ascontiguousarray(found.toarray().T.astype(np.int32))


def _row_loads(layer: Walks, events: npt.NDArray[np.generic], most: int) -> Loads:
    """int32 (n_out, n_rows): of the sources that send most events, their number if the source reaches the neuron."""
    sent = events.sum(axis=0, dtype=np.int64)
    sources = np.sort(np.argsort(-sent, kind="stable")[:most])
    reached = np.zeros((layer.n_in, layer.n_out), np.int32)
    reached[layer.sources, layer.targets] = 1
    return np.ascontiguousarray((reached * sent[:, None])[sources].T.astype(np.int32))


def _balance(loads: Loads, lane: Int, lanes: int) -> float:
    peaks = _peaks(loads, lane, lanes)
    return float(loads.sum(dtype=np.int64) / (lanes * peaks)) if peaks else 1.0


def _peaks(loads: Loads, lane: Int, lanes: int) -> int:
    """Sum over steps of the fullest lane's load."""
    totals = np.zeros((lanes, loads.shape[1]), np.int64)
    np.add.at(totals, lane, loads)
    return int(totals.max(axis=0).sum())


def _greedy(load: Int, lanes: int, n_slots: int) -> Int:
    """Neurons by descending load, each to the least loaded lane with a free slot."""
    return _fill(np.full(load.size, -1, np.int64), load, lanes, n_slots)


def _banks(bank: Int, load: Int, lanes: int, n_slots: int) -> Int:
    """Every neuron on the lane of its bank; of an overfull lane the least loaded go where there is room."""
    lane = np.full(bank.size, -1, np.int64)
    order = np.lexsort((-load, bank))
    rank = np.arange(bank.size) - np.searchsorted(bank[order], bank[order])
    kept = order[rank < n_slots]
    lane[kept] = bank[kept]
    return _fill(lane, load, lanes, n_slots)


def _fill(lane: Int, load: Int, lanes: int, n_slots: int) -> Int:
    """Neurons without a lane (-1) by descending load to the least loaded lane with a free slot."""
    placed = lane >= 0
    used = np.bincount(lane[placed], minlength=lanes)
    total = np.bincount(lane[placed], weights=load[placed], minlength=lanes).astype(np.int64)
    missing = np.flatnonzero(~placed)
    for neuron in missing[np.lexsort((missing, -load[missing]))].tolist():
        free = np.flatnonzero(used < n_slots)
        chosen = free[np.argmin(total[free])]
        lane[neuron] = chosen
        used[chosen] += 1
        total[chosen] += load[neuron]
    return lane


def _exchange(loads: Loads, lane: Int, lanes: int, n_slots: int) -> Int:
    """Each neuron in turn changes places with the one (or the free slot) that lowers the sum of peaks most."""
    n_out, n_rows = loads.shape
    # Free slots are neurons without load, so that moving is exchanging too.
    seat = np.full((lanes, n_slots), -1, np.int64)
    for number in range(lanes):
        members = np.flatnonzero(lane == number)
        seat[number, : members.size] = members
    part = np.where(seat[:, :, None] >= 0, loads[seat], np.int32(0))
    total = part.sum(axis=1, dtype=np.int32)
    best = int(total.max(axis=0).sum(dtype=np.int64))
    trial, other = np.empty_like(part), np.empty_like(part)
    sweeps = max(1, WORK // max(1, n_out**2 * n_rows))
    for _ in range(sweeps):
        before = best
        for p in range(lanes):
            rest = _rest(total, p)
            for s in range(n_slots):
                # Neuron (p, s) for each (q, r): q then has total + mine - theirs, and p the opposite.
                mine = part[p, s]
                np.subtract((total + mine)[:, None], part, out=trial)
                np.add(part, total[p] - mine, out=other)
                np.maximum(trial, other, out=trial)
                np.maximum(trial, rest[:, None], out=trial)
                peaks = trial.sum(axis=2, dtype=np.int64)
                peaks[p] = best
                q, r = divmod(int(peaks.argmin()), n_slots)
                if peaks[q, r] < best:
                    best = int(peaks[q, r])
                    moved = mine - part[q, r]
                    total[p] -= moved
                    total[q] += moved
                    part[q, r] += moved
                    part[p, s] -= moved
                    seat[p, s], seat[q, r] = seat[q, r], seat[p, s]
                    rest = _rest(total, p)
        if best == before:
            break
    found = np.empty(n_out, np.int64)
    held = seat >= 0
    found[seat[held]] = np.nonzero(held)[0]
    return found


def _rest(total: Loads, p: int) -> Loads:
    """int32 (lanes, n_rows): for each lane q the fullest of the lanes beside p and q; 0 if there is none."""
    others = total.copy()
    others[p] = 0
    fullest = others.argmax(axis=0)
    columns = np.arange(total.shape[1])
    first = others[fullest, columns]
    others[fullest, columns] = 0
    return np.where(np.arange(len(total))[:, None] == fullest, others.max(axis=0), first)
