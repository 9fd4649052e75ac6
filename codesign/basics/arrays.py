"""Arrays that come from files of others: npz archives read without trust, and the checks that all readers share."""

from __future__ import annotations

import io
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError

MAX_BYTES = 1 << 33
MAX_DIRECTORY_BYTES = 1 << 20
# What is packed more than 200 to 1 and fills more than 1 GiB was made to fill memory.
MAX_RATIO = 200
MAX_PACKED_BYTES = 1 << 30
MAX_AXES = 32

Array = npt.NDArray[Any]


class _Bounded(io.FileIO):
    """A file that refuses one huge read: zipfile reads the whole directory of an archive in one piece."""

    limit: int | None = MAX_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limit is not None and size is not None and size > self.limit:
            raise ValueError(f"its directory takes {size} bytes, more than {self.limit}")
        return super().read(-1 if size is None else size)


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, Array]:
    """Arrays of an npz file in native byte order, all of them or only those of ``names`` that exist.

    Holds booleans, integers, real numbers and text; Python objects, records and other kinds are refused. Sizes are
    taken from the archive's directory and from each array's header, and have to agree, before anything is allocated.
    Raises InputError in one line if the file is missing, truncated, of another form, or would take more than 8 GiB.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    wanted = None if names is None else set(names)
    arrays: dict[str, Array] = {}
    total = 0
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            file.limit = None
            size = path.stat().st_size
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name == info.filename or (wanted is not None and name not in wanted):
                    continue
                if name in arrays:
                    raise InputError(f"{path}: array {name!r} is in it twice")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise InputError(f"{path}: array {name!r} is packed in another way than numpy's; use np.savez")
                with archive.open(info) as member:
                    n_bytes = _checked_size(member, info.file_size, name, path)
                total += n_bytes
                if total > MAX_BYTES:
                    raise InputError(f"{path}: array {name!r} takes the file beyond {MAX_BYTES} bytes")
                if total > max(MAX_PACKED_BYTES, MAX_RATIO * size):
                    raise InputError(
                        f"{path}: array {name!r} unpacks {size} bytes into more than {MAX_PACKED_BYTES}; "
                        "save it without compression (np.savez)"
                    )
                with archive.open(info) as member:
                    array = _parsed(np.lib.format.read_array, member)
                arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError, OverflowError) as error:
        raise InputError(f"{path}: truncated or not an npz file ({error})") from None
    return arrays


def _checked_size(member: IO[bytes], file_size: int, name: str, path: Path) -> int:
    """Bytes of the array whose npy header ``member`` begins with; ``file_size`` is what the directory says of both."""
    version = np.lib.format.read_magic(member)
    # Later versions are for headers of 64 KiB and more, which only records need.
    if version != (1, 0):
        raise InputError(f"{path}: array {name!r} has npy version {version[0]}.{version[1]}; np.savez writes 1.0")
    shape, _, dtype = _parsed(np.lib.format.read_array_header_1_0, member)
    if dtype.hasobject:
        raise InputError(f"{path}: array {name!r} holds Python objects; save it as numbers")
    if dtype.kind not in "biufUS" or not dtype.itemsize:
        raise InputError(f"{path}: array {name!r} is {dtype}, expected numbers or text")
    if len(shape) > MAX_AXES or any(length < 0 for length in shape):
        raise InputError(f"{path}: array {name!r} has the shape {_short(shape)}")
    n_bytes = dtype.itemsize
    for length in shape:
        n_bytes *= int(length)
    if n_bytes > MAX_BYTES:
        raise InputError(f"{path}: array {name!r} of shape {_short(shape)} takes the file beyond {MAX_BYTES} bytes")
    if n_bytes != file_size - member.tell():
        raise InputError(
            f"{path}: array {name!r} of shape {_short(shape)} needs {n_bytes} bytes, "
            f"the file has {file_size - member.tell()}: truncated or damaged"
        )
    return n_bytes


def _parsed(read: Any, member: IO[bytes]) -> Any:
    """``read(member)``; numpy evaluates a header as a Python literal, which fails in many ways."""
    try:
        with warnings.catch_warnings():
            # Headers that Python 2 wrote are read all the same.
            warnings.filterwarnings("ignore", category=UserWarning, module="numpy")
            return read(member)
    except (SyntaxError, tokenize.TokenError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"a header that numpy does not understand: {type(error).__name__}") from None


def _short(shape: tuple[int, ...]) -> str:
    text = str(shape)
    return text if len(text) < 60 else f"{text[:60]}..."


def real(array: Array, name: str, where: str | Path) -> Array:
    """The array itself. Raises InputError unless it holds finite real numbers."""
    if array.dtype.kind not in "iufb":
        raise InputError(f"{where}: {name} is {array.dtype}, expected real numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{where}: {name} holds NaN or infinite values")
    return array


def integers(array: Array, name: str, where: str | Path) -> Array:
    """The array itself. Raises InputError unless it is flat and of an integer dtype."""
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{where}: {name} is {array.dtype} {array.shape}, expected integers with one axis")
    return array


def checked_labels(
    y: Array, n_classes: int | None, where: str | Path, *, name: str = "y", lowest: int = 0
) -> npt.NDArray[np.int32]:
    """Labels as int32 (n,). ``n_classes`` is None where the number of classes is not known.

    Raises InputError unless they are integers (or booleans) with one axis, in ``lowest`` .. n_classes - 1.
    """
    y = integers(y.view(np.uint8) if y.dtype == np.bool_ else y, name, where)
    highest = np.iinfo(np.int32).max if n_classes is None else n_classes - 1
    for label in (int(y.min()), int(y.max())) if y.size else ():
        if not lowest <= label <= highest:
            raise InputError(f"{where}: label {label} is outside {lowest}..{highest}")
    return y.astype(np.int32, copy=False)


def checked_offsets(offsets: Array, n_rows: int, n_events: int, where: str | Path) -> npt.NDArray[np.int64]:
    """Offsets as int64 (n_rows + 1,). Raises InputError unless they are integers that rise from 0 to ``n_events``."""
    integers(offsets, "offsets", where)
    if offsets.size != n_rows + 1:
        raise InputError(f"{where}: {offsets.size} offsets, expected {n_rows + 1}")
    # Neighbours are compared, not subtracted: differences of huge offsets wrap.
    if int(offsets[0]) != 0 or int(offsets[-1]) != n_events or np.any(offsets[1:] < offsets[:-1]):
        raise InputError(f"{where}: offsets do not rise from 0 to the number of events ({n_events})")
    return offsets.astype(np.int64, copy=False)
