"""The placement compiler: lanes that are even in every accumulation, not only on average."""

import itertools

import numpy as np
import pytest
from random_networks import random_network

from codesign.basics.errors import InputError
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import source_events
from codesign.machine.mapping import map_network
from codesign.machine.placement import WINDOW, balance_of, place, whole_events, windows


def network_of(hidden, **parameters):
    hidden = np.asarray(hidden).astype(int)
    return FrozenNetwork.from_arrays(
        [hidden, np.ones((hidden.shape[1], 2), int)], threshold=1, timesteps=2, **parameters
    )


def random_layer(rng, n_in, n_out, density):
    return network_of(rng.random((n_in, n_out)) < density * rng.random(n_out) * 2).layers[0]


def peaks(layer, lane, lanes, events):
    """Sum over steps of the fullest lane's synapses, written out."""
    connected = layer.dense() != 0
    return sum(max(int(connected[row > 0][:, lane == p].sum()) for p in range(lanes)) for row in events)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_placement_of_a_small_layer_is_better(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, 12, 6, 0.5)
    events = (rng.random((9, 12)) < 0.4).astype(np.int64)
    lane, balance = place(layer, 2, events, np.arange(12))
    assert sorted(np.bincount(lane)) == [3, 3]
    best = min(
        peaks(layer, np.isin(np.arange(6), chosen).astype(int), 2, events)
        for chosen in itertools.combinations(range(6), 3)
    )
    found = peaks(layer, lane, 2, events)
    # Exchanges of two may end one exchange of four short of the best.
    assert best <= found <= 1.05 * best
    assert balance == pytest.approx((layer.dense() != 0)[None].repeat(9, 0)[events > 0].sum() / (2 * found))


@pytest.mark.parametrize("seed", range(4))
def test_no_other_placement_in_lock_step_is_better(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, 12, 6, 0.5)
    events = (rng.random((9, 12)) < 0.4).astype(np.int64)
    # Lanes meet after every row: every event is a step of its own.
    rows = np.repeat(np.eye(12, dtype=np.int64), events.sum(axis=0), axis=0)
    lane, balance = place(layer, 2, events, np.arange(12), lockstep=True)
    best = min(
        peaks(layer, np.isin(np.arange(6), chosen).astype(int), 2, rows)
        for chosen in itertools.combinations(range(6), 3)
    )
    found = peaks(layer, lane, 2, rows)
    assert best <= found <= 1.05 * best
    assert balance == balance_of(layer, lane, 2, events, lockstep=True)
    assert balance == pytest.approx((rows @ (layer.dense() != 0)).sum() / (2 * found))


def test_steps_are_balanced_that_differ_while_their_mean_does_not():
    # Two kinds of samples, each of which drives neurons of its own, all alike on average.
    hidden = np.zeros((2, 8), int)
    hidden[0, :4] = hidden[1, 4:] = 1
    layer = network_of(hidden).layers[0]
    lane, balance = place(layer, 4, np.eye(2, dtype=np.int64), np.arange(2))
    assert sorted(lane[:4]) == sorted(lane[4:]) == [0, 1, 2, 3] and balance == 1.0


