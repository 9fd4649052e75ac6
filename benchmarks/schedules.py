"""Both schedules of time on convolutions: `python -m benchmarks.schedules [--json] [-o FILE] [--simulate N]`.

A network of the shape of examples/mnist-conv.toml (24 channels 5x5 in steps of 2, 48 of 3x3, a pool, 64 of 3x3, 10
classes, 4 timesteps, grey levels as currents) with random weights at the example's density, thresholds for firing rates
of about 12 %, and the example's lanes, on images of MNIST; or a frozen network of one's own (`--run FOLDER`). For each
schedule, walking timestep by timestep, a sample at once, and what `hardware.schedule = "auto"` chooses for two goals:
synapses that are walked, clocks of a sample alone and back to back, and bits of all memories, by layer too.
`--simulate` verifies so many images in the Verilog, every spike and membrane, and gives their clocks beside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.files import write_json
from codesign.config import load_config
from codesign.contract import golden
from codesign.contract.network import (
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
)
from codesign.contract.stimulus import Stimulus
from codesign.cost.clocks import exact_cycles
from codesign.cost.estimate import activity, cycle_estimate, source_events
from codesign.cost.schedules import choose_schedules, schedule_costs
from codesign.data.encoders import encode
from codesign.data.loading import load_dataset
from codesign.machine.choices import Choices
from codesign.machine.goals import GOALS
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.plan import plan_machine
from codesign.records.names import CALIBRATION, NETWORK, STIMULUS

EXAMPLE = Path("examples/mnist-conv.toml")
DENSITY, RATE, SEED = 0.18, 0.125, 1
# What is chosen for, and within what of the fewest clocks it has to be.
SCHEDULES = {"timestep": None, "sample": None, **{f"auto, {goal}": GOALS[goal].within for goal in ("balanced", "fast")}}


def random_network(stimulus: Stimulus, seed: int = SEED) -> FrozenNetwork:
    """The example's shape; thresholds are set layer by layer, by samples of grey levels in 4 bits."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-31, 32, shape) * (rng.random(shape) < DENSITY)

    first = Convolution.from_dense(weights(24, 1, 5, 5), (1, 28, 28), 2, 2)
    second = Convolution.from_dense(weights(48, 24, 3, 3), first.out_shape, 1, 1)
    pool = SumPool(second.out_shape, 2)
    third = Convolution.from_dense(weights(64, 48, 3, 3), pool.out_shape, 1, 1)
    last = Synapses.from_dense(weights(third.n_out, 10))
    layers: list[FrozenLayer] = []

    def network() -> FrozenNetwork:
        return FrozenNetwork(tuple(layers), stimulus.timesteps, InputCoding("current", 4), "membrane_sum")

    for projection in (Projection(-1, first), Projection(0, second), Projection(1, third, pool), Projection(2, last)):
        integrates = FrozenLayer.from_projections(
            [projection], threshold=1, leak=Leak("shift", 2), reset="none", membrane_width=24, weight_bits=6
        )
        layers.append(integrates)
        if projection.source < 2:
            # Of what neurons reach that never fire a part is to be beyond the threshold.
            potentials = golden.run(network(), stimulus).membranes[-1]
            threshold = np.full(integrates.n_out, max(1, int(np.quantile(potentials, 1 - RATE))))
            layers[-1] = replace(integrates, threshold=threshold, reset="subtract", membrane_width=16)
    found = network()
    found.validate()
    return found


def load(run: Path | None) -> tuple[FrozenNetwork, Stimulus, Stimulus]:
    """The network, samples that choose and place, and samples that are counted."""
    if run is not None:
        return FrozenNetwork.load(run / NETWORK), Stimulus.load(run / CALIBRATION), Stimulus.load(run / STIMULUS)
    config = load_config(EXAMPLE)
    dataset, timesteps = load_dataset(config.data), config.network.timesteps
    calibration = encode(dataset, dataset.validation.take(slice(0, 100)), config.data, timesteps)[0]
    samples = encode(dataset, dataset.test.take(slice(0, 100)), config.data, timesteps)[0]
    return random_network(calibration), calibration, samples


