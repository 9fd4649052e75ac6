"""Heart beats: split by records, running means of the patient, RR intervals as flags."""

import numpy as np
import pytest

from codesign.basics.errors import InputError
from codesign.config import Config, DataConfig, load_config, parse_config
from codesign.data import load_dataset
from codesign.data.encoders import encode, input_coding, n_sources
from codesign.data.heartbeats import VALIDATION_RECORDS, mean_beat, rr_flags, rr_ratios, running_mean

RECORDS = (101, 106, *VALIDATION_RECORDS, 100, 103)
BEATS = 20


def write(path, **changes):
    """20 beats of each record; every fifth comes early; 100 and 103 are test records."""
    random = np.random.default_rng(0)
    n = len(RECORDS) * BEATS
    record = np.repeat(np.array(RECORDS, np.uint16), BEATS)
    place = np.tile(np.arange(BEATS), len(RECORDS))
    pre = np.where(place % 5 == 4, 600, 900).astype(np.uint16)
    post = np.roll(pre, -1)
    pre[place == 0], post[place == BEATS - 1] = 0, 65535
    arrays = {
        "x": random.integers(-128, 128, (n, 128), dtype=np.int64).astype(np.int8),
        "y": (place % 4).astype(np.uint8),
        "record": record,
        "pre_rr_ms": pre,
        "post_rr_ms": post,
        "split": np.where(record >= 101, 1, 2).astype(np.uint8),
    }
    arrays["split"][record == 103] = 2
    arrays.update(changes)
    np.savez(path, **arrays)
    return arrays


def config(path, **options):
    return DataConfig(set="mitbih-beats", path=str(path), **options)


def test_beats_are_split_by_record(tmp_path):
    path = tmp_path / "beats.npz"
    arrays = write(path)
    dataset = load_dataset(config(path))
    parts = [np.unique(arrays["record"][part.index]).tolist() for part in (dataset.train, dataset.validation)]
    assert parts == [[101, 106], sorted(VALIDATION_RECORDS)]
    assert len(dataset.test) == 2 * BEATS and dataset.flag_names == ()
    other = load_dataset(config(path, validation_records=[106, 223]))
    assert np.unique(arrays["record"][other.validation.index]).tolist() == [106, 223]
    assert np.array_equal(other.test.x, dataset.test.x)
    with pytest.raises(InputError, match=r"validation_records: 100 is none of beats\.npz's training records \(101,"):
        load_dataset(config(path, validation_records=[106, 100]))
    with pytest.raises(InputError, match="names its own validation samples"):
        load_dataset(config(path, validation=0.2))


def test_validation_never_falls_back_to_beats_of_training_patients(tmp_path):
    path = tmp_path / "beats.npz"
    arrays = write(path)
    own = np.arange(len(arrays["record"])) // 20
    for changes in ({"record": own}, {"y": np.where(arrays["record"] > 110, 4, arrays["y"])}):
        write(path, **changes)
        for options in ({}, {"validation": 0.2}):
            with pytest.raises(InputError, match="no beats of the validation records"):
                load_dataset(config(path, **options))
    write(path, record=own, split=np.where(own < 6, 1, 2))
    assert len(load_dataset(config(path, validation_records=[2])).validation) == BEATS


def test_a_written_configuration_loads_the_same_split(tmp_path):
    from codesign.config.text import config_toml

    write(tmp_path / "beats.npz")
    first = config(tmp_path / "beats.npz", rr=True)
    (tmp_path / "config.toml").write_text(config_toml(Config(data=first)), encoding="utf-8")
    again = load_config(tmp_path / "config.toml").data
    assert np.array_equal(load_dataset(first).validation.index, load_dataset(again).validation.index)


def test_the_running_mean_is_plain_at_first_and_then_forgets():
    values = np.array([2.0, 4.0, 12.0, 0.0, 10.0])
    record = np.array([1, 1, 1, 1, 2])
    assert running_mean(values, record, 2).tolist() == [2.0, 3.0, 7.5, 3.75, 10.0]
    assert running_mean(values, record, 9).tolist() == [2.0, 3.0, 6.0, 4.5, 10.0]


def test_the_mean_beat_is_of_the_beats_before():
    beats = np.array([[1.0, 0.0], [3.0, 2.0], [8.0, 8.0], [5.0, 5.0]])
    record = np.array([7, 7, 7, 8])
    assert mean_beat(beats, record).tolist() == [[1, 0], [1, 0], [2, 1], [5, 5]]


def test_ratios_of_rr_intervals():
    pre = np.array([0, 800, 400, 1200, 500], np.uint16)
    post = np.array([800, 400, 1200, 65535, 500], np.uint16)
    ratios = rr_ratios(pre, post, np.array([1, 1, 1, 1, 2]))
    assert np.allclose(ratios["pre / mean"], [1, 1, 400 / (2000 / 3), 1200 / 800, 1])
    assert np.allclose(ratios["post / mean"], [1, 0.5, 1200 / (2000 / 3), 1, 1])
    assert np.array_equal(ratios["pre / recent"], ratios["pre / mean"])


def test_a_missing_interval_counts_as_the_first_known_one_before_the_beat_and_as_the_mean_after_it():
    pre = np.array([0, 500, 800, 65535], np.uint16)
    ratios = rr_ratios(pre, np.array([500, 0, 0, 65535], np.uint16), np.ones(4, int))
    filled = np.array([500, 500, 800, 500])
    mean = np.cumsum(filled) / np.arange(1, 5)
    assert np.allclose(ratios["pre / mean"], filled / mean)
    assert np.allclose(ratios["post / mean"], [1, 1, 1, 1])


