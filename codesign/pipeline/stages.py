"""The stages of a run, in order: thin adapters from run directories to the functions that do the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from codesign.config import Config
from codesign.config.text import plain
from codesign.cost.budget import quantising
from codesign.pipeline.budget import Choice
from codesign.pipeline.stage import Context, Stage, learning
from codesign.pipeline.work import build, estimate, fit, freeze, generate, report, synth, train, verify
from codesign.records.names import CALIBRATION, DECISIONS, IMPORT_REPORT, NETWORK, REPORT, STIMULUS

# What is used only where the configuration has a [budget].
BUDGET_MODULES = frozenset(
    {"codesign.cost.budget", "codesign.cost.mapping", "codesign.train.fitting", "boards.registry"}
)


def _sections(*names: str) -> Any:
    def options(context: Context) -> dict[str, Any]:
        return {name: plain(getattr(context.config, name)) for name in names}

    return options


def _training(context: Context) -> dict[str, Any]:
    """What shapes training."""
    return learning(context.config) | _formula(context)


def _freezing(context: Context) -> dict[str, Any]:
    options = learning(context.config) | _sections("freeze")(context) | _formula(context)
    return options | ({"bits": Choice(context).bits} if context.config.budget.active else {})


def _formula(context: Context) -> dict[str, Any]:
    """What the formula of the budget reads; nothing without a budget."""
    if not context.config.budget.active:
        return {}
    hardware = context.config.hardware
    found: dict[str, Any] = {
        "quantising": quantising(context.config.freeze),
        "choices": asdict(hardware.choices),
    }
    if hardware.loadable:
        found["capacity"] = plain(hardware.capacity)
    if hardware.schedule == "auto":
        found["goal"] = hardware.goal
    return _sections("budget")(context) | found


def _hardware(context: Context) -> dict[str, Any]:
    options = _sections("hardware")(context)
    if context.config.budget.active:
        options["lanes"] = Choice(context).lanes[:1]
    return options


def _delivered(context: Context) -> dict[str, Any]:
    """What the bundle was made from; a bundle of an earlier version does not say it."""
    return context.run.stage("generate").get("options") or _hardware(context)


def _verifying(context: Context) -> dict[str, Any]:
    return _sections("verify", "budget")(context) | _delivered(context)


def _placing(context: Context) -> dict[str, Any]:
    """What place and route against the budget reads: synthesis has options too, and the bundle has lanes."""
    return _sections("budget", "synth")(context) | _delivered(context)


def _trained(config: Config) -> tuple[str, ...]:
    """What training takes of a configuration; with a budget what the formula reads, too."""
    return ("data", "network", "train", "budget", *(("freeze", "hardware") if config.budget.active else ()))


def _takes(*settings: str) -> Callable[[Config], tuple[str, ...]]:
    return lambda _: settings


def takers(key: str, config: Config) -> list[str]:
    """The stages that take changes of a key, such as 'freeze.epochs'."""
    return [
        name
        for name, stage in STAGES.items()
        if any(key == taken or key.startswith(f"{taken}.") for taken in stage.settings(config))
    ]


def _without_budget(context: Context) -> frozenset[str]:
    return frozenset() if context.config.budget.active else BUDGET_MODULES


def _shown(context: Context) -> dict[str, Any]:
    """What the report shows: the run's name, figures without ``seconds``, which its own time changes, configuration and
    records."""
    records = context.run.manifest["stages"]
    return {
        "name": context.run.path.resolve().name,
        "figures": {name: value for name, value in context.run.figures.items() if name != "seconds"},
        "config": plain(context.config),
        "stages": {name: (record.get("status"), record.get("key")) for name, record in records.items()
                   if name != "report"},
    }  # fmt: skip


def _board(context: Context) -> dict[str, Any]:
    """The board that is asked for, or else the one that was built."""
    return {"board": context.options.get("board", context.run.stage("build").get("board"))}


def stages_for_board(board: str) -> dict[str, Stage]:
    """The stages with a build that leaves the folders of other boards alone."""
    return {**STAGES, "build": replace(STAGES["build"], outputs=(f"build/{board}",))}


def _data_hash(context: Context) -> dict[str, str]:
    return {"data": context.dataset.hash}


def _start_hash(context: Context) -> dict[str, str]:
    """Of the data, and of the weights that training starts with, if it does not draw them."""
    found = _data_hash(context)
    if context.config.train.start is not None:
        from codesign.train.checkpoint import load_start, weights_hash

        found["start"] = weights_hash(load_start(Path(context.config.train.start))[0])
    return found


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="train",
            inputs={},
            outputs=("checkpoints", "metrics.jsonl"),
            options=_training,
            settings=_trained,
            external=_start_hash,
            unused=_without_budget,
            work=train,
            trains=True,
            resumable=True,
        ),
        Stage(
            name="freeze",
            inputs={"checkpoints": "train"},
            outputs=(NETWORK, STIMULUS, CALIBRATION, DECISIONS),
            options=_freezing,
            settings=_takes("freeze", "data.path", "train.threads"),
            external=_data_hash,
            unused=_without_budget,
            work=freeze,
            trains=True,
        ),
        Stage(
            name="generate",
            inputs={NETWORK: "freeze"},
            optional_inputs=(STIMULUS, CALIBRATION),
            outputs=("bundle",),
            options=_hardware,
            settings=_takes("hardware"),
            work=generate,
            hardware=True,
        ),
        Stage(
            name="estimate",
            inputs={NETWORK: "freeze"},
            optional_inputs=(CALIBRATION,),
            outputs=("estimate.json",),
            options=_hardware,
            settings=_takes("hardware"),
            work=estimate,
            hardware=True,
        ),
        Stage(
            name="budget",
            inputs={"bundle": "generate"},
            outputs=("budget",),
            options=_placing,
            work=fit,
            hardware=True,
        ),
        Stage(
            name="verify",
            inputs={NETWORK: "freeze", STIMULUS: "freeze", "bundle": "generate"},
            optional_inputs=(CALIBRATION,),
            outputs=("verify",),
            options=_verifying,
            settings=_takes("verify"),
            unused=_without_budget,
            work=verify,
            hardware=True,
        ),
        Stage(
            name="synth",
            inputs={"bundle": "generate"},
            outputs=("synth",),
            options=_sections("synth"),
            settings=_takes("synth"),
            work=synth,
            hardware=True,
        ),
        Stage(
            name="build",
            inputs={"bundle": "generate"},
            outputs=("build",),
            options=_board,
            work=build,
            hardware=True,
        ),
        Stage(
            name="report",
            inputs={},
            # It speaks of the whole run, and so none of it may be altered.
            optional_inputs=(
                *("checkpoints", "metrics.jsonl", NETWORK, STIMULUS, CALIBRATION, DECISIONS, IMPORT_REPORT),
                *("bundle", "estimate.json", "budget", "verify", "synth", "build"),
            ),
            outputs=(REPORT,),
            options=_shown,
            work=report,
            always=True,
        ),
    )
}
