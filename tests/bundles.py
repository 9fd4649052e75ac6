"""Generated bundles for the tests of the testbench."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from random_networks import random_lanes, random_lean, random_network, random_stimulus, random_variant

from codesign.basics.files import file_hash
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus
from codesign.machine.choices import Choices
from codesign.machine.mapping import HardwareMap, map_network
from rtl_templates.bundle import write_bundle
from sim.verify import verify_bundle


def random_bundle(
    seed: int,
    folder: Path,
    *,
    samples: int = 6,
    max_width: int = 24,
    most_lanes: int = 4,
    folded: bool = False,
    varied: bool = False,
    lean: bool = False,
) -> tuple[FrozenNetwork, HardwareMap, Stimulus]:
    """Bundle of a random network in ``folder``, the network, its placement, and a stimulus."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=max_width)
    lanes = random_lanes(rng, network, most_lanes)
    choices = Choices(
        shape="folded" if folded else "streaming",
        input_words=(1, 4, 2)[seed % 3],
        input_checks=not varied,
        counters=not varied,
    )
    if lean:
        choices = random_lean(rng, network, choices)
    mapping = map_network(network, lanes[:1] * len(lanes) if folded else lanes, None, choices)
    if varied:
        mapping = random_variant(rng, mapping)
    write_bundle(network, mapping, folder)
    return network, mapping, random_stimulus(rng, network, samples)


def small_network(coding: str = "current") -> FrozenNetwork:
    """A two-layer network whose neurons fire, leak, go negative and saturate."""
    rng = np.random.default_rng(5)

    def weights(n_in: int, n_out: int, density: float) -> np.ndarray:
        return rng.integers(-15, 16, (n_in, n_out)) * (rng.random((n_in, n_out)) < density)

    low, high = ((300, 500), (100, 160)) if coding == "current" else ((40, 90), (30, 60))
    return FrozenNetwork.from_arrays(
        [weights(20, 12, 0.4), weights(12, 5, 0.6)],
        threshold=[rng.integers(*low, 12), rng.integers(*high, 5)],
        bias=[rng.integers(-20, 40, 12), rng.integers(-5, 9, 5)],
        timesteps=4,
        coding=InputCoding("current", 4) if coding == "current" else InputCoding("events"),
        leak=Leak("shift", 2),
        fraction_bits=2,
        membrane_width=11 if coding == "current" else 9,
    )


def small_bundle(folder: Path, coding: str = "current", samples: int = 8) -> tuple[FrozenNetwork, Stimulus]:
    network = small_network(coding)
    write_bundle(network, map_network(network, [3, 2]), folder)
    return network, random_stimulus(np.random.default_rng(3), network, samples)


def sidecar(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "design.json").read_text())


def stamp(bundle: Path, name: str) -> None:
    """Make the sidecar state the hash of a changed file."""
    document = sidecar(bundle)
    document["files"][name] = file_hash(bundle / name)
    (bundle / "design.json").write_text(json.dumps(document))


def equals_rtl(rng: np.random.Generator, network: FrozenNetwork, mapping: HardwareMap, folder: Path, seed: int) -> None:
    """Golden == RTL for five random samples of a machine, whose bundle is made in ``folder`` and then removed."""
    write_bundle(network, mapping, folder / "b")
    stimulus = random_stimulus(rng, network, 5)
    result = verify_bundle(
        folder / "b", network, stimulus, folder / "work", stress_samples=2, seed=seed, workers=1, latency=False
    )
    shutil.rmtree(folder)
    assert result.passed, f"seed {seed}: {result.first_divergence or result.decoder['first']}"
    assert result.mismatches == 0 and result.samples == len(stimulus)
