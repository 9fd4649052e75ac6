"""What the commands do, in terms of the Python API."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codesign.basics.errors import CapacityError, InputError, MismatchError, OutputError, ToolError, UnsupportedError
from codesign.basics.files import write_bytes, write_json
from codesign.basics.processes import process_count, process_rank
from codesign.cli.console import Table, console
from codesign.cli.kinds import kind_of
from codesign.cli.summaries import run_summary, stage_summary
from codesign.cli.targets import artefact, changed_config, execute, open_run, overridden, working_in
from codesign.config import Config, load_config
from codesign.pipeline.runs import stages_of
from codesign.pipeline.stage import Context, check_device
from codesign.pipeline.stages import STAGES, stages_for_board
from codesign.records.names import MANIFEST, NETWORK, REPORT, STIMULUS
from codesign.records.rundir import MUTANTS, RunDirectory

COMPARISON = "compare.html"
MUTANTS_FILE = "verify/mutants.json"
# What a stage's record says of its result, beside the figures of the run.
RESULTS = (
    "validation", "loss", "steps", "epoch", "accuracy_validation", "accuracy_validation_float", "test",
    "weights_rounded_to_zero", "removed_neurons", "removed_synapses",
)  # fmt: skip


def run(
    target: Path,
    output: Path | None,
    overrides: Sequence[str] | None,
    seed: int | None,
    device: str,
    *,
    synth: bool,
    force: bool,
) -> None:
    if process_count() > 1:
        raise UnsupportedError("torchrun is only for `codesign train`; run the other commands after it")
    check_device(device)
    directory, config = open_run(target, output, overrides, seed)
    try:
        execute(directory, config, stages_of(directory, config, synth=synth), force=force, device=device)
    except (MismatchError, UnsupportedError, CapacityError):
        if any(record.get("status") == "done" for record in directory.manifest["stages"].values()):
            console.finish(_result(directory), run_summary(directory))
        raise
    console.finish(_result(directory), run_summary(directory))


def stage(
    name: str,
    target: Path,
    output: Path | None,
    overrides: Sequence[str] | None,
    seed: int | None,
    *,
    device: str = "cpu",
    force: bool = True,
) -> None:
    if name == "train" and process_rank() > 0:
        _help_training(target, output, overrides, seed, device)
        return
    check_device(device)
    directory, config = open_run(target, output, overrides, seed, stage=name)
    imported = target if kind_of(target) == "network" else None
    execute(directory, config, [name], force=force, device=device, network=imported)
    console.finish({**_result(directory), "stage": directory.stage(name)}, stage_summary(directory, name))


def report(runs: Sequence[Path], output: Path | None) -> None:
    if len(runs) == 1:
        if output is not None:
            raise InputError("-o names the page of several runs; one run's report is in its folder")
        stage("report", runs[0], None, None, None)
        return
    from codesign.report import compare_runs

    page = output or Path(COMPARISON)
    if page.is_dir() or page.suffix not in (".html", ".htm"):
        raise InputError(f"{page}: -o names a page, which ends in .html")
    replaced = ", in place of an earlier page" if page.exists() else ""
    rows = compare_runs(runs, page)
    console.finish({"page": str(page), "runs": rows}, f"{len(rows)} runs side by side: {page}{replaced}")


def _help_training(
    target: Path, output: Path | None, overrides: Sequence[str] | None, seed: int | None, device: str
) -> None:
    """The part of torchrun's further processes: they compute, the first one keeps the run directory."""
    import warnings

    from codesign.basics.errors import CodesignWarning
    from codesign.data import load_dataset
    from codesign.pipeline.budget import resolve_budget
    from codesign.train import train

    # The first process says it.
    warnings.simplefilter("ignore", CodesignWarning)
    inside = kind_of(target) == "run"
    changes = list(overrides or [])
    config = RunDirectory.open(target).read_config(changes, seed) if inside else load_config(target, changes, seed)
    folder = target if inside else output or Path("runs") / target.stem
    train(config, load_dataset(config.data), folder, device=device, budget=resolve_budget(config))


def generate(target: Path, output: Path | None, overrides: Sequence[str] | None, device: str | None) -> None:
    if device is not None:
        check_fits(_estimate(target, overrides), device)
    stage("generate", target, output, overrides, None)


