"""A run's hardware budget: its limits from the board or target, the choice of bits and lanes, place and route.

Training and freezing go by the formula of :mod:`codesign.cost.budget`. Whether the delivered Verilog fits is decided by
place and route; what it rejects is kept in the manifest (``budget.rejected``), and the choice goes on without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from codesign.basics.errors import CapacityError, InputError
from codesign.basics.progress import Progress
from codesign.config import Config, HardwareConfig, parse_section
from codesign.config.text import plain
from codesign.contract.sidecar import read_sidecar
from codesign.cost.budget import UNITS, Budget, Demand, nearest, preferred, relative_errors
from codesign.cost.mapping import capacity_of, goal_factor
from codesign.pipeline.stage import Context

T = TypeVar("T")

SEED = 1
# Kinds that place and route measures; the others are known from the mapping.
PLACED = ("lut", "ff", "bram", "dsp", "spram")


def resolve_budget(config: Config) -> Budget | None:
    """The limits that ``config.budget`` stands for, None without a budget. InputError for an unknown board."""
    given = config.budget
    if not given.active:
        return None
    from boards.registry import TARGETS, find_board

    board = find_board(given.board) if given.board is not None else None
    device = board.device if board is not None else TARGETS[given.target] if given.target is not None else None
    clock = board.clock_hz / 1e6 if board is not None else given.clock_mhz
    limits: dict[str, float] = {}
    if device is not None:
        limits = {kind: float(device.budget[kind]) for kind in PLACED if kind in device.budget}
        if device.family == "ice40":
            # A logic cell holds a LUT and a flip-flop; nextpnr counts cells.
            del limits["ff"]
    for kind in ("lut", "bram"):
        value = getattr(given, kind)
        if value is not None:
            limits[kind] = min(limits[kind], float(value))
    if given.memory_bits is not None:
        limits["memory_bits"] = float(given.memory_bits)
    if given.cycles is not None:
        limits["cycles"] = float(given.cycles)
    if given.latency_us is not None:
        assert clock is not None
        limits["cycles"] = given.latency_us * clock
    return Budget(
        name=given.board or given.target or "the budget",
        family=None if device is None else device.family,
        limits=limits,
        overhead={} if board is None else {kind: float(count) for kind, count in board.link.items()},
        clock_mhz=clock,
        weight_bits=tuple(sorted(set(given.weight_bits))),
        lanes=tuple(sorted(set(given.lanes))),
        choices=config.hardware.choices,
        capacity=capacity_of(config.hardware),
        within=goal_factor(config.hardware),
    )


def with_bits(config: Config, weight_bits: int) -> Config:
    """The configuration with these bits, as if they had been given."""
    return config.model_copy(update={"freeze": config.freeze.model_copy(update={"weight_bits": weight_bits})})


def chosen_hardware(context: Context) -> HardwareConfig:
    """The accelerator's shape: as configured, or on the lanes that the budget led to."""
    hardware = context.config.hardware
    if not context.config.budget.active:
        return hardware
    lanes = Choice(context).lanes
    if not lanes:
        raise InputError(
            f"{context.run.path}: no lanes are chosen for the budget; `codesign freeze {context.run.path}` chooses them"
        )
    return hardware.model_copy(update={"lanes": lanes[0]})


def delivered_hardware(context: Context) -> HardwareConfig:
    """The accelerator's shape that the run's bundle was made with; as configured if an earlier version made it."""
    made = context.run.stage("generate").get("options", {})
    if not isinstance(made.get("hardware"), dict):
        return chosen_hardware(context)
    lanes = {"lanes": made["lanes"][0]} if made.get("lanes") else {}
    return parse_section(HardwareConfig, {**made["hardware"], **lanes}, f"{context.run.path}: its bundle")


class Choice:
    """What may still be chosen for a run's trained network, kept in its manifest.

    ``budget`` in the manifest holds ``key`` (what the rejections belong to), ``rejected`` (weight_bits, lanes and
    reason of what place and route refused) and ``exhausted`` (bits of which no lanes are left), beside the summary.
    """

    def __init__(self, context: Context) -> None:
        self.run = context.run
        sections = ("data", "network", "train", "freeze", "hardware", "budget")
        document = {name: plain(getattr(context.config, name)) for name in sections}
        self.key = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    @property
    def _kept(self) -> dict[str, Any]:
        found = self.run.manifest.get("budget", {})
        return found if found.get("key") == self.key else {}

    @property
    def rejected(self) -> list[dict[str, Any]]:
        return list(self._kept.get("rejected", []))

    @property
    def exhausted(self) -> list[int]:
        return list(self._kept.get("exhausted", []))

    @property
    def bits(self) -> list[int]:
        """Bits that fit by the formula after training and are not exhausted, highest first."""
        fitting = self.run.stage("train").get("budget", {}).get("weight_bits", [])
        return sorted(set(fitting) - set(self.exhausted), reverse=True)

    @property
    def lanes(self) -> list[int]:
        """Lanes that are left for the frozen network, best first: fewer than any that were refused at its bits."""
        frozen = self.run.stage("freeze").get("budget", {})
        refused = [item["lanes"] for item in self.rejected if item["weight_bits"] == frozen.get("weight_bits")]
        return [lanes for lanes in frozen.get("lanes", []) if all(lanes < other for other in refused)]

    def forget(self) -> None:
        """Nothing is rejected: the network is trained anew."""
        self.run.manifest.pop("budget", None)

    def reject(self, weight_bits: int, lanes: int, reason: str) -> str | None:
        """Go on without this choice; the stage to go back to, None if there is no choice left."""
        entry = {"weight_bits": weight_bits, "lanes": lanes, "reason": reason}
        kept = {"key": self.key, "rejected": [*self.rejected, entry], "exhausted": self.exhausted}
        self.run.manifest["budget"] = kept
        if self.lanes:
            return "generate"
        kept["exhausted"].append(weight_bits)
        return "freeze" if self.bits else None


