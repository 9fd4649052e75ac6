"""One TOML file describes a run. Every key is checked; an unknown one names its nearest neighbour."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from codesign.basics.errors import NO_CONFIGURATION, CodesignWarning, InputError, entries_for
from codesign.basics.files import read_text
from codesign.contract.binning import TimeUnit
from codesign.contract.early_exit import MAX_MARGIN
from codesign.contract.hdl_names import TopName
from codesign.contract.network import (
    MAX_LAYERS,
    MAX_WIDTH,
    CodingKind,
    CompareKind,
    FrozenNetwork,
    LeakKind,
    ReadoutKind,
)
from codesign.machine.choices import (
    DEFAULTS,
    INPUT_WORDS,
    MAX_LANES,
    QUEUE_DEPTHS,
    Choices,
    Consumer,
    Pipeline,
    Shape,
    StateMemory,
    SynapseMemory,
    Synapses,
    check,
    keys,
)
from codesign.machine.goals import GOALS, Goal, expanded
from codesign.machine.schedules import Schedule, Sources

MAX_TRAINED_SHIFT = 12
MAX_CONFIG_BYTES = 1 << 20
MAX_DEPTH = 8

# How pydantic names a member of a union in the place of an error.
KIND_TAG = re.compile(r"^(bool|int|float|str|none|constrained-\w+|(literal|list|function-\w+)\[.*\])$")

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Level = Annotated[float, Field(gt=0, le=1)]
Lanes = Annotated[int, Field(ge=1, le=MAX_LANES)]
AUTO: Literal["auto"] = "auto"
Auto = Literal["auto"]
"""Left to the data: :mod:`codesign.data.automatic` chooses, and the run's configuration states what."""
Family = Literal["ice40", "ecp5", "xilinx", "gowin"]
Target = Literal["ecp5-25f", "ecp5-85f", "ice40-hx8k", "ice40-up5k"]


