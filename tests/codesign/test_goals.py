"""Goals: the choices and lanes that follow from a word."""

from __future__ import annotations

import tomllib
from typing import Any, get_args

import numpy as np
import pytest
from machines import picture_network

from codesign.basics.errors import CodesignWarning, InputError, UnsupportedError
from codesign.config import hardware_config, parse_config
from codesign.config.text import config_template, config_toml
from codesign.contract.network import INPUT, FrozenLayer, FrozenNetwork, InputCoding, Projection, Synapses
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import estimate
from codesign.cost.lanes import choose_lanes, layer_work, sample_clocks
from codesign.cost.mapping import map_hardware
from codesign.machine.choices import Choices
from codesign.machine.goals import GOALS, Goal, expanded
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine

COUNTS = {"network": {"readout": "spike_count"}}


def network_and_samples() -> tuple[FrozenNetwork, Stimulus]:
    rng = np.random.default_rng(3)
    weights = [rng.integers(-3, 5, shape) for shape in ((40, 24), (24, 6))]
    network = FrozenNetwork.from_arrays(weights, threshold=[20, 15], timesteps=6)
    return network, Stimulus.from_dense((rng.random((8, 6, 40)) < 0.3).astype(np.uint8))


@pytest.mark.parametrize("goal", get_args(Goal))
def test_a_goal_decides_what_nobody_gave(goal: Goal) -> None:
    found = parse_config({"hardware": {"goal": goal}, **COUNTS})
    assert found.hardware.choices == Choices(**GOALS[goal].choices) and found.hardware.lanes == "auto"


def test_single_choices_stay_beside_a_goal() -> None:
    found = parse_config({"hardware": {"goal": "small", "queue_depth": 5, "lanes": 3}, **COUNTS}).hardware
    assert (found.shape, found.queue_depth, found.lanes) == ("folded", 5, 3)


@pytest.mark.parametrize("goal", get_args(Goal))
def test_what_is_written_is_read_again_and_takes_another_goal(goal: Goal) -> None:
    found = parse_config({"hardware": {"goal": goal, "block_rom_bits": 100}, **COUNTS})
    document: dict[str, Any] = tomllib.loads(config_toml(found))
    assert parse_config(document) == found
    assert document["hardware"].keys() <= {"goal", "block_rom_bits", "name", "capacity"}
    document["hardware"]["goal"] = "tiny"
    assert parse_config(document).hardware.choices == Choices(**GOALS["tiny"].choices, block_rom_bits=100)


def test_what_is_given_against_a_goal_stays_and_is_told() -> None:
    with pytest.warns(CodesignWarning, match=r"goal = 'tiny': counters is given and not decided by it"):
        found = parse_config({"hardware": {"goal": "tiny", "counters": True}, **COUNTS})
    assert found.hardware.counters and not found.hardware.input_checks


def test_lanes_are_told_beside_other_choices_that_stay() -> None:
    with pytest.warns(CodesignWarning, match="lanes, counters are given and not decided by it"):
        parse_config({"hardware": {"goal": "tiny", "counters": True, "lanes": 2}, **COUNTS})


@pytest.mark.parametrize(
    ("text", "depth"),
    [(config_toml(parse_config({"hardware": {"queue_depth": 5}, **COUNTS})), 5), (config_template(), 8)],
    ids=["of a run", "of init"],
)
def test_a_goal_or_a_budget_that_comes_later_decides_what_nobody_gave(text: str, depth: int) -> None:
    document: dict[str, Any] = tomllib.loads(text)
    assert parse_config(document).hardware.queue_depth == depth
    limited = parse_config({**document, "budget": {"memory_bits": 6600}})
    assert limited.budget.active
    document["hardware"]["goal"] = "fast"
    found = parse_config(document).hardware
    assert (found.lanes, found.queue_depth, found.event_streams) == ("auto", depth, 2)


def test_a_goal_takes_what_goes_with_the_network_and_the_board() -> None:
    assert expanded("small", {}, readout="spike_count", structured=True) == {"shape": "folded"}
    without = {key: value for key, value in GOALS["tiny"].choices.items() if key != "output_spikes"}
    assert expanded("tiny", {}, readout="membrane_sum", structured=False) == without
    assert expanded("fast", {}, readout="spike_count", structured=True) == GOALS["fast"].choices
    assert "input_words" not in expanded("fast", {}, readout="spike_count", structured=False, consumers=["board"])


