"""The training run: epochs, change of connections, validation, checkpoints, metrics."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from codesign.basics.errors import CodesignWarning, InputError, UnsupportedError
from codesign.basics.files import atomic_path, explain_write_errors, only_finite, write_text
from codesign.basics.progress import News, Progress, silent
from codesign.config import MAX_THREADS, Config, TrainConfig
from codesign.data.automatic import resolve, settled
from codesign.data.encoders import encode, input_coding
from codesign.data.plausibility import check_training
from codesign.data.samples import Dataset
from codesign.train import checkpoint, parallel
from codesign.train.architecture import least_samples
from codesign.train.batches import Augmentation, Batches, input_shape
from codesign.train.losses import greatest_class, total_loss
from codesign.train.model import SpikingNetwork
from codesign.train.rewiring import LayerChange, PQRewirer

if TYPE_CHECKING:
    from codesign.cost.budget import Budget, Demand
    from codesign.train.fitting import BudgetCheck

EVALUATION_BATCH = 512
WARMUP = 0.05
# Instructions for products of bfloat16, as torch names them; without them the products are slower than in float32.
BFLOAT16 = ("amx_bf16", "avx512_bf16")
FORMAT = 2
METRICS = "metrics.jsonl"
ITERATIONS = "iteration-*.safetensors"
# mallopt(3)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


@dataclass(frozen=True)
class TrainResult:
    """A finished training run.

    folder : the run folder; checkpoints are in ``folder / "checkpoints"``, one row per epoch in
        ``folder / "metrics.jsonl"``.
    checkpoint : the chosen one: greatest validation accuracy among the epochs at the final density, or with
        ``stop_at = "turning-point"`` the sparsest iteration within ``choose_margin`` of the best. With a hardware
        budget epochs that fit it come before those that do not.
    epoch : the chosen epoch, from 1.
    density, layer_density : of the chosen checkpoint, 0..1.
    accuracy_validation : of the chosen checkpoint, 0..1.
    steps : optimiser steps of the whole run.
    history : rows as in metrics.jsonl, without ``samples_per_second``.
    demands : with a hardware budget, what the chosen network asks of it at each choice of bits and lanes.
    events : counts of the encoded events of sets 'train' and 'validation' (``EventCounts.document``).
    start : of a training that began with another one's weights (``train.start``): their hash ``weights``, how many
        ``connections`` they had, and how many of these were ``kept``; ``new`` are those drawn beside them.
    """

    folder: Path
    checkpoint: Path
    epoch: int
    density: float
    layer_density: list[float]
    accuracy_validation: float
    steps: int
    history: list[dict[str, Any]]
    demands: list[Demand] = field(default_factory=list)
    events: dict[str, dict[str, int]] = field(default_factory=dict)
    start: dict[str, Any] | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """The row of the chosen epoch."""
        return next(row for row in self.history if row["epoch"] == self.epoch)


@dataclass(frozen=True)
class Evaluation:
    """accuracy, mean loss; spikes and synaptic operations per sample for each layer; decisions, int64 (n,)."""

    accuracy: float
    loss: float
    spikes: list[float]
    operations: list[float]
    decisions: Tensor


def train(
    config: Config,
    dataset: Dataset,
    folder: str | Path,
    *,
    progress: Progress = silent,
    device: str = "cpu",
    budget: Budget | None = None,
) -> TrainResult:
    """Train ``config``'s network on ``dataset`` and keep checkpoints below ``folder``.

    A run that was stopped goes on after its last whole epoch and ends with the same weights, bit for bit on the CPU
    with as many threads: those of before, unless ``config.train.threads`` says otherwise, which is then warned of.
    Checkpoints of other data or options are not continued but removed, damaged ones are refused. torch's number of
    threads is afterwards what it was before.
    ``progress(done, total, text)`` counts epochs, and parts of one that takes long. ``device`` is 'cpu', 'cuda',
    'cuda:N' or 'auto' (a GPU where there is one). ``budget`` holds the limits that ``config.budget`` names: density
    stops falling once the network fits them (:class:`codesign.train.fitting.BudgetCheck`), at the target density at the
    latest. Under torchrun every process calls this; each takes its share of every batch, the first one writes.

    Raises InputError for options that contradict each other and for a loss that is no longer finite, UnsupportedError
    for what is not built or not there.
    """
    config, _ = resolve(config, dataset)
    with keeping_threads():
        run = _Run(config, dataset, Path(folder), device, budget)
        if not config.train.compile:
            return run.execute(progress)
        from torch._dynamo.exc import TorchDynamoException

        run.network.compile_projections()
        try:
            return run.execute(progress)
        except TorchDynamoException as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UnsupportedError(
                f"train.compile: torch.compile does not work here ({reason}); set it to false"
            ) from None


@contextmanager
def keeping_threads() -> Iterator[None]:
    """Give torch the number of threads that it has now back at the end, whatever was set in between."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def find_device(device: str) -> str:
    """The device that 'cpu', 'cuda', 'cuda:N' or 'auto' means. UnsupportedError if it is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if device != "cpu" and not (count and (not colon or (number.isdecimal() and int(number) < count))):
        raise UnsupportedError(f"device {device!r} is not available; use --device cpu")
    return device


def prepare(threads: int, device: str) -> str:
    """Set torch up for reproducible and quick training; the device meant. UnsupportedError if it is not there.

    It holds for the whole process from now on; :func:`keeping_threads` gives the number of threads back.
    """
    device = find_device(device)
    if device != "cpu":
        # What cuBLAS needs for the same sums in every run on one device.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    return device


def _keep_freed_memory() -> None:
    """Have glibc keep large freed blocks, which every step would otherwise fault in again, page by page."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 1 << 26)):
            mallopt(parameter, value)


