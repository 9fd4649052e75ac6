"""Masks of a model's weights, and their change in the course of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from codesign.config import RewiringConfig, parse_section
from codesign.errors import InputError, UnsupportedError
from codesign.train.rewiring.balance import balanced_mask, balanced_order, can_balance
from codesign.train.rewiring.index import pq_index, rewiring_fraction
from codesign.train.rewiring.schedule import change_epochs, turning_point
from codesign.train.rewiring.start import apportion, layer_counts, random_mask

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Values = npt.NDArray[np.floating]

# First fraction of ratio 'constant' (Mocanu et al., 2018) and 'cosine' (Evci et al., 2020) where density stays.
DEFAULT_FRACTION = 0.3


@dataclass(frozen=True)
class LayerChange:
    """What one change of connections did to a weight tensor.

    step, epoch, iteration : when, counted from 1 in optimiser steps, epochs and iterations.
    change : 'rewire' (pruned and regrown) or 'fall' (pruned alone).
    layer : the parameter's name.
    density : active over all weights afterwards.
    index, fraction : I and c before it, means over the tensor's units weighted by their active weights.
    pruned, grown : numbers of connections.
    """

    step: int
    epoch: int
    iteration: int
    change: str
    layer: str
    density: float
    index: float
    fraction: float
    pruned: int
    grown: int


class PQRewirer:
    """Sparse connections of a model, from the first step, in any training loop.

    ::

        rewirer = PQRewirer(model, optimizer, steps_per_epoch=len(loader), epochs=20, target_density=0.1)
        for _ in range(20):
            for x, y in loader:
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()
                rewirer.step()

    Construction draws the masks and zeroes what they exclude; :meth:`step` counts an optimiser step, keeps pruned
    weights at exactly 0 whatever momentum and weight decay do, and at the end of an epoch changes connections as
    planned. A hook on the optimiser masks the gradients just before they are used, and gathers the dense gradient's
    growth score in the ``score_batches`` before a rewiring. Pruned and regrown weights start at 0 with zeroed optimiser
    state. The same masks follow from the same seed, weights and gradients on every process of data-parallel training.

    Parameters
    ----------
    model : sparse are its trainable parameters with more than one dimension, whatever module they belong to; the first
        dimension counts neurons, the others are flattened. DistributedDataParallel and compiled models are unwrapped.
    optimizer : holds the parameters. Without one, gradients are taken in :meth:`step`, which must then come before
        ``zero_grad``, and no optimiser state is reset.
    config : :class:`codesign.config.RewiringConfig`, or its options as keywords (``preset="rigl", ...``).
    steps_per_epoch, epochs : length of the training that the schedule is laid out for.
    include, exclude : patterns (``fc*.weight``) of the names of parameters that are sparse, or stay dense.
    seed : of the first masks and of random growth.
    stop : called with the active weights of each parameter at the start and after each fall; while it returns True,
        density falls no further (a hardware budget is met). Asked again after each rewiring, which may have brought
        back what had lost all connections (not with stop_at 'turning-point'). What the last fall would drop at once to
        reach the target goes in steps of the ratio, the hook asked after each.

    Raises
    ------
    InputError : options that contradict each other or the model; too few epochs to reach the target.
    UnsupportedError : a sparse parameter that several modules share.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        config: RewiringConfig | None = None,
        *,
        steps_per_epoch: int,
        epochs: int,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        seed: int = 0,
        stop: Callable[[dict[str, int]], bool] | None = None,
        **options: Any,
    ) -> None:
        if config is not None and options:
            raise InputError(f"PQRewirer: {next(iter(options))} was given beside a whole config; set it there")
        if steps_per_epoch < 1 or epochs < 1:
            raise InputError(f"PQRewirer: steps_per_epoch = {steps_per_epoch} and epochs = {epochs} must be 1 or more")
        self.config = parse_section(RewiringConfig, options, "PQRewirer") if config is None else config
        self.rules = self.config.rules
        self.steps_per_epoch, self.epochs, self.seed = steps_per_epoch, epochs, seed
        self.events = change_epochs(epochs, self.config)
        self.model, self.optimizer = _unwrapped(model), optimizer
        self.parameters = _sparse_parameters(self.model, include, exclude)
        if optimizer is not None:
            held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            for name, parameter in self.parameters.items():
                if id(parameter) not in held:
                    raise InputError(f"PQRewirer: the optimizer does not hold {name!r}; pass it there or exclude it")
        self.names = list(self.parameters)
        self._shapes = [(int(weight.shape[0]), math.prod(weight.shape[1:])) for weight in self.parameters.values()]
        self._ends = np.cumsum([rows * columns for rows, columns in self._shapes])
        self._bounds = list(zip([0, *self._ends[:-1].tolist()], self._ends.tolist(), strict=True))
        self._targets = self._target_groups()
        self.masks = self._first_masks()
        # Masks as factors: a product is many times faster than filling by a mask.
        self._factors = {name: mask.to(self.parameters[name].dtype) for name, mask in self.masks.items()}
        self._units = self._unit_slices()
        self._carry = {kind: np.zeros(len(self._units)) for kind in ("rewire", "fall")}
        self._scores: dict[str, Tensor] = {}
        self._steps = self._changed_at = 0
        self._scored = False
        self._indices: list[float] = []
        self.history: list[LayerChange] = []
        self._stop = stop
        self._initial: dict[str, Tensor] = {}
        self._zero_inactive()
        self.capture_initial()
        self.settled = not self.rules.falls or self._on_target or (stop is not None and stop(self.counts))
        """True once density falls no further: what is trained now has the final density."""
        if not self.settled and "fall" not in self.events.values():
            raise InputError(
                f"train.epochs = {epochs} leaves no iteration of {self.config.epochs_per_iteration} "
                f"epochs before rewire_until = {self.config.rewire_until:g}; raise train.epochs"
            )
        self._hook = None
        if optimizer is not None:
            self._hook = optimizer.register_step_pre_hook(lambda *_: self.mask_gradients())

    # What there is.

    @property
    def counts(self) -> dict[str, int]:
        """Active weights of each parameter."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    @property
    def layer_density(self) -> dict[str, float]:
        """Active over all weights of each parameter."""
        return {name: count / self.masks[name].numel() for name, count in self.counts.items()}

    @property
    def density(self) -> float:
        """Active over all weights of the sparse parameters."""
        return sum(self.counts.values()) / int(self._ends[-1])

    @property
    def steps(self) -> int:
        """Optimiser steps counted so far."""
        return self._steps

    def measure(self) -> dict[str, tuple[float, float]]:
        """(I, c) of each parameter now, means over its units weighted by their active weights."""
        return self._per_layer(self._measured(self._magnitudes(), self._active()))

    # The course of training.

    def step(self) -> list[LayerChange]:
        """Call after every ``optimizer.step()``; returns what changed, mostly nothing."""
        self.advance()
        return self.change()

    def advance(self) -> None:
        """Count an optimiser step and zero pruned weights, without changing connections.

        For loops that do something else at the end of an epoch, such as validation, before :meth:`change`.
        """
        if self.optimizer is None:
            self.mask_gradients()
        self._zero_inactive()
        self._steps += 1
        self._scored = False

    @property
    def due(self) -> str | None:
        """'rewire' or 'fall' if :meth:`change` would do that now."""
        epoch, rest = divmod(self._steps, self.steps_per_epoch)
        kind = self.events.get(epoch) if rest == 0 and self._changed_at < self._steps else None
        return None if kind == "fall" and self.settled else kind

    def change(self) -> list[LayerChange]:
        """Change connections if that is due; one entry per parameter, or nothing."""
        kind = self.due
        if kind is None:
            return []
        self._changed_at = self._steps
        if kind == "rewire":
            changes = self.rewire()
            if self._stop is not None and self.rules.falls and self.config.stop_at == "target":
                self.settled = self._on_target or self._stop(self.counts)
            return changes
        if self.config.stop_at == "turning-point":
            self._indices.append(self._mean_index())
            if turning_point(self._indices) is not None:
                self.settled = True
                return []
        last = self._steps // self.steps_per_epoch == max(e for e, kind in self.events.items() if kind == "fall")
        if last and self.config.stop_at == "target" and self._stop is not None:
            return self._last_falls(self._stop)
        changes = self.fall(final=last and self.config.stop_at == "target")
        self.settled = last or self._on_target or (self._stop is not None and self._stop(self.counts))
        return changes

    def _last_falls(self, stop: Callable[[dict[str, int]], bool]) -> list[LayerChange]:
        """Down to the target in as many falls as the ratio takes, and no further than the hook says."""
        changes = []
        while not self.settled:
            step = self.fall(paced=False)
            stuck = not any(change.pruned for change in step)
            changes += self.fall(final=True) if stuck else step
            self.settled = stuck or self._on_target or stop(self.counts)
        return changes

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Gather the growth score of the dense gradients if this step counts for one, and mask the gradients.

        The optimiser's hook calls it; call it after ``backward`` yourself where something reads the gradients before
        the optimiser does, such as clipping by norm.
        """
        if self._scores_now and not self._scored:
            decay = self.config.momentum if self.rules.growth == "momentum" else 0.0
            for name, parameter in self.parameters.items():
                score = self._scores.get(name)
                if score is None:
                    score = self._scores[name] = torch.zeros_like(parameter)
                score.mul_(decay)
                if parameter.grad is not None:
                    score.add_(parameter.grad, alpha=1 - decay)
            self._scored = True
        if self.density_is_one:
            return
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                parameter.grad.mul_(self._factors[name])

    @property
    def density_is_one(self) -> bool:
        """True for preset 'dense', which masks nothing."""
        return self.config.preset == "dense"

    @property
    def _scores_now(self) -> bool:
        """True if the coming step lies in the window before a rewiring."""
        if self.rules.growth not in ("momentum", "gradient"):
            return False
        window = self.config.score_batches if self.rules.growth == "momentum" else 1
        step = self._steps + 1
        upcoming = [e for e, kind in self.events.items() if kind == "rewire" and e * self.steps_per_epoch >= step]
        return bool(upcoming) and step > min(upcoming) * self.steps_per_epoch - window

    def rewire(self) -> list[LayerChange]:
        """Prune by the ratio now and regrow as many, in every unit. Positions just pruned are not regrown.

        Raises InputError if growth needs gradients and none has been seen since the last rewiring.
        """
        magnitudes, active = self._magnitudes(), self._active()
        unit_of = self._unit_of()
        units = self._measured(magnitudes, active)
        prunable = self._prunable(magnitudes, active)
        count = self._with_carry("rewire", units)
        # A unit without room for as many new connections would silently lose density.
        count = np.minimum(count, self._per_unit(unit_of, ~active))
        keys, prunable = self._in_balance(magnitudes, prunable, active)
        count = np.minimum(count, self._per_unit(unit_of, prunable))
        scores = -self._growth_scores()
        while True:
            pruned = _smallest(keys, prunable, unit_of, count)
            growth_keys, growable = self._in_balance(scores, ~active, active & ~pruned, growing=True)
            room = self._per_unit(unit_of, growable)
            if np.all(count <= room):
                break
            count = np.minimum(count, room)
        grown = _smallest(growth_keys, growable, unit_of, count)
        self._scores.clear()
        return self._apply("rewire", units, pruned, grown)

    def fall(self, *, final: bool = False, paced: bool = True) -> list[LayerChange]:
        """Prune by the ratio now without regrowth, never below the target densities.

        With ``final`` whatever is left above a target goes too, so that the density lands exactly on it. With
        ``paced`` and landing 'distribution' at least so much goes that equal ratios from now on end at the target.
        """
        magnitudes, active = self._magnitudes(), self._active()
        unit_of = self._unit_of()
        units = self._measured(magnitudes, active)
        keys, prunable = self._in_balance(magnitudes, self._prunable(magnitudes, active), active)
        room = self._per_unit(unit_of, prunable)
        wanted = np.minimum(self._with_carry("fall", units), room)
        counts = list(self.counts.values())
        for members, target in self._targets:
            excess = max(0, sum(counts[layer] for layer in members) - target)
            chosen = np.array([unit for unit, part in enumerate(self._units) if self._layer_of(part) in members])
            together, limits = wanted[chosen], room[chosen]
            part = self._part_of_the_way(excess, target) if paced else 0
            due = excess if final else min(excess, max(int(together.sum()), part))
            if due > limits.sum():
                raise InputError(
                    f"train.rewiring: layers {members} cannot fall by {due} connections in balance: the strongest of "
                    f"each neuron, which min_fan_in = {self.config.min_fan_in} keeps, lie too unevenly; lower "
                    f"min_fan_in, or give up lane_balance"
                )
            if due != together.sum():
                base = together if together.sum() else limits
                share = base * (due / max(1, base.sum()))
                wanted[chosen] = apportion(np.minimum(share, limits), due, np.zeros_like(limits), limits)
        pruned = _smallest(keys, prunable, unit_of, wanted)
        changes = self._apply("fall", units, pruned, np.zeros_like(pruned))
        if self.config.restart:
            self._restart()
        return changes

    def _part_of_the_way(self, excess: int, target: int) -> int:
        """Connections of ``excess`` that a fall has to take so that equal ratios from now on end at ``target``."""
        if self.config.landing == "ratio" or not excess:
            return 0
        epoch = self._steps // self.steps_per_epoch
        falls = sum(kind == "fall" and at >= epoch for at, kind in self.events.items())
        return round((target + excess) * (1 - (target / (target + excess)) ** (1 / max(1, falls))))

    @torch.no_grad()
    def capture_initial(self) -> None:
        """Take the model's present parameters as the ones that ``restart`` returns to."""
        if self.config.restart:
            self._initial = {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def remove(self) -> None:
        """Take the hook off the optimiser; masks and weights stay as they are."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    # Saving.

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of training depends on.

        Tensors ``mask.<name>``, ``score.<name>``, ``initial.<name>``, ``carry.rewire`` and ``carry.fall``, and
        ``document``, of JSON's types. The model's and the optimiser's states are saved beside it.
        """
        state: dict[str, Any] = {f"mask.{name}": mask.clone() for name, mask in self.masks.items()}
        state |= {f"score.{name}": score.clone() for name, score in self._scores.items()}
        state |= {f"initial.{name}": value.clone() for name, value in self._initial.items()}
        state |= {f"carry.{kind}": torch.from_numpy(carry.copy()) for kind, carry in self._carry.items()}
        state["document"] = {
            "options": self.config.model_dump(),
            "schedule": [self.steps_per_epoch, self.epochs, self.seed],
            "steps": self._steps,
            "changed_at": self._changed_at,
            "settled": self.settled,
            "indices": list(self._indices),
            "history": [asdict(change) for change in self.history],
        }
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken. InputError if it is of another model or other options."""
        document = state["document"]
        for name, ours in (
            ("options", self.config.model_dump()),
            ("schedule", [self.steps_per_epoch, self.epochs, self.seed]),
        ):
            if document.get(name) != ours:
                raise InputError(f"PQRewirer: the saved state has other {name} ({document.get(name)}, here {ours})")
        found = {key.removeprefix("mask."): tuple(value.shape) for key, value in state.items() if key[:5] == "mask."}
        expected = {name: tuple(mask.shape) for name, mask in self.masks.items()}
        if found != expected:
            raise InputError(f"PQRewirer: the saved masks are of other parameters ({found}, here {expected})")
        for name, mask in self.masks.items():
            mask.copy_(state[f"mask.{name}"])
            self._factors[name].copy_(mask)
        device = {name: parameter.device for name, parameter in self.model.named_parameters()}
        for kind, kept in (("score", self._scores), ("initial", self._initial)):
            kept.clear()
            for key, value in state.items():
                name = key.removeprefix(f"{kind}.")
                if name != key:
                    kept[name] = value.clone().to(device[name])
        for kind in self._carry:
            self._carry[kind] = state[f"carry.{kind}"].numpy().copy()
        self._steps, self._changed_at = document["steps"], document["changed_at"]
        self.settled, self._indices = document["settled"], list(document["indices"])
        self.history = [LayerChange(**row) for row in document["history"]]
        self._scored = False
        self._zero_inactive()

    # The start.

    def _target_groups(self) -> list[tuple[list[int], int]]:
        """Groups of layers with the number of connections that each must come down to."""
        config, sizes = self.config, [rows * columns for rows, columns in self._shapes]
        if config.preset == "dense":
            return [(list(range(len(sizes))), sum(sizes))]
        named: dict[int, float] = {}
        for key, density in config.layer_target.items():
            index = int(key) if key.isdigit() else self.names.index(key) if key in self.names else len(sizes)
            if index >= len(sizes):
                raise InputError(
                    f"train.rewiring.layer_target: no layer {key!r}; layers are 0..{len(sizes) - 1}, by name "
                    f"{', '.join(self.names)}"
                )
            named[index] = density
        groups = [([layer], density) for layer, density in sorted(named.items())]
        rest = [layer for layer in range(len(sizes)) if layer not in named]
        if rest and config.landing == "distribution" and self.rules.falls:
            shapes = [tuple(self.parameters[self.names[layer]].shape) for layer in rest]
            found = layer_counts(shapes, config.target_density, config.distribution, config.min_fan_in)
            groups += [([layer], count / sizes[layer]) for layer, count in zip(rest, found, strict=True)]
        elif rest:
            groups.append((rest, config.target_density))
        result = []
        for members, density in groups:
            total = round(density * sum(sizes[layer] for layer in members))
            least = sum(self._shapes[i][0] * min(self._shapes[i][1], config.min_fan_in) for i in members)
            if total < least:
                raise InputError(
                    f"train.rewiring: a density of {density:g} leaves layers {members} {total} connections, too few "
                    f"for min_fan_in = {config.min_fan_in} ({least})"
                )
            result.append((members, total))
        return result

    def _first_masks(self) -> dict[str, Tensor]:
        config = self.config
        shapes = [tuple(weight.shape) for weight in self.parameters.values()]
        if config.preset == "dense":
            counts = [math.prod(shape) for shape in shapes]
        elif self.rules.falls:
            counts = layer_counts(shapes, config.start_density, config.distribution, config.min_fan_in)
            for members, target in self._targets:
                if (start := sum(counts[layer] for layer in members)) < target:
                    raise InputError(
                        f"train.rewiring: layers {members} start with {start} connections, fewer than their target of "
                        f"{target}; raise start_density or lower layer_target"
                    )
        else:
            counts = [0] * len(shapes)
            for members, target in self._targets:
                chosen = [shapes[layer] for layer in members]
                density = target / sum(math.prod(shape) for shape in chosen)
                found = layer_counts(chosen, density, config.distribution, config.min_fan_in)
                for layer, count in zip(members, found, strict=True):
                    counts[layer] = count
        random = np.random.default_rng([self.seed, 3])

        def first_mask(shape: tuple[int, ...], count: int) -> Bool:
            if config.lane_balance is not None and can_balance(shape, config.lane_balance):
                return balanced_mask(shape, count, config.min_fan_in, config.lane_balance, random)
            return random_mask(shape, count, config.min_fan_in, random)

        return {
            name: torch.from_numpy(first_mask(tuple(weight.shape), count)).to(weight.device)
            for (name, weight), count in zip(self.parameters.items(), counts, strict=True)
        }

    # Units: slices of all weights laid out one after another, row by row.

    def _unit_slices(self) -> list[slice]:
        if self.config.scope == "global":
            return [slice(0, int(self._ends[-1]))]
        if self.config.scope == "layer":
            return [slice(start, end) for start, end in self._bounds]
        return [
            slice(start + row * columns, start + (row + 1) * columns)
            for (start, _), (rows, columns) in zip(self._bounds, self._shapes, strict=True)
            for row in range(rows)
        ]

    def _layer_of(self, part: slice) -> int:
        return int(np.searchsorted(self._ends, part.start, side="right"))

    def _unit_of(self) -> Int:
        """The unit of each weight."""
        return np.repeat(np.arange(len(self._units)), [part.stop - part.start for part in self._units])

    def _row_of(self) -> Int:
        """The neuron of each weight, counted through all layers."""
        columns = np.concatenate([np.full(rows, columns) for rows, columns in self._shapes])
        return np.repeat(np.arange(columns.size), columns)

    def _per_unit(self, unit_of: Int, chosen: Bool) -> Int:
        return np.bincount(unit_of[chosen], minlength=len(self._units))

    def _flat(self, tensors: Mapping[str, Tensor]) -> npt.NDArray[Any]:
        return np.concatenate([tensors[name].detach().cpu().numpy().ravel() for name in self.names])

    def _magnitudes(self) -> Values:
        return np.abs(self._flat({name: weight.detach().float() for name, weight in self.parameters.items()}))

    def _active(self) -> Bool:
        return self._flat(self.masks)

    def _growth_scores(self) -> Values:
        if self.rules.growth == "random":
            return np.random.default_rng([self.seed, 4, self._steps]).random(int(self._ends[-1]))
        if not self._scores:
            raise InputError(
                "PQRewirer: no gradient was seen before this rewiring; give the optimizer, or call step() before "
                "zero_grad"
            )
        return np.abs(self._flat({name: score.float() for name, score in self._scores.items()}))

    # Ratios.

    def _measured(self, magnitudes: Values, active: Bool) -> list[tuple[int, float, float]]:
        """(d, I, c) of each unit, over its active weights, zeros included."""
        units = []
        for part in self._units:
            weights = magnitudes[part][active[part]]
            index = pq_index(weights, self.config.p, self.config.q)
            units.append((weights.size, index, self._fraction(weights.size, index)))
        return units

    def _fraction(self, count: int, index: float) -> float:
        """c of a unit by the chosen ratio, at the next change; 0 where connections do not change."""
        if not self.rules.changes:
            return 0.0
        if self.rules.ratio == "pq":
            return rewiring_fraction(count, index, self.config)
        falls = sum(kind == "fall" for kind in self.events.values())
        if self.config.fraction is not None:
            first = self.config.fraction
        elif self.rules.falls and self.rules.ratio == "constant" and falls:
            # The one ratio that takes the start to the target in the falls there are.
            first = 1 - (self._targets_total / self._start_total) ** (1 / falls)
        else:
            first = DEFAULT_FRACTION
        if self.rules.ratio == "constant":
            return first
        done = sum(epoch * self.steps_per_epoch < self._steps for epoch in self.events)
        return first / 2 * (1 + math.cos(math.pi * min(1.0, done / max(1, len(self.events)))))

    @property
    def _targets_total(self) -> int:
        return sum(target for _, target in self._targets)

    @property
    def _start_total(self) -> int:
        return round(self.config.start_density * int(self._ends[-1]))

    def _with_carry(self, kind: str, units: list[tuple[int, float, float]]) -> Int:
        """floor(c d) of each unit; the fraction lost is carried to the unit's next change of this kind."""
        exact = np.array([c * d for d, _, c in units]) + self._carry[kind]
        whole = np.floor(exact)
        self._carry[kind] = exact - whole
        return whole.astype(np.int64)

    def _prunable(self, magnitudes: Values, active: Bool) -> Bool:
        """Active connections beyond the min_fan_in strongest of each neuron."""
        if not self.config.min_fan_in:
            return active.copy()
        rows = self._row_of()
        least = np.minimum(np.bincount(rows[active], minlength=int(rows[-1]) + 1), self.config.min_fan_in)
        # Among equals the later position is the stronger, because pruning takes the earlier one first.
        protected = _smallest(-magnitudes[::-1], active[::-1], rows[::-1], least)[::-1]
        return active & ~protected

    def _in_balance(
        self, keys: Values, candidates: Bool, active: Bool, *, growing: bool = False
    ) -> tuple[Values, Bool]:
        """Keys and candidates of which any number of the smallest may go (or come, ``growing``) in balance."""
        lanes = self.config.lane_balance
        if lanes is None:
            return keys, candidates
        keys, candidates, turn = keys.copy(), candidates.copy(), np.arange(keys.size)
        for (start, end), shape, weight in zip(self._bounds, self._shapes, self.parameters.values(), strict=True):
            if can_balance(tuple(weight.shape), lanes):
                part = slice(start, end)
                order = start + balanced_order(
                    keys[part].reshape(shape), candidates[part].reshape(shape), active[part].reshape(shape), lanes,
                    growing=growing,
                )  # fmt: skip
                candidates[part] = False
                candidates[order] = True
                # What has to wait for others comes just after the last of them.
                keys[order] = np.maximum.accumulate(keys[order])
                turn[order] = np.arange(order.size)
        rank = np.empty(keys.size)
        rank[np.lexsort((turn, keys))] = np.arange(keys.size)
        return rank, candidates

    def _mean_index(self) -> float:
        units = self._measured(self._magnitudes(), self._active())
        return sum(d * index for d, index, _ in units) / max(1, sum(d for d, _, _ in units))

    def _per_layer(self, units: list[tuple[int, float, float]]) -> dict[str, tuple[float, float]]:
        if self.config.scope == "global":
            return dict.fromkeys(self.names, units[0][1:])
        found: dict[str, tuple[float, float]] = {}
        layers = np.array([self._layer_of(part) for part in self._units])
        table = np.array(units, np.float64)
        for layer, name in enumerate(self.names):
            d, index, c = table[layers == layer].T
            total = max(1.0, float(d.sum()))
            found[name] = float(d @ index) / total, float(d @ c) / total
        return found

    # Changing masks.

    @torch.no_grad()
    def _apply(self, kind: str, units: list[tuple[int, float, float]], pruned: Bool, grown: Bool) -> list[LayerChange]:
        measured = self._per_layer(units)
        epoch = -(-self._steps // self.steps_per_epoch)
        changes = []
        for (name, weight), (start, end) in zip(self.parameters.items(), self._bounds, strict=True):
            mask = self.masks[name]
            gone = torch.from_numpy(pruned[start:end].reshape(weight.shape)).to(mask.device)
            new = torch.from_numpy(grown[start:end].reshape(weight.shape)).to(mask.device)
            mask &= ~gone
            mask |= new
            self._factors[name].copy_(mask)
            fresh = gone | new
            weight.masked_fill_(fresh, 0.0)
            self._reset_state(weight, fresh)
            changes.append(
                LayerChange(
                    step=self._steps,
                    epoch=epoch,
                    iteration=-(-epoch // self.config.epochs_per_iteration),
                    change=kind,
                    layer=name,
                    density=float(mask.sum()) / mask.numel(),
                    index=measured[name][0],
                    fraction=measured[name][1],
                    pruned=int(gone.sum()),
                    grown=int(new.sum()),
                )
            )
        self.history += changes
        return changes

    def _reset_state(self, parameter: Tensor, positions: Tensor | None = None) -> None:
        """Zero the optimiser's state of a parameter, at some positions or altogether."""
        if self.optimizer is None:
            return
        for value in self.optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.zero_() if positions is None else value.masked_fill_(positions, 0.0)

    @torch.no_grad()
    def _restart(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self._initial[name])
            self._reset_state(parameter)
        self._zero_inactive()

    @torch.no_grad()
    def _zero_inactive(self) -> None:
        if self.density_is_one:
            return
        for name, parameter in self.parameters.items():
            parameter.mul_(self._factors[name])

    @property
    def _on_target(self) -> bool:
        counts = list(self.counts.values())
        return all(sum(counts[layer] for layer in members) <= target for members, target in self._targets)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers that prefix its parameters' names."""
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return _unwrapped(model.module)
    inner = getattr(model, "_orig_mod", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model


def _sparse_parameters(
    model: nn.Module, include: Sequence[str] | None, exclude: Sequence[str]
) -> dict[str, nn.Parameter]:
    every: dict[str, nn.Parameter] = dict(model.named_parameters(remove_duplicate=False))
    for kind, patterns in (("include", include or ()), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in every):
                raise InputError(f"PQRewirer: {kind} {pattern!r} matches no parameter; there are {', '.join(every)}")

    def wanted(name: str) -> bool:
        chosen = include is None or any(fnmatchcase(name, pattern) for pattern in include)
        return chosen and not any(fnmatchcase(name, pattern) for pattern in exclude)

    sparse = {name: p for name, p in every.items() if p.dim() > 1 and p.requires_grad and wanted(name)}
    if not sparse:
        raise InputError("PQRewirer: the model has no trainable parameter with more than one dimension to make sparse")
    for name, parameter in sparse.items():
        others = [other for other, value in every.items() if value is parameter and other != name]
        if others:
            raise UnsupportedError(
                f"PQRewirer: {name!r} is shared with {others[0]!r}; one mask for both is not built, so exclude them"
            )
    return sparse


def _smallest(keys: Values, candidates: Bool, groups: Int, counts: Int) -> Bool:
    """Mask of the ``counts[g]`` candidates with the smallest keys in each group g, ties by index."""
    chosen = np.zeros(keys.shape, bool)
    positions = np.flatnonzero(candidates)
    order = positions[np.lexsort((keys[positions], groups[positions]))]
    sorted_groups = groups[order]
    starts = np.searchsorted(sorted_groups, np.arange(len(counts)))
    rank = np.arange(order.size) - starts[sorted_groups]
    chosen[order[rank < counts[sorted_groups]]] = True
    return chosen
