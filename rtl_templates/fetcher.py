"""From events to the synapses of one lane, and of one stream of events."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Shape, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.layouts import Record, index_width
from codesign.machine.plan import NO_FIELDS, EnginePlan
from rtl_templates.arithmetic import record_layout, wrap
from rtl_templates.memories import Rom, load_bus, load_place, next_index


def event_layout(n_addresses: int, value_bits: int = 0, tag: Record = NO_FIELDS) -> data.StructLayout:
    """What a layer is fed: an event of ``source``, or (``end``) the end of the timestep.

    With coding 'current' an event carries ``value`` and the end is that of the sample. ``tag`` : what else it carries.
    """
    fields: dict[str, Shape] = {"end": unsigned(1), "source": unsigned(index_width(n_addresses))}
    if value_bits:
        fields["value"] = unsigned(value_bits)
    return data.StructLayout({**fields, **record_layout(tag).members})


class SynapseFetcher(wiring.Component):
    """Looks the events of a stream up in one lane's row table and walks their rows, one synapse word a clock.

    Operation: an event's row is read; empty rows vanish, the others wait in a queue together
    with the ends of timesteps. The walker takes a row as soon as it has issued the last synapse of the row
    before: no bubble between rows. At an end it stops until ``resume``. Latency from an event to its first
    synapse: 6 clocks, 5 without queue. Throughput: one event a clock in, one synapse a clock out. Without queue
    (``depth`` 0) two rows wait in the stages of the look-up, which stand still; enough for a lane that no other
    waits for. Grouped rows (:class:`codesign.machine.encoding.Encoding`) take a clock more, in which the counts before
    the row's are added; gaps and codebooks take one more behind the synapse memory. An escape word gives no synapse.
    With a short pipeline the registers behind both memories are left out: 2 clocks less, and without queue one row
    waits. A tap of a convolution takes a clock more too: its slot is added to the event's base, and one that falls off
    the border gives no synapse.

    Parameters
    ----------
    plan : of the engine; ``queue_depth`` rows may wait, those being looked up included: 2 or more, or 0 for no queue.
    lane, stream : numbers of the lane and of the stream of events.

    Members
    -------
    broadcast_valid : In(1); broadcast : In(event_layout). Accepted unconditionally; give only while ``room``.
    room : Out(1), one more event may be given; with a queue and several streams of events one in this clock, and one in
        the next.
    go : In(1), rows may be started.
    resume : In(1), pulse: forget the end at which the walker waits.
    waiting : Out(1), at an end, and the last synapse before it has left.
    busy : Out(1), rows or synapses of the current timestep are inside.
    synapse_valid : Out(1); synapse : Out({slot, weight}, of each lane if they are in lock step); value : Out(value_bits
        or 1).
    load : In(load_bus), of a loadable machine.
    hold : In(1), of an engine without output FIFO, given while the registers are not enabled: memories that are
        instances are not read either.

    Raises
    ------
    ValueError if ``depth`` is 1 or below 0, or the layer has no such fetcher.
    """

    def __init__(self, plan: EnginePlan, lane: int, stream: int = 0):
        layer, depth, value_bits = plan.placement, plan.queue_depth, plan.widths.value
        if depth < 2 and depth != 0:
            raise ValueError(f"depth {depth!r} must be 2 or more, or 0")
        if (lane, stream) not in plan.walkers:
            raise ValueError(
                f"lane {lane!r} is outside 0..{layer.fetchers - 1}, or stream {stream!r} no number below {plan.streams}"
            )
        self._plan = plan
        self._can_hold = not plan.fifo_depth
        self._layer = layer
        self._lane = lane
        self._stream = stream
        self._depth = depth
        super().__init__(
            {
                "broadcast_valid": In(1),
                "broadcast": In(event_layout(layer.n_addresses, value_bits, plan.placement.tag)),
                "room": Out(1),
                "go": In(1),
                "resume": In(1),
                "waiting": Out(1),
                "busy": Out(1),
                "synapse_valid": Out(1),
                "synapse": Out(record_layout(layer.fetched_record)),
                "value": Out(unsigned(max(1, value_bits))),
                **({"load": In(load_bus(layer.capacity))} if layer.capacity else {}),
                **({"hold": In(1)} if self._can_hold else {}),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        layer, lane, stream = self._layer, self._lane, self._stream
        encoding = layer.encoding
        row = record_layout(self._plan.row)
        m.submodules.rows = rows = Rom(
            record_layout(layer.row_record),
            layer.row_words(lane, stream).tolist(),
            layer.image(lane, "rows", stream),
            load_place(layer, "rows", lane, stream),
        )
        m.submodules.synapses = synapses = Rom(
            record_layout(layer.synapse_record),
            layer.synapse_words(lane, stream).tolist(),
            layer.image(lane, "synapses", stream),
            load_place(layer, "synapses", lane, stream),
            starts_empty=self._plan.spram,
        )
        if layer.capacity:
            m.d.comb += [rows.load.eq(self.load), synapses.load.eq(self.load)]
        # What an event hands on to the synapses of its row.
        tag_layout = record_layout(self._plan.tag)
        tag_shape = unsigned(self._plan.tag.width)
        event_tag = Signal(tag_layout)
        for field in self._plan.tag:
            if field.name in self.broadcast.shape().members:
                m.d.comb += event_tag[field.name].eq(self.broadcast[field.name])

        # Look-up: row table, one clock, then a register, since block memory is slow to answer.
        looking = Signal()
        look_end = Signal()
        look_tag = Signal(tag_shape, reset_less=True)
        found = Signal()
        found_end = Signal()
        found_row = Signal(row, reset_less=True)
        found_tag = Signal(tag_shape, reset_less=True)
        discard = Signal()
        group_bits = encoding.row_group.bit_length() - 1
        m.d.comb += [
            rows.en.eq(self._reads_rows()),
            rows.addr.eq(wrap(self.broadcast.source[group_bits:], unsigned(len(rows.addr)))),
        ]
        # The row that the walker takes next, and the one behind it.
        entry = data.StructLayout({"end": 1, "row": row, "tag": tag_shape})
        first = Signal(entry)
        occupied = Signal()
        pop = Signal()
        moves_in = Signal()
        moves_on = Signal()
        with m.If(moves_in):
            m.d.sync += [
                looking.eq(self.broadcast_valid),
                look_end.eq(self.broadcast.end),
                look_tag.eq(Value.cast(event_tag)),
            ]
        ahead, ahead_end, ahead_tag = looking, look_end, look_tag
        ahead_row: Value = Value.cast(rows.data)
        moves_up = moves_on
        if group_bits:
            look_member = Signal(group_bits, reset_less=True)
            ahead, ahead_end, ahead_tag = Signal(), Signal(), Signal(tag_shape, reset_less=True)
            grouped = Signal(record_layout(layer.row_record), reset_less=True)
            member = Signal(group_bits, reset_less=True)
            moves_up = Signal()
            with m.If(moves_in):
                m.d.sync += look_member.eq(self.broadcast.source[:group_bits])
            with m.If(moves_up):
                m.d.sync += [
                    ahead.eq(looking),
                    ahead_end.eq(look_end),
                    ahead_tag.eq(look_tag),
                    Value.cast(grouped).eq(Value.cast(rows.data)),
                    member.eq(look_member),
                ]
            ahead_row = _member(m, grouped, member, row)
        is_short = layer.pipeline == "short"
        looked_up = [
            found.eq(ahead),
            found_end.eq(ahead_end),
            Value.cast(found_row).eq(ahead_row),
            found_tag.eq(ahead_tag),
        ]
        if is_short:
            m.d.comb += looked_up
        else:
            with m.If(moves_on):
                m.d.sync += looked_up
        # Lengths come late out of a memory: a deep pipeline looks at them a clock later.
        held = Signal()
        m.d.comb += [discard.eq(found & ~found_end & (found_row.count == 0)), held.eq(found & ~discard)]
        entering = Signal(entry)
        m.d.comb += [
            entering.end.eq(found_end),
            entering.row.eq(found_row),
            entering.tag.eq(found_tag),
        ]
        if self._depth:
            freed = discard
            if is_short:
                freed = Signal()
                m.d.sync += freed.eq(discard)
            self._queue(m, entering, held, freed, first, occupied, pop)
            m.d.comb += [moves_in.eq(1), moves_on.eq(1)]
            if group_bits:
                m.d.comb += moves_up.eq(1)
        else:
            m.d.comb += [
                first.eq(entering),
                occupied.eq(held),
                moves_on.eq(pop | discard if is_short else ~held | pop),
                moves_in.eq(~looking | moves_up),
                self.room.eq(moves_in),
            ]
            if group_bits:
                m.d.comb += moves_up.eq(~ahead | moves_on)

        # Walker: `address` is read in every clock in which it is `active`.
        active = Signal()
        is_final = Signal()
        address = Signal.like(synapses.addr, reset_less=True)
        remaining = Signal.like(found_row.count, reset_less=True)
        walk_tag = Signal(tag_shape, reset_less=True)
        load = Signal()
        m.d.comb += [
            load.eq(self.go & occupied & ~first.end & (~active | is_final)),
            pop.eq(load | self.resume),
            synapses.en.eq(active & ~self.hold if self._can_hold else active),
            synapses.addr.eq(address),
        ]
        with m.If(load):
            m.d.sync += [
                active.eq(1),
                is_final.eq(first.row.count == 1),
                address.eq(wrap(first.row.start, unsigned(len(address)))),
                remaining.eq(first.row.count),
                walk_tag.eq(first.tag),
            ]
        with m.Elif(active):
            m.d.sync += [
                active.eq(~is_final),
                is_final.eq(remaining == 2),
                address.eq(wrap(address + 1, address.shape())),
                remaining.eq(wrap(remaining - 1, remaining.shape())),
            ]

        reading = Signal()
        read_tag = Signal(tag_shape, reset_less=True)
        m.d.sync += [reading.eq(active), read_tag.eq(walk_tag)]
        word, word_valid, word_tag = Value.cast(synapses.data), reading, read_tag
        decoding = Const(0)
        lands = bool(self._plan.placement.tag.fields)
        if encoding.gap_bits is not None or encoding.codebook is not None or lands:
            # Block memory is slow to answer: its word is taken first, and decoded in the clock after.
            decoding = Signal()
            taken = Signal(record_layout(layer.synapse_record), reset_less=True)
            word_tag = Signal(tag_shape, reset_less=True)
            m.d.sync += [decoding.eq(reading), Value.cast(taken).eq(word), word_tag.eq(read_tag)]
            opening = Signal()
            if encoding.gap_bits is not None:
                # Whether the word is its row's first.
                opens = Signal()
                opens_read = Signal()
                m.d.sync += [opens_read.eq(opens), opening.eq(opens_read)]
                with m.If(load):
                    m.d.sync += opens.eq(1)
                with m.Elif(active):
                    m.d.sync += opens.eq(0)
            if lands:
                word, word_valid = self._landed(m, taken, decoding, data.View(tag_layout, word_tag))
            else:
                word, word_valid = self._decoded(m, taken, decoding, opening)
        given = [
            self.synapse_valid.eq(word_valid),
            Value.cast(self.synapse).eq(word),
            self.value.eq(word_tag[: len(self.value)]),
        ]
        if is_short:
            m.d.comb += given
        else:
            m.d.sync += given
        walking = Signal()
        m.d.comb += [
            walking.eq(active | reading | decoding | self.synapse_valid),
            self.waiting.eq(occupied & first.end & ~walking),
            self.busy.eq(walking | Mux(occupied, ~first.end, held & ~found_end)),
        ]
        return m

    def _reads_rows(self) -> Value:
        """When the row table is read: at events, or in every clock where whether one comes is known too late."""
        if self._plan.streams == 1 or not self._depth:
            return self.broadcast_valid & ~self.broadcast.end
        return ~self.hold if self._can_hold else Const(1, 1)

    def _landed(self, m: Module, taken: data.View, valid: Signal, tag: data.View) -> tuple[Value, Value]:
        """{slot, weight} of a tap, and whether there is a neuron where it lands."""
        given = Signal(self.synapse.shape())
        m.d.comb += [
            # The offset counts backwards modulo the slots' power of two.
            given.slot.eq(wrap(taken.slot + tag.base, given.slot.shape())),
            given.weight.eq(taken.weight),
        ]
        reached = [
            Value.cast(tag[name]).bit_select(taken[step], 1) for name, step in (("reach_y", "dy"), ("reach_x", "dx"))
        ]
        return Value.cast(given), Cat(valid, *reached).all()

    def _decoded(self, m: Module, taken: data.View, valid: Signal, opening: Signal) -> tuple[Value, Value]:
        """{slot, weight} of a word of gaps or codes, and whether there is a synapse in it."""
        encoding, given = self._layer.encoding, Signal(self.synapse.shape())
        holds: Value = Value.cast(valid)
        if encoding.gap_bits is None:
            m.d.comb += given.slot.eq(taken.slot)
        else:
            # An escape passes over slots; a synapse passes over its own as well.
            is_escape = Value.cast(taken.gap).all()
            following = Signal(given.slot.shape(), reset_less=True)
            before = Mux(opening, 0, following)
            m.d.comb += given.slot.eq(wrap(before + taken.gap, given.slot.shape()))
            with m.If(valid):
                m.d.sync += following.eq(wrap(before + taken.gap + ~is_escape, following.shape()))
            holds = valid & ~is_escape
        if encoding.codebook is None:
            m.d.comb += given.weight.eq(taken.weight)
        else:
            with m.Switch(taken.code):
                for code, weight in enumerate(encoding.codebook):
                    with m.Case(code):
                        m.d.comb += given.weight.eq(weight)
        return Value.cast(given), holds

    def _queue(
        self, m: Module, entering: Signal, push: Signal, freed: Signal, first: Signal, occupied: Signal, pop: Signal
    ) -> None:
        """Rows and ends in order. Room is counted from the moment an event is given: the queue cannot overflow."""
        width = Shape.cast(entering.shape()).width
        m.submodules.queue = queue = memory.Memory(shape=unsigned(width), depth=self._depth, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        head = Signal(range(self._depth))
        tail = Signal(range(self._depth))
        level = Signal(range(self._depth + 1))
        reserved = Signal(range(self._depth + 1))
        m.d.comb += [
            write.en.eq(push),
            write.addr.eq(tail),
            write.data.eq(Value.cast(entering)),
            read.addr.eq(head),
            Value.cast(first).eq(read.data),
            occupied.eq(level != 0),
            # Of several streams whoever asks knows a clock late, when one more may have been given.
            self.room.eq(reserved != self._depth if self._plan.streams == 1 else reserved < self._depth - 1),
        ]
        m.d.sync += [
            level.eq(wrap(level + push - pop, level.shape())),
            reserved.eq(wrap(reserved + self.broadcast_valid - pop - freed, reserved.shape())),
        ]
        with m.If(push):
            m.d.sync += tail.eq(next_index(tail, self._depth))
        with m.If(pop):
            m.d.sync += head.eq(next_index(head, self._depth))


def _member(m: Module, grouped: data.View, member: Signal, row: data.StructLayout) -> Value:
    """Row {start, count} of one of the sources that share a word."""
    counts = [grouped[f"count{k}"] for k in range(1 << len(member))]
    passed: list[Value] = [Mux(member > k, count, 0) for k, count in enumerate(counts[:-1])]
    while len(passed) > 1:
        passed = [a + b for a, b in zip(passed[::2], passed[1::2])] + passed[len(passed) & ~1 :]
    start = Signal(row["start"].shape)
    count = Signal(row["count"].shape)
    m.d.comb += start.eq(wrap(grouped.start + passed[0], start.shape()))
    with m.Switch(member):
        for k, value in enumerate(counts):
            with m.Case(k):
                m.d.comb += count.eq(value)
    return Cat(start, count)
