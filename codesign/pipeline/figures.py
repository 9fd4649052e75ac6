"""Figures of a run, gathered from the records of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codesign.contract.network import FrozenNetwork


def network_figures(network: FrozenNetwork) -> dict[str, Any]:
    """Figures that the frozen network alone determines."""
    return {
        "density": network.density,
        "layer_density": network.layer_density,
        "synapses": network.n_synapses,
        "weight_bits": max(layer.weight_bits for layer in network.layers),
        "fraction_bits": [layer.fraction_bits for layer in network.layers],
        "timesteps": network.timesteps,
        "network_hash": network.hash,
    }


def merged_figures(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of the given stage records, in pipeline order, with what follows from several of them.

    ``latency_us`` and ``interval_us`` are mean cycles of the verified samples over the placed clock in MHz.
    """
    figures: dict[str, Any] = {}
    for record in records.values():
        figures.update({name: value for name, value in record.get("figures", {}).items() if value is not None})
    seconds = {name: record["seconds"] for name, record in records.items()}
    if seconds:
        figures["seconds"] = seconds
    clocks = figures.get("fmax_mhz")
    cycles = records.get("verify", {}).get("cycles", {})
    if clocks:
        for name in ("latency", "interval"):
            if cycles.get(name) is not None:
                figures[f"{name}_us"] = {target: cycles[name] / mhz for target, mhz in clocks.items() if mhz}
    return figures
