"""The sections of a run's report. Each function adds one card, or says what is missing and how to get it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from codesign import plots
from codesign.report.blocks import Section, number, share
from codesign.report.collect import Record

MAX_TRACES = 4
MAX_FIELDS = 24
MAX_SAMPLES = 14
MAX_DRAWN_NEURONS = 1 << 10


def accuracy(record: Record) -> Section:
    section = Section("accuracy", "Accuracy", "half")
    figures = record.figures
    names = {
        "float network": ("accuracy_float", "train"),
        "frozen integers": ("accuracy_frozen", "freeze"),
        "hardware": ("accuracy_hardware", "verify"),
    }
    known = {name: figures[key] for name, (key, _) in names.items() if figures.get(key) is not None}
    total = len(record.stimulus) if record.stimulus is not None else 0
    counts = dict.fromkeys(known, total)
    if "hardware" in known:
        counts["hardware"] = figures.get("samples_verified") or 0
    if known:
        caption = "On the test set. Bands: 95 % interval (Wilson) for the number of samples."
        if "hardware" in known and total and counts["hardware"] != total:
            caption += f" Hardware: the {counts['hardware']:,} samples simulated, of {total:,}."
        section.figure(plots.accuracy(known, counts), "accuracy of the float, frozen and hardware network", caption)
    for name, (key, verb) in names.items():
        if figures.get(key) is None:
            section.missing(f"accuracy of the {name}", f"codesign {verb} {record.name}")
    if figures.get("balanced_accuracy") is not None:
        section.caption(f"Balanced accuracy of the frozen network: {figures['balanced_accuracy']:.2%}.")
    return section


def confusion(record: Record) -> Section:
    section = Section("confusion", "Confusion", "half")
    trace = record.trace
    if trace is None or record.stimulus is None:
        section.missing("decisions", f"codesign freeze {record.name}")
        return section
    labels = record.stimulus.labels
    known = labels >= 0
    if not known.any():
        section.missing("labels of the samples", state="unknown")
        return section
    classes = max(int(labels.max()) + 1, trace.values.shape[1])
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels[known], trace.decisions[known]), 1)
    names = class_names(record, classes)
    section.figure(
        plots.confusion(matrix, names),
        "confusion matrix of the frozen network",
        f"Frozen network on {int(known.sum()):,} test samples; {int(known.sum() - np.trace(matrix)):,} wrong (red).",
    )
    return section


def class_names(record: Record, classes: int) -> list[str]:
    """Names of the classes; AAMI letters for ECG beats, numbers elsewhere."""
    if record.config is not None and record.config.data.set == "mitbih-beats" and classes <= 5:
        return ["N", "S", "V", "F", "Q"][:classes]
    return [str(index) for index in range(classes)]


def samples(record: Record) -> Section | None:
    """Pictures of test samples with label and decision, wrong ones first; None unless inputs are pictures."""
    shape, stimulus, trace = record.image_shape, record.stimulus, record.trace
    if shape is None or stimulus is None or stimulus.values is None or trace is None or record.network is None:
        return None
    section = Section("samples", "Samples")
    wrong = np.nonzero((stimulus.labels != trace.decisions) & (stimulus.labels >= 0))[0][:MAX_SAMPLES]
    right = np.nonzero(stimulus.labels == trace.decisions)[0][: max(4, MAX_SAMPLES - wrong.size)]
    scale = 255 / ((1 << record.network.coding.input_bits) - 1)
    items = []
    for index in [*wrong, *right]:
        pixels = np.rint(stimulus.values[index] * scale).astype(np.uint8).reshape(shape)
        label, decision = int(stimulus.labels[index]), int(trace.decisions[index])
        items.append(
            {
                "uri": plots.image_uri(pixels),
                "alt": f"sample {index}",
                "bad": label != decision,
                "label": f"{label} read as {decision}" if label != decision else f"{label}",
            }
        )
    section.samples(items)
    section.caption("Inputs as the hardware gets them. Red: wrong decisions.")
    return section


def training(record: Record) -> Section:
    section = Section("training", "Training")
    if not record.history:
        section.missing("training history", f"codesign train {record.name}")
        return section
    fine_tuning = [row for row in record.run.stage("freeze").get("fine_tuning", []) if row.get("epoch")]
    rows = [*record.history, *({**row, "density": record.figures.get("density")} for row in fine_tuning)]
    section.figure(
        plots.training(rows, record.layer_names, len(record.history) if fine_tuning else None),
        "density, PQ index and validation accuracy over the epochs",
        "Sparse from the first step: connections of small weight are pruned by the fraction that the PQ index allows, "
        "and grown where momentum is large; density falls at the end of each iteration."
        + (" Shaded: fine-tuning in integers, connections fixed." if fine_tuning else ""),
    )
    return section


def spikes(record: Record) -> Section:
    section = Section("spikes", "Spikes")
    trace, stimulus, network = record.shown_trace, record.stimulus, record.network
    if trace is None or stimulus is None or network is None:
        section.missing("spikes", f"codesign freeze {record.name}")
        return section
    sample = record.shown_sample
    observed = record.observed
    layers: list[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]] = []
    picture = None
    chosen = stimulus.take([sample])
    if chosen.values is not None:
        shape = record.image_shape or (network.n_inputs, 1)
        picture = chosen.values[0].reshape(shape)
    else:
        layers.append(("input", chosen.dense()[0].astype(bool), None))
    for index, name in enumerate(record.layer_names):
        layers.append((name, trace.spikes[index][0], observed.spikes[index] if observed else None))
    if network.membrane_readout:
        layers.pop()
    if max(item[1].shape[1] for item in layers) > MAX_DRAWN_NEURONS:
        section.caption(f"Layers with more than {MAX_DRAWN_NEURONS} neurons are cut to their first ones.")
        layers = [
            (name, soft[:, :MAX_DRAWN_NEURONS], None if hard is None else hard[:, :MAX_DRAWN_NEURONS])
            for name, soft, hard in layers
        ]
    label = int(stimulus.labels[sample])
    title = f"sample {sample}, " + (f"label {label}, " if label >= 0 else "") + f"decision {int(trace.decisions[0])}"
    section.figure(
        plots.raster(layers, picture, title=title),
        f"spike raster of {title}",
        "Wide pale marks: software. Narrow dark marks: the simulated Verilog. Where both agree one lies in the other.",
    )
    if observed is None:
        section.missing("hardware spikes", f"codesign verify {record.name}")
    return section


def membranes(record: Record) -> Section | None:
    trace, network, observed = record.shown_trace, record.network, record.observed
    if trace is None or network is None:
        return None
    section = Section("membranes", "Membranes")
    first = trace.spikes[0][0].sum(axis=0)
    busiest = np.argsort(-first, kind="stable")[: MAX_TRACES - 1]
    chosen = [(0, int(neuron)) for neuron in busiest]
    if len(network.layers) > 1:
        chosen = [*chosen, (len(network.layers) - 1, int(trace.decisions[0]))]
    traces = [
        (
            f"{record.layer_names[layer]}, neuron {neuron}",
            trace.membranes[layer][0][:, neuron],
            observed.membranes[layer][:, neuron] if observed else None,
            int(network.layers[layer].threshold[neuron]),
        )
        for layer, neuron in chosen
    ]
    caption = "The value stored after reset. Line: software"
    caption += "; dots: hardware" if observed else ""
    caption += "; dashed: threshold."
    section.figure(plots.membranes(traces), "membranes of a few neurons over the timesteps", caption)
    return section


def layers(record: Record) -> Section:
    section = Section("layers", "Layers")
    network = record.network
    if network is None:
        section.missing("layers", f"codesign freeze {record.name}")
        return section
    measured = (record.verification or {}).get("layers", [])
    verified = (record.verification or {}).get("samples")
    spikes_per_sample = record.figures.get("spikes_per_sample")
    described: list[dict[str, Any]] = record.sidecar["layers"] if record.sidecar else []
    head = [
        "layer", "inputs", "neurons", "synapses", "density", "weight bits", "membrane bits", "lanes",
        "memory, bits", "bits per synapse", "spikes per sample", "operations per sample", "lane use",
    ]  # fmt: skip
    rows = []
    for index, (name, layer) in enumerate(zip(record.layer_names, network.layers, strict=True)):
        entry = described[index] if index < len(described) else None
        clocks = measured[index] if index < len(measured) else None
        bits = sum(memory["depth"] * memory["width"] for memory in entry["memories"]) if entry else None
        rows.append(
            [
                name,
                number(layer.n_in),
                number(layer.n_out),
                number(layer.n_synapses),
                share(network.layer_density[index]),
                layer.weight_bits,
                layer.membrane_width,
                number(entry["lanes"] if entry else None),
                number(bits),
                number(bits / layer.n_synapses if bits and layer.n_synapses else None, 1),
                number(item(spikes_per_sample, index), 1),
                number(clocks["synaptic_operations"] / verified if clocks and verified else None, 0),
                share(clocks["lane_use"] if clocks else None),
            ]
        )
    section.table(head, rows)
    leak = {layer.leak.kind for layer in network.layers}
    section.caption(
        f"{network.timesteps} timesteps, input coding '{network.coding.kind}', readout '{network.readout}', "
        f"leak '{' / '.join(sorted(leak))}', reset '{network.layers[0].reset}'. Memory: row tables, synapses and "
        "parameters in images."
    )
    if record.sidecar is None:
        section.missing("lanes and memory", f"codesign generate {record.name}")
    return section


def item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def weights(record: Record) -> Section | None:
    if record.network is None:
        return None
    section = Section("weights", "Weights", "half")
    section.figure(
        plots.weight_histogram(
            [
                (name, layer.weights, layer.weight_bits)
                for name, layer in zip(record.layer_names, record.network.layers, strict=True)
            ]
        ),
        "histogram of the integer weights of each layer",
    )
    return section


def connectivity(record: Record) -> Section | None:
    """Who is connected to the input, as pictures where the input is one."""
    if record.network is None:
        return None
    section = Section("connectivity", "Connections")
    layer = record.network.layers[0]
    shape = record.image_shape
    fan_out = np.diff(layer.indptr)
    if shape is not None:
        fan_in = np.bincount(layer.targets, minlength=layer.n_out)
        chosen = np.argsort(-fan_in, kind="stable")[:MAX_FIELDS]
        fields = np.zeros((chosen.size, layer.n_in), np.int64)
        row_of = np.full(layer.n_out, -1)
        row_of[chosen] = np.arange(chosen.size)
        rows = row_of[layer.targets]
        fields[rows[rows >= 0], layer.sources[rows >= 0]] = layer.weights[rows >= 0]
        section.figure(
            plots.connectivity_picture(fan_out.reshape(shape), fields.reshape(-1, *shape)),
            "synapses per input pixel, and the weights of the most connected neurons",
        )
    elif layer.n_in * layer.n_out <= 1 << 20:
        section.figure(plots.connectivity_matrix(layer.dense()), "weight matrix of the first layer")
    else:
        section.missing("picture of the first layer", state=f"{layer.n_in} x {layer.n_out} is too large to draw")
    silent = int(np.count_nonzero(fan_out == 0))
    section.caption(f"{silent:,} of {layer.n_in:,} inputs have no synapse left.")
    return section


def reproduce(record: Record) -> Section:
    section = Section("reproduce", "Reproduce")
    manifest = record.run.manifest
    section.code(f"codesign run config.toml -o {record.name}-again")
    section.caption("config.toml lies in the run directory, with every default spelled out.")
    facts: list[tuple[str, object]] = []
    if record.network is not None:
        facts.append(("network hash", record.network.hash))
    if isinstance(manifest.get("seeds"), dict):
        facts.append(("seeds", ", ".join(f"{name} {value}" for name, value in manifest["seeds"].items())))
    if isinstance(manifest.get("versions"), dict):
        facts.append(("versions", ", ".join(f"{name} {value}" for name, value in manifest["versions"].items())))
    section.facts(facts)
    stages = manifest["stages"]
    if stages:
        rows, bad = [], []
        for row, (name, stage) in enumerate(stages.items()):
            rows.append([name, stage.get("status", "unknown"), number(stage.get("seconds"), 1)])
            if stage.get("status") == "failed":
                bad.append(row)
        section.table(["stage", "status", "seconds"], rows, bad)
    for line in record.damaged:
        section.alert("bad", "Unreadable.", line)
    return section


def cycles(record: Record) -> Section:
    section = Section("cycles", "Clock cycles", "half")
    verification = record.verification
    if not verification or not verification.get("layers"):
        section.missing("cycles", f"codesign verify {record.name}")
        return section
    samples = verification["samples"]
    phases = [
        (
            name,
            {
                phase: layer[f"{phase}_clocks"] / samples
                for phase in ("accumulate", "sweep", "idle")
                if layer.get(f"{phase}_clocks") is not None
            },
        )
        for name, layer in zip(record.layer_names, verification["layers"], strict=False)
    ]
    section.figure(
        plots.cycle_bars(phases, verification.get("cycles_per_sample")),
        "clock cycles per sample of each layer by phase",
        "Mean over the samples simulated back to back; layers work at the same time, on successive timesteps. "
        "Red line: cycles per sample.",
    )
    figures = record.figures
    rows: list[tuple[str, object]] = [
        ("cycles per sample, back to back", number(verification.get("cycles_per_sample"), 1)),
        ("latency of a sample alone, cycles", number(verification.get("latency_cycles"), 1)),
    ]
    for target, mhz in (figures.get("fmax_mhz") or {}).items():
        latency = (figures.get("latency_us") or {}).get(target)
        interval = (figures.get("interval_us") or {}).get(target)
        rows.append(
            (f"on {target} at {mhz:.1f} MHz", f"{number(latency, 1)} us latency, {number(interval, 1)} us apart")
        )
    section.facts(rows)
    if not figures.get("fmax_mhz"):
        section.missing("clock frequency", f"codesign synth {record.name}")
    return section


def verification(record: Record) -> Section:
    section = Section("verification", "Verification")
    found = record.verification
    if found is None:
        section.missing("hardware against software", f"codesign verify {record.name}")
        return section
    first = found.get("first_divergence")
    if first:
        place = ", ".join(
            f"{name} {first[name]}"
            for name in ("phase", "sample", "timestep", "layer", "neuron")
            if first.get(name) not in (None, "")
        )
        section.alert(
            "bad",
            f"First divergence: {place}.",
            f"{first.get('what')}: expected {first.get('expected')}, got {first.get('got')}.",
        )
    decoder = found.get("decoder") or {}
    if decoder and not decoder.get("equal"):
        section.alert("bad", "The memory images do not hold the frozen network.", str(decoder.get("first")))
    rows, bad = [], []
    for row, (name, phase) in enumerate(found.get("phases", {}).items()):
        compared = phase.get("comparisons", {})
        rows.append(
            [
                name.replace("_", " "),
                number(phase.get("samples")),
                *(number(compared.get(kind)) for kind in COMPARED),
                number(sum(value for kind, value in compared.items() if kind not in COMPARED)),
                number(phase.get("mismatches")),
            ]
        )
        if phase.get("mismatches"):
            bad.append(row)
    section.table(["phase", "samples", *(kind.replace("_", " ") for kind in COMPARED), "others", "differ"], rows, bad)
    section.caption(
        f"{sum(found.get('comparisons', {}).values()):,} values compared exactly, in "
        f"{number(found.get('simulated_cycles'))} simulated clocks. The delivered Verilog is simulated as it is; "
        "expected values come from the frozen network and the samples through the golden model."
    )
    facts: list[tuple[str, object]] = [
        ("network hash", found.get("network_hash", "")),
        ("hash of the simulated files", found.get("files_hash", "")),
    ]
    if decoder.get("compared"):
        facts.append(
            ("synapses read back from the images", f"{decoder['compared']:,}, {decoder['differences']:,} differ")
        )
    if found.get("saturations") is not None and not found.get("mismatches"):
        facts.append(("membranes saturated", f"{found['saturations']:,} times, in hardware and software alike"))
    section.facts(facts)
    return section


COMPARED = ("spikes", "membranes", "output_spikes", "values", "decisions")
