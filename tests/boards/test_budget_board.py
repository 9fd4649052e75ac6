"""The example that is trained to a board: it fits by place and route, is exact, and a tighter budget falls further."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits-icebreaker.toml"

pytestmark = [pytest.mark.deep, pytest.mark.hardware]


def codesign(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "codesign", *map(str, arguments), "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("icebreaker")
    done = codesign("run", EXAMPLE, "-o", folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "manifest.json").read_text())


def test_the_example_fits_the_board_bit_for_bit(fitted):
    budget, figures = fitted["budget"], fitted["figures"]
    assert budget["fits"]
    assert all(budget["measured"][kind] <= limit for kind, limit in budget["limits"].items())
    assert budget["fmax_mhz"] >= 12
    assert figures["mismatches"] == 0
    assert figures["accuracy_hardware"] == figures["accuracy_frozen"] > 0.9


def test_the_formula_errs_on_the_large_side(fitted):
    budget = fitted["budget"]
    assert all(budget["needed"][kind] >= budget["measured"][kind] for kind in budget["limits"])


def test_a_tighter_budget_falls_further_and_fits_too(fitted, tmp_path):
    limits = ["--set", "budget.bram=20", "--set", "verify.samples=20"]
    done = codesign("run", EXAMPLE, "-o", tmp_path / "tight", *limits)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "tight" / "manifest.json").read_text())
    assert manifest["budget"]["measured"]["bram"] <= 20
    assert manifest["budget"]["density"] < fitted["budget"]["density"]
    assert manifest["figures"]["mismatches"] == 0


def test_an_impossible_budget_exits_with_6(tmp_path):
    limits = ["--set", "budget.bram=4", "--set", "train.epochs=8"]
    done = codesign("run", EXAMPLE, "-o", tmp_path / "none", *limits)
    assert done.returncode == 6
    assert "of 4 block RAMs" in done.stderr
    assert (tmp_path / "none" / "checkpoints" / "best.safetensors").is_file()
    assert (tmp_path / "none" / "report.html").is_file()
