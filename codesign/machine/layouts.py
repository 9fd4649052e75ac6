"""The words of the accelerator, each declared once: field names, widths, signedness.

The RTL turns a :class:`Record` into its own layout, the image writer packs with it, and the sidecar prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codesign.contract.network import FrozenNetwork, signed_width

if TYPE_CHECKING:
    from codesign.machine.capacity import Capacity

EVENT, END = 0, 1
SPIKE, VALUE, DECISION = 0, 1, 2
INPUT_KINDS = {"event": EVENT, "end": END}
OUTPUT_KINDS = {"spike": SPIKE, "value": VALUE, "decision": DECISION}
# Parameters of a slot in the order of their word, and whether they are signed.
PARAMETERS = {
    "threshold": True,
    "bias": True,
    "leak_shift": False,
    "leak_multiplier": False,
    "current_leak_shift": False,
    "current_leak_multiplier": False,
}
LEAKS = ("leak_shift", "leak_multiplier", "current_leak_shift", "current_leak_multiplier")
PROTOCOL_ERRORS = ("duplicate", "index_out_of_range", "early_tlast", "missing_tlast")


def index_width(count: int) -> int:
    """Bits of an index into ``count`` things; at least 1, so that no field is empty."""
    return max(1, (count - 1).bit_length())


@dataclass(frozen=True)
class Field:
    """One field of a word: ``width`` bits, two's complement if ``signed``."""

    name: str
    width: int
    signed: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and greatest value."""
        if self.signed:
            return -(1 << (self.width - 1)), (1 << (self.width - 1)) - 1
        return 0, (1 << self.width) - 1


@dataclass(frozen=True)
class Record:
    """A word: fields in order, the first in the least significant bits."""

    fields: tuple[Field, ...]

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    @property
    def width(self) -> int:
        return sum(field.width for field in self.fields)

    @property
    def stream_width(self) -> int:
        """Width padded to whole bytes, as on an AXI4-Stream port."""
        return -(-self.width // 8) * 8

    def offset(self, name: str) -> int:
        """Bit at which the field starts. Raises KeyError if there is none of that name."""
        position = 0
        for field in self.fields:
            if field.name == name:
                return position
            position += field.width
        raise KeyError(name)

    def has(self, name: str) -> bool:
        return any(field.name == name for field in self.fields)

    def pack(self, values: Mapping[str, npt.ArrayLike]) -> npt.NDArray[Any]:
        """Words, one per element, of integer arrays (n,) by field name; scalars are broadcast.

        int64 if the word has at most 63 bits, else an object array of Python integers. Raises
        ValueError for a missing or unknown field or a value that does not fit.
        """
        if set(values) != {field.name for field in self.fields}:
            raise ValueError(f"fields {sorted(values)} given, the word has {[field.name for field in self.fields]}")
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(values[field.name])) for field in self.fields))
        kind: Any = np.int64 if self.width <= 63 else object
        words: npt.NDArray[Any] = np.zeros(arrays[0].shape if arrays else (1,), kind)
        position = 0
        for field, array in zip(self.fields, arrays, strict=True):
            low, high = field.limits
            if array.size and (int(array.min()) < low or int(array.max()) > high):
                raise ValueError(f"field {field.name!r}: {array.min()}..{array.max()} is outside {low}..{high}")
            words = words | ((array.astype(kind) & ((1 << field.width) - 1)) << position)
            position += field.width
        return words

    def unpack(self, words: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
        """Integer arrays by field name: the inverse of :meth:`pack`."""
        kind: Any = np.int64 if self.width <= 63 else object
        array = np.atleast_1d(np.asarray(words, kind))
        result = {}
        position = 0
        for field in self.fields:
            raw = (array >> position) & ((1 << field.width) - 1)
            if field.signed:
                raw = raw - ((raw >> (field.width - 1)) << field.width)
            result[field.name] = raw.astype(np.int64)
            position += field.width
        return result

    def describe(self) -> list[dict[str, Any]]:
        """JSON form of the fields: name, offset, width, signed."""
        return [
            {"name": field.name, "offset": self.offset(field.name), "width": field.width, "signed": field.signed}
            for field in self.fields
        ]


def in_lockstep(own: Record, lanes: int) -> Record:
    """Word that holds one of ``own`` for every lane, the first in the least significant bits: slot0, weight0, slot1."""
    return Record(tuple(replace(field, name=f"{field.name}{lane}") for lane in range(lanes) for field in own.fields))


def input_word(network: FrozenNetwork, span: int | None = None) -> Record:
    """Word of ``s_axis``: {source, kind} for events, {source, value} for coding 'current'.

    ``span`` : addresses that a source can have, if not ``n_inputs``: of a picture, or of a loadable machine, whose
    words have room for every network that fits it.
    """
    source = Field("source", index_width(network.n_inputs if span is None else span))
    if network.coding.is_current:
        return Record((source, Field("value", network.coding.input_bits)))
    return Record((source, Field("kind", 1)))


def output_word(network: FrozenNetwork, capacity: Capacity | None = None) -> Record:
    """Word of ``m_axis``: {kind, timestep, index, value}.

    ``capacity`` : of a loadable machine, whose words have room for every network that fits it.
    """
    return Record(
        (
            Field("kind", 2),
            Field("timestep", index_width(capacity.timesteps if capacity else network.timesteps)),
            Field("index", index_width(network.n_outputs)),
            Field("value", capacity.value_width if capacity else signed_width(*network.value_range()), signed=True),
        )
    )


def parameter_width(name: str, low: int, high: int) -> int:
    """Bits of one of :data:`PARAMETERS` whose values are ``low`` to ``high``."""
    return signed_width(low, high) if PARAMETERS[name] else max(1, high.bit_length())


def parameter_word(widths: Mapping[str, int]) -> Record:
    """Parameters of one slot, those of :data:`PARAMETERS` that have a width."""
    return Record(tuple(Field(name, widths[name], signed) for name, signed in PARAMETERS.items() if name in widths))
