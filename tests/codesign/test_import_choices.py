"""What an import chooses: bits of the weights for an accuracy, and which weights stay; and how the report shows it."""

from __future__ import annotations

import json
import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nir_files import chain, lif, node

from codesign.basics.errors import InputError
from codesign.cli import main
from codesign.contract import floating, golden
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import INPUT, FrozenNetwork, InputCoding, Projection, Synapses
from codesign.contract.stimulus import Stimulus
from codesign.interchange import hdf5, nodes
from codesign.interchange.facts import Facts
from codesign.interchange.importing import Import, import_file
from codesign.interchange.pruning import at_densities, prune, shares
from codesign.quantise.integers import quantise
from codesign.records.rundir import IMPORT, RunDirectory
from codesign.report import blocks, write_report
from codesign.train.floating import FineTuning

FACTS = Facts(dt=1e-3, reset="subtract", readout="spike_count")
OPTIONS = ["--source", "norse", "--dt", "1e-3", "--reset", "subtract", "--readout", "spike_count"]


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch):
    monkeypatch.setattr(nodes, "read_tree", lambda file, absent="": hdf5.read_tree_here(file))


def network_file(folder: Path) -> Path:
    """Two populations of Norse's, 12 inputs, 24 and 5 neurons."""
    rng = np.random.default_rng(0)
    layers = [
        node("Linear", weight=rng.normal(size=(24, 12)) * 2), lif(24, tau=0.004),
        node("Linear", weight=rng.normal(size=(5, 24))), lif(5, tau=0.004),
    ]  # fmt: skip
    return chain(folder / "net.nir", *layers, n_in=12, n_out=5)


def events(n: int = 60, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 10, 12)) < 0.4


def samples(folder: Path, x: np.ndarray, *, labels: bool = True, wrong: int | None = None) -> Path:
    """Samples, each labelled with what the float network answers; of the odd ones ``wrong`` is the class instead."""
    exact = import_file(network_file(folder), "norse", Facts(**{**vars(FACTS), "timesteps": 10})).floating
    assert exact is not None
    found = {"x": x.astype(np.uint8)}
    if labels:
        found["y"] = floating.run(exact, Stimulus.from_dense(x)).decisions
        if wrong is not None:
            found["y"][1::2] = wrong
    path = folder / "data.npz"
    np.savez(path, **found)  # type: ignore[arg-type]
    return path


def imported(folder: Path, data: Path | None, **options: Any) -> Import:
    facts = FACTS if data is not None else Facts(**{**vars(FACTS), "timesteps": 10})
    return import_file(network_file(folder), "norse", facts, data, **options)


def accuracy(network: FrozenNetwork, stimulus: Stimulus) -> float:
    return float(np.mean(golden.run(network, stimulus).decisions == stimulus.labels))


# Bits ------------------------------------------------------------------------------------------------


def test_the_fewest_bits_hold_the_accuracy_of_the_samples_that_choose(tmp_path):
    data = samples(tmp_path, events())
    found = imported(tmp_path, data, max_accuracy_drop=0.1)
    chosen, calibration, exact = found.document["bits_chosen"], found.calibration, found.floating
    assert calibration is not None and exact is not None and len(calibration) == chosen["samples"] == 30
    assert found.document["weight_bits"] == list(chosen["bits"]) and min(chosen["bits"]) < 8
    # Their accuracy once more, with the widths that the network has and not with bounds.
    assert chosen["accuracy"] == accuracy(found.frozen, calibration) >= chosen["floor"]
    assert chosen["floor"] == chosen["accuracy_float"] - 0.1
    # Each step once more: the fewest bits that hold for all, then one bit of one layer less, kept where it held.
    for count, measured in chosen["alike"]:
        frozen = quantise(exact, calibration, weight_bits=count).network
        assert measured == accuracy(frozen, calibration)
        assert (measured >= chosen["floor"] - 1e-12) == (count == chosen["alike"][-1][0])
    assert [count for count, _ in chosen["alike"]] == list(range(2, chosen["alike"][-1][0] + 1))
    bits, closed = [chosen["alike"][-1][0]] * 2, set()
    for layer, count, measured, held in chosen["steps"]:
        assert layer not in closed and count == bits[layer] - 1
        tried = [count if index == layer else other for index, other in enumerate(bits)]
        assert measured == accuracy(quantise(exact, calibration, weight_bits=tried).network, calibration)
        assert held == (measured >= chosen["floor"] - 1e-12)
        bits = tried if held else bits
        closed |= set() if held and count > 2 else {layer}
    assert bits == list(chosen["bits"]) and closed == {0, 1}
    assert not all(held for *_, held in chosen["steps"])
    # The layer of more weights saves more, and comes first.
    assert chosen["steps"][0][0] == 0
    assert found.document["bit_costs"] is None


