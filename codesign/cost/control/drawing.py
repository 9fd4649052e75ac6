"""A plan as the parts of its control, joined by channels, and what comes in as words.

The parts are those of :mod:`rtl_templates`, joined as in :mod:`rtl_templates.accelerator`; what each of them does is in
the sources beside this module. Depths, stages and orders are the plan's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from codesign.contract.network import INPUT
from codesign.contract.stimulus import Stimulus
from codesign.machine.layer_map import LayerMap, ProjectionMap
from codesign.machine.plan import AGE_BITS, LEAD_CLOCKS, STARTS_DEPTH, CollectorPlan, EnginePlan, LinkPlan, MachinePlan
from codesign.machine.streams import address_within, interleaved, stream_of

Int = npt.NDArray[np.int64]


class Kind(IntEnum):
    """Parts, numbered as in machine.cpp."""

    HOST = 0
    ADMISSION = 1
    SPLITTER = 2
    GUARD = 3
    TRUSTED = 4
    PARALLEL_GUARD = 5
    STREAM_CHECK = 6
    DROPPER = 7
    BUFFER = 8
    FORK = 9
    FIFO = 10
    COLLECTOR = 11
    READER = 12
    MERGE = 13
    SELECT = 14
    SERIALIZER = 15
    ENGINE = 16
    READOUT = 17
    SINK = 18


WAYS = {"port": 0, "copy": 1, "passed": 2, "kept": 2}


def input_words(plan: MachinePlan, stimulus: Stimulus) -> tuple[npt.NDArray[np.int32], Int]:
    """What the host sends: int32 (words,), the source of each word or -1 for an end; int64 (N + 1,), where samples
    begin.

    Sources come in ascending order, of several streams in turns; a sample of input currents without any has one word.
    """
    stream = _input_streams(plan)

    def ordered(sources: npt.NDArray[np.integer]) -> Int:
        return sources[interleaved(stream[sources])].astype(np.int64)

    parts: list[Int] = []
    sizes = [0]
    for sample in range(len(stimulus)):
        if stimulus.values is not None:
            found = ordered(np.flatnonzero(stimulus.values[sample]))
            words = [found if found.size else np.zeros(1, np.int64)]
        else:
            words = []
            for timestep in range(stimulus.timesteps):
                words += [ordered(np.asarray(stimulus.events(sample, timestep))), np.array([-1])]
        parts += words
        sizes.append(sum(part.size for part in words))
    return np.concatenate(parts).astype(np.int32), np.cumsum(sizes)


def _input_streams(plan: MachinePlan) -> Int:
    """int64 (n_inputs,): the stream in which each input's events come."""
    for layer in plan.mapping.layers:
        for link in layer.projections:
            if link.source == INPUT:
                return link.source_stream
    return np.zeros(plan.network.n_inputs, np.int64)


def last_lands(layer: LayerMap) -> npt.NDArray[np.bool_]:
    """bool (lanes, n_in): whether the last tap of the row that an event of each source walks lands on a neuron.

    A row is walked to its end in any case; one that ends beside the picture is through a clock earlier.
    """
    found = np.ones((layer.lanes, layer.n_in), bool)
    if layer.synapse_step is None:
        return found
    row = layer.source_row
    for lane, steps in enumerate(layer.synapse_step):
        count, start = layer.row_count[lane][row], layer.row_start[lane][row]
        walks = (row >= 0) & (count > 0)
        last = np.where(walks, start + count - 1, 0)
        first = 0
        for link in layer.projections:
            part = slice(first, first + link.n_in)
            first += link.n_in
            if not steps.size:
                continue
            reach_y, reach_x = link.reach
            step_y, step_x = steps[0][last[part]], steps[1][last[part]]
            found[lane, part] = np.where(walks[part], (reach_y >> step_y) & (reach_x >> step_x) & 1, 1)
    return found


