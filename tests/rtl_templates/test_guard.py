# amaranth: UnusedElaboratable=no

"""Whatever comes in, every sample has its ends; each rule of the docstring against a model in Python."""

import numpy as np
import pytest
from amaranth.hdl import Value
from guard_model import guarded
from stream_benches import clocked, drive, record, watch_stability

from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.machine.layouts import END, EVENT, input_word
from rtl_templates import guard
from rtl_templates.guard import InputGuard


def network_of(n_inputs, timesteps=3, bits=0):
    return FrozenNetwork.from_arrays(
        [np.ones((n_inputs, 1), int)],
        threshold=1,
        timesteps=timesteps,
        membrane_width=32,
        coding=InputCoding("current", bits) if bits else InputCoding("events"),
    )


def run(network, words, seed=0, gap=0.2, stall=0.3):
    dut = InputGuard(network)
    n_ends = 1 if network.coding.is_current else network.timesteps
    expected, errors, samples = guarded(words, network.n_inputs, n_ends, network.coding.is_current)
    layout = input_word(network)
    names = [field.name for field in layout]
    packed = [
        int(layout.pack(dict(zip(names, (source, extra), strict=True)))[0]) | (int(last) << layout.width)
        for source, extra, last in words
    ]
    got, problems, finished = [], [], []

    async def count(ctx):
        async for _, _, pulse in ctx.tick().sample(dut.finished):
            finished.append(pulse)

    async def status(ctx):
        await ctx.tick().repeat(20 * len(words) + 100)
        assert len(got) == len(expected)
        assert ctx.get(dut.protocol_error) == errors
        assert not ctx.get(dut.o.valid)

    simulator = clocked(dut)
    simulator.add_testbench(drive(dut.i, packed, np.random.default_rng(seed), gap))
    simulator.add_testbench(record(dut.o, got, len(expected), np.random.default_rng(seed + 1), stall))
    simulator.add_testbench(watch_stability(dut.o, problems), background=True)
    simulator.add_testbench(count, background=True)
    simulator.add_testbench(status)
    simulator.run()
    source_bits = input_word(network).fields[0].width
    tokens = [
        ("end",) if word & 1 else ("event", (word >> 1) & ((1 << source_bits) - 1), word >> (1 + source_bits))
        for word in got
    ]
    assert tokens == expected, f"seed {seed}"
    assert sum(finished) == samples and not problems
    return errors


EVENT_CASES = {
    "clean": ([(0, EVENT, 0), (5, EVENT, 0), (0, END, 0), (0, END, 0), (4, EVENT, 0), (0, END, 1)], 0),
    "duplicate": ([(3, EVENT, 0), (3, EVENT, 0), (0, END, 0), (3, EVENT, 0), (0, END, 0), (0, END, 1)], 1),
    "out of range": ([(6, EVENT, 0), (7, EVENT, 0), (0, END, 0), (0, END, 0), (0, END, 1)], 2),
    "tlast on the first end": ([(1, EVENT, 0), (0, END, 1), (1, EVENT, 0), (0, END, 0), (0, END, 0), (0, END, 1)], 4),
    "tlast on an event": ([(0, END, 0), (2, EVENT, 1), (0, END, 0), (0, END, 0), (0, END, 1)], 4),
    "tlast on a duplicate": ([(2, EVENT, 0), (2, EVENT, 1), (2, EVENT, 0), (0, END, 0), (0, END, 0), (0, END, 1)], 5),
    "tlast on an event out of range": ([(7, EVENT, 1), (0, END, 0), (0, END, 0), (0, END, 1)], 6),
    "no tlast": (
        [(0, END, 0), (0, END, 0), (0, END, 0), (9 % 8, EVENT, 0), (0, END, 1), (1, EVENT, 0), (0, END, 1)],
        8 | 4,
    ),
}


@pytest.mark.parametrize("name", EVENT_CASES)
def test_event_rules(name):
    words, errors = EVENT_CASES[name]
    for seed in range(3):
        assert run(network_of(6), words, seed) == errors


