"""Runs cases one after the other in a process with limits; one JSON line on its standard output for each.

``python -m tests.fuzz.worker PREPARED SEED`` reads ``target index`` from standard input. The process lives on from case
to case, so that imports are paid once; what it may use of memory is limited, and what it used at most is measured anew
for each case.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.targets import TARGETS, Case, make_case

MEMORY_LIMIT = 6 << 30
"""Of address space, of which torch takes several gigabytes without using them."""
WALL_SECONDS = 300
SLOW_SECONDS = 1.5


class Endless(BaseException):
    """A case that does not end."""


def main(prepared: Path, seed: int) -> None:
    from codesign.cli import main as command  # noqa: F401 - imported before the first case is timed

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    undamaged: dict[str, float] = {}
    for line in sys.stdin:
        name, _, index = line.rpartition(" ")
        if name not in undamaged:
            undamaged[name] = _undamaged(prepared, name)
        case, outcome = _once(prepared, name, seed, int(index))
        if outcome["seconds"] > SLOW_SECONDS:
            # What was imported for the first time, or a moment in which the machine had others to serve, says nothing.
            case, again = _once(prepared, name, seed, int(index))
            outcome["seconds"] = min(outcome["seconds"], again["seconds"])
        told = {"target": name, "index": int(index), "label": case.label, "undamaged": undamaged[name]}
        print(json.dumps({**told, **outcome}), file=answers, flush=True)


def _undamaged(prepared: Path, name: str) -> float:
    """Seconds that a target takes on the file as it is. The first time imports what it needs and is not counted."""
    seconds = 0.0
    for _ in range(2):
        seconds = _once(prepared, name, 0, None)[1]["seconds"]
        if seconds < 1:
            break
    return seconds


def _once(prepared: Path, name: str, seed: int, index: int | None) -> tuple[Case, dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        case = make_case(prepared, folder, TARGETS[name], seed, index)
        return case, run(case)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(case: Case) -> dict[str, Any]:
    """Exit code, what was shown, seconds of the processor and the peak of memory in bytes."""
    out, err = io.StringIO(), io.StringIO()
    with _watched() as used, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _execute(case)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()[-4000:], **used}


def _execute(case: Case) -> int:
    from codesign.cli import main as command
    from codesign.cli.console import console
    from codesign.cli.failure import explain

    if not callable(case.arguments):
        return command(case.arguments)
    console.start()
    try:
        case.arguments()
    except BaseException as error:
        return explain(error, [])
    return 0


@contextlib.contextmanager
def _watched() -> Iterator[dict[str, Any]]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Endless(f"not ended after {WALL_SECONDS} s")

    used: dict[str, Any] = {}
    Path("/proc/self/clear_refs").write_text("5")
    before, started = _processor(), time.monotonic()
    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(WALL_SECONDS)
    try:
        yield used
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
        used.update(seconds=round(_processor() - before, 3), wall=round(time.monotonic() - started, 3), peak=_peak())


def _processor() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak() -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
