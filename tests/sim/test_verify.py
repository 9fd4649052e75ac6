"""Delivered bundles in the simulator: golden == RTL, and a fault is reported where it is."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cocotb_tools.config
import numpy as np
import pytest
from bundles import random_bundle, small_bundle
from clock_checks import assert_clocks_told
from golden_checks import assert_equals_reference
from hypothesis import find, settings
from hypothesis import strategies as st
from requirements import needs

from codesign.basics.errors import InputError, ToolError
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.sidecar import read_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.data.catalogue import locate
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle
from sim import simulator
from sim.facts import Facts
from sim.verify import verify_bundle

pytestmark = pytest.mark.hardware
WORKERS = 2


def equal(seed: int, folder: Path, **options) -> bool:
    """Golden == RTL == reference on one random network; returns whether a membrane saturated."""
    network, mapping, stimulus = random_bundle(seed, folder / "b", **options)
    result = verify_bundle(
        folder / "b", network, stimulus, folder / "work", stress_samples=2, seed=seed + 1, workers=1, latency=False
    )
    assert result.passed, f"seed {seed}: {result.first_divergence or result.decoder['first']}"
    assert result.mismatches == 0 and result.samples == len(stimulus)
    assert_clocks_told(network, mapping, stimulus, result)
    assert_equals_reference(network, stimulus, folder / "net.safetensors")
    return result.saturations > 0


def equal_for_all(seeds: list[int], folder: Path, **options) -> float:
    """Fraction of the seeds' networks in which a membrane saturated; all must be equal."""

    def one(seed: int) -> bool:
        try:
            return equal(seed, folder / str(seed), **options)
        finally:
            shutil.rmtree(folder / str(seed), ignore_errors=True)

    with ThreadPoolExecutor(WORKERS) as pool:
        return float(np.mean(list(pool.map(one, seeds))))


def test_random_networks_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all(list(range(4)), tmp_path, max_width=24, most_lanes=4)


def test_random_folded_networks_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all(list(range(2)), tmp_path, max_width=24, most_lanes=4, folded=True)


def test_random_varied_networks_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all([0], tmp_path, max_width=24, most_lanes=4, varied=True)
    equal_for_all([1], tmp_path, max_width=24, most_lanes=4, varied=True, folded=True)


def test_random_lean_networks_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all([0], tmp_path, max_width=24, most_lanes=4, lean=True)


@pytest.mark.deep
def test_many_random_lean_networks_equal_their_rtl(tmp_path: Path) -> None:
    equal_for_all(list(range(1400, 1430)), tmp_path, max_width=70, most_lanes=16, lean=True)


@pytest.mark.deep
@pytest.mark.parametrize("folded", [False, True])
def test_many_random_varied_networks_equal_their_rtl(folded: bool, tmp_path: Path) -> None:
    equal_for_all(list(range(1300, 1330)), tmp_path, max_width=70, most_lanes=16, folded=folded, varied=True)


@pytest.mark.deep
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("block", range(10))
def test_many_random_networks_equal_their_rtl(block: int, folded: bool, tmp_path: Path) -> None:
    seeds = list(range(1000 + 30 * block, 1030 + 30 * block))
    saturating = equal_for_all(seeds, tmp_path, max_width=70, most_lanes=16, folded=folded)
    print(f"seeds {seeds[0]}..{seeds[-1]}: {saturating:.0%} saturate")  # noqa: T201
    assert saturating >= 0.2


