"""Convolutions, pooling, recurrent and residual projections: the file, the checks, and what hardware refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_networks import random_network
from random_structures import random_structure
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from codesign.basics.errors import InputError, UnsupportedError
from codesign.cli import main
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
from codesign.contract.stimulus import Stimulus
from codesign.machine.mapping import map_network


def example() -> FrozenNetwork:
    """A convolution, a convolution beside an identity, and a pooled layer of 3 with recurrence."""
    kernel = np.arange(-9, 9).reshape(2, 1, 3, 3)
    first = FrozenLayer.from_projections([Projection(PREVIOUS, Convolution.from_dense(kernel, (1, 4, 4), 1, 1))])
    second = FrozenLayer.from_projections(
        [
            Projection(PREVIOUS, Convolution.from_dense(np.ones((2, 2, 1, 1), int), (2, 4, 4))),
            Projection.identity(0, (2, 4, 4)),
        ],
        threshold=np.array([3, 4]),
        leak=Leak("shift", np.array([1, 2])),
    )
    last = FrozenLayer.from_projections(
        [
            Projection(PREVIOUS, Synapses.from_dense(np.eye(8, 3, dtype=int)), SumPool((2, 4, 4), 2)),
            Projection(OWN, Synapses.from_dense(1 - np.eye(3, dtype=int))),
        ]
    )
    network = FrozenNetwork((first, second, last), 3, InputCoding("events"))
    network.validate()
    return network


def uncovered() -> FrozenNetwork:
    """A layer to which input currents come and its own events."""
    rng = np.random.default_rng(1)
    layer = FrozenLayer.from_dense(rng.integers(-3, 4, (16, 3)), recurrent=1 - np.eye(3, dtype=int), threshold=20)
    network = FrozenNetwork((layer.resolved(0),), 3, InputCoding("current", 4))
    network.validate()
    return network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    example().save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def rewrite(path: Path, tensors: dict[str, Any], edit: Any = None) -> None:
    arrays = load_file(path)
    assert set(tensors) <= set(arrays)
    with safe_open(path, framework="numpy") as file:
        document = json.loads(file.metadata()["codesign"])
    if edit is not None:
        edit(document["layers"])
    save_file({**arrays, **tensors}, path, {"codesign": json.dumps(document)})


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FrozenNetwork.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_values_per_channel_are_spread_over_the_picture() -> None:
    second = example().layers[1]
    assert second.threshold.tolist() == [3] * 16 + [4] * 16
    assert np.asarray(second.leak.shift).tolist() == [1] * 16 + [2] * 16


def test_dense_kernels_come_back() -> None:
    kernel = np.random.default_rng(0).integers(-3, 4, (3, 2, 2, 3))
    assert np.array_equal(Convolution.from_dense(kernel, (2, 5, 5)).dense(), kernel)


def test_densities_count_taps_once_and_no_identities() -> None:
    network = example()
    # 18 taps of which one is 0; 4 taps and an identity; 3 of 8 x 3 synapses and 6 of 3 x 3
    assert [layer.n_synapses for layer in network.layers] == [17, 4, 9]
    assert network.dense_synapses == 18 + 4 + (24 + 9)
    assert network.layer_density == [17 / 18, 1.0, 9 / 33]
    assert network.density == 30 / 55


def tap(layers: Any, layer: int = 0, projection: int = 0) -> Any:
    return layers[layer]["projections"][projection]["connections"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda layers: tap(layers).update(n_taps=1 << 29), "layer 0: n_taps = 536870912 is outside"),
        (lambda layers: tap(layers).update(n_taps=16), r"layer 0: in_channel is I32 \[17\], expected I32 \[16\]"),
        (lambda layers: tap(layers).update(in_shape=[1, 1 << 19, 4]), "limit is 1048576"),
        (lambda layers: tap(layers).update(in_shape=[1, 4]), r"in_shape \(1, 4\) is not \(channels, height, width\)"),
        (lambda layers: tap(layers).update(in_shape="144"), "in_shape .* is not"),
        (lambda layers: tap(layers).update(in_shape=[1, 4, True]), "in_shape .* is not"),
        (lambda layers: tap(layers).update(in_shape=4), "metadata is incomplete"),
        (lambda layers: tap(layers).update(out_channels=0), "out_channels = 0 is outside"),
        (lambda layers: tap(layers).update(out_channels=1 << 20), "out_shape .* has 16777216 neurons"),
        (lambda layers: tap(layers).update(stride=0), "stride = 0 or padding = 1 is not"),
        (lambda layers: tap(layers).update(stride=1.5), "stride = 1.5 or padding = 1 is not"),
        (lambda layers: tap(layers).update(padding=3), "padding 3 is not smaller than the kernel"),
        (lambda layers: tap(layers).update(padding=-1), "padding = -1 is not"),
        (lambda layers: tap(layers).update(kernel=[7, 3]), r"kernel \(7, 3\) does not fit a picture of \(6, 6\)"),
        (lambda layers: tap(layers).update(kernel=[3, 2]), "a tap's kx is outside 0..1"),
        (lambda layers: tap(layers).update(stride=2), r"a convolution to \(2, 2, 2\) in a layer of shape \(2, 4, 4\)"),
        (lambda layers: tap(layers).update(kind="sparse"), "connections 'sparse' are none of"),
        (lambda layers: tap(layers).pop("kernel"), "metadata is incomplete"),
        (lambda layers: layers[0].update(shape=[2, 4, 5]), r"shape \(2, 4, 5\) does not have 32 neurons"),
        (lambda layers: layers[0].update(shape=[4, 2, 4]), r"convolution to \(2, 4, 4\) in a layer of shape \(4, 2"),
        (lambda layers: layers[0].update(projections=[]), "number of projections is outside 1..16"),
        (lambda layers: layers[0].update(projections=layers[0]["projections"] * 17), "number of projections"),
        (lambda layers: layers[0]["projections"][0].update(source=1), r"layer 0: source 1 is outside -1..0"),
        (lambda layers: layers[0]["projections"][0].update(source=-4), "layer 0: source -4 is outside"),
        (lambda layers: layers[0]["projections"][0].update(source=None), "layer 0: source None is outside"),
        (lambda layers: layers[1]["projections"][0].update(source=1), "first projection must come from an earlier"),
        (lambda layers: layers[2]["projections"][0].update(source=-1), "has 32 sources, the network has 16 inputs"),
        (lambda layers: layers[2]["projections"][1].update(source=1), "layer 2 has 3 sources, layer 1 has 32 neurons"),
        (lambda layers: layers[2]["projections"][0]["pool"].update(shape=[1, 8, 4]), "reads a picture of"),
        (lambda layers: layers[2]["projections"][0]["pool"].update(size=3), r"gives \(2, 1, 1\), the conn.* take 8"),
        (lambda layers: layers[2]["projections"][0]["pool"].update(size=5), "pool size 5 is outside 1..4"),
        (lambda layers: layers[2]["projections"][0]["pool"].update(size="2"), "pool size '2' is outside 1..4"),
        (lambda layers: layers[0]["projections"][0].update(fixed=1), "fixed = 1 is neither true nor false"),
        (lambda layers: layers[0]["leak"].update(shift="1"), "leak shift '1' is not an integer"),
        (lambda layers: layers[1]["leak"].update(shift=1), "unknown tensor 'layer1.leak.shift'"),
        (lambda layers: layers[0]["leak"].update(shift=None), "tensor layer0.leak.shift is missing"),
    ],
)  # fmt: skip
def test_wrong_metadata_is_refused_in_one_line(path: Path, edit: Any, message: str) -> None:
    rewrite(path, {}, edit)
    refused(path, message)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"ky": np.full(17, 3, np.int32)}, "a tap's ky is outside 0..2"),
        ({"in_channel": np.full(17, -1, np.int32)}, "a tap's in_channel is outside 0..0"),
        ({"out_channel": np.zeros(17, np.int32)}, "taps are not strictly increasing"),
        ({"weights": np.zeros(17, np.int8)}, "a weight is zero or outside"),
        ({"weights": np.ones(17, np.int16)}, r"weights is I16 \[17\], expected I8 \[17\]"),
    ],
)
def test_damaged_taps_are_refused(path: Path, tensors: dict[str, Any], message: str) -> None:
    rewrite(path, {f"layer0.projection0.{name}": array for name, array in tensors.items()})
    refused(path, message)


def test_damaged_leaks_are_refused(path: Path) -> None:
    rewrite(path, {"layer1.leak.shift": np.arange(32)})
    refused(path, "layer 1: leak shift 31 is outside 0..24")


def test_a_convolution_of_too_many_connections_is_refused_unexpanded() -> None:
    kernel = np.ones((32, 32, 17, 17), np.int64)
    huge = Convolution.from_dense(kernel, (32, 128, 128), 1, 8)
    with pytest.raises(InputError, match=r"295936 taps are .* connections, the limit is 268435456"):
        FrozenLayer.from_projections([Projection(INPUT, huge)])


def test_arguments_of_constructors_are_checked() -> None:
    with pytest.raises(InputError, match="kernel of 2 input channels does not fit"):
        Convolution.from_dense(np.ones((1, 2, 1, 1), int), (1, 3, 3))
    with pytest.raises(InputError, match="weight 128 does not fit"):
        Convolution.from_dense(np.full((1, 1, 1, 1), 128), (1, 3, 3))
    with pytest.raises(InputError, match="must be an integer"):
        Convolution.from_dense(np.ones((1, 1, 1, 1)), (1, 3, 3))
    with pytest.raises(InputError, match="no projections"):
        FrozenLayer.from_projections([])
    with pytest.raises(InputError, match=r"bias has the shape \(3,\), expected \(2,\)"):
        FrozenLayer.from_dense(np.ones((2, 2), int), bias=np.arange(3))
    with pytest.raises(InputError, match="threshold is float64, expected integers"):
        FrozenLayer.from_dense(np.ones((2, 2), int), threshold=1.5)


def test_a_silent_last_layer_has_no_recurrence() -> None:
    options: dict[str, Any] = {"threshold": 1, "timesteps": 2, "reset": "none", "readout": "membrane_max"}
    with pytest.raises(InputError, match="emits no spikes for its recurrence"):
        FrozenNetwork.from_arrays([np.ones((1, 1), int)], recurrent=[np.ones((1, 1), int)], **options)


def test_recurrent_matrices_are_taken_from_arrays() -> None:
    network = FrozenNetwork.from_arrays(
        [np.ones((2, 3), int), np.ones((3, 2), int)], recurrent=[np.eye(3, dtype=int), None], threshold=1, timesteps=2
    )
    assert [len(layer.projections) for layer in network.layers] == [2, 1]
    assert network.layers[0].projections[1].source == 0 and network.density == (6 + 3 + 6) / (6 + 9 + 6)


# What hardware covers ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_plain_networks_are_covered(seed: int) -> None:
    network = random_network(np.random.default_rng(seed))
    assert network.hardware_support() is None
    network.require_hardware()


def test_everything_else_is_named() -> None:
    assert example().layers[1].leak.per_neuron and example().hardware_support() is None
    recurrent = FrozenLayer.from_dense(np.ones((2, 2), int), recurrent=np.ones((2, 2), int))
    later = FrozenLayer.from_projections(
        [Projection(source, Synapses.from_dense(np.ones((2, 2), int))) for source in (PREVIOUS, INPUT)]
    )
    for layers, part in (
        ((recurrent,), "events beside input currents (layer 0)"),
        ((FrozenLayer.from_dense(np.ones((2, 2), int)), later), "input currents to a later layer (layer 1)"),
    ):
        network = FrozenNetwork(
            tuple(layer.resolved(k) for k, layer in enumerate(layers)), 1, InputCoding("current", 4)
        )
        assert part in (network.hardware_support() or "")


@pytest.mark.parametrize("seed", range(10))
def test_chains_with_pictures_are_covered(seed: int) -> None:
    network = random_structure(np.random.default_rng(seed), chain=True)
    assert network.hardware_support() is None


def test_several_projections_are_covered() -> None:
    link = Projection(PREVIOUS, Synapses.from_dense(np.ones((2, 2), int)))
    network = FrozenNetwork((FrozenLayer.from_projections([link, link]),), 1, InputCoding("events"))
    assert network.hardware_support() is None


def test_a_layer_that_is_not_plain_has_no_list_of_synapses() -> None:
    for layer in example().layers:
        for name in ("n_in", "indptr", "targets", "weights", "sources"):
            with pytest.raises(UnsupportedError, match="no single list of synapses"):
                getattr(layer, name)
        with pytest.raises(UnsupportedError):
            layer.dense()


def test_the_mapper_refuses_in_one_line() -> None:
    with pytest.raises(UnsupportedError, match="the accelerator does not cover"):
        map_network(uncovered(), [1])


def test_commands_that_need_an_accelerator_exit_with_3_and_one_line(tmp_path: Path, capfd) -> None:
    network, folder, path = uncovered(), tmp_path / "run", tmp_path / "net.safetensors"
    network.save(path)
    values = np.random.default_rng(0).integers(0, 16, (6, 16)).astype(np.uint8)

    def refuse(*arguments: Any) -> str:
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == 3
        captured = capfd.readouterr()
        told = [line for line in captured.err.splitlines() if "accelerator does not cover" in line]
        assert len(told) == 1 and "Traceback" not in captured.err
        return captured.out

    refuse("estimate", path)
    refuse("generate", path, "-o", folder)
    Stimulus(16, 3, np.zeros(6, np.int32), values=values).save(folder / "stimulus.npz")
    for command in (
        ["generate"], ["estimate"], ["verify"], ["verify", "--mutants"], ["synth"], ["build", "--board", "icebreaker"]
    ):  # fmt: skip
        refuse(command[0], folder, *command[1:])
    document = json.loads(refuse("run", folder, "--json"))
    assert document["figures"]["mismatches"] is None
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "No hardware yet" in page and "Hardware equals software" not in page
    assert network.hash[:7] in page


def test_a_kernel_whose_bounds_would_fill_memory_is_refused():
    column = np.zeros(1, np.int32)
    for kernel, in_shape, channels in (((1 << 19, 1), (1, 1 << 20, 1), 1), ((1 << 10, 1), (1, 1 << 10, 1), 1 << 20)):
        taps = Convolution(in_shape, channels, kernel, 1, 0, column, column, column, column, np.ones(1, np.int8))
        with pytest.raises(InputError, match="larger than any that can be bounded"):
            taps.validate("layer 0", 8)


def test_what_hardware_cannot_tell_apart_is_not_covered() -> None:
    """An event has one address, whoever reads it; the spikes of a layer that leads nowhere are nobody's."""

    def of_shape(*shape: int) -> Projection:
        return Projection(INPUT, Convolution.from_dense(np.ones((1, shape[0], 1, 1), int), shape, 1, 0))

    def network_of(*layers: list[Projection]) -> FrozenNetwork:
        found = tuple(FrozenLayer.from_projections(parts).resolved(k) for k, parts in enumerate(layers))
        return FrozenNetwork(found, 1, InputCoding("events"))

    def none_of(n_in: int) -> tuple[np.ndarray, ...]:
        return np.zeros(n_in + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int8)

    dense = Projection(PREVIOUS, Synapses.from_dense(np.ones((12, 4), int)))
    for network, part in (
        (network_of([of_shape(1, 4, 3)], [dense, of_shape(3, 2, 2)]), "several shapes (layer 1)"),
        (network_of([of_shape(1, 4, 3)], [Projection(INPUT, dense.connections)]), "leads nowhere (layer 0)"),
        (network_of([Projection(INPUT, Synapses(16400, 16400, *none_of(16400)))]), "possible weights (layer 0)"),
        (network_of([of_shape(1, 4, 3)], [dense]), ""),
    ):
        assert part in (network.hardware_support() or "") and bool(part) == bool(network.hardware_support())
