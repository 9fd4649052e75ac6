"""A bundle in the flows that docs/integrate.md names: FuseSoC reads and lints it, LiteX instantiates it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network
from requirements import needs
from verilator_command import put_verilator

from codesign.contract.sidecar import Sidecar, read_sidecar
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrate.md"
pytestmark = pytest.mark.deep


@pytest.fixture
def sidecar(tmp_path: Path) -> Sidecar:
    network = random_network(np.random.default_rng(3), max_width=12, max_layers=2, coding="events")
    write_bundle(network, map_network(network, [2] * len(network.layers)), tmp_path / "bundle")
    return read_sidecar(tmp_path / "bundle")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which `verilator` is a command, as where it is installed by itself."""
    put_verilator(tmp_path / "bin")
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


@needs("fusesoc")
def test_fusesoc_lints_the_core(sidecar: Sidecar, environment: dict[str, str], tmp_path: Path) -> None:
    (line,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if "fusesoc --cores-root" in line)
    words = line.replace("runs/mine/bundle", "bundle").split()[1:]
    program = [sys.executable, "-c", "from fusesoc.main import main; main()", *words]
    found = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    # A port that does not exist is seen.
    core = tmp_path / "bundle" / f"{sidecar.name}.v"
    core.write_text(
        core.read_text().replace("input s_axis_tvalid;", "input s_axis_tvalid; wire x = nothing_of_that_name;")
    )
    assert subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode != 0


@needs("litex")
def test_litex_takes_the_core_as_documented(sidecar: Sidecar, environment: dict[str, str], tmp_path: Path) -> None:
    blocks = (block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split("```python\n")[1:])
    (code,) = (block for block in blocks if "litex" in block)
    bits = [sidecar.port_width(f"{side}_axis_tdata") for side in "sm"]
    program = f"""{code}
from migen.fhdl.verilog import convert

class Platform:
    def add_source(self, path):
        assert path == "bundle/snn.v"

snn = SNN(Platform(), "bundle", {bits[0]}, {bits[1]})
ports = {{getattr(end, name) for end in (snn.sink, snn.source) for name in ("data", "valid", "ready", "last")}}
open("top.v", "w").write(str(convert(snn, ports, name="top")))
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    lint = [
        "verilator",
        "--lint-only",
        "-Wno-fatal",
        "-Wall",
        "--top-module",
        "top",
        "top.v",
        "bundle/snn.v",
        "bundle/lint.vlt",
    ]
    found = subprocess.run(lint, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    # Every port is there and as wide as the stream.
    assert "WIDTH" not in found.stderr and "PINNOTFOUND" not in found.stderr
