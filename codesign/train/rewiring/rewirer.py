"""Masks of a model's weights, and their change in the course of training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from codesign.basics.errors import CodesignWarning, InputError
from codesign.basics.sparsity import apportion
from codesign.config import RewiringConfig, parse_section
from codesign.train.rewiring.growth import GrowthScores
from codesign.train.rewiring.optimizers import Optimizers, held_by, loss_scale, will_skip
from codesign.train.rewiring.parameters import check_unowned, disown, own, plain_name, sparse_parameters, unwrapped
from codesign.train.rewiring.ratios import Measured, Ratios, mean_index
from codesign.train.rewiring.schedule import change_epochs, turning_point
from codesign.train.rewiring.selection import Bool, Int, Layout, Values, smallest
from codesign.train.rewiring.shares import Shares
from codesign.train.rewiring.start import first_masks, target_groups
from codesign.train.rewiring.weights import MaskedWeights

# Steps that may change weights without showing their gradients: a run that writes weights itself while a scaler skips
# steps or gradients accumulate looks like an optimiser that nobody gave.
BLIND_STEPS = 32

# Weights of a parameter that are compared to see whether a step has changed it.
SAMPLED = 1024


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

    Construction draws the masks and zeroes what they exclude; :meth:`step` counts a step, keeps pruned weights at
    exactly 0 whatever momentum and weight decay do, and at the end of an epoch changes connections as planned. A hook
    on the optimiser masks the gradients just before they are used, also those that a closure makes, and gathers the
    dense gradient's growth score in the ``score_batches`` before a rewiring. Pruned and regrown weights start at 0
    with zeroed optimiser state; LBFGS begins its history anew. The same masks follow from the same seed, weights and
    gradients on every process of data-parallel training. Adam's count of steps is the parameter's and stays, so the
    first steps of regrown weights are longer (:class:`~codesign.train.rewiring.optimizers.Optimizers`).

    What counts is the calls of :meth:`step`, whatever the optimiser did: under gradient accumulation call it after
    every batch, or after every optimiser step, and give ``steps_per_epoch`` in the same unit. Steps that a GradScaler
    skips count; a rewiring for which no gradient has been seen waits for the next one.

    To resume, construct model, optimiser and rewirer and load the state of each, in any order. Copies and pickles of
    model, optimiser and rewirer together go on by themselves. Parameters that are moved, converted or replaced later
    are followed; where that is impossible the next step says so by name.

    Parameters
    ----------
    model : sparse are its trainable parameters with more than one dimension, whatever module they belong to; the first
        dimension counts neurons, the others are flattened. A parameter that modules share has one mask, by its first
        name. DistributedDataParallel and compiled models are unwrapped.
    optimizer : holds the parameters; or several that hold them together. Lightning's and accelerate's wrappers are
        unwrapped. Without one, gradients are taken in :meth:`step`, which must then come before ``zero_grad``, are not
        masked before they are used, and no optimiser state is reset.
    config : :class:`codesign.config.RewiringConfig`, or its options as keywords (``preset="rigl", ...``).
    steps_per_epoch, epochs : length of the training that the schedule is laid out for, in calls of :meth:`step`.
    include, exclude : patterns (``fc*.weight``), one or several, of the names of parameters that are sparse, or stay
        dense.
    seed : of the first masks and of random growth.
    first : the connections that there are first are drawn at random, or are those of the greatest 'magnitude' of the
        weights that the model has, equal ones in a random order: for a model that is trained already. One of no more
        connections than there are to be keeps all of them, whatever their shares among the parameters.
    stop : called with the active weights of each parameter at the start and after each fall; while it returns True,
        density falls no further (a hardware budget is met). Asked again after each rewiring, which may have brought
        back what had lost all connections (not with stop_at 'turning-point'). What the last fall would drop at once to
        reach the target goes in steps of the ratio, the hook asked after each.

    Raises
    ------
    InputError : options that contradict each other or the model; too few epochs to reach the target; a parameter that
        the optimizer does not hold, that has no values yet or that another rewirer works on. Later, from :meth:`step`
        or the optimizer's: weights that are NaN or infinite when connections change or are measured, a parameter that
        was replaced, resized or frozen and cannot be followed, gradients that never pass the optimizer given, weights
        that were lost on resuming.
    UnsupportedError : a sparse parameter that is not the weight the model computes with (parametrisations, weight
        norm), is not a dense tensor of real numbers, or has sparse gradients.

    Warns
    -----
    CodesignWarning : pruned weights that were written from outside, gradients that are not finite, a rewiring that
        found no gradient, more steps than the schedule was laid out for.

    >>> import codesign, torch
    >>> model = torch.nn.Linear(20, 10)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> rewirer = codesign.PQRewirer(model, optimizer, steps_per_epoch=1, epochs=10, target_density=0.2)
    >>> for _ in range(10):
    ...     optimizer.zero_grad()
    ...     model(torch.ones(4, 20)).square().mean().backward()
    ...     optimizer.step()
    ...     _ = rewirer.step()
    >>> rewirer.density, int((model.weight != 0).sum())
    (0.2, 40)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        config: RewiringConfig | None = None,
        *,
        steps_per_epoch: int,
        epochs: int,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] = (),
        seed: int = 0,
        first: Literal["random", "magnitude"] = "random",
        stop: Callable[[dict[str, int]], bool] | None = None,
        **options: Any,
    ) -> None:
        if config is not None and options:
            raise InputError(f"PQRewirer: {next(iter(options))} was given beside a whole config; set it there")
        for name, number, least in (("steps_per_epoch", steps_per_epoch, 1), ("epochs", epochs, 1), ("seed", seed, 0)):
            if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
                raise InputError(f"PQRewirer: {name} = {number!r} must be a whole number, {least} or more")
        if first not in ("random", "magnitude"):
            raise InputError(f"PQRewirer: first = {first!r} must be 'random' or 'magnitude'")
        steps_per_epoch, epochs, seed = int(steps_per_epoch), int(epochs), int(seed)
        self.config = parse_section(RewiringConfig, options, "PQRewirer") if config is None else config
        self.config.check_rewirings(self.config.iteration_epochs(epochs))
        self.rules = self.config.rules
        self.steps_per_epoch, self.epochs, self.seed = steps_per_epoch, epochs, seed
        self.events = change_epochs(epochs, self.config)
        self.model = unwrapped(model)
        parameters = sparse_parameters(self.model, include, exclude)
        check_unowned(parameters)
        self.optimizers = Optimizers(optimizer)
        for name, parameter in parameters.items():
            if not self._is_trained(parameter):
                raise InputError(f"PQRewirer: the optimizer does not hold {name!r}; pass it there or exclude it")
        self.names = list(parameters)
        self._layout = Layout([tuple(weight.shape) for weight in parameters.values()], self.config.scope)
        self._targets = target_groups(self.config, self._layout, self.names)
        self._shares = Shares(self.config, self._layout) if self.config.share == "index" else None
        self._steps = self._changed_at = 0
        found = None
        if first == "magnitude":
            values = self._magnitudes_of(parameters)
            found = [values[start:end] for start, end in self._layout.bounds]
        masks = first_masks(self.config, self._layout, self._targets, seed, found)
        self._weights = MaskedWeights(self.model, parameters, masks, masks_nothing=self.density_is_one)
        target = sum(target for _, target in self._targets)
        self._ratios = Ratios(self.config, self._layout, self.events, steps_per_epoch, target)
        self._waits = False
        self._indices: list[float] = []
        self.history: list[LayerChange] = []
        self._stop = stop
        self._initial: dict[str, Tensor] = {}
        self._growth = GrowthScores(self.config.momentum if self.rules.growth == "momentum" else 0.0)
        self._used = False
        self._uses = self._blind = 0
        self._sample: list[Tensor] | None = None
        self._warned: set[str] = set()
        self._expected: dict[str, int] = {}
        self._is_fresh = True
        self.capture_initial()
        self.settled = not self.rules.falls or self._on_target or (stop is not None and stop(self.counts))
        """True once density falls no further: what is trained now has the final density."""
        if not self.settled and "fall" not in self.events.values():
            self._weights.give_back()
            raise InputError(
                f"epochs = {epochs} leaves no iteration of {self.config.iteration_epochs(epochs)} "
                f"epochs before rewire_until = {self.config.rewire_until:g}; train for more epochs"
            )
        self._attached = False
        self._attach()

    def _attach(self) -> None:
        own(self.parameters, self)
        self.optimizers.watch(self._before_use, self._weights.unmask_gradients)
        self._attached = True

    def detach(self) -> None:
        """Give up the model: no hook, no masking and no steps any more; masks and weights stay as they are."""
        if self._attached:
            self.optimizers.unwatch()
            disown(self.parameters)
            self._attached = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies of optimisers come without hooks.
        self.__dict__.update(state)
        if self._attached:
            self._attach()

    # What there is.

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The sparse parameters by name, as of the last step."""
        return self._weights.parameters

    @property
    def masks(self) -> dict[str, Tensor]:
        """A bool mask for each parameter, True where a weight is active."""
        return self._weights.masks

    @property
    def counts(self) -> dict[str, int]:
        """Active weights of each parameter."""
        return self._weights.counts

    @property
    def layer_density(self) -> dict[str, float]:
        """Share of weights of each parameter that are active, or not 0 for another reason."""
        return {name: count / self.masks[name].numel() for name, count in self._weights.present().items()}

    @property
    def density(self) -> float:
        """Share of the sparse parameters' weights that are active, or not 0 for another reason."""
        return sum(self._weights.present().values()) / self._layout.size

    @property
    def steps(self) -> int:
        """Steps counted so far."""
        return self._steps

    def measure(self) -> dict[str, tuple[float, float]]:
        """(I, c) of each parameter now, means over its units weighted by their active weights."""
        return self._by_layer(self._measured(self._magnitudes(), self._active()))

    # The model and the optimisers, which others change as well.

    def _is_trained(self, parameter: Tensor) -> bool:
        return not self.optimizers or self.optimizers.holds(parameter)

    def _follow(self) -> None:
        """Take the model's parameters as they are now."""
        if not self._attached:
            raise InputError("PQRewirer: this rewirer was detached; construct another one")
        self._weights.follow(self._is_trained, self)
        for name, weight in self.parameters.items():
            if not weight.requires_grad and self._changes_ahead:
                raise InputError(
                    f"PQRewirer: {name!r} is frozen (requires_grad is False) with changes of connections ahead; "
                    f"exclude it, or detach() the rewirer"
                )

    @property
    def _changes_ahead(self) -> bool:
        last = max(self.events, default=0) * self.steps_per_epoch
        return self._waits or self._steps < last

    def _check_written(self) -> None:
        """Zero what was written into pruned weights since the last step; hold loaded weights against their state."""
        for name, count in self._weights.zero_written().items():
            self._warn(
                f"{count} pruned weights of {name!r} were written since the last step (loaded, or set from outside); "
                f"they are 0 again"
            )
        self._check_kept()
        if self._is_fresh and not self.density_is_one:
            # The optimiser may have trained the weights that the masks exclude.
            for name, weight in self.parameters.items():
                self.optimizers.reset(weight, ~self.masks[name])
        self._is_fresh = False
        self._weights.settle()

    def _check_kept(self) -> None:
        """Hold the weights against what was saved with a state that was loaded."""
        expected, self._expected = self._expected, {}
        found = self._weights.nonzero() if expected else {}
        for name, count in expected.items():
            if found[name] < count:
                raise InputError(
                    f"PQRewirer: {count - found[name]} active weights of {name!r} are 0 that were not when the state "
                    f"was saved; load the model's state again, after the rewirer was constructed"
                )

    def _check_seen(self) -> None:
        """Count steps that changed weights without showing their gradients; too many mean another optimiser at work."""
        if self._used or self.density_is_one or not (self.optimizers or self._grows_by_gradient):
            self._blind, self._sample = 0, None
            return
        weights = [weight.detach().reshape(-1) for weight in self.parameters.values()]
        sample = [weight[:: -(-weight.numel() // SAMPLED)].clone() for weight in weights]
        before, self._sample = self._sample, sample
        if before is not None and not all(torch.equal(one, other) for one, other in zip(before, sample, strict=True)):
            self._blind += 1
        if self._blind >= BLIND_STEPS:
            self._refuse_blindness()

    def _refuse_blindness(self) -> None:
        # A scaler skips every step of weights that are not numbers, which never equal what they were.
        self._magnitudes()
        if self.optimizers:
            kinds = " and ".join(type(optimizer).__name__ for optimizer in self.optimizers.all)
            raise InputError(
                f"PQRewirer: weights change, but step() of the optimizer given ({kinds}) does not run; give the one "
                f"that steps, such as the base optimizer of SAM"
            )
        raise InputError(
            "PQRewirer: no gradient was seen before this rewiring; give the optimizer, or call step() before zero_grad"
        )

    def _warn(self, text: str, once: str | None = None) -> None:
        if once is not None and once in self._warned:
            return
        self._warned |= {once} if once is not None else set()
        warnings.warn(f"PQRewirer: {text}", CodesignWarning, stacklevel=4)

    # The course of training.

    def step(self) -> list[LayerChange]:
        """Call after every ``optimizer.step()``; returns what changed, mostly nothing."""
        self.advance()
        return self.change()

    def advance(self) -> None:
        """Count a step and zero pruned weights, without changing connections.

        For loops that do something else at the end of an epoch, such as validation, before :meth:`change`.
        """
        if self.optimizers:
            self._follow()
        else:
            self._use(self.names)
        self._check_seen()
        self._weights.zero_pruned()
        self._weights.settle()
        self._steps += 1
        self._growth.next_step()
        self._used = False
        planned = self.steps_per_epoch * self.epochs
        if self._steps == planned + 1 and self.events:
            self._warn(
                f"step {self._steps} of the {planned} that steps_per_epoch = {self.steps_per_epoch} and epochs = "
                f"{self.epochs} lay out; all changes of connections lie behind"
            )

    @property
    def due(self) -> str | None:
        """'rewire' or 'fall' if :meth:`change` would do that now."""
        planned = self._planned
        if planned is None:
            return "rewire" if self._waits and self._is_scored else None
        return None if planned == "rewire" and not self._is_scored else planned

    @property
    def _planned(self) -> str | None:
        """The change planned after this very step, unless it has been begun."""
        epoch, rest = divmod(self._steps, self.steps_per_epoch)
        kind = self.events.get(epoch) if rest == 0 and self._changed_at < self._steps else None
        return None if kind == "fall" and self.settled else kind

    def change(self) -> list[LayerChange]:
        """Change connections if that is due; one entry per parameter, or nothing.

        A rewiring that needs gradients and has seen none since the last one waits for the next gradient, at most until
        the next planned change.
        """
        self._follow()
        kind, planned = self.due, self._planned
        if planned is not None:
            if self._blind > 1 and not self._uses:
                self._refuse_blindness()
            if self._waits:
                self._warn(f"the rewiring after step {self._changed_at} was left out: it found no gradient to grow by")
            self._changed_at, self._uses = self._steps, 0
            self._waits = kind is None
        if kind is None:
            return []
        if kind == "rewire":
            changes = self.rewire()
            self._waits = False
            if self._stop is not None and self.rules.falls and self.config.stop_at == "target":
                self.settled = self._on_target or self._stop(self.counts)
            return changes
        if self.config.stop_at == "turning-point":
            self._indices.append(mean_index(self._measured(self._magnitudes(), self._active())))
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

    def mask_gradients(self) -> None:
        """Gather the growth score of the dense gradients if this step counts for one, and mask the gradients.

        The optimiser's hook calls it; call it after ``backward`` yourself where something reads the gradients before
        the optimiser does, such as clipping by norm (with a GradScaler after its ``unscale_``).
        """
        self._use(self.names)

    def _before_use(self, optimizer: torch.optim.Optimizer, ready: bool) -> None:
        """The optimisers' hook: of those parameters that this one holds."""
        self._follow()
        held = {id(parameter) for parameter in held_by(optimizer)}
        names = [name for name in self.names if id(self.parameters[name]) in held]
        # Asked only where it matters: on a GPU the answer has to be waited for.
        score = ready and self._scores_now and not will_skip(optimizer)
        scale = loss_scale(optimizer) if score else 1.0
        # What earlier batches have accumulated counts for growth, when the closure has added the last one.
        self._use(names, score=score, scale=scale, keep=not ready and self._scores_now)

    @torch.no_grad()
    def _use(self, names: Sequence[str], *, score: bool = True, scale: float = 1.0, keep: bool = False) -> None:
        """Score, unless there are fresh gradients only later, and mask the gradients of these parameters."""
        self._follow()
        # Between steps nobody has reason to write weights; within one the optimiser does.
        if not self._used and self.optimizers:
            self._check_written()
        gradients = {name: gradient for name in names if (gradient := self._weights.gradient(name)) is not None}
        if gradients:
            self._used = True
            self._uses += 1
            if score and self._scores_now:
                self._score(names, gradients, scale)
        self._weights.mask_gradients(gradients, keep=keep)

    def _score(self, names: Sequence[str], gradients: Mapping[str, Tensor], scale: float) -> None:
        bad = self._growth.add(names, gradients, self.parameters, scale)
        if bad is not None:
            self._warn(
                f"the gradient of {bad!r} is NaN or infinite at step {self._steps + 1}; it does not count for growth, "
                f"and without a GradScaler it spoils the weights",
                once="gradient",
            )

    @property
    def density_is_one(self) -> bool:
        """True for preset 'dense', which masks nothing."""
        return self.config.preset == "dense"

    @property
    def _grows_by_gradient(self) -> bool:
        return self.rules.growth in ("momentum", "gradient") and "rewire" in self.events.values()

    @property
    def _is_scored(self) -> bool:
        """True if every optimiser has shown a gradient to grow by since the last rewiring."""
        return not self._grows_by_gradient or self._growth.has_all(self.names)

    @property
    def reads_absent_gradients(self) -> bool:
        """True if the coming step's gradients of absent weights count for growth; else they may be left out."""
        return self._scores_now

    @property
    def _scores_now(self) -> bool:
        """True if the coming step lies in the window before a rewiring, or a rewiring waits for it."""
        if self.rules.growth not in ("momentum", "gradient"):
            return False
        window = self.config.score_batches if self.rules.growth == "momentum" else 1
        step = self._steps + 1
        upcoming = [e for e, kind in self.events.items() if kind == "rewire" and e * self.steps_per_epoch >= step]
        return self._waits or (bool(upcoming) and step > min(upcoming) * self.steps_per_epoch - window)

    def rewire(self) -> list[LayerChange]:
        """Prune by the ratio now and regrow as many, in every unit. Positions just pruned are not regrown.

        With share 'index' as many are regrown in all units of a target together, and each ends with its share.

        Raises InputError if growth needs gradients and none has been seen since the last rewiring.
        """
        magnitudes, active = self._magnitudes(), self._active()
        unit_of = self._layout.unit_of()
        units = self._measured(magnitudes, active)
        prunable = self._layout.prunable(magnitudes, active, self.config.min_fan_in)
        count = self._ratios.counts("rewire", units)
        # A unit without room for as many new connections would silently lose density.
        count = np.minimum(count, self._layout.per_unit(unit_of, ~active))
        lanes = self.config.lane_balance
        keys, prunable = self._layout.in_balance(magnitudes, prunable, active, lanes)
        most = self._layout.per_unit(unit_of, prunable)
        gone = new = np.minimum(count, most)
        if self._shares is not None:
            gone, new = gone.copy(), new.copy()
            for members, _ in self._targets:
                chosen = self._units_in(members)
                gone[chosen], new[chosen] = self._shares.exchange(units, chosen, gone[chosen], most[chosen])
        scores = -self._growth_scores()
        while True:
            pruned = smallest(keys, prunable, unit_of, gone)
            growth_keys, growable = self._layout.in_balance(scores, ~active, active & ~pruned, lanes, growing=True)
            room = self._layout.per_unit(unit_of, growable)
            if np.all(new <= room):
                break
            # In balance alone, which keeps every unit's number.
            gone = new = np.minimum(new, room)
        grown = smallest(growth_keys, growable, unit_of, new)
        self._growth.restart()
        return self._apply("rewire", units, pruned, grown)

    def fall(self, *, final: bool = False, paced: bool = True) -> list[LayerChange]:
        """Prune by the ratio now without regrowth, never below the target densities.

        With ``final`` whatever is left above a target goes too, so that the density lands exactly on it. With
        ``paced`` and another landing than 'ratio' at least so much goes that equal ratios from now on end at
        the target.
        """
        magnitudes, active = self._magnitudes(), self._active()
        unit_of = self._layout.unit_of()
        units = self._measured(magnitudes, active)
        prunable = self._layout.prunable(magnitudes, active, self.config.min_fan_in)
        keys, prunable = self._layout.in_balance(magnitudes, prunable, active, self.config.lane_balance)
        room = self._layout.per_unit(unit_of, prunable)
        wanted = np.minimum(self._ratios.counts("fall", units), room)
        counts = list(self.counts.values())
        for members, target in self._targets:
            excess = max(0, sum(counts[layer] for layer in members) - target)
            chosen = self._units_in(members)
            together, limits = wanted[chosen], room[chosen]
            part = self._part_of_the_way(excess, target) if paced else 0
            due = excess if final else min(excess, max(int(together.sum()), part))
            if due > limits.sum():
                raise InputError(
                    f"rewiring: layers {members} cannot fall by {due} connections in balance: the strongest of "
                    f"each neuron, which min_fan_in = {self.config.min_fan_in} keeps, lie too unevenly; lower "
                    f"min_fan_in, or give up lane_balance"
                )
            if self._shares is not None:
                there = np.array([units[unit][0] for unit in chosen])
                wanted[chosen] = there - self._shares.counts(units, chosen, there.sum() - due, there - limits, there)
            elif due != together.sum():
                base = together if together.sum() else limits
                share = base * (due / max(1, base.sum()))
                wanted[chosen] = apportion(np.minimum(share, limits), due, np.zeros_like(limits), limits)
        pruned = smallest(keys, prunable, unit_of, wanted)
        changes = self._apply("fall", units, pruned, np.zeros_like(pruned))
        if self.config.restart:
            self._restart()
        return changes

    def _units_in(self, layers: Sequence[int]) -> Int:
        return np.flatnonzero([self._layout.layer_of(part) in layers for part in self._layout.units])

    def _part_of_the_way(self, excess: int, target: int) -> int:
        """Connections of ``excess`` that a fall has to take so that equal ratios from now on end at ``target``."""
        if self.config.lands == "ratio" or not excess:
            return 0
        epoch = self._steps // self.steps_per_epoch
        falls = sum(kind == "fall" and at >= epoch for at, kind in self.events.items())
        return round((target + excess) * (1 - (target / (target + excess)) ** (1 / max(1, falls))))

    @torch.no_grad()
    def capture_initial(self) -> None:
        """Take the model's present parameters as the ones that ``restart`` returns to."""
        if self.config.restart:
            self._initial = {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def apply_to(self, model: nn.Module) -> None:
        """Zero what the masks exclude in another model with the same parameters, such as a moving average of this one.

        InputError if one of the parameters is missing or of another shape.
        """
        self._weights.apply_to(model)

    # Saving.

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of training depends on.

        Tensors ``mask.<name>``, ``score.<name>``, ``initial.<name>``, ``carry.rewire`` and ``carry.fall``, and
        ``document``, of JSON's types. The model's and the optimiser's states are saved beside it.
        """
        if self._attached:
            self._follow()
        state: dict[str, Any] = {f"mask.{name}": mask.clone() for name, mask in self.masks.items()}
        state |= {f"score.{name}": score.clone() for name, score in self._growth.scores.items()}
        state |= {f"initial.{name}": value.clone() for name, value in self._initial.items()}
        state |= {f"carry.{kind}": torch.from_numpy(carry.copy()) for kind, carry in self._ratios.carry.items()}
        state["document"] = {
            "options": self._options,
            "schedule": [self.steps_per_epoch, self.epochs, self.seed],
            "steps": self._steps,
            "changed_at": self._changed_at,
            "waits": self._waits,
            "settled": self.settled,
            "indices": list(self._indices),
            "history": [asdict(change) for change in self.history],
            "nonzero": self._weights.nonzero(),
        }
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken; before, between or after the model's and the optimiser's states.

        Weights that construction zeroed and the saved masks keep come back. Raises InputError, and changes nothing, if
        the state is damaged or of another model or other options; if trained weights are lost all the same, because
        the model was loaded and then changed, the first step raises it.
        """
        self._follow()
        try:
            document = state["document"]
            masks = self._saved(state, "mask")
            self._check_same(document, masks)
            tensors = {kind: self._saved(state, kind) for kind in ("score", "initial")}
            carry = {kind: state[f"carry.{kind}"].cpu().numpy().astype(np.float64) for kind in self._ratios.carry}
            steps, changed_at = int(document["steps"]), int(document["changed_at"])
            settled = bool(document["settled"])
            history = [LayerChange(**row) for row in document["history"]]
            indices = [float(index) for index in document["indices"]]
            # States of before these were kept say neither.
            waits = bool(document.get("waits", False))
            expected = {plain_name(name): int(count) for name, count in document.get("nonzero", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"PQRewirer: the saved state is damaged or not a rewirer's ({type(error).__name__}: {error})"
            ) from None
        self._weights.load_masks(masks)
        parameters = {plain_name(name): (name, value) for name, value in self.model.named_parameters()}
        for kind, kept in (("score", self._growth.scores), ("initial", self._initial)):
            kept.clear()
            for key, value in tensors[kind].items():
                name, parameter = parameters[key]
                kept[name] = value.clone().to(parameter.device)
        self._ratios.carry, self._steps, self._changed_at, self._waits = carry, steps, changed_at, waits
        self.settled, self._indices, self.history = settled, indices, history
        self._growth.next_step()
        self._is_fresh = True
        self._used, self._uses, self._blind, self._sample = False, 0, 0, None
        self._expected = {name: expected[plain_name(name)] for name in self.names if plain_name(name) in expected}
        if not self.optimizers:
            # The first gradients are seen after they have changed the weights.
            self._check_kept()

    @property
    def _options(self) -> dict[str, Any]:
        """What the course of training depends on; landing as meant, as states of before have it."""
        return {**self.config.model_dump(), "landing": self.config.lands}

    def _saved(self, state: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
        """The saved tensors of a kind, by plain name, each of the size of its parameter."""
        sizes = {plain_name(name): tuple(value.shape) for name, value in self.model.named_parameters()}
        found = {}
        for key, value in state.items():
            name = plain_name(key.removeprefix(f"{kind}."))
            if key.startswith(f"{kind}."):
                if kind != "mask" and tuple(value.shape) != sizes.get(name):
                    raise InputError(f"PQRewirer: the saved {key!r} is {tuple(value.shape)}, here {sizes.get(name)}")
                found[name] = value
        return found

    def _check_same(self, document: Mapping[str, Any], masks: Mapping[str, Tensor]) -> None:
        # States of before an option existed have its default.
        saved = {**RewiringConfig().model_dump(), "landing": "ratio", **document["options"]}
        for name, theirs, ours in (
            ("options", saved, self._options),
            ("schedule", document.get("schedule"), [self.steps_per_epoch, self.epochs, self.seed]),
        ):
            if theirs != ours:
                raise InputError(f"PQRewirer: the saved state has other {name} ({theirs}, here {ours})")
        found = {name: tuple(value.shape) for name, value in masks.items()}
        expected = {plain_name(name): tuple(mask.shape) for name, mask in self.masks.items()}
        if found != expected:
            raise InputError(f"PQRewirer: the saved masks are of other parameters ({found}, here {expected})")

    # Flat arrays of all weights.

    def _flat(self, tensors: Mapping[str, Tensor]) -> npt.NDArray[Any]:
        return np.concatenate([tensors[name].detach().cpu().numpy().ravel() for name in self.names])

    def _magnitudes(self) -> Values:
        self._follow()
        return self._magnitudes_of(self.parameters)

    def _magnitudes_of(self, parameters: Mapping[str, Tensor]) -> Values:
        """InputError for weights that are no numbers."""
        values = np.abs(self._flat({name: weight.detach().float() for name, weight in parameters.items()}))
        for name, (start, end) in zip(self.names, self._layout.bounds, strict=True):
            if bad := end - start - int(np.isfinite(values[start:end]).sum()):
                raise InputError(
                    f"PQRewirer: {bad} of {end - start} weights of {name!r} are NaN or infinite after step "
                    f"{self._steps}: training has diverged; lower the learning rate or clip gradients"
                )
        return values

    def _active(self) -> Bool:
        return self._flat(self.masks)

    def _growth_scores(self) -> Values:
        if self.rules.growth == "random":
            return np.random.default_rng([self.seed, 4, self._steps]).random(self._layout.size)
        for name in self.names:
            if name not in self._growth.scores:
                raise InputError(
                    f"PQRewirer: no gradient was seen before this rewiring ({name!r}); give the optimizer, or call "
                    f"step() before zero_grad"
                )
        return np.abs(self._flat({name: score.float() for name, score in self._growth.scores.items()}))

    def _measured(self, magnitudes: Values, active: Bool) -> list[Measured]:
        # A rewiring that had to wait has the ratio of when it was due.
        return self._ratios.measured(magnitudes, active, self._changed_at if self._waits else self._steps)

    def _by_layer(self, units: Sequence[Measured]) -> dict[str, tuple[float, float]]:
        return dict(zip(self.names, self._ratios.by_layer(units), strict=True))

    # Changing masks.

    @torch.no_grad()
    def _apply(self, kind: str, units: Sequence[Measured], pruned: Bool, grown: Bool) -> list[LayerChange]:
        measured = self._by_layer(units)
        epoch = -(-self._steps // self.steps_per_epoch)
        changes = []
        for (name, weight), (start, end) in zip(self.parameters.items(), self._layout.bounds, strict=True):
            mask = self.masks[name]
            gone = torch.from_numpy(pruned[start:end].reshape(weight.shape)).to(mask.device)
            new = torch.from_numpy(grown[start:end].reshape(weight.shape)).to(mask.device)
            self.optimizers.reset(weight, self._weights.change(name, gone, new))
            changes.append(
                LayerChange(
                    step=self._steps,
                    epoch=epoch,
                    iteration=-(-epoch // self.config.iteration_epochs(self.epochs)),
                    change=kind,
                    layer=name,
                    density=float(mask.sum()) / mask.numel(),
                    index=measured[name][0],
                    fraction=measured[name][1],
                    pruned=int(gone.sum()),
                    grown=int(new.sum()),
                )
            )
        self.optimizers.forget_curvature()
        self.history += changes
        return changes

    @torch.no_grad()
    def _restart(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self._initial[name])
            self.optimizers.reset(parameter)
        self._weights.zero_pruned()

    @property
    def _on_target(self) -> bool:
        counts = list(self.counts.values())
        return all(sum(counts[layer] for layer in members) <= target for members, target in self._targets)
