"""What a loadable machine holds at most: the one source of its memories' shapes and of its datapath's widths.

The generator builds from a :class:`Capacity`, the image writer and the load compiler pack and check by it. A network
fits a machine if its fixed terms (:func:`fixed_terms`) are the machine's and no size or range exceeds the capacity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import chain, repeat
from typing import Any, Literal

import numpy as np

from codesign.basics.errors import CapacityError, InputError, UnsupportedError, entries_for
from codesign.contract.network import MAX_TIMESTEPS, MAX_WIDTH, FrozenLayer, FrozenNetwork, Leak, signed_width
from codesign.contract.network.terms import MAX_LEAK_SHIFT
from codesign.machine.encoding import PLAIN
from codesign.machine.layouts import (
    LEAKS,
    PARAMETERS,
    Field,
    Record,
    in_lockstep,
    index_width,
    parameter_width,
    parameter_word,
)
from codesign.machine.schedules import Schedule, layer_schedules, sum_is_apart
from codesign.machine.streams import span_within

FORMAT = 1
MAGIC = b"CSNL"
LOAD_ERRORS = ("does_not_fit", "wrong_hash", "wrong_length", "wrong_checksum")
LAYOUT_BYTES, HASH_BYTES, CRC_BYTES = 8, 8, 4
HEADER_BYTES = len(MAGIC) + LAYOUT_BYTES + HASH_BYTES

Role = Literal["rows", "synapses", "parameters"]
ROLES: tuple[Role, ...] = ("rows", "synapses", "parameters")


@dataclass(frozen=True)
class CapacityOptions:
    """What a machine is to hold beyond the network that it is built with; None: what that network needs.

    inputs, timesteps : at most.
    neurons : of each hidden layer.
    synapses : words of each lane's synapse memories, one number or one per layer; by default what the build network's
        fullest one needs, to the next power of two.
    weight_bits, membrane_width : of every layer.
    headroom : bits beyond the build network's weighted sums, biases and leaks of single neurons; a bit is twice their
        range.
    """

    inputs: int | None = None
    timesteps: int | None = None
    neurons: Sequence[int] | None = None
    synapses: int | Sequence[int] | None = None
    weight_bits: int | None = None
    membrane_width: int | None = None
    headroom: int = 1


@dataclass(frozen=True)
class LayerCapacity:
    """One layer of a machine.

    n_out, lanes : neurons at most, lanes.
    synapses : words of each of a lane's synapse memories; 0 until the build network is placed.
    weight_bits, membrane_width, sum_width, bias_width : bits at most, signs included.
    threshold_width : bits of a threshold, more than of any potential; 0 if the layer does not spike.
    leak_shift_width, leak_multiplier_width : bits of the leak's numbers, if they are in memory; 0 if they are fixed.
    state_width, potential_width : bits of what a slot keeps between timesteps, and of u; they follow from the others.
    late_width : bits of the lowest threshold, if resets are a timestep late; else 0.
    current_width : bits of the synaptic current, at most if the layer integrates; 0 without, as are those that follow.
    current_leak_shift_width, current_leak_multiplier_width : bits of its leak's numbers, if they are in memory.
    current_state_width, gathered_width : bits of what a slot keeps of it, and of what it is clipped from.
    """

    n_out: int
    lanes: int
    synapses: int
    weight_bits: int
    membrane_width: int
    sum_width: int
    bias_width: int
    threshold_width: int
    leak_shift_width: int
    leak_multiplier_width: int
    state_width: int
    potential_width: int
    late_width: int = 0
    current_width: int = 0
    current_leak_shift_width: int = 0
    current_leak_multiplier_width: int = 0
    current_state_width: int = 0
    gathered_width: int = 0

    def to_json(self) -> dict[str, int]:
        """The fields; terms that the layer does not have are left out."""
        absent = {field.name for field in fields(self) if field.default == 0 == getattr(self, field.name)}
        return {name: value for name, value in asdict(self).items() if name not in absent}

    @property
    def parameter_widths(self) -> dict[str, int]:
        """Bits of the parameters that are in memory."""
        widths = {name: getattr(self, f"{name}_width") for name in PARAMETERS}
        return {name: width for name, width in widths.items() if width}

    @property
    def n_slots(self) -> int:
        return -(-self.n_out // self.lanes)

    @property
    def n_addresses(self) -> int:
        """Hardware indices of the layer's neurons, which address the next layer's row tables."""
        return self.n_slots << (self.lanes - 1).bit_length()


@dataclass(frozen=True)
class LoadMemory:
    """One memory of a machine, in the order in which a load image holds them.

    layer, role, lane, stream : whose it is. depth, record : its words.
    ``word_bytes`` : bytes of a word in a load image.
    """

    layer: int
    role: Role
    lane: int
    stream: int
    depth: int
    record: Record

    @property
    def word_bytes(self) -> int:
        return self.record.stream_width // 8


@dataclass(frozen=True)
class Capacity:
    """A loadable machine: inputs and timesteps at most, bits of a readout value, its layers, events a clock, and
    whether lanes walk in lock step."""

    n_inputs: int
    timesteps: int
    value_width: int
    layers: tuple[LayerCapacity, ...]
    streams: int = 1
    lockstep: bool = False

    def shared(self, index: int) -> bool:
        """Whether a layer's lanes have one row table and one synapse memory; a single lane has its own."""
        return self.lockstep and self.layers[index].lanes > 1

    def n_addresses(self, index: int) -> int:
        """Rows of each of a layer's row tables."""
        return span_within(self.n_inputs if index == 0 else self.layers[index - 1].n_addresses, 0, self.streams)

    def record(self, index: int, role: Role) -> Record:
        """Word of a memory."""
        layer = self.layers[index]
        if role == "rows":
            return PLAIN.row_record(layer.synapses, layer.n_slots)
        if role == "synapses":
            return in_lockstep(self.given(index), layer.lanes) if self.shared(index) else self.given(index)
        return parameter_word(layer.parameter_widths)

    def given(self, index: int) -> Record:
        """Slot and weight of a synapse."""
        layer = self.layers[index]
        return PLAIN.synapse_record(layer.n_slots, layer.weight_bits)

    @cached_property
    def memories(self) -> tuple[LoadMemory, ...]:
        """Every memory that a load writes; its place here is its number. Of one layer and role, all are alike."""
        found = []
        for index, layer in enumerate(self.layers):
            depths = {"rows": self.n_addresses(index), "synapses": layer.synapses, "parameters": layer.n_slots}
            for role in ROLES:
                for lane in range(1 if role != "parameters" and self.shared(index) else layer.lanes):
                    for stream in range(1 if role == "parameters" else self.streams):
                        found.append(LoadMemory(index, role, lane, stream, depths[role], self.record(index, role)))
        return tuple(found)

    def number(self, index: int, role: Role, lane: int, stream: int = 0) -> int:
        """Number of a memory."""
        return next(
            number
            for number, memory in enumerate(self.memories)
            if (memory.layer, memory.role, memory.lane, memory.stream) == (index, role, lane, stream)
        )

    @cached_property
    def registers(self) -> Record:
        """What a load sets beside the memories, padded to whole bytes in the image.

        ``last_timestep``: T - 1. ``n_inputs``. ``clip<l>`` of each spiking layer, a bit for each of a membrane but the
        sign: ones from bit W' - 1 up, where W' is the loaded network's width.
        """
        clips = [
            Field(f"clip{index}", layer.membrane_width - 1)
            for index, layer in enumerate(self.layers)
            if layer.threshold_width
        ]
        return Record(
            (
                Field("last_timestep", index_width(self.timesteps)),
                Field("n_inputs", self.n_inputs.bit_length()),
                *clips,
            )
        )

    def register_values(self, network: FrozenNetwork) -> dict[str, int]:
        """Values of :attr:`registers` for a network that fits."""
        values = {"last_timestep": network.timesteps - 1, "n_inputs": network.n_inputs}
        for index, (layer, frozen) in enumerate(zip(self.layers, network.layers, strict=True)):
            if layer.threshold_width:
                low, high = frozen.membrane_width - 1, layer.membrane_width - 1
                values[f"clip{index}"] = (1 << high) - (1 << low)
        return values

    @property
    def image_bytes(self) -> int:
        """Bytes of every load image."""
        words = sum(memory.depth * memory.word_bytes for memory in self.memories)
        return HEADER_BYTES + self.registers.stream_width // 8 + words + CRC_BYTES

    def layout_id(self, network: FrozenNetwork) -> int:
        """64 bits that identify which load images the machine understands: its capacity and its fixed terms."""
        text = json.dumps([FORMAT, self.to_json(), fixed_terms(network, self)], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:LAYOUT_BYTES], "little")

    def with_synapses(self, synapses: Sequence[int]) -> Capacity:
        """The same with so many words in each layer's synapse memories."""
        layers = tuple(replace(layer, synapses=count) for layer, count in zip(self.layers, synapses, strict=True))
        return replace(self, layers=layers)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self) | {"layers": [layer.to_json() for layer in self.layers]}
        absent = {field.name for field in fields(self) if field.default == getattr(self, field.name)}
        return {name: value for name, value in found.items() if name not in absent}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Capacity:
        """Inverse of :meth:`to_json`. Raises InputError if a field is missing, unknown or no whole number."""
        try:
            layers = tuple(LayerCapacity(**layer) for layer in document["layers"])
            sizes = {name: value for name, value in document.items() if name != "layers"}
            capacity = cls(**sizes, layers=layers)
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(f"design.json: capacity: {error}; generate the bundle again") from None
        numbers = [capacity.n_inputs, capacity.timesteps, capacity.value_width, capacity.streams]
        numbers += [value for layer in layers for value in asdict(layer).values()]
        plain = all(type(number) is int and number >= 0 for number in numbers)
        if not layers or not plain or type(capacity.lockstep) is not bool:
            raise InputError("design.json: capacity is no list of whole numbers; generate the bundle again")
        return capacity


