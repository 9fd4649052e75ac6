"""Does a network fit a hardware budget? A conservative formula, and the choice of lanes that it allows.

Estimates (:mod:`codesign.cost.estimate`) are raised by a stated margin, which covers the formula's known error, and
by what a board's link takes. Knows neither boards nor tools: a :class:`Budget` is data. Place and route has the last
word (:mod:`codesign.pipeline.budget`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codesign.basics.errors import UnsupportedError
from codesign.config import Family, FreezeConfig
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.area import RESOURCES
from codesign.cost.coefficients import MODELS
from codesign.cost.estimate import MAX_SAMPLES, estimate, source_rates
from codesign.cost.schedules import choose_schedules
from codesign.machine.capacity import CapacityOptions
from codesign.machine.choices import DEFAULTS, Choices
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine

UNITS = {**RESOURCES, "memory_bits": "bits of memory", "cycles": "cycles"}
CURES = {
    "lut": "fewer lanes in budget.lanes",
    "ff": "fewer lanes in budget.lanes",
    "bram": "a lower train.rewiring.target_density, fewer neurons or fewer bits in budget.weight_bits",
    "dsp": "fewer lanes in budget.lanes",
    "spram": "fewer lanes in budget.lanes, or hardware.synapse_memory = 'auto'",
    "memory_bits": "a lower train.rewiring.target_density, fewer neurons or fewer bits in budget.weight_bits",
    "cycles": "more lanes in budget.lanes, fewer timesteps or a lower train.rewiring.target_density",
}
# What the recurrence of cycles (codesign.cost.estimate.cycle_estimate) is taken to be off by; of small machines it is
# more in the worst case (docs/estimates.md), and simulation has the last word.
CYCLE_ERROR = 0.05


def quantising(config: FreezeConfig) -> dict[str, Any]:
    """What the formula's answer depends on in ``[freeze]``: how the network in training is quantised."""
    return config.model_dump(include={"scale", "fraction_bits", "membrane_width"})


@dataclass(frozen=True)
class Budget:
    """What there is, and what may be chosen.

    name : of the board or target, for messages; 'the budget' without one.
    family : whose area model is used; None without a device, where logic and block RAM are not limited.
    limits : most of each kind: lut, ff, bram, dsp, spram, memory_bits, cycles; a kind that is absent is not limited.
    overhead : what comes on top of the accelerator, by kind: the link of a board.
    clock_mhz : clock that place and route must reach, None without.
    weight_bits, lanes : choices, ascending; lanes are the same for every layer, clamped to its width.
    choices : of the machine. capacity : of a loadable one.
    within : as of :func:`codesign.cost.schedules.choose_schedules`, for a schedule that the samples choose.
    """

    name: str
    family: Family | None
    limits: Mapping[str, float]
    overhead: Mapping[str, float]
    clock_mhz: float | None
    weight_bits: tuple[int, ...]
    lanes: tuple[int, ...]
    choices: Choices = DEFAULTS
    capacity: CapacityOptions | None = None
    within: float | None = None

    @property
    def margins(self) -> dict[str, float]:
        """What an estimate of each limited kind is raised by, relative to it; 0 where it only counts.

        A formula that gives at most e too little, f >= (1 - e) x, has x <= f / (1 - e): the margin is 1 / (1 - e) - 1.
        """
        errors = {"cycles": CYCLE_ERROR}
        if self.family is not None:
            model = MODELS[self.family]
            errors |= {"lut": model.lut.low, "ff": model.ff.low}
        return {kind: 1 / (1 - errors.get(kind, 0.0)) - 1 for kind in self.limits}

    def document(self) -> dict[str, Any]:
        """All of it in JSON's types, margins included."""
        return {**asdict(self), "weight_bits": list(self.weight_bits), "lanes": list(self.lanes)} | {
            "limits": dict(self.limits),
            "overhead": dict(self.overhead),
            "margins": self.margins,
        }


