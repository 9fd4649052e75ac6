"""What a loadable machine holds at most: the one source of its memories' shapes and of its datapath's widths.

The generator builds from a :class:`Capacity`, the image writer and the load compiler pack and check by it. A network
fits a machine if its fixed terms (:func:`fixed_terms`) are the machine's and no size or range exceeds the capacity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain, repeat
from typing import Any, Literal

import numpy as np

from codesign.basics.errors import CapacityError, InputError, UnsupportedError
from codesign.contract.network import MAX_TIMESTEPS, MAX_WIDTH, FrozenLayer, FrozenNetwork, signed_width
from codesign.contract.network.terms import MAX_LEAK_SHIFT
from codesign.machine.encoding import PLAIN
from codesign.machine.layouts import LEAKS, PARAMETERS, Field, Record, index_width, parameter_width, parameter_word

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
    synapses : words of each lane's synapse memory, one number or one per layer; by default what the build network's
        fullest lane needs, to the next power of two.
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
    synapses : words of each lane's synapse memory; 0 until the build network is placed.
    weight_bits, membrane_width, sum_width, bias_width : bits at most, signs included.
    threshold_width : bits of a threshold, more than of any potential; 0 if the layer does not spike.
    leak_shift_width, leak_multiplier_width : bits of the leak's numbers, if they are in memory; 0 if they are fixed.
    state_width, potential_width : bits of what a slot keeps between timesteps, and of u; they follow from the others.
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

    @property
    def parameter_widths(self) -> dict[str, int]:
        """Bits of the parameters that are in memory."""
        # No machine with synaptic currents is loadable: of their leaks there is nothing.
        widths = {name: getattr(self, f"{name}_width", 0) for name in PARAMETERS}
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

    layer, role, lane : whose it is. depth, record : its words. ``word_bytes`` : bytes of a word in a load image.
    """

    layer: int
    role: Role
    lane: int
    depth: int
    record: Record

    @property
    def word_bytes(self) -> int:
        return self.record.stream_width // 8


@dataclass(frozen=True)
class Capacity:
    """A loadable machine: inputs and timesteps at most, bits of a readout value, its layers."""

    n_inputs: int
    timesteps: int
    value_width: int
    layers: tuple[LayerCapacity, ...]

    def n_addresses(self, index: int) -> int:
        """Rows of each of a layer's row tables."""
        return self.n_inputs if index == 0 else self.layers[index - 1].n_addresses

    def record(self, index: int, role: Role) -> Record:
        """Word of a memory."""
        layer = self.layers[index]
        if role == "rows":
            return PLAIN.row_record(layer.synapses, layer.n_slots)
        if role == "synapses":
            return PLAIN.synapse_record(layer.n_slots, layer.weight_bits)
        return parameter_word(layer.parameter_widths)

    @cached_property
    def memories(self) -> tuple[LoadMemory, ...]:
        """Every memory that a load writes; its place here is its number. Of one layer and role, all are alike."""
        found = []
        for index, layer in enumerate(self.layers):
            depths = {"rows": self.n_addresses(index), "synapses": layer.synapses, "parameters": layer.n_slots}
            for role in ROLES:
                for lane in range(layer.lanes):
                    found.append(LoadMemory(index, role, lane, depths[role], self.record(index, role)))
        return tuple(found)

    def number(self, index: int, role: Role, lane: int) -> int:
        """Number of a memory."""
        return next(
            number
            for number, memory in enumerate(self.memories)
            if (memory.layer, memory.role, memory.lane) == (index, role, lane)
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
        return asdict(self) | {"layers": [asdict(layer) for layer in self.layers]}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Capacity:
        """Inverse of :meth:`to_json`. Raises InputError if a field is missing, unknown or no whole number."""
        try:
            layers = tuple(LayerCapacity(**layer) for layer in document["layers"])
            sizes = {name: value for name, value in document.items() if name != "layers"}
            capacity = cls(**sizes, layers=layers)
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(f"design.json: capacity: {error}; generate the bundle again") from None
        numbers = [capacity.n_inputs, capacity.timesteps, capacity.value_width]
        numbers += [value for layer in layers for value in asdict(layer).values()]
        if not layers or not all(type(number) is int and number >= 0 for number in numbers):
            raise InputError("design.json: capacity is no list of whole numbers; generate the bundle again")
        return capacity


def plan_capacity(network: FrozenNetwork, lanes: Sequence[int], options: CapacityOptions) -> Capacity:
    """Capacity of a machine that is built with ``network``, whose synapses are not placed yet (``synapses`` 0).

    Raises InputError if the options are less than the network, or out of range.
    """
    hidden = [layer.n_out for layer in network.layers[:-1]]
    neurons = list(hidden if options.neurons is None else options.neurons)
    if len(neurons) != len(hidden):
        raise InputError(f"hardware.capacity.neurons has {len(neurons)} entries for {len(hidden)} hidden layers")
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
        leak = (-(1 << (width - 1)), (1 << (width - 1)) - 1)
        if not any(leaks.values()):
            # Of leaks that are loaded nothing is known but that they make no membrane larger.
            leak = (int(layer.leak(leak[0])), int(layer.leak(leak[1])))
        rest = [leak[0] - (1 << (bias_width - 1)), leak[1] + (1 << (bias_width - 1)) - 1]
        shift = layer.fraction_bits
        most = (1 << (sum_width - 1)) << shift
        potential = max(signed_width(rest[0] - most, rest[1] + most - (1 << shift)), shift + 2)
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
                state_width=signed_width(*rest) if index == 0 and network.coding.is_current else potential,
                potential_width=potential,
            )
        )
    return Capacity(inputs, timesteps, _value_width(network, timesteps, options.headroom), tuple(layers))


