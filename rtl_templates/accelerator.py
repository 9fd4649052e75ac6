"""The top: door, layers in a row, readout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, ResetInserter, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

from codesign.contract.network import INPUT
from codesign.machine.capacity import LOAD_ERRORS
from codesign.machine.plan import MachinePlan
from rtl_templates.arithmetic import popcount, wrap
from rtl_templates.beats import BeatSplitter
from rtl_templates.collector import EventCollector
from rtl_templates.early_exit import ExitCounters
from rtl_templates.engine import Engine
from rtl_templates.guard import InputGuard, TrustedInput
from rtl_templates.loader import NetworkLoader
from rtl_templates.memories import StreamFifo
from rtl_templates.parallel_guard import ParallelGuard
from rtl_templates.readout import Readout
from rtl_templates.serializer import serialized
from rtl_templates.streams import StreamFork, join

EXIT_COUNTERS = ("latency_cycles", "exit_count", "timestep_count")


def port_members(plan: MachinePlan) -> dict[str, Member]:
    """Ports of a machine, beside ``clk`` and ``rst``, in their order."""
    input_words = plan.choices.input_words
    return {
        "s_axis_tdata": In(input_words * plan.input_record.stream_width),
        **({"s_axis_tkeep": In(input_words * plan.input_record.stream_width // 8)} if input_words > 1 else {}),
        "s_axis_tvalid": In(1),
        "s_axis_tready": Out(1),
        "s_axis_tlast": In(1),
        "m_axis_tdata": Out(plan.output_record.stream_width),
        "m_axis_tvalid": Out(1),
        "m_axis_tready": In(1),
        "m_axis_tlast": Out(1),
        "busy": Out(1),
        "protocol_error": Out(4),
        "saturation_count": Out(32),
        "cycle_count": Out(32),
        "network_hash": Out(64),
        **(
            {
                "l_axis_tdata": In(8),
                "l_axis_tvalid": In(1),
                "l_axis_tready": Out(1),
                "l_axis_tlast": In(1),
                "expected_hash": In(64),
                "loaded": Out(1),
                "load_error": Out(len(LOAD_ERRORS)),
            }
            if plan.mapping.capacity
            else {}
        ),
        **({name: Out(32) for name in EXIT_COUNTERS} if plan.choices.exits else {}),
    }


class Accelerator(wiring.Component):
    """A whole frozen network.

    Operation: samples stream in, output words stream out. Shape 'streaming': an engine per layer, which work on
    different timesteps, and on different samples, at once. Shape 'folded': one engine, layers in turn. Arithmetic:
    :mod:`codesign.contract.golden`, exactly.

    Parameters
    ----------
    plan : of the machine. A loadable one starts with the plan's network, or with single-port RAM without one.

    Members
    -------
    s_axis_tdata, s_axis_tvalid, s_axis_tready, s_axis_tlast : AXI4-Stream of codesign.machine.layouts.input_word, each
        padded to whole bytes; taken in clocks with tvalid and tready. With several words a beat also s_axis_tkeep: the
        first word always counts, the others up to the first whose lowest byte is not kept.
    m_axis_tdata, m_axis_tvalid, m_axis_tready, m_axis_tlast : AXI4-Stream of codesign.machine.layouts.output_word,
        padded to whole bytes; held while tvalid without tready.
    busy : Out(1), a sample is inside.
    protocol_error : Out(4), sticky; bits as codesign.machine.layouts.PROTOCOL_ERRORS.
    saturation_count, cycle_count : Out(32), since reset, wrapping. A sample's saturations are counted when its
        decision is given.
    network_hash : Out(64), first 8 bytes of the network hash, big-endian.
    latency_cycles, exit_count, timestep_count : Out(32), only with early exit; see :class:`ExitCounters`.
    l_axis_tdata, l_axis_tvalid, l_axis_tready, l_axis_tlast : AXI4-Stream of load images, bytes; of a loadable machine,
        as are expected_hash : In(64), loaded : Out(1), load_error : Out(4); see :class:`NetworkLoader`. A load waits
        until no sample is inside, and starts the machine afresh as a reset does.
    """

    def __init__(self, plan: MachinePlan):
        self.plan = plan
        self.choices = choices = plan.choices
        self.network = plan.network
        self.engines = [Engine(engine) for engine in plan.engines]
        self.capacity = plan.mapping.capacity
        self.loader = (
            NetworkLoader(plan.network, self.capacity, starts_empty=choices.starts_empty) if self.capacity else None
        )
        self.input_record, self.output_record = plan.input_record, plan.output_record
        super().__init__(port_members(plan))

    @staticmethod
    def _send(
        m: Module,
        working: Callable[[Any], Elaboratable],
        name: str,
        sources: list[Any],
        readers: list[list[Any]],
        *,
        withdraws: bool = False,
    ) -> None:
        """Every event of ``sources``, a population's streams, to each of the readers, which have as many.

        withdraws : as of :class:`StreamFork`.
        """
        for number, source in enumerate(sources):
            if len(readers) > 1:
                fork = StreamFork(source.payload.shape(), len(readers), withdraws=withdraws)
                m.submodules[f"fork_{name}" + (f"_{number}" if len(sources) > 1 else "")] = working(fork)
                join(m, source, fork.i)
                for output, reader in zip(fork.outputs, readers, strict=True):
                    join(m, output, reader[number])
            elif readers:
                join(m, source, readers[0][number])
            else:
                # Nobody listens to a layer that leads nowhere.
                m.d.comb += source.ready.eq(1)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        network, loader, choices = self.network, self.loader, self.choices
        # A loadable machine stands still, as if reset, from a load's first word to its end.
        restart = Signal()
        # No sample is half sent.
        between = Signal(init=1)

        def working(component: wiring.Component) -> Elaboratable:
            return ResetInserter(restart)(component) if loader else component

        # With coding 'current' all input is in before the first timestep ends.
        can_drop = choices.exits and not network.coding.is_current
        picture, streams = self.plan.input_picture, choices.event_streams
        door = {"picture": picture, "can_drop": can_drop}
        guard: ParallelGuard | InputGuard | TrustedInput
        if streams > 1:
            words, width = choices.input_words, self.input_record.stream_width
            checks = choices.input_checks
            guard = ParallelGuard(network, words, width, streams, self.capacity, checks=checks, **door)
        else:
            guard = (InputGuard if choices.input_checks else TrustedInput)(network, self.capacity, **door)
        m.submodules.guard = working(guard)
        word, last, valid, ready = self.s_axis_tdata, self.s_axis_tlast, self.s_axis_tvalid, self.s_axis_tready
        registers = loader.registers if loader else None
        last_timestep: Value | int = network.timesteps - 1 if registers is None else registers.last_timestep
        # What keeps the door shut.
        shut: list[Value] = []
        if loader:
            # Nothing comes in while the loader holds the door, except for the rest of a sample.
            shut.append(restart | (loader.hold & between))
            with m.If(self.s_axis_tvalid & self.s_axis_tready):
                m.d.sync += between.eq(self.s_axis_tlast)
            with m.If(restart):
                m.d.sync += between.eq(1)
        exit_counters: ExitCounters | None = None
        if choices.exits and choices.counters:
            exit_counters = ExitCounters(self.capacity.timesteps if self.capacity else network.timesteps)
            m.submodules.exit_counters = working(exit_counters)
            shut.append(~exit_counters.opens)
            m.d.comb += [
                exit_counters.last_timestep.eq(last_timestep),
                exit_counters.cycle.eq(self.cycle_count),
                exit_counters.taken.eq(self.s_axis_tvalid & self.s_axis_tready),
                exit_counters.last.eq(self.s_axis_tlast),
                *(getattr(self, name).eq(getattr(exit_counters, name)) for name in EXIT_COUNTERS),
            ]
        if shut:
            closed, valid, ready = Signal(), Signal(), Signal()
            m.d.comb += [
                closed.eq(Cat(shut).any()),
                valid.eq(self.s_axis_tvalid & ~closed),
                self.s_axis_tready.eq(ready & ~closed),
            ]
        if isinstance(guard, ParallelGuard):
            m.d.comb += [
                Value.cast(guard.i.payload.words).eq(self.s_axis_tdata),
                guard.i.payload.keep.eq(self.s_axis_tkeep if choices.input_words > 1 else ~0),
            ]
            entered, doors = guard.i, guard.outputs
        else:
            entered, doors = guard.i, [guard.o]
        if choices.input_words > 1 and streams == 1:
            splitter = BeatSplitter(choices.input_words, self.input_record.stream_width)
            m.submodules.splitter = working(splitter)
            m.d.comb += [
                Value.cast(splitter.i.payload.words).eq(self.s_axis_tdata),
                splitter.i.payload.keep.eq(self.s_axis_tkeep),
                splitter.i.payload.last.eq(last),
                splitter.i.valid.eq(valid),
                ready.eq(splitter.i.ready),
            ]
            word, last = splitter.o.payload.word, splitter.o.payload.last
            valid, ready = splitter.o.valid, splitter.o.ready
        if not isinstance(guard, ParallelGuard):
            in_word = Value.cast(guard.i.payload.word)
            m.d.comb += in_word.eq(wrap(word, unsigned(len(in_word))))
        m.d.comb += [entered.payload.last.eq(last), entered.valid.eq(valid), ready.eq(entered.ready)]
        readout = Readout(self.plan)
        m.submodules.readout = working(readout)
        # Who reads each population's events, the input's being INPUT's.
        readers: dict[int, list[list[Any]]] = {index: [] for index in range(INPUT, len(self.engines))}
        for index, engine in enumerate(self.engines):
            for number, entries in engine.inputs.items():
                gatherer = engine.plan.collectors[number]
                for place, entry in enumerate(entries) if gatherer else ():
                    collector = EventCollector(gatherer, is_free=loader is not None)
                    name = f"collector{index}_{number}" + (f"_{place}" if streams > 1 else "")
                    m.submodules[name] = working(collector)
                    join(m, collector.o, entry)
                    entries[place] = collector.i
                    if loader:
                        m.d.comb += collector.last_timestep.eq(last_timestep)
                depth, projection = engine.plan.skip_depths[number], engine.plan.projections[number]
                for place, entry in enumerate(entries) if depth else ():
                    fifo = StreamFifo(entry.payload.shape(), depth)
                    name = f"skip{index}_{number}" + (f"_{place}" if streams > 1 else "")
                    m.submodules[name] = working(fifo)
                    join(m, fifo.o, entry)
                    entries[place] = fifo.i
                readers[projection.source].append(entries)
        readers[len(self.engines) - 1].append([readout.i])
        self._send(m, working, "input", doors, readers[INPUT], withdraws=can_drop)
        for index, engine in enumerate(self.engines):
            m.submodules[f"engine{index}"] = working(engine)
            # The readout takes one token a clock.
            sent = streams if index + 1 < len(self.engines) else 1
            tokens = serialized(m, engine.o, engine.plan.sweep_word, sent, f"serializer{index}", working)
            self._send(m, working, f"{index}", tokens, readers[index])
        m.d.comb += [
            self.m_axis_tdata.eq(Value.cast(readout.o.payload.word)),
            self.m_axis_tlast.eq(readout.o.payload.last),
            self.m_axis_tvalid.eq(readout.o.valid),
            readout.o.ready.eq(self.m_axis_tready),
        ]

        # Samples between the door and the decision. With early exit none counts before the guard has sent its last end,
        # and the sample that the readout exits is that of a stage whose own last end is not ahead.
        most = self.plan.samples_inside
        in_flight = Signal(range(most + 1))
        decided = Signal()
        m.d.comb += [
            decided.eq(self.m_axis_tvalid & self.m_axis_tready & self.m_axis_tlast),
            self.protocol_error.eq(guard.protocol_error),
            self.network_hash.eq(loader.network_hash if loader else Const(int(network.hash[:16], 16), 64)),
        ]
        if choices.exits:
            # A decision may leave long before the sample's last end is through: a sample is inside until then.
            through = readout.closed
            m.d.comb += self.busy.eq(guard.in_progress | (in_flight != 0) | readout.busy)
            if can_drop:
                m.d.comb += guard.drop.eq(readout.exited & (in_flight == 0))
            for index, engine in enumerate(self.engines):
                ahead = Signal.like(in_flight, name=f"ahead{index}")
                m.d.sync += ahead.eq(wrap(ahead + engine.sample_end - through, ahead.shape()))
                silent: Value = readout.exited & (ahead == 0)
                if engine.plan.holds:
                    waits, was_silent = Signal(name=f"waits{index}"), Signal(name=f"was_silent{index}")
                    m.d.sync += [waits.eq(engine.o.valid & ~engine.o.ready), was_silent.eq(engine.silence)]
                    silent = Mux(waits, was_silent, silent)
                m.d.comb += engine.silence.eq(silent)
                if loader:
                    with m.If(restart):
                        m.d.sync += ahead.eq(0)
            if exit_counters is None:
                m.d.comb += [getattr(self, name).eq(0) for name in EXIT_COUNTERS]
            else:
                m.d.comb += [
                    exit_counters.decided.eq(decided),
                    exit_counters.timestep.eq(readout.o.payload.word.timestep),
                ]
        else:
            through = decided
            m.d.comb += self.busy.eq(guard.in_progress | (in_flight != 0))
        m.d.sync += in_flight.eq(wrap(in_flight + guard.finished - through, in_flight.shape()))
        if choices.counters:
            saturated = Signal.like(popcount([engine.saturations for engine in self.engines]))
            m.d.sync += [
                saturated.eq(popcount([engine.saturations for engine in self.engines])),
                self.saturation_count.eq(wrap(self.saturation_count + saturated, unsigned(32))),
                self.cycle_count.eq(wrap(self.cycle_count + 1, unsigned(32))),
            ]
            if loader:
                with m.If(restart):
                    m.d.sync += [saturated.eq(0), self.saturation_count.eq(0)]
        else:
            m.d.comb += [self.saturation_count.eq(0), self.cycle_count.eq(0)]
        if loader:
            m.submodules.loader = loader
            # Every sample has one tlast and one decision, whatever its framing; with early exit the decision may come
            # first, and the sample is busy until its last end is through.
            inside = Signal(range(most + choices.input_words + 1))
            began = self.s_axis_tvalid & self.s_axis_tready & self.s_axis_tlast
            m.d.sync += inside.eq(wrap(inside + began - decided, inside.shape()))
            with m.If(restart):
                m.d.sync += [inside.eq(0), in_flight.eq(0)]
            assert registers is not None
            m.d.comb += [
                restart.eq(~loader.loaded),
                loader.i.payload.data.eq(self.l_axis_tdata),
                loader.i.payload.last.eq(self.l_axis_tlast),
                loader.i.valid.eq(self.l_axis_tvalid),
                self.l_axis_tready.eq(loader.i.ready),
                loader.expected_hash.eq(self.expected_hash),
                loader.idle.eq(between & (inside == 0) & ~self.busy if choices.exits else between & (inside == 0)),
                self.loaded.eq(loader.loaded),
                self.load_error.eq(loader.load_error),
                readout.last_timestep.eq(last_timestep),
            ]
            if isinstance(guard, InputGuard) or (isinstance(guard, ParallelGuard) and choices.input_checks):
                m.d.comb += guard.n_inputs.eq(registers.n_inputs)
                if not network.coding.is_current:
                    m.d.comb += guard.last_timestep.eq(last_timestep)
            for index, (engine, layer) in enumerate(zip(self.engines, self.plan.mapping.layers, strict=True)):
                m.d.comb += [engine.last_timestep.eq(last_timestep), engine.load.eq(loader.bus)]
                if layer.spiking:
                    m.d.comb += engine.clip.eq(registers[f"clip{index}"])
        return m
