"""RTL mutants of layers that walk all timesteps of a sample at once: masks, banks, and the sums of single timesteps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from sim.mutants.edits import RtlEdit, driver, to
from sim.mutants.scene import Scene

COLLECTOR = "collector"
Bool = npt.NDArray[np.bool_]


def schedule_edits(scene: Scene) -> Iterator[RtlEdit]:
    """Faults of the first layer whose events are collected, where the samples show them."""
    layer = scene.collecting_layer
    if layer is None:
        return
    collector, neurons = rf"collector{layer}_\d+(?:_\d)?", rf"engine{layer}_neurons\d+"

    def shows(change: Callable[[Bool], Bool]) -> bool:
        return scene.shows_events(layer, change)

    if scene.network.timesteps > 1:
        yield RtlEdit(
            "every end of a timestep ends a sample", COLLECTOR, collector, driver("gives"), to("ends"),
            "there are more samples than were sent",
        )  # fmt: skip
    if shows(_at_first):
        yield RtlEdit(
            "masks of the first timestep alone", COLLECTOR, collector, driver("step_1"), to("1'h0"),
            "the layer differs if its events come all in the first timestep",
        )  # fmt: skip
    if not scene.choices.exits and shows(_with_earlier):
        yield RtlEdit(
            "masks not cleared", COLLECTOR, collector, driver(r"empties[01]"), to("1'h0"),
            "the layer differs if the samples that a bank has held before come with each", every=True,
        )  # fmt: skip
    yield RtlEdit(
        "banks do not change", COLLECTOR, collector, driver("into"), to("1'h0"), "no second sample is ever sent",
    )  # fmt: skip
    if shows(_in_all):
        yield RtlEdit(
            "weights added to all timesteps", COLLECTOR, f"{neurons}@SUMS@", driver("mask_2"), to("~1'h0"),
            "the layer differs if its sources fire in all timesteps of a sample or in none",
        )  # fmt: skip
    if scene.network.timesteps > 1 and shows(_as_first):
        yield RtlEdit(
            "sums of the first timestep alone", COLLECTOR, neurons, driver("swept_step"), to("1'h0"),
            "the layer differs if each timestep has the first one's events",
        )  # fmt: skip


def _at_first(events: Bool) -> Bool:
    found = np.zeros_like(events)
    found[:, 0] = events.any(axis=1)
    return found


def _with_earlier(events: Bool) -> Bool:
    """Banks take turns."""
    found = np.zeros_like(events)
    for bank in range(2):
        found[bank::2] = np.logical_or.accumulate(events[bank::2], axis=0)
    return found


def _in_all(events: Bool) -> Bool:
    return np.broadcast_to(events.any(axis=1, keepdims=True), events.shape)


def _as_first(events: Bool) -> Bool:
    return np.broadcast_to(events[:, :1], events.shape)
