"""A float network as a torch module: its spikes are the reference's, and training changes what it may and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_floats import random_float_network, terms_of

import codesign
from codesign.basics.errors import InputError, UnsupportedError
from codesign.config import TrainConfig
from codesign.contract import floating
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import INPUT, Convolution, Projection, Synapses
from codesign.contract.stimulus import Stimulus
from codesign.train import floating as trained
from codesign.train.batches import Batches
from codesign.train.floating import FineTuning, FloatModel


def model_of(network: FloatNetwork) -> FloatModel:
    """In float64, with the network's own numbers."""
    model = FloatModel(network, TrainConfig()).double()
    for layer in model.populations:
        for part in layer.projections:
            dense = part.source.connections.dense()
            dense = dense.T if part.plan.kind == "dense" else dense
            part.weight.data.copy_(torch.from_numpy(dense / layer.unit))
        source = layer.source
        for name in ("threshold", "reset_value"):
            getattr(layer, name).copy_(torch.from_numpy(getattr(source, name) / layer.unit))
        for name in ("decay", "current_decay"):
            if getattr(source, name) is not None:
                getattr(layer, name).copy_(torch.from_numpy(getattr(source, name)))
        if layer.bias is not None:
            bias = (source.bias / layer.unit)[:: layer.plan.size // len(layer.bias)]
            layer.bias.data.copy_(torch.from_numpy(bias.copy()))
    return model


def run(model: FloatModel, stimulus: Stimulus) -> list[np.ndarray]:
    inputs = next(Batches(stimulus).ordered(len(stimulus)))[0].double()
    inputs = inputs * model.source.input_scale if stimulus.is_current else inputs
    with torch.no_grad():
        output = model(inputs)
    return [spikes.transpose(0, 1).flatten(2).numpy().astype(np.int64) for spikes in output.spikes]


def test_spikes_are_those_of_the_reference_for_every_term():
    seen: set[str] = set()
    for seed in range(60):
        network, stimulus = random_float_network(np.random.default_rng(seed))
        seen |= terms_of(network)
        exact = floating.run(network, stimulus)
        for ours, theirs in zip(run(model_of(network), stimulus), exact.spikes, strict=True):
            assert np.array_equal(ours, theirs), seed
    assert seen == terms_of(None)


@pytest.mark.parametrize("term", ["reset_delay", "refractory", "current_decay", "compare", "decay", "reset_value"])
def test_each_term_changes_spikes(term):
    """So the test above sees a term that is left out."""
    values = {
        "reset_delay": (True, False), "refractory": (2, 0), "current_decay": (0.5, None), "compare": (">", ">="),
        "decay": (0.9, 0.6), "reset_value": (-1.0, 0.4),
    }[term]  # fmt: skip
    stimulus = Stimulus.from_dense(np.random.default_rng(0).random((8, 20, 4)) < 0.5)
    given = {"timesteps": 20, "decay": 0.5, "reset": "value" if term == "reset_value" else "subtract"}
    weights = [np.full((4, 3), 0.5)]
    one, other = (
        run(model_of(FloatNetwork.from_arrays(weights, **{**given, term: value})), stimulus) for value in values
    )
    assert not np.array_equal(one[0], other[0])


def test_a_layer_is_trained_in_units_of_its_threshold():
    """The same network in volts and in millivolts is the same parameters, but for the nearest power of two."""
    weights = [np.random.default_rng(0).normal(size=(6, 5))]
    models = [
        FloatModel(FloatNetwork.from_arrays([weights[0] * size], timesteps=3, threshold=size), TrainConfig())
        for size in (1.0, 2.0**-10)
    ]
    assert torch.equal(*(model.populations[0].projections[0].weight for model in models))
    back = [model.network().layers[0] for model in models]
    assert [layer.threshold[0] for layer in back] == [1.0, 2.0**-10]
    volts, millivolts = (layer.projections[0].connections.weights for layer in back)
    assert np.allclose(volts * 2.0**-10, millivolts)


def clusters(n: int = 160, seed: int = 0, classes: int = 4) -> Stimulus:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    rates = np.where(np.arange(16) % classes == labels[:, None], 0.6, 0.1)
    return Stimulus.from_dense(rng.random((n, 6, 16)) < rates[:, None], labels)


def sparse_network(rng: np.random.Generator, **terms) -> FloatNetwork:
    weights = [rng.normal(size=(16, 24)) * (rng.random((16, 24)) < 0.3), rng.normal(size=(24, 4)) * 0.3]
    return FloatNetwork.from_arrays(weights, timesteps=6, decay=0.8, bias=[0.05, 0.0], **terms)


@pytest.mark.parametrize(
    "terms",
    [{"reset_delay": True, "compare": ">"}, {"current_decay": 0.6, "refractory": 1}, {"reset": "value"}],
    ids=["late", "current", "value"],
)
def test_fine_tuning_learns_at_the_connections_that_there_are(terms):
    network = sparse_network(np.random.default_rng(1), **terms)
    found, epoch, history = FineTuning(6, learning_rate=0.03)(network, clusters(), clusters(seed=1))
    accuracies = [row["validation_accuracy"] for row in history]
    assert accuracies[epoch] == max(accuracies) > accuracies[0] + 0.1
    for before, after in zip(network.layers, found.layers, strict=True):
        absent = before.projections[0].connections.dense() == 0
        assert not after.projections[0].connections.dense()[absent].any()
        for name in ("threshold", "decay", "reset_value"):
            assert np.array_equal(getattr(before, name), getattr(after, name))
        for name in ("reset", "reset_delay", "refractory", "compare"):
            assert getattr(before, name) == getattr(after, name)
    # A bias is trained where there is one, and stays none where there is none.
    assert not np.array_equal(network.layers[0].bias, found.layers[0].bias) and not found.layers[1].bias.any()
    # The float network is that of the epoch, in the reference's arithmetic.
    measured = np.mean(floating.run(found, clusters(seed=1)).decisions == clusters(seed=1).labels)
    assert abs(measured - accuracies[epoch]) < 0.02
    again = FineTuning(6, learning_rate=0.03)(network, clusters(), clusters(seed=1))[0]
    assert again.hash == found.hash


def test_convolutions_keep_their_taps_and_identities_their_weight():
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(4, 1, 3, 3))
    kernel[:, :, 0] = 0
    taps = Projection(INPUT, Convolution.from_dense(kernel, (1, 4, 4), 1, 1, np.float64))
    first = FloatLayer.from_projections([taps], decay=0.7)
    again = Convolution.from_dense(rng.normal(size=(4, 4, 1, 1)), (4, 4, 4), dtype=np.float64)
    second = FloatLayer.from_projections(
        [Projection(0, again), Projection.identity(0, (4, 4, 4), 0.5, dtype=np.float64)], decay=0.7
    )
    last = FloatLayer.from_projections([Projection(1, Synapses.from_dense(rng.normal(size=(64, 4)), np.float64))])
    network = FloatNetwork((first, second, last), 6)
    network.validate()
    found, epoch, _ = FineTuning(3)(network, clusters(), clusters(seed=1))
    assert epoch
    changed = found.layers[0].projections[0].connections.dense()
    assert not changed[:, :, 0].any() and not np.array_equal(changed, kernel)
    assert found.layers[1].projections[1] is network.layers[1].projections[1]


def test_what_cannot_be_trained_is_one_line(monkeypatch):
    network = sparse_network(np.random.default_rng(3))
    monkeypatch.setattr(trained, "MAX_MATRIX", 100)
    named = replace(network.layers[1], name="out")
    with pytest.raises(UnsupportedError, match=r"layer 0: its \d+ synapses cannot be trained: a matrix of all weights"):
        FloatModel(network.with_layers([network.layers[0], named]), TrainConfig())
    for epochs in (0, -1, 1.5, 10**9):
        with pytest.raises(InputError, match="fine-tuning takes 1 to"):
            codesign.FineTuning(epochs)  # type: ignore[arg-type]
    for options in ({"learning_rate": 0.0}, {"learning_rate": "x"}, {"seed": -1}, {"seed": 1 << 64}):
        with pytest.raises(InputError, match=next(iter(options))):
            FineTuning(1, **options)
