"""Readout values, decision and the output stream."""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.layouts import DECISION, SPIKE, VALUE, index_width
from codesign.machine.pictures import side_bits
from codesign.machine.plan import MachinePlan, SweepWord
from rtl_templates.arithmetic import record_layout, times, wrap
from rtl_templates.early_exit import LeadTracker
from rtl_templates.serializer import token_layout


class _Step(IntEnum):
    UPDATE = 0
    VALUE = 1
    DECISION = 2
    CLEAR = 3


class Readout(wiring.Component):
    """Collects the last layer's spikes or membranes, and decides.

    Operation: within a sample every token updates the value of its class (count + 1; or last, sum, maximum of the
    membrane, which equals u since the layer neither resets nor saturates); spikes are also sent on, if they are asked
    for. After the T-th end the values leave in class order, each being replaced by its initial value, then the
    decision, the lowest class of those with the greatest value. Tokens of the next sample wait until then. Latency 3
    clocks; one token a clock; n_outputs + 1 clocks between samples. With `membrane_last`, or if the last layer counts
    its spikes itself, nothing is kept: the values, which come in class order with the last timestep, leave as they
    come. Latency 1 clock.

    With early exit the values are judged after each end but the last, in about 6 clocks (:class:`LeadTracker`). If the
    sample may be decided, values and decision leave, and its tokens are ignored up to its T-th end. The decision
    says after which timestep it was made, T - 1 without exit.

    Parameters
    ----------
    plan : of the machine.

    Members
    -------
    i : In(stream of token_layout).
    o : Out(stream of {word, last}); ``word`` as codesign.machine.layouts.output_word, ``last`` on the decision.
    last_timestep : In, T - 1, of a loadable machine; constant while a sample is inside.
    exited : Out(1), only with early exit: the sample at hand was decided, its T-th end has not come.
    closed : Out(1), only with early exit, pulse: the sample's T-th end is taken.
    busy : Out(1), only with early exit: a word has yet to be taken.
    """

    def __init__(self, plan: MachinePlan):
        last = plan.engines[-1]
        self._network = plan.network
        self._word = last.sweep_word
        self._picture = last.layers[-1].picture
        self._passes = not plan.keeps_values
        self._timesteps = last.timesteps
        self._loadable = last.loadable
        self._record = plan.output_record
        self._early_exit = plan.choices.early_exit
        self._values_depth = plan.values_depth
        self._sends_spikes = plan.choices.output_spikes
        super().__init__(
            {
                "i": In(stream.Signature(token_layout(self._word))),
                "o": Out(stream.Signature(data.StructLayout({"word": record_layout(self._record), "last": 1}))),
                **({"last_timestep": In(unsigned(index_width(self._timesteps)))} if self._loadable else {}),
                **({} if self._early_exit == "off" else {"exited": Out(1), "closed": Out(1), "busy": Out(1)}),
            }
        )

    @property
    def _last_timestep(self) -> Value | int:
        return self.last_timestep if self._loadable else self._timesteps - 1

    def _token_index(self, sender: SweepWord) -> Value:
        """Class of a token: neurons, or the channels of a picture, are placed so that theirs is rank * P + lane."""
        source, bits, place = self.i.payload.source, sender.lane_bits, sender.place_bits
        unit: Value = source[place:]
        if sender.lanes != 1 << bits:
            unit = times(source[place + bits :], sender.lanes) + source[place : place + bits]
        if self._picture is None:
            return unit
        _, height, width = self._picture
        x_bits = side_bits(width)
        return times(times(unit, height) + source[x_bits:place], width) + source[:x_bits]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        if self._passes:
            self._pass(m)
        else:
            self._collect(m)
        return m

    def _pass(self, m: Module) -> None:
        """Values of the last timestep leave at once; the best of them is the decision."""
        network = self._network
        token, word = self.i.payload, self.o.payload.word
        index = Signal(unsigned(index_width(network.n_outputs)))
        timestep = Signal(unsigned(index_width(self._timesteps)))
        best = Signal(token.value.shape(), reset_less=True)
        best_index = Signal.like(index, reset_less=True)
        is_first = Signal(init=1)
        decides = Signal()
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | self.o.ready),
            decides.eq(token.end & (timestep == self._last_timestep)),
        ]
        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid & (~token.end | decides)),
                self.o.payload.last.eq(decides),
                word.kind.eq(Mux(decides, DECISION, VALUE)),
                word.index.eq(Mux(decides, best_index, index)),
                word.value.eq(Mux(decides, 0, wrap(token.value, word.value.shape()))),
            ]
        with m.If(self.i.valid & self.i.ready):
            with m.If(token.end):
                m.d.sync += [
                    index.eq(0),
                    is_first.eq(1),
                    timestep.eq(Mux(decides, 0, wrap(timestep + 1, timestep.shape()))),
                ]
            with m.Else():
                m.d.sync += [index.eq(wrap(index + 1, index.shape())), is_first.eq(0)]
                with m.If(is_first | (token.value > best)):
                    m.d.sync += [best.eq(token.value), best_index.eq(index)]

    def _collect(self, m: Module) -> None:
        """Values are kept in a memory until the sample's end."""
        network, sender = self._network, self._word
        n_out = network.n_outputs
        index_shape = unsigned(index_width(n_out))
        value_shape = signed(self._record.fields[-1].width)
        lowest = -(1 << (value_shape.width - 1))
        start_value = lowest if network.readout == "membrane_max" else 0
        m.submodules.values = values = memory.Memory(shape=value_shape, depth=self._values_depth, init=[])
        write, read = values.write_port(), values.read_port()

        token_index = wrap(self._token_index(sender), index_shape)

        # Stage 0 chooses a step and reads the class's value; stage 1 executes it.
        step = Signal(_Step)
        valid = Signal()
        index = Signal(index_shape)
        valid_1 = Signal()
        step_1 = Signal(_Step)
        index_1 = Signal(index_shape, reset_less=True)
        timestep = Signal(unsigned(index_width(self._timesteps)))
        timestep_1 = Signal(unsigned(index_width(self._timesteps)), reset_less=True)
        advance = Signal()
        counter = Signal(index_shape)
        at_last = Signal()
        m.d.comb += at_last.eq(counter == n_out - 1)
        is_update = self.i.valid & ~self.i.payload.end
        exits = self._early_exit != "off"
        exited = Signal()
        leaves = Signal()
        ended = Signal.like(timestep)
        settling = Signal(range(LeadTracker.LATENCY))
        judged = Signal()
        decides = Signal()
        with m.FSM(init="clear") as fsm:
            with m.State("clear"):
                m.d.comb += [valid.eq(1), step.eq(_Step.CLEAR), index.eq(counter)]
                with m.If(advance):
                    m.d.sync += counter.eq(Mux(at_last, 0, wrap(counter + 1, index_shape)))
                    with m.If(at_last):
                        m.next = "collect"
            with m.State("collect"):
                m.d.comb += [
                    self.i.ready.eq(advance),
                    valid.eq(is_update & ~exited if exits else is_update),
                    step.eq(_Step.UPDATE),
                    index.eq(token_index),
                ]
                with m.If(advance & self.i.valid & self.i.payload.end):
                    m.d.sync += timestep.eq(wrap(timestep + 1, timestep.shape()))
                    if exits:
                        m.d.sync += ended.eq(Mux(exited, ended, timestep))
                        with m.If(~exited):
                            m.next = "judge"
                    with m.If(timestep == self._last_timestep):
                        m.d.sync += timestep.eq(0)
                        if exits:
                            m.d.comb += self.closed.eq(1)
                            m.d.sync += exited.eq(0)
                            with m.If(~exited):
                                m.next = "values"
                        else:
                            m.next = "values"
            if exits:
                # The timestep's last update may still wait for the output.
                with m.State("judge"):
                    with m.If(valid_1):
                        m.d.sync += settling.eq(0)
                    with m.Elif(settling != LeadTracker.LATENCY - 1):
                        m.d.sync += settling.eq(wrap(settling + 1, settling.shape()))
                    with m.Else():
                        m.d.comb += judged.eq(1)
                        m.d.sync += [settling.eq(0), exited.eq(leaves)]
                        with m.If(leaves):
                            m.next = "values"
                        with m.Else():
                            m.next = "collect"
            with m.State("values"):
                m.d.comb += [valid.eq(1), step.eq(_Step.VALUE), index.eq(counter)]
                with m.If(advance):
                    m.d.sync += counter.eq(Mux(at_last, 0, wrap(counter + 1, index_shape)))
                    with m.If(at_last):
                        m.next = "decide"
            with m.State("decide"):
                m.d.comb += [valid.eq(1), step.eq(_Step.DECISION)]
                with m.If(advance):
                    if exits:
                        m.d.comb += decides.eq(1)
                    m.next = "collect"

        answering = fsm.ongoing("values") | fsm.ongoing("decide") if exits else 0
        forward = Signal()
        forwarded = Signal(value_shape, reset_less=True)
        old = Signal(value_shape)
        new = Signal(value_shape)
        done = Signal()
        executes = Signal()
        m.d.comb += [
            advance.eq(~valid_1 | done),
            read.en.eq(advance),
            read.addr.eq(wrap(index, unsigned(len(read.addr)))),
            executes.eq(valid_1 & done),
            old.eq(Mux(forward, forwarded, read.data)),
            write.en.eq(executes & (step_1 != _Step.DECISION)),
            write.addr.eq(wrap(index_1, unsigned(len(write.addr)))),
            write.data.eq(Mux(step_1 == _Step.UPDATE, new, start_value)),
        ]
        with m.If(advance):
            m.d.sync += [
                valid_1.eq(valid),
                step_1.eq(step),
                index_1.eq(index),
                timestep_1.eq(timestep),
                forward.eq(write.en & (index_1 == index)),
                forwarded.eq(write.data),
            ]
        if network.membrane_readout:
            membrane = Signal(self.i.payload.value.shape(), reset_less=True)
            with m.If(advance):
                m.d.sync += membrane.eq(self.i.payload.value)
            if network.readout == "membrane_sum":
                m.d.comb += new.eq(wrap(old + membrane, value_shape))
            else:
                m.d.comb += new.eq(Mux(membrane > old, wrap(membrane, value_shape), old))
            sends_updates = False
        else:
            m.d.comb += new.eq(wrap(old + 1, value_shape))
            sends_updates = self._sends_spikes

        best = Signal(value_shape, reset_less=True)
        best_index = Signal(index_shape, reset_less=True)
        with m.If(executes & (step_1 == _Step.VALUE) & ((index_1 == 0) | (old > best))):
            m.d.sync += [best.eq(old), best_index.eq(index_1)]

        sends = Signal()
        free = Signal()
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            sends.eq((step_1 == _Step.VALUE) | (step_1 == _Step.DECISION)),
            done.eq(~sends | free),
        ]
        if sends_updates:
            # The checker of the sidecar looks for this name.
            sends_spikes = Signal()
            m.d.comb += [sends_spikes.eq(step_1 != _Step.CLEAR), sends.eq(sends_spikes)]
        word = self.o.payload.word
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(valid_1 & sends),
                Value.cast(word).eq(0),
                self.o.payload.last.eq(0),
            ]
            with m.Switch(step_1):
                with m.Case(_Step.UPDATE):
                    m.d.sync += [word.kind.eq(SPIKE), word.timestep.eq(timestep_1), word.index.eq(index_1)]
                with m.Case(_Step.VALUE):
                    m.d.sync += [word.kind.eq(VALUE), word.index.eq(index_1), word.value.eq(old)]
                with m.Case(_Step.DECISION):
                    m.d.sync += [word.kind.eq(DECISION), word.index.eq(best_index), self.o.payload.last.eq(1)]
                    if exits:
                        m.d.sync += word.timestep.eq(ended)
        if exits:
            m.submodules.tracker = tracker = LeadTracker(value_shape, n_out, self._timesteps, self._early_exit)
            # Counts go on from timestep to timestep; membranes are all given anew.
            restarts = (judged | decides) if network.membrane_readout else decides
            m.d.comb += [
                tracker.valid.eq(executes & (step_1 == _Step.UPDATE)),
                tracker.index.eq(index_1),
                tracker.value.eq(new),
                tracker.clear.eq(restarts),
                tracker.left.eq(wrap(self._last_timestep - ended, tracker.left.shape())),
                leaves.eq(tracker.leaves),
                self.exited.eq(exited),
                self.busy.eq((valid_1 & sends) | self.o.valid | answering),
            ]