def test_a_larger_drop_leaves_fewer_bits_and_none_all(tmp_path):
    data = samples(tmp_path, events())
    most = [sum(imported(tmp_path, data, max_accuracy_drop=drop).document["weight_bits"]) for drop in (0.07, 0.5)]
    assert most[0] > most[1]
    assert imported(tmp_path, data).document["weight_bits"] == [8, 8]


def test_samples_that_are_reported_choose_nothing(tmp_path):
    """Other samples and other labels in the places that are measured on: the same network."""
    x = events()
    first = imported(tmp_path, samples(tmp_path, x), max_accuracy_drop=0.1)
    x[1::2] = events(seed=9)[1::2]
    other = imported(tmp_path, samples(tmp_path, x, wrong=3), max_accuracy_drop=0.1)
    assert first.frozen.hash == other.frozen.hash and first.document["bits_chosen"] == other.document["bits_chosen"]
    assert first.measured is not None and other.measured is not None
    assert first.measured.accuracy_frozen != other.measured.accuracy_frozen
    # The ones that choose do choose.
    x[::2] = events(seed=10)[::2]
    assert imported(tmp_path, samples(tmp_path, x), max_accuracy_drop=0.1).frozen.hash != first.frozen.hash


def test_what_each_number_of_bits_costs_is_that_of_the_networks(tmp_path):
    found = imported(tmp_path, samples(tmp_path, events()))
    exact, calibration, costs = found.floating, found.calibration, found.document["bit_costs"]
    assert exact is not None and calibration is not None and costs["samples"] == 30
    assert [row["bits"] for row in costs["rows"]] == [8, 7, 6, 5, 4, 3, 2]
    for row in costs["rows"]:
        frozen = quantise(exact, calibration, weight_bits=row["bits"]).network
        # The labels are the float network's decisions.
        assert row["accuracy"] == row["same_decisions"] == accuracy(frozen, calibration)
        assert row["synapses"] == frozen.n_synapses
    assert costs["rows"][-1]["same_decisions"] < 1
    assert imported(tmp_path, None).document["bit_costs"] is None
    unlabelled = imported(tmp_path, samples(tmp_path, events(), labels=False)).document["bit_costs"]["rows"]
    assert all(row["accuracy"] is None for row in unlabelled)
    assert [row["same_decisions"] for row in unlabelled] == [row["same_decisions"] for row in costs["rows"]]


def test_bits_are_not_chosen_without_what_it_takes(tmp_path):
    drop = {"max_accuracy_drop": 0.1}
    with pytest.raises(InputError, match=r"needs --samples with labels \(y\)"):
        imported(tmp_path, None, **drop)
    with pytest.raises(InputError, match=r"needs --samples with labels \(y\)"):
        imported(tmp_path, samples(tmp_path, events(), labels=False), **drop)
    data = samples(tmp_path, events())
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match=r"outside 0\.\.1; it is a fraction"):
            imported(tmp_path, data, max_accuracy_drop=wrong)
    with pytest.raises(InputError, match=r"weights of 3 bits have an accuracy of .* raise it or"):
        imported(tmp_path, data, weight_bits=3, max_accuracy_drop=0.0)
    for bits in (1, 9):
        with pytest.raises(InputError, match=f"weight_bits = {bits}"):
            imported(tmp_path, data, weight_bits=bits, **drop)
    with pytest.raises(InputError, match="has one sample"):
        imported(tmp_path, samples(tmp_path, events(1)), **drop)


