"""Choices of hardware: what a machine is to be beside its network and its lanes, and which of them go together.

:class:`Choices` is passed whole to whatever builds, estimates or describes a machine. :data:`FEATURES` says of each
choice what it excludes and needs and who does not know it. :func:`problem` is the only place that refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.early_exit import EarlyExit, early_exit_problem
from codesign.contract.network import FrozenNetwork, ReadoutKind
from codesign.contract.network.terms import plain_fields
from codesign.machine.schedules import Schedule, Sources, as_chosen, layer_schedules, schedule_problem, sources_of

Shape = Literal["streaming", "folded"]
StateMemory = Literal["auto", "block", "distributed"]
Synapses = Literal["plain", "compact"]
Pipeline = Literal["deep", "short"]
PIPELINES: tuple[Pipeline, ...] = get_args(Pipeline)
SynapseMemory = Literal["auto", "spram"]
ScheduleChoice = Schedule | Literal["auto"] | tuple[Schedule, ...]
Consumer = Literal["board"]

# Read-only memories of as many bits ask for block memory: left to themselves, tools build twice as much from logic.
BLOCK_ROM_BITS = 512
QUEUE_DEPTHS = (2, 64)
INPUT_WORDS = (1, 8)
EVENT_STREAMS = (1, 2, 4)
MAX_LANES = 32


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a machine is, beside its network, its lanes and, if it is loadable, its capacity.

    shape : "streaming" for an engine per layer, "folded" for one engine, layers in turn.
    queue_depth : rows that a lane may lag behind its layer's other lanes, 2..64.
    input_words : words of an input beat, 1..8.
    event_streams : events that each layer takes in a clock, of different sources: 1, 2 or 4.
    schedule : how often layers walk a source's row (:mod:`codesign.machine.schedules`): "timestep", "sample" for all at
        once, a tuple with one of these for each layer, or "auto" for what samples make worth while, which
        :func:`codesign.cost.schedules.choose_schedules` turns into a tuple.
    input_checks : False trusts the host to keep the rules of the input; ``protocol_error`` stays 0.
    counters : False leaves ``saturation_count`` and ``cycle_count``, and those of early exit, at 0.
    state_memory : what the membranes' memories ask the synthesis tool for.
    synapse_memory : "spram" for single-port RAM (iCE40 UP5K); the machine starts without a network.
    synapses : "compact" for the encoding of the fewest bits, of each layer, or of all of a folded engine.
    pipeline : "short" for fewer registers, and a slower clock.
    lockstep : the lanes of a layer walk each row together, from one memory.
    spike_fifos : False leaves out the FIFOs behind the layers' sweeps, which then wait for the layer behind.
    output_spikes : False sends values and decision only.
    block_rom_bits : read-only memories of as many bits ask for block memory; smaller ones ask for nothing.
    early_exit : "off", "certain" or a margin: samples may be decided before their last timestep
        (:mod:`codesign.contract.early_exit`).
    loadable : other networks can be loaded while the machine runs.

    Raises InputError for a value out of range. Whether the values go together is :func:`check`'s to say.
    """

    shape: Shape = "streaming"
    queue_depth: int = 8
    input_words: int = 1
    event_streams: int = 1
    schedule: ScheduleChoice = "timestep"
    input_checks: bool = True
    counters: bool = True
    state_memory: StateMemory = "auto"
    synapse_memory: SynapseMemory = "auto"
    synapses: Synapses = "plain"
    pipeline: Pipeline = "deep"
    lockstep: bool = False
    spike_fifos: bool = True
    output_spikes: bool = True
    block_rom_bits: int = BLOCK_ROM_BITS
    early_exit: EarlyExit = "off"
    loadable: bool = False

    def __post_init__(self) -> None:
        plain_fields(self, *(field.name for field in fields(self)))
        if isinstance(self.schedule, list):
            object.__setattr__(self, "schedule", tuple(self.schedule))
        names = {
            "shape": Shape,
            "state_memory": StateMemory,
            "synapse_memory": SynapseMemory,
            "synapses": Synapses,
            "pipeline": Pipeline,
        }
        for key, kind in names.items():
            if getattr(self, key) not in get_args(kind):
                raise InputError(f"hardware.{key} = {getattr(self, key)!r} is none of {', '.join(get_args(kind))}")
        ranges = {"queue_depth": QUEUE_DEPTHS, "input_words": INPUT_WORDS, "block_rom_bits": (0, None)}
        for key, (low, high) in ranges.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < low or (high and value > high):
                wanted = f"outside {low}..{high}" if high else f"no whole number of {low} or more"
                raise InputError(f"hardware.{key} = {value!r} is {wanted}")
        streams = self.event_streams
        if type(streams) is not int or streams not in EVENT_STREAMS:
            raise InputError(f"hardware.event_streams = {streams!r} is none of {', '.join(map(str, EVENT_STREAMS))}")
        of_layers = self.schedule if isinstance(self.schedule, tuple) and self.schedule else (self.schedule,)
        if self.schedule != "auto" and not all(schedule in get_args(Schedule) for schedule in of_layers):
            raise InputError(
                f"hardware.schedule = {self.schedule!r} is none of {', '.join(get_args(Schedule))}, auto, and no list "
                "of the first two"
            )
        for key in ("input_checks", "counters", "lockstep", "spike_fifos", "output_spikes", "loadable"):
            if not isinstance(getattr(self, key), bool):
                raise InputError(f"hardware.{key} = {getattr(self, key)!r} is neither true nor false")
        # What this readout does not take is no value at all.
        found = early_exit_problem("spike_count", self.early_exit)
        if found is not None:
            raise InputError(f"hardware.{found}")

    @property
    def folded(self) -> bool:
        """True for one engine, which does the layers in turn."""
        return self.shape == "folded"

    @property
    def exits(self) -> bool:
        """True if samples may be decided before their last timestep."""
        return self.early_exit != "off"

    @property
    def counts(self) -> bool:
        """True if a last layer that spikes counts its spikes itself: nobody is to see them before the sample's end."""
        return not (self.output_spikes or self.exits or self.folded)

    @property
    def starts_empty(self) -> bool:
        """True if the machine has no network until one is loaded."""
        return self.synapse_memory == "spram"


