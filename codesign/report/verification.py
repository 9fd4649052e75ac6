"""The card of the verification: what was compared in which phase, and which mutants were caught."""

from __future__ import annotations

from codesign.report.blocks import Section, gap, number
from codesign.report.collect import Record

COMPARED = ("spikes", "membranes", "output_spikes", "values", "decisions")


def verification(record: Record) -> Section:
    section = Section("verification", "Verification")
    found = record.verification
    if found is None:
        gap(section, record, "hardware against software", "verify")
        return section
    section.text(f"Simulated: {record.of_test_samples(found['samples'])}.")
    first = found.get("first_divergence")
    if first:
        place = ", ".join(
            f"{name} {first[name]}"
            for name in ("phase", "sample", "timestep", "layer", "neuron")
            if first.get(name) not in (None, "")
        )
        section.alert(
            "bad",
            f"First divergence: {place}.",
            f"{first.get('what')}: expected {first.get('expected')}, got {first.get('got')}.",
        )
    decoder = found.get("decoder") or {}
    if decoder and not decoder.get("equal"):
        section.alert("bad", "The memory images do not hold the frozen network.", str(decoder.get("first")))
    rows, bad = [], []
    for row, (name, phase) in enumerate(found.get("phases", {}).items()):
        compared = phase.get("comparisons", {})
        rows.append(
            [
                name.replace("_", " "),
                number(phase.get("samples")),
                *(number(compared.get(kind)) for kind in COMPARED),
                number(sum(value for kind, value in compared.items() if kind not in COMPARED)),
                number(phase.get("mismatches")),
            ]
        )
        if phase.get("mismatches"):
            bad.append(row)
    section.table(["phase", "samples", *(kind.replace("_", " ") for kind in COMPARED), "others", "differ"], rows, bad)
    section.caption(
        f"{sum(found.get('comparisons', {}).values()):,} values compared exactly, in "
        f"{number(found.get('simulated_cycles'))} simulated clocks. The delivered Verilog is simulated as it is; "
        "expected values come from the frozen network and the samples through the golden model."
    )
    facts: list[tuple[str, object]] = [
        ("network hash", found.get("network_hash", "")),
        ("hash of the simulated files", found.get("files_hash", "")),
    ]
    if decoder.get("compared"):
        facts.append(
            ("values read back from the images", f"{decoder['compared']:,}, {decoder['differences']:,} differ")
        )
    if found.get("saturations") is not None and not found.get("mismatches"):
        facts.append(("membranes saturated", f"{found['saturations']:,} times, in hardware and software alike"))
    section.facts(facts)
    mutants(section, record)
    return section


def mutants(section: Section, record: Record) -> None:
    """Whether the testbench catches faults that were put in on purpose."""
    section.heading("Mutants")
    if record.mutants is None:
        section.missing("faults injected on purpose", f"codesign verify {record.name} --mutants")
        return
    entries = record.mutants.get("mutants", [])
    kinds = list(dict.fromkeys(entry.get("kind") for entry in entries))
    rows = [
        [kind, number(len(chosen)), number(sum(bool(entry.get("caught")) for entry in chosen))]
        for kind in kinds
        if (chosen := [entry for entry in entries if entry.get("kind") == kind])
    ]
    section.table(["faults in", "injected", "caught"], rows, [i for i, row in enumerate(rows) if row[1] != row[2]])
    control = record.mutants.get("control") or {}
    passes = not control.get("caught") and control.get("error") is None
    section.caption(f"The unmutated control {'passes' if passes else 'does NOT pass'}. Details: verify/mutants.json.")
