"""LIF steps in torch operations.

Every operation is rounded on its own (no fused multiply-add), so that the compiled kernel can give the same bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codesign.train.kernels.dynamics import Dynamics


def advance(
    current: Tensor, state: Tensor, potentials: Tensor, spikes: Tensor, stored: Tensor, dynamics: Dynamics
) -> None:
    """See :func:`codesign.train.kernels.advance`."""
    varying = current.dim() == potentials.dim()
    threshold = dynamics.threshold
    v = state
    for t in range(len(potentials)):
        u, s = potentials[t], spikes[t]
        torch.add(_leaked(v, dynamics), current[t] if varying else current, out=u)
        v = stored[t] if len(stored) else torch.empty_like(u)
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
    """See :func:`codesign.train.kernels.retreat`."""
    every = gradient.dim() == potentials.dim()
    through = None
    if dynamics.threshold is not None and spike_gradient is not None:
        through = surrogate_slope(potentials, dynamics).mul_(spike_gradient)
    for t in range(len(potentials) - 1, -1, -1):
        if dynamics.leak != "none":
            carry.mul_(dynamics.slope)
        if dynamics.threshold is not None and dynamics.reset == "zero":
            carry.mul_(1 - spikes[t])
        if through is not None:
            carry.add_(through[t])
        if potential_gradient is not None:
            carry.add_(potential_gradient[t])
        if every:
            gradient[t] = carry
        else:
            gradient += carry


def surrogate_slope(potentials: Tensor, dynamics: Dynamics) -> Tensor:
    """Derivative of the spike with respect to u."""
    assert dynamics.threshold is not None
    sharpness = dynamics.sharpness
    peak = dynamics.area * sharpness
    x = potentials - dynamics.threshold
    if dynamics.surrogate == "rectangular":
        return (x.abs_() < 0.5 / sharpness).to(x.dtype).mul_(peak)
    if dynamics.surrogate == "atan":
        x.mul_(math.pi * sharpness)
        return x.mul_(x).add_(1.0).reciprocal_().mul_(peak)
    x.abs_().mul_(2.0 * sharpness).add_(1.0)
    return x.mul_(x).reciprocal_().mul_(peak)


def _leaked(v: Tensor, dynamics: Dynamics) -> Tensor:
    if dynamics.leak == "none":
        return v
    scaled = v * dynamics.factor
    if dynamics.leak == "decay":
        return scaled
    scaled.floor_()
    return torch.sub(v, scaled) if dynamics.leak == "shift" else scaled
