"""LIF steps on a GPU as one Triton kernel over all timesteps, forward and backward.

The same operations in the same order as :mod:`~codesign.train.kernels.plain`, each rounded on its own
(``enable_fp_fusion`` off, IEEE division), so that both give the same bits. A block of neurons goes through all
timesteps while its state stays in registers: every tensor is read or written once. Triton comes with torch for CUDA;
this module is imported where it is wanted and there.
"""

# Triton is not installed where types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from codesign.train.kernels.dynamics import LEAKS, RESETS, SURROGATES, Dynamics

BLOCK = 256


def advance(
    current: Tensor, state: Tensor, potentials: Tensor, spikes: Tensor, stored: Tensor, dynamics: Dynamics
) -> None:
    """See :func:`codesign.train.kernels.advance`."""
    size = state.numel()
    factors = _spread(dynamics.factor, state)
    _launch(
        _advance,
        size,
        current,
        state if factors is None else factors,
        state,
        potentials,
        spikes,
        stored if len(stored) else potentials,
        _numbers(dynamics, dynamics.factor, state),
        len(potentials),
        size,
        size if current.dim() == potentials.dim() else 0,
        LEAK=LEAKS[dynamics.leak],
        FACTORS=factors is not None,
        SPIKING=dynamics.threshold is not None,
        STRICT=dynamics.strict,
        RESET=RESETS[dynamics.reset],
        SATURATES=dynamics.low is not None,
        STORED=len(stored) > 0,
    )


def retreat(
    potentials: Tensor,
    spikes: Tensor,
    spike_gradient: Tensor | None,
    potential_gradient: Tensor | None,
    carry: Tensor,
    gradient: Tensor,
    dynamics: Dynamics,
) -> None:
    """See :func:`codesign.train.kernels.retreat`. The spikes are told from the potentials again."""
    size = carry.numel()
    slopes = _spread(dynamics.slope, carry)
    _launch(
        _retreat,
        size,
        potentials,
        potentials if spike_gradient is None else spike_gradient.contiguous(),
        potentials if potential_gradient is None else potential_gradient.contiguous(),
        carry if slopes is None else slopes,
        carry,
        gradient,
        _numbers(dynamics, dynamics.slope, carry),
        len(potentials),
        size,
        (len(potentials) - 1) * size,
        LEAKS=dynamics.leak != "none",
        FACTORS=slopes is not None,
        STRICT=dynamics.strict,
        ZERO=dynamics.threshold is not None and dynamics.reset == "zero",
        SURROGATE=SURROGATES[dynamics.surrogate],
        OF_SPIKES=dynamics.threshold is not None and spike_gradient is not None,
        OF_POTENTIALS=potential_gradient is not None,
        EVERY=gradient.dim() == potentials.dim(),
    )


def _launch(kernel: Any, size: int, *arguments: Any, **flags: Any) -> None:
    """Run a kernel on ``size`` neurons, on the device of its first tensor: Triton would take the current one."""
    device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(triton.cdiv(size, BLOCK),)](*arguments, **flags, BLOCK=BLOCK, enable_fp_fusion=False)


def _spread(value: float | Tensor, state: Tensor) -> Tensor | None:
    """One value for each element of the state; None where a number does for all."""
    if not isinstance(value, Tensor) or value.numel() == 1:
        return None
    return value.expand_as(state).contiguous()


def _numbers(dynamics: Dynamics, factor: float | Tensor, like: Tensor) -> Tensor:
    """(7,) factor, threshold, low, high, peak, scale and half width, on the device: Triton's own are float32."""
    peak, scale, half_width = dynamics.surrogate_numbers
    if isinstance(factor, Tensor):
        # A learnt leak shared by the layer stays on its device; a leak per element is not read here.
        first = factor.reshape(1).to(like) if factor.numel() == 1 else like.new_zeros(1)
        return torch.cat([first, _constants((0.0, *_others(dynamics, peak, scale, half_width)), like)[1:]])
    return _constants((factor, *_others(dynamics, peak, scale, half_width)), like)


def _others(dynamics: Dynamics, *surrogate: float) -> tuple[float, ...]:
    values = (dynamics.threshold, dynamics.low, dynamics.high)
    return (*(0.0 if value is None else float(value) for value in values), *surrogate)