class Section(BaseModel):
    """Base of every section: unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


AnySection = TypeVar("AnySection", bound=Section)


def _whole_path(text: str) -> str:
    """The path from the root on, so that it means the same wherever the configuration is written."""
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        raise ValueError(f"{text!r} is of a user whose home is not known") from None


FilePath = Annotated[str, AfterValidator(_whole_path)]


class DataConfig(Section):
    """Which samples, how they are split and encoded."""

    set: Literal["digits", "mnist", "idx", "cifar10", "fsdd-spikes", "shd", "ssc", "mitbih-beats", "npz"] = "digits"
    path: FilePath | None = Field(
        default=None,
        description="folder or file, from the folder of this file on, with --set from the current one; default: "
        "$CODESIGN_DATA, then the user cache",
    )
    coding: CodingKind | Auto = Field(default=AUTO, description="auto: events for events, current for arrays")
    input_bits: int = Field(default=4, ge=1, le=8, description="bits of one input value (coding 'current')")
    validation: float | None = Field(
        default=None,
        gt=0,
        description="samples, or a fraction below 1, taken from the training set; default 150 but at most 15 %, or "
        "what the set names",
    )
    test: float | None = Field(
        default=None, gt=0, description="samples, or a fraction below 1; only for sets without an official test set"
    )
    train_limit: Count | None = Field(default=None, description="use at most this many training samples (stratified)")
    test_limit: Count | None = Field(default=None, description="use at most this many test samples (the first ones)")
    split_seed: int = Field(default=0, ge=0, description="seed of the stratified split; not changed by --seed")
    step_ms: Annotated[float, Field(gt=0)] | Auto = Field(
        default=AUTO,
        description="width of a timestep (coding 'events' from times); auto: so that the timesteps together last as "
        "long as nearly all training samples",
    )
    range: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="values at the bottom and the top of the scale (sets 'npz', 'idx'); default: see docs/data.md",
    )
    time_unit: TimeUnit = Field(default="ms", description="unit of the file's event times (set 'npz')")
    allow_dropped: bool = Field(
        default=False, description="go on if half of a set's events and more fall outside the timesteps"
    )
    rate_max: Fraction = Field(
        default=1.0, description="event probability per timestep of a full-scale input (coding 'rate')"
    )
    encoder_seed: int = Field(default=0, ge=0, description="seed of the encoder's draws (coding 'rate')")
    delta: Level | list[Level] = Field(
        default=0.1, description="send-on-delta level, or several, as fractions of full scale (coding 'delta')"
    )
    rr: bool = Field(default=False, description="RR intervals as further sources (set 'mitbih-beats')")
    subtract_mean_beat: bool = Field(
        default=False, description="beats less the running mean beat of their record (set 'mitbih-beats')"
    )
    validation_records: list[int] | None = Field(
        default=None, min_length=1, description="training records held out (set 'mitbih-beats'); docs/data.md: default"
    )
    shift_augmentation: int = Field(default=0, ge=0, le=4, description="random shifts of training images, +- pixels")
    flip_augmentation: bool = Field(default=False, description="mirror every second training image left to right")
    cutout_augmentation: int = Field(
        default=0, ge=0, description="side of a square of training images that is blanked at a random place, pixels"
    )
    event_jitter: int = Field(
        default=0, ge=0, le=64, description="random shifts of a training sample's events in time, +- timesteps"
    )
    event_drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="fraction of the event sources silenced in each training sample",
    )

    coding_of_key: ClassVar[dict[str, CodingKind]] = {
        "input_bits": "current",
        "rate_max": "rate",
        "encoder_seed": "rate",
        "step_ms": "events",
        "time_unit": "events",
        "allow_dropped": "events",
        "delta": "delta",
    }

    @model_validator(mode="after")
    def _belongs(self) -> DataConfig:
        for name, coding in self.coding_of_key.items():
            # 'auto' ends as one of two codings; what does not belong to it is refused then.
            fits = (coding, AUTO) if coding in ("current", "events") else (coding,)
            if name in self.model_fields_set and self.coding not in fits:
                raise ValueError(f"{name} belongs to coding = {coding!r}, not {self.coding!r}")
        for name in ("rr", "subtract_mean_beat", "validation_records"):
            if name in self.model_fields_set and self.set != "mitbih-beats":
                raise ValueError(f"{name} belongs to set = 'mitbih-beats', not {self.set!r}")
        if "time_unit" in self.model_fields_set and self.set != "npz":
            raise ValueError(f"time_unit belongs to set = 'npz'; set {self.set!r} has a unit of its own")
        if self.range is not None:
            if self.set not in ("npz", "idx") or self.coding == "events":
                raise ValueError(
                    "range belongs to arrays of the sets 'npz' and 'idx'; others have a scale of their own"
                )
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"range is [{low:g}, {high:g}], expected [low, high] with low < high")
        if self.path is not None and self.set == "digits":
            raise ValueError("path: set 'digits' is installed with scikit-learn and has no file")
        if isinstance(self.delta, list) and not self.delta:
            raise ValueError("delta: an empty list gives no sources")
        return self


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
        recurs = any(isinstance(layer, DenseLayer) and layer.recurrent for layer in self.layer_configs)
        if "recurrent_scale" in self.model_fields_set and not recurs:
            raise ValueError("recurrent_scale needs a recurrent layer")
        return self

    @model_validator(mode="after")
    def _one_leak(self) -> NetworkConfig:
        for name, kind in (("leak_shift", "shift"), ("leak_decay", "multiply")):
            if name in self.model_fields_set and self.leak != kind:
                raise ValueError(f"{name} belongs to leak = {kind!r}, not {self.leak!r}")
        if self.learn_leak is not None and self.leak == "none":
            raise ValueError("learn_leak needs leak = 'shift' or 'multiply'")
        if self.learn_leak == "neuron" and self.leak != "shift":
            raise ValueError("learn_leak = 'neuron' needs leak = 'shift'")
        if self.learn_leak is not None and self.leak == "multiply" and not 0 < self.leak_decay < 1:
            raise ValueError("learn_leak starts from leak_decay, which must lie between 0 and 1")
        return self


Preset = Literal["adaptive", "constant", "fixed", "set", "rigl", "sap", "static", "dense"]
Ratio = Literal["pq", "constant", "cosine"]
DensitySchedule = Literal["falling", "constant"]
Growth = Literal["momentum", "gradient", "random", "none"]
Landing = Literal["ratio", "pace", "distribution"]
# Target density up to which layers land on their share unless told otherwise (docs/method-study.md).
FEW_CONNECTIONS = 0.1

# ratio, density schedule and growth of each preset that changes connections.
PRESETS: dict[str, tuple[Ratio, DensitySchedule, Growth]] = {
    "adaptive": ("pq", "falling", "momentum"),
    "constant": ("pq", "constant", "momentum"),
    "fixed": ("constant", "falling", "momentum"),
    "set": ("constant", "constant", "random"),
    "rigl": ("cosine", "constant", "gradient"),
    "sap": ("pq", "falling", "none"),
}


@dataclass(frozen=True)
class Rules:
    """How connections change: a preset with what was chosen otherwise. ``changes`` is False for static and dense."""

    changes: bool
    ratio: Ratio
    density_schedule: DensitySchedule
    growth: Growth
    eta: float

    @property
    def falls(self) -> bool:
        """True if density falls from its start to its target."""
        return self.changes and self.density_schedule == "falling"


class RewiringConfig(Section):
    """Sparse structure learning: which connections there are from the start, and how they change.

    A preset is a choice of ratio, density_schedule and growth, each of which may be chosen otherwise:
    adaptive = pq, falling, momentum; constant = pq, constant, momentum; fixed = constant, falling, momentum;
    set = constant, constant, random; rigl = cosine, constant, gradient; sap = pq, falling, none with eta 0.
    static keeps its first connections, dense has all of them.
    """

    preset: Preset = "adaptive"
    ratio: Ratio | None = Field(
        default=None, description="fraction to rewire: from the PQ index, constant, or decayed by a cosine"
    )
    density_schedule: DensitySchedule | None = Field(
        default=None, description="falling: from start_density to target_density; constant: at target_density"
    )
    growth: Growth | None = Field(default=None, description="where new connections come: largest score, or anywhere")
    fraction: Fraction | None = Field(
        default=None,
        description="ratio 'constant': fraction rewired (default 0.3; with falling density the one that reaches the "
        "target with the last fall); ratio 'cosine': its first value (default 0.3)",
    )
    scope: Literal["layer", "neuron", "global"] = Field(
        default="layer", description="unit over which weights are measured, compared and kept in number"
    )
    start_density: Fraction = Field(default=0.5, description="density of the first step (falling density)")
    target_density: Fraction = Field(default=0.15, description="nonzero weights over dense weights, whole network")
    landing: Landing | None = Field(
        default=None,
        description="falling density, 'ratio': every layer shrinks by its own ratio, and the last fall takes what is "
        "left above the target; 'pace': each fall takes at least its part of the way to the target; 'distribution': "
        "so, and every layer ends with the share that distribution gives it there; default: 'distribution' to a tenth "
        "of the connections or fewer, where it is better (docs/method-study.md), else 'ratio'",
    )
    share: Literal["kept", "index"] = Field(
        default="kept",
        description="'kept': a rewiring leaves every layer (or neuron, with that scope) as many connections as it "
        "had; 'index': what there is together is shared out by how many of its weights each is worth keeping",
    )
    share_floor: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="share 'index': no layer (or neuron) comes below this part of what distribution gives it at the "
        "target density",
    )
    stop_at: Literal["target", "turning-point"] = Field(
        default="target", description="density falls to the target exactly, or at most to it until the PQ index turns"
    )
    choose_margin: float = Field(
        default=0.005,
        ge=0,
        lt=1,
        description="stop_at 'turning-point': the sparsest iteration within this accuracy of the best is chosen",
    )
    distribution: Literal["erdos-renyi", "uniform"] = Field(
        default="erdos-renyi", description="how the first connections are shared among the layers"
    )
    p: float = Field(default=0.5, gt=0)
    q: float = Field(default=1.0, gt=0)
    eta: float | None = Field(default=None, ge=0, description="default 0.001, with preset sap 0")
    gamma: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.9, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of the growth score (growth 'momentum')")
    score_batches: Count = Field(default=100, description="batches before a rewiring that the growth score looks at")
    epochs_per_iteration: Count | Auto = Field(default=AUTO, description="auto: a thirtieth of the epochs, 2 or more")
    rewire_every: Count = Field(default=1, description="epochs between rewirings inside an iteration")
    rewire_until: Fraction = Field(
        default=0.7,
        description="fraction of the epochs after which connections stay; the target density is reached by then",
    )
    restart: bool = Field(
        default=False, description="growth 'none': put the parameters back to their first values after each fall"
    )
    min_fan_in: int = Field(default=1, ge=0, description="synapses that every neuron keeps")
    lane_balance: Annotated[int, Field(ge=2, le=32)] | None = Field(
        default=None,
        description="P: every source keeps as many connections to each of P banks of neurons (index modulo P) of a "
        "dense layer, give or take one, so P lanes have equal work; a divisor of P unites banks; layers of "
        "fewer than 2 P neurons stay free",
    )
    layer_target: dict[str, Fraction] = Field(
        default_factory=dict,
        description="target density of single weight tensors by index or name, e.g. {'0' = 0.1}; target_density then "
        "speaks of the others",
    )

    def iteration_epochs(self, epochs: int) -> int:
        """Epochs of an iteration in a training of ``epochs``."""
        return max(2, epochs // 30) if self.epochs_per_iteration == AUTO else self.epochs_per_iteration

    @property
    def lands(self) -> Landing:
        """The landing meant."""
        if self.landing is not None:
            return self.landing
        if self.target_density > FEW_CONNECTIONS or self.stop_at == "turning-point":
            return "ratio"
        # Where layers share by another rule than distribution, they end with the shares that it gives.
        return "pace" if self.scope == "global" or self.share == "index" else "distribution"

    @property
    def rules(self) -> Rules:
        """The preset's rules with those that were chosen otherwise."""
        eta = (0.0 if self.preset == "sap" else 0.001) if self.eta is None else self.eta
        if self.preset not in PRESETS:
            return Rules(False, "constant", "constant", "none", eta)
        ratio, schedule, growth = PRESETS[self.preset]
        return Rules(True, self.ratio or ratio, self.density_schedule or schedule, self.growth or growth, eta)

    @model_validator(mode="after")
    def _ordered(self) -> RewiringConfig:
        if self.p >= self.q:
            raise ValueError("p must be less than q")
        for name, reason in self._ignored():
            if name in self.model_fields_set:
                raise ValueError(f"{name} has no meaning with {reason}")
        rules = self.rules
        if rules.changes and rules.growth == "none" and not rules.falls:
            raise ValueError("growth = 'none' lets connections only go, which density_schedule = 'constant' forbids")
        if self.scope == "global" and self.landing == "distribution":
            raise ValueError("landing = 'distribution' has no meaning with scope = 'global'")
        if self.share == "index":
            if self.scope == "global" or (self.scope == "layer" and self.landing == "distribution"):
                kept = "scope = 'global'" if self.scope == "global" else "landing = 'distribution'"
                raise ValueError(f"share = 'index' has nothing to share out with {kept} and scope = {self.scope!r}")
            if self.lane_balance is not None:
                raise ValueError("share = 'index' is not built together with lane_balance; leave one out")
        if self.lane_balance is not None and self.scope == "neuron":
            raise ValueError("lane_balance has no choice left with scope = 'neuron'; use 'layer' or 'global'")
        if rules.falls and self.target_density > self.start_density:
            raise ValueError("target_density must not exceed start_density")
        return self

    def _ignored(self) -> Iterator[tuple[str, str]]:
        """Options that nothing would read, each with the choice that is to blame."""
        kept = set(type(self).model_fields)
        if self.preset in ("static", "dense"):
            kept = {"preset", "p", "q"}
        if self.preset == "static":
            kept |= {"target_density", "distribution", "min_fan_in", "layer_target", "lane_balance"}
        yield from ((name, f"preset = {self.preset!r}") for name in type(self).model_fields if name not in kept)
        if self.preset in ("static", "dense"):
            return
        rules = self.rules
        if rules.ratio == "pq":
            yield "fraction", "ratio = 'pq'"
        else:
            unread = ("gamma", "beta") if self.share == "index" else ("eta", "gamma", "beta")
            yield from ((name, f"ratio = {rules.ratio!r}") for name in unread)
        if rules.growth != "momentum":
            yield from ((name, f"growth = {rules.growth!r}") for name in ("momentum", "score_batches"))
        yield "rewire_every" if rules.growth == "none" else "restart", f"growth = {rules.growth!r}"
        if not rules.falls:
            yield from ((name, "density_schedule = 'constant'") for name in ("start_density", "stop_at", "landing"))
        if self.stop_at == "target":
            yield "choose_margin", "stop_at = 'target'"
        if self.share == "kept":
            yield "share_floor", "share = 'kept'"
        if self.scope == "global":
            yield "layer_target", "scope = 'global'"