def plan_capacity(
    network: FrozenNetwork,
    lanes: Sequence[int],
    options: CapacityOptions,
    streams: int = 1,
    schedules: Sequence[Schedule] | None = None,
    *,
    lockstep: bool = False,
) -> Capacity:
    """Capacity of a machine that is built with ``network``, whose synapses are not placed yet (``synapses`` 0).

    schedules : of each layer; default: all timestep by timestep.

    Raises InputError if the options are less than the network, or out of range.
    """
    if schedules is None:
        schedules = layer_schedules("timestep", len(network.layers), is_current=network.coding.is_current)
    hidden = [layer.n_out for layer in network.layers[:-1]]
    neurons = list(hidden if options.neurons is None else options.neurons)
    if len(neurons) != len(hidden):
        raise InputError(entries_for("hardware.capacity.neurons", len(neurons), len(hidden), "hidden layer"))
    inputs = _at_least("inputs", options.inputs, network.n_inputs, MAX_WIDTH)
    timesteps = _at_least("timesteps", options.timesteps, network.timesteps, MAX_TIMESTEPS)
    for wanted, needed in zip(neurons, hidden, strict=True):
        _at_least("neurons", wanted, needed, MAX_WIDTH)
    if not 0 <= options.headroom <= 16:
        raise InputError(f"hardware.capacity.headroom = {options.headroom!r} is outside 0..16")
    layers = []
    for index, layer in enumerate(network.layers):
        is_last = index == len(network.layers) - 1
        spiking = not (is_last and network.membrane_readout)
        n_out = layer.n_out if is_last else neurons[index]
        sums, biases = _sums(network, index), (int(layer.bias.min()), int(layer.bias.max()))
        # What an integrating layer's membrane needs follows from its sums; that of the others is a choice.
        width = (
            _at_least("membrane_width", options.membrane_width, layer.membrane_width, 48)
            if spiking
            else min(48, layer.membrane_width + options.headroom)
        )
        sum_width, bias_width = (signed_width(*bounds) + options.headroom for bounds in (sums, biases))
        leaks = _leak_widths(layer, options.headroom)
        kept, gathered = _leaked(layer.leak, width, leaks, "leak"), _limits(bias_width)
        shift = layer.fraction_bits
        has_sum = sum_is_apart(schedules[index], streams)
        sums = (_limits(sum_width)[0] << shift, _limits(sum_width)[1] << shift)
        arriving, of_current = _added(gathered, sums), {}
        if layer.current_leak is not None:
            # Where it is clipped, the width is part of the arithmetic; where it cannot saturate, it is a size.
            current = layer.current_width if spiking else min(48, layer.current_width + options.headroom)
            gathered = _added(_leaked(layer.current_leak, current, leaks, "current_leak"), gathered)
            exact = max(signed_width(*_added(gathered, sums)), shift + 2)
            of_current = {
                "current_width": current,
                "current_leak_shift_width": leaks["current_leak_shift"],
                "current_leak_multiplier_width": leaks["current_leak_multiplier"],
                "current_state_width": signed_width(*gathered) if has_sum else exact,
                "gathered_width": exact,
            }
            arriving = _limits(current)
        late = 0
        if layer.reset_delay:
            # A threshold that is reached is no greater than the greatest u, and no lower than ``late`` bits.
            late = max(width, signed_width(min(0, int(layer.threshold.min())), 0))
            most = kept[1] + (1 << (late - 1))
            kept = (min(kept[0], -(1 << (width - 1)), -(most + arriving[1])), most)
        # A neuron that rests keeps v, and u is v.
        least = max(shift + 2, width if layer.refractory else 0)
        potential = max(signed_width(*_added(kept, arriving)), least)
        left = max(signed_width(*(kept if of_current else _added(kept, gathered))), width if layer.refractory else 0)
        thresholds = signed_width(int(layer.threshold.min()), int(layer.threshold.max()))
        layers.append(
            LayerCapacity(
                n_out=n_out,
                lanes=min(lanes[index], n_out),
                synapses=0,
                weight_bits=_at_least("weight_bits", options.weight_bits, layer.weight_bits, 8),
                membrane_width=width,
                sum_width=sum_width,
                bias_width=bias_width,
                # A threshold out of every potential's reach can then stand for any that is too large.
                threshold_width=max(potential + 1, thresholds) if spiking else 0,
                leak_shift_width=leaks["leak_shift"],
                leak_multiplier_width=leaks["leak_multiplier"],
                state_width=left if has_sum or of_current else potential,
                potential_width=potential,
                late_width=late,
                **of_current,
            )
        )
    value_width = _value_width(network, timesteps, options.headroom)
    several = any(layer.lanes > 1 for layer in layers)
    return Capacity(inputs, timesteps, value_width, tuple(layers), streams, lockstep and several)


