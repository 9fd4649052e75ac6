"""HDF5 files of strangers, as plain dictionaries: every size is checked before anything is read.

The files are small trees of arrays and texts. Links to other files, data kept elsewhere, virtual data sets and custom
types are refused; so is what unpacks into more than a file of that kind holds.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics import children
from codesign.basics.arrays import read_npz
from codesign.basics.errors import InputError
from codesign.basics.files import input_size

MAX_FILE_BYTES = 1 << 31
# All arrays of a file together, unpacked, and all numbers of a network as float64: 128 million weights.
MAX_BYTES = 1 << 30
MAX_OBJECTS = 1 << 14
MAX_DEPTH = 12
MAX_TEXTS = 1 << 14
MAX_NAME = 200
# Of the process that reads.
MAX_MEMORY = 1 << 32
CPU_SECONDS, BYTES_A_SECOND, WALL_FACTOR = 2, 1 << 25, 20
# Beyond them the process is ended: time to say that they are over, and to write what was read.
SPARE_SECONDS = 2
# What a chunk unpacks into, whatever the array's own size: the library allocates whole chunks.
MAX_CHUNK_BYTES = 1 << 28
# Packed data of many zeros may be small; what was never written is no data at all.
MAX_RATIO = 2000

Tree = dict[str, Any]


def read_tree(path: Path, absent: str = "no such file") -> Tree:
    """The groups of an HDF5 file as dictionaries; arrays as numpy's, texts as str or as lists of lists of str.

    A process of its own reads it, of little time and memory: the library may loop or crash in a damaged file. Raises
    InputError in one line for a file that is missing, no HDF5, damaged, or beyond the limits.
    """
    size = input_size(path, absent, MAX_FILE_BYTES)
    with tempfile.TemporaryDirectory(prefix="codesign-hdf5-") as folder:
        result = Path(folder) / "tree.npz"
        command = [sys.executable, "-m", "codesign.interchange.hdf5", str(path.absolute()), str(result), str(path)]
        seconds = CPU_SECONDS + size // BYTES_A_SECOND
        try:
            code, said = children.run([*command, str(seconds)], WALL_FACTOR * seconds)
        except subprocess.TimeoutExpired:
            code, said = -1, ""
        if code == InputError.exit_code:
            raise InputError(said.strip().splitlines()[-1])
        if code == 1:
            raise RuntimeError(f"the process that reads HDF5 failed: {said[-500:]}")
        if code or not result.is_file():
            raise InputError(f"{path}: damaged: the HDF5 library comes to no end in it")
        return _unpacked(read_npz(result))


def read_tree_here(path: Path, seconds: float = float("inf")) -> Tree:
    """The same, read in this process, which a damaged file may end or stop.

    seconds : of this process' processor time, from its start; an InputError tells of a file that takes more.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return _Walk(path, path.stat().st_size, seconds).group(file, "", 0)
    except InputError:
        raise
    # The library raises whatever its layers say of damaged data; of memory there is little.
    except Exception as error:
        raise InputError(f"{path}: truncated or not an HDF5 file ({type(error).__name__}: {error})") from None


def check_floats(path: Path, entry: Any) -> None:
    """Raise InputError if the arrays of a tree, or of an entry of one, take more than MAX_BYTES as float64.

    A network's numbers become that, whatever they are stored as: eight times as much for those of a byte.
    """
    count = _count(entry)
    if count * 8 > MAX_BYTES:
        raise InputError(f"{path}: its {count} numbers take {count * 8} bytes as floats, the limit is {MAX_BYTES}")


def _count(entry: Any) -> int:
    if isinstance(entry, dict):
        return sum(_count(value) for value in entry.values())
    return entry.size if isinstance(entry, np.ndarray) else 0


def _packed(tree: Tree) -> dict[str, np.ndarray]:
    """A tree as the arrays of an npz: its own, by number, and the rest as JSON."""
    arrays: dict[str, np.ndarray] = {}

    def plain(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {"group": [[name, plain(value)] for name, value in entry.items()]}
        if isinstance(entry, np.ndarray):
            arrays[str(len(arrays))] = entry
            return {"array": str(len(arrays) - 1)}
        return {"text": entry}

    document = json.dumps(plain(tree))
    return {**arrays, "tree": np.frombuffer(document.encode(), np.uint8)}


def _unpacked(arrays: dict[str, np.ndarray]) -> Tree:
    def whole(entry: dict[str, Any]) -> Any:
        if "group" in entry:
            return {name: whole(value) for name, value in entry["group"]}
        return arrays[entry["array"]] if "array" in entry else entry["text"]

    return whole(json.loads(arrays["tree"].tobytes()))


def main(arguments: Sequence[str]) -> int:
    """The process that reads: ``path`` into ``result``; errors name the file as it was ``shown``."""
    path, result, shown, seconds = arguments
    for what, limit in (
        (resource.RLIMIT_CPU, int(seconds) + SPARE_SECONDS),
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))
    try:
        found = _packed(read_tree_here(Path(path), int(seconds)))
    except InputError as error:
        print(str(error).replace(path, shown, 1))  # noqa: T201
        return InputError.exit_code
    np.savez(result, **found)  # type: ignore[arg-type]
    return 0


