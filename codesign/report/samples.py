"""Single samples of a run: what goes into the network, what its neurons hold, and how it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.report import plots, signals
from codesign.report.blocks import Section, gap, number
from codesign.report.collect import Record, is_picture

MAX_TRACES = 4
MAX_SAMPLES = 18
MAX_DRAWN_NEURONS = 1 << 10
# Values of each kind, over all layers, that a page holds to look at closely.
MAX_TRACED = 100_000
# What the values of a readout are, with their unit.
QUANTITIES = {
    "spike_count": ("output spikes so far", "spikes"),
    "membrane_last": ("potential u", "integer units of the potential"),
    "membrane_sum": ("sum of potentials u so far", "integer units of the sum"),
    "membrane_max": ("greatest potential u so far", "integer units of the potential"),
}


@dataclass(frozen=True)
class Chosen:
    """A sample that is shown, and why."""

    sample: int
    reason: str


def choose(record: Record) -> list[Chosen]:
    """Of the right decisions those with the greatest and the least margin, of the wrong ones that with the greatest.

    Without labels the greatest and the least margin of all.
    """
    outcome, stimulus = record.outcome, record.stimulus
    if outcome is None or stimulus is None or not len(stimulus):
        return []
    labels, margins = stimulus.labels, outcome.margins
    known = labels >= 0
    right = np.flatnonzero((labels == outcome.decisions) if known.any() else ~known)
    wrong = np.flatnonzero((labels != outcome.decisions) & known)
    prefix = "Right, " if known.any() else ""
    found = []
    if right.size:
        by_margin = right[np.argsort(-margins[right], kind="stable")]
        found.append(Chosen(int(by_margin[0]), f"{prefix}wide margin"))
        if right.size > 1:
            found.append(Chosen(int(by_margin[-1]), f"{prefix}narrow margin"))
    if wrong.size:
        found.append(Chosen(int(wrong[np.argmax(margins[wrong])]), "Wrong"))
    return found


def samples(record: Record) -> Section | None:
    """The chosen samples from the input to the decision; None before freezing."""
    found = choose(record)
    network, stimulus, outcome = record.network, record.stimulus, record.outcome
    trace = record.trace([item.sample for item in found]) if found else None
    if trace is None or network is None or stimulus is None or outcome is None:
        return None
    section = Section("samples", "From input to decision")
    quantity, unit = QUANTITIES[network.readout]
    section.text(
        "Test samples as the frozen network computes them, in integers: the right decision with the widest margin, the "
        "right decision with the narrowest margin, and the wrong decision with the widest, if there is one. The margin "
        f"says how far the class decided for is ahead of the next best at the end, in {unit}."
    )
    running = golden.readout_values(network, trace.spikes[-1], trace.potentials[-1])
    for row, item in enumerate(found):
        label = int(stimulus.labels[item.sample])
        decided = int(trace.decisions[row])
        told = f"{item.reason}: sample {item.sample}"
        if label >= 0:
            told += f", label {record.class_name(label)}"
        section.heading(f"{told}, decided {record.class_name(decided)}, margin {number(int(trace.margins[row]))}")
        panels = [
            input_panel(record, item.sample),
            (
                signals.decision(
                    running[row],
                    [plots.plain_text(record.class_name(index)) for index in range(network.n_outputs)],
                    decided,
                    label,
                    time_label(record),
                    quantity,
                ),
                f"readout of each class over time, sample {item.sample}",
            ),
        ]
        neurons = _telling(trace, row, network.timesteps, hidden=2, output=None)
        section.panels([*panels, *(neuron_panel(record, trace, row, *place) for place in neurons)])
    section.caption(
        input_words(record)
        + " Readout: blue the class decided for, orange the next best, green the label where it is neither, grey the "
        "other classes. " + NEURON_WORDS
    )
    return section


NEURON_WORDS = (
    "Neurons: dark line the potential u, before the reset; pale line the membrane v, stored after it; dashed line the "
    "threshold; triangles the spikes."
)


def _telling(
    trace: golden.Trace, row: int, timesteps: int, *, hidden: int, output: int | None
) -> list[tuple[int, int]]:
    """(layer, neuron) of hidden neurons that fire in about a third of the timesteps, first and last layer in turn, and
    of the last layer ``output`` if there is one. Of equals those whose potential varies most: neurons that see nothing
    but their bias look alike in every sample."""
    last = len(trace.spikes) - 1
    layers = [0, last - 1] if last > 1 else [0]
    chosen: list[tuple[int, int]] = []
    if last:
        for turn in range(hidden):
            layer = layers[turn % len(layers)]
            fired = trace.spikes[layer][row].sum(axis=0)
            varied = np.ptp(trace.potentials[layer][row], axis=0)
            order = np.lexsort((-varied, np.abs(fired - timesteps / 3)))
            position = turn // len(layers)
            if position < order.size:
                chosen.append((layer, int(order[position])))
    if output is not None or not last:
        chosen.append((last, int(trace.decisions[row]) if output is None else output))
    return chosen


def neuron_panel(
    record: Record,
    trace: golden.Trace,
    row: int,
    layer: int,
    neuron: int,
    hardware: npt.NDArray[np.int64] | None = None,
) -> tuple[Figure, str]:
    """One neuron's trace, and its description."""
    network = record.network
    assert network is not None
    is_last = layer == len(network.layers) - 1
    name = f"{record.layer_names[layer]}, neuron {neuron}"
    title = f"{name}: {plots.plain_text(record.class_name(neuron))}" if is_last else name
    # The last layer of a membrane readout never compares with its threshold.
    compares = not (is_last and network.membrane_readout)
    figure = signals.neuron(
        title,
        trace.potentials[layer][row][:, neuron],
        trace.membranes[layer][row][:, neuron],
        trace.spikes[layer][row][:, neuron],
        int(network.layers[layer].threshold[neuron]) if compares else None,
        time_label(record),
        hardware,
    )
    return figure, f"potential, membrane and spikes of {name} over the timesteps"


