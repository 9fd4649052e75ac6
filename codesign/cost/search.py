"""Machines of a frozen network, ranked by estimate: which shape, lanes and choices a device and limits ask for.

What a machine answers is the same for all of them: only choices that change neither results nor the protocol are
varied, and those that a host has to agree to (:data:`AGREED`) where they are allowed. Placement runs once for every
number of a layer's lanes, events are counted once for every layer and walk, the rest is arithmetic on plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Literal, get_args

import numpy as np

from codesign.basics.errors import InputError
from codesign.basics.progress import Progress, silent
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.area import RESOURCES, figures
from codesign.cost.coefficients import MODELS
from codesign.cost.components import Component, around, of_engine
from codesign.cost.estimate import (
    Activity,
    activity_energy,
    cycle_estimate,
    layer_activity,
    layer_events,
)
from codesign.cost.lanes import layer_work
from codesign.machine.choices import (
    BLOCK_ROM_BITS,
    DEFAULTS,
    EVENT_STREAMS,
    MAX_LANES,
    Choices,
    Pipeline,
    ScheduleChoice,
    Shape,
    chosen,
    problem,
)
from codesign.machine.mapping import HardwareMap, encoded, map_network
from codesign.machine.plan import MachinePlan, plan_machine
from codesign.machine.schedules import as_chosen, free_layers, layer_schedules, sources_of

Objective = Literal["latency", "area", "energy"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
# What each objective is, and what decides between equals.
MEASURES: dict[Objective, tuple[str, ...]] = {
    "latency": ("latency_us", "lut", "bram"),
    "area": ("lut", "bram", "latency_us"),
    "energy": ("energy_nj", "lut", "latency_us"),
}
# Single-port RAM is for loadable machines alone, which are not searched.
AREA = {kind: text for kind, text in RESOURCES.items() if kind != "spram"}
# What can be limited, with its unit; the clock only where it was placed.
LIMITS: dict[str, str] = {
    "latency_us": "us from first input to decision",
    "interval_us": "us between decisions",
    "cycles": "clocks from first input to decision",
    **AREA,
    "energy_nj": "nJ a sample",
    "clock_mhz": "MHz",
}
# Choices that a host, or who reads the counters, has to agree to, and what they then are.
AGREED: dict[str, Any] = {"input_checks": False, "counters": False, "output_spikes": False, "input_words": 4}
LADDER = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
# Most combinations of lanes; more layers than these allow get the lanes of one greedy path.
MOST_LANES = 121
SAMPLES = 10
# By how much of themselves cycles that are not exact may be too many, by `python -m benchmarks.clocks --recurrence 84`.
CYCLE_ERROR = 0.2
# Read-only memories up to here may be better off in logic.
MOST_ROM_BITS = 2048
MOST_THRESHOLDS = 3
# Most layers of which every combination of schedules is looked at; of more none and all.
MOST_SCHEDULED = 2


@dataclass(frozen=True)
class Wish:
    """What is asked of a machine.

    family : of the device. budget : what it has, by kind. clocks : MHz of each pipeline,
    for times until it is placed.
    minimise : see :data:`MEASURES`. within : limits by :data:`LIMITS`. allowed : of :data:`AGREED`. board : a board's
    link is to reach the machine.
    """

    family: str
    budget: Mapping[str, float]
    clocks: Mapping[Pipeline, float]
    minimise: Objective = "latency"
    within: Mapping[str, float] | None = None
    allowed: Sequence[str] = ()
    board: bool = False

    def __post_init__(self) -> None:
        if self.minimise not in OBJECTIVES:
            raise InputError(f"minimise {self.minimise!r} is none of {', '.join(OBJECTIVES)}")
        for key, value in (self.within or {}).items():
            if key not in LIMITS:
                raise InputError(f"limit {key!r} is none of {', '.join(LIMITS)}")
            if not (value >= 0 if key in AREA else value > 0):
                raise InputError(f"limit {key} = {value!r} must be {'0 or more' if key in AREA else 'above 0'}")
        for key in self.allowed:
            if key not in AGREED:
                raise InputError(f"allowed {key!r} is none of {', '.join(AGREED)}")

    @property
    def is_timed(self) -> bool:
        """Whether clocks count."""
        counted = {*MEASURES[self.minimise][:1], *(self.within or {})}
        return not counted.isdisjoint(("latency_us", "interval_us", "cycles"))

    @property
    def limits(self) -> dict[str, float]:
        """The tighter of what is asked and what the device has; a clock is no limit of an estimate."""
        found = {kind: float(value) for kind, value in self.budget.items() if kind in AREA}
        for kind, value in (self.within or {}).items():
            found[kind] = min(value, found.get(kind, value))
        return found

    def least(self, kind: str, estimated: Mapping[str, Any]) -> float:
        """The least that one of a machine's estimated figures may be in truth."""
        value = estimated[kind]
        if kind in ("lut", "ff"):
            return getattr(MODELS[self.family], kind).band(value)[0]
        is_near = kind in ("cycles", "latency_us", "interval_us") and not estimated["exact"]
        return value * (1 - CYCLE_ERROR) if is_near else value

    def over(self, estimated: Mapping[str, Any]) -> float:
        """By how much the estimate itself is beyond a limit, relative to it, at most; 0 or less if it keeps all."""
        limits = self.limits
        return max(
            (_beyond(estimated[kind], limit) for kind, limit in limits.items() if kind in estimated), default=0.0
        )

    def excess(self, estimated: Mapping[str, Any]) -> dict[str, float]:
        """By limit, how far a candidate is beyond it even if the estimate gave too much, relative to the limit."""
        found = {}
        for kind, limit in self.limits.items():
            value = estimated.get(kind)
            if value is not None and self.least(kind, estimated) > limit:
                found[kind] = _beyond(self.least(kind, estimated), limit)
        return found


