"""Linear models of LUTs and flip-flops, fitted on syntheses by ``python -m boards.calibrate``.

    figure = base + layers * (layers) + lanes * (all lanes) + datapath * (sum over layers of lanes x potential bits)
             + rom * (bits of row, synapse and parameter tables that yosys builds from logic)
             + ram * (bits of other memories built from logic) + lutram * (distributed RAM cells)

Which memory goes where is :func:`codesign.cost.estimate.memory_kind`.
``error`` is the greatest relative error over the networks that the fit has seen, leaving each out in turn.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """Coefficients of one figure, in the order of :data:`FEATURES`, and how far off they were.

    ``shortfall`` is the greatest relative error of a formula that gives too little; ``error`` where not stated apart.
    """

    coefficients: tuple[float, ...]
    error: float
    low: float | None = None

    @property
    def shortfall(self) -> float:
        return self.error if self.low is None else self.low


@dataclass(frozen=True)
class AreaModel:
    """Models of one family."""

    lut: Linear
    ff: Linear


FEATURES = ("base", "layers", "lanes", "datapath", "rom", "ram", "lutram")

# Fitted on the first 5 networks of boards.calibrate.DESIGNS; the LUTs of ice40 on numbers 0, 3, 10, 11, 12 and on the
# network of examples/digits-icebreaker.toml (352 hidden neurons, 4 bits, one lane).
AREA_MODELS: dict[str, AreaModel] = {
    "ecp5": AreaModel(
        lut=Linear((263.3, 109.4, 0, 11.57, 0.129, 0, 8.965), 0.17),
        ff=Linear((119.7, 61.89, 70.56, 12.37, 0.03747, 0, 0), 0.17),
    ),
    "ice40": AreaModel(
        lut=Linear((219, 402.4, 0, 22.86, 0.2045, 1.065, 0), 0.37, 0.17),
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
