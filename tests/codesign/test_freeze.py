"""Quantised forward against the golden model, scales, dead code, and the whole step on digits."""

import numpy as np
import pytest
import torch

from codesign.basics.errors import CodesignWarning, InputError
from codesign.config import parse_config
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.scaling import layer_scale, weight_scale
from codesign.contract.stimulus import Stimulus
from codesign.data import load_dataset
from codesign.data.encoders import encode, input_coding
from codesign.quantise import freeze as freezing
from codesign.quantise.freeze import decided_otherwise, freeze, freeze_model, load_trained
from codesign.train import train
from codesign.train.batches import Batches, input_shape
from codesign.train.loop import keeping_threads
from codesign.train.model import SpikingNetwork
from codesign.train.quantised import QuantisedNetwork, round_through


def configured(data=None, network=None, train_options=None, freeze_options=None):
    return parse_config(
        {
            "data": {"train_limit": 256, "test_limit": 40, "validation": 100, **(data or {})},
            "network": {"timesteps": 6, "readout": "spike_count"}
            | ({} if "layers" in (network or {}) else {"hidden": [14]})
            | (network or {}),
            "train": {
                "threads": 1,
                "epochs": 4,
                "batch_size": 32,
                "learning_rate": 1e-2,
                "rewiring": {"target_density": 0.3},
                **(train_options or {}),
            },
            "freeze": {"epochs": 1, **(freeze_options or {})},
        }
    )


CONV = {"kind": "conv", "channels": 5, "norm": True}
CASES = {
    "current": {},
    "current, 8 bits in, 8 bits weight": {"data": {"input_bits": 8}, "freeze": {"weight_bits": 8}},
    "rate, zero reset": {"data": {"coding": "rate"}, "network": {"reset": "zero"}, "freeze": {"weight_bits": 3}},
    "latency, multiply": {"data": {"coding": "latency"}, "network": {"leak": "multiply", "leak_decay": 0.8}},
    "delta, deep": {"data": {"coding": "delta"}, "network": {"hidden": [9, 12], "compare": ">"}},
    "no leak, no reset": {"network": {"leak": "none", "reset": "none"}, "freeze": {"weight_bits": 2}},
    "membrane_last": {"network": {"readout": "membrane_last", "leak_shift": 4}},
    "membrane_sum": {"network": {"readout": "membrane_sum", "hidden": []}, "data": {"coding": "rate"}},
    "membrane_max": {"network": {"readout": "membrane_max"}, "data": {"coding": "rate"}},
    "saturating": {"freeze": {"membrane_width": 9}},
    "many fraction bits": {"freeze": {"fraction_bits": 14}, "network": {"leak_shift": 6}},
    "scale per neuron": {"network": {"hidden": [9, 12]}, "freeze": {"scale": "neuron"}},
    "scale per neuron, membrane_sum": {"network": {"readout": "membrane_sum"}, "freeze": {"scale": "neuron"}},
    "recurrent": {
        "network": {"hidden": [14, 9], "recurrent": True, "recurrent_scale": 1.0},
        "data": {"coding": "rate"},
    },
    "recurrent, current, leak per neuron": {
        "network": {"recurrent": True, "recurrent_scale": 0.8, "learn_leak": "neuron"},
        "freeze": {"scale": "neuron"},
    },
    "learnt leak, multiply": {
        "network": {"leak": "multiply", "learn_leak": "layer", "layers": [CONV]},
        "data": {"coding": "latency"},
    },
    "conv": {"network": {"layers": [CONV, {"kind": "pool"}, CONV | {"stride": 2, "kernel": 4, "padding": 2}]}},
    "conv, events, sum pool": {
        "network": {
            "layers": [CONV | {"norm": False}, {"kind": "pool", "size": 3, "mode": "sum"}],
            "readout": "membrane_max",
        },
        "data": {"coding": "rate"},
    },
    "pooled input": {"network": {"layers": [{"kind": "pool"}, CONV, {"kind": "dense", "width": 9, "recurrent": True}]}},
    "pooled input, events": {"network": {"layers": [{"kind": "pool", "mode": "sum"}]}, "data": {"coding": "latency"}},
    "residual": {
        "network": {
            "layers": [CONV, {"kind": "residual", "channels": 5}, {"kind": "residual", "channels": 7, "stride": 2}],
            "learn_leak": "neuron",
        },
        "freeze": {"weight_bits": 8},
    },
    "residual on a pooled picture": {
        "network": {
            "layers": [CONV, {"kind": "pool"}, {"kind": "residual", "channels": 5}, {"kind": "pool", "mode": "sum"}],
            "reset": "zero",
        },
        "data": {"coding": "rate"},
        "freeze": {"scale": "neuron"},
    },
    "residual on the input": {"network": {"layers": [{"kind": "residual", "channels": 1}, CONV]}},
}


