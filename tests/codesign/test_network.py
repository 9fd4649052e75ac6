"""The frozen file: what is written is read again, and what is damaged is refused with one line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flips import flips
from random_networks import random_network
from random_structures import random_structure
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from codesign.basics.errors import InputError
from codesign.contract import network as network_module
from codesign.contract.network import FrozenLayer, FrozenNetwork, InputCoding, Leak, SumPool, signed_width


def example() -> FrozenNetwork:
    return FrozenNetwork.from_arrays(
        [np.array([[1, 0, -3], [0, 2, 0]]), np.array([[1, 1], [0, -1], [2, 0]])],
        threshold=[5, np.array([4, 6])],
        timesteps=3,
        leak=Leak("shift", 2),
        fraction_bits=2,
    )


def rewrite(path: Path, tensors: dict[str, Any] | None = None, metadata: Any = None) -> None:
    """Write the file again with some tensors replaced and the metadata edited in place."""
    arrays = load_file(path)
    document = document_of(path)
    if metadata is not None:
        metadata(document)
    unknown = set(tensors or {}) - set(arrays)
    assert not unknown, f"{unknown} would be added, not replaced"
    arrays.update(tensors or {})
    save_file(
        {name: array for name, array in arrays.items() if array is not None}, path, {"codesign": json.dumps(document)}
    )


def document_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["codesign"])


def connections(document: Any, layer: int) -> Any:
    return document["layers"][layer]["projections"][0]["connections"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    example().save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FrozenNetwork.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("draw", [random_network, random_structure])
def test_a_saved_network_is_loaded_unchanged(draw, seed: int, tmp_path: Path) -> None:
    network = draw(np.random.default_rng(seed))
    network.save(tmp_path / "a")
    again = FrozenNetwork.load(tmp_path / "a")
    assert again.hash == network.hash
    again.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_hash_sees_every_field() -> None:
    network = example()
    first = network.layers[0]
    link = first.projections[0]
    synapses = link.connections
    variants = [
        replace(network, timesteps=4),
        replace(network, readout="membrane_max"),
        replace(network, coding=InputCoding("rate")),
        replace(network, coding=InputCoding("events", parameters={"seed": 1})),
        *(
            network.with_layers([replace(first, **change), network.layers[1]])
            for change in (
                {"bias": first.bias + 1},
                {"threshold": first.threshold + 1},
                {"projections": (replace(link, connections=replace(synapses, weights=-synapses.weights)),)},
                {"projections": (replace(link, connections=replace(synapses, targets=synapses.targets[::-1])),)},
                {"projections": (replace(link, fixed=True),)},
                {"projections": (replace(link, source=0),)},
                {"projections": (replace(link, pool=SumPool((1, 2, 1), 1)),)},
                {"projections": (link, link)},
                {"shape": (1, 3, 1)},
                {"shape": (3, 1, 1)},
                {"leak": Leak("shift", 3)},
                {"leak": Leak("multiply", 2, 3)},
                {"leak": Leak("shift", np.array([2, 2, 2]))},
                {"leak": Leak("shift", np.array([2, 2, 3]))},
                {"leak": Leak("multiply", 2, np.array([3, 3, 3]))},
                {"reset": "zero"},
                {"reset_value": 1},
                {"compare": ">"},
                {"reset_delay": True},
                {"refractory": 1},
                {"refractory": 2},
                {"current_leak": Leak(), "current_width": 9},
                {"current_leak": Leak(), "current_width": 10},
                {"current_leak": Leak("shift", 1), "current_width": 9},
                {"current_leak": Leak("shift", np.array([1, 1, 1])), "current_width": 9},
                {"fraction_bits": 3},
                {"membrane_width": 17},
                {"weight_bits": 7},
                {"trained_width": 9},
                {"trained_index": first.trained_index + 1},
            )
        ),
    ]
    assert len({network.hash, *(variant.hash for variant in variants)}) == len(variants) + 1


def test_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no such frozen network")


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_truncated_file_is_refused(path: Path, size: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:size])
    refused(path, "truncated or not a safetensors file")


def test_file_that_is_no_safetensors_is_refused(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(200))
    refused(path, "not a safetensors file")


def test_safetensors_of_another_kind_is_refused(path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, path)
    refused(path, "not a frozen network")


def test_other_version_is_refused(path: Path) -> None:
    rewrite(path, metadata=lambda document: document.update(version=1))
    refused(path, "format version 1, this codesign reads 2, 3, 4; freeze it again")
    rewrite(path, metadata=lambda document: document.update(version=True))
    refused(path, "format version True")


def test_other_format_is_refused(path: Path) -> None:
    rewrite(path, metadata=lambda document: document.update(format="other"))
    refused(path, "not a frozen network")


def test_metadata_that_is_not_json_is_refused(path: Path) -> None:
    save_file(load_file(path), path, {"codesign": "{"})
    refused(path, "metadata: truncated or not JSON")


def test_what_could_not_be_read_again_is_not_written(path: Path) -> None:
    network, whole = example(), path.read_bytes()
    noted = replace(network, coding=InputCoding("events", 0, {"note": "a" * 2_000_000}))
    with pytest.raises(InputError, match=r"metadata of 2000... bytes, the limit is 1048576"):
        noted.save(path)
    assert path.read_bytes() == whole
    # Changed in place after its hash was asked for.
    before = network.hash
    network.layers[0].threshold[0] = 9
    network.save(path)
    assert FrozenNetwork.load(path).hash != before


def test_oversized_metadata_is_refused(path: Path) -> None:
    save_file(load_file(path), path, {"codesign": " " * (network_module.MAX_METADATA_BYTES + 1)})
    refused(path, "metadata of .* bytes, the limit is")


@pytest.mark.parametrize("name", ["timesteps", "readout", "coding"])
def test_incomplete_metadata_is_refused(path: Path, name: str) -> None:
    rewrite(path, metadata=lambda document: document.pop(name))
    refused(path, "metadata is incomplete")


@pytest.mark.parametrize("name", ["n_out", "leak", "membrane_width", "projections", "shape"])
def test_incomplete_layer_is_refused(path: Path, name: str) -> None:
    rewrite(path, metadata=lambda document: document["layers"][1].pop(name))
    refused(path, "metadata is incomplete")


@pytest.mark.parametrize(("name", "value"), [("n_out", 1 << 21), ("n_synapses", 1 << 29), ("n_in", -1), ("n_in", "2")])
def test_sizes_are_checked_before_anything_is_read(path: Path, name: str, value: Any) -> None:
    rewrite(path, metadata=lambda document: connections(document, 0).update({name: value}))
    refused(path, f"layer 0: {name} = .* is outside 0..")


@pytest.mark.parametrize("value", [1 << 21, True, 3.0, None])
def test_layer_width_is_checked_before_anything_is_read(path: Path, value: Any) -> None:
    rewrite(path, metadata=lambda document: document["layers"][0].update(n_out=value))
    refused(path, "layer 0: n_out = .* is outside 0..")


def test_too_many_layers_are_refused(path: Path) -> None:
    rewrite(path, metadata=lambda document: document.update(layers=document["layers"] * 40))
    refused(path, "number of layers is outside 1..64")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layer0.projection0.targets": np.array([0, 3, 1], np.int32)}, "target is outside 0..2"),
        ({"layer0.projection0.targets": np.array([0, -1, 1], np.int32)}, "target is outside 0..2"),
        ({"layer0.projection0.targets": np.array([2, 0, 1], np.int32)}, "not strictly increasing"),
        ({"layer0.projection0.indptr": np.array([0, 4, 3])}, "indptr does not rise"),
        ({"layer0.projection0.indptr": np.array([1, 2, 3])}, "indptr does not rise"),
        ({"layer0.projection0.weights": np.array([1, 0, 2], np.int8)}, "a weight is zero or outside"),
        ({"layer0.projection0.weights": np.array([1, 100, 2], np.int8)}, "a weight is zero or outside"),
        ({"layer0.projection0.weights": np.array([1, 2], np.int8)}, "weights is I8 \\[2\\], expected I8 \\[3\\]"),
        ({"layer0.projection0.weights": np.array([1, 2, 3], np.int16)}, "weights is I16 \\[3\\], expected I8"),
        ({"layer0.bias": np.array([0.0, 0.0, 0.0])}, "bias is F64"),
        ({"layer0.bias": np.array([0, 1 << 41, 0])}, "a bias is beyond"),
        ({"layer0.threshold": np.array([0, -(1 << 41), 0])}, "a threshold is beyond"),
        ({"layer0.trained_index": np.array([0, 1, 3])}, "trained_index is outside 0..2"),
        ({"layer0.trained_index": np.array([0, 2, 1])}, "trained_index is not strictly increasing"),
        ({"layer1.projection0.weights": None}, "tensor layer1.projection0.weights is missing"),
    ],
)
def test_damaged_tensors_are_refused(path: Path, tensors: dict[str, Any], message: str) -> None:
    rewrite(path, tensors)
    refused(path, message)


def test_offsets_whose_steps_wrap_are_refused(tmp_path: Path) -> None:
    network = FrozenNetwork.from_arrays([np.eye(4, dtype=int)], threshold=1, timesteps=1)
    network.save(tmp_path / "net")
    huge = np.iinfo(np.int64).max
    rewrite(tmp_path / "net", {"layer0.projection0.indptr": np.array([0, huge, -huge - 1, -1, 4])})
    refused(tmp_path / "net", "indptr does not rise")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": 0}, "timesteps = 0 is outside"),
        ({"timesteps": 1.5}, "timesteps = 1.5 is outside"),
        ({"readout": "votes"}, "readout 'votes' is none of"),
        ({"coding": {"kind": "morse", "input_bits": 0, "parameters": {}}}, "input coding 'morse' is none of"),
        ({"coding": {"kind": "current", "input_bits": 9, "parameters": {}}}, "input_bits = 9 is outside 1..8"),
        (
            {"coding": {"kind": "rate", "input_bits": 4, "parameters": {}}},
            "input_bits is only for the coding 'current'",
        ),
        ({"readout": "membrane_sum"}, "needs reset 'none' in the last layer"),
        ({"timesteps": True}, "timesteps = True is outside"),
        ({"timesteps": 10**12}, "timesteps = 1000000000000 is outside"),
        ({"coding": {"kind": "current", "input_bits": None, "parameters": {}}}, "input_bits = None is outside 1..8"),
        ({"coding": {"kind": "current", "input_bits": "x", "parameters": {}}}, "input_bits = 'x' is outside 1..8"),
        ({"coding": {"kind": [], "input_bits": 0, "parameters": {}}}, r"input coding \[\] is none of"),
        *(
            ({"coding": {"kind": "events", "input_bits": 0, "parameters": wrong}}, "coding.parameters")
            for wrong in (
                5,
                None,
                "x",
                [1],
                {"low": {}},
                {"low": [[]]},
                {"low": 1 << 70},
                {str(i): 0 for i in range(65)},
            )
        ),
        ({"layers": [{}] * 65}, "the number of layers is outside 1..64"),
    ],
)
def test_network_fields_are_checked(path: Path, change: dict[str, Any], message: str) -> None:
    rewrite(path, metadata=lambda document: document.update(change))
    refused(path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"membrane_width": 1}, "membrane_width = 1 is outside 2..48"),
        ({"weight_bits": 9}, "weight_bits = 9 is outside 2..8"),
        ({"fraction_bits": -1}, "fraction_bits = -1 is outside 0..24"),
        ({"reset": "later"}, "reset 'later' is none of"),
        ({"compare": "=="}, "compare '==' is none of"),
        ({"reset_value": 1 << 15}, "reset_value 32768 does not fit a 16-bit membrane"),
        ({"leak": {"kind": "slow", "shift": 0, "multiplier": 0}}, "leak 'slow' is none of"),
        ({"leak": {"kind": "shift", "shift": 25, "multiplier": 0}}, "leak shift 25 is outside"),
        ({"leak": {"kind": "multiply", "shift": 2, "multiplier": 5}}, "leak multiplier 5 is outside"),
        ({"trained_width": 2}, "trained_width = 2 is outside 3"),
    ],
)
def test_layer_fields_are_checked(path: Path, change: dict[str, Any], message: str) -> None:
    rewrite(path, metadata=lambda document: document["layers"][0].update(change))
    refused(path, f"layer 0: {message}")


@pytest.mark.parametrize("source", [[[0]], "x", None, True, {}, 0.0, 10**30, 2, -2, -3])
def test_a_source_that_is_no_layer_is_refused(path: Path, source: Any) -> None:
    rewrite(path, metadata=lambda document: document["layers"][1]["projections"][0].update(source=source))
    refused(path, "layer 1: source .* is outside -1..1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"format": 1, "format": 2}', "'format' twice"),
        ('{"timesteps": 1e400}', "beyond every number"),
        ('{"timesteps": NaN}', "NaN is no number"),
        ("[1]", "not a JSON object"),
    ],
)
def test_metadata_that_no_writer_writes_is_refused(path: Path, text: str, message: str) -> None:
    save_file(load_file(path), path, {"codesign": text})
    refused(path, message)


def test_a_header_without_end_is_refused_before_it_is_read(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes((1 << 40).to_bytes(8, "little") + content[8:])
    refused(path, "its header is not whole")
    with path.open("r+b") as file:
        file.truncate(1 << 33)
        file.write((1 << 32).to_bytes(8, "little"))
    refused(path, "a header of 4294967296 bytes, the limit is")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such frozen network")
    refused(tmp_path, "is a folder, a file is expected")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is a pipe or device")
    with pytest.raises(InputError, match="cannot be read"):
        FrozenNetwork.load(tmp_path / ("x" * 5000))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    plain = FrozenNetwork.from_arrays(
        [np.array([[1, 0], [-3, 2]])],
        threshold=5,
        timesteps=3,
        leak=Leak("multiply", 2, 3),
        fraction_bits=2,
        membrane_width=12,
        coding=InputCoding("current", 4, {"low": 0.0, "high": 1.0}),
    )
    other = FrozenNetwork.from_arrays(
        [np.array([[1, 0], [-3, 2]])],
        threshold=np.int16(5),
        timesteps=np.int64(3),  # type: ignore[arg-type]
        leak=Leak("multiply", np.uint8(2), np.array(3)),  # type: ignore[arg-type]
        fraction_bits=np.int32(2),  # type: ignore[arg-type]
        membrane_width=[np.int64(12)],  # type: ignore[list-item]
        coding=InputCoding("current", np.int8(4), {"low": np.float64(0), "high": np.float32(1)}),  # type: ignore[arg-type]
    )
    assert other.hash == plain.hash
    other.save(tmp_path / "a")
    assert FrozenNetwork.load(tmp_path / "a").hash == plain.hash
    assert type(other.timesteps) is int


def test_bounds_over_many_timesteps_are_those_of_the_walk() -> None:
    for leak in (Leak(), Leak("shift", 3), Leak("multiply", 4, 11)):
        layer = FrozenLayer.from_dense(np.array([[3, -2], [-1, 4]]), bias=np.array([-7, 2]), leak=leak, fraction_bits=1)
        low, high = layer.sum_range(3)
        v_low, v_high, bottom, top = np.zeros(2, np.int64), np.zeros(2, np.int64), 0, 0
        for _ in range(300):
            v_low = leak(v_low) + (low << 1) + layer.bias
            v_high = leak(v_high) + (high << 1) + layer.bias
            bottom, top = min(bottom, int(v_low.min())), max(top, int(v_high.max()))
        assert layer.unsaturated_range(300, 3) == (bottom, top)


def test_bounds_of_a_synaptic_current_over_many_timesteps_are_those_of_the_walk() -> None:
    for leak, current_leak in product((Leak(), Leak("shift", 3), Leak("multiply", 4, 11)), repeat=2):
        layer = FrozenLayer.from_dense(
            np.array([[3, -2], [-1, 4]]),
            bias=np.array([-7, 2]),
            leak=leak,
            current_leak=current_leak,
            current_width=20,
        )
        low, high = layer.step_range(3)
        ends = []
        for step in (low, high):
            v = i = np.zeros(2, np.int64)
            for _ in range(100):
                i = current_leak(i) + step
                v = leak(v) + i
            ends.append((v, i))
        (v_low, i_low), (v_high, i_high) = ends
        assert layer.unsaturated_range(100, 3) == (min(0, int(v_low.min())), int(v_high.max()))
        assert layer.unsaturated_current_range(100, 3) == (min(0, int(i_low.min())), int(i_high.max()))


def test_bounds_of_the_widest_leaks_are_exact() -> None:
    """A product of 2^47 and 2^24 does not fit 64 bits."""
    for multiplier in (1 << 24, np.array([1 << 24, 1 << 23])):
        layer = FrozenLayer.from_dense(
            np.array([[1, 1]]), bias=1 << 40, leak=Leak("multiply", 24, multiplier), reset="none", membrane_width=48
        )
        assert layer.potential_range() == (-(1 << 47) + (1 << 40), (1 << 47) + (1 << 40))
        assert layer.unsaturated_range(5) == (0, 5 * ((1 << 40) + 1))


def test_bounds_of_a_delayed_reset_are_reached() -> None:
    options: dict[str, Any] = {"membrane_width": 4, "leak": Leak("shift", 1)}
    for threshold in (-30, -8, -3, 0, 5, 7, 8, 30):
        layer = FrozenLayer.from_dense([[1]], threshold=threshold, reset_delay=True, compare=">", **options)
        left = []
        for u in range(-40, 41):
            v = max(-8, min(7, u))
            left.append(v - (v >> 1) - (threshold if u > threshold else 0))
        low, high = (int(bound[0]) for bound in layer.kept_range())
        assert low == min(left) and max(left) <= high <= max(left) + 1


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"reset_delay": True, "reset": "zero"}, "reset_delay needs reset 'subtract', the layer has 'zero'"),
        ({"reset_delay": 1}, "reset_delay = 1 is neither true nor false"),
        ({"refractory": -1}, r"refractory = -1 is outside 0\.\.65536"),
        ({"refractory": True}, "refractory = True is outside"),
        ({"refractory": 1, "reset_delay": True}, "reset_delay with refractory = 1: a reset a timestep late falls into"),
        ({"current_width": 8}, "current_width = 8 without a current_leak"),
        ({"current_leak": Leak()}, "current_width = 0 is outside 2..48"),
        ({"current_leak": Leak(), "current_width": 49}, "current_width = 49 is outside 2..48"),
        ({"current_leak": Leak("shift", 25), "current_width": 9}, "current_leak: leak shift 25 is outside 0..24"),
        ({"current_leak": Leak("shift", np.arange(2)), "current_width": 9}, "current leak shift has the shape"),
    ],
)
def test_terms_that_are_not_possible_are_refused(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrozenLayer.from_dense(np.ones((2, 3), int), **terms)


def test_a_file_has_the_lowest_version_that_knows_its_terms(tmp_path: Path) -> None:
    plain = example()
    plain.save(tmp_path / "plain")
    assert document_of(tmp_path / "plain")["version"] == 2
    for terms in (
        {"reset_delay": True},
        {"current_leak": Leak("multiply", np.array([2, 3]), np.array([1, 8])), "current_width": 9},
        {"current_leak": Leak("shift", 4), "current_width": 9, "reset_delay": True},
        {"refractory": 3},
        {"refractory": 2, "current_leak": Leak("shift", 4), "current_width": 9},
    ):
        network = plain.with_layers([plain.layers[0], replace(plain.layers[1], **terms)])
        network.save(tmp_path / "net")
        names = ["reset_delay", "current_leak", "current_width"] + ["refractory"] * ("refractory" in terms)
        assert document_of(tmp_path / "net")["version"] == len(names)
        loaded = FrozenNetwork.load(tmp_path / "net")
        assert loaded.hash == network.hash and loaded.layers[1].leaks == network.layers[1].leaks
        assert loaded.layers[1].reset_delay == network.layers[1].reset_delay
        assert loaded.layers[1].refractory == network.layers[1].refractory
        assert not loaded.layers[0].extra_terms
        for name in names:
            rewrite(tmp_path / "net", metadata=lambda document, name=name: document["layers"][0].pop(name))
            refused(tmp_path / "net", "metadata is incomplete")
            network.save(tmp_path / "net")


def test_what_emits_no_spikes_does_not_rest() -> None:
    options: dict[str, Any] = {"threshold": 1, "timesteps": 2, "reset": "none", "readout": "membrane_sum"}
    with pytest.raises(InputError, match="readout membrane_sum: the last layer emits no spikes, after which it would"):
        FrozenNetwork.from_arrays([np.ones((2, 1), int)], refractory=1, **options)


def test_a_rest_keeps_the_membrane_within_the_bounds_of_potentials() -> None:
    weights = np.full((2, 1), 3)
    options: dict[str, Any] = {"bias": 100, "leak": Leak("multiply", 1, 0), "membrane_width": 8}
    assert FrozenLayer.from_dense(weights, **options).potential_range() == (100, 106)
    assert FrozenLayer.from_dense(weights, refractory=1, **options).potential_range() == (-128, 127)


def test_layers_must_fit_each_other() -> None:
    with pytest.raises(InputError, match="layer 1 has 2 sources, layer 0 has 3 neurons"):
        FrozenNetwork.from_arrays([np.ones((2, 3), int), np.ones((2, 2), int)], threshold=1, timesteps=1)


def test_weights_that_cannot_be_represented_are_refused() -> None:
    with pytest.raises(InputError, match="weight 128 does not fit 8 signed bits"):
        FrozenLayer.from_dense(np.array([[128]]))
    for wrong in (np.array([[-128]]), np.array([[(1 << 64) - 1]], np.uint64), np.array([[-(1 << 63)]])):
        with pytest.raises(InputError, match=f"weight {wrong[0, 0]} does not fit 8 signed bits"):
            FrozenLayer.from_dense(wrong)
    with pytest.raises(InputError, match=f"threshold {(1 << 64) - 5} does not fit 64 signed bits"):
        FrozenLayer.from_dense([[1]], threshold=np.uint64((1 << 64) - 5))
    with pytest.raises(InputError, match="must be an integer"):
        FrozenLayer.from_dense(np.array([[0.5]]))
    with pytest.raises(InputError, match=r"outside \+-7 \(4 bits\)"):
        FrozenLayer.from_dense(np.array([[8]]), weight_bits=4)


def test_membrane_readout_that_could_saturate_is_refused() -> None:
    options: dict[str, Any] = {"threshold": 1, "timesteps": 4, "reset": "none", "readout": "membrane_last"}
    FrozenNetwork.from_arrays([np.full((2, 1), 7)], membrane_width=7, **options)  # 4 * 14 = 56
    with pytest.raises(InputError, match="needs 7 membrane bits in the last layer, which has 6"):
        FrozenNetwork.from_arrays([np.full((2, 1), 7)], membrane_width=6, **options)
    # 14 + 28 + 42 + 56 = 140
    options |= {"current_leak": Leak(), "membrane_width": 9}
    FrozenNetwork.from_arrays([np.full((2, 1), 7)], current_width=7, **options)
    with pytest.raises(InputError, match="needs 7 current bits in the last layer, which has 6"):
        FrozenNetwork.from_arrays([np.full((2, 1), 7)], current_width=6, **options)


def test_one_entry_per_layer_is_demanded() -> None:
    with pytest.raises(InputError, match="threshold has 3 entries for 1 layer"):
        FrozenNetwork.from_arrays([np.ones((1, 1), int)], threshold=[1, 2, 3], timesteps=1)


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-3, 0, 3), (-128, 127, 8), (-129, 0, 9)]
)
def test_signed_width_is_the_narrowest(low: int, high: int, bits: int) -> None:
    assert signed_width(low, high) == bits


def test_bounds_of_sums_are_reached() -> None:
    layer = FrozenLayer.from_dense(np.array([[3, -2], [-1, -4], [2, 5]]), bias=np.array([1, -1]), fraction_bits=1)
    low, high = layer.sum_range(3)
    assert low.tolist() == [-3, -18] and high.tolist() == [15, 15]
    # v in -32768..32767, no leak: -32768 + 2 * -18 - 1, 32767 + 2 * 15 + 1
    assert layer.potential_range(3) == (-32805, 32798)


def test_densities_count_the_trained_widths() -> None:
    network = example()
    first, second = network.layers
    wide = network.with_layers([replace(first, trained_width=6, trained_index=np.array([0, 2, 5])), second])
    assert wide.dense_synapses == 2 * 6 + 6 * 2
    assert wide.layer_density == [3 / 12, 4 / 12]
    assert wide.density == 7 / 24


def test_a_flipped_bit_changes_nothing_or_is_refused(path: Path) -> None:
    """The hash that the file states covers weights, numbers and names, wherever the file is loaded from."""
    whole = FrozenNetwork.load(path).hash
    refusals = 0
    for bit in flips(path, 600, seed=4):
        try:
            assert FrozenNetwork.load(path).hash == whole, f"bit {bit}"
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refusals += 1
    assert refusals > 500


def test_another_weight_is_not_what_was_saved(path: Path) -> None:
    weights = load_file(path)["layer0.projection0.weights"].copy()
    weights[0] += 1
    rewrite(path, {"layer0.projection0.weights": weights})
    refused(path, "damaged: its content does not have the hash that it states")


def test_files_of_earlier_versions_state_no_hash(path: Path) -> None:
    rewrite(path, metadata=lambda document: document.pop("hash"))
    assert FrozenNetwork.load(path).hash == example().hash


def test_an_unknown_key_is_refused(path: Path) -> None:
    rewrite(path, metadata=lambda document: document.update(hush=document.pop("hash")))
    refused(path, "unknown key 'hush'")


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ((), "reset_delay"),  # of a later version
        ((), "x" * 1000),
        (("leak",), "decay"),
        (("projections", 0), "delay"),
        (("projections", 0, "pool"), "stride"),
        (("projections", 0, "connections"), "n_taps"),
    ],
)
def test_an_unknown_key_of_a_layer_is_refused(path: Path, place: tuple[Any, ...], key: str) -> None:
    def add(document: dict[str, Any]) -> None:
        entry = document["layers"][0]
        entry["projections"][0]["pool"] = {"shape": [2, 1, 1], "size": 1}
        reduce(lambda found, step: found[step], place, entry)[key] = 0

    rewrite(path, metadata=add)
    refused(path, f"layer 0: metadata has the unknown key '{key[:40]}'; freeze it again")


def test_an_unknown_tensor_or_part_of_the_coding_is_refused(path: Path) -> None:
    rewrite(path, metadata=lambda document: document["coding"].update(rate=1))
    refused(path, "unknown key 'rate'")
    example().save(path)
    save_file({**load_file(path), "layer2.bias": np.zeros(1)}, path, {"codesign": json.dumps(document_of(path))})
    refused(path, "has the unknown tensor 'layer2.bias'; freeze it again")