DEFAULTS = Choices()


@dataclass(frozen=True)
class Feature:
    """What follows from a choice that is not the default.

    excludes : choices that must then keep their defaults. needs : choices that must not.
    readout : the readout that it is built for; None for any.
    structures : whether it is built for networks that are no chains of single synapses.
    unknown_to : consumers that cannot deal with it.
    """

    excludes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    readout: ReadoutKind | None = None
    structures: bool = True
    unknown_to: tuple[Consumer, ...] = ()


# Early exit depends on the network's readout in more than one way: see early_exit.early_exit_problem.
FEATURES: dict[str, Feature] = {
    "shape": Feature(),
    "queue_depth": Feature(),
    "input_words": Feature(unknown_to=("board",)),
    "event_streams": Feature(),
    "schedule": Feature(excludes=("shape",)),
    "input_checks": Feature(unknown_to=("board",)),
    "counters": Feature(),
    "state_memory": Feature(),
    "synapse_memory": Feature(needs=("loadable",), unknown_to=("board",)),
    "synapses": Feature(structures=False),
    "pipeline": Feature(),
    "lockstep": Feature(excludes=("shape", "synapses"), structures=False),
    "spike_fifos": Feature(),
    "output_spikes": Feature(readout="spike_count"),
    "block_rom_bits": Feature(),
    "early_exit": Feature(unknown_to=("board",)),
    "loadable": Feature(excludes=("shape", "synapses"), structures=False),
}
CONSUMERS: dict[Consumer, str] = {"board": "a board's link"}


def chosen(choices: Choices) -> tuple[str, ...]:
    """The choices that are not the defaults, in the table's order."""
    return tuple(key for key in FEATURES if getattr(choices, key) != getattr(DEFAULTS, key))


