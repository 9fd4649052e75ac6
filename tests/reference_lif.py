"""Second reference of the integer network: plain integers, dense loops, its own reading of the frozen file.

Written from the arithmetic in ARCHITECTURE.md alone; imports nothing of codesign.
"""

import json
import struct
from pathlib import Path

TYPES = {"I8": ("b", 1), "I32": ("i", 4), "I64": ("q", 8)}


def read_network(path):
    """Frozen file as a dict: metadata, with a dense weight table and constants in each layer."""
    raw = Path(path).read_bytes()
    start_of_data = 8 + struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:start_of_data]), raw[start_of_data:]
    network = json.loads(header["__metadata__"]["codesign"])

    def tensor(name):
        letter, size = TYPES[header[name]["dtype"]]
        start, end = header[name]["data_offsets"]
        return list(struct.unpack(f"<{(end - start) // size}{letter}", data[start:end]))

    for number, layer in enumerate(network["layers"]):
        indptr, targets, weights = (tensor(f"layer{number}.{name}") for name in ("indptr", "targets", "weights"))
        layer["table"] = table = [[0] * layer["n_out"] for _ in range(layer["n_in"])]
        for source in range(layer["n_in"]):
            for k in range(indptr[source], indptr[source + 1]):
                table[source][targets[k]] = weights[k]
        layer["bias"], layer["threshold"] = tensor(f"layer{number}.bias"), tensor(f"layer{number}.threshold")
    return network


def leaked(v, leak):
    if leak["kind"] == "shift":
        return v - v // 2 ** leak["shift"]
    if leak["kind"] == "multiply":
        return v * leak["multiplier"] // 2 ** leak["shift"]
    return v


def step(layer, j, v, total, spiking=True):
    """One neuron, one timestep: (u, spike, stored v, saturated) from v and the unshifted weighted sum."""
    u = leaked(v, layer["leak"]) + total * 2 ** layer["fraction_bits"] + layer["bias"][j]
    level = layer["threshold"][j]
    spike = spiking and (u > level if layer["compare"] == ">" else u >= level)
    after = u
    if spike:
        after = {"subtract": u - level, "zero": 0, "value": layer["reset_value"], "none": u}[layer["reset"]]
    stored = max(-(2 ** (layer["membrane_width"] - 1)), min(2 ** (layer["membrane_width"] - 1) - 1, after))
    return u, int(spike), stored, int(stored != after)


def run(network, sample):
    """One sample: a list of source lists by timestep, or a flat list of values for coding 'current'."""
    layers, readout, potentials = network["layers"], network["readout"], []
    current = network["coding"]["kind"] == "current"
    state = [[0] * layer["n_out"] for layer in layers]
    result = {"spikes": [[] for _ in layers], "membranes": [[] for _ in layers], "saturations": 0}
    for t in range(network["timesteps"]):
        active = {i: x for i, x in enumerate(sample) if x} if current else dict.fromkeys(sample[t], 1)
        for number, layer in enumerate(layers):
            spiking = readout == "spike_count" or number < len(layers) - 1
            fired, us = [], []
            for j in range(layer["n_out"]):
                total = sum(layer["table"][i][j] * x for i, x in active.items())
                u, spike, state[number][j], clipped = step(layer, j, state[number][j], total, spiking)
                fired.append(spike)
                us.append(u)
                result["saturations"] += clipped
            result["spikes"][number].append(fired)
            result["membranes"][number].append(list(state[number]))
            active = {j: 1 for j, spike in enumerate(fired) if spike}
        potentials.append(us)
    by_class = list(zip(*(result["spikes"][-1] if readout == "spike_count" else potentials), strict=True))
    pick = {"spike_count": sum, "membrane_sum": sum, "membrane_max": max, "membrane_last": lambda us: us[-1]}[readout]
    result["values"] = [pick(column) for column in by_class]
    result["decision"] = result["values"].index(max(result["values"]))
    return result
