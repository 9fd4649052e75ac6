# amaranth: UnusedElaboratable=no

"""One lane's memory and datapath against the golden arithmetic, with hazards in every distance."""

import numpy as np
import pytest
from random_networks import random_layer
from stream_benches import clocked

from codesign.contract import golden
from codesign.contract.network import FrozenLayer, FrozenNetwork, InputCoding
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from codesign.machine.plan import Widths, plan_machine
from rtl_templates.neurons import NeuronBank


def run_bank(layer: FrozenLayer, source_max: int, is_current: bool, seed: int, timesteps: int = 4, pipeline="deep"):
    """Random synapse streams (many hits of the same slot) through one lane; compares spikes and membranes."""
    rng = np.random.default_rng(seed)
    coding = InputCoding("current", source_max.bit_length()) if is_current else InputCoding("events")
    network = FrozenNetwork((layer,), timesteps, coding)
    (plan,) = plan_machine(network, map_network(network, [1], None, Choices(pipeline=pipeline))).engines
    placement, widths = plan.placement, plan.widths
    dut = NeuronBank(plan, 0)
    sources = [
        rng.permutation(layer.n_in)[: rng.integers(0, layer.n_in + 1)] for _ in range(1 if is_current else timesteps)
    ]
    values = rng.integers(0, source_max + 1, layer.n_in) if is_current else np.ones(layer.n_in, np.int64)
    dense = layer.dense()
    sums = np.stack([(dense[chosen] * values[chosen, None]).sum(axis=0) for chosen in sources])
    if is_current:
        sums = np.repeat(sums, timesteps, axis=0)
    expected = golden.lif_steps(layer, sums[None])
    spikes, membranes, saturations = expected.spikes, expected.membranes, expected.saturations
    got_spikes, got_membranes, got_currents, clips = [], [], [], 0

    async def bench(ctx):
        nonlocal clips

        def steps(clear: bool):
            found = [("read", 0, True), ("clear", 2, clear), ("write", dut.stages, True)]
            return found + ([("parameter", dut.parameter_clock, True)] if placement.parameter_record.fields else [])

        async def sweep(initial: bool, clear: bool, show: bool):
            nonlocal clips
            for clock in range(layer.n_out + dut.stages):
                for name, stage, enable in steps(clear):
                    slot = clock - stage
                    on = enable and 0 <= slot < layer.n_out
                    ctx.set(getattr(dut, f"{name}_valid"), on)
                    ctx.set(getattr(dut, f"{name}_slot"), slot if on else 0)
                ctx.set(dut.write_initial, initial)
                if show and 0 <= clock - dut.fire < layer.n_out:
                    got_spikes.append(ctx.get(dut.spike))
                    got_membranes.append(ctx.get(dut.membrane))
                    if layer.has_current:
                        got_currents.append(ctx.get(dut.current))
                    clips += ctx.get(dut.saturated)
                # In the clock that writes the last slot the next synapse may read already.
                if clock < layer.n_out + dut.stages - 1:
                    await ctx.tick()

        async def tick():
            await ctx.tick()
            ctx.set(dut.write_valid, 0)

        async def accumulate(chosen):
            # Ordered by target: the same slot comes in runs, so that every forwarding distance is met.
            synapses = [
                (j, int(dense[i, j]), int(values[i])) for j in range(layer.n_out) for i in chosen if dense[i, j]
            ]
            if seed % 2:
                synapses = [synapses[k] for k in rng.permutation(len(synapses))]
            for slot, weight, value in synapses:
                while rng.random() < 0.3:
                    await tick()
                ctx.set(dut.synapse, {"slot": slot, "weight": weight})
                ctx.set(dut.value, value if widths.value else 0)
                ctx.set(dut.synapse_valid, 1)
                await tick()
                ctx.set(dut.synapse_valid, 0)
            # The first clock in which the sweep may read: what was added last is written in it.
            await tick()

        await sweep(True, True, False)
        for t in range(timesteps):
            if not is_current or t == 0:
                await accumulate(sources[0 if is_current else t])
            else:
                await tick()
            await sweep(t == timesteps - 1, t == timesteps - 1, True)

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()
    np.testing.assert_array_equal(np.reshape(got_spikes, (timesteps, -1)), spikes[0], f"seed {seed}")
    np.testing.assert_array_equal(np.reshape(got_membranes, (timesteps, -1)), membranes[0], f"seed {seed}")
    np.testing.assert_array_equal(np.reshape(got_currents, (timesteps, -1)), expected.currents[0], f"seed {seed}")
    assert clips == int(saturations.sum())
    return clips


@pytest.mark.parametrize("is_current", [False, True])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("pipeline", ["deep", "short"])
def test_bank_equals_the_golden_arithmetic(seed, is_current, pipeline):
    rng = np.random.default_rng(seed)
    source_max = (1 << int(rng.integers(1, 9))) - 1 if is_current else 1
    n_in, n_out = int(rng.integers(2, 12)), int(rng.choice([1, 2, 3, 8]))
    layer = random_layer(rng, n_in, n_out, source_max=source_max, timesteps=4, membrane_readout=False)
    run_bank(layer, source_max, is_current, seed, pipeline=pipeline)


def test_widths_are_those_of_the_worst_sums():
    layer = FrozenLayer.from_dense(np.full((100, 1), 127), fraction_bits=2, membrane_width=8)
    events = Widths.of_layer(layer, 1, has_sum=False)
    # 100 * 127 * 4 + 127 = 50927 needs 17 signed bits.
    assert events.potential == events.state == 17
    current = Widths.of_layer(layer, 255, has_sum=True)
    assert (current.sum, current.state) == (23, 8)


def test_a_lane_that_is_not_there_is_refused():
    network = FrozenNetwork.from_arrays([np.ones((2, 2), int)], threshold=1, timesteps=1)
    (plan,) = plan_machine(network, map_network(network, [2])).engines
    with pytest.raises(ValueError, match=r"lane 2 is outside 0\.\.1"):
        NeuronBank(plan, 2)
