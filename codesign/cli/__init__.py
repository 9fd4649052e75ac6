"""The command line: a thin skin over the Python API. Heavy packages are imported inside the commands."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

INTERRUPTED = 130


class Interruption:
    """Remembers Ctrl-C, so that code that swallows KeyboardInterrupt does not hide it."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Every error becomes one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    interruption = Interruption()
    earlier = signal.getsignal(signal.SIGINT)
    try:
        if earlier is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, interruption)
        code = _run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException as error:
        if not interruption.came:
            from codesign.cli.failure import explain

            code = explain(error, arguments)
        else:
            code = INTERRUPTED
    finally:
        if earlier is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, earlier)
    if code == INTERRUPTED:
        from codesign.cli.failure import say_interrupted

        say_interrupted(arguments)
    return _flush(code)


def _run(arguments: list[str]) -> int:
    from codesign.cli.app import app

    result = app(args=arguments, prog_name="codesign", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _flush(code: int) -> int:
    """Flush now, so that a closed pipe (``codesign ... | head``) is no traceback at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