@pytest.mark.parametrize("name", CASES)
def test_quantised_forward_equals_the_golden_model(name):
    case = CASES[name]
    config = configured(case.get("data"), case.get("network"), None, case.get("freeze"))
    dataset = load_dataset(config.data)
    stimulus, _ = encode(dataset, dataset.validation, config.data, config.network.timesteps)
    trained = SpikingNetwork(input_shape(dataset, config.data), 10, config.network, config.train)
    batches = Batches(stimulus)
    input_max = (1 << config.data.input_bits) - 1 if stimulus.is_current else 1
    trained.scale_initial_weights(batches.take(np.arange(50)) / input_max)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _ in range(30):
            trained(batches.take(np.arange(50)) / input_max)  # moves the running statistics
        for key, parameter in trained.named_parameters():
            if key.endswith(("bias", "leak")):
                parameter += torch.randn(parameter.shape, generator=random) * (1.0 if key.endswith("leak") else 0.1)
            elif parameter.dim() > 1:
                parameter *= torch.rand(parameter.shape, generator=random) < 0.7
    model = QuantisedNetwork(trained, config.freeze, input_coding(dataset, config.data))
    spiking = [neuron.spiking for neuron in model.neurons]
    width = config.freeze.membrane_width
    widths = [width] * len(spiking) if width else model.membrane_widths(batches.ordered(64), 1.0)
    model.set_membrane_widths([w if fires else None for w, fires in zip(widths, spiking, strict=True)])
    frozen = model.export(widths)
    with torch.no_grad():
        inputs = batches.take(np.arange(len(stimulus)))
        potentials, spikes, stored = model.run(inputs)
        output = model(inputs)
        activity, decided = output.activity(), output.scores.argmax(1).numpy()
    trace = golden.run(frozen, stimulus)
    assert sum(int(layer.sum()) for layer in trace.spikes) > 100 or not any(spiking)
    assert trace.membranes[-1].std(axis=0).max() > 0
    for layer in range(len(spiking)):
        assert np.array_equal(spikes[layer].transpose(0, 1).flatten(2).numpy() > 0, trace.spikes[layer])
        assert np.array_equal(stored[layer].transpose(0, 1).flatten(2).double().numpy(), trace.membranes[layer])
    assert activity.operations.tolist() == trace.synaptic_operations.sum(0).tolist()
    assert activity.spikes.tolist() == trace.spike_counts.sum(0).tolist()
    values = golden.readout_values(
        frozen, trace.spikes[-1], potentials[-1].transpose(0, 1).double().numpy().astype(np.int64)
    )
    assert np.array_equal(values[:, -1], trace.values)
    # What the fine-tuning judges by is what the frozen network decides; of classes that are equal it may take another.
    assert np.array_equal(trace.values[np.arange(len(decided)), decided], trace.values.max(axis=1))
    assert decided_otherwise(model, batches, trace.decisions) == 0
    unlike = trace.decisions.copy()
    widest = np.ptp(trace.values, axis=1).argmax()
    unlike[widest] = trace.values[widest].argmin()
    assert decided_otherwise(model, batches, unlike) == 1
    for plan, layer in zip(model.plans, frozen.layers, strict=True):
        assert [p.source for p in layer.projections] == [p.source for p in plan.projections]
    if name == "saturating":
        assert trace.saturations.sum() > 0
    if name == "many fraction bits":
        assert model.dtype == torch.float64
    else:
        assert model.dtype == torch.float32


def test_default_fraction_bits_are_the_fewest_that_keep_the_leak():
    weights = np.array([-0.9, 0.3, 0.5])
    scale = layer_scale([weights], 6, 3, None, "layer 0")
    assert scale.threshold[0] >= 1 << 6
    assert round(scale.unit[0] / 2) < 1 << 6 or scale.fraction_bits == 0
    assert scale.fraction_bits > 0
    assert layer_scale([weights / 255], 6, 3, None, "layer 0").fraction_bits == 0
    fixed = layer_scale([weights], 6, 3, 5, "layer 0")
    assert (fixed.fraction_bits, fixed.threshold.tolist()) == (5, [round(32 / fixed.step[0])])