def test_integers_that_are_a_sources_own_are_neither_pruned_nor_made_smaller(tmp_path, capsys):
    FrozenNetwork.from_arrays([np.eye(3, dtype=int)], threshold=1, timesteps=2).save(tmp_path / "n.safetensors")
    assert main(["export", str(tmp_path / "n.safetensors"), "-o", str(tmp_path / "n.nir")]) == 0
    for option in ("--density", "--max-accuracy-drop"):
        capsys.readouterr()
        command = ["import", str(tmp_path / "n.nir"), "--source", "codesign", option, "0.5", "-o", str(tmp_path / "r")]
        assert main(command) == 2 and f"{option}: the integers of" in capsys.readouterr().err


# Pruning ---------------------------------------------------------------------------------------------


def test_the_largest_weights_of_each_layer_stay_and_their_number_is_exact():
    rng = np.random.default_rng(2)
    matrices = [rng.normal(size=(20, 30)) ** 3, rng.normal(size=(30, 10))]
    network = FloatNetwork.from_arrays(matrices, timesteps=3)
    for density in (1.0, 0.7, 0.33, 0.1, 0.01, 2 / 900):
        found = prune(network, density)
        assert sum(found.kept) == round(density * 900) and min(found.kept) >= 1 and found.weights == (600, 300)
        for matrix, layer, kept in zip(matrices, found.network.layers, found.kept, strict=True):
            left = layer.projections[0].connections.dense()
            assert np.count_nonzero(left) == kept and np.array_equal(left[left != 0], matrix[left != 0])
            assert np.abs(matrix[left == 0]).max(initial=0) <= np.abs(left[left != 0]).min()
        assert len(found.changes) == (0 if density == 1 else 2)
    for wrong in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"outside 0\.\.1"):
            prune(network, wrong)
    with pytest.raises(InputError, match="1 of 900 weights are too few for 2 layers"):
        prune(network, 1 / 900)


def test_the_layer_whose_weights_are_less_equal_loses_more():
    """By the first round: all weights but one are small in the one layer, equal in the other."""
    unequal = np.r_[1.0, np.full(99, 0.01)]
    # PQ index with p = 1/2, q = 1: I = 1 - mean(sqrt w)^2 / mean(w); 100 (1 - I) (1.001)^-2 weights are worth keeping.
    index = 1 - np.mean(np.sqrt(unequal)) ** 2 / np.mean(unequal)
    worth = int(np.ceil(100 * (1 - index) / 1.001**2))
    assert shares([np.ones(100), unequal], 100 + worth) == [100, worth]
    assert worth < 70


def test_identities_and_recurrent_weights_are_of_their_layer():
    rng = np.random.default_rng(3)
    skip = Projection.identity(INPUT, (4, 1, 1), 0.001, dtype=np.float64)
    heavy = Projection(INPUT, Synapses.from_dense(rng.normal(size=(4, 4)) * 50, np.float64))
    light = Projection(0, Synapses.from_dense(rng.normal(size=(4, 4)), np.float64))
    layer = FloatLayer.from_projections([skip, light, heavy], shape=(4, 1, 1))
    found = prune(FloatNetwork((layer,), 4), 0.5)
    assert found.weights == (32,) and found.kept == (16,)
    counts = [projection.connections.n_weights for projection in found.network.layers[0].projections]
    assert counts[0] == 4 and counts[1] < counts[2] and counts[1] + counts[2] == 16


def test_a_layer_without_weights_takes_no_density_from_the_trade_off():
    weights = Synapses.from_dense(np.arange(1, 11.0).reshape(5, 2), np.float64)
    one = FloatLayer.from_projections([Projection(INPUT, weights)])
    two = FloatLayer.from_projections([Projection(0, Synapses.from_dense(np.eye(2), np.float64), fixed=True)])
    network = FloatNetwork((one, two), 2, InputCoding("events"), "spike_count")
    assert prune(network, 0.1).kept == (1, 0)
    assert [density for density, _ in at_densities(network, 0.1)] == [1.0, 0.5, 0.25, 0.1]