def synapse_words(options: CapacityOptions, fullest: Sequence[int]) -> list[int]:
    """Words of each layer's synapse memories; ``fullest`` are the synapses of each layer's fullest one.

    Raises InputError if fewer are wanted than the build network needs.
    """
    wanted = options.synapses
    given = [wanted] * len(fullest) if wanted is None or isinstance(wanted, int) else list(wanted)
    if len(given) != len(fullest):
        raise InputError(entries_for("hardware.capacity.synapses", len(given), len(fullest)))
    return [
        1 << max(0, needed - 1).bit_length() if count is None else _at_least("synapses", count, max(1, needed), 1 << 24)
        for count, needed in zip(given, fullest, strict=True)
    ]


def _leak_widths(layer: FrozenLayer, headroom: int) -> dict[str, int]:
    """Bits of the leaks' numbers in memory, ``headroom`` more than the layer's unless none needs them; 0 where all
    neurons have the same."""
    found: dict[str, int] = dict.fromkeys(LEAKS, 0)
    for which in layer.leaks:
        largest = MAX_LEAK_SHIFT
        for number in ("shift", "multiplier"):
            name = f"{which}_{number}"
            numbers = layer.numbers.get(name)
            if numbers is None:
                continue
            limit = largest if number == "shift" else 1 << largest
            if name in layer.varying:
                needed = parameter_width(name, 0, int(numbers.max()))
                found[name] = min(needed + headroom, parameter_width(name, 0, limit))
                largest = min(largest, (1 << found[name]) - 1)
            else:
                largest = int(numbers[0])
    return found


