"""What a configuration leaves to the data: values 'auto' become values that suit the samples at hand.

Small sets are the reason: 40 epochs of 200 samples in batches of 128 are 80 optimiser steps, which teach nothing.
So training is counted in steps. docs/defaults.md says how the numbers were chosen.

batch size    1/32 of the training samples, to the nearest power of two, 16 to 128.
epochs        as many as make STEPS steps, at least 20 and at most 400.
iteration     of rewiring: 1/30 of the epochs, at least 2.
fine-tuning   1/5 of the epochs, at least 2 and at most 20.
coding        'events' for events, 'current' for arrays.
step_ms       of events: the timesteps together last as long as COVERED of the training samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from codesign.basics.errors import InputError
from codesign.config import AUTO, Config, parse_config
from codesign.contract.binning import MILLISECONDS
from codesign.data.encoders import coding_of, n_sources
from codesign.data.samples import Dataset

STEPS = 2000
FEWEST_EPOCHS, MOST_EPOCHS = 20, 400
SMALLEST_BATCH, LARGEST_BATCH = 16, 128
SAMPLES_PER_BATCH = 32
COVERED = 0.95


def is_resolved(config: Config) -> bool:
    """True if nothing is left to the data."""
    return not _open(config)


def resolve(config: Config, dataset: Dataset, steps: int = STEPS) -> tuple[Config, list[str]]:
    """The configuration with a value for every 'auto', and a line on each that was chosen, for reading.

    ``steps`` are the optimiser steps that epochs = 'auto' aims at. The same samples give the same values. Raises
    InputError if other options do not go with what the data are.
    """
    wanted = _open(config)
    if not wanted:
        return config, []
    # Refuses a coding that does not go with the data, of which all else is chosen.
    n_sources(dataset, config.data)
    samples = len(dataset.train)
    chosen: dict[str, Any] = {}
    lines = []
    if "data.coding" in wanted:
        chosen["data.coding"] = coding_of(dataset, config.data)
        config = _without_defaults(config, chosen["data.coding"])
        if dataset.has_events:
            lines.append("data.coding: 'events', which the data are")
    if "data.step_ms" in wanted and coding_of(dataset, config.data) == "events":
        timesteps = config.network.timesteps
        step, longest = _step_ms(dataset, timesteps)
        chosen["data.step_ms"] = step
        lines.append(
            f"data.step_ms: {step:g}, so {timesteps} timesteps last {step * timesteps:g} ms; "
            f"{COVERED:.0%} of the training samples end by {longest:g} ms"
        )
    size = config.train.batch_size
    if size == AUTO:
        size = chosen["train.batch_size"] = batch_size(samples)
        lines.append(f"train.batch_size: {size} for {samples:,} training samples")
    per_epoch = math.ceil(samples / size)
    epochs = config.train.epochs
    if epochs == AUTO:
        epochs = chosen["train.epochs"] = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(steps / per_epoch)))
        lines.append(
            f"train.epochs: {epochs}, so that {samples:,} samples in batches of {size} make "
            f"{epochs * per_epoch:,} optimiser steps"
        )
    if "train.rewiring.epochs_per_iteration" in wanted:
        length = chosen["train.rewiring.epochs_per_iteration"] = config.train.rewiring.iteration_epochs(epochs)
        if length != 2:
            lines.append(f"train.rewiring.epochs_per_iteration: {length}, a thirtieth of the epochs")
    if "freeze.epochs" in wanted:
        count = chosen["freeze.epochs"] = min(20, max(2, round(epochs / 5)))
        lines.append(f"freeze.epochs: {count} for fine-tuning in integers")
    return with_values(config, chosen), lines


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values of keys such as 'train.epochs', validated anew."""
    document = config.model_dump(exclude_unset=True)
    for key, value in values.items():
        section = document
        *path, name = key.split(".")
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return parse_config(document, "configuration")


def settled(value: int | str, key: str) -> int:
    """A number that must be there by now. InputError if it is still 'auto'."""
    if isinstance(value, str):
        raise InputError(f"{key} = {value!r} is chosen by codesign.data.automatic.resolve, which needs the data")
    return value


def _open(config: Config) -> list[str]:
    """Keys whose value is 'auto'."""
    values = {
        "data.coding": config.data.coding,
        "data.step_ms": config.data.step_ms if config.data.coding in (AUTO, "events") else None,
        "train.batch_size": config.train.batch_size,
        "train.epochs": config.train.epochs,
        "train.rewiring.epochs_per_iteration": config.train.rewiring.epochs_per_iteration
        if config.train.rewiring.rules.changes
        else None,
        "freeze.epochs": config.freeze.epochs,
    }
    return [key for key, value in values.items() if value == AUTO]


def _without_defaults(config: Config, coding: str) -> Config:
    """Without the keys of another coding that were written down at their defaults, as `codesign init` does."""
    data = config.data
    fields = type(data).model_fields
    foreign = {
        name
        for name, owner in data.coding_of_key.items()
        if owner != coding and getattr(data, name) == fields[name].default
    }
    document = config.model_dump(exclude_unset=True)
    document["data"] = {name: value for name, value in document.get("data", {}).items() if name not in foreign}
    return parse_config(document, "configuration")


def batch_size(samples: int) -> int:
    """About a 32nd of the training samples, a power of two within limits."""
    size = 1 << max(0, round(math.log2(max(1, samples) / SAMPLES_PER_BATCH)))
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, size))


def _step_ms(dataset: Dataset, timesteps: int) -> tuple[float, float]:
    """Milliseconds of a timestep, two digits rounded up, and the time by which COVERED of the samples have ended."""
    events = dataset.train.events
    assert events is not None
    unit = float(MILLISECONDS[events.time_unit])
    ends = [
        float(events.times[start:end].max()) * unit
        for start, end in zip(events.offsets[:-1], events.offsets[1:], strict=True)
        if end > start
    ]
    longest = float(np.quantile(ends, COVERED)) if ends else 0.0
    # The last event must lie inside the last timestep, not on its end.
    step = np.nextafter(longest, np.inf) / timesteps
    if step <= 0 or not math.isfinite(step):
        return 1.0, longest
    unit = 10.0 ** (math.floor(math.log10(step)) - 1)
    return float(f"{math.ceil(step / unit) * unit:.3g}"), longest
