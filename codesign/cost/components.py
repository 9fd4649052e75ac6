"""The components of a planned machine, and what their logic grows with.

A component is what the generator builds as a module (``rtl_templates``): a door, an engine's control, its fetchers, its
neurons, a FIFO. Its *registers* are counted from the plan, bit by bit. Its *terms* are numbers of bits that pass
an adder, a multiplexer or a comparison, or that lie in a memory; estimates are sums of terms times coefficients that
were fitted on syntheses (:mod:`codesign.cost.area_model`). All copies of a component, one per lane, are one entry.

What a memory becomes follows from the family's rules (:mod:`codesign.cost.memories`); it is never fitted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import cast

from codesign.cost.memories import Built, built
from codesign.cost.multipliers import SHARING, multiplier_blocks
from codesign.machine.capacity import HASH_BYTES, Capacity, Role
from codesign.machine.layer_map import LayerMap
from codesign.machine.layouts import index_width
from codesign.machine.pictures import PictureInput, side_bits
from codesign.machine.plan import (
    AGE_BITS,
    COUNTER_BITS,
    STARTS_DEPTH,
    EnginePlan,
    MachinePlan,
    Memory,
    SweepWord,
)
from codesign.machine.ways import others

# Inputs of a family's look-up tables.
LUT_INPUTS = {"ecp5": 4, "ice40": 4, "xilinx": 6, "gowin": 4}


@dataclass(frozen=True)
class Component:
    """One component, all its copies together.

    name : path in the machine, as in its Verilog, without the lane. kind : whose coefficients it has. layer : that it
    belongs to, None for what is around the engines. registers : flip-flops, counted. terms : by name, what look-up
    tables are in proportion to. memories : what its memories become. dsps : DSP blocks.
    """

    name: str
    kind: str
    layer: int | None
    registers: float
    terms: Mapping[str, float]
    memories: tuple[Built, ...] = field(default=())
    dsps: int = 0


class _Parts:
    """Adds up registers and terms of one component."""

    def __init__(self, family: str, copies: int = 1) -> None:
        self.family = family
        self.copies = copies
        self.registers = 0.0
        self.terms: defaultdict[str, float] = defaultdict(float, one=float(copies))
        self.memories: list[Built] = []
        self.dsps = 0

    def add(self, registers: float = 0.0, **terms: float) -> None:
        """Of each copy."""
        self.registers += self.copies * registers
        for name, value in terms.items():
            self.terms[name] += self.copies * value

    def multiply(self, first: int, second: int, kept: int, factor: int | None = None, used: int | None = None) -> None:
        """A product of two signed numbers, in a DSP block or in logic; ``kept`` : bits of registers around it, which a
        block may have inside. factor : the second number, if it is a constant. used : bits of the product that count,
        if not all."""
        if factor is not None and factor & (factor - 1) == 0:
            return
        blocks = multiplier_blocks(first, second, self.family, used)
        if blocks:
            self.dsps += self.copies * blocks
            self.add(absorbed=kept)
        elif factor is None:
            self.add(product=first * second)
        else:
            # A sum for each digit of the constant but one.
            self.add(added=first * (_digits(factor) - 1))

    def ram(self, memory: Memory) -> None:
        """A memory that is written, with what is around it; one, whatever the number of copies."""
        found = built(memory, self.family)
        self.memories.append(found)
        if found.kind == "logic":
            self.registers += memory.bits + memory.width * memory.clocked
            self.terms["ram_bits"] += memory.bits
            self.terms["ram_words"] += memory.depth
        elif found.kind == "lutram":
            self.registers += memory.width * memory.clocked
            self.terms["lutrams"] += found.cells
            self.terms["chosen"] += memory.width * (found.parts - 1)
        else:
            self.terms["chosen"] += memory.width * (found.parts - 1)
            self.registers += math.ceil(math.log2(found.parts))
            if found.emulated:
                self.registers += memory.width + 1
                self.terms["emulated"] += memory.width
                self.terms["compared"] += index_width(memory.depth)

    def of(self, name: str, kind: str, layer: int | None) -> Component:
        return Component(name, kind, layer, self.registers, dict(self.terms), tuple(self.memories), self.dsps)


def components(plan: MachinePlan, family: str) -> list[Component]:
    """Every component of a machine."""
    found = around(plan, family)
    for number in range(len(plan.engines)):
        found += of_engine(plan, number, family)
    return found


def of_engine(plan: MachinePlan, number: int, family: str) -> list[Component]:
    """Components of an engine, what waits before it and what makes events of its sweeps; the network's other layers
    matter only as far as they send events to it."""
    engine = plan.engines[number]
    # The readout takes one token a clock.
    sent = engine.streams if number + 1 < len(plan.engines) else 1
    return [
        *_engine(plan, engine, number, family),
        *_skips(engine, number, family),
        *_collectors(engine, number, family),
        *_serialized(f"serializer{number}", engine.sweep_word, sent, engine.index, family),
    ]


def around(plan: MachinePlan, family: str) -> list[Component]:
    """Components of no engine: the door, the readout, counters, the loader."""
    found = [_top(plan, family), *_door(plan, family)]
    found += _forks(plan, family)
    found += _readout(plan, family)
    if plan.choices.exits and plan.choices.counters:
        parts = _Parts(family)
        parts.add(1 + 3 * COUNTER_BITS, added=3 * COUNTER_BITS, compared=index_width(plan.engines[0].timesteps))
        found.append(parts.of("exit_counters", "exit_counters", None))
        starts = Memory("queues", 0, STARTS_DEPTH, COUNTER_BITS)
        found.append(_fifo("exit_counters.starts", starts, None, family))
    if plan.mapping.capacity is not None:
        found.append(_loader(plan, plan.mapping.capacity, family))
    return found


def _top(plan: MachinePlan, family: str) -> Component:
    """Counters, samples inside, what keeps the door shut."""
    choices, parts = plan.choices, _Parts(family)
    inside = (plan.samples_inside).bit_length()
    parts.add(inside, added=inside)
    if choices.counters:
        lanes = sum(engine.lanes for engine in plan.engines)
        parts.add(2 * COUNTER_BITS + lanes.bit_length(), counted=2 * COUNTER_BITS, lanes=lanes)
    if choices.exits:
        parts.add(inside * len(plan.engines), added=inside * len(plan.engines), compared=inside)
    if plan.mapping.capacity is not None:
        parts.add(inside + 1, loader=1, added=inside)
    return parts.of("", "top", None)


def _door(plan: MachinePlan, family: str) -> Iterator[Component]:
    """The input guard, or what is in its place, with what takes beats apart."""
    if plan.choices.event_streams > 1:
        yield from _parallel_door(plan, family)
        return
    if plan.choices.input_words > 1:
        yield _splitter(plan, family)
    network, parts = plan.network, _Parts(family)
    is_current = network.coding.is_current
    span = plan.mapping.input_span
    source = index_width(span)
    value = network.coding.input_bits
    if not plan.choices.input_checks:
        parts.add(1 + is_current, drop=plan.choices.exits)
        yield parts.of("guard", "trusted", None)
        return
    timestep = 0 if is_current else index_width(plan.engines[0].timesteps)
    word = source + (value if is_current else 1) + 1
    # Beside the word twice: state, the age and the address that clears, the protocol's errors, comparisons in parts.
    parts.add(
        2 * word + 2 + timestep + AGE_BITS + source + 4 + AGE_BITS // 2 + 10,
        source=source,
        timestep=timestep,
        added=timestep + AGE_BITS + source,
        drop=plan.choices.exits,
    )
    if plan.input_picture is not None:
        parts.add(picture=1)
    if plan.mapping.capacity is not None:
        parts.add(loader=1)
    parts.ram(plan.seen)
    yield parts.of("guard", "guard", None)


def _parallel_door(plan: MachinePlan, family: str) -> Iterator[Component]:
    """The door for several events a clock: a beat's words, whose turn it is, and of each stream a check and a
    buffer."""
    choices, network = plan.choices, plan.network
    is_current, streams, words = network.coding.is_current, choices.event_streams, choices.input_words
    value = network.coding.input_bits
    word = index_width(plan.mapping.input_span) + (value if is_current else 1)
    event = 1 + index_width(plan.input_stream_span) + value
    timestep = 0 if is_current else index_width(plan.engines[0].timesteps)
    parts = _Parts(family)
    parts.add(
        # A beat's words and which of them wait, its end, streams that have theirs, the timestep, inside a sample.
        words * (word + 1) + 1 + streams + timestep + 1,
        words=words,
        streams=streams,
        chosen=streams * (words - 1) * (event - 1),
        turns=streams * words,
        added=timestep,
        drop=choices.exits,
    )
    if choices.input_checks:
        # Dropping, and the protocol's errors.
        parts.add(1 + 4)
    if plan.mapping.capacity is not None:
        parts.add(loader=1)
    yield parts.of("guard", "parallel_guard", None)
    buffers = _Parts(family, streams)
    buffers.add(2 * event + 2, chosen=event)
    yield buffers.of("guard.buffer", "buffer", None)
    if not choices.input_checks:
        return
    checks = _Parts(family, streams)
    address = index_width(plan.seen.depth)
    checks.add(
        # The event twice, with marks; the age and the address that clears; what is known of the one that is looked up.
        2 * event + 3 + AGE_BITS + address + AGE_BITS // 2 + 5,
        source=address,
        added=AGE_BITS + address,
        drop=choices.exits,
    )
    if plan.input_picture is not None:
        checks.add(picture=1)
    if plan.mapping.capacity is not None:
        checks.add(loader=1)
    for _ in range(streams):
        checks.ram(plan.seen)
    yield checks.of("guard.check", "check", None)


def _splitter(plan: MachinePlan, family: str) -> Component:
    words, width = plan.choices.input_words, plan.input_record.width
    parts = _Parts(family)
    parts.add(words * width + words + 1, words=words, held=(words - 1) * width, last=width)
    return parts.of("splitter", "splitter", None)


def _engine(plan: MachinePlan, engine: EnginePlan, number: int, family: str) -> Iterator[Component]:
    name = f"engine{number}"
    yield _control(plan, engine, name, family)
    yield from _fetcher(engine, name, family)
    yield from _bank(plan, engine, name, family)
    fifos = [memory for memory in engine.memories if memory.role == "queues" and memory.clocked]
    names = [("hidden_fifo", 1)] * (engine.hidden_fifo_depth > 0)
    names += [
        (f"{link.way}{link.name}", engine.streams if link.way == "copy" else 1) for link in engine.links if link.depth
    ]
    names += [(word, 1) for word, depth in (("own", engine.own_fifo_depth), ("fifo", engine.fifo_depth)) if depth]
    for word, copies in names:
        yield _fifo(f"{name}.{word}", fifos[0], engine.index, family, copies)
        fifos = fifos[copies:]
    if engine.senders:
        hidden = f"{name}.hidden_serializer"
        yield from _serialized(hidden, engine.hidden_sweep_word, engine.streams, engine.index, family)
    for link in engine.links:
        if link.projection.reads is not None:
            target = engine.layers[link.layer]
            yield _reader(f"{name}.reader{link.name}", link.projection.reads, engine, target, 0, family)
    yield from _places(engine, name, family)
    if engine.is_shared:
        return
    layer, value = engine.layers[0], engine.widths.value
    event = 1 + index_width(layer.n_addresses) + value + engine.placement.tag.width
    if any(engine.delayed):
        yield from _serialized(f"{name}.own_serializer", engine.own_word, engine.streams, engine.index, family)
        if sum(engine.delayed) > 1:
            yield _fork(f"{name}.own_fork", sum(engine.delayed), engine.index, family, engine.streams)
    for place, projection in enumerate(engine.projections):
        if projection.reads is not None:
            yield _reader(f"{name}.reader{place or ''}", projection.reads, engine, layer, projection.row_base, family)
    if len(engine.projections) > 1:
        parts = _Parts(family, engine.streams)
        timestep = index_width(1 if engine.keeps_sums else engine.timesteps)
        senders = len(engine.projections)
        parts.add(1 + event + senders + timestep, chosen=(senders - 1) * event, added=timestep, senders=senders)
        yield parts.of(f"{name}.merge", "merge", engine.index)


def _places(engine: EnginePlan, name: str, family: str) -> Iterator[Component]:
    """Counters through the slots of pictures, as wide as the largest needs."""
    layers = engine.layers
    if all(layer.picture is None for layer in layers):
        return
    shapes = [layer.picture or (1, 1, 1) for layer in layers]
    ranks, height, width = max(layer.n_ranks for layer in layers), *(max(x[axis] for x in shapes) for axis in (1, 2))
    yield _place(f"{name}.place", (width, height, ranks), engine.index, family)
    if any(layer.parameters_per_channel for layer in layers) and engine.placement.parameter_record.fields:
        sizes = max(layer.n_slots // layer.parameter_depth for layer in layers)
        words = max(layer.parameter_depth for layer in layers)
        yield _place(f"{name}.parameter_place", (sizes, words), engine.index, family)


def _control(plan: MachinePlan, engine: EnginePlan, name: str, family: str) -> Component:
    """The barrier, the sweep's stages, and what leaves."""
    parts = _Parts(family)
    placement, lanes = engine.placement, engine.lanes
    slot, stages = index_width(placement.n_slots), engine.clocks.write
    timestep, saturations = index_width(engine.timesteps), lanes.bit_length()
    is_folded = engine.is_shared
    parts.add(
        # The slot, its marks: valid, initial, silent until it is shown, the last one.
        slot + (stages) * (slot + 3) + engine.clocks.fire + timestep + saturations + 3,
        slot=slot,
        stages=stages,
        timestep=timestep,
        lanes=lanes,
    )
    if engine.fifo_depth:
        parts.add(room=engine.fifo_depth.bit_length())
    else:
        parts.add(held=1)
    if engine.streams > 1:
        # Whether streams have room, and whether they have ended, are known a clock late.
        parts.add((1 + (engine.queue_depth > 0)) * engine.streams, streams=engine.streams)
    if engine.collects and placement.pipeline == "deep":
        parts.add(timestep)
    if engine.value_width:
        parts.add(values=lanes)
    if engine.can_silence:
        parts.add(silence=lanes)
    if any(projection.row_base and projection.reads is None for projection in engine.projections):
        parts.add(added=index_width(placement.n_addresses))
    if is_folded:
        layers = len(engine.layers)
        layer = index_width(layers)
        address = index_width(placement.n_addresses)
        parts.add(layer + 2 + (address - index_width(max(1, engine.layers[0].n_in)) if layers > 1 else 0))
        parts.add(layers=layers, event=address + engine.widths.value, bases=lanes * slot)
        if not engine.is_chain:
            # The stage that tells links apart, and whose turn it is among them.
            links, words = len(engine.links), sum(link.way in ("passed", "kept") for link in engine.links)
            event = 1 + address + engine.widths.value + placement.tag.width
            parts.add(2 + event + index_width(links) + index_width(max(2, words)), chosen=(links - 1) * event)
    return parts.of(name, "folded" if is_folded else "control", engine.index)


