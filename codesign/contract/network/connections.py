"""Who is connected to whom, and how strongly: synapses one by one, convolutions by their taps, sum pooling.

The same structures carry a frozen network's weights, int8, and a float network's, float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.contract.network.limits import MAX_FLOAT, MAX_REACH, MAX_SYNAPSES, MAX_WIDTH
from codesign.contract.network.terms import Int, plain_fields

Shape = tuple[int, int, int]
Index = npt.NDArray[np.int32]
Weights = npt.NDArray[Any]
"""int8 in a frozen network, float64 in a float network."""


def is_whole(value: Any, low: int, high: int) -> bool:
    """True for an int in ``low..high``; False for a bool and a float."""
    return type(value) is int and low <= value <= high


def check_shape(shape: Any, where: str) -> None:
    """Raise InputError unless ``shape`` is (C, H, W) of positive integers, not more than MAX_WIDTH together."""
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(is_whole(size, 1, MAX_WIDTH) for size in shape):
        raise InputError(f"{where} {shape!r} is not (channels, height, width) of 1..{MAX_WIDTH}")
    if prod(shape) > MAX_WIDTH:
        raise InputError(f"{where} {shape!r} has {prod(shape)} neurons, the limit is {MAX_WIDTH}")


def wide(weights: Weights) -> npt.NDArray[Any]:
    """The weights as int64, or float64 if they are float: what sums of them are computed in."""
    return weights.astype(np.float64 if weights.dtype.kind == "f" else np.int64)


def checked_weights(weights: npt.ArrayLike, dtype: npt.DTypeLike, what: str, n_dims: int) -> npt.NDArray[Any]:
    """The array, if its entries are integers of at most 8 signed bits, or for a float ``dtype`` finite numbers.

    Raises InputError otherwise.
    """
    array = np.asarray(weights)
    if np.dtype(dtype).kind == "f":
        if array.ndim != n_dims or array.dtype.kind not in "iuf":
            raise InputError(f"weights must be a real {what}, not {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"weights of a {what} hold NaN or infinite values")
        return array
    if array.ndim != n_dims or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"weights must be an integer {what}, not {array.dtype} {array.shape}")
    # As Python's integers: magnitudes of the widest integers wrap.
    for extreme in (int(array.max(initial=0)), int(array.min(initial=0))):
        if abs(extreme) > 127:
            raise InputError(f"weight {extreme} does not fit 8 signed bits")
    return array


def check_weights(weights: Weights, weight_bits: int | None, where: str) -> None:
    """Raise InputError unless the weights are nonzero and within their bits, or +-1e30 if they have None: float64."""
    if weight_bits is None:
        if weights.size and not (np.all(np.abs(weights) <= MAX_FLOAT) and np.all(weights != 0)):
            raise InputError(f"{where}: a weight is zero, NaN or beyond +-{MAX_FLOAT:g}")
        return
    limit = (1 << (weight_bits - 1)) - 1
    if weights.size and (np.any(weights == 0) or int(np.abs(weights.astype(np.int64)).max()) > limit):
        raise InputError(f"{where}: a weight is zero or outside +-{limit} ({weight_bits} bits)")


def weight_dtype(weight_bits: int | None) -> type:
    return np.float64 if weight_bits is None else np.int8


def check_array(array: Any, dtype: type, size: int, where: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != (size,):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{where} is {found}, expected {np.dtype(dtype)} ({size},)")


@dataclass(frozen=True, eq=False)
class Synapses:
    """Single synapses in CSR by source neuron.

    n_in, n_out : number of source and target neurons, 1 or more.
    indptr : int64 (n_in + 1,); synapses of source i are ``indptr[i]:indptr[i + 1]``.
    targets : int32 (n_synapses,), strictly increasing within a source.
    weights : int8 or float64 (n_synapses,), nonzero.
    """

    n_in: int
    n_out: int
    indptr: Int
    targets: Index
    weights: Weights

    def __post_init__(self) -> None:
        plain_fields(self, "n_in", "n_out")

    @classmethod
    def from_dense(cls, matrix: npt.ArrayLike, dtype: npt.DTypeLike = np.int8) -> Synapses:
        """Synapses of an (n_in, n_out) matrix with weights of ``dtype``, int8 or float64; zeros are no synapses.

        Raises InputError for int8 unless the entries are integers within +-127, for float64 unless they are finite.
        """
        dense = checked_weights(matrix, dtype, "(n_in, n_out) matrix", 2)
        sources, targets = np.nonzero(dense)
        return cls(
            n_in=int(dense.shape[0]),
            n_out=int(dense.shape[1]),
            indptr=np.searchsorted(sources, np.arange(dense.shape[0] + 1)).astype(np.int64),
            targets=targets.astype(np.int32),
            weights=dense[sources, targets].astype(dtype),
        )

    def with_weights(self, weights: Weights) -> Synapses:
        """The same synapses with other weights (n_synapses,); those that are 0 are left out."""
        kept = weights != 0
        indptr = np.searchsorted(self.sources[kept], np.arange(self.n_in + 1)).astype(np.int64)
        return replace(self, indptr=indptr, targets=self.targets[kept], weights=weights[kept])

    @property
    def n_weights(self) -> int:
        """Nonzero weights stored."""
        return int(self.weights.size)

    @property
    def dense_weights(self) -> int:
        """Synapses with every weight."""
        return self.n_in * self.n_out

    @property
    def n_operations(self) -> int:
        """Synaptic operations if every source sends one event."""
        return self.n_weights

    @property
    def sources(self) -> Int:
        """int64 (n_synapses,): the source of each synapse."""
        return np.repeat(np.arange(self.n_in, dtype=np.int64), np.diff(self.indptr))

    def dense(self) -> npt.NDArray[Any]:
        """int64 or float64 (n_in, n_out) weight matrix."""
        weights = wide(self.weights)
        matrix = np.zeros((self.n_in, self.n_out), weights.dtype)
        matrix[self.sources, self.targets] = weights
        return matrix

    def sum_range(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Sums of the negative and of the positive weights per neuron, two int64 or float64 (n_out,)."""
        weights = wide(self.weights)
        low, high = np.zeros(self.n_out, weights.dtype), np.zeros(self.n_out, weights.dtype)
        np.add.at(low, self.targets, np.minimum(weights, 0))
        np.add.at(high, self.targets, np.maximum(weights, 0))
        return low, high

    def check_sizes(self, where: str) -> None:
        """Raise InputError for a size beyond the limits; looks at no array."""
        for name in ("n_in", "n_out"):
            if not is_whole(getattr(self, name), 1, MAX_WIDTH):
                raise InputError(f"{where}: {name} = {getattr(self, name)!r} is outside 1..{MAX_WIDTH}")

    def validate(self, where: str, weight_bits: int | None) -> None:
        """Raise InputError naming the first field that is out of its range."""
        self.check_sizes(where)
        check_array(self.indptr, np.int64, self.n_in + 1, f"{where}: indptr")
        check_array(self.targets, np.int32, self.targets.size, f"{where}: targets")
        check_array(self.weights, weight_dtype(weight_bits), self.targets.size, f"{where}: weights")
        # Neighbours are compared, not subtracted: differences of huge offsets wrap.
        rises = bool(np.all(self.indptr[1:] >= self.indptr[:-1]))
        if self.indptr[0] != 0 or self.indptr[-1] != self.n_weights or not rises:
            raise InputError(f"{where}: indptr does not rise from 0 to the number of synapses ({self.n_weights})")
        if self.n_weights:
            if self.targets.min() < 0 or self.targets.max() >= self.n_out:
                raise InputError(f"{where}: a synapse's target is outside 0..{self.n_out - 1}")
            if np.any(np.diff(self.sources * self.n_out + self.targets) <= 0):
                raise InputError(f"{where}: targets are not strictly increasing within a source")
        check_weights(self.weights, weight_bits, where)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A two-dimensional convolution, stored once per tap (as in deep learning, a cross-correlation).

    Neuron (o, y, x) receives ``weight * source (i, y * stride + ky - padding, x * stride + kx - padding)`` for every
    tap (o, i, ky, kx); a source outside the picture is 0. Neuron (c, y, x) of a shape (C, H, W) has the index
    ``(c * H + y) * W + x``.

    in_shape : (channels, height, width) of the sources.
    out_channels : channels of the targets.
    kernel : (height, width). stride, padding : both directions alike.
    out_channel, in_channel, ky, kx : int32 (n_taps,), strictly increasing by (in_channel, out_channel, ky, kx).
    weights : int8 or float64 (n_taps,), nonzero.
    """

    in_shape: Shape
    out_channels: int
    kernel: tuple[int, int]
    stride: int
    padding: int
    out_channel: Index
    in_channel: Index
    ky: Index
    kx: Index
    weights: Weights

    def __post_init__(self) -> None:
        plain_fields(self, "in_shape", "out_channels", "kernel", "stride", "padding")

    @classmethod
    def from_dense(
        cls,
        weight: npt.ArrayLike,
        in_shape: Shape,
        stride: int = 1,
        padding: int = 0,
        dtype: npt.DTypeLike = np.int8,
    ) -> Convolution:
        """Convolution of an (out_channels, in_channels, height, width) kernel with weights of ``dtype``, int8 or
        float64; zeros are no taps.

        Raises InputError if the kernel does not fit ``in_shape``, for int8 unless it holds integers within +-127, for
        float64 unless it is finite.
        """
        dense = checked_weights(weight, dtype, "(out_channels, in_channels, height, width) kernel", 4)
        shape = tuple(int(size) for size in in_shape)
        if dense.shape[1] != shape[0]:
            raise InputError(f"a kernel of {dense.shape[1]} input channels does not fit sources of shape {shape}")
        by_source = dense.transpose(1, 0, 2, 3)
        taps = np.nonzero(by_source)
        in_channel, out_channel, ky, kx = (axis.astype(np.int32) for axis in taps)
        convolution = cls(
            in_shape=(shape[0], shape[1], shape[2]),
            out_channels=int(dense.shape[0]),
            kernel=(int(dense.shape[2]), int(dense.shape[3])),
            stride=stride,
            padding=padding,
            out_channel=out_channel,
            in_channel=in_channel,
            ky=ky,
            kx=kx,
            weights=by_source[taps].astype(dtype),
        )
        convolution.check_sizes("convolution")
        return convolution

    def with_weights(self, weights: Weights) -> Convolution:
        """The same taps with other weights (n_taps,); those that are 0 are left out."""
        kept = weights != 0
        columns = {name: getattr(self, name)[kept] for name in ("out_channel", "in_channel", "ky", "kx")}
        return replace(self, weights=weights[kept], **columns)

    @property
    def out_shape(self) -> Shape:
        """(channels, height, width) of the targets."""
        height, width = (
            (size + 2 * self.padding - taps) // self.stride + 1
            for size, taps in zip(self.in_shape[1:], self.kernel, strict=True)
        )
        return self.out_channels, height, width

    @property
    def n_in(self) -> int:
        return prod(self.in_shape)

    @property
    def n_out(self) -> int:
        return prod(self.out_shape)

    @property
    def n_weights(self) -> int:
        """Nonzero weights stored: a tap counts once."""
        return int(self.weights.size)

    @property
    def dense_weights(self) -> int:
        """Taps of the kernel with every weight."""
        return self.out_channels * self.in_shape[0] * prod(self.kernel)

    def dense(self) -> npt.NDArray[Any]:
        """int64 or float64 (out_channels, in_channels, height, width) kernel."""
        weights = wide(self.weights)
        kernel = np.zeros((self.out_channels, self.in_shape[0], *self.kernel), weights.dtype)
        kernel[self.out_channel, self.in_channel, self.ky, self.kx] = weights
        return kernel

    def _reach(self) -> tuple[tuple[Int, Int], tuple[Int, Int]]:
        """Of each tap the rows and the columns of targets for which it has a source: first and end, int64 (n_taps,)."""
        found = []
        for axis, tap in enumerate((self.ky, self.kx), 1):
            # The source of target t lies at t * stride + offset.
            offset, size = tap.astype(np.int64) - self.padding, self.out_shape[axis]
            first = np.clip(-(offset // self.stride), 0, size)
            found.append((first, np.clip((self.in_shape[axis] - 1 - offset) // self.stride + 1, first, size)))
        return found[0], found[1]

    @property
    def n_operations(self) -> int:
        """Synaptic operations if every source sends one event: taps walked, borders respected."""
        (top, bottom), (left, right) = self._reach()
        return int(((bottom - top) * (right - left)).sum())

    def sum_range(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Sums of the negative and of the positive weights that reach each neuron, two int64 or float64 (n_out,)."""
        (top, bottom), (left, right) = self._reach()
        channels, height, width = self.out_shape
        shape = (channels, height + 1, width + 1)
        places = [
            (sign, (self.out_channel.astype(np.int64) * shape[1] + y) * shape[2] + x)
            for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1))
        ]
        bounds = []
        for weights in (np.minimum(wide(self.weights), 0), np.maximum(wide(self.weights), 0)):
            # A tap reaches a rectangle: its corners are marked, and sums along both axes fill it, whatever its size.
            # Counted in float64, which holds sums of integers of 8 bits exactly.
            corners = sum(sign * np.bincount(place, weights, prod(shape)) for sign, place in places)
            filled = np.asarray(corners).astype(weights.dtype).reshape(shape).cumsum(1).cumsum(2)
            bounds.append(filled[:, :height, :width].reshape(-1))
        return bounds[0], bounds[1]

    def check_sizes(self, where: str) -> None:
        """Raise InputError for a size beyond the limits; looks at no array."""
        check_shape(self.in_shape, f"{where}: in_shape")
        if not is_whole(self.out_channels, 1, MAX_WIDTH):
            raise InputError(f"{where}: out_channels = {self.out_channels!r} is outside 1..{MAX_WIDTH}")
        if not is_whole(self.stride, 1, MAX_WIDTH) or not is_whole(self.padding, 0, MAX_WIDTH):
            raise InputError(f"{where}: stride = {self.stride!r} or padding = {self.padding!r} is not a whole number")
        padded = tuple(size + 2 * self.padding for size in self.in_shape[1:])
        kernel = self.kernel
        if not isinstance(kernel, tuple) or len(kernel) != 2 or not all(map(is_whole, kernel, (1, 1), padded)):
            raise InputError(f"{where}: kernel {kernel!r} does not fit a picture of {padded} (padding included)")
        if self.padding >= max(kernel):
            raise InputError(f"{where}: padding {self.padding} is not smaller than the kernel {kernel}")
        check_shape(self.out_shape, f"{where}: out_shape")
        # Its matrix is made place by place of the kernel, with a table of targets of one axis each.
        reach = max(size * taps for size, taps in zip(self.out_shape[1:], kernel, strict=True))
        if max(reach, self.out_channels * prod(kernel)) > MAX_REACH:
            raise InputError(f"{where}: kernel {kernel!r} to {self.out_shape!r} is larger than any that can be bounded")

    def validate(self, where: str, weight_bits: int | None) -> None:
        """Raise InputError naming the first field that is out of its range."""
        self.check_sizes(where)
        bounds = {
            "in_channel": self.in_shape[0],
            "out_channel": self.out_channels,
            "ky": self.kernel[0],
            "kx": self.kernel[1],
        }
        check_array(self.weights, weight_dtype(weight_bits), self.weights.size, f"{where}: weights")
        key = np.zeros(self.n_weights, np.int64)
        for name, bound in bounds.items():
            column = getattr(self, name)
            check_array(column, np.int32, self.n_weights, f"{where}: {name}")
            if column.size and (column.min() < 0 or column.max() >= bound):
                raise InputError(f"{where}: a tap's {name} is outside 0..{bound - 1}")
            key = key * bound + column
        if np.any(np.diff(key) <= 0):
            raise InputError(f"{where}: taps are not strictly increasing by (in_channel, out_channel, ky, kx)")
        if self.n_operations > MAX_SYNAPSES:
            raise InputError(
                f"{where}: {self.n_weights} taps are {self.n_operations} connections, the limit is {MAX_SYNAPSES}"
            )
        check_weights(self.weights, weight_bits, where)


