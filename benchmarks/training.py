"""Training throughput beside snnTorch and SpikingJelly: `python benchmarks/training.py [--json] [--threads N]`.

One optimiser step (forward, backward, Adam) of the same network on the same batch with the same torch, threads and
treatment of denormals, all in one process, round by round in turn. A ratio is the median over the rounds of the
peer's time over ours in that round, so that load which comes and goes meets both; "cpu_*" are the same from processor
time, which other processes on the machine hardly touch (with one thread). The peers run in the mode that is fastest on
a CPU: SpikingJelly multi-step, snnTorch's loop over timesteps with the weights applied either in the loop or to all
timesteps at once, whichever is quicker. Inputs are random binary events.

The peers are installed without their dependencies into the user's cache, so that they share this torch (SpikingJelly's
torchvision would replace it). What cannot be installed is null, with the reason under "missing".
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codesign.config import Config, parse_config
from codesign.train.kernels import native
from codesign.train.kernels.events import find_events
from codesign.train.losses import total_loss
from codesign.train.model import SpikingNetwork

PEERS = {
    "snntorch": ("snntorch==1.0.0",),
    "spikingjelly": ("spikingjelly==2.0.0", "loguru==0.7.3", "tqdm==4.70.1"),
}
EVENT_DENSITY = 0.13  # mean grey value of MNIST
SPARSE_DENSITY = 0.1
KERNEL_DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3)
TAP_DENSITIES = (0.05, 0.1, 0.2, 0.3)
CLASSES = 10

Step = Callable[[], object]
Times = dict[str, list[tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description="training throughput beside snnTorch and SpikingJelly")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of torch")
    parser.add_argument("--rounds", type=int, default=25, help="repetitions of every contestant")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    missing = {name: reason for name in PEERS if (reason := provide(name))}
    dense = timed(dense_steps(missing), arguments.rounds)
    conv = timed(conv_steps(missing), arguments.rounds)
    taps = timed(tap_steps(), arguments.rounds)
    figures = {
        "ratio": {name: middle(ratios(dense, name)) for name in PEERS},
        "conv": {name: middle(ratios(conv, name)) for name in PEERS},
        "details": {"dense": details(dense), "conv": details(conv), "taps": details(taps)},
        "taps": {name: over(taps, name) for name in taps},
        "sparse_kernels_cpu_milliseconds": sparse_kernels(max(5, arguments.rounds // 3)),
        "missing": missing,
        "threads": arguments.threads,
        "load": os.getloadavg()[0],
        "machine": processor(),
        "torch": torch.__version__,
        "kernel": "native" if native.library() is not None else "plain",
    }
    print(json.dumps(figures) if arguments.json else table(figures))


def provide(name: str) -> str:
    """Make a peer importable; the reason if it cannot be."""
    folder = Path(platformdirs.user_cache_dir("codesign")) / "benchmarks" / "-".join(PEERS[name])
    if not (folder / name).is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        result = subprocess.run([*command, *PEERS[name]], capture_output=True, text=True)
        if result.returncode:
            return (result.stderr.strip().splitlines() or ["pip failed"])[-1]
    sys.path.append(str(folder))
    try:
        importlib.import_module("snntorch" if name == "snntorch" else "spikingjelly.activation_based.neuron")
    except ImportError as error:
        return str(error)
    return ""


def configuration(**network: Any) -> Config:
    """784 or 28 x 28 binary inputs, leak 3/4, reset by subtraction, arctangent surrogate."""
    return parse_config(
        {
            "network": {"leak": "shift", "leak_shift": 2, "reset": "subtract", "bias": False}
            | {"readout": "spike_count", **network},
            "train": {"surrogate": "atan", "surrogate_width": 1.0, "label_smoothing": 0.0, "optimizer": "adam"},
        }
    )


def training_step(network: Callable[[], Tensor], parameters: list[Tensor]) -> Step:
    """Forward, backward and Adam for a network that returns the loss."""
    optimizer = torch.optim.Adam(parameters, lr=1e-4)

    def step() -> None:
        loss = network()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def our_step(
    config: Config,
    network: SpikingNetwork,
    events: Tensor,
    labels: Tensor,
    density: float = 1.0,
    *,
    taps: bool = True,
    bfloat16: bool = False,
) -> Step:
    """The trainer's step; with ``density`` < 1 the weights are masked, and their gradients as the trainer does.

    taps : let convolutions go over the taps that there are, as the trainer does between rewirings.
    """
    weights = list(network.sparse_parameters().values())
    random = torch.Generator().manual_seed(1)
    masks = [torch.rand(weight.shape, generator=random) < density for weight in weights]
    named = dict(zip(network.sparse_parameters(), masks, strict=True)) if density < 1 and taps else {}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    with torch.no_grad():
        for weight, mask in zip(weights, masks, strict=True):
            weight.mul_(mask)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, bfloat16), network.connected(named, every_gradient=False):
            output = network(events)
        loss = total_loss(output, labels, config.train)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if density < 1:
            for weight, mask in zip(weights, masks, strict=True):
                assert weight.grad is not None
                weight.grad.mul_(mask)
        optimizer.step()

    return step


def dense_steps(missing: dict[str, str], timesteps: int = 16, batch: int = 128, hidden: int = 512) -> dict[str, Step]:
    """784-hidden-10: one step of every contestant, with the same initial weights."""
    config = configuration(hidden=[hidden], timesteps=timesteps)
    random = torch.Generator().manual_seed(0)
    events = (torch.rand(timesteps, batch, 784, generator=random) < EVENT_DENSITY).float()
    labels = torch.randint(0, CLASSES, (batch,), generator=random)
    networks = [SpikingNetwork(784, CLASSES, config.network, config.train) for _ in range(2)]
    for network in networks:
        network.scale_initial_weights(events)
    initial = [weight.detach().clone() for weight in networks[0].sparse_parameters().values()]

    def linears() -> list[nn.Linear]:
        layers = [nn.Linear(784, hidden, bias=False), nn.Linear(hidden, CLASSES, bias=False)]
        with torch.no_grad():
            for layer, weight in zip(layers, initial, strict=True):
                layer.weight.copy_(weight)
        return layers

    def loss_of(counts: Tensor) -> Tensor:
        return F.cross_entropy(counts * (10.0 / timesteps), labels)

    def parameters(layers: list[nn.Linear]) -> list[Tensor]:
        return [layer.weight for layer in layers]

    steps = {
        "codesign": our_step(config, networks[0], events, labels),
        "codesign, 10 % of the weights": our_step(config, networks[1], events, labels, SPARSE_DENSITY),
    }
    if "spikingjelly" not in missing:
        layers, neurons = linears(), [jelly_neuron() for _ in range(2)]

        def spikingjelly() -> Tensor:
            signal = events
            for layer, neuron in zip(layers, neurons, strict=True):
                neuron.reset()
                signal = neuron(layer(signal))
            return loss_of(signal.sum(0))

        steps["spikingjelly"] = training_step(spikingjelly, parameters(layers))
    if "snntorch" not in missing:
        looped, hoisted, cells = linears(), linears(), leaky(2)
        steps["snntorch"] = training_step(lambda: loss_of(snn_looped(looped, cells, events)), parameters(looped))
        steps["snntorch, weights before the loop"] = training_step(
            lambda: loss_of(snn_hoisted(hoisted, cells, events)), parameters(hoisted)
        )
    rows, spikes = events.flatten(0, 1), (torch.rand(timesteps * batch, hidden, generator=random) < 0.15).float()
    gradients = [torch.randn(timesteps * batch, weight.shape[0], generator=random) for weight in initial]

    def matmul() -> tuple[Tensor, ...]:
        forward = F.linear(rows, initial[0]), F.linear(spikes, initial[1])
        return *forward, gradients[1] @ initial[1], gradients[1].t() @ spikes, gradients[0].t() @ rows

    steps["matrix products alone"] = matmul
    return steps


def conv_steps(missing: dict[str, str], timesteps: int = 8, batch: int = 32) -> dict[str, Step]:
    """28 x 28 - conv 16 - pool - conv 32 - pool - 10, kernels 3 x 3, average pooling."""
    pool = {"kind": "pool", "size": 2}
    layers = [{"kind": "conv", "channels": 16}, pool, {"kind": "conv", "channels": 32}, pool]
    config = configuration(layers=layers, timesteps=timesteps)
    random = torch.Generator().manual_seed(0)
    events = (torch.rand(timesteps, batch, 784, generator=random) < EVENT_DENSITY).float()
    images = events.unflatten(-1, (1, 28, 28))
    labels = torch.randint(0, CLASSES, (batch,), generator=random)
    network = SpikingNetwork((1, 28, 28), CLASSES, config.network, config.train)
    network.scale_initial_weights(events)
    initial = [weight.detach().clone() for weight in network.sparse_parameters().values()]
    sparse = SpikingNetwork((1, 28, 28), CLASSES, config.network, config.train)
    sparse.scale_initial_weights(events)
    steps = {
        "codesign": our_step(config, network, events, labels),
        "codesign, 10 % of the weights": our_step(config, sparse, events, labels, SPARSE_DENSITY),
    }

    def modules() -> list[nn.Module]:
        made = [
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.Linear(32 * 49, CLASSES, bias=False),
        ]
        with torch.no_grad():
            for module, weight in zip(made, initial, strict=True):
                module.weight.copy_(weight)
        return list(made)

    def loss_of(counts: Tensor) -> Tensor:
        return F.cross_entropy(counts * (10.0 / timesteps), labels)

    def stacked(made: list[nn.Module], fire: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Class counts; every layer sees all timesteps at once."""
        signal = images
        for index, module in enumerate(made):
            flat = signal.flatten(0, 1)
            if index:
                flat = F.avg_pool2d(flat, 2)
            current = module(flat.flatten(1) if index == 2 else flat)
            signal = fire(index, current.unflatten(0, (timesteps, batch)))
        return signal.sum(0)

    def weights(made: list[nn.Module]) -> list[Tensor]:
        return [parameter for module in made for parameter in module.parameters()]

    if "spikingjelly" not in missing:
        jelly, neurons = modules(), [jelly_neuron() for _ in range(3)]

        def jelly_fire(index: int, current: Tensor) -> Tensor:
            neurons[index].reset()
            return neurons[index](current)

        steps["spikingjelly"] = training_step(lambda: loss_of(stacked(jelly, jelly_fire)), weights(jelly))
    if "snntorch" not in missing:
        snn, cells = modules(), leaky(3)

        def snn_fire(index: int, current: Tensor) -> Tensor:
            return snn_spikes(cells[index], current)

        steps["snntorch"] = training_step(lambda: loss_of(stacked(snn, snn_fire)), weights(snn))
    bound = modules()
    steps["convolutions alone"] = training_step(
        lambda: loss_of(stacked(bound, lambda index, current: current)), weights(bound)
    )
    return steps


