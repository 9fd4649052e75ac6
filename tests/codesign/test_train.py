"""Training: gradients, determinism, resuming, density schedule, history."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from flips import flips
from requirements import needs
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import codesign
from codesign.basics.errors import CodesignWarning, InputError, UnsupportedError
from codesign.basics.progress import News
from codesign.config import Config, parse_config
from codesign.config.text import config_toml
from codesign.contract.stimulus import Stimulus
from codesign.data import load_dataset
from codesign.data.encoders import encode
from codesign.data.samples import Dataset, Split
from codesign.quantise.freeze import load_trained
from codesign.train import checkpoint, train
from codesign.train.batches import Augmentation, Batches
from codesign.train.loop import class_weights, evaluate, keeping_threads, learning_rate
from codesign.train.losses import total_loss
from codesign.train.model import SpikingNetwork
from codesign.train.parallel import Group
from codesign.train.rewiring import fall_epochs


def tiny(**train_options) -> Config:
    rewiring = {"target_density": 0.2} | train_options.pop("rewiring", {})
    if rewiring.get("preset") == "dense":
        del rewiring["target_density"]
    network = {"timesteps": 4, "readout": "spike_count", **train_options.pop("network", {})}
    data = {"train_limit": 256, "test_limit": 40, "validation": 100, **train_options.pop("data", {})}
    if "layers" not in network:
        network = {"hidden": [16], **network}
    return parse_config(
        {
            "data": data,
            "network": network,
            "train": {
                "threads": 1,
                "epochs": 6,
                "batch_size": 32,
                "learning_rate": 1e-2,
                "rewiring": rewiring,
                **train_options,
            },
            "freeze": {"epochs": 1},
        }
    )


@pytest.fixture(scope="module")
def digits():
    return load_dataset(tiny().data)


@pytest.mark.parametrize("mix", [0.0, 0.5])
def test_a_stopped_run_ends_with_the_same_weights(tmp_path, digits, mix):
    config = tiny(data={"cutmix_augmentation": mix})
    whole = train(config, digits, tmp_path / "whole")

    class Stop(KeyboardInterrupt):
        pass

    def stop(done, total, text):
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        train(config, digits, tmp_path / "cut", progress=stop)
    seen = []
    cut = train(config, digits, tmp_path / "cut", progress=lambda done, total, text: seen.append(done))
    assert [done for done in seen if done % 1 == 0] == [4, 5, 6]
    assert cut.history == whole.history
    for name in (checkpoint.LAST, checkpoint.BEST):
        ours, _ = checkpoint.load(tmp_path / "cut" / "checkpoints" / name)
        theirs, _ = checkpoint.load(tmp_path / "whole" / "checkpoints" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert train(config, digits, tmp_path / "cut", progress=seen.append).history == whole.history


def test_a_run_stopped_inside_an_epoch_resumes_from_the_last_whole_one(tmp_path, digits, monkeypatch):
    config = tiny(epochs=4)
    whole = train(config, digits, tmp_path / "whole")
    batches, original = [], Batches.draw

    def draw(self, indices, random):
        batches.append(len(indices))
        if len(batches) == 20:
            raise KeyboardInterrupt
        return original(self, indices, random)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "draw", draw)
        with pytest.raises(KeyboardInterrupt):
            train(config, digits, tmp_path / "cut")
    assert train(config, digits, tmp_path / "cut").history == whole.history


def test_a_checkpoint_that_tells_of_no_training_is_not_continued(tmp_path, digits):
    """Whatever its checksum says: it may have been written by something else."""
    train(tiny(epochs=3), digits, tmp_path)
    path = tmp_path / "checkpoints" / checkpoint.LAST
    tensors, document = checkpoint.load(path)
    wrong = [{"epoch": "x"}, {"epoch": 10**12}, {"best": {}}, {"iterations": [5]}, {"history": None}, {"rewirer": []}]
    for change in wrong:
        checkpoint.save(path, tensors, {**document, **change})
        with pytest.raises(InputError, match=rf"last.safetensors: damaged: {next(iter(change))}") as caught:
            train(tiny(epochs=3), digits, tmp_path)
        assert "\n" not in str(caught.value)
    for name, tensor in (("optimizer.x", torch.zeros(2)), ("optimizer.99.exp_avg", torch.zeros(2))):
        checkpoint.save(path, {**tensors, name: tensor}, document)
        with pytest.raises(InputError, match=f"not a state of this optimizer: {name}"):
            train(tiny(epochs=3), digits, tmp_path)


def test_other_options_start_afresh(tmp_path, digits):
    train(tiny(epochs=3), digits, tmp_path)
    seen = []
    train(tiny(epochs=3, seed=1), digits, tmp_path, progress=lambda done, total, text: seen.append(done))
    assert [done for done in seen if done % 1 == 0] == [1, 2, 3]


def stopped(config: Config, dataset, folder, after: int) -> set[int]:
    """Torch's numbers of threads in a training that is interrupted after so many epochs."""
    threads = set()

    def stop(done, total, text):
        threads.add(torch.get_num_threads())
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, folder, progress=stop)
    return threads


