"""Rebuilds synapses, thresholds, biases and leaks from the delivered memory images and the sidecar alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import SIDECAR, LayerEntry, PictureInput, ProjectionEntry, Sidecar, SynapseEncoding
from sim.bundle import read_image, read_sidecar, unpack

Int = npt.NDArray[np.int64]
NUMBERS = (
    *("threshold", "bias", "leak_shift", "leak_multiplier"),
    *("current_leak_shift", "current_leak_multiplier"),
)


@dataclass(frozen=True, eq=False)
class DecodedLayer:
    """What a layer's memories say.

    weights : of each projection int64 (n_in, n_out), sources behind a pool; of a convolution (out channels, in
        channels, height, width). A synapse or tap stored twice counts twice. n_synapses : stored synapses and taps.
    numbers : int64 (n_out,) by name, those of :data:`NUMBERS`; 0 where there is neither a memory nor a constant.
    stray : problems such as synapses of no neuron, in words.
    """

    weights: tuple[Int, ...]
    n_synapses: int
    numbers: dict[str, Int]
    stray: tuple[str, ...]


def decode_bundle(bundle: Path) -> list[DecodedLayer]:
    """Decode every layer. Raises InputError for a damaged sidecar or image."""
    return _decode(bundle, read_sidecar(bundle))


def _decode(bundle: Path, sidecar: Sidecar) -> list[DecodedLayer]:
    try:
        return _decode_layers(bundle, sidecar)
    except (IndexError, KeyError, OverflowError, ValueError) as error:
        # Addresses, fields or codes that the images do not have.
        raise InputError(
            f"{bundle}: the images are not as {SIDECAR} describes them ({error}); generate it again"
        ) from None


def _decode_layers(bundle: Path, sidecar: Sidecar) -> list[DecodedLayer]:
    # The layers of a folded engine share their memories, each with rows and slots of its own.
    rows: dict[str, list[Int]] = {}
    for layer in sidecar.layers:
        for memory in layer.memories:
            if memory.role == "rows":
                here = np.concatenate(_rows(layer))[np.concatenate(_streams(layer)) == memory.stream]
                rows.setdefault(memory.image, []).append(here)
    return [_decode_layer(bundle, layer, rows) for layer in sidecar.layers]


def _units(layer: LayerEntry) -> list[Int]:
    """Of each projection int64: the unit of each of its rows' sources, whose lowest bits tell the stream."""
    found = []
    for projection, addresses in zip(layer.projections, layer.addresses, strict=True):
        unit, reads = np.asarray(addresses, np.int64), projection.reads
        if reads is not None:
            unit = np.repeat(unit[:: reads.picture.size] >> reads.picture.place_bits, reads.phases[0] * reads.phases[1])
        found.append(unit)
    return found


def _streams(layer: LayerEntry) -> list[Int]:
    """Of each projection int64: the stream of each of its rows."""
    return [unit % layer.streams for unit in _units(layer)]


def _rows(layer: LayerEntry) -> list[Int]:
    """Of each projection the addresses of its rows in the tables of their streams, int64: by source, or by channel and
    phase of a picture."""
    found = []
    for projection, unit in zip(layer.projections, _units(layer), strict=True):
        address, reads = unit // layer.streams, projection.reads
        if reads is not None:
            phases = reads.phases[0] * reads.phases[1]
            address = (address << reads.row_bits) | np.arange(address.size) % phases
        found.append(address + projection.row_base)
    return found


