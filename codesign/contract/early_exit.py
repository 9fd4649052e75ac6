"""Early exit: after which timestep a sample may be decided. The rule, in integers.

A sample may be decided after timestep t < T - 1 if its rule holds for the values that the readout has by then:

    "certain"   lead > T - 1 - t, or lead = T - 1 - t and the first class is below the second
    m >= 1      lead >= m

The first class is the one that would be decided now (greatest value, lowest class on a tie), the second the one that
would be decided without it, and the lead the difference of their values. Values and decision are those after the first
such t; later timesteps do not count.

"certain" never changes a decision. With readout `spike_count` a class fires at most once a timestep, so that in the
r = T - 1 - t timesteps that are left no count falls and none grows by more than r. With a lead above r the second class
cannot catch up; with a lead of r it can draw level at most, and loses the tie if it is above the first. Any other class
is behind the second in the same order and cannot do what the second cannot. The rule is tight: where it does not hold,
the second class wins if it fires in every timestep that is left and the first in none.

Membranes have bounds too, but those that follow from the weights are many times what membranes do, so that "certain"
would hardly ever hold early: readouts of membranes have the margin alone. `membrane_last` looks at the last timestep
alone and has neither.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.contract.network import FrozenNetwork, ReadoutKind

EarlyExit = Literal["off", "certain"] | int
MAX_MARGIN = (1 << 31) - 1


def early_exit_problem(readout: ReadoutKind, early_exit: EarlyExit) -> str | None:
    """What stands against ending samples of a readout by ``early_exit``, in one line; None if nothing does."""
    if early_exit == "off":
        return None
    is_margin = isinstance(early_exit, int) and not isinstance(early_exit, bool)
    if early_exit != "certain" and not (is_margin and 1 <= early_exit <= MAX_MARGIN):
        return f"early_exit = {early_exit!r} is neither 'off', 'certain' nor a margin of 1..{MAX_MARGIN}"
    if readout == "membrane_last":
        return f"early_exit = {early_exit!r}: readout 'membrane_last' looks only at the last timestep; use another"
    if early_exit == "certain" and readout != "spike_count":
        return f"early_exit = 'certain' needs readout 'spike_count'; for {readout!r} give a margin"
    return None


def check_early_exit(network: FrozenNetwork, early_exit: EarlyExit) -> None:
    """Raise InputError unless ``early_exit`` is "off" or a rule by which the network's samples can end."""
    problem = early_exit_problem(network.readout, early_exit)
    if problem is not None:
        raise InputError(problem)
    if early_exit != "off" and network.n_outputs < 2:
        raise InputError(f"early_exit = {early_exit!r} needs two classes or more, the network has one")


def exit_timesteps(values: npt.NDArray[np.int64], early_exit: EarlyExit) -> npt.NDArray[np.int64]:
    """Last timestep that counts, int64 (N,), by the values after each timestep, int64 (N, timesteps, n_outputs)."""
    n_samples, timesteps, n_outputs = values.shape
    if early_exit == "off":
        return np.full(n_samples, timesteps - 1)
    first = values.argmax(axis=2)[:, :, None]
    others = np.where(np.arange(n_outputs) == first, np.iinfo(np.int64).min, values)
    second = others.argmax(axis=2)[:, :, None]
    lead = (np.take_along_axis(values, first, 2) - np.take_along_axis(values, second, 2))[:, :, 0]
    if early_exit == "certain":
        left = timesteps - 1 - np.arange(timesteps)
        leaves = (lead > left) | ((lead == left) & (first < second)[:, :, 0])
    else:
        leaves = lead >= early_exit
    leaves[:, -1] = True
    return leaves.argmax(axis=1)
