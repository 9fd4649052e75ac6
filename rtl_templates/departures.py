"""What is seen of an engine's sweeps: probes, the words that leave, and those that come back as events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring

from codesign.contract.network.connections import Shape
from codesign.machine.pictures import side_bits
from codesign.machine.plan import EnginePlan
from rtl_templates.arithmetic import popcount, wrap
from rtl_templates.links import Back
from rtl_templates.memories import StreamFifo
from rtl_templates.neurons import NeuronBank
from rtl_templates.picture import PicturePlace
from rtl_templates.serializer import sweep_word_layout
from rtl_templates.sweeps import IDLE, SweepControl
from rtl_templates.turns import Turns

PROBES = ("valid", "slot", "spikes", "membranes", "phase")
# Of a layer with a synaptic current.
CURRENTS = "currents"


class Departures:
    """What a sweep shows, and what leaves.

    Words go out in slot order, silent ones left out, the last of a timestep marked; of several layers those of the last
    one. Without a FIFO they leave as the sweep makes them.

    Parameters
    ----------
    m : module that it becomes part of. plan : of the engine. banks, sweep, turns : its parts.
    o : the stream that leaves. returns : where words go that come back as events, or None.
    silence : whether ends are sent and nothing else, or None. while_moving : as of
        :class:`rtl_templates.intake.MergedIntake`. moves : whether the engine moves.

    Members
    -------
    shown : a slot is shown. sample_end : the sample's last word leaves the sweep.
    """

    def __init__(
        self,
        m: Module,
        plan: EnginePlan,
        banks: Sequence[NeuronBank],
        sweep: SweepControl,
        turns: Turns | None,
        while_moving: Callable[[Value], Value],
    ):
        self._plan, self._banks, self._sweep, self._turns = plan, banks, sweep, turns
        self._while_moving = while_moving
        self._fire = plan.clocks.fire
        self.shown = Signal()
        self._spikes = Cat(bank.spike for bank in banks)
        m.d.comb += self.shown.eq(sweep.valid[self._fire] & ~sweep.silent[self._fire])

    def probe(self, m: Module, probes: Sequence[Mapping[str, Signal]], phase: Signal) -> None:
        """Drive the probes of each layer."""
        sweep, turns = self._sweep, self._turns
        for number, (probe, layer) in enumerate(zip(probes, self._plan.frozen, strict=True)):
            shown: Value = self.shown if turns is None else self.shown & turns.is_at(number)
            m.d.comb += [
                probe["valid"].eq(self._while_moving(shown)),
                probe["slot"].eq(wrap(sweep.slot[self._fire], probe["slot"].shape())),
                probe["spikes"].eq(self._spikes),
                probe["membranes"].eq(Cat(bank.membrane[: layer.membrane_width] for bank in self._banks)),
            ]
            if turns is not None:
                m.d.comb += probe["phase"].eq(Mux(turns.is_at(number), phase, IDLE))
            if layer.has_current:
                shown_currents = Cat(bank.current[: layer.current_width] for bank in self._banks)
                m.d.comb += probe[CURRENTS].eq(shown_currents)

    def count(self, m: Module, total: Signal, moves: Value) -> None:
        """Drive the number of membranes clipped, a clock after they are probed."""
        saturations = Signal.like(total, name="saturations")
        m.d.sync += saturations.eq(Mux(self.shown, popcount([bank.saturated for bank in self._banks]), 0))
        # What stands still is not to be counted twice.
        m.d.comb += total.eq(saturations if self._plan.fifo_depth else Mux(moves, saturations, 0))

    def send(self, m: Module, o: Any, returns: Any, silence: Value | None, sample_end: Signal | None) -> None:
        """Make the words of a sweep and send them."""
        plan, sweep, turns, fire = self._plan, self._sweep, self._turns, self._fire
        layer, is_end, initial = plan.layers[-1], sweep.is_end[fire], sweep.initial[fire]
        shown = self.shown if turns is None else self.shown & turns.is_last
        word = Signal(sweep_word_layout(plan.sweep_word))
        word_slot: Value = sweep.slot[fire]
        in_last_rank: Value = is_end
        place = self._place(m)
        if layer.picture is not None and place is not None:
            word_slot = _in_picture(place, layer.picture)
            in_last_rank = place.rank == layer.n_ranks - 1
        m.d.comb += [word.end.eq(is_end), word.slot.eq(wrap(word_slot, word.slot.shape()))]
        if not plan.value_width:
            m.d.comb += word.mask.eq(self._spikes)
        else:
            used = self._used(in_last_rank)
            # membrane_last looks at the last timestep alone; counts are whole then.
            m.d.comb += word.mask.eq(Mux(initial, used, 0) if plan.last_only else used)
            for lane, bank in enumerate(self._banks):
                value = bank.count if plan.counts else wrap(bank.membrane, signed(plan.value_width))
                m.d.comb += word["values"][lane].eq(value)
        if silence is not None and sample_end is not None:
            m.d.comb += sample_end.eq(self._while_moving(shown & is_end & initial))
            with m.If(silence):
                m.d.comb += word.mask.eq(0)
        leaves = Signal()
        m.d.comb += leaves.eq(shown & (word.mask.any() | word.end))
        if turns is None:
            if returns is not None:
                self._send_own(m, returns, word, leaves)
        elif plan.is_chain:
            self._send_on(m, returns, word, silence)
        else:
            self._send_back(m, returns, place, silence)
        if not plan.fifo_depth:
            m.d.comb += [Value.cast(o.payload).eq(Value.cast(word)), o.valid.eq(leaves), sweep.room.eq(1)]
            return
        m.submodules.fifo = fifo = StreamFifo(word.shape(), plan.fifo_depth)
        room: Value = fifo.level <= plan.fifo_depth - layer.n_slots - (0 if turns else plan.clocks.fifo_margin)
        m.d.comb += [
            Value.cast(fifo.i.payload).eq(Value.cast(word)),
            fifo.i.valid.eq(leaves),
            sweep.room.eq(room if turns is None else ~turns.is_last | room),
        ]
        wiring.connect(m, fifo.o, o)

    def _place(self, m: Module) -> PicturePlace | None:
        """Where in its picture the slot is that is shown; None without pictures."""
        layers = self._plan.layers
        if all(layer.picture is None for layer in layers):
            return None
        # Slots of a layer that is no picture count as ranks.
        sizes = [(layer.n_ranks, *(layer.picture[1:] if layer.picture else (1, 1))) for layer in layers]
        m.submodules.place = place = PicturePlace(*sizes)
        m.d.comb += place.step.eq(self._sweep.valid[self._fire])
        if self._turns is not None:
            m.d.comb += place.layer.eq(self._turns.layer)
        return place

    def _send_own(self, m: Module, returns: Any, word: Any, leaves: Signal) -> None:
        """Words of a layer that reads itself, which come back in the next timestep."""
        plan, back = self._plan, returns.payload
        # Words of counts say nothing before the last timestep, after which nothing is left to come back.
        fired, sent = word.mask, leaves
        if plan.counts:
            fired, sent = self._spikes, self.shown & (self._spikes.any() | word.end)
        m.d.comb += [
            back.end.eq(word.end),
            back.slot.eq(word.slot),
            back.mask.eq(fired),
            returns.valid.eq(sent & ~self._sweep.initial[self._fire]),
        ]

    def _send_on(self, m: Module, returns: Any, word: Any, silence: Value | None) -> None:
        """Words of each layer of a chain but the last, for the next one."""
        sweep, turns, back, fire = self._sweep, self._turns, returns.payload, self._fire
        assert turns is not None
        m.d.comb += [
            back.end.eq(word.end),
            back.slot.eq(wrap(sweep.slot[fire], back.slot.shape())),
            back.mask.eq(self._spikes),
            returns.valid.eq(self.shown & ~turns.is_last & (back.mask.any() | back.end)),
        ]
        if silence is not None:
            with m.If(silence):
                m.d.comb += back.mask.eq(0)

    def _send_back(self, m: Module, returns: Sequence[Back], place: PicturePlace | None, silence: Value | None) -> None:
        """Words for all layers that read them, into the FIFOs of their links.

        What is for the next timestep is an end only where a sample ends, and where the first one is to begin.
        """
        plan, sweep, turns, fire = self._plan, self._sweep, self._turns, self._fire
        assert turns is not None
        rank, x, y = plan.back_bits
        slot: Value = sweep.slot[fire]
        if place is not None:
            slot = Cat(*(wrap(part, unsigned(bits)) for part, bits in ((place.rank, rank), (place.x, x), (place.y, y))))
        mask = Signal(plan.lanes, name="back_mask")
        m.d.comb += mask.eq(self._spikes)
        if silence is not None:
            with m.If(silence):
                m.d.comb += mask.eq(0)
        end = sweep.is_end[fire]
        for back in returns:
            sends = Cat(turns.is_at(number) for number in back.senders).any()
            word, shown, fired = back.i.payload, self.shown, mask
            if back.is_late:
                shown, fired = sweep.valid[fire], Mux(sweep.initial[fire], 0, mask)
            m.d.comb += [
                word.end.eq(end),
                word.slot.eq(wrap(slot, word.slot.shape())),
                word.mask.eq(fired),
                back.i.valid.eq(shown & sends & (word.mask.any() | end)),
            ]

    def _used(self, is_last: Value) -> Value:
        """Lanes with a neuron in the slot; ``is_last`` : it is one of the last neurons, or channels, of its lane."""
        layer = self._plan.layers[-1]
        units = layer.picture[0] if layer.picture else layer.n_out
        in_last = units - (layer.n_ranks - 1) * layer.lanes
        return Mux(is_last, (1 << in_last) - 1, (1 << layer.lanes) - 1)


def _in_picture(place: PicturePlace, picture: Shape) -> Value:
    """The slot of a word of a picture: {rank of the channel, y, x}; the place may be that of larger ones."""
    x, y = (wrap(part, unsigned(side_bits(size))) for part, size in ((place.x, picture[2]), (place.y, picture[1])))
    return Cat(x, y, place.rank)