def load(target: Path, machine: Path, output: Path) -> None:
    from codesign.contract.network import FrozenNetwork
    from codesign.contract.sidecar import read_sidecar, write_sidecar
    from codesign.machine.load import compile_load
    from sim.bundle import check_files
    from sim.facts import check_facts

    path = artefact(target, kind_of(target), NETWORK)
    bundle = artefact(machine, kind_of(machine), "bundle")
    network, sidecar = FrozenNetwork.load(path), read_sidecar(bundle)
    check_files(bundle, sidecar)
    check_facts(bundle, sidecar)
    try:
        found = compile_load(network, sidecar)
    except (CapacityError, UnsupportedError) as error:
        raise type(error)(f"{path} on {bundle}: {error}") from None
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; name the file to write with -o")
    write_bytes(output, found.image)
    described = output.with_name(f"{output.name}.json")
    write_sidecar(described, found.sidecar)
    document = {"image": str(output), "sidecar": str(described), "bytes": len(found.image)}
    document |= {"network_hash": network.hash, "layout": sidecar.load.layout if sidecar.load else None}
    console.finish(document, f"{output}: {len(found.image)} bytes, network {network.hash[:16]}")


def estimate(target: Path, overrides: Sequence[str] | None, device: str | None) -> None:
    if device is not None:
        from boards.registry import find_device

        find_device(device)
    if kind_of(target) == "run" and not overrides:
        directory, config = open_run(target, None, None)
        execute(directory, config, ["estimate"], force=True)
        document = json.loads((directory.path / "estimate.json").read_text(encoding="utf-8"))
    else:
        document = _estimate(target, overrides)
    console.finish(document, estimate_table(document))
    if device is not None:
        check_fits(document, device)


def _estimate(target: Path, overrides: Sequence[str] | None) -> dict[str, Any]:
    """Estimates of a run's network or a frozen network on a machine that need not be the run's; writes nothing."""
    from codesign.contract.network import FrozenNetwork
    from codesign.pipeline.budget import chosen_hardware
    from codesign.pipeline.work import estimate_network, load_calibration

    if target.is_dir():
        run = RunDirectory.open(target)
        STAGES["estimate"].check_inputs(run)
        hardware = chosen_hardware(Context(run, changed_config(run, overrides, stage="estimate")))
        return estimate_network(FrozenNetwork.load(target / NETWORK), hardware, load_calibration(target))
    network = FrozenNetwork.load(target)
    return estimate_network(network, overridden(overrides, network, stage="estimate").hardware, None)


def check_fits(document: Mapping[str, Any], device: str) -> None:
    """Raise CapacityError, saying by how much, if an estimated accelerator is too large for a device, or for a board
    beside its link."""
    from boards.registry import find_room
    from codesign.cost.area import fits

    room = find_room(device)
    problems = fits(document, room.name, room)
    if problems:
        raise CapacityError("; ".join(problems))


def estimate_table(document: Mapping[str, Any]) -> Table:
    """Area by family; memory and cycles below."""
    table = Table("family", "lut", "ff", "bram", "dsp")
    for family, area in document["area"].items():
        table.add_row(
            family, *("-" if area[kind] is None else f"{area[kind]:g}" for kind in ("lut", "ff", "bram", "dsp"))
        )
    parts = [f"{sum(document['memory_bits'].values())} bits of memory"]
    parts.append(f"{document['bits_per_synapse']:.1f} bits per synapse")
    if document["cycles"]:
        cycles = document["cycles"]
        whole = "" if document.get("early_exit", "off") == "off" else ", of a whole sample, without early exit"
        how = "" if cycles["exact"] else f", near{whole}"
        parts.append(f"{cycles['latency_cycles']:.0f} cycles from first input to decision{how}")
    if document["energy"]:
        parts.append(f"{document['energy']['sample_pj'] / 1000:.1f} nJ ({document['energy']['source']})")
    table.caption = ", ".join(parts)
    return table


def verify(
    target: Path,
    network: Path | None,
    samples: Path | None,
    output: Path | None,
    overrides: Sequence[str] | None,
    *,
    mutants: bool,
) -> None:
    kind = kind_of(target)
    if kind == "bundle" or network is not None or samples is not None:
        bundle = artefact(target, kind, "bundle")
        if kind == "run":
            config = changed_config(RunDirectory.open(target), overrides, stage="verify")
        else:
            config = overridden(overrides, stage="verify")
        _verify_bundle(bundle, network, samples, output, config, mutants=mutants)
        return
    directory, config = open_run(target, output, overrides, stage="verify")
    if mutants:
        refusal = STAGES["verify"].refusal(directory)
        if refusal is not None:
            raise refusal
        STAGES["verify"].check_inputs(directory)
        with working_in(directory):
            directory.remove((MUTANTS_FILE,))
            try:
                _verify_mutants(config, target / "bundle", target / NETWORK, target / STIMULUS, target / "verify")
            finally:
                directory.record_files(MUTANTS, (MUTANTS_FILE,))
        return
    try:
        execute(directory, config, ["verify"], force=True)
    except MismatchError:
        console.finish(_result(directory), _verdict(directory.figures))
        raise
    console.finish(_result(directory), _verdict(directory.figures))


