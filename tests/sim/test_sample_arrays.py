"""The recording of one sample, taken out of a segment, has its neurons in the network's order."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from sim.recording import LayerRecording, Recording, sample_arrays

TIMESTEPS, SAMPLES, LANES, SLOTS = 3, 2, 2, 2
LANE, SLOT = [1, 0, 0], [0, 1, 0]


def recording(sweeps):
    clocks = sweeps * SLOTS
    membranes = np.arange(clocks * LANES).reshape(clocks, LANES)
    layer = LayerRecording(np.tile(np.arange(SLOTS), sweeps), membranes % 3 == 0, membranes)
    return Recording((layer,), {}, np.zeros(0, np.int64), {}, np.zeros((1, 4), np.int64))


SIDECAR: Any = SimpleNamespace(layers=[SimpleNamespace(index=0, n_slots=SLOTS, lane=LANE, slot=SLOT)])


def test_neurons_come_from_their_lane_and_slot():
    found = sample_arrays(recording(SAMPLES * TIMESTEPS), SIDECAR, TIMESTEPS, 1)
    assert found is not None
    for timestep in range(TIMESTEPS):
        sweep = TIMESTEPS + timestep
        expected = [(sweep * SLOTS + slot) * LANES + lane for lane, slot in zip(LANE, SLOT, strict=True)]
        assert found["membranes0"][timestep].tolist() == expected
        assert found["spikes0"][timestep].tolist() == [value % 3 == 0 for value in expected]


def test_a_sample_whose_sweeps_are_incomplete_is_not_made_up():
    short = recording(SAMPLES * TIMESTEPS - 1)
    assert sample_arrays(short, SIDECAR, TIMESTEPS, 0) is not None
    assert sample_arrays(short, SIDECAR, TIMESTEPS, 1) is None
