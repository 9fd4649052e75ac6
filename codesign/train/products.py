"""Products of signals and weights that pass over what is zero, where that is quicker than a dense product.

A large layer whose input is events (0 and 1, few of them 1) adds up the weights of the events alone, and so does the
gradient of its weights. A large convolution of few connections goes over these alone, and so do its gradients. Whether
they do depends on the sizes and the data alone; what torch.compile is given is dense.
The sums are rounded in another order than those of a dense product; on whole numbers, which a dense product sums
exactly, both are equal.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.grad
from torch import Tensor
from torch.autograd.function import once_differentiable

from codesign.train.kernels import native
from codesign.train.kernels.events import Events, find_events
from codesign.train.kernels.taps import PACKED_BYTES, Geometry, Taps, pack

# Multiplications of a dense product from which it pays to look for events.
LEAST_PRODUCTS = 1 << 26
# Density of events up to which their own product is quicker (docs/training-speed.md).
MOST_EVENTS = 0.2
# Density of taps up to which a convolution over them is quicker than a dense one, in float32 and beside bfloat16.
MOST_TAPS, MOST_TAPS_BFLOAT16 = 0.4, 0.2


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


class Connections:
    """Which weights of a convolution there are, for :func:`conv2d`.

    mask : (targets, sources, kernel, kernel), 0 or False where there is none, as it is now; one that changes needs
        another object (:meth:`of`).
    """

    def __init__(self, mask: Tensor) -> None:
        # Kernels read bytes.
        self.mask = (mask.detach() != 0).contiguous()
        self.count = int(self.mask.sum())
        self._made_of = mask, mask._version
        self._taps: dict[tuple[Geometry, bool], Taps] = {}

    @classmethod
    def of(cls, mask: Tensor, known: Connections | None) -> Connections:
        """Those of a mask as it is now: the ``known`` ones if they are of this mask and it was not written since."""
        if known is not None and known._made_of[0] is mask and known._made_of[1] == mask._version:
            return known
        return cls(mask)

    def taps(self, geometry: Geometry, *, turned: bool = False) -> Taps:
        """The taps in the order in which tiles of this geometry go over them."""
        key = geometry, turned
        if key not in self._taps:
            self._taps[key] = Taps.of(self.mask, geometry, self.count, turned=turned)
        return self._taps[key]


def conv2d(
    signal: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    connections: Connections | None = None,
    *,
    every_gradient: bool = True,
) -> Tensor:
    """F.conv2d of a signal (N, channels, height, width), over the taps alone where that is quicker.

    connections : the weights that there are; all others are 0. Without ``every_gradient`` their gradient may be left
        out as 0; a dense product gives it all the same.
    """
    if connections is None or not _pays(signal, weight, stride, padding, connections):
        if signal.shape[1] > 1:
            # Else the sums lie as the signal does, and have to be laid otherwise for the neurons.
            signal = signal.contiguous(memory_format=torch.channels_last)
        return F.conv2d(signal, weight, stride=stride, padding=padding)
    return _TapConv.apply(signal, weight, padding, connections, every_gradient)  # type: ignore[no-any-return]


def _pays(signal: Tensor, weight: Tensor, stride: int, padding: int, connections: Connections) -> bool:
    """True if the product over the taps takes less time than the dense one: by sizes and density alone."""
    kernel = weight.shape[-1]
    if (
        torch.compiler.is_compiling()
        or stride != 1
        or padding >= kernel
        or weight.shape[-2] != kernel
        or min(signal.shape[2:]) + 2 * padding < kernel
        or signal.dtype != weight.dtype
        or not native.usable(signal)
    ):
        return False
    geometry = Geometry.of(signal, kernel, padding)
    places = math.prod(geometry.out)
    if len(signal) * places * weight.numel() < LEAST_PRODUCTS:
        return False
    # Vectors and tiles that are not full take their time all the same.
    filled = len(signal) / (-(-len(signal) // geometry.lanes) * geometry.lanes) * places / geometry.places
    most = MOST_TAPS_BFLOAT16 if torch.is_autocast_enabled(signal.device.type) else MOST_TAPS
    return geometry.is_built and connections.count <= most * filled * weight.numel()


class _TapConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, signal: Tensor, weight: Tensor, padding: int, connections: Connections, every_gradient: bool
    ) -> Tensor:
        kernel = weight.shape[-1]
        geometry = Geometry.of(signal, kernel, padding)
        taps = connections.taps(geometry)
        ctx.options = padding, connections, every_gradient, geometry
        if any(ctx.needs_input_grad[:2]):
            packed = pack(signal, geometry, padding)
            ctx.save_for_backward(packed, weight, signal if every_gradient else None)
            return taps.convolve(packed, weight, len(signal))
        block = signal.element_size() * signal.shape[1] * geometry.height * geometry.width * geometry.lanes
        parts = signal.split(max(1, PACKED_BYTES // block) * geometry.lanes)
        sums = [taps.convolve(pack(part, geometry, padding), weight, len(part)) for part in parts]
        return sums[0] if len(sums) == 1 else torch.cat(sums)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name ctx
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        packed, weight, signal = ctx.saved_tensors
        padding, connections, every_gradient, geometry = ctx.options
        kernel = weight.shape[-1]
        top = kernel - 1 - padding
        samples = len(gradient)
        # Whole tiles of the sums, for the gradient of the weights.
        least = geometry.height - kernel + 1 + top, geometry.width - kernel + 1 + top
        back = Geometry.of(gradient, kernel, top, least)
        upstream = pack(gradient, back, top)
        of_signal = of_weight = None
        if ctx.needs_input_grad[0]:
            taps = connections.taps(back, turned=True)
            of_signal = taps.convolve(upstream, weight, samples)
        if ctx.needs_input_grad[1] and every_gradient:
            of_weight = torch.nn.grad.conv2d_weight(signal, weight.shape, gradient, padding=padding)
        elif ctx.needs_input_grad[1]:
            taps = connections.taps(geometry)
            of_weight = taps.gradients(packed, upstream, top, samples, weight)
        return of_signal, of_weight, None, None, None
