# amaranth: UnusedElaboratable=no

from dataclasses import replace

import numpy as np
import pytest
from stream_benches import clocked, drive, record, watch_stability

from codesign.machine.plan import SweepWord
from rtl_templates.serializer import SpikeSerializer


def layer_of(n_out, lanes):
    return SweepWord(lanes, -(-n_out // lanes))


def words_of(rng, layer, count, value_width):
    """(packed words, expected tokens): random masks, at least one lane or an end in each."""
    slot_bits = max(1, (layer.n_slots - 1).bit_length())
    packed, tokens = [], []
    for _ in range(count):
        slot, end = int(rng.integers(0, layer.n_slots)), int(rng.random() < 0.3)
        mask = int(rng.integers(0 if end else 1, 1 << layer.lanes))
        values = rng.integers(0, 1 << value_width, layer.lanes) if value_width else []
        word = end | slot << 1 | mask << (1 + slot_bits)
        for lane, value in enumerate(values):
            word |= int(value) << (1 + slot_bits + layer.lanes + lane * value_width)
        packed.append(word)
        for lane in range(layer.lanes):
            if mask >> lane & 1:
                tokens.append((0, slot << layer.lane_bits | lane, int(values[lane]) if value_width else 0))
        if end:
            tokens.append((1, None, None))
    return packed, tokens


@pytest.mark.parametrize("value_width", [0, 7])
@pytest.mark.parametrize(("n_out", "lanes"), [(1, 1), (3, 3), (5, 1), (17, 4), (32, 16), (40, 7)])
def test_events_leave_lowest_lane_first_and_the_end_last(n_out, lanes, value_width):
    layer = layer_of(n_out, lanes)
    rng = np.random.default_rng(n_out)
    words, tokens = words_of(rng, layer, 60, value_width)
    for gap, stall in ((0.0, 0.0), (0.5, 0.5)):
        dut = SpikeSerializer(replace(layer, value_width=value_width))
        got, problems = [], []
        simulator = clocked(dut)
        simulator.add_testbench(drive(dut.i, words, np.random.default_rng(1), gap))
        simulator.add_testbench(record(dut.o, got, len(tokens), np.random.default_rng(2), stall))
        simulator.add_testbench(watch_stability(dut.o, problems), background=True)
        simulator.run()
        source_bits = max(1, ((layer.n_slots << layer.lane_bits) - 1).bit_length())
        for word, (end, source, value) in zip(got, tokens, strict=True):
            assert word & 1 == end
            if not end:
                assert (word >> 1) & ((1 << source_bits) - 1) == source
                assert word >> (1 + source_bits) == value
        assert not problems


def test_no_bubble_between_words():
    layer = layer_of(32, 4)
    words, tokens = words_of(np.random.default_rng(0), layer, 50, 0)
    dut = SpikeSerializer(layer)
    valid = []

    async def watch(ctx):
        ctx.set(dut.o.ready, 1)
        while sum(valid) < len(tokens):
            _, _, bit = await ctx.tick().sample(dut.o.valid)
            valid.append(bit)

    simulator = clocked(dut)
    simulator.add_testbench(drive(dut.i, words))
    simulator.add_testbench(watch)
    simulator.run()
    assert len(valid) - valid.index(1) == len(tokens)
