"""A delivered machine under mutation: its files, its memories by their fields, and what can be seen of a fault.

A fault is seen if the golden model of the faulty machine differs from the original's in a timestep that counts.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.basics.files import file_hash, write_bytes, write_json, write_text
from codesign.contract import golden
from codesign.contract.network import INPUT, Convolution, FrozenLayer, FrozenNetwork, Synapses
from codesign.contract.sidecar import SIDECAR, LayerEntry, MemoryImage, PictureInput, Sidecar, WordField, read_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.machine.choices import Choices
from sim.bundle import read_image, unpack
from sim.decoder import decode_bundle
from sim.delivered import delivered_choices
from sim.mutants.walks import Axes, Events, Land, Walk, axes_of, events_at, lands, walk_of

Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
CRC_BYTES = 4


class NotApplicable(Exception):
    """The machine has no place for this mutant, or the samples do not show it."""


class Absent(NotApplicable):
    """The machine has no such memory or field, wherever one draws."""


@dataclass(frozen=True)
class Mutant:
    """A mutated bundle to simulate, or the error for which there is none.

    component : what the fault is in. reason : why it can be seen. loads : it is seen when a network is loaded.
    """

    name: str
    kind: str
    component: str
    bundle: Path
    reason: str
    error: str | None = None
    loads: bool = False


@dataclass(frozen=True)
class Row:
    """What an event of a source walks in a lane, in the tables of its stream: the address of the row and of its words,
    and for each word a slot, a weight and whether it holds a synapse, or a tap that lands."""

    lane: int
    stream: int
    source: int
    address: int
    words: Int
    slots: Int
    weights: Int
    holds: Bool

    @property
    def place(self) -> tuple[int, int]:
        """Lane and stream: which memories hold it."""
        return self.lane, self.stream


@dataclass(frozen=True, eq=False)
class Scene:
    """A bundle, the network that it holds, the samples that are simulated, and what the golden model says of them."""

    bundle: Path
    network: FrozenNetwork
    stimulus: Stimulus

    @cached_property
    def sidecar(self) -> Sidecar:
        return read_sidecar(self.bundle)

    @cached_property
    def choices(self) -> Choices:
        return delivered_choices(self.bundle)

    @cached_property
    def trace(self) -> golden.Trace:
        return golden.run(self.network, self.stimulus, early_exit=self.choices.early_exit)

    @cached_property
    def counts(self) -> Bool:
        """bool (N, T): the timesteps that count."""
        return np.arange(self.network.timesteps) <= self.trace.exits[:, None]

    @property
    def last(self) -> int:
        """Index of the last layer."""
        return len(self.network.layers) - 1

    def spiking(self, layer: int) -> bool:
        return layer < self.last or not self.network.membrane_readout

    def engine_layers(self) -> list[int]:
        """Layers of the first engine: all of a folded one."""
        return list(range(self.last + 1)) if self.choices.folded else [0]

    def same_engine(self, index: int) -> list[int]:
        """Layers of a layer's engine, itself among them."""
        return self.engine_layers() if self.choices.folded else [index]

    def engine(self, index: int) -> str:
        """Name of a layer's engine."""
        return "engine0" if self.choices.folded else f"engine{index}"

    def reader(self, index: int, number: int) -> str:
        """Name of what reads a picture for a projection."""
        return f"engine0_reader{index}_{number}" if self.choices.folded else f"engine{index}_reader{number or ''}"

    def spikes(self, layer: int) -> Bool:
        """bool (N, T, n_out): spikes that count."""
        return self.trace.spikes[layer] & self.counts[:, :, None]

    def resting(self, layer: int) -> Bool:
        """bool (N, T, n_out): neurons that rest, which have fired in the layer's refractory period before."""
        spikes = self.trace.spikes[layer]
        found = np.zeros_like(spikes)
        for steps in range(1, min(self.network.layers[layer].refractory, self.network.timesteps - 1) + 1):
            found[:, steps:] |= spikes[:, :-steps]
        return found

    @cached_property
    def has_events(self) -> bool:
        """True if some source sends an event in a timestep that counts."""
        return bool(self.active(0).any())

    def active(self, layer: int) -> Bool:
        """bool (n_in,): the layer's sources that send an event in a timestep that counts, projection by projection."""
        return np.concatenate(
            [self._active(projection.source, layer) for projection in self.network.layers[layer].projections]
        )

    def _active(self, source: int, layer: int) -> Bool:
        if source != INPUT:
            # A layer's own events come a timestep later.
            spikes = self.spikes(source)
            return np.asarray((spikes[:, :-1] if source == layer else spikes).any(axis=(0, 1)))
        if self.stimulus.values is not None:
            return np.asarray(self.stimulus.values.any(axis=0))
        return np.asarray((self.stimulus.dense() & self.counts[:, :, None]).any(axis=(0, 1)))

    # Observability ---------------------------------------------------------------------------------

    def shows(self, network: FrozenNetwork) -> bool:
        """True if the golden model of another network differs from the original's in what counts."""
        try:
            other = golden.run(network, self.stimulus, early_exit=self.choices.early_exit)
        except InputError:
            return True
        if not np.array_equal(other.exits, self.trace.exits):
            return True
        if not np.array_equal(other.values, self.trace.values):
            return True
        pairs = [*zip(other.membranes, self.trace.membranes), *zip(other.spikes, self.trace.spikes)]
        pairs += [pair for pair in zip(other.currents, self.trace.currents) if pair[0].shape == pair[1].shape]
        return any(bool(((ours != theirs) & self.counts[:, :, None]).any()) for ours, theirs in pairs)

    def shows_layers(self, change: Callable[[int, FrozenLayer], FrozenLayer], layers: Sequence[int]) -> bool:
        """True if ``change`` of these layers, by index, shows."""
        try:
            changed = [change(i, layer) if i in layers else layer for i, layer in enumerate(self.network.layers)]
            return self.shows(self.network.with_layers(changed))
        except InputError:
            return True

    def shows_images(self, bundle: Path) -> bool:
        """True if what a bundle's images say differs in what counts.

        Of plain layers that is what the decoder understands, of others what the machine walks.
        """
        try:
            other, layers = replace(self, bundle=bundle), []
            for index, have in enumerate(decode_bundle(bundle)):
                if not self.is_plain(index):
                    made = other.with_reached(index, other.reached(index))
                elif have.stray:
                    return False
                else:
                    made = self.with_synapses(index, have.weights[0])
                layers.append(self.with_numbers(index, made, have.numbers))
            return self.shows(self.network.with_layers(layers))
        except (InputError, IndexError):
            return False

    def with_synapses(self, index: int, weights: Int) -> FrozenLayer:
        """A layer with other weights, as :meth:`Synapses.dense` or :meth:`Convolution.dense` give them."""
        layer = self.network.layers[index]
        projection, *others = layer.projections
        kept = projection.connections
        if isinstance(kept, Convolution):
            connections: Convolution | Synapses
            connections = Convolution.from_dense(weights, kept.in_shape, kept.stride, kept.padding)
        else:
            connections = Synapses.from_dense(weights)
        made = replace(layer, projections=(replace(projection, connections=connections), *others), weight_bits=8)
        made.validate("layer")
        return made

    def with_numbers(self, index: int, layer: FrozenLayer, numbers: Mapping[str, Int]) -> FrozenLayer:
        """``layer``, as layer ``index``, with other thresholds, biases and leaks, of those that it uses.

        Raises InputError out of their range.
        """
        used = layer.numbers.keys() - (() if self.spiking(index) else {"threshold"})
        made = layer.with_numbers(**{name: value for name, value in numbers.items() if name in used})
        made.validate("layer")
        return made

    def with_reached(self, index: int, reached: tuple[Int, Int, Int]) -> FrozenLayer:
        """A layer whose sources, neurons without a pool, reach other neurons: ``reached`` holds sources, targets and
        weights, which are added up."""
        layer = self.network.layers[index]
        source, target, weight = reached
        place, at = np.unique(source * layer.n_out + target, return_inverse=True)
        total = np.zeros(place.size, np.int64)
        np.add.at(total, at.ravel(), weight)
        found, first = [], 0
        for projection in layer.projections:
            n_in = projection.n_sources
            own = (place >= first * layer.n_out) & (place < (first + n_in) * layer.n_out)
            rows, columns = np.divmod(place[own] - first * layer.n_out, layer.n_out)
            left, started = total[own], False
            # Weights have 8 bits; larger sums are those of several projections.
            while not started or left.any():
                part = np.clip(left, -127, 127)
                held = part != 0
                indptr = np.searchsorted(rows[held], np.arange(n_in + 1)).astype(np.int64)
                weights = part[held].astype(np.int8)
                synapses = Synapses(n_in, layer.n_out, indptr, columns[held].astype(np.int32), weights)
                found.append(replace(projection, connections=synapses, pool=None))
                left, started = left - part, True
            first += n_in
        made = replace(layer, projections=tuple(found), weight_bits=8)
        made.validate("layer")
        return made

    def shows_rows(self, fault: Callable[[list[Row]], list[Row]], layers: Sequence[int]) -> bool:
        """True if it shows when each lane walks other rows than it should: ``fault`` of a lane's rows, by source."""
        changed = list(self.network.layers)
        try:
            for index in layers:
                entry, parts = self.sidecar.layers[index], []
                neuron = self.neurons(index)
                # A tap's base may lead beyond the last slot.
                most = entry.n_slots if self.is_plain(index) else 1 << self.slot_bits(index)
                for lane in range(entry.lanes):
                    for row in fault(self.rows(index, lane)):
                        slots, values = row.slots[row.holds], row.weights[row.holds]
                        if slots.size and (slots.min() < 0 or slots.max() >= most):
                            return False
                        # What goes to a slot without a neuron is lost.
                        targets = neuron[lane, slots]
                        kept = targets >= 0
                        parts.append((np.full(int(kept.sum()), row.source), targets[kept], values[kept]))
                changed[index] = self.with_reached(index, _joined(parts))
            return self.shows(self.network.with_layers(changed))
        except InputError:
            return True

    def shows_reading(
        self, index: int, number: int, axes: Axes | None = None, address: Int | None = None, land: Land = lands
    ) -> bool:
        """True if it shows when a projection that reads a picture looks coordinates up in other tables or gets the
        sources' events with other addresses, or when the layer lets other taps land."""
        changed = list(self.network.layers)
        try:
            events = self.events(
                index, {} if axes is None else {number: axes}, {} if address is None else {number: address}
            )
            changed[index] = self.with_reached(index, self.reached(index, events, land))
            return self.shows(self.network.with_layers(changed))
        except IndexError:
            # Beyond a memory nobody knows what is read.
            return False
        except InputError:
            return True

    def shows_walking(
        self, layers: Sequence[int], change: Callable[[Events], Events] = lambda events: events, land: Land = lands
    ) -> bool:
        """True if it shows when events lead these layers elsewhere, or other taps of theirs land."""
        changed = list(self.network.layers)
        try:
            for index in layers:
                events = change(self.events(index, {}, {}))
                changed[index] = self.with_reached(index, self.reached(index, events, land))
            return self.shows(self.network.with_layers(changed))
        except IndexError:
            # Beyond a memory nobody knows what is read.
            return False
        except InputError:
            return True

    # Schedules of time -----------------------------------------------------------------------------

    @property
    def collecting_layer(self) -> int | None:
        """The first layer whose events are collected, sample by sample."""
        is_current = self.network.coding.is_current
        return self.first(lambda entry: entry.schedule == "sample" and not (entry.index == 0 and is_current))

    def mask_words(self, index: int) -> int:
        """Words of the largest bank that holds masks for a layer: each has as many masks as fit 32 bits, a power of
        two, of sources whose addresses in a stream follow each other."""
        group = 1 << max(1, 32 // self.network.timesteps).bit_length() - 1
        addresses = self.sidecar.layers[index].addresses
        return max(max(part) // self.sidecar.event_streams // group + 1 for part in addresses)

    def accumulations(self, sample: int) -> Iterator[tuple[Int, Int, int]]:
        """Of the first layer, which reads the input, in a sample: its sources in the order in which lanes walk their
        rows, the first timestep in which each shows, and for how many clocks events may be waited for."""
        entry, values = self.sidecar.layers[0], self.stimulus.values
        if values is not None:
            sources = np.flatnonzero(values[sample])
            yield sources, np.zeros_like(sources), 0
        elif entry.schedule == "timestep":
            for timestep in range(self.network.timesteps):
                sources = np.asarray(self.stimulus.events(sample, timestep), np.int64)
                yield sources, np.full(sources.size, timestep), 0
        else:
            fired = self.stimulus.take([sample]).dense()[0] != 0
            sources = np.flatnonzero(fired.any(axis=0))
            sources = sources[np.argsort(np.asarray(entry.source_address)[sources], kind="stable")]
            yield sources, fired[:, sources].argmax(axis=0), self.mask_words(0)

    def shows_events(self, index: int, change: Callable[[Bool], Bool]) -> bool:
        """True if the layer differs in what counts where ``change`` makes others of each projection's events, bool
        (N, T, n_in)."""
        layer, found = self.network.layers[index], []
        for projection in layer.projections:
            source = projection.source
            events = change(self.stimulus.dense() != 0 if source == INPUT else self.trace.spikes[source])
            factors = golden.projection_matrices(projection, self.network.source_max(index))
            sums = golden.weighted_sums(events.reshape(-1, events.shape[-1]), factors)
            found.append(np.asarray(sums).reshape(*events.shape[:2], layer.n_out))
        other = golden.lif_steps(layer, sum(found[1:], found[0].astype(np.int64)), spiking=self.spiking(index))
        pairs = (other.membranes, self.trace.membranes[index]), (other.spikes, self.trace.spikes[index])
        return any(bool(((ours != theirs) & self.counts[:, :, None]).any()) for ours, theirs in pairs)

    # Pictures --------------------------------------------------------------------------------------

    def first(self, which: Callable[[LayerEntry], bool]) -> int | None:
        """The first layer of a kind."""
        return next((entry.index for entry in self.sidecar.layers if which(entry)), None)

    @property
    def tap_layer(self) -> int | None:
        """The first layer that is a convolution."""
        return self.first(lambda entry: self.has_taps(entry.index))

    def has_taps(self, index: int) -> bool:
        """Whether a layer is a convolution."""
        projections = self.sidecar.layers[index].projections
        return any(part.reads is not None and part.reads.convolution is not None for part in projections)

    def is_plain(self, index: int) -> bool:
        """Whether a layer has one projection, whose events have the addresses of rows."""
        projections = self.sidecar.layers[index].projections
        return len(projections) == 1 and projections[0].reads is None

    def reads(self, index: int, number: int) -> PictureInput:
        """How a projection reads a picture. Raises ValueError if it reads none."""
        reads = self.sidecar.layers[index].projections[number].reads
        if reads is None:
            raise ValueError(f"projection {number} of layer {index} reads no picture")
        return reads

    def addresses(self, index: int, number: int) -> Int:
        """int64 (n_in,): address of each source of a projection in events."""
        return np.asarray(self.sidecar.layers[index].addresses[number], np.int64)

    def slot_bits(self, index: int) -> int:
        """Bits of a slot, as wide as the largest layer of its engine needs."""
        most = max(self.sidecar.layers[layer].n_slots for layer in self.same_engine(index))
        return max(1, (most - 1).bit_length())

    def neurons(self, index: int) -> Int:
        """int64 (lanes, 2**slot_bits): the neuron of each slot, -1 of those without one."""
        entry = self.sidecar.layers[index]
        found = np.full((entry.lanes, 1 << self.slot_bits(index)), -1, np.int64)
        found[list(entry.lane), list(entry.slot)] = np.arange(entry.n_out)
        return found

    def axes(self, index: int, number: int, **changed: Any) -> Axes:
        """Tables of a projection that reads a picture, or those of another pool or padding (:func:`axes_of`)."""
        reads = self.reads(index, number)
        return axes_of(self.sidecar.layers[index], reads, **{"pool": reads.pool, "padding": None, **changed})

    def events(self, index: int, axes: Mapping[int, Axes], addresses: Mapping[int, Int]) -> Events:
        """What the sources' events lead to, projection by projection; some with other tables or addresses."""
        parts = []
        for number, projection in enumerate(self.sidecar.layers[index].projections):
            address = addresses.get(number, self.addresses(index, number))
            streams = self.sidecar.event_streams
            if projection.reads is None:
                # Single synapses beside taps land where they say.
                zero, one = np.zeros_like(address), np.ones_like(address)
                found = Events(address // streams, address % streams, zero, one, one)
            else:
                found = events_at(projection.reads, axes.get(number) or self.axes(index, number), address, streams)
            parts.append(found.from_row(projection.row_base))
        return Events.joined(parts)

    def walk(self, index: int, lane: int, events: Events, land: Land = lands) -> Walk:
        """What a lane walks for some events."""
        found = []
        for stream in range(self.sidecar.event_streams):
            rows, synapses = (self.table(index, role, lane, stream) for role in ("rows", "synapses"))
            found.append(walk_of(rows, synapses, events.of_stream(stream), self.slot_bits(index), land))
        return Walk.joined(found)

    def reached(self, index: int, events: Events | None = None, land: Land = lands) -> tuple[Int, Int, Int]:
        """Numbers of events, neurons and weights that they add there; by default of the sources' events."""
        events, neuron, parts = events or self.events(index, {}, {}), self.neurons(index), []
        for lane in range(self.sidecar.layers[index].lanes):
            found = self.walk(index, lane, events, land)
            target = np.where(found.holds, neuron[lane, found.slot], -1)
            kept = target >= 0
            parts.append((found.event[kept], target[kept], found.weight[kept]))
        return _joined(parts)

    # Memories --------------------------------------------------------------------------------------

    def memory(self, layer: int, role: str, lane: int, stream: int = 0) -> MemoryImage:
        """A memory of the sidecar; rows and synapses in lock step are those of lane 0."""
        entry = self.sidecar.layers[layer]
        wanted = 0 if entry.lockstep and role != "parameters" else lane
        for memory in entry.memories:
            if (memory.role, memory.lane, memory.stream) == (role, wanted, stream):
                return memory
        raise Absent(f"layer {layer} has no {role} memory")

    def table(self, layer: int, role: str, lane: int, stream: int = 0) -> dict[str, Int]:
        """Columns of a memory."""
        found = self._tables.get((layer, role, lane, stream))
        if found is None:
            memory = self.memory(layer, role, lane, stream)
            found = self._tables[layer, role, lane, stream] = unpack(read_image(self.bundle, memory), memory)
        return found

    @cached_property
    def _tables(self) -> dict[tuple[int, str, int, int], dict[str, Int]]:
        return {}

    def parameter_address(self, layer: int, neuron: int) -> int:
        """Word of a neuron's parameters: its slot's, or its channel's."""
        entry = self.sidecar.layers[layer]
        size = entry.picture.size if entry.channel_parameters and entry.picture is not None else 1
        return entry.parameter_base + entry.slot[neuron] // size

    def part(self, layer: int, name: str, lane: int) -> str:
        """Name of a lane's field in a synapse word."""
        return f"{name}{lane}" if self.sidecar.layers[layer].lockstep else name

    def rows(self, layer: int, lane: int) -> list[Row]:
        """The rows of a lane, one per source."""
        found = self._rows.get((layer, lane))
        if found is None:
            found = self._rows[layer, lane] = self._read_rows(layer, lane)
        return found

    @cached_property
    def _rows(self) -> dict[tuple[int, int], list[Row]]:
        return {}

    def _read_rows(self, layer: int, lane: int) -> list[Row]:
        entry, encoding = self.sidecar.layers[layer], self.sidecar.layers[layer].encoding
        if not self.is_plain(layer):
            return self._read_picture_rows(layer, lane)
        group, streams = encoding.row_group, self.sidecar.event_streams
        of_streams = [
            {role: self.table(layer, role, lane, stream) for role in ("rows", "synapses")} for stream in range(streams)
        ]
        found = []
        base = entry.projections[0].row_base
        for source, place in enumerate(entry.source_address):
            address, stream = base + place // streams, place % streams
            tables = of_streams[stream]
            table, held = tables["rows"], tables["synapses"].get(self.part(layer, "weight", lane))
            word, member = divmod(address, group)
            if group == 1:
                first, count = table["start"][word], table["count"][word]
            else:
                counts = [table[f"count{k}"][word] for k in range(group)]
                first, count = table["start"][word] + sum(counts[:member]), counts[member]
            words = np.arange(int(first), int(first) + int(count))
            weights = (
                np.asarray(encoding.codebook, np.int64)[tables["synapses"]["code"][words]]
                if held is None
                else held[words]
            )
            holds = np.ones(words.size, bool)
            if encoding.gap_bits is None:
                slots = tables["synapses"][self.part(layer, "slot", lane)][words]
            else:
                gaps = tables["synapses"]["gap"][words]
                holds = gaps != (1 << encoding.gap_bits) - 1
                slots = np.cumsum(gaps + holds) - 1
            found.append(Row(lane, stream, source, address, words, slots, weights, holds))
        return found

    def _read_picture_rows(self, layer: int, lane: int) -> list[Row]:
        """The rows that sources walk, those of dropped events without words."""
        events = self.events(layer, {}, {})
        walk = self.walk(layer, lane, events)
        bounds = np.searchsorted(walk.event, np.arange(events.row.size + 1)).tolist()
        found = []
        for source, (low, high) in enumerate(pairwise(bounds)):
            part = slice(low, high)
            columns = walk.word[part], walk.slot[part], walk.weight[part]
            place = int(events.stream[source]), source, int(events.row[source])
            found.append(Row(lane, *place, *columns, walk.holds[part]))
        return found

    # Files -----------------------------------------------------------------------------------------

    def copy(self, target: Path) -> Path:
        """A copy of the bundle to change."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.bundle, target)
        return target

    def write_verilog(self, bundle: Path, text: str) -> None:
        name = f"{self.sidecar.name}.v"
        write_text(bundle / name, text)
        _stamp(bundle, name)

    def write_image(self, bundle: Path, memory: MemoryImage, words: Sequence[int]) -> None:
        """Write an image, and the same words into the load image that a machine without contents boots from."""
        digits = -(-memory.width // 4)
        write_text(bundle / memory.image, "".join(f"{word:0{digits}x}\n" for word in words))
        _stamp(bundle, memory.image)
        boot = self.sidecar.load.boot if self.sidecar.load else None
        if boot is not None:
            write_bytes(bundle / boot, self._booted((bundle / boot).read_bytes(), memory.image, words))
            _stamp(bundle, boot)

    def _booted(self, image: bytes, name: str, words: Sequence[int]) -> bytes:
        by_name = {memory.image: memory for memory in self.sidecar.images}
        place = len(image) - CRC_BYTES
        for other in reversed(self.sidecar.load.memories if self.sidecar.load else ()):
            size = -(-by_name[other].width // 8)
            place -= size * by_name[other].depth
            if other == name:
                body = b"".join(word.to_bytes(size, "little") for word in words)
                whole = image[:place] + body + image[place + len(body) : -CRC_BYTES]
                return whole + zlib.crc32(whole).to_bytes(CRC_BYTES, "little")
        raise NotApplicable(f"{name} is not loaded")


def _joined(parts: Sequence[tuple[Int, Int, Int]]) -> tuple[Int, Int, Int]:
    """Triples of arrays, one after the other."""
    source, target, weight = (np.concatenate([np.zeros(0, np.int64), *column]) for column in zip(*parts, strict=True))
    return source, target, weight


def _stamp(bundle: Path, changed: str) -> None:
    """Write the hash of a changed file into the sidecar, so that it is the simulation that has to find the fault."""
    document = json.loads((bundle / SIDECAR).read_text(encoding="utf-8"))
    document["files"][changed] = file_hash(bundle / changed)
    write_json(bundle / SIDECAR, document)


def field_of(memory: MemoryImage, name: str) -> WordField:
    """A field of a memory's word. Raises Absent if it has none of that name."""
    for field in memory.fields:
        if field.name == name:
            return field
    raise Absent(f"{memory.image} has no field {name}")


def put(word: int, field: WordField, value: int) -> int:
    """The word with another value in a field. Raises NotApplicable if it does not fit."""
    low = -(1 << (field.width - 1)) if field.signed else 0
    if not low <= value < low + (1 << field.width):
        raise NotApplicable("the value does not fit its field")
    mask = (1 << field.width) - 1
    return (word & ~(mask << field.offset)) | ((value & mask) << field.offset)
