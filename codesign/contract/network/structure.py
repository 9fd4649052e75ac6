"""What populations and projections have to keep to, whatever their weights are: shared by frozen and float networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Protocol, get_args

from codesign.basics.errors import InputError, entries_for
from codesign.contract.network.connections import Projection, Shape, Synapses, check_shape, is_whole
from codesign.contract.network.limits import (
    INPUT,
    MAX_LAYERS,
    MAX_PROJECTIONS,
    MAX_REFRACTORY,
    MAX_SYNAPSES,
    MAX_TIMESTEPS,
)
from codesign.contract.network.terms import InputCoding, ReadoutKind, ResetKind


class Population(Protocol):
    """Neurons that projections reach."""

    @property
    def n_out(self) -> int: ...
    @property
    def shape(self) -> Shape | None: ...
    @property
    def projections(self) -> tuple[Projection, ...]: ...
    @property
    def reset(self) -> ResetKind: ...
    @property
    def reset_delay(self) -> bool: ...
    @property
    def refractory(self) -> int: ...


def check_projections(layer: Population, where: str, weight_bits: int | None) -> None:
    """Raise InputError unless the projections are valid and end in the layer's neurons and shape.

    ``weight_bits`` is None for float64 weights.
    """
    if layer.shape is not None:
        check_shape(layer.shape, f"{where}: shape")
        if prod(layer.shape) != layer.n_out:
            raise InputError(f"{where}: shape {layer.shape} does not have {layer.n_out} neurons")
    if not 1 <= len(layer.projections) <= MAX_PROJECTIONS:
        raise InputError(f"{where}: {len(layer.projections)} projections, expected 1..{MAX_PROJECTIONS}")
    for number, projection in enumerate(layer.projections):
        name = where if len(layer.projections) == 1 else f"{where}: projection {number}"
        projection.validate(name, weight_bits)
        found = projection.connections.n_out
        if isinstance(projection.connections, Synapses):
            if found != layer.n_out:
                raise InputError(f"{name}: synapses of {found} targets in a layer of {layer.n_out} neurons")
        elif projection.connections.out_shape != layer.shape:
            raise InputError(
                f"{name}: a convolution to {projection.connections.out_shape} in a layer of shape {layer.shape}"
            )


def check_reset(layer: Population, where: str) -> None:
    """Raise InputError unless what follows a spike goes together: reset, delay and rest."""
    if not isinstance(layer.reset_delay, bool):
        raise InputError(f"{where}: reset_delay = {layer.reset_delay!r} is neither true nor false")
    if layer.reset_delay and layer.reset != "subtract":
        raise InputError(f"{where}: reset_delay needs reset 'subtract', the layer has {layer.reset!r}")
    if not is_whole(layer.refractory, 0, MAX_REFRACTORY):
        raise InputError(f"{where}: refractory = {layer.refractory!r} is outside 0..{MAX_REFRACTORY}")
    if layer.refractory and layer.reset_delay:
        raise InputError(
            f"{where}: reset_delay with refractory = {layer.refractory}: a reset a timestep late falls into the rest, "
            "in which v stays as it is, and would never come; leave out one of them"
        )


def check_readout(last: Population, readout: ReadoutKind, where: str) -> None:
    """Raise InputError if a membrane readout's last layer, which emits no spikes, has what follows a spike."""
    if readout == "spike_count":
        return
    if last.reset != "none":
        raise InputError(f"{where}: readout {readout} needs reset 'none' in the last layer")
    if last.refractory:
        raise InputError(f"{where}: readout {readout}: the last layer emits no spikes, after which it would rest")


def check_source(source: Any, index: int, where: str) -> None:
    """Raise InputError unless a projection of layer ``index`` reads the input, an earlier layer or its own."""
    if not is_whole(source, INPUT, index):
        raise InputError(f"{where}: source {source!r} is outside -1..{index} (-1 is the network's input)")


def check_sources(layers: Sequence[Population], index: int, where: str, membrane_readout: str | None) -> None:
    """Raise InputError unless every projection of a layer fits its source.

    ``membrane_readout`` is the network's readout if its last layer emits no spikes, else None.
    """
    layer = layers[index]
    n_inputs = layers[0].projections[0].n_sources
    for projection in layer.projections:
        source = projection.source
        check_source(source, index, f"{where}: layer {index}")
        name = "the network" if source == INPUT else f"layer {source}"
        size = n_inputs if source == INPUT else layers[source].n_out
        if projection.n_sources != size:
            what = "inputs" if source == INPUT else "neurons"
            raise InputError(f"{where}: layer {index} has {projection.n_sources} sources, {name} has {size} {what}")
        shape = None if source == INPUT else layers[source].shape
        if shape is not None and projection.source_shape not in (None, shape):
            raise InputError(f"{where}: layer {index} reads a picture of {projection.source_shape}, {name} is {shape}")
        if source == index == len(layers) - 1 and membrane_readout is not None:
            raise InputError(f"{where}: readout {membrane_readout}: the last layer emits no spikes for its recurrence")
    if layer.projections[0].source == index:
        raise InputError(f"{where}: layer {index}: its first projection must come from an earlier layer or the input")


def check_sizes(
    layers: Sequence[Population], timesteps: int, coding: InputCoding, readout: ReadoutKind, where: str
) -> None:
    """Raise InputError unless a network's layers, timesteps, coding, readout and synapses are within their limits."""
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise InputError(f"{where}: {len(layers)} layers, expected 1..{MAX_LAYERS}")
    if not is_whole(timesteps, 1, MAX_TIMESTEPS):
        raise InputError(f"{where}: timesteps = {timesteps!r} is outside 1..{MAX_TIMESTEPS}")
    coding.validate(where)
    if readout not in get_args(ReadoutKind):
        raise InputError(f"{where}: readout {readout!r} is none of {', '.join(get_args(ReadoutKind))}")
    total = sum(projection.connections.n_weights for layer in layers for projection in layer.projections)
    if total > MAX_SYNAPSES:
        raise InputError(f"{where}: {total} synapses, the limit is {MAX_SYNAPSES}")


def by_layer(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """A table of arguments for each of ``count`` layers; a value stands for all layers, or is a list of one each.

    Raises InputError, naming the argument, for a list of another length.
    """
    for name, value in columns.items():
        if isinstance(value, list | tuple) and len(value) != count:
            raise InputError(entries_for(name, len(value), count))
    return [
        {name: value[index] if isinstance(value, list | tuple) else value for name, value in columns.items()}
        for index in range(count)
    ]
