"""The golden model against trajectories worked out by hand, and against the second reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import reference_lif
from golden_checks import assert_chunks_do_not_matter, assert_equals_reference, mutate, one_sample, resting
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import random_network, random_stimulus

from codesign.basics.errors import InputError
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus


@dataclass(frozen=True)
class Case:
    """One sample, worked out by hand. ``spikes`` and ``membranes`` are per layer, timestep, neuron."""

    name: str
    weights: list[Any]
    sample: Any
    spikes: list[list[list[int]]]
    membranes: list[list[list[int]]]
    values: list[int]
    decision: int = 0
    saturations: int = 0
    currents: list[list[list[int]]] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_current(self) -> bool:
        return isinstance(self.sample[0], int)

    def network(self) -> FrozenNetwork:
        coding = InputCoding("current", 4) if self.is_current else InputCoding("events")
        options = {"threshold": 100, "coding": coding, "timesteps": len(self.membranes[0]), **self.options}
        return FrozenNetwork.from_arrays([np.array(matrix) for matrix in self.weights], **options)

    @property
    def gathered(self) -> list[list[list[int]]]:
        """The synaptic currents, none of a layer without."""
        return [[[] for _ in layer] for layer in self.membranes] if self.currents is None else self.currents

    def holds(self) -> bool:
        """True if the golden model gives exactly these lists."""
        network = self.network()
        trace = golden.run(network, one_sample(network, self.sample))
        return (
            [layer[0].astype(int).tolist() for layer in trace.spikes] == self.spikes
            and [layer[0].tolist() for layer in trace.membranes] == self.membranes
            and [layer[0].tolist() for layer in trace.currents] == self.gathered
            and trace.values[0].tolist() == self.values
            and trace.decisions.tolist() == [self.decision]
            and trace.saturations.tolist() == [self.saturations]
        )


def single(name: str, weights: list[int], sample: Any, u: list[int], spikes: list[int], **more: Any) -> Case:
    """One neuron: ``u`` is the stored membrane by timestep; the value is the number of spikes."""
    saturations = more.pop("saturations", 0)
    currents = more.pop("currents", None)
    return Case(
        name,
        [[[weight] for weight in weights]],
        sample,
        [[[s] for s in spikes]],
        [[[v] for v in u]],
        [sum(spikes)],
        saturations=saturations,
        currents=None if currents is None else [[[i] for i in currents]],
        options=more,
    )


SHIFT_2 = Leak("shift", 2)
E, N = [0], []  # an event of source 0; no event

CASES = [
    # -5 - (-5 >> 2) = -5 + 2, -3 + 1, -2 + 1, -1 + 1
    single("negative_rises_to_zero", [-5], [E, N, N, N, N, N], [-5, -3, -2, -1, 0, 0], [0] * 6, leak=SHIFT_2),
    # 6 >> 2 = 1 until v = 3 < 2^2, which stays
    single("small_does_not_leak", [3], [E, E, N, N, N, N], [3, 6, 5, 4, 3, 3], [0] * 6, leak=SHIFT_2),
    single("equality_fires_at_least", [4], [E, N, E], [0, 0, 0], [1, 0, 1], threshold=4),
    single("equality_is_silent_above", [4], [E, N, E], [4, 4, 4], [0, 0, 1], threshold=4, compare=">"),
    # u = 21 is beyond 4 bits (7), yet compared exactly: 21 - 20 = 1; then 1 + 7 + 7 = 15 -> 7
    single(
        "compares_unsaturated_potential",
        [7, 7, 7],
        [[0, 1, 2], [0, 1], N],
        [1, 7, 7],
        [1, 0, 0],
        threshold=20,
        membrane_width=4,
        saturations=1,
    ),
    # 21 - 12 = 9 -> 7; 7 + 21 - 12 = 16 -> 7; 7 + 7 - 12 = 2
    single(
        "saturates_after_subtracting",
        [7, 7, 7],
        [[0, 1, 2], [0, 1, 2], [0]],
        [7, 7, 2],
        [1, 1, 1],
        threshold=12,
        membrane_width=4,
        saturations=2,
    ),
    # -21 -> -8 below the threshold; -8 >= -15 fires: -8 + 15 = 7; 7 + 15 = 22 -> 7
    single(
        "negative_saturation_and_threshold",
        [-7, -7, -7],
        [[0, 1, 2], N, N],
        [-8, 7, 7],
        [0, 1, 1],
        threshold=-15,
        membrane_width=4,
        saturations=2,
    ),
    single("bias_without_events", [1], [N] * 5, [3, 6, 2, 5, 1], [0, 0, 1, 0, 1], bias=3, threshold=7),
    # -5 * 3 >> 2 = floor(-3.75) = -4, floor(-3) = -3, floor(-2.25) = -3
    single("multiply_leak_floors", [-5], [E, N, N, N], [-5, -4, -3, -3], [0] * 4, leak=Leak("multiply", 2, 3)),
    # 7 * 3 >> 2 = 5, 3, 2, 1, 0
    single("multiply_leak_decays", [7], [E, N, N, N, N, N], [7, 5, 3, 2, 1, 0], [0] * 6, leak=Leak("multiply", 2, 3)),
    # 5 fires -> -2; -2 + 5 = 3; 3 + 5 = 8 fires -> -2
    single("reset_to_value", [5], [E, E, E], [-2, 3, -2], [1, 0, 1], threshold=5, reset="value", reset_value=-2),
    single("reset_to_zero", [5], [E, N, E], [0, 0, 0], [1, 0, 1], threshold=3, reset="zero"),
    single("reset_none", [5], [E, E, N], [5, 10, 10], [1, 1, 1], threshold=5, reset="none"),
    # weight 1 is 8; 8 + 2 - 9 = 1; 1 - 0 + 2 = 3; 3 - 1 + 2 = 4; 4 - 2 + 8 + 2 - 9 = 3
    single(
        "fraction_bits_scale_the_sum",
        [1],
        [E, N, N, E],
        [1, 3, 4, 3],
        [1, 0, 0, 1],
        leak=Leak("shift", 1),
        bias=2,
        threshold=9,
        fraction_bits=3,
    ),
    # 2 * 3 + 1 * 0 = 6 at every timestep, the first included
    single("current_at_every_timestep", [2, 1], [3, 0], [6, 2, 8, 4], [0, 1, 0, 1], threshold=10),
    # the second layer sees a spike in the timestep in which the first fires: 5, 10 - 8 = 2, 7, 12 - 8 = 4
    Case(
        "layers_in_one_timestep",
        [[[5]], [[3, 1]]],
        [E, E, E, E],
        [[[0], [1], [0], [1]], [[0, 0], [1, 0], [0, 0], [1, 1]]],
        [[[5], [2], [7], [4]], [[0, 0], [0, 1], [0, 1], [0, 0]]],
        [2, 1],
        options={"threshold": [8, np.array([3, 2])]},
    ),
    Case(
        "tie_goes_to_the_lowest_class",
        [[[1, 5, 5]]],
        [E, E],
        [[[0, 1, 1], [0, 1, 1]]],
        [[[1, 1, 1], [2, 2, 2]]],
        [0, 2, 2],
        decision=1,
        options={"threshold": 4},
    ),
    # thr 1, beta .5, inputs .6 .6 .6 0 0 1.5 0 0 times 640, with snnTorch's delayed reset:
    # .6 .9 1.05 | .525 - 1 = -.475, -.2375, -.11875 + 1.5 = 1.38125 | .690625 - 1 = -.309375, -.1546875
    single(
        "reset_a_timestep_late_and_undecayed",
        [6, 15],
        [E, E, E, N, N, [1], N, N],
        [384, 576, 672, -304, -152, 884, -198, -99],
        [0, 0, 1, 0, 0, 1, 0, 0],
        leak=Leak("shift", 1),
        threshold=640,
        fraction_bits=6,
        compare=">",
        reset_delay=True,
    ),
    # u = 14 -> 7, fires; 7 - 12 + 14 = 9 -> 7; 7 + 14 = 21 -> 7, fires; 7 - 12 = -5
    single(
        "delayed_reset_of_a_saturated_membrane",
        [7, 7],
        [[0, 1], [0, 1], [0, 1], N],
        [7, 7, 7, -5],
        [1, 0, 1, 0],
        threshold=12,
        membrane_width=4,
        saturations=3,
        reset_delay=True,
    ),
    # i: 8, 8 - 4 + 8 = 12, 6, 3, 2; v: 8, 4 + 12 = 16, 8 + 6 = 14, 7 + 3 = 10, 5 + 2 = 7
    single(
        "synaptic_current_leaks_and_drives",
        [8],
        [E, E, N, N, N],
        [8, 16, 14, 10, 7],
        [0] * 5,
        currents=[8, 12, 6, 3, 2],
        leak=Leak("shift", 1),
        current_leak=Leak("shift", 1),
        current_width=8,
    ),
    # i: 5, 10 -> 7, 12 -> 7, 7, 7 - 7; v adds it up
    single(
        "synaptic_current_saturates",
        [5, -7],
        [E, E, E, N, [1]],
        [5, 12, 19, 26, 26],
        [0] * 5,
        currents=[5, 7, 7, 7, 0],
        saturations=2,
        current_leak=Leak(),
        current_width=4,
    ),
    # i: -14 -> -8, then 3 / 4 rounded down: -6, -5, -4; v stays in 5 bits: -8, -14, -16 (-19), -16 (-20)
    single(
        "synaptic_current_and_membrane_saturate_below",
        [-7, -7],
        [[0, 1], N, N, N],
        [-8, -14, -16, -16],
        [0] * 4,
        currents=[-8, -6, -5, -4],
        saturations=3,
        membrane_width=5,
        current_leak=Leak("multiply", 2, 3),
        current_width=4,
    ),
    # i: 6, 3, 8, 4; the reset leaves it alone: u = 6 | 0 + 3, 3 + 8 = 11 | 4
    single(
        "reset_leaves_the_synaptic_current_alone",
        [6],
        [E, N, E, N],
        [0, 3, 0, 4],
        [1, 0, 1, 0],
        currents=[6, 3, 8, 4],
        threshold=6,
        reset="zero",
        current_leak=Leak("shift", 1),
        current_width=8,
    ),
    # the bias is part of what the current gathers. i: 4 + 2, 3 + 2, 3 + 2 (5 - 2), 3 + 4 + 2; threshold 10:
    # u = 6, 3 + 5 = 8, 4 + 5 = 9, 5 + 9 = 14 fires, 7 - 10 + 5 + 2 = 4
    single(
        "bias_drives_the_synaptic_current_and_the_reset_is_late",
        [4],
        [E, N, N, E, N],
        [6, 8, 9, 14, 4],
        [0, 0, 0, 1, 0],
        currents=[6, 5, 5, 9, 7],
        leak=Leak("shift", 1),
        bias=2,
        threshold=10,
        reset_delay=True,
        current_leak=Leak("shift", 1),
        current_width=8,
    ),
    # a value of the input is added at every timestep: i = 3, 3 + 2, 5 - 2 + 3 = 6, 6; v = 3, 8, 14 (fires, 4), 10 (0)
    single(
        "input_current_into_a_synaptic_current",
        [1],
        [3],
        [3, 8, 4, 0],
        [0, 0, 1, 1],
        currents=[3, 5, 6, 6],
        threshold=10,
        current_leak=Leak("shift", 1),
        current_width=8,
    ),
    # 6, 3 + 6, 5 + 6 = 11 fires, 1 for two timesteps, 1 - 0 + 6 = 7, 4 + 6 = 10 fires, 0
    single(
        "rests_after_a_spike",
        [6],
        [E] * 8,
        [6, 9, 1, 1, 1, 7, 0, 0],
        [0, 0, 1, 0, 0, 0, 1, 0],
        leak=Leak("shift", 1),
        threshold=10,
        refractory=2,
    ),
    # 15 fires, 11 for a timestep, 26 fires, 22 for a timestep, 22 fires
    single(
        "rests_beyond_its_threshold",
        [15],
        [E, E, E, N, N],
        [11, 11, 22, 22, 18],
        [1, 0, 1, 0, 1],
        threshold=4,
        refractory=1,
    ),
    # i: 8, 4, 2, 1, 1 + 8; v: 8, 12 fires, 0 for two timesteps, 9
    single(
        "current_goes_on_in_a_rest",
        [8],
        [E, N, N, N, E],
        [8, 0, 0, 0, 9],
        [0, 1, 0, 0, 0],
        currents=[8, 4, 2, 1, 9],
        threshold=10,
        reset="zero",
        refractory=2,
        current_leak=Leak("shift", 1),
        current_width=8,
    ),
    # class 0: 4, 4 - 2 = 2, 2 - 1 + 4 = 5; class 1: -3 + 1 = -2, -2 + 1 + 1 = 0, 0 - 3 + 1 = -2
    *(
        Case(
            f"readout_{readout}",
            [[[4, -3]]],
            [E, N, E],
            [[[0, 0]] * 3],
            [[[4, -2], [2, 0], [5, -2]]],
            values,
            options={
                "readout": readout,
                "reset": "none",
                "leak": Leak("shift", 1),
                "bias": np.array([0, 1]),
                "threshold": 1,
            },
        )
        for readout, values in (
            ("membrane_last", [5, -2]),
            ("membrane_sum", [11, -4]),
            ("membrane_max", [5, 0]),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_follows_a_trajectory_worked_out_by_hand(case: Case) -> None:
    assert case.holds()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference_follows_a_trajectory_worked_out_by_hand(case: Case, tmp_path) -> None:
    case.network().save(tmp_path / "net.safetensors")
    result = reference_lif.run(reference_lif.read_network(tmp_path / "net.safetensors"), case.sample)
    assert (result["spikes"], result["membranes"], result["values"]) == (case.spikes, case.membranes, case.values)
    assert result["currents"] == case.gathered
    assert (result["decision"], result["saturations"]) == (case.decision, case.saturations)


def test_nothing_survives_a_sample() -> None:
    case = next(case for case in CASES if case.name == "bias_without_events")
    network = case.network()
    trace = golden.run(network, one_sample(network, case.sample).take([0, 0, 0]))
    assert trace.membranes[0][:, :, 0].tolist() == [[3, 6, 2, 5, 1]] * 3


@pytest.mark.parametrize("seed", range(3))
def test_recorded_potentials_are_what_spikes_and_membranes_follow_from(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    stimulus = random_stimulus(rng, network, 5)
    trace = golden.run(network, stimulus, potentials=True)
    assert golden.run(network, stimulus).potentials == []
    last = len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        u, s = trace.potentials[index], trace.spikes[index]
        if not (index == last and network.membrane_readout):
            reached = u >= layer.threshold if layer.compare == ">=" else u > layer.threshold
            assert np.array_equal(s, reached & ~resting(s, layer.refractory))
        held = {"subtract": u - layer.threshold, "zero": 0 * u, "value": 0 * u + layer.reset_value, "none": u}
        after = u if layer.reset_delay else np.where(s, held[layer.reset], u)
        assert np.array_equal(trace.membranes[index], after.clip(layer.membrane_min, layer.membrane_max))


def test_results_do_not_depend_on_the_chunk_size(monkeypatch) -> None:
    rng = np.random.default_rng(3)
    network = random_network(rng)
    stimulus = random_stimulus(rng, network, 9)
    assert_chunks_do_not_matter(network, stimulus, monkeypatch)


# Mutated golden models --------------------------------------------------------------------------

MUTATIONS = {
    "greater for at least": ("lif_steps", "s = u >= layer.threshold", "s = u > layer.threshold"),
    "at least for greater": ("lif_steps", "s = u > layer.threshold", "s = u >= layer.threshold"),
    "bias skipped": ("lif_steps", " + layer.bias\n", "\n"),
    "bias only with events": ("lif_steps", " + layer.bias\n", " + layer.bias * (sums[:, t] != 0)\n"),
    "fraction bits ignored": ("lif_steps", "total << layer.fraction_bits", "total"),
    "leak after the sum": (
        "lif_steps",
        "u = layer.leak(v) + arriving",
        "u = layer.leak(v + arriving)",
    ),
    "leak forgotten": ("lif_steps", "u = layer.leak(v)", "u = v"),
    "saturates before comparing": (
        "lif_steps",
        "        if not spiking:",
        "        u = np.clip(u, layer.membrane_min, layer.membrane_max)\n        if not spiking:",
    ),
    "no saturation": ("lif_steps", "np.clip(after, layer.membrane_min, layer.membrane_max)", "after"),
    "symmetric saturation": ("lif_steps", "layer.membrane_min,", "-layer.membrane_max,"),
    "subtract resets to zero": ("lif_steps", "np.where(s, u - layer.threshold, u)", "np.where(s, 0, u)"),
    "zero subtracts": ("lif_steps", "np.where(s, 0, u)", "np.where(s, u - layer.threshold, u)"),
    "reset value ignored": ("lif_steps", "layer.reset_value", "0"),
    "state kept only after a spike": ("lif_steps", "spikes[:, t], stored", "v = v * s; spikes[:, t], stored"),
    "reset not delayed": ("lif_steps", "if layer.reset_delay:\n            after", "if False:\n            after"),
    "delayed reset forgotten": ("lif_steps", "u = u - owed", "pass"),
    "delayed reset leaks": ("lif_steps", "u = u - owed", "u = u - layer.leak(owed)"),
    "current not leaked": ("lif_steps", "layer.current_leak(i) + arriving", "i + arriving"),
    "current leaks as the membrane": ("lif_steps", "layer.current_leak(i) + arriving", "layer.leak(i) + arriving"),
    "current not kept": ("lif_steps", "layer.current_leak(i) + arriving", "arriving"),
    "current not saturated": ("lif_steps", "np.clip(exact, layer.current_min, layer.current_max)", "exact"),
    "current a timestep late": ("lif_steps", "arriving = i = ", "arriving, i = i, "),
    "bias beside the current": (
        "lif_steps", "u = layer.leak(v) + arriving", "u = layer.leak(v) + arriving + layer.bias * layer.has_current",
    ),
    "current clipped uncounted": ("lif_steps", "lost |= clipped", "pass"),
    "rest disturbed": ("lif_steps", "u = np.where(rest > 0, v, u)", "pass"),
    "fires in rest": ("lif_steps", "s &= rest == 0", "pass"),
    "rest a timestep short": ("lif_steps", "np.where(s, layer.refractory, ", "np.where(s, layer.refractory - 1, "),
    "rest never ends": ("lif_steps", "np.maximum(rest - 1, 0)", "rest"),
    "tie to the highest class": (
        "_run_chunk",
        "np.argmax(values, axis=1)",
        "(values.shape[1] - 1 - np.argmax(values[:, ::-1], axis=1))",
    ),
    "last membrane is the first": ("readout_values", "return potentials\n", "return potentials[:, ::-1]\n"),
    "maximum is the last": ("readout_values", "np.maximum.accumulate(potentials, axis=1)", "potentials"),
    "second layer a timestep late": (
        "_run_chunk",
        "_as_events(fired.reshape",
        "_as_events(np.roll(fired, 1, axis=1).reshape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_literals_catch_a_mutated_golden_model(name: str, monkeypatch) -> None:
    function, old, new = MUTATIONS[name]
    mutate(monkeypatch, function, [(old, new)])
    assert not all(case.holds() for case in CASES)


@pytest.mark.parametrize("kind", ["shift", "multiply"])
def test_literals_catch_a_truncating_leak(kind: str, monkeypatch) -> None:
    def truncating(self: Leak, v: np.ndarray) -> np.ndarray:
        if self.kind == "none":
            return v
        if self.kind == "shift":
            return v - (np.sign(v) * (np.abs(v) >> self.shift) if kind == "shift" else v >> self.shift)
        product = v * self.multiplier
        return np.sign(product) * (np.abs(product) >> self.shift) if kind == "multiply" else product >> self.shift

    monkeypatch.setattr(Leak, "__call__", truncating)
    assert not all(case.holds() for case in CASES)


def test_literals_catch_a_current_that_is_added_once(monkeypatch) -> None:
    original = golden.lif_steps

    def once(layer, sums, **options):
        if sums.strides[1] == 0:  # coding 'current' broadcasts one sum over the timesteps
            sums = np.array(sums)
            sums[:, 1:] = 0
        return original(layer, sums, **options)

    monkeypatch.setattr(golden, "lif_steps", once)
    assert not all(case.holds() for case in CASES)


# Second reference -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_golden_equals_reference_on_random_networks(seed: int, tmp_path) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=24)
    assert_equals_reference(network, random_stimulus(rng, network, 2), tmp_path / "net.safetensors")


def test_random_networks_saturate_often_enough(tmp_path) -> None:
    clipped = 0
    for seed in range(50):
        rng = np.random.default_rng([7, seed])
        network = random_network(rng, max_width=12)
        trace = assert_equals_reference(network, random_stimulus(rng, network, 2), tmp_path / "n")
        clipped += bool(trace.saturations.any())
    assert clipped >= 10


# Arguments --------------------------------------------------------------------------------------


def test_stimulus_of_another_width_is_refused() -> None:
    network = CASES[0].network()
    with pytest.raises(InputError, match="stimulus has 3 inputs, the network 1"):
        golden.run(network, Stimulus.from_dense(np.zeros((1, 6, 3), np.uint8)))


def test_stimulus_of_other_timesteps_is_refused() -> None:
    network = CASES[0].network()
    with pytest.raises(InputError, match="stimulus has 2 timesteps, the network 6"):
        golden.run(network, Stimulus.from_dense(np.zeros((1, 2, 1), np.uint8)))


def test_stimulus_of_another_coding_is_refused() -> None:
    network = CASES[0].network()
    with pytest.raises(InputError, match="does not have the network's input coding 'events'"):
        golden.run(network, Stimulus(1, 6, np.array([0], np.int32), values=np.zeros((1, 1), np.uint8)))


def test_a_stimulus_that_is_not_valid_is_refused() -> None:
    """An event outside of the inputs is a read out of bounds where few inputs have events; one twice counts twice."""
    network = FrozenNetwork.from_arrays([np.full((1000, 2), 3)], threshold=100, timesteps=1)
    for sources, message in (([0, 2_000_000_000], "a source is outside 0..999"), ([5, 5], "more than one event")):
        stimulus = Stimulus(1000, 1, np.zeros(1, np.int32), np.array([0, 2]), np.array(sources, np.int32))
        with pytest.raises(InputError, match=message):
            golden.run(network, stimulus)


def test_value_beyond_the_input_bits_is_refused() -> None:
    network = next(case for case in CASES if case.is_current).network()
    with pytest.raises(InputError, match="stimulus value 16 exceeds 4 bits"):
        golden.run(network, Stimulus(2, 4, np.array([0], np.int32), values=np.array([[16, 0]], np.uint8)))
