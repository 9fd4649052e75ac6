"""What the neurons of an engine do in the turn of each of its layers.

Where layers have turns and differ, each way that differs is built once and the one of the layer at work is chosen. The
RTL chooses by these lists, and estimates count what is in them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from codesign.contract.network import FrozenLayer, LeakKind
from codesign.contract.network.terms import NO_LEAK
from codesign.machine.engine_map import EngineMap

# The kind of a leak, its shift and its multiplier; None for a number that is in memory, or that the kind does not use.
LeakWay = tuple[LeakKind, int | None, int | None]
# What a spike leaves of the potential, and the value of "value"; "none" leaves all of it, for a reset that is late.
ResetWay = tuple[Literal["subtract", "zero", "value", "none"], int]
# Bits that a number is brought into, and whether it may have to be clipped.
ClipWay = tuple[int, bool]


@dataclass(frozen=True)
class NeuronWays:
    """Of each layer of an engine, in their order, what its neurons do.

    placement : the layers in the engine's memories, for what is constant. frozen : the layers, with the machine's
    widths.
    """

    placement: EngineMap
    frozen: tuple[FrozenLayer, ...]

    @cached_property
    def spiking(self) -> list[bool]:
        """Whether its spikes leave it."""
        return [layer.spiking for layer in self.placement.layers]

    @property
    def compares(self) -> list[str | None]:
        """How the potential is compared with the threshold; None if it only integrates."""
        return [layer.compare if fires else None for layer, fires in zip(self.frozen, self.spiking, strict=True)]

    @cached_property
    def resets(self) -> list[ResetWay]:
        """What a spike leaves; empty if no layer spikes. Without a spike nothing is reset, so that a layer that only
        integrates may do as the others do."""
        found: list[ResetWay] = [
            ("none" if layer.reset_delay else layer.reset, layer.reset_value)
            for layer, fires in zip(self.frozen, self.spiking, strict=True)
            if fires
        ]
        return found + found[:1] * (len(self.frozen) - len(found))

    @property
    def delays(self) -> list[bool]:
        """Whether its reset is a timestep late."""
        return [layer.reset_delay for layer in self.frozen]

    @property
    def gathers(self) -> list[bool]:
        """Whether events go to a synaptic current."""
        return [layer.has_current for layer in self.frozen]

    @property
    def rests(self) -> list[int]:
        """Timesteps of rest after a spike."""
        return [layer.refractory for layer in self.frozen]

    @property
    def fractions(self) -> list[int]:
        """Fraction bits, by which a sum that lies apart is shifted."""
        return [layer.fraction_bits for layer in self.frozen]

    @cached_property
    def clips(self) -> list[ClipWay]:
        """Of the membrane. A layer that only integrates cannot leave its width, as the frozen network's validation has
        derived; it may go through the clipping of another layer that is as wide."""
        widths = [layer.membrane_width for layer in self.frozen]
        clipped = sorted({width for width, fires in zip(widths, self.spiking, strict=True) if fires})
        found: list[ClipWay] = []
        for width, fires in zip(widths, self.spiking, strict=True):
            wider = [other for other in clipped if other >= width]
            found.append((width, True) if fires else (wider[0], True) if wider else (width, False))
        return found

    @property
    def current_clips(self) -> list[ClipWay]:
        """Of the synaptic current; where there is none, whatever has been gathered arrives."""
        return [
            (layer.current_width, layer.has_current and fires)
            for layer, fires in zip(self.frozen, self.spiking, strict=True)
        ]

    def leaks(self, which: str) -> list[LeakWay]:
        """Of a leak, by its field of the layer: "leak" or "current_leak"."""
        constants = self.placement.constants
        numbers = [constants.get(f"{which}_{name}") for name in ("shift", "multiplier")]
        found: list[LeakWay] = []
        for number, layer in enumerate(self.frozen):
            shift, multiplier = (None if of_layers is None else of_layers[number] for of_layers in numbers)
            found.append((layer.leaks.get(which, NO_LEAK).kind, shift, multiplier))
        return found


def others(ways: Sequence[Hashable]) -> int:
    """How many are built beside a first one, each with a choice."""
    return max(0, len(set(ways)) - 1)
