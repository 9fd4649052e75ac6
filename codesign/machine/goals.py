"""Goals: what a user wants of a machine, in a word, and the choices and lanes that follow.

A goal gives the choices that nobody gave; what does not go with the network or with a board is left at its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from codesign.contract.network import ReadoutKind
from codesign.machine.choices import Choices, Consumer, problem

Goal = Literal["small", "balanced", "fast", "tiny"]


@dataclass(frozen=True)
class Aim:
    """What a goal stands for.

    text : for a reader. choices : in the order in which they are taken. within : the fewest lanes are taken with which
    the clocks of a sample are at most so many times the least that lanes can reach; None for one lane.
    """

    text: str
    choices: Mapping[str, Any]
    within: float | None


GOALS: dict[Goal, Aim] = {
    "small": Aim("one engine for all layers in turn, one lane", {"shape": "folded"}, None),
    "balanced": Aim(
        "lanes for at most twice the clocks that lanes can reach", {"queue_depth": 4, "state_memory": "block"}, 2.0
    ),
    "fast": Aim(
        "lanes and schedules of time for nearly the fewest clocks, two events a clock, four words an input beat",
        {"state_memory": "block", "input_words": 4, "event_streams": 2, "schedule": "auto"},
        1.05,
    ),
    "tiny": Aim(
        "nothing but the network: one lane, no checks, counters, FIFOs or output spikes, short pipelines",
        {
            "pipeline": "short",
            "input_checks": False,
            "counters": False,
            "spike_fifos": False,
            "output_spikes": False,
        },
        None,
    ),
}


def expanded(
    goal: Goal, given: Mapping[str, Any], *, readout: ReadoutKind, structured: bool, consumers: Sequence[Consumer] = ()
) -> dict[str, Any]:
    """The choices of a goal, but for those ``given``, as far as a machine of all of them is built.

    given : choices that are decided, by their keys. structured : the network is no chain of single synapses.
    consumers : who is to deal with the machine beside its generation.
    """
    found: dict[str, Any] = {}
    for key, value in GOALS[goal].choices.items():
        if key in given:
            continue
        candidate = {**found, key: value}
        choices = Choices(**{**given, **candidate})
        refused = [problem(choices, readout=readout, structured=structured, consumer=who) for who in (None, *consumers)]
        if not any(refused):
            found = candidate
    return found
