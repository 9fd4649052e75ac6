"""Masks in balance: every source has as many connections to each of P banks of neurons, give or take one.

The bank of a neuron is its index modulo P. What may go or come next then depends on what went before: a bank that has
fewer of a source's connections than another one loses none of them, and one that has more gains none. An order that
respects this, and follows the keys as far as it may, makes any number of its first entries a valid change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Values = npt.NDArray[np.floating]

# Smaller matrices stay free: a bank of less than this many neurons would hardly leave a choice.
LEAST_PER_BANK = 2


def can_balance(shape: Sequence[int], lanes: int | None) -> bool:
    """True for matrices, neurons by sources, of neurons enough for as many banks."""
    return lanes is not None and len(shape) == 2 and shape[0] >= LEAST_PER_BANK * lanes


def bank_counts(mask: Bool, lanes: int) -> Int:
    """int64 (sources, lanes): connections of each source in each bank of a bool (neurons, sources) mask."""
    return np.stack([mask[bank::lanes].sum(axis=0, dtype=np.int64) for bank in range(lanes)], axis=1)


def balanced_order(keys: Values, candidates: Bool, mask: Bool, lanes: int, *, growing: bool) -> Int:
    """Candidates in the order in which they leave (or join) the mask, smallest keys first as far as balance allows.

    keys, candidates, mask : (neurons, sources); candidates are active ones, or with ``growing`` inactive ones.

    Returns flat positions. The mask less (or with) any number of the first ones is in balance if ``mask`` is; those
    are left out that never can follow because another bank of the same source has no candidate to go before.
    """
    counts = bank_counts(mask, lanes)
    neuron, source = np.nonzero(candidates)
    key = keys[neuron, source]
    bank = neuron % lanes
    cell = source * lanes + bank
    order = np.lexsort((neuron, key, cell))
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size) - np.searchsorted(cell[order], cell[order])
    room = np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    # Of one source all entries of a turn come before those of the next: it is the level that the bank stands at.
    if growing:
        turn = counts[source, bank] + rank
        valid = turn <= (counts + room).min(axis=1)[source]
    else:
        turn = rank - counts[source, bank]
        valid = turn <= (room - counts).min(axis=1)[source]
    order = np.lexsort((neuron, key, turn, source))
    order = order[valid[order]]
    # An entry waits for the largest key among the turns before its own.
    place = np.unique(key[order], return_inverse=True)[1] + source[order] * (order.size + 1)
    waits = np.maximum.accumulate(place) - source[order] * (order.size + 1)
    order = order[np.argsort(waits, kind="stable")]
    return neuron[order] * mask.shape[1] + source[order]


def strongest_first(magnitudes: Values | None, shape: Sequence[int], generator: np.random.Generator) -> Values:
    """Keys (neurons, weights of each) of which the smallest are to be chosen: of the greatest magnitudes, equal ones in
    a random order, or all in a random order where there are none."""
    keys = generator.random(tuple(shape))
    if magnitudes is not None:
        order = np.lexsort((keys.ravel(), -magnitudes.ravel()))
        keys.ravel()[order] = np.arange(keys.size)
    return keys


def balanced_mask(
    shape: Sequence[int],
    count: int,
    min_fan_in: int,
    lanes: int,
    generator: np.random.Generator,
    magnitudes: Values | None = None,
) -> Bool:
    """As :func:`codesign.train.rewiring.start.first_mask`, of a matrix and in balance over ``lanes`` banks."""
    neurons, sources = shape
    mask = np.zeros((neurons, sources), bool)
    # One neuron of each bank at a time: as many of the first connections in all banks.
    for first in range(0, neurons, lanes):
        chosen = generator.permutation(sources)
        if magnitudes is not None:
            together = magnitudes[first : first + lanes].sum(axis=0)
            chosen = chosen[np.argsort(-together[chosen], kind="stable")]
        mask[first : first + lanes, chosen[: min(min_fan_in, sources)]] = True
    keys = strongest_first(magnitudes, mask.shape, generator)
    order = balanced_order(keys, ~mask, mask, lanes, growing=True)
    mask.ravel()[order[: count - int(mask.sum())]] = True
    return mask
