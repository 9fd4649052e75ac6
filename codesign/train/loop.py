"""The training run: epochs, rewiring, validation, checkpoints, history."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codesign.config import Config, RewiringConfig, TrainConfig
from codesign.data.samples import Dataset
from codesign.encoders import encode
from codesign.errors import InputError, UnsupportedError
from codesign.files import write_text
from codesign.progress import Progress, silent
from codesign.train import checkpoint
from codesign.train.batches import Augmentation, Batches, input_shape
from codesign.train.losses import total_loss
from codesign.train.model import SpikingNetwork
from codesign.train.rewiring import PQRewirer, layer_counts, pq_index, random_mask, rewiring_fraction

EVALUATION_BATCH = 512
WARMUP = 0.05
FORMAT = 1


@dataclass(frozen=True)
class TrainResult:
    """A finished training run.

    folder : the run folder; checkpoints are in ``folder / "checkpoints"``, one history row per epoch in
        ``folder / "history.jsonl"``.
    checkpoint : the chosen one: greatest validation accuracy among the epochs at the target density.
    epoch : the chosen epoch, from 1.
    density, layer_density : of the chosen checkpoint, 0..1.
    accuracy_validation : of the chosen checkpoint, 0..1.
    history : rows as in history.jsonl.
    """

    folder: Path
    checkpoint: Path
    epoch: int
    density: float
    layer_density: list[float]
    accuracy_validation: float
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """accuracy, mean loss; spikes and synaptic operations per sample for each layer; decisions, int64 (n,)."""

    accuracy: float
    loss: float
    spikes: list[float]
    operations: list[float]
    decisions: Tensor


def train(
    config: Config, dataset: Dataset, folder: str | Path, *, progress: Progress = silent, device: str = "cpu"
) -> TrainResult:
    """Train ``config``'s network on ``dataset`` and keep checkpoints below ``folder``.

    A run that was stopped goes on after its last whole epoch and ends with the same weights, bit for bit on the CPU.
    A checkpoint of other data or options is not continued but replaced. ``progress(done, total, text)`` counts epochs.

    Raises InputError for options that contradict each other, UnsupportedError for what is not built or not there.
    """
    run = _Run(config, dataset, Path(folder), device)
    return run.execute(progress)


def fall_epochs(epochs: int, rewiring: RewiringConfig) -> list[int]:
    """Epochs (from 1) after which density falls; after the last of them it is on target."""
    last = math.floor(rewiring.rewire_until * epochs + 1e-9) // rewiring.epochs_per_iteration
    falls = [(index + 1) * rewiring.epochs_per_iteration for index in range(last)]
    return [epoch for epoch in falls if epoch < epochs]


def rewire_epochs(epochs: int, rewiring: RewiringConfig) -> list[int]:
    """Epochs (from 1) after which connections are pruned and regrown: every ``rewire_every`` inside an iteration."""
    falls = fall_epochs(epochs, rewiring)
    inside = range(1, (falls[-1] if falls else 0) + 1)
    position = {epoch: (epoch - 1) % rewiring.epochs_per_iteration + 1 for epoch in inside}
    return [
        epoch
        for epoch, place in position.items()
        if place < rewiring.epochs_per_iteration and place % rewiring.rewire_every == 0
    ]


def prepare(threads: int, device: str) -> None:
    """Set torch up for reproducible and quick training. UnsupportedError if the device is not there."""
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise UnsupportedError(f"device {device!r} is not available; use --device cpu")
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def evaluate(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], config: TrainConfig, weight: Tensor | None = None
) -> Evaluation:
    """Accuracy, loss and activity of ``network`` (anything with the interface of SpikingNetwork) in evaluation mode."""
    loss = count = 0.0
    spikes: list[np.ndarray] = []
    operations: list[np.ndarray] = []
    decisions, labels = [], []
    training = network.training
    network.eval()
    with torch.no_grad():
        for inputs, target in batches:
            output = network(inputs)
            found = network.activity(inputs, output.spikes)  # type: ignore[operator]
            loss += float(total_loss(output, target, config, weight)) * len(target)
            count += len(target)
            spikes.append(np.array(found.spikes))
            operations.append(np.array(found.operations))
            decisions.append(output.scores.argmax(1).cpu())
            labels.append(target.cpu())
    network.train(training)
    decided = torch.cat(decisions)
    accuracy = float((decided == torch.cat(labels)).double().mean())
    per_sample = [(np.sum(rows, axis=0) / count).tolist() for rows in (spikes, operations)]
    return Evaluation(accuracy, loss / count, per_sample[0], per_sample[1], decided)


def class_weights(labels: np.ndarray, n_classes: int, balance: float, device: str) -> Tensor | None:
    """Loss weights (samples of the class) ** -balance with mean 1 over the samples; None for balance 0."""
    if balance == 0:
        return None
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1).astype(np.float64)
    weights = counts**-balance
    weights *= counts.sum() / (weights * counts).sum()
    return torch.from_numpy(weights.astype(np.float32)).to(device)


def learning_rate(base: float, step: int, total: int) -> float:
    """Cosine over the whole run after a linear warm-up of 5 %."""
    warm = max(1, round(WARMUP * total))
    if step < warm:
        return base * (step + 1) / warm
    return base * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def make_optimizer(config: TrainConfig, parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(list(parameters), lr=rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(list(parameters), lr=rate, momentum=0.9, weight_decay=config.weight_decay)


class _Run:
    def __init__(self, config: Config, dataset: Dataset, folder: Path, device: str) -> None:
        options = config.train
        prepare(options.threads, device)
        self.config, self.dataset, self.folder, self.device = config, dataset, folder, device
        self.rewiring = options.rewiring
        self.falls = fall_epochs(options.epochs, self.rewiring)
        self.rewires = rewire_epochs(options.epochs, self.rewiring)
        timesteps = config.network.timesteps
        scale = 1.0 / ((1 << config.data.input_bits) - 1) if config.data.coding == "current" else 1.0
        stimuli = [encode(dataset, part, config.data, timesteps)[0] for part in (dataset.train, dataset.validation)]
        augmentation = Augmentation.of(dataset, config.data)
        self.training = Batches(stimuli[0], scale, augmentation, device)
        self.validation = Batches(stimuli[1], scale, device=device)
        shape = input_shape(dataset, config.data)
        self.network = SpikingNetwork(shape, dataset.n_classes, config.network, options).to(device)
        self.sparse = self.network.sparse_parameters()
        self.masks = self._initial_masks()
        self.network.scale_initial_weights(self.training.take(np.arange(min(len(self.training), 256))))
        self.optimizer = make_optimizer(
            options, [p for p in self.network.parameters() if p.requires_grad], options.learning_rate
        )
        self.rewirer = None
        if self.rewiring.mode == "adaptive":
            weights = [weight.data.flatten(1) for weight in self.sparse.values()]
            self.rewirer = PQRewirer(weights, [mask.flatten(1) for mask in self.masks.values()], self.rewiring)
            if not self.falls and not self.rewirer.on_target:
                raise InputError(
                    f"train.epochs = {options.epochs} leaves no iteration of {self.rewiring.epochs_per_iteration} "
                    f"epochs before rewire_until = {self.rewiring.rewire_until:g}; raise train.epochs"
                )
        self.class_weights = class_weights(dataset.train.labels, dataset.n_classes, options.class_balance, device)
        self.steps_per_epoch = math.ceil(len(self.training) / options.batch_size)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def _initial_masks(self) -> dict[str, Tensor]:
        """Random connections at the start density, by parameter name; weights are scaled to their fan-in."""
        options = self.rewiring
        random = np.random.default_rng([self.config.train.seed, 0])
        density = 1.0 if options.mode == "dense" else options.start_density
        shapes = [(len(weight), weight[0].numel()) for weight in self.sparse.values()]
        counts = layer_counts(shapes, density, options.distribution, options.min_fan_in)
        masks = {}
        for (name, weight), shape, count in zip(self.sparse.items(), shapes, counts, strict=True):
            mask = torch.from_numpy(random_mask(shape, count, options.min_fan_in, random)).to(weight.device)
            masks[name] = mask.reshape(weight.shape)
            with torch.no_grad():
                weight.mul_(masks[name] * math.sqrt(weight.numel() / max(1, count)))
        return masks

    @property
    def densities(self) -> list[float]:
        """Active over all weights of each mask."""
        return [float(mask.sum()) / mask.numel() for mask in self.masks.values()]

    @property
    def density(self) -> float:
        """Active over all weights of the network."""
        masks = self.masks.values()
        return float(sum(int(mask.sum()) for mask in masks)) / sum(mask.numel() for mask in masks)

    @property
    def key(self) -> str:
        """Hash of everything that the final weights depend on."""
        content = {
            "format": FORMAT,
            "data": self.config.data.model_dump(exclude={"path"}),
            "sha256": self.dataset.hash,
            "network": self.config.network.model_dump(),
            "train": self.config.train.model_dump(exclude={"threads"}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def execute(self, progress: Progress) -> TrainResult:
        epochs = self.config.train.epochs
        done = self._restore()
        for epoch in range(done + 1, epochs + 1):
            loss = self._train_epoch(epoch)
            row = self._validate(epoch, loss)
            self._change_connections(epoch, row)
            self.history.append(row)
            self._save(epoch)
            progress(
                epoch,
                epochs,
                f"loss {loss:.3f}, validation {100 * row['validation_accuracy']:.2f} %, "
                f"density {100 * row['density']:.1f} %",
            )
        assert self.best is not None
        return TrainResult(
            folder=self.folder,
            checkpoint=self.folder / "checkpoints" / checkpoint.BEST,
            epoch=self.best["epoch"],
            density=self.best["density"],
            layer_density=self.best["layer_density"],
            accuracy_validation=self.best["validation_accuracy"],
            history=self.history,
        )

    def _train_epoch(self, epoch: int) -> float:
        options = self.config.train
        total_steps = self.steps_per_epoch * options.epochs
        upcoming = [e for e in self.rewires if e >= epoch]
        score_from = upcoming[0] * self.steps_per_epoch - self.rewiring.score_batches if upcoming else total_steps
        loss_sum = torch.zeros((), dtype=torch.float64)
        for batch, (inputs, target) in enumerate(self.training.epoch(options.batch_size, options.seed, epoch)):
            step = (epoch - 1) * self.steps_per_epoch + batch
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(options.learning_rate, step, total_steps)
            loss = total_loss(self.network(inputs), target, options, self.class_weights)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            gradients = [weight.grad for weight in self.sparse.values() if weight.grad is not None]
            if self.rewirer is not None and step >= score_from:
                self.rewirer.accumulate([gradient.flatten(1) for gradient in gradients])
            for gradient, mask in zip(gradients, self.masks.values(), strict=True):
                gradient.mul_(mask)
            if options.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), options.clip_grad_norm)
            self.optimizer.step()
            loss_sum += loss.detach().double().cpu() * len(target)
        return float(loss_sum) / len(self.training)

    def _validate(self, epoch: int, loss: float) -> dict[str, Any]:
        found = evaluate(self.network, self.validation.ordered(EVALUATION_BATCH), self.config.train, self.class_weights)
        layers = []
        for index, (name, (pq, fraction)) in enumerate(zip(self.masks, self._measure(), strict=True)):
            layer = int(name.split(".")[1])
            layers.append(
                {
                    "density": self.densities[index],
                    "index": pq,
                    "fraction": fraction,
                    "pruned": 0,
                    "grown": 0,
                    "spikes_per_sample": found.spikes[layer],
                    "synaptic_operations_per_sample": found.operations[layer],
                }
            )
        row = {
            "epoch": epoch,
            "iteration": (epoch - 1) // self.rewiring.epochs_per_iteration + 1,
            "loss": loss,
            "validation_loss": found.loss,
            "validation_accuracy": found.accuracy,
            "density": self.density,
            "change": "none",
            "layers": layers,
        }
        if self.rewirer is None or self.rewirer.on_target:
            rank = (found.accuracy, -found.loss)
            if self.best is None or rank > (self.best["validation_accuracy"], -self.best["validation_loss"]):
                self.best = {
                    "epoch": epoch,
                    "validation_accuracy": found.accuracy,
                    "validation_loss": found.loss,
                    "density": self.density,
                    "layer_density": self.densities,
                }
                self._save_network(checkpoint.BEST, self.best)
        return row

    def _measure(self) -> list[tuple[float, float]]:
        """PQ index and rewiring fraction of each layer."""
        if self.rewirer is not None:
            return self.rewirer.measure()
        found = []
        for weight, mask in zip(self.sparse.values(), self.masks.values(), strict=True):
            active = weight[mask].detach().cpu().numpy()
            pq = pq_index(active, self.rewiring.p, self.rewiring.q)
            found.append((pq, rewiring_fraction(active.size, pq, self.rewiring)))
        return found

    def _change_connections(self, epoch: int, row: dict[str, Any]) -> None:
        if self.rewirer is None or epoch not in {*self.falls, *self.rewires}:
            return
        if epoch in self.falls:
            if self.rewirer.on_target:
                return
            self._save_network(f"iteration-{row['iteration']:03d}.safetensors", row)
            changes, fresh = self.rewirer.fall(final=epoch == self.falls[-1])
            row["change"] = "fall"
        else:
            changes, fresh = self.rewirer.rewire()
            self.rewirer.reset_momentum()
            row["change"] = "rewire"
        for layer, change in zip(row["layers"], changes, strict=True):
            layer.update(index=change.index, fraction=change.fraction, pruned=change.pruned, grown=change.grown)
        for weight, positions in zip(self.sparse.values(), fresh, strict=True):
            for value in self.optimizer.state[weight].values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(positions.reshape(value.shape), 0.0)

    def _network_tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return {**tensors, **{f"mask.{name}": mask for name, mask in self.masks.items()}}

    def _save_network(self, name: str, document: dict[str, Any]) -> None:
        checkpoint.save(self.folder / "checkpoints" / name, self._network_tensors(), {**document, "key": self.key})

    def _save(self, epoch: int) -> None:
        tensors = {**self._network_tensors(), **checkpoint.optimizer_tensors(self.optimizer)}
        if self.rewirer is not None:
            for index, buffer in enumerate(self.rewirer.momentum):
                tensors[f"momentum{index}"] = buffer
            for kind, carries in self.rewirer.carry.items():
                for index, carry in enumerate(carries):
                    tensors[f"carry.{kind}{index}"] = torch.from_numpy(carry)
        rows = "".join(json.dumps(row) + "\n" for row in self.history)
        write_text(self.folder / "history.jsonl", rows)
        document = {"key": self.key, "epoch": epoch, "best": self.best, "history": self.history}
        checkpoint.save(self.folder / "checkpoints" / checkpoint.LAST, tensors, document)

    def _restore(self) -> int:
        """Continue from the last checkpoint if it is of this very run; the number of epochs done."""
        folder = self.folder / "checkpoints"
        if not (folder / checkpoint.LAST).is_file():
            return 0
        tensors, document = checkpoint.load(folder / checkpoint.LAST)
        if document.get("key") != self.key:
            return 0
        with torch.no_grad():
            for name, mask in self.masks.items():
                mask.copy_(tensors[f"mask.{name}"])
        checkpoint.restore_network(self.network, tensors)
        checkpoint.restore_optimizer(self.optimizer, tensors)
        if self.rewirer is not None:
            for index, buffer in enumerate(self.rewirer.momentum):
                buffer.copy_(tensors[f"momentum{index}"])
            for kind, carries in self.rewirer.carry.items():
                for index, carry in enumerate(carries):
                    carry[:] = tensors[f"carry.{kind}{index}"].numpy()
        self.history, self.best = document["history"], document["best"]
        return int(document["epoch"])
