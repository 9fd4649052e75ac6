"""Is a network better than guessing? Accuracy held against the best answer that looks at no input.

Guessing answers one class every time: the commonest of the samples at hand, or any where all are as common, so that
its accuracy is g = max(1 / classes, share of the commonest class). A network of n decisions, k of them right, is
*within noise of guessing* unless that many would be rare by luck: P(X >= k) <= 0.001 for X of the binomial
distribution (n, g). That is about three standard errors, sqrt(g (1 - g) / n), above g.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

LUCK = 1e-3
MAX_NAME = 24


@dataclass(frozen=True)
class Comparison:
    """An accuracy beside that of guessing, on the same labelled samples.

    samples, right : how many decisions, and how many of them right.
    guess : accuracy of guessing, 0..1. commonest : the class that it answers, -1 where all are as common.
    answered : the class that the network answers every time, -1 if it answers several or that is not known.
    balanced : mean over the classes that occur of the share decided right; None if that is not known.
    names : of the classes, where they have some.
    """

    samples: int
    right: int
    guess: float
    commonest: int
    answered: int = -1
    balanced: float | None = None
    names: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        return self.right / self.samples

    @property
    def within_noise(self) -> bool:
        """True if the network cannot be told from guessing."""
        return _luck(self.right, self.samples, self.guess) > LUCK

    @property
    def too_few(self) -> bool:
        """True if the samples could not tell even a perfect network from guessing."""
        return _luck(self.samples, self.samples, self.guess) > LUCK

    def document(self) -> dict[str, Any]:
        """In JSON's types, as the records of stages hold it."""
        return {
            "samples": self.samples,
            "right": self.right,
            "guess": self.guess,
            "within_noise": self.within_noise,
            "balanced": self.balanced,
        }

    def sentence(self, what: str) -> str:
        """What is wrong with the accuracy of ``what`` (a clause without a verb). Only where it is within noise."""
        kind = "guessing" if self.commonest < 0 else f"always answering class {self._name(self.commonest)}"
        beside = f"{self.accuracy:.1%} of {self.samples} samples, {kind} {self.guess:.1%}"
        if self.too_few:
            return f"{what}: these samples are too few, or too much of one class, to tell it from guessing ({beside})"
        text = f"{what} is no better than {kind} ({beside})"
        if self.answered >= 0:
            text += f"; it answers class {self._name(self.answered)} for every sample"
        elif self.balanced is not None and self.commonest >= 0:
            text += f"; balanced over the classes it is {self.balanced:.1%}"
        return text

    def _name(self, index: int) -> str:
        return short_name(self.names[index]) if index < len(self.names) else str(index)


def short_name(name: str) -> str:
    """A class's name as it is shown: one line of printable characters, short enough for tables and axes."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def compare(labels: npt.ArrayLike, decisions: npt.ArrayLike, n_classes: int, names: Sequence[str] = ()) -> Comparison:
    """Decisions beside guessing; samples without a label (below 0) are left out.

    labels, decisions : integers (n,). names : of the classes, if they have some. Raises ValueError if no sample has a
    label.
    """
    labels, decisions = np.asarray(labels), np.asarray(decisions)
    known = labels >= 0
    labels, decisions = labels[known], decisions[known]
    if not labels.size:
        raise ValueError("no sample has a label")
    # Counted by what occurs: a label may be any number.
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    most = int(counts.max())
    hits = np.bincount(place[labels == decisions], minlength=classes.size)
    alike = bool(np.all(counts == most)) and classes.size == max(n_classes, int(classes[-1]) + 1)
    answers = np.unique(decisions)
    return Comparison(
        samples=int(labels.size),
        right=int(hits.sum()),
        guess=max(1 / n_classes, most / labels.size),
        commonest=-1 if alike else int(classes[counts.argmax()]),
        answered=int(answers[0]) if answers.size == 1 else -1,
        balanced=float(np.mean(hits / counts)),
        names=tuple(names),
    )


def compare_accuracy(labels: npt.ArrayLike, accuracy: float, n_classes: int, names: Sequence[str] = ()) -> Comparison:
    """The same where the decisions are no longer there: ``accuracy`` is that on all of ``labels``, int (n,), 0..1."""
    labels = np.asarray(labels)
    guessing = compare(labels, np.full(labels.shape, -1), n_classes, names)
    return replace(guessing, right=round(accuracy * guessing.samples), answered=-1, balanced=None)


def _luck(right: int, samples: int, guess: float) -> float:
    """P(X >= right), X binomial (samples, guess)."""
    if right <= 0 or guess >= 1:
        return 1.0
    from scipy import special

    return float(special.bdtrc(right - 1, samples, guess))
