"""The plan of a machine: every width, word, depth and clock of it, each derived once.

    FrozenNetwork -> HardwareMap -> MachinePlan -> RTL | images | sidecar | estimates | load images

A placement (:mod:`codesign.machine.mapping`) says who sits where. The plan says what there is: the RTL builds it and
derives no width, depth or address of its own, estimates count its memories and run on its clocks, the bundle describes
it. The golden model, the testbench and the image decoder never read it: they are what it is checked against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

from codesign.basics.errors import InputError
from codesign.contract.network import INPUT, FrozenLayer, FrozenNetwork
from codesign.contract.network.connections import Shape
from codesign.machine.capacity import ROLES, Role
from codesign.machine.choices import Choices, StateMemory, check
from codesign.machine.datapath import Clocks, SweepWord, Widths, count_bits
from codesign.machine.encoding import row_entry
from codesign.machine.engine_map import EngineMap
from codesign.machine.layer_map import LayerMap, ProjectionMap
from codesign.machine.layouts import LEAKS, Field, Record, index_width, input_word, output_word
from codesign.machine.mapping import HardwareMap
from codesign.machine.pictures import low_bits, side_bits
from codesign.machine.schedules import collects, sum_is_apart
from codesign.machine.streams import span_within, stream_bits
from codesign.machine.ways import NeuronWays

# Bits of the age that the input guard keeps for each source; 1,024 sources of 8 bits are one block on most devices.
AGE_BITS = 8
# Samples inside a machine with early exit, whose first clocks wait for their decision.
STARTS_DEPTH = 8
COUNTER_BITS = 32
# Clocks from the last value of a timestep until it is known whether the sample may be decided.
LEAD_CLOCKS = 4
BURST_WORDS = 256
# Most words of a FIFO for events that skip layers.
SKIP_WORDS = 1024
# Most bits of a collector's word that holds the masks of several sources.
MASK_WORD_BITS = 32
# Clocks from a word on s_axis to the event at the first layer, from an engine's output to the event at the next, and
# from the last token to the first readout value.
INPUT_CLOCKS = 2
TOKEN_CLOCKS = 3
READOUT_CLOCKS = 4

MemoryRole = Literal["rows", "synapses", "parameters", "state", "queues"]
MemoryStyle = StateMemory | Literal["spram"]
IMAGE_ROLES: tuple[MemoryRole, ...] = ROLES
NO_FIELDS = Record(())
MEMORY_ROLES: tuple[MemoryRole, ...] = ("rows", "synapses", "parameters", "state", "queues")


@dataclass(frozen=True)
class Memory:
    """One memory.

    role : what it is for. layer : whose it is; 0 for all of a folded engine.
    depth, width : words, and bits of each.
    clocked : whether its read port has a register.
    style : what it asks the synthesis tool for.
    loadable : whether a load writes it.
    lane, stream, record : of one with contents, whose they are (in lock step lane 0 for all lanes') and the fields of a
        word.
    """

    role: MemoryRole
    layer: int
    depth: int
    width: int
    clocked: bool = True
    style: MemoryStyle = "auto"
    loadable: bool = False
    lane: int = 0
    stream: int = 0
    record: Record = NO_FIELDS

    @property
    def bits(self) -> int:
        return self.depth * self.width

    @property
    def has_image(self) -> bool:
        """Whether it has contents."""
        return self.role in IMAGE_ROLES

    @property
    def read_only(self) -> bool:
        """Whether nothing writes it."""
        return self.has_image and not self.loadable


@dataclass(frozen=True)
class CollectorPlan:
    """What keeps the masks of one stream's sources until a sample is whole: two banks, of which one is collected in
    while the other one is walked.

    span : addresses that an event can have. timesteps : bits of a mask. layer : whose it is.
    """

    span: int
    timesteps: int
    layer: int

    @classmethod
    def of(cls, link: ProjectionMap, timesteps: int, layer: int) -> CollectorPlan:
        """That of each stream of a projection."""
        return cls(link.stream_span, timesteps, layer)

    @property
    def group_bits(self) -> int:
        """Low bits of an address that say which of a word's masks is the source's."""
        room = max(1, MASK_WORD_BITS // self.timesteps).bit_length() - 1
        return min(room, (self.span - 1).bit_length())

    @property
    def depth(self) -> int:
        """Words of a bank."""
        return max(2, -(-self.span >> self.group_bits))

    @property
    def width(self) -> int:
        """Bits of a word."""
        return self.timesteps << self.group_bits

    @property
    def bank(self) -> Memory:
        """One of the two memories."""
        return Memory("queues", self.layer, self.depth, self.width)


LinkWay = Literal["port", "copy", "passed", "kept"]


@dataclass(frozen=True)
class LinkPlan:
    """How the events of a projection come to an engine whose layers have turns.

    layer : number in the engine of the layer that reads them; ``number`` : of the projection in its layer.
    source : INPUT, or the layer that sends them. projection : the projection.
    way : "port", from the port that comes in; "copy", what has come in there, kept in a FIFO until a later turn;
        "passed", sweep words of the layer before, in the FIFO that all such links share; "kept", sweep words of another
        layer, or of the layer itself in the timestep before, in a FIFO of their own.
    depth : words of that FIFO of its own, which holds a whole timestep; 0 without.
    """

    layer: int
    number: int
    source: int
    projection: ProjectionMap
    way: LinkWay
    depth: int = 0

    @property
    def is_late(self) -> bool:
        """Whether it carries events of the timestep before."""
        return self.source == self.layer

    @property
    def name(self) -> str:
        return f"{self.layer}_{self.number}"

    @classmethod
    def of_layers(cls, layers: Sequence[LayerMap]) -> tuple[LinkPlan, ...]:
        """Those of an engine of all layers of a network, in the order in which their events are taken: layer by layer,
        what is kept before what is still on its way."""
        found: list[LinkPlan] = []
        port_read = False
        for layer in layers:
            kept, passing = [], []
            for number, projection in enumerate(layer.projections):
                source = projection.source
                link = cls(layer.index, number, source, projection, "kept")
                if source == INPUT and not port_read:
                    passing.append(replace(link, way="port"))
                    port_read = True
                elif source == INPUT:
                    # The events of each source and the end.
                    copy = replace(link, way="copy", depth=_power_of_two(projection.stream_span + 1))
                    # What comes in in this turn is copied in it.
                    (passing if layer.index == 0 else kept).append(copy)
                elif source == layer.index - 1 and not any(other.way == "passed" for other in passing):
                    passing.append(replace(link, way="passed"))
                else:
                    kept.append(replace(link, depth=_power_of_two(layers[source].n_slots)))
            found += [*kept, *passing]
        return tuple(found)


@dataclass(frozen=True)
class EnginePlan:
    """One engine: the layers that it serves, one or, in turn, several.

    placement : its layers in its memories.
    frozen : the layers themselves, with the machine's membrane widths.
    widths, clocks : of its datapath.
    timesteps : of a sample, at most.
    queue_depth : rows that a lane may lag behind; 0 for a single fetcher, which has no other to wait for and no queue.
    fifo_depth : words of the output FIFO, a power of two; 0 without.
    skip_depths : of each projection, words of the FIFO in which events wait that skip layers; 0 without.
    links : of several layers, how the events of each projection come, in the order in which they are taken.
    hidden_fifo_depth : words of the FIFO in which sweeps wait for the layer that is next; 0 without.
    counts : whether the last layer's spikes are counted beside the membranes.
    last_only : whether the last layer's values leave with the last timestep alone.
    value_width : of the values in words of the last layer's sweep; 0 for spikes.
    can_silence : whether it can be told to send nothing but ends, for early exit.
    holds : whether a word that waits stays what it is then: without a FIFO one of its readers may have it already.
    state_style : what the state memories ask for. spram : whether synapses are in single-port RAM.
    block_rom_bits : memories with an image ask for blocks from so many bits on.
    collects : whether events are collected into masks of timesteps, which then are their values.
    """

    placement: EngineMap
    frozen: tuple[FrozenLayer, ...]
    widths: Widths
    clocks: Clocks
    timesteps: int
    queue_depth: int
    fifo_depth: int
    hidden_fifo_depth: int
    skip_depths: tuple[int, ...]
    links: tuple[LinkPlan, ...]
    counts: bool
    last_only: bool
    value_width: int
    can_silence: bool
    holds: bool
    state_style: StateMemory
    spram: bool
    block_rom_bits: int
    collects: bool = False

    @property
    def layers(self) -> tuple[LayerMap, ...]:
        """Placements of its layers."""
        return self.placement.layers

    @property
    def is_shared(self) -> bool:
        """Whether several layers have their turns."""
        return self.placement.is_shared

    @property
    def index(self) -> int:
        """Of its first layer."""
        return self.placement.index

    @property
    def lanes(self) -> int:
        return self.placement.lanes

    @property
    def streams(self) -> int:
        """Events that it takes in a clock."""
        return self.placement.streams

    @property
    def walkers(self) -> tuple[tuple[int, int], ...]:
        """Lane and stream of each fetcher; lane 0 is all of them in lock step."""
        return tuple(product(range(self.placement.fetchers), range(self.streams)))

    @property
    def keeps_sums(self) -> bool:
        """Whether all sweeps of a sample follow one accumulation: of input currents, or of what was collected."""
        return not self.is_shared and self.layers[0].schedule == "sample"

    @property
    def collectors(self) -> tuple[CollectorPlan | None, ...]:
        """Of each projection, what gathers a sample of each of its streams; None where events are walked as they
        come."""
        if not self.collects:
            return (None,) * len(self.projections)
        return tuple(CollectorPlan.of(link, self.timesteps, self.index) for link in self.projections)

    @property
    def loadable(self) -> bool:
        return self.placement.capacity is not None

    @cached_property
    def ways(self) -> NeuronWays:
        """What its neurons do in the turn of each layer."""
        return NeuronWays(self.placement, self.frozen)

    @property
    def parameter_clocks(self) -> dict[str, int]:
        """Clocks of the sweep in which each parameter is used."""
        clocks = self.clocks
        # What a delayed reset leaves of the bias is added to what has leaked.
        added = clocks.fire if any(self.ways.delays) else clocks.write
        return {"threshold": clocks.compare, "bias": added, **dict.fromkeys(LEAKS, clocks.fire)}

    @property
    def parameter_clock(self) -> int:
        """Clock of the sweep in which a slot's parameters are read, just before the first of them is used."""
        used = self.parameter_clocks
        return min((used[field.name] for field in self.placement.parameter_record), default=self.clocks.write) - 1

    @property
    def row(self) -> Record:
        """A source's row, {start, count}, as a lane's walker takes it."""
        return row_entry(self.placement.row_record)

    @property
    def queue_word(self) -> Record:
        """What waits in a lane's queue: a row, or the end of a timestep."""
        return Record((Field("end", 1), *self.row, *self.tag))

    @property
    def tag(self) -> Record:
        """What a row brings to its synapses: the event's value, and of a convolution where its taps land."""
        return Record((Field("value", max(1, self.widths.value)), *self.placement.tag))

    @property
    def projections(self) -> tuple[ProjectionMap, ...]:
        """Where events come from; of several layers only those of the first come from outside."""
        return self.layers[0].projections

    @property
    def delayed(self) -> tuple[bool, ...]:
        """Of each projection, whether it carries the layer's own events, of the timestep before."""
        return tuple(projection.source == self.index for projection in self.projections)

    @property
    def own_word(self) -> SweepWord:
        """Words that wait for the next timestep, of a layer that reads itself."""
        layer = self.layers[0]
        return SweepWord(layer.lanes, layer.n_ranks << layer.place_bits, 0, layer.place_bits)

    @property
    def own_fifo_depth(self) -> int:
        """Words of the FIFO in which a layer's own events wait, a sweep's; 0 without, and where layers have turns."""
        return _power_of_two(self.layers[0].n_slots) if any(self.delayed) and not self.is_shared else 0

    @property
    def sweep_word(self) -> SweepWord:
        """Words that leave."""
        last = self.layers[-1]
        return SweepWord(last.lanes, last.n_ranks << last.place_bits, self.value_width, last.place_bits)

    @property
    def is_chain(self) -> bool:
        """Whether each of its layers reads the one before and nothing else, by single synapses from no picture."""
        return all(link.way in ("port", "passed") and link.projection.reads is None for link in self.links)

    @property
    def senders(self) -> tuple[LayerMap, ...]:
        """Of several layers those whose sweeps come back as events."""
        sources = {link.source for link in self.links}
        return tuple(layer for layer in self.layers if layer.index in sources)

    @property
    def back_bits(self) -> tuple[int, int, int]:
        """Of several layers: bits of rank, x and y, from the lowest, in the slot of words that come back. The bits that
        tell an event's stream are always the lowest, whoever sends it."""
        pictures = [layer.picture for layer in self.senders if layer.picture is not None]
        rank = max((side_bits(layer.n_ranks) for layer in self.senders), default=0)
        y, x = (max((side_bits(picture[axis]) for picture in pictures), default=0) for axis in (1, 2))
        return max(rank, stream_bits(self.streams) - self.placement.lane_bits), x, y

    @property
    def hidden_sweep_word(self) -> SweepWord:
        """Words that come back as events."""
        if self.is_chain:
            return SweepWord(self.lanes, max(layer.n_slots for layer in self.layers[:-1]))
        return SweepWord(self.lanes, 1 << sum(self.back_bits))

    def waiting(self, depth: int, projection: ProjectionMap) -> Memory:
        """The memory of a FIFO in which so many of a projection's events wait, of one stream: whether it is an end, the
        address, the value."""
        return Memory("queues", self.index, depth, 1 + index_width(projection.stream_span) + self.widths.value)

    @property
    def state_depth(self) -> int:
        """Words of a lane's state memories; never a single one, which would have an address of no bits."""
        return max(2, self.placement.n_slots)

    @cached_property
    def memories(self) -> tuple[Memory, ...]:
        """Every memory, lane by lane, then the FIFOs."""
        placement, widths, index = self.placement, self.widths, self.index
        found: list[Memory] = []
        for lane in range(self.lanes):
            streams = [stream for at, stream in self.walkers if at == lane]
            for stream in streams:
                depth = placement.synapse_depth(lane, stream)
                found.append(self._image("rows", lane, placement.row_depth, placement.row_record, stream))
                found.append(self._image("synapses", lane, depth, placement.synapse_record, stream))
            if placement.parameter_record.fields:
                found.append(self._image("parameters", lane, placement.parameter_depth, placement.parameter_record))
            for width in (widths.swept, *[widths.accumulator] * self.streams):
                if width:
                    found.append(Memory("state", index, self.state_depth, width, style=self.state_style))
            if self.queue_depth:
                queue = Memory("queues", index, self.queue_depth, self.queue_word.width, clocked=False)
                found += [queue] * len(streams)
        if self.hidden_fifo_depth:
            found.append(Memory("queues", index, self.hidden_fifo_depth, self.hidden_sweep_word.width))
        for link in self.links:
            if link.way == "kept":
                found.append(Memory("queues", index, link.depth, self.hidden_sweep_word.width))
            elif link.way == "copy":
                found += [self.waiting(link.depth, link.projection)] * self.streams
        for depth, word in ((self.own_fifo_depth, self.own_word), (self.fifo_depth, self.sweep_word)):
            if depth:
                found.append(Memory("queues", index, depth, word.width))
        for depth, projection in zip(self.skip_depths, self.projections, strict=True):
            if depth:
                found += [self.waiting(depth, projection)] * self.streams
        for collector in self.collectors:
            if collector:
                found += [collector.bank] * 2 * self.streams
        return tuple(found)

    @property
    def images(self) -> list[Memory]:
        """The memories with contents; the words are ``placement.words(role, lane)``."""
        return [memory for memory in self.memories if memory.has_image]

    def _image(self, role: Role, lane: int, depth: int, record: Record, stream: int = 0) -> Memory:
        style: MemoryStyle = "block" if depth * record.width >= self.block_rom_bits else "auto"
        return Memory(
            role=role,
            layer=self.index,
            depth=depth,
            width=record.width,
            style="spram" if role == "synapses" and self.spram else style,
            lane=lane,
            stream=stream,
            record=record,
            loadable=self.loadable,
        )


@dataclass(frozen=True)
class MachinePlan:
    """A whole machine: what a user chose, the engines in their order, and what is around them.

    network, mapping : the frozen network and its placement.
    engines : one per layer, or one for all.
    input_record, output_record : words of ``s_axis`` and ``m_axis``.
    """

    network: FrozenNetwork
    mapping: HardwareMap
    engines: tuple[EnginePlan, ...]
    input_record: Record
    output_record: Record

    @property
    def choices(self) -> Choices:
        """What a user chose."""
        return self.mapping.choices

    @property
    def input_picture(self) -> Shape | None:
        """(channels, height, width) if sources of ``s_axis`` are addresses in a picture."""
        return self.mapping.input_picture

    @property
    def keeps_values(self) -> bool:
        """Whether the readout has a memory; values that come with the last timestep alone pass it by."""
        return not self.engines[-1].last_only

    @property
    def values_depth(self) -> int:
        """Words of the readout's memory, two or more as of all memories that are written."""
        return max(2, self.network.n_outputs)

    @property
    def input_stream_span(self) -> int:
        """Addresses that an event of the input can have within its stream."""
        place_bits = low_bits(self.input_picture) if self.input_picture else 0
        return span_within(self.mapping.input_span, place_bits, self.choices.event_streams)

    @property
    def seen(self) -> Memory:
        """The memory of ages by which the input guard knows the sources of one stream that it has seen."""
        return Memory("state", 0, guard_depth(self.input_stream_span), AGE_BITS)

    @property
    def clearing_clocks(self) -> int:
        """Clocks after reset in which the input guard clears its memory and takes nothing; several streams wait in
        buffers meanwhile."""
        return self.seen.depth if self.choices.input_checks and self.choices.event_streams == 1 else 0

    @cached_property
    def memories(self) -> tuple[Memory, ...]:
        """Every memory of the machine: the guard's, those of the engines, the readout's."""
        found: list[Memory] = []
        if self.choices.input_checks:
            found += [self.seen] * self.choices.event_streams
        for engine in self.engines:
            found += engine.memories
        if self.keeps_values:
            width = self.output_record.fields[-1].width
            found.append(Memory("state", self.engines[-1].index, self.values_depth, width, clocked=False))
        if self.choices.exits and self.choices.counters:
            found.append(Memory("queues", 0, STARTS_DEPTH, COUNTER_BITS))
        return tuple(found)

    @property
    def memory_bits(self) -> dict[str, int]:
        """Bits of all memories by role."""
        bits: Counter[str] = Counter(dict.fromkeys(MEMORY_ROLES, 0))
        for memory in self.memories:
            bits[memory.role] += memory.bits
        return dict(bits)

    @property
    def samples_inside(self) -> int:
        """Most samples between door and decision: every one occupies at least a word of some queue."""
        at_door = 4 if self.choices.event_streams > 1 else 0
        return (
            8
            + at_door
            + sum(
                engine.queue_depth
                + engine.fifo_depth
                + sum(engine.skip_depths)
                + 4
                + 2 * len(engine.projections)
                # Two banks, and what is on its way out of one that is empty again.
                + 3 * engine.collects
                for engine in self.engines
            )
        )


def guard_depth(n_inputs: int) -> int:
    """Words of the input guard's memory of ages."""
    return max(2, n_inputs)


def plan_machine(network: FrozenNetwork, mapping: HardwareMap) -> MachinePlan:
    """The machine of a network and its placement.

    Raises InputError if the placement is of another network, UnsupportedError for choices that do not go together, or
    with the network.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> plan = codesign.plan_machine(network, codesign.map_hardware(network))
    >>> len(plan.engines), sum(plan.memory_bits.values()) > 0
    (1, True)
    """
    if mapping.network_hash != network.hash:
        raise InputError("the mapping is of another network; map this network again")
    choices = mapping.choices
    check(choices, network, lanes=mapping.lanes)
    engines = tuple(_engine(network, placement, choices) for placement in mapping.engines)
    return MachinePlan(
        network,
        mapping,
        engines,
        input_word(network, mapping.input_span),
        output_word(network, mapping.capacity),
    )


def _engine(network: FrozenNetwork, placement: EngineMap, choices: Choices) -> EnginePlan:
    """The engine of these layers. Of several every sum lies apart: other layers have their turns between its synapses
    and its sweep."""
    layers, shared, capacity = placement.layers, placement.is_shared, placement.capacity
    first, last = layers[0], layers[-1]
    timesteps = capacity.timesteps if capacity else network.timesteps
    is_last = last.index == len(network.layers) - 1
    is_current = first.index == 0 and network.coding.is_current
    has_sum = shared or sum_is_apart(first.schedule, placement.streams)
    masks = not shared and collects(network, first.index, first.schedule)
    counts = is_last and choices.counts
    value = network.coding.input_bits if is_current else timesteps if masks else 0
    frozen, parts = [], []
    for layer in layers:
        own = network.layers[layer.index]
        if capacity:
            room = capacity.layers[layer.index]
            found = Widths.of_capacity(room, has_sum=has_sum, value=value, refractory=own.refractory)
            own = replace(own, membrane_width=found.membrane, current_width=found.current)
        else:
            found = Widths.of_layer(own, network.source_max(layer.index), has_sum=has_sum, value=value)
        frozen.append(own)
        parts.append(found)
    widths = Widths.joined(parts, value)
    if masks:
        widths = replace(widths, sums=timesteps)
    if counts:
        widths = replace(widths, count=count_bits(timesteps))
    projections = [projection for layer in layers for projection in layer.projections]
    links = LinkPlan.of_layers(layers) if shared else ()
    clocks = Clocks.of(
        placement.pipeline,
        placement.encoding,
        has_sum=has_sum,
        has_current=widths.has_current,
        # Where layers have turns one stage reads pictures and tells projections apart.
        pictures=any(projection.reads is not None for projection in projections)
        or any(link.way in ("copy", "kept") for link in links),
        merges=not shared and len(projections) > 1,
        taps=bool(placement.tag.fields),
        streams=placement.streams,
        collects=masks,
    )
    sends_membranes = not last.spiking
    fifo_depth = 0
    if choices.spike_fifos and shared:
        fifo_depth = _power_of_two(last.n_slots)
    elif choices.spike_fifos:
        fifo_depth = _fifo_depth(last, clocks, timesteps, is_burst=last.schedule == "sample", is_last=is_last)
    readers = is_last + sum(
        projection.source == last.index and index != last.index
        for index, layer in enumerate(network.layers)
        for projection in layer.projections
    )
    parts_words = readers > 1 or (choices.event_streams > 1 and not is_last)
    return EnginePlan(
        placement=placement,
        frozen=tuple(frozen),
        widths=widths,
        clocks=clocks,
        timesteps=timesteps,
        queue_depth=0 if placement.fetchers == 1 else choices.queue_depth,
        fifo_depth=fifo_depth,
        hidden_fifo_depth=_passed_depth(layers, links),
        # A collector takes in whole samples.
        skip_depths=tuple(0 if masks or shared else _skip_depth(first, link, choices) for link in first.projections),
        links=links,
        counts=counts,
        last_only=counts or (sends_membranes and network.readout == "membrane_last"),
        # A count is not negative, the field is signed.
        value_width=1 + widths.count if counts else frozen[-1].membrane_width if sends_membranes else 0,
        can_silence=choices.exits,
        holds=choices.exits and not fifo_depth and parts_words,
        state_style=choices.state_memory,
        spram=choices.starts_empty,
        block_rom_bits=choices.block_rom_bits,
        collects=masks,
    )


def _fifo_depth(layer: LayerMap, clocks: Clocks, timesteps: int, *, is_burst: bool, is_last: bool) -> int:
    """Words of a streaming engine's output FIFO: a sweep and what may be on its way.

    Layers that feed another have a quarter of a sweep more. Where a sample is walked at once its sweeps come in one
    burst: holding them, within one small block memory, frees the layer for the next sample while the layers behind it
    work through the burst.
    """
    words = layer.n_slots + clocks.fifo_margin + (0 if is_last else layer.n_slots // 4)
    if is_burst:
        words = max(words, min(timesteps * layer.n_slots + clocks.fifo_margin, BURST_WORDS))
    return _power_of_two(words)


def _passed_depth(layers: Sequence[LayerMap], links: Sequence[LinkPlan]) -> int:
    """Words of the FIFO for sweeps that the next layer reads: the longest one, which is read before that layer sweeps;
    0 if there are none."""
    passed = [layers[link.source].n_slots for link in links if link.way == "passed"]
    return _power_of_two(max(passed)) if passed else 0


def _skip_depth(layer: LayerMap, projection: ProjectionMap, choices: Choices) -> int:
    """Words of the FIFO before a projection that skips layers: a timestep of its source for each layer skipped.

    Streams are in order of timesteps at every point, and an engine sweeps a timestep without anything of later ones.
    So of all work not done the one of the earliest timestep, and in it of the first layer, has its input or will get
    it: nothing stops, whatever the depth. Without the FIFO layers would wait for each other.
    """
    skipped = 0 if projection.source == layer.index else layer.index - projection.source - 1
    if skipped == 0 or not choices.spike_fifos:
        return 0
    of_stream = -(-projection.n_in // projection.streams)
    return _power_of_two(min(skipped * (of_stream + 1), SKIP_WORDS))


def _power_of_two(words: int) -> int:
    """Depth of a FIFO for so many words."""
    return max(2, 1 << (words - 1).bit_length())
