"""The neurons of one lane: membrane memory, accumulation, and the LIF datapath of the fire sweep."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from codesign.layouts import index_width
from codesign.mapping import LayerMap, fire_latency
from codesign.network import FrozenLayer, signed_width
from rtl_templates.arithmetic import record_layout, saturate, wrap
from rtl_templates.memories import Rom


class NeuronWidths:
    """Widths of a layer's datapath, derived from its weights so that no sum can overflow.

    Without a current: the memory holds ``leak(v) + bias + (partial sum << F)``, whose bounds are those of u.
    With one: ``sum`` holds the unshifted sum of products, ``state`` holds ``leak(v) + bias``.
    """

    def __init__(self, layer: FrozenLayer, source_max: int, *, is_current: bool):
        low, high = layer.sum_range(source_max)
        self.is_current = is_current
        self.sum = signed_width(int(low.min()), int(high.max()))
        rest_low = int(layer.leak(layer.membrane_min)) + int(layer.bias.min())
        rest_high = int(layer.leak(layer.membrane_max)) + int(layer.bias.max())
        self.potential = max(signed_width(*layer.potential_range(source_max)), layer.fraction_bits + 2)
        self.state = signed_width(rest_low, rest_high) if is_current else self.potential
        self.value_bits = source_max.bit_length() if is_current else 0

    @property
    def memory_bits(self) -> int:
        """Bits that a slot takes in the state memories."""
        return self.state + (self.sum if self.is_current else 0)


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
    the caller's ``write_*`` in clock ``fire + 1``. The slot's sum is cleared by ``clear_*`` in clock 2.

    Parameters
    ----------
    layer, placement : the frozen layer and its placement.
    lane : number of the lane.
    widths : NeuronWidths of the layer.

    Members
    -------
    synapse_valid : In(1); synapse : In({slot, weight}); value : In(unsigned).
    busy : Out(1), a sum has not reached the last stage, which writes it at the end of its clock.
    read_valid, read_slot : In, start of a slot's sweep; no synapse may come in that clock or be ``busy``.
    clear_valid, clear_slot : In, clear the slot's sum (coding current).
    write_valid, write_slot, write_initial : In.
    spike : Out(1); membrane : Out(signed(W)); saturated : Out(1).

    Raises
    ------
    ValueError if ``lane`` is not one of the layer's.
    """

    def __init__(self, layer: FrozenLayer, placement: LayerMap, lane: int, widths: NeuronWidths):
        if not 0 <= lane < placement.lanes:
            raise ValueError(f"lane {lane!r} is outside 0..{placement.lanes - 1}")
        self._layer = layer
        self._placement = placement
        self._lane = lane
        self._widths = widths
        self.fire = fire_latency(widths.is_current)
        slot = unsigned(index_width(placement.n_slots))
        super().__init__(
            {
                "synapse_valid": In(1),
                "synapse": In(record_layout(placement.synapse_record)),
                "value": In(unsigned(max(1, widths.value_bits))),
                "busy": Out(1),
                "read_valid": In(1),
                "read_slot": In(slot),
                "clear_valid": In(1),
                "clear_slot": In(slot),
                "write_valid": In(1),
                "write_slot": In(slot),
                "write_initial": In(1),
                "spike": Out(1),
                "membrane": Out(signed(layer.membrane_width)),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        layer, widths, depth = self._layer, self._widths, max(2, self._placement.n_slots)
        shift = layer.fraction_bits
        slot_shape = self.read_slot.shape()
        accumulator_shape = signed(widths.sum if widths.is_current else widths.state)
        m.submodules.accumulator = accumulator = memory.Memory(shape=accumulator_shape, depth=depth, init=[])
        write, read = accumulator.write_port(), accumulator.read_port()
        address_shape = unsigned(len(read.addr))

        # Accumulation. A synapse's word is read in clock 0, chosen in 1, added and written in 2; what the two
        # synapses before it have added is not yet in the memory then.
        slot_1 = Signal(slot_shape, reset_less=True)
        slot_2 = Signal(slot_shape, reset_less=True)
        valid_1 = Signal()
        valid_2 = Signal()
        forward_near_1 = Signal()
        forward_near_2 = Signal()
        forward_far_1 = Signal()
        operand = Signal(accumulator_shape, reset_less=True)
        total = Signal(accumulator_shape)
        last_total = Signal(accumulator_shape, reset_less=True)
        if widths.value_bits:
            term: Value = self.synapse.weight * self.value
        else:
            term = self.synapse.weight
        product_1 = Signal(term.shape(), reset_less=True)
        product_2 = Signal(term.shape(), reset_less=True)
        m.d.comb += [
            read.en.eq(self.synapse_valid | self.read_valid),
            read.addr.eq(wrap(Mux(self.read_valid, self.read_slot, self.synapse.slot), address_shape)),
            self.busy.eq(valid_1),
        ]
        m.d.sync += [
            valid_1.eq(self.synapse_valid),
            slot_1.eq(self.synapse.slot),
            product_1.eq(term),
            forward_near_1.eq(self.synapse_valid & valid_1 & (self.synapse.slot == slot_1)),
            forward_far_1.eq(self.synapse_valid & valid_2 & (self.synapse.slot == slot_2)),
            valid_2.eq(valid_1),
            slot_2.eq(slot_1),
            product_2.eq(product_1),
            forward_near_2.eq(forward_near_1),
            operand.eq(Mux(forward_far_1, last_total, read.data)),
            last_total.eq(total),
        ]
        base = Mux(forward_near_2, last_total, operand)
        if widths.is_current or shift == 0:
            m.d.comb += total.eq(wrap(base + product_2, accumulator_shape))
        else:
            # The shifted weight leaves the lowest F bits alone.
            upper = wrap(base[shift:].as_signed() + product_2, signed(len(base) - shift))
            m.d.comb += total.eq(Cat(base[:shift], upper).as_signed())

        # Parameters arrive one clock after the slot was read.
        threshold, bias = self._parameters(m)

        # Potential, in stage fire - 2.
        u = Signal(signed(widths.potential), reset_less=True)
        if widths.is_current:
            m.submodules.state = state = memory.Memory(shape=signed(widths.state), depth=depth, init=[])
            state_write, state_read = state.write_port(), state.read_port()
            state_2 = Signal(signed(widths.state), reset_less=True)
            m.d.comb += [state_read.en.eq(self.read_valid), state_read.addr.eq(wrap(self.read_slot, address_shape))]
            m.d.sync += [
                state_2.eq(state_read.data),
                u.eq(wrap(state_2 + (operand.shift_left(shift)), signed(widths.potential))),
            ]
        else:
            state_write = write
            m.d.comb += u.eq(operand)
        stage = self.fire - 2
        spike, after = self._threshold(m, u, _delay(m, threshold, 1, stage))
        if self._placement.spiking:
            membrane, clipped = saturate(after, layer.membrane_width)
        else:
            # The frozen network's validation has derived that u fits.
            membrane, clipped = wrap(after, signed(layer.membrane_width)), Value.cast(0)
        m.d.sync += [self.spike.eq(spike), self.membrane.eq(membrane), self.saturated.eq(clipped)]

        leaked = Signal(signed(layer.membrane_width), reset_less=True)
        if layer.leak.kind == "none":
            m.d.sync += leaked.eq(self.membrane)
        elif layer.leak.kind == "shift":
            m.d.sync += leaked.eq(wrap(self.membrane - (self.membrane.shift_right(layer.leak.shift)), leaked.shape()))
        else:
            product = self.membrane * layer.leak.multiplier
            m.d.sync += leaked.eq(wrap(product.shift_right(layer.leak.shift), leaked.shape()))
        bias_late = _delay(m, bias, 1, self.fire + 1)
        state_shape = signed(widths.state)
        following = wrap(Mux(self.write_initial, bias_late, leaked + bias_late), state_shape)

        if widths.is_current:
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

    def _parameters(self, m: Module) -> tuple[Value | int, Value | int]:
        """Threshold and bias of the slot read one clock ago, or their constants."""
        placement, record = self._placement, self._placement.parameter_record
        threshold: Value | int = 0 if placement.threshold is None else placement.threshold
        bias: Value | int = 0 if placement.bias is None else placement.bias
        if record.fields:
            m.submodules.parameters = rom = Rom(
                record_layout(record),
                placement.parameter_words(self._lane).tolist(),
                f"images/l{placement.index}_p{self._lane}_parameters.mem",
            )
            m.d.comb += [rom.en.eq(self.read_valid), rom.addr.eq(wrap(self.read_slot, unsigned(len(rom.addr))))]
            word = data.View(record_layout(record), Value.cast(rom.data))
            if record.has("threshold"):
                threshold = word.threshold
            if record.has("bias"):
                bias = word.bias
        return threshold, bias

    def _threshold(self, m: Module, u: Signal, threshold: Value | int) -> tuple[Value, Value]:
        """The spike and the value after reset, one clock after ``u``."""
        layer = self._layer
        u_next = Signal.like(u, reset_less=True)
        m.d.sync += u_next.eq(u)
        if not self._placement.spiking:
            return Value.cast(0), u_next
        exact = u - threshold
        difference = Signal(exact.shape(), reset_less=True)
        m.d.sync += difference.eq(exact)
        spike = (difference >= 0) if layer.compare == ">=" else (difference > 0)
        if layer.reset == "subtract":
            return spike, Mux(spike, difference, u_next)
        if layer.reset == "zero":
            return spike, Mux(spike, 0, u_next)
        if layer.reset == "value":
            return spike, Mux(spike, layer.reset_value, u_next)
        return spike, u_next


def _delay(m: Module, value: Value | int, now: int, then: int) -> Value | int:
    """``value`` of clock ``now`` in clock ``then``; constants need no registers."""
    if isinstance(value, int):
        return value
    for _ in range(then - now):
        following = Signal.like(value, reset_less=True)
        m.d.sync += following.eq(value)
        value = following
    return value