def test_a_pruned_import_is_measured_against_the_sources_network(tmp_path):
    found = imported(tmp_path, samples(tmp_path, events()), density=0.3)
    document, kept = found.document["pruning"], found.samples
    assert sum(document["kept"]) == round(0.3 * (24 * 12 + 5 * 24)) and kept is not None and found.measured is not None
    assert found.floating is not None and found.floating.layers[0].projections[0].connections.n_weights == 24 * 12
    assert [change.what for change in found.findings.changed].count("pruning") == 2
    rows = document["trade_off"]["rows"]
    assert [row["density"] for row in rows] == [1.0, 0.5, 0.3, 0.25, 0.1, 0.05]
    assert document["trade_off"]["samples"] == 30
    (own,) = [row for row in rows if row["density"] == 0.3]
    assert own["same_decisions"] == found.measured.same_decisions and own["accuracy"] == accuracy(found.frozen, kept)
    assert own["synapses"] == found.frozen.n_synapses
    assert rows[0]["same_decisions"] == imported(tmp_path, tmp_path / "data.npz").measured.same_decisions  # type: ignore[union-attr]
    assert rows[0]["same_decisions"] > rows[-1]["same_decisions"]
    assert imported(tmp_path, None, density=0.3).document["pruning"]["trade_off"] is None


# The command and the report --------------------------------------------------------------------------


def words(page: str) -> str:
    """What the page says, cells and paragraphs between bars."""
    return unescape(re.sub(r"\|+", "|", re.sub(r"\s*<[^>]+>\s*", "|", page)))


def test_the_command_says_what_was_chosen_and_the_report_shows_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(blocks, "to_svg", lambda figure, name, description: f"<svg><title>{description}</title></svg>")
    file, data, run = network_file(tmp_path), samples(tmp_path, events()), tmp_path / "run"
    command = ["import", str(file), *OPTIONS, "--samples", str(data), "-o", str(run)]
    assert main([*command, "--density", "0.5"]) == 0
    shown, document = capsys.readouterr().out, json.loads((run / "import.json").read_text())
    text = words(write_report(run).read_text())
    for line in document["supported"]:
        assert f"|{line}|" in text
    for change in document["changed"]:
        assert f"|{change['where']}|{change['text']}|" in text
    assert "|Unsupported|" in text and "|nothing|" in text
    measured = document["measured"]
    for layer in measured["layers"]:
        row = (layer["layer"], layer["float_spikes"], layer["frozen_spikes"])
        assert f"|{row[0]}|{row[1]:,}|{row[2]:,}|{layer['jaccard']:.3f}|{layer['f1']:.3f}|{layer['lag']}|" in text
    assert f"|decisions the same|{measured['same_decisions']:.1%}|" in text
    assert "On 30 samples; 30 others decided widths." in text
    for name, table in (("bits", document["bit_costs"]), ("density", document["pruning"]["trade_off"])):
        for row in table["rows"]:
            row_text = f"{row['synapses']}|{row['same_decisions']:.1%}|{row['accuracy']:.2%}"
            assert f"|{row[name]:g}|{row_text}|" in text
            assert re.search(rf"{row[name]:g} +{row['synapses']} +{100 * row['same_decisions']:.1f} % ", shown)
    assert "decisions and accuracy over the share of the weights that stays" in text
    assert main([*command, "--max-accuracy-drop", "0.1"]) == 0
    shown, chosen = capsys.readouterr().out, json.loads((run / "import.json").read_text())["bits_chosen"]
    listed = ", ".join(map(str, chosen["bits"]))
    assert f"bits of the weights by layer: {listed}" in shown and "chosen on 30 samples that are not among" in shown
    text = words(write_report(run).read_text())
    assert f"|bits by layer|{listed}|" in text and "30 others decided widths and bits." in text
    # The command that makes it again has what was asked for.
    (run / "network.safetensors").write_bytes(b"x")
    assert main(["generate", str(run)]) == 2 and "--max-accuracy-drop 0.1" in capsys.readouterr().err


def test_an_import_of_another_network_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "to_svg", lambda figure, name, description: "<svg></svg>")
    run = tmp_path / "run"
    command = ["import", str(network_file(tmp_path)), *OPTIONS, "--timesteps", "10", "-o", str(run)]
    assert main(command) == 0
    text = words(write_report(run).read_text())
    assert "From the source's network" in text and "nothing was measured" in text
    document, opened = json.loads((run / "import.json").read_text()), RunDirectory.open(run)
    for changes, line in (({"network_hash": "0"}, "belongs to another network"), ({"supported": 3}, "supported")):
        (run / "import.json").write_text(json.dumps({**document, **changes}))
        opened.record_files(IMPORT, ("network.safetensors", "import.json"), again="import {run}")
        opened.save()
        text = words(write_report(run).read_text())
        assert "From the source" not in text and f"import.json: {line}" in text


