# amaranth: UnusedElaboratable=no

"""Forks give every word to every reader; merges lose nothing and keep timesteps apart."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.lib import data
from random_structures import random_covered
from stream_benches import clocked, drive, record, watch_stability

from codesign.contract.early_exit import EarlyExit, early_exit_problem
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from rtl_templates.accelerator import Accelerator
from rtl_templates.bundle import emit_verilog
from rtl_templates.streams import EventMerge, StreamFork

EVENT = data.StructLayout({"end": 1, "source": 6})
END = 1


def event(source: int) -> int:
    return source << 1


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_every_reader_of_a_fork_gets_every_word_in_order(readers: int, stall: float) -> None:
    words = np.random.default_rng(readers).integers(0, 128, 60).tolist()
    dut = StreamFork(EVENT, readers)
    got: list[list[int]] = [[] for _ in range(readers)]
    problems: list[str] = []
    simulator = clocked(dut)
    simulator.add_testbench(drive(dut.i, words, np.random.default_rng(1), 0.3))
    for number, output in enumerate(dut.outputs):
        simulator.add_testbench(record(output, got[number], len(words), np.random.default_rng(2 + number), stall))
        simulator.add_testbench(watch_stability(output, problems), background=True)
    simulator.run()
    assert got == [words] * readers
    assert not problems


def test_a_withdrawn_word_leaves_the_next_one_for_every_reader() -> None:
    """One reader has taken a word that is withdrawn: the word after it is not taken for the one that it has."""
    dut = StreamFork(EVENT, 2, withdraws=True)
    got: list[list[int]] = [[], []]

    async def source(context: Any) -> None:
        async def offer(word: int, valid: int, ready: tuple[int, int]) -> None:
            context.set(Value.cast(dut.i.payload), word)
            context.set(dut.i.valid, valid)
            for number, output in enumerate(dut.outputs):
                context.set(output.ready, ready[number])
                if valid and ready[number] and context.get(output.valid):
                    got[number].append(context.get(Value.cast(output.payload)))
            await context.tick()

        await offer(event(5), 1, (1, 0))
        await offer(event(5), 0, (1, 0))
        await offer(END, 1, (1, 1))
        await offer(0, 0, (1, 1))

    simulator = clocked(dut)
    simulator.add_testbench(source)
    simulator.run()
    assert got == [[event(5), END], [END]]


def streams_of(rng: np.random.Generator, delayed: list[bool], timesteps: int, samples: int) -> list[list[list[int]]]:
    """Events of each sender in each timestep of all samples; a delayed one has none in a sample's first."""
    return [
        [
            [] if late and step % timesteps == 0 else rng.integers(0, 64, int(rng.integers(0, 5))).tolist()
            for step in range(samples * timesteps)
        ]
        for late in delayed
    ]


@pytest.mark.parametrize("timesteps", [1, 2, 5])
@pytest.mark.parametrize("delayed", [[False, False], [False, True], [True, False, False], [False, True, True]])
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_a_merge_keeps_every_event_in_its_timestep(timesteps: int, delayed: list[bool], stall: float) -> None:
    rng = np.random.default_rng(timesteps)
    sent = streams_of(rng, delayed, timesteps, 4)
    dut = EventMerge(EVENT, delayed, timesteps)
    simulator = clocked(dut)
    for number, (sender, steps) in enumerate(zip(dut.inputs, sent)):
        words = []
        for step, sources in enumerate(steps):
            words += [event(source) for source in sources]
            if not (delayed[number] and step % timesteps == 0):
                words.append(END)
        # Senders of different speed, one of them far ahead.
        simulator.add_testbench(drive(sender, words, np.random.default_rng(number), 0.7 * number / len(sent)))
    count = sum(len(sources) for steps in sent for sources in steps) + 4 * timesteps
    got: list[int] = []
    problems: list[str] = []
    simulator.add_testbench(record(dut.o, got, count, np.random.default_rng(9), stall))
    simulator.add_testbench(watch_stability(dut.o, problems), background=True)
    simulator.run()
    assert not problems
    step, found = 0, Counter[int]()
    for word in got:
        if word & 1:
            assert found == Counter(source for steps in sent for source in steps[step]), f"timestep {step}"
            step, found = step + 1, Counter()
        else:
            found[word >> 1] += 1
    assert step == 4 * timesteps


def test_one_sender_s_events_pass_a_merge_without_a_bubble() -> None:
    dut = EventMerge(EVENT, [False, False], 1)
    simulator = clocked(dut)
    got: list[int] = []
    simulator.add_testbench(drive(dut.inputs[0], [event(k) for k in range(20)] + [END]))
    simulator.add_testbench(record(dut.o, got, 20))
    clocks = [0]

    async def count(ctx) -> None:
        async for _ in ctx.tick():
            clocks[0] += len(got) < 20

    simulator.add_testbench(count, background=True)
    simulator.run()
    assert got == [event(k) for k in range(20)] and clocks[0] <= 24


def test_words_are_held_exactly_where_a_fork_may_have_given_them_to_one_reader() -> None:
    """The plan counts readers; the accelerator and the clock model lay out forks."""
    held = set()
    for seed in range(14):
        rng = np.random.default_rng(seed)
        network = random_covered(rng, side=5, channels=3)
        rule: EarlyExit = "certain" if network.readout == "spike_count" else 1
        if early_exit_problem(network.readout, rule) is not None or network.n_outputs == 1:
            continue
        choices = Choices(early_exit=rule, spike_fifos=bool(seed % 4 == 0), event_streams=1 + seed % 2)
        plan = plan_machine(network, map_network(network, [2] * len(network.layers), None, choices))
        verilog = emit_verilog(Accelerator(plan), "snn")
        for index, engine in enumerate(plan.engines):
            forks = re.search(rf"\b(fork_{index}(_\d)?|serializer{index}_fork)\b", verilog) is not None
            assert engine.holds == (forks and not engine.fifo_depth), f"seed {seed}, engine {index}"
            held.add((engine.holds, forks))
    assert held == {(False, False), (False, True), (True, True)}