@dataclass(frozen=True)
class Demand:
    """What a network on some lanes asks of a budget.

    estimated : by kind, the formula's figure with the board's link, without margin.
    needed : estimated with the margin; what is compared with the limits.
    limits : the budget's.
    """

    weight_bits: int
    lanes: int
    estimated: Mapping[str, float]
    needed: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def over(self) -> list[str]:
        """Kinds of which too much is needed."""
        return [kind for kind, limit in self.limits.items() if self.needed[kind] > limit]

    @property
    def fits(self) -> bool:
        return not self.over

    @property
    def excess(self) -> float:
        """Greatest share needed of any limit; at most 1 if it fits."""
        shares = [
            self.needed[kind] / limit if limit else math.inf if self.needed[kind] > 0 else 0.0
            for kind, limit in self.limits.items()
        ]
        return max(shares, default=0.0)

    def document(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "weight_bits": self.weight_bits,
            "lanes": self.lanes,
            "estimated": dict(self.estimated),
            "needed": dict(self.needed),
            "fits": self.fits,
        }


def demands(network: FrozenNetwork, budget: Budget, stimulus: Stimulus, weight_bits: int) -> list[Demand]:
    """What the network asks of the budget on each of its choices of lanes, ascending.

    stimulus : samples whose events the cycles count and that guide the placement (the first 100); validation samples.
    weight_bits : the choice that the network was quantised with; its weights may need fewer.

    Raises UnsupportedError for a machine that the device's family does not have.
    """
    chosen = stimulus.take(slice(0, MAX_SAMPLES))
    trace = golden.run(network, chosen, membranes=False)
    rates = source_rates(network, chosen, trace)
    found = []
    for lanes in budget.lanes:
        of_layers = [lanes] * len(network.layers)
        choices = choose_schedules(network, of_layers, budget.choices, budget.within, chosen, budget.capacity)
        mapping = map_network(network, of_layers, rates, choices, capacity=budget.capacity)
        document = estimate(plan_machine(network, mapping), stimulus=chosen, trace=trace, exact=False)
        figures = {"memory_bits": sum(document["memory_bits"].values()), "cycles": document["cycles"]["latency_cycles"]}
        if budget.family is not None:
            area = document["area"][budget.family]
            if area["reason"] is not None:
                raise UnsupportedError(f"{budget.name}: {area['reason']}")
            figures |= {kind: area[kind] for kind in RESOURCES}
        estimated = {kind: float(figures[kind]) + budget.overhead.get(kind, 0.0) for kind in UNITS if kind in figures}
        margins = budget.margins
        needed = {kind: value * (1 + margins.get(kind, 0.0)) for kind, value in estimated.items()}
        found.append(Demand(weight_bits, lanes, estimated, needed, budget.limits))
    return found


def preferred(found: Sequence[Demand], budget: Budget) -> list[Demand]:
    """Those that fit, best first: the most lanes, or with a limit in time the fewest, which spares area."""
    fitting = [demand for demand in found if demand.fits]
    return sorted(fitting, key=lambda demand: demand.lanes if "cycles" in budget.limits else -demand.lanes)


def nearest(found: Sequence[Demand], budget: Budget) -> Demand:
    """The preferred one of those that fit, or else the one that exceeds the budget least."""
    fitting = preferred(found, budget)
    return fitting[0] if fitting else min(found, key=lambda demand: (demand.excess, demand.lanes))


def shortage(demand: Demand, budget: Budget) -> str:
    """One line: what is too much, by how much, and what would help."""
    margins = budget.margins
    parts, cures = [], []
    for kind in demand.over:
        limit, needed = budget.limits[kind], demand.needed[kind]
        margin = f", with a margin of {margins[kind]:.0%}" if margins[kind] else ""
        parts.append(f"about {needed:.0f} of {limit:g} {UNITS[kind]} ({needed - limit:.0f} too many{margin})")
        cures.append(CURES[kind])
    return (
        f"{budget.name}: at {demand.weight_bits} bits on {demand.lanes} lane{'s' * (demand.lanes > 1)} the network "
        f"needs "
        f"{', '.join(parts)}; use {', or '.join(dict.fromkeys(cures))}"
    )


def relative_errors(estimated: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float | None]:
    """Formula over measurement, minus 1, for every kind measured; None where nothing was measured to divide by."""
    return {
        kind: float(np.round(estimated[kind] / value - 1, 4)) if value else None
        for kind, value in measured.items()
        if kind in estimated
    }
