"""Spiking networks in float: fully connected, convolutional, recurrent, residual; layer by layer over all timesteps.

Parameters are ordinary ones; those with more than one dimension are the connections. Which of them exist is the
business of :mod:`codesign.train.rewiring`, not of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codesign.basics.errors import InputError
from codesign.config import NetworkConfig, TrainConfig
from codesign.contract.network import Leak
from codesign.train.architecture import LayerPlan, ProjectionPlan, Shape, plan_layers
from codesign.train.lif import Neuron, lif, recurrent_lif
from codesign.train.products import Connections, conv2d, linear

# Spikes of a layer per neuron and timestep that the initial weights are scaled to.
INITIAL_RATE = 0.15
# Neurons x timesteps x samples of a layer that the initial scaling looks at.
SCALING_CELLS = 1 << 24
# A spike count of all T timesteps as class score: a scale that suits the cross-entropy.
COUNT_SCALE = 10.0


def leak_of(config: NetworkConfig) -> Leak:
    """The configured leak in integers; a decay factor is rounded to 8 bits."""
    if config.leak == "multiply":
        return Leak("multiply", 8, config.leak_multiplier)
    return Leak("shift", config.leak_shift) if config.leak == "shift" else Leak()


def neuron_of(network: NetworkConfig, train: TrainConfig, *, last: bool) -> Neuron:
    """Float dynamics of a hidden or the last layer: threshold 1, or none with a membrane readout."""
    leak = leak_of(network)
    silent = last and network.readout != "spike_count"
    return Neuron(
        leak_kind=leak.kind,
        leak_shift=int(leak.shift),
        leak_multiplier=int(leak.multiplier),
        reset="none" if silent else network.reset,
        compare=network.compare,
        surrogate=train.surrogate,
        surrogate_width=train.surrogate_width,
        surrogate_area=train.surrogate_area,
        threshold=math.inf if silent else 1.0,
    )


@dataclass(frozen=True)
class Output:
    """What a network gives for a batch.

    scores : (B, classes); they rank the classes as the hardware's readout does.
    step_scores : (T, B, classes), what the readout reduces over time: spikes (times 10) or potentials.
    spikes : per layer (T, B, *shape), 0 or 1.
    potentials : (T, B, classes), u of the last layer in units of its threshold.
    activity : counts spikes and synaptic operations of the batch, when asked.
    """

    scores: Tensor
    step_scores: Tensor
    spikes: list[Tensor]
    potentials: Tensor
    activity: Callable[[], Activity]


@dataclass(frozen=True)
class Activity:
    """Per layer, float64 (n_layers,), summed over a batch; with the gradient with respect to the spikes.

    spikes : of the layer.
    operations : synapses and taps that events walk (nonzero inputs, once a sample, for coding 'current').
    """

    spikes: Tensor
    operations: Tensor


def output_of(readout: str, spikes: list[Tensor], potentials: Tensor, activity: Callable[[], Activity]) -> Output:
    """Output of a network whose last layer has these potentials (T, B, classes)."""
    if readout == "spike_count":
        steps = spikes[-1] * COUNT_SCALE
        return Output(steps.mean(0), steps, spikes, potentials, activity)
    if readout == "membrane_last":
        scores = potentials[-1]
    elif readout == "membrane_sum":
        scores = potentials.mean(0)
    else:
        scores = potentials.amax(0)
    return Output(scores, potentials, spikes, potentials, activity)


def weighted_sums(
    plan: ProjectionPlan,
    signal: Tensor,
    weight: Tensor | None,
    connections: Connections | None = None,
    *,
    every_gradient: bool = True,
) -> Tensor:
    """Sums of a projection: (N, *source shape) -> (N, *shape), without norm; pooling sums, or averages, first.

    ``weight`` as :meth:`ProjectionPlan.weight_shape`, None for the identity. ``connections`` says which weights there
    are, if that is known; the others are 0, and their gradient may be left out as 0 unless ``every_gradient``.
    """
    if plan.pool > 1:
        signal = F.avg_pool2d(signal, plan.pool, divisor_override=None if plan.average else 1)
    if weight is None:
        return signal
    if plan.kind == "dense":
        return linear(signal.flatten(1), weight)
    sums = conv2d(signal, weight, plan.stride, plan.padding, connections, every_gradient=every_gradient)
    # As the neurons lie in memory: batch normalisation is several times slower where its gradient lies otherwise.
    return sums.contiguous(memory_format=torch.channels_last)


def neurons_last(x: Tensor) -> Tensor:
    """(..., n) as it is, (N, C, H, W) -> (N, H * W * C): the order in which convolutions lie in memory."""
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).flatten(1)


def shaped(x: Tensor, shape: Shape) -> Tensor:
    """Inverse of :func:`neurons_last` over time: (T, B, n) -> (T, B, *shape), without a copy."""
    if len(shape) == 1:
        return x
    channels, height, width = shape
    return x.unflatten(-1, (height, width, channels)).permute(0, 1, 4, 2, 3)


def over_time(x: Tensor, constant: bool) -> Tensor:
    """Time and batch as one axis; a constant signal has the batch alone."""
    return x if constant else x.flatten(0, 1)


class Projection(nn.Module):
    """Weights of one projection and their batch normalisation."""

    def __init__(self, plan: ProjectionPlan, out_shape: Shape, random: torch.Generator, scale: float) -> None:
        super().__init__()
        self.plan = plan
        self.weight: nn.Parameter | None = None
        if plan.kind != "identity":
            shape = plan.weight_shape(out_shape)
            initial = torch.randn(shape, generator=random) * (scale / math.sqrt(math.prod(shape[1:])))
            self.weight = nn.Parameter(initial)
        self.norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
        if plan.norm:
            self.norm = (nn.BatchNorm1d if len(out_shape) == 1 else nn.BatchNorm2d)(out_shape[0])
        self.connect(None)
        self._known: Connections | None = None

    def connect(self, mask: Tensor | None, *, every_gradient: bool = True) -> None:
        """Say which weights of a convolution there are, None for nothing known (:meth:`SpikingNetwork.connected`)."""
        self.every_gradient = every_gradient
        self.connections: Connections | None = None
        if mask is not None:
            self.connections = self._known = Connections.of(mask, self._known)

    def forward(self, signal: Tensor) -> Tensor:
        """Currents (N, *shape) of spikes or values (N, *source shape)."""
        sums = weighted_sums(self.plan, signal, self.weight, self.connections, every_gradient=self.every_gradient)
        return sums if self.norm is None else self.norm(sums)

    @torch.no_grad()
    def scale_by(self, gain: float) -> None:
        """Multiply the currents of weights without bias by ``gain``."""
        if self.norm is not None:
            self.norm.weight.mul_(gain)
        elif self.weight is not None:
            self.weight.mul_(gain)


class Layer(nn.Module):
    """A population of LIF neurons with its projections; no loop over timesteps but in the neuron itself."""

    def __init__(self, plan: LayerPlan, neuron: Neuron, network: NetworkConfig, random: torch.Generator) -> None:
        super().__init__()
        self.plan, self.neuron = plan, neuron
        for projection in plan.projections:
            scale = network.recurrent_scale if projection.role == "recurrent" else 1.0
            self.add_module(projection.role, Projection(projection, plan.shape, random, scale))
        self.bias: nn.Parameter | None = None
        if network.bias and not plan.norm:
            self.bias = nn.Parameter(torch.zeros(plan.shape[0]))
        # The decay is the logistic function of a free number, so that it stays between 0 and 1
        # (Fang et al., "Incorporating Learnable Membrane Time Constant", ICCV 2021).
        self.leak: nn.Parameter | None = None
        if network.learn_leak is not None:
            start = math.log(float(neuron.decay) / (1 - float(neuron.decay)))
            self.leak = nn.Parameter(torch.full((plan.shape[0] if network.learn_leak == "neuron" else 1,), start))

    @property
    def projections(self) -> list[Projection]:
        return [self.get_submodule(plan.role) for plan in self.plan.projections]  # type: ignore[misc]

    @property
    def recurrent_weight(self) -> Tensor | None:
        """(n, n), rows are targets."""
        return next((p.weight for p in self.projections if p.plan.role == "recurrent"), None)

    @property
    def decay(self) -> Tensor | None:
        """Learnt decay, (1,) or one per neuron in the order of :func:`neurons_last`; None if it is not learnt."""
        if self.leak is None:
            return None
        decay = torch.sigmoid(self.leak)
        return decay if decay.numel() == 1 else decay.repeat(self.plan.size // decay.numel())

    def current(self, signals: dict[int, Tensor], constant: bool, *, learnt: bool = False) -> tuple[Tensor, bool]:
        """Feed-forward current, flat as :func:`neurons_last`: (T, B, n), or (B, n) and True where it is constant.

        signals : (T, B, *shape) by source; ``constant`` says that the network's input, -1, is (B, *shape).
        learnt : without the identity shortcut.
        """
        total: Tensor | None = None
        still = True
        for projection in self.projections:
            plan = projection.plan
            if plan.role == "recurrent" or (learnt and plan.kind == "identity"):
                continue
            once = constant and plan.source < 0
            signal = signals[plan.source]
            sums = neurons_last(projection(over_time(signal, once)))
            if not once:
                sums = sums.unflatten(0, signal.shape[:2])
            total = sums if total is None else total + sums
            still = still and once
        assert total is not None
        if self.bias is not None:
            copies = self.plan.size // self.bias.numel()
            total = total + (self.bias if copies == 1 else self.bias.repeat(copies))
        return total, still

    def fire(self, current: Tensor, timesteps: int) -> tuple[Tensor, Tensor]:
        """Spikes and potentials (T, B, n) for a current as :meth:`current` gives it."""
        weight = self.recurrent_weight
        if weight is not None:
            spikes, potentials, _ = recurrent_lif(current, weight, timesteps, self.neuron, self.decay, membranes=False)
        else:
            spikes, potentials, _ = lif(current, timesteps, self.neuron, self.decay, membranes=False)
        return spikes, potentials

    def forward(self, signals: dict[int, Tensor], constant: bool, timesteps: int) -> tuple[Tensor, Tensor]:
        """Spikes and potentials (T, B, *shape)."""
        spikes, potentials = self.fire(self.current(signals, constant)[0], timesteps)
        return shaped(spikes, self.plan.shape), shaped(potentials, self.plan.shape)


class SpikingNetwork(nn.Module):
    """LIF layers as configured, the classes last.

    Parameters
    ----------
    in_shape : number of inputs, or (channels, height, width) of an image.
    n_classes : neurons of the last layer.
    network, train : architecture and neuron; surrogate and seed.

    Raises InputError for layers that do not suit the input.

    >>> import codesign, torch
    >>> config = codesign.parse_config({"network": {"hidden": [8], "timesteps": 5}})
    >>> model = codesign.SpikingNetwork(4, 3, config.network, config.train)
    >>> output = model(torch.ones(5, 2, 4))
    >>> output.scores.shape, [spikes.shape for spikes in output.spikes]
    (torch.Size([2, 3]), [torch.Size([5, 2, 8]), torch.Size([5, 2, 3])])
    """

    def __init__(self, in_shape: int | Shape, n_classes: int, network: NetworkConfig, train: TrainConfig) -> None:
        super().__init__()
        self.network = network
        self.in_shape: Shape = (in_shape,) if isinstance(in_shape, int) else tuple(in_shape)
        self.plans = plan_layers(network, self.in_shape, n_classes)
        random = torch.Generator().manual_seed(train.seed)
        self.layers = nn.ModuleList(
            Layer(plan, neuron_of(network, train, last=index == len(self.plans) - 1), network, random)
            for index, plan in enumerate(self.plans)
        )

    @property
    def populations(self) -> list[Layer]:
        """The layers, the classes last."""
        return list(self.layers)  # type: ignore[arg-type]

    def sparse_parameters(self) -> dict[str, nn.Parameter]:
        """The connections: every parameter with more than one dimension, (targets, sources, ...), by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.dim() > 1}

    @contextmanager
    def connected(self, masks: Mapping[str, Tensor], *, every_gradient: bool) -> Iterator[None]:
        """Within, what ``masks`` (by names of :meth:`sparse_parameters`) exclude is taken for the zeros that it is.

        That makes convolutions of few connections quicker. Gradients of excluded weights may be 0 then, unless
        ``every_gradient``. Raises InputError for a mask of no such weight, or of another shape.
        """
        parameters = self.sparse_parameters()
        for name, mask in masks.items():
            if name not in parameters:
                raise InputError(f"connected: no weight {name!r}; there are {', '.join(parameters)}")
            shape = tuple(parameters[name].shape)
            if mask.shape != shape:
                raise InputError(f"connected: the mask of {name!r} is {tuple(mask.shape)}, its weights {shape}")
        chosen = [(self.get_submodule(name.rpartition(".")[0]), mask) for name, mask in masks.items()]
        projections = [(module, mask) for module, mask in chosen if isinstance(module, Projection) and mask.dim() == 4]
        for projection, mask in projections:
            projection.connect(mask, every_gradient=every_gradient)
        try:
            yield
        finally:
            for projection, _ in projections:
                projection.connect(None)

    def compile_projections(self) -> None:
        """Have torch compile what lies between the neurons; at the first call, for each size of input."""
        for layer in self.populations:
            for projection in layer.projections:
                projection.compile()

    def forward(self, inputs: Tensor) -> Output:
        """``inputs`` is (B, n_in) in 0..1 for coding 'current', else (T, B, n_in) of 0 and 1."""
        constant = inputs.dim() == 2
        signals = {-1: inputs.unflatten(-1, self.in_shape)}
        spikes, potentials = [], inputs
        for index, layer in enumerate(self.populations):
            fired, potentials = layer(signals, constant, self.network.timesteps)
            signals[index] = fired
            spikes.append(fired)
        return output_of(self.network.readout, spikes, potentials, partial(self._activity, inputs, spikes))

    @torch.no_grad()
    def scale_initial_weights(self, inputs: Tensor) -> None:
        """Scale each layer's weights so that about 15 % of its neurons spike per timestep on ``inputs``.

        A layer that only integrates is scaled to potentials of unit spread. With batch normalisation its factor is
        scaled. Recurrent weights keep their initial size; an identity shortcut is left out of account.
        """
        timesteps = self.network.timesteps
        constant = inputs.dim() == 2
        largest = max(plan.size for plan in self.plans)
        count = min(inputs.shape[-2], max(16, SCALING_CELLS // (largest * timesteps)))
        signals = {-1: inputs[..., :count, :].unflatten(-1, self.in_shape)}
        for index, layer in enumerate(self.populations):
            drive, _ = layer.current(signals, constant, learnt=True)
            if not layer.neuron.spiking:
                gain = 1.0 / max(1e-6, float(layer.fire(drive, timesteps)[1][-1].std()))
            else:
                gain, low, high = 1.0, -10.0, 10.0
                for _ in range(20):
                    gain = 2.0 ** ((low + high) / 2)
                    rate = float(layer.fire(drive * gain, timesteps)[0].mean())
                    low, high = (math.log2(gain), high) if rate < INITIAL_RATE else (low, math.log2(gain))
            for projection in layer.projections:
                if projection.plan.role != "recurrent":
                    projection.scale_by(gain)
            signals[index] = layer(signals, constant, timesteps)[0]

    def _activity(self, inputs: Tensor, spikes: Sequence[Tensor]) -> Activity:
        """Activity of a batch that ran through :meth:`forward`; synapses are nonzero weights."""
        weights = [[projection.weight for projection in layer.projections] for layer in self.populations]
        return activity(self.plans, self.in_shape, weights, inputs, spikes)


def activity(
    plans: Sequence[LayerPlan],
    in_shape: Shape,
    weights: Sequence[Sequence[Tensor | None]],
    inputs: Tensor,
    spikes: Sequence[Tensor],
) -> Activity:
    """Activity of a batch: events of each source times its fan-out.

    ``weights`` are per layer and projection, None for the identity.
    """
    counts = {-1: _event_counts((inputs != 0).unflatten(-1, in_shape), in_shape)}
    operations = []
    for index, (plan, layer_weights) in enumerate(zip(plans, weights, strict=True)):
        counts[index] = _event_counts(spikes[index], plan.shape)
        total = torch.zeros((), dtype=torch.float64, device=inputs.device)
        for projection, weight in zip(plan.projections, layer_weights, strict=True):
            events = counts[projection.source]
            if projection.role == "recurrent":
                # The spikes of the last timestep reach nobody.
                events = events - _event_counts(spikes[index][-1], plan.shape)
            total = total + (events * fan_out(projection, weight).to(events.device)).sum()
        operations.append(total)
    return Activity(torch.stack([counts[index].sum() for index in range(len(plans))]), torch.stack(operations))


@torch.enable_grad()
def fan_out(plan: ProjectionPlan, weight: Tensor | None) -> Tensor:
    """Synapses or taps that an event of each source walks, borders respected: float64 (*source shape).

    ``weight`` as for :func:`weighted_sums`; its nonzero entries are the connections.
    """
    walked = None if weight is None else (weight.detach() != 0).double()
    device = None if walked is None else walked.device
    source = torch.ones(1, *plan.source_shape, dtype=torch.float64, device=device, requires_grad=True)
    # Sums are linear in the source: the gradient of their total is what one event adds to it.
    total = weighted_sums(replace(plan, average=False), source, walked).sum()
    return torch.autograd.grad(total, source)[0][0]


def _event_counts(events: Tensor, shape: Shape) -> Tensor:
    """Events per source over time and batch, float64 (*shape)."""
    # Summed as they lie in memory, so that the gradient lies so too.
    laid = neurons_last(events.flatten(0, -len(shape) - 1))
    return shaped(laid.sum(0, dtype=torch.float64)[None, None], shape)[0, 0]
