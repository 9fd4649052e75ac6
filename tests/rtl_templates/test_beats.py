# amaranth: UnusedElaboratable=no

import numpy as np
import pytest
from stream_benches import clocked, drive, record, watch_stability

from rtl_templates.beats import BeatSplitter


def test_words_leave_in_order_and_the_last_one_says_so():
    words, width = 4, 16
    rng = np.random.default_rng(1)
    dut = BeatSplitter(words, width)
    beats, expected = [], []
    for _ in range(200):
        values = [int(value) for value in rng.integers(0, 1 << width, words)]
        count, last = int(rng.integers(1, words + 1)), int(rng.integers(2))
        # The first word counts whatever its bytes' tkeep; a word behind one that does not count does not count either.
        keep = [int(rng.integers(2)), *(int(k < count) for k in range(1, words))]
        if count + 1 < words:
            keep[count + 1] = int(rng.integers(2))
        bits = sum(value << (width * k) for k, value in enumerate(values))
        bits |= sum((3 * kept) << (words * width + 2 * k) for k, kept in enumerate(keep))
        beats.append(bits | last << (words * (width + 2)))
        expected += [value | (last and k == count - 1) << width for k, value in enumerate(values[:count])]
    for gap, stall in ((0.0, 0.0), (0.4, 0.4)):
        dut = BeatSplitter(words, width)
        got, problems = [], []
        simulator = clocked(dut)
        simulator.add_testbench(drive(dut.i, beats, np.random.default_rng(2), gap))
        simulator.add_testbench(record(dut.o, got, len(expected), np.random.default_rng(3), stall))
        simulator.add_testbench(watch_stability(dut.o, problems), background=True)
        simulator.run()
        assert got == expected
        assert not problems


def test_full_beats_leave_a_word_a_clock():
    dut = BeatSplitter(2, 8)
    seen = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload.keep, 3)
        for _ in range(21):
            _, _, valid = await ctx.tick().sample(dut.o.valid)
            seen.append(valid)

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [0] + [1] * 20


@pytest.mark.parametrize(("words", "width", "message"), [(1, 8, "words 1"), (2, 12, "width 12")])
def test_wrong_arguments_are_named(words, width, message):
    with pytest.raises(ValueError, match=message):
        BeatSplitter(words, width)
