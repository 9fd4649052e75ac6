"""A network trained in snnTorch, as a NIR file with samples and with what snnTorch itself makes of them.

    python examples/snntorch_mnist.py dense runs/snntorch
    codesign import runs/snntorch/dense.nir --source snntorch --reset subtract --readout spike_count \\
        --samples runs/snntorch/dense.npz -o runs/dense
    codesign generate runs/dense && codesign verify runs/dense --set verify.samples=1000

It needs snnTorch and, for its exporter, nirtorch. Half of the samples decide widths, the others are compared.

Networks: ``dense`` (784-128-10, Leaky), ``conv`` (two convolutions in steps of 2), ``recurrent`` (RLeaky) and
``synaptic`` (neurons with a synaptic current). All have snnTorch's default reset: by subtraction, a timestep late.
Inputs are the pixels above a half, as one event in each timestep. Data: MNIST, $CODESIGN_DATA/mnist.

Written to the folder: NAME.nir; NAME.npz, the first test images as a stimulus; NAME.reference.npz with snnTorch's
decisions and the spikes of each layer on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nir
import numpy as np
import snntorch as snn
import torch
from snntorch.export_nir import export_to_nir
from torch import Tensor, nn

from codesign.config import DataConfig
from codesign.contract.stimulus import Stimulus
from codesign.data.loading import load_dataset

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000, help="training images")
    parser.add_argument("--samples", type=int, default=2000, help="test images that are written")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    data = load_dataset(DataConfig(set="mnist"))
    shape = (1, 28, 28) if arguments.network == "conv" else (784,)

    def binary(values: np.ndarray) -> Tensor:
        return torch.from_numpy((np.asarray(values) >= 0.5 * np.max(values)).astype(np.float32)).reshape(-1, *shape)

    network = NETWORKS[arguments.network]()
    for module in network:
        if isinstance(module, nn.Conv2d):
            # Torch's own start is too small for a binary picture: no neuron would fire, and nothing be learnt.
            nn.init.xavier_normal_(module.weight, gain=3.0)
    images, labels = binary(data.train.x)[: arguments.images], torch.from_numpy(data.train.labels).long()
    train(network, images, labels, arguments.epochs)
    network.eval()
    test, answers = binary(data.test.x), data.test.labels
    with torch.no_grad():
        decisions = torch.cat([run(network, part)[-1].sum(0).argmax(1) for part in test.split(1000)]).numpy()
        spikes = run(network, test[: arguments.samples])
    accuracy = float(np.mean(decisions == answers))
    print(f"{arguments.network}: {accuracy:.2%} of {len(answers):,} test images in snnTorch")
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / arguments.network
    nir.write(stem.with_suffix(".nir"), export_to_nir(network, test[:1], ignore_dims=[0]))
    events = test[: arguments.samples].reshape(arguments.samples, 1, -1).bool().expand(-1, TIMESTEPS, -1).numpy()
    Stimulus.from_dense(np.ascontiguousarray(events), answers[: arguments.samples]).save(stem.with_suffix(".npz"))
    np.savez_compressed(
        stem.with_suffix(".reference.npz"),
        decisions=decisions[: arguments.samples],
        accuracy=accuracy,
        **{f"spikes{index}": layer.transpose(0, 1).flatten(2).bool().numpy() for index, layer in enumerate(spikes)},
    )


if __name__ == "__main__":
    main()
