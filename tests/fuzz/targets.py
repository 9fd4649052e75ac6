"""What is damaged, and the command that then reads it.

A target copies what its command needs into a folder of the case, damages one file there and says which command line
reads it. Targets marked ``reader`` call the function that reads instead of the command that calls it, where the command
would spend a second on what is not read: the line and the exit code come from the command line's own code all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import mutations

CONFIG = """
[network]
hidden = [6]
timesteps = 2
[train]
epochs = 2
threads = 1
[train.rewiring]
target_density = 0.3
epochs_per_iteration = 1
[freeze]
epochs = 1
[verify]
samples = 4
stress_samples = 2
"""

SPACE = """
seed = 1
batch = 2
device = "icebreaker"
constraints = ["fits icebreaker", "accuracy >= 0.5"]
objectives = {accuracy = "maximise", latency_us = "minimise"}
budget = {networks = 3}
[base.network]
hidden = [6]
[axes]
"train.rewiring.target_density" = {low = 0.1, high = 0.4, log = true}
"freeze.weight_bits" = {low = 3, high = 5}
"network.timesteps" = [2, 4]
"hardware.lanes" = [1, 2]
"""


@dataclass(frozen=True)
class Target:
    """A kind of case.

    files : what may be damaged, relative to the prepared folder, and its form (:data:`tests.fuzz.mutations.FORMS`).
    needs : files and folders that the case's folder holds beside them.
    arguments : the command line, ``{case}`` being the case's folder and ``{file}`` the damaged file. Or a function of
        these two paths that reads.
    weight : share of the cases. deep : left out of the bounded run.
    """

    name: str
    files: dict[str, str]
    arguments: tuple[str, ...] | Callable[[Path, Path], Any]
    needs: tuple[str, ...] = ()
    weight: float = 1.0
    deep: bool = False


def prepare(folder: Path) -> None:
    """Make what is damaged: a trained, generated, verified run, a loadable machine, data of one's own."""
    from codesign.cli import main

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(CONFIG)
    run = str(folder / "run")
    commands = [
        ["train", str(folder / "tiny.toml"), "-o", run],
        ["freeze", run],
        ["generate", f"{run}/network.safetensors", "-o", str(folder / "machine"), "--set", "hardware.loadable=true"],
        ["generate", run],
        ["estimate", run],
        ["verify", run],
    ]
    for command in commands:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main(command)
        if code:
            raise RuntimeError(f"codesign {' '.join(command)} ended with {code}")
    rng = np.random.default_rng(0)
    np.savez(folder / "mine.npz", x=rng.integers(0, 17, (5, 64)) / 16 * 1.0, y=rng.integers(0, 10, 5))
    labels = np.arange(40) % 4
    pictures = rng.integers(0, 256, (40, 4, 4), np.uint8)
    np.savez(folder / "pictures.npz", x=pictures, y=labels, range=np.array([0, 255]), split=np.arange(40) % 3)
    times, units = np.sort(rng.random(400) * 50), rng.integers(0, 8, 400)
    np.savez(folder / "events.npz", times=times, units=units, offsets=np.arange(0, 401, 10), y=labels)
    _write_networks_of_others(folder)
    _write_study(folder)
    _write_documents(folder / "run")
    _write_terms(folder)


def _write_study(folder: Path) -> None:
    """A study that has sampled three networks and knows what two came to."""
    from codesign.basics.progress import silent
    from codesign.explore.sampling import Trials
    from codesign.explore.space import load_space
    from codesign.explore.study import Study, claim

    (folder / "space.toml").write_text(SPACE)
    space = load_space(folder / "space.toml")
    claim(folder / "study", space)
    Study(space, folder / "study", None, "cpu", silent).write()
    trials = Trials(space, folder / "study")
    trials.next(2)
    trials.tell(0, [0.9, 3.0], {"fits icebreaker": -0.5, "accuracy >= 0.5": -0.8})
    trials.tell(1, None)
    trials.next(3)


def _write_terms(folder: Path) -> None:
    """The run's network with a synaptic current and a rest, in a file of the version that has keys for all terms."""
    from codesign.contract.network import FrozenNetwork, Leak

    network = FrozenNetwork.load(folder / NETWORK)
    first = network.layers[0]
    leak = Leak("multiply", 4, np.arange(first.n_out, dtype=np.int64) % 17)
    terms = replace(first, refractory=2, current_leak=leak, current_width=12)
    (folder / TERMS).parent.mkdir(parents=True)
    network.with_layers([terms, *network.layers[1:]]).save(folder / TERMS)


