"""What is said of a network that did not learn, or has lost what it needs: one line each, with what to try next."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from codesign.basics.errors import CodesignWarning
from codesign.config import Config
from codesign.data.chance import Comparison

if TYPE_CHECKING:
    from codesign.quantise.freeze import FreezeResult
    from codesign.train import TrainResult

# Fewer optimiser steps than this are likely too few.
FEW_STEPS = 1000
# Work beyond the target that is said: the target is drawn to, by batches, and not a limit.
EXCESS = 0.1


class ResultWarning(CodesignWarning):
    """A network is no better than guessing, or a part of it does nothing."""


def warn_of(findings: Iterable[str]) -> None:
    for text in findings:
        # Of whoever has the network trained or frozen.
        warnings.warn(text, ResultWarning, stacklevel=3)


def after_training(config: Config, result: TrainResult, validation: Comparison) -> Iterator[str]:
    """What is wrong with a trained network, judged by the validation samples."""
    if validation.within_noise:
        yield f"{validation.sentence('validation accuracy')}; {_cures(config, result.steps)}"
    names = layer_names(len(result.layer_density))
    for name, density in zip(names, result.layer_density, strict=True):
        if density == 0:
            yield f"layer {name} has no connection left; raise train.rewiring.target_density or min_fan_in"
    spikes = [layer["spikes_per_sample"] for layer in result.chosen["layers"]]
    yield from _silent(config, names, spikes, "validation")


def after_freezing(config: Config, result: FreezeResult, test: Comparison) -> Iterator[str]:
    """What is wrong with a frozen network, judged by what was measured of it at the end."""
    if test.within_noise:
        yield f"{test.sentence('test accuracy of the frozen network')}; {_cures(config, None)}"
    wrong = [row["epoch"] for row in result.details["fine_tuning"] if not math.isfinite(row["validation_loss"])]
    if wrong:
        yield (
            f"the loss of the fine-tuning in integers is not finite in epoch {wrong[0]}; the best weights before it "
            f"were kept; lower freeze.learning_rate (now {config.freeze.learning_rate:g})"
        )
    layers = result.network.layers
    names = layer_names(len(layers))
    bits = config.freeze.weight_bits
    for name, layer, lost in zip(names, layers, result.details["weights_rounded_to_zero"], strict=True):
        if layer.n_synapses == 0:
            reason = f"{lost} weights round to 0 in {bits} bits; " if lost else ""
            yield (
                f"layer {name} has no synapse left: {reason}raise freeze.weight_bits or train.rewiring.target_density"
            )
    removed, neurons = result.details["removed_neurons"], result.details["neurons"]
    for name, gone, count in zip(names, removed, neurons, strict=True):
        if gone and gone == count - 1:
            yield (
                f"layer {name} is dead: of its {count} neurons {gone} were removed because they never fire or reach "
                "nothing, and one is kept for form"
            )
    target, operations = config.train.operations_target, result.figures["synaptic_operations_per_sample"]
    if target is not None and operations > (1 + EXCESS) * target:
        yield (
            f"the frozen network takes {operations:,.0f} synaptic operations per test sample, "
            f"{operations / target - 1:.0%} more than train.operations_target = {target:,.0f}; raise "
            f"train.operations_weight (now {config.train.operations_weight:g}) or train.epochs, or lower "
            "train.rewiring.target_density"
        )
    yield from _silent(config, names, result.figures["spikes_per_sample"], "test")


def layer_names(count: int) -> list[str]:
    """'hidden 1', ..., 'output'."""
    return [*(f"hidden {index + 1}" for index in range(count - 1)), "output"]


def _silent(config: Config, names: list[str], spikes: list[float], samples: str) -> Iterator[str]:
    """Hidden layers that never fire; a last layer that is read by its spikes likewise."""
    fires = len(names) if config.network.readout == "spike_count" else len(names) - 1
    for name, count in list(zip(names, spikes, strict=True))[:fires]:
        if not np.any(count):
            yield (
                f"layer {name} never fires on the {samples} samples, so its output is the same for every input; "
                "check that the inputs use their scale (`range` of the file, data.step_ms of events), lower "
                "train.learning_rate or raise train.rewiring.target_density"
            )


def _cures(config: Config, steps: int | None) -> str:
    """What to try where a network has not learnt, likeliest first."""
    options = config.train
    cures = []
    if steps is not None and steps < FEW_STEPS:
        cures.append(f"more optimiser steps ({steps:,} so far: raise train.epochs or lower train.batch_size)")
    cures.append(f"another train.learning_rate (now {options.learning_rate:g})")
    if config.network.readout == "spike_count":
        cures.append("network.readout = 'membrane_sum'")
    cures.append("check that labels and samples belong together and that the inputs use their scale (`range`)")
    return "try " + ", ".join(cures)