def _decode_layer(bundle: Path, layer: LayerEntry, rows_of: dict[str, list[Int]]) -> DecodedLayer:
    n_out, lanes, n_slots = layer.n_out, layer.lanes, layer.n_slots
    neuron = np.full((lanes, n_slots), -1, np.int64)
    neuron[layer.lane, layer.slot] = np.arange(n_out)
    tables: dict[tuple[str, int, int], dict[str, Int]] = {}
    taken: dict[tuple[int, int], Int] = {}
    for memory in layer.memories:
        table = unpack(read_image(bundle, memory), memory)
        place = memory.lane, memory.stream
        tables[memory.role, *place] = _ungrouped(table) if memory.role == "rows" else table
        if memory.role == "rows":
            taken[place] = np.concatenate(rows_of[memory.image])
    projections = list(zip(layer.projections, _rows(layer), _streams(layer), strict=True))
    row_address = np.stack([np.concatenate(column) for column in (_rows(layer), _streams(layer))])
    encoding = layer.encoding
    stray: list[str] = []
    if np.unique(row_address, axis=1).shape != row_address.shape or not _has_addresses_of_its_own(layer):
        stray.append("two sources share a row")
    weights = tuple(_no_weights(layer, projection, rows.size) for projection, rows, _ in projections)
    stored = 0
    numbers = {name: np.full(n_out, getattr(layer, name) or 0, np.int64) for name in NUMBERS}
    lockstep = layer.lockstep
    for lane, stream in product(range(lanes), range(layer.streams)):
        # Lanes in lock step share rows and words; each has its own fields in them.
        shared = 0 if lockstep else lane
        rows, synapses = tables["rows", shared, stream], tables["synapses", shared, stream]
        if lockstep:
            synapses = {name: synapses[f"{name}{lane}"] for name in ("slot", "weight")}
        used = taken[shared, stream]
        unused = np.setdiff1d(np.arange(rows["count"].size), used)
        if rows["count"][unused].any():
            stray.append(f"lane {lane}: a row of no source holds synapses")
        if np.unique(used).size != used.size:
            stray.append(f"lane {lane}: two layers share a row")
        stored += 0 if lockstep else int(rows["count"][unused].sum())
        counted: set[int] = set()
        numbered = (
            (projection, found, int(number), int(addresses[number]))
            for found, (projection, addresses, streams) in zip(weights, projections, strict=True)
            for number in np.flatnonzero(streams == stream)
        )
        for projection, found, source, address in numbered:
            first, count = int(rows["start"][address]), int(rows["count"][address])
            if first + count > next(iter(synapses.values())).size:
                stray.append(f"lane {lane}: the row of source {source} runs past the memory")
            row = {name: column[first : first + count] for name, column in synapses.items()}
            slots, values = _walked(row, encoding)
            if projection.reads is not None and projection.reads.convolution is not None:
                stored += 0 if address in counted else slots.size
                counted.add(address)
                if not _taps(found, row, layer, projection.reads, neuron[lane], source):
                    stray.append(f"lane {lane}: row {source} has a tap that belongs to no channel or kernel")
                continue
            if any(row[name].any() for name in ("dy", "dx") if name in row):
                stray.append(f"lane {lane}: a single synapse of source {source} has steps of a tap")
            if lockstep:
                # A lane without a synapse in a word adds 0 to its first slot.
                holds = (slots != 0) | (values != 0)
                slots, values = slots[holds], values[holds]
            stored += 0 if address in counted else slots.size
            counted.add(address)
            outside = slots >= n_slots
            targets = neuron[lane, np.where(outside, 0, slots)]
            lost = outside | (targets < 0)
            if lost.any():
                stray.append(f"lane {lane}: source {source} reaches a slot without a neuron")
            np.add.at(found[source], targets[~lost], values[~lost])
        if stream:
            continue
        for name, values in tables.get(("parameters", lane, 0), {}).items():
            held = neuron[lane] >= 0
            slots = np.flatnonzero(held)
            if layer.channel_parameters and layer.picture is not None:
                # One word serves a channel.
                slots //= layer.picture.size
            numbers[name][neuron[lane][held]] = values[layer.parameter_base + slots]
    return DecodedLayer(weights, stored, numbers, tuple(stray))


def _no_weights(layer: LayerEntry, projection: ProjectionEntry, n_rows: int) -> Int:
    """Zeros of the shape of a projection's weights."""
    reads = projection.reads
    if reads is None or reads.convolution is None or layer.picture is None:
        return np.zeros((n_rows, layer.n_out), np.int64)
    kernel = reads.convolution
    return np.zeros((layer.picture.channels, reads.picture.channels, kernel.height, kernel.width), np.int64)


def _has_addresses_of_its_own(layer: LayerEntry) -> bool:
    """Whether no two sources of a projection have the same address."""
    return all(len(set(addresses)) == len(addresses) for addresses in layer.addresses)


