# amaranth: UnusedElaboratable=no

"""The whole accelerator against the golden model, on random networks of every option."""

from dataclasses import replace

import numpy as np
import pytest
from guard_model import guarded
from random_networks import random_lanes, random_lean, random_network, random_stimulus, random_variant
from stream_benches import clocked
from vector_bench import check, sample_words, simulate

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus
from codesign.machine.choices import Choices
from codesign.machine.layouts import END, EVENT, input_word
from codesign.machine.mapping import LOADABLE, map_network
from codesign.machine.plan import plan_machine
from rtl_templates.accelerator import Accelerator


def run_random(seed, max_width, samples=3, folded=False, varied=False, lean=False):
    """Odd seeds with random gaps and backpressure, every third with a reset in the middle."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=max_width)
    stimulus = random_stimulus(rng, network, samples)
    lanes = random_lanes(rng, network)
    choices = Choices(shape="folded" if folded else "streaming", queue_depth=int(rng.choice([2, 3, 8])))
    if lean:
        choices = random_lean(rng, network, choices)
    mapping = map_network(network, lanes[:1] * len(lanes) if folded else lanes, None, choices)
    if varied:
        mapping = random_variant(rng, mapping)
    words = [word for sample in range(samples) for word in sample_words(network, stimulus, sample, rng)]
    observed = simulate(
        network,
        mapping,
        words,
        decisions=samples,
        rng=rng if seed % 2 else None,
        reset_at=int(rng.integers(1, len(words) + 1)) if seed % 3 == 0 else None,
    )
    compared = check(network, mapping, stimulus, observed)
    assert observed.protocol_error == 0
    neurons = sum(layer.n_out for layer in network.layers)
    assert compared == samples * (2 * network.timesteps * neurons + 1 + network.n_outputs)


@pytest.mark.parametrize("seed", range(12))
def test_small_networks_equal_the_golden_model(seed):
    run_random(seed, max_width=10)


@pytest.mark.parametrize("seed", range(6))
def test_small_folded_networks_equal_the_golden_model(seed):
    run_random(seed, max_width=10, folded=True)


@pytest.mark.parametrize(("seed", "folded"), [(0, False), (1, True), (2, False), (3, True)])
def test_varied_networks_equal_the_golden_model(seed, folded):
    run_random(seed, max_width=14, folded=folded, varied=True)


@pytest.mark.parametrize("seed", range(8))
def test_lean_networks_equal_the_golden_model(seed):
    run_random(seed, max_width=12, lean=True)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(1200, 1230))
def test_wider_lean_networks_equal_the_golden_model(seed):
    run_random(seed, max_width=24, lean=True)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(1100, 1130))
def test_wider_varied_networks_equal_the_golden_model(seed):
    run_random(seed, max_width=24, folded=seed % 2 == 1, varied=True)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(1000, 1060))
def test_networks_equal_the_golden_model(seed):
    """The 300 wide networks run under Verilator (tests/sim/test_verify.py), where a clock costs a thousandth."""
    run_random(seed, max_width=24)


CORNERS = {
    "one of everything": ([np.array([[1]])], {"timesteps": 1}, [1]),
    "one neuron, many lanes wanted": ([np.ones((3, 1), int)], {"timesteps": 2}, [16]),
    "no synapses": (
        [np.zeros((3, 5), int), np.zeros((5, 2), int)],
        {"timesteps": 2, "bias": 3, "threshold": 5},
        [2, 2],
    ),
    "a slot for each lane": ([np.ones((4, 7), int)], {"timesteps": 3}, [7]),
    "always firing": ([np.ones((4, 5), int)], {"timesteps": 3, "threshold": -9, "reset": "zero"}, [3]),
    "threshold out of reach": ([np.ones((4, 5), int)], {"timesteps": 3, "threshold": 1 << 40}, [3]),
    "threshold far below": (
        [np.ones((4, 5), int)],
        {"timesteps": 3, "threshold": -(1 << 40), "membrane_width": 4},
        [2],
    ),
    "two-bit membranes": (
        [np.full((6, 5), 127), np.full((5, 5), -127)],
        {"timesteps": 4, "membrane_width": 2, "fraction_bits": 10, "leak": Leak("shift", 1)},
        [3, 5],
    ),
    "forgets everything": (
        [np.full((6, 5), 3)],
        {"timesteps": 4, "leak": Leak("multiply", 4, 0), "threshold": 10},
        [2],
    ),
    "leak of nothing": ([np.full((6, 5), 3)], {"timesteps": 4, "leak": Leak("multiply", 4, 16), "threshold": 40}, [2]),
    "shift beyond the width": ([np.full((6, 5), -3)], {"timesteps": 4, "leak": Leak("shift", 24), "threshold": 9}, [2]),
    "no shift": ([np.full((6, 5), -3)], {"timesteps": 4, "leak": Leak("shift", 0), "threshold": 9}, [2]),
}


@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name, current):
    weights, parameters, lanes = CORNERS[name]
    coding = InputCoding("current", 3) if current else InputCoding("events")
    network = FrozenNetwork.from_arrays(weights, **{"threshold": 2, **parameters}, coding=coding)
    rng = np.random.default_rng(1)
    stimulus = random_stimulus(rng, network, 3)
    mapping = map_network(network, lanes)
    words = [word for sample in range(3) for word in sample_words(network, stimulus, sample, rng)]
    observed = simulate(network, mapping, words, decisions=3)
    check(network, mapping, stimulus, observed)


def test_the_same_slot_in_consecutive_clocks_is_added_up():
    """Rows of one synapse each, all to one neuron: every addition needs the one before it."""
    network = FrozenNetwork.from_arrays([np.arange(1, 41)[:, None] % 7 - 3], threshold=1 << 20, timesteps=2)
    stimulus = Stimulus.from_dense(np.ones((2, 2, 40), bool))
    mapping = map_network(network, [1])
    rng = np.random.default_rng(0)
    words = [word for sample in range(2) for word in sample_words(network, stimulus, sample, rng)]
    check(network, mapping, stimulus, simulate(network, mapping, words, decisions=2))


def violations(rng, network):
    """Ill-framed words: duplicates, sources out of range, tlast early or missing."""
    record = input_word(network)
    width = record.fields[0].width
    words = []
    for _ in range(60):
        kind = EVENT if rng.random() < 0.7 else END
        word = record.pack({"source": int(rng.integers(0, 1 << width)), "kind": kind})[0]
        words.append((int(word), bool(rng.random() < 0.15)))
    words.append((int(record.pack({"source": 0, "kind": END})[0]), True))
    return words


@pytest.mark.parametrize("seed", range(4))
def test_a_clean_sample_after_violations_is_exact(seed):
    """Whatever came before: the next clean sample's output words are those of the golden model."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=6, max_layers=2, coding="events")
    stimulus = random_stimulus(rng, network, 2)
    mapping = map_network(network, random_lanes(rng, network))
    bad = violations(rng, network)
    width = input_word(network).fields[0].width
    plain = [(word & ((1 << width) - 1), word >> width, last) for word, last in bad]
    _, errors, samples = guarded(plain, network.n_inputs, network.timesteps, False)
    clean = [word for sample in range(2) for word in sample_words(network, stimulus, sample, rng)]
    observed = simulate(network, mapping, bad + clean, decisions=samples + 2, rng=rng)
    assert observed.protocol_error == errors and sum(observed.last) == samples + 2
    ends = [position for position, last in enumerate(observed.last) if last]
    first = ends[samples - 1] + 1 if samples else 0
    observed.words, observed.last = observed.words[first:], observed.last[first:]
    for layer, probes in zip(mapping.layers, observed.probes, strict=True):
        del probes[: len(probes) - 2 * network.timesteps * layer.n_slots]
    # Saturations of the ill-framed samples are not known here: the golden model has no ill-framed samples.
    observed.saturations = np.cumsum(golden.run(network, stimulus).saturations).tolist()
    check(network, mapping, stimulus, observed)


