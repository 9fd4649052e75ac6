"""Trainings that begin with the weights of another one, and rewirers that begin with a model's strongest weights."""

from __future__ import annotations

import shutil
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from codesign.basics.errors import InputError
from codesign.cli.summaries import training_lines
from codesign.config import PATHS, Config, Section, load_config, parse_config
from codesign.config.base import FilePath
from codesign.data import load_dataset
from codesign.data.samples import Dataset
from codesign.explore.space import load_space
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context
from codesign.records.rundir import RunDirectory
from codesign.train import train
from codesign.train.checkpoint import load, save
from codesign.train.rewiring import PQRewirer, first_mask
from codesign.train.rewiring.balance import balanced_mask, bank_counts


def tiny(start: Any = None, *, timesteps: int = 2, rewiring: dict[str, Any] | None = None, **options: Any) -> Config:
    rewiring = {"preset": "constant", "target_density": 0.2} if rewiring is None else rewiring
    options = {"threads": 1, "epochs": 4, "batch_size": 32, "learning_rate": 1e-2, "rewiring": rewiring, **options}
    if start is not None:
        options["start"] = str(start)
    return parse_config(
        {
            "data": {"train_limit": 256, "test_limit": 40, "validation": 100},
            "network": {"hidden": [16], "timesteps": timesteps},
            "train": options,
            "freeze": {"epochs": 1},
        }
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(tiny().data)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(tiny(epochs=20), digits, folder)
    return folder


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "best.safetensors")


def begun(config: Config, dataset: Dataset, folder) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """What a training starts with, and what it tells of it: nothing is learnt at a learning rate of almost nothing."""
    options = config.train.model_copy(update={"learning_rate": 1e-30, "epochs": 1})
    result = train(config.model_copy(update={"train": options}), dataset, folder)
    return weights(folder), result.start


def connections(tensors: dict[str, torch.Tensor]) -> int:
    return sum(int((tensor != 0).sum()) for name, tensor in tensors.items() if name[:5] == "model" and tensor.dim() > 1)


@pytest.mark.parametrize("preset", ["static", "constant"])
@pytest.mark.parametrize("timesteps", [2, 5])
def test_weights_and_connections_are_those_of_the_training_before(tmp_path, digits, trained, preset, timesteps):
    config = tiny(trained, timesteps=timesteps, rewiring={"preset": preset, "target_density": 0.2})
    (found, told), before = begun(config, digits, tmp_path / "next"), weights(trained)
    assert found.keys() == before.keys()
    for name, tensor in before.items():
        if name.startswith("model."):
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=0)
            if tensor.dim() > 1:
                assert (tensor != 0).sum() > 0 and ((found[name] != 0) == (tensor != 0)).all()
    assert told is not None and told.pop("weights")
    assert told == {"connections": connections(before), "kept": connections(before), "new": 0}


def test_fewer_connections_are_the_strongest(tmp_path, digits, trained):
    config = tiny(trained, rewiring={"preset": "static", "target_density": 0.1, "distribution": "uniform"})
    (found, told), before = begun(config, digits, tmp_path / "next"), weights(trained)
    for name, tensor in before.items():
        if name.startswith("model.") and tensor.dim() > 1:
            kept = found[name] != 0
            assert 0 < kept.sum() < (tensor != 0).sum()
            rest = torch.where(kept, torch.inf, tensor.abs())
            # Each neuron keeps one whatever its size.
            free = torch.stack([row & (size < size.max()) for row, size in zip(kept, tensor.abs(), strict=True)])
            assert tensor.abs()[free].min() >= torch.where(torch.isinf(rest), 0, rest).max()
    assert told is not None and told["kept"] == connections(found) < told["connections"] and told["new"] == 0


def test_more_connections_have_all_of_the_training_before(tmp_path, digits, trained):
    config = tiny(trained, rewiring={"preset": "static", "target_density": 0.4})
    _, told = begun(config, digits, tmp_path / "next")
    assert told is not None and told["kept"] == told["connections"] == connections(weights(trained))
    assert told["kept"] + told["new"] == round(0.4 * (64 * 16 + 16 * 10))


def test_a_training_goes_on_where_the_other_ended(tmp_path, digits, trained):
    from_drawn = train(tiny(epochs=1), digits, tmp_path / "drawn")
    from_trained = train(tiny(trained, epochs=1), digits, tmp_path / "next")
    assert from_trained.history[0]["loss"] < 0.8 * from_drawn.history[0]["loss"]


