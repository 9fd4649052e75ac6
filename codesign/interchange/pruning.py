"""A dense network made sparse: the smallest weights go, as many of each layer as the PQ index of its weights allows.

The index and the fraction are those of the rewiring in training (:mod:`codesign.basics.sparsity`), with its defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.basics.sparsity import apportion, pq_index, prunable_fraction
from codesign.config import RewiringConfig
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.quantise.integers import Change

Float = npt.NDArray[np.float64]
# Beside the one that was asked for; what the trade-off is drawn at.
DENSITIES = (1.0, 0.5, 0.25, 0.1, 0.05)


@dataclass(frozen=True)
class Pruned:
    """The sparse network, and by layer its weights before and after; identities are not counted and stay."""

    network: FloatNetwork
    weights: tuple[int, ...]
    kept: tuple[int, ...]
    changes: tuple[Change, ...]


def prune(network: FloatNetwork, density: float) -> Pruned:
    """The network with round(density x weights) of its weights, the largest of each layer; thresholds stay.

    density : 0..1, of the weights that are there. Every layer that has weights keeps one.

    Raises InputError for a density that is none, or leaves less than a weight for a layer.
    """
    if not 0 < density <= 1:
        raise InputError(f"density {density:g} is outside 0..1, or 0")
    magnitudes = [_magnitudes(layer) for layer in network.layers]
    sizes = [found.size for found in magnitudes]
    kept = shares(magnitudes, round(density * sum(sizes)))
    layers, changes = [], []
    for index, (layer, found, count) in enumerate(zip(network.layers, magnitudes, kept, strict=True)):
        stays = np.zeros(found.size, bool)
        stays[np.argsort(-found, kind="stable")[:count]] = True
        layers.append(_with_weights(layer, stays))
        lost = float(np.sqrt((found[~stays] ** 2).sum() / (found**2).sum())) if count < found.size else 0.0
        if count < found.size:
            text = f"{count} of {found.size} weights stay, the largest; {100 * lost:.2g} % of their size is lost"
            changes.append(Change(f"layer {index}" + (f" ({layer.name})" if layer.name else ""), "pruning", text, lost))
    return Pruned(network.with_layers(layers), tuple(sizes), tuple(kept), tuple(changes))


def at_densities(network: FloatNetwork, density: float) -> list[tuple[float, FloatNetwork]]:
    """The network at ``density`` and at those of a trade-off that leave each layer a weight, densest first."""
    sizes = [_magnitudes(layer).size for layer in network.layers]
    least = int(_least(sizes).sum())
    found = sorted({*DENSITIES, density}, reverse=True)
    return [(value, prune(network, value).network) for value in found if round(value * sum(sizes)) >= least]


def shares(magnitudes: Sequence[Float], total: int) -> list[int]:
    """How many of each layer's weights stay, together ``total``.

    In rounds: every layer loses the fraction that the PQ index of its largest weights, those that are left, allows; the
    last round is cut in proportion. Where no layer allows any more, all lose the same fraction.
    """
    config = RewiringConfig()
    descending = [-np.sort(-found) for found in magnitudes]
    counts = np.array([found.size for found in magnitudes], np.int64)
    least = _least(counts)
    if total < least.sum():
        raise InputError(f"{total} of {counts.sum()} weights are too few for {least.sum()} layers; raise the density")
    while (excess := int(counts.sum()) - total) > 0:
        fractions = [
            prunable_fraction(
                int(count), pq_index(found[:count], config.p, config.q),
                p=config.p, q=config.q, eta=config.rules.eta, gamma=config.gamma, beta=config.beta,
            )
            for found, count in zip(descending, counts, strict=True)
        ]  # fmt: skip
        room = counts - least
        losses = np.minimum(np.floor(counts * np.array(fractions)).astype(np.int64), room)
        if not losses.any():
            losses = room
        if losses.sum() > excess:
            wanted = losses * (excess / losses.sum())
            losses = np.array(apportion(wanted, excess, np.zeros_like(losses), losses))
        counts = counts - losses
    return counts.tolist()


def _least(sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Weights that each layer keeps at the least: one, if it has any."""
    return np.minimum(np.asarray(sizes, np.int64), 1)


def _magnitudes(layer: FloatLayer) -> Float:
    """Of the learned weights of all projections, one after the other."""
    learned = [np.abs(p.connections.weights) for p in layer.projections if not p.fixed]
    return np.concatenate(learned) if learned else np.zeros(0)


def _with_weights(layer: FloatLayer, stays: npt.NDArray[np.bool_]) -> FloatLayer:
    projections, start = [], 0
    for projection in layer.projections:
        if not projection.fixed:
            weights = projection.connections.weights
            chosen = stays[start : start + weights.size]
            start += weights.size
            connections = projection.connections.with_weights(np.where(chosen, weights, 0.0))
            projection = replace(projection, connections=connections)
        projections.append(projection)
    return replace(layer, projections=tuple(projections))