class _Walk:
    def __init__(self, path: Path, file_bytes: int, seconds: float) -> None:
        self._path, self._file_bytes, self._seconds = path, file_bytes, seconds
        self._objects = self._bytes = self._texts = 0

    def group(self, group: Any, where: str, depth: int) -> Tree:
        import h5py

        if depth > MAX_DEPTH:
            raise InputError(f"{self._path}: {where}: groups are nested deeper than {MAX_DEPTH}")
        found: Tree = {}
        for name in group:
            self._objects += 1
            if self._objects > MAX_OBJECTS:
                raise InputError(f"{self._path}: more than {MAX_OBJECTS} groups and data sets")
            # What the library itself does not come back from, the limit of the process ends.
            if time.process_time() > self._seconds:
                raise InputError(
                    f"{self._path}: takes more than {self._seconds} s of processor time to read: it holds too many "
                    f"groups and data sets ({self._objects} up to there), or too much packed data"
                )
            place = f"{where}/{name}" if where else str(name)
            if len(name) > MAX_NAME:
                raise InputError(f"{self._path}: a name of {len(name)} letters, the limit is {MAX_NAME}")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InputError(f"{self._path}: {place}: is a link, expected data in the file itself")
            item = group[name]
            if isinstance(item, h5py.Group):
                found[name] = self.group(item, place, depth + 1)
            elif isinstance(item, h5py.Dataset):
                found[name] = self._dataset(item, place)
            else:
                raise InputError(f"{self._path}: {place}: neither a group nor a data set")
        return found

    def _dataset(self, item: Any, where: str) -> Any:
        if item.is_virtual or item.external:
            raise InputError(f"{self._path}: {where}: its data are in another file")
        if item.shape is None:
            raise InputError(f"{self._path}: {where}: an empty data set")
        if item.dtype.kind == "O" or item.dtype.kind == "S":
            return self._text(item, where)
        if item.dtype.kind not in "fiub" or item.dtype.itemsize > 8:
            raise InputError(f"{self._path}: {where}: is {item.dtype}, expected numbers or text")
        self._check_bytes(item, where)
        array = np.asarray(item[()])
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _check_bytes(self, item: Any, where: str) -> None:
        n_bytes = item.dtype.itemsize
        for length in item.shape:
            n_bytes *= int(length)
        self._bytes += n_bytes
        if self._bytes > MAX_BYTES:
            raise InputError(
                f"{self._path}: {where}: of shape {_short(item.shape)} takes the file beyond {MAX_BYTES} bytes"
            )
        if n_bytes > MAX_RATIO * self._file_bytes:
            raise InputError(
                f"{self._path}: {where}: of shape {_short(item.shape)} needs {n_bytes} bytes, the file has "
                f"{self._file_bytes}: truncated or made to fill memory"
            )
        chunk = item.dtype.itemsize
        for length in item.chunks or ():
            chunk *= int(length)
        if chunk > MAX_CHUNK_BYTES:
            raise InputError(f"{self._path}: {where}: chunks of {chunk} bytes, the limit is {MAX_CHUNK_BYTES}")

    def _text(self, item: Any, where: str) -> Any:
        import h5py

        if item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) is None:
            raise InputError(f"{self._path}: {where}: is {item.dtype}, expected numbers or text")
        count = 1
        for length in item.shape:
            count *= int(length)
        self._texts += count
        if self._texts > MAX_TEXTS or len(item.shape) > 2 or item.dtype.itemsize > MAX_NAME * 8:
            raise InputError(f"{self._path}: {where}: texts of shape {_short(item.shape)}, more than a network has")
        self._check_bytes(item, where)
        if item.shape == ():
            return self._decoded(item[()], where)
        # One row at a time: each text may be as long as the file.
        rows = [item[index] for index in range(item.shape[0])]
        if len(item.shape) == 1:
            return [self._decoded(row, where) for row in rows]
        return [[self._decoded(text, where) for text in row] for row in rows]

    def _decoded(self, text: Any, where: str) -> str:
        if not isinstance(text, bytes | str):
            raise InputError(f"{self._path}: {where}: holds {type(text).__name__}, expected text")
        if len(text) > MAX_NAME:
            raise InputError(f"{self._path}: {where}: a text of {len(text)} bytes, the limit is {MAX_NAME}")
        try:
            return text.decode("utf-8") if isinstance(text, bytes) else text
        except UnicodeDecodeError:
            raise InputError(f"{self._path}: {where}: a text that is no UTF-8") from None


def _short(shape: Any) -> str:
    text = str(tuple(shape))
    return text if len(text) < 60 else f"{text[:60]}..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
