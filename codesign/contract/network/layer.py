"""One population of LIF neurons with the projections that reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network.connections import (
    Projection,
    Shape,
    Synapses,
    check_array,
    check_shape,
    is_whole,
)
from codesign.contract.network.limits import INPUT, MAX_CONSTANT, MAX_PROJECTIONS, MAX_WIDTH, OWN, PREVIOUS
from codesign.contract.network.terms import NO_LEAK, CompareKind, Int, Leak, ResetKind, plain_fields


@dataclass(frozen=True, eq=False)
class FrozenLayer:
    """A population of LIF neurons in integers.

    A layer whose only projection is of single synapses, without pool, is *plain*. Its synapses can be read from the
    layer itself (``n_in``, ``indptr``, ``targets``, ``weights``, ``sources``, ``dense()``); on any other layer
    these raise UnsupportedError, so that nothing that knows plain layers alone overlooks a projection.

    Parameters
    ----------
    n_out : number of neurons, 1 or more.
    projections : 1 to 16; all share one scale.
    bias, threshold : int64 (n_out,), already scaled by 2**fraction_bits.
    leak, reset, reset_value, compare : see :mod:`codesign.contract.golden`.
    fraction_bits : left shift of the weighted sum.
    membrane_width : bits of the stored membrane, sign included.
    weight_bits : 2..8, sign included; weights lie in +-(2**(weight_bits - 1) - 1).
    trained_index : int64 (n_out,); index of each neuron in the trained layer.
    trained_width : neurons of the trained layer, before dead code was removed.
    shape : (channels, height, width) if the neurons form a picture, else None.
    """

    n_out: int
    projections: tuple[Projection, ...]
    bias: Int
    threshold: Int
    leak: Leak = NO_LEAK
    reset: ResetKind = "subtract"
    reset_value: int = 0
    compare: CompareKind = ">="
    fraction_bits: int = 0
    membrane_width: int = 16
    weight_bits: int = 8
    trained_index: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    trained_width: int = 0
    shape: Shape | None = None

    def __post_init__(self) -> None:
        plain_fields(
            self, "n_out", "reset_value", "fraction_bits", "membrane_width", "weight_bits", "trained_width", "shape"
        )

    # Construction ------------------------------------------------------------------------------

    @classmethod
    def from_dense(
        cls,
        weights: npt.ArrayLike,
        *,
        recurrent: npt.ArrayLike | None = None,
        source: int = PREVIOUS,
        **parameters: Any,
    ) -> FrozenLayer:
        """Layer from an integer (n_in, n_out) matrix; zeros are no synapses.

        recurrent : integer (n_out, n_out) matrix, from row to column; its spikes are used a timestep later.
        source : layer that the matrix reads; by default the one before, or else the network's input.
        parameters : as of :meth:`from_projections`.
        """
        projections = [Projection(source, Synapses.from_dense(weights))]
        if recurrent is not None:
            projections.append(Projection(OWN, Synapses.from_dense(recurrent)))
        return cls.from_projections(projections, **parameters)

    @classmethod
    def from_projections(cls, projections: Sequence[Projection], **parameters: Any) -> FrozenLayer:
        """Validated layer that these projections reach; ``parameters`` are the fields of the class.

        ``bias``, ``threshold`` and the leak's numbers may be integers, (n_out,) arrays, or (channels,) arrays if
        ``shape`` is given. ``shape`` follows from the first convolution, ``weight_bits`` is the fewest that hold the
        weights (at least 2) by default. Raises InputError if the result is no valid layer.
        """
        projections = tuple(projections)
        if not projections:
            raise InputError("layer: no projections")
        for projection in projections:
            if not isinstance(projection.connections, Synapses) and "shape" not in parameters:
                parameters["shape"] = projection.connections.out_shape
        n_out, shape = projections[0].connections.n_out, parameters.get("shape")

        def spread(name: str, value: Any) -> Int:
            array = np.asarray(value)
            if not np.issubdtype(array.dtype, np.integer):
                raise InputError(f"layer: {name} is {array.dtype}, expected integers")
            if shape is not None and array.shape == (shape[0],) and shape[0] != n_out:
                array = np.repeat(array, n_out // shape[0])
            if array.shape not in ((), (1,), (n_out,)):
                raise InputError(f"layer: {name} has the shape {array.shape}, expected ({n_out},)")
            return np.broadcast_to(array, (n_out,)).astype(np.int64)

        for name, default in (("bias", 0), ("threshold", 1)):
            parameters[name] = spread(name, parameters.get(name, default))
        leak: Leak = parameters.get("leak", NO_LEAK)
        if leak.per_neuron:
            parameters["leak"] = Leak(
                leak.kind,
                *(
                    spread(f"leak {name}", value) if isinstance(value, np.ndarray) else value
                    for name, value in (("shift", leak.shift), ("multiplier", leak.multiplier))
                ),
            )
        largest = max(
            int(np.abs(projection.connections.weights.astype(np.int64)).max(initial=1)) for projection in projections
        )
        parameters.setdefault("weight_bits", max(2, largest.bit_length() + 1))
        parameters.setdefault("trained_index", np.arange(n_out, dtype=np.int64))
        parameters.setdefault("trained_width", n_out)
        layer = cls(n_out=n_out, projections=projections, **parameters)
        layer.validate("layer")
        return layer

    def resolved(self, index: int) -> FrozenLayer:
        """The layer with PREVIOUS and OWN replaced by indices, as layer ``index`` of a network."""
        places = {PREVIOUS: index - 1 if index else INPUT, OWN: index}
        # What is no number is left for validation to refuse.
        if not any(type(projection.source) is int and projection.source in places for projection in self.projections):
            return self
        return replace(
            self,
            projections=tuple(
                replace(projection, source=places.get(projection.source, projection.source))
                for projection in self.projections
            ),
        )

    # Synapses ----------------------------------------------------------------------------------

    @property
    def n_sources(self) -> int:
        """Neurons or inputs whose events reach the layer, of all projections together."""
        return sum(projection.n_sources for projection in self.projections)

    @property
    def is_plain(self) -> bool:
        """True if the only projection is of single synapses, without pool."""
        return (
            len(self.projections) == 1
            and self.projections[0].pool is None
            and isinstance(self.projections[0].connections, Synapses)
        )

    @property
    def _synapses(self) -> Synapses:
        connections = self.projections[0].connections
        if not self.is_plain or not isinstance(connections, Synapses):
            raise UnsupportedError(
                "a layer with convolutions, pooling or several projections has no single list of synapses; "
                "read its projections"
            )
        return connections

    @property
    def n_in(self) -> int:
        return self._synapses.n_in

    @property
    def indptr(self) -> Int:
        return self._synapses.indptr

    @property
    def targets(self) -> npt.NDArray[np.int32]:
        return self._synapses.targets

    @property
    def weights(self) -> npt.NDArray[np.int8]:
        return self._synapses.weights

    @property
    def sources(self) -> Int:
        """int64 (n_synapses,): the source of each synapse of a plain layer."""
        return self._synapses.sources

    def dense(self) -> Int:
        """int64 (n_in, n_out) weight matrix of a plain layer."""
        return self._synapses.dense()

    @property
    def n_synapses(self) -> int:
        """Nonzero learned weights of any layer; a tap of a convolution counts once, fixed projections do not."""
        return sum(projection.connections.n_weights for projection in self.projections if not projection.fixed)

    @property
    def learned_weights(self) -> npt.NDArray[np.int8]:
        """int8 (n_synapses,): the weights that ``n_synapses`` counts."""
        return np.concatenate(
            [
                np.zeros(0, np.int8),
                *(projection.connections.weights for projection in self.projections if not projection.fixed),
            ]
        )

    # Numbers of the neurons ---------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, Int]:
        """int64 (n_out,) by name: ``threshold``, ``bias``, and as far as the kind of leak uses them ``leak_shift`` and
        ``leak_multiplier``; of what is one number for the layer, that number for each neuron."""
        leaks = {f"leak_{name}": value for name, value in self.leak.numbers.items()}
        found = {"threshold": self.threshold, "bias": self.bias, **leaks}
        return {name: np.broadcast_to(np.asarray(value, np.int64), (self.n_out,)) for name, value in found.items()}

    @property
    def varying(self) -> set[str]:
        """Names of the :attr:`numbers` that differ between neurons."""
        return {name for name, values in self.numbers.items() if np.any(values != values[0])}

    def with_numbers(self, **numbers: Int) -> FrozenLayer:
        """The layer with other :attr:`numbers`, int64 (n_out,) each; not validated."""
        leaks = {name.removeprefix("leak_"): value for name, value in numbers.items() if name.startswith("leak_")}
        others = {name: value for name, value in numbers.items() if not name.startswith("leak_")}
        return replace(self, leak=replace(self.leak, **leaks), **others)

    # Bounds ------------------------------------------------------------------------------------

    @property
    def membrane_min(self) -> int:
        return -(1 << (self.membrane_width - 1))

    @property
    def membrane_max(self) -> int:
        return (1 << (self.membrane_width - 1)) - 1

    def sum_range(self, source_max: int = 1) -> tuple[Int, Int]:
        """Bounds of the weighted sum per neuron, before the shift: two int64 (n_out,).

        ``source_max`` is the largest factor of the network's input (1 for events, 2**input_bits - 1 for current);
        spikes of other layers and of the layer itself count 0 or 1, and a pool of size s adds s * s sources. Every
        partial sum lies within these bounds too, whatever the order. They are reached unless projections share
        sources.
        """
        low, high = np.zeros(self.n_out, np.int64), np.zeros(self.n_out, np.int64)
        for projection in self.projections:
            least, most = projection.sum_range(source_max if projection.source in (INPUT, PREVIOUS) else 1)
            low += least
            high += most
        return low, high

    def potential_range(self, source_max: int = 1) -> tuple[int, int]:
        """Bounds (low, high) of u = leak(v) + (sum << F) + bias over all stored v and all inputs."""
        low, high = self.sum_range(source_max)
        u_low = self.leak(self.membrane_min) + (low << self.fraction_bits) + self.bias
        u_high = self.leak(self.membrane_max) + (high << self.fraction_bits) + self.bias
        return int(u_low.min()), int(u_high.max())

    def unsaturated_range(self, timesteps: int, source_max: int = 1) -> tuple[int, int]:
        """Bounds of u over ``timesteps`` steps from v = 0 without reset or saturation."""
        low, high = self.sum_range(source_max)
        step_low = (low << self.fraction_bits) + self.bias
        step_high = (high << self.fraction_bits) + self.bias
        if self.leak.kind == "none":
            # Python's integers: the product may exceed 64 bits.
            return min(0, int(step_low.min()) * timesteps), max(0, int(step_high.max()) * timesteps)
        v_low = np.zeros(self.n_out, np.int64)
        v_high = np.zeros(self.n_out, np.int64)
        # Each v starts at 0 and its leak is monotone, so that it only rises or only falls: the last is the farthest.
        for _ in range(timesteps):
            before = v_low, v_high
            v_low = self.leak(v_low) + step_low
            v_high = self.leak(v_high) + step_high
            if np.array_equal(v_low, before[0]) and np.array_equal(v_high, before[1]):
                break
            if max(-int(v_low.min()), int(v_high.max())) > MAX_CONSTANT << 8:
                break
        return min(0, int(v_low.min())), max(0, int(v_high.max()))

    # Validation --------------------------------------------------------------------------------

    def validate(self, where: str) -> None:
        """Raise InputError naming the first field that is out of its range."""
        for name, low, high in (
            ("n_out", 1, MAX_WIDTH),
            ("fraction_bits", 0, 24),
            ("membrane_width", 2, 48),
            ("weight_bits", 2, 8),
            ("trained_width", self.n_out, MAX_WIDTH),
        ):
            if not is_whole(getattr(self, name), low, high):
                raise InputError(f"{where}: {name} = {getattr(self, name)!r} is outside {low}..{high}")
        self.leak.validate(where, self.n_out)
        for name, choices in (("reset", get_args(ResetKind)), ("compare", get_args(CompareKind))):
            if getattr(self, name) not in choices:
                raise InputError(f"{where}: {name} {getattr(self, name)!r} is none of {', '.join(choices)}")
        if not is_whole(self.reset_value, self.membrane_min, self.membrane_max):
            raise InputError(
                f"{where}: reset_value {self.reset_value!r} does not fit a {self.membrane_width}-bit membrane"
            )
        for name in ("bias", "threshold", "trained_index"):
            check_array(getattr(self, name), np.int64, self.n_out, f"{where}: {name}")
        self._validate_projections(where)
        for name in ("bias", "threshold"):
            constants = getattr(self, name)
            if constants.min() < -MAX_CONSTANT or constants.max() > MAX_CONSTANT:
                raise InputError(f"{where}: a {name} is beyond +-2**40")
        if self.trained_index.min() < 0 or self.trained_index.max() >= self.trained_width:
            raise InputError(f"{where}: trained_index is outside 0..{self.trained_width - 1}")
        if np.any(np.diff(self.trained_index) <= 0):
            raise InputError(f"{where}: trained_index is not strictly increasing")

    def _validate_projections(self, where: str) -> None:
        if self.shape is not None:
            check_shape(self.shape, f"{where}: shape")
            if prod(self.shape) != self.n_out:
                raise InputError(f"{where}: shape {self.shape} does not have {self.n_out} neurons")
        if not 1 <= len(self.projections) <= MAX_PROJECTIONS:
            raise InputError(f"{where}: {len(self.projections)} projections, expected 1..{MAX_PROJECTIONS}")
        for number, projection in enumerate(self.projections):
            name = where if len(self.projections) == 1 else f"{where}: projection {number}"
            projection.validate(name, self.weight_bits)
            found = projection.connections.n_out
            if isinstance(projection.connections, Synapses):
                if found != self.n_out:
                    raise InputError(f"{name}: synapses of {found} targets in a layer of {self.n_out} neurons")
            elif projection.connections.out_shape != self.shape:
                raise InputError(
                    f"{name}: a convolution to {projection.connections.out_shape} in a layer of shape {self.shape}"
                )
