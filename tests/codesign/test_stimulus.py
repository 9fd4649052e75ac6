"""Stimuli: selection, the file, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, random_stimulus

from codesign.basics.errors import InputError
from codesign.contract.stimulus import Stimulus


def events(seed: int = 0, samples: int = 5, timesteps: int = 4, n_inputs: int = 7) -> np.ndarray:
    return (np.random.default_rng(seed).random((samples, timesteps, n_inputs)) < 0.3).astype(np.uint8)


def test_dense_and_sparse_forms_agree() -> None:
    dense = events()
    stimulus = Stimulus.from_dense(dense, [0, 1, 2, 3, 4])
    stimulus.validate()
    assert np.array_equal(stimulus.dense(), dense)
    for sample in range(5):
        for timestep in range(4):
            assert stimulus.events(sample, timestep).tolist() == np.flatnonzero(dense[sample, timestep]).tolist()


@pytest.mark.parametrize("chosen", [[3, 0, 0], slice(1, 4), [], [4]])
def test_take_keeps_events_and_labels_together(chosen) -> None:
    dense = events(1)
    taken = Stimulus.from_dense(dense, np.arange(5)).take(chosen)
    taken.validate()
    assert np.array_equal(taken.dense(), dense[chosen])
    assert taken.labels.tolist() == np.arange(5)[chosen].tolist()


def test_samples_are_spread_over_all_of_them() -> None:
    stimulus = Stimulus.from_dense(events(1, samples=9), np.arange(9))
    for most, chosen in ((3, [0, 3, 6]), (4, [0, 2, 4, 6]), (9, range(9)), (500, range(9))):
        spread = stimulus.spread(most)
        assert spread.labels.tolist() == list(chosen)
        assert np.array_equal(spread.dense(), events(1, samples=9)[list(chosen)])
    assert len(stimulus.take([]).spread(4)) == 0


def test_take_of_values() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    taken = Stimulus(4, 2, np.arange(3, dtype=np.int32), values=values).take([2, 0])
    assert taken.is_current and taken.values is not None
    assert taken.values.tolist() == values[[2, 0]].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_a_saved_stimulus_is_loaded_unchanged(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    stimulus = random_stimulus(rng, random_network(rng), 4)
    stimulus.save(tmp_path / "s.npz")
    again = Stimulus.load(tmp_path / "s.npz")
    for name in ("n_inputs", "timesteps"):
        assert getattr(again, name) == getattr(stimulus, name)
    for name in ("labels", "offsets", "sources", "values"):
        assert np.array_equal(getattr(again, name), getattr(stimulus, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": np.array([0, 7], np.int32)}, "a source is outside 0..6"),
        ({"sources": np.array([0, -1], np.int32)}, "a source is outside 0..6"),
        ({"sources": np.array([3, 3], np.int32)}, "more than one event in a timestep, or out of order"),
        ({"sources": np.array([3, 2], np.int32)}, "more than one event in a timestep, or out of order"),
        ({"sources": np.array([3, 3], np.uint64)}, "more than one event in a timestep, or out of order"),
        ({"offsets": np.array([0, 2])}, "2 offsets, expected 3"),
        ({"offsets": np.array([0, 3, 2])}, "offsets do not rise"),
        ({"sources": None}, "neither values nor events"),
    ],
)
def test_invalid_events_are_refused(change, message: str) -> None:
    good = Stimulus(7, 2, np.array([0], np.int32), np.array([0, 2, 2]), np.array([0, 1], np.int32))
    good.validate()
    with pytest.raises(InputError, match=message):
        replace(good, **change).validate()


def test_invalid_values_are_refused() -> None:
    with pytest.raises(InputError, match="values are int64"):
        Stimulus(2, 1, np.zeros(1, np.int32), values=np.zeros((1, 2), np.int64)).validate()  # type: ignore[arg-type]


HUGE = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([[0]])}, r"labels is int64 \(1, 1\), expected integers with one axis"),
        ({"labels": np.array([0.0])}, "labels is float64"),
        ({"labels": np.array(["0"])}, "labels is <U1"),
        ({"labels": np.array([-2])}, "label -2 is outside -1..2"),
        ({"labels": np.array([3])}, "label 3 is outside -1..2"),
        ({"labels": np.array([1 << 40])}, "label 1099511627776 is outside"),
        ({"labels": np.array([0, 1])}, "3 offsets, expected 5"),
        ({"offsets": np.array([0.0, 2.0, 2.0])}, "offsets is float64"),
        # From HUGE to the smallest number is a step of 1 in arithmetic that wraps.
        ({"timesteps": 3, "offsets": np.array([0, HUGE, -HUGE - 1, 2])}, "offsets do not rise"),
        ({"offsets": np.array([0, (1 << 64) - 2, 2], np.uint64)}, "offsets do not rise"),
        ({"sources": np.array([0.0, 1.0])}, "sources is float64"),
        ({"n_inputs": 0}, "n_inputs is 0, expected 1.."),
        ({"timesteps": 1 << 40}, "timesteps is 1099511627776, expected 1.."),
        ({"values": np.zeros((1, 7), np.uint8)}, "both values and events"),
    ],
)
def test_every_part_of_a_stimulus_is_checked(change, message: str) -> None:
    good = Stimulus(7, 2, np.array([2], np.int32), np.array([0, 2, 2]), np.array([0, 1], np.int32))
    good.validate(n_classes=3)
    with pytest.raises(InputError, match=message):
        replace(good, **change).validate(n_classes=3)


@pytest.mark.parametrize(
    ("frame", "labels", "message"),
    [
        (np.full((1, 2, 4), 3, np.uint8), None, "dense events hold 3, expected booleans, 0 or 1"),
        (np.full((1, 2, 4), -1), None, "dense events hold -1"),
        (np.full((1, 2, 4), 0.4), None, "dense events hold 0.4"),
        (np.full((1, 2, 4), np.nan), None, "dense events hold nan"),
        (np.full((1, 2, 4), "1"), None, "dense events are <U1, expected booleans, 0 or 1"),
        (np.zeros((2, 4), bool), None, r"shape \(2, 4\), expected \(samples, timesteps, inputs\)"),
        (np.zeros((1, 2, 4), bool), [0.5], "labels is float64"),
        (np.zeros((1, 2, 4), bool), [0, 1], "2 labels for 1 samples"),
    ],
)
def test_dense_events_are_bits(frame, labels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stimulus.from_dense(frame, labels)


def test_zeros_and_ones_of_any_dtype_are_bits() -> None:
    dense = events()
    for dtype in (bool, np.int8, np.uint64, np.float32):
        assert np.array_equal(Stimulus.from_dense(dense.astype(dtype)).dense(), dense)
    assert np.array_equal(Stimulus.from_dense(dense.tolist()).dense(), dense)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    stimulus = Stimulus.from_dense(events())
    for wrong, message in (
        (stimulus.take([]), "s.npz: holds no samples"),
        (replace(stimulus, timesteps=3), "s.npz: 21 offsets, expected 16"),
    ):
        with pytest.raises(InputError, match=message):
            wrong.save(tmp_path / "s.npz")
    assert not list(tmp_path.iterdir())


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with pytest.raises(InputError, match="no such stimulus"):
        Stimulus.load(path)
    Stimulus.from_dense(events()).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="truncated or not an npz file") as caught:
        Stimulus.load(path)
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, labels=np.array([{}], object))
    with pytest.raises(InputError, match="'labels' holds Python objects"):
        Stimulus.load(path)


def parts(**changes) -> dict[str, np.ndarray]:
    """Arrays of a stimulus file with two samples of two timesteps and three inputs."""
    good = {
        "n_inputs": np.array(3), "timesteps": np.array(2), "labels": np.array([0, 1]),
        "offsets": np.array([0, 1, 1, 2, 4]), "sources": np.array([2, 0, 1, 2]),
    }  # fmt: skip
    return {name: array for name, array in {**good, **changes}.items() if array is not None}


def test_integers_of_any_width_are_read(tmp_path: Path) -> None:
    arrays = {name: array.astype(">i2") for name, array in parts().items()}
    np.savez(tmp_path / "s.npz", **arrays)
    stimulus = Stimulus.load(tmp_path / "s.npz", 2)
    assert stimulus.offsets is not None and stimulus.sources is not None
    assert [a.dtype for a in (stimulus.labels, stimulus.offsets, stimulus.sources)] == [np.int32, np.int64, np.int32]
    assert stimulus.labels.tolist() == [0, 1] and stimulus.sources.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_inputs": None}, "no array 'n_inputs' in it"),
        ({"n_inputs": np.array(3.0)}, "n_inputs is float64"),
        ({"timesteps": np.array([2])}, r"timesteps is int64 \(1,\), expected one whole number"),
        ({"labels": np.array([0, 2])}, "label 2 is outside -1..1"),
        ({"labels": np.zeros(0, int), "offsets": np.zeros(1, int), "sources": np.zeros(0, int)}, "holds no samples"),
    ],
)
def test_files_of_another_form_are_refused_with_their_name(tmp_path: Path, changes, message: str) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, **parts(**changes))
    with pytest.raises(InputError, match=message) as caught:
        Stimulus.load(path, 2)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
