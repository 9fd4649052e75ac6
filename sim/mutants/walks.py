"""What events of a picture walk, by the rules of docs/machine.md ("Pictures"), faults included.

All of it is written down a second time here, from the sidecar alone, so that a machine with a fault in its reader, its
place counters or the landing of its taps can be described.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from codesign.contract.sidecar import LayerEntry, PictureInput

Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
# Whether taps land: (reach_y, reach_x, dy, dx) of each, to bool.
Land = Callable[[Int, Int, Int, Int], Bool]


@dataclass(frozen=True)
class Axis:
    """Tables of a coordinate, int64 (size,) each: part of the row, part of the base, and a bit for each step that
    lands."""

    row: Int
    base: Int
    reach: Int

    @property
    def columns(self) -> dict[str, Int]:
        return {"row": self.row, "base": self.base, "reach": self.reach}

    def cut_to(self, other: Axis) -> Axis:
        """The tables with their values cut to the bits that another's take."""
        return Axis(
            *(
                column & ((1 << max(1, int(wide.max()).bit_length())) - 1)
                for column, wide in zip(self.columns.values(), other.columns.values(), strict=True)
            )
        )


@dataclass(frozen=True)
class Axes:
    """Tables of y and of x."""

    y: Axis
    x: Axis


def axes_of(entry: LayerEntry, reads: PictureInput, *, pool: int, padding: int | None, drops: bool = True) -> Axes:
    """Tables of a layer that reads a picture, with a pool and a padding that may be others than the picture's.

    padding : None for the layer's own. drops : whether rows and columns that fill no window are dropped.
    """
    picture, kernel = reads.picture, reads.convolution
    found = []
    for along, size in enumerate((picture.height, picture.width)):
        pooled = size // pool
        place = np.arange(size, dtype=np.int64) // pool
        inside = (place < pooled) | (not drops)
        if kernel is None or entry.picture is None:
            row = place * (reads.pooled[1] if along == 0 else 1)
            found.append(Axis(row * inside, np.zeros(size, np.int64), inside.astype(np.int64)))
            continue
        taps, width = (kernel.height, kernel.width)[along], entry.picture.width
        target = (entry.picture.height, width)[along]
        padded = place + (kernel.padding if padding is None else padding)
        phase, base = padded % kernel.stride, padded // kernel.stride
        reach = np.zeros(size, np.int64)
        for tap in range(taps):
            # The tap of a kernel row reaches the target row that has the source in its window there.
            row, rest = np.divmod(padded - tap, kernel.stride)
            reach |= (inside & (rest == 0) & (row >= 0) & (row < target)).astype(np.int64) << (tap // kernel.stride)
        lands = reach > 0
        rows, slots = (reads.phases[1], width) if along == 0 else (1, 1)
        found.append(Axis(phase * rows * lands, base * slots * lands, reach))
    return Axes(*found)


@dataclass(frozen=True)
class Events:
    """What events of some addresses lead to, int64 (n,) each: the row, -1 if dropped, the stream of its tables, and
    what a tap needs to land."""

    row: Int
    stream: Int
    base: Int
    reach_y: Int
    reach_x: Int

    def from_row(self, first: int) -> Events:
        """The same with rows counted from ``first``."""
        return replace(self, row=np.where(self.row >= 0, self.row + first, -1))

    def of_stream(self, stream: int) -> Events:
        """The same with those of other streams dropped."""
        return replace(self, row=np.where(self.stream == stream, self.row, -1))

    @classmethod
    def joined(cls, parts: Sequence[Events]) -> Events:
        """Events one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def events_at(reads: PictureInput, axes: Axes, address: Int, streams: int) -> Events:
    """What the reader makes of addresses; the lowest bits of a channel tell in which of the streams an event comes."""
    picture = reads.picture
    x = address & ((1 << picture.x_bits) - 1)
    y = (address >> picture.x_bits) & ((1 << (picture.place_bits - picture.x_bits)) - 1)

    def looked_up(axis: Axis, at: Int) -> list[Int]:
        # Coordinates beyond the picture find 0.
        wide = (np.append(column, np.zeros(int(at.max(initial=0)) + 1, np.int64)) for column in axis.columns.values())
        return [column[at] for column in wide]

    (row_y, base_y, reach_y), (row_x, base_x, reach_x) = looked_up(axes.y, y), looked_up(axes.x, x)
    within = (row_y + row_x) & ((1 << reads.row_bits) - 1)
    channel, stream = np.divmod(address >> picture.place_bits, streams)
    row = np.where((reach_y > 0) & (reach_x > 0), (channel << reads.row_bits) | within, -1)
    return Events(row, stream, base_y + base_x, reach_y, reach_x)


@dataclass(frozen=True)
class Walk:
    """Words that events walk in one lane, one after the other, int64 (n,) each, by number of the event.

    holds : whether a sum is changed. A slot of a lane beyond the last is none.
    """

    event: Int
    word: Int
    slot: Int
    weight: Int
    holds: Bool

    @classmethod
    def joined(cls, parts: Sequence[Walk]) -> Walk:
        """What several lots of events walk, by number of the event."""
        columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        order = np.argsort(columns["event"], kind="stable")
        return cls(**{name: column[order] for name, column in columns.items()})


def lands(reach_y: Int, reach_x: Int, dy: Int, dx: Int) -> Bool:
    """Whether taps land, as they should."""
    return ((reach_y >> dy) & (reach_x >> dx) & 1).astype(bool)


def walk_of(rows: dict[str, Int], synapses: dict[str, Int], events: Events, slot_bits: int, land: Land = lands) -> Walk:
    """What a lane walks for some events, from its tables. Raises IndexError past their ends."""
    comes = np.flatnonzero(events.row >= 0)
    start, count = rows["start"][events.row[comes]], rows["count"][events.row[comes]]
    event = np.repeat(comes, count)
    word = np.arange(event.size) + np.repeat(start - (np.cumsum(count) - count), count)
    slot, weight = synapses["slot"][word], synapses["weight"][word]
    holds = np.ones(event.size, bool)
    if "dy" in synapses:
        slot = (slot + events.base[event]) & ((1 << slot_bits) - 1)
        holds = land(events.reach_y[event], events.reach_x[event], synapses["dy"][word], synapses["dx"][word])
    return Walk(event, word, slot, weight, holds)
