"""Encoded samples: what the golden model and the hardware are both fed.

Encoders (:mod:`codesign.data.encoders`) make a :class:`Stimulus` from raw data; nothing after it sees raw
data again. Events are stored flat, with one offset per sample and timestep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from codesign.basics.arrays import checked_labels, checked_offsets, integers, read_npz
from codesign.basics.errors import InputError
from codesign.basics.files import atomic_path
from codesign.contract.network.limits import MAX_TIMESTEPS, MAX_WIDTH
from codesign.contract.network.terms import InputCoding

MAX_EVENTS = 1 << 31
ARRAYS = ("n_inputs", "timesteps", "labels", "offsets", "sources", "values")


class Fed(Protocol):
    """A network, frozen or float, that stimuli are given to."""

    @property
    def n_inputs(self) -> int: ...
    @property
    def timesteps(self) -> int: ...
    @property
    def coding(self) -> InputCoding: ...


@dataclass(frozen=True, eq=False)
class Stimulus:
    """Samples for a network with ``n_inputs`` sources.

    Either ``values`` is set (coding 'current': uint8 (n_samples, n_inputs)) or ``offsets`` and
    ``sources`` are (every other coding): events of sample n at timestep t are
    ``sources[offsets[n * timesteps + t]:offsets[n * timesteps + t + 1]]``, int32, strictly increasing.
    ``labels`` is int32 (n_samples,), classes from 0, -1 where unknown.

    >>> import codesign, numpy as np
    >>> events = np.zeros((1, 3, 2), bool)
    >>> events[0, 1] = True
    >>> samples = codesign.Stimulus.from_dense(events, labels=[1])
    >>> len(samples), [samples.events(0, timestep).tolist() for timestep in range(3)]
    (1, [[], [0, 1], []])
    """

    n_inputs: int
    timesteps: int
    labels: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64] | None = None
    sources: npt.NDArray[np.int32] | None = None
    values: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return int(self.labels.size)

    @property
    def is_current(self) -> bool:
        return self.values is not None

    def take(self, indices: Sequence[int] | npt.NDArray[np.integer] | slice) -> Stimulus:
        """Stimulus of the chosen samples, in the order given."""
        chosen = np.arange(len(self))[indices]
        if self.values is not None:
            return Stimulus(self.n_inputs, self.timesteps, self.labels[chosen], values=self.values[chosen])
        assert self.offsets is not None and self.sources is not None
        rows = (chosen[:, None] * self.timesteps + np.arange(self.timesteps)).ravel()
        counts = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        sources = self.sources[np.repeat(self.offsets[rows], counts) + within]
        return Stimulus(self.n_inputs, self.timesteps, self.labels[chosen], offsets, sources)

    def spread(self, most: int) -> Stimulus:
        """At most ``most`` samples at even distances, in order: where classes or patients follow another, of each."""
        count = min(len(self), most)
        return self.take(np.arange(count) * len(self) // max(count, 1))

    def events(self, sample: int, timestep: int) -> npt.NDArray[np.int32]:
        """Sources that send an event in this sample and timestep."""
        assert self.offsets is not None and self.sources is not None
        row = sample * self.timesteps + timestep
        return self.sources[self.offsets[row] : self.offsets[row + 1]]

    def dense(self) -> npt.NDArray[np.uint8]:
        """uint8 (n_samples, timesteps, n_inputs): 1 where a source sends an event."""
        assert self.offsets is not None and self.sources is not None
        dense = np.zeros((len(self) * self.timesteps, self.n_inputs), np.uint8)
        dense[np.repeat(np.arange(dense.shape[0]), np.diff(self.offsets)), self.sources] = 1
        return dense.reshape(len(self), self.timesteps, self.n_inputs)

    @classmethod
    def from_dense(cls, events: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> Stimulus:
        """Event stimulus from a boolean or 0/1 (n_samples, timesteps, n_inputs) array.

        A source either sends an event in a timestep or does not: counts, rates and polarities are refused with an
        InputError, as are labels that :meth:`validate` would refuse.
        """
        events = np.asarray(events)
        if events.dtype.kind not in "biuf":
            raise InputError(f"dense events are {events.dtype}, expected booleans, 0 or 1")
        if events.ndim != 3:
            raise InputError(f"dense events have shape {events.shape}, expected (samples, timesteps, inputs)")
        if events.dtype != np.bool_:
            other = events[(events != 0) & (events != 1)]
            if other.size:
                raise InputError(
                    f"dense events hold {other.flat[0]!s}, expected booleans, 0 or 1: an input sends one event in a "
                    "timestep or none. Give counts more timesteps, polarities an input each, or use coding 'rate'"
                )
        n_samples, timesteps, n_inputs = events.shape
        rows, sources = np.nonzero(events.reshape(n_samples * timesteps, n_inputs))
        offsets = np.searchsorted(rows, np.arange(n_samples * timesteps + 1)).astype(np.int64)
        if labels is None:
            chosen = np.full(n_samples, -1, np.int32)
        else:
            chosen = checked_labels(np.asarray(labels), None, "dense events", name="labels", lowest=-1)
            if chosen.size != n_samples:
                raise InputError(f"dense events: {chosen.size} labels for {n_samples} samples")
        return cls(n_inputs, timesteps, chosen, offsets, sources.astype(np.int32))

    def validate(self, where: str = "stimulus", n_classes: int | None = None) -> None:
        """Raise InputError unless shapes, dtypes, ranges and the order of sources are right.

        Labels are in 0 .. ``n_classes`` - 1 where that number is given, or -1 where unknown.
        """
        for name, size, limit in (
            ("n_inputs", self.n_inputs, MAX_WIDTH),
            ("timesteps", self.timesteps, MAX_TIMESTEPS),
        ):
            if not 1 <= size <= limit:
                raise InputError(f"{where}: {name} is {size}, expected 1..{limit}")
        checked_labels(self.labels, n_classes, where, name="labels", lowest=-1)
        n_samples = len(self)
        if self.values is not None:
            if self.offsets is not None or self.sources is not None:
                raise InputError(f"{where}: holds both values and events")
            if self.values.dtype != np.uint8 or self.values.shape != (n_samples, self.n_inputs):
                raise InputError(
                    f"{where}: values are {self.values.dtype} {self.values.shape}, "
                    f"expected uint8 ({n_samples}, {self.n_inputs})"
                )
            return
        if self.offsets is None or self.sources is None:
            raise InputError(f"{where}: neither values nor events")
        integers(self.sources, "sources", where)
        offsets = checked_offsets(self.offsets, n_samples * self.timesteps, self.sources.size, where)
        if self.sources.size:
            if self.sources.min() < 0 or self.sources.max() >= self.n_inputs:
                raise InputError(f"{where}: a source is outside 0..{self.n_inputs - 1}")
            # Sources rise but where a row begins. A byte for an event: stimuli have hundreds of millions.
            rises = self.sources[1:] > self.sources[:-1]
            begins = offsets[1:-1]
            rises[begins[(begins > 0) & (begins < self.sources.size)] - 1] = True
            if not rises.all():
                raise InputError(f"{where}: a source sends more than one event in a timestep, or out of order")

    def check_for(self, network: Fed) -> None:
        """Raise InputError unless the stimulus is valid and has the network's inputs, timesteps and coding."""
        coding = network.coding
        if self.n_inputs != network.n_inputs:
            raise InputError(f"stimulus has {self.n_inputs} inputs, the network {network.n_inputs}")
        if self.timesteps != network.timesteps:
            raise InputError(f"stimulus has {self.timesteps} timesteps, the network {network.timesteps}")
        if self.is_current != coding.is_current:
            raise InputError(f"stimulus does not have the network's input coding {coding.kind!r}")
        self.validate()
        largest = 0 if self.values is None else int(self.values.max(initial=0))
        if largest > coding.largest:
            raise InputError(f"stimulus value {largest} exceeds {coding.input_bits} bits")

    def _check_some(self, path: str | Path) -> None:
        if not len(self):
            raise InputError(f"{path}: holds no samples")

    def save(self, path: str | Path) -> None:
        """Write as a pickle-free npz (atomically). Raises InputError for what :meth:`load` would refuse."""
        self.validate(str(path))
        self._check_some(path)
        arrays: dict[str, npt.NDArray] = {
            "n_inputs": np.int64(self.n_inputs),  # type: ignore[dict-item]
            "timesteps": np.int64(self.timesteps),  # type: ignore[dict-item]
            "labels": self.labels,
        }
        for name in ("offsets", "sources", "values"):
            array = getattr(self, name)
            if array is not None:
                arrays[name] = array
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path, n_classes: int | None = None) -> Stimulus:
        """Read and validate; labels are held against ``n_classes`` where that is given.

        Raises InputError with the file's name in front.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such stimulus; `codesign freeze` writes one")
        arrays = read_npz(path, ARRAYS)
        missing = [name for name in ARRAYS[:3] if name not in arrays]
        if missing:
            raise InputError(f"{path}: not a stimulus file, no array {', '.join(map(repr, missing))} in it")
        sizes: dict[str, int] = {}
        for name in ("n_inputs", "timesteps"):
            if arrays[name].shape != () or arrays[name].dtype.kind not in "iu":
                raise InputError(
                    f"{path}: {name} is {arrays[name].dtype} {arrays[name].shape}, expected one whole number"
                )
            sizes[name] = int(arrays[name])
        stimulus = cls(
            sizes["n_inputs"],
            sizes["timesteps"],
            arrays["labels"],
            arrays.get("offsets"),
            arrays.get("sources"),
            arrays.get("values"),
        )
        stimulus.validate(str(path), n_classes)
        stimulus._check_some(path)
        dtypes = {"labels": np.int32, "offsets": np.int64, "sources": np.int32}
        found = {name: getattr(stimulus, name) for name in dtypes}
        return replace(
            stimulus, **{name: array.astype(dtypes[name]) for name, array in found.items() if array is not None}
        )
