"""Points that no other beats, and how much of the space of objectives they cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def pareto_front(costs: npt.ArrayLike) -> list[int]:
    """Indices of the points that no other beats: nowhere worse and somewhere better. Equal points are all kept.

    costs : float (n_points, n_objectives), all to be small.
    """
    table = np.atleast_2d(np.asarray(costs, np.float64))
    if table.size == 0:
        return []
    front: list[int] = []
    # Whoever beats a point comes before it in this order, and if that one is beaten, then by one of the front.
    for index in np.lexsort(table.T[::-1]):
        row, best = table[index], table[front]
        if not np.any((best <= row).all(axis=1) & (best < row).any(axis=1)):
            front.append(int(index))
    return sorted(front)


def hypervolume(costs: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Volume that points, of costs to be small, dominate below a reference point (Zitzler and Thiele 1999).

    costs : float (n_points, n_objectives); points that are not below the reference everywhere count nothing.
    reference : float (n_objectives,).

    By slices along the last objective, each as thick as the next point's distance; exact, of exponential time in the
    number of objectives, which are few.
    """
    corner = np.asarray(reference, np.float64)
    table = np.asarray(costs, np.float64).reshape(-1, len(corner))
    return _volume(table[(table < corner).all(axis=1)], corner)


def _volume(table: Float, corner: Float) -> float:
    if not len(table):
        return 0.0
    if table.shape[1] == 1:
        return float(corner[0] - table.min())
    table = table[pareto_front(table)]
    table = table[np.argsort(table[:, -1], kind="stable")]
    ends = np.append(table[1:, -1], corner[-1])
    return float(
        sum(
            (end - row[-1]) * _volume(table[: index + 1, :-1], corner[:-1])
            for index, (row, end) in enumerate(zip(table, ends))
            if end > row[-1]
        )
    )


def scaled(costs: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> Float:
    """Costs of which ``low`` becomes 0 and ``high`` 1; an objective in which they are equal becomes 0."""
    table, low, high = (np.asarray(part, np.float64) for part in (costs, low, high))
    return (table - low) / np.where(high > low, high - low, 1.0)


def spread(costs: npt.ArrayLike, reference: Sequence[float], most: int) -> list[int]:
    """At most so many points that together have much of the hypervolume: each next one adds the most.

    Returns indices in the order of choice; the first of equals, none that adds nothing.
    """
    table = np.asarray(costs, np.float64).reshape(-1, len(reference))
    chosen: list[int] = []
    reached = 0.0
    while len(chosen) < min(most, len(table)):
        volumes = [
            -1.0 if index in chosen else hypervolume(table[[*chosen, index]], reference) for index in range(len(table))
        ]
        best = int(np.argmax(volumes))
        if volumes[best] <= reached:
            break
        chosen.append(best)
        reached = volumes[best]
    return chosen
