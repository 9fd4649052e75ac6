"""Choices are read back from a bundle: generated again with them, it has the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_choices import random_choices
from random_networks import random_network

from codesign.basics.files import tree_hash
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import Sidecar, read_sidecar
from codesign.machine.choices import DEFAULTS, Choices
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.plan import plan_machine
from codesign.machine.remapping import delivered_map
from rtl_templates import bundle
from rtl_templates.bundle import write_bundle
from sim.delivered import delivered_choices, described_choices


def machine(seed: int) -> tuple[FrozenNetwork, HardwareMap]:
    """A random network, its choices and placement."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=14, max_layers=3)
    choices = random_choices(rng, network)
    lanes = [int(rng.integers(1, 4)) for _ in network.layers]
    events = [rng.random(layer.n_in) for layer in network.layers]
    return network, map_network(network, lanes[:1] * len(lanes) if choices.folded else lanes, events, choices)


def distinguishable(mapping: HardwareMap) -> Choices:
    """The choices, but for those that make no difference to this machine."""
    silent: dict[str, Any] = {}
    if all(layer.fetchers == 1 for layer in mapping.layers):
        silent["queue_depth"] = DEFAULTS.queue_depth
    if not any(layer.lockstep for layer in mapping.layers):
        silent["lockstep"] = False
    if all(layer.encoding.is_plain for layer in mapping.layers):
        silent["synapses"] = "plain"
    return replace(mapping.choices, **silent)


@pytest.mark.parametrize("seed", range(40))
def test_choices_and_placement_are_read_back_from_a_sidecar(seed: int) -> None:
    network, mapping = machine(seed)
    # Without its Verilog, whose emission takes most of the time.
    sidecar = Sidecar.from_json(bundle._sidecar(plan_machine(network, mapping), "it"))
    found, wanted = described_choices(sidecar), distinguishable(mapping)
    assert found == replace(wanted, state_memory="auto", block_rom_bits=DEFAULTS.block_rom_bits)
    again = Sidecar.from_json(bundle._sidecar(plan_machine(network, delivered_map(network, sidecar, found)), "it"))
    assert again == sidecar


def round_trip(seed: int, folder: Path) -> None:
    network, mapping = machine(seed)
    write_bundle(network, mapping, folder / "one", name="it")
    found = delivered_choices(folder / "one")
    write_bundle(network, delivered_map(network, read_sidecar(folder / "one"), found), folder / "two", name="it")
    assert tree_hash(folder / "one") == tree_hash(folder / "two"), mapping.choices
    assert found == replace(distinguishable(mapping), block_rom_bits=found.block_rom_bits)


@pytest.mark.parametrize("seed", [0, 2])
def test_a_bundle_that_is_generated_again_has_the_same_bytes(seed: int, tmp_path: Path) -> None:
    round_trip(seed, tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_bundles_that_are_generated_again_have_the_same_bytes(seed: int, tmp_path: Path) -> None:
    round_trip(seed, tmp_path)
