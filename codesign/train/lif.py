"""LIF layers over all timesteps as one autograd function, in float or in exact integer units.

Forward, per neuron (the arithmetic of :mod:`codesign.contract.golden`):

    u_t = leak(v_{t-1}) + current_t         recurrent: + sum of w_ij over neurons i with s_{i,t-1} = 1
    s_t = u_t >= threshold                  (or >)
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
from torch.autograd.function import once_differentiable

from codesign.basics.errors import InputError
from codesign.train import kernels
from codesign.train.kernels import Dynamics

SurrogateKind = Literal["rectangular", "atan", "fast_sigmoid"]


@dataclass(frozen=True)
class Neuron:
    """Dynamics of one layer.

    leak_kind, leak_shift, leak_multiplier : as :class:`codesign.contract.network.Leak`; shift and multiplier may also
        be tensors of whole numbers that broadcast to the layer's shape (one leak per neuron or channel).
    threshold : in the units of the current; inf for a layer that only integrates. Like ``unit`` a number or a tensor
        that broadcasts to the layer's shape.
    unit : size of the trained threshold 1 in the units of the current.
    surrogate_area : factor on the surrogate, whose area is 1 without it.
    integer : floor the leak as the hardware does (values must be whole numbers).
    membrane_min, membrane_max : saturation of the stored membrane; None for none.
    """

    leak_kind: Literal["none", "shift", "multiply"]
    leak_shift: int | Tensor
    leak_multiplier: int | Tensor
    reset: Literal["subtract", "zero", "none"]
    compare: Literal[">=", ">"]
    surrogate: SurrogateKind
    surrogate_width: float
    surrogate_area: float = 1.0
    threshold: float | Tensor = 1.0
    unit: float | Tensor = 1.0
    integer: bool = False
    membrane_min: float | None = None
    membrane_max: float | None = None

    @property
    def decay(self) -> float | Tensor:
        """Slope of the leak: 1, 1 - 2^-shift or multiplier / 2^shift; a float64 tensor where the leak is one."""
        if self.leak_kind == "none":
            return 1.0
        fraction = _power(self.leak_shift)
        return 1.0 - fraction if self.leak_kind == "shift" else _number(self.leak_multiplier) * fraction

    @property
    def spiking(self) -> bool:
        return isinstance(self.threshold, Tensor) or math.isfinite(self.threshold)


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


def lif(
    current: Tensor,
    timesteps: int,
    neuron: Neuron,
    decay: Tensor | None = None,
    *,
    constant: bool | None = None,
    membranes: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes s, potentials u and stored membranes v of a layer, each (timesteps, batch, *shape).

    Parameters
    ----------
    current : float (timesteps, batch, *shape), or (batch, *shape) where every timestep has the same. Half precision
        is computed and returned in float32.
    timesteps : T, 1 or more.
    neuron : the layer's dynamics.
    decay : learnable factor on the membrane, u = decay v + current, in place of the neuron's leak; a tensor that
        broadcasts to ``shape``: (), one per neuron, or (channels, 1, 1). Not with integer dynamics.
    constant : True for (batch, *shape). By default told from the dimensions, for layers of shape (n,) and
        (channels, height, width).
    membranes : False returns v empty, (0, batch, *shape), and spares the memory and its traffic.

    Gradients flow through spikes and potentials into ``current`` and ``decay``; v has none.
    Raises InputError for shapes that do not fit.
    """
    if constant is None:
        constant = current.dim() % 2 == 0
    current, decay = _checked(current, timesteps, neuron, decay, constant)
    spikes, potentials, stored = _Lif.apply(current, decay, timesteps, neuron, constant, membranes)  # type: ignore[misc]
    return spikes, potentials, stored


