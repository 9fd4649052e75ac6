"""`codesign import`: the run directory that it makes, what it says, and how the other commands go on from it."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from nir_files import chain, lif, node, port, write_nir

from codesign.basics.errors import InputError, UnsupportedError
from codesign.cli import main
from codesign.config import parse_config
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.interchange.facts import Facts
from codesign.interchange.importing import import_file, read_samples
from codesign.interchange.measure import LAGS, measure, overlaps
from codesign.interchange.own import write_nir as write_own
from codesign.quantise.integers import quantise
from codesign.train.architecture import plan_layers
from sim.bundle import read_sidecar

FACTS = ["--source", "norse", "--dt", "1e-3", "--reset", "subtract", "--readout", "spike_count"]


def small(folder: Path, seed: int = 0) -> Path:
    """Two populations of Norse's, 12 inputs, 5 classes."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(16, 12)) * 2, rng.normal(size=(5, 16)) * 2
    nodes = [
        node("Affine", weight=weights[0], bias=rng.normal(size=16) * 0.2), lif(16, tau=0.004),
        node("Linear", weight=weights[1]), lif(5, tau=0.004),
    ]  # fmt: skip
    return chain(folder / "net.nir", *nodes, n_in=12, n_out=5)


def samples(folder: Path, n: int = 30, timesteps: int = 10, n_in: int = 12) -> Path:
    rng = np.random.default_rng(1)
    path = folder / "data.npz"
    np.savez(path, x=rng.integers(0, 2, (n, timesteps, n_in)), y=rng.integers(0, 5, n))
    return path


def call(capsys, *arguments) -> tuple[int, dict, str]:
    code = main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_an_import_is_a_run_that_other_commands_go_on_from(tmp_path, capsys):
    file, data, run = small(tmp_path), samples(tmp_path), tmp_path / "run"
    code, document, _ = call(capsys, "import", file, *FACTS, "--samples", data, "-o", run)
    assert code == 0 and document["run"] == str(run)
    assert json.loads((run / "import.json").read_text()) == {k: v for k, v in document.items() if k != "run"}
    frozen, exact = FrozenNetwork.load(run / "network.safetensors"), FloatNetwork.load(run / "float.safetensors")
    assert document["network_hash"] == frozen.hash and exact.timesteps == frozen.timesteps == 10
    assert len(Stimulus.load(run / "stimulus.npz")) == len(Stimulus.load(run / "calibration.npz")) == 15
    assert [entry["layer"] for entry in document["measured"]["layers"]] == ["1", "3"]
    assert document["measured"]["accuracy_frozen"] is not None and document["unsupported"] == []
    assert all(entry["jaccard"] > 0.8 for entry in document["measured"]["layers"])
    assert call(capsys, "estimate", run)[1]["cycles"]
    assert call(capsys, "generate", run, "--set", "hardware.lanes=2")[0] == 0
    assert (run / "bundle/design.json").is_file()
    # What is altered is refused, with the command that makes it again.
    (run / "network.safetensors").write_bytes(b"x")
    code, document, _ = call(capsys, "generate", run)
    assert (
        code == 2 and f"codesign import {file} --source norse" in document["error"] and f"-o {run}" in document["error"]
    )
    again = shlex.split(document["error"].split("`codesign ")[1].rstrip("`"))
    assert call(capsys, *again)[0] == 0
    assert FrozenNetwork.load(run / "network.safetensors").hash == frozen.hash


@pytest.mark.hardware
def test_an_imported_network_is_verified_in_hardware(tmp_path, capsys):
    run = tmp_path / "run"
    assert call(capsys, "import", small(tmp_path), *FACTS, "--samples", samples(tmp_path, 12), "-o", run)[0] == 0
    assert call(capsys, "generate", run)[0] == 0
    code, document, err = call(capsys, "verify", run)
    assert code == 0, err
    assert document["figures"]["mismatches"] == 0 and document["figures"]["samples_verified"] == 6


