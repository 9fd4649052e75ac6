"""Where new connections come: a score of every weight's dense gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class GrowthScores:
    """Moving averages of dense gradients, gathered in the steps before a rewiring.

    momentum : of the average; 0 for the last gradient alone.

    ``scores`` : by parameter, of its shape; of those that have been seen since the last rewiring.
    """

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self.scores: dict[str, Tensor] = {}
        self._scored: set[str] = set()

    def next_step(self) -> None:
        """Gradients that come now are of another step."""
        self._scored.clear()

    def restart(self) -> None:
        """After a rewiring: nothing has been seen for the next one."""
        self.scores.clear()

    def has_all(self, names: Sequence[str]) -> bool:
        """True if gradients of all these parameters have been seen."""
        return all(name in self.scores for name in names)

    def add(
        self, names: Sequence[str], gradients: Mapping[str, Tensor], parameters: Mapping[str, Tensor], scale: float
    ) -> str | None:
        """Take in a step's gradients, ``scale`` times too large, of those of ``names`` that it has not shown yet.

        A parameter among them without a gradient has one of 0. Nothing is taken in if all are 0, or if one is not
        finite, whose name is returned.
        """
        names = [name for name in names if name not in self._scored]
        gradients = {name: gradients[name] for name in names if name in gradients}
        largest = {name: torch.linalg.vector_norm(gradient, math.inf).float() for name, gradient in gradients.items()}
        if not largest:
            return None
        device = next(iter(largest.values())).device
        found = torch.stack([value.to(device) for value in largest.values()]).tolist()
        for name, value in zip(largest, found, strict=True):
            if not math.isfinite(value):
                return name
        if not any(found):
            return None
        for name in names:
            score = self.scores.get(name)
            parameter = parameters[name]
            # The parameter may have been moved since.
            score = torch.zeros_like(parameter) if score is None else score.to(parameter.device)
            self.scores[name] = score.mul_(self._momentum)
            if name in gradients:
                score.add_(gradients[name], alpha=(1 - self._momentum) / scale)
        self._scored.update(names)
        return None
