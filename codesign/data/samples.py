"""Raw samples before encoding: arrays or event lists, split into three disjoint sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import CodesignWarning
from codesign.contract.binning import TimeUnit


class DataWarning(CodesignWarning):
    """Something about the data is unusual or was assumed, but they can be used."""


@dataclass(frozen=True, eq=False)
class Events:
    """Events of n samples: sample i has entries ``offsets[i]:offsets[i + 1]``.

    times : (n_events,) of any integer or real dtype, as the file has them: time from the sample's start, in any order.
    units : int32 (n_events,), the source of each event.
    offsets : int64 (n + 1,).
    time_unit : unit of ``times``.
    """

    times: npt.NDArray[Any]
    units: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    time_unit: TimeUnit = "ms"

    def __len__(self) -> int:
        return int(self.offsets.size) - 1

    def take(self, indices: npt.NDArray[np.integer]) -> Events:
        """Events of the chosen samples; of consecutive samples without a copy, as sets of gigabytes need it."""
        if indices.size and np.array_equal(indices, np.arange(indices[0], indices[0] + indices.size)):
            offsets = self.offsets[indices[0] : indices[-1] + 2]
            inside = slice(int(offsets[0]), int(offsets[-1]))
            return Events(self.times[inside], self.units[inside], offsets - offsets[0], self.time_unit)
        counts = self.offsets[indices + 1] - self.offsets[indices]
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        chosen = np.repeat(self.offsets[indices] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Events(self.times[chosen], self.units[chosen], offsets, self.time_unit)


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    labels : int32 (n,), class of each sample.
    index : int64 (n,), position of each sample in the whole set; encoders that draw random numbers are keyed by it.
    x : (n, ...) raw values of any real dtype, or None.
    events : raw events, or None; exactly one of the two is set.
    flags : bool (n, n_flags), facts about each sample that are coded as sources of their own, or None.
    name : what messages call these samples.
    """

    labels: npt.NDArray[np.int32]
    index: npt.NDArray[np.int64]
    x: npt.NDArray[Any] | None = None
    events: Events | None = None
    flags: npt.NDArray[np.bool_] | None = None
    name: str = "samples"

    def __len__(self) -> int:
        return int(self.labels.size)

    def take(self, indices: npt.NDArray[np.integer] | slice) -> Split:
        """The chosen samples, in the order given."""
        chosen = np.arange(len(self))[indices]
        return Split(
            self.labels[chosen],
            self.index[chosen],
            None if self.x is None else self.x[chosen],
            None if self.events is None else self.events.take(chosen),
            None if self.flags is None else self.flags[chosen],
            self.name,
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test samples. Test samples are for the one measurement at the very end.

    low, high : raw values that stand for the bottom and the top of the scale (arrays).
    n_units : number of event sources (events), else 0.
    flag_names : what each column of the samples' ``flags`` says; () where there are none.
    provenance : where the samples came from, with a hash of their content and the sizes of the three sets.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    low: float = 0.0
    high: float = 1.0
    n_units: int = 0
    flag_names: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def has_events(self) -> bool:
        return self.n_units > 0

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample; () for events."""
        return () if self.train.x is None else tuple(self.train.x.shape[1:])

    @property
    def hash(self) -> str:
        """sha256 (hex) of the samples' content, from the provenance."""
        return str(self.provenance["sha256"])