class TrainConfig(Section):
    """Gradient training; one learning-rate schedule over the whole run."""

    epochs: Count | Auto = Field(
        default=AUTO, description="auto: as many as make about 2,000 optimiser steps, 20 to 400"
    )
    batch_size: Count | Auto = Field(
        default=AUTO, description="auto: about a 32nd of the training samples, a power of two from 16 to 128"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    amp: bool | Literal["auto"] = Field(
        default=False,
        description="products in bfloat16: on a CUDA device, or on a processor with AMX or AVX-512 for it; 'auto': "
        "where the device has it",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile what lies between the neurons (convolutions, normalisation, pooling): for GPUs; "
        "takes a minute or two before the first step and rounds differently",
    )
    surrogate: Literal["rectangular", "atan", "fast_sigmoid"] = "atan"
    surrogate_width: float = Field(default=1.0, gt=0, description="in thresholds; the smaller, the steeper")
    surrogate_area: float = Field(
        default=1.0, gt=0, description="area under the surrogate; below 1 it damps gradients through time"
    )
    loss: Literal["rate", "count", "membrane", "tet"] = Field(
        default="rate",
        description="cross-entropy of the readout | squared error of spike counts | cross-entropy of the greatest"
        " membrane potential | cross-entropy at every timestep",
    )
    count_correct: float = Field(
        default=0.9, ge=0, le=1, description="target spikes per timestep of the right class (loss 'count')"
    )
    count_incorrect: float = Field(
        default=0.1, ge=0, le=1, description="target spikes per timestep of the other classes (loss 'count')"
    )
    tet_lambda: float = Field(
        default=0.05, ge=0, le=1, description="share of the squared distance to tet_mean (loss 'tet')"
    )
    tet_mean: float = Field(default=1.0, description="value that every output is drawn to (loss 'tet')")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    activity_target: float | None = Field(
        default=None, ge=0, le=1, description="spikes per neuron and timestep that hidden layers are drawn to"
    )
    activity_weight: float = Field(
        default=1.0, gt=0, description="factor of the squared distance to activity_target in the loss"
    )
    operations_target: float | None = Field(
        default=None,
        gt=0,
        description="synaptic operations per sample that the network is drawn down to, in training and fine-tuning: "
        "every event times the synapses or taps it walks, input currents once a sample",
    )
    operations_weight: float = Field(
        default=0.1, gt=0, description="factor of ln(operations / operations_target), where above 0, in the loss"
    )
    clip_grad_norm: float | None = Field(default=None, gt=0, description="largest norm of the whole gradient")
    class_balance: float = Field(
        default=0.0, ge=0, le=1, description="weigh each class's loss by (samples of the class) ** -class_balance"
    )
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=0, ge=0, description="torch threads; 0 leaves torch's choice")
    rewiring: RewiringConfig = RewiringConfig()

    @model_validator(mode="after")
    def _belongs(self) -> TrainConfig:
        for name, loss in (
            ("count_correct", "count"),
            ("count_incorrect", "count"),
            ("tet_lambda", "tet"),
            ("tet_mean", "tet"),
        ):
            if name in self.model_fields_set and self.loss != loss:
                raise ValueError(f"{name} belongs to loss = {loss!r}, not {self.loss!r}")
        if "activity_weight" in self.model_fields_set and self.activity_target is None:
            raise ValueError("activity_weight needs activity_target")
        if "operations_weight" in self.model_fields_set and self.operations_target is None:
            raise ValueError("operations_weight needs operations_target")
        if self.loss == "count" and self.label_smoothing:
            raise ValueError("label_smoothing has no meaning with loss = 'count'; its targets are count_*")
        return self


