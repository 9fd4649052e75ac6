# amaranth: UnusedElaboratable=no

"""The neurons of a lane against the arithmetic of docs/contract.md, in integers that grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from amaranth.hdl import Array, Const, Mux, Signal, Value, signed, unsigned

from codesign.contract.network import FrozenLayer, FrozenNetwork, InputCoding, Leak, signed_width
from codesign.machine.choices import Choices, Pipeline
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from rtl_templates.neurons import NeuronBank

from .defects import narrowed
from .harness import Harness

RESETS = ("subtract", "zero", "value", "none")
COMPARES = (">=", ">")


def leak_of(leak: Leak, v: Value) -> Value:
    """leak(v) = v | v - (v >> k) | (v * m) >> n, with >> arithmetic."""
    if leak.kind == "none":
        return v
    if leak.kind == "shift":
        return v - (v >> int(leak.shift))
    return (v * int(leak.multiplier)) >> int(leak.shift)


def fire_of(layer: FrozenLayer, u: Value, threshold: Value, spiking: bool) -> tuple[Value, Value, Value]:
    """(s, v, saturated) of u: compare, reset, saturate."""
    s = Value.cast(0) if not spiking else u > threshold if layer.compare == ">" else u >= threshold
    after = {
        "subtract": u - threshold,
        "zero": Const(0),
        "value": Const(layer.reset_value, signed(layer.membrane_width)),
        "none": u,
    }
    r = Mux(s, after[layer.reset], u)
    low, high = -(1 << (layer.membrane_width - 1)), (1 << (layer.membrane_width - 1)) - 1
    return s, Mux(r < low, low, Mux(r > high, high, r)), (r < low) | (r > high)


class BankHarness(Harness):
    """Two sweeps of a bank with synapses between them; what the second shows follows from what the first has shown.

    The memories hold anything when the first sweep reads them, so that it shows any v; ``sweeps`` - 1 relations of
    successive timesteps follow. By induction over the timesteps they are the arithmetic at every time, since nothing
    but the memories outlives a sweep: the registers hold anything when it all begins. One neuron is looked at, any.

    Parameters
    ----------
    layers : layers that differ in leak, reset and compare alone, a bank for each.
    coding, source_max : as for Widths.
    window : clocks in which a synapse, of any slot and weight, may come.
    built : what the banks are made from, if not from the specified ``layers``: how a defect is seeded.
    narrower : bits by which the sums are too narrow: another defect.
    pipeline : of the banks.
    """

    def __init__(
        self,
        layers: Sequence[FrozenLayer],
        *,
        input_bits: int = 0,
        window: int = 3,
        readout: str = "spike_count",
        built: Sequence[FrozenLayer] | None = None,
        narrower: int = 0,
        pipeline: Pipeline = "deep",
    ):
        super().__init__()
        self.layers = layers
        self.window = window
        self.spiking = readout == "spike_count"
        self.is_current = input_bits > 0
        self.source_max = (1 << input_bits) - 1 if self.is_current else 1
        coding = InputCoding("current", input_bits) if self.is_current else InputCoding("events")
        self.banks = []
        for layer in built or layers:
            # One timestep suffices: the bank does not count them.
            network = FrozenNetwork((layer,), 1, coding, readout)
            (plan,) = plan_machine(network, map_network(network, [1], None, Choices(pipeline=pipeline))).engines
            self.banks.append(NeuronBank(replace(plan, widths=narrowed(plan.widths, narrower)), 0))

    def build(self) -> None:
        m, n_slots = self.m, self.layers[0].n_out
        first = self.banks[0]
        fire, stages = first.fire, first.stages
        watched = self.constant(unsigned(max(1, (n_slots - 1).bit_length())), "watched")
        if n_slots & (n_slots - 1):
            self.assume(watched < n_slots, self.running & (watched == n_slots - 1))
        sweeps = 3 if self.is_current else 2
        # What the last sweep writes is not looked at. A sum from before is not known: the first sweep clears it.
        initial = [*(self.constant(1, f"initial_{number}") for number in range(sweeps - 1)), Const(0)]
        clears = [Const(1), *(self.constant(1, f"clear_{number}") for number in range(1, sweeps - 1)), Const(0)]

        # The schedule: sweep, window of synapses, wait until none is on its way, sweep, and with a current once more.
        step = Signal(range(sweeps + 3))
        count = Signal(range(max(n_slots + stages, self.window)))
        done = Signal()
        sweeping, in_window = Signal(), Signal()
        number = Signal(range(sweeps))
        m.d.sync += count.eq(Mux(done, 0, count + 1))
        with m.If(done):
            m.d.sync += step.eq(step + 1)
        with m.If(self.running), m.Switch(step):
            for sweep, at in enumerate((0, 3, 4)[:sweeps]):
                # A synapse may come in the clock in which the last slot is written, a sweep in the one after.
                last = n_slots + stages - (2 if sweep == 0 else 1)
                with m.Case(at):
                    m.d.comb += [number.eq(sweep), done.eq(count == last), sweeping.eq(count < n_slots)]
            with m.Case(1):
                m.d.comb += [in_window.eq(1), done.eq(count == self.window - 1)]
            with m.Case(2):
                # One clock without a synapse: what came last is written in the first clock of the sweep.
                m.d.comb += done.eq(1)
        with m.Else():
            m.d.sync += count.eq(0)

        slot_shape = first.read_slot.shape()
        chosen = Signal()
        m.d.comb += chosen.eq(Array(initial)[number])
        clear = Signal()
        m.d.comb += clear.eq(Array(clears)[number])

        def late(value, clocks, name):
            for clock in range(clocks):
                value = self.register(value, f"{name}_{clock + 1}")
            return value

        synapse = {
            "valid": Signal(name="synapse_valid"),
            "slot": self.free(slot_shape, "slot"),
            "weight": self.free(first.synapse.weight.shape(), "weight"),
            "value": self.free(first.value.shape(), "value"),
        }
        offered = self.free(1, "synapse_offered")
        m.d.comb += synapse["valid"].eq(in_window & offered)
        if n_slots & (n_slots - 1):
            self.assume(~synapse["valid"] | (synapse["slot"] < n_slots), synapse["valid"])

        for index, bank in enumerate(self.banks):
            m.submodules[f"bank{index}"] = bank
            m.d.comb += [
                bank.synapse_valid.eq(synapse["valid"]),
                bank.synapse.slot.eq(synapse["slot"]),
                bank.synapse.weight.eq(synapse["weight"]),
                bank.value.eq(synapse["value"]),
                bank.read_valid.eq(sweeping),
                bank.read_slot.eq(count),
                bank.clear_valid.eq(late(sweeping & clear, 2, f"clear{index}")),
                bank.clear_slot.eq(late(count, 2, f"clear_slot{index}")),
                bank.write_valid.eq(late(sweeping, stages, f"write{index}")),
                bank.write_slot.eq(late(count, stages, f"write_slot{index}")),
                bank.write_initial.eq(late(chosen, stages, f"write_initial{index}")),
            ]
            if hasattr(bank, "parameter_valid"):
                clock = bank.parameter_clock
                m.d.comb += [
                    bank.parameter_valid.eq(late(sweeping, clock, f"parameter{index}")),
                    bank.parameter_slot.eq(late(count, clock, f"parameter_slot{index}")),
                ]

        # The weighted sum of the neuron that is looked at, exactly. A layer never gets more than its synapses' sum.
        low, high = self.layers[0].sum_range(self.source_max)
        low, high = int(low.min()), int(high.max())
        acc = Signal(signed(signed_width(low, high)))
        term = synapse["weight"] * synapse["value"] if self.is_current else synapse["weight"]
        shows = late(sweeping & (count == watched), fire, "shows")
        shown_number = late(number, fire, "shown_number")
        shown_initial = late(chosen, fire, "shown_initial")
        shown_clear = late(clear, fire, "shown_clear")
        # A short pipeline shows the last slot in the first clock in which a synapse may come.
        kept = Mux(shows & shown_clear, 0, acc)
        total = kept + Mux(synapse["valid"] & (synapse["slot"] == watched), term, 0)
        m.d.sync += acc.eq(total)
        self.assume((total >= low) & (total <= high), total == low, total == high)
        self.cover(shows & (shown_number == sweeps - 1))

        for index, (bank, layer) in enumerate(zip(self.banks, self.layers, strict=True)):
            v = Signal(signed(layer.membrane_width), name=f"v{index}")
            threshold, bias = (self.of_slot(numbers, watched) for numbers in (layer.threshold, layer.bias))
            u = leak_of(layer.leak, v) + bias + (acc << layer.fraction_bits)
            s, after, saturated = fire_of(layer, u, threshold, self.spiking)
            judged = Signal(name=f"judged{index}")
            m.d.comb += judged.eq(shows & (shown_number != 0))
            if not self.spiking:
                # The frozen network's validation has derived that a layer that only integrates stays within its width.
                limit = 1 << (layer.membrane_width - 1)
                self.assume(~judged | ((u >= -limit) & (u < limit)), judged & (u == -limit), judged & (u == limit - 1))
            self.require(~judged | (bank.spike == s))
            self.require(~judged | (bank.membrane == after))
            self.require(~judged | (bank.saturated == saturated) if self.spiking else ~judged | ~bank.saturated)
            with m.If(shows):
                m.d.sync += v.eq(Mux(shown_initial, 0, bank.membrane))
            if self.spiking and index == 0:
                self.cover(judged & s, judged & ~s)

    @staticmethod
    def of_slot(numbers: np.ndarray, slot: Value) -> Value:
        """The slot's number."""
        shape = signed(signed_width(int(numbers.min()), int(numbers.max())))
        return Array([Const(int(number), shape) for number in numbers])[slot]


def bank_layer(
    weights: Sequence[int],
    n_out: int,
    *,
    threshold: Sequence[int],
    bias: Sequence[int],
    **parameters,
) -> FrozenLayer:
    """A layer whose ``n_out`` neurons have these incoming weights each."""
    matrix = np.repeat(np.array(weights)[:, None], n_out, axis=1)
    return FrozenLayer.from_dense(matrix, threshold=np.array(threshold), bias=np.array(bias), **parameters)


def every_mode(leak: Leak, **parameters) -> list[FrozenLayer]:
    """The layers of all resets and compares."""
    return [
        bank_layer(leak=leak, reset=reset, compare=compare, **parameters)
        for reset, compare in product(RESETS, COMPARES)
    ]
