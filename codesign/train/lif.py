"""LIF layer over all timesteps as one autograd function, in float or in exact integer units.

Forward, per neuron (the arithmetic of :mod:`codesign.golden`):

    u_t = leak(v_{t-1}) + current_t
    s_t = u_t >= threshold            (or >)
    v_t = saturate(reset(u_t, s_t))

Backward: ds/du is the surrogate of (u - threshold) / unit, divided by ``unit`` (the size of one float threshold);
the reset is treated as a constant of s ('subtract': dv/du = 1, 'zero': dv/du = 1 - s), leak's floor as its slope,
saturation as passing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

SurrogateKind = Literal["rectangular", "atan", "fast_sigmoid"]


@dataclass(frozen=True)
class Neuron:
    """Dynamics of one layer.

    leak_kind, leak_shift, leak_multiplier : as :class:`codesign.network.Leak`.
    threshold : in the units of the current; inf for a layer that only integrates.
    unit : size of the trained threshold 1 in the units of the current.
    integer : floor the leak as the hardware does (values must be whole numbers).
    membrane_min, membrane_max : saturation of the stored membrane; None for none.
    """

    leak_kind: Literal["none", "shift", "multiply"]
    leak_shift: int
    leak_multiplier: int
    reset: Literal["subtract", "zero", "none"]
    compare: Literal[">=", ">"]
    surrogate: SurrogateKind
    surrogate_width: float
    threshold: float = 1.0
    unit: float = 1.0
    integer: bool = False
    membrane_min: float | None = None
    membrane_max: float | None = None

    @property
    def decay(self) -> float:
        """Slope of the leak."""
        if self.leak_kind == "none":
            return 1.0
        if self.leak_kind == "shift":
            return 1.0 - 2.0**-self.leak_shift
        return self.leak_multiplier / 2.0**self.leak_shift

    @property
    def spiking(self) -> bool:
        return math.isfinite(self.threshold)

    def leak(self, v: Tensor) -> Tensor:
        if self.leak_kind == "none":
            return v
        if not self.integer:
            return v * self.decay
        if self.leak_kind == "shift":
            return v - torch.floor(v * 2.0**-self.leak_shift)
        return torch.floor(v * (self.leak_multiplier / 2.0**self.leak_shift))


def surrogate_gradient(x: Tensor, kind: SurrogateKind, width: float) -> Tensor:
    """Derivative that stands for the step's at distance ``x`` from the threshold; its area is 1.

    rectangular: 1/width where |x| < width/2. atan: 1 / (width (1 + (pi x / width)^2)).
    fast_sigmoid: 1 / (width (1 + 2|x|/width)^2).
    """
    if kind == "rectangular":
        return (x.abs() < width / 2).to(x.dtype) / width
    if kind == "atan":
        return (1.0 / width) / (1.0 + (x * (math.pi / width)) ** 2)
    return (1.0 / width) / (1.0 + x.abs() * (2.0 / width)) ** 2


class _Lif(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, timesteps: int, neuron: Neuron) -> tuple[Tensor, Tensor, Tensor]:
        constant = current.dim() == 2
        shape = (timesteps, *current.shape[-2:])
        potentials = current.new_empty(shape)
        stored = current.new_empty(shape)
        spikes = current.new_zeros(shape)
        v = torch.zeros_like(potentials[0])
        for t in range(timesteps):
            u = potentials[t]
            torch.add(neuron.leak(v), current if constant else current[t], out=u)
            v = stored[t]
            if neuron.spiking:
                s = spikes[t]
                s.copy_(u >= neuron.threshold if neuron.compare == ">=" else u > neuron.threshold)
                if neuron.reset == "subtract":
                    torch.add(u, s, alpha=-neuron.threshold, out=v)
                elif neuron.reset == "zero":
                    torch.mul(u, 1 - s, out=v)
                else:
                    v.copy_(u)
            else:
                v.copy_(u)
            if neuron.membrane_min is not None:
                v.clamp_(neuron.membrane_min, neuron.membrane_max)
        ctx.save_for_backward(potentials, spikes)
        ctx.neuron, ctx.constant = neuron, constant
        ctx.mark_non_differentiable(stored)
        return spikes, potentials, stored

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        potentials, spikes = ctx.saved_tensors
        neuron: Neuron = ctx.neuron
        spike_gradient, potential_gradient = gradients[0], gradients[1]
        out = torch.zeros_like(potentials) if potential_gradient is None else potential_gradient.clone()
        if neuron.spiking and spike_gradient is not None:
            x = (potentials - neuron.threshold) / neuron.unit
            slope = surrogate_gradient(x, neuron.surrogate, neuron.surrogate_width)
            out += slope.mul_(spike_gradient).div_(neuron.unit)
        decay = neuron.decay
        for t in range(len(out) - 2, -1, -1):
            if neuron.spiking and neuron.reset == "zero":
                out[t] += decay * out[t + 1] * (1 - spikes[t])
            else:
                out[t].add_(out[t + 1], alpha=decay)
        return out.sum(0) if ctx.constant else out, None, None


def lif(current: Tensor, timesteps: int, neuron: Neuron) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, potentials u and stored membranes v, each (timesteps, batch, neurons).

    ``current`` is (timesteps, batch, neurons), or (batch, neurons) where every timestep has the same.
    """
    spikes, potentials, stored = _Lif.apply(current, timesteps, neuron)  # type: ignore[misc]
    return spikes, potentials, stored
