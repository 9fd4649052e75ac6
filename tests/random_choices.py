"""Random choices of hardware that go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from codesign.contract.network import FrozenNetwork
from codesign.machine.choices import FEATURES, Choices, problem
from codesign.machine.schedules import sources_of

VALUES: dict[str, tuple[Any, ...]] = {
    "shape": ("streaming", "folded"),
    "queue_depth": (2, 5, 8),
    "input_words": (1, 2, 4),
    "event_streams": (1, 2, 4),
    "input_checks": (True, False),
    "counters": (True, False),
    "state_memory": ("auto", "block", "distributed"),
    "synapse_memory": ("auto", "spram"),
    "synapses": ("plain", "compact"),
    "pipeline": ("deep", "short"),
    "lockstep": (False, True),
    "spike_fifos": (True, False),
    "output_spikes": (True, False),
    "block_rom_bits": (0, 100, 512),
    "early_exit": ("off", "certain", 1, 3),
    "loadable": (False, True),
    "schedule": ("timestep", "sample", "mixed"),
}

# Another value than the default, of every choice.
OTHERS: dict[str, Any] = {
    "shape": "folded",
    "queue_depth": 4,
    "input_words": 2,
    "event_streams": 2,
    "schedule": "sample",
    "input_checks": False,
    "counters": False,
    "state_memory": "block",
    "synapse_memory": "spram",
    "synapses": "compact",
    "pipeline": "short",
    "lockstep": True,
    "spike_fifos": False,
    "output_spikes": False,
    "block_rom_bits": 64,
    "early_exit": "certain",
    "loadable": True,
}


def others(*names: str) -> dict[str, Any]:
    """The named choices, none the default."""
    return {name: OTHERS[name] for name in names}


def with_needs(*names: str) -> Choices:
    """The named choices, none the default, with what they need."""
    return Choices(**others(*names, *(other for name in names for other in FEATURES[name].needs)))


def random_choices(
    rng: np.random.Generator, network: FrozenNetwork, *, lanes: Sequence[int] | None = None, **given: Any
) -> Choices:
    """Half of the choices at their defaults, those ``given`` as they are; drawn again until the machine is built.

    lanes : of the layers, if they are known already.
    """
    while True:
        drawn = {name: values[int(rng.integers(len(values)))] for name, values in VALUES.items() if rng.random() < 0.5}
        if drawn.get("schedule") == "mixed":
            drawn["schedule"] = tuple("sample" if rng.random() < 0.5 else "timestep" for _ in network.layers)
        choices = Choices(**drawn | given)
        found = problem(
            choices,
            readout=network.readout,
            n_outputs=network.n_outputs,
            lanes=lanes,
            structured=not network.is_plain_chain,
            sources=sources_of(network),
            is_current=network.coding.is_current,
        )
        if found is None:
            return choices