def _write_networks_of_others(folder: Path) -> None:
    """A NIR file, a file of lava-dl and a float network, as small as they may be."""
    import h5py

    from codesign.interchange.facts import Facts
    from codesign.interchange.importing import import_file
    from tests.nir_files import chain, lif, node

    rng = np.random.default_rng(0)
    affine = node("Affine", weight=rng.normal(size=(3, 4)), bias=rng.normal(size=3))
    nir = chain(folder / "net.nir", affine, lif(3, tau=0.004), n_in=4, n_out=3)
    facts = Facts(dt=1e-3, reset="zero", readout="spike_count", timesteps=3)
    found = import_file(nir, "norse", facts).floating
    assert found is not None
    found.save(folder / "float.safetensors")
    with h5py.File(folder / "net.net", "w") as file:
        file["layer/0/type"], file["layer/0/shape"] = np.array([b"input"]), np.array([4])
        file["layer/1/type"], file["layer/1/weight"] = np.array([b"dense"]), rng.integers(-9, 9, (3, 4)).astype("f4")
        for name, value in (("iDecay", 4096), ("vDecay", 1024), ("vThMant", 25), ("refDelay", 1), ("wgtExp", 0)):
            file[f"layer/1/neuron/{name}"] = value
        file["layer/1/neuron/type"] = "LOIHI"


