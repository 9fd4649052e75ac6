"""The door: checks what the host sends, so that nothing behind it can be confused."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, unsigned
from amaranth.hdl._ast import Statement
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Member, Out

from codesign.contract.network import FrozenNetwork
from codesign.contract.network.connections import Shape
from codesign.machine.capacity import Capacity
from codesign.machine.layouts import END, index_width, input_word
from codesign.machine.pictures import low_bits, side_bits
from codesign.machine.plan import AGE_BITS, guard_depth
from rtl_templates.arithmetic import record_layout, wrap
from rtl_templates.fetcher import event_layout
from rtl_templates.memories import next_index

DUPLICATE, OUT_OF_RANGE, EARLY_LAST, MISSING_LAST = range(4)


def is_inside(source: Value, n_inputs: Value | int, picture: Shape | None) -> Value:
    """Whether there is such a source; ``picture`` : (channels, height, width) if it is an address in one."""
    if picture is None:
        return source < n_inputs
    x_bits, place = side_bits(picture[2]), low_bits(picture)
    sides = zip((source[:x_bits], source[x_bits:place], source[place:]), reversed(picture), strict=True)
    # A coordinate without bits is 0.
    return Cat(side < size for side, size in sides if len(side)).all()


def input_span(network: FrozenNetwork, picture: Shape | None, capacity: Capacity | None = None) -> int:
    """Addresses that a source can have."""
    if picture is not None:
        return picture[0] << low_bits(picture)
    return capacity.n_inputs if capacity else network.n_inputs


def _members(network: FrozenNetwork, span: int, *, can_drop: bool = False) -> dict[str, Member]:
    """Ports of a door."""
    word = data.StructLayout({"word": record_layout(input_word(network, span)), "last": 1})
    return {
        "i": In(stream.Signature(word)),
        "o": Out(stream.Signature(event_layout(span, network.coding.input_bits))),
        "protocol_error": Out(4),
        "in_progress": Out(1),
        "finished": Out(1),
        **({"drop": In(1)} if can_drop else {}),
    }


class SeenSources:
    """Which sources have been seen since the last end; built into a module.

    A memory holds for every source the age in which it was last seen; each end begins a new age, so that forgetting
    takes no time. When the ages have been used up, every 255 ends, and after reset, the memory is cleared: a clock for
    each word. An event is looked up in one clock, compared into a register in the next, since block memory is slow to
    answer, and judged in the third.

    Parameters
    ----------
    m : module that it becomes part of. depth : words of the memory.
    accept, accepted : an event is looked up, of this source. moves, looked : what was looked up is compared.
    marks, marked : the event at hand is seen now. ends : an end is sent.

    Members
    -------
    clearing : nothing can be looked up. duplicate : the event at hand has been seen.
    reads, writes : statements of the memory's ports. :meth:`follow` adds the rest.
    """

    def __init__(
        self,
        m: Module,
        depth: int,
        *,
        accept: Signal,
        accepted: Value,
        moves: Signal,
        looked: Value,
        marks: Signal,
        marked: Value,
        ends: Signal,
    ):
        m.submodules.seen = seen = memory.Memory(shape=unsigned(AGE_BITS), depth=depth, init=[])
        write, read = (port() for port in (seen.write_port, seen.read_port))
        address_shape = unsigned(len(read.addr))
        age = Signal(unsigned(AGE_BITS), init=1)
        clearing = Signal(init=1)
        cleared = Signal(address_shape)
        duplicate = Signal()
        self.clearing, self.duplicate = clearing, duplicate
        self.reads = [read.en.eq(accept), read.addr.eq(wrap(accepted, address_shape))]
        self.writes = [
            write.en.eq(marks | clearing),
            write.addr.eq(Mux(clearing, cleared, wrap(marked, address_shape))),
            write.data.eq(Mux(clearing, 0, age)),
        ]
        self._m, self._depth, self._age, self._cleared, self._read = m, depth, age, cleared, read
        self._moving = accept, accepted, moves, looked, marks, marked, ends

    def follow(self, *at_end: Statement) -> None:
        """Add what follows an event's look-up; ``at_end`` : what else an end does."""
        m, age, clearing, cleared, read = self._m, self._age, self.clearing, self._cleared, self._read
        accept, accepted, moves, looked, marks, source, ends = self._moving
        # What is read does not know the marks written from then on; a word that does not let the next one move when it
        # is marked ends the timestep. After an end nothing has been seen; data from before the clearing says nothing.
        marked = Signal()
        outdated = Signal()
        marks_looked = marks & (source == looked)
        with m.If(accept):
            m.d.sync += [marked.eq(marks & (source == accepted)), outdated.eq(0)]
        with m.Elif(ends):
            m.d.sync += marked.eq(0)
        # Two bits each, put together in the next clock: no more fits behind the memory.
        same_age = Signal(-(-AGE_BITS // 2))
        known = Signal()
        repeated = Signal()
        with m.If(moves):
            m.d.sync += [
                same_age.eq(Cat(read.data[k : k + 2] == age[k : k + 2] for k in range(0, AGE_BITS, 2))),
                known.eq(~ends & ~outdated & ~clearing),
                repeated.eq(~ends & (marked | marks_looked)),
            ]
        m.d.comb += self.duplicate.eq((same_age.all() & known) | repeated)
        with m.If(ends):
            m.d.sync += [
                *at_end,
                age.eq(Mux(age == (1 << AGE_BITS) - 1, 1, wrap(age + 1, age.shape()))),
            ]
            with m.If(age == (1 << AGE_BITS) - 1):
                m.d.sync += clearing.eq(1)
        with m.If(clearing):
            m.d.sync += [cleared.eq(next_index(cleared, self._depth)), outdated.eq(1)]
            with m.If(cleared == self._depth - 1):
                m.d.sync += clearing.eq(0)


class InputGuard(wiring.Component):
    """Input words to events and ends; whatever comes in, every sample has exactly its T ends.

    Rules for coding 'current' (one end, at the sample's last word) and for events (T ends); t counts the ends that
    the sample has had. For each word, in this order:

    1. While dropping, the word is ignored; dropping stops after a word with ``tlast``.
    2. An event whose source is outside 0..n_inputs - 1, or of the picture, is ignored (bit 1). One whose
       source has been seen since the last end, whatever its value, is ignored (bit 0). Any other is passed on and its
       source is marked.
    3. Events coding: an end word is passed on. If it is the T-th and lacks ``tlast``, the sample ends here and
       dropping starts (bit 3).
    4. ``tlast`` on an event word, or on an end word before the T-th (bit 2 in both cases): the missing ends are
       inserted. With coding 'current', ``tlast`` is what ends the sample, and no bit is set.

    The sample ends with its T-th end; the next word begins another. Bits are sticky until reset.
    Latency 3 clocks, throughput one word a clock; while the memory of seen sources is cleared (:class:`SeenSources`),
    n_inputs clocks, without ``i.ready``.

    Parameters
    ----------
    network : the frozen network.
    capacity : of a loadable machine, whose inputs and timesteps are signals.
    picture : (channels, height, width) if sources are addresses of :func:`codesign.machine.pictures.addresses`.
    can_drop : whether there is ``drop``.

    Members
    -------
    i : In(stream of {word, last}); ``word`` as codesign.machine.layouts.input_word.
    drop : In(1), only with ``can_drop``: events are checked as ever but not passed on; one that waits is withdrawn.
    o : Out(stream of event_layout).
    protocol_error : Out(4).
    in_progress : Out(1), a sample has begun and has not had all its ends.
    finished : Out(1), pulse: the sample's last end is taken.
    n_inputs : In, of a loadable machine; constant while a sample is inside.
    last_timestep : In, T - 1, the same, unless the coding is 'current'.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        capacity: Capacity | None = None,
        *,
        picture: Shape | None = None,
        can_drop: bool = False,
    ):
        self._network = network
        self._can_drop = can_drop
        self._capacity = capacity
        self._picture = picture
        self._most_inputs = input_span(network, picture, capacity)
        self._most_timesteps = capacity.timesteps if capacity else network.timesteps
        self._is_current = network.coding.is_current
        self._counts = capacity is not None and not self._is_current
        members = _members(network, self._most_inputs, can_drop=can_drop)
        if capacity:
            members["n_inputs"] = In(unsigned(capacity.n_inputs.bit_length()))
        if self._counts:
            members["last_timestep"] = In(unsigned(index_width(self._most_timesteps)))
        super().__init__(members)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        most_inputs = self._most_inputs
        n_inputs = self.n_inputs if self._capacity else most_inputs
        n_ends = 1 if self._is_current else self._most_timesteps
        last_end = self.last_timestep if self._counts else n_ends - 1
        word = self.i.payload.word

        looking = Signal()
        looked = Signal(self.i.payload.shape(), reset_less=True)
        valid = Signal()
        is_end = Signal()
        is_last = Signal()
        in_range = Signal()
        source = Signal(word.source.shape(), reset_less=True)
        value = Signal(unsigned(max(1, self._network.coding.input_bits)), reset_less=True)
        consume = Signal()
        accept = Signal()
        moves = Signal()
        marks = Signal()
        ends = Signal()
        seen = SeenSources(
            m,
            guard_depth(most_inputs),
            accept=accept,
            accepted=word.source,
            moves=moves,
            looked=looked.word.source,
            marks=marks,
            marked=source,
            ends=ends,
        )
        clearing, duplicate = seen.clearing, seen.duplicate
        m.d.comb += [
            moves.eq(looking & (~valid | consume)),
            self.i.ready.eq(~clearing & (~looking | moves)),
            accept.eq(self.i.valid & self.i.ready),
            *seen.reads,
        ]
        with m.If(accept):
            m.d.sync += [looking.eq(1), looked.eq(self.i.payload)]
        with m.Elif(moves):
            m.d.sync += looking.eq(0)
        with m.If(moves):
            m.d.sync += [
                valid.eq(1),
                source.eq(looked.word.source),
                in_range.eq(is_inside(looked.word.source, n_inputs, self._picture)),
                is_last.eq(looked.last),
            ]
            if self._is_current:
                m.d.sync += value.eq(looked.word.value)
            else:
                m.d.sync += is_end.eq(looked.word.kind == END)
        with m.Elif(consume):
            m.d.sync += valid.eq(0)

        # A word is held until everything that it causes has left. `settled`: its event part is done.
        dropping = Signal()
        settled = Signal()
        in_sample = Signal()
        sends_event = Signal()
        sends_end = Signal()
        free = Signal()
        timestep = Signal(unsigned(index_width(n_ends)))
        at_last_end = Signal()
        active = Signal()
        is_event = Signal()
        error = Signal(4)
        passes = is_event & in_range & ~duplicate
        # A dropped event goes for a clock, and what it causes beside comes then: a reader that has it is not to miss
        # that.
        event_first = passes if self._can_drop else sends_event
        m.d.comb += [
            at_last_end.eq(timestep == last_end),
            free.eq(self.o.ready),
            active.eq(valid & ~dropping & ~clearing),
            is_event.eq(active & ~is_end & ~settled),
            sends_event.eq(passes & ~self.drop if self._can_drop else passes),
            sends_end.eq(active & ~event_first & (is_end | is_last)),
            # A dropped event is marked all the same, so that its repetition is an error.
            marks.eq(passes & (self.drop | free) if self._can_drop else sends_event & free),
            ends.eq(sends_end & free),
            self.finished.eq(ends & at_last_end),
            self.in_progress.eq(active | in_sample | (looking & ~dropping)),
            *seen.writes,
            error[DUPLICATE].eq(is_event & in_range & duplicate),
            error[OUT_OF_RANGE].eq(is_event & ~in_range),
            error[MISSING_LAST].eq(self.finished & ~is_last),
        ]
        if not self._is_current:
            m.d.comb += error[EARLY_LAST].eq(active & is_last & ~settled & ~(is_end & at_last_end))
        with m.If(event_first):
            m.d.comb += consume.eq((marks if self._can_drop else free) & ~is_last)
        with m.Elif(sends_end):
            m.d.comb += consume.eq(free & (at_last_end | ~is_last))
        with m.Else():
            m.d.comb += consume.eq(~clearing)
        m.d.sync += self.protocol_error.eq(self.protocol_error | error)
        m.d.comb += [
            self.o.valid.eq(sends_event | sends_end),
            self.o.payload.end.eq(sends_end),
            self.o.payload.source.eq(source),
        ]
        if self._is_current:
            m.d.comb += self.o.payload.value.eq(value)
        seen.follow(timestep.eq(Mux(at_last_end, 0, wrap(timestep + 1, timestep.shape()))))
        with m.If(consume):
            m.d.sync += settled.eq(0)
        with m.Elif(marks | ends):
            m.d.sync += settled.eq(1)
        with m.If(self.finished):
            m.d.sync += [in_sample.eq(0), dropping.eq(~is_last)]
        with m.Elif(active):
            m.d.sync += in_sample.eq(1)
        with m.Elif(valid & is_last & ~clearing):
            m.d.sync += dropping.eq(0)
        return m


class TrustedInput(wiring.Component):
    """The door without checks, for a host that keeps the rules: sources in range and at most once a timestep, T ends
    and ``tlast`` on the last of them. Members as of :class:`InputGuard`; what breaks a rule is undefined.

    Latency 0 clocks, throughput one word a clock; with coding 'current' a sample's last word takes two.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        capacity: Capacity | None = None,
        *,
        picture: Shape | None = None,
        can_drop: bool = False,
    ):
        self._is_current = network.coding.is_current
        self._can_drop = can_drop
        super().__init__(_members(network, input_span(network, picture, capacity), can_drop=can_drop))

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        word, last = self.i.payload.word, self.i.payload.last
        moves = Signal()
        ends = Signal()
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.o.payload.source.eq(word.source),
            self.o.payload.end.eq(ends),
            moves.eq(self.o.valid & self.o.ready),
            self.protocol_error.eq(0),
        ]
        if self._is_current:
            # The last word is an event first, and the end in the next clock.
            sent = Signal()
            m.d.comb += [
                self.o.payload.value.eq(word.value),
                ends.eq(sent),
                self.i.ready.eq(self.o.ready & (sent | ~last)),
            ]
            with m.If(moves):
                m.d.sync += sent.eq(last & ~sent)
        else:
            m.d.comb += [ends.eq(word.kind == END), self.i.ready.eq(self.o.ready)]
        if self._can_drop:
            with m.If(self.drop & ~ends):
                m.d.comb += [self.o.valid.eq(0), self.i.ready.eq(1)]
        m.d.comb += self.finished.eq(moves & ends & last)
        with m.If(moves):
            m.d.sync += self.in_progress.eq(~self.finished)
        return m
