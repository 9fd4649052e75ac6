"""Networks and samples that are decided after different timesteps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from random_networks import random_stimulus

from codesign.contract import golden
from codesign.contract.early_exit import EarlyExit
from codesign.contract.network import (
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    ReadoutKind,
    ResetKind,
    Synapses,
)
from codesign.contract.stimulus import Stimulus


def exiting_network(
    seed: int,
    *,
    coding: str = "events",
    readout: ReadoutKind = "spike_count",
    rule: EarlyExit = "certain",
    sizes: tuple[int, ...] = (8, 5, 4),
    timesteps: int = 7,
    samples: int = 6,
    skips: bool = False,
) -> tuple[FrozenNetwork, Stimulus]:
    """A network whose samples, by ``rule``, exit after at least three timesteps, two of them before the last.

    skips : the last layer reads the first one, too.
    """
    rng = np.random.default_rng(seed)
    # With coding 'current' the first layer's sums are of values up to 15.
    scales = [8 if coding == "current" else 1, *[1] * (len(sizes) - 2)]
    for _ in range(2000):
        weights = [rng.integers(-4, 12, shape) for shape in pairwise(sizes)]
        resets: list[ResetKind] = ["subtract"] * len(weights)
        if readout != "spike_count":
            resets[-1] = "none"
        network = FrozenNetwork.from_arrays(
            weights,
            threshold=[rng.integers(4, 40, n) * scale for n, scale in zip(sizes[1:], scales, strict=True)],
            timesteps=timesteps,
            readout=readout,
            reset=resets,
            coding=InputCoding("current", 4) if coding == "current" else InputCoding("events"),
            leak=Leak("shift", 2),
            membrane_width=14,
        )
        if skips:
            *layers, last = network.layers
            skip = Projection(0, Synapses.from_dense(rng.integers(-4, 12, (sizes[1], sizes[-1]))))
            network = network.with_layers([*layers, replace(last, projections=(*last.projections, skip))])
        stimulus = random_stimulus(rng, network, samples)
        found = np.unique(golden.run(network, stimulus, early_exit=rule).exits)
        if found.size >= 3 and found[1] < timesteps - 1:
            return network, stimulus
    raise AssertionError(f"seed {seed}: no network exits after different timesteps")
