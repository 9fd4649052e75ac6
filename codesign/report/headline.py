"""The top of a run's page: what it is, whether hardware equals software, and the figures that people ask for first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codesign.cost.area import RESOURCES
from codesign.report.blocks import UNMEASURED, Mood, number, share, state_of, tile
from codesign.report.collect import Record


def subtitle(record: Record) -> str:
    parts = []
    # A network made elsewhere has no data set here; its configuration has the defaults.
    if record.config is not None and not record.run.is_imported:
        parts.append(f"data set {record.config.data.set}")
    if record.network is not None:
        network = record.network
        shapes = [network.layers[0].projections[0].source_shape, *(layer.shape for layer in network.layers)]
        widths = [network.n_inputs, *(layer.n_out for layer in network.layers)]
        sizes = ["x".join(map(str, shape or (width,))) for shape, width in zip(shapes, widths, strict=True)]
        parts.append("-".join(sizes) + f" spiking network, {network.timesteps} timesteps")
    return ", ".join(parts) or "run directory"


def verdict(record: Record) -> tuple[Mood, str, str]:
    (verified, mismatches), found = record.compared, record.verification
    if mismatches or (found is not None and not found.get("passed")):
        return (
            "bad",
            "Hardware differs from software.",
            f"{number(mismatches)} values differ, {number(verified)} samples.",
        )
    guessing = record.accuracy is not None and record.accuracy.within_noise
    if mismatches == 0 and verified:
        equal = f"{capitalised(record.of_test_samples(verified))} simulated in RTL, 0 values differ."
        if record.accuracy is not None and guessing:
            return (
                "bad",
                "The network has not learnt; hardware equals software.",
                f"{capitalised(record.accuracy.sentence('accuracy of the frozen network'))}. {equal}",
            )
        if record.run.warnings:
            return "open", "Hardware equals software; something looks wrong.", f"{equal} See the warnings below."
        return "good", "Hardware equals software.", equal
    problem = record.network.hardware_support() if record.network is not None else None
    missing = "" if problem is None else f"No hardware yet: {problem}."
    if record.accuracy is not None and guessing:
        sentence = f"{capitalised(record.accuracy.sentence('accuracy of the frozen network'))}."
        return "bad", "The network has not learnt.", " ".join(part for part in (sentence, missing) if part)
    if problem is not None:
        return "open", "No hardware yet.", f"{capitalised(problem)}."
    if found is not None:
        return "open", "Verified before something changed.", f"Run again: codesign verify {record.name}"
    if record.network is None:
        return "open", "Not frozen.", f"Run: codesign freeze {record.name}"
    return "open", "Not verified.", f"Run: codesign verify {record.name}"


def headline(record: Record) -> list[dict[str, object]]:
    """The tiles. What is not known has a dash where the next command makes it, and no tile where it may never be."""
    figures = record.figures
    mismatches, verified = figures.get("mismatches"), figures.get("samples_verified")
    found, network = record.accuracy, record.network
    guessing = found is not None and found.within_noise
    return [
        tile("accuracy, frozen", share(record.frozen_accuracy, 2), weight_note(figures), bad=guessing),
        tile(
            "accuracy, hardware",
            share(record.hardware_accuracy, 2),
            f"on {record.of_test_samples(verified)}, simulated" if verified else _not_simulated(record),
            bad=guessing,
        ),
        *([tile("guessing", share(found.guess, 2), "always the same class")] if found is not None else []),
        tile(
            "synapses",
            number(None if network is None else network.n_synapses),
            f"density {share(None if network is None else network.density)}",
        ),
        *_speed(record),
        *_resources(record),
        *_energy(record),
        tile(
            "verified",
            record.of_test_samples(verified).removesuffix(" test samples") if verified else number(None),
            f"test samples, every spike and membrane; {number(mismatches)} values differ"
            if verified
            else f"hardware: {_not_simulated(record)}",
            bad=bool(mismatches),
        ),
    ]


def _not_simulated(record: Record) -> str:
    state = state_of(record, "verify")
    return "not simulated yet" if state == UNMEASURED else f"simulation {state}"


def _speed(record: Record) -> list[dict[str, object]]:
    """Time from a decision to the next of samples back to back where a clock is known, else clocks."""
    figures = record.figures
    clocks, how = record.interval
    if clocks is None:
        return []
    told = f"{number(clocks)} clocks, {how}"
    if record.builds:
        board = record.builds[0]
        time = clocks / board["clock_mhz"] if board["clock_mhz"] else None
        return [
            tile(
                "time between samples",
                number(time, 1, " us"),
                f"{told}; {board['board']} at {board['clock_mhz']:g} MHz",
            )
        ]
    fmax = figures.get("fmax_mhz")
    placed = {target: mhz for target, mhz in fmax.items() if mhz} if isinstance(fmax, Mapping) else {}
    for target, mhz in placed.items():
        note = f"{told}; {mhz:.1f} MHz on {target}, placed and routed"
        return [tile("time between samples", number(clocks / mhz, 1, " us"), note)]
    return [tile("clocks between samples", number(clocks), f"{how}, samples back to back")]


def _resources(record: Record) -> list[dict[str, object]]:
    """Logic and block RAM of the first device or family that they are known of; how they are known."""
    cells, where = _cells(record)
    return [
        tile(RESOURCES[kind], number(cells[kind]), where) for kind in ("lut", "bram") if cells.get(kind) is not None
    ]


def _energy(record: Record) -> list[dict[str, object]]:
    """What a mean sample's memories and arithmetic take by published energies: an estimate, whatever was measured."""
    energy = (record.estimate or {}).get("energy")
    if energy is None:
        return []
    note = "estimated: memories and arithmetic at 45 nm, not the supply current"
    return [tile("energy per sample", number(energy["sample_pj"] / 1000, 1, " nJ"), note)]


def _cells(record: Record) -> tuple[Mapping[str, Any], str]:
    for build in record.builds:
        return build["used"], f"{build['device']} with its link, placed and routed"
    for cells in known_cells(record):
        return cells.amounts, f"{cells.where}, {cells.how}"
    return {}, ""


@dataclass(frozen=True)
class Cells:
    """Cells of an accelerator without any link. where : a target or a family. how : they are known."""

    family: str
    where: str
    how: str
    amounts: Mapping[str, Any]


def known_cells(record: Record) -> list[Cells]:
    """Every family's cells in every way that they are known, the surest first."""
    from boards.registry import TARGETS

    synthesis = record.synthesis or {}
    placed = [
        Cells(TARGETS[target].family, target, "placed and routed", cells)
        for target, cells in synthesis.get("placed", {}).items()
        if cells.get("lut") is not None and target in TARGETS
    ]
    synthesised = [Cells(name, name, "synthesised", cells) for name, cells in synthesis.get("area", {}).items()]
    estimates = (record.estimate or {}).get("area", {}).items()
    estimated = [Cells(name, name, "estimated", cells) for name, cells in estimates if cells["lut"] is not None]
    return [*placed, *synthesised, *estimated]


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def weight_note(figures: Mapping[str, Any]) -> str:
    bits = figures.get("weight_bits")
    return "integer weights" if bits is None else f"{bits}-bit weights"
