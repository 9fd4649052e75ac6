"""The section ``[data]``."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from codesign.config.base import AUTO, Auto, Count, FilePath, Fraction, Section
from codesign.contract.binning import TimeUnit
from codesign.contract.network import CodingKind


class DataConfig(Section):
    """Which samples, how they are split and encoded."""

    set: Literal["digits", "mnist", "idx", "cifar10", "fsdd-spikes", "shd", "ssc", "mitbih-beats", "npz"] = "digits"
    path: FilePath | None = Field(
        default=None,
        description="folder or file, from the folder of this file on, with --set from the current one; default: "
        "$CODESIGN_DATA, then the user cache",
    )
    coding: CodingKind | Auto = Field(default=AUTO, description="auto: events for events, current for arrays")
    input_bits: int = Field(default=4, ge=1, le=8, description="bits of one input value (coding 'current')")
    validation: float | None = Field(
        default=None,
        gt=0,
        description="samples, or a fraction below 1, taken from the training set; default 150 but at most 15 % "
        "and at least one of each class, or what the set names",
    )
    test: float | None = Field(
        default=None, gt=0, description="samples, or a fraction below 1; only for sets without an official test set"
    )
    train_limit: Count | None = Field(default=None, description="use at most this many training samples (stratified)")
    test_limit: Count | None = Field(default=None, description="use at most this many test samples (the first ones)")
    split_seed: int = Field(
        default=0, ge=0, lt=1 << 32, description="seed of the stratified split; not changed by --seed"
    )
    step_ms: Annotated[float, Field(gt=0)] | Auto = Field(
        default=AUTO,
        description="width of a timestep (coding 'events' from times); auto: so that the timesteps together last as "
        "long as nearly all training samples",
    )
    range: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="values at the bottom and the top of the scale (sets 'npz', 'idx'); default: see docs/data.md",
    )
    time_unit: TimeUnit = Field(default="ms", description="unit of the file's event times (set 'npz')")
    allow_dropped: bool = Field(
        default=False, description="go on if half of a set's events and more fall outside the timesteps"
    )
    rate_max: Fraction = Field(
        default=1.0, description="event probability per timestep of a full-scale input (coding 'rate')"
    )
    encoder_seed: int = Field(default=0, ge=0, lt=1 << 64, description="seed of the encoder's draws (coding 'rate')")
    delta: Fraction | list[Fraction] = Field(
        default=0.1, description="send-on-delta level, or several, as fractions of full scale (coding 'delta')"
    )
    rr: bool = Field(default=False, description="RR intervals as further sources (set 'mitbih-beats')")
    subtract_mean_beat: bool = Field(
        default=False, description="beats less the running mean beat of their record (set 'mitbih-beats')"
    )
    validation_records: list[int] | None = Field(
        default=None, min_length=1, description="training records held out (set 'mitbih-beats'); docs/data.md: default"
    )
    shift_augmentation: int = Field(default=0, ge=0, le=4, description="random shifts of training images, +- pixels")
    flip_augmentation: bool = Field(
        default=False, description="mirror each training image left to right or not, each with probability 1/2"
    )
    cutout_augmentation: int = Field(
        default=0, ge=0, description="side of a square of training images that is blanked at a random place, pixels"
    )
    cutmix_augmentation: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability with which a rectangle of a training image is replaced by another image's, its label "
        "in proportion",
    )
    event_jitter: int = Field(
        default=0, ge=0, le=64, description="random shifts of a training sample's events in time, +- timesteps"
    )
    event_drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="fraction of the event sources silenced in each training sample",
    )

    coding_of_key: ClassVar[dict[str, CodingKind]] = {
        "input_bits": "current",
        "rate_max": "rate",
        "encoder_seed": "rate",
        "step_ms": "events",
        "time_unit": "events",
        "allow_dropped": "events",
        "delta": "delta",
    }

    @model_validator(mode="after")
    def _belongs(self) -> DataConfig:
        foreign = []
        for name, coding in self.coding_of_key.items():
            # 'auto' ends as one of two codings; what does not belong to it is refused then.
            fits = (coding, AUTO) if coding in ("current", "events") else (coding,)
            if name in self.model_fields_set and self.coding not in fits:
                foreign.append(f"{name} belongs to coding = {coding!r}")
        if foreign:
            # All at once: `codesign init` writes every key down.
            raise ValueError(
                f"{'; '.join(foreign)}, not {self.coding!r}: leave {'it' if len(foreign) == 1 else 'them'} out"
            )
        for name in ("rr", "subtract_mean_beat", "validation_records"):
            if name in self.model_fields_set and self.set != "mitbih-beats":
                raise ValueError(f"{name} belongs to set = 'mitbih-beats', not {self.set!r}")
        for name, size in (("validation", self.validation), ("test", self.test)):
            if size is not None and size >= 1 and not size.is_integer():
                raise ValueError(f"{name} = {size:g} is neither a whole number of samples nor a fraction below 1")
        if "time_unit" in self.model_fields_set and self.set != "npz":
            raise ValueError(f"time_unit belongs to set = 'npz'; set {self.set!r} has a unit of its own")
        if self.range is not None:
            if self.set not in ("npz", "idx") or self.coding == "events":
                raise ValueError(
                    "range belongs to arrays of the sets 'npz' and 'idx'; others have a scale of their own"
                )
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"range is [{low:g}, {high:g}], expected [low, high] with low < high")
        if self.path is not None and self.set == "digits":
            raise ValueError("path: set 'digits' is installed with scikit-learn and has no file")
        if isinstance(self.delta, list) and not self.delta:
            raise ValueError("delta: an empty list gives no sources")
        return self
