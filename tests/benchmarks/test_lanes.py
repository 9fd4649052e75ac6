import numpy as np
import pytest

from benchmarks.lanes import configuration, greedy
from codesign.contract.network import FrozenNetwork


def test_configurations_differ_in_what_is_asked_for():
    plain = configuration("mnist", 3, 2, None)
    assert (plain.train.seed, plain.train.epochs, plain.train.rewiring.lane_balance) == (3, 2, None)
    balanced = configuration("mnist", 0, None, 8, 0.4).train.rewiring
    assert (balanced.lane_balance, balanced.target_density, balanced.start_density) == (8, 0.4, 0.4)
    assert configuration("mnist", 0, None, None, 0.2).train.rewiring.start_density == 0.3


def test_the_greedy_placement_fills_lanes_alike():
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 4, (20, 12)) * (rng.random((20, 12)) < 0.4)
    network = FrozenNetwork.from_arrays([weights], threshold=1, timesteps=1)
    rates = rng.random(20)
    lane = greedy(network, 3, rates)
    assert np.bincount(lane, minlength=3).tolist() == [4, 4, 4]
    load = ((weights != 0) * rates[:, None]).sum(axis=0)
    totals = np.bincount(lane, weights=load, minlength=3)
    round_robin = np.bincount(np.arange(12) % 3, weights=load, minlength=3)
    assert totals.max() - totals.min() == pytest.approx(0, abs=round_robin.max() - round_robin.min())
