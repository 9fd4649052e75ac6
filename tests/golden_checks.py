"""What tests of the golden model share: samples by hand, the second reference, mutated models."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_lif

from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus


def one_sample(network: FrozenNetwork, sample: list[Any]) -> Stimulus:
    """A sample as the reference takes it: values by source for coding 'current', else sources by timestep."""
    if network.coding.is_current:
        values = np.array([sample], np.uint8)
        return Stimulus(network.n_inputs, network.timesteps, np.array([-1], np.int32), values=values)
    events = np.zeros((1, len(sample), network.n_inputs), np.uint8)
    for timestep, sources in enumerate(sample):
        events[0, timestep, sources] = 1
    return Stimulus.from_dense(events)


def as_lists(stimulus: Stimulus, index: int) -> list[Any]:
    """The inverse of :func:`one_sample`."""
    if stimulus.values is not None:
        return stimulus.values[index].tolist()
    return [stimulus.events(index, timestep).tolist() for timestep in range(stimulus.timesteps)]


def resting(spikes: np.ndarray, refractory: int) -> np.ndarray:
    """bool, as ``spikes`` (N, T, n): where a neuron has fired in the ``refractory`` timesteps before."""
    found = np.zeros_like(spikes)
    for steps in range(1, min(refractory, spikes.shape[1]) + 1):
        found[:, steps:] |= spikes[:, :-steps]
    return found


def assert_equals_reference(network: FrozenNetwork, stimulus: Stimulus, path: Path) -> golden.Trace:
    """Golden == reference for every value of every sample, both from the file; returns the golden model's trace."""
    network.save(path)
    plain = reference_lif.read_network(path)
    trace = golden.run(FrozenNetwork.load(path), stimulus)
    for index in range(len(stimulus)):
        result = reference_lif.run(plain, as_lists(stimulus, index))
        assert [layer[index].astype(int).tolist() for layer in trace.spikes] == result["spikes"]
        assert [layer[index].tolist() for layer in trace.membranes] == result["membranes"]
        assert [layer[index].tolist() for layer in trace.currents] == result["currents"]
        assert trace.values[index].tolist() == result["values"]
        assert int(trace.decisions[index]) == result["decision"]
        assert int(trace.saturations[index]) == result["saturations"]
    return trace


def assert_chunks_do_not_matter(network: FrozenNetwork, stimulus: Stimulus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run sample by sample gives what a run of all gives."""
    whole = golden.run(network, stimulus)
    with monkeypatch.context() as patch:
        patch.setattr(golden, "CHUNK_BYTES", 1)
        parts = golden.run(network, stimulus)
    for name in ("decisions", "values", "saturations", "synaptic_operations", "spike_counts"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    recorded = (whole.spikes + whole.membranes + whole.currents, parts.spikes + parts.membranes + parts.currents)
    for ours, theirs in zip(*recorded, strict=True):
        assert np.array_equal(ours, theirs)


def mutate(monkeypatch: pytest.MonkeyPatch, function: str, changes: list[tuple[str, str]]) -> None:
    """Change the source of one of the golden model's functions; every old text must occur once."""
    source = inspect.getsource(getattr(golden, function))
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {function}"
        source = source.replace(old, new)
    namespace = dict(vars(golden))
    exec(source, namespace)
    monkeypatch.setattr(golden, function, namespace[function])
    # The chunk runner looks its helpers up in the module, which now holds the mutated one.
    assert function == "_run_chunk" or golden._run_chunk.__globals__[function] is namespace[function]
