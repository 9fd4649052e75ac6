"""Training to a hardware budget: density falls until the quantised network fits, and no further."""

import numpy as np
import pytest
import torch

from codesign.basics.errors import InputError, UnsupportedError
from codesign.config import parse_config
from codesign.cost.budget import Budget
from codesign.data import load_dataset
from codesign.data.encoders import encode, input_coding
from codesign.train import checkpoint, train
from codesign.train.batches import input_shape
from codesign.train.fitting import BudgetCheck
from codesign.train.model import SpikingNetwork

START = 592  # half of the (64 + 10) x 16 weights


def config(limits=None, **sections):
    return parse_config(
        {
            "data": {"train_limit": 256, "test_limit": 40, "validation": 100},
            "network": {"hidden": [16], "timesteps": 4, "readout": "spike_count", **sections.get("network", {})},
            "train": {
                "threads": 1,
                "epochs": 12,
                "batch_size": 32,
                "learning_rate": 1e-2,
                "rewiring": {"target_density": 0.1, "epochs_per_iteration": 1} | sections.get("rewiring", {}),
            },
            "budget": {"memory_bits": 1, "weight_bits": [3, 5], "lanes": [1, 2]} | (limits or {}),
        }
    )


def budget(**limits):
    return Budget("the budget", None, limits, {}, None, (3, 5), (1, 2))


