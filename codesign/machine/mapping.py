"""Placement of a frozen network on lanes: which neuron sits where.

Each layer has P lanes; a lane owns some neurons (its slots), their incoming synapses and a row table of its
own, so lanes never wait for each other within a timestep. The placement decides nothing but speed: sums are
independent of their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import CapacityError, InputError, UnsupportedError, entries_for
from codesign.contract.network import INPUT, Convolution, FrozenLayer, FrozenNetwork, Projection
from codesign.contract.network.connections import Shape, is_whole
from codesign.contract.network.terms import plain_number
from codesign.machine.capacity import (
    Capacity,
    CapacityOptions,
    LayerCapacity,
    check_fits,
    plan_capacity,
    stored_thresholds,
    synapse_words,
)
from codesign.machine.choices import DEFAULTS, MAX_LANES, Choices, check
from codesign.machine.encoding import smallest
from codesign.machine.engine_map import EngineMap
from codesign.machine.layer_map import LayerMap, Parameter, ProjectionMap, own_addresses
from codesign.machine.layouts import index_width
from codesign.machine.pictures import PictureInput, addresses, low_bits
from codesign.machine.placement import Walks, balance_of, place, whole_events
from codesign.machine.schedules import Schedule, as_chosen, collects, layer_schedules
from codesign.machine.streams import span_within

Int = npt.NDArray[np.int64]

LOADABLE = Choices(loadable=True)


@dataclass(frozen=True, eq=False)
class HardwareMap:
    """A frozen network on lanes, layer by layer, and what the machine is that it is placed for.

    choices : all that is not the network's or the placement's; what a layer has of them in its own fields
        (``pipeline``, ``lockstep``, ``streams``, ``schedule``, ``encoding``) follows from them.
    """

    network_hash: str
    layers: tuple[LayerMap, ...]
    choices: Choices = DEFAULTS

    def __post_init__(self) -> None:
        if self.choices.loadable != (self.capacity is not None):
            raise ValueError("a loadable machine has a capacity, others have none")

    @cached_property
    def engines(self) -> tuple[EngineMap, ...]:
        """The memories of each engine: one for all layers in shape 'folded', else one for each."""
        served = [self.layers] if self.choices.folded else [(layer,) for layer in self.layers]
        return tuple(EngineMap(layers) for layers in served)

    @property
    def lanes(self) -> list[int]:
        return [layer.lanes for layer in self.layers]

    @property
    def capacity(self) -> Capacity | None:
        """Of a loadable machine; None if the network is fixed."""
        return self.layers[0].capacity

    @property
    def input_span(self) -> int:
        """Addresses that an input can have."""
        return self._input.span

    @property
    def input_address(self) -> Int:
        """int64 (n_inputs,): address of each input."""
        return self._input.source_address

    @property
    def input_stream(self) -> Int:
        """int64 (n_inputs,): stream in which each input's events come."""
        return self._input.source_stream

    @property
    def input_picture(self) -> Shape | None:
        """(channels, height, width) if addresses of inputs are those of a picture."""
        return self._input.reads.shape if self._input.reads else None

    @property
    def _input(self) -> ProjectionMap:
        """A projection that reads the input: all of them see the same addresses."""
        return next(link for layer in self.layers for link in layer.projections if link.source == INPUT)

    def report(self) -> list[dict[str, float | int | str | list[int]]]:
        """Per layer: lanes, slots, padding slots, synapses of each lane, max/mean of them, balance of the loads, and
        the schedule."""
        return [
            {
                "lanes": layer.lanes,
                "n_slots": layer.n_slots,
                "padding_slots": layer.padding_slots,
                "lane_synapses": layer.lane_synapses.tolist(),
                "imbalance": layer.imbalance,
                "balance": layer.balance,
                "schedule": layer.schedule,
            }
            for layer in self.layers
        ]


