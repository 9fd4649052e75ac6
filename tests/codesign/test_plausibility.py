"""Data that can be used, but look as if something was assumed wrongly: what is said, and what is not."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

from codesign.basics.errors import InputError
from codesign.config import DataConfig, parse_config
from codesign.data import Dataset, DataWarning, Events, Split, load_dataset
from codesign.data.encoders import encode
from codesign.data.plausibility import check_classes, check_training
from codesign.data.scale import enclosing


def said(work) -> list[str]:
    """What ``work()`` warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    assert all(issubclass(warning.category, DataWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


def arrays(x, low=0.0, high=255.0, flags=None) -> Dataset:
    x = np.asarray(x)
    names = () if flags is None else tuple(f"flag {index}" for index in range(flags.shape[1]))
    split = Split(np.zeros(len(x), np.int32), np.arange(len(x)), x, flags=flags, name="training samples")
    return Dataset("npz", ("a", "b"), split, split, split, low, high, flag_names=names)


def event_set(times, units, offsets, n_units=4, unit="ms") -> Dataset:
    events = Events(np.asarray(times), np.asarray(units, np.int32), np.asarray(offsets, np.int64), unit)
    split = Split(np.zeros(len(events), np.int32), np.arange(len(events)), events=events, name="training samples")
    return Dataset("npz", ("a", "b"), split, split, split, n_units=n_units)


def spread(scale: float = 1.0, dtype: str = "f8", samples: int = 20) -> tuple:
    """Times over 60 ms on four units, times ``scale``, 30 a sample; with units and offsets."""
    random = np.random.default_rng(0)
    times = np.sort(random.random((samples, 30)) * 60, axis=1).ravel() * scale
    return times.astype(dtype), random.integers(0, 4, times.size), np.arange(samples + 1) * 30


def trained(dataset: Dataset, timesteps: int = 6, **options) -> list[str]:
    """What is said of ``dataset`` as training data."""
    config = DataConfig(set="npz", **options)

    def work() -> None:
        stimulus, _ = encode(dataset, dataset.train, config, timesteps)
        check_training(dataset, stimulus, config)

    return said(work)


EVENTS = {"coding": "events", "step_ms": 10.0}
random = np.random.default_rng(1)
BITS = random.integers(0, 2, (30, 12))


@pytest.mark.parametrize(
    ("x", "scale", "options", "message"),
    [
        (BITS.astype(np.uint8), (0, 255), {}, "span 0..1 of the assumed scale 0..255: every input becomes 0 of 0..15"),
        (BITS.astype(np.int8), (-128, 127), {}, "span 0..1 of the assumed scale -128..127: every input becomes 8"),
        (BITS.astype(np.uint8) * 16, (0, 255), {}, "span 0..16 .* inputs are only 0..1 of 0..15"),
        (BITS.astype(np.uint8) * 16, (0, 255), {"input_bits": 8}, "inputs are only 0..16 of 0..255"),
        (BITS.astype(np.uint8) * 100, (0, 255), {"input_bits": 2}, "inputs are only 0..1 of 0..3"),
        (BITS / 10, (0, 1), {"coding": "rate"}, "values span 0..0.1 of the assumed scale 0..1; data.range = .0, 0.1."),
        (BITS / 10, (0, 1), {"coding": "latency"}, "values span 0..0.1 of the assumed scale 0..1"),
        (np.full((9, 4), 7.0), (0, 255), {}, "every value is 7"),
        (np.tile(np.arange(4) * 80, (9, 1)), (0, 255), {}, "all training samples are the same after encoding"),
        (np.pad(BITS, ((0, 0), (0, 5))) * 255, (0, 255), {}, "5 of 17 inputs never fire in training"),
    ],
)
def test_values_that_look_wrong_are_warned_of_in_training(x, scale, options, message) -> None:
    texts = trained(arrays(x, *scale), **options)
    assert len(texts) == 1 and re.search(message, texts[0]), texts


@pytest.mark.parametrize(
    ("x", "scale", "options"),
    [
        (BITS * 255, (0, 255), {}),
        (BITS.astype(np.uint8), (0, 1), {}),
        (BITS.astype(np.uint8), (0, 1), {"input_bits": 1}),
        (BITS * 40, (0, 255), {}),
        (BITS - 0.5, (-1, 1), {"coding": "latency"}),
        # One border pixel in ten is normal.
        (np.pad(BITS, ((0, 0), (0, 1))) * 255, (0, 255), {}),
    ],
)
def test_values_that_use_their_scale_are_not_warned_of(x, scale, options) -> None:
    assert trained(arrays(x, *scale), **options) == []


def test_flags_are_no_part_of_the_scale() -> None:
    flags = np.arange(30)[:, None] % 2 == 0
    assert any("every input becomes 0" in text for text in trained(arrays(BITS.astype(np.uint8), flags=flags)))


def test_values_beyond_the_scale_are_refused_and_never_wrap() -> None:
    for x in (np.full((2, 3), 256.0), np.full((2, 3), -1.0), np.full((2, 3), np.nan)):
        for coding in ("current", "rate", "latency", "delta"):
            with pytest.raises(InputError, match=r"a value is NaN or beyond the scale 0\.\.255"):
                dataset = arrays(x)
                encode(dataset, dataset.train, DataConfig(set="npz", coding=coding), 3)


@pytest.mark.parametrize(
    ("scale", "dtype", "unit", "likely"),
    [
        (1e3, "u8", "ms", "they look like us"),
        (1e6, "u4", "ms", "they look like ns"),
        (1e6, "f4", "us", "they look like ns"),
        (1, "f8", "s", "they look like ms"),
    ],
)
def test_times_of_another_unit_are_refused_and_the_unit_is_named(scale, dtype, unit, likely) -> None:
    dataset = event_set(*spread(scale, dtype), unit=unit)
    with pytest.raises(InputError, match=likely) as caught:
        encode(dataset, dataset.train, DataConfig(set="npz", **EVENTS), 6)
    text = str(caught.value)
    for part in ("training samples: ", " of 600 events", f"times are taken as {unit}", "data.step_ms = 10 ms",
                 "network.timesteps", "data.time_unit", "data.allow_dropped = true"):  # fmt: skip
        assert part in text
    assert "\n" not in text
    texts = trained(dataset, **EVENTS, allow_dropped=True)
    assert any(likely in text for text in texts)


def test_times_in_seconds_taken_as_milliseconds_are_warned_of() -> None:
    texts = trained(event_set(*spread(1e-3)), **EVENTS)
    assert any("all events are in the first 1 of 6 timesteps" in text and "they look like s" in text for text in texts)
    assert any("are merged into another" in text for text in texts)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_in_their_unit_are_silent_and_give_the_same_stimulus(unit) -> None:
    times, units, offsets = spread(1e6, "i8")
    scale = {"s": 1e-9, "ms": 1e-6, "us": 1e-3, "ns": 1}[unit]
    dataset = event_set(times * scale if scale < 1 else times, units, offsets, 40, unit)
    reference = event_set(times / 1e6, units, offsets, 40)
    config = DataConfig(set="npz", coding="events", step_ms=0.5)
    found, counts = encode(dataset, dataset.train, config, 120)
    expected, _ = encode(reference, reference.train, config, 120)
    assert counts.dropped == 0
    assert np.array_equal(found.dense(), expected.dense())


def test_wrapped_unsigned_differences_are_dropped_counted_and_named() -> None:
    times, units, offsets = spread(1, "i8")
    dataset = event_set((times - 10).astype(np.uint64), units, offsets)
    texts = trained(dataset, **EVENTS)
    wrapped = int(np.count_nonzero(times < 10))
    assert any(f"{wrapped} of 600 events" in text and "unsigned differences that wrapped" in text for text in texts)
    with pytest.warns(DataWarning):
        _, counts = encode(dataset, dataset.train, DataConfig(set="npz", **EVENTS), 600)
    assert counts.late == wrapped and counts.early == 0


@pytest.mark.parametrize("late", [1e39, 1e6, 2.0**40])
def test_late_events_are_warned_of_from_one_in_a_hundred_and_refused_from_half(late) -> None:
    times, units, offsets = spread()
    config = DataConfig(set="npz", **EVENTS)
    for dropped, says in ((5, []), (6, ["6 of 600 events (1 %)"]), (299, ["299 of 600 events (49.8 %)"])):
        changed = times.copy()
        changed[:dropped] = late
        dataset = event_set(changed, units, offsets)
        texts = [text for text in said(lambda d=dataset: encode(d, d.train, config, 6)) if "dropped" in text]
        assert len(texts) == len(says) and all(part in text for part, text in zip(says, texts))
    times[:300] = late
    dataset = event_set(times, units, offsets)
    with pytest.raises(InputError, match=r"300 of 600 events \(50 %\) are dropped, all after the last of 6"):
        encode(dataset, dataset.train, config, 6)


def test_events_before_time_0_are_dropped_and_counted() -> None:
    times, units, offsets = spread()
    times[::30] = -0.001
    dataset = event_set(times, units, offsets)
    config = DataConfig(set="npz", **EVENTS)
    texts = said(lambda: encode(dataset, dataset.train, config, 6))
    assert any("20 of 600 events" in text and "all before time 0" in text for text in texts)
    with pytest.warns(DataWarning):
        _, counts = encode(dataset, dataset.train, config, 6)
    assert (counts.early, counts.late, counts.total) == (20, 0, 600)


def test_units_outside_the_inputs_are_refused() -> None:
    dataset = event_set(*spread(), n_units=3)
    with pytest.raises(InputError, match=r"a unit of an event is outside 0\.\.2"):
        encode(dataset, dataset.train, DataConfig(set="npz", **EVENTS), 6)


def test_units_with_gaps_are_warned_of() -> None:
    times, units, offsets = spread()
    texts = trained(event_set(times, units * 1000, offsets, 3001), **EVENTS)
    assert any("2,997 of 3,001 inputs never fire" in text and "number them without gaps" in text for text in texts)


def test_a_training_set_without_events_is_warned_of() -> None:
    texts = trained(event_set([], [], [0, 0, 0]), **EVENTS)
    assert any("all training samples are the same" in text for text in texts)
    assert any("4 of 4 inputs never fire" in text for text in texts)


def test_classes_without_samples_are_named_once(tmp_path) -> None:
    y = np.arange(100) % 4
    y[y == 3] = 4
    split = np.where(y == 4, 2, np.arange(100) // 4 % 3)
    np.savez(tmp_path / "own.npz", x=random.random((100, 5)), y=y, split=split)
    with pytest.warns(DataWarning) as caught:
        load_dataset(DataConfig(set="npz", path=str(tmp_path / "own.npz")))
    (text,) = (str(warning.message) for warning in caught)
    assert "no training samples of class '3', '4'; no validation samples of class '3', '4'; no test samples" in text


def test_a_test_set_cut_by_a_limit_is_not_judged() -> None:
    dataset = load_dataset(DataConfig(test_limit=3))
    assert said(lambda: check_classes(dataset, DataConfig(test_limit=3))) == []
    assert len(said(lambda: check_classes(dataset, DataConfig()))) == 1


def test_a_range_of_the_configuration_is_the_scale(tmp_path) -> None:
    path = str(tmp_path / "own.npz")
    np.savez(path, x=np.tile(BITS, (4, 1)).astype(np.uint8), y=np.arange(120) % 2)
    config = DataConfig(set="npz", path=path, range=[0, 1], validation=0.2)
    dataset = load_dataset(config)
    assert (dataset.low, dataset.high) == (0, 1)
    stimulus, _ = encode(dataset, dataset.train, config, 2)
    assert set(np.unique(stimulus.values)) == {0, 15}  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"x spans 0..1, beyond its scale 0..0\.5"):
        load_dataset(replace_range(config, [0, 0.5]))
    np.savez(path, x=BITS, y=np.arange(30) % 2, range=np.array([0, 2]))
    with pytest.raises(InputError, match="holds an array 'range' of its own; remove one of them"):
        load_dataset(config)


@pytest.mark.parametrize("coding", ["current", "rate", "latency", "delta"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_scale_that_the_dtype_rounds_inwards_is_that_of_its_values(tmp_path, coding, dtype) -> None:
    """0.7 in float32 is a little less than 0.7, 0.9 in float16 a little more: such values are the scale's ends."""
    path = str(tmp_path / "own.npz")
    x = np.tile(np.array([0.7, 0.9, 0.8, 0.7], dtype), (80, 1))
    np.savez(path, x=x, y=np.arange(80) % 4)
    config = DataConfig(set="npz", path=path, range=[0.7, 0.9], coding=coding)
    dataset = load_dataset(config)
    stimulus, _ = encode(dataset, dataset.train, config, 4)
    if stimulus.values is not None:
        assert stimulus.values[0].tolist() == [0, 15, stimulus.values[0, 2], 0]
    for beyond in (np.nextafter(dtype(0.7), dtype(0)), np.nextafter(dtype(0.9), dtype(1))):
        x[3, 2] = beyond
        np.savez(path, x=x, y=np.arange(80) % 4)
        with pytest.raises(InputError, match="beyond its scale"):
            load_dataset(config)


def test_a_range_whose_difference_overflows_is_refused(tmp_path) -> None:
    path = str(tmp_path / "own.npz")
    np.savez(path, x=BITS, y=np.arange(30) % 2)
    with pytest.raises(InputError, match=r"data\.range is .* and a finite difference"):
        load_dataset(DataConfig(set="npz", path=path, range=[-1e308, 1e308]))


def test_the_range_that_a_warning_names_holds_all_samples(tmp_path) -> None:
    path = str(tmp_path / "own.npz")
    x = np.random.default_rng(0).uniform(1e-4, 1e-3, (90, 6)).astype(np.float32)
    y, split = np.arange(90) // 3 % 2, np.arange(90) % 3
    x[split == 0] = np.clip(x[split == 0], 2e-4, 8e-4)
    np.savez(path, x=x, y=y, split=split)
    config = DataConfig(set="npz", path=path)

    def work() -> None:
        dataset = load_dataset(config)
        check_training(dataset, encode(dataset, dataset.train, config, 2)[0], config)

    (text,) = said(work)
    bounds = [float(bound) for bound in re.findall(r"data\.range = \[(\S+), (\S+)\]", text)[0]]
    config = replace_range(config, bounds)
    assert said(work) == []
    assert bounds[0] <= x.min() and x.max() <= bounds[1] and bounds[1] - bounds[0] < 1.01 * np.ptp(x)


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [
        (0.0, 255.0, ("0", "255")),
        (-0.1, 0.1, ("-0.1", "0.1")),
        (float(np.float32(0.7)), 4 / 3, ("0.699999", "1.33334")),
        (1e6 + 0.5, 1e6 + 1, ("1000000.5", "1000001")),
        (7.0, 7.0, ("7", "7")),
        (1.0, float(np.nextafter(1.0, 2.0)), ("1", "1.0000000000000002")),
    ],
)
def test_rounded_bounds_enclose_the_exact_ones(low, high, bounds) -> None:
    assert enclosing(low, high) == bounds


def replace_range(config: DataConfig, bounds: list[float]) -> DataConfig:
    return config.model_copy(update={"range": bounds})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"range": [1, 0], "set": "npz"}, "expected \\[low, high\\] with low < high"),
        ({"range": [0, float("inf")], "set": "npz"}, "range"),
        ({"range": [0, 16]}, "range belongs to arrays of the sets 'npz' and 'idx'"),
        ({"range": [0, 16], "set": "npz", "coding": "events"}, "range belongs to arrays"),
        ({"time_unit": "us", "set": "shd", "coding": "events"}, "time_unit belongs to set = 'npz'"),
        ({"time_unit": "us", "set": "npz", "coding": "current"}, "time_unit belongs to coding = 'events'"),
        ({"allow_dropped": True, "coding": "current"}, "allow_dropped belongs to coding = 'events'"),
    ],
)
def test_options_of_the_scale_and_of_times_belong_to_what_has_them(data, message) -> None:
    with pytest.raises(InputError, match=message):
        parse_config({"data": data})


def test_take_keeps_unit_and_name() -> None:
    dataset = event_set(*spread(), unit="us")
    for chosen in (slice(2, 5), np.array([4, 0])):
        part = dataset.train.take(chosen)
        assert part.name == "training samples" and part.events is not None and part.events.time_unit == "us"
    assert replace(dataset.train, name="x").take(slice(0, 1)).name == "x"
