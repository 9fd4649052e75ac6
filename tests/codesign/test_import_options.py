"""Every option of `codesign import` with every source: it changes what comes out, or one line that names it refuses."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from nir_files import chain, node

from codesign.cli import main
from codesign.cli.app import import_network
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.interchange import hdf5, lava, nodes, own
from codesign.interchange.importing import SOURCES
from codesign.interchange.own import write_nir
from codesign.records.names import IMPORT_REPORT

INPUTS, HIDDEN, CLASSES, TIMESTEPS = 6, 8, 3, 8
# Not of the network: where it comes from, where it goes, and what is shown.
APART = {"file", "source", "output", "samples", "json", "debug"}
# Values, of which at least one is another than what the networks below have.
VALUES: dict[str, tuple[tuple[str, ...], ...]] = {
    "dt": (("--dt", "0.0007"),),
    "reset": (("--reset", "1=none"), ("--reset", "1=zero"), ("--reset", "nobody=zero")),
    "reset_delay": (("--reset-delay",), ("--no-reset-delay",)),
    "compare": (("--compare", ">"), ("--compare", ">=")),
    "readout": (("--readout", "membrane_last"),),
    "timesteps": (("--timesteps", "7"),),
    "input_bits": (("--input-bits", "4"),),
    "integrator": (("--integrator", "euler"), ("--integrator", "exponential")),
    "norm_input": (("--norm-input",), ("--no-norm-input",)),
    "spikes": (("--spikes", "one"), ("--spikes", "several")),
    "weight_bits": (("--weight-bits", "3"),),
    "scale": (("--scale", "layer"),),
    "leak_tolerance": (("--leak-tolerance", "0"),),
    "drop_refractory": (("--drop-refractory",),),
    "max_accuracy_drop": (("--max-accuracy-drop", "0.5"),),
    "density": (("--density", "0.5"),),
    "fine_tune": (("--fine-tune", "1"),),
    "training": (("--training", "data.npz"),),
}
# What each source has to be told at the least.
STATED = {
    "snntorch": ("--reset", "subtract"),
    "norse": ("--reset", "subtract", "--dt", "1e-3"),
    "sinabs": ("--reset", "subtract", "--spikes", "one", "--norm-input"),
    "spikingjelly": ("--reset", "subtract", "--dt", "1e-3"),
    "rockpool": ("--spikes", "one"),
    "raw": ("--reset", "subtract", "--dt", "1e-3", "--integrator", "euler"),
    "lava": (),
    "codesign": (),
    "codesign, in float": (),
}


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch):
    for module in (nodes, lava, own):
        monkeypatch.setattr(module, "read_tree", lambda file, absent="": hdf5.read_tree_here(file))


def neurons(source: str, n: int) -> dict:
    """A LIF node as the source writes it, of a decay near .85."""
    tau, r = {
        "snntorch": (1e-4 / 0.15, 1 / 0.15), "sinabs": (6.2, 1.0), "rockpool": (6.2e-3, 6.2 * np.exp(-1 / 6.2)),
    }.get(source, (6.2e-3, 1.0))  # fmt: skip
    full = {"tau": tau, "r": r, "v_threshold": 0.6, "v_leak": 0.0, "v_reset": 0.0}
    return node("LIF", **{name: np.full(n, value) for name, value in full.items()})


def matrices() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(HIDDEN, INPUTS)) * 2, rng.normal(size=(CLASSES, HIDDEN)) * 2]


def network_file(folder: Path, source: str) -> Path:
    first, second = matrices()
    if source == "lava":
        file = folder / "tiny.net"
        with h5py.File(file, "w") as opened:
            opened["layer/0/type"], opened["layer/0/shape"] = np.array([b"input"]), np.array([INPUTS])
            for index, weight in enumerate((first, second), 1):
                opened[f"layer/{index}/type"] = np.array([b"dense"])
                opened[f"layer/{index}/weight"] = np.round(20 * weight).astype(np.float32)
                constants = {"iDecay": 4096, "vDecay": 600, "vThMant": 25, "refDelay": 1, "wgtExp": 0}
                for key, number in constants.items():
                    opened[f"layer/{index}/neuron/{key}"] = number
                opened[f"layer/{index}/neuron/type"] = "LOIHI"
        return file
    file = folder / "net.nir"
    if source == "codesign":
        whole = [np.round(5 * weight.T).astype(int) for weight in (first, second)]
        write_nir(FrozenNetwork.from_arrays(whole, threshold=9, timesteps=TIMESTEPS), file)
    elif source.startswith("codesign"):
        write_nir(FloatNetwork.from_arrays([first.T, second.T], timesteps=TIMESTEPS, decay=0.847), file)
    else:
        layers = [node("Linear", weight=first), neurons(source, HIDDEN)]
        layers += [node("Linear", weight=second), neurons(source, CLASSES)]
        chain(file, *layers, n_in=INPUTS, n_out=CLASSES)
    return file


def result(folder: Path, arguments: list[str]) -> tuple[int, object]:
    """The exit code, and what came out but for what was asked for; or the line."""
    code = main(["import", *arguments, "-o", str(folder / "run"), "--json"])
    if code:
        return code, ""
    document = json.loads((folder / "run" / IMPORT_REPORT).read_text())
    return code, {name: value for name, value in document.items() if name not in ("file", "sha256", "options")}


def test_the_tables_have_every_option_and_every_source():
    assert set(VALUES) == set(inspect.signature(import_network).parameters) - APART
    assert {name.partition(",")[0] for name in STATED} == set(SOURCES)


# The others take a minute together.
DEFAULT = ("snntorch", "lava", "codesign")


@pytest.mark.parametrize(
    "source", [source if source in DEFAULT else pytest.param(source, marks=pytest.mark.deep) for source in STATED]
)
def test_no_option_is_accepted_and_ignored(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    samples = Stimulus.from_dense(rng.random((32, TIMESTEPS, INPUTS)) < 0.5, rng.permutation(np.arange(32) % CLASSES))
    samples.save("data.npz")
    base = [str(network_file(tmp_path, source)), "--source", source.partition(",")[0], "--samples", "data.npz"]
    base += [] if source.startswith("codesign") else ["--readout", "spike_count"]
    base += STATED[source]
    code, plain = result(tmp_path, base)
    assert code == 0, capsys.readouterr().err
    ignored = []
    for name, values in VALUES.items():
        matters = False
        for value in values:
            if value[0] == "--dt" and source == "sinabs":
                # Whose unit of time is a timestep.
                value = ("--dt", "0.9")
            capsys.readouterr()
            code, found = result(tmp_path, [*base, *value])
            if code:
                error = json.loads(capsys.readouterr().out)["error"]
                named = f"--{name.replace('_', '-')}" in error or name.replace("_", " ") in error
                assert code in (2, 3) and "\n" not in error and named, (value, error)
            matters |= bool(code) or found != plain
        if not matters:
            ignored.append(name)
    assert not ignored
