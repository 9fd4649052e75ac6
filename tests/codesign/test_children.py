"""Programs that codesign starts end with it, and with all that they have started themselves."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codesign.basics import children

# Starts a program of its own, says which, and waits.
PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    yield
    children.allow()


def ends(number: int) -> bool:
    """True once a process that is nobody's child any more has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        path = Path(f"/proc/{number}/stat")
        try:
            if path.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_output_and_exit_code_of_a_program_come_back() -> None:
    program = "import sys; print('a'); print('b', file=sys.stderr); sys.exit(3)"
    code, text = children.run([sys.executable, "-c", program], 60)
    assert code == 3
    assert sorted(text.split()) == ["a", "b"]


def test_a_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        children.run([sys.executable, "-c", "import time; time.sleep(600)"], 0.1)


@pytest.mark.parametrize("how", ["end", "end_all", "block"])
def test_a_program_ends_with_what_it_has_started(how: str) -> None:
    with children.child([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        if how == "end":
            children.end(process)
        elif how == "end_all":
            children.end_all()
            process.wait(20)
    assert ends(grandchild)
    assert process.returncode == -9


def test_no_thread_starts_a_program_once_all_are_to_end() -> None:
    children.end_all()
    found: list[BaseException] = []

    def work() -> None:
        try:
            children.run([sys.executable, "-c", ""], 60)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in found] == [KeyboardInterrupt]
    children.allow()
    assert children.run([sys.executable, "-c", ""], 60) == (0, "")
