"""Placement of a frozen network on lanes: which neuron sits where, and what every memory holds.

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

from codesign.basics.errors import CapacityError, InputError, UnsupportedError
from codesign.contract.network import INPUT, Convolution, FrozenLayer, FrozenNetwork, Projection
from codesign.contract.network.connections import Shape, is_whole
from codesign.contract.network.terms import plain_number
from codesign.machine.capacity import (
    Capacity,
    CapacityOptions,
    LayerCapacity,
    Role,
    check_fits,
    plan_capacity,
    stored_thresholds,
    synapse_words,
)
from codesign.machine.choices import DEFAULTS, MAX_LANES, Choices, Pipeline, check
from codesign.machine.encoding import PLAIN, Encoding, smallest
from codesign.machine.layouts import (
    PARAMETERS,
    Field,
    Record,
    in_lockstep,
    index_width,
    parameter_width,
    parameter_word,
)
from codesign.machine.pictures import PictureInput, addresses, low_bits
from codesign.machine.placement import Walks, balance_of, place, whole_events
from codesign.machine.schedules import Schedule, as_chosen, collects, layer_schedules
from codesign.machine.streams import address_within, span_within, stream_of

Int = npt.NDArray[np.int64]

LOADABLE = Choices(loadable=True)


@dataclass(frozen=True, eq=False)
class ProjectionMap:
    """What one projection brings to a layer: events of a source, each of which leads to one of the layer's rows.

    source : INPUT, an earlier layer, or the layer itself, whose events are those of the timestep before.
    source_address : int64 (n_in,); address of each source in events. span : addresses that an event can have.
    reads : how events of a picture find rows and slots; None if an event's address is a row's.
    row_base, n_rows : first of its rows in the row table of each stream of events, and how many there are.
    streams, table_rows : streams of events, and rows of each one's tables, those of all projections.
    """

    source: int
    source_address: Int
    span: int
    reads: PictureInput | None
    row_base: int
    n_rows: int
    streams: int = 1
    table_rows: int = 0

    @property
    def n_in(self) -> int:
        return int(self.source_address.size)

    @property
    def place_bits(self) -> int:
        """Low bits of an address that say where in its channel a neuron is; 0 unless it is a picture's."""
        return 0 if self.reads is None else low_bits(self.reads.shape)

    @property
    def stream_span(self) -> int:
        """Addresses that an event can have in its stream."""
        return span_within(self.span, self.place_bits, self.streams)

    @cached_property
    def source_stream(self) -> Int:
        """int64 (n_in,): stream in which each source's events come."""
        return stream_of(self.source_address, self.place_bits, self.streams)

    @cached_property
    def source_row(self) -> Int:
        """int64 (n_in,): row that each source's event leads to, the tables of streams one after the other; -1 if it is
        dropped."""
        row = address_within(self.source_address, self.place_bits, self.streams)
        row = row if self.reads is None else self.reads.rows(row)
        return np.where(row >= 0, self.source_stream * self.table_rows + self.row_base + row, -1)

    def unit_row(self, unit: Int, bits: int = 0, within: Int | int = 0) -> Int:
        """Row of a unit (an address, or a channel) and of a number of ``bits`` bits within it."""
        row = (address_within(unit, 0, self.streams) << bits) | within
        return stream_of(unit, 0, self.streams) * self.table_rows + self.row_base + row


