"""From a trained float network to a :class:`FrozenNetwork`: fine-tune in integers, export, remove dead code, measure.

The test samples are used here, once, after every choice has been made by validation accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codesign.basics.errors import InputError
from codesign.basics.progress import News, Progress, silent
from codesign.config import Config
from codesign.contract import golden
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.data.automatic import resolve, settled
from codesign.data.encoders import encode, input_coding
from codesign.data.plausibility import check_training
from codesign.data.samples import Dataset
from codesign.train import checkpoint
from codesign.train.batches import Augmentation, Batches, input_shape
from codesign.train.loop import (
    EVALUATION_BATCH,
    TrainResult,
    class_weights,
    evaluate,
    learning_rate,
    make_optimizer,
    prepare,
)
from codesign.train.losses import total_loss
from codesign.train.model import SpikingNetwork
from codesign.train.quantised import CALIBRATION_MARGIN, QuantisedNetwork

FINAL_MARGIN = 1.25


@dataclass(frozen=True)
class FreezeResult:
    """A frozen network and what it does on the test samples.

    network : the frozen network, dead code removed.
    test_stimulus : the encoded test samples with their labels.
    decisions : int32 (N,); of the frozen network on them, by the golden model.
    figures : accuracies on the test samples and sizes, keys as in the manifest's figures.
    details : validation accuracies, history of the fine-tuning, event counts and sizes of all three sets, and what
        was removed: weights that round to 0, then neurons that cannot matter, and the synapses that went with them.
    """

    network: FrozenNetwork
    test_stimulus: Stimulus
    decisions: np.ndarray
    figures: dict[str, Any]
    details: dict[str, Any]


def freeze(
    config: Config,
    trained: TrainResult | str | Path,
    dataset: Dataset,
    *,
    progress: Progress = silent,
    device: str = "cpu",
) -> FreezeResult:
    """Quantise and fine-tune the chosen checkpoint of a run at fixed connections, and freeze it.

    ``trained`` is a training result, a run folder or a checkpoint file. Deterministic for a given seed.
    Raises InputError if the checkpoint does not belong to the configured network.
    """
    config, _ = resolve(config, dataset)
    device = prepare(config.train.threads, device)
    network = load_trained(config, trained, dataset).to(device)
    timesteps = config.network.timesteps
    coding = input_coding(dataset, config.data)
    encoded = {
        name: encode(dataset, getattr(dataset, name), config.data, timesteps)
        for name in ("train", "validation", "test")
    }
    check_training(dataset, encoded["train"][0], config.data)
    model = QuantisedNetwork(network, config.freeze, coding).to(device)
    training = Batches(encoded["train"][0], 1.0, Augmentation.of(dataset, config.data), device)
    validation = Batches(encoded["validation"][0], device=device)
    _set_widths(model, config, training, CALIBRATION_MARGIN)
    history = _fine_tune(model, config, dataset, training, validation, progress)
    widths = _set_widths(model, config, training, FINAL_MARGIN)
    whole = model.export(widths)
    frozen = remove_dead_code(whole)
    validation_trace = golden.run(frozen, encoded["validation"][0], membranes=False, spikes=False)
    stimulus, counts = encoded["test"]
    scale = 1.0 / ((1 << config.data.input_bits) - 1) if coding.is_current else 1.0

    def in_float(samples: Stimulus) -> float:
        batches = Batches(samples, scale, device=device).ordered(EVALUATION_BATCH)
        return evaluate(network, batches, config.train).accuracy

    details = {
        "fine_tuning": history,
        "accuracy_validation": _accuracy(validation_trace.decisions, encoded["validation"][0].labels),
        "accuracy_validation_float": in_float(encoded["validation"][0]),
        "samples": {name: len(entry[0]) for name, entry in encoded.items()},
        "events": {name: counts.document() for name, (_, counts) in encoded.items()},
        "neurons": [layer.n_out for layer in whole.layers],
        "removed_neurons": [a.n_out - b.n_out for a, b in zip(whole.layers, frozen.layers, strict=True)],
        "removed_synapses": whole.n_synapses - frozen.n_synapses,
        "weights_rounded_to_zero": model.rounded_to_zero(),
        "membrane_widths": [layer.membrane_width for layer in frozen.layers],
        "thresholds": [[int(scale.threshold.min()), int(scale.threshold.max())] for scale in model.scales],
    }
    trace = golden.run(frozen, stimulus, membranes=False, spikes=False)
    figures = {"accuracy_float": in_float(stimulus), **frozen_figures(frozen, stimulus, trace)}
    figures |= {"events_merged": counts.merged, "events_dropped": counts.dropped}
    return FreezeResult(frozen, stimulus, trace.decisions, figures, details)


def frozen_figures(network: FrozenNetwork, stimulus: Stimulus, trace: golden.Trace) -> dict[str, Any]:
    """Figures of a frozen network on labelled samples, from the golden model's trace of them."""
    return {
        "accuracy_frozen": _accuracy(trace.decisions, stimulus.labels),
        "balanced_accuracy": balanced_accuracy(trace.decisions, stimulus.labels),
        "density": network.density,
        "layer_density": network.layer_density,
        "synapses": network.n_synapses,
        "weight_bits": max(layer.weight_bits for layer in network.layers),
        "fraction_bits": [layer.fraction_bits for layer in network.layers],
        "timesteps": network.timesteps,
        "saturations": int(trace.saturations.sum()),
        "spikes_per_sample": [float(total / len(stimulus)) for total in trace.spike_counts.sum(axis=0)],
        "synaptic_operations_per_sample": float(trace.synaptic_operations.sum() / len(stimulus)),
        "network_hash": network.hash,
    }


