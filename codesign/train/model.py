"""Feed-forward spiking network in float: weights, masks, and its forward pass over all timesteps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codesign.config import NetworkConfig, TrainConfig
from codesign.network import Leak
from codesign.train.lif import Neuron, lif
from codesign.train.rewiring import layer_counts, random_mask

# Spikes of a layer per neuron and timestep that the initial weights are scaled to.
INITIAL_RATE = 0.15


def leak_of(config: NetworkConfig) -> Leak:
    """The leak in integers; a decay factor is rounded to 8 bits."""
    if config.leak == "multiply":
        return Leak("multiply", 8, round(config.leak_decay * 256))
    return Leak("shift", config.leak_shift) if config.leak == "shift" else Leak()


def neuron_of(network: NetworkConfig, train: TrainConfig, *, last: bool) -> Neuron:
    """Float dynamics of a hidden or the last layer: threshold 1, or none with a membrane readout."""
    leak = leak_of(network)
    silent = last and network.readout != "spike_count"
    return Neuron(
        leak_kind=leak.kind,
        leak_shift=leak.shift,
        leak_multiplier=leak.multiplier,
        reset="none" if silent else network.reset,
        compare=network.compare,
        surrogate=train.surrogate,
        surrogate_width=train.surrogate_width,
        threshold=math.inf if silent else 1.0,
    )


@dataclass(frozen=True)
class Activity:
    """Per layer, summed over a batch: spikes, and synapses walked by events (by nonzero inputs for 'current')."""

    spikes: list[float]
    operations: list[float]


class SpikingNetwork(nn.Module):
    """Fully connected LIF layers; weights are (n_out, n_in) and zero where the mask is False."""

    def __init__(self, n_inputs: int, n_classes: int, network: NetworkConfig, train: TrainConfig) -> None:
        super().__init__()
        widths = [n_inputs, *network.hidden, n_classes]
        self.network = network
        self.shapes = list(zip(widths[1:], widths[:-1], strict=True))
        self.neurons = [
            neuron_of(network, train, last=index == len(self.shapes) - 1) for index in range(len(self.shapes))
        ]
        random = np.random.default_rng([train.seed, 0])
        rewiring = train.rewiring
        density = 1.0 if rewiring.mode == "dense" else rewiring.start_density
        counts = layer_counts(self.shapes, density, rewiring.distribution, rewiring.min_fan_in)
        weights, biases = [], []
        for index, (shape, count) in enumerate(zip(self.shapes, counts, strict=True)):
            mask = random_mask(shape, count, rewiring.min_fan_in, random)
            weight = random.standard_normal(shape) * mask * math.sqrt(shape[0] / max(1, count))
            self.register_buffer(f"mask{index}", torch.from_numpy(mask))
            weights.append(nn.Parameter(torch.from_numpy(weight.astype(np.float32))))
            biases.append(nn.Parameter(torch.zeros(shape[0]), requires_grad=network.bias))
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)

    @property
    def masks(self) -> list[Tensor]:
        """bool (n_out, n_in) per layer."""
        return [self.get_buffer(f"mask{index}") for index in range(len(self.shapes))]

    @property
    def densities(self) -> list[float]:
        """Active over all weights, per layer."""
        return [float(mask.sum()) / mask.numel() for mask in self.masks]

    @property
    def density(self) -> float:
        """Active over all weights of the network."""
        return float(sum(int(mask.sum()) for mask in self.masks)) / sum(mask.numel() for mask in self.masks)

    def current(self, layer: int, inputs: Tensor) -> Tensor:
        """Weighted sums plus bias: inputs (..., n_in) -> (..., n_out)."""
        return F.linear(inputs, self.weights[layer], self.biases[layer])

    def forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Class scores (batch, n_classes) and the spikes of every layer, (T, batch, n_out) each.

        ``inputs`` is (batch, n_in) in 0..1 for coding 'current', else (T, batch, n_in) of 0 and 1.
        """
        timesteps = self.network.timesteps
        signal, spikes = inputs, []
        potentials = inputs
        for layer, neuron in enumerate(self.neurons):
            signal, potentials, _ = lif(self.current(layer, signal), timesteps, neuron)
            spikes.append(signal)
        return scores(self.network.readout, spikes[-1], potentials), spikes

    @torch.no_grad()
    def scale_initial_weights(self, inputs: Tensor) -> None:
        """Scale each layer's weights so that about 15 % of its neurons spike per timestep on ``inputs``.

        A layer that only integrates is scaled to potentials of unit spread.
        """
        timesteps = self.network.timesteps
        signal = inputs
        for layer, neuron in enumerate(self.neurons):
            drive = self.current(layer, signal)
            if not neuron.spiking:
                _, potentials, _ = lif(drive, timesteps, neuron)
                gain = 1.0 / max(1e-6, float(potentials[-1].std()))
            else:
                gain, low, high = 1.0, -10.0, 10.0
                for _ in range(30):
                    gain = 2.0 ** ((low + high) / 2)
                    rate = float(lif(drive * gain, timesteps, neuron)[0].mean())
                    low, high = (math.log2(gain), high) if rate < INITIAL_RATE else (low, math.log2(gain))
            self.weights[layer].mul_(gain)
            signal = lif(self.current(layer, signal), timesteps, neuron)[0]

    @torch.no_grad()
    def activity(self, inputs: Tensor, spikes: Sequence[Tensor]) -> Activity:
        """Spikes and synaptic operations of a batch that ran through :meth:`forward`."""
        signals = [inputs, *spikes[:-1]]
        operations = []
        for mask, signal in zip(self.masks, signals, strict=True):
            fan_out = mask.sum(0).to(torch.float64)
            active = (signal != 0).reshape(-1, signal.shape[-1]).sum(0).to(torch.float64)
            operations.append(float(active @ fan_out))
        return Activity([float(s.sum(dtype=torch.float64)) for s in spikes], operations)


def scores(readout: str, spikes: Tensor, potentials: Tensor) -> Tensor:
    """Class scores for the loss, (batch, classes). They rank the classes as the hardware's readout does.

    Counts are scaled to at most 10, sums to a mean per timestep: a scale that suits the cross-entropy.
    """
    if readout == "spike_count":
        return spikes.sum(0) * (10.0 / len(spikes))
    if readout == "membrane_last":
        return potentials[-1]
    if readout == "membrane_sum":
        return potentials.mean(0)
    return potentials.amax(0)
