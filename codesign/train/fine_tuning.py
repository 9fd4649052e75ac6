"""Training a network a few epochs further at fixed connections: quantised, or one of another framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from codesign.basics.progress import News, Progress, silent
from codesign.config import TrainConfig
from codesign.data.automatic import settled
from codesign.train.architecture import LayerPlan
from codesign.train.batches import Batches
from codesign.train.loop import EVALUATION_BATCH, class_weights, evaluate, learning_rate, make_optimizer, rank
from codesign.train.losses import total_loss


def fine_tune(
    model: nn.Module,
    options: TrainConfig,
    training: Batches,
    validation: Batches,
    *,
    rate: float,
    epochs: int,
    earlier_epochs: int = 0,
    progress: Progress = silent,
    text: str = "",
) -> list[dict[str, Any]]:
    """Train ``model`` (anything with the interface of SpikingNetwork) and leave it with its best epoch's weights.

    options : loss, optimiser, batch size and seed. rate : the highest learning rate.
    earlier_epochs : of the training before, so that the samples get another order.
    validation : samples whose accuracy chooses the epoch. text : what the progress is of.

    Returns a row per epoch, 0 being the model as it came: ``epoch``, ``validation_accuracy`` 0..1, ``validation_loss``,
    ``synaptic_operations_per_sample``.
    """
    plans: Sequence[LayerPlan] = model.plans  # type: ignore[assignment]
    weights = class_weights(training.stimulus.labels, plans[-1].size, options.class_balance, training.device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(options, parameters, rate)
    batch_size = settled(options.batch_size, "train.batch_size")
    per_epoch = -(-len(training) // batch_size)
    steps = per_epoch * epochs
    step, news = 0, News()
    history: list[dict[str, Any]] = []
    best: tuple[bool, float, float] | None = None
    state: dict[str, torch.Tensor] = {}
    for epoch in range(epochs + 1):
        if epoch:
            # Epoch numbers after those of the training before, so that the order of samples is a new one.
            for batch, (inputs, target) in enumerate(training.epoch(batch_size, options.seed, earlier_epochs + epoch)):
                if batch and news.due():
                    progress(epoch - 1 + batch / per_epoch, epochs, f"{text}epoch {epoch} of {epochs}")
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(rate, step, steps)
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
        if best is None or rank(history[-1]) > best:
            best = rank(history[-1])
            state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        progress(
            epoch,
            epochs,
            f"{text}epoch {epoch} of {epochs}, loss {found.loss:.3f}, validation {100 * found.accuracy:.2f} %, "
            f"operations {operations:,.0f}",
        )
    model.load_state_dict(state)
    return history
