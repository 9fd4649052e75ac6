"""The plan of a machine: every width, word, depth and clock of it, each derived once.

    FrozenNetwork -> HardwareMap -> MachinePlan -> RTL | images | sidecar | estimates | load images

A placement (:mod:`codesign.machine.mapping`) says who sits where. The plan says what there is: the RTL builds it and
derives no width, depth or address of its own, estimates count its memories and run on its clocks, the bundle describes
it. The golden model, the testbench and the image decoder never read it: they are what it is checked against.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

from codesign.basics.errors import InputError
from codesign.contract.network import FrozenLayer, FrozenNetwork, Int, signed_width
from codesign.contract.network.connections import Shape
from codesign.machine.capacity import ROLES, LayerCapacity, Role
from codesign.machine.choices import Choices, Pipeline, StateMemory, check
from codesign.machine.encoding import Encoding, row_entry
from codesign.machine.layouts import Field, Record, index_width, input_word, output_word
from codesign.machine.mapping import FoldedMap, HardwareMap, LayerMap, ProjectionMap
from codesign.machine.pictures import low_bits
from codesign.machine.schedules import collects, sum_is_apart
from codesign.machine.streams import span_within

# Bits of the age that the input guard keeps for each source; 1,024 sources of 8 bits are one block on most devices.
AGE_BITS = 8
# Samples inside a machine with early exit, whose first clocks wait for their decision.
STARTS_DEPTH = 8
COUNTER_BITS = 32
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
class Widths:
    """Bits of a datapath, wide enough that no sum can overflow.

    Without a sum of its own the state holds ``leak(v) + bias + (partial sum << F)``, whose bounds are those of u. With
    one, ``sum`` holds the unshifted sum of products and ``state`` holds ``leak(v) + bias``; of several events a clock
    each stream has a sum, of the same bits, since its bounds are those of any part of the terms, and of several
    timesteps that are walked at once each timestep has one. A delayed reset has
    been subtracted from what is kept. With a synaptic current ``current_state`` is to i what ``state`` is to v without
    one: the bias and, without a sum of its own, the partial sums are in it. ``state`` is then what is left of v alone.

    sum : of the weighted sum; 0 if it is part of a state. sums : such sums in a word, one for each timestep; else 1.
    state, potential : of what a slot keeps between timesteps, and of u.
    value : of the value that an event carries; 0 without.
    membrane : of v.
    count : of a count of the sample's spikes that lies beside the state; 0 without.
    current, current_state : of i, and of what a slot keeps of it; 0 without.
    gathered : of what arrives at the membrane in a timestep before it is clipped into i, or of acc without i.
    rest : of the timesteps that a neuron still rests, beside the state; 0 without. What has come to it then is dropped.
    """

    sum: int
    state: int
    potential: int
    value: int
    membrane: int
    count: int = 0
    current: int = 0
    current_state: int = 0
    gathered: int = 0
    rest: int = 0
    sums: int = 1

    @property
    def has_sum(self) -> bool:
        """Whether the weighted sum lies in a memory of its own."""
        return self.sum > 0

    @property
    def has_current(self) -> bool:
        """Whether there is a synaptic current."""
        return self.current > 0

    @property
    def beside(self) -> int:
        """Bits below the membrane's state in its word: the count, then the rest."""
        return self.count + self.rest

    @property
    def accumulator(self) -> int:
        """Bits of the word to which synapses are added: the sums, or the state of what the sum belongs to, with what
        lies beside it if that is the membrane."""
        if self.has_sum:
            return self.sums * self.sum
        return self.current_state if self.has_current else self.beside + self.state

    @property
    def swept(self) -> int:
        """Bits of the word that sweeps alone read and write; 0 if the accumulator's is the only one."""
        if self.has_sum:
            return self.beside + self.current_state + self.state
        return self.beside + self.state if self.has_current else 0

    @classmethod
    def of_layer(cls, layer: FrozenLayer, source_max: int, *, has_sum: bool, value: int = 0) -> Widths:
        """What a layer's weights, biases and leak make necessary; ``source_max`` : the greatest value of a source."""
        sums, kept = layer.sum_range(source_max), layer.kept_range()
        # A shifted sum has two bits or more above the shift.
        least = layer.fraction_bits + 2
        potential = max(signed_width(*layer.potential_range(source_max)), least)
        current_state, gathered = 0, _width(layer.step_range(source_max))
        if layer.has_current:
            state = _width(kept)
            gathered = max(_width(layer.current_range(source_max)), least)
            current_state = _width(layer.current_kept_range()) if has_sum else gathered
        else:
            low, high = kept
            state = _width((low + layer.bias, high + layer.bias)) if has_sum else potential
        rest = rest_bits(layer.refractory)
        return cls(
            sum=_width(sums) if has_sum else 0,
            # A neuron that rests keeps v.
            state=max(state, layer.membrane_width if rest else 0),
            potential=potential,
            value=value,
            membrane=layer.membrane_width,
            current=layer.current_width,
            current_state=current_state,
            gathered=gathered,
            rest=rest,
        )

    @classmethod
    def of_capacity(cls, room: LayerCapacity, *, has_sum: bool, value: int, refractory: int) -> Widths:
        """What a layer of a loadable machine has room for."""
        return cls(
            sum=room.sum_width if has_sum else 0,
            state=room.state_width,
            potential=room.potential_width,
            value=value,
            membrane=room.membrane_width,
            current=room.current_width,
            current_state=room.current_state_width,
            gathered=room.gathered_width,
            rest=rest_bits(refractory),
        )

    @classmethod
    def joined(cls, parts: list[Widths], value: int) -> Widths:
        """The widest of each, for an engine that serves several layers."""
        return cls(
            sum=max(part.sum for part in parts),
            state=max(part.state for part in parts),
            potential=max(part.potential for part in parts),
            value=value,
            membrane=max(part.membrane for part in parts),
            current=max(part.current for part in parts),
            current_state=max(part.current_state for part in parts),
            gathered=max(part.gathered for part in parts),
            rest=max(part.rest for part in parts),
        )


