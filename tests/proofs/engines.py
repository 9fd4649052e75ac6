# amaranth: UnusedElaboratable=no

"""A whole engine against the arithmetic, with emitted weights, and the accelerator's way from sample to decision."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value, signed

from codesign.contract.network import FrozenNetwork, signed_width
from codesign.machine.layouts import END, EVENT
from codesign.machine.mapping import HardwareMap
from codesign.machine.plan import plan_machine
from rtl_templates.accelerator import Accelerator
from rtl_templates.engine import Engine

from .harness import Harness
from .lif import fire_of, leak_of
from .streams import patient, within


class EngineHarness(Harness):
    """An engine from its reset on: what every sweep shows is the arithmetic of the events that came.

    Sources in any order, each at most once between two ends, which the guard sees to; with ``gaps`` at any time, else
    as soon as they are taken. Input stops after ``ends`` ends, so that the depth bounds the run. Membranes and spikes
    of every neuron are compared.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        mapping: HardwareMap,
        *,
        ends: int,
        gaps: bool = True,
    ):
        super().__init__()
        self.network, self.mapping, self.ends, self.gaps = network, mapping, ends, gaps
        plan = plan_machine(network, mapping)
        self.dut = Engine(plan.engines[0])

    def build(self) -> None:
        m, dut, network = self.m, self.dut, self.network
        m.submodules.dut = dut
        is_current = network.coding.is_current
        self.sink(dut.o, "o")
        patient(self, dut.o.ready, 1)

        # What comes in.
        n_ends = Signal(range(self.ends + 1))
        word = dut.i.payload
        offer, end = self.free(1, "offer") if self.gaps else Const(1), self.free(1, "end")
        source = self.free(word.source.shape(), "source")
        taken = Signal()
        seen = Signal(network.n_inputs)
        m.d.comb += [
            dut.i.valid.eq(offer & (n_ends != self.ends)),
            word.end.eq(end),
            word.source.eq(source),
            taken.eq(dut.i.valid & dut.i.ready),
        ]
        value: Value | int = 1
        if is_current:
            value = self.free(word.value.shape(), "value")
            m.d.comb += word.value.eq(value)
        known = Array(seen)[source]
        self.assume(~dut.i.valid | end | ((source < network.n_inputs) & ~known), taken & ~end & seen.any())
        first = network.layers[0]
        low, high = first.sum_range(network.source_max(0))
        shape = signed(signed_width(int(low.min()), int(high.max())) + 1)
        extremes = [int(a) if -a > b else int(b) for a, b in zip(low, high, strict=True)]
        dense = first.dense()
        sums = [[Signal(shape, name=f"sum{t}_{j}") for j in range(first.n_out)] for t in range(self.ends)]
        with m.If(taken):
            with m.If(end):
                m.d.sync += [n_ends.eq(n_ends + 1), seen.eq(0)]
            with m.Else():
                m.d.sync += seen.eq(seen | (1 << source))
                for t in range(self.ends):
                    with m.If(n_ends == t):
                        for j, total in enumerate(sums[t]):
                            weight = Array([Const(int(w), signed(8)) for w in dense[:, j]])[source]
                            m.d.sync += total.eq(total + weight * value)

        # The bounds that the sums' widths are made from.
        self.cover(*(Cat(sums[t][j] == bound for t in range(self.ends)).all() for j, bound in enumerate(extremes)))

        # What must be shown. `turn` counts the first layer's sweeps; the others follow it within the timestep.
        layers = dut.plan.frozen
        turn = Signal(range(self.ends * network.timesteps + 1))
        step = Signal(range(max(2, network.timesteps)))
        acc: list[Value] = [
            Array([sums[t][j] for t in range(self.ends)])[turn // network.timesteps if is_current else turn]
            for j in range(first.n_out)
        ]
        for index, layer in enumerate(layers):
            place = self.mapping.layers[index]
            valid, slot, spikes, membranes = (
                dut.probes[index][name] for name in ("valid", "slot", "spikes", "membranes")
            )
            last = Signal(name=f"last{index}")
            m.d.comb += last.eq(valid & (slot == place.n_slots - 1))
            fired = []
            for j in range(layer.n_out):
                v = Signal(signed(layer.membrane_width), name=f"v{index}_{j}")
                u = leak_of(layer.leak, v) + (acc[j] << layer.fraction_bits) + int(layer.bias[j])
                threshold = Const(int(layer.threshold[j]), signed(signed_width(*[int(layer.threshold[j])] * 2)))
                s, after, _ = fire_of(layer, u, threshold, place.spiking)
                lane, width = int(place.lane[j]), layer.membrane_width
                mine = valid & (slot == int(place.slot[j]))
                self.require(~mine | (spikes[lane] == s))
                self.require(~mine | (membranes[lane * width : (lane + 1) * width].as_signed() == after))
                with m.If(last):
                    m.d.sync += v.eq(Mux(step == network.timesteps - 1, 0, after))
                held = Signal(name=f"s{index}_{j}")
                with m.If(last):
                    m.d.sync += held.eq(s)
                fired.append(held)
            if index == 0:
                # A sweep comes after its end, and never without one.
                swept = turn // network.timesteps if is_current else turn
                self.require(~valid | (swept < n_ends))
                with m.If(last):
                    m.d.sync += turn.eq(turn + 1)
            if index == len(layers) - 1:
                with m.If(last):
                    m.d.sync += step.eq(Mux(step == network.timesteps - 1, 0, step + 1))
                total = self.ends * network.timesteps if is_current else self.ends
                self.cover(last & (turn == total - (1 if index == 0 else 0)))
                self.cover(valid & spikes.any())
            else:
                following = network.layers[index + 1].dense()
                acc = [
                    sum((Mux(s, int(w), 0) for s, w in zip(fired, following[:, k], strict=True)), Const(0))
                    for k in range(following.shape[1])
                ]


class DecisionHarness(Harness):
    """An accelerator from its reset on: words are taken, and each sample's decision is given, within bounds.

    Any events in any order, duplicates too; only each sample ends properly. With ``gaps`` words come at any time, else
    one is always offered. The sink takes a word at least every ``patience`` + 1 clocks.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        mapping: HardwareMap,
        *,
        taken: int,
        decided: int,
        patience: int = 1,
        gaps: bool = False,
    ):
        super().__init__()
        self.gaps = gaps
        self.network, self.dut = network, Accelerator(plan_machine(network, mapping))
        self.taken, self.decided, self.patience = taken, decided, patience

    def build(self) -> None:
        m, dut, network = self.m, self.dut, self.network
        m.submodules.dut = dut
        valid = self.free(1, "valid") if self.gaps else Const(1)
        source, last = self.free(dut.input_record.fields[0].width, "source"), Signal()
        step = Signal(range(max(2, network.timesteps)))
        if network.coding.is_current:
            extra = self.free(dut.input_record.fields[1].width, "value")
            m.d.comb += last.eq(self.free(1, "last"))
        else:
            end = self.free(1, "end")
            extra = Mux(end, END, EVENT)
            m.d.comb += last.eq(end & (step == network.timesteps - 1))
        accepted = Signal()
        m.d.comb += [
            dut.s_axis_tvalid.eq(valid),
            dut.s_axis_tdata.eq(source | (extra << dut.input_record.fields[0].width)),
            dut.s_axis_tlast.eq(last),
            dut.m_axis_tready.eq(self.free(1, "ready")),
            accepted.eq(self.running & valid & dut.s_axis_tready),
        ]
        if not network.coding.is_current:
            with m.If(accepted & end):
                m.d.sync += step.eq(Mux(last, 0, step + 1))
        waits = self.register(self.running & valid & ~dut.s_axis_tready, "waits")
        data, was_last = self.register(dut.s_axis_tdata, "data"), self.register(last, "was_last")
        self.assume(
            ~waits | (valid & (dut.s_axis_tdata == data) & (last == was_last)), waits & valid & dut.s_axis_tready
        )
        patient(self, dut.m_axis_tready, self.patience)
        decided = Signal()
        m.d.comb += decided.eq(self.running & dut.m_axis_tvalid & dut.m_axis_tready & dut.m_axis_tlast)
        owed = Signal(4)
        m.d.sync += owed.eq(owed + (accepted & last) - decided)
        # A decision never comes before its sample, and every sample's comes.
        self.require(~decided | (owed != 0))
        within(self, accepted, self.taken, "taken", waiting=valid)
        within(self, decided, self.decided, "decided", waiting=owed != 0)
        self.cover(decided, accepted & last & (owed != 0))
