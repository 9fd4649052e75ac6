"""Products that pass over zeros are those of a dense matrix product, exactly where that is exact."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from requirements import needs

from codesign.config import parse_config
from codesign.train import products
from codesign.train.kernels.events import find_events
from codesign.train.model import SpikingNetwork

pytestmark = needs("compiler")


def whole(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers whose sums are exact in every order."""
    return torch.randint(-50, 51, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def fired(rows: int, columns: int, density: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return (torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < density).to(dtype)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def always(monkeypatch):
    """Small products are looked at too; counts those that are done event by event."""
    taken = []
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 1)
    original = products._EventLinear.apply
    monkeypatch.setattr(products._EventLinear, "apply", lambda *given: (taken.append(1), original(*given))[1])
    return taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 7, 3), (33, 64, 128), (40, 130, 200), (64, 65, 257)])
@pytest.mark.parametrize("density", [0.0, 0.03, 0.2, 1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_sums_and_gradients_are_those_of_the_dense_product(always, monkeypatch, threads, dtype, sizes, density, count):
    monkeypatch.setattr(products, "MOST_EVENTS", 1.0)
    threads(count)
    rows, sources, targets = sizes
    signal, weight = fired(rows, sources, density, dtype), whole(targets, sources, seed=1, dtype=dtype)
    upstream = whole(rows, targets, seed=2, dtype=dtype)
    found = []
    for function in (products.linear, F.linear):
        leaves = [signal.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = function(*leaves)
        found.append([out.detach(), *torch.autograd.grad((out * upstream).sum(), leaves)])
    assert always == [1]
    assert all(torch.equal(ours, dense) for ours, dense in zip(*found, strict=True))
    assert all(ours.is_contiguous() for ours in found[0])


def test_rounding_does_not_depend_on_the_threads(always, threads):
    signal, weight = fired(300, 200, 0.15), torch.randn(300, 200, generator=torch.Generator().manual_seed(3))
    upstream = torch.randn(300, 300, generator=torch.Generator().manual_seed(4))
    found = []
    for count in (1, 2, 3):
        threads(count)
        leaf = weight.clone().requires_grad_()
        out = products.linear(signal, leaf)
        found.append([out.detach(), *torch.autograd.grad((out * upstream).sum(), [leaf])])
    assert len(always) == 3
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    assert torch.allclose(found[0][0], F.linear(signal, weight), atol=1e-4)


def test_events_are_found_and_turned():
    signal = fired(70, 130, 0.1)
    events = find_events(signal, 0.2)
    assert events is not None
    for one, matrix in ((events, signal), (events.turned(), signal.t())):
        at = torch.nonzero(matrix)
        assert torch.equal(one.indices, at[:, 1].int())
        assert torch.equal(one.offsets.diff(), matrix.sum(1).long())


@pytest.mark.parametrize("value", [2.0, -1.0, 0.5, float("nan"), float("inf")])
def test_what_is_not_events_has_a_dense_product(always, value):
    signal = fired(20, 30, 0.1)
    signal[7, 11] = value
    weight = whole(40, 30, seed=1, dtype=torch.float32)
    assert torch.equal(products.linear(signal, weight), F.linear(signal, weight)) or value != value
    assert not always


def test_many_events_small_layers_and_half_precision_have_a_dense_product(always, monkeypatch):
    weight = whole(40, 100, seed=1, dtype=torch.float32)
    products.linear(fired(50, 100, 0.5), weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.linear(fired(50, 100, 0.1), weight).dtype == torch.bfloat16
    products.linear(fired(50, 100, 0.1).double(), weight.double())
    assert always == [1]
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 50 * 100 * 40 + 1)
    products.linear(fired(50, 100, 0.1), weight)
    assert always == [1]


def test_a_network_on_events_trains_as_with_dense_products(always, monkeypatch):
    config = parse_config({"network": {"hidden": [160, 150], "timesteps": 6, "readout": "spike_count"}})
    events = fired(6 * 20, 90, 0.1).unflatten(0, (6, 20))

    def gradients() -> list[torch.Tensor]:
        network = SpikingNetwork(90, 10, config.network, config.train)
        network.scale_initial_weights(events)
        network.double()
        # Multiples of 1/64, so that sums are exact and no spike depends on the order.
        with torch.no_grad():
            for weight in network.sparse_parameters().values():
                weight.copy_((weight * 64).round() / 64)
        loss = F.cross_entropy(network(events.double()).scores, torch.arange(20) % 10)
        return [loss.detach(), *torch.autograd.grad(loss, list(network.sparse_parameters().values()))]

    ours = gradients()
    assert always, "no layer took its events"
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 1 << 60)
    dense = gradients()
    assert torch.equal(ours[0], dense[0])
    assert all(bool(gradient.any()) for gradient in ours)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(ours, dense, strict=True))
