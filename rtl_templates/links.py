"""What comes into an engine of several layers that read more than the layer before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream

from codesign.contract.network import INPUT
from codesign.machine.pictures import side_bits
from codesign.machine.plan import EnginePlan, LinkPlan
from codesign.machine.streams import stream_bits
from rtl_templates.arithmetic import wrap
from rtl_templates.fetcher import event_layout
from rtl_templates.intake import rooms
from rtl_templates.lanes import Lanes
from rtl_templates.memories import StreamFifo
from rtl_templates.picture import PictureRows
from rtl_templates.serializer import serialized, sweep_word_layout
from rtl_templates.streams import join, stream_suffixes
from rtl_templates.turns import Turns


@dataclass(frozen=True)
class Back:
    """A FIFO for words that come back as events.

    senders : layers whose sweeps go there. is_late : for the next timestep's turn of the layer itself. i : the FIFO's
    input.
    """

    senders: tuple[int, ...]
    is_late: bool
    i: Any


class LinkIntake:
    """Rows to walk of the layer whose turn it is, projection by projection.

    Operation: the links of an engine (:class:`LinkPlan`) are taken one after the other, each up to its end of a
    timestep; the last one of a layer's ends the layer's accumulation, and what follows waits for the next turn. Sweep
    words come from FIFOs that hold a whole timestep, in the order of the links, through one serializer; the network's
    input comes from the port in the first layer's turn, and is kept for readers with later turns. A layer's own words
    of the timestep before end there with an end only, in the first timestep as well. One stage turns each event into
    its row. Latency 1 clock, throughput one event a clock.

    Nothing stops: all of a link has been written, or is being written by the sweep before, which waits for no FIFO of
    these, or comes in at the port.

    Parameters
    ----------
    m, plan, lanes, inputs, while_moving, turns : as of :class:`rtl_templates.intake.ChainIntake`.

    Members
    -------
    accepts, events : as of the other intakes. returns : where sweep words go.
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
        self._plan, self._while_moving, self._turns = plan, while_moving, turns
        self.accepts: list[Signal] = []
        self.events: list[Any] = []
        self.returns: list[Back] = []
        tokens = self._tokens(m)
        gates = zip(stream_suffixes(plan.streams), rooms(m, plan, lanes), strict=True)
        for outer, token, (of, has_room) in zip(inputs[0], tokens, gates, strict=True):
            self._stream(m, of, outer, token, has_room)

    def _tokens(self, m: Module) -> list[Any]:
        """Events of sweep words in the order of the links, of each stream."""
        plan = self._plan
        layout = sweep_word_layout(plan.hidden_sweep_word)
        passed = tuple(link.source for link in plan.links if link.way == "passed")
        fifos: dict[str, StreamFifo] = {}
        if passed:
            m.submodules.hidden_fifo = fifos["passed"] = StreamFifo(layout, plan.hidden_fifo_depth)
            self.returns.append(Back(passed, False, fifos["passed"].i))
        chosen: list[StreamFifo] = []
        for link in plan.links:
            if link.way == "kept":
                m.submodules[f"kept{link.name}"] = fifo = StreamFifo(layout, link.depth)
                self.returns.append(Back((link.source,), link.is_late, fifo.i))
                chosen.append(fifo)
            elif link.way == "passed":
                chosen.append(fifos["passed"])
        if not chosen:
            return [None] * plan.streams
        words = stream.Signature(layout).create()
        at = Signal(range(len(chosen)), name="word_link")
        with m.Switch(at):
            for number, fifo in enumerate(chosen):
                with m.Case(number):
                    join(m, fifo.o, words)
        with m.If(words.valid & words.ready & words.payload.end):
            m.d.sync += at.eq(Mux(at == len(chosen) - 1, 0, at + 1))
        return serialized(m, words, plan.hidden_sweep_word, plan.streams, "hidden_serializer")

    def _stream(self, m: Module, of: str, outer: Any, token: Any, has_room: Value) -> None:
        """The events of one stream, from the links to the lanes."""
        plan, placement, links = self._plan, self._plan.placement, self._plan.links
        layout = event_layout(placement.n_addresses, plan.widths.value, placement.tag)
        link = Signal(range(len(links)), name=f"link{of}")
        # The layer's last link has ended.
        done = Signal(name=f"done{of}")
        self._follow(link, done)
        offered, ends, wanted, moves, takes = (
            Signal(name=f"{name}{of}") for name in ("offered", "ends", "wanted", "link_moves", "takes")
        )
        held, event = Signal(name=f"held{of}"), Signal(layout, name=f"event{of}")
        found, reaches, is_last = (
            Signal(layout, name=f"found{of}"),
            Signal(name=f"reaches{of}"),
            Signal(name=f"last{of}"),
        )
        accept = Signal(name=f"accept{of}")
        copies = list(self._copies(m, of, outer))
        rows: dict[str, PictureRows] = {}
        for of_link in links:
            if of_link.projection.reads is not None:
                sent = self._address(of_link, self._sender(of_link, outer, token, copies).payload.source)
                m.submodules[f"reader{of_link.name}{of}"] = reader = PictureRows(of_link.projection.reads, len(sent))
                m.d.comb += reader.source.eq(sent)
                rows[of_link.name] = reader
        m.d.comb += [
            wanted.eq(self._while_moving(moves & ~done)),
            takes.eq(offered & wanted),
            found.end.eq(ends),
            accept.eq(self._while_moving(held & has_room)),
            moves.eq(~held | has_room),
        ]
        with m.Switch(link):
            for number, of_link in enumerate(links):
                with m.Case(number):
                    sender = self._sender(of_link, outer, token, copies)
                    room: Value = Const(1, 1)
                    if of_link.way == "port":
                        room = Cat(fifo.i.ready for _, fifo in copies).all() if copies else room
                    m.d.comb += [
                        offered.eq(sender.valid & room),
                        sender.ready.eq(wanted & room),
                        ends.eq(sender.payload.end),
                        is_last.eq(number == len(links) - 1 or links[number + 1].layer != of_link.layer),
                    ]
                    self._look_up(m, of_link, sender.payload, rows.get(of_link.name), found, reaches)
        for _, fifo in copies:
            m.d.comb += fifo.i.valid.eq(outer.valid & outer.ready)
        with m.If(moves):
            m.d.sync += [
                held.eq(takes & Mux(ends, is_last, reaches)),
                Value.cast(event).eq(Value.cast(found)),
            ]
        with m.If(takes & ends):
            with m.If(is_last):
                m.d.sync += done.eq(1)
            with m.Else():
                m.d.sync += link.eq(link + 1)
        self.accepts.append(accept)
        self.events.append(event)

    @staticmethod
    def _sender(link: LinkPlan, outer: Any, token: Any, copies: Sequence[tuple[LinkPlan, StreamFifo]]) -> Any:
        """Where the events of a link come from."""
        if link.way == "copy":
            return next(fifo.o for copied, fifo in copies if copied is link)
        return outer if link.way == "port" else token

    def _follow(self, link: Signal, done: Signal) -> None:
        """When events of the next layer are to be taken, its first link's come."""
        first = [
            next(k for k, link in enumerate(self._plan.links) if link.layer == number)
            for number in range(len(self._plan.layers))
        ]

        def take(m: Module, number: int) -> None:
            m.d.sync += [link.eq(first[number]), done.eq(0)]

        self._turns.followers.append(take)

    def _copies(self, m: Module, of: str, outer: Any) -> Iterator[tuple[LinkPlan, StreamFifo]]:
        """FIFOs of what comes in, for readers with later turns."""
        for link in self._plan.links:
            if link.way == "copy":
                m.submodules[f"copy{link.name}{of}"] = fifo = StreamFifo(outer.payload.shape(), link.depth)
                m.d.comb += Value.cast(fifo.i.payload).eq(Value.cast(outer.payload))
                yield link, fifo

    def _look_up(
        self, m: Module, link: LinkPlan, sent: Any, rows: PictureRows | None, found: Any, reaches: Signal
    ) -> None:
        """The row of an event, where its taps land, and whether it leads anywhere. rows : if it reads a picture."""
        plan = self._plan
        base = plan.placement.row_base[link.layer] + link.projection.row_base
        if plan.widths.value:
            m.d.comb += found.value.eq(sent.value if link.source == INPUT else 1)
        row = self._address(link, sent.source) if rows is None else rows.row
        m.d.comb += [
            found.source.eq(wrap(row + base if base else row, found.source.shape())),
            reaches.eq(1 if rows is None else rows.reach_y.any() & rows.reach_x.any()),
        ]
        if not plan.placement.tag.fields:
            return
        # Single synapses beside taps: steps of 0 from a base of 0.
        taps = rows if rows is not None and rows.is_convolution else None
        m.d.comb += [
            found.base.eq(0 if taps is None else wrap(taps.base, found.base.shape())),
            found.reach_y.eq(1 if taps is None else taps.reach_y),
            found.reach_x.eq(1 if taps is None else taps.reach_x),
        ]

    def _address(self, link: LinkPlan, source: Value) -> Value:
        """The address of an event as the projection reads it: of a picture with the place below the unit."""
        plan = self._plan
        if link.source == INPUT:
            return source
        rank, x, _ = plan.back_bits
        unit_bits = rank + plan.placement.lane_bits - stream_bits(plan.streams)
        unit = source[:unit_bits]
        reads = link.projection.reads
        if reads is None:
            return unit if unit_bits else Const(0, 1)
        place_x = source[unit_bits : unit_bits + side_bits(reads.shape[2])]
        place_y = source[unit_bits + x : unit_bits + x + side_bits(reads.shape[1])]
        return Cat(place_x, place_y, unit)
