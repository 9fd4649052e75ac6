# amaranth: UnusedElaboratable=no

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Value
from stream_benches import clocked

from codesign.contract.network import FrozenNetwork
from codesign.machine.encoding import PLAIN, Encoding
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from rtl_templates.fetcher import SynapseFetcher

ENCODINGS = [
    Encoding(),
    Encoding(2),
    Encoding(8, 1),
    Encoding(1, 2, tuple(range(1, 8))),
    Encoding(4, None, tuple(range(1, 8))),
    Encoding(1, 3),
]


def plan_of(density, depth=8, value_bits=0, n_in=24, n_out=20, lanes=3, seed=0, encoding=PLAIN, pipeline="deep"):
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 8, (n_in, n_out)) * (rng.random((n_in, n_out)) < density)
    network = FrozenNetwork.from_arrays([weights], threshold=1, timesteps=1)
    mapping = map_network(network, [lanes])
    layer = replace(mapping.layers[0], encoding=encoding, pipeline=pipeline)
    (plan,) = plan_machine(network, replace(mapping, layers=(layer,))).engines
    return replace(plan, queue_depth=depth, widths=replace(plan.widths, value=value_bits))


def row(layer, lane, source):
    start, count = int(layer.row_start[lane, source]), int(layer.row_count[lane, source])
    part = slice(start, start + count)
    return list(zip(layer.synapse_slot[lane][part].tolist(), layer.synapse_weight[lane][part].tolist(), strict=True))


@pytest.mark.parametrize("depth", [0, 2, 4, 8])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("pipeline", ["deep", "short"])
def test_rows_leave_in_order_and_stop_at_the_end(density, depth, encoding, pipeline):
    plan, lane = plan_of(density, depth, 3, encoding=encoding, pipeline=pipeline), 1
    layer, dut = plan.layers[0], SynapseFetcher(plan, lane)
    rng = np.random.default_rng(depth)
    sources = [rng.permutation(24)[: rng.integers(0, 20)].tolist() for _ in range(4)]
    values = {source: source % 8 for source in range(24)}
    seen = []

    async def feed(ctx):
        for events in sources:
            for end, source in [(0, source) for source in events] + [(1, 0)]:
                while not ctx.get(dut.room) or rng.random() < 0.2:
                    await ctx.tick()
                ctx.set(dut.broadcast, {"end": end, "source": source, "value": values[source]})
                ctx.set(dut.broadcast_valid, 1)
                await ctx.tick()
                ctx.set(dut.broadcast_valid, 0)

    async def watch(ctx):
        ctx.set(dut.go, 1)
        for events in sources:
            expected = [(*synapse, values[source]) for source in events for synapse in row(layer, lane, source)]
            got = []
            while not ctx.get(dut.waiting):
                if ctx.get(dut.synapse_valid):
                    got.append((ctx.get(dut.synapse.slot), ctx.get(dut.synapse.weight), ctx.get(dut.value)))
                await ctx.tick()
            for _ in range(3):
                assert ctx.get(dut.waiting) and not ctx.get(dut.synapse_valid)
                await ctx.tick()
            assert got == expected
            seen.append(len(got))
            ctx.set(dut.resume, 1)
            await ctx.tick()
            ctx.set(dut.resume, 0)

    simulator = clocked(dut)
    simulator.add_testbench(feed)
    simulator.add_testbench(watch)
    simulator.run()
    assert len(seen) == len(sources)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("pipeline", ["deep", "short"])
def test_no_bubble_between_rows(encoding, pipeline):
    plan = plan_of(0.4, encoding=encoding, pipeline=pipeline)
    layer = plan.layers[0]
    assert (layer.row_count[0] == 1).any() and (layer.row_count[0] > 2).any()
    dut = SynapseFetcher(plan, 0)
    valid = []

    async def feed(ctx):
        ctx.set(dut.go, 1)
        for source in range(24):
            await ctx.tick().until(dut.room) if not ctx.get(dut.room) else None
            ctx.set(Value.cast(dut.broadcast), source << 1)
            ctx.set(dut.broadcast_valid, 1)
            await ctx.tick()
            ctx.set(dut.broadcast_valid, 0)
        await ctx.tick().repeat(100)

    async def watch(ctx):
        async for _, _, bit in ctx.tick().sample(dut.synapse_valid):
            valid.append(bit)

    simulator = clocked(dut)
    simulator.add_testbench(feed)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    assert sum(valid) == int(layer.row_count[0].sum())
    first, last = valid.index(1), len(valid) - 1 - valid[::-1].index(1)
    # Rows of one synapse at the very start may run ahead of the look-up; afterwards the walker never waits.
    assert last - first + 1 - int(layer.row_lengths[0].sum()) <= 2


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="depth 1 must be 2 or more, or 0"):
        SynapseFetcher(plan_of(0.5, 1), 0)
    with pytest.raises(ValueError, match=r"lane 3 is outside 0\.\.2"):
        SynapseFetcher(plan_of(0.5, 4), 3)