def rows(network: FrozenNetwork, calibration: Stimulus, samples: Stimulus, lanes: Sequence[int], simulate: int) -> Any:
    """Figures of each schedule."""
    events = source_events(network, calibration)
    for name, within in SCHEDULES.items():
        schedule: Any = name.split(",")[0]
        choices = choose_schedules(network, lanes, Choices(schedule=schedule), within, calibration)
        mapping = map_network(network, lanes, events, choices)
        plan = plan_machine(network, mapping)
        part = activity(network, mapping, samples)
        cycles = exact_cycles(plan, samples) or cycle_estimate(plan, part)
        found: dict[str, Any] = {
            "schedule": name,
            "layers": [layer.schedule for layer in mapping.layers],
            "lanes": mapping.lanes,
            "synapses_walked": float(sum(layer.operations.sum() for layer in part) / len(samples)),
            "latency_cycles": cycles["latency_cycles"],
            "interval_cycles": cycles["interval_cycles"],
            "memory_bits": plan.memory_bits,
            "all_bits": sum(plan.memory_bits.values()),
        }
        if simulate:
            found["simulated"] = simulated(network, mapping, samples.take(slice(0, simulate)))
        yield found


def simulated(network: FrozenNetwork, mapping: HardwareMap, samples: Stimulus) -> dict[str, Any]:
    """Clocks of some samples in the Verilog, whose every value is checked."""
    from rtl_templates.bundle import write_bundle
    from sim.verify import verify_bundle

    with tempfile.TemporaryDirectory() as work:
        write_bundle(network, mapping, Path(work) / "bundle", name="snn")
        found = verify_bundle(
            Path(work) / "bundle", network, samples, Path(work) / "verify", stress_samples=1, workers=1
        )
    if not found.passed:
        raise SystemExit(f"hardware differs from software: {found.first_divergence}")
    return {
        "samples": found.samples,
        "mismatches": found.mismatches,
        "latency_cycles": found.latency_cycles,
        "interval_cycles": found.interval_cycles,
        "synapses_walked": sum(layer["synapse_walks"] for layer in found.layers) / found.samples,
        "lane_use": found.lane_use,
    }


def clocks(count: float | None) -> str:
    """A single sample has no clocks between decisions."""
    return "unknown" if count is None else f"{count:,.0f}"


def line(row: dict[str, Any]) -> str:
    text = (
        f"{row['schedule']:14} {' '.join(row['layers'])}: {row['synapses_walked']:,.0f} synapses walked, "
        f"{clocks(row['latency_cycles'])} clocks alone, {clocks(row['interval_cycles'])} back to back, "
        f"{row['all_bits']:,} bits of memory"
    )
    found = row.get("simulated")
    if found:
        text += (
            f"; simulated {found['samples']}, {found['mismatches']} mismatches: "
            f"{clocks(found['latency_cycles'])} alone, "
            f"{clocks(found['interval_cycles'])} back to back"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedules", description="both schedules of time")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("-o", "--output", type=Path, help="file for the figures")
    parser.add_argument("--run", type=Path, help="folder of a run whose frozen network is taken")
    parser.add_argument("--lanes", type=int, nargs="+", default=[2, 8, 16, 1])
    parser.add_argument("--simulate", type=int, default=0, help="images that are verified in the Verilog; default none")
    options = parser.parse_args()
    network, calibration, samples = load(options.run)
    layers = schedule_costs(network, map_network(network, options.lanes), calibration)
    found = []
    for row in rows(network, calibration, samples, options.lanes, options.simulate):
        found.append(row)
        if not options.json:
            print(line(row), flush=True)
    document = {"network_hash": network.hash, "rows": found, "layers": layers}
    if options.output is not None:
        write_json(options.output, document)
    if options.json:
        print(json.dumps(document))
        return
    for index, layer in enumerate(layers):
        for name in ("timestep", "sample"):
            cost = layer[name]
            if cost is not None:
                print(
                    f"layer {index}, {name:8}: {cost['walks']:9,.0f} walked, {cost['clocks']:8,.0f} clocks, "
                    f"{cost['memory_bits']:9,} bits"
                )


if __name__ == "__main__":
    main()
