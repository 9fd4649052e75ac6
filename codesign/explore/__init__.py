"""Exploration of the design space: networks are sampled and trained, their machines enumerated by estimates.

``space`` is what is searched, ``sampling`` which networks come next, ``jobs`` what is done, ``workers`` by whom,
``points`` and ``fronts`` what came out, and ``study`` binds them together in a folder. Choices are made by *validation*
accuracy. Freezing runs the test samples as well, and its record has what they came to; a study reads that for the front
alone, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError
from codesign.basics.progress import Progress, silent
from codesign.explore.space import Space, load_space, parse_space
from codesign.explore.study import TABLE, Study, claim
from codesign.records.rundir import RunDirectory


def explore(
    space: Space | Mapping[str, Any] | str | Path,
    folder: str | Path,
    *,
    workers: int | None = 1,
    scheduler: str | None = None,
    networks: str | Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Search a space of networks and machines into ``folder``; returns a row for each point, which pandas takes.

    space : path of a space file, or its tables. workers : processes of this machine, None for one a core; a script that
        asks for more than one needs ``if __name__ == "__main__"``. scheduler : address of a Dask scheduler, whose
        workers do it instead; not together with ``workers``.
    networks : folder of the trained networks, which studies may share; default: one in ``folder``.
    device : what trains, 'cpu', 'cuda', 'cuda:N' or 'auto'.

    A row has ``name``, ``network``, the values of the axes by their keys, ``lanes``, the figures of
    :data:`codesign.explore.space.METRICS` (accuracy is that on the validation samples), ``feasible`` (it keeps the
    constraints), ``front``, ``test_accuracy`` (of the front, else None), ``folder`` and the ``command`` that makes it
    again. Finished networks are taken over when called again. The folder also gets ``explore.json`` and a page.

    Raises InputError for a space that is wrong or contradicts itself and for a folder of another space, OutputError if
    ``folder`` holds something else or cannot be written, ToolError for a scheduler that does not answer and for workers
    of another codesign, AlteredError if a file in it is not as it was recorded.

    >>> import codesign
    >>> space = {
    ...     "base": {"network": {"hidden": [16], "timesteps": 2}, "train": {"epochs": 10}, "freeze": {"epochs": 0}},
    ...     "axes": {"train.rewiring.target_density": [0.2], "hardware.lanes": [1, 2]},
    ...     "objectives": {"accuracy": "maximise", "cycles": "minimise"},
    ...     "budget": {"networks": 1},
    ... }
    >>> rows = codesign.explore_designs(space, "designs")  # doctest: +SKIP
    >>> [row["name"] for row in rows]  # doctest: +SKIP
    ['000-00', '000-01']
    >>> space["axes"]["hardware.lane"] = [1]
    >>> codesign.explore_designs(space, "designs")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    codesign.basics.errors.InputError: space: axes.hardware.lane = 1 ... unknown key 'hardware.lane'; did you mean ...
    """
    if isinstance(space, (str, Path)):
        space = load_space(space)
    elif not isinstance(space, Space):
        space = parse_space(space)
    # This process is what does it unless somebody else is named.
    count = None if scheduler is not None and workers == 1 else workers
    return rows_of(run_study(space, folder, count, scheduler, networks, device, progress))


def run_study(
    space: Space,
    folder: str | Path,
    workers: int | None,
    scheduler: str | None,
    networks: str | Path | None,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """:func:`explore`, returning the document of ``explore.json``."""
    if workers is not None and scheduler is not None:
        raise InputError("--workers is the number of processes here; the workers of a --scheduler are its own")
    path = Path(folder)
    claim(path, space)
    study = Study(space, path, None if networks is None else Path(networks), device, progress)
    with RunDirectory(path, {}).locked():
        study.run(workers, scheduler)
        study.draw()
    return study.document()


def rows_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of an exploration as flat rows of the same keys."""
    return [
        {
            "name": point["name"],
            "network": point["network"],
            **point["choices"],
            "lanes": point["lanes"],
            **point["metrics"],
            "feasible": not point["broken"],
            "front": point["front"],
            "test_accuracy": point["test_accuracy"],
            "folder": point["folder"],
            "command": point["command"],
        }
        for point in document["points"]
    ]


__all__ = ["TABLE", "Space", "explore", "load_space", "parse_space", "rows_of", "run_study"]
