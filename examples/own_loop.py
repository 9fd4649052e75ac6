"""An own training loop, from samples to verified Verilog: ``python examples/own_loop.py [FOLDER]``.

The loop is yours: loss, optimiser, schedule, logging. Three things come from codesign: a spiking network whose neurons
have a counterpart in hardware (SpikingNetwork), sparse connections in any loop (PQRewirer), and everything after it.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import codesign

INPUTS, CLASSES, TIMESTEPS = 24, 4, 8
EPOCHS, BATCH = 24, 32
# Layers this small are not worth several threads.
torch.set_num_threads(1)


def make_samples(count: int, seed: int) -> codesign.Stimulus:
    """Events (count, TIMESTEPS, INPUTS), 0 or 1: each class has a group of inputs that are more active than others."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    rates = np.where(np.arange(INPUTS) % CLASSES == labels[:, None], 0.5, 0.15)
    events = random.random((count, TIMESTEPS, INPUTS)) < rates[:, None]
    return codesign.Stimulus.from_dense(events, labels)


training, validation, test = make_samples(512, 0), make_samples(128, 1), make_samples(64, 2)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-loop")

# 1. The network, and how it becomes integers: with two epochs of fine-tuning in the hardware's arithmetic.
config = codesign.parse_config(
    {
        "network": {"hidden": [32], "timesteps": TIMESTEPS, "readout": "spike_count"},
        "train": {"batch_size": BATCH, "threads": 1},
        "freeze": {"weight_bits": 5, "epochs": 2},
    }
)
model = codesign.SpikingNetwork(INPUTS, CLASSES, config.network, config.train)

# 2. Your loop. Inputs are (timesteps, batch, inputs).
inputs = torch.from_numpy(training.dense()).float().transpose(0, 1)
labels = torch.from_numpy(training.labels).long()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
steps = len(training) // BATCH
rewirer = codesign.PQRewirer(model, optimizer, steps_per_epoch=steps, epochs=EPOCHS, target_density=0.15)
model.scale_initial_weights(inputs[:, :256])
random = torch.Generator().manual_seed(0)
for epoch in range(EPOCHS):
    total = 0.0
    for chosen in torch.randperm(len(training), generator=random).split(BATCH):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs[:, chosen]).scores, labels[chosen])
        loss.backward()
        optimizer.step()
        rewirer.step()
        total += loss.item() / steps
    if epoch % 6 == 5:
        print(f"epoch {epoch + 1:2}  loss {total:.3f}  density {rewirer.density:.3f}")

# 3. Into integers. Every layer's weights are what the hardware will hold; the test samples are looked at once, now.
network = codesign.freeze_model(model, config, training, validation, earlier_epochs=EPOCHS).network
accuracy = np.mean(codesign.run_golden(network, test).decisions == test.labels)
print(f"frozen    {network.n_synapses} synapses of {network.layers[0].weight_bits} bits, accuracy {accuracy:.3f}")

# 4. Into Verilog: two lanes a layer, neurons placed by how often their sources fire on the validation samples.
mapping = codesign.map_hardware(network, codesign.hardware_config(network, lanes=2), validation)
cycles = codesign.estimate_machine(codesign.plan_machine(network, mapping), stimulus=validation)["cycles"]
codesign.generate_bundle(network, mapping, folder / "bundle", name="own_loop", vectors=test.take(slice(0, 4)))
network.save(folder / "network.safetensors")
print(f"generated {folder / 'bundle'}, about {cycles['latency_cycles']:.0f} clocks a sample")

# 5. Does the delivered Verilog do what the network does? Every spike and every membrane of every sample.
found = codesign.verify_bundle(folder / "bundle", network, test, folder / "verify", stress_samples=4)
print(f"verified  {found.samples} samples, {found.mismatches} mismatches, {found.latency_cycles:.0f} clocks a sample")
sys.exit(0 if found.passed else 4)
