"""The frozen network as a file: integer arrays as safetensors, one JSON document as their metadata.

Format version 4, for networks with a refractory period, or 3, for those with a delayed reset or a synaptic current; the
others are of version 2. A version knows no terms of later ones, so that networks keep their hashes and what was written
before is read. Sizes come from the metadata and are
checked before an array is read. The float network's file (:mod:`codesign.contract.floating.file`) is read and
written with the same functions.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from codesign.basics.errors import InputError
from codesign.basics.files import input_size, parse_json, write_bytes
from codesign.contract.network.connections import Connections, Convolution, Projection, SumPool, Synapses, is_whole
from codesign.contract.network.layer import LEAKS, FrozenLayer
from codesign.contract.network.limits import MAX_LAYERS, MAX_PROJECTIONS, MAX_SYNAPSES, MAX_WIDTH
from codesign.contract.network.structure import check_source
from codesign.contract.network.terms import CodingKind, InputCoding, Leak, ReadoutKind

if TYPE_CHECKING:
    from codesign.contract.network.network import FrozenNetwork

# Of networks without other terms, with those of TERM_NUMBERS, and with a refractory period.
PLAIN_VERSION, TERM_VERSION, REFRACTORY_VERSION = VERSIONS = (2, 3, 4)
FORMAT_VERSION = REFRACTORY_VERSION
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
# From TERM_VERSION on.
TERM_NUMBERS = ("reset_delay", "current_width")
# Keys of the parts of a document, beside those of a layer.
CODING_KEYS = ("kind", "input_bits", "parameters")
LEAK_KEYS = ("kind", "shift", "multiplier")
PROJECTION_KEYS = ("source", "fixed", "pool", "connections")
POOL_KEYS = ("shape", "size")
CONNECTION_KEYS = {
    "synapses": ("kind", "n_in", "n_out", "n_synapses"),
    "convolution": ("kind", "in_shape", "out_channels", "kernel", "stride", "padding", "n_taps"),
}
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
    version = TERM_VERSION if network.extra_terms else PLAIN_VERSION
    if any(layer.refractory for layer in network.layers):
        version = REFRACTORY_VERSION
    return {
        "format": FORMAT_NAME,
        "version": version,
        "timesteps": network.timesteps,
        "readout": network.readout,
        "coding": coding_document(network.coding),
        "layers": [_layer_document(layer, version) for layer in network.layers],
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
        found |= projection_tensors(index, layer.projections)
    return found


def projection_tensors(index: int, projections: Sequence[Projection]) -> dict[str, np.ndarray]:
    """Arrays of the projections of layer ``index`` by their names in the file."""
    found: dict[str, np.ndarray] = {}
    for number, projection in enumerate(projections):
        names = SYNAPSE_ARRAYS if isinstance(projection.connections, Synapses) else TAP_ARRAYS
        for name in names:
            found[f"layer{index}.projection{number}.{name}"] = getattr(projection.connections, name)
    return found


def _term_numbers(version: int) -> tuple[str, ...]:
    """Facts of a layer's further terms that a version holds."""
    if version < TERM_VERSION:
        return ()
    return (*TERM_NUMBERS, "refractory") if version >= REFRACTORY_VERSION else TERM_NUMBERS


def _layer_document(layer: FrozenLayer, version: int) -> dict[str, Any]:
    terms: dict[str, Any] = {name: getattr(layer, name) for name in _term_numbers(version)}
    if terms:
        terms["current_leak"] = None if layer.current_leak is None else _leak_document(layer.current_leak)
    return {
        **{name: getattr(layer, name) for name in LAYER_NUMBERS},
        **terms,
        "leak": _leak_document(layer.leak),
        "shape": None if layer.shape is None else list(layer.shape),
        "projections": [projection_document(projection) for projection in layer.projections],
    }


def _leak_document(leak: Leak) -> dict[str, Any]:
    return {
        "kind": leak.kind,
        # null: a value per neuron, in a tensor.
        "shift": None if isinstance(leak.shift, np.ndarray) else leak.shift,
        "multiplier": None if isinstance(leak.multiplier, np.ndarray) else leak.multiplier,
    }


def projection_document(projection: Projection) -> dict[str, Any]:
    """A projection but for its arrays."""
    pool = projection.pool
    return {
        "source": projection.source,
        "fixed": projection.fixed,
        "pool": None if pool is None else {"shape": list(pool.shape), "size": pool.size},
        "connections": _connections_document(projection.connections),
    }


def coding_document(coding: InputCoding) -> dict[str, Any]:
    return {"kind": coding.kind, "input_bits": coding.input_bits, "parameters": dict(coding.parameters)}


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


