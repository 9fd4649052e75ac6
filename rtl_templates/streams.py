"""Where streams of events part and meet: one sender with several readers, one reader with several senders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Elaboratable, Module, Mux, ShapeLike, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.layouts import index_width


def join(m: Module, sender: Any, receiver: Any) -> None:
    """Connect two streams whose payloads have the same bits, wherever their signals are."""
    m.d.comb += [
        Value.cast(receiver.payload).eq(Value.cast(sender.payload)),
        receiver.valid.eq(sender.valid),
        sender.ready.eq(receiver.ready),
    ]


def stream_suffixes(streams: int) -> list[str]:
    """What names of a stream's parts end in."""
    return [f"_{stream}" for stream in range(streams)] if streams > 1 else [""]


class StreamBuffer(wiring.Component):
    """Two words of a stream in registers, so that neither ``valid`` nor ``ready`` has a way through it.

    Latency 1 clock, throughput one word a clock.

    Members
    -------
    i : In(stream); o : Out(stream).
    """

    def __init__(self, shape: ShapeLike):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        spare = Signal(len(Value.cast(self.i.payload)), reset_less=True)
        has_spare = Signal()
        m.d.comb += self.i.ready.eq(~has_spare)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(has_spare | self.i.valid),
                Value.cast(self.o.payload).eq(Mux(has_spare, spare, Value.cast(self.i.payload))),
                has_spare.eq(0),
            ]
        with m.Elif(self.i.valid & ~has_spare):
            m.d.sync += [spare.eq(Value.cast(self.i.payload)), has_spare.eq(1)]
        return m


class StreamFork(wiring.Component):
    """Every word to each of several readers, which take it when they like; the next comes when all have.

    Latency 0 clocks, throughput one word a clock if all readers are ready.

    Parameters
    ----------
    shape : of a word. count : readers.
    withdraws : whether a word that waits may be withdrawn, for a clock without any (an input guard that drops what is
        left of a decided sample). Readers that have it keep it; the next word is again for all.

    Members
    -------
    i : In(stream); o0, o1, ... : Out(stream), ``outputs`` lists them.
    """

    def __init__(self, shape: ShapeLike, count: int, *, withdraws: bool = False):
        self._count, self._withdraws = count, withdraws
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                **{f"o{number}": Out(stream.Signature(shape)) for number in range(count)},
            }
        )

    @property
    def outputs(self) -> list[Any]:
        return [getattr(self, f"o{number}") for number in range(self._count)]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        has = Signal(self._count)
        takes = Signal(self._count)
        moves = Signal()
        m.d.comb += [
            takes.eq(has | Cat(output.ready for output in self.outputs)),
            moves.eq(takes.all()),
            self.i.ready.eq(moves),
        ]
        for number, output in enumerate(self.outputs):
            m.d.comb += [
                Value.cast(output.payload).eq(Value.cast(self.i.payload)),
                output.valid.eq(self.i.valid & ~has[number]),
            ]
        with m.If(self.i.valid):
            m.d.sync += has.eq(takes & ~moves.replicate(self._count))
        if self._withdraws:
            with m.Else():
                m.d.sync += has.eq(0)
        return m


class EventMerge(wiring.Component):
    """Events of several senders, timestep by timestep; one end when all have ended.

    A sender that has ended waits for the others. A delayed one (the layer's own events of the timestep before) has
    nothing to say in a sample's first timestep, not even an end. Of several events the last sender's goes first.
    Nothing waits for what comes later, so that a merge cannot stop senders whose timesteps are in order.

    Latency 1 clock, throughput one event a clock.

    Parameters
    ----------
    shape : layout of an event, with ``end``.
    delayed : of each sender, whether it is delayed.
    timesteps : of a sample.

    Members
    -------
    i0, i1, ... : In(stream), ``inputs`` lists them. o : Out(stream).
    """

    def __init__(self, shape: ShapeLike, delayed: Sequence[bool], timesteps: int):
        self._delayed = delayed
        self._timesteps = timesteps
        super().__init__(
            {
                **{f"i{number}": In(stream.Signature(shape)) for number in range(len(delayed))},
                "o": Out(stream.Signature(shape)),
            }
        )

    @property
    def inputs(self) -> list[Any]:
        return [getattr(self, f"i{number}") for number in range(len(self._delayed))]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        count = len(self._delayed)
        silent = sum(1 << number for number, late in enumerate(self._delayed) if late)
        ended = Signal(count, init=silent)
        timestep = Signal(unsigned(index_width(self._timesteps)))
        moves = Signal()
        m.d.comb += moves.eq(~self.o.valid | self.o.ready)
        with m.If(moves):
            m.d.sync += self.o.valid.eq(0)
        for number, sender in enumerate(self.inputs):
            m.d.comb += sender.ready.eq(~ended[number] & sender.payload.end)
            with m.If(sender.valid & ~ended[number] & sender.payload.end):
                m.d.sync += ended[number].eq(1)
        # The last assignment wins: later senders go first.
        for number, sender in enumerate(self.inputs):
            others = Cat(
                other.valid & ~ended[place] & ~other.payload.end
                for place, other in enumerate(self.inputs)
                if place > number
            )
            goes = Signal(name=f"goes_{number}")
            m.d.comb += goes.eq(sender.valid & ~ended[number] & ~sender.payload.end & ~others.any() & moves)
            with m.If(goes):
                m.d.comb += sender.ready.eq(1)
                m.d.sync += [Value.cast(self.o.payload).eq(Value.cast(sender.payload)), self.o.valid.eq(1)]
        with m.If(moves & ended.all()):
            at_last = timestep == self._timesteps - 1
            m.d.sync += [
                Value.cast(self.o.payload).eq(0),
                self.o.payload.end.eq(1),
                self.o.valid.eq(1),
                ended.eq(0),
                timestep.eq(timestep + 1),
            ]
            with m.If(at_last):
                m.d.sync += [ended.eq(silent), timestep.eq(0)]
        return m
