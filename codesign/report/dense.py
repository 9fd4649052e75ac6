"""What sparsity saves: this network beside the same network with every connection, both by the same estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from codesign.report.areas import RESOURCES, amount
from codesign.report.blocks import Section, gap, number
from codesign.report.collect import Record


def dense(record: Record) -> Section | None:
    """Synapses, memory, operations, clocks, logic and energy of both. None without a network."""
    if record.network is None:
        return None
    section = Section("dense", "Compared with dense")
    sparse, network = record.estimate, record.network
    if sparse is None or sparse.get("dense") is None:
        gap(section, record, "comparison with the dense network", "estimate")
        return section
    other = sparse["dense"]
    machine = other["estimate"]
    bits = sum(layer.n_synapses * layer.weight_bits for layer in network.layers)
    rows = [
        ("synapses", network.n_synapses, other["synapses"]),
        ("bits of the weights only", bits, other["weight_memory_bits"]),
    ]
    if machine is not None:
        rows += [(name, figure(sparse), figure(machine)) for name, figure in _figures(sparse)]
    section.table(
        ["figure", "this network", "dense", "dense / this"],
        [
            [name, amount(_whole(mine)), amount(_whole(its)), number(its / mine if mine and its else None, 1, " x")]
            for name, mine, its in rows
            if mine is not None or its is not None
        ],
    )
    if machine is None:
        section.missing("the dense network's machine", state=f"not estimated: {other['reason']}")
    section.caption(
        f"{other['assumed']} All but synapses and weights is estimated, for both alike; the dense network's clocks are "
        "near ones. Nothing is trained or simulated for the dense network. This machine stores the target beside every "
        "weight, and row tables; a machine made for dense networks needs neither."
    )
    return section


def _figures(sparse: Mapping[str, Any]) -> list[tuple[str, Callable[[Mapping[str, Any]], float | None]]]:
    """Figures of an estimate by name, each with what reads it."""

    def of_cycles(key: str) -> Callable[[Mapping[str, Any]], float | None]:
        def read(found: Mapping[str, Any]) -> float | None:
            value = (found.get("cycles") or {}).get(key)
            return sum(value) if isinstance(value, list) else value

        return read

    def of_area(family: str, kind: str) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda found: found["area"][family][kind] if family in found["area"] else None

    rows: list[tuple[str, Callable[[Mapping[str, Any]], float | None]]] = [
        ("memory, bits", lambda found: sum(found["memory_bits"].values())),
        (
            "of which row tables and synapses",
            lambda found: sum(found["memory_bits"].get(k, 0) for k in ("rows", "synapses")),
        ),
        ("synaptic operations per sample", of_cycles("synaptic_operations")),
        ("latency, clocks", of_cycles("latency_cycles")),
        ("interval, clocks", of_cycles("interval_cycles")),
    ]
    for family, cells in sparse["area"].items():
        rows += [
            (f"{family}, {RESOURCES[kind]}", of_area(family, kind))
            for kind in ("lut", "bram")
            if cells[kind] is not None
        ]
    rows.append(("energy per sample, nJ", lambda found: (found.get("energy") or {}).get("sample_pj", 0) / 1000 or None))
    return rows


def _whole(value: float | None) -> float | None:
    """A figure as it is shown: with one decimal where it is small."""
    return value if value is None or value < 100 else round(value)
