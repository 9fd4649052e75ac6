"""A study: its folder, its loop over batches of networks, its front and its table.

DIR/explore.json      the space and the table of points; by it a folder is known for a study
DIR/trials.journal    Optuna's journal: which networks were sampled, and what they came to
DIR/networks/KEY/     trained, and KEY-KEY/ frozen networks, run folders; another folder if studies share it
DIR/estimates/        of the machines of each network
DIR/points/NAME/      run folders of points of the front
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import explain_write_errors, read_json, write_json
from codesign.basics.progress import Progress
from codesign.config import Config, HardwareConfig, parse_section
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.explore.jobs import (
    Failed,
    NetworkJob,
    exit_accuracy,
    freeze_network,
    make_point,
    stamp,
    train_network,
    without_machine,
)
from codesign.explore.points import Point, covered, mark_front, most_of, points_of, told, warn_of_unknown
from codesign.explore.sampling import Trial, Trials
from codesign.explore.space import METRICS, Space, differences
from codesign.explore.workers import Job, Workers, workers
from codesign.records.names import NETWORK, STIMULUS
from codesign.records.rundir import RunDirectory

FORMAT_NAME = "codesign-exploration"
FORMAT_VERSION = 2
TABLE = "explore.json"
# Seconds from one writing of the table to the next, for each second that it took.
WRITING = 10


@dataclass
class Network:
    """A sampled network. ``found`` is what its job returned, ``points`` are its machines'.

    config : as the space has it, on its first machine.
    """

    trial: Trial
    config: Config
    job: NetworkJob
    status: str = "waiting"
    error: str | None = None
    found: dict[str, Any] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)


class Study:
    """One call of an exploration, in a folder that it has locked.

    networks : folder of the trained networks; None for one in the study's own.
    """

    def __init__(self, space: Space, folder: Path, networks: Path | None, device: str, progress: Progress) -> None:
        self.space, self.folder, self.device, self.progress = space, folder, device, progress
        self.shared = networks if networks is not None else folder / "networks"
        self.networks: dict[int, Network] = {}
        self.refused: dict[str, dict[str, str]] = {}
        self.complete = self._holds_kept = False
        self._begun = self._next_write = time.monotonic()

    @property
    def points(self) -> list[Point]:
        return [point for number in sorted(self.networks) for point in self.networks[number].points]

    def run(self, count: int | None, scheduler: str | None) -> None:
        """Search until the budget is used up, then do what is asked of the front."""
        # First of all: by its table a study that was stopped is known for one.
        if not (self.folder / TABLE).exists():
            self.write()
        trials = Trials(self.space, self.folder)
        try:
            with workers(count, scheduler, self.folder, stamp(), self._inside) as found:
                self._take(found, [trial for trial in trials.all() if trial.state != "waiting"], trials)
                # From here on the table has all that an earlier one had.
                self._holds_kept = True
                while batch := self._next(trials):
                    self._take(found, batch, trials)
                front = mark_front(self.space, self.points)
                self._make(found, most_of(self.space, front, self.space.file.front.most))
            self._look_at_tests(front)
            self.complete = True
        finally:
            if self._holds_kept:
                self.write()
        if not self.points:
            self._explain_nothing()
        warn_of_unknown(self.space, self.points)

    def _next(self, trials: Trials) -> list[Trial]:
        """The next batch, none if the budget is used up. What is in the journal already is always done."""
        budget = self.space.file.budget
        used = budget.points is not None and len(self.points) >= budget.points
        used = used or (budget.minutes is not None and time.monotonic() - self._begun >= 60 * budget.minutes)
        if used:
            return [trial for trial in trials.all() if trial.state == "waiting" and trial.number not in self.networks]
        return trials.next(float("inf") if budget.networks is None else budget.networks)

    def _take(self, workers: Workers, batch: Sequence[Trial], trials: Trials) -> None:
        """Train, freeze and estimate networks as far as it is not done, and tell the sampler."""
        jobs, of_key, found = [], {}, []
        for trial in batch:
            machines, refused = self.space.machines(trial.choices)
            if not machines:
                # Kept by another version: what is sampled has machines.
                raise InputError(
                    f"{self.folder}: no machine of network {trial.number} is built any more "
                    f"({refused[0]['reason']}); choose another folder with -o"
                )
            self.refused |= {entry["machine"]: entry for entry in refused}
            config = self.space.config({**trial.choices, **machines[0].choices})
            network = Network(trial, config, NetworkJob(self.shared, without_machine(config), self.device))
            self.networks[trial.number] = network
            found.append((network, machines))
        # The longest first: what is left at the end of a batch keeps one worker busy and the others waiting.
        for network, machines in sorted(found, key=lambda item: -_work(item[0].config)):
            trial = network.trial
            key = f"train {network.job.trained.name}"
            if all(job.key != key for job in jobs):
                jobs.append(Job(key, train_network, (stamp(), network.job)))
            path = self.folder / "estimates" / f"{trial.number:03d}.json"
            hardware = [machine.hardware for machine in machines]
            name = f"network {trial.number}"
            of_key[name] = (network, machines)
            jobs.append(Job(name, freeze_network, (stamp(), network.job, hardware, path), after=key))
        done = 0
        for key, result in workers.results(jobs):
            if key not in of_key:
                continue
            network, machines = of_key[key]
            done += 1
            if isinstance(result, Failed):
                network.status, network.error = "failed", result.reason
            else:
                network.found = result
                network.points = points_of(self.space, network.trial.number, result, machines)
                network.status = "done"
            self._tell(network, trials)
            self._write_sometimes()
            self._inside(0, 1, f"{key} {network.status}")

    def _tell(self, network: Network, trials: Trials) -> None:
        number = network.trial.number
        if network.status == "failed":
            trials.tell(number, None)
            return
        found = told(self.space, network.points)
        if isinstance(found, str):
            network.error = found
            trials.tell(number, None)
        else:
            trials.tell(number, *found)

    def _make(self, workers: Workers, chosen: Sequence[Point]) -> None:
        """Run folders of points: Verilog, estimates, verification and place and route as asked for, report."""
        front = self.space.file.front
        stages = ["generate", "estimate", *["verify"] * (front.verify_samples > 0), *["synth"] * bool(front.place)]
        jobs = []
        for point in chosen:
            network = self.networks[point.network]
            families = [] if self.space.family is None else [self.space.family]
            config = network.config.model_copy(
                update={
                    "hardware": parse_section(HardwareConfig, point.hardware, point.name),
                    "verify": network.config.verify.model_copy(update={"samples": front.verify_samples or None}),
                    "synth": network.config.synth.model_copy(update={"families": families, "fmax": list(front.place)}),
                }
            )
            folder = self.folder / "points" / point.name
            jobs.append(Job(point.name, make_point, (stamp(), network.job, folder, config, [*stages, "report"])))
        by_name = {point.name: point for point in chosen}
        for key, result in workers.results(jobs):
            point = by_name[key]
            point.folder = f"points/{key}"
            if isinstance(result, Failed):
                point.failure = result.reason
            else:
                point.measured = self._measured(result)
            self.write()

    def _measured(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """What simulation, synthesis and place and route have found of a point."""
        family = self.space.family
        found = {
            "cycles": (figures["cycles"] or {}).get("latency"),
            "samples_verified": figures["samples_verified"],
            "mismatches": figures["mismatches"],
            "area": (figures["area"] or {}).get(family) if family else None,
            "fmax_mhz": figures["fmax_mhz"],
        }
        return {name: value for name, value in found.items() if value is not None}

    def _look_at_tests(self, front: Sequence[Point]) -> None:
        """Test accuracies: of the front alone, now that it stands."""
        for point in front:
            run = RunDirectory.open(self.networks[point.network].job.frozen)
            early_exit = point.machine.hardware.early_exit
            if early_exit in ("off", "certain"):
                point.test_accuracy = run.figures["accuracy_frozen"]
            else:
                network, samples = FrozenNetwork.load(run.path / NETWORK), Stimulus.load(run.path / STIMULUS)
                point.test_accuracy = exit_accuracy(network, samples, early_exit)

    def _explain_nothing(self) -> None:
        failed = [network for network in self.networks.values() if network.error]
        if failed:
            raise InputError(
                f"{self.folder}: no network came to a point; network {failed[0].trial.number}: {failed[0].error}"
            )
        raise InputError(f"{self.folder}: the budget ended before the first network")

    def _inside(self, done: float, total: float, text: str = "") -> None:
        """Progress of a job of this process, or of none."""
        finished = sum(network.status != "waiting" for network in self.networks.values())
        part = min(1.0, done / total) if total and finished < len(self.networks) else 0.0
        wanted = self.space.file.budget.networks or 0
        self.progress(finished + part, max(wanted, finished), text)

    def command(self, point: Point) -> str:
        """The command that makes a point again, from nothing but its network's configuration."""
        config = self.networks[point.network].job.frozen / "config.toml"
        words = ["codesign", "run", str(config), "-o", point.name]
        for key, value in point.hardware.items():
            words += ["--set", f"hardware.{key}={json.dumps(value)}"]
        return shlex.join(words)

    def document(self) -> dict[str, Any]:
        """What ``explore.json`` holds."""
        space, file = self.space, self.space.file
        points = self.points
        mark_front(space, points)
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "complete": self.complete,
            "space": space.document,
            "family": space.family,
            "budget": file.budget.model_dump(mode="json"),
            "front": file.front.model_dump(mode="json"),
            "metrics": {
                name: {"text": metric.text, "unit": metric.unit}
                for name, metric in METRICS.items()
                if any(point.metrics[name] is not None for point in points)
            },
            "networks": [self._describe_network(network) for _, network in sorted(self.networks.items())],
            "points": [self._describe(point) for point in points],
            "refused": list(self.refused.values()),
            "devices": devices_of(space.family),
            "hypervolume": covered(space, points) if self.complete else [],
        }

    def _describe_network(self, network: Network) -> dict[str, Any]:
        return {
            "number": network.trial.number,
            "choices": network.trial.choices,
            "folder": str(network.job.frozen),
            "status": network.status,
            "error": network.error,
            "accuracy": network.found.get("accuracy"),
            "density": network.found.get("density"),
            "synapses": network.found.get("synapses"),
            "weight_bits": network.found.get("weight_bits"),
            "network_hash": network.found.get("network_hash"),
            "seconds": network.found.get("seconds"),
        }

    def _describe(self, point: Point) -> dict[str, Any]:
        return {
            "name": point.name,
            "network": point.network,
            "choices": {**self.networks[point.network].trial.choices, **point.machine.choices},
            "lanes": point.lanes,
            "metrics": point.metrics,
            "broken": point.broken,
            "unknown": point.unknown(self.space),
            "front": point.front,
            "test_accuracy": point.test_accuracy,
            "measured": point.measured,
            "folder": point.folder,
            "failure": point.failure,
            "command": self.command(point),
        }

    def draw(self) -> None:
        """The page and the picture."""
        from codesign.report.explorer import write_explorer

        write_explorer(self.folder, self.document())

    def write(self) -> None:
        begun = time.monotonic()
        write_json(self.folder / TABLE, self.document())
        self._next_write = time.monotonic() + WRITING * (time.monotonic() - begun)

    def _write_sometimes(self) -> None:
        """The table of a large study takes seconds, in which no worker gets a job: a part of the time at most."""
        if self._holds_kept and time.monotonic() >= self._next_write:
            self.write()


