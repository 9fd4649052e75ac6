"""The checker can fail: every kind of difference is reported at the right place. No simulator is involved."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_networks import random_network, random_stimulus

from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, Leak
from codesign.contract.sidecar import LayerEntry, Sidecar, read_sidecar
from codesign.machine.capacity import CapacityOptions
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from rtl_templates.bundle import write_bundle
from sim.checker import Comparison, Divergence, check_segment, expected_counts
from sim.recording import LayerRecording, Recording
from sim.verify import quiet_limit


def sidecar_of(network: FrozenNetwork, lanes: int = 3) -> Sidecar:
    """As much of a sidecar as the checker reads."""
    layers = []
    for index, layer in enumerate(network.layers):
        order = np.random.default_rng(index).permutation(layer.n_out)
        used = min(lanes, layer.n_out)
        layers.append(
            LayerEntry.model_construct(
                index=index,
                lanes=used,
                n_slots=-(-layer.n_out // used),
                lane=tuple((order % used).tolist()),
                slot=tuple((order // used).tolist()),
                current_width=layer.current_width or None,
            )
        )
    return Sidecar.model_construct(layers=tuple(layers), early_exit="off", counters=True, output_spikes=True)


def faithful(network: FrozenNetwork, sidecar: Sidecar, trace: golden.Trace) -> Recording:
    """What the monitors record of an accelerator that does what the golden model does."""
    count, timesteps = len(trace.decisions), network.timesteps
    layers = []
    for entry in sidecar.layers:
        shape = (count * timesteps, entry.n_slots, entry.lanes)
        spikes, membranes, currents = np.zeros(shape, bool), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        at = (slice(None), entry.slot, entry.lane)
        spikes[at] = trace.spikes[entry.index].reshape(count * timesteps, -1)
        membranes[at] = trace.membranes[entry.index].reshape(count * timesteps, -1)
        if entry.current_width:
            currents[at] = trace.currents[entry.index].reshape(count * timesteps, -1)
        layers.append(
            LayerRecording(
                np.tile(np.arange(entry.n_slots), count * timesteps),
                spikes.reshape(-1, entry.lanes),
                membranes.reshape(-1, entry.lanes),
                currents.reshape(-1, entry.lanes) if entry.current_width else None,
            )
        )
    words = []
    for sample in range(count):
        for timestep, neuron in np.argwhere(trace.spikes[-1][sample]):
            words.append((0, timestep, neuron, 0, 0))
        words += [(1, 0, index, value, 0) for index, value in enumerate(trace.values[sample])]
        words.append((2, 0, trace.decisions[sample], 0, 1))
    columns = np.array(words, np.int64).T
    output = dict(zip(("kind", "timestep", "index", "value", "last"), columns, strict=True))
    cycle = np.arange(len(words)) * 3 + 100
    output.update(cycle=cycle, cycle_count=cycle - 7, busy=np.ones(len(words), np.int64))
    status = {
        "saturation_count": int(trace.saturations.sum()),
        "protocol_error": 0,
        "network_hash": int(network.hash[:16], 16),
        "unstable": 0,
        "busy": 0,
        "cycle": int(cycle[-1]) + 50,
        "cycle_count": int(cycle[-1]) + 43,
    }
    return Recording(tuple(layers), output, np.arange(count), status, np.zeros((len(layers), 4), np.int64))


def with_current(network: FrozenNetwork) -> FrozenNetwork:
    """The network with a synaptic current in its first layer, whatever that had."""
    first = replace(network.layers[0], current_leak=Leak("shift", 1), current_width=9)
    return network.with_layers([first, *network.layers[1:]])


@pytest.fixture
def setup() -> tuple[FrozenNetwork, dict[str, Any], golden.Trace, Recording]:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        network = with_current(random_network(rng, max_width=12))
        trace = golden.run(network, random_stimulus(rng, network, 4))
        if (
            len(network.layers) > 1
            and not network.membrane_readout
            and (trace.spikes[-1].sum(axis=2) > 1).any()
            and network.timesteps > 1
        ):
            sidecar = sidecar_of(network)
            return network, sidecar, trace, faithful(network, sidecar, trace)
    raise AssertionError("no suitable network")


SAMPLES = np.array([10, 11, 12, 13])


def check(network: FrozenNetwork, sidecar: Sidecar, trace: golden.Trace, recording: Recording) -> Comparison:
    comparison = Comparison("test")
    check_segment(comparison, network, sidecar, trace, recording, SAMPLES)
    return comparison


def test_a_faithful_recording_passes_and_every_value_is_counted(setup) -> None:
    network, sidecar, trace, recording = setup
    comparison = check(network, sidecar, trace, recording)
    assert comparison.mismatches == 0 and comparison.first is None
    assert {name: comparison.counts[name] for name in expected_counts(network, 4)} == expected_counts(network, 4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("what", ["spikes", "membranes", "currents"])
def test_one_corrupted_value_is_reported_where_it_is(setup, what: str, seed: int) -> None:
    network, sidecar, trace, recording = setup
    rng = np.random.default_rng(seed)
    layer = 0 if what == "currents" else int(rng.integers(len(network.layers)))
    sample, timestep = int(rng.integers(4)), int(rng.integers(network.timesteps))
    neuron = int(rng.integers(network.layers[layer].n_out))
    entry = sidecar.layers[layer]
    row = (sample * network.timesteps + timestep) * entry.n_slots + entry.slot[neuron]
    array = getattr(recording.layers[layer], what).copy()
    array[row, entry.lane[neuron]] ^= 1
    layers = list(recording.layers)
    layers[layer] = replace(layers[layer], **{what: array})
    comparison = check(network, sidecar, trace, replace(recording, layers=tuple(layers)))
    first = comparison.first
    assert comparison.mismatches == 1 and first is not None
    assert (first.sample, first.timestep, first.layer, first.neuron, first.what) == (
        *(SAMPLES[sample], timestep, layer, neuron, what),
    )
    expected = int(getattr(trace, what)[layer][sample, timestep, neuron])
    assert (first.expected, first.got) == (expected, expected ^ 1)


def test_the_earliest_of_many_differences_is_reported(setup) -> None:
    network, sidecar, trace, recording = setup
    layers = [replace(layer, membranes=layer.membranes + 1) for layer in recording.layers]
    comparison = check(network, sidecar, trace, replace(recording, layers=tuple(layers)))
    first = comparison.first
    assert first is not None
    assert (first.sample, first.timestep, first.layer, first.neuron) == (10, 0, 0, 0)
    assert comparison.mismatches == expected_counts(network, 4)["membranes"]


def test_missing_sweeps_are_mismatches(setup) -> None:
    network, sidecar, trace, recording = setup
    last = recording.layers[-1]
    slots = sidecar.layers[-1].n_slots
    arrays = {each.name: getattr(last, each.name) for each in fields(last)}
    cut = replace(last, **{name: array[:-slots] for name, array in arrays.items() if array is not None})
    comparison = check(network, sidecar, trace, replace(recording, layers=(*recording.layers[:-1], cut)))
    first = comparison.first
    assert first is not None and comparison.mismatches >= 2 * network.n_outputs
    assert (first.sample, first.timestep, first.layer) == (13, network.timesteps - 1, len(network.layers) - 1)


def test_an_extra_sweep_is_a_mismatch(setup) -> None:
    network, sidecar, trace, recording = setup
    first = recording.layers[0]
    assert first.currents is not None
    more = LayerRecording(
        np.append(first.slots, 0),
        *(np.vstack([array, array[:1]]) for array in (first.spikes, first.membranes, first.currents)),
    )
    comparison = check(network, sidecar, trace, replace(recording, layers=(more, *recording.layers[1:])))
    assert comparison.mismatches == 1 and comparison.first is not None
    assert comparison.first.what == "sweep_clocks"


def edited(recording: Recording, **columns: Any) -> Recording:
    return replace(recording, output={**recording.output, **columns})


def without(recording: Recording, row: int) -> Recording:
    return replace(recording, output={name: np.delete(column, row) for name, column in recording.output.items()})


def test_differences_in_output_words_are_found(setup) -> None:
    network, sidecar, trace, recording = setup
    output = recording.output
    spike, value, decision = (int(np.flatnonzero(output["kind"] == kind)[0]) for kind in range(3))

    def bumped(name: str, row: int, by: int = 1) -> Recording:
        column = output[name].copy()
        column[row] += by
        return edited(recording, **{name: column})

    def doubled(row: int) -> Recording:
        return replace(recording, output={name: np.insert(column, row, column[row]) for name, column in output.items()})

    cases = {
        "value": bumped("value", value),
        "value class": bumped("index", value),
        "decision": bumped("index", decision),
        "spike neuron": bumped("index", spike),
        "spike timestep": bumped("timestep", spike),
        "unused value of a spike": bumped("value", spike),
        "unused timestep of a decision": bumped("timestep", decision),
        "kind": bumped("kind", value, 2),
        "tlast lost": bumped("last", decision, -1),
        "tlast early": bumped("last", value),
        "spike lost": without(recording, spike),
        "value lost": without(recording, value),
        "decision lost": without(recording, decision),
        "spike twice": doubled(spike),
        "value twice": doubled(value),
        "decision twice": doubled(decision),
        "clock lost": bumped("cycle", 0),
        "not busy": bumped("busy", decision, -1),
    }
    unnoticed = [name for name, case in cases.items() if check(network, sidecar, trace, case).mismatches == 0]
    assert unnoticed == []


@pytest.mark.parametrize(
    "name", ["saturation_count", "protocol_error", "network_hash", "unstable", "busy", "cycle_count"]
)
def test_differences_in_status_are_found(setup, name: str) -> None:
    network, sidecar, trace, recording = setup
    status = {**recording.status, name: recording.status[name] + 1}
    comparison = check(network, sidecar, trace, replace(recording, status=status))
    assert comparison.mismatches == 1
    assert comparison.first is not None and name in comparison.first.what


def test_a_hang_is_a_mismatch_at_the_unfinished_sample(setup) -> None:
    network, sidecar, trace, recording = setup
    comparison = Comparison("test")
    check_segment(comparison, network, sidecar, trace, recording, SAMPLES, hung=True)
    assert comparison.mismatches == 1 and comparison.first is not None
    assert comparison.first.what == "hang" and comparison.first.sample == 13


def test_order_of_spikes_within_a_timestep_is_free(setup) -> None:
    network, sidecar, trace, recording = setup
    output = recording.output
    key = np.cumsum(output["last"]) * 10_000 + output["kind"] * 1000 + output["timestep"]
    pairs = np.flatnonzero((key[1:] == key[:-1]) & (output["kind"][1:] == 0))
    assert pairs.size
    index = output["index"].copy()
    row = int(pairs[0])
    index[[row, row + 1]] = index[[row + 1, row]]
    assert check(network, sidecar, trace, edited(recording, index=index)).mismatches == 0


def test_a_machine_that_stands_still_is_told_before_what_it_then_does_not_do() -> None:
    missing, still = (Divergence(1, 0, 0, 3, "spikes", 1, 0), Divergence(1, None, None, None, "hang", 0, 1))
    before, of_none = Divergence(0, 2, 1, 0, "spikes", 1, 0), Divergence(None, None, None, None, "counts", 0, 1)
    assert sorted([of_none, missing, still, before], key=lambda found: found.order) == [before, still, missing, of_none]


def test_a_machine_may_be_quiet_while_it_clears_all_that_it_has_room_for(tmp_path: Path) -> None:
    network = FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=2)
    mapping = map_network(network, [1], None, Choices(loadable=True), capacity=CapacityOptions(inputs=4096))
    write_bundle(network, mapping, tmp_path / "b")
    assert quiet_limit(network, read_sidecar(tmp_path / "b")) > 4096 == plan_machine(network, mapping).clearing_clocks
