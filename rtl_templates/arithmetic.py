"""Narrowing, sums and records: the only places where a value loses bits or a word is taken apart."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Mux, Shape, Value, signed, unsigned
from amaranth.lib import data

from codesign.machine.layouts import Record


def record_layout(record: Record) -> data.StructLayout:
    """Amaranth layout of a :class:`codesign.machine.layouts.Record`: same names, same bits."""
    return data.StructLayout(
        {field.name: (signed if field.signed else unsigned)(field.width) for field in record.fields}
    )


def wrap(value: Value, shape: Shape) -> Value:
    """``value`` in ``shape``, extended or cut.

    Use where the caller has derived that the value fits: nothing is lost then. Assignments in Amaranth cut
    silently; going through this function makes every cut visible in the source.
    """
    width = shape.width
    if len(value) < width:
        value = Cat(value, (value[-1] if value.shape().signed else Const(0, 1)).replicate(width - len(value)))
    bits = value[:width]
    return bits.as_signed() if shape.signed else bits


def saturate(value: Value, width: int) -> tuple[Value, Value]:
    """``value`` (signed) clipped into ``width`` signed bits, and a bit that tells whether it was clipped."""
    if len(value) <= width:
        return wrap(value, signed(width)), Const(0, 1)
    sign = value[-1]
    clipped = value[width - 1 :] != sign.replicate(len(value) - width + 1)
    limit = Cat((~sign).replicate(width - 1), sign)
    return Mux(clipped, limit, value[:width]).as_signed(), clipped


def saturate_within(value: Value, width: int, clip: Value) -> tuple[Value, Value]:
    """As :func:`saturate` into W' bits, W' <= ``width``, in ``width`` bits; W' is chosen while the machine runs.

    ``clip`` : width - 1 bits, ones from bit W' - 1 up.
    """
    value = wrap(value, signed(max(len(value), width + 1)))
    sign = value[-1]
    differs = value[:-1] ^ sign.replicate(len(value) - 1)
    clipped = (differs[: width - 1] & clip).any() | differs[width - 1 :].any()
    # A limit has the sign's bits where W' bits have none, and its inverse below.
    limit = Cat(clip ^ (~sign).replicate(width - 1), sign)
    return Mux(clipped, limit, value[:width]).as_signed(), clipped


def balanced_sum(terms: Sequence[Value]) -> Value:
    """Sum by a balanced tree of adders."""
    found = list(terms)
    while len(found) > 1:
        found = [found[i] + found[i + 1] if i + 1 < len(found) else found[i] for i in range(0, len(found), 2)]
    return found[0]


def popcount(bits: Sequence[Value]) -> Value:
    """Number of ones."""
    return balanced_sum(bits)


def times(value: Value, factor: int) -> Value:
    """``value`` (unsigned) times a positive constant, by shifts and additions: for a product tools take a multiplier
    block, however small it is."""
    return balanced_sum([value.shift_left(k) for k in range(factor.bit_length()) if factor >> k & 1])