def _width(bounds: tuple[Int, Int]) -> int:
    """Bits that hold every neuron's ``bounds``, two int64 (n_out,)."""
    low, high = bounds
    return signed_width(int(low.min()), int(high.max()))


@dataclass(frozen=True)
class Clocks:
    """Clocks of an engine's pipelines.

    fire : of the sweep, from reading a slot to its spike and membrane. Short: potential, comparison, reset and
        saturation in one clock, after the sum is added (if it lies apart) and the synaptic current (if there is one).
    write : from reading a slot to writing its next state; deep: the leak has a clock of its own.
    settling : from a sweep's last read to the first that may start a row, whose membrane is read 3 clocks later, or 2
        with a short pipeline. Sums of several streams are cleared 2 clocks after a sweep has read them, so that rows
        may start with the last read.
    fetch : from an event to its first synapse.
    barrier : from the last synapse to the sweep.
    """

    fire: int
    write: int
    settling: int
    fetch: int
    barrier: int

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        encoding: Encoding,
        *,
        has_sum: bool,
        has_current: bool = False,
        pictures: bool = False,
        merges: bool = False,
        taps: bool = False,
        streams: int = 1,
        collects: bool = False,
    ) -> Clocks:
        """pictures, merges, taps : whether events pass a picture's reader and a merge, and walk taps.

        streams : of events; the sums of several are added up in a clock of the sweep, and that all have ended takes a
        clock to know. collects : whether a slot has a sum for each timestep, of which one is chosen in that clock.
        """
        deep = pipeline == "deep"
        grouped = encoding.row_group > 1
        decoded = taps or encoding.gap_bits is not None or encoding.codebook is not None
        fire = (4 if deep else 2) + has_sum + (streams > 1 or collects) + has_current
        write = fire + deep
        return cls(
            fire=fire,
            write=write,
            settling=write - (3 if deep else 2) if streams == 1 else 0,
            fetch=3 + 2 * deep + grouped + decoded + pictures + merges,
            barrier=3 + deep + decoded + (streams > 1),
        )

    @property
    def fill(self) -> int:
        """Clocks in which lanes count as accumulating beside one per synapse, per timestep with events."""
        return self.fetch + self.barrier - 3

    @property
    def fifo_margin(self) -> int:
        """Words that may still be on their way into the output FIFO when a sweep of a streaming engine is to start."""
        return self.fire + 2