# Fine-tuning -----------------------------------------------------------------------------------------


@pytest.fixture
def sorter(monkeypatch):
    """A network that tells five classes apart, in the place of the random one."""

    def file(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        first = np.where(np.arange(24)[:, None] % 5 == np.arange(12) % 5, 3.0, -0.5) + rng.normal(size=(24, 12))
        second = np.where(np.arange(5)[:, None] == np.arange(24) % 5, 3.0, -0.5) + rng.normal(size=(5, 24))
        layers = [node("Linear", weight=first), lif(24, tau=0.004), node("Linear", weight=second), lif(5, tau=0.004)]
        return chain(folder / "net.nir", *layers, n_in=12, n_out=5)

    monkeypatch.setattr(sys.modules[__name__], "network_file", file)


def sorted_events(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Events of five classes, each with inputs of its own that are more active, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 5)
    rates = np.where(np.arange(12) % 5 == labels[:, None], 0.6, 0.15)
    return rng.random((n, 10, 12)) < rates[:, None], labels


def stored(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    np.savez(path, x=x.astype(np.uint8), y=y)
    return path


def test_a_pruned_network_is_fine_tuned_on_samples_that_are_not_reported(tmp_path, sorter):
    x, y = sorted_events(160)
    data, tuner = stored(tmp_path / "data.npz", x, y), FineTuning(6, learning_rate=0.02)
    tuned = imported(tmp_path, data, density=0.1, fine_tune=tuner)
    document, kept = tuned.document, tuned.samples
    assert document["samples"] == {"training": 60, "choosing": 20, "calibration": 80, "reported": 80}
    assert kept is not None and tuned.calibration is not None and tuned.measured is not None
    history, curve = document["fine_tuning"]["history"], document["pruning"]["trade_off"]
    assert len(history) == 7 and document["fine_tuning"]["epoch"] > 0 and curve["samples"] == 80
    (change,) = [change for change in tuned.findings.changed if change.what == "fine-tuning"]
    assert "trained on 60 samples" in change.text and "chosen on 20 others" in change.text
    # Before and after at each density, on the reported samples; the one that was asked for is the network.
    densities = [row["density"] for row in curve["rows"]]
    assert densities == [row["density"] for row in curve["tuned"]] == [1.0, 0.5, 0.25, 0.1, 0.05]
    before, after = (rows[3] for rows in (curve["rows"], curve["tuned"]))
    assert after["accuracy"] == accuracy(tuned.frozen, kept) == tuned.measured.accuracy_frozen
    assert after["synapses"] == tuned.frozen.n_synapses <= round(0.1 * 408)
    assert after["accuracy"] > before["accuracy"] + 0.05
    assert curve["tuned"][4]["accuracy"] > curve["rows"][4]["accuracy"]
    # The pruned network is the one without fine-tuning, and the source's is the same.
    plain = imported(tmp_path, data, density=0.1)
    assert plain.document["pruning"]["trade_off"]["rows"] == curve["rows"]
    assert plain.floating is not None and tuned.floating is not None and plain.floating.hash == tuned.floating.hash
    assert plain.document["samples"]["training"] == 0 and plain.document["fine_tuning"] is None
    # Others in the places that are reported on: the same network.
    x[1::2], y[1::2] = x[1::2][::-1], (y[1::2] + 1) % 5
    other = imported(tmp_path, stored(tmp_path / "other.npz", x, y), density=0.1, fine_tune=tuner)
    assert other.frozen.hash == tuned.frozen.hash
    assert other.measured is not None and other.measured.accuracy_frozen != tuned.measured.accuracy_frozen


def test_samples_to_train_with_may_be_a_file_of_their_own(tmp_path, sorter):
    (x, y), (whole, labels) = sorted_events(40), sorted_events(64, 5)
    data, more = stored(tmp_path / "data.npz", x, y), stored(tmp_path / "training.npz", whole, labels)
    asked: list[tuple[Stimulus, Stimulus]] = []

    def tuner(network, training, validation, progress=None, text=""):
        asked.append((training, validation))
        return network, 0, [{"epoch": 0, "validation_accuracy": 0.5, "validation_loss": 1.0}]

    found = imported(tmp_path, data, fine_tune=tuner, training=more)
    assert found.document["samples"] == {"training": 48, "choosing": 16, "calibration": 20, "reported": 20}
    ((training, validation),) = asked
    assert np.array_equal(validation.dense(), whole[3::4])
    assert np.array_equal(training.dense(), np.delete(whole, np.s_[3::4], axis=0))
    assert found.calibration is not None and np.array_equal(found.calibration.dense(), x[::2])
    # Bits are chosen where the epoch is.
    found = imported(tmp_path, data, fine_tune=tuner, training=more, max_accuracy_drop=0.3)
    assert found.document["bits_chosen"]["samples"] == 16


def test_fine_tuning_without_what_it_takes_is_one_line(tmp_path):
    tuner, data = FineTuning(1), stored(tmp_path / "labelled.npz", *sorted_events(40))
    with pytest.raises(InputError, match="--fine-tune needs --samples with labels"):
        imported(tmp_path, None, fine_tune=tuner)
    with pytest.raises(InputError, match="--training: there is nothing to train; add --fine-tune"):
        imported(tmp_path, data, training=data)
    with pytest.raises(InputError, match="needs a label"):
        imported(tmp_path, samples(tmp_path, events(40), labels=False), fine_tune=tuner)
    with pytest.raises(InputError, match="6 samples are too few to fine-tune with, 8 at least"):
        imported(tmp_path, stored(tmp_path / "few.npz", *sorted_events(6)), fine_tune=tuner)
    np.savez(tmp_path / "other.npz", x=np.zeros((20, 9, 12), np.uint8), y=np.zeros(20, np.int64))
    with pytest.raises(InputError, match=r"other\.npz has 9 timesteps"):
        imported(tmp_path, data, fine_tune=tuner, training=tmp_path / "other.npz")
    # Every second sample of labels that alternate is of one class.
    alternating = stored(tmp_path / "alternating.npz", events(40), np.arange(40) % 2)
    with pytest.raises(InputError, match="no sample of class 1 is among those to train on; shuffle"):
        imported(tmp_path, alternating, fine_tune=tuner)


def test_the_command_fine_tunes_and_the_report_shows_it(tmp_path, capsys, monkeypatch, sorter):
    drawn: list[Any] = []
    monkeypatch.setattr(blocks, "to_svg", lambda figure, name, description: drawn.append(figure) or "<svg></svg>")
    data, run = stored(tmp_path / "data.npz", *sorted_events(120)), tmp_path / "run"
    command = ["import", str(network_file(tmp_path)), *OPTIONS, "--samples", str(data), "-o", str(run)]
    assert main([*command, "--density", "0.25", "--fine-tune", "2", "--training", str(data)]) == 0
    shown, document = capsys.readouterr().out, json.loads((run / "import.json").read_text())
    assert "60 are reported on; 90 others were trained on, 30 chose the epoch" in shown and "and fine-tuned" in shown
    text = words(write_report(run).read_text())
    assert "Fine-tuned before it became integers." in text and "30 chose the epoch, 60 decided widths." in text
    tuned, curve = document["fine_tuning"], document["pruning"]["trade_off"]
    assert f"|epoch chosen|{tuned['epoch']} of 2|" in text
    for before, after in zip(curve["rows"], curve["tuned"], strict=True):
        cells = [f"{row['synapses']}|{row['same_decisions']:.1%}|{row['accuracy']:.2%}" for row in (before, after)]
        assert f"|{before['density']:g}|{cells[0]}|{cells[1]}|" in text
    (axes,) = [axes for figure in drawn for axes in figure.axes if axes.get_xlabel() == "weights that stay"]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines["fine-tuned"]) == [row["accuracy"] for row in curve["tuned"]]
    assert list(lines["pruned only"]) == [row["accuracy"] for row in curve["rows"]]
    (run / "network.safetensors").write_bytes(b"x")
    assert main(["generate", str(run)]) == 2
    line = capsys.readouterr().err
    assert "--fine-tune 2" in line and f"--training {data}" in line
