"""Verifies a delivered bundle against the frozen network: every value, in simulation.

The bundle's files are simulated as they are. Expected values come from the frozen network and the stimulus
through the golden model; the sidecar only says where to look.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from codesign.basics import children
from codesign.basics.errors import InputError, ToolError
from codesign.basics.files import explain_write_errors, tree_hash, write_json
from codesign.basics.progress import Progress, silent
from codesign.contract import golden
from codesign.contract.network import FrozenLayer, FrozenNetwork
from codesign.contract.network.terms import plain_number
from codesign.contract.sidecar import SIDECAR, Sidecar, read_sidecar
from codesign.contract.stimulus import Stimulus
from sim.bundle import altered_files
from sim.checker import Divergence, expected_counts, merge_counts
from sim.decoder import compare_decoded
from sim.facts import Facts, compare_facts
from sim.harness import TB_MAIN, TOP, testbench_files, testbench_source
from sim.simulator import Build, build, library_path

STRAIGHT: tuple[str, ...] = ("back_to_back", "one_at_a_time")
STRESS: tuple[str, ...] = ("backpressure", "reset_mid_sample", "protocol_errors")
BACKPRESSURE_ROUNDS = 4
# About how many times a phase sends each of its samples, where not once; for the progress alone.
SENDS = {"backpressure": BACKPRESSURE_ROUNDS, "reset_mid_sample": 2, "protocol_errors": 8}
CHUNK_VALUES = 30_000_000
SMALL_RUN = 64
# Samples that are sent one at a time, at most: their clocks are a mean, and every sample is compared back to back.
LATENCY_SAMPLES = 500
POLL_SECONDS = 0.05
OBSERVED = "observed.npz"


@dataclass(frozen=True, eq=False)
class SampleTimes:
    """When the samples of one run began and were decided.

    phase : "back_to_back" or "one_at_a_time". samples : int64 (n,); their numbers in the stimulus, as they were sent
    after a reset. starts, decisions : int64 (n,); clocks, of any origin, in which first words and decisions were taken.
    """

    phase: str
    samples: np.ndarray
    starts: np.ndarray
    decisions: np.ndarray


@dataclass(frozen=True)
class Verification:
    """Result of :func:`verify_bundle`; cycles are means over samples, clocks are sums over the back-to-back run.

    samples : verified samples. comparisons : compared values by kind, all phases. mismatches : differing values.
    accuracy_hardware : from the decisions of the simulated accelerator alone, None without labels.
    cycles_per_sample : first word to last decision over samples, back to back. latency_cycles : first word
    accepted to decision accepted, one sample at a time; if there are more, of at most LATENCY_SAMPLES spread evenly.
    interval_cycles : between decisions, back to back.
    layers : per layer accumulate, sweep and idle clocks, the network's synaptic operations, the synapses that lanes
        walk for them (fewer where all timesteps of a sample are walked at once), and lane_use = walks / (lanes x events
        a clock x accumulate).
    mean_timesteps : timesteps that counted, per sample; fewer than the network's with early exit.
    sidecar : facts of the sidecar that are not true, a line each; nothing is simulated if there are any, because the
    testbench reads the accelerator by them. They count as mismatches, and ``comparisons["sidecar"]`` counts the facts.
    altered : files of the bundle that are not those that its sidecar describes; they are simulated as they are.
    decoder : equality of the images with the frozen network (:func:`sim.decoder.compare_decoded`).
    times : the clocks of every sample of the two phases that are timed; not part of the document.
    """

    samples: int
    comparisons: dict[str, int]
    mismatches: int
    first_divergence: Divergence | None
    accuracy_hardware: float | None
    saturations: int
    cycles_per_sample: float | None
    latency_cycles: float | None
    interval_cycles: float | None
    layers: list[dict[str, Any]]
    spikes_per_sample: list[float]
    synaptic_operations_per_sample: float
    network_hash: str
    files_hash: str
    decoder: dict[str, Any]
    phases: dict[str, dict[str, Any]]
    simulated_cycles: int
    mean_timesteps: float
    altered: list[str]
    sidecar: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    times: list[SampleTimes] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No value differs, the images decode to the frozen network, and no file was altered after generation."""
        return self.mismatches == 0 and bool(self.decoder["equal"]) and not self.altered

    @property
    def first_difference(self) -> str | None:
        """The first thing that is not as it should be, in words."""
        if self.sidecar:
            return self.sidecar[0]
        return str(self.first_divergence) if self.first_divergence else self.decoder["first"]

    @property
    def lane_use(self) -> list[float | None]:
        return [layer["lane_use"] for layer in self.layers]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON document of every field but the times, ``passed`` and ``lane_use`` included."""
        document = asdict(replace(self, times=[]))
        del document["times"]
        return {**document, "passed": self.passed, "lane_use": self.lane_use}


@dataclass
class Job:
    """One simulator process: some phases over a run of samples."""

    folder: Path
    first_sample: int
    stimulus: Stimulus
    phases: dict[str, list[int]]
    process: subprocess.Popen[bytes] | None = None

    def sends(self, phase: str) -> int:
        return len(self.phases[phase]) * SENDS.get(phase, 1)


def verify_bundle(
    bundle: str | Path,
    network: FrozenNetwork,
    stimulus: Stimulus,
    work: str | Path | None = None,
    *,
    stress_samples: int = 16,
    seed: int = 1,
    waves: bool = True,
    progress: Progress = silent,
    workers: int | None = None,
    latency: bool = True,
    decode: bool = True,
    facts: bool = True,
    optimise: str | None = None,
) -> Verification:
    """Simulate ``bundle`` on every sample of ``stimulus`` and compare every value with the golden model.

    First every fact of the sidecar is derived again and compared (:mod:`sim.facts`), unless ``facts`` is False; if one
    is not true, nothing is simulated. Phases: all samples back to back; all one at a time, or of more than 500 at most
    so many, spread evenly (``latency``); the first ``stress_samples`` with
    random gaps and backpressure, with resets in mid-sample, and with protocol violations. ``work`` is emptied first
    and keeps logs, ``observed.npz`` (spikes and membranes of one sample) and, on a mismatch and with ``waves``, the
    waveform of the diverging sample; without it nothing is kept. ``workers`` processes (default: the machine's cores)
    share the samples. Differences are reported, not raised: look at ``passed`` and ``first_difference`` of the result.

    Raises InputError if bundle, network and stimulus do not belong together, or a file is missing or no whole image;
    ToolError if the simulator is missing or fails; UnsupportedError for a network that the accelerator does not cover.

    >>> import codesign, numpy as np
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> _ = codesign.generate_bundle(network, codesign.map_hardware(network), "bundle")
    >>> samples = codesign.Stimulus.from_dense(np.ones((1, 3, 2), bool))
    >>> codesign.verify_bundle("bundle", network, samples, stress_samples=1).passed  # doctest: +SKIP
    True
    >>> other = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 5]]], threshold=4, timesteps=3)
    >>> codesign.verify_bundle("bundle", other, samples)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    codesign.basics.errors.InputError: bundle/design.json: made from network ...; generate the bundle again
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    with TemporaryDirectory(prefix="codesign-verify-") if work is None else nullcontext(work) as folder:
        return _verify(
            Path(bundle), network, stimulus, Path(folder).resolve(), stress_samples=stress_samples, seed=seed,
            waves=waves and work is not None, progress=progress, workers=workers,
            latency=latency, decode=decode, facts=facts, optimise=optimise,
        )  # fmt: skip


