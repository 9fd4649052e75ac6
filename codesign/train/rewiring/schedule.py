"""When connections change, and when density has fallen far enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

from codesign.config import RewiringConfig

SMOOTHED = 3
RISE = 1.05
FALL = 0.95


def _iterations(epochs: int, config: RewiringConfig) -> int:
    """Iterations that end before the last epoch and within ``rewire_until`` of the epochs."""
    length = config.iteration_epochs(epochs)
    return min(math.floor(config.rewire_until * epochs + 1e-9), epochs - 1) // length


def fall_epochs(epochs: int, config: RewiringConfig) -> list[int]:
    """Epochs (from 1) after which density falls: the last of each iteration. Empty if density is constant."""
    if not config.rules.falls:
        return []
    return [(index + 1) * config.iteration_epochs(epochs) for index in range(_iterations(epochs, config))]


def change_epochs(epochs: int, config: RewiringConfig) -> dict[int, str]:
    """What happens after which epoch (from 1): 'rewire' (prune, regrow as many) or 'fall' (prune alone).

    Every ``rewire_every`` epochs inside an iteration there is a rewiring, but none in its last epoch, so that regrown
    weights have trained for an epoch before they are measured. The iteration ends with a fall, or with one more
    rewiring where density is constant.
    """
    if not config.rules.changes:
        return {}
    length = config.iteration_epochs(epochs)
    events: dict[int, str] = {}
    for epoch in range(1, _iterations(epochs, config) * length + 1):
        place = (epoch - 1) % length + 1
        if place == length:
            events[epoch] = "fall" if config.rules.falls else "rewire"
        elif config.rules.growth != "none" and place % config.rewire_every == 0:
            events[epoch] = "rewire"
    return events


def turning_point(indices: Sequence[float]) -> int | None:
    """Position in ``indices`` (mean PQ index of each iteration) at which compressing further begins to cost, or None.

    The index, smoothed over 3 iterations, must first rise to 5 % above its minimum and then fall to 5 % below its
    maximum since (Diao et al., ICLR 2023: the index rises while redundant weights go and falls when needed ones do).
    """
    low = math.inf
    high: float | None = None
    for position in range(SMOOTHED - 1, len(indices)):
        value = sum(indices[position - SMOOTHED + 1 : position + 1]) / SMOOTHED
        if high is not None:
            high = max(high, value)
            if value <= FALL * high:
                return position
        else:
            low = min(low, value)
            if value >= RISE * low and value > low:
                high = value
    return None
