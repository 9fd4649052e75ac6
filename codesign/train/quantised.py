"""The network in integer units: the golden model's arithmetic in torch, with straight-through gradients.

Every value is a whole number held in float32 while all of them stay below 2^24 in magnitude (2^16 with leak 'multiply',
whose product has 8 bits more), else in float64. The spikes and membranes equal :func:`codesign.golden.run`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codesign.config import FreezeConfig
from codesign.errors import InputError
from codesign.network import FrozenLayer, FrozenNetwork, InputCoding, signed_width
from codesign.train.lif import Neuron, lif
from codesign.train.model import SpikingNetwork, leak_of, scores

MAX_FRACTION_BITS = 16
CALIBRATION_MARGIN = 1.5
CLIP_STEPS = 64


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


def weight_scale(weights: np.ndarray, limit: int) -> float:
    """Size of one integer step: the clip with the least squared error over the active weights, of 64 tried."""
    magnitudes = np.abs(weights.astype(np.float64))
    largest = float(magnitudes.max(initial=0.0))
    if largest == 0:
        return 1.0
    best, best_error = largest / limit, math.inf
    for step in range(CLIP_STEPS):
        scale = largest * (1 - 0.8 * step / CLIP_STEPS) / limit
        error = float(((magnitudes - scale * np.minimum(np.round(magnitudes / scale), limit)) ** 2).sum())
        if error < best_error:
            best, best_error = scale, error
    return best


@dataclass(frozen=True)
class LayerScale:
    """How a layer's float values become integers.

    step : float weight of one integer step. fraction_bits : F. unit : size of the float threshold 1 in the units of
    the membrane, 2^F / (step * input step). threshold : round(unit). limit : largest weight magnitude.
    """

    step: float
    fraction_bits: int
    unit: float
    threshold: int
    limit: int


def layer_scale(
    weights: np.ndarray, bits: int, input_step: float, leak_bits: int, fraction_bits: int | None, where: str
) -> LayerScale:
    """Scale of a layer; F is the smallest with threshold >= 2^(leak_bits + 3) unless given.

    Raises InputError if no F up to 16 reaches that.
    """
    limit = (1 << (bits - 1)) - 1
    step = weight_scale(weights, limit)
    candidates = range(MAX_FRACTION_BITS + 1) if fraction_bits is None else [fraction_bits]
    for bits_tried in candidates:
        unit = 2.0**bits_tried / (step * input_step)
        if fraction_bits is not None or round(unit) >= 1 << (leak_bits + 3):
            if round(unit) < 1:
                raise InputError(f"{where}: the threshold rounds to 0 with fraction_bits = {bits_tried}; raise it")
            return LayerScale(step, bits_tried, unit, round(unit), limit)
    raise InputError(
        f"{where}: weights up to {step * limit:.3g} times the threshold cannot be represented: the leak would be lost "
        f"even with fraction_bits = {MAX_FRACTION_BITS}"
    )


class QuantisedNetwork(nn.Module):
    """A trained network with fixed connections whose forward pass is that of the hardware.

    Weights and biases stay float parameters and are rounded in every forward pass; inputs are the integers of
    coding 'current', or events.
    """

    def __init__(self, trained: SpikingNetwork, config: FreezeConfig, coding: InputCoding) -> None:
        super().__init__()
        self.shapes, self.coding, self.network_config = trained.shapes, coding, trained.network
        self.weights = nn.ParameterList(nn.Parameter(weight.detach().clone()) for weight in trained.weights)
        self.biases = nn.ParameterList(
            nn.Parameter(bias.detach().clone(), requires_grad=trained.network.bias) for bias in trained.biases
        )
        for index, mask in enumerate(trained.masks):
            self.register_buffer(f"mask{index}", mask.clone())
        leak = leak_of(trained.network)
        leak_bits = leak.shift if leak.kind == "shift" else 0
        if leak.kind == "multiply" and leak.multiplier < 256:
            leak_bits = math.ceil(-math.log2(1 - leak.multiplier / 256))
        self.scales: list[LayerScale] = []
        self.neurons: list[Neuron] = []
        for index, (weight, neuron) in enumerate(zip(trained.weights, trained.neurons, strict=True)):
            input_step = 1.0 / self.source_max(0) if index == 0 else 1.0
            active = weight[trained.masks[index]].detach().cpu().numpy()
            scale = layer_scale(
                active, config.weight_bits, input_step, leak_bits, config.fraction_bits, f"layer {index}"
            )
            self.scales.append(scale)
            threshold = float(scale.threshold) if neuron.spiking else math.inf
            self.neurons.append(replace(neuron, threshold=threshold, unit=scale.unit, integer=True))
        self.widths: list[int | None] = [None] * len(self.shapes)
        self.dtype = torch.float32

    @property
    def masks(self) -> list[Tensor]:
        return [self.get_buffer(f"mask{index}") for index in range(len(self.shapes))]

    def source_max(self, layer: int) -> int:
        """Largest factor of a weight in this layer's sum."""
        return (1 << self.coding.input_bits) - 1 if layer == 0 and self.coding.is_current else 1

    def set_membrane_widths(self, widths: list[int | None]) -> None:
        """Saturate stored membranes to these widths; None leaves a layer unsaturated."""
        self.widths = list(widths)
        for index, width in enumerate(widths):
            self.neurons[index] = replace(
                self.neurons[index],
                membrane_min=None if width is None else -float(1 << (width - 1)),
                membrane_max=None if width is None else float((1 << (width - 1)) - 1),
            )

    def integer_weights(self, layer: int) -> Tensor:
        """Whole numbers in +-limit, zero where there is no connection, (n_out, n_in)."""
        scale = self.scales[layer]
        scaled = (self.weights[layer].double() / scale.step).clamp(-scale.limit, scale.limit)
        return round_through(scaled).to(self.dtype) * self.masks[layer].to(self.dtype)

    def integer_bias(self, layer: int) -> Tensor:
        """Whole numbers in the units of the membrane, (n_out,)."""
        return round_through(self.biases[layer].double() * self.scales[layer].unit).to(self.dtype)

    def forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Class scores in float units and the spikes of every layer, as :meth:`SpikingNetwork.forward`."""
        potentials, spikes, _ = self.run(inputs)
        unit = self.scales[-1].unit
        return scores(self.network_config.readout, spikes[-1], potentials[-1] / unit), spikes

    def run(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Potentials u, spikes and stored membranes v of every layer, each (T, batch, n_out)."""
        result = self._run(inputs.to(self.dtype))
        if result is None and self.dtype == torch.float32:
            self.dtype = torch.float64
            result = self._run(inputs.to(self.dtype))
        if result is None:
            raise InputError("a membrane exceeds 2^52: the network's integers are too large to be represented")
        return result

    def _run(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]] | None:
        limit = 2.0**24 if self.dtype == torch.float32 else 2.0**52
        state_limit = limit / 256 if self.network_config.leak == "multiply" else limit
        signal = inputs
        potentials, spikes, stored = [], [], []
        for layer, neuron in enumerate(self.neurons):
            weight = self.integer_weights(layer)
            # No partial sum exceeds the sum of magnitudes, so that any order of adding is exact.
            if float(weight.detach().abs().sum(1).max()) * self.source_max(layer) >= limit:
                return None
            current = F.linear(signal, weight) * 2.0 ** self.scales[layer].fraction_bits + self.integer_bias(layer)
            s, u, v = lif(current, self.network_config.timesteps, neuron)
            if max(float(current.detach().abs().max()), float(u.detach().abs().max())) >= state_limit:
                return None
            signal = s
            potentials.append(u)
            spikes.append(s)
            stored.append(v)
        return potentials, spikes, stored

    activity = SpikingNetwork.activity

    @torch.no_grad()
    def membrane_widths(self, batches: Iterable[tuple[Tensor, Tensor]], margin: float) -> list[int]:
        """Width per layer that holds every membrane of these samples, ``margin`` times over (at least 4 bits)."""
        widths = self.widths
        self.set_membrane_widths([None] * len(widths))
        low, high = [0.0] * len(widths), [0.0] * len(widths)
        for inputs, _ in batches:
            for layer, v in enumerate(self.run(inputs)[2]):
                low[layer] = min(low[layer], float(v.min()))
                high[layer] = max(high[layer], float(v.max()))
        self.set_membrane_widths(widths)
        return [
            max(4, signed_width(math.floor(a * margin), math.ceil(b * margin))) for a, b in zip(low, high, strict=True)
        ]

    @torch.no_grad()
    def export(self, widths: list[int]) -> FrozenNetwork:
        """The frozen network with these membrane widths (the last layer's is exact with a membrane readout)."""
        layers = []
        readout = self.network_config.readout
        timesteps = self.network_config.timesteps
        for index, scale in enumerate(self.scales):
            layer = FrozenLayer.from_dense(
                self.integer_weights(index).T.cpu().numpy().astype(np.int64),
                bias=self.integer_bias(index).cpu().numpy().astype(np.int64),
                threshold=scale.threshold,
                leak=leak_of(self.network_config),
                reset=self.neurons[index].reset,
                compare=self.network_config.compare,
                fraction_bits=scale.fraction_bits,
                membrane_width=widths[index],
            )
            if not self.neurons[index].spiking:
                bounds = layer.unsaturated_range(timesteps, self.source_max(index))
                layer = replace(layer, membrane_width=max(4, signed_width(*bounds)))
            layers.append(layer)
        network = FrozenNetwork(tuple(layers), timesteps, self.coding, readout)
        network.validate()
        return network
