"""The section ``[network]`` and its layers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from codesign.basics.errors import entries_for
from codesign.config.base import Count, Section, Width
from codesign.contract.network import MAX_LAYERS, CompareKind, LeakKind, ReadoutKind
from codesign.machine.schedules import Sources

MAX_TRAINED_SHIFT = 12


class DenseLayer(Section):
    """A fully connected LIF layer."""

    kind: Literal["dense"]
    width: Width
    recurrent: bool = Field(default=False, description="the layer's spikes of t - 1 are sources at t")
    norm: bool = Field(default=False, description="batch normalisation of the current, folded at freeze")


class ConvLayer(Section):
    """A convolutional LIF layer; kernels are square."""

    kind: Literal["conv"]
    channels: Width
    kernel: int = Field(default=3, ge=1, le=31)
    stride: int = Field(default=1, ge=1, le=16)
    padding: int | None = Field(default=None, ge=0, le=15, description="default: (kernel - 1) / 2, rounded down")
    norm: bool = Field(default=False, description="batch normalisation of the current, folded at freeze")


class PoolLayer(Section):
    """Pooling of the spikes before it, over windows of size x size; no neurons of its own."""

    kind: Literal["pool"]
    size: int = Field(default=2, ge=2, le=64)
    mode: Literal["average", "sum"] = "average"


class ResidualLayer(Section):
    """Two 3x3 convolutional LIF layers; the block's input is added to the second one's current.

    LIF(norm(conv(LIF(norm(conv(x))))) + shortcut(x)); the shortcut is the identity, or a 1x1 convolution with
    ``stride`` where the shape changes.
    """

    kind: Literal["residual"]
    channels: Width
    stride: int = Field(default=1, ge=1, le=16)
    norm: bool = Field(default=True, description="batch normalisation of each convolution's current")


LayerConfig = Annotated[DenseLayer | ConvLayer | PoolLayer | ResidualLayer, Field(discriminator="kind")]
LAYER_KINDS: dict[str, type[Section]] = {
    "dense": DenseLayer,
    "conv": ConvLayer,
    "pool": PoolLayer,
    "residual": ResidualLayer,
}


class ElsewhereConfig(Section):
    """What hardware asks of a network that was not trained here; the commands that take one write it."""

    layers: Count
    plain: bool = Field(description="chain of single synapses")


class NetworkConfig(Section):
    """Architecture and neuron. The last layer, fully connected with one neuron a class, is not written down."""

    hidden: list[Width] = Field(
        default=[128], max_length=MAX_LAYERS - 1, description="hidden layer widths; [] for a single layer"
    )
    recurrent: bool | list[bool] = Field(default=False, description="hidden layers with recurrence: all, or one by one")
    layers: list[LayerConfig] | None = Field(
        default=None,
        max_length=MAX_LAYERS,
        description="[[network.layers]] of kind dense, conv, pool or residual instead of hidden",
    )
    recurrent_scale: float = Field(
        default=0.2, gt=0, description="initial recurrent weights: standard deviation times sqrt(fan-in)"
    )
    timesteps: int = Field(default=8, ge=1, le=4096)
    leak: LeakKind = "shift"
    leak_shift: int = Field(default=2, ge=1, le=MAX_TRAINED_SHIFT, description="leak v - (v >> k) (leak 'shift')")
    leak_decay: float = Field(
        default=0.75, ge=0, le=1, description="factor per timestep, frozen to 8 bits (leak 'multiply')"
    )
    learn_leak: Literal["layer", "neuron"] | None = Field(
        default=None,
        description="train the decay of each layer, or of each neuron (of each channel in a convolution), from the"
        " given one; snapped at freeze to 1 - 2^-k (leak 'shift') or to 8 bits (leak 'multiply', layers only)",
    )
    reset: Literal["subtract", "zero", "none"] = "subtract"
    compare: CompareKind = ">="
    readout: ReadoutKind = "membrane_sum"
    bias: bool = Field(default=True, description="trainable bias per neuron (per channel in a convolution)")
    elsewhere: ElsewhereConfig | None = Field(
        default=None, description="of a run whose network comes from elsewhere: its layers, in place of those above"
    )

    @property
    def leak_multiplier(self) -> int:
        """``leak_decay`` in 256ths, as it is frozen."""
        return round(self.leak_decay * 256)

    @property
    def n_layers(self) -> int:
        """LIF layers, the last one included."""
        if self.elsewhere is not None:
            return self.elsewhere.layers
        if self.layers is None:
            return len(self.hidden) + 1
        return sum({"pool": 0, "residual": 2}.get(layer.kind, 1) for layer in self.layers) + 1

    @property
    def layer_configs(self) -> list[DenseLayer | ConvLayer | PoolLayer | ResidualLayer]:
        """The hidden layers, the short form written out."""
        if self.layers is not None:
            return list(self.layers)
        recurrent = self.recurrent if isinstance(self.recurrent, list) else [self.recurrent] * len(self.hidden)
        return [
            DenseLayer(kind="dense", width=width, recurrent=back)
            for width, back in zip(self.hidden, recurrent, strict=True)
        ]

    @property
    def is_plain_chain(self) -> bool:
        """True for fully connected layers, one after the other."""
        if self.elsewhere is not None:
            return self.elsewhere.plain
        return all(isinstance(layer, DenseLayer) and not layer.recurrent for layer in self.layer_configs)

    @property
    def sources(self) -> Sources | None:
        """What each LIF layer reads, -1 for the input; None of a network from elsewhere."""
        if self.elsewhere is not None:
            return None
        found: list[tuple[int, ...]] = []
        for layer in self.layer_configs:
            before, index = len(found) - 1, len(found)
            if isinstance(layer, ResidualLayer):
                found += [(before,), (index, before)]
            elif isinstance(layer, DenseLayer) and layer.recurrent:
                found.append((before, index))
            elif not isinstance(layer, PoolLayer):
                found.append((before,))
        return (*found, (len(found) - 1,))

    @model_validator(mode="after")
    def _one_form(self) -> NetworkConfig:
        for name in ("hidden", "recurrent"):
            if self.layers is not None and name in self.model_fields_set:
                raise ValueError(f"{name} and layers exclude each other")
        if isinstance(self.recurrent, list) and len(self.recurrent) != len(self.hidden):
            raise ValueError(entries_for("recurrent", len(self.recurrent), len(self.hidden), "hidden layer"))
        if self.recurrent is True and not self.hidden:
            raise ValueError("recurrent = true needs hidden layers, and hidden is empty")
        recurs = any(isinstance(layer, DenseLayer) and layer.recurrent for layer in self.layer_configs)
        if "recurrent_scale" in self.model_fields_set and not recurs:
            raise ValueError("recurrent_scale needs a recurrent layer")
        return self

    @model_validator(mode="after")
    def _one_leak(self) -> NetworkConfig:
        for name, kind in (("leak_shift", "shift"), ("leak_decay", "multiply")):
            if name in self.model_fields_set and self.leak != kind:
                raise ValueError(f"{name} belongs to leak = {kind!r}, not {self.leak!r}: leave it out")
        if self.leak == "multiply" and 0 < self.leak_decay < 1 and self.leak_multiplier in (0, 256):
            what = "nothing is kept" if self.leak_multiplier == 0 else "nothing leaks"
            raise ValueError(
                f"leak_decay = {self.leak_decay:g} is {self.leak_multiplier} / 256 in 8 bits, with which {what}; "
                f"take 1 / 256 to 255 / 256, or say 0 or 1"
            )
        if self.learn_leak is not None and self.leak == "none":
            raise ValueError("learn_leak needs leak = 'shift' or 'multiply'")
        if self.learn_leak == "neuron" and self.leak != "shift":
            raise ValueError("learn_leak = 'neuron' needs leak = 'shift'")
        if self.learn_leak is not None and self.leak == "multiply" and not 0 < self.leak_decay < 1:
            raise ValueError("learn_leak starts from leak_decay, which must lie between 0 and 1")
        return self