def evaluate(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], config: TrainConfig, weight: Tensor | None = None
) -> Evaluation:
    """Accuracy, loss and activity of ``network`` (anything with the interface of SpikingNetwork) in evaluation mode.

    The loss is a mean over all samples, weighted by class where ``weight`` (classes,) is given.
    """
    loss = total = count = 0.0
    spikes: list[np.ndarray] = []
    operations: list[np.ndarray] = []
    decisions, labels = [], []
    training = network.training
    network.eval()
    with torch.no_grad():
        for inputs, target in batches:
            output = network(inputs)
            found = output.activity()
            # What a mean over the batch has been divided by.
            share = len(target) if weight is None else float(weight[target].sum())
            loss += float(total_loss(output, target, config, weight)) * share
            total += share
            count += len(target)
            spikes.append(found.spikes.cpu().numpy())
            operations.append(found.operations.cpu().numpy())
            decisions.append(output.scores.argmax(1).cpu())
            labels.append(target.cpu())
    network.train(training)
    decided = torch.cat(decisions)
    accuracy = float((decided == torch.cat(labels)).double().mean())
    per_sample = [(np.sum(rows, axis=0) / count).tolist() for rows in (spikes, operations)]
    return Evaluation(accuracy, loss / total, per_sample[0], per_sample[1], decided)


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
    """Adam, AdamW or SGD with momentum 0.9."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(list(parameters), lr=rate, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    # The fused step has a square root of its own; torch's is forty times slower on the zeros of absent connections.
    return kind(list(parameters), lr=rate, weight_decay=config.weight_decay, fused=True)


def begin_with(network: SpikingNetwork, start: Path, folder: Path) -> str:
    """Give a network the weights of another training, or of one of its checkpoints; their hash (hex).

    folder : where this training writes. Raises InputError for a start that is no checkpoint, damaged, of layers of
    other sizes, or in ``folder``.
    """
    place = start.resolve()
    if place == folder.resolve() or place.is_relative_to(folder.resolve() / "checkpoints"):
        raise InputError(f"train.start: {start} is what this training replaces; train into another folder")
    tensors, path = checkpoint.load_start(start)
    try:
        checkpoint.restore_network(network, tensors, "start with a training of the same layers")
    except InputError as error:
        raise InputError(f"train.start: {path}: {error}") from None
    return checkpoint.weights_hash(tensors)


class _Run:
    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        folder: Path,
        device: str,
        budget: Budget | None,
    ) -> None:
        if config.budget.active and budget is None:
            raise InputError("train: the configuration has a [budget]; pass its limits as well (budget = ...)")
        options = config.train
        self.group, device = parallel.join(prepare(options.threads, device))
        self.autocast = _autocast(options, device)
        self.config, self.dataset, self.folder = config, dataset, folder
        timesteps = config.network.timesteps
        coding = input_coding(dataset, config.data)
        encoded = {
            name: encode(dataset, part, config.data, timesteps)
            for name, part in (("train", dataset.train), ("validation", dataset.validation))
        }
        stimuli = [stimulus for stimulus, _ in encoded.values()]
        self.events = {name: counts.document() for name, (_, counts) in encoded.items()}
        check_training(dataset, stimuli[0], config.data)
        self.training = Batches(stimuli[0], 1.0 / coding.largest, Augmentation.of(dataset, config.data), device)
        self.validation = Batches(stimuli[1], 1.0 / coding.largest, device=device)
        self.check: BudgetCheck | None = None
        if budget is not None:
            from codesign.train.fitting import BudgetCheck

            self.check = BudgetCheck(budget, config.freeze, coding, *stimuli)
        # What the first weights need is asked when they have their scale.
        self.is_scaled = False
        shape = input_shape(dataset, config.data)
        self.network = SpikingNetwork(shape, dataset.n_classes, config.network, options)
        self.start: dict[str, Any] | None = None
        if options.start is not None:
            self.start = {"weights": begin_with(self.network, Path(options.start), folder)}
        self.network.to(device)
        before = {name: weight.detach() != 0 for name, weight in self.network.sparse_parameters().items()}
        self.optimizer = make_optimizer(
            options, [p for p in self.network.parameters() if p.requires_grad], options.learning_rate
        )
        self.epochs = settled(options.epochs, "train.epochs")
        self.batch_size = settled(options.batch_size, "train.batch_size")
        self.least = self._least_batch(stimuli[0].is_current)
        self.steps_per_epoch = len(self.training.starts(self.batch_size, self.least))
        self.rewirer = PQRewirer(
            self.network,
            self.optimizer,
            options.rewiring,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
            seed=options.seed,
            first="random" if self.start is None else "magnitude",
            stop=lambda _: self.is_scaled and self.check is not None and self._demand().fits,
        )
        if self.start is None:
            self._scale_drawn()
        else:
            kept = sum(int((mask & before[name]).sum()) for name, mask in self.rewirer.masks.items())
            self.start |= {"connections": sum(int(there.sum()) for there in before.values()), "kept": kept}
            self.start["new"] = sum(self.rewirer.counts.values()) - kept
        self.rewirer.capture_initial()
        self.is_scaled = True
        self.rewirer.settled |= self.check is not None and self._demand().fits
        self.parallel = self.group.wrap(self.network)
        self.class_weights = class_weights(dataset.train.labels, dataset.n_classes, options.class_balance, device)
        self.history: list[dict[str, Any]] = []
        self.rates: dict[int, float] = {}
        self.best: dict[str, Any] | None = None
        self.iterations: list[dict[str, Any]] = []

    def _scale_drawn(self) -> None:
        """Give drawn weights the size that suits their number and the training samples."""
        with torch.no_grad():
            # As wide as the full fan-in would make the sums.
            for name, weight in self.rewirer.parameters.items():
                weight.mul_(math.sqrt(weight.numel() / max(1, self.rewirer.counts[name])))
        self.network.scale_initial_weights(self.training.take(np.arange(min(len(self.training), 256))))

    def _least_batch(self, constant: bool) -> int:
        """Samples that a batch must have for all processes. InputError if there are not as many."""
        least = least_samples(self.network.plans, self.config.network.timesteps, constant=constant)
        # One sample does for each process, if need be of another one's.
        least = 1 if least == 1 else least * self.group.size
        if min(self.batch_size, len(self.training)) < least:
            raise InputError(
                f"train.batch_size = {self.batch_size} of {len(self.training)} training samples: batch normalisation "
                f"needs {least} samples in a batch; take more, or leave norm out"
            )
        return least

    @property
    def key(self) -> str:
        """Hash of everything that the final weights depend on, but for how sums are rounded (threads, device)."""
        content = {
            "format": FORMAT,
            "processes": self.group.size,
            "data": self.config.data.model_dump(exclude={"path"}),
            "sha256": self.dataset.hash,
            "network": self.config.network.model_dump(),
            "train": self.config.train.model_dump(exclude={"threads", "start"}),
        }
        if self.start is not None:
            content["start"] = self.start["weights"]
        if self.check is not None:
            content |= self.check.key
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def execute(self, progress: Progress) -> TrainResult:
        epochs = self.epochs
        done = self._restore()
        # Nobody may write before everybody has read.
        self.group.wait()
        if self.group.writes:
            self._clear(afresh=not done)
        for epoch in range(done + 1, epochs + 1):
            measured = self._train_epoch(epoch, progress)
            self._check_finite(epoch, "training", measured["loss"])
            row = self._validate(epoch, measured)
            self._check_finite(epoch, "validation", row["validation_loss"])
            self._change_connections(row)
            self.history.append(row)
            self._save(epoch)
            progress(epoch, epochs, f"epoch {epoch} of {epochs}, loss {row['loss']:.3f}, {_validated(row)}")
        chosen = self._choose()
        return TrainResult(
            folder=self.folder,
            checkpoint=self.folder / "checkpoints" / checkpoint.BEST,
            epoch=chosen["epoch"],
            density=chosen["density"],
            layer_density=chosen["layer_density"],
            accuracy_validation=chosen["validation_accuracy"],
            steps=epochs * self.steps_per_epoch,
            history=self.history,
            demands=self._demands(),
            events=self.events,
            start=self.start,
        )

    def _demand(self) -> Demand:
        """What the network asks of the budget now, at its least."""
        assert self.check is not None
        return self.check.least(self.network, self.rewirer.masks)

    def _demands(self) -> list[Demand]:
        """What the chosen network asks of the budget, at all bits and lanes."""
        if self.check is None or not self.group.writes:
            return []
        tensors, _ = checkpoint.load(self.folder / "checkpoints" / checkpoint.BEST)
        checkpoint.restore_network(self.network, tensors)
        masks = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("mask.")}
        bits = self.check.budget.weight_bits
        return [demand for item in bits for demand in self.check.demands(self.network, masks, item)]

    def _connected(self, *, every_gradient: bool) -> AbstractContextManager[None]:
        return self.network.connected(self.rewirer.masks, every_gradient=every_gradient)

    def _train_epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """Means of loss, accuracy and gradient norm, and the last learning rate. Tells of itself where it takes long.

        Loss and accuracy are those of the batches as they are trained on: augmented, while the weights change.
        """
        options = self.config.train
        total_steps = self.steps_per_epoch * self.epochs
        device = self.training.device
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        norm_sum = torch.zeros((), dtype=torch.float64, device=device)
        right = torch.zeros((), dtype=torch.float64, device=device)
        rate, start, news = 0.0, time.monotonic(), News()
        for batch, whole in enumerate(self.training.epoch(self.batch_size, options.seed, epoch, self.least)):
            if batch and news.due():
                mean = float(loss_sum) * self.group.size / (batch * self.batch_size)
                before = f"; epoch {epoch - 1}: {_validated(self.history[-1])}" if self.history else ""
                done = epoch - 1 + batch / self.steps_per_epoch
                progress(done, self.epochs, f"epoch {epoch} of {self.epochs}, loss {mean:.3f} so far{before}")
            rate = learning_rate(options.learning_rate, (epoch - 1) * self.steps_per_epoch + batch, total_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            inputs, target, factor = self.group.part(*whole, self.class_weights)
            with self.autocast, self._connected(every_gradient=self.rewirer.reads_absent_gradients):
                output = self.parallel(inputs)
            loss = total_loss(output, target, options, self.class_weights)
            self.optimizer.zero_grad(set_to_none=True)
            (loss * factor).backward()
            # Before clipping, so that the norm is that of the gradient in use.
            self.rewirer.mask_gradients()
            norm_sum += self._clip(options.clip_grad_norm)
            self.optimizer.step()
            self.rewirer.advance()
            loss_sum += loss.detach().double() * factor * len(whole[1]) / self.group.size
            # A process without a sample of this batch repeats one, which does not count.
            right += (output.scores.argmax(1) == greatest_class(target)).sum() * (factor != 0)
        self.rates[epoch] = len(self.training) / max(time.monotonic() - start, 1e-9)
        return {
            "loss": float(self.group.sum(loss_sum)) / len(self.training),
            "training_accuracy": float(self.group.sum(right)) / len(self.training),
            "gradient_norm": float(norm_sum) / self.steps_per_epoch,
            "learning_rate": rate,
        }

    def _clip(self, limit: float | None) -> Tensor:
        """Norm of the gradient, which is scaled down to ``limit``."""
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        return nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit).double()

    def _validate(self, epoch: int, measured: dict[str, float]) -> dict[str, Any]:
        self.group.share_buffers(self.network)
        validation = self.validation.ordered(EVALUATION_BATCH)
        with self._connected(every_gradient=False):
            found = evaluate(self.network, validation, self.config.train, self.class_weights)
        layers = self._layers()
        plans = self.network.plans
        for layer, plan, spikes, operations in zip(layers, plans, found.spikes, found.operations, strict=True):
            layer |= {"pruned": 0, "grown": 0, "spikes_per_sample": spikes}
            layer["synaptic_operations_per_sample"] = operations
            layer["firing_rate"] = spikes / (plan.size * self.network.network.timesteps)
        row = {
            "epoch": epoch,
            "iteration": (epoch - 1) // self.config.train.rewiring.iteration_epochs(self.epochs) + 1,
            **measured,
            "validation_loss": found.loss,
            "validation_accuracy": found.accuracy,
            "spikes_per_sample": sum(found.spikes),
            "synaptic_operations_per_sample": sum(found.operations),
            "density": self.rewirer.density,
            "change": "none",
            "layers": layers,
        }
        if self.check is not None:
            row["budget"] = self._demand().document()
        if self.rewirer.settled and (self.best is None or rank(row) > rank(self.best)):
            self.best = self._summary(row)
            self._save_network(checkpoint.BEST, self.best)
        return row

    def _check_finite(self, epoch: int, what: str, loss: float) -> None:
        """Raise InputError if a loss says that the weights are of no use: nothing after it would be a result."""
        if not math.isfinite(loss):
            rate = self.config.train.learning_rate
            raise InputError(
                f"train: the {what} loss is {loss} in epoch {epoch} of {self.epochs}; lower train.learning_rate "
                f"(now {rate:g}), or set train.clip_grad_norm = 1.0"
            )

    def _layers(self) -> list[dict[str, Any]]:
        """Density, I and c of each layer of neurons, over all its weight tensors."""
        measured, counts = self.rewirer.measure(), self.rewirer.counts
        members: dict[int, list[str]] = {}
        for name in counts:
            members.setdefault(layer_of(name), []).append(name)
        rows = []
        for _, names in sorted(members.items()):
            active = sum(counts[name] for name in names)
            row: dict[str, Any] = {"density": active / sum(self.rewirer.masks[name].numel() for name in names)}
            for position, quantity in enumerate(("index", "fraction")):
                weighted = sum(counts[name] * measured[name][position] for name in names)
                row[quantity] = weighted / max(1, active)
            rows.append(row)
        return rows

    @staticmethod
    def _summary(row: dict[str, Any]) -> dict[str, Any]:
        """What is kept of a row as the description of a checkpoint."""
        kept = ("epoch", "iteration", "validation_accuracy", "validation_loss", "density")
        summary = {name: row[name] for name in kept} | {"layer_density": [layer["density"] for layer in row["layers"]]}
        return summary | {name: row[name] for name in ("budget",) if name in row}

    def _change_connections(self, row: dict[str, Any]) -> None:
        due = self.rewirer.due
        if due == "fall":
            summary = self._summary(row)
            self._save_network(_iteration_file(row["iteration"]), summary)
            self.iterations.append(summary)
        changes: list[LayerChange] = self.rewirer.change()
        if changes:
            row["change"] = due
        for change in changes:
            layer = row["layers"][layer_of(change.layer)]
            layer["pruned"] += change.pruned
            layer["grown"] += change.grown

    def _choose(self) -> dict[str, Any]:
        """The chosen checkpoint's description; its tensors become ``best.safetensors``."""
        assert self.best is not None
        rewiring = self.config.train.rewiring
        if not (rewiring.rules.falls and rewiring.stop_at == "turning-point"):
            return self.best
        candidates = [*self.iterations, self.best]
        least = max(item["validation_accuracy"] for item in candidates) - rewiring.choose_margin
        good = [item for item in candidates if item["validation_accuracy"] >= least]
        chosen = min(good, key=lambda item: (item["density"], -item["validation_accuracy"]))
        if chosen is not self.best and self.group.writes:
            folder = self.folder / "checkpoints"
            with atomic_path(folder / checkpoint.BEST) as temporary:
                shutil.copyfile(folder / _iteration_file(chosen["iteration"]), temporary)
        return chosen

    def _network_tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return {**tensors, **{f"mask.{name}": mask for name, mask in self.rewirer.masks.items()}}

    def _save_network(self, name: str, document: dict[str, Any]) -> None:
        if self.group.writes:
            path = self.folder / "checkpoints" / name
            checkpoint.save(path, self._network_tensors(), {**document, "key": self.key})

    def _save(self, epoch: int) -> None:
        if not self.group.writes:
            return
        rows = [{**row, "samples_per_second": self.rates.get(row["epoch"])} for row in self.history]
        write_text(self.folder / METRICS, "".join(json.dumps(only_finite(row)) + "\n" for row in rows))
        state = self.rewirer.state_dict()
        document = {
            "key": self.key,
            "epoch": epoch,
            "threads": torch.get_num_threads(),
            "best": self.best,
            "iterations": self.iterations,
            "history": self.history,
            "rewirer": state.pop("document"),
        }
        tensors = {**self._network_tensors(), **checkpoint.optimizer_tensors(self.optimizer)}
        tensors |= {f"rewirer.{name}": tensor for name, tensor in state.items() if not name.startswith("mask.")}
        checkpoint.save(self.folder / "checkpoints" / checkpoint.LAST, tensors, document)

    def _restore(self) -> int:
        """Continue from the last checkpoint if it is of this very run; the number of epochs done."""
        path = self.folder / "checkpoints" / checkpoint.LAST
        if not path.is_file():
            return 0
        tensors, document = checkpoint.load(path)
        if document.get("key") != self.key:
            return 0
        try:
            _State.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: damaged: {place}: {first['msg']}; {self._anew}") from None
        checkpoint.restore_network(self.network, tensors)
        checkpoint.restore_optimizer(self.optimizer, tensors)
        state = {name: tensor for name, tensor in tensors.items() if name.startswith("mask.")}
        state |= {name[8:]: tensor for name, tensor in tensors.items() if name.startswith("rewirer.")}
        self.rewirer.load_state_dict({**state, "document": document["rewirer"]})
        self.history, self.best, self.iterations = document["history"], document["best"], document["iterations"]
        done = int(document["epoch"])
        self._check_kept(done)
        if done < self.epochs:
            self._go_on_with(document.get("threads"))
        return done

    @property
    def _anew(self) -> str:
        """What helps where a run cannot go on."""
        return f"train again with --force, or remove {self.folder / 'checkpoints'}"

    def _check_kept(self, done: int) -> None:
        """Hold the checkpoints of earlier epochs, of which one may be chosen at the end, against what is told of them.

        InputError for one that is damaged, absent or of something else.
        """
        kept = {_iteration_file(item["iteration"]): [item] for item in self.iterations}
        if self.best is not None:
            # At the end that of an iteration may have become the best.
            kept[checkpoint.BEST] = [self.best, *self.iterations]
        for name, told in kept.items():
            path = self.folder / "checkpoints" / name
            if not path.is_file():
                raise InputError(f"{path}: absent, though {checkpoint.LAST} tells of it; {self._anew}")
            found = checkpoint.load(path)[1]
            if found in [{**item, "key": self.key} for item in told]:
                continue
            if name == checkpoint.BEST and found.get("key") == self.key and found.get("epoch") == done + 1:
                # Killed after the best of an epoch and before its last: that epoch comes again, and is the best again.
                self.best = None
                continue
            raise InputError(f"{path}: of another run than {checkpoint.LAST} beside it; {self._anew}")

    def _go_on_with(self, threads: int | None) -> None:
        """Take the number of threads that the run began with, so that sums are rounded as they were."""
        given = self.config.train.threads
        if threads is None or threads == given:
            return
        if not given:
            torch.set_num_threads(threads)
            return
        warnings.warn(
            f"train.threads = {given}, and {threads} before the interruption: the weights may come out otherwise than "
            f"without it, as sums are rounded in another order",
            CodesignWarning,
            stacklevel=2,
        )

    def _clear(self, *, afresh: bool) -> None:
        """Remove files that a killed run was writing and, ``afresh``, the checkpoints of another run."""
        folder = self.folder / "checkpoints"
        found = [*folder.glob(".*.safetensors.*"), *self.folder.glob(f".{METRICS}.*")]
        if afresh:
            # The one that tells of the others first, lest it tell of what is gone.
            found += [folder / checkpoint.LAST, folder / checkpoint.BEST, *folder.glob(ITERATIONS)]
        with explain_write_errors(folder):
            for path in found:
                path.unlink(missing_ok=True)


