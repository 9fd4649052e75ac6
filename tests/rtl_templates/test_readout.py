# amaranth: UnusedElaboratable=no

import numpy as np
import pytest
from stream_benches import clocked, drive, record, watch_stability

from codesign.contract.network import FrozenNetwork
from codesign.machine.layouts import DECISION, SPIKE, VALUE, output_word
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from rtl_templates.readout import Readout

READOUTS = ["spike_count", "membrane_last", "membrane_sum", "membrane_max"]


def network_of(n_out, readout, timesteps):
    # Membranes of -420..420 are possible within three timesteps: the widths follow from the weights.
    return FrozenNetwork.from_arrays(
        [np.repeat([7, -7], 20)[:, None] * np.ones((1, n_out), int)],
        threshold=1,
        timesteps=timesteps,
        readout=readout,
        reset="none",
        membrane_width=12,
    )


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(("n_out", "lanes"), [(1, 1), (2, 2), (10, 3), (7, 4)])
def test_values_and_decisions_of_samples_back_to_back(readout, n_out, lanes):
    timesteps, samples = 3, 4
    network = network_of(n_out, readout, timesteps)
    plan = plan_machine(network, map_network(network, [lanes]))
    placement, width = plan.mapping.layers[0], plan.engines[0].value_width
    rng = np.random.default_rng(n_out)
    is_count = readout == "spike_count"
    source_bits = max(1, ((placement.n_slots << placement.lane_bits) - 1).bit_length())
    spikes = rng.random((samples, timesteps, n_out)) < 0.5
    # Few distinct values, so that ties are common.
    membranes = rng.integers(-2, 3, (samples, timesteps, n_out)) * 100
    tokens, expected = [], []
    for sample in range(samples):
        for t in range(timesteps):
            for neuron in range(n_out):
                source = int(placement.hardware_index[neuron])
                if is_count:
                    if spikes[sample, t, neuron]:
                        tokens.append(source << 1)
                        expected.append((SPIKE, t, neuron, 0))
                elif readout != "membrane_last" or t == timesteps - 1:
                    tokens.append(
                        source << 1 | (int(membranes[sample, t, neuron]) & ((1 << width) - 1)) << (1 + source_bits)
                    )
            tokens.append(1)
        values = {
            "spike_count": spikes[sample].sum(axis=0),
            "membrane_last": membranes[sample, -1],
            "membrane_sum": membranes[sample].sum(axis=0),
            "membrane_max": membranes[sample].max(axis=0),
        }[readout]
        expected += [(VALUE, 0, neuron, int(values[neuron])) for neuron in range(n_out)]
        expected.append((DECISION, 0, int(np.argmax(values)), 0))
    layout = output_word(network)
    for gap, stall in ((0.0, 0.0), (0.3, 0.6)):
        dut = Readout(plan)
        got, problems = [], []
        simulator = clocked(dut)
        simulator.add_testbench(drive(dut.i, tokens, np.random.default_rng(1), gap))
        simulator.add_testbench(record(dut.o, got, len(expected), np.random.default_rng(2), stall))
        simulator.add_testbench(watch_stability(dut.o, problems), background=True)
        simulator.run()
        decoded = layout.unpack([word & ((1 << layout.width) - 1) for word in got])
        rows = list(zip(*(decoded[field.name].tolist() for field in layout), strict=True))
        assert rows == expected
        assert [word >> layout.width for word in got] == [int(kind == DECISION) for kind, *_ in expected]
        assert not problems