def time_label(record: Record) -> str:
    """The axis of time, with the length of a timestep where the data have one."""
    network = record.network
    step = None if network is None else network.coding.parameters.get("step_ms")
    if network is not None and network.coding.kind == "events" and isinstance(step, int | float):
        return f"timestep of {step:g} ms"
    return "timestep"


def input_panel(record: Record, sample: int) -> tuple[Figure, str]:
    """A sample's input as what it is: a picture, a series of values, or events."""
    network, stimulus = record.network, record.stimulus
    assert network is not None and stimulus is not None
    chosen = stimulus.take([sample])
    if chosen.values is None:
        events = chosen.dense()[0].astype(bool)[:, :MAX_DRAWN_NEURONS]
        return signals.events(events, time_label(record), _sources(record)), f"events of the input, sample {sample}"
    limit = network.coding.largest
    shape = record.sample_shape or (network.n_inputs,)
    values = chosen.values[0][: math.prod(shape)].reshape(shape)
    if is_picture(shape):
        return (
            signals.picture(values.reshape(-1, *shape[-2:]), limit),
            f"input of sample {sample} as a picture",
        )
    along = "input" if record.sample_shape is None else "position in the sample"
    series = values if values.ndim == 2 else values.reshape(-1, 1)
    return signals.series(series, limit, along), f"input of sample {sample} as a series of values"


def _sources(record: Record) -> str:
    """Label of the axis of an input that is events."""
    if record.sample_shape is None:
        return "input channel"
    return "pixel, row by row" if is_picture(record.sample_shape) else "position in the sample"


def input_words(record: Record) -> str:
    """How the input is drawn."""
    network, stimulus = record.network, record.stimulus
    assert network is not None and stimulus is not None
    if stimulus.values is None:
        words = "Input: a mark for each event."
        if network.n_inputs > MAX_DRAWN_NEURONS:
            words += f" Of {network.n_inputs:,} channels the first {MAX_DRAWN_NEURONS:,} are drawn."
    else:
        limit = network.coding.largest
        words = f"Input: what the hardware gets, {network.coding.input_bits}-bit values, 0 to {limit:,}"
        if record.sample_shape is not None and is_picture(record.sample_shape):
            words += ", dark to bright"
        words += "."
    if record.flags and record.sample_shape is not None:
        words += f" Not drawn: {len(record.flags)} flags ({', '.join(record.flags[:8])})."
    return words


def spikes(record: Record) -> Section:
    """Spikes and membranes of one sample, software's and hardware's in one drawing."""
    trace, stimulus, network, observed = record.shown_trace, record.stimulus, record.network, record.observed
    title = "Spikes and membranes" if observed is None else "Spikes and membranes, hardware on software"
    section = Section("spikes", title)
    if trace is None or stimulus is None or network is None:
        gap(section, record, "spikes", "freeze")
        return section
    sample, label = record.shown_sample, int(stimulus.labels[record.shown_sample])
    section.text(
        f"Sample {sample}"
        + (f", label {record.class_name(label)}" if label >= 0 else "")
        + f", decided {record.class_name(int(trace.decisions[0]))}"
        + (". The testbench recorded everything in this sample." if observed is not None else ".")
    )
    layers = raster_layers(record)
    if max((item[1].shape[1] for item in layers), default=0) > MAX_DRAWN_NEURONS:
        section.caption(f"Of layers with more than {MAX_DRAWN_NEURONS:,} neurons the first ones are drawn.")
        layers = [
            (name, soft[:, :MAX_DRAWN_NEURONS], None if hard is None else hard[:, :MAX_DRAWN_NEURONS])
            for name, soft, hard in layers
        ]
    time = time_label(record)
    drawn = [(signals.raster(layer, time, "neuron"), f"spikes of {layer[0]}, sample {sample}") for layer in layers]
    section.panels([input_panel(record, sample), *drawn], _raster_words(layers))
    last, decided = len(network.layers) - 1, int(trace.decisions[0])
    places = _telling(trace, 0, network.timesteps, hidden=MAX_TRACES - 1, output=decided)
    section.panels(
        [
            neuron_panel(
                record, trace, 0, layer, neuron, None if observed is None else observed.membranes[layer][:, neuron]
            )
            for layer, neuron in places
        ],
        NEURON_WORDS
        + (" Dots: v in the hardware." if observed is not None else "")
        + (" The output layer only integrates: it has no threshold." if network.membrane_readout and last else ""),
    )
    section.closer("Look closely at any neuron", traces(record, trace, places[0]))
    if left_out := _left_out(record, trace):
        section.caption(left_out)
    if observed is None:
        gap(section, record, "hardware spikes", "verify")
    return section


