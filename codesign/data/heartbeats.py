"""MIT-BIH heart beats: windows around each R peak, split by patients, with what precedes them in the same record.

What is derived from a patient's other beats is causal: at beat i it uses beats up to i of the record, of what follows
only the interval to the next beat and, before the record's first known interval, that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import checked_labels, read_npz
from codesign.basics.errors import InputError
from codesign.basics.files import file_hash
from codesign.config import DataConfig
from codesign.data.catalogue import locate
from codesign.data.samples import Dataset
from codesign.data.splitting import assemble, need, refuse_test_fraction, split_parts

CLASSES = ("N", "S", "V", "F")
# Records of the training patients (DS1) held out for validation: they hold beats of every class.
VALIDATION_RECORDS = (114, 119, 124, 209, 223)
# Beats that a running mean remembers: of the beat's form, of the RR interval over minutes and of late.
FORM_MEMORY = 64
RR_MEMORY = 256
RECENT_RR_MEMORY = 10
# Each ratio of RR intervals has one source per level, so that a regular rhythm, a ratio near 1, sends nothing.
RR_BELOW = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
RR_FROM = (1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0)
# The file's marks of an interval that is not there: a record's first and last beat.
NO_INTERVAL = (0, 65535)

Array = npt.NDArray[Any]
Real = npt.NDArray[np.float64]


def load_heartbeats(config: DataConfig) -> Dataset:
    """Beats of DS1 (training, and validation by record) and DS2 (test); class Q is left out.

    Samples are int8 (128,) of 25 uV; with ``data.subtract_mean_beat`` what differs from the patient's running mean
    beat, cut to int8. With ``data.rr`` flags say which levels the ratios of RR intervals reach (:func:`rr_ratios`).
    Raises InputError in one line for a malformed file, and for validation records that are unknown or without a beat.
    """
    path = locate(config.set, config.path)
    refuse_test_fraction(config)
    intervals = ("pre_rr_ms", "post_rr_ms") if config.rr else ()
    columns = ("y", "record", "split", *intervals)
    arrays = read_npz(path, ("x", *columns))
    need(path, arrays, ("x", *columns))
    x = arrays["x"]
    if x.ndim != 2 or x.dtype != np.int8:
        raise InputError(f"{path}: x is {x.dtype} {x.shape}, expected int8 (beats, samples)")
    for name in columns:
        if arrays[name].shape != (len(x),):
            raise InputError(f"{path}: {name} has shape {arrays[name].shape} for {len(x)} beats")
        if arrays[name].dtype.kind not in "iu":
            raise InputError(f"{path}: {name} is {arrays[name].dtype}, expected integers")
    labels = checked_labels(arrays["y"], 5, str(path))
    if not np.isin(arrays["split"], (1, 2)).all():
        raise InputError(f"{path}: split holds values other than 1 (DS1) and 2 (DS2)")
    # Class Q (unclassifiable) has 15 beats in all and is left out, as is usual; the running means include it.
    kept = np.flatnonzero(labels < len(CLASSES))
    role = _roles(config, arrays, path)[kept]
    if not (role == 1).any():
        raise InputError(
            f"{path}: no beats of the validation records {', '.join(map(str, _validation_records(config)))}: set "
            "data.validation_records to training records of this file, and leave data.validation out"
        )
    record = arrays["record"]
    if config.subtract_mean_beat:
        beats = x.astype(np.float64)
        x = np.clip(np.rint(beats - mean_beat(beats, record)), -128, 127).astype(np.int8)
    flags, names = None, ()
    if config.rr:
        flags, names = rr_flags(rr_ratios(arrays["pre_rr_ms"], arrays["post_rr_ms"], record))
    return assemble(
        config,
        config.set,
        list(CLASSES),
        labels[kept],
        split_parts(config, labels[kept], role, str(path)),
        x=x[kept],
        low=-128,
        high=127,
        flags=None if flags is None else flags[kept],
        flag_names=names,
        source=path.name,
        sha256=file_hash(path),
    )


def running_mean(values: Real, record: Array, memory: int) -> Real:
    """Mean of each record's values up to each of its beats, float64 of the shape of ``values`` (beats, ...).

    m_i = m_(i-1) + (v_i - m_(i-1)) / min(i, memory), i = 1, 2, ... within the record: the plain mean of the first
    ``memory`` beats, then one that forgets exponentially.
    """
    means = np.empty_like(values)
    for name in np.unique(record):
        mean = np.zeros(values.shape[1:])
        for number, index in enumerate(np.flatnonzero(record == name), 1):
            mean = mean + (values[index] - mean) / min(number, memory)
            means[index] = mean
    return means


def mean_beat(beats: Real, record: Array) -> Real:
    """Running mean of the beats before each beat of the same record; of a record's first beat, that beat itself."""
    means = running_mean(beats, record, FORM_MEMORY)
    before = beats.copy()
    for name in np.unique(record):
        index = np.flatnonzero(record == name)
        before[index[1:]] = means[index[:-1]]
    return before


def rr_ratios(pre: Array, post: Array, record: Array) -> Mapping[str, Real]:
    """Three ratios for each beat from the RR intervals before and after it (ms), all of one record.

    pre / mean, post / mean, pre / recent: ``mean`` and ``recent`` are running means of the intervals before the
    beats up to this one, with memories of 256 and 10 beats. Where the interval after a beat is not there, it counts as
    ``mean``; where the one before it is not, as the record's first that is, which for a first beat is its successor's.
    """
    pre, post = pre.astype(np.float64), post.astype(np.float64)
    known = ~np.isin(pre, NO_INTERVAL)
    for name in np.unique(record):
        inside = record == name
        first = pre[inside & known]
        pre[inside & ~known] = first[0] if first.size else 1.0
    mean, recent = (running_mean(pre, record, memory) for memory in (RR_MEMORY, RECENT_RR_MEMORY))
    post = np.where(np.isin(post, NO_INTERVAL), mean, post)
    return {"pre / mean": pre / mean, "post / mean": post / mean, "pre / recent": pre / recent}


def rr_flags(ratios: Mapping[str, Real]) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """bool (beats, 15 per ratio) and what each column says: "r < level" for 8 levels, then "r >= level" for 7."""
    columns, names = [], []
    for name, ratio in ratios.items():
        columns += [ratio < level for level in RR_BELOW] + [ratio >= level for level in RR_FROM]
        names += [f"{name} < {level:g}" for level in RR_BELOW] + [f"{name} >= {level:g}" for level in RR_FROM]
    return np.stack(columns, axis=1), tuple(names)


def _roles(config: DataConfig, arrays: Mapping[str, Array], path: Path) -> npt.NDArray[np.int64]:
    """0 training, 1 validation, 2 test for each beat."""
    chosen = _validation_records(config)
    training = np.unique(arrays["record"][arrays["split"] == 1])
    unknown = sorted(set(chosen) - set(training.tolist()))
    if unknown and config.validation_records is not None:
        raise InputError(
            f"data.validation_records: {unknown[0]} is none of {path.name}'s training records "
            f"({', '.join(map(str, training))})"
        )
    held_out = np.isin(arrays["record"], chosen)
    return np.where(arrays["split"] == 2, 2, np.where(held_out, 1, 0))


def _validation_records(config: DataConfig) -> Sequence[int]:
    return VALIDATION_RECORDS if config.validation_records is None else config.validation_records
