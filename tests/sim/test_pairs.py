"""Every pair of choices that go together, as one machine, bit for bit."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from bundles import small_network
from loadable import ROOM, load_step, samples_of, small_variant

from codesign.machine.choices import FEATURES, Choices, problem
from codesign.machine.load import compile_load
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle
from sim.loads import LoadStep, verify_loads
from sim.verify import verify_bundle

pytestmark = pytest.mark.hardware

# Another value than the default, of the choices that make another machine.
OTHERS: dict[str, Any] = {
    "shape": "folded",
    "input_words": 2,
    "input_checks": False,
    "counters": False,
    "synapse_memory": "spram",
    "synapses": "compact",
    "pipeline": "short",
    "lockstep": True,
    "spike_fifos": False,
    "output_spikes": False,
    "early_exit": "certain",
    "loadable": True,
}


def choices_of(*names: str) -> Choices:
    """The named choices, neither the default, with what they need."""
    needs = [other for name in names for other in FEATURES[name].needs]
    return Choices(**{name: OTHERS[name] for name in (*names, *needs)})


PAIRS = [names for names in combinations(OTHERS, 2) if problem(choices_of(*names)) is None]
# All that makes the sweep, the door and the readout others, at once.
EVERYTHING = [
    ("spike_fifos", "output_spikes", "early_exit", "loadable", "input_checks", "input_words"),
    ("shape", "spike_fifos", "output_spikes", "early_exit", "synapses", "pipeline"),
]


def exact(names: tuple[str, ...], coding: str, folder: Path) -> None:
    """Verify a machine, and if it is loadable two more networks on it."""
    choices, network = choices_of(*names), small_network(coding)
    lanes = [2, 2] if choices.folded else [3, 2]
    room = ROOM if choices.loadable else None
    sidecar = write_bundle(network, map_network(network, lanes, None, choices, capacity=room), folder / "b")
    stimulus = samples_of(network, 3, 6)
    result = verify_bundle(folder / "b", network, stimulus, folder / "work", stress_samples=3, workers=1, waves=False)
    assert result.passed, result.first_divergence or result.first_difference
    assert result.samples == 6
    if room is not None:
        others = [
            small_variant(1, coding, n_in=9, hidden=5, timesteps=3, width=8),
            small_variant(2, coding, n_in=25, hidden=17, timesteps=6, width=9),
        ]
        steps = [
            LoadStep("own", None, network, samples_of(network, 1)),
            *(
                load_step(f"other {n}", other, compile_load(other, sidecar), n, overlaps=n == 1)
                for n, other in enumerate(others)
            ),
            load_step("own, again", network, compile_load(network, sidecar), 5),
        ]
        loads = verify_loads(folder / "b", steps, folder / "loads")
        assert loads.passed, str(loads.first_divergence)


@pytest.mark.parametrize("names", EVERYTHING, ids="+".join)
def test_many_choices_at_once_are_exact(names: tuple[str, ...], tmp_path: Path) -> None:
    exact(names, "events", tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("coding", ["current", "events"])
@pytest.mark.parametrize("names", PAIRS, ids="+".join)
def test_every_pair_is_exact(names: tuple[str, ...], coding: str, tmp_path: Path) -> None:
    exact(names, coding, tmp_path)
