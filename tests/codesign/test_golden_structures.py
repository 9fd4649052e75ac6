"""Convolutions, pooling, recurrence, residual connections and leaks per neuron in the golden model.

Trajectories worked out by hand, mutated golden models that they catch, and the second reference on random networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference_lif
from golden_checks import assert_chunks_do_not_matter, assert_equals_reference, mutate, one_sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import random_stimulus
from random_structures import random_structure

from codesign.contract import golden
from codesign.contract.network import (
    INPUT,
    OWN,
    PREVIOUS,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
)


def matrix(weights: list[list[int]]) -> Synapses:
    return Synapses.from_dense(np.array(weights))


def layer(*projections: Projection, **parameters: Any) -> FrozenLayer:
    return FrozenLayer.from_projections(projections, **{"threshold": 100, **parameters})


@dataclass(frozen=True)
class Case:
    """One sample, worked out by hand. ``spikes`` and ``membranes`` are per layer, timestep, neuron."""

    name: str
    layers: list[FrozenLayer]
    sample: Any
    spikes: list[list[list[int]]]
    membranes: list[list[list[int]]]
    operations: list[int]

    def network(self) -> FrozenNetwork:
        coding = InputCoding("current", 4) if isinstance(self.sample[0], int) else InputCoding("events")
        network = FrozenNetwork(tuple(self.layers), len(self.membranes[0]), coding)
        network.validate()
        return network

    def holds(self) -> bool:
        """True if the golden model gives exactly these lists."""
        network = self.network()
        trace = golden.run(network, one_sample(network, self.sample))
        return (
            [found[0].astype(int).tolist() for found in trace.spikes] == self.spikes
            and [found[0].tolist() for found in trace.membranes] == self.membranes
            and trace.values[0].tolist() == np.sum(self.spikes[-1], axis=0).tolist()
            and trace.synaptic_operations[0].tolist() == self.operations
            and trace.spike_counts[0].tolist() == [int(np.sum(found)) for found in self.spikes]
        )


E, N = [0], []  # an event of source 0; no event

CASES = [
    # neuron 0 fires at t = 0, which neuron 1 feels at t = 1
    Case(
        "recurrence_takes_one_timestep",
        [FrozenLayer.from_dense(np.array([[5, 0]]), recurrent=np.array([[0, 3], [0, 0]]), threshold=np.array([5, 3]))],
        [E, N, N],
        [[[1, 0], [0, 1], [0, 0]]],
        [[[0, 0], [0, 0], [0, 0]]],
        [2],
    ),
    # 4; 4 + 4 = 8 -> 0; 6 -> 0; 6 -> 0: the spike of the last timestep walks nowhere
    Case(
        "recurrence_keeps_itself_alive_after_reset_to_zero",
        [FrozenLayer.from_dense(np.array([[4]]), recurrent=np.array([[6]]), threshold=5, reset="zero")],
        [E, E, N, N],
        [[[0], [1], [1], [1]]],
        [[[4], [0], [0], [0]]],
        [4],
    ),
    # 2 * 3 at every timestep: 6 - 6 = 0; 6 - 4 = 2; 8 - 6 = 2; 2 + 6 - 4 = 4
    Case(
        "current_and_recurrence",
        [FrozenLayer.from_dense(np.array([[2]]), recurrent=np.array([[-4]]), threshold=6)],
        [3],
        [[[1], [0], [1], [0]]],
        [[[0], [2], [2], [4]]],
        [3],
    ),
    # recurrence is shifted as every sum: (1 << 2) - 3 = 1; 1 + (1 << 2) - 3 = 2
    Case(
        "recurrence_and_fraction_bits",
        [FrozenLayer.from_dense(np.array([[1]]), recurrent=np.array([[1]]), threshold=3, fraction_bits=2)],
        [E, N, N],
        [[[1], [1], [1]]],
        [[[1], [2], [3]]],
        [3],
    ),
    # a 2 x 3 picture has one 2 x 2 window, its last column is dropped: 4 * 3 - 10 = 2; 2; 2 + 3 = 5
    Case(
        "pool_sums_events",
        [layer(Projection(PREVIOUS, matrix([[3]]), SumPool((1, 2, 3), 2)), threshold=10)],
        [[0, 1, 3, 4], [2, 5], [0]],
        [[[1], [0], [0]]],
        [[[2], [2], [5]]],
        [5],
    ),
    # a column of four has two windows: 2 + 2; then 5 + 5
    Case(
        "pool_windows_are_of_neighbours",
        [layer(Projection(PREVIOUS, matrix([[2], [5]]), SumPool((1, 4, 2), 2)))],
        [[0, 2], [5, 7]],
        [[[0], [0]]],
        [[[4], [14]]],
        [4],
    ),
    # windows of values: (1 + 2) * 2 + (3 + 4) * 1 = 13 at every timestep
    Case(
        "pool_sums_current",
        [layer(Projection(PREVIOUS, matrix([[2], [1]]), SumPool((1, 2, 4), 2)))],
        [1, 0, 3, 0, 0, 2, 0, 4],
        [[[0], [0]]],
        [[[13], [26]]],
        [4],
    ),
    # source (y, x) reaches target (Y, X) by tap (y - 2 Y + 1, x - 2 X + 1): (0, 0) by one, (1, 1) by all four corners
    Case(
        "convolution_at_stride_and_border",
        [
            layer(
                Projection(PREVIOUS, Convolution.from_dense([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]], (1, 3, 3), 2, 1)),
                threshold=14,
            )
        ],
        [[0], [4], [1, 8]],
        [[[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]],
        [[[5, 0, 0, 0], [0, 7, 3, 1], [6, 11, 3, 6]]],
        [8],
    ),
    # kernel of one row: channel 0 takes x0 - 2 x1 of channel 0 and 3 x1 of channel 1, channel 1 takes 4 x0 of channel 1
    Case(
        "convolution_of_channels",
        [layer(Projection(PREVIOUS, Convolution.from_dense([[[[1, -2]], [[0, 3]]], [[[0, 0]], [[4, 0]]]], (2, 2, 2))))],
        [[0], [3, 7], [4]],
        [[[0, 0, 0, 0]] * 3],
        [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 4, 0]]],
        [4],
    ),
    # three of four neurons fire at once: 3 * 2; then 6 + 2
    Case(
        "pool_between_layers",
        [
            layer(Projection(PREVIOUS, Convolution.from_dense([[[[5]]]], (1, 2, 2))), threshold=5),
            layer(Projection(PREVIOUS, matrix([[2]]), SumPool((1, 2, 2), 2))),
        ],
        [[0, 1, 2], [3]],
        [[[1, 1, 1, 0], [0, 0, 0, 1]], [[0], [0]]],
        [[[0, 0, 0, 0], [0, 0, 0, 0]], [[6], [8]]],
        [4, 4],
    ),
    # 2 s0 + 3 x0 and -s1 + 3 x1 in the same timestep
    Case(
        "residual_identity",
        [
            layer(Projection(PREVIOUS, matrix([[5, 0], [0, 5]])), threshold=5, shape=(2, 1, 1)),
            layer(
                Projection(PREVIOUS, Convolution.from_dense([[[[2]], [[0]]], [[[0]], [[-1]]]], (2, 1, 1))),
                Projection.identity(INPUT, (2, 1, 1), 3),
            ),
        ],
        [[0], [1], [0, 1]],
        [[[1, 0], [0, 1], [1, 1]], [[0, 0], [0, 0], [0, 0]]],
        [[[0, 0], [0, 0], [0, 0]], [[5, 0], [5, 2], [10, 4]]],
        [4, 8],
    ),
    # layer 2 reads layers 0 and 1 of the same timestep: 3; 3 + 3 + 10
    Case(
        "projection_that_skips_a_layer",
        [
            layer(Projection(PREVIOUS, matrix([[5]])), threshold=5),
            layer(Projection(PREVIOUS, matrix([[2]])), threshold=4),
            layer(Projection(0, matrix([[3]])), Projection(PREVIOUS, matrix([[10]]))),
        ],
        [E, E],
        [[[1], [1]], [[0], [1]], [[0], [0]]],
        [[[0], [0]], [[2], [0]], [[3], [16]]],
        [2, 2, 3],
    ),
    # a spike spreads to the neighbour on the right: own tap (0, 0) of a 1 x 3 row with padding 1 below
    Case(
        "recurrent_convolution",
        [
            layer(
                Projection(PREVIOUS, Convolution.from_dense([[[[5]]]], (1, 1, 3))),
                Projection(OWN, Convolution.from_dense([[[[0, 0, 0], [5, 0, 0], [0, 0, 0]]]], (1, 1, 3), 1, 1)),
                threshold=5,
            )
        ],
        [E, N, N, N],
        [[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]],
        [[[0, 0, 0]] * 4],
        [3],
    ),
    # 8 - 4, 4 - 2 beside 8 - 2, 6 - 1
    Case(
        "leak_shift_per_neuron",
        [FrozenLayer.from_dense(np.array([[8, 8]]), threshold=100, leak=Leak("shift", np.array([1, 2])))],
        [E, N, N],
        [[[0, 0]] * 3],
        [[[8, 8], [4, 6], [2, 5]]],
        [2],
    ),
    # 8 / 2, 4 / 2 beside floor(8 * 3 / 4), floor(6 * 3 / 4) = 4
    Case(
        "leak_multiplier_per_neuron",
        [
            FrozenLayer.from_dense(
                np.array([[8, 8]]), threshold=100, leak=Leak("multiply", np.array([1, 2]), np.array([1, 3]))
            )
        ],
        [E, N, N],
        [[[0, 0]] * 3],
        [[[8, 8], [4, 6], [2, 4]]],
        [2],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_follows_a_trajectory_worked_out_by_hand(case: Case) -> None:
    assert case.holds()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference_follows_a_trajectory_worked_out_by_hand(case: Case, tmp_path) -> None:
    case.network().save(tmp_path / "net.safetensors")
    result = reference_lif.run(reference_lif.read_network(tmp_path / "net.safetensors"), case.sample)
    assert (result["spikes"], result["membranes"]) == (case.spikes, case.membranes)


def test_no_recurrent_spike_survives_a_sample() -> None:
    case = CASES[1]
    network = case.network()
    trace = golden.run(network, one_sample(network, case.sample).take([0, 0, 0]))
    assert trace.membranes[0][:, :, 0].tolist() == [[4, 0, 0, 0]] * 3


MUTATIONS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "recurrence at the same timestep": (
        "lif_steps",
        [
            ("if recurrence is not None and t > 0", "if False"),
            (
                "        spikes[:, t], stored",
                "        v = v if recurrence is None else v + (recurrence(s) << layer.fraction_bits)\n"
                "        spikes[:, t], stored",
            ),
        ],
    ),
    "recurrence a timestep late": ("lif_steps", [("and t > 0", "and t > 1"), ("spikes[:, t - 1]", "spikes[:, t - 2]")]),
    "recurrence forgotten": ("lif_steps", [("and t > 0", "and t < 0")]),
    "recurrence not shifted": (
        "lif_steps",
        [
            ("total = total + recurrence(spikes[:, t - 1])", "extra = recurrence(spikes[:, t - 1])"),
            ("total = sums[:, t]", "total, extra = sums[:, t], 0"),
            ("+ layer.bias", "+ layer.bias + extra"),
        ],
    ),
    "one leak for all": (
        "lif_steps",
        [
            (
                "layer.leak(v)",
                "type(layer.leak)(layer.leak.kind, int(np.ravel(layer.leak.shift)[0]), "
                "int(np.ravel(layer.leak.multiplier)[0]))(v)",
            )
        ],
    ),
    "pooling by or": (
        "weighted_sums",
        [("carried @ matrix, matrices", "(carried @ matrix if matrix is matrices[-1] else "
          "(carried @ matrix != 0).astype(np.int64)), matrices")],
    ),
    "pool windows beside each other": ("pool_matrix", [("* height + y // pool.size)", "* height + y % height)")]),
    "padding off by one": ("convolution_matrix", [("ky - convolution.padding", "ky - convolution.padding + 1")]),
    "no padding": ("convolution_matrix", [("kx - convolution.padding", "kx")]),
    "kernel flipped": ("convolution_matrix", [("n.stride + ky -", "n.stride + (convolution.kernel[0] - 1 - ky) -")]),
    "kernel transposed": (
        "convolution_matrix",
        [("convolution.ky == ky", "convolution.ky == kx"), ("convolution.kx == kx", "convolution.kx == ky")],
    ),
    "stride ignored": ("convolution_matrix", [("convolution.stride + kx", "1 + kx")]),
    "channels exchanged": ("convolution_matrix", [("convolution.in_channel[taps", "convolution.out_channel[taps")]),
    "every projection from the layer before": ("_run_chunk", [("events[projection.source]", "events[index - 1]")]),
    "only the first projection": ("_run_chunk", [("reduce(np.add, parts)", "parts[0]")]),
    "last recurrent spike walks": ("_run_chunk", [("[:, 1:, index] += fired[:, :-1]", "[:, :, index] += fired")]),
    "an operation per pooled event": ("fan_out", [("matrices[0] @ counts", "(matrices[0] @ counts) * 0 + 1")]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_literals_catch_a_mutated_golden_model(name: str, monkeypatch) -> None:
    mutate(monkeypatch, *MUTATIONS[name])
    assert not all(case.holds() for case in CASES)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_golden_equals_reference_on_random_structures(seed: int, tmp_path) -> None:
    rng = np.random.default_rng(seed)
    network = random_structure(rng)
    assert_equals_reference(network, random_stimulus(rng, network, 2), tmp_path / "net.safetensors")


def test_random_structures_reach_every_feature(tmp_path) -> None:
    seen: dict[str, int] = {}
    for seed in range(80):
        rng = np.random.default_rng([5, seed])
        network = random_structure(rng)
        trace = assert_equals_reference(network, random_stimulus(rng, network, 2), tmp_path / "n")
        parts = [(index, part) for index, layer in enumerate(network.layers) for part in layer.projections]
        has = {
            "recurrent": any(part.source == index for index, part in parts),
            "convolutions": any(isinstance(part.connections, Convolution) and not part.fixed for _, part in parts),
            "pooling": any(part.pool is not None for _, part in parts),
            "residual": any(part.fixed or part.source not in (index, index - 1) for index, part in parts),
            "a leak per neuron": any(layer.leak.per_neuron for layer in network.layers),
        }
        for what, there in has.items():
            seen[what] = seen.get(what, 0) + (there and bool(trace.spike_counts.any()))
    assert len(seen) == 5 and min(seen.values()) >= 10, seen


def test_bounds_hold_for_every_potential_and_are_reached() -> None:
    convolution = Convolution.from_dense([[[[1, -2], [3, 4]]]], (1, 2, 2), 1, 1)
    first = layer(
        Projection(INPUT, convolution),
        Projection(INPUT, matrix([[1, 0, 0, 0, 0, 0, 0, 0, -1]]), SumPool((1, 2, 2), 2)),
        Projection(OWN, matrix([[0] * 8 + [-5], *[[0] * 9] * 8])),
    )
    low, high = first.sum_range(3)
    # corner (0, 0): tap 4 of source 0, and the pool of four sources; corner (2, 2): tap 1, pool negative, own negative
    assert (int(low[0]), int(high[0])) == (0, 3 * 4 + 3 * 4)
    assert (int(low[8]), int(high[8])) == (-3 * 4 - 5, 3 * 1)
    # the middle sees the whole kernel
    assert (int(low[4]), int(high[4])) == (-6, 24)
    dense = golden.convolution_matrix(convolution).toarray()
    assert convolution.n_operations == np.count_nonzero(dense)
    least, most = convolution.sum_range()
    assert np.array_equal(least, np.minimum(dense, 0).sum(0)) and np.array_equal(most, np.maximum(dense, 0).sum(0))


def test_bounds_of_random_convolutions_are_those_of_their_matrix() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for found in random_structure(rng).layers:
            for projection in found.projections:
                if isinstance(projection.connections, Convolution):
                    dense = golden.convolution_matrix(projection.connections).toarray()
                    assert projection.connections.n_operations == np.count_nonzero(dense)
                    least, most = projection.connections.sum_range()
                    assert np.array_equal(least, np.minimum(dense, 0).sum(0))
                    assert np.array_equal(most, np.maximum(dense, 0).sum(0))


def test_bounds_of_sparse_kernels_of_every_stride_and_padding_are_those_of_their_matrix() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        height, width, stride = rng.integers(1, 8, 3).tolist()
        kernel = rng.integers(1, (height + 3, width + 3)).tolist()
        padding = int(rng.integers(max(kernel)))
        kernel = [min(size, whole + 2 * padding) for size, whole in zip(kernel, (height, width), strict=True)]
        padding = min(padding, max(kernel) - 1)
        taps = rng.integers(-3, 4, (2, 2, *kernel)) * (rng.random((2, 2, *kernel)) < 0.3)
        if any(size > whole + 2 * padding for size, whole in zip(kernel, (height, width), strict=True)):
            continue
        convolution = Convolution.from_dense(taps, (2, height, width), stride, padding)
        dense = golden.convolution_matrix(convolution).toarray()
        assert convolution.n_operations == np.count_nonzero(dense)
        least, most = convolution.sum_range()
        assert np.array_equal(least, np.minimum(dense, 0).sum(0)) and np.array_equal(most, np.maximum(dense, 0).sum(0))


def test_spikes_need_not_be_recorded() -> None:
    rng = np.random.default_rng(2)
    network = random_structure(rng)
    stimulus = random_stimulus(rng, network, 5)
    full, brief = golden.run(network, stimulus), golden.run(network, stimulus, membranes=False, spikes=False)
    assert brief.spikes == [] and brief.membranes == []
    assert np.array_equal(full.values, brief.values)
    assert np.array_equal(brief.spike_counts, np.stack([found.sum((1, 2)) for found in full.spikes], axis=1))


def test_results_do_not_depend_on_the_chunk_size(monkeypatch) -> None:
    for seed in range(6):
        rng = np.random.default_rng([11, seed])
        network = random_structure(rng)
        stimulus = random_stimulus(rng, network, 5)
        assert_chunks_do_not_matter(network, stimulus, monkeypatch)
