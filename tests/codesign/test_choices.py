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
from codesign.machine.choices import CONSUMERS, DEFAULTS, FEATURES, Choices, check, chosen, keys, problem
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine

PAIRS = [*combinations(OTHERS, 2)]


SPIKE_COUNT = {"network": {"readout": "spike_count"}}


def small(readout: str = "spike_count") -> FrozenNetwork:
    weights = [np.array([[1, 0, 2], [0, 3, 1]]), np.array([[1, 0], [2, 1], [0, 1]])]
    resets = {"reset": "none"} if readout != "spike_count" else {}
    return FrozenNetwork.from_arrays(weights, threshold=1, timesteps=2, readout=readout, **resets)  # type: ignore[arg-type]


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
def test_budgets_refuse_what_their_formula_does_not_know(name: str) -> None:
    given = {name: OTHERS[name], **({"loadable": True} if name == "synapse_memory" else {})}
    wanted = problem(Choices(**given), consumer="budget")
    assert line_of(lambda: parse_config({"hardware": given, "budget": {"memory_bits": 10**6}, **SPIKE_COUNT})) == wanted
    assert (wanted is None) == (name not in ("synapse_memory", "loadable", "early_exit", "event_streams", "schedule"))


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in ("event_streams", "schedule")])
def test_logic_of_every_choice_but_two_is_estimated(name: str) -> None:
    from codesign.cost.area import machine_area

    given = {name: OTHERS[name], **({"loadable": True} if name == "synapse_memory" else {})}
    area = machine_area(plan_machine(small(), map_network(small(), [2, 2], None, Choices(**given))), "ice40")
    assert area["lut"] > 100 and area["ff"] > 100 and area["reason"] is None


@pytest.mark.parametrize("name", ["event_streams", "schedule"])
def test_what_two_choices_take_is_told_to_be_unknown(name: str) -> None:
    from codesign.cost.area import machine_area

    choices = Choices(**others(name))
    area = machine_area(plan_machine(small(), map_network(small(), [2, 2], None, choices)), "ecp5")
    assert area["lut"] is None and area["ff"] is None
    assert area["reason"] == problem(choices, consumer="area") is not None


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
