"""Terms of the contract that are smaller than a layer: leak, input coding, kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError

LeakKind = Literal["none", "shift", "multiply"]
ResetKind = Literal["subtract", "zero", "value", "none"]
CompareKind = Literal[">=", ">"]
CodingKind = Literal["current", "rate", "latency", "events", "delta"]
ReadoutKind = Literal["spike_count", "membrane_last", "membrane_sum", "membrane_max"]

MAX_LEAK_SHIFT = 24
# The numbers that a kind of leak uses; the other ones mean nothing.
LEAK_NUMBERS: dict[LeakKind, tuple[str, ...]] = {"none": (), "shift": ("shift",), "multiply": ("shift", "multiplier")}
MAX_INPUT_BITS = 8
MAX_PARAMETERS = 64

Int = npt.NDArray[np.int64]


def plain_number(value: Any) -> Any:
    """Numpy's number as Python's own, alone or in a list or tuple; anything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value[()].item()
    if isinstance(value, list | tuple):
        return type(value)(map(plain_number, value))
    return value


def plain_fields(record: Any, *names: str) -> None:
    """Make the named fields of a frozen dataclass numbers of Python, which alone are checked, stored and hashed."""
    for name in names:
        object.__setattr__(record, name, plain_number(getattr(record, name)))


def signed_width(low: int, high: int) -> int:
    """Bits of the narrowest two's-complement range that holds ``low`` and ``high``."""
    return max(int(low if low >= 0 else ~low).bit_length(), int(high if high >= 0 else ~high).bit_length()) + 1


def rest_text(refractory: int) -> str:
    """What a neuron with a refractory period does, in words."""
    return f"rests for {refractory} timestep{'s' if refractory > 1 else ''} after a spike"


@dataclass(frozen=True, eq=False)
class Leak:
    """Leak of a membrane, or of a synaptic current, once per timestep.

    ``none``: v; ``shift``: v - (v >> shift); ``multiply``: (v * multiplier) >> shift with
    0 <= multiplier <= 2**shift. ``>>`` is arithmetic (floor). Every kind is monotone in v.
    ``shift`` and ``multiplier`` are integers, or int64 (n_out,) with a value per neuron.
    """

    kind: LeakKind = "none"
    shift: int | Int = 0
    multiplier: int | Int = 0

    def __post_init__(self) -> None:
        plain_fields(self, "shift", "multiplier")

    def __call__(self, v: Any) -> Any:
        """What an integer or an integer array (int64, neurons last) leaks to."""
        if self.kind == "none":
            return v
        if self.kind == "shift":
            return v - (v >> self.shift)
        return (v * self.multiplier) >> self.shift

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Leak)
            and self.kind == other.kind
            and np.array_equal(self.shift, other.shift)
            and np.array_equal(self.multiplier, other.multiplier)
        )

    def __hash__(self) -> int:
        return hash((self.kind, np.asarray(self.shift).tobytes(), np.asarray(self.multiplier).tobytes()))

    @property
    def per_neuron(self) -> bool:
        """True if neurons of a layer may leak differently."""
        return isinstance(self.shift, np.ndarray) or isinstance(self.multiplier, np.ndarray)

    @property
    def numbers(self) -> dict[str, int | Int]:
        """``shift`` and ``multiplier`` by name, those that the kind uses."""
        return {name: getattr(self, name) for name in LEAK_NUMBERS[self.kind]}

    def exact(self, v: Int) -> Int:
        """The same of int64 values, also where the product needs more than 64 bits."""
        if self.kind != "multiply" or int(np.abs(v).max(initial=0)) * int(np.max(self.multiplier)) < 1 << 62:
            return self(v)
        # Python's integers. What has leaked is no larger than what it was.
        exactly = self.each(lambda _, value: value.astype(object))
        return np.asarray(exactly(v.astype(object))).astype(np.int64)

    def each(self, change: Callable[[str, Int], Int]) -> Leak:
        """The leak with the numbers that neurons have of their own changed, by name; one for all stays."""
        changed = {
            name: change(name, value)
            for name, value in (("shift", self.shift), ("multiplier", self.multiplier))
            if isinstance(value, np.ndarray)
        }
        return replace(self, **changed) if changed else self

    def validate(self, where: str, n_out: int) -> None:
        if self.kind not in get_args(LeakKind):
            raise InputError(f"{where}: leak {self.kind!r} is none of {', '.join(get_args(LeakKind))}")
        for name, value in (("shift", self.shift), ("multiplier", self.multiplier)):
            if isinstance(value, np.ndarray):
                if value.dtype != np.int64 or value.shape != (n_out,):
                    raise InputError(
                        f"{where}: leak {name} is {value.dtype} {value.shape}, expected int64 ({n_out},) or an integer"
                    )
            elif type(value) is not int:
                raise InputError(f"{where}: leak {name} {value!r} is not an integer")
            elif not 0 <= value <= 1 << MAX_LEAK_SHIFT:
                # Before it becomes an array, which holds no larger ones.
                limit = MAX_LEAK_SHIFT if name == "shift" else f"2**{MAX_LEAK_SHIFT}"
                raise InputError(f"{where}: leak {name} {value} is outside 0..{limit}")
        shift, multiplier = np.asarray(self.shift), np.asarray(self.multiplier)
        if shift.min() < 0 or shift.max() > MAX_LEAK_SHIFT:
            wrong = int(shift.min()) if shift.min() < 0 else int(shift.max())
            raise InputError(f"{where}: leak shift {wrong} is outside 0..{MAX_LEAK_SHIFT}")
        if self.kind == "multiply":
            shift, multiplier = np.broadcast_arrays(shift, multiplier)
            wrong = np.flatnonzero((multiplier < 0) | (multiplier > np.left_shift(1, shift)))
            if wrong.size:
                value, bits = int(multiplier.flat[wrong[0]]), int(shift.flat[wrong[0]])
                raise InputError(f"{where}: leak multiplier {value} is outside 0..2**{bits}")


