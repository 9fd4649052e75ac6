"""What needs no training needs no torch: each step in a process, and its children, in which importing torch fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codesign.pipeline.sources import ROOT

BLOCKED = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not here")

sys.meta_path.insert(0, Refusal())
"""

START = """
import numpy as np
import codesign
from codesign.cli import main

network = codesign.FrozenNetwork.from_arrays(
    [[[3, -2, 1], [1, 4, 0]], [[2, -1], [1, 2], [3, 0]]], threshold=4, timesteps=3
)
samples = codesign.Stimulus.from_dense(np.arange(24).reshape(4, 3, 2) % 3 > 0, labels=[0, 1, 0, 1])
network.save("mine.safetensors")
samples.save("samples.npz")
"""

STEPS = {
    "host client": "import boards.host, boards.link, boards.protocol",
    "loading": "assert codesign.FrozenNetwork.load('mine.safetensors').hash == network.hash",
    "golden prediction": "assert codesign.run_golden(network, samples).decisions.shape == (4,)",
    "prediction": """
config = codesign.parse_config({"data": {"set": "npz", "path": "x.npz", "coding": "events", "step_ms": 1.0}})
np.savez("new.npz", times=[0.0, 1.0], units=[0, 1], offsets=[0, 2])
assert codesign.predict(network, config.data, "new.npz").decisions.shape == (1,)
""",
    "machine": """
mapping = codesign.map_hardware(network, codesign.hardware_config(network, goal="balanced"), samples)
assert codesign.estimate_machine(codesign.plan_machine(network, mapping), stimulus=samples)["cycles"]
codesign.generate_bundle(network, mapping, "bundle", vectors=samples)
""",
    "command line": """
assert main(["estimate", "mine.safetensors"]) == 0
assert main(["generate", "mine.safetensors", "-o", "run"]) == 0
assert main(["load", "mine.safetensors", "run"]) == 2
assert main(["synth", "run", "--set", "synth.families=x"]) == 2
assert main(["verify", "run/bundle", "--network", "mine.safetensors"]) == 2
assert main(["report", "run"]) == 0
""",
    "imports": "from codesign import verify_bundle, synthesise_bundle, build_bitstream, explore_designs, run_pipeline",
}

VERIFY = """
codesign.generate_bundle(network, codesign.map_hardware(network), "bundle")
assert codesign.verify_bundle("bundle", network, samples, stress_samples=1).passed
assert main(["verify", "bundle", "--network", "mine.safetensors", "--samples", "samples.npz"]) == 0
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(BLOCKED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder / "hook"), str(ROOT)))}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_torch_is_blocked(tmp_path: Path) -> None:
    found = run("import codesign; codesign.SpikingNetwork", tmp_path)
    assert found.returncode and "ImportError: torch is not here" in found.stderr


def test_everything_but_training_goes_without_torch(tmp_path: Path) -> None:
    """In one process: what an earlier step has imported is there for the next one, but torch is for none."""
    found = run("\n".join((START, *(f"{step}\nprint({name!r})" for name, step in STEPS.items()))), tmp_path)
    done = [line for line in found.stdout.splitlines() if line in STEPS]
    assert (found.returncode, done) == (0, list(STEPS)), found.stdout + found.stderr


@pytest.mark.deep
@pytest.mark.hardware
def test_verification_goes_without_torch(tmp_path: Path) -> None:
    found = run(START + VERIFY, tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
