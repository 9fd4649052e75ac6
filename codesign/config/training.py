"""The sections ``[train]``, ``[train.rewiring]`` and ``[freeze]``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from codesign.basics.errors import InputError
from codesign.config.base import AUTO, Auto, Count, FilePath, Fraction, Section

Preset = Literal["adaptive", "constant", "fixed", "set", "rigl", "sap", "static", "dense"]
Ratio = Literal["pq", "constant", "cosine"]
DensitySchedule = Literal["falling", "constant"]
Growth = Literal["momentum", "gradient", "random", "none"]
Landing = Literal["ratio", "pace", "distribution"]
MAX_THREADS = 4096
# What torch takes.
Seed = Annotated[int, Field(ge=0, lt=1 << 64)]
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

    A preset is a choice of ratio, density_schedule and growth, each of which may be chosen otherwise.
    """

    preset: Preset = Field(
        default="adaptive",
        description="; ".join(f"{name} = {', '.join(parts)}" for name, parts in PRESETS.items())
        + " with eta 0; static keeps its first connections, dense has all of them",
    )
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
        "so, and every layer ends with the share that distribution gives it there; default: to a tenth of the "
        "connections or fewer 'distribution', where it is better (docs/method-study.md), or 'pace' with scope 'global' "
        "or share 'index'; else, and always with stop_at 'turning-point', 'ratio'",
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
    min_fan_in: int = Field(
        default=1,
        ge=0,
        description="connections that every neuron (every channel of a convolution) keeps in each of its weight "
        "tensors, recurrent and shortcut ones too; served before the shares of distribution",
    )
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

    def check_rewirings(self, length: int) -> None:
        """Raise InputError for options of rewirings that an iteration of ``length`` epochs has none for.

        There is none in its last epoch, with which it falls.
        """
        if not self.rules.falls or self.growth == "none" or self.rewire_every < length:
            return
        fields = type(self).model_fields
        options = ("growth", "momentum", "score_batches", "rewire_every")
        unread = [name for name in options if getattr(self, name) != fields[name].default]
        if unread:
            raise InputError(
                f"{', '.join(unread)}: an iteration of {length} epoch{'s' * (length > 1)} has no rewiring with "
                f"rewire_every = {self.rewire_every}, as there is none in its last epoch; give more "
                f"epochs_per_iteration, or growth = 'none' to leave rewirings out"
            )

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
        ignored: dict[str, list[str]] = {}
        for name, reason in self._ignored():
            if name in self.model_fields_set:
                ignored.setdefault(reason, []).append(name)
        if ignored:
            # All at once: `codesign init` writes every key down.
            raise ValueError(
                "; ".join(
                    f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no meaning with {reason}"
                    for reason, names in ignored.items()
                )
                + f"; leave {'it' if sum(map(len, ignored.values())) == 1 else 'them'} out"
            )
        if self.epochs_per_iteration != AUTO:
            self.check_rewirings(self.epochs_per_iteration)
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
    learning_rate: float = Field(
        default=5e-3,
        gt=0,
        description="the highest: it rises linearly over the first 5 % of the steps, then falls to 0 by a cosine",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="of every trained number, biases and factors of normalisation too, as torch has it",
    )
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
    seed: Seed = 0
    threads: int = Field(
        default=0,
        ge=0,
        le=MAX_THREADS,
        description="torch threads; 0: torch's choice, or as many as a run that goes on began with",
    )
    start: FilePath | None = Field(
        default=None,
        description="folder of a training, or one of its checkpoints, to go on from with other options, timesteps or "
        "data: layers of the same sizes begin with its weights; as many connections as the density of the first step "
        "allows are kept, the strongest; "
        "from the folder of this file on, with --set from the current one; default: weights and connections are drawn",
    )
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
        default="layer",
        description="one weight scale per layer, or per neuron (per channel in a convolution); a last layer that only "
        "integrates has one in any case",
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