def test_lanes_are_the_fewest_within_the_goal() -> None:
    network, stimulus = network_and_samples()
    work = layer_work(network, stimulus)
    assert [part.sweeps for part in work] == [6, 6] and [part.units for part in work] == [24, 6]
    assert work[0].walks == pytest.approx(
        (stimulus.dense().sum(axis=(0, 1)) @ (network.layers[0].dense() != 0).sum(axis=1)) / 8
    )
    small, balanced, fast = (
        choose_lanes(network, Choices(), GOALS[goal].within, stimulus) for goal in ("small", "balanced", "fast")
    )
    assert small == [1, 1] and sum(small) < sum(balanced) < sum(fast)
    least = sample_clocks(work, fast, folded=False) / 1.05
    assert sample_clocks(work, balanced, folded=False) <= 2 * least * 1.05
    for index in range(2):
        fewer = [count - (place == index) for place, count in enumerate(balanced)]
        if min(fewer):
            assert sample_clocks(work, fewer, folded=False) > sample_clocks(work, balanced, folded=False)
    # The formula orders machines as the plan's own estimate does.
    clocks = []
    for lanes in (small, balanced, fast):
        found = estimate(plan_machine(network, map_network(network, lanes)), stimulus=stimulus)["cycles"]
        assert found is not None
        clocks.append(found["latency_cycles"])
    assert clocks[0] > clocks[1] > clocks[2]


def test_one_engine_has_as_many_lanes_for_every_layer() -> None:
    network, stimulus = network_and_samples()
    lanes = choose_lanes(network, Choices(shape="folded"), 2.0, stimulus)
    assert len(set(lanes)) == 1 and lanes[0] > 1


def test_lanes_of_pictures_own_whole_channels() -> None:
    network = picture_network(pooled=False)
    stimulus = Stimulus.from_dense(np.ones((2, 3, network.n_inputs), np.uint8))
    lanes = choose_lanes(network, Choices(), 1.0, stimulus)
    assert all(count <= units.units for count, units in zip(lanes, layer_work(network, stimulus), strict=True))
    map_network(network, lanes)


def test_auto_needs_samples() -> None:
    network, stimulus = network_and_samples()
    hardware = parse_config({"hardware": {"lanes": "auto"}, **COUNTS}).hardware
    with pytest.raises(InputError, match=r"hardware\.lanes = 'auto' needs calibration samples"):
        map_hardware(network, hardware, None)
    assert list(map_hardware(network, hardware, stimulus).lanes) == choose_lanes(network, Choices(), 2.0, stimulus)
    # One lane is one lane, whatever the samples do.
    assert set(map_hardware(network, hardware_config(network, goal="small")).lanes) == {1}


def test_a_network_that_no_machine_covers_is_refused_before_its_events_are_counted() -> None:
    """Currents come once a sample, and events beside them once a timestep."""
    both = [Projection(source, Synapses.from_dense(np.ones((2, 2), np.int8))) for source in (0, INPUT)]
    first = FrozenLayer.from_projections(both[1:], threshold=1)
    network = FrozenNetwork(
        (first, FrozenLayer.from_projections(both, threshold=1)), 3, InputCoding("current", 4), "spike_count"
    )
    samples = Stimulus(2, 3, np.zeros(2, np.int32), values=np.ones((2, 2), np.uint8))
    with pytest.raises(UnsupportedError, match="does not cover events beside input currents"):
        map_hardware(network, None, samples)


def test_a_goal_for_a_network_without_configuration_goes_as_far_as_the_network_does() -> None:
    plain, structured = network_and_samples()[0], picture_network(pooled=False)
    assert hardware_config(plain, goal="small").shape == "folded"
    assert hardware_config(structured, goal="small").shape == "folded"
    assert hardware_config(structured, goal="tiny").lockstep is False
    assert (
        hardware_config(plain, goal="fast").lanes == "auto" and hardware_config(plain, goal="fast", lanes=2).lanes == 2
    )
    with pytest.raises(InputError, match=r"hardware\.lanes has 9 entries for"):
        hardware_config(plain, lanes=[1] * 9)
    with pytest.raises(UnsupportedError, match="together"):
        hardware_config(plain, loadable=True, shape="folded")


def test_an_unknown_goal_is_named() -> None:
    with pytest.raises(InputError, match="goal"):
        parse_config({"hardware": {"goal": "huge"}})
