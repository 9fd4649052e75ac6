"""How float weights, thresholds and decays become integers: one scale per layer, or one per neuron or channel.

Training's quantised forward pass and the quantisation of networks from elsewhere both take it from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.contract.network.terms import LeakKind

MAX_FRACTION_BITS = 16
CLIP_STEPS = 64

Scale = Literal["layer", "neuron"]
Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def scale_of(asked: Scale, *, silent: bool, reset_to_value: bool = False) -> Scale:
    """What a layer's neurons have a scale for, where ``asked`` is what was asked of the network.

    silent : the layer only integrates, and its membranes are read out: classes are compared, in one unit.
    reset_to_value : a value to reset to is one for the layer.
    """
    return "layer" if silent or reset_to_value else asked


def weight_scale(weights: np.ndarray, limit: int, least: float = 0.0) -> float:
    """Size of one integer step: the clip with the least squared error over the active weights, of 64 tried.

    ``least`` is a bound that the step does not fall below.
    """
    magnitudes = np.abs(weights.astype(np.float64))
    largest = float(magnitudes.max(initial=0.0))
    if largest == 0:
        return max(1.0, least)
    best, best_error = largest / limit, math.inf
    for step in range(CLIP_STEPS):
        scale = largest * (1 - 0.8 * step / CLIP_STEPS) / limit
        error = float(((magnitudes - scale * np.minimum(np.round(magnitudes / scale), limit)) ** 2).sum())
        if error < best_error:
            best, best_error = scale, error
    return max(best, least)


@dataclass(frozen=True)
class LayerScale:
    """How a layer's float values become integers, in G groups of neurons: the whole layer, or each neuron or channel.

    step : float64 (G,), change of the float current by one integer step of a weight, times one unit of its source.
    fraction_bits : F.
    unit : float64 (G,), size of the float 1 in the units of the membrane, 2^F / step.
    threshold : int64 (G,), of the float threshold that the scale was made for.
    limit : largest weight magnitude.
    """

    step: np.ndarray
    fraction_bits: int
    unit: np.ndarray
    threshold: np.ndarray
    limit: int


def layer_scale(
    groups: Sequence[np.ndarray],
    bits: int,
    leak_bits: int,
    fraction_bits: int | None,
    where: str,
    *,
    identity: float = 0.0,
    threshold: float | Float = 1.0,
) -> LayerScale:
    """Scale of a layer whose groups of neurons have these active weights, in currents per unit of the source.

    F is the smallest with every threshold >= 2^(leak_bits + 3) unless given. ``identity`` is a weight that stays
    within the limit. ``threshold`` is the float threshold, positive; or one per group, the least magnitude in it. A
    group without weights has no step of its own: it is given the coarsest of the others, as a part of its threshold, so
    that it asks for no bits.
    Raises InputError if no F up to 16 reaches that.
    """
    limit = (1 << (bits - 1)) - 1
    step = np.array([weight_scale(weights, limit, identity / limit) for weights in groups])
    reached = np.array([bool(np.any(weights)) for weights in groups])
    coarsest = float((step / threshold).max(where=reached, initial=0.0)) or 1.0
    step = np.where(reached, step, np.maximum(coarsest * np.asarray(threshold), identity / limit))
    candidates = range(MAX_FRACTION_BITS + 1) if fraction_bits is None else [fraction_bits]
    for bits_tried in candidates:
        unit = 2.0**bits_tried / step
        # Thresholds that no integers hold are cut, not wrapped into small ones; the contract's limit is far below.
        whole = np.minimum(np.round(unit * threshold), 2.0**62).astype(np.int64)
        if fraction_bits is not None or whole.min() >= 1 << (leak_bits + 3):
            if whole.min() < 1:
                raise InputError(f"{where}: the threshold rounds to 0 with fraction_bits = {bits_tried}; raise it")
            return LayerScale(step, bits_tried, unit, whole, limit)
    largest = float((step / threshold).max()) * limit
    raise InputError(
        f"{where}: weights up to {largest:.3g} times the threshold cannot be represented: the leak "
        f"would be lost even with fraction_bits = {MAX_FRACTION_BITS}"
    )


def nearest_shifts(decay: Float, most: int) -> Int:
    """int64, as ``decay``: the k in 1..most whose 1 - 2^-k is nearest."""
    shifts = np.arange(1, most + 1)
    return shifts[np.argmin(np.abs(decay[..., None] - (1 - 2.0**-shifts)), axis=-1)]


def nearest_multipliers(decay: Float, shift: int, most: int | None = None) -> Int:
    """int64, as ``decay``: the m in 0..most, 2^shift by default, whose m / 2^shift is nearest."""
    return np.clip(np.round(decay * 2.0**shift), 0, 1 << shift if most is None else most).astype(np.int64)


def leak_bits(kind: LeakKind, shift: int | Int, multiplier: int | Int) -> int:
    """Bits below the threshold that the slowest leak needs."""
    if kind == "shift":
        return int(np.max(shift))
    if kind == "none":
        return 0
    kept = np.asarray(multiplier) / 2.0 ** np.asarray(shift)
    slowest = float(np.max(kept, where=kept < 1, initial=0.0))
    return math.ceil(-math.log2(1 - slowest))


def plain(value: Any) -> Any:
    """A single number out of an array of one, any other array as it is."""
    return value.reshape(-1)[0].item() if isinstance(value, np.ndarray) and value.size == 1 else value
