"""Programs that codesign starts: each leads a process group of its own, and none outlives the command.

A group of its own keeps the terminal's Ctrl-C away from the program, which would print a traceback, and lets it be
ended with everything that it has started itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_running: set[subprocess.Popen[Any]] = set()
_ending = threading.Event()
_starting: set[int] = set()


def start(command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
    """Start a program without standard input; ``options`` are those of :class:`subprocess.Popen`.

    Raises KeyboardInterrupt once :func:`end_all` was called, so that no other thread starts one more.
    """
    thread = threading.get_ident()
    _starting.add(thread)
    try:
        if _ending.is_set():
            raise KeyboardInterrupt
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        _running.add(process)
    finally:
        _starting.discard(thread)
    if _ending.is_set():
        end(process)
        raise KeyboardInterrupt
    return process


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a program that :func:`start` started, with all that it has started, and wait for it."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _running.discard(process)


@contextmanager
def child(command: Sequence[str | os.PathLike[str]], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program that runs beside the block and has ended when the block has."""
    process = start(command, **options)
    try:
        yield process
    finally:
        end(process)
        if process.stdout is not None:
            process.stdout.close()


def run(
    command: Sequence[str | os.PathLike[str]],
    seconds: float,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Exit code and text (output and errors) of a program. Raises subprocess.TimeoutExpired after ``seconds``."""
    with child(
        command,
        cwd=folder,
        env=None if environment is None else dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        text, _ = process.communicate(timeout=seconds)
        return process.returncode, text


def end_all() -> None:
    """Kill every program that runs; none is started any more until :func:`allow`. For a signal handler."""
    _ending.set()
    for process in list(_running):
        if process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def is_starting() -> bool:
    """True while this thread starts a program, which will see by itself that all are to end."""
    return threading.get_ident() in _starting


def allow() -> None:
    """Programs may be started (again): a new command begins."""
    _ending.clear()
