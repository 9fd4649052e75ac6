"""Reads a run directory into one record. Only the manifest must be there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from codesign.basics.arrays import read_npz
from codesign.basics.errors import CodesignError, InputError
from codesign.basics.files import parse_json, read_json, read_text, tree_hash
from codesign.config import Config
from codesign.contract import golden
from codesign.contract.network import MAX_WIDTH, FrozenNetwork
from codesign.contract.sidecar import SIDECAR, Sidecar, read_sidecar_file
from codesign.contract.stimulus import Stimulus
from codesign.data.chance import Comparison, compare, short_name
from codesign.records.names import DECISIONS, IMPORT_REPORT
from codesign.records.rundir import RunDirectory
from codesign.report.documents import (
    Build,
    Epoch,
    Estimate,
    Freezing,
    Imported,
    Mutants,
    Synthesis,
    Verification,
    check,
)

T = TypeVar("T")
MAX_HISTORY_BYTES = 1 << 26
BUNDLE = "bundle"
# The manifest's figures that follow from a part of the record.
TIMES = ("latency_us", "interval_us")
FIGURES_OF = {
    "verification": (
        *("accuracy_hardware", "samples_verified", "mismatches", "saturations_verified", "spikes_per_verified_sample"),
        *("cycles_per_sample", "timesteps_per_sample", "saved_cycles", "synaptic_operations_per_verified_sample"),
        *("lane_use", *TIMES),
    ),
    "synthesis": ("area", "fmax_mhz", *TIMES),
    "estimate": ("bits_per_synapse",),
}


@dataclass(frozen=True, eq=False)
class Observed:
    """What the simulated hardware did on one sample: per layer, bool and int64 (timesteps, n_out)."""

    sample: int
    spikes: list[npt.NDArray[np.bool_]]
    membranes: list[npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Decisions:
    """What freezing has left of the network of that hash: classes, int32 (N,), and margins, int64 (N,)."""

    decisions: npt.NDArray[np.int32]
    margins: npt.NDArray[np.int64]
    network_hash: str


@dataclass(eq=False)
class Record:
    """A run as the report sees it; a part is None where the run has not got that far.

    ``damaged`` names the files that are there but do not count, because they cannot be read or belong to another
    network or machine, each with the reason.
    """

    run: RunDirectory
    config: Config | None = None
    network: FrozenNetwork | None = None
    stimulus: Stimulus | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    sidecar: Sidecar | None = None
    verification: dict[str, Any] | None = None
    freezing: dict[str, Any] = field(default_factory=dict)
    imported: dict[str, Any] | None = None
    kept_decisions: Decisions | None = None
    observed: Observed | None = None
    mutants: dict[str, Any] | None = None
    synthesis: dict[str, Any] | None = None
    estimate: dict[str, Any] | None = None
    builds: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.run.path.resolve().name

    @cached_property
    def figures(self) -> dict[str, Any]:
        """Those of the manifest, None for what the documents named in ``foreign`` have said."""
        gone = {figure for part in self.foreign for figure in FIGURES_OF.get(part, ())}
        return {name: None if name in gone else value for name, value in self.run.figures.items()}

    @property
    def layer_names(self) -> list[str]:
        """'hidden 1', ..., 'output' for the layers of the network or of the configuration."""
        if self.network is not None:
            count = len(self.network.layers)
        elif self.config is not None:
            count = self.config.network.n_layers
        else:
            count = max((len(row.get("layer_density") or []) for row in self.history), default=1)
        return [*(f"hidden {index + 1}" for index in range(count - 1)), "output"]

    @cached_property
    def outcome(self) -> Decisions | None:
        """The frozen network's on the run's test samples, as freezing has left them, else computed."""
        if self.network is None or self.stimulus is None:
            return None
        kept = self.kept_decisions
        if (
            kept is not None
            and kept.network_hash == self.network.hash
            and len(kept.decisions) == len(self.stimulus)
            and kept.decisions.max(initial=0) < self.network.n_outputs
        ):
            return kept
        trace = golden.run(self.network, self.stimulus, membranes=False, spikes=False)
        return Decisions(trace.decisions, trace.margins, self.network.hash)

    @property
    def decisions(self) -> npt.NDArray[np.int32] | None:
        """Int32 (N,): the frozen network's on the run's test samples."""
        return None if self.outcome is None else self.outcome.decisions

    @property
    def class_names(self) -> list[str]:
        """Names of the classes as the data have them, numbers for those that no name is known of."""
        known = [short_name(name) for name in self.freezing.get("classes", [])]
        count = max(len(known), 0 if self.network is None else self.network.n_outputs)
        return [*known, *(str(index) for index in range(len(known), count))]

    def class_name(self, index: int) -> str:
        """Name of a class; labels may go beyond the network's classes."""
        return self.class_names[index] if index < len(self.class_names) else str(index)

    @cached_property
    def accuracy(self) -> Comparison | None:
        """The frozen network's decisions beside guessing; None without decisions or labels."""
        if self.decisions is None or self.stimulus is None or self.network is None:
            return None
        if not np.any(self.stimulus.labels >= 0):
            return None
        return compare(self.stimulus.labels, self.decisions, self.network.n_outputs, self.class_names)

    @property
    def shown_sample(self) -> int:
        """The sample whose spikes are drawn: the one that the testbench recorded, else the first."""
        return self.observed.sample if self.observed is not None else 0

    def trace(self, samples: Sequence[int]) -> golden.Trace | None:
        """Golden model on these samples, with membranes and potentials."""
        if self.network is None or self.stimulus is None or max(samples, default=0) >= len(self.stimulus):
            return None
        return golden.run(self.network, self.stimulus.take(list(samples)), potentials=True)

    @cached_property
    def shown_trace(self) -> golden.Trace | None:
        """Golden model on :attr:`shown_sample` alone."""
        return self.trace([self.shown_sample])

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """Shape of a sample, as far as its values are sources of the network, in order; None where they are not."""
        if self.network is None or self.network.coding.kind in ("events", "delta"):
            return None
        projection = self.network.layers[0].projections[0]
        shape = tuple(self.freezing.get("sample_shape", ())) or projection.source_shape
        if shape is None or math.prod(shape) + len(self.flags) != self.network.n_inputs:
            return None
        return tuple(shape)

    @property
    def flags(self) -> list[str]:
        """Names of the sources that follow those of the values."""
        flags = {} if self.network is None else self.network.coding.parameters.get("flags", [])
        return [str(name) for name in flags] if isinstance(flags, list) else []

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) if the inputs are the pixels of one grey picture, and nothing else."""
        shape = self.sample_shape
        if shape is None or self.flags or not is_picture(shape) or math.prod(shape[:-2]) != 1:
            return None
        return (shape[-2], shape[-1])

    @property
    def frozen_accuracy(self) -> float | None:
        """Of the frozen network on all test samples: as freezing has measured it, else of :attr:`decisions`."""
        found = self.figures.get("accuracy_frozen")
        return self.accuracy.accuracy if found is None and self.accuracy is not None else found

    @property
    def hardware_accuracy(self) -> float | None:
        """Of the samples that were simulated: all test samples, or their first ones."""
        found = self.figures.get("accuracy_hardware")
        # Without a count of samples, what the verification left is of an earlier network or failed.
        if found is None and self.figures.get("samples_verified") is not None:
            return (self.verification or {}).get("accuracy_hardware")
        return found

    @property
    def compared(self) -> tuple[int | None, int | None]:
        """Samples of the verification and values that differ, as far as it counts: a failure does until it is gone."""
        samples, mismatches = self.figures.get("samples_verified"), self.figures.get("mismatches")
        found = self.verification
        if mismatches is None and found is not None and not found["passed"]:
            return found["samples"], found["mismatches"] + found["decoder"]["differences"]
        return samples, mismatches

    @property
    def interval(self) -> tuple[float | None, str]:
        """Mean clocks between the decisions of samples back to back, None if unknown, and how they are known."""
        if self.figures.get("cycles_per_sample") is not None and self.verification is not None:
            simulated = self.verification.get("interval_cycles")
            # A sample alone has none.
            if simulated is not None:
                return simulated, "simulated"
        return (self.estimate or {}).get("interval_cycles"), "estimated"

    def of_test_samples(self, count: int) -> str:
        """'all 360 test samples', '120 of 360 test samples'."""
        total = None if self.stimulus is None else len(self.stimulus)
        if total is None:
            return f"{count:,} test samples"
        return f"all {total:,} test samples" if count == total else f"{count:,} of {total:,} test samples"


def is_picture(shape: Sequence[int]) -> bool:
    """Whether samples of this shape, (height, width) or (channels, height, width), are seen as pictures.

    (length, channels) of a signal looks the same to a program: what is narrower than four values or eight times as long
    as wide is taken for one.
    """
    if len(shape) not in (2, 3):
        return False
    low, high = sorted(shape[-2:])
    return low >= 4 and high <= 8 * low


def collect(folder: Path) -> Record:
    """Read a run directory. Raises InputError if it has no readable manifest."""
    record = Record(RunDirectory.open(folder))

    def part(path: Path, read: Callable[[Path], T], whole: str = "") -> T | None:
        """``whole``: a folder, none of whose recorded files may be altered; default: the file alone."""
        if not path.exists():
            return None
        altered = record.run.problem(whole or path.relative_to(folder).as_posix())
        if altered is not None:
            record.damaged.append(altered.replace(f"{folder}/", ""))
            return None
        try:
            return read(path)
        except (CodesignError, OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).replace(f"{folder}/", "")
            record.damaged.append(reason if path.name in reason else f"{path.name}: {reason}")
            return None

    record.config = part(folder / "config.toml", lambda _: record.run.config)
    record.network = part(folder / "network.safetensors", FrozenNetwork.load)
    record.stimulus = part(folder / "stimulus.npz", Stimulus.load)
    if record.network is not None and record.stimulus is not None:
        try:
            record.stimulus.check_for(record.network)
        except InputError as error:
            record.damaged.append(f"stimulus.npz: {error}")
            record.stimulus = None
    try:
        record.freezing = check(dict(record.run.stage("freeze")), Freezing, "manifest.json: freeze")
    except InputError as error:
        record.damaged.append(str(error))
    record.imported = part(folder / IMPORT_REPORT, reader(Imported))
    record.kept_decisions = part(folder / DECISIONS, read_decisions)
    record.history = part(folder / "metrics.jsonl", read_history) or []
    record.sidecar = part(folder / BUNDLE / SIDECAR, read_sidecar_file, BUNDLE)
    record.verification = part(folder / "verify" / "verification.json", reader(Verification))
    record.observed = part(folder / "verify" / "observed.npz", read_observed)
    record.mutants = part(folder / "verify" / "mutants.json", reader(Mutants))
    record.estimate = part(folder / "estimate.json", reader(Estimate))
    record.synthesis = part(folder / "synth" / "synth.json", reader(Synthesis))
    builds = {path: part(path, reader(Build)) for path in sorted((folder / "build").glob("*/build.json"))}
    found = {path.relative_to(folder).as_posix(): build for path, build in builds.items() if build is not None}
    record.builds = _drop_foreign(record, found)
    return record


def _drop_foreign(record: Record, builds: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what was made from another network or machine than the one in the folder; returns the builds of it."""
    if record.network is None:
        return list(builds.values())
    documents: dict[str, tuple[str, Any]] = {
        "imported": (IMPORT_REPORT, record.imported),
        "sidecar": (f"{BUNDLE}/{SIDECAR}", record.sidecar),
        "verification": ("verify/verification.json", record.verification),
        "synthesis": ("synth/synth.json", record.synthesis),
        "estimate": ("estimate.json", record.estimate),
        **{file: (file, build) for file, build in builds.items()},
    }
    for name, (file, document) in documents.items():
        if document is None:
            continue
        stated = document.get("network_hash") if isinstance(document, dict) else document.network_hash
        if stated != record.network.hash:
            reason = "belongs to another network"
        elif name not in ("imported", "sidecar") and not _is_of_the_bundle(record, name, document):
            reason = f"belongs to another machine than the one in {BUNDLE}"
        else:
            continue
        record.damaged.append(f"{file}: {reason}; make it again")
        record.foreign.add(name)
        if name not in builds:
            setattr(record, name, None)
    if record.verification is None:
        record.mutants = None
    observed, layers = record.observed, record.network.layers
    if observed is not None and (
        record.verification is None
        or [item.shape for item in observed.membranes] != [item.shape for item in observed.spikes]
        or [item.shape for item in observed.spikes] != [(record.network.timesteps, layer.n_out) for layer in layers]
    ):
        record.observed = None
    return [build for file, build in builds.items() if file not in record.foreign]


