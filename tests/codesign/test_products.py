"""Products that pass over zeros are those of a dense matrix product, exactly where that is exact."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from requirements import needs

import codesign
from codesign.config import parse_config
from codesign.contract.network import InputCoding
from codesign.train import products
from codesign.train.kernels.events import find_events
from codesign.train.loop import train
from codesign.train.model import SpikingNetwork
from codesign.train.products import Connections
from codesign.train.quantised import QuantisedNetwork
from codesign.train.rewiring import PQRewirer

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


# Convolutions over taps.


@pytest.fixture
def taps(monkeypatch):
    """Small convolutions go over their taps too, whatever their density; counts those that do."""
    taken = []
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 1)
    monkeypatch.setattr(products, "MOST_TAPS", 1e4)
    original = products._TapConv.apply
    monkeypatch.setattr(products._TapConv, "apply", lambda *given: (taken.append(1), original(*given))[1])
    return taken


def some(*shape: int, density: float, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < density


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("samples", "sources", "targets", "height", "width", "kernel", "padding"),
    [
        (1, 1, 1, 1, 1, 1, 0),
        (3, 2, 3, 5, 7, 3, 1),
        (17, 5, 20, 9, 13, 2, 1),
        (33, 20, 17, 30, 18, 5, 2),
        (16, 16, 16, 16, 16, 3, 1),
        (40, 3, 33, 8, 8, 3, 0),
        (20, 4, 5, 4, 4, 4, 3),
        (5, 7, 2, 6, 33, 1, 0),
        (19, 18, 35, 12, 12, 3, 2),
    ],
)
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_sums_and_gradients_over_taps_are_those_of_the_dense_convolution(
    taps, threads, dtype, samples, sources, targets, height, width, kernel, padding, density, count
):
    threads(count)
    mask = some(targets, sources, kernel, kernel, density=density)
    signal = whole(samples, sources, height, width, seed=1, dtype=dtype)
    weight = whole(targets, sources, kernel, kernel, seed=2, dtype=dtype) * mask
    dense = [signal.clone().requires_grad_(), weight.clone().requires_grad_()]
    sums = F.conv2d(*dense, padding=padding)
    upstream = whole(*sums.shape, seed=3, dtype=dtype)
    of_signal, of_weight = torch.autograd.grad((sums * upstream).sum(), dense)
    for every in (True, False):
        leaves = [signal.clone().requires_grad_(), weight.clone().requires_grad_()]
        ours = products.conv2d(*leaves, 1, padding, Connections(mask), every_gradient=every)
        found = torch.autograd.grad((ours * upstream).sum(), leaves)
        assert torch.equal(ours, sums)
        assert torch.equal(found[0], of_signal)
        assert torch.equal(found[1], of_weight if every else of_weight * mask)
    assert torch.equal(products.conv2d(signal, weight, 1, padding, Connections(mask)), sums)
    assert len(taps) == 3


def test_rounding_over_taps_does_not_depend_on_threads_or_parts(taps, monkeypatch, threads):
    random = torch.Generator().manual_seed(3)
    mask = some(30, 40, 3, 3, density=0.3)
    signal, weight = torch.randn(70, 40, 10, 10, generator=random), torch.randn(30, 40, 3, 3, generator=random) * mask
    upstream = torch.randn(70, 30, 10, 10, generator=random)
    found = []
    for count in (1, 2, 3):
        threads(count)
        leaves = [signal.clone().requires_grad_(), weight.clone().requires_grad_()]
        sums = products.conv2d(*leaves, 1, 1, Connections(mask), every_gradient=False)
        found.append([sums.detach(), *torch.autograd.grad((sums * upstream).sum(), leaves)])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    assert torch.allclose(found[0][0], F.conv2d(signal, weight, padding=1), atol=1e-4)
    monkeypatch.setattr(products, "PACKED_BYTES", 1)
    assert torch.equal(products.conv2d(signal, weight, 1, 1, Connections(mask)), found[0][0])


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((3, 3), 2, 1), ((3, 2), 1, 1), ((3, 3), 1, 3)], ids=["stride", "oblong", "wide"]
)
def test_convolutions_that_are_not_built_over_taps_are_dense(taps, kernel, stride, padding):
    mask = some(4, 5, *kernel, density=0.3)
    signal, weight = whole(20, 5, 8, 8, seed=1, dtype=torch.float32), whole(4, 5, *kernel, seed=2, dtype=torch.float32)
    ours = products.conv2d(signal, weight * mask, stride, padding, Connections(mask))
    assert torch.equal(ours, F.conv2d(signal, weight * mask, stride=stride, padding=padding))
    assert not taps


def test_many_taps_small_convolutions_and_other_dtypes_are_dense(taps, monkeypatch):
    signal, weight = whole(16, 8, 16, 16, seed=1, dtype=torch.float32), whole(8, 8, 3, 3, seed=2, dtype=torch.float32)
    mask = torch.zeros(8, 8, 3, 3, dtype=torch.bool)
    mask.view(-1)[:115] = True
    monkeypatch.setattr(products, "MOST_TAPS", 0.2)
    products.conv2d(signal, weight * mask, 1, 1, Connections(mask))
    assert len(taps) == 1
    mask.view(-1)[115] = True
    products.conv2d(signal, weight * mask, 1, 1, Connections(mask))
    # One sample takes as long as a whole vector of them.
    mask.view(-1)[60:] = False
    products.conv2d(signal[:1], weight * mask, 1, 1, Connections(mask))
    products.conv2d(signal.bfloat16(), (weight * mask).bfloat16(), 1, 1, Connections(mask))
    products.conv2d(signal, weight * mask, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr("codesign.train.kernels.taps.LONGEST", 1000)
        products.conv2d(signal, weight * mask, 1, 1, Connections(mask))
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 16 * 16 * 16 * weight.numel() + 1)
    products.conv2d(signal, weight * mask, 1, 1, Connections(mask))
    assert len(taps) == 1
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 16 * 16 * 16 * weight.numel())
    products.conv2d(signal, weight * mask, 1, 1, Connections(mask))
    assert len(taps) == 2


def test_connections_are_made_anew_when_their_mask_has_changed():
    mask = some(4, 4, 3, 3, density=0.5)
    known = Connections.of(mask, None)
    assert Connections.of(mask, known) is known
    assert Connections.of(mask.clone(), known) is not known
    mask[0, 0, 0, 0] = ~mask[0, 0, 0, 0]
    changed = Connections.of(mask, known)
    assert changed is not known
    assert abs(changed.count - known.count) == 1


def convolutional() -> codesign.Config:
    layers = [
        {"kind": "conv", "channels": 12, "norm": True},
        {"kind": "pool", "size": 2},
        {"kind": "conv", "channels": 9},
    ]
    return parse_config({"network": {"layers": layers, "timesteps": 3, "readout": "membrane_sum"}})


def test_a_network_over_taps_trains_as_with_dense_convolutions(taps):
    """Connections whose weight is 0 have a gradient, and outside the context nothing is known of them."""
    config = convolutional()
    inputs = fired(3 * 20, 3 * 144, 0.3).unflatten(0, (3, 20)).double()

    def gradients(connected: bool, every: bool) -> tuple[SpikingNetwork, list[torch.Tensor]]:
        network = SpikingNetwork((3, 12, 12), 10, config.network, config.train).double()
        masks = {name: some(*w.shape, density=0.4) for name, w in network.sparse_parameters().items()}
        with torch.no_grad():
            for name, weight in network.sparse_parameters().items():
                # Multiples of 1/64, so that sums are exact and no spike depends on the order.
                weight.copy_((weight * 64).round() / 64).mul_(masks[name])
                weight.view(-1)[masks[name].view(-1).nonzero()[0]] = 0.0
        if connected:
            with network.connected(masks, every_gradient=every):
                scores = network(inputs).scores
        else:
            scores = network(inputs).scores
        loss = F.cross_entropy(scores, torch.arange(20) % 10)
        found = torch.autograd.grad(loss, list(network.sparse_parameters().values()))
        factors = [mask if mask.dim() == 4 and not every else torch.ones_like(mask) for mask in masks.values()]
        return network, [loss.detach(), *(g if connected else g * f for g, f in zip(found, factors, strict=True))]

    for every in (True, False):
        network, ours = gradients(True, every)
        assert len(taps) == 2
        taps.clear()
        _, dense = gradients(False, every)
        assert not taps
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(ours, dense, strict=True))
        assert all(bool(gradient.any()) for gradient in ours)
    assert all(projection.connections is None for layer in network.populations for projection in layer.projections)


def test_fine_tuning_goes_over_the_nonzero_weights_and_is_exact(taps, monkeypatch):
    config = convolutional()
    network = SpikingNetwork((3, 12, 12), 10, config.network, config.train).eval()
    with torch.no_grad():
        for weight in network.sparse_parameters().values():
            weight.mul_(some(*weight.shape, density=0.4))
    inputs = fired(3 * 20, 3 * 144, 0.3).unflatten(0, (3, 20))
    network.scale_initial_weights(inputs)
    model = QuantisedNetwork(network, config.freeze, InputCoding("events"))
    ours = model.run(inputs)
    assert len(taps) == 2
    assert all(
        p.connections.count == int(p.get_buffer("mask").sum())
        for layer in model.populations[:-1]
        for p in layer.projections
    )
    monkeypatch.setattr(products, "MOST_TAPS", 0.0)
    dense = model.run(inputs)
    assert len(taps) == 2
    assert all(torch.equal(a, b) for kind in range(3) for a, b in zip(ours[kind], dense[kind], strict=True))
    assert all(bool(spikes.any()) for spikes in ours[1][:-1])


def test_masks_of_numbers_are_masks_and_those_that_do_not_fit_are_named(taps):
    mask = some(4, 5, 3, 3, density=0.5)
    for other in (mask.float(), 7 * mask.int(), mask.transpose(0, 1).contiguous().transpose(0, 1)):
        made = Connections(other)
        assert torch.equal(made.mask, mask)
        assert made.mask.is_contiguous()
        assert made.count == int(mask.sum())
    config = convolutional()
    network = SpikingNetwork((3, 12, 12), 10, config.network, config.train)
    name, weight = next(iter(network.sparse_parameters().items()))
    for masks, text in (
        ({"nobody.weight": torch.ones_like(weight)}, "no weight 'nobody.weight'; there are layers.0"),
        ({name: torch.ones_like(weight).transpose(0, 1)}, "the mask of 'layers.0.input.weight' is"),
    ):
        with pytest.raises(codesign.InputError, match=text), network.connected(masks, every_gradient=False):
            pass


@pytest.mark.parametrize("growth", ["gradient", "momentum", "random"])
def test_training_over_taps_grows_where_dense_training_does(taps, monkeypatch, tmp_path, growth):
    """The steps whose gradients count for growth see those of absent weights, and only those steps."""
    asked, scored = [], []
    original = SpikingNetwork.connected

    def connected(self, masks, *, every_gradient):
        if self.training:
            asked.append(every_gradient)
        return original(self, masks, every_gradient=every_gradient)

    def score(self, names, gradients, scale):
        # A step's gradients count once, also where they are asked for again after they were masked.
        for name in (name for name in names if name not in self._growth._scored):
            scored.append(bool((gradients[name] * ~self.masks[name]).any()))
        return before(self, names, gradients, scale)

    before = PQRewirer._score
    monkeypatch.setattr(SpikingNetwork, "connected", connected)
    monkeypatch.setattr(PQRewirer, "_score", score)
    layers = [{"kind": "conv", "channels": 8}, {"kind": "conv", "channels": 8}]
    rewiring = {"preset": "rigl", "target_density": 0.2, "growth": growth}
    if growth == "momentum":
        rewiring["score_batches"] = 2
    config = parse_config(
        {
            "data": {"set": "digits", "train_limit": 96},
            "network": {"layers": layers, "timesteps": 2},
            "train": {"epochs": 4, "batch_size": 32, "rewiring": rewiring},
        }
    )
    found = train(config, codesign.load_dataset(config.data), tmp_path)
    changed = sum(row["change"] == "rewire" for row in found.history)
    steps = {"gradient": 1, "momentum": 2, "random": 0}[growth] * changed
    assert changed
    assert taps
    assert sum(asked) == steps
    assert len(scored) == steps * 3
    assert all(scored)
