"""Linear nodes between populations as projections: convolutions and pools as they are where hardware has them.

A path from one population to another is a chain of stages, which become one projection: a sum pool, then connections.
What has no such form, a pool behind weights or steps that differ by axis, is multiplied out into single synapses.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.golden import convolution_matrix, pool_matrix, projection_matrices
from codesign.contract.network import Connections, Convolution, Projection, SumPool, Synapses
from codesign.contract.network.limits import MAX_WIDTH
from codesign.interchange.nodes import Node, Shape, same_neurons, squeezed

Float = npt.NDArray[np.float64]
Picture = tuple[int, int, int]
# Synapses that a path may be multiplied out into.
MAX_UNROLLED = 1 << 26
# Taps of a kernel with those that are not there, which dilation and groups leave out.
MAX_KERNEL = 1 << 24


@dataclass(frozen=True)
class Gain:
    """Every source times a number of its own, float64 (n,)."""

    factor: Float


@dataclass(frozen=True)
class Unrolled:
    """Connections that no other form has: CSR float64 (n_in, n_out)."""

    matrix: Any


Stage = SumPool | Synapses | Convolution | Gain | Unrolled


@dataclass(frozen=True)
class Operator:
    """What a linear node does to its input: stages in order, a constant added (n_out,), and the shape of the result."""

    stages: tuple[Stage, ...]
    shape: Shape
    bias: Float | None = None
    learned: bool = False


def operator(node: Node, shape: Shape) -> Operator:
    """What ``node`` does to a signal of ``shape``. Raises InputError in one line if they do not fit."""
    make = {
        "Linear": _linear,
        "Affine": _linear,
        "Scale": _scale,
        "Conv1d": _convolution,
        "Conv2d": _convolution,
        "SumPool2d": _pool,
        "AvgPool2d": _pool,
        "Flatten": _flatten,
    }.get(node.type, _passed)
    return make(node, shape)


def _passed(node: Node, shape: Shape) -> Operator:
    """An Input or Output of a graph within a graph."""
    check_size(node, "shape", tuple(int(size) for size in node.array("shape").reshape(-1)), shape)
    return Operator((), shape)


def check_size(node: Node, what: str, stated: Shape, found: Shape) -> None:
    """Raise InputError unless a shape that a node states is of the neurons that it has, in their order."""
    if not same_neurons(stated, found):
        raise InputError(f"{node.name}: {what} is {stated}, the graph gives it {found}")


def _linear(node: Node, shape: Shape) -> Operator:
    weight = node.array("weight")
    if weight.ndim != 2 or 0 in weight.shape:
        raise InputError(f"{node.name}: weight has the shape {weight.shape}, expected (outputs, inputs)")
    n_out, n_in = weight.shape
    if prod(shape) != n_in:
        hint = "; is it transposed?" if prod(shape) == n_out else ""
        raise InputError(f"{node.name}: weight {weight.shape} takes {n_in} inputs, the graph gives it {shape}{hint}")
    _check_width(node, n_out)
    return Operator((Synapses.from_dense(weight.T, np.float64),), (n_out,), _bias(node, n_out), learned=True)


def _scale(node: Node, shape: Shape) -> Operator:
    factor = node.array("scale")
    if factor.size != 1 and not same_neurons(factor.shape, shape):
        raise InputError(f"{node.name}: scale has the shape {factor.shape}, the graph gives it {shape}")
    return Operator((Gain(np.broadcast_to(factor.reshape(-1), (prod(shape),)).copy()),), shape, learned=True)


def _flatten(node: Node, shape: Shape) -> Operator:
    # The order of neurons is that of the picture, whatever axes are joined.
    return Operator((), (prod(shape),))


def _pool(node: Node, shape: Shape) -> Operator:
    picture = _picture(node, shape)
    size, stride, padding = (node.whole(name, 2) for name in ("kernel_size", "stride", "padding"))
    for name, values, low in (("kernel_size", size, 1), ("stride", stride, 1), ("padding", padding, 0)):
        if min(values) < low:
            raise InputError(f"{node.name}: {name} {values} is below {low}")
    if max(padding) > 0:
        raise UnsupportedError(f"{node.name}: a pool with padding {padding}")
    out = _out_shape(node, picture[0], picture[1:], size, stride, padding, (1, 1))
    regular = size == stride and size[0] == size[1]
    if not regular and prod(out) * prod(size) > MAX_UNROLLED:
        raise UnsupportedError(f"{node.name}: a pool of {size} multiplied out is more than {MAX_UNROLLED} synapses")
    stages: list[Stage] = [SumPool(picture, size[0])] if regular else [Unrolled(_window_matrix(picture, size, stride))]
    if regular and size == (1, 1):
        stages = []
    if node.type == "AvgPool2d":
        stages.append(Gain(np.full(prod(out), 1.0 / prod(size))))
    return Operator(tuple(stages), out)


def _window_matrix(picture: Picture, size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """CSR (n_in, n_out): 1 where a source lies in the window of a target."""
    channels, height, width = picture
    rows, columns = (
        (np.arange((n - k) // s + 1)[:, None] * s + np.arange(k), n) for n, k, s in zip((height, width), size, stride)
    )

    def axis(windows: npt.NDArray[np.int64], n: int) -> Any:
        target = np.repeat(np.arange(len(windows)), windows.shape[1])
        return sparse.csr_matrix((np.ones(target.size), (windows.ravel(), target)), shape=(n, len(windows)))

    return sparse.csr_matrix(sparse.kron(sparse.eye(channels), sparse.kron(axis(*rows), axis(*columns))))


def _convolution(node: Node, shape: Shape) -> Operator:
    """A Conv2d, or a Conv1d as one of pictures of height 1.

    Groups and dilation become taps that are not there, padding that differs by axis zeros around the kernel.
    """
    plane = node.type == "Conv2d"
    weight = node.array("weight")
    if weight.ndim != (4 if plane else 3) or 0 in weight.shape:
        axes = "(out, in, height, width)" if plane else "(out, in, length)"
        raise InputError(f"{node.name}: weight has the shape {weight.shape}, expected {axes}")
    picture = _picture(node, shape) if plane else _line(node, shape)
    count = 2 if plane else 1
    stride, dilation = (node.whole(name, count) for name in ("stride", "dilation"))
    (groups,) = node.whole("groups", 1)
    if min(stride) < 1 or min(dilation) < 1 or groups < 1:
        raise InputError(f"{node.name}: stride {stride}, dilation {dilation} or groups {groups} is below 1")
    if "input_shape" in node.parameters:
        stated, found = node.whole("input_shape", count), picture[-count:]
        if stated != found:
            raise InputError(f"{node.name}: input_shape is {stated}, the graph gives it {found}")
    if weight.shape[1] * groups != picture[0] or weight.shape[0] % groups:
        raise InputError(
            f"{node.name}: weight {weight.shape} in {groups} groups takes {weight.shape[1] * groups} channels, the "
            f"graph gives it {shape}"
        )
    if not plane:
        weight, stride, dilation = weight[:, :, None], (stride[0], stride[0]), (1, dilation[0])
    padding = _padding(node, plane, weight.shape[2:], stride, dilation)
    if min(padding) < 0:
        raise InputError(f"{node.name}: padding {padding} is below 0")
    span = tuple((size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilation))
    out = _out_shape(node, weight.shape[0], picture[1:], weight.shape[2:], stride, padding, dilation)
    most = max(padding)
    around = tuple(most - found for found in padding)
    if weight.shape[0] * picture[0] * prod(s + 2 * a for s, a in zip(span, around)) > MAX_KERNEL:
        raise InputError(f"{node.name}: a kernel of {weight.shape} with padding {padding} is too large")
    kernel = np.zeros((weight.shape[0], picture[0], *(s + 2 * a for s, a in zip(span, around))))
    per_out, per_in = weight.shape[0] // groups, weight.shape[1]
    for group in range(groups):
        outs, ins = (slice(group * n, (group + 1) * n) for n in (per_out, per_in))
        kernel[
            outs, ins,
            around[0] : around[0] + span[0] : dilation[0],
            around[1] : around[1] + span[1] : dilation[1],
        ] = weight[outs]  # fmt: skip
    # One row or column comes out with any stride that passes over what is left: the other axis decides.
    steps = {step for step, size in zip(stride, out[1:]) if size > 1} or {max(stride)}
    left = [n + 2 * most - k for n, k in zip(picture[1:], kernel.shape[2:])]
    square = len(steps) == 1 and all(n // min(steps) + 1 == size for n, size in zip(left, out[1:]))
    if square and most < max(kernel.shape[2:]):
        try:
            stage: Stage = Convolution.from_dense(kernel, picture, steps.pop(), most, np.float64)
        except InputError as error:
            raise InputError(f"{node.name}: {error}") from None
    else:
        stage = _strided(node, kernel, picture, stride, most, out)
    if isinstance(stage, Convolution) and stage.n_operations > MAX_UNROLLED:
        raise UnsupportedError(f"{node.name}: {stage.n_operations} connections, the limit is {MAX_UNROLLED}")
    bias = _bias(node, weight.shape[0])
    spread = None if bias is None else np.repeat(bias, out[1] * out[2])
    return Operator((stage,), out, spread, learned=True)


def _strided(
    node: Node, kernel: Float, picture: Picture, stride: tuple[int, ...], padding: int, out: Picture
) -> Unrolled:
    """A convolution of a form that hardware has not, multiplied out: the one of stride 1, of which some rows and
    columns are kept."""
    height, width = (size + 2 * padding - taps + 1 for size, taps in zip(picture[1:], kernel.shape[2:]))
    if np.count_nonzero(kernel) * height * width > MAX_UNROLLED or kernel.shape[0] * height * width > MAX_WIDTH * 16:
        raise UnsupportedError(f"{node.name}: stride {stride} multiplied out is more than {MAX_UNROLLED} synapses")
    whole = convolution_matrix(_unchecked(kernel, picture, padding))
    c, y, x = np.indices(out).reshape(3, -1)
    kept = (c * height + y * stride[0]) * width + x * stride[1]
    return Unrolled(sparse.csr_matrix(whole[:, kept]))


def _unchecked(kernel: Float, picture: Picture, padding: int) -> Convolution:
    by_source = kernel.transpose(1, 0, 2, 3)
    taps = np.nonzero(by_source)
    i, o, ky, kx = (axis.astype(np.int32) for axis in taps)
    shape = (kernel.shape[2], kernel.shape[3])
    return Convolution(picture, kernel.shape[0], shape, 1, padding, o, i, ky, kx, by_source[taps].astype(np.float64))


def _padding(
    node: Node, plane: bool, kernel: Shape, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...]:
    padding = node.parameters["padding"]
    if isinstance(padding, str) and padding == "valid":
        return 0, 0
    if isinstance(padding, str):
        whole = [step * (size - 1) for size, step in zip(kernel, dilation)]
        if max(stride) > 1 or any(total % 2 for total in whole):
            raise UnsupportedError(f"{node.name}: padding 'same' that is not the same on both sides")
        return tuple(total // 2 for total in whole)
    return node.whole("padding", 2) if plane else (0, *node.whole("padding", 1))


def _out_shape(
    node: Node, channels: int, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> Picture:
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation)]
    if min(out) < 1:
        raise InputError(f"{node.name}: a window of {kernel} does not fit a picture of {size}")
    _check_width(node, channels * prod(out))
    return channels, out[0], out[1]


def _check_width(node: Node, n_out: int) -> None:
    if n_out > MAX_WIDTH:
        raise InputError(f"{node.name}: {n_out} neurons, the limit is {MAX_WIDTH}")


def _bias(node: Node, n_out: int) -> Float | None:
    if "bias" not in node.parameters:
        return None
    bias = node.array("bias")
    if bias.shape != (n_out,):
        raise InputError(f"{node.name}: bias has the shape {bias.shape}, expected ({n_out},)")
    return bias if np.any(bias != 0) else None


def _picture(node: Node, shape: Shape) -> Picture:
    found = squeezed(shape)
    if len(found) != 3:
        raise InputError(f"{node.name}: {node.type} takes a picture (channels, height, width), the graph gives {shape}")
    return found[0], found[1], found[2]


def _line(node: Node, shape: Shape) -> Picture:
    if len(shape) == 3 and shape[1] == 1:
        return shape[0], 1, shape[2]
    if len(shape) != 2:
        raise InputError(f"{node.name}: {node.type} takes (channels, length), the graph gives {shape}")
    return shape[0], 1, shape[1]


# Paths ---------------------------------------------------------------------------------------------


def applied(stages: tuple[Stage, ...], vector: Float) -> Float:
    """A constant signal (n_in,) sent through stages."""
    for stage in stages:
        vector = vector * stage.factor if isinstance(stage, Gain) else _matrix(stage).T @ vector
    return vector


def _matrix(stage: Stage) -> Any:
    if isinstance(stage, Unrolled):
        return stage.matrix
    if isinstance(stage, SumPool):
        return pool_matrix(stage).astype(np.float64)
    if isinstance(stage, Gain):
        return sparse.diags(stage.factor).tocsr()
    return projection_matrices(Projection(0, stage), 1)[0]


@dataclass(frozen=True)
class Path:
    """Pool, connections, and whether weights were multiplied out into single synapses."""

    pool: SumPool | None
    connections: Connections
    unrolled: bool
    fixed: bool


def path(stages: tuple[Stage, ...], shape: Shape, gain: Float, learned: bool, where: str) -> Path:
    """The projection that a chain of stages is, from a source of ``shape``, times ``gain`` (n_out,)."""
    rest = list(stages)
    pool = rest.pop(0) if rest and isinstance(rest[0], SumPool) else None
    assert pool is None or isinstance(pool, SumPool)
    n_in = prod(shape) if pool is None else pool.n_out
    before = np.ones(n_in)
    connections: Connections | None = None
    unrolled = False
    for stage in rest:
        if isinstance(stage, Gain):
            if connections is None:
                before = before * stage.factor
            else:
                connections, spread = scaled(connections, stage.factor)
                unrolled |= spread
        elif connections is None and isinstance(stage, Synapses | Convolution):
            connections, unrolled = _scaled_sources(stage, before)
        else:
            first = sparse.diags(before).tocsr() if connections is None else _matrix(connections)
            connections, unrolled = _product(first, _matrix(stage), where), True
    if connections is None:
        connections = _diagonal(before, squeezed(shape) if pool is None else pool.out_shape)
    connections, spread = scaled(connections, gain)
    return Path(pool, connections, unrolled or spread, fixed=not learned)


def _product(first: Any, second: Any, where: str) -> Synapses:
    # An upper bound of the product's entries, before it is made.
    fan_out = np.diff(second.indptr)
    if int((first != 0).astype(np.int64).dot(fan_out).sum()) > MAX_UNROLLED:
        raise UnsupportedError(f"{where}: layers without a neuron between them are more than {MAX_UNROLLED} synapses")
    return from_matrix(first @ second)


def from_matrix(matrix: Any) -> Synapses:
    """Synapses of a CSR float64 (n_in, n_out)."""
    matrix = sparse.csr_matrix(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return Synapses(
        matrix.shape[0],
        matrix.shape[1],
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32),
        matrix.data.astype(np.float64),
    )


def _diagonal(factor: Float, shape: Shape) -> Connections:
    """Every neuron to itself: one tap a channel where a channel has one factor."""
    if len(shape) == 3:
        by_channel = factor.reshape(shape[0], -1)
        if np.all(by_channel == by_channel[:, :1]):
            kernel = np.diag(by_channel[:, 0])[:, :, None, None]
            return Convolution.from_dense(kernel, (shape[0], shape[1], shape[2]), dtype=np.float64)
    return from_matrix(sparse.diags(factor))


def scaled(connections: Connections, gain: Float) -> tuple[Connections, bool]:
    """Connections with the weights into each neuron times ``gain`` (n_out,), and whether they were multiplied out."""
    if isinstance(connections, Synapses):
        return connections.with_weights(connections.weights * gain[connections.targets]), False
    by_channel = gain.reshape(connections.out_channels, -1)
    if np.all(by_channel == by_channel[:, :1]):
        weights = connections.weights * by_channel[connections.out_channel, 0]
        return connections.with_weights(weights), False
    return from_matrix(convolution_matrix(connections) @ sparse.diags(gain)), True


def _scaled_sources(connections: Connections, factor: Float) -> tuple[Connections, bool]:
    """Connections with the weights of each source times ``factor`` (n_in,), and whether they were multiplied out."""
    if isinstance(connections, Synapses):
        return connections.with_weights(connections.weights * factor[connections.sources]), False
    by_channel = factor.reshape(connections.in_shape[0], -1)
    if np.all(by_channel == by_channel[:, :1]):
        return connections.with_weights(connections.weights * by_channel[connections.in_channel, 0]), False
    return from_matrix(sparse.diags(factor) @ convolution_matrix(connections)), True
