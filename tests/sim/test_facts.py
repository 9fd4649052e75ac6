"""Every fact of a sidecar is derived again: true of every kind of machine, and each lie is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import random_bundle
from machines import MACHINES, build_machine

from codesign.network import FrozenNetwork
from codesign.sidecar import read_sidecar
from sim.facts import check_facts, compare_facts


@pytest.fixture(scope="module", params=list(MACHINES))
def machine(request, tmp_path_factory) -> tuple[Path, FrozenNetwork]:
    bundle = tmp_path_factory.mktemp("machine") / request.param
    return bundle, build_machine(request.param, bundle)


def test_the_sidecar_of_every_kind_of_machine_is_true(machine) -> None:
    bundle, network = machine
    found = compare_facts(bundle, read_sidecar(bundle), network)
    assert not found.differences and found.compared > 150
    check_facts(bundle, read_sidecar(bundle))


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(40))
def test_the_sidecars_of_random_machines_are_true(seed: int, tmp_path: Path) -> None:
    kinds = ({}, {"folded": True}, {"varied": True}, {"lean": True})
    network, _ = random_bundle(seed, tmp_path / "b", **kinds[seed % 4])
    assert not compare_facts(tmp_path / "b", read_sidecar(tmp_path / "b"), network).differences
