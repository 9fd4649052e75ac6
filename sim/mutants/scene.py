"""A delivered machine under mutation: its files, its memories by their fields, and what can be seen of a fault.

A fault is seen if the golden model of the faulty machine differs from the original's in a timestep that counts.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign import golden
from codesign.choices import Choices
from codesign.errors import InputError
from codesign.files import file_hash, write_bytes, write_json, write_text
from codesign.network import FrozenLayer, FrozenNetwork
from codesign.sidecar import SIDECAR, MemoryImage, Sidecar, WordField, read_sidecar
from codesign.stimulus import Stimulus
from sim.bundle import read_image, unpack
from sim.decoder import decode_bundle
from sim.delivered import delivered_choices

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
    """What a source's row of a lane holds: addresses of its words, and for each word a slot, a weight and whether it
    holds a synapse."""

    lane: int
    source: int
    address: int
    words: Int
    slots: Int
    weights: Int
    holds: Bool


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

    def spikes(self, layer: int) -> Bool:
        """bool (N, T, n_out): spikes that count."""
        return self.trace.spikes[layer] & self.counts[:, :, None]

    @cached_property
    def has_events(self) -> bool:
        """True if some source sends an event in a timestep that counts."""
        return bool(self.active(0).any())

    def active(self, layer: int) -> Bool:
        """bool (n_in,): the layer's sources that send an event in a timestep that counts."""
        if layer:
            return np.asarray(self.spikes(layer - 1).any(axis=(0, 1)))
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
        return any(bool(((ours != theirs) & self.counts[:, :, None]).any()) for ours, theirs in pairs)

    def shows_layers(self, change: Callable[[int, FrozenLayer], FrozenLayer], layers: Sequence[int]) -> bool:
        """True if ``change`` of these layers, by index, shows."""
        try:
            changed = [change(i, layer) if i in layers else layer for i, layer in enumerate(self.network.layers)]
            return self.shows(self.network.with_layers(changed))
        except InputError:
            return True

    def shows_images(self, bundle: Path) -> bool:
        """True if what a bundle's images say differs in what counts, and is such that the decoder understands it."""
        try:
            decoded = decode_bundle(bundle)
            if any(have.stray for have in decoded):
                return False
            layers = [
                self.with_synapses(index, have.weights, have.bias, have.threshold) for index, have in enumerate(decoded)
            ]
            return self.shows(self.network.with_layers(layers))
        except (InputError, IndexError):
            return False

    def with_synapses(
        self, index: int, weights: Int, bias: Int | None = None, threshold: Int | None = None
    ) -> FrozenLayer:
        """A layer with other synapses, biases and thresholds."""
        layer = self.network.layers[index]
        names = ("leak", "reset", "reset_value", "compare", "fraction_bits", "membrane_width")
        kept = {name: getattr(layer, name) for name in (*names, "trained_index", "trained_width")}
        made = FrozenLayer.from_dense(
            weights, bias=layer.bias if bias is None else bias, threshold=layer.threshold, weight_bits=8
        )
        used = threshold if threshold is not None and self.spiking(index) else layer.threshold
        return replace(made, **kept, threshold=used)

    def shows_rows(self, fault: Callable[[list[Row]], list[Row]], layers: Sequence[int]) -> bool:
        """True if it shows when each lane walks other rows than it should: ``fault`` of a lane's rows, by source."""
        changed = list(self.network.layers)
        try:
            for index in layers:
                entry = self.sidecar.layers[index]
                neuron = np.full((entry.lanes, entry.n_slots), -1, np.int64)
                neuron[list(entry.lane), list(entry.slot)] = np.arange(entry.n_out)
                weights = np.zeros((entry.n_in, entry.n_out), np.int64)
                for lane in range(entry.lanes):
                    for row in fault(self.rows(index, lane)):
                        slots, values = row.slots[row.holds], row.weights[row.holds]
                        if slots.size and (slots.min() < 0 or slots.max() >= entry.n_slots):
                            return False
                        # What goes to a slot without a neuron is lost.
                        targets = neuron[lane, slots]
                        np.add.at(weights[row.source], targets[targets >= 0], values[targets >= 0])
                changed[index] = self.with_synapses(index, weights)
            return self.shows(self.network.with_layers(changed))
        except InputError:
            return True

    # Memories --------------------------------------------------------------------------------------

    def memory(self, layer: int, role: str, lane: int) -> MemoryImage:
        """A memory of the sidecar; rows and synapses in lock step are those of lane 0."""
        entry = self.sidecar.layers[layer]
        wanted = 0 if entry.lockstep and role != "parameters" else lane
        for memory in entry.memories:
            if memory.role == role and memory.lane == wanted:
                return memory
        raise Absent(f"layer {layer} has no {role} memory")

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
        tables = {}
        for role in ("rows", "synapses"):
            memory = self.memory(layer, role, lane)
            tables[role] = unpack(read_image(self.bundle, memory), memory)
        group, table = encoding.row_group, tables["rows"]
        column = {name: tables["synapses"].get(self.part(layer, name, lane)) for name in ("slot", "weight")}
        found = []
        for source, address in enumerate(entry.source_address):
            word, member = divmod(address, group)
            if group == 1:
                first, count = table["start"][word], table["count"][word]
            else:
                counts = [table[f"count{k}"][word] for k in range(group)]
                first, count = table["start"][word] + sum(counts[:member]), counts[member]
            words = np.arange(int(first), int(first) + int(count))
            weights = (
                np.asarray(encoding.codebook, np.int64)[tables["synapses"]["code"][words]]
                if column["weight"] is None
                else column["weight"][words]
            )
            holds = np.ones(words.size, bool)
            if encoding.gap_bits is None:
                slots = column["slot"][words]
            else:
                gaps = tables["synapses"]["gap"][words]
                holds = gaps != (1 << encoding.gap_bits) - 1
                slots = np.cumsum(gaps + holds) - 1
            found.append(Row(lane, source, address, words, slots, weights, holds))
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