class FreezeConfig(Section):
    """Quantisation-aware fine-tuning and freezing into integers."""

    weight_bits: int = Field(default=6, ge=2, le=8)
    scale: Literal["layer", "neuron"] = Field(
        default="layer", description="one weight scale per layer, or per neuron (per channel in a convolution)"
    )
    fraction_bits: int | None = Field(
        default=None, ge=0, le=16, description="default: smallest with threshold >= 2^(k+3)"
    )
    membrane_width: int | None = Field(default=None, ge=4, le=32, description="default: derived from training data")
    epochs: Annotated[int, Field(ge=0)] | Auto = Field(
        default=AUTO,
        description="quantisation-aware epochs at fixed connectivity; auto: a fifth of train.epochs, 2 to 20",
    )
    learning_rate: float = Field(default=5e-4, gt=0)


class CapacityConfig(Section):
    """What a loadable machine is to hold at most; what is left out is as the network needs that it is built with."""

    inputs: Count | None = Field(default=None, description="inputs")
    timesteps: Count | None = Field(default=None, description="timesteps")
    neurons: list[Count] | None = Field(default=None, description="neurons of each hidden layer")
    synapses: list[Count] | Count | None = Field(
        default=None,
        description="words of each lane's synapse memory, one number or one per layer; default: what the fullest lane "
        "needs, to the next power of two",
    )
    weight_bits: int | None = Field(default=None, ge=2, le=8)
    membrane_width: int | None = Field(default=None, ge=4, le=32)
    headroom: int = Field(default=1, ge=0, le=16, description="bits beyond this network's weighted sums and biases")


