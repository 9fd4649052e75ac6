"""From a configuration to a :class:`Dataset`: read, check, split."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import checked_labels, read_npz, real
from codesign.basics.errors import InputError
from codesign.basics.files import file_hash
from codesign.basics.progress import Progress, silent
from codesign.config import DataConfig
from codesign.contract.network import MAX_WIDTH
from codesign.data.catalogue import MNIST_MD5, locate
from codesign.data.cifar10 import load_cifar10
from codesign.data.events import NAMES as EVENT_ARRAYS
from codesign.data.events import holds_events, read_events
from codesign.data.heartbeats import load_heartbeats
from codesign.data.heidelberg import load_heidelberg
from codesign.data.idx import read_idx
from codesign.data.plausibility import check_classes
from codesign.data.samples import Dataset, DataWarning
from codesign.data.scale import checked_scale, enclosing, on_scale
from codesign.data.splitting import assemble, need, refuse_test_fraction, split_parts

DIGITS_TEST = 360
DIGIT_CLASSES = [str(digit) for digit in range(10)]
DEFAULT_TEST = 0.2
MAX_CLASSES = 1 << 12

Array = npt.NDArray[Any]


def load_dataset(config: DataConfig, progress: Progress = silent) -> Dataset:
    """Read the configured set and split it into train, validation and test.

    ``progress(done, total, text)`` counts samples where reading takes a while. Sets without an official test set are
    split stratified by class, with ``split_seed``. Raises InputError in one line for a file that is missing,
    truncated, of the wrong shape, or holds NaN or labels out of range; warns of classes without samples.

    >>> import codesign, numpy as np
    >>> np.savez("mine.npz", x=np.eye(4)[np.arange(80) % 4], y=np.arange(80) % 4)
    >>> config = codesign.parse_config({"data": {"set": "npz", "path": "mine.npz"}})
    >>> dataset = codesign.load_dataset(config.data)
    >>> dataset.n_classes, dataset.sample_shape, len(dataset.train), len(dataset.validation), len(dataset.test)
    (4, (4,), 54, 10, 16)
    """
    slow = {"cifar10": load_cifar10, "shd": load_heidelberg, "ssc": load_heidelberg}
    loaders = {
        "digits": _load_digits,
        "mnist": _load_idx,
        "idx": _load_idx,
        "fsdd-spikes": _load_npz,
        "mitbih-beats": load_heartbeats,
        "npz": _load_npz,
    }
    dataset = slow[config.set](config, progress) if config.set in slow else loaders[config.set](config)
    check_classes(dataset, config)
    return dataset


def _load_digits(config: DataConfig) -> Dataset:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    x = np.asarray(bunch.images, np.uint8)
    labels = np.asarray(bunch.target, np.int32)
    digest = hashlib.sha256(x.tobytes() + labels.tobytes()).hexdigest()
    parts = split_parts(config, labels, None, "digits", default_test=DIGITS_TEST)
    return assemble(
        config,
        "digits",
        DIGIT_CLASSES,
        labels,
        parts,
        x=x,
        low=0,
        high=16,
        source="sklearn",
        sha256=digest,
    )


def _load_idx(config: DataConfig) -> Dataset:
    folder = locate(config.set, config.path)
    refuse_test_fraction(config)
    hashes: dict[str, str] = {}
    arrays: dict[str, Array] = {}
    for part in ("train", "t10k"):
        for kind, axes in (("images", 3), ("labels", 1)):
            path = _idx_file(folder, part, kind, axes)
            arrays[f"{part}-{kind}"] = read_idx(path, axes)
            hashes[path.name] = file_hash(path)
            if config.set == "mnist":
                _check_md5(path)
        if not arrays[f"{part}-images"].size:
            raise InputError(f"{folder}: {part} images have the shape {arrays[f'{part}-images'].shape}; there are none")
        if len(arrays[f"{part}-images"]) != len(arrays[f"{part}-labels"]):
            raise InputError(
                f"{folder}: {len(arrays[f'{part}-images'])} {part} images but {len(arrays[f'{part}-labels'])} labels"
            )
    if arrays["train-images"].shape[1:] != arrays["t10k-images"].shape[1:]:
        raise InputError(
            f"{folder}: training images are {arrays['train-images'].shape[1:]}, "
            f"test images {arrays['t10k-images'].shape[1:]}"
        )
    classes = DIGIT_CLASSES if config.set == "mnist" else _numbered(arrays["train-labels"], f"{folder}: train labels")
    labels = np.concatenate([arrays["train-labels"], arrays["t10k-labels"]])
    labels = checked_labels(labels, len(classes), str(folder))
    official = np.arange(labels.size) >= len(arrays["train-labels"])
    parts = split_parts(config, labels, np.where(official, 2, 0), str(folder))
    x = np.concatenate([arrays["train-images"], arrays["t10k-images"]])
    bottom, top = config.range or (0.0, 255.0)
    low, high = _within(x, bottom, top, folder)
    digest = hashlib.sha256("".join(hashes[name] for name in sorted(hashes)).encode()).hexdigest()
    return assemble(
        config,
        config.set,
        classes,
        labels,
        parts,
        x=x,
        low=low,
        high=high,
        source=", ".join(sorted(hashes)),
        sha256=digest,
    )


def _load_npz(config: DataConfig) -> Dataset:
    path = locate(config.set, config.path)
    arrays = read_npz(path, ("x", "y", *EVENT_ARRAYS, "is_test", "split", "range", "classes", "n_units"))
    read = _event_set if holds_events(arrays, path) else _array_set
    if read is _array_set and "x" not in arrays:
        raise InputError(f"{path}: neither an array 'x' nor 'times' in it; docs/data.md gives the two forms")
    need(path, arrays, ("y",))
    return read(config, path, arrays)


def _array_set(config: DataConfig, path: Path, arrays: Mapping[str, Array]) -> Dataset:
    x = real(arrays["x"], "x", path)
    if x.ndim < 2 or not len(x) or not x[0].size:
        raise InputError(f"{path}: x has shape {x.shape}, expected (samples, ...) with at least one value a sample")
    classes, labels = _classes(arrays, path)
    if labels.size != len(x):
        raise InputError(f"{path}: {len(x)} samples in x but {labels.size} labels in y")
    low, high = _scale(config, arrays, x, path)
    parts = split_parts(config, labels, _roles(arrays, labels.size, path), str(path), default_test=DEFAULT_TEST)
    return assemble(
        config, config.set, classes, labels, parts, x=x, low=low, high=high, source=path.name, sha256=file_hash(path)
    )


def _event_set(config: DataConfig, path: Path, arrays: Mapping[str, Array]) -> Dataset:
    classes, labels = _classes(arrays, path)
    stated = MAX_WIDTH
    if "n_units" in arrays:
        stated = _whole_number(arrays["n_units"], "n_units", path)
        if not 1 <= stated <= MAX_WIDTH:
            raise InputError(f"{path}: n_units is {stated}, expected 1..{MAX_WIDTH}")
    events = read_events(arrays, path, config.time_unit, labels.size, stated)
    n_units = int(events.units.max(initial=0)) + 1
    if "n_units" in arrays:
        n_units = stated
    elif config.set == "fsdd-spikes":
        n_units = max(n_units, 64)
    parts = split_parts(config, labels, _roles(arrays, labels.size, path), str(path), default_test=DEFAULT_TEST)
    return assemble(
        config,
        config.set,
        classes,
        labels,
        parts,
        events=events,
        n_units=n_units,
        source=path.name,
        sha256=file_hash(path),
    )


def _whole_number(array: Array, name: str, path: Path) -> int:
    if array.size != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, expected one whole number")
    return int(array.reshape(-1)[0])


def _classes(arrays: Mapping[str, Array], path: Path) -> tuple[list[str], npt.NDArray[np.int32]]:
    y = real(arrays["y"], "y", path)
    if y.ndim != 1 or y.dtype.kind not in "iub":
        raise InputError(f"{path}: y is {y.dtype} {y.shape}, expected integers (samples,)")
    if not y.size:
        raise InputError(f"{path}: y is empty")
    if "classes" in arrays:
        _check_classes(arrays["classes"].size, f"{path}: array 'classes' names")
        names = _texts(arrays["classes"], "classes", path)
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise InputError(f"{path}: classes holds {repeated[0]!r} twice")
    else:
        names = _numbered(y, f"{path}: y")
    return names, checked_labels(y, len(names), str(path))


def _numbered(labels: Array, where: str) -> list[str]:
    """Names '0', '1', ... of the classes of ``labels``, of which there is one at least."""
    count = int(labels.max()) + 1
    _check_classes(count, f"{where}: its largest label is {count - 1}, which makes")
    return [str(index) for index in range(count)]


def _check_classes(count: int, what: str) -> None:
    if not 2 <= count <= MAX_CLASSES:
        raise InputError(f"{what} {count} classes, expected 2..{MAX_CLASSES}")


def _texts(array: Array, name: str, path: Path) -> list[str]:
    """What an array says, whatever its shape; bytes are UTF-8. Raises InputError for what is no Unicode."""
    try:
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in array.reshape(-1).tolist()]
        for text in texts:
            text.encode()
    # numpy's text may hold numbers that are no character.
    except (SystemError, ValueError):
        raise InputError(f"{path}: {name} holds text that is not Unicode") from None
    return texts


def _scale(config: DataConfig, arrays: Mapping[str, Array], x: Array, path: Path) -> tuple[float, float]:
    if config.range is not None:
        if "range" in arrays:
            raise InputError(f"data.range: {path} holds an array 'range' of its own; remove one of them")
        low, high = config.range
    elif "range" in arrays:
        bounds = real(arrays["range"], "range", path).reshape(-1).tolist()
        if len(bounds) != 2:
            raise InputError(f"{path}: range holds {len(bounds)} numbers, expected [low, high]")
        low, high = checked_scale(bounds[0], bounds[1], f"{path}: range")
    elif x.dtype in (np.uint8, np.int8):
        low, high = float(np.iinfo(x.dtype).min), float(np.iinfo(x.dtype).max)
    else:
        low, high = 0.0, 1.0
    return _within(x, low, high, path)


def _within(x: Array, low: float, high: float, path: Path) -> tuple[float, float]:
    """Bounds of the scale. Raises InputError if they are none, or a value of ``x`` is beyond them."""
    low, high = checked_scale(low, high, "data.range")
    if not on_scale(x, low, high):
        below, above = enclosing(float(x.min()), float(x.max()))
        raise InputError(
            f"{path}: x spans {below}..{above}, beyond its scale {low:g}..{high:g}; "
            "set data.range = [low, high], or add an array 'range' to an npz file"
        )
    return low, high


def _roles(arrays: Mapping[str, Array], n_samples: int, path: Path) -> npt.NDArray[np.int64] | None:
    """0 train, 1 validation, 2 test for each sample; None where the file does not say."""
    if "split" in arrays:
        split = arrays["split"]
        if split.dtype.kind in "US":
            names = {"train": 0, "validation": 1, "test": 2}
            texts = _texts(split, "split", path)
            unknown = sorted(set(texts) - names.keys())
            if unknown:
                raise InputError(f"{path}: split holds {unknown[0]!r}, expected train, validation or test")
            split = np.array([names[text] for text in texts], np.int64).reshape(split.shape)
        if split.dtype.kind not in "iu" or split.shape != (n_samples,) or not np.isin(split, (0, 1, 2)).all():
            raise InputError(f"{path}: split must hold 0 (train), 1 (validation) or 2 (test) for each sample")
        return split.astype(np.int64)
    if "is_test" in arrays:
        is_test = arrays["is_test"]
        if is_test.dtype.kind not in "biu" or is_test.shape != (n_samples,):
            raise InputError(f"{path}: is_test is {is_test.dtype} {is_test.shape}, expected bool ({n_samples},)")
        return np.where(is_test.astype(bool), 2, 0)
    return None


def _idx_file(folder: Path, part: str, kind: str, axes: int) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; IDX sets are folders of four files")
    names = [f"{part}-{kind}{separator}idx{axes}-ubyte" for separator in "-."]
    if part == "t10k":
        names += [f"test-{kind}{separator}idx{axes}-ubyte" for separator in "-."]
    for name in names:
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise InputError(f"{folder}: no {names[0]} or {names[0]}.gz in it")


def _check_md5(path: Path) -> None:
    expected = MNIST_MD5.get(path.name)
    if expected is None:
        return
    if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != expected:
        warnings.warn(f"{path}: not the published MNIST file (checksum differs); used all the same", DataWarning, 2)
