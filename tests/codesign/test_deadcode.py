"""Dead neurons go, and nothing that anyone can see changes."""

from __future__ import annotations

import itertools

import numpy as np
from random_networks import random_stimulus
from random_structures import random_structure

from codesign.contract import golden
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.network import FrozenLayer, FrozenNetwork, InputCoding, Leak, Projection
from codesign.contract.stimulus import Stimulus


def assert_same(network: FrozenNetwork, small: FrozenNetwork, stimulus: Stimulus) -> None:
    """Every decision, value and remaining spike and membrane is the same."""
    small.validate()
    before, after = golden.run(network, stimulus), golden.run(small, stimulus)
    assert np.array_equal(before.decisions, after.decisions) and np.array_equal(before.values, after.values)
    for old, new, layer in zip(before.spikes, after.spikes, small.layers, strict=True):
        assert np.array_equal(old[..., layer.trained_index], new)
    for old, new, layer in zip(before.membranes, after.membranes, small.layers, strict=True):
        assert np.array_equal(old[..., layer.trained_index], new)


def dead_network() -> tuple[FrozenNetwork, list[list[int]]]:
    """5 -> 6 -> 4 -> 3 with every kind of dead and of seemingly dead neuron; kept trained indices by hand."""
    first = np.zeros((5, 6), np.int64)
    first[0, 0] = 5  # 0: alive
    first[1, 1] = 5  # 1: no fan-out
    # 2: no fan-in, its bias never fires: dead.  3: no fan-in, but its bias fires: alive.
    first[2, 4] = 5  # 4: feeds only neuron 2 of the next layer, which is dead: dead in turn
    first[3, 5] = -3  # 5: never fires on events, but has fan-in: stays
    second = np.zeros((6, 4), np.int64)
    second[0, 0], second[2, 0], second[3, 1], second[4, 2], second[5, 0] = 4, 4, 3, 2, 1
    # neuron 3 of the second layer has neither fan-in nor a bias that fires
    third = np.zeros((4, 3), np.int64)
    third[0, 0], third[1, 2], third[3, 1] = 2, 3, 1
    network = FrozenNetwork.from_arrays(
        [first, second, third],
        threshold=[4, 3, 2],
        bias=[np.array([0, 0, 1, 2, 0, 0]), 0, np.array([0, 1, 0])],
        timesteps=7,
        leak=Leak("shift", 1),
    )
    return network, [[0, 3, 5], [0, 1], [0, 1, 2]]


def test_dead_code_goes_and_nothing_else_changes():
    network, kept = dead_network()
    small = remove_dead_code(network)
    small.validate()
    assert [layer.trained_index.tolist() for layer in small.layers] == kept
    assert [layer.trained_width for layer in small.layers] == [6, 4, 3]
    assert small.n_inputs == 5 and small.dense_synapses == network.dense_synapses
    random = np.random.default_rng(0)
    stimulus = Stimulus.from_dense(random.random((200, 7, 5)) < 0.4)
    before, after = golden.run(network, stimulus), golden.run(small, stimulus)
    assert before.spikes[0][..., 3].any(), "the bias-driven neuron must fire for this test to mean anything"
    assert np.array_equal(before.decisions, after.decisions)
    assert np.array_equal(before.values, after.values)
    for layer, indices in enumerate(kept):
        assert np.array_equal(before.spikes[layer][..., indices], after.spikes[layer])
        assert np.array_equal(before.membranes[layer][..., indices], after.membranes[layer])


def test_without_silent_only_neurons_without_a_path_go():
    network, _ = dead_network()
    small = remove_dead_code(network, silent=False)
    small.validate()
    for index, (whole, layer) in enumerate(zip(network.layers, small.layers, strict=True)):
        if index < len(network.layers) - 1:
            reaches = (network.layers[index + 1].dense()[:, small.layers[index + 1].trained_index] != 0).any(1)
            assert layer.trained_index.tolist() == np.flatnonzero(reaches).tolist()
            assert layer.n_out < whole.n_out
    # those that never fire are still there
    assert small.n_synapses > remove_dead_code(network).n_synapses


def test_dead_code_of_random_networks_changes_no_value():
    random = np.random.default_rng(4)
    removed = 0
    for _ in range(30):
        widths = random.integers(1, 9, random.integers(2, 5))
        matrices = [
            random.integers(-3, 4, (a, b)) * (random.random((a, b)) < 0.25) for a, b in itertools.pairwise(widths)
        ]
        network = FrozenNetwork.from_arrays(
            matrices,
            threshold=4,
            bias=[random.integers(-2, 3, b) for b in widths[1:]],
            timesteps=5,
            leak=Leak("shift", 2),
            readout="spike_count",
        )
        small = remove_dead_code(network)
        small.validate()
        removed += sum(a.n_out - b.n_out for a, b in zip(network.layers, small.layers, strict=True))
        stimulus = Stimulus.from_dense(random.random((20, 5, widths[0])) < 0.5)
        before, after = golden.run(network, stimulus), golden.run(small, stimulus)
        assert np.array_equal(before.values, after.values)
        for layer, (old, new) in enumerate(zip(before.spikes, after.spikes, strict=True)):
            assert np.array_equal(old[..., small.layers[layer].trained_index], new)
    assert removed > 30


def test_a_layer_of_dead_neurons_keeps_one():
    layer = FrozenLayer.from_dense(np.zeros((3, 4), np.int64), threshold=5)
    last = FrozenLayer.from_dense(np.zeros((4, 2), np.int64), threshold=5)
    small = remove_dead_code(FrozenNetwork((layer, last), 4, InputCoding("events")))
    small.validate()
    assert [layer.n_out for layer in small.layers] == [1, 2]


