"""Standard output and error that no work depends on: closed, full or with nobody to read, they end nothing."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Lasting:
    """A text stream whose writes never fail.

    What cannot be written is dropped, with all that follows; ``lost`` is the reason. Characters that the encoding lacks
    are written as escapes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        # What is left in Python's buffer goes there when the interpreter ends, instead of failing once more.
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Put :class:`Lasting` streams in place of stdout and stderr while the block runs."""
    _occupy_descriptors()
    kept = sys.stdout, sys.stderr
    opened = [stream or os.fdopen(number, "w", closefd=False) for number, stream in enumerate(kept, 1)]
    out, err = (Lasting(stream) for stream in opened)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield
    finally:
        out.flush()
        if out.lost is not None and out.lost.errno != errno.EPIPE:
            err.write(f"codesign: warning: the result could not be shown: standard output: {out.lost.strerror}\n")
        err.flush()
        sys.stdout, sys.stderr = kept


def _occupy_descriptors() -> None:
    """Open what the caller closed: the next file would get its number, and what is meant for the terminal."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
