"""The float network as a file: float64 arrays as safetensors, one JSON document as their metadata.

Format version 1. Projections are written as the frozen network's, with weights of float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from codesign.basics.errors import InputError
from codesign.contract.network.file import (
    DTYPES,
    HASH_KEY,
    Form,
    Reader,
    coding_document,
    open_content,
    projection_document,
    projection_tensors,
    read_coding,
    read_projections,
    write_content,
)
from codesign.contract.network.limits import MAX_WIDTH
from codesign.contract.network.terms import ReadoutKind

if TYPE_CHECKING:
    from codesign.contract.floating.network import FloatLayer, FloatNetwork

LAYER_FACTS = ("name", "n_out", "reset", "reset_delay", "compare", "refractory")
ARRAYS = ("threshold", "bias", "decay", "reset_value")
FLOAT = Form(
    "codesign-float-network",
    (1,),
    frozenset({"format", "version", "timesteps", "readout", "coding", "layers"}),
    "float network",
    "import it again",
    {**DTYPES, **dict.fromkeys((*ARRAYS, "current_decay", "weights"), "F64")},
)


def metadata(network: FloatNetwork) -> dict[str, Any]:
    """The JSON document: everything but the arrays."""
    return {
        "format": FLOAT.name,
        "version": FLOAT.versions[-1],
        "timesteps": network.timesteps,
        "readout": network.readout,
        "coding": coding_document(network.coding),
        "layers": [
            {
                **{name: getattr(layer, name) for name in LAYER_FACTS},
                "synaptic_current": layer.current_decay is not None,
                "shape": None if layer.shape is None else list(layer.shape),
                "projections": [projection_document(projection) for projection in layer.projections],
            }
            for layer in network.layers
        ],
    }


def tensors(network: FloatNetwork) -> dict[str, np.ndarray]:
    """The arrays by their names in the file."""
    found: dict[str, np.ndarray] = {}
    for index, layer in enumerate(network.layers):
        found |= {f"layer{index}.{name}": values for name, values in layer.terms.items()}
        found |= projection_tensors(index, layer.projections)
    return found


def write(network: FloatNetwork, path: Path) -> None:
    """Write a validated network (atomically)."""
    write_content(path, metadata(network), tensors(network))


def read(path: Path) -> tuple[FloatNetwork, str]:
    """The network of a file, not yet validated, and the hash that the file states."""
    from codesign.contract.floating.network import FloatNetwork

    with open_content(path, FLOAT, "no such float network; `codesign import` writes one") as (document, reader):
        network = FloatNetwork(
            tuple(_read_layer(reader.layer(index), index, entry) for index, entry in enumerate(document["layers"])),
            document["timesteps"],
            read_coding(reader, document["coding"]),
            cast(ReadoutKind, document["readout"]),
        )
        return network, document[HASH_KEY]


def _read_layer(reader: Reader, index: int, entry: Mapping[str, Any]) -> FloatLayer:
    from codesign.contract.floating.network import FloatLayer

    reader.check_keys(entry, (*LAYER_FACTS, "synaptic_current", "shape", "projections"))
    n_out, current = reader.size(entry, "n_out", MAX_WIDTH), entry["synaptic_current"]
    if not isinstance(current, bool):
        raise InputError(f"{reader.where}: synaptic_current = {current!r} is neither true nor false")
    return FloatLayer(
        **{name: entry[name] for name in LAYER_FACTS},
        **{name: reader.array(f"layer{index}.{name}", n_out) for name in ARRAYS},
        current_decay=reader.array(f"layer{index}.current_decay", n_out) if current else None,
        shape=None if entry["shape"] is None else cast(Any, tuple(entry["shape"])),
        projections=read_projections(reader, index, entry["projections"]),
    )
