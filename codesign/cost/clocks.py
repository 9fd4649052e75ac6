"""The clocks of a machine, exactly as simulation has them, given what its neurons do.

A machine's control does not depend on its arithmetic: which neurons spike is the golden model's to say, and when,
follows from who waits for whom. The C++ sources in ``control`` run that control, clock by clock: the parts of
:mod:`rtl_templates` with their registers and without their data. :mod:`codesign.cost.control.drawing` draws a plan as
such parts and tells them what they need to know: how long each source's row is in every lane, which neurons are in a
slot, in which order events come in.

Covered is every machine that is built, for samples that keep the rules and a host that always has the next word and
always takes what comes (``sim/tb``). It is compiled at first use; without a compiler there is
:func:`codesign.cost.estimate.cycle_estimate`. ``verify`` compares both numbers of every sample with what it simulates.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from codesign.basics import native
from codesign.contract import golden
from codesign.contract.stimulus import Stimulus
from codesign.cost.control.drawing import Drawing, input_words
from codesign.machine.plan import MachinePlan

Int = npt.NDArray[np.int64]

CONTROL = Path(__file__).with_name("control")
FLAGS = ("-std=c++17", "-O2")
# Clocks in which nothing comes in or goes out, beyond several times the longest work of a sample.
QUIET_CLOCKS = 10_000
FOREVER = (1 << 63) - 1
# Steps of parts, most of them fetchers, in which the clocks of a verification are told: seconds.
MOST_CHECKED = 500_000_000
OTHER_PARTS = 10
STUCK = {-1: "it stands still", -2: "no netlist"}
# The phase of verification in which samples wait for each other.
ALONE = "one_at_a_time"


class Run(Protocol):
    """Samples that were simulated: ``phase`` says how, ``samples`` are their numbers, the rest is in clocks."""

    @property
    def phase(self) -> str: ...
    @property
    def samples(self) -> Int: ...
    @property
    def starts(self) -> Int: ...
    @property
    def decisions(self) -> Int: ...


@dataclass(frozen=True, eq=False)
class SampleClocks:
    """When samples began and were decided, int64 (N,) each, in clocks since reset.

    starts : the first word is taken. decisions : the decision is taken.
    """

    starts: Int
    decisions: Int

    @property
    def latencies(self) -> Int:
        """int64 (N,): clocks from the first word to the decision."""
        return self.decisions - self.starts

    @property
    def intervals(self) -> Int:
        """int64 (N - 1,): clocks between decisions."""
        return np.diff(self.decisions)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled control; None where it cannot be compiled."""
    found = native.opened(native.build("clocks", (CONTROL / "machine.cpp",), (FLAGS,), sorted(CONTROL.glob("*.hpp"))))
    if found is None:
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    found.codesign_clocks.restype = integer
    found.codesign_clocks.argtypes = [
        *[pointer] * 2, *[integer] * 2, *[pointer] * 5, ctypes.c_int, *[integer] * 2, *[pointer] * 2,
    ]  # fmt: skip
    return found