class HardwareConfig(Section):
    """Shape of the accelerator."""

    goal: Goal | None = Field(
        default=None,
        description="what the machine is to be; decides the keys below that are not given, and the lanes. "
        + "; ".join(f"{name}: {aim.text}" for name, aim in GOALS.items()),
    )
    lanes: list[Lanes] | Lanes | Literal["auto"] = Field(
        default=1,
        description="lanes of every layer, or one number per layer; auto, which is the default with a goal: as many as "
        "the goal asks for, from what the calibration samples make each layer do",
    )
    shape: Shape = Field(
        default=DEFAULTS.shape,
        description="streaming: an engine per layer, all at work at once; folded: one engine, layers in turn, smaller",
    )
    queue_depth: int = Field(
        default=DEFAULTS.queue_depth,
        ge=QUEUE_DEPTHS[0],
        le=QUEUE_DEPTHS[1],
        description="events that a lane may lag behind",
    )
    input_words: int = Field(
        default=DEFAULTS.input_words,
        ge=INPUT_WORDS[0],
        le=INPUT_WORDS[1],
        description="words of an input beat; boards' links send one",
    )
    event_streams: Literal[1, 2, 4] = Field(
        default=1,
        description="events that each layer takes in a clock: a lane walks the rows of as many at once, out of row "
        "tables and synapse memories of their own; for many lanes, which starve on one event a clock",
    )
    schedule: Schedule | Literal["auto"] | list[Schedule] = Field(
        default="timestep",
        description="how often a layer walks a source's row, one word for all layers or one for each: timestep, in "
        "every timestep in which the source fires; sample, once a sample for all timesteps, which takes masks, a sum "
        "for each timestep, and the whole sample before the layer says anything; auto: what the goal makes of the "
        "calibration samples, layer by layer. Input currents are walked once in any case",
    )
    input_checks: bool = Field(
        default=True,
        description="false: the host keeps the rules of the input, and what breaks them is undefined; boards need true",
    )
    counters: bool = Field(default=True, description="count saturations and clocks; false: the ports stay 0")
    state_memory: StateMemory = Field(
        default="auto", description="membranes in block or distributed memory, or as the synthesis tool likes"
    )
    synapse_memory: SynapseMemory = Field(
        default="auto",
        description="spram: synapses in single-port RAM (iCE40 UP5K), which needs loadable = true; the machine starts "
        "without a network, and its first load is the bundle's boot.bin",
    )
    synapses: Synapses = Field(
        default="plain",
        description="compact: rows in groups, gaps for slots and codes for weights, whichever take the fewest bits in "
        "each layer; less memory for more logic",
    )
    pipeline: Pipeline = Field(
        default="deep",
        description="short: fewer registers in the lanes, so fewer cells and clocks, and a slower clock",
    )
    lockstep: bool = Field(
        default=False,
        description="a layer's lanes walk each row together, from one memory: less logic and fewer memories, and lanes "
        "wait for each other (shape 'streaming', plain synapses)",
    )
    spike_fifos: bool = Field(
        default=True,
        description="FIFOs behind the layers; false: a layer waits for the one behind it",
    )
    output_spikes: bool = Field(
        default=True,
        description="send the last layer's spikes; false: only counts, which then lie beside the membranes, and the "
        "decision (readout spike_count)",
    )
    block_rom_bits: int = Field(
        default=DEFAULTS.block_rom_bits,
        ge=0,
        description="rows, synapses and parameters of as many bits ask for block memory; less is left to the tool",
    )
    early_exit: Literal["off", "certain"] | Annotated[int, Field(ge=1, le=MAX_MARGIN)] = Field(
        default="off",
        description="decide a sample before its last timestep: certain, when no class can overtake any more (readout "
        "spike_count), or when the first class leads by this margin; adds latency counters",
    )
    name: TopName = Field(default="snn", description="name of the top module")
    loadable: bool = Field(
        default=False, description="other networks can be loaded while the machine runs (shape 'streaming')"
    )
    capacity: CapacityConfig = CapacityConfig()

    @model_validator(mode="after")
    def _loads(self) -> HardwareConfig:
        if not self.loadable and self.capacity != CapacityConfig():
            raise ValueError("capacity is that of a loadable machine; it needs loadable = true")
        return self

    @property
    def choices(self) -> Choices:
        """What the machine is, beside its lanes and capacity."""
        return Choices(**{key: getattr(self, key) for key in keys()})


