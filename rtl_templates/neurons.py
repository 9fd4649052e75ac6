"""The neurons of one lane: membrane memory, accumulation, and the LIF datapath of the fire sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from codesign.contract.network import LeakKind, signed_width
from codesign.machine.layouts import LEAKS, index_width
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import record_layout, saturate, saturate_within, wrap
from rtl_templates.memories import Rom, load_bus, load_place

Key = TypeVar("Key")


class NeuronBank(wiring.Component):
    """Membranes of one lane.

    Accumulation, one synapse a clock: the slot's word is read, ``weight`` (times ``value``) is added, the word is
    written back; 3 clocks, sums still on their way are forwarded.

    Sweep, one slot a clock, P the word width of the state, W the membrane width, F the fraction bits:

        u = state                                     events: signed(P), the sum is already in it
        u = state + (sum << F)                        current
        d = u - threshold                             exact, one bit wider
        s = d >= 0  |  d > 0
        r = s ? (d | 0 | value) : u                   reset; u if there is none
        v = saturate(r, W)
        state = leak(v) + bias, or bias if ``write_initial``

    A slot read in clock 0 shows s, v and ``saturated`` in clock ``fire`` (4; 5 for current) and must be written by
    the caller's ``write_*`` in clock ``stages`` (one later). With a short pipeline a synapse takes 2 clocks, and a slot
    shows and is written in clock 2, or 3 for current. The slot's sum is cleared by ``clear_*`` in clock 2. Its
    parameters are read by ``parameter_*`` in clock ``parameter_clock``, just before the first of them is used.

    Parameters
    ----------
    plan : of the engine.
    lane : number of the lane.

    Members
    -------
    layer : In, which layer the bank works for (only with several); constant while a sweep is inside.
    synapse_valid : In(1); synapse : In({slot, weight}); value : In(unsigned).
    busy : Out(1), a sum has not reached the last stage, which writes it at the end of its clock.
    read_valid, read_slot : In, start of a slot's sweep; no synapse may come in that clock, nor have come in the one
        before. A synapse may read a slot from the clock on in which its sweep is written.
    clear_valid, clear_slot : In, clear the slot's sum (coding current).
    parameter_valid, parameter_slot : In, if slots have parameters of their own.
    write_valid, write_slot, write_initial : In.
    clip : In(W - 1), of a loadable machine's spiking layer: ones from bit W' - 1 up, where W' <= W is the width into
        which v is clipped; constant while a sample is inside. load : In(load_bus), of a loadable machine.
    spike : Out(1); membrane : Out(signed(W)); saturated : Out(1).
    count : Out(widths.count), if there is one: spikes of the slot in this sample, the one shown included.

    Raises
    ------
    ValueError if ``lane`` is not one of the layer's.
    """

    def __init__(self, plan: EnginePlan, lane: int):
        placement, widths = plan.placement, plan.widths
        if not 0 <= lane < plan.lanes:
            raise ValueError(f"lane {lane!r} is outside 0..{plan.lanes - 1}")
        self._plan = plan
        self._layers = plan.frozen
        self._placement = placement
        self._lane = lane
        self._widths = widths
        self._attributes = {} if plan.state_style == "auto" else {"ram_style": plan.state_style}
        self.is_short = placement.pipeline == "short"
        self.fire, self.stages = plan.clocks.fire, plan.clocks.write
        record = placement.parameter_record
        compared = self.fire - (1 if self.is_short else 2)
        # Clocks in which the sweep uses each parameter.
        leaks = self.fire
        self._used = {"threshold": compared, "bias": self.stages, **dict.fromkeys(LEAKS, leaks)}
        self.parameter_clock = min((self._used[field.name] for field in record), default=self.stages) - 1
        slot = unsigned(index_width(placement.n_slots))
        parameter = unsigned(index_width(placement.parameter_depth))
        weight = record_layout(placement.given_record)["weight"].shape
        width = widths.membrane
        self._capacity = placement.capacity
        self._clips = self._capacity is not None and any(self._spiking)
        super().__init__(
            {
                **({"layer": In(range(len(self._layers)))} if len(self._layers) > 1 else {}),
                "synapse_valid": In(1),
                "synapse": In(data.StructLayout({"slot": slot, "weight": weight})),
                "value": In(unsigned(max(1, widths.value))),
                "busy": Out(1),
                "read_valid": In(1),
                "read_slot": In(slot),
                "clear_valid": In(1),
                "clear_slot": In(slot),
                **({"parameter_valid": In(1), "parameter_slot": In(parameter)} if record.fields else {}),
                "write_valid": In(1),
                "write_slot": In(slot),
                "write_initial": In(1),
                "spike": Out(1),
                "membrane": Out(signed(width)),
                "saturated": Out(1),
                **({"count": Out(unsigned(widths.count))} if widths.count else {}),
                **({"clip": In(unsigned(width - 1))} if self._clips else {}),
                **({"load": In(load_bus(self._capacity))} if self._capacity else {}),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        layers, widths, depth = self._layers, self._widths, self._plan.state_depth
        slot_shape = self.read_slot.shape()
        # A count lies below the state that it is stored with, so that sums pass it by.
        beside_sum = 0 if widths.has_sum else widths.count
        accumulator_shape = signed(widths.sum if widths.has_sum else widths.state + beside_sum)
        m.submodules.accumulator = accumulator = memory.Memory(
            shape=accumulator_shape, depth=depth, init=[], attrs=self._attributes
        )
        write, read = accumulator.write_port(), accumulator.read_port()
        address_shape = unsigned(len(read.addr))

        operand = Signal(accumulator_shape, reset_less=True)
        total = Signal(accumulator_shape)
        last_written = Signal(accumulator_shape, reset_less=True)
        term: Value = self.synapse.weight * self.value if widths.value else self.synapse.weight
        # Whoever writes the word that is read in the same clock, and whoever reads it.
        forward_far_1 = Signal()
        # What a synapse valid_2 to, by how much, and where to.
        valid_2 = Signal()
        product_2 = Signal(term.shape(), reset_less=True)
        slot_2 = Signal(slot_shape, reset_less=True)
        base: Value
        m.d.comb += [
            read.en.eq(self.synapse_valid | self.read_valid),
            read.addr.eq(wrap(Mux(self.read_valid, self.read_slot, self.synapse.slot), address_shape)),
        ]
        m.d.sync += [forward_far_1.eq(read.en & write.en & (read.addr == write.addr)), last_written.eq(write.data)]
        if self.is_short:
            # A synapse's word is read in clock 0, added to and written in 1.
            m.d.sync += [valid_2.eq(self.synapse_valid), slot_2.eq(self.synapse.slot), product_2.eq(term)]
            base = operand
            m.d.comb += operand.eq(Mux(forward_far_1, last_written, read.data))
        else:
            base = self._chosen(m, valid_2, product_2, slot_2, term, operand, last_written)
            m.d.sync += operand.eq(Mux(forward_far_1, last_written, read.data))
        shift = 0 if widths.has_sum else layers[0].fraction_bits + beside_sum
        if shift == 0:
            m.d.comb += total.eq(wrap(base + product_2, accumulator_shape))
        else:
            # The shifted weight leaves the lowest bits alone.
            upper = wrap(base[shift:].as_signed() + product_2, signed(len(base) - shift))
            m.d.comb += total.eq(Cat(base[:shift], upper).as_signed())

        parameters = self._parameters(m)

        # Potential, in stage fire - 2; short: in stage fire - 1.
        u = Signal(signed(widths.potential), reset_less=True)
        if widths.has_sum:
            m.submodules.state = state = memory.Memory(
                shape=signed(widths.state + widths.count), depth=depth, init=[], attrs=self._attributes
            )
            state_write, state_read = state.write_port(), state.read_port()
            state_2 = Signal(signed(widths.state + widths.count), reset_less=True)
            stored = state_2
            m.d.comb += [state_read.en.eq(self.read_valid), state_read.addr.eq(wrap(self.read_slot, address_shape))]
            if self.is_short:
                m.d.comb += state_2.eq(state_read.data)
            else:
                m.d.sync += state_2.eq(state_read.data)
            m.d.sync += [
                u.eq(
                    wrap(
                        state_2.shift_right(widths.count)
                        + self._of_layer([layer.fraction_bits for layer in layers], operand.shift_left),
                        signed(widths.potential),
                    )
                ),
            ]
        else:
            state_write, stored = write, operand
            m.d.comb += u.eq(operand.shift_right(widths.count))
        spike, after = self._threshold(m, u, self._when_used(m, parameters, "threshold"))
        clipping = self._clipping()
        m.d.sync += [
            self.spike.eq(spike),
            self.membrane.eq(self._of_layer(clipping, lambda key: self._clip(after, *key)[0])),
            self.saturated.eq(self._of_layer(clipping, lambda key: self._clip(after, *key)[1])),
        ]

        leaked = Signal(self.membrane.shape(), reset_less=True)
        numbers: dict[str, Value] = {}
        for name in (name for name in LEAKS if name in parameters):
            numbers[name] = Signal.like(parameters[name], name=name)
            m.d.comb += numbers[name].eq(self._when_used(m, parameters, name))
        leaks = self._of_layer(self._leaks(), lambda leak: self._leak(numbers, *leak))
        if self.is_short:
            m.d.comb += leaked.eq(wrap(leaks, leaked.shape()))
        else:
            m.d.sync += leaked.eq(wrap(leaks, leaked.shape()))
        bias = self._when_used(m, parameters, "bias")
        following = wrap(Mux(self.write_initial, bias, leaked + bias), signed(widths.state))
        if widths.count:
            before = _delay(m, stored[: widths.count], self.fire - (1 if self.is_short else 2))
            m.d.comb += self.count.eq(wrap(before + self.spike, self.count.shape()))
            counted = _delay(m, self.count, self.stages - self.fire)
            following = Cat(Mux(self.write_initial, 0, counted), following).as_signed()

        if widths.has_sum:
            m.d.comb += [
                write.en.eq(valid_2 | self.clear_valid),
                write.addr.eq(wrap(Mux(valid_2, slot_2, self.clear_slot), address_shape)),
                write.data.eq(Mux(valid_2, total, 0)),
                state_write.en.eq(self.write_valid),
                state_write.addr.eq(wrap(self.write_slot, address_shape)),
                state_write.data.eq(following),
            ]
        else:
            m.d.comb += [
                write.en.eq(valid_2 | self.write_valid),
                write.addr.eq(wrap(Mux(valid_2, slot_2, self.write_slot), address_shape)),
                write.data.eq(Mux(valid_2, total, following)),
            ]
        return m

    def _chosen(
        self,
        m: Module,
        valid_2: Signal,
        product_2: Signal,
        slot_2: Signal,
        term: Value,
        operand: Signal,
        last_written: Signal,
    ) -> Value:
        """Deep accumulation: a synapse's word is read in clock 0, chosen in 1, added to and written in 2.

        What the synapse before it has added is not yet in the memory then, nor met when it was read.
        """
        slot_1 = Signal.like(slot_2, reset_less=True)
        product_1 = Signal.like(product_2, reset_less=True)
        valid_1 = Signal()
        forward_near_1 = Signal()
        forward_near_2 = Signal()
        m.d.comb += self.busy.eq(valid_1)
        m.d.sync += [
            valid_1.eq(self.synapse_valid),
            slot_1.eq(self.synapse.slot),
            product_1.eq(term),
            forward_near_1.eq(self.synapse_valid & valid_1 & (self.synapse.slot == slot_1)),
            valid_2.eq(valid_1),
            slot_2.eq(slot_1),
            product_2.eq(product_1),
            forward_near_2.eq(forward_near_1),
        ]
        return Mux(forward_near_2, last_written, operand)

    def _parameters(self, m: Module) -> dict[str, Value | int]:
        """What the slot uses whose parameters were read one clock ago: these, and the constants."""
        placement, record = self._placement, self._placement.parameter_record
        constants = {name: placement.constants.get(name) for name in ("threshold", "bias")}
        found = {name: 0 if numbers is None else self._constant(numbers) for name, numbers in constants.items()}
        if record.fields:
            m.submodules.parameters = rom = Rom(
                record_layout(record),
                placement.parameter_words(self._lane).tolist(),
                placement.image(self._lane, "parameters"),
                load_place(placement, "parameters", self._lane),
            )
            if self._capacity:
                m.d.comb += rom.load.eq(self.load)
            m.d.comb += [
                rom.en.eq(self.parameter_valid),
                rom.addr.eq(wrap(self.parameter_slot, unsigned(len(rom.addr)))),
            ]
            word = data.View(record_layout(record), Value.cast(rom.data))
            found |= {field.name: word[field.name] for field in record}
        return found

    def _when_used(self, m: Module, parameters: dict[str, Value | int], name: str) -> Value | int:
        """A parameter in the clock in which the sweep uses it."""
        return _delay(m, parameters[name], self._used[name] - 1 - self.parameter_clock)

    def _threshold(self, m: Module, u: Signal, threshold: Value | int) -> tuple[Value, Value]:
        """The spike and the value after reset, one clock after ``u``; short: in the same."""
        u_next = Signal.like(u, reset_less=True)
        domain = m.d.comb if self.is_short else m.d.sync
        domain += u_next.eq(u)
        if not any(self._spiking):
            return Value.cast(0), u_next
        exact = u - threshold
        difference = Signal(exact.shape(), reset_less=True)
        domain += difference.eq(exact)
        spiking = self._spiking
        compares = [layer.compare if fires else None for layer, fires in zip(self._layers, spiking, strict=True)]
        spike = Signal()
        m.d.comb += spike.eq(self._of_layer(compares, lambda compare: _compare(difference, compare)))
        # Without a spike nothing is reset, so that a layer that only integrates may do as the others do.
        resets = [(layer.reset, layer.reset_value) for layer, fires in zip(self._layers, spiking, strict=True) if fires]
        resets += [resets[0]] * (len(spiking) - len(resets))

        def after(reset: tuple[str, int]) -> Value:
            kind, value = reset
            return {"subtract": difference, "zero": Value.cast(0), "none": u_next}.get(kind, Value.cast(value))

        return spike, Mux(spike, self._of_layer(resets, after), u_next)

    def _leaks(self) -> list[tuple[LeakKind, int | None, int | None]]:
        """Of each layer: the kind of its leak, shift and multiplier; None for what is in memory, or not used."""
        found = []
        for number, layer in enumerate(self._layers):
            numbers: list[int | None] = []
            for name in LEAKS:
                constants = self._placement.constants.get(name)
                numbers.append(constants[number] if isinstance(constants, list) else constants)
            found.append((layer.leak.kind, *numbers))
        return found

    def _leak(self, numbers: dict[str, Value], kind: LeakKind, shift: int | None, multiplier: int | None) -> Value:
        """leak(v), which never leaves the width of v; ``numbers`` : those that are in memory."""
        if kind == "none":
            return self.membrane
        by = numbers["leak_shift"] if shift is None else shift
        if kind == "shift":
            return self.membrane - _shifted(self.membrane, by)
        factor = numbers["leak_multiplier"] if multiplier is None else multiplier
        return _shifted(self.membrane * factor, by)

    @property
    def _spiking(self) -> list[bool]:
        """Of each layer: whether its spikes leave it."""
        return [layer.spiking for layer in self._plan.layers]

    def _clipping(self) -> list[tuple[int, bool]]:
        """Of each layer: bits of v, and whether it may have to be clipped into them.

        A layer that only integrates cannot leave its width, as the frozen network's validation has derived; it may go
        through the clipping of another layer that is as wide.
        """
        widths = [layer.membrane_width for layer in self._layers]
        clipped = sorted({width for width, fires in zip(widths, self._spiking, strict=True) if fires})
        found = []
        for width, fires in zip(widths, self._spiking, strict=True):
            wider = [other for other in clipped if other >= width]
            found.append((width, True) if fires else (wider[0], True) if wider else (width, False))
        return found

    def _clip(self, value: Value, width: int, may_clip: bool) -> tuple[Value, Value]:
        """``value`` in ``width`` bits, and whether it was clipped."""
        if not may_clip:
            return wrap(value, signed(width)), Value.cast(0)
        return saturate_within(value, width, self.clip) if self._clips else saturate(value, width)

    def _of_layer(self, keys: Sequence[Key], build: Callable[[Key], Value]) -> Value:
        """What ``build`` makes of the key of the layer at work; built once where several have the same."""
        first, *others = dict.fromkeys(keys)
        found = build(first)
        for key in others:
            chosen = Cat(self.layer == number for number, other in enumerate(keys) if other == key).any()
            found = Mux(chosen, build(key), found)
        return found

    def _constant(self, numbers: int | Sequence[int]) -> Value | int:
        """A constant of the layer at work."""
        if isinstance(numbers, int):
            return numbers
        if len(set(numbers)) == 1:
            return numbers[0]
        width = max(signed_width(number, number) for number in numbers)
        return self._of_layer(numbers, lambda number: Const(number, signed(width)))


def _compare(difference: Signal, compare: str | None) -> Value:
    """u - threshold >= 0 or > 0; never for a layer that only integrates."""
    if compare is None:
        return Value.cast(0)
    return difference >= 0 if compare == ">=" else difference > 0


def _shifted(value: Value, by: Value | int) -> Value:
    """``value`` (signed) shifted to the right."""
    return value.shift_right(by) if isinstance(by, int) else value >> by


def _delay(m: Module, value: Value | int, clocks: int) -> Value | int:
    """``value`` so many clocks later; constants need no registers."""
    if isinstance(value, int):
        return value
    for _ in range(clocks):
        following = Signal.like(value, reset_less=True)
        m.d.sync += following.eq(value)
        value = following
    return value
