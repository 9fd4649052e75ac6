"""Design points of the accelerator: `python benchmarks/accelerator.py --design small|balanced|fast [--json]`.

A point is a network, a device, what there is to be least of, and limits: the machine is what `codesign tune` finds.
small, balanced and fast are one frozen network, `examples/mnist-small.toml` (MNIST 784-128-10), trained on the first
use and kept below ``--work``, or that of the run folder given with ``--network``. events-fast and events-small are a
seeded random network of 64-32-10 at 10 % density with 4-bit weights, on seeded binary events at a mean rate of 10 %.

Every figure is of the delivered Verilog: cycles and accuracy from simulation, every spike and membrane compared with
the golden model; area and clock from yosys and nextpnr, the clock as the median of the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.errors import CodesignError, InputError
from codesign.basics.files import write_json
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, Leak
from codesign.contract.stimulus import Stimulus
from codesign.cost.search import Objective
from codesign.pipeline.tuning import hardware_keys, mapped, tune, winner

CONFIG = Path(__file__).resolve().parents[1] / "examples" / "mnist-small.toml"
SEEDS = (1, 2, 3)
# Beside the targets, which are placed: yosys alone, for comparison with what others publish.
FAMILIES = ["xilinx"]
EVENT_TIMESTEPS = 50
EVENT_SAMPLES = 100


@dataclass(frozen=True)
class DesignPoint:
    """What is asked of a machine.

    minimise, within, allow : as of :func:`codesign.tune`. also : further devices on which what is found is placed.
    """

    network: str
    target: str
    minimise: Objective
    within: Mapping[str, float]
    allow: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


SILENT = ("input_checks", "counters", "output_spikes")
# Limits are what machines took that were chosen by hand before there was a search, rounded up.
DESIGNS = {
    "small": DesignPoint("mnist", "ecp5-25f", "area", {"bram": 9, "cycles": 2250}, also=("ice40-up5k",)),
    "balanced": DesignPoint("mnist", "ecp5-25f", "latency", {"lut": 1900, "bram": 17, "dsp": 3}),
    "fast": DesignPoint("mnist", "ecp5-85f", "latency", {"lut": 16000, "bram": 185, "dsp": 48}, ("input_words",)),
    "events-fast": DesignPoint("events", "ice40-hx8k", "latency", {"lut": 930, "bram": 6}, SILENT),
    "events-small": DesignPoint("events", "ice40-hx8k", "area", {"bram": 4, "cycles": 2900}, SILENT),
}


def event_network(seed: int = 1) -> FrozenNetwork:
    """64-32-10, a tenth of the synapses of each layer, weights -7..7 without 0; thresholds make a tenth fire."""
    rng = np.random.default_rng(seed)
    matrices = []
    for n_in, n_out in ((64, 32), (32, 10)):
        weights = rng.integers(1, 8, n_in * n_out) * rng.choice((-1, 1), n_in * n_out)
        weights[rng.permutation(n_in * n_out)[round(0.1 * n_in * n_out) :]] = 0
        matrices.append(weights.reshape(n_in, n_out))
    return FrozenNetwork.from_arrays(
        matrices, threshold=[8, 4], timesteps=EVENT_TIMESTEPS, leak=Leak("shift", 2), fraction_bits=0, membrane_width=8
    )


def event_stimulus(seed: int = 2) -> Stimulus:
    """Independent binary events, a tenth of all sources and timesteps."""
    rng = np.random.default_rng(seed)
    dense = rng.random((EVENT_SAMPLES, EVENT_TIMESTEPS, 64)) < 0.1
    return Stimulus.from_dense(dense, np.full(EVENT_SAMPLES, -1, np.int32))


def trained(work: Path) -> Path:
    """Run folder of the trained and frozen network; trained now, or gone on with, if it is not whole."""
    folder = work / "mnist-small"
    for arguments in (["train", str(CONFIG), "-o", str(folder)], ["freeze", str(folder)]):
        if not (folder / "network.safetensors").is_file():
            subprocess.run([sys.executable, "-m", "codesign", *arguments], check=True, stdout=sys.stderr)
    return folder


def load(design: DesignPoint, work: Path, given: Path | None) -> tuple[FrozenNetwork, Stimulus, Stimulus]:
    """The design's network, its test samples, and the samples that guide the placement."""
    if design.network == "events":
        return event_network(), event_stimulus(), event_stimulus(seed=3)
    folder = given or trained(work)
    if not folder.is_dir():
        raise InputError(f"{folder}: no run folder; give one that `codesign freeze` has finished")
    network = FrozenNetwork.load(folder / "network.safetensors")
    return network, Stimulus.load(folder / "stimulus.npz"), Stimulus.load(folder / "calibration.npz")


def searched(
    network: FrozenNetwork,
    design: DesignPoint,
    calibration: Stimulus,
    work: Path,
    seeds: Sequence[int],
    place: int = 3,
) -> list[dict[str, Any]]:
    """The rows of :func:`codesign.tune` for a point. Raises CapacityError if no machine is within the limits."""
    return tune(
        network,
        calibration,
        design.target,
        minimise=design.minimise,
        within=design.within,
        allow=design.allow,
        place=place,
        seeds=seeds,
        output=work,
    )


def information_bound(network: FrozenNetwork) -> float:
    """Bits that mask and weights need per synapse: log2 of the number of masks with as many synapses, and the weights.

    A weight that is not 0 is one of 2^b - 2 values.
    """
    total = 0.0
    for layer in network.layers:
        cells, count = layer.n_in * layer.n_out, layer.n_synapses
        masks = math.lgamma(cells + 1) - math.lgamma(count + 1) - math.lgamma(cells - count + 1)
        total += masks / math.log(2) + count * math.log2((1 << layer.weight_bits) - 2)
    return total / network.n_synapses


