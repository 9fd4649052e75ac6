"""How many weights are worth keeping, by the PQ index of their magnitudes, and how numbers are shared out.

Diao et al., "Pruning deep neural networks from a sparsity perspective", ICLR 2023.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError


def pq_index(weights: npt.ArrayLike, p: float = 0.5, q: float = 1.0) -> float:
    """PQ index of the weights, 0 (all magnitudes equal) .. 1 - d^(1/q - 1/p) (one nonzero weight).

    I = 1 - mean(|w|^p)^(1/p) / mean(|w|^q)^(1/q). Zero for no weights and for zeros alone. Raises InputError for
    weights that are NaN or infinite.
    """
    magnitudes = np.abs(np.asarray(weights, np.float64)).ravel()
    largest = magnitudes.max(initial=0.0)
    if largest == 0:
        return 0.0
    if not math.isfinite(largest):
        raise InputError("PQ index: weights are NaN or infinite")
    magnitudes = magnitudes / largest
    ratio = np.mean(magnitudes**p) ** (1 / p) / np.mean(magnitudes**q) ** (1 / q)
    return max(0.0, float(1.0 - ratio))


def keep_bound(count: int, index: float, p: float = 0.5, q: float = 1.0, eta: float = 0.001) -> int:
    """Least number of ``count`` weights worth keeping: ceil(d (1 + eta)^(-q/(q-p)) (1 - I)^(p q/(q-p)))."""
    return math.ceil(count * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p)))


def prunable_fraction(count: int, index: float, *, p: float, q: float, eta: float, gamma: float, beta: float) -> float:
    """Fraction of ``count`` weights that may go at once: min(gamma (1 - r / d), beta), 0 for no weights."""
    if count == 0:
        return 0.0
    return max(0.0, min(gamma * (1 - keep_bound(count, index, p, q, eta) / count), beta))


def apportion(
    wanted: npt.NDArray[np.floating], total: int, least: npt.NDArray[np.int64], most: npt.NDArray[np.int64]
) -> list[int]:
    """Integers near ``wanted`` within [least, most] whose sum is ``total``: largest remainders first.

    Raises InputError for a total that these bounds do not allow.
    """
    counts = np.clip(np.floor(wanted).astype(np.int64), least, most)
    remainder = wanted - counts
    while (gap := total - int(counts.sum())) != 0:
        sign = 1 if gap > 0 else -1
        room = most - counts if sign > 0 else counts - least
        open_ = np.flatnonzero(room > 0)
        order = open_[np.argsort(-sign * remainder[open_], kind="stable")][: abs(gap)]
        if not order.size:
            raise InputError(f"{total} cannot be shared out within bounds of {least.sum()} and {most.sum()} together")
        step = np.minimum(room[order], max(1, abs(gap) // order.size))
        counts[order] += sign * step
        remainder[order] -= sign * step
    return [int(count) for count in counts]
