"""The frozen network: the integer contract between training and hardware.

A :class:`FrozenNetwork` holds everything that the golden model, the mapper and the testbench need,
and nothing else. It is stored as one safetensors file: integer arrays as tensors and one JSON
document as metadata. Files are validated on load, sizes before any array is read.

Nothing here imports another part of codesign but its errors and atomic file writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.files import atomic_path

FORMAT_VERSION = 1
FORMAT_NAME = "codesign-frozen-network"

LeakKind = Literal["none", "shift", "multiply"]
ResetKind = Literal["subtract", "zero", "value", "none"]
CompareKind = Literal[">=", ">"]
CodingKind = Literal["current", "rate", "latency", "events", "delta"]
ReadoutKind = Literal["spike_count", "membrane_last", "membrane_sum", "membrane_max"]

MAX_LAYERS = 64
MAX_WIDTH = 1 << 20
MAX_SYNAPSES = 1 << 28
MAX_TIMESTEPS = 1 << 16
MAX_CONSTANT = 1 << 40
MAX_METADATA_BYTES = 1 << 20

Int = npt.NDArray[np.int64]


def signed_width(low: int, high: int) -> int:
    """Bits of the narrowest two's-complement range that holds ``low`` and ``high``."""
    return max(int(low if low >= 0 else ~low).bit_length(), int(high if high >= 0 else ~high).bit_length()) + 1


@dataclass(frozen=True)
class Leak:
    """Leak of the membrane once per timestep.

    ``none``: v; ``shift``: v - (v >> shift); ``multiply``: (v * multiplier) >> shift with
    0 <= multiplier <= 2**shift. ``>>`` is arithmetic (floor). Every kind is monotone in v.
    """

    kind: LeakKind = "none"
    shift: int = 0
    multiplier: int = 0

    def __call__(self, v: Any) -> Any:
        """Leaked membrane of an integer or an integer array (int64)."""
        if self.kind == "none":
            return v
        if self.kind == "shift":
            return v - (v >> self.shift)
        return (v * self.multiplier) >> self.shift

    def validate(self, where: str) -> None:
        if self.kind not in get_args(LeakKind):
            raise InputError(f"{where}: leak {self.kind!r} is none of {', '.join(get_args(LeakKind))}")
        if not 0 <= self.shift <= 24:
            raise InputError(f"{where}: leak shift {self.shift!r} is outside 0..24")
        if self.kind == "multiply" and not 0 <= self.multiplier <= 1 << self.shift:
            raise InputError(f"{where}: leak multiplier {self.multiplier!r} is outside 0..2**{self.shift}")


@dataclass(frozen=True)
class InputCoding:
    """How raw samples become stimuli. ``parameters`` belong to the host's encoder.

    ``current`` feeds unsigned integers of ``input_bits``; the other kinds feed events, and the
    hardware does not distinguish them.
    """

    kind: CodingKind
    input_bits: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_current(self) -> bool:
        return self.kind == "current"


