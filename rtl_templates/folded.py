"""One engine for all layers, in turn: the smallest accelerator, and the one whose area does not grow with the depth."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Elaboratable, EnableInserter, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Member, Out

from codesign.contract.network import FrozenNetwork
from codesign.machine.layouts import index_width
from codesign.machine.mapping import FoldedMap
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import popcount, wrap
from rtl_templates.engine import (
    ACCUMULATE,
    CLEAR,
    CURRENTS,
    IDLE,
    PROBES,
    SWEEP,
    stream_suffixes,
    streams_wait,
    sweep_stages,
)
from rtl_templates.fetcher import SynapseFetcher, event_layout
from rtl_templates.memories import StreamFifo
from rtl_templates.neurons import NeuronBank
from rtl_templates.serializer import serialized, sweep_word_layout


class FoldedEngine(wiring.Component):
    """All layers of a network on one set of lanes.

    Operation: events of a layer are broadcast to the lanes, each of which walks its own rows; when every lane has
    reached the end of the timestep, the lanes sweep the layer's slots in lock step. The words of a hidden layer's
    sweep wait in a FIFO and come back as the next layer's events, those of the last layer leave. Then the next layer
    has its turn, after the last one the next timestep. With coding 'current' the first layer accumulates once per
    sample and is swept in every timestep. Sums and states are in memories of their own for every layer; a sum is
    cleared by the sweep, the first layer's with coding 'current' by the last sweep of the sample.

    Throughput: P synapses a clock. A timestep costs, beside its synapses, for each layer its slots and about 20 clocks
    of filling and draining. Input waits from the timestep's end until the first layer's next turn.

    Parameters
    ----------
    network : the frozen network.
    plan : of the engine, which serves all layers.

    Members
    -------
    i : In(stream of event_layout), or ``i_0``, ``i_1`` and so on for several streams; ``inputs`` lists them. Events and
        ends of timesteps (of samples for coding 'current').
    o : Out(stream of sweep_word_layout of the last layer), as of :class:`LayerEngine`.
    saturations : Out(range(P + 1)); membranes clipped, a clock after they are probed.
    silence : In(1); no layer sends anything but ends of timesteps. sample_end : Out(1), pulse: the sample's last word
        goes into the output FIFO, or without one is taken; ``silence`` in the next clock is for the next sample.
    probe<l>_valid, probe<l>_slot, probe<l>_spikes, probe<l>_membranes, probe<l>_phase : Out, for each layer;
        probe<l>_currents : Out, for each with a synaptic current.

    Raises
    ------
    ValueError if the plan is of one layer in memories of its own.
    """

    def __init__(self, network: FrozenNetwork, plan: EnginePlan):
        if not isinstance(plan.placement, FoldedMap):
            raise ValueError("the plan is not of shape 'folded'")
        self._network = network
        self.plan = plan
        self._placement = placement = plan.placement
        members: dict[str, Member] = {
            **{
                f"i{of}": In(stream.Signature(event_layout(plan.projections[0].stream_span, plan.widths.value)))
                for of in stream_suffixes(plan.streams)
            },
            "o": Out(stream.Signature(sweep_word_layout(plan.sweep_word))),
            "saturations": Out(range(placement.lanes + 1)),
            **({"silence": In(1), "sample_end": Out(1)} if plan.can_silence else {}),
        }
        for layer in placement.layers:
            width = network.layers[layer.index].membrane_width
            members |= {
                f"probe{layer.index}_valid": Out(1),
                f"probe{layer.index}_slot": Out(unsigned(index_width(layer.n_slots))),
                f"probe{layer.index}_spikes": Out(unsigned(layer.lanes)),
                f"probe{layer.index}_membranes": Out(unsigned(layer.lanes * width)),
                f"probe{layer.index}_phase": Out(unsigned(2)),
            }
            current = network.layers[layer.index].current_width
            if current:
                members[f"probe{layer.index}_{CURRENTS}"] = Out(unsigned(layer.lanes * current))
        super().__init__(members)

    @property
    def inputs(self) -> list[stream.Interface]:
        """The streams that come in."""
        return [getattr(self, f"i{of}") for of in stream_suffixes(self.plan.streams)]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        network, plan, placement = self._network, self.plan, self._placement
        layers, n_layers = placement.layers, len(placement.layers)
        is_current = network.coding.is_current
        fire, stages = plan.clocks.fire, plan.clocks.write
        slot_shape = unsigned(index_width(placement.n_slots))
        suffixes = stream_suffixes(plan.streams)
        walkers: dict[tuple[int, int], SynapseFetcher] = {}
        banks: list[NeuronBank] = []
        for lane in range(placement.lanes):
            for of_stream, of in enumerate(suffixes):
                m.submodules[f"fetcher{lane}{of}"] = walkers[lane, of_stream] = SynapseFetcher(plan, lane, of_stream)
            m.submodules[f"neurons{lane}"] = bank = NeuronBank(plan, lane)
            banks.append(bank)
        fetchers = list(walkers.values())
        # What leaves; an engine that cannot keep a word stands still until it is taken.
        out = Signal(sweep_word_layout(plan.sweep_word))
        leaves = Signal()
        moves = Signal(init=1)
        fifo: StreamFifo | None = None
        if plan.fifo_depth:
            m.submodules.fifo = fifo = StreamFifo(out.shape(), plan.fifo_depth)
            m.d.comb += [Value.cast(fifo.i.payload).eq(Value.cast(out)), fifo.i.valid.eq(leaves)]
            wiring.connect(m, fifo.o, wiring.flipped(self.o))
        else:
            m.d.comb += [
                Value.cast(self.o.payload).eq(Value.cast(out)),
                self.o.valid.eq(leaves),
                moves.eq(~leaves | self.o.ready),
            ]

        def while_moving(value: Value) -> Value:
            return value & moves if fifo is None else value

        # Whose turn it is. `slot` counts within the layer; bases have zeros where slots have bits.
        layer = Signal(unsigned(index_width(n_layers)))
        timestep = Signal(unsigned(index_width(network.timesteps)))
        last_timestep = Signal()
        last_layer = Signal()
        base = Signal(slot_shape)
        last_slot = Signal(slot_shape)
        m.d.comb += [
            last_timestep.eq(timestep == network.timesteps - 1),
            last_layer.eq(layer == n_layers - 1),
        ]
        with m.Switch(layer):
            for number in range(n_layers):
                with m.Case(number):
                    m.d.comb += [base.eq(placement.slot_base[number]), last_slot.eq(layers[number].n_slots - 1)]

        # Events: the network's input for the first layer, a hidden layer's spikes for the one after it. Of each stream:
        # whether an event comes, whether there is room for it, whether it is the input's turn, and the event.
        layout = event_layout(placement.n_addresses, plan.widths.value)
        turns: list[tuple[Signal, Signal, Signal, Any]] = []
        for of_stream in range(plan.streams):
            accept = Signal()
            room = Signal()
            reads_input = Signal()
            event = Signal(layout)
            turns.append((accept, room, reads_input, event))
            rooms = [fetcher.room for (_, at), fetcher in walkers.items() if at == of_stream]
            has_room_for_row: Value = Cat(rooms).all()
            if plan.streams > 1 and plan.queue_depth:
                # What so many lanes say is known a clock late.
                late = Signal(name=f"has_room_{of_stream}")
                m.d.sync += late.eq(has_room_for_row)
                has_room_for_row = late
            m.d.comb += room.eq(while_moving(has_room_for_row))
        row_base = Signal(Shape.cast(layout.members["source"]))
        hidden_fifo: StreamFifo | None = None
        tokens: list[Any] = []
        if n_layers > 1:
            m.submodules.hidden_fifo = hidden_fifo = StreamFifo(
                sweep_word_layout(plan.hidden_sweep_word), plan.hidden_fifo_depth
            )
            tokens = serialized(m, hidden_fifo.o, plan.hidden_sweep_word, plan.streams, "hidden_serializer")
        for of_stream, (outer, (accept, room, reads_input, event)) in enumerate(zip(self.inputs, turns, strict=True)):
            if tokens:
                token = tokens[of_stream]
                m.d.comb += [
                    token.ready.eq(room & ~reads_input),
                    outer.ready.eq(room & reads_input),
                    accept.eq((token.valid & token.ready) | (outer.valid & outer.ready)),
                    event.end.eq(Mux(reads_input, outer.payload.end, token.payload.end)),
                    event.source.eq(Mux(reads_input, outer.payload.source, token.payload.source | row_base)),
                ]
                if plan.widths.value:
                    m.d.comb += event.value.eq(Mux(reads_input, outer.payload.value, 1))
            else:
                m.d.comb += [
                    outer.ready.eq(room & reads_input),
                    accept.eq(outer.valid & outer.ready),
                    Value.cast(event).eq(Value.cast(outer.payload)),
                ]

        slot, valid, initial, silent, is_end = sweep_stages(m, stages + 1, slot_shape)
        at_barrier = Signal()
        waits = streams_wait(m, plan, walkers)
        drained = Signal()
        has_room = Signal()
        go = Signal()
        resume = Signal()
        working = Signal()
        clearing = Signal(init=1)
        # The input's end has come: what follows belongs to the layer's next turn.
        feds = [Signal(name="fed") for _ in self.inputs]
        phase = Signal(unsigned(2))
        following = wrap(layer + 1, layer.shape())
        m.d.comb += [
            has_room.eq(~last_layer | (fifo.level <= plan.fifo_depth - layers[-1].n_slots) if fifo is not None else 1),
            at_barrier.eq(Cat(waits or [fetcher.waiting for fetcher in fetchers]).all()),
            drained.eq(~Cat(valid[1:]).any()),
            is_end[0].eq(slot[0] == last_slot),
            working.eq(Cat(fetcher.busy for fetcher in fetchers).any() | Cat(bank.busy for bank in banks).any()),
        ]
        with m.FSM(init="sweep"):
            with m.State("accumulate"):
                m.d.comb += [
                    *(reads.eq((layer == 0) & ~fed) for (_, _, reads, _), fed in zip(turns, feds, strict=True)),
                    go.eq(1),
                    phase.eq(Mux(working, ACCUMULATE, IDLE)),
                ]
                with m.If(at_barrier & has_room):
                    m.d.comb += resume.eq(1)
                    if n_layers > 1:
                        with m.Switch(layer):
                            for number in range(n_layers - 1):
                                with m.Case(number):
                                    m.d.sync += row_base.eq(placement.row_base[number + 1])
                    m.next = "sweep"
            with m.State("sweep"):
                # Memories are not cleared by rst: the first sweep of each layer writes its initial state.
                m.d.comb += [
                    valid[0].eq(1),
                    initial[0].eq(last_timestep | clearing),
                    silent[0].eq(clearing),
                    phase.eq(Mux(clearing, CLEAR, SWEEP)),
                ]
                m.d.sync += slot[0].eq(wrap(slot[0] + 1, slot_shape))
                with m.If(is_end[0]):
                    m.d.sync += slot[0].eq(0)
                    m.next = "drain"
            with m.State("drain"), m.If(drained):
                with m.If(~last_layer):
                    m.d.sync += layer.eq(following)
                    with m.If(clearing):
                        m.next = "sweep"
                    with m.Else():
                        m.next = "accumulate"
                with m.Else():
                    m.d.sync += [layer.eq(0), clearing.eq(0)]
                    with m.If(~clearing):
                        m.d.sync += timestep.eq(Mux(last_timestep, 0, wrap(timestep + 1, timestep.shape())))
                    m.next = "accumulate"
                    if is_current:
                        with m.If(~clearing & ~last_timestep):
                            if n_layers > 1:
                                m.d.sync += row_base.eq(placement.row_base[1])
                                m.next = "sweep"
                            else:
                                m.next = "wait"
            if is_current and n_layers == 1:
                with m.State("wait"), m.If(has_room):
                    m.next = "sweep"

        for outer, fed in zip(self.inputs, feds, strict=True):
            with m.If(outer.valid & outer.ready & outer.payload.end):
                m.d.sync += fed.eq(1)
            with m.If(resume):
                m.d.sync += fed.eq(0)

        # With coding 'current' the first layer's sum serves all timesteps of a sample.
        keeps_sum = (layer == 0) & ~initial[2] if is_current else 0
        for lane, bank in enumerate(banks):
            of_lane = [walkers[lane, of_stream] for of_stream in range(plan.streams)]
            for of_stream, (fetcher, (accept, _, _, event)) in enumerate(zip(of_lane, turns, strict=True)):
                walked_valid, walked, value = bank.walked(of_stream)
                m.d.comb += [
                    fetcher.broadcast_valid.eq(accept),
                    Value.cast(fetcher.broadcast).eq(Value.cast(event)),
                    fetcher.go.eq(go),
                    fetcher.resume.eq(resume),
                    walked_valid.eq(fetcher.synapse_valid),
                    walked.slot.eq(fetcher.synapse.slot | base),
                    walked.weight.eq(fetcher.synapse.weight),
                    value.eq(fetcher.value),
                ]
            m.d.comb += [
                bank.read_valid.eq(valid[0]),
                bank.read_slot.eq(slot[0] | base),
                bank.clear_valid.eq(valid[2] & ~keeps_sum),
                bank.clear_slot.eq(slot[2] | base),
                bank.write_valid.eq(valid[stages]),
                bank.write_slot.eq(slot[stages] | base),
                bank.write_initial.eq(initial[stages]),
            ]
            if placement.parameter_record.fields:
                m.d.comb += [
                    bank.parameter_valid.eq(while_moving(valid[bank.parameter_clock])),
                    bank.parameter_slot.eq(slot[bank.parameter_clock] | base),
                ]
            if n_layers > 1:
                m.d.comb += bank.layer.eq(layer)
            if fifo is None:
                m.d.comb += [fetcher.hold.eq(~moves) for fetcher in of_lane]

        # What the sweep shows, and what leaves.
        shown = Signal()
        spikes = Cat(bank.spike for bank in banks)
        m.d.comb += shown.eq(valid[fire] & ~silent[fire])
        saturations = Signal.like(self.saturations)
        m.d.sync += saturations.eq(Mux(shown, popcount([bank.saturated for bank in banks]), 0))
        # What stands still is not to be counted twice.
        m.d.comb += self.saturations.eq(saturations if fifo is not None else Mux(moves, saturations, 0))
        for number in range(n_layers):
            width = network.layers[number].membrane_width
            probe = {name: getattr(self, f"probe{number}_{name}") for name in PROBES}
            m.d.comb += [
                probe["valid"].eq(while_moving(shown & (layer == number))),
                probe["slot"].eq(wrap(slot[fire], probe["slot"].shape())),
                probe["spikes"].eq(spikes),
                probe["membranes"].eq(Cat(bank.membrane[:width] for bank in banks)),
                probe["phase"].eq(Mux(layer == number, phase, IDLE)),
            ]
            current = network.layers[number].current_width
            if current:
                shown_currents = Cat(bank.current[:current] for bank in banks)
                m.d.comb += getattr(self, f"probe{number}_{CURRENTS}").eq(shown_currents)
        if hidden_fifo is not None:
            word = hidden_fifo.i.payload
            m.d.comb += [
                word.end.eq(is_end[fire]),
                word.slot.eq(wrap(slot[fire], word.slot.shape())),
                word.mask.eq(spikes),
                hidden_fifo.i.valid.eq(shown & ~last_layer & (word.mask.any() | word.end)),
            ]
        m.d.comb += [
            out.end.eq(is_end[fire]),
            out.slot.eq(wrap(slot[fire], out.slot.shape())),
            leaves.eq(shown & last_layer & (out.mask.any() | out.end)),
        ]
        if layers[-1].spiking:
            m.d.comb += out.mask.eq(spikes)
        else:
            in_last_slot = layers[-1].n_out - (layers[-1].n_slots - 1) * placement.lanes
            used = Mux(is_end[fire], (1 << in_last_slot) - 1, (1 << placement.lanes) - 1)
            # membrane_last looks at the last timestep alone.
            m.d.comb += out.mask.eq(Mux(initial[fire], used, 0) if plan.last_only else used)
            for lane, bank in enumerate(banks):
                m.d.comb += out["values"][lane].eq(wrap(bank.membrane, signed(plan.value_width)))
        if plan.can_silence:
            m.d.comb += self.sample_end.eq(while_moving(shown & last_layer & is_end[fire] & initial[fire]))
            with m.If(self.silence):
                m.d.comb += out.mask.eq(0)
                if hidden_fifo is not None:
                    m.d.comb += hidden_fifo.i.payload.mask.eq(0)
        return m if fifo is not None else EnableInserter(moves)(m)
