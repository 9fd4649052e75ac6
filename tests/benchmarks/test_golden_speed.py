"""The network of the golden model's benchmark is active as it says, and its ways of running it are two."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from benchmarks.golden_speed import SPARSE, is_equal, measured, random_network, random_stimulus
from codesign.contract import golden


def test_both_ways_are_measured_and_equal():
    found = measured(4, repeats=1)
    assert all(0.1 < rate < 0.15 for rate in found["rates"]), found["rates"]
    assert all(milliseconds > 0 for milliseconds in found["milliseconds"].values())
    spikes, _, sparse = found["milliseconds"].values()
    assert found["ratio"] == pytest.approx(spikes / sparse)


def test_the_ways_differ_in_their_integers():
    network = random_network()
    for index, layer in enumerate(network.layers):
        assert golden.sum_dtype(layer.projections[0], network.source_max(index)) is np.int16
    assert {golden.membrane_dtype(layer, 15) for layer in network.layers} == {np.int32}
    with mock.patch.multiple(golden, **SPARSE):
        assert golden.membrane_dtype(network.layers[0], 15) is np.int64
        assert golden.sum_dtype(network.layers[1].projections[0], 1) is np.int64


def test_a_difference_is_seen():
    trace = golden.run(random_network(), random_stimulus(1))
    spikes = [found.copy() for found in trace.spikes]
    assert is_equal(trace, replace(trace, spikes=spikes))
    spikes[1][0, 2, 5] ^= True
    assert not is_equal(trace, replace(trace, spikes=spikes))
