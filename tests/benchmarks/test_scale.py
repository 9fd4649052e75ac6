"""Six-layer networks: built exactly as large as asked for, active in every layer, equal to their RTL."""

from pathlib import Path

import pytest

from benchmarks.scale import (
    LANES,
    N_LAYERS,
    SAMPLES,
    firing_rates,
    measure_generation,
    measure_simulation,
    random_network,
    random_stimulus,
)
from codesign.contract import golden

GENERATOR_LIMIT_BYTES = 4 << 30


def test_networks_have_the_synapses_asked_for_and_every_layer_fires():
    for n_synapses in (1_000, 20_001):
        network = random_network(n_synapses)
        assert network.n_synapses == n_synapses and len(network.layers) == N_LAYERS
        stimulus = random_stimulus(network, 20)
        assert all(0.01 < rate < 0.4 for rate in firing_rates(network, stimulus))
        assert not golden.run(network, stimulus).saturations.any()
    assert random_network(1_000).hash == random_network(1_000).hash != random_network(1_000, seed=2).hash


def equal(n_synapses: int, samples: int, folder: Path) -> None:
    """Generate and verify a network; every spike and membrane of every layer and timestep is compared."""
    network = random_network(n_synapses)
    stimulus = random_stimulus(network, samples)
    rates = firing_rates(network, stimulus)
    assert all(0.05 < rate < 0.4 for rate in rates), rates
    generation = measure_generation(network, [LANES] * N_LAYERS, folder)
    assert 0 < generation["generate_peak_bytes"] <= GENERATOR_LIMIT_BYTES
    found = measure_simulation(
        folder / "bundle", network, stimulus, folder / "work", workers=1, stress_samples=0, latency=False
    )
    compared = samples * network.timesteps * sum(layer.n_out for layer in network.layers)
    assert found["samples"] == samples
    assert found["comparisons"] == {"spikes": compared, "membranes": compared}


@pytest.mark.hardware
def test_5_000_synapses_equal_their_rtl(tmp_path: Path) -> None:
    equal(5_000, 3, tmp_path)


@pytest.mark.hardware
@pytest.mark.deep
def test_a_million_synapses_equal_their_rtl(tmp_path: Path) -> None:
    equal(1_000_000, SAMPLES, tmp_path)