def names(folder) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def test_of_a_run_before_no_checkpoint_stays(tmp_path, digits):
    """Nor what it was writing when it was killed; so an interrupted run is never frozen as the one before it."""
    train(tiny(), digits, tmp_path)
    (tmp_path / "checkpoints" / ".last.safetensors.x1y2").write_bytes(b"half")
    (tmp_path / ".metrics.jsonl.x1y2").write_bytes(b"half")
    assert {"best.safetensors", "iteration-001.safetensors", "iteration-002.safetensors"} < names(tmp_path)
    other = tiny(seed=1)
    stopped(other, digits, tmp_path, 1)
    assert names(tmp_path) == {"last.safetensors"} and not (tmp_path / ".metrics.jsonl.x1y2").exists()
    with pytest.raises(InputError, match=r"best.safetensors: no such checkpoint"):
        load_trained(other, tmp_path, digits)


def test_checkpoints_of_two_trainings_in_one_folder_are_refused(tmp_path, digits):
    train(tiny(), digits, tmp_path / "a")
    train(tiny(seed=1), digits, tmp_path / "b")
    (tmp_path / "a" / "checkpoints" / "best.safetensors").replace(tmp_path / "b" / "checkpoints" / "best.safetensors")
    with pytest.raises(InputError, match=r"best.safetensors: of another training than last.safetensors"):
        load_trained(tiny(seed=1), tmp_path / "b", digits)
    for folder, words in (("a", "absent, though last.safetensors tells of it"), ("b", "of another run than last")):
        with pytest.raises(InputError, match=rf"best.safetensors: {words}.* --force, or remove .*checkpoints"):
            train(tiny(seed=int(folder == "b")), digits, tmp_path / folder)


def test_a_best_of_an_epoch_that_was_not_finished_is_replaced(tmp_path, digits):
    """Killed between the two files of an epoch, which comes out otherwise the second time."""
    config = tiny(epochs=10)
    stopped(config, digits, tmp_path, 8)
    last, best = (tmp_path / "checkpoints" / name for name in (checkpoint.LAST, checkpoint.BEST))
    tensors, document = checkpoint.load(last)
    checkpoint.save(last, tensors, {**document, "best": {**document["best"], "validation_accuracy": 1.0}})
    tensors, document = checkpoint.load(best)
    checkpoint.save(best, tensors, {**document, "epoch": 9})
    result = train(config, digits, tmp_path)
    found = checkpoint.load(best)[1]
    assert (found["epoch"], found["validation_loss"]) == (result.epoch, result.chosen["validation_loss"])


def test_a_resumed_run_goes_on_with_its_threads(tmp_path, digits):
    with keeping_threads():
        torch.set_num_threads(1)
        stopped(tiny(threads=0), digits, tmp_path, 2)
        torch.set_num_threads(3)
        assert (stopped(tiny(threads=0), digits, tmp_path, 3), torch.get_num_threads()) == ({1}, 3)
        with pytest.warns(CodesignWarning, match="threads = 2, and 1 before the interruption: the weights may"):
            train(tiny(threads=2), digits, tmp_path)
        assert torch.get_num_threads() == 3


