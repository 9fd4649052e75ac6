"""From events to the synapses of one lane."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Shape, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from codesign.layouts import index_width
from codesign.mapping import FoldedMap, LayerMap
from rtl_templates.arithmetic import record_layout, wrap
from rtl_templates.memories import Rom, next_index


def event_layout(n_addresses: int, value_bits: int = 0) -> data.StructLayout:
    """What a layer is fed: an event of ``source``, or (``end``) the end of the timestep.

    With coding 'current' an event carries ``value`` and the end is that of the sample.
    """
    fields: dict[str, Shape] = {"end": unsigned(1), "source": unsigned(index_width(n_addresses))}
    if value_bits:
        fields["value"] = unsigned(value_bits)
    return data.StructLayout(fields)


class SynapseFetcher(wiring.Component):
    """Looks events up in one lane's row table and walks their rows, one synapse a clock.

    Operation: an event's row ``{start, count}`` is read; empty rows vanish, the others wait in a queue together
    with the ends of timesteps. The walker takes a row as soon as it has issued the last synapse of the row
    before: no bubble between rows. At an end it stops until ``resume``. Latency from an event to its first
    synapse: 6 clocks, 5 without queue. Throughput: one event a clock in, one synapse a clock out. Without queue
    (``depth`` 0) two rows wait in the stages of the look-up, which stand still; enough for a lane that no other
    waits for.

    Parameters
    ----------
    layer : placement of the layer, or of all layers of a folded engine.
    lane : number of the lane.
    value_bits : bits of the value that an event carries; 0 if none.
    depth : rows that may wait, those being looked up included; 2 or more, or 0 for no queue.

    Members
    -------
    broadcast_valid : In(1); broadcast : In(event_layout). Accepted unconditionally; give only while ``room``.
    room : Out(1), one more event may be given.
    go : In(1), rows may be started.
    resume : In(1), pulse: forget the end at which the walker waits.
    waiting : Out(1), at an end, and the last synapse before it has left.
    busy : Out(1), rows or synapses of the current timestep are inside.
    synapse_valid : Out(1); synapse : Out({slot, weight}); value : Out(value_bits or 1).

    Raises
    ------
    ValueError if ``depth`` is 1 or below 0, or ``lane`` is not one of the layer's.
    """

    def __init__(self, layer: LayerMap | FoldedMap, lane: int, *, value_bits: int, depth: int):
        if depth < 2 and depth != 0:
            raise ValueError(f"depth {depth!r} must be 2 or more, or 0")
        if not 0 <= lane < layer.lanes:
            raise ValueError(f"lane {lane!r} is outside 0..{layer.lanes - 1}")
        self._layer = layer
        self._lane = lane
        self._value_bits = value_bits
        self._depth = depth
        super().__init__(
            {
                "broadcast_valid": In(1),
                "broadcast": In(event_layout(layer.n_addresses, value_bits)),
                "room": Out(1),
                "go": In(1),
                "resume": In(1),
                "waiting": Out(1),
                "busy": Out(1),
                "synapse_valid": Out(1),
                "synapse": Out(record_layout(layer.synapse_record)),
                "value": Out(unsigned(max(1, value_bits))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        layer, lane = self._layer, self._lane
        row = record_layout(layer.row_record)
        m.submodules.rows = rows = Rom(row, layer.row_words(lane).tolist(), layer.image(lane, "rows"))
        m.submodules.synapses = synapses = Rom(
            record_layout(layer.synapse_record), layer.synapse_words(lane).tolist(), layer.image(lane, "synapses")
        )
        value_shape = self.value.shape()
        event_value = Signal(value_shape)
        if self._value_bits:
            m.d.comb += event_value.eq(self.broadcast.value)

        # Look-up: row table, one clock, then a register, since block memory is slow to answer.
        looking = Signal()
        look_end = Signal()
        look_value = Signal(value_shape, reset_less=True)
        found = Signal()
        found_end = Signal()
        found_row = Signal(row, reset_less=True)
        found_value = Signal(value_shape, reset_less=True)
        discard = Signal()
        m.d.comb += [
            rows.en.eq(self.broadcast_valid & ~self.broadcast.end),
            rows.addr.eq(wrap(self.broadcast.source, unsigned(len(rows.addr)))),
            discard.eq(looking & ~look_end & (rows.data.count == 0)),
        ]
        # The row that the walker takes next, and the one behind it.
        entry = data.StructLayout({"end": 1, "row": row, "value": value_shape})
        first = Signal(entry)
        occupied = Signal()
        pop = Signal()
        moves_in = Signal()
        moves_on = Signal()
        with m.If(moves_in):
            m.d.sync += [looking.eq(self.broadcast_valid), look_end.eq(self.broadcast.end), look_value.eq(event_value)]
        with m.If(moves_on):
            m.d.sync += [
                found.eq(looking & ~discard),
                found_end.eq(look_end),
                found_row.eq(rows.data),
                found_value.eq(look_value),
            ]
        entering = Signal(entry)
        m.d.comb += [
            entering.end.eq(found_end),
            entering.row.eq(found_row),
            entering.value.eq(found_value),
        ]
        if self._depth:
            self._queue(m, entering, found, discard, first, occupied, pop)
            m.d.comb += [moves_in.eq(1), moves_on.eq(1)]
        else:
            m.d.comb += [
                first.eq(entering),
                occupied.eq(found),
                moves_on.eq(~found | pop),
                # An empty row is let stand as well: its length comes late out of the memory.
                moves_in.eq(~looking | moves_on),
                self.room.eq(moves_in),
            ]

        # Walker: `address` is read in every clock in which it is `active`.
        active = Signal()
        is_final = Signal()
        address = Signal.like(synapses.addr, reset_less=True)
        remaining = Signal.like(found_row.count, reset_less=True)
        walk_value = Signal(value_shape, reset_less=True)
        load = Signal()
        m.d.comb += [
            load.eq(self.go & occupied & ~first.end & (~active | is_final)),
            pop.eq(load | self.resume),
            synapses.en.eq(active),
            synapses.addr.eq(address),
        ]
        with m.If(load):
            m.d.sync += [
                active.eq(1),
                is_final.eq(first.row.count == 1),
                address.eq(wrap(first.row.start, unsigned(len(address)))),
                remaining.eq(first.row.count),
                walk_value.eq(first.value),
            ]
        with m.Elif(active):
            m.d.sync += [
                active.eq(~is_final),
                is_final.eq(remaining == 2),
                address.eq(wrap(address + 1, address.shape())),
                remaining.eq(wrap(remaining - 1, remaining.shape())),
            ]

        reading = Signal()
        read_value = Signal(value_shape, reset_less=True)
        m.d.sync += [
            reading.eq(active),
            read_value.eq(walk_value),
            self.synapse_valid.eq(reading),
            Value.cast(self.synapse).eq(Value.cast(synapses.data)),
            self.value.eq(read_value),
        ]
        walking = Signal()
        m.d.comb += [
            walking.eq(active | reading | self.synapse_valid),
            self.waiting.eq(occupied & first.end & ~walking),
            self.busy.eq(walking | Mux(occupied, ~first.end, found & ~found_end)),
        ]
        return m

    def _queue(
        self, m: Module, entering: Signal, push: Signal, discard: Signal, first: Signal, occupied: Signal, pop: Signal
    ) -> None:
        """Rows and ends in order. Room is counted from the moment an event is given: the queue cannot overflow."""
        width = Shape.cast(entering.shape()).width
        m.submodules.queue = queue = memory.Memory(shape=unsigned(width), depth=self._depth, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        head = Signal(range(self._depth))
        tail = Signal(range(self._depth))
        level = Signal(range(self._depth + 1))
        reserved = Signal(range(self._depth + 1))
        discarded = Signal()
        m.d.comb += [
            write.en.eq(push),
            write.addr.eq(tail),
            write.data.eq(Value.cast(entering)),
            read.addr.eq(head),
            Value.cast(first).eq(read.data),
            occupied.eq(level != 0),
            self.room.eq(reserved != self._depth),
        ]
        m.d.sync += [
            discarded.eq(discard),
            level.eq(wrap(level + push - pop, level.shape())),
            reserved.eq(wrap(reserved + self.broadcast_valid - pop - discarded, reserved.shape())),
        ]
        with m.If(push):
            m.d.sync += tail.eq(next_index(tail, self._depth))
        with m.If(pop):
            m.d.sync += head.eq(next_index(head, self._depth))
