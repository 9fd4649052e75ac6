"""PQ index of weights, and the fraction of them that it allows to rewire."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from codesign.config import RewiringConfig


def pq_index(weights: npt.ArrayLike, p: float = 0.5, q: float = 1.0) -> float:
    """PQ index of the weights, 0 (all magnitudes equal) .. 1 - d^(1/q - 1/p) (one nonzero weight).

    I = 1 - mean(|w|^p)^(1/p) / mean(|w|^q)^(1/q). Zero for no weights and for zeros alone.
    """
    magnitudes = np.abs(np.asarray(weights, np.float64)).ravel()
    largest = magnitudes.max(initial=0.0)
    if largest == 0:
        return 0.0
    magnitudes = magnitudes / largest
    ratio = np.mean(magnitudes**p) ** (1 / p) / np.mean(magnitudes**q) ** (1 / q)
    return max(0.0, float(1.0 - ratio))


def keep_bound(count: int, index: float, p: float = 0.5, q: float = 1.0, eta: float = 0.001) -> int:
    """Least number of ``count`` weights worth keeping: ceil(d (1 + eta)^(-q/(q-p)) (1 - I)^(p q/(q-p)))."""
    return math.ceil(count * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p)))


def rewiring_fraction(count: int, index: float, config: RewiringConfig) -> float:
    """Fraction of ``count`` active weights to rewire: min(gamma (1 - r / d), beta), 0 for no weights."""
    if count == 0:
        return 0.0
    bound = keep_bound(count, index, config.p, config.q, config.rules.eta)
    return max(0.0, min(config.gamma * (1 - bound / count), config.beta))