def recurrent_lif(
    current: Tensor,
    weight: Tensor,
    timesteps: int,
    neuron: Neuron,
    decay: Tensor | None = None,
    *,
    membranes: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`lif` for a layer whose own spikes of t - 1 are added at t through ``weight``; silence before t = 0.

    current : (timesteps, batch, n), or (batch, n) where every timestep has the same.
    weight : (n, n), rows are targets, in the units of the current (with integer dynamics whole numbers, the integer
        weights times 2^F).

    The gradient of ``weight`` is dense, one product over all timesteps.
    """
    constant = current.dim() == 2
    current, decay = _checked(current, timesteps, neuron, decay, constant)
    n = current.shape[-1]
    if current.dim() != 3 - constant or weight.shape != (n, n):
        raise InputError(
            f"a recurrent layer needs currents (timesteps, batch, n) or (batch, n) and weights (n, n), "
            f"not {tuple(current.shape)} and {tuple(weight.shape)}"
        )
    with torch.autocast(current.device.type, enabled=False):
        spikes, potentials, stored = _RecurrentLif.apply(  # type: ignore[misc]
            current, weight.to(current.dtype), decay, timesteps, neuron, constant, membranes
        )
    return spikes, potentials, stored


class _Lif(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        decay: Tensor | None,
        timesteps: int,
        neuron: Neuron,
        constant: bool,
        membranes: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dynamics = _dynamics(neuron, decay, current)
        learnt = ctx.needs_input_grad[1]
        potentials, spikes, stored, state = _buffers(current, timesteps, constant, membranes or learnt)
        kernels.advance(current, state, potentials, spikes, stored, dynamics)
        ctx.save_for_backward(potentials, spikes, decay, stored if learnt else None)
        return _outputs(ctx, dynamics, constant, spikes, potentials, stored)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name ctx
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        potentials, spikes, decay, stored = ctx.saved_tensors
        carry = torch.zeros_like(potentials[0])
        summed = ctx.constant and stored is None
        gradient = torch.zeros_like(carry) if summed else torch.empty_like(potentials)
        kernels.retreat(potentials, spikes, gradients[0], gradients[1], carry, gradient, ctx.dynamics)
        decay_gradient = None if stored is None else _decay_gradient(gradient, stored, decay)
        if ctx.constant and not summed:
            gradient = gradient.sum(0)
        return gradient, decay_gradient, None, None, None, None


class _RecurrentLif(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        weight: Tensor,
        decay: Tensor | None,
        timesteps: int,
        neuron: Neuron,
        constant: bool,
        membranes: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dynamics = _dynamics(neuron, decay, current)
        learnt = ctx.needs_input_grad[2]
        potentials, spikes, stored, state = _buffers(current, timesteps, constant, membranes or learnt)
        backwards = weight.t()
        for t in range(timesteps):
            drive = current if constant else current[t]
            if t:
                drive = torch.addmm(drive, spikes[t - 1], backwards)
            step = slice(t, t + 1)
            kernels.advance(drive, state, potentials[step], spikes[step], stored[step], dynamics)
        ctx.save_for_backward(potentials, spikes, weight, decay, stored if learnt else None)
        return _outputs(ctx, dynamics, constant, spikes, potentials, stored)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name ctx
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        potentials, spikes, weight, decay, stored = ctx.saved_tensors
        spike_gradient, potential_gradient = gradients[0], gradients[1]
        carry = torch.zeros_like(potentials[0])
        gradient = torch.empty_like(potentials)
        with torch.autocast(potentials.device.type, enabled=False):
            for t in range(len(potentials) - 1, -1, -1):
                step = slice(t, t + 1)
                of_spikes = None if spike_gradient is None else spike_gradient[t]
                if t + 1 < len(potentials):
                    through = gradient[t + 1] @ weight
                    of_spikes = through if of_spikes is None else of_spikes + through
                kernels.retreat(
                    potentials[step],
                    spikes[step],
                    None if of_spikes is None else of_spikes[None],
                    None if potential_gradient is None else potential_gradient[step],
                    carry,
                    gradient[step],
                    ctx.dynamics,
                )
            weight_gradient = None
            if ctx.needs_input_grad[1]:
                weight_gradient = gradient[1:].flatten(0, 1).t() @ spikes[:-1].flatten(0, 1)
        decay_gradient = None if stored is None else _decay_gradient(gradient, stored, decay)
        return gradient.sum(0) if ctx.constant else gradient, weight_gradient, decay_gradient, None, None, None, None


def _checked(
    current: Tensor, timesteps: int, neuron: Neuron, decay: Tensor | None, constant: bool
) -> tuple[Tensor, Tensor | None]:
    """Currents and decay as the kernels take them. InputError for what does not fit."""
    if current.dim() < (2 if constant else 3) or timesteps < 1 or not (constant or len(current) == timesteps):
        wanted = "(batch, *shape)" if constant else f"({timesteps}, batch, *shape)"
        raise InputError(f"currents are {tuple(current.shape)}, expected {wanted}, timesteps 1 or more")
    if current.dtype not in (torch.float32, torch.float64):
        current = current.float()
    if decay is None:
        return current.contiguous(), None
    if neuron.integer:
        raise InputError("a learnable decay has no integer arithmetic; give the neuron the leak that it is snapped to")
    shape = current.shape[1:] if constant else current.shape[2:]
    if decay.dim() > len(shape) or any(
        have not in (1, want) for have, want in zip(decay.shape[::-1], shape[::-1], strict=False)
    ):
        raise InputError(f"decay is {tuple(decay.shape)}, which does not broadcast to the layer's {tuple(shape)}")
    return current.contiguous(), decay.to(current.dtype)


def _dynamics(neuron: Neuron, decay: Tensor | None, like: Tensor) -> Dynamics:
    """Numbers of ``neuron`` for currents ``like``."""
    slope = neuron.decay if decay is None else decay.detach()
    factor, leak = slope, "decay"
    if neuron.leak_kind == "none" and decay is None:
        leak = "none"
    elif neuron.integer:
        leak = "shift" if neuron.leak_kind == "shift" else "floor"
        factor = _power(neuron.leak_shift) if leak == "shift" else slope
    return Dynamics(
        leak=leak,
        factor=_like(factor, like),
        threshold=_like(neuron.threshold, like) if neuron.spiking else None,
        strict=neuron.compare == ">",
        reset=neuron.reset,
        low=neuron.membrane_min,
        high=neuron.membrane_max,
        surrogate=neuron.surrogate,
        width=neuron.surrogate_width,
        area=neuron.surrogate_area,
        unit=_like(neuron.unit, like),
        slope=_like(slope, like),
    )


def _buffers(current: Tensor, timesteps: int, constant: bool, membranes: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Potentials, spikes and stored membranes (none of them if not asked for) to be written, and v before t = 0."""
    shape = current.shape if constant else current.shape[1:]
    lengths = (timesteps, timesteps, timesteps if membranes else 0)
    potentials, spikes, stored = (current.new_empty((length, *shape)) for length in lengths)
    return potentials, spikes, stored, current.new_zeros(shape)


def _outputs(
    ctx: Any, dynamics: Dynamics, constant: bool, spikes: Tensor, potentials: Tensor, stored: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What a forward pass returns, of which ``stored`` has no gradient."""
    ctx.dynamics, ctx.constant = dynamics, constant
    ctx.mark_non_differentiable(stored)
    ctx.set_materialize_grads(False)
    return spikes, potentials, stored


def _decay_gradient(gradient: Tensor, stored: Tensor, decay: Tensor) -> Tensor:
    """dL/ddecay = sum over t of dL/du_t v_{t-1}."""
    return (gradient[1:] * stored[:-1]).sum((0, 1)).sum_to_size(decay.shape)


def _like(value: float | Tensor, like: Tensor) -> float | Tensor:
    return value.to(like) if isinstance(value, Tensor) else value


def _number(value: int | Tensor) -> float | Tensor:
    return value.double() if isinstance(value, Tensor) else float(value)


def _power(shift: int | Tensor) -> float | Tensor:
    """2^-shift, exactly."""
    if isinstance(shift, Tensor):
        return 1.0 / (torch.ones_like(shift, dtype=torch.int64) << shift.long()).double()
    return 2.0**-shift