def _is_of_the_bundle(record: Record, name: str, document: dict[str, Any]) -> bool:
    """Whether a document is of the machine that the bundle holds; without a bundle there is none to differ from."""
    sidecar, bundle = record.sidecar, record.run.path / BUNDLE
    if sidecar is None:
        return not bundle.exists()
    if name == "verification":
        return document.get("files_hash") == tree_hash(bundle)
    if name == "estimate":
        said = [document.get(key) for key in ("lanes", "memory_bits", "early_exit")]
        lanes = [entry.lanes for entry in sidecar.layers]
        return said == [lanes, sidecar.memory_bits.model_dump(), sidecar.early_exit]
    sources = document.get("sources") or {}
    return bool(sources) and all(sidecar.files.get(path) == digest for path, digest in sources.items())


def reader(form: type[BaseModel]) -> Callable[[Path], dict[str, Any]]:
    """Reads a JSON document of this form."""
    return lambda path: check(read_json(path), form, str(path))


def read_decisions(path: Path) -> Decisions:
    """Decisions of the frozen network on the run's samples. Raises InputError for anything else."""
    arrays = read_npz(path, ("decisions", "margins", "network_hash"))
    decisions, margins, digest = (arrays.get(name) for name in ("decisions", "margins", "network_hash"))
    if decisions is None or decisions.ndim != 1 or decisions.dtype != np.int32:
        raise InputError(f"{path}: decisions are not int32 (samples,)")
    if decisions.size and (decisions.min() < 0 or decisions.max() >= MAX_WIDTH):
        raise InputError(f"{path}: a decision is no class")
    if margins is None or margins.shape != decisions.shape or margins.dtype != np.int64 or (margins < 0).any():
        raise InputError(f"{path}: margins are not int64 from 0 on, one for each decision; freeze again")
    if digest is None or digest.ndim or digest.dtype.kind != "U":
        raise InputError(f"{path}: network_hash is no text")
    return Decisions(decisions, margins, str(digest))


