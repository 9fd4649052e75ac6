"""Lane use of the accelerator by placement and mask: `python -m benchmarks.lanes [--json] [-o FOLDER]`.

Trains MNIST 784-128-10 at 10 % density in the first layer with free masks and with masks in lane balance, and spoken
digits with a free one; freezes, generates and simulates the delivered Verilog on test samples, every value checked.
Runs that are there already (`-o`) are not trained again. Placements: `round-robin`, `mean-rate` (neurons by descending
mean load to the least loaded lane) and `calibrated`, the compiler's.

`lane_use` is synaptic operations / (lanes x events a clock x clocks in which lanes accumulate), `bound` the same over
the clocks that the fullest lane of each accumulation takes at least, and `input_bound` with as many clocks at least
as events take to come, one a clock or `--event-streams`. `clocks` and `formula` are per sample: decision to decision,
and the fullest lane's synapses of each accumulation plus the sweeps, of the slowest layer.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.files import write_json
from codesign.config import Config, load_config
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import activity, layer_events, source_events, source_rates
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context
from codesign.records.names import CALIBRATION, NETWORK, STIMULUS
from codesign.records.rundir import RunDirectory

LANES = (4, 8, 16)
READOUT_LANES = 5
BALANCED = (8, 16)
PLACEMENTS = ("round-robin", "mean-rate", "calibrated")
EXAMPLES = Path("examples")


def configuration(
    name: str, seed: int, epochs: int | None, balance: int | None, density: float | None = None
) -> Config:
    """The example's configuration with fewer epochs, another seed or density, and masks in balance or not."""
    changes = [f"train.seed={seed}"]
    if epochs is not None:
        changes += [f"train.epochs={epochs}", "freeze.epochs=2"]
    if balance is not None:
        changes.append(f"train.rewiring.lane_balance={balance}")
    if density is not None:
        changes += [f"train.rewiring.target_density={density}", f"train.rewiring.start_density={max(0.3, density)}"]
    return load_config(EXAMPLES / f"{name}.toml", changes)


def frozen(folder: Path, config: Config) -> dict[str, Any]:
    """Figures of the run below ``folder``, trained and frozen if it is not yet."""
    run = RunDirectory.create(folder)
    with run.locked():
        return run_stages(Context(run, config), ("train", "freeze"))


