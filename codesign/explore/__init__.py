"""Exploration of the design space: a grid over density, weight bits and lanes, and its Pareto front.

Points share what they can: training happens once per density, freezing once per density and weight width.
Every point is a run directory of its own under ``points/``, made by the same stages as any run, so that it
keeps its manifest, can be reported on, and is not done again when the exploration is resumed. A point that
fails is recorded and leaves the others standing.

What to verify and to synthesise is chosen by *validation* accuracy; the test set has no say.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from codesign.basics.errors import AlteredError, CodesignError, InputError, OutputError
from codesign.basics.files import explain_write_errors, read_json, write_json
from codesign.basics.progress import Progress, silent
from codesign.config import Config
from codesign.contract.sidecar import read_sidecar
from codesign.data.automatic import is_resolved, resolve
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context, DataSource
from codesign.records.rundir import RunDirectory

FORMAT_NAME = "codesign-exploration"
FORMAT_VERSION = 1
TABLE = "explore.json"


@dataclass
class Point:
    """One design: a cell of the grid and what became of it.

    ``status`` is waiting, done or failed; ``error`` is the failure's one line. ``figures`` are the
    manifest's, ``estimate`` the estimator's document, ``cycles`` the verification's; ``memory_bits`` are those of
    all memories; accuracies are fractions. ``front`` names the axes on whose front it is.
    """

    density: float
    weight_bits: int
    lanes: int
    status: str = "waiting"
    error: str | None = None
    validation_accuracy: float | None = None
    estimate: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    cycles: dict[str, Any] = field(default_factory=dict)
    memory_bits: int | None = None
    front: list[str] = field(default_factory=list)

    @property
    def trained(self) -> str:
        return f"d{self.density:g}"

    @property
    def frozen(self) -> str:
        return f"{self.trained}-w{self.weight_bits}"

    @property
    def name(self) -> str:
        return f"{self.frozen}-l{self.lanes}"


def explore(
    config: Config, folder: str | Path, *, progress: Progress | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Explore ``config.explore``'s grid into ``folder``; returns the document that ``explore.json`` holds.

    Finished points are taken over when called again. Writes ``explore.json``, ``explore.png``, ``explore.svg``
    and ``explore.html`` after the last point, and the table after every one.

    Raises InputError for a grid that does not fit the configuration, OutputError if ``folder`` holds something
    else or cannot be written, AlteredError if a file in it is not as it was recorded, and a point's own error if no
    point could be finished.

    >>> import codesign
    >>> from pathlib import Path
    >>> config = codesign.parse_config({
    ...     "network": {"hidden": [16], "timesteps": 2}, "train": {"epochs": 10}, "freeze": {"epochs": 0},
    ...     "explore": {"density": [0.2], "weight_bits": [4], "lanes": [1, 2], "verify": "none", "synthesise": "none"},
    ... })
    >>> document = codesign.explore_designs(config, "designs")  # doctest: +SKIP
    >>> [point["name"] for point in document["points"]]  # doctest: +SKIP
    ['d0.2-w4-l1', 'd0.2-w4-l2']
    >>> Path("letters").mkdir()
    >>> _ = Path("letters/letter.txt").write_text("dear")
    >>> codesign.explore_designs(config, "letters")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    codesign.basics.errors.OutputError: letters: ...
    """
    exploration = _Exploration(config, _claim(Path(folder)), progress or silent, device)
    with RunDirectory(exploration.folder, {}).locked():
        # First of all: by its table an exploration that was stopped is known for one.
        exploration.write()
        try:
            exploration.run()
        finally:
            exploration.write()
        exploration.draw()
    return exploration.document()


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices of the points that no other beats: none costs as little and is worth as much, one strictly.

    Costs are to be small, values large. Equal points are all kept. Order: by cost, then by index.
    """
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -values[index], index))
    front: list[int] = []
    for index in order:
        last = front[-1] if front else None
        if last is None or values[index] > values[last] or (values[index], costs[index]) == (values[last], costs[last]):
            front.append(index)
    return front


def design_points(config: Config) -> list[Point]:
    """The grid's points, without duplicates.

    Raises InputError if a density cannot be reached.
    """
    rewiring, grid = config.train.rewiring, config.explore
    if config.budget.active:
        raise InputError("explore: the grid chooses density, bits and lanes, and so would [budget]; leave one out")
    if rewiring.preset == "dense":
        raise InputError("explore: train.rewiring.preset is 'dense', which has one density; choose another preset")
    for density in grid.density:
        if rewiring.rules.falls and density > rewiring.start_density:
            raise InputError(
                f"explore.density: {density:g} exceeds train.rewiring.start_density = {rewiring.start_density:g}"
            )
    cells = product(dict.fromkeys(grid.density), dict.fromkeys(grid.weight_bits), dict.fromkeys(grid.lanes))
    return [Point(*cell) for cell in cells]


def point_config(config: Config, point: Point) -> Config:
    """Configuration of the point's own run."""
    rewiring = config.train.rewiring.model_copy(update={"target_density": point.density})
    grid = config.explore
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"rewiring": rewiring}),
            "freeze": config.freeze.model_copy(update={"weight_bits": point.weight_bits}),
            "hardware": config.hardware.model_copy(update={"lanes": point.lanes}),
            "verify": config.verify.model_copy(update={"samples": grid.verify_samples}),
            "synth": config.synth.model_copy(update={"families": [grid.family], "fmax": grid.fmax}),
        }
    )


