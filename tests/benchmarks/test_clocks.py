"""The benchmark of told clocks draws samples that keep the rules, and leaves out early exit."""

from benchmarks import clocks
from boards.designs import random_machine


def test_random_samples_keep_the_rules():
    codings = set()
    for number in range(8):
        network, _ = random_machine(number)
        samples = clocks.random_samples(network, number, 3)
        samples.validate()
        codings.add(network.coding.is_current)
        come = samples.dense() if samples.values is None else samples.values
        assert len(samples) == 3 and 0 < (come != 0).mean() < 0.9
    assert codings == {False, True}


def test_the_recurrence_is_compared_where_it_counts():
    numbers = 4
    found = clocks.off(numbers, 4)
    assert found["machines"] == sum(not random_machine(number)[1].choices.exits for number in range(numbers))
    median, low, high = found["latency_cycles"]
    assert low <= high and 0 < median <= max(-low, high) < 0.5
