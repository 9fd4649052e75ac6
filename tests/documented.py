"""The commands that README and documentation show."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
PROGRAMS = ("codesign", ".venv/bin/codesign", "python", "make", "pip", "iverilog", "verilator", "fusesoc")


@dataclass(frozen=True)
class Command:
    """page : where it stands. line : as a shell takes it, its continuations joined. block : on lines of its own."""

    page: Path
    line: str
    block: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)

    def __str__(self) -> str:
        return f"{self.page.name}: {self.line}"


def shown(page: Path) -> list[Command]:
    """Commands of a page, in order: lines of indented code, and code within sentences."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = []
    for match in re.finditer(r"(?m)^ {4}(?P<line>\S(?:.*\\\n)*.*)$|`(?P<inline>[^`]+)`", text):
        line = re.sub(r"\s*\\\n\s*", " ", match["line"]) if match["line"] else " ".join(match["inline"].split())
        if line.split()[0] in PROGRAMS and len(line.split()) > 1:
            found.append(Command(page, line, match["line"] is not None))
    return found


COMMANDS = [command for page in PAGES for command in shown(page)]
