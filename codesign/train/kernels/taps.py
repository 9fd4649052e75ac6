"""Convolutions of stride 1 over the taps that there are, on the CPU (taps.cpp)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from codesign.train.kernels import native

# Bytes of a signal that are packed at once where no gradient needs them later.
PACKED_BYTES = 1 << 26
LONGEST = 1 << 31  # places in a packed signal are int32


@dataclass(frozen=True)
class Geometry:
    """How the output of a convolution is cut into tiles: for a dtype, a size of output and a kernel.

    out : height and width of the output. rows : of a tile. height, width : of the packed signal, zeros included.
    group : sources that are added up at once. lanes : samples side by side in a vector. places : of all tiles, those
    beyond the output included.
    """

    out: tuple[int, int]
    rows: int
    height: int
    width: int
    group: int
    lanes: int
    places: int

    @classmethod
    def of(cls, signal: Tensor, kernel: int, padding: int, least: tuple[int, int] = (0, 0)) -> Geometry:
        """For a signal (N, channels, height, width), which is packed into ``least`` (height, width) or more."""
        found = native.library()
        assert found is not None
        height, width = (size + 2 * padding - kernel + 1 for size in signal.shape[2:])
        rows = found.taps_rows(width)
        columns = found.taps_tile() // rows
        high, wide = -(-height // rows) * rows, -(-width // columns) * columns
        group = native.function("taps_group", signal)(rows, kernel)
        lanes = native.function("taps_lanes", signal)()
        packed = max(high + kernel - 1, least[0]), max(wide + kernel - 1, least[1])
        return cls((height, width), rows, packed[0], packed[1], group, lanes, high * wide)

    @property
    def is_built(self) -> bool:
        """False for pictures so large that places do not fit their index."""
        return self.group * self.height * self.width * self.lanes < LONGEST


@dataclass(frozen=True)
class Taps:
    """The weights that there are of a convolution, in the order in which a tile adds them up.

    targets, sources : channels. offsets : int32, of each group of sources and target the first tap. at : int32, place
    of a tap's source in the packed signal. flat : int64, index of a tap in the weights.
    """

    targets: int
    sources: int
    geometry: Geometry
    offsets: Tensor
    at: Tensor
    flat: Tensor

    @classmethod
    def of(cls, mask: Tensor, geometry: Geometry, count: int, *, turned: bool = False) -> Taps:
        """Of a bool mask (targets, sources, kernel, kernel) with ``count`` ones; ``turned``: for the gradient back."""
        found = native.library()
        assert found is not None
        targets, sources, kernel, _ = mask.shape
        if turned:
            targets, sources = sources, targets
        offsets = torch.empty(-(-sources // geometry.group) * targets + 1, dtype=torch.int32)
        at, flat = torch.empty(count, dtype=torch.int32), torch.empty(count, dtype=torch.int64)
        found.taps_index(
            targets,
            sources,
            kernel,
            turned,
            geometry.group,
            geometry.height,
            geometry.width,
            geometry.lanes,
            *map(native.address, (mask.contiguous(), offsets, at, flat)),
        )
        return cls(targets, sources, geometry, offsets, at, flat)

    def sizes(self, samples: int) -> native.Sizes:
        found = self.geometry
        groups = -(-self.sources // found.group)
        return native.Sizes(
            samples, self.sources, self.targets, *found.out, found.height, found.width, found.group, groups
        )

    def convolve(self, packed: Tensor, weight: Tensor, samples: int) -> Tensor:
        """Sums (samples, targets, height, width), channels last, of a packed signal; weights as the mask lies."""
        out = packed.new_empty((samples, *self.geometry.out, self.targets))
        values = weight.reshape(-1).index_select(0, self.flat)
        native.function("taps_convolve", packed)(
            ctypes.byref(self.sizes(samples)),
            self.geometry.rows,
            *map(native.address, (self.offsets, self.at, values, packed, out)),
            torch.get_num_threads(),
        )
        return out.permute(0, 3, 1, 2)

    def gradients(self, packed: Tensor, upstream: Tensor, top: int, samples: int, like: Tensor) -> Tensor:
        """Gradient of the weights, 0 where no tap is, for the packed signal and the packed gradient of the sums.

        top : zeros before the gradient.
        """
        tiled = (size - like.shape[-1] + 1 + top for size in (self.geometry.height, self.geometry.width))
        # Tiles that reach beyond the sums read what must be there.
        assert all(there >= wanted for there, wanted in zip(upstream.shape[2:4], tiled, strict=True))
        values = packed.new_empty(len(self.flat))
        native.function("taps_gradients", packed)(
            ctypes.byref(self.sizes(samples)),
            self.geometry.rows,
            top,
            *upstream.shape[2:4],
            *map(native.address, (self.offsets, self.at, packed, upstream, values)),
            torch.get_num_threads(),
        )
        out = torch.zeros_like(like)
        out.view(-1)[self.flat] = values
        return out


def pack(signal: Tensor, geometry: Geometry, top: int) -> Tensor:
    """A signal (N, channels, height, width) as (blocks, channels, *packed, lanes), ``top`` zeros before it."""
    laid = signal.permute(0, 2, 3, 1).contiguous()
    samples, height, width, channels = laid.shape
    blocks = -(-samples // geometry.lanes)
    out = signal.new_empty((blocks, channels, geometry.height, geometry.width, geometry.lanes))
    native.function("taps_pack", signal)(
        samples,
        height,
        width,
        channels,
        native.address(laid),
        top,
        geometry.height,
        geometry.width,
        native.address(out),
        torch.get_num_threads(),
    )
    return out