def recurrent_network() -> tuple[FrozenNetwork, list[int]]:
    """3 -> 8, recurrent -> 2, with every kind of recurrent neuron; the kept indices by hand."""
    first, own, last = np.zeros((3, 8), np.int64), np.zeros((8, 8), np.int64), np.zeros((8, 2), np.int64)
    first[0, 0], last[0, 0] = 5, 3  # 0: alive
    first[1, 1], own[1, 0] = 5, 4  # 1: matters through 0 alone
    first[2, 2], own[2, 2] = 5, 5  # 2: feeds itself alone: dead
    first[2, 3], own[3, 4], own[4, 3] = 5, 5, 5  # 3, 4: feed each other alone: dead
    own[5, 6], own[6, 5], last[5, 1] = 5, 5, 3  # 5, 6: would fire only if the other did: dead
    own[1, 7], last[7, 1] = 5, 3  # 7: its only fan-in is from 1, which fires: alive
    layer = FrozenLayer.from_dense(first, recurrent=own, threshold=4)
    return FrozenNetwork((layer, FrozenLayer.from_dense(last, threshold=3)), 6, InputCoding("events")), [0, 1, 7]


def test_recurrent_neurons_go_only_without_effect() -> None:
    network, kept = recurrent_network()
    small = remove_dead_code(network)
    assert small.layers[0].trained_index.tolist() == kept and small.layers[0].trained_width == 8
    assert small.dense_synapses == network.dense_synapses == 3 * 8 + 8 * 8 + 8 * 2
    stimulus = Stimulus.from_dense(np.random.default_rng(0).random((100, 6, 3)) < 0.5)
    assert golden.run(small, stimulus).spikes[0].any(axis=(0, 1)).all(), "all that stay must fire for this to mean much"
    assert_same(network, small, stimulus)


def test_a_recurrent_neuron_that_its_bias_wakes_stays() -> None:
    own = np.array([[0, 5], [0, 0]])
    layer = FrozenLayer.from_dense(np.zeros((1, 2), np.int64), recurrent=own, bias=np.array([2, 0]), threshold=5)
    network = FrozenNetwork((layer, FrozenLayer.from_dense(np.array([[0], [1]]))), 6, InputCoding("events"))
    assert remove_dead_code(network).layers[0].n_out == 2


def test_the_neuron_kept_for_want_of_others_keeps_what_drives_it() -> None:
    own = np.array([[0, 0, 0], [5, 0, 0], [0, 0, 5]])
    layer = FrozenLayer.from_dense(np.array([[0, 5, 5]]), recurrent=own, threshold=4)
    network = FrozenNetwork((layer, FrozenLayer.from_dense(np.zeros((3, 2), np.int64))), 5, InputCoding("events"))
    small = remove_dead_code(network)
    assert small.layers[0].trained_index.tolist() == [0, 1]
    assert_same(network, small, Stimulus.from_dense(np.random.default_rng(1).random((20, 5, 1)) < 0.5))


def test_leaks_per_neuron_stay_with_their_neurons() -> None:
    weights = np.array([[5, 5, 5]])
    layer = FrozenLayer.from_dense(
        weights, threshold=9, leak=Leak("multiply", np.array([1, 2, 3]), np.array([1, 2, 3]))
    )
    last = FrozenLayer.from_dense(np.array([[1], [0], [2]]))
    small = remove_dead_code(FrozenNetwork((layer, last), 4, InputCoding("events")))
    assert small.layers[0].leak == Leak("multiply", np.array([1, 3]), np.array([1, 3]))


def test_a_layer_read_twice_keeps_what_either_reads() -> None:
    first = FrozenLayer.from_dense(np.array([[5, 5, 5]]), threshold=4)
    second = FrozenLayer.from_dense(np.array([[3], [0], [0]]), threshold=3)
    wide = FrozenLayer.from_dense(np.array([[0], [1], [0]]), source=0)
    last = FrozenLayer.from_projections([*FrozenLayer.from_dense(np.array([[2]])).projections, *wide.projections])
    network = FrozenNetwork((first, second, last), 4, InputCoding("events"))
    small = remove_dead_code(network)
    assert [layer.trained_index.tolist() for layer in small.layers] == [[0, 1], [0], [0]]
    assert_same(network, small, Stimulus.from_dense(np.random.default_rng(1).random((20, 4, 1)) < 0.5))


def test_pictures_stay_whole() -> None:
    picture = FrozenLayer.from_dense(np.zeros((2, 4), np.int64), shape=(1, 2, 2))
    flat = FrozenLayer.from_projections([Projection.identity(0, (1, 2, 2))])
    network = FrozenNetwork(
        (picture, flat, FrozenLayer.from_dense(np.zeros((4, 2), np.int64))), 3, InputCoding("events")
    )
    assert [layer.n_out for layer in remove_dead_code(network).layers] == [4, 4, 2]


def test_dead_code_of_random_structures_changes_no_value() -> None:
    removed = 0
    for seed in range(80):
        rng = np.random.default_rng([3, seed])
        network = random_structure(rng)
        small = remove_dead_code(network)
        removed += sum(a.n_out - b.n_out for a, b in zip(network.layers, small.layers, strict=True))
        assert_same(network, small, random_stimulus(rng, network, 4))
        assert small.dense_synapses == network.dense_synapses
    assert removed > 20
