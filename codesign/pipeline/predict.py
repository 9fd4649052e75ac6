"""Classify samples that were never part of a data set, with a frozen network in the hardware's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import checked_labels, read_npz, real
from codesign.basics.errors import InputError
from codesign.config import AUTO, DataConfig
from codesign.contract import golden
from codesign.contract.early_exit import EarlyExit
from codesign.contract.network import FrozenNetwork
from codesign.data.encoders import encode
from codesign.data.events import NAMES as EVENT_ARRAYS
from codesign.data.events import holds_events, read_events
from codesign.data.plausibility import EventCounts, check_scale
from codesign.data.samples import Dataset, Split
from codesign.data.scale import checked_scale, enclosing, on_scale

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Decisions of N samples.

    decisions : int32 (N,); class, the lowest on a tie. values : int64 (N, classes); readout values.
    labels : int32 (N,) of the file's ``y``, or None. events : counts of the file's events; None for arrays.
    """

    decisions: npt.NDArray[np.int32]
    values: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32] | None
    events: EventCounts | None = None

    @property
    def accuracy(self) -> float | None:
        """Fraction of right decisions, 0..1; None without labels."""
        return None if self.labels is None else float(np.mean(self.decisions == self.labels))


def predict(
    network: FrozenNetwork,
    config: DataConfig,
    path: str | Path,
    early_exit: EarlyExit = "off",
    *,
    allow_dropped: bool = False,
) -> Prediction:
    """Encode the samples of an npz file as the network's training samples were, and run the golden model.

    Coding, bits of an input and width of a timestep are the network's; ``config`` says the rest, and a key that is
    given otherwise in it is refused. The file holds ``x`` (N, ...) in the training data's scale, or events as ``times``
    (in ``config.time_unit``), ``units`` and ``offsets`` (N + 1,); ``y`` (N,) is optional. With ``early_exit`` decisions
    and values are those after the timestep with which the hardware ends a sample. Warns of what training would be
    warned of: dropped and merged events, values that use little of the scale. Raises InputError in one line for a file
    of another form, or if half of the events are dropped and neither ``allow_dropped`` nor ``config.allow_dropped`` is
    set.

    >>> import codesign, numpy as np
    >>> config = codesign.parse_config({"data": {"set": "npz", "path": "mine.npz"}})
    >>> network = codesign.FrozenNetwork.from_arrays(
    ...     [[[3, -2], [1, 4]]], threshold=64, timesteps=3, coding=codesign.InputCoding("current", 4)
    ... )
    >>> np.savez("new.npz", x=[[1.0, 0.0], [0.0, 1.0]])
    >>> codesign.predict(network, config.data, "new.npz").decisions
    array([0, 1], dtype=int32)
    """
    path = Path(path)
    if allow_dropped:
        config = config.model_copy(update={"allow_dropped": True})
    config = _as_trained(network, config)
    arrays = read_npz(path, ("x", "y", *EVENT_ARRAYS))
    stated = network.coding.parameters
    where = "the network's scale, coding.parameters,"
    low, high = checked_scale(stated.get("low", 0.0), stated.get("high", 1.0), where)
    if not holds_events(arrays, path) and "x" in arrays:
        split = _array_split(path, arrays["x"], low, high)
    else:
        events = read_events(arrays, path, config.time_unit, n_units=network.n_inputs)
        split = _unlabelled(path, len(events), events=events)
    labels = None
    if "y" in arrays:
        if arrays["y"].shape != (len(split),):
            raise InputError(f"{path}: y has shape {arrays['y'].shape} for {len(split)} samples")
        labels = checked_labels(arrays["y"], network.n_outputs, path)
    classes = tuple(str(index) for index in range(network.n_outputs))
    n_units = 0 if split.events is None else network.n_inputs
    dataset = Dataset(str(path), classes, split, split, split, low, high, n_units)
    stimulus, counts = encode(dataset, split, config, network.timesteps)
    stimulus.check_for(network)
    if split.x is not None:
        check_scale(dataset, split, stimulus, config, "the scale is that of the training data")
    trace = golden.run(network, stimulus, membranes=False, spikes=False, early_exit=early_exit)
    return Prediction(trace.decisions, trace.values, labels, None if split.events is None else counts)


# Keys of [data] that the network's coding states, by the names of its parameters.
_STATED = {"step_ms": "step_ms", "rate_max": "rate_max", "seed": "encoder_seed", "levels": "delta"}


def _as_trained(network: FrozenNetwork, config: DataConfig) -> DataConfig:
    """The configuration with the coding that the network states.

    Raises InputError for a key that is given otherwise.
    """
    coding = network.coding
    stated: dict[str, Any] = {"coding": coding.kind}
    if coding.is_current:
        stated["input_bits"] = coding.input_bits
    stated |= {key: coding.parameters[name] for name, key in _STATED.items() if coding.parameters.get(name) is not None}
    for key, value in stated.items():
        given = getattr(config, key)
        if key in config.model_fields_set and given != AUTO and _listed(given) != _listed(value):
            raise InputError(
                f"data.{key} = {given!r}, but the network was trained with {value!r}; take the configuration that it "
                "was trained with"
            )
    return config.model_copy(update=stated)


def _listed(value: Any) -> Any:
    """A list, where one of a single number is that number."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _unlabelled(path: Path, count: int, **samples: Any) -> Split:
    return Split(np.full(count, -1, np.int32), np.arange(count), name=str(path), **samples)


def _array_split(path: Path, x: Array, low: float, high: float) -> Split:
    real(x, "x", path)
    if x.ndim < 2 or not len(x) or not x[0].size:
        raise InputError(f"{path}: x has shape {x.shape}, expected (samples, ...) with at least one value a sample")
    if not on_scale(x, low, high):
        below, above = enclosing(float(x.min()), float(x.max()))
        raise InputError(f"{path}: x spans {below}..{above}, beyond the training data's scale {low:g}..{high:g}")
    return _unlabelled(path, len(x), x=x)