@dataclass(frozen=True)
class SweepWord:
    """One slot of a sweep: whether the timestep ends with it, the slot, a bit for each lane that has something to say,
    and with ``value_width`` each lane's value (membranes that are read out, or counts).

    Of a picture the slot is given as {rank of the channel, y, x}, the last two in ``place_bits``; n_slots is the number
    of such addresses. A lane's number comes between the rank and the place in the channel.
    """

    lanes: int
    n_slots: int
    value_width: int = 0
    place_bits: int = 0

    @property
    def slot_width(self) -> int:
        return index_width(self.n_slots)

    @property
    def lane_bits(self) -> int:
        """Bits of a lane's number within a hardware index; 0 for one lane."""
        return (self.lanes - 1).bit_length()

    @property
    def n_addresses(self) -> int:
        """Hardware indices, ``rank << lane_bits | lane`` above the place."""
        return self.n_slots << self.lane_bits

    def stream_span(self, streams: int) -> int:
        """Hardware indices within one of several streams of events."""
        return span_within(self.n_addresses, self.place_bits, streams)

    @property
    def width(self) -> int:
        return 1 + self.slot_width + self.lanes * (1 + self.value_width)


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


@dataclass(frozen=True)
class EnginePlan:
    """One engine: the layers that it serves, one or, in turn, several.

    placement : who sits where in its memories.
    layers : placements of its layers; ``frozen`` : the layers themselves, with the machine's membrane widths.
    widths, clocks : of its datapath.
    timesteps : of a sample, at most.
    queue_depth : rows that a lane may lag behind; 0 for a single fetcher, which has no other to wait for and no queue.
    fifo_depth : words of the output FIFO, a power of two; 0 without.
    skip_depths : of each projection, words of the FIFO in which events wait that skip layers; 0 without.
    hidden_fifo_depth : words of the FIFO in which the sweeps of all but the last layer wait; 0 without.
    counts : whether the last layer's spikes are counted beside the membranes.
    last_only : whether the last layer's values leave with the last timestep alone.
    value_width : of the values in words of the last layer's sweep; 0 for spikes.
    can_silence : whether it can be told to send nothing but ends, for early exit.
    state_style : what the state memories ask for. spram : whether synapses are in single-port RAM.
    block_rom_bits : memories with an image ask for blocks from so many bits on.
    collects : whether events are collected into masks of timesteps, which then are their values.
    """

    placement: LayerMap | FoldedMap
    layers: tuple[LayerMap, ...]
    frozen: tuple[FrozenLayer, ...]
    widths: Widths
    clocks: Clocks
    timesteps: int
    queue_depth: int
    fifo_depth: int
    hidden_fifo_depth: int
    skip_depths: tuple[int, ...]
    counts: bool
    last_only: bool
    value_width: int
    can_silence: bool
    state_style: StateMemory
    spram: bool
    block_rom_bits: int
    collects: bool = False

    @property
    def index(self) -> int:
        """Of its first layer."""
        return self.layers[0].index

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
        return not isinstance(self.placement, FoldedMap) and self.placement.schedule == "sample"

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
        return Record((Field("value", max(1, self.widths.value)), *self.layers[0].tag))

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
        """Words of the FIFO in which a layer's own events wait, a sweep's; 0 without."""
        return _power_of_two(self.layers[0].n_slots) if any(self.delayed) else 0

    @property
    def sweep_word(self) -> SweepWord:
        """Words that leave."""
        last = self.layers[-1]
        return SweepWord(last.lanes, last.n_ranks << last.place_bits, self.value_width, last.place_bits)

    @property
    def hidden_sweep_word(self) -> SweepWord:
        """Words that come back as events."""
        return SweepWord(self.lanes, max((layer.n_slots for layer in self.layers[:-1]), default=1))

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
        for depth, word in (
            (self.hidden_fifo_depth, self.hidden_sweep_word),
            (self.own_fifo_depth, self.own_word),
            (self.fifo_depth, self.sweep_word),
        ):
            if depth:
                found.append(Memory("queues", index, depth, word.width))
        for depth, projection in zip(self.skip_depths, self.projections, strict=True):
            if depth:
                word = 1 + index_width(projection.stream_span)
                found += [Memory("queues", index, depth, word)] * self.streams
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


def rest_bits(refractory: int) -> int:
    """Bits of the timesteps of rest that are left; 0 without."""
    return index_width(refractory + 1) if refractory else 0


def count_bits(timesteps: int) -> int:
    """Bits of a count of a neuron's spikes in one sample."""
    return index_width(timesteps + 1)


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
    if mapping.folded:
        engines: tuple[EnginePlan, ...] = (_folded(network, mapping.folded, choices),)
    else:
        engines = tuple(_streaming(network, layer, choices) for layer in mapping.layers)
    return MachinePlan(
        network,
        mapping,
        engines,
        input_word(network, mapping.input_span),
        output_word(network, mapping.capacity),
    )


