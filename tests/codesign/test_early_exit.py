"""The rule of early exit: "certain" never changes a decision, and cannot come sooner."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from random_networks import random_network, random_stimulus

from codesign.basics.errors import InputError, UnsupportedError
from codesign.config import parse_config
from codesign.contract import golden
from codesign.contract.early_exit import check_early_exit, exit_timesteps
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus

SHAPES = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7).filter(lambda shape: shape[2] > 1)


def counts_of(spikes):
    return spikes.cumsum(axis=1, dtype=np.int64)


def winner(spikes):
    return spikes.sum(axis=1).argmax(axis=1)


@settings(max_examples=100, deadline=None)
@given(spikes=arrays(np.bool_, SHAPES))
def test_certain_never_changes_a_decision(spikes):
    counts = counts_of(spikes)
    exits = exit_timesteps(counts, "certain")
    early = counts[np.arange(len(counts)), exits]
    assert np.array_equal(early.argmax(axis=1), winner(spikes))


@settings(max_examples=100, deadline=None)
@given(spikes=arrays(np.bool_, SHAPES))
def test_certain_cannot_come_sooner(spikes):
    """At each timestep before the exit some continuation of what has been seen changes the decision."""
    counts = counts_of(spikes)
    timesteps, n_outputs = spikes.shape[1:]
    for sample, exit_timestep in enumerate(exit_timesteps(counts, "certain")):
        for t in range(exit_timestep):
            now = int(counts[sample, t].argmax())
            others = []
            for rival in range(n_outputs):
                future = spikes[sample].copy()
                future[t + 1 :] = np.arange(n_outputs) == rival
                others.append(int(future.sum(axis=0).argmax()))
            assert set(others) - {now}, f"sample {sample} was certain after timestep {t} of {timesteps}"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Timesteps left: 3, 2, 1, 0. A lead of as many is enough for the lower class alone.
        ([[1, 0], [2, 0], [2, 0], [2, 0]], 1),
        ([[0, 1], [0, 2], [0, 2], [0, 2]], 2),
        ([[1, 0], [1, 0], [1, 1], [1, 1]], 3),
        ([[0, 0], [0, 0], [1, 0], [1, 1]], 2),
        ([[0, 0], [0, 0], [0, 1], [1, 1]], 3),
        ([[1, 0, 1], [2, 0, 1], [3, 0, 1], [3, 1, 1]], 2),
    ],
)
def test_certain_by_hand(counts, expected):
    assert exit_timesteps(np.array([counts]), "certain").tolist() == [expected]


@pytest.mark.parametrize(("margin", "expected"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_margin_by_hand(margin, expected):
    values = np.array([[[-5, -4], [-1, -3], [3, 0], [3, 3]]])
    assert exit_timesteps(values, margin).tolist() == [expected]


def test_without_early_exit_every_timestep_counts():
    assert exit_timesteps(np.array([[[9, 0], [9, 0], [9, 0]]] * 2), "off").tolist() == [2, 2]


@pytest.mark.parametrize("seed", range(20))
def test_counts_of_a_trace_are_those_of_the_timesteps_that_count(seed):
    rng = np.random.default_rng(seed)
    while True:
        network = random_network(rng, max_width=12)
        if network.readout != "membrane_last" and network.n_outputs > 1:
            break
    stimulus = random_stimulus(rng, network, 4)
    rule = "certain" if network.readout == "spike_count" and seed % 2 else int(rng.integers(1, 50))
    full, early = golden.run(network, stimulus), golden.run(network, stimulus, early_exit=rule)
    for sample, last in enumerate(early.exits):
        short = FrozenNetwork(network.layers, int(last) + 1, network.coding, network.readout)
        one = stimulus.take([sample])
        if one.values is None:
            cut = type(one).from_dense(one.dense()[:, : last + 1], one.labels)
        else:
            cut = type(one)(one.n_inputs, int(last) + 1, one.labels, values=one.values)
        alone = golden.run(short, cut)
        for name in ("decisions", "values", "saturations", "synaptic_operations", "spike_counts"):
            assert np.array_equal(getattr(early, name)[sample], getattr(alone, name)[0]), name
    assert all(np.array_equal(a, b) for a, b in zip(full.membranes, early.membranes, strict=True))
    if rule == "certain":
        assert np.array_equal(full.decisions, early.decisions)


@pytest.mark.parametrize(
    ("readout", "rule", "message"),
    [
        ("membrane_last", "certain", "looks only at the last timestep"),
        ("membrane_last", 5, "looks only at the last timestep"),
        ("membrane_sum", "certain", "needs readout 'spike_count'"),
        ("membrane_max", "certain", "needs readout 'spike_count'"),
        ("spike_count", 0, "neither 'off', 'certain' nor a margin of 1"),
        ("spike_count", True, "neither 'off', 'certain' nor a margin of 1"),
        ("spike_count", "sure", "neither 'off', 'certain' nor a margin of 1"),
    ],
)
def test_a_rule_that_the_readout_cannot_follow_is_refused(readout, rule, message):
    network = FrozenNetwork.from_arrays(
        [np.array([[1, 2]])], threshold=1, timesteps=3, readout=readout, reset="none", membrane_width=12
    )
    with pytest.raises(InputError, match=message):
        check_early_exit(network, rule)


def test_a_margin_of_numpy_is_a_number():
    network = FrozenNetwork.from_arrays([np.array([[1, 2]])], threshold=1, timesteps=3)
    samples = Stimulus.from_dense(np.ones((2, 3, 1), bool))
    plain, other = (golden.run(network, samples, early_exit=margin) for margin in (1, np.int64(1)))
    assert np.array_equal(plain.exits, other.exits)


def test_one_class_has_no_lead():
    network = FrozenNetwork.from_arrays([np.array([[1]])], threshold=1, timesteps=3)
    with pytest.raises(InputError, match="needs two classes or more"):
        check_early_exit(network, "certain")


def test_the_configuration_refuses_what_cannot_be():
    base = {"network": {"readout": "spike_count"}}
    assert parse_config({**base, "hardware": {"early_exit": 3}}).hardware.early_exit == 3
    assert parse_config(base).hardware.early_exit == "off"
    budgeted = {**base, "hardware": {"early_exit": 2}, "budget": {"lut": 900, "target": "ecp5-25f"}}
    assert parse_config(budgeted).hardware.early_exit == 2
    for document, message in (
        ({**base, "hardware": {"early_exit": 0}}, "early_exit"),
        ({"network": {"readout": "membrane_sum"}, "hardware": {"early_exit": "certain"}}, "hardware.early_exit = 'cer"),
        ({"network": {"readout": "membrane_last"}, "hardware": {"early_exit": 2}}, "looks only at the last timestep"),
    ):  # fmt: skip
        with pytest.raises((InputError, UnsupportedError), match=message):
            parse_config(document)
