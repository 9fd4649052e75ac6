"""Clocks that are told without simulation; that simulation has them is tested with every machine in tests/sim."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from random_networks import random_stimulus
from requirements import needs

from boards.designs import random_machine
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost import clocks
from codesign.cost.clocks import CONTROL, ClockCheck, check_clocks, exact_cycles, machine_clocks
from codesign.cost.control.drawing import Kind
from codesign.cost.estimate import activity, cycle_estimate, estimate
from codesign.machine.mapping import map_network
from codesign.machine.plan import MachinePlan, plan_machine
from sim.verify import SampleTimes

pytestmark = needs("compiler")


def machine(number: int, samples: int = 10) -> tuple[MachinePlan, Stimulus]:
    network, mapping = random_machine(number)
    return plan_machine(network, mapping), random_stimulus(np.random.default_rng(number), network, samples)


def test_parts_have_the_same_numbers_on_both_sides() -> None:
    (text,) = re.findall(r"enum Kind \{(.*?)\}", (CONTROL / "machine.cpp").read_text(), re.DOTALL)
    assert [name.strip() for name in text.split(",")] == [kind.name for kind in Kind]


@pytest.mark.parametrize("number", [1, 3, 5, 9])
def test_the_recurrence_is_near(number: int) -> None:
    plan, stimulus = machine(number, 20)
    exact = exact_cycles(plan, stimulus)
    assert exact is not None
    near = cycle_estimate(plan, activity(plan.network, plan.mapping, stimulus))
    for name, value in exact.items():
        assert near[name] == pytest.approx(value, rel=0.06, abs=10), name


def test_estimates_say_that_their_clocks_are_exact(monkeypatch) -> None:
    plan, stimulus = machine(3)
    found = estimate(plan, stimulus=stimulus)["cycles"]
    assert found["exact"] and {name: found[name] for name in ("latency_cycles", "interval_cycles")} == exact_cycles(
        plan, stimulus
    )
    assert not estimate(plan, stimulus=stimulus, exact=False)["cycles"]["exact"]
    assert found["samples"] == len(stimulus)
    monkeypatch.setattr("codesign.cost.estimate.MOST_STEPS", 1)
    few = estimate(plan, stimulus=stimulus)["cycles"]
    assert few["exact"] and few["samples"] == 2
    assert few["latency_cycles"] == exact_cycles(plan, stimulus.take([0, 1]))["latency_cycles"]
    one = exact_cycles(plan, stimulus.take([0]))
    assert one is not None and one["interval_cycles"] is None


def test_without_a_compiler_estimates_say_that_they_are_near(monkeypatch, tmp_path) -> None:
    plan, stimulus = machine(3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    clocks.library.cache_clear()
    try:
        found = estimate(plan, stimulus=stimulus)["cycles"]
        assert not found["exact"]
        near = cycle_estimate(plan, activity(plan.network, plan.mapping, stimulus))
        assert found == {**near, "exact": False, "samples": len(stimulus)}
        assert check_clocks(plan, stimulus, [SampleTimes("back_to_back", *[np.zeros(1, np.int64)] * 3)]) is None
    finally:
        clocks.library.cache_clear()


def test_a_machine_that_stands_still_is_no_figure(monkeypatch) -> None:
    plan, stimulus = machine(3)
    monkeypatch.setattr(clocks, "_most_quiet", lambda plan: 1)
    with pytest.raises(RuntimeError, match="stands still"):
        machine_clocks(plan, stimulus, alone=True)


def test_of_what_takes_long_the_first_are_told(monkeypatch) -> None:
    plan, stimulus = machine(3)
    whole = machine_clocks(plan, stimulus, alone=False)
    assert whole is not None
    most = int(whole.decisions[4]) + 1
    part = machine_clocks(plan, stimulus, alone=False, most=most)
    assert part is not None and np.array_equal(part.decisions, whole.decisions[:5])
    run = SampleTimes("back_to_back", np.arange(len(stimulus)), whole.starts, whole.decisions)
    monkeypatch.setattr(clocks, "MOST_CHECKED", most * clocks.parts(plan))
    assert check_clocks(plan, stimulus, [run]) == ClockCheck(5, 5, None)


def test_what_differs_is_counted_and_the_first_is_named() -> None:
    network = FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    plan = plan_machine(network, map_network(network, [1]))
    stimulus = Stimulus.from_dense(np.ones((4, 3, 2), bool))
    told = machine_clocks(plan, stimulus, alone=False)
    assert told is not None
    run = SampleTimes("back_to_back", np.arange(4), told.starts + 70, told.decisions + 70)
    assert check_clocks(plan, stimulus, [run, run]) == ClockCheck(8, 8, None)
    late = run.decisions.copy()
    late[2] += 1
    found = check_clocks(plan, stimulus, [run, replace(run, decisions=late)])
    assert found is not None and (found.compared, found.equal) == (8, 7)
    assert found.first is not None and found.first.startswith("back_to_back, sample 2: ")
    assert found.first.endswith(f"{told.decisions[2]}, simulated {told.starts[2]} and {told.decisions[2] + 1}")
