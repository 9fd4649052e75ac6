"""Convolutions, pools, recurrence and skips in the simulator: golden == RTL == the second reference."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clock_checks import assert_clocks_told
from golden_checks import assert_equals_reference
from random_choices import random_choices
from random_networks import random_lanes, random_stimulus
from random_structures import picture_of_classes, random_covered, random_structure

from codesign.contract import golden
from codesign.contract.early_exit import EarlyExit, early_exit_problem
from codesign.contract.network import INPUT, FrozenLayer, FrozenNetwork, InputCoding, Projection, Synapses
from codesign.contract.sidecar import read_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.cost.clocks import check_clocks, exact_cycles
from codesign.cost.estimate import source_events
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from codesign.machine.schedules import collects as masks
from codesign.machine.schedules import layer_schedules
from rtl_templates.bundle import write_bundle
from sim.facts import check_facts
from sim.verify import verify_bundle

pytestmark = pytest.mark.hardware
WORKERS = 2


def equal(
    seed: int,
    folder: Path,
    most_lanes: int = 6,
    *,
    collects: bool = False,
    exits: bool = False,
    folded: bool = False,
    decides: bool = False,
    **sizes: int,
) -> None:
    """Golden == RTL == reference on one random network of any structure, on a random machine.

    collects : some of its layers, or all, walk all timesteps of a sample at once. folded : one engine serves all.
    exits : several projections read events of the input, and samples are decided while it still says something.
    decides : some samples are decided early, mostly without FIFOs, with one or several events a clock.
    """
    rng = np.random.default_rng(seed)
    while True:
        network = random_covered(rng, **sizes)
        if network.is_plain_chain or (collects and network.timesteps == 1) or (folded and len(network.layers) == 1):
            continue
        stimulus = random_stimulus(rng, network, 6)
        given: dict[str, Any] = {"shape": "folded", "schedule": "timestep"} if folded else {}
        if exits:
            given = {"early_exit": int(rng.integers(1, 4)), "event_streams": 1}
        if decides:
            given = {"early_exit": "certain" if network.readout == "spike_count" else int(rng.integers(1, 4))}
            given |= {"spike_fifos": bool(rng.random() < 0.3), "event_streams": int(rng.choice([1, 2, 4]))}
        if given.get("early_exit") and not decides_early(network, stimulus, given["early_exit"], leaves=exits):
            continue
        choices = random_choices(rng, network, **given)
        schedules = layer_schedules(choices.schedule, len(network.layers), is_current=network.coding.is_current)
        if not collects or any(masks(network, index, found) for index, found in enumerate(schedules)):
            break
    lanes = random_lanes(rng, network, most_lanes)
    mapping = map_network(network, lanes[:1] * len(lanes) if choices.folded else lanes, None, choices)
    write_bundle(network, mapping, folder / "b")
    result = verify_bundle(
        folder / "b", network, stimulus, folder / "work", stress_samples=2, seed=seed + 1, workers=1, latency=False
    )
    assert result.passed, f"seed {seed}: {result.first_divergence or result.decoder['first']}"
    assert result.mismatches == 0 and result.samples == len(stimulus)
    assert_clocks_told(network, mapping, stimulus, result)
    assert_equals_reference(network, stimulus, folder / "net.safetensors")


def decides_early(network: FrozenNetwork, stimulus: Stimulus, rule: EarlyExit, *, leaves: bool) -> bool:
    """Whether two samples or more are decided before their end.

    leaves : while events of theirs are left, which several projections read.
    """
    if early_exit_problem(network.readout, rule) is not None or network.n_outputs == 1:
        return False
    readers = sum(part.source == INPUT for layer in network.layers for part in layer.projections)
    if leaves and (readers < 2 or stimulus.is_current):
        return False
    exits = golden.run(network, stimulus, early_exit=rule).exits
    if not leaves:
        return int((exits < network.timesteps - 1).sum()) >= 2
    left = stimulus.dense() & (np.arange(network.timesteps) > exits[:, None])[:, :, None]
    return int(left.any(axis=(1, 2)).sum()) >= 2


def equal_for_all(seeds: range, folder: Path, **sizes: Any) -> None:
    def one(seed: int) -> None:
        try:
            equal(seed, folder / str(seed), **sizes)
        finally:
            shutil.rmtree(folder / str(seed), ignore_errors=True)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, seeds))


def test_random_structures_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all(range(3), tmp_path, side=9, kernel=5, channels=9)


def test_layers_of_both_schedules_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all(range(2), tmp_path, side=6, kernel=4, channels=5, collects=True)


def test_random_structures_in_one_engine_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all(range(2), tmp_path, side=6, kernel=4, channels=5, folded=True)


@pytest.mark.deep
@pytest.mark.parametrize("block", range(10))
def test_many_structures_in_one_engine_equal_their_rtl(block: int, tmp_path: Path) -> None:
    seeds = range(100 + 20 * block, 120 + 20 * block)
    equal_for_all(seeds, tmp_path, side=(5, 9, 16)[block % 3], kernel=5, channels=17, most_lanes=16, folded=True)


@pytest.mark.deep
@pytest.mark.parametrize("block", range(4))
def test_many_structures_withdraw_from_several_readers(block: int, tmp_path: Path) -> None:
    """Seeds 0, 1 and 2 fail with a fork that does not forget what is withdrawn."""
    equal_for_all(range(15 * block, 15 * block + 15), tmp_path, side=(5, 9)[block % 2], channels=3, exits=True)


@pytest.mark.deep
@pytest.mark.parametrize("block", range(4))
def test_many_structures_that_decide_early_equal_their_rtl(block: int, tmp_path: Path) -> None:
    equal_for_all(range(20 * block, 20 * block + 20), tmp_path, side=(5, 9)[block % 2], channels=3, decides=True)


@pytest.mark.deep
@pytest.mark.parametrize("block", range(5))
def test_many_structures_of_both_schedules_equal_their_rtl(block: int, tmp_path: Path) -> None:
    seeds = range(100 + 20 * block, 120 + 20 * block)
    equal_for_all(seeds, tmp_path, side=(5, 9)[block % 2], kernel=5, channels=9, most_lanes=16, collects=True)


def test_a_last_layer_that_reads_itself_also_counts(tmp_path: Path) -> None:
    """Its words say counts, with the last timestep; what comes back to it is its spikes, after each."""
    rng = np.random.default_rng(7)
    while True:
        network = random_covered(rng, side=5, channels=3)
        stimulus = random_stimulus(rng, network, 6)
        last = len(network.layers) - 1
        own = [part.connections for part in network.layers[last].projections if part.source == last]
        if not own or not isinstance(own[0], Synapses) or network.readout != "spike_count":
            continue
        fires = golden.run(network, stimulus).spikes[last][:, :-1].any(axis=(0, 1))
        if (fires & (np.diff(own[0].indptr) > 0)).any():
            break
    mapping = map_network(network, random_lanes(rng, network, 4), None, Choices(output_spikes=False))
    write_bundle(network, mapping, tmp_path / "b")
    result = verify_bundle(
        tmp_path / "b", network, stimulus, tmp_path / "work", stress_samples=2, seed=1, workers=1, latency=False
    )
    assert result.passed, result.first_divergence
    assert_clocks_told(network, mapping, stimulus, result)


@pytest.mark.deep
@pytest.mark.parametrize("block", range(20))
def test_many_random_structures_equal_their_rtl(block: int, tmp_path: Path) -> None:
    equal_for_all(
        range(100 + 20 * block, 120 + 20 * block),
        tmp_path,
        side=(5, 9, 16)[block % 3],
        kernel=5,
        channels=17,
        most_lanes=16,
    )


def test_clocks_of_pictures_are_told_and_a_wrong_one_is_seen(tmp_path: Path) -> None:
    """Convolutions before other layers, alone and back to back."""
    rng = np.random.default_rng(2)
    while True:
        network = random_structure(rng, chain=True, side=16, kernel=5, channels=12)
        large = len(network.layers) > 1 and sum(layer.n_out for layer in network.layers) > 100
        if large and not network.is_plain_chain:
            break
    stimulus = random_stimulus(rng, network, 12)
    mapping = map_network(network, random_lanes(rng, network, 6), source_events(network, stimulus))
    write_bundle(network, mapping, tmp_path / "b")
    found = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "work", stress_samples=1, seed=1, workers=1)
    assert found.passed
    assert_clocks_told(network, mapping, stimulus, found)
    plan = plan_machine(network, mapping)
    told = exact_cycles(plan, stimulus)
    assert told == {"latency_cycles": found.latency_cycles, "interval_cycles": found.interval_cycles}
    first = plan.engines[0]
    late = replace(first, clocks=replace(first.clocks, fire=first.clocks.fire + 1, write=first.clocks.write + 1))
    wrong = check_clocks(replace(plan, engines=(late, *plan.engines[1:])), stimulus, found.times)
    assert wrong is not None and wrong.equal < wrong.compared == 24
    assert wrong.first is not None and wrong.first.startswith("back_to_back, sample 0: begins and is decided in clocks")


def test_what_a_second_reader_of_input_currents_waits_for_is_counted_whole(tmp_path: Path) -> None:
    """Values wait with their sources: one engine for all layers keeps a copy for the second projection of a layer."""
    weights = [np.array([[3, 0, -2], [1, 4, 0], [0, -1, 2], [2, 0, 1]]), np.array([[2, 1], [-1, 3], [1, 0]])]
    both = [Projection(INPUT, Synapses.from_dense(matrix)) for matrix in (weights[0], weights[0][::-1])]
    layers = (
        FrozenLayer.from_projections(both, threshold=6),
        FrozenLayer.from_projections([Projection(0, Synapses.from_dense(weights[1]))], threshold=2),
    )
    network = FrozenNetwork(layers, 3, InputCoding("current", 4), "spike_count")
    mapping = map_network(network, [2, 2], None, Choices(shape="folded"))
    (copy,) = [link for link in plan_machine(network, mapping).engines[0].links if link.way == "copy"]
    assert copy.layer == 0 and copy.depth == 8
    write_bundle(network, mapping, tmp_path / "b")
    check_facts(tmp_path / "b", read_sidecar(tmp_path / "b"), network)
    stimulus = random_stimulus(np.random.default_rng(1), network, 4)
    result = verify_bundle(
        tmp_path / "b", network, stimulus, tmp_path / "work", stress_samples=2, workers=1, latency=False
    )
    assert result.passed


def test_a_picture_of_membranes_decides_early(tmp_path: Path) -> None:
    network = picture_of_classes("membrane_sum")
    stimulus = Stimulus.from_dense(np.random.default_rng(3).random((12, 4, 2)) < 0.5)
    assert (golden.run(network, stimulus, early_exit=15).exits < 3).any()
    write_bundle(network, map_network(network, [2], None, Choices(early_exit=15)), tmp_path / "b")
    result = verify_bundle(tmp_path / "b", network, stimulus, stress_samples=1, workers=1, latency=False)
    assert result.passed, result.first_divergence
