"""Stimuli as batches of tensors, in an order and with random shifts that depend on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codesign.config import DataConfig
from codesign.data.samples import Dataset
from codesign.errors import InputError
from codesign.stimulus import Stimulus


class Batches:
    """Batches of one stimulus.

    Parameters
    ----------
    stimulus : encoded samples.
    input_scale : factor on coding 'current' values (1 / (2**input_bits - 1) for float units, 1 for integer units).
    image : (height, width) if random shifts are wanted, with at most ``shift`` pixels in each direction.
    """

    def __init__(
        self,
        stimulus: Stimulus,
        input_scale: float = 1.0,
        image: tuple[int, int] | None = None,
        shift: int = 0,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.stimulus, self.input_scale, self.image, self.shift = stimulus, input_scale, image, shift
        self.device, self.dtype = device, dtype

    def __len__(self) -> int:
        return len(self.stimulus)

    def take(self, indices: npt.NDArray[np.integer], shifts: npt.NDArray[np.integer] | None = None) -> Tensor:
        """Inputs of the chosen samples: (batch, n_in) for coding 'current', else (T, batch, n_in)."""
        part = self.stimulus.take(indices)
        dense = part.values if part.values is not None else part.dense()
        if shifts is not None and self.image is not None:
            dense = _shifted(dense, self.image, shifts)
        tensor = torch.from_numpy(dense).to(self.device).to(self.dtype)
        if part.is_current:
            return tensor if self.input_scale == 1.0 else tensor * self.input_scale
        return tensor.transpose(0, 1).contiguous()

    def epoch(self, size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled batches (inputs, labels) of one epoch; the last may be smaller."""
        random = np.random.default_rng([seed, 1, epoch])
        order = random.permutation(len(self))
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            shifts = random.integers(-self.shift, self.shift + 1, (len(indices), 2)) if self.shift else None
            yield self.take(indices, shifts), self._labels(indices)

    def ordered(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples in order, without shifts."""
        for start in range(0, len(self), size):
            indices = np.arange(start, min(start + size, len(self)))
            yield self.take(indices), self._labels(indices)

    def _labels(self, indices: npt.NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(self.stimulus.labels[indices].astype(np.int64)).to(self.device)


def image_shape(dataset: Dataset, config: DataConfig) -> tuple[int, int] | None:
    """(height, width) for random shifts, None if none are asked for. InputError if the samples are no images."""
    if not config.shift_augmentation:
        return None
    shape = dataset.sample_shape
    if config.coding in ("events", "delta") or len(shape) != 2:
        raise InputError(
            f"data.shift_augmentation needs images (height, width) and not coding {config.coding!r}; "
            f"samples of {dataset.name!r} are {shape or 'events'}"
        )
    return shape[0], shape[1]


def _shifted(
    dense: npt.NDArray[np.uint8], image: tuple[int, int], shifts: npt.NDArray[np.integer]
) -> npt.NDArray[np.uint8]:
    """Samples (n, ..., height * width) moved by ``shifts`` (n, 2) pixels; what comes in from outside is 0."""
    height, width = image
    images = dense.reshape(len(dense), -1, height, width)
    moved = np.zeros_like(images)
    for dy, dx in np.unique(shifts, axis=0):
        rows = np.flatnonzero((shifts == (dy, dx)).all(axis=1))
        target = (slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0)))
        source = (slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0)))
        moved[rows, :, target[0], target[1]] = images[rows, :, source[0], source[1]]
    return moved.reshape(dense.shape)