def _beyond(value: float, limit: float) -> float:
    """By how much a figure is beyond a limit, relative to it."""
    if limit:
        return value / limit - 1
    return float("inf") if value > 0 else 0.0


class Machines:
    """The machines of a network in a family: plans and estimates, what several share made once."""

    def __init__(self, network: FrozenNetwork, stimulus: Stimulus, family: str) -> None:
        self.network = network
        self.family = family
        self.samples = stimulus.take(slice(0, min(SAMPLES, len(stimulus))))
        placing = stimulus.take(slice(0, min(10 * SAMPLES, len(stimulus))))
        self.placing = [events.reshape(-1, events.shape[-1]) for events in layer_events(network, placing)]
        self.events = layer_events(network, self.samples, golden.run(network, self.samples, membranes=False))
        # Lanes of whom each layer reads decide the addresses of its rows.
        self.sources = [
            [projection.source for projection in layer.projections if projection.source >= 0]
            for layer in network.layers
        ]
        self._known: dict[tuple[Any, ...], Any] = {}

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def mapping(self, lanes: tuple[int, ...], choices: Choices) -> HardwareMap:
        """The network on these lanes of a machine with these choices."""
        walk = (lanes, choices.shape, choices.lockstep, choices.counts, choices.event_streams, choices.schedule)
        base = self._once(("placed", *walk), lambda: self._placed(lanes, choices))

        def varied() -> HardwareMap:
            layers = tuple(replace(layer, pipeline=choices.pipeline) for layer in base.layers)
            return encoded(replace(base, layers=layers, choices=choices))

        found: HardwareMap = self._once(("mapped", *walk, choices.synapses, choices.pipeline), varied)
        return replace(found, choices=choices)

    def _placed(self, lanes: tuple[int, ...], choices: Choices) -> HardwareMap:
        plain = Choices(
            shape=choices.shape, lockstep=choices.lockstep, output_spikes=choices.output_spikes,
            event_streams=choices.event_streams, schedule=choices.schedule,
        )  # fmt: skip
        how = (choices.lockstep, choices.event_streams, choices.schedule)
        keys = {index: ("lane", index, lanes[index], *how) for index in range(len(lanes) - 1)}
        known = {index: self._known[key] for index, key in keys.items() if key in self._known}
        # A folded machine's lanes are not clamped to a layer's neurons.
        placed = None if choices.folded else known
        found = map_network(self.network, list(lanes), self.placing, plain, placed=placed)
        for index, key in keys.items():
            if not choices.folded:
                self._known.setdefault(key, found.layers[index].lane)
        return found

    def plan(self, lanes: tuple[int, ...], choices: Choices) -> MachinePlan:
        return plan_machine(self.network, self.mapping(lanes, choices))

    def thresholds(self, lanes: tuple[int, ...], choices: Choices) -> list[int]:
        """``block_rom_bits`` that are worth a look: the default, and those that put further memories into logic."""

        def found() -> list[int]:
            plan = self.plan(lanes, choices)
            sizes = {memory.bits for memory in plan.memories if memory.read_only and memory.bits >= BLOCK_ROM_BITS}
            return [BLOCK_ROM_BITS, *(size + 1 for size in sorted(sizes) if size < MOST_ROM_BITS)][:MOST_THRESHOLDS]

        key = ("thresholds", lanes, *_walked(choices))
        return self._once(key, found)

    def cycles(self, lanes: tuple[int, ...], choices: Choices) -> dict[str, float]:
        """Clocks from the first input to the decision and between decisions, and nJ of a mean sample."""
        how = (*_walked(choices), choices.input_words)

        def found() -> dict[str, float]:
            plan = self.plan(lanes, choices)
            active: list[Activity] = [
                self._once(
                    ("active", index, lanes[index], *(lanes[source] for source in self.sources[index]), *how,
                     choices.queue_depth),
                    lambda index=index: layer_activity(self.network, plan.mapping, index, self.events[index]),
                )
                for index in range(len(lanes))
            ]  # fmt: skip
            clocks = cycle_estimate(plan, active)
            return {
                "cycles": clocks["latency_cycles"],
                "interval_cycles": clocks["interval_cycles"] or clocks["latency_cycles"],
                "energy_nj": activity_energy(plan, active)["sample_pj"] / 1000,
            }

        return self._once(("cycles", lanes, *how, choices.pipeline, choices.queue_depth), found)

    def area(self, lanes: tuple[int, ...], choices: Choices) -> dict[str, float]:
        """lut, ff, bram, spram and dsp."""
        plan: list[MachinePlan] = []

        def planned() -> MachinePlan:
            if not plan:
                plan.append(self.plan(lanes, choices))
            return plan[0]

        # What an engine is does not depend on others but through the events that it gets.
        own = replace(choices, input_words=1, input_checks=True, counters=True)
        around_key = ("around", lanes, replace(choices, state_memory="auto", block_rom_bits=0, synapses="plain"))
        parts = [self._once(around_key, lambda: self._figures(around(planned(), self.family)))]
        for number in range(1 if choices.folded else len(lanes)):
            reached = (lanes[number], *(lanes[source] for source in self.sources[number]))
            key = ("engine", number, reached, own)
            parts.append(self._once(key, lambda: self._figures(of_engine(planned(), number, self.family))))  # noqa: B023
        return {kind: sum(part[kind] for part in parts) for kind in parts[0]}

    def _figures(self, parts: list[Component]) -> dict[str, float]:
        return figures(parts, MODELS[self.family])

    def all(self, lanes: tuple[int, ...], choices: Choices, clock_mhz: float) -> dict[str, Any]:
        """Every figure of a machine, times at a clock; ``exact`` : whether its clocks are those of simulation."""
        cycles = self.cycles(lanes, choices)
        return {
            **{kind: round(value, 1) for kind, value in self.area(lanes, choices).items()},
            "cycles": cycles["cycles"],
            "latency_us": cycles["cycles"] / clock_mhz,
            "interval_us": cycles["interval_cycles"] / clock_mhz,
            "energy_nj": cycles["energy_nj"],
            "exact": False,
        }

    def lanes(self, shape: Shape) -> list[tuple[int, ...]]:
        """Lanes of each layer that are worth a look, fewer before more: all combinations of a ladder, or those along
        one path; of a folded machine, whose layers have the same, all numbers of the ladder."""
        work = layer_work(self.network, self.samples)
        units = [min(MAX_LANES, layer.units) for layer in work]
        if shape == "folded":
            return [(count,) * len(units) for count in LADDER if count <= max(units)]
        ladders = [[count for count in LADDER if count <= most] for most in units]
        if np.prod([len(ladder) for ladder in ladders]) <= MOST_LANES:
            return list(product(*ladders))
        return _path(ladders, work)


