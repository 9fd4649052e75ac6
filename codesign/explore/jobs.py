"""What a worker does: train a network, freeze it and estimate its machines; make a point of the front.

Jobs are functions of folders and configurations. All that they make lies in run folders, so that a job that is done
again, by whomever, finds what is done: a worker that was killed has lost its time and nothing else. Run folders are
locked while they change, and whoever comes second waits and then finds the work done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.errors import AlteredError, CodesignError, OutputError, ToolError
from codesign.basics.files import explain_write_errors, read_json, write_json
from codesign.basics.progress import Progress, silent
from codesign.basics.version import VERSION
from codesign.config import Config, DataConfig, HardwareConfig, SynthConfig, VerifyConfig
from codesign.config.text import plain
from codesign.contract import golden
from codesign.contract.early_exit import EarlyExit
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.area import RESOURCES
from codesign.cost.memories import FAMILIES
from codesign.machine.schedules import as_chosen
from codesign.pipeline import work
from codesign.pipeline.runner import run_stages
from codesign.pipeline.sources import code_hash
from codesign.pipeline.stage import Context, DataSource
from codesign.records.names import NETWORK
from codesign.records.rundir import RunDirectory

# Characters of a folder's name, of 64 of the hash.
KEY_LENGTH = 16


@dataclass(frozen=True)
class Failed:
    """Why a design came to nothing, in one line; the others go on."""

    reason: str


@dataclass(frozen=True)
class NetworkJob:
    """A network to train and freeze, in a folder of the trained networks.

    networks : folder that studies may share. config : the hardware in it does not count.
    """

    networks: Path
    config: Config
    device: str = "cpu"

    @cached_property
    def trained(self) -> Path:
        """Run folder of the training; networks that differ in their freezing share it."""
        return self.networks / _content(self.config, ("data", "network", "train"))

    @cached_property
    def frozen(self) -> Path:
        """Run folder of the frozen network."""
        return self.networks / f"{self.trained.name}-{_content(self.config, ('freeze',))}"


def _content(config: Config, sections: Sequence[str]) -> str:
    """Name of what these sections make."""
    text = json.dumps({name: plain(getattr(config, name)) for name in sections}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def without_machine(config: Config) -> Config:
    """The configuration of a network for any machine."""
    return config.model_copy(update={"hardware": HardwareConfig(), "verify": VerifyConfig(), "synth": SynthConfig()})


@cache
def stamp() -> str:
    """What has to be the same wherever points of a study are made: the version, and the sources of the stages."""
    parts = [code_hash(stage) for stage in (work.train, work.freeze, work.generate, work.estimate)]
    return f"{VERSION} ({hashlib.sha256(''.join(parts).encode()).hexdigest()[:8]})"


def check_stamp(expected: str) -> None:
    """Raise ToolError if this worker has another codesign than the study."""
    if stamp() != expected:
        raise ToolError(
            f"worker {_worker()}: has codesign {stamp()}, the study is of {expected}; install the same on all workers"
        )


def check_worker(expected: str, folder: Path) -> None:
    """Raise ToolError if this worker has another codesign, OutputError if it cannot write the study's folder."""
    check_stamp(expected)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(
            f"worker {_worker()}: cannot write {folder}; studies need a folder that all workers see under one name"
        )


def _worker() -> str:
    try:
        from distributed import get_worker

        return get_worker().address
    except (ImportError, ValueError):
        return "here"


@lru_cache(maxsize=2)
def _source(content: str) -> DataSource:
    """Data, loaded once in a process for the jobs that use them."""
    return DataSource(DataConfig.model_validate_json(content))


def _context(run: RunDirectory, config: Config, device: str, progress: Progress = silent) -> Context:
    source = _source(json.dumps(plain(config.data), sort_keys=True))
    return Context(run, config, progress, device, data=source)


