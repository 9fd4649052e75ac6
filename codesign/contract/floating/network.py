"""Populations with float weights, and the network that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.contract.floating import file
from codesign.contract.network import InputCoding, Projection, ReadoutKind, Synapses
from codesign.contract.network.connections import Shape, check_array, is_whole
from codesign.contract.network.file import content_hash
from codesign.contract.network.limits import INPUT, MAX_FLOAT, MAX_WIDTH
from codesign.contract.network.structure import (
    by_layer,
    check_projections,
    check_readout,
    check_reset,
    check_sizes,
    check_sources,
)
from codesign.contract.network.terms import CodingKind, CompareKind, ResetKind, plain_fields

Float = npt.NDArray[np.float64]
MAX_NAME = 200


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """A population of LIF neurons with float weights.

    name : what its source calls it; of reports alone.
    n_out : number of neurons, 1 or more.
    projections : 1 to 16, with float64 weights and sources as in a frozen network.
    threshold, bias, decay, reset_value : float64 (n_out,). These and weights are within +-1e30.
    current_decay : float64 (n_out,), or None without a synaptic current.
    reset, compare : as in a frozen network; ``reset_value`` is used with reset 'value' alone.
    reset_delay : the threshold is subtracted a timestep late and undecayed (reset 'subtract' alone).
    refractory : timesteps after a spike in which the neuron stays as it is, 0 for none.
    shape : (channels, height, width) if the neurons form a picture, else None.
    """

    name: str
    n_out: int
    projections: tuple[Projection, ...]
    threshold: Float
    bias: Float
    decay: Float
    reset_value: Float
    current_decay: Float | None = None
    reset: ResetKind = "subtract"
    reset_delay: bool = False
    compare: CompareKind = ">="
    refractory: int = 0
    shape: Shape | None = None

    def __post_init__(self) -> None:
        plain_fields(self, "n_out", "reset_delay", "refractory", "shape")

    @classmethod
    def from_projections(
        cls, projections: Sequence[Projection], *, name: str = "", shape: Shape | None = None, **terms: Any
    ) -> FloatLayer:
        """Validated layer that these projections reach.

        ``terms`` are the fields of the class; numbers of neurons may be scalars, (channels,) arrays if there is a
        ``shape``, or (n_out,) arrays. Defaults: threshold 1, bias 0, decay 1 and no synaptic current. ``shape`` follows
        from the first convolution. Raises InputError if the result is no valid layer.
        """
        projections = tuple(projections)
        if not projections:
            raise InputError("layer: no projections")
        for projection in projections:
            if shape is None and not isinstance(projection.connections, Synapses):
                shape = projection.connections.out_shape
        n_out = projections[0].connections.n_out
        defaults = {"threshold": 1.0, "bias": 0.0, "decay": 1.0, "reset_value": 0.0, "current_decay": None}
        for term, default in defaults.items():
            value = terms.get(term, default)
            terms[term] = None if value is None else spread(value, n_out, shape, f"{name or 'layer'}: {term}")
        layer = cls(name, n_out, projections, shape=shape, **terms)
        layer.validate(name or "layer")
        return layer

    @property
    def terms(self) -> dict[str, Float]:
        """float64 (n_out,) by name: the numbers of the neurons, those that the layer has."""
        found = {name: getattr(self, name) for name in ("threshold", "bias", "decay", "reset_value")}
        return found if self.current_decay is None else {**found, "current_decay": self.current_decay}

    def validate(self, where: str) -> None:
        """Raise InputError naming the first field that is out of its range."""
        if not isinstance(self.name, str) or len(self.name) > MAX_NAME:
            raise InputError(f"{where}: the name is no text of at most {MAX_NAME} letters")
        if not is_whole(self.n_out, 1, MAX_WIDTH):
            raise InputError(f"{where}: n_out = {self.n_out!r} is outside 1..{MAX_WIDTH}")
        for name, choices in (("reset", get_args(ResetKind)), ("compare", get_args(CompareKind))):
            if getattr(self, name) not in choices:
                raise InputError(f"{where}: {name} {getattr(self, name)!r} is none of {', '.join(choices)}")
        check_reset(self, where)
        for name, values in self.terms.items():
            check_array(values, np.float64, self.n_out, f"{where}: {name}")
            if not np.all(np.abs(values) <= MAX_FLOAT):
                raise InputError(f"{where}: {name} holds NaN, infinite or huge values")
            if name.endswith("decay") and (values.min() < 0 or values.max() > 1):
                wrong = values.min() if values.min() < 0 else values.max()
                raise InputError(f"{where}: {name} {wrong:g} is outside 0..1: what it scales would grow or swing")
        check_projections(self, where, None)


def spread(value: Any, n_out: int, shape: Shape | None, what: str) -> Float:
    """float64 (n_out,) of a scalar, one number per channel of a picture, or one per neuron."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{what} is {array.dtype}, expected real numbers")
    if shape is not None and array.shape == (shape[0],) and shape[0] != n_out:
        array = np.repeat(array, n_out // shape[0])
    if array.shape not in ((), (1,), (n_out,)):
        raise InputError(f"{what} has the shape {array.shape}, expected ({n_out},)")
    return np.broadcast_to(array, (n_out,)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """Layers in order, timesteps per sample, input coding and readout, as of a frozen network.

    With coding 'current' the sample's integers stand for ``value / (2**input_bits - 1)``, so that the input is 0..1.
    With a membrane readout the last layer emits no spikes and has reset 'none'.

    >>> import codesign
    >>> network = codesign.FloatNetwork.from_arrays(
    ...     [[[0.5, -0.25], [1.0, 0.75]]], timesteps=3, decay=0.9, reset="subtract", compare=">"
    ... )
    >>> network.n_inputs, network.n_outputs, network.layers[0].decay.tolist()
    (2, 2, [0.9, 0.9])
    """

    layers: tuple[FloatLayer, ...]
    timesteps: int
    coding: InputCoding = field(default_factory=lambda: InputCoding("events"))
    readout: ReadoutKind = "spike_count"

    def __post_init__(self) -> None:
        plain_fields(self, "timesteps")

    @property
    def n_inputs(self) -> int:
        return self.layers[0].projections[0].n_sources

    @property
    def n_outputs(self) -> int:
        return self.layers[-1].n_out

    @property
    def membrane_readout(self) -> bool:
        """True if the last layer integrates without spiking."""
        return self.readout != "spike_count"

    @property
    def input_scale(self) -> float:
        """What one unit of the input stands for."""
        return 1.0 / self.coding.largest

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[npt.ArrayLike],
        *,
        timesteps: int,
        coding: InputCoding | CodingKind = "events",
        readout: ReadoutKind = "spike_count",
        recurrent: Sequence[npt.ArrayLike | None] | None = None,
        **terms: Any,
    ) -> FloatNetwork:
        """Network of dense layers, one after the other, from matrices that any loop has trained.

        weights : one (n_in, n_out) matrix of real numbers per layer, sources first (of an ``nn.Linear`` the transposed
            ``weight``); zeros are no synapses. recurrent : an (n_out, n_out) matrix or None for each layer.
        terms : fields of :class:`FloatLayer`, one value for all layers or a list of one each, such as ``decay``,
            ``threshold``, ``bias``, ``reset``, ``reset_delay``, ``current_decay``; numbers may be (n_out,) arrays.

        Raises InputError if the result is no valid network.
        """
        layers = []
        backs = [None] * len(weights) if recurrent is None else list(recurrent)
        for index, own in enumerate(by_layer({**terms, "weights": list(weights), "recurrent": backs}, len(weights))):
            projections = [
                Projection(index - 1 if index else INPUT, Synapses.from_dense(own.pop("weights"), np.float64))
            ]
            back = own.pop("recurrent")
            if back is not None:
                projections.append(Projection(index, Synapses.from_dense(back, np.float64)))
            layers.append(FloatLayer.from_projections(projections, **own))
        network = cls(tuple(layers), timesteps, InputCoding(coding) if isinstance(coding, str) else coding, readout)
        network.validate()
        return network

    def with_layers(self, layers: Sequence[FloatLayer]) -> FloatNetwork:
        return replace(self, layers=tuple(layers))

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the content, independent of file layout, host and time."""
        return content_hash(file.metadata(self), file.tensors(self))

    def validate(self, where: str = "network") -> None:
        """Raise InputError naming the first thing that breaks the contract."""
        check_sizes(self.layers, self.timesteps, self.coding, self.readout, where)
        for index, layer in enumerate(self.layers):
            layer.validate(f"{where}: layer {index}")
            check_sources(self.layers, index, where, self.readout if self.membrane_readout else None)
        check_readout(self.layers[-1], self.readout, where)

    def save(self, path: str | Path) -> None:
        """Write the validated network to ``path`` (atomically)."""
        self.validate()
        file.write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> FloatNetwork:
        """Read and validate a float network.

        Raises InputError with the file's name in front, also if the content is not the one that was saved.
        """
        network, stated = file.read(Path(path))
        network.validate(str(path))
        if stated != network.hash:
            raise InputError(f"{path}: damaged: its content does not have the hash that it states; import it again")
        return network
