"""Stimuli as batches of tensors, in an order and with an augmentation that depend on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codesign.basics.errors import InputError
from codesign.config import DataConfig
from codesign.contract.stimulus import Stimulus
from codesign.data.encoders import coding_of, n_sources
from codesign.data.samples import Dataset
from codesign.train.architecture import Shape

Dense = npt.NDArray[np.uint8]


def input_shape(dataset: Dataset, config: DataConfig) -> Shape:
    """Shape of the network's input: (channels, height, width) where a sample is an image, else (sources,).

    Arrays (height, width) have one channel. Coding 'delta' makes sources of its own and has no image.
    """
    shape = dataset.sample_shape
    if not dataset.has_events and config.coding != "delta" and len(shape) in (2, 3):
        return (1, *shape) if len(shape) == 2 else shape
    return (n_sources(dataset, config),)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training samples.

    image : (channels, height, width), None if the samples are no images.
    shift : at most so many pixels in each direction. flip : mirror left to right or not, with probability 1/2.
    cutout : side of a blanked square around a random pixel. jitter : at most so many timesteps earlier or later.
    drop : probability with which a source is silent throughout a sample.
    mix : probability with which a rectangle of a sample is another one's (CutMix); classes : how many there are.
    """

    image: Shape | None = None
    shift: int = 0
    flip: bool = False
    cutout: int = 0
    jitter: int = 0
    drop: float = 0.0
    mix: float = 0.0
    classes: int = 0

    @classmethod
    def of(cls, dataset: Dataset, config: DataConfig) -> Augmentation | None:
        """The configured augmentation, None for none. InputError for one that does not suit the samples."""
        shape = input_shape(dataset, config)
        image = shape if len(shape) == 3 else None
        for name in ("shift_augmentation", "flip_augmentation", "cutout_augmentation", "cutmix_augmentation"):
            if getattr(config, name) and image is None:
                raise InputError(
                    f"data.{name} needs images (height, width) or (channels, height, width) and not coding "
                    f"{coding_of(dataset, config)!r}; samples of {dataset.name!r} are "
                    f"{dataset.sample_shape or 'events'}"
                )
        if image is not None and config.shift_augmentation >= min(image[1:]):
            raise InputError(
                f"data.shift_augmentation = {config.shift_augmentation} would move all of an image of "
                f"{image[1]} x {image[2]} out of it; it must be less than each side"
            )
        for name in ("event_jitter", "event_drop"):
            if getattr(config, name) and coding_of(dataset, config) == "current":
                raise InputError(f"data.{name} needs events and not coding 'current'")
        if image is not None and config.cutout_augmentation > min(image[1:]):
            raise InputError(
                f"data.cutout_augmentation = {config.cutout_augmentation} is larger than the images, "
                f"{image[1]} x {image[2]}"
            )
        found = cls(
            image,
            config.shift_augmentation,
            config.flip_augmentation,
            config.cutout_augmentation,
            config.event_jitter,
            config.event_drop,
            config.cutmix_augmentation,
            dataset.n_classes,
        )
        return None if found == cls(image, classes=dataset.n_classes) else found

    def apply(self, samples: Dense, random: np.random.Generator) -> Dense:
        """Changed copies of samples (n, n_in) or (n, T, n_in)."""
        count = len(samples)
        if self.shift:
            samples = self._shifted(samples, random.integers(-self.shift, self.shift + 1, (count, 2)))
        if self.flip:
            images = self._images(samples)
            chosen = random.random(count) < 0.5
            samples = np.where(chosen[:, None, None, None], images[..., ::-1], images).reshape(samples.shape)
        if self.cutout:
            samples = self._cut(samples, random)
        if self.jitter:
            samples = _delayed(samples, random.integers(-self.jitter, self.jitter + 1, count))
        if self.drop:
            samples = samples * (random.random((count, 1, samples.shape[-1])) >= self.drop)
        return samples

    def mixed(
        self, samples: Dense, labels: npt.NDArray[np.integer], random: np.random.Generator
    ) -> tuple[Dense, npt.NDArray[np.float32]]:
        """Samples, some with a rectangle of another one of the batch, and the classes' shares in each (n, classes).

        CutMix (Yun et al., ICCV 2019): the rectangle has the image's proportions and a random centre, and covers a
        share of the image drawn evenly from 0 to 1 before what reaches over the edge is cut off. The pixels that remain
        are the label's share, the others the other one's. Here each sample has a rectangle of its own.
        """
        count, images = len(samples), self._images(samples)
        others = random.permutation(count)
        sides = np.sqrt(random.random((count, 1))) * (random.random((count, 1)) < self.mix)
        inside = []
        for size in images.shape[2:]:
            centre, half = random.integers(0, size, (count, 1)), np.rint(sides * size / 2)
            place = np.arange(size)
            inside.append((place >= centre - half) & (place < centre + half))
        pasted = inside[0][:, :, None] & inside[1][:, None, :]
        share = pasted.mean((1, 2), dtype=np.float64).astype(np.float32)
        shares = np.zeros((count, self.classes), np.float32)
        rows = np.arange(count)
        shares[rows, labels] = 1 - share
        np.add.at(shares, (rows, labels[others]), share)
        return np.where(pasted[:, None], images[others], images).reshape(samples.shape), shares

    def _images(self, samples: Dense) -> Dense:
        """(n, planes, height, width), a plane for each channel and timestep."""
        assert self.image is not None
        return samples.reshape(len(samples), -1, *self.image[1:])

    def _shifted(self, samples: Dense, shifts: npt.NDArray[np.integer]) -> Dense:
        """Samples moved by ``shifts`` (n, 2) pixels; what comes in from outside is 0."""
        images = self._images(samples)
        height, width = images.shape[2:]
        moved = np.zeros_like(images)
        for dy, dx in np.unique(shifts, axis=0):
            rows = np.flatnonzero((shifts == (dy, dx)).all(axis=1))
            target = (slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0)))
            source = (slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0)))
            moved[rows, :, target[0], target[1]] = images[rows, :, source[0], source[1]]
        return moved.reshape(samples.shape)

    def _cut(self, samples: Dense, random: np.random.Generator) -> Dense:
        """Samples with a square of zeros, which may reach over the edge (DeVries and Taylor, 2017)."""
        images = self._images(samples)
        inside = []
        for side in images.shape[2:]:
            first = random.integers(0, side, (len(samples), 1)) - self.cutout // 2
            place = np.arange(side)
            inside.append((place >= first) & (place < first + self.cutout))
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return np.where(square, 0, images).astype(samples.dtype).reshape(samples.shape)


