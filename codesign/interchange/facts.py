"""What an import has to be told, beside what the file says; and what it found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from codesign.basics.errors import InputError
from codesign.contract.network.terms import CompareKind, ReadoutKind, ResetKind
from codesign.quantise.integers import Change

Integrator = Literal["euler", "exponential"]
SpikesKind = Literal["one", "several"]


@dataclass(frozen=True)
class Facts:
    """Facts that options state; None where nothing does. A source asks for what it needs and does not know itself.

    dt : length of a timestep, in the unit of the file's time constants.
    reset : kind for all neurons. resets : kind by node, before ``reset``.
    reset_delay : whether a reset by subtraction comes a timestep late, or keeps a Synaptic of snnTorch silent for one.
    compare : ``>`` or ``>=`` in place of the source's own.
    readout, timesteps : of the network.
    input_bits : 0 for events; else the bits of input currents, which stand for 0..1.
    integrator : how the equations of a file without a framework become timesteps.
    norm_input : whether sinabs scales the input of a leaky neuron by 1 - decay.
    spikes : whether neurons were trained to fire once in a timestep at most, or several times.

    >>> import codesign
    >>> codesign.ImportFacts(dt=1e-3, reset="value", readout="spike_count").timesteps is None
    True
    """

    dt: float | None = None
    reset: ResetKind | None = None
    resets: Mapping[str, ResetKind] = field(default_factory=dict)
    reset_delay: bool | None = None
    compare: CompareKind | None = None
    readout: ReadoutKind | None = None
    timesteps: int | None = None
    input_bits: int = 0
    integrator: Integrator | None = None
    norm_input: bool | None = None
    spikes: SpikesKind | None = None

    def __post_init__(self) -> None:
        for name, kind in (("compare", CompareKind), ("readout", ReadoutKind), ("integrator", Integrator)):
            self._check(f"--{name}", getattr(self, name), get_args(kind))
        self._check("--spikes", self.spikes, get_args(SpikesKind))
        for kind in (self.reset, *self.resets.values()):
            self._check("--reset", kind, get_args(ResetKind))
        if self.dt is not None and not 0 < self.dt < float("inf"):
            raise InputError(f"--dt {self.dt!r} is no length of a timestep; it is positive")

    def stated(self) -> dict[str, Any]:
        """The facts that are, by name."""
        found = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: value for name, (value, default) in found.items() if value != default and value != {}}

    @staticmethod
    def _check(option: str, value: Any, choices: tuple[str, ...]) -> None:
        if value is not None and value not in choices:
            raise InputError(f"{option} {value!r} is none of {', '.join(choices)}")


class Asked:
    """Facts as an import asks for them. What is stated and nobody asks for means nothing to the network at hand: it is
    refused, by :meth:`check`, and not ignored."""

    def __init__(self, stated: Facts) -> None:
        self._stated = stated
        self._names: set[str] = set()
        self._nodes: set[str] = set()

    def get(self, name: str) -> Any:
        """The fact of that name, None if nothing says it."""
        self._names.add(name)
        return getattr(self._stated, name)

    def reset(self, node: str) -> ResetKind | None:
        """The reset of a node, None if no option says it."""
        if node in self._stated.resets:
            self._nodes.add(node)
            return self._stated.resets[node]
        return self.get("reset")

    def reset_of(self, node: str, source: str, choices: tuple[ResetKind, ...]) -> ResetKind:
        """The reset of a node. Raises InputError if no option says it, or the source does not have it."""
        found = self.reset(node)
        if found is None:
            raise InputError(
                f"{node}: how the neuron is reset is not in the file; add --reset {'|'.join(choices)}, "
                f"or --reset {node}=KIND for this node"
            )
        if found not in choices:
            raise InputError(f"{node}: {source} has no reset {found!r}; --reset is one of {', '.join(choices)}")
        return found

    def needed(self, name: str, where: str, why: str, option: str) -> Any:
        """The fact of that name. Raises InputError that names the option if nothing says it."""
        value = self.get(name)
        if value is None:
            raise InputError(f"{where}: {why}; add {option}")
        return value

    def check(self, source: str) -> None:
        """Raise InputError for an option that nothing has asked for."""
        for node in self._stated.resets:
            if node not in self._nodes:
                raise InputError(f"--reset {node}: no neuron of that name takes it; leave it out")
        for name in self._stated.stated():
            if name not in self._names and name != "resets":
                raise InputError(
                    f"--{name.replace('_', '-')} means nothing to --source {source}, or to no neuron of this network; "
                    "leave it out"
                )


@dataclass
class Findings:
    """What an import found, in order. What cannot be done at all is an error instead, the third list.

    supported : what became the same in hardware's terms, one line each. changed : what became another, with its size.
    """

    supported: list[str] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        changed = [change.document() for change in self.changed]
        return {"supported": list(self.supported), "changed": changed, "unsupported": []}