def test_a_scale_per_neuron_shares_the_fraction_bits():
    scale = layer_scale([np.array([-0.9, 0.3]), np.array([0.01, 0.02]), np.array([])], 6, 3, None, "layer 0")
    assert scale.threshold.min() >= 1 << 6 and round(scale.unit.min() / 2) < 1 << 6
    assert scale.step[1] < scale.step[0] / 10
    assert scale.threshold.tolist() == np.round(2.0**scale.fraction_bits / scale.step).tolist()


@pytest.mark.parametrize("size", [1.0, 0.0005])
def test_neurons_that_nothing_reaches_ask_for_no_bits(size: float):
    weights = [np.array([-0.9, 0.3]) * size, np.array([0.4, 0.2]) * size]
    thresholds = np.array([size, 2 * size, 0.001 * size])
    alone = layer_scale(weights, 6, 3, None, "layer 0", threshold=thresholds[:2])
    beside = layer_scale([*weights, np.zeros(2)], 6, 3, None, "layer 0", threshold=thresholds)
    assert beside.fraction_bits == alone.fraction_bits
    assert beside.step[:2].tolist() == alone.step.tolist()
    assert beside.threshold[2] == alone.threshold.min()
    assert layer_scale([np.zeros(2)], 6, 3, None, "layer 0", threshold=size).fraction_bits == 6


def test_an_identity_is_within_the_weights_range():
    small = np.full(500, 0.01)
    assert layer_scale([small], 6, 3, None, "layer 0").step[0] < 1 / 31
    assert layer_scale([small], 6, 3, None, "layer 0", identity=1.0).step[0] == 1 / 31


def test_weights_that_cannot_be_represented_are_refused():
    with pytest.raises(InputError, match=r"layer 1: weights up to .* cannot be represented"):
        layer_scale([np.array([1e6, -1e6])], 2, 4, None, "layer 1")
    with pytest.raises(InputError, match="threshold rounds to 0"):
        layer_scale([np.array([100.0])], 2, 4, 0, "layer 1")


def test_weight_scale_has_the_least_error():
    weights = np.random.default_rng(0).normal(size=5000)
    for limit in (1, 7, 31):
        scale = weight_scale(weights, limit)

        def error(step, limit=limit):
            return ((weights - step * np.clip(np.round(weights / step), -limit, limit)) ** 2).sum()

        assert error(scale) <= error(np.abs(weights).max() / limit)
        assert error(scale) <= min(error(scale * 0.9), error(scale * 1.1)) * 1.01
    assert weight_scale(np.zeros(3), 7) == 1.0


