"""What each stage does, in terms of the package that does it. Heavy packages are imported inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codesign.basics.errors import CapacityError, InputError, MismatchError
from codesign.basics.files import atomic_path, write_json
from codesign.basics.progress import Progress
from codesign.config import HardwareConfig, VerifyConfig
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.budget import CURES, Budget, Demand, demands, nearest, shortage
from codesign.cost.dense import dense_estimate
from codesign.cost.mapping import capacity_of, map_hardware
from codesign.machine.mapping import HardwareMap
from codesign.pipeline.budget import (
    Choice,
    choose_frozen,
    chosen_hardware,
    delivered_hardware,
    place,
    resolve_budget,
    with_bits,
)
from codesign.pipeline.figures import network_figures
from codesign.pipeline.findings import after_freezing, warn_of
from codesign.pipeline.stage import Context, Outcome, learning
from codesign.pipeline.steps import (
    freeze_network,
    test_of,
    train_network,
    validation_of,
)
from codesign.records.names import CALIBRATION, DECISIONS, NETWORK, STIMULUS

if TYPE_CHECKING:
    from codesign.machine.plan import MachinePlan
    from codesign.quantise.freeze import FreezeResult

VECTOR_SAMPLES = 4


def train(context: Context) -> Outcome:
    """Data -> checkpoints."""
    config = context.config
    budget = resolve_budget(config)
    Choice(context).forget()
    result = train_network(config, context.dataset, context.run.path, progress=context.progress, device=context.device)
    found = validation_of(result, context.dataset)
    outcome = Outcome(
        details={
            "checkpoint": result.checkpoint.relative_to(context.run.path).as_posix(),
            "epoch": result.epoch,
            "epochs": len(result.history),
            "steps": result.steps,
            "loss": result.chosen["loss"],
            "validation": {**found.document(), "loss": result.chosen["validation_loss"]},
            "spikes_per_sample": [layer["spikes_per_sample"] for layer in result.chosen["layers"]],
            "synaptic_operations_per_sample": result.chosen["synaptic_operations_per_sample"],
            "density": result.density,
            "layer_density": result.layer_density,
            "accuracy_validation": result.accuracy_validation,
            "events": result.events,
            "device": context.device,
            **({} if result.start is None else {"start": {"path": config.train.start, **result.start}}),
        }
    )
    return outcome if budget is None else _with_budget(outcome, result.demands, budget)


def _with_budget(outcome: Outcome, found: list[Demand], budget: Budget) -> Outcome:
    """The outcome of training with the bits that fit; a failure if none do."""
    record = {
        "limits": budget.document(),
        "weight_bits": sorted({demand.weight_bits for demand in found if demand.fits}),
        "demands": [demand.document() for demand in found],
    }
    failure = None
    if not record["weight_bits"]:
        density = outcome.details["density"]
        failure = CapacityError(
            f"{shortage(nearest(found, budget), budget)}; {density:.3g} is the lowest density that training reached, "
            "its checkpoints are kept"
        )
    return replace(outcome, details={**outcome.details, "budget": record}, failure=failure)


def freeze(context: Context) -> Outcome:
    """Checkpoint -> frozen network, test stimulus, and validation samples that guide placement and estimates."""
    from codesign.quantise.freeze import freeze as freeze_bits

    folder, dataset, config = context.run.path, context.dataset, context.config
    _refuse_other_training(context)
    options: dict[str, Any] = {"progress": context.progress, "device": context.device}
    budget, record = resolve_budget(config), {}
    if budget is None:
        result = freeze_network(config, folder, dataset, **options)
    else:
        limits = budget

        def attempt(bits: int) -> tuple[FreezeResult, list[Demand]]:
            found = freeze_bits(with_bits(config, bits), folder, dataset, **options)
            return found, demands(found.network, limits, found.calibration, bits)

        result, record["budget"] = choose_frozen(Choice(context), budget, attempt)
        warn_of(after_freezing(config, result, test_of(result, dataset)))
    result.network.save(folder / NETWORK)
    result.test_stimulus.save(folder / STIMULUS)
    result.calibration.save(folder / CALIBRATION)
    with atomic_path(folder / DECISIONS) as path, path.open("wb") as file:
        network_hash = np.array(result.network.hash)
        np.savez(file, decisions=result.decisions, margins=result.margins, network_hash=network_hash)
    record["test"] = test_of(result, dataset).document()
    record |= {"classes": list(dataset.classes), "sample_shape": list(dataset.sample_shape)}
    figures = {**result.figures, **network_figures(result.network)}
    return Outcome(figures=figures, details={**result.details, **record})


def _refuse_other_training(context: Context) -> None:
    """Raise InputError if the configuration is not that of the checkpoints; earlier versions recorded none."""
    trained, wanted = context.run.stage("train").get("options", {}), learning(context.config)
    was, now = (dict(_leaves(document)) for document in (trained, json.loads(json.dumps(wanted))))
    for key in was.keys() & now.keys():
        if was[key] != now[key]:
            raise InputError(
                f"{context.run.path}: the configuration has {key} = {now[key]!r}, its checkpoints were trained with "
                f"{was[key]!r}; `codesign run {context.run.path}` trains anew"
            )


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested tables, by their keys with dots."""
    if not isinstance(document, dict):
        yield path, document
        return
    for key, value in document.items():
        yield from _leaves(value, f"{path}.{key}" if path else key)


