"""Random float networks of all terms, the whole way: own file, NIR, integers in the golden model and second reference.

The same networks in the simulator: tests/sim/test_random_floats_rtl.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_checks import assert_equals_reference
from random_floats import random_float_network, terms_of

from codesign.contract import floating, golden
from codesign.contract.floating import FloatNetwork
from codesign.contract.stimulus import Stimulus
from codesign.interchange import hdf5, own
from codesign.interchange.facts import Facts
from codesign.interchange.importing import import_file
from codesign.interchange.own import write_nir
from codesign.quantise.integers import quantise

# Seeds of `make test`, which reach every term, and of the deep test.
FEW, ALL = range(21, 41), range(200)
BLOCK = 20


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch):
    monkeypatch.setattr(own, "read_tree", lambda file, absent="": hdf5.read_tree_here(file))


def assert_same(network: FloatNetwork, back: FloatNetwork | None, stimulus: Stimulus) -> None:
    """The same fields, every number, and so the same run."""
    assert back is not None and back.hash == network.hash and back.coding == network.coding
    assert (back.timesteps, back.readout) == (network.timesteps, network.readout)
    for a, b in zip(network.layers, back.layers, strict=True):
        assert (a.name, a.shape, a.reset, a.reset_delay, a.compare, a.refractory) == (
            b.name, b.shape, b.reset, b.reset_delay, b.compare, b.refractory
        )  # fmt: skip
        assert a.terms.keys() == b.terms.keys()
        assert all(np.array_equal(values, b.terms[name]) for name, values in a.terms.items())
    one, two = floating.run(network, stimulus), floating.run(back, stimulus)
    assert np.array_equal(one.values, two.values)
    assert all(np.array_equal(x, y) for x, y in zip(one.membranes, two.membranes, strict=True))


def goes_the_whole_way(seed: int, folder: Path) -> tuple[set[str], float]:
    """Checks one network; returns what it has, and how many of its spikes' entries integers keep."""
    rng = np.random.default_rng(seed)
    network, stimulus = random_float_network(rng)
    network.save(folder / "f.safetensors")
    assert_same(network, FloatNetwork.load(folder / "f.safetensors"), stimulus)
    write_nir(network, folder / "n.nir", 1e-3 if seed % 2 else 1e-4)
    stimulus.save(folder / "s.npz")
    bits, scale = int(rng.integers(2, 9)), ("layer", "neuron")[seed % 2]
    found = import_file(folder / "n.nir", "codesign", Facts(), folder / "s.npz", weight_bits=bits, scale=scale)
    assert_same(network, found.floating, stimulus)
    # In integers, as the import leaves it: without the neurons that lead nowhere.
    assert_equals_reference(found.frozen, stimulus, folder / "q.safetensors")
    # Neither bounds nor the widths of these samples saturate on these samples.
    exact = floating.run(network, stimulus)
    bounded, fitted = (quantise(network, samples, scale=scale).network for samples in (None, stimulus))
    traces = [golden.run(frozen, stimulus) for frozen in (bounded, fitted)]
    assert not any(trace.saturations.any() for trace in traces)
    assert all(a.membrane_width <= b.membrane_width for a, b in zip(fitted.layers, bounded.layers, strict=True))
    kept = np.mean([np.mean((a > 0) == b) for a, b in zip(exact.spikes, traces[1].spikes, strict=True)])
    return terms_of(network), float(kept)


def go_the_whole_way(seeds: range, folder: Path) -> set[str]:
    found = [goes_the_whole_way(seed, folder) for seed in seeds]
    assert np.mean([kept for _, kept in found]) > 0.98
    return set().union(*(terms for terms, _ in found))


def test_random_networks_go_the_whole_way(tmp_path):
    assert go_the_whole_way(FEW, tmp_path) == terms_of(None)


@pytest.mark.deep
@pytest.mark.parametrize("start", ALL[::BLOCK])
def test_many_random_networks_go_the_whole_way(start, tmp_path):
    go_the_whole_way(ALL[start : start + BLOCK], tmp_path)
