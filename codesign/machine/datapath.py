"""What an engine's datapath is made of: widths that no sum overflows, clocks of its pipelines, words of its sweeps."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.contract.network import FrozenLayer, Int, signed_width
from codesign.machine.capacity import LayerCapacity
from codesign.machine.choices import Pipeline
from codesign.machine.encoding import Encoding
from codesign.machine.layouts import index_width
from codesign.machine.streams import span_within


@dataclass(frozen=True)
class Widths:
    """Bits of a datapath, wide enough that no sum can overflow.

    Without a sum of its own the state holds ``leak(v) + bias + (partial sum << F)``, whose bounds are those of u. With
    one, ``sum`` holds the unshifted sum of products and ``state`` holds ``leak(v) + bias``; of several events a clock
    each stream has a sum, of the same bits, since its bounds are those of any part of the terms, and of several
    timesteps that are walked at once each timestep has one. A delayed reset has
    been subtracted from what is kept. With a synaptic current ``current_state`` is to i what ``state`` is to v without
    one: the bias and, without a sum of its own, the partial sums are in it. ``state`` is then what is left of v alone.

    sum : of the weighted sum; 0 if it is part of a state. sums : such sums in a word, one for each timestep; else 1.
    state, potential : of what a slot keeps between timesteps, and of u.
    value : of the value that an event carries; 0 without.
    membrane : of v.
    count : of a count of the sample's spikes that lies beside the state; 0 without.
    current, current_state : of i, and of what a slot keeps of it; 0 without.
    gathered : of what arrives at the membrane in a timestep before it is clipped into i, or of acc without i.
    rest : of the timesteps that a neuron still rests, beside the state; 0 without. What has come to it then is dropped.
    """

    sum: int
    state: int
    potential: int
    value: int
    membrane: int
    count: int = 0
    current: int = 0
    current_state: int = 0
    gathered: int = 0
    rest: int = 0
    sums: int = 1

    @property
    def has_sum(self) -> bool:
        """Whether the weighted sum lies in a memory of its own."""
        return self.sum > 0

    @property
    def has_current(self) -> bool:
        """Whether there is a synaptic current."""
        return self.current > 0

    @property
    def beside(self) -> int:
        """Bits below the membrane's state in its word: the count, then the rest."""
        return self.count + self.rest

    @property
    def accumulator(self) -> int:
        """Bits of the word to which synapses are added: the sums, or the state of what the sum belongs to, with what
        lies beside it if that is the membrane."""
        if self.has_sum:
            return self.sums * self.sum
        return self.current_state if self.has_current else self.beside + self.state

    @property
    def swept(self) -> int:
        """Bits of the word that sweeps alone read and write; 0 if the accumulator's is the only one."""
        if self.has_sum:
            return self.beside + self.current_state + self.state
        return self.beside + self.state if self.has_current else 0

    @classmethod
    def of_layer(cls, layer: FrozenLayer, source_max: int, *, has_sum: bool, value: int = 0) -> Widths:
        """What a layer's weights, biases and leak make necessary; ``source_max`` : the greatest value of a source."""
        sums, kept = layer.sum_range(source_max), layer.kept_range()
        # A shifted sum has two bits or more above the shift.
        least = layer.fraction_bits + 2
        potential = max(signed_width(*layer.potential_range(source_max)), least)
        current_state, gathered = 0, _width(layer.step_range(source_max))
        if layer.has_current:
            state = _width(kept)
            gathered = max(_width(layer.current_range(source_max)), least)
            current_state = _width(layer.current_kept_range()) if has_sum else gathered
        else:
            low, high = kept
            state = _width((low + layer.bias, high + layer.bias)) if has_sum else potential
        rest = rest_bits(layer.refractory)
        return cls(
            sum=_width(sums) if has_sum else 0,
            # A neuron that rests keeps v.
            state=max(state, layer.membrane_width if rest else 0),
            potential=potential,
            value=value,
            membrane=layer.membrane_width,
            current=layer.current_width,
            current_state=current_state,
            gathered=gathered,
            rest=rest,
        )

    @classmethod
    def of_capacity(cls, room: LayerCapacity, *, has_sum: bool, value: int, refractory: int) -> Widths:
        """What a layer of a loadable machine has room for."""
        return cls(
            sum=room.sum_width if has_sum else 0,
            state=room.state_width,
            potential=room.potential_width,
            value=value,
            membrane=room.membrane_width,
            current=room.current_width,
            current_state=room.current_state_width,
            gathered=room.gathered_width,
            rest=rest_bits(refractory),
        )

    @classmethod
    def joined(cls, parts: list[Widths], value: int) -> Widths:
        """The widest of each, for an engine that serves several layers."""
        return cls(
            sum=max(part.sum for part in parts),
            state=max(part.state for part in parts),
            potential=max(part.potential for part in parts),
            value=value,
            membrane=max(part.membrane for part in parts),
            current=max(part.current for part in parts),
            current_state=max(part.current_state for part in parts),
            gathered=max(part.gathered for part in parts),
            rest=max(part.rest for part in parts),
        )


