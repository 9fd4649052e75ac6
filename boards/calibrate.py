"""Fits the area models of :mod:`codesign.cost.area_model` on syntheses of random networks.

    python -m boards.calibrate WORK

prints the models as Python, and for each network what was measured. Slow: a quarter of an hour on two cores.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from boards.synth import synth_bundle
from codesign.config import SynthConfig
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.cost.area_model import FEATURES
from codesign.cost.estimate import FAMILIES, area_features, block_ram
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.plan import plan_machine
from rtl_templates.bundle import write_bundle

# (inputs and widths, lanes, weight bits, membrane width, coding, density)
DESIGNS: tuple[tuple[list[int], list[int], int, int, str, float], ...] = (
    ([64, 10], [1], 4, 12, "events", 0.3),
    ([64, 96, 10], [1, 1], 5, 14, "current", 0.2),
    ([64, 96, 10], [4, 2], 5, 14, "current", 0.2),
    ([64, 32, 10], [2, 1], 4, 10, "events", 0.3),
    ([40, 40, 40, 5], [1, 1, 1], 6, 16, "events", 0.2),
    ([256, 64, 10], [4, 1], 6, 16, "events", 0.1),
    ([256, 64, 10], [8, 2], 6, 16, "events", 0.1),
    ([128, 128, 10], [8, 4], 4, 12, "current", 0.1),
    ([784, 128, 10], [4, 1], 6, 18, "current", 0.1),
    ([100, 200, 20], [2, 2], 8, 20, "events", 0.1),
    ([64, 96, 10], [1, 1], 5, 14, "current", 0.18),
    ([64, 96, 10], [2, 2], 4, 13, "current", 0.18),
    ([64, 64, 10], [4, 4], 4, 13, "current", 0.15),
)


def random_design(number: int) -> tuple[FrozenNetwork, HardwareMap]:
    """Network and mapping of one entry of DESIGNS."""
    widths, lanes, bits, membrane, coding, density = DESIGNS[number]
    rng = np.random.default_rng(number)
    limit = (1 << (bits - 1)) - 1
    weights = []
    for n_in, n_out in pairwise(widths):
        matrix = rng.integers(1, limit + 1, (n_in, n_out)) * rng.choice((-1, 1), (n_in, n_out))
        weights.append(matrix * (rng.random((n_in, n_out)) < density))
    network = FrozenNetwork.from_arrays(
        weights,
        threshold=[rng.integers(1 << (membrane - 4), 1 << (membrane - 2), n) for n in widths[1:]],
        bias=[rng.integers(-40, 80, n) for n in widths[1:]],
        timesteps=8,
        coding=InputCoding("current", 4) if coding == "current" else InputCoding("events"),
        leak=Leak("shift", 2),
        fraction_bits=4,
        membrane_width=membrane,
    )
    return network, map_network(network, lanes)


def main(work: Path) -> None:
    """Measure every design, fit, print."""
    rows: list[dict[str, Any]] = []
    config = SynthConfig.model_validate({"families": list(FAMILIES), "fmax": []})
    for number in range(len(DESIGNS)):
        network, mapping = random_design(number)
        with tempfile.TemporaryDirectory() as folder:
            write_bundle(network, mapping, Path(folder) / "bundle")
            area = synth_bundle(Path(folder) / "bundle", config, work / str(number))["area"]
        plan = plan_machine(network, mapping)
        for family in FAMILIES:
            blocks = block_ram(plan.memories, family)
            features = area_features(plan, family)
            rows.append({"number": number, "family": family, "features": features, "blocks": blocks, **area[family]})
            print(json.dumps(rows[-1]), flush=True)  # noqa: T201
    for family in FAMILIES:
        chosen = [row for row in rows if row["family"] == family]
        matrix = np.array([row["features"] for row in chosen])
        parts = []
        for figure in ("lut", "ff"):
            values = np.array([row[figure] for row in chosen], np.float64)
            coefficients = fit(matrix, values)
            errors = []
            for left_out in range(len(chosen)):
                kept = np.arange(len(chosen)) != left_out
                guess = matrix[left_out] @ fit(matrix[kept], values[kept])
                errors.append((guess - values[left_out]) / values[left_out])
            shown = ", ".join(f"{value:.4g}" for value in coefficients)
            parts.append(f"{figure}=Linear(({shown}), {np.abs(errors).max():.2f}, {max(0.0, -min(errors)):.2f})")
        print(f'    "{family}": AreaModel({", ".join(parts)}),')  # noqa: T201


def fit(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Non-negative least squares of relative errors, one coefficient per feature."""
    from scipy.optimize import nnls

    assert matrix.shape[1] == len(FEATURES)
    return nnls(matrix / values[:, None], np.ones(len(values)))[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
