"""What the command line shows, and what it imports for it: help and tables whole, lines of progress where nobody
watches."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from progress_lines import is_progress

import codesign.cli
from codesign.basics.errors import CodesignWarning
from codesign.cli import console as shown
from codesign.cli.app import app
from codesign.cli.console import PAUSE, Console, Lines, Pace, Table

COMPUTING = {"torch", "numpy", "scipy", "sklearn", "h5py", "matplotlib", "amaranth", "cocotb", "safetensors", "jinja2"}
MARKUP = {"rich", "markdown_it", "pygments"}
PATH = "/somewhere/far/below/with-a-name-that-is-longer-than-the-terminal/is-wide/stimulus.npz"


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        # Typer brings pydantic in as soon as a command's own options are looked at.
        ("--help", COMPUTING | MARKUP | {"pydantic", "codesign.config"}),
        ("--version", COMPUTING | MARKUP | {"codesign.config"}),
        ("", COMPUTING | MARKUP | {"pydantic", "codesign.config"}),
        ("data --help", COMPUTING | MARKUP | {"codesign.config"}),
        ("doctor --help", COMPUTING | MARKUP | {"codesign.config"}),
        ("runn x", COMPUTING | MARKUP | {"codesign.config"}),
        ("run none.toml", COMPUTING | MARKUP | {"codesign.config"}),
        ("explore none", COMPUTING | MARKUP | {"codesign.config"}),
        ("boards", COMPUTING | {"codesign.config"}),
        ("data list", COMPUTING | {"codesign.config"}),
    ],
)
def test_what_answers_at_once_imports_nothing_that_computes(words: str, unwanted: set[str], tmp_path: Path) -> None:
    program = (
        f"import sys\nfrom codesign.cli import main\nmain({words.split()!r})\nprint(*sys.modules, file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    imported = set(found.stderr.splitlines()[-1].split())
    assert "codesign.cli.app" in imported
    assert not unwanted & imported


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group below ``group`` with its words."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


EVERY = dict(commands(typer.main.get_command(app)))


def texts(path: tuple[str, ...]) -> list[str]:
    """What the sources say in the help of a command: its text, its example, its parameters' texts."""
    command = EVERY[path]
    return [
        text for text in (command.help, command.epilog, *(p.help for p in command.params if p.name != "help")) if text
    ]


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
@pytest.mark.parametrize("columns", [40, 200])
def test_help_says_literally_what_the_sources_say(
    path: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert codesign.cli.main([*path, "--help"]) == 0
    # However it is wrapped.
    out = re.sub(r"\s", "", capsys.readouterr().out)
    for text in texts(path):
        assert re.sub(r"\s", "", text.replace("\b", "")) in out


def test_there_are_names_in_brackets_to_lose() -> None:
    names = {name for path in EVERY for text in texts(path) for name in re.findall(r"\[[a-z]+\]", text)}
    assert names >= {"[budget]", "[axes]"}


def test_a_list_of_commands_cuts_no_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    codesign.cli.main(["--help"])
    out = " ".join(capsys.readouterr().out.split("Commands:")[1].split())
    assert "..." not in out
    assert "compare its use with the run's [budget]." in out


@pytest.mark.parametrize("words", [[], ["data"]])
def test_a_group_alone_answers_with_its_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert codesign.cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"Usage: {' '.join(['codesign', *words])} ")
    assert "codesign:" not in err


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(result: Any, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console()
    console.start()
    console.note(f"note {PATH} [budget]")
    console._show_warning(CodesignWarning(f"{PATH}: no [budget]"))
    console.finish({}, result)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_paths_and_brackets_are_whole_in_a_narrow_terminal(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("set", "[what]", "found", caption=f"[caption] of {PATH}")
    table.add_row("one [budget]", "some words that may well be wrapped in a narrow place", PATH)
    table.add_row("[red]two[/red]", "", f"see [axes] in {PATH}")
    out = printed(table, monkeypatch, stream())
    assert out.count(PATH) == 5 and "…" not in out
    for name in ("[budget]", "[axes]", "[what]", "[caption]", "[red]two[/red]"):
        assert name in out
    assert ("set: one [budget]\n[what]: some" in out) == (stream is Terminal)


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_lines_are_printed_as_they_are(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = printed(Lines(f"report  {PATH} [x]", [f"{PATH}: [y]"]), monkeypatch, stream())
    assert f"report  {PATH} [x]\nwarning      {PATH}: [y]\n" in out


def test_a_table_in_a_file_is_as_wide_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("what")
    table.add_row("word " * 60)
    assert "word " * 59 in printed(table, monkeypatch, io.StringIO())


def test_nobody_prints_by_a_way_that_reads_markup() -> None:
    """All that is shown goes through the console, which is literal."""
    for module in pkgutil.iter_modules(codesign.cli.__path__, "codesign.cli."):
        source = Path(importlib.import_module(module.name).__file__ or "").read_text()
        if module.name != "codesign.cli.console":
            assert not re.search(r"\brich\b.*import|import rich", source), module.name


def lines(reports: list[tuple[float, float, float, str]], begun: float = 0.0) -> list[str | None]:
    pace = Pace(begun)
    found = [pace.line(*report) for report in reports]
    # Tests of commands leave these lines out.
    assert all(is_progress(line) for line in found if line)
    return found


def test_a_line_every_few_seconds_with_share_and_time_left() -> None:
    assert lines(
        [(1, 1, 100, "a"), (PAUSE, 10, 100, "b"), (PAUSE + 1, 20, 100, "c"), (2 * PAUSE + 1, 40, 100, "d")]
    ) == [
        None,
        # 9 of 100 in the 4 seconds since the first report.
        "  b, 10 %, 40 s left",
        None,
        "  d, 40 %, 15 s left",
    ]


def test_time_left_is_that_of_this_command_alone() -> None:
    """Training that goes on from epoch 90 of 100 has not done 90 epochs in a moment."""
    assert lines([(0, 90, 100, ""), (60, 91, 100, "epoch 91")])[1] == "  epoch 91, 91 %, 9 min left"


def test_another_unit_is_timed_anew_and_an_unknown_end_has_no_share() -> None:
    found = lines([(0, 0, 1000, "reading"), (9, 1000, 1000, "reading"), (20, 1, 10, "epoch 1"), (30, 2, 10, "epoch 2")])
    assert found[2:] == ["  epoch 1, 10 %", "  epoch 2, 20 %, 80 s left"]
    assert lines([(9, 0, 0, "building the simulator")]) == ["  building the simulator"]
    assert lines([(9, 0, 0, "")]) == [None]


def test_lines_that_are_no_progress() -> None:
    for line in ("codesign: warning: 5 % of it", "[1/3] train  5.0 s", "  File 'a.py', line 3", "  not whole", ""):
        assert not is_progress(line)


def test_progress_is_lines_in_a_file_and_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(stream: io.StringIO) -> str:
        now = iter(range(0, 1000, 3))
        monkeypatch.setattr(shown.time, "monotonic", lambda: float(next(now)))
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console()
        console.step("[1/3] train")
        for epoch in range(1, 5):
            console.progress(epoch, 4, f"epoch {epoch} of 4 [x]")
        monkeypatch.undo()
        console.stop()
        return stream.getvalue()

    assert (
        told(io.StringIO()) == "[1/3] train\n  epoch 2 of 4 [x], 50 %, 6 s left\n  epoch 4 of 4 [x], 100 %, 0 s left\n"
    )
    monkeypatch.setenv("TERM", "xterm")
    assert "50 %" not in told(Terminal())


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", Terminal())
    console = Console()
    console.step("train")
    assert console._bar is None