def greedy(network: FrozenNetwork, lanes: int, rates: np.ndarray) -> np.ndarray:
    """int64 (n_out,): first layer's neurons by descending mean load to the least loaded lane with a free slot."""
    layer = network.layers[0]
    load = np.bincount(layer.targets, weights=rates[layer.sources], minlength=layer.n_out)
    total, used = np.zeros(lanes), np.zeros(lanes, np.int64)
    lane = np.zeros(layer.n_out, np.int64)
    for neuron in np.argsort(-load, kind="stable"):
        free = np.flatnonzero(used < -(-layer.n_out // lanes))
        lane[neuron] = chosen = free[np.argmin(total[free])]
        total[chosen] += load[neuron]
        used[chosen] += 1
    return lane


def measured(
    network: FrozenNetwork,
    calibration: Stimulus,
    stimulus: Stimulus,
    lanes: int,
    placement: str,
    choices: Choices,
) -> dict[str, Any]:
    """Figures of one placement, the Verilog simulated on every sample of ``stimulus``."""
    from rtl_templates.bundle import write_bundle
    from sim.verify import verify_bundle

    n_out = network.layers[0].n_out
    placed = {
        "round-robin": {0: np.arange(n_out) % lanes},
        "mean-rate": {0: greedy(network, lanes, source_rates(network, calibration)[0])},
        "calibrated": None,
    }[placement]
    mapping = map_network(network, [lanes, READOUT_LANES], source_events(network, calibration), choices, placed=placed)
    with tempfile.TemporaryDirectory() as work:
        write_bundle(network, mapping, Path(work) / "bundle", name="snn")
        found = verify_bundle(
            Path(work) / "bundle", network, stimulus, Path(work) / "verify", stress_samples=1, workers=1,
            latency=False, optimise="-O0",
        )  # fmt: skip
    if not found.passed:
        raise SystemExit(f"{lanes} lanes, {placement}: hardware differs from software: {found.first_divergence}")
    part = activity(network, mapping, stimulus)
    peaks = [layer.loads.max(axis=2) for layer in part]
    sent = layer_events(network, stimulus)[0].sum(axis=2)
    operations, walkers = part[0].loads.sum(), lanes * choices.event_streams
    formulas = [
        float(peak.sum(axis=1).mean()) + layer.n_slots * network.timesteps
        for peak, layer in zip(peaks, mapping.layers, strict=True)
    ]
    return {
        "lanes": lanes,
        "placement": placement,
        "queue_depth": choices.queue_depth,
        "pipeline": choices.pipeline,
        "event_streams": choices.event_streams,
        "samples": found.samples,
        "lane_use": found.lane_use[0],
        "bound": float(operations / (walkers * peaks[0].sum())),
        "input_bound": float(operations / (walkers * np.maximum(peaks[0], part[0].events.max(axis=2)).sum())),
        "balance": mapping.layers[0].balance,
        "padding_slots": mapping.layers[0].padding_slots,
        "accumulate_clocks": found.layers[0]["accumulate_clocks"] / found.samples,
        "clocks": found.interval_cycles,
        "formula": max(formulas),
        "events_per_accumulation": float(sent.mean()),
        "operations_per_event": float(operations / sent.sum()),
    }


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Accuracy of every network, and measurements of the first seed's."""
    masks = [("free", None), *((f"balanced {lanes}", lanes) for lanes in BALANCED)]
    for seed in range(options.seeds if "mnist" in options.sets else 0):
        for mask, balance in masks:
            level = "" if options.density is None else f"-d{options.density:g}"
            folder = options.output / f"mnist-{mask.replace(' ', '')}{level}-s{seed}"
            figures = frozen(folder, configuration("mnist", seed, options.epochs, balance, options.density))
            kept = ("accuracy_float", "accuracy_frozen", "density", "layer_density", "synapses")
            yield {"set": "mnist", "mask": mask, "seed": seed, **{key: figures[key] for key in kept}}
            if seed == 0:
                for entry in placements(folder, options, PLACEMENTS if balance is None else PLACEMENTS[-1:]):
                    if balance is None or entry["lanes"] <= balance:
                        yield {"set": "mnist", "mask": mask, **entry}
    if "fsdd-spikes" not in options.sets:
        return
    folder = options.output / "fsdd-spikes"
    frozen(folder, configuration("fsdd", 0, None if options.epochs is None else 10, None))
    for entry in placements(folder, options, PLACEMENTS[-1:]):
        yield {"set": "fsdd-spikes", "mask": "free", **entry}


def placements(folder: Path, options: argparse.Namespace, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    network = FrozenNetwork.load(folder / NETWORK)
    calibration = Stimulus.load(folder / CALIBRATION)
    stimulus = Stimulus.load(folder / STIMULUS).take(slice(0, options.samples))
    choices = Choices(
        queue_depth=options.queue_depth,
        pipeline=options.pipeline,
        event_streams=options.event_streams,
        input_words=options.event_streams,
    )
    for lanes in options.lanes:
        for name in names:
            yield measured(network, calibration, stimulus, lanes, name, choices)


def line(row: dict[str, Any]) -> str:
    if "lanes" not in row:
        return (
            f"{row['set']:12} {row['mask']:12} seed {row['seed']}: accuracy {row['accuracy_float']:.4f} float, "
            f"{row['accuracy_frozen']:.4f} frozen, first layer {row['layer_density'][0]:.1%}, "
            f"{row['synapses']:,} synapses"
        )
    return (
        f"{row['set']:12} {row['mask']:12} {row['lanes']:2} lanes, {row['placement']:11}: "
        f"lane use {row['lane_use']:.3f}, "
        f"bound {row['bound']:.3f}, by the port {row['input_bound']:.3f}, {row['clocks']:8.1f} clocks a sample, "
        f"formula {row['formula']:8.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lanes", description="lane use by placement and mask")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/lanes"), help="folder of the trained networks")
    parser.add_argument("--sets", nargs="+", choices=("mnist", "fsdd-spikes"), default=["mnist", "fsdd-spikes"])
    parser.add_argument("--epochs", type=int, default=12, help="epochs of training; default 12")
    parser.add_argument("--seeds", type=int, default=3, help="seeds whose accuracy is compared; default 3")
    parser.add_argument("--density", type=float, help="target density of MNIST's networks; default the example's")
    parser.add_argument("--samples", type=int, default=100, help="test samples simulated; default 100")
    parser.add_argument("--lanes", type=int, nargs="+", default=list(LANES))
    parser.add_argument("--queue-depth", type=int, default=8)
    parser.add_argument("--event-streams", type=int, choices=(1, 2, 4), default=1, help="events, and inputs, a clock")
    parser.add_argument("--pipeline", choices=("deep", "short"), default="deep")
    options = parser.parse_args()
    found = []
    for row in rows(options):
        found.append(row)
        if not options.json:
            print(line(row), flush=True)
    write_json(options.output / "lanes.json", {"rows": found})
    if options.json:
        print(json.dumps({"rows": found}))


if __name__ == "__main__":
    main()
