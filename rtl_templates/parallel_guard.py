"""The door for several events a clock: words to streams, checked and framed, so that nothing behind can be confused."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.contract.network import FrozenNetwork
from codesign.contract.network.connections import Shape
from codesign.machine.capacity import Capacity
from codesign.machine.layouts import END, index_width, input_word
from codesign.machine.pictures import low_bits
from codesign.machine.plan import guard_depth
from codesign.machine.streams import span_within, stream_bits
from rtl_templates.arithmetic import record_layout, wrap
from rtl_templates.beats import beat_layout
from rtl_templates.fetcher import event_layout
from rtl_templates.guard import DUPLICATE, EARLY_LAST, MISSING_LAST, OUT_OF_RANGE, SeenSources, input_span, is_inside
from rtl_templates.streams import StreamBuffer, join


class StreamCheck(wiring.Component):
    """Events of one stream of inputs, each at most once between two ends, and only of sources that there are.

    Operation: rule 2 of :class:`rtl_templates.guard.InputGuard`; ends pass. Latency 3 clocks, throughput one event a
    clock; while the memory of seen sources is cleared, ``i.ready`` is 0.

    Parameters
    ----------
    span : addresses that an event has within the stream. streams, number : of streams, and of this one.
    most_inputs : inputs, or the most of a loadable machine. is_free : whether their number is the signal ``n_inputs``.
    picture : (channels, height, width) if sources are addresses in one. value_bits : of the value of an event.
    can_drop : whether there is ``drop``.

    Members
    -------
    i, o : In, Out(stream of event_layout), addresses within the stream.
    n_inputs : In, of a loadable machine. drop : In(1), only with ``can_drop``: events are checked but not passed on.
    duplicate_error, range_error : Out(1), pulses.
    """

    def __init__(
        self,
        span: int,
        number: int,
        streams: int,
        *,
        most_inputs: int,
        is_free: bool,
        picture: Shape | None,
        value_bits: int,
        can_drop: bool,
    ):
        self._span, self._number, self._streams = span, number, streams
        self._most_inputs, self._is_free, self._picture = most_inputs, is_free, picture
        self._value_bits, self._can_drop = value_bits, can_drop
        events = stream.Signature(event_layout(span, value_bits))
        super().__init__(
            {
                "i": In(events),
                "o": Out(events),
                "duplicate_error": Out(1),
                "range_error": Out(1),
                **({"n_inputs": In(unsigned(most_inputs.bit_length()))} if is_free else {}),
                **({"drop": In(1)} if can_drop else {}),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        event = self.i.payload
        looking = Signal()
        looked = Signal(event.shape(), reset_less=True)
        valid = Signal()
        held = Signal(event.shape(), reset_less=True)
        in_range = Signal()
        consume = Signal()
        accept = Signal()
        moves = Signal()
        marks = Signal()
        ends = Signal()
        seen = SeenSources(
            m,
            guard_depth(self._span),
            accept=accept,
            accepted=event.source,
            moves=moves,
            looked=looked.source,
            marks=marks,
            marked=held.source,
            ends=ends,
        )
        place = low_bits(self._picture) if self._picture else 0
        whole = Cat(looked.source[:place], Const(self._number, stream_bits(self._streams)), looked.source[place:])
        active = Signal()
        sends_event = Signal()
        sends_end = Signal()
        passes = active & ~held.end & in_range & ~seen.duplicate
        dropped = self.drop if self._can_drop else Const(0)
        m.d.comb += [
            moves.eq(looking & (~valid | consume)),
            self.i.ready.eq(~seen.clearing & (~looking | moves)),
            accept.eq(self.i.valid & self.i.ready),
            *seen.reads,
            *seen.writes,
            active.eq(valid & ~seen.clearing),
            sends_event.eq(passes & ~dropped),
            sends_end.eq(active & held.end),
            # A dropped event is marked all the same, so that its repetition is an error.
            marks.eq(passes & (dropped | self.o.ready)),
            ends.eq(sends_end & self.o.ready),
            consume.eq(Mux(sends_event | sends_end, self.o.ready, ~seen.clearing)),
            self.o.valid.eq(sends_event | sends_end),
            Value.cast(self.o.payload).eq(Value.cast(held)),
            self.duplicate_error.eq(active & ~held.end & in_range & seen.duplicate),
            self.range_error.eq(active & ~held.end & ~in_range),
        ]
        with m.If(accept):
            m.d.sync += [looking.eq(1), looked.eq(event)]
        with m.Elif(moves):
            m.d.sync += looking.eq(0)
        n_inputs: Value | int = self.n_inputs if self._is_free else self._most_inputs
        with m.If(moves):
            m.d.sync += [valid.eq(1), held.eq(looked), in_range.eq(is_inside(whole, n_inputs, self._picture))]
        with m.Elif(consume):
            m.d.sync += valid.eq(0)
        seen.follow()
        return m


class ParallelGuard(wiring.Component):
    """Words of input beats to R streams of events; whatever comes in, every sample has exactly its T ends.

    Operation: of the words that wait, each stream takes the first that belongs to it; no word passes an end of a
    timestep. An end goes to all streams at once, when the words before it have gone. The rules are those of
    :class:`rtl_templates.guard.InputGuard`, framing for all streams together, sources for each apart
    (:class:`StreamCheck`). Without checks whatever breaks a rule is undefined.

    Latency 5 clocks, 2 without checks; throughput a word a clock of each stream; an end takes a clock. What leaves is
    buffered, since whether a layer has room is known late.

    Parameters
    ----------
    network : the frozen network. words : of a beat. width : bits of a word, whole bytes. streams : 2 or more.
    checks : whether there are any.
    capacity, picture, can_drop : as of :class:`rtl_templates.guard.InputGuard`.

    Members
    -------
    i : In(stream of beat_layout).
    o0, o1, ... : Out(stream of event_layout), addresses within the stream; ``outputs`` lists them.
    protocol_error, in_progress, drop, n_inputs, last_timestep : as of InputGuard.
    finished : Out(1), pulse: the sample's last end is on its way.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        words: int,
        width: int,
        streams: int,
        capacity: Capacity | None = None,
        *,
        checks: bool = True,
        picture: Shape | None = None,
        can_drop: bool = False,
    ):
        self._words, self._streams, self._checks, self._can_drop = words, streams, checks, can_drop
        self._network, self._picture = network, picture
        self._most = input_span(network, picture, capacity)
        self._most_timesteps = capacity.timesteps if capacity else network.timesteps
        self._is_current = network.coding.is_current
        self._most_inputs = capacity.n_inputs if capacity else network.n_inputs
        self._is_free = capacity is not None and checks
        self._counts = self._is_free and not self._is_current
        self._span = span_within(self._most, low_bits(picture) if picture else 0, streams)
        events = stream.Signature(event_layout(self._span, network.coding.input_bits))
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(words, width))),
                **{f"o{number}": Out(events) for number in range(streams)},
                "protocol_error": Out(4),
                "in_progress": Out(1),
                "finished": Out(1),
                **({"drop": In(1)} if can_drop else {}),
                **({"n_inputs": In(unsigned(self._most_inputs.bit_length()))} if self._is_free else {}),
                **({"last_timestep": In(unsigned(index_width(self._most_timesteps)))} if self._counts else {}),
            }
        )

    @property
    def outputs(self) -> list[Any]:
        return [getattr(self, f"o{number}") for number in range(self._streams)]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        words, streams = range(self._words), range(self._streams)
        layout = record_layout(input_word(self._network, self._most))
        step = self.i.payload.shape()["keep"].shape.width // self._words
        held = [Signal(layout, name=f"word{k}", reset_less=True) for k in words]
        # Bit k: word k waits. `last`: the beat ends with tlast, which has not been dealt with.
        waiting = Signal(self._words)
        last = Signal()
        leaving = Signal(self._words)
        closes = Signal()
        dropping = Signal()

        place = low_bits(self._picture) if self._picture else 0
        bits = stream_bits(self._streams)
        local = [Signal(event_layout(self._span).members["source"], name=f"local{k}") for k in words]
        # The mutants find it by this name.
        belongs = [Signal(bits, name=f"belongs_{k}") for k in words]
        for k, word in enumerate(held):
            source = Cat(word.source, Const(0, place + bits))
            m.d.comb += [
                belongs[k].eq(wrap(source[place:] & (self._streams - 1), unsigned(bits))),
                local[k].eq(wrap(Cat(source[:place], source[place + bits :]), local[k].shape())),
            ]
        is_end = Signal(self._words)
        if not self._is_current:
            m.d.comb += is_end.eq(Cat(word.kind == END for word in held))
        ends_waiting = waiting & is_end
        # Events before the first end, and the end that is the first word of all.
        open_words = Cat(waiting[k] & ~is_end[k] & ~ends_waiting[:k].any() for k in words)
        at_end = Cat(ends_waiting[k] & ~waiting[:k].any() for k in words)

        # Whose turn it is: an end that was sent, one that is owed behind tlast, or events. An end goes to each stream
        # as soon as that takes it.
        inserts = Signal()
        ends = Signal()
        sends_end = Signal()
        has_end = Signal(self._streams)
        takes_end = Signal(self._streams)
        m.d.comb += [
            inserts.eq(last & ~waiting.any()),
            sends_end.eq(~dropping & (at_end.any() | inserts)),
            ends.eq(sends_end & takes_end.all()),
        ]
        with m.If(sends_end):
            m.d.sync += has_end.eq(takes_end & ~ends.replicate(self._streams))
        entries: list[Any] = []
        taken = []
        for number in streams:
            entry = stream.Signature(event_layout(self._span, self._network.coding.input_bits)).create()
            entries.append(entry)
            mine = Signal(self._words, name=f"mine_{number}")
            first = mine & wrap(~mine + 1, mine.shape())
            m.d.comb += [
                mine.eq(Cat(open_words[k] & (belongs[k] == number) for k in words)),
                entry.valid.eq(Mux(sends_end, ~has_end[number], ~dropping & mine.any())),
                entry.payload.end.eq(sends_end),
                takes_end[number].eq(has_end[number] | entry.ready),
            ]
            for k in reversed(words):
                with m.If(mine[k]):
                    m.d.comb += entry.payload.source.eq(local[k])
                    if self._is_current:
                        m.d.comb += entry.payload.value.eq(held[k].value)
            taken.append(Mux(entry.valid & entry.ready & ~sends_end, first, 0))
        m.d.comb += [
            leaving.eq(Mux(dropping, waiting, Mux(ends, at_end, 0)) | _any_of(taken)),
            self.i.ready.eq(~(waiting & ~leaving).any() & (~last | closes)),
        ]
        counts = [self.i.valid, *(self.i.payload.keep[k * step] for k in words[1:])]
        m.d.sync += waiting.eq(waiting & ~leaving)
        with m.If(closes):
            m.d.sync += last.eq(0)
        with m.If(self.i.ready):
            m.d.sync += [
                waiting.eq(Cat(Cat(counts[: k + 1]).all() for k in words)),
                last.eq(self.i.valid & self.i.payload.last),
                *(
                    Value.cast(word).eq(self.i.payload.words[k][: Value.cast(word).shape().width])
                    for k, word in enumerate(held)
                ),
            ]

        n_ends = 1 if self._is_current else self._most_timesteps
        timestep = Signal(unsigned(index_width(n_ends)))
        at_last_end = Signal()
        with_last = Signal()
        in_sample = Signal()
        m.d.comb += [
            at_last_end.eq(timestep == (self.last_timestep if self._counts else n_ends - 1)),
            with_last.eq(last & ~(waiting & ~at_end).any()),
            self.finished.eq(ends & (at_last_end if self._checks else with_last)),
            # tlast has been dealt with when the sample that it closes has all its ends, or the rest was dropped.
            closes.eq(Mux(dropping, last, with_last & self.finished)),
            self.in_progress.eq(in_sample | ((waiting.any() | last) & ~dropping)),
        ]
        with m.If(ends):
            m.d.sync += timestep.eq(Mux(at_last_end, 0, wrap(timestep + 1, timestep.shape())))
        with m.If(self.finished):
            m.d.sync += in_sample.eq(0)
        with m.Elif(leaving.any() & ~dropping):
            m.d.sync += in_sample.eq(1)
        buffers = []
        for number, output in enumerate(self.outputs):
            m.submodules[f"buffer{number}"] = buffer = StreamBuffer(output.payload.shape())
            buffers.append(buffer.i)
            join(m, buffer.o, output)
        if self._checks:
            self._check(m, entries, buffers, ends, inserts, with_last, dropping, closes)
        else:
            self._pass(m, entries, buffers)
        return m

    def _check(
        self,
        m: Module,
        entries: list[Any],
        outputs: list[Any],
        ends: Signal,
        inserts: Signal,
        with_last: Signal,
        dropping: Signal,
        closes: Signal,
    ) -> None:
        """Every stream through a check of its own; what is wrong with the framing."""
        errors = Signal(4)
        found: list[StreamCheck] = []
        for number, (entry, output) in enumerate(zip(entries, outputs, strict=True)):
            m.submodules[f"check{number}"] = check = StreamCheck(
                self._span,
                number,
                self._streams,
                most_inputs=self._most_inputs,
                is_free=self._is_free,
                picture=self._picture,
                value_bits=self._network.coding.input_bits,
                can_drop=self._can_drop,
            )
            found.append(check)
            m.d.comb += [
                Value.cast(check.i.payload).eq(Value.cast(entry.payload)),
                check.i.valid.eq(entry.valid),
                entry.ready.eq(check.i.ready),
                Value.cast(output.payload).eq(Value.cast(check.o.payload)),
                output.valid.eq(check.o.valid),
                check.o.ready.eq(output.ready),
            ]
            if self._is_free:
                m.d.comb += check.n_inputs.eq(self.n_inputs)
            if self._can_drop:
                m.d.comb += check.drop.eq(self.drop)
        with m.If(dropping & closes):
            m.d.sync += dropping.eq(0)
        with m.If(self.finished & ~with_last):
            m.d.sync += dropping.eq(1)
        m.d.comb += [
            errors[DUPLICATE].eq(Cat(check.duplicate_error for check in found).any()),
            errors[OUT_OF_RANGE].eq(Cat(check.range_error for check in found).any()),
            errors[MISSING_LAST].eq(self.finished & ~with_last),
        ]
        if not self._is_current:
            m.d.comb += errors[EARLY_LAST].eq(inserts & ~dropping)
        m.d.sync += self.protocol_error.eq(self.protocol_error | errors)

    def _pass(self, m: Module, entries: list[Any], outputs: list[Any]) -> None:
        """Every stream as it is."""
        for entry, output in zip(entries, outputs, strict=True):
            m.d.comb += [
                Value.cast(output.payload).eq(Value.cast(entry.payload)),
                output.valid.eq(entry.valid),
                entry.ready.eq(output.ready),
            ]
            if self._can_drop:
                with m.If(self.drop & ~entry.payload.end):
                    m.d.comb += [output.valid.eq(0), entry.ready.eq(1)]


def _any_of(masks: list[Value]) -> Value:
    found = masks[0]
    for mask in masks[1:]:
        found = found | mask
    return found