def tap_steps(
    batch: int = 64, channels: tuple[tuple[int, ...], ...] = ((64,), (128, 128), (256, 256))
) -> dict[str, Step]:
    """Images of 32 x 32 - conv 64 - pool - conv 128, 128 - pool - conv 256, 256 - pool - 10, T = 1, by density."""
    pool = {"kind": "pool", "size": 2}
    layers: list[dict[str, Any]] = []
    for counts in channels:
        layers += [*({"kind": "conv", "channels": count, "norm": True} for count in counts), pool]
    config = configuration(layers=layers, timesteps=1, readout="membrane_sum")
    random = torch.Generator().manual_seed(0)
    images, labels = torch.rand(batch, 3072, generator=random), torch.randint(0, CLASSES, (batch,), generator=random)

    def step(density: float, **options: bool) -> Step:
        network = SpikingNetwork((3, 32, 32), CLASSES, config.network, config.train)
        network.scale_initial_weights(images)
        return our_step(config, network, images, labels, density, **options)

    steps = {"dense": step(0.2, taps=False), "dense, bfloat16": step(0.2, taps=False, bfloat16=True)}
    return steps | {f"codesign, {100 * density:g} % of the weights": step(density) for density in TAP_DENSITIES}


def jelly_neuron() -> Any:
    from spikingjelly.activation_based import neuron, surrogate  # type: ignore[import-not-found]

    return neuron.LIFNode(
        tau=4.0, decay_input=False, v_threshold=1.0, v_reset=None, surrogate_function=surrogate.ATan(alpha=2.0),
        detach_reset=True, step_mode="m",
    )  # fmt: skip