def _verify_mutants(config: Config, bundle: Path, network: Path, samples: Path, folder: Path) -> None:
    """Check that faults in copies of the bundle are caught; writes ``mutants.json`` into ``folder``.

    Raises MismatchError if the bundle itself differs or a fault is not caught, ToolError if the bundle could not be
    simulated, and CodesignError (exit 1) if a mutant could not be made, built or simulated.
    """
    from codesign.contract.network import FrozenNetwork
    from codesign.contract.stimulus import Stimulus
    from codesign.pipeline.mutants import judge_mutants, run_delivered
    from sim.sidecar_mutants import run_sidecar_mutants

    console.step("mutants")
    work = folder / "mutants"
    frozen = FrozenNetwork.load(network)
    document = run_delivered(
        bundle,
        frozen,
        Stimulus.load(samples, frozen.n_outputs),
        work,
        seed=config.verify.seed,
        progress=console.progress,
    )
    rows = run_sidecar_mutants(bundle, FrozenNetwork.load(network))
    document["mutants"] += rows
    document["total"] += len(rows)
    document["caught"] += sum(row["caught"] for row in rows)
    write_json(folder / "mutants.json", document)
    shutil.rmtree(work)
    table = Table("mutant", "kind", "caught", "first divergence")
    for mutant in document["mutants"]:
        first = mutant["first_divergence"]
        place = (
            "" if first is None else ", ".join(f"{key} {value}" for key, value in first.items() if value is not None)
        )
        table.add_row(mutant["name"], mutant["kind"], "yes" if mutant["caught"] else "NO", mutant["error"] or place)
    console.finish(document, table)
    control = document["control"]
    if control["error"] is not None:
        raise ToolError(f"{bundle}: the unmutated bundle could not be simulated ({control['error']})")
    if control["caught"]:
        raise MismatchError(
            f"{bundle}: differs from the frozen network before any fault; `codesign verify` shows where"
        )
    judge_mutants(document["mutants"])


def _verify_bundle(
    bundle: Path,
    network: Path | None,
    samples: Path | None,
    output: Path | None,
    config: Config,
    *,
    mutants: bool,
) -> None:
    """Verify a bundle that need not be in a run directory."""
    from codesign.pipeline.work import verify_delivered

    # Also of `.`, whose network is beside it all the same.
    bundle = bundle.absolute() if bundle.parent == bundle else bundle
    beside = [name for name, given in ((NETWORK, network), (STIMULUS, samples)) if given is None]
    if (bundle.parent / MANIFEST).is_file():
        RunDirectory.open(bundle.parent).check(*beside)
    network, samples = network or bundle.parent / NETWORK, samples or bundle.parent / STIMULUS
    for option, path in (("--network", network), ("--samples", samples)):
        if not path.is_file():
            raise InputError(f"{path}: no such file; name it with {option}")
    with _work_folder(output, "verify") as work:
        if mutants:
            _verify_mutants(config, bundle, network, samples, work)
            return
        console.step("verify")
        outcome = verify_delivered(
            bundle, network, samples, work / "verify", config.verify, waves=True, progress=console.progress
        )
        document = {**outcome.figures, **outcome.details}
        console.finish(document, _verdict(document))
        if outcome.failure is not None:
            raise outcome.failure


@contextmanager
def _work_folder(output: Path | None, verb: str) -> Iterator[Path]:
    """``output``, or a temporary folder that is kept, and named, only if hardware and software differ."""
    if output is not None:
        yield output
        return
    folder = Path(tempfile.mkdtemp(prefix=f"codesign-{verb}-"))
    try:
        yield folder
    except MismatchError as error:
        raise MismatchError(f"{error}; what was recorded of it is in {folder}") from None
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _verdict(figures: Mapping[str, Any]) -> str:
    text = f"{figures['samples_verified']} samples, {figures['mismatches']} mismatches"
    if figures["accuracy_hardware"] is not None:
        text += f", hardware accuracy {100 * figures['accuracy_hardware']:.2f} %"
    if figures.get("saved_cycles") is not None:
        text += (
            f"; early exit: {figures['timesteps_per_sample']:.2f} timesteps a sample, "
            f"about {figures['saved_cycles']:.0f} cycles saved"
        )
    return text


