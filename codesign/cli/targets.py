"""What a command's argument is: a configuration, a run directory, a frozen network or a bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from codesign.cli.console import console
from codesign.config import Config, apply_override, load_config, parse_config
from codesign.errors import InputError, OutputError
from codesign.files import atomic_path, explain_write_errors, file_hash, input_size
from codesign.network import FrozenNetwork
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import NETWORK, Context, Stage
from codesign.pipeline.stages import STAGES
from codesign.rundir import CONFIG, MANIFEST, RunDirectory

Kind = Literal["config", "run", "network", "bundle"]


def kind_of(path: Path) -> Kind:
    """What ``path`` holds. Raises InputError naming what was expected."""
    if os.path.isdir(path):  # noqa: PTH112 - pathlib's raises for a name that is too long
        if (path / MANIFEST).is_file():
            return "run"
        if (path / "design.json").is_file():
            return "bundle"
        raise InputError(f"{path}: neither a run directory ({MANIFEST}) nor a bundle (design.json)")
    if path.suffix == ".toml":
        return "config"
    input_size(path, "no such file or folder")
    return "network"


def expect(path: Path, *kinds: Kind) -> Kind:
    """The kind of ``path``, which must be one of ``kinds``."""
    names = {
        "config": "a configuration (.toml)",
        "run": "a run directory",
        "network": "a frozen network",
        "bundle": "a bundle",
    }
    kind = kind_of(path)
    if kind not in kinds:
        raise InputError(f"{path}: is {names[kind]}; expected {' or '.join(names[name] for name in kinds)}")
    return kind


def open_run(
    target: Path, output: Path | None, overrides: Sequence[str] | None, seed: int | None = None
) -> tuple[RunDirectory, Config]:
    """The run directory that a configuration, run directory or frozen network leads to, and its configuration.

    A configuration goes to ``output``, or else to ``runs/<its name>``; a frozen network needs ``output``.
    """
    kind = expect(target, "config", "run", "network")
    changes = list(overrides or [])
    if kind == "config":
        config = load_config(target, changes, seed)
        return RunDirectory.create(output or Path("runs") / target.stem), config
    if kind == "run":
        if output is not None and output.resolve() != target.resolve():
            raise InputError(f"-o {output}: a run directory keeps its results in {target}")
        run = RunDirectory.open(target)
        return run, load_config(target / CONFIG, changes, seed)
    if output is None:
        raise InputError(f"{target}: a frozen network alone needs -o DIR, the folder that the results go to")
    if seed is not None:
        raise InputError("--seed is the seed of training; a frozen network is not trained")
    FrozenNetwork.load(target)
    document: dict[str, object] = {}
    for change in changes:
        apply_override(document, change)
    config = parse_config(document)
    run = RunDirectory.create(output)
    if run.manifest["stages"] and not run.is_imported:
        raise OutputError(f"{output}: holds a run with its own training; choose another folder with -o")
    run.manifest["imported"] = True
    place_network(target, run.path / NETWORK)
    return run, config


def place_network(source: Path, target: Path) -> None:
    """Copy a frozen network into a run directory, unless it is there already."""
    if target.is_file() and file_hash(target) == file_hash(source):
        return
    with explain_write_errors(target.parent), atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


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
    "train": "data and sparse training",
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
    **options: object,
) -> None:
    """Run stages with progress shown."""
    with working_in(run):
        context = Context(run, config, progress=console.progress, device=device, options=options)
        run_stages(context, names, force=force, announce=announcer(TITLES), stages=stages)
