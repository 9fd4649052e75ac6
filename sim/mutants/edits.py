"""Textual edits of the delivered Verilog: a fault replaces what drives a signal by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codesign.basics.errors import ToolError
from sim.mutants.scene import Scene

Applies = Callable[[Scene], bool]
CONSTANT = r"(?P<size>\d+)'h(?P<value>[0-9a-f]+)"


@dataclass(frozen=True)
class RtlEdit:
    """A textual edit of the delivered Verilog.

    Every module whose name (below the top's) matches ``module`` must hold ``pattern`` exactly once, or at least
    once if ``every``; each match is replaced. ``applies`` : whether the machine has what is edited, and the samples
    show the fault. ``component`` : what the fault is in. ``loads`` : it is seen when a network is loaded.
    """

    name: str
    component: str
    module: str
    pattern: str
    replacement: str | Callable[[re.Match[str]], str]
    reason: str
    every: bool = False
    applies: Applies = lambda scene: True
    loads: bool = False


def driver(signal: str) -> str:
    """Pattern of what drives a signal: an assignment, or the clocked one of a register. Groups head, value."""
    return rf"(?m)^(?P<head>\s*(?:assign {signal} =|{signal} <=) )(?P<value>[^;]+);"


def to(value: str) -> str:
    """Replacement of a :func:`driver`."""
    return rf"\g<head>{value};"


def apply_rtl_edit(text: str, top: str, edit: RtlEdit, places: Mapping[str, str] | None = None) -> str:
    """Edited Verilog; ``places`` : what stands for parts of the module's name. Raises ToolError unless the pattern is
    where it must be."""
    module = edit.module
    for mark, part in (places or {}).items():
        module = module.replace(mark, part)
    name = re.escape(f"{top}_") + module if module else re.escape(top)
    modules = re.compile(rf"^module {name}\s*\(.*?^endmodule", re.MULTILINE | re.DOTALL)
    pieces, position, count_of_modules = [], 0, 0
    for found in modules.finditer(text):
        body, count = re.subn(edit.pattern, edit.replacement, _read_by_name(found.group()))
        if count == 0 or (count > 1 and not edit.every):
            line = found.group().splitlines()[0][:60]
            raise ToolError(
                f"mutant {edit.name!r}: {count} matches in {line!r}, expected {'some' if edit.every else 1}"
            )
        pieces += [text[position : found.start()], body]
        position, count_of_modules = found.end(), count_of_modules + 1
    if count_of_modules == 0:
        raise ToolError(f"mutant {edit.name!r}: no module matches {name}")
    return "".join([*pieces, text[position:]])


def _read_by_name(module: str) -> str:
    """The module with every slice of an unnamed signal that drives a named one read by that name.

    The translation from Amaranth may read the slice itself elsewhere, past the name, whose driver an edit replaces.
    """
    for name, part in re.findall(r"(?m)^\s*assign (\w+) = (\\\$\d+ \[\d+(?::\d+)?\]);", module):
        definition = f"assign {name} = {part};"
        before, after = module.split(definition, 1)
        module = before.replace(part, f"{name} ") + definition + after.replace(part, f"{name} ")
    return module
