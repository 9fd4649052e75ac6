"""Three networks, one after the other, in one loadable machine: `python -m benchmarks.loads [--json] [-o FOLDER]`.

Trains examples/mnist-small.toml three times (784-128-10; again from another seed with half the connections;
784-96-10 in 3 timesteps), builds a loadable machine from the first, and loads all of them in one simulation of its
Verilog, with test images after each load; every spike, membrane, output word and decision is compared. Between them
an image of another network than the one expected, and one of another machine, which have to be refused. Runs that
are there already (`-o`) are not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.lanes import frozen
from codesign.basics.errors import CapacityError
from codesign.config import load_config
from codesign.contract.golden import run
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.machine.capacity import CapacityOptions
from codesign.machine.load import compile_load
from codesign.machine.mapping import LOADABLE, map_network
from codesign.records.names import NETWORK, STIMULUS
from rtl_templates.bundle import write_bundle
from sim.loads import LoadStep, verify_loads

EXAMPLE = Path("examples/mnist-small.toml")
LANES = (3, 1)
CHANGES: dict[str, list[str]] = {
    "own": [],
    "sparser": ["train.seed=1", "train.rewiring.target_density=0.03"],
    "smaller": ["train.seed=2", "network.hidden=[96]", "network.timesteps=3"],
}


def trained(folder: Path, epochs: int) -> dict[str, tuple[FrozenNetwork, Stimulus]]:
    """Frozen networks and their encoded test images, by name."""
    found = {}
    for name, changes in CHANGES.items():
        run_folder = folder / name
        frozen(run_folder, load_config(EXAMPLE, [f"train.epochs={epochs}", "freeze.epochs=2", *changes]))
        found[name] = (FrozenNetwork.load(run_folder / NETWORK), Stimulus.load(run_folder / STIMULUS))
    return found


def measured(networks: dict[str, tuple[FrozenNetwork, Stimulus]], samples: int) -> dict[str, Any]:
    """Figures of the machine, of each network, and of the simulation of them all."""
    own, sparser, smaller = (network for network, _ in networks.values())
    parts = {name: stimulus.take(slice(0, samples)) for name, (_, stimulus) in networks.items()}
    width = max(layer.membrane_width for network, _ in networks.values() for layer in network.layers)
    options = CapacityOptions(headroom=2, membrane_width=width)
    with tempfile.TemporaryDirectory() as work:
        sidecar = write_bundle(own, map_network(own, LANES, None, LOADABLE, capacity=options), Path(work) / "bundle")
        tighter = write_bundle(sparser, map_network(sparser, LANES, None, LOADABLE), Path(work) / "tighter")
        try:
            compile_load(own, tighter)
            refusal = None
        except CapacityError as error:
            refusal = str(error)
        loads = {name: compile_load(network, sidecar) for name, (network, _) in networks.items()}
        foreign = compile_load(sparser, tighter).image
        hashes = {name: int(network.hash[:16], 16) for name, (network, _) in networks.items()}
        stays: dict[str, Any] = {"network": smaller, "stimulus": parts["smaller"].take(slice(0, 2))}
        stays["sidecar"] = loads["smaller"].sidecar
        steps = [
            LoadStep("own", None, own, parts["own"]),
            LoadStep("sparser", loads["sparser"].image, sparser, parts["sparser"], loads["sparser"].sidecar),
            LoadStep("smaller", loads["smaller"].image, smaller, parts["smaller"], loads["smaller"].sidecar),
            LoadStep(
                "wrong hash", loads["own"].image, expected_hash=hashes["sparser"], load_error=("wrong_hash",), **stays
            ),
            LoadStep("another machine's", foreign, load_error=("does_not_fit",), **stays),
            LoadStep("own again", loads["own"].image, own, parts["own"], expected_hash=hashes["own"]),
        ]
        found = verify_loads(Path(work) / "bundle", steps, Path(work) / "verify")
    return {
        "passed": found.passed,
        "mismatches": found.mismatches,
        "compared": {name: sum(counts.values()) for name, counts in found.steps.items()},
        "image_bytes": len(loads["own"].image),
        "refused_by_the_compiler": refusal,
        "samples": samples,
        "networks": {
            name: {
                "network_hash": network.hash,
                "sizes": [network.n_inputs, *(layer.n_out for layer in network.layers)],
                "timesteps": network.timesteps,
                "synapses": network.n_synapses,
                "accuracy_frozen": float((run(network, stimulus, membranes=False).decisions == stimulus.labels).mean()),
            }
            for name, (network, stimulus) in networks.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loads", description="three networks in one machine")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/loads"), help="folder of the trained networks")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of training; default 8")
    parser.add_argument("--samples", type=int, default=20, help="test images after each load; default 20")
    options = parser.parse_args()
    found = measured(trained(options.output, options.epochs), options.samples)
    if options.json:
        print(json.dumps(found))
        return
    for name, entry in found["networks"].items():
        sizes = "-".join(map(str, entry["sizes"]))
        print(
            f"{name:8} {sizes}, T {entry['timesteps']}, {entry['synapses']:,} synapses, "
            f"{entry['accuracy_frozen']:.2%} of the test images"
        )
    for name, count in found["compared"].items():
        print(f"{name:18} {count:,} comparisons")
    print(f"{found['mismatches']} values differ; load image {found['image_bytes']:,} bytes")
    print(f"compiled for a machine of the sparser network: {found['refused_by_the_compiler'] or 'fits'}")


if __name__ == "__main__":
    main()
