"""Energy of a sample, estimated from counted operations and published energies of single ones.

The energies are those of M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, for 45 nm
at 0.9 V: an integer addition of 8 bits takes 0.03 pJ, of 32 bits 0.1 pJ, a multiplication of 8 by 8 bits 0.2 pJ, and a
read of 64 bits of an 8 kB memory 10 pJ. Additions are taken in proportion to their bits (0.1 pJ / 32), products to the
product of theirs (0.2 pJ / 64), memories to the bits that pass (10 pJ / 64), writes like reads.

These are an ASIC's arithmetic and memories. Registers, wiring, clock, input and output, leakage and what an FPGA's
fabric takes above an ASIC are not counted, nor are FIFOs and queues, the input guard's memory, and of a leak that
multiplies more than an addition: the figure compares machines, and predicts no supply current. Samples are taken as
whole, whether the machine may end them early or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codesign.machine.plan import MachinePlan

SOURCE = "Horowitz, ISSCC 2014, 45 nm, 0.9 V"
NOT_COUNTED = (
    "registers, wiring, clock, input and output, FIFOs and queues, the input guard's memory, multiplications of leaks, "
    "early exit, leakage, an FPGA's overhead"
)
ADDED_BIT_PJ = 0.1 / 32
MULTIPLIED_BIT_PJ = 0.2 / 64
MEMORY_BIT_PJ = 10.0 / 64


def energy_estimate(
    plan: MachinePlan, events: Sequence[float], operations: Sequence[float], collected: Sequence[float]
) -> dict[str, Any]:
    """Energy of a mean sample.

    events, operations : of each layer, events whose rows it looks up, and synapse words that its lanes walk, per
        sample. collected : events that come, of which a layer that walks a sample at once looks up fewer.

    Returns ``sample_pj``, ``by_layer`` (pJ of rows, with masks that are collected, of synapses and of sweeps of each
    layer), ``source`` and ``not_counted``.
    """
    layers = [
        _layer(plan, index, *of_layer) for index, of_layer in enumerate(zip(events, operations, collected, strict=True))
    ]
    return {
        "sample_pj": float(sum(sum(layer.values()) for layer in layers)),
        "by_layer": layers,
        "source": SOURCE,
        "not_counted": NOT_COUNTED,
    }


def _layer(plan: MachinePlan, index: int, events: float, operations: float, collected: float) -> dict[str, float]:
    engine = next(engine for engine in plan.engines if any(layer.index == index for layer in engine.layers))
    layer, widths, placement = plan.mapping.layers[index], engine.widths, engine.placement
    weight = next(field.width for field in placement.given_record if field.name.startswith("weight"))
    word = placement.synapse_record.width // (placement.lanes if layer.lockstep else 1)
    # A row word of each table; a synapse's word, its product, and the word that it is added to, read and written.
    rows = events * placement.fetchers * placement.row_record.width * MEMORY_BIT_PJ
    collectors = [collector for collector in engine.collectors if collector]
    # Each event reads and writes the word of its mask; each word is read and cleared once a sample.
    for collector in collectors:
        words = collected / len(collectors) + engine.streams * collector.depth
        rows += 2 * words * collector.width * MEMORY_BIT_PJ
    synapse = (word + 2 * widths.accumulator) * MEMORY_BIT_PJ + widths.accumulator * ADDED_BIT_PJ
    synapse += 0 if engine.collects else weight * widths.value * MULTIPLIED_BIT_PJ
    # A sweep reads and writes a slot's words, sums of every stream among them, and reads its parameters; comparison,
    # leak and bias are an addition each. Sums that serve all timesteps are cleared in the last one alone.
    sums = engine.streams * widths.accumulator
    slot = sums + 2 * widths.swept + placement.parameter_record.width
    sweep = slot * MEMORY_BIT_PJ + 3 * widths.potential * ADDED_BIT_PJ
    timesteps = plan.network.timesteps
    cleared = (1 if layer.schedule == "sample" else timesteps) * sums * MEMORY_BIT_PJ
    sweeps = layer.lanes * layer.n_slots * (timesteps * sweep + cleared)
    return {"rows": rows, "synapses": operations * synapse, "sweeps": sweeps}