def test_without_samples_nothing_is_measured_and_it_says_so(tmp_path, capsys):
    code, document, _ = call(capsys, "import", small(tmp_path), *FACTS, "--timesteps", 8, "-o", tmp_path / "run")
    assert code == 0 and document["measured"] is None and "nothing was measured" in document["note"]
    assert not (tmp_path / "run/stimulus.npz").exists()
    assert main(["import", str(small(tmp_path)), *FACTS, "--timesteps", "8", "-o", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    for words in ("supported", "changed", "unsupported", "nothing was measured", "goes on"):
        assert words in out


def test_another_import_into_the_folder_leaves_nothing_of_the_one_before(tmp_path, capsys):
    run = tmp_path / "run"
    assert call(capsys, "import", small(tmp_path), *FACTS, "--samples", samples(tmp_path), "-o", run)[0] == 0
    assert call(capsys, "import", small(tmp_path, 2), *FACTS, "--timesteps", 8, "-o", run)[0] == 0
    assert not (run / "stimulus.npz").exists() and not (run / "calibration.npz").exists()
    other = tmp_path / "other.safetensors"
    FrozenNetwork.load(run / "network.safetensors").save(other)
    assert call(capsys, "generate", other, "-o", run)[0] == 0
    assert not (run / "float.safetensors").exists() and not (run / "import.json").exists()


def test_an_import_does_not_take_the_place_of_a_training(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "letter.txt").write_text("dear")
    code, document, _ = call(capsys, "import", small(tmp_path), *FACTS, "--timesteps", 8, "-o", run)
    assert code == 7 and "not empty" in document["error"]


def test_names_of_nodes_do_not_steer_the_terminal(tmp_path, capsys):
    rng = np.random.default_rng(3)
    nodes = {
        "in": port("Input", 2), "w": node("Linear", weight=rng.normal(size=(2, 2))),
        "[bold]\x1b[31m]": lif(2, tau=0.004), "out": port("Output", 2),
    }  # fmt: skip
    names = list(nodes)
    file = write_nir(tmp_path / "n.nir", nodes, list(pairwise(names)))
    assert main(["import", str(file), *FACTS, "--timesteps", "8", "-o", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[bold] [31m]" in out


def test_a_network_that_hardware_does_not_cover_goes_on_in_the_report(tmp_path, capsys):
    nodes = {
        "in": port("Input", 2), "w": node("Linear", weight=np.eye(2)), "n": lif(2, tau=0.004),
        "r": node("Linear", weight=np.eye(2) / 2), "out": port("Output", 2),
    }  # fmt: skip
    edges = [("in", "w"), ("w", "n"), ("n", "r"), ("r", "n"), ("n", "out")]
    file, run = write_nir(tmp_path / "n.nir", nodes, edges), tmp_path / "run"
    assert main(["import", str(file), *FACTS, "--timesteps", "8", "--input-bits", "4", "-o", str(run)]) == 0
    out = capsys.readouterr().out
    assert "does not cover events beside input currents" in out and "codesign generate" not in out
    assert out.splitlines()[-1] == f"{run}: `codesign report {run}` shows it"
    assert main(["report", str(run)]) == 0


def test_samples_are_a_stimulus_or_events_with_labels(tmp_path):
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 2, (6, 5, 2, 3, 3)), rng.integers(0, 4, 6)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    found = read_samples(tmp_path / "x.npz")
    assert np.array_equal(found.dense(), x.reshape(6, 5, 18)) and found.labels.tolist() == y.tolist()
    found.save(tmp_path / "s.npz")
    assert np.array_equal(read_samples(tmp_path / "s.npz").dense(), found.dense())
    np.savez(tmp_path / "f.npz", x=x.astype(np.float32))
    assert np.array_equal(read_samples(tmp_path / "f.npz").dense(), found.dense())
    for arrays, line in (
        ({"x": x * 2}, "hold 2, expected booleans"),
        ({"x": x * 0.5}, "other values than 0 and 1"),
        ({"x": x[0, 0, 0]}, "expected \\(samples, timesteps"),
        ({"x": x, "y": y[:3]}, "y has the shape"),
        ({"z": x}, "not a stimulus file"),
    ):
        np.savez(tmp_path / "w.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=line):
            read_samples(tmp_path / "w.npz")
    with pytest.raises(InputError, match="leave --input-bits out"):
        read_samples(tmp_path / "s.npz", 4)
    with pytest.raises(UnsupportedError, match="write a stimulus"):
        read_samples(tmp_path / "x.npz", 4)


def test_samples_that_do_not_fit_the_network_are_refused(tmp_path):
    facts = Facts(dt=1e-3, reset="subtract", readout="spike_count")
    with pytest.raises(InputError, match="samples have 7 inputs, the network 12"):
        import_file(small(tmp_path), "norse", facts, samples(tmp_path, n_in=7))
    with pytest.raises(InputError, match=r"--timesteps 9, but .* has 10"):
        import_file(small(tmp_path), "norse", Facts(dt=1e-3, timesteps=9), samples(tmp_path))


@pytest.mark.parametrize("label", [5, 2**31 - 1])
def test_labels_beyond_the_classes_are_refused_wherever_they_are(label, tmp_path):
    data = samples(tmp_path)
    arrays = dict(np.load(data))
    write_own(FrozenNetwork.from_arrays([np.ones((12, 5), int)], threshold=4, timesteps=10), tmp_path / "own.nir")
    facts = Facts(dt=1e-3, reset="subtract", readout="spike_count")
    # The first one chooses, the second one is reported on.
    for place in (0, 1):
        y = arrays["y"].copy()
        y[place] = label
        Stimulus.from_dense(arrays["x"], y).save(data)
        for file, source, given in ((small(tmp_path), "norse", facts), (tmp_path / "own.nir", "codesign", Facts())):
            with pytest.raises(InputError, match=rf"data\.npz: label {label} is outside -1\.\.4"):
                import_file(file, source, given, data)


def test_input_currents_are_whole_numbers_that_stand_for_0_to_1(tmp_path):
    rng = np.random.default_rng(5)
    values = rng.integers(0, 16, (20, 12)).astype(np.uint8)
    Stimulus(12, 6, rng.integers(0, 5, 20).astype(np.int32), values=values).save(tmp_path / "s.npz")
    facts = Facts(dt=1e-3, reset="subtract", readout="spike_count", input_bits=4)
    found = import_file(small(tmp_path), "norse", facts, tmp_path / "s.npz")
    assert found.frozen.coding.is_current and found.measured is not None
    assert all(layer.jaccard > 0.8 for layer in found.measured.layers)


def test_several_spikes_a_timestep_are_clamped_and_the_loss_is_counted(tmp_path):
    rng = np.random.default_rng(6)
    neuron = node("IF", r=np.ones(5), v_threshold=np.ones(5))
    file = chain(tmp_path / "m.nir", node("Linear", weight=rng.normal(size=(5, 12)) + 1), neuron, n_in=12, n_out=5)
    facts = Facts(reset="subtract", readout="spike_count", spikes="several")
    found = import_file(file, "sinabs", facts, samples(tmp_path))
    (change,) = [change for change in found.findings.changed if change.what == "spikes"]
    assert change.amount is not None and 0.5 < change.amount < 1 and "second ones" in change.text
    assert found.measured is not None and found.measured.clamped is not None
    beyond, total = found.measured.clamped
    assert change.amount == beyond / total
    one = import_file(file, "sinabs", Facts(reset="subtract", readout="spike_count", spikes="one"), samples(tmp_path))
    assert not [change for change in one.findings.changed if change.what == "spikes"]


# Agreement -------------------------------------------------------------------------------------------


def test_the_lag_that_fits_best_is_found():
    rng = np.random.default_rng(7)
    ours = rng.random((4, 30, 6)) < 0.2
    for lag in (-2, 0, 1, 3):
        theirs = np.roll(ours, lag, axis=1)
        rows = overlaps(ours, theirs)
        scores = rows[:, 0] / (rows[:, 1] + rows[:, 2] - rows[:, 0])
        assert LAGS[int(np.argmax(scores))] == lag


def test_spikes_of_neurons_that_are_left_out_count_at_every_lag():
    rng = np.random.default_rng(9)
    ours = rng.random((2, 40, 5)) < 0.3
    kept = np.array([0, 3])
    alone = overlaps(ours[..., kept], ours[..., kept])
    rows = overlaps(ours, ours[..., kept], kept)
    for row, (both, one, other), lag in zip(rows, alone, LAGS, strict=True):
        left_out = ours[:, max(0, -lag) : 40 - max(0, lag)][..., [1, 2, 4]].sum()
        assert row.tolist() == [both, one + left_out, other]


def test_neurons_that_lead_nowhere_are_left_out_and_the_others_compared(tmp_path):
    rng = np.random.default_rng(8)
    last = rng.normal(size=(5, 16)) * 2
    last[:, [0, 3, 9]] = 0
    nodes = [
        node("Linear", weight=rng.normal(size=(16, 12)) * 2), lif(16, tau=0.004), node("Linear", weight=last),
        lif(5, tau=0.004),
    ]  # fmt: skip
    file = chain(tmp_path / "dead.nir", *nodes, n_in=12, n_out=5)
    found = import_file(file, "norse", Facts(dt=1e-3, reset="zero", readout="spike_count"), samples(tmp_path))
    (change,) = [change for change in found.findings.changed if change.what == "dead code"]
    assert change.amount == 3 and found.frozen.layers[0].n_out == 13 and found.measured is not None
    assert found.measured.layers[1].jaccard > 0.9


def test_agreement_is_one_of_a_network_with_itself_and_less_of_another(tmp_path):
    facts = Facts(dt=1e-3, reset="subtract", readout="spike_count")
    found = import_file(small(tmp_path), "norse", facts, samples(tmp_path), weight_bits=8)
    assert found.floating is not None and found.samples is not None
    coarse = measure(found.floating, quantise(found.floating, weight_bits=2).network, found.samples)
    fine = measure(found.floating, found.frozen, found.samples)
    assert all(a.jaccard > 0.9 > 0.8 > b.jaccard for a, b in zip(fine.layers, coarse.layers, strict=True))
    silent = overlaps(np.zeros((1, 8, 2), bool), np.zeros((1, 8, 2), bool))
    assert silent.sum() == 0


def test_hardware_of_a_network_from_elsewhere_is_asked_by_its_own_layers(tmp_path: Path, capsys) -> None:
    """Not by those of the default configuration, which has two."""
    weights = [np.eye(3, dtype=int) * 5, np.eye(3, dtype=int) * 5, np.eye(3, dtype=int) * 5]
    FrozenNetwork.from_arrays(weights, threshold=4, timesteps=2).save(tmp_path / "net.safetensors")
    made = ["generate", str(tmp_path / "net.safetensors"), "-o", str(tmp_path / "run")]
    assert main([*made, "--set", "hardware.lanes=[1,2,1]"]) == 0
    assert main(["generate", str(tmp_path / "run"), "--set", "hardware.lanes=[3,2,1]"]) == 0
    assert read_sidecar(tmp_path / "run" / "bundle").layers[0].lanes == 3
    capsys.readouterr()
    assert main(["generate", str(tmp_path / "run"), "--set", "hardware.lanes=[3,2]"]) == 2
    assert "hardware.lanes has 2 entries for 3 layers" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "run")]) == 2


def test_a_configuration_of_a_network_from_elsewhere_is_not_trained() -> None:
    config = parse_config({"network": {"elsewhere": {"layers": 3, "plain": False}}})
    assert config.network.n_layers == 3 and not config.network.is_plain_chain
    with pytest.raises(InputError, match=r"network\.elsewhere: this network comes from elsewhere"):
        plan_layers(config.network, (4,), 2)
