"""What lies on the scale of a set's values, and how its bounds are said."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError

# Of the rounded span, as a multiple of the exact one.
LARGEST_EXCESS = 1.001


def checked_scale(low: Any, high: Any, where: str) -> tuple[float, float]:
    """The bounds as float64. Raises InputError unless they are finite numbers, the one below the other, as float64 too.

    ``where`` names them in the message.
    """
    try:
        bottom, top = float(low), float(high)
    except (TypeError, ValueError, OverflowError):
        bottom = top = math.nan
    if not (bottom < top and math.isfinite(top - bottom)):
        raise InputError(f"{where} is [{low}, {high}], expected [low, high] with low < high and a finite difference")
    return bottom, top


def on_scale(x: npt.NDArray[Any], low: float, high: float) -> bool:
    """True if no value of ``x`` (real numbers, any shape) is NaN or beyond ``low`` .. ``high``, low < high.

    What a bound becomes in the dtype of ``x`` is that bound: 0.7 in float32 is a little less than 0.7.
    """
    if not x.size:
        return True
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            low, high = min(low, float(x.dtype.type(low))), max(high, float(x.dtype.type(high)))
    # Both sides as float64, in which values are encoded; numpy would compare them in the dtype of x.
    return low <= float(x.min()) and float(x.max()) <= high


def enclosing(low: float, high: float) -> tuple[str, str]:
    """Decimals at or below ``low`` and at or above ``high``, of 6 digits, or of more where the two lie close together.

    >>> enclosing(0.0, 255.0), enclosing(float(np.float32(0.7)), 1 / 3 + 1), enclosing(1e6 + 0.5, 1e6 + 1)
    (('0', '255'), ('0.699999', '1.33334'), ('1000000.5', '1000001'))
    """
    for digits in range(6, 16):
        below, above = _rounded(low, digits, ROUND_FLOOR), _rounded(high, digits, ROUND_CEILING)
        if float(above) - float(below) <= LARGEST_EXCESS * (high - low):
            return below, above
    return repr(low).removesuffix(".0"), repr(high).removesuffix(".0")


def _rounded(value: float, digits: int, rounding: str) -> str:
    # What repr says is read back as the same value, and so lies on the same side of what it is rounded to.
    return f"{float(Context(prec=digits, rounding=rounding).create_decimal(repr(value))):.{digits}g}"
