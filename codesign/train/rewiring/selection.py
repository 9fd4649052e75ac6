"""Which of many weights go, and which come: arithmetic on flat arrays, without tensors, masks or a schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from codesign.train.rewiring.balance import Bool, Int, Values, balanced_order, can_balance


class Layout:
    """Weights of several tensors, laid out one after another, row by row; a row holds the weights of one neuron.

    shapes : of the tensors; the first axis counts neurons, the others are flattened.
    scope : what a unit is, the weights that compete with each other: 'layer', 'neuron' or 'global'.

    ``rows`` are (neurons, weights of each) of each tensor, ``bounds`` the first position of each tensor and the one
    after its last, ``units`` the slices of the units.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], scope: str) -> None:
        self.shapes = list(shapes)
        self.rows = [(shape[0], math.prod(shape[1:])) for shape in self.shapes]
        self.sizes = [neurons * columns for neurons, columns in self.rows]
        self._ends = np.cumsum(self.sizes)
        self.size = int(self._ends[-1])
        self.bounds = list(zip([0, *self._ends[:-1].tolist()], self._ends.tolist(), strict=True))
        if scope == "global":
            self.units = [slice(0, self.size)]
        elif scope == "layer":
            self.units = [slice(start, end) for start, end in self.bounds]
        else:
            self.units = [
                slice(start + row * columns, start + (row + 1) * columns)
                for (start, _), (neurons, columns) in zip(self.bounds, self.rows, strict=True)
                for row in range(neurons)
            ]

    def layer_of(self, unit: slice) -> int:
        """Index of the tensor in which a unit begins."""
        return int(np.searchsorted(self._ends, unit.start, side="right"))

    def unit_of(self) -> Int:
        """The unit of each weight."""
        return np.repeat(np.arange(len(self.units)), [unit.stop - unit.start for unit in self.units])

    def row_of(self) -> Int:
        """The neuron of each weight, counted through all tensors."""
        columns = np.concatenate([np.full(neurons, columns) for neurons, columns in self.rows])
        return np.repeat(np.arange(columns.size), columns)

    def per_unit(self, unit_of: Int, chosen: Bool) -> Int:
        """How many weights of each unit are chosen."""
        return np.bincount(unit_of[chosen], minlength=len(self.units))

    def prunable(self, magnitudes: Values, active: Bool, min_fan_in: int) -> Bool:
        """Active connections beyond the min_fan_in strongest of each neuron."""
        if not min_fan_in:
            return active.copy()
        rows = self.row_of()
        least = np.minimum(np.bincount(rows[active], minlength=int(rows[-1]) + 1), min_fan_in)
        # Among equals the later position is the stronger, because pruning takes the earlier one first.
        protected = smallest(-magnitudes[::-1], active[::-1], rows[::-1], least)[::-1]
        return active & ~protected

    def in_balance(
        self, keys: Values, candidates: Bool, active: Bool, lanes: int | None, *, growing: bool = False
    ) -> tuple[Values, Bool]:
        """Keys and candidates of which any number of the smallest may go (or come, ``growing``) in balance."""
        if lanes is None:
            return keys, candidates
        keys, candidates, turn = keys.copy(), candidates.copy(), np.arange(keys.size)
        for (start, end), rows, shape in zip(self.bounds, self.rows, self.shapes, strict=True):
            if can_balance(shape, lanes):
                part = slice(start, end)
                order = start + balanced_order(
                    keys[part].reshape(rows), candidates[part].reshape(rows), active[part].reshape(rows), lanes,
                    growing=growing,
                )  # fmt: skip
                candidates[part] = False
                candidates[order] = True
                # What has to wait for others comes just after the last of them.
                keys[order] = np.maximum.accumulate(keys[order])
                turn[order] = np.arange(order.size)
        rank = np.empty(keys.size)
        rank[np.lexsort((turn, keys))] = np.arange(keys.size)
        return rank, candidates


def smallest(keys: Values, candidates: Bool, groups: Int, counts: Int) -> Bool:
    """Mask of the ``counts[g]`` candidates with the smallest keys in each group g, ties by index."""
    chosen = np.zeros(keys.shape, bool)
    positions = np.flatnonzero(candidates)
    order = positions[np.lexsort((keys[positions], groups[positions]))]
    sorted_groups = groups[order]
    starts = np.searchsorted(sorted_groups, np.arange(len(counts)))
    rank = np.arange(order.size) - starts[sorted_groups]
    chosen[order[rank < counts[sorted_groups]]] = True
    return chosen
