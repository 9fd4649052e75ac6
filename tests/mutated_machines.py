"""A small machine of every choice of hardware, with samples that make its parts work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from random_networks import random_stimulus

from codesign import golden
from codesign.choices import Choices
from codesign.mapping import map_network
from codesign.network import FrozenNetwork, InputCoding, Leak
from codesign.stimulus import Stimulus
from rtl_templates.bundle import write_bundle

TINY = {"pipeline": "short", "input_checks": False, "counters": False, "spike_fifos": False, "output_spikes": False}
# Network (coding, readout) and choices of each; lanes where they are not two in each layer.
MACHINES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {}),
    "current": ({"coding": "current"}, {"queue_depth": 2}),
    "one lane": ({"lanes": 1}, {}),
    "short": ({}, {"pipeline": "short"}),
    "short, current": ({"coding": "current"}, {"pipeline": "short", "counters": False}),
    "no counters": ({}, {"counters": False}),
    "no output spikes": ({}, {"output_spikes": False}),
    "no input checks": ({}, {"input_checks": False}),
    "no input checks, current": ({"coding": "current"}, {"input_checks": False}),
    "no fifos": ({}, {"spike_fifos": False}),
    "lock step": ({}, {"lockstep": True}),
    "tiny": ({}, {"lockstep": True, **TINY}),
    "tiny, one lane": ({"lanes": 1}, TINY),
    "compact": ({}, {"synapses": "compact"}),
    "compact, short": ({"coding": "current"}, {"synapses": "compact", "pipeline": "short"}),
    "folded": ({}, {"shape": "folded"}),
    "folded, current": ({"coding": "current"}, {"shape": "folded", "pipeline": "short"}),
    "folded, compact": ({}, {"shape": "folded", "synapses": "compact", "input_words": 2}),
    "wide beats": ({}, {"input_words": 4, "state_memory": "block", "block_rom_bits": 0}),
    "certain exit": ({}, {"early_exit": "certain"}),
    "exit by margin": ({"readout": "membrane_sum"}, {"early_exit": 40, "counters": False}),
    "folded, exit": ({}, {"shape": "folded", "early_exit": "certain", "input_checks": False}),
    "exit, current": ({"coding": "current"}, {"early_exit": 2, "pipeline": "short"}),
    "loadable": ({}, {"loadable": True}),
    "loadable, empty": ({"coding": "current"}, {"loadable": True, "synapse_memory": "spram", "pipeline": "short"}),
    "membrane_last": ({"readout": "membrane_last"}, {}),
    "membrane_sum, folded": ({"readout": "membrane_sum"}, {"shape": "folded"}),
    "membrane_max, short": ({"readout": "membrane_max"}, {"pipeline": "short", "lockstep": True}),
}


def network_of(coding: str = "events", readout: str = "spike_count", seed: int = 5) -> FrozenNetwork:
    """12-9-4 in 5 timesteps: neurons fire, leak, go negative and saturate."""
    rng = np.random.default_rng(seed)

    def weights(n_in: int, n_out: int, density: float) -> np.ndarray:
        return rng.integers(-9, 16, (n_in, n_out)) * (rng.random((n_in, n_out)) < density)

    is_current, counts = coding == "current", readout == "spike_count"
    low, high = ((150, 400), (60, 140)) if is_current else ((30, 80), (20, 60))
    return FrozenNetwork.from_arrays(
        [weights(12, 9, 0.5), weights(9, 4, 0.7)],
        threshold=[rng.integers(*low, 9), rng.integers(*high, 4)],
        bias=[rng.integers(-9, 15, 9), rng.integers(-5, 9, 4)],
        timesteps=5,
        readout=readout,  # type: ignore[arg-type]
        reset=["subtract", "subtract" if counts else "none"],
        coding=InputCoding("current", 4) if is_current else InputCoding("events"),
        leak=Leak("shift", 2),
        fraction_bits=2,
        membrane_width=[10 if is_current else 9, 9 if counts else 14],
    )


def choices_of(name: str) -> Choices:
    return Choices(**MACHINES[name][1])


def machine(name: str, folder: Path, samples: int = 6) -> tuple[FrozenNetwork, Stimulus]:
    """The bundle of a machine in ``folder``, its network, and samples, with early exit of several lengths."""
    options = dict(MACHINES[name][0])
    lanes, choices = options.pop("lanes", 2), choices_of(name)
    for seed in range(200):
        network = network_of(**options, seed=seed)
        stimulus = random_stimulus(np.random.default_rng(seed), network, samples)
        trace = golden.run(network, stimulus, early_exit=choices.early_exit)
        ties = (trace.values == trace.values.max(axis=1, keepdims=True)).sum(axis=1)
        lively = all(spikes[:, :, :].any() for spikes in trace.spikes[: 2 if readout_counts(network) else 1])
        varied = np.unique(trace.exits).size >= 3 and (trace.exits == 4).any() if choices.exits else True
        if lively and varied and np.unique(trace.decisions).size > 1 and (ties > 1).any() == readout_counts(network):
            break
    else:
        raise AssertionError(f"{name}: no network of this kind does enough")
    write_bundle(network, map_network(network, [lanes] * 2, None, choices), folder)
    return network, stimulus


def readout_counts(network: FrozenNetwork) -> bool:
    return network.readout == "spike_count"
