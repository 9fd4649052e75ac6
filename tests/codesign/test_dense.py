"""A network beside the same network with every connection."""

import numpy as np
import pytest

from codesign.config import HardwareConfig
from codesign.contract import golden
from codesign.contract.network import Convolution, FrozenNetwork, InputCoding
from codesign.contract.stimulus import Stimulus
from codesign.cost import dense
from codesign.cost.dense import dense_estimate, dense_network, n_connections
from codesign.cost.estimate import estimate
from codesign.cost.mapping import map_hardware
from codesign.machine.plan import plan_machine
from tests.random_structures import random_structure


def network_of(density):
    rng = np.random.default_rng(3)
    weights = [np.where(rng.random(shape) < density, rng.integers(1, 20, shape), 0) for shape in ((20, 16), (16, 4))]
    return FrozenNetwork.from_arrays(weights, threshold=[60, 40], timesteps=6, coding=InputCoding("events"))


def stimulus_of(network):
    rng = np.random.default_rng(4)
    return Stimulus.from_dense(rng.random((5, network.timesteps, network.n_inputs)) < 0.3)


def test_a_dense_network_is_its_own_counterpart():
    network = network_of(1.0)
    stimulus, hardware = stimulus_of(network), HardwareConfig()
    mapping = map_hardware(network, hardware, stimulus)
    found = dense_estimate(network, mapping, stimulus=stimulus)
    assert found["synapses"] == network.n_synapses == 20 * 16 + 16 * 4
    assert found["estimate"] == estimate(plan_machine(network, mapping), stimulus=stimulus, exact=False)


def test_operations_are_events_of_the_sparse_network_times_all_neurons():
    network = network_of(0.2)
    stimulus = stimulus_of(network)
    found = dense_estimate(network, map_hardware(network), stimulus=stimulus)
    trace = golden.run(network, stimulus)
    events = [stimulus.dense().sum(), trace.spikes[0].sum()]
    assert found["estimate"]["cycles"]["synaptic_operations"] == pytest.approx(
        [events[0] * 16 / len(stimulus), events[1] * 4 / len(stimulus)]
    )
    sparse = estimate(plan_machine(network, map_hardware(network)), stimulus=stimulus)
    assert sparse["cycles"]["synaptic_operations"] != found["estimate"]["cycles"]["synaptic_operations"]
    assert found["estimate"]["memory_bits"]["synapses"] > 3 * sparse["memory_bits"]["synapses"]


@pytest.mark.parametrize("seed", range(8))
def test_every_connection_is_there_and_weights_stay(seed):
    network = random_structure(np.random.default_rng(seed))
    whole = dense_network(network)
    whole.validate()
    assert [layer.n_synapses for layer in whole.layers] == n_connections(network)
    for before, after in zip(network.layers, whole.layers, strict=True):
        for part, filled in zip(before.projections, after.projections, strict=True):
            if part.fixed:
                assert filled is part
                continue
            old, new = part.connections.dense(), filled.connections.dense()
            assert np.array_equal(new[old != 0], old[old != 0])
            assert set(np.unique(new[old == 0])) <= {-1, 1}
            assert isinstance(filled.connections, Convolution) == isinstance(part.connections, Convolution)


def test_what_is_too_large_is_counted_and_not_planned(monkeypatch):
    monkeypatch.setattr(dense, "MOST_SYNAPSES", 300)
    network = network_of(0.2)
    found = dense_estimate(network, map_hardware(network))
    assert found["synapses"] == 384 and found["estimate"] is None and "300 connections" in found["reason"]