def _explained(error: Exception) -> Failed:
    """What is wrong with a design; what is wrong with the folder is raised: every other job would fail of it too."""
    if isinstance(error, (OutputError, AlteredError, ToolError, OSError)):
        raise error
    return Failed(str(error) if isinstance(error, CodesignError) else f"internal error: {error!r}")


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without showing what is warned of: the records of the stages keep it."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda *_, **__: None
        yield


def train_network(expected: str, job: NetworkJob, progress: Progress = silent) -> Failed | None:
    """Train the network, or find it trained."""
    check_stamp(expected)
    run = RunDirectory.create(job.trained)
    with run.locked(wait=True):
        try:
            with _unsaid():
                run_stages(_context(run, job.config, job.device, progress), ["train"])
        except Exception as error:
            return _explained(error)
    return None


def freeze_network(
    expected: str,
    job: NetworkJob,
    machines: Sequence[HardwareConfig],
    estimates: Path,
    trained: Failed | None,
    progress: Progress = silent,
) -> Failed | dict[str, Any]:
    """Freeze a trained network and estimate its machines into the file ``estimates``, each as far as it is not done.

    Returns ``{"accuracy", "density", "synapses", "weight_bits", "network_hash", "seconds", "machines": [...]}``;
    accuracy is that on the validation samples, of the whole network. Of the machines see :func:`estimate_machines`.
    """
    if trained is not None:
        return trained
    check_stamp(expected)
    parent, run = RunDirectory.open(job.trained), RunDirectory.create(job.frozen)
    with run.locked(wait=True):
        inherit(parent, run, ["train"])
        context = _context(run, job.config, job.device, progress)
        try:
            with _unsaid():
                run_stages(context, ["freeze"])
        except Exception as error:
            return _explained(error)
        record, figures = run.stage("freeze"), run.figures
        rows = _kept_estimates(context, machines, estimates)
    return {
        "accuracy": record["accuracy_validation"],
        **{name: figures[name] for name in ("density", "synapses", "weight_bits", "network_hash")},
        "seconds": round(run.stage("train")["seconds"] + record["seconds"], 1),
        "machines": rows,
    }


