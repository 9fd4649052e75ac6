"""Deciding a sample before its last timestep, and counters of what that saves."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Shape, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from codesign.contract.early_exit import EarlyExit
from codesign.machine.layouts import index_width
from codesign.machine.plan import LEAD_CLOCKS, STARTS_DEPTH
from rtl_templates.arithmetic import wrap
from rtl_templates.memories import StreamFifo


class LeadTracker(wiring.Component):
    """Says whether a sample may be decided: the rule of :mod:`codesign.contract.early_exit`.

    Operation: keeps the first and the second class, in the decision's order (greater value, then lower class), of the
    values given since ``clear``, which takes every value as 0. A class's value may be given again if it has not
    fallen; or every class's once, in ascending order. So both counts, given as they rise, and membranes, given in every
    timestep, need two comparisons a value and no pass over all classes. One value a clock; ``leaves`` holds
    LATENCY clocks after the last value.

    Parameters
    ----------
    value_shape : shape of a value, signed.
    n_outputs : classes, 2 or more.
    timesteps : timesteps of a sample.
    early_exit : "certain" or a margin.

    Members
    -------
    valid, index, value : In; class ``index`` now has ``value``.
    clear : In(1).
    left : In(range(timesteps)); timesteps that are left. Must be stable for 2 clocks.
    leaves : Out(1).

    Raises
    ------
    ValueError for fewer than two classes, or ``early_exit`` "off".
    """

    LATENCY = LEAD_CLOCKS

    def __init__(self, value_shape: Shape, n_outputs: int, timesteps: int, early_exit: EarlyExit):
        if n_outputs < 2:
            raise ValueError(f"n_outputs {n_outputs!r} must be 2 or more")
        if early_exit == "off":
            raise ValueError("early_exit 'off' has no lead to track")
        self._early_exit = early_exit
        super().__init__(
            {
                "valid": In(1),
                "index": In(unsigned(index_width(n_outputs))),
                "value": In(value_shape),
                "clear": In(1),
                "left": In(unsigned(index_width(timesteps))),
                "leaves": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        valid = Signal()
        index = Signal.like(self.index, reset_less=True)
        value = Signal.like(self.value, reset_less=True)
        m.d.sync += [valid.eq(self.valid), index.eq(self.index), value.eq(self.value)]

        # Not `like` the stage before, which a reset leaves as it is.
        first, second = Signal(value.shape()), Signal(value.shape())
        first_index, second_index = Signal(index.shape()), Signal(index.shape(), init=1)
        beats_first, beats_second = Signal(), Signal()
        m.d.comb += [
            beats_first.eq((value > first) | ((value == first) & (index < first_index))),
            beats_second.eq((value > second) | ((value == second) & (index < second_index))),
        ]
        with m.If(self.clear):
            m.d.sync += [first.eq(0), first_index.eq(0), second.eq(0), second_index.eq(1)]
        with m.Elif(valid):
            with m.If(index == first_index):
                m.d.sync += first.eq(value)
            with m.Elif(beats_first):
                m.d.sync += [first.eq(value), first_index.eq(index), second.eq(first), second_index.eq(first_index)]
            with m.Elif((index == second_index) | beats_second):
                m.d.sync += [second.eq(value), second_index.eq(index)]

        # As wide as the margin, too: a comparison that no value reaches would be left out, and the Verilog not say it.
        margin = 0 if self._early_exit == "certain" else self._early_exit
        lead = Signal(unsigned(max(len(value), margin.bit_length())))
        wins_tie = Signal()
        m.d.sync += [lead.eq(wrap(first - second, unsigned(len(value)))), wins_tie.eq(first_index < second_index)]
        if self._early_exit == "certain":
            m.d.sync += self.leaves.eq((lead > self.left) | ((lead == self.left) & wins_tie))
        else:
            m.d.sync += self.leaves.eq(lead >= self._early_exit)
        return m


class ExitCounters(wiring.Component):
    """Latency of samples, and the timesteps that they took.

    Operation: a FIFO holds the clock in which the first beat of each sample inside was taken. While it
    is full, with STARTS_DEPTH samples and one at its output, ``opens`` withholds the first beat of another.

    Parameters
    ----------
    timesteps : timesteps of a sample, at most.

    Members
    -------
    last_timestep : In, T - 1; constant while a sample is inside.
    cycle : In(32), any count of clocks.
    taken, last : In(1); a beat is taken, it is a sample's last.
    opens : Out(1), the next beat may be taken.
    decided : In(1), a decision is taken; timestep : In, that it was made in.
    latency_cycles : Out(32), clocks from the first beat of the sample last decided to its decision.
    exit_count : Out(32), decisions before the last timestep; timestep_count : Out(32), timesteps that counted, of all
        decisions. Both since reset, wrapping.
    """

    def __init__(self, timesteps: int):
        super().__init__(
            {
                "last_timestep": In(unsigned(index_width(timesteps))),
                "cycle": In(32),
                "taken": In(1),
                "last": In(1),
                "opens": Out(1),
                "decided": In(1),
                "timestep": In(unsigned(index_width(timesteps))),
                "latency_cycles": Out(32),
                "exit_count": Out(32),
                "timestep_count": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.starts = starts = StreamFifo(unsigned(32), STARTS_DEPTH)
        begins = Signal(init=1)
        word = unsigned(32)
        m.d.comb += [
            self.opens.eq(~begins | starts.i.ready),
            starts.i.valid.eq(self.taken & begins),
            starts.i.payload.eq(self.cycle),
            starts.o.ready.eq(self.decided),
        ]
        with m.If(self.taken):
            m.d.sync += begins.eq(self.last)
        with m.If(self.decided):
            m.d.sync += [
                self.latency_cycles.eq(wrap(self.cycle - starts.o.payload, word)),
                self.exit_count.eq(wrap(self.exit_count + (self.timestep != self.last_timestep), word)),
                self.timestep_count.eq(wrap(self.timestep_count + self.timestep + 1, word)),
            ]
        return m
