import numpy as np
import pytest
from random_networks import random_lanes, random_network
from random_structures import picture_of_classes

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network import INPUT, FrozenLayer, FrozenNetwork, InputCoding, Leak, Projection, Synapses
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network


def network_of(weights, **parameters):
    return FrozenNetwork.from_arrays([np.asarray(w) for w in weights], **{"threshold": 1, "timesteps": 2, **parameters})


def rebuild(layer):
    """Dense weights from the placement alone."""
    matrix = np.zeros((layer.n_in, layer.n_out), np.int64)
    neuron = {(int(lane), int(slot)): j for j, (lane, slot) in enumerate(zip(layer.lane, layer.slot, strict=True))}
    for lane in range(layer.lanes):
        for source, address in enumerate(layer.source_address):
            start, count = layer.row_start[lane, address], layer.row_count[lane, address]
            for position in range(start, start + count):
                matrix[source, neuron[lane, int(layer.synapse_slot[lane][position])]] += layer.synapse_weight[lane][
                    position
                ]
    return matrix


def test_numbers_of_numpy_are_numbers():
    network = network_of([[[1, 0], [-3, 2]]])
    numpys = Choices(queue_depth=np.int64(4), counters=np.bool_(False), block_rom_bits=np.uint16(9))
    assert numpys == Choices(queue_depth=4, counters=False, block_rom_bits=9)
    mapping = map_network(network, np.array([2]), None, numpys)
    assert type(mapping.choices.queue_depth) is int and type(mapping.layers[0].lanes) is int


