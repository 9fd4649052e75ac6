"""No framework: NIR's own equations, with an integrator of one's choice.

    tau_syn di/dt = -i + w_in * input               CubaLIF alone
    tau dv/dt     = v_leak - v + r * i
    s             = v > v_threshold, then v = v_reset

Euler takes 1 - dt / tau and dt / tau for decay and gain, the exponential integrator exp(-dt / tau) and 1 - exp(-dt /
tau), which is exact for inputs that do not change within a timestep.
"""

from __future__ import annotations

import numpy as np

from codesign.basics.errors import UnsupportedError
from codesign.interchange.facts import Asked
from codesign.interchange.nodes import Node
from codesign.interchange.sources.common import Float, Terms, euler, hard_reset, positive

NAME = "raw"


def neuron(node: Node, facts: Asked) -> Terms:
    """Terms of any neuron. Raises InputError naming the option for what NIR does not say."""
    if node.type == "Threshold":
        return memoryless(node, facts)
    dt = facts.needed("dt", node.name, "NIR has no timestep", "--dt, in the unit of the file's time constants")
    (r,) = node.numbers("r")
    positive(node, r=r)
    current_decay: Float | None = None
    if node.type in ("I", "IF"):
        decay, gain = np.ones_like(r), r * dt
    else:
        tau, r, rest = node.numbers("tau_mem" if node.type.startswith("Cuba") else "tau", "r", "v_leak")
        positive(node, tau=tau)
        decay, gain = _integrated(node, tau, dt, facts)
        gain = gain * r
        if np.any(rest != 0):
            raise UnsupportedError(f"{node.name}: v_leak is not 0, and NIR does not say where v starts")
        if node.type.startswith("Cuba"):
            syn, w_in, _ = node.numbers("tau_syn", "w_in", "r")
            positive(node, tau_syn=syn, w_in=w_in)
            current_decay, more = _integrated(node, syn, dt, facts)
            gain = gain * more * w_in
    if node.type in ("LI", "CubaLI", "I"):
        return Terms(decay, gain, None, ">", current_decay=current_decay)
    threshold, value, _ = node.numbers("v_threshold", "v_reset", "r")
    positive(node, v_threshold=threshold)
    # NIR says that a neuron is reset to v_reset; an option may say otherwise.
    reset = facts.reset(node.name) or "value"
    late = reset == "subtract" and bool(facts.get("reset_delay"))
    compare = facts.get("compare") or ">"
    terms = Terms(decay, gain, threshold, compare, reset, current_decay=current_decay, reset_delay=late)
    return hard_reset(node, terms, np.zeros_like(value), value)


def memoryless(node: Node, facts: Asked) -> Terms:
    """Terms of a Threshold node."""
    (threshold,) = node.numbers("threshold")
    positive(node, threshold=threshold)
    return Terms(0.0, 1.0, threshold, facts.get("compare") or ">")


def _integrated(node: Node, tau: Float, dt: float, facts: Asked) -> tuple[Float, Float]:
    """Decay and gain of one equation."""
    kind = facts.needed(
        "integrator", node.name, "NIR's equations are continuous in time", "--integrator euler|exponential"
    )
    if kind == "euler":
        return euler(node, tau, dt), dt / tau
    return np.exp(-dt / tau), -np.expm1(-dt / tau)
