"""Timesteps of event times against arithmetic with fractions, for every dtype of times."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.basics.errors import InputError
from codesign.contract.binning import MILLISECONDS, bin_times, step_in

DTYPES = [
    np.dtype(name)
    for name in ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u4", ">f8", "longdouble"]
]
STEPS = st.one_of(
    st.sampled_from([6.0, 10.0, 0.1, 0.5, 1 / 3, 1e-3, 1e-320, 1e300]),
    st.floats(min_value=1e-6, max_value=1e6, allow_nan=False),
)


def exact(time: np.generic) -> Fraction:
    return Fraction(*time.as_integer_ratio()) if time.dtype.kind == "f" else Fraction(int(time))


def near(dtype: np.dtype, edge: Fraction) -> list:
    """Numbers of ``dtype`` at an edge and just beside it, as far as it has them."""
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        return [whole for whole in range(int(edge) - 1, int(edge) + 3) if info.min <= whole <= info.max]
    if edge > exact(np.finfo(dtype).max):
        return []
    with np.errstate(over="ignore"):
        at = dtype.type(float(edge))
        around = [np.nextafter(at, dtype.type(-np.inf)), at, np.nextafter(at, dtype.type(np.inf))]
    return [time for time in around if np.isfinite(time)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_finite_time_of_every_dtype_has_its_exact_timestep(dtype, data) -> None:
    step = step_in(data.draw(st.sampled_from(sorted(MILLISECONDS))), data.draw(STEPS))
    timesteps = data.draw(st.integers(1, 40))
    info = np.iinfo(dtype) if dtype.kind != "f" else np.finfo(dtype)
    found = [0, info.min, info.max]
    for k in data.draw(st.lists(st.integers(0, timesteps), max_size=4)):
        found += near(dtype, k * step)
    times = np.array(found, dtype)
    expected = [max(-1, min(timesteps, math.floor(exact(time) / step))) for time in times]
    assert bin_times(times, step, timesteps).tolist() == expected


@pytest.mark.parametrize(
    ("times", "step", "expected"),
    [
        # Differences of unsigned numbers that wrapped, and times beyond what an int64 holds.
        (np.array([(1 << 64) - 30, 5], np.uint64), 10.0, [6, 0]),
        (np.array([1e39, np.finfo(np.float64).max, 59.9]), 10.0, [6, 6, 5]),
        # One microsecond apart beyond 2^24, where float32 holds no odd number.
        (np.array([(1 << 24) - 1, 1 << 24, (1 << 24) + 1], np.int64), float((1 << 24) + 1) / 5, [4, 4, 5]),
        (np.array([np.nextafter(6.0, 0), 6.0]), 6.0, [0, 1]),
        (np.array([2, 3, 4], np.uint8), 0.1, [6, 6, 6]),
        (np.array([0, 1], np.int8), 0.5, [0, 2]),
        (np.array([-1, -128], np.int8), 6.0, [-1, -1]),
    ],
)
def test_literal_times(times, step, expected) -> None:
    assert bin_times(times, step_in("ms", step), 6).tolist() == expected


def test_a_step_is_the_decimal_that_was_written() -> None:
    assert step_in("ms", 0.1) == Fraction(1, 10)
    assert step_in("us", 0.1) == 100
    assert bin_times(np.arange(100), step_in("ms", 0.1), 2000).tolist() == list(range(0, 1000, 10))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_times_that_are_no_numbers_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        bin_times(np.array([0.0, wrong]), Fraction(1), 4)
