"""Whether the clocks of what was simulated can be told without simulation."""

from __future__ import annotations

from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.clocks import check_clocks
from codesign.machine.mapping import HardwareMap
from codesign.machine.plan import plan_machine
from sim.verify import Verification


def assert_clocks_told(network: FrozenNetwork, mapping: HardwareMap, stimulus: Stimulus, result: Verification) -> None:
    """Every start and every decision that was simulated, to the clock."""
    found = check_clocks(plan_machine(network, mapping), stimulus, result.times)
    assert found is not None, "no C++ compiler that builds the control"
    assert found.compared >= len(stimulus) and found.equal == found.compared, found.first
