"""The first and the last card: what the stages warned of, and how to make the run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codesign.report.blocks import Section, number
from codesign.report.collect import Record


def warned(record: Record) -> Section | None:
    """What the stages warned of; no card where there is nothing."""
    if not record.run.warnings:
        return None
    section = Section("warnings", "Warnings")
    for stage, text in record.run.warnings:
        section.alert("open", f"{stage}:", text)
    return section


def reproduce(record: Record) -> Section:
    section = Section("reproduce", "Reproduce")
    manifest = record.run.manifest
    section.code(f"codesign run config.toml -o {record.name}-again")
    section.caption("config.toml lies in the run directory, with every default spelled out.")
    facts: list[tuple[str, object]] = []
    if record.network is not None:
        facts.append(("network hash", record.network.hash))
    if isinstance(manifest.get("seeds"), dict):
        facts.append(("seeds", ", ".join(f"{name} {value}" for name, value in manifest["seeds"].items())))
    stages = manifest["stages"]
    facts += _versions(manifest.get("versions", {}), stages)
    section.facts(facts)
    if stages:
        rows, bad = [], []
        # The report's own stage ends after this page is written: what could be said of it here is not so yet.
        for row, (name, stage) in enumerate((name, stage) for name, stage in stages.items() if name != "report"):
            rows.append([name, stage.get("status", "unknown"), number(stage.get("seconds"), 1)])
            if stage.get("status") == "failed":
                bad.append(row)
        section.table(["stage", "status", "seconds"], rows, bad)
    for line in record.damaged:
        section.alert("bad", "Left out.", line)
    return section


def _versions(of_run: Mapping[str, str], stages: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, object]]:
    """Versions of codesign and the tools, by the stages that they made; of an earlier version those of the run."""
    groups: dict[str, list[str]] = {}
    for name, stage in stages.items():
        found = stage.get("versions") if name != "report" else None
        if found:
            groups.setdefault(", ".join(f"{tool} {value}" for tool, value in found.items()), []).append(name)
    if not groups and of_run:
        groups[", ".join(f"{tool} {value}" for tool, value in of_run.items())] = []
    alone = len(groups) == 1
    return [("versions" if alone else f"versions of {', '.join(names)}", text) for text, names in groups.items()]
