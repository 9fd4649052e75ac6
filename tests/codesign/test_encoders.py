"""Each input coding against its definition, sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.basics.errors import InputError
from codesign.config import DataConfig
from codesign.data import Dataset, DataWarning, Events, Split
from codesign.data.encoders import encode, input_coding, n_sources


def arrays(x, low=0.0, high=1.0) -> Dataset:
    x = np.asarray(x)
    split = Split(np.zeros(len(x), np.int32), np.arange(len(x), dtype=np.int64), x)
    return Dataset("made", ("a", "b"), split, split, split, low, high)


def events(samples, n_units) -> Dataset:
    """Dataset of samples that are lists of (time in ms, unit)."""
    flat = [event for sample in samples for event in sample]
    offsets = np.concatenate(([0], np.cumsum([len(sample) for sample in samples]))).astype(np.int64)
    stored = Events(
        np.array([time for time, _ in flat], np.float32), np.array([unit for _, unit in flat], np.int32), offsets
    )
    split = Split(np.zeros(len(samples), np.int32), np.arange(len(samples), dtype=np.int64), None, stored)
    return Dataset("made", ("a", "b"), split, split, split, n_units=n_units)


def test_current_rounds_half_up_to_the_input_bits():
    dataset = arrays(np.array([[0, 1, 7, 8, 9, 15, 16]], np.uint8), high=16)
    stimulus, counts = encode(dataset, dataset.train, DataConfig(input_bits=2), 4)
    assert stimulus.values is not None
    assert stimulus.values.tolist() == [[0, 0, 1, 2, 2, 3, 3]]
    assert stimulus.timesteps == 4 and counts.events == 0
    coding = input_coding(dataset, DataConfig(input_bits=2))
    assert (coding.kind, coding.input_bits) == ("current", 2)
    assert coding.parameters["high"] == 16 and "rounding" in coding.parameters


def test_current_scales_signed_values():
    dataset = arrays(np.array([[-128, 0, 127]], np.int8), low=-128, high=127)
    stimulus, _ = encode(dataset, dataset.train, DataConfig(input_bits=8), 1)
    assert stimulus.values is not None and stimulus.values.tolist() == [[0, 128, 255]]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=20), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_latency_gives_one_event_at_its_time_and_none_for_zero(values, timesteps):
    dataset = arrays(np.array([values], np.uint8), high=255)
    stimulus, counts = encode(dataset, dataset.train, DataConfig(coding="latency"), timesteps)
    dense = stimulus.dense()[0]
    for source, value in enumerate(values):
        when = np.flatnonzero(dense[:, source]).tolist()
        assert when == ([] if value == 0 else [int(np.floor((1 - value / 255) * (timesteps - 1) + 0.5))])
    assert counts.events == np.count_nonzero(values)


def test_rate_does_not_depend_on_order_or_batch():
    dataset = arrays(np.random.default_rng(0).random((9, 5)))
    config = DataConfig(coding="rate")
    whole = encode(dataset, dataset.train, config, 12)[0].dense()
    for order in ([8, 3, 0], [5]):
        part = encode(dataset, dataset.train.take(np.array(order)), config, 12)[0].dense()
        assert np.array_equal(part, whole[order])
    other = encode(dataset, dataset.train, DataConfig(coding="rate", encoder_seed=1), 12)[0].dense()
    assert not np.array_equal(other, whole)


def test_the_largest_seeds_are_seeds():
    from codesign.data import load_dataset

    config = DataConfig(coding="rate", split_seed=(1 << 32) - 1, encoder_seed=(1 << 64) - 1, test_limit=2)
    dataset = load_dataset(config)
    assert len(encode(dataset, dataset.test, config, 3)[0]) == 2


def test_rate_has_the_stated_probability():
    dataset = arrays(np.tile([[0.0, 0.2, 1.0]], (200, 1)))
    dense = encode(dataset, dataset.train, DataConfig(coding="rate", rate_max=0.5), 100)[0].dense()
    rates = dense.mean(axis=(0, 1))
    assert rates[0] == 0
    # 20,000 draws: five standard deviations are .011 and .018.
    assert abs(rates[1] - 0.1) < 0.011 and abs(rates[2] - 0.5) < 0.018
    always = encode(dataset, dataset.train, DataConfig(coding="rate"), 100)[0].dense()
    assert always[:, :, 2].all()


def test_events_are_binned_merged_and_dropped_and_both_are_counted():
    dataset = events([[(0.0, 1), (5.9, 1), (6.0, 1), (5.0, 0)], [], [(23.9, 2), (24.0, 2), (500.0, 0)]], n_units=4)
    with pytest.warns(DataWarning, match=r"2 of 7 events \(28.6 %\) are dropped, all after the last of 4 timesteps"):
        stimulus, counts = encode(dataset, dataset.train, DataConfig(set="npz", coding="events", step_ms=6.0), 4)
    stimulus.validate()
    assert stimulus.n_inputs == 4
    assert stimulus.events(0, 0).tolist() == [0, 1]
    assert stimulus.events(0, 1).tolist() == [1]
    assert [stimulus.events(1, t).size for t in range(4)] == [0, 0, 0, 0]
    assert stimulus.events(2, 3).tolist() == [2]
    assert (counts.events, counts.merged, counts.dropped) == (4, 1, 2)


def test_delta_follows_a_literal_trajectory():
    """Level 2 of full scale 10 (0.2): the jump of 5 gives two events, one a timestep, and leaves 1 over."""
    dataset = arrays(np.array([[1, 1, 6, 6, 6, 5, 2, 2]], np.float64), high=10)
    stimulus, counts = encode(dataset, dataset.train, DataConfig(coding="delta", delta=0.2), 8)
    dense = stimulus.dense()[0]
    assert stimulus.n_inputs == 2
    assert np.flatnonzero(dense[:, 0]).tolist() == [2, 3]
    assert np.flatnonzero(dense[:, 1]).tolist() == [6]
    assert counts.events == 3


def test_delta_has_two_sources_per_channel_and_level():
    x = np.zeros((1, 4, 2))
    x[0, 1:, 1] = 0.5
    dataset = arrays(x)
    config = DataConfig(coding="delta", delta=[0.25, 0.5])
    assert n_sources(dataset, config) == 8
    dense = encode(dataset, dataset.train, config, 4)[0].dense()[0]
    assert np.flatnonzero(dense.any(axis=0)).tolist() == [4, 6]
    assert np.flatnonzero(dense[:, 4]).tolist() == [1, 2]
    assert np.flatnonzero(dense[:, 6]).tolist() == [1]
    assert input_coding(dataset, config).parameters["levels"] == [0.25, 0.5]


@given(st.integers(0, 10_000), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_delta_reference_stays_within_a_level_of_slow_signals(seed, timesteps):
    """Where the signal moves by less than a level a step, summing the events gives it back within one level."""
    random = np.random.default_rng(seed)
    x = 0.5 + np.cumsum(random.uniform(-0.02, 0.02, (1, timesteps)), axis=1)
    dataset = arrays(x)
    dense = encode(dataset, dataset.train, DataConfig(coding="delta", delta=0.03), timesteps)[0].dense()[0]
    rebuilt = x[0, 0] + 0.03 * np.cumsum(dense[:, 0].astype(int) - dense[:, 1].astype(int))
    assert np.abs(rebuilt - x[0]).max() < 0.03 + 1e-12
    assert not (dense[:, 0] & dense[:, 1]).any()


def test_delta_reads_fewer_timesteps_than_values_evenly():
    dataset = arrays(np.array([[0, 9, 0, 9, 1, 9, 1, 9]], np.float64), high=10)
    dense = encode(dataset, dataset.train, DataConfig(coding="delta"), 4)[0].dense()[0]
    assert dense.tolist() == [[0, 0], [0, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("dataset", "config", "message"),
    [
        (arrays(np.zeros((1, 3))), DataConfig(coding="events"), "coding = 'events' needs event data"),
        (events([[]], 3), DataConfig(coding="rate"), "coding = 'rate' needs arrays"),
        (arrays(np.zeros((1, 2, 2, 2))), DataConfig(coding="delta"), "needs samples \\(length,\\)"),
        (arrays(np.zeros((1, 3))), DataConfig(coding="delta"), "has only 3 values per sample"),
    ],
)
def test_codings_that_do_not_suit_the_data(dataset, config, message):
    with pytest.raises(InputError, match=message):
        encode(dataset, dataset.train, config, 5)


@pytest.mark.parametrize("coding", ["current", "rate", "latency", "delta"])
def test_no_sample_is_encoded_as_none(coding):
    dataset = arrays(np.zeros((2, 6)))
    stimulus, counts = encode(dataset, dataset.train.take(slice(0, 0)), DataConfig(coding=coding), 3)
    stimulus.validate()
    assert len(stimulus) == 0 and stimulus.n_inputs == n_sources(dataset, DataConfig(coding=coding))
    assert counts.total == 0


@pytest.mark.parametrize("coding", ["current", "rate", "latency", "delta"])
def test_every_coding_of_digits_gives_a_valid_stimulus(coding):
    from codesign.data import load_dataset

    config = DataConfig(coding=coding, test_limit=7)
    dataset = load_dataset(config)
    stimulus, _ = encode(dataset, dataset.test, config, 6)
    stimulus.validate()
    assert len(stimulus) == 7
    assert stimulus.n_inputs == n_sources(dataset, config)
    assert np.array_equal(stimulus.labels, dataset.test.labels)
