"""Events of pictures: every source reaches exactly the neurons that the convolution or pool says, with its weight."""

from __future__ import annotations

import numpy as np
import pytest
from random_networks import random_lanes
from random_structures import random_convolution, random_covered

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network import (
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
)
from codesign.machine.choices import Choices
from codesign.machine.layouts import index_width
from codesign.machine.mapping import LayerMap, map_network
from codesign.machine.pictures import PictureInput, addresses, low_bits


def reached(layer: LayerMap) -> np.ndarray:
    """int64 (n_in, n_out): what an event of each source adds to each neuron, walked as the hardware walks it."""
    found = np.zeros((layer.n_in, layer.n_out), np.int64)
    neuron = np.full((layer.lanes, layer.n_slots), -1)
    neuron[layer.lane, layer.slot] = np.arange(layer.n_out)
    slots = 1 << index_width(layer.n_slots)
    readers = [projection.reads for projection in layer.projections for _ in range(projection.n_in)]
    for source, (address, row, reads) in enumerate(zip(layer.source_address, layer.source_row, readers)):
        if row < 0:
            continue
        for lane in range(layer.lanes):
            start, count = layer.row_start[lane, row], layer.row_count[lane, row]
            for k in range(start, start + count):
                slot = int(layer.synapse_slot[lane][k])
                if reads is not None and reads.is_convolution:
                    x = address & ((1 << (reads.shape[2] - 1).bit_length()) - 1)
                    y = (address >> (reads.shape[2] - 1).bit_length()) & ((1 << (reads.shape[1] - 1).bit_length()) - 1)
                    step_y, step_x = layer.synapse_step[lane][:, k]
                    if not (reads.y.reach[y] >> step_y & reads.x.reach[x] >> step_x & 1):
                        continue
                    slot = (slot + int(reads.y.base[y]) + int(reads.x.base[x])) % slots
                assert slot < layer.n_slots and neuron[lane, slot] >= 0
                found[source, neuron[lane, slot]] += layer.synapse_weight[lane][k]
    return found