def choose_frozen(choice: Choice, budget: Budget, freeze: Callable[[int], tuple[T, list[Demand]]]) -> tuple[T, dict]:
    """Freeze at the most bits whose frozen network fits by the formula on some lanes; the result and its record.

    ``freeze(bits)`` gives a result and its demands by lanes. If the fine-tuned network fits nowhere although the
    trained one did, the fewest bits are kept on the lanes that exceed the budget least; place and route decides.
    """
    result: T | None = None
    found: list[Demand] = []
    passed: list[int] = []
    for bits in choice.bits:
        result, found = freeze(bits)
        fitting = preferred(found, budget)
        if fitting:
            break
        passed.append(bits)
    if result is None:
        raise InputError(f"{choice.run.path}: no choice of bits fits the budget; `codesign train` says why")
    chosen = preferred(found, budget) or [nearest(found, budget)]
    return result, {
        "weight_bits": chosen[0].weight_bits,
        "lanes": [demand.lanes for demand in chosen],
        "demands": [demand.document() for demand in found],
        "fits_by_formula": chosen[0].fits,
        "passed_over": passed,
    }


@dataclass(frozen=True)
class Placed:
    """What place and route says of a bundle.

    measured : use by kind, with the board's link; lut and others only where there is a device and they are known.
    fmax_mhz : clock reached, None without a device or if it does not fit.
    reason : why it does not fit, None if it does.
    """

    measured: dict[str, float]
    fmax_mhz: float | None
    reason: str | None


def place(bundle: Path, config: Config, budget: Budget, folder: Path, progress: Progress) -> Placed:
    """Place and route the delivered Verilog into ``folder`` and compare its use with the limits."""
    given = config.budget
    measured = {"memory_bits": float(read_sidecar(bundle).memory_bits.total)}
    fmax: float | None = None
    reason: str | None = None
    if given.board is not None:
        from boards.build import build

        try:
            built = build(bundle, given.board, folder / given.board, seed=SEED, progress=progress)
        except CapacityError as error:
            reason = str(error)
        else:
            measured |= {kind: float(built["used"].get(kind, 0)) for kind in PLACED if kind in budget.limits}
            fmax = built["fmax_mhz"]
    elif given.target is not None:
        from boards.synth import synth_bundle

        options = config.synth.model_copy(update={"families": [], "fmax": [given.target], "seeds": [SEED]})
        found = synth_bundle(bundle, options, folder / given.target, progress)["placed"][given.target]
        measured |= {kind: float(found[kind]) for kind in PLACED if kind in budget.limits}
        fmax, reason = found["fmax_mhz"], found["reason"]
        if fmax is not None and budget.clock_mhz is not None and fmax < budget.clock_mhz:
            reason = f"reaches {fmax:.1f} MHz of {budget.clock_mhz:g} MHz"
    over = [kind for kind, limit in budget.limits.items() if measured.get(kind, 0.0) > limit]
    if reason is None and over:
        reason = ", ".join(f"{measured[kind]:g} of {budget.limits[kind]:g} {UNITS[kind]}" for kind in over)
    return Placed(measured, fmax, reason)


def summarise(context: Context, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the manifest's ``budget`` from the records of the stages that are current; nothing without a budget.

    Limits, overhead, margins, the choice, what the formula said of it, what place and route and simulation measured,
    the formula's error, and what was rejected.
    """
    if not context.config.budget.active:
        context.run.manifest.pop("budget", None)
        return
    choice = Choice(context)
    parts = {
        name: records[name]["budget"] for name in ("train", "freeze", "budget") if "budget" in records.get(name, {})
    }
    frozen, placed = parts.get("freeze", {}), parts.get("budget", {})
    lanes = next(iter(choice.lanes), None)
    estimated = next((item for item in frozen.get("demands", []) if item["lanes"] == lanes), {})
    measured = dict(placed.get("measured", {}))
    cycles = records.get("verify", {}).get("cycles", {}).get("latency")
    if cycles is not None:
        measured["cycles"] = cycles
    context.run.manifest["budget"] = {
        "key": choice.key,
        **parts.get("train", {}).get("limits", {}),
        "density": records.get("train", {}).get("density"),
        "weight_bits": frozen.get("weight_bits"),
        "lanes": lanes,
        "estimated": estimated.get("estimated"),
        "needed": estimated.get("needed"),
        "fits_by_formula": estimated.get("fits"),
        "measured": measured or None,
        "fmax_mhz": placed.get("fmax_mhz"),
        "fits": placed.get("fits"),
        "error": relative_errors(estimated["estimated"], measured) if estimated else None,
        "rejected": choice.rejected,
        "exhausted": choice.exhausted,
    }
