"""A network trained with snnTorch, as a NIR file that `codesign import` takes: digits, 64-96-10, about 20 s.

    python examples/snntorch_digits.py runs/snn
    codesign import runs/snn/net.nir --source snntorch --reset subtract --readout spike_count \
        --samples runs/snn/data.npz -o runs/snn/run
    codesign generate runs/snn/run && codesign verify runs/snn/run

What it was trained on is in training.npz, for `--density .1 --fine-tune 20 --training runs/snn/training.npz`.

It needs snnTorch. The nodes are written with `nir` itself, as snnTorch's exporter writes them: tau = dt / (1 - beta),
r = tau / dt with dt = 1e-4.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nir
import numpy as np
import snntorch
import torch
from sklearn.datasets import load_digits

TIMESTEPS, EPOCHS, TRAINED = 16, 25, 1400
DT = 1e-4


def forward(network: torch.nn.ModuleDict, events: torch.Tensor) -> torch.Tensor:
    """Spikes of each class in all timesteps, (samples, classes), of events (samples, timesteps, inputs)."""
    first, second = network["lif1"].reset_mem(), network["lif2"].reset_mem()
    counts = torch.zeros(len(events), 10)
    for t in range(TIMESTEPS):
        spikes, first = network["lif1"](network["fc1"](events[:, t]), first)
        spikes, second = network["lif2"](network["fc2"](spikes), second)
        counts = counts + spikes
    return counts


def lif(module: snntorch.Leaky, count: int) -> nir.LIF:
    beta = np.full(count, float(module.beta), np.float32)
    tau = np.float32(DT) / (1 - beta)
    zeros, threshold = np.zeros_like(tau), np.full_like(tau, float(module.threshold))
    return nir.LIF(tau=tau, r=tau / np.float32(DT), v_leak=zeros, v_threshold=threshold, v_reset=zeros)


def affine(module: torch.nn.Linear) -> nir.Affine:
    return nir.Affine(module.weight.detach().numpy(), module.bias.detach().numpy())


def main(folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    pixels, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(pixels))
    pixels, labels = pixels[order] / 16, labels[order]
    events = rng.random((len(pixels), TIMESTEPS, 64)) < pixels[:, None]
    network = torch.nn.ModuleDict(
        {
            "fc1": torch.nn.Linear(64, 96), "lif1": snntorch.Leaky(beta=0.9),
            "fc2": torch.nn.Linear(96, 10), "lif2": snntorch.Leaky(beta=0.9),
        }
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    inputs, targets = torch.tensor(events, dtype=torch.float32), torch.tensor(labels)
    for _ in range(EPOCHS):
        for batch in torch.randperm(TRAINED).split(100):
            loss = torch.nn.functional.cross_entropy(forward(network, inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        decisions = forward(network, inputs[TRAINED:]).argmax(1).numpy()
    print(f"snnTorch: {100 * np.mean(decisions == labels[TRAINED:]):.2f} % of {len(decisions)} test samples")
    folder.mkdir(parents=True, exist_ok=True)
    nodes = affine(network["fc1"]), lif(network["lif1"], 96), affine(network["fc2"]), lif(network["lif2"], 10)
    nir.write(folder / "net.nir", nir.NIRGraph.from_list(*nodes))
    np.savez(folder / "data.npz", x=events[TRAINED:], y=labels[TRAINED:])
    np.savez(folder / "training.npz", x=events[:TRAINED], y=labels[:TRAINED])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/snn"))
