"""How near the frozen network is to the float one, on samples: spikes of each layer, and decisions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.contract import floating, golden
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus

# Frameworks differ by a timestep or two in when a layer sees the one before.
LAGS = range(-3, 4)
BATCH = 32


@dataclass(frozen=True)
class Agreement:
    """Spikes of one layer, of the float network and of the frozen one, on all samples.

    jaccard : spikes in both over spikes in either, 1 if there are none. f1 : 2 x both over the sum of the two.
    lag : timesteps by which the frozen network's spikes are best delayed against the float network's, 0 on a tie; the
    two measures are at that lag, ``jaccard_now`` at lag 0. "Equal entries" says little where most are silent.
    """

    layer: str
    float_spikes: int
    frozen_spikes: int
    jaccard: float
    f1: float
    lag: int
    jaccard_now: float


@dataclass(frozen=True)
class Measured:
    """What both networks did on N samples; accuracies are None without labels.

    same_decisions : fraction of the samples, 0..1. saturations : of stored states, in all samples.
    clamped : spikes that neurons which may fire several times in a timestep fired beyond the first, and the spikes of
        all layers then; None where they may not.
    accuracy_several : of the float network with several spikes.
    """

    samples: int
    layers: tuple[Agreement, ...]
    same_decisions: float
    accuracy_float: float | None
    accuracy_frozen: float | None
    saturations: int
    clamped: tuple[int, int] | None = None
    accuracy_several: float | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)


def measure(network: FloatNetwork, frozen: FrozenNetwork, stimulus: Stimulus, *, several: bool = False) -> Measured:
    """Run both networks on ``stimulus``, a batch at a time.

    ``frozen`` may lack neurons of ``network`` (dead code); ``trained_index`` says which are left. ``several``: the
    source's neurons fire several times in a timestep, and what is lost by one is counted.
    """
    count = len(network.layers)
    # Rows: both, either, both lagged by each of LAGS; columns: layers.
    found = np.zeros((count, len(LAGS), 3), np.int64)
    totals = np.zeros((count, 2), np.int64)
    decisions: list[npt.NDArray[np.int32]] = []
    frozen_decisions: list[npt.NDArray[np.int32]] = []
    several_decisions: list[npt.NDArray[np.int32]] = []
    saturations = beyond = all_spikes = 0
    for start in range(0, len(stimulus), BATCH):
        part = stimulus.take(slice(start, start + BATCH))
        exact = floating.run(network, part, membranes=False)
        whole = golden.run(frozen, part, membranes=False)
        decisions.append(exact.decisions)
        frozen_decisions.append(whole.decisions)
        saturations += int(whole.saturations.sum())
        if several:
            more = floating.run(network, part, membranes=False, several=True)
            several_decisions.append(more.decisions)
            all_spikes += sum(int(spikes.sum()) for spikes in more.spikes)
            beyond += sum(int(np.maximum(spikes - 1, 0).sum()) for spikes in more.spikes)
        for index, layer in enumerate(frozen.layers):
            ours = exact.spikes[index] > 0
            totals[index] += int(ours.sum()), int(whole.spikes[index].sum())
            found[index] += overlaps(ours, whole.spikes[index], layer.trained_index)
    labels = stimulus.labels if np.any(stimulus.labels >= 0) else None

    def accuracy(chosen: list[npt.NDArray[np.int32]]) -> float | None:
        known = None if labels is None or not chosen else labels >= 0
        return None if known is None or labels is None else float(np.mean((np.concatenate(chosen) == labels)[known]))

    return Measured(
        len(stimulus),
        tuple(
            _agreement(network.layers[index].name or str(index), totals[index], found[index]) for index in range(count)
        ),
        float(np.mean(np.concatenate(decisions) == np.concatenate(frozen_decisions))),
        accuracy(decisions),
        accuracy(frozen_decisions),
        saturations,
        (beyond, all_spikes) if several else None,
        accuracy(several_decisions),
    )


def compared(name: str, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> Agreement:
    """Agreement of two layers' spikes, each (N, timesteps, n)."""
    ours, theirs = ours > 0, theirs > 0
    totals = np.array([np.count_nonzero(ours), np.count_nonzero(theirs)])
    return _agreement(name, totals, overlaps(ours, theirs))


def overlaps(
    ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_], kept: npt.NDArray[np.integer] | slice = slice(None)
) -> npt.NDArray[np.int64]:
    """int64 (LAGS, 3): spikes in both, ours and theirs that have a partner's timestep, with theirs delayed by each lag.

    ours : bool (N, timesteps, m). theirs : bool (N, timesteps, n). kept : which of our m neurons their n are; those
    that they lack count among ours.
    """
    timesteps = ours.shape[1]
    rows = np.zeros((len(LAGS), 3), np.int64)
    for row, lag in zip(rows, LAGS, strict=True):
        if abs(lag) >= timesteps:
            continue
        a = ours[:, max(0, -lag) : timesteps - max(0, lag)]
        b = theirs[:, max(0, lag) : timesteps - max(0, -lag)]
        row[:] = np.count_nonzero(a[..., kept] & b), np.count_nonzero(a), np.count_nonzero(b)
    return rows


def _agreement(name: str, totals: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> Agreement:
    both, ours, theirs = found.T.astype(float)
    either = ours + theirs - both
    # A lag at which nothing is left to compare is none.
    jaccard = np.divide(both, either, out=np.where(ours + theirs > 0, 0.0, 1.0), where=either > 0)
    f1 = np.divide(2 * both, ours + theirs, out=np.ones_like(both), where=ours + theirs > 0)
    now = list(LAGS).index(0)
    jaccard[(ours + theirs == 0) & (np.arange(len(LAGS)) != now)] = -1
    order = np.lexsort((np.abs(np.array(LAGS)), -jaccard))
    best = int(order[0])
    return Agreement(
        name, int(totals[0]), int(totals[1]), float(jaccard[best]), float(f1[best]), LAGS[best], float(jaccard[now])
    )
