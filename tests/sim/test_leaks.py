"""Leaks of single neurons and of channels in the simulator: golden == RTL, and a wrong leak is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import equals_rtl
from mutated_machines import MACHINES, machine
from random_choices import random_choices
from random_networks import random_lanes, random_network
from random_structures import random_covered

from codesign.contract.network import FrozenNetwork
from codesign.machine.choices import Choices
from codesign.machine.layouts import LEAKS
from codesign.machine.mapping import map_network
from sim.mutants import run_mutants
from sim.mutants.data import _edits
from sim.mutants.rtl import RTL_EDITS

pytestmark = pytest.mark.hardware
SHAPES: dict[str, Choices | None] = {
    "any": None,
    "deep": Choices(),
    "short": Choices(pipeline="short", spike_fifos=False),
    "folded": Choices(shape="folded"),
    "folded, short": Choices(shape="folded", pipeline="short", synapses="compact"),
    "lock step": Choices(lockstep=True),
    "compact": Choices(synapses="compact"),
    "loadable": Choices(loadable=True),
}


def leaking(rng: np.random.Generator, *, pictures: bool) -> FrozenNetwork:
    """A random network with a leak that differs within a layer."""
    while True:
        if pictures:
            network = random_covered(rng, side=7, kernel=4, channels=6)
        else:
            network = random_network(rng, max_width=20, max_layers=3)
        if any(layer.varying & set(LEAKS) for layer in network.layers) and network.is_plain_chain != pictures:
            return network


def equal(seed: int, folder: Path, choices: Choices | None, *, pictures: bool = False) -> None:
    """Golden == RTL on a random network, and the images hold its leaks."""
    rng = np.random.default_rng([31, seed])
    network = leaking(rng, pictures=pictures)
    choices = choices or random_choices(rng, network)
    lanes = random_lanes(rng, network, 5)
    mapping = map_network(network, [lanes[0]] * len(lanes) if choices.folded else lanes, None, choices)
    records = [engine.parameter_record for engine in mapping.engines]
    assert any(record.has(name) for record in records for name in LEAKS)
    equals_rtl(rng, network, mapping, folder, seed)


def test_a_chain_with_leaks_of_single_neurons_equals_its_rtl(tmp_path: Path) -> None:
    equal(1, tmp_path / "b", SHAPES["folded"])


@pytest.mark.deep
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(100, 112))
def test_many_chains_with_leaks_of_single_neurons_equal_their_rtl(seed: int, shape: str, tmp_path: Path) -> None:
    equal(seed, tmp_path / "b", SHAPES[shape])


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(200, 240))
def test_many_pictures_with_leaks_of_channels_and_neurons_equal_their_rtl(seed: int, tmp_path: Path) -> None:
    equal(seed, tmp_path / "b", None, pictures=True)


@pytest.mark.deep
@pytest.mark.parametrize("name", [name for name in MACHINES if name.startswith("leaks")])
def test_wrong_leaks_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, stimulus = machine(name, tmp_path / "b")
    leaks = [edit for edit in RTL_EDITS if "leak" in edit.name]
    monkeypatch.setattr("sim.mutants.rtl.RTL_EDITS", tuple(leaks))
    monkeypatch.setattr("sim.mutants.rtl.picture_edits", lambda scene: [])
    monkeypatch.setattr("sim.mutants.data._edits", lambda scene: (edit for edit in _edits(scene) if "leak" in edit[0]))
    result = run_mutants(tmp_path / "b", network, stimulus, tmp_path / "work", kinds=("data", "rtl"), workers=1)
    found = {entry["name"] for entry in result["mutants"]}
    assert found >= {"leak forgotten", "leak shift in memory off by one", "leak shift plus one in the first layer"}
    assert result["errors"] == 0 and [entry["name"] for entry in result["mutants"] if not entry["caught"]] == []
    assert result["control"]["caught"] is False and result["control"]["error"] is None
