"""LIF layers against the same neuron on the autograd tape, and in integers against the golden model."""

import itertools
import math

import numpy as np
import pytest
import torch
from requirements import need

from codesign.basics.errors import InputError
from codesign.contract.golden import lif_steps
from codesign.contract.network import FrozenLayer, Leak
from codesign.train.kernels import native
from codesign.train.lif import Neuron, lif, recurrent_lif, surrogate_gradient

T, BATCH = 6, 5


def neuron(**changes) -> Neuron:
    options = {
        "leak_kind": "shift",
        "leak_shift": 2,
        "leak_multiplier": 0,
        "reset": "subtract",
        "compare": ">=",
        "surrogate": "atan",
        "surrogate_width": 1.0,
    }
    return Neuron(**{**options, **changes})  # type: ignore[arg-type]


def taped(current, timesteps, cell, decay=None, weight=None, constant=False):
    """The same neuron step by step on the autograd tape, with the stated treatment of spike and reset."""

    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u > cell.threshold if cell.compare == ">" else u >= cell.threshold).to(u.dtype)

        @staticmethod
        def backward(ctx, gradient):
            (u,) = ctx.saved_tensors
            x = (u - cell.threshold) / cell.unit
            return (
                gradient * cell.surrogate_area * surrogate_gradient(x, cell.surrogate, cell.surrogate_width) / cell.unit
            )

    decay = cell.decay if decay is None else decay
    v = torch.zeros_like(current if constant else current[0])
    s = torch.zeros_like(v)
    spikes, potentials = [], []
    for t in range(timesteps):
        u = v * decay + (current if constant else current[t])
        if weight is not None:
            u = u + s @ weight.t()
        s = Step.apply(u) if cell.spiking else torch.zeros_like(u)
        fixed = s.detach()
        v = {"subtract": u - cell.threshold * fixed if cell.spiking else u, "zero": u * (1 - fixed), "none": u}[
            cell.reset
        ]
        spikes.append(s)
        potentials.append(u)
    return torch.stack(spikes), torch.stack(potentials)


@pytest.fixture
def kernel(monkeypatch):
    """Chooses the kernel: 'native' or 'plain'."""

    def choose(name):
        monkeypatch.setenv("CODESIGN_KERNELS", name)
        native.library.cache_clear()
        if name == "native":
            need("compiler")

    yield choose
    monkeypatch.undo()
    native.library.cache_clear()


def leaf(shape, seed, scale=1.0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale + offset).requires_grad_()


def check_gradients(fused, expected, leaves):
    """Equal outputs, and equal gradients of all leaves for random gradients of spikes and potentials."""
    for ours, theirs in zip(fused, expected, strict=True):
        assert torch.allclose(ours, theirs)
    directions = [leaf(out.shape, 90 + index).detach() for index, out in enumerate(fused)]
    gradients = []
    for outputs in (fused, expected):
        loss = sum((d * out).sum() for d, out in zip(directions, outputs, strict=True) if out.requires_grad)
        gradients.append(torch.autograd.grad(loss, leaves))
    for ours, theirs in zip(*gradients, strict=True):
        assert float(theirs.abs().sum()) > 0
        assert torch.allclose(ours, theirs)


DYNAMICS = [
    {},
    {"compare": ">"},
    {"reset": "zero"},
    {"reset": "zero", "compare": ">", "surrogate": "rectangular"},
    {"reset": "none"},
    {"reset": "none", "threshold": math.inf},
    {"leak_kind": "multiply", "leak_shift": 8, "leak_multiplier": 200, "threshold": 30.0, "unit": 30.0},
    {"leak_kind": "none", "surrogate": "fast_sigmoid"},
    {"surrogate": "fast_sigmoid", "surrogate_width": 0.5, "surrogate_area": 0.3},
    {"surrogate": "rectangular"},
    {"leak_shift": torch.tensor([0, 1, 2, 3, 4, 5, 24])},
    {"leak_kind": "multiply", "leak_shift": 8, "leak_multiplier": torch.arange(7) * 40},
]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("learnt", [None, (), (1,), (7,)])
@pytest.mark.parametrize("changes", DYNAMICS)
def test_fused_backward_equals_the_tape(changes, learnt, constant):
    cell = neuron(**changes)
    current = leaf((BATCH, 7) if constant else (T, BATCH, 7), 1, 0.8 * cell.unit)
    decay = None if learnt is None else leaf(learnt, 2, 0.1, 0.8)
    leaves = [current] if decay is None else [current, decay]
    fused = lif(current, T, cell, decay)[:2]
    check_gradients(fused, taped(current, T, cell, decay, constant=constant), leaves)