def synth(target: Path, output: Path | None, overrides: Sequence[str] | None) -> None:
    from boards.synth import synth_bundle

    if kind_of(target) == "run":
        directory, config = open_run(target, output, overrides, stage="synth")
        execute(directory, config, ["synth"], force=True)
        console.finish(_result(directory), area_table(directory.figures))
        return
    config = overridden(overrides, stage="synth")
    with _work_folder(output, "synth") as work:
        console.step("synth")
        result = synth_bundle(target, config.synth, work, console.progress)
    console.finish(result, area_table(result))


def build(target: Path, board: str, output: Path | None) -> None:
    from boards.build import build as build_board
    from boards.registry import find_board

    find_board(board)
    if kind_of(target) == "run":
        directory, config = open_run(target, output, None)
        execute(directory, config, ["build"], force=True, stages=stages_for_board(board), board=board)
        result = directory.stage("build")
        folder = directory.path / "build" / board
    else:
        if output is None:
            raise InputError(f"{target}: a bundle alone needs -o DIR, the folder that the bitstream goes to")
        folder = output
        console.step(f"build {board}")
        result = build_board(target, board, folder, progress=console.progress)
    used = ", ".join(f"{count} of {result['budget'][kind]} {kind}" for kind, count in result["used"].items())
    console.finish(
        {"folder": str(folder), **result},
        f"{folder / result['bitstream']}: {used}; {result['fmax_mhz']:g} MHz, clock {result['clock_mhz']:g} MHz",
    )


def area_table(figures: Mapping[str, Any]) -> Table:
    """Area by family and clock by device."""
    table = Table("target", "lut", "ff", "bram", "dsp", "MHz")
    for family, area in (figures["area"] or {}).items():
        table.add_row(family, *(f"{area[kind]:g}" for kind in ("lut", "ff", "bram", "dsp")), "")
    for target, mhz in (figures["fmax_mhz"] or {}).items():
        table.add_row(target, "", "", "", "", f"{mhz:.1f}" if mhz else "does not fit")
    return table


def explore(
    target: Path,
    output: Path | None,
    overrides: Sequence[str] | None,
    workers: int | None,
    scheduler: str | None,
    networks: Path | None,
    device: str,
) -> None:
    from codesign.explore import load_space, run_study

    space = load_space(target, list(overrides or []))
    folder = output or Path("runs") / target.stem
    console.step("explore")
    document = run_study(space, folder, workers, scheduler, networks, device, console.progress)
    console.finish({"folder": str(folder), **document}, front_table(document, folder))


def front_table(document: Mapping[str, Any], folder: Path) -> Table:
    """The front of an exploration, and where the rest is."""
    names = list(document["space"]["objectives"])
    table = Table("point", *names, "test accuracy", "choices")
    front = [point for point in document["points"] if point["front"]]
    for point in sorted(front, key=lambda point: [point["metrics"][name] for name in names]):
        accuracy = point["test_accuracy"]
        table.add_row(
            point["name"],
            *(f"{point['metrics'][name]:.4g}" for name in names),
            "" if accuracy is None else f"{accuracy:.4g}",
            ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in point["choices"].items()),
        )
    failed = sum(network["status"] == "failed" for network in document["networks"])
    table.caption = (
        f"{len(front)} of {len(document['points'])} points are on the front; "
        f"{len(document['networks'])} networks, {failed} failed; {folder / 'explore.html'}"
    )
    return table


def predict(target: Path, data: Path, *, allow_dropped: bool) -> None:
    from codesign.contract.network import FrozenNetwork
    from codesign.pipeline.predict import predict as classify

    directory = RunDirectory.open(target)
    directory.check(NETWORK)
    network = FrozenNetwork.load(directory.path / NETWORK)
    config = directory.config
    result = classify(network, config.data, data, config.hardware.early_exit, allow_dropped=allow_dropped)
    document = {
        "decisions": result.decisions.tolist(),
        "values": result.values.tolist(),
        "accuracy": result.accuracy,
        "events": None if result.events is None else result.events.document(),
    }
    lines = [" ".join(map(str, document["decisions"]))]
    if result.events is not None:
        lines.append(result.events.text())
    if result.accuracy is not None:
        lines.append(f"accuracy {100 * result.accuracy:.2f} % of {len(result.decisions)} samples")
    console.finish(document, "\n".join(lines))


def _result(run: RunDirectory) -> dict[str, Any]:
    stages = {
        name: {
            "status": record.get("status"),
            "seconds": record.get("seconds"),
            "warnings": record.get("warnings", []),
            **{key: record[key] for key in RESULTS if key in record},
        }
        for name, record in run.manifest["stages"].items()
    }
    report = run.path / REPORT
    return {
        "run": str(run.path),
        "figures": run.figures,
        "stages": stages,
        "report": str(report) if report.is_file() else None,
    }
