"""The cards of time: clock frequency, latency, estimates beside measurements, and clocks by phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codesign.report import plots
from codesign.report.areas import RESOURCES, amount
from codesign.report.blocks import Section, gap, number, share
from codesign.report.collect import Record


def clock(record: Record) -> Section:
    section = Section("clock", "Clock and estimates", "half")
    synthesis = record.synthesis
    placed = (synthesis or {}).get("placed", {})
    if placed:
        rows, bad = [], []
        for row, (target, found) in enumerate(placed.items()):
            seeds = ", ".join(f"{mhz:.1f}" for mhz in found["seeds"].values())
            part = "-".join(filter(None, (found["device"], found["speed_grade"], found["package"])))
            rows.append([target, part, number(found["fmax_mhz"], 1), found["reason"] or seeds])
            if found["fmax_mhz"] is None:
                bad.append(row)
        section.table(["target", "part", "MHz, median", "MHz by seed"], rows, bad)
        section.caption(
            "Placed and routed alone in a wrapper of registers, whose cells are subtracted. Median over the seeds."
        )
    else:
        gap(section, record, "clock frequency", "synth")
    block_ram = (synthesis or {}).get("block_ram") or {}
    if block_ram:
        section.facts([(f"block RAM, {family}", found["summary"]) for family, found in block_ram.items()])
    for build in record.builds:
        section.facts(
            [
                (f"board {build['board']}", f"{build['bitstream']}, sha256 {build['bitstream_sha256'][:16]}"),
                ("clock of the board", f"{build['clock_mhz']:g} MHz; the design reaches {build['fmax_mhz']:.1f} MHz"),
            ]
        )
    if not record.builds:
        section.missing("bitstream", f"codesign build {record.name} --board ulx3s-25f")
    figures = record.figures
    rows = []
    for target, latency in (figures.get("latency_us") or {}).items():
        interval = (figures.get("interval_us") or {}).get(target)
        rows.append([target, number(latency, 1), number(interval, 1), number(1e6 / interval if interval else None)])
    if rows:
        section.table(["target", "latency, us", "interval, us", "samples per second"], rows)
        section.caption("Mean cycles of the verified samples over the median clock.")
    estimates(section, record)
    return section


def estimates(section: Section, record: Record) -> None:
    """What was estimated without simulation and synthesis, beside what was measured."""
    found = record.estimate
    if found is None:
        gap(section, record, "estimates", "estimate")
        return
    verified = record.verification or {}
    rows: list[tuple[str, Any, Any]] = [
        ("latency, cycles", found.get("latency_cycles"), verified.get("latency_cycles")),
        ("interval, cycles", found.get("interval_cycles"), verified.get("interval_cycles")),
    ]
    areas = (record.synthesis or {}).get("area", {})
    for family, cells in (found.get("area") or {}).items():
        if family in areas:
            rows += [
                (f"{family}, {name}", (cells or {}).get(kind), areas[family].get(kind))
                for kind, name in RESOURCES.items()
            ]
    section.heading("Estimates against measurements")
    section.table(
        ["figure", "estimated", "measured", "off by"],
        [
            [
                name,
                amount(estimated),
                amount(measured),
                share(estimated / measured - 1) if estimated is not None and measured else number(None),
            ]
            for name, estimated, measured in rows
            if estimated is not None
        ],
    )
    if verified.get("latency_cycles") is not None and found.get("latency_cycles") is not None:
        how = "as simulation has them" if (found.get("cycles") or {}).get("exact") else "estimated"
        count = (found.get("cycles") or {}).get("samples")
        chosen = f"{number(count)} validation samples" if count else "validation samples"
        section.caption(
            f"Cycles: {how} on {chosen}, measured on {record.of_test_samples(verified['samples'])}. Latency: from the "
            "first word of a sample alone to its decision; interval: between decisions of samples back to back."
        )


def told_clocks(told: Mapping[str, Any]) -> str:
    """Whether the clocks of what was simulated could be told before; of very many samples the first are compared."""
    is_equal = told["equal"] == told["compared"]
    count = f"All {told['compared']:,}" if is_equal else f"{told['equal']:,} of {told['compared']:,}"
    return (
        f"{count} runs of samples that were compared, alone or back to back, take the clocks that are told without "
        f"simulation{'' if is_equal else '; ' + told['first']}."
    )


def schedules(record: Record) -> Section | None:
    """What walking timestep by timestep and a sample at once costs each layer, where one can have either."""
    found = (record.estimate or {}).get("schedules") or []
    if not any(layer["timestep"] and layer["sample"] for layer in found):
        return None
    rows = [
        [
            name,
            schedule,
            "yes" if schedule == layer["schedule"] else "",
            number(cost["walks"], 0),
            number(cost["clocks"], 0),
            number(cost["memory_bits"]),
        ]
        for name, layer in zip(record.layer_names, found)
        for schedule in ("timestep", "sample")
        if (cost := layer[schedule]) is not None
    ]
    section = Section("schedules", "Schedules of time")
    section.table(["layer", "schedule", "in use", "synapses walked", "clocks", "memory of the engine, bits"], rows)
    section.caption(
        "Estimates for a mean calibration sample. Schedule timestep: a source's row is walked in every timestep in "
        "which it fires. Schedule sample: it is walked once for all timesteps. Clocks are those in which the layer "
        "accumulates and sweeps."
    )
    return section


def cycles(record: Record) -> Section:
    section = Section("cycles", "Clock cycles", "half")
    verification = record.verification
    if not verification or not verification.get("layers"):
        gap(section, record, "cycles", "verify")
        return section
    samples = verification["samples"]
    phases = [
        (
            name,
            {
                phase: layer[f"{phase}_clocks"] / samples
                for phase in ("accumulate", "sweep", "idle")
                if layer.get(f"{phase}_clocks") is not None
            },
        )
        for name, layer in zip(record.layer_names, verification["layers"], strict=False)
    ]
    section.figure(
        plots.cycle_bars(phases, verification.get("cycles_per_sample")),
        "clock cycles per sample of each layer by phase",
        "Mean over the samples simulated back to back; layers work at the same time, on successive timesteps. "
        "Red line: cycles from the first word to the last decision, over the samples; filling the layers is in it.",
    )
    section.facts(
        [
            ("latency of a sample alone, cycles", number(verification.get("latency_cycles"), 1)),
            ("interval of samples back to back, cycles", number(verification.get("interval_cycles"), 1)),
            ("cycles of all samples back to back, over the samples", number(verification.get("cycles_per_sample"), 1)),
        ]
    )
    told = verification.get("told_clocks")
    if told is not None:
        section.caption(told_clocks(told))
    return section
