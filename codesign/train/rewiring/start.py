"""The sparse start: how many connections each weight tensor gets, and which."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError

Bool = npt.NDArray[np.bool_]


def layer_counts(shapes: Sequence[Sequence[int]], density: float, distribution: str, min_fan_in: int = 0) -> list[int]:
    """Active weights of each tensor (first axis = neurons), together exactly round(density * all weights).

    ``erdos-renyi``: density of a tensor = min(1, eps * sum(shape) / prod(shape)), which for a matrix is
    eps (n_in + n_out) / (n_in n_out) and for a convolution has the kernel's sides beside them (Evci et al., ICML 2020);
    eps by bisection. ``uniform``: the same density everywhere. Fractions are rounded by largest remainder. Every tensor
    gets at least min_fan_in per neuron; InputError if the density does not allow it.
    """
    sizes = np.array([math.prod(shape) for shape in shapes], np.int64)
    total = round(density * int(sizes.sum()))
    floor = np.array([shape[0] * min(math.prod(shape[1:]), min_fan_in) for shape in shapes], np.int64)
    if total < floor.sum():
        raise InputError(
            f"density {density:g} is {total} connections, too few for min_fan_in = {min_fan_in} ({floor.sum()})"
        )
    if distribution == "uniform":
        wanted = sizes * density
    else:
        raw = np.array([sum(shape) / math.prod(shape) for shape in shapes])
        low, high = 0.0, float(1 / raw.min())
        for _ in range(200):
            middle = (low + high) / 2
            if float((np.minimum(1, middle * raw) * sizes).sum()) < total:
                low = middle
            else:
                high = middle
        wanted = np.minimum(1, high * raw) * sizes
    return apportion(np.maximum(wanted, floor), total, floor, sizes)


def apportion(
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


def random_mask(shape: Sequence[int], count: int, min_fan_in: int, generator: np.random.Generator) -> Bool:
    """Mask with exactly ``count`` random connections, at least min_fan_in of them per index of the first axis."""
    scores = generator.random((shape[0], math.prod(shape[1:])))
    fan_in = min(min_fan_in, scores.shape[1])
    mask = np.zeros(scores.shape, bool)
    if fan_in:
        np.put_along_axis(mask, np.argsort(scores, axis=1, kind="stable")[:, :fan_in], True, axis=1)
    rest = np.where(mask.ravel(), np.inf, scores.ravel())
    mask.ravel()[np.argsort(rest, kind="stable")[: count - int(mask.sum())]] = True
    return mask.reshape(tuple(shape))
