"""Which runs the study has, and the configuration of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from codesign.config import Config, RewiringConfig, parse_config
from codesign.train.rewiring import fall_epochs

PRESETS = ("adaptive", "constant", "fixed", "set", "rigl", "sap", "static", "dense")
# Falling presets whose layers end with their share of the target density, at an even pace (rewiring.landing).
LANDING = {"adaptive-landing": "adaptive", "fixed-landing": "fixed", "sap-landing": "sap"}

# The factors, each level with each of the others. Ratios are alike in the mean: a fixed one is a PQ ratio as trained
# weights have it, a cosine begins at twice that. Falling density lands as in LANDING, and each fall takes its part of
# the way, which is more than any of these ratios.
RATIOS: dict[str, dict[str, Any]] = {
    "pq": {"ratio": "pq"},
    "fixed": {"ratio": "constant", "fraction": 0.12},
    "cosine": {"ratio": "cosine", "fraction": 0.24},
}
GROWTHS = ("momentum", "gradient", "random")
SCHEDULES: dict[str, dict[str, Any]] = {
    "steady": {"density_schedule": "constant"},
    "falling": {"density_schedule": "falling", "landing": "distribution"},
}
# Where to be sparse: shares of the layers or neurons, beside the Erdos-Renyi share of the factors' recipes.
SHARES: dict[str, dict[str, Any]] = {
    "uniform": {"distribution": "uniform"},
    "index-layer": {"share": "index"},
    "index-neuron": {"share": "index", "scope": "neuron"},
    "kept-neuron": {"scope": "neuron"},
    "global": {"scope": "global"},
}


def _factors() -> dict[str, dict[str, Any]]:
    return {
        f"{ratio}+{growth}+{schedule}": {"preset": "adaptive", "growth": growth, **of_ratio, **of_schedule}
        for ratio, of_ratio in RATIOS.items()
        for growth in GROWTHS
        for schedule, of_schedule in SCHEDULES.items()
    }


def _shares() -> dict[str, dict[str, Any]]:
    """Every share with the fixed ratio, growth by momentum and both schedules; and global magnitude with growth by
    gradients, which is GraNet's (Liu et al., NeurIPS 2021)."""
    found: dict[str, dict[str, Any]] = {}
    for share, chosen in SHARES.items():
        for schedule in SCHEDULES:
            options = FACTORS[f"fixed+momentum+{schedule}"] | chosen
            if "landing" in options and share != "uniform":
                options["landing"] = "pace"
            found[f"{share}+{schedule}"] = options
    found["granet"] = FACTORS["fixed+gradient+falling"] | SHARES["global"] | {"landing": "pace"}
    return found


FACTORS = _factors()
SHARED = _shares()
# What the paper leaves unsaid, one change at a time of this recipe. Scopes land otherwise: they change scope-layer.
GRID_BASE = "pq+momentum+falling"
_CHANGES: dict[str, dict[str, Any]] = {
    "p-0.25-q-1": {"p": 0.25},
    "p-1-q-2": {"p": 1.0, "q": 2.0},
    "eta-0": {"eta": 0.0},
    "eta-0.1": {"eta": 0.1},
    "gamma-0.5": {"gamma": 0.5},
    "gamma-2": {"gamma": 2.0},
    "scope-layer": {"landing": "pace"},
    "scope-neuron": {"landing": "pace", "scope": "neuron"},
    "scope-global": {"landing": "pace", "scope": "global"},
    # What p-1-q-2 rewires in the mean of the larger layer on MNIST, without the index: all along, or falling.
    "fixed-0.24": {"ratio": "constant", "fraction": 0.24},
    "cosine-0.48": {"ratio": "cosine", "fraction": 0.48},
}
GRID = {name: FACTORS[GRID_BASE] | chosen for name, chosen in _CHANGES.items()}
# The index with (p, q) = (1, 2), and ratios as large that read none beside it, where connections are kept otherwise.
LARGER = ("p-1-q-2", "fixed-0.24", "cosine-0.48")
EXPONENTS: dict[str, dict[str, Any]] = {
    **{name: GRID[name] for name in LARGER},
    **{f"{name}+steady": FACTORS["pq+momentum+steady"] | _CHANGES[name] for name in LARGER},
    **{
        f"{name}+kept-neuron+steady": FACTORS["pq+momentum+steady"] | SHARES["kept-neuron"] | _CHANGES[name]
        for name in LARGER
    },
}
# The paper's preset, which ends where the index turns, at FLOOR at the latest; and those that end at a given density.
TURNING, FLOOR = "turning", 0.02
LADDER = ("pq+momentum+falling", "fixed+momentum+falling")
# Options of [train.rewiring] by the name of a recipe.
RECIPES: dict[str, dict[str, Any]] = {
    # As the paper has it, also where few connections are left.
    **{name: {"preset": name} | ({"landing": "ratio"} if name in LANDING.values() else {}) for name in PRESETS},
    **{name: {"preset": preset, "landing": "distribution"} for name, preset in LANDING.items()},
    **FACTORS,
    **SHARED,
    **GRID,
    **EXPONENTS,
    TURNING: {"preset": "adaptive", "stop_at": "turning-point"},
}
GROUPS = {"presets": (*PRESETS, *LANDING), "factors": tuple(FACTORS), "shares": tuple(SHARED)}
GROUPS |= {"grid": tuple(GRID), "exponents": tuple(EXPONENTS), "stop": (TURNING, *LADDER)}
DENSITIES = (0.2, 0.1, 0.05, 0.02)
SEEDS = (0, 1, 2)
START_DENSITY = 0.5
# A PQ ratio as trained weights have it. With gamma 1 it takes forty falls from .5 to .02; gamma is raised so that this
# ratio would reach the target with the last fall there is, and falling presets do not end in one big cut.
TYPICAL_RATIO = 0.12