def test_rounding_passes_gradients():
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    (round_through(x) * torch.tensor([2.0, 3.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 3.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = configured(train_options={"epochs": 25, "learning_rate": 2e-2})
    dataset = load_dataset(config.data)
    folder = tmp_path_factory.mktemp("run")
    return config, dataset, train(config, dataset, folder)


def test_freezing_digits(run, tmp_path, monkeypatch):
    config, dataset, trained = run
    result = freeze(config, trained, dataset)
    network = result.network
    network.save(tmp_path / "network.safetensors")
    assert FrozenNetwork.load(tmp_path / "network.safetensors").hash == network.hash == result.figures["network_hash"]
    assert len(result.test_stimulus) == 40
    trace = golden.run(network, result.test_stimulus)
    decisions = trace.decisions
    others = np.where(np.arange(network.n_outputs) == decisions[:, None], np.iinfo(np.int64).min, trace.values)
    assert np.array_equal(result.decisions, decisions)
    assert np.array_equal(result.margins, trace.values.max(axis=1) - others.max(axis=1)) and result.margins.any()
    details = result.details
    assert sum(details["synapses"]) - details["removed_synapses"] == network.n_synapses
    for whole, gone, pathless, layer in zip(
        *(details[key] for key in ("neurons", "removed_neurons", "neurons_without_path")), network.layers, strict=True
    ):
        assert whole - gone == layer.n_out and 0 <= pathless <= gone
    assert result.figures["accuracy_frozen"] == np.mean(decisions == dataset.test.labels) > 0.5
    assert abs(result.figures["accuracy_frozen"] - result.figures["accuracy_float"]) < 0.15
    recalls = [np.mean(decisions[dataset.test.labels == label] == label) for label in range(10)]
    assert result.figures["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert result.figures["density"] <= 0.3
    assert result.figures["synapses"] == network.n_synapses
    assert max(layer.weight_bits for layer in network.layers) == 6
    leak_bits = config.network.leak_shift
    assert all((layer.threshold >= 1 << (leak_bits + 3)).all() for layer in network.layers)
    assert len(result.calibration) == 100
    monkeypatch.setattr(freezing, "CALIBRATION_SAMPLES", 10)
    with keeping_threads():
        torch.set_num_threads(3)
        again = freeze(config, trained.folder, dataset)
        assert torch.get_num_threads() == 3
    assert again.network.hash == network.hash
    assert np.array_equal(again.calibration.values, result.calibration.values[::10])


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weight_bits_bound_the_weights(run, bits):
    config, dataset, trained = run
    options = config.freeze.model_copy(update={"weight_bits": bits, "epochs": 0})
    frozen = freeze(config.model_copy(update={"freeze": options}), trained, dataset).network
    assert max(int(np.abs(layer.weights).max()) for layer in frozen.layers) == (1 << (bits - 1)) - 1


def test_membrane_widths_come_from_training_data_with_a_margin(run):
    config, dataset, trained = run
    result = freeze(config, trained, dataset)
    stimulus, _ = encode(dataset, dataset.train, config.data, config.network.timesteps)
    trace = golden.run(result.network, stimulus)
    assert trace.saturations.sum() == 0
    for layer, membranes in zip(result.network.layers, trace.membranes, strict=True):
        largest = max(int(membranes.max()), -int(membranes.min()))
        assert layer.membrane_max >= 1.25 * largest - 1
        assert layer.membrane_max < 4 * 1.25 * largest


def test_a_checkpoint_of_another_network_is_refused(run):
    config, dataset, trained = run
    other = config.model_copy(update={"network": config.network.model_copy(update={"hidden": [15]})})
    with pytest.raises(InputError, match=r"layers\.0\.bias is 14, the configuration says 15"):
        load_trained(other, trained, dataset)
    deeper = config.model_copy(update={"network": config.network.model_copy(update={"hidden": []})})
    with pytest.raises(InputError, match="not a checkpoint of the configured network"):
        load_trained(deeper, trained, dataset)
    with pytest.raises(InputError, match="no such checkpoint"):
        load_trained(config, trained.folder / "elsewhere.safetensors", dataset)


def test_neurons_that_go_are_counted_by_the_reason():
    config = configured(train_options={"epochs": 1}, freeze_options={"epochs": 0})
    model = SpikingNetwork(6, 3, config.network, config.train)
    hidden, last = (layer.projections[0] for layer in model.layers)
    with torch.no_grad():
        # Of the hidden neurons 0 and 1 reach nothing, 2 is reached by nothing; 0 is both, and counts as the former.
        last.weight[:, :2] = 0
        hidden.weight[[0, 2]] = 0
    samples = Stimulus.from_dense(
        np.random.default_rng(0).random((8, config.network.timesteps, 6)) < 0.5, np.arange(8) % 3
    )
    removed = freeze_model(model, config, samples, samples).removed
    assert removed["removed_neurons"] == [3, 0] and removed["neurons_without_path"] == [2, 0]


def test_a_frozen_network_that_decides_otherwise_than_the_one_it_was_made_of_is_said(monkeypatch):
    config = configured(network={"readout": "membrane_sum"}, freeze_options={"scale": "neuron", "epochs": 0})
    model = SpikingNetwork(6, 3, config.network, config.train)
    with torch.no_grad():
        # Class 1 has weights twenty times as large, and in units of its own it looks like the others.
        model.layers[-1].projections[0].weight[1] *= 20
    samples = Stimulus.from_dense(
        np.random.default_rng(0).random((40, config.network.timesteps, 6)) < 0.5, np.arange(40) % 3
    )
    freeze_model(model, config, samples, samples)
    monkeypatch.setattr("codesign.train.quantised.scale_of", lambda scale, *, silent: scale)
    with pytest.warns(CodesignWarning, match=r"decides \d+ of 40 validation samples otherwise than"):
        freeze_model(model, config, samples, samples)


@pytest.mark.deep
def test_the_digits_example_reaches_its_accuracy_over_three_seeds(tmp_path):
    from pathlib import Path

    from codesign.config import load_config

    accuracies = []
    for seed in range(3):
        config = load_config(Path(__file__).parents[2] / "examples" / "digits.toml", seed=seed)
        dataset = load_dataset(config.data)
        assert (len(dataset.validation), len(dataset.test)) == (150, 360)
        result = freeze(config, train(config, dataset, tmp_path / str(seed)), dataset)
        assert result.figures["density"] <= 0.2
        accuracies.append(result.figures["accuracy_frozen"])
    assert np.mean(accuracies) >= 0.96
