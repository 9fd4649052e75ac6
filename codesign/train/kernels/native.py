"""The kernels in C++, compiled at first use with the machine's own compiler and kept in the cache; LIF steps (lif.cpp).

The results of LIF steps have the same bits as :mod:`~codesign.train.kernels.plain`'s. The library is plain C behind
ctypes: it needs neither Python's nor torch's headers, compiles in seconds, and shares torch's OpenMP threads, whose
runtime is loaded already.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codesign.basics import native
from codesign.train.kernels.dynamics import LEAKS, RESETS, SURROGATES, Dynamics

SOURCES = tuple(Path(__file__).with_name(name) for name in ("lif.cpp", "events.cpp", "taps.cpp"))
HEADERS = tuple(Path(__file__).with_name(name) for name in ("threads.hpp", "vectors.hpp"))
# No contraction and no fast-math: each operation is rounded on its own. Comparisons are quiet, so that they vectorise.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
SUFFIX = {torch.float32: "float32", torch.float64: "float64"}


class _Numbers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("leak", "spiking", "strict", "reset", "saturates", "surrogate")] + [
        (name, ctypes.c_double)
        for name in ("factor", "slope", "threshold", "low", "high", "peak", "scale", "half_width")
    ]


class Sizes(ctypes.Structure):
    """Of a convolution over taps (taps.cpp)."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "samples", "sources", "targets", "height", "width", "packed_height", "packed_width", "group", "groups"
        )
    ]  # fmt: skip


def usable(tensor: Tensor) -> bool:
    """True if the compiled kernel takes tensors like this one."""
    return tensor.device.type == "cpu" and tensor.dtype in SUFFIX and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel; None where it is switched off (CODESIGN_KERNELS=plain) or cannot be compiled."""
    if os.environ.get("CODESIGN_KERNELS") == "plain":
        return None
    found = native.opened(build())
    if found is None:
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    for suffix in SUFFIX.values():
        for name in ("advance", "retreat"):
            function = getattr(found, f"{name}_{suffix}")
            function.restype = None
            function.argtypes = [ctypes.POINTER(_Numbers), integer, integer, integer, *[pointer] * 6, integer]
        for name, returned, arguments in (
            ("events_strip", integer, []),
            ("events_count", integer, [integer, integer, pointer, pointer, integer]),
            ("events_fill", None, [integer, integer, pointer, pointer, pointer, integer]),
            ("events_gather", None, [integer, integer, integer, *[pointer] * 5, integer]),
            ("taps_lanes", integer, []),
            ("taps_group", integer, [integer, integer]),
            ("taps_pack", None, [*[integer] * 4, pointer, *[integer] * 3, pointer, integer]),
            ("taps_convolve", None, [ctypes.POINTER(Sizes), integer, *[pointer] * 5, integer]),
            ("taps_gradients", None, [ctypes.POINTER(Sizes), *[integer] * 4, *[pointer] * 5, integer]),
        ):
            function = getattr(found, f"{name}_{suffix}")
            function.restype, function.argtypes = returned, arguments
    for name, returned, arguments in (
        ("events_turn", None, [integer, integer, *[pointer] * 4]),
        ("taps_tile", integer, []),
        ("taps_rows", integer, [integer]),
        ("taps_index", None, [*[integer] * 8, *[pointer] * 4]),
    ):
        function = getattr(found, name)
        function.restype, function.argtypes = returned, arguments
    return found


def build() -> Path | None:
    """Compile the sources, unless the cache has them; None if there is no compiler that can."""
    return native.build("kernels", SOURCES, ((*FLAGS, "-fopenmp"), FLAGS), HEADERS)


def advance(
    current: Tensor, state: Tensor, potentials: Tensor, spikes: Tensor, stored: Tensor, dynamics: Dynamics
) -> None:
    """See :func:`codesign.train.kernels.advance`."""
    size = state.numel()
    factor, factors = _spread(dynamics.factor, state)
    function("advance", state)(
        ctypes.byref(_numbers(dynamics, factor, 0.0)),
        len(potentials),
        size,
        size if current.dim() == potentials.dim() else 0,
        address(current),
        address(factors),
        address(state),
        address(potentials),
        address(spikes),
        address(stored if len(stored) else None),
        torch.get_num_threads(),
    )


def retreat(
    potentials: Tensor,
    spikes: Tensor,
    spike_gradient: Tensor | None,
    potential_gradient: Tensor | None,
    carry: Tensor,
    gradient: Tensor,
    dynamics: Dynamics,
) -> None:
    """See :func:`codesign.train.kernels.retreat`. The spikes are told from the potentials again."""
    size = carry.numel()
    slope, slopes = _spread(dynamics.slope, carry)
    of_spikes = None if spike_gradient is None else spike_gradient.contiguous()
    of_potentials = None if potential_gradient is None else potential_gradient.contiguous()
    function("retreat", carry)(
        ctypes.byref(_numbers(dynamics, 0.0, slope)),
        len(potentials),
        size,
        size if gradient.dim() == potentials.dim() else 0,
        address(potentials),
        address(of_spikes),
        address(of_potentials),
        address(slopes),
        address(carry),
        address(gradient),
        torch.get_num_threads(),
    )


def function(name: str, tensor: Tensor) -> Any:
    """The library's function for the tensor's dtype; only where :func:`usable`."""
    found = library()
    assert found is not None
    return getattr(found, f"{name}_{SUFFIX[tensor.dtype]}")


def _numbers(dynamics: Dynamics, factor: float, slope: float) -> _Numbers:
    peak, scale, half_width = dynamics.surrogate_numbers
    return _Numbers(
        leak=LEAKS[dynamics.leak],
        spiking=dynamics.threshold is not None,
        strict=dynamics.strict,
        reset=RESETS[dynamics.reset],
        saturates=dynamics.low is not None,
        surrogate=SURROGATES[dynamics.surrogate],
        factor=factor,
        slope=slope,
        threshold=math.inf if dynamics.threshold is None else dynamics.threshold,
        low=-math.inf if dynamics.low is None else dynamics.low,
        high=math.inf if dynamics.high is None else dynamics.high,
        peak=peak,
        scale=scale,
        half_width=half_width,
    )


def _spread(value: float | Tensor, state: Tensor) -> tuple[float, Tensor | None]:
    """A number, or one value for each element of the state."""
    if not isinstance(value, Tensor):
        return value, None
    if value.numel() == 1:
        return float(value), None
    return 0.0, value.expand_as(state).contiguous()


def address(tensor: Tensor | None) -> int | None:
    """Address of a contiguous tensor's first element."""
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()
