"""Adding synapses to the words of a memory, one a clock, whatever slots they go to."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import memory

from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import wrap


def unless(m: Module, left: Value, added: Value) -> Value:
    """``added``, or 0 to a neuron that rests; ``left`` : timesteps of rest that are left."""
    # The mutants find it by this name.
    closed = Signal()
    m.d.comb += closed.eq(left.any())
    return Mux(closed, 0, added)


class Accumulation:
    """A lane's memory of sums, or of states that sums are part of, and what adds to it; built into a module.

    Operation: the slot's word is read, ``weight`` (times ``value``) is added, shifted where the word is a state, and
    the word is written back: 3 clocks, 2 with a short pipeline. Sums still on their way are forwarded, so that a
    synapse may come in every clock. Where a sample is walked at once the word has a sum for each timestep, the first in
    the lowest bits, and ``value`` is the mask of those to which ``weight`` is added.

    Parameters
    ----------
    m : module that it becomes part of. plan : of the engine. attributes : what the memory asks the tools for.
    synapse_valid, synapse, value : what to add. read_valid, read_slot : a sweep's read, in a clock without synapse.
    busy : signal, driven in a deep pipeline: a sum has not reached the last stage.

    Members
    -------
    operand : the word read by the sweep 2 clocks ago; with a short pipeline 1.
    """

    def __init__(
        self,
        m: Module,
        plan: EnginePlan,
        attributes: dict[str, str],
        synapse_valid: Value,
        synapse: Value,
        value: Value,
        read_valid: Value,
        read_slot: Value,
        busy: Signal,
    ):
        self._m = m
        widths = plan.widths
        slot_shape = read_slot.shape()
        # Counts lie below the state that they are stored with, so that sums pass them by.
        beside_sum = 0 if widths.swept else widths.beside
        accumulator_shape = signed(widths.accumulator)
        m.submodules.accumulator = accumulator = memory.Memory(
            shape=accumulator_shape, depth=plan.state_depth, init=[], attrs=attributes
        )
        write, read = accumulator.write_port(), accumulator.read_port()
        self.write, self._address_shape = write, unsigned(len(read.addr))

        operand = Signal(accumulator_shape, reset_less=True)
        total = Signal(accumulator_shape)
        last_written = Signal(accumulator_shape, reset_less=True)
        multiplies = widths.value > 0 and not plan.collects
        term: Value = synapse.weight * value if multiplies else synapse.weight
        # Whoever writes the word that is read in the same clock, and whoever reads it.
        forward_far_1 = Signal()
        # What a synapse valid_2 to, by how much, and where to.
        valid_2 = Signal()
        product_2 = Signal(term.shape(), reset_less=True)
        mask_2 = Signal(widths.value, reset_less=True)
        slot_2 = Signal(slot_shape, reset_less=True)
        self.operand, self._total, self._valid_2, self._slot_2 = operand, total, valid_2, slot_2
        base: Value
        m.d.comb += [
            read.en.eq(synapse_valid | read_valid),
            read.addr.eq(wrap(Mux(read_valid, read_slot, synapse.slot), self._address_shape)),
        ]
        m.d.sync += [forward_far_1.eq(read.en & write.en & (read.addr == write.addr)), last_written.eq(write.data)]
        if plan.placement.pipeline == "short":
            # A synapse's word is read in clock 0, added to and written in 1.
            m.d.sync += [valid_2.eq(synapse_valid), slot_2.eq(synapse.slot), product_2.eq(term)]
            if plan.collects:
                m.d.sync += mask_2.eq(value)
            base = operand
            m.d.comb += operand.eq(Mux(forward_far_1, last_written, read.data))
        else:
            # A synapse's word is read in clock 0, chosen in 1, added to and written in 2. What the synapse before it
            # has added is not yet in the memory then, nor met when it was read.
            slot_1 = Signal.like(slot_2, reset_less=True)
            product_1 = Signal.like(product_2, reset_less=True)
            valid_1 = Signal()
            forward_near_1 = Signal()
            forward_near_2 = Signal()
            m.d.comb += busy.eq(valid_1)
            if plan.collects:
                mask_1 = Signal.like(mask_2, reset_less=True)
                m.d.sync += [mask_1.eq(value), mask_2.eq(mask_1)]
            m.d.sync += [
                valid_1.eq(synapse_valid),
                slot_1.eq(synapse.slot),
                product_1.eq(term),
                forward_near_1.eq(synapse_valid & valid_1 & (synapse.slot == slot_1)),
                valid_2.eq(valid_1),
                slot_2.eq(slot_1),
                product_2.eq(product_1),
                forward_near_2.eq(forward_near_1),
            ]
            base = Mux(forward_near_2, last_written, operand)
            m.d.sync += operand.eq(Mux(forward_far_1, last_written, read.data))
        shift = 0 if widths.has_sum else plan.frozen[0].fraction_bits + beside_sum
        if beside_sum and widths.rest:
            product_2 = unless(m, base[widths.count : widths.beside], product_2)
        if plan.collects:
            # A sum for each timestep.
            parts = [base.word_select(step, widths.sum).as_signed() for step in range(widths.sums)]
            sums = [wrap(part + Mux(mask_2[step], product_2, 0), signed(widths.sum)) for step, part in enumerate(parts)]
            m.d.comb += total.eq(Cat(sums).as_signed())
        elif shift == 0:
            m.d.comb += total.eq(wrap(base + product_2, accumulator_shape))
        else:
            # The shifted weight leaves the lowest bits alone.
            upper = wrap(base[shift:].as_signed() + product_2, signed(len(base) - shift))
            m.d.comb += total.eq(Cat(base[:shift], upper).as_signed())

    def close(self, valid: Value, slot: Value, word: Value | int) -> None:
        """What a sweep writes; no synapse is on its way then."""
        self._m.d.comb += [
            self.write.en.eq(self._valid_2 | valid),
            self.write.addr.eq(wrap(Mux(self._valid_2, self._slot_2, slot), self._address_shape)),
            self.write.data.eq(Mux(self._valid_2, self._total, word)),
        ]
