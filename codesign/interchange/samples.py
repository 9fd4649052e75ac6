"""Samples of an import: how they are read, and which of them are for what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.basics.arrays import checked_labels, read_npz, real
from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.stimulus import ARRAYS, Stimulus

# Of the samples to fine-tune with, one of so many chooses: the epoch and the bits.
SELECTING = 4
LEAST_TUNING = 2 * SELECTING


@dataclass(frozen=True)
class Roles:
    """Samples by what they are for; on the reported ones nothing is trained and nothing chosen.

    calibration : they decide widths. choosing : they choose epochs and bits. training : weights are trained on them,
    None without fine-tuning. reported : others than all of these, unless there is one sample only.
    """

    training: Stimulus | None
    choosing: Stimulus
    calibration: Stimulus
    reported: Stimulus

    @property
    def apart(self) -> bool:
        """Whether what is reported on has chosen nothing."""
        return self.reported is not self.calibration

    def document(self) -> dict[str, int]:
        """How many there are of each."""
        parts = {"training": self.training, "choosing": self.choosing, "calibration": self.calibration}
        return {name: 0 if part is None else len(part) for name, part in {**parts, "reported": self.reported}.items()}


def split(samples: Stimulus, *, tuned: bool = False, training: Stimulus | None = None) -> Roles:
    """Every second sample is reported on, the others choose and decide widths.

    With fine-tuning (``tuned``) one of four of those that choose still does, and the other three are trained on; or, if
    there are ``training`` samples beside, the same is done with these.
    """
    if len(samples) < 2:
        return Roles(None, samples, samples, samples)
    calibration, reported = samples.take(slice(0, None, 2)), samples.take(slice(1, None, 2))
    if not tuned:
        return Roles(None, calibration, calibration, reported)
    ours = calibration if training is None else training
    chooses = np.arange(len(ours)) % SELECTING == SELECTING - 1
    trained, choosing = ours.take(np.flatnonzero(~chooses)), ours.take(np.flatnonzero(chooses))
    return Roles(trained, choosing, calibration, reported)


def check_tuning(samples: Stimulus, path: object) -> None:
    """Raise InputError unless there are enough samples to fine-tune with, all with a label."""
    if np.any(samples.labels < 0):
        raise InputError(f"{path}: fine-tuning needs a label (y) for every sample")
    if len(samples) < LEAST_TUNING:
        raise InputError(f"{path}: {len(samples)} samples are too few to fine-tune with, {LEAST_TUNING} at least")


def check_classes(roles: Roles, path: object) -> None:
    """Raise InputError if a class is reported on of which no sample is trained on, as with labels that alternate."""
    if roles.training is not None:
        absent = sorted(set(roles.reported.labels.tolist()) - {-1} - set(roles.training.labels.tolist()))
        if absent:
            raise InputError(f"{path}: no sample of class {absent[0]} is among those to train on; shuffle the samples")


def read_samples(path: Path, input_bits: int = 0, *, stated: bool = True) -> Stimulus:
    """Samples of a stimulus file, or of an npz with ``x`` and perhaps labels ``y``.

    x : events, 0 or 1, (samples, timesteps, inputs or the axes of a picture). With ``input_bits``, whose constant
    currents need the number of timesteps from elsewhere, only a stimulus file is read. ``stated``: whether an option
    says ``input_bits``, and not the network's own file.

    Raises InputError in one line for a file of another form.
    """
    arrays = read_npz(path, ("x", "y", *ARRAYS))
    if "x" not in arrays:
        stimulus = Stimulus.load(path)
    elif input_bits:
        raise UnsupportedError(
            f"{path}: x, where the network takes currents; write a stimulus (Stimulus.save), which has its timesteps"
        )
    else:
        x = real(arrays["x"], "x", path)
        if x.ndim < 3 or not x.size:
            raise InputError(f"{path}: x has the shape {x.shape}, expected (samples, timesteps, inputs...)")
        if x.dtype.kind == "f":
            if np.any((x != 0) & (x != 1)):
                raise InputError(f"{path}: x holds other values than 0 and 1; events are one a source and timestep")
            x = x.astype(bool)
        labels = None
        if "y" in arrays:
            if arrays["y"].shape != (len(x),):
                raise InputError(f"{path}: y has the shape {arrays['y'].shape} for {len(x)} samples")
            labels = checked_labels(arrays["y"], None, path)
        try:
            stimulus = Stimulus.from_dense(x.reshape(*x.shape[:2], -1), labels)
            stimulus.validate(str(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    if stimulus.is_current != bool(input_bits):
        found, expected, option = ("currents", "events", "add --input-bits N")
        if not stimulus.is_current:
            found, expected, option = ("events", "currents", "leave --input-bits out")
        raise InputError(f"{path}: holds {found}, the network takes {expected}" + (f"; {option}" if stated else ""))
    return stimulus
