"""SpikingJelly: LIFNode, ParametricLIFNode and IFNode, as its exporter writes them.

    h = v + (input - (v - v_reset)) / tau           decay_input; else v - (v - v_reset) / tau + input; IFNode v + input
    s = h >= v_threshold
    v = v_reset where s                             v_reset=None: h - s * v_threshold, written as a v_reset of 0

v starts at v_reset. The exporter writes tau * dt, and r = 1 with decay_input, else tau; of an IFNode r = 1 / dt.
"""

from __future__ import annotations

import numpy as np

from codesign.basics.errors import InputError, UnsupportedError
from codesign.interchange.facts import Asked
from codesign.interchange.nodes import Node
from codesign.interchange.sources.common import Float, Terms, euler, hard_reset, one_value, positive, refuse

NAME = "spikingjelly"


def neuron(node: Node, facts: Asked) -> Terms:
    """Terms of a LIF or IF node, with v - v_reset for v. Raises InputError naming the option for what is missing."""
    if node.type not in ("LIF", "IF"):
        raise refuse(node, "SpikingJelly")
    if node.type == "LIF":
        tau, r, rest, threshold, value = node.numbers("tau", "r", "v_leak", "v_threshold", "v_reset")
        positive(node, tau=tau, r=r)
        dt = _dt(node, tau, r, facts)
        decay, gain = euler(node, tau, dt), r * dt / tau
        if np.any(rest != value):
            raise UnsupportedError(f"{node.name}: v_leak is not v_reset, which SpikingJelly never writes")
    else:
        r, threshold, value = node.numbers("r", "v_threshold", "v_reset")
        positive(node, r=r)
        dt = facts.get("dt")
        decay, gain = 1.0, np.ones_like(r) if dt is None else r * dt
        if dt is None and one_value(r, 1e-6) is None:
            raise InputError(f"{node.name}: r differs between neurons, SpikingJelly writes 1 / dt there; add --dt")
    positive(node, **{"v_threshold - v_reset": threshold - value})
    reset = facts.reset_of(node.name, "SpikingJelly", ("value", "zero", "subtract", "none"))
    return hard_reset(node, Terms(decay, gain, threshold, facts.get("compare") or ">=", reset), value, value)


def _dt(node: Node, tau: Float, r: Float, facts: Asked) -> float:
    """The timestep, in the unit of tau: as given, or what a neuron without decay_input has written."""
    if (dt := facts.get("dt")) is not None:
        return dt
    if np.all(r != 1):
        found = one_value(tau / r, 1e-5)
        if found is not None:
            return found
    raise InputError(
        f"{node.name}: SpikingJelly's timestep is not in the file (its exporter's default is 1e-4); add --dt SECONDS"
    )
