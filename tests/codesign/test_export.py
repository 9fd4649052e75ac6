"""Networks of codesign as NIR files: nothing is lost on the way back, and other readers get what NIR can say."""

import json

import h5py
import numpy as np
import pytest
from nir_files import chain, lif, node
from random_floats import random_float_network
from random_networks import random_stimulus
from random_structures import random_structure

from codesign.basics.errors import InputError
from codesign.cli import main
from codesign.contract import floating, golden
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.interchange import hdf5, nir_file, nodes, own
from codesign.interchange.facts import Facts
from codesign.interchange.importing import import_file
from codesign.interchange.own import in_float, read_own, write_nir


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch):
    for module in (own, nodes):
        monkeypatch.setattr(module, "read_tree", lambda file, absent="": hdf5.read_tree_here(file))


@pytest.mark.parametrize("seed", range(12))
def test_frozen_networks_come_back_as_they_were(seed, tmp_path):
    frozen = random_structure(np.random.default_rng(seed))
    write_nir(frozen, tmp_path / "n.nir", 1e-3 if seed % 2 else 1e-4)
    assert import_file(tmp_path / "n.nir", "codesign", Facts()).frozen.hash == frozen.hash


def test_the_nir_package_reads_what_is_written(tmp_path):
    import nir

    for seed in range(6):
        write_nir(random_structure(np.random.default_rng(seed)), tmp_path / "n.nir")
        graph = nir.read(tmp_path / "n.nir", type_check=False)
        assert "output" in graph.nodes and graph.metadata["codesign_kind"] == "frozen"


def test_what_another_reader_learns_is_the_network_where_nir_says_all(tmp_path):
    """Hard resets, strict comparison, no integers: what snnTorch's files say, their reader has exactly."""
    rng = np.random.default_rng(1)
    facts = Facts(timesteps=20, readout="spike_count", reset="zero")
    layers = [node("Linear", weight=rng.normal(size=(6, 4)) * 2), lif(6, tau=5e-4, r=5.0)]
    network = nir_file.read_nir(chain(tmp_path / "a.nir", *layers, n_in=4, n_out=6), "snntorch", facts).network
    found = write_nir(network, tmp_path / "b.nir")
    assert not [line for line in found.unsaid if line.startswith("layer")]
    back = nir_file.read_nir(tmp_path / "b.nir", "snntorch", facts).network
    for name, values in network.layers[0].terms.items():
        np.testing.assert_allclose(values, back.layers[0].terms[name], rtol=1e-12)
    np.testing.assert_allclose(
        network.layers[0].projections[0].connections.dense(), back.layers[0].projections[0].connections.dense()
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_graph_alone_gives_the_float_networks_spikes(seed, tmp_path):
    """Read as NIR's own equations with the facts that NIR lacks, pools, recurrence and currents included."""
    rng = np.random.default_rng(seed)
    while True:
        network, stimulus = random_float_network(rng)
        if any(layer.refractory for layer in network.layers):
            continue
        alike = {(layer.compare, layer.reset_delay) for layer in network.layers}
        if not network.coding.is_current and len(alike) == 1 and not network.membrane_readout:
            break
    found = write_nir(network, tmp_path / "n.nir", 1e-3)
    if any("differs within a channel" in line for line in found.unsaid):
        return
    ((compare, late),) = alike
    resets = {f"layer{index}": layer.reset for index, layer in enumerate(network.layers)}
    facts = Facts(
        dt=1e-3, integrator="euler", resets=resets, reset_delay=late or None, compare=compare,
        timesteps=network.timesteps, readout=network.readout,
    )  # fmt: skip
    back = nir_file.read_nir(tmp_path / "n.nir", "raw", facts).network
    one, two = floating.run(network, stimulus), floating.run(back, stimulus)
    assert all(np.mean(a != b) < 0.002 for a, b in zip(one.spikes, two.spikes, strict=True))


@pytest.mark.parametrize(
    ("coding", "line"),
    [(InputCoding("rate"), "input coding rate"), (InputCoding("current", 6), "input coding current of 6 bits")],
)
def test_how_inputs_are_coded_is_among_what_nir_does_not_say(coding, line, tmp_path):
    network = FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3, coding=coding)
    assert line in write_nir(network, tmp_path / "n.nir").unsaid


def test_a_frozen_network_in_float_is_it_but_for_what_rounds(tmp_path):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        frozen = random_structure(rng)
        exact = in_float(frozen)
        exact.validate()
        if all(layer.leak.kind == "none" and not layer.has_current for layer in frozen.layers):
            stimulus = random_stimulus(rng, frozen, 3)
            trace = golden.run(frozen, stimulus)
            if not trace.saturations.any() and frozen.coding.input_bits < 2:
                assert np.array_equal(trace.values, floating.run(exact, stimulus).values)


def test_a_graph_that_was_changed_after_the_export_is_not_taken_for_the_network(tmp_path):
    frozen = random_structure(np.random.default_rng(3))
    file = tmp_path / "n.nir"
    write_nir(frozen, file)
    with h5py.File(file, "a") as opened:
        opened["node/nodes/layer0/r"][...] = 7.0
    with pytest.raises(InputError, match="changed after the export"):
        read_own(file)
    write_nir(frozen, file)
    with h5py.File(file, "a") as opened:
        whole = opened["node/metadata/codesign_network"][()]
        del opened["node/metadata/codesign_network"]
        opened["node/metadata/codesign_network"] = whole[:-3]
    with pytest.raises(InputError, match="truncated"):
        read_own(file)
    with h5py.File(file, "a") as opened:
        del opened["node/metadata"]
    with pytest.raises(InputError, match="no network of codesign's"):
        read_own(file)


@pytest.mark.parametrize("dt", [0.0, -1.0, np.nan, np.inf])
def test_a_timestep_that_no_export_writes_is_damage(dt, tmp_path):
    file = tmp_path / "n.nir"
    write_nir(random_structure(np.random.default_rng(3)), file)
    with h5py.File(file, "a") as opened:
        opened["node/metadata/codesign_dt"][...] = dt
    with pytest.raises(InputError, match="in its metadata is damaged"):
        read_own(file)


def test_the_command_writes_and_the_import_reads(tmp_path, capsys):
    frozen = random_structure(np.random.default_rng(4))
    frozen.save(tmp_path / "n.safetensors")
    file, run = tmp_path / "n.nir", tmp_path / "run"
    assert main(["export", str(tmp_path / "n.safetensors"), "-o", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["network_hash"] == frozen.hash and "a timestep of 0.0001" in document["unsaid"]
    assert main(["import", str(file), "--source", "codesign", "-o", str(run), "--json"]) == 0
    assert FrozenNetwork.load(run / "network.safetensors").hash == frozen.hash
    capsys.readouterr()
    assert main(["export", str(run), "-o", str(tmp_path / "again.nir")]) == 0
    assert main(["import", str(file), "--source", "codesign", "--reset", "zero", "-o", str(run)]) == 2
    assert "--reset means nothing to --source codesign" in capsys.readouterr().err
    exact, _ = random_float_network(np.random.default_rng(5))
    exact.save(tmp_path / "f.safetensors")
    assert main(["export", str(tmp_path / "f.safetensors"), "-o", str(file)]) == 0
    assert isinstance(read_own(file), FloatNetwork)
