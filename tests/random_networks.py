"""Random frozen networks and stimuli that reach every option of the integer contract.

Used as an oracle's input by the tests of the golden model, the RTL and the testbench. Everything is drawn
from the generator that is passed in, so a seed reproduces a case.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codesign.contract.network import (
    CodingKind,
    CompareKind,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    ReadoutKind,
    ResetKind,
    signed_width,
)
from codesign.contract.stimulus import Stimulus
from codesign.machine.choices import DEFAULTS, Choices, Pipeline
from codesign.machine.encoding import ROW_GROUPS, Encoding
from codesign.machine.mapping import HardwareMap, LayerMap

RESETS: tuple[ResetKind, ...] = ("subtract", "zero", "value", "none")
COMPARES: tuple[CompareKind, ...] = (">=", ">")
CODINGS: tuple[CodingKind, ...] = ("current", "rate", "latency", "events", "delta")
READOUTS: tuple[ReadoutKind, ...] = ("spike_count", "membrane_last", "membrane_sum", "membrane_max")


def random_leak(rng: np.random.Generator, n: int | None = None) -> Leak:
    """A leak of any kind, its extremes (forget all, forget nothing) included.

    n : neurons, or channels, that may have numbers of their own: shifts, multipliers or both; None for one leak.
    """
    kind = rng.choice(["none", "shift", "multiply"])
    if kind == "none":
        return Leak()
    if n is not None and rng.random() < 0.5:
        shift = rng.integers(0, int(rng.choice([2, 9, 25])), n)
        if kind == "shift":
            return Leak("shift", shift)
        one = int(shift.max()) if rng.random() < 0.3 else shift
        multiplier = rng.integers(0, (1 << np.broadcast_to(one, n)) + 1)
        return Leak("multiply", one, int(multiplier.min()) if rng.random() < 0.3 else multiplier)
    if kind == "shift":
        return Leak("shift", int(rng.integers(0, 9)))
    shift = int(rng.integers(0, 9))
    return Leak("multiply", shift, int(rng.choice([0, 1 << shift, int(rng.integers(0, (1 << shift) + 1))])))


def random_terms(rng: np.random.Generator, layer: FrozenLayer, *, spiking: bool = True) -> FrozenLayer:
    """The layer, perhaps with a delayed reset or a refractory period, a synaptic current, or both.

    Drawn from a generator of its own, so that all else is what it is without terms. A layer that does not spike needs
    widths that its bounds fit into (:func:`fitted`).
    """
    (rng,) = rng.spawn(1)
    if spiking and rng.random() < 0.3:
        layer = replace(layer, reset="subtract", reset_value=0, reset_delay=True)
    if rng.random() < 0.3:
        width = int(rng.integers(2, 7)) if rng.random() < 0.4 else int(rng.integers(8, 24))
        layer = replace(layer, current_leak=random_leak(rng, layer.n_out), current_width=width)
    if spiking and not layer.reset_delay and rng.random() < 0.3:
        layer = replace(layer, refractory=int(rng.integers(1, 5)))
    return layer


def fitted(layer: FrozenLayer, timesteps: int, source_max: int, spare: int = 0) -> FrozenLayer:
    """A layer that integrates, with the fewest bits in which it cannot saturate, the membrane with ``spare`` more."""
    width = signed_width(*layer.unsaturated_range(timesteps, source_max))
    layer = replace(layer, membrane_width=max(2, width + spare))
    if not layer.has_current:
        return layer
    return replace(layer, current_width=max(2, signed_width(*layer.unsaturated_current_range(timesteps, source_max))))


def random_layer(
    rng: np.random.Generator, n_in: int, n_out: int, *, source_max: int, timesteps: int, membrane_readout: bool
) -> FrozenLayer:
    """One layer; ``membrane_readout`` makes it a last layer that integrates and cannot saturate."""
    bits = int(rng.integers(2, 9))
    limit = (1 << (bits - 1)) - 1
    density = float(rng.choice([0.0, 0.05, 0.1, 0.3, 0.6, 1.0], p=[0.05, 0.2, 0.25, 0.25, 0.15, 0.1]))
    if rng.random() < 0.2:
        weights = rng.choice([-limit, limit], (n_in, n_out))
    else:
        weights = rng.integers(-limit, limit + 1, (n_in, n_out))
    weights = weights * (rng.random((n_in, n_out)) < density)
    fraction_bits = int(rng.choice([0, 0, 1, 3, 6, 10]))
    scale = max(1, limit * source_max) << fraction_bits
    threshold: int | np.ndarray
    bias: int | np.ndarray
    match rng.integers(0, 6):
        case 0:
            threshold = int(rng.choice([0, -1, 1, -scale, 1 << 40, -(1 << 40)]))
        case 1 | 2:
            threshold = int(rng.integers(1, 2 * scale + 2))
        case _:
            threshold = rng.integers(-scale // 8, 2 * scale + 2, n_out)
    match rng.integers(0, 4):
        case 0:
            bias = 0
        case 1:
            bias = int(rng.integers(-scale, scale + 1))
        case _:
            bias = rng.integers(-scale // 2, scale // 2 + 1, n_out)
    width = int(rng.integers(2, 7)) if rng.random() < 0.4 else int(rng.integers(8, 24))
    reset: ResetKind = "none" if membrane_readout else RESETS[rng.integers(0, 4)]
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    layer = FrozenLayer.from_dense(
        weights,
        threshold=threshold,
        bias=bias,
        leak=random_leak(rng, n_out),
        reset=reset,
        reset_value=int(rng.integers(low, high + 1)) if reset == "value" else 0,
        compare=COMPARES[rng.integers(0, 2)],
        fraction_bits=fraction_bits,
        membrane_width=width,
        weight_bits=bits,
    )
    layer = random_terms(rng, layer, spiking=not membrane_readout)
    return fitted(layer, timesteps, source_max, int(rng.integers(0, 2))) if membrane_readout else layer


def random_network(
    rng: np.random.Generator, *, max_width: int = 70, max_layers: int = 4, coding: CodingKind | None = None
) -> FrozenNetwork:
    """A valid network of depth 1..max_layers and widths 1..max_width."""
    kind = CODINGS[rng.choice(5, p=[0.4, 0.15, 0.15, 0.15, 0.15])] if coding is None else coding
    input_bits = int(rng.integers(1, 9)) if kind == "current" else 0
    timesteps = int(rng.choice([1, 2, 3, 4, 5, 8]))
    readout = READOUTS[rng.choice(4, p=[0.4, 0.2, 0.2, 0.2])]
    depth = int(rng.integers(1, max_layers + 1))
    special = [width for width in (1, 2, 8, 16, 17, 64, 65) if width <= max_width]
    widths = [
        int(rng.choice(special)) if rng.random() < 0.25 else int(rng.integers(1, max_width + 1))
        for _ in range(depth + 1)
    ]
    layers = tuple(
        random_layer(
            rng,
            widths[index],
            widths[index + 1],
            source_max=(1 << input_bits) - 1 if index == 0 and kind == "current" else 1,
            timesteps=timesteps,
            membrane_readout=index == depth - 1 and readout != "spike_count",
        )
        for index in range(depth)
    )
    network = FrozenNetwork(layers, timesteps, InputCoding(kind, input_bits), readout)
    network.validate()
    return network


def random_lanes(rng: np.random.Generator, network: FrozenNetwork, most: int = 16) -> list[int]:
    """Lanes of each layer, 1..most; some exceed the layer's width, which the mapper clamps."""
    return [int(rng.integers(1, most + 1)) for _ in network.layers]


