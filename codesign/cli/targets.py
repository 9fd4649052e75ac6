"""What a command's argument is: a configuration, a run directory, a frozen network or a bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import atomic_path, explain_write_errors, file_hash
from codesign.cli.console import console
from codesign.cli.kinds import Kind, kind_of
from codesign.config import Config, apply_override, load_config, parse_config
from codesign.contract.network import FrozenNetwork
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context, Stage
from codesign.pipeline.stages import STAGES, takers
from codesign.records.names import CONFIG, NETWORK
from codesign.records.rundir import IMPORT, RunDirectory


def open_run(
    target: Path, output: Path | None, overrides: Sequence[str] | None, seed: int | None = None, *, stage: str = ""
) -> tuple[RunDirectory, Config]:
    """The run directory that a configuration, run directory or frozen network leads to, and its configuration.

    A configuration goes to ``output``, or else to ``runs/<its name>``; a frozen network needs ``output``, and goes into
    the run with :func:`import_network` once the run is locked. ``stage`` is the only one that the command does, if so.
    Raises InputError for overrides that it does not read, but of a configuration, which is that of a whole run.
    """
    kind = kind_of(target)
    changes = list(overrides or [])
    if kind == "config":
        config = load_config(target, changes, seed)
        return RunDirectory.create(output or Path("runs") / target.stem), config
    if kind == "run":
        if output is not None and output.resolve() != target.resolve():
            raise InputError(f"-o {output}: a run directory keeps its results in {target}")
        run = RunDirectory.open(target)
        return run, changed_config(run, changes, seed, stage=stage)
    if output is None:
        raise InputError(f"{target}: a frozen network alone needs -o DIR, the folder that the results go to")
    if seed is not None:
        raise InputError("--seed is the seed of training; a frozen network is not trained")
    config = overridden(changes, FrozenNetwork.load(target), stage=stage)
    return RunDirectory.create(output), config


def changed_config(
    run: RunDirectory, overrides: Sequence[str] | None, seed: int | None = None, *, stage: str = ""
) -> Config:
    """The run's configuration with overrides; InputError for those that ``stage``, if given, does not read."""
    config = run.read_config(list(overrides or []), seed)
    _refuse_unread(stage, overrides, config)
    return config


def _refuse_unread(stage: str, overrides: Sequence[str] | None, config: Config) -> None:
    for change in overrides or [] if stage else []:
        key = change.partition("=")[0].strip()
        found = takers(key, config)
        if stage not in found:
            raise InputError(
                f"--set {key}: `codesign {stage}` does not read it; `codesign {found[0]}` does, and `codesign run` "
                "does again all that follows from it"
            )


def import_network(run: RunDirectory, source: Path) -> None:
    """Copy a frozen network into a locked run directory, unless it is there already, and record it.

    Raises OutputError if the folder holds a run with its own training.
    """
    refuse_training(run)
    # What belongs to the network of an import before is not this one's.
    run.remove(tuple(name for name in run.stage(IMPORT).get("outputs", {}) if name != NETWORK))
    target = run.path / NETWORK
    if not target.is_file() or file_hash(target) != file_hash(source):
        with explain_write_errors(run.path), atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    run.manifest["imported"] = True
    run.record_files(IMPORT, (NETWORK,))


def refuse_training(run: RunDirectory) -> None:
    """Raise OutputError if the folder holds a run that trained its network."""
    if not run.is_imported and (run.manifest["stages"] or (run.path / CONFIG).is_file()):
        raise OutputError(f"{run.path}: holds a run with its own training; choose another folder with -o")


def overridden(overrides: Sequence[str] | None, network: FrozenNetwork | None = None, *, stage: str = "") -> Config:
    """Configuration of a command that has no file of it: defaults and --set; readout and layers are ``network``'s.

    Raises InputError for overrides that ``stage``, if given, does not read.
    """
    document: dict[str, Any] = {}
    if network is not None:
        described = {"layers": len(network.layers), "plain": network.is_plain_chain}
        document = {"network": {"readout": network.readout, "elsewhere": described}}
    for change in overrides or []:
        apply_override(document, change)
    config = parse_config(document, "--set")
    _refuse_unread(stage, overrides, config)
    return config


def artefact(target: Path, kind: Kind, name: str) -> Path:
    """``target`` itself, or the file or folder ``name`` in it if it is a run directory, as the run has recorded it."""
    if kind != "run":
        return target
    RunDirectory.open(target).check(name)
    return target / name


def check_writable(folder: Path) -> None:
    """Raise OutputError, before work that takes long, if ``folder`` cannot be made or written into."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if there.is_dir() and not os.access(there, os.W_OK):
        raise OutputError(f"{there}: not writable; choose another folder with -o")


@contextmanager
def working_in(run: RunDirectory) -> Iterator[None]:
    """Hold the run directory's lock; a log of an unexpected error goes into it."""
    console.folder = run.path
    with run.locked():
        yield


def announcer(titles: dict[str, str]) -> Callable[[int, int, Stage, str], None]:
    """Prints named steps as ``[3/7] generate``."""

    def announce(number: int, count: int, stage: Stage, event: str) -> None:
        title = f"[{number}/{count}] {stage.name:9} {titles.get(stage.name, '')}".rstrip()
        if event == "start":
            console.step(title)
        elif event == "skip":
            console.note(f"{title}  unchanged")
        else:
            console.step_done(title)

    return announce


TITLES = {
    "train": "sparse training",
    "freeze": "into integers",
    "generate": "Verilog",
    "estimate": "cycles, memory, area",
    "budget": "place and route against the budget",
    "verify": "Verilog against the integer network",
    "synth": "area and clock",
    "build": "bitstream",
    "report": "report.html",
}


def execute(
    run: RunDirectory,
    config: Config,
    names: Sequence[str],
    *,
    force: bool,
    device: str = "cpu",
    stages: Mapping[str, Stage] = STAGES,
    network: Path | None = None,
    **options: object,
) -> None:
    """Run stages with progress shown, with ``network`` taken into the run first."""
    with working_in(run):
        if network is not None:
            import_network(run, network)
        context = Context(run, config, progress=console.progress, device=device, note=console.note, options=options)
        # Which data are trained on is what a newcomer's first configuration leaves to its default.
        titles = {**TITLES, "train": f"{TITLES['train']}, data set {config.data.set}"}
        run_stages(context, names, force=force, announce=announcer(titles), stages=stages)
