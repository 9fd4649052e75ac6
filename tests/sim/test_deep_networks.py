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
import torch
from requirements import needs

from boards.registry import TARGETS
from codesign.config import load_config
from codesign.contract.network import InputCoding
from codesign.cost.area import fits
from codesign.cost.estimate import estimate
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from codesign.train.model import SpikingNetwork
from codesign.train.quantised import QuantisedNetwork

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


@pytest.mark.deep
@pytest.mark.parametrize(("name", "density"), [("cifar10-vggsnn", 0.1), ("cifar10-resnet19", 0.2972)])
def test_the_full_width_is_planned_and_what_bounds_it_is_told(name: str, density: float) -> None:
    config = load_config(EXAMPLES / f"{name}.toml")
    trained = SpikingNetwork((3, 32, 32), 10, config.network, config.train)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trained.sparse_parameters().values():
            weight *= torch.rand(weight.shape, generator=generator) < density
    model = QuantisedNetwork(trained.eval(), config.freeze, InputCoding("current", config.data.input_bits))
    network = model.export([16] * len(model.plans))
    assert network.hardware_support() is None and network.n_synapses > 900_000
    result = estimate(plan_machine(network, map_network(network, [16] * len(network.layers))))
    lines = fits(result, "ecp5-85f", TARGETS["ecp5-85f"])
    print(f"{name}: {network.n_synapses} taps and synapses; {'; '.join(lines)}")  # noqa: T201
    assert any("of 83640 logic cells" in line and "use fewer lanes" in line for line in lines)
    (line,) = (line for line in lines if "of 208 block RAMs" in line)
    assert "neither fewer weight bits nor a tenth of the density" in line