def test_hypothesis_finds_no_saturation_free_world() -> None:
    """The generator of random networks reaches saturation, so that equality covers it."""

    def saturates(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        from random_networks import random_network, random_stimulus

        network = random_network(rng, max_width=12)
        return bool(golden.run(network, random_stimulus(rng, network, 3)).saturations.any())

    find(st.integers(0, 10_000), saturates, settings=settings(max_examples=200, deadline=None, database=None))


@pytest.fixture(scope="module", params=["current", "events"])
def small(request, tmp_path_factory) -> tuple[Path, FrozenNetwork, Stimulus]:
    folder = tmp_path_factory.mktemp(request.param)
    network, stimulus = small_bundle(folder / "b", request.param, samples=12)
    return folder / "b", network, stimulus


def test_every_phase_passes_and_is_measured(small, tmp_path: Path) -> None:
    bundle, network, stimulus = small
    news: list[str] = []
    result = verify_bundle(
        bundle, network, stimulus, tmp_path, stress_samples=4, progress=lambda done, total, text="": news.append(text)
    )
    assert result.passed and result.first_divergence is None
    assert set(result.phases) == {
        "back_to_back", "one_at_a_time", "backpressure", "reset_mid_sample", "protocol_errors"
    }  # fmt: skip
    trace = golden.run(network, stimulus)
    assert result.accuracy_hardware == pytest.approx((trace.decisions == stimulus.labels).mean())
    assert result.saturations == trace.saturations.sum() > 0
    assert result.comparisons["membranes"] == result.comparisons["spikes"]
    assert result.latency_cycles is not None and result.interval_cycles is not None
    assert result.latency_cycles >= result.interval_cycles > network.timesteps
    for layer, use in zip(result.layers, result.lane_use, strict=True):
        assert use is not None and 0 < use <= 1
        assert layer["sweep_clocks"] > 0
    assert result.layers[0]["synaptic_operations"] == trace.synaptic_operations[:, 0].sum()
    kinds = set(result.phases["protocol_errors"]["kinds"])
    assert "duplicate" in kinds and "index_out_of_range" in kinds
    assert network.coding.is_current or {"early_tlast", "missing_tlast", "too_many_words"} <= kinds
    assert "simulating" in news
    assert result.to_json()["passed"] is True
    assert result.network_hash == network.hash


@pytest.mark.parametrize("small", ["events"], indirect=True)
def test_progress_goes_on_through_every_phase(small, tmp_path: Path, monkeypatch) -> None:
    bundle, network, stimulus = small
    shares: list[float] = []

    def progress(done: float, total: float, text: str = "") -> None:
        if text == "simulating":
            shares.append(done / total)

    monkeypatch.setattr("sim.verify.POLL_SECONDS", 0.001)
    verify_bundle(bundle, network, stimulus, tmp_path / "work", stress_samples=3, progress=progress)
    assert shares == sorted(shares) and shares[-1] == 1
    # Backpressure, resets and violations are most of the work.
    assert len({share for share in shares if share > 0.6}) > 10


@pytest.mark.parametrize("small", ["events"], indirect=True)
def test_the_sample_that_is_kept_is_one_in_which_layers_fire(small, tmp_path: Path) -> None:
    bundle, network, stimulus = small
    events = stimulus.take(slice(3)).dense().astype(bool)
    events[:2] = False
    quiet = Stimulus.from_dense(events, stimulus.labels[:3])
    trace = golden.run(network, quiet)
    assert not trace.spike_counts[:2, -1].any() and trace.spike_counts[2].all()
    assert verify_bundle(bundle, network, quiet, tmp_path, stress_samples=0, workers=1, latency=False).passed
    with np.load(tmp_path / "observed.npz") as observed:
        assert observed["sample"] == 2
        assert all(np.array_equal(observed[f"spikes{i}"], found[2]) for i, found in enumerate(trace.spikes))


@pytest.mark.parametrize("small", ["events"], indirect=True)
def test_of_many_samples_some_are_sent_alone(small, tmp_path: Path, monkeypatch) -> None:
    bundle, network, stimulus = small
    monkeypatch.setattr("sim.verify.LATENCY_SAMPLES", 5)
    result = verify_bundle(bundle, network, stimulus, tmp_path, stress_samples=0, workers=1)
    assert result.passed and result.latency_cycles is not None
    assert result.phases["back_to_back"]["samples"] == 12 and result.phases["one_at_a_time"]["samples"] == 4


@pytest.mark.parametrize("small", ["events"], indirect=True)
def test_results_do_not_depend_on_workers_or_seed(small, tmp_path: Path) -> None:
    bundle, network, stimulus = small
    many = stimulus.take(np.arange(80) % len(stimulus))
    one, two = (
        verify_bundle(bundle, network, many, tmp_path / str(n), stress_samples=0, seed=n, workers=n, latency=False)
        for n in (1, 2)
    )
    assert one.passed and two.passed
    assert one.comparisons["membranes"] == two.comparisons["membranes"]
    assert one.spikes_per_sample == two.spikes_per_sample


@pytest.mark.parametrize("small", ["current"], indirect=True)
def test_a_wrong_expectation_is_reported_where_it_is(small, tmp_path: Path, monkeypatch) -> None:
    """The frozen network is changed behind the bundle's back: the threshold of one neuron that fires."""
    bundle, network, stimulus = small
    trace = golden.run(network, stimulus)
    sample, timestep, neuron = (int(k) for k in np.argwhere(trace.spikes[0])[0])
    threshold = network.layers[0].threshold.copy()
    threshold[neuron] += 1
    changed = network.with_layers([replace(network.layers[0], threshold=threshold), network.layers[1]])
    monkeypatch.setattr("sim.verify.read_sidecar", _claims(changed.hash))
    # The facts of the sidecar would give the fault away before anything is simulated.
    monkeypatch.setattr("sim.verify.compare_facts", lambda *_: Facts(0, ()))
    result = verify_bundle(bundle, changed, stimulus, tmp_path, stress_samples=0, waves=True)
    first = result.first_divergence
    assert not result.passed and first is not None
    wrong = golden.run(changed, stimulus)
    differing = np.argwhere(trace.membranes[0] != wrong.membranes[0])
    assert (first.sample, first.timestep, first.layer, first.neuron) == (
        *(int(differing[0][0]), int(differing[0][1]), 0, int(differing[0][2])),
    )
    assert first.what in ("membranes", "spikes")
    if first.what == "membranes":
        assert first.got == trace.membranes[0][sample, timestep, neuron]
    assert first.waveform is not None
    text = Path(first.waveform).read_text(errors="replace")
    assert text.startswith("$version") and "probe_membranes" in text
    assert not result.decoder["equal"]


def _claims(network_hash: str):
    return lambda bundle: read_sidecar(bundle).model_copy(update={"network_hash": network_hash})


def test_builds_are_cached(small, tmp_path: Path) -> None:
    from sim.bundle import read_sidecar
    from sim.verify import build_simulator

    bundle = small[0]
    build_simulator(bundle, read_sidecar(bundle), optimise="-O0")
    again = build_simulator(bundle, read_sidecar(bundle), optimise="-O0")
    assert again.cached and again.executable.is_file()
    # Another environment with the same versions uses this build; this one may be gone by then.
    assert os.fsencode(str(cocotb_tools.config.libs_dir)) not in again.executable.read_bytes()


def test_a_compiler_that_went_away_is_named(small, tmp_path: Path, monkeypatch) -> None:
    """The toolchain was found earlier in this process; the cache is empty, so that a build is needed."""
    from sim.bundle import read_sidecar
    from sim.simulator import find_toolchain
    from sim.verify import build_simulator

    find_toolchain()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CODESIGN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ToolError, match="is not on PATH"):
        build_simulator(small[0], read_sidecar(small[0]), optimise="-O0")


