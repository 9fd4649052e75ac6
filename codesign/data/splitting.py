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
Indices = npt.NDArray[np.int64]
Parts = tuple[Indices, Indices, Indices]


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
    candidates: Indices, labels: npt.NDArray[np.int32], size: float, seed: int, what: str
) -> tuple[Indices, Indices]:
    """Split ``candidates`` into (rest, chosen), both sorted, with the classes in proportion.

    ``size`` are samples, or a fraction below 1; ``what`` names it in messages.
    """
    count = round(size * candidates.size) if size < 1 else round(size)
    rest, chosen = _drawn(candidates, labels, count, seed, what)
    return np.sort(rest), np.sort(chosen)


def _limited(candidates: Indices, labels: npt.NDArray[np.int32], limit: int, seed: int) -> Indices:
    """``limit`` of ``candidates`` at most, sorted, with the classes in proportion."""
    if limit >= candidates.size:
        return candidates
    # A draw leaves a sample of each class over at least; those of them that are within the limit are taken back.
    over = max(candidates.size - limit, _n_classes(candidates, labels))
    rest, chosen = _drawn(candidates, labels, candidates.size - over, seed, f"data.train_limit = {limit}")
    return np.sort(np.concatenate([chosen, rest[: limit - chosen.size]]))


def _drawn(
    candidates: Indices, labels: npt.NDArray[np.int32], count: int, seed: int, what: str
) -> tuple[Indices, Indices]:
    """(rest, chosen) of ``candidates``, ``count`` of them chosen, in random order and with every class in both."""
    from sklearn.model_selection import train_test_split

    n_classes = _n_classes(candidates, labels)
    if count < n_classes or candidates.size - count < n_classes:
        raise InputError(
            f"{what}: {count} of {candidates.size} samples for {n_classes} classes; each class needs one of "
            "them and one of the rest"
        )
    try:
        rest, chosen = train_test_split(
            candidates, test_size=count, stratify=labels[candidates], random_state=np.random.RandomState(seed)
        )
    except ValueError as error:
        raise InputError(f"{what}: the samples cannot be split by class ({error})") from None
    return np.asarray(rest), np.asarray(chosen)


def _n_classes(candidates: Indices, labels: npt.NDArray[np.int32]) -> int:
    return int(np.unique(labels[candidates]).size)


def _asked(key: str, stated: float | None, default: float) -> tuple[float, str]:
    """A size, and what messages call it."""
    return (default, f"{key} (by default {default:g})") if stated is None else (stated, f"{key} = {stated:g}")


def split_parts(
    config: DataConfig,
    labels: npt.NDArray[np.int32],
    roles: npt.NDArray[np.int64] | None,
    where: str,
    default_test: float = 0,
) -> Parts:
    """Indices of train, validation and test samples, each sorted and with at least one.

    ``roles`` is int64 (n,), 0 train, 1 validation, 2 test, or None if the files do not say; what they do not say is
    split stratified by class; ``default_test`` is the size of the test set where nobody says one, 0 where a set has its
    own. Raises InputError if a part would be empty or an option contradicts the files.
    """
    if roles is None:
        roles = np.zeros(labels.size, np.int64)
    train, validation, test = (np.flatnonzero(roles == role) for role in range(3))
    for key, stated, part in (("test", config.test, test), ("validation", config.validation, validation)):
        if stated is not None and part.size:
            raise InputError(f"data.{key}: {where} names its own {key} samples; remove data.{key}")
    if not train.size:
        raise InputError(f"{where}: no training samples")
    if not test.size:
        size, what = _asked("data.test", config.test, default_test)
        if not size:
            raise InputError(f"{where}: no test samples")
        train, test = _stratified(train, labels, size, config.split_seed, what)
    if not validation.size:
        default = min(DEFAULT_VALIDATION, round(LARGEST_VALIDATION * train.size))
        # Each class is in it, and none of it is so small as to be a fraction.
        size, what = _asked("data.validation", config.validation, max(default, _n_classes(train, labels)))
        train, validation = _stratified(train, labels, size, config.split_seed, what)
    if config.train_limit is not None:
        train = _limited(train, labels, config.train_limit, config.split_seed)
    return train, validation, test if config.test_limit is None else test[: config.test_limit]


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
