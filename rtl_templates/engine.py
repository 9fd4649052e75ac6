"""An engine: P lanes that serve one layer, or several in turn."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, EnableInserter, Module, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Member, Out

from codesign.machine.layouts import index_width
from codesign.machine.plan import EnginePlan
from rtl_templates.departures import CURRENTS, PROBES, Departures
from rtl_templates.fetcher import event_layout
from rtl_templates.intake import ChainIntake, MergedIntake
from rtl_templates.lanes import Lanes
from rtl_templates.links import LinkIntake
from rtl_templates.memories import load_bus
from rtl_templates.serializer import sweep_word_layout
from rtl_templates.streams import stream_suffixes
from rtl_templates.sweeps import SweepControl
from rtl_templates.turns import Turns


class Engine(wiring.Component):
    """The layers of a plan on one set of lanes.

    Operation: events are broadcast to the lanes, each of which walks its own rows (:class:`SynapseFetcher`,
    :class:`NeuronBank`). When every lane has reached the end of the timestep and there is room for a whole sweep, all
    lanes sweep their slots in lock step, one slot a clock; events of the next timestep are queued meanwhile. The sweep
    of a sample's last timestep writes the initial state, and so does a sweep after reset, since memories are not
    cleared by ``rst``. Where a sample is walked at once (input currents, and events that an
    :class:`rtl_templates.collector.EventCollector` has collected) one accumulation is followed by T sweeps.

    Several layers have turns, one after the other in each timestep: the words of a sweep come back as events of the
    layers that read it, those of the last layer leave. Sums and states are in memories of their own for every
    layer. What only several layers need is not there for one.

    Events come in R streams, one of each in a clock, and each lane walks the rows of each stream's events apart. The
    sweep waits until all streams have ended, and adds their sums up.

    Throughput: P synapses a clock from each stream. For one layer a timestep costs, beside its synapses, n_slots clocks
    of sweep and about 6 of filling and draining, or 1 if it has no event and the sweep is longer than its pipeline; for
    several layers each takes its slots and about 20 clocks, and input waits from the timestep's end until the first
    layer's next turn.

    Without a FIFO the words leave as the sweep makes them, and the whole engine stands still while one is not taken.
    Lanes in lock step share a fetcher, whose words hold a synapse for each of them. A last layer that ``counts`` says
    how often each neuron has fired in a sample, with the sample's last timestep, and nothing else.

    Parts: :class:`Lanes`, what comes in (:class:`MergedIntake`, :class:`ChainIntake`,
    :class:`LinkIntake`), :class:`SweepControl`,
    :class:`Departures`, and of several layers :class:`Turns`.

    Parameters
    ----------
    plan : of the engine.

    Members
    -------
    i, i1, ... : In(stream of event_layout), one for each projection that comes in, or ``i_0``, ``i_1`` and so on for
        the streams of each; ``inputs`` lists them. Events and ends of timesteps (of samples where they are walked at
        once).
    o : Out(stream of sweep_word_layout); words in slot order, silent ones left out, the last of a timestep marked.
    saturations : Out(range(P + 1)); membranes clipped, a clock after they are probed.
    silence : In(1); ends of timesteps are sent and nothing else. sample_end : Out(1), pulse: the sample's last word
        goes into the output FIFO, or without one is taken; ``silence`` in the next clock is for the next sample.
    probe_valid, probe_slot, probe_spikes, probe_membranes, probe_phase : Out; probe_currents : Out, if there are
        synaptic currents; see docs/machine.md. Of several layers ``probe<l>_valid`` and so on, for each.
    last_timestep, load : In, of a loadable machine: T - 1, and the load bus. clip : In, if the layer spikes, as of
        :class:`NeuronBank`.
    """

    def __init__(self, plan: EnginePlan):
        self.plan = plan
        self._capacity = capacity = plan.placement.capacity
        widths = plan.widths
        members: dict[str, Member] = {
            **{
                name: In(stream.Signature(event_layout(plan.projections[number].stream_span, widths.value)))
                for number, names in self._input_names.items()
                for name in names
            },
            "o": Out(stream.Signature(sweep_word_layout(plan.sweep_word))),
            "saturations": Out(range(plan.lanes + 1)),
        }
        for probe, layer, frozen in zip(self._probe_names, plan.layers, plan.frozen, strict=True):
            members |= {
                f"{probe}_valid": Out(1),
                f"{probe}_slot": Out(unsigned(index_width(layer.n_slots))),
                f"{probe}_spikes": Out(unsigned(layer.lanes)),
                f"{probe}_membranes": Out(unsigned(layer.lanes * frozen.membrane_width)),
                f"{probe}_phase": Out(unsigned(2)),
            }
            if frozen.has_current:
                members[f"{probe}_{CURRENTS}"] = Out(unsigned(layer.lanes * frozen.current_width))
        if capacity:
            members |= {"last_timestep": In(unsigned(index_width(plan.timesteps))), "load": In(load_bus(capacity))}
            if plan.layers[0].spiking:
                members["clip"] = In(unsigned(widths.membrane - 1))
        if plan.can_silence:
            members |= {"silence": In(1), "sample_end": Out(1)}
        super().__init__(members)

    @property
    def _input_names(self) -> dict[int, list[str]]:
        """Names of the streams that come in, by the number of their projection: all but the layer's own events; where
        layers have turns the network's input."""
        plan = self.plan
        outer = [number for number, late in enumerate(plan.delayed) if not late]
        if plan.is_shared:
            outer = [link.number for link in plan.links if link.way == "port"]
        return {
            number: [f"i{place or ''}{of}" for of in stream_suffixes(self.plan.streams)]
            for place, number in enumerate(outer)
        }

    @property
    def inputs(self) -> dict[int, list[stream.Interface]]:
        """The streams that come in, by the number of their projection."""
        return {number: [getattr(self, name) for name in names] for number, names in self._input_names.items()}

    @property
    def _probe_names(self) -> list[str]:
        """What names of each layer's probes begin with."""
        if not self.plan.is_shared:
            return ["probe"]
        return [f"probe{layer.index}" for layer in self.plan.layers]

    @property
    def probes(self) -> list[dict[str, Signal]]:
        """The probes of each layer, by what they show."""
        return [
            {name: getattr(self, f"{probe}_{name}") for name in (*PROBES, *([CURRENTS] if layer.has_current else []))}
            for probe, layer in zip(self._probe_names, self.plan.frozen, strict=True)
        ]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        plan = self.plan
        lanes = Lanes(m, plan)
        # An engine that cannot keep a word stands still until it is taken.
        moves = Signal(init=1)
        if not plan.fifo_depth:
            m.d.comb += moves.eq(~self.o.valid | self.o.ready)

        def while_moving(value: Value) -> Value:
            return value if plan.fifo_depth else value & moves

        turns = Turns(m, plan) if plan.is_shared else None
        if turns is None:
            intake: MergedIntake | ChainIntake | LinkIntake = MergedIntake(m, plan, lanes, self.inputs, while_moving)
        else:
            of_turns = ChainIntake if plan.is_chain else LinkIntake
            intake = of_turns(m, plan, lanes, self.inputs, while_moving, turns)
        phase = self.probes[0]["phase"] if turns is None else Signal(unsigned(2), name="phase")
        last = self.last_timestep if self._capacity else plan.timesteps - 1
        sweep = SweepControl(m, plan, lanes, phase, last, turns)
        load = self.load if self._capacity else None
        clip = self.clip if self._capacity and plan.layers[0].spiking else None
        lanes.connect(m, intake.accepts, intake.events, sweep, while_moving, moves, turns, load, clip)
        seen = Departures(m, plan, lanes.banks, sweep, turns, while_moving)
        seen.probe(m, self.probes, phase)
        seen.count(m, self.saturations, moves)
        silence, sample_end = (self.silence, self.sample_end) if plan.can_silence else (None, None)
        seen.send(m, wiring.flipped(self.o), intake.returns, silence, sample_end)
        return m if plan.fifo_depth else EnableInserter(moves)(m)