class Drawing:
    """A plan as parts and channels, in the order in which what is offered passes them."""

    def __init__(self, plan: MachinePlan):
        self._plan = plan
        self._streams = plan.choices.event_streams
        self._parts: list[int] = []
        self._count = self._channels = 0
        self._tables: list[Int] = []
        self._size = 0
        # Who reads each population: channels, one of each stream.
        self._readers: dict[int, list[list[int]]] = {index: [] for index in range(INPUT, len(plan.engines))}
        self._entries = [self._enter(engine) for engine in plan.engines]
        self._last = self._channel()
        self._readers[len(plan.engines) - 1].append([self._last])
        self._door()
        for number in range(len(plan.engines)):
            self._engine(number)
        self._readout()

    def finished(self) -> tuple[Int, npt.NDArray[np.int32]]:
        """The netlist, and the tables that its numbers point into."""
        netlist = np.array([self._count, self._channels, *self._parts], np.int64)
        return netlist, np.concatenate([*self._tables, np.zeros(1, np.int64)]).astype(np.int32)

    def _channel(self) -> int:
        self._channels += 1
        return self._channels - 1

    def _table(self, values: npt.NDArray) -> int:
        """Where a table begins."""
        begin = self._size
        self._tables.append(np.asarray(values, np.int64).reshape(-1))
        self._size += self._tables[-1].size
        return begin

    def _add(
        self, kind: Kind, numbers: Sequence[int], inputs: Sequence[int], outputs: Sequence[int], group: int = -1
    ) -> None:
        """group : the engine with which the part stands still."""
        self._count += 1
        self._parts += [kind, group]
        for values in (numbers, inputs, outputs):
            self._parts += [len(values), *(int(value) for value in values)]

    def _passed(self, kind: Kind, numbers: Sequence[int], given: int, group: int = -1) -> int:
        """A part with one input and one output, which is returned."""
        found = self._channel()
        self._add(kind, numbers, [given], [found], group)
        return found

    # Events of populations.

    def _enter(self, engine: EnginePlan) -> dict[int, list[int]]:
        """Channels into an engine of each projection that comes in, known to who sends."""
        outer = [number for number, late in enumerate(engine.delayed) if not late]
        if engine.is_shared:
            outer = [link.number for link in engine.links if link.way == "port"]
        found = {number: [self._channel() for _ in range(self._streams)] for number in outer}
        for number, entries in found.items():
            self._readers[engine.projections[number].source].append(entries)
        return found

    def _senders(self, population: int, streams: int) -> list[int]:
        """Channels that a population sends into."""
        readers = self._readers[population]
        return readers[0] if len(readers) == 1 else [self._channel() for _ in range(streams)]

    def _send(self, population: int, channels: Sequence[int], *, withdraws: bool = False) -> None:
        """streams.StreamFork for each stream of a population that several read."""
        readers = self._readers[population]
        for number, channel in enumerate(channels):
            if not readers:
                self._add(Kind.SINK, [], [channel], [])
            elif len(readers) > 1:
                self._add(Kind.FORK, [withdraws], [channel], [reader[number] for reader in readers])

    # The door.

    def _door(self) -> None:
        plan, network = self._plan, self._plan.network
        choices, is_current = plan.choices, network.coding.is_current
        can_drop = choices.exits and not is_current
        n_ends = 1 if is_current else network.timesteps
        seen = [plan.seen.depth, (1 << AGE_BITS) - 1]
        beats = self._channel()
        self._add(Kind.HOST, [choices.input_words], [], [beats])
        if choices.exits and choices.counters:
            beats = self._passed(Kind.ADMISSION, [STARTS_DEPTH], beats)
        senders = self._senders(INPUT, self._streams)
        if self._streams > 1:
            stream = self._table(_input_streams(plan))
            entries = [self._channel() for _ in senders]
            numbers = [can_drop, is_current, choices.input_checks, n_ends, stream]
            self._add(Kind.PARALLEL_GUARD, numbers, [beats], entries)
            for entry, sender in zip(entries, senders, strict=True):
                if choices.input_checks:
                    entry = self._passed(Kind.STREAM_CHECK, seen, entry)
                elif can_drop:
                    entry = self._passed(Kind.DROPPER, [], entry)
                self._add(Kind.BUFFER, [], [entry], [sender])
        else:
            if choices.input_words > 1:
                beats = self._passed(Kind.SPLITTER, [], beats)
            if choices.input_checks:
                self._add(Kind.GUARD, [can_drop, is_current, n_ends, *seen], [beats], senders)
            else:
                self._add(Kind.TRUSTED, [can_drop, is_current], [beats], senders)
        self._send(INPUT, senders, withdraws=can_drop)

    # Engines.

    def _engine(self, number: int) -> None:
        """An engine with what is before it and behind it."""
        engine, is_last = self._plan.engines[number], number + 1 == len(self._plan.engines)
        entries = {place: self._before(engine, place, found) for place, found in self._entries[number].items()}
        word = self._channel()
        if not engine.is_shared:
            self._merged(engine, number, entries, word)
        elif engine.is_chain:
            self._chain(engine, number, next(iter(entries.values())), word)
        else:
            self._links(engine, number, next(iter(entries.values())), word)
        if engine.fifo_depth:
            word = self._passed(Kind.FIFO, [engine.fifo_depth], word)
        streams = 1 if is_last else self._streams
        senders = self._senders(number, streams)
        self._serialized(word, engine.layers[-1:], streams, senders)
        self._send(number, senders)

    def _before(self, engine: EnginePlan, projection: int, found: list[int]) -> list[int]:
        """What waits, or is collected, before an engine."""
        depth, collector = engine.skip_depths[projection], engine.collectors[projection]
        if depth:
            found = [self._passed(Kind.FIFO, [depth], channel) for channel in found]
        if collector:
            link = engine.projections[projection]
            found = [
                self._passed(Kind.COLLECTOR, self._collector(collector, link, stream), channel)
                for stream, channel in enumerate(found)
            ]
        return found

    def _collector(self, collector: CollectorPlan, link: ProjectionMap, stream: int) -> list[int]:
        group, own = 1 << collector.group_bits, link.source_stream == stream
        place = address_within(link.source_address, link.place_bits, link.streams)
        source = np.zeros(collector.depth * group, np.int64)
        source[place[own]] = np.flatnonzero(own)
        timesteps = self._plan.network.timesteps
        return [collector.depth, group, timesteps, self._table(place), self._table(source)]

    def _serialized(
        self, word: int, layers: Sequence[LayerMap], streams: int, senders: Sequence[int], group: int = -1
    ) -> None:
        """serializer.serialized"""
        words = [word]
        if streams > 1:
            words = [self._channel() for _ in range(streams)]
            self._add(Kind.FORK, [False], [word], words, group)
        tables = []
        for layer in layers:
            neurons = _neurons(layer)
            stream = np.append(stream_of(layer.hardware_index, layer.place_bits, streams), -1)
            tables += [self._table(neurons), self._table(stream[neurons])]
        for number, (given, sender) in enumerate(zip(words, senders, strict=True)):
            numbers = [layers[0].lanes, streams, number, len(layers), *tables]
            self._add(Kind.SERIALIZER, numbers, [given], [sender], group)

    def _merged(self, engine: EnginePlan, group: int, entries: dict[int, list[int]], word: int) -> None:
        """intake.MergedIntake"""
        layer, own, returns = engine.layers[0], [], []
        if any(engine.delayed):
            back = self._channel()
            returns.append((1, False, back))
            waiting = self._passed(Kind.FIFO, [engine.own_fifo_depth], back, group)
            own = [self._channel() for _ in range(self._streams)]
            self._serialized(waiting, [layer], self._streams, own, group)
        given = []
        for stream in range(self._streams):
            late: list[int] = []
            if own:
                late, readers = [own[stream]], engine.delayed.count(True)
                if readers > 1:
                    late = [self._channel() for _ in range(readers)]
                    self._add(Kind.FORK, [False], [own[stream]], late, group)
            found, numbers, base = [], [1 if engine.keeps_sums else engine.timesteps], 0
            for number, (link, is_late) in enumerate(zip(engine.projections, engine.delayed, strict=True)):
                channel = late.pop(0) if is_late else entries[number][stream]
                if link.reads is not None:
                    channel = self._passed(Kind.READER, [self._reaches(link)], channel, group)
                found.append(channel)
                numbers += [is_late, base]
                base += link.n_in
            if len(found) == 1:
                given.append(found[0])
                continue
            merged = self._channel()
            self._add(Kind.MERGE, numbers, found, [merged], group)
            given.append(merged)
        self._core(engine, given, word, returns)

    def _reaches(self, link: ProjectionMap) -> int:
        return self._table(link.source_row >= 0)

    def _chain(self, engine: EnginePlan, group: int, entries: Sequence[int], word: int) -> None:
        """intake.ChainIntake"""
        back = self._channel()
        waiting = self._passed(Kind.FIFO, [engine.hidden_fifo_depth], back, group)
        tokens = [self._channel() for _ in range(self._streams)]
        self._serialized(waiting, engine.layers, self._streams, tokens, group)
        senders = (1 << (len(engine.layers) - 1)) - 1
        self._core(engine, [*entries, *tokens], word, [(senders, False, back)])

    def _links(self, engine: EnginePlan, group: int, entries: Sequence[int], word: int) -> None:
        """links.LinkIntake"""
        returns, waiting = [], {}
        passed = [link for link in engine.links if link.way == "passed"]
        kept = [link for link in engine.links if link.way == "kept"]
        for name, links, depth in [
            *([("passed", passed, engine.hidden_fifo_depth)] if passed else []),
            *((link.name, [link], link.depth) for link in kept),
        ]:
            back = self._channel()
            returns.append((sum(1 << link.source for link in links), links[0].is_late and name != "passed", back))
            waiting[name] = self._passed(Kind.FIFO, [depth], back, group)
        tokens = [self._channel() for _ in range(self._streams)]
        if waiting:
            names = [*waiting]
            order = [
                names.index("passed" if link.way == "passed" else link.name)
                for link in engine.links
                if link.way in ("passed", "kept")
            ]
            words = self._channel()
            self._add(Kind.SELECT, [len(order), *order], [*waiting.values()], [words], group)
            self._serialized(words, engine.layers, self._streams, tokens, group)
        given, copied = [], []
        for entry, token in zip(entries, tokens, strict=True):
            copies = [self._channel() for link in engine.links if link.way == "copy"]
            depths = [link.depth for link in engine.links if link.way == "copy"]
            given += [entry, token]
            given += [self._passed(Kind.FIFO, [depth], copy, group) for depth, copy in zip(depths, copies, strict=True)]
            copied += copies
        self._core(engine, given, word, returns, copied)

    def _core(
        self,
        engine: EnginePlan,
        given: Sequence[int],
        word: int,
        returns: Sequence[tuple[int, bool, int]],
        copied: Sequence[int] = (),
    ) -> None:
        """engine.Engine. returns : layers that send there, whether it is for the next timestep, the channel."""
        placement, clocks, layers = engine.placement, engine.clocks, engine.layers
        encoding, lands = placement.encoding, bool(placement.tag.fields)
        walkers = placement.fetchers
        lengths = np.concatenate([layer.walked(layer.row_lengths)[:walkers] for layer in layers], axis=1)
        taps = np.concatenate([last_lands(layer)[:walkers] for layer in layers], axis=1)
        last = layers[-1]
        margin = 0 if engine.is_shared else clocks.fifo_margin
        sizes = [layer.n_in for layer in layers]
        bases = np.cumsum([0, *sizes]).tolist()
        numbers = [
            engine.lanes,
            walkers,
            engine.streams,
            engine.queue_depth,
            placement.pipeline == "short",
            encoding.row_group > 1,
            lands or encoding.gap_bits is not None or encoding.codebook is not None,
            clocks.fire,
            clocks.write,
            clocks.settling,
            layers[0].schedule == "sample",
            engine.last_only,
            engine.counts,
            # The output FIFO is the part behind the engine.
            self._count + 1 if engine.fifo_depth else -1,
            engine.fifo_depth - last.n_slots - margin,
            sum(sizes),
            self._table(lengths),
            self._table(taps) if lands else -1,
            engine.is_chain if engine.is_shared else True,
            engine.holds,
            len(layers),
        ]
        for layer, base in zip(layers, bases, strict=False):
            numbers += [layer.n_slots, layer.index, self._table(_neurons(layer)), layer.spiking, base]
        numbers.append(0 if not engine.is_shared or engine.is_chain else len(engine.links))
        if engine.is_shared and not engine.is_chain:
            for link in engine.links:
                numbers += [link.layer, WAYS[link.way], bases[link.layer] + _first(layers[link.layer], link)]
                numbers.append(self._reaches(link.projection))
        numbers.append(len(returns))
        for senders, is_late, _ in returns:
            numbers += [senders, is_late]
        self._add(Kind.ENGINE, numbers, given, [word, *(channel for *_, channel in returns), *copied])

    def _readout(self) -> None:
        plan = self._plan
        numbers = [
            not plan.keeps_values,
            plan.choices.exits,
            plan.choices.output_spikes and not plan.network.membrane_readout,
            plan.network.n_outputs,
            LEAD_CLOCKS,
        ]
        self._add(Kind.READOUT, numbers, [self._last], [])


def _neurons(layer: LayerMap) -> Int:
    """int64 (n_slots, lanes): the neuron in each place, -1 where there is none."""
    found = np.full((layer.n_slots, layer.lanes), -1, np.int64)
    found[layer.slot, layer.lane] = np.arange(layer.n_out)
    return found


def _first(layer: LayerMap, link: LinkPlan) -> int:
    """Where the sources of a link begin among those of its layer."""
    return sum(projection.n_in for projection in layer.projections[: link.number])
