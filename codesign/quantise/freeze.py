"""From a trained float network to a :class:`FrozenNetwork`: fine-tune in integers, export, remove dead code, measure.

The test samples are used here, once, after every choice has been made by validation accuracy.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codesign.basics.errors import CodesignWarning, InputError
from codesign.basics.progress import Progress, silent
from codesign.config import Config
from codesign.contract import golden
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.contract.stimulus import Stimulus
from codesign.data.automatic import resolve, settled
from codesign.data.chance import compare
from codesign.data.encoders import encode, input_coding
from codesign.data.plausibility import check_training
from codesign.data.samples import Dataset
from codesign.train import checkpoint
from codesign.train.batches import Augmentation, Batches, input_shape
from codesign.train.fine_tuning import fine_tune
from codesign.train.loop import (
    EVALUATION_BATCH,
    TrainResult,
    evaluate,
    keeping_threads,
    prepare,
)
from codesign.train.model import SpikingNetwork
from codesign.train.quantised import CALIBRATION_MARGIN, QuantisedNetwork

FINAL_MARGIN = 1.25
CALIBRATION_SAMPLES = 500


@dataclass(frozen=True)
class FreezeResult:
    """A frozen network and what it does on the test samples.

    network : the frozen network, dead code removed.
    test_stimulus : the encoded test samples with their labels.
    calibration : encoded validation samples, 500 at most, spread over all of them, which may guide placement and
        estimates.
    decisions : int32 (N,); of the frozen network on them, by the golden model.
    margins : int64 (N,); readout value of the class decided for less that of the next best.
    figures : accuracies on the test samples and sizes, keys as in the manifest's figures.
    details : validation accuracies, history of the fine-tuning, event counts and sizes of all three sets, and what
        was removed (:attr:`FrozenModel.removed`).
    """

    network: FrozenNetwork
    test_stimulus: Stimulus
    calibration: Stimulus
    decisions: np.ndarray
    margins: np.ndarray
    figures: dict[str, Any]
    details: dict[str, Any]


@keeping_threads()
def freeze(
    config: Config,
    trained: TrainResult | str | Path,
    dataset: Dataset,
    *,
    progress: Progress = silent,
    device: str = "cpu",
) -> FreezeResult:
    """Quantise and fine-tune the chosen checkpoint of a run at fixed connections, and freeze it.

    ``trained`` is a training result, a run folder or a checkpoint file. Deterministic for a given seed. torch's number
    of threads is afterwards what it was before. Raises InputError if the checkpoint does not belong to the configured
    network.
    """
    config, _ = resolve(config, dataset)
    device = prepare(config.train.threads, device)
    network = load_trained(config, trained, dataset).to(device)
    coding = input_coding(dataset, config.data)
    encoded = {
        name: encode(dataset, getattr(dataset, name), config.data, config.network.timesteps)
        for name in ("train", "validation", "test")
    }
    training, validation, stimulus = (samples for samples, _ in encoded.values())
    check_training(dataset, training, config.data)
    found = freeze_model(
        network,
        config,
        training,
        validation,
        coding=coding,
        augmentation=Augmentation.of(dataset, config.data),
        earlier_epochs=settled(config.train.epochs, "train.epochs"),
        progress=progress,
        device=device,
    )

    def in_float(samples: Stimulus) -> float:
        batches = Batches(samples, 1.0 / coding.largest, device=device).ordered(EVALUATION_BATCH)
        return evaluate(network, batches, config.train).accuracy

    details = {
        "fine_tuning": found.history,
        "accuracy_validation": _accuracy(found.decisions, validation.labels),
        "accuracy_validation_float": in_float(validation),
        "samples": {name: len(entry[0]) for name, entry in encoded.items()},
        "events": {name: counts.document() for name, (_, counts) in encoded.items()},
        **found.removed,
        "membrane_widths": [layer.membrane_width for layer in found.network.layers],
        "thresholds": found.thresholds,
    }
    trace = golden.run(found.network, stimulus, membranes=False, spikes=False)
    counts = encoded["test"][1]
    figures = {"accuracy_float": in_float(stimulus), **frozen_figures(found.network, stimulus, trace)}
    figures |= {"events_merged": counts.merged, "events_dropped": counts.dropped}
    calibration = validation.spread(CALIBRATION_SAMPLES)
    return FreezeResult(found.network, stimulus, calibration, trace.decisions, trace.margins, figures, details)


@dataclass(frozen=True)
class FrozenModel:
    """A float network in integers.

    network : the frozen network, dead code removed.
    history : a row per epoch of the fine-tuning, epoch 0 being the network as it was rounded: ``epoch``,
        ``validation_accuracy`` 0..1, ``validation_loss``, ``synaptic_operations_per_sample``.
    removed : by layer ``neurons`` and ``synapses`` of the whole network, ``removed_neurons`` that cannot matter, of
        them ``neurons_without_path`` (no path of synapses leads from them to the next layers; the others never fire),
        and ``weights_rounded_to_zero``; ``removed_synapses`` in all.
    thresholds : least and greatest threshold of each layer, in the membrane's units.
    decisions : int32 (N,); of the frozen network on the validation samples, by the golden model.
    """

    network: FrozenNetwork
    history: list[dict[str, Any]]
    removed: dict[str, Any]
    thresholds: list[list[int]]
    decisions: np.ndarray


@keeping_threads()
def freeze_model(
    model: SpikingNetwork,
    config: Config,
    training: Stimulus,
    validation: Stimulus,
    *,
    coding: InputCoding | None = None,
    augmentation: Augmentation | None = None,
    earlier_epochs: int = 0,
    progress: Progress = silent,
    device: str = "cpu",
) -> FrozenModel:
    """Quantise a trained network, fine-tune it in integers at fixed connections, and freeze it.

    model : with the weights to freeze, zero where there is no connection; it is not changed. Whoever trained it.
    config : ``[freeze]`` says what becomes of it, with ``epochs`` of fine-tuning, 0 for none; of ``[train]`` the
        fine-tuning takes all but the learning rate.
    training, validation : encoded samples with labels. Membrane widths are those of the training samples, with a
        margin, unless configured; of all epochs that of the best validation accuracy is kept.
    coding : what the network's file is to say of its inputs; default: 'events', or 'current' of ``data.input_bits``.
    augmentation : random changes of training samples. earlier_epochs : of the training before, so that the samples get
        another order.

    Deterministic for a given seed. torch's number of threads is afterwards what it was before. Warns if the frozen
    network decides validation samples otherwise than the network in torch that it was made of. Raises InputError for
    samples that are not the network's, for epochs or a batch size that are still 'auto', and for weights that no
    integers of these widths can stand for.

    >>> import codesign, numpy as np
    >>> config = codesign.parse_config({
    ...     "network": {"hidden": [4], "timesteps": 3}, "freeze": {"epochs": 0},
    ...     "train": {"epochs": 1, "batch_size": 4, "threads": 1},
    ... })
    >>> samples = codesign.Stimulus.from_dense(np.arange(48).reshape(4, 3, 4) % 3 == 0, labels=[0, 1, 0, 1])
    >>> model = codesign.SpikingNetwork(4, 2, config.network, config.train)
    >>> frozen = codesign.freeze_model(model, config, samples, samples).network
    >>> frozen.n_inputs, frozen.n_outputs, frozen.timesteps, frozen.layers[0].weight_bits
    (4, 2, 3, 6)
    """
    if coding is None:
        coding = InputCoding("current", config.data.input_bits) if training.is_current else InputCoding("events")
    _check_samples(model, training, "training samples")
    _check_samples(model, validation, "validation samples")
    device = prepare(config.train.threads, device)
    quantised = QuantisedNetwork(model, config.freeze, coding).to(device)
    batches = Batches(training, 1.0, augmentation, device)
    _set_widths(quantised, config, batches, CALIBRATION_MARGIN)
    history = fine_tune(
        quantised,
        config.train,
        batches,
        Batches(validation, device=device),
        rate=config.freeze.learning_rate,
        epochs=settled(config.freeze.epochs, "freeze.epochs"),
        earlier_epochs=earlier_epochs,
        progress=progress,
        text="quantised, ",
    )
    whole = quantised.export(_set_widths(quantised, config, batches, FINAL_MARGIN))
    frozen = remove_dead_code(whole)
    removed = _removed(whole, frozen)
    without_path = _removed(whole, remove_dead_code(whole, silent=False))
    decisions = golden.run(frozen, validation, membranes=False, spikes=False).decisions
    if otherwise := decided_otherwise(quantised, Batches(validation, device=device), decisions):
        warnings.warn(
            f"the frozen network decides {otherwise:,} of {len(validation):,} validation samples otherwise than the "
            "network in torch that it was made of, by whose accuracy it was chosen. This is a fault of codesign: do "
            "not rely on the network, and please report it with its configuration",
            CodesignWarning,
            stacklevel=2,
        )
    return FrozenModel(
        frozen,
        history,
        {
            "neurons": [layer.n_out for layer in whole.layers],
            "synapses": [layer.n_synapses for layer in whole.layers],
            "removed_neurons": removed,
            # A layer that is dead for both reasons keeps one neuron, and it may be another one.
            "neurons_without_path": [min(pair) for pair in zip(without_path, removed, strict=True)],
            "removed_synapses": whole.n_synapses - frozen.n_synapses,
            "weights_rounded_to_zero": quantised.rounded_to_zero(),
        },
        [[int(scale.threshold.min()), int(scale.threshold.max())] for scale in quantised.scales],
        decisions,
    )


@torch.no_grad()
def decided_otherwise(quantised: QuantisedNetwork, samples: Batches, decisions: np.ndarray) -> int:
    """Samples for which the scores of ``quantised`` put another class before the one of ``decisions``, int (N,).

    The integers are the same; a score is a mean over T float values, so classes within 2 (T + 2) times its rounding of
    the largest of them count as level (https://en.wikipedia.org/wiki/Pairwise_summation#Accuracy, the naive sum).
    """
    quantised.eval()
    different = place = 0
    for inputs, labels in samples.ordered(EVALUATION_BATCH):
        output = quantised(inputs)
        scores, steps = output.scores.double(), output.step_scores
        level = (len(steps) + 2) * torch.finfo(steps.dtype).eps * steps.abs().amax().double()
        decided = torch.from_numpy(decisions[place : place + len(labels)].astype(np.int64)).to(scores.device)
        found = scores.gather(1, decided[:, None])[:, 0]
        different += int((scores.amax(1) > found + level).sum())
        place += len(labels)
    return different


def _removed(whole: FrozenNetwork, rest: FrozenNetwork) -> list[int]:
    """Neurons by which each layer of ``rest`` is smaller."""
    return [a.n_out - b.n_out for a, b in zip(whole.layers, rest.layers, strict=True)]


def _check_samples(model: SpikingNetwork, stimulus: Stimulus, where: str) -> None:
    """Raise InputError unless the samples are the network's, each with the label of a class."""
    stimulus.validate(where, model.plans[-1].size)
    for name, given, wanted in (
        ("inputs", stimulus.n_inputs, math.prod(model.in_shape)),
        ("timesteps", stimulus.timesteps, model.network.timesteps),
    ):
        if given != wanted:
            raise InputError(f"{where}: {given} {name}, the network has {wanted}")
    if not len(stimulus) or (stimulus.labels < 0).any():
        raise InputError(f"{where}: each needs a label, and there must be some")


def frozen_figures(network: FrozenNetwork, stimulus: Stimulus, trace: golden.Trace) -> dict[str, Any]:
    """Figures of a frozen network on labelled samples, from the golden model's trace of them."""
    return {
        "accuracy_frozen": _accuracy(trace.decisions, stimulus.labels),
        "balanced_accuracy": compare(stimulus.labels, trace.decisions, network.n_outputs).balanced,
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


def load_trained(config: Config, trained: TrainResult | str | Path, dataset: Dataset) -> SpikingNetwork:
    """The float network of a training result, run folder or checkpoint file.

    Raises InputError if it is not the configured network's, or of another training than the last checkpoint beside it.
    """
    if isinstance(trained, TrainResult):
        trained = trained.checkpoint
    tensors, _, path = checkpoint.load_chosen(Path(trained))
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