def generate(context: Context) -> Outcome:
    """Frozen network -> Verilog bundle."""
    from rtl_templates.bundle import write_bundle

    folder, hardware = context.run.path, chosen_hardware(context)
    network = FrozenNetwork.load(folder / NETWORK)
    mapping = map_hardware(network, hardware, load_calibration(folder))
    write_bundle(network, mapping, folder / "bundle", name=hardware.name, vectors=_vectors(folder))
    return Outcome(figures=network_figures(network), details={"placement": mapping.report()})


def estimate(context: Context) -> Outcome:
    """Frozen network -> cycles, memory and area without simulation or synthesis."""
    folder = context.run.path
    network, hardware = FrozenNetwork.load(folder / NETWORK), chosen_hardware(context)
    calibration = load_calibration(folder)
    mapping = map_hardware(network, hardware, calibration)
    document = _estimate_mapped(network, hardware, mapping, calibration)
    document["dense"] = dense_estimate(network, mapping, capacity_of(hardware), calibration)
    write_json(folder / "estimate.json", document)
    return Outcome(figures={**network_figures(network), "bits_per_synapse": document["bits_per_synapse"]})


def estimate_network(network: FrozenNetwork, hardware: HardwareConfig, calibration: Stimulus | None) -> dict[str, Any]:
    """Estimates (:func:`codesign.cost.estimate.estimate`) of a network on the configured lanes; cycles need samples."""
    return _estimate_mapped(network, hardware, map_hardware(network, hardware, calibration), calibration)


def _estimate_mapped(
    network: FrozenNetwork, hardware: HardwareConfig, mapping: HardwareMap, calibration: Stimulus | None
) -> dict[str, Any]:
    from codesign.cost.estimate import estimate as estimate_planned
    from codesign.cost.schedules import schedule_costs
    from codesign.machine.plan import plan_machine

    document = estimate_planned(plan_machine(network, mapping), stimulus=calibration)
    schedules = None if calibration is None else schedule_costs(network, mapping, calibration, capacity_of(hardware))
    return {**document, **(document["cycles"] or {}), "early_exit": hardware.early_exit, "schedules": schedules}


