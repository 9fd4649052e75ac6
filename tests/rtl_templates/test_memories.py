# amaranth: UnusedElaboratable=no

import numpy as np
import pytest
from stream_benches import clocked, drive, record, watch_stability

from rtl_templates.memories import Rom, StreamFifo


@pytest.mark.parametrize("depth", [1, 2, 3, 16])
def test_rom_answers_a_clock_later_and_holds(depth):
    words = [(7 * i + 3) % 32 for i in range(depth)]
    dut = Rom(5, words, "images/x.mem")

    async def bench(ctx):
        for address in range(depth):
            ctx.set(dut.addr, address)
            ctx.set(dut.en, 1)
            await ctx.tick()
            assert ctx.get(dut.data) == words[address]
            ctx.set(dut.en, 0)
            ctx.set(dut.addr, 0)
            await ctx.tick()
            assert ctx.get(dut.data) == words[address]

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_an_empty_rom_is_refused():
    with pytest.raises(ValueError, match=r"words \[\] of images/x.mem must hold at least one word"):
        Rom(5, [], "images/x.mem")


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.6, 0.0), (0.0, 0.7), (0.5, 0.5)])
def test_fifo_keeps_order_under_any_gaps_and_backpressure(depth, gap, stall):
    rng = np.random.default_rng(depth)
    dut = StreamFifo(8, depth)
    words, got, problems = rng.integers(0, 256, 100).tolist(), [], []
    simulator = clocked(dut)
    simulator.add_testbench(drive(dut.i, words, rng, gap))
    simulator.add_testbench(record(dut.o, got, len(words), np.random.default_rng(9), stall))
    simulator.add_testbench(watch_stability(dut.o, problems), background=True)
    simulator.run()
    assert got == words and not problems


def test_fifo_passes_a_word_a_clock():
    dut = StreamFifo(8, 4)
    got = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for value in range(40):
            ctx.set(dut.i.payload, value)
            _, _, ready, valid, payload = await ctx.tick().sample(dut.i.ready, dut.o.valid, dut.o.payload)
            assert ready
            if valid:
                got.append(payload)

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert got == list(range(38))


@pytest.mark.parametrize("depth", [1, 3])
def test_a_fifo_depth_that_is_no_power_of_two_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth {depth} must be a power of two, 2 or more"):
        StreamFifo(8, depth)