def _leaked(leak: Leak, width: int, in_memory: Mapping[str, int], which: str) -> tuple[int, int]:
    """Bounds of what ``width`` bits leak to; ``in_memory`` : bits of the leaks' numbers there, ``which`` : the leak."""
    low, high = _limits(width)
    if in_memory[f"{which}_shift"] or in_memory[f"{which}_multiplier"]:
        # Of leaks that are loaded nothing is known but that they make nothing larger.
        return low, high
    return int(leak.exact(np.array([low])).min()), int(leak.exact(np.array([high])).max())


def _limits(width: int) -> tuple[int, int]:
    """Bounds of a signed number of so many bits."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


def _added(*bounds: tuple[int, int]) -> tuple[int, int]:
    """Bounds of a sum."""
    return sum(low for low, _ in bounds), sum(high for _, high in bounds)


def _leak_text(layer: FrozenLayer, in_memory: Collection[str], which: str, x: str) -> str:
    """One of a layer's leaks, of ``x``, with letters for what differs between neurons or is ``in_memory``."""
    kind = layer.leaks[which].kind
    if kind == "none":
        return "none"
    letters = {f"{which}_shift": "k" if kind == "shift" else "n", f"{which}_multiplier": "m"}
    shown = {
        name: letters[name] if name in in_memory or name in layer.varying else str(numbers[0])
        for name, numbers in layer.numbers.items()
        if name in letters
    }
    if kind == "shift":
        return f"{x} - ({x} >> {shown[f'{which}_shift']})"
    return f"({x} * {shown[f'{which}_multiplier']}) >> {shown[f'{which}_shift']}"


