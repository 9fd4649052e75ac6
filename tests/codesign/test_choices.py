"""Choices of hardware: one table says which go together, and every consumer refuses with its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from random_choices import OTHERS, others, with_needs

from codesign.basics.errors import InputError, UnsupportedError
from codesign.config import HardwareConfig, parse_config
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.machine.capacity import CapacityOptions
from codesign.machine.choices import CONSUMERS, DEFAULTS, FEATURES, Choices, check, chosen, keys, problem
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine

PAIRS = [*combinations(OTHERS, 2)]


SPIKE_COUNT = {"network": {"readout": "spike_count"}}


def small(readout: str = "spike_count") -> FrozenNetwork:
    weights = [np.array([[1, 0, 2], [0, 3, 1]]), np.array([[1, 0], [2, 1], [0, 1]])]
    resets = {"reset": "none"} if readout != "spike_count" else {}
    return FrozenNetwork.from_arrays(weights, threshold=1, timesteps=2, readout=readout, **resets)  # type: ignore[arg-type]


def events() -> Stimulus:
    """Two samples of the small network."""
    return Stimulus.from_dense(np.array([[[1, 0], [1, 1]], [[0, 1], [0, 0]]], np.uint8))


def line_of(make: Callable[[], object]) -> str | None:
    """The one line with which something is refused; None if it is not."""
    try:
        make()
    except UnsupportedError as error:
        return str(error)
    return None


def test_the_table_has_every_choice_and_the_configuration_every_choice_with_its_default() -> None:
    names = {field.name for field in fields(Choices)}
    assert names == set(FEATURES) == set(OTHERS) == set(keys())
    assert HardwareConfig().choices == DEFAULTS
    assert all(getattr(HardwareConfig(), name) == getattr(DEFAULTS, name) for name in names)
    for feature in FEATURES.values():
        assert {*feature.excludes, *feature.needs} <= names
        assert set(feature.unknown_to) <= set(CONSUMERS)


@pytest.mark.parametrize("pair_of", PAIRS, ids="+".join)
def test_every_pair_is_refused_by_all_with_the_same_line_or_by_none(pair_of: tuple[str, str]) -> None:
    given, network = others(*pair_of), small()
    wanted = problem(Choices(**given))
    assert line_of(lambda: parse_config({"hardware": given, **SPIKE_COUNT})) == wanted
    assert line_of(lambda: map_network(network, [2, 2], None, Choices(**given))) == wanted
    loadable = Choices(loadable=given.get("loadable", False))
    mapping = replace(map_network(network, [2, 2], None, loadable), choices=Choices(**given))
    assert line_of(lambda: check(mapping.choices, network)) == wanted
    if wanted is not None:
        # The plan does not trust a mapping that was put together by other means.
        assert line_of(lambda: plan_machine(network, mapping)) == wanted


@pytest.mark.parametrize("name", OTHERS)
def test_logic_of_every_choice_is_estimated_and_budgets_take_it(name: str) -> None:
    from codesign.cost.area import machine_area
    from codesign.cost.budget import Budget, demands

    given = with_needs(name)
    family = "ecp5" if name == "state_memory" else "ice40"
    area = machine_area(plan_machine(small(), map_network(small(), [2, 2], None, given)), family)
    assert area["lut"] > 100 and area["ff"] > 100 and area["reason"] is None
    document = {"hardware": {name: OTHERS[name]}, "budget": {"memory_bits": 10**6}, **SPIKE_COUNT}
    if name == "synapse_memory":
        document["hardware"]["loadable"] = True
    config = parse_config(document)
    assert getattr(config.hardware.choices, name) == OTHERS[name]
    capacity = CapacityOptions() if given.loadable else None
    budget = Budget("it", family, {"lut": 9e9, "cycles": 9e9}, {}, None, (4,), (2,), given, capacity)
    (found,) = demands(small(), budget, events(), 4)
    assert found.estimated["lut"] == area["lut"] and found.estimated["cycles"] > 10 and found.fits


@pytest.mark.parametrize("name", ["event_streams", "schedule", "loadable", "early_exit"])
def test_what_a_choice_takes_is_in_a_budget(name: str) -> None:
    """Logic of a machine with the choice is more than without it."""
    from codesign.cost.area import machine_area

    plain, other = (
        machine_area(plan_machine(small(), map_network(small(), [2, 2], None, choices)), "ecp5")
        for choices in (Choices(), with_needs(name))
    )
    assert other["lut"] > plain["lut"] and other["ff"] > plain["ff"]


def test_a_budget_chooses_schedules_by_its_samples() -> None:
    from codesign.cost.budget import Budget, demands

    def memory(schedule: str, within: float | None) -> float:
        choices = Choices(schedule=schedule)  # type: ignore[arg-type]
        budget = Budget("it", None, {"memory_bits": 9e9}, {}, None, (4,), (2,), choices, within=within)
        return demands(small(), budget, events(), 4)[0].estimated["memory_bits"]

    assert memory("auto", None) == memory("timestep", 1.0) < memory("sample", 1.0)


def test_the_refused_pairs_are_these() -> None:
    """Pairs of which no machine is built, whatever else is chosen: what a choice needs is given with it."""
    refused = {frozenset(names) for names in PAIRS if problem(with_needs(*names)) is not None}
    assert refused == {
        frozenset(names)
        for names in (
            *((one, other) for one in ("lockstep", "loadable", "synapse_memory") for other in ("shape", "synapses")),
            ("schedule", "shape"),
        )
    }


@pytest.mark.parametrize(
    ("given", "readout", "words"),
    [
        ({"output_spikes": False}, "membrane_sum", "output_spikes = false needs readout 'spike_count'"),
        ({"early_exit": "certain"}, "membrane_sum", "early_exit = 'certain' needs readout 'spike_count'"),
        ({"early_exit": 3}, "membrane_last", "looks only at the last timestep"),
    ],
)
def test_what_the_readout_does_not_allow_is_refused_by_all(given: dict[str, Any], readout: str, words: str) -> None:
    network, wanted = small(readout), problem(Choices(**given), readout=readout)  # type: ignore[arg-type]
    assert wanted is not None and words in wanted
    document = {"hardware": given, "network": {"readout": readout}}
    assert line_of(lambda: parse_config(document)) == wanted
    assert line_of(lambda: map_network(network, [1, 1], None, Choices(**given))) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"queue_depth": 1}, "hardware.queue_depth = 1 is outside 2..64"),
        ({"queue_depth": 65}, "hardware.queue_depth = 65 is outside 2..64"),
        ({"queue_depth": 2.5}, "hardware.queue_depth = 2.5 is outside 2..64"),
        ({"input_words": 9}, "hardware.input_words = 9 is outside 1..8"),
        ({"block_rom_bits": -1}, "hardware.block_rom_bits = -1 is no whole number of 0 or more"),
        ({"shape": "round"}, "hardware.shape = 'round' is none of streaming, folded"),
        ({"lockstep": 1}, "hardware.lockstep = 1 is neither true nor false"),
        ({"early_exit": 0}, "hardware.early_exit = 0 is neither 'off'"),
    ],
)
def test_values_out_of_range_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        Choices(**given)


def test_what_is_not_the_default_is_told_in_the_order_of_the_table() -> None:
    assert chosen(DEFAULTS) == ()
    assert chosen(Choices(loadable=True, shape="folded", queue_depth=8)) == ("shape", "loadable")


def test_a_single_class_has_nothing_to_lead() -> None:
    network = FrozenNetwork.from_arrays([np.ones((2, 1), int)], threshold=1, timesteps=2)
    with pytest.raises(UnsupportedError, match="needs two classes or more, the network has 1"):
        map_network(network, [1], None, Choices(early_exit="certain"))
