"""The optimisers that train sparse weights: hooks just before gradients are used, and their state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from codesign.basics.errors import InputError

# Called with an optimiser and whether its gradients are all there: before a closure they are not.
Use = Callable[[torch.optim.Optimizer, bool], None]


class Optimizers:
    """One or several optimisers, and those inside them.

    given : an optimiser or a sequence of them, or wrappers that hold one as ``optimizer`` (Lightning's, accelerate's).
        InputError for anything else.

    The algorithm's text gives regrown weights a fresh optimiser state. :meth:`reset` zeroes what is kept of single
    weights; what is kept of a parameter as a whole stays. That is Adam's count of steps, by which it corrects averages
    that began at 0: late in training it no longer does, and with betas b1 and b2 and a constant gradient the k-th step
    of a regrown weight is (1 - b1^k) / sqrt(1 - b2^k) learning rates long and not one (by default 3.2 at k = 1, 6.5 at
    10, 3.2 at 100).
    """

    def __init__(self, given: Any) -> None:
        self.all: list[torch.optim.Optimizer] = []
        """Every optimiser, outer ones before those inside them, which may be the ones that use the gradients."""
        for optimizer in given if isinstance(given, Sequence) else [] if given is None else [given]:
            self._add(optimizer)
        self._handles: list[Any] = []

    def _add(self, given: Any) -> None:
        before = len(self.all)
        queue = [given]
        while queue:
            one = queue.pop(0)
            inner = list(vars(one).values()) if isinstance(one, torch.optim.Optimizer) else [_inside(one)]
            if isinstance(one, torch.optim.Optimizer) and not any(one is other for other in self.all):
                self.all.append(one)
            elif one is not given:
                continue
            queue += [value for value in inner if isinstance(value, torch.optim.Optimizer)]
        if len(self.all) == before:
            raise InputError(f"PQRewirer: {type(given).__name__} is no torch.optim.Optimizer; give the one that steps")

    def __bool__(self) -> bool:
        return bool(self.all)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": []}

    def holds(self, parameter: Tensor) -> bool:
        """True if one of them trains the parameter."""
        return any(held is parameter for optimizer in self.all for held in held_by(optimizer))

    def watch(self, use: Use, before_closure: Callable[[], None]) -> None:
        """Call ``use`` before gradients are used, with a closure before and after each of its calls.

        ``before_closure`` is called when a closure is about to add to gradients, or to replace them.
        """

        def before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
            place = 1 if len(args) > 1 else "closure"
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            if not callable(closure):
                use(optimizer, True)
                return None
            # Some use the gradients there are before they call the closure (SAM). Mostly they are the last step's, or
            # those of earlier batches, which the closure adds to.
            use(optimizer, False)

            def watched(*inner: Any, **named: Any) -> Any:
                before_closure()
                loss = closure(*inner, **named)
                use(optimizer, True)
                return loss

            if place == "closure":
                return args, {**kwargs, "closure": watched}
            return (args[0], watched, *args[2:]), kwargs

        # An optimiser that only passes calls on has no hooks.
        able = [optimizer for optimizer in self.all if hasattr(optimizer, "_optimizer_step_pre_hooks")]
        self._handles = [optimizer.register_step_pre_hook(before_step) for optimizer in able]

    def unwatch(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def reset(self, parameter: Tensor, positions: Tensor | None = None) -> None:
        """Zero the state of a parameter, at some positions (bool, of its shape) or altogether."""
        for optimizer in self.all:
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.zero_() if positions is None else value.masked_fill_(positions, 0.0)

    def forget_curvature(self) -> None:
        """Begin anew what LBFGS keeps of all parameters together: it is of other connections."""
        for optimizer in self.all:
            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.state.clear()


def held_by(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    """The parameters of an optimiser."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def loss_scale(optimizer: torch.optim.Optimizer) -> float:
    """What gradients are multiplied by in this step: a GradScaler leaves it to fused optimisers to divide by it."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)


def will_skip(optimizer: torch.optim.Optimizer) -> bool:
    """True if a GradScaler has told a fused optimiser not to use these gradients."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _inside(wrapper: Any) -> Any:
    """The innermost ``optimizer`` of wrappers that are none themselves."""
    seen: list[Any] = []
    while not isinstance(wrapper, torch.optim.Optimizer) and not any(wrapper is one for one in seen):
        seen.append(wrapper)
        wrapper = getattr(wrapper, "optimizer", None)
    return wrapper
