"""Readers of npz and IDX files that check before they allocate and say in one line what is wrong."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError

MAX_BYTES = 1 << 33


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an npz file, all of them or only those of ``names`` that exist. Object arrays are refused.

    Raises InputError if the file is missing, truncated, holds Python objects, or would take more than 8 GiB.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    wanted = None if names is None else set(names)
    arrays: dict[str, npt.NDArray[Any]] = {}
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name == info.filename or (wanted is not None and name not in wanted):
                    continue
                with archive.open(info) as member:
                    version = np.lib.format.read_magic(member)
                    reader = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }.get(version)
                    if reader is None:
                        raise InputError(f"{path}: array {name!r} has the unknown npy version {version}")
                    shape, _, dtype = reader(member)
                if dtype.hasobject:
                    raise InputError(f"{path}: array {name!r} holds Python objects; save it as numbers")
                total += int(np.prod(shape, dtype=object)) * dtype.itemsize
                if total > MAX_BYTES:
                    raise InputError(f"{path}: array {name!r} of shape {shape} takes the file beyond {MAX_BYTES} bytes")
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: truncated or not an npz file ({error})") from None
    return arrays


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
            data = file.read(expected + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}: truncated or damaged ({error})") from None
    if len(data) != expected:
        found = "more" if len(data) > expected else f"only {len(data)}"
        raise InputError(f"{path}: shape {shape} needs {expected} bytes, the file has {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)
