"""Look-up tables and flip-flops of a machine, as sums over its components.

    LUT = sum over components of (constant of its kind + sum of coefficient * term + coefficient * registers)
    FF  = sum over components of (constant of its kind + coefficient of its kind * registers)

Components, registers and terms are :mod:`codesign.cost.components`; the coefficients of a family are fitted on
synthesised machines and the bands are what machines kept that no fit had seen (``python -m boards.calibrate``,
docs/estimates.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codesign.cost.components import Component

Terms = Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    """One figure of a family.

    coefficients : by term. low, high : an estimate e of a true x keeps e / (1 + high) <= x <= e / (1 - low): it gives
    at most ``low`` of x too little and at most ``high`` too much.
    """

    coefficients: Terms
    low: float
    high: float

    def of(self, terms: Terms) -> float:
        """The figure of what has these terms."""
        return sum(self.coefficients.get(name, 0.0) * value for name, value in terms.items())

    def band(self, estimated: float) -> tuple[float, float]:
        """What the true figure lies between."""
        return estimated / (1 + self.high), estimated / (1 - self.low)


@dataclass(frozen=True)
class AreaModel:
    """Figures of a family, in its native resources."""

    lut: Figure
    ff: Figure


def lut_terms(component: Component) -> dict[str, float]:
    """What the look-up tables of a component are in proportion to."""
    found = {name: value for name, value in component.terms.items() if name != "one"}
    return found | {f"{component.kind}.one": component.terms.get("one", 0.0), "registers": component.registers}


def ff_terms(component: Component) -> dict[str, float]:
    """What the flip-flops of a component are in proportion to."""
    return {
        f"{component.kind}.one": component.terms.get("one", 0.0),
        f"{component.kind}.registers": component.registers,
        "absorbed": component.terms.get("absorbed", 0.0),
    }


def summed(parts: Iterable[Terms]) -> dict[str, float]:
    """Terms of several components together."""
    found: Counter[str] = Counter()
    for part in parts:
        found.update(part)
    return dict(found)
