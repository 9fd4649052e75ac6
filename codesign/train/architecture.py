"""From a network configuration to the populations of LIF neurons and the projections between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from codesign.basics.errors import InputError
from codesign.config import ConvLayer, DenseLayer, NetworkConfig, PoolLayer, ResidualLayer
from codesign.contract.network import MAX_WIDTH

Shape = tuple[int, ...]
# Weights of a network, absent ones too: in float32 4 GiB, and with gradients and Adam's averages four times as much.
MAX_WEIGHTS = 1 << 30


@dataclass(frozen=True)
class ProjectionPlan:
    """Connections from one source to a layer.

    role : 'input', 'shortcut' (of a residual block) or 'recurrent'.
    source : layer index, -1 for the network's input; the layer's own index for 'recurrent'.
    kind : 'dense', 'conv' or 'identity' (weight 1 from each neuron of an equal shape).
    source_shape, in_shape : shape of the source, (n,) or (channels, height, width), before and after pooling.
    pool, average : side of the pooling window, 1 for none; whether the sum is divided by the window's size.
    kernel, stride, padding : of a convolution.
    norm : batch normalisation of the weighted sums.
    """

    role: Literal["input", "shortcut", "recurrent"]
    source: int
    kind: Literal["dense", "conv", "identity"]
    source_shape: Shape
    in_shape: Shape
    pool: int = 1
    average: bool = False
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    norm: bool = False

    def weight_shape(self, out_shape: Shape) -> Shape:
        """(out, in) or (out channels, in channels, kernel, kernel)."""
        if self.kind == "dense":
            return (math.prod(out_shape), math.prod(self.in_shape))
        return (out_shape[0], self.in_shape[0], self.kernel, self.kernel)


@dataclass(frozen=True)
class LayerPlan:
    """A population of LIF neurons: shape (n,) or (channels, height, width), and what projects to it."""

    shape: Shape
    projections: tuple[ProjectionPlan, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def norm(self) -> bool:
        """True if a batch normalisation already gives the layer a bias."""
        return any(projection.norm for projection in self.projections)


@dataclass(frozen=True)
class _Source:
    """What the next layer reads: a layer's neurons (-1: the input), through the pooling in between."""

    index: int
    shape: Shape
    pool: int = 1
    average: bool = False

    @property
    def pooled(self) -> Shape:
        return self.shape if self.pool == 1 else (self.shape[0], *(side // self.pool for side in self.shape[1:]))

    def projection(
        self,
        role: Literal["input", "shortcut"],
        kind: Literal["dense", "conv", "identity"],
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        norm: bool = False,
    ) -> ProjectionPlan:
        return ProjectionPlan(
            role, self.index, kind, self.shape, self.pooled, self.pool, self.average, kernel, stride, padding, norm
        )


def plan_layers(network: NetworkConfig, in_shape: Shape, n_classes: int) -> tuple[LayerPlan, ...]:
    """The layers of ``network`` on an input of shape (n,) or (channels, height, width), classes last.

    Raises InputError, naming the layer, for a convolution or pooling that does not suit its input, for more neurons
    than a layer of a frozen network may have (MAX_WIDTH), and for more than MAX_WEIGHTS weights.
    """
    if network.elsewhere is not None:
        raise InputError("network.elsewhere: this network comes from elsewhere and cannot be trained here")
    layers: list[LayerPlan] = []
    named: list[str] = []
    source = _Source(-1, tuple(in_shape))
    for number, config in enumerate(network.layer_configs):
        where = f"network.hidden.{number}" if network.layers is None else f"network.layers.{number} ({config.kind})"
        match config:
            case DenseLayer():
                shape = (config.width,)
                projections = [source.projection("input", "dense", norm=config.norm)]
                if config.recurrent:
                    projections.append(ProjectionPlan("recurrent", len(layers), "dense", shape, shape))
                layers.append(LayerPlan(shape, tuple(projections)))
            case ConvLayer():
                _need_image(source, where)
                padding = (config.kernel - 1) // 2 if config.padding is None else config.padding
                if padding >= config.kernel:
                    raise InputError(f"{where}: padding {padding} is not smaller than the kernel, {config.kernel}")
                layers.append(_conv(source, config.channels, config.kernel, config.stride, padding, config.norm, where))
            case PoolLayer():
                _need_image(source, where)
                if source.pool > 1:
                    raise InputError(
                        f"{where}: follows another pooling; write one with size {source.pool * config.size}"
                    )
                if config.size > min(source.shape[1:]):
                    raise InputError(f"{where}: windows of {config.size} x {config.size} on {_sides(source.shape)}")
                source = _Source(source.index, source.shape, config.size, config.mode == "average")
                continue
            case ResidualLayer():
                _need_image(source, where)
                first = _conv(source, config.channels, 3, config.stride, 1, config.norm, where)
                between = _Source(len(layers), first.shape)
                second = _conv(between, config.channels, 3, 1, 1, config.norm, where)
                if second.shape == source.pooled:
                    shortcut = source.projection("shortcut", "identity")
                else:
                    shortcut = source.projection("shortcut", "conv", stride=config.stride, norm=config.norm)
                layers += [first, LayerPlan(second.shape, (*second.projections, shortcut))]
        named += [where] * (len(layers) - len(named))
        source = _Source(len(layers) - 1, layers[-1].shape)
    layers.append(LayerPlan((n_classes,), (source.projection("input", "dense"),)))
    _check_sizes(layers, [*named, "the classes' layer"])
    return tuple(layers)


def least_samples(plans: Sequence[LayerPlan], timesteps: int, *, constant: bool) -> int:
    """Samples that a batch must have: 2 where a batch normalisation has one value of each, which has no spread, else 1.

    constant : the network's input is the same in all timesteps and its sums are taken once.
    """
    for plan in plans:
        for projection in plan.projections:
            steps = 1 if constant and projection.source < 0 else timesteps
            if projection.norm and steps * math.prod(plan.shape[1:]) == 1:
                return 2
    return 1


def _check_sizes(layers: list[LayerPlan], named: list[str]) -> None:
    """InputError for what could not be frozen, and for what no memory would hold."""
    total = 0
    for layer, where in zip(layers, named, strict=True):
        if layer.size > MAX_WIDTH:
            sizes = " x ".join(map(str, layer.shape))
            raise InputError(f"{where}: {sizes} = {layer.size} neurons, at most {MAX_WIDTH} can be frozen")
        for projection in layer.projections:
            total += 0 if projection.kind == "identity" else math.prod(projection.weight_shape(layer.shape))
        if total > MAX_WEIGHTS:
            raise InputError(f"{where}: {total} weights up to here, absent ones too; at most {MAX_WEIGHTS} are trained")


def _conv(source: _Source, channels: int, kernel: int, stride: int, padding: int, norm: bool, where: str) -> LayerPlan:
    sides = source.pooled[1:]
    if kernel > min(sides) + 2 * padding:
        raise InputError(
            f"{where}: a {kernel} x {kernel} kernel with padding {padding} on {_sides(source.pooled)}; "
            "take a smaller kernel, more padding or less pooling"
        )
    shape = (channels, *((side + 2 * padding - kernel) // stride + 1 for side in sides))
    plan = source.projection("input", "conv", kernel=kernel, stride=stride, padding=padding, norm=norm)
    return LayerPlan(shape, (plan,))


def _need_image(source: _Source, where: str) -> None:
    if len(source.shape) != 3:
        what = "the input has" if source.index < 0 else f"layer {source.index} has"
        raise InputError(
            f"{where}: needs an image (channels, height, width), but {what} {source.shape[0]} values in a row"
        )


def _sides(shape: Shape) -> str:
    return " x ".join(str(side) for side in shape[1:])
