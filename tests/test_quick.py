"""The selection of `make quick` runs a part of every module."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.deep
def test_every_module_runs_in_a_quick_test():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not deep", "--quick", "--touched"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