def _verify(
    bundle: Path,
    network: FrozenNetwork,
    stimulus: Stimulus,
    work: Path,
    *,
    stress_samples: int,
    seed: int,
    waves: bool,
    progress: Progress,
    workers: int,
    latency: bool,
    decode: bool,
    facts: bool,
    optimise: str | None,
) -> Verification:
    started = time.monotonic()
    stress_samples, seed, workers = plain_number([stress_samples, seed, workers])
    for name, value, low in (("stress_samples", stress_samples, 0), ("seed", seed, 0), ("workers", workers, 1)):
        if type(value) is not int or value < low:
            raise InputError(f"{name} = {value!r} is no whole number of {low} or more")
    network.require_hardware()
    sidecar = read_sidecar(bundle)
    altered = altered_files(bundle, sidecar)
    if sidecar.network_hash != network.hash:
        raise InputError(
            f"{bundle / SIDECAR}: made from network {sidecar.network_hash[:12]}, "
            f"not from {network.hash[:12]}; generate the bundle again"
        )
    stimulus.check_for(network)
    early_exit = sidecar.early_exit
    if len(stimulus) == 0:
        raise InputError("the stimulus has no samples: nothing to verify")
    files_hash = tree_hash(bundle)
    compared = compare_facts(bundle, sidecar, network) if facts else Facts()
    if compared.differences:
        prepare(work)
        return _untrue(network, compared, files_hash, altered)
    decoder = (
        compare_decoded(bundle, network) if decode else {"equal": True, "compared": 0, "differences": 0, "first": None}
    )
    prepare(work)
    progress(0, 0, "building the simulator")
    simulator = build_simulator(bundle, sidecar, log=work / "build.log", optimise=optimise or _optimise(stimulus))
    built = time.monotonic()
    jobs = _plan(network, stimulus, work, stress_samples, workers, latency, sidecar.input_checks)
    runner = _Runner(bundle, network, work, simulator, seed)
    runner.run(jobs, workers, progress)
    simulated = time.monotonic()
    phases = [phase_results(job) for job in jobs]
    first = min(
        (
            Divergence(**result["first_divergence"])
            for part in phases
            for result in part.values()
            if result["first_divergence"]
        ),
        key=lambda divergence: divergence.order,
        default=None,
    )
    if first is not None and waves:
        progress(0, 0, "recording a waveform of the divergence")
        first = _record_waveform(bundle, network, sidecar, stimulus, work, first, seed)
    _keep_observed(jobs, first, work)
    result = _merge(network, sidecar, stimulus, jobs, phases, first, files_hash, decoder, altered)
    result.comparisons["sidecar"] = compared.compared
    exits = np.full(len(stimulus), network.timesteps - 1)
    if early_exit != "off":
        exits = golden.run(network, stimulus, membranes=False, spikes=False, early_exit=early_exit).exits
    _assert_counts(network, result, exits, min(stress_samples, len(stimulus)), latency)
    result.seconds.update(
        build=round(built - started, 3),
        simulate=round(simulated - built, 3),
        total=round(time.monotonic() - started, 3),
    )
    for job in jobs:
        for path in job.folder.glob("segment*"):
            path.unlink()
    return result


