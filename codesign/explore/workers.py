"""Who does the jobs: this process, worker processes of this machine, or those of a Dask scheduler.

A thin layer over Dask's ``distributed``: jobs are told apart by their keys, and what they make lies in run folders, so
that nothing here has to be kept.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Protocol

from codesign.basics.errors import CodesignError, ToolError
from codesign.basics.progress import Progress
from codesign.explore.jobs import check_worker

# Seconds that a scheduler has to answer.
TIMEOUT = 10
# Workers that may die at one job before it is given up.
DEATHS = 20
# What every worker of this machine needs is imported once, by the process from which they are forked.
IMPORTED = ("distributed", "codesign.explore.jobs", "codesign.train.loop", "codesign.quantise.freeze", "torch")


@dataclass(frozen=True)
class Job:
    """A call of a function of :mod:`codesign.explore.jobs`.

    after : key of the job whose result is the function's last argument.
    """

    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: str | None = None


class Workers(Protocol):
    """Does jobs.

    count : how many at a time.
    """

    count: int

    def results(self, jobs: Sequence[Job]) -> Iterator[tuple[str, Any]]:
        """(key, result) of each job as it ends. A job comes behind the one that it is after."""
        ...


class Here:
    """This process, one job after the other; ``progress`` is told of the inside of each."""

    count = 1

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def results(self, jobs: Sequence[Job]) -> Iterator[tuple[str, Any]]:
        found: dict[str, Any] = {}
        for job in jobs:
            arguments = (*job.arguments, *(() if job.after is None else (found[job.after],)))
            found[job.key] = job.function(*arguments, progress=self._progress)
            yield job.key, found[job.key]


class Cluster:
    """Workers of a Dask scheduler."""

    def __init__(self, client: Any, folder: Path, stamp: str) -> None:
        self._client = client
        try:
            found = client.run(check_worker, stamp, folder)
        except CodesignError:
            raise
        except Exception as error:
            raise ToolError(
                f"{client.scheduler.address}: a worker cannot run codesign ({_first_line(error)})"
            ) from None
        if not found:
            raise ToolError(f"{client.scheduler.address}: the scheduler has no workers; start some")
        self.count = len(found)

    def results(self, jobs: Sequence[Job]) -> Iterator[tuple[str, Any]]:
        from distributed import KilledWorker, as_completed

        futures: dict[str, Any] = {}
        keys = {}
        for job in jobs:
            after = () if job.after is None else (futures[job.after],)
            # Not pure: what was done stands in run folders, and not in what a scheduler remembers.
            future = self._client.submit(job.function, *job.arguments, *after, pure=False)
            futures[job.key], keys[future.key] = future, job.key
        try:
            for future in as_completed(list(futures.values())):
                try:
                    result = future.result()
                except KilledWorker:
                    raise ToolError(
                        f"{keys[future.key]}: {DEATHS} workers died at it; what is finished stays, look at their memory"
                    ) from None
                yield keys[future.key], result
        finally:
            self._client.cancel([future for future in futures.values() if not future.done()])


@contextmanager
def workers(
    count: int | None, scheduler: str | None, folder: Path, stamp: str, progress: Progress
) -> Iterator[Workers]:
    """Who does the jobs of a study in ``folder``.

    count : worker processes of this machine, 1 for this process; None for one a core. scheduler : address of a Dask
    scheduler, whose workers do them instead. progress : of the inside of a job, where this process does it.

    Raises ToolError for a scheduler that does not answer and for workers of another codesign.
    """
    if scheduler is not None:
        with _quiet(), _connected(scheduler) as client:
            yield Cluster(client, folder, stamp)
        return
    count = count or len(os.sched_getaffinity(0))
    if count == 1:
        yield Here(progress)
        return
    with _quiet(), _local(count) as client:
        yield Cluster(client, folder, stamp)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(address, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise ToolError(
            f"--scheduler {address}: does not answer within {TIMEOUT} s ({_first_line(error)}); "
            "is `dask scheduler` running there?"
        ) from None
    with client:
        yield client


@contextmanager
def _local(count: int) -> Iterator[Any]:
    """Processes of this machine, one thread each; they end with this one."""
    import dask.config
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": DEATHS,
        # No job waits for a worker while another is free.
        "distributed.scheduler.worker-saturation": 1.0,
        # A job is one long call: looking into it, and often at the process, takes time from it.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "10s",
    }
    if forks := "forkserver" in multiprocessing.get_all_start_methods():
        settings["distributed.worker.multiprocessing-method"] = "forkserver"
    with (
        dask.config.set(settings),
        _fork_server() if forks else nullcontext(),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=None,  # type: ignore[arg-type]
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _fork_server() -> Iterator[None]:
    """With a process that has imported what workers need, and has the environment that Dask gives them.

    A worker that takes the place of a dead one is then there at once.
    """
    import dask.config
    from distributed.utils import get_mp_context

    environment = {key: str(value) for key, value in dask.config.get("distributed.nanny.pre-spawn-environ").items()}
    before = {key: os.environ.get(key) for key in environment}
    # It also names what is to be imported: ours has the last word.
    context = get_mp_context()
    context.set_forkserver_preload(list(IMPORTED))
    os.environ.update(environment)
    try:
        forkserver.ensure_running()
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Dask logs and warns of: a worker that died, a port that is taken."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
