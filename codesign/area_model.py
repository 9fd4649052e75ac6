"""Linear models of LUTs and flip-flops, fitted on syntheses by ``python -m boards.calibrate``.

    figure = base + layers * (layers) + lanes * (all lanes) + datapath * (sum over layers of lanes x potential bits)
             + rom * (bits of row, synapse and parameter tables that yosys builds from logic)
             + ram * (bits of other memories built from logic) + lutram * (distributed RAM cells)

Which memory goes where is :func:`codesign.estimate.memory_kind`.
``error`` is the greatest relative error over the networks that the fit has seen, leaving each out in turn.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """Coefficients of one figure, in the order of :data:`FEATURES`, and how far off they were."""

    coefficients: tuple[float, ...]
    error: float


@dataclass(frozen=True)
class AreaModel:
    """Models of one family."""

    lut: Linear
    ff: Linear


FEATURES = ("base", "layers", "lanes", "datapath", "rom", "ram", "lutram")

# Fitted on the first 5 networks of boards.calibrate.DESIGNS.
AREA_MODELS: dict[str, AreaModel] = {
    "ecp5": AreaModel(
        lut=Linear((263.3, 109.4, 0, 11.57, 0.129, 0, 8.965), 0.17),
        ff=Linear((119.7, 61.89, 70.56, 12.37, 0.03747, 0, 0), 0.17),
    ),
    "ice40": AreaModel(
        lut=Linear((645.5, 0, 0, 1.374, 0.5609, 0.4611, 0), 0.08),
        ff=Linear((339.4, 0, 0, 10.99, 0.169, 0.5391, 0), 0.34),
    ),
    "xilinx": AreaModel(
        lut=Linear((1.51, 99.99, 87.36, 21.58, 0, 0, 0), 0.21),
        ff=Linear((129.9, 55.23, 57.7, 11.28, 0.02245, 0, 0), 0.22),
    ),
    "gowin": AreaModel(
        lut=Linear((31.81, 193, 0, 7.291, 0.1483, 0, 3.491), 0.18),
        ff=Linear((119.7, 61.89, 70.56, 12.37, 0.03747, 0, 0), 0.17),
    ),
}
