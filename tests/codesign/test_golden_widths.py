"""The golden model's integers are as narrow as their bounds prove enough, and no result depends on which are used."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_checks import assert_equals_reference
from random_networks import COMPARES, RESETS, random_leak, random_stimulus, random_terms
from random_structures import random_structure
from scipy import sparse

from codesign.contract import golden
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.network import (
    INPUT,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
)
from codesign.contract.stimulus import Stimulus

# What each path is: the integers that may be used, and below which share of events products are sparse.
WIDE = {"INTEGERS": (np.int64, object)}
SPARSE, DENSE = {"RARE": 2.0}, {"RARE": 0.0}
PATHS: dict[str, dict[str, Any]] = {
    "sparse, 64 bits": WIDE | SPARSE,
    "dense, 64 bits": WIDE | DENSE,
    "sparse, 32 bits": {"INTEGERS": (np.int32, np.int64, object)} | SPARSE,
    "sparse, narrow": SPARSE,
    "dense, narrow": DENSE,
}


def run_by(monkeypatch: pytest.MonkeyPatch, path: dict[str, Any], *arguments: Any, **options: Any) -> golden.Trace:
    with monkeypatch.context() as patch:
        for name, value in path.items():
            patch.setattr(golden, name, value)
        return golden.run(*arguments, **options)


def assert_same(ours: golden.Trace, theirs: golden.Trace) -> None:
    """Equal in every value and dtype."""
    for name in (field.name for field in fields(golden.Trace)):
        found, expected = getattr(ours, name), getattr(theirs, name)
        pairs = zip(found, expected, strict=True) if isinstance(found, list) else [(found, expected)]
        for array, other in pairs:
            assert array.dtype == other.dtype and np.array_equal(array, other), name


@pytest.mark.parametrize(
    "bound, dtype",
    [
        (0, np.int16),
        ((1 << 15) - 1, np.int16),
        (1 << 15, np.int32),
        ((1 << 31) - 1, np.int32),
        (1 << 31, np.int64),
        ((1 << 63) - 1, np.int64),
        (1 << 63, object),
    ],
)
def test_the_narrowest_integers_that_hold_a_bound(bound: int, dtype: Any) -> None:
    assert golden.narrowest(bound) is dtype


# Sums -------------------------------------------------------------------------------------------


def synapses(weights: list[int]) -> Projection:
    return Projection(INPUT, Synapses.from_dense(np.array(weights)[:, None]))


def pooled(weights: list[int], size: int) -> Projection:
    """Each weight is of a window of size x size sources, of a channel of its own."""
    shape = (len(weights), size, size)
    return Projection(INPUT, Synapses.from_dense(np.array(weights)[:, None]), SumPool(shape, size))


def convolved(weights: list[int]) -> Projection:
    return Projection(INPUT, Convolution.from_dense(np.array(weights)[None, :, None, None], (len(weights), 1, 1)))


TO_15_BITS = [127] * 258 + [1]  # 2^15 - 1
TO_31_BITS = [127] * 66311 + [7]  # 255 of each: 2^31 - 128
EDGES = {
    "positive": (synapses(TO_15_BITS), 1, np.int16),
    "positive, one more": (synapses([*TO_15_BITS, 1]), 1, np.int32),
    "negative": (synapses([-w for w in TO_15_BITS]), 1, np.int16),
    "negative, two more": (synapses([-w for w in [*TO_15_BITS, 2]]), 1, np.int32),
    "cancelling": (synapses([*TO_15_BITS, *(-w for w in TO_15_BITS)]), 1, np.int16),
    "cancelling, one more": (synapses([*TO_15_BITS, 1, *(-w for w in TO_15_BITS)]), 1, np.int32),
    "values": (synapses([127, 1]), 255, np.int16),
    "values beyond": (synapses([127, 2]), 255, np.int32),
    "pooled": (pooled([127, 127, 127, -127], 9), 1, np.int16),
    "pooled beyond": (pooled([127, 127, 127, 127], 9), 1, np.int32),
    "convolved": (convolved(TO_15_BITS), 1, np.int16),
    "convolved, one more": (convolved([*TO_15_BITS, 1]), 1, np.int32),
    "32 bits": (synapses(TO_31_BITS), 255, np.int32),
    "beyond 32 bits": (synapses([*TO_31_BITS, 1]), 255, np.int64),
}
NARROWER: dict[Any, Any] = {np.int32: np.int16, np.int64: np.int32}


def extreme_rows(matrices: list[Any], source_max: int) -> tuple[np.ndarray, list[int]]:
    """Largest values of every source, of those of positive and of those of negative weights; their sums."""
    weight = matrices[0].astype(np.int64).toarray()
    for matrix in matrices[1:]:
        weight = weight @ matrix.astype(np.int64).toarray()
    weight = weight[:, 0]
    rows = np.stack([weight != 0, weight > 0, weight < 0]).astype(np.uint8) * np.uint8(source_max)
    return rows, (rows.astype(np.int64) @ weight).tolist()


@pytest.mark.parametrize("name", EDGES)
def test_the_bound_of_the_sums_decides_and_holds(name: str) -> None:
    projection, source_max, dtype = EDGES[name]
    matrices = golden.projection_matrices(projection, source_max)
    assert golden.sum_dtype(projection, source_max) is dtype
    assert all(matrix.dtype == dtype for matrix in matrices)
    rows, expected = extreme_rows(matrices, source_max)
    for events in (rows, sparse.csr_matrix(rows)):
        found = golden.weighted_sums(events, matrices)
        assert found.dtype == dtype and found[:, 0].tolist() == expected


@pytest.mark.parametrize("name", [name for name in EDGES if "more" in name or "beyond" in name])
def test_beyond_the_bound_narrower_integers_are_wrong(name: str, monkeypatch) -> None:
    projection, source_max, dtype = EDGES[name]
    rows, expected = extreme_rows(golden.projection_matrices(projection, source_max), source_max)
    monkeypatch.setattr(golden, "narrowest", lambda bound: NARROWER[dtype])
    assert golden.weighted_sums(rows, golden.projection_matrices(projection, source_max))[:, 0].tolist() != expected


def test_windows_of_a_pool_fit_even_where_no_weight_reads_them() -> None:
    assert golden.sum_dtype(pooled([0, 0], 12), 255) is np.int32


# Membranes --------------------------------------------------------------------------------------

MEMBRANES: dict[str, tuple[dict[str, Any], Any]] = {
    # 127 << 6, 2^13, 8000 and the threshold are 2^15 - 1
    "16 bits": ({"fraction_bits": 6, "membrane_width": 14, "bias": 8000, "threshold": 8447}, np.int16),
    "beyond 16 bits": ({"fraction_bits": 6, "membrane_width": 14, "bias": 8000, "threshold": 8448}, np.int32),
    "16 bits, negative": ({"fraction_bits": 6, "membrane_width": 14, "bias": -8000, "threshold": -8447}, np.int16),
    # 127, 2^7 * 250 and the others are 2^15 - 1
    "leak of 16 bits": (
        {"membrane_width": 8, "leak": Leak("multiply", 8, 250), "bias": 100, "threshold": 540},
        np.int16,
    ),
    "leak beyond 16 bits": (
        {"membrane_width": 8, "leak": Leak("multiply", 8, 250), "bias": 100, "threshold": 541},
        np.int32,
    ),
    # 127 << 20, 2^29, 2^29 and the threshold are 2^31 - 1
    "32 bits": (
        {"fraction_bits": 20, "membrane_width": 30, "bias": 1 << 29, "threshold": (1 << 30) - (127 << 20) - 1},
        np.int32,
    ),
    "beyond 32 bits": (
        {"fraction_bits": 20, "membrane_width": 30, "bias": 1 << 29, "threshold": (1 << 30) - (127 << 20)},
        np.int64,
    ),
    "64 bits": (
        {"membrane_width": 48, "leak": Leak("multiply", 16, (1 << 16) - 1), "bias": 1 << 40, "threshold": 3 << 38},
        np.int64,
    ),
    "beyond 64 bits": (
        {"membrane_width": 48, "leak": Leak("multiply", 24, (1 << 24) - 1), "bias": 1 << 40, "threshold": 1},
        object,
    ),
}


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("name", MEMBRANES)
def test_the_bound_of_the_membranes_decides_and_holds(name: str, reset: str, tmp_path: Path) -> None:
    parameters, dtype = MEMBRANES[name]
    layer = FrozenLayer.from_dense(
        np.array([[127, -127, 127]]), recurrent=np.zeros((3, 3), int), reset=reset, **parameters
    )
    network = FrozenNetwork((layer,), 12, InputCoding("events"))
    network.validate()
    assert golden.membrane_dtype(network.layers[0]) is dtype
    events = np.random.default_rng(1).random((3, 12, 1)) < [[[0.2]], [[0.6]], [[1.0]]]
    assert_equals_reference(network, Stimulus.from_dense(events), tmp_path / "net.safetensors")


def test_a_leak_beyond_64_bits_is_exact_in_every_neuron(tmp_path: Path) -> None:
    leak = Leak("multiply", np.array([24, 24]), np.array([(1 << 24) - 1, 1 << 24]))
    layer = FrozenLayer.from_dense(
        np.array([[1, 1]]), leak=leak, bias=np.array([1 << 40, -(1 << 40)]), reset="none", membrane_width=48
    )
    network = FrozenNetwork((layer,), 3, InputCoding("events"))
    trace = assert_equals_reference(network, Stimulus.from_dense(np.ones((1, 3, 1), bool)), tmp_path / "n")
    first = (1 << 40) + 1
    second = (first * ((1 << 24) - 1) >> 24) + first
    assert trace.membranes[0][0, :2].tolist() == [[first, 2 - first], [second, 2 * (2 - first)]]


def test_dead_code_follows_a_leak_beyond_64_bits() -> None:
    """The bias alone makes hidden neuron 1 fire at t = 1; in int64 2^39 * 2^24 would wrap around."""
    hidden = FrozenLayer.from_dense(
        np.array([[1, 0]]),
        leak=Leak("multiply", 24, 1 << 24),
        bias=np.array([0, 1 << 39]),
        threshold=np.array([1, 1 << 40]),
        membrane_width=48,
    )
    network = FrozenNetwork((hidden, FrozenLayer.from_dense(np.array([[1], [1]]))), 2, InputCoding("events"))
    network.validate()
    assert remove_dead_code(network).layers[0].n_out == 2


def steps(layer: FrozenLayer, sums: np.ndarray, dtype: Any) -> golden.LayerTrace:
    """The layer's steps in these integers; its second projection is its own."""
    own = golden.projection_matrices(layer.projections[1], 1)

    def recurrence(before: np.ndarray) -> np.ndarray:
        return golden.weighted_sums(before, own).astype(dtype)

    return golden.lif_steps(layer, sums.astype(dtype), recurrence=recurrence, dtype=dtype)


