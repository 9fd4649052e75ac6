"""What all frameworks' neurons are brought into, and the ways from time constants to decays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network.terms import CompareKind, ResetKind
from codesign.interchange.nodes import Node

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """A population in the terms of a float network (docs/networks.md, "Networks from elsewhere").

    Numbers are scalars or as the node's parameters. gain : factor of all weights and biases into the population.
    bias : added to the current beside them, after the gain. threshold : None if the population does not fire.
    said : what was assumed or read, one line each.
    """

    decay: Any
    gain: Any
    threshold: Any
    compare: CompareKind
    reset: ResetKind = "none"
    reset_value: Any = 0.0
    reset_delay: bool = False
    current_decay: Any = None
    refractory: int = 0
    bias: Any = 0.0
    said: tuple[str, ...] = field(default_factory=tuple)


def positive(node: Node, **values: Float) -> None:
    """Raise InputError unless every value of the named parameters is positive."""
    for name, array in values.items():
        if np.any(array <= 0):
            raise InputError(f"{node.name}: {name} is {float(array.min()):g}, expected a positive value")


def zero(node: Node, source: str, *names: str) -> None:
    """Raise UnsupportedError unless the named parameters, those that there are, are 0 as their source writes them."""
    for name in names:
        if name in node.parameters and np.any(node.array(name) != 0):
            raise UnsupportedError(f"{node.name}: {name} is not 0, which {source} never writes")


def euler(node: Node, tau: Float, dt: float | Float) -> Float:
    """1 - dt / tau. Raises InputError if a timestep is longer than the time constant, where it would swing."""
    if np.any(dt > tau * (1 + 1e-9)):
        raise InputError(
            f"{node.name}: a time constant of {float(tau.min()):g} is shorter than the timestep "
            f"{float(np.max(dt)):g}; --dt is in the unit of the file's time constants"
        )
    return np.maximum(1 - dt / tau, 0.0)


def hard_reset(node: Node, terms: Terms, rest: Float, value: Float) -> Terms:
    """The terms with v - rest in place of v, where v starts at rest; ``value`` is what the file resets to."""
    if terms.reset == "subtract" and np.any(rest != 0):
        raise UnsupportedError(f"{node.name}: a reset by subtraction with a leak to another value than 0")
    if terms.reset == "zero" and np.any(value != 0):
        raise UnsupportedError(f"{node.name}: --reset zero, but the file resets to {float(value.flat[0]):g}")
    reset, after = terms.reset, value - rest
    if reset in ("value", "zero"):
        reset = "value" if np.any(after != 0) else "zero"
    said = () if not np.any(rest != 0) else ("membranes are counted from v_leak, where they start",)
    return replace(terms, threshold=terms.threshold - rest, reset=reset, reset_value=after, said=(*terms.said, *said))


def one_value(values: Float, relative: float) -> float | None:
    """The value that all entries have within a relative distance, else None."""
    low, high = float(values.min()), float(values.max())
    return float(np.median(values)) if high - low <= relative * abs(high) else None


def refuse(node: Node, source: str) -> UnsupportedError:
    return UnsupportedError(f"{node.name}: {source} writes no {node.type}; was the file made by another framework?")