@dataclass(frozen=True, eq=False)
class Parameter:
    """A number that each slot has (:data:`codesign.machine.layouts.PARAMETERS`).

    slots : int64 (lanes, n_slots); what each slot uses, padding included.
    constant : the layer-wide number, or None if every slot has its own.
    """

    slots: Int
    constant: int | None

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest."""
        return int(self.slots.min()), int(self.slots.max())

    def with_slots(self, lane: int, slots: Int) -> Parameter:
        """With other numbers in a lane."""
        changed = self.slots.copy()
        changed[lane] = slots
        return replace(self, slots=changed)


@dataclass(frozen=True, eq=False)
class LayerMap:
    """One layer on its lanes.

    index : position of the layer in the network.
    projections : where its events come from.
    n_out, lanes, n_slots : neurons, lanes P, slots of every lane.
    lane, slot : int64 (n_out,); place of each neuron. Of a picture, lanes own whole channels: the slot of (c, y, x) is
        ``(rank * H + y) * W + x``, rank being the channel's place among those of its lane.
    row_start, row_count : int64 (lanes, n_rows); a lane's synapses, or taps, of each row; rows of a stream of events
        one after the other.
    synapse_slot, synapse_weight : one int64 array per lane, ordered by row, then slot. Of a tap, ``synapse_slot`` is
        what an event's base is added to, modulo a power of two.
    synapse_step : of taps, one int64 (2, n) array per lane: steps along y and x; else None.
    synapse_source, synapse_target : as above, the frozen network's indices, of channels for taps (for reports; not in
        hardware).
    picture : (channels, height, width) if the neurons are placed as a picture, else None.
    parameters : of the slots, by name, those that the layer uses: a threshold if it spikes, a bias, the leak's numbers.
    spiking : False for the last layer of a membrane readout, whose thresholds are not used.
    weight_bits : bits of one weight.
    balance : mean over greatest load of the lanes, summed over the accumulations that guided the placement; the lane
        use that no overhead would leave. 1 is perfect.
    encoding : how rows and synapses lie in memory.
    pipeline : how many registers cut the lanes' datapath.
    capacity : of a loadable machine, from which slots, addresses, words and depths follow; else None.
    lockstep : whether all lanes walk a row at once: one row table and one synapse memory, whose words hold a slot and a
        weight for each lane. A lane with fewer synapses in a row than another adds 0 to slot 0 meanwhile.
    streams : events that it takes in a clock. A lane has so many row tables and synapse memories, each with the rows of
        the sources of one stream.
    schedule : whether a source's row is walked in every timestep in which it fires, or once a sample.
    """

    index: int
    projections: tuple[ProjectionMap, ...]
    n_out: int
    lanes: int
    n_slots: int
    lane: Int
    slot: Int
    row_start: Int
    row_count: Int
    synapse_slot: tuple[Int, ...]
    synapse_weight: tuple[Int, ...]
    synapse_source: tuple[Int, ...]
    synapse_target: tuple[Int, ...]
    synapse_step: tuple[Int, ...] | None
    picture: Shape | None
    parameters: dict[str, Parameter]
    spiking: bool
    weight_bits: int
    balance: float
    encoding: Encoding = PLAIN
    pipeline: Pipeline = "deep"
    capacity: Capacity | None = None
    lockstep: bool = False
    streams: int = 1
    schedule: Schedule = "timestep"

    @property
    def fetchers(self) -> int:
        """Row tables and synapse memories of each stream, each with a fetcher: one per lane, or one for all in lock
        step."""
        return 1 if self.lockstep else self.lanes

    @property
    def lane_bits(self) -> int:
        """Bits of a lane's number within a hardware index; 0 for one lane."""
        return (self.lanes - 1).bit_length()

    @property
    def place_bits(self) -> int:
        """Low bits of an event's address that say where in its channel a neuron is; 0 unless it is a picture's."""
        return low_bits(self.picture) if self.picture else 0

    @property
    def n_ranks(self) -> int:
        """Channels of every lane of a picture; slots otherwise."""
        return self.n_slots // prod(self.picture[1:]) if self.picture else self.n_slots

    @cached_property
    def hardware_index(self) -> Int:
        """int64 (n_out,): address of each neuron in events, rank << lane_bits | lane above the place in the channel."""
        size = prod(self.picture[1:]) if self.picture else 1
        return _own_addresses(self.picture, self.slot[::size] // size, self.lane[::size], self.lane_bits)

    @property
    def index_span(self) -> int:
        """Addresses that an event of this layer can have."""
        return self.n_ranks << (self.lane_bits + self.place_bits)

    @property
    def n_in(self) -> int:
        """Sources of all projections together."""
        return sum(projection.n_in for projection in self.projections)

    @cached_property
    def source_address(self) -> Int:
        """int64 (n_in,): address of each source in events, projection by projection."""
        return np.concatenate([projection.source_address for projection in self.projections])

    @cached_property
    def source_row(self) -> Int:
        """int64 (n_in,): row that each source's event leads to; -1 if it is dropped."""
        return np.concatenate([projection.source_row for projection in self.projections])

    @property
    def convolutions(self) -> list[PictureInput]:
        """How the projections that are convolutions read."""
        found = (projection.reads for projection in self.projections)
        return [reads for reads in found if reads is not None and reads.is_convolution]

    @property
    def n_rows(self) -> int:
        """Rows of a lane, of all streams together."""
        return int(self.row_start.shape[1])

    @property
    def n_addresses(self) -> int:
        """Rows of each row table."""
        return self.n_rows // self.streams

    @cached_property
    def source_stream(self) -> Int:
        """int64 (n_in,): stream in which each source's events come."""
        return np.concatenate([projection.source_stream for projection in self.projections])

    def walked(self, of_rows: Int) -> Int:
        """int64 (lanes, n_in): what an event of each source walks, of ``row_lengths`` or ``row_count``."""
        return np.where(self.source_row >= 0, of_rows[:, self.source_row], 0)

    @property
    def padding_slots(self) -> int:
        """Slots that hold no neuron."""
        return self.lanes * self.n_slots - self.n_out

    @property
    def lane_synapses(self) -> Int:
        """int64 (lanes,): synapses of each lane."""
        return np.array([weights.size for weights in self.synapse_weight], np.int64)

    @property
    def imbalance(self) -> float:
        """Synapses of the fullest lane over the mean; 1 is perfect, also for a layer without synapses."""
        synapses = self.lane_synapses
        return float(synapses.max() / synapses.mean()) if synapses.any() else 1.0

    @cached_property
    def _columns(self) -> list[tuple[dict[str, Int], Int]]:
        """Of each lane: the fields of its synapse words, and the words of each row."""
        found = [
            self.encoding.synapse_columns(count, slot, weight)
            for count, slot, weight in zip(self.row_count, self.synapse_slot, self.synapse_weight, strict=True)
        ]
        for (columns, _), step in zip(found, self.synapse_step or (), strict=bool(self.synapse_step)):
            columns |= {"dy": step[0], "dx": step[1]}
        if not self.lockstep:
            return found
        longest = np.max([words for _, words in found], axis=0)
        return [
            ({name: _spread(column, words, longest) for name, column in columns.items()}, longest)
            for columns, words in found
        ]

    @cached_property
    def row_lengths(self) -> Int:
        """int64 (lanes, n_rows): words of each row, escapes included; the clocks that it is walked in."""
        return np.array([words for _, words in self._columns])

    @cached_property
    def table_lengths(self) -> Int:
        """int64 (lanes, streams, n_addresses): the same by row table."""
        return self.row_lengths.reshape(self.lanes, self.streams, self.n_addresses)

    @cached_property
    def row_record(self) -> Record:
        if self.capacity:
            return self.capacity.record(self.index, "rows")
        return self.encoding.row_record(int(self.table_lengths.sum(axis=2).max()), int(self.row_lengths.max()))

    @property
    def row_depth(self) -> int:
        """Words of each row table."""
        return -(-self.n_addresses // self.encoding.row_group)

    @property
    def given_record(self) -> Record:
        """What a lane's neurons are given for a synapse: {slot, weight}."""
        if self.capacity:
            return self.capacity.given(self.index)
        return PLAIN.synapse_record(self.n_slots, self.weight_bits)

    @property
    def tag(self) -> Record:
        """What an event hands on to the synapses of its row beside its value: no fields, or of a convolution the base
        of its slots and which steps of a tap land."""
        if not self.convolutions:
            return Record(())
        y, x = (max(reads.steps[axis] for reads in self.convolutions) for axis in (0, 1))
        base = Field("base", index_width(self.n_slots))
        return Record((base, Field("reach_y", y), Field("reach_x", x)))

    @property
    def fetched_record(self) -> Record:
        """What a fetcher gives: {slot, weight} for its lane, or {slot0, weight0, slot1, ...} for all in lock step."""
        return self.synapse_record if self.lockstep else self.given_record

    @property
    def synapse_record(self) -> Record:
        if self.capacity:
            return self.capacity.record(self.index, "synapses")
        own = self.encoding.synapse_record(self.n_slots, self.weight_bits)
        if self.convolutions:
            _, y, x = self.tag
            own = Record((*own.fields, Field("dy", index_width(y.width)), Field("dx", index_width(x.width))))
        return in_lockstep(own, self.lanes) if self.lockstep else own

    @cached_property
    def parameter_record(self) -> Record:
        """Word of a slot's parameters; no fields if all are constants."""
        if self.capacity:
            return self.capacity.record(self.index, "parameters")
        stored = {name: part.range for name, part in self.parameters.items() if part.constant is None}
        return parameter_word({name: parameter_width(name, *limits) for name, limits in stored.items()})

    @property
    def constants(self) -> dict[str, int | None]:
        """The layer-wide number of each parameter, or None if it is in memory."""
        return {name: part.constant for name, part in self.parameters.items()}

    def image(self, lane: int, role: str, stream: int = 0) -> str:
        """Path of a memory's image in the bundle; rows and synapses in lock step are of no lane."""
        if role == "parameters":
            return f"images/l{self.index}_p{lane}_{role}.mem"
        of_lane = "" if self.lockstep else f"_p{lane}"
        return f"images/l{self.index}{of_lane}{_of_stream(stream, self.streams)}_{role}.mem"

    def words(self, role: Role, lane: int, stream: int = 0) -> npt.NDArray[Any]:
        """Contents of one memory."""
        if role == "parameters":
            return self.parameter_words(lane)
        return (self.row_words if role == "rows" else self.synapse_words)(lane, stream)

    def row_words(self, lane: int, stream: int = 0) -> npt.NDArray[Any]:
        """Contents of one of a lane's row tables."""
        lengths = self.table_lengths[lane, stream]
        return self.row_record.pack(self.encoding.row_columns(_starts(lengths), lengths))

    def synapse_depth(self, lane: int, stream: int = 0) -> int:
        """Words of one of a lane's synapse memories."""
        if self.capacity:
            return self.capacity.layers[self.index].synapses
        return max(1, int(self.table_lengths[lane, stream].sum()))

    def synapse_columns(self, lane: int, stream: int) -> dict[str, Int]:
        """Fields of the words of one of a lane's synapse memories."""
        ends = np.cumsum(self.table_lengths[lane].sum(axis=1))
        part = slice(int(ends[stream] - self.table_lengths[lane, stream].sum()), int(ends[stream]))
        return {name: column[part] for name, column in self._columns[lane][0].items()}

    def synapse_words(self, lane: int, stream: int = 0) -> npt.NDArray[np.int64]:
        """Contents of one of a lane's synapse memories, zeros behind the synapses; they are never read."""
        columns = self.synapse_columns(lane, stream)
        if self.lockstep:
            columns = {
                f"{name}{p}": column
                for p in range(self.lanes)
                for name, column in self.synapse_columns(p, stream).items()
            }
        words = self.synapse_record.pack(columns)
        return np.pad(words, (0, self.synapse_depth(lane, stream) - words.size))

    @cached_property
    def parameters_per_channel(self) -> bool:
        """Whether one word of parameters serves a whole channel of a picture."""
        if self.picture is None:
            return False
        size = prod(self.picture[1:])
        of_channels = (part.slots.reshape(-1, size) for part in self.parameters.values())
        return all(bool(np.all(part == part[:, :1])) for part in of_channels)

    @property
    def parameter_depth(self) -> int:
        """Words of each parameter memory, if there are any."""
        return self.n_ranks if self.parameters_per_channel else self.n_slots

    def parameter_words(self, lane: int) -> npt.NDArray[Any]:
        """Contents of a lane's parameter memory; empty if there is none."""
        record = self.parameter_record
        if not record.fields:
            return np.zeros(0, np.int64)
        step = self.n_slots // self.parameter_depth
        return record.pack({field.name: self.parameters[field.name].slots[lane][::step] for field in record})


@dataclass(frozen=True, eq=False)
class FoldedMap:
    """All layers in the memories of one engine (shape 'folded'): each lane has one row table and one synapse memory for
    each stream of events, one parameter memory, and its slots in one state memory. Layers begin at bases whose low bits
    are free, so that an address is ``base | index``.

    layers : the layers, all of the same lanes.
    row_base, slot_base : of each layer, in every lane.
    """

    layers: tuple[LayerMap, ...]
    capacity = None

    @property
    def lanes(self) -> int:
        return self.layers[0].lanes

    @cached_property
    def row_base(self) -> list[int]:
        return _aligned([layer.n_addresses for layer in self.layers])

    @cached_property
    def slot_base(self) -> list[int]:
        return _aligned([layer.n_slots for layer in self.layers])

    @property
    def n_addresses(self) -> int:
        """Rows of each row table, unused ones between the layers included."""
        return self.row_base[-1] + self.layers[-1].n_addresses

    @property
    def n_slots(self) -> int:
        """Slots of each lane, unused ones between the layers included."""
        return self.slot_base[-1] + self.layers[-1].n_slots

    @property
    def parameter_depth(self) -> int:
        """Words of each parameter memory, if there are any."""
        return self.n_slots

    @cached_property
    def lane_synapses(self) -> Int:
        """int64 (lanes,): synapses of each lane."""
        return np.sum([layer.lane_synapses for layer in self.layers], axis=0)

    @property
    def fetchers(self) -> int:
        """Row tables and synapse memories of each stream, one of each per lane."""
        return self.lanes

    @property
    def streams(self) -> int:
        """Events that it takes in a clock."""
        return self.layers[0].streams

    @property
    def encoding(self) -> Encoding:
        """That of all layers."""
        return self.layers[0].encoding

    @property
    def pipeline(self) -> Pipeline:
        """That of all layers."""
        return self.layers[0].pipeline

    @cached_property
    def table_lengths(self) -> Int:
        """int64 (lanes, streams, n_addresses): words of each row, escapes included; 0 between the layers."""
        words = np.zeros((self.lanes, self.streams, self.n_addresses), np.int64)
        for base, layer in zip(self.row_base, self.layers, strict=True):
            words[:, :, base : base + layer.n_addresses] = layer.table_lengths
        return words

    @cached_property
    def row_record(self) -> Record:
        return self.encoding.row_record(int(self.table_lengths.sum(axis=2).max()), int(self.table_lengths.max()))

    @property
    def row_depth(self) -> int:
        """Words of each row table."""
        return -(-self.n_addresses // self.encoding.row_group)

    @property
    def _widest(self) -> tuple[int, int]:
        """Slots of the largest layer, and bits of the widest weight."""
        return max(layer.n_slots for layer in self.layers), max(layer.weight_bits for layer in self.layers)

    @property
    def given_record(self) -> Record:
        """What a lane's neurons are given for a synapse: {slot within the layer, weight}."""
        return PLAIN.synapse_record(*self._widest)

    @property
    def fetched_record(self) -> Record:
        """What a fetcher gives for its lane."""
        return self.given_record

    @property
    def synapse_record(self) -> Record:
        return self.encoding.synapse_record(*self._widest)

    @property
    def constants(self) -> dict[str, list[int] | None]:
        """Each parameter's number by layer, 0 where it is not used; None if a layer has it in memory, which then all
        have."""
        found: dict[str, list[int] | None] = {}
        for name in PARAMETERS:
            parts = [layer.parameters.get(name) for layer in self.layers]
            if any(parts):
                numbers = [0 if part is None else part.constant for part in parts]
                known = [number for number in numbers if number is not None]
                found[name] = known if len(known) == len(numbers) else None
        return found

    @cached_property
    def parameter_record(self) -> Record:
        """Word of a slot's parameters; no fields if all are constants of the layers."""
        widths = {}
        for name in (name for name, numbers in self.constants.items() if numbers is None):
            ranges = [layer.parameters[name].range for layer in self.layers if name in layer.parameters]
            # Words between the layers are 0.
            low, high = min(0, *(low for low, _ in ranges)), max(high for _, high in ranges)
            widths[name] = parameter_width(name, low, high)
        return parameter_word(widths)

    def image(self, lane: int, role: str, stream: int = 0) -> str:
        """Path of a memory's image in the bundle."""
        of_stream = "" if role == "parameters" else _of_stream(stream, self.streams)
        return f"images/p{lane}{of_stream}_{role}.mem"

    def words(self, role: Role, lane: int, stream: int = 0) -> npt.NDArray[Any]:
        """Contents of one memory."""
        if role == "parameters":
            return self.parameter_words(lane)
        return (self.row_words if role == "rows" else self.synapse_words)(lane, stream)

    def row_words(self, lane: int, stream: int = 0) -> npt.NDArray[Any]:
        """Contents of one of a lane's row tables; starts count from the begin of the shared synapse memory."""
        words = self.table_lengths[lane, stream]
        return self.row_record.pack(self.encoding.row_columns(_starts(words), words))

    def synapse_depth(self, lane: int, stream: int = 0) -> int:
        """Words of one of a lane's synapse memories."""
        return max(1, int(self.table_lengths[lane, stream].sum()))

    def synapse_words(self, lane: int, stream: int = 0) -> npt.NDArray[np.int64]:
        """Contents of one of a lane's synapse memories; one without synapses has one word, 0, that is never read."""
        columns = [layer.synapse_columns(lane, stream) for layer in self.layers]
        words = self.synapse_record.pack(
            {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
        )
        return np.pad(words, (0, self.synapse_depth(lane, stream) - words.size))

    def parameter_words(self, lane: int) -> npt.NDArray[Any]:
        """Contents of a lane's parameter memory, zeros between the layers; empty if there is none."""
        record = self.parameter_record
        if not record.fields:
            return np.zeros(0, np.int64)
        columns = {field.name: np.zeros(self.n_slots, np.int64) for field in record}
        for base, layer in zip(self.slot_base, self.layers, strict=True):
            for name in columns.keys() & layer.parameters.keys():
                columns[name][base : base + layer.n_slots] = layer.parameters[name].slots[lane]
        return record.pack(columns)


def _spread(column: Int, words: Int, wanted: Int) -> Int:
    """A lane's words, row by row, with zeros behind each row up to ``wanted`` words."""
    place = np.arange(column.size) + np.repeat(np.cumsum(wanted - words) - (wanted - words), words)
    found = np.zeros(int(wanted.sum()), np.int64)
    found[place] = column
    return found


def _of_stream(stream: int, streams: int) -> str:
    """Part of an image's name."""
    return f"_s{stream}" if streams > 1 else ""


def _starts(lengths: Int) -> Int:
    """First word of each row of rows that lie one after the other; 0 of empty ones."""
    return np.where(lengths > 0, np.cumsum(lengths) - lengths, 0)


def _aligned(sizes: Sequence[int]) -> list[int]:
    """Begin of each block, a multiple of the power of two that its size fits in."""
    bases, end = [], 0
    for size in sizes:
        step = 1 << (size - 1).bit_length()
        bases.append(-(-end // step) * step)
        end = bases[-1] + size
    return bases


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
    def folded(self) -> FoldedMap | None:
        """The layers' shared memories in shape 'folded'; None if each layer has its own."""
        return FoldedMap(self.layers) if self.choices.folded else None

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
    ``choices`` say. A last layer that is a picture has one lane if its values leave with the last timestep alone.

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
        # Values that pass the readout by leave as the sweep makes them: of a picture in order on one lane alone.
        if _picture(network, len(network.layers) - 1) and (choices.counts or network.readout == "membrane_last"):
            used_lanes[-1] = 1
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
    return replace(mapping, layers=tuple(_compact(mapping.layers, mapping.choices.folded)))


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
        raise InputError(f"lanes has {len(lanes)} entries for {len(network.layers)} layers")
    for index, count in enumerate(lanes):
        if not is_whole(count, 1, MAX_LANES):
            raise InputError(f"lanes of layer {index} = {count!r} is outside 1..{MAX_LANES}")
    if events is not None:
        if len(events) != len(network.layers):
            raise InputError(f"events has {len(events)} entries for {len(network.layers)} layers")
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


def _compact(layers: Sequence[LayerMap], folded: bool) -> list[LayerMap]:
    """The layers with the encodings of the fewest bits."""
    if not folded:
        return [
            replace(layer, encoding=smallest(_of_walkers([layer]), layer.n_slots, layer.weight_bits))
            for layer in layers
        ]
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


def _own_addresses(picture: Shape | None, rank: Int, lane: Int, lane_bits: int) -> Int:
    """int64 (n_out,): rank << lane_bits | lane of each unit, above the place in the channel of a picture."""
    unit = (rank << lane_bits) | lane
    return unit if picture is None else addresses(picture, unit)


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
        own = _own_addresses(picture, rank, of_unit, lane_bits), span
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

    # What a tap adds to an event's base may be negative: it counts modulo the slots' power of two.
    slot_of = (rank[stored.unit] * size + stored.place) & ((1 << index_width(n_slots)) - 1)
    order = np.lexsort((slot_of, stored.row, of_unit[stored.unit]))
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