def fit(context: Context) -> Outcome:
    """Bundle -> place and route, against the budget; what does not fit is made anew with less."""
    folder, budget, choice = context.run.path, resolve_budget(context.config), Choice(context)
    if budget is None:
        raise InputError(f"{folder}: the configuration has no [budget]; `codesign build` makes a bitstream without one")
    if not choice.lanes:
        raise InputError(f"{folder}: no bits and lanes are chosen; `codesign freeze {folder}` chooses them")
    bits, lanes = context.run.stage("freeze")["budget"]["weight_bits"], choice.lanes[0]
    if delivered_hardware(context).lanes != lanes:
        raise InputError(f"{folder}: its bundle does not have the lanes chosen; `codesign generate {folder}` makes it")
    found = place(folder / "bundle", context.config, budget, folder / "budget", context.progress)
    record = {
        "weight_bits": bits,
        "lanes": lanes,
        "measured": found.measured,
        "fmax_mhz": found.fmax_mhz,
        "fits": found.reason is None,
        "reason": found.reason,
    }
    write_json(folder / "budget" / "budget.json", record)
    if found.reason is None:
        return Outcome(details={"budget": record})
    redo = choice.reject(bits, lanes, found.reason)
    failure = CapacityError(
        f"{budget.name}: at {bits} bits on {lanes} lane{'s' * (lanes > 1)} the Verilog does not fit: {found.reason}"
        + (
            f"; `codesign run {folder}` goes on with less"
            if redo
            else "; no fewer lanes or bits are left: name some in [budget], or lower train.rewiring.target_density"
        )
    )
    return Outcome(details={"budget": record}, failure=failure, redo=redo)


def verify(context: Context) -> Outcome:
    """Bundle == frozen network on the stimulus, exactly; a difference is the outcome's failure."""
    folder, hardware = context.run.path, delivered_hardware(context)
    outcome = verify_delivered(
        folder / "bundle", folder / NETWORK, folder / STIMULUS, folder / "verify", context.config.verify,
        waves=True, progress=context.progress, planned=lambda: planned_machine(folder, hardware),
    )  # fmt: skip
    if hardware.early_exit != "off" and outcome.failure is None:
        saved = saved_cycles(folder, hardware, context.config.verify, outcome.details["cycles"]["latency"])
        outcome = replace(outcome, figures={**outcome.figures, "saved_cycles": saved})
    budget = resolve_budget(context.config)
    limit = None if budget is None else budget.limits.get("cycles")
    cycles = outcome.details["cycles"]["latency"]
    if budget is None or limit is None or cycles <= limit or outcome.failure is not None:
        return outcome
    late = f"{budget.name}: a sample takes {cycles:.0f} of {limit:.0f} cycles in simulation; use {CURES['cycles']}"
    return replace(outcome, failure=CapacityError(late))


def saved_cycles(folder: Path, hardware: HardwareConfig, config: VerifyConfig, latency: float) -> float:
    """Clocks by which early exit shortens the mean latency: that of the machine without it, less the simulated one.

    The former is told of the first hundred samples that are verified, exactly if the estimates can.
    """
    from codesign.cost.estimate import estimate as estimate_planned

    chosen = Stimulus.load(folder / STIMULUS).take(slice(0, config.samples))
    whole = planned_machine(folder, hardware.model_copy(update={"early_exit": "off"}))
    return estimate_planned(whole, stimulus=chosen)["cycles"]["latency_cycles"] - latency


def planned_machine(folder: Path, hardware: HardwareConfig) -> MachinePlan:
    """The machine of a run's network that the stage `generate` makes."""
    from codesign.machine.plan import plan_machine

    network = FrozenNetwork.load(folder / NETWORK)
    return plan_machine(network, map_hardware(network, hardware, load_calibration(folder)))


