"""Both schedules of time: which layers may have which, what each costs, what is chosen, what the plan has for it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from codesign.basics.errors import CodesignWarning, InputError, UnsupportedError
from codesign.config import hardware_config, parse_config
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, InputCoding, Leak, Projection, Synapses
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import activity, cycle_estimate, mean_activity, source_events, source_rates
from codesign.cost.mapping import map_hardware
from codesign.cost.schedules import Schedules, choose_schedules, schedule_costs
from codesign.machine.choices import Choices, problem
from codesign.machine.mapping import map_network
from codesign.machine.plan import MASK_WORD_BITS, CollectorPlan, plan_machine
from codesign.machine.schedules import as_chosen, layer_schedules, schedule_problem
from codesign.train.architecture import plan_layers

TIMESTEP, SAMPLE = "timestep", "sample"


def chain(sizes: tuple[int, ...] = (24, 16, 12, 5), timesteps: int = 4, coding: str = "events") -> FrozenNetwork:
    rng = np.random.default_rng(3)
    weights = [rng.integers(-9, 16, shape) * (rng.random(shape) < 0.5) for shape in pairwise(sizes)]
    return FrozenNetwork.from_arrays(
        weights,
        threshold=[20] * len(weights),
        timesteps=timesteps,
        leak=Leak("shift", 2),
        coding=InputCoding(coding, 4 if coding == "current" else 0),  # type: ignore[arg-type]
        membrane_width=12,
    )


def samples(network: FrozenNetwork, rate: float = 0.6, count: int = 12) -> Stimulus:
    rng = np.random.default_rng(4)
    if network.coding.is_current:
        labels = np.full(count, -1, np.int32)
        values = rng.integers(0, 16, (count, network.n_inputs)).astype(np.uint8)
        return Stimulus(network.n_inputs, network.timesteps, labels, values=values)
    return Stimulus.from_dense(rng.random((count, network.timesteps, network.n_inputs)) < rate)


def recurrent() -> FrozenNetwork:
    network = chain()
    own = Projection(1, Synapses.from_dense(np.ones((12, 12), np.int64)))
    layers = list(network.layers)
    layers[1] = replace(layers[1], projections=(*layers[1].projections, own))
    found = network.with_layers(layers)
    found.validate()
    return found


# Which layers may have which --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedules", "sources", "words"),
    [
        ([SAMPLE, TIMESTEP], ((-1,), (0,)), None),
        ([TIMESTEP, SAMPLE], ((-1,), (0,)), None),
        ([SAMPLE, SAMPLE], ((-1,), (0, 1)), "layer 1 reads its own events"),
        ([TIMESTEP], ((-1,), (0,)), "has 1 entry for 2 layers"),
        # A skip around a layer that waits for whole samples.
        ([SAMPLE, TIMESTEP], ((-1,), (0, -1)), "of what it reads layer 0 waits for whole samples longer"),
        ([SAMPLE, SAMPLE], ((-1,), (0, -1)), None),
        ([TIMESTEP, TIMESTEP], ((-1,), (0, -1)), None),
        # Both ways wait, one longer than the other; and as long.
        ([SAMPLE, SAMPLE, TIMESTEP], ((-1,), (0,), (1, 0)), "layer 2 walks timestep by timestep"),
        ([SAMPLE, SAMPLE, TIMESTEP], ((-1,), (-1,), (1, 0)), None),
        # A layer's own events do not count.
        ([SAMPLE, TIMESTEP], ((-1,), (0, 1)), None),
    ],
)
def test_layers_that_would_wait_for_each_other_are_refused(
    schedules: list[Any], sources: tuple[tuple[int, ...], ...], words: str | None
) -> None:
    found = schedule_problem(schedules, sources)
    assert found is None if words is None else found is not None and words in found and "\n" not in found


def test_a_layer_that_reads_itself_is_refused_by_all_who_are_asked() -> None:
    network = recurrent()
    line = "hardware.schedule: layer 1 reads its own events of the timestep before"
    for choices in (Choices(schedule="sample"), Choices(schedule=(TIMESTEP, SAMPLE, TIMESTEP))):
        with pytest.raises(UnsupportedError, match=line):
            map_network(network, [1, 1, 1], None, choices)
        with pytest.raises(UnsupportedError, match=line):
            hardware_config(network, schedule=choices.schedule)
    map_network(network, [1, 1, 1], None, Choices(schedule=(SAMPLE, TIMESTEP, SAMPLE)))


@pytest.mark.parametrize(
    ("network", "schedule", "words"),
    [
        ({"hidden": [8, 8], "recurrent": [False, True]}, "sample", "layer 1 reads its own events"),
        ({"hidden": [8]}, ["sample"], "has 1 entry for 2 layers"),
        (
            {"layers": [{"kind": "conv", "channels": 2}, {"kind": "residual", "channels": 2}]},
            ["sample", "sample", "timestep", "timestep"],
            "layer 2 walks timestep by timestep",
        ),
    ],
)
def test_a_configuration_is_refused_before_anything_is_trained(
    network: dict[str, Any], schedule: Any, words: str
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        parse_config({"network": network, "hardware": {"schedule": schedule}})
    found = parse_config({"network": network, "hardware": {"schedule": "auto"}})
    assert found.network.sources is not None and len(found.network.sources) == found.network.n_layers


@pytest.mark.parametrize("schedule", ["samples", ("timestep", "auto"), (), 1, None])
def test_what_is_no_schedule_is_named(schedule: Any) -> None:
    with pytest.raises(InputError, match=r"hardware\.schedule = .* is none of timestep, sample, auto"):
        Choices(schedule=schedule)


def test_what_a_configuration_says_layers_read_is_what_they_are_built_to_read() -> None:
    """It is asked before data and their shapes are known, and so stands apart from the plan of the layers."""
    kinds: list[dict[str, Any]] = [
        {"kind": "conv", "channels": 4},
        {"kind": "pool"},
        {"kind": "residual", "channels": 4},
        {"kind": "residual", "channels": 8, "stride": 2},
        {"kind": "dense", "width": 6, "recurrent": True},
        {"kind": "dense", "width": 5},
    ]
    for first in range(len(kinds)):
        for last in range(first, len(kinds)):
            network = parse_config({"network": {"layers": kinds[first : last + 1]}}).network
            plans = plan_layers(network, (2, 16, 16), 3)
            assert network.sources == tuple(tuple(link.source for link in plan.projections) for plan in plans)


def test_input_currents_have_one_schedule_and_the_shortest_word_is_kept() -> None:
    assert layer_schedules("timestep", 2, is_current=True) == (SAMPLE, TIMESTEP)
    assert as_chosen((SAMPLE, TIMESTEP), is_current=True) == TIMESTEP
    assert as_chosen((SAMPLE, TIMESTEP), is_current=False) == (SAMPLE, TIMESTEP)
    assert as_chosen((SAMPLE,), is_current=True) == TIMESTEP
    network = chain(coding="current")
    mapping = map_network(network, [1, 1, 1], None, Choices(schedule=[TIMESTEP] * 3))  # type: ignore[arg-type]
    assert mapping.choices.schedule == TIMESTEP and mapping.layers[0].schedule == SAMPLE
    assert not plan_machine(network, mapping).engines[0].collects


# What the plan has ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "timesteps", "depth", "width"),
    [
        (100, 4, 13, 32),
        (100, 5, 25, 20),
        (100, 33, 100, 33),
        (100, 16, 50, 32),
        (1, 4, 2, 4),
        (3, 1, 2, 4),
        (40, 1, 2, 32),
    ],
)
def test_a_word_holds_as_many_masks_as_fit(span: int, timesteps: int, depth: int, width: int) -> None:
    plan = CollectorPlan(span, timesteps, 0)
    assert (plan.depth, plan.width) == (depth, width)
    assert plan.depth << plan.group_bits >= span and (plan.width <= MASK_WORD_BITS or plan.group_bits == 0)


def test_masks_and_sums_are_counted_and_nothing_else_changes() -> None:
    network = chain()
    plans = [
        plan_machine(network, map_network(network, [2, 2, 1], None, Choices(schedule=schedule)))  # type: ignore[arg-type]
        for schedule in (TIMESTEP, SAMPLE, (TIMESTEP, SAMPLE, TIMESTEP))
    ]
    before, after, mixed = plans
    for index, (one, other) in enumerate(zip(before.engines, after.engines, strict=True)):
        span = one.projections[0].stream_span
        bank = CollectorPlan(span, 4, index).bank
        assert [memory for memory in other.memories if memory == bank].count(bank) == 2
        assert other.widths.sums == 4 and other.widths.accumulator == 4 * other.widths.sum
        rows = [[m for m in engine.memories if m.role in ("rows", "synapses")] for engine in (one, other)]
        assert rows[0] == rows[1]
    assert [engine.collects for engine in mixed.engines] == [False, True, False]
    assert [mixed.engines[index].memories == before.engines[index].memories for index in range(3)] == [
        True,
        False,
        True,
    ]
    assert mixed.engines[0].clocks == before.engines[0].clocks
    assert sum(before.memory_bits.values()) < sum(mixed.memory_bits.values()) < sum(after.memory_bits.values())


# What it costs, and what is chosen --------------------------------------------------------------------


def test_a_source_that_fires_is_walked_once() -> None:
    network = chain()
    stimulus = samples(network)
    trace = golden.run(network, stimulus)
    at_once = golden.operations_at_once(network, stimulus, trace)
    by_hand = (stimulus.dense().any(axis=1) @ np.count_nonzero(network.layers[0].dense(), axis=1)).astype(np.int64)
    np.testing.assert_array_equal(at_once[:, 0], by_hand)
    mapping = map_network(network, [2, 2, 1], source_events(network, stimulus), Choices(schedule="sample"))
    for index, part in enumerate(activity(network, mapping, stimulus)):
        np.testing.assert_array_equal(part.operations.sum(axis=1), at_once[:, index])
        assert part.operations.shape == (len(stimulus), 1) and part.events.shape[1] == network.timesteps
        # A clock for each source that fires, at least.
        assert np.all(part.scans >= part.looked_up)
    costs = schedule_costs(network, mapping, stimulus)
    for index, cost in enumerate(costs):
        assert cost["schedule"] == SAMPLE
        assert cost["sample"]["walks"] == pytest.approx(at_once[:, index].mean())
        assert cost["timestep"]["walks"] == pytest.approx(trace.synaptic_operations[:, index].mean())
        assert cost["sample"]["memory_bits"] > cost["timestep"]["memory_bits"]


def test_mean_rates_give_about_the_same() -> None:
    network = chain()
    stimulus = samples(network, rate=0.3, count=60)
    mapping = map_network(network, [1, 1, 1], None, Choices(schedule="sample"))
    exact = activity(network, mapping, stimulus)
    mean = mean_activity(network, mapping, source_rates(network, stimulus))
    assert mean[0].operations.sum() == pytest.approx(exact[0].operations.sum(axis=1).mean(), rel=0.05)
    assert cycle_estimate(plan_machine(network, mapping), mean)["latency_cycles"] > 0


def test_the_fewest_bits_are_taken_for_clocks_within_the_goals_factor() -> None:
    network = chain((60, 50, 40, 10), timesteps=8)
    stimulus = samples(network, rate=0.7)
    auto = Choices(schedule="auto")
    machines = Schedules(network, [1, 1, 1], Choices(), stimulus)
    measured = {}
    for number in range(8):
        chosen = [index for index in range(3) if number >> index & 1]
        measured[machines.of(chosen)] = machines.measure(machines.of(chosen))
    for within in (1.0, 1.05, 2.0, 100.0):
        found = choose_schedules(network, [1, 1, 1], auto, within, stimulus).schedule
        schedules = layer_schedules(found, 3, is_current=False)
        least = min(clocks for clocks, _ in measured.values())
        clocks, bits = measured[schedules]
        assert clocks <= within * least
        assert bits == min(bits for clocks, bits in measured.values() if clocks <= within * least)
    assert choose_schedules(network, [1, 1, 1], auto, 100.0, stimulus).schedule == TIMESTEP
    assert choose_schedules(network, [1, 1, 1], auto, None, None).schedule == TIMESTEP
    assert choose_schedules(network, [1, 1, 1], auto, 1.0, stimulus).schedule != TIMESTEP


def test_of_many_layers_a_path_is_looked_at() -> None:
    network = chain((30, *[20] * 8, 5), timesteps=6)
    stimulus = samples(network, rate=0.8, count=4)
    found = choose_schedules(network, [1] * 9, Choices(schedule="auto"), 1.0, stimulus)
    assert layer_schedules(found.schedule, 9, is_current=False).count(SAMPLE) > 0


def test_what_cannot_be_walked_at_once_is_never_chosen() -> None:
    network = recurrent()
    found = choose_schedules(network, [1, 1, 1], Choices(schedule="auto"), 1.0, samples(network))
    assert layer_schedules(found.schedule, 3, is_current=False)[1] == TIMESTEP
    costs = schedule_costs(network, map_network(network, [1, 1, 1]), samples(network))
    assert costs[1]["sample"] is None and costs[0]["sample"] is not None


def test_auto_needs_samples_and_is_what_map_hardware_chooses() -> None:
    network = chain((60, 50, 40, 10), timesteps=8)
    stimulus = samples(network, rate=0.7)
    with pytest.raises(InputError, match=r"hardware\.schedule = 'auto' needs calibration samples"):
        map_network(network, [1, 1, 1], None, Choices(schedule="auto"))
    with pytest.warns(CodesignWarning, match="has no calibration samples to choose by"):
        without = map_hardware(network, hardware_config(network, goal="fast", lanes=1))
    assert without.choices.schedule == TIMESTEP
    hardware = hardware_config(network, goal="fast", lanes=1)
    assert hardware.schedule == "auto"
    mapping = map_hardware(network, hardware, stimulus)
    wanted = choose_schedules(network, [1, 1, 1], hardware.choices, 1.05, stimulus)
    assert mapping.choices.schedule == wanted.schedule != TIMESTEP
    # One engine for all layers has one schedule.
    folded = hardware_config(network, goal="fast", lanes=1, shape="folded")
    assert folded.schedule == TIMESTEP
    assert problem(Choices(shape="folded", schedule="sample")) is not None


def test_placement_takes_the_timesteps_of_a_sample_as_one_accumulation() -> None:
    network = chain()
    stimulus = samples(network, rate=0.2)
    events = source_events(network, stimulus)
    mapping = map_network(network, [4, 4, 1], events, Choices(schedule="sample"))
    union = [found.reshape(-1, network.timesteps, found.shape[1]).any(axis=1) for found in events]
    again = map_network(network, [4, 4, 1], union)
    for one, other in zip(mapping.layers, again.layers, strict=True):
        np.testing.assert_array_equal(one.lane, other.lane)
        assert one.balance == other.balance