def test_a_long_epoch_tells_of_itself(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(News, "due", lambda self: True)
    told = []
    result = train(tiny(epochs=3), digits, tmp_path / "told", progress=lambda *news: told.append(news))
    assert result.history == train(tiny(epochs=3), digits, tmp_path / "silent").history
    batches = result.steps // 3
    assert [done for done, _, _ in told] == pytest.approx([(1 + batch) / batches for batch in range(result.steps)])
    first, last = told[0][2], told[-2][2]
    assert re.fullmatch(r"epoch 1 of 3, loss \d\.\d{3} so far", first)
    assert re.fullmatch(r"epoch 3 of 3, loss \d\.\d{3} so far; epoch 2: validation .* %, density .* %, .*", last)
    assert told[-1][2].startswith(f"epoch 3 of 3, loss {result.history[-1]['loss']:.3f}, validation ")


@pytest.mark.parametrize("scope", ["layer", "neuron"])
def test_density_falls_to_the_target_exactly(tmp_path, digits, scope):
    result = train(tiny(epochs=10, rewiring={"scope": scope, "rewire_every": 1}), digits, tmp_path)
    total = 64 * 16 + 16 * 10
    densities = [row["density"] for row in result.history]
    assert densities[0] == pytest.approx(0.5)
    assert densities == sorted(densities, reverse=True)
    assert round(densities[-1] * total) == round(0.2 * total)
    assert result.density == densities[-1]
    assert result.epoch > fall_epochs(10, tiny().train.rewiring)[-1]
    changes = [row["change"] for row in result.history]
    assert changes.count("fall") >= 2 and changes.count("rewire") >= 2
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row.pop("samples_per_second") > 0 for row in rows)
    assert rows == result.history
    for row in rows:
        for layer in row["layers"]:
            assert 0 < layer["index"] < 1 and 0 <= layer["fraction"] <= 0.9
            assert layer["synaptic_operations_per_sample"] > 0
        for layer, plan_size in zip(row["layers"], (16, 10), strict=True):
            assert layer["firing_rate"] * plan_size * tiny().network.timesteps == pytest.approx(
                layer["spikes_per_sample"]
            )
        for name in ("spikes_per_sample", "synaptic_operations_per_sample"):
            assert row[name] == pytest.approx(sum(layer[name] for layer in row["layers"]))
        assert row["gradient_norm"] > 0 and 0 < row["learning_rate"] <= 1e-2
        if row["change"] == "rewire":
            assert all(layer["pruned"] == layer["grown"] for layer in row["layers"])
    assert (tmp_path / "checkpoints" / "iteration-001.safetensors").is_file()


def test_training_accuracy_is_that_of_the_training_samples(tmp_path, digits):
    # Weights that hardly change decide in every batch as they do at the end.
    options = tiny(epochs=1, learning_rate=1e-12, amp=False, rewiring={"preset": "dense"})
    result = train(options, digits, tmp_path)
    network = load_trained(options, result, digits)
    stimulus, _ = encode(digits, digits.train, options.data, 4)
    found = evaluate(network, Batches(stimulus, 1 / 15).ordered(64), options.train)
    assert result.history[0]["training_accuracy"] == found.accuracy > 0


def test_inactive_weights_stay_zero(tmp_path, digits):
    result = train(tiny(), digits, tmp_path)
    tensors, _ = checkpoint.load(result.checkpoint)
    for layer in (0, 1):
        name = f"layers.{layer}.input.weight"
        assert (tensors[f"model.{name}"][~tensors[f"mask.{name}"]] == 0).all()
        assert int(tensors[f"mask.{name}"].sum(1).min()) >= 1


def test_dense_mode_keeps_every_weight(tmp_path, digits):
    result = train(tiny(epochs=2, rewiring={"preset": "dense"}), digits, tmp_path)
    assert result.density == 1.0


