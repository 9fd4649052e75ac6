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

AREA_MODELS: dict[str, AreaModel] = {}
