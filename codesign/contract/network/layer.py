"""One population of LIF neurons with the projections that reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network.connections import (
    Projection,
    Shape,
    Synapses,
    check_array,
    is_whole,
)
from codesign.contract.network.limits import (
    INPUT,
    MAX_CONSTANT,
    MAX_STATE_WIDTH,
    MAX_WIDTH,
    OWN,
    PREVIOUS,
)
from codesign.contract.network.structure import check_projections, check_reset
from codesign.contract.network.terms import NO_LEAK, CompareKind, Int, Leak, ResetKind, plain_fields

# Fields that are leaks: of the membrane, and of the synaptic current.
LEAKS = ("leak", "current_leak")


@dataclass(frozen=True, eq=False)
class FrozenLayer:
    """A population of LIF neurons in integers.

    A layer whose only projection is of single synapses, without pool, is *plain*. Its synapses can be read from the
    layer itself (``n_in``, ``indptr``, ``targets``, ``weights``, ``sources``, ``dense()``); on any other layer
    these raise UnsupportedError, so nothing that knows only plain layers overlooks a projection.

    Parameters
    ----------
    n_out : number of neurons, 1 or more.
    projections : 1 to 16; all share one scale.
    bias, threshold : int64 (n_out,), already scaled by 2**fraction_bits.
    leak, reset, reset_value, compare : see :mod:`codesign.contract.golden`.
    reset_delay : whether a reset by subtraction is taken a timestep late, from what has leaked.
    current_leak : leak of the synaptic current; None if the layer has none.
    current_width : bits of the stored synaptic current, sign included; 0 without.
    refractory : timesteps after a spike in which a neuron rests: v stays as it is and it does not spike.
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
    reset_delay: bool = False
    compare: CompareKind = ">="
    current_leak: Leak | None = None
    current_width: int = 0
    refractory: int = 0
    fraction_bits: int = 0
    membrane_width: int = 16
    weight_bits: int = 8
    trained_index: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    trained_width: int = 0
    shape: Shape | None = None

    def __post_init__(self) -> None:
        plain_fields(
            self,
            *("n_out", "reset_value", "reset_delay", "current_width", "refractory", "fraction_bits"),
            *("membrane_width", "weight_bits", "trained_width", "shape"),
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

        ``bias``, ``threshold`` and the leaks' numbers may be integers, (n_out,) arrays, or (channels,) arrays if
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
            if int(array.max(initial=0)) > np.iinfo(np.int64).max:
                raise InputError(f"layer: {name} {array.max()} does not fit 64 signed bits")
            return np.broadcast_to(array, (n_out,)).astype(np.int64)

        for name, default in (("bias", 0), ("threshold", 1)):
            parameters[name] = spread(name, parameters.get(name, default))
        for field_name in LEAKS:
            leak: Leak | None = parameters.get(field_name)
            if leak is not None:
                parameters[field_name] = leak.each(
                    lambda name, value, of=field_name: spread(f"{of.replace('_', ' ')} {name}", value)
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

    # Terms --------------------------------------------------------------------------------------

    @property
    def has_current(self) -> bool:
        """True if the layer has a synaptic current."""
        return self.current_leak is not None

    @property
    def leaks(self) -> dict[str, Leak]:
        """The leaks that the layer has, by the names of their fields."""
        found = {name: getattr(self, name) for name in LEAKS}
        return {name: leak for name, leak in found.items() if leak is not None}

    @property
    def extra_terms(self) -> bool:
        """True if the layer has a term that a layer may have beside the equations of all layers."""
        return self.reset_delay or self.has_current or self.refractory > 0

    # Numbers of the neurons ---------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, Int]:
        """int64 (n_out,) by name: ``threshold``, ``bias``, and as far as the kinds of the :attr:`leaks` use them
        ``leak_shift``, ``leak_multiplier``, ``current_leak_shift`` and ``current_leak_multiplier``; of what is one
        number for the layer, that number for each neuron."""
        found: dict[str, int | Int] = {"threshold": self.threshold, "bias": self.bias}
        for field_name, leak in self.leaks.items():
            found |= {f"{field_name}_{name}": value for name, value in leak.numbers.items()}
        return {name: np.broadcast_to(np.asarray(value, np.int64), (self.n_out,)) for name, value in found.items()}

    @property
    def varying(self) -> set[str]:
        """Names of the :attr:`numbers` that differ between neurons."""
        return {name for name, values in self.numbers.items() if np.any(values != values[0])}

    def with_numbers(self, **numbers: Int) -> FrozenLayer:
        """The layer with other :attr:`numbers`, int64 (n_out,) each; not validated."""
        parameters: dict[str, Any] = {}
        for name, value in numbers.items():
            field_name, _, number = name.rpartition("_")
            if field_name in LEAKS:
                leak = parameters.get(field_name, self.leaks[field_name])
                parameters[field_name] = replace(leak, **{number: value})
            else:
                parameters[name] = value
        return replace(self, **parameters)

    # Bounds ------------------------------------------------------------------------------------

    @property
    def membrane_min(self) -> int:
        return -(1 << (self.membrane_width - 1))

    @property
    def membrane_max(self) -> int:
        return (1 << (self.membrane_width - 1)) - 1

    @property
    def current_min(self) -> int:
        """Of a layer with a synaptic current, as is :attr:`current_max`."""
        return -(1 << (self.current_width - 1))

    @property
    def current_max(self) -> int:
        return (1 << (self.current_width - 1)) - 1

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

    def step_range(self, source_max: int = 1) -> tuple[Int, Int]:
        """Bounds of acc = (sum << F) + bias, per neuron: two int64 (n_out,)."""
        low, high = self.sum_range(source_max)
        return (low << self.fraction_bits) + self.bias, (high << self.fraction_bits) + self.bias

    def kept_range(self) -> tuple[Int, Int]:
        """Bounds of what v leaves for the next timestep, per neuron: leak(v), less the threshold where a delayed reset
        subtracts it. Two int64 (n_out,)."""
        low, high = (self._leaked(self.leak, v) for v in (self.membrane_min, self.membrane_max))
        if self.reset_delay:
            # Whether u reaches the threshold says on which side of it v lies, which is u clipped.
            edge = self.leak.exact(np.clip(self.threshold, self.membrane_min, self.membrane_max))
            return np.minimum(low, edge - self.threshold), np.maximum(edge, high - self.threshold)
        return low, high

    def current_range(self, source_max: int = 1) -> tuple[Int, Int]:
        """Bounds of current_leak(i) + acc, per neuron, before it is clipped into i: two int64 (n_out,)."""
        (least, most), (low, high) = self._leaked_current(), self.step_range(source_max)
        return least + low, most + high

    def current_kept_range(self) -> tuple[Int, Int]:
        """Bounds of current_leak(i) + bias, per neuron: two int64 (n_out,)."""
        least, most = self._leaked_current()
        return least + self.bias, most + self.bias

    def _leaked_current(self) -> tuple[Int, Int]:
        assert self.current_leak is not None
        return self._leaked(self.current_leak, self.current_min), self._leaked(self.current_leak, self.current_max)

    def _leaked(self, leak: Leak, value: int) -> Int:
        """int64 (n_out,): what each neuron's ``value`` leaks to."""
        return leak.exact(np.full(self.n_out, value, np.int64))

    def potential_range(self, source_max: int = 1) -> tuple[int, int]:
        """Bounds (low, high) of u over all stored v, synaptic currents and inputs."""
        (kept_low, kept_high), (low, high) = self.kept_range(), self.step_range(source_max)
        if self.has_current:
            low, high = (np.clip(value, self.current_min, self.current_max) for value in self.current_range(source_max))
        least, most = int((kept_low + low).min()), int((kept_high + high).max())
        # A neuron that rests has u = v.
        return (min(least, self.membrane_min), max(most, self.membrane_max)) if self.refractory else (least, most)

    def unsaturated_range(self, timesteps: int, source_max: int = 1) -> tuple[int, int]:
        """Bounds of u over ``timesteps`` steps from v = 0 without reset or saturation."""
        return self._unsaturated(timesteps, source_max)[0]

    def unsaturated_current_range(self, timesteps: int, source_max: int = 1) -> tuple[int, int]:
        """Bounds of the synaptic current over ``timesteps`` steps from i = 0 without saturation."""
        return self._unsaturated(timesteps, source_max)[1]

    def _unsaturated(self, timesteps: int, source_max: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Bounds of u, and of what is added to leak(v): the synaptic current, or acc without one."""
        steps = self.step_range(source_max)
        gathers = self.current_leak
        if self.leak.kind == "none" and (gathers is None or gathers.kind == "none"):
            # Python's integers: the products may exceed 64 bits.
            low, high = min(0, int(steps[0].min())), max(0, int(steps[1].max()))
            added, sums = (1, timesteps) if gathers is None else (timesteps, timesteps * (timesteps + 1) // 2)
            return (low * sums, high * sums), (low * added, high * added)
        ends = []
        for step in steps:
            v = i = np.zeros(self.n_out, np.int64)
            # Both start at 0 and leaks are monotone, so that each only rises or only falls: the last is the farthest.
            for _ in range(timesteps):
                before = v, i
                i = step if gathers is None else gathers.exact(i) + step
                v = self.leak.exact(v) + i
                if np.array_equal(v, before[0]) and np.array_equal(i, before[1]):
                    break
                if max(int(np.abs(v).max()), int(np.abs(i).max())) > MAX_CONSTANT << 8:
                    break
            ends.append((v, i))
        (v_low, i_low), (v_high, i_high) = ends
        return (
            (min(0, int(v_low.min())), max(0, int(v_high.max()))),
            (min(0, int(i_low.min())), max(0, int(i_high.max()))),
        )

    # Validation --------------------------------------------------------------------------------

    def validate(self, where: str) -> None:
        """Raise InputError naming the first field that is out of its range."""
        for name, low, high in (
            ("n_out", 1, MAX_WIDTH),
            ("fraction_bits", 0, 24),
            ("membrane_width", 2, MAX_STATE_WIDTH),
            ("weight_bits", 2, 8),
            ("trained_width", self.n_out, MAX_WIDTH),
        ):
            if not is_whole(getattr(self, name), low, high):
                raise InputError(f"{where}: {name} = {getattr(self, name)!r} is outside {low}..{high}")
        for name, leak in self.leaks.items():
            leak.validate(where if name == "leak" else f"{where}: {name}", self.n_out)
        for name, choices in (("reset", get_args(ResetKind)), ("compare", get_args(CompareKind))):
            if getattr(self, name) not in choices:
                raise InputError(f"{where}: {name} {getattr(self, name)!r} is none of {', '.join(choices)}")
        if not is_whole(self.reset_value, self.membrane_min, self.membrane_max):
            raise InputError(
                f"{where}: reset_value {self.reset_value!r} does not fit a {self.membrane_width}-bit membrane"
            )
        self._validate_terms(where)
        for name in ("bias", "threshold", "trained_index"):
            check_array(getattr(self, name), np.int64, self.n_out, f"{where}: {name}")
        check_projections(self, where, self.weight_bits)
        for name in ("bias", "threshold"):
            constants = getattr(self, name)
            if constants.min() < -MAX_CONSTANT or constants.max() > MAX_CONSTANT:
                raise InputError(f"{where}: a {name} is beyond +-2**40")
        if self.trained_index.min() < 0 or self.trained_index.max() >= self.trained_width:
            raise InputError(f"{where}: trained_index is outside 0..{self.trained_width - 1}")
        if np.any(np.diff(self.trained_index) <= 0):
            raise InputError(f"{where}: trained_index is not strictly increasing")

    def _validate_terms(self, where: str) -> None:
        check_reset(self, where)
        width = self.current_width
        if self.has_current and not is_whole(width, 2, MAX_STATE_WIDTH):
            raise InputError(f"{where}: current_width = {width!r} is outside 2..{MAX_STATE_WIDTH}")
        if not self.has_current and not is_whole(width, 0, 0):
            raise InputError(f"{where}: current_width = {width!r} without a current_leak; it is 0 then")