CURRENT_CASES = {
    "clean": ([(0, 3, 0), (5, 1, 1), (5, 2, 1)], 0),
    "duplicate, the first of value 0": ([(2, 0, 0), (2, 3, 0), (1, 1, 1), (2, 2, 1)], 1),
    "out of range": ([(7, 3, 0), (6, 1, 1), (0, 2, 1)], 2),
    "all zero": ([(4, 0, 1), (4, 0, 1)], 0),
}


@pytest.mark.parametrize("name", CURRENT_CASES)
def test_current_rules(name):
    words, errors = CURRENT_CASES[name]
    for seed in range(3):
        assert run(network_of(6, bits=2), words, seed) == errors


@pytest.mark.parametrize("n_inputs", [1, 2, 5, 16, 70])
@pytest.mark.parametrize("bits", [0, 3])
def test_random_words_are_tamed(n_inputs, bits):
    """Sources, kinds and tlast at random: mostly violations."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        network = network_of(n_inputs, timesteps=int(rng.integers(1, 4)), bits=bits)
        width = input_word(network).fields[0].width
        few = max(1, min(1 << width, int(rng.choice([2, 4, 1 << width]))))
        words = [
            (int(rng.integers(0, few)), int(rng.integers(0, 1 << max(1, bits))), int(rng.random() < 0.25))
            for _ in range(80)
        ]
        words.append((0, END if not bits else 0, 1))
        run(network, words, seed, gap=float(rng.choice([0, 0.5])), stall=float(rng.choice([0, 0.5])))


@pytest.mark.parametrize("age_bits", [1, 2, 8])
@pytest.mark.parametrize("bits", [0, 2])
def test_nothing_is_remembered_when_the_ages_begin_again(age_bits, bits, monkeypatch):
    """Sources seen many ends ago are not duplicates; those seen in the same timestep are."""
    monkeypatch.setattr(guard, "AGE_BITS", age_bits)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        network = network_of(int(rng.integers(1, 6)), timesteps=int(rng.integers(1, 4)), bits=bits)
        words = []
        while sum(last for _, _, last in words) < (300 if age_bits == 8 else 40):
            kind = END if not bits and rng.random() < 0.5 else 0
            last = rng.random() < (0.3 if bits or kind == END else 0.1)
            words.append((int(rng.integers(0, network.n_inputs + (rng.random() < 0.1))), kind, int(last)))
        run(network, words, seed, gap=float(rng.choice([0, 0.5])), stall=float(rng.choice([0, 0.5])))


def test_a_clean_stream_passes_a_word_a_clock():
    network = network_of(784, timesteps=2)
    record_ = input_word(network)
    words = [int(w) for w in record_.pack({"source": np.arange(300), "kind": EVENT})]
    dut = InputGuard(network)
    got = []

    async def bench(ctx):
        # The memory is cleared first, a source a clock.
        await ctx.tick().repeat(784)
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for word in words:
            ctx.set(dut.i.payload.word, {"source": word & 1023, "kind": word >> 10})
            _, _, ready, valid = await ctx.tick().sample(dut.i.ready, dut.o.valid)
            assert ready
            got.append(valid)

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert sum(got) == len(words) - 2


def test_an_event_that_is_dropped_goes_for_a_clock_before_the_ends_that_its_sample_lacks():
    """An event with ``tlast`` (an error) waits and is dropped: the end after it is another word, for every reader."""
    network = network_of(2, timesteps=1)
    dut = InputGuard(network, can_drop=True)
    layout = input_word(network)
    word = int(layout.pack(dict(zip([field.name for field in layout], (1, EVENT), strict=True)))[0])
    seen = []

    async def bench(ctx):
        async def clock():
            seen.append((ctx.get(dut.o.valid), ctx.get(dut.o.payload.end)))
            await ctx.tick()

        await ctx.tick().until(dut.i.ready)
        ctx.set(Value.cast(dut.i.payload), word | 1 << layout.width)
        ctx.set(dut.i.valid, 1)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        while not ctx.get(dut.o.valid):
            await ctx.tick()
        await clock()
        ctx.set(dut.drop, 1)
        await clock()
        await clock()
        ctx.set(dut.o.ready, 1)
        await clock()
        await clock()

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [(1, 0), (0, 0), (1, 1), (1, 1), (0, 0)]
