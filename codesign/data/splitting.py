"""What every reader ends with: checks of arrays and labels, and the split into three disjoint sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.config import DataConfig
from codesign.data.samples import Dataset, Events, Split

# Samples, and the share of the training samples that they are at most.
DEFAULT_VALIDATION = 150
LARGEST_VALIDATION = 0.15

Array = npt.NDArray[Any]
Parts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def need(path: Path, arrays: Mapping[str, Array], names: tuple[str, ...]) -> None:
    """Raise InputError naming the arrays of ``names`` that ``path`` does not hold."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {', '.join(map(repr, missing))} in it; docs/data.md gives the form")


def refuse_test_fraction(config: DataConfig) -> None:
    """Raise InputError if the configuration asks for test samples where the set has its own."""
    if config.test is not None:
        raise InputError(f"data.test: set {config.set!r} has an official test set; remove data.test")


def _stratified(
    candidates: npt.NDArray[np.int64], labels: npt.NDArray[np.int32], size: float, seed: int, what: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split ``candidates`` into (rest, chosen), both sorted, with the classes in proportion."""
    from sklearn.model_selection import train_test_split

    count = round(size * candidates.size) if size < 1 else round(size)
    n_classes = int(np.unique(labels[candidates]).size)
    if count < n_classes or candidates.size - count < n_classes:
        raise InputError(f"data.{what} = {size:g}: {count} of {candidates.size} samples for {n_classes} classes")
    try:
        rest, chosen = train_test_split(
            candidates, test_size=count, stratify=labels[candidates], random_state=np.random.RandomState(seed)
        )
    except ValueError as error:
        raise InputError(f"data.{what}: the samples cannot be split by class ({error})") from None
    return np.sort(rest), np.sort(chosen)


def split_parts(
    config: DataConfig,
    labels: npt.NDArray[np.int32],
    roles: npt.NDArray[np.int64] | None,
    where: str,
    default_test: float = 0,
) -> Parts:
    """Indices of train, validation and test samples.

    ``roles`` is int64 (n,), 0 train, 1 validation, 2 test, or None if the files do not say; what they do not say is
    split stratified by class. Raises InputError if a part would be empty or an option contradicts the files.
    """
    everything = np.arange(labels.size)
    if roles is not None and config.test is not None:
        raise InputError(f"data.test: {where} names its own test samples; remove data.test")
    if roles is None or not np.any(roles == 2):
        train = everything if roles is None else everything[roles == 0]
        train, test = _stratified(train, labels, config.test or default_test, config.split_seed, "test")
    else:
        train, test = everything[roles == 0], everything[roles == 2]
    if roles is not None and np.any(roles == 1):
        if config.validation is not None:
            raise InputError(f"data.validation: {where} names its own validation samples; remove data.validation")
        validation = everything[roles == 1]
    else:
        default = min(DEFAULT_VALIDATION, round(LARGEST_VALIDATION * train.size))
        # Each class is in it, and none of it is so small as to be a fraction.
        default = max(default, int(np.unique(labels[train]).size))
        train, validation = _stratified(train, labels, config.validation or default, config.split_seed, "validation")
    if config.train_limit is not None and config.train_limit < train.size:
        _, train = _stratified(train, labels, float(config.train_limit), config.split_seed, "train_limit")
    if config.test_limit is not None:
        test = test[: config.test_limit]
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if not part.size:
            raise InputError(f"{where}: no {name} samples")
    return train, validation, test


def assemble(
    config: DataConfig,
    name: str,
    classes: list[str],
    labels: npt.NDArray[np.int32],
    parts: Parts,
    *,
    x: Array | None = None,
    events: Events | None = None,
    flags: npt.NDArray[np.bool_] | None = None,
    flag_names: tuple[str, ...] = (),
    low: float = 0.0,
    high: float = 1.0,
    n_units: int = 0,
    source: str,
    sha256: str,
) -> Dataset:
    """The data set of all samples, cut into ``parts``; its provenance is ``source``, the hash and the sizes."""
    whole = Split(labels, np.arange(labels.size, dtype=np.int64), x, events, flags)
    train, validation, test = (
        replace(whole.take(part), name=f"{name} samples")
        for name, part in zip(("training", "validation", "test"), parts, strict=True)
    )
    provenance = {
        "set": name,
        "source": source,
        "sha256": sha256,
        "split_seed": config.split_seed,
        "samples": {"train": len(train), "validation": len(validation), "test": len(test)},
    }
    return Dataset(name, tuple(classes), train, validation, test, low, high, n_units, flag_names, provenance)