def _walked(choices: Choices) -> tuple[Any, ...]:
    """What decides which words a lane walks for an event."""
    return (choices.shape, choices.lockstep, choices.synapses, choices.event_streams, choices.schedule)


def _path(ladders: list[list[int]], work: Sequence[Any]) -> list[tuple[int, ...]]:
    """Lanes as the slowest layer gets more, again and again, and beside each the last step of every other layer."""
    place = [0] * len(ladders)
    found = [tuple(ladder[0] for ladder in ladders)]
    while True:
        clocks = [part.clocks(ladder[at]) for part, ladder, at in zip(work, ladders, place, strict=True)]
        free = [index for index, at in enumerate(place) if at + 1 < len(ladders[index])]
        if not free:
            return list(dict.fromkeys(found))
        slowest = max(free, key=lambda index: clocks[index])
        for index in free:
            found.append(tuple(ladder[at + (k == index)] for k, (ladder, at) in enumerate(zip(ladders, place))))
        place[slowest] += 1


def variants(wish: Wish, network: FrozenNetwork, lanes: tuple[int, ...]) -> Iterator[Choices]:
    """Choices of machines on these lanes that are built for the network and by the family's tools."""
    agreed = {key: AGREED[key] for key in wish.allowed}
    if network.membrane_readout:
        agreed.pop("output_spikes", None)
    several = max(lanes) > 1
    sources, is_current = sources_of(network), network.coding.is_current
    for choices in (*_narrow(several), *(_wide(network) if wish.is_timed else ())):
        given = replace(choices, **agreed)
        # Without several lanes nobody waits, in step or with a queue; with folded layers lanes are one number.
        waits = several or choices.event_streams > 1
        if choices.queue_depth != DEFAULTS.queue_depth and (choices.lockstep or not waits):
            continue
        # A single layer has one engine in any case.
        if choices.folded and (len(set(lanes)) > 1 or len(lanes) == 1):
            continue
        against = problem(
            given,
            readout=network.readout,
            n_outputs=network.n_outputs,
            lanes=lanes,
            structured=not network.is_plain_chain,
            sources=sources,
            is_current=is_current,
            consumer="board" if wish.board else None,
        )
        if against is None:
            yield given