Limit = Annotated[int, Field(ge=1)]


class BudgetConfig(Section):
    """Hardware that the network must fit: density falls, and weight bits and lanes are chosen, until it does.

    A board, whose link counts too, or a device out of the tools' targets; each with narrower limits where given. Memory
    and cycles can be limited without a device. train.rewiring.target_density is then only the lowest density; the
    fewest weight bits decide where density stops, and the trained network gets the most that fit.
    """

    board: str | None = Field(default=None, description="a board, see `codesign boards`")
    target: Target | None = Field(default=None, description="a device instead of a board")
    lut: Limit | None = Field(default=None, description="logic: ICESTORM_LC (iCE40) or TRELLIS_COMB (ECP5)")
    bram: Limit | None = Field(default=None, description="native memory blocks: 4 Kbit (iCE40) or 18 Kbit (ECP5)")
    memory_bits: Limit | None = Field(default=None, description="bits of all memories, whatever they are built from")
    cycles: Limit | None = Field(
        default=None,
        description="mean clocks from the first input to the decision; with early exit as if samples were whole",
    )
    latency_us: float | None = Field(
        default=None, gt=0, description="the same as a time, at the clock of the board or at clock_mhz"
    )
    clock_mhz: float | None = Field(
        default=None, gt=0, description="clock that a target must reach; without a target, what latency_us assumes"
    )
    weight_bits: list[Annotated[int, Field(ge=2, le=8)]] = Field(
        default=[4, 5, 6], min_length=1, description="choices; the most bits that fit are taken"
    )
    lanes: list[Lanes] = Field(
        default=[1, 2, 4, 8],
        min_length=1,
        description="choices, for every layer; the most that fit are taken, or the fewest that meet a limit in time",
    )

    @property
    def active(self) -> bool:
        """True if there is a limit."""
        return any(getattr(self, name) is not None for name in (*self._sources, *self._limits))

    _sources = ("board", "target")
    _limits = ("lut", "bram", "memory_bits", "cycles", "latency_us")

    @model_validator(mode="after")
    def _consistent(self) -> BudgetConfig:
        given = [name for name in type(self).model_fields if name in self.model_fields_set]
        if given and not self.active:
            raise ValueError(f"{given[0]} needs a limit: board, target, {', '.join(self._limits)}")
        if self.board is not None and self.target is not None:
            raise ValueError("board and target exclude each other")
        for name in ("lut", "bram"):
            if getattr(self, name) is not None and self.board is None and self.target is None:
                raise ValueError(f"{name} needs a board or a target, whose units it counts")
        if self.cycles is not None and self.latency_us is not None:
            raise ValueError("cycles and latency_us exclude each other")
        if self.clock_mhz is not None and (self.board is not None or (self.target is None and self.latency_us is None)):
            raise ValueError("clock_mhz needs a target or latency_us; a board has its own clock")
        if self.latency_us is not None and self.board is None and self.clock_mhz is None:
            raise ValueError("latency_us needs a board, or clock_mhz")
        return self


class VerifyConfig(Section):
    """What is simulated."""

    samples: Count | None = Field(default=None, description="test samples simulated; default all")
    stress_samples: Count = Field(default=16, description="samples repeated under random backpressure and resets")
    seed: int = Field(default=1, ge=0)


class SynthConfig(Section):
    """Which tools give area and clock figures."""

    families: list[Family] = Field(default=["ecp5", "ice40"], description="area from yosys")
    fmax: list[Target] = Field(default=["ecp5-25f"], description="clock and placed area from nextpnr")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[1, 2, 3], min_length=1, description="nextpnr seeds")


