"""Networks that others made, imported from their files, in the simulator."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from requirements import needs

from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, ResetKind
from codesign.contract.stimulus import Stimulus
from codesign.interchange.facts import Facts
from codesign.interchange.importing import Import, import_file
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle
from sim.verify import verify_bundle

pytestmark = [pytest.mark.hardware, needs("nir")]


def stored(name: str) -> Path:
    return Path(os.environ["CODESIGN_DATA"]) / "nir" / name


def samples(folder: Path, shape: tuple[int, ...], n: int, rate: float, seed: int = 0) -> Path:
    """A file of random events (n, timesteps, ...) and labels."""
    rng = np.random.default_rng(seed)
    path = folder / "samples.npz"
    np.savez(path, x=rng.random((n, *shape)) < rate, y=rng.integers(0, 7, n))
    return path


def verified(network: FrozenNetwork, stimulus: Stimulus, lanes: list[int], folder: Path) -> None:
    """Golden == RTL on every spike and state."""
    write_bundle(network, map_network(network, lanes), folder / "b")
    result = verify_bundle(folder / "b", network, stimulus, folder / "work", stress_samples=1, latency=False, workers=1)
    assert result.passed and result.mismatches == 0, result.first_divergence
    assert golden.run(network, stimulus).spike_counts.sum() > 0


def listed(found: Import, what: str) -> list[str]:
    return [change.text for change in found.findings.changed if change.what == what]


def test_tinynet_gives_the_spikes_that_lava_stored(tmp_path: Path) -> None:
    folder = stored("lava/tinynet")
    # The first of the 16 stored steps lies before the source's own reset.
    found = import_file(folder / "tiny.net", "lava", Facts(timesteps=15, readout="spike_count"))
    network = found.frozen
    assert found.floating is None and len(listed(found, "leak")) == 2
    arrays = {name: np.load(folder / f"{name}.npy")[0, ..., 1:] for name in ("input", "layer1", "output")}
    events, first, last = (array.reshape(-1, 15).T.astype(bool) for array in arrays.values())
    stimulus = Stimulus.from_dense(events[None], np.zeros(1, np.int32))
    trace = golden.run(network, stimulus)
    assert (int(first.sum()), int(last.sum())) == (1633, 92)
    assert [int(np.sum(trace.spikes[index][0] != want)) for index, want in enumerate((first, last))] == [0, 0]
    write_bundle(network, map_network(network, [8, 4]), tmp_path / "b")
    result = verify_bundle(tmp_path / "b", network, stimulus, tmp_path / "work", stress_samples=1)
    assert result.passed and result.mismatches == 0, result.first_divergence
    with np.load(tmp_path / "work/observed.npz") as observed:
        assert [int(np.sum(observed[f"spikes{index}"] != want)) for index, want in enumerate((first, last))] == [0, 0]


def test_the_cnn_of_sinabs_is_exact_in_hardware_and_its_losses_are_listed(tmp_path: Path) -> None:
    facts = Facts(readout="spike_count", reset="subtract", spikes="several")
    found = import_file(
        stored("cnn_sinabs.nir"), "sinabs", facts, samples(tmp_path, (4, 2, 34, 34), 4, 0.1), weight_bits=6
    )
    assert len(listed(found, "weights")) == 5 and found.measured is not None
    assert "second ones" in listed(found, "spikes")[0]
    assert found.measured.layers[0].jaccard > 0.6 and found.measured.samples == 2
    assert found.samples is not None
    verified(found.frozen, found.samples.take([0]), [8, 8, 4, 2, 1], tmp_path)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_braille_is_exact_in_hardware(reset: ResetKind, tmp_path: Path) -> None:
    facts = Facts(readout="spike_count", reset=reset)
    data = samples(tmp_path, (30, 12), 8, 0.3)
    file = stored("braille_zero_subgraph.nir")
    found = import_file(file, "snntorch", facts, data)
    assert [layer.refractory for layer in found.frozen.layers] == [int(reset == "zero")] * 2
    assert all(layer.has_current and layer.reset_delay == (reset == "subtract") for layer in found.frozen.layers)
    # 0.55 becomes 141 / 256, 0.5 is a shift of hardware.
    assert len(found.frozen.layers[0].projections) == 2 and len(listed(found, "current decay")) == 1
    assert found.measured is not None and found.measured.layers[0].jaccard > 0.5
    assert found.samples is not None
    verified(found.frozen, found.samples, [4, 2], tmp_path)
