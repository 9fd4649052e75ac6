"""Second reference of the integer network, plain integers, from docs/contract.md alone; imports nothing of codesign."""

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
        for field in [field for field in ("leak", "current_leak") if layer.get(field)]:
            for name in [name for name in ("shift", "multiplier") if layer[field][name] is None]:
                layer[field][name] = tensor(f"layer{number}.{field}.{name}")
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


def leaked(leak, j, x):
    """What x of neuron j leaks to."""
    shift, factor = (
        number[j] if isinstance(number, list) else number for number in (leak["shift"], leak["multiplier"])
    )
    return {"none": x, "shift": x - x // 2**shift, "multiply": x * factor // 2**shift}[leak["kind"]]


def saturate(x, width):
    """(x in so many bits, whether it did not fit)."""
    limit = 2 ** (width - 1)
    return max(-limit, min(limit - 1, x)), not -limit <= x < limit


def step(layer, j, state, total, spiking=True):
    """One neuron, one timestep: (u, spike, state, saturated) from the state (v, i, s before, timesteps of rest left)
    and the unshifted sum."""
    (v, i, spiked, rest), level = state, layer["threshold"][j]
    add, lost, late = total * 2 ** layer["fraction_bits"] + layer["bias"][j], False, layer.get("reset_delay", False)
    if layer.get("current_leak"):
        add, lost = saturate(leaked(layer["current_leak"], j, i) + add, layer["current_width"])
    if rest:
        return v, 0, (v, add, False, rest - 1), int(lost)
    u = leaked(layer["leak"], j, v) + add - (level if late and spiked else 0)
    spike = spiking and (u > level if layer["compare"] == ">" else u >= level)
    reset = {"subtract": u - level, "zero": 0, "value": layer["reset_value"], "none": u}[layer["reset"]]
    v, clipped = saturate(reset if spike and not late else u, layer["membrane_width"])
    return u, int(spike), (v, add, spike, layer.get("refractory", 0) if spike else 0), int(clipped or lost)


def run(network, sample):
    """One sample: a list of source lists by timestep, or a flat list of values for coding 'current'."""
    layers, readout, current = network["layers"], network["readout"], network["coding"]["kind"] == "current"
    state, potentials = [[(0, 0, False, 0)] * layer["n_out"] for layer in layers], []
    active = {n: {} for n in range(len(layers))}
    result = {name: [[] for _ in layers] for name in ("spikes", "membranes", "currents")} | {"saturations": 0}
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
            result["membranes"][number].append([v for v, *_ in state[number]])
            result["currents"][number].append([i for _, i, *_ in state[number]] if layer.get("current_leak") else [])
        potentials.append(us)
    by_class = list(zip(*(result["spikes"][-1] if readout == "spike_count" else potentials), strict=True))
    pick = {"spike_count": sum, "membrane_sum": sum, "membrane_max": max, "membrane_last": lambda us: us[-1]}[readout]
    result["values"] = [pick(column) for column in by_class]
    return {**result, "decision": result["values"].index(max(result["values"]))}