class Config(Section):
    """A whole run: a section for each part, frozen. Made by :func:`load_config` and :func:`parse_config`.

    >>> import codesign
    >>> codesign.Config().hardware.lanes
    1
    """

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    train: TrainConfig = TrainConfig()
    freeze: FreezeConfig = FreezeConfig()
    hardware: HardwareConfig = HardwareConfig()
    budget: BudgetConfig = BudgetConfig()
    verify: VerifyConfig = VerifyConfig()
    synth: SynthConfig = SynthConfig()

    @model_validator(mode="after")
    def _reach_goal(self) -> Config:
        hardware = self.hardware
        if hardware.goal is None:
            return self
        aims = GOALS[hardware.goal].choices
        stays = [key for key in aims if key in hardware.model_fields_set and getattr(hardware, key) != aims[key]]
        if stays:
            warnings.warn(
                f"hardware.goal = {hardware.goal!r}: {', '.join(stays)} "
                f"{'is' if len(stays) == 1 else 'are'} given and not decided by it",
                CodesignWarning,
                stacklevel=2,
            )
        reached = hardware.model_copy()
        for key, value in self._of_goal.items():
            # Not among the keys that are given: a configuration that is written and read again has the same.
            object.__setattr__(reached, key, value)
        object.__setattr__(self, "hardware", reached)
        return self

    @property
    def _of_goal(self) -> dict[str, Any]:
        """Keys of [hardware] that its goal decides, with their values."""
        hardware = self.hardware
        if hardware.goal is None:
            return {}
        given = {key: getattr(hardware, key) for key in keys() if key in hardware.model_fields_set}
        consumers: list[Consumer] = [] if self.budget.board is None else ["board"]
        found = expanded(
            hardware.goal,
            given,
            readout=self.network.readout,
            structured=not self.network.is_plain_chain,
            consumers=consumers,
        )
        return found if "lanes" in hardware.model_fields_set or self.budget.active else {"lanes": "auto", **found}

    @model_validator(mode="after")
    def _lanes_fit(self) -> Config:
        lanes, count = self.hardware.lanes, self.network.n_layers
        if isinstance(lanes, list) and len(lanes) != count:
            raise ValueError(entries_for("hardware.lanes", len(lanes), count))
        check(
            self.hardware.choices,
            readout=self.network.readout,
            lanes=lanes if isinstance(lanes, list) else None,
            structured=not self.network.is_plain_chain,
            sources=self.network.sources,
        )
        if self.train.loss == "count" and self.network.readout != "spike_count":
            raise ValueError("train.loss = 'count' needs network.readout = 'spike_count'")
        if self.train.loss == "membrane" and self.network.readout not in ("spike_count", "membrane_max"):
            raise ValueError("train.loss = 'membrane' needs network.readout = 'spike_count' or 'membrane_max'")
        if self.train.operations_target is not None and self.network.n_layers == 1:
            raise ValueError(
                "train.operations_target draws on the spikes of hidden layers, and the network has none; the work of "
                "a single layer follows from its inputs and train.rewiring.target_density"
            )
        return self

    @property
    def decided(self) -> tuple[tuple[str, str], ...]:
        """Options (section, key) that a budget decides, so that they may not be given beside it."""
        return (("freeze", "weight_bits"), ("hardware", "lanes")) if self.budget.active else ()

    @property
    def implied(self) -> tuple[tuple[str, str], ...]:
        """Options (section, key) that follow from others, so that they need not be written."""
        hardware = self.hardware
        left = [key for key in ("lanes", *keys()) if hardware.goal is not None and key not in hardware.model_fields_set]
        return (*self.decided, *(("hardware", key) for key in left))

    @model_validator(mode="after")
    def _one_decision(self) -> Config:
        rewiring = self.train.rewiring
        for section, key in self.decided:
            if key in getattr(self, section).model_fields_set:
                raise ValueError(f"{section}.{key} and [budget] exclude each other; name the choices in budget.{key}")
        if self.budget.active and not rewiring.rules.falls:
            raise ValueError(
                "[budget] needs a density that falls until the network fits; "
                f"train.rewiring.preset = {rewiring.preset!r} with these options keeps it"
            )
        if self.budget.active and rewiring.stop_at != "target":
            raise ValueError("[budget] and train.rewiring.stop_at = 'turning-point' exclude each other")
        return self


def hardware_config(network: FrozenNetwork, **options: Any) -> HardwareConfig:
    """The section ``[hardware]`` for a frozen network that comes without a configuration.

    ``options`` are the section's keys; a ``goal`` decides the others as far as they go with this network, and with them
    the lanes. Raises InputError for keys and values that there are none of, UnsupportedError for choices that do not go
    together or with the network.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> codesign.hardware_config(network, goal="small").shape, codesign.hardware_config(network, lanes=2).lanes
    ('folded', 2)
    >>> codesign.hardware_config(network, lane=2)
    Traceback (most recent call last):
    codesign.basics.errors.InputError: hardware: unknown key 'lane'; did you mean 'lanes'?
    """
    hardware = parse_section(HardwareConfig, options, "hardware")
    if hardware.goal is not None:
        given = {key: getattr(hardware, key) for key in keys() if key in options}
        structured = not network.is_plain_chain
        decided = expanded(hardware.goal, given, readout=network.readout, structured=structured)
        hardware = parse_section(HardwareConfig, {"lanes": AUTO, **decided, **options}, "hardware")
    count = len(network.layers)
    if isinstance(hardware.lanes, list) and len(hardware.lanes) != count:
        raise InputError(entries_for("hardware.lanes", len(hardware.lanes), count))
    check(hardware.choices, network, lanes=lanes_per_layer(hardware, count))
    return hardware


def lanes_per_layer(config: HardwareConfig, n_layers: int) -> list[int] | None:
    """Lanes of each layer; one number stands for all. None if they are to be chosen."""
    if config.lanes == "auto":
        return None
    return list(config.lanes) if isinstance(config.lanes, list) else [config.lanes] * n_layers


