"""Runs one built simulator in a process of its own: ``python -m sim.launch request.json``.

A process of its own keeps the caller's environment (pytest's included) out of cocotb's runner, and can be ended. It
starts for every simulation, so it imports the runner alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cocotb_tools.runner import get_runner


def main(path: Path) -> None:
    """Run the phases that the request names; results are in files."""
    request = json.loads(path.read_text(encoding="utf-8"))
    runner = get_runner("verilator")
    runner.test(
        test_module=request["module"],
        hdl_toplevel=request["top"],
        hdl_toplevel_lang="verilog",
        build_dir=request["build"],
        test_dir=path.parent,
        results_xml=str(path.parent / "results.xml"),
        test_filter=r"\.(" + "|".join(request["phases"]) + ")$",
        seed=request["seed"],
        waves=bool(request["waves"]),
        plusargs=["+verilator+rand+reset+2", f"+verilator+seed+{request['seed'] % 0x7FFFFFFF + 1}"],
        extra_env={"CODESIGN_REQUEST": str(path), "COCOTB_TRUST_INERTIAL_WRITES": "1", **request["environment"]},
        log_file=path.parent / "simulation.log",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
