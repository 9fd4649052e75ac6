"""Rockpool: LIFTorch, LIFNeuronTorch and ExpSynTorch, as its exporter writes them.

    i = exp(-dt / tau_syn) * (i + input)            LIFTorch, written as CubaLIF; LIFNeuronTorch: i = input
    v = exp(-dt / tau_mem) * v + i + bias
    s = floor(v / threshold), at most max_spikes_per_dt
    v = v - s * threshold

The exporter writes r = tau_mem exp(-dt / tau_mem) / dt, from which dt follows. It drops bias, max_spikes_per_dt and the
recurrent weights w_rec of a LIFTorch.
"""

from __future__ import annotations

import numpy as np

from codesign.basics.errors import InputError
from codesign.interchange.facts import Asked
from codesign.interchange.nodes import Node
from codesign.interchange.sources.common import Float, Terms, one_value, positive, refuse, zero

NAME = "rockpool"
HALVINGS = 200
# Parameters come in float32.
ROUNDING = 1e-3


def neuron(node: Node, facts: Asked) -> Terms:
    """Terms of a CubaLIF, LIF or LI node. Raises InputError naming the option for what is not in the file."""
    if node.type not in ("CubaLIF", "LIF", "LI"):
        raise refuse(node, "Rockpool")
    zero(node, "Rockpool", "v_leak", "v_reset")
    tau, r = node.numbers("tau_mem" if node.type == "CubaLIF" else "tau", "r")
    positive(node, tau=tau, r=r)
    dt, said = _timestep(node, tau, r, facts)
    decay = np.exp(-dt / tau)
    if node.type == "LI":
        return Terms(decay, decay, None, ">=", said=said)
    threshold, _ = node.numbers("v_threshold", "r")
    positive(node, v_threshold=threshold)
    current_decay, gain = None, np.ones_like(decay)
    if node.type == "CubaLIF":
        syn, w_in, _ = node.numbers("tau_syn", "w_in", "r")
        positive(node, tau_syn=syn, w_in=w_in)
        current_decay = np.exp(-dt / syn)
        gain = w_in * current_decay
    dropped = "a bias of the neurons" + (", recurrent weights of a LIFTorch" if node.type == "CubaLIF" else "")
    facts.needed(
        "spikes",
        node.name,
        "whether neurons fire several times in a timestep (Rockpool's default) is not in the file",
        "--spikes one (max_spikes_per_dt=1), or --spikes several to clamp them to one and see the loss",
    )
    if facts.reset(node.name) not in (None, "subtract"):
        raise InputError(f"{node.name}: Rockpool always resets by subtraction; leave --reset out")
    return Terms(
        decay,
        gain,
        threshold,
        facts.get("compare") or ">=",
        "subtract",
        current_decay=current_decay,
        said=(*said, f"what Rockpool's exporter drops is not there: {dropped}"),
    )


def _timestep(node: Node, tau: Float, r: Float, facts: Asked) -> tuple[float, tuple[str, ...]]:
    """The timestep, in the unit of tau, as given or as r says; and what is to be said where the two differ."""
    stated, found = facts.get("dt"), _dt(tau, r)
    if stated is None:
        if found is None:
            raise InputError(f"{node.name}: r gives each neuron another timestep; was it Rockpool? add --dt SECONDS")
        return found, ()
    if found is not None and abs(found / stated - 1) <= ROUNDING:
        return stated, ()
    other = "another for each neuron" if found is None else f"{found:g}"
    return stated, (f"--dt {stated:g} is taken, r in the file says {other}",)


def _dt(tau: Float, r: Float) -> float | None:
    """dt of r = exp(-x) / x, x = dt / tau, by halving: exp(-x) / x falls from infinity to 0. None if neurons differ."""
    low, high = np.zeros_like(r), np.full_like(r, 700.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # Where r is above, x is smaller.
        below = np.exp(-middle) < r * middle
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    return one_value(high * tau, 1e-4)