def accuracy(network: FrozenNetwork, stimulus: Stimulus) -> float | None:
    """Of the golden model; None without labels."""
    if (stimulus.labels < 0).any():
        return None
    return float(np.mean(golden.run(network, stimulus, membranes=False).decisions == stimulus.labels))


def measure(
    name: str, work: Path, *, given: Path | None = None, samples: int | None = None, seeds: Sequence[int] = SEEDS
) -> dict[str, Any]:
    """All figures of a design point: keys as in a manifest, area by target and family, clock by target."""
    from boards.synth import synth_bundle
    from codesign.config import SynthConfig
    from codesign.pipeline.figures import network_figures
    from rtl_templates.bundle import write_bundle
    from sim.verify import verify_bundle

    design = DESIGNS[name]
    network, stimulus, calibration = load(design, work, given)
    if samples is not None:
        stimulus = stimulus.take(slice(0, samples))
    row = winner(searched(network, design, calibration, work / name / "tune", seeds[:1]), design.target)
    mapping, targets = mapped(network, calibration, row), (design.target, *design.also)
    bundle = work / name / "bundle"
    sidecar = write_bundle(network, mapping, bundle)
    found = verify_bundle(bundle, network, stimulus, work / name / "verify", waves=False)
    if not found.passed:
        raise SystemExit(f"{name}: hardware differs from software: {found.first_divergence}")
    config = SynthConfig.model_validate({"families": FAMILIES, "fmax": list(targets), "seeds": list(seeds)})
    synthesised = synth_bundle(bundle, config, work / name / "synth")
    placed = synthesised["placed"]
    bits = sidecar.memory_bits.model_dump()
    operations = found.synaptic_operations_per_sample
    clocks = {target: entry["fmax_mhz"] for target, entry in placed.items()}
    return {
        "design": name,
        **network_figures(network),
        "shape": row["shape"],
        "hardware": hardware_keys(row),
        "lanes": mapping.lanes,
        "event_streams": row["event_streams"],
        "input_bits_per_clock": sidecar.port_width("s_axis_tdata"),
        "accuracy_frozen": accuracy(network, stimulus),
        "accuracy_hardware": found.accuracy_hardware,
        "samples_verified": found.samples,
        "mismatches": found.mismatches,
        "compared": found.comparisons,
        "saturations": found.saturations,
        "spikes_per_sample": found.spikes_per_sample,
        "cycles_per_sample": found.cycles_per_sample,
        "latency_cycles": found.latency_cycles,
        "interval_cycles": found.interval_cycles,
        "cycles_per_timestep": None if found.interval_cycles is None else found.interval_cycles / network.timesteps,
        "synaptic_operations_per_sample": operations,
        "lane_use": found.lane_use,
        "memory_bits": bits,
        "bits_per_synapse": (bits["rows"] + bits["synapses"]) / network.n_synapses,
        "bits_per_synapse_bound": information_bound(network),
        "area": {
            key: {kind: entry[kind] for kind in ("lut", "ff", "bram", "dsp")}
            for key, entry in (placed | synthesised["area"]).items()
        },
        "fmax_mhz": clocks,
        "latency_us": {t: found.latency_cycles / mhz for t, mhz in clocks.items() if mhz and found.latency_cycles},
        "interval_us": {t: found.interval_cycles / mhz for t, mhz in clocks.items() if mhz and found.interval_cycles},
        "synaptic_operations_per_second": (
            rates := {
                t: operations * 1e6 * mhz / found.interval_cycles
                for t, mhz in clocks.items()
                if mhz and found.interval_cycles
            }
        ),
        "synaptic_operations_per_second_and_lut": {t: rate / placed[t]["lut"] for t, rate in rates.items()},
        "placed_seeds": {t: entry["seeds"] for t, entry in placed.items()},
    }


def line(figures: dict[str, Any], target: str) -> str:
    area, mhz = figures["area"][target], figures["fmax_mhz"][target]
    clock = "does not fit" if mhz is None else f"{mhz:6.1f} MHz  latency {figures['latency_us'][target]:8.2f} us"
    return (
        f"{figures['design']:13} {target:11} {area['lut']:6} lut {area['bram']:4} bram {area['dsp']:3} dsp  {clock}  "
        f"{figures['latency_cycles']:8.1f} clocks, back to back {figures['interval_cycles']:8.1f} "
        f"({figures['cycles_per_timestep']:.1f} a timestep)"
    )


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Figures of the designs, which are printed too."""
    parser = argparse.ArgumentParser(description="design points of the accelerator, measured")
    parser.add_argument("--design", choices=DESIGNS, action="append", help="default: all")
    parser.add_argument("--network", type=Path, help="run folder whose network the MNIST designs take")
    parser.add_argument("--work", type=Path, default=Path("runs/accelerator"), help="where everything is kept")
    parser.add_argument("--samples", type=int, help="simulate the first samples only")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of place and route")
    parser.add_argument("--json", action="store_true", help="print JSON: one object for one design, else a list")
    given = parser.parse_args(arguments)
    found = []
    try:
        for name in given.design or DESIGNS:
            figures = measure(name, given.work, given=given.network, samples=given.samples, seeds=given.seeds)
            write_json(given.work / name / "figures.json", figures)
            found.append(figures)
            if not given.json:
                print("\n".join(line(figures, target) for target in figures["fmax_mhz"]), flush=True)
    except CodesignError as error:
        sys.exit(f"{parser.prog}: {error}")
    if given.json:
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))
    return found


if __name__ == "__main__":
    main()