def random_stimulus(rng: np.random.Generator, network: FrozenNetwork, n: int) -> Stimulus:
    """``n`` samples of the network's coding: some silent, some full, most in between."""
    activity = rng.choice([0.0, 0.05, 0.3, 0.6, 1.0], n, p=[0.1, 0.25, 0.3, 0.25, 0.1])
    labels = rng.integers(0, network.n_outputs, n).astype(np.int32)
    if network.coding.is_current:
        limit = network.source_max(0)
        values = rng.integers(0, limit + 1, (n, network.n_inputs))
        values[rng.random(n) < 0.1] = limit
        values = values * (rng.random((n, network.n_inputs)) < activity[:, None])
        stimulus = Stimulus(network.n_inputs, network.timesteps, labels, values=values.astype(np.uint8))
    else:
        shape = (n, network.timesteps, network.n_inputs)
        stimulus = Stimulus.from_dense(rng.random(shape) < activity[:, None, None], labels)
    stimulus.validate()
    return stimulus


def random_lean(rng: np.random.Generator, network: FrozenNetwork, choices: Choices = DEFAULTS) -> Choices:
    """The choices, perhaps with lock step and a short pipeline, and without FIFOs, output spikes or both."""
    lockstep = bool(rng.random() < 0.6)
    pipeline: Pipeline = "short" if rng.random() < 0.5 else "deep"
    counts = network.readout == "spike_count"
    spike_fifos, output_spikes = bool(rng.random() < 0.3), not counts or bool(rng.random() < 0.4)
    return replace(choices, lockstep=lockstep, pipeline=pipeline, spike_fifos=spike_fifos, output_spikes=output_spikes)


def random_variant(rng: np.random.Generator, mapping: HardwareMap) -> HardwareMap:
    """The mapping with any pipeline and encoding in each engine."""

    def variant(layers: tuple[LayerMap, ...]) -> tuple[LayerMap, ...]:
        held = np.unique(np.concatenate([weights for layer in layers for weights in layer.synapse_weight]))
        gap_bits = int(rng.integers(0, 5)) or None
        book = tuple(held.tolist()) if rng.random() < 0.5 and held.size > 0 else None
        encoding = Encoding(int(rng.choice(ROW_GROUPS)), gap_bits, book)
        pipeline: Pipeline = "short" if rng.random() < 0.6 else "deep"
        return tuple(replace(layer, encoding=encoding, pipeline=pipeline) for layer in layers)

    return replace(mapping, layers=tuple(layer for engine in mapping.engines for layer in variant(engine.layers)))