def test_a_regular_rhythm_sets_no_flag():
    flags, names = rr_flags({"pre / mean": np.array([1.0, 0.79, 1.3])})
    assert flags.shape == (3, 15)
    assert [[name for name, flag in zip(names, row, strict=True) if flag] for row in flags] == [
        [],
        ["pre / mean < 0.95", "pre / mean < 0.9", "pre / mean < 0.85", "pre / mean < 0.8"],
        [f"pre / mean >= {level}" for level in (1.05, 1.1, 1.15, 1.2, 1.3)],
    ]


def test_nothing_depends_on_later_beats_or_other_records(tmp_path):
    arrays = write(tmp_path / "whole.npz")
    # Without the last 5 beats of each record, the others are as they were (post_rr of the new last one stays).
    place = np.tile(np.arange(BEATS), len(RECORDS))
    write(tmp_path / "part.npz", **{name: array[place < BEATS - 5] for name, array in arrays.items()})
    options = {"rr": True, "subtract_mean_beat": True}
    whole, part = (load_dataset(config(tmp_path / f"{name}.npz", **options)) for name in ("whole", "part"))
    early = np.isin(whole.test.index, np.flatnonzero(place < BEATS - 5))
    assert np.array_equal(whole.test.flags[early], part.test.flags)
    assert np.array_equal(whole.test.x[early], part.test.x)


def test_the_difference_from_the_mean_beat_is_cut_to_int8(tmp_path):
    path = tmp_path / "beats.npz"
    arrays = write(path)
    dataset = load_dataset(config(path, subtract_mean_beat=True))
    beats = arrays["x"].astype(float)
    expected = np.clip(np.rint(beats - mean_beat(beats, arrays["record"])), -128, 127)
    assert dataset.train.x is not None and dataset.train.x.dtype == np.int8
    assert np.array_equal(dataset.train.x, expected[dataset.train.index])
    assert not dataset.test.x[0].any() and abs(dataset.test.x).max() > 100


@pytest.mark.parametrize("coding", ["delta", "current", "rate"])
def test_flags_are_sources_after_those_of_the_coding(tmp_path, coding):
    path = tmp_path / "beats.npz"
    write(path)
    chosen = config(path, rr=True, coding=coding, **({"delta": [0.1, 0.2]} if coding == "delta" else {}))
    plain = config(path, coding=coding, **({"delta": [0.1, 0.2]} if coding == "delta" else {}))
    dataset, without = load_dataset(chosen), load_dataset(plain)
    stimulus, _ = encode(dataset, dataset.test, chosen, 32)
    reference, _ = encode(without, without.test, plain, 32)
    stimulus.validate()
    coded = n_sources(without, plain)
    assert n_sources(dataset, chosen) == stimulus.n_inputs == coded + 45
    flags = dataset.test.flags
    assert flags.any() and not flags.all()
    if coding == "current":
        assert np.array_equal(stimulus.values[:, :coded], reference.values)
        assert np.array_equal(stimulus.values[:, coded:], flags * 15)
    else:
        assert np.array_equal(stimulus.dense()[:, :, :coded], reference.dense())
        assert np.array_equal(stimulus.dense()[:, :, coded:], np.repeat(flags[:, None], 32, axis=1))
    frozen = input_coding(dataset, chosen).parameters
    assert frozen["flags"] == list(dataset.flag_names) and "flags" not in input_coding(without, plain).parameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_rr_ms": np.zeros(9)}, r"pre_rr_ms has shape \(9,\) for 180 beats"),
        ({"post_rr_ms": np.full(180, 0.5)}, "post_rr_ms is float64, expected integers"),
        ({"x": np.zeros((180, 128))}, r"x is float64 \(180, 128\), expected int8"),
        ({"y": np.full(180, 5)}, r"label 5 is outside 0\.\.4"),
        ({"split": np.zeros(180, int)}, "split holds values other than 1"),
        ({"split": np.ones(180, int)}, "no test samples"),
        ({"split": np.where(np.isin(np.repeat(RECORDS, BEATS), VALIDATION_RECORDS), 1, 2)}, "no training samples"),
    ],
)
def test_malformed_files_give_one_line(tmp_path, changes, message):
    write(tmp_path / "beats.npz", **changes)
    with pytest.raises(InputError, match=message):
        load_dataset(config(tmp_path / "beats.npz", rr=True))


def test_a_file_without_intervals_serves_all_but_rr(tmp_path):
    arrays = write(tmp_path / "all.npz")
    del arrays["pre_rr_ms"], arrays["post_rr_ms"]
    np.savez(tmp_path / "beats.npz", **arrays)
    assert len(load_dataset(config(tmp_path / "beats.npz")).test) == 40
    with pytest.raises(InputError, match="no array 'pre_rr_ms', 'post_rr_ms'"):
        load_dataset(config(tmp_path / "beats.npz", rr=True))


@pytest.mark.parametrize("option", [{"rr": True}, {"subtract_mean_beat": True}, {"validation_records": [101]}])
def test_options_of_heart_beats_belong_to_their_set(option):
    with pytest.raises(InputError, match="belongs to set = 'mitbih-beats', not 'digits'"):
        parse_config({"data": option})
    with pytest.raises(InputError, match="validation_records"):
        parse_config({"data": {"set": "mitbih-beats", "validation_records": []}})
