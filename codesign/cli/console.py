"""What a command shows: progress on stderr, its result on stdout."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Seconds between two lines of progress where nobody watches a bar.
PAUSE = 5.0


class Table:
    """Rows of texts under their headers, shown literally; no word of them, such as a path, is ever cut or broken.

    In a terminal that is too narrow for that a row is a paragraph, a line for each cell.
    """

    def __init__(self, *headers: str, caption: str = "") -> None:
        self.headers, self.caption = headers, caption
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        self.rows.append(cells)


@dataclass(frozen=True)
class Lines:
    """A text, and below it what is warned of, in another colour on a terminal."""

    text: str
    warned: Sequence[str] = ()


class Console:
    """Steps and bars on stderr; text or one JSON object on stdout.

    With ``json`` everything that codesign or a tool writes to file descriptor 1 while the command runs
    goes to stderr, so that stdout holds the object and nothing else. Where stderr is no terminal a line every few
    seconds takes the place of the bar.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._json = False
        self._result: dict[str, Any] = {}
        self._stdout: tuple[int, TextIO] | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._pace: Pace | None = None
        self._started = 0.0
        self._warned: set[str] = set()

    def start(self, *, json: bool = False, folder: Path | None = None) -> None:
        """Begin a command; ``folder`` is where a log of an unexpected error goes."""
        self._json = json
        self.folder = folder
        self.forget()
        self._warned.clear()
        warnings.showwarning = self._show_warning
        if json and self._stdout is None:
            sys.stdout.flush()
            self._stdout = os.dup(1), sys.stdout
            os.dup2(2, 1)
            sys.stdout = sys.stderr

    def stop(self) -> None:
        """End bars, so that a line can be printed."""
        self._pace = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, text: str, *, style: str = "") -> None:
        """A line on stderr."""
        if self._bar is None and not _is_terminal(sys.stderr):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
            return
        console = self._bar.console if self._bar is not None else _rich(sys.stderr)
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

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
        self.note(text, style="yellow")

    def step(self, title: str) -> None:
        """Begin a step; :meth:`progress` shows how far it is."""
        self.stop()
        self._started = time.monotonic()
        if not _is_terminal(sys.stderr):
            self._pace = Pace(self._started)
            self.note(title)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remark]}", markup=False),
            console=_rich(sys.stderr),
            transient=True,
        )
        self._task = self._bar.add_task(title, total=None, remark="")
        self._bar.start()

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Progress of the present step (:class:`codesign.basics.progress.Progress`)."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None, remark=text)
        if self._pace is not None:
            line = self._pace.line(time.monotonic(), done, total, text)
            if line:
                self.note(line)

    def step_done(self, title: str) -> None:
        self.stop()
        self.note(f"{title}  {time.monotonic() - self._started:.1f} s")

    def finish(self, result: dict[str, Any], text: str | Lines | Table = "") -> None:
        """Print the result: the text, or with --json the object, once it is known how the command ends."""
        self.stop()
        if self._json:
            self._result = result
        elif isinstance(text, Table):
            _print_table(text)
        else:
            _print_lines(Lines(text) if isinstance(text, str) else text)

    def forget(self) -> None:
        """There is no result, such as that of an earlier command of this process."""
        self._result = {}

    def conclude(self, **more: Any) -> None:
        """Print the object of --json, with ``more`` on how the command ended; nothing if there is none."""
        if self._result or more:
            self.write_json({**self._result, **more})
        self.forget()

    def write_json(self, document: dict[str, Any]) -> None:
        """One JSON object on the real stdout; gives stdout back."""
        from codesign.basics.files import json_text

        text = json_text(document, default=str)
        self.close()
        sys.stdout.write(text)
        sys.stdout.flush()


class Pace:
    """Lines of progress, one every :data:`PAUSE` seconds at most, with the share that is done and the time left.

    The time left assumes that the rest goes as fast as what was done since the first report: work that goes on from
    an earlier command begins in the middle. A step whose unit changes, as reading data is followed by training, is
    timed anew. ``begun`` is when the step began.
    """

    def __init__(self, begun: float) -> None:
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] = (0.0, 0.0)
        self._shown = begun

    def line(self, now: float, done: float, total: float, text: str) -> str | None:
        """The line for a report at ``now`` (seconds), None if the last one is too recent."""
        if self._first is None or total != self._last[1] or done < self._last[0]:
            self._first = now, done
        self._last = done, total
        if now - self._shown < PAUSE:
            return None
        self._shown = now
        parts = [text] if text else []
        if total > 0:
            parts.append(f"{100 * done / total:.0f} %")
            begun, before = self._first
            if done > before:
                parts.append(f"{_duration((total - done) * (now - begun) / (done - before))} left")
        return f"  {', '.join(parts)}" if parts else None


def _duration(seconds: float) -> str:
    """Two units at most: ``"40 s"``, ``"3 min"``, ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _is_terminal(stream: TextIO) -> bool:
    """True where colours and bars can be drawn."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _rich(stream: TextIO, **options: Any) -> Any:
    from rich.console import Console as RichConsole

    return RichConsole(file=stream, **options)


def _print_lines(lines: Lines) -> None:
    if not _is_terminal(sys.stdout):
        warned = "".join(f"warning      {line}\n" for line in lines.warned)
        sys.stdout.write(f"{lines.text}\n{warned}")
        return
    console = _rich(sys.stdout)
    console.print(lines.text, markup=False, highlight=False, soft_wrap=True)
    for line in lines.warned:
        console.print(f"warning      {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _print_table(table: Table) -> None:
    """As wide as the terminal, in a file as wide as it needs; a line for each cell where a word would be broken."""
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text

    cells = [[Text(cell) for cell in row] for row in table.rows]
    shown = RichTable(caption=Text(table.caption) if table.caption else None)
    for index, header in enumerate(table.headers):
        column = [Text(header), *(row[index] for row in cells)]
        longest = max(len(word) for cell in column for word in (cell.plain.split() or [""]))
        shown.add_column(Text(header), min_width=longest, overflow="fold")
    for row in cells:
        shown.add_row(*row)
    console = _rich(sys.stdout)
    wanted = Measurement.get(console, console.options.update(width=1 << 16), shown)
    if not _is_terminal(sys.stdout):
        console.width = wanted.maximum
    elif wanted.minimum > console.width:
        records = (
            "\n".join(f"{header}: {cell}" if header else cell for header, cell in zip(table.headers, row) if cell)
            for row in table.rows
        )
        _print_lines(Lines("\n\n".join([*records, *([table.caption] if table.caption else [])])))
        return
    console.print(shown, crop=False)


console = Console()
"""The console of this process."""
