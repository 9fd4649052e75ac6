"""A network on the machine that a configuration asks for: lanes chosen, placement balanced on calibration samples."""

from __future__ import annotations

from codesign.config import HardwareConfig, lanes_per_layer
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.estimate import source_events
from codesign.cost.lanes import choose_lanes
from codesign.cost.schedules import choose_schedules
from codesign.machine.capacity import CapacityOptions
from codesign.machine.goals import GOALS
from codesign.machine.mapping import HardwareMap, map_network


def map_hardware(
    network: FrozenNetwork, hardware: HardwareConfig | None = None, calibration: Stimulus | None = None
) -> HardwareMap:
    """Place the neurons of ``network`` on the lanes of a machine.

    hardware : what the machine is to be (:func:`codesign.hardware_config`, or a configuration's section);
        default: a streaming machine of one lane a layer.
    calibration : samples whose events the placement balances, and by which lanes and schedules are chosen; without them
        every source counts the same. Test samples have no place here.

    Deterministic. Raises InputError for lanes that do not suit the network or need samples, UnsupportedError for
    choices that do not go together and for a network that the accelerator does not cover.

    >>> import codesign
    >>> weights = [[[3, -2, 1], [1, 4, 0]], [[2], [1], [3]]]
    >>> network = codesign.FrozenNetwork.from_arrays(weights, threshold=4, timesteps=3)
    >>> mapping = codesign.map_hardware(network, codesign.hardware_config(network, lanes=2))
    >>> list(mapping.lanes), [layer.n_slots for layer in mapping.layers]
    ([2, 1], [2, 1])
    """
    hardware = hardware or HardwareConfig()
    # Events are counted as the accelerator takes them.
    network.require_hardware()
    events = None if calibration is None else source_events(network, calibration)
    lanes = lanes_per_layer(hardware, len(network.layers))
    within = goal_factor(hardware)
    if lanes is None:
        lanes = choose_lanes(network, hardware.choices, within, calibration)
    capacity = capacity_of(hardware)
    choices = choose_schedules(network, lanes, hardware.choices, within, calibration, capacity)
    return map_network(network, lanes, events, choices, capacity=capacity)


def goal_factor(hardware: HardwareConfig) -> float | None:
    """How many times the fewest clocks a machine may take, by its goal; without one that of a balanced machine."""
    return GOALS[hardware.goal or "balanced"].within


def capacity_of(hardware: HardwareConfig) -> CapacityOptions | None:
    """What a loadable machine is to hold; None for others."""
    return CapacityOptions(**hardware.capacity.model_dump()) if hardware.loadable else None