@pytest.mark.parametrize("preset", ["constant", "fixed", "set", "rigl", "sap", "static"])
def test_every_preset_trains_to_the_same_density(tmp_path, digits, preset):
    result = train(tiny(rewiring={"preset": preset}), digits, tmp_path)
    total = 64 * 16 + 16 * 10
    assert round(result.density * total) == round(0.2 * total)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    changes = {row["change"] for row in result.history}
    assert changes - {"none"} == {"fixed": {"rewire", "fall"}, "sap": {"fall"}, "static": set()}.get(preset, {"rewire"})


@pytest.mark.parametrize("margin", [0.0, 0.9])
def test_several_densities_leave_the_choice_to_a_margin(tmp_path, digits, margin):
    """Without a turning point found, every iteration's checkpoint is there to choose from."""
    options = {"stop_at": "turning-point", "target_density": 0.02, "min_fan_in": 0, "choose_margin": margin}
    result = train(tiny(epochs=10, rewiring=options), digits, tmp_path)
    files = sorted((tmp_path / "checkpoints").glob("iteration-*"))
    documents = [checkpoint.load(path)[1] for path in files]
    assert len(documents) == 3
    final = max(row["validation_accuracy"] for row in result.history if row["density"] == result.history[-1]["density"])
    accuracies = {document["density"]: document["validation_accuracy"] for document in documents}
    accuracies[result.history[-1]["density"]] = final
    best = max(accuracies.values())
    assert result.density == min(density for density, found in accuracies.items() if found >= best - margin)
    tensors, document = checkpoint.load(result.checkpoint)
    assert (document["epoch"], document["density"]) == (result.epoch, result.density)
    active = sum(int(tensor.sum()) for name, tensor in tensors.items() if name.startswith("mask."))
    assert active == round(result.density * 1184)
    again = train(tiny(epochs=10, rewiring=options), digits, tmp_path)
    assert (again.epoch, again.density) == (result.epoch, result.density)


def test_clipping_bounds_the_gradient(tmp_path, digits):
    """Biases start at 0: 24 steps of SGD with momentum 0.9 take them 24 * 10 * rate * limit away at most."""
    found = {}
    for limit in (None, 1e-6):
        options = {} if limit is None else {"clip_grad_norm": limit}
        result = train(tiny(epochs=3, optimizer="sgd", **options), digits, tmp_path / str(limit))
        tensors = last_tensors(result.folder)
        biases = [tensor for name, tensor in tensors.items() if name.startswith("model.") and name.endswith("bias")]
        found[limit] = max(float(tensor.abs().max()) for tensor in biases)
        assert result.history[0]["gradient_norm"] > 0.01
    assert found[1e-6] < 24 * 10 * 1e-2 * 1e-6 < 1e-3 < found[None]


