"""The network in integer units: the golden model's arithmetic in torch, with straight-through gradients.

Every value is a whole number held in float32 while all of them stay below 2^24 in magnitude (2^16 with leak 'multiply',
whose product has 8 bits more), else in float64. The spikes and membranes equal :func:`codesign.contract.golden.run`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codesign.basics.errors import InputError
from codesign.config import MAX_TRAINED_SHIFT, FreezeConfig
from codesign.contract.network import (
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    SumPool,
    Synapses,
    signed_width,
)
from codesign.contract.network import Projection as FrozenProjection
from codesign.contract.scaling import (
    LayerScale,
    Scale,
    layer_scale,
    leak_bits,
    nearest_multipliers,
    nearest_shifts,
    plain,
    scale_of,
)
from codesign.train.architecture import LayerPlan, ProjectionPlan
from codesign.train.lif import Neuron, lif, recurrent_lif
from codesign.train.model import (
    Activity,
    Layer,
    Output,
    SpikingNetwork,
    activity,
    neurons_last,
    output_of,
    over_time,
    shaped,
    weighted_sums,
)
from codesign.train.products import Connections

CALIBRATION_MARGIN = 1.5


class _RoundThrough(torch.autograd.Function):
    """round() with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def round_through(x: Tensor) -> Tensor:
    return _RoundThrough.apply(x)  # type: ignore[return-value]


def snapped_leak(layer: Layer) -> tuple[int | np.ndarray, int | np.ndarray]:
    """Shift and multiplier of the leak that hardware has nearest to a layer's decay; arrays (G,) where learnt.

    Leak 'shift': the k in 1..12 whose 1 - 2^-k is nearest. 'multiply': the nearest m / 256, m below 256.
    """
    neuron = layer.neuron
    if layer.leak is None:
        assert isinstance(neuron.leak_shift, int) and isinstance(neuron.leak_multiplier, int)
        return neuron.leak_shift, neuron.leak_multiplier
    decay = torch.sigmoid(layer.leak.detach().double()).cpu().numpy()
    if neuron.leak_kind == "shift":
        return nearest_shifts(decay, MAX_TRAINED_SHIFT), 0
    return 8, nearest_multipliers(decay, 8, 255)


def folded(layer: Layer) -> tuple[dict[str, Tensor], Tensor]:
    """Weights by role and bias (shape[0],) with the batch normalisation multiplied in (running statistics)."""
    weights: dict[str, Tensor] = {}
    bias = torch.zeros(layer.plan.shape[0]) if layer.bias is None else layer.bias.detach().cpu().clone()
    bias = bias.double()
    for projection in layer.projections:
        if projection.weight is None:
            continue
        weight = projection.weight.detach().cpu().double()
        norm = projection.norm
        if norm is not None:
            assert norm.running_mean is not None and norm.running_var is not None
            mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
            factor = norm.weight.detach().cpu().double() / torch.sqrt(variance + norm.eps)
            weight = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
            bias = bias + norm.bias.detach().cpu().double() - mean * factor
        weights[projection.plan.role] = weight.float()
    return weights, bias.float()


class QuantisedProjection(nn.Module):
    """Float weights at fixed connections that are rounded to integers in every forward pass.

    gain : float current per unit of the source and of the float weight: the input's step, the factor of an average.
    """

    def __init__(self, plan: ProjectionPlan, weight: Tensor | None, gain: float) -> None:
        super().__init__()
        # Hardware sums over a pooling window; an average's factor is in the gain.
        self.plan, self.gain = replace(plan, average=False), gain
        self.weight = None if weight is None else nn.Parameter(weight)
        self.register_buffer("mask", None if weight is None else weight != 0)
        self._known: Connections | None = None

    @property
    def connections(self) -> Connections | None:
        """Of a convolution."""
        mask = self.get_buffer("mask")
        if mask.dim() == 4:
            self._known = Connections.of(mask, self._known)
        return self._known

    def integer_weight(self, scale: LayerScale, dtype: torch.dtype) -> Tensor:
        """Whole numbers in +-limit, zero where there is no connection; of the identity, (channels, 1, 1, 1)."""
        if self.weight is None:
            return torch.from_numpy(np.clip(np.round(self.gain / scale.step), 1, scale.limit)).to(dtype)
        step = torch.from_numpy(scale.step).to(self.weight.device).reshape(-1, *[1] * (self.weight.dim() - 1))
        scaled = (self.weight.double() * (self.gain / step)).clamp(-scale.limit, scale.limit)
        return round_through(scaled).to(dtype) * self.get_buffer("mask").to(dtype)


