"""A small machine of every choice of hardware, with samples that make its parts work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from random_networks import random_stimulus

from codesign.contract import golden
from codesign.contract.network import (
    INPUT,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
    signed_width,
)
from codesign.contract.stimulus import Stimulus
from codesign.machine.choices import Choices
from codesign.machine.goals import GOALS
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle

TINY = GOALS["tiny"].choices
# Network (coding, readout) and choices of each; lanes where they are not two in each layer.
MACHINES: dict[str, tuple[dict[str, Any], Mapping[str, Any]]] = {
    "default": ({}, {}),
    "balanced": ({"lanes": 3}, GOALS["balanced"].choices),
    # What "auto" would choose depends on samples.
    "fast": ({"lanes": 4, "coding": "current"}, {**GOALS["fast"].choices, "schedule": "sample"}),
    "current": ({"coding": "current"}, {"queue_depth": 2}),
    "one lane": ({"lanes": 1}, {}),
    "short": ({}, {"pipeline": "short"}),
    "short, current": ({"coding": "current"}, {"pipeline": "short", "counters": False}),
    "no counters": ({}, {"counters": False}),
    "no output spikes": ({}, {"output_spikes": False}),
    "no input checks": ({}, {"input_checks": False}),
    "no input checks, current": ({"coding": "current"}, {"input_checks": False}),
    "no fifos": ({}, {"spike_fifos": False}),
    "lock step": ({}, {"lockstep": True}),
    "tiny": ({}, {"lockstep": True, **TINY}),
    "tiny, one lane": ({"lanes": 1}, TINY),
    "compact": ({}, {"synapses": "compact"}),
    "compact, short": ({"coding": "current"}, {"synapses": "compact", "pipeline": "short"}),
    "folded": ({}, GOALS["small"].choices),
    "folded, no fifos": ({}, {"shape": "folded", "spike_fifos": False, "output_spikes": False}),
    "folded, current": ({"coding": "current"}, {"shape": "folded", "pipeline": "short"}),
    "folded, compact": ({}, {"shape": "folded", "synapses": "compact", "input_words": 2}),
    "folded, turns": ({"turns": True}, {"shape": "folded"}),
    "folded, pictures": ({"pictures": "padded", "lanes": 1}, {"shape": "folded"}),
    "wide beats": ({}, {"input_words": 4, "state_memory": "block", "block_rom_bits": 0}),
    "streams": ({"lanes": 3}, {"event_streams": 2}),
    "streams, one lane": ({"lanes": 1}, {"event_streams": 2, "input_words": 2}),
    "streams, current": ({"coding": "current"}, {"event_streams": 4, "input_words": 4, "pipeline": "short"}),
    "streams, folded": ({"lanes": 3}, {"event_streams": 2, "shape": "folded", "synapses": "compact"}),
    "streams, lock step": ({}, {"event_streams": 2, "lockstep": True, "spike_fifos": False, "input_checks": False}),
    "streams, loadable": ({"coding": "current"}, {"event_streams": 2, "loadable": True, "early_exit": 3}),
    "streams, pictures": ({"pictures": "padded", "terms": True}, {"event_streams": 2, "input_words": 2}),
    "sample": ({}, {"schedule": "sample"}),
    "sample, one lane": ({"lanes": 1}, {"schedule": "sample", "pipeline": "short", "spike_fifos": False}),
    "sample, compact": ({"terms": True}, {"schedule": "sample", "synapses": "compact"}),
    "sample, lock step": ({}, {"schedule": "sample", "lockstep": True, "output_spikes": False}),
    "sample, streams": ({"lanes": 3}, {"schedule": "sample", "event_streams": 2, "input_words": 2}),
    "sample, loadable": ({}, {"schedule": "sample", "loadable": True}),
    "sample, exit": ({}, {"schedule": "sample", "early_exit": "certain"}),
    "sample, pictures": ({"pictures": "padded", "rest": True}, {"schedule": "sample"}),
    "mixed": ({"readout": "membrane_sum"}, {"schedule": ("sample", "timestep")}),
    "certain exit": ({}, {"early_exit": "certain"}),
    "exit by margin": ({"readout": "membrane_sum"}, {"early_exit": 40, "counters": False}),
    "folded, exit": ({}, {"shape": "folded", "early_exit": "certain", "input_checks": False}),
    # Both layers read the input, and many events are left when a sample is decided.
    "fork, exit": ({"lanes": 1, "skips": True}, {"early_exit": 1}),
    "exit, current": ({"coding": "current"}, {"early_exit": 3, "pipeline": "short"}),
    "loadable": ({}, {"loadable": True}),
    "loadable, exit, no fifos": (
        {},
        {
            "loadable": True,
            "early_exit": "certain",
            "spike_fifos": False,
            "output_spikes": False,
            "input_checks": False,
        },
    ),
    "loadable, empty": ({"coding": "current"}, {"loadable": True, "synapse_memory": "spram", "pipeline": "short"}),
    "membrane_last": ({"readout": "membrane_last"}, {}),
    "membrane_sum, folded": ({"readout": "membrane_sum"}, {"shape": "folded"}),
    "pictures": ({"pictures": "strided"}, {}),
    "pictures, current, short": (
        {"pictures": "padded", "coding": "current", "lanes": 3},
        {"pipeline": "short", "spike_fifos": False, "counters": False},
    ),
    "pictures, pooled input, membrane_sum": (
        {"pictures": "pooled", "readout": "membrane_sum", "lanes": 3},
        {"early_exit": 40, "input_words": 2},
    ),
    "leaks": ({"leaks": "shift"}, {}),
    "leaks, current, short": ({"leaks": "multiply", "coding": "current"}, {"pipeline": "short", "spike_fifos": False}),
    "leaks, folded, compact": ({"leaks": "multiply"}, {"shape": "folded", "synapses": "compact"}),
    "leaks, loadable": ({"leaks": "shift"}, {"loadable": True}),
    "leaks, pictures": ({"leaks": "multiply", "pictures": "padded"}, {}),
    "terms": ({"terms": True}, {}),
    "terms, current, short": (
        {"terms": True, "leaks": "multiply", "coding": "current"},
        {"pipeline": "short", "spike_fifos": False, "output_spikes": False},
    ),
    "terms, folded": ({"terms": True, "leaks": "shift"}, {"shape": "folded"}),
    "terms, pictures": ({"terms": True, "pictures": "padded"}, {}),
    "rest": ({"rest": True}, {"output_spikes": False}),
    "rest, current, short": ({"rest": True, "terms": True, "coding": "current"}, {"pipeline": "short"}),
    "rest, folded": ({"rest": True}, {"shape": "folded"}),
    "membrane_max, short": ({"readout": "membrane_max"}, {"pipeline": "short", "lockstep": True}),
}


def network_of(
    coding: str = "events",
    readout: str = "spike_count",
    seed: int = 5,
    pictures: str | None = None,
    turns: bool = False,
    leaks: str | None = None,
    terms: bool = False,
    rest: bool = False,
    skips: bool = False,
) -> FrozenNetwork:
    """12-9-4 in 5 timesteps: neurons fire, leak, go negative and saturate. With ``leaks`` of a kind each leaks by its
    own numbers; with ``terms`` through synaptic currents that saturate too, and resets are a timestep late; with
    ``rest`` neurons rest after a spike instead; with ``skips`` the last layer reads the input, too. With
    ``turns`` there are three layers, which read what is kept for a later turn of one engine."""
    rng = np.random.default_rng(seed)
    if pictures is not None:
        found = picture_network(rng, pictures, coding, readout)
    elif turns:
        found = turn_network(rng, coding, readout)
    else:
        found = chain_network(rng, coding, readout)
    if leaks is not None:
        found = with_leaks(np.random.default_rng([seed, 1]), found, leaks)
    found = with_terms(found) if terms else found
    found = with_skip(np.random.default_rng([seed, 2]), found) if skips else found
    return with_rest(found) if rest else found


def with_skip(rng: np.random.Generator, network: FrozenNetwork) -> FrozenNetwork:
    """The network with synapses from the input to its last layer."""
    *layers, last = network.layers
    weights = rng.integers(-9, 16, (network.n_inputs, last.n_out)) * (rng.random((network.n_inputs, last.n_out)) < 0.5)
    skip = Projection(INPUT, Synapses.from_dense(weights))
    found = network.with_layers([*layers, replace(last, projections=(*last.projections, skip))])
    found.validate()
    return found


def with_rest(network: FrozenNetwork) -> FrozenNetwork:
    """The network with rests of 2 timesteps and 1; membranes of the first layer stay beyond their threshold."""
    first, last = network.layers
    first = replace(first, reset="none", reset_delay=False, refractory=2)
    found = network.with_layers([first, replace(last, reset_delay=False, refractory=1)])
    found.validate()
    return found


def with_terms(network: FrozenNetwork) -> FrozenNetwork:
    """The network with delayed resets, and synaptic currents that leak half as much as the membranes of single neurons,
    or lose a half."""
    layers = []
    for layer in network.layers:
        leak = replace(layer.leak, shift=layer.leak.shift + 1) if layer.leak.per_neuron else Leak("shift", 1)
        layers.append(replace(layer, reset_delay=True, current_leak=leak, current_width=layer.membrane_width - 2))
    found = network.with_layers(layers)
    found.validate()
    return found


def with_leaks(rng: np.random.Generator, network: FrozenNetwork, kind: str) -> FrozenNetwork:
    """The network with a leak for each neuron, or channel."""
    layers = []
    for layer in network.layers:
        units = layer.n_out if layer.shape is None else layer.shape[0]
        shift = rng.integers(1, 4, units) if kind == "shift" else rng.integers(3, 6, units)
        multiplier = rng.integers(1 << (shift - 1), (1 << shift) + 1)
        shift, multiplier = (np.repeat(numbers, layer.n_out // units) for numbers in (shift, multiplier))
        layers.append(replace(layer, leak=Leak(kind, shift, multiplier if kind == "multiply" else 0)))  # type: ignore[arg-type]
    found = network.with_layers(layers)
    found.validate()
    return found


def turn_network(rng: np.random.Generator, coding: str, readout: str) -> FrozenNetwork:
    """12-9-6-4 in 5 timesteps; the first layer reads itself too, the last one the input and the first one."""
    sizes = {-1: 12, 0: 9, 1: 6, 2: 4}

    def read(source: int, n_out: int) -> Projection:
        return Projection(source, Synapses.from_dense(rng.integers(-6, 12, (sizes[source], n_out))))

    layers = [
        FrozenLayer.from_projections(
            [read(source, sizes[index]) for source in sources],
            threshold=rng.integers(20, 60, sizes[index]),
            leak=Leak("shift", 2),
            reset="subtract",
            fraction_bits=2,
            membrane_width=9,
        )
        for index, sources in enumerate([(-1, 0), (0,), (1, 0, -1)])
    ]
    found = FrozenNetwork(tuple(layers), 5, InputCoding(coding), readout)  # type: ignore[arg-type]
    found.validate()
    return found


def chain_network(rng: np.random.Generator, coding: str, readout: str) -> FrozenNetwork:
    """See :func:`network_of`."""

    def weights(n_in: int, n_out: int, density: float) -> np.ndarray:
        return rng.integers(-9, 16, (n_in, n_out)) * (rng.random((n_in, n_out)) < density)

    is_current, counts = coding == "current", readout == "spike_count"
    low, high = ((150, 400), (60, 140)) if is_current else ((30, 80), (20, 60))
    return FrozenNetwork.from_arrays(
        [weights(12, 9, 0.5), weights(9, 4, 0.7)],
        threshold=[rng.integers(*low, 9), rng.integers(*high, 4)],
        bias=[rng.integers(-9, 15, 9), rng.integers(-5, 9, 4)],
        timesteps=5,
        readout=readout,  # type: ignore[arg-type]
        reset=["subtract", "subtract" if counts else "none"],
        coding=InputCoding("current", 4) if is_current else InputCoding("events"),
        leak=Leak("shift", 2),
        fraction_bits=2,
        membrane_width=[10 if is_current else 9, 9 if counts else 14],
    )


def picture_network(rng: np.random.Generator, kind: str, coding: str, readout: str) -> FrozenNetwork:
    """Two or three layers in 4 timesteps, on pictures whose sides differ.

    strided : a convolution of stride 2, then single synapses behind a pool that leaves a column over.
    padded : a padded convolution with parameters per channel, then one to a picture of four channels.
    pooled : a pool that leaves rows over, a convolution of stride 3, single synapses that read a picture and are one,
        and a convolution that integrates.
    """
    is_current, counts = coding == "current", readout == "spike_count"
    source_max = 15 if is_current else 1

    def convolution(shape: tuple[int, int, int], channels: int, kernel: tuple[int, int], *moves: int) -> Convolution:
        dense = rng.integers(-5, 8, (channels, shape[0], *kernel)) * (rng.random((channels, shape[0], *kernel)) < 0.8)
        return Convolution.from_dense(dense, shape, *moves)

    def synapses(n_in: int, n_out: int) -> Synapses:
        return Synapses.from_dense(rng.integers(-9, 16, (n_in, n_out)) * (rng.random((n_in, n_out)) < 0.6))

    def layer(projection: Projection, scale: int, silent: bool = False, **parameters: object) -> FrozenLayer:
        channels = parameters.get("shape", (projection.connections.n_out,))
        if isinstance(projection.connections, Convolution):
            channels = projection.connections.out_shape
        made = FrozenLayer.from_projections(
            [projection],
            threshold=rng.integers(scale, 3 * scale + 1, channels[0]),  # type: ignore[index]
            bias=rng.integers(-3, 6, channels[0]),  # type: ignore[index]
            leak=Leak("shift", 2),
            reset="none" if silent else "subtract",
            fraction_bits=1,
            membrane_width=12 if is_current else 9,
            **parameters,
        )
        return replace(made, membrane_width=signed_width(*made.unsaturated_range(4, 1))) if silent else made

    if kind == "strided":
        first = convolution((2, 7, 6), 4, (3, 3), 2, 1)
        pool = SumPool(first.out_shape, 2)
        layers = [
            layer(Projection(-1, first), 8),
            layer(Projection(0, synapses(pool.n_out, 4), pool), 20),
        ]
    elif kind == "padded":
        first = convolution((2, 4, 2), 6, (3, 2), 1, 1)
        layers = [
            layer(Projection(-1, first), 8 * source_max),
            layer(Projection(0, convolution(first.out_shape, 4, first.out_shape[1:])), 30),
        ]
    else:
        pool = SumPool((1, 9, 8), 2)
        first = convolution(pool.out_shape, 5, (3, 4), 3, 2)
        n_in, shape = first.n_out, (4, 3, 2)
        layers = [
            layer(Projection(-1, first, pool), 6),
            layer(Projection(0, synapses(n_in, 24)), 12, shape=shape),
            layer(Projection(1, convolution(shape, 2, (2, 2))), 0, silent=True),
        ]
    coded = InputCoding("current", 4) if is_current else InputCoding("events")
    network = FrozenNetwork(tuple(layers), 4, coded, readout)  # type: ignore[arg-type]
    network.validate()
    assert counts or network.membrane_readout
    return network


def choices_of(name: str) -> Choices:
    return Choices(**MACHINES[name][1])


def machine(name: str, folder: Path, samples: int = 6) -> tuple[FrozenNetwork, Stimulus]:
    """The bundle of a machine in ``folder``, its network, and samples, with early exit of several lengths."""
    options = dict(MACHINES[name][0])
    lanes, choices = options.pop("lanes", 2), choices_of(name)
    for seed in range(200):
        network = network_of(**options, seed=seed)
        stimulus = random_stimulus(np.random.default_rng(seed), network, samples)
        trace = golden.run(network, stimulus, early_exit=choices.early_exit)
        ties = (trace.values == trace.values.max(axis=1, keepdims=True)).sum(axis=1)
        spiking = len(network.layers) - (not readout_counts(network))
        lively, last = all(spikes.any() for spikes in trace.spikes[:spiking]), network.timesteps - 1
        varied = np.unique(trace.exits).size >= 3 and (trace.exits == last).any() if choices.exits else True
        if lanes > 1 and readout_counts(network):
            # More neurons than the last layer has slots: two lanes of a word have something to say.
            together = trace.spikes[-1].sum(axis=2).max()
            lively &= bool(together > -(-network.n_outputs // lanes))
        if options.get("skips"):
            # What is left of decided samples is withdrawn.
            left = stimulus.dense() & (np.arange(network.timesteps) > trace.exits[:, None])[:, :, None]
            varied &= (left.sum(axis=(1, 2)) >= 10).sum() >= 3
        if lively and varied and np.unique(trace.decisions).size > 1 and (ties > 1).any() == readout_counts(network):
            break
    else:
        raise AssertionError(f"{name}: no network of this kind does enough")
    write_bundle(network, map_network(network, [lanes] * len(network.layers), None, choices), folder)
    return network, stimulus


def readout_counts(network: FrozenNetwork) -> bool:
    return network.readout == "spike_count"
