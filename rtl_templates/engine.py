"""One layer: P lanes, the barrier at the end of a timestep, and the fire sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Elaboratable, EnableInserter, Module, Mux, Shape, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.layouts import index_width
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import popcount, wrap
from rtl_templates.fetcher import SynapseFetcher, event_layout
from rtl_templates.memories import StreamFifo, load_bus
from rtl_templates.neurons import NeuronBank
from rtl_templates.picture import PicturePlace, PictureReader
from rtl_templates.serializer import serialized, sweep_word_layout
from rtl_templates.streams import EventMerge, StreamFork, join

IDLE, ACCUMULATE, SWEEP, CLEAR = range(4)
PROBES = ("valid", "slot", "spikes", "membranes", "phase")
# Of a layer with a synaptic current.
CURRENTS = "currents"


def sweep_stages(m: Module, count: int, slot_shape: Shape) -> tuple[list[Signal], ...]:
    """Pipeline of a sweep: lists of slot, valid, initial, silent and is_end; entry k is of the slot read k clocks ago.

    The first entries are the caller's to drive.
    """
    shapes = {
        "slot": slot_shape,
        "valid": unsigned(1),
        "initial": unsigned(1),
        "silent": unsigned(1),
        "is_end": unsigned(1),
    }
    stages = tuple(
        [Signal(shape, name=f"{name}_{k}", reset_less=k > 0 and name != "valid") for k in range(count)]
        for name, shape in shapes.items()
    )
    for stage in stages:
        m.d.sync += [late.eq(early) for early, late in pairwise(stage)]
    return stages


def stream_suffixes(streams: int) -> list[str]:
    """What names of a stream's parts end in."""
    return [f"_{stream}" for stream in range(streams)] if streams > 1 else [""]


def streams_wait(m: Module, plan: EnginePlan, walkers: Mapping[tuple[int, int], SynapseFetcher]) -> list[Signal]:
    """Of each of several streams, whether all of its walkers waited at an end a clock ago, which they do until they are
    told to go on; none of a single one."""
    found = []
    for number, of in enumerate(stream_suffixes(plan.streams) if plan.streams > 1 else []):
        # The mutants find it by this name.
        waiting = Signal(name=f"waits{of}")
        m.d.sync += waiting.eq(Cat(fetcher.waiting for (_, at), fetcher in walkers.items() if at == number).all())
        found.append(waiting)
    return found