@pytest.fixture(scope="module")
def digits():
    return load_dataset(config().data)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A run whose budget is met on the way."""
    folder = tmp_path_factory.mktemp("met")
    return train(config(), digits, folder, budget=budget(memory_bits=5800))


def network_of(settings, digits, density, seed=0):
    torch.manual_seed(seed)
    network = SpikingNetwork(input_shape(digits, settings.data), 10, settings.network, settings.train)
    masks = {name: torch.rand(p.shape) < density for name, p in network.sparse_parameters().items()}
    with torch.no_grad():
        for name, parameter in network.sparse_parameters().items():
            parameter.mul_(masks[name])
    return network, masks


def check_of(settings, digits, **limits):
    coding = input_coding(digits, settings.data)
    stimuli = [encode(digits, part, settings.data, 4)[0] for part in (digits.train, digits.validation)]
    return BudgetCheck(budget(**limits), settings.freeze, coding, *stimuli)


def test_density_stops_at_the_first_network_that_fits(trained):
    rows = trained.history
    fits = [row["budget"]["fits"] for row in rows]
    first = fits.index(True)
    assert first > 0
    assert all(fits[first:])
    assert all(row["density"] == rows[first]["density"] for row in rows[first:])
    densities = [row["density"] for row in rows[: first + 1]]
    assert densities == sorted(densities, reverse=True)
    assert densities[0] > densities[-1] == trained.density > 0.1
    assert rows[first - 1]["budget"]["needed"]["memory_bits"] > 5800 >= rows[first]["budget"]["needed"]["memory_bits"]
    assert all(row["budget"]["weight_bits"] == 3 for row in rows)


def test_every_choice_is_answered_for_the_chosen_network(trained):
    assert [(demand.weight_bits, demand.lanes) for demand in trained.demands] == [(3, 1), (3, 2), (5, 1), (5, 2)]
    bits = [demand.needed["memory_bits"] for demand in trained.demands]
    assert bits[0] < bits[2]
    assert min(bits) <= 5800
    chosen = trained.history[trained.epoch - 1]["budget"]["needed"]
    assert chosen in [dict(demand.needed) for demand in trained.demands[:2]]


def test_a_budget_that_fits_from_the_start_costs_no_density(tmp_path, digits):
    settings = config(rewiring={"target_density": 0.1})
    result = train(settings, digits, tmp_path, budget=budget(memory_bits=1 << 20))
    assert round(result.density * 2 * START) == START
    assert all(row["change"] != "fall" for row in result.history)


def test_a_budget_out_of_reach_ends_at_the_target_density(tmp_path, digits):
    result = train(config(), digits, tmp_path, budget=budget(memory_bits=100))
    assert round(result.density * 2 * START) == round(0.1 * 2 * START)
    assert not any(demand.fits for demand in result.demands)
    assert (tmp_path / "checkpoints" / checkpoint.BEST).is_file()


def test_a_tighter_budget_falls_further(tmp_path, digits, trained):
    settings = config(rewiring={"landing": "ratio"})
    tight = train(settings, digits, tmp_path, budget=budget(memory_bits=4500))
    assert 0.1 < tight.density < trained.density
    assert tight.history[-1]["budget"]["fits"]
    # The last fall alone: its steps stop where the budget is met.
    assert [row["change"] for row in tight.history].count("fall") == 8


def test_a_run_cut_short_ends_with_the_same_weights_and_estimates(tmp_path, digits, trained):
    class Cut(Exception):
        pass

    def stop(done, total, text=""):
        if done == 4:
            raise Cut

    with pytest.raises(Cut):
        train(config(), digits, tmp_path, progress=stop, budget=budget(memory_bits=5800))
    result = train(config(), digits, tmp_path, budget=budget(memory_bits=5800))
    assert result.history == trained.history
    ours, theirs = (checkpoint.load(item.checkpoint)[0] for item in (result, trained))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert result.demands == trained.demands


def test_another_budget_starts_another_run(tmp_path, digits, trained):
    first = train(config(), digits, tmp_path, budget=budget(memory_bits=1 << 20))
    assert first.density > trained.density
    second = train(config(), digits, tmp_path, budget=budget(memory_bits=5800))
    assert second.density == trained.density


@pytest.mark.parametrize("bits", [2, 6])
def test_every_active_connection_counts_as_a_synapse(digits, bits):
    """Also those whose weight rounds to 0, or is 0 because it has just been grown."""
    settings = config()
    network, masks = network_of(settings, digits, 0.3)
    with torch.no_grad():
        first = next(iter(network.sparse_parameters().values()))
        first[:4] = 0.0
    active = sum(int(mask.sum()) for mask in masks.values())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    frozen = check_of(settings, digits, memory_bits=1).frozen(network, masks, bits)
    assert frozen.n_synapses == active
    assert [layer.n_out for layer in frozen.layers] == [16, 10]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_neurons_that_reach_nothing_ask_for_nothing(digits):
    settings = config()
    network, masks = network_of(settings, digits, 0.5)
    check = check_of(settings, digits, memory_bits=1)
    whole = check.demands(network, masks, 5)
    last = list(masks)[-1]
    with torch.no_grad():
        masks[last][:, :8] = False
        network.sparse_parameters()[last][:, :8] = 0.0
    half = check.demands(network, masks, 5)
    assert all(a.needed["memory_bits"] < 0.7 * b.needed["memory_bits"] for a, b in zip(half, whole, strict=True))


def test_weights_that_do_not_round_to_zero_are_those_of_freezing(digits):
    from codesign.train.quantised import QuantisedNetwork

    settings = config()
    network, masks = network_of(settings, digits, 0.3)
    check = check_of(settings, digits, memory_bits=1)
    ours = check.frozen(network, masks, 5)
    freeze = settings.freeze.model_copy(update={"weight_bits": 5})
    theirs = QuantisedNetwork(network.eval(), freeze, check.coding).export([16, 16])
    for mine, exact in zip(ours.layers, theirs.layers, strict=True):
        there = exact.dense() != 0
        assert np.array_equal(mine.dense()[there], exact.dense()[there])
        assert np.all(np.abs(mine.dense()[~there]) <= 1)


def test_the_question_changes_nothing_random(digits):
    settings = config()
    network, masks = network_of(settings, digits, 0.3)
    check = check_of(settings, digits, memory_bits=10_000)
    torch.manual_seed(3)
    first = check.least(network, masks)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert check.least(network, masks) == first


def test_taps_of_convolutions_are_counted_as_they_are_active(digits):
    layers = [{"kind": "conv", "channels": 4, "norm": True}, {"kind": "pool"}]
    settings = parse_config(
        {
            "data": {"train_limit": 256, "test_limit": 40, "validation": 100},
            "network": {"layers": layers, "timesteps": 4, "readout": "spike_count"},
            "budget": {"memory_bits": 1, "weight_bits": [3, 5], "lanes": [1, 2]},
        }
    )
    network, masks = network_of(settings, digits, 0.5)
    check = check_of(settings, digits, memory_bits=100_000, cycles=10**6)
    frozen = check.frozen(network, masks, 3)
    assert not frozen.is_plain_chain
    assert frozen.n_synapses == sum(int(mask.sum()) for mask in masks.values())
    demand = check.least(network, masks)
    assert demand.fits and 0 < demand.estimated["memory_bits"] < 100_000
    masks = {name: mask & (torch.rand(mask.shape) < 0.3) for name, mask in masks.items()}
    with torch.no_grad():
        for name, parameter in network.sparse_parameters().items():
            parameter.mul_(masks[name])
    assert check.least(network, masks).estimated["memory_bits"] < demand.estimated["memory_bits"]


def test_a_network_without_hardware_is_refused_before_training(tmp_path, digits):
    settings = config(network={"recurrent": True})
    with pytest.raises(UnsupportedError, match=r"\[budget\] needs an accelerator"):
        train(settings, digits, tmp_path, budget=budget(memory_bits=100))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_budget_without_its_limits_is_refused(tmp_path, digits):
    with pytest.raises(InputError, match="pass its limits"):
        train(config(), digits, tmp_path)