def _work(config: Config) -> float:
    """What a training takes beside others on the same data, roughly: its epochs, timesteps and neurons or channels."""
    layers = config.network.layer_configs
    wide = sum(getattr(layer, "width", 0) + getattr(layer, "channels", 0) for layer in layers)
    epochs = config.train.epochs
    return wide * config.network.timesteps * (epochs if isinstance(epochs, int) else 1)


def devices_of(family: str | None) -> list[dict[str, Any]]:
    """Devices of a family with what they have, for a reader to see what fits."""
    from boards.registry import devices_table

    return [
        {"name": device["name"], "budget": device["budget"]} for device in devices_table() if device["family"] == family
    ]


def claim(folder: Path, space: Space) -> None:
    """Make the folder, or take it over if it is a study of this space: its table says so, written before all else.

    Raises OutputError for a folder of something else, and InputError, which says what differs, for another space's.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    path = folder / TABLE
    if TABLE not in others:
        if others:
            raise OutputError(f"{folder}: not empty and not an exploration; choose another folder with -o")
        return
    document = read_json(path, limit=1 << 28)
    if document.get("format") != FORMAT_NAME:
        raise OutputError(f"{path}: not the table of an exploration; choose another folder with -o")
    if document.get("version") != FORMAT_VERSION or not isinstance(document.get("space"), dict):
        raise InputError(f"{path}: of another version of codesign; choose another folder with -o")
    found = list(differences(space.document, document["space"]))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"{folder}: holds a study of another space: {found[0]}{more}; choose another folder with -o")
