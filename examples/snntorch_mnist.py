"""A network trained in snnTorch on MNIST, imported, and compared with snnTorch's own spikes and decisions.

    python examples/snntorch_mnist.py dense runs/snntorch --verify 1000

It needs snnTorch and, for its exporter, nirtorch. Networks: ``dense`` (784-128-10, Leaky), ``conv`` (two convolutions
in steps of 2), ``recurrent`` (RLeaky) and ``synaptic`` (neurons with a synaptic current). All have snnTorch's default
reset: by subtraction, a timestep late. Inputs are the pixels above a half, as one event in each timestep. Data: MNIST,
$CODESIGN_DATA/mnist.

snnTorch runs the first test images. Every second one decides widths, on the others everything is compared: spikes of
each layer of snnTorch against the float reference and against the integers, accuracies, and with ``--verify N`` the
Verilog on N images, every spike and membrane. ``--reuse`` compares the files of an earlier training again.

Written to the folder: NAME.nir; NAME.npz, the images as a stimulus; NAME.reference.npz with snnTorch's decisions and
the spikes of each layer; NAME.compared.json, what is printed. For the command line:

    codesign import runs/snntorch/dense.nir --source snntorch --reset subtract --readout spike_count \\
        --samples runs/snntorch/dense.npz -o runs/dense
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np
import snntorch as snn
import torch
from snntorch.export_nir import export_to_nir
from torch import Tensor, nn

import codesign
from codesign.config import DataConfig
from codesign.interchange.measure import compared

TIMESTEPS = 8


def leaky(width: int, beta: float = 0.9) -> snn.Leaky:
    """snnTorch exports vectors of decays and thresholds alone."""
    return snn.Leaky(beta=torch.full((width,), beta), threshold=torch.ones(width), init_hidden=True)


def synaptic(width: int) -> snn.Synaptic:
    ones = torch.ones(width)
    return snn.Synaptic(alpha=0.7 * ones, beta=0.9 * ones, threshold=ones, init_hidden=True)


def recurrent(width: int) -> snn.RLeaky:
    ones = torch.ones(width)
    return snn.RLeaky(beta=0.9 * ones, threshold=ones, linear_features=width, all_to_all=True, init_hidden=True)


def picture(channels: int, side: int) -> snn.Leaky:
    ones = torch.ones(channels, side, side)
    return snn.Leaky(beta=0.9 * ones, threshold=ones, init_hidden=True)


NETWORKS = {
    "dense": lambda: nn.Sequential(nn.Linear(784, 128), leaky(128), nn.Linear(128, 10), leaky(10)),
    "conv": lambda: nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), picture(8, 14)),
        *(nn.Conv2d(8, 16, 3, stride=2, padding=1), picture(16, 7)),
        *(nn.Flatten(), nn.Linear(784, 10), leaky(10)),
    ),
    "recurrent": lambda: nn.Sequential(nn.Linear(784, 64), recurrent(64), nn.Linear(64, 10), leaky(10)),
    "synaptic": lambda: nn.Sequential(nn.Linear(784, 128), synaptic(128), nn.Linear(128, 10), synaptic(10)),
}


def run(network: nn.Sequential, images: Tensor) -> list[Tensor]:
    """Spikes of each spiking layer, (timesteps, samples, ...), for images that are the same at every timestep."""
    neurons = [module for module in network if isinstance(module, snn.SpikingNeuron)]
    for neuron in neurons:
        reset = neuron.init_rleaky if isinstance(neuron, snn.RLeaky) else neuron.reset_mem
        reset()
    found: list[list[Tensor]] = [[] for _ in neurons]
    for _ in range(TIMESTEPS):
        signal = images
        for module in network:
            signal = module(signal)
            if module in neurons:
                found[neurons.index(module)].append(signal)
    return [torch.stack(spikes) for spikes in found]


def train(network: nn.Sequential, images: Tensor, labels: Tensor, epochs: int, batch: int = 128) -> None:
    """Cross-entropy of the output's spike counts; Adam with one cycle of the learning rate."""
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        losses = []
        for chosen in order[: len(order) // batch * batch].split(batch):
            counts = run(network, images[chosen])[-1].sum(0)
            loss = nn.functional.cross_entropy(counts, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}", flush=True)


def export(name: str, stem: Path, epochs: int, n_images: int, n_samples: int) -> None:
    """Train a network and write what it is and what it does, as the text above has it."""
    torch.manual_seed(0)
    data = codesign.load_dataset(DataConfig(set="mnist"))
    shape = (1, 28, 28) if name == "conv" else (784,)

    def binary(values: np.ndarray) -> Tensor:
        return torch.from_numpy((np.asarray(values) >= 0.5 * np.max(values)).astype(np.float32)).reshape(-1, *shape)

    network = NETWORKS[name]()
    for module in network:
        if isinstance(module, nn.Conv2d):
            # Torch's own start is too small for a binary picture: no neuron would fire, and nothing be learnt.
            nn.init.xavier_normal_(module.weight, gain=3.0)
    images, labels = binary(data.train.x)[:n_images], torch.from_numpy(data.train.labels).long()
    train(network, images, labels, epochs)
    network.eval()
    test, answers = binary(data.test.x), data.test.labels
    with torch.no_grad():
        decisions = torch.cat([run(network, part)[-1].sum(0).argmax(1) for part in test.split(1000)]).numpy()
        spikes = run(network, test[:n_samples])
    print(f"{name}: {np.mean(decisions == answers):.2%} of {len(answers):,} test images in snnTorch")
    stem.parent.mkdir(parents=True, exist_ok=True)
    nir.write(stem.with_suffix(".nir"), export_to_nir(network, test[:1], ignore_dims=[0]))
    events = test[:n_samples].reshape(n_samples, 1, -1).bool().expand(-1, TIMESTEPS, -1).numpy()
    codesign.Stimulus.from_dense(np.ascontiguousarray(events), answers[:n_samples]).save(stem.with_suffix(".npz"))
    np.savez_compressed(
        stem.with_suffix(".reference.npz"),
        decisions=decisions[:n_samples],
        **{f"spikes{index}": layer.transpose(0, 1).flatten(2).bool().numpy() for index, layer in enumerate(spikes)},
    )


def compare(stem: Path, weight_bits: int, n_verified: int) -> dict[str, Any]:
    """What snnTorch, the float reference, the integers and the Verilog do on the images that decided nothing."""
    facts = codesign.ImportFacts(reset="subtract", readout="spike_count")
    found = codesign.import_network(
        stem.with_suffix(".nir"), "snntorch", facts, stem.with_suffix(".npz"), weight_bits=weight_bits
    )
    network, samples = found.floating, found.samples
    assert network is not None and samples is not None
    exact = codesign.run_float(network, samples, membranes=False)
    whole = codesign.run_golden(found.frozen, samples, membranes=False)
    with np.load(stem.with_suffix(".reference.npz")) as reference:
        decisions = reference["decisions"][1::2]
        spikes = [reference[f"spikes{index}"][1::2] for index in range(len(network.layers))]

    def accuracy(decided: np.ndarray) -> float:
        return float(np.mean(decided == samples.labels))

    layers = []
    for index, layer in enumerate(found.frozen.layers):
        # Neurons that lead nowhere are left out of the integers.
        integers = compared(network.layers[index].name, spikes[index][..., layer.trained_index], whole.spikes[index])
        layers.append(
            {
                "layer": integers.layer,
                "spikes": int(spikes[index].sum()),
                "float_differs": int(np.count_nonzero(spikes[index] != exact.spikes[index])),
                "jaccard": integers.jaccard,
                "f1": integers.f1,
                "lag": integers.lag,
            }
        )
    document: dict[str, Any] = {
        "images": len(samples),
        "weight_bits": weight_bits,
        "synapses": found.frozen.n_synapses,
        "accuracy_snntorch": accuracy(decisions),
        "accuracy_float": accuracy(exact.decisions),
        "accuracy_integers": accuracy(whole.decisions),
        "layers": layers,
    }
    if n_verified:
        document["hardware"] = verify(stem, found.frozen, samples.take(slice(0, n_verified)), decisions[:n_verified])
    stem.with_suffix(".compared.json").write_text(json.dumps(document, indent=1) + "\n")
    return document


def verify(stem: Path, network: codesign.FrozenNetwork, samples: codesign.Stimulus, decisions: np.ndarray) -> Any:
    bundle = stem.with_suffix(".bundle")
    codesign.generate_bundle(network, codesign.map_hardware(network), bundle)
    found = codesign.verify_bundle(bundle, network, samples)
    return {
        "images": found.samples,
        "compared": sum(found.comparisons.values()),
        "mismatches": found.mismatches,
        "accuracy": found.accuracy_hardware,
        "accuracy_snntorch": float(np.mean(decisions == samples.labels)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000, help="training images")
    parser.add_argument("--samples", type=int, default=2000, help="test images that snnTorch runs")
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--verify", type=int, default=0, metavar="N", help="images that the Verilog is compared on")
    parser.add_argument("--reuse", action="store_true", help="compare what an earlier call has trained")
    arguments = parser.parse_args()
    stem = arguments.output / arguments.network
    if not arguments.reuse:
        export(arguments.network, stem, arguments.epochs, arguments.images, arguments.samples)
    document = compare(stem, arguments.weight_bits, arguments.verify)
    print(json.dumps(document, indent=1))
    sys.exit(4 if document.get("hardware", {}).get("mismatches") else 0)


if __name__ == "__main__":
    main()
