"""The placement of a machine that was delivered, from its bundle's sidecar."""

from __future__ import annotations

import numpy as np

from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import Sidecar
from codesign.machine.capacity import Capacity
from codesign.machine.choices import Choices
from codesign.machine.mapping import HardwareMap, map_network


def delivered_map(network: FrozenNetwork, sidecar: Sidecar, choices: Choices) -> HardwareMap:
    """The network on the lanes that ``sidecar`` (a bundle's design.json) names, for a machine of ``choices``.

    Hidden neurons sit where they sit in the bundle, and a loadable machine has the bundle's capacity, so that
    the bundle generated from this has the same files. Raises InputError if the sidecar is not of the network.
    """
    layers = sidecar.layers
    placed = {layer.index: np.array(layer.lane, np.int64) for layer in layers[:-1]}
    capacity = Capacity.from_json(sidecar.load.capacity.model_dump()) if sidecar.load else None
    lanes = [layer.lanes for layer in layers]
    return map_network(network, lanes, None, choices, placed=placed, capacity=capacity)
