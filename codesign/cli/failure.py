"""How a command ends when it fails: one line on stderr, one exit code, and with --json one object."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from codesign.basics.errors import CodesignError, InputError, OutputError
from codesign.basics.files import UNWRITABLE
from codesign.cli import INTERRUPTED
from codesign.cli.console import console

INTERNAL = 1
USAGE = InputError.exit_code
MAX_LINE = 1000


def explain(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what went wrong; returns the exit code.

    Errors of :mod:`codesign.basics.errors` and wrong usage are their own message. Anything else is a fault of
    codesign: its traceback goes into a log file, or to stderr with --debug.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else INTERNAL
    if "--debug" in arguments:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, CodesignError):
        return _fail(str(error), error.exit_code, arguments)
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        # The program may be called by another name, such as that of a module.
        named = ["codesign", *(context.command_path.split()[1:] if context is not None else [])]
        return _fail(f"{_one_line(usage())} (see `{' '.join(named)} --help`)", USAGE, arguments)
    if isinstance(error, OSError) and _is_unreadable(error):
        return _fail(f"{error.filename}: permission to read it is denied", InputError.exit_code, arguments)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(where + UNWRITABLE[error.errno], OutputError.exit_code, arguments)
    log = _write_log(error, arguments)
    what = _one_line(f"{type(error).__name__}: {error}")
    return _fail(f"a fault in codesign ({what}); the traceback is in {log}", INTERNAL, arguments)


def _is_unreadable(error: OSError) -> bool:
    """True if what the error names is there and may not be read: an input, and no result."""
    name = error.filename
    if error.errno != errno.EACCES or not isinstance(name, str):
        return False
    return Path(name).exists() and not os.access(name, os.R_OK)


def say_interrupted(arguments: Sequence[str]) -> None:
    _fail("interrupted; the same command goes on from here", INTERRUPTED, arguments)


def _fail(message: str, code: int, arguments: Sequence[str]) -> int:
    console.stop()
    print(f"codesign: {_one_line(message)}", file=sys.stderr)  # noqa: T201
    if "--json" in arguments:
        console.conclude(error=_one_line(message), exit_code=code)
    return code


def _one_line(text: str) -> str:
    """The text without line breaks, and without its middle if what it quotes is endless."""
    # Whatever came with the text is not to steer the terminal either.
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(text.split())
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 400]} ... {line[-400:]}"


def _write_log(error: BaseException, arguments: Sequence[str]) -> Path | str:
    import platformdirs

    text = f"codesign {' '.join(arguments)}\n\n{''.join(traceback.format_exception(error))}"
    folders = (console.folder, Path(platformdirs.user_log_dir("codesign")), Path(tempfile.gettempdir()))
    for folder in folders:
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "codesign-error.log"
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return path
    return "no log file (none could be written); run it again with --debug"
