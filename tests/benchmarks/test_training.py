"""The training benchmark: its contestants take steps, its ratios are medians of rounds."""

import torch
from requirements import needs

from benchmarks import training
from benchmarks.training import PEERS, conv_steps, dense_steps, details, over, ratios, tap_steps, timed
from codesign.train import products

MISSING = dict.fromkeys(PEERS, "not installed")


def test_contestants_without_the_peers():
    dense = dense_steps(MISSING, timesteps=2, batch=4, hidden=8)
    assert list(dense) == ["codesign", "codesign, 10 % of the weights", "matrix products alone"]
    conv = conv_steps(MISSING, timesteps=2, batch=2)
    assert list(conv) == ["codesign", "codesign, 10 % of the weights", "convolutions alone"]
    for steps in (dense, conv):
        found = details(timed(steps, 3))
        assert found["ratio"] == dict.fromkeys(PEERS)
        assert all(low > 0 for low, _, _ in found["milliseconds"].values())


@needs("compiler")
def test_contestants_over_taps(monkeypatch):
    taken = []
    original = products._TapConv.apply
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 1)
    monkeypatch.setattr(products._TapConv, "apply", lambda *given: (taken.append(1), original(*given))[1])
    steps = tap_steps(batch=32, channels=((4,), (6,)))
    for name, step in steps.items():
        taken.clear()
        step()
        # The first layer's density is that of the others.
        assert len(taken) == (0 if name.startswith("dense") else 2), name
    found = timed(steps, 3)
    assert over(found, "dense") == [1.0] * 3
    assert all(value > 0 for name in steps for value in over(found, name))


def test_masked_weights_stay_masked():
    config = training.configuration(hidden=[8], timesteps=2)
    network = training.SpikingNetwork(784, 10, config.network, config.train)
    events = (torch.rand(2, 4, 784, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    network.scale_initial_weights(events)
    step = training.our_step(config, network, events, torch.arange(4), 0.1)
    weight = next(iter(network.sparse_parameters().values()))
    before = weight.detach().clone()
    step()
    assert 0 < int((weight != 0).sum()) <= int((before != 0).sum()) < 0.15 * weight.numel()
    assert not torch.equal(weight, before)


def test_a_ratio_is_the_median_of_the_rounds_of_the_quickest_variant():
    times = {
        "codesign": [(1.0, 1.0), (2.0, 1.0), (4.0, 1.0)],
        "snntorch": [(3.0, 4.0), (8.0, 4.0), (8.0, 4.0)],
        "snntorch, other": [(2.0, 5.0), (4.0, 5.0), (12.0, 5.0)],
    }
    assert ratios(times, "snntorch")[1] == 2.0
    assert ratios(times, "snntorch", 1)[1] == 4.0
    assert ratios(times, "spikingjelly") is None
