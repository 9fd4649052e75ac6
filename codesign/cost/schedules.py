"""What each schedule of time costs each layer, and which layers are worth walking all timesteps of a sample at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from codesign.basics.errors import CodesignWarning
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import Activity, cycle_estimate, layer_activity, layer_events
from codesign.machine.capacity import CapacityOptions
from codesign.machine.choices import Choices
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.plan import MachinePlan, plan_machine
from codesign.machine.schedules import Schedule, as_chosen, free_layers, layer_schedules, schedule_problem, sources_of

# Samples by whose events schedules are chosen.
SAMPLES = 32
# Layers that are free to choose, up to which every combination is looked at.
MOST_FREE = 6


@dataclass(frozen=True)
class ScheduleCost:
    """What a layer does in a mean sample with a schedule, and what it keeps.

    walks : synapses that its lanes walk. clocks : in which it accumulates and sweeps. memory_bits : of its engine, with
    what collects its events.
    """

    walks: float
    clocks: float
    memory_bits: int

    def document(self) -> dict[str, float]:
        """In JSON's types."""
        return {"walks": self.walks, "clocks": self.clocks, "memory_bits": self.memory_bits}


class Schedules:
    """Machines of a network that differ in their layers' schedules alone: plans and activity, each made once."""

    def __init__(
        self,
        network: FrozenNetwork,
        lanes: Sequence[int],
        choices: Choices,
        stimulus: Stimulus,
        capacity: CapacityOptions | None = None,
    ) -> None:
        self.network, self.choices, self._lanes, self._capacity = network, choices, list(lanes), capacity
        self._events = layer_events(network, stimulus.take(slice(0, min(SAMPLES, len(stimulus)))))
        self._base = map_network(network, lanes, None, choices, capacity=capacity)
        self._active: dict[tuple[int, Schedule], Activity] = {}

    @property
    def _is_current(self) -> bool:
        return self.network.coding.is_current

    def _mapped(self, schedules: Sequence[Schedule]) -> HardwareMap:
        """On the same lanes, neurons where the first machine has them."""
        choices = replace(self.choices, schedule=as_chosen(schedules, is_current=self._is_current))
        base = self._base
        if choices.loadable:
            # What there is room for depends on the schedules.
            placed = {layer.index: layer.lane for layer in base.layers[:-1]}
            return map_network(self.network, self._lanes, None, choices, placed=placed, capacity=self._capacity)
        layers = [replace(layer, schedule=found) for layer, found in zip(base.layers, schedules, strict=True)]
        return replace(base, layers=tuple(layers), choices=choices)

    def of(self, chosen: Sequence[int]) -> tuple[Schedule, ...]:
        """Schedules with those layers walked at once."""
        fixed = layer_schedules("timestep", len(self.network.layers), is_current=self._is_current)
        return tuple("sample" if index in chosen else found for index, found in enumerate(fixed))

    def plan(self, schedules: Sequence[Schedule]) -> MachinePlan:
        return plan_machine(self.network, self._mapped(schedules))

    def activity(self, plan: MachinePlan) -> list[Activity]:
        """Of the samples, layer by layer."""
        for layer in plan.mapping.layers:
            key = layer.index, layer.schedule
            if key not in self._active:
                self._active[key] = layer_activity(self.network, plan.mapping, layer.index, self._events[layer.index])
        return [self._active[layer.index, layer.schedule] for layer in plan.mapping.layers]

    def measure(self, schedules: Sequence[Schedule]) -> tuple[float, int]:
        """Clocks of a sample, the mean of alone and back to back, and bits of all memories."""
        plan = self.plan(schedules)
        clocks = cycle_estimate(plan, self.activity(plan))
        interval = clocks["interval_cycles"] or clocks["latency_cycles"]
        return (clocks["latency_cycles"] + interval) / 2, sum(plan.memory_bits.values())


def choose_schedules(
    network: FrozenNetwork,
    lanes: Sequence[int],
    choices: Choices,
    within: float | None,
    stimulus: Stimulus | None,
    capacity: CapacityOptions | None = None,
) -> Choices:
    """The choices with a schedule for each layer in place of "auto".

    within : as of :func:`codesign.cost.lanes.choose_lanes`: taken is what needs the fewest bits of memory for at most
        so many times the clocks that schedules can reach; 1 or more, or None for the fewest bits.
    stimulus : calibration samples, of which the first 32 are counted.

    Clocks are the mean of those from the first input to the decision and of those between decisions, by the estimates.
    Of few layers all combinations are looked at, of many those that differ in one layer from the fastest so far, from
    none and from all of them on. Deterministic. Without samples all layers walk timestep by timestep, with a warning.
    """
    if choices.schedule != "auto":
        return choices
    none = replace(choices, schedule="timestep")
    if within is None or choices.folded or network.timesteps == 1:
        return none
    if stimulus is None:
        warnings.warn(
            "hardware.schedule = 'auto' has no calibration samples to choose by: layers walk timestep by timestep",
            CodesignWarning,
            stacklevel=2,
        )
        return none
    machines, sources = Schedules(network, lanes, none, stimulus, capacity), sources_of(network)
    free = free_layers(network)
    measured: dict[tuple[Schedule, ...], tuple[float, int]] = {}

    def clocks(chosen: Sequence[int]) -> float:
        schedules = machines.of(chosen)
        if schedule_problem(schedules, sources) is not None:
            return float("inf")
        if schedules not in measured:
            measured[schedules] = machines.measure(schedules)
        return measured[schedules][0]

    if len(free) <= MOST_FREE:
        for taken in product((False, True), repeat=len(free)):
            clocks([index for index, is_taken in zip(free, taken, strict=True) if is_taken])
    else:
        for start in ([], free):
            best = list(start)
            while True:
                following = min((sorted({*best} ^ {index}) for index in free), key=clocks)
                if clocks(following) >= clocks(best):
                    break
                best = following
    most = within * min(found for found, _ in measured.values())
    few = min((bits, found, schedules) for schedules, (found, bits) in measured.items() if found <= most)
    return replace(none, schedule=as_chosen(few[2], is_current=network.coding.is_current))


def schedule_costs(
    network: FrozenNetwork, mapping: HardwareMap, stimulus: Stimulus, capacity: CapacityOptions | None = None
) -> list[dict[str, Any]]:
    """Of each layer: ``schedule``, which it has, and by schedule what each would cost (:class:`ScheduleCost`), None for
    one that it cannot have.

    A machine that walks its layers in one engine has one schedule, and the other is not built.
    """
    machines = Schedules(network, mapping.lanes, replace(mapping.choices, schedule="timestep"), stimulus, capacity)
    free = free_layers(network) if not mapping.choices.folded else []
    costs: list[dict[Schedule, ScheduleCost]] = [{} for _ in network.layers]
    for chosen in ([], free):
        plan = machines.plan(machines.of(chosen))
        for layer, part, found in zip(plan.mapping.layers, machines.activity(plan), costs, strict=True):
            engine = plan.engines[0] if plan.choices.folded else plan.engines[layer.index]
            fills = (part.clocks + engine.clocks.fill * (part.clocks > 0)).sum(axis=1)
            found[layer.schedule] = ScheduleCost(
                float(part.operations.sum(axis=1).mean()),
                float(np.mean(fills)) + layer.n_slots * network.timesteps,
                sum(memory.bits for memory in engine.memories),
            )
    return [
        {
            "schedule": layer.schedule,
            **{name: found[name].document() if name in found else None for name in ("timestep", "sample")},
        }
        for layer, found in zip(mapping.layers, costs, strict=True)
    ]