def map_network(
    network: FrozenNetwork,
    lanes: Sequence[int],
    events: Sequence[npt.NDArray] | None = None,
    choices: Choices = DEFAULTS,
    *,
    placed: Mapping[int, npt.NDArray[np.integer]] | None = None,
    capacity: CapacityOptions | Capacity | None = None,
) -> HardwareMap:
    """Place every layer on ``lanes[l]`` lanes (clamped to the layer's neurons, or channels) of the machine that
    ``choices`` say. A last layer that is a picture has one lane if its values leave with the last timestep alone,
    or decide a sample early.

    events : what the placement is to suit, per layer: (n_steps, n_in), the events that each source sends in single
        accumulations (samples of coding 'current', else timesteps) of calibration data, or only (n_in,), how often
        each source sends an event (any unit). Without it every source counts the same. Timesteps lie sample by sample;
        where a sample is walked at once they count as one accumulation.
    choices : with shape 'folded' all layers have the same lanes, and nothing is clamped.
    placed : lane of each neuron, (n_out,), of hidden layers that were placed elsewhere.
    capacity : of a loadable machine, what it is to hold beyond this network; or its capacity, if it is known.

    Hidden neurons are placed by :func:`codesign.machine.placement.place`; the last layer is placed in class order.
    Deterministic. Raises InputError for lanes, events, places or a capacity of the wrong shape or range, CapacityError
    if a known capacity is too small, and UnsupportedError for choices that do not go together and for a network that
    the accelerator does not cover.
    """
    lanes = plain_number(list(lanes))
    _check_arguments(network, lanes, events)
    check(choices, network, lanes=lanes)
    if capacity is not None and not choices.loadable:
        raise InputError("a capacity is that of a loadable machine; it needs hardware.loadable = true")
    if choices.schedule == "auto":
        raise InputError(
            "hardware.schedule = 'auto' needs calibration samples, which a run has; give 'timestep' or 'sample'"
        )
    schedules = layer_schedules(choices.schedule, len(network.layers), is_current=network.coding.is_current)
    choices = replace(choices, schedule=as_chosen(schedules, is_current=network.coding.is_current))
    if len(network.layers) == 1:
        # One engine for the only layer is what every machine of it has.
        choices = replace(choices, shape="streaming")
    room: Capacity | None = None
    if isinstance(capacity, Capacity):
        check_fits(network, capacity)
        room = capacity
    elif choices.loadable:
        room = plan_capacity(
            network,
            lanes,
            capacity or CapacityOptions(),
            choices.event_streams,
            schedules,
            lockstep=choices.lockstep,
        )
    if room is not None:
        used_lanes = [layer.lanes for layer in room.layers]
    else:
        used_lanes = [
            count if choices.folded else min(count, _units(network, index)) for index, count in enumerate(lanes)
        ]
        # Values that pass the readout by leave as the sweep makes them, and the lead that decides early is told as they
        # come: of a picture in order on one lane alone.
        ordered = choices.counts or network.readout == "membrane_last" or (choices.exits and network.membrane_readout)
        if ordered and _picture(network, len(network.layers) - 1):
            used_lanes = [1] * len(used_lanes) if choices.folded else [*used_lanes[:-1], 1]
    placed = placed or {}
    _check_placed(network, used_lanes, placed, room)
    found = _place_layers(network, used_lanes, events, placed, room, choices, schedules)
    if room is not None and not isinstance(capacity, Capacity):
        fullest = [int(layer.table_lengths.sum(axis=2).max()) for layer in found]
        room = room.with_synapses(synapse_words(capacity or CapacityOptions(), fullest))
    layers = [replace(layer, capacity=room, pipeline=choices.pipeline) for layer in found]
    mapping = HardwareMap(network.hash, tuple(layers), choices)
    _check_synapses(mapping)
    return encoded(mapping)


def encoded(mapping: HardwareMap) -> HardwareMap:
    """The mapping with the encodings of the fewest bits, if such are chosen."""
    if mapping.choices.synapses == "plain":
        return mapping
    return replace(mapping, layers=tuple(layer for engine in mapping.engines for layer in _compact(engine.layers)))