def _narrow(several: bool) -> Iterator[Choices]:
    """Machines that take an event a clock, timestep by timestep; ``several`` : on several lanes."""
    for shape, synapses, pipeline, lockstep, state, fifos, queue in product(
        ("streaming", "folded"),
        ("plain", "compact"),
        ("deep", "short"),
        (False, True) if several else (False,),
        ("auto", "block"),
        (True, False),
        (4, 8),
    ):
        yield Choices(
            shape=shape, synapses=synapses, pipeline=pipeline, lockstep=lockstep, state_memory=state, spike_fifos=fifos,
            queue_depth=queue,
        )  # fmt: skip


def _wide(network: FrozenNetwork) -> Iterator[Choices]:
    """Machines that take several events a clock, or walk samples at once: faster, and larger."""
    free = free_layers(network)
    sizes = range(len(free) + 1) if len(free) <= MOST_SCHEDULED else (0, len(free))
    fixed = layer_schedules("timestep", len(network.layers), is_current=network.coding.is_current)
    schedules: list[ScheduleChoice] = [
        as_chosen(
            ["sample" if index in taken else found for index, found in enumerate(fixed)],
            is_current=network.coding.is_current,
        )
        for size in sizes
        for taken in combinations(free, size)
    ]
    for streams, schedule, pipeline, state, queue in product(
        EVENT_STREAMS, schedules, ("deep", "short"), ("auto", "block"), (4, 8)
    ):
        if streams > 1 or schedule != DEFAULTS.schedule:
            yield Choices(
                event_streams=streams, schedule=schedule, pipeline=pipeline, state_memory=state, queue_depth=queue
            )