def _width(bounds: tuple[Int, Int]) -> int:
    """Bits that hold every neuron's ``bounds``, two int64 (n_out,)."""
    low, high = bounds
    return signed_width(int(low.min()), int(high.max()))


@dataclass(frozen=True)
class Clocks:
    """Clocks of an engine's pipelines.

    fire : of the sweep, from reading a slot to its spike and membrane. Short: potential, comparison, reset and
        saturation in one clock, after the sum is added (if it lies apart) and the synaptic current (if there is one).
    write : from reading a slot to writing its next state; deep: the leak has a clock of its own.
    settling : from a sweep's last read to the first that may start a row, whose membrane is read 3 clocks later, or 2
        with a short pipeline. Sums of several streams are cleared 2 clocks after a sweep has read them, so that rows
        may start with the last read.
    fetch : from an event to its first synapse.
    barrier : from the last synapse to the sweep.
    """

    fire: int
    write: int
    settling: int
    fetch: int
    barrier: int

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        encoding: Encoding,
        *,
        has_sum: bool,
        has_current: bool = False,
        pictures: bool = False,
        merges: bool = False,
        taps: bool = False,
        streams: int = 1,
        collects: bool = False,
    ) -> Clocks:
        """pictures, merges, taps : whether events pass a picture's reader and a merge, and walk taps.

        streams : of events; the sums of several are added up in a clock of the sweep, and that all have ended takes a
        clock to know. collects : whether a slot has a sum for each timestep, of which one is chosen in that clock.
        """
        deep = pipeline == "deep"
        grouped = encoding.row_group > 1
        decoded = taps or encoding.gap_bits is not None or encoding.codebook is not None
        fire = (4 if deep else 2) + has_sum + (streams > 1 or collects) + has_current
        write = fire + deep
        return cls(
            fire=fire,
            write=write,
            settling=write - (3 if deep else 2) if streams == 1 else 0,
            fetch=3 + 2 * deep + grouped + decoded + pictures + merges,
            barrier=3 + deep + decoded + (streams > 1),
        )

    @property
    def stored(self) -> int:
        """Clocks of the sweep until the word of a slot's state is there; deep: in a register of its own."""
        return 1 + self.write - self.fire

    @property
    def compare(self) -> int:
        """Clocks of the sweep until the potential meets the threshold; deep: its reset and saturation come later."""
        return self.fire - self.stored

    @property
    def fill(self) -> int:
        """Clocks in which lanes count as accumulating beside one per synapse, per timestep with events."""
        return self.fetch + self.barrier - 3

    @property
    def fifo_margin(self) -> int:
        """Words that may still be on their way into the output FIFO when a sweep of a streaming engine is to start."""
        return self.fire + 2


@dataclass(frozen=True)
class SweepWord:
    """One slot of a sweep: whether the timestep ends with it, the slot, a bit for each lane that has something to say,
    and with ``value_width`` each lane's value (membranes that are read out, or counts).

    Of a picture the slot is given as {rank of the channel, y, x}, the last two in ``place_bits``; n_slots is the number
    of such addresses. A lane's number comes between the rank and the place in the channel.
    """

    lanes: int
    n_slots: int
    value_width: int = 0
    place_bits: int = 0

    @property
    def slot_width(self) -> int:
        return index_width(self.n_slots)

    @property
    def lane_bits(self) -> int:
        """Bits of a lane's number within a hardware index; 0 for one lane."""
        return (self.lanes - 1).bit_length()

    @property
    def n_addresses(self) -> int:
        """Hardware indices, ``rank << lane_bits | lane`` above the place."""
        return self.n_slots << self.lane_bits

    def stream_span(self, streams: int) -> int:
        """Hardware indices within one of several streams of events."""
        return span_within(self.n_addresses, self.place_bits, streams)

    @property
    def width(self) -> int:
        return 1 + self.slot_width + self.lanes * (1 + self.value_width)


def rest_bits(refractory: int) -> int:
    """Bits of the timesteps of rest that are left; 0 without."""
    return index_width(refractory + 1) if refractory else 0


def count_bits(timesteps: int) -> int:
    """Bits of a count of a neuron's spikes in one sample."""
    return index_width(timesteps + 1)
