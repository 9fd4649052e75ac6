"""Warnings about data that can be used, but look as if something was assumed wrongly; each names what changes it.

Thresholds are fractions that the project's own data sets keep away from; docs/data.md lists them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.config import AUTO, DataConfig
from codesign.contract.binning import TimeUnit, bin_times, step_in
from codesign.contract.stimulus import Stimulus
from codesign.data.samples import Dataset, DataWarning, Events, Split
from codesign.data.scale import enclosing

# Of a set's events: from here on, dropped ones are warned of, and refused.
DROPPED_WARNED, DROPPED_REFUSED = 0.01, 0.5
# Of the events within the timesteps; a cochlea's or a camera's channels merge some.
MERGED_WARNED = 0.5
# Part of the scale that the training values have to span.
SPAN_WARNED = 1 / 8
# Of all inputs; border pixels of images never fire.
SILENT_WARNED = 0.25

TIMES_CURE = "data.step_ms, network.timesteps or data.time_unit (own data) change it"


@dataclass(frozen=True)
class EventCounts:
    """Events of a stimulus: kept, merged into another of the same source and timestep, and dropped.

    Dropped events are ``early`` (before time 0) or ``late`` (after the last timestep).
    """

    events: int = 0
    merged: int = 0
    early: int = 0
    late: int = 0

    @property
    def dropped(self) -> int:
        return self.early + self.late

    @property
    def total(self) -> int:
        return self.events + self.merged + self.dropped

    def document(self) -> dict[str, int]:
        """JSON-able; ``late`` and ``early`` add up to ``dropped``."""
        kept = {"events": self.events, "merged": self.merged, "dropped": self.dropped}
        return {**kept, "early": self.early, "late": self.late}

    def text(self) -> str:
        """'3,600 events, 12 merged, 0 dropped'."""
        return f"{self.total:,} events, {self.merged:,} merged, {self.dropped:,} dropped"


def step_of(config: DataConfig) -> float:
    """Milliseconds of a timestep. Raises InputError if they are still left to the data."""
    if config.step_ms == AUTO:
        raise InputError("data.step_ms = 'auto' is chosen by codesign.data.automatic.resolve; give milliseconds")
    return config.step_ms


def check_events(counts: EventCounts, events: Events, config: DataConfig, timesteps: int, name: str) -> None:
    """Warn of events that were dropped or merged.

    Raises InputError if half or more were dropped and ``config.allow_dropped`` is not set.
    """
    unit = events.time_unit
    assumed = f"times are taken as {unit}, a timestep is data.step_ms = {step_of(config):g} ms"
    if counts.total and counts.dropped >= DROPPED_WARNED * counts.total:
        where = "before time 0" if counts.early > counts.late else f"after the last of {timesteps} timesteps"
        text = (
            f"{name}: {counts.dropped:,} of {counts.total:,} events ({_percent(counts.dropped / counts.total)}) are "
            f"dropped, {'all' if not counts.early or not counts.late else 'most'} {where}: {assumed}"
            f"{_likely_cause(events, config, timesteps)}; "
        )
        if counts.dropped >= DROPPED_REFUSED * counts.total and not config.allow_dropped:
            raise InputError(
                f"{text}{TIMES_CURE}; data.allow_dropped = true (predict: --allow-dropped) goes on all the same"
            )
        warnings.warn(text + TIMES_CURE, DataWarning, stacklevel=3)
    inside = counts.events + counts.merged
    if inside and counts.merged >= MERGED_WARNED * inside:
        warnings.warn(
            f"{name}: {counts.merged:,} of {inside:,} events ({_percent(counts.merged / inside)}) are merged into "
            f"another of the same input and timestep: {assumed}{_likely_cause(events, config, timesteps)}; "
            "a smaller data.step_ms with more network.timesteps keeps more of them apart",
            DataWarning,
            stacklevel=3,
        )


def _likely_cause(events: Events, config: DataConfig, timesteps: int) -> str:
    """What the times look like if not what they were taken for: '' or a clause."""
    times = events.times
    if times.dtype.kind == "u":
        wrapped = np.count_nonzero(times > np.iinfo(times.dtype).max // 2)
        late = np.count_nonzero(_bins(events, events.time_unit, config, timesteps) >= timesteps)
        if late and wrapped >= 0.5 * late and times.dtype.itemsize >= 4:
            return f" (times near {np.iinfo(times.dtype).max} look like unsigned differences that wrapped below 0)"
    units: list[TimeUnit] = ["s", "ms", "us", "ns"]
    found = units.index(events.time_unit)
    steps = _bins(events, events.time_unit, config, timesteps)
    if np.mean(steps >= timesteps) >= DROPPED_REFUSED:
        others = units[found + 1 :]
    elif timesteps > 1 and not np.any(steps > 0):
        others = units[:found][::-1]
    else:
        return ""
    # The nearest unit in which nearly all events have a place, and not all the same.
    for unit in others:
        bins = _bins(events, unit, config, timesteps)
        if np.any(bins > 0) and np.mean(bins < timesteps) >= 0.9:
            return f" (they look like {unit})"
    return ""


def _bins(events: Events, unit: TimeUnit, config: DataConfig, timesteps: int) -> npt.NDArray[np.int64]:
    """Timesteps of the events if their times were in ``unit``; of some of them if there are many."""
    every = max(1, events.times.size // 100_000)
    return bin_times(events.times[::every], step_in(unit, step_of(config)), timesteps)


def check_training(dataset: Dataset, stimulus: Stimulus, config: DataConfig) -> None:
    """Warn of training inputs that use little of their scale, do not differ between samples, or never fire.

    ``stimulus`` is the encoded training set.
    """
    n_coded = stimulus.n_inputs - len(dataset.flag_names)
    if dataset.train.x is not None:
        # Of all parts: a range that some value lies beyond is refused.
        parts = (dataset.train.x, dataset.validation.x, dataset.test.x)
        whole = [x for x in parts if x is not None and x.size]
        low, high = enclosing(min(float(x.min()) for x in whole), max(float(x.max()) for x in whole))
        cure = f"data.range = [{low}, {high}] (of your own data), or 'range' in the file, makes that the scale"
        if check_scale(dataset, dataset.train, stimulus, config, cure):
            return
    if len(stimulus) > 1 and _all_equal(stimulus):
        _warn("all training samples are the same after encoding: the network cannot tell them apart; check the data")
    if stimulus.values is not None:
        silent = n_coded - np.count_nonzero(stimulus.values[:, :n_coded].any(axis=0))
        what = "is 0"
    else:
        assert stimulus.sources is not None
        silent = n_coded - np.count_nonzero(np.bincount(stimulus.sources, minlength=stimulus.n_inputs)[:n_coded])
        what = "sends no event"
        if dataset.train.events is not None:
            _check_span(dataset.train.events, config, stimulus.timesteps)
    if silent > SILENT_WARNED * n_coded:
        cure = (
            "units of the file are taken as 0 to n_units - 1 (default: the largest unit); number them without gaps"
            if dataset.has_events
            else "leave out what is never used, or check the scale (data.range) and the options of data.coding"
        )
        _warn(f"{silent:,} of {n_coded:,} inputs never fire in training (each {what} in every sample): {cure}")


def _check_span(events: Events, config: DataConfig, timesteps: int) -> None:
    steps = bin_times(events.times, step_in(events.time_unit, step_of(config)), timesteps)
    last = int(steps.max(initial=0))
    if steps.size and timesteps > 1 and last + 1 <= max(1, timesteps * SPAN_WARNED):
        _warn(
            f"training samples: all events are in the first {last + 1} of {timesteps} timesteps: times are taken as "
            f"{events.time_unit}, a timestep is data.step_ms = {step_of(config):g} ms"
            f"{_likely_cause(events, config, timesteps)}; {TIMES_CURE}"
        )


def check_scale(dataset: Dataset, split: Split, stimulus: Stimulus, config: DataConfig, cure: str) -> bool:
    """Warn if the values of ``split`` use little of the assumed scale; ``stimulus`` is the encoded split.

    ``cure`` says what can be done. Returns True if every encoded value is the same, so that no more need be said.
    """
    x = split.x
    assert x is not None
    low, high = float(x.min()), float(x.max())
    found = f"{split.name}: values span {low:g}..{high:g} of the assumed scale {dataset.low:g}..{dataset.high:g}"
    if low == high:
        _warn(f"{split.name}: every value is {low:g}, so nothing tells the samples apart; check the data")
        return True
    if stimulus.values is not None:
        limit = (1 << config.input_bits) - 1
        codes = stimulus.values[:, : stimulus.n_inputs - len(dataset.flag_names)]
        first, last = int(codes.min()), int(codes.max())
        if first == last:
            _warn(f"{found}: every input becomes {first} of 0..{limit}, so nothing tells the samples apart; {cure}")
            return True
        if limit > 1 and last - first <= max(1, limit * SPAN_WARNED):
            _warn(f"{found}: inputs are only {first}..{last} of 0..{limit}; {cure}")
    elif (high - low) <= SPAN_WARNED * (dataset.high - dataset.low):
        _warn(f"{found}; {cure}")
    return False


def check_classes(dataset: Dataset, config: DataConfig) -> None:
    """Warn once of classes without samples in a part. A test set that ``data.test_limit`` cuts short is not judged."""
    parts = [dataset.train, dataset.validation, *([dataset.test] if config.test_limit is None else [])]
    lacking = []
    for part in parts:
        count = np.bincount(part.labels, minlength=dataset.n_classes)
        if (count == 0).any():
            names = [repr(dataset.classes[index]) for index in np.flatnonzero(count == 0)]
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            lacking.append(f"no {part.name} of class {shown}")
    if lacking:
        _warn(
            f"{dataset.name}: {'; '.join(lacking)}. Classes are 0 to the largest label, or the file's 'classes'; "
            "'split' in the file, data.validation and data.test choose the samples"
        )


def _all_equal(stimulus: Stimulus) -> bool:
    """True if every sample is the same as the first."""
    if stimulus.values is not None:
        return bool((stimulus.values == stimulus.values[0]).all())
    assert stimulus.offsets is not None and stimulus.sources is not None
    counts = np.diff(stimulus.offsets).reshape(len(stimulus), -1)
    if (counts != counts[0]).any():
        return False
    sources = stimulus.sources.reshape(len(stimulus), -1)
    return bool((sources == sources[0]).all())


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _warn(text: str) -> None:
    warnings.warn(text, DataWarning, stacklevel=4)