def _streaming(network: FrozenNetwork, layer: LayerMap, choices: Choices) -> EnginePlan:
    """An engine of one layer."""
    index, capacity = layer.index, layer.capacity
    frozen = network.layers[index]
    is_last = index == len(network.layers) - 1
    is_current = index == 0 and network.coding.is_current
    has_sum = sum_is_apart(layer.schedule, layer.streams)
    masks = collects(network, index, layer.schedule)
    timesteps = capacity.timesteps if capacity else network.timesteps
    value = network.coding.input_bits if is_current else timesteps if masks else 0
    if capacity:
        room = capacity.layers[index]
        widths = Widths.of_capacity(room, has_sum=has_sum, value=value, refractory=frozen.refractory)
        frozen = replace(frozen, membrane_width=widths.membrane, current_width=widths.current)
    else:
        widths = Widths.of_layer(frozen, network.source_max(index), has_sum=has_sum, value=value)
    if masks:
        widths = replace(widths, sums=timesteps)
    counts = is_last and choices.counts
    if counts:
        widths = replace(widths, count=count_bits(timesteps))
    clocks = Clocks.of(
        layer.pipeline,
        layer.encoding,
        has_sum=has_sum,
        has_current=widths.has_current,
        pictures=any(projection.reads is not None for projection in layer.projections),
        merges=len(layer.projections) > 1,
        taps=bool(layer.tag.fields),
        streams=layer.streams,
        collects=masks,
    )
    return _engine(
        network,
        choices,
        layer,
        (layer,),
        (frozen,),
        widths,
        clocks,
        timesteps,
        counts=counts,
        fifo_depth=_fifo_depth(layer, clocks, timesteps, is_burst=layer.schedule == "sample", is_last=is_last)
        if choices.spike_fifos
        else 0,
        hidden_fifo_depth=0,
        # A collector takes in whole samples.
        skip_depths=tuple(0 if masks else _skip_depth(layer, link, choices) for link in layer.projections),
        collects=masks,
    )


def _folded(network: FrozenNetwork, folded: FoldedMap, choices: Choices) -> EnginePlan:
    """One engine of all layers, in which every layer's sum lies apart."""
    parts = [
        Widths.of_layer(layer, network.source_max(index), has_sum=True) for index, layer in enumerate(network.layers)
    ]
    widths = Widths.joined(parts, network.coding.input_bits if network.coding.is_current else 0)
    hidden = folded.layers[:-1]
    return _engine(
        network,
        choices,
        folded,
        folded.layers,
        network.layers,
        widths,
        Clocks.of(
            folded.pipeline, folded.encoding, has_sum=True, has_current=widths.has_current, streams=folded.streams
        ),
        network.timesteps,
        counts=False,
        fifo_depth=_power_of_two(folded.layers[-1].n_slots) if choices.spike_fifos else 0,
        hidden_fifo_depth=_power_of_two(max(layer.n_slots for layer in hidden)) if hidden else 0,
        skip_depths=(0,),
    )


def _engine(
    network: FrozenNetwork,
    choices: Choices,
    placement: LayerMap | FoldedMap,
    layers: tuple[LayerMap, ...],
    frozen: tuple[FrozenLayer, ...],
    widths: Widths,
    clocks: Clocks,
    timesteps: int,
    *,
    counts: bool,
    fifo_depth: int,
    hidden_fifo_depth: int,
    skip_depths: tuple[int, ...],
    collects: bool = False,
) -> EnginePlan:
    """What does not depend on the shape."""
    sends_membranes = not layers[-1].spiking
    return EnginePlan(
        placement=placement,
        layers=layers,
        frozen=frozen,
        widths=widths,
        clocks=clocks,
        timesteps=timesteps,
        queue_depth=0 if placement.fetchers == 1 else choices.queue_depth,
        fifo_depth=fifo_depth,
        hidden_fifo_depth=hidden_fifo_depth,
        skip_depths=skip_depths,
        counts=counts,
        last_only=counts or (sends_membranes and network.readout == "membrane_last"),
        # A count is not negative, the field is signed.
        value_width=1 + widths.count if counts else frozen[-1].membrane_width if sends_membranes else 0,
        can_silence=choices.exits,
        state_style=choices.state_memory,
        spram=choices.starts_empty,
        block_rom_bits=choices.block_rom_bits,
        collects=collects,
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
