"""The report's card of areas: what was built and placed, what yosys counts, and where the estimate puts it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from codesign.report import plots
from codesign.report.blocks import Section, gap, number
from codesign.report.collect import Record

RESOURCES = {"lut": "logic", "ff": "registers", "bram": "memory blocks", "dsp": "multipliers"}


def area(record: Record) -> Section:
    """Use of each device that has a measured family, against its budget."""
    section = Section("area", "Area", "half")
    synthesis = record.synthesis
    use = [
        (f"{build['board']}: {build['device']}, link included", _against(build["used"], build["budget"]))
        for build in record.builds
    ]
    if synthesis is None:
        gap(section, record, "area", "synth")
        estimated(section, record)
    else:
        from boards.registry import TARGETS

        for target, device in TARGETS.items():
            used = synthesis["placed"].get(target) or synthesis["area"].get(device.family)
            if used is not None:
                use.append((f"{device.name}, accelerator alone", _against(used, device.budget)))
    if use:
        section.figure(plots.area_bars(use), "resources used, as a share of each device")
    if synthesis is not None and synthesis["area"]:
        rows = [
            [family, *(amount(cells[kind]) for kind in RESOURCES), amount(cells["lut_cells"])]
            for family, cells in synthesis["area"].items()
        ]
        section.table(["family", *RESOURCES.values(), "raw LUT cells"], rows)
        section.caption(
            "Logic in what each family fills its fabric with: TRELLIS_COMB (ecp5), logic cells (ice40), LUT1-6 "
            "(xilinx), LUT and ALU (gowin). Raw LUT cells are not comparable between families."
        )
    return section


def estimated(section: Section, record: Record) -> None:
    """What the estimate says of each family that can build the machine, in place of what synthesis has not counted."""
    found = (record.estimate or {}).get("area", {})
    rows = [
        [family, *(amount(cells[kind]) for kind in RESOURCES)]
        for family, cells in found.items()
        if cells["lut"] is not None
    ]
    if rows:
        section.table(["family", *RESOURCES.values()], rows)
        section.caption("Estimated, without synthesis.")


def parts(record: Record) -> Section | None:
    """Where the estimate puts the logic, by layer and component, in the first family that builds the machine.

    None without an estimate of that.
    """
    estimate = record.estimate or {"area": {}}
    family, area = next(((name, area) for name, area in estimate["area"].items() if area["parts"]), (None, None))
    if family is None or area is None:
        return None
    found: dict[tuple[str, str], dict[str, float]] = {}
    for part in area["parts"]:
        index = part["layer"]
        named = index is not None and index < len(record.layer_names)
        layer = "around" if index is None else record.layer_names[index] if named else f"layer {index}"
        name = re.sub(r"engine\d+\.?|\d+$", "", part["component"]) or "control"
        amounts = found.setdefault((layer, name), dict.fromkeys(RESOURCES, 0.0))
        for kind in RESOURCES:
            amounts[kind] += part[kind]
    section = Section("parts", f"Estimated area by component ({family})")
    kinds = [kind for kind in RESOURCES if any(amounts[kind] for amounts in found.values())]
    section.table(
        ["component", *(RESOURCES[kind] for kind in kinds)],
        [
            [f"{layer}: {name}", *(amount(round(amounts[kind], 1)) for kind in kinds)]
            for (layer, name), amounts in found.items()
        ],
    )
    if any(value < 0 for amounts in found.values() for value in amounts.values()):
        section.caption(
            "A part below zero: the tools save more around it than it takes. Only sums are meant to be true."
        )
    energy = estimate.get("energy")
    if energy is not None:
        section.caption(
            f"Energy of a sample, estimated: {number(energy['sample_pj'] / 1000, 1, ' nJ')} of memories and arithmetic "
            f"({energy['source']}). Not counted: {energy['not_counted']}."
        )
    return section


def _against(used: Mapping[str, float], budget: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Resources that are counted, with their budget; those that the device lacks and nobody uses are left out."""
    return [
        (name, used[kind], budget[kind])
        for kind, name in RESOURCES.items()
        if kind in used and kind in budget and (used[kind] or budget[kind])
    ]


def amount(value: float | None) -> str:
    return number(value, 0 if value is None or value == int(value) else 1)