@pytest.mark.parametrize("learnt", [(), (3, 4, 2), (3, 1, 1)])
@pytest.mark.parametrize("constant", [False, True])
def test_any_shape_of_layer(constant, learnt):
    cell = neuron()
    current = leaf((BATCH, 3, 4, 2) if constant else (T, BATCH, 3, 4, 2), 1)
    decay = leaf(learnt, 2, 0.1, 0.8)
    check_gradients(
        lif(current, T, cell, decay)[:2], taped(current, T, cell, decay, constant=constant), [current, decay]
    )
    odd = leaf((BATCH, 3, 4) if constant else (T, BATCH, 3, 4), 1)
    check_gradients(lif(odd, T, cell, constant=constant)[:2], taped(odd, T, cell, constant=constant), [odd])


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("learnt", [None, (), (7,)])
@pytest.mark.parametrize("changes", DYNAMICS)
def test_recurrent_backward_equals_the_tape(changes, learnt, constant):
    cell = neuron(**changes)
    current = leaf((BATCH, 7) if constant else (T, BATCH, 7), 1, 0.8 * cell.unit)
    weight = leaf((7, 7), 3, 0.5 * cell.unit)
    decay = None if learnt is None else leaf(learnt, 2, 0.1, 0.8)
    leaves = [current] + ([weight] if cell.spiking else []) + ([] if decay is None else [decay])
    fused = recurrent_lif(current, weight, T, cell, decay)[:2]
    check_gradients(fused, taped(current, T, cell, decay, weight, constant), leaves)


@pytest.mark.parametrize("outputs", [[0], [1]])
def test_a_loss_on_spikes_or_potentials_alone(outputs):
    cell = neuron()
    current, weight = leaf((T, BATCH, 7), 1), leaf((7, 7), 2, 0.5)
    for fused, expected, leaves in (
        (lif(current, T, cell), taped(current, T, cell), [current]),
        (recurrent_lif(current, weight, T, cell), taped(current, T, cell, weight=weight), [current, weight]),
    ):
        check_gradients([fused[i] for i in outputs], [expected[i] for i in outputs], leaves)


