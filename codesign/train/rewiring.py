"""PQ-adaptive rewiring: how many connections to move, which ones go, which ones come.

The PQ index measures how unequal the magnitudes of the active weights are. From it follows a lower bound on the
number of weights worth keeping, and from that the fraction to rewire (Diao et al., ICLR 2023; Shen et al., ICLR 2025).
Inside an iteration connections are pruned and regrown; at its end they are pruned alone, so that density falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codesign.config import RewiringConfig
from codesign.errors import InputError, UnsupportedError

Bool = npt.NDArray[np.bool_]


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
    bound = keep_bound(count, index, config.p, config.q, config.eta)
    return max(0.0, min(config.gamma * (1 - bound / count), config.beta))


@dataclass(frozen=True)
class LayerChange:
    """What one rewiring did to a layer.

    index, fraction : I and c, means over the layer's units weighted by their active weights.
    pruned, grown : numbers of connections.
    """

    index: float
    fraction: float
    pruned: int
    grown: int


def layer_counts(
    shapes: Sequence[tuple[int, int]], density: float, distribution: str, min_fan_in: int = 0
) -> list[int]:
    """Active weights of each (n_out, n_in) layer, together exactly round(density * all weights).

    ``erdos-renyi``: density of a layer = min(1, eps (n_in + n_out) / (n_in n_out)), eps by bisection; ``uniform``: the
    same density everywhere. Fractions are rounded by largest remainder. Every layer gets at least min_fan_in
    per neuron; InputError if the density does not allow it.
    """
    sizes = np.array([o * i for o, i in shapes], np.int64)
    total = round(density * int(sizes.sum()))
    floor = np.array([o * min(i, min_fan_in) for o, i in shapes], np.int64)
    if total < floor.sum():
        raise InputError(
            f"density {density:g} is {total} connections, too few for min_fan_in = {min_fan_in} ({floor.sum()})"
        )
    if distribution == "uniform":
        wanted = sizes * density
    else:
        raw = np.array([(o + i) / (o * i) for o, i in shapes])
        low, high = 0.0, float(1 / raw.min())
        for _ in range(200):
            middle = (low + high) / 2
            if float((np.minimum(1, middle * raw) * sizes).sum()) < total:
                low = middle
            else:
                high = middle
        wanted = np.minimum(1, high * raw) * sizes
    return _apportion(np.maximum(wanted, floor), total, floor, sizes)


def _apportion(
    wanted: npt.NDArray[np.floating], total: int, least: npt.NDArray[np.int64], most: npt.NDArray[np.int64]
) -> list[int]:
    """Integers near ``wanted`` within [least, most] whose sum is ``total``: largest remainders first."""
    counts = np.clip(np.floor(wanted).astype(np.int64), least, most)
    remainder = wanted - counts
    while (gap := total - int(counts.sum())) != 0:
        sign = 1 if gap > 0 else -1
        room = most - counts if sign > 0 else counts - least
        open_ = np.flatnonzero(room > 0)
        order = open_[np.argsort(-sign * remainder[open_], kind="stable")][: abs(gap)]
        step = np.minimum(room[order], max(1, abs(gap) // order.size))
        counts[order] += sign * step
        remainder[order] -= sign * step
    return [int(count) for count in counts]


def random_mask(shape: tuple[int, int], count: int, min_fan_in: int, generator: np.random.Generator) -> Bool:
    """Mask (n_out, n_in) with exactly ``count`` random connections, at least min_fan_in of them per row."""
    _n_out, n_in = shape
    scores = generator.random(shape)
    fan_in = min(min_fan_in, n_in)
    mask = np.zeros(shape, bool)
    if fan_in:
        np.put_along_axis(mask, np.argsort(scores, axis=1, kind="stable")[:, :fan_in], True, axis=1)
    rest = np.where(mask.ravel(), np.inf, scores.ravel())
    mask.ravel()[np.argsort(rest, kind="stable")[: count - int(mask.sum())]] = True
    return mask


class PQRewirer:
    """Masks of a network's weight matrices and the rules by which they change (preset 'adaptive').

    Parameters
    ----------
    weights : (n_out, n_in) matrices; changed in place (pruned and regrown weights become 0).
    masks : bool, of the same shapes; changed in place.
    config : see :class:`codesign.config.RewiringConfig`.

    Notes
    -----
    Units of scope 'layer' are whole matrices, of scope 'neuron' their rows. The part of c * d that floor takes away is
    carried to the unit's next rewiring of the same kind.
    """

    def __init__(self, weights: Sequence[Tensor], masks: Sequence[Tensor], config: RewiringConfig) -> None:
        if config.mode != "adaptive":
            raise UnsupportedError(f"train.rewiring.mode = {config.mode!r} does not rewire")
        self.weights = list(weights)
        self.masks = list(masks)
        self.config = config
        self.momentum = [torch.zeros_like(weight) for weight in weights]
        units = [1 if config.scope == "layer" else weight.shape[0] for weight in weights]
        self.carry = {kind: [np.zeros(count) for count in units] for kind in ("inner", "fall")}
        self.targets = _target_groups([(int(w.shape[0]), int(w.shape[1])) for w in weights], config)

    @property
    def counts(self) -> list[int]:
        """Active connections of each layer."""
        return [int(mask.sum()) for mask in self.masks]

    @property
    def on_target(self) -> bool:
        """True if every group of layers has reached its target density."""
        counts = self.counts
        return all(sum(counts[i] for i in members) <= target for members, target in self.targets)

    def reset_momentum(self) -> None:
        """Start a new scoring window."""
        for buffer in self.momentum:
            buffer.zero_()

    def accumulate(self, gradients: Sequence[Tensor]) -> None:
        """G <- mu G + (1 - mu) dL/dW with the dense gradients of one batch."""
        for buffer, gradient in zip(self.momentum, gradients, strict=True):
            buffer.mul_(self.config.momentum).add_(gradient, alpha=1 - self.config.momentum)

    def measure(self) -> list[tuple[float, float]]:
        """(I, c) of each layer now, means over its units weighted by their active weights."""
        return [self._mean(self._units(layer)) for layer in range(len(self.weights))]

    def rewire(self) -> tuple[list[LayerChange], list[Tensor]]:
        """Prune and regrow as many, in every unit.

        Returns the changes and, per layer, the bool mask of positions whose optimizer state must start afresh.
        """
        changes, fresh = [], []
        for layer in range(len(self.weights)):
            units = self._units(layer)
            wanted = self._with_carry("inner", layer, units)
            mask = self.masks[layer].cpu().numpy()
            magnitude, score = self._magnitude(layer), np.abs(self.momentum[layer].cpu().numpy())
            prunable = self._prunable(layer)
            pruned, grown = np.zeros_like(mask), np.zeros_like(mask)
            for rows, count in zip(self._rows(layer), wanted, strict=True):
                # A unit without room for as many new connections would silently lose density.
                count = min(count, int((~mask[rows]).sum()), int(prunable[rows].sum()))
                pruned[rows] = _first(np.where(prunable[rows], magnitude[rows], np.inf), count)
                grown[rows] = _first(np.where(mask[rows], np.inf, -score[rows]), count)
            self._apply(layer, pruned, grown)
            fresh.append(torch.from_numpy(pruned | grown).to(self.masks[layer].device))
            changes.append(LayerChange(*self._mean(units), int(pruned.sum()), int(grown.sum())))
        return changes, fresh

    def fall(self, *, final: bool = False) -> tuple[list[LayerChange], list[Tensor]]:
        """Prune without regrowth, never below the target densities.

        With ``final`` whatever is left above the target goes too, so that the density lands exactly on it. Returns the
        same as :meth:`rewire`.
        """
        layers = range(len(self.weights))
        units = [self._units(layer) for layer in layers]
        wanted = [np.array(self._with_carry("fall", layer, units[layer]), np.int64) for layer in layers]
        prunable = [self._prunable(layer) for layer in layers]
        room = [
            np.array([int(prunable[layer][rows].sum()) for rows in self._rows(layer)], np.int64) for layer in layers
        ]
        wanted = [np.minimum(count, limit) for count, limit in zip(wanted, room, strict=True)]
        counts = self.counts
        for members, target in self.targets:
            excess = max(0, sum(counts[layer] for layer in members) - target)
            together = np.concatenate([wanted[layer] for layer in members])
            if together.sum() > excess or final:
                limits = np.concatenate([room[layer] for layer in members])
                if together.sum():
                    share = together * (excess / together.sum())
                else:
                    share = limits * (excess / max(1, limits.sum()))
                together = np.array(_apportion(np.minimum(share, limits), excess, np.zeros_like(limits), limits))
                for layer in members:
                    wanted[layer], together = together[: wanted[layer].size], together[wanted[layer].size :]
        changes, fresh = [], []
        for layer in layers:
            magnitude = self._magnitude(layer)
            pruned = np.zeros(magnitude.shape, bool)
            for rows, count in zip(self._rows(layer), wanted[layer], strict=True):
                pruned[rows] = _first(np.where(prunable[layer][rows], magnitude[rows], np.inf), int(count))
            self._apply(layer, pruned, np.zeros_like(pruned))
            fresh.append(torch.from_numpy(pruned).to(self.masks[layer].device))
            changes.append(LayerChange(*self._mean(units[layer]), int(pruned.sum()), 0))
        return changes, fresh

    def _rows(self, layer: int) -> list[slice]:
        """The rows of each unit."""
        n_rows = self.masks[layer].shape[0]
        return [slice(0, n_rows)] if self.config.scope == "layer" else [slice(row, row + 1) for row in range(n_rows)]

    def _magnitude(self, layer: int) -> npt.NDArray[np.floating]:
        return np.abs(self.weights[layer].detach().cpu().numpy())

    def _units(self, layer: int) -> list[tuple[int, float, float]]:
        """(d, I, c) of each unit, over its active weights, zeros included."""
        weight = self.weights[layer].detach().cpu().numpy()
        mask = self.masks[layer].cpu().numpy()
        groups = [weight[mask]] if self.config.scope == "layer" else [w[m] for w, m in zip(weight, mask, strict=True)]
        units = []
        for group in groups:
            index = pq_index(group, self.config.p, self.config.q)
            units.append((int(group.size), index, rewiring_fraction(int(group.size), index, self.config)))
        return units

    @staticmethod
    def _mean(units: list[tuple[int, float, float]]) -> tuple[float, float]:
        total = max(1, sum(d for d, _, _ in units))
        return sum(d * index for d, index, _ in units) / total, sum(d * c for d, _, c in units) / total

    def _with_carry(self, kind: str, layer: int, units: list[tuple[int, float, float]]) -> list[int]:
        carry = self.carry[kind][layer]
        counts = []
        for unit, (d, _, c) in enumerate(units):
            exact = c * d + carry[unit]
            counts.append(math.floor(exact))
            carry[unit] = exact - counts[-1]
        return counts

    def _prunable(self, layer: int) -> Bool:
        """Active connections beyond the min_fan_in strongest of each row."""
        mask = self.masks[layer].cpu().numpy()
        if not self.config.min_fan_in:
            return mask.copy()
        strength = np.where(mask, self._magnitude(layer), -1.0)
        # Among equals the later position is the stronger, because pruning takes the earlier one first.
        order = np.argsort(-strength[:, ::-1], axis=1, kind="stable")[:, : self.config.min_fan_in]
        protected = np.zeros_like(mask)
        np.put_along_axis(protected, mask.shape[1] - 1 - order, True, axis=1)
        return mask & ~protected

    def _apply(self, layer: int, pruned: Bool, grown: Bool) -> None:
        mask, weight = self.masks[layer], self.weights[layer]
        gone = torch.from_numpy(pruned).to(mask.device)
        new = torch.from_numpy(grown).to(mask.device)
        with torch.no_grad():
            mask &= ~gone
            mask |= new
            weight.masked_fill_(gone | new, 0.0)


def _first(keys: npt.NDArray[np.floating], count: int) -> Bool:
    """Mask of the ``count`` smallest keys, ties by index."""
    chosen = np.zeros(keys.shape, bool)
    chosen.reshape(-1)[np.argsort(keys, axis=None, kind="stable")[:count]] = True
    return chosen


def _target_groups(shapes: Sequence[tuple[int, int]], config: RewiringConfig) -> list[tuple[list[int], int]]:
    """Groups of layers with the number of connections that each group must come down to."""
    named: dict[int, float] = {}
    for key, density in config.layer_target.items():
        if not key.isdigit() or int(key) >= len(shapes):
            raise InputError(f"train.rewiring.layer_target: no layer {key!r}; layers are 0..{len(shapes) - 1}")
        named[int(key)] = density
    groups = [([layer], density) for layer, density in sorted(named.items())]
    rest = [layer for layer in range(len(shapes)) if layer not in named]
    if rest:
        groups.append((rest, config.target_density))
    result = []
    for members, density in groups:
        total = round(density * sum(shapes[i][0] * shapes[i][1] for i in members))
        least = sum(shapes[i][0] * min(shapes[i][1], config.min_fan_in) for i in members)
        if total < least:
            raise InputError(
                f"train.rewiring: a density of {density:g} leaves layers {members} {total} connections, too few for "
                f"min_fan_in = {config.min_fan_in} ({least})"
            )
        result.append((members, total))
    return result
