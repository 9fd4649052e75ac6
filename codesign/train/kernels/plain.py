"""LIF steps in torch operations: runs on every device.

Every operation is rounded on its own (no fused multiply-add), so that a compiled kernel can give the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dynamics:
    """Numbers of one call.

    leak : 'none' v, 'decay' v * factor, 'shift' v - floor(v * factor), 'floor' floor(v * factor).
    factor : number, or tensor that broadcasts to the state from the right.
    threshold : None for a layer that only integrates.
    strict : spike at u > threshold instead of u >= threshold.
    reset : 'subtract' | 'zero' | 'none'.
    low, high : saturation of the stored membrane; None for none.
    surrogate, width, unit : see :func:`codesign.train.lif.surrogate_gradient`; x = (u - threshold) / unit.
    slope : number or tensor like ``factor``, derivative of the leak.
    """

    leak: str
    factor: float | Tensor
    threshold: float | None
    strict: bool
    reset: str
    low: float | None
    high: float | None
    surrogate: str
    width: float
    unit: float
    slope: float | Tensor


def advance(
    current: Tensor, state: Tensor, potentials: Tensor, spikes: Tensor, stored: Tensor, dynamics: Dynamics
) -> None:
    """Steps of a layer, in place.

    current : (T, B, *shape), or (B, *shape) for the same at every step.
    state : (B, *shape) stored membrane before the first step; after the call that of the last step.
    potentials, spikes, stored : (T, B, *shape), written.
    """
    varying = current.dim() == potentials.dim()
    threshold = dynamics.threshold
    v = state
    for t in range(len(potentials)):
        u, s = potentials[t], spikes[t]
        torch.add(_leaked(v, dynamics), current[t] if varying else current, out=u)
        v = stored[t]
        if threshold is None:
            s.zero_()
            v.copy_(u)
        else:
            s.copy_(u > threshold if dynamics.strict else u >= threshold)
            if dynamics.reset == "subtract":
                torch.sub(u, s * threshold, out=v)
            elif dynamics.reset == "zero":
                torch.mul(u, 1 - s, out=v)
            else:
                v.copy_(u)
        if dynamics.low is not None:
            v.clamp_(dynamics.low, dynamics.high)
    state.copy_(v)


def retreat(
    potentials: Tensor,
    spikes: Tensor,
    spike_gradient: Tensor | None,
    potential_gradient: Tensor | None,
    carry: Tensor,
    gradient: Tensor,
    dynamics: Dynamics,
) -> None:
    """Gradient of the loss with respect to u, last step first, in place.

    potentials, spikes, spike_gradient, potential_gradient : (T, B, *shape); no gradient is zero.
    carry : (B, *shape), the gradient of the step after the last; after the call that of the first.
    gradient : (T, B, *shape) written, or (B, *shape) to which the sum over the steps is added.
    """
    steps = len(potentials)
    every = gradient.dim() == potentials.dim()
    slope = None
    if dynamics.threshold is not None and spike_gradient is not None:
        slope = surrogate_slope(potentials, dynamics).mul_(spike_gradient)
    for t in range(steps - 1, -1, -1):
        later = carry if dynamics.leak == "none" else carry * dynamics.slope
        if dynamics.threshold is not None and dynamics.reset == "zero":
            later = later * (1 - spikes[t])
        if slope is not None:
            later = slope[t] + later
        if potential_gradient is not None:
            later = potential_gradient[t] + later
        carry.copy_(later)
        if every:
            gradient[t] = carry
        else:
            gradient += carry


def surrogate_slope(potentials: Tensor, dynamics: Dynamics) -> Tensor:
    """Derivative of the spike with respect to u, per unit of u."""
    assert dynamics.threshold is not None
    peak = 1.0 / (dynamics.width * dynamics.unit)
    x = potentials - dynamics.threshold
    if dynamics.surrogate == "rectangular":
        return (x.abs_() < dynamics.width * dynamics.unit / 2).to(x.dtype).mul_(peak)
    if dynamics.surrogate == "atan":
        x.mul_(math.pi * peak)
        return x.mul_(x).add_(1.0).reciprocal_().mul_(peak)
    x.abs_().mul_(2.0 * peak).add_(1.0)
    return x.mul_(x).reciprocal_().mul_(peak)


def _leaked(v: Tensor, dynamics: Dynamics) -> Tensor:
    if dynamics.leak == "none":
        return v
    scaled = v * dynamics.factor
    if dynamics.leak == "decay":
        return scaled
    scaled.floor_()
    return torch.sub(v, scaled) if dynamics.leak == "shift" else scaled