def parse_config(document: dict[str, Any], where: str = "config") -> Config:
    """Validated configuration from nested tables, as a TOML file holds them; what is left out has its default.

    ``where`` is what messages call it. Raises InputError with one line per problem, UnsupportedError for options that
    are not built together.

    >>> import codesign
    >>> config = codesign.parse_config({"network": {"hidden": [64], "timesteps": 8}, "train": {"epochs": 20}})
    >>> config.network.hidden, config.freeze.weight_bits
    ([64], 6)
    >>> codesign.parse_config({"train": {"epoch": 20}})
    Traceback (most recent call last):
    codesign.basics.errors.InputError: config: unknown key 'train.epoch'; did you mean 'epochs'?
    """
    return parse_section(Config, document, where)


def parse_section(section: type[AnySection], document: Mapping[str, Any], where: str) -> AnySection:
    """A single section, validated. Raises InputError with one line per problem."""
    try:
        return section.model_validate(dict(document))
    except ValidationError as error:
        raise InputError("; ".join(_explain_all(where, error.errors(), section))) from None


# Sections of earlier versions, which their run folders still have, and what has taken their place.
RETIRED = {"explore": "a search has a space file of its own (docs/exploring.md)"}


def load_config(path: str | Path, overrides: list[str] | None = None, seed: int | None = None) -> Config:
    """Configuration from a TOML file, then ``--set section.key=value`` overrides, then the training seed.

    A relative ``data.path`` of the file starts at the file's folder, one of the overrides at the current folder; the
    configuration holds either from the root on. Raises InputError with one line per problem.

    >>> import codesign
    >>> from pathlib import Path
    >>> _ = Path("mine.toml").write_text("[train]\\nepochs = 5\\n")
    >>> config = codesign.load_config("mine.toml", ["network.hidden=[32]"], seed=3)
    >>> config.train.epochs, config.train.seed, config.network.hidden
    (5, 3, [32])
    """
    path = Path(path)
    text = read_text(path, NO_CONFIGURATION, MAX_CONFIG_BYTES)
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: not TOML (nested too deep)") from None
    for section in RETIRED.keys() & document.keys():
        del document[section]
        warnings.warn(f"{path}: [{section}] is left out: {RETIRED[section]}", CodesignWarning, stacklevel=2)
    data = document.get("data")
    given = data.get("path") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(given, str) and not given.startswith("~"):
        data["path"] = str(path.parent.resolve() / given)
    for override in overrides or []:
        apply_override(document, override)
    if seed is not None:
        document.setdefault("train", {})["seed"] = seed
    return parse_config(document, str(path))


def apply_override(document: dict[str, Any], override: str) -> None:
    """Set ``a.b.c=value`` in a nested document; the value is TOML, or else a plain string."""
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise InputError(f"--set {override!r}: expected section.key=value")
    if not override.isascii() and not _is_text(override):
        raise InputError(f"--set {override!r}: is not UTF-8 text")
    if len(names) > MAX_DEPTH:
        raise InputError(f"--set {override!r}: no section lies so deep")
    try:
        document_of_value = tomllib.loads(f"value = {text}")
        # A line break in the text would begin another key.
        value: Any = document_of_value["value"] if len(document_of_value) == 1 else text.strip()
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except (ValueError, RecursionError) as error:
        raise InputError(f"--set {override!r}: no value ({error})") from None
    for name in names[:-1]:
        document = document.setdefault(name, {})
        if not isinstance(document, dict):
            raise InputError(f"--set {override!r}: {name} is not a section")
    document[names[-1]] = value


def _is_text(text: str) -> bool:
    """False for bytes of the command line that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explain_all(where: str, errors: list[Any], root: type[Section]) -> list[str]:
    """One line per key: what each of several kinds of value is refused for is one problem."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for item in errors:
        # Which kind it was not follows the key.
        place = tuple(part for part in item["loc"] if not (isinstance(part, str) and KIND_TAG.match(part)))
        found.setdefault(place, []).append({**item, "loc": place})
    lines = []
    for items in found.values():
        first, *others = dict.fromkeys(item["msg"] for item in items)
        message = "".join((first, *(f", or {other.removeprefix('Input should be ')}" for other in others)))
        lines.append(_explain(where, {**items[0], "msg": message}, root))
    return lines


def _explain(where: str, item: Any, root: type[Section]) -> str:
    # The tag of a layer's kind follows its number; it is no key.
    path = [part for at, part in enumerate(item["loc"]) if not (at and isinstance(item["loc"][at - 1], int))]
    tags = [part for at, part in enumerate(item["loc"]) if at and isinstance(item["loc"][at - 1], int)]
    location = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        section: Any = root
        for name in path[:-1]:
            section = LAYER_KINDS[str(tags[0])] if isinstance(name, int) else section.model_fields[name].annotation
        near = difflib.get_close_matches(str(item["loc"][-1]), section.model_fields, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(section.model_fields)}"
        return f"{where}: unknown key {location!r}{hint}"
    message = item["msg"].removeprefix("Value error, ")
    given = f" (given {item['input']!r})" if not isinstance(item["input"], dict) else ""
    return f"{where}: {location or 'configuration'}: {message}{given}"
