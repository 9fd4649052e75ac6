# amaranth: UnusedElaboratable=no

"""What a collector sends of any one source: each sample's mask, once, and nothing of a sample that is not whole."""

from __future__ import annotations

from amaranth.hdl import Array, Mux, Signal, unsigned

from codesign.machine.plan import CollectorPlan
from rtl_templates.collector import EventCollector

from .harness import Harness

# Samples whose masks are expected at once: two in the banks and the one that comes in.
SAMPLES = 4


class CollectorHarness(Harness):
    """Of a source that is any, the masks that are expected, in the order of samples."""

    def __init__(self, plan: CollectorPlan):
        super().__init__()
        self.plan = plan
        self.dut = EventCollector(plan)

    def build(self) -> None:
        m, dut, plan = self.m, self.dut, self.plan
        m.submodules.dut = dut
        self.source(dut.i, "i")
        self.sink(dut.o, "o")
        chosen = self.constant(dut.i.payload.source.shape(), "chosen")
        mask = Signal(plan.timesteps)
        timestep = Signal(range(max(2, plan.timesteps)))
        expected = Array(Signal(plan.timesteps, name=f"expected{number}") for number in range(SAMPLES))
        came, went = Signal(unsigned(2)), Signal(unsigned(2))
        given = dut.i.payload
        with m.If(self.running & dut.i.valid & dut.i.ready):
            with m.If(~given.end):
                m.d.sync += mask.eq(mask | Mux(given.source == chosen, 1 << timestep, 0))
            with m.Elif(timestep == plan.timesteps - 1):
                m.d.sync += [timestep.eq(0), mask.eq(0), expected[came].eq(mask), came.eq(came + 1)]
            with m.Else():
                m.d.sync += timestep.eq(timestep + 1)
        sent = Signal()
        found, taken = dut.o.payload, dut.o.valid & dut.o.ready
        of_chosen = dut.o.valid & ~found.end & (found.source == chosen)
        with m.If(self.running & taken):
            m.d.sync += [sent.eq(~found.end & (sent | of_chosen)), went.eq(went + found.end)]
        self.require(self.offered(dut.o, "o"))
        # Nothing of a sample that is not whole; the mask once, and not without need.
        self.require(~dut.o.valid | (came != went))
        self.require(~of_chosen | (~sent & (found.value == expected[went]) & found.value.any()))
        self.require(~(dut.o.valid & found.end) | (sent == expected[went].any()))
        self.cover(of_chosen & (went == 1), Mux(sent, dut.o.valid & found.end, 0), self.stalled(dut.o, "o"))
