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

A sample of several classes (CutMix) has the mean of its classes' losses, by their shares and weights.

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
    """The configured loss, a scalar.

    ``target`` is int64 (B,), or the classes' shares, float (B, classes), each row with sum 1; ``class_weights`` is
    float (classes,).
    """
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


def greatest_class(target: Tensor) -> Tensor:
    """Labels (B,): those of ``target``, or the class of which each sample has most."""
    return target if target.dim() == 1 else target.argmax(1)


def sample_weights(target: Tensor, class_weights: Tensor) -> Tensor:
    """Weight of each sample (B,) by its class, or by the shares of its classes."""
    return class_weights[target] if target.dim() == 1 else target @ class_weights


def _loss(output: Output, target: Tensor, config: TrainConfig, class_weights: Tensor | None) -> Tensor:
    if config.loss == "count":
        counts = output.spikes[-1].float().mean(0)
        shares = F.one_hot(target, counts.shape[1]) if target.dim() == 1 else target
        if class_weights is not None:
            shares = F.normalize(shares * class_weights, p=1)
        right, wrong = ((counts - wanted) ** 2 for wanted in (config.count_correct, config.count_incorrect))
        return _mean(torch.lerp(wrong, right, shares.to(right.dtype)).mean(1), target, class_weights)
    if config.loss == "tet":
        steps = output.step_scores.float()
        repeated = target.repeat(len(steps), *(1,) * (target.dim() - 1))
        entropy = _cross_entropy(steps.flatten(0, 1), repeated, config, class_weights)
        distance = _mean(((steps - config.tet_mean) ** 2).mean((0, 2)), target, class_weights)
        return (1 - config.tet_lambda) * entropy + config.tet_lambda * distance
    scores = output.potentials.amax(0) if config.loss == "membrane" else output.scores
    return _cross_entropy(scores.float(), target, config, class_weights)


def _cross_entropy(scores: Tensor, target: Tensor, config: TrainConfig, class_weights: Tensor | None) -> Tensor:
    smoothing = config.label_smoothing
    if target.dim() == 1 or class_weights is None:
        return F.cross_entropy(scores, target, class_weights, label_smoothing=smoothing)
    # With shares torch divides by the number of samples, whatever they weigh.
    whole = F.cross_entropy(scores, target, class_weights, label_smoothing=smoothing, reduction="sum")
    return whole / sample_weights(target, class_weights).sum()


def _mean(values: Tensor, target: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean of a value per sample (B,), by the weights of their classes if there are any."""
    if class_weights is None:
        return values.mean()
    weight = sample_weights(target, class_weights)
    return (values * weight).sum() / weight.sum()
