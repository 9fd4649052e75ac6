"""RTL mutants of layers that have turns in one engine: events that are kept for a later turn.

The mask of lanes is what a sweep word has in its highest bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from codesign.contract.network import INPUT
from sim.mutants.edits import RtlEdit
from sim.mutants.scene import Scene

TURNS = "turns"


def turn_edits(scene: Scene) -> Iterator[RtlEdit]:
    """Faults of what is kept for a later turn, each of the first projection in which the samples show it."""
    if not scene.choices.folded:
        return
    late, lanes = [False, True], scene.sidecar.layers[0].lanes
    for index, number, is_late in _kept(scene):
        if is_late not in late or not _shows_without(scene, index, number):
            continue
        late.remove(is_late)
        yield RtlEdit(
            "own events of the timestep before lost" if is_late else "events of an earlier layer lost",
            TURNS, f"engine0_kept{index}_{number}", r"<= i__payload;", f"<= (i__payload << {lanes}) >> {lanes};",
            "the layer does without these events, and words without lanes end its timesteps early",
        )  # fmt: skip


def _kept(scene: Scene) -> Iterator[tuple[int, int, bool]]:
    """Layer and number of each projection whose events wait for a later turn, and whether that is a timestep later."""
    for entry in scene.sidecar.layers:
        passed = False
        for number, part in enumerate(entry.projections):
            if part.source == entry.index - 1 and part.source != INPUT and not passed:
                passed = True
            elif part.source != INPUT:
                yield entry.index, number, part.source == entry.index


def _shows_without(scene: Scene, index: int, number: int) -> bool:
    """Whether it shows that a projection's events do not come."""
    ends = np.cumsum([part.n_in for part in scene.sidecar.layers[index].projections])
    events = scene.events(index, {}, {})
    row = events.row.copy()
    row[ends[number] - scene.sidecar.layers[index].projections[number].n_in : ends[number]] = -1
    layers = list(scene.network.layers)
    layers[index] = scene.with_reached(index, scene.reached(index, replace(events, row=row)))
    return scene.shows(scene.network.with_layers(layers))