def _check_placed(
    network: FrozenNetwork,
    lanes: Sequence[int],
    placed: Mapping[int, npt.NDArray[np.integer]],
    capacity: Capacity | None,
) -> None:
    """Raise InputError unless ``placed`` gives hidden neurons lanes of ``lanes``, none more than it has slots."""
    for index, lane in placed.items():
        if not 0 <= index < len(network.layers) - 1:
            raise InputError(f"placed: layer {index!r} is no hidden layer of {len(network.layers)} layers")
        n_out, used = network.layers[index].n_out, lanes[index]
        units = _units(network, index)
        n_slots = capacity.layers[index].n_slots if capacity else -(-units // used) * (n_out // units)
        whole = np.shape(lane) == (n_out,) and np.asarray(lane).dtype.kind in "iu"
        if not whole or np.min(lane) < 0 or np.max(lane) >= used or np.bincount(lane).max() > n_slots:
            raise InputError(
                f"placed: layer {index} needs a lane of 0..{used - 1} for each of {n_out} neurons, the same at most "
                f"{n_slots} times"
            )
        if np.any(np.reshape(lane, (units, -1)) != np.reshape(lane, (units, -1))[:, :1]):
            raise InputError(f"placed: layer {index} is a picture, neurons of a channel must have the same lane")


def _check_synapses(mapping: HardwareMap) -> None:
    """Raise CapacityError if a lane has more synapses than a loadable machine has words for them."""
    for layer in mapping.layers:
        if layer.capacity is None:
            continue
        fullest, room = int(layer.table_lengths.sum(axis=2).max()), layer.capacity.layers[layer.index].synapses
        if fullest > room:
            raise CapacityError(
                f"layer {layer.index}: the network needs {fullest} synapses on a lane, the machine has {room}; "
                "generate one with more hardware.capacity.synapses"
            )


def map_loaded(network: FrozenNetwork, capacity: Capacity) -> HardwareMap:
    """Place a network on the lanes of a loadable machine; slots without a neuron stay silent.

    Raises CapacityError if it does not fit, and UnsupportedError if the accelerator does not cover it.
    """
    choices = replace(LOADABLE, event_streams=capacity.streams, lockstep=capacity.lockstep)
    return map_network(network, [layer.lanes for layer in capacity.layers], None, choices, capacity=capacity)


def _check_arguments(network: FrozenNetwork, lanes: Sequence[int], events: Sequence[npt.NDArray] | None) -> None:
    """Raise what :func:`map_network` raises for a network, lanes and events that it cannot use."""
    network.validate()
    network.require_hardware()
    if len(lanes) != len(network.layers):
        raise InputError(entries_for("lanes", len(lanes), len(network.layers)))
    for index, count in enumerate(lanes):
        if not is_whole(count, 1, MAX_LANES):
            raise InputError(f"lanes of layer {index} = {count!r} is outside 1..{MAX_LANES}")
    if events is not None:
        if len(events) != len(network.layers):
            raise InputError(entries_for("events", len(events), len(network.layers)))
        for index, (found, layer) in enumerate(zip(events, network.layers, strict=True)):
            array = np.asarray(found)
            numbers = array.dtype.kind in "biuf" and bool(np.all(np.isfinite(array)) and np.all(array >= 0))
            if array.ndim not in (1, 2) or array.shape[-1] != layer.n_sources or not numbers:
                raise InputError(
                    f"events of layer {index} must be {layer.n_sources} numbers of 0 or more, or such a row per step"
                )
            if array.ndim == 2 and (array.dtype.kind == "f" or not len(array)):
                raise InputError(f"events of layer {index} in single steps must be whole numbers, of one step or more")


def _place_layers(
    network: FrozenNetwork,
    lanes: Sequence[int],
    events: Sequence[npt.NDArray] | None,
    placed: Mapping[int, npt.NDArray[np.integer]],
    capacity: Capacity | None,
    choices: Choices,
    schedules: Sequence[Schedule],
) -> tuple[LayerMap, ...]:
    """Every layer on exactly ``lanes[l]`` lanes."""
    layers: list[LayerMap] = []
    for index in range(len(network.layers)):
        is_last = index == len(network.layers) - 1
        layers.append(
            _map_layer(
                network,
                layers,
                index,
                lanes[index],
                _accumulated(network, index, events, schedules[index]),
                placed.get(index),
                capacity,
                is_last=is_last,
                spiking=not (is_last and network.membrane_readout),
                # A single lane waits for no other.
                lockstep=choices.lockstep and lanes[index] > 1,
                streams=choices.event_streams,
                schedule=schedules[index],
            )
        )
    return tuple(layers)


def _accumulated(
    network: FrozenNetwork, index: int, events: Sequence[npt.NDArray] | None, schedule: Schedule
) -> npt.NDArray[Any]:
    """Events of a layer in its accumulations; timesteps of a sample that is walked at once are one."""
    n_sources = network.layers[index].n_sources
    found = whole_events(None if events is None else events[index], n_sources)
    if not collects(network, index, schedule) or len(found) % network.timesteps:
        return found
    return found.reshape(-1, network.timesteps, n_sources).max(axis=1)


def _picture(network: FrozenNetwork, source: int) -> Shape | None:
    """Shape of a population that is placed as a picture: one of a convolution, or what is read as a picture."""
    if source != INPUT:
        layer = network.layers[source]
        if any(isinstance(projection.connections, Convolution) for projection in layer.projections):
            return layer.shape
    readers = (projection for layer in network.layers for projection in layer.projections)
    return next((p.source_shape for p in readers if p.source == source and p.source_shape is not None), None)


def _units(network: FrozenNetwork, index: int) -> int:
    """What is placed as a whole: channels of a picture, else neurons."""
    picture = _picture(network, index)
    return picture[0] if picture else network.layers[index].n_out


def _compact(layers: Sequence[LayerMap]) -> list[LayerMap]:
    """The layers of an engine with the encoding of the fewest bits."""
    widest = max(layer.n_slots for layer in layers), max(layer.weight_bits for layer in layers)
    encoding = smallest(_of_walkers(layers), *widest)
    return [replace(layer, encoding=encoding) for layer in layers]


def _of_walkers(layers: Sequence[LayerMap]) -> list[tuple[Int, Int, Int]]:
    """Rows, slots and weights of each stream of each lane, all layers together."""
    found = []
    for lane in range(layers[0].lanes):
        for stream in range(layers[0].streams):
            parts = []
            for layer in layers:
                counts = layer.row_count[lane].reshape(layer.streams, -1)
                end = int(counts[: stream + 1].sum())
                held = slice(end - int(counts[stream].sum()), end)
                parts.append((counts[stream], layer.synapse_slot[lane][held], layer.synapse_weight[lane][held]))
            rows, slots, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
            found.append((rows, slots, weights))
    return found


@dataclass(frozen=True, eq=False)
class _Stored:
    """Synapses or taps to be stored, int64 (n,) each: ``row`` that holds it, ``unit`` that it reaches, ``place`` to add
    to the first slot of the unit, weight, source and target for reports, ``step`` (2, n) of taps."""

    row: Int
    unit: Int
    place: Int
    weight: Int
    source: Int
    target: Int
    step: Int

    @classmethod
    def joined(cls, parts: Sequence[_Stored]) -> _Stored:
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names})


