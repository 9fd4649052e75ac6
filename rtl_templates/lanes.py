"""The lanes of an engine: fetchers and neurons, and what a sweep and the events say to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from amaranth.hdl import Cat, Module, Signal, Value

from codesign.machine.plan import EnginePlan
from rtl_templates.fetcher import SynapseFetcher
from rtl_templates.neurons import NeuronBank
from rtl_templates.picture import PicturePlace
from rtl_templates.streams import stream_suffixes
from rtl_templates.turns import Turns

if TYPE_CHECKING:
    from rtl_templates.sweeps import SweepControl


class Lanes:
    """P lanes: a fetcher for each stream of events, or one for all in lock step, and a neuron bank for each lane.

    Parameters
    ----------
    m : module that they become part of. plan : of the engine.
    """

    def __init__(self, m: Module, plan: EnginePlan):
        self._plan = plan
        self.walkers: dict[tuple[int, int], SynapseFetcher] = {}
        self.banks: list[NeuronBank] = []
        for lane, of_stream in plan.walkers:
            name = f"fetcher{lane}{stream_suffixes(plan.streams)[of_stream]}"
            m.submodules[name] = self.walkers[lane, of_stream] = SynapseFetcher(plan, lane, of_stream)
        for lane in range(plan.lanes):
            m.submodules[f"neurons{lane}"] = bank = NeuronBank(plan, lane)
            self.banks.append(bank)

    def of_stream(self, number: int) -> list[SynapseFetcher]:
        """The fetchers of a stream."""
        return [fetcher for (_, at), fetcher in self.walkers.items() if at == number]

    @property
    def busy(self) -> Value:
        """Whether rows are walked, or sums on their way."""
        return (
            Cat(fetcher.busy for fetcher in self.walkers.values()).any() | Cat(bank.busy for bank in self.banks).any()
        )

    def waiting(self, m: Module) -> Value:
        """Whether all walkers wait at an end; of several streams whether they did a clock ago, which they do until they
        are told to go on."""
        if self._plan.streams == 1:
            return Cat(fetcher.waiting for fetcher in self.walkers.values()).all()
        found = []
        for number, of in enumerate(stream_suffixes(self._plan.streams)):
            # The mutants find it by this name.
            waiting = Signal(name=f"waits{of}")
            m.d.sync += waiting.eq(Cat(fetcher.waiting for fetcher in self.of_stream(number)).all())
            found.append(waiting)
        return Cat(found).all()

    def connect(
        self,
        m: Module,
        accepts: Sequence[Value],
        events: Sequence[Any],
        sweep: SweepControl,
        while_moving: Callable[[Value], Value],
        moves: Value,
        turns: Turns | None,
        load: Value | None,
        clip: Value | None,
    ) -> None:
        """Give every fetcher its events, and every bank its synapses and the sweep.

        accepts, events : of each stream. turns : of several layers. load, clip : of a loadable machine.
        """
        plan, placement = self._plan, self._plan.placement
        parameter_slot = self._parameter_slot(m, sweep, turns)
        for (_, of_stream), fetcher in self.walkers.items():
            m.d.comb += [
                fetcher.broadcast_valid.eq(accepts[of_stream]),
                Value.cast(fetcher.broadcast).eq(Value.cast(events[of_stream])),
                fetcher.go.eq(sweep.go),
                fetcher.resume.eq(sweep.resume),
            ]
            if not plan.fifo_depth:
                m.d.comb += fetcher.hold.eq(~moves)
        step = sweep.timestep
        if plan.widths.sums > 1 and placement.pipeline == "deep":
            step = Signal.like(step, name="read_step", reset_less=True)
            m.d.sync += step.eq(sweep.timestep)
        for lane, bank in enumerate(self.banks):
            of_lane = [self.walkers[0 if placement.lockstep else lane, stream] for stream in range(plan.streams)]
            for of_stream, fetcher in enumerate(of_lane):
                self._walk(m, lane, of_stream, fetcher, turns)
            sweep.connect(m, bank)
            if plan.widths.sums > 1:
                m.d.comb += bank.step.eq(step)
            if placement.parameter_record.fields:
                m.d.comb += [
                    bank.parameter_valid.eq(while_moving(sweep.valid[bank.parameter_clock])),
                    bank.parameter_slot.eq(parameter_slot),
                ]
            if turns is not None:
                m.d.comb += bank.layer.eq(turns.layer)
            if load is not None:
                m.d.comb += [*(fetcher.load.eq(load) for fetcher in of_lane), bank.load.eq(load)]
            if clip is not None:
                m.d.comb += bank.clip.eq(clip)

    def _walk(self, m: Module, lane: int, of_stream: int, fetcher: SynapseFetcher, turns: Turns | None) -> None:
        """A lane's synapses of a stream."""
        valid, walked, value = self.banks[lane].walked(of_stream)
        m.d.comb += valid.eq(fetcher.synapse_valid)
        if turns is None:
            synapse = Value.cast(fetcher.synapse)
            if self._plan.placement.lockstep:
                synapse = synapse.word_select(lane, len(synapse) // self._plan.lanes)
            m.d.comb += Value.cast(walked).eq(synapse)
        else:
            m.d.comb += [walked.slot.eq(turns.at(fetcher.synapse.slot)), walked.weight.eq(fetcher.synapse.weight)]
        m.d.comb += value.eq(fetcher.value)

    def _parameter_slot(self, m: Module, sweep: SweepControl, turns: Turns | None) -> Value:
        """Where the parameters of the slot lie that a sweep is to use."""
        plan, placement, clock = self._plan, self._plan.placement, self.banks[0].parameter_clock
        slot: Value = sweep.slot[clock]
        per_channel = any(layer.parameters_per_channel for layer in plan.layers)
        if per_channel and placement.parameter_record.fields:
            # A word for each channel, or slot: counted where the sweep reads it.
            at = PicturePlace(
                *((layer.parameter_depth, 1, layer.n_slots // layer.parameter_depth) for layer in plan.layers)
            )
            m.submodules.parameter_place = at
            m.d.comb += at.step.eq(sweep.valid[clock])
            slot = at.rank
            if turns is not None:
                m.d.comb += at.layer.eq(turns.layer)
                slot = slot | turns.parameter_base
        elif turns is not None:
            slot = turns.at(slot)
        return slot
