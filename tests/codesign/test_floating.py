"""The float network: its file, its arithmetic against literal trajectories and against the golden model."""

import json
from dataclasses import replace

import numpy as np
import pytest
from random_floats import random_float_network
from random_networks import random_stimulus
from random_structures import random_structure

from codesign.basics.errors import InputError
from codesign.contract import floating, golden
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.floating.run import lif_steps
from codesign.contract.network import INPUT, FrozenLayer, FrozenNetwork, InputCoding, Leak, Projection, Synapses
from codesign.contract.stimulus import Stimulus


def one(**terms) -> FloatLayer:
    return FloatLayer.from_projections([Projection(INPUT, Synapses.from_dense([[1.0]], np.float64))], **terms)


def steps(layer: FloatLayer, inputs: list[float]) -> tuple[list[int], list[float], list[float]]:
    fired, v, _, i = lif_steps(layer, np.array(inputs, float)[None, :, None])
    return fired[0, :, 0].tolist(), v[0, :, 0].tolist(), i[0, :, 0].tolist()


def test_a_file_that_is_altered_or_of_another_kind_is_refused(tmp_path):
    network, _ = random_float_network(np.random.default_rng(1))
    path = tmp_path / "f.safetensors"
    network.save(path)
    whole = path.read_bytes()
    # The last bit of the first bias.
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    first = 8 + length + header["layer0.bias"]["data_offsets"][0]
    path.write_bytes(whole[:first] + bytes([whole[first] ^ 1]) + whole[first + 1 :])
    with pytest.raises(InputError, match="does not have the hash"):
        FloatNetwork.load(path)
    path.write_bytes(whole[: len(whole) - 9])
    with pytest.raises(InputError, match="truncated"):
        FloatNetwork.load(path)
    path.write_bytes(whole)
    with pytest.raises(InputError, match="not a frozen network"):
        FrozenNetwork.load(path)
    document = json.loads(header["__metadata__"]["codesign"])
    for change, line in (
        ({"n_out": 1 << 40}, "n_out = 1099511627776"),
        ({"n_out": 7_000}, r"expected F64 \[7000\]"),
        ({"synaptic_current": 3}, "neither true nor false"),
        ({"projections": []}, "number of projections"),
        ({"leak": None}, "unknown key 'leak'; import it again"),
    ):
        altered = {**document, "layers": [{**document["layers"][0], **change}, *document["layers"][1:]]}
        text = json.dumps({**header, "__metadata__": {"codesign": json.dumps(altered)}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        with pytest.raises(InputError, match=line):
            FloatNetwork.load(path)


def test_a_current_outlives_its_timestep():
    layer = one(decay=0.5, current_decay=0.5, threshold=2.0, reset="zero")
    spikes, v, i = steps(layer, [1, 0, 0, 3, 0])
    assert i == [1, 0.5, 0.25, 3.125, 1.5625]
    assert spikes == [0, 0, 0, 1, 0] and v == [1, 1, 0.75, 0, 1.5625]


def test_a_delayed_reset_is_taken_from_what_has_leaked():
    layer = one(decay=0.5, threshold=1.0, reset="subtract", reset_delay=True, compare=">")
    spikes, v, _ = steps(layer, [1.5, 0, 0])
    assert spikes == [1, 0, 0] and v == [1.5, -0.25, -0.125]


def test_a_refractory_neuron_stays_as_it_is_and_its_current_goes_on():
    layer = one(decay=0.5, current_decay=0.5, threshold=1.0, reset="zero", refractory=2)
    spikes, v, i = steps(layer, [2, 0, 8, 0, 0])
    assert i == [2, 1, 8.5, 4.25, 2.125]
    assert spikes == [1, 0, 0, 1, 0] and v == [0, 0, 0, 0, 0]


def test_resets_to_zero_a_value_and_none():
    assert steps(one(reset="value", reset_value=-0.5), [1.5, 0.25])[1] == [-0.5, -0.25]
    assert steps(one(reset="none"), [1.5, 0.25]) == ([1, 1], [1.5, 1.75], [1.5, 0.25])


def without_rounding(layer: FrozenLayer) -> FrozenLayer:
    """The layer with nothing that rounds or clips: no leak, and states of 40 bits."""
    terms = {"current_leak": Leak(), "current_width": 40} if layer.has_current else {}
    return replace(layer, leak=Leak(), membrane_width=40, **terms)


def in_float(layer: FrozenLayer, name: str) -> FloatLayer:
    """The same layer with its integers as float64."""
    projections = [
        replace(p, connections=p.connections.with_weights(p.connections.weights * 2.0**layer.fraction_bits))
        for p in layer.projections
    ]
    return FloatLayer.from_projections(
        projections,
        name=name,
        shape=layer.shape,
        threshold=layer.threshold,
        bias=layer.bias,
        current_decay=1.0 if layer.has_current else None,
        reset=layer.reset,
        reset_value=float(layer.reset_value),
        reset_delay=layer.reset_delay,
        compare=layer.compare,
        refractory=layer.refractory,
    )


@pytest.mark.parametrize("block", range(5))
def test_whole_numbers_without_a_leak_are_the_golden_models(block):
    """The same structures, codings, terms and readouts, with the integers as float weights."""
    compared = 0
    for seed in range(20 * block, 20 * block + 20):
        rng = np.random.default_rng(seed)
        frozen = random_structure(rng)
        if frozen.coding.input_bits > 1:
            # A step of such an input is no number of float64.
            continue
        frozen = frozen.with_layers([without_rounding(layer) for layer in frozen.layers])
        layers = tuple(in_float(layer, str(index)) for index, layer in enumerate(frozen.layers))
        network = FloatNetwork(layers, frozen.timesteps, frozen.coding, frozen.readout)
        network.validate()
        stimulus = random_stimulus(rng, frozen, 4)
        exact, whole = floating.run(network, stimulus), golden.run(frozen, stimulus)
        for a, b, v, w in zip(exact.spikes, whole.spikes, exact.membranes, whole.membranes, strict=True):
            assert np.array_equal(a > 0, b) and np.array_equal(v, w)
        assert np.array_equal(exact.values, whole.values) and np.array_equal(exact.decisions, whole.decisions)
        compared += 1
    assert compared > 5


def test_an_input_current_is_a_part_of_one():
    network = FloatNetwork((one(threshold=10.0),), 2, InputCoding("current", 2))
    stimulus = Stimulus(1, 2, np.zeros(3, np.int32), values=np.array([[0], [2], [3]], np.uint8))
    np.testing.assert_allclose(floating.run(network, stimulus).membranes[0][:, :, 0], [[0, 0], [2 / 3, 4 / 3], [1, 2]])


def test_a_stimulus_is_checked():
    network = FloatNetwork((one(),), 1, InputCoding("current", 4))
    label = np.zeros(1, np.int32)
    with pytest.raises(InputError, match="stimulus value 16 exceeds 4 bits"):
        floating.run(network, Stimulus(1, 1, label, values=np.array([[16]], np.uint8)))
    with pytest.raises(InputError, match=r"a source is outside 0\.\.0"):
        floating.run(FloatNetwork((one(),), 1), Stimulus(1, 1, label, np.array([0, 1]), np.array([7], np.int32)))


def test_several_spikes_are_as_many_as_a_threshold_fits_in_and_one_where_it_always_does():
    ones = Stimulus.from_dense(np.ones((1, 1, 1), bool))
    for threshold, spikes in ((0.3, 3), (1.0, 1), (0.0, 1), (-2.0, 1), (1e-30, 2**53)):
        network = FloatNetwork((one(threshold=threshold),), 1)
        assert floating.run(network, ones, several=True).spikes[0].item() == spikes


def test_numbers_of_numpy_are_numbers():
    assert one(reset_delay=np.True_).reset_delay is True


def test_what_is_out_of_range_is_named():
    for terms, line in (
        ({"decay": 1.5}, "decay 1.5 is outside 0..1"),
        ({"decay": -0.1}, "decay -0.1 is outside 0..1"),
        ({"threshold": np.nan}, "threshold holds NaN"),
        ({"reset": "soft"}, "reset 'soft' is none of"),
        ({"reset": "zero", "reset_delay": True}, "reset_delay needs reset 'subtract'"),
        ({"reset_delay": True, "refractory": 1}, "reset_delay with refractory = 1"),
        ({"refractory": -1}, "refractory = -1"),
        ({"compare": "<"}, "compare '<' is none of"),
        ({"bias": np.ones(3)}, "bias has the shape"),
    ):
        with pytest.raises(InputError, match=line):
            one(**terms)
    with pytest.raises(InputError, match=r"weights of a .* hold NaN"):
        Synapses.from_dense([[np.inf]], np.float64)
    network = FloatNetwork((one(),), 4)
    with pytest.raises(InputError, match="stimulus has 2 inputs, the network 1"):
        floating.run(network, Stimulus.from_dense(np.zeros((1, 4, 2), bool)))
    with pytest.raises(InputError, match="needs reset 'none'"):
        replace(network, readout="membrane_sum").validate()
    with pytest.raises(InputError, match="does not have the network's input coding 'current'"):
        floating.run(replace(network, coding=InputCoding("current", 4)), Stimulus.from_dense(np.zeros((1, 4, 1), bool)))
