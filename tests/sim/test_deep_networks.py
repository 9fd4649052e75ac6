"""The deep networks of the examples at a sixteenth of their width: frozen and exact in Verilog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomlkit
from requirements import needs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAMPLES = 20


def narrow(name: str, by: int) -> dict:
    """An example with a ``by``-th of its channels, a moment's training and few samples."""
    document = tomllib.loads((EXAMPLES / f"{name}.toml").read_text(encoding="utf-8"))
    for layer in document["network"]["layers"]:
        for key in ("channels", "width"):
            if key in layer:
                layer[key] //= by
    document["data"] |= {"train_limit": 400, "validation": 100, "test_limit": SAMPLES}
    document["train"] |= {"epochs": 2, "batch_size": 25, "learning_rate": 0.01, "optimizer": "adam", "threads": 1}
    document["train"].pop("weight_decay", None)
    document["train"]["rewiring"] |= {"epochs_per_iteration": 1}
    document["freeze"] |= {"epochs": 1}
    document["hardware"] = {"lanes": 4}
    document["verify"] = {"stress_samples": 2}
    return document


@pytest.mark.deep
@pytest.mark.hardware
@needs("data", "cifar10")
@pytest.mark.parametrize(("name", "convolutions"), [("cifar10-vggsnn", 8), ("cifar10-resnet19", 17)])
def test_a_narrow_deep_network_is_exact(name: str, convolutions: int, tmp_path: Path) -> None:
    config = tmp_path / f"{name}.toml"
    config.write_text(tomlkit.dumps(narrow(name, 16)), encoding="utf-8")
    command = [sys.executable, "-m", "codesign", "run", config, "-o", tmp_path / "run", "--json"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    figures = manifest["figures"]
    assert (figures["samples_verified"], figures["mismatches"]) == (SAMPLES, 0)
    sidecar = json.loads((tmp_path / "run" / "bundle" / "design.json").read_text())
    taps = [part for layer in sidecar["layers"] for part in layer["projections"] if part["reads"] is not None]
    assert len(taps) >= convolutions