def _untrue(network: FrozenNetwork, facts: Facts, files_hash: str, altered: list[str]) -> Verification:
    """Result for a bundle whose sidecar is not true: nothing was simulated."""
    first = facts.differences[0]
    return Verification(
        samples=0,
        comparisons={"sidecar": facts.compared},
        mismatches=len(facts.differences),
        first_divergence=Divergence(
            None, None, None, None, f"sidecar: {first.place}", str(first.derived), str(first.stated), "sidecar"
        ),
        accuracy_hardware=None,
        saturations=0,
        cycles_per_sample=None,
        latency_cycles=None,
        interval_cycles=None,
        layers=[],
        spikes_per_sample=[],
        synaptic_operations_per_sample=0.0,
        network_hash=network.hash,
        files_hash=files_hash,
        decoder={"equal": True, "compared": 0, "differences": 0, "first": None},
        phases={},
        simulated_cycles=0,
        mean_timesteps=0.0,
        altered=altered,
        sidecar=[str(difference) for difference in facts.differences],
    )


def build_simulator(
    bundle: Path, sidecar: Sidecar, *, trace: bool = False, log: Path | None = None, optimise: str = "-O3"
) -> Build:
    """Simulator of the delivered Verilog inside the testbench, from the cache if nothing changed."""
    sources = [path for name in ("lint.vlt", "probes.vlt") if (path := bundle / name).is_file()]
    sources += [bundle / sidecar.verilog, *testbench_files(sidecar)]
    texts = {f"{TOP}.sv": testbench_source(sidecar)}
    return build(texts, sources, trace=trace, log=log, optimise=optimise, main=TB_MAIN)


def _most_walked(layer: FrozenLayer) -> int:
    """Synapses and taps walked in a timestep in which every source sends an event, those that fall off a border too."""
    return sum(
        projection.connections.n_weights * prod(projection.source_shape[1:] if projection.source_shape else ())
        for projection in layer.projections
    )


def quiet_limit(network: FrozenNetwork, sidecar: Sidecar) -> int:
    """Clocks without any transfer after which the accelerator counts as hung: several times its longest work."""
    work = sum(
        _most_walked(layer) + 2 * layer.n_sources + 4 * entry.n_slots + 100
        for layer, entry in zip(network.layers, sidecar.layers, strict=True)
    )
    # After reset the input guard clears a word for each address.
    clearing = 1 << next((item.width for item in sidecar.input_word.fields if item.name == "source"), 0)
    return 2000 + clearing + 4 * network.timesteps * work


def _optimise(stimulus: Stimulus) -> str:
    return "-O2" if len(stimulus) > SMALL_RUN else "-O0"


def prepare(work: Path) -> None:
    """Make an empty folder of ``work``."""
    with explain_write_errors(work):
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)


