"""The tutorial of an own training loop is a program that runs."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import codesign

SCRIPT = Path(__file__).parents[2] / "examples" / "own_loop.py"


def test_it_trains_freezes_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the simulation, which takes longest."""
    asked: list[Any] = []

    def verify(
        bundle: Path, network: codesign.FrozenNetwork, samples: codesign.Stimulus, *rest: Any, **named: Any
    ) -> Any:
        asked.append((bundle, network, samples))
        return SimpleNamespace(samples=0, mismatches=0, latency_cycles=0.0, passed=True)

    monkeypatch.setattr(codesign, "verify_bundle", verify)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    ((bundle, network, samples),) = asked
    assert (bundle / "own_loop.v").is_file() and (bundle / "vectors").is_dir()
    assert codesign.FrozenNetwork.load(tmp_path / "network.safetensors").hash == network.hash
    # The connections are those that the rewirer left, without those that round to 0.
    assert 0 < network.n_synapses <= 0.15 * (24 * 32 + 32 * 4)
    assert float(re.findall(r"accuracy ([\d.]+)", capsys.readouterr().out)[0]) > 0.8
    assert len(samples) == 64


@pytest.mark.deep
@pytest.mark.hardware
def test_its_verilog_is_verified(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "verified  64 samples, 0 mismatches" in found.stdout
