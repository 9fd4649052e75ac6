"""The sections of a run's report. Each function adds one card, or says what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.config import RewiringConfig
from codesign.contract.network import INPUT, Convolution
from codesign.machine.layouts import LEAKS, index_width
from codesign.report import plots
from codesign.report.areas import RESOURCES, amount
from codesign.report.blocks import Section, gap, number, share
from codesign.report.collect import Record
from codesign.report.samples import thumbnails

MAX_FIELDS = 24
MAX_CONVOLUTIONS = 6
MAX_CLASSES = 40


def warned(record: Record) -> Section | None:
    """What the stages warned of; no card where there is nothing."""
    if not record.run.warnings:
        return None
    section = Section("warnings", "Warnings")
    for stage, text in record.run.warnings:
        section.alert("open", f"{stage}:", text)
    return section


def accuracy(record: Record) -> Section:
    section = Section("accuracy", "Accuracy", "half")
    figures = record.figures
    names = {
        "trained, floating point": (figures.get("accuracy_float"), "freeze"),
        "frozen, integers": (record.frozen_accuracy, "freeze"),
        "hardware": (record.hardware_accuracy, "verify"),
    }
    if record.run.is_imported:
        del names["trained, floating point"]
    known = {name: value for name, (value, _) in names.items() if value is not None}
    counts = dict.fromkeys(known, len(record.stimulus) if record.stimulus is not None else 0)
    if "hardware" in known:
        counts["hardware"] = figures.get("samples_verified") or 0
    if known:
        caption = "On the test set. Bands: 95 % interval (Wilson) for the number of samples."
        if counts.get("hardware"):
            caption += f" Hardware: {record.of_test_samples(counts['hardware'])}, simulated."
        section.figure(plots.accuracy(known, counts), "accuracy of the trained, frozen and hardware network", caption)
    for name, (value, verb) in names.items():
        if value is None and verb == "freeze" and record.run.is_imported:
            section.missing(f"accuracy, {name}", state="no labelled samples came with the network")
        elif value is None:
            gap(section, record, f"accuracy, {name}", verb)
    if figures.get("balanced_accuracy") is not None:
        section.caption(
            f"Balanced accuracy of the frozen network, the mean over the classes: {figures['balanced_accuracy']:.2%}."
        )
    thumbnails(section, record)
    return section


def confusion(record: Record) -> Section:
    section = Section("confusion", "Confusion", "half")
    if record.decisions is None:
        gap(section, record, "decisions", "freeze")
        return section
    matrix = confusion_matrix(record)
    if matrix is None:
        section.missing("labels of the samples", state="unknown")
        return section
    total = int(matrix.sum())
    section.figure(
        plots.confusion(matrix, [record.class_name(index) for index in range(len(matrix))]),
        "confusion matrix of the frozen network",
        f"Frozen network on {total:,} test samples; {total - int(np.trace(matrix)):,} wrong (red).",
    )
    return section


def classes(record: Record) -> Section | None:
    """Per class: samples, how many of them are found, and how many of the decisions for it are right."""
    matrix = confusion_matrix(record)
    if matrix is None or len(matrix) > MAX_CLASSES:
        return None
    section = Section("classes", "Classes")
    rows = []
    for index, found in enumerate(np.diagonal(matrix)):
        labelled, decided = int(matrix[index].sum()), int(matrix[:, index].sum())
        mistaken = np.where(np.arange(len(matrix)) == index, 0, matrix[index])
        most = f"{record.class_name(int(mistaken.argmax()))} ({int(mistaken.max())})" if mistaken.any() else ""
        rows.append(
            [
                record.class_name(index), number(labelled), share(found / labelled if labelled else None),
                share(found / decided if decided else None), most,
            ]
        )  # fmt: skip
    section.table(["class", "test samples", "of them found", "decisions that are right", "most often taken for"], rows)
    section.caption("In brackets how many samples. Frozen network on the test set.")
    return section


def confusion_matrix(record: Record) -> npt.NDArray[np.int64] | None:
    """Counts, int64 (label, decision), of the frozen network on labelled test samples; None where there are none."""
    if record.decisions is None or record.network is None or record.stimulus is None:
        return None
    known = record.stimulus.labels >= 0
    if not known.any():
        return None
    labels, decisions = record.stimulus.labels[known], record.decisions[known]
    count = max(int(labels.max()) + 1, record.network.n_outputs)
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, decisions), 1)
    return matrix


def training(record: Record) -> Section | None:
    """Loss, accuracy, density, firing rates over the epochs. None for a network that was not trained here."""
    if record.run.is_imported:
        return None
    section = Section("training", "Training")
    if not record.history:
        gap(section, record, "training history", "train")
        return section
    rows, quantised = training_rows(record)
    names = plots.training_panels(rows)
    section.panels(
        [
            (plots.training(name, rows, record.layer_names, quantised), f"{plots.TRAINING[name][0]} over the epochs")
            for name in names
        ],
        " ".join(
            ([structure_text(record.config.train.rewiring)] if record.config is not None else [])
            + (["Shaded: fine-tuning in integers, connections fixed."] if quantised is not None else [])
            + [TRAINING_WORDS[name] for name in names if name in TRAINING_WORDS]
            + work_sentences(record)
        ),
    )
    section.closer("Look closely at the epochs", curves(names, rows, record.layer_names, quantised))
    return section


def curves(
    names: Sequence[str], rows: Sequence[dict[str, Any]], layer_names: Sequence[str], quantised_from: int | None
) -> dict[str, Any]:
    """The panels of the training as data of an interactive figure."""
    return {
        "kind": "curves",
        "quantised_from": quantised_from,
        "panels": [
            {
                "title": plots.TRAINING[name][0],
                "label": plots.TRAINING[name][1],
                "percent": name in plots.SHARES,
                "lines": [
                    {"name": label, "colour": None if colour == plots.INK else colour, "values": values}
                    for label, colour, values in plots.training_lines(name, rows, layer_names)
                ],
            }
            for name in names
        ],
    }


TRAINING_WORDS = {
    "accuracy": "Accuracy in training: of the batches as they are trained on, while the weights still change; in "
    "validation: at the end of the epoch, on samples that no weight has learnt from.",
    "firing_rate": "Firing rate: on the validation samples.",
}


def work_sentences(record: Record) -> list[str]:
    """What the training was told of the work of the network, and what came of it; nothing without a target."""
    target = None if record.config is None else record.config.train.operations_target
    if target is None:
        return []
    kept = record.figures.get("synaptic_operations_per_sample")
    return [
        f"The loss draws the network down to {number(target)} synaptic operations per sample"
        + (f"; the frozen network takes {number(kept)} on the test set." if kept is not None else ".")
    ]


def structure_text(rewiring: RewiringConfig) -> str:
    """How the connections came to be, in two sentences."""
    rules = rewiring.rules
    if rewiring.preset == "dense":
        return "Every connection exists from the first step."
    if not rules.changes:
        return "Sparse from the first step, at random; the connections stay as they are."
    fraction = {
        "pq": "the fraction that the PQ index allows",
        "constant": "a constant fraction",
        "cosine": "a fraction that falls by a cosine",
    }[rules.ratio]
    place = {
        "momentum": "as many grown where momentum is large",
        "gradient": "as many grown where the gradient is large",
        "random": "as many grown anywhere",
        "none": "none grown",
    }[rules.growth]
    text = f"Sparse from the first step: connections of small weight are pruned by {fraction}, {place}"
    share = f"; {rewiring.scope}s share what there is by their PQ index" if rewiring.share == "index" else ""
    if not rules.falls:
        return f"{text}; density stays{share}."
    landing = {
        "ratio": "",
        "pace": ", at an even pace",
        "distribution": "; every layer ends with its share of the target",
    }[rewiring.landing]
    return f"{text}; density falls at the end of each iteration{landing}{share}."


def training_rows(record: Record) -> tuple[list[dict[str, Any]], int | None]:
    """Rows of the history and of the fine-tuning in integers, and where the latter begins."""
    fine_tuning = [row for row in record.freezing.get("fine_tuning", []) if row.get("epoch")]
    rows = [*record.history, *({**row, "density": record.figures.get("density")} for row in fine_tuning)]
    return rows, len(record.history) if fine_tuning else None


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
            kernel = f"{height} x {across}" + (f", stride {connections.stride}" if connections.stride > 1 else "")
        rows.append(
            [
                name,
                size_of(projection.source_shape) if projection.source_shape else number(projection.n_sources),
                f"{pool.size} x {pool.size}" if pool is not None and pool.size > 1 else "",
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
        "Channels x height x width. A tap is stored once; unrolled: the single synapses that it stands for, and the "
        "bits that those would take for each tap, row tables left out. Events that reach the layer, its synaptic "
        "operations over its lanes, and the clocks in which it accumulates, per verified sample. What is between the "
        "last two, of all projections of a layer together, are taps that fall off the border, lanes that wait for the "
        "fullest, and filling and draining."
    )
    return section


def size_of(shape: Sequence[int]) -> str:
    """Channels x height x width."""
    return " x ".join(map(str, shape))


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


def clock(record: Record) -> Section:
    section = Section("clock", "Clock and estimates", "half")
    synthesis = record.synthesis
    placed = (synthesis or {}).get("placed", {})
    if placed:
        rows, bad = [], []
        for row, (target, found) in enumerate(placed.items()):
            seeds = ", ".join(f"{mhz:.1f}" for mhz in found["seeds"].values())
            part = "-".join(filter(None, (found["device"], found["speed_grade"], found["package"])))
            rows.append([target, part, number(found["fmax_mhz"], 1), found["reason"] or seeds])
            if found["fmax_mhz"] is None:
                bad.append(row)
        section.table(["target", "part", "MHz, median", "MHz by seed"], rows, bad)
        section.caption(
            "Placed and routed alone in a wrapper of registers, whose cells are subtracted. Median over the seeds."
        )
    else:
        gap(section, record, "clock frequency", "synth")
    for family, found in ((synthesis or {}).get("block_ram") or {}).items():
        away = found["elsewhere"]
        lost = ", ".join(f"{path} ({cell})" for path, cell in away.items())
        section.facts(
            [
                (
                    f"block RAM, {family}",
                    f"{found['meant'] - len(away)} of {found['meant']} memories that ask for it"
                    + (f"; elsewhere: {lost}" if lost else ""),
                )
            ]
        )
    for build in record.builds:
        section.facts(
            [
                (f"board {build['board']}", f"{build['bitstream']}, sha256 {build['bitstream_sha256'][:16]}"),
                ("clock of the board", f"{build['clock_mhz']:g} MHz; the design reaches {build['fmax_mhz']:.1f} MHz"),
            ]
        )
    if not record.builds:
        section.missing("bitstream", f"codesign build {record.name} --board ulx3s-25f")
    figures = record.figures
    rows = []
    for target, latency in (figures.get("latency_us") or {}).items():
        interval = (figures.get("interval_us") or {}).get(target)
        rows.append([target, number(latency, 1), number(interval, 1), number(1e6 / interval if interval else None)])
    if rows:
        section.table(["target", "latency, us", "interval, us", "samples per second"], rows)
        section.caption("Mean cycles of the verified samples over the median clock.")
    estimates(section, record)
    schedules(section, record)
    return section


def estimates(section: Section, record: Record) -> None:
    """What was estimated without simulation and synthesis, beside what was measured."""
    found = record.estimate
    if found is None:
        gap(section, record, "estimates", "estimate")
        return
    verified = record.verification or {}
    rows: list[tuple[str, Any, Any]] = [
        ("latency, cycles", found.get("latency_cycles"), verified.get("latency_cycles")),
        ("interval, cycles", found.get("interval_cycles"), verified.get("interval_cycles")),
    ]
    areas = (record.synthesis or {}).get("area", {})
    for family, cells in (found.get("area") or {}).items():
        if family in areas:
            rows += [
                (f"{family}, {name}", (cells or {}).get(kind), areas[family].get(kind))
                for kind, name in RESOURCES.items()
            ]
    section.heading("Estimates against measurements")
    section.table(
        ["figure", "estimated", "measured", "off by"],
        [
            [
                name,
                amount(estimated),
                amount(measured),
                share(estimated / measured - 1) if estimated is not None and measured else number(None),
            ]
            for name, estimated, measured in rows
            if estimated is not None
        ],
    )
    if verified.get("latency_cycles") is not None and found.get("latency_cycles") is not None:
        section.caption("Cycles: estimated on validation samples, measured on the verified test samples.")


def schedules(section: Section, record: Record) -> None:
    """What walking timestep by timestep and a sample at once costs each layer, where one can have either."""
    found = (record.estimate or {}).get("schedules") or []
    if not any(layer["timestep"] and layer["sample"] for layer in found):
        return
    rows = [
        [
            name,
            layer["schedule"] if schedule == layer["schedule"] else "",
            schedule,
            number(cost["walks"], 0),
            number(cost["clocks"], 0),
            number(cost["memory_bits"]),
        ]
        for name, layer in zip(record.layer_names, found)
        for schedule in ("timestep", "sample")
        if (cost := layer[schedule]) is not None
    ]
    section.heading("Schedules of time")
    section.table(["layer", "has", "schedule", "synapses walked", "clocks", "memory of the engine, bits"], rows)
    section.caption(
        "Estimates for a mean calibration sample: a source's row walked in every timestep in which it fires, or once "
        "for all timesteps. Clocks are those in which the layer accumulates and sweeps."
    )


def item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def weights(record: Record) -> Section | None:
    if record.network is None:
        return None
    section = Section("weights", "Weights", "half")
    section.figure(
        plots.weight_histogram(
            [
                (name, layer.learned_weights, layer.weight_bits)
                for name, layer in zip(record.layer_names, record.network.layers, strict=True)
            ]
        ),
        "histogram of the integer weights of each layer",
    )
    return section


def connectivity(record: Record) -> Section | None:
    """Kernels of the convolutions; of a first layer of single synapses who is connected to the input, as pictures where
    the input is one."""
    if record.network is None:
        return None
    section = Section("connectivity", "Connections")
    layer = record.network.layers[0]
    folded = convolutions(record)
    for name, convolution in folded[:MAX_CONVOLUTIONS]:
        dense = convolution.dense()
        section.panels(
            [
                (plots.kernel_taps(name, dense), f"taps and kernels of {name}"),
                (plots.kernels(dense, MAX_FIELDS), f"fullest kernels of {name}"),
            ],
            SIGNS,
        )
    if len(folded) > MAX_CONVOLUTIONS:
        section.caption(f"The first {MAX_CONVOLUTIONS} of {len(folded)} convolutions.")
    if not layer.is_plain:
        if not folded:
            section.missing("picture of the first layer", state="it reads through a pool, or more than one layer")
        return section
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
        small = [(f"neuron {neuron}", field.reshape(shape)) for neuron, field in zip(chosen, fields, strict=True)]
        section.panels(
            [
                (plots.fan_out_picture(fan_out.reshape(shape)), "synapses of each input pixel"),
                (
                    plots.small_pictures(small, "weights of the most connected neurons, by pixel"),
                    "weights of the most connected neurons",
                ),
            ],
            SIGNS,
        )
    elif layer.n_in * layer.n_out <= 1 << 20:
        section.figure(plots.connectivity_matrix(layer.dense()), "weight matrix of the first layer")
    else:
        section.missing("picture of the first layer", state=f"{layer.n_in} x {layer.n_out} is too large to draw")
    silent = int(np.count_nonzero(fan_out == 0))
    section.caption(f"{silent:,} of {layer.n_in:,} inputs have no synapse left.")
    return section


SIGNS = "Weights: blue positive, red negative, blank none."


def convolutions(record: Record) -> list[tuple[str, Convolution]]:
    """Name of the layer, and the connections, of every learned convolution."""
    if record.network is None:
        return []
    return [
        (name, projection.connections)
        for name, layer in zip(record.layer_names, record.network.layers, strict=True)
        for projection in layer.projections
        if isinstance(projection.connections, Convolution) and not projection.fixed
    ]


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
        # The report's own stage ends after this page is written: what could be said of it here is not so yet.
        for row, (name, stage) in enumerate((name, stage) for name, stage in stages.items() if name != "report"):
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
        gap(section, record, "cycles", "verify")
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
    section.facts(
        [
            ("cycles per sample, back to back", number(verification.get("cycles_per_sample"), 1)),
            ("latency of a sample alone, cycles", number(verification.get("latency_cycles"), 1)),
        ]
    )
    return section


def verification(record: Record) -> Section:
    section = Section("verification", "Verification")
    found = record.verification
    if found is None:
        gap(section, record, "hardware against software", "verify")
        return section
    section.text(f"Simulated: {record.of_test_samples(found['samples'])}.")
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
            ("values read back from the images", f"{decoder['compared']:,}, {decoder['differences']:,} differ")
        )
    if found.get("saturations") is not None and not found.get("mismatches"):
        facts.append(("membranes saturated", f"{found['saturations']:,} times, in hardware and software alike"))
    section.facts(facts)
    mutants(section, record)
    return section


def mutants(section: Section, record: Record) -> None:
    """Whether the testbench catches faults that were put in on purpose."""
    section.heading("Mutants")
    if record.mutants is None:
        section.missing("faults injected on purpose", f"codesign verify {record.name} --mutants")
        return
    entries = record.mutants.get("mutants", [])
    kinds = list(dict.fromkeys(entry.get("kind") for entry in entries))
    rows = [
        [kind, number(len(chosen)), number(sum(bool(entry.get("caught")) for entry in chosen))]
        for kind in kinds
        if (chosen := [entry for entry in entries if entry.get("kind") == kind])
    ]
    section.table(["faults in", "injected", "caught"], rows, [i for i, row in enumerate(rows) if row[1] != row[2]])
    control = record.mutants.get("control") or {}
    passes = not control.get("caught") and control.get("error") is None
    section.caption(f"The unmutated control {'passes' if passes else 'does NOT pass'}. Details: verify/mutants.json.")


COMPARED = ("spikes", "membranes", "output_spikes", "values", "decisions")
