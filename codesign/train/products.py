"""Products of signals and weights that pass over what is zero, where that is quicker than a dense product.

A large layer whose input is events (0 and 1, few of them 1) adds up the weights of the events alone, and so does the
gradient of its weights. Whether it does depends on the sizes and the data alone; what torch.compile is given is dense.
The sums are rounded in another order than those of a dense product; on whole numbers, which a dense product sums
exactly, both are equal.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from codesign.train.kernels import native
from codesign.train.kernels.events import Events, find_events

# Multiplications of a dense product from which it pays to look for events.
LEAST_PRODUCTS = 1 << 26
# Density of events up to which their own product is quicker (docs/training-speed.md).
MOST_EVENTS = 0.2


def linear(signal: Tensor, weight: Tensor) -> Tensor:
    """``signal`` (N, sources) times the transpose of ``weight`` (targets, sources): (N, targets), as F.linear."""
    if (
        math.prod((len(signal), *weight.shape)) >= LEAST_PRODUCTS
        and signal.dtype == weight.dtype
        and native.usable(signal)
        and not torch.is_autocast_enabled(signal.device.type)
        and not torch.compiler.is_compiling()
        and (events := find_events(signal.detach(), MOST_EVENTS)) is not None
    ):
        return _EventLinear.apply(signal, weight, events)  # type: ignore[no-any-return]
    return F.linear(signal, weight)


class _EventLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, signal: Tensor, weight: Tensor, events: Events) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.events = events
        return events.times(weight.t())

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name ctx
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        (weight,) = ctx.saved_tensors
        of_signal = gradient @ weight if ctx.needs_input_grad[0] else None
        # Laid out as the weights are: optimisers are slow where it is otherwise.
        of_weight = ctx.events.turned().times(gradient).t().contiguous() if ctx.needs_input_grad[1] else None
        return of_signal, of_weight, None
