"""Random small networks with convolutions, pooling, residual and recurrent connections, leaks per neuron,
delayed resets and synaptic currents.

Everything is drawn from the generator that is passed in, so a seed reproduces a case.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from random_networks import CODINGS, COMPARES, READOUTS, RESETS, fitted, random_leak, random_terms

from codesign.contract.network import (
    INPUT,
    OWN,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Projection,
    ReadoutKind,
    SumPool,
    Synapses,
)

Shape = tuple[int, int, int]


def random_weights(rng: np.random.Generator, shape: tuple[int, ...], limit: int) -> np.ndarray:
    """Sparse to full integers in +-limit."""
    density = rng.choice([0.0, 0.1, 0.3, 0.6, 1.0], p=[0.05, 0.2, 0.3, 0.3, 0.15])
    return rng.integers(-limit, limit + 1, shape) * (rng.random(shape) < density)


def random_convolution(
    rng: np.random.Generator,
    in_shape: Shape,
    limit: int,
    out_shape: Shape | None = None,
    *,
    kernel: int = 3,
    channels: int = 3,
) -> Convolution:
    """A convolution of any kernel, stride and padding that fits; one to ``out_shape`` keeps height and width."""
    if out_shape is not None:
        size = int(rng.choice([1, 3]))
        return Convolution.from_dense(
            random_weights(rng, (out_shape[0], in_shape[0], size, size), limit), in_shape, 1, size // 2
        )
    height, width = (int(rng.integers(1, min(kernel, size) + 1)) for size in in_shape[1:])
    return Convolution.from_dense(
        random_weights(rng, (int(rng.integers(1, channels + 1)), in_shape[0], height, width), limit),
        in_shape,
        int(rng.integers(1, 4)),
        int(rng.integers(0, max(height, width))),
    )


def random_structure(
    rng: np.random.Generator,
    *,
    chain: bool = False,
    side: int = 5,
    kernel: int = 3,
    channels: int = 3,
) -> FrozenNetwork:
    """A valid network of 1 to 4 layers on a picture of up to 2 inputs x ``side`` x ``side``.

    chain : each layer has one projection from the one before. kernel, channels : of a convolution, at most.
    """
    kind = CODINGS[rng.choice(5, p=[0.4, 0.15, 0.15, 0.15, 0.15])]
    input_bits = int(rng.integers(1, 9)) if kind == "current" else 0
    timesteps = int(rng.integers(1, 6))
    readout = READOUTS[rng.choice(4, p=[0.4, 0.2, 0.2, 0.2])]
    picture: Shape = (int(rng.integers(1, 3)), int(rng.integers(2, side + 1)), int(rng.integers(2, side + 1)))
    shapes: dict[int, Shape | None] = {INPUT: picture}
    sizes = {INPUT: prod(picture)}
    depth = int(rng.integers(1, 5))
    layers: list[FrozenLayer] = []
    for index in range(depth):
        silent = index == depth - 1 and readout != "spike_count"
        bits = int(rng.integers(2, 9))
        limit = (1 << (bits - 1)) - 1
        shape = shapes[index - 1]
        pool = None
        if shape is not None and rng.random() < 0.4:
            pool = SumPool(shape, int(rng.integers(1, min(shape[1:]) + 1)))
        seen = shape if pool is None else pool.out_shape
        if seen is not None and rng.random() < 0.6:
            first = random_convolution(rng, seen, limit, kernel=kernel, channels=channels)
            shapes[index] = first.out_shape
        else:
            n_in = sizes[index - 1] if pool is None else pool.n_out
            n_out = int(rng.integers(1, 9))
            first = Synapses.from_dense(random_weights(rng, (n_in, n_out), limit))
            # Single synapses may form a picture too.
            shapes[index] = (n_out // 4, 2, 2) if chain and n_out % 4 == 0 else None
        sizes[index] = first.n_out
        projections = [
            Projection(index - 1, first, pool),
            *(() if chain else more_projections(rng, index, shapes, sizes, limit, recurrent=not silent)),
        ]
        layers.append(
            random_population(
                rng,
                projections,
                shapes[index],
                bits,
                silent,
                timesteps,
                (1 << max(1, input_bits)) - 1,
            )
        )
    network = FrozenNetwork(tuple(layers), timesteps, InputCoding(kind, input_bits), readout)
    network.validate()
    return network


def random_covered(rng: np.random.Generator, **sizes: Any) -> FrozenNetwork:
    """A network of any structure that hardware covers."""
    while True:
        network = random_structure(rng, **sizes)
        if network.hardware_support() is None:
            return network


def more_projections(
    rng: np.random.Generator,
    index: int,
    shapes: dict[int, Shape | None],
    sizes: dict[int, int],
    limit: int,
    *,
    recurrent: bool,
) -> list[Projection]:
    """Residual, skipping and recurrent projections to layer ``index``."""
    found = []
    shape, n_out = shapes[index], sizes[index]
    source = int(rng.integers(INPUT, index))
    if rng.random() < 0.5:
        if shape is not None and shapes[source] == shape:
            found.append(Projection.identity(source, shape, int(rng.integers(1, limit + 1))))
        elif rng.random() < 0.5:
            found.append(Projection(source, Synapses.from_dense(random_weights(rng, (sizes[source], n_out), limit))))
    if recurrent and rng.random() < 0.5:
        if shape is not None and rng.random() < 0.7:
            found.append(Projection(OWN, random_convolution(rng, shape, limit, shape)))
        else:
            found.append(Projection(OWN, Synapses.from_dense(random_weights(rng, (n_out, n_out), limit))))
    return found


def random_population(
    rng: np.random.Generator,
    projections: list[Projection],
    shape: Shape | None,
    bits: int,
    silent: bool,
    timesteps: int,
    source_max: int,
) -> FrozenLayer:
    """A layer with these projections; ``silent`` makes it a last one that integrates and cannot saturate."""
    n_out = projections[0].connections.n_out
    limit = (1 << (bits - 1)) - 1
    fraction_bits = int(rng.choice([0, 0, 1, 4]))
    scale = limit << fraction_bits
    # Of a picture each channel may have its own, or each neuron.
    leak = random_leak(rng, shape[0] if shape is not None and rng.random() < 0.5 else n_out)
    width = int(rng.integers(3, 18))
    reset = "none" if silent else RESETS[rng.integers(0, 4)]
    layer = FrozenLayer.from_projections(
        projections,
        shape=shape,
        threshold=rng.integers(1, 2 * scale + 2, n_out if rng.random() < 0.7 else ()),
        bias=rng.integers(-scale // 4, scale // 2 + 1, n_out if rng.random() < 0.7 else ()),
        leak=leak,
        reset=reset,
        reset_value=int(rng.integers(-(1 << (width - 1)), 1 << (width - 1))) if reset == "value" else 0,
        compare=COMPARES[rng.integers(0, 2)],
        fraction_bits=fraction_bits,
        membrane_width=width,
        weight_bits=bits,
    )
    layer = random_terms(rng, layer, spiking=not silent)
    return fitted(layer, timesteps, source_max) if silent else layer


def picture_of_classes(readout: ReadoutKind = "spike_count") -> FrozenNetwork:
    """Two inputs, four classes: two channels of a picture of two places. Both channels fire at both places, or else
    membranes fall, each at its own pace."""
    fires = readout == "spike_count"
    weights = np.array([3, 2] if fires else [1, -2]).reshape(2, 1, 1, 1)
    layer = FrozenLayer.from_projections(
        [Projection(INPUT, Convolution.from_dense(weights, (1, 1, 2), 1, 0))],
        threshold=3,
        bias=np.array([0, 0, 0, 0] if fires else [-20, -40, -30, -50]),
        membrane_width=16,
        reset="subtract" if fires else "none",
    )
    return FrozenNetwork((layer,), 4, InputCoding("events"), readout)