Connections = Synapses | Convolution


@dataclass(frozen=True)
class SumPool:
    """Events of a (C, H, W) source summed over ``size`` x ``size`` windows; rows and columns left over are dropped."""

    shape: Shape
    size: int

    def __post_init__(self) -> None:
        plain_fields(self, "shape", "size")

    @property
    def n_in(self) -> int:
        return prod(self.shape)

    @property
    def out_shape(self) -> Shape:
        return self.shape[0], self.shape[1] // self.size, self.shape[2] // self.size

    @property
    def n_out(self) -> int:
        return prod(self.out_shape)

    def validate(self, where: str) -> None:
        """Raise InputError unless at least one window fits."""
        check_shape(self.shape, f"{where}: pool shape")
        if not is_whole(self.size, 1, min(self.shape[1:])):
            raise InputError(f"{where}: pool size {self.size!r} is outside 1..{min(self.shape[1:])}")


@dataclass(frozen=True, eq=False)
class Projection:
    """Connections from a source population to a layer.

    source : index of the source layer; INPUT (-1) for the network's input, the layer's own index for a recurrent
        projection, which carries the spikes of the timestep before. PREVIOUS and OWN stand for an index until the
        layer is part of a network.
    connections : :class:`Synapses` or :class:`Convolution`.
    pool : sums the source's events over windows before the connections.
    fixed : part of the architecture, not learned (residual identities): counted in no density.
    """

    source: int
    connections: Connections
    pool: SumPool | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        plain_fields(self, "source", "fixed")

    @classmethod
    def identity(
        cls, source: int, shape: Shape, weight: float = 1, stride: int = 1, dtype: npt.DTypeLike = np.int8
    ) -> Projection:
        """A residual connection: every channel to itself with one weight, of a source of ``shape``."""
        kernel = np.diag(np.full(shape[0], weight))[:, :, None, None]
        return cls(source, Convolution.from_dense(kernel, shape, stride, dtype=dtype), fixed=True)

    @property
    def n_sources(self) -> int:
        """Neurons of the source population."""
        return self.connections.n_in if self.pool is None else self.pool.n_in

    @property
    def source_shape(self) -> Shape | None:
        """(C, H, W) that the source must have, None if any will do."""
        if self.pool is not None:
            return self.pool.shape
        return self.connections.in_shape if isinstance(self.connections, Convolution) else None

    def sum_range(self, source_max: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Bounds of the weighted sum for sources of 0..source_max each, two int64 or float64 (n_out,)."""
        factor = source_max * (1 if self.pool is None else self.pool.size**2)
        low, high = self.connections.sum_range()
        return low * factor, high * factor

    def validate(self, where: str, weight_bits: int | None) -> None:
        """Raise InputError naming the first field that is out of its range."""
        if self.pool is not None:
            self.pool.validate(where)
        self.connections.validate(where, weight_bits)
        if self.pool is not None:
            needed = self.connections.in_shape if isinstance(self.connections, Convolution) else None
            if self.pool.n_out != self.connections.n_in or needed not in (None, self.pool.out_shape):
                raise InputError(
                    f"{where}: the pool gives {self.pool.out_shape}, the connections take "
                    f"{self.connections.n_in if needed is None else needed}"
                )
