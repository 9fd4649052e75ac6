"""The stages of a run, in order: thin adapters from run directories to the functions that do the work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from codesign.budget import quantising
from codesign.config_text import plain
from codesign.pipeline.budget import Choice
from codesign.pipeline.stage import CALIBRATION, DECISIONS, NETWORK, STIMULUS, Context, Stage, code_hash
from codesign.pipeline.work import build, estimate, fit, freeze, generate, report, synth, train, verify

CONTRACT = ("codesign/network", "codesign/golden.py", "codesign/early_exit.py", "codesign/stimulus.py")
MAPPING = ("codesign/mapping.py", "codesign/placement.py", "codesign/layouts.py")
ESTIMATE = (*MAPPING, "codesign/estimate.py", "codesign/area_model.py")
FORMULA = (*CONTRACT, *ESTIMATE, "codesign/budget.py", "boards/registry.py")
DATA = ("codesign/data", "codesign/encoders.py")


def _sections(*names: str) -> Any:
    def options(context: Context) -> dict[str, Any]:
        return {name: plain(getattr(context.config, name)) for name in names}

    return options


def _training(context: Context) -> dict[str, Any]:
    """What shapes training; with a budget also what its formula reads."""
    options = _sections("data", "network", "train")(context)
    if context.config.budget.active:
        memories = context.config.hardware.model_dump(include={"queue_depth", "state_memory"})
        kept = {"freeze": quantising(context.config.freeze), **memories}
        options |= _sections("budget")(context) | kept
        options["code"] = code_hash(FORMULA)
    return options


def _freezing(context: Context) -> dict[str, Any]:
    options = _sections("data", "network", "train", "freeze")(context)
    if context.config.budget.active:
        options |= _sections("budget")(context) | {"bits": Choice(context).bits}
    return options


def _hardware(context: Context) -> dict[str, Any]:
    options = _sections("hardware")(context)
    if context.config.budget.active:
        options["lanes"] = Choice(context).lanes[:1]
    return options


def _shown_figures(context: Context) -> dict[str, Any]:
    """Figures without ``seconds``, which the report's own time changes."""
    return {name: value for name, value in context.run.figures.items() if name != "seconds"}


def _board(context: Context) -> dict[str, Any]:
    """The board that is asked for, or else the one that was built."""
    return {"board": context.options.get("board", context.run.stage("build").get("board"))}


def stages_for_board(board: str) -> dict[str, Stage]:
    """The stages with a build that leaves the folders of other boards alone."""
    return {**STAGES, "build": replace(STAGES["build"], outputs=(f"build/{board}",))}


def _data_hash(context: Context) -> dict[str, str]:
    return {"data": context.dataset.hash}


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="train",
            inputs={},
            outputs=("checkpoints", "metrics.jsonl"),
            code=(*DATA, "codesign/train"),
            options=_training,
            external=_data_hash,
            work=train,
            resumable=True,
        ),
        Stage(
            name="freeze",
            inputs={"checkpoints": "train"},
            outputs=(NETWORK, STIMULUS, CALIBRATION, DECISIONS),
            code=(*CONTRACT, *DATA, "codesign/train", "codesign/freeze.py", "codesign/deadcode.py"),
            options=_freezing,
            external=_data_hash,
            work=freeze,
        ),
        Stage(
            name="generate",
            inputs={NETWORK: "freeze"},
            optional_inputs=(STIMULUS, CALIBRATION),
            outputs=("bundle",),
            code=(*CONTRACT, *MAPPING, "rtl_templates"),
            options=_hardware,
            work=generate,
            hardware=True,
        ),
        Stage(
            name="estimate",
            inputs={NETWORK: "freeze"},
            optional_inputs=(CALIBRATION,),
            outputs=("estimate.json",),
            code=(*CONTRACT, *ESTIMATE),
            options=_hardware,
            work=estimate,
            hardware=True,
        ),
        Stage(
            name="budget",
            inputs={"bundle": "generate"},
            outputs=("budget",),
            code=("boards",),
            options=_sections("budget"),
            work=fit,
            hardware=True,
        ),
        Stage(
            name="verify",
            inputs={NETWORK: "freeze", STIMULUS: "freeze", "bundle": "generate"},
            outputs=("verify",),
            code=(*CONTRACT, "sim", "codesign/estimate.py"),
            options=_sections("verify", "budget"),
            work=verify,
            hardware=True,
        ),
        Stage(
            name="synth",
            inputs={"bundle": "generate"},
            outputs=("synth",),
            code=("boards",),
            options=_sections("synth"),
            work=synth,
            hardware=True,
        ),
        Stage(
            name="build",
            inputs={"bundle": "generate"},
            outputs=("build",),
            code=("boards",),
            options=_board,
            work=build,
            hardware=True,
        ),
        Stage(
            name="report",
            inputs={NETWORK: "freeze"},
            optional_inputs=(
                STIMULUS,
                DECISIONS,
                "bundle",
                "verify",
                "synth",
                "budget",
                "metrics.jsonl",
                "estimate.json",
            ),
            outputs=("report.html",),
            code=("codesign/report", "codesign/plots.py", "codesign/templates"),
            options=_shown_figures,
            work=report,
            always=True,
        ),
    )
}
