"""What training minimises, as a function of a network's output.

With B samples, T timesteps, classes k and y the right class; means over samples are weighted by class where
``class_weights`` are given:

rate      cross-entropy of the readout's scores, softmax(scores)_y.
count     mean over samples and classes of (spikes of k / T - target)^2, target ``count_correct`` for y, else
          ``count_incorrect`` (the spike-count loss of SLAYER: Shrestha and Orchard, NeurIPS 2018; here per timestep).
membrane  cross-entropy of the last layer's greatest membrane potential, max over t of u (max-over-time loss: Cramer et
          al., IEEE TNNLS 33(7), 2022).
tet       (1 - lambda) mean over t of the cross-entropy at t + lambda mean over t, samples and classes of
          (score at t - tet_mean)^2 (temporal efficient training: Deng et al., ICLR 2022).

With ``activity_target`` r each adds ``activity_weight`` times the mean over the hidden layers of
(mean spikes per neuron and timestep - r)^2, and with ``operations_target`` N ``operations_weight`` times
max(0, ln(synaptic operations per sample / N)), of the samples at hand: under torchrun those of each process.
Operations are events of each source times its fan-out in the network as it is now
(:func:`codesign.train.model.activity`), so that a spike is the dearer the more connections it walks. By the logarithm
the term asks for the same relative change at any distance; it is silent at the target and below.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.config import TrainConfig
from codesign.train.model import Output


def total_loss(output: Output, target: Tensor, config: TrainConfig, class_weights: Tensor | None = None) -> Tensor:
    """The configured loss, a scalar. ``target`` is int64 (B,), ``class_weights`` float (classes,)."""
    loss = _loss(output, target, config, class_weights)
    hidden = output.spikes[:-1]
    if config.activity_target is not None and hidden:
        rates = torch.stack([spikes.mean() for spikes in hidden])
        loss = loss + config.activity_weight * ((rates - config.activity_target) ** 2).mean()
    if config.operations_target is not None:
        operations = output.activity().operations.sum() / len(target)
        excess = torch.log((operations / config.operations_target).clamp(min=1))
        loss = loss + config.operations_weight * excess.to(loss.dtype)
    return loss


def _loss(output: Output, target: Tensor, config: TrainConfig, class_weights: Tensor | None) -> Tensor:
    if config.loss == "count":
        counts = output.spikes[-1].float().mean(0)
        wanted = torch.full_like(counts, config.count_incorrect)
        wanted.scatter_(1, target[:, None], config.count_correct)
        return _mean(((counts - wanted) ** 2).mean(1), target, class_weights)
    smoothing = config.label_smoothing
    if config.loss == "tet":
        steps = output.step_scores.float()
        repeated = target.repeat(len(steps))
        entropy = F.cross_entropy(steps.flatten(0, 1), repeated, class_weights, label_smoothing=smoothing)
        distance = _mean(((steps - config.tet_mean) ** 2).mean((0, 2)), target, class_weights)
        return (1 - config.tet_lambda) * entropy + config.tet_lambda * distance
    scores = output.potentials.amax(0) if config.loss == "membrane" else output.scores
    return F.cross_entropy(scores.float(), target, class_weights, label_smoothing=smoothing)


def _mean(values: Tensor, target: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean of a value per sample (B,), by the weights of their classes if there are any."""
    if class_weights is None:
        return values.mean()
    weight = class_weights[target]
    return (values * weight).sum() / weight.sum()