def _reset_text(layer: FrozenLayer) -> str:
    """A layer's reset."""
    found = f"value {layer.reset_value}" if layer.reset == "value" else layer.reset
    found += " a timestep late" if layer.reset_delay else ""
    return found + (f" then rest {layer.refractory}" if layer.refractory else "")


def _current_text(layer: FrozenLayer, in_memory: Collection[str], clipped: bool) -> str:
    """A layer's synaptic current: its leak, and its width where it may be ``clipped``."""
    leak = _leak_text(layer, in_memory, "current_leak", "i")
    return f"{leak} in {layer.current_width} bits" if clipped else leak


def fixed_terms(network: FrozenNetwork, capacity: Capacity) -> dict[str, Any]:
    """What a machine has in its logic, so that every network loaded into it must have the same: JSON."""
    # A network of more layers is none of its networks, but can be described.
    stored = chain((layer.parameter_widths for layer in capacity.layers), repeat({}))
    return {
        "coding": "current" if network.coding.is_current else "events",
        "input_bits": network.coding.input_bits,
        "readout": network.readout,
        "n_outputs": network.n_outputs,
        "layers": [
            {
                "leak": _leak_text(layer, widths, "leak", "v"),
                **({"current": _current_text(layer, widths, clipped)} if layer.has_current else {}),
                "reset": _reset_text(layer),
                "compare": layer.compare,
                "fraction_bits": layer.fraction_bits,
            }
            for layer, widths, clipped in zip(network.layers, stored, network.spiking)
        ],
    }


def check_terms(network: FrozenNetwork, capacity: Capacity, terms: dict[str, Any]) -> None:
    """Raise UnsupportedError unless the network's fixed terms are ``terms``, those of a machine of this capacity."""
    found = fixed_terms(network, capacity)
    pairs = [("", "layers", len(found["layers"]), len(terms["layers"]))]
    pairs += [("", name, found[name], terms[name]) for name in ("coding", "input_bits", "readout", "n_outputs")]
    pairs += [
        # A layer without a synaptic current has no such key.
        (f"layer {index}: ", name, have.get(name, "absent"), term.get(name, "absent"))
        for index, (have, term) in enumerate(zip(found["layers"], terms["layers"]))
        for name in {**have, **term}
    ]
    for where, name, have, term in pairs:
        if have != term:
            raise UnsupportedError(
                f"{where}{name.replace('_', ' ')}: the network has {have}, the machine {term}, which was fixed when it "
                "was built; generate a machine for this network"
            )