def _stored(projection: Projection, link: ProjectionMap, picture: Shape | None) -> _Stored:
    connections, reads, address = projection.connections, link.reads, link.source_address
    weight = connections.weights.astype(np.int64)
    size = prod(picture[1:]) if picture else 1
    channel = np.zeros(0, np.int64) if reads is None else address[:: prod(reads.shape[1:])] >> low_bits(reads.shape)
    if isinstance(connections, Convolution):
        assert reads is not None and picture is not None
        source, target = connections.in_channel.astype(np.int64), connections.out_channel.astype(np.int64)
        step_y, phase_y = np.divmod(connections.ky.astype(np.int64), reads.stride)
        step_x, phase_x = np.divmod(connections.kx.astype(np.int64), reads.stride)
        row = link.unit_row(channel[source], reads.row_bits, phase_y * reads.phases[1] + phase_x)
        place = -(step_y * picture[2] + step_x)
        return _Stored(row, target, place, weight, source, target, np.stack([step_y, step_x]))
    source, target = connections.sources, connections.targets.astype(np.int64)
    row = link.unit_row(address)
    if reads is not None:
        row = link.unit_row(channel[:, None], reads.row_bits, np.arange(reads.rows_per_channel)).reshape(-1)
    step = np.zeros((2, weight.size), np.int64)
    return _Stored(row[source], target // size, target % size, weight, source, target, step)


def _links(
    network: FrozenNetwork,
    layers: Sequence[LayerMap],
    index: int,
    own: tuple[Int, int],
    capacity: Capacity | None,
    streams: int,
) -> list[ProjectionMap]:
    """The layer's projections, rows one after the other; ``own`` : addresses of its own neurons, and their span."""
    links: list[ProjectionMap] = []
    row_base = 0
    for projection in network.layers[index].projections:
        source = projection.source
        reads = PictureInput.of(projection, _picture(network, source))
        beyond = None if reads is None else reads.problem()
        if beyond is not None:
            raise UnsupportedError(f"layer {index} reads {beyond}")
        if source == index:
            address, span = own
        elif source != INPUT:
            address, span = layers[source].hardware_index, layers[source].index_span
        elif reads is not None:
            address, span = addresses(reads.shape, np.arange(reads.shape[0])), reads.shape[0] << low_bits(reads.shape)
        else:
            address = np.arange(projection.n_sources, dtype=np.int64)
            span = capacity.n_inputs if capacity else projection.n_sources
        place_bits, row_bits = (0, 0) if reads is None else (low_bits(reads.shape), reads.row_bits)
        n_rows = (span_within(span, place_bits, streams) >> place_bits) << row_bits
        links.append(ProjectionMap(source, address, span, reads, row_base, n_rows, streams))
        row_base += n_rows
    return [replace(link, table_rows=row_base) for link in links]


def _walks(layer: FrozenLayer, stored: _Stored, units: int, n_rows: int) -> Walks:
    """What placement looks at: rows, to which events of several sources may lead."""
    order = np.lexsort((stored.unit, stored.row))
    indptr = np.searchsorted(stored.row[order], np.arange(n_rows + 1)).astype(np.int64)
    trained = layer.trained_index if units == layer.n_out else np.arange(units, dtype=np.int64)
    return Walks(n_rows, units, indptr, stored.unit[order].astype(np.int32), trained)


def _events_of_rows(events: Int, rows: Int, n_rows: int, streams: int) -> Int:
    """int64 (n_steps * streams, n_rows): events that lead to each row. What comes in one stream is a step of its own,
    since a lane walks the rows of each apart."""
    found = np.zeros((n_rows, len(events)), np.int64)
    np.add.at(found, rows[rows >= 0], events[:, rows >= 0].T)
    if streams == 1:
        return found.T
    of_stream = np.arange(n_rows) * streams // n_rows == np.arange(streams)[:, None]
    return (found.T[:, None] * of_stream).reshape(-1, n_rows)


def _ranks(of_unit: Int) -> Int:
    """int64 (units,): place of each unit among those of its lane, in their order, so that padding lies at the end."""
    order = np.argsort(of_unit, kind="stable")
    rank = np.empty(of_unit.size, np.int64)
    rank[order] = np.arange(of_unit.size) - np.searchsorted(of_unit[order], of_unit[order])
    return rank


def _map_layer(
    network: FrozenNetwork,
    before: Sequence[LayerMap],
    index: int,
    lanes: int,
    events: Int,
    placed: npt.NDArray[np.integer] | None,
    capacity: Capacity | None,
    *,
    is_last: bool,
    spiking: bool,
    lockstep: bool,
    streams: int,
    schedule: Schedule,
) -> LayerMap:
    layer, picture = network.layers[index], _picture(network, index)
    units, size = (picture[0], prod(picture[1:])) if picture else (layer.n_out, 1)
    n_ranks, lane_bits = -(-units // lanes), (lanes - 1).bit_length()
    n_slots = capacity.layers[index].n_slots if capacity else n_ranks * size
    span = n_ranks << (lane_bits + (low_bits(picture) if picture else 0))
    units_of = np.arange(units, dtype=np.int64) % lanes if placed is None else np.asarray(placed, np.int64)[::size]

    def linked(of_unit: Int, rank: Int) -> tuple[list[ProjectionMap], _Stored]:
        own = own_addresses(picture, rank, of_unit, lane_bits), span
        links = _links(network, before, index, own, capacity, streams)
        return links, _Stored.joined(
            [_stored(projection, link, picture) for projection, link in zip(layer.projections, links, strict=True)]
        )

    # Where its own events lead depends on the placement; how many synapses they walk does not.
    links, stored = linked(units_of, _ranks(units_of))
    n_rows = streams * links[0].table_rows
    walks = _walks(layer, stored, units, n_rows)
    rows = np.concatenate([link.source_row for link in links])
    of_rows = _events_of_rows(events, rows, n_rows, streams)
    if is_last or lanes == 1 or placed is not None:
        of_unit, balance = units_of, balance_of(walks, units_of, lanes, of_rows, lockstep=lockstep)
    else:
        of_unit, balance = place(walks, lanes, of_rows, np.arange(n_rows), lockstep=lockstep)
    rank = _ranks(of_unit)
    links, stored = linked(of_unit, rank)
    lane, slot = np.repeat(of_unit, size), (rank[:, None] * size + np.arange(size)).reshape(-1)
    taps = any(link.reads is not None and link.reads.is_convolution for link in links)

    slot_of = rank[stored.unit] * size + stored.place
    order = np.lexsort((slot_of & ((1 << index_width(n_slots)) - 1), stored.row, of_unit[stored.unit]))
    synapse_lane = of_unit[stored.unit][order]
    row_count = (
        np.bincount(synapse_lane * n_rows + stored.row[order], minlength=lanes * n_rows)
        .reshape(lanes, n_rows)
        .astype(np.int64)
    )
    row_start = np.cumsum(row_count, axis=1) - row_count
    row_start[row_count == 0] = 0
    bounds = np.searchsorted(synapse_lane, np.arange(lanes + 1))
    parts = [order[slice(low, high)] for low, high in pairwise(bounds.tolist())]

    return LayerMap(
        index=index,
        projections=tuple(links),
        n_out=layer.n_out,
        lanes=lanes,
        n_slots=n_slots,
        lane=lane,
        slot=slot,
        row_start=row_start,
        row_count=row_count,
        synapse_slot=tuple(slot_of[part] for part in parts),
        synapse_weight=tuple(stored.weight[part] for part in parts),
        synapse_source=tuple(stored.source[part] for part in parts),
        synapse_target=tuple(stored.target[part] for part in parts),
        synapse_step=tuple(stored.step[:, part] for part in parts) if taps else None,
        picture=picture,
        parameters=_parameters(
            layer, lane, slot, lanes, n_slots, capacity.layers[index] if capacity else None, spiking
        ),
        spiking=spiking,
        weight_bits=layer.weight_bits,
        balance=balance,
        capacity=capacity,
        lockstep=lockstep,
        streams=streams,
        schedule=schedule,
    )


def _parameters(
    layer: FrozenLayer, lane: Int, slot: Int, lanes: int, n_slots: int, room: LayerCapacity | None, spiking: bool
) -> dict[str, Parameter]:
    """Parameters of the slots; ``lane``, ``slot`` : int64 (n_out,), place of each neuron."""
    # A padding slot has bias 0 and never fires, so that it stays at 0: it neither spikes nor saturates, and whatever
    # leaks of it is 0. A layer-wide constant is possible only if it keeps padding slots so.
    has_padding = lanes * n_slots > layer.n_out
    quiet = 1 if layer.compare == ">=" else 0
    found = {}
    for name, numbers in layer.numbers.items():
        padding, quiet_constant = 0, name != "bias" or int(numbers[0]) == 0
        if name == "threshold":
            if not spiking:
                continue
            numbers = stored_thresholds(layer, room) if room else numbers
            padding, quiet_constant = max(quiet, int(numbers.max())), int(numbers[0]) >= quiet
        slots = np.full((lanes, n_slots), padding, np.int64)
        slots[lane, slot] = numbers
        same = bool(np.all(numbers == numbers[0])) and (quiet_constant or not has_padding)
        # A machine that takes other networks has in memory what it has room for, and no other constant of this one.
        constant = same if room is None else not room.parameter_widths.get(name)
        found[name] = Parameter(slots, int(numbers[0]) if constant else None)
    return found