def test_old_builds_are_pruned(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CODESIGN_CACHE", str(tmp_path))
    for age, name in enumerate(("new", "old")):
        folder = tmp_path / "simulators" / name
        folder.mkdir(parents=True)
        (folder / "codesign_tb").write_bytes(bytes(1000))
        os.utime(folder, (10_000 - age, 10_000 - age))
    simulator.prune_cache(1500)
    assert [path.name for path in (tmp_path / "simulators").iterdir()] == ["new"]


def test_a_missing_compiler_is_named(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    simulator.find_toolchain.cache_clear()
    try:
        with pytest.raises(ToolError, match=r"no C\+\+ compiler.*install g\+\+") as caught:
            simulator.find_toolchain()
    finally:
        simulator.find_toolchain.cache_clear()
    assert "\n" not in str(caught.value)


def test_verilog_that_does_not_build_is_a_tool_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CODESIGN_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.v"
    broken.write_text("module codesign_tb; wire a = ; endmodule\n")
    with pytest.raises(ToolError, match=r"verilator_bin failed.*broken\.v:1"):
        simulator.build({}, [broken])
    assert not list((tmp_path / "cache" / "simulators").glob("?" * 32))


# Real images ------------------------------------------------------------------------------------


def read_idx(path: Path) -> np.ndarray:
    with gzip.open(path) as file:
        data = file.read()
    dimensions = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dimensions)


@needs("data", "mnist")
def test_a_784_wide_layer_on_200_real_images(tmp_path: Path) -> None:
    mnist = locate("mnist")
    images = read_idx(mnist / "t10k-images-idx3-ubyte.gz")[:200].reshape(200, 784) >> 4
    labels = read_idx(mnist / "t10k-labels-idx1-ubyte.gz")[:200].astype(np.int32)
    stimulus = Stimulus(784, 8, labels, values=images)
    rng = np.random.default_rng(1)
    hidden = rng.integers(-31, 32, (784, 64)) * (rng.random((784, 64)) < 0.1)
    out = rng.integers(-31, 32, (64, 10)) * (rng.random((64, 10)) < 0.5)
    network = FrozenNetwork.from_arrays(
        [hidden, out],
        threshold=[2500, 150],
        bias=[rng.integers(-100, 100, 64), rng.integers(-20, 20, 10)],
        timesteps=8,
        coding=InputCoding("current", 4),
        leak=Leak("shift", 2),
        fraction_bits=1,
        membrane_width=[15, 13],
    )
    trace = golden.run(network, stimulus)
    assert trace.spikes[0].mean() > 0.02 and trace.spikes[1].any()
    mapping = map_network(network, [4, 1])
    write_bundle(network, mapping, tmp_path / "b")
    result = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "work", stress_samples=2, latency=False)
    assert result.passed, str(result.first_divergence)
    assert_clocks_told(network, mapping, stimulus, result)
    assert result.phases["back_to_back"]["comparisons"]["membranes"] == 200 * 8 * 74


@pytest.mark.parametrize("given", [{"workers": 0}, {"workers": -1}, {"seed": -1}, {"stress_samples": 1.5}])
def test_numbers_that_make_no_sense_are_refused(small, given: dict[str, Any]) -> None:
    bundle, network, stimulus = small
    (name,) = given
    with pytest.raises(InputError, match=f"{name} = .* is no whole number of"):
        verify_bundle(bundle, network, stimulus, **given)
