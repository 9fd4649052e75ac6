"""Steps of the path that need several packages, from objects to objects; the stages are these in a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from codesign.basics.errors import UnsupportedError
from codesign.basics.progress import Progress, silent
from codesign.config import Config
from codesign.data.chance import Comparison, compare, compare_accuracy
from codesign.pipeline.budget import resolve_budget
from codesign.pipeline.findings import after_freezing, after_training, warn_of

if TYPE_CHECKING:
    from codesign.data import Dataset
    from codesign.quantise.freeze import FreezeResult
    from codesign.train import TrainResult


def train_network(
    config: Config, dataset: Dataset, folder: str | Path, *, progress: Progress = silent, device: str = "cpu"
) -> TrainResult:
    """Train the configured network on ``dataset``; its checkpoints are kept below ``folder``.

    What ``config`` leaves to the data ('auto') is chosen from them. A training that was stopped goes on after its last
    whole epoch, to the same weights. With a ``[budget]`` density falls until the network fits. ``progress(done, total,
    text)`` counts epochs; ``device`` is 'cpu', 'cuda', 'cuda:N' or 'auto'.

    Warns of a network that learnt nothing, with what to try. Raises InputError for options that contradict each other
    and for a loss that is no longer finite, UnsupportedError for what is not built or not there.

    >>> import codesign, numpy as np
    >>> np.savez("mine.npz", x=np.eye(4)[np.arange(200) % 4], y=np.arange(200) % 4)
    >>> config = codesign.parse_config({
    ...     "data": {"set": "npz", "path": "mine.npz"}, "network": {"hidden": [32], "timesteps": 4},
    ...     "train": {"epochs": 20, "batch_size": 16, "threads": 1, "rewiring": {"target_density": 0.4}},
    ...     "freeze": {"epochs": 1},
    ... })
    >>> dataset = codesign.load_dataset(config.data)
    >>> trained = codesign.train_network(config, dataset, "run")
    >>> len(trained.history), trained.checkpoint.name, trained.accuracy_validation > 0.25
    (20, 'best.safetensors', True)
    """
    from codesign.train import train

    result = train(config, dataset, folder, progress=progress, device=device, budget=resolve_budget(config))
    warn_of(after_training(config, result, validation_of(result, dataset)))
    return result


def freeze_network(
    config: Config,
    trained: TrainResult | str | Path,
    dataset: Dataset,
    *,
    progress: Progress = silent,
    device: str = "cpu",
) -> FreezeResult:
    """Quantise and fine-tune the chosen checkpoint of a training at fixed connections, and freeze it into integers.

    ``trained`` is a training's result, its folder or a checkpoint file. The test samples are read here, once, for the
    figures of the result. Deterministic for a given seed.

    Warns of a frozen network that is no better than guessing or of which a part is dead. Raises InputError if the
    checkpoint does not belong to the configured network, and UnsupportedError for a ``[budget]``, whose choice of bits
    and lanes goes back and forth between the stages of a run (:func:`run_pipeline`).

    Continued from :func:`train_network`:

    >>> frozen = codesign.freeze_network(config, trained, dataset)
    >>> frozen.network.n_outputs, len(frozen.test_stimulus), frozen.figures["accuracy_frozen"] > 0.25
    (4, 40, True)
    """
    if config.budget.active:
        raise UnsupportedError(
            "a [budget] is met by choosing bits and lanes over and over between the stages of a run; use run_pipeline"
        )
    from codesign.quantise.freeze import freeze

    result = freeze(config, trained, dataset, progress=progress, device=device)
    warn_of(after_freezing(config, result, test_of(result, dataset)))
    return result


def validation_of(result: TrainResult, dataset: Dataset) -> Comparison:
    """The chosen checkpoint's validation accuracy beside guessing."""
    return compare_accuracy(dataset.validation.labels, result.accuracy_validation, dataset.n_classes, dataset.classes)


def test_of(result: FreezeResult, dataset: Dataset) -> Comparison:
    """The frozen network's test accuracy beside guessing."""
    return compare(result.test_stimulus.labels, result.decisions, dataset.n_classes, dataset.classes)
