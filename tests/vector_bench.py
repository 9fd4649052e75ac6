"""Runs the accelerator in Amaranth's simulator: input words in, output words, probes and status out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.machine.layouts import DECISION, END, EVENT, SPIKE, VALUE, input_word, output_word
from codesign.machine.mapping import HardwareMap
from codesign.machine.plan import plan_machine
from rtl_templates.accelerator import Accelerator


@dataclass
class Observed:
    """What came out: decoded output words, and per layer the probed (slot, spikes, membranes) words.

    ``latencies`` : clocks from a sample's first word to its decision. ``counters`` : those of early exit, after each
    decision.
    """

    words: list[dict[str, int]] = field(default_factory=list)
    last: list[bool] = field(default_factory=list)
    probes: list[list[tuple[int, int, int]]] = field(default_factory=list)
    saturations: list[int] = field(default_factory=list)
    protocol_error: int = 0
    busy: int = 0
    cycles: int = 0
    latencies: list[int] = field(default_factory=list)
    counters: list[tuple[int, int, int]] = field(default_factory=list)


def sample_words(
    network: FrozenNetwork,
    stimulus: Stimulus,
    sample: int,
    rng: np.random.Generator,
    mapping: HardwareMap | None = None,
) -> list[tuple[int, bool]]:
    """One sample as (word, tlast), sources in random order; ``mapping`` says what the sources' addresses are."""
    record = input_word(network, mapping.input_span if mapping else None)
    address = mapping.input_address if mapping else np.arange(network.n_inputs)
    if network.coding.is_current:
        values = stimulus.values[sample]
        sources = rng.permutation(np.flatnonzero(values))
        if sources.size == 0:
            sources = rng.integers(0, network.n_inputs, 1)
        words = record.pack({"source": address[sources], "value": values[sources].astype(np.int64)}).tolist()
        return [(word, position == len(words) - 1) for position, word in enumerate(words)]
    result = []
    for t in range(network.timesteps):
        for source in rng.permutation(stimulus.events(sample, t)):
            result.append((int(record.pack({"source": address[source], "kind": EVENT})[0]), False))
        source = int(rng.integers(0, network.n_inputs))
        result.append((int(record.pack({"source": address[source], "kind": END})[0]), t == network.timesteps - 1))
    return result


def simulate(
    network: FrozenNetwork,
    mapping: HardwareMap,
    words: Sequence[tuple[int, bool]],
    *,
    decisions: int,
    rng: np.random.Generator | None = None,
    reset_at: int | None = None,
    limit: int = 200_000,
) -> Observed:
    """Feed ``words`` and run until ``decisions`` decisions have come, then until idle.

    With ``rng``: random gaps before words and random backpressure. ``reset_at``: after that many words, reset for a
    clock and start over with the first word; what came before is forgotten.
    """
    dut = Accelerator(plan_machine(network, mapping))
    observed = Observed(probes=[[] for _ in mapping.layers])
    record = output_word(network)
    gap, stall = (0.0, 0.0) if rng is None else (float(rng.choice([0, 0.3, 0.8])), float(rng.choice([0, 0.5, 0.9])))
    from amaranth.hdl import ResetInserter, Signal

    reset = Signal()
    simulator = Simulator(ResetInserter(reset)(dut))
    simulator.add_clock(1e-6)
    names = ("valid", "slot", "spikes", "membranes")
    probes = [[probe[name] for name in names] for engine in dut.engines for probe in engine.probes]

    async def bench(ctx):
        position, done, restart = 0, 0, reset_at
        valid = False
        starts, decided = [], False
        for cycle in range(limit):
            if not valid and position < len(words) and (rng is None or rng.random() >= gap):
                valid = True
                ctx.set(dut.s_axis_tdata, words[position][0])
                ctx.set(dut.s_axis_tlast, words[position][1])
            ctx.set(dut.s_axis_tvalid, valid)
            ready = rng is None or rng.random() >= stall
            ctx.set(dut.m_axis_tready, ready)
            if restart is not None and position >= restart:
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)
                position, done, restart, valid = 0, 0, None, False
                for name in ("words", "last", "saturations", "latencies", "counters"):
                    getattr(observed, name).clear()
                starts, decided = [], False
                for probe in observed.probes:
                    probe.clear()
                continue
            if decided and mapping.choices.exits:
                observed.counters.append(
                    (ctx.get(dut.latency_cycles), ctx.get(dut.exit_count), ctx.get(dut.timestep_count))
                )
            decided = False
            taken = valid and ctx.get(dut.s_axis_tready)
            if ready and ctx.get(dut.m_axis_tvalid):
                word = ctx.get(dut.m_axis_tdata)
                observed.words.append({name: int(value[0]) for name, value in record.unpack([word]).items()})
                observed.last.append(bool(ctx.get(dut.m_axis_tlast)))
                if observed.last[-1]:
                    decided = True
                    observed.latencies.append(cycle - starts[done])
                    done += 1
                    observed.saturations.append(ctx.get(dut.saturation_count))
            for layer, (probe_valid, *signals) in zip(observed.probes, probes):
                if ctx.get(probe_valid):
                    layer.append(tuple(ctx.get(signal) for signal in signals))
            if taken:
                if position == 0 or words[position - 1][1]:
                    starts.append(cycle)
                position, valid = position + 1, False
            if done >= decisions and position == len(words) and not ctx.get(dut.busy):
                observed.cycles = cycle
                break
            await ctx.tick()
        else:
            raise AssertionError(
                f"{done} of {decisions} decisions, {position} of {len(words)} words after {limit} clocks"
            )
        observed.protocol_error = ctx.get(dut.protocol_error)
        for _ in range(20):
            await ctx.tick()
            assert not ctx.get(dut.m_axis_tvalid) and not ctx.get(dut.busy)

    simulator.add_testbench(bench)
    simulator.run()
    return observed