def _taps(weights: Int, row: dict[str, Int], layer: LayerEntry, reads: PictureInput, neuron: Int, number: int) -> bool:
    """Add a row's taps to the kernel; False if one of them is of no channel, or beyond the kernel.

    neuron : int64 (n_slots,), of the lane's slots, -1 for none. number : of the row, counted by channel, then phase.
    """
    picture = layer.picture
    assert reads.convolution is not None and picture is not None
    kernel = reads.convolution
    channel, phase = divmod(number, reads.phases[0] * reads.phases[1])
    phase_y, phase_x = divmod(phase, reads.phases[1])
    ky, kx = phase_y + kernel.stride * row["dy"], phase_x + kernel.stride * row["dx"]
    width = next(field.width for memory in layer.memories for field in memory.fields if field.name == "slot")
    # What is added to the slot where an event's window begins, for its first row and column.
    first = (row["slot"] + row["dy"] * picture.width + row["dx"]) & ((1 << width) - 1)
    target = neuron[np.minimum(first, neuron.size - 1)]
    good = (first < neuron.size) & (target >= 0) & (target % picture.size == 0)
    good &= (ky < kernel.height) & (kx < kernel.width)
    np.add.at(weights[:, channel], (target[good] // picture.size, ky[good], kx[good]), row["weight"][good])
    return bool(good.all())


def _ungrouped(table: dict[str, Int]) -> dict[str, Int]:
    """start and count of every row, where one word may hold several rows that lie one after the other."""
    if "count" in table:
        return table
    counts = np.stack([table[f"count{k}"] for k in range(len(table) - 1)], axis=1)
    starts = table["start"][:, None] + np.cumsum(counts, axis=1) - counts
    return {"start": starts.ravel(), "count": counts.ravel()}


def _walked(words: dict[str, Int], encoding: SynapseEncoding) -> tuple[Int, Int]:
    """Slots and weights of a row's words."""
    values = words["weight"] if "weight" in words else np.asarray(encoding.codebook or (), np.int64)[words["code"]]
    if "slot" in words:
        return words["slot"], values
    escape = (1 << (encoding.gap_bits or 0)) - 1
    holds = words["gap"] != escape
    slots = np.cumsum(words["gap"] + holds) - 1
    return slots[holds], values[holds]


def compare_decoded(bundle: Path, network: FrozenNetwork) -> dict[str, Any]:
    """Equality of the images with the frozen network, synapse by synapse, as JSON.

    ``{"equal", "compared", "differences", "first"}``: compared counts dense weights and constants.
    """
    return compare_decoded_sidecar(bundle, read_sidecar(bundle), network)


def compare_decoded_sidecar(bundle: Path, sidecar: Sidecar, network: FrozenNetwork) -> dict[str, Any]:
    """As :func:`compare_decoded`, with the images read by a sidecar of one's own."""
    decoded = _decode(bundle, sidecar)
    compared, differences, first = 0, 0, None
    if len(decoded) != len(network.layers):
        return {
            "equal": False,
            "compared": 0,
            "differences": 1,
            "first": f"{len(decoded)} layers, the frozen network has {len(network.layers)}",
        }
    for index, (have, layer) in enumerate(zip(decoded, network.layers, strict=True)):
        spiking = index < len(network.layers) - 1 or not network.membrane_readout
        pairs = [
            ("weight", projection.connections.dense(), found)
            for projection, found in zip(layer.projections, have.weights)
        ]
        numbers = {name: want for name, want in layer.numbers.items() if name != "threshold" or spiking}
        pairs += [(name, want, have.numbers[name]) for name, want in numbers.items()]
        problems = [*have.stray]
        stored = sum(projection.connections.n_weights for projection in layer.projections)
        if have.n_synapses != stored:
            problems.append(f"{have.n_synapses} synapses stored, the frozen network has {stored}")
        if len(have.weights) != len(layer.projections):
            problems.append(f"{len(have.weights)} projections, the frozen network has {len(layer.projections)}")
        for name, want, got in pairs:
            if want.shape != got.shape:
                problems.append(f"{name}s have shape {got.shape}, the frozen network's {want.shape}")
                continue
            compared += int(want.size)
            different = np.argwhere(want != got)
            for at in different[:1]:
                place = ", ".join(map(str, at))
                problems.append(f"{name} [{place}] is {got[tuple(at)]}, the frozen network has {want[tuple(at)]}")
            differences += max(0, len(different) - 1)
        differences += len(problems)
        if problems and first is None:
            first = f"layer {index}: {problems[0]}"
    return {"equal": differences == 0, "compared": compared, "differences": differences, "first": first}
