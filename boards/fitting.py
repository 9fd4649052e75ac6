"""Fits of estimates of logic, and the errors that they have.

Coefficients are least squares of relative errors, over engines, readouts and doors as well as over whole machines,
since a netlist's names tell these apart, and are held near what one would guess (a look-up table for a bit that is
added or chosen, a flip-flop for a bit of a register): the guess decides what the machines do not.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boards.designs import random_machine
from codesign.cost.area_model import AreaModel, Figure, Terms, ff_terms, lut_terms, summed
from codesign.cost.components import Component, components
from codesign.machine.plan import plan_machine

Float = npt.NDArray[np.float64]

# How much a guess counts beside the machines.
HELD = 0.02
# A whole machine counts so many times as one of its parts.
WHOLE = 2.0
# Guesses of coefficients, and how far off they may be.
GUESSES = {"lut": {".one": (10.0, 10.0), "registers": (0.1, 0.1)}, "ff": {".one": (0.0, 5.0), "absorbed": (0.0, 0.3)}}
GUESS = {"lut": (1.0, 1.0), "ff": (1.0, 0.1)}
# Share of machines that a band is to hold, if errors are normal; never narrower than the least.
HELD_BY_BAND = 0.99
LEAST_BAND = 0.05


@dataclass(frozen=True)
class Machine:
    """A machine of the table in one family: its components, and what was measured of them."""

    number: int
    components: tuple[Component, ...]
    measured: Mapping[str, Mapping[str, int]]
    packed: int | None

    def total(self, kind: str) -> int:
        """Cells of a kind."""
        return sum(counts.get(kind, 0) for counts in self.measured.values())


def machines(table: Mapping[int, Mapping[str, Any]], family: str) -> list[Machine]:
    """Those of the table that the family has, with their components as the plan has them now."""
    found = []
    for number, row in sorted(table.items()):
        if family in row:
            plan = plan_machine(*random_machine(number))
            entry = row[family]
            found.append(Machine(number, tuple(components(plan, family)), entry["components"], entry.get("packed")))
    return found


def part_of(name: str) -> str:
    """The part of a machine to which a component's cells are counted."""
    engine = re.match(r"(?:engine|serializer|skip|collector|fork_)(\d+)", name)
    if engine:
        return f"engine{engine[1]}"
    # A loader's registers are called as the ports are that show them.
    return "readout" if name.startswith("readout") else "door"


def packing(found: Sequence[Machine], family: str) -> dict[str, float]:
    """Native cells that one of each kind takes, of a carry chain beside its carries what packing adds."""
    if family == "ecp5":
        fixed = {"lut": 1.0, "carry": 2.0}
        open_kinds = ("chain", "lutram")
    elif family == "ice40":
        fixed = {"lut": 1.0, "lone_ff": 1.0, "lone_carry": 1.0}
        open_kinds = ("chain",)
    else:
        return {"lut": 1.0, "carry": 1.0 if family == "gowin" else 0.0}
    left = np.array(
        [(m.packed or 0) - sum(m.total(kind) * each for kind, each in fixed.items()) for m in found], np.float64
    )
    counts = np.array([[m.total(kind) for kind in open_kinds] for m in found], np.float64)
    solved = np.linalg.lstsq(counts, left, rcond=None)[0]
    return fixed | {kind: float(value) for kind, value in zip(open_kinds, solved, strict=True)}


