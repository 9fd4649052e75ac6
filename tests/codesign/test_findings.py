"""A network at chance, or one of which nothing is left, is said to be that, with what to try."""

import json
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codesign.basics.errors import InputError
from codesign.cli import main
from codesign.config import parse_config
from codesign.data.chance import compare
from codesign.pipeline.findings import after_freezing, after_training
from codesign.records.rundir import RunDirectory

LABELS = np.arange(60) % 3
GOOD = compare(LABELS, LABELS, 3)
GUESSING = compare(LABELS, np.zeros(60, int), 3)


def trained(densities=(0.2, 0.5), spikes=(30.0, 5.0), steps=400) -> Any:
    row = {"layers": [{"spikes_per_sample": count} for count in spikes]}
    return SimpleNamespace(layer_density=list(densities), chosen=row, steps=steps)


def frozen(
    synapses=(40, 20), spikes=(30.0, 5.0), rounded=(0, 0), removed=(0, 0), losses=(0.5, 0.4), operations=1000.0
) -> Any:
    layers = [SimpleNamespace(n_synapses=count) for count in synapses]
    return SimpleNamespace(
        network=SimpleNamespace(layers=layers),
        figures={"spikes_per_sample": list(spikes), "synaptic_operations_per_sample": operations},
        details={
            "weights_rounded_to_zero": list(rounded),
            "removed_neurons": list(removed),
            "neurons": [12, 3],
            "fine_tuning": [{"epoch": epoch, "validation_loss": loss} for epoch, loss in enumerate(losses)],
        },
    )


def config(**sections):
    return parse_config({"network": {"readout": "spike_count"}, **sections})


def test_a_good_network_has_no_findings():
    assert list(after_training(config(), trained(), GOOD)) == []
    assert list(after_freezing(config(), frozen(), GOOD)) == []


def test_work_far_beyond_its_target_is_said():
    drawn = config(train={"operations_target": 950.0})
    assert list(after_freezing(drawn, frozen(), GOOD)) == []
    (text,) = after_freezing(drawn, frozen(operations=1900.0), GOOD)
    assert "1,900 synaptic operations per test sample, 100% more than train.operations_target = 950" in text
    assert "raise train.operations_weight (now 0.1)" in text


def test_guessing_is_said_with_what_to_try():
    (text,) = after_training(config(), trained(), GUESSING)
    assert "validation accuracy is no better than guessing (33.3% of 60 samples, guessing 33.3%)" in text
    for cure in ("400 so far: raise train.epochs", "train.learning_rate", "membrane_sum", "`range`"):
        assert cure in text
    (text,) = after_training(parse_config({"network": {"readout": "membrane_sum"}}), trained(steps=9000), GUESSING)
    assert "train.epochs" not in text and "membrane_sum" not in text
    (text,) = after_freezing(config(), frozen(), GUESSING)
    assert "test accuracy of the frozen network is no better than guessing" in text


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (trained(spikes=(0.0, 5.0)), "layer hidden 1 never fires on the validation samples"),
        (trained(spikes=(3.0, 0.0)), "layer output never fires"),
        (trained(densities=(0.0, 0.5)), "layer hidden 1 has no connection left"),
    ],
)
def test_what_training_lost_is_said(result, words):
    (text,) = after_training(config(), result, GOOD)
    assert text.startswith(words)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (frozen(spikes=(0.0, 5.0)), "layer hidden 1 never fires on the test samples"),
        (frozen(synapses=(0, 5), rounded=(7, 0)), "layer hidden 1 has no synapse left: 7 weights round to 0 in 6 bits"),
        (frozen(removed=(11, 0)), "layer hidden 1 is dead: of its 12 neurons 11 were removed"),
        (frozen(losses=(0.5, float("nan"))), "the loss of the fine-tuning in integers is not finite in epoch 1"),
    ],
)
def test_what_freezing_lost_is_said(result, words):
    (text,) = after_freezing(config(), result, GOOD)
    assert text.startswith(words)


def test_a_last_layer_that_only_integrates_need_not_fire():
    options = parse_config({"network": {"readout": "membrane_sum"}})
    assert list(after_training(options, trained(spikes=(3.0, 0.0)), GOOD)) == []


UNLEARNABLE = """
[data]
set = "npz"
[network]
hidden = [6]
timesteps = 2
[train]
epochs = 3
batch_size = 32
threads = 1
[train.rewiring]
epochs_per_iteration = 1
[freeze]
epochs = 1
"""


@pytest.fixture(scope="module")
def guessing(tmp_path_factory):
    """A run directory of a network trained on labels that have nothing to do with the samples."""
    folder = tmp_path_factory.mktemp("guessing")
    random = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=random.random((240, 8)), y=random.integers(0, 4, 240))
    (folder / "run.toml").write_text(UNLEARNABLE)
    data = f"data.path={folder / 'data.npz'}"
    assert main(["train", str(folder / "run.toml"), "-o", str(folder / "run"), "--set", data]) == 0
    return folder / "run"


def test_training_prints_its_figures_and_says_that_it_only_guesses(guessing, capfd):
    assert main(["freeze", str(guessing)]) == 0
    out, err = capfd.readouterr()
    for word in ("validation   ", "test         ", "guessing", "loss         ", "density      ", "removed      "):
        assert word in out
    assert "warning      test accuracy of the frozen network is no better than" in out
    assert "codesign: warning: test accuracy of the frozen network is no better than" in err
    for name in ("train", "freeze"):
        (text,) = [text for text in RunDirectory.open(guessing).stage(name)["warnings"] if "accuracy" in text]
        assert "no better than" in text and "; try " in text


def test_json_holds_what_was_printed(guessing, capfd):
    assert main(["train", str(guessing), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    stage = document["stages"]["train"]
    assert stage["validation"]["within_noise"] is True and stage["steps"] == 3 * 6
    assert stage["warnings"] and stage["loss"] == document["stage"]["loss"] > 0


def test_a_loss_that_is_not_finite_ends_the_training(guessing, tmp_path):
    from codesign.data import load_dataset
    from codesign.train import train

    options = RunDirectory.open(guessing).config
    wild = options.train.model_copy(update={"learning_rate": 1e38, "optimizer": "sgd"})
    network = options.network.model_copy(update={"readout": "membrane_sum"})
    options = options.model_copy(update={"train": wild, "network": network})
    with warnings.catch_warnings(), pytest.raises(InputError, match=r"loss is (nan|inf) in epoch \d of 3; lower train"):
        warnings.simplefilter("ignore")
        train(options, load_dataset(options.data), tmp_path)
