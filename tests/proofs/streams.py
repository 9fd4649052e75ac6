# amaranth: UnusedElaboratable=no

"""The rules of streams: a word that is offered is kept until it is taken; nothing waits for ever."""

from __future__ import annotations

from amaranth.hdl import Mux, Signal, Value, ValueLike

from .harness import Harness


class RuleHarness(Harness):
    """A component whose output stream keeps the rule, whatever comes in."""

    def __init__(self, dut):
        super().__init__()
        self.dut = dut

    def build(self) -> None:
        self.m.submodules.dut = self.dut
        self.source(self.dut.i, "i")
        self.sink(self.dut.o, "o")
        self.require(self.offered(self.dut.o, "o"))
        self.cover(self.stalled(self.dut.o, "o"))


class PortRuleHarness(Harness):
    """The same of the top's `m_axis`."""

    def __init__(self, dut):
        super().__init__()
        self.dut = dut

    def build(self) -> None:
        m, dut = self.m, self.dut
        m.submodules.dut = dut
        for name in ("s_axis_tdata", "s_axis_tvalid", "s_axis_tlast", "m_axis_tready"):
            port = getattr(dut, name)
            m.d.comb += port.eq(self.free(port.shape(), name))
        waits = self.register(self.running & dut.m_axis_tvalid & ~dut.m_axis_tready, "waits")
        data = self.register(dut.m_axis_tdata, "data")
        last = self.register(dut.m_axis_tlast, "last")
        self.require(~waits | (dut.m_axis_tvalid & (dut.m_axis_tdata == data) & (dut.m_axis_tlast == last)))
        self.cover(waits & dut.m_axis_tready)


def patient(harness: Harness, ready: Value, patience: int) -> None:
    """Fairness: ``ready`` is never 0 for more than ``patience`` clocks in a row."""
    refused = Signal(range(patience + 2))
    harness.m.d.sync += refused.eq(Mux(ready, 0, refused + 1))
    harness.assume(refused <= patience, (refused == patience) & ready)


def within(harness: Harness, event: ValueLike, limit: int, name: str, *, waiting: ValueLike = 1) -> Signal:
    """Require that while ``waiting`` there is an ``event`` at least every ``limit`` clocks; returns the time since."""
    since = Signal(range(limit + 2), name=f"{name}_since")
    event, waiting = Value.cast(event), Value.cast(waiting)
    with harness.m.If(harness.running):
        harness.m.d.sync += since.eq(Mux(event | ~waiting, 0, since + (since <= limit)))
    harness.require(event | ~waiting | (since < limit))
    return since


class ProgressHarness(Harness):
    """From any state, reachable or not, with a source that always offers a word and a fair sink, the component takes
    a word at least every ``limit`` clocks, and if ``gives`` offers one too."""

    any_state = True

    def __init__(self, dut, limit: int, *, patience: int = 1, gives: bool = True):
        super().__init__()
        self.dut, self.limit, self.patience, self.gives = dut, limit, patience, gives

    def build(self) -> None:
        m, dut = self.m, self.dut
        m.submodules.dut = dut
        self.source(dut.i, "i")
        self.sink(dut.o, "o")
        self.assume(dut.i.valid, dut.i.ready)
        self.assume(self.offered(dut.i, "i"), self.stalled(dut.i, "i"))
        patient(self, dut.o.ready, self.patience)
        within(self, dut.i.ready, self.limit, "taken")
        if self.gives:
            within(self, dut.o.valid, self.limit, "given")
