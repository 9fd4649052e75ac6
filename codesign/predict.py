"""Classify samples that were never part of a data set, with a frozen network in the hardware's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign import golden
from codesign.arrays import read_npz
from codesign.config import DataConfig
from codesign.data.samples import Dataset, Events, Split
from codesign.early_exit import EarlyExit
from codesign.encoders import encode
from codesign.errors import InputError
from codesign.network import FrozenNetwork

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Decisions of N samples.

    decisions : int32 (N,); class, the lowest on a tie. values : int64 (N, classes); readout values.
    labels : int32 (N,) of the file's ``y``, or None.
    """

    decisions: npt.NDArray[np.int32]
    values: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32] | None

    @property
    def accuracy(self) -> float | None:
        """Fraction of right decisions, 0..1; None without labels."""
        return None if self.labels is None else float(np.mean(self.decisions == self.labels))


def predict(network: FrozenNetwork, config: DataConfig, path: str | Path, early_exit: EarlyExit = "off") -> Prediction:
    """Encode the samples of an npz file as the network's training samples were, and run the golden model.

    The file holds ``x`` (N, ...) in the training data's scale, or events as ``times`` (ms), ``units`` and
    ``offsets`` (N + 1,); ``y`` (N,) is optional. With ``early_exit`` decisions and values are those after the timestep
    with which the hardware ends a sample. Raises InputError in one line for a file of another form.
    """
    path = Path(path)
    arrays = read_npz(path, ("x", "y", "times", "times_ms", "units", "offsets"))
    for name, array in arrays.items():
        if array.dtype.kind not in "iufb" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            raise InputError(f"{path}: {name} holds something other than finite numbers")
    low, high = (float(network.coding.parameters.get(name, default)) for name, default in (("low", 0), ("high", 1)))
    if "x" in arrays:
        split = _array_split(path, arrays["x"], low, high)
        n_units = 0
    else:
        split = _event_split(path, arrays, network.n_inputs)
        n_units = network.n_inputs
    classes = tuple(str(index) for index in range(network.n_outputs))
    dataset = Dataset(str(path), classes, split, split, split, low, high, n_units)
    stimulus, _ = encode(dataset, split, config, network.timesteps)
    trace = golden.run(network, stimulus, membranes=False, spikes=False, early_exit=early_exit)
    labels = None
    if "y" in arrays:
        labels = arrays["y"].astype(np.int32)
        if labels.shape != (len(split),):
            raise InputError(f"{path}: y has shape {arrays['y'].shape} for {len(split)} samples")
    return Prediction(trace.decisions, trace.values, labels)


def _array_split(path: Path, x: Array, low: float, high: float) -> Split:
    if x.ndim < 2 or not len(x) or not x[0].size:
        raise InputError(f"{path}: x has shape {x.shape}, expected (samples, ...) with at least one value a sample")
    if x.min() < low or x.max() > high:
        raise InputError(
            f"{path}: x spans {x.min():g}..{x.max():g}, beyond the training data's scale {low:g}..{high:g}"
        )
    return Split(np.full(len(x), -1, np.int32), np.arange(len(x)), x=x)


def _event_split(path: Path, arrays: dict[str, Array], n_inputs: int) -> Split:
    if "times" not in arrays and "times_ms" in arrays:
        arrays["times"] = arrays.pop("times_ms")
    missing = [name for name in ("times", "units", "offsets") if name not in arrays]
    if missing:
        raise InputError(f"{path}: neither an array 'x' nor the events' {', '.join(map(repr, missing))} in it")
    times, units, offsets = arrays["times"], arrays["units"], arrays["offsets"].astype(np.int64)
    if times.shape != units.shape or times.ndim != 1 or offsets.ndim != 1 or offsets.size < 2:
        raise InputError(f"{path}: times, units and offsets must be flat, times and units of one length")
    if offsets[0] != 0 or offsets[-1] != times.size or np.any(np.diff(offsets) < 0):
        raise InputError(f"{path}: offsets do not rise from 0 to the number of events ({times.size})")
    if times.size and (times.min() < 0 or units.min() < 0 or units.max() >= n_inputs):
        raise InputError(f"{path}: a time is negative, or a unit is outside 0..{n_inputs - 1}")
    events = Events(times.astype(np.float32), units.astype(np.int32), offsets)
    count = offsets.size - 1
    return Split(np.full(count, -1, np.int32), np.arange(count), events=events)