def _fetcher(engine: EnginePlan, name: str, family: str) -> Iterator[Component]:
    placement, copies = engine.placement, len(engine.walkers)
    encoding, short = placement.encoding, placement.pipeline == "short"
    parts = _Parts(family, copies)
    # A value that no event carries is a constant.
    tag = engine.placement.tag.width + engine.widths.value
    row, word = engine.row.width, placement.synapse_record.width
    count = next(item.width for item in engine.row if item.name == "count")
    address = index_width(max(placement.synapse_depth(lane, stream) for lane, stream in engine.walkers))
    given = placement.fetched_record.width
    group = encoding.row_group.bit_length() - 1
    parts.add(2 + tag, row=row, address=address, count=count, tag=tag)
    if group:
        parts.add(2 + tag + placement.row_record.width + 2 * group, members=count * encoding.row_group)
    if not short:
        parts.add(2 + row + tag)
    if engine.queue_depth:
        level, place = engine.queue_depth.bit_length(), index_width(engine.queue_depth)
        parts.add(2 * level + 2 * place + short, levels=2 * level, places=2 * place, queue=1, entry=row + tag + 1)
    # The walker, and the clock in which a word is read.
    parts.add(2 + address + count + tag + 1 + tag)
    has_gaps, has_book, lands = encoding.gap_bits is not None, encoding.codebook is not None, bool(_taps(engine))
    if has_gaps or has_book or lands:
        slot = index_width(placement.n_slots)
        parts.add(1 + word + tag, decoded=1)
        if has_gaps:
            parts.add(3 + slot, gaps=2 * slot)
        if has_book:
            parts.add(book=len(encoding.codebook or ()) * placement.given_record.width)
        if lands:
            parts.add(landing=slot)
    if not short:
        parts.add(1 + given + engine.widths.value)
    if not engine.fifo_depth:
        parts.add(held=1)
    for memory in engine.memories:
        if memory.role == "queues" and not memory.clocked:
            parts.ram(memory)
    yield parts.of(f"{name}.fetcher", "fetcher", engine.index)
    yield _images(engine, f"{name}.fetcher.rows", "rows", family)
    yield _images(engine, f"{name}.fetcher.synapses", "synapses", family)


