"""The cards of weights and connections."""

from __future__ import annotations

import numpy as np

from codesign.contract.network import INPUT, Convolution, Synapses
from codesign.report import plots
from codesign.report.blocks import Section
from codesign.report.collect import Record

MAX_FIELDS = 24
MAX_CONVOLUTIONS = 6
# Weights of a matrix that is drawn.
MAX_CELLS = 1 << 20
SIGNS = "Weights: blue positive, red negative, blank none."


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
    """Kernels of the convolutions; of the first layer's single synapses who is connected to whom, as pictures where the
    input is one."""
    if record.network is None:
        return None
    section = Section("connectivity", "Connections")
    folded = convolutions(record)
    for name, convolution in folded[:MAX_CONVOLUTIONS]:
        dense = convolution.dense()
        section.panels(
            [
                (plots.kernel_taps(name, dense), f"taps and kernels of {name}"),
                (plots.kernels(dense, MAX_FIELDS), f"fullest kernels of {name}"),
            ]
        )
    if folded:
        section.caption(SIGNS)
    if len(folded) > MAX_CONVOLUTIONS:
        section.caption(f"The first {MAX_CONVOLUTIONS} of {len(folded)} convolutions.")
    drawn = bool(folded)
    for projection in record.network.layers[0].projections:
        if isinstance(projection.connections, Synapses) and projection.pool is None and not projection.fixed:
            source = projection.source
            synapses(
                section, record, projection.connections, "input" if source == INPUT else record.layer_names[source]
            )
            drawn = True
    if not drawn:
        section.missing("picture of the first layer", state="it reads through a pool")
    return section


def synapses(section: Section, record: Record, found: Synapses, source: str) -> None:
    """Synapses of the first layer from ``source``, the input or a layer."""
    shape, name = record.image_shape, record.layer_names[0]
    fan_out = np.diff(found.indptr)
    if shape is not None and source == "input":
        fan_in = np.bincount(found.targets, minlength=found.n_out)
        chosen = np.argsort(-fan_in, kind="stable")[:MAX_FIELDS]
        fields = np.zeros((chosen.size, found.n_in), np.int64)
        row_of = np.full(found.n_out, -1)
        row_of[chosen] = np.arange(chosen.size)
        rows = row_of[found.targets]
        fields[rows[rows >= 0], found.sources[rows >= 0]] = found.weights[rows >= 0]
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
    elif found.n_in * found.n_out <= MAX_CELLS:
        figure = plots.connectivity_matrix(found.dense(), source, name)
        section.figure(figure, f"weight matrix from {source} to {name}", SIGNS)
    else:
        section.missing(f"weights from {source} to {name}", state=f"{found.n_in} x {found.n_out} is too large to draw")
    silent = int(np.count_nonzero(fan_out == 0))
    named = "inputs have" if source == "input" else f"neurons of {source} have"
    section.caption(f"{silent:,} of {found.n_in:,} {named} no synapse to {name}.")


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
