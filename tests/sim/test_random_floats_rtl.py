"""Random float networks in the simulator: as integers golden == RTL.

The way to there: tests/codesign/test_random_floats.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import equals_rtl
from random_choices import random_choices
from random_floats import random_float_network
from random_networks import random_lanes

from codesign.contract.deadcode import remove_dead_code
from codesign.machine.mapping import map_network
from codesign.quantise.integers import quantise

pytestmark = pytest.mark.hardware


def equal(seed: int, folder: Path) -> None:
    """Golden == RTL of one network as an import leaves it, on a random machine."""
    rng = np.random.default_rng(seed)
    frozen = None
    while frozen is None or frozen.hardware_support() is not None:
        network, stimulus = random_float_network(rng)
        frozen = remove_dead_code(quantise(network, stimulus, weight_bits=int(rng.integers(2, 9))).network)
    lanes = random_lanes(rng, frozen, 5)
    mapping = map_network(frozen, lanes, None, random_choices(rng, frozen, lanes=lanes))
    equals_rtl(rng, frozen, mapping, folder, seed)


# 147: several projections read the input of a machine with early exit.
@pytest.mark.parametrize("seed", [1, 147])
def test_a_random_float_network_equals_its_rtl(seed: int, tmp_path: Path) -> None:
    equal(seed, tmp_path / "b")


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_random_float_networks_equal_their_rtl(seed: int, tmp_path: Path) -> None:
    equal(seed, tmp_path / "b")