def test_recurrent_spikes_arrive_one_step_later():
    weight = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    current = torch.zeros(3, 1, 2)
    current[0, 0, 0] = 1.0
    spikes, potentials, stored = recurrent_lif(current, weight, 3, neuron())
    assert spikes[:, 0].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert potentials[:, 0].tolist() == [[1, 0], [0, 2], [0, 0.75]]
    assert stored[:, 0].tolist() == [[0, 0], [0, 1], [0, 0.75]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize(
    "kind, reset, compare",
    list(itertools.product(["none", "shift", "multiply"], ["subtract", "zero", "none"], [">=", ">"])),
)
def test_integer_steps_equal_the_golden_model(kind, reset, compare, per_neuron, dtype):
    random = np.random.default_rng(1)
    shift = random.integers(0, 6, 9) if per_neuron else np.full(9, 3)
    multiplier = random.integers(0, 9, 9) if per_neuron else np.full(9, 7)
    threshold = random.integers(60, 120, 9) if per_neuron else np.full(9, 100)
    sums = random.integers(-90, 120, (4, T, 9))
    cell = neuron(
        leak_kind=kind,
        leak_shift=torch.from_numpy(shift) if per_neuron and kind == "shift" else 3,
        leak_multiplier=torch.from_numpy(multiplier) if per_neuron else 7,
        reset=reset,
        compare=compare,
        threshold=torch.from_numpy(threshold) if per_neuron else 100.0,
        unit=torch.from_numpy(threshold - 2.7) if per_neuron else 97.3,
        integer=True,
        membrane_min=-128.0,
        membrane_max=127.0,
    )
    ours = lif(torch.from_numpy(sums).to(dtype).transpose(0, 1), T, cell)
    for j in range(9):
        leak = {
            "none": Leak(),
            "shift": Leak("shift", int(shift[j])),
            "multiply": Leak("multiply", 3, int(multiplier[j])),
        }[kind]
        layer = FrozenLayer.from_dense(
            np.ones((1, 1), np.int64),
            threshold=int(threshold[j]),
            leak=leak,
            reset=reset,
            compare=compare,
            membrane_width=8,
        )
        found = lif_steps(layer, sums[:, :, j : j + 1])
        for tensor, expected in zip(ours, (found.spikes, found.potentials, found.membranes), strict=True):
            assert tensor.dtype == dtype
            assert np.array_equal(tensor[:, :, j].T.numpy(), expected[:, :, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("surrogate", ["rectangular", "atan", "fast_sigmoid"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_compiled_and_plain_kernels_give_the_same_bits(kernel, recurrent, reset, surrogate, dtype):
    def outcome(name, case, kind, compare, integer, constant, learnt):
        kernel(name)
        scale = 60.0 if integer else 1.0
        cell = neuron(
            leak_kind=kind, leak_shift=3, leak_multiplier=5, reset=reset, compare=compare, surrogate=surrogate,
            surrogate_width=0.7, surrogate_area=0.6, threshold=scale, unit=1.1 * scale, integer=integer,
            membrane_min=-1.5 * scale if case % 2 else None, membrane_max=1.25 * scale if case % 2 else None,
        )  # fmt: skip
        # More neurons than a block of the kernel, and not a whole number of blocks.
        current = leaf((9, 257) if constant else (T, 9, 257), case, scale).to(dtype)
        current = (current.round() if integer else current).detach().requires_grad_()
        weight = leaf((257, 257), case + 1, 0.1).to(dtype).detach().requires_grad_()
        decay = None if learnt is None else torch.rand(learnt).to(dtype).requires_grad_()
        if recurrent:
            s, u, v = recurrent_lif(current, weight, T, cell, decay)
        else:
            s, u, v = lif(current, T, cell, decay)
        leaves = [current] + ([weight] if recurrent else []) + ([] if decay is None else [decay])
        loss = (s * leaf(s.shape, 7).to(dtype)).sum() + (u * leaf(u.shape, 8).to(dtype)).sum() + s.sum(0).max()
        return [s, u, v, *torch.autograd.grad(loss, leaves)]

    cases = itertools.product(["none", "shift", "multiply"], [">=", ">"], [False, True], [False, True], [None, (257,)])
    for case, (kind, compare, integer, constant, learnt) in enumerate(cases):
        if case % 3 or (integer and learnt):
            continue
        torch.manual_seed(case)
        ours = outcome("native", case, kind, compare, integer, constant, learnt)
        torch.manual_seed(case)
        theirs = outcome("plain", case, kind, compare, integer, constant, learnt)
        assert bool(ours[0].any())
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_without_a_compiler_the_plain_kernel_runs(kernel, monkeypatch, tmp_path):
    current = leaf((T, BATCH, 7), 1)
    expected = lif(current, T, neuron())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    native.library.cache_clear()
    assert native.library() is None and not native.usable(current)
    assert all(torch.equal(a, b) for a, b in zip(lif(current, T, neuron()), expected, strict=True))
    assert not list(tmp_path.rglob("*.so"))


def test_a_damaged_library_in_the_cache_is_not_used(kernel, monkeypatch, tmp_path):
    kernel("native")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = native.build()
    assert path is not None and tmp_path in path.parents
    path.write_bytes(b"damaged")
    native.library.cache_clear()
    assert native.library() is None


@pytest.mark.parametrize("surrogate", ["rectangular", "atan", "fast_sigmoid"])
def test_thresholds_per_neuron_have_the_gradients_of_their_own(surrogate):
    threshold = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    current = torch.randn(T, BATCH, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * threshold
    together = current.clone().requires_grad_()
    lif(together, T, neuron(surrogate=surrogate, threshold=threshold, unit=threshold))[0].sum().backward()
    assert together.grad is not None
    for j, value in enumerate(threshold.tolist()):
        alone = current[..., j : j + 1].clone().requires_grad_()
        lif(alone, T, neuron(surrogate=surrogate, threshold=value, unit=value))[0].sum().backward()
        assert alone.grad is not None and float(alone.grad.abs().sum()) > 0
        assert torch.allclose(together.grad[..., j : j + 1], alone.grad)


def test_half_precision_is_computed_in_float32():
    current = torch.randn(T, BATCH, 7, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    for ours, theirs in zip(lif(current, T, neuron()), lif(current.float(), T, neuron()), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs)


def test_misfits_are_refused():
    cell, current = neuron(), torch.zeros(T, BATCH, 7)
    with pytest.raises(InputError, match=r"expected \(5, batch, \*shape\)"):
        lif(current, 5, cell)
    with pytest.raises(InputError, match="timesteps 1 or more"):
        lif(torch.zeros(BATCH, 7), 0, cell)
    with pytest.raises(InputError, match=r"decay is \(6,\), which does not broadcast"):
        lif(current, T, cell, torch.zeros(6))
    with pytest.raises(InputError, match="learnable decay has no integer arithmetic"):
        lif(current, T, neuron(integer=True), torch.zeros(()))
    with pytest.raises(InputError, match=r"weights \(n, n\)"):
        recurrent_lif(current, torch.zeros(7, 6), T, cell)
    with pytest.raises(InputError, match=r"weights \(n, n\)"):
        recurrent_lif(torch.zeros(T, BATCH, 7, 7), torch.zeros(7, 7), T, cell)


@pytest.mark.parametrize("kind", ["rectangular", "atan", "fast_sigmoid"])
def test_surrogates_have_unit_area(kind):
    x = torch.linspace(-4000, 4000, 8_000_001, dtype=torch.float64)
    assert float(surrogate_gradient(x, kind, 2.0).sum()) * 1e-3 == pytest.approx(1, abs=2e-3)
