"""What comes into an engine: events of all projections at once for one layer, or in turns for several.

Either has ``accepts``, ``events`` (the event that is given to the lanes, and whether it is, of each stream) and
``returns``, where the words of the engine's own sweeps go that come back as events; None if none do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream

from codesign.machine.layouts import index_width
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import wrap
from rtl_templates.fetcher import event_layout
from rtl_templates.lanes import Lanes
from rtl_templates.memories import StreamFifo
from rtl_templates.picture import PictureReader
from rtl_templates.serializer import serialized, sweep_word_layout
from rtl_templates.streams import EventMerge, StreamFork, join, stream_suffixes
from rtl_templates.turns import Turns


def rooms(m: Module, plan: EnginePlan, lanes: Lanes) -> Iterator[Value]:
    """Of each stream whether every lane has room for one more event."""
    for of_stream in range(plan.streams):
        has_room: Value = Cat(fetcher.room for fetcher in lanes.of_stream(of_stream)).all()
        if plan.streams > 1 and plan.queue_depth:
            # What so many lanes say is known a clock late.
            late = Signal(name=f"has_room_{of_stream}")
            m.d.sync += late.eq(has_room)
            has_room = late
        yield has_room


class MergedIntake:
    """Rows to walk of one layer, of all projections together.

    Parameters
    ----------
    m : module that it becomes part of. plan : of the engine. lanes : what takes the events.
    inputs : the streams that come in, by the number of their projection.
    while_moving : a condition, and that the engine does not stand still.
    """

    def __init__(
        self,
        m: Module,
        plan: EnginePlan,
        lanes: Lanes,
        inputs: Mapping[int, list[Any]],
        while_moving: Callable[[Value], Value],
    ):
        self._plan, self._inputs, self._while_moving = plan, inputs, while_moving
        self._rows = event_layout(plan.placement.n_addresses, plan.widths.value, plan.placement.tag)
        self.accepts: list[Signal] = []
        self.events: list[Any] = []
        self.returns: Any = None
        streams = self._merged(m)
        for events, has_room in zip(streams, rooms(m, plan, lanes), strict=True):
            accept = Signal()
            m.d.comb += [
                events.ready.eq(while_moving(has_room)),
                accept.eq(while_moving(events.valid & events.ready)),
            ]
            self.accepts.append(accept)
            self.events.append(events.payload)

    def _merged(self, m: Module) -> list[Any]:
        """The rows of each stream."""
        plan = self._plan
        tokens: list[Iterator[Any]] = self._own_events(m) if any(plan.delayed) else [iter(())] * plan.streams
        merged: list[Any] = []
        for of_stream, (own_tokens, of) in enumerate(zip(tokens, stream_suffixes(plan.streams), strict=True)):
            found = [
                self._rows_of(m, number, of, next(own_tokens) if late else self._outer(m, number, of_stream))
                for number, late in enumerate(plan.delayed)
            ]
            if len(found) == 1:
                merged.append(found[0])
                continue
            # What comes is ended once for each accumulation.
            steps = 1 if plan.keeps_sums else plan.timesteps
            m.submodules[f"merge{of}"] = merge = EventMerge(self._rows, plan.delayed, steps)
            for sender, receiver in zip(found, merge.inputs, strict=True):
                join(m, sender, receiver)
            merged.append(merge.o)
        return merged

    def _outer(self, m: Module, number: int, of_stream: int) -> Any:
        """A stream that comes in, while the engine moves."""
        plan, outer = self._plan, self._inputs[number][of_stream]
        source = stream.Signature(event_layout(plan.projections[number].stream_span, plan.widths.value)).create()
        m.d.comb += [
            Value.cast(source.payload).eq(Value.cast(outer.payload)),
            source.valid.eq(outer.valid),
            outer.ready.eq(self._while_moving(source.ready)),
        ]
        return source

    def _rows_of(self, m: Module, number: int, of: str, source: Any) -> Any:
        """Rows of a projection's events."""
        plan, projection = self._plan, self._plan.projections[number]
        if projection.reads is not None:
            m.submodules[f"reader{number or ''}{of}"] = reader = PictureReader(plan, number)
            join(m, source, reader.i)
            return reader.o
        event = stream.Signature(self._rows).create()
        row = source.payload.source + projection.row_base if projection.row_base else source.payload.source
        m.d.comb += [
            event.payload.end.eq(source.payload.end),
            event.payload.source.eq(wrap(row, event.payload.source.shape())),
            event.valid.eq(source.valid),
            source.ready.eq(event.ready),
        ]
        if plan.widths.value:
            m.d.comb += event.payload.value.eq(source.payload.value)
        if plan.placement.tag.fields:
            # Single synapses beside taps: steps of 0 from a base of 0.
            m.d.comb += [event.payload.reach_y.eq(1), event.payload.reach_x.eq(1)]
        return event

    def _own_events(self, m: Module) -> list[Iterator[Any]]:
        """The layer's own events of the timestep before, of each stream for each projection that reads them; its sweep
        words wait for the next timestep in a FIFO."""
        plan = self._plan
        m.submodules.own = fifo = StreamFifo(sweep_word_layout(plan.own_word), plan.own_fifo_depth)
        self.returns = fifo.i
        found: list[Iterator[Any]] = []
        for sent, of in zip(
            serialized(m, fifo.o, plan.own_word, plan.streams, "own_serializer"), stream_suffixes(plan.streams)
        ):
            readers = plan.delayed.count(True)
            if readers == 1:
                found.append(iter([sent]))
                continue
            m.submodules[f"own_fork{of}"] = fork = StreamFork(sent.payload.shape(), readers)
            join(m, sent, fork.i)
            found.append(iter(fork.outputs))
        return found


