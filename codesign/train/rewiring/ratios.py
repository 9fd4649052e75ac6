"""How many of its connections each unit changes: by their PQ index, or by a ratio that reads no weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from codesign.basics.sparsity import pq_index, prunable_fraction
from codesign.config import RewiringConfig
from codesign.train.rewiring.selection import Bool, Int, Layout, Values

# First fraction of ratio 'constant' (Mocanu et al., 2018) and 'cosine' (Evci et al., 2020) where density stays.
DEFAULT_FRACTION = 0.3

# (d, I, c) of a unit: active weights, their PQ index, the fraction to change.
Measured = tuple[int, float, float]


def rewiring_fraction(count: int, index: float, config: RewiringConfig) -> float:
    """Fraction of ``count`` active weights to rewire: min(gamma (1 - r / d), beta), 0 for no weights."""
    return prunable_fraction(
        count, index, p=config.p, q=config.q, eta=config.rules.eta, gamma=config.gamma, beta=config.beta
    )


class Ratios:
    """The fraction of its connections that each unit changes, and what is left over of whole numbers.

    Parameters
    ----------
    events : changes by the epoch after which they come (:func:`codesign.train.rewiring.schedule.change_epochs`).
    steps_per_epoch : calls of ``PQRewirer.step`` in one.
    target : connections of all units together where density ends.

    ``carry`` : of each kind of change the fractions of connections that each unit has not changed yet.
    """

    def __init__(
        self, config: RewiringConfig, layout: Layout, events: Mapping[int, str], steps_per_epoch: int, target: int
    ) -> None:
        self._config, self._rules, self._layout = config, config.rules, layout
        self._events, self._steps_per_epoch, self._target = events, steps_per_epoch, target
        self.carry = {kind: np.zeros(len(layout.units)) for kind in ("rewire", "fall")}

    def measured(self, magnitudes: Values, active: Bool, step: int) -> list[Measured]:
        """(d, I, c) of each unit at a step, over its active weights, zeros included."""
        units = []
        for part in self._layout.units:
            weights = magnitudes[part][active[part]]
            index = pq_index(weights, self._config.p, self._config.q)
            units.append((weights.size, index, self._fraction(weights.size, index, step)))
        return units

    def _fraction(self, count: int, index: float, step: int) -> float:
        """c of a unit by the chosen ratio, at the next change; 0 where connections do not change."""
        if not self._rules.changes:
            return 0.0
        if self._rules.ratio == "pq":
            return rewiring_fraction(count, index, self._config)
        falls = sum(kind == "fall" for kind in self._events.values())
        if self._config.fraction is not None:
            first = self._config.fraction
        elif self._rules.falls and self._rules.ratio == "constant" and falls:
            # The one ratio that takes the start to the target in the falls there are.
            first = 1 - (self._target / round(self._config.start_density * self._layout.size)) ** (1 / falls)
        else:
            first = DEFAULT_FRACTION
        if self._rules.ratio == "constant":
            return first
        done = sum(epoch * self._steps_per_epoch < step for epoch in self._events)
        return first / 2 * (1 + math.cos(math.pi * min(1.0, done / max(1, len(self._events)))))

    def counts(self, kind: str, units: Sequence[Measured]) -> Int:
        """floor(c d) of each unit; the fraction lost is carried to the unit's next change of this kind."""
        exact = np.array([c * d for d, _, c in units]) + self.carry[kind]
        whole = np.floor(exact)
        self.carry[kind] = exact - whole
        return whole.astype(np.int64)

    def by_layer(self, units: Sequence[Measured]) -> list[tuple[float, float]]:
        """(I, c) of each tensor, means over its units weighted by their active weights."""
        if self._config.scope == "global":
            return [units[0][1:]] * len(self._layout.shapes)
        layers = np.array([self._layout.layer_of(part) for part in self._layout.units])
        table = np.array(units, np.float64)
        found = []
        for layer in range(len(self._layout.shapes)):
            d, index, c = table[layers == layer].T
            total = max(1.0, float(d.sum()))
            found.append((float(d @ index) / total, float(d @ c) / total))
        return found


def mean_index(units: Sequence[Measured]) -> float:
    """PQ index of all units, weighted by their active weights."""
    return sum(d * index for d, index, _ in units) / max(1, sum(d for d, _, _ in units))
