"""A reader of IDX files that checks before it allocates and says in one line what is wrong."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import MAX_BYTES, MAX_PACKED_BYTES, MAX_RATIO
from codesign.basics.errors import InputError


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Unsigned bytes of an IDX file (plain or gzip) with ``dimensions`` axes, as MNIST's files are.

    Format: bytes 0, 0, type (0x08 = unsigned byte), number of axes; one big-endian uint32 per axis; the data.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08":
                raise InputError(f"{path}: not an IDX file of unsigned bytes (starts with {head.hex() or 'nothing'})")
            if head[3] != dimensions:
                raise InputError(f"{path}: {head[3]} axes, expected {dimensions}")
            sizes = file.read(4 * dimensions)
            if len(sizes) < 4 * dimensions:
                raise InputError(f"{path}: truncated in its header")
            shape = struct.unpack(f">{dimensions}I", sizes)
            expected = int(np.prod(shape, dtype=object))
            if expected > MAX_BYTES:
                raise InputError(f"{path}: shape {shape} is larger than {MAX_BYTES} bytes")
            # Reading asks for the memory first: what the file cannot hold is refused before.
            size = path.stat().st_size
            if not zipped:
                _check_length(path, shape, expected, size - file.tell())
            elif expected > max(MAX_PACKED_BYTES, MAX_RATIO * size):
                raise InputError(f"{path}: unpacks {size} bytes into {expected}; unpack it with gunzip")
            data = file.read(expected + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}: truncated or damaged ({error})") from None
    _check_length(path, shape, expected, len(data))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _check_length(path: Path, shape: tuple[int, ...], expected: int, found: int) -> None:
    if found != expected:
        have = "more" if found > expected else f"only {found}"
        raise InputError(f"{path}: shape {shape} needs {expected} bytes, the file has {have}")