def test_mixed_precision_needs_a_processor_with_bfloat16(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(UnsupportedError, match=r"train\.amp: this processor has no bfloat16"):
        train(tiny(amp=True), digits, tmp_path)
    plain = train(tiny(epochs=3), digits, tmp_path / "plain")
    assert train(tiny(epochs=3, amp="auto"), digits, tmp_path / "auto").history == plain.history


def test_mixed_precision_on_the_cpu_learns_and_rounds(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    plain = train(tiny(epochs=6), digits, tmp_path / "plain")
    rounded = train(tiny(epochs=6, amp="auto"), digits, tmp_path / "rounded")
    assert rounded.history != plain.history
    assert abs(rounded.accuracy_validation - plain.accuracy_validation) < 0.1


@needs("no-gpu")
def test_automatic_device_is_the_cpu_without_a_gpu(tmp_path, digits):
    automatic = train(tiny(epochs=3), digits, tmp_path / "auto", device="auto")
    assert automatic.history == train(tiny(epochs=3), digits, tmp_path / "cpu").history


CHILD = """
import sys
from codesign.config import load_config
from codesign.data import load_dataset
from codesign.train import train
config = load_config(sys.argv[1])
print("ready", flush=True)
train(config, load_dataset(config.data), sys.argv[2], device="cpu")
"""


def last_tensors(folder) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "checkpoints" / checkpoint.LAST)[0]


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, digits):
    """kill -9 at random moments, possibly while a file is being written."""
    config = tiny(epochs=12, rewiring={"scope": "neuron"})
    (tmp_path / "config.toml").write_text(config_toml(config))
    start = time.monotonic()
    train(config, digits, tmp_path / "whole")
    seconds = time.monotonic() - start
    random = np.random.default_rng()
    killed = 0
    for _ in range(2):
        command = [sys.executable, "-c", CHILD, str(tmp_path / "config.toml"), str(tmp_path / "cut")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(float(random.uniform(0.1, 0.8) * seconds))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert killed
    train(config, digits, tmp_path / "cut")
    ours, theirs = last_tensors(tmp_path / "cut"), last_tensors(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


PARALLEL_CHILD = """
import os, sys
from pathlib import Path
from codesign.config import load_config
from codesign.data import load_dataset
from codesign.train import checkpoint, loop
config = load_config(sys.argv[1])
run = loop._Run(config, load_dataset(config.data), Path(sys.argv[2]), "cpu", None)
run.execute(lambda *_: None)
checkpoint.save(Path(sys.argv[2] + os.environ["RANK"]), run._network_tensors(), {})
"""


@pytest.mark.deep
def test_two_processes_end_with_the_same_masks_and_weights(tmp_path):
    """torchrun on the CPU; both processes keep what they ended with."""
    config = tiny(epochs=6)
    (tmp_path / "config.toml").write_text(config_toml(config))
    (tmp_path / "child.py").write_text(PARALLEL_CHILD)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    files = [str(tmp_path / name) for name in ("child.py", "config.toml", "run")]
    environment = {**os.environ, "PYTHONPATH": str(Path(codesign.__file__).parent.parent)}
    subprocess.run([sys.executable, *torchrun, *files], check=True, timeout=300, env=environment)
    first, second = (checkpoint.load(tmp_path / f"run{rank}")[0] for rank in (0, 1))
    assert first.keys() == second.keys() and any(name.startswith("mask.") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = train(config, load_dataset(config.data), tmp_path / "alone")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # The same batches and gradients: the first epoch differs by the order of sums alone.
    assert rows[0]["loss"] == pytest.approx(alone.history[0]["loss"], rel=1e-3)
    assert rows[-1]["density"] == alone.history[-1]["density"]


def test_too_few_epochs_to_reach_the_target_are_refused(tmp_path, digits):
    with pytest.raises(InputError, match="epochs = 2 leaves no iteration"):
        train(tiny(epochs=2), digits, tmp_path)


@needs("no-gpu")
def test_an_absent_device_is_refused(tmp_path, digits):
    with pytest.raises(UnsupportedError, match="device 'cuda' is not available"):
        train(tiny(), digits, tmp_path, device="cuda")


def test_a_truncated_checkpoint_is_named(tmp_path, digits):
    result = train(tiny(epochs=3), digits, tmp_path)
    result.checkpoint.write_bytes(result.checkpoint.read_bytes()[:100])
    with pytest.raises(InputError, match=r"best\.safetensors: truncated or not a safetensors file"):
        checkpoint.load(result.checkpoint)


def small_checkpoint(path, **document):
    tensors = {"model.w": torch.arange(6.0).reshape(2, 3), "mask.w": torch.ones(2, 3, dtype=torch.bool)}
    tensors |= {"optimizer.0.step": torch.tensor(3.0), "empty": torch.empty(0)}
    checkpoint.save(path, tensors, {"key": "k", "epoch": 3, "rates": {10: 0.25, 2: 0.1}, **document})
    return path


def test_a_flipped_bit_in_a_checkpoint_changes_nothing_or_is_refused(tmp_path):
    path = small_checkpoint(tmp_path / "last.safetensors")
    tensors, document = checkpoint.load(path)
    assert document == {"key": "k", "epoch": 3, "rates": {"10": 0.25, "2": 0.1}}
    refusals = 0
    for bit in flips(path, 800, seed=2):
        try:
            found, text = checkpoint.load(path)
            assert text == document and found.keys() == tensors.keys(), f"bit {bit}"
            assert all(torch.equal(found[name], tensors[name]) for name in tensors), f"bit {bit}"
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refusals += 1
    assert refusals > 700


def test_a_checkpoint_of_an_earlier_version_states_no_checksum(tmp_path):
    path = small_checkpoint(tmp_path / "last.safetensors")
    save_file(load_file(path), path, {"codesign": json.dumps({"key": "k", "epoch": 3})})
    assert checkpoint.load(path)[1] == {"key": "k", "epoch": 3}


@pytest.mark.parametrize("name", ["last", "best", "iteration-001"])
def test_a_damaged_checkpoint_is_neither_continued_nor_chosen(tmp_path, digits, name):
    """The weights are altered and the file is whole, so that only the checksum can tell."""
    options = {"stop_at": "turning-point", "target_density": 0.02, "min_fan_in": 0}
    config = tiny(epochs=10, rewiring=options)
    train(config, digits, tmp_path)
    path = tmp_path / "checkpoints" / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["model.layers.0.input.weight"][0, 0] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=rf"{name}\.safetensors: damaged"):
        train(config, digits, tmp_path)


def test_initial_weights_make_layers_spike(digits):
    config = tiny(network={"hidden": [20, 20], "timesteps": 8})
    network = SpikingNetwork(64, 10, config.network, config.train)
    inputs = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    network.scale_initial_weights(inputs)
    assert all(0.1 < float(layer.detach().mean()) < 0.2 for layer in network(inputs).spikes)


def test_activity_counts_spikes_and_walked_synapses():
    config = tiny(network={"hidden": [5], "timesteps": 3})
    network = SpikingNetwork(4, 2, config.network, config.train)
    inputs = (torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    with torch.no_grad():
        weight = network.sparse_parameters()["layers.0.input.weight"]
        weight[:3, 1] = 0
        weight[2, 3] = 0
    output = network(inputs)
    activity = output.activity()
    by_hand = sum(int((weight[:, source] != 0).sum()) for source in torch.nonzero(inputs)[:, 2].tolist())
    assert activity.operations[0] == by_hand
    assert activity.spikes[0] == float(output.spikes[0].detach().sum())


def test_learning_rate_is_one_cosine_after_a_warm_up():
    rates = [learning_rate(1.0, step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_class_weights_balance_the_loss():
    labels = np.repeat([0, 1], [90, 10])
    weights = class_weights(labels, 2, 1.0, "cpu")
    assert weights is not None
    assert float(weights[0] * 90) == pytest.approx(float(weights[1] * 10))
    assert float(weights[0] * 90 + weights[1] * 10) == pytest.approx(100)
    assert class_weights(labels, 2, 0.0, "cpu") is None


def test_a_loss_by_class_is_the_same_however_samples_are_parted(digits):
    config = tiny()
    network = SpikingNetwork(64, 10, config.network, config.train)
    batches = Batches(encode(digits, digits.validation, config.data, 4)[0], 1 / 15)
    weights = torch.arange(1.0, 11.0) ** 2
    whole, parts = (evaluate(network, batches.ordered(size), config.train, weights).loss for size in (512, 7))
    assert parts == pytest.approx(whole, rel=1e-5)


def test_a_last_batch_of_one_sample_joins_the_one_before_where_norm_needs_two(tmp_path):
    def config(size: int, *, norm: bool = True) -> Config:
        layers = [{"kind": "dense", "width": 16, "norm": norm}]
        document = tiny(network={"layers": layers}, batch_size=size, epochs=3).model_dump(exclude_unset=True)
        return parse_config(document | {"data": {"train_limit": 65, "test_limit": 40, "validation": 100}})

    dataset = load_dataset(config(32).data)
    assert train(config(32), dataset, tmp_path / "norm").steps == 3 * 2
    assert train(config(32, norm=False), dataset, tmp_path / "plain").steps == 3 * 3
    with pytest.raises(InputError, match="batch_size = 1 of 65 training samples: batch normalisation needs 2"):
        train(config(1), dataset, tmp_path / "one")


def image_batches(**options) -> Batches:
    """One 3 x 4 image whose only value lies at row 1, column 1."""
    image = np.zeros((1, 12), np.uint8)
    image[0, 5] = 9
    return Batches(Stimulus(12, 2, np.zeros(1, np.int32), values=image), 1.0, Augmentation((1, 3, 4), **options))


def places(batches: Batches, draws: int = 200) -> set[int]:
    """Where the value of a single sample went, over many draws."""
    random = np.random.default_rng(0)
    found = [torch.nonzero(batches.draw(np.array([0]), random)[0]) for _ in range(draws)]
    return {int(places[0, -1]) if len(places) else -1 for places in found}


def test_shifted_images_move_whole_pixels():
    assert places(image_batches(shift=1)) == {0, 1, 2, 4, 5, 6, 8, 9, 10}
    assert places(image_batches()) == {5}


def test_flipped_images_are_mirrored_left_to_right():
    assert places(image_batches(flip=True)) == {5, 6}


def test_cutout_blanks_a_square_that_may_reach_over_the_edge():
    full = Stimulus(12, 2, np.zeros(1, np.int32), values=np.ones((1, 12), np.uint8))
    batches = Batches(full, 1.0, Augmentation((1, 3, 4), cutout=2))
    random = np.random.default_rng(0)
    sizes = {12 - int(batches.draw(np.array([0]), random)[0].sum()) for _ in range(200)}
    assert sizes == {1, 2, 4}
    assert float(batches.take(np.array([0])).sum()) == 12


@pytest.mark.parametrize("events", [False, True])
def test_cutmix_gives_labels_the_share_of_their_pixels(events):
    """Each image is full of one value of its own, or of events in one timestep of its own."""
    count, shape = 6, (2, 5, 8)
    labels = np.arange(count, dtype=np.int32) % 3
    if events:
        dense = np.zeros((count, count, 80), bool)
        dense[np.arange(count), np.arange(count)] = True
        stimulus = Stimulus.from_dense(dense, labels=labels)
    else:
        values = np.repeat(np.arange(count, dtype=np.uint8)[:, None], 80, axis=1)
        stimulus = Stimulus(80, 2, labels, values=values)
    batches = Batches(stimulus, 1.0, Augmentation(shape, mix=0.7, classes=3))
    random = np.random.default_rng(0)
    remaining = []
    for _ in range(200):
        inputs, shares = batches.draw(np.arange(count), random)
        of = inputs.argmax(0) if events else inputs.long()
        assert shares.dtype == torch.float32 and torch.allclose(shares.sum(1), torch.ones(count))
        for index, pixels in enumerate(of.unflatten(1, shape)):
            foreign = (pixels != index).any(0)
            rows, columns = foreign.any(1), foreign.any(0)
            assert torch.equal(foreign, rows[:, None] & columns)
            for side in (rows, columns):
                at = torch.nonzero(side).flatten()
                assert not len(at) or int(at[-1] - at[0]) + 1 == len(at)
            expected = torch.bincount(torch.from_numpy(labels).long()[pixels[0].flatten()], minlength=3) / 40
            assert torch.allclose(shares[index], expected)
            remaining.append(1 - float(foreign.float().mean()))
    # 30 % are left alone, and images that were given a part of themselves look so.
    untouched = np.mean(np.array(remaining) == 1)
    assert 0.3 < untouched < 0.6
    assert np.min(remaining) < 0.2
    assert batches.take(np.arange(count)).shape == inputs.shape


def test_events_move_in_time_and_sources_fall_silent():
    events = np.zeros((1, 5, 3), bool)
    events[0, 1] = True
    stimulus = Stimulus.from_dense(events)
    random = np.random.default_rng(0)
    jittered = Batches(stimulus, augmentation=Augmentation(jitter=2))
    steps = [torch.nonzero(jittered.draw(np.array([0]), random)[0])[:, 0].tolist() for _ in range(100)]
    assert {tuple(step) for step in steps} == {(), (0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)}
    dropped = Batches(stimulus, augmentation=Augmentation(drop=0.5))
    totals = [float(dropped.draw(np.array([0]), random)[0].sum()) for _ in range(400)]
    assert np.mean(totals) == pytest.approx(1.5, abs=0.2)


def test_shifts_leave_something_of_the_image():
    config = parse_config({"data": {"shift_augmentation": 3}}).data
    part = Split(np.zeros(2, np.int32), np.arange(2), x=np.zeros((2, 3, 5)))
    with pytest.raises(InputError, match="shift_augmentation = 3 would move all of an image of 3 x 5 out of it"):
        Augmentation.of(Dataset("x", ("a", "b"), part, part, part), config)


def test_shifts_need_images(tmp_path):
    config = parse_config({"data": {"coding": "delta", "shift_augmentation": 1}, "train": {"epochs": 3}})
    with pytest.raises(InputError, match="shift_augmentation needs images"):
        train(config, load_dataset(config.data), tmp_path)
    config = parse_config({"data": {"event_drop": 0.1}})
    with pytest.raises(InputError, match="event_drop needs events and not coding 'current'"):
        train(config, load_dataset(config.data), tmp_path)


COMPILED = {
    "network": {"layers": [{"kind": "conv", "channels": 4, "norm": True}, {"kind": "pool"}], "timesteps": 2},
    "compile": True,
    "epochs": 3,
}


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_compiled_projections_learn_what_others_learn(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    compiled = train(tiny(**COMPILED), digits, tmp_path / "compiled")
    again = train(tiny(**COMPILED), digits, tmp_path / "again")
    plain = train(tiny(**COMPILED | {"compile": False}), digits, tmp_path / "plain")
    assert list((tmp_path / "inductor").rglob("*.cpp")), "nothing was compiled"
    assert compiled.history == again.history
    losses = [[row["loss"] for row in result.history] for result in (compiled, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    ours, theirs = (
        checkpoint.load(tmp_path / name / "checkpoints" / checkpoint.LAST)[0] for name in ("compiled", "plain")
    )
    assert ours.keys() == theirs.keys()


@pytest.mark.deep
def test_where_nothing_compiles_one_line_says_so(tmp_path):
    (tmp_path / "c.toml").write_text(config_toml(tiny(**COMPILED)))
    environment = os.environ | {"CXX": "missing", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    command = [sys.executable, "-m", "codesign", "train", str(tmp_path / "c.toml"), "-o", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 3, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("codesign: train.compile: torch.compile does not work here (")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("samples", [1, 2, 7, 8])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.1},
        {"loss": "count"},
        {"loss": "membrane"},
        {"loss": "tet", "tet_lambda": 0.5, "network": {"readout": "membrane_sum"}},
    ],
)
def test_the_parts_of_a_batch_have_the_gradient_of_the_whole(samples, mixed, weighted, options):
    config = tiny(**options)
    network = SpikingNetwork(20, 4, config.network, config.train).double()
    random = torch.Generator().manual_seed(1)
    inputs = torch.rand(samples, 20, generator=random, dtype=torch.float64) * 3
    target = torch.randint(0, 4, (samples,), generator=random)
    if mixed:
        target = torch.rand(samples, 4, generator=random)
        target /= target.sum(1, keepdim=True)
    weights = torch.tensor([0.2, 3.0, 0.5, 1.5]) if weighted else None

    def gradients(group):
        mine, labels, factor = group.part(inputs, target, weights)
        loss = total_loss(network(mine), labels, config.train, weights) * factor
        return torch.autograd.grad(loss, list(network.parameters()))

    whole = gradients(Group())
    parts = [gradients(Group(rank, 3)) for rank in range(3)]
    assert any(bool(gradient.any()) for gradient in whole)
    for expected, *found in zip(whole, *parts, strict=True):
        # Losses are float32.
        assert torch.allclose(sum(found) / 3, expected, rtol=1e-4, atol=1e-5)
