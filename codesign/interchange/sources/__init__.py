"""What each framework means by its neurons: one module each, ``neuron(node, facts) -> Terms``."""

from __future__ import annotations

from codesign.basics.errors import InputError
from codesign.interchange.facts import Asked
from codesign.interchange.nodes import Node
from codesign.interchange.sources import norse, raw, rockpool, sinabs, snntorch, spikingjelly
from codesign.interchange.sources.common import Terms

NEURONS = {module.NAME: module.neuron for module in (snntorch, norse, sinabs, spikingjelly, rockpool, raw)}


def terms_of(source: str, node: Node, facts: Asked) -> Terms:
    """The terms of a neuron node in the meaning of a source."""
    if source not in NEURONS:
        raise InputError(f"--source {source!r} is none of {', '.join(NEURONS)}")
    if node.type == "Threshold" and source != "raw":
        # Memoryless: every framework fires where its input is above.
        return raw.memoryless(node, facts)
    return NEURONS[source](node, facts)


__all__ = ["NEURONS", "Terms", "terms_of"]
