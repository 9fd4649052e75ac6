"""The two schedules of time: how often a layer walks a source's row, and which layers of a network may do it how.

*timestep*: once in every timestep in which the source fires. *sample*: once a sample, for all timesteps at once, with a
mask of those in which it has fired; the layer then needs all of a sample before it says anything. Input currents are
summed once a sample in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from codesign.basics.errors import entries_for
from codesign.contract.network import INPUT, FrozenNetwork

Schedule = Literal["timestep", "sample"]
Sources = tuple[tuple[int, ...], ...]


def sources_of(network: FrozenNetwork) -> Sources:
    """Of each layer: where its projections come from."""
    return tuple(tuple(projection.source for projection in layer.projections) for layer in network.layers)


def free_layers(network: FrozenNetwork) -> list[int]:
    """Layers that could have either schedule; the others are as they must be."""
    is_current = network.coding.is_current
    return [
        index for index, read in enumerate(sources_of(network)) if index not in read and not (index == 0 and is_current)
    ]


def layer_schedules(chosen: str | Sequence[Schedule], n_layers: int, *, is_current: bool) -> tuple[Schedule, ...]:
    """Schedule of each layer. chosen : one for all, or one for each; is_current : whether inputs are currents."""
    one: Schedule = "sample" if chosen == "sample" else "timestep"
    found: list[Schedule] = [one] * n_layers if isinstance(chosen, str) else [*chosen]
    if is_current:
        found[0] = "sample"
    return tuple(found)


def as_chosen(schedules: Sequence[Schedule], *, is_current: bool) -> Schedule | tuple[Schedule, ...]:
    """The shortest choice from which these schedules follow: a word if all that are free have the same."""
    free = schedules[1:] if is_current else schedules
    if not free:
        return "timestep"
    return free[0] if len({*free}) == 1 else tuple(schedules)


def sum_is_apart(schedule: Schedule, streams: int) -> bool:
    """Whether a layer's sums have memories of their own: several sweeps follow, or several streams add to them."""
    return schedule == "sample" or streams > 1


def collects(network: FrozenNetwork, index: int, schedule: Schedule) -> bool:
    """Whether a layer's events are collected into masks: input currents, which come once a sample, are not."""
    return schedule == "sample" and not (index == 0 and network.coding.is_current)


def schedule_problem(schedules: Sequence[Schedule], sources: Sources) -> str | None:
    """Why layers that read these ``sources`` cannot have these schedules, in one line; None if they can.

    A layer that walks timestep by timestep takes a timestep of all its senders before it takes the next of one. If some
    of them wait for whole samples of what the others say at once, that would have to be kept somewhere.
    """
    if len(schedules) != len(sources):
        return entries_for("hardware.schedule", len(schedules), len(sources))
    # Behind how many layers that wait for whole samples a population is.
    behind = {INPUT: 0}
    for index, (schedule, read) in enumerate(zip(schedules, sources, strict=True)):
        waits = {behind[source] for source in read if source != index}
        if schedule == "sample":
            if index in read:
                return (
                    f"hardware.schedule: layer {index} reads its own events of the timestep before, so that it cannot "
                    "walk all timesteps of a sample at once; give it 'timestep'"
                )
            behind[index] = 1 + max(waits, default=0)
        elif len(waits) > 1:
            late = max((source for source in read if source != index), key=lambda source: behind[source])
            return (
                f"hardware.schedule: layer {index} walks timestep by timestep, and of what it reads layer {late} waits "
                "for whole samples longer than the rest; give it 'sample' too"
            )
        else:
            behind[index] = max(waits, default=0)
    return None