def read_observed(path: Path) -> Observed:
    """Spikes and membranes that the testbench recorded of one sample. Raises InputError for anything else."""
    arrays = read_npz(path)
    sample = arrays.get("sample")
    if sample is None or sample.ndim or sample.dtype.kind not in "iu" or not 0 <= sample < 1 << 31:
        raise InputError(f"{path}: sample is no whole number")
    columns: dict[str, list[npt.NDArray[Any]]] = {"spikes": [], "membranes": []}
    for name, dtype in (("spikes", np.bool_), ("membranes", np.int64)):
        for index in range(sum(key.startswith("spikes") for key in arrays)):
            array = arrays.get(f"{name}{index}")
            if array is None or array.ndim != 2 or array.dtype != dtype:
                raise InputError(f"{path}: {name}{index} is not {np.dtype(dtype)} (timesteps, neurons)")
            columns[name].append(array)
    return Observed(int(sample), columns["spikes"], columns["membranes"])


def read_history(path: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a last line cut short by an interruption is left out. InputError for other lines."""
    rows = []
    lines = read_text(path, limit=MAX_HISTORY_BYTES).splitlines()
    for index, line in enumerate(lines):
        where = f"{path}: line {index + 1}"
        try:
            rows.append(parse_json(line, where))
        except InputError:
            if index < len(lines) - 1:
                raise
            break
        check(rows[-1], Epoch, where)
    return rows
