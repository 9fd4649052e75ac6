"""Spiking Heidelberg Digits and Spiking Speech Commands: HDF5 files of spike times and units, 700 channels.

Form of a file: ``spikes/times`` and ``spikes/units``, one variable-length row per sample (times in seconds), and
``labels``, one integer per sample. B. Cramer et al., "The Heidelberg Spiking Data Sets for the Systematic Evaluation
of Spiking Neural Networks", IEEE TNNLS 2022.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import checked_labels
from codesign.basics.errors import InputError
from codesign.basics.files import file_hash
from codesign.basics.progress import Progress
from codesign.config import DataConfig
from codesign.contract.stimulus import MAX_EVENTS
from codesign.data.catalogue import locate
from codesign.data.samples import Dataset, Events
from codesign.data.splitting import assemble, refuse_test_fraction, split_parts

N_UNITS = 700
N_CLASSES = {"shd": 20, "ssc": 35}
# Part, role in the split: the digits come without validation samples.
FILES = {"shd": (("train", 0), ("test", 2)), "ssc": (("train", 0), ("valid", 1), ("test", 2))}
MAX_SAMPLES = 1 << 20
ROWS = 256
# Of a row of variable length where the data set is stored.
ROW_BYTES = 16

Array = npt.NDArray[Any]


def load_heidelberg(config: DataConfig, progress: Progress) -> Dataset:
    """The set ``config.set`` ('shd' or 'ssc') from its files in one folder; times as they are, in seconds.

    ``progress(done, total, text)`` counts samples of each file. Raises InputError in one line for a file that is
    missing, no HDF5 file, or not of the published form.
    """
    folder = locate(config.set, config.path)
    refuse_test_fraction(config)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; set {config.set!r} is a folder of .h5 files")
    pieces: list[tuple[Events, npt.NDArray[np.int32]]] = []
    roles, hashes, names = [], [], []
    classes: list[str] = []
    for part, role in FILES[config.set]:
        path = folder / f"{config.set}_{part}.h5"
        if not path.is_file():
            zipped = path.with_name(f"{path.name}.gz")
            hint = f"; unpack {zipped.name} with gunzip" if zipped.is_file() else ""
            raise InputError(f"{folder}: no {path.name} in it{hint}")
        events, labels, classes = _read(path, N_CLASSES[config.set], progress)
        pieces.append((events, labels))
        roles.append(np.full(pieces[-1][1].size, role, np.int64))
        hashes.append(file_hash(path))
        names.append(path.name)
    if len({piece[0].times.dtype.kind for piece in pieces}) > 1:
        raise InputError(f"{folder}: times of one file are whole numbers, of another not; use the published files")
    labels = np.concatenate([piece[1] for piece in pieces])
    starts = np.cumsum([0, *(piece[0].times.size for piece in pieces)])
    events = Events(
        np.concatenate([piece[0].times for piece in pieces]),
        np.concatenate([piece[0].units for piece in pieces]),
        np.concatenate([[0], *(piece[0].offsets[1:] + start for piece, start in zip(pieces, starts))]),
        "s",
    )
    return assemble(
        config,
        config.set,
        classes,
        labels,
        split_parts(config, labels, np.concatenate(roles), str(folder)),
        events=events,
        n_units=N_UNITS,
        source=", ".join(names),
        sha256=hashlib.sha256("".join(hashes).encode()).hexdigest(),
    )


def _read(path: Path, n_classes: int, progress: Progress) -> tuple[Events, npt.NDArray[np.int32], list[str]]:
    """Events, labels and the names of the classes of one file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = {name: file.get(name) for name in ("spikes/times", "spikes/units", "labels")}
            sets: dict[str, h5py.Dataset] = {}
            for name, item in found.items():
                if not isinstance(item, h5py.Dataset):
                    raise InputError(f"{path}: no data set {name!r} in it; docs/data.md gives the form")
                if len(item.shape) != 1:
                    raise InputError(f"{path}: {name} has shape {item.shape}, expected one row per sample")
                sets[name] = item
            times, units, labels = sets["spikes/times"], sets["spikes/units"], sets["labels"]
            count = labels.shape[0]
            if labels.dtype.kind not in "iu":
                raise InputError(f"{path}: labels is {labels.dtype}, expected integers")
            if not 0 < count <= MAX_SAMPLES:
                raise InputError(f"{path}: {count} samples, expected 1..{MAX_SAMPLES}")
            for name, rows, kinds in (("spikes/times", times, "fiu"), ("spikes/units", units, "iu")):
                base = h5py.check_vlen_dtype(rows.dtype)
                if base is None or np.dtype(base).kind not in kinds:
                    raise InputError(f"{path}: {name} is {rows.dtype}, expected variable-length rows of numbers")
                if rows.shape[0] != count:
                    raise InputError(f"{path}: {rows.shape[0]} rows in {name} but {count} labels")
                _check_lengths(path, rows, np.dtype(base).itemsize)
            events = _events(path, times, units, progress)
            checked = checked_labels(np.asarray(labels[:]), n_classes, str(path))
            return events, checked, _names(file.get("extra/keys"), n_classes)
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path}: truncated or not an HDF5 file ({error})") from None


