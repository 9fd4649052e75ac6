"""Where output cannot go, the work is done all the same and the exit code is that of what was found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A command that says something on both streams, does its work and finds a difference, or none.
PROGRAM = """
import sys, warnings
from pathlib import Path
from codesign.cli import main, surroundings
from codesign.cli.console import console
from codesign.basics.errors import CodesignWarning, MismatchError

def boards():
    console.step("looking")
    warnings.warn("something was assumed", CodesignWarning)
    console.step_done("looked")
    console.finish({"mismatches": 3}, "3 mismatches\\n" * 20_000)
    Path(sys.argv[1]).write_text("done")
    if sys.argv[2] == "4":
        raise MismatchError("3 values differ")

surroundings.boards = boards
sys.exit(main(["boards", *sys.argv[3:]]))
"""


def shell(redirection: str, folder: Path, *words: str) -> tuple[int, bytes]:
    """Exit code of the program in a shell, and what came through on the streams that are open."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    line = f'"$@" {redirection}; exit "${{PIPESTATUS[0]}}"'
    command = ["bash", "-c", line, "bash", sys.executable, str(program), str(folder / "work"), *words]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False)
    return found.returncode, found.stdout


LOST = b"codesign: warning: the result could not be shown: standard output: No space left on device"
DIFFERS = b"codesign: 3 values differ"


@pytest.mark.parametrize(
    ("redirection", "words", "told"),
    [
        (">&-", ("4",), [DIFFERS]),
        ("<&- >&- 2>&-", ("0", "--json"), []),
        (">/dev/full", ("4",), [DIFFERS, LOST]),
        (">/dev/full", ("0", "--json"), [LOST]),
        ("2>/dev/full", ("4", "--json"), [b'"mismatches": 3']),
        ("| true", ("4", "--json"), [DIFFERS]),
        ("2>&1 | head -1", ("4",), [b"looking"]),
    ],
)
def test_the_work_is_done_and_the_exit_code_kept(
    redirection: str, words: tuple[str, ...], told: list[bytes], tmp_path: Path
) -> None:
    code, text = shell(redirection, tmp_path, *words)
    assert code == int(words[0]), text
    assert (tmp_path / "work").read_text() == "done"
    assert b"Traceback" not in text and b"Exception ignored" not in text
    assert all(line in text for line in told), text


def test_what_is_written_while_stdout_is_closed_does_not_reach_a_file(tmp_path: Path) -> None:
    """A file that is opened gets no number of a standard stream, else the result would be written into it."""
    program = (
        "import os\nfrom codesign.cli.streams import lasting_streams\n"
        "with lasting_streams():\n    print(os.open('x', os.O_CREAT | os.O_RDWR) > 2)"
    )
    subprocess.run(["bash", "-c", f'{sys.executable} -c "{program}" <&- >&- 2>&-'], cwd=tmp_path, check=True)
    assert (tmp_path / "x").read_bytes() == b""


def test_json_knows_no_number_that_is_not_finite(capfd: pytest.CaptureFixture[str]) -> None:
    from codesign.cli.console import console

    console.start(json=True)
    console.finish({"loss": float("nan"), "more": [float("inf"), 1.0]})
    console.conclude()
    assert json.loads(capfd.readouterr().out) == {"loss": None, "more": [None, 1.0]}
