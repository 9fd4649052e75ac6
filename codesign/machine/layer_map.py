"""A layer on its lanes: which neuron sits where, which rows its events walk, and which synapses lie in a lane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from codesign.contract.network.connections import Shape
from codesign.machine.capacity import Capacity
from codesign.machine.choices import Pipeline
from codesign.machine.encoding import PLAIN, Encoding
from codesign.machine.pictures import PictureInput, addresses, low_bits
from codesign.machine.schedules import Schedule
from codesign.machine.streams import address_within, span_within, stream_of

Int = npt.NDArray[np.int64]


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

    @cached_property
    def reach(self) -> tuple[Int, Int]:
        """int64 (n_in,) along y and along x: bit k says whether step k of a tap lands, for an event of each source. Of
        what is no convolution step 0 alone, which always does."""
        if self.reads is None or not self.reads.is_convolution:
            return np.ones(self.n_in, np.int64), np.ones(self.n_in, np.int64)
        _, height, width = self.reads.shape
        place = np.arange(self.n_in)
        return self.reads.y.reach[place // width % height], self.reads.x.reach[place % width]

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
        what an event's base is added to; it may be negative.
    synapse_step : of taps, one int64 (2, n) array per lane: steps along y and x; else None.
    synapse_source, synapse_target : as above, the frozen network's indices, of channels for taps; not in
        hardware.
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
        return own_addresses(self.picture, self.slot[::size] // size, self.lane[::size], self.lane_bits)

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

    @property
    def constants(self) -> dict[str, int | None]:
        """The layer-wide number of each parameter, or None if it is in memory."""
        return {name: part.constant for name, part in self.parameters.items()}

    def synapse_columns(self, lane: int, stream: int) -> dict[str, Int]:
        """Fields of the words of one of a lane's synapse memories."""
        ends = np.cumsum(self.table_lengths[lane].sum(axis=1))
        part = slice(int(ends[stream] - self.table_lengths[lane, stream].sum()), int(ends[stream]))
        return {name: column[part] for name, column in self._columns[lane][0].items()}

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
        """Words of each lane's parameters, if there are any."""
        return self.n_ranks if self.parameters_per_channel else self.n_slots


def own_addresses(picture: Shape | None, rank: Int, lane: Int, lane_bits: int) -> Int:
    """int64 (n_out,): rank << lane_bits | lane of each unit, above the place in the channel of a picture."""
    unit = (rank << lane_bits) | lane
    return unit if picture is None else addresses(picture, unit)


def _spread(column: Int, words: Int, wanted: Int) -> Int:
    """A lane's words, row by row, with zeros behind each row up to ``wanted`` words."""
    place = np.arange(column.size) + np.repeat(np.cumsum(wanted - words) - (wanted - words), words)
    found = np.zeros(int(wanted.sum()), np.int64)
    found[place] = column
    return found