def test_an_interrupted_one_goes_on_by_the_content_of_its_start(tmp_path, digits, trained):
    class Stop(KeyboardInterrupt):
        pass

    def stop(done, total, text):
        if done == 2:
            raise Stop

    whole = train(tiny(trained), digits, tmp_path / "whole")
    with pytest.raises(Stop):
        train(tiny(trained), digits, tmp_path / "parts", progress=stop)
    moved = shutil.copytree(trained, tmp_path / "moved")
    calls: list[float] = []
    parts = train(tiny(moved), digits, tmp_path / "parts", progress=lambda done, total, text="": calls.append(done))
    assert min(calls) > 2 and parts.history == whole.history
    # Another start begins anew, at its first epoch.
    other = train(tiny(seed=1), digits, tmp_path / "other")
    calls.clear()
    train(tiny(other.checkpoint), digits, tmp_path / "parts", progress=lambda done, total, text="": calls.append(done))
    assert min(calls) <= 1


def test_what_cannot_be_a_start_is_refused_in_one_line(tmp_path, digits, trained):
    def refusal(config: Config, folder) -> str:
        with pytest.raises(InputError) as caught:
            train(config, digits, folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "train.start: " in (absent := refusal(tiny(tmp_path / "none"), tmp_path / "next"))
    assert "no such checkpoint" in absent
    wide = tiny(trained)
    wide = wide.model_copy(update={"network": wide.network.model_copy(update={"hidden": [17]})})
    text = refusal(wide, tmp_path / "next")
    assert "layers.0.bias is 16, the configuration says 17; start with a training of the same layers" in text
    own = shutil.copytree(trained, tmp_path / "own")
    for start in (own, own / "checkpoints" / "last.safetensors"):
        assert "is what this training replaces" in refusal(tiny(start), own)
    assert load(own / "checkpoints" / "best.safetensors")[1]["epoch"] >= 1
    tensors, document = load(trained / "checkpoints" / "best.safetensors")
    tensors["model.layers.0.bias"][3] = torch.nan
    save(tmp_path / "nan.safetensors", tensors, document)
    text = refusal(tiny(tmp_path / "nan.safetensors"), tmp_path / "next")
    assert "nan.safetensors: layers.0.bias is not finite; start with another training" in text
    # A folder beside others may write into the folder that they lie in.
    train(tiny(own, epochs=1), digits, tmp_path)


def test_a_run_follows_the_weights_it_starts_with_wherever_they_lie(tmp_path, trained):
    run = RunDirectory.create(tmp_path / "run")

    def steps(start: Any) -> list[str]:
        said: list[str] = []
        with run.locked():
            run_stages(Context(run, tiny(start, epochs=1)), ["train"], announce=lambda *given: said.append(given[-1]))
        return said

    assert steps(trained) == ["start", "done"]
    first = run.stage("train")
    assert first["external"].keys() == {"data", "start"} and "start" not in first["options"]["train"]
    assert first["start"]["weights"] == first["external"]["start"]
    assert f"{trained}: {first['start']['kept']:,} of its " in "\n".join(training_lines(first))
    assert steps(shutil.copytree(trained, tmp_path / "moved")) == ["skip"]
    other = train(tiny(epochs=1, seed=5), load_dataset(tiny().data), tmp_path / "other")
    assert steps(other.checkpoint) == ["start", "done"]
    assert run.stage("train")["external"]["start"] != first["external"]["start"]
    with pytest.raises(InputError, match=r"train\.start: .*none.*no such checkpoint"):
        steps(tmp_path / "none")


def test_paths_of_a_file_start_at_its_folder(tmp_path, monkeypatch):
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine.toml").write_text('[data]\nset = "npz"\npath = "a.npz"\n[train]\nstart = "runs/a"\n')
    (there / "space.toml").write_text(
        'base = "mine.toml"\n[axes]\n"train.seed" = [0, 1]\n'
        '[budget]\nnetworks = 2\n[objectives]\naccuracy = "maximise"\n'
    )
    monkeypatch.chdir(tmp_path)
    wanted = str(there / "a.npz"), str(there / "runs" / "a")
    config = load_config(there / "mine.toml")
    assert (config.data.path, config.train.start) == wanted
    base = load_space(there / "space.toml").base
    assert (base["data"]["path"], base["train"]["start"]) == wanted
    assert load_config(there / "mine.toml", ["train.start=b"]).train.start == str(tmp_path / "b")


def test_every_path_of_a_configuration_is_known_as_one():
    marker = get_args(FilePath)[1]

    def is_path(annotation: Any) -> bool:
        return marker in getattr(annotation, "__metadata__", ()) or any(map(is_path, get_args(annotation)))

    found = set()
    for section, field in Config.model_fields.items():
        assert isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        for key, inner in field.annotation.model_fields.items():
            if marker in inner.metadata or is_path(inner.annotation):
                found.add((section, key))
    assert found == set(PATHS)


# The rewirer in a foreign loop.


def rewired(weight: torch.Tensor, **options: Any) -> PQRewirer:
    model = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        model.weight.copy_(weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return PQRewirer(model, optimizer, steps_per_epoch=1, epochs=10, first="magnitude", **options)


def test_a_rewirer_keeps_the_strongest_weights_of_each_tensor():
    weight = torch.from_numpy(np.random.default_rng(0).permutation(200).reshape(10, 20) - 100.0)
    rewirer = rewired(weight, preset="static", target_density=0.3, min_fan_in=0)
    mask = rewirer.masks["weight"]
    assert mask.sum() == 60 and weight.abs()[mask].min() >= weight.abs()[~mask].max()
    assert torch.equal(rewirer.parameters["weight"].detach().double()[mask], weight[mask])


@pytest.mark.parametrize("target, kept", [(0.2, 160), (0.3, 160), (0.1, 80)])
def test_shares_of_a_sparse_model_stay_while_there_is_room(target, kept):
    random = np.random.default_rng(3)
    model = torch.nn.Sequential(torch.nn.Linear(20, 20, bias=False), torch.nn.Linear(20, 20, bias=False))
    # Three quarters of 20 % are in the second layer: another share than either distribution would give it.
    for layer, count in zip(model, (40, 120), strict=True):
        values = np.zeros(400, np.float32)
        values[random.permutation(400)[:count]] = random.permutation(count) + 1.0
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(values.reshape(20, 20)))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    options: dict[str, Any] = {"preset": "static", "target_density": target, "min_fan_in": 0}
    rewirer = PQRewirer(model, steps_per_epoch=1, epochs=10, first="magnitude", **options)
    assert sum(rewirer.counts.values()) == round(800 * target)
    assert sum(int((mask & (before[name] != 0)).sum()) for name, mask in rewirer.masks.items()) == kept
    if target == 0.2:
        assert rewirer.counts == {"0.weight": 40, "1.weight": 120}


def test_missing_connections_are_drawn_by_the_seed():
    weight = torch.zeros(10, 20)
    weight[3, 4] = weight[7, 0] = -2.0
    masks = [rewired(weight, preset="static", target_density=0.3, seed=seed).masks["weight"] for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert all(mask[3, 4] and mask[7, 0] and mask.sum() == 60 for mask in masks)


def test_balance_and_fan_in_come_before_strength():
    random = np.random.default_rng(1)
    magnitudes = random.random((16, 12))
    mask = balanced_mask((16, 12), 70, 2, 4, random, magnitudes)
    counts = bank_counts(mask, 4)
    assert mask.sum() == 70 and mask.sum(axis=1).min() >= 2
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    drawn = balanced_mask((16, 12), 70, 2, 4, np.random.default_rng(2))
    assert magnitudes[mask].sum() > magnitudes[drawn].sum()
    free = first_mask((16, 12), 70, 2, random, magnitudes)
    assert magnitudes[free].sum() >= magnitudes[mask].sum()
    assert free.sum(axis=1).min() >= 2


def test_weights_that_are_no_numbers_and_other_words_are_refused():
    weight = torch.ones(4, 5)
    weight[1, 1] = torch.nan
    with pytest.raises(InputError, match="1 of 20 weights of 'weight' are NaN"):
        rewired(weight, preset="static", target_density=0.3)
    model = torch.nn.Linear(4, 4)
    with pytest.raises(InputError, match="first = 'largest' must be 'random' or 'magnitude'"):
        PQRewirer(model, steps_per_epoch=1, epochs=10, first="largest", preset="static")  # type: ignore[arg-type]
