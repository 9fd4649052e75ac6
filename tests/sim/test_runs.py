"""What the whole command makes of structures and leaks, and how it says what becomes of mutants.

Apart from the tests of the machines themselves, which then reach nothing but the machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutated_machines import machine

from codesign.cli import main
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import read_sidecar
from codesign.records.rundir import RunDirectory
from sim.mutants import Mutant, rtl
from sim.mutants.edits import RtlEdit

pytestmark = pytest.mark.hardware


@pytest.mark.deep
def test_the_example_of_digits_reaches_verified_hardware(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "digits-conv.toml"
    command = [sys.executable, "-m", "codesign", "run", example, "-o", tmp_path / "run", "--json"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    figures, estimated = manifest["figures"], json.loads((tmp_path / "run" / "estimate.json").read_text())
    assert (figures["samples_verified"], figures["mismatches"]) == (360, 0)
    assert figures["accuracy_hardware"] == figures["accuracy_frozen"] >= 0.96
    measured = manifest["stages"]["verify"]["cycles"]
    # The estimate counts other samples, of the validation set.
    assert estimated["latency_cycles"] == pytest.approx(measured["latency"], rel=0.06)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Hardware equals software." in page and "Convolutions and pools" in page


def test_the_command_tells_escaped_mutants_from_those_that_do_not_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "b"
    network, stimulus = machine("default", bundle)
    network.save(tmp_path / "network.safetensors")
    stimulus.save(tmp_path / "stimulus.npz")
    arguments = ["verify", str(bundle), "--mutants", "--network", str(tmp_path / "network.safetensors")]
    arguments += ["--samples", str(tmp_path / "stimulus.npz"), "-o", str(tmp_path / "out")]
    monkeypatch.setattr("codesign.pipeline.mutants.delivered_faults", lambda bundle, network: ([], None))
    monkeypatch.setattr("sim.sidecar_mutants.run_sidecar_mutants", lambda bundle, network: [])
    monkeypatch.setattr(rtl, "RTL_EDITS", ())
    unchanged = Mutant("unchanged", "data", "memories", bundle, "never")
    monkeypatch.setattr("sim.mutants.run.data_mutants", lambda scene, work, rng: [unchanged])
    assert main(arguments) == 4
    assert "1 of 1 mutants not caught: unchanged" in re.sub(r"\s+", " ", capsys.readouterr().err)
    monkeypatch.setattr("sim.mutants.run.data_mutants", lambda scene, work, rng: [])
    monkeypatch.setattr(rtl, "RTL_EDITS", (RtlEdit("broken", "readout", "readout", r"^module", "modul", "never"),))
    assert main(arguments) == 1
    assert "a fault in codesign: mutant 'broken' could not be built" in re.sub(r"\s+", " ", capsys.readouterr().err)


LAYERS = {
    "neurons": "hidden = [12]\n",
    "channels": '[[network.layers]]\nkind = "conv"\nchannels = 3\n[[network.layers]]\nkind = "pool"\n',
}


@pytest.mark.parametrize("units", [pytest.param("channels", marks=pytest.mark.deep), "neurons"])
def test_leaks_that_are_trained_become_verified_hardware(units: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[data]\nset = "digits"\ncoding = "current"\ntrain_limit = 256\ntest_limit = 20\nvalidation = 60\n'
        "[train]\nthreads = 1\nepochs = 8\nbatch_size = 32\nlearning_rate = 5e-2\n"
        "[train.rewiring]\ntarget_density = 0.3\nepochs_per_iteration = 2\n[freeze]\nepochs = 1\n"
        '[network]\ntimesteps = 4\nlearn_leak = "neuron"\n' + LAYERS[units],
        encoding="utf-8",
    )
    folder = tmp_path / "run"
    assert main(["run", str(tmp_path / "config.toml"), "-o", str(folder)]) == 0
    network = FrozenNetwork.load(folder / "network.safetensors")
    varying = [layer for layer in network.layers if "leak_shift" in layer.varying]
    assert varying and network.hardware_support() is None
    sidecar = read_sidecar(folder / "bundle")
    held = [{field.name for memory in entry.memories for field in memory.fields} for entry in sidecar.layers]
    assert ["leak_shift" in names for names in held] == ["leak_shift" in layer.varying for layer in network.layers]
    if units == "channels":
        depths = {memory.depth for memory in sidecar.layers[0].memories if memory.role == "parameters"}
        assert "leak_shift" in held[0] and max(depths) <= 3
    figures = RunDirectory.open(folder).figures
    assert figures["mismatches"] == 0 and figures["samples_verified"] == 20
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "shift by neuron" in page and "No hardware" not in page