def _write_documents(run: Path) -> None:
    """Results of stages that need the FPGA tools, as they write them, for the report to read."""
    from codesign.contract.network import FrozenNetwork

    digest = FrozenNetwork.load(run / "network.safetensors").hash
    cells = {"lut": 120.0, "ff": 80.0, "bram": 2.0, "dsp": 0.0, "lut_cells": 118.0}
    placed = {
        "lut": 120, "ff": 80, "bram": 2, "dsp": 0, "fmax_mhz": 71.5, "seeds": {"1": 71.5}, "reason": None,
        "device": "25k", "speed_grade": "6", "package": "CABGA381",
    }  # fmt: skip
    synthesis = {"network_hash": digest, "area": {"ecp5": cells}, "placed": {"ecp5-25f": placed}}
    build = {
        "network_hash": digest, "board": "ulx3s-25f", "device": "LFE5U-25F", "used": {"lut": 130.0, "bram": 2.0},
        "budget": {"lut": 24288.0, "bram": 56.0}, "bitstream": "top.bit", "bitstream_sha256": "0" * 64,
        "clock_mhz": 25.0, "fmax_mhz": 70.0,
    }  # fmt: skip
    mutants = {
        "mutants": [{"name": "a", "kind": "rtl", "caught": True, "first_divergence": None, "error": None}],
        "control": {"name": "unmutated", "caught": False, "error": None}, "caught": 1, "total": 1,
    }  # fmt: skip
    for name, document in (
        ("synth/synth.json", synthesis),
        ("build/ulx3s-25f/build.json", build),
        ("verify/mutants.json", mutants),
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(json.dumps(document))


# Readers -----------------------------------------------------------------------------------------------


def _network(case: Path, file: Path) -> None:
    from codesign.contract.network import FrozenNetwork

    network = FrozenNetwork.load(file)
    network.save(case / "again")
    if FrozenNetwork.load(case / "again").hash != network.hash:
        raise AssertionError("what was loaded is saved as something else")


def _float_network(case: Path, file: Path) -> None:
    from codesign.contract.floating import FloatNetwork
    from codesign.quantise.integers import quantise

    network = FloatNetwork.load(file)
    network.save(case / "again")
    if FloatNetwork.load(case / "again").hash != network.hash:
        raise AssertionError("what was loaded is saved as something else")
    quantise(network)


def _stimulus(case: Path, file: Path) -> None:
    from codesign.contract.stimulus import Stimulus

    stimulus = Stimulus.load(file)
    stimulus.take(slice(0, 2))
    if not stimulus.is_current:
        stimulus.events(0, 0)


def _checkpoint(case: Path, file: Path) -> None:
    from codesign.train import checkpoint

    checkpoint.load(file)


def _configuration(case: Path, file: Path) -> None:
    from codesign.config import load_config
    from codesign.config.text import config_toml

    config = load_config(file)
    (case / "again.toml").write_text(config_toml(config), encoding="utf-8")
    if load_config(case / "again.toml") != config:
        raise AssertionError("the configuration written is another one")


def _space(case: Path, file: Path) -> None:
    from codesign.explore.space import load_space, parse_space

    space = load_space(file)
    document = {**space.file.model_dump(), "base": dict(space.base)}
    if parse_space(document).document != space.document:
        raise AssertionError("the space that was read is another one")


def _study(case: Path, file: Path) -> None:
    from codesign.explore.sampling import Trials
    from codesign.explore.space import load_space
    from codesign.explore.study import claim

    space = load_space(case / "space.toml")
    claim(case / "study", space)
    trials = Trials(space, case / "study")
    for trial in trials.next(4):
        trials.tell(trial.number, [0.8, 2.0], {"fits icebreaker": 0.5, "accuracy >= 0.5": -0.1})


def _data(case: Path, file: Path) -> None:
    from codesign.config import DataConfig
    from codesign.data import load_dataset
    from codesign.data.encoders import encode

    for coding in ("current", "rate") if file.name == "pictures.npz" else ("events",):
        config = DataConfig.model_validate(
            {"set": "npz", "path": str(file), "coding": coding, "validation": 4, "test": 4}
        )
        dataset = load_dataset(config)
        for split in (dataset.train, dataset.validation, dataset.test):
            stimulus, _ = encode(dataset, split, config, 3)
            stimulus.validate()


def _sidecar(case: Path, file: Path) -> None:
    from codesign.contract.network import FrozenNetwork
    from sim.bundle import altered_files, read_sidecar
    from sim.decoder import compare_decoded
    from sim.harness import testbench_source

    bundle = case / "run" / "bundle"
    sidecar = read_sidecar(bundle)
    altered_files(bundle, sidecar)
    compare_decoded(bundle, FrozenNetwork.load(case / "run" / "network.safetensors"))
    testbench_source(sidecar)


def _collected(case: Path, file: Path) -> None:
    """What the report reads, without drawing it."""
    from codesign.report.collect import collect

    record = collect(case / "run")
    if record.decisions is None or len(record.decisions) != len(record.stimulus or ()):
        raise AssertionError("the decisions are not those of the samples")


def _report(case: Path, file: Path) -> None:
    """The whole report but the drawing of its pictures as text."""
    from codesign.report import blocks, write_report

    kept = blocks.to_svg
    blocks.to_svg = lambda *_: "<svg/>"
    try:
        write_report(case / "run")
    finally:
        blocks.to_svg = kept


RUN = ("run",)
NETWORK = "run/network.safetensors"
TERMS = "terms/network.safetensors"
SIDECAR = "run/bundle/design.json"
COLLECTED = {
    "run/decisions.npz": "npz",
    "run/verify/observed.npz": "npz",
    "run/verify/verification.json": "json",
    "run/verify/mutants.json": "json",
    "run/estimate.json": "json",
    "run/synth/synth.json": "json",
    "run/build/ulx3s-25f/build.json": "json",
    "run/metrics.jsonl": "json lines",
}
"""What the report reads and no other command."""
CHECKPOINTS = {f"run/checkpoints/{name}.safetensors": "safetensors" for name in ("last", "best", "iteration-001")}

IMPORTED = ("--readout", "spike_count", "--timesteps", "3", "-o", "{case}/out", "--json")
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("network", {NETWORK: "safetensors"}, _network, weight=6),
        Target("network estimate", {NETWORK: "safetensors"}, ("estimate", "{file}", "--json"), weight=3),
        Target("network generate", {NETWORK: "safetensors"}, ("generate", "{file}", "-o", "{case}/out"), weight=0.3),
        Target("network load", {NETWORK: "safetensors"},
               ("load", "{file}", "{case}/machine/bundle", "-o", "{case}/out.bin"), needs=("machine",)),
        Target("network with terms", {TERMS: "safetensors"}, _network, weight=2),
        Target("network with terms estimate", {TERMS: "safetensors"}, ("estimate", "{file}", "--json")),
        Target("nir", {"net.nir": "bytes"},
               ("import", "{file}", "--source", "norse", "--dt", "1e-3", "--reset", "zero", *IMPORTED), weight=0.6),
        Target("lava", {"net.net": "bytes"}, ("import", "{file}", "--source", "lava", *IMPORTED), weight=0.4),
        Target("float network", {"float.safetensors": "safetensors"}, _float_network, weight=2),
        Target("stimulus", {"run/stimulus.npz": "npz"}, _stimulus, weight=4),
        Target("stimulus verify", {"run/stimulus.npz": "npz"},
               ("verify", "{case}/run", "--json"), RUN, 0.05, deep=True),
        Target("calibration", {"run/calibration.npz": "npz"}, ("estimate", "{case}/run", "--json"), RUN, 2),
        Target("collected", COLLECTED, _collected, RUN, 6),
        Target("report", COLLECTED, _report, RUN, 0.3),
        Target("metrics resume", {"run/metrics.jsonl": "json lines"}, ("train", "{case}/run", "--json"), RUN, 0.5),
        Target("manifest estimate", {"run/manifest.json": "json"}, ("estimate", "{case}/run", "--json"), RUN, 2),
        Target("manifest generate", {"run/manifest.json": "json"}, ("generate", "{case}/run"), RUN, 0.1, deep=True),
        Target("manifest report", {"run/manifest.json": "json"}, _report, RUN, 0.15),
        Target("manifest predict", {"run/manifest.json": "json"},
               ("predict", "{case}/run", "{case}/mine.npz", "--json"), ("run", "mine.npz"), 1),
        Target("sidecar", {SIDECAR: "json"}, _sidecar, RUN, 6),
        Target("sidecar verify", {SIDECAR: "json"}, ("verify", "{case}/run/bundle"), RUN, 0.05, deep=True),
        Target("sidecar synth", {SIDECAR: "json"},
               ("synth", "{case}/run/bundle", "--set", "synth.families=[]", "--set", "synth.fmax=[]"), RUN, 0.2,
               deep=True),
        Target("sidecar load", {"machine/bundle/design.json": "json"},
               ("load", f"{{case}}/{NETWORK}", "{case}/machine/bundle", "-o", "{case}/out.bin"),
               ("machine", NETWORK), 2),
        Target("images", {"run/bundle/images/*.mem": "text"}, _sidecar, RUN, 2),
        Target("verilog", {"run/bundle/*.v": "text"}, ("verify", "{case}/run/bundle"), RUN, 0.03, deep=True),
        Target("checkpoints", CHECKPOINTS, _checkpoint, weight=2),
        Target("checkpoints freeze", CHECKPOINTS, ("freeze", "{case}/run", "--json"), RUN, 0.5),
        Target("checkpoints resume", CHECKPOINTS, ("train", "{case}/run", "--json"), RUN, 0.5),
        Target("space", {"space.toml": "toml"}, _space, weight=2),
        Target("study", {"study/explore.json": "json", "study/trials.journal": "json lines"}, _study,
               ("space.toml", "study"), 2),
        Target("configuration", {"run/config.toml": "toml", "tiny.toml": "toml"}, _configuration, weight=8),
        Target("configuration estimate", {"run/config.toml": "toml"}, ("estimate", "{case}/run", "--json"), RUN, 2),
        Target("overrides", {"run/config.toml": "overrides"},
               ("estimate", f"{{case}}/{NETWORK}", "--json", "--set", "{override}"), (NETWORK,), 4),
        Target("own data", {"pictures.npz": "npz", "events.npz": "npz"}, _data, weight=4),
        Target("predicted data", {"mine.npz": "npz"}, ("predict", "{case}/run", "{file}", "--json"), RUN, 2),
    )
}  # fmt: skip


