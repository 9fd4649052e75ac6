"""Float networks become integers: what stays the same, by how much the rest changes, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract import floating, golden
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import INPUT, Leak, Projection, Synapses
from codesign.contract.stimulus import Stimulus
from codesign.quantise import integers
from codesign.quantise.integers import EXACT, kept_fraction, quantise, snapped_leak


def network_of(*matrices, timesteps: int = 12, readout: str = "spike_count", **terms) -> FloatNetwork:
    layers = tuple(
        FloatLayer.from_projections([Projection(index - 1, Synapses.from_dense(matrix, np.float64))], **terms)
        for index, matrix in enumerate(matrices)
    )
    network = FloatNetwork(layers, timesteps, readout=readout)
    network.validate()
    return network


def random_events(rng, network: FloatNetwork, n: int = 20, rate: float = 0.4) -> Stimulus:
    return Stimulus.from_dense(rng.random((n, network.timesteps, network.n_inputs)) < rate)


def test_weights_that_are_whole_steps_stay_what_they_are():
    """Without a leak to round, integers times a step give the spikes of the float network, every one."""
    rng = np.random.default_rng(0)
    for step in (1.0, 0.03, 7.5):
        whole = [rng.integers(-127, 128, shape) for shape in ((20, 15), (15, 5))]
        for matrix in whole:
            # Every neuron's largest weight is there, so that its step is found.
            matrix[0] = 127
        network = network_of(*(step * matrix for matrix in whole), threshold=step * 200, reset="subtract", compare=">=")
        stimulus = random_events(rng, network)
        found = quantise(network, stimulus)
        exact, trace = floating.run(network, stimulus), golden.run(found.network, stimulus)
        # A threshold that is met exactly may fall to either side by a rounding of float64.
        assert all(np.mean((a > 0) != b) < 0.02 for a, b in zip(exact.spikes, trace.spikes, strict=True))
        assert np.array_equal(found.network.layers[0].dense(), whole[0])


def test_more_bits_are_nearer():
    rng = np.random.default_rng(1)
    network = network_of(rng.normal(size=(40, 30)), rng.normal(size=(30, 10)), threshold=2.0, decay=0.875, reset="zero")
    stimulus = random_events(rng, network, 40)
    exact = floating.run(network, stimulus)
    differ = []
    for bits in (3, 5, 8):
        trace = golden.run(quantise(network, stimulus, weight_bits=bits).network, stimulus)
        differ.append(sum(int(np.sum((a > 0) != b)) for a, b in zip(exact.spikes, trace.spikes, strict=True)))
    assert differ[0] > 2 * differ[1] > 4 * differ[2]
    layers = quantise(network, stimulus, weight_bits=[4, 8]).network.layers
    assert np.abs(layers[0].weights).max() == 7 and np.abs(layers[1].weights).max() > 63


@pytest.mark.parametrize(
    ("decay", "leak"),
    [
        (1.0, Leak()),
        (0.0, Leak("shift", 0)),
        (0.5, Leak("shift", 1)),
        (0.96875, Leak("shift", 5)),
        (0.9, Leak("multiply", 8, 230)),
        (0.999, Leak("shift", 10)),
        (1 - 1 / 9.999997, Leak("multiply", 8, 230)),
    ],
)
def test_a_leak_becomes_the_cheapest_that_is_near_enough(decay, leak):
    found, change = snapped_leak(np.full(3, decay), 0.03, "layer 0", "decay")
    assert found == leak
    off = abs(kept_fraction(leak) - decay) / max(1 - decay, 1e-12) if decay < 1 else 0.0
    assert (change is None) == (off <= EXACT) and (change is None or change.amount == pytest.approx(off))


def test_leaks_of_single_neurons_are_their_own():
    found, change = snapped_leak(np.array([0.5, 0.75, 0.875]), 0.02, "x", "decay")
    assert found.kind == "shift" and np.asarray(found.shift).tolist() == [1, 2, 3] and change is None
    found, change = snapped_leak(np.array([1.0, 0.9]), 0.02, "x", "decay")
    assert found.kind == "multiply" and np.asarray(found.multiplier).tolist() == [256, 230] and change is not None


def test_a_leak_beyond_its_tolerance_is_refused_unless_allowed():
    network = network_of([[1.0]], decay=0.99999)
    with pytest.raises(InputError, match=r"leak tolerance of 0\.\d+"):
        quantise(network, leak_tolerance=0.0001)
    # Where it is allowed it is listed with its size.
    found = quantise(network_of([[1.0]], decay=0.9), leak_tolerance=0.3)
    (change,) = [change for change in found.changes if change.what == "decay"]
    assert change.amount == pytest.approx(0.25) and "1 - 2^-3" in change.text
    with pytest.raises(InputError, match=r"outside 0\.\.1"):
        snapped_leak(np.array([1.01]), 0.02, "x", "decay")
    with pytest.raises(InputError, match=r"decay 1.01 is outside"):
        network_of([[1.0]], decay=1.01)


def test_classes_of_a_membrane_readout_share_their_unit():
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(20, 4)) * [0.1, 1, 1, 5]
    network = network_of(matrix, readout="membrane_sum", reset="none", decay=0.75)
    stimulus = random_events(rng, network, 60)
    found = quantise(network, stimulus, scale="neuron")
    assert found.scales[0].step.size == 1
    exact, trace = floating.run(network, stimulus), golden.run(found.network, stimulus)
    assert np.mean(exact.decisions == trace.decisions) > 0.95
    unit = found.scales[0].unit[0]
    np.testing.assert_allclose(trace.values / unit, exact.values, atol=0.1 * np.abs(exact.values).max())


def test_a_value_to_reset_to_is_one_for_the_layer():
    rng = np.random.default_rng(3)
    network = network_of(rng.normal(size=(8, 6)), reset="value", reset_value=0.25, threshold=1.5)
    found = quantise(network, random_events(rng, network))
    assert found.network.layers[0].reset_value == round(0.25 * found.scales[0].unit[0])
    layer = replace(network.layers[0], reset_value=np.linspace(0, 1, 6))
    with pytest.raises(UnsupportedError, match="neurons are reset to different values"):
        quantise(network.with_layers([layer]))


def test_identities_are_not_rounded_away():
    rng = np.random.default_rng(4)
    heavy = Projection(INPUT, Synapses.from_dense(rng.normal(size=(4, 4)) * 50, np.float64))
    light = Projection.identity(INPUT, (4, 1, 1), 0.001, dtype=np.float64)
    layer = FloatLayer.from_projections([heavy, light], threshold=60.0, shape=(4, 1, 1))
    found = quantise(FloatNetwork((layer,), 4)).network.layers[0]
    assert found.projections[1].connections.weights.tolist() == [1] * 4 and found.projections[1].fixed


def test_without_samples_nothing_was_measured_and_it_says_so():
    rng = np.random.default_rng(5)
    network = network_of(rng.normal(size=(30, 20)), decay=0.5)
    texts = [change.text for change in quantise(network).changes]
    assert any("nothing was measured" in text for text in texts)
    measured = quantise(network, random_events(rng, network))
    assert any("by 20 samples" in change.text for change in measured.changes)
    assert measured.network.layers[0].membrane_width < quantise(network).network.layers[0].membrane_width


def test_a_refractory_period_is_kept_or_dropped_and_listed():
    network = network_of([[1.0]], threshold=0.5, reset="zero", refractory=1)
    kept = quantise(network)
    assert kept.network.layers[0].refractory == 1 and not [c for c in kept.changes if c.what == "refractory"]
    found = quantise(network, drop_refractory=True)
    assert [change.what for change in found.changes].count("refractory") == 1
    every = Stimulus.from_dense(np.ones((1, 12, 1), bool))
    assert (
        floating.run(network, every).spikes[0].sum() == 6 and golden.run(found.network, every).spike_counts.sum() == 12
    )


def test_thresholds_are_whole():
    rng = np.random.default_rng(6)
    network = network_of(rng.normal(size=(30, 20)), threshold=rng.uniform(1, 3, 20), decay=0.5)
    found = quantise(network, scale="neuron")
    exact = found.scales[0].unit * network.layers[0].threshold
    np.testing.assert_allclose(exact, np.round(exact), atol=1e-6)
    assert np.array_equal(found.network.layers[0].threshold, np.round(exact))


def test_a_late_subtraction_is_within_the_bounds():
    """It comes beside an input that alone would fill the membrane."""
    network = network_of([[1.0], [-1.27]], threshold=1.0, decay=0.0, reset="subtract", reset_delay=True, timesteps=2)
    found = quantise(network)
    trace = golden.run(found.network, Stimulus.from_dense(np.array([[[1, 0], [0, 1]]], bool)))
    assert trace.membranes[0][0, 1, 0] == -227 and trace.saturations.sum() == 0


def test_widths_hold_the_samples_of_every_batch(monkeypatch):
    rng = np.random.default_rng(7)
    network = network_of(np.abs(rng.normal(size=(30, 5))), threshold=1000.0, reset="none")
    rates = np.array([0.9, 0.1, 0.1])[:, None, None]
    stimulus = Stimulus.from_dense(rng.random((3, 12, 30)) < rates)
    whole = quantise(network, stimulus).network.layers[0].membrane_width
    monkeypatch.setattr(integers, "CALIBRATION_BATCH", 1)
    assert quantise(network, stimulus).network.layers[0].membrane_width == whole
    assert quantise(network, stimulus.take([1, 2])).network.layers[0].membrane_width < whole


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"weight_bits": 9}, "weight_bits = 9 is outside 2..8"),
        ({"weight_bits": 1}, "weight_bits = 1 is outside 2..8"),
        ({"weight_bits": [8, 8]}, "2 entries for 1 layer"),
        ({"weight_bits": True}, "weight_bits = True"),
        ({"weight_bits": "8"}, "weight_bits = '8'"),
        ({"weight_bits": None}, "weight_bits = None"),
        ({"scale": "channel"}, "scale 'channel' is none of layer, neuron"),
        ({"leak_tolerance": math.nan}, "leak_tolerance = nan is no number of 0 or more"),
        ({"leak_tolerance": -0.1}, "leak_tolerance = -0.1 is no number"),
        ({"leak_tolerance": "1"}, "leak_tolerance = '1' is no number"),
        ({"margin": math.nan}, "margin = nan is no number of 1 or more"),
        ({"margin": 0.0}, "margin = 0.0 is no number of 1 or more"),
        ({"margin": math.inf}, "margin = inf is no number"),
    ],
)
def test_arguments_are_checked(arguments, line):
    with pytest.raises(InputError, match=line.replace(".", r"\.")):
        quantise(network_of([[1.0]]), **arguments)


def test_numbers_of_numpy_are_numbers():
    network = network_of([[1.0, 0.3]])
    wanted = quantise(network, weight_bits=5, margin=1.0, leak_tolerance=0.0).network.hash
    for bits in (np.int64(5), [np.int8(5)], np.array([5]), np.array(5)):
        found = quantise(network, weight_bits=bits, margin=np.float32(1), leak_tolerance=np.int64(0))  # type: ignore
        assert found.network.hash == wanted


def test_weights_that_are_tiny_beside_the_threshold_are_called_that():
    for size in (1e-13, 1e-20, 1e-200):
        with pytest.raises(UnsupportedError, match=r"threshold of 1 is beyond 2\^40 steps of its weights"):
            quantise(network_of([[size, size / 2]]))


def test_weights_beyond_reason_are_refused():
    with pytest.raises(InputError, match=r"a weight is zero, NaN or beyond \+-1e\+30"):
        network_of([[1e200, 1.0]])
