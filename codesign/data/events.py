"""Events from the arrays of a file: the same checks for data sets and for samples to classify."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import checked_offsets, integers, real
from codesign.basics.errors import InputError
from codesign.contract.binning import TimeUnit
from codesign.contract.network import MAX_WIDTH
from codesign.data.samples import Events

NAMES = ("times", "times_ms", "units", "offsets")

Array = npt.NDArray[Any]


def holds_events(arrays: Mapping[str, Array], path: Path) -> bool:
    """True if the file is one of events. Raises InputError if it holds an array ``x`` as well, or times twice."""
    if "times" in arrays and "times_ms" in arrays:
        raise InputError(f"{path}: holds both 'times' and 'times_ms'; leave one of them out")
    found = [name for name in ("times", "times_ms") if name in arrays]
    if found and "x" in arrays:
        raise InputError(f"{path}: holds both an array 'x' and events ({found[0]!r}); leave one of them out")
    return bool(found)


def read_events(
    arrays: Mapping[str, Array], path: Path, time_unit: TimeUnit, n_samples: int | None = None, n_units: int = MAX_WIDTH
) -> Events:
    """Events of ``times`` (or ``times_ms``), ``units`` and ``offsets``; times keep their dtype.

    ``n_samples`` is None where the offsets say how many there are. Raises InputError in one line unless times are
    finite and not negative, units are integers in 0 .. n_units - 1, and offsets rise from 0 to the number of events.
    """
    arrays = dict(arrays)
    if "times" not in arrays and "times_ms" in arrays:
        if time_unit != "ms":
            raise InputError(f"{path}: data.time_unit = {time_unit!r}, but the array is named times_ms")
        arrays["times"] = arrays["times_ms"]
    missing = [name for name in ("times", "units", "offsets") if name not in arrays]
    if missing:
        raise InputError(f"{path}: neither an array 'x' nor the events' {', '.join(map(repr, missing))} in it")
    times, units = real(arrays["times"], "times", path), integers(arrays["units"], "units", path)
    if times.ndim != 1:
        raise InputError(f"{path}: times has shape {times.shape}, expected one axis")
    if times.dtype == np.bool_:
        raise InputError(f"{path}: times is bool, expected numbers")
    if times.size != units.size:
        raise InputError(f"{path}: {times.size} times but {units.size} units")
    if n_samples is None:
        n_samples = integers(arrays["offsets"], "offsets", path).size - 1
    if n_samples < 1:
        raise InputError(f"{path}: offsets of no sample; expected one more than there are samples")
    offsets = checked_offsets(arrays["offsets"], n_samples, times.size, path)
    if times.size and times.min() < 0:
        raise InputError(f"{path}: a time is negative ({times.min()} {time_unit}); times count from the sample's start")
    if units.size and int(units.min()) < 0:
        raise InputError(f"{path}: unit {int(units.min())} is negative")
    if units.size and int(units.max()) >= n_units:
        raise InputError(f"{path}: unit {int(units.max())} is outside 0..{n_units - 1}")
    return Events(times, units.astype(np.int32), offsets, time_unit)
