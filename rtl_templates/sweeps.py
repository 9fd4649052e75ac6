"""When an engine walks rows and when it sweeps slots."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, unsigned

from codesign.machine.layouts import index_width
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import wrap
from rtl_templates.lanes import Lanes
from rtl_templates.neurons import NeuronBank
from rtl_templates.turns import Turns

IDLE, ACCUMULATE, SWEEP, CLEAR = range(4)


class SweepControl:
    """The barrier at the end of an accumulation, the sweeps behind it, and the stages that their slots pass.

    One layer sweeps when every lane has reached the end of the timestep and there is room for a whole sweep; rows of
    the next timestep may start as soon as no state is in their way. Several layers have turns: a layer accumulates,
    sweeps, and is done before the next one begins; the first after the last is the next timestep's. Where a sample is
    walked at once one accumulation is followed by T sweeps. Memories are not cleared by ``rst``: the first sweep of
    each layer writes its initial state, and shows nothing.

    Parameters
    ----------
    m : module that it becomes part of. plan : of the engine. lanes : what it waits for.
    phase : signal, driven: what the engine is at. last : T - 1, of a loadable machine a signal.
    turns : of several layers, else None.

    Members
    -------
    slot, valid, initial, silent, is_end : lists; entry k is of the slot read k clocks ago. initial : the sample ends
        with its timestep. silent : nothing is to be seen of it. is_end : of the sweep's last slot.
    timestep : that is swept. go, resume : as of :class:`SynapseFetcher`.
    room : signal, of the caller's: there is room for a sweep.
    """

    def __init__(
        self, m: Module, plan: EnginePlan, lanes: Lanes, phase: Signal, last: Value | int, turns: Turns | None
    ):
        self._plan, self._turns, self._phase = plan, turns, phase
        self._stages = stages = plan.clocks.write
        slot_shape = unsigned(index_width(plan.placement.n_slots))
        self.slot, self.valid, self.initial, self.silent, self.is_end = _stages(m, stages + 1, slot_shape)
        self.timestep = Signal(unsigned(index_width(plan.timesteps)))
        self._last_timestep = Signal(name="last_timestep")
        self.room = Signal()
        self._at_barrier = Signal(name="at_barrier")
        waiting = lanes.waiting(m)
        self._drained = Signal(name="drained")
        self.go = Signal()
        self.resume = Signal()
        self._working = Signal(name="working")
        n_slots = plan.layers[0].n_slots
        if turns is None:
            # The next sweep may follow at once if slot 0 has been written by then.
            drained = ~Cat(self.valid[1:stages]).any() | (n_slots > stages)
            last_slot: Value | int = n_slots - 1
        else:
            drained = ~Cat(self.valid[1:]).any()
            last_slot = turns.last_slot
        m.d.comb += [
            self._last_timestep.eq(self.timestep == last),
            self._at_barrier.eq(waiting),
            self._drained.eq(drained),
            self.is_end[0].eq(self.slot[0] == last_slot),
            self._working.eq(lanes.busy),
        ]
        if turns is None:
            self._of_one(m)
        else:
            self._in_turns(m, turns)

    @property
    def _next_timestep(self) -> Value:
        return Mux(self._last_timestep, 0, wrap(self.timestep + 1, self.timestep.shape()))

    def _count(self, m: Module) -> None:
        """To the next slot."""
        m.d.sync += self.slot[0].eq(wrap(self.slot[0] + 1, self.slot[0].shape()))

    def _of_one(self, m: Module) -> None:
        plan, stages, settling = self._plan, self._stages, self._plan.clocks.settling
        valid, initial, is_end = self.valid, self.initial, self.is_end
        n_slots = plan.layers[0].n_slots
        next_timestep = self._next_timestep
        with m.FSM(init="clear"):
            with m.State("clear"):
                m.d.comb += [valid[0].eq(1), initial[0].eq(1), self.silent[0].eq(1), self._phase.eq(CLEAR)]
                self._count(m)
                with m.If(is_end[0]):
                    m.d.sync += self.slot[0].eq(0)
                    m.next = "accumulate"
            with m.State("accumulate"):
                m.d.comb += [
                    self.go.eq(~Cat(valid[1:settling]).any()),
                    self._phase.eq(Mux(self._working, ACCUMULATE, IDLE)),
                ]
                with m.If(self._at_barrier & self._drained & self.room):
                    m.d.comb += self.resume.eq(1)
                    m.next = "sweep"
            with m.State("sweep"):
                m.d.comb += [
                    valid[0].eq(1),
                    initial[0].eq(self._last_timestep),
                    self._phase.eq(SWEEP),
                ]
                self._count(m)
                with m.If(is_end[0]):
                    if settling == 0:
                        m.d.comb += self.go.eq(self._last_timestep if plan.keeps_sums else 1)
                    m.d.sync += [self.slot[0].eq(0), self.timestep.eq(next_timestep)]
                    if plan.keeps_sums:
                        with m.If(self._last_timestep):
                            m.next = "accumulate"
                        with m.Elif(~self.room | (n_slots <= stages)):
                            m.next = "wait"
                    else:
                        m.next = "accumulate"
            if plan.keeps_sums:
                with m.State("wait"), m.If(self._drained & self.room):
                    m.next = "sweep"

    def _in_turns(self, m: Module, turns: Turns) -> None:
        layers = self._plan.layers
        clearing = Signal(init=1)
        following = wrap(turns.layer + 1, turns.layer.shape())
        m.d.comb += turns.resume.eq(self.resume)
        with m.FSM(init="sweep"):
            with m.State("accumulate"):
                m.d.comb += [
                    *(reads.eq(turns.is_at(0) & ~fed) for reads, fed in zip(turns.reads_input, turns.fed)),
                    self.go.eq(1),
                    self._phase.eq(Mux(self._working, ACCUMULATE, IDLE)),
                ]
                with m.If(self._at_barrier & self.room):
                    m.d.comb += self.resume.eq(1)
                    with m.Switch(turns.layer):
                        for number in range(len(layers) - 1):
                            with m.Case(number):
                                turns.take(m, number + 1)
                        if not self._plan.is_chain:
                            with m.Default():
                                self._take_first(m, turns)
                    m.next = "sweep"
            with m.State("sweep"):
                m.d.comb += [
                    self.valid[0].eq(1),
                    self.initial[0].eq(self._last_timestep | clearing),
                    self.silent[0].eq(clearing),
                    self._phase.eq(Mux(clearing, CLEAR, SWEEP)),
                ]
                self._count(m)
                with m.If(self.is_end[0]):
                    m.d.sync += self.slot[0].eq(0)
                    m.next = "drain"
            with m.State("drain"), m.If(self._drained):
                with m.If(~turns.is_last):
                    m.d.sync += turns.layer.eq(following)
                    with m.If(clearing):
                        m.next = "sweep"
                    with m.Else():
                        m.next = "accumulate"
                with m.Else():
                    m.d.sync += [turns.layer.eq(0), clearing.eq(0)]
                    with m.If(~clearing):
                        m.d.sync += self.timestep.eq(self._next_timestep)
                    m.next = "accumulate"
                    if layers[0].schedule == "sample":
                        with m.If(~clearing & ~self._last_timestep):
                            if self._plan.is_chain:
                                turns.take(m, 1)
                            m.next = "sweep"

    def _take_first(self, m: Module, turns: Turns) -> None:
        """Behind the last layer the first one's events are next, but for those of a sample that is summed up once."""
        if self._plan.layers[0].schedule != "sample":
            turns.take(m, 0)
            return
        with m.If(self._last_timestep):
            turns.take(m, 0)
        with m.Else():
            turns.take(m, 1)

    def connect(self, m: Module, bank: NeuronBank) -> None:
        """The sweep of a bank's slots."""
        plan, turns, stages = self._plan, self._turns, self._stages

        def at(slot: Value) -> Value:
            return slot if turns is None else turns.at(slot)

        clears: Value = self.valid[2]
        if turns is not None:
            if plan.layers[0].schedule == "sample":
                # The first layer's sum serves all timesteps of a sample.
                clears = clears & ~(turns.is_at(0) & ~self.initial[2])
        elif plan.keeps_sums or not plan.widths.has_sum:
            clears = clears & self.initial[2]
        m.d.comb += [
            bank.read_valid.eq(self.valid[0]),
            bank.read_slot.eq(at(self.slot[0])),
            bank.clear_valid.eq(clears),
            bank.clear_slot.eq(at(self.slot[2])),
            bank.write_valid.eq(self.valid[stages]),
            bank.write_slot.eq(at(self.slot[stages])),
            bank.write_initial.eq(self.initial[stages]),
        ]


def _stages(m: Module, count: int, slot_shape: Shape) -> tuple[list[Signal], ...]:
    """Pipeline of a sweep: lists of slot, valid, initial, silent and is_end, whose first entries are to be driven."""
    shapes = {
        "slot": slot_shape,
        "valid": unsigned(1),
        "initial": unsigned(1),
        "silent": unsigned(1),
        "is_end": unsigned(1),
    }
    stages = tuple(
        [Signal(shape, name=f"{name}_{k}", reset_less=k > 0 and name != "valid") for k in range(count)]
        for name, shape in shapes.items()
    )
    for stage in stages:
        m.d.sync += [late.eq(early) for early, late in pairwise(stage)]
    return stages
