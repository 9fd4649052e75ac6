"""The whole network: layers in order, bounds across layers, validation, and what the hardware covers of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network import file
from codesign.contract.network.connections import Convolution, Projection
from codesign.contract.network.layer import FrozenLayer
from codesign.contract.network.limits import INPUT, MAX_PAIRS
from codesign.contract.network.structure import by_layer, check_readout, check_sizes, check_sources
from codesign.contract.network.terms import (
    NO_LEAK,
    CodingKind,
    CompareKind,
    InputCoding,
    Leak,
    ReadoutKind,
    ResetKind,
    plain_fields,
    signed_width,
)


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """Integer SNN: layers in order, timesteps per sample, input coding and readout.

    The last layer is the readout. Sources PREVIOUS and OWN of the layers' projections become indices here.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> network.n_inputs, network.n_outputs, network.n_synapses, network.density
    (2, 2, 4, 1.0)
    >>> network.save("mine.safetensors")
    >>> codesign.FrozenNetwork.load("mine.safetensors").hash == network.hash
    True
    """

    layers: tuple[FrozenLayer, ...]
    timesteps: int
    coding: InputCoding
    readout: ReadoutKind = "spike_count"

    def __post_init__(self) -> None:
        plain_fields(self, "timesteps")
        resolved = tuple(layer.resolved(index) for index, layer in enumerate(self.layers))
        object.__setattr__(self, "layers", resolved)

    @property
    def n_inputs(self) -> int:
        return self.layers[0].projections[0].n_sources

    @property
    def n_outputs(self) -> int:
        return self.layers[-1].n_out

    @property
    def n_synapses(self) -> int:
        """Nonzero learned weights: a tap of a convolution counts once, fixed (residual) projections do not count."""
        return sum(layer.n_synapses for layer in self.layers)

    @property
    def dense_synapses(self) -> int:
        """Learned weights of the configured dense architecture, before dead code was removed."""
        return sum(self._layer_dense_synapses())

    @property
    def layer_density(self) -> list[float]:
        """Nonzero learned weights over the configured dense ones, per layer, 0..1; 0 for a layer without any."""
        return [
            layer.n_synapses / dense if dense else 0.0
            for layer, dense in zip(self.layers, self._layer_dense_synapses(), strict=True)
        ]

    @property
    def density(self) -> float:
        return self.n_synapses / max(1, self.dense_synapses)

    def _layer_dense_synapses(self) -> list[int]:
        return [
            sum(
                self._dense_weights(projection, layer.trained_width)
                for projection in layer.projections
                if not projection.fixed
            )
            for layer in self.layers
        ]

    def _dense_weights(self, projection: Projection, trained_width: int) -> int:
        if isinstance(projection.connections, Convolution):
            return projection.connections.dense_weights
        if projection.pool is not None or projection.source == INPUT:
            return projection.connections.n_in * trained_width
        return self.layers[projection.source].trained_width * trained_width

    @property
    def membrane_readout(self) -> bool:
        """True if the last layer integrates without spiking."""
        return self.readout != "spike_count"

    @property
    def spiking(self) -> list[bool]:
        """Of each layer: whether its spikes leave it; False for the last one of a membrane readout."""
        return [not self.membrane_readout or index < len(self.layers) - 1 for index in range(len(self.layers))]

    @property
    def extra_terms(self) -> bool:
        """True if a layer has a delayed reset, a synaptic current or a refractory period."""
        return any(layer.extra_terms for layer in self.layers)

    @property
    def is_plain_chain(self) -> bool:
        """True if every layer is plain and reads the one before."""
        return all(
            layer.is_plain and layer.projections[0].source == index - 1 for index, layer in enumerate(self.layers)
        )

    def source_max(self, index: int) -> int:
        """Largest factor with which one source of layer ``index`` multiplies a weight."""
        reads_input = any(projection.source == INPUT for projection in self.layers[index].projections)
        return self.coding.largest if reads_input else 1

    def value_range(self) -> tuple[int, int]:
        """Bounds of one readout value, for the width of the decision unit."""
        if self.readout == "spike_count":
            return 0, self.timesteps
        last = len(self.layers) - 1
        low, high = self.layers[-1].unsaturated_range(self.timesteps, self.source_max(last))
        if self.readout == "membrane_sum":
            return low * self.timesteps, high * self.timesteps
        return low, high

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the content, independent of file layout, host and time; computed once."""
        return file.content_hash(file.metadata(self), file.tensors(self))

    def validate(self, where: str = "network") -> None:
        """Raise InputError naming the first thing that breaks the contract."""
        check_sizes(self.layers, self.timesteps, self.coding, self.readout, where)
        for index, layer in enumerate(self.layers):
            layer.validate(f"{where}: layer {index}")
            check_sources(self.layers, index, where, self.readout if self.membrane_readout else None)
            low, high = layer.sum_range(self.source_max(index))
            # With a sum that large the bounds of the potential would not fit 64 bits themselves.
            is_beyond = max(-int(low.min()), int(high.max())) << layer.fraction_bits >= 1 << 61
            if is_beyond or max(map(abs, layer.potential_range(self.source_max(index)))) >= 1 << 62:
                raise InputError(f"{where}: layer {index}: potentials need more than 62 bits")
        check_readout(self.layers[-1], self.readout, where)
        if self.membrane_readout:
            last = self.layers[-1]
            low, high = last.unsaturated_range(self.timesteps, self.source_max(len(self.layers) - 1))
            needs = f"{where}: readout {self.readout} needs {{}} bits in the last layer, which has {{}}"
            if low < last.membrane_min or high > last.membrane_max:
                raise InputError(needs.format(f"{signed_width(low, high)} membrane", last.membrane_width))
            if last.has_current:
                low, high = last.unsaturated_current_range(self.timesteps, self.source_max(len(self.layers) - 1))
                if low < last.current_min or high > last.current_max:
                    raise InputError(needs.format(f"{signed_width(low, high)} current", last.current_width))

    def with_layers(self, layers: Sequence[FrozenLayer]) -> FrozenNetwork:
        return replace(self, layers=tuple(layers))

    # What the accelerator covers ----------------------------------------------------------------

    def hardware_support(self) -> str | None:
        """None if the accelerator can be generated, else one line that says what it does not cover yet."""
        missing: dict[str, list[int]] = {}
        last = len(self.layers) - 1
        read = {
            projection.source
            for index, layer in enumerate(self.layers)
            for projection in layer.projections
            if projection.source != index
        }
        pictures: dict[int, Any] = {index: layer.shape for index, layer in enumerate(self.layers) if layer.shape}
        for index, layer in enumerate(self.layers):
            found: set[str] = set()
            if index != last and index not in read:
                found.add("a layer that leads nowhere")
            for projection in layer.projections:
                shape = projection.source_shape
                # An event has one address, whoever reads it.
                if shape is not None and pictures.setdefault(projection.source, shape) != shape:
                    found.add("a population read as pictures of several shapes")
                if projection.connections.dense_weights > MAX_PAIRS:
                    found.add(f"connections of more than {MAX_PAIRS} possible weights")
            sources = [projection.source for projection in layer.projections]
            if self.coding.is_current and INPUT in sources and any(source != INPUT for source in sources):
                found.add("events beside input currents")
            if self.coding.is_current and INPUT in sources and index > 0:
                found.add("input currents to a later layer")
            for what in sorted(found):
                missing.setdefault(what, []).append(index)
        if not missing:
            return None
        parts = [
            f"{what} (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))})"
            for what, layers in missing.items()
        ]
        return f"the accelerator does not cover {' and '.join(parts)} yet; the frozen network runs only in software"

    def require_hardware(self) -> None:
        """Raise UnsupportedError with the line of :meth:`hardware_support` if there is one."""
        problem = self.hardware_support()
        if problem is not None:
            raise UnsupportedError(problem)

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[npt.ArrayLike],
        *,
        threshold: Any,
        timesteps: int,
        coding: InputCoding | CodingKind = "events",
        bias: Any = 0,
        recurrent: Sequence[npt.ArrayLike | None] | None = None,
        leak: Leak | Sequence[Leak] = NO_LEAK,
        reset: ResetKind | Sequence[ResetKind] = "subtract",
        reset_value: int | Sequence[int] = 0,
        reset_delay: bool | Sequence[bool] = False,
        compare: CompareKind | Sequence[CompareKind] = ">=",
        current_leak: Leak | Sequence[Leak | None] | None = None,
        current_width: int | Sequence[int] = 0,
        refractory: int | Sequence[int] = 0,
        fraction_bits: int | Sequence[int] = 0,
        membrane_width: int | Sequence[int] = 16,
        readout: ReadoutKind = "spike_count",
    ) -> FrozenNetwork:
        """Frozen network from integer matrices that were trained elsewhere.

        ``weights[l]`` is an integer (n_in, n_out) matrix, sources first. Every other argument is one
        value for all layers or a sequence with one entry per layer (threshold and bias entries may be
        (n_out,) arrays); ``recurrent`` has an (n_out, n_out) matrix or None for each. Raises InputError if the
        result is not a valid network.
        """
        columns = {
            "threshold": threshold,
            "bias": bias,
            "recurrent": None if recurrent is None else list(recurrent),
            "leak": leak,
            "reset": reset,
            "reset_value": reset_value,
            "reset_delay": reset_delay,
            "compare": compare,
            "current_leak": current_leak,
            "current_width": current_width,
            "refractory": refractory,
            "fraction_bits": fraction_bits,
            "membrane_width": membrane_width,
        }
        layers = tuple(
            FrozenLayer.from_dense(matrix, **terms)
            for matrix, terms in zip(weights, by_layer(columns, len(weights)), strict=True)
        )
        if isinstance(coding, str):
            coding = InputCoding(coding)
        network = cls(layers, timesteps, coding, readout)
        network.validate()
        return network

    # File --------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the validated network to ``path`` (atomically)."""
        self.validate()
        file.write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> FrozenNetwork:
        """Read and validate a frozen network.

        Raises InputError with the file's name in front, also if the content is not the one that was saved.
        """
        contents = file.read(Path(path))
        network = cls(contents.layers, contents.timesteps, contents.coding, contents.readout)
        network.validate(str(path))
        if contents.hash is not None and contents.hash != network.hash:
            raise InputError(f"{path}: damaged: its content does not have the hash that it states; freeze it again")
        return network