def leaky(count: int) -> list[Any]:
    import snntorch  # type: ignore[import-not-found]
    from snntorch import surrogate  # type: ignore[import-not-found]

    return [snntorch.Leaky(beta=0.75, spike_grad=surrogate.atan(alpha=2.0)) for _ in range(count)]


def snn_looped(layers: list[nn.Linear], cells: list[Any], events: Tensor) -> Tensor:
    """Class counts as snnTorch's tutorials compute them: all layers of a timestep, then the next."""
    membranes = [cell.reset_mem() for cell in cells]
    counted = []
    for signal in events:
        for index, (layer, cell) in enumerate(zip(layers, cells, strict=True)):
            signal, membranes[index] = cell(layer(signal), membranes[index])
        counted.append(signal)
    return torch.stack(counted).sum(0)


def snn_hoisted(layers: list[nn.Linear], cells: list[Any], events: Tensor) -> Tensor:
    """Class counts with one matrix product a layer for all timesteps."""
    signal = events
    for layer, cell in zip(layers, cells, strict=True):
        signal = snn_spikes(cell, layer(signal))
    return signal.sum(0)


def snn_spikes(cell: Any, current: Tensor) -> Tensor:
    membrane, spikes = cell.reset_mem(), []
    for drive in current:
        spike, membrane = cell(drive, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


def sparse_kernels(rounds: int, rows: int = 2048, sources: int = 784, targets: int = 512) -> dict[str, Any]:
    """torch's CSR products and codesign's beside the dense ones, by the density of the weights and of the events.

    The conversion is a figure of its own; transposes that a sparse form needs are inside.
    """
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(targets, sources, generator=random)
    gradient = torch.randn(rows, targets, generator=random)
    dense_events = (torch.rand(rows, sources, generator=random) < EVENT_DENSITY).float()
    turned = weight.t().contiguous()
    found: dict[str, Any] = {}
    for density in KERNEL_DENSITIES:
        masked = weight * (torch.rand(weight.shape, generator=random) < density)
        csr = masked.to_sparse_csr()
        zeros = torch.sparse_csr_tensor(
            csr.crow_indices(), csr.col_indices(), torch.zeros_like(csr.values()), size=csr.shape
        )
        events = (torch.rand(rows, sources, generator=random) < density).float()
        event_csr, transposed = events.to_sparse_csr(), events.t().contiguous().to_sparse_csr()
        ours = find_events(events, 1.0) if native.library() is not None else None
        steps: dict[str, Step] = {
            "forward, dense": lambda masked=masked: F.linear(dense_events, masked),
            "forward, CSR weights": lambda csr=csr: (csr @ dense_events.t().contiguous()).t().contiguous(),
            "forward, CSR events": lambda event_csr=event_csr: event_csr @ turned,
            "weight gradient, dense": lambda: gradient.t() @ dense_events,
            "weight gradient, CSR events": lambda transposed=transposed: (transposed @ gradient).t().contiguous(),
            "weight gradient, sampled at the mask": lambda zeros=zeros: torch.sparse.sampled_addmm(
                zeros, gradient.t().contiguous(), dense_events, beta=0.0
            ),
            "input gradient, dense": lambda masked=masked: gradient @ masked,
            "input gradient, CSR weights": lambda csr=csr: (csr.t() @ gradient.t().contiguous()).t().contiguous(),
            "events to CSR": lambda events=events: events.to_sparse_csr(),
        }
        if ours is not None:
            steps |= {
                "codesign: forward, events": lambda ours=ours: ours.times(weight.t()),
                "codesign: weight gradient, events": lambda ours=ours: ours.turned().times(gradient).t().contiguous(),
                "codesign: finding the events": lambda events=events: find_events(events, 1.0),
            }
        found[f"{density:g}"] = details(timed(steps, rounds))["cpu_milliseconds"]
    return found


def timed(steps: dict[str, Step], rounds: int) -> Times:
    """(wall, processor) milliseconds of each contestant in each round; the first three rounds warm up, uncounted."""
    times: Times = {name: [] for name in steps}
    for turn in range(rounds + 3):
        for name, step in steps.items():
            start = time.perf_counter(), time.process_time()
            step()
            if turn >= 3:
                times[name].append((1e3 * (time.perf_counter() - start[0]), 1e3 * (time.process_time() - start[1])))
    return times


def quartiles(values: list[float]) -> list[float]:
    return [round(value, 3) for value in statistics.quantiles(values, n=4)]


def ratios(times: Times, peer: str, clock: int = 0) -> list[float] | None:
    """Quartiles of the peer's time over ours, of its quickest variant; None if the peer is missing."""
    variants = [
        quartiles([theirs[clock] / ours[clock] for theirs, ours in zip(found, times["codesign"], strict=True)])
        for name, found in times.items()
        if name.startswith(peer)
    ]
    return min(variants, key=lambda found: found[1], default=None)


def over(times: Times, name: str, base: str = "dense") -> list[float]:
    """Quartiles of the wall time of ``base`` over a contestant's, in the same round."""
    return quartiles([theirs[0] / ours[0] for theirs, ours in zip(times[base], times[name], strict=True)])


def middle(found: list[float] | None) -> float | None:
    return None if found is None else found[1]


def details(times: Times) -> dict[str, Any]:
    """Quartiles of the times in milliseconds and of the ratios."""
    found: dict[str, Any] = {}
    for clock, prefix in enumerate(("", "cpu_")):
        found[f"{prefix}milliseconds"] = {
            name: quartiles([pair[clock] for pair in pairs]) for name, pairs in times.items()
        }
        if "codesign" in times:
            found[f"{prefix}ratio"] = {name: ratios(times, name, clock) for name in PEERS}
    return found


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['machine']}, {figures['threads']} threads, torch {figures['torch']}, load {figures['load']:.1f}, "
        f"{figures['kernel']} kernel"
    ]
    titles = {"dense": "784-512-10, T = 16, batch 128", "conv": "28x28 - conv 16 - conv 32 - 10, T = 8, batch 32"}
    titles["taps"] = "32x32 - conv 64, 128, 128, 256, 256 - 10, batch 64"
    for key, title in titles.items():
        found = figures["details"][key]
        lines += ["", f"{title:48} {'ms a step (quartiles)':>26} {'processor ms':>26}"]
        for name in found["milliseconds"]:
            cells = [
                f"{a:8.2f} {b:8.2f} {c:8.2f}" for a, b, c in (found[f"{p}milliseconds"][name] for p in ("", "cpu_"))
            ]
            lines.append(f"{name:48} {' '.join(cells)}")
        for name in PEERS if "ratio" in found else ():
            if name in figures["missing"]:
                lines.append(f"{name} is missing: {figures['missing'][name]}")
                continue
            cells = [f"{a:8.2f} {b:8.2f} {c:8.2f}" for a, b, c in (found[f"{p}ratio"][name] for p in ("", "cpu_"))]
            lines.append(f"{'times the throughput of ' + name:48} {' '.join(cells)}")
    for name, found in figures["taps"].items():
        lines.append(f"{'times the steps of dense, ' + name:60} {' '.join(f'{value:8.2f}' for value in found)}")
    sparse = figures["sparse_kernels_cpu_milliseconds"]
    lines += ["", f"{'2048 x 784 x 512, processor ms at density':48} " + " ".join(f"{d:>8}" for d in sparse)]
    for name in next(iter(sparse.values())):
        lines.append(f"{name:48} " + " ".join(f"{row[name][1]:8.2f}" for row in sparse.values()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