@dataclass(frozen=True, eq=False)
class FrozenLayer:
    """One fully connected LIF layer in integers; synapses in CSR by source neuron.

    Parameters
    ----------
    n_in, n_out : number of source and target neurons, 1 or more.
    indptr : int64 (n_in + 1,); synapses of source i are ``indptr[i]:indptr[i + 1]``.
    targets : int32 (n_synapses,), strictly increasing within a source.
    weights : int8 (n_synapses,), nonzero, in +-(2**(weight_bits - 1) - 1).
    bias, threshold : int64 (n_out,), already scaled by 2**fraction_bits.
    leak, reset, reset_value, compare : see :mod:`codesign.golden`.
    fraction_bits : left shift of the weighted sum.
    membrane_width : bits of the stored membrane, sign included.
    weight_bits : 2..8, sign included.
    trained_index : int64 (n_out,); index of each neuron in the trained layer.
    trained_width : neurons of the trained layer, before dead code was removed.
    """

    n_in: int
    n_out: int
    indptr: Int
    targets: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int8]
    bias: Int
    threshold: Int
    leak: Leak = Leak()
    reset: ResetKind = "subtract"
    reset_value: int = 0
    compare: CompareKind = ">="
    fraction_bits: int = 0
    membrane_width: int = 16
    weight_bits: int = 8
    trained_index: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    trained_width: int = 0

    @property
    def n_synapses(self) -> int:
        return int(self.targets.size)

    @property
    def sources(self) -> Int:
        """int64 (n_synapses,): the source of each synapse."""
        return np.repeat(np.arange(self.n_in, dtype=np.int64), np.diff(self.indptr))

    @property
    def membrane_min(self) -> int:
        return -(1 << (self.membrane_width - 1))

    @property
    def membrane_max(self) -> int:
        return (1 << (self.membrane_width - 1)) - 1

    def dense(self) -> Int:
        """int64 (n_in, n_out) weight matrix."""
        matrix = np.zeros((self.n_in, self.n_out), np.int64)
        matrix[self.sources, self.targets] = self.weights
        return matrix

    def sum_range(self, source_max: int = 1) -> tuple[Int, Int]:
        """Exact bounds of the weighted sum per neuron, before the shift: two int64 (n_out,).

        Each source contributes a factor 0..source_max (1 for spikes, 2**input_bits - 1 for current).
        Every partial sum lies within these bounds too, whatever the order.
        """
        weights = self.weights.astype(np.int64) * source_max
        low = np.zeros(self.n_out, np.int64)
        high = np.zeros(self.n_out, np.int64)
        np.add.at(low, self.targets, np.minimum(weights, 0))
        np.add.at(high, self.targets, np.maximum(weights, 0))
        return low, high

    def potential_range(self, source_max: int = 1) -> tuple[int, int]:
        """Bounds (low, high) of u = leak(v) + (sum << F) + bias over all stored v and all inputs."""
        low, high = self.sum_range(source_max)
        u_low = int(self.leak(self.membrane_min)) + (low << self.fraction_bits) + self.bias
        u_high = int(self.leak(self.membrane_max)) + (high << self.fraction_bits) + self.bias
        return int(u_low.min()), int(u_high.max())

    def unsaturated_range(self, timesteps: int, source_max: int = 1) -> tuple[int, int]:
        """Bounds of u over ``timesteps`` steps from v = 0 without reset or saturation."""
        low, high = self.sum_range(source_max)
        step_low = (low << self.fraction_bits) + self.bias
        step_high = (high << self.fraction_bits) + self.bias
        v_low = np.zeros(self.n_out, np.int64)
        v_high = np.zeros(self.n_out, np.int64)
        bottom, top = 0, 0
        for _ in range(timesteps):
            v_low = self.leak(v_low) + step_low
            v_high = self.leak(v_high) + step_high
            bottom, top = min(bottom, int(v_low.min())), max(top, int(v_high.max()))
            if max(-bottom, top) > MAX_CONSTANT << 8:
                break
        return bottom, top

    @classmethod
    def from_dense(cls, weights: npt.ArrayLike, **parameters: Any) -> FrozenLayer:
        """Layer from an integer (n_in, n_out) matrix; zeros are no synapses.

        ``bias`` and ``threshold`` may be integers or (n_out,) arrays; ``weight_bits`` defaults to the
        fewest that hold the weights (at least 2).
        """
        matrix = np.asarray(weights)
        if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.integer):
            raise InputError(f"weights must be an integer (n_in, n_out) matrix, not {matrix.dtype} {matrix.shape}")
        if matrix.size and int(np.abs(matrix.astype(np.int64)).max()) > 127:
            raise InputError(f"weight {int(np.abs(matrix.astype(np.int64)).max())} does not fit 8 signed bits")
        n_in, n_out = matrix.shape
        sources, targets = np.nonzero(matrix)
        values = matrix[sources, targets]
        largest = int(np.abs(values.astype(np.int64)).max(initial=1))
        parameters.setdefault("weight_bits", max(2, largest.bit_length() + 1))
        for name, default in (("bias", 0), ("threshold", 1)):
            value = np.asarray(parameters.get(name, default))
            parameters[name] = np.broadcast_to(value, (n_out,)).astype(np.int64)
        parameters.setdefault("trained_index", np.arange(n_out, dtype=np.int64))
        parameters.setdefault("trained_width", n_out)
        layer = cls(
            n_in=int(n_in),
            n_out=int(n_out),
            indptr=np.searchsorted(sources, np.arange(n_in + 1)).astype(np.int64),
            targets=targets.astype(np.int32),
            weights=values.astype(np.int8),
            **parameters,
        )
        layer.validate("layer")
        return layer

    def validate(self, where: str) -> None:
        """Raise InputError naming the first field that is out of its range."""
        for name, low, high in (
            ("n_in", 1, MAX_WIDTH),
            ("n_out", 1, MAX_WIDTH),
            ("fraction_bits", 0, 24),
            ("membrane_width", 2, 48),
            ("weight_bits", 2, 8),
            ("trained_width", self.n_out, MAX_WIDTH),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"{where}: {name} = {value!r} is outside {low}..{high}")
        self.leak.validate(where)
        for name, choices in (("reset", get_args(ResetKind)), ("compare", get_args(CompareKind))):
            if getattr(self, name) not in choices:
                raise InputError(f"{where}: {name} {getattr(self, name)!r} is none of {', '.join(choices)}")
        if not self.membrane_min <= self.reset_value <= self.membrane_max:
            raise InputError(
                f"{where}: reset_value {self.reset_value} does not fit a {self.membrane_width}-bit membrane"
            )
        shapes = {
            "indptr": (np.int64, self.n_in + 1),
            "targets": (np.int32, self.n_synapses),
            "weights": (np.int8, self.n_synapses),
            "bias": (np.int64, self.n_out),
            "threshold": (np.int64, self.n_out),
            "trained_index": (np.int64, self.n_out),
        }
        for name, (dtype, size) in shapes.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != (size,):
                raise InputError(
                    f"{where}: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} ({size},)"
                )
        if self.indptr[0] != 0 or self.indptr[-1] != self.n_synapses or np.any(np.diff(self.indptr) < 0):
            raise InputError(f"{where}: indptr does not rise from 0 to the number of synapses ({self.n_synapses})")
        if self.n_synapses:
            if self.targets.min() < 0 or self.targets.max() >= self.n_out:
                raise InputError(f"{where}: a synapse's target is outside 0..{self.n_out - 1}")
            keys = self.sources * self.n_out + self.targets
            if np.any(np.diff(keys) <= 0):
                raise InputError(f"{where}: targets are not strictly increasing within a source")
            limit = (1 << (self.weight_bits - 1)) - 1
            if np.any(self.weights == 0) or int(np.abs(self.weights.astype(np.int64)).max()) > limit:
                raise InputError(f"{where}: a weight is zero or outside +-{limit} ({self.weight_bits} bits)")
        for name in ("bias", "threshold"):
            if int(np.abs(getattr(self, name)).max()) > MAX_CONSTANT:
                raise InputError(f"{where}: a {name} is beyond +-2**40")
        if self.trained_index.min() < 0 or self.trained_index.max() >= self.trained_width:
            raise InputError(f"{where}: trained_index is outside 0..{self.trained_width - 1}")
        if np.any(np.diff(self.trained_index) <= 0):
            raise InputError(f"{where}: trained_index is not strictly increasing")


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """Integer SNN: layers in order, timesteps per sample, input coding and readout."""

    layers: tuple[FrozenLayer, ...]
    timesteps: int
    coding: InputCoding
    readout: ReadoutKind = "spike_count"

    @property
    def n_inputs(self) -> int:
        return self.layers[0].n_in

    @property
    def n_outputs(self) -> int:
        return self.layers[-1].n_out

    @property
    def n_synapses(self) -> int:
        return sum(layer.n_synapses for layer in self.layers)

    @property
    def dense_synapses(self) -> int:
        """Weights of the configured dense architecture, before dead code was removed."""
        return sum(i * o for i, o in self._trained_shapes())

    @property
    def layer_density(self) -> list[float]:
        """Nonzero weights over the configured dense weights, per layer, 0..1."""
        return [layer.n_synapses / (i * o) for layer, (i, o) in zip(self.layers, self._trained_shapes(), strict=True)]

    @property
    def density(self) -> float:
        return self.n_synapses / self.dense_synapses

    @property
    def membrane_readout(self) -> bool:
        """True if the last layer integrates without spiking."""
        return self.readout != "spike_count"

    def source_max(self, index: int) -> int:
        """Largest factor with which a source of layer ``index`` multiplies a weight."""
        return (1 << self.coding.input_bits) - 1 if index == 0 and self.coding.is_current else 1

    def value_range(self) -> tuple[int, int]:
        """Bounds of one readout value, for the width of the decision unit."""
        if self.readout == "spike_count":
            return 0, self.timesteps
        last = len(self.layers) - 1
        low, high = self.layers[-1].unsaturated_range(self.timesteps, self.source_max(last))
        if self.readout == "membrane_sum":
            return low * self.timesteps, high * self.timesteps
        return low, high

    def _trained_shapes(self) -> list[tuple[int, int]]:
        widths = [self.n_inputs, *(layer.trained_width for layer in self.layers)]
        return list(pairwise(widths))

    @property
    def hash(self) -> str:
        """sha256 (hex) of the content: independent of file layout, host and time."""
        digest = hashlib.sha256(json.dumps(self._metadata(), sort_keys=True).encode())
        for name, array in self._tensors().items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def validate(self, where: str = "network") -> None:
        """Raise InputError naming the first thing that breaks the contract."""
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise InputError(f"{where}: {len(self.layers)} layers, expected 1..{MAX_LAYERS}")
        if not isinstance(self.timesteps, int) or not 1 <= self.timesteps <= MAX_TIMESTEPS:
            raise InputError(f"{where}: timesteps = {self.timesteps!r} is outside 1..{MAX_TIMESTEPS}")
        if self.coding.kind not in get_args(CodingKind):
            raise InputError(f"{where}: input coding {self.coding.kind!r} is none of {', '.join(get_args(CodingKind))}")
        if self.coding.is_current and not 1 <= self.coding.input_bits <= 8:
            raise InputError(f"{where}: input_bits = {self.coding.input_bits} is outside 1..8")
        if not self.coding.is_current and self.coding.input_bits != 0:
            raise InputError(f"{where}: input_bits belongs to the coding 'current' alone")
        if self.readout not in get_args(ReadoutKind):
            raise InputError(f"{where}: readout {self.readout!r} is none of {', '.join(get_args(ReadoutKind))}")
        if self.n_synapses > MAX_SYNAPSES:
            raise InputError(f"{where}: {self.n_synapses} synapses, the limit is {MAX_SYNAPSES}")
        for index, layer in enumerate(self.layers):
            layer.validate(f"{where}: layer {index}")
            if index and layer.n_in != self.layers[index - 1].n_out:
                raise InputError(
                    f"{where}: layer {index} has {layer.n_in} sources, layer {index - 1} has "
                    f"{self.layers[index - 1].n_out} neurons"
                )
            if max(map(abs, layer.potential_range(self.source_max(index)))) >= 1 << 62:
                raise InputError(f"{where}: layer {index}: potentials need more than 62 bits")
        if self.membrane_readout:
            last = self.layers[-1]
            low, high = last.unsaturated_range(self.timesteps, self.source_max(len(self.layers) - 1))
            if last.reset != "none":
                raise InputError(f"{where}: readout {self.readout} needs reset 'none' in the last layer")
            if low < last.membrane_min or high > last.membrane_max:
                raise InputError(
                    f"{where}: readout {self.readout} needs {signed_width(low, high)} membrane bits in the last "
                    f"layer, which has {last.membrane_width}"
                )

    def with_layers(self, layers: Sequence[FrozenLayer]) -> FrozenNetwork:
        return replace(self, layers=tuple(layers))

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[npt.ArrayLike],
        *,
        threshold: Any,
        timesteps: int,
        coding: InputCoding | CodingKind = "events",
        bias: Any = 0,
        leak: Leak | Sequence[Leak] = Leak(),
        reset: ResetKind | Sequence[ResetKind] = "subtract",
        reset_value: int | Sequence[int] = 0,
        compare: CompareKind | Sequence[CompareKind] = ">=",
        fraction_bits: int | Sequence[int] = 0,
        membrane_width: int | Sequence[int] = 16,
        readout: ReadoutKind = "spike_count",
    ) -> FrozenNetwork:
        """Frozen network from integer matrices that were trained elsewhere.

        ``weights[l]`` is an integer (n_in, n_out) matrix, sources first. Every other argument is one
        value for all layers or a sequence with one entry per layer (threshold and bias entries may be
        (n_out,) arrays). Raises InputError if the result is not a valid network.
        """
        count = len(weights)

        def per_layer(name: str, value: Any) -> list[Any]:
            if isinstance(value, list | tuple):
                if len(value) != count:
                    raise InputError(f"{name} has {len(value)} entries for {count} layers")
                return list(value)
            return [value] * count

        columns = {
            name: per_layer(name, value)
            for name, value in {
                "threshold": threshold,
                "bias": bias,
                "leak": leak,
                "reset": reset,
                "reset_value": reset_value,
                "compare": compare,
                "fraction_bits": fraction_bits,
                "membrane_width": membrane_width,
            }.items()
        }
        layers = tuple(
            FrozenLayer.from_dense(matrix, **{name: column[index] for name, column in columns.items()})
            for index, matrix in enumerate(weights)
        )
        if isinstance(coding, str):
            coding = InputCoding(coding)
        network = cls(layers, timesteps, coding, readout)
        network.validate()
        return network

    # File format -----------------------------------------------------------------------------

    def _metadata(self) -> dict[str, Any]:
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "timesteps": self.timesteps,
            "readout": self.readout,
            "coding": {
                "kind": self.coding.kind,
                "input_bits": self.coding.input_bits,
                "parameters": dict(self.coding.parameters),
            },
            "layers": [
                {
                    "n_in": layer.n_in,
                    "n_out": layer.n_out,
                    "n_synapses": layer.n_synapses,
                    "leak": {"kind": layer.leak.kind, "shift": layer.leak.shift, "multiplier": layer.leak.multiplier},
                    "reset": layer.reset,
                    "reset_value": layer.reset_value,
                    "compare": layer.compare,
                    "fraction_bits": layer.fraction_bits,
                    "membrane_width": layer.membrane_width,
                    "weight_bits": layer.weight_bits,
                    "trained_width": layer.trained_width,
                }
                for layer in self.layers
            ],
        }

    def _tensors(self) -> dict[str, np.ndarray]:
        names = ("indptr", "targets", "weights", "bias", "threshold", "trained_index")
        return {
            f"layer{index}.{name}": getattr(layer, name) for index, layer in enumerate(self.layers) for name in names
        }

    def save(self, path: str | Path) -> None:
        """Write the validated network to ``path`` (atomically)."""
        from safetensors.numpy import save_file

        self.validate()
        document = json.dumps(self._metadata(), sort_keys=True)
        tensors = {name: np.ascontiguousarray(array) for name, array in self._tensors().items()}
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={"codesign": document})

    @classmethod
    def load(cls, path: str | Path) -> FrozenNetwork:
        """Read and validate a frozen network. Raises InputError with the file's name in front."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such frozen network; `codesign freeze` writes one")
        try:
            with safe_open(path, framework="numpy") as file:
                document = _parse_metadata(path, (file.metadata() or {}).get("codesign"))
                layers = tuple(
                    _read_layer(file, f"{path}: layer {index}", index, entry)
                    for index, entry in enumerate(document["layers"])
                )
            coding = document["coding"]
            network = cls(
                layers=layers,
                timesteps=document["timesteps"],
                coding=InputCoding(coding["kind"], coding["input_bits"], coding["parameters"]),
                readout=document["readout"],
            )
        except SafetensorError as error:
            raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: the frozen network's metadata is incomplete ({error!r})") from None
        network.validate(str(path))
        return network


def _parse_metadata(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise InputError(f"{path}: not a frozen network (no codesign metadata)")
    if len(text) > MAX_METADATA_BYTES:
        raise InputError(f"{path}: metadata of {len(text)} bytes, the limit is {MAX_METADATA_BYTES}")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: metadata is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT_NAME:
        raise InputError(f"{path}: not a frozen network")
    if document.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {document.get('version')!r}, this codesign reads {FORMAT_VERSION}; freeze it again"
        )
    layers = document.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
        raise InputError(f"{path}: the number of layers is outside 1..{MAX_LAYERS}")
    return document


def _read_layer(file: Any, where: str, index: int, entry: Mapping[str, Any]) -> FrozenLayer:
    for name, limit in (("n_in", MAX_WIDTH), ("n_out", MAX_WIDTH), ("n_synapses", MAX_SYNAPSES)):
        if not isinstance(entry[name], int) or not 0 <= entry[name] <= limit:
            raise InputError(f"{where}: {name} = {entry[name]!r} is outside 0..{limit}")
    expected = {
        "indptr": ("I64", entry["n_in"] + 1),
        "targets": ("I32", entry["n_synapses"]),
        "weights": ("I8", entry["n_synapses"]),
        "bias": ("I64", entry["n_out"]),
        "threshold": ("I64", entry["n_out"]),
        "trained_index": ("I64", entry["n_out"]),
    }
    present = set(file.keys())
    arrays: dict[str, Any] = {}
    for name, (dtype, size) in expected.items():
        key = f"layer{index}.{name}"
        if key not in present:
            raise InputError(f"{where}: tensor {key} is missing")
        view = file.get_slice(key)
        if view.get_dtype() != dtype or list(view.get_shape()) != [size]:
            raise InputError(f"{where}: {name} is {view.get_dtype()} {view.get_shape()}, expected {dtype} [{size}]")
        arrays[name] = file.get_tensor(key)
    leak = entry["leak"]
    return FrozenLayer(
        n_in=entry["n_in"],
        n_out=entry["n_out"],
        leak=Leak(leak["kind"], leak["shift"], leak["multiplier"]),
        reset=cast(ResetKind, entry["reset"]),
        reset_value=entry["reset_value"],
        compare=cast(CompareKind, entry["compare"]),
        fraction_bits=entry["fraction_bits"],
        membrane_width=entry["membrane_width"],
        weight_bits=entry["weight_bits"],
        trained_width=entry["trained_width"],
        **arrays,
    )