def check(
    network: FrozenNetwork,
    mapping: HardwareMap,
    stimulus: Stimulus,
    observed: Observed,
) -> int:
    """Compare everything observed with the golden model; returns the number of values compared."""
    choices = mapping.choices
    trace = golden.run(network, stimulus, early_exit=choices.early_exit)
    counts = np.arange(network.timesteps) <= trace.exits[:, None]
    n_samples, timesteps = len(stimulus), network.timesteps
    compared = 0
    for index, layer in enumerate(mapping.layers):
        width = network.layers[index].membrane_width
        probes = observed.probes[index]
        assert len(probes) == n_samples * timesteps * layer.n_slots, f"layer {index}: {len(probes)} probes"
        spikes = np.zeros((n_samples * timesteps, layer.n_out), bool)
        membranes = np.zeros((n_samples * timesteps, layer.n_out), np.int64)
        for position, (slot, fired, stored) in enumerate(probes):
            step, expected_slot = divmod(position, layer.n_slots)
            assert slot == expected_slot
            for neuron in np.flatnonzero(layer.slot == slot):
                lane = int(layer.lane[neuron])
                raw = (stored >> (lane * width)) & ((1 << width) - 1)
                membranes[step, neuron] = raw - ((raw >> (width - 1)) << width)
                spikes[step, neuron] = (fired >> lane) & 1
        shape = (n_samples, timesteps, layer.n_out)
        for what, got, want in (("spikes", spikes, trace.spikes), ("membranes", membranes, trace.membranes)):
            got, want = got.reshape(shape)[counts], want[index][counts]
            np.testing.assert_array_equal(got, want, f"{what} of layer {index}")
            compared += want.size
    position = 0
    for sample in range(n_samples):
        for t in range(int(trace.exits[sample]) + 1):
            expected = set(np.flatnonzero(trace.spikes[-1][sample, t]).tolist()) if choices.output_spikes else set()
            words = observed.words[position : position + len(expected)]
            assert all(word["kind"] == SPIKE and word["timestep"] == t and word["value"] == 0 for word in words)
            assert {word["index"] for word in words} == expected
            position += len(expected)
        for neuron in range(network.n_outputs):
            value = int(trace.values[sample, neuron])
            assert observed.words[position] == {"kind": VALUE, "timestep": 0, "index": neuron, "value": value}
            position += 1
        decision = int(trace.decisions[sample])
        made = 0 if not choices.exits else int(trace.exits[sample])
        assert observed.words[position] == {"kind": DECISION, "timestep": made, "index": decision, "value": 0}
        assert observed.last[position] and sum(observed.last[: position + 1]) == sample + 1
        position += 1
        compared += network.n_outputs + 1
        assert observed.saturations[sample] >= int(trace.saturations[: sample + 1].sum())
    assert position == len(observed.words)
    if counts.all():
        assert observed.saturations[-1] == int(trace.saturations.sum())
    if choices.exits:
        early, steps = np.cumsum(trace.exits < timesteps - 1), np.cumsum(trace.exits + 1)
        assert observed.counters == list(zip(observed.latencies, early.tolist(), steps.tolist(), strict=True))
    return compared
