"""Networks: what layers are planned, and that layer by layer over time equals step by step."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from codesign.basics.errors import InputError
from codesign.config import load_config, parse_config
from codesign.contract.network import FrozenNetwork
from codesign.data import load_dataset
from codesign.quantise.freeze import freeze
from codesign.train import checkpoint, train
from codesign.train.architecture import plan_layers
from codesign.train.losses import total_loss
from codesign.train.model import SpikingNetwork
from codesign.train.quantised import snapped_leak

CONV = {"kind": "conv", "channels": 6, "norm": True}
DEEP = [
    CONV,
    {"kind": "pool", "size": 2},
    {"kind": "residual", "channels": 6},
    {"kind": "residual", "channels": 9, "stride": 2, "norm": False},
    {"kind": "pool", "size": 2, "mode": "sum"},
    {"kind": "dense", "width": 7, "recurrent": True, "norm": True},
]


def network(layers=None, shape=(2, 9, 8), **options) -> SpikingNetwork:
    train_options = options.pop("train", {})
    document = {
        "timesteps": 5,
        "readout": "spike_count",
        **({"layers": layers} if layers is not None else {}),
        **options,
    }
    config = parse_config({"network": document, "train": train_options})
    return SpikingNetwork(shape, 4, config.network, config.train)


def inputs(made: SpikingNetwork, constant: bool, batch: int = 6) -> torch.Tensor:
    random = torch.Generator().manual_seed(3)
    size = math.prod(made.in_shape)
    if constant:
        return torch.rand(batch, size, generator=random)
    return (torch.rand(made.network.timesteps, batch, size, generator=random) < 0.4).float()


def test_plan_of_every_kind_of_layer():
    plans = plan_layers(network(DEEP).network, (2, 9, 8), 4)
    assert [plan.shape for plan in plans] == [(6, 9, 8), (6, 4, 4), (6, 4, 4), (9, 2, 2), (9, 2, 2), (7,), (4,)]
    roles = [[(p.role, p.kind, p.source) for p in plan.projections] for plan in plans]
    assert roles[2] == [("input", "conv", 1), ("shortcut", "identity", 0)]
    assert roles[4] == [("input", "conv", 3), ("shortcut", "conv", 2)]
    assert roles[5] == [("input", "dense", 4), ("recurrent", "dense", 5)]
    assert plans[2].projections[1].in_shape == (6, 4, 4) and plans[2].projections[1].pool == 2
    assert plans[5].projections[0].in_shape == (9, 1, 1) and not plans[5].projections[0].average
    assert [p.stride for p in plans[4].projections] == [1, 2]


@pytest.mark.parametrize(
    ("layers", "shape", "words"),
    [
        ([CONV], (64,), r"layers\.0 \(conv\): needs an image .* but the input has 64 values"),
        ([{"kind": "dense", "width": 5}, CONV], (1, 8, 8), r"layers\.1 \(conv\): .* but layer 0 has 5 values"),
        ([{"kind": "conv", "channels": 2, "kernel": 9, "padding": 0}], (1, 8, 8), "a 9 x 9 kernel .* on 8 x 8"),
        ([{"kind": "conv", "channels": 2, "padding": 3}], (1, 8, 8), "padding 3 is not smaller than the kernel"),
        ([{"kind": "pool", "size": 9}], (1, 8, 8), "windows of 9 x 9 on 8 x 8"),
        ([{"kind": "pool"}, {"kind": "pool", "size": 3}], (1, 8, 8), "one with size 6"),
        ([{"kind": "pool", "size": 8}, {"kind": "conv", "channels": 2, "kernel": 4}], (1, 8, 8), "on 1 x 1"),
        ([CONV, {"kind": "conv", "channels": 1025}], (1, 32, 32), r"layers\.1 \(conv\): 1025 x 32 x 32 = 1049600 neur"),
        ([{"kind": "dense", "width": 1 << 20}] * 2, (4,), r"layers\.1 \(dense\): 1099\d+ weights up to here"),
    ],
)
def test_layers_that_do_not_suit_their_input_are_named(layers, shape, words):
    with pytest.raises(InputError, match=words):
        network(layers, shape)


def step_by_step(made: SpikingNetwork, x: torch.Tensor) -> list[torch.Tensor]:
    """Spikes of every layer, one timestep after the other through plain torch, in evaluation mode."""
    constant = x.dim() == 2
    batch = x.shape[-2]
    membranes = [torch.zeros(batch, *plan.shape, dtype=torch.float64) for plan in made.plans]
    last = [torch.zeros_like(v) for v in membranes]
    history = [[] for _ in membranes]
    for t in range(made.network.timesteps):
        now = {-1: (x if constant else x[t]).reshape(batch, *made.in_shape)}
        for index, layer in enumerate(made.populations):
            u = membranes[index] * float(layer.neuron.decay)
            for projection in layer.projections:
                plan = projection.plan
                signal = last[index] if plan.role == "recurrent" else now[plan.source]
                if plan.pool > 1:
                    signal = F.avg_pool2d(signal, plan.pool) * (1 if plan.average else plan.pool**2)
                if projection.weight is None:
                    pass
                elif plan.kind == "dense":
                    signal = F.linear(signal.reshape(batch, -1), projection.weight)
                else:
                    signal = F.conv2d(signal, projection.weight, stride=plan.stride, padding=plan.padding)
                u = u + (signal if projection.norm is None else projection.norm(signal))
            if layer.bias is not None:
                u = u + layer.bias.reshape(-1, *[1] * (len(layer.plan.shape) - 1))
            spikes = (u >= 1).double()
            membranes[index] = u - spikes
            last[index] = now[index] = spikes
            history[index].append(spikes)
    return [torch.stack(steps) for steps in history]


@pytest.mark.parametrize("constant", [True, False])
def test_layer_by_layer_equals_step_by_step(constant):
    made = network(DEEP).double()
    x = inputs(made, constant).double()
    made.scale_initial_weights(x)
    with torch.no_grad():
        for _ in range(40):
            made(x)  # moves the running statistics
        for layer in made.populations:
            if layer.bias is not None:
                layer.bias.copy_(torch.linspace(-0.1, 0.1, len(layer.bias)))
        made.eval()
        expected = step_by_step(made, x)
        output = made(x)
    assert all(0 < float(spikes.mean()) < 0.9 for spikes in expected)
    for ours, theirs in zip(output.spikes, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(output.scores, expected[-1].mean(0) * 10)


def test_every_parameter_has_a_gradient_and_the_connections_are_named():
    made = network(DEEP, learn_leak="neuron")
    x = inputs(made, False, 32)
    made.scale_initial_weights(x)
    output = made(x)
    total_loss(output, torch.arange(32) % 4, parse_config({}).train).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name
    assert {name: tuple(p.shape) for name, p in made.sparse_parameters().items()} == {
        "layers.0.input.weight": (6, 2, 3, 3),
        "layers.1.input.weight": (6, 6, 3, 3),
        "layers.2.input.weight": (6, 6, 3, 3),
        "layers.3.input.weight": (9, 6, 3, 3),
        "layers.4.input.weight": (9, 9, 3, 3),
        "layers.4.shortcut.weight": (9, 6, 1, 1),
        "layers.5.input.weight": (7, 9),
        "layers.5.recurrent.weight": (7, 7),
        "layers.6.input.weight": (4, 7),
    }


def test_initial_weights_make_every_kind_of_layer_spike():
    made = network(DEEP, (2, 18, 16))
    x = inputs(made, True, 64)
    made.scale_initial_weights(x)
    rates = [float(spikes.detach().mean()) for spikes in made(x).spikes]
    # An identity shortcut adds the spikes of its source to what the convolution alone would give.
    assert all(0.1 < rate < (0.45 if index == 2 else 0.2) for index, rate in enumerate(rates))


def test_recurrent_weights_start_at_their_scale():
    for scale in (0.05, 0.5):
        made = network(None, 30, hidden=[400], recurrent=True, recurrent_scale=scale)
        made.scale_initial_weights(inputs(made, False))
        weight = made.sparse_parameters()["layers.0.recurrent.weight"]
        assert float(weight.detach().std()) * math.sqrt(400) == pytest.approx(scale, rel=0.02)


def test_operations_count_border_and_pooling():
    made = network([CONV | {"norm": False}, {"kind": "pool", "size": 2}], (1, 4, 5))
    weight = made.sparse_parameters()["layers.0.input.weight"]
    with torch.no_grad():
        weight.zero_()
        weight[:2, 0, 0, 0] = 1.0  # a source of the last row or column reaches nobody through this tap
        weight[3, 0, 1, 1] = 1.0
    x = inputs(made, False)
    output = made(x)
    events = x.reshape(5, 6, 4, 5)
    found = output.activity().operations
    assert found[0] == 2 * float(events[..., :-1, :-1].sum()) + float(events.sum())
    # 4 x 5 spikes are pooled to 2 x 2: the fifth column is dropped; every window reaches 4 classes.
    assert found[1] == 4 * float(output.spikes[0][..., :4].detach().sum())


def test_recurrent_operations_leave_out_the_last_timestep():
    made = network(None, 30, hidden=[12], recurrent=True)
    x = inputs(made, False)
    made.scale_initial_weights(x)
    output = made(x)
    expected = 12 * float(x.sum()) + 12 * float(output.spikes[0][:-1].detach().sum())
    assert output.activity().operations[0] == expected


@pytest.mark.parametrize("kind", ["layer", "neuron"])
def test_the_learnt_leak_starts_at_the_configured_one(kind):
    made, fixed = (network(DEEP, leak_shift=3, **options) for options in ({"learn_leak": kind}, {}))
    for index, layer in enumerate(made.populations):
        assert layer.leak is not None
        assert layer.leak.shape == ((layer.plan.shape[0],) if kind == "neuron" else (1,)), index
        assert torch.allclose(torch.sigmoid(layer.leak), torch.full_like(layer.leak, 0.875))
    x = inputs(made, False)
    fixed.scale_initial_weights(x)
    made.load_state_dict(fixed.state_dict(), strict=False)
    made.eval()
    fixed.eval()
    with torch.no_grad():
        ours, theirs = made(x).spikes, fixed(x).spikes
    assert [float((a - b).abs().mean()) < 0.01 for a, b in zip(ours, theirs, strict=True)] == [True] * 7


def toy(**options):
    output = network(None, 30, hidden=[12], readout=options.pop("readout", "spike_count"))(torch.rand(6, 30))
    return output, torch.arange(6) % 4, parse_config({"train": options, "network": {"readout": "spike_count"}}).train


def test_losses_are_their_formulas():
    output, target, options = toy()
    one_hot = F.one_hot(target, 4)
    log = torch.log_softmax(output.step_scores.mean(0), 1)
    assert torch.isclose(total_loss(output, target, options), -(log * one_hot).sum(1).mean())
    output, target, options = toy(loss="count", count_correct=0.8, count_incorrect=0.2)
    wanted = torch.where(one_hot > 0, 0.8, 0.2)
    assert torch.isclose(total_loss(output, target, options), ((output.spikes[-1].sum(0) / 5 - wanted) ** 2).sum() / 24)
    output, target, options = toy(loss="membrane")
    log = torch.log_softmax(output.potentials.max(0).values, 1)
    assert torch.isclose(total_loss(output, target, options), -(log * one_hot).sum(1).mean())
    output, target, options = toy(loss="tet", tet_lambda=0.25, tet_mean=0.5, readout="membrane_sum")
    steps = output.potentials
    entropy = -(torch.log_softmax(steps, 2) * one_hot).sum(2).mean()
    expected = 0.75 * entropy + 0.25 * ((steps - 0.5) ** 2).mean()
    assert torch.isclose(total_loss(output, target, options), expected)
    # twice the samples of class 0 is what twice its weight is
    weights = torch.tensor([2.0, 1.0, 1.0, 1.0])
    doubled = torch.cat([torch.arange(6), torch.nonzero(target == 0).flatten()])
    often = replace(output, potentials=steps[:, doubled], step_scores=output.step_scores[:, doubled])
    expected = total_loss(often, target[doubled], options)
    assert torch.isclose(total_loss(output, target, options, weights), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["rate", "count", "membrane", "tet"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_sample_of_two_classes_costs_what_both_do(loss, smoothing, weighted):
    """A share of 1 is the label; two halves are a sample of each class at half its weight."""
    output, target, options = toy(loss=loss, readout="membrane_sum" if loss == "tet" else "spike_count")
    if loss != "count":
        options = options.model_copy(update={"label_smoothing": smoothing})
    weights = torch.tensor([2.0, 0.5, 1.0, 1.5]) if weighted else None
    whole = F.one_hot(target, 4).float()
    assert torch.isclose(total_loss(output, whole, options, weights), total_loss(output, target, options, weights))
    other = (target + 1) % 4
    mixed = total_loss(output, (whole + F.one_hot(other, 4)) / 2, options, weights)
    doubled = torch.arange(6).repeat(2)
    both = replace(
        output,
        spikes=[spikes[:, doubled] for spikes in output.spikes],
        potentials=output.potentials[:, doubled],
        step_scores=output.step_scores[:, doubled],
        scores=output.scores[doubled],
    )
    assert torch.isclose(mixed, total_loss(both, torch.cat([target, other]), options, weights))


def test_class_weights_weigh_samples():
    output, target, options = toy(loss="count")
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0])
    chosen = replace(output, spikes=[output.spikes[0], output.spikes[-1][:, target == 0]])
    assert torch.isclose(total_loss(output, target, options, weights), total_loss(chosen, target[target == 0], options))


def test_activity_regularisation_draws_rates_to_the_target():
    output, target, options = toy(activity_target=0.3, activity_weight=7.0)
    plain = total_loss(output, target, toy()[2])
    rate = output.spikes[0].mean()
    assert torch.isclose(total_loss(output, target, options), plain + 7 * (rate - 0.3) ** 2)


CASES = {
    "conv": {"layers": [CONV, {"kind": "pool"}]},
    "residual": {"layers": [CONV, {"kind": "pool"}, {"kind": "residual", "channels": 6}]},
    "recurrent": {"hidden": [20], "recurrent": True, "learn_leak": "layer"},
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_network_trains(name, tmp_path):
    config = parse_config(
        {
            "data": {"train_limit": 256, "test_limit": 40, "validation": 100},
            "network": {"timesteps": 3, "readout": "membrane_sum", **CASES[name]},
            "train": {
                "threads": 1,
                "epochs": 8,
                "batch_size": 32,
                "learning_rate": 1e-2,
                "clip_grad_norm": 1.0,
                "rewiring": {"target_density": 0.4},
            },
            "freeze": {"epochs": 1},
        }
    )
    result = train(config, load_dataset(config.data), tmp_path)
    assert result.density == pytest.approx(0.4, abs=0.01)
    assert result.accuracy_validation > 0.6
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    tensors, _ = checkpoint.load(result.checkpoint)
    masks = [name for name in tensors if name.startswith("mask.")]
    assert masks
    for mask in masks:
        assert (tensors[mask.replace("mask.", "model.", 1)][~tensors[mask].bool()] == 0).all()
    assert np.isfinite([row["validation_loss"] for row in result.history]).all()

    frozen = freeze(config, result, load_dataset(config.data))
    assert frozen.details["accuracy_validation"] > 0.55
    assert frozen.figures["density"] <= 0.41
    assert not frozen.network.is_plain_chain
    assert FrozenNetwork.load(saved(frozen.network, tmp_path)).hash == frozen.figures["network_hash"]
    if name == "recurrent":
        assert all(layer.leak.kind == "shift" for layer in frozen.network.layers)
        assert frozen.network.layers[0].projections[1].source == 0


def saved(network: FrozenNetwork, folder):
    network.save(folder / "network.safetensors")
    return folder / "network.safetensors"


def test_learnt_leaks_snap_to_the_nearest_that_hardware_has():
    made = network(None, 30, hidden=[4], learn_leak="neuron")
    layer = made.populations[0]
    assert layer.leak is not None
    decays = torch.tensor([0.5, 0.80, 0.9999, 0.1])
    layer.leak.data = torch.log(decays / (1 - decays))
    assert np.asarray(snapped_leak(layer)[0]).tolist() == [1, 2, 12, 1]
    made = network(None, 30, hidden=[4], learn_leak="layer", leak="multiply", leak_decay=0.7)
    assert np.asarray(snapped_leak(made.populations[0])[1]).tolist() == [179]


EXAMPLES = {
    "digits-conv": (1, 8, 8),
    "mnist-conv": (1, 28, 28),
    "fsdd-recurrent": (64,),
    "cifar10": (3, 32, 32),
    "cifar10-deep-start": (3, 32, 32),
    "cifar10-deep": (3, 32, 32),
    "cifar10-vggsnn": (3, 32, 32),
    "cifar10-6conv2fc": (3, 32, 32),
    "cifar10-resnet19": (3, 32, 32),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_builds_and_takes_a_training_step(name):
    """One timestep, two samples: the architecture at its full width."""
    config = load_config(
        Path(__file__).parents[2] / "examples" / f"{name}.toml", ["network.timesteps=1", "data.event_jitter=0"]
    )
    made = SpikingNetwork(EXAMPLES[name], 10, config.network, config.train)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    output = made(torch.rand(2, math.prod(EXAMPLES[name])))
    total_loss(output, torch.tensor([3, 4]), config.train).backward()
    weight = next(iter(made.sparse_parameters().values()))
    before = weight.detach().clone()
    optimizer.step()
    assert torch.isfinite(output.scores).all()
    assert not torch.equal(weight, before)
