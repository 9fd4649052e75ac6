"""Stimuli: selection, the file, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, random_stimulus

from codesign.errors import InputError
from codesign.stimulus import Stimulus


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


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with pytest.raises(InputError, match="no such stimulus"):
        Stimulus.load(path)
    Stimulus.from_dense(events()).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="truncated or not a stimulus file") as caught:
        Stimulus.load(path)
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, labels=np.array([{}], object))
    with pytest.raises(InputError, match="not a stimulus file"):
        Stimulus.load(path)
