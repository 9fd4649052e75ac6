"""Simulates a board's top through its UART pins, with the client that talks to the real one.

The delivered Verilog and the board's top are compiled unmodified; a process of its own runs cocotb
(``python -m boards.simulate request.json``), whose test is :mod:`boards.uart_testbench`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from boards.registry import Board
from boards.synth import Design
from boards.top import board_verilog
from codesign.basics import children
from codesign.basics.errors import ToolError
from codesign.basics.files import write_json
from codesign.contract.stimulus import Stimulus
from sim.harness import TOP
from sim.simulator import build as build_simulator
from sim.simulator import library_path

RESULTS = "results.npz"
TIMEOUT_SECONDS = 1800

_TESTBENCH = """\
`timescale 1ns/1ns
module {top};
  reg  clk     /*verilator public_flat_rw*/ = 0;
  reg  rst     /*verilator public_flat_rw*/ = 1;
  reg  uart_rx /*verilator public_flat_rw*/ = 1;
  wire uart_tx /*verilator public_flat_rd*/;
  board_top board (.clk(clk), .rst(rst), .uart_rx(uart_rx), .uart_tx(uart_tx));
endmodule
"""
_LINT = "`verilator_config\nlint_off -rule WIDTHEXPAND\nlint_off -rule WIDTHTRUNC\n"


@dataclass(frozen=True)
class Fault:
    """Damage to the first attempt at one sample: a flipped bit in, or the loss of, one byte of either direction."""

    sample: int
    direction: Literal["to_board", "from_board"]
    byte: int
    lost: bool = False


@dataclass(frozen=True, eq=False)
class BoardRun:
    """What the client got for every sample.

    spikes : bool (N, timesteps, n_outputs). values : int64 (N, n_outputs). decisions, attempts : int64 (N,).
    clocks : simulated clocks. identity : the board's, after the last sample.
    """

    spikes: npt.NDArray[np.bool_]
    values: npt.NDArray[np.int64]
    decisions: npt.NDArray[np.int64]
    attempts: npt.NDArray[np.int64]
    clocks: int
    identity: dict[str, Any]


def simulate_board(
    bundle: Path,
    stimulus: Stimulus,
    work: Path,
    *,
    board: Board,
    divisor: int,
    faults: tuple[Fault, ...] = (),
    timeout: float = 0.02,
) -> BoardRun:
    """Send every sample of ``stimulus`` to the simulated board at ``divisor`` clocks per bit.

    ``timeout`` is the client's, in simulated seconds at the board's clock. Raises ToolError if the simulation, or
    the client in it, fails.
    """
    design = Design.load(bundle)
    work = work.resolve()
    design.copy_sources(work)
    stimulus.save(work / "stimulus.npz")
    texts = {
        f"{TOP}.sv": _TESTBENCH.format(top=TOP),
        "board_top.v": board_verilog(design.sidecar, divisor),
        "board.vlt": _LINT,
    }
    simulator = build_simulator(texts, [bundle / f"{design.name}.v"], log=work / "build.log", optimise="-O1")
    request = work / "request.json"
    write_json(
        request,
        {
            "build": str(simulator.folder),
            "sidecar": str((bundle / "design.json").resolve()),
            "stimulus": str(work / "stimulus.npz"),
            "clock_hz": board.clock_hz,
            "divisor": divisor,
            "faults": [asdict(fault) for fault in faults],
            "timeout": timeout,
        },
    )
    (work / RESULTS).unlink(missing_ok=True)
    with (work / "launch.log").open("wb") as log:
        command = [sys.executable, "-m", "boards.simulate", str(request)]
        with children.child(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(), cwd=work) as process:
            process.wait(timeout=TIMEOUT_SECONDS)
    if not (work / RESULTS).is_file():
        raise ToolError(f"the simulated board failed: {_last_error(work)} (log: {work / 'simulation.log'})")
    with np.load(work / RESULTS) as arrays:
        return BoardRun(
            arrays["spikes"],
            arrays["values"],
            arrays["decisions"],
            arrays["attempts"],
            int(arrays["clocks"]),
            json.loads(str(arrays["identity"])),
        )


def _environment() -> dict[str, str]:
    """The caller's environment without what would reach cocotb by accident."""
    prefixes = ("PYTEST", "COCOTB", "WAVES", "GUI", "COV_CORE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment


def _last_error(work: Path) -> str:
    for name in ("simulation.log", "launch.log"):
        if (work / name).is_file():
            lines = (work / name).read_text(encoding="utf-8", errors="replace").splitlines()
            errors = [line.strip() for line in lines if "Error" in line]
            if errors:
                return errors[-1][:300]
    return "no message"


def main(path: Path) -> None:
    """Run the simulation that the request describes."""
    from cocotb_tools.runner import get_runner

    request = json.loads(path.read_text(encoding="utf-8"))
    get_runner("verilator").test(
        test_module="boards.uart_testbench",
        hdl_toplevel=TOP,
        hdl_toplevel_lang="verilog",
        build_dir=request["build"],
        test_dir=path.parent,
        results_xml=str(path.parent / "results.xml"),
        extra_env={"CODESIGN_REQUEST": str(path), "COCOTB_TRUST_INERTIAL_WRITES": "1", **library_path()},
        log_file=path.parent / "simulation.log",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
