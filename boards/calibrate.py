"""The table of synthesised machines that estimates of logic are fitted on, and held against.

    python -m boards.calibrate table [--numbers 0:100]    synthesise random machines; goes on where it was stopped
    python -m boards.calibrate fit                        write the coefficients of codesign/cost/coefficients.py
    python -m boards.calibrate check                      errors on machines that no fit has seen, into docs

A row of the table is a machine of :mod:`boards.designs`: by family the cells of each component, and what nextpnr packs
them into. Machines of even numbers are fitted on, those of odd ones and the last ones are held out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boards import fitting
from boards.designs import random_machine
from boards.netlists import component_counts
from boards.registry import TARGETS
from boards.synth import FLOWS, PACK_TARGET, used_resources
from boards.tools import run_tool, tool_version
from codesign.basics.files import write_text
from codesign.cost import area_model
from codesign.cost.area import no_such_machine
from codesign.cost.coefficients import MODELS
from codesign.cost.components import components
from codesign.cost.memories import FAMILIES
from codesign.machine.plan import MachinePlan, plan_machine
from rtl_templates.bundle import BUNDLE_DIR, write_bundle

# Where each flow maps memories, and with which libraries. A block memory's contents change nothing but the time that
# mapping takes, four fifths of it: each would be a module of its own.
MEMORIES = {
    "ecp5": ("map_ram", "-lib +/lattice/lutrams_trellis.txt -lib +/lattice/brams_16kd.txt"),
    "ice40": ("map_ram", "-lib +/ice40/brams.txt -lib +/ice40/spram.txt -no-auto-huge"),
    "xilinx": (
        "map_memory",
        "-lib +/xilinx/lutrams_xc5v.txt -lib +/xilinx/brams_xc4v.txt "
        "-D HAS_SIZE_36 -D HAS_CASCADE -D HAS_CONFLICT_BUG -D HAS_MIXWIDTH_SDP",
    ),
    "gowin": ("map_ram", "-lib +/gowin/lutrams.txt -lib +/gowin/brams.txt"),
}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "estimates.md"
BEGIN, END = "<!-- errors: python -m boards.calibrate check -->", "<!-- end of errors -->"
COEFFICIENTS = Path(area_model.__file__).with_name("coefficients.py")
HEADER = '''"""Coefficients of the estimates of logic. Written by `python -m boards.calibrate fit`: do not edit."""

from codesign.cost.area_model import AreaModel, Figure

MODELS: dict[str, AreaModel] = {'''
TABLE = Path(__file__).with_name("calibration.jsonl")
# Machines from this number on were made when the formulas stood, to be held out altogether.
MADE_LAST = 160
# Machines of the table.
NUMBERS = (*range(84), *range(102, 116), *range(120, 168))


def read_table() -> dict[int, dict[str, Any]]:
    """Rows by the machine's number."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.is_file() else []
    return {row["number"]: row for row in map(json.loads, lines)}


def measure(plan: MachinePlan, folder: Path, families: Sequence[str]) -> dict[str, Any]:
    """Of the plan's bundle in ``folder``/bundle, by family.

    ``components``, cells by component and kind, and ``packed``, nextpnr's own count where it packs.
    """
    found: dict[str, Any] = {}
    for family in families:
        step, libraries = MEMORIES[family]
        command = f"{FLOWS[family].command} -top snn -run"
        script = (
            f"read_verilog -defer snn.v\n{command} begin:{step}\nmemory_libmap {libraries}\n"
            f"setparam -unset INIT t:$__*\n{command} {step}:\nautoname\nwrite_json {family}.json\n"
        )
        (folder / "bundle" / f"{family}.ys").write_text(script)
        run_tool("yosys", ["-q", f"{family}.ys"], cwd=folder / "bundle", log=folder / f"{family}.log")
        known = {part.name for part in components(plan, family)}
        netlist = folder / "bundle" / f"{family}.json"
        entry: dict[str, Any] = {"components": component_counts(netlist, "snn", known)}
        if family in PACK_TARGET:
            arguments = [*TARGETS[PACK_TARGET[family]].options, "--pack-only", "--json", f"{family}.json"]
            arguments += ["--report", "packed.json", "--quiet"]
            run_tool(f"nextpnr-{family}", arguments, cwd=folder / "bundle", log=folder / f"{family}-pack.log")
            report = json.loads((folder / "bundle" / "packed.json").read_text())
            entry["packed"] = used_resources(report["utilization"])["lut"]
        found[family] = entry
    return found


