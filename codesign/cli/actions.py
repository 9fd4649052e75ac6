"""What the commands do, in terms of the Python API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from codesign.cli.console import console
from codesign.cli.targets import execute, expect, open_run
from codesign.config import Config
from codesign.errors import InputError, OutputError, ToolError, UnsupportedError
from codesign.files import write_text
from codesign.rundir import RunDirectory

PATH = ("train", "freeze", "generate", "estimate", "verify", "synth", "report")


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
    expect(target, "config", "run")
    directory, config = open_run(target, output, overrides, seed)
    wanted = synth or bool(directory.stage("synth"))
    skipped = {"synth"} if not wanted else set()
    if directory.is_imported:
        skipped |= {"train", "freeze"}
    names = [name for name in PATH if name not in skipped]
    figures = execute(directory, config, names, force=force, device=device)
    console.finish(_result(directory), summary(directory, figures))


def stage(
    name: str,
    target: Path,
    output: Path | None,
    overrides: Sequence[str] | None,
    seed: int | None,
    *,
    device: str = "cpu",
    force: bool = True,
    **options: object,
) -> None:
    if name not in ("train", "generate"):
        expect(target, "run")
    directory, config = open_run(target, output, overrides, seed)
    execute(directory, config, [name], force=force, device=device, **options)
    record = directory.stage(name)
    outputs = ", ".join(sorted({path.split("/")[0] for path in record["outputs"]}))
    console.finish({**_result(directory), "stage": record}, f"{directory.path}: {outputs}")


def boards() -> None:
    raise UnsupportedError("boards")


def refuse_interchange(verb: str) -> None:
    raise UnsupportedError(
        f"`codesign {verb}` is not built in this version; FrozenNetwork.from_arrays takes weights trained elsewhere"
    )


def init(path: Path, *, force: bool) -> None:
    from codesign.config_text import config_template

    if path.exists() and not force:
        raise OutputError(f"{path}: exists already; choose another name, or --force replaces it")
    write_text(path, config_template())
    console.finish({"config": str(path)}, f"{path}: edit it, then `codesign run {path}`")


def doctor() -> None:
    from codesign.doctor import examine

    checks = examine()
    table = Table("", "what", "found", "what to do")
    for check in checks:
        table.add_row("ok" if check.ok else "missing" if check.needed else "-", check.name, check.found, check.advice)
    missing = [check.name for check in checks if check.needed and not check.ok]
    console.finish({"ok": not missing, "checks": [check.as_dict() for check in checks]}, table)
    if missing:
        raise ToolError(f"missing: {', '.join(missing)}; `codesign doctor` says what to do")


def data_list() -> None:
    from codesign.data import describe

    entries = describe()
    table = Table("set", "what", "found")
    for entry in entries:
        table.add_row(entry["name"], entry["summary"], entry["found"] or "-")
    console.finish({"sets": entries}, table)


def data_get(name: str) -> None:
    from codesign.data import download

    console.step(f"download {name}")
    folder = download(name, progress=console.progress)
    console.finish({"set": name, "path": str(folder)}, f"{name}: {folder}")


def summary(run: RunDirectory, figures: dict[str, Any]) -> str:
    """A run in a few lines."""

    def share(name: str) -> str:
        value = figures[name]
        return "not measured" if value is None else f"{100 * value:.2f} %"

    lines = [
        f"accuracy     {share('accuracy_float')} float, {share('accuracy_frozen')} frozen, "
        f"{share('accuracy_hardware')} hardware",
        f"density      {share('density')} ({figures['synapses']} synapses of {figures['weight_bits']} bits)",
    ]
    if figures["samples_verified"] is not None:
        lines.append(f"verified     {figures['samples_verified']} samples, {figures['mismatches']} mismatches")
    if figures["cycles_per_sample"] is not None:
        lines.append(f"cycles       {figures['cycles_per_sample']:.0f} per sample")
    for target, mhz in (figures["fmax_mhz"] or {}).items():
        lines.append(f"clock        {mhz:.1f} MHz on {target}, {figures['latency_us'][target]:.1f} us per sample")
    lines.append(f"report       {run.path / 'report.html'}")
    return "\n".join(lines)


def _result(run: RunDirectory) -> dict[str, Any]:
    stages = {
        name: {key: record.get(key) for key in ("status", "seconds")} for name, record in run.manifest["stages"].items()
    }
    report = run.path / "report.html"
    return {
        "run": str(run.path),
        "figures": run.figures,
        "stages": stages,
        "report": str(report) if report.is_file() else None,
    }


def _unused(config: Config) -> InputError:
    raise InputError(str(config))
