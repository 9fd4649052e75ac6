"""The numbers of one call of the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

# How the compiled kernels know each choice (lif.cpp, fused.py).
LEAKS = {"none": 0, "decay": 1, "shift": 2, "floor": 3}
RESETS = {"none": 0, "subtract": 1, "zero": 2}
SURROGATES = {"rectangular": 0, "atan": 1, "fast_sigmoid": 2}


@dataclass(frozen=True)
class Dynamics:
    """How a layer's state changes in a step.

    leak : 'none' v, 'decay' v * factor, 'shift' v - floor(v * factor), 'floor' floor(v * factor).
    factor : number, or tensor that broadcasts to the state from the right.
    threshold : number or tensor like ``factor``, None for a layer that only integrates.
    strict : spike at u > threshold instead of u >= threshold.
    low, high : saturation of the stored membrane; None for none.
    surrogate, width, area, unit : see :func:`codesign.train.lif.surrogate_gradient`; x = (u - threshold) / unit, a
        number or a tensor like ``factor``.
    slope : number or tensor like ``factor``, derivative of the leak.
    """

    leak: Literal["none", "decay", "shift", "floor"]
    factor: float | Tensor
    threshold: float | Tensor | None
    strict: bool
    reset: Literal["subtract", "zero", "none"]
    low: float | None
    high: float | None
    surrogate: Literal["rectangular", "atan", "fast_sigmoid"]
    width: float
    area: float
    unit: float | Tensor
    slope: float | Tensor

    @property
    def per_neuron(self) -> bool:
        """True if neurons differ in their threshold or its unit, which only torch operations know."""
        return isinstance(self.threshold, Tensor) or isinstance(self.unit, Tensor)

    @property
    def surrogate_numbers(self) -> tuple[float, float, float]:
        """(peak, scale, half width): the surrogate is peak / (1 + (scale x)^2), peak / (1 + scale |x|)^2 or peak.

        x = u - threshold; 'rectangular' where |x| < half width. Only where neurons share threshold and unit.
        """
        sharpness = self.sharpness
        assert not isinstance(sharpness, Tensor)
        return self.area * sharpness, (math.pi if self.surrogate == "atan" else 2.0) * sharpness, 0.5 / sharpness

    @property
    def sharpness(self) -> float | Tensor:
        """1 / (width unit): the largest derivative of the spike with respect to u where the area is 1."""
        return 1.0 / (self.width * self.unit)
