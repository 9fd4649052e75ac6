# amaranth: UnusedElaboratable=no

"""The neurons of a lane against the arithmetic of docs/contract.md, in integers that grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed, unsigned

from codesign.contract.network import FrozenLayer, FrozenNetwork, InputCoding, Leak, signed_width
from codesign.machine.choices import Choices, Pipeline
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from rtl_templates.neurons import NeuronBank

from .defects import narrowed
from .harness import Harness

RESETS = ("subtract", "zero", "value", "none")
COMPARES = (">=", ">")
# Where a neuron's sum is: in the word of its state; with several streams of events in a memory for each; with masks of
# timesteps in one memory, a sum for each timestep; with input currents in one memory, one sum for all timesteps.
Sums = Literal["events", "streams", "masks", "current"]
STREAMS = 2
TIMESTEPS = 2


def clip(value: Value, width: int) -> tuple[Value, Value]:
    """``value`` in so many signed bits, and whether it was clipped."""
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    return Mux(value < low, low, Mux(value > high, high, value)), (value < low) | (value > high)


def leak_of(leak: Leak, v: Value, numbers: Mapping[str, Value | int] | None = None) -> Value:
    """leak(v) = v | v - (v >> k) | (v * m) >> n, with >> arithmetic; ``numbers`` : k, m and n, if not its own."""
    found: Mapping[str, Value | int] = numbers or {name: int(value) for name, value in leak.numbers.items()}
    if leak.kind == "none":
        return v
    if leak.kind == "shift":
        return v - (v >> found["shift"])
    return (v * found["multiplier"]) >> found["shift"]


def fire_of(layer: FrozenLayer, u: Value, threshold: Value, spiking: bool) -> tuple[Value, Value, Value]:
    """(s, v, saturated) of u: compare, reset, saturate. A delayed reset leaves u as it is."""
    s = Value.cast(0) if not spiking else u > threshold if layer.compare == ">" else u >= threshold
    after = {
        "subtract": u - threshold,
        "zero": Const(0),
        "value": Const(layer.reset_value, signed(layer.membrane_width)),
        "none": u,
    }
    r = u if layer.reset_delay else Mux(s, after[layer.reset], u)
    return s, *clip(r, layer.membrane_width)


@dataclass(frozen=True)
class Neuron:
    """What a neuron keeps from one timestep to the next: membrane, synaptic current, what a delayed reset has still to
    subtract, and the timesteps of rest that are left."""

    v: Value
    i: Value
    owed: Value
    rest: Value


@dataclass(frozen=True)
class Step:
    """What a timestep makes of a neuron; ``exact`` and ``u`` are what is clipped into the current and the membrane."""

    following: Neuron
    s: Value
    saturated: Value
    exact: Value
    u: Value


def step_of(
    layer: FrozenLayer, neuron: Neuron, total: Value, numbers: Mapping[str, Value | int], spiking: bool
) -> Step:
    """A timestep of docs/contract.md. total : the weighted sum, before the shift. numbers : the neuron's own."""

    def leaked(which: str, value: Value) -> Value:
        own = {name.removeprefix(f"{which}_"): number for name, number in numbers.items()}
        return leak_of(layer.leaks[which], value, own)

    threshold = Value.cast(numbers["threshold"])
    arriving = exact = (total << layer.fraction_bits) + numbers["bias"]
    lost: Value = Const(0)
    if layer.has_current:
        exact = leaked("current_leak", neuron.i) + arriving
        arriving, lost = clip(exact, layer.current_width)
    u = leaked("leak", neuron.v) + arriving - neuron.owed
    s, after, clipped = fire_of(layer, u, threshold, spiking)
    resting = neuron.rest > 0
    s = s & ~resting
    return Step(
        Neuron(
            v=Mux(resting, neuron.v, after),
            i=arriving if layer.has_current else Const(0),
            owed=Mux(s, threshold, 0) if layer.reset_delay else Const(0),
            rest=Mux(s, layer.refractory, Mux(resting, neuron.rest - 1, 0)),
        ),
        s=s,
        saturated=lost | (clipped & ~resting),
        exact=exact,
        u=Mux(resting, neuron.v, u),
    )


@dataclass(frozen=True)
class Clock:
    """A clock of the schedule: which slot of which sweep is read, or whether synapses may come."""

    sweep: int | None = None
    slot: int = 0
    synapses: bool = False