class _Row(BaseModel):
    """What is read of an epoch that a checkpoint tells of."""

    model_config = ConfigDict(extra="allow", strict=True)
    epoch: Annotated[int, Field(ge=1, le=1 << 31)]
    iteration: Annotated[int, Field(ge=0, le=1 << 31)]
    density: float
    validation_accuracy: float
    validation_loss: float


class _State(BaseModel):
    """The document of the last checkpoint; the rewirer checks its part."""

    model_config = ConfigDict(extra="allow", strict=True)
    epoch: Annotated[int, Field(ge=1, le=1 << 31)]
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] | None = None
    best: _Row | None
    iterations: list[_Row]
    history: list[_Row]
    rewirer: dict[str, Any]


def layer_of(parameter: str) -> int:
    """Index of the layer of neurons that a parameter of :class:`SpikingNetwork` belongs to."""
    return int(parameter.split(".")[1])


def rank(row: Mapping[str, Any]) -> tuple[bool, float, float]:
    """Order of epochs: those that fit the budget, if there is one; then by accuracy, then by loss on validation."""
    return row.get("budget", {}).get("fits", True), row["validation_accuracy"], -row["validation_loss"]


def _validated(row: dict[str, Any]) -> str:
    """What an epoch led to, for reading."""
    return (
        f"validation {100 * row['validation_accuracy']:.2f} %, density {100 * row['density']:.1f} %, "
        f"operations {row['synaptic_operations_per_sample']:,.0f}"
    )


def _iteration_file(iteration: int) -> str:
    return ITERATIONS.replace("*", f"{iteration:03d}")


def _autocast(options: TrainConfig, device: str) -> torch.autocast:
    """bfloat16 for products if asked for. UnsupportedError on a device without arithmetic for it."""
    kind = device.split(":")[0]
    able = kind != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in BFLOAT16)
    if options.amp is True and not able:
        raise UnsupportedError("train.amp: this processor has no bfloat16 arithmetic; set it to 'auto' or false")
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=able and options.amp is not False)