def _kept_estimates(context: Context, machines: Sequence[HardwareConfig], path: Path) -> list[dict[str, Any]]:
    """The estimates of a file, if they are of this network, these machines and these sources; else made anew."""
    run = context.run
    content = {
        "files": [run.stage("freeze")["outputs"][name] for name in sorted(run.stage("freeze")["outputs"])],
        "machines": [plain(machine) for machine in machines],
        "code": [code_hash(work.estimate), code_hash(_estimated)],
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    if path.is_file():
        kept = read_json(path)
        if kept.get("key") == key and isinstance(kept.get("machines"), list):
            return kept["machines"]
    network = FrozenNetwork.load(run.path / NETWORK)
    rows = estimate_machines(network, machines, work.load_calibration(run.path), lambda: _validation(context))
    write_json(path, {"key": key, "machines": rows})
    return rows


def _validation(context: Context) -> Stimulus:
    """All validation samples, as the frozen network of a run takes them."""
    from codesign.data.automatic import resolve
    from codesign.data.encoders import encode

    dataset = context.dataset
    config, _ = resolve(context.config, dataset)
    with _unsaid():
        return encode(dataset, dataset.validation, config.data, config.network.timesteps)[0]


def estimate_machines(
    network: FrozenNetwork,
    machines: Sequence[HardwareConfig],
    calibration: Stimulus | None,
    validation: Callable[[], Stimulus] | None = None,
) -> list[dict[str, Any]]:
    """Estimates of machines of one network, in the order of ``machines``.

    validation : labelled samples, asked for if a machine ends samples before their decision is certain.

    Each is ``{"lanes", "schedule" (as ``hardware.schedule`` takes it, chosen where it was "auto"), "memory_bits",
    "cycles", "interval_cycles", "exact_cycles" (whether both are those that simulation has), "energy_nj", "area":
    {family: {lut, ff, bram, dsp, spram}}}``, figures that are not known null, or ``{"refused": reason}``. Of a machine
    that ends samples early, energy is not known, nor are cycles that are not exact; one that may end them before their
    decision is certain also has ``accuracy``, its own.
    """
    found, accuracies = [], dict[EarlyExit, float | None]()
    for machine in machines:
        try:
            row = _estimated(network, machine, calibration)
        except CodesignError as error:
            found.append({"refused": str(error)})
            continue
        margin = machine.early_exit
        if margin not in ("off", "certain"):
            if margin not in accuracies:
                accuracies[margin] = None if validation is None else exit_accuracy(network, validation(), margin)
            row["accuracy"] = accuracies[margin]
        found.append(row)
    return found


def _estimated(network: FrozenNetwork, machine: HardwareConfig, calibration: Stimulus | None) -> dict[str, Any]:
    """What is kept of the estimates of a machine."""
    document = work.estimate_network(network, machine, calibration)
    cycles, energy = document["cycles"] or {}, document["energy"]
    # Neither the energies nor the recurrence of clocks count what a sample that ends early spares.
    ends = machine.early_exit != "off"
    if ends and not cycles.get("exact"):
        cycles = {}
    if document["schedules"] is None:
        schedule: Any = machine.schedule
    else:
        of_layers = [layer["schedule"] for layer in document["schedules"]]
        schedule = as_chosen(of_layers, is_current=network.coding.is_current)
    return {
        "lanes": list(document["lanes"]),
        "schedule": schedule if isinstance(schedule, str) else list(schedule),
        "memory_bits": sum(document["memory_bits"].values()),
        "cycles": cycles.get("latency_cycles"),
        "interval_cycles": cycles.get("interval_cycles"),
        "exact_cycles": cycles.get("exact"),
        "energy_nj": None if energy is None or ends else energy["sample_pj"] / 1000,
        "area": {family: {kind: document["area"][family][kind] for kind in RESOURCES} for family in FAMILIES},
    }


def exit_accuracy(network: FrozenNetwork, samples: Stimulus, early_exit: EarlyExit) -> float:
    """Accuracy, 0 to 1, of machines that end samples by this rule."""
    trace = golden.run(network, samples, membranes=False, spikes=False, early_exit=early_exit)
    return float(np.mean(trace.decisions == samples.labels))


def make_point(
    expected: str,
    job: NetworkJob,
    folder: Path,
    config: Config,
    stages: Sequence[str],
    progress: Progress = silent,
) -> Failed | dict[str, Any]:
    """A point's own run folder: the network's stages as links, then its machine's.

    Returns its figures (:data:`codesign.records.rundir.FIGURES`), and ``cycles`` of the verification. A difference
    between hardware and software is the point's failure.
    """
    check_stamp(expected)
    parent, run = RunDirectory.open(job.frozen), RunDirectory.create(folder)
    with run.locked(wait=True):
        inherit(parent, run, ["train", "freeze"])
        try:
            with _unsaid():
                run_stages(_context(run, config, job.device, progress), stages)
        except Exception as error:
            return _explained(error)
        return {**run.figures, "cycles": run.stage("verify").get("cycles")}


def inherit(parent: RunDirectory, child: RunDirectory, stages: Sequence[str]) -> None:
    """Take over finished stages of ``parent``: their records, and links to their files.

    Raises AlteredError if one of the files is not as ``parent`` has recorded it.
    """
    for name in stages:
        record = parent.stage(name)
        parent.check(*record["outputs"])
        if record == child.stage(name) and child.outputs_intact(name):
            continue
        for path in record["outputs"]:
            target = child.path / path
            with explain_write_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    os.link(parent.path / path, target)
                except OSError:
                    shutil.copy2(parent.path / path, target)
        child.set_stage(name, record)
    child.save()