def _claim(folder: Path) -> Path:
    """Make the folder, or take it over if it is an exploration: its table says so, written before anything else."""
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if TABLE in others:
        if read_json(folder / TABLE).get("format") != FORMAT_NAME:
            raise OutputError(f"{folder / TABLE}: not the table of an exploration; choose another folder with -o")
    elif others:
        raise OutputError(f"{folder}: not empty and not an exploration; choose another folder with -o")
    return folder


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


class _Exploration:
    def __init__(self, config: Config, folder: Path, progress: Progress, device: str) -> None:
        self.config = config
        self.folder = folder
        self.progress = progress
        self.device = device
        self.points = design_points(config)
        self.data = DataSource(config.data)
        self.done = 0
        self.total = 0
        self.errors: list[Exception] = []

    def run(self) -> None:
        if not is_resolved(self.config):
            self.config, _ = resolve(self.config, self.data.dataset)
        grid = self.config.explore
        trained = {point.trained: point for point in self.points}
        frozen = {point.frozen: point for point in self.points}
        everywhere = ["generate", "estimate", *["verify"] * (grid.verify == "all")]
        self.total = len(trained) + len(frozen) + len(self.points) * (len(everywhere) + (grid.synthesise == "all"))
        for point in trained.values():
            self._attempt(point.trained, self._train, point)
        for point in frozen.values():
            self._attempt(point.frozen, self._freeze, point)
        for point in self.points:
            self._attempt(point.name, self._finish, point, everywhere)
        chosen = self.mark_front(estimates=True)
        todo = {
            "verify": chosen if grid.verify == "pareto" else [],
            "synth": {"pareto": chosen, "all": self.finished(), "none": []}[grid.synthesise],
        }
        self.total += sum(map(len, todo.values())) - len(self.finished()) * (grid.synthesise == "all")
        for stage, points in todo.items():
            for point in points:
                self._attempt(point.name, self._finish, point, [stage])
        self.mark_front()
        if self.errors and not self.finished():
            raise self.errors[0]

    def finished(self) -> list[Point]:
        return [point for point in self.points if point.status == "done"]

    def _attempt(self, name: str, work: Callable[..., None], point: Point, *arguments: Any) -> None:
        """Do one step; a failure marks the points that it concerns, and the next step follows."""
        concerned = [other for other in self.points if name in (other.trained, other.frozen, other.name)]
        if any(other.status != "failed" for other in concerned):
            try:
                work(point, *arguments)
            except (OutputError, AlteredError, OSError):
                # Of the folder and not of the design: every point after this one would fail of it too.
                raise
            except Exception as error:
                self.errors.append(error)
                text = str(error) if isinstance(error, CodesignError) else f"internal error: {error!r}"
                for other in concerned:
                    other.status, other.error = "failed", text
            self.write()

    def _stages(self, run: RunDirectory, point: Point, names: Sequence[str]) -> None:
        start = self.done

        def inside(done: float, total: float, text: str = "") -> None:
            part = min(1.0, done / total) if total else 0.0
            self.progress(start + part, self.total, f"{run.path.name}: {text}" if text else run.path.name)

        # The grid leaves the data alone, which are loaded once for all points.
        context = Context(run, point_config(self.config, point), inside, self.device, data=self.data)
        for name in names:
            start = self.done
            inside(0, 1, name)
            run_stages(context, [name])
            self.done += 1

    def _train(self, point: Point) -> None:
        run = RunDirectory.create(self.folder / "shared" / point.trained)
        with run.locked():
            self._stages(run, point, ["train"])

    def _freeze(self, point: Point) -> None:
        parent = RunDirectory.open(self.folder / "shared" / point.trained)
        run = RunDirectory.create(self.folder / "shared" / point.frozen)
        with run.locked():
            inherit(parent, run, ["train"])
            self._stages(run, point, ["freeze"])

    def _finish(self, point: Point, stages: Sequence[str]) -> None:
        parent = RunDirectory.open(self.folder / "shared" / point.frozen)
        run = RunDirectory.create(self.folder / "points" / point.name)
        with run.locked():
            inherit(parent, run, ["train", "freeze"])
            try:
                self._stages(run, point, stages)
            finally:
                point.figures = dict(run.figures)
                point.cycles = dict(run.stage("verify").get("cycles", {}))
        run.check("estimate.json", "bundle/design.json")
        point.validation_accuracy = run.stage("freeze")["accuracy_validation"]
        point.estimate = json.loads((run.path / "estimate.json").read_text(encoding="utf-8"))
        point.memory_bits = read_sidecar(run.path / "bundle").memory_bits.total
        point.status = "done"

    def mark_front(self, *, estimates: bool = False) -> list[Point]:
        """Mark each axis's front and return the points on any, by validation accuracy.

        With ``estimates`` one ruler serves all points: what to measure is chosen by it. Otherwise an axis with
        measured points has its front among those.
        """
        done = self.finished()
        for point in done:
            point.front = []
        for axis in AXES:
            costs = [(point, cost(point, axis, self.config.explore.family, estimates=estimates)) for point in done]
            known = [(point, value) for point, (value, _) in costs if value is not None]
            measured = [(point, value) for point, (value, is_measured) in costs if value is not None and is_measured]
            ruler = known if estimates or not measured else measured
            for index in pareto_front(
                [value for _, value in ruler], [point.validation_accuracy or 0.0 for point, _ in ruler]
            ):
                ruler[index][0].front.append(axis)
        return [point for point in done if point.front]

    def document(self) -> dict[str, Any]:
        """What ``explore.json`` holds."""
        family = self.config.explore.family
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "grid": self.config.explore.model_dump(mode="json"),
            "axes": AXES,
            "points": [describe(point, family) for point in self.points],
            "front": {axis: [point.name for point in self.points if axis in point.front] for axis in AXES},
        }

    def write(self) -> None:
        write_json(self.folder / TABLE, self.document())

    def draw(self) -> None:
        from codesign.report.exploration import write_exploration

        write_exploration(self.folder, self.document())


