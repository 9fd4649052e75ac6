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
# A copy of a component is called by its lane, its stream, or both: their counts are added up.
COPY = r"(?:_?\d+)?(?:_\d+)?"
INSTANCE = re.compile(r"\.rom$")


def component_counts(path: Path, top: str, known: Collection[str]) -> Counts:
    """Cells by component and kind of the netlist that yosys wrote as JSON.

    A component is an instance's path without the lane's number (``engine0.fetcher``), "" for the top module.

    known : names of the components. What is in none of them keeps its instance's name.

    Kinds:
    ``lut``, ``carry``, ``chain`` (carry chains), ``ff``, ``lutram``, ``shift`` (shift registers of LUTs), ``bram``,
    ``half`` (half blocks), ``dsp``, ``spram``; of iCE40 also ``lone_ff`` and ``lone_carry``, which share no LUT's cell.
    """
    module = json.loads(path.read_text(encoding="utf-8"))["modules"][top]
    cells: Mapping[str, Mapping[str, Any]] = module["cells"]
    components = _components([name for name, cell in cells.items() if cell["type"] == "$scopeinfo"], known)
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    ports = _Ports(cells)
    for name, cell in cells.items():
        for kind in _kinds(cell, ports):
            found[_owner(name, components)][kind] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(found.items())}


def _components(instances: Collection[str], known: Collection[str]) -> dict[str, str]:
    """The component of each instance."""
    copies = [
        (name, re.compile(r"\.".join(re.escape(part) + COPY for part in name.split(".")) + r"(?=\.|$)"))
        # A name that begins with another one is looked for first: engine10 is no copy of engine1.
        for name in sorted(known, key=len, reverse=True)
        if name
    ]
    found = {"": ""}
    for instance in instances:
        bare = INSTANCE.sub("", instance)
        matches = ((component, pattern.match(bare)) for component, pattern in copies)
        found[instance] = next((component + bare[match.end() :] for component, match in matches if match), bare)
    return found


def _owner(name: str, components: Mapping[str, str]) -> str:
    """The component to whose instance a cell belongs."""
    while name not in components:
        name = name.rpartition(".")[0]
    return components[name]


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
