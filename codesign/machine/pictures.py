"""Events of pictures: how they are numbered, and which rows and slots they lead to.

A neuron (c, y, x) of a picture sends events with an address that holds the three side by side, x in the lowest bits:
nobody divides a flat index. The layer behind it turns such an address into the row of its row table that is walked, and
for a convolution into what the row's taps need to find their targets. With stride s, pool q and padding p

    y' = y div q                       events of rows and columns that fill no window are dropped
    phase = (y' + p) mod s             rows are kept by phase, so that only taps that can land are walked
    base = (y' + p) div s
    a tap of kernel row ky = phase + s * step lands on row base - step of the target, if that is one of its rows

and the same for x. Bit k of ``reach`` says whether step k lands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from codesign.contract.network import Convolution, Projection
from codesign.contract.network.connections import Shape
from codesign.contract.network.limits import MAX_KERNEL

Int = npt.NDArray[np.int64]

# Sides of a picture, and steps of a kernel along an axis: their tables are logic.
MAX_SIDE = 256
MAX_STEPS = 8


def side_bits(size: int) -> int:
    """Bits of a coordinate along a side; 0 for a side of one."""
    return (size - 1).bit_length()


def low_bits(shape: Shape) -> int:
    """Bits of y and x together in an address."""
    return side_bits(shape[1]) + side_bits(shape[2])


def addresses(shape: Shape, channel: Int) -> Int:
    """int64 (C * H * W,): address of each neuron; ``channel`` : int64 (C,), number of each channel in addresses."""
    _, height, width = shape
    place = (np.arange(height)[:, None] << side_bits(width)) | np.arange(width)
    return ((channel[:, None, None] << low_bits(shape)) | place).reshape(-1)


@dataclass(frozen=True)
class Axis:
    """What an event's coordinate means to the layer behind, int64 (size,) each; dropped coordinates have reach 0.

    row : part of the row's address. base : part of the slots' base. reach : bit k says whether step k of a tap lands.
    """

    row: Int
    base: Int
    reach: Int


@dataclass(frozen=True)
class PictureInput:
    """How a layer takes the events of a picture.

    shape : the picture that sends. pool : side of a window, 1 without.
    kernel, stride, padding, target : of a convolution, ``target`` being height and width of what it gives; for single
        synapses kernel and target are None, and each pooled neuron has a row of its own.
    """

    shape: Shape
    pool: int = 1
    kernel: tuple[int, int] | None = None
    stride: int = 1
    padding: int = 0
    target: tuple[int, int] | None = None

    @classmethod
    def of(cls, projection: Projection, sender: Shape | None = None) -> PictureInput | None:
        """That of a projection from ``sender``, None if that is no picture; None if neither is the input."""
        connections, pool = projection.connections, projection.pool
        shape, size = projection.source_shape or sender, 1 if pool is None else pool.size
        if shape is None:
            return None
        if isinstance(connections, Convolution):
            _, height, width = connections.out_shape
            return cls(shape, size, connections.kernel, connections.stride, connections.padding, (height, width))
        return cls(shape, size)

    @property
    def is_convolution(self) -> bool:
        return self.kernel is not None

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width behind the pool."""
        return self.shape[1] // self.pool, self.shape[2] // self.pool

    @cached_property
    def y(self) -> Axis:
        return self._axis(0)

    @cached_property
    def x(self) -> Axis:
        return self._axis(1)

    def _axis(self, axis: int) -> Axis:
        """The axis of height (0) or of width (1)."""
        size, pooled = self.shape[1 + axis], self.pooled[axis]
        place = np.arange(size, dtype=np.int64) // self.pool
        inside = place < pooled
        if self.kernel is None or self.target is None:
            factor = self.pooled[1] if axis == 0 else 1
            return Axis(np.where(inside, place * factor, 0), np.zeros(size, np.int64), inside.astype(np.int64))
        kernel, target = self.kernel[axis], self.target[axis]
        phase, base = (place + self.padding) % self.stride, (place + self.padding) // self.stride
        reach = np.zeros(size, np.int64)
        for step in range(self.steps[axis]):
            lands = inside & (phase + self.stride * step < kernel) & (base >= step) & (base - step < target)
            reach |= lands.astype(np.int64) << step
        row, slots = (self.phases[1], self.target[1]) if axis == 0 else (1, 1)
        return Axis(np.where(reach > 0, phase * row, 0), np.where(reach > 0, base * slots, 0), reach)

    @property
    def phases(self) -> tuple[int, int]:
        """Phases along y and x for which there are rows: no more than the kernel has taps."""
        assert self.kernel is not None
        return min(self.stride, self.kernel[0]), min(self.stride, self.kernel[1])

    @property
    def steps(self) -> tuple[int, int]:
        """Steps of a tap along y and x; a step may land nowhere on a small picture."""
        assert self.kernel is not None
        return -(-self.kernel[0] // self.stride), -(-self.kernel[1] // self.stride)

    @property
    def rows_per_channel(self) -> int:
        """Rows of a channel."""
        return prod(self.phases) if self.is_convolution else prod(self.pooled)

    @property
    def row_bits(self) -> int:
        """Bits of a row's number within its channel."""
        return (self.rows_per_channel - 1).bit_length()

    def rows(self, address: Int) -> Int:
        """int64, as ``address``: the row that each event address leads to, -1 if the event is dropped."""
        x_bits = side_bits(self.shape[2])
        x, y = address & ((1 << x_bits) - 1), (address >> x_bits) & ((1 << side_bits(self.shape[1])) - 1)
        row = ((address >> low_bits(self.shape)) << self.row_bits) | (self.y.row[y] + self.x.row[x])
        return np.where((self.y.reach[y] > 0) & (self.x.reach[x] > 0), row, -1)

    def problem(self) -> str | None:
        """Why no machine is built for it, in one line; None if one is."""
        if max(self.shape[1:]) > MAX_SIDE:
            return f"a picture of {self.shape[1]} x {self.shape[2]}, larger than {MAX_SIDE} x {MAX_SIDE}"
        if self.kernel is not None and max(self.kernel) > MAX_KERNEL:
            return f"a kernel of {self.kernel[0]} x {self.kernel[1]}, larger than {MAX_KERNEL} x {MAX_KERNEL}"
        if self.kernel is not None and max(self.kernel) > MAX_STEPS * self.stride:
            height, width = self.kernel
            return f"a kernel of {height} x {width} in steps of {self.stride}, more than {MAX_STEPS} a side"
        return None
