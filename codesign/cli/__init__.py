"""The command line: a thin skin over the Python API. Heavy packages are imported inside the commands."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Ends the programs that run, and remembers that it came: code that swallows KeyboardInterrupt does not hide it."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        from codesign.basics import children

        again, self.came = self.came, True
        children.end_all()
        # Whoever asks politely twice gets no second interruption in the middle of tidying up; Ctrl-C is a person.
        if (not again or number == signal.SIGINT) and not children.is_starting():
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals that end a process, but those that the caller has it ignore (nohup)."""
        from codesign.basics import children

        children.allow()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.getsignal(number) for number in SIGNALS}
        taken = [number for number, handler in earlier.items() if handler is not signal.SIG_IGN]
        try:
            for number in taken:
                signal.signal(number, self)
            yield
        finally:
            for number in taken:
                signal.signal(number, earlier[number])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Every error becomes one line on stderr.

    SIGINT, SIGTERM and SIGHUP end it alike. What stdout and stderr lead to has no say in what is done or returned.
    """
    from codesign.cli.console import console
    from codesign.cli.streams import lasting_streams

    # Of an earlier command of this process; wrong usage ends before a command begins.
    console.forget()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_streams():
        return _main(arguments)


def _main(arguments: list[str]) -> int:
    interruption = Interruption()
    try:
        with interruption.listening():
            code = _run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException as error:
        if not interruption.came:
            from codesign.cli.failure import explain

            code = explain(error, arguments)
        else:
            code = INTERRUPTED
    if code == INTERRUPTED:
        from codesign.cli.failure import say_interrupted

        say_interrupted(arguments)
    console = sys.modules.get("codesign.cli.console")
    if console is not None:
        console.console.close()
    return code


def _run(arguments: list[str]) -> int:
    from codesign.cli.app import app

    result = app(args=arguments, prog_name="codesign", standalone_mode=False)
    console = sys.modules.get("codesign.cli.console")
    if console is not None:
        console.console.conclude()
    return result if isinstance(result, int) else 0
