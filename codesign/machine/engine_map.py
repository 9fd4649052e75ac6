"""What lies in the memories of an engine: rows, synapses and parameters of the layers that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.machine.capacity import Capacity, Role
from codesign.machine.choices import Pipeline
from codesign.machine.encoding import PLAIN, Encoding
from codesign.machine.layer_map import LayerMap
from codesign.machine.layouts import (
    PARAMETERS,
    Field,
    Record,
    in_lockstep,
    index_width,
    parameter_width,
    parameter_word,
)

Int = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EngineMap:
    """The layers of an engine, one or several, in its memories: each lane has one row table and one synapse memory for
    each stream of events (in lock step all lanes together), one parameter memory, and its slots in one state memory.
    Layers begin at bases whose low bits are free, so that an address is ``base | index``; a single one at 0.

    layers : the layers, all of the same lanes, streams, encoding and pipeline.
    row_base, slot_base, parameter_base : of each layer, in every lane.
    """

    layers: tuple[LayerMap, ...]

    @property
    def is_shared(self) -> bool:
        """Whether several layers have their turns."""
        return len(self.layers) > 1

    @property
    def index(self) -> int:
        """Of its first layer."""
        return self.layers[0].index

    @property
    def lanes(self) -> int:
        return self.layers[0].lanes

    @property
    def lane_bits(self) -> int:
        """Bits of a lane's number within a hardware index; 0 for one lane."""
        return self.layers[0].lane_bits

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

    @property
    def lockstep(self) -> bool:
        """Whether all lanes walk a row at once."""
        return self.layers[0].lockstep

    @property
    def fetchers(self) -> int:
        """Row tables and synapse memories of each stream, each with a fetcher: one per lane, or one for all in lock
        step."""
        return self.layers[0].fetchers

    @property
    def capacity(self) -> Capacity | None:
        """Of a loadable machine, whose engines serve one layer each."""
        return self.layers[0].capacity

    @cached_property
    def row_base(self) -> list[int]:
        return _aligned([layer.n_addresses for layer in self.layers])

    @cached_property
    def slot_base(self) -> list[int]:
        return _aligned([layer.n_slots for layer in self.layers])

    @cached_property
    def parameter_base(self) -> list[int]:
        return _aligned([layer.parameter_depth for layer in self.layers])

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
        return self.parameter_base[-1] + self.layers[-1].parameter_depth

    @cached_property
    def table_lengths(self) -> Int:
        """int64 (lanes, streams, n_addresses): words of each row, escapes included; 0 between the layers."""
        words = np.zeros((self.lanes, self.streams, self.n_addresses), np.int64)
        for base, layer in zip(self.row_base, self.layers, strict=True):
            words[:, :, base : base + layer.n_addresses] = layer.table_lengths
        return words

    @cached_property
    def row_record(self) -> Record:
        if self.capacity:
            return self.capacity.record(self.index, "rows")
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
        if self.capacity:
            return self.capacity.given(self.index)
        return PLAIN.synapse_record(*self._widest)

    @property
    def fetched_record(self) -> Record:
        """What a fetcher gives: {slot, weight} for its lane, or {slot0, weight0, slot1, ...} for all in lock step."""
        return self.synapse_record if self.lockstep else self.given_record

    @cached_property
    def tag(self) -> Record:
        """What an event hands on to the synapses of its row beside its value: no fields, or where there are
        convolutions the base of its slots and which steps of a tap land."""
        reads = [found for layer in self.layers for found in layer.convolutions]
        if not reads:
            return Record(())
        y, x = (max(found.steps[axis] for found in reads) for axis in (0, 1))
        return Record((Field("base", index_width(self._widest[0])), Field("reach_y", y), Field("reach_x", x)))

    @property
    def _own_synapse(self) -> Record:
        """Word of a synapse, of one lane."""
        own = self.encoding.synapse_record(*self._widest)
        if self.tag.fields:
            _, y, x = self.tag
            own = Record((*own.fields, Field("dy", index_width(y.width)), Field("dx", index_width(x.width))))
        return own

    @property
    def synapse_record(self) -> Record:
        if self.capacity:
            return self.capacity.record(self.index, "synapses")
        return in_lockstep(self._own_synapse, self.lanes) if self.lockstep else self._own_synapse

    @cached_property
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
        if self.capacity:
            return self.capacity.record(self.index, "parameters")
        widths = {}
        for name in (name for name, numbers in self.constants.items() if numbers is None):
            ranges = [layer.parameters[name].range for layer in self.layers if name in layer.parameters]
            low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
            # Words between the layers are 0.
            widths[name] = parameter_width(name, min(0, low) if self.is_shared else low, high)
        return parameter_word(widths)

    def image(self, lane: int, role: str, stream: int = 0) -> str:
        """Path of a memory's image in the bundle; rows and synapses in lock step are of no lane."""
        of_walker = role != "parameters"
        parts = [
            *([] if self.is_shared else [f"l{self.index}"]),
            *([] if of_walker and self.lockstep else [f"p{lane}"]),
            *([f"s{stream}"] if of_walker and self.streams > 1 else []),
            role,
        ]
        return f"images/{'_'.join(parts)}.mem"

    def words(self, role: Role, lane: int, stream: int = 0) -> npt.NDArray[Any]:
        """Contents of one memory."""
        if role == "parameters":
            return self.parameter_words(lane)
        return (self.row_words if role == "rows" else self.synapse_words)(lane, stream)

    def row_words(self, lane: int, stream: int = 0) -> npt.NDArray[Any]:
        """Contents of one of a lane's row tables; starts count from the begin of the shared synapse memory."""
        words = self.table_lengths[lane, stream]
        starts = np.where(words > 0, np.cumsum(words) - words, 0)
        return self.row_record.pack(self.encoding.row_columns(starts, words))

    def synapse_depth(self, lane: int, stream: int = 0) -> int:
        """Words of one of a lane's synapse memories."""
        if self.capacity:
            return self.capacity.layers[self.index].synapses
        return max(1, int(self.table_lengths[lane, stream].sum()))

    def synapse_words(self, lane: int, stream: int = 0) -> npt.NDArray[np.int64]:
        """Contents of one of a lane's synapse memories, zeros behind the synapses; they are never read."""
        columns = self._synapse_columns(lane, stream)
        if self.lockstep:
            columns = {
                f"{name}{p}": column
                for p in range(self.lanes)
                for name, column in self._synapse_columns(p, stream).items()
            }
        words = self.synapse_record.pack(columns)
        return np.pad(words, (0, self.synapse_depth(lane, stream) - words.size))

    def _synapse_columns(self, lane: int, stream: int) -> dict[str, Int]:
        """Fields of the words of one of a lane's synapse memories."""
        parts = [layer.synapse_columns(lane, stream) for layer in self.layers]
        names = [item.name for item in self._own_synapse]
        found = {
            # Single synapses beside taps have steps of 0.
            name: np.concatenate(
                [part[name] if name in part else np.zeros(next(iter(part.values())).size, np.int64) for part in parts]
            )
            for name in names
        }
        if "slot" in found:
            # What a tap adds to an event's base counts modulo the slots' power of two.
            found["slot"] &= (1 << index_width(self._widest[0])) - 1
        return found

    def parameter_words(self, lane: int) -> npt.NDArray[Any]:
        """Contents of a lane's parameter memory, zeros between the layers; empty if there is none."""
        record = self.parameter_record
        if not record.fields:
            return np.zeros(0, np.int64)
        columns = {field.name: np.zeros(self.parameter_depth, np.int64) for field in record}
        for base, layer in zip(self.parameter_base, self.layers, strict=True):
            step = layer.n_slots // layer.parameter_depth
            for name in columns.keys() & layer.parameters.keys():
                columns[name][base : base + layer.parameter_depth] = layer.parameters[name].slots[lane][::step]
        return record.pack(columns)


def _aligned(sizes: Sequence[int]) -> list[int]:
    """Begin of each block, a multiple of the power of two that its size fits in."""
    bases, end = [], 0
    for size in sizes:
        step = 1 << (size - 1).bit_length()
        bases.append(-(-end // step) * step)
        end = bases[-1] + size
    return bases
