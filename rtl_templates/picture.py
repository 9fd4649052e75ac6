"""From an event of a picture to the row that it walks, and to where the row's taps land."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.pictures import Axis, PictureInput, side_bits
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import wrap
from rtl_templates.fetcher import event_layout
from rtl_templates.memories import next_index


class PicturePlace(wiring.Component):
    """Counts through the slots of a picture: x, then y, then the rank of the channel, and begins again.

    Parameters
    ----------
    sizes : ranks, height and width; of several layers that have turns those of each.

    Members
    -------
    step : In(1), a slot has passed. x, y, rank : Out, of the slot at hand; a coordinate that can only be 0 is a
        constant of no bits.
    layer : In, of several layers the one at work.
    """

    def __init__(self, *sizes: tuple[int, int, int]):
        ranks, heights, widths = zip(*sizes, strict=True)
        self._sizes: dict[str, tuple[int, ...]] = {"x": widths, "y": heights, "rank": ranks}
        bits = {name: side_bits(max(found)) for name, found in self._sizes.items()}
        # Verilog has no ports of no bits.
        for name in (name for name, count in bits.items() if not count):
            setattr(self, name, Const(0, 0))
        super().__init__(
            {
                "step": In(1),
                **{name: Out(unsigned(count)) for name, count in bits.items() if count},
                **({"layer": In(range(len(sizes)))} if len(sizes) > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        steps: Value = self.step
        for name, (first, *others) in self._sizes.items():
            counter = getattr(self, name)
            if max(first, *others, 1) == 1:
                continue
            if not others:
                at_last: Value = counter == first - 1
                following = next_index(counter, first)
            else:
                last = Signal.like(counter, name=f"last_{name}")
                with m.Switch(self.layer):
                    for number, size in enumerate((first, *others)):
                        with m.Case(number):
                            m.d.comb += last.eq(size - 1)
                at_last = counter == last
                following = Mux(at_last, 0, wrap(counter + 1, counter.shape()))
            with m.If(steps):
                m.d.sync += counter.eq(following)
            steps = steps & at_last
        return m


class PictureRows(wiring.Component):
    """The row of a picture's event, and where its taps land; pools and strides included. All in one clock.

    Parameters
    ----------
    reads : how the picture is read. bits : of an address.

    Members
    -------
    source : In(bits), address of :func:`codesign.machine.pictures.addresses`, within the stream of events.
    row, base, reach_y, reach_x : Out; reach is 0 along an axis where the event leads nowhere.
    """

    def __init__(self, reads: PictureInput, bits: int):
        self._reads = reads
        self.is_convolution = reads.is_convolution
        y, x = (int(axis.reach.max()).bit_length() for axis in (reads.y, reads.x))
        most = int(reads.y.base.max() + reads.x.base.max())
        channel = bits - side_bits(reads.shape[1]) - side_bits(reads.shape[2])
        super().__init__(
            {
                "source": In(bits),
                "row": Out(max(1, channel + reads.row_bits)),
                "base": Out(max(1, most.bit_length())),
                "reach_y": Out(max(1, y)),
                "reach_x": Out(max(1, x)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        reads = self._reads
        x, y, channel = picture_parts(reads, self.source)
        row_y, base_y, reach_y = looked_up(m, "y", reads.y, y)
        row_x, base_x, reach_x = looked_up(m, "x", reads.x, x)
        row = Cat(wrap(row_y + row_x, unsigned(reads.row_bits)), channel)
        m.d.comb += [
            self.row.eq(row),
            self.base.eq(wrap(base_y + base_x, self.base.shape())),
            self.reach_y.eq(reach_y),
            self.reach_x.eq(reach_x),
        ]
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
        placement, value = plan.placement, plan.widths.value
        super().__init__(
            {
                "i": In(stream.Signature(event_layout(link.stream_span, value))),
                "o": Out(stream.Signature(event_layout(placement.n_addresses, value, placement.tag))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        reads, event, out = self._reads, self.i.payload, self.o.payload
        x, y, channel = picture_parts(reads, event.source)
        row_y, base_y, reach_y = looked_up(m, "y", reads.y, y)
        row_x, base_x, reach_x = looked_up(m, "x", reads.x, x)
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
            elif self._plan.placement.tag.fields:
                # Single synapses beside taps: steps of 0 from a base of 0.
                m.d.sync += [out.base.eq(0), out.reach_y.eq(1), out.reach_x.eq(1)]
        return m


def picture_parts(reads: PictureInput, source: Value) -> tuple[Value, Value, Value]:
    """x, y and channel of an address."""
    x_bits, y_bits = side_bits(reads.shape[2]), side_bits(reads.shape[1])
    return source[:x_bits], source[x_bits : x_bits + y_bits], source[x_bits + y_bits :]


def looked_up(m: Module, name: str, axis: Axis, coordinate: Value) -> list[Signal]:
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
