"""Delayed resets, synaptic currents and refractory periods in the simulator: golden == RTL; wrong terms are found."""

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
    "lock step, counts": Choices(lockstep=True, output_spikes=False),
    "compact": Choices(synapses="compact", early_exit="certain"),
    "loadable": Choices(loadable=True),
}


def with_terms(rng: np.random.Generator, choices: Choices | None, *, pictures: bool = False) -> FrozenNetwork:
    """A random network with a delayed reset, a synaptic current and a refractory period, perhaps of two layers."""
    counts = choices is not None and (choices.exits or not choices.output_spikes)
    while True:
        if pictures:
            network = random_covered(rng, side=7, kernel=4, channels=6)
        else:
            network = random_network(rng, max_width=20, max_layers=3)
        terms = [(layer.reset_delay, layer.has_current, layer.refractory > 0) for layer in network.layers]
        if not all(map(any, zip(*terms, strict=True))) or network.is_plain_chain == pictures:
            continue
        if not counts or (network.readout == "spike_count" and network.n_outputs > 1):
            return network


def equal(seed: int, folder: Path, choices: Choices | None, *, pictures: bool = False) -> None:
    """Golden == RTL on a random network."""
    rng = np.random.default_rng([37, seed])
    network = with_terms(rng, choices, pictures=pictures)
    if choices is None:
        choices = random_choices(rng, network)
    lanes = random_lanes(rng, network, 5)
    mapping = map_network(network, [lanes[0]] * len(lanes) if choices.folded else lanes, None, choices)
    equals_rtl(rng, network, mapping, folder, seed)


@pytest.mark.parametrize("shape", ["deep", "folded"])
def test_a_network_with_terms_equals_its_rtl(shape: str, tmp_path: Path) -> None:
    equal(1, tmp_path / "b", SHAPES[shape])


@pytest.mark.deep
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_chains_with_terms_equal_their_rtl(seed: int, shape: str, tmp_path: Path) -> None:
    equal(seed, tmp_path / "b", SHAPES[shape])


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(200, 230))
def test_many_pictures_with_terms_equal_their_rtl(seed: int, tmp_path: Path) -> None:
    equal(seed, tmp_path / "b", None, pictures=True)


NEW_LOGIC = {
    "current not leaked",
    "current not saturated",
    "delayed reset decayed",
    "delayed reset forgotten",
    "reset not delayed",
}
REST_LOGIC = {"rest forgotten", "rest never ends", "rest is disturbed", "fires in rest"}


@pytest.mark.deep
@pytest.mark.parametrize("name", [name for name in MACHINES if name.startswith(("terms", "rest"))])
def test_wrong_terms_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, stimulus = machine(name, tmp_path / "b")
    wanted = NEW_LOGIC if name.startswith("terms") else REST_LOGIC
    terms = [edit for edit in RTL_EDITS if edit.name in wanted or edit.name.startswith("current leak")]
    monkeypatch.setattr("sim.mutants.rtl.RTL_EDITS", tuple(terms))
    monkeypatch.setattr("sim.mutants.rtl.picture_edits", lambda scene: [])
    monkeypatch.setattr(
        "sim.mutants.data._edits", lambda scene: (edit for edit in _edits(scene) if edit[0].startswith("current leak"))
    )
    result = run_mutants(tmp_path / "b", network, stimulus, tmp_path / "work", kinds=("data", "rtl"), workers=1)
    found = {entry["name"] for entry in result["mutants"]}
    assert found >= wanted
    assert result["errors"] == 0 and [entry["name"] for entry in result["mutants"] if not entry["caught"]] == []
    assert result["control"]["caught"] is False and result["control"]["error"] is None