def test_random_layers_equal_those_in_integers_without_bounds() -> None:
    """Constants of every size, sums at their bounds; Python's integers have no bound."""
    used: dict[Any, int] = {}
    for seed in range(300):
        rng = np.random.default_rng([17, seed])
        n_out, bits = int(rng.integers(1, 6)), int(rng.integers(4, 49))
        fraction_bits = int(rng.integers(0, min(24, bits // 2) + 1))
        width = int(rng.integers(2, bits + 1))
        size = 1 << int(rng.integers(1, min(40, bits) + 1))
        limit, source_max = int(rng.choice([1, 127])), int(rng.choice([1, 255]))
        leak = random_leak(rng)
        if bits > 40:
            leak, width = Leak("multiply", 24, int(rng.integers(1 << 22, (1 << 24) + 1))), bits
        reset = RESETS[rng.integers(0, 4)]
        layer = FrozenLayer.from_dense(
            rng.integers(-limit, limit + 1, (4, n_out)),
            recurrent=rng.integers(-limit, limit + 1, (n_out, n_out)),
            threshold=rng.integers(-size, size + 1, n_out),
            bias=rng.integers(-size, size + 1, n_out),
            leak=leak,
            reset=reset,
            reset_value=int(rng.integers(-(1 << (width - 1)), 1 << (width - 1))) if reset == "value" else 0,
            compare=COMPARES[rng.integers(0, 2)],
            fraction_bits=fraction_bits,
            membrane_width=width,
        ).resolved(0)
        layer = random_terms(rng, layer)
        low, high = layer.projections[0].sum_range(source_max)
        sums = np.where(rng.random((3, 8, n_out)) < 0.5, low, high)
        dtype = golden.membrane_dtype(layer, source_max)
        found, expected = (steps(layer, sums, chosen) for chosen in (dtype, object))
        assert found.membranes.dtype == found.potentials.dtype == found.currents.dtype == dtype
        assert all(
            np.array_equal(getattr(found, each.name), getattr(expected, each.name))
            for each in fields(golden.LayerTrace)
        )
        used[dtype] = used.get(dtype, 0) + 1
    assert min(used.get(dtype, 0) for dtype in golden.INTEGERS) >= 20, used


def test_values_of_the_input_count_in_the_bounds(tmp_path: Path) -> None:
    """Twice 127 * 255 does not fit 16 bits, twice 127 does; so does a membrane of 12."""
    layer = FrozenLayer.from_dense(np.array([[127, -127], [127, -127]]), threshold=1000, membrane_width=12)
    network = FrozenNetwork((layer,), 3, InputCoding("current", 8))
    stimulus = Stimulus(2, 3, np.array([-1, -1], np.int32), values=np.array([[255, 255], [3, 0]], np.uint8))
    trace = assert_equals_reference(network, stimulus, tmp_path / "net.safetensors")
    assert trace.membranes[0][0].tolist() == [[2047, -2048]] * 3


# Whole networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_no_result_depends_on_the_path(path: str, monkeypatch) -> None:
    for seed in range(40):
        rng = np.random.default_rng([23, seed])
        network = random_structure(rng)
        stimulus = random_stimulus(rng, network, 3)
        assert_same(run_by(monkeypatch, PATHS[path], network, stimulus), golden.run(network, stimulus))


@pytest.mark.parametrize("path", PATHS)
def test_every_path_equals_the_reference(path: str, monkeypatch, tmp_path: Path) -> None:
    for name, value in PATHS[path].items():
        monkeypatch.setattr(golden, name, value)
    for seed in range(25):
        rng = np.random.default_rng([29, seed])
        network = random_structure(rng)
        assert_equals_reference(network, random_stimulus(rng, network, 2), tmp_path / "net.safetensors")


def test_random_structures_use_narrow_integers_of_both_sizes() -> None:
    used: dict[Any, int] = {}
    for seed in range(40):
        network = random_structure(np.random.default_rng([23, seed]))
        for index, layer in enumerate(network.layers):
            dtype = golden.membrane_dtype(layer, network.source_max(index))
            used[dtype] = used.get(dtype, 0) + 1
    assert min(used.get(np.int16, 0), used.get(np.int32, 0)) >= 10, used


def test_no_samples_are_no_results(monkeypatch) -> None:
    for path in (SPARSE, DENSE):
        rng = np.random.default_rng(3)
        network = random_structure(rng)
        trace = run_by(monkeypatch, path, network, random_stimulus(rng, network, 2).take(slice(0, 0)))
        assert len(trace.decisions) == 0 and trace.membranes[0].shape[0] == 0
