"""What a stage is, and when its result still stands.

A stage reads files of the run directory (``inputs``), a part of the configuration (``options``) and
perhaps data from outside (``external``), and writes files (``outputs``). Its key is the hash of all it
reads, of the code that does it, and nothing else, so that a run does again only what changed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from codesign.basics.errors import CodesignError, CodesignWarning, InputError, UnsupportedError
from codesign.basics.progress import Progress, silent
from codesign.config import PATHS, Config, DataConfig
from codesign.config.text import plain
from codesign.contract.network import FrozenNetwork
from codesign.pipeline.sources import code_hash
from codesign.records.names import NETWORK, STIMULUS
from codesign.records.rundir import RunDirectory, hash_files

if TYPE_CHECKING:
    from codesign.data import Dataset


class DataSource:
    """The configured data, loaded once for all that use them.

    Members
    -------
    dataset : the samples; loaded when asked for.
    warnings : what codesign warned of while they were loaded, one line each; stages that use them keep it.
    """

    def __init__(self, config: DataConfig, progress: Progress = silent) -> None:
        self.config, self.progress = config, progress
        self.warnings: list[str] = []

    @cached_property
    def dataset(self) -> Dataset:
        from codesign.data import load_dataset

        with keeping_warnings(self.warnings):
            return load_dataset(self.config, self.progress)


def learning(config: Config) -> dict[str, Any]:
    """What the weights follow from, beside the content of data and of a training to start from: neither where these lie
    nor the number of threads."""
    found = {name: plain(getattr(config, name)) for name in ("data", "network", "train")}
    del found["train"]["threads"]
    for section, key in PATHS:
        found[section].pop(key, None)
    return found


def check_device(device: str) -> None:
    """Raise UnsupportedError unless there is this device to train on; torch is asked only for another than the CPU."""
    if device != "cpu":
        from codesign.train.loop import find_device

        find_device(device)


@contextmanager
def keeping_warnings(kept: list[str]) -> Iterator[None]:
    """Append to ``kept`` what codesign warns of inside, each text once; it is shown as before."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            text = " ".join(str(message).split())
            if issubclass(category, CodesignWarning) and text not in kept:
                kept.append(text)
            show(message, category, *rest)

        warnings.showwarning = keep
        # Whatever filters are set: a result never depends on whether its warnings are wanted.
        warnings.simplefilter("always", CodesignWarning)
        yield


@dataclass
class Context:
    """What a stage may use.

    Parameters
    ----------
    run, config : the run directory and its resolved configuration.
    progress : called with the progress of the present stage.
    device : torch device of training.
    note : called with a line on what was chosen for the user.
    options : arguments of the command that are no part of the configuration (``build``: board).
    data : the data, where several contexts share them; default: those of ``config``.
    """

    run: RunDirectory
    config: Config
    progress: Progress = silent
    device: str = "cpu"
    note: Callable[[str], None] = lambda _: None
    options: Mapping[str, Any] = field(default_factory=dict)
    data: DataSource | None = None

    @cached_property
    def source(self) -> DataSource:
        """Where the samples come from, with what was warned of meanwhile."""
        return self.data or DataSource(self.config.data, self.progress)

    @property
    def dataset(self) -> Dataset:
        """The configured data, loaded once per command."""
        return self.source.dataset


@dataclass(frozen=True)
class Outcome:
    """Result of a stage: its figures (keys of ``rundir.FIGURES``) and further facts for its record.

    ``failure`` is raised once the figures are recorded; a stage that failed is never skipped. ``redo`` names an earlier
    stage to go back to, because this one has changed what that depends on; ``failure`` then says what is wrong, for a
    command that does not include that stage.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    failure: CodesignError | None = None
    redo: str | None = None


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Parameters
    ----------
    name : the command's verb.
    inputs : files and folders of the run directory that it needs, each with the verb that makes it.
    optional_inputs : files and folders that it reads if they are there.
    outputs : files and folders that it writes.
    options : the part of the configuration that it reads, JSON-able.
    settings : sections and keys of the configuration that it reads, of which a command that does only this stage takes
        changes; what is left out of them changes no result of it.
    work : does it; when a source that it depends on has changed (:mod:`codesign.pipeline.sources`), its result is out
        of date.
    external : hashes of what it reads outside of the run directory.
    unused : modules that the work imports but does not use with the present configuration.
    resumable : True if it goes on from its own partial outputs after an interruption.
    always : True if it is worth doing after a stage before it found a failure.
    hardware : True if it needs an accelerator of the frozen network, so that it is refused where there can be none.
    trains : True if it computes on the device of training.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    options: Callable[[Context], Any]
    work: Callable[[Context], Outcome]
    optional_inputs: tuple[str, ...] = ()
    settings: Callable[[Config], tuple[str, ...]] = lambda _: ()
    external: Callable[[Context], dict[str, str]] | None = None
    unused: Callable[[Context], frozenset[str]] = lambda _: frozenset()
    resumable: bool = False
    always: bool = False
    hardware: bool = False
    trains: bool = False

    def refusal(self, run: RunDirectory) -> UnsupportedError | None:
        """Why the run's frozen network cannot go through this stage, None if it can.

        Raises AlteredError if it is not as recorded.
        """
        path = run.path / NETWORK
        if not self.hardware or not path.is_file():
            return None
        run.check(NETWORK)
        problem = FrozenNetwork.load(path).hardware_support()
        return None if problem is None else UnsupportedError(f"{path}: {problem}")

    def check_inputs(self, run: RunDirectory) -> None:
        """Raise InputError naming the first input that is missing or not as recorded, and what makes it."""
        for name, verb in self.inputs.items():
            if not (run.path / name).exists():
                raise InputError(f"{run.path}: {name} is missing; {_way_to(name, verb, run)}")
        run.check(*self.inputs, *self.optional_inputs)

    def input_hashes(self, run: RunDirectory) -> dict[str, str]:
        return hash_files(run.path, (*self.inputs, *self.optional_inputs))

    def key(self, context: Context, external: Mapping[str, str]) -> str:
        """sha256 (hex) of all that the result depends on."""
        document = {
            "stage": self.name,
            "inputs": self.input_hashes(context.run),
            "external": dict(external),
            "options": self.options(context),
            "code": code_hash(self.work, self.unused(context)),
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def is_current(self, context: Context) -> bool:
        """True if the recorded result belongs to the present inputs; does not look at external data."""
        record = context.run.stage(self.name)
        return record.get("status") == "done" and record.get("key") == self.key(context, record.get("external", {}))


def _way_to(name: str, verb: str, run: RunDirectory) -> str:
    """How a missing file or folder of a run is to be had."""
    place = shlex.quote(str(run.path))
    if run.is_imported and name == STIMULUS:
        return f"the network came without samples: `codesign verify {place} --samples FILE`"
    if run.is_imported and verb == "train":
        return "the network was made elsewhere, so there is nothing to train or freeze"
    return f"`codesign {verb} {place}` makes it"
