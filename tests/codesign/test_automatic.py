"""What is left to the data is chosen by their number and kind, stated, and the same each time."""

import tomllib

import numpy as np
import pytest

from codesign.basics.errors import InputError, UnsupportedError
from codesign.cli.targets import overridden
from codesign.config import Config, parse_config
from codesign.config.text import config_template, config_toml
from codesign.contract.network import FrozenNetwork
from codesign.data.automatic import is_resolved, resolve
from codesign.data.samples import Dataset, Events, Split
from codesign.train.rewiring import change_epochs


def arrays(count: int) -> Dataset:
    part = Split(np.zeros(count, np.int32), np.arange(count), np.zeros((count, 4)))
    return Dataset("npz", ("0", "1"), part, part, part)


def events(ends) -> Dataset:
    """Samples of two events each, the last at ``ends``."""
    times = np.stack([np.zeros(len(ends)), ends], axis=1).ravel().astype(np.float32)
    held = Events(times, np.zeros(times.size, np.int32), 2 * np.arange(len(ends) + 1))
    part = Split(np.zeros(len(ends), np.int32), np.arange(len(ends)), events=held)
    return Dataset("npz", ("0", "1"), part, part, part, n_units=1)


@pytest.mark.parametrize(
    ("samples", "batch", "epochs"), [(20, 16, 400), (196, 16, 154), (1287, 32, 49), (6000, 128, 43), (55000, 128, 20)]
)
def test_small_sets_get_small_batches_and_many_epochs(samples, batch, epochs):
    config, lines = resolve(Config(), arrays(samples))
    assert (config.train.batch_size, config.train.epochs) == (batch, epochs)
    assert is_resolved(config)
    steps = epochs * -(-samples // batch)
    assert steps >= 2000 or epochs == 400
    assert any(f"batches of {batch} make {steps:,} optimiser steps" in line for line in lines)
    assert "auto" not in config_toml(config, {"data": (), "train": (), "freeze": ()})


def test_the_schedule_of_rewiring_follows_the_epochs():
    config, _ = resolve(Config(), arrays(196))
    assert config.train.rewiring.epochs_per_iteration == 5
    falls = [epoch for epoch, kind in change_epochs(154, config.train.rewiring).items() if kind == "fall"]
    assert falls == list(range(5, 106, 5))
    # Up to 89 epochs it is what it was when it was no matter of the data.
    assert parse_config({"train": {"epochs": 60}}).train.rewiring.iteration_epochs(60) == 2


def test_what_is_stated_stays():
    stated = {
        "train": {"epochs": 7, "batch_size": 50, "rewiring": {"epochs_per_iteration": 3}},
        "freeze": {"epochs": 0},
    }
    config, lines = resolve(parse_config(stated), arrays(500))
    assert (config.train.epochs, config.train.batch_size, config.freeze.epochs) == (7, 50, 0)
    assert config.train.rewiring.epochs_per_iteration == 3
    assert lines == []
    assert resolve(config, arrays(40)) == (config, [])


@pytest.mark.parametrize("kind", ["arrays", "events"])
def test_the_configuration_that_init_writes_suits_either_kind_of_data(kind):
    config = parse_config(tomllib.loads(config_template()))
    dataset = arrays(100) if kind == "arrays" else events(np.linspace(10, 50, 100))
    found, _ = resolve(config, dataset)
    assert found.data.coding == ("current" if kind == "arrays" else "events")
    again = parse_config(tomllib.loads(config_toml(found)))
    assert again.model_dump() == found.model_dump()


def test_timesteps_of_events_last_as_long_as_nearly_all_samples():
    config, lines = resolve(Config(), events([*[40.0] * 96, *[4000.0] * 4]))
    assert config.data.step_ms == 5.1
    assert any("8 timesteps last 40.8 ms" in line for line in lines)
    assert resolve(Config(), events([0.0] * 5))[0].data.step_ms > 0


def test_a_key_of_the_other_coding_is_refused_once_the_data_are_known():
    with pytest.raises(InputError, match="step_ms belongs to coding = 'events', not 'current'"):
        resolve(parse_config({"data": {"step_ms": 3.0}}), arrays(100))
    with pytest.raises(InputError, match="input_bits belongs to coding = 'current', not 'events'"):
        resolve(parse_config({"data": {"input_bits": 7}}), events([5.0] * 9))


@pytest.mark.parametrize(
    ("dataset", "coding", "message"),
    [(arrays(100), "events", "'events' needs event data"), (events([5.0] * 9), "rate", "'rate' needs arrays")],
)
def test_a_coding_of_the_other_kind_is_refused(dataset, coding, message):
    with pytest.raises(InputError, match=message):
        resolve(parse_config({"data": {"coding": coding}}), dataset)


def test_values_that_are_neither_a_number_nor_auto_are_one_problem():
    with pytest.raises(InputError) as error:
        parse_config({"train": {"epochs": "x"}})
    assert str(error.value).count("train.epochs") == 1 and "or 'auto'" in str(error.value)


def test_the_readout_of_a_network_made_elsewhere_is_its_own():
    weights = [np.array([[1, 2], [3, 4]])]
    network = FrozenNetwork.from_arrays(weights, threshold=1, timesteps=2)
    assert overridden(["hardware.early_exit=certain"], network).hardware.early_exit == "certain"
    with pytest.raises(UnsupportedError, match="readout 'spike_count'"):
        overridden(["hardware.early_exit=certain"])
