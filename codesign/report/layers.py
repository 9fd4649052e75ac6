"""The cards of layers: sizes, memory and work of each, and what convolutions and pools read, store and do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codesign.contract.network import INPUT, Convolution
from codesign.machine.layouts import LEAKS, index_width
from codesign.report.blocks import Section, gap, number, share
from codesign.report.collect import Record


def layers(record: Record) -> Section:
    section = Section("layers", "Layers")
    network = record.network
    if network is None:
        gap(section, record, "layers", "freeze")
        return section
    measured = (record.verification or {}).get("layers", [])
    verified = (record.verification or {}).get("samples")
    spikes_per_sample = record.figures.get("spikes_per_verified_sample") or record.figures.get("spikes_per_sample")
    described = record.sidecar.layers if record.sidecar else ()
    shared = record.sidecar is not None and record.sidecar.shape == "folded"
    head = [
        "layer", "inputs", "neurons", "synapses", "density", "weight bits", "membrane bits", "lanes",
        "memory, bits", "bits per synapse", "spikes per sample", "operations per sample", "lane use",
    ]  # fmt: skip
    rows = []
    for index, (name, layer) in enumerate(zip(record.layer_names, network.layers, strict=True)):
        entry = described[index] if index < len(described) else None
        clocks = measured[index] if index < len(measured) else None
        bits = sum(memory.depth * memory.width for memory in entry.memories) if entry and not shared else None
        rows.append(
            [
                name,
                number(sum(projection.n_sources for projection in layer.projections)),
                number(layer.n_out),
                number(layer.n_synapses),
                share(network.layer_density[index]),
                layer.weight_bits,
                layer.membrane_width,
                number(entry.lanes if entry else None),
                number(bits),
                number(bits / layer.n_synapses if bits and layer.n_synapses else None, 1),
                number(item(spikes_per_sample, index), 1),
                number(clocks["synaptic_operations"] / verified if clocks and verified else None, 0),
                share(clocks["lane_use"] if clocks else None),
            ]
        )
    section.table(head, rows)
    leak = {layer.leak.kind + (" by neuron" if layer.varying & set(LEAKS) else "") for layer in network.layers}
    first, currents = network.layers[0], sorted({layer.current_width for layer in network.layers if layer.has_current})
    terms = f", synaptic currents of {' / '.join(map(str, currents))} bits" if currents else ""
    rests = sorted({layer.refractory for layer in network.layers if layer.refractory})
    terms += f", rests of {' / '.join(map(str, rests))} timesteps after a spike" if rests else ""
    section.caption(
        f"{network.timesteps} timesteps, input coding '{network.coding.kind}', readout '{network.readout}', "
        f"leak '{' / '.join(sorted(leak))}', reset '{first.reset}'{' a timestep late' if first.reset_delay else ''}"
        f"{terms}. Memory: row tables, synapses and "
        f"parameters in images{', shared by all layers of the one engine' if shared else ''}."
    )
    if record.sidecar is None:
        gap(section, record, "lanes and memory", "generate")
    return section


def pictures(record: Record) -> Section | None:
    """What convolutions and pools read, store and do; no card where there are none."""
    network = record.network
    if network is None or not any(part.source_shape for layer in network.layers for part in layer.projections):
        return None
    section = Section("pictures", "Convolutions and pools")
    measured = (record.verification or {}).get("layers", [])
    verified = (record.verification or {}).get("samples")
    events = source_events(record)
    shared = record.sidecar is not None and record.sidecar.shape == "folded"
    described = () if record.sidecar is None or shared else record.sidecar.layers
    rows = []
    projections = [
        (index, number, projection)
        for index, layer in enumerate(network.layers)
        for number, projection in enumerate(layer.projections)
    ]
    for index, number_of, projection in projections:
        layer, name = network.layers[index], record.layer_names[index]
        connections, pool = projection.connections, projection.pool
        if number_of > 0:
            sender = "the input" if projection.source == INPUT else record.layer_names[projection.source]
            name = f"{name}, also from {sender}"
        entry = described[index] if index < len(described) else None
        clocks = measured[index] if index < len(measured) else None
        taps, unrolled = connections.n_weights, connections.n_operations
        stored = [memory for memory in entry.memories if memory.role == "synapses"] if entry else []
        width = stored[0].width if stored else None
        # A synapse of a layer of single ones holds a slot and its weight.
        plain = (index_width(entry.n_slots) + entry.weight_bits) * unrolled / taps if entry and taps else None
        # What is measured of a layer is of its projections together: it stands in the first one's row.
        first = number_of == 0
        operations = clocks["synaptic_operations"] / verified if first and clocks and verified else None
        walked = clocks["accumulate_clocks"] / verified if first and clocks and verified else None
        kernel = "single synapses"
        if isinstance(connections, Convolution):
            height, across = connections.kernel
            kernel = size_of((height, across)) + (f", stride {connections.stride}" if connections.stride > 1 else "")
        rows.append(
            [
                name,
                size_of(projection.source_shape) if projection.source_shape else number(projection.n_sources),
                size_of((pool.size, pool.size)) if pool is not None and pool.size > 1 else "",
                kernel,
                size_of(layer.shape) if layer.shape else number(layer.n_out),
                number(taps),
                number(unrolled),
                number(width),
                number(plain, 0) if isinstance(connections, Convolution) else number(width),
                # Which of a layer's own events come too late to be walked is not recorded.
                number(None if projection.source == index else item(events, projection.source + 1), 1),
                number(operations / entry.lanes if entry and operations is not None else None),
                number(walked),
            ]
        )
    section.table(
        [
            "layer", "reads", "pool", "kernel", "gives", "taps or synapses", "unrolled", "bits of each",
            "unrolled, bits", "events per sample", "operations / lanes", "clocks of accumulation",
        ],
        rows,
    )  # fmt: skip
    section.caption(
        "Sizes: channels, height, width. A tap is stored once. Unrolled: the single synapses that it stands for, and "
        "the bits that those would take for each tap, row tables left out. Per verified sample: events that reach the "
        "layer, its synaptic operations over its lanes, and the clocks in which it accumulates. These clocks exceed "
        "the operations over the lanes, for all projections of a layer together, by taps that fall off the border, by "
        "lanes that wait for the fullest, and by filling and draining."
    )
    return section


def size_of(shape: Sequence[int]) -> str:
    """Channels, height and width; without a space, so that no line breaks in it."""
    return "\N{MULTIPLICATION SIGN}".join(map(str, shape))


def source_events(record: Record) -> list[float | None]:
    """Mean events per verified sample of the input, then of each layer."""
    spikes, stimulus, verified = (
        record.figures.get("spikes_per_verified_sample"),
        record.stimulus,
        record.verification,
    )
    first: float | None = None
    if stimulus is not None and verified is not None:
        chosen = stimulus.take(slice(0, verified["samples"]))
        found = chosen.sources if chosen.values is None else chosen.values.nonzero()[0]
        count = 0 if found is None else found.size
        first = count / len(chosen) if len(chosen) else None
    return [first, *spikes] if isinstance(spikes, list) else [first]


def item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None
