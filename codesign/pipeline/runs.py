"""The whole path in a run directory, by one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from codesign.basics.progress import Progress, silent
from codesign.config import Config
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context
from codesign.records.rundir import RunDirectory

PATH = ("train", "freeze", "generate", "estimate", "budget", "verify", "synth", "report")


def run_pipeline(
    config: Config,
    folder: str | Path,
    *,
    synth: bool = False,
    force: bool = False,
    device: str = "cpu",
    progress: Progress = silent,
    note: Callable[[str], None] = lambda _: None,
) -> RunDirectory:
    """Train, freeze, generate, estimate, place against the ``[budget]`` (if any), verify and report into ``folder``.

    Goes on where an earlier call, or ``codesign run``, was stopped, and does again only what has changed, or all with
    ``force``. With ``synth`` area and clock are measured too. ``progress`` counts within a stage; ``note`` gets a line
    on each value that the data decided. The directory returned has all ``figures``.

    Raises InputError and UnsupportedError for a configuration that cannot be run, AlteredError for files that are not
    as recorded, OutputError if the folder holds something else or is in use, and after the last stage MismatchError if
    hardware differs from software and CapacityError if the network does not fit.

    >>> import codesign
    >>> config = codesign.parse_config({"data": {"set": "npz", "path": "no.npz"}})
    >>> codesign.run_pipeline(config, "run").figures["mismatches"]  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    codesign.basics.errors.InputError: data.path = '.../no.npz': no such file or folder
    """
    run = RunDirectory.create(folder)
    with run.locked():
        context = Context(run, config, progress=progress, device=device, note=note)
        run_stages(context, stages_of(run, config, synth=synth), force=force)
    return run


def stages_of(run: RunDirectory, config: Config, *, synth: bool) -> list[str]:
    """The stages of the path that this run has; synthesis where it is asked for or was done before."""
    absent = set() if synth or run.stage("synth") else {"synth"}
    absent |= set() if config.budget.active else {"budget"}
    absent |= {"train", "freeze"} if run.is_imported else set()
    return [name for name in PATH if name not in absent]