class QuantisedLayer(nn.Module):
    """A population in integer units."""

    def __init__(self, layer: Layer, index: int, config: FreezeConfig, input_max: int) -> None:
        super().__init__()
        self.plan: LayerPlan = layer.plan
        weights, bias = folded(layer)
        self.projections: list[QuantisedProjection] = []
        for plan in self.plan.projections:
            gain = (1.0 / input_max if plan.source < 0 else 1.0) / (plan.pool**2 if plan.average else 1)
            projection = QuantisedProjection(plan, weights.get(plan.role), gain)
            self.add_module(plan.role, projection)
            self.projections.append(projection)
        self.bias = nn.Parameter(bias, requires_grad=layer.bias is not None or self.plan.norm)
        shift, multiplier = snapped_leak(layer)
        self.scale = layer_scale(
            self._groups(scale_of(config.scale, silent=not layer.neuron.spiking)),
            config.weight_bits,
            leak_bits(layer.neuron.leak_kind, shift, multiplier),
            config.fraction_bits,
            f"layer {index}",
            identity=1.0 if any(plan.kind == "identity" for plan in self.plan.projections) else 0.0,
        )
        self.leak = Leak(layer.neuron.leak_kind, plain(shift), plain(multiplier))
        self.neuron: Neuron = replace(
            layer.neuron,
            leak_shift=self._by_neuron(self.leak.shift),
            leak_multiplier=self._by_neuron(self.leak.multiplier),
            threshold=self._by_neuron(plain(self.scale.threshold)) if layer.neuron.spiking else math.inf,
            unit=self._by_neuron(plain(self.scale.unit)),
            integer=True,
        )

    def _groups(self, kind: Scale) -> list[np.ndarray]:
        """Active weights that share a scale, in float current per unit of their source."""
        parts = []
        for projection in self.projections:
            if projection.weight is not None:
                weight = projection.weight.detach().double() * projection.gain
                parts.append([row[row != 0].numpy() for row in weight.flatten(1)])
            else:
                parts.append([np.array([projection.gain])] * self.plan.shape[0])
        rows = [np.concatenate(row) for row in zip(*parts, strict=True)]
        return rows if kind == "neuron" else [np.concatenate(rows)]

    def _by_neuron(self, value: Any) -> Any:
        """A number as it is; one per channel as a tensor with one per neuron, channels last."""
        if not isinstance(value, np.ndarray):
            return value
        return torch.from_numpy(value).repeat(self.plan.size // value.size)

    def integer_bias(self, dtype: torch.dtype) -> Tensor:
        """Whole numbers in the units of the membrane, (shape[0],)."""
        unit = torch.from_numpy(self.scale.unit).to(self.bias.device)
        return round_through(self.bias.double() * unit).to(dtype)

    def run(
        self, signals: dict[int, Tensor], constant: bool, timesteps: int, dtype: torch.dtype, input_max: int
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Spikes, potentials and stored membranes (T, B, n), channels last; None where ``dtype`` is not exact.

        Whole numbers are exact in float32 up to 2^24, and up to 2^52 is asked of float64. A leak that multiplies
        needs 8 bits more. Convolutions on a GPU may be computed by transforms that round; there the sums are kept
        short and rounded back, or else computed in float64.
        """
        limit = 2.0**24 if dtype == torch.float32 else 2.0**52
        scale = 2.0**self.scale.fraction_bits
        total: Tensor | None = None
        recurrent: Tensor | None = None
        bound = recurrent_bound = 0.0
        for projection in self.projections:
            plan = projection.plan
            weight = projection.integer_weight(self.scale, dtype).to(self.bias.device)
            fan_in = float(weight.detach().abs().flatten(1).sum(1).max()) if projection.weight is not None else 0.0
            if projection.weight is None:
                fan_in = float(weight.abs().max())
            if plan.role == "recurrent":
                recurrent, recurrent_bound = weight * scale, fan_in * scale
                continue
            # No partial sum exceeds the sum of magnitudes, so that any order of adding is exact.
            bound += fan_in * plan.pool**2 * (input_max if plan.source < 0 else 1)
            if bound >= (limit if weight.device.type == "cpu" or dtype == torch.float64 else 2.0**18):
                return None
            once = constant and plan.source < 0
            signal = signals[plan.source]
            if projection.weight is None:
                sums = weighted_sums(plan, over_time(signal, once), None) * weight.reshape(-1, 1, 1)
            else:
                sums = weighted_sums(
                    plan, over_time(signal, once), weight, projection.connections, every_gradient=False
                )
                sums = sums if sums.device.type == "cpu" else round_through(sums)
            sums = neurons_last(sums)
            if not once:
                sums = sums.unflatten(0, signal.shape[:2])
            total = sums if total is None else total + sums
        assert total is not None
        current = total * scale + self.integer_bias(dtype).repeat(self.plan.size // len(self.bias))
        if recurrent is None:
            spikes, potentials, stored = lif(current, timesteps, self.neuron)
        else:
            spikes, potentials, stored = recurrent_lif(current, recurrent, timesteps, self.neuron)
        largest = max(float(current.detach().abs().max()) + recurrent_bound, float(potentials.detach().abs().max()))
        return (
            None
            if largest >= (limit / 256 if self.leak.kind == "multiply" else limit)
            else (
                spikes,
                potentials,
                stored,
            )
        )


class QuantisedNetwork(nn.Module):
    """A trained network with fixed connections, the nonzero weights, whose forward pass is that of the hardware.

    Weights and biases stay float parameters and are rounded in every forward pass; batch normalisation is folded into
    them, learnt leaks are snapped. Inputs are the integers of coding 'current', or events.
    """

    def __init__(self, trained: SpikingNetwork, config: FreezeConfig, coding: InputCoding) -> None:
        super().__init__()
        self.coding, self.network_config, self.in_shape = coding, trained.network, trained.in_shape
        self.plans = trained.plans
        self.input_max = coding.largest
        self.layers = nn.ModuleList(
            QuantisedLayer(layer, index, config, self.input_max) for index, layer in enumerate(trained.populations)
        )
        self.dtype = torch.float32

    @property
    def populations(self) -> list[QuantisedLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def scales(self) -> list[LayerScale]:
        return [layer.scale for layer in self.populations]

    @property
    def neurons(self) -> list[Neuron]:
        return [layer.neuron for layer in self.populations]

    @torch.no_grad()
    def rounded_to_zero(self) -> list[int]:
        """Connections of each layer whose integer weight is 0, so that no synapse is left of them."""
        lost = []
        for layer in self.populations:
            learnt = [projection for projection in layer.projections if projection.weight is not None]
            zeros = [projection.integer_weight(layer.scale, torch.float64) == 0 for projection in learnt]
            masks = [projection.get_buffer("mask") for projection in learnt]
            lost.append(sum(int((mask & zero).sum()) for mask, zero in zip(masks, zeros, strict=True)))
        return lost

    def set_membrane_widths(self, widths: Sequence[int | None]) -> None:
        """Saturate stored membranes to these widths; None leaves a layer unsaturated."""
        for layer, width in zip(self.populations, widths, strict=True):
            layer.neuron = replace(
                layer.neuron,
                membrane_min=None if width is None else -float(1 << (width - 1)),
                membrane_max=None if width is None else float((1 << (width - 1)) - 1),
            )

    def forward(self, inputs: Tensor) -> Output:
        """Scores and potentials in float units, as :meth:`SpikingNetwork.forward`."""
        potentials, spikes, _ = self.run(inputs)
        unit = torch.from_numpy(self.scales[-1].unit).to(potentials[-1])
        counted = partial(self._activity, inputs, spikes)
        return output_of(self.network_config.readout, spikes, potentials[-1] / unit, counted)

    def run(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Potentials u, spikes and stored membranes v of every layer, each (T, B, *shape)."""
        result = self._run(inputs.to(self.dtype))
        if result is None and self.dtype == torch.float32:
            self.dtype = torch.float64
            result = self._run(inputs.to(self.dtype))
        if result is None:
            raise InputError("a membrane exceeds 2^52: the network's integers are too large to be represented")
        return result

    def _run(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]] | None:
        constant = inputs.dim() == 2
        signals = {-1: inputs.unflatten(-1, self.in_shape)}
        potentials, spikes, stored = [], [], []
        for index, layer in enumerate(self.populations):
            result = layer.run(signals, constant, self.network_config.timesteps, self.dtype, self.input_max)
            if result is None:
                return None
            s, u, v = (shaped(x, layer.plan.shape) for x in result)
            signals[index] = s
            potentials.append(u)
            spikes.append(s)
            stored.append(v)
        return potentials, spikes, stored

    def _activity(self, inputs: Tensor, spikes: Sequence[Tensor]) -> Activity:
        """Activity of a batch that ran through :meth:`forward`; synapses are nonzero integer weights."""
        weights = [
            [
                None if projection.weight is None else projection.integer_weight(layer.scale, torch.float64)
                for projection in layer.projections
            ]
            for layer in self.populations
        ]
        return activity(self.plans, self.in_shape, weights, inputs, spikes)

    @torch.no_grad()
    def membrane_widths(self, batches: Iterable[tuple[Tensor, Tensor]], margin: float) -> list[int]:
        """Width per layer that holds every membrane of these samples, ``margin`` times over (at least 4 bits)."""
        before = self.neurons
        self.set_membrane_widths([None] * len(before))
        low, high = [0.0] * len(before), [0.0] * len(before)
        for inputs, _ in batches:
            for index, v in enumerate(self.run(inputs)[2]):
                low[index] = min(low[index], float(v.min()))
                high[index] = max(high[index], float(v.max()))
        for layer, neuron in zip(self.populations, before, strict=True):
            layer.neuron = neuron
        return [
            max(4, signed_width(math.floor(a * margin), math.ceil(b * margin))) for a, b in zip(low, high, strict=True)
        ]

    @torch.no_grad()
    def export(self, widths: Sequence[int]) -> FrozenNetwork:
        """The frozen network with these membrane widths (the last layer's is exact with a membrane readout)."""
        config = self.network_config
        layers = []
        for index, layer in enumerate(self.populations):
            bias = layer.integer_bias(torch.float64).cpu().numpy().astype(np.int64)
            frozen = FrozenLayer.from_projections(
                [self._projection(layer, projection) for projection in layer.projections],
                bias=bias,
                threshold=plain(layer.scale.threshold),
                leak=layer.leak,
                reset=layer.neuron.reset,
                compare=config.compare,
                fraction_bits=layer.scale.fraction_bits,
                membrane_width=widths[index],
            )
            if not layer.neuron.spiking:
                bounds = frozen.unsaturated_range(config.timesteps, self.input_max if index == 0 else 1)
                frozen = replace(frozen, membrane_width=max(4, signed_width(*bounds)))
            layers.append(frozen)
        network = FrozenNetwork(tuple(layers), config.timesteps, self.coding, config.readout)
        network.validate()
        return network

    @staticmethod
    def _projection(layer: QuantisedLayer, projection: QuantisedProjection) -> FrozenProjection:
        plan = projection.plan
        weight = projection.integer_weight(layer.scale, torch.float64).cpu().numpy().astype(np.int64)
        pool = SumPool(_image(plan.source_shape), plan.pool) if plan.pool > 1 else None
        if plan.kind == "dense":
            return FrozenProjection(plan.source, Synapses.from_dense(weight.T), pool)
        if plan.kind == "identity":
            weight = np.diag(np.broadcast_to(weight, (plan.in_shape[0],)))[:, :, None, None]
        taps = Convolution.from_dense(weight, _image(plan.in_shape), plan.stride, plan.padding)
        return FrozenProjection(plan.source, taps, pool, fixed=plan.kind == "identity")


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width
