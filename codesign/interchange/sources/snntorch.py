"""snnTorch: Leaky, Synaptic and their recurrent forms, as its exporter writes them.

    reset = mem_before > threshold
    syn   = alpha * syn + input                     Leaky: none
    mem   = beta * mem_before + syn - reset * threshold
    spk   = mem > threshold

so that a reset by subtraction comes a timestep late and undecayed, unless ``reset_delay=False``. Reset to zero clears
Leaky's membrane before the next update, which is a reset at the spike; Synaptic's after the next update, so that it
also stays silent for a timestep. The exporter writes tau = dt / (1 - beta), r = tau / dt and w_in = tau_syn / dt with
dt = 1e-4, and no reset.
"""

from __future__ import annotations

import numpy as np

from codesign.basics.errors import InputError
from codesign.interchange.facts import Asked
from codesign.interchange.nodes import Node
from codesign.interchange.sources.common import Float, Terms, euler, one_value, positive, refuse, zero

NAME = "snntorch"
EXPORT_DT = 1e-4
# Parameters come in float32, of numbers near 1 - beta.
ROUNDING = 1e-3


def neuron(node: Node, facts: Asked) -> Terms:
    """Terms of a LIF or CubaLIF node. Raises InputError naming the option for what is not in the file."""
    if node.type not in ("LIF", "CubaLIF"):
        raise refuse(node, "snnTorch")
    zero(node, "snnTorch", "v_leak", "v_reset")
    if node.type == "LIF":
        tau, r, threshold = node.numbers("tau", "r", "v_threshold")
        syn = w_in = None
    else:
        tau, r, threshold, syn, w_in = node.numbers("tau_mem", "r", "v_threshold", "tau_syn", "w_in")
        positive(node, tau_syn=syn, w_in=w_in)
    positive(node, tau=tau, r=r, v_threshold=threshold)
    decay, gain = _decay(node, tau, r, facts, "tau / r")
    current_decay = None
    if syn is not None and w_in is not None:
        current_decay, more = _decay(node, syn, w_in, facts, "tau_syn / w_in")
        gain = gain * more
    reset = facts.reset_of(node.name, "snnTorch", ("subtract", "zero", "none"))
    silenced = reset == "zero" and node.type == "CubaLIF"
    # Leaky clears its membrane at the spike either way, and what is not reset is not late.
    late = (reset == "subtract" or silenced) and facts.get("reset_delay") is not False
    said = []
    if reset == "subtract":
        said.append(
            "reset a timestep late, snnTorch's default; --no-reset-delay for reset_delay=False" if late else
            "reset at the spike; snnTorch differs where a membrane exceeds twice the threshold"
        )  # fmt: skip
    return Terms(
        decay,
        gain,
        threshold,
        facts.get("compare") or ">",
        reset,
        reset_delay=late and reset == "subtract",
        current_decay=current_decay,
        refractory=1 if late and silenced else 0,
        said=tuple(said),
    )


def _decay(node: Node, tau: Float, factor: Float, facts: Asked, what: str) -> tuple[Float, Float]:
    """Decay and gain. Without --dt the exporter's own dt, which has to be in the file: then the gain is 1 exactly."""
    if (dt := facts.get("dt")) is not None:
        return euler(node, tau, dt), factor * dt / tau
    found = one_value(tau / factor, ROUNDING)
    if found is None or abs(found / EXPORT_DT - 1) > ROUNDING:
        shown = "differs between neurons" if found is None else f"is {found:g}"
        raise InputError(
            f"{node.name}: {what} {shown}, snnTorch writes its timestep there, {EXPORT_DT:g}; add --dt, in the unit of "
            "tau, if the file is scaled differently"
        )
    return np.maximum(1 - 1 / factor, 0.0), np.ones_like(tau)
