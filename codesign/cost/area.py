"""Area of a planned machine in a family's native resources, by component, and what of it fits a device.

Memories and multipliers are computed by the tools' rules (:mod:`codesign.cost.memories`,
:mod:`codesign.cost.multipliers`); look-up tables and flip-flops come from the plan's components and fitted coefficients
(:mod:`codesign.cost.area_model`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from codesign.cost.area_model import AreaModel, ff_terms, lut_terms
from codesign.cost.coefficients import MODELS
from codesign.cost.components import Component, components
from codesign.cost.memories import Built, built
from codesign.machine.plan import MachinePlan, Memory

# Native resources of a device by kind, as messages call them.
RESOURCES: dict[str, str] = {
    "lut": "logic cells",
    "ff": "flip-flops",
    "bram": "block RAMs",
    "dsp": "DSP blocks",
    "spram": "single-port RAMs",
}
# Parts of the density for which the estimate says what memories would take.
DENSITY_FACTORS = (0.9, 0.75, 0.5, 0.35, 0.25, 0.1)


class HasBudget(Protocol):
    """A device: its family, and the resources that it has by kind."""

    @property
    def family(self) -> Any: ...

    @property
    def budget(self) -> Mapping[str, int]: ...


def block_ram(found: Sequence[Memory], family: str) -> float:
    """Native blocks of all memories that get them; halves for Xilinx."""
    return sum((built(memory, family).blocks for memory in found), 0.0)


def with_weight_bits(memory: Memory, bits: int) -> Memory:
    """The memory with weights of at most so many bits, which is what it needs of a network quantised to them."""
    saved = sum(max(0, field.width - bits) for field in memory.record if field.name.startswith("weight"))
    return replace(memory, width=memory.width - saved)


def with_density(memory: Memory, factor: float) -> Memory:
    """The memory with that part of its synapses, where it holds any."""
    if memory.role != "synapses":
        return memory
    return replace(memory, depth=max(1, math.ceil(memory.depth * factor)))


def block_ram_of_others(plan: MachinePlan, family: str) -> dict[str, dict[str, float]]:
    """Block RAMs of the same machine for networks with fewer weight bits, and of a part of the density.

    ``{"bits": {"5": 200.0, ...}, "density": {"0.5": 180.0, ...}}``; all but the synapses stays as it is.
    """
    most = max(layer.weight_bits for layer in plan.network.layers)
    return {
        "bits": {
            str(bits): block_ram([with_weight_bits(memory, bits) for memory in plan.memories], family)
            for bits in range(most - 1, 1, -1)
        },
        "density": {
            f"{factor:g}": block_ram([with_density(memory, factor) for memory in plan.memories], family)
            for factor in DENSITY_FACTORS
        },
    }


def no_such_machine(plan: MachinePlan, family: str) -> str | None:
    """Why the tools of a family do not build this machine, in a line; None if they do."""
    if plan.choices.starts_empty and family != "ice40":
        return "only the iCE40 UP5K has single-port RAM"
    if plan.choices.state_memory == "distributed" and family == "ice40":
        return "iCE40 has no distributed RAM"
    return None


def _of_memories(memories: Sequence[Built]) -> dict[str, float]:
    return {
        "bram": sum((memory.blocks for memory in memories), 0.0),
        "spram": sum(memory.cells for memory in memories if memory.kind == "spram"),
    }


def figures(parts: Sequence[Component], model: AreaModel) -> dict[str, float]:
    """lut, ff, bram, spram and dsp of components."""
    return {
        "lut": sum(model.lut.of(lut_terms(part)) for part in parts),
        "ff": sum(model.ff.of(ff_terms(part)) for part in parts),
        **_of_memories([memory for part in parts for memory in part.memories]),
        "dsp": sum(part.dsps for part in parts),
    }


def machine_area(plan: MachinePlan, family: str) -> dict[str, Any]:
    """Area of a machine, whole numbers of the family's native resources (blocks in halves for Xilinx).

    ``lut``, ``ff``, ``bram``, ``spram``, ``dsp``; ``error`` : ``{figure: {low, high}}``, by how much of the truth lut
    and ff may be too little and too much (:class:`codesign.cost.area_model.Figure`); ``parts`` : the same figures by
    component, ``[{"component", "layer", ...}]``, whose sums they are; ``bram_by_bits`` and ``bram_by_density`` : see
    :func:`block_ram_of_others`; ``reason`` : why figures are missing, all of them, if the family builds no such
    machine.
    """
    reason, model = no_such_machine(plan, family), MODELS[family]
    others = {f"bram_by_{what}": blocks for what, blocks in block_ram_of_others(plan, family).items()}
    unknown = {**dict.fromkeys(RESOURCES), **others, "error": None, "parts": []}
    if reason is not None:
        return {**unknown, "reason": reason}
    found = components(plan, family)
    total = figures(found, model)
    return {
        **{kind: round(value) if kind != "bram" else value for kind, value in total.items()},
        **others,
        "error": {
            kind: {"low": figure.low, "high": figure.high} for kind, figure in (("lut", model.lut), ("ff", model.ff))
        },
        "parts": [
            {
                "component": part.name or "top",
                "layer": part.layer,
                **{kind: round(value, 1) for kind, value in figures([part], model).items()},
            }
            for part in found
        ],
        "reason": None,
    }


def compared(area: Mapping[str, Any], device: HasBudget) -> dict[str, tuple[float | None, int]]:
    """By kind, what a machine takes of its family's resources (None if that is not known), and what the device has.

    Left out is what it neither takes nor the device has. So are the flip-flops of iCE40: a logic cell holds a LUT and a
    flip-flop, and cells are what is counted.
    """
    kinds = [kind for kind in RESOURCES if not (device.family == "ice40" and kind == "ff")]
    found = {kind: (area[kind], device.budget.get(kind, 0)) for kind in kinds}
    return {kind: (used, there) for kind, (used, there) in found.items() if there or used != 0}


def fits(result: Mapping[str, Any], name: str, device: HasBudget) -> list[str]:
    """Why an estimated accelerator does not fit a device called ``name``: one line each, none if it does."""
    area = result["area"][device.family]
    if area["reason"] is not None:
        return [f"{name}: {area['reason']}"]
    cures = {
        "lut": "use fewer lanes",
        "ff": "use fewer lanes",
        "bram": _memory_cure(area, device.budget["bram"]),
        "dsp": "use fewer lanes in the first layer",
        "spram": "use fewer lanes",
    }
    return [
        f"{name}: about {used:g} of {there} {RESOURCES[kind]} "
        f"({used - there:g} too many{f', {used / there:.0%}' if there else ''}); {cures[kind]}"
        for kind, (used, there) in compared(area, device).items()
        if used is not None and used > there
    ]


def _memory_cure(area: Mapping[str, Any], available: int) -> str:
    """What would fit the block RAMs: the most bits or density alone, else what both leave."""
    bits = next((bits for bits, blocks in area["bram_by_bits"].items() if blocks <= available), None)
    part = next((part for part, blocks in area["bram_by_density"].items() if blocks <= available), None)
    found = [f"weights of {bits} bits"] if bits else []
    found += [f"{float(part):.0%} of its density"] if part else []
    if found:
        return f"with {' or '.join(found)} it would fit; fewer neurons, lanes or compact synapses help too"
    least = min([*area["bram_by_bits"].values(), *area["bram_by_density"].values()])
    return (
        f"neither fewer weight bits nor a tenth of the density alone would do (at least {least:g}); use fewer "
        "neurons or lanes as well"
    )
