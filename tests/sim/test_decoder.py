"""The images decode to the frozen network, and damaged bundles are refused before they are simulated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import random_bundle, sidecar, small_bundle, stamp

from codesign.basics.errors import InputError
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import FORMAT_VERSION
from codesign.contract.stimulus import Stimulus
from sim.bundle import check_files, read_sidecar
from sim.decoder import compare_decoded, decode_bundle
from sim.verify import verify_bundle

KINDS = [(folded, varied, False) for folded in (False, True) for varied in (False, True)] + [(False, False, True)]


@pytest.mark.parametrize(("folded", "varied", "lean"), KINDS)
def test_random_bundles_decode_to_their_networks(folded: bool, varied: bool, lean: bool, tmp_path: Path) -> None:
    """Every verification decodes its bundle too."""
    network, *_ = random_bundle(1, tmp_path / "b", most_lanes=16, folded=folded, varied=varied, lean=lean)
    for decoded, layer in zip(decode_bundle(tmp_path / "b"), network.layers, strict=True):
        assert np.array_equal(decoded.weights[0], layer.dense())
        for name, numbers in layer.numbers.items():
            assert name == "threshold" or np.array_equal(decoded.numbers[name], numbers)
    result = compare_decoded(tmp_path / "b", network)
    weights = sum(layer.n_in * layer.n_out for layer in network.layers)
    assert result["equal"] and result["differences"] == 0 and result["compared"] > weights


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> tuple[Path, FrozenNetwork, Stimulus]:
    folder = tmp_path_factory.mktemp("generated") / "b"
    return folder, *small_bundle(folder)


@pytest.fixture
def delivered(generated, tmp_path: Path) -> tuple[Path, FrozenNetwork, Stimulus]:
    folder, network, stimulus = generated
    shutil.copytree(folder, tmp_path / "b")
    return tmp_path / "b", network, stimulus


def test_a_changed_synapse_is_found(delivered) -> None:
    bundle, network, _ = delivered
    memory = next(m for m in sidecar(bundle)["layers"][1]["memories"] if m["role"] == "synapses")
    path = bundle / memory["image"]
    lines = path.read_text().splitlines()
    lines[0] = f"{int(lines[0], 16) ^ (1 << memory['fields'][1]['offset']):x}"
    path.write_text("\n".join(lines) + "\n")
    result = compare_decoded(bundle, network)
    assert not result["equal"] and result["differences"] == 1
    assert result["first"].startswith("layer 1: weight [")


@pytest.mark.parametrize(
    ("layer", "change", "message"),
    [
        (1, {"row_base": 0}, "a row of no source holds synapses"),
        (0, {"parameter_base": 1}, "threshold"),
    ],
)
def test_layers_of_a_folded_engine_that_overlap_are_found(tmp_path: Path, layer, change, message) -> None:
    network, *_ = random_bundle(8, tmp_path / "b", max_width=12, folded=True)
    document = sidecar(tmp_path / "b")
    assert len(document["layers"]) > 1 and compare_decoded(tmp_path / "b", network)["equal"]
    chosen = document["layers"][layer]
    (chosen["projections"][0] if "row_base" in change else chosen).update(change)
    (tmp_path / "b" / "design.json").write_text(json.dumps(document))
    result = compare_decoded(tmp_path / "b", network)
    assert not result["equal"] and message in result["first"]


def test_a_network_of_another_depth_is_found(delivered) -> None:
    bundle, network, _ = delivered
    assert not compare_decoded(bundle, network.with_layers(network.layers[:1]))["equal"]


def refused(bundle: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_files(bundle, read_sidecar(bundle))
    assert "\n" not in str(caught.value) and str(bundle) in str(caught.value)


def test_an_intact_bundle_is_accepted(delivered) -> None:
    check_files(delivered[0], read_sidecar(delivered[0]))


def test_missing_image_is_refused(delivered) -> None:
    bundle = delivered[0]
    (bundle / "images" / "l0_p0_rows.mem").unlink()
    refused(bundle, "missing from the bundle")


def test_changed_image_is_refused(delivered) -> None:
    bundle = delivered[0]
    path = bundle / "images" / "l0_p0_rows.mem"
    path.write_text(path.read_text().replace("1", "2", 1))
    refused(bundle, "sha256 differs")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "images/../../secret", "", 7])
@pytest.mark.parametrize("where", ["files", "image", "boot"])
def test_a_sidecar_that_names_files_outside_its_bundle_is_refused(delivered, where, name) -> None:
    bundle = delivered[0]
    (bundle.parent / "secret").write_text("0\n")
    document = sidecar(bundle)
    if where == "files":
        document["files"][str(name)] = "0"
    elif where == "image":
        document["layers"][0]["memories"][0]["image"] = name
    else:
        document["load"] = {"boot": name}
    (bundle / "design.json").write_text(json.dumps(document))
    if where == "files" and name == 7:
        document["files"][str(name)] = "0" * 64
        (bundle / "design.json").write_text(json.dumps(document))
        refused(bundle, "missing from the bundle")
    else:
        refused(bundle, rf"design\.json: {where if where == 'files' else '(layers|load)'}")


@pytest.mark.parametrize("extra", [-1, 1])
def test_short_and_long_images_are_refused(delivered, extra: int) -> None:
    bundle = delivered[0]
    name = "images/l0_p0_synapses.mem"
    lines = (bundle / name).read_text().splitlines()
    lines = lines[:-1] if extra < 0 else [*lines, lines[-1]]
    (bundle / name).write_text("\n".join(lines) + "\n")
    stamp(bundle, name)
    refused(bundle, f"{len(lines)} words, design.json states {len(lines) - extra}")


def test_a_word_that_is_too_wide_is_refused(delivered) -> None:
    bundle = delivered[0]
    name = "images/l0_p0_synapses.mem"
    lines = (bundle / name).read_text().splitlines()
    (bundle / name).write_text("\n".join(["ffffffff", *lines[1:]]) + "\n")
    stamp(bundle, name)
    refused(bundle, "a word exceeds")


def test_an_image_that_is_no_image_is_refused(delivered) -> None:
    bundle = delivered[0]
    (bundle / "images" / "l0_p0_rows.mem").write_text("PK\x03 zz\n")
    stamp(bundle, "images/l0_p0_rows.mem")
    refused(bundle, "not a .readmemh image")


def test_changed_verilog_is_refused(delivered) -> None:
    bundle = delivered[0]
    path = bundle / "snn.v"
    path.write_text(path.read_text() + "\n")
    refused(bundle, "sha256 differs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not the sidecar of an accelerator bundle"),
        (
            {"version": FORMAT_VERSION + 1},
            f"format version {FORMAT_VERSION + 1}, this codesign reads {FORMAT_VERSION};",
        ),
        ({"layers": None}, "layers: Field required"),
    ],
)
def test_foreign_sidecars_are_refused(delivered, change, message: str) -> None:
    bundle = delivered[0]
    document = {**sidecar(bundle), **change}
    (bundle / "design.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    refused(bundle, message)


def test_missing_and_broken_sidecars_are_refused(delivered) -> None:
    bundle = delivered[0]
    (bundle / "design.json").write_text("{")
    refused(bundle, "not JSON")
    (bundle / "design.json").unlink()
    refused(bundle, "no such sidecar")


def test_a_bundle_of_another_network_is_refused(delivered, tmp_path: Path) -> None:
    bundle, network, stimulus = delivered
    other = FrozenNetwork(network.layers, network.timesteps + 1, network.coding, network.readout)
    with pytest.raises(InputError, match=r"made from network .* not from .*; generate the bundle again"):
        verify_bundle(bundle, other, stimulus, tmp_path / "work")


def test_a_stimulus_of_another_shape_or_without_samples_is_refused(delivered, tmp_path: Path) -> None:
    bundle, network, stimulus = delivered
    with pytest.raises(InputError, match="no samples: nothing to verify"):
        verify_bundle(bundle, network, stimulus.take([]), tmp_path / "work")
    with pytest.raises(InputError, match="stimulus has 3 inputs, the network 20"):
        narrow = Stimulus(3, 4, np.zeros(1, np.int32), values=np.zeros((1, 3), np.uint8))
        verify_bundle(bundle, network, narrow, tmp_path / "work")