def content_hash(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 (hex) of a document and its arrays, independent of file layout, host and time."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def write(network: FrozenNetwork, path: Path) -> None:
    """Write a validated network (atomically)."""
    write_content(path, metadata(network), tensors(network))


def write_content(path: Path, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a document as the metadata of arrays, with the hash of both as they are now (atomically).

    Raises InputError for metadata that no reader takes.
    """
    from safetensors.numpy import save

    text = json.dumps({**document, HASH_KEY: content_hash(document, arrays)}, sort_keys=True)
    _check_metadata_size(text, path)
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # Not by the library, whose errors do not say that a disk is full.
    write_bytes(path, save(whole, metadata={METADATA_KEY: text}))


@dataclass(frozen=True)
class Contents:
    """What a file holds, not yet validated as a network; ``hash`` is the one that it states, None in older files."""

    layers: tuple[FrozenLayer, ...]
    timesteps: int
    coding: InputCoding
    readout: ReadoutKind
    hash: str | None


@dataclass(frozen=True)
class Form:
    """What a kind of network's file calls itself, and what makes it again."""

    name: str
    versions: tuple[int, ...]
    keys: frozenset[str]
    title: str
    again: str
    dtypes: Mapping[str, str]


FROZEN = Form(FORMAT_NAME, VERSIONS, frozenset(KEYS), "frozen network", "freeze it again", DTYPES)


def read(path: Path) -> Contents:
    """Contents of a file. Raises InputError with the file's name in front."""
    with open_content(path, FROZEN, "no such frozen network; `codesign freeze` writes one") as (document, reader):
        return Contents(
            tuple(
                _read_layer(reader.layer(index), index, entry, document["version"])
                for index, entry in enumerate(document["layers"])
            ),
            document["timesteps"],
            read_coding(reader, document["coding"]),
            cast(ReadoutKind, document["readout"]),
            document.get(HASH_KEY),
        )


def read_coding(reader: Reader, entry: Mapping[str, Any]) -> InputCoding:
    reader.check_keys(entry, CODING_KEYS)
    return InputCoding(cast(CodingKind, entry["kind"]), entry["input_bits"], entry["parameters"])


@contextmanager
def open_content(path: Path, form: Form, absent: str) -> Iterator[tuple[dict[str, Any], Reader]]:
    """The checked document of a file of a form, and the reader of its tensors.

    What the block trips over in a document, a key that is missing or of another kind, becomes an InputError with the
    file's name in front, and so does a tensor that the block has not read.
    """
    from safetensors import SafetensorError, safe_open

    check_header(path, absent, MAX_HEADER_BYTES)
    try:
        with safe_open(path, framework="numpy") as file:
            reader = Reader(file, str(path), form)
            yield _parse_metadata(path, form, (file.metadata() or {}).get(METADATA_KEY)), reader
            reader.check_all_read()
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: the {form.title}'s metadata is incomplete ({error!r})") from None


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


def _check_metadata_size(text: str, path: Path) -> None:
    if len(text) > MAX_METADATA_BYTES:
        raise InputError(f"{path}: metadata of {len(text)} bytes, the limit is {MAX_METADATA_BYTES}")


def _parse_metadata(path: Path, form: Form, text: str | None) -> dict[str, Any]:
    if text is None:
        raise InputError(f"{path}: not a {form.title} (no codesign metadata)")
    _check_metadata_size(text, path)
    document = parse_json(text, f"{path}: metadata")
    if document.get("format") != form.name:
        raise InputError(f"{path}: not a {form.title}")
    version = document.get("version")
    if type(version) is not int or version not in form.versions:
        raise InputError(
            f"{path}: format version {version!r}, this codesign reads {', '.join(map(str, form.versions))}; "
            f"{form.again}"
        )
    unknown = sorted(document.keys() - form.keys - {HASH_KEY})
    if unknown:
        # Not passed over: it may be a key whose name is damaged.
        raise InputError(f"{path}: metadata has the unknown key {unknown[0][:40]!r}; {form.again}")
    layers = document.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
        raise InputError(f"{path}: the number of layers is outside 1..{MAX_LAYERS}")
    return document


class Reader:
    """Tensors of an open file, each read only if its type and size are what the metadata says.

    where : what errors begin with.
    """

    def __init__(self, file: Any, where: str, form: Form) -> None:
        self._file, self.where, self._form = file, where, form
        self._present = frozenset(file.keys())
        self._read: set[str] = set()

    def layer(self, index: int) -> Reader:
        """The same reader for one layer."""
        found = copy(self)
        found.where = f"{self.where}: layer {index}"
        return found

    def check_keys(self, entry: Mapping[str, Any], names: Iterable[str]) -> None:
        """Raise InputError for a key of the document that no version of the form has."""
        unknown = sorted(entry.keys() - set(names))
        if unknown:
            raise InputError(f"{self.where}: metadata has the unknown key {unknown[0][:40]!r}; {self._form.again}")

    def check_all_read(self) -> None:
        """Raise InputError for a tensor that nothing has asked for."""
        unknown = sorted(self._present - self._read)
        if unknown:
            raise InputError(f"{self.where}: has the unknown tensor {unknown[0][:40]!r}; {self._form.again}")

    def array(self, key: str, size: int) -> Any:
        name = key.rsplit(".", 1)[1]
        if key not in self._present:
            raise InputError(f"{self.where}: tensor {key} is missing")
        view = self._file.get_slice(key)
        dtype = self._form.dtypes[name]
        self._read.add(key)
        if view.get_dtype() != dtype or list(view.get_shape()) != [size]:
            raise InputError(
                f"{self.where}: {name} is {view.get_dtype()} {view.get_shape()}, expected {dtype} [{size}]"
            )
        return self._file.get_tensor(key)

    def size(self, entry: Mapping[str, Any], name: str, limit: int) -> int:
        if not is_whole(entry[name], 0, limit):
            raise InputError(f"{self.where}: {name} = {entry[name]!r} is outside 0..{limit}")
        return entry[name]


def _read_layer(reader: Reader, index: int, entry: Mapping[str, Any], version: int) -> FrozenLayer:
    n_out = reader.size(entry, "n_out", MAX_WIDTH)
    terms: dict[str, Any] = {name: entry[name] for name in _term_numbers(version)}
    reader.check_keys(entry, (*LAYER_NUMBERS, *terms, *LEAKS[: 2 if terms else 1], "shape", "projections"))

    def leak(field: str) -> Leak:
        reader.check_keys(entry[field], LEAK_KEYS)
        numbers = {
            name: reader.array(f"layer{index}.{field}.{name}", n_out)
            if entry[field][name] is None
            else entry[field][name]
            for name in ("shift", "multiplier")
        }
        return Leak(entry[field]["kind"], **numbers)

    if terms:
        terms["current_leak"] = None if entry["current_leak"] is None else leak("current_leak")
    return FrozenLayer(
        **{name: entry[name] for name in LAYER_NUMBERS},
        **{name: reader.array(f"layer{index}.{name}", n_out) for name in LAYER_ARRAYS},
        **terms,
        leak=leak("leak"),
        shape=None if entry["shape"] is None else cast(Any, tuple(entry["shape"])),
        projections=read_projections(reader, index, entry["projections"]),
    )


def read_projections(reader: Reader, index: int, entries: Any) -> tuple[Projection, ...]:
    """The projections of layer ``index``. Raises InputError unless there are 1 to MAX_PROJECTIONS."""
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_PROJECTIONS:
        raise InputError(f"{reader.where}: the number of projections is outside 1..{MAX_PROJECTIONS}")
    return tuple(_read_projection(reader, index, number, entry) for number, entry in enumerate(entries))


def _read_projection(reader: Reader, index: int, number: int, entry: Mapping[str, Any]) -> Projection:
    reader.check_keys(entry, PROJECTION_KEYS)
    pool, fixed = entry["pool"], entry["fixed"]
    # Before PREVIOUS and OWN, which no file has, are taken for layers.
    check_source(entry["source"], index, reader.where)
    if not isinstance(fixed, bool):
        raise InputError(f"{reader.where}: fixed = {fixed!r} is neither true nor false")
    if pool is not None:
        reader.check_keys(pool, POOL_KEYS)
    return Projection(
        entry["source"],
        _read_connections(reader, f"layer{index}.projection{number}", entry["connections"]),
        None if pool is None else SumPool(cast(Any, tuple(pool["shape"])), pool["size"]),
        fixed,
    )


def _read_connections(reader: Reader, key: str, entry: Mapping[str, Any]) -> Connections:
    kind = entry["kind"]
    if not isinstance(kind, str) or kind not in CONNECTION_KEYS:
        raise InputError(f"{reader.where}: connections {kind!r} are none of {', '.join(CONNECTION_KEYS)}")
    reader.check_keys(entry, CONNECTION_KEYS[kind])
    if kind == "synapses":
        n_in, n_out = (reader.size(entry, name, MAX_WIDTH) for name in ("n_in", "n_out"))
        count = reader.size(entry, "n_synapses", MAX_SYNAPSES)
        sizes = {"indptr": n_in + 1, "targets": count, "weights": count}
        return Synapses(n_in, n_out, **{name: reader.array(f"{key}.{name}", size) for name, size in sizes.items()})
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
