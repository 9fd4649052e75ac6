"""The frozen network as a file: integer arrays as safetensors, one JSON document as their metadata.

Format version 3, for networks with a delayed reset or a synaptic current; the others are of version 2, which knows
neither, so that they keep their hashes and what was written before is read. Sizes come from the metadata and are
checked before an array is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from codesign.basics.errors import InputError
from codesign.basics.files import atomic_path, input_size, parse_json
from codesign.contract.network.connections import Connections, Convolution, Projection, SumPool, Synapses, is_whole
from codesign.contract.network.layer import FrozenLayer
from codesign.contract.network.limits import MAX_LAYERS, MAX_PROJECTIONS, MAX_SYNAPSES, MAX_WIDTH
from codesign.contract.network.terms import CodingKind, InputCoding, Leak, ReadoutKind

if TYPE_CHECKING:
    from codesign.contract.network.network import FrozenNetwork

FORMAT_VERSION = 3
# Of networks without the terms that version 3 has brought.
PLAIN_VERSION = 2
FORMAT_NAME = "codesign-frozen-network"
MAX_METADATA_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 22
"""The names, types and places of the tensors of the largest network, and its metadata in JSON once more."""

METADATA_KEY = "codesign"
KEYS = {"format", "version", "timesteps", "readout", "coding", "layers"}
# Files of earlier versions have none.
HASH_KEY = "hash"
LAYER_ARRAYS = ("bias", "threshold", "trained_index")
LAYER_NUMBERS = (
    *("n_out", "reset", "reset_value", "compare"),
    *("fraction_bits", "membrane_width", "weight_bits", "trained_width"),
)
# Of version 3.
TERM_NUMBERS = ("reset_delay", "current_width")
SYNAPSE_ARRAYS = ("indptr", "targets", "weights")
TAP_ARRAYS = ("in_channel", "out_channel", "ky", "kx", "weights")
DTYPES = {
    "indptr": "I64",
    "bias": "I64",
    "threshold": "I64",
    "trained_index": "I64",
    "shift": "I64",
    "multiplier": "I64",
    "targets": "I32",
    "in_channel": "I32",
    "out_channel": "I32",
    "ky": "I32",
    "kx": "I32",
    "weights": "I8",
}


def metadata(network: FrozenNetwork) -> dict[str, Any]:
    """The JSON document: everything but the arrays."""
    has_terms = network.extra_terms
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION if has_terms else PLAIN_VERSION,
        "timesteps": network.timesteps,
        "readout": network.readout,
        "coding": {
            "kind": network.coding.kind,
            "input_bits": network.coding.input_bits,
            "parameters": dict(network.coding.parameters),
        },
        "layers": [_layer_document(layer, has_terms) for layer in network.layers],
    }


def tensors(network: FrozenNetwork) -> dict[str, np.ndarray]:
    """The arrays by their names in the file."""
    found: dict[str, np.ndarray] = {}
    for index, layer in enumerate(network.layers):
        for name in LAYER_ARRAYS:
            found[f"layer{index}.{name}"] = getattr(layer, name)
        for field, leak in layer.leaks.items():
            for name in ("shift", "multiplier"):
                value = getattr(leak, name)
                if isinstance(value, np.ndarray):
                    found[f"layer{index}.{field}.{name}"] = value
        for number, projection in enumerate(layer.projections):
            names = SYNAPSE_ARRAYS if isinstance(projection.connections, Synapses) else TAP_ARRAYS
            for name in names:
                found[f"layer{index}.projection{number}.{name}"] = getattr(projection.connections, name)
    return found


def _layer_document(layer: FrozenLayer, has_terms: bool) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    if has_terms:
        terms = {name: getattr(layer, name) for name in TERM_NUMBERS}
        terms["current_leak"] = None if layer.current_leak is None else _leak_document(layer.current_leak)
    return {
        **{name: getattr(layer, name) for name in LAYER_NUMBERS},
        **terms,
        "leak": _leak_document(layer.leak),
        "shape": None if layer.shape is None else list(layer.shape),
        "projections": [
            {
                "source": projection.source,
                "fixed": projection.fixed,
                "pool": None
                if projection.pool is None
                else {"shape": list(projection.pool.shape), "size": projection.pool.size},
                "connections": _connections_document(projection.connections),
            }
            for projection in layer.projections
        ],
    }


def _leak_document(leak: Leak) -> dict[str, Any]:
    return {
        "kind": leak.kind,
        # null: a value per neuron, in a tensor.
        "shift": None if isinstance(leak.shift, np.ndarray) else leak.shift,
        "multiplier": None if isinstance(leak.multiplier, np.ndarray) else leak.multiplier,
    }


def _connections_document(connections: Connections) -> dict[str, Any]:
    if isinstance(connections, Synapses):
        return {
            "kind": "synapses",
            "n_in": connections.n_in,
            "n_out": connections.n_out,
            "n_synapses": connections.n_weights,
        }
    return {
        "kind": "convolution",
        "in_shape": list(connections.in_shape),
        "out_channels": connections.out_channels,
        "kernel": list(connections.kernel),
        "stride": connections.stride,
        "padding": connections.padding,
        "n_taps": connections.n_weights,
    }


def write(network: FrozenNetwork, path: Path) -> None:
    """Write a validated network (atomically)."""
    from safetensors.numpy import save_file

    document = json.dumps({**metadata(network), HASH_KEY: network.hash}, sort_keys=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors(network).items()}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={METADATA_KEY: document})


@dataclass(frozen=True)
class Contents:
    """What a file holds, not yet validated as a network; ``hash`` is the one that it states, None in older files."""

    layers: tuple[FrozenLayer, ...]
    timesteps: int
    coding: InputCoding
    readout: ReadoutKind
    hash: str | None


def read(path: Path) -> Contents:
    """Contents of a file. Raises InputError with the file's name in front."""
    from safetensors import SafetensorError, safe_open

    check_header(path, "no such frozen network; `codesign freeze` writes one", MAX_HEADER_BYTES)
    try:
        with safe_open(path, framework="numpy") as file:
            document = _parse_metadata(path, (file.metadata() or {}).get(METADATA_KEY))
            present = frozenset(file.keys())
            layers = tuple(
                _read_layer(_Reader(file, present, f"{path}: layer {index}"), index, entry, document["version"])
                for index, entry in enumerate(document["layers"])
            )
        coding = document["coding"]
        return Contents(
            layers,
            document["timesteps"],
            InputCoding(cast(CodingKind, coding["kind"]), coding["input_bits"], coding["parameters"]),
            cast(ReadoutKind, document["readout"]),
            document.get(HASH_KEY),
        )
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: the frozen network's metadata is incomplete ({error!r})") from None