@pytest.mark.parametrize("seed", range(8))
def test_words_in_lock_step_hold_a_synapse_of_each_lane_or_add_nothing(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    mapping = map_network(network, random_lanes(rng, network), None, Choices(lockstep=True))
    for layer, frozen in zip(mapping.layers, network.layers, strict=True):
        assert layer.lockstep == (layer.lanes > 1) and layer.fetchers == 1
        memories = mapping.engines[layer.index]
        rows = memories.row_record.unpack(memories.row_words(0))
        words = memories.synapse_record.unpack(memories.synapse_words(0))
        dense = np.zeros((layer.n_in, layer.lanes, layer.n_slots), np.int64)
        for source, address in enumerate(layer.source_address):
            first, count = int(rows["start"][address]), int(rows["count"][address])
            assert count == layer.row_count[:, address].max() == layer.row_lengths[0, address]
            for lane in range(layer.lanes):
                suffix = str(lane) if layer.lockstep else ""
                for word in range(first, first + count):
                    dense[source, lane, words[f"slot{suffix}"][word]] += words[f"weight{suffix}"][word]
        np.testing.assert_array_equal(dense[:, layer.lane, layer.slot], frozen.dense())
        assert np.count_nonzero(dense) == np.count_nonzero(frozen.dense())


@pytest.mark.parametrize("seed", range(25))
def test_every_synapse_and_parameter_is_in_its_place(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    lanes = random_lanes(rng, network)
    mapping = map_network(network, lanes)
    for wanted, layer, frozen in zip(lanes, mapping.layers, network.layers, strict=True):
        assert layer.lanes == min(wanted, layer.n_out)
        assert layer.n_slots == -(-layer.n_out // layer.lanes)
        assert np.unique(layer.hardware_index).size == layer.n_out
        assert layer.lane.max() < layer.lanes and layer.slot.max() < layer.n_slots
        np.testing.assert_array_equal(rebuild(layer), frozen.dense())
        assert layer.parameters.keys() == frozen.numbers.keys() - (() if layer.spiking else {"threshold"})
        for name, part in layer.parameters.items():
            np.testing.assert_array_equal(part.slots[layer.lane, layer.slot], frozen.numbers[name])
            if part.constant is not None:
                np.testing.assert_array_equal(frozen.numbers[name], part.constant)
            elif name.startswith("leak_"):
                assert np.unique(frozen.numbers[name]).size > 1
        assert int(layer.lane_synapses.sum()) == frozen.n_synapses
        for lane in range(layer.lanes):
            memories = mapping.engines[layer.index]
            unpacked = memories.row_record.unpack(memories.row_words(lane))
            np.testing.assert_array_equal(unpacked["start"], layer.row_start[lane])
            np.testing.assert_array_equal(unpacked["count"], layer.row_count[lane])
            assert memories.synapse_words(lane).size == max(1, layer.synapse_weight[lane].size)


@pytest.mark.parametrize("seed", range(25))
def test_padding_slots_stay_silent_at_zero(seed):
    rng = np.random.default_rng(1000 + seed)
    network = random_network(rng)
    for layer, frozen in zip(map_network(network, random_lanes(rng, network)).layers, network.layers, strict=True):
        held = np.zeros((layer.lanes, layer.n_slots), bool)
        held[layer.lane, layer.slot] = True
        assert int((~held).sum()) == layer.padding_slots
        used = {
            name: part.slots if part.constant is None else np.full_like(part.slots, part.constant)
            for name, part in layer.parameters.items()
        }
        assert not used["bias"][~held].any()
        if layer.spiking:
            fires = used["threshold"][~held] <= 0 if frozen.compare == ">=" else used["threshold"][~held] < 0
            assert not fires.any()


def test_hidden_layers_are_balanced_and_the_last_is_in_class_order():
    rng = np.random.default_rng(3)
    hidden = rng.integers(-3, 4, (100, 64)) * (rng.random((100, 64)) < rng.random(64))
    network = network_of([hidden, rng.integers(-3, 4, (64, 10))])
    first, last = map_network(network, [8, 3]).layers
    assert first.imbalance < 1.02
    np.testing.assert_array_equal(last.lane, np.arange(10) % 3)
    np.testing.assert_array_equal(last.slot, np.arange(10) // 3)


def test_rates_move_the_balance_to_active_sources():
    # Sources 0 and 1 are always active, the others never: their targets must not share a lane.
    weights = np.zeros((10, 4), int)
    weights[0, 0] = weights[1, 1] = 1
    weights[2:, 2:] = 1
    network = network_of([weights, np.ones((4, 2), int)])
    rates = [np.array([1.0, 1.0] + [0.0] * 8), np.ones(4)]
    first = map_network(network, [2, 1], rates).layers[0]
    assert first.lane[0] != first.lane[1]


def test_mapping_is_deterministic():
    network = random_network(np.random.default_rng(8))
    first, second = (map_network(network, [4] * len(network.layers)) for _ in range(2))
    for one, other in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(one.lane, other.lane)
        assert [w.tolist() for w in one.synapse_weight] == [w.tolist() for w in other.synapse_weight]


def test_a_constant_that_would_wake_padding_goes_to_memory():
    silent = network_of([np.ones((3, 5), int)], threshold=0)
    assert map_network(silent, [1]).layers[0].constants["threshold"] == 0
    padded = map_network(silent, [2])
    assert padded.layers[0].constants["threshold"] is None and padded.engines[0].parameter_record.has("threshold")
    biased = network_of([np.ones((3, 5), int)], bias=7)
    assert map_network(biased, [5]).layers[0].constants["bias"] == 7
    assert map_network(biased, [2]).layers[0].constants["bias"] is None
    strict = network_of([np.ones((3, 5), int)], threshold=0, compare=">")
    assert map_network(strict, [2]).layers[0].constants["threshold"] == 0


def test_only_leaks_that_differ_are_in_memory():
    leaks = {
        "same": Leak("shift", np.full(5, 3)),
        "shift": Leak("shift", np.array([0, 1, 2, 3, 9])),
        "multiplier": Leak("multiply", 3, np.array([0, 8, 2, 3, 5])),
        "both": Leak("multiply", np.array([0, 1, 2, 3, 24]), np.array([1, 2, 4, 0, 1 << 24])),
    }
    words = {}
    for name, leak in leaks.items():
        network = network_of([np.ones((3, 5), int)], leak=leak)
        for choices, lanes in ((Choices(), 2), (Choices(shape="folded"), 2), (Choices(), 5)):
            mapping = map_network(network, [lanes], None, choices)
            record = mapping.engines[0].parameter_record
            words.setdefault(name, []).append([(field.name, field.width, field.signed) for field in record])
    shift, multiplier = ("leak_shift", 4, False), ("leak_multiplier", 4, False)
    assert words == {
        "same": [[]] * 3,
        "shift": [[shift]] * 3,
        "multiplier": [[multiplier]] * 3,
        "both": [[("leak_shift", 5, False), ("leak_multiplier", 25, False)]] * 3,
    }


def test_layers_of_a_folded_engine_have_all_leaks_in_memory_if_one_has():
    network = network_of(
        [np.ones((3, 4), int), np.ones((4, 4), int), np.ones((4, 2), int)],
        leak=[Leak("shift", np.array([1, 2, 3, 6])), Leak(), Leak("multiply", 9, 2)],
    )
    (folded,) = map_network(network, [2] * 3, None, Choices(shape="folded")).engines
    assert folded.constants == {
        "threshold": [1, 1, 1],
        "bias": [0, 0, 0],
        "leak_shift": None,
        "leak_multiplier": [0, 0, 2],
    }
    shifts = folded.parameter_record.unpack(folded.parameter_words(0))["leak_shift"]
    assert shifts[folded.slot_base[1] :].tolist() == [0, 0, 9]


def test_a_layer_without_synapses_has_one_unused_word():
    mapping = map_network(network_of([np.zeros((4, 3), int)]), [2])
    layer = mapping.layers[0]
    assert [mapping.engines[0].synapse_words(lane).tolist() for lane in range(2)] == [[0], [0]]
    assert layer.imbalance == 1.0 and not layer.row_count.any()


@pytest.mark.parametrize(
    ("lanes", "events", "message"),
    [
        ([1, 1], None, "2 entries for 1 layer"),
        ([0], None, r"lanes of layer 0 = 0 is outside 1\.\.32"),
        ([33], None, r"lanes of layer 0 = 33 is outside"),
        (["x"], None, r"lanes of layer 0 = 'x' is outside"),
        ([True], None, r"lanes of layer 0 = True is outside"),
        ([1.0], None, r"lanes of layer 0 = 1.0 is outside"),
        ([1], [], "events has 0 entries"),
        ([1], [np.ones(3)], "events of layer 0 must be 4 numbers"),
        ([1], [np.array([1, 1, 1, -1])], "events of layer 0"),
        ([1], [np.array([1, 1, 1, np.nan])], "events of layer 0"),
        ([1], [np.float64(1)], "events of layer 0"),
        ([1], [np.ones((2, 3), int)], "events of layer 0"),
        ([1], [np.full((2, 4), 0.5)], "single steps must be whole numbers"),
        ([1], [np.zeros((0, 4), int)], "of one step or more"),
    ],
)
def test_wrong_arguments_are_named(lanes, events, message):
    with pytest.raises(InputError, match=message):
        map_network(network_of([np.ones((4, 3), int)]), lanes, events)


@pytest.mark.parametrize("seed", range(15))
def test_layers_of_a_folded_engine_have_rows_and_slots_of_their_own(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=20)
    while len(network.layers) == 1:
        network = random_network(rng, max_width=20)
    lanes = int(rng.integers(1, 6))
    mapping = map_network(network, [lanes] * len(network.layers), None, Choices(shape="folded"))
    (folded,) = mapping.engines
    assert mapping.lanes == [lanes] * len(network.layers)
    for lane in range(lanes):
        rows, synapses = (
            record.unpack(words)
            for record, words in (
                (folded.row_record, folded.row_words(lane)),
                (folded.synapse_record, folded.synapse_words(lane)),
            )
        )
        taken, slots = set(), set()
        for index, layer in enumerate(mapping.layers):
            for address in range(layer.n_addresses):
                place = folded.row_base[index] | address
                assert place == folded.row_base[index] + address and place not in taken
                taken.add(place)
                first, count = layer.row_start[lane, address], layer.row_count[lane, address]
                assert rows["count"][place] == count
                found = slice(rows["start"][place], rows["start"][place] + count)
                np.testing.assert_array_equal(synapses["slot"][found], layer.synapse_slot[lane][first : first + count])
                weights = layer.synapse_weight[lane][first : first + count]
                np.testing.assert_array_equal(synapses["weight"][found], weights)
            for slot in range(layer.n_slots):
                place = folded.slot_base[index] | slot
                assert place == folded.slot_base[index] + slot and place not in slots
                slots.add(place)
        assert len(rows["count"]) == folded.n_addresses and max(taken) == folded.n_addresses - 1
        assert (
            sum(rows["count"]) == sum(layer.lane_synapses[lane] for layer in folded.layers)
            and max(slots) == folded.n_slots - 1
        )


def test_the_only_layer_has_one_engine_in_every_shape():
    network = network_of([np.ones((4, 3), int)])
    streaming, folded = (map_network(network, [2], None, Choices(shape=shape)) for shape in ("streaming", "folded"))
    assert folded.choices == streaming.choices and not folded.engines[0].is_shared


def test_a_folded_engine_has_one_number_of_lanes():
    network = network_of([np.ones((4, 3), int), np.ones((3, 2), int)])
    with pytest.raises(UnsupportedError, match="has one engine; give one number"):
        map_network(network, [2, 1], None, Choices(shape="folded"))


def test_a_million_synapses_are_placed_in_seconds():
    rng = np.random.default_rng(0)
    n_in, n_out, fan_out = 2000, 2000, 500
    targets = np.sort(np.argpartition(rng.random((n_in, n_out)), fan_out, axis=1)[:, :fan_out], axis=1)
    synapses = Synapses(
        n_in=n_in,
        n_out=n_out,
        indptr=np.arange(n_in + 1, dtype=np.int64) * fan_out,
        targets=targets.ravel().astype(np.int32),
        weights=rng.choice([-1, 1, 3], n_in * fan_out).astype(np.int8),
    )
    layer = FrozenLayer.from_projections([Projection(INPUT, synapses)])
    network = FrozenNetwork((layer, FrozenLayer.from_dense(np.ones((n_out, 2), int))), 1, InputCoding("events"))
    mapping = map_network(network, [16, 2])
    for lane in range(16):
        mapping.engines[0].synapse_words(lane)
    assert mapping.layers[0].imbalance < 1.01


@pytest.mark.parametrize("readout", ["membrane_sum", "membrane_max"])
def test_a_picture_that_decides_early_leaves_in_the_order_of_classes(readout):
    network = picture_of_classes(readout)
    assert map_network(network, [2], None, Choices(early_exit=15)).lanes == [1]
    assert map_network(network, [2]).lanes == [2]