AXES = {"area": "LUT", "memory": "bits of memory", "latency": "clock cycles per sample"}


def cost(point: Point, axis: str, family: str, *, estimates: bool = False) -> tuple[float | None, bool]:
    """What a point costs on an axis, and whether that was measured; None where not even estimated.

    Area is measured by synthesis, latency by RTL simulation; memory is known from the mapping.
    """
    if axis == "memory":
        return point.memory_bits, point.memory_bits is not None
    if axis == "area":
        measured = ((point.figures.get("area") or {}).get(family) or {}).get("lut")
        estimated = ((point.estimate.get("area") or {}).get(family) or {}).get("lut")
    else:
        measured, estimated = point.cycles.get("latency"), point.estimate.get("latency_cycles")
    return (estimated, False) if estimates or measured is None else (measured, True)


def describe(point: Point, family: str) -> dict[str, Any]:
    """A point as ``explore.json`` lists it. ``accuracy_frozen`` is on the test set, and chose nothing."""
    figures = point.figures
    costs = {axis: cost(point, axis, family) for axis in AXES} if point.status == "done" else {}
    return {
        "name": point.name,
        "density": point.density,
        "weight_bits": point.weight_bits,
        "lanes": point.lanes,
        "status": point.status,
        "error": point.error,
        "validation_accuracy": point.validation_accuracy,
        "accuracy_frozen": figures.get("accuracy_frozen"),
        "accuracy_hardware": figures.get("accuracy_hardware"),
        "synapses": figures.get("synapses"),
        "samples_verified": figures.get("samples_verified"),
        "mismatches": figures.get("mismatches"),
        "cost": {axis: value for axis, (value, _) in costs.items()},
        "measured": {axis: measured for axis, (_, measured) in costs.items()},
        "fmax_mhz": figures.get("fmax_mhz"),
        "front": list(point.front),
        "manifest": f"points/{point.name}/manifest.json" if point.figures else None,
    }
