"""The sparse start: how many connections each weight tensor gets, and which."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from codesign.basics.errors import InputError
from codesign.basics.sparsity import apportion
from codesign.config import RewiringConfig
from codesign.train.rewiring.balance import balanced_mask, can_balance, strongest_first
from codesign.train.rewiring.selection import Bool, Layout, Values

# Layers, by index, with the number of connections that they must come down to together.
Target = tuple[list[int], int]


def layer_counts(
    shapes: Sequence[Sequence[int]],
    density: float,
    distribution: str,
    min_fan_in: int = 0,
    present: Sequence[int] | None = None,
) -> list[int]:
    """Active weights of each tensor (first axis = neurons), together exactly round(density * all weights).

    ``erdos-renyi``: density of a tensor = min(1, eps * sum(shape) / prod(shape)), which for a matrix is
    eps (n_in + n_out) / (n_in n_out) and for a convolution has the kernel's sides beside them (Evci et al., ICML 2020);
    eps by bisection. ``uniform``: the same density everywhere. Fractions are rounded by largest remainder. Every tensor
    gets at least min_fan_in per neuron first; what tensors of a smaller share get by that, the others have less, in
    equal numbers and not in proportion to their shares. Of a network that has connections already, ``present`` of each
    tensor and together no more than these, each tensor gets as many as it has first. InputError if the density does not
    allow min_fan_in.
    """
    sizes = np.array([math.prod(shape) for shape in shapes], np.int64)
    total = round(density * int(sizes.sum()))
    floor = np.array([shape[0] * min(math.prod(shape[1:]), min_fan_in) for shape in shapes], np.int64)
    if total < floor.sum():
        raise InputError(
            f"rewiring: a density of {density:g} is {total} connections, too few for min_fan_in = {min_fan_in} "
            f"({floor.sum()})"
        )
    if present is not None and (both := np.maximum(floor, np.array(present, np.int64))).sum() <= total:
        floor = both
    if distribution == "uniform":
        wanted = sizes * density
    else:
        raw = np.array([sum(shape) / math.prod(shape) for shape in shapes])
        low, high = 0.0, float(1 / raw.min())
        for _ in range(200):
            middle = (low + high) / 2
            if float((np.minimum(1, middle * raw) * sizes).sum()) < total:
                low = middle
            else:
                high = middle
        wanted = np.minimum(1, high * raw) * sizes
    return apportion(np.maximum(wanted, floor), total, floor, sizes)


def first_mask(
    shape: Sequence[int],
    count: int,
    min_fan_in: int,
    generator: np.random.Generator,
    magnitudes: Values | None = None,
) -> Bool:
    """Mask with exactly ``count`` connections, at least min_fan_in of them per index of the first axis.

    They are random, or those of the greatest ``magnitudes`` (neurons, weights of each).
    """
    scores = strongest_first(magnitudes, (shape[0], math.prod(shape[1:])), generator)
    fan_in = min(min_fan_in, scores.shape[1])
    mask = np.zeros(scores.shape, bool)
    if fan_in:
        np.put_along_axis(mask, np.argsort(scores, axis=1, kind="stable")[:, :fan_in], True, axis=1)
    rest = np.where(mask.ravel(), np.inf, scores.ravel())
    mask.ravel()[np.argsort(rest, kind="stable")[: count - int(mask.sum())]] = True
    return mask.reshape(tuple(shape))


def target_groups(config: RewiringConfig, layout: Layout, names: Sequence[str]) -> list[Target]:
    """Groups of layers with the number of connections that each must come down to.

    names : of the layers, as ``layer_target`` may name them. InputError for a layer that is not there or named twice,
    and for a target too low for min_fan_in.
    """
    sizes = layout.sizes
    if config.preset == "dense":
        return [(list(range(len(sizes))), sum(sizes))]
    named: dict[int, float] = {}
    for key, density in config.layer_target.items():
        index = int(key) if key.isdecimal() else list(names).index(key) if key in names else len(sizes)
        if index >= len(sizes):
            raise InputError(
                f"rewiring: layer_target: no layer {key!r}; layers are 0..{len(sizes) - 1}, by name {', '.join(names)}"
            )
        if index in named:
            raise InputError(
                f"rewiring: layer_target names layer {index} ({names[index]}) twice, once as {key!r}; leave one out"
            )
        named[index] = density
    groups = [([layer], density) for layer, density in sorted(named.items())]
    rest = [layer for layer in range(len(sizes)) if layer not in named]
    if rest and config.lands == "distribution" and config.rules.falls:
        shapes = [layout.shapes[layer] for layer in rest]
        found = layer_counts(shapes, config.target_density, config.distribution, config.min_fan_in)
        groups += [([layer], count / sizes[layer]) for layer, count in zip(rest, found, strict=True)]
    elif rest:
        groups.append((rest, config.target_density))
    result = []
    for members, density in groups:
        total = round(density * sum(sizes[layer] for layer in members))
        rows = [layout.rows[layer] for layer in members]
        least = sum(neurons * min(columns, config.min_fan_in) for neurons, columns in rows)
        if total < least:
            raise InputError(
                f"rewiring: a density of {density:g} leaves layers {members} {total} connections, too few "
                f"for min_fan_in = {config.min_fan_in} ({least})"
            )
        result.append((members, total))
    return result


def first_masks(
    config: RewiringConfig,
    layout: Layout,
    targets: Sequence[Target],
    seed: int,
    magnitudes: Sequence[Values] | None = None,
) -> list[Bool]:
    """The mask that each tensor starts with: drawn, or the strongest by the ``magnitudes`` of each tensor.

    Those that are not 0 are all kept where the density allows it. InputError if a layer would have to rise to its
    target.
    """
    shapes = layout.shapes
    present = None if magnitudes is None else [int(np.count_nonzero(values)) for values in magnitudes]
    if config.preset == "dense":
        counts = list(layout.sizes)
    elif config.rules.falls:
        counts = layer_counts(shapes, config.start_density, config.distribution, config.min_fan_in, present)
        for members, target in targets:
            if (start := sum(counts[layer] for layer in members)) < target:
                raise InputError(
                    f"rewiring: layers {members} start with {start} connections, fewer than their target of "
                    f"{target}; raise start_density or lower layer_target"
                )
    else:
        counts = [0] * len(shapes)
        for members, target in targets:
            chosen = [shapes[layer] for layer in members]
            density = target / sum(math.prod(shape) for shape in chosen)
            there = None if present is None else [present[layer] for layer in members]
            found = layer_counts(chosen, density, config.distribution, config.min_fan_in, there)
            for layer, count in zip(members, found, strict=True):
                counts[layer] = count
    random = np.random.default_rng([seed, 3])

    masks = []
    for layer, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
        given = None if magnitudes is None else magnitudes[layer].reshape(layout.rows[layer])
        if config.lane_balance is not None and can_balance(shape, config.lane_balance):
            masks.append(balanced_mask(shape, count, config.min_fan_in, config.lane_balance, random, given))
        else:
            masks.append(first_mask(shape, count, config.min_fan_in, random, given))
    return masks
