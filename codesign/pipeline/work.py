"""What each stage does, in terms of the package that does it. Heavy packages are imported inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from codesign.config import lanes_per_layer
from codesign.files import write_json
from codesign.network import FrozenNetwork
from codesign.pipeline.figures import network_figures
from codesign.pipeline.stage import NETWORK, RATES, STIMULUS, Context, Outcome
from codesign.stimulus import Stimulus


def train(context: Context) -> Outcome:
    """Data -> checkpoints."""
    from codesign.train import train as train_network

    result = train_network(
        context.config, context.dataset, context.run.path, progress=context.progress, device=context.device
    )
    return Outcome(
        details={
            "checkpoint": result.checkpoint.relative_to(context.run.path).as_posix(),
            "epoch": result.epoch,
            "density": result.density,
            "layer_density": result.layer_density,
            "accuracy_validation": result.accuracy_validation,
            "device": context.device,
        }
    )


def freeze(context: Context) -> Outcome:
    """Checkpoint -> frozen network, test stimulus, firing rates for the placement."""
    from codesign.freeze import freeze as freeze_network

    folder = context.run.path
    result = freeze_network(context.config, folder / "checkpoints", context.dataset, progress=context.progress)
    result.network.save(folder / NETWORK)
    result.test_stimulus.save(folder / STIMULUS)
    return Outcome(figures={**result.figures, **network_figures(result.network)})


def generate(context: Context) -> Outcome:
    """Frozen network -> Verilog bundle."""
    from codesign.mapping import map_network
    from rtl_templates.bundle import write_bundle

    folder, hardware = context.run.path, context.config.hardware
    network = FrozenNetwork.load(folder / NETWORK)
    mapping = map_network(network, lanes_per_layer(hardware, len(network.layers)), load_rates(folder / RATES))
    write_bundle(
        network, mapping, folder / "bundle", name=hardware.name, queue_depth=hardware.queue_depth,
        vectors=_vectors(folder),
    )  # fmt: skip
    return Outcome(figures=network_figures(network))


def estimate(context: Context) -> Outcome:
    """Frozen network -> cycles, memory and area without simulation or synthesis."""
    raise AssertionError


def verify(context: Context) -> Outcome:
    """Bundle == frozen network on the stimulus, exactly."""
    raise AssertionError


def synth(context: Context) -> Outcome:
    """Bundle -> area and clock."""
    raise AssertionError


def build(context: Context) -> Outcome:
    """Bundle -> bitstream of a board."""
    raise AssertionError


def report(context: Context) -> Outcome:
    """Everything -> one HTML page."""
    from codesign.report import write_report

    write_report(context.run.path)
    return Outcome()


def load_rates(path: Path) -> list[np.ndarray] | None:
    """Mean events per sample and source of every layer, float64 (n_in,) each; None if not recorded."""
    if not path.is_file():
        return None
    return [np.asarray(rates, np.float64) for rates in json.loads(path.read_text(encoding="utf-8"))]


def _vectors(folder: Path) -> Stimulus | None:
    """A few samples for the bundle's golden vectors."""
    path = folder / STIMULUS
    return Stimulus.load(path).take(slice(0, 4)) if path.is_file() else None


def _unused() -> Any:
    return write_json
