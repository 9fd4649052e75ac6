"""The cards of weights and connections."""

from __future__ import annotations

import numpy as np

from codesign.contract.network import Convolution
from codesign.report import plots
from codesign.report.blocks import Section
from codesign.report.collect import Record

MAX_FIELDS = 24
MAX_CONVOLUTIONS = 6
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
            ]
        )
    if folded:
        section.caption(SIGNS)
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