def circuit_hash(verilog: str) -> str:
    """A hash of Verilog without its comments, which name versions.

    It is the same whether combinational blocks of one statement also name ``evaluate_once`` or not, and with the
    parameter for the folder of images as without.

    Neither names another circuit. Of the first, all cells but look-up tables are the same; of those some come to lie in
    other components, and machine 0 on ECP5 packs into 1,976 TRELLIS_COMB where it was 1,970. Of the second all are.
    """
    bare = re.sub(
        r"(?m)^  always @\* begin\n    if \(evaluate_once\) begin end\n    (.+;)\n  end$",
        r"  always @*\n    \1",
        re.sub(r"(?m)^//.*\n", "", verilog),
    )
    bare = re.sub(rf"(?m)^.*{BUNDLE_DIR}.*\n", "", bare.replace(f" #(.{BUNDLE_DIR}({BUNDLE_DIR}))", ""))
    return hashlib.sha256(bare.encode()).hexdigest()[:16]


def families_of(plan: MachinePlan) -> list[str]:
    """Families that build the machine; none does with distributed and single-port RAM at once."""
    return [family for family in FAMILIES if no_such_machine(plan, family) is None]


def make_table(numbers: Sequence[int]) -> None:
    """Synthesise the machines that the table lacks, or whose Verilog has changed; a row is written when it is whole."""
    for number in numbers:
        network, mapping = random_machine(number)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_bundle(network, mapping, folder / "bundle")
            verilog = circuit_hash((folder / "bundle" / "snn.v").read_text())
            table = read_table()
            if table.get(number, {}).get("verilog") == verilog:
                continue
            plan = plan_machine(network, mapping)
            measured = families_of(plan)
            if not measured:
                continue
            families = measure(plan, folder, measured)
        row = {"number": number, "network": network.hash[:16], "verilog": verilog, "yosys": tool_version("yosys")}
        write_table({**table, number: {**row, **families}})
        luts = ", ".join(f"{family} {sum_of(families[family], 'lut')}" for family in measured)
        print(f"machine {number}: {luts}", flush=True)  # noqa: T201


def write_table(table: dict[int, dict[str, Any]]) -> None:
    """A line a machine."""
    lines = [json.dumps(row, separators=(",", ":")) for _, row in sorted(table.items())]
    write_text(TABLE, "\n".join([*lines, ""]))


def sum_of(entry: dict[str, Any], kind: str) -> int:
    """Cells of a kind over all components."""
    return sum(counts.get(kind, 0) for counts in entry["components"].values())


def fitted_on(number: int) -> bool:
    """Whether coefficients come from a machine; the others are held out."""
    return number % 2 == 0 and number < MADE_LAST


def write_coefficients(table: dict[int, dict[str, Any]]) -> None:
    """Fit every family on the machines that are for it."""
    lines = [HEADER]
    for family in FAMILIES:
        found = [machine for machine in fitting.machines(table, family) if fitted_on(machine.number)]
        cells = fitting.packing(found, family)
        lines.append(f'    "{family}": AreaModel(')
        for figure in ("lut", "ff"):
            model = fitting.fitted(found, figure, cells)
            lines.append(f"        # On {len(found)} machines.")
            lines.append(f"        {figure}=Figure(")
            lines.append("            {")
            lines += [f'                "{name}": {value!r},' for name, value in model.coefficients.items()]
            lines.append("            },")
            lines += [f"            low={model.low!r},", f"            high={model.high!r},", "        ),"]
        lines.append("    ),")
    write_text(COEFFICIENTS, "\n".join([*lines, "}", ""]))


def write_errors(table: dict[int, dict[str, Any]]) -> None:
    """Errors on the machines that are held out, into the page's table."""
    lines = [
        "| family | machines | LUT: median, worst | FF: median, worst | inside the band | block RAM exact, too few | "
        "DSP exact, too few |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        every = fitting.machines(table, family)
        cells = fitting.packing([machine for machine in every if fitted_on(machine.number)], family)
        held_out = [machine for machine in every if not fitted_on(machine.number)]
        found = fitting.check(held_out, family, MODELS[family], cells)
        shares = (f"{np.median(abs(part)):.1%}, {abs(part).max():.1%}" for part in (found.lut, found.ff))
        lines.append(
            f"| {family} | {found.machines} | {' | '.join(shares)} | {found.inside:.0%} | "
            f"{found.bram_exact:.0%}, {found.bram_short} | {found.dsp_exact:.0%}, {found.dsp_short} |"
        )
    bands = ", ".join(
        f"{family} {model.lut.low:.0%} and {model.lut.high:.0%}, {model.ff.low:.0%} and {model.ff.high:.0%}"
        for family, model in MODELS.items()
    )
    lines += ["", f"Bands, too little and too much, LUT then FF: {bands}."]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join(lines)
    print(text)  # noqa: T201
    write_text(PAGE, f"{before}{BEGIN}\n{text}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m boards.calibrate", description="estimates of logic")
    parser.add_argument("what", choices=["table", "fit", "check"])
    parser.add_argument("--numbers", help="machines to synthesise, FIRST:END; default: those of the table")
    given = parser.parse_args(arguments)
    if given.what == "table":
        make_table(NUMBERS if given.numbers is None else range(*map(int, given.numbers.split(":"))))
    elif given.what == "fit":
        write_coefficients(read_table())
    else:
        write_errors(read_table())


if __name__ == "__main__":
    main()
