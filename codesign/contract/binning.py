"""Event times -> timesteps, exactly: timestep = floor(t / step) for every finite time of every real dtype.

``t`` is the value that the file holds, whatever its dtype; ``step`` is a rational number in the unit of the times. The
comparison is with edges of the times' own dtype, so nothing is rounded: a time is in timestep k or later if and only
if it is at least the smallest number of its dtype that is not below k * step.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError

TimeUnit = Literal["s", "ms", "us", "ns"]
MILLISECONDS: dict[TimeUnit, Fraction] = {
    "s": Fraction(1000),
    "ms": Fraction(1),
    "us": Fraction(1, 1000),
    "ns": Fraction(1, 1_000_000),
}

Array = npt.NDArray[Any]


def step_in(unit: TimeUnit, step_ms: float) -> Fraction:
    """A step of ``step_ms`` milliseconds in ``unit``. It is the decimal number that a person wrote: 0.1 is 1/10."""
    return Fraction(repr(float(step_ms))) / MILLISECONDS[unit]


def bin_times(times: Array, step: Fraction, timesteps: int) -> npt.NDArray[np.int64]:
    """int64 (n,): floor(t / step) of integer or real times (n,).

    -1 stands for every time below 0, ``timesteps`` for every time after the last timestep.
    Raises InputError if a time is NaN or infinite.
    """
    if times.dtype.kind not in "iuf":
        raise InputError(f"times are {times.dtype}, expected numbers")
    if times.dtype.kind == "f" and not np.isfinite(times).all():
        raise InputError("times hold NaN or infinite values")
    # The same numbers in a dtype that the machine compares itself.
    dtype = np.dtype(np.float32) if times.dtype == np.float16 else times.dtype.newbyteorder("=")
    edges = _edges(dtype, step, timesteps)
    return np.searchsorted(edges, times.astype(dtype, copy=False), side="right") - 1


def _edges(dtype: np.dtype[Any], step: Fraction, timesteps: int) -> Array:
    """The smallest numbers of ``dtype`` that are not below k * step, k = 0..timesteps, as far as ``dtype`` has any."""
    if dtype.kind == "f":
        largest = Fraction(*np.finfo(dtype).max.as_integer_ratio())
        exact = (k * step for k in range(timesteps + 1))
        return np.array([_float_from(dtype, edge) for edge in exact if edge <= largest], dtype)
    largest = int(np.iinfo(dtype).max)
    whole = (-(-k * step.numerator // step.denominator) for k in range(timesteps + 1))
    return np.array([edge for edge in whole if edge <= largest], dtype)


def _float_from(dtype: np.dtype[Any], exact: Fraction) -> Any:
    """The smallest number of a floating ``dtype`` that is not below ``exact``, which is in 0..the largest."""
    if not exact:
        return dtype.type(0)
    info = np.finfo(dtype)
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    if Fraction(2) ** exponent > exact:
        exponent -= 1
    # Numbers of the dtype near ``exact`` are multiples of this power of 2; the subnormal ones share the smallest.
    power = max(exponent, int(info.minexp)) - int(info.nmant)
    return np.ldexp(dtype.type(math.ceil(exact / Fraction(2) ** power)), power)
