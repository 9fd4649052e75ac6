"""Encoded samples: what the golden model and the hardware are both fed.

Encoders (:mod:`codesign.encoders`) make a :class:`Stimulus` from raw data; nothing after it sees raw
data again. Events are stored flat, with one offset per sample and timestep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.files import atomic_path

MAX_EVENTS = 1 << 31


@dataclass(frozen=True, eq=False)
class Stimulus:
    """Samples for a network with ``n_inputs`` sources.

    Either ``values`` is set (coding 'current': uint8 (n_samples, n_inputs)) or ``offsets`` and
    ``sources`` are (every other coding): events of sample n at timestep t are
    ``sources[offsets[n * timesteps + t]:offsets[n * timesteps + t + 1]]``, int32, strictly increasing.
    ``labels`` is int32 (n_samples,), -1 where unknown.
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
    def from_dense(cls, events: npt.NDArray[np.integer | np.bool_], labels: npt.ArrayLike | None = None) -> Stimulus:
        """Event stimulus from a boolean or 0/1 (n_samples, timesteps, n_inputs) array."""
        n_samples, timesteps, n_inputs = events.shape
        rows, sources = np.nonzero(events.reshape(n_samples * timesteps, n_inputs))
        offsets = np.searchsorted(rows, np.arange(n_samples * timesteps + 1)).astype(np.int64)
        chosen = np.full(n_samples, -1, np.int32) if labels is None else np.asarray(labels, np.int32)
        return cls(n_inputs, timesteps, chosen, offsets, sources.astype(np.int32))

    def validate(self, where: str = "stimulus") -> None:
        """Raise InputError unless shapes, ranges and the order of sources are right."""
        n_samples = len(self)
        if self.values is not None:
            if self.values.dtype != np.uint8 or self.values.shape != (n_samples, self.n_inputs):
                raise InputError(
                    f"{where}: values are {self.values.dtype} {self.values.shape}, "
                    f"expected uint8 ({n_samples}, {self.n_inputs})"
                )
            return
        if self.offsets is None or self.sources is None:
            raise InputError(f"{where}: neither values nor events")
        if self.offsets.shape != (n_samples * self.timesteps + 1,):
            raise InputError(f"{where}: {self.offsets.size} offsets, expected {n_samples * self.timesteps + 1}")
        if self.offsets[0] != 0 or self.offsets[-1] != self.sources.size or np.any(np.diff(self.offsets) < 0):
            raise InputError(f"{where}: offsets do not rise from 0 to the number of events ({self.sources.size})")
        if self.sources.size:
            if self.sources.min() < 0 or self.sources.max() >= self.n_inputs:
                raise InputError(f"{where}: a source is outside 0..{self.n_inputs - 1}")
            rows = np.repeat(np.arange(self.offsets.size - 1, dtype=np.int64), np.diff(self.offsets))
            if np.any(np.diff(rows * self.n_inputs + self.sources) <= 0):
                raise InputError(f"{where}: a source sends more than one event in a timestep, or out of order")

    def save(self, path: str | Path) -> None:
        """Write as a pickle-free npz (atomically)."""
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
    def load(cls, path: str | Path) -> Stimulus:
        """Read and validate. Raises InputError with the file's name in front."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such stimulus; `codesign freeze` writes one")
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            stimulus = cls(
                int(arrays["n_inputs"]),
                int(arrays["timesteps"]),
                arrays["labels"],
                arrays.get("offsets"),
                arrays.get("sources"),
                arrays.get("values"),
            )
        except Exception as error:
            raise InputError(f"{path}: truncated or not a stimulus file ({error})") from None
        stimulus.validate(str(path))
        return stimulus
