# amaranth: UnusedElaboratable=no

"""Where events of a picture lead, against the definition of a convolution, for every event, tap and target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Mux, Signal, Value

from codesign.contract.network import (
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Projection,
    SumPool,
    Synapses,
)
from codesign.machine.mapping import map_network
from codesign.machine.pictures import PictureInput
from codesign.machine.plan import plan_machine
from rtl_templates.picture import PictureReader

from .defects import Defect, Edit
from .harness import Harness
from .proof import Proof

SHAPE = (2, 5, 6)
KERNELS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (2, 3), (5, 1), (1, 4))
STRIDES = (1, 2, 3)
PADDINGS = (0, 1, 2)


@dataclass(frozen=True)
class Reading:
    """How a layer reads :data:`SHAPE`: through a pool, by a convolution or by single synapses (``kernel`` None)."""

    pool: int
    kernel: tuple[int, int] | None = None
    stride: int = 1
    padding: int = 0

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width behind the pool."""
        return SHAPE[1] // self.pool, SHAPE[2] // self.pool

    @property
    def target(self) -> tuple[int, int]:
        """Height and width of what a convolution gives."""
        assert self.kernel is not None
        height, width = (
            (side + 2 * self.padding - taps) // self.stride + 1
            for side, taps in zip(self.pooled, self.kernel, strict=True)
        )
        return height, width

    @property
    def fits(self) -> bool:
        """Whether there is such a layer."""
        if self.kernel is None:
            return True
        sides = zip(self.pooled, self.kernel, strict=True)
        return self.padding < max(self.kernel) and all(side + 2 * self.padding >= taps for side, taps in sides)

    @property
    def lands(self) -> bool:
        """Whether any tap of a convolution lands on any target: with a stride all of a small kernel may meet zeros."""
        assert self.kernel is not None
        places = [
            {place * self.stride + tap - self.padding for place in range(target) for tap in range(taps)}
            & {*range(side)}
            for target, taps, side in zip(self.target, self.kernel, self.pooled, strict=True)
        ]
        return all(places)

    def reader(self) -> PictureReader:
        """The delivered component."""
        shape = (SHAPE[0], *self.pooled)
        if self.kernel is None:
            connections: Convolution | Synapses = Synapses.from_dense(np.ones((shape[0] * shape[1] * shape[2], 2), int))
        else:
            taps = np.ones((1, shape[0], *self.kernel), int)
            connections = Convolution.from_dense(taps, shape, self.stride, self.padding)
        projection = Projection(-1, connections, SumPool(SHAPE, self.pool))
        layer = FrozenLayer.from_projections([projection], threshold=1)
        network = FrozenNetwork((layer,), 1, InputCoding("events"))
        return PictureReader(plan_machine(network, map_network(network, [1])).engines[0])


def all_readings(pool: int) -> list[Reading]:
    """Single synapses, and every kernel, stride and padding that fits behind the pool."""
    found = [Reading(pool, kernel, *moves) for kernel, *moves in product(KERNELS, STRIDES, PADDINGS)]
    return [Reading(pool), *(reading for reading in found if reading.fits)]


