# amaranth: UnusedElaboratable=no

"""Beats to streams of events: every word in its stream, none past an end; the rules of the guard against its model."""

import numpy as np
import pytest
from guard_model import guarded
from stream_benches import clocked, drive, record, watch_stability

from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.machine.layouts import END, EVENT, input_word
from codesign.machine.pictures import low_bits
from rtl_templates import guard
from rtl_templates.parallel_guard import ParallelGuard


def network_of(n_inputs, timesteps=3, bits=0):
    return FrozenNetwork.from_arrays(
        [np.ones((n_inputs, 1), int)],
        threshold=1,
        timesteps=timesteps,
        membrane_width=32,
        coding=InputCoding("current", bits) if bits else InputCoding("events"),
    )


def beats_of(words, most, rng):
    """Words in beats of ``most`` at most; tlast ends a beat."""
    found, beat = [], []
    for word in words:
        beat.append(word)
        if word[-1] or len(beat) == most or rng.random() < 0.2:
            found.append(beat)
            beat = []
    return [*found, beat] if beat else found


def run(network, words, streams, most, seed=0, gap=0.2, stall=0.3, checks=True):
    rng = np.random.default_rng(seed)
    record_ = input_word(network)
    width = record_.stream_width
    dut = ParallelGuard(network, most, width, streams, checks=checks)
    n_ends = 1 if network.coding.is_current else network.timesteps
    tokens, errors, samples = guarded(words, network.n_inputs, n_ends, network.coding.is_current)
    names = [field.name for field in record_]
    packed = []
    for beat in beats_of(words, most, rng):
        value = 0
        for place, (source, extra, _) in enumerate(beat):
            value |= int(record_.pack(dict(zip(names, (source, extra), strict=True)))[0]) << (place * width)
            value |= ((1 << (width // 8)) - 1) << (most * width + place * width // 8)
        packed.append(value | int(beat[-1][-1]) << (most * width + most * width // 8))
    wanted = [
        [token for token in tokens if token[0] == "end" or token[1] % streams == number] for number in range(streams)
    ]
    got, problems, finished = [[] for _ in range(streams)], [], []

    async def count(ctx):
        async for _, _, pulse in ctx.tick().sample(dut.finished):
            finished.append(pulse)

    async def status(ctx):
        await ctx.tick().repeat(20 * len(words) + 100)
        assert [len(part) for part in got] == [len(part) for part in wanted]
        assert ctx.get(dut.protocol_error) == (errors if checks else 0)
        assert not any(ctx.get(output.valid) for output in dut.outputs)

    simulator = clocked(dut)
    simulator.add_testbench(drive(dut.i, packed, rng, gap))
    for number, (part, output) in enumerate(zip(got, dut.outputs, strict=True)):
        taking = np.random.default_rng([seed, number])
        simulator.add_testbench(record(output, part, len(wanted[number]), taking, stall))
        simulator.add_testbench(watch_stability(output, problems), background=True)
    simulator.add_testbench(count, background=True)
    simulator.add_testbench(status)
    simulator.run()
    bits = dut.outputs[0].payload.shape()["source"].width
    for number, part in enumerate(got):
        found = [
            ("end",)
            if word & 1
            else ("event", ((word >> 1) & ((1 << bits) - 1)) * streams + number, word >> (1 + bits))
            for word in part
        ]
        # Of several words of one beat that a stream takes, the first goes first.
        assert found == wanted[number], f"seed {seed}, stream {number}"
    assert sum(finished) == samples and not problems
    return errors


CASES = {
    "clean": ([(0, EVENT, 0), (5, EVENT, 0), (0, END, 0), (0, END, 0), (4, EVENT, 0), (0, END, 1)], 0),
    "duplicate": ([(3, EVENT, 0), (3, EVENT, 0), (0, END, 0), (3, EVENT, 0), (0, END, 0), (0, END, 1)], 1),
    "out of range": ([(6, EVENT, 0), (7, EVENT, 0), (0, END, 0), (0, END, 0), (0, END, 1)], 2),
    "tlast on the first end": ([(1, EVENT, 0), (0, END, 1), (1, EVENT, 0), (0, END, 0), (0, END, 0), (0, END, 1)], 4),
    "tlast on an event": ([(0, END, 0), (2, EVENT, 1), (0, END, 0), (0, END, 0), (0, END, 1)], 4),
    "no tlast": (
        [(0, END, 0), (0, END, 0), (0, END, 0), (9 % 8, EVENT, 0), (0, END, 1), (1, EVENT, 0), (0, END, 1)],
        8 | 4,
    ),
}


@pytest.mark.parametrize("streams", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_event_rules(name, streams):
    words, errors = CASES[name]
    for seed, most in enumerate((1, 2, 4)):
        assert run(network_of(6), words, streams, most, seed) == errors


@pytest.mark.parametrize("n_inputs", [1, 2, 5, 16, 70])
@pytest.mark.parametrize("bits", [0, 3])
def test_random_words_are_tamed(n_inputs, bits):
    """Sources, kinds and tlast at random: mostly violations."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        network = network_of(n_inputs, timesteps=int(rng.integers(1, 4)), bits=bits)
        width = input_word(network).fields[0].width
        few = max(1, min(1 << width, int(rng.choice([2, 4, 1 << width]))))
        words = [
            (int(rng.integers(0, few)), int(rng.integers(0, 1 << max(1, bits))), int(rng.random() < 0.25))
            for _ in range(80)
        ]
        words.append((0, END if not bits else 0, 1))
        streams, most = (2, 4)[seed % 2], int(rng.integers(1, 9))
        run(network, words, streams, most, seed, gap=float(rng.choice([0, 0.5])), stall=float(rng.choice([0, 0.5])))


@pytest.mark.parametrize("bits", [0, 2])
def test_nothing_is_remembered_when_the_ages_begin_again(bits, monkeypatch):
    monkeypatch.setattr(guard, "AGE_BITS", 2)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        network = network_of(int(rng.integers(1, 9)), timesteps=int(rng.integers(1, 4)), bits=bits)
        words = []
        while sum(last for _, _, last in words) < 20:
            kind = END if not bits and rng.random() < 0.5 else 0
            last = rng.random() < (0.3 if bits or kind == END else 0.1)
            words.append((int(rng.integers(0, network.n_inputs)), kind, int(last)))
        run(network, words, 2, 4, seed, gap=float(rng.choice([0, 0.5])), stall=float(rng.choice([0, 0.5])))


@pytest.mark.parametrize("bits", [0, 2])
def test_without_checks_what_keeps_the_rules_passes(bits):
    rng = np.random.default_rng(4)
    network = network_of(13, timesteps=3, bits=bits)
    words = []
    for _ in range(6):
        for timestep in range(1 if bits else 3):
            sources = rng.permutation(13)[: int(rng.integers(1 if bits else 0, 9))].tolist()
            words += [(source, int(rng.integers(0, 1 << bits)) if bits else EVENT, 0) for source in sources]
            if not bits:
                words.append((0, END, int(timestep == 2)))
        words[-1] = (*words[-1][:2], 1)
    for streams, most in ((2, 1), (2, 4), (4, 3)):
        run(network, words, streams, most, seed=most, checks=False)


@pytest.mark.parametrize(("streams", "clocks"), [(2, 128), (4, 64)])
def test_a_beat_for_all_streams_is_taken_at_once(streams, clocks):
    network = network_of(784, timesteps=2)
    layout = input_word(network)
    dut = ParallelGuard(network, 4, layout.stream_width, streams)
    taken = []

    async def bench(ctx):
        await ctx.tick().repeat(800 // streams)
        for output in dut.outputs:
            ctx.set(output.ready, 1)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload.keep, (1 << len(dut.i.payload.keep)) - 1)
        for first in range(0, 256, 4):
            for place in range(4):
                ctx.set(dut.i.payload.words[place], first + place)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def count(ctx):
        async for _, _, *valid in ctx.tick().sample(*(output.valid for output in dut.outputs)):
            taken.append(sum(valid))

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.add_testbench(count, background=True)
    simulator.run_until(900e-6)
    busy = np.flatnonzero(taken)
    assert sum(taken) == 256 and busy[-1] - busy[0] + 1 == clocks


def test_events_of_a_picture_go_by_their_channel():
    shape = (6, 2, 3)
    network = FrozenNetwork.from_arrays([np.ones((36, 1), int)], threshold=1, timesteps=1)
    dut = ParallelGuard(network, 1, 8, 4, picture=shape)
    assert low_bits(shape) == 3
    # Channel 5, y 1, x 2: the second channel of stream 1.
    word, got = (5 << 3) | (1 << 2) | 2, []

    async def bench(ctx):
        await ctx.tick().repeat(40)
        ctx.set(dut.i.payload.words[0], word)
        ctx.set(dut.i.payload.keep, 1)
        ctx.set(dut.i.valid, 1)
        await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.add_testbench(record(dut.outputs[1], got, 1))
    simulator.run_until(200e-6)
    assert got == [((1 << 3) | (1 << 2) | 2) << 1]
