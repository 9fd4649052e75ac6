"""The fraction of weights to rewire that their PQ index allows."""

from __future__ import annotations

from codesign.basics.sparsity import prunable_fraction
from codesign.config import RewiringConfig


def rewiring_fraction(count: int, index: float, config: RewiringConfig) -> float:
    """Fraction of ``count`` active weights to rewire: min(gamma (1 - r / d), beta), 0 for no weights."""
    return prunable_fraction(
        count, index, p=config.p, q=config.q, eta=config.rules.eta, gamma=config.gamma, beta=config.beta
    )
