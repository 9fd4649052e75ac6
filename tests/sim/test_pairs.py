"""Every pair of choices that go together, as one machine, bit for bit."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from bundles import small_network
from clock_checks import assert_clocks_told
from loadable import ROOM, load_step, samples_of, small_variant
from random_choices import OTHERS, with_needs

from codesign.machine.choices import problem
from codesign.machine.load import compile_load
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle
from sim.loads import LoadStep, verify_loads
from sim.verify import verify_bundle

pytestmark = pytest.mark.hardware

# Those that make another machine; the others change depths and what memories ask for.
KINDS = [name for name in OTHERS if name not in ("queue_depth", "state_memory", "block_rom_bits")]
PAIRS = [names for names in combinations(KINDS, 2) if problem(with_needs(*names)) is None]
# All that makes the sweep, the door and the readout others, at once.
EVERYTHING = [
    ("spike_fifos", "output_spikes", "early_exit", "loadable", "input_checks", "input_words"),
    ("shape", "spike_fifos", "output_spikes", "early_exit", "synapses", "pipeline"),
]


def exact(names: tuple[str, ...], coding: str, folder: Path) -> None:
    """Verify a machine, and if it is loadable two more networks on it."""
    choices, network = with_needs(*names), small_network(coding)
    lanes = [2, 2] if choices.folded else [3, 2]
    room = ROOM if choices.loadable else None
    mapping = map_network(network, lanes, None, choices, capacity=room)
    sidecar = write_bundle(network, mapping, folder / "b")
    stimulus = samples_of(network, 3, 6)
    result = verify_bundle(folder / "b", network, stimulus, folder / "work", stress_samples=3, workers=1, waves=False)
    assert result.passed, result.first_divergence or result.first_difference
    assert result.samples == 6
    assert_clocks_told(network, mapping, stimulus, result)
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
