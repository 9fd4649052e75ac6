"""What each component of a machine became in a mapped netlist.

yosys flattens a design before it maps it, and names every cell after the signal that it drives (``autoname``): the
longest instance name that a cell's name begins with is the component to which it belongs.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

Counts = dict[str, dict[str, int]]

FLIP_FLOPS = ("SB_DFF", "TRELLIS_FF", "FD", "DFF")
# What the copies of a component are numbered by, lanes and streams: their counts are added up.
COPIES = re.compile(
    r"\b(fetcher|neurons|check|buffer)\d+(?:_\d+)?"
    r"|\b((?:own_|hidden_)?serializer\d*|merge|reader\d*|own_fork|fork_(?:\d+|input)|(?:skip|collector)\d+_\d+)_\d+"
)
INSTANCE = re.compile(r"\.rom$")


def component_counts(path: Path, top: str, known: Collection[str] = ()) -> Counts:
    """Cells by component and kind of the netlist that yosys wrote as JSON.

    A component is an instance's path without the lane's number (``engine0.fetcher``), "" for the top module.

    known : names of components that end with a number of their own, which is no copy's.

    Kinds:
    ``lut``, ``carry``, ``chain`` (carry chains), ``ff``, ``lutram``, ``shift`` (shift registers of LUTs), ``bram``,
    ``half`` (half blocks), ``dsp``, ``spram``; of iCE40 also ``lone_ff`` and ``lone_carry``, which share no LUT's cell.
    """
    module = json.loads(path.read_text(encoding="utf-8"))["modules"][top]
    cells: Mapping[str, Mapping[str, Any]] = module["cells"]
    scopes = {name for name, cell in cells.items() if cell["type"] == "$scopeinfo"}
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    ports = _Ports(cells)
    for name, cell in cells.items():
        for kind in _kinds(cell, ports):
            found[_component(name, scopes, known)][kind] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(found.items())}


def _component(name: str, scopes: set[str], known: Collection[str]) -> str:
    parts = name.split(".")
    while parts and ".".join(parts) not in scopes:
        parts.pop()
    instance = ".".join(parts)
    for whole in (instance, re.sub(r"_\d+$", "", instance)):
        if whole in known:
            return whole
    return INSTANCE.sub("", COPIES.sub(r"\1\2", instance))


class _Ports:
    """Who drives and who reads each net, as far as packing asks."""

    def __init__(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        self.readers: Counter[Any] = Counter()
        self.lut_of: dict[Any, Mapping[str, Any]] = {}
        self.carries: set[Any] = set()
        self.sums: set[tuple[Any, Any, Any]] = set()
        for cell in cells.values():
            links = cell["connections"]
            for port, bits in links.items():
                if cell["port_directions"].get(port) == "input":
                    self.readers.update(bits)
            match cell["type"]:
                case "SB_LUT4":
                    self.lut_of[links["O"][0]] = cell
                    self.sums.add(tuple(links[port][0] for port in ("I1", "I2", "I3")))
                case "SB_CARRY":
                    self.carries.add(links["CO"][0])
                case "CCU2C":
                    self.carries.add(links["COUT"][0])
                case "CARRY4":
                    self.carries.update(links["CO"])
                case "ALU":
                    self.carries.add(links["COUT"][0])


def _kinds(cell: Mapping[str, Any], ports: _Ports) -> list[str]:
    """What a cell counts as."""
    name, links = cell["type"], cell["connections"]
    if name.startswith("SB_DFF"):
        data = links["D"][0]
        packed = data in ports.lut_of and ports.readers[data] == 1
        return ["ff"] if packed else ["ff", "lone_ff"]
    if name.startswith(FLIP_FLOPS):
        return ["ff"]
    if re.fullmatch(r"SB_LUT4|LUT[1-6]", name):
        return ["lut"]
    if name in ("SB_CARRY", "CCU2C", "CARRY4", "ALU"):
        entry = links["CI" if name in ("SB_CARRY", "CARRY4") else "CIN"][0]
        kinds = ["carry"] if entry in ports.carries else ["carry", "chain"]
        if name == "SB_CARRY" and (links["I0"][0], links["I1"][0], links["CI"][0]) not in ports.sums:
            kinds.append("lone_carry")
        return kinds
    for kind, pattern in (
        ("lutram", r"TRELLIS_DPR16X4|RAM(32|64|128|256).*|RAM16S.*"),
        ("shift", r"SRL.*"),
        ("half", r"RAMB18E1"),
        ("bram", r"SB_RAM40_4K.*|DP16KD|PDPW16KD|RAMB36E1|SPX?9?|SDPX?9?B|DPX?9?B|pROMX?9?"),
        ("dsp", r"SB_MAC16|MULT.*|DSP48E1|PADD.*|ALU54.*"),
        ("spram", r"SB_SPRAM256KA"),
    ):
        if re.fullmatch(pattern, name):
            return [kind]
    return []