class ChainIntake:
    """Rows to walk of the layer whose turn it is, in a chain: the network's input for the first layer, a hidden layer's
    spikes for the one after it. Layers that read more have a :class:`rtl_templates.links.LinkIntake`.

    Parameters
    ----------
    m, plan, lanes, inputs, while_moving : as of :class:`MergedIntake`. turns : whose turn it is.
    """

    def __init__(
        self,
        m: Module,
        plan: EnginePlan,
        lanes: Lanes,
        inputs: Mapping[int, list[Any]],
        while_moving: Callable[[Value], Value],
        turns: Turns,
    ):
        layout = event_layout(plan.placement.n_addresses, plan.widths.value, plan.placement.tag)
        self.accepts: list[Signal] = []
        self.events: list[Any] = []
        m.submodules.hidden_fifo = fifo = StreamFifo(sweep_word_layout(plan.hidden_sweep_word), plan.hidden_fifo_depth)
        self.returns = fifo.i
        tokens = serialized(m, fifo.o, plan.hidden_sweep_word, plan.streams, "hidden_serializer")
        row_base = Signal(unsigned(index_width(plan.placement.n_addresses)))

        def take(m: Module, number: int) -> None:
            m.d.sync += row_base.eq(plan.placement.row_base[number])

        turns.followers.append(take)
        gates = zip(turns.reads_input, turns.fed, rooms(m, plan, lanes), strict=True)
        for outer, token, (reads_input, fed, has_room) in zip(inputs[0], tokens, gates, strict=True):
            accept = Signal()
            room = Signal()
            event = Signal(layout)
            m.d.comb += [
                room.eq(while_moving(has_room)),
                token.ready.eq(room & ~reads_input),
                outer.ready.eq(room & reads_input),
                accept.eq((token.valid & token.ready) | (outer.valid & outer.ready)),
                event.end.eq(Mux(reads_input, outer.payload.end, token.payload.end)),
                event.source.eq(Mux(reads_input, outer.payload.source, token.payload.source | row_base)),
            ]
            if plan.widths.value:
                m.d.comb += event.value.eq(Mux(reads_input, outer.payload.value, 1))
            with m.If(outer.valid & outer.ready & outer.payload.end):
                m.d.sync += fed.eq(1)
            with m.If(turns.resume):
                m.d.sync += fed.eq(0)
            self.accepts.append(accept)
            self.events.append(event)