class LayerEngine(wiring.Component):
    """One layer of the network.

    Operation: events are broadcast to the lanes, each of which walks its own rows (:class:`SynapseFetcher`,
    :class:`NeuronBank`). When every lane has reached the end of the timestep and the output FIFO has room for a
    whole sweep, all lanes sweep their slots in lock step, one slot a clock; events of the next timestep are
    queued meanwhile. The sweep of a sample's last timestep writes the initial state, and so does a sweep after
    reset, since memories are not cleared by ``rst``. Where a sample is walked at once (input currents, and events that
    an :class:`rtl_templates.collector.EventCollector` has collected) one accumulation is followed by T sweeps.

    Events come in R streams, one of each in a clock, and each lane walks the rows of each stream's events apart. The
    sweep waits until all streams have ended, and adds their sums up.

    Throughput: P synapses a clock from each stream; a timestep costs, beside its synapses, n_slots clocks of sweep and
    about 6 of filling and draining, or 1 if it has no event and the sweep is longer than its pipeline.

    Without a FIFO the words leave as the sweep makes them, and the whole engine stands still while one is not taken.
    Lanes in lock step share a fetcher, whose words hold a synapse for each of them. A last
    layer that ``counts`` says how often each neuron has fired in a sample, with the sample's last timestep, and
    nothing else.

    Parameters
    ----------
    plan : of the engine, which serves one layer.

    Members
    -------
    i, i1, ... : In(stream of event_layout), one for each projection but the layer's own events, or ``i_0``, ``i_1`` and
        so on for the streams of each; ``inputs`` lists them. Events and ends of timesteps (of samples where they are
        walked at once).
    o : Out(stream of sweep_word_layout); words in slot order, silent ones left out, the last of a timestep marked.
    saturations : Out(range(P + 1)); membranes clipped, a clock after they are probed.
    silence : In(1); ends of timesteps are sent and nothing else. sample_end : Out(1), pulse: the sample's last word
        goes into the output FIFO, or without one is taken; ``silence`` in the next clock is for the next sample.
    probe_valid, probe_slot, probe_spikes, probe_membranes, probe_phase : Out; probe_currents : Out, if there are
        synaptic currents; see docs/machine.md.
    last_timestep, load : In, of a loadable machine: T - 1, and the load bus. clip : In, if the layer spikes, as of
        :class:`NeuronBank`.

    Raises
    ------
    ValueError if the plan serves several layers.
    """

    def __init__(self, plan: EnginePlan):
        if len(plan.layers) > 1:
            raise ValueError(f"the plan serves {len(plan.layers)} layers, this engine one")
        self.plan = plan
        self._placement = placement = plan.layers[0]
        self._capacity = capacity = placement.capacity
        widths = plan.widths
        super().__init__(
            {
                **{
                    name: In(stream.Signature(event_layout(plan.projections[number].stream_span, widths.value)))
                    for number, names in self._input_names.items()
                    for name in names
                },
                "o": Out(stream.Signature(sweep_word_layout(plan.sweep_word))),
                "saturations": Out(range(placement.lanes + 1)),
                "probe_valid": Out(1),
                "probe_slot": Out(unsigned(index_width(placement.n_slots))),
                "probe_spikes": Out(unsigned(placement.lanes)),
                "probe_membranes": Out(unsigned(placement.lanes * widths.membrane)),
                "probe_phase": Out(unsigned(2)),
                **({"probe_currents": Out(unsigned(placement.lanes * widths.current))} if widths.has_current else {}),
                **(
                    {"last_timestep": In(unsigned(index_width(plan.timesteps))), "load": In(load_bus(capacity))}
                    if capacity
                    else {}
                ),
                **({"clip": In(unsigned(widths.membrane - 1))} if self._clips else {}),
                **({"silence": In(1), "sample_end": Out(1)} if plan.can_silence else {}),
            }
        )

    @property
    def _input_names(self) -> dict[int, list[str]]:
        """Names of the streams that come in, by the number of their projection: all but the layer's own events."""
        outer = [number for number, late in enumerate(self.plan.delayed) if not late]
        return {
            number: [f"i{place or ''}{of}" for of in stream_suffixes(self.plan.streams)]
            for place, number in enumerate(outer)
        }

    @property
    def inputs(self) -> dict[int, list[stream.Interface]]:
        """The streams that come in, by the number of their projection."""
        return {number: [getattr(self, name) for name in names] for number, names in self._input_names.items()}

    @property
    def _clips(self) -> bool:
        """True if the width into which membranes are clipped is a signal."""
        return self._capacity is not None and self._placement.spiking

    def _events(self, m: Module, while_moving: Callable[[Value], Value]) -> tuple[list[Any], Any]:
        """Rows to walk, of all projections together, for each stream; and where the layer's own sweep words go, if it
        reads itself."""
        plan, layer = self.plan, self._placement
        rows = event_layout(layer.n_addresses, plan.widths.value, layer.tag)
        own, tokens = self._own_events(m) if any(plan.delayed) else (None, [iter(())] * plan.streams)
        merged: list[Any] = []
        for of_stream, (own_tokens, of) in enumerate(zip(tokens, stream_suffixes(plan.streams), strict=True)):
            found: list[Any] = []
            for number, projection in enumerate(plan.projections):
                if plan.delayed[number]:
                    source = next(own_tokens)
                else:
                    outer = self.inputs[number][of_stream]
                    source = stream.Signature(event_layout(projection.stream_span, plan.widths.value)).create()
                    m.d.comb += [
                        Value.cast(source.payload).eq(Value.cast(outer.payload)),
                        source.valid.eq(outer.valid),
                        outer.ready.eq(while_moving(source.ready)),
                    ]
                if projection.reads is not None:
                    m.submodules[f"reader{number or ''}{of}"] = reader = PictureReader(plan, number)
                    join(m, source, reader.i)
                    found.append(reader.o)
                    continue
                event = stream.Signature(rows).create()
                row = source.payload.source + projection.row_base if projection.row_base else source.payload.source
                m.d.comb += [
                    event.payload.end.eq(source.payload.end),
                    event.payload.source.eq(wrap(row, event.payload.source.shape())),
                    event.valid.eq(source.valid),
                    source.ready.eq(event.ready),
                ]
                if plan.widths.value:
                    m.d.comb += event.payload.value.eq(source.payload.value)
                if layer.tag.fields:
                    # Single synapses beside taps: steps of 0 from a base of 0.
                    m.d.comb += [event.payload.reach_y.eq(1), event.payload.reach_x.eq(1)]
                found.append(event)
            if len(found) == 1:
                merged.append(found[0])
                continue
            # What comes is ended once for each accumulation.
            steps = 1 if plan.keeps_sums else plan.timesteps
            m.submodules[f"merge{of}"] = merge = EventMerge(rows, plan.delayed, steps)
            for sender, receiver in zip(found, merge.inputs, strict=True):
                join(m, sender, receiver)
            merged.append(merge.o)
        return merged, own

    def _own_events(self, m: Module) -> tuple[Any, list[Iterator[Any]]]:
        """Where the layer's sweep words wait for the next timestep, and their events, of each stream for each
        projection that reads them."""
        plan = self.plan
        m.submodules.own = fifo = StreamFifo(sweep_word_layout(plan.own_word), plan.own_fifo_depth)
        found: list[Iterator[Any]] = []
        for sent, of in zip(
            serialized(m, fifo.o, plan.own_word, plan.streams, "own_serializer"), stream_suffixes(plan.streams)
        ):
            readers = plan.delayed.count(True)
            if readers == 1:
                found.append(iter([sent]))
                continue
            m.submodules[f"own_fork{of}"] = fork = StreamFork(sent.payload.shape(), readers)
            join(m, sent, fork.i)
            found.append(iter(fork.outputs))
        return fifo.i, found

    def _used(self, is_last: Value) -> Value:
        """Lanes with a neuron in the slot; ``is_last`` : it is one of the last neurons, or channels, of its lane."""
        placement = self._placement
        units = placement.picture[0] if placement.picture else placement.n_out
        in_last = units - (placement.n_ranks - 1) * placement.lanes
        return Mux(is_last, (1 << in_last) - 1, (1 << placement.lanes) - 1)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        plan, placement = self.plan, self._placement
        lanes, n_slots = placement.lanes, placement.n_slots
        fire, stages = plan.clocks.fire, plan.clocks.write
        has_fifo = plan.fifo_depth > 0
        walkers: dict[tuple[int, int], SynapseFetcher] = {}
        banks: list[NeuronBank] = []
        for lane, of_stream in plan.walkers:
            name = f"fetcher{lane}{stream_suffixes(plan.streams)[of_stream]}"
            m.submodules[name] = walkers[lane, of_stream] = SynapseFetcher(plan, lane, of_stream)
        fetchers = list(walkers.values())
        for lane in range(lanes):
            m.submodules[f"neurons{lane}"] = bank = NeuronBank(plan, lane)
            banks.append(bank)
        settling = plan.clocks.settling
        layout = self.o.payload.shape()
        # An engine that cannot keep a word stands still until it is taken.
        moves = Signal(init=1)
        if not has_fifo:
            m.d.comb += moves.eq(~self.o.valid | self.o.ready)

        def while_moving(value: Value) -> Value:
            return value if has_fifo else value & moves

        # Events of a stream to every lane at once.
        streams, own = self._events(m, while_moving)
        accepts: list[Signal] = []
        for of_stream, events in enumerate(streams):
            accept = Signal()
            accepts.append(accept)
            rooms = [fetcher.room for (_, at), fetcher in walkers.items() if at == of_stream]
            has_room: Value = Cat(rooms).all()
            if plan.streams > 1 and plan.queue_depth:
                # What so many lanes say is known a clock late.
                late = Signal(name=f"has_room_{of_stream}")
                m.d.sync += late.eq(has_room)
                has_room = late
            m.d.comb += [
                events.ready.eq(while_moving(has_room)),
                accept.eq(while_moving(events.valid & events.ready)),
            ]

        slot, valid, initial, silent, is_end = sweep_stages(m, stages + 1, unsigned(index_width(n_slots)))
        timestep = Signal(unsigned(index_width(plan.timesteps)))
        last_timestep = Signal()
        room = Signal()
        at_barrier = Signal()
        waits = streams_wait(m, plan, walkers)
        drained = Signal()
        go = Signal()
        resume = Signal()
        working = Signal()
        m.d.comb += [
            last_timestep.eq(timestep == (self.last_timestep if self._capacity else plan.timesteps - 1)),
            at_barrier.eq(Cat(waits or [fetcher.waiting for fetcher in fetchers]).all()),
            # The next sweep may follow at once if slot 0 has been written by then.
            drained.eq(~Cat(valid[1:stages]).any() | (n_slots > stages)),
            is_end[0].eq(slot[0] == n_slots - 1),
            working.eq(Cat(fetcher.busy for fetcher in fetchers).any() | Cat(bank.busy for bank in banks).any()),
        ]
        next_timestep = Mux(last_timestep, 0, wrap(timestep + 1, timestep.shape()))
        with m.FSM(init="clear"):
            with m.State("clear"):
                m.d.comb += [valid[0].eq(1), initial[0].eq(1), silent[0].eq(1), self.probe_phase.eq(CLEAR)]
                m.d.sync += slot[0].eq(wrap(slot[0] + 1, slot[0].shape()))
                with m.If(is_end[0]):
                    m.d.sync += slot[0].eq(0)
                    m.next = "accumulate"
            with m.State("accumulate"):
                m.d.comb += [
                    go.eq(~Cat(valid[1:settling]).any()),
                    self.probe_phase.eq(Mux(working, ACCUMULATE, IDLE)),
                ]
                with m.If(at_barrier & drained & room):
                    m.d.comb += resume.eq(1)
                    m.next = "sweep"
            with m.State("sweep"):
                m.d.comb += [
                    valid[0].eq(1),
                    initial[0].eq(last_timestep),
                    self.probe_phase.eq(SWEEP),
                ]
                m.d.sync += slot[0].eq(wrap(slot[0] + 1, slot[0].shape()))
                with m.If(is_end[0]):
                    if settling == 0:
                        m.d.comb += go.eq(last_timestep if plan.keeps_sums else 1)
                    m.d.sync += [slot[0].eq(0), timestep.eq(next_timestep)]
                    if plan.keeps_sums:
                        with m.If(last_timestep):
                            m.next = "accumulate"
                        with m.Elif(~room | (n_slots <= stages)):
                            m.next = "wait"
                    else:
                        m.next = "accumulate"
            if plan.keeps_sums:
                with m.State("wait"), m.If(drained & room):
                    m.next = "sweep"

        parameter_slot: Value = slot[banks[0].parameter_clock]
        if placement.parameters_per_channel and placement.parameter_record.fields:
            assert placement.picture is not None
            # A word for each channel: counted where the sweep reads it.
            at = PicturePlace(placement.n_ranks, 1, placement.n_slots // placement.n_ranks)
            m.submodules.parameter_place = at
            m.d.comb += at.step.eq(valid[banks[0].parameter_clock])
            parameter_slot = at.rank
        for (_, of_stream), fetcher in walkers.items():
            m.d.comb += [
                fetcher.broadcast_valid.eq(accepts[of_stream]),
                Value.cast(fetcher.broadcast).eq(Value.cast(streams[of_stream].payload)),
                fetcher.go.eq(go),
                fetcher.resume.eq(resume),
            ]
            if not has_fifo:
                m.d.comb += fetcher.hold.eq(~moves)
        # What is walked at once serves all timesteps of a sample.
        clears_last = plan.keeps_sums or not plan.widths.has_sum
        step = timestep
        if plan.widths.sums > 1 and placement.pipeline == "deep":
            step = Signal.like(timestep, name="read_step", reset_less=True)
            m.d.sync += step.eq(timestep)
        for lane, bank in enumerate(banks):
            of_lane = [walkers[0 if placement.lockstep else lane, of_stream] for of_stream in range(plan.streams)]
            for of_stream, fetcher in enumerate(of_lane):
                synapse = Value.cast(fetcher.synapse)
                if placement.lockstep:
                    synapse = synapse.word_select(lane, len(synapse) // lanes)
                walked_valid, walked, value = bank.walked(of_stream)
                m.d.comb += [
                    walked_valid.eq(fetcher.synapse_valid),
                    Value.cast(walked).eq(synapse),
                    value.eq(fetcher.value),
                ]
            m.d.comb += [
                bank.read_valid.eq(valid[0]),
                bank.read_slot.eq(slot[0]),
                bank.clear_valid.eq(valid[2] & initial[2] if clears_last else valid[2]),
                bank.clear_slot.eq(slot[2]),
                bank.write_valid.eq(valid[stages]),
                bank.write_slot.eq(slot[stages]),
                bank.write_initial.eq(initial[stages]),
            ]
            if plan.widths.sums > 1:
                m.d.comb += bank.step.eq(step)
            if placement.parameter_record.fields:
                m.d.comb += [
                    bank.parameter_valid.eq(while_moving(valid[bank.parameter_clock])),
                    bank.parameter_slot.eq(parameter_slot),
                ]

            if self._capacity:
                m.d.comb += [*(fetcher.load.eq(self.load) for fetcher in of_lane), bank.load.eq(self.load)]
            if self._clips:
                m.d.comb += bank.clip.eq(self.clip)

        # What the sweep shows, and what leaves.
        shown = Signal()
        spikes = Cat(bank.spike for bank in banks)
        m.d.comb += [
            shown.eq(valid[fire] & ~silent[fire]),
            self.probe_valid.eq(while_moving(shown)),
            self.probe_slot.eq(slot[fire]),
            self.probe_spikes.eq(spikes),
            self.probe_membranes.eq(Cat(bank.membrane for bank in banks)),
        ]
        if plan.widths.has_current:
            m.d.comb += self.probe_currents.eq(Cat(bank.current for bank in banks))
        saturations = Signal.like(self.saturations)
        m.d.sync += saturations.eq(Mux(shown, popcount([bank.saturated for bank in banks]), 0))
        # What stands still is not to be counted twice.
        m.d.comb += self.saturations.eq(saturations if has_fifo else Mux(moves, saturations, 0))
        word = Signal(layout)
        word_slot: Value = slot[fire]
        in_last_rank: Value = is_end[fire]
        if placement.picture is not None:
            m.submodules.place = place = PicturePlace(placement.n_ranks, *placement.picture[1:])
            m.d.comb += place.step.eq(valid[fire])
            word_slot = Cat(place.x, place.y, place.rank)
            in_last_rank = place.rank == placement.n_ranks - 1
        m.d.comb += [word.end.eq(is_end[fire]), word.slot.eq(wrap(word_slot, word.slot.shape()))]
        if not plan.value_width:
            m.d.comb += word.mask.eq(spikes)
        else:
            used = self._used(in_last_rank)
            # membrane_last looks at the last timestep alone; counts are whole then.
            m.d.comb += word.mask.eq(Mux(initial[fire], used, 0) if plan.last_only else used)
            for lane, bank in enumerate(banks):
                m.d.comb += word["values"][lane].eq(bank.count if plan.counts else bank.membrane)
        if plan.can_silence:
            m.d.comb += self.sample_end.eq(while_moving(shown & is_end[fire] & initial[fire]))
            with m.If(self.silence):
                m.d.comb += word.mask.eq(0)
        leaves = Signal()
        m.d.comb += leaves.eq(shown & (word.mask.any() | word.end))
        if own is not None:
            # Words of counts say nothing before the last timestep, after which nothing is left to come back.
            fired, returns = word.mask, leaves
            if plan.counts:
                fired, returns = spikes, shown & (spikes.any() | word.end)
            m.d.comb += [
                own.payload.end.eq(word.end),
                own.payload.slot.eq(word.slot),
                own.payload.mask.eq(fired),
                own.valid.eq(returns & ~initial[fire]),
            ]
        if not has_fifo:
            m.d.comb += [Value.cast(self.o.payload).eq(Value.cast(word)), self.o.valid.eq(leaves), room.eq(1)]
            return EnableInserter(moves)(m)
        m.submodules.fifo = fifo = StreamFifo(layout, plan.fifo_depth)
        m.d.comb += [
            Value.cast(fifo.i.payload).eq(Value.cast(word)),
            fifo.i.valid.eq(leaves),
            room.eq(fifo.level <= plan.fifo_depth - n_slots - plan.clocks.fifo_margin),
        ]
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        return m