def measured(machine: Machine, figure: str, cells: Mapping[str, float]) -> dict[str, float]:
    """A figure by part."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, counts in machine.measured.items():
        kinds = cells if figure == "lut" else {"ff": 1.0}
        found[part_of(name)] += sum(counts.get(kind, 0) * each for kind, each in kinds.items())
    return dict(found)


def terms_of(machine: Machine, figure: str) -> dict[str, dict[str, float]]:
    """Terms by part."""
    of = lut_terms if figure == "lut" else ff_terms
    found: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for component in machine.components:
        found[part_of(component.name)].append(of(component))
    return {part: summed(terms) for part, terms in found.items()}


def guess(figure: str, term: str) -> tuple[float, float]:
    """What a coefficient is near, and how near."""
    return next((found for ending, found in GUESSES[figure].items() if term.endswith(ending)), GUESS[figure])


def fit(found: Sequence[Machine], figure: str, cells: Mapping[str, float]) -> dict[str, float]:
    """Coefficients of one figure."""
    from scipy.optimize import lsq_linear

    rows: list[tuple[Terms, float, float]] = []
    for machine in found:
        terms, values = terms_of(machine, figure), measured(machine, figure, cells)
        total = sum(values.values())
        rows += [(terms.get(part, {}), values.get(part, 0.0), 1 / total) for part in {*terms, *values}]
        rows.append((summed(terms.values()), total, WHOLE / total))
    names = sorted({name for terms, _, _ in rows for name in terms})
    weights = np.array([weight for _, _, weight in rows])
    matrix = np.array([[terms.get(name, 0.0) for name in names] for terms, _, _ in rows]) * weights[:, None]
    values = np.array([value for _, value, _ in rows]) * weights
    near, far = np.array([guess(figure, name) for name in names]).T
    lowest = np.where([figure == "ff" and name.endswith((".one", "absorbed")) for name in names], -np.inf, 0.0)
    solved = lsq_linear(
        np.vstack([matrix, HELD * np.diag(1 / far)]), np.concatenate([values, HELD * near / far]), (lowest, np.inf)
    ).x
    return {name: float(f"{value:.4g}") for name, value in zip(names, solved, strict=True) if round(value, 6)}


def estimated(machine: Machine, figure: str, coefficients: Terms) -> float:
    return Figure(coefficients, 0.0, 0.0).of(summed(terms_of(machine, figure).values()))


def true_figure(machine: Machine, figure: str, cells: Mapping[str, float]) -> float:
    """What the tools gave: nextpnr's count where it packs, else yosys'."""
    if figure == "lut" and machine.packed is not None:
        return machine.packed
    return sum(measured(machine, figure, cells).values())


def errors(found: Sequence[Machine], figure: str, coefficients: Terms, cells: Mapping[str, float]) -> Float:
    """Estimate over truth, less 1, of each machine."""
    return np.array([estimated(m, figure, coefficients) / true_figure(m, figure, cells) - 1 for m in found])


def left_out(found: Sequence[Machine], figure: str, cells: Mapping[str, float], folds: int = 8) -> Float:
    """Errors of machines when a fit has not seen them: every so many left out in turn."""
    result = np.zeros(len(found))
    for fold in range(min(folds, len(found))):
        kept = [machine for number, machine in enumerate(found) if number % folds != fold]
        coefficients = fit(kept, figure, cells)
        others = [number for number in range(len(found)) if number % folds == fold]
        result[others] = errors([found[number] for number in others], figure, coefficients, cells)
    return result


def bands(errors: Float) -> tuple[float, float]:
    """How much too little and too much estimates of further machines are: Student's prediction interval."""
    from scipy.stats import t

    # Of the estimate relative to the truth, which is what errors are: a low estimate is never as far off as a high one.
    spread = float(np.sqrt(np.mean(np.log1p(errors) ** 2) * (1 + 1 / errors.size)))
    reach = max(float(t.ppf((1 + HELD_BY_BAND) / 2, errors.size - 1)) * spread, math.log1p(LEAST_BAND))
    return float(f"{-math.expm1(-reach):.3g}"), float(f"{math.expm1(reach):.3g}")


def fitted(found: Sequence[Machine], figure: str, cells: Mapping[str, float]) -> Figure:
    """Coefficients and bands from machines."""
    return Figure(fit(found, figure, cells), *bands(left_out(found, figure, cells)))


@dataclass(frozen=True)
class Check:
    """How estimates of a family do on machines that no fit has seen: errors, and shares of the machines."""

    family: str
    machines: int
    lut: Float
    ff: Float
    inside: float
    bram_exact: float
    bram_short: int
    dsp_exact: float
    dsp_short: int


def check(found: Sequence[Machine], family: str, model: AreaModel, cells: Mapping[str, float]) -> Check:
    """Estimates against the tools' counts."""
    lut, ff = (errors(found, figure, getattr(model, figure).coefficients, cells) for figure in ("lut", "ff"))
    inside = [
        figure.band(estimated(machine, name, figure.coefficients))
        for name, figure in (("lut", model.lut), ("ff", model.ff))
        for machine in found
    ]
    truth = [true_figure(machine, name, cells) for name in ("lut", "ff") for machine in found]
    blocks = np.array([sum(m.blocks for part in machine.components for m in part.memories) for machine in found])
    true_blocks = np.array([machine.total("bram") + 0.5 * machine.total("half") for machine in found])
    dsps = np.array([sum(part.dsps for part in machine.components) for machine in found])
    true_dsps = np.array([machine.total("dsp") for machine in found])
    return Check(
        family,
        len(found),
        lut,
        ff,
        float(np.mean([low <= value <= high for (low, high), value in zip(inside, truth, strict=True)])),
        float(np.mean(blocks == true_blocks)),
        int(np.sum(blocks < true_blocks)),
        float(np.mean(dsps == true_dsps)),
        int(np.sum(dsps < true_dsps)),
    )