def verify_delivered(
    bundle: Path,
    network: Path,
    samples: Path,
    work: Path,
    config: VerifyConfig,
    *,
    waves: bool,
    progress: Progress,
    planned: Callable[[], MachinePlan] | None = None,
) -> Outcome:
    """Simulate a delivered bundle and compare it with a frozen network; ``work/verification.json`` has all of it.

    Reads the three paths and nothing else, but for ``planned``: it plans the machine, whose clocks are then told
    without simulation and compared. A clock that differs is recorded; it is no failure. The outcome's failure is a
    MismatchError that names the first difference.
    """
    from codesign.contract.sidecar import read_sidecar
    from codesign.cost.clocks import check_clocks
    from sim.verify import verify_bundle

    frozen = FrozenNetwork.load(network)
    whole = Stimulus.load(samples, frozen.n_outputs)
    stimulus = whole.take(slice(0, config.samples))
    result = verify_bundle(
        bundle, frozen, stimulus, work,
        stress_samples=config.stress_samples, seed=config.seed, waves=waves, progress=progress,
    )  # fmt: skip
    clocks = None if planned is None or not result.passed else check_clocks(planned(), stimulus, result.times)
    told = None if clocks is None else clocks.document()
    write_json(work / "verification.json", {**result.to_json(), "told_clocks": told})
    (work / NETWORK).unlink(missing_ok=True)
    busy = sum(
        layer.lanes * clocks["accumulate_clocks"] for layer, clocks in zip(read_sidecar(bundle).layers, result.layers)
    )
    mismatches = result.mismatches + result.decoder["differences"]
    simulated = result.samples > 0
    failure = None
    if not result.passed:
        found = "no value differs"
        if result.sidecar:
            found = f"{mismatches} facts of the sidecar are not true, nothing was simulated; {result.first_difference}"
        elif mismatches:
            found = f"{mismatches} values differ from the frozen network; first: {result.first_difference}"
        altered = f"{', '.join(result.altered)} altered since generation; " if result.altered else ""
        failure = MismatchError(f"{bundle}: {altered}{found}")
    return Outcome(
        figures={
            # A part of the test set has an accuracy of its own, which nothing may be compared with.
            "accuracy_hardware": result.accuracy_hardware if len(stimulus) == len(whole) else None,
            "samples_verified": result.samples,
            "mismatches": mismatches,
            "saturations_verified": result.saturations if simulated else None,
            "spikes_per_verified_sample": result.spikes_per_sample if simulated else None,
            "cycles_per_sample": result.cycles_per_sample,
            "timesteps_per_sample": result.mean_timesteps if simulated else None,
            "synaptic_operations_per_verified_sample": (result.synaptic_operations_per_sample if simulated else None),
            "lane_use": sum(layer["synapse_walks"] for layer in result.layers) / busy if busy else None,
        },
        details={
            "cycles": {"latency": result.latency_cycles, "interval": result.interval_cycles},
            "comparisons": result.comparisons,
            "files_hash": result.files_hash,
            "accuracy_of_verified_samples": result.accuracy_hardware,
            "told_clocks": told,
        },
        failure=failure,
    )


def synth(context: Context) -> Outcome:
    """Bundle -> area and clock."""
    from boards.synth import synth_bundle

    folder = context.run.path
    result = synth_bundle(folder / "bundle", context.config.synth, folder / "synth", context.progress)
    return Outcome(figures={"area": result["area"], "fmax_mhz": result["fmax_mhz"]})


def build(context: Context) -> Outcome:
    """Bundle -> bitstream of the board that the command names."""
    from boards.build import build as build_board

    folder, board = context.run.path, context.options["board"]
    result = build_board(folder / "bundle", board, folder / "build" / board, progress=context.progress)
    kept = ("board", "device", "fmax_mhz", "clock_mhz", "bitstream", "used", "budget")
    return Outcome(details={name: result[name] for name in kept})


def report(context: Context) -> Outcome:
    """Everything -> one HTML page."""
    from codesign.report import write_report

    write_report(context.run.path)
    return Outcome()


def load_calibration(folder: Path) -> Stimulus | None:
    """Validation samples of a run; None if there are none, as for a network made elsewhere."""
    path = folder / CALIBRATION
    return Stimulus.load(path) if path.is_file() else None


def _vectors(folder: Path) -> Stimulus | None:
    """A few samples for the bundle's golden vectors."""
    path = folder / STIMULUS
    return Stimulus.load(path).take(slice(0, VECTOR_SAMPLES)) if path.is_file() else None