def _restamp(run: Path, file: Path) -> None:
    """Make the manifest state the hash of a file that was damaged, as if a stage had left it so."""
    manifest = run / "manifest.json"
    if file == manifest:
        return
    document = json.loads(mutations.without_checksum(manifest.read_bytes(), "json"))
    name = file.relative_to(run).as_posix()
    for record in document["stages"].values():
        for hashes in (record.get("inputs", {}), record.get("outputs", {})):
            if name in hashes:
                hashes[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))


@dataclass(frozen=True)
class Case:
    """One damaged file, and the command line or the function that reads it."""

    target: Target
    index: int | None
    label: str
    file: Path
    arguments: list[str] | Callable[[], Any]


def make_case(prepared: Path, folder: Path, target: Target, seed: int, index: int | None) -> Case:
    """Lay out case ``index`` of a target in an empty ``folder``; None is the file as it is."""
    rng = np.random.default_rng([seed, *target.name.encode(), index or 0])
    found = [
        (path.relative_to(prepared).as_posix(), form)
        for pattern, form in target.files.items()
        for path in sorted(prepared.glob(pattern))
    ]
    name, form = found[int(rng.integers(len(found)))]
    for need in dict.fromkeys((*target.needs, name)):
        source, copy = prepared / need, folder / need
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, copy) if source.is_dir() else shutil.copyfile(source, copy)
    file, override = folder / name, ""
    if form == "overrides":
        override = label = mutations.overrides(file.read_bytes(), rng) if index is not None else "train.epochs=2"
    elif index is None:
        label = "undamaged"
    else:
        content = file.read_bytes()
        # Else nothing but checksums and hashes would ever be tried.
        is_restamped = rng.random() < 0.7
        if is_restamped:
            content = mutations.without_checksum(content, form)
        label, content = mutations.damage(content, form, rng)
        file.write_bytes(content)
        if is_restamped and name.startswith("run/") and "run" in target.needs:
            _restamp(folder / "run", file)
    arguments = target.arguments
    if callable(arguments):
        return Case(target, index, f"{name}: {label}", file, lambda: arguments(folder, file))
    words = [word.format(case=folder, file=file, override=override) for word in arguments]
    return Case(target, index, f"{name}: {label}", file, words)