def check_header(path: Path, absent: str, limit: int) -> None:
    """Raise InputError unless a safetensors file is there whose header takes at most ``limit`` bytes.

    The library reads headers of up to 100 MB, which take many times as much in memory.
    """
    size = input_size(path, absent)
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8 or struct.unpack("<Q", head)[0] > size - 8:
        raise InputError(f"{path}: truncated or not a safetensors file (its header is not whole)")
    if struct.unpack("<Q", head)[0] > limit:
        raise InputError(f"{path}: a header of {struct.unpack('<Q', head)[0]} bytes, the limit is {limit}")


def _parse_metadata(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise InputError(f"{path}: not a frozen network (no codesign metadata)")
    if len(text) > MAX_METADATA_BYTES:
        raise InputError(f"{path}: metadata of {len(text)} bytes, the limit is {MAX_METADATA_BYTES}")
    document = parse_json(text, f"{path}: metadata")
    if document.get("format") != FORMAT_NAME:
        raise InputError(f"{path}: not a frozen network")
    version = document.get("version")
    if type(version) is not int or not PLAIN_VERSION <= version <= FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version!r}, this codesign reads {PLAIN_VERSION} and {FORMAT_VERSION}; "
            f"freeze it again"
        )
    unknown = sorted(document.keys() - KEYS - {HASH_KEY})
    if unknown:
        # Not passed over: it may be a key whose name is damaged.
        raise InputError(f"{path}: metadata has the unknown key {unknown[0]!r}; freeze it again")
    layers = document.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
        raise InputError(f"{path}: the number of layers is outside 1..{MAX_LAYERS}")
    return document