def test_counters_and_hash():
    network = FrozenNetwork.from_arrays([np.ones((3, 2), int)], threshold=2, timesteps=2)
    dut = Accelerator(plan_machine(network, map_network(network, [1])))

    async def bench(ctx):
        assert ctx.get(dut.network_hash) == int(network.hash[:16], 16)
        await ctx.tick().repeat(7)
        assert ctx.get(dut.cycle_count) == 7
        assert ctx.get(dut.saturation_count) == 0 and not ctx.get(dut.busy)
        ctx.set(dut.s_axis_tvalid, 1)
        await ctx.tick()
        ctx.set(dut.s_axis_tvalid, 0)
        assert ctx.get(dut.busy)

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_wrong_arguments_are_named():
    network = FrozenNetwork.from_arrays([np.ones((3, 2), int)], threshold=2, timesteps=2)
    other = FrozenNetwork.from_arrays([np.ones((3, 2), int)], threshold=3, timesteps=2)
    with pytest.raises(InputError, match="the mapping is of another network"):
        plan_machine(network, map_network(other, [1]))
    mapping = map_network(network, [1], None, LOADABLE)
    with pytest.raises(UnsupportedError, match="loadable = true is not built together with"):
        plan_machine(network, replace(mapping, choices=Choices(loadable=True, synapses="compact")))
    with pytest.raises(ValueError, match="a loadable machine has a capacity, others have none"):
        replace(mapping, choices=Choices())
