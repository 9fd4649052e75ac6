"""From an event of a picture to the row that it walks, and to where the row's taps land."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.pictures import Axis, PictureInput, side_bits
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import wrap
from rtl_templates.fetcher import event_layout
from rtl_templates.memories import next_index


class PicturePlace(wiring.Component):
    """Counts through the slots of a picture: x, then y, then the rank of the channel, and begins again.

    Members
    -------
    step : In(1), a slot has passed. x, y, rank : Out, of the slot at hand; a coordinate that can only be 0 has no bits.
    """

    def __init__(self, ranks: int, height: int, width: int):
        self._sizes = {"x": width, "y": height, "rank": ranks}
        super().__init__(
            {"step": In(1), **{name: Out(unsigned(side_bits(size))) for name, size in self._sizes.items()}}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        steps: Value = self.step
        for name, size in self._sizes.items():
            counter = getattr(self, name)
            if size == 1:
                continue
            at_last = counter == size - 1
            with m.If(steps):
                m.d.sync += counter.eq(next_index(counter, size))
            steps = steps & at_last
        return m


class PictureReader(wiring.Component):
    """Turns addresses of a picture's events into rows, pools and strides included.

    Operation: x and y are looked up in two small tables of logic (:class:`codesign.machine.pictures.Axis`), the sums of
    what they say are registered. An event that leads nowhere is dropped. Latency 1 clock, throughput one event a clock.

    Parameters
    ----------
    plan : of the engine. projection : number of the one that reads a picture.

    Members
    -------
    i : In(stream of event_layout); addresses of :func:`codesign.machine.pictures.addresses`, within the stream of
        events that is read, and ends.
    o : Out(stream of event_layout); rows, and what a tap needs to land.

    Raises
    ------
    ValueError if the projection reads no picture.
    """

    def __init__(self, plan: EnginePlan, projection: int = 0):
        link = plan.projections[projection]
        if link.reads is None:
            raise ValueError(f"projection {projection} reads no picture")
        self._reads: PictureInput = link.reads
        self._row_base = link.row_base
        self._plan = plan
        layer, value = plan.layers[0], plan.widths.value
        super().__init__(
            {
                "i": In(stream.Signature(event_layout(link.stream_span, value))),
                "o": Out(stream.Signature(event_layout(layer.n_addresses, value, layer.tag))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        reads, event, out = self._reads, self.i.payload, self.o.payload
        x_bits, y_bits = side_bits(reads.shape[2]), side_bits(reads.shape[1])
        x, y = event.source[:x_bits], event.source[x_bits : x_bits + y_bits]
        channel = event.source[x_bits + y_bits :]
        row_y, base_y, reach_y = self._looked_up(m, "y", reads.y, y)
        row_x, base_x, reach_x = self._looked_up(m, "x", reads.x, x)
        row = Cat(wrap(row_y + row_x, unsigned(reads.row_bits)), channel)
        moves = Signal()
        m.d.comb += [moves.eq(~self.o.valid | self.o.ready), self.i.ready.eq(moves)]
        with m.If(moves):
            m.d.sync += [
                self.o.valid.eq(self.i.valid & (event.end | (reach_y.any() & reach_x.any()))),
                out.end.eq(event.end),
                out.source.eq(wrap(row + self._row_base if self._row_base else row, out.source.shape())),
            ]
            if self._plan.widths.value:
                m.d.sync += out.value.eq(event.value)
            if reads.is_convolution:
                m.d.sync += [
                    out.base.eq(wrap(base_y + base_x, out.base.shape())),
                    out.reach_y.eq(reach_y),
                    out.reach_x.eq(reach_x),
                ]
            elif self._plan.layers[0].tag.fields:
                # Single synapses beside taps: steps of 0 from a base of 0.
                m.d.sync += [out.base.eq(0), out.reach_y.eq(1), out.reach_x.eq(1)]
        return m

    def _looked_up(self, m: Module, name: str, axis: Axis, coordinate: Value) -> list[Signal]:
        """Row, base and reach of a coordinate."""
        found = []
        for what in ("row", "base", "reach"):
            column = getattr(axis, what).tolist()
            signal = Signal(unsigned(max(1, max(column).bit_length())), name=f"{what}_{name}")
            found.append(signal)
            if len(coordinate) == 0:
                m.d.comb += signal.eq(column[0])
                continue
            with m.Switch(coordinate):
                for value, entry in enumerate(column):
                    with m.Case(value):
                        m.d.comb += signal.eq(entry)
        return found
