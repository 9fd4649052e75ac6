"""A float network as a torch module, to train what another framework trained further.

Weights and biases are parameters; thresholds and decays stay. Per neuron and timestep, for every term that a float
network has (:mod:`codesign.contract.floating.run`, whose spikes these are):

    i_t = current_decay * i_{t-1} + sums_t + bias
    u_t = decay * v_{t-1} + i_t             with a delayed reset minus threshold where s_{t-1} = 1
    s_t = u_t > threshold (or >=)
    v_t = reset(u_t, s_t)                   for R timesteps after a spike v stays as it is, u = v, s = 0

Backward: ds/du is the surrogate of (u - threshold) / threshold; reset and rest are constants of s, as in
:mod:`codesign.train.lif`. A layer's numbers are held in a power of two near its threshold, so that a learning rate
means the same whatever the source's units are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codesign.basics.errors import InputError, UnsupportedError
from codesign.basics.progress import Progress, silent
from codesign.config import TrainConfig
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import INPUT, Convolution, Projection, Synapses
from codesign.contract.network.connections import is_whole
from codesign.contract.stimulus import Stimulus
from codesign.data.automatic import batch_size
from codesign.train.architecture import LayerPlan, ProjectionPlan, Shape
from codesign.train.batches import Batches
from codesign.train.fine_tuning import fine_tune
from codesign.train.lif import SurrogateKind, surrogate_gradient
from codesign.train.loop import prepare, rank
from codesign.train.model import Activity, Output, activity, output_of, over_time, weighted_sums

# Entries of a matrix, those of absent synapses among them, that a parameter may have.
MAX_MATRIX = 1 << 26
MAX_EPOCHS = 10_000


class FloatModel(nn.Module):
    """A float network whose weights and biases are trained; the interface of :class:`SpikingNetwork`.

    Parameters are of float32, (targets, sources) or (out channels, in channels, height, width); what is 0 there is no
    connection and stays 0. Raises UnsupportedError, naming the layer, for single synapses between so many
    neurons that their matrix would not fit.
    """

    def __init__(self, network: FloatNetwork, train: TrainConfig) -> None:
        super().__init__()
        self.source = network
        shapes = _shapes(network)
        self.in_shape = shapes[INPUT]
        self.layers = nn.ModuleList(
            _Layer(network, index, shapes, train, silent=network.membrane_readout and index == len(network.layers) - 1)
            for index in range(len(network.layers))
        )

    @property
    def populations(self) -> list[_Layer]:
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def plans(self) -> tuple[LayerPlan, ...]:
        return tuple(layer.plan for layer in self.populations)

    def forward(self, inputs: Tensor) -> Output:
        """``inputs`` is (B, n_in) in 0..1 for coding 'current', else (T, B, n_in) of 0 and 1."""
        constant = inputs.dim() == 2
        signals = {INPUT: inputs.unflatten(-1, self.in_shape)}
        spikes, potentials = [], inputs
        for index, layer in enumerate(self.populations):
            signals[index], potentials = layer(signals, constant, self.source.timesteps)
            spikes.append(signals[index])
        counted = partial(self._activity, inputs, spikes)
        # Classes are the neurons of the last layer, also where they form a picture.
        flat = [*spikes[:-1], spikes[-1].flatten(2)]
        return output_of(self.source.readout, flat, potentials.flatten(2), counted)

    def _activity(self, inputs: Tensor, spikes: Sequence[Tensor]) -> Activity:
        weights: list[list[Tensor | None]] = [[p.weight for p in layer.projections] for layer in self.populations]
        return activity(self.plans, self.in_shape, weights, inputs, spikes)

    def network(self) -> FloatNetwork:
        """The float network with the weights and biases as they are now; weights that are 0 are left out."""
        return self.source.with_layers([layer.layer() for layer in self.populations])


class _Projection(nn.Module):
    """Weights of one projection, a parameter; of a fixed one a buffer."""

    weight: Tensor
    mask: Tensor

    def __init__(self, projection: Projection, index: int, source_shape: Shape, unit: float, where: str) -> None:
        super().__init__()
        self.source, self.unit = projection, unit
        connections, pool = projection.connections, projection.pool
        dense = isinstance(connections, Synapses)
        size = connections.n_in * connections.n_out if dense else connections.dense_weights
        if size > MAX_MATRIX:
            raise UnsupportedError(
                f"{where}: its {connections.n_weights} synapses cannot be trained: a matrix of all weights would have "
                f"{size} entries, {MAX_MATRIX} at most"
            )
        matrix = connections.dense().T if dense else connections.dense()
        weight = torch.from_numpy(matrix / unit).float().contiguous()
        self.register_buffer("mask", (weight != 0).to(weight.dtype))
        if projection.fixed:
            self.register_buffer("weight", weight)
        else:
            self.weight = nn.Parameter(weight)
        self.plan = ProjectionPlan(
            role="recurrent" if projection.source == index else "input",
            source=projection.source,
            kind="dense" if dense else "conv",
            source_shape=source_shape,
            in_shape=source_shape if pool is None else pool.out_shape,
            pool=1 if pool is None else pool.size,
            stride=1 if dense else connections.stride,
            padding=0 if dense else connections.padding,
        )

    def forward(self, signal: Tensor) -> Tensor:
        """Sums (N, n) of a signal (N, *source shape), neurons in the order of the float network."""
        return weighted_sums(self.plan, signal, self.weight * self.mask).flatten(1)

    def projection(self) -> Projection:
        if self.source.fixed:
            return self.source
        weight = self.weight.detach().cpu().double().numpy() * self.unit
        found = self.source.connections
        if isinstance(found, Synapses):
            return replace(self.source, connections=Synapses.from_dense(weight.T, np.float64))
        taps = Convolution.from_dense(weight, found.in_shape, found.stride, found.padding, np.float64)
        return replace(self.source, connections=taps)


class _Layer(nn.Module):
    """A population: its projections, a bias where the source has one, and the constants of its neurons."""

    bias: Tensor | None
    threshold: Tensor
    scale: Tensor
    decay: Tensor
    current_decay: Tensor | None
    reset_value: Tensor

    def __init__(
        self, network: FloatNetwork, index: int, shapes: dict[int, Shape], train: TrainConfig, *, silent: bool
    ) -> None:
        super().__init__()
        layer = network.layers[index]
        self.source, self.silent = layer, silent
        self.surrogate: tuple[SurrogateKind, float, float] = (
            train.surrogate,
            train.surrogate_width,
            train.surrogate_area,
        )
        self.unit = _unit(layer, silent)
        where = f"layer {index}" + (f" ({layer.name})" if layer.name else "")
        self.parts = nn.ModuleList(
            _Projection(projection, index, shapes[projection.source], self.unit, where)
            for projection in layer.projections
        )
        self.plan = LayerPlan(shapes[index], tuple(part.plan for part in self.projections))
        bias = layer.bias / self.unit
        by_channel = bias.reshape(self.plan.shape[0], -1)
        if np.all(by_channel == by_channel[:, :1]):
            bias = by_channel[:, 0]
        self.register_parameter("bias", nn.Parameter(_tensor(bias)) if np.any(bias != 0) else None)
        threshold = layer.threshold / self.unit
        for name, value in (
            ("threshold", threshold),
            ("scale", np.where(threshold == 0, 1.0, np.abs(threshold))),
            ("decay", layer.decay),
            ("current_decay", layer.current_decay),
            ("reset_value", layer.reset_value / self.unit if layer.reset == "value" else np.zeros_like(threshold)),
        ):
            self.register_buffer(name, None if value is None else _tensor(value))

    @property
    def projections(self) -> list[_Projection]:
        return list(self.parts)  # type: ignore[arg-type]

    def forward(self, signals: dict[int, Tensor], constant: bool, timesteps: int) -> tuple[Tensor, Tensor]:
        """Spikes and potentials (T, B, *shape) of signals (T, B, *shape) by source; INPUT's is (B, *shape) if
        constant."""
        drive: Tensor | float = 0.0
        for projection in self.projections:
            if projection.plan.role == "recurrent":
                continue
            once = constant and projection.plan.source == INPUT
            signal = signals[projection.plan.source]
            sums = projection(over_time(signal, once))
            drive = drive + (sums[None] if once else sums.unflatten(0, signal.shape[:2]))
        assert isinstance(drive, Tensor)
        if self.bias is not None:
            drive = drive + self.bias.repeat_interleave(self.plan.size // len(self.bias))
        spikes, potentials = self._steps(drive.expand(timesteps, -1, -1))
        shape = (timesteps, -1, *self.plan.shape)
        return spikes.reshape(shape), potentials.reshape(shape)

    def _steps(self, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and potentials (T, B, n) for the sums and biases (T, B, n) of earlier layers."""
        layer = self.source
        back = [projection for projection in self.projections if projection.plan.role == "recurrent"]
        v = i = s = torch.zeros_like(drive[0])
        rest = torch.zeros_like(v) if layer.refractory else None
        spikes, potentials = [], []
        for t in range(len(drive)):
            sums = drive[t]
            if t:
                for projection in back:
                    sums = sums + projection(s.unflatten(-1, self.plan.shape))
            i = sums if self.current_decay is None else self.current_decay * i + sums
            u = self.decay * v + i
            if layer.reset_delay:
                u = u - s.detach() * self.threshold
            if rest is not None:
                u = torch.where(rest > 0, v, u)
            s = torch.zeros_like(u) if self.silent else self._spikes(u)
            if rest is not None:
                s = s * (rest <= 0)
                rest = torch.where(s > 0, float(layer.refractory), (rest - 1).clamp(min=0))
            v = u if layer.reset_delay else self._after_reset(u, s.detach())
            spikes.append(s)
            potentials.append(u)
        return torch.stack(spikes), torch.stack(potentials)

    def _spikes(self, u: Tensor) -> Tensor:
        return _Spike.apply(u, self.threshold, self.scale, self.source.compare == ">", *self.surrogate)  # type: ignore[return-value]

    def _after_reset(self, u: Tensor, s: Tensor) -> Tensor:
        match self.source.reset:
            case "subtract":
                return u - s * self.threshold
            case "none":
                return u
            case _:
                return torch.where(s > 0, self.reset_value, u)

    def layer(self) -> FloatLayer:
        bias = self.source.bias
        if self.bias is not None:
            found = self.bias.detach().cpu().double().numpy() * self.unit
            bias = np.repeat(found, self.plan.size // len(found))
        return replace(self.source, projections=tuple(part.projection() for part in self.projections), bias=bias)


class _Spike(torch.autograd.Function):
    """The step of u at the threshold, with the gradient of a surrogate."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        threshold: Tensor,
        scale: Tensor,
        strict: bool,
        kind: SurrogateKind,
        width: float,
        area: float,
    ) -> Tensor:
        ctx.save_for_backward(u, threshold, scale)
        ctx.surrogate = kind, width, area
        return (u > threshold if strict else u >= threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, threshold, scale = ctx.saved_tensors
        kind, width, area = ctx.surrogate
        slope = surrogate_gradient((u - threshold) / scale, kind, width) * (area / scale)
        return gradients[0] * slope, None, None, None, None, None, None


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64)).float()


def _unit(layer: FloatLayer, silent: bool) -> float:
    """A power of two near the layer's thresholds, or near its largest weight where it only integrates."""
    sizes = [np.abs(p.connections.weights).max(initial=0.0) for p in layer.projections if not p.fixed]
    size = max(sizes, default=0.0) if silent else np.abs(layer.threshold).mean()
    return 2.0 ** round(math.log2(size)) if size > 0 else 1.0


def _shapes(network: FloatNetwork) -> dict[int, Shape]:
    """Of each population and of the input: as the layer says, else as its readers take it, else (n,)."""
    found: dict[int, Shape] = {index: layer.shape for index, layer in enumerate(network.layers) if layer.shape}
    for index, layer in enumerate(network.layers):
        for projection in layer.projections:
            wanted = projection.source_shape
            if wanted is not None and found.setdefault(projection.source, wanted) != wanted:
                raise UnsupportedError(
                    f"layer {index}: reads its source as a picture of {wanted}, another layer as "
                    f"{found[projection.source]}; they cannot be trained together"
                )
    sizes = {INPUT: network.n_inputs, **{index: layer.n_out for index, layer in enumerate(network.layers)}}
    return {index: found.get(index, (size,)) for index, size in sizes.items()}


@dataclass(frozen=True)
class FineTuning:
    """Training of an imported network further, at the connections that it has: :func:`codesign.import_network`.

    epochs : 1 or more; the best of them, or the network as it came, is kept. learning_rate : the highest, of Adam, for
    weights in units of their layer's threshold. seed : of the order of the samples, 0 to 2^64 - 1. device : 'cpu',
    'cuda' or 'auto'.

    Raises InputError for epochs, a rate or a seed that are none.

    >>> import codesign, numpy as np
    >>> network = codesign.FloatNetwork.from_arrays([np.eye(4), np.eye(4)], timesteps=4, decay=0.5)
    >>> labels = np.arange(32) % 4
    >>> samples = codesign.Stimulus.from_dense(np.eye(4)[labels, None].repeat(4, axis=1) > 0, labels)
    >>> found, epoch, history = codesign.FineTuning(epochs=2)(network, samples, samples)
    >>> len(history), history[0]["validation_accuracy"], found.layers[0].projections[0].connections.n_weights
    (3, 1.0, 4)
    """

    epochs: int
    learning_rate: float = 5e-3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not is_whole(self.epochs, 1, MAX_EPOCHS):
            raise InputError(f"fine-tuning takes 1 to {MAX_EPOCHS} epochs, not {self.epochs!r}")
        rate = self.learning_rate
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < math.inf:
            raise InputError(f"learning_rate = {rate!r} is no positive number")
        if not is_whole(self.seed, 0, (1 << 64) - 1):
            raise InputError(f"seed = {self.seed!r} is no whole number from 0 to 2^64 - 1")

    def __call__(
        self,
        network: FloatNetwork,
        training: Stimulus,
        validation: Stimulus,
        progress: Progress = silent,
        text: str = "",
    ) -> tuple[FloatNetwork, int, list[dict[str, Any]]]:
        """The network of the best epoch on ``validation``, that epoch, and a row for each (:func:`fine_tune`).

        Both are samples with labels. Weights that are 0 stay 0; thresholds and decays stay. Deterministic on the CPU.
        """
        options = TrainConfig(batch_size=batch_size(len(training)), seed=self.seed)
        device = prepare(options.threads, self.device)
        model = FloatModel(network, options).to(device)
        history = fine_tune(
            model,
            options,
            Batches(training, network.input_scale, device=device),
            Batches(validation, network.input_scale, device=device),
            rate=self.learning_rate,
            epochs=self.epochs,
            progress=progress,
            text=text,
        )
        chosen = model.network()
        chosen.validate()
        return chosen, max(history, key=rank)["epoch"], history
