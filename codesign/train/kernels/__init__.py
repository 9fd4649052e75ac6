"""Arithmetic of the neurons over timesteps, behind :mod:`codesign.train.lif`. Knows tensors only, no networks.

:mod:`~codesign.train.kernels.plain` is torch operations and runs on every device;
:mod:`~codesign.train.kernels.native` does the same in one pass on the CPU, compiled at first use,
:mod:`~codesign.train.kernels.fused` on a GPU, with the same bits. Which one runs is told from the tensors.
CODESIGN_KERNELS=plain chooses torch's operations; CODESIGN_KERNELS=triton the GPU's kernel on the CPU too, where
Triton's interpreter runs it (TRITON_INTERPRET=1), for tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from types import ModuleType

from torch import Tensor

from codesign.train.kernels import native, plain
from codesign.train.kernels.dynamics import Dynamics

__all__ = ["Dynamics", "advance", "retreat"]


def advance(
    current: Tensor, state: Tensor, potentials: Tensor, spikes: Tensor, stored: Tensor, dynamics: Dynamics
) -> None:
    """Steps of a layer, in place. All tensors are contiguous, of one dtype (float32 or float64) and device.

    current : (T, B, *shape), or (B, *shape) for the same at every step.
    state : (B, *shape) stored membrane before the first step; after the call that of the last step.
    potentials, spikes : (T, B, *shape), written.
    stored : (T, B, *shape), written, or (0, B, *shape) where nobody asks for it.
    """
    steps = _steps(current, dynamics)
    steps.advance(current, state, potentials, spikes, stored, dynamics)


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
    steps = _steps(potentials, dynamics)
    steps.retreat(potentials, spikes, spike_gradient, potential_gradient, carry, gradient, dynamics)


def _steps(tensor: Tensor, dynamics: Dynamics) -> ModuleType:
    """The quickest that takes such tensors; neurons with thresholds of their own only torch's operations know."""
    wanted = os.environ.get("CODESIGN_KERNELS")
    if dynamics.per_neuron or wanted == "plain":
        return plain
    if (tensor.is_cuda or wanted == "triton") and tensor.dtype in native.SUFFIX:
        return _fused() or plain
    return native if native.usable(tensor) else plain


@functools.cache
def _fused() -> ModuleType | None:
    """The GPU's kernels; None where Triton is missing."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("codesign.train.kernels.fused")
