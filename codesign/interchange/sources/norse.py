"""Norse: LIFBoxCell, LIBoxCell and IAFCell, as its exporter writes them.

    v = v + dt / tau * (v_leak - v + input)         IAFCell: v = v + input
    z = v > v_threshold
    v = v_reset where z                             or, with reset_method=reset_subtract, v - v_threshold

v starts at v_leak. Neither dt nor the reset method is in the file. LIFCell, with a current of its own, is written as
CubaLIF; the order of its updates has changed between releases, so that it is refused.
"""

from __future__ import annotations

import numpy as np

from codesign.basics.errors import UnsupportedError
from codesign.interchange.facts import Asked
from codesign.interchange.nodes import Node
from codesign.interchange.sources.common import Terms, euler, hard_reset, positive, refuse

NAME = "norse"


def neuron(node: Node, facts: Asked) -> Terms:
    """Terms of a LIF, LI or IF node, with v - v_leak for v. Raises InputError naming the option for what is missing."""
    if node.type == "CubaLIF":
        raise UnsupportedError(
            f"{node.name}: Norse's LIFCell has updated its current in another order in different releases; "
            "LIFBoxCell is read"
        )
    if node.type == "LI":
        tau, r, rest = node.numbers("tau", "r", "v_leak")
        positive(node, tau=tau, r=r)
        dt = _dt(node, facts)
        if np.any(rest != rest.flat[0]):
            raise UnsupportedError(f"{node.name}: a readout that leaks to another v_leak in each neuron")
        return Terms(euler(node, tau, dt), r * dt / tau, None, ">")
    if node.type not in ("LIF", "IF"):
        raise refuse(node, "Norse")
    if node.type == "LIF":
        tau, r, rest, threshold, value = node.numbers("tau", "r", "v_leak", "v_threshold", "v_reset")
        positive(node, tau=tau)
        dt = _dt(node, facts)
        decay, gain = euler(node, tau, dt), r * dt / tau
    else:
        r, threshold, value = node.numbers("r", "v_threshold", "v_reset")
        rest, decay, gain = np.zeros_like(r), 1.0, r
    positive(node, r=r, **{"v_threshold - v_leak": threshold - rest})
    reset = facts.reset_of(node.name, "Norse", ("value", "zero", "subtract", "none"))
    return hard_reset(node, Terms(decay, gain, threshold, facts.get("compare") or ">", reset), rest, value)


def _dt(node: Node, facts: Asked) -> float:
    return facts.needed("dt", node.name, "Norse's timestep is not in the file (its default is 0.001)", "--dt SECONDS")