class _Reader:
    """Tensors of an open file, each read only if its type and size are what the metadata says."""

    def __init__(self, file: Any, present: frozenset[str], where: str) -> None:
        self._file, self._present, self.where = file, present, where

    def array(self, key: str, size: int) -> Any:
        name = key.rsplit(".", 1)[1]
        if key not in self._present:
            raise InputError(f"{self.where}: tensor {key} is missing")
        view = self._file.get_slice(key)
        dtype = DTYPES[name]
        if view.get_dtype() != dtype or list(view.get_shape()) != [size]:
            raise InputError(
                f"{self.where}: {name} is {view.get_dtype()} {view.get_shape()}, expected {dtype} [{size}]"
            )
        return self._file.get_tensor(key)

    def size(self, entry: Mapping[str, Any], name: str, limit: int) -> int:
        if not is_whole(entry[name], 0, limit):
            raise InputError(f"{self.where}: {name} = {entry[name]!r} is outside 0..{limit}")
        return entry[name]


def _read_layer(reader: _Reader, index: int, entry: Mapping[str, Any], version: int) -> FrozenLayer:
    n_out = reader.size(entry, "n_out", MAX_WIDTH)
    projections = entry["projections"]
    if not isinstance(projections, list) or not 1 <= len(projections) <= MAX_PROJECTIONS:
        raise InputError(f"{reader.where}: the number of projections is outside 1..{MAX_PROJECTIONS}")

    def leak(field: str) -> Leak:
        numbers = {
            name: reader.array(f"layer{index}.{field}.{name}", n_out)
            if entry[field][name] is None
            else entry[field][name]
            for name in ("shift", "multiplier")
        }
        return Leak(entry[field]["kind"], **numbers)

    terms: dict[str, Any] = {}
    if version > PLAIN_VERSION:
        terms = {name: entry[name] for name in TERM_NUMBERS}
        terms["current_leak"] = None if entry["current_leak"] is None else leak("current_leak")
    return FrozenLayer(
        **{name: entry[name] for name in LAYER_NUMBERS},
        **{name: reader.array(f"layer{index}.{name}", n_out) for name in LAYER_ARRAYS},
        **terms,
        leak=leak("leak"),
        shape=None if entry["shape"] is None else cast(Any, tuple(entry["shape"])),
        projections=tuple(
            _read_projection(reader, f"layer{index}.projection{number}", item)
            for number, item in enumerate(projections)
        ),
    )


def _read_projection(reader: _Reader, key: str, entry: Mapping[str, Any]) -> Projection:
    pool, fixed = entry["pool"], entry["fixed"]
    if not isinstance(fixed, bool):
        raise InputError(f"{reader.where}: fixed = {fixed!r} is neither true nor false")
    return Projection(
        entry["source"],
        _read_connections(reader, key, entry["connections"]),
        None if pool is None else SumPool(cast(Any, tuple(pool["shape"])), pool["size"]),
        fixed,
    )


def _read_connections(reader: _Reader, key: str, entry: Mapping[str, Any]) -> Connections:
    if entry["kind"] == "synapses":
        n_in, n_out = (reader.size(entry, name, MAX_WIDTH) for name in ("n_in", "n_out"))
        count = reader.size(entry, "n_synapses", MAX_SYNAPSES)
        sizes = {"indptr": n_in + 1, "targets": count, "weights": count}
        return Synapses(n_in, n_out, **{name: reader.array(f"{key}.{name}", size) for name, size in sizes.items()})
    if entry["kind"] == "convolution":
        count = reader.size(entry, "n_taps", MAX_SYNAPSES)
        convolution = Convolution(
            cast(Any, tuple(entry["in_shape"])),
            entry["out_channels"],
            cast(Any, tuple(entry["kernel"])),
            entry["stride"],
            entry["padding"],
            **{name: reader.array(f"{key}.{name}", count) for name in TAP_ARRAYS},
        )
        convolution.check_sizes(reader.where)
        return convolution
    raise InputError(f"{reader.where}: connections {entry['kind']!r} are none of synapses, convolution")