NO_LEAK = Leak()


@dataclass(frozen=True)
class InputCoding:
    """How raw samples become stimuli. ``parameters`` belong to the host's encoder.

    ``current`` feeds unsigned integers of ``input_bits``; the other kinds feed events, and the
    hardware does not distinguish them.
    """

    kind: CodingKind
    input_bits: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain_fields(self, "input_bits")
        if isinstance(self.parameters, Mapping):
            parameters = {name: plain_number(value) for name, value in self.parameters.items()}
            object.__setattr__(self, "parameters", parameters)

    @property
    def is_current(self) -> bool:
        return self.kind == "current"

    @property
    def largest(self) -> int:
        """The largest factor of an input: 2**input_bits - 1, of events 1."""
        return (1 << self.input_bits) - 1 if self.is_current else 1

    def validate(self, where: str) -> None:
        """Raise InputError naming the first field that is out of its range."""
        if self.kind not in get_args(CodingKind):
            raise InputError(f"{where}: input coding {self.kind!r} is none of {', '.join(get_args(CodingKind))}")
        if self.is_current and (type(self.input_bits) is not int or not 1 <= self.input_bits <= MAX_INPUT_BITS):
            raise InputError(f"{where}: input_bits = {self.input_bits!r} is outside 1..{MAX_INPUT_BITS}")
        if not self.is_current and (type(self.input_bits) is not int or self.input_bits != 0):
            raise InputError(f"{where}: input_bits is only for the coding 'current'; with other codings it is 0")
        if not isinstance(self.parameters, Mapping) or len(self.parameters) > MAX_PARAMETERS:
            raise InputError(f"{where}: coding.parameters is no table of at most {MAX_PARAMETERS} entries")
        for name, value in self.parameters.items():
            entries = value if isinstance(value, list | tuple) else [value]
            if not isinstance(name, str) or not all(_is_parameter(entry) for entry in entries):
                raise InputError(
                    f"{where}: coding.parameters: {name!r} = {_short(value)} is no finite number, text or list of these"
                )


def _is_parameter(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 1 << 64
    return value is None or isinstance(value, str)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
