"""Data mutants: faults in the delivered memory images, drawn until the golden model of what they say differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from codesign.contract.sidecar import MemoryImage
from sim.bundle import read_image, unpack
from sim.mutants.scene import Absent, Mutant, NotApplicable, Row, Scene, field_of, put

DRAWS = 60
# What an image is to hold instead; an edit raises NotApplicable where there is no place for it.
Edit = Callable[[Scene, np.random.Generator], tuple[MemoryImage, list[int]]]
Change = Callable[[int], int]


def data_mutants(scene: Scene, work: Path, rng: np.random.Generator) -> list[Mutant]:
    """The data mutants that the machine has a place for and the samples show; bundles in folders of ``work``."""
    mutants = []
    for name, edit in _edits(scene):
        target = work / name.replace(" ", "_") / "bundle"
        for _ in range(DRAWS):
            try:
                memory, words = edit(scene, rng)
                scene.write_image(scene.copy(target), memory, words)
            except Absent:
                break
            except NotApplicable:
                continue
            if scene.shows_images(target):
                reason = "the golden model of the changed images differs on the verified samples"
                mutants.append(Mutant(name, "data", "memories", target, reason))
                break
    return mutants


def _edits(scene: Scene) -> Iterator[tuple[str, Edit]]:
    """(name, edit) of every data mutant."""
    places = {0: "the first layer", scene.last: "the last layer"}
    for layer, place in places.items():
        yield f"weight plus one in {place}", _synapse(layer, "weight", lambda value: value + 1)
        yield f"weight minus one in {place}", _synapse(layer, "weight", lambda value: value - 1)
        yield f"weight sign in {place}", _synapse(layer, "weight", lambda value: -value)
        yield f"code plus one in {place}", _synapse(layer, "code", lambda value: value + 1)
        yield f"code minus one in {place}", _synapse(layer, "code", lambda value: value - 1)
        yield f"target moved in {place}", _target(layer)
        yield f"gap one more in {place}", _synapse(layer, "gap", lambda value: value + 1)
        yield f"gap one less in {place}", _synapse(layer, "gap", lambda value: value - 1)
        yield f"row starts one late in {place}", _row(layer, "start", 1)
        yield f"row starts one early in {place}", _row(layer, "start", -1)
        yield f"row one longer in {place}", _row(layer, "count", 1)
        yield f"row one shorter in {place}", _row(layer, "count", -1)
        yield f"threshold plus one in {place}", _parameter(layer, "threshold")
        yield f"bias plus one in {place}", _parameter(layer, "bias")
        yield f"leak shift plus one in {place}", _parameter(layer, "leak_shift")
        yield f"leak multiplier minus one in {place}", _parameter(layer, "leak_multiplier", -1)
        yield f"current leak shift plus one in {place}", _parameter(layer, "current_leak_shift")
        yield f"current leak multiplier minus one in {place}", _parameter(layer, "current_leak_multiplier", -1)
        yield f"leaks of two neurons exchanged in {place}", _leaks_exchanged(layer)
        yield f"leak shifts a bit beside their field in {place}", _beside(layer, "leak_shift")
        yield f"leak multipliers a bit beside their field in {place}", _beside(layer, "leak_multiplier")
    yield "weight lost", _synapse(0, "weight", lambda value: 0)
    yield "two synapses exchanged", _exchange
    taps = scene.tap_layer
    if taps is not None:
        yield "tap moved by one in y", _moved(taps, "dy")
        yield "tap moved by one in x", _moved(taps, "dx")
        yield "steps of a tap exchanged", _tap(taps, lambda tap: {"dy": tap["dx"], "dx": tap["dy"]})
        yield "tap lands a column late", _tap(taps, lambda tap: {"slot": tap["slot"] + 1})
        yield "tap stored twice", _twice(taps)


def _drawn_row(scene: Scene, layer: int, rng: np.random.Generator) -> Row:
    """A row with words, of a source that sends an event."""
    active = scene.active(layer)
    lanes = range(scene.sidecar.layers[layer].lanes)
    found = [row for lane in lanes for row in scene.rows(layer, lane) if row.words.size and active[row.source]]
    if not found:
        raise NotApplicable(f"no source of layer {layer} that fires has a synapse")
    return found[int(rng.integers(len(found)))]


def _change(
    scene: Scene, layer: int, role: str, place: tuple[int, int], address: int, name: str, change: Change
) -> tuple[MemoryImage, list[int]]:
    """Another value for a field of a memory's word; ``place`` : its lane and stream."""
    memory = scene.memory(layer, role, *place)
    field = field_of(memory, name)
    words = read_image(scene.bundle, memory)
    (value,) = unpack([words[address]], memory)[name].tolist()
    words[address] = put(words[address], field, change(value))
    return memory, words


def _synapse(layer: int, name: str, change: Change) -> Edit:
    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        row = _drawn_row(scene, layer, rng)
        book = scene.sidecar.layers[layer].encoding.codebook

        def checked(value: int) -> int:
            if name == "code" and not 0 <= change(value) < len(book or ()):
                raise NotApplicable("the codebook has no such entry")
            return change(value)

        word = int(rng.choice(row.words))
        return _change(scene, layer, "synapses", row.place, word, scene.part(layer, name, row.lane), checked)

    return edit


