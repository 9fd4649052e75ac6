"""Seeded random machines, small enough to be synthesised in seconds: what estimates of logic are fitted on and held
against.

Every kind of network that hardware covers, every goal and every choice occurs. A number stands for a machine; what it
is follows from the number alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from codesign.contract.network import (
    OWN,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    ReadoutKind,
    SumPool,
    Synapses,
    signed_width,
)
from codesign.machine.choices import Choices, problem
from codesign.machine.goals import GOALS, expanded
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.schedules import Schedule, sources_of

Shape = tuple[int, int, int]

READOUTS: tuple[ReadoutKind, ...] = ("spike_count", "membrane_last", "membrane_sum", "membrane_max")
# What the choices are drawn from beside their defaults.
DRAWN: dict[str, tuple[Any, ...]] = {
    "shape": ("folded",),
    "queue_depth": (2, 4, 16),
    "input_words": (2, 4),
    "input_checks": (False,),
    "counters": (False,),
    "state_memory": ("block", "distributed"),
    "synapse_memory": ("spram",),
    "synapses": ("compact",),
    "pipeline": ("short",),
    "lockstep": (True,),
    "spike_fifos": (False,),
    "output_spikes": (False,),
    "block_rom_bits": (0, 300, 1000),
    "early_exit": ("certain", 2),
    "loadable": (True,),
}
# Machines from this number on have several events a clock, or samples that are walked at once, or both.
SECOND = 100
# Machines from this number on have what those before never have: structures in one engine, or lanes in lock step that
# can be loaded.
THIRD = 120
# A slot has as many sums: with more timesteps a machine takes minutes to synthesise.
MOST_COLLECTED = 16
SCHEDULES: tuple[Schedule, ...] = ("timestep", "sample")
DRAWN_FROM_SECOND: dict[str, tuple[Any, ...]] = {"event_streams": (2, 4), "schedule": ("sample",)}
KINDS = {"dense": 0.6, "convolution": 0.2, "recurrent": 0.2}
KINDS_FROM_THIRD = {"dense": 0.15, "convolution": 0.4, "recurrent": 0.45}


def random_machine(number: int) -> tuple[FrozenNetwork, HardwareMap]:
    """The network and placement of a number; the same for all time while this module stays as it is."""
    rng = np.random.default_rng([2026, number])
    network = _network(rng, KINDS_FROM_THIRD if number >= THIRD else KINDS)
    choices = _choices(rng, network, number)
    lanes = _lanes(rng, len(network.layers), choices)
    return network, map_network(network, lanes, None, choices)


def _network(rng: np.random.Generator, kinds: Mapping[str, float]) -> FrozenNetwork:
    """kinds : how often each kind of network occurs."""
    kind = rng.choice(list(kinds), p=list(kinds.values()))
    # A layer that reads input currents reads nothing else.
    is_current = bool(rng.random() < (0.2 if kind == "recurrent" else 0.5))
    coding = InputCoding("current", int(rng.choice([1, 4, 8], p=[0.2, 0.6, 0.2]))) if is_current else None
    source_max = coding.largest if coding else 1
    timesteps = int(rng.choice([3, 4, 8, 16, 50]))
    readout = READOUTS[rng.choice(4, p=[0.45, 0.35, 0.1, 0.1])]
    first = 1 if is_current else 0
    if kind == "convolution":
        projections = _pictures(rng, first)
    else:
        projections = _matrices(rng, first if kind == "recurrent" else None)
    bits = int(rng.choice([3, 4, 5, 6, 8]))
    layers = []
    for index, (parts, shape) in enumerate(projections):
        silent = index == len(projections) - 1 and readout != "spike_count"
        parts = [_weighted(rng, part, bits) for part in parts]
        layers.append(_layer(rng, parts, shape, bits, timesteps, source_max if index == 0 else 1, silent=silent))
    return FrozenNetwork(tuple(layers), timesteps, coding or InputCoding("events"), readout)


def _matrices(rng: np.random.Generator, recurrent: int | None) -> list[tuple[list[Projection], Shape | None]]:
    """Projections of each layer of a chain; from layer ``recurrent`` on all but the last read themselves too."""
    depth = int(rng.choice([0, 1, 2], p=[0.08, 0.67, 0.25]))
    hidden = [int(np.exp(rng.uniform(np.log(16), np.log(128)))) for _ in range(depth)]
    widths = [int(np.exp(rng.uniform(np.log(16), np.log(800)))), *hidden, int(rng.choice([4, 10, 20]))]
    density = float(rng.uniform(0.05, 0.3))
    found: list[tuple[list[Projection], Shape | None]] = []
    for index, (n_in, n_out) in enumerate(pairwise(widths)):
        parts = [Projection(index - 1, Synapses.from_dense((rng.random((n_in, n_out)) < density).astype(np.int64)))]
        # A last layer that only integrates must not read itself.
        if recurrent is not None and recurrent <= index < len(widths) - 2:
            own = (rng.random((n_out, n_out)) < density).astype(np.int64)
            parts.append(Projection(OWN, Synapses.from_dense(own)))
        if recurrent is not None and index == 2:
            skip = (rng.random((widths[1], n_out)) < density).astype(np.int64)
            parts.append(Projection(0, Synapses.from_dense(skip)))
        found.append((parts, None))
    return found


def _pictures(rng: np.random.Generator, recurrent: int) -> list[tuple[list[Projection], Shape | None]]:
    """A convolution or two, some with pools or, from layer ``recurrent`` on, reading themselves; then classes."""
    side = int(rng.integers(8, 15))
    shape = (int(rng.integers(1, 3)), side, side)
    found: list[tuple[list[Projection], Shape | None]] = []
    for index in range(int(rng.integers(1, 3))):
        pool = SumPool(shape, 2) if min(shape[1:]) >= 6 and rng.random() < 0.4 else None
        seen = shape if pool is None else pool.out_shape
        channels, size, stride = int(rng.integers(3, 9)), int(rng.choice([1, 3, 3, 5])), int(rng.choice([1, 1, 2]))
        taps = (rng.random((channels, seen[0], size, size)) < 0.6).astype(np.int64)
        convolution = Convolution.from_dense(taps, seen, stride, size // 2)
        parts = [Projection(index - 1, convolution, pool)]
        if index >= recurrent and rng.random() < 0.3:
            own = (rng.random((channels, channels, 3, 3)) < 0.3).astype(np.int64)
            parts.append(Projection(OWN, Convolution.from_dense(own, convolution.out_shape, 1, 1)))
        shape = convolution.out_shape
        found.append((parts, shape))
    pool = SumPool(shape, 2) if min(shape[1:]) >= 4 and rng.random() < 0.5 else None
    n_in = int(np.prod(shape if pool is None else pool.out_shape))
    dense = (rng.random((n_in, int(rng.choice([4, 10])))) < rng.uniform(0.05, 0.2)).astype(np.int64)
    found.append(([Projection(len(found) - 1, Synapses.from_dense(dense), pool)], None))
    return found


def _weighted(rng: np.random.Generator, part: Projection, bits: int) -> Projection:
    """The projection with random weights of so many bits in place of ones."""
    limit = (1 << (bits - 1)) - 1
    n = part.connections.weights.size
    weights = rng.integers(1, limit + 1, n) * rng.choice((-1, 1), n)
    return replace(part, connections=replace(part.connections, weights=weights.astype(np.int8)))


def _leak(rng: np.random.Generator, n: int) -> Leak:
    kind = str(rng.choice(["none", "shift", "multiply"], p=[0.2, 0.5, 0.3]))
    if kind == "none":
        return Leak()
    own = bool(rng.random() < 0.15)
    if kind == "shift":
        return Leak("shift", rng.integers(1, 7, n) if own else int(rng.integers(1, 7)))
    return Leak("multiply", 8, rng.integers(100, 257, n) if own else int(rng.integers(100, 257)))


def _layer(
    rng: np.random.Generator,
    parts: list[Projection],
    shape: Shape | None,
    bits: int,
    timesteps: int,
    source_max: int,
    *,
    silent: bool,
) -> FrozenLayer:
    n_out = parts[0].connections.n_out
    fraction = int(rng.choice([0, 2, 4, 6]))
    scale = ((1 << (bits - 1)) * source_max) << fraction
    many = n_out if shape is None else shape[0]
    reset = str(rng.choice(["subtract", "zero", "value"], p=[0.6, 0.3, 0.1]))
    terms: dict[str, Any] = {
        "threshold": rng.integers(1, 3 * scale, many) if rng.random() < 0.6 else int(rng.integers(1, 3 * scale)),
        "bias": rng.integers(-scale // 2, scale // 2 + 1, many) if rng.random() < 0.7 else 0,
        "leak": _leak(rng, many),
        "reset": "none" if silent else reset,
        "reset_value": 1 if reset == "value" and not silent else 0,
        "compare": str(rng.choice([">=", ">"])),
        "fraction_bits": fraction,
        "membrane_width": (3 * scale).bit_length() + int(rng.integers(0, 4)),
        "weight_bits": bits,
    }
    if not silent and terms["reset"] == "subtract" and rng.random() < 0.12:
        terms["reset_delay"] = True
    if rng.random() < 0.12:
        terms |= {"current_leak": _leak(rng, many), "current_width": terms["membrane_width"]}
    if shape is not None:
        terms["shape"] = shape
    layer = FrozenLayer.from_projections(parts, **terms)
    if not silent:
        return layer
    # A layer that only integrates must not be able to saturate.
    layer = replace(layer, membrane_width=signed_width(*layer.unsaturated_range(timesteps, source_max)))
    if layer.has_current:
        width = signed_width(*layer.unsaturated_current_range(timesteps, source_max))
        layer = replace(layer, current_width=width)
    return layer


def _choices(rng: np.random.Generator, network: FrozenNetwork, number: int) -> Choices:
    """Those of a goal that estimates know, or any that go together, drawn until they suit both network and number."""
    structured = not network.is_plain_chain
    known = DRAWN | DRAWN_FROM_SECOND if number >= SECOND else DRAWN
    while True:
        if rng.random() < 0.4:
            goal = list(GOALS)[rng.integers(len(GOALS))]
            drawn = expanded(goal, {}, readout=network.readout, structured=structured)
            drawn = {name: value for name, value in drawn.items() if name in known}
            if structured and number < THIRD:
                # The table was made when these had an engine for each layer only.
                drawn.pop("shape", None)
        else:
            drawn = {
                name: values[rng.integers(len(values))]
                for name, values in known.items()
                if rng.random() < (0.22 if name in DRAWN else 0.5)
            }
            if "synapse_memory" in drawn:
                drawn["loadable"] = True
            if structured and number >= THIRD:
                drawn["shape"] = "folded"
        if not _is_of(number, drawn, structured=structured):
            continue
        if "schedule" in drawn:
            if network.timesteps > MOST_COLLECTED:
                continue
            # Layer by layer, also where the goal leaves it to the samples, of which there are none.
            drawn["schedule"] = [SCHEDULES[rng.integers(2)] for _ in network.layers]
            if network.coding.is_current:
                drawn["schedule"][0] = "sample"
        choices = Choices(**drawn)
        of_network = {"readout": network.readout, "n_outputs": network.n_outputs, "structured": structured}
        of_layers = {"sources": sources_of(network), "is_current": network.coding.is_current}
        if problem(choices, **of_network, **of_layers) is None:
            return choices


def _is_of(number: int, drawn: Mapping[str, Any], *, structured: bool) -> bool:
    """Whether machines of the number have such choices: each range has what could not be built when its rows of the
    table were made, and nothing newer."""
    alone = [name for name in ("shape", "synapses", "lockstep", "loadable") if name in drawn]
    is_newest = (structured and bool(alone)) or ("lockstep" in alone and "loadable" in alone)
    if number >= THIRD:
        return is_newest
    return not is_newest and (number < SECOND or not drawn.keys().isdisjoint(DRAWN_FROM_SECOND))


def _lanes(rng: np.random.Generator, layers: int, choices: Choices) -> list[int]:
    if choices.folded:
        return [int(rng.choice([1, 2, 4], p=[0.6, 0.25, 0.15]))] * layers
    first = int(rng.choice([1, 2, 3, 4, 6], p=[0.35, 0.25, 0.15, 0.15, 0.1]))
    return [first, *(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])) for _ in range(layers - 1))]
