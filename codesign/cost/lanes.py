"""How many lanes each layer is worth: from its work, its sweeps and the events that reach it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.basics.errors import InputError
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import layer_events
from codesign.machine.choices import MAX_LANES, Choices
from codesign.machine.mapping import map_network


@dataclass(frozen=True)
class Work:
    """Mean clocks of a layer in a sample: ``walks`` on one lane, ``events`` that every lane takes in, and sweeps of
    ``units`` neurons, or channels of ``places`` neurons, ``sweeps`` times."""

    walks: float
    events: float
    units: int
    places: int
    sweeps: int

    def clocks(self, lanes: int, streams: int = 1) -> float:
        """With so many lanes, all of them as full as each other; ``streams`` : events a clock, as many in each."""
        walking = max(self.walks / lanes, self.events) / streams
        return walking + self.sweeps * -(-self.units // lanes) * self.places


def layer_work(network: FrozenNetwork, stimulus: Stimulus) -> list[Work]:
    """Work of each layer on samples, by the golden model."""
    one_lane = map_network(network, [1] * len(network.layers))
    found = []
    for layer, events in zip(one_lane.layers, layer_events(network, stimulus), strict=True):
        sent = events.sum(axis=(0, 1), dtype=np.float64) / len(stimulus)
        walks = float(sent @ layer.walked(layer.row_lengths)[0])
        places = layer.picture[1] * layer.picture[2] if layer.picture else 1
        found.append(Work(walks, float(sent.sum()), layer.n_slots // places, places, network.timesteps))
    return found


def sample_clocks(work: list[Work], lanes: list[int], *, folded: bool, streams: int = 1) -> float:
    """Mean clocks of a sample, to compare lanes by: layers in turn, or at once, a timestep behind each other."""
    clocks = [layer.clocks(count, streams) for layer, count in zip(work, lanes, strict=True)]
    if folded:
        return sum(clocks)
    return max(clocks) + (sum(clocks) - max(clocks)) / work[0].sweeps


def choose_lanes(
    network: FrozenNetwork, choices: Choices, within: float | None, stimulus: Stimulus | None
) -> list[int]:
    """The fewest lanes of each layer for at most ``within`` times the clocks of a sample that lanes can reach.

    within : 1 or more; None for one lane each. Deterministic; from the layers' work (:class:`Work`), with
    lanes that are as full as each other. Raises InputError where that needs samples and there are none.
    """
    lanes = [1] * len(network.layers)
    if within is None:
        return lanes
    if stimulus is None:
        raise InputError("hardware.lanes = 'auto' needs calibration samples, which a run has; give a number")
    work = layer_work(network, stimulus)
    most = [min(MAX_LANES, layer.units) for layer in work]
    if choices.folded:
        most = [max(most)] * len(most)
    shape = {"folded": choices.folded, "streams": choices.event_streams}
    tried = [(sample_clocks(work, lanes, **shape), list(lanes))]
    while True:
        clocks = [layer.clocks(count, choices.event_streams) for layer, count in zip(work, lanes, strict=True)]
        free = [index for index, count in enumerate(lanes) if count < most[index]]
        if choices.folded:
            if not free:
                break
            lanes = [lanes[0] + 1] * len(lanes)
        else:
            # The layer that the others wait for; with all lanes it has, nothing helps.
            slowest = int(np.argmax(clocks))
            if slowest not in free:
                break
            lanes[slowest] += 1
        tried.append((sample_clocks(work, lanes, **shape), list(lanes)))
    least = min(clocks for clocks, _ in tried)
    return next(found for clocks, found in tried if clocks <= within * least)