@pytest.mark.parametrize("lanes", [3, 4, 7])
def test_calibrated_lanes_beat_round_robin_and_mean_rates_on_unseen_steps(lanes):
    rng = np.random.default_rng(lanes)
    layer = random_layer(rng, 200, 50, 0.1)
    kinds = rng.random((10, 200)) ** 4
    seen, unseen = (rng.random((400, 200)) < kinds[rng.integers(0, 10, 400)] for _ in range(2))
    robin = np.arange(50) % lanes
    by_steps, _ = place(layer, lanes, seen.astype(np.int64), np.arange(200))
    by_rates, _ = place(layer, lanes, whole_events(seen.mean(axis=0), 200), np.arange(200))
    balance = [balance_of(layer, lane, lanes, unseen.astype(np.int64)) for lane in (robin, by_rates, by_steps)]
    assert balance[2] > balance[1] and balance[2] > balance[0] + 0.03
    assert np.bincount(by_steps, minlength=lanes).max() <= -(-50 // lanes)


@pytest.mark.parametrize("seed", range(8))
def test_any_network_is_placed_whole_and_alike_every_time(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    for layer in network.layers:
        lanes = int(rng.integers(1, layer.n_out + 1))
        events = (rng.random((int(rng.integers(1, 20)), layer.n_in)) < rng.random()).astype(np.int64)
        order = rng.permutation(layer.n_in)
        (one, balance), (other, _) = (place(layer, lanes, events, order) for _ in range(2))
        np.testing.assert_array_equal(one, other)
        assert one.min() >= 0 and np.bincount(one, minlength=lanes).max() <= -(-layer.n_out // lanes)
        assert 0 < balance <= 1


def test_windows_are_stretches_of_arriving_events():
    rng = np.random.default_rng(0)
    events = (rng.random((5, 400)) < np.array([0.05, 0.3, 0.6, 0.0, 1.0])[:, None]).astype(np.int64)
    order = rng.permutation(400)
    found = windows(events, order).toarray()
    counts = found.sum(axis=1)
    assert counts.max() <= WINDOW + 1 and counts.min() > WINDOW // 2
    # The steps of more than a window, in order, each source once.
    np.testing.assert_array_equal(found.sum(axis=0), events[[1, 2, 4]].sum(axis=0))
    last = found[-int(np.ceil(400 / WINDOW)) :]
    places = [order[np.flatnonzero(row)] for row in last]
    assert all(one.max() < other.min() for one, other in itertools.pairwise(places))


@pytest.mark.parametrize("removed", [0, 1, 5])
def test_banks_of_a_balanced_mask_are_found_after_dead_neurons_went(removed):
    # Every source reaches one neuron of each bank: only the banks are even for every single source.
    rng = np.random.default_rng(1)
    banks, per_bank, n_in = 4, 8, 400
    hidden = np.zeros((n_in, banks * per_bank), int)
    for source in range(n_in):
        hidden[source, rng.integers(0, per_bank, banks) * banks + np.arange(banks)] = 1
    kept = np.sort(rng.permutation(banks * per_bank)[removed:])
    whole = network_of(hidden).layers[0]
    layer = type(whole).from_dense(
        hidden[:, kept], source=-1, threshold=1, trained_index=kept.astype(np.int64), trained_width=banks * per_bank
    )
    events = np.eye(n_in, dtype=np.int64)[:100]
    lane, balance = place(layer, banks, events, np.arange(n_in))
    moved = (lane != kept % banks).sum()
    assert moved <= removed
    if not removed:
        assert balance == 1.0


def test_placement_and_padding_are_reported():
    rng = np.random.default_rng(2)
    network = network_of(rng.random((30, 10)) < 0.5)
    stimulus = Stimulus.from_dense(rng.random((20, 2, 30)) < 0.3)
    events = source_events(network, stimulus)
    assert [part.shape for part in events] == [(40, 30), (40, 10)]
    first, last = map_network(network, [4, 2], events).report()
    assert first["padding_slots"] == 2 and last["padding_slots"] == 0
    assert 0.8 < first["balance"] <= 1 and last["balance"] == 1.0


def test_lanes_may_be_told():
    network = network_of(np.ones((3, 4), int))
    told = np.array([1, 0, 0, 1])
    layer = map_network(network, [2, 1], placed={0: told}).layers[0]
    np.testing.assert_array_equal(layer.lane, told)
    np.testing.assert_array_equal(layer.slot, [0, 0, 1, 1])
    for placed, message in (
        ({1: np.zeros(2, int)}, "layer 1 is no hidden layer"),
        ({0: np.array([0, 0, 0, 1])}, r"layer 0 needs a lane of 0\.\.1 for each of 4 neurons, the same at most 2"),
        ({0: np.array([0, 0, 1, 2])}, "layer 0 needs a lane"),
        ({0: np.array([0, 1])}, "layer 0 needs a lane"),
        ({0: np.array([0.0, 0, 1, 1])}, "layer 0 needs a lane"),
    ):
        with pytest.raises(InputError, match=message):
            map_network(network, [2, 1], placed=placed)
