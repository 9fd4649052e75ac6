"""Points of a study: a frozen network on a machine, its figures, and how it stands to constraints and objectives."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.basics.errors import CodesignWarning
from codesign.config import HardwareConfig
from codesign.config.text import plain
from codesign.cost.area import compared
from codesign.explore.fronts import hypervolume, pareto_front, scaled, spread
from codesign.explore.space import METRICS, TIMES, Machine, Space

# Costs are scaled to 0..1 over the points; what lies at the far end counts a little too.
REFERENCE = 1.1
_DEFAULTS = plain(HardwareConfig())


@dataclass
class Point:
    """A network on a machine.

    name : number of the network and of the machine. hardware : keys of ``[hardware]`` that lead to the machine from
    the defaults, its goal, lanes and schedules spelled out. metrics : by name of :data:`METRICS`, None where not known.
    excess : by how much of each constraint it is broken; None where that is not known. front : no other point beats it.
    measured : figures of its own run folder, where it has one.
    """

    network: int
    machine: Machine
    number: int
    lanes: list[int]
    hardware: dict[str, Any]
    metrics: dict[str, float | None]
    excess: dict[str, float | None]
    front: bool = False
    folder: str | None = None
    failure: str | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    test_accuracy: float | None = None

    @property
    def name(self) -> str:
        return f"{self.network:03d}-{self.number:02d}"

    @property
    def broken(self) -> list[str]:
        """Constraints that it does not keep, or of which that is not known."""
        return [text for text, excess in self.excess.items() if excess is None or excess > 0]

    def unknown(self, space: Space) -> list[str]:
        """Objectives that are not known of it."""
        return [name for name in space.objectives if self.metrics[name] is None]

    def counts(self, space: Space) -> bool:
        """True if it keeps the constraints and all its objectives are known."""
        return not self.broken and not self.unknown(space)


def points_of(space: Space, network: int, found: Mapping[str, Any], machines: Sequence[Machine]) -> list[Point]:
    """The points of a network, from what its job returned."""
    points = []
    for number, (machine, row) in enumerate(zip(machines, found["machines"], strict=True)):
        if "refused" in row:
            continue
        metrics = _metrics(space, found, row)
        lanes = list(row["lanes"])
        hardware = explicit_hardware(machine.hardware, lanes, row["schedule"])
        points.append(Point(network, machine, number, lanes, hardware, metrics, _excess(space, metrics, row)))
    return points


def _metrics(space: Space, found: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float | None]:
    area = {} if space.family is None else row["area"][space.family]
    values = {**found, **row, **area}
    for name in TIMES:
        cycles = row[{"latency_us": "cycles", "interval_us": "interval_cycles"}[name]]
        values[name] = None if cycles is None or space.clock_mhz is None else cycles / space.clock_mhz
    return {name: values.get(name) for name in METRICS}


def explicit_hardware(hardware: HardwareConfig, lanes: Sequence[int], schedule: str | list[str]) -> dict[str, Any]:
    """Keys of ``[hardware]`` that lead to a machine from the defaults: without a goal, which decides nothing once its
    choices, lanes and schedules are spelled out."""
    chosen = {key: value for key, value in plain(hardware).items() if key not in ("goal", "lanes")}
    chosen["schedule"] = schedule
    return {"lanes": list(lanes), **{key: value for key, value in chosen.items() if _DEFAULTS.get(key) != value}}


def _excess(space: Space, metrics: Mapping[str, float | None], row: Mapping[str, Any]) -> dict[str, float | None]:
    excess: dict[str, float | None] = {}
    for limit in space.limits:
        value = metrics[limit.metric]
        excess[limit.text] = None if value is None else limit.excess(value)
    for fits in space.fits:
        excess[fits.text] = shortage(row["area"], fits.device)
    return excess


def shortage(area: Mapping[str, Mapping[str, float | None]], device: str) -> float | None:
    """By how much of a device, or of a board beside its link, a machine is too large; 0 or less if it fits.

    None if a figure that decides it is not known.
    """
    from boards.registry import find_device, find_room

    room, whole = find_room(device), find_device(device).budget
    found = [
        None if used is None else (used - there) / (whole.get(kind) or 1.0)
        for kind, (used, there) in compared(area[room.family], room).items()
    ]
    known = [value for value in found if value is not None]
    if len(known) < len(found) and max(known, default=0.0) <= 0:
        return None
    return max(known)


def costs(space: Space, points: Sequence[Point]) -> np.ndarray:
    """float64 (points, objectives): values to be small, of points whose objectives are all known."""
    signs = {"minimise": 1.0, "maximise": -1.0}
    return np.array(
        [[signs[aim] * float(point.metrics[name] or 0.0) for name, aim in space.objectives.items()] for point in points]
    ).reshape(len(points), len(space.objectives))


def mark_front(space: Space, points: Sequence[Point]) -> list[Point]:
    """Mark the points that no other beats, of those that count; returns them."""
    counting = [point for point in points if point.counts(space)]
    chosen = {id(counting[index]) for index in pareto_front(costs(space, counting))}
    for point in points:
        point.front = id(point) in chosen
    return [point for point in counting if point.front]


def covered(space: Space, points: Sequence[Point]) -> list[dict[str, float]]:
    """Hypervolume of the points that count, as the networks come: ``[{"networks", "hypervolume"}]``.

    Objectives are scaled to 0..1 over all points that count; the reference is ``REFERENCE`` in each, and what a single
    point at 0 would cover is 1.
    """
    counting = [point for point in points if point.counts(space)]
    if not counting:
        return []
    table = costs(space, counting)
    table = scaled(table, table.min(axis=0), table.max(axis=0))
    corner = np.full(table.shape[1], REFERENCE)
    numbers = np.array([point.network for point in counting])
    return [
        {
            "networks": int(network) + 1,
            "hypervolume": hypervolume(table[numbers <= network], corner) / REFERENCE ** table.shape[1],
        }
        for network in sorted(set(numbers.tolist()))
    ]


def most_of(space: Space, front: Sequence[Point], most: int) -> list[Point]:
    """At most so many points of a front, those that have most of its hypervolume."""
    if len(front) <= most:
        return list(front)
    table = costs(space, front)
    table = scaled(table, table.min(axis=0), table.max(axis=0))
    return [front[index] for index in spread(table, [REFERENCE] * table.shape[1], most)]


def told(space: Space, points: Sequence[Point]) -> tuple[list[float], dict[str, float]] | str:
    """What the sampler is told of a network: the best of each objective over the machines that keep the constraints.

    Where none does: over all machines, with by how much the nearest breaks each constraint. A text says why there is
    nothing to tell.
    """
    known = [point for point in points if not point.unknown(space)]
    if not known:
        missing = points[0].unknown(space)[0] if points else ""
        return f"{missing} is not known of any machine" if missing else "every machine is refused"
    counting = [point for point in known if point.counts(space)]
    # Whether a point fits may not be known; the sampler takes that for the whole constraint.
    nearest = min(known, key=lambda point: sum(max(0.0, _worth(value)) for value in point.excess.values()))
    best = costs(space, counting or known).min(axis=0)
    signs = [1.0 if aim == "minimise" else -1.0 for aim in space.objectives.values()]
    return (
        [sign * float(value) for sign, value in zip(signs, best)],
        {text: _worth(value) for text, value in nearest.excess.items()},
    )


def _worth(excess: float | None) -> float:
    return 1.0 if excess is None else excess


def warn_of_unknown(space: Space, points: Sequence[Point]) -> None:
    """Warn of points that could not be judged."""
    for name in space.objectives:
        count = sum(point.metrics[name] is None for point in points)
        if count:
            _warn(f"{count} of {len(points)} points are left out: {name} is not estimated for their machines")
    for text in dict.fromkeys(text for point in points for text in point.excess):
        count = sum(point.excess[text] is None for point in points)
        if count:
            _warn(f"{count} of {len(points)} points are left out: whether {text!r} is kept is not known of them")


def _warn(text: str) -> None:
    warnings.warn(text, CodesignWarning, stacklevel=3)
