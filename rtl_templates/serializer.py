"""From a sweep's words to single events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.plan import SweepWord
from codesign.machine.streams import stream_bits
from rtl_templates.arithmetic import wrap
from rtl_templates.fetcher import event_layout
from rtl_templates.streams import StreamFork


def sweep_word_layout(word: SweepWord) -> data.StructLayout:
    """One slot of a sweep: ``mask`` of the lanes that have something to say, and whether the timestep ends with it.

    With values (last layer of a membrane readout, or one that counts) ``values`` holds each lane's.
    """
    fields: dict[str, Shape | data.Layout] = {
        "end": unsigned(1),
        "slot": unsigned(word.slot_width),
        "mask": unsigned(word.lanes),
    }
    if word.value_width:
        fields["values"] = data.ArrayLayout(signed(word.value_width), word.lanes)
    return data.StructLayout(fields)


def token_layout(word: SweepWord) -> data.StructLayout:
    """What a layer sends: an event of hardware index ``source`` (with its ``value``), or the end of a timestep."""
    layout = event_layout(word.n_addresses)
    fields = dict(layout.members)
    if word.value_width:
        fields["value"] = signed(word.value_width)
    return data.StructLayout(fields)


def serialized(
    m: Module,
    words: Any,
    word: SweepWord,
    streams: int,
    name: str,
    working: Callable[[Any], Elaboratable] = lambda component: component,
) -> list[Any]:
    """The events of a stream of sweep words, in as many streams; the parts' names in ``m`` begin with ``name``.

    working : what is done to each part before it is put into ``m``.
    """
    if streams == 1:
        serializer = SpikeSerializer(word)
        m.submodules[name] = working(serializer)
        wiring.connect(m, words, serializer.i)
        return [serializer.o]
    fork = StreamFork(sweep_word_layout(word), streams)
    m.submodules[f"{name}_fork"] = working(fork)
    wiring.connect(m, words, fork.i)
    found = []
    for number, output in enumerate(fork.outputs):
        serializer = SpikeSerializer(word, number, streams)
        m.submodules[f"{name}_{number}"] = working(serializer)
        wiring.connect(m, output, serializer.i)
        found.append(serializer.o)
    return found


class SpikeSerializer(wiring.Component):
    """Turns words of P lanes into one event a clock, lowest lane first, then the end of the timestep.

    Latency 1 clock, none for a single lane; throughput one event or end a clock, without bubbles between words.
    ``source`` is the hardware index, slot << lane_bits | lane; of a picture the lane stands above the place in the
    channel.

    Of several serializers of a layer each sends the events of one stream (:mod:`codesign.machine.streams`), with their
    addresses in it, and every end. Words without an event of its own it lets pass at once.

    Parameters
    ----------
    word : words of the sending layer's sweep.
    stream, streams : which events it sends; by default all.

    Members
    -------
    i : In(stream of sweep_word_layout); each word has a lane in its mask or is an end.
    o : Out(stream of token_layout).
    """

    def __init__(self, word: SweepWord, number: int = 0, streams: int = 1):
        self._word = word
        self._stream = number
        self._streams = streams
        sent = token_layout(word) if streams == 1 else event_layout(word.stream_span(streams))
        super().__init__(
            {
                "i": In(stream.Signature(sweep_word_layout(word))),
                "o": Out(stream.Signature(sent)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        lanes, lane_bits = self._word.lanes, self._word.lane_bits
        if lanes == 1 and self._streams == 1:
            self._single(m)
            return m
        word = Signal(self.i.payload.shape(), reset_less=True)
        valid = Signal()
        last = Signal()
        rest = Signal(unsigned(lanes))
        lane = Signal(unsigned(max(1, lane_bits)))
        for number in reversed(range(lanes)):
            with m.If(word.mask[number]):
                m.d.comb += lane.eq(number)
        place = self._word.place_bits
        source = Cat(word.slot[:place], lane[:lane_bits], word.slot[place:])
        arrives: Value = self.i.valid
        own: Value = self.i.payload.mask
        if self._streams > 1:
            own = self._own(m)
            arrives = self.i.valid & (own.any() | self.i.payload.end)
            source = Cat(source[:place], source[place + stream_bits(self._streams) :])
        m.d.comb += [
            rest.eq(word.mask & wrap(word.mask - 1, word.mask.shape())),
            last.eq(Mux(word.mask.any(), ~rest.any() & ~word.end, 1)),
            self.o.valid.eq(valid),
            self.o.payload.end.eq(~word.mask.any()),
            self.o.payload.source.eq(wrap(source, self.o.payload.source.shape())),
            self.i.ready.eq(~valid | (self.o.ready & last)),
        ]
        if self._word.value_width:
            m.d.comb += self.o.payload.value.eq(word["values"][lane])
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(arrives), word.eq(self.i.payload)]
            if self._streams > 1:
                m.d.sync += word.mask.eq(own)
        with m.Elif(self.o.ready):
            m.d.sync += word.mask.eq(rest)
        return m

    def _own(self, m: Module) -> Value:
        """Lanes of the word that comes whose events belong to the stream."""
        word, bits = self._word, stream_bits(self._streams)
        # The lowest bits of a unit are its lane's, then its slot's, or its rank's in a picture.
        of_lane = min(bits, word.lane_bits)
        lanes = sum(1 << lane for lane in range(word.lanes) if (lane ^ self._stream) & ((1 << of_lane) - 1) == 0)
        rank = Cat(self.i.payload.slot[word.place_bits :], Const(0, bits))[: bits - of_lane]
        own = Signal(unsigned(word.lanes))
        m.d.comb += own.eq(Mux(rank == self._stream >> of_lane, self.i.payload.mask & lanes, 0))
        return own

    def _single(self, m: Module) -> None:
        """A word of one lane is an event, an end, or both, one after the other."""
        word, sent, more = self.i.payload, Signal(), Signal()
        m.d.comb += [
            more.eq(word.mask & word.end & ~sent),
            self.o.valid.eq(self.i.valid),
            self.o.payload.end.eq(~word.mask | sent),
            self.o.payload.source.eq(wrap(word.slot, self.o.payload.source.shape())),
            self.i.ready.eq(self.o.ready & ~more),
        ]
        if self._word.value_width:
            m.d.comb += self.o.payload.value.eq(word["values"][0])
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += sent.eq(more)