def _target(layer: int) -> Edit:
    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        row = _drawn_row(scene, layer, rng)
        entry = scene.sidecar.layers[layer]
        if entry.picture is not None and scene.memory(layer, "synapses", *row.place).fields[-1].name == "dx":
            # Of a tap: another channel of the lane.
            ranks, bits = entry.n_slots // entry.picture.size, scene.slot_bits(layer)
            if ranks < 2:
                raise NotApplicable("a lane of one channel")
            word, moved = int(rng.choice(row.words)), int(rng.integers(1, ranks)) * entry.picture.size
            return _change(
                scene, layer, "synapses", row.place, word, "slot", lambda slot: (slot + moved) & ((1 << bits) - 1)
            )
        used = [slot for slot, lane in zip(entry.slot, entry.lane, strict=True) if lane == row.lane]
        at = int(rng.integers(row.words.size))
        others = [slot for slot in used if slot != row.slots[at]]
        if not others:
            raise NotApplicable("a lane of one neuron")
        target, name = int(rng.choice(others)), scene.part(layer, "slot", row.lane)
        return _change(scene, layer, "synapses", row.place, int(row.words[at]), name, lambda _: target)

    return edit


def _tap(layer: int, change: Callable[[dict[str, int]], dict[str, int]]) -> Edit:
    """Other fields for a tap; slots count modulo a power of two."""

    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        row = _drawn_row(scene, layer, rng)
        address, memory = int(rng.choice(row.words)), scene.memory(layer, "synapses", *row.place)
        words = read_image(scene.bundle, memory)
        held = {name: int(column[0]) for name, column in unpack([words[address]], memory).items()}
        for name, value in change(held).items():
            wanted = value & ((1 << scene.slot_bits(layer)) - 1) if name == "slot" else value
            words[address] = put(words[address], field_of(memory, name), wanted)
        return memory, words

    return edit


def _moved(layer: int, name: str) -> Edit:
    """A tap is that of the next place in the kernel, or of the one before, for the same phase."""

    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        picture = scene.sidecar.layers[layer].picture
        assert picture is not None
        by, slots = int(rng.choice([-1, 1])), picture.width if name == "dy" else 1
        return _tap(layer, lambda tap: {name: tap[name] + by, "slot": tap["slot"] - by * slots})(scene, rng)

    return edit


def _twice(layer: int) -> Edit:
    """A tap takes the place of another one of its row."""

    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        row = _drawn_row(scene, layer, rng)
        if row.words.size < 2:
            raise NotApplicable("a row of one tap")
        memory = scene.memory(layer, "synapses", *row.place)
        words = read_image(scene.bundle, memory)
        one, other = rng.choice(row.words, 2, replace=False).tolist()
        words[one] = words[other]
        return memory, words

    return edit


def _row(layer: int, name: str, change: int) -> Edit:
    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        row = _drawn_row(scene, layer, rng)
        group = scene.sidecar.layers[layer].encoding.row_group
        word, member = divmod(row.address, group)
        field = name if name == "start" or group == 1 else f"{name}{member}"
        # A row past the end of its memory reads what no file says.
        depth = scene.memory(layer, "synapses", *row.place).depth
        if change > 0 and int(row.words[-1]) + 1 + change > depth:
            raise NotApplicable("the last row")
        return _change(scene, layer, "rows", row.place, word, field, lambda value: value + change)

    return edit


def _parameter(layer: int, name: str, change: int = 1) -> Edit:
    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        entry = scene.sidecar.layers[layer]
        neuron = int(rng.integers(entry.n_out))
        address = scene.parameter_address(layer, neuron)
        return _change(scene, layer, "parameters", (entry.lane[neuron], 0), address, name, lambda value: value + change)

    return edit


def _beside(layer: int, name: str) -> Edit:
    """A lane's words have in a field what is a bit below it, as if it had been read there."""

    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        memory = scene.memory(layer, "parameters", int(rng.integers(scene.sidecar.layers[layer].lanes)))
        field = field_of(memory, name)
        mask = (1 << field.width) - 1
        words = read_image(scene.bundle, memory)
        return memory, [put(word, field, (word << 1 >> field.offset) & mask) for word in words]

    return edit


def _leaks_exchanged(layer: int) -> Edit:
    """Two neurons of a lane have each other's leaks and keep their thresholds and biases."""

    def edit(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
        entry = scene.sidecar.layers[layer]
        one, other = rng.integers(entry.n_out, size=2).tolist()
        memory = scene.memory(layer, "parameters", entry.lane[one])
        leaks = [field for field in memory.fields if "leak_" in field.name]
        if not leaks:
            raise Absent("a leak that is the same for all")
        if entry.lane[one] != entry.lane[other]:
            raise NotApplicable("not in one lane")
        words = read_image(scene.bundle, memory)
        places = [scene.parameter_address(layer, neuron) for neuron in (one, other)]
        found = [unpack([words[place]], memory) for place in places]
        for place, given in zip(places, reversed(found), strict=True):
            for field in leaks:
                words[place] = put(words[place], field, int(given[field.name][0]))
        return memory, words

    return edit


def _exchange(scene: Scene, rng: np.random.Generator) -> tuple[MemoryImage, list[int]]:
    one, other = _drawn_row(scene, 0, rng), _drawn_row(scene, 0, rng)
    if one.place != other.place:
        raise NotApplicable("not in one memory")
    memory = scene.memory(0, "synapses", *one.place)
    words = read_image(scene.bundle, memory)
    first, second = int(rng.choice(one.words)), int(rng.choice(other.words))
    words[first], words[second] = words[second], words[first]
    return memory, words
