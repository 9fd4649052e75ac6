"""Whose turn it is in an engine that serves several layers."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Module, Signal, Value, unsigned

from codesign.machine.layouts import index_width
from codesign.machine.plan import EnginePlan


class Turns:
    """The layer at work, and where its rows and slots begin; an engine of one layer has none of it.

    Slots count within a layer; bases have zeros where slots and rows have bits.

    Members
    -------
    layer : at work. is_last : it is the last one. base, last_slot : of its slots. parameter_base : of their parameters,
        if channels share words. followers : told, in a clock, whose events come from now on, which are the next layer's
        from the begin of a sweep on.
    reads_input : of each stream, events of the network's input are taken. fed : of each stream, the input's end has
        come: what follows belongs to the first layer's next turn. resume : the layer's sweep begins.
    """

    def __init__(self, m: Module, plan: EnginePlan):
        placement = plan.placement
        layers = plan.layers
        slot = unsigned(index_width(placement.n_slots))
        self.layer = Signal(range(len(layers)))
        self.is_last = Signal(name="last_layer")
        self.base = Signal(slot)
        self.last_slot = Signal(slot)
        self.followers: list[Callable[[Module, int], None]] = []
        self.reads_input = [Signal(name="reads_input") for _ in range(plan.streams)]
        self.fed = [Signal(name="fed") for _ in range(plan.streams)]
        self.resume = Signal()
        m.d.comb += self.is_last.eq(self.layer == len(layers) - 1)
        self.parameter_base = Signal(unsigned(index_width(placement.parameter_depth)))
        with m.Switch(self.layer):
            for number, (base, layer) in enumerate(zip(placement.slot_base, layers, strict=True)):
                with m.Case(number):
                    m.d.comb += [self.base.eq(base), self.last_slot.eq(layer.n_slots - 1)]

        if any(layer.parameters_per_channel for layer in layers):
            with m.Switch(self.layer):
                for number, base in enumerate(placement.parameter_base):
                    with m.Case(number):
                        m.d.comb += self.parameter_base.eq(base)

    def take(self, m: Module, number: int) -> None:
        """Events that come from now on are the layer's."""
        for follow in self.followers:
            follow(m, number)

    def at(self, value: Value) -> Value:
        """Slot in memory of one within the layer at work."""
        return value | self.base

    def is_at(self, number: int) -> Value:
        """Whether it is the turn of the engine's layer of that number."""
        return self.layer == number
