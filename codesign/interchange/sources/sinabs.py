"""sinabs: LIF, IAF and ExpLeak, as its exporter writes them: tau in timesteps, r = 1.

    v = alpha * v + input                           alpha = exp(-dt / tau), IAF: 1; with norm_input (1 - alpha) * input
    s = floor(v / threshold) where v >= threshold   MultiSpike, the default; SingleSpike: 1
    v = v - s * threshold                           MembraneSubtract, the default

Neither norm_input, nor the number of spikes, nor the reset, nor min_v_mem is in the file.
"""

from __future__ import annotations

import numpy as np

from codesign.basics.errors import InputError
from codesign.interchange.facts import Asked
from codesign.interchange.nodes import Node
from codesign.interchange.sources.common import Float, Terms, one_value, positive, refuse, zero

NAME = "sinabs"


def neuron(node: Node, facts: Asked) -> Terms:
    """Terms of a LIF, IF or LI node. Raises InputError naming the option for what is not in the file."""
    if node.type not in ("LIF", "IF", "LI"):
        raise refuse(node, "sinabs")
    zero(node, "sinabs", "v_leak", "v_reset")
    (r,) = node.numbers("r")
    if node.type == "IF":
        dt = facts.get("dt")
        decay, gain = 1.0, r if dt is None else r * dt
    else:
        tau, r = node.numbers("tau", "r")
        positive(node, tau=tau, r=r)
        decay = np.exp(-_dt(node, tau, facts) / tau)
        why = "whether sinabs scales the input by 1 - decay (norm_input, True by default) is not in the file"
        normed = facts.needed("norm_input", node.name, why, "--norm-input or --no-norm-input")
        gain = r * (1 - decay) if normed else r
    if one_value(r, 1e-6) != 1.0 and facts.get("dt") is None:
        raise InputError(f"{node.name}: r is not 1, as sinabs writes it; add --dt if the file is scaled differently")
    if node.type == "LI":
        return Terms(decay, gain, None, ">=")
    threshold, _ = node.numbers("v_threshold", "r")
    positive(node, v_threshold=threshold)
    facts.needed(
        "spikes",
        node.name,
        "whether neurons fire several times in a timestep (MultiSpike, sinabs' default) is not in the file",
        "--spikes one, or --spikes several to clamp them to one and see the loss",
    )
    reset = facts.reset_of(node.name, "sinabs", ("subtract", "zero", "none"))
    return Terms(
        decay,
        gain,
        threshold,
        facts.get("compare") or ">=",
        reset,
        said=("min_v_mem, a floor of the membrane, is not in the file: none is taken",),
    )


def _dt(node: Node, tau: Float, facts: Asked) -> float:
    if (dt := facts.get("dt")) is not None:
        return dt
    if np.any(tau < 1):
        raise InputError(
            f"{node.name}: tau is {float(tau.min()):g}, sinabs counts it in timesteps; add --dt, in the unit of tau, "
            "if the file is scaled differently"
        )
    return 1.0