def machine_clocks(
    plan: MachinePlan,
    stimulus: Stimulus,
    *,
    alone: bool,
    trace: golden.Trace | None = None,
    most: int = FOREVER,
) -> SampleClocks | None:
    """The clocks of every sample, after a reset, in the order of the stimulus; None if there is no compiler.

    alone : each sample waits until nothing of the one before is left inside; else they come back to back.
    trace : the golden model's on these samples, with spikes and without early exit, if there is one.
    most : clocks; samples that are not decided by then are left out.
    """
    found = library()
    if found is None:
        return None
    network, count = plan.network, len(stimulus)
    if trace is None or not trace.spikes:
        trace = golden.run(network, stimulus, membranes=False)
    exits = trace.exits
    if plan.choices.exits:
        exits = golden.run(network, stimulus, membranes=False, spikes=False, early_exit=plan.choices.early_exit).exits
    netlist, tables = Drawing(plan).finished()
    words, begins = input_words(plan, stimulus)
    spikes = [np.ascontiguousarray(part).view(np.uint8) for part in trace.spikes]
    addresses = np.array([part.ctypes.data for part in spikes], np.uint64)
    widths = np.array([layer.n_out for layer in network.layers], np.int64)
    starts, decisions = np.zeros(count, np.int64), np.zeros(count, np.int64)
    arrays = (words, begins, addresses, widths, exits.astype(np.int64))
    made = found.codesign_clocks(
        netlist.ctypes.data,
        tables.ctypes.data,
        count,
        network.timesteps,
        *(array.ctypes.data for array in arrays),
        int(alone),
        most,
        _most_quiet(plan),
        starts.ctypes.data,
        decisions.ctypes.data,
    )
    if made < 0:
        raise RuntimeError(f"the clocks of the machine cannot be told: {STUCK[made]}")
    return SampleClocks(starts[:made], decisions[:made])


@dataclass(frozen=True)
class ClockCheck:
    """Clocks of samples that were simulated against those that were told.

    compared : samples, of both ways together, as far as they could be told in seconds. equal : those whose start and
        decision are the same. first : the first that differs, in words.
    """

    compared: int
    equal: int
    first: str | None

    def document(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)


def check_clocks(plan: MachinePlan, stimulus: Stimulus, runs: Iterable[Run]) -> ClockCheck | None:
    """Compare runs of the simulation, each after a reset, with :func:`machine_clocks`; None if there is no compiler."""
    compared = equal = 0
    first: str | None = None
    runs = [*runs]
    most = MOST_CHECKED // (parts(plan) * max(1, len(runs)))
    for run in runs:
        told = machine_clocks(plan, stimulus.take(run.samples), alone=run.phase == ALONE, most=most)
        if told is None:
            return None
        # The simulation counts from another clock.
        origin = run.starts[:1] - told.starts[:1]
        starts, decisions = (part[: told.starts.size] - origin for part in (run.starts, run.decisions))
        same = (starts == told.starts) & (decisions == told.decisions)
        compared += same.size
        equal += int(same.sum())
        if first is None and not same.all():
            at = int(np.argmin(same))
            first = (
                f"{run.phase}, sample {run.samples[at]}: begins and is decided in clocks "
                f"{told.starts[at]} and {told.decisions[at]}, simulated {starts[at]} and {decisions[at]}"
            )
    return ClockCheck(compared, equal, first)


def exact_cycles(
    plan: MachinePlan, stimulus: Stimulus, trace: golden.Trace | None = None
) -> dict[str, float | None] | None:
    """``latency_cycles``, the mean of samples alone, and ``interval_cycles``, between decisions back to back (None for
    a single sample), as simulation has them; None if there is no compiler. Arguments: of :func:`machine_clocks`."""
    trace = trace or golden.run(plan.network, stimulus, membranes=False)
    alone = machine_clocks(plan, stimulus, alone=True, trace=trace)
    if alone is None:
        return None
    together = machine_clocks(plan, stimulus, alone=False, trace=trace) if len(stimulus) > 1 else None
    return {
        "latency_cycles": float(alone.latencies.mean()),
        "interval_cycles": None if together is None else float(together.intervals.mean()),
    }


def parts(plan: MachinePlan) -> int:
    """Parts that work in a clock, about: what a clock takes to be told goes with them."""
    return OTHER_PARTS + sum(len(engine.walkers) for engine in plan.engines)


def _most_quiet(plan: MachinePlan) -> int:
    """Clocks in which a machine that works may neither take nor give anything."""
    work = sum(
        int(layer.walked(layer.row_lengths).sum(axis=1).max(initial=0)) + 2 * layer.n_in + 4 * layer.n_slots + 100
        for layer in plan.mapping.layers
    )
    return QUIET_CLOCKS + 4 * plan.network.timesteps * work