def synapse_words(options: CapacityOptions, fullest: Sequence[int]) -> list[int]:
    """Words of each layer's synapse memories; ``fullest`` are the synapses of each layer's fullest lane.

    Raises InputError if fewer are wanted than the build network needs.
    """
    wanted = options.synapses
    given = [wanted] * len(fullest) if wanted is None or isinstance(wanted, int) else list(wanted)
    if len(given) != len(fullest):
        raise InputError(f"hardware.capacity.synapses has {len(given)} entries for {len(fullest)} layers")
    return [
        1 << max(0, needed - 1).bit_length() if count is None else _at_least("synapses", count, max(1, needed), 1 << 24)
        for count, needed in zip(given, fullest, strict=True)
    ]


def _leak_widths(layer: FrozenLayer, headroom: int) -> dict[str, int]:
    """Bits of the leak's numbers in memory, ``headroom`` more than the layer's unless none needs them; 0 where all
    neurons have the same."""
    found: dict[str, int] = dict.fromkeys(LEAKS, 0)
    largest = MAX_LEAK_SHIFT
    for name in LEAKS:
        numbers = layer.numbers.get(name)
        if numbers is None:
            continue
        limit = largest if name == "leak_shift" else 1 << largest
        if name in layer.varying:
            needed = parameter_width(name, 0, int(numbers.max()))
            found[name] = min(needed + headroom, parameter_width(name, 0, limit))
            largest = min(largest, (1 << found[name]) - 1)
        else:
            largest = int(numbers[0])
    return found


def _leak_text(layer: FrozenLayer, in_memory: Collection[str]) -> str:
    """A layer's leak, with letters for what differs between neurons or is ``in_memory``."""
    if layer.leak.kind == "none":
        return "none"
    letters = {"leak_shift": "k" if layer.leak.kind == "shift" else "n", "leak_multiplier": "m"}
    shown = {
        name: letters[name] if name in in_memory or name in layer.varying else str(numbers[0])
        for name, numbers in layer.numbers.items()
        if name in LEAKS
    }
    if layer.leak.kind == "shift":
        return f"v - (v >> {shown['leak_shift']})"
    return f"(v * {shown['leak_multiplier']}) >> {shown['leak_shift']}"


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
                "leak": _leak_text(layer, widths),
                "reset": f"value {layer.reset_value}" if layer.reset == "value" else layer.reset,
                "compare": layer.compare,
                "fraction_bits": layer.fraction_bits,
            }
            for layer, widths in zip(network.layers, stored)
        ],
    }


def check_terms(network: FrozenNetwork, capacity: Capacity, terms: dict[str, Any]) -> None:
    """Raise UnsupportedError unless the network's fixed terms are ``terms``, those of a machine of this capacity."""
    found = fixed_terms(network, capacity)
    pairs = [("", "layers", len(found["layers"]), len(terms["layers"]))]
    pairs += [("", name, found[name], terms[name]) for name in ("coding", "input_bits", "readout", "n_outputs")]
    pairs += [
        (f"layer {index}: ", name, have[name], term[name])
        for index, (have, term) in enumerate(zip(found["layers"], terms["layers"]))
        for name in have
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
            _fits(where, "bits of threshold", lowest, room.threshold_width, "headroom")
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
    return np.minimum(layer.threshold, (1 << (room.threshold_width - 1)) - 1)


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
    return min(63, signed_width(low, high) + headroom)
