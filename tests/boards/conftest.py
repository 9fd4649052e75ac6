"""Bundles that the board tests share; made once per session."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle


@dataclass(frozen=True)
class Example:
    """A bundle with what it was made from."""

    network: FrozenNetwork
    stimulus: Stimulus
    bundle: Path


def random_network(widths: list[int], density: float, seed: int = 0) -> FrozenNetwork:
    """Current-coded network with 5-bit weights and neurons that spike on digits."""
    rng = np.random.default_rng(seed)
    weights = []
    for n_in, n_out in pairwise(widths):
        matrix = rng.integers(1, 16, (n_in, n_out)) * rng.choice((-1, 1, 1), (n_in, n_out))
        weights.append(matrix * (rng.random((n_in, n_out)) < density))
    return FrozenNetwork.from_arrays(
        weights,
        threshold=[rng.integers(1500, 3000, widths[1]), *(rng.integers(200, 500, n) for n in widths[2:])],
        bias=[rng.integers(-40, 80, n) for n in widths[1:]],
        timesteps=8,
        coding=InputCoding("current", 4),
        leak=Leak("shift", 2),
        fraction_bits=4,
        membrane_width=14,
    )


def digits(count: int) -> Stimulus:
    """The first digits, 4 bits a pixel."""
    data = load_digits()
    images = np.minimum(data.data[:count], 15).astype(np.uint8)
    return Stimulus(64, 8, data.target[:count].astype(np.int32), values=images)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """64-12-10, one lane: small enough to synthesise within a test."""
    return _write(tmp_path_factory.mktemp("tiny"), random_network([64, 12, 10], 0.2), [1, 1])


@pytest.fixture(scope="session")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """64-48-10 on 4 and 2 lanes."""
    return _write(tmp_path_factory.mktemp("lanes"), random_network([64, 48, 10], 0.2), [4, 2])


def _write(folder: Path, network: FrozenNetwork, lanes: list[int]) -> Example:
    write_bundle(network, map_network(network, lanes), folder / "bundle")
    return Example(network, digits(20), folder / "bundle")
