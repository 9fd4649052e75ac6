"""Samples -> :class:`codesign.contract.stimulus.Stimulus`, on the host; the same for training, golden model and RTL.

Array values are first scaled to z = (x - low) / (high - low) in 0..1. Codings:

- ``current``: unsigned integer floor(z * (2**input_bits - 1) + 1/2).
- ``rate``: in every timestep an event with probability rate_max * z. Draws come from the counter-based Philox
  generator keyed by (encoder_seed, sample index), so that a sample's events depend on nothing else.
- ``latency``: one event at timestep floor((1 - z) * (T - 1) + 1/2), none for z = 0.
- ``events``: timestep floor(time / step_ms), exactly (:mod:`codesign.contract.binning`). Events of one source that
  collide in a timestep are merged, those before time 0 and from T * step_ms on are dropped; both are counted, warned
  of, and refused where most are dropped (:mod:`codesign.data.plausibility`).
- ``delta``: send-on-delta. Each channel and level has a source 'up' and a source 'down'; its reference starts at the
  first value and moves by one level with each event; at most one event per source and timestep, what exceeds it is
  carried. Source index = (channel * n_levels + level) * 2 + (0 up, 1 down). A sample of L values runs in T <= L
  timesteps; timestep t looks at value floor(t * L / T).

Samples with flags (facts such as "the RR interval is at least 0.9 of the mean") have one further source per flag,
after those of the coding. If the flag is set, its source has the full value (``current``) or sends an event in every
timestep (all other codings).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.config import AUTO, DataConfig
from codesign.contract.binning import bin_times, step_in
from codesign.contract.network import CodingKind, InputCoding
from codesign.contract.stimulus import MAX_EVENTS, Stimulus
from codesign.data.plausibility import EventCounts, check_events, step_of
from codesign.data.samples import Dataset, Split
from codesign.data.scale import on_scale

ROUNDING_RULE = "floor((x - low) / (high - low) * (2**input_bits - 1) + 0.5)"
CHUNK_CELLS = 1 << 25

Pieces = npt.NDArray[np.bool_]


def coding_of(dataset: Dataset, config: DataConfig) -> CodingKind:
    """The configured coding; with 'auto' the one that suits the data."""
    if config.coding != AUTO:
        return config.coding
    return "events" if dataset.has_events else "current"


def n_sources(dataset: Dataset, config: DataConfig) -> int:
    """Input sources of the network, flags included. Raises InputError if the coding does not suit the data."""
    return _coded_sources(dataset, config) + len(dataset.flag_names)


def _coded_sources(dataset: Dataset, config: DataConfig) -> int:
    coding = coding_of(dataset, config)
    if coding == "events":
        if not dataset.has_events:
            raise InputError(f"data.coding = 'events' needs event data; set {dataset.name!r} holds arrays")
        return dataset.n_units
    if dataset.has_events:
        raise InputError(f"data.coding = {coding!r} needs arrays; set {dataset.name!r} holds events")
    shape = dataset.sample_shape
    if coding == "delta":
        if len(shape) not in (1, 2):
            raise InputError(f"data.coding = 'delta' needs samples (length,) or (length, channels), not {shape}")
        return (shape[1] if len(shape) == 2 else 1) * len(_levels(config)) * 2
    return int(np.prod(shape))


def input_coding(dataset: Dataset, config: DataConfig) -> InputCoding:
    """The frozen description of the encoder, with everything that is needed to encode new samples."""
    coding = coding_of(dataset, config)
    scale = {"low": float(dataset.low), "high": float(dataset.high)}
    parameters: dict[str, Any] = {
        "current": {**scale, "rounding": ROUNDING_RULE},
        "rate": {**scale, "rate_max": config.rate_max, "seed": config.encoder_seed},
        "latency": scale,
        "events": {"step_ms": config.step_ms if coding != "events" else step_of(config)},
        "delta": {**scale, "levels": _levels(config)},
    }[coding]
    if dataset.flag_names:
        parameters |= {"flags": list(dataset.flag_names)}
    return InputCoding(coding, config.input_bits if coding == "current" else 0, parameters)


def encode(dataset: Dataset, split: Split, config: DataConfig, timesteps: int) -> tuple[Stimulus, EventCounts]:
    """Stimulus of the samples of ``split`` (in order) with their labels, and the counts of its events.

    Warns of dropped and merged events. Raises InputError if the coding does not suit the data, if a value is beyond the
    scale, or if most events are dropped and ``config.allow_dropped`` is not set.

    >>> import codesign, numpy as np
    >>> np.savez("mine.npz", x=np.eye(4)[np.arange(80) % 4], y=np.arange(80) % 4)
    >>> config = codesign.parse_config({"data": {"set": "npz", "path": "mine.npz", "coding": "latency"}})
    >>> dataset = codesign.load_dataset(config.data)
    >>> samples, counts = codesign.encode(dataset, dataset.test, config.data, timesteps=3)
    >>> len(samples), samples.timesteps, counts.events
    (16, 3, 16)
    """
    n_inputs, n_coded = n_sources(dataset, config), _coded_sources(dataset, config)
    coding = coding_of(dataset, config)
    if coding == "current":
        limit = (1 << config.input_bits) - 1
        values = np.empty((len(split), n_inputs), np.uint8)
        for part in _chunks(len(split), n_inputs):
            values[part, :n_coded] = np.floor(_scaled(dataset, split, part) * limit + 0.5).astype(np.uint8)
        if split.flags is not None:
            values[:, n_coded:] = split.flags * np.uint8(limit)
        return Stimulus(n_inputs, timesteps, split.labels, values=values), EventCounts()
    if coding == "events":
        return _bin_events(split, config, n_inputs, timesteps)
    if coding == "delta":
        pieces = _delta_pieces(dataset, split, config, timesteps)
    elif coding == "latency":
        pieces = _latency_pieces(dataset, split, timesteps, n_coded)
    else:
        pieces = _rate_pieces(dataset, split, config, timesteps, n_coded)
    parts = [Stimulus.from_dense(piece) for piece in _with_flags(pieces, split)]
    sources = np.concatenate([part.sources for part in parts if part.sources is not None] or [np.zeros(0, np.int32)])
    if sources.size > MAX_EVENTS:
        raise InputError(f"the encoded samples hold {sources.size} events, the limit is {MAX_EVENTS}")
    counts = [np.diff(part.offsets) for part in parts if part.offsets is not None]
    offsets = np.concatenate(([0], np.cumsum(np.concatenate(counts)) if counts else [])).astype(np.int64)
    return Stimulus(n_inputs, timesteps, split.labels, offsets, sources), EventCounts(int(sources.size))


def _levels(config: DataConfig) -> list[float]:
    return list(config.delta) if isinstance(config.delta, list) else [config.delta]


def _chunks(n_samples: int, cells: int) -> list[slice]:
    size = max(1, CHUNK_CELLS // max(cells, 1))
    return [slice(start, min(start + size, n_samples)) for start in range(0, n_samples, size)]


def _values(dataset: Dataset, split: Split, part: slice) -> npt.NDArray[np.float64]:
    """float64 (samples, values) in low..high."""
    assert split.x is not None
    x = split.x[part]
    if not on_scale(x, dataset.low, dataset.high):
        raise InputError(f"{split.name}: a value is NaN or beyond the scale {dataset.low:g}..{dataset.high:g}")
    # A bound in the file's dtype may lie beyond the bound.
    return np.clip(np.asarray(x, np.float64).reshape(len(x), -1), dataset.low, dataset.high)


def _scaled(dataset: Dataset, split: Split, part: slice) -> npt.NDArray[np.float64]:
    """float64 (samples, values) in 0..1."""
    return (_values(dataset, split, part) - dataset.low) / (dataset.high - dataset.low)


def _with_flags(pieces: Iterable[Pieces], split: Split) -> Iterator[Pieces]:
    """Pieces (samples, timesteps, sources) in order, with an event of each set flag in every timestep."""
    start = 0
    for piece in pieces:
        if split.flags is not None:
            flags = split.flags[start : start + len(piece), None]
            start += len(piece)
            piece = np.concatenate([piece, np.repeat(flags, piece.shape[1], axis=1)], axis=2)
        yield piece


def _bin_events(split: Split, config: DataConfig, n_inputs: int, timesteps: int) -> tuple[Stimulus, EventCounts]:
    events = split.events
    assert events is not None
    if events.units.size and not 0 <= int(events.units.min()) <= int(events.units.max()) < n_inputs:
        raise InputError(f"{split.name}: a unit of an event is outside 0..{n_inputs - 1}")
    sample = np.repeat(np.arange(len(split), dtype=np.int64), np.diff(events.offsets))
    step = bin_times(events.times, step_in(events.time_unit, step_of(config)), timesteps)
    early, late = int(np.count_nonzero(step < 0)), int(np.count_nonzero(step >= timesteps))
    inside = (step >= 0) & (step < timesteps)
    keys = (sample[inside] * timesteps + step[inside]) * n_inputs + events.units[inside]
    # Sorted, since np.unique hashes integers, which takes a hundred times as long.
    keys.sort()
    unique = keys[np.diff(keys, prepend=-1) > 0]
    counts = EventCounts(int(unique.size), int(keys.size - unique.size), early, late)
    check_events(counts, events, config, timesteps, split.name)
    rows = unique // n_inputs
    offsets = np.searchsorted(rows, np.arange(len(split) * timesteps + 1)).astype(np.int64)
    stimulus = Stimulus(n_inputs, timesteps, split.labels, offsets, (unique % n_inputs).astype(np.int32))
    return stimulus, counts


def _latency_pieces(dataset: Dataset, split: Split, timesteps: int, n_inputs: int) -> Iterator[Pieces]:
    for part in _chunks(len(split), timesteps * n_inputs):
        z = _scaled(dataset, split, part)
        when = np.floor((1.0 - z) * (timesteps - 1) + 0.5).astype(np.int64)
        when[z <= 0] = -1
        yield when[:, None, :] == np.arange(timesteps)[None, :, None]


def _rate_pieces(dataset: Dataset, split: Split, config: DataConfig, timesteps: int, n_inputs: int) -> Iterator[Pieces]:
    for part in _chunks(len(split), timesteps * n_inputs * 8):
        probability = _scaled(dataset, split, part) * config.rate_max
        piece = np.empty((len(probability), timesteps, n_inputs), bool)
        for row, index in enumerate(split.index[part]):
            generator = np.random.Generator(np.random.Philox(key=np.array([config.encoder_seed, index], np.uint64)))
            piece[row] = generator.random((timesteps, n_inputs)) < probability[row]
        yield piece


def _delta_pieces(dataset: Dataset, split: Split, config: DataConfig, timesteps: int) -> Iterator[Pieces]:
    length, *rest = dataset.sample_shape
    channels = math.prod(rest)
    if timesteps > length:
        raise InputError(f"network.timesteps = {timesteps}, but coding 'delta' has only {length} values per sample")
    levels = np.asarray(_levels(config), np.float64) * (dataset.high - dataset.low)
    for part in _chunks(len(split), length * channels * 16):
        x = _values(dataset, split, part).reshape(-1, length, channels)
        piece = np.zeros((len(x), timesteps, x.shape[2], levels.size, 2), bool)
        reference = np.repeat(x[:, 0, :, None], levels.size, axis=2)
        for t in range(timesteps):
            difference = x[:, t * length // timesteps, :, None] - reference
            up, down = difference >= levels, difference <= -levels
            piece[:, t, ..., 0], piece[:, t, ..., 1] = up, down
            reference += levels * (up.astype(np.int8) - down.astype(np.int8))
        yield piece.reshape(len(x), timesteps, -1)