def _constants(values: tuple[float, ...], like: Tensor) -> Tensor:
    return _on_device(values, like.dtype, like.device)


@functools.lru_cache(maxsize=1024)
def _on_device(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


@triton.jit
def _advance(
    current, factors, state, potentials, spikes, stored, numbers, steps, size, current_stride,
    LEAK: tl.constexpr, FACTORS: tl.constexpr, SPIKING: tl.constexpr, STRICT: tl.constexpr, RESET: tl.constexpr,
    SATURATES: tl.constexpr, STORED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    threshold = tl.load(numbers + 1)
    low, high = tl.load(numbers + 2), tl.load(numbers + 3)
    v = tl.load(state + at, mask=inside, other=0.0)
    factor = tl.load(factors + at, mask=inside, other=0.0) if FACTORS else tl.load(numbers)
    for _ in range(steps):
        if LEAK == 1:
            v = v * factor
        elif LEAK == 2:
            v = v - tl.floor(v * factor)
        elif LEAK == 3:
            v = tl.floor(v * factor)
        v = v + tl.load(current + at, mask=inside, other=0.0)
        tl.store(potentials + at, v, mask=inside)
        if SPIKING:
            fired = (v > threshold if STRICT else v >= threshold).to(v.dtype)
            tl.store(spikes + at, fired, mask=inside)
            if RESET == 1:
                v = v - fired * threshold
            elif RESET == 2:
                v = v * (1 - fired)
        else:
            tl.store(spikes + at, tl.zeros_like(v), mask=inside)
        if SATURATES:
            v = tl.where(v < low, low, v)
            v = tl.where(v > high, high, v)
        if STORED:
            tl.store(stored + at, v, mask=inside)
            stored += size
        current += current_stride
        potentials += size
        spikes += size
    tl.store(state + at, v, mask=inside)


@triton.jit
def _inverse(x):
    """1 / x as IEEE rounds it; Triton's own division of float32 does not."""
    one = tl.full(x.shape, 1.0, x.dtype)
    return tl.div_rn(one, x) if x.dtype == tl.float32 else one / x


@triton.jit
def _retreat(
    potentials, spike_gradient, potential_gradient, slopes, carry, gradient, numbers, steps, size, last,
    LEAKS: tl.constexpr, FACTORS: tl.constexpr, STRICT: tl.constexpr, ZERO: tl.constexpr, SURROGATE: tl.constexpr,
    OF_SPIKES: tl.constexpr, OF_POTENTIALS: tl.constexpr, EVERY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    threshold = tl.load(numbers + 1)
    peak, scale, half_width = tl.load(numbers + 4), tl.load(numbers + 5), tl.load(numbers + 6)
    g = tl.load(carry + at, mask=inside, other=0.0)
    slope = tl.load(slopes + at, mask=inside, other=0.0) if FACTORS else tl.load(numbers)
    potentials += last
    spike_gradient += last
    potential_gradient += last
    total = tl.zeros_like(g)
    if EVERY:
        gradient += last
    else:
        total = tl.load(gradient + at, mask=inside, other=0.0)
    for _ in range(steps):
        u = tl.load(potentials + at, mask=inside, other=0.0)
        if LEAKS:
            g = g * slope
        if ZERO:
            g = g * (1 - (u > threshold if STRICT else u >= threshold).to(g.dtype))
        if OF_SPIKES:
            if SURROGATE == 0:
                derivative = (tl.abs(u - threshold) < half_width).to(g.dtype) * peak
            elif SURROGATE == 1:
                x = (u - threshold) * scale
                derivative = _inverse(x * x + 1) * peak
            else:
                x = tl.abs(u - threshold) * scale + 1
                derivative = _inverse(x * x) * peak
            g = g + derivative * tl.load(spike_gradient + at, mask=inside, other=0.0)
        if OF_POTENTIALS:
            g = g + tl.load(potential_gradient + at, mask=inside, other=0.0)
        if EVERY:
            tl.store(gradient + at, g, mask=inside)
            gradient -= size
        else:
            total = total + g
        potentials -= size
        spike_gradient -= size
        potential_gradient -= size
    if not EVERY:
        tl.store(gradient + at, total, mask=inside)
    tl.store(carry + at, g, mask=inside)