def _check_lengths(path: Path, rows: Any, itemsize: int) -> None:
    """Raise InputError if a row states more values of ``itemsize`` bytes than the file has room for.

    The library asks for the memory of a whole row before it looks whether the values are there. What it keeps of a row
    in the data set are 16 bytes, the first four its length; the values lie elsewhere in the file, never packed.
    """
    room = path.stat().st_size
    for stored in _stored_rows(path, rows, room):
        lengths = np.frombuffer(stored[: len(stored) // ROW_BYTES * ROW_BYTES], "<u4")[:: ROW_BYTES // 4]
        if int(lengths.max(initial=0)) * itemsize > room:
            raise InputError(
                f"{path}: {rows.name[1:]} states a row of {lengths.max()} values, more than the file holds; damaged"
            )


def _stored_rows(path: Path, rows: Any, room: int) -> Iterator[bytes]:
    """What a data set keeps of its rows, a part after the other; parts beyond the end of the file are left out.

    InputError for chunks larger than a set may be, and for packing that is not undone here.
    """
    chunk_rows = rows.chunks[0] if rows.chunks else 0
    if not chunk_rows:
        spans = [(None, rows.id.get_offset(), rows.id.get_storage_size(), 0)]
    else:
        if chunk_rows > MAX_SAMPLES:
            raise InputError(f"{path}: {rows.name[1:]} has chunks of {chunk_rows} rows, expected 1..{MAX_SAMPLES}")
        chunks = (rows.id.get_chunk_info(index) for index in range(rows.id.get_num_chunks()))
        spans = [(chunk.chunk_offset, chunk.byte_offset, chunk.size, chunk.filter_mask) for chunk in chunks]
    packing = rows.id.get_create_plist()
    filters = [packing.get_filter(index)[0] for index in range(packing.get_nfilters())]
    with path.open("rb") as file:
        for chunk, start, size, left_out in spans:
            if start is None or start + size > room:
                continue
            if filters:
                stored = rows.id.read_direct_chunk(chunk)[1]
            else:
                file.seek(start)
                stored = file.read(size)
            # The last one was applied last. A chunk may go without some of them, as rows do without shuffling.
            for index in reversed(range(len(filters))):
                if not left_out >> index & 1:
                    stored = _unpacked(path, rows.name[1:], filters[index], stored, chunk_rows * ROW_BYTES)
            yield stored


def _unpacked(path: Path, name: str, kind: int, packed: bytes, size: int) -> bytes:
    """A chunk of ``size`` bytes before HDF5's filter ``kind``. InputError for one that is not undone here."""
    import h5py

    if kind == h5py.h5z.FILTER_DEFLATE:
        try:
            return zlib.decompressobj().decompress(packed, size)
        except zlib.error as error:
            raise InputError(f"{path}: the rows of {name} are packed, and do not unpack ({error}); damaged") from None
    raise InputError(f"{path}: the rows of {name} are packed by HDF5 filter {kind}; use `h5repack -f NONE` on it first")


def _names(keys: Any, n_classes: int) -> list[str]:
    """Names of the classes, which the published files give; numbers where a file does not."""
    if getattr(keys, "shape", None) != (n_classes,) or keys.dtype.kind not in "SO":
        return [str(index) for index in range(n_classes)]
    return [key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key) for key in keys[:]]


def _events(path: Path, times: Any, units: Any, progress: Progress) -> Events:
    """Rows in blocks, so that no more than one block is held as Python objects. ``times`` in seconds."""
    count = times.shape[0]
    parts: list[tuple[Array, npt.NDArray[np.int32]]] = []
    lengths: list[int] = []
    total = row = 0
    for start in range(0, count, ROWS):
        progress(start, count, f"reading {path.name}")
        moments, channels = times[start : start + ROWS], units[start : start + ROWS]
        for row, (moment, channel) in enumerate(zip(moments, channels, strict=True), start):
            if len(moment) != len(channel):
                raise InputError(f"{path}: sample {row} has {len(moment)} times but {len(channel)} units")
            lengths.append(len(moment))
        moment = np.concatenate(moments)
        channel = np.concatenate(channels)
        if not np.isfinite(moment).all() or moment.min(initial=0) < 0:
            raise InputError(f"{path}: a time of samples {start}..{row} is negative, infinite or NaN")
        if channel.size and (int(channel.min()) < 0 or int(channel.max()) >= N_UNITS):
            wrong = int(channel.min()) if int(channel.min()) < 0 else int(channel.max())
            raise InputError(f"{path}: unit {wrong} is outside 0..{N_UNITS - 1}")
        parts.append((moment, channel.astype(np.int32)))
        total += moment.size
        if total > MAX_EVENTS:
            raise InputError(f"{path}: more than {MAX_EVENTS} events")
    progress(count, count, f"reading {path.name}")
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Events(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), offsets, "s")