SETS: dict[str, dict[str, Any]] = {
    "mnist": {
        "data": {"set": "mnist", "coding": "current", "input_bits": 4, "validation": 5000},
        "network": {"hidden": [128], "timesteps": 4, "readout": "membrane_last"},
        "train": {"epochs": 24, "batch_size": 256, "learning_rate": 1e-2, "label_smoothing": 0.1},
    },
    "fsdd-spikes": {
        "data": {"set": "fsdd-spikes", "coding": "events", "step_ms": 12.0, "validation": 300},
        "network": {"hidden": [128], "timesteps": 50, "leak_shift": 4, "readout": "membrane_sum"},
        "train": {
            "epochs": 40,
            "batch_size": 64,
            "learning_rate": 5e-3,
            "surrogate_width": 0.5,
            "label_smoothing": 0.1,
        },
    },
    "cifar10": {
        "data": {"set": "cifar10", "coding": "current", "input_bits": 4, "validation": 5000, "flip_augmentation": True},
        "network": {
            "layers": [
                {"kind": "conv", "channels": 48, "norm": True},
                {"kind": "pool"},
                {"kind": "conv", "channels": 96, "norm": True},
                {"kind": "pool"},
                {"kind": "conv", "channels": 192, "norm": True},
                {"kind": "pool"},
                {"kind": "conv", "channels": 512, "norm": True},
                {"kind": "pool"},
            ],
            "timesteps": 2,
            "readout": "membrane_sum",
        },
        "train": {"epochs": 10, "batch_size": 64, "learning_rate": 2e-3, "amp": "auto"},
    },
}
# What is run where nothing else is asked for.
DEFAULT_PRESETS = {"cifar10": ("dense", "adaptive-landing", "fixed-landing", "static", "adaptive", "fixed")}
DEFAULT_DENSITIES = {"cifar10": (0.2,)}


@dataclass(frozen=True, order=True)
class Run:
    """One training: data set, name of a recipe, target density (1 for dense) and seed."""

    set: str
    preset: str
    density: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.set}/{self.preset}-d{self.density:g}-s{self.seed}"

    def config(self, overrides: dict[str, Any] | None = None) -> Config:
        """The run's configuration; ``overrides`` (by section) shorten it for trials."""
        document = {name: dict(section) for name, section in SETS[self.set].items()}
        for section, values in (overrides or {}).items():
            document.setdefault(section, {}).update(values)
        document["train"] |= {"seed": self.seed, "threads": 1}
        rewiring = dict(RECIPES[self.preset])
        if self.preset != "dense":
            rewiring |= {"target_density": self.density, "min_fan_in": 0}
        if RewiringConfig(**rewiring).rules.falls:
            rewiring["start_density"] = max(START_DENSITY, self.density)
        if self.preset in ("adaptive", "sap", TURNING):
            falls = len(fall_epochs(document["train"]["epochs"], RewiringConfig()))
            needed = 1 - (self.density / rewiring["start_density"]) ** (1 / max(1, falls))
            rewiring["gamma"] = round(max(1.0, needed / TYPICAL_RATIO), 3)
        document["train"]["rewiring"] = rewiring
        return parse_config(document, self.name)

    def key(self, overrides: dict[str, Any] | None = None) -> str:
        """Hash of the configuration, by which a finished run is known to be this one."""
        config = self.config(overrides).model_dump(exclude_defaults=True)
        return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def planned(
    sets: Iterable[str], presets: Sequence[str] | None, densities: Sequence[float] | None, seeds: Sequence[int]
) -> list[Run]:
    """Every run asked for, seed by seed, so that a study that is stopped early has whole seeds."""
    found = []
    for seed in seeds:
        for name in sets:
            for preset in presets or DEFAULT_PRESETS.get(name, (*PRESETS, *LANDING)):
                only = {"dense": (1.0,), TURNING: (FLOOR,)}.get(preset)
                levels = only or densities or DEFAULT_DENSITIES.get(name, DENSITIES)
                found += [Run(name, preset, density, seed) for density in levels]
    return found