def _plan(
    network: FrozenNetwork,
    stimulus: Stimulus,
    work: Path,
    stress_samples: int,
    workers: int,
    latency: bool,
    checks: bool,
) -> list[Job]:
    """``checks`` : the accelerator checks its input, so that protocol violations have a defined outcome."""
    count = len(stimulus)
    timed = _timed(count) if latency else np.zeros(0, np.int64)
    stress = list(range(min(stress_samples, count)))
    phases = STRESS if checks else STRESS[:-1]
    stressed = dict.fromkeys(phases, stress) if stress else {}
    chunk = count if count <= SMALL_RUN else -(-count // workers)
    per_sample = network.timesteps * sum(layer.n_out for layer in network.layers)
    chunk = max(1, min(chunk, CHUNK_VALUES // per_sample))
    jobs = []
    for number, start in enumerate(range(0, count, chunk)):
        part = stimulus.take(slice(start, start + chunk))
        phases = {STRAIGHT[0]: list(range(len(part)))}
        alone = timed[(timed >= start) & (timed < start + len(part))] - start
        if alone.size:
            phases[STRAIGHT[1]] = alone.tolist()
        jobs.append(Job(work / f"job{number}", start, part, phases))
    if stressed:
        if len(jobs) == 1:
            jobs[0].phases.update(stressed)
        else:
            jobs.append(Job(work / "stress", 0, stimulus.take(stress), stressed))
    return jobs


def _timed(count: int) -> np.ndarray:
    """int64: which of so many samples are sent one at a time."""
    return np.arange(0, count, max(1, -(-count // LATENCY_SAMPLES)))


class _Runner:
    """Runs jobs in child processes and ends them when interrupted."""

    def __init__(self, bundle: Path, network: FrozenNetwork, work: Path, simulator: Build, seed: int) -> None:
        self.bundle, self.network, self.simulator, self.seed = bundle.resolve(), network, simulator, seed
        self.sidecar = read_sidecar(bundle)
        self.network_path = work / "network.safetensors"
        network.save(self.network_path)

    def start(self, job: Job, *, waves: bool = False) -> None:
        """Write the job's request and start its process."""
        job.folder.mkdir(parents=True)
        job.stimulus.save(job.folder / "stimulus.npz")
        request = {
            "module": "sim.testbench",
            "sidecar": str(self.bundle / SIDECAR),
            "network": str(self.network_path),
            "stimulus": str(job.folder / "stimulus.npz"),
            "first_sample": job.first_sample,
            "seed": self.seed,
            "phases": job.phases,
            "quiet_limit": quiet_limit(self.network, self.sidecar),
            "waves": waves,
        }
        job.process = start_simulation(job.folder, self.bundle, self.sidecar, self.simulator, request)

    def run(self, jobs: Sequence[Job], workers: int, progress: Progress, *, waves: bool = False) -> None:
        """Run all jobs, at most ``workers`` at a time."""
        waiting, running = list(jobs), []
        total = sum(job.sends(phase) for job in jobs for phase in job.phases)
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    self.start(job, waves=waves)
                    running.append(job)
                time.sleep(POLL_SECONDS)
                running = [job for job in running if job.process is not None and job.process.poll() is None]
                progress(sum(map(_sent, jobs)), total, "simulating")
        except BaseException:
            for job in running:
                _kill(job)
            raise


def start_simulation(
    folder: Path, bundle: Path, sidecar: Sidecar, simulator: Build, request: dict[str, Any]
) -> subprocess.Popen[bytes]:
    """Process in ``folder``, with the bundle's images beside it, of what ``request`` names (:mod:`sim.launch`)."""
    for memory in sidecar.images:
        copy = folder / memory.image
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / memory.image, copy)
    boot = sidecar.load.boot if sidecar.load else None
    if boot is not None:
        shutil.copyfile(bundle / boot, folder / boot)
    path = folder / "request.json"
    write_json(path, {"build": str(simulator.folder), "top": TOP, "environment": library_path(), **request})
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "COCOTB", "WAVES", "GUI", "COV_CORE"))
    }
    package_root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([package_root, *filter(None, [environment.get("PYTHONPATH")])])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = "1"
    with (folder / "launch.log").open("wb") as log:
        return children.start(
            [sys.executable, "-m", "sim.launch", str(path)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
        )


def _sent(job: Job) -> float:
    """Samples that a job has sent, of :meth:`Job.sends`; each phase writes the share that is done."""
    done = 0.0
    for phase in job.phases:
        with suppress(OSError, ValueError):
            done += float((job.folder / f"progress_{phase}.txt").read_text()) * job.sends(phase)
    return done


def _kill(job: Job) -> None:
    if job.process is not None:
        children.end(job.process)


def wait_for(job: Job) -> None:
    """Wait for a job's process, which ends with this one if it is interrupted."""
    try:
        if job.process is not None:
            job.process.wait()
    except BaseException:
        _kill(job)
        raise


def phase_results(job: Job) -> dict[str, dict[str, Any]]:
    """Results of a finished job. Raises ToolError unless exactly the requested tests ran to their end."""
    from cocotb_tools.check_results import get_results

    log = job.folder / "simulation.log"
    results = job.folder / "results.xml"
    missing = [name for name in job.phases if not (job.folder / f"phase_{name}.json").is_file()]
    if missing or not results.is_file():
        raise ToolError(
            f"the simulation ended before {missing[0] if missing else 'its end'}; {_last_error(job)}; see {log}"
        )
    tests, failed = get_results(results)
    if tests != len(job.phases):
        raise ToolError(f"{tests} tests ran, expected {len(job.phases)}; see {log}")
    phases = {name: json.loads((job.folder / f"phase_{name}.json").read_text(encoding="utf-8")) for name in job.phases}
    differing = sum(result["mismatches"] > 0 for result in phases.values())
    if failed != differing:
        raise ToolError(f"{failed} tests failed, but {differing} found differing values; {_last_error(job)}; see {log}")
    return phases


def _last_error(job: Job) -> str:
    for name in ("simulation.log", "launch.log"):
        path = job.folder / name
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            errors = [line.strip() for line in lines if "Error" in line or "%Error" in line]
            if errors:
                return errors[-1][:300]
    return "no message"


def _record_waveform(
    bundle: Path,
    network: FrozenNetwork,
    sidecar: Sidecar,
    stimulus: Stimulus,
    work: Path,
    first: Divergence,
    seed: int,
) -> Divergence:
    """Simulate the diverging sample again with a trace, alone or after its predecessor, and keep the VCD."""
    sample = first.sample if first.sample is not None else 0
    simulator = build_simulator(bundle, sidecar, trace=True, log=work / "build.log", optimise="-O0")
    runner = _Runner(bundle, network, work, simulator, seed)
    kept: Path | None = None
    for number, start in enumerate(dict.fromkeys((sample, max(0, sample - 1)))):
        chosen = stimulus.take(slice(start, sample + 1))
        job = Job(work / f"waves{number}", start, chosen, {first.phase: list(range(len(chosen)))})
        runner.run([job], 1, silent, waves=True)
        result = phase_results(job)[first.phase]
        kept = job.folder / "dump.vcd"
        if result["mismatches"]:
            break
    if kept is None or not kept.is_file():
        return first
    waveform = work / "divergence.vcd"
    kept.replace(waveform)
    return replace(first, waveform=str(waveform))


def _keep_observed(jobs: Sequence[Job], first: Divergence | None, work: Path) -> None:
    """Keep the spikes and membranes recorded of one sample, that which differs if one does, for the report."""
    kept = [path for job in jobs if (path := job.folder / OBSERVED).is_file()]
    for path in kept:
        with np.load(path) as arrays:
            if first is not None and int(arrays["sample"]) == first.sample:
                kept = [path]
                break
    if kept:
        kept[0].replace(work / OBSERVED)


def _merge(
    network: FrozenNetwork,
    sidecar: Sidecar,
    stimulus: Stimulus,
    jobs: Sequence[Job],
    phases: Sequence[dict[str, dict[str, Any]]],
    first: Divergence | None,
    files_hash: str,
    decoder: dict[str, Any],
    altered: list[str],
) -> Verification:
    straight = [(job, part["back_to_back"]) for job, part in zip(jobs, phases, strict=True) if "back_to_back" in part]
    decisions = np.concatenate([np.array(part["hardware_decisions"], np.int64) for _, part in straight])
    labelled = stimulus.labels >= 0
    times = [_times(job, name) for job, part in zip(jobs, phases, strict=True) for name in STRAIGHT if name in part]
    latencies = [run.decisions - run.starts for run in times if run.phase == STRAIGHT[1]]
    straight_runs = [run for run in times if run.phase == STRAIGHT[0] and run.starts.size]
    spans = [(int(run.decisions[-1] - run.starts[0]), run.starts.size) for run in straight_runs]
    intervals = [np.diff(run.decisions) for run in straight_runs]
    clocks = np.sum([np.array(part["clocks"], np.int64) for _, part in straight], axis=0)
    operations, walks = (
        np.sum([np.array(part[name], np.int64) for _, part in straight], axis=0)
        for name in ("synaptic_operations", "synapse_walks")
    )
    count = len(stimulus)
    layers = [
        {
            "idle_clocks": int(clocks[index, 0]),
            "accumulate_clocks": int(clocks[index, 1]),
            "sweep_clocks": int(clocks[index, 2]),
            "clear_clocks": int(clocks[index, 3]),
            "synaptic_operations": int(operations[index]),
            "synapse_walks": int(walks[index]),
            "lane_use": float(walks[index] / (entry.lanes * entry.streams * clocks[index, 1]))
            if clocks[index, 1]
            else None,
        }
        for index, entry in enumerate(sidecar.layers)
    ]
    by_phase: dict[str, dict[str, Any]] = {}
    for part in phases:
        for name, result in part.items():
            entry = by_phase.setdefault(name, {"samples": 0, "mismatches": 0, "comparisons": {}})
            entry["samples"] += result["samples"]
            entry["mismatches"] += result["mismatches"]
            entry["comparisons"] = merge_counts([entry["comparisons"], result["comparisons"]])
            for key in ("kinds", "understood_samples", "understood_timesteps"):
                if key in result:
                    entry[key] = result[key]
    return Verification(
        samples=count,
        comparisons=merge_counts(entry["comparisons"] for entry in by_phase.values()),
        mismatches=sum(entry["mismatches"] for entry in by_phase.values()),
        first_divergence=first,
        accuracy_hardware=float((decisions == stimulus.labels)[labelled].mean()) if labelled.any() else None,
        saturations=sum(int(part["saturations"]) for _, part in straight),
        cycles_per_sample=sum(span for span, _ in spans) / sum(whole for _, whole in spans) if spans else None,
        latency_cycles=_mean(latencies),
        interval_cycles=_mean(intervals),
        layers=layers,
        spikes_per_sample=(np.sum([part["spikes"] for _, part in straight], axis=0) / count).tolist(),
        synaptic_operations_per_sample=float(operations.sum() / count),
        network_hash=network.hash,
        files_hash=files_hash,
        decoder=decoder,
        phases=by_phase,
        simulated_cycles=sum(int(result.get("simulated_cycles", 0)) for part in phases for result in part.values()),
        mean_timesteps=sum(int(part["timesteps"]) for _, part in straight) / count,
        altered=altered,
        times=times,
    )


def _times(job: Job, phase: str) -> SampleTimes:
    """Of the samples of a phase that were decided."""
    with np.load(job.folder / f"timing_{phase}.npz") as timing:
        starts, decisions = timing["starts"], timing["decisions"]
    whole = min(len(starts), len(decisions))
    samples = np.array(job.phases[phase][:whole], np.int64) + job.first_sample
    return SampleTimes(phase, samples, starts[:whole], decisions[:whole])


def _mean(arrays: Sequence[np.ndarray]) -> float | None:
    values = np.concatenate(arrays) if arrays else np.zeros(0)
    return float(values.mean()) if values.size else None


def _assert_counts(
    network: FrozenNetwork, result: Verification, exits: np.ndarray, stressed: int, latency: bool
) -> None:
    """A comparison that was not made must not pass for one that found no difference.

    ``exits`` : int64 (N,), last timestep that counts of every sample.
    """
    if result.mismatches:
        return
    protocol = result.phases.get("protocol_errors", {})
    timed = _timed(len(exits))
    samples, part = (len(exits), int((exits + 1).sum())), (stressed, int((exits[:stressed] + 1).sum()))
    times = {
        "back_to_back": samples,
        "one_at_a_time": (len(timed), int((exits[timed] + 1).sum())) if latency else (0, 0),
        "backpressure": (BACKPRESSURE_ROUNDS * part[0], BACKPRESSURE_ROUNDS * part[1]),
        "reset_mid_sample": part,
        "protocol_errors": (protocol.get("understood_samples", 0), protocol.get("understood_timesteps", 0)),
    }
    for name, (count, timesteps) in times.items():
        made = result.phases.get(name, {"comparisons": {}})["comparisons"]
        for kind, wanted in expected_counts(network, count, timesteps).items():
            if made.get(kind, 0) != wanted:
                raise ToolError(f"{name}: {made.get(kind, 0)} comparisons of {kind}, expected {wanted}")
