"""Events as the list of their ones, and their products with dense matrices, on the CPU (events.cpp)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from codesign.train.kernels import native

LONGEST = 1 << 31  # indices are int32


@dataclass(frozen=True)
class Events:
    """Ones of a (rows, columns) matrix of 0 and 1, row by row in increasing order (CSR).

    offsets : int64 (rows + 1,). indices : int32 (ones,), their columns.
    """

    rows: int
    columns: int
    offsets: Tensor
    indices: Tensor

    def turned(self) -> Events:
        """The transpose."""
        offsets, indices = self.offsets.new_empty(self.columns + 1), torch.empty_like(self.indices)
        addresses = map(native.address, (self.offsets, self.indices, offsets, indices))
        _library().events_turn(self.rows, self.columns, *addresses)
        return Events(self.columns, self.rows, offsets, indices)

    def times(self, table: Tensor) -> Tensor:
        """(rows, columns) @ (columns, width) -> (rows, width), every sum added in the order of its columns."""
        table = table.contiguous()
        width = table.shape[1]
        strip = native.function("events_strip", table)()
        # Memory of torch's allocator is aligned to 64 bytes, the longest vector.
        packed = table.new_empty((-(-width // strip), self.columns, strip))
        out = table.new_empty((self.rows, width))
        addresses = map(native.address, (self.offsets, self.indices, table, packed, out))
        native.function("events_gather", table)(self.rows, self.columns, width, *addresses, torch.get_num_threads())
        return out


def find_events(signal: Tensor, most: float) -> Events | None:
    """The ones of a (rows, columns) signal; None if they are more than ``most`` of it, or not all else is 0.

    The signal has a dtype and device that :func:`codesign.train.kernels.native.usable` accepts.
    """
    signal = signal.contiguous()
    rows, columns = signal.shape
    if max(rows, columns) >= LONGEST:
        return None
    threads = torch.get_num_threads()
    offsets = torch.empty(rows + 1, dtype=torch.int64)
    whole = native.function("events_count", signal)(
        rows, columns, native.address(signal), native.address(offsets), threads
    )
    found = int(offsets[-1])
    if not whole or found > most * signal.numel():
        return None
    indices = torch.empty(found, dtype=torch.int32)
    addresses = map(native.address, (signal, offsets, indices))
    native.function("events_fill", signal)(rows, columns, *addresses, threads)
    return Events(rows, columns, offsets, indices)


def _library() -> ctypes.CDLL:
    found = native.library()
    assert found is not None
    return found
