"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels in 10 classes, official test set.

Read from a tar archive of JPEG files (``train/<class>/*.jpg``, ``test/<class>/*.jpg``) or from the published binary
version. Archives are decoded once into the user's cache, under the hash of their content.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import read_npz
from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import atomic_path, file_hash
from codesign.basics.progress import Progress
from codesign.config import DataConfig
from codesign.data.catalogue import cache_folder, locate
from codesign.data.samples import Dataset
from codesign.data.splitting import assemble, refuse_test_fraction, split_parts

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
CHANNELS = 3
# Images of each class in the two parts of the published set.
PER_CLASS = {"train": 5000, "test": 1000}
ROLES = {"train": 0, "test": 2}

JPEG_ARCHIVE = "cifar10-jpg.tar.xz"
BINARY_ARCHIVE = "cifar-10-binary.tar.gz"
BINARY_FOLDER = "cifar-10-batches-bin"
BINARY_FILES = (*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin")
PYTHON_FILES = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1")
MAX_JPEG_BYTES = 1 << 16
MAX_BINARY_BYTES = 1 << 26
REPORT_EVERY = 1000

Bytes = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]


def load_cifar10(config: DataConfig, progress: Progress) -> Dataset:
    """The set at ``config.path`` or where the catalogue finds it; samples uint8 (3, 32, 32).

    ``progress(done, total, text)`` counts images while an archive is decoded. Raises InputError in one line for
    what is truncated, incomplete, of another size or pickled.
    """
    where = _form(locate(config.set, config.path))
    refuse_test_fraction(config)
    if where.is_dir():
        paths = [where / name for name in BINARY_FILES]
        sha256 = hashlib.sha256("".join(file_hash(path) for path in paths).encode()).hexdigest()
        arrays = _joined({path.name: _binary_file(path.name, _bytes(path), where) for path in paths}, where)
    else:
        sha256 = file_hash(where)
        arrays = _cached(where, sha256, progress)
    roles = arrays["roles"].astype(np.int64)
    labels = arrays["labels"].astype(np.int32)
    return assemble(
        config,
        config.set,
        list(CLASSES),
        labels,
        split_parts(config, labels, roles, str(where)),
        x=arrays["images"],
        low=0,
        high=255,
        source=where.name,
        sha256=sha256,
    )


def _form(path: Path) -> Path:
    """The archive or the folder of .bin files that ``path`` is or holds."""
    if path.is_file():
        if path.name in PYTHON_FILES:
            raise _pickled(path)
        return path
    for folder in (path, path / BINARY_FOLDER):
        if (folder / BINARY_FILES[0]).is_file():
            missing = [name for name in BINARY_FILES if not (folder / name).is_file()]
            if missing:
                raise InputError(f"{folder}: no {', '.join(missing)} in it; the binary version has six .bin files")
            return folder
    for name in (BINARY_ARCHIVE, JPEG_ARCHIVE):
        if (path / name).is_file():
            return path / name
    for name in PYTHON_FILES:
        if (path / name).exists():
            raise _pickled(path / name)
    raise InputError(f"{path}: neither {BINARY_ARCHIVE}, {', '.join(BINARY_FILES)} nor {JPEG_ARCHIVE} in it")


def _pickled(path: Path) -> InputError:
    return InputError(
        f"{path}: the python version of CIFAR-10 is pickled, which is never read; "
        f"get {BINARY_ARCHIVE}, the binary version"
    )


def _cached(archive: Path, sha256: str, progress: Progress) -> Arrays:
    """Decoded images of an archive, from the cache if they are there whole."""
    cache = cache_folder() / "decoded" / f"cifar10-{sha256}.npz"
    if cache.is_file():
        with suppress(InputError):
            arrays = read_npz(cache, ("images", "labels", "roles"))
            if arrays.keys() == {"images", "labels", "roles"} and _complete(arrays):
                return arrays
    arrays = _decode(archive, progress)
    # Without a writable cache the next run decodes again; that is slower, not wrong.
    with suppress(OutputError), atomic_path(cache) as temporary, temporary.open("wb") as file:
        np.savez(file, images=arrays["images"], labels=arrays["labels"], roles=arrays["roles"])
    return arrays


def _complete(arrays: Arrays) -> bool:
    count = len(CLASSES) * sum(PER_CLASS.values())
    return (
        arrays["images"].dtype == np.uint8
        and arrays["images"].shape == (count, CHANNELS, SIDE, SIDE)
        and all(arrays[name].dtype == np.uint8 and arrays[name].shape == (count,) for name in ("labels", "roles"))
    )


def _decode(archive: Path, progress: Progress) -> Arrays:
    """Images of an archive of either kind, training images first."""
    pieces: dict[str, Arrays] = {}
    jpegs: dict[str, list[tuple[str, int, Bytes]]] = {part: [] for part in PER_CLASS}
    total = len(CLASSES) * sum(PER_CLASS.values())
    done = 0
    progress(0, total, f"decoding {archive.name}")
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                name = Path(member.name)
                if not member.isfile():
                    continue
                if name.name in BINARY_FILES:
                    content = _content(tar, member, MAX_BINARY_BYTES, archive)
                    pieces[name.name] = _binary_file(name.name, content, archive)
                    done += len(pieces[name.name]["labels"])
                    progress(done, total, f"decoding {archive.name}")
                elif name.suffix in (".jpg", ".jpeg"):
                    part, label = _place(name, archive)
                    image = _jpeg(_content(tar, member, MAX_JPEG_BYTES, archive), f"{archive}: {member.name}")
                    jpegs[part].append((name.stem, label, image))
                    done += 1
                    if done % REPORT_EVERY == 0:
                        progress(done, total, f"decoding {archive.name}")
                elif name.name.startswith("data_batch_"):
                    raise _pickled(archive)
                if done > total:
                    raise InputError(f"{archive}: more than the {total} images of CIFAR-10")
    except InputError:
        raise
    # Numbers in a header that are none are a ValueError.
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"{archive}: truncated or not a tar archive, {done} of {total} images read ({error})"
        ) from None
    for part, images in jpegs.items():
        if images:
            # By number before class, so that the first samples of each part are of all classes.
            images.sort(key=lambda entry: entry[:2])
            pieces[part] = _piece(np.stack([i for _, _, i in images]), np.array([c for _, c, _ in images]), part)
    return _joined(pieces, archive)


def _joined(pieces: dict[str, Arrays], where: Path) -> Arrays:
    """All pieces in the order of their names, training before test. Raises InputError unless every image is there."""
    ordered = [pieces[name] for name in sorted(pieces, key=lambda name: (name.startswith("test"), name))]
    labels = np.concatenate([piece["labels"] for piece in ordered] or [np.zeros(0, np.uint8)])
    roles = np.concatenate([piece["roles"] for piece in ordered] or [np.zeros(0, np.uint8)])
    for part, count in PER_CLASS.items():
        found = np.bincount(labels[roles == ROLES[part]], minlength=len(CLASSES))
        for name, there in zip(CLASSES, found.tolist(), strict=True):
            if there != count:
                raise InputError(f"{where}: {there} {part} images of class {name}, expected {count}; is it truncated?")
    return {"images": np.concatenate([piece["images"] for piece in ordered]), "labels": labels, "roles": roles}


def _bytes(path: Path) -> bytes:
    """Content of a file of the binary version; of a larger file, one byte more than allowed."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BINARY_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int, archive: Path) -> bytes:
    if member.size > limit:
        raise InputError(f"{archive}: {member.name} has {member.size} bytes, the limit is {limit}")
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _place(name: Path, archive: Path) -> tuple[str, int]:
    """Part and class that a JPEG's folders name."""
    folders = name.parts[-3:-1]
    if len(folders) != 2 or folders[0] not in PER_CLASS or folders[1] not in CLASSES:
        raise InputError(f"{archive}: {name} is not at train/<class>/ or test/<class>/ of a CIFAR-10 class")
    return folders[0], CLASSES.index(folders[1])


def _jpeg(content: bytes, where: str) -> Bytes:
    """(3, 32, 32). The size is read from the header, before pixels are decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.size != (SIDE, SIDE) or image.mode != "RGB":
                raise InputError(
                    f"{where}: {image.size[0]}x{image.size[1]} pixels of mode {image.mode}, "
                    f"expected {SIDE}x{SIDE} of mode RGB"
                )
            return np.asarray(image, np.uint8).transpose(2, 0, 1)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{where}: truncated or not a JPEG image ({error})") from None


def _binary_file(name: str, content: bytes, where: Path) -> Arrays:
    """Images of one file of the binary version: per image one byte of class, then 1024 red, green, blue values."""
    part = "test" if name.startswith("test") else "train"
    per_file = len(CLASSES) * PER_CLASS[part] // (1 if part == "test" else len(BINARY_FILES) - 1)
    record = 1 + CHANNELS * SIDE * SIDE
    if len(content) != per_file * record:
        raise InputError(
            f"{where}: {name} has {len(content)} bytes, expected {per_file * record} ({per_file} images); truncated?"
        )
    records = np.frombuffer(content, np.uint8).reshape(per_file, record)
    if records[:, 0].max() >= len(CLASSES):
        raise InputError(f"{where}: {name} holds label {records[:, 0].max()}, outside 0..{len(CLASSES) - 1}")
    return _piece(records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE), records[:, 0], part)


def _piece(images: Bytes, labels: npt.NDArray[Any], part: str) -> Arrays:
    return {
        "images": images,
        "labels": labels.astype(np.uint8),
        "roles": np.full(len(images), ROLES[part], np.uint8),
    }