def _taps(engine: EnginePlan) -> int:
    return engine.placement.tag.width


def _images(engine: EnginePlan, name: str, role: str, family: str) -> Component:
    """The memories of one role, of all lanes."""
    parts = _Parts(family, 0)
    inputs = LUT_INPUTS[family]
    for memory in engine.images:
        if memory.role != role:
            continue
        found = _built_image(engine, memory, family)
        parts.memories.append(found)
        if memory.loadable:
            parts.terms["loadable"] += 1
        if found.kind == "logic":
            parts.registers += memory.width
            parts.terms["rom_tables"] += memory.width * -(-memory.depth // (1 << inputs))
            parts.terms["rom_bits"] += memory.bits
        elif found.kind == "lutram":
            parts.registers += memory.width
            parts.terms["lutrams"] += found.cells
            parts.terms["chosen"] += memory.width * (found.parts - 1)
        else:
            parts.registers += math.ceil(math.log2(found.parts))
            parts.terms["chosen"] += memory.width * (found.parts - 1)
    return parts.of(name, "images", engine.index)


def _built_image(engine: EnginePlan, memory: Memory, family: str) -> Built:
    """What an image's memory becomes. Bits that are the same in every word are no part of it, which is worth a look
    where a bit less is a block less."""
    found = built(memory, family)
    if not memory.read_only or found.blocks == built(replace(memory, width=max(1, memory.width - 1)), family).blocks:
        return found
    words = [int(word) for word in engine.placement.words(cast("Role", memory.role), memory.lane, memory.stream)]
    differing = reduce(or_, (word ^ words[0] for word in words), 0)
    return built(replace(memory, width=max(1, differing.bit_count())), family)


def _bank(plan: MachinePlan, engine: EnginePlan, name: str, family: str) -> Iterator[Component]:
    placement, widths, lanes = engine.placement, engine.widths, engine.lanes
    parts = _Parts(family, lanes)
    short = placement.pipeline == "short"
    fire, stages, ways = engine.clocks.fire, engine.clocks.write, engine.ways
    slot, accumulator = index_width(placement.n_slots), widths.accumulator
    weight = next(item.width for item in placement.given_record if item.name == "weight")
    # What is added: a product, or a weight and the mask of the timesteps to which it belongs.
    term = weight + widths.value
    multiplies = widths.value > 0 and not engine.collects
    sums = engine.streams
    shift = 0 if widths.has_sum else engine.frozen[0].fraction_bits
    spiking = any(ways.spiking)
    # Accumulation: what was written last, the product and its slot; deep: both twice, and the word that was read.
    # Of several streams each has its own.
    parts.add(sums * (1 + accumulator + 1 + slot + term), added=sums * (accumulator - shift))
    parts.add(muxed=sums * accumulator, slot=sums * slot)
    if not short:
        parts.add(sums * (slot + term + 3 + accumulator), muxed=sums * accumulator)
    for _ in range(sums if multiplies else 0):
        parts.multiply(weight, widths.value + 1, term, used=accumulator - shift)
    if engine.collects:
        # Of each stream one of the timesteps' sums is what the sweep adds.
        parts.add(index_width(widths.sums), masked=sums * accumulator, steps=sums * accumulator)
    if sums > 1 or engine.collects:
        # The sum of all, and what waits for it.
        parts.add(widths.sum + widths.swept, added=(sums - 1) * widths.sum)
    # What a sweep reads, the potential, the comparison.
    if widths.swept:
        parts.add(0 if short else widths.swept)
        parts.add(widths.potential, added=widths.potential)
        parts.add(muxed=accumulator + widths.state)
    else:
        parts.add(muxed=2 * accumulator)
    if widths.has_current:
        kept = widths.gathered if widths.has_sum else 0
        synaptic = widths.current if all(ways.gathers) else max(widths.current, widths.gathered)
        parts.add(kept + (2 if short else 3) * synaptic + 2, saturated=synaptic, added=widths.gathered)
        parts.add(*([widths.state] if widths.has_sum else []))
    if spiking:
        is_constant = not engine.is_shared and placement.constants.get("threshold") is not None
        parts.add(0 if short else 2 * widths.potential + 1)
        parts.add(**{"threshold_constant" if is_constant else "threshold": widths.potential})
        for kind, _ in set(ways.resets):
            parts.add(**{f"reset_{kind}": widths.potential})
        parts.add(saturated=widths.membrane)
    elif not short:
        parts.add(widths.potential)
    parts.add((1 + 1 if spiking else 0) + widths.membrane)
    _leaks(parts, engine, "leak", widths.membrane)
    parts.add(0 if short else widths.membrane)
    if widths.has_current:
        _leaks(parts, engine, "current_leak", widths.current)
        parts.add(0 if short else widths.current)
    if any(ways.delays):
        parts.add(0 if short else widths.potential, added=widths.potential)
    if engine.is_shared or placement.constants.get("bias") != [0]:
        parts.add(added=widths.state if not widths.has_current else widths.current_state)
    if widths.count:
        parts.add(widths.count * (stages - engine.clocks.stored), counted=widths.count)
    if widths.rest:
        # Timesteps of rest that are left pass the sweep's stages beside v, which is kept meanwhile.
        parts.add((fire - engine.clocks.stored) * widths.rest + (stages - fire) * (widths.rest + widths.membrane))
        parts.add(added=widths.rest, compared=2 * widths.rest, muxed=term + widths.state + widths.rest)
    # Of layers in turns each way that differs is built, and one of them chosen.
    parts.add(
        folded=widths.membrane * sum(others(found) for found in (ways.leaks("leak"), ways.resets, ways.clips)),
        muxed=widths.state * (others(ways.fractions) if widths.has_sum else 0),
    )
    if placement.capacity is not None:
        parts.add(clipped=2 * widths.membrane)
    # Parameters wait from when the first of them is read until they are used.
    record, used, first = placement.parameter_record, engine.parameter_clocks, engine.parameter_clock
    parts.add(sum(item.width * (used[item.name] - 1 - first) for item in record))
    for memory in engine.memories:
        if memory.role == "state":
            parts.ram(memory)
    yield parts.of(f"{name}.neurons", "bank", engine.index)
    if record.fields:
        yield _images(engine, f"{name}.neurons.parameters", "parameters", family)


def _leaks(parts: _Parts, engine: EnginePlan, which: str, width: int) -> None:
    """What a leak of a value of so many bits takes; of several layers each that differs."""
    record = {item.name: item.width for item in engine.placement.parameter_record}
    shift, multiplier = record.get(f"{which}_shift"), record.get(f"{which}_multiplier")
    leaks = set(engine.ways.leaks(which))
    if shift:
        parts.add(shifted=width * shift)
    parts.add(added=width * sum(kind == "shift" for kind, *_ in leaks))
    factors = {factor for kind, _, factor in leaks if kind == "multiply" and factor is not None}
    if multiplier:
        parts.multiply(width, multiplier + 1, 2 * width)
    elif len(factors) > 1 and parts.family in SHARING:
        # Layers have their turns.
        parts.multiply(width, max(factors).bit_length() + 1, 2 * width)
        parts.add(muxed=width)
        return
    for factor in factors:
        parts.multiply(width, factor.bit_length() + 1, 2 * width, factor)


def _digits(number: int) -> int:
    """Digits of -1 and 1 that a constant has, in the form with the fewest (the non-adjacent one)."""
    count = 0
    while number:
        if number & 1:
            count += 1
            number -= 2 - (number & 3)
        number >>= 1
    return count


def _fifo(name: str, memory: Memory, layer: int | None, family: str, copies: int = 1) -> Component:
    parts = _Parts(family, copies)
    counter = memory.depth.bit_length()
    parts.add(2 * counter + 1, added=2 * counter)
    for _ in range(copies):
        parts.ram(memory)
    return parts.of(name, "fifo", layer)


def _serialized(name: str, word: SweepWord, streams: int, layer: int, family: str) -> Iterator[Component]:
    """What makes a layer's sweep words to events of so many streams."""
    parts = _Parts(family, streams)
    if word.lanes == 1 and streams == 1:
        parts.add(1)
        yield parts.of(name, "serializer1", layer)
        return
    if streams > 1:
        yield _fork(f"{name}_fork", streams, layer, family)
        parts.add(owned=word.lanes)
    parts.add(1 + word.width, lanes=word.lanes, chosen=word.lanes * word.value_width, slot=word.slot_width)
    yield parts.of(name, "serializer", layer)


def _fork(name: str, readers: int, layer: int | None, family: str, streams: int = 1) -> Component:
    parts = _Parts(family, streams)
    parts.add(readers, readers=readers)
    return parts.of(name, "fork", layer)


def _reader(
    name: str, reads: PictureInput, engine: EnginePlan, layer: LayerMap, row_base: int, family: str
) -> Component:
    """What reads a picture for a layer; where layers have turns what it finds is registered behind all of them."""
    parts = _Parts(family, engine.streams)
    out = (
        0
        if engine.is_shared
        else 1 + 1 + index_width(layer.n_addresses) + engine.widths.value + engine.placement.tag.width
    )
    sides = [(reads.y, side_bits(reads.shape[1])), (reads.x, side_bits(reads.shape[2]))]
    tables = sum(
        max(1, int(max(column.max(initial=0), 0)).bit_length()) * max(1, (1 << bits) // (1 << LUT_INPUTS[family]))
        for axis, bits in sides
        for column in (axis.row, axis.base, axis.reach)
        if len(column) > 1
    )
    parts.add(out, tables=tables, added=reads.row_bits + (index_width(layer.n_slots) if reads.is_convolution else 0))
    if row_base:
        parts.add(based=index_width(layer.n_addresses))
    return parts.of(name, "reader", engine.index)


def _place(name: str, sizes: Sequence[int], layer: int, family: str) -> Component:
    parts = _Parts(family)
    bits = sum(side_bits(size) for size in sizes)
    parts.add(bits, added=bits, sides=sum(size > 1 for size in sizes))
    return parts.of(name, "place", layer)


def _skips(engine: EnginePlan, number: int, family: str) -> Iterator[Component]:
    """FIFOs of projections that skip layers."""
    for place, (depth, projection) in enumerate(zip(engine.skip_depths, engine.projections, strict=True)):
        if depth:
            memory = engine.waiting(depth, projection)
            yield _fifo(f"skip{number}_{place}", memory, engine.index, family, engine.streams)


def _collectors(engine: EnginePlan, number: int, family: str) -> Iterator[Component]:
    """What keeps masks of timesteps until a sample is whole."""
    for place, collector in enumerate(engine.collectors):
        if collector is None:
            continue
        parts = _Parts(family, engine.streams)
        address, timestep = index_width(collector.depth), index_width(collector.timesteps)
        group, word = 1 << collector.group_bits, collector.width
        parts.add(
            # Clearing, the banks and whose turn it is; an event on its way into a mask; a word on its way out of one.
            address + 1 + 4 + timestep,
            added=address + timestep,
        )
        parts.add(7 + 2 * address + collector.group_bits + timestep + 3 * word, muxed=3 * word, decoded=word)
        parts.add(address + 1 + 1 + address + word + address + group, masks=word, members=group, added=address + 1)
        if engine.loadable:
            parts.add(loader=1)
        for _ in range(2 * engine.streams):
            parts.ram(collector.bank)
        yield parts.of(f"collector{number}_{place}", "collector", engine.index)


def _forks(plan: MachinePlan, family: str) -> Iterator[Component]:
    """Forks where several layers read one population."""
    readers: Counter[int] = Counter({len(plan.mapping.layers) - 1: 1})
    for engine in plan.engines:
        if engine.is_shared:
            return
        readers.update(projection.source for projection in engine.projections if projection.source != engine.index)
    for source, count in sorted(readers.items()):
        if count > 1:
            name = "fork_input" if source < 0 else f"fork_{source}"
            yield _fork(name, count, None, family, plan.choices.event_streams)


def _readout(plan: MachinePlan, family: str) -> Iterator[Component]:
    network, last, parts = plan.network, plan.engines[-1], _Parts(family)
    index, timestep = index_width(network.n_outputs), index_width(last.timesteps)
    value = plan.output_record.fields[-1].width
    given = last.value_width
    if not plan.keeps_values:
        # The word that leaves, its kind, the best so far.
        parts.add(index + timestep + given + index + 1 + 1 + 1 + 2 + index + given)
        parts.add(index=index, value=given, timestep=timestep)
        yield parts.of("readout", "passing", None)
        return
    parts.add(
        2 + 1 + 2 + index + index + 2 * timestep + 1 + value + value + index + 1 + 1 + 2 + index + value,
        index=index,
        value=value,
        timestep=timestep,
        classes=network.n_outputs,
    )
    if plan.choices.output_spikes and not network.membrane_readout:
        parts.add(timestep + 1, spikes=timestep)
    if network.membrane_readout:
        parts.add(given, gathered=value)
    if last.sweep_word.lanes != 1 << last.sweep_word.lane_bits:
        parts.add(scaled=index)
    if last.layers[-1].picture is not None:
        parts.add(picture=index)
    if plan.choices.exits:
        parts.add(timestep + 3 + 1 + 2, exits=1)
    parts.ram(Memory("state", last.index, plan.values_depth, value))
    yield parts.of("readout", "readout", None)
    if plan.choices.exits:
        tracker = _Parts(family)
        tracker.add(1 + index + value + 2 * (index + value) + value + 2, value=value, index=index)
        if plan.choices.early_exit == "certain":
            tracker.add(certain=timestep)
        yield tracker.of("readout.tracker", "tracker", None)


def _loader(plan: MachinePlan, capacity: Capacity, family: str) -> Component:
    parts = _Parts(family)
    most = max(memory.word_bytes for memory in capacity.memories)
    registers = capacity.registers.stream_width
    address = max(index_width(memory.depth) for memory in capacity.memories)
    number = index_width(len(capacity.memories))
    groups = sum(memory.lane == 0 for memory in capacity.memories)
    data = max(memory.record.width for memory in capacity.memories)
    parts.add(
        # Two hashes, the machine's registers, the checksum, states and counters, the bus, a word.
        2 * 8 * HASH_BYTES + registers + 32 + 30 + 2 * (address + number) + 8 * most,
        groups=groups,
        loaded=address + data,
        fields=registers,
    )
    return parts.of("loader", "loader", None)