def _delayed(samples: Dense, delays: npt.NDArray[np.integer]) -> Dense:
    """Samples (n, T, n_in) moved by so many timesteps; what would leave 0..T-1 is lost."""
    moved = np.zeros_like(samples)
    timesteps = samples.shape[1]
    for delay in np.unique(delays):
        if abs(delay) < timesteps:
            rows = delays == delay
            moved[rows, max(delay, 0) : timesteps + min(delay, 0)] = samples[
                rows, max(-delay, 0) : timesteps + min(-delay, 0)
            ]
    return moved


class Batches:
    """Batches of one stimulus.

    Parameters
    ----------
    stimulus : encoded samples.
    input_scale : factor on coding 'current' values (1 / (2**input_bits - 1) for float units, 1 for integer units).
    augmentation : random changes of the batches of :meth:`epoch`.
    """

    def __init__(
        self,
        stimulus: Stimulus,
        input_scale: float = 1.0,
        augmentation: Augmentation | None = None,
        device: str = "cpu",
    ) -> None:
        self.stimulus, self.input_scale, self.augmentation = stimulus, input_scale, augmentation
        self.device = device

    def __len__(self) -> int:
        return len(self.stimulus)

    def take(self, indices: npt.NDArray[np.integer]) -> Tensor:
        """Inputs of the chosen samples as they are: (batch, n_in) for coding 'current', else (T, batch, n_in)."""
        return self._inputs(self._dense(indices))

    def draw(self, indices: npt.NDArray[np.integer], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Inputs of the chosen samples, changed by draws from ``random``, and their targets.

        Targets are labels, int64 (batch,), or the shares of the classes, float32 (batch, classes), where samples are
        mixed.
        """
        dense, augmentation = self._dense(indices), self.augmentation
        if augmentation is None:
            return self._inputs(dense), self._labels(indices)
        dense = augmentation.apply(dense, random)
        if not augmentation.mix:
            return self._inputs(dense), self._labels(indices)
        dense, shares = augmentation.mixed(dense, self.stimulus.labels[indices], random)
        return self._inputs(dense), torch.from_numpy(shares).to(self.device)

    def starts(self, size: int, least: int = 1) -> list[int]:
        """Where the batches of an epoch begin; the last may be smaller than ``size``.

        One of fewer than ``least`` samples joins the batch before it.
        """
        found = list(range(0, len(self), size))
        return found[:-1] if len(found) > 1 and len(self) - found[-1] < least else found

    def epoch(self, size: int, seed: int, epoch: int, least: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled batches (inputs, targets) of one epoch, as :meth:`draw` and :meth:`starts` have them."""
        random = np.random.default_rng([seed, 1, epoch])
        order = random.permutation(len(self))
        for indices in np.split(order, self.starts(size, least)[1:]):
            yield self.draw(indices, random)

    def ordered(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples in order, as they are."""
        for start in range(0, len(self), size):
            indices = np.arange(start, min(start + size, len(self)))
            yield self.take(indices), self._labels(indices)

    def _dense(self, indices: npt.NDArray[np.integer]) -> Dense:
        part = self.stimulus.take(indices)
        return part.values if part.values is not None else part.dense()

    def _inputs(self, dense: Dense) -> Tensor:
        tensor = torch.from_numpy(dense).to(self.device).float()
        if self.stimulus.is_current:
            return tensor if self.input_scale == 1.0 else tensor * self.input_scale
        return tensor.transpose(0, 1).contiguous()

    def _labels(self, indices: npt.NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(self.stimulus.labels[indices].astype(np.int64)).to(self.device)
