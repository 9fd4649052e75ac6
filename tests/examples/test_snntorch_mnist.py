"""Networks that snnTorch trains on MNIST against what the import makes of them, by snnTorch's own spikes."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from requirements import needs

SCRIPT = Path(__file__).parents[2] / "examples" / "snntorch_mnist.py"
# Of each network, how far accuracy may be from snnTorch's, in samples of 1,000, and the least Jaccard index with
# snnTorch's hidden spikes.
FLOORS = {"dense": (3, 0.9), "conv": (5, 0.9), "recurrent": (5, 0.9), "synaptic": (5, 0.9)}

pytestmark = [
    needs("snntorch"),
    needs("nirtorch"),
    needs("data", "mnist"),
    # By snnTorch's exporter.
    pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph:DeprecationWarning"),
]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), arguments[0], str(folder), *arguments[1:]])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    return json.loads((folder / f"{arguments[0]}.compared.json").read_text())


def test_the_float_reference_gives_snntorchs_spikes_and_the_integers_nearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few steps of training. The files of the training are compared again with coarser weights."""
    short = ("--epochs", "1", "--images", "1280", "--samples", "80")
    fine = run(tmp_path, monkeypatch, "dense", *short)
    assert fine["images"] == 40 and [layer["layer"] for layer in fine["layers"]] == ["1", "3"]
    assert all(layer["spikes"] > 0 and layer["float_differs"] == 0 for layer in fine["layers"])
    assert fine["accuracy_float"] == fine["accuracy_snntorch"] and fine["layers"][0]["jaccard"] > 0.9
    coarse = run(tmp_path, monkeypatch, "dense", "--reuse", "--weight-bits", "2")
    assert coarse["layers"][0]["jaccard"] < fine["layers"][0]["jaccard"] - 0.1
    assert coarse["accuracy_snntorch"] == fine["accuracy_snntorch"]


@pytest.mark.deep
@pytest.mark.hardware
@pytest.mark.parametrize("name", FLOORS)
def test_what_snntorch_has_trained_is_exact_in_hardware_and_as_accurate(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, (samples, jaccard) = run(tmp_path, monkeypatch, name, "--verify", "1000"), FLOORS[name]
    hardware = found["hardware"]
    assert hardware["images"] == found["images"] == 1000 and hardware["mismatches"] == 0
    assert abs(round(1000 * hardware["accuracy"]) - round(1000 * hardware["accuracy_snntorch"])) <= samples
    assert hardware["accuracy_snntorch"] > 0.9
    assert all(layer["float_differs"] == 0 for layer in found["layers"])
    assert all(layer["jaccard"] >= jaccard for layer in found["layers"][:-1])