class PictureHarness(Harness):
    """Readers of one picture, and one event, tap and target, each of them any.

    The tap lands on the target if and only if the definition says so: target * stride + tap - padding is where the
    event is, behind the pool. A tap (ky, kx) stands in the row of its phases, ky mod stride and kx mod stride, with its
    steps, ky div stride and kx div stride (docs/machine.md).
    """

    def __init__(self, readings: Sequence[Reading]):
        super().__init__()
        self.readings = readings
        self.readers = [reading.reader() for reading in readings]

    def build(self) -> None:
        m, first = self.m, self.readers[0]
        event = self.free(first.i.payload.shape(), "event")
        offer, ready = self.free(1, "offer"), self.free(1, "ready")
        chosen = {name: self.constant(3, name) for name in ("tap_y", "tap_x", "target_y", "target_x")}
        for number, (reading, reader) in enumerate(zip(self.readings, self.readers, strict=True)):
            m.submodules[f"reader{number}"] = reader
            m.d.comb += [
                Value.cast(reader.i.payload).eq(event),
                reader.i.valid.eq(offer),
                reader.o.ready.eq(ready),
            ]
            held = Signal(first.i.payload.shape(), name=f"held{number}")
            waits = Signal(name=f"waits{number}")
            self.require(reader.i.ready == (~reader.o.valid | ready))
            with m.If(self.running & reader.i.ready):
                m.d.sync += [Value.cast(held).eq(event), waits.eq(offer)]
            self._judge(reading, reader, held, waits, chosen)

    def _judge(
        self, reading: Reading, reader: PictureReader, held: Any, waits: Signal, chosen: dict[str, Signal]
    ) -> None:
        out = reader.o.payload
        _, height, width = SHAPE
        x_bits, y_bits = (width - 1).bit_length(), (height - 1).bit_length()
        word = Value.cast(held.source)
        x, y, channel = word[:x_bits], word[x_bits : x_bits + y_bits], word[x_bits + y_bits :]
        rows, columns = reading.pooled
        at_y, at_x = y // reading.pool, x // reading.pool
        inside = (y < height) & (x < width) & (at_y < rows) & (at_x < columns)
        row_bits = len(Value.cast(out.source)) - len(channel)
        row, of_channel = Value.cast(out.source)[:row_bits], Value.cast(out.source)[row_bits:]
        passes = reader.o.valid & ~out.end
        self.require(~reader.o.valid | (out.end == held.end))
        self.require(~passes | (of_channel == channel))
        if reading.kernel is None:
            self.require(reader.o.valid == (waits & (held.end | inside)))
            self.require(~passes | (row == at_y * columns + at_x))
            self.cover(passes & (row == rows * columns - 1))
            return
        taps, target, stride, padding = reading.kernel, reading.target, reading.stride, reading.padding

        def meets(tap: Value | int, place: Value | int, at: Value) -> Value:
            return Value.cast(place) * stride + tap == at + padding

        def some(axis: int, at: Value) -> Value:
            return Cat(meets(tap, place, at) for tap in range(taps[axis]) for place in range(target[axis])).any()

        self.require(reader.o.valid == (waits & (held.end | (inside & some(0, at_y) & some(1, at_x)))))
        ky, kx, to_y, to_x = chosen.values()
        is_any = (ky < taps[0]) & (kx < taps[1]) & (to_y < target[0]) & (to_x < target[1])
        lands = Signal()
        self.m.d.comb += lands.eq(passes & inside & meets(ky, to_y, at_y) & meets(kx, to_x, at_x))
        phases = min(stride, taps[1])
        found = passes & (row == (ky % stride) * phases + kx % stride)
        for reach, tap, size in ((out.reach_y, ky, taps[0]), (out.reach_x, kx, taps[1])):
            found &= Cat(Value.cast(reach), Const(0, 8)).bit_select(Mux(tap < size, tap // stride, 7), 1)
        base = Value.cast(out.base)
        slot = (base - (ky // stride) * target[1] - kx // stride)[: len(base)]
        found &= slot == (to_y * target[1] + to_x)[: len(base)]
        self.require(~is_any | (lands == found))
        if reading.lands:
            self.cover(is_any & lands)


def _picture(pool: int) -> Proof:
    readings = all_readings(pool)

    def harness() -> Harness:
        return PictureHarness(readings)

    # Few readers show a defect as well.
    few = [Reading(pool), Reading(pool, (2, 2)), Reading(pool, (2, 2), 1, 1), Reading(pool, (2, 3), 2, 1)]

    def seeded(name: str, owner: type, pattern: str, text: str, method: str = "elaborate") -> Defect:
        found: Callable[[], Harness] = lambda: PictureHarness(few)  # noqa: E731
        return Defect(name, Edit(owner, pattern, text, method), found)

    return Proof(
        f"picture-{pool}",
        "an event is dropped or leads to its row, and a tap of that lands on a target, if and only if the definition "
        "of the convolution says so",
        f"PictureReader, {len(readings)} of a picture {' x '.join(map(str, SHAPE))}"
        + (f" behind a pool of {pool} x {pool}" if pool > 1 else "")
        + ": single synapses, kernels up to 5 x 5, strides up to 3, paddings up to 2",
        "bmc",
        4,
        harness,
        (
            seeded("base of x not added", PictureReader, r"base_y \+ base_x", "base_y"),
            seeded("row of x not added", PictureReader, r"row_y \+ row_x", "row_y"),
            seeded("reach of x for y", PictureReader, r"reach_y\.eq\(reach_y\)", "reach_y.eq(reach_x)"),
            seeded("events that lead nowhere pass", PictureReader, r"reach_y\.any\(\) & reach_x", "reach_y"),
            seeded("taps land beyond the last row", PictureInput, r" & \(base - step < target\)", "", "_axis"),
            seeded("taps land before the first row", PictureInput, r" & \(base >= step\)", "", "_axis"),
            seeded("padding left out of the phase", PictureInput, r"\(place \+ self\.padding\) %", "place %", "_axis"),
        ),
        4,
    )


def picture_proofs() -> list[Proof]:
    """Every proof of pictures."""
    return [_picture(pool) for pool in (1, 2)]
