"""Whether yosys has put into block RAM what the Verilog means for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.netlist import read_netlist

_MODULE = re.compile(r"^module\s+(\\?[^\s(#;]+)")
_MEANT = re.compile(r'^\s*\(\*\s*(?:ram|rom)_style\s*=\s*"block"\s*\*\)')
_ARRAY = re.compile(r"^\s*reg\s+(?:signed\s+)?(?:\[[^\]]+\]\s*)?(\\?[^\s\[]+)\s*\[")
# What yosys prints when it has chosen a memory cell; what it prints nothing of becomes registers and logic.
_MAPPED = re.compile(r"^mapping memory (\S+) via (\S+)$", re.MULTILINE)
LOGIC = "logic"


def meant_for_block(verilog: Path, top: str) -> list[str]:
    """Paths, below the top module, of the memories that ask for block RAM by an attribute of their own.

    Raises InputError for a file that is not Verilog, ToolError without Verilator.
    """
    asked, module, is_meant = set(), "", False
    for line in verilog.read_text(encoding="utf-8").splitlines():
        if found := _MODULE.match(line):
            module = found[1].removeprefix("\\")
        elif is_meant and (found := _ARRAY.match(line)):
            asked.add((module, found[1].removeprefix("\\")))
        is_meant = _MEANT.match(line) is not None
    memories = read_netlist(verilog, top).memories.values()
    return sorted(memory.path for memory in memories if (memory.module, memory.path.rpartition(".")[2]) in asked)


def mapped_memories(log: str, top: str) -> dict[str, str]:
    """What yosys' log says of memories by path below the top module: the kind of cell that each became."""
    return {path.removeprefix(f"{top}."): cell for path, cell in _MAPPED.findall(log)}


def block_memories(meant: Sequence[str], mapped: Mapping[str, str], block_cells: Iterable[str]) -> dict[str, Any]:
    """``meant``, how many memories ask for block RAM, ``elsewhere``, what those became that are not there, by path, and
    ``summary``, both as text.

    block_cells : what names of a family's block RAM begin with.
    """
    cells = tuple(block_cells)
    found = {path: mapped.get(path, LOGIC) for path in meant}
    elsewhere = {path: cell for path, cell in found.items() if not cell.startswith(cells)}
    named = ", ".join(f"{path} ({cell})" for path, cell in elsewhere.items())
    return {
        "meant": len(meant),
        "elsewhere": elsewhere,
        "summary": f"{len(meant) - len(elsewhere)} of {len(meant)} memories that ask for it"
        + (f"; elsewhere: {named}" if named else ""),
    }
