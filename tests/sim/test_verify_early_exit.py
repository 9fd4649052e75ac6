"""Delivered bundles with early exit in the simulator: every phase, and what the checker makes of a wrong exit."""

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import sidecar
from clock_checks import assert_clocks_told
from exiting_networks import exiting_network

from codesign.contract import golden
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle
from sim.facts import Facts
from sim.verify import Verification, verify_bundle

pytestmark = pytest.mark.hardware
CASES = [
    ({}, False),
    ({"coding": "current", "sizes": (8, 3, 6)}, False),
    ({"coding": "current", "readout": "membrane_sum", "rule": 60}, True),
    ({"rule": 2, "sizes": (9, 12, 5)}, True),
    ({"readout": "membrane_max", "rule": 40}, False),
    ({"sizes": (8, 4)}, True),
]


def bundle(folder: Path, seed: int, folded: bool, *, lean: bool = False, **options):
    """``lean``: without checks of the input and without counters."""
    rule = options.get("rule", "certain")
    network, stimulus = exiting_network(seed, **options)
    lanes = [2] * len(network.layers) if folded else [1 + (seed + i) % 3 for i in range(len(network.layers))]
    choices = Choices(
        shape="folded" if folded else "streaming",
        early_exit=rule,
        input_words=1 + seed % 2,
        input_checks=not lean,
        counters=not lean,
    )
    mapping = map_network(network, lanes, None, choices)
    write_bundle(network, mapping, folder, vectors=stimulus.take([0, 1]))
    return mapping, network, stimulus, golden.run(network, stimulus, early_exit=rule)


def check(result: Verification, mapping, network, stimulus, trace) -> None:
    assert result.passed, result.first_divergence
    assert_clocks_told(network, mapping, stimulus, result)
    assert result.mean_timesteps == pytest.approx((trace.exits + 1).mean())
    assert result.mean_timesteps < network.timesteps
    back = result.phases["back_to_back"]["comparisons"]
    neurons = sum(layer.n_out for layer in network.layers)
    assert back["spikes"] == back["membranes"] == neurons * int((trace.exits + 1).sum())
    assert back["output_spikes"] == len(trace.exits) * network.timesteps * network.n_outputs
    assert result.comparisons["latency_cycles"] > len(trace.exits)


@pytest.mark.parametrize("case", [pytest.param(0, marks=pytest.mark.deep), 2])
def test_every_phase_passes(case: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, folded = CASES[case]
    mapping, network, stimulus, trace = bundle(tmp_path / "b", case, folded, **options)
    result = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "w", stress_samples=3, workers=1)
    check(result, mapping, network, stimulus, trace)
    assert set(result.phases) >= {"backpressure", "reset_mid_sample", "protocol_errors"}
    document = sidecar(tmp_path / "b")
    ports = {port["name"] for port in document["ports"]}
    assert {"latency_cycles", "exit_count", "timestep_count"} <= ports
    # The same hardware, expected to exit by another rule, differs where it exits first.
    document["early_exit"] = 1 if options.get("rule", "certain") == "certain" else 10_000
    (tmp_path / "b" / "design.json").write_text(json.dumps(document))
    result = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "w", workers=1)
    assert result.samples == 0 and "early_exit is" in result.sidecar[0]
    monkeypatch.setattr("sim.verify.compare_facts", lambda *_: Facts(0, ()))
    result = verify_bundle(
        tmp_path / "b", network, stimulus, tmp_path / "w", stress_samples=0, workers=1, waves=False, latency=False
    )
    other = golden.run(network, stimulus, early_exit=document["early_exit"])
    assert result.mismatches > 0 and result.first_divergence is not None
    assert result.first_divergence.sample == int(np.flatnonzero(other.exits != trace.exits)[0])


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(200, 260))
def test_many_networks_with_early_exit_equal_their_rtl(seed: int, tmp_path: Path) -> None:
    options, folded = CASES[seed % len(CASES)]
    mapping, network, stimulus, trace = bundle(tmp_path / "b", seed, folded, lean=seed % 4 == 0, **options)
    result = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "w", stress_samples=2, workers=1)
    check(result, mapping, network, stimulus, trace)


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("seed", [301, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(302, 320))])
def test_readers_of_one_population_without_fifos_stay_together(seed: int, streams: int, tmp_path: Path) -> None:
    """One of them has taken a word, and another has not, when the sample is decided."""
    network, stimulus = exiting_network(seed, skips=True, sizes=(8, 9, 6, 4), samples=12)
    choices = Choices(early_exit="certain", spike_fifos=False, event_streams=streams)
    mapping = map_network(network, [streams] * 3, None, choices)
    write_bundle(network, mapping, tmp_path / "b")
    trace = golden.run(network, stimulus, early_exit="certain")
    result = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "w", stress_samples=2, workers=1)
    check(result, mapping, network, stimulus, trace)