def problem(
    choices: Choices,
    *,
    readout: ReadoutKind | None = None,
    n_outputs: int | None = None,
    lanes: Sequence[int] | None = None,
    structured: bool = False,
    sources: Sources | None = None,
    is_current: bool = False,
    consumer: Consumer | None = None,
) -> str | None:
    """Why no such machine is built, in one line; None if it is.

    readout, n_outputs, lanes, structured : of the network and its placement, as far as they are known; ``structured``
        says whether it is anything else than a chain of single synapses.
    sources, is_current : what each layer reads, and whether inputs are currents, for schedules of single layers.
    consumer : who is to deal with the machine; None for its generation and verification, which know every choice.
    """
    given = chosen(choices)
    for key in given:
        feature = FEATURES[key]
        for other in feature.needs:
            if other not in given:
                return f"{_text(choices, key)} needs {_text_of(other, _other_than_default(other))}"
        for other in feature.excludes:
            if other in given:
                return f"{_text(choices, key)} is not built together with {_text(choices, other)}; leave one out"
        if feature.readout is not None and readout not in (None, feature.readout):
            return f"{_text(choices, key)} needs readout {feature.readout!r}, the network has {readout!r}"
        if structured and not feature.structures:
            return (
                f"{_text(choices, key)} is built only for chains of single synapses, without convolutions, pools, "
                "recurrence and skips; leave it out"
            )
    against = None if readout is None else early_exit_problem(readout, choices.early_exit)
    if against is not None:
        return f"hardware.{against}"
    if choices.exits and n_outputs is not None and n_outputs < 2:
        return f"{_text(choices, 'early_exit')} needs two classes or more, the network has {n_outputs}"
    if choices.folded and lanes is not None and len(set(lanes)) > 1:
        return f"lanes {list(lanes)} differ, but {_text(choices, 'shape')} has one engine; give one number"
    if sources is not None and choices.schedule != "auto":
        against = schedule_problem(layer_schedules(choices.schedule, len(sources), is_current=is_current), sources)
        if against is not None:
            return against
    if consumer is not None:
        for key in given:
            if consumer in FEATURES[key].unknown_to:
                return f"{CONSUMERS[consumer]} does not know {_text(choices, key)}; leave it out"
    return None


def check(
    choices: Choices,
    network: FrozenNetwork | None = None,
    *,
    readout: ReadoutKind | None = None,
    lanes: Sequence[int] | None = None,
    structured: bool = False,
    sources: Sources | None = None,
    consumer: Consumer | None = None,
) -> None:
    """Raise UnsupportedError with :func:`problem`'s line if there is one; ``network`` gives all but the lanes."""
    if network is not None:
        readout, sources = network.readout, sources_of(network)
    n_outputs = None if network is None else network.n_outputs
    structured = structured if network is None else not network.is_plain_chain
    found = problem(
        choices,
        readout=readout,
        n_outputs=n_outputs,
        lanes=lanes,
        structured=structured,
        sources=sources,
        is_current=network is not None and network.coding.is_current,
        consumer=consumer,
    )
    if found is not None:
        raise UnsupportedError(found)


def keys() -> tuple[str, ...]:
    """Names of all choices, those of the keys in ``[hardware]``."""
    return tuple(field.name for field in fields(Choices))


def _other_than_default(key: str) -> Any:
    default = getattr(DEFAULTS, key)
    return not default if isinstance(default, bool) else "something else"


def _text(choices: Choices, key: str) -> str:
    return _text_of(key, getattr(choices, key))


def _text_of(key: str, value: Any) -> str:
    """A choice as it stands in a configuration."""
    if isinstance(value, tuple):
        value = list(value)
    return f"hardware.{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"


__all__ = [
    "BLOCK_ROM_BITS",
    "CONSUMERS",
    "DEFAULTS",
    "EVENT_STREAMS",
    "FEATURES",
    "INPUT_WORDS",
    "MAX_LANES",
    "QUEUE_DEPTHS",
    "Choices",
    "Consumer",
    "Feature",
    "Pipeline",
    "ScheduleChoice",
    "Shape",
    "StateMemory",
    "SynapseMemory",
    "Synapses",
    "as_chosen",
    "check",
    "chosen",
    "keys",
    "problem",
]
