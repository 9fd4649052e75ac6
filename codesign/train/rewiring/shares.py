"""Where to be sparse: connections shared out among units by how many of its weights each is worth keeping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codesign.basics.sparsity import apportion, keep_bound
from codesign.config import RewiringConfig
from codesign.train.rewiring.ratios import Measured
from codesign.train.rewiring.selection import Int, Layout
from codesign.train.rewiring.start import layer_counts


class Shares:
    """Share 'index': of what several units have together, each gets a part in proportion to its bound r.

    r is the number of its d weights that a unit is worth keeping (:func:`keep_bound`), so that units of unequal weights
    lose connections to those of equal ones. No unit comes below ``share_floor`` of the part that ``distribution`` gives
    its layer at the target density, unless it has fewer.
    """

    def __init__(self, config: RewiringConfig, layout: Layout) -> None:
        self._options = config.p, config.q, config.rules.eta
        counts = layer_counts(layout.shapes, config.target_density, config.distribution, config.min_fan_in)
        density = np.array(counts) / np.array(layout.sizes)
        self._sizes = np.array([part.stop - part.start for part in layout.units])
        layers = [layout.layer_of(part) for part in layout.units]
        self._floor = np.floor(config.share_floor * self._sizes * density[layers]).astype(np.int64)

    def counts(self, units: Sequence[Measured], chosen: Int, total: int, least: Int, most: Int) -> Int:
        """Connections of each chosen unit, ``total`` together, each within [least, most]."""
        there = np.array([units[unit][0] for unit in chosen])
        worth = np.array([keep_bound(units[unit][0], units[unit][1], *self._options) for unit in chosen], np.float64)
        wanted = worth * (total / max(1.0, worth.sum()))
        floor = self._least(chosen, least, there)
        # Floors that the total does not hold give way.
        floor = floor if floor.sum() <= total else least
        most = np.maximum(floor, most)
        return np.array(apportion(np.clip(wanted, floor, most), total, floor, most), np.int64)

    def exchange(self, units: Sequence[Measured], chosen: Int, count: Int, prunable: Int) -> tuple[Int, Int]:
        """Connections that each chosen unit loses and gains in a rewiring of ``count``, no more than ``prunable``."""
        there = np.array([units[unit][0] for unit in chosen])
        least = there - prunable
        # Positions just pruned are not regrown: a unit that keeps its floor has to keep room for it.
        rewired = np.minimum(count, self._sizes[chosen] - self._least(chosen, least, there))
        after = self.counts(units, chosen, int(there.sum()), least, self._sizes[chosen] - rewired)
        gained = np.maximum(0, after - (there - rewired))
        return there - after + gained, gained

    def _least(self, chosen: Int, least: Int, there: Int) -> Int:
        return np.maximum(least, np.minimum(self._floor[chosen], there))
