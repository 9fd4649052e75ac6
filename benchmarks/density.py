"""What sparsity saves in hardware: `python -m benchmarks.density [--json] [--plot docs/images/density.png]`.

One architecture (784-128-10, 6-bit weights, 8 timesteps, coding 'current' with 4 bits, the first layer on 4 lanes) at
several densities. Masks are random and nested: the first cells of one seeded permutation of each layer, so that every
layer has exactly the density (rounded to a synapse) and a sparser network is a part of a denser one. Thresholds follow
the standard deviation of a neuron's sums, so that neurons fire about as often at every density. Area and clock: yosys
and nextpnr for the LFE5U-85F, one seed (`boards.synth`). Latency: simulation of the generated Verilog on MNIST's first
test images, one at a time, every spike and membrane compared with the golden model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale import machine
from codesign.basics.errors import CodesignError
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
WIDTHS = (784, 128, 10)
LANES = (4, 1)
TIMESTEPS = 8
INPUT_BITS = 4
FRACTION_BITS = 2
WEIGHT_LIMIT = 31
HIDDEN_RATE = 0.15
SAMPLES = 100
TARGET = "ecp5-85f"
FIGURES = {
    "lut": "logic, TRELLIS_COMB",
    "memory_bits": "memory, kbit",
    "bram": "block memories, DP16KD",
    "latency_cycles": "latency, clocks",
}


def masked_weights(density: float, seed: int = 1) -> list[np.ndarray]:
    """Integer matrices of the two layers; the same cells have the same weights at every density."""
    rng = np.random.default_rng(seed)
    matrices = []
    for n_in, n_out in pairwise(WIDTHS):
        cells = n_in * n_out
        order = rng.permutation(cells)
        weights = rng.integers(1, WEIGHT_LIMIT + 1, cells) * rng.choice((-1, 1), cells)
        weights[order[round(density * cells) :]] = 0
        matrices.append(weights.reshape(n_in, n_out))
    return matrices


def network_of(density: float, stimulus: Stimulus) -> FrozenNetwork:
    """The network at ``density``; its thresholds are calibrated on ``stimulus``."""
    hidden, last = masked_weights(density)
    assert stimulus.values is not None
    sums = stimulus.values.astype(np.int64) @ hidden
    spread = (max(1.0, float(sums.std())), max(1.0, float((last**2).sum(axis=0).mean() * HIDDEN_RATE) ** 0.5))
    return FrozenNetwork.from_arrays(
        [hidden, last],
        threshold=[round(2 * sigma) << FRACTION_BITS for sigma in spread],
        timesteps=TIMESTEPS,
        coding=InputCoding("current", INPUT_BITS),
        leak=Leak("shift", 2),
        fraction_bits=FRACTION_BITS,
        membrane_width=[19, 14],
    )


def mnist_images(count: int) -> Stimulus:
    """The first test images as currents. Raises InputError if MNIST is not there."""
    from codesign.config import parse_config
    from codesign.data import load_dataset
    from codesign.data.encoders import encode

    data = parse_config({"data": {"set": "mnist", "coding": "current", "input_bits": INPUT_BITS}}).data
    dataset = load_dataset(data)
    return encode(dataset, dataset.test.take(slice(0, count)), data, TIMESTEPS)[0]


def measure_density(density: float, stimulus: Stimulus, folder: Path, *, place: bool = True) -> dict[str, Any]:
    """Every figure of one density; without ``place`` those of synthesis are None."""
    from boards.synth import synth_bundle
    from codesign.config import SynthConfig
    from codesign.machine.mapping import map_network
    from rtl_templates.bundle import write_bundle
    from sim.verify import verify_bundle

    network = network_of(density, stimulus)
    bundle = folder / f"bundle-{density:g}"
    sidecar = write_bundle(network, map_network(network, LANES), bundle)
    found = verify_bundle(bundle, network, stimulus, folder / f"verify-{density:g}", workers=1, stress_samples=0)
    if not found.passed:
        raise SystemExit(f"density {density:g}: hardware differs from software: {found.first_divergence}")
    figures: dict[str, Any] = {
        "density": network.density,
        "synapses": network.n_synapses,
        "memory_bits": sidecar.memory_bits.total,
        "memory_bits_by_role": sidecar.memory_bits.model_dump(),
        "latency_cycles": found.latency_cycles,
        "interval_cycles": found.interval_cycles,
        "spikes_per_sample": found.spikes_per_sample,
        "compared_membranes": found.comparisons["membranes"],
        **dict.fromkeys(("lut", "ff", "bram", "dsp", "fmax_mhz", "latency_us", "reason")),
    }
    if place:
        config = SynthConfig.model_validate({"families": [], "fmax": [TARGET], "seeds": [1]})
        placed = synth_bundle(bundle, config, folder / f"synth-{density:g}")["placed"][TARGET]
        figures.update({key: placed[key] for key in ("lut", "ff", "bram", "dsp", "fmax_mhz", "reason")})
        if placed["fmax_mhz"]:
            figures["latency_us"] = found.latency_cycles / placed["fmax_mhz"]
    return figures


def rises(rows: Sequence[dict[str, Any]], noise: float = 0.02) -> list[str]:
    """Where a figure rises by more than ``noise`` as density falls, in words; ``rows`` by falling density."""
    return [
        f"{key} rises from {before[key]:,.0f} to {after[key]:,.0f} as density falls to {after['density']:g}"
        for key in FIGURES
        for before, after in pairwise(rows)
        if before[key] is not None and after[key] is not None and after[key] > before[key] * (1 + noise)
    ]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Four panels over density: logic, memory, block memories, latency."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from codesign.report import plots

    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(plots.FULL, 2.9), layout="constrained")
        colours = (plots.BLUE, plots.GREEN, plots.PURPLE, plots.ORANGE)
        x = [row["density"] for row in rows]
        for axes, (key, label), colour in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), colours):
            y = [row[key] / (1000 if key == "memory_bits" else 1) for row in rows]
            axes.plot(x, y, color=colour, marker="o", markersize=4.5)
            for at, value in zip(x, y):
                # Right of the mark, where a falling line is not.
                axes.annotate(f"{value:,.0f}", (at, value), xytext=(4, 4), textcoords="offset points", fontsize=7.5)
            axes.set_title(label)
            axes.set_xscale("log")
            # Sparser to the right: figures fall as one reads on.
            axes.set_xlim(max(x) * 1.3, min(x) / 2)
            axes.xaxis.set_major_locator(FixedLocator(x))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.set_ylim(0, 1.12 * max(y))
            axes.set_xlabel("density, % (log)")
    plots.save_figure(figure, path)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Figures as a Markdown table."""
    head = ("density", "synapses", "TRELLIS_COMB", "FF", "memory, kbit", "DP16KD", "fmax, MHz", "clocks", "latency, us")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [
            f"{100 * row['density']:.3g} %", f"{row['synapses']:,}", *(_cell(row[key]) for key in ("lut", "ff")),
            f"{row['memory_bits'] / 1000:,.0f}", _cell(row["bram"]), _cell(row["fmax_mhz"], 1),
            _cell(row["latency_cycles"]), _cell(row["latency_us"], 1),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The figures, which are printed too."""
    parser = argparse.ArgumentParser(description="area, memory and latency over density")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--plot", type=Path, help="also draw the figures to this PNG or SVG")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="MNIST images simulated")
    chosen = parser.parse_args(arguments)
    try:
        stimulus = mnist_images(chosen.samples)
        with tempfile.TemporaryDirectory() as folder:
            rows = [
                measure_density(density, stimulus, Path(folder)) for density in sorted(chosen.densities, reverse=True)
            ]
    except CodesignError as error:
        sys.exit(f"benchmarks.density: {error}")
    figures = {**machine(), "target": TARGET, "lanes": LANES, "rows": rows, "rises": rises(rows)}
    if chosen.plot:
        draw(rows, chosen.plot)
    print(json.dumps(figures) if chosen.json else "\n".join([table(rows), *figures["rises"]]))
    return figures


if __name__ == "__main__":
    main()
