"""Second reference of the integer network, plain integers, from ARCHITECTURE.md alone; imports nothing of codesign."""

import json
import struct
from itertools import product
from pathlib import Path

TYPES = {"I8": ("b", 1), "I32": ("i", 4), "I64": ("q", 8)}


def read_network(path):
    """Frozen file as a dict: metadata, and in each projection a list of (target, weight) per source neuron."""
    raw = Path(path).read_bytes()
    start_of_data = 8 + struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:start_of_data]), raw[start_of_data:]
    network = json.loads(header["__metadata__"]["codesign"])

    def tensor(name):
        (letter, size), (start, end) = TYPES[header[name]["dtype"]], header[name]["data_offsets"]
        return list(struct.unpack(f"<{(end - start) // size}{letter}", data[start:end]))

    for number, layer in enumerate(network["layers"]):
        layer["bias"], layer["threshold"] = tensor(f"layer{number}.bias"), tensor(f"layer{number}.threshold")
        for name in [name for name in ("shift", "multiplier") if layer["leak"][name] is None]:
            layer["leak"][name] = tensor(f"layer{number}.leak.{name}")
        for index, link in enumerate(layer["projections"]):
            c, pool, prefix = link["connections"], link["pool"], f"layer{number}.projection{index}."
            if c["kind"] == "synapses":
                start, targets, weights = (tensor(prefix + name) for name in ("indptr", "targets", "weights"))
                rows = [[(targets[k], weights[k]) for k in range(*start[i : i + 2])] for i in range(c["n_in"])]
            else:
                taps = (tensor(prefix + name) for name in ("in_channel", "out_channel", "ky", "kx", "weights"))
                (channels, height, width), stride, pad = c["in_shape"], c["stride"], c["padding"]
                high, wide = ((c["in_shape"][d + 1] + 2 * pad - c["kernel"][d]) // stride + 1 for d in (0, 1))
                rows = [[] for _ in range(channels * height * width)]
                for (i, o, ky, kx, w), y, x in product(zip(*taps, strict=True), range(high), range(wide)):
                    row, column = y * stride + ky - pad, x * stride + kx - pad
                    if 0 <= row < height and 0 <= column < width:
                        rows[(i * height + row) * width + column].append(((o * high + y) * wide + x, w))
            (channels, height, width), size = (pool["shape"], pool["size"]) if pool else ((len(rows), 1, 1), 1)
            high, wide, places = height // size, width // size, product(*map(range, (channels, height, width)))
            inside = ((i, y // size, x // size, y // size < high and x // size < wide) for i, y, x in places)
            link["rows"] = [rows[(i * high + y) * wide + x] if fits else [] for i, y, x, fits in inside]
    return network


def step(layer, j, v, total, spiking=True):
    """One neuron, one timestep: (u, spike, stored v, saturated) from v and the unshifted weighted sum."""
    shift, factor = (x[j] if isinstance(x, list) else x for x in (layer["leak"]["shift"], layer["leak"]["multiplier"]))
    leaked = {"none": v, "shift": v - v // 2**shift, "multiply": v * factor // 2**shift}[layer["leak"]["kind"]]
    u, level = leaked + total * 2 ** layer["fraction_bits"] + layer["bias"][j], layer["threshold"][j]
    spike = spiking and (u > level if layer["compare"] == ">" else u >= level)
    reset = {"subtract": u - level, "zero": 0, "value": layer["reset_value"], "none": u}[layer["reset"]]
    after, limit = reset if spike else u, 2 ** (layer["membrane_width"] - 1)
    return u, int(spike), max(-limit, min(limit - 1, after)), int(not -limit <= after < limit)


def run(network, sample):
    """One sample: a list of source lists by timestep, or a flat list of values for coding 'current'."""
    layers, readout, current = network["layers"], network["readout"], network["coding"]["kind"] == "current"
    state, potentials, active = [[0] * layer["n_out"] for layer in layers], [], {n: {} for n in range(len(layers))}
    result = {"spikes": [[] for _ in layers], "membranes": [[] for _ in layers], "saturations": 0}
    for t in range(network["timesteps"]):
        active[-1] = {i: x for i, x in enumerate(sample) if x} if current else dict.fromkeys(sample[t], 1)
        for number, layer in enumerate(layers):
            totals, spiking = [0] * layer["n_out"], readout == "spike_count" or number < len(layers) - 1
            for link in layer["projections"]:  # active[number] still holds the layer's spikes of t - 1
                for j, part in ((j, w * x) for i, x in active[link["source"]].items() for j, w in link["rows"][i]):
                    totals[j] += part
            neurons = [step(layer, j, state[number][j], total, spiking) for j, total in enumerate(totals)]
            us, fired, state[number], clipped = map(list, zip(*neurons, strict=True))
            active[number] = {j: 1 for j, spike in enumerate(fired) if spike}
            result["saturations"] += sum(clipped)
            result["spikes"][number].append(fired)
            result["membranes"][number].append(state[number])
        potentials.append(us)
    by_class = list(zip(*(result["spikes"][-1] if readout == "spike_count" else potentials), strict=True))
    pick = {"spike_count": sum, "membrane_sum": sum, "membrane_max": max, "membrane_last": lambda us: us[-1]}[readout]
    result["values"] = [pick(column) for column in by_class]
    return {**result, "decision": result["values"].index(max(result["values"]))}