def balanced_accuracy(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the fraction of their samples decided right."""
    return float(np.mean([np.mean(decisions[labels == label] == label) for label in np.unique(labels)]))


def load_trained(config: Config, trained: TrainResult | str | Path, dataset: Dataset) -> SpikingNetwork:
    """The float network of a training result, run folder or checkpoint file."""
    if isinstance(trained, TrainResult):
        path = trained.checkpoint
    else:
        path = Path(trained)
        if path.is_dir():
            path = path / "checkpoints" / checkpoint.BEST
    tensors, _ = checkpoint.load(path)
    network = SpikingNetwork(input_shape(dataset, config.data), dataset.n_classes, config.network, config.train)
    try:
        checkpoint.restore_network(network, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return network.eval()


def _accuracy(decisions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(decisions == labels))


def _set_widths(model: QuantisedNetwork, config: Config, training: Batches, margin: float) -> list[int]:
    """Membrane widths as configured or else from the training data; a layer that only integrates never saturates."""
    if config.freeze.membrane_width is None:
        widths = model.membrane_widths(training.ordered(EVALUATION_BATCH), margin)
    else:
        widths = [config.freeze.membrane_width] * len(model.plans)
    model.set_membrane_widths(
        [width if neuron.spiking else None for width, neuron in zip(widths, model.neurons, strict=True)]
    )
    return widths


def _fine_tune(
    model: QuantisedNetwork,
    config: Config,
    dataset: Dataset,
    training: Batches,
    validation: Batches,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Train in integer units; leaves the model with the weights of the best validation accuracy."""
    options = config.train
    weights = class_weights(dataset.train.labels, dataset.n_classes, options.class_balance, training.device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(options, parameters, config.freeze.learning_rate)
    batch_size, trained = settled(options.batch_size, "train.batch_size"), settled(options.epochs, "train.epochs")
    epochs = settled(config.freeze.epochs, "freeze.epochs")
    per_epoch = -(-len(training) // batch_size)
    steps = per_epoch * epochs
    step, news = 0, News()
    history: list[dict[str, Any]] = []
    best: tuple[float, float] | None = None
    state: dict[str, torch.Tensor] = {}
    for epoch in range(epochs + 1):
        if epoch:
            # Epoch numbers after the float run's, so that the order of samples is a new one.
            for batch, (inputs, target) in enumerate(training.epoch(batch_size, options.seed, trained + epoch)):
                if batch and news.due():
                    progress(epoch - 1 + batch / per_epoch, epochs, f"quantised, epoch {epoch} of {epochs}")
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config.freeze.learning_rate, step, steps)
                step += 1
                loss = total_loss(model(inputs), target, options, weights)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if options.clip_grad_norm is not None:
                    torch.nn.utils.clip_grad_norm_(parameters, options.clip_grad_norm)
                optimizer.step()
        found = evaluate(model, validation.ordered(EVALUATION_BATCH), options, weights)
        operations = sum(found.operations)
        history.append(
            {
                "epoch": epoch,
                "validation_accuracy": found.accuracy,
                "validation_loss": found.loss,
                "synaptic_operations_per_sample": operations,
            }
        )
        rank = (found.accuracy, -found.loss)
        if best is None or rank > best:
            best = rank
            state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        progress(
            epoch,
            epochs,
            f"quantised, epoch {epoch} of {epochs}, loss {found.loss:.3f}, validation {100 * found.accuracy:.2f} %, "
            f"operations {operations:,.0f}",
        )
    model.load_state_dict(state)
    return history
