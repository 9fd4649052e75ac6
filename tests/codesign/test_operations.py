"""Training drawn to an amount of work: one count of synaptic operations, its gradient, and what comes of it."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from codesign.basics.errors import InputError
from codesign.config import parse_config
from codesign.contract import golden
from codesign.data import load_dataset
from codesign.data.encoders import encode
from codesign.quantise.freeze import freeze
from codesign.train import train
from codesign.train.losses import total_loss
from codesign.train.model import SpikingNetwork, output_of

CONV = {"kind": "conv", "channels": 5, "norm": True}
DEEP = [
    CONV | {"stride": 2},
    {"kind": "pool", "size": 2},
    {"kind": "residual", "channels": 5},
    {"kind": "residual", "channels": 4, "stride": 2, "norm": False},
    {"kind": "dense", "width": 6, "recurrent": True},
]


def configured(**sections):
    train_options = {
        "threads": 1,
        "epochs": 10,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "rewiring": {"target_density": 0.3},
        **sections.pop("train", {}),
    }
    return parse_config(
        {
            "data": {"train_limit": 512, "test_limit": 60, "validation": 150},
            "network": {"timesteps": 3, "layers": [CONV | {"stride": 2}, CONV]},
            "train": train_options,
            "freeze": {"epochs": 2},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def digits():
    return load_dataset(configured().data)


@pytest.fixture(scope="module")
def free(digits, tmp_path_factory):
    """A training without a target, and its folder."""
    folder = tmp_path_factory.mktemp("free")
    return folder, train(configured(), digits, folder)


def deep_network(train_options=None):
    config = parse_config(
        {"network": {"timesteps": 4, "readout": "spike_count", "layers": DEEP}, "train": train_options or {}}
    )
    made = SpikingNetwork((2, 14, 12), 4, config.network, config.train)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in made.sparse_parameters().values():
            weight *= torch.rand(weight.shape, generator=random) < 0.4
    inputs = (torch.rand(4, 3, 2 * 14 * 12, generator=random) < 0.3).float()
    return config, made, inputs, made(inputs)


def test_the_gradient_of_the_term_is_what_a_spike_more_adds():
    """Operations are linear in the spikes: one spike more or less is an exact finite difference."""
    target = 1000.0
    config, made, inputs, output = deep_network({"operations_target": target, "operations_weight": 0.5})
    spikes = [layer.detach().clone().requires_grad_() for layer in output.spikes]
    labels = torch.arange(3)

    def counted(fired):
        return output_of("spike_count", fired, output.potentials.detach(), partial(made._activity, inputs, fired))

    now = counted(spikes).activity().operations.sum()
    per_sample = float(now.detach()) / 3
    assert per_sample > target
    # The scores depend on the last layer's spikes, which no layer reads: those of the others have the term alone.
    gradients = torch.autograd.grad(total_loss(counted(spikes), labels, config.train), spikes[:-1])
    operations = torch.autograd.grad(now, spikes[:-1])
    random = np.random.default_rng(0)
    seen = set()
    for layer, (whole, part) in enumerate(zip(operations, gradients, strict=True)):
        for at in random.integers(0, whole.numel(), 25):
            with torch.no_grad():
                flipped = [fired.clone() for fired in spikes]
                cell = flipped[layer].view(-1) if flipped[layer].is_contiguous() else flipped[layer].reshape(-1)
                before = float(cell[at])
                cell[at] = 1 - before
                flipped[layer] = cell.reshape(spikes[layer].shape)
                difference = float(counted(flipped).activity().operations.sum() - now) * (1 - 2 * before)
            assert float(whole.reshape(-1)[at]) == difference
            assert float(part.reshape(-1)[at]) == pytest.approx(0.5 * difference / float(now.detach()), rel=1e-6)
            seen.add(difference)
    assert len(seen) > 10 and min(seen) >= 0


def test_the_term_is_silent_at_the_target_and_below():
    _, _, _, output = deep_network()
    per_sample = float(output.activity().operations.sum().detach()) / 3
    labels = torch.arange(3)

    def loss(options, found=output):
        return float(total_loss(found, labels, parse_config({"train": options}).train).detach())

    plain = loss({})
    assert loss({"operations_target": per_sample}) == loss({"operations_target": 2 * per_sample}) == plain
    twice = loss({"operations_target": per_sample / 2, "operations_weight": 3.0})
    assert twice == pytest.approx(plain + 3 * math.log(2), rel=1e-6)
    silent = replace(output, activity=lambda: replace(output.activity(), operations=torch.zeros(7)))
    assert loss({"operations_target": 5.0}, silent) == plain


def test_a_trained_network_has_the_work_it_was_drawn_to(digits, free, tmp_path):
    _, without = free
    before = without.chosen["synaptic_operations_per_sample"]
    target = 0.6 * before
    options = {"operations_target": target, "operations_weight": 0.3}
    lines = []
    with_target = train(
        configured(train=options), digits, tmp_path, progress=lambda done, total, text="": lines.append(text)
    )
    after = with_target.chosen["synaptic_operations_per_sample"]
    assert after < 1.15 * target < before
    assert with_target.accuracy_validation > without.accuracy_validation - 0.1
    assert with_target.density == without.density
    assert f"operations {with_target.history[-1]['synaptic_operations_per_sample']:,.0f}" in lines[-1]


def test_fine_tuning_is_drawn_to_the_work_too(digits, free):
    folder, without = free
    plain = freeze(configured(), folder, digits)
    target = 0.5 * without.chosen["synaptic_operations_per_sample"]
    options = {"operations_target": target, "operations_weight": 2.0}
    lines = []
    drawn = freeze(
        configured(train=options, freeze={"epochs": 4, "learning_rate": 5e-3}),
        folder,
        digits,
        progress=lambda done, total, text="": lines.append(text),
    )
    rows = [row["synaptic_operations_per_sample"] for row in drawn.details["fine_tuning"]]
    assert rows[0] == plain.details["fine_tuning"][0]["synaptic_operations_per_sample"]
    assert rows[-1] < 0.8 * rows[0]
    assert lines[-1].endswith(f"operations {rows[-1]:,.0f}")


def test_reported_operations_are_those_of_the_golden_model(digits, free):
    folder, _ = free
    config = configured(freeze={"epochs": 0})
    result = freeze(config, folder, digits)
    assert result.details["removed_synapses"] == 0
    stimulus, _ = encode(digits, digits.validation, config.data, config.network.timesteps)
    trace = golden.run(result.network, stimulus, membranes=False)
    (row,) = result.details["fine_tuning"]
    assert row["synaptic_operations_per_sample"] == pytest.approx(
        trace.synaptic_operations.sum() / len(stimulus), rel=1e-12
    )


def test_what_no_spike_could_change_is_refused():
    with pytest.raises(InputError, match=r"operations_target draws on the spikes of hidden layers") as caught:
        parse_config({"network": {"hidden": []}, "train": {"operations_target": 100.0}})
    assert "\n" not in str(caught.value)
