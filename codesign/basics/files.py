"""Files: what is read is checked first, what is written is either whole or absent; hashes of what is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError, OutputError

MAX_TEXT_BYTES = 1 << 23
# Why nothing can be written, by the operating system's number, and what helps.
UNWRITABLE = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EFBIG: "the file is larger than the disk or `ulimit -f` allows; choose another folder with -o",
    errno.EIO: "the disk reports an error; check it, or choose another folder with -o",
    errno.EROFS: "not writable, the file system is read-only; choose another folder with -o",
    errno.EACCES: "not writable; choose another folder with -o",
    errno.EPERM: "not writable; choose another folder with -o",
}
# The same where a place for a file is made, of which no other work fails.
OCCUPIED = {
    errno.ENOTDIR: "a file is in the way of this folder",
    errno.EEXIST: "a file is in the way of this folder",
    errno.EISDIR: "is a folder; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose another one",
}


def input_size(path: Path, absent: str = "no such file", limit: int | None = None) -> int:
    """Bytes of a file that is about to be read.

    Raises InputError, with the file's name in front, unless it is a regular file that may be read, of at most ``limit``
    bytes: a folder, a pipe or a device would give no end of data, or none. ``absent`` is what is said where there is
    no file.
    """
    try:
        status = path.stat()
        readable = os.access(path, os.R_OK)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: {absent}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{shown(path)}: cannot be read ({reason})") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder, a file is expected")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is a pipe or device, a regular file is expected")
    if not readable:
        raise InputError(f"{path}: permission to read it is denied")
    if limit is not None and status.st_size > limit:
        raise InputError(f"{path}: {status.st_size} bytes, the limit is {limit}")
    return status.st_size


def shown(path: Path) -> str:
    """A name as it can be shown in one line, however long it is."""
    text = str(path)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-60:]}"


def read_text(path: Path, absent: str = "no such file", limit: int = MAX_TEXT_BYTES) -> str:
    """Text of a UTF-8 file. Raises InputError as :func:`input_size`, and for other bytes."""
    input_size(path, absent, limit)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as text (no UTF-8 at byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path: Path, absent: str = "no such file", limit: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """Object of a JSON file (:func:`parse_json`). Raises InputError as :func:`read_text`."""
    return parse_json(read_text(path, absent, limit), str(path))


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The JSON object that ``text`` is.

    Raises InputError, with ``where`` in front, for text that is something else, nested beyond reason, that names a key
    twice, or holds a number that is not finite.
    """
    try:
        document = json.loads(
            text, parse_constant=_no_number, parse_float=_finite_float, object_pairs_hook=_distinct_keys
        )
    except RecursionError:
        raise InputError(f"{where}: truncated or not JSON (nested too deep)") from None
    except ValueError as error:
        raise InputError(f"{where}: truncated or not JSON ({error})") from None
    if not isinstance(document, dict):
        raise InputError(f"{where}: not a JSON object")
    return document


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond every number")
    return value


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:40]!r} twice in one object")
        found[name] = value
    return found


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's write errors into one line that names ``path``."""
    try:
        yield
    except OSError as error:
        why = {**UNWRITABLE, **OCCUPIED}.get(error.errno or 0)
        if why is None:
            raise
        raise OutputError(f"{shown(path)}: {why}") from error


def _beside(path: Path) -> Path:
    """A hidden name next to ``path`` that nothing has."""
    return path.with_name(f".{path.name}.{secrets.token_urlsafe(6)}")


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; of a symbolic link the link alone. Absent is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Temporary sibling of ``path`` that replaces it when the block ends, or vanishes when it fails."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        # Made by the ordinary call, so that its mode is that of the user's other files.
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Temporary sibling folder that replaces ``path`` when the block ends, or vanishes when it fails.

    Of a symbolic link the link is replaced. At every moment one of the two folders is whole: the old one is renamed out
    of the way before it is removed, and named back if the new one cannot take its place.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, old = _beside(path), _beside(path)
        temporary.mkdir()
        try:
            yield temporary
            if os.path.lexists(path) and not (path.is_dir() or path.is_symlink()):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            with suppress(FileNotFoundError):
                path.replace(old)
            temporary.replace(path)
        finally:
            if os.path.lexists(old) and not os.path.lexists(path):
                old.replace(path)
            for left in (temporary, old):
                with suppress(OSError):
                    remove(left)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; what of a file's name is no text is written as escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, document: Any) -> None:
    write_text(path, json_text(document))


def json_text(document: Any, default: Callable[[Any], Any] | None = None) -> str:
    """JSON with a line break at its end; numbers that are not finite, of which JSON knows none, become null."""
    try:
        return json.dumps(document, indent=2, allow_nan=False, default=default) + "\n"
    except ValueError:
        finite = default and (lambda value: only_finite(default(value)))
        return json.dumps(only_finite(document), indent=2, allow_nan=False, default=finite) + "\n"


def only_finite(document: Any) -> Any:
    """The document with null for each number that is not finite."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, dict):
        return {key: only_finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [only_finite(value) for value in document]
    return document


# A file's sha256 by what the operating system says of it: device, number, size, times of change.
_hashes: dict[tuple[int, int, int, int, int], str] = {}
# Nanoseconds in which a second change might leave the same times.
_SETTLED = 100_000_000


def file_hash(path: Path) -> str:
    """sha256 (hex) of a file's bytes; not computed again while the process sees the file unchanged."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found = _hashes.get(key)
        if found is None:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED:
                _hashes[key] = found
        return found


def tree_hash(folder: Path) -> str:
    """sha256 (hex) over the relative names and contents of all files below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + file_hash(path).encode() + b"\n")
    return digest.hexdigest()