def check_fits(network: FrozenNetwork, capacity: Capacity) -> None:
    """Raise CapacityError naming the first size or range of the network that exceeds the machine's.

    The network's fixed terms are the machine's; its synapses are checked when they are placed.
    """
    _fits("", "inputs", network.n_inputs, capacity.n_inputs, "inputs")
    _fits("", "timesteps", network.timesteps, capacity.timesteps, "timesteps")
    for index, (layer, room) in enumerate(zip(network.layers, capacity.layers, strict=True)):
        where = f"layer {index}: "
        _fits(where, "neurons", layer.n_out, room.n_out, "neurons")
        _fits(where, "weight bits", layer.weight_bits, room.weight_bits, "weight_bits")
        option = "membrane_width" if room.threshold_width else "headroom"
        _fits(where, "membrane bits", layer.membrane_width, room.membrane_width, option)
        _fits(where, "bits of weighted sum", signed_width(*_sums(network, index)), room.sum_width, "headroom")
        biases = signed_width(int(layer.bias.min()), int(layer.bias.max()))
        _fits(where, "bits of bias", biases, room.bias_width, "headroom")
        if room.threshold_width:
            # Too large a threshold is out of reach (see stored_thresholds), too low a one is not.
            lowest = signed_width(min(0, int(layer.threshold.min())), 0)
            option = "membrane_width" if room.late_width else "headroom"
            _fits(where, "bits of threshold", lowest, room.late_width or room.threshold_width, option)
        _fits(where, "current bits", layer.current_width, room.current_width, "headroom")
        for name, numbers in layer.numbers.items():
            built = room.parameter_widths.get(name, 0)
            if name in LEAKS and (built or name in layer.varying):
                needed = parameter_width(name, 0, int(numbers.max()))
                _fits(where, f"bits of {name.replace('_', ' ')}", needed, built, "headroom")
    _fits("", "bits of readout value", signed_width(*network.value_range()), capacity.value_width, "headroom")


def stored_thresholds(layer: FrozenLayer, room: LayerCapacity) -> Any:
    """int64 (n_out,): the layer's thresholds as the machine stores them.

    A threshold beyond the field is replaced by the largest that fits, which no potential reaches either.
    """
    # A field may be wider than the numbers.
    return np.minimum(layer.threshold, (1 << (min(room.threshold_width, 64) - 1)) - 1)


def _fits(where: str, what: str, needed: int, built: int, option: str) -> None:
    if needed > built:
        raise CapacityError(
            f"{where}the network needs {needed} {what}, the machine has {built}; "
            f"generate one with more hardware.capacity.{option}"
        )


def _at_least(name: str, wanted: int | None, needed: int, limit: int) -> int:
    if wanted is None:
        return needed
    if wanted < needed:
        raise InputError(f"hardware.capacity.{name} = {wanted} is below the {needed} of the network itself")
    if wanted > limit:
        raise InputError(f"hardware.capacity.{name} = {wanted} is beyond {limit}")
    return wanted


def _sums(network: FrozenNetwork, index: int) -> tuple[int, int]:
    low, high = network.layers[index].sum_range(network.source_max(index))
    return int(low.min()), int(high.max())


def _value_width(network: FrozenNetwork, timesteps: int, headroom: int) -> int:
    """Bits of a readout value over ``timesteps``; sums of membranes grow with their number."""
    if network.readout == "spike_count":
        return signed_width(0, timesteps)
    low, high = network.value_range()
    if network.readout == "membrane_sum":
        more = -(-timesteps // network.timesteps)
        low, high = low * more, high * more
    return min(64, signed_width(low, high) + headroom)
