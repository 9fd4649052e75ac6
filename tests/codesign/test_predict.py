"""Samples to classify are judged as training samples are: counts of events, scale, labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from codesign.basics.errors import InputError
from codesign.cli import main
from codesign.config import parse_config
from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.data import DataWarning
from codesign.pipeline.predict import predict
from codesign.records.rundir import RunDirectory

EVENTS = parse_config({"data": {"set": "npz", "path": "train.npz", "coding": "events", "step_ms": 10.0}})
shown = pytest.mark.filterwarnings("always::codesign.basics.errors.CodesignWarning")
ARRAYS = parse_config({"data": {"set": "npz", "path": "train.npz"}})


@pytest.fixture
def run(tmp_path):
    """A run whose frozen network counts the events of inputs 0 to 2 and of inputs 3 to 5."""
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config(EVENTS)
    weights = np.repeat(np.eye(2, dtype=int), 3, axis=0) * 8
    FrozenNetwork.from_arrays([weights], threshold=[8], timesteps=6, coding="events").save(
        directory.path / "network.safetensors"
    )
    directory.save()
    return directory.path


def sample_arrays(scale: float = 1.0, dtype: str = "f8") -> dict[str, np.ndarray]:
    """16 samples of 10 events, the odd ones in inputs 3 to 5; times over 60 ms, times ``scale``."""
    random = np.random.default_rng(0)
    y = np.arange(16) % 2
    return {
        "times": (random.random((16, 10)) * 60 * scale).astype(dtype).ravel(),
        "units": (random.integers(0, 3, (16, 10)) + 3 * y[:, None]).ravel(),
        "offsets": np.arange(17) * 10,
        "y": y,
    }


def command(capfd, *arguments) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(["predict", *map(str, arguments)])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_events_are_counted_in_text_and_in_json(run, tmp_path, capfd) -> None:
    np.savez(tmp_path / "p.npz", **sample_arrays())
    code, out, err = command(capfd, run, tmp_path / "p.npz")
    assert code == 0 and "160 events, " in out and " 0 dropped" in out and "accuracy 100.00 %" in out and err == ""
    code, out, _ = command(capfd, run, tmp_path / "p.npz", "--json")
    events = json.loads(out)["events"]
    assert events["events"] + events["merged"] == 160 and events["dropped"] == events["early"] == events["late"] == 0


@shown
@pytest.mark.parametrize(
    ("changes", "likely"),
    [(sample_arrays(1e3, "u8"), "they look like us"), (sample_arrays(1e6), "they look like ns")],
)
def test_events_of_another_unit_are_refused_unless_allowed(run, tmp_path, capfd, changes, likely) -> None:
    np.savez(tmp_path / "p.npz", **changes)
    code, out, err = command(capfd, run, tmp_path / "p.npz")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "of 160 events" in err and likely in err and "--allow-dropped" in err
    code, out, err = command(capfd, run, tmp_path / "p.npz", "--allow-dropped", "--json")
    document = json.loads(out)
    assert code == 0 and "codesign: warning:" in err and document["events"]["dropped"] >= 80
    assert len(document["decisions"]) == 16


@shown
@pytest.mark.parametrize("late", [1e39, 1e6])
def test_late_events_are_warned_of_and_land_in_no_timestep(run, tmp_path, capfd, late) -> None:
    arrays = sample_arrays()
    whole = arrays["times"].reshape(16, 10)
    whole[:, -3:] = late
    np.savez(tmp_path / "p.npz", **arrays)
    code, out, err = command(capfd, run, tmp_path / "p.npz", "--json")
    assert code == 0 and "48 of 160 events (30 %) are dropped" in err
    kept = np.tile([True] * 7 + [False] * 3, 16)
    cut = {"times": arrays["times"][kept], "units": arrays["units"][kept], "offsets": np.arange(17) * 7}
    np.savez(tmp_path / "cut.npz", **cut)
    _, expected, _ = command(capfd, run, tmp_path / "cut.npz", "--json")
    assert json.loads(out)["values"] == json.loads(expected)["values"]


def test_the_unit_of_the_runs_data_is_that_of_the_samples(run, tmp_path) -> None:
    network = FrozenNetwork.load(run / "network.safetensors")
    np.savez(tmp_path / "ms.npz", **sample_arrays())
    np.savez(tmp_path / "us.npz", **sample_arrays(1e3))
    config = EVENTS.data.model_copy(update={"time_unit": "us"})
    assert np.array_equal(
        predict(network, config, tmp_path / "us.npz").values, predict(network, EVENTS.data, tmp_path / "ms.npz").values
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.zeros(16)}, "y is float64"),
        ({"y": np.full(16, "a")}, "y is <U1"),
        ({"y": np.zeros((16, 1), int)}, r"y has shape \(16, 1\) for 16 samples"),
        ({"y": np.full(16, 2)}, r"label 2 is outside 0\.\.1"),
        ({"y": np.full(16, -1)}, r"label -1 is outside 0\.\.1"),
        ({"units": np.zeros(160)}, "units is float64"),
        ({"units": np.full(160, 6)}, r"unit 6 is outside 0\.\.5"),
        ({"units": np.full(160, (1 << 64) - 1, np.uint64)}, r"unit 18446744073709551615 is outside 0\.\.5"),
        ({"units": np.full(160, -1)}, "unit -1 is negative"),
        ({"offsets": np.arange(17) * 10.0}, "offsets is float64"),
        ({"offsets": np.array([0, 1 << 63, 160], np.uint64)}, "offsets do not rise"),
        ({"offsets": np.zeros(0, int)}, "offsets of no sample"),
        ({"times": np.full(160, -1.0)}, r"a time is negative \(-1.0 ms\)"),
        ({"x": np.zeros((16, 6))}, "holds both an array 'x' and events"),
        ({"times": np.full(160, np.nan)}, "times holds NaN or infinite values"),
        ({"times": np.full(160, "a")}, "times is <U1, expected real numbers"),
    ],
)
def test_samples_of_another_form_are_refused(run, tmp_path, changes, message) -> None:
    arrays = {**sample_arrays(), **changes}
    if len(arrays["offsets"]) != 17:
        del arrays["y"]
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        predict(FrozenNetwork.load(run / "network.safetensors"), EVENTS.data, tmp_path / "p.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bounds", [{"low": 1.0}, {"high": "two"}, {"low": -1e308, "high": 1e308}])
def test_a_network_without_a_scale_for_arrays_is_refused(tmp_path, bounds) -> None:
    coding = InputCoding("current", 4, bounds)
    network = FrozenNetwork.from_arrays([np.eye(4, 2, dtype=int)], threshold=[8], timesteps=2, coding=coding)
    np.savez(tmp_path / "p.npz", x=np.ones((8, 4)))
    with pytest.raises(InputError, match=r"the network's scale, coding.parameters, is "):
        predict(network, ARRAYS.data, tmp_path / "p.npz")


def test_values_that_use_little_of_the_training_scale_are_warned_of(tmp_path) -> None:
    network = FrozenNetwork.from_arrays(
        [np.eye(4, 2, dtype=int)],
        threshold=[8],
        timesteps=2,
        coding=InputCoding("current", 4, {"low": 0.0, "high": 255.0}),
    )
    x = np.random.default_rng(0).random((8, 4))
    np.savez(tmp_path / "p.npz", x=x)
    with pytest.warns(DataWarning, match=r"of the assumed scale 0\.\.255: every input becomes 0 of 0\.\.15"):
        predict(network, ARRAYS.data, tmp_path / "p.npz")
    np.savez(tmp_path / "p.npz", x=x * 255)
    assert predict(network, ARRAYS.data, tmp_path / "p.npz").events is None


def test_samples_are_encoded_as_the_network_states(tmp_path) -> None:
    """Whatever a configuration leaves open, such as that of an imported network, which has no data."""
    weights = np.repeat(np.eye(2, dtype=int), 3, axis=0) * 8
    events = FrozenNetwork.from_arrays([weights], threshold=[8], timesteps=6, coding="events")
    stated = replace(events, coding=InputCoding("events", 0, {"step_ms": 10.0}))
    np.savez(tmp_path / "p.npz", **sample_arrays())
    found = predict(stated, parse_config({}).data, tmp_path / "p.npz").values
    assert np.array_equal(found, predict(events, EVENTS.data, tmp_path / "p.npz").values)
    with pytest.raises(InputError, match=r"data\.step_ms = 10\.0, but the network was trained with 25\.0"):
        predict(replace(events, coding=InputCoding("events", 0, {"step_ms": 25.0})), EVENTS.data, tmp_path / "p.npz")
    current = FrozenNetwork.from_arrays(
        [np.eye(4, 2, dtype=int)], threshold=[6], timesteps=2, coding=InputCoding("current", 2)
    )
    np.savez(tmp_path / "x.npz", x=np.eye(4))
    assert predict(current, parse_config({}).data, tmp_path / "x.npz").values.max() == 1
    with pytest.raises(InputError, match=r"data\.input_bits = 4, but the network was trained with 2"):
        predict(current, parse_config({"data": {"input_bits": 4}}).data, tmp_path / "x.npz")
