# amaranth: UnusedElaboratable=no

"""A collector sends every source that fired once a sample, with its timesteps, and keeps samples apart."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.lib import data
from stream_benches import clocked, drive, record, watch_stability

from codesign.machine.plan import MASK_WORD_BITS, CollectorPlan
from rtl_templates.collector import EventCollector

Samples = list[list[list[int]]]


def random_samples(rng: np.random.Generator, span: int, timesteps: int, count: int) -> Samples:
    """Sources that fire in each timestep of each sample, in any order, each at most once in a timestep."""
    found: Samples = []
    for _ in range(count):
        rate = rng.choice([0.0, 0.1, 0.5, 1.0], p=[0.15, 0.35, 0.35, 0.15])
        found.append([rng.permutation(np.flatnonzero(rng.random(span) < rate)).tolist() for _ in range(timesteps)])
    return found


def words_in(samples: Samples) -> list[int]:
    """As of event_layout: end in bit 0, then the source."""
    return [word for steps in samples for step in steps for word in [*(source << 1 for source in step), 1]]


def masks(steps: list[list[int]], span: int) -> list[int]:
    return [sum(1 << t for t, step in enumerate(steps) if source in step) for source in range(span)]


def sent(dut: EventCollector, words: list[int]) -> list[list[tuple[int, int]]]:
    """Source and mask of each event, sample by sample."""
    layout: data.StructLayout = dut.o.payload.shape()
    found: list[list[tuple[int, int]]] = [[]]
    for word in words:
        fields = {name: word >> field.offset & (1 << field.width) - 1 for name, field in layout}
        if fields["end"]:
            found.append([])
        else:
            found[-1].append((fields["source"], fields["value"]))
    assert not found.pop()
    return found


def run(
    plan: CollectorPlan, samples: Samples, *, gap: float = 0.0, stall: float = 0.0, last_timestep: int | None = None
) -> tuple[list[list[tuple[int, int]]], int]:
    """What leaves, and in how many clocks all has left."""
    dut = EventCollector(plan, is_free=last_timestep is not None)
    count = sum(sum(mask > 0 for mask in masks(steps, plan.span)) + 1 for steps in samples)
    got: list[int] = []
    problems: list[str] = []
    clocks = [0]

    async def ticks(ctx) -> None:
        if last_timestep is not None:
            ctx.set(dut.last_timestep, last_timestep)
        async for _ in ctx.tick():
            clocks[0] += len(got) < count

    simulator = clocked(dut)
    simulator.add_testbench(drive(dut.i, words_in(samples), np.random.default_rng(1) if gap else None, gap))
    simulator.add_testbench(record(dut.o, got, count, np.random.default_rng(2), stall))
    simulator.add_testbench(watch_stability(dut.o, problems), background=True)
    simulator.add_testbench(ticks, background=True)
    simulator.run()
    assert not problems
    return sent(dut, got), clocks[0]


@pytest.mark.parametrize(("span", "timesteps"), [(1, 3), (2, 1), (7, 4), (20, 5), (6, 33)])
@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.7)])
def test_every_source_leaves_once_with_its_timesteps_in_order_of_addresses(
    span: int, timesteps: int, gap: float, stall: float
) -> None:
    samples = random_samples(np.random.default_rng(span), span, timesteps, 5)
    found, _ = run(CollectorPlan(span, timesteps, 0), samples, gap=gap, stall=stall)
    expected = [[(source, mask) for source, mask in enumerate(masks(steps, span)) if mask] for steps in samples]
    assert found == expected


def test_a_loadable_machine_has_samples_of_fewer_timesteps() -> None:
    samples = random_samples(np.random.default_rng(3), 9, 2, 5)
    found, _ = run(CollectorPlan(9, 6, 0), samples, last_timestep=1)
    assert found == [[(source, mask) for source, mask in enumerate(masks(steps, 9)) if mask] for steps in samples]


def test_events_of_one_word_in_consecutive_clocks_are_all_kept() -> None:
    """Whatever word an event meets on its way, its own or one that is two clocks ahead."""
    plan = CollectorPlan(32, 4, 0)
    assert plan.group_bits == 3
    steps = [[0, 1, 2, 8, 3, 8 + 1, 4, 16, 5], [5, 0, 1], [8, 0, 9, 1], [2]]
    found, _ = run(plan, [steps])
    assert found == [[(source, mask) for source, mask in enumerate(masks(steps, 32)) if mask]]


def test_a_word_without_masks_takes_a_clock_and_so_does_an_event() -> None:
    plan = CollectorPlan(256, 4, 0)
    assert (plan.depth, plan.width) == (32, MASK_WORD_BITS)
    few, many = [[[3], [], [255], []]], [[list(range(64)), [255], [], []]]
    for samples, clocks in ((few, 2 + 30), (many, 65 + 23)):
        # Clearing, events and ends in, two on the way, and what is counted is all before the sample's end leaves.
        _, found = run(plan, samples)
        assert found == plan.depth + len(words_in(samples)) + 2 + clocks


def test_two_samples_are_taken_in_while_nothing_leaves() -> None:
    plan, samples = CollectorPlan(4, 2, 0), [[[0, 1], [2]], [[3], [3]]]
    dut = EventCollector(plan)

    async def send(ctx) -> None:
        await drive(dut.i, words_in(samples))(ctx)
        await ctx.tick().repeat(20)
        # Both banks are full, and a word of a third sample has to wait.
        assert not ctx.get(dut.i.ready)

    simulator = clocked(dut)
    simulator.add_testbench(send)
    simulator.run()