def unrolled(projection: Projection) -> np.ndarray:
    """int64 (n_sources, n_out): the weight of each source for each neuron, by the definition of a convolution."""
    connections, pool = projection.connections, projection.pool
    if isinstance(connections, Convolution):
        _, height, width = connections.in_shape
        out, rows, columns = connections.out_shape
        found = np.zeros((connections.n_in, connections.n_out), np.int64)
        taps = (connections.out_channel, connections.in_channel, connections.ky, connections.kx, connections.weights)
        for o, i, ky, kx, weight in zip(*(array.tolist() for array in taps)):
            for y_out, x_out in np.ndindex(rows, columns):
                y = y_out * connections.stride + ky - connections.padding
                x = x_out * connections.stride + kx - connections.padding
                if 0 <= y < height and 0 <= x < width:
                    found[(i * height + y) * width + x, (o * rows + y_out) * columns + x_out] += weight
        assert out == connections.out_channels
    else:
        found = connections.dense()
    if pool is None:
        return found
    channels, height, width = pool.shape
    spread = np.zeros((pool.n_in, found.shape[1]), np.int64)
    for c, y, x in np.ndindex(channels, height, width):
        if y // pool.size < pool.out_shape[1] and x // pool.size < pool.out_shape[2]:
            place = (c * pool.out_shape[1] + y // pool.size) * pool.out_shape[2] + x // pool.size
            spread[(c * height + y) * width + x] = found[place]
    return spread


@pytest.mark.parametrize("seed", range(60))
def test_every_event_reaches_what_the_network_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_covered(rng, side=7, kernel=4, channels=5)
    mapping = map_network(network, random_lanes(rng, network, 5))
    for layer, frozen in zip(mapping.layers, network.layers):
        want = np.concatenate([unrolled(projection) for projection in frozen.projections])
        np.testing.assert_array_equal(reached(layer), want)
        # A row is walked whole: what falls off the border costs a clock too.
        walked = layer.walked(layer.row_count).sum(axis=0)
        assert np.all(walked >= (want != 0).sum(axis=1))
        assert layer.lane_synapses.sum() == sum(part.connections.n_weights for part in frozen.projections)


def test_only_taps_that_can_land_are_walked_with_a_stride() -> None:
    kernel = np.ones((1, 1, 4, 4), np.int64)
    reads = PictureInput.of(Projection(-1, Convolution.from_dense(kernel, (1, 8, 8), 2)))
    assert reads is not None and reads.rows_per_channel == 4 and reads.steps == (2, 2)
    rows = reads.rows(addresses((1, 8, 8), np.arange(1)))
    assert np.bincount(rows).tolist() == [16, 16, 16, 16]


def test_rows_that_fill_no_window_are_dropped() -> None:
    reads = PictureInput.of(Projection(-1, Synapses.from_dense(np.ones((2, 3), np.int64)), SumPool((2, 3, 2), 2)))
    assert reads is not None
    rows = reads.rows(addresses((2, 3, 2), np.array([5, 1])))
    assert rows.tolist() == [5, 5, 5, 5, -1, -1, 1, 1, 1, 1, -1, -1]


def test_addresses_hold_channel_y_and_x() -> None:
    assert addresses((2, 2, 3), np.array([3, 0])).tolist() == [24, 25, 26, 28, 29, 30, 0, 1, 2, 4, 5, 6]
    assert (low_bits((2, 2, 3)), low_bits((4, 1, 1))) == (3, 0)


def wide(kernel: int, side: int, stride: int = 1) -> FrozenNetwork:
    convolution = Convolution.from_dense(np.ones((1, 1, kernel, kernel), np.int64), (1, side, side), stride)
    return FrozenNetwork(
        (FrozenLayer.from_projections([Projection(-1, convolution)], threshold=1),), 1, InputCoding("events")
    )


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (wide(9, 12), "a kernel of 9 x 9 in steps of 1"),
        (wide(1, 300, 64), "a picture of 300 x 300"),
        (wide(65, 70, 40), "a kernel of 65 x 65, larger than 64 x 64"),
    ],
)
def test_what_is_not_built_is_refused_in_one_line(network: FrozenNetwork, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        map_network(network, [1])


def test_a_large_kernel_in_large_steps_is_built() -> None:
    assert map_network(wide(9, 12, 2), [1]).layers[0].n_slots == 4


@pytest.mark.parametrize("key, value", [("synapses", "compact"), ("lockstep", True), ("loadable", True)])
def test_choices_that_do_not_know_pictures_say_so(key: str, value: object) -> None:
    with pytest.raises(UnsupportedError, match=f"hardware.{key} = .* is built only for chains of single synapses"):
        map_network(wide(3, 6), [1], None, Choices(**{key: value}))


def picture_layers(rng: np.random.Generator, channels: int, threshold: np.ndarray | int) -> FrozenNetwork:
    first = random_convolution(rng, (2, 6, 6), 7, (channels, 6, 6))
    layers = (
        FrozenLayer.from_projections([Projection(-1, first)], threshold=threshold, leak=Leak("shift", 2)),
        FrozenLayer.from_dense(rng.integers(-3, 4, (36 * channels, 3)), threshold=9),
    )
    return FrozenNetwork(layers, 2, InputCoding("events"))


def test_a_channel_shares_one_word_of_parameters() -> None:
    rng = np.random.default_rng(0)
    mapping = map_network(picture_layers(rng, 5, np.arange(1, 6)), [2, 1])
    layer, memories = mapping.layers[0], mapping.engines[0]
    assert layer.parameters_per_channel and layer.parameter_depth == 3 and memories.parameter_words(0).size == 3
    own = map_network(picture_layers(rng, 5, np.arange(1, 181)), [2, 1]).engines[0]
    assert not own.layers[0].parameters_per_channel and own.parameter_words(0).size == own.n_slots == 108


def test_lanes_own_whole_channels_and_no_more_than_there_are() -> None:
    rng = np.random.default_rng(1)
    network = picture_layers(rng, 3, 4)
    mapping = map_network(network, [8, 8])
    assert mapping.lanes == [3, 3]
    assert all(np.unique(channel).size == 1 for channel in mapping.layers[0].lane.reshape(3, 36))
    with pytest.raises(InputError, match="neurons of a channel must have the same lane"):
        map_network(network, [3, 3], placed={0: np.arange(108) % 3})


def test_channels_are_placed_by_the_taps_that_events_walk() -> None:
    """Two heavy channels and two light ones: each lane gets one of both."""
    kernel = np.zeros((4, 2, 3, 3), np.int64)
    kernel[:2] = 1
    kernel[2:, 0, 0, 0] = 1
    convolution = Convolution.from_dense(kernel, (2, 6, 6), 1, 1)
    layers = (
        FrozenLayer.from_projections([Projection(-1, convolution)], threshold=1),
        FrozenLayer.from_dense(np.ones((144, 2), np.int64), threshold=1),
    )
    layer = map_network(FrozenNetwork(layers, 1, InputCoding("events")), [2, 1]).layers[0]
    assert layer.lane_synapses.tolist() == [19, 19]