def schedule(sums: Sums, n_slots: int, *, window: int, sweeps: int, write: int, pipeline: Pipeline) -> list[Clock]:
    """Sweeps with windows of synapses before each but the first; where several follow a sum, before the second alone.

    write : clocks from reading a slot to writing it. A synapse comes as early as an engine sends it.
    """
    found: list[Clock] = []
    for sweep in range(sweeps):
        walks = sweep == 1 or (sweep > 0 and sums in ("events", "streams"))
        if walks:
            # In the clock in which the last slot is written; of several streams as soon as its sum is cleared.
            pause = write if sums != "streams" else 3 if pipeline == "deep" else 2
            # One clock without a synapse: what came last is written in the first clock of the sweep.
            found += [*[Clock()] * (pause - 1), *[Clock(synapses=True)] * window, Clock()]
            if sums == "streams":
                # No sweep before the one before it is written.
                found += [Clock()] * max(0, write - pause - window)
        elif sweep:
            found += [Clock()] * write
        found += [Clock(sweep, slot) for slot in range(n_slots)]
    return found


class BankHarness(Harness):
    """Sweeps of a bank with synapses between them; what one shows follows from what the one before has shown.

    The memories hold anything when the first sweep reads them, so that it shows any v and any current. By induction
    over the timesteps the relation of two successive sweeps is the arithmetic at every time, since nothing but the
    memories outlives a sweep: the registers hold anything when it all begins. The timesteps of rest that are left are
    not shown: there are so many sweeps that they are known by then, whatever they were. One neuron is looked at, any.

    Parameters
    ----------
    layers : layers of one synaptic current or none, otherwise any, a bank for each.
    sums : where the sums are. input_bits : of input currents, if they are.
    window : clocks in which a synapse, of any slot and weight, may come.
    sweeps : how many.
    readout : of the network, whose last layer this is.
    counts : whether the bank counts spikes.
    built : what the banks are made from, if not from the specified ``layers``: how a defect is seeded.
    narrower : bits by which the sums are too narrow: another defect.
    pipeline : of the banks.
    """

    def __init__(
        self,
        layers: Sequence[FrozenLayer],
        *,
        sums: Sums = "events",
        input_bits: int = 2,
        window: int = 3,
        sweeps: int = 2,
        readout: str = "spike_count",
        counts: bool = False,
        built: Sequence[FrozenLayer] | None = None,
        narrower: int = 0,
        pipeline: Pipeline = "deep",
    ):
        super().__init__()
        self.layers, self.sums = layers, sums
        self.window, self.sweeps, self.pipeline = window, sweeps, pipeline
        self.spiking = readout == "spike_count"
        self.source_max = (1 << input_bits) - 1 if sums == "current" else 1
        coding = InputCoding("current", input_bits) if sums == "current" else InputCoding("events")
        choices = Choices(
            pipeline=pipeline,
            event_streams=STREAMS if sums == "streams" else 1,
            schedule="sample" if sums == "masks" else "timestep",
            output_spikes=not counts,
        )
        self.banks = []
        for layer in built or layers:
            # The bank does not count timesteps; only sums of several have to be told apart.
            network = FrozenNetwork((layer,), TIMESTEPS if sums == "masks" else 1, coding, readout)
            (plan,) = plan_machine(network, map_network(network, [1], None, choices)).engines
            self.banks.append(NeuronBank(replace(plan, widths=narrowed(plan.widths, narrower)), 0))

    def build(self) -> None:
        m, n_slots = self.m, self.layers[0].n_out
        first = self.banks[0]
        fire, stages = first.fire, first.stages
        watched = self.constant(unsigned(max(1, (n_slots - 1).bit_length())), "watched")
        if n_slots & (n_slots - 1):
            self.assume(watched < n_slots, self.running & (watched == n_slots - 1))
        # What the last sweep writes is not looked at. A sum from before is not known: the first sweep clears it. Where
        # a sweep follows each sum it clears it, too.
        stays = self.sums in ("masks", "current")
        initial = [*(self.constant(1, f"initial_{number}") for number in range(self.sweeps - 1)), Const(0)]
        clears = [Const(1)] * self.sweeps
        if stays:
            clears[1:] = [*(self.constant(1, f"clear_{number}") for number in range(1, self.sweeps - 1)), Const(0)]

        clocks = schedule(
            self.sums, n_slots, window=self.window, sweeps=self.sweeps, write=stages, pipeline=self.pipeline
        )
        at = Signal(range(len(clocks) + 1))
        sweeping, in_window = Signal(), Signal()
        number, slot = Signal(range(self.sweeps)), Signal(first.read_slot.shape())
        with m.If(self.running & (at != len(clocks))):
            m.d.sync += at.eq(at + 1)
        with m.If(self.running), m.Switch(at):
            for place, clock in enumerate(clocks):
                with m.Case(place):
                    if clock.sweep is not None:
                        m.d.comb += [sweeping.eq(1), number.eq(clock.sweep), slot.eq(clock.slot)]
                    m.d.comb += in_window.eq(clock.synapses)
        chosen, clear = Signal(), Signal()
        m.d.comb += [chosen.eq(Array(initial)[number]), clear.eq(Array(clears)[number])]

        def late(value, clocks, name):
            for clock in range(clocks):
                value = self.register(value, f"{name}_{clock + 1}")
            return value

        synapses = self._synapses(in_window, first, n_slots)
        for index, bank in enumerate(self.banks):
            m.submodules[f"bank{index}"] = bank
            for stream, synapse in enumerate(synapses):
                walked_valid, walked, value = bank.walked(stream)
                m.d.comb += [
                    walked_valid.eq(synapse["valid"]),
                    walked.slot.eq(synapse["slot"]),
                    walked.weight.eq(synapse["weight"]),
                    value.eq(synapse["value"]),
                ]
            m.d.comb += [
                bank.read_valid.eq(sweeping),
                bank.read_slot.eq(slot),
                bank.clear_valid.eq(late(sweeping & clear, 2, f"clear{index}")),
                bank.clear_slot.eq(late(slot, 2, f"clear_slot{index}")),
                bank.write_valid.eq(late(sweeping, stages, f"write{index}")),
                bank.write_slot.eq(late(slot, stages, f"write_slot{index}")),
                bank.write_initial.eq(late(chosen, stages, f"write_initial{index}")),
            ]
            if self.sums == "masks":
                m.d.comb += bank.step.eq(late(self._timestep(number), self.pipeline == "deep", f"step{index}"))
            if hasattr(bank, "parameter_valid"):
                clock = bank.parameter_clock
                m.d.comb += [
                    bank.parameter_valid.eq(late(sweeping, clock, f"parameter{index}")),
                    bank.parameter_slot.eq(late(slot, clock, f"parameter_slot{index}")),
                ]

        total = self._total(m, synapses, watched, sweeping & (slot == watched), clear, number)
        shows = late(sweeping & (slot == watched), fire, "shows")
        shown_number = late(number, fire, "shown_number")
        shown_initial = late(chosen, fire, "shown_initial")
        self.cover(shows & (shown_number == self.sweeps - 1))
        for index, (bank, layer) in enumerate(zip(self.banks, self.layers, strict=True)):
            self._judge(m, index, bank, layer, watched, total, shows, shown_number, shown_initial)

    @staticmethod
    def _timestep(number: Value) -> Value:
        """Of a sweep whose sums are of several timesteps."""
        return (number - 1)[: (TIMESTEPS - 1).bit_length()]

    def _synapses(self, in_window: Signal, bank: NeuronBank, n_slots: int) -> list[dict[str, Signal]]:
        """Of each stream the synapse that comes: any, or none."""
        found = []
        for stream in range(STREAMS if self.sums == "streams" else 1):
            of = f"{stream or ''}"
            _, shape, value = bank.walked(stream)
            synapse = {
                "valid": Signal(name=f"synapse{of}_valid"),
                "slot": self.free(shape.slot.shape(), f"slot{of}"),
                "weight": self.free(shape.weight.shape(), f"weight{of}"),
                "value": self.free(value.shape(), f"value{of}"),
            }
            self.m.d.comb += synapse["valid"].eq(in_window & self.free(1, f"synapse{of}_offered"))
            if n_slots & (n_slots - 1):
                self.assume(~synapse["valid"] | (synapse["slot"] < n_slots), synapse["valid"])
            found.append(synapse)
        return found

    def _total(
        self,
        m: Module,
        synapses: list[dict[str, Signal]],
        watched: Signal,
        read: Value,
        clear: Value,
        number: Value,
    ) -> Value:
        """The exact weighted sum of the neuron that is looked at, which the sweep that has read it shows.

        A layer never gets more than its synapses' sum, nor does a part of it that has a sum of its own.
        """
        low, high = self.layers[0].sum_range(self.source_max)
        low, high = int(low.min()), int(high.max())
        timesteps = TIMESTEPS if self.sums == "masks" else 1
        found = []
        for timestep in range(timesteps):
            parts = []
            for stream, synapse in enumerate(synapses):
                name = f"acc{stream}_{timestep}"
                acc = Signal(signed(signed_width(low, high)), name=name)
                term: Value = synapse["weight"]
                if self.sums == "current":
                    term = term * synapse["value"]
                elif self.sums == "masks":
                    term = Mux(synapse["value"][timestep], term, 0)
                total = acc + Mux(synapse["valid"] & (synapse["slot"] == watched), term, 0)
                self.assume((total >= low) & (total <= high), total == low, total == high)
                m.d.sync += acc.eq(Mux(read & clear, 0, total))
                parts.append(acc)
            whole = sum(parts[1:], parts[0])
            if len(parts) > 1:
                self.assume((whole >= low) & (whole <= high), whole == low, whole == high)
            found.append(whole)
        swept = Signal(signed(signed_width(low, high)))
        with m.If(read):
            m.d.sync += swept.eq(Array(found)[self._timestep(number)] if timesteps > 1 else found[0])
        return swept

    def _judge(
        self,
        m: Module,
        index: int,
        bank: NeuronBank,
        layer: FrozenLayer,
        watched: Signal,
        total: Value,
        shows: Value,
        shown_number: Value,
        shown_initial: Value,
    ) -> None:
        """What the bank shows of a layer's neuron, in every sweep before which its state is known."""
        numbers = {name: self.of_slot(values, watched) for name, values in layer.numbers.items()}
        rest_limit = (1 << layer.refractory.bit_length()) - 1
        v = Signal(signed(layer.membrane_width), name=f"v{index}")
        i = Signal(signed(max(1, layer.current_width)), name=f"i{index}")
        fired = Signal(name=f"fired{index}")
        # The rest that is left at most, and at least.
        rest = Signal(range(rest_limit + 1), name=f"rest{index}", init=rest_limit)
        known = Signal(name=f"known{index}")
        owed = Mux(fired, numbers["threshold"], 0) if layer.reset_delay else Const(0)
        step = step_of(layer, Neuron(v, i, owed, rest), total, numbers, self.spiking)
        judged = Signal(name=f"judged{index}")
        m.d.comb += judged.eq(shows & (shown_number != 0) & known)
        wanted = step.following
        if not self.spiking:
            # The frozen network's validation has derived that a layer that only integrates stays within its widths.
            self._stays_within(judged, step.u, layer.membrane_width)
            if layer.has_current:
                self._stays_within(judged, step.exact, layer.current_width)
        self.require(~judged | (bank.spike == step.s))
        self.require(~judged | (bank.membrane == wanted.v))
        self.require(~judged | (bank.saturated == step.saturated))
        if layer.has_current:
            self.require(~judged | (bank.current == wanted.i))
        with m.If(shows):
            # What is shown of the first sweep, whose state was anything, is what the next one starts from.
            m.d.sync += [
                v.eq(Mux(shown_initial, 0, bank.membrane)),
                fired.eq(bank.spike & ~shown_initial),
            ]
            if layer.has_current:
                m.d.sync += i.eq(Mux(shown_initial, 0, bank.current))
            if layer.refractory:
                left = Mux(bank.spike, layer.refractory, Mux(rest > 0, rest - 1, 0))
                m.d.sync += [
                    rest.eq(Mux(shown_initial, 0, left)),
                    known.eq(known | shown_initial | bank.spike | (rest <= 1)),
                ]
            else:
                m.d.sync += [rest.eq(0), known.eq(1)]
        if hasattr(bank, "count"):
            count = Signal.like(bank.count, name=f"count{index}")
            self.require(~judged | (bank.count == (count + step.s)[: len(count)]))
            with m.If(shows):
                m.d.sync += count.eq(Mux(shown_initial, 0, bank.count))
        if self.spiking and index == 0:
            self.cover(judged & step.s, judged & ~step.s)
        if layer.refractory:
            self.cover(judged & (rest == layer.refractory) & (total != 0), judged & (rest == 0) & step.s)
        if layer.has_current and self.spiking:
            self.cover(judged & (step.exact != wanted.i))
        if layer.reset_delay:
            self.cover(judged & fired & step.s)

    def _stays_within(self, judged: Value, value: Value, width: int) -> None:
        limit = 1 << (width - 1)
        reached = [judged & (value == -limit), judged & (value == limit - 1)]
        self.assume(~judged | ((value >= -limit) & (value < limit)), *reached)

    @staticmethod
    def of_slot(numbers: np.ndarray, slot: Value) -> Value:
        """The slot's number."""
        low, high = int(numbers.min()), int(numbers.max())
        shape = unsigned(max(1, high.bit_length())) if low >= 0 else signed(signed_width(low, high))
        return Const(low, shape) if low == high else Array([Const(int(number), shape) for number in numbers])[slot]


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