def _traced(network: FrozenNetwork, spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Neurons of a layer, spikes bool (timesteps, neurons), that an interactive figure can show: all, or those that
    fire most."""
    most = max(1, MAX_TRACED // (len(network.layers) * network.timesteps))
    return np.sort(np.argsort(-spikes.sum(axis=0), kind="stable")[:most])


def _left_out(record: Record, trace: golden.Trace) -> str:
    network = record.network
    assert network is not None
    counts = [
        (name, len(_traced(network, spikes[0])), spikes.shape[2])
        for name, spikes in zip(record.layer_names, trace.spikes, strict=True)
    ]
    parts = [f"{shown:,} of {all_of:,} neurons of {name}" for name, shown, all_of in counts if shown < all_of]
    return f"To look at closely: {', '.join(parts)}, those that fire most." if parts else ""


def traces(record: Record, trace: golden.Trace, chosen: tuple[int, int]) -> dict[str, Any]:
    """Spikes, potentials and membranes of the shown sample as data of an interactive figure; first shown is the neuron
    ``chosen`` (layer, neuron). The hardware's membranes are "equal" where they are the software's."""
    network, observed = record.network, record.observed
    assert network is not None
    layers = []
    for index, name in enumerate(record.layer_names):
        spikes = trace.spikes[index][0]
        neurons = _traced(network, spikes)
        potentials, stored = (found[index][0][:, neurons].T for found in (trace.potentials, trace.membranes))
        hardware = None if observed is None else observed.membranes[index][:, neurons].T
        is_last = index == len(network.layers) - 1
        spiking = network.spiking[index]
        layers.append(
            {
                "name": name,
                "neurons": neurons.tolist(),
                "names": [record.class_name(neuron) for neuron in neurons.tolist()] if is_last else None,
                "spiking": spiking,
                "u": potentials.tolist(),
                "v": stored.tolist(),
                "spikes": [np.flatnonzero(column).tolist() for column in spikes[:, neurons].T],
                "threshold": network.layers[index].threshold[neurons].tolist() if spiking else None,
                "hardware": None
                if hardware is None
                else "equal"
                if np.array_equal(hardware, stored)
                else hardware.tolist(),
            }
        )
    return {"kind": "traces", "time": time_label(record), "chosen": list(chosen), "layers": layers}


def _raster_words(layers: list[signals.RasterLayer]) -> str:
    compared = [(software, hardware) for _, software, hardware in layers if hardware is not None]
    if not compared:
        return "Blue marks: spikes in software (golden model)."
    words = "Wide blue marks: software (golden model). Narrow orange marks inside them: hardware (RTL simulation)."
    if any(np.any(software != hardware) for software, hardware in compared):
        words += " Red crosses: they differ."
    return words


def raster_layers(record: Record) -> list[signals.RasterLayer]:
    """Spikes of the shown sample by layer, software's and hardware's; not of a last layer that has none."""
    trace, network, observed = record.shown_trace, record.network, record.observed
    if trace is None or network is None:
        return []
    layers: list[signals.RasterLayer] = [
        (name, trace.spikes[index][0], observed.spikes[index] if observed else None)
        for index, name in enumerate(record.layer_names)
    ]
    return layers[:-1] if network.membrane_readout else layers


def thumbnails(section: Section, record: Record) -> None:
    """Pictures of test samples with label and decision, wrong ones first, if inputs are pictures."""
    shape, stimulus, decisions = record.image_shape, record.stimulus, record.decisions
    if shape is None or stimulus is None or stimulus.values is None or decisions is None or record.network is None:
        return
    wrong = np.nonzero((stimulus.labels != decisions) & (stimulus.labels >= 0))[0][: MAX_SAMPLES - 4]
    right = np.nonzero(stimulus.labels == decisions)[0][: MAX_SAMPLES - wrong.size]
    scale = 255 / record.network.coding.largest
    items = []
    for index in [*wrong, *right]:
        pixels = np.rint(stimulus.values[index] * scale).astype(np.uint8).reshape(shape)
        label, decision = (record.class_name(int(of[index])) for of in (stimulus.labels, decisions))
        is_wrong = bool(stimulus.labels[index] != decisions[index])
        items.append(
            {
                "uri": plots.image_uri(pixels),
                "alt": f"sample {index}",
                "bad": is_wrong,
                "label": f"{label} read as {decision}" if is_wrong else label,
            }
        )
    section.samples(items)
    section.caption("Test samples as the hardware gets them. Red: wrong decisions.")
