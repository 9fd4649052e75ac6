"""What a command shows: progress on stderr, its result on stdout."""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from codesign.basics.files import json_text


class Console:
    """Steps and bars on stderr; text or one JSON object on stdout.

    With ``json`` everything that codesign or a tool writes to file descriptor 1 while the command runs
    goes to stderr, so that stdout holds the object and nothing else.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.finished = False
        self._json = False
        self._stdout: tuple[int, TextIO] | None = None
        self._bar: Progress | None = None
        self._task: Any = None
        self._started = 0.0
        self._warned: set[str] = set()

    def start(self, *, json: bool = False, folder: Path | None = None) -> None:
        """Begin a command; ``folder`` is where a log of an unexpected error goes."""
        self._json = json
        self.folder = folder
        self.finished = False
        self._warned.clear()
        warnings.showwarning = self._show_warning
        if json and self._stdout is None:
            sys.stdout.flush()
            self._stdout = os.dup(1), sys.stdout
            os.dup2(2, 1)
            sys.stdout = sys.stderr

    def stop(self) -> None:
        """End bars, so that a line can be printed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, text: str) -> None:
        """A line on stderr."""
        self._stderr().print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """End bars and give stdout back, however the command ended."""
        self.stop()
        if self._stdout is not None:
            sys.stdout.flush()
            descriptor, sys.stdout = self._stdout
            os.dup2(descriptor, 1)
            os.close(descriptor)
            self._stdout = None

    def _show_warning(self, message: Warning | str, *location: object) -> None:
        text = f"codesign: warning: {' '.join(str(message).split())}"
        # Two stages of a command that read the same data say the same.
        if text in self._warned:
            return
        self._warned.add(text)
        self._stderr().print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def step(self, title: str) -> None:
        """Begin a step; :meth:`progress` shows how far it is."""
        self.stop()
        self._started = time.monotonic()
        stderr = self._stderr()
        if not stderr.is_terminal:
            self.note(title)
            return
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remark]}", markup=False),
            console=stderr,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=None, remark="")
        self._bar.start()

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Progress of the present step (:class:`codesign.basics.progress.Progress`)."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total or None, remark=text)

    def step_done(self, title: str) -> None:
        self.stop()
        self.note(f"{title}  {time.monotonic() - self._started:.1f} s")

    def finish(self, result: dict[str, Any], text: str | Text | Table = "") -> None:
        """Print the result: the object with --json, else the text."""
        self.stop()
        self.finished = True
        if self._json:
            self.write_json(result)
        elif isinstance(text, (str, Text)):
            RichConsole(soft_wrap=True).print(text, markup=False, highlight=False)
        else:
            RichConsole().print(text)

    def write_json(self, document: dict[str, Any]) -> None:
        """One JSON object on the real stdout; gives stdout back."""
        text = json_text(document, default=str)
        self.close()
        sys.stdout.write(text)
        sys.stdout.flush()

    def _stderr(self) -> RichConsole:
        return self._bar.console if self._bar is not None else RichConsole(stderr=True)


console = Console()
"""The console of this process."""