def rank(rows: list[dict[str, Any]], wish: Wish) -> list[dict[str, Any]]:
    """Those within the limits by estimate first, best first; then those that may be; then the others, nearest first."""

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        found = row["estimated"]
        if found is None:
            return (True, float("inf"))
        over = wish.over(found)
        beyond = max(wish.excess(found).values(), default=0.0)
        measures = (*(found[name] for name in MEASURES[wish.minimise]), len(row["choices"]))
        return (beyond > 0, beyond, over, *measures) if over > 0 else (False, 0.0, 0.0, *measures)

    return sorted(rows, key=order)


def search(network: FrozenNetwork, stimulus: Stimulus, wish: Wish, progress: Progress = silent) -> list[dict[str, Any]]:
    """Every candidate, best first: ``lanes``, ``choices`` (those that are not the default), ``estimated`` (see
    :meth:`Machines.all`; None where fewer lanes are too large already) and ``excluded``, why it cannot be within the
    limits, or None.

    stimulus : samples that guide the placement and whose events the cycles count; calibration samples, not the test's.
    """
    machines = Machines(network, stimulus, wish.family)
    found: list[dict[str, Any]] = []
    combinations = [(shape, lanes) for shape in get_args(Shape) for lanes in machines.lanes(shape)]
    # Lanes of which every machine of a shape is too large, however it is chosen; more lanes are no smaller.
    too_large: dict[Shape, list[tuple[int, ...]]] = {shape: [] for shape in get_args(Shape)}
    for number, (shape, lanes) in enumerate(combinations):
        progress(number, len(combinations), f"{shape}, lanes {', '.join(map(str, lanes))}")
        fewer = next((few for few in too_large[shape] if all(a <= b for a, b in zip(few, lanes, strict=True))), None)
        if fewer is not None:
            reason = f"{shape} machines on lanes {', '.join(map(str, fewer))} are too large already"
            choices = {} if shape == DEFAULTS.shape else {"shape": shape}
            found.append({"lanes": list(lanes), "choices": choices, "estimated": None, "excluded": reason})
            continue
        rows = [
            _row(wish, machines, lanes, replace(choices, block_rom_bits=threshold))
            for choices in variants(wish, network, lanes)
            if choices.shape == shape
            for threshold in machines.thresholds(lanes, choices)
        ]
        found += rows
        if rows and all(any(kind in AREA for kind in wish.excess(row["estimated"])) for row in rows):
            too_large[shape].append(lanes)
    progress(len(combinations), len(combinations), "")
    return rank(found, wish)


def _row(wish: Wish, machines: Machines, lanes: tuple[int, ...], choices: Choices) -> dict[str, Any]:
    estimated = machines.all(lanes, choices, wish.clocks[choices.pipeline])
    return {
        "lanes": list(lanes),
        "choices": {key: getattr(choices, key) for key in chosen(choices)},
        "estimated": estimated,
        "excluded": exclusion(wish, estimated),
    }


def exclusion(wish: Wish, found: Mapping[str, Any]) -> str | None:
    """What is too much, in words; None if nothing is."""
    excess = wish.excess(found)
    if not excess:
        return None
    return ", ".join(
        f"at least {wish.least(kind, found):.4g} of {wish.limits[kind]:g} {LIMITS[kind]}" for kind in excess
    )
