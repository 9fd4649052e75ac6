"""Single bits of a finished run flipped: every command refuses the file by name, or does what it does on the whole run.

A command that does not need the file may warn of it and leave out figures of stages that do; it says nothing else.
A command that never opens a file cannot be changed by it. So a command is tried on a flip if it opens the file on the
whole run, and at times otherwise.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flips import flip, flips

from codesign.basics.errors import InputError
from codesign.cli import main
from codesign.contract.stimulus import Stimulus
from codesign.records.names import MANIFEST
from codesign.records.rundir import LOCK
from codesign.train import train

CONFIG = """
[data]
set = "npz"
path = "{data}"
validation = 20
test = 30
[network]
hidden = [6]
timesteps = 2
[train]
epochs = 3
threads = 1
[train.rewiring]
target_density = 0.3
epochs_per_iteration = 1
[freeze]
epochs = 1
[hardware]
loadable = true
[verify]
samples = 2
stress_samples = 1
[synth]
families = ["ecp5"]
fmax = []
"""
READING = {
    "run": (), "train": (), "freeze": (), "generate": (), "estimate": (), "verify": (), "synth": (), "report": (),
    "predict": ("{data}",), "load": ("{run}", "-o", "{run}/../image.bin"),
}  # fmt: skip
# Warnings are a part of what commands say here.
pytestmark = pytest.mark.filterwarnings("always::codesign.basics.errors.CodesignWarning")

ALL = tuple(READING)
# Those that need neither the simulator nor the synthesis tools.
SOFTWARE = ("train", "freeze", "generate", "estimate", "report", "predict", "load")
# What the simulator and the synthesis tools say of their own work; a command may leave other ones.
LOGS = {"results.xml", "simulation.log", "launch.log", "build.log"}

Call = Callable[..., tuple[int, str, str]]


class Opened:
    """Files below a folder that this process opens, by an audit hook, which cannot be taken off again."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.paths: set[str] = set()
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self.folder is not None and isinstance(arguments[0], (str, Path)):
            path = Path(arguments[0])
            if path.is_relative_to(self.folder):
                self.paths.add(path.relative_to(self.folder).as_posix())

    def during(self, folder: Path, do: Callable[[], Any]) -> tuple[Any, set[str]]:
        self.folder, self.paths = folder, set()
        try:
            return do(), set(self.paths)
        finally:
            self.folder = None


@dataclass
class Whole:
    """A finished run, and what each command answers and leaves on it."""

    folder: Path
    data: Path
    call: Call
    at: Path
    answers: dict[str, tuple[int, str, dict[str, bytes]]] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    unsteady: dict[str, set[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def put(self) -> None:
        """The whole run, where the commands find it: always at the same place, whose name is in answers."""
        shutil.rmtree(self.at, ignore_errors=True)
        (self.at.parent / "image.bin").unlink(missing_ok=True)
        shutil.copytree(self.folder, self.at)

    def do(self, command: str) -> tuple[int, str, str]:
        more = [item.format(run=self.at, data=self.data) for item in READING[command]]
        return self.call(command, self.at, *more, "--json")

    def left(self) -> dict[str, bytes]:
        """What is in the folder: every file, of the manifest its content without what logs decide."""
        found = {
            path.relative_to(self.at).as_posix(): content(path)
            for path in self.at.rglob("*")
            if path.is_file() and path.name != LOCK
        }
        image = self.at.parent / "image.bin"
        return found | ({"image": image.read_bytes()} if image.exists() else {})

    def learn(self, opened: Opened, commands: Collection[str]) -> None:
        """Each command twice: what other programs write of themselves, with their times, is no answer."""
        for command in commands:
            self.put()
            (code, out, err), self.reads[command] = opened.during(self.at, lambda command=command: self.do(command))
            assert code == 0, err
            self.answers[command] = code, out, self.left()
            self.put()
            assert self.do(command)[:2] == (code, out)
            before, again = self.answers[command][2], self.left()
            self.unsteady[command] = {name for name in before if again[name] != before[name]}
            assert {Path(name).name for name in self.unsteady[command]} <= LOGS and before.keys() == again.keys()

    def try_flip(self, path: str, bit: int, draw: np.random.Generator, unread: float = 0.0) -> None:
        """Every command on the run with one bit flipped; those that do not open the file at a rate of ``unread``."""
        for command, answer in self.answers.items():
            if path not in self.reads[command] and draw.random() >= unread:
                self.counts["not opened"] += 1
                continue
            self.put()
            flip(self.at / path, bit)
            untouched = (self.at / path).read_bytes()
            code, out, err = self.do(command)
            where = f"{command} with bit {bit} of {path} flipped: exit {code}, {err}"
            if code == 0:
                left = self.left()
                if path in answer[2] and (self.at / path).is_file() and (self.at / path).read_bytes() == untouched:
                    # The command neither reads nor makes it.
                    left[path] = answer[2][path]
                before = answer[2] | {"stdout": answer[1].encode()}
                after = left | {"stdout": out.encode()}
                different = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
                different -= self.unsteady[command]
                assert different <= {"stdout", MANIFEST}, f"{where}; left other {different}"
                for name in different:
                    assert "codesign: warning: " in err and path in err, where
                    assert not others(json.loads(after[name]), json.loads(before[name])), where
                self.counts["warned of" if different else "as on the whole run"] += 1
                continue
            assert code in (2, 3, 4, 5, 6, 7), where
            lines = [line for line in err.splitlines() if line.startswith("codesign: ") and "warning:" not in line]
            assert len(lines) == 1 and "Traceback" not in err, where
            assert Path(path).name in lines[0], where
            self.counts[f"refused, exit {code}"] += 1


def content(path: Path) -> bytes:
    """A file's bytes; of a manifest, without the hashes of logs and its own checksum, which follows from them."""
    if path.name != MANIFEST:
        return path.read_bytes()
    return json.dumps(without_logs(json.loads(path.read_bytes()))).encode()


def without_logs(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: without_logs(value) for key, value in found.items() if Path(key).name not in LOGS | {"checksum"}}
    return found


def others(found: Any, whole: Any, where: str = "") -> list[str]:
    """Where a value is neither the whole run's, nor null, nor left out; checksums of documents follow from the rest."""
    if isinstance(found, dict) and isinstance(whole, dict):
        more = [f"{where}.{key}" for key in found.keys() - whole.keys()]
        inside = (
            others(found[key], whole[key], f"{where}.{key}") for key in found.keys() & whole.keys() - {"checksum"}
        )
        return [*more, *chain.from_iterable(inside)]
    return [] if found is None or found == whole else [f"{where}: {found!r}, not {whole!r}"]


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes time, so that files with times in them are the same in every run."""
    for module in ("codesign.pipeline.runner", "codesign.train.loop", "sim.verify"):
        still = SimpleNamespace(monotonic=lambda: 0.0, sleep=time.sleep)
        monkeypatch.setattr(f"{module}.time", still, raising=False)


@pytest.mark.parametrize("kind", ["values", "events"])
def test_a_flipped_bit_of_a_stimulus_changes_nothing_or_is_refused(tmp_path: Path, kind: str) -> None:
    """Also where no manifest states its hash: the archive has a checksum of each array."""
    draw = np.random.default_rng(0)
    labels = (np.arange(8) % 3).astype(np.int32)
    if kind == "values":
        whole = Stimulus(20, 3, labels, values=draw.integers(0, 16, (8, 20)).astype(np.uint8))
    else:
        whole = Stimulus.from_dense(draw.random((8, 3, 20)) < 0.3, labels)
    path = tmp_path / "stimulus.npz"
    whole.save(path)
    refusals = 0
    for bit in flips(path, 300, seed=1):
        try:
            found = Stimulus.load(path)
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refusals += 1
            continue
        assert (found.n_inputs, found.timesteps) == (20, 3), f"bit {bit}"
        for name in ("labels", "offsets", "sources", "values"):
            assert np.array_equal(getattr(found, name), getattr(whole, name)), f"bit {bit}: {name}"
    assert refusals > 150


def make_config(folder: Path) -> tuple[Path, Path]:
    """A configuration on data of three classes, and samples without labels."""
    draw = np.random.default_rng(0)
    y = np.arange(150) % 3
    x = np.clip(draw.normal(0.3 + 0.2 * y[:, None] * (np.arange(12) % 3 == y[:, None]), 0.15), 0, 1)
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "mine.npz", x=x[:5])
    (folder / "tiny.toml").write_text(CONFIG.format(data=folder / "data.npz"))
    return folder / "tiny.toml", folder / "mine.npz"


def flips_of(folder: Path, count: int, draw: np.random.Generator) -> Iterator[tuple[str, int]]:
    """``count`` bits, drawn evenly over the files and within each: every file comes before one comes again."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size and path.name != LOCK)
    order: list[Path] = []
    while len(order) < count:
        order += [files[index] for index in draw.permutation(len(files))]
    for path in order[:count]:
        yield path.relative_to(folder).as_posix(), int(draw.integers(8 * path.stat().st_size))


def test_a_few_flipped_bits_of_a_trained_run(tmp_path, call, clock, opened, monkeypatch):
    # Drawing takes most of a report's time.
    monkeypatch.setattr("codesign.report.blocks.to_svg", lambda *arguments: "<svg></svg>")
    config, data = make_config(tmp_path)
    folder = tmp_path / "whole"
    for arguments in (("train", config, "-o", folder), *((verb, folder) for verb in ("freeze", "estimate", "report"))):
        code, _, err = call(*arguments)
        assert code == 0, err
    whole = Whole(folder, data, call, tmp_path / "run")
    whole.learn(opened, ("train", "freeze", "estimate", "report", "predict"))
    draw = np.random.default_rng(3)
    for path, bit in flips_of(folder, 14, draw):
        whole.try_flip(path, bit, draw)
    assert whole.counts["refused, exit 2"] > 14


@pytest.mark.deep
@pytest.mark.parametrize("commands", [SOFTWARE, pytest.param(ALL, marks=pytest.mark.hardware)], ids=["software", "all"])
def test_two_hundred_flipped_bits_of_a_finished_run(tmp_path, call, clock, opened, commands, capfd):
    config, data = make_config(tmp_path)
    folder = tmp_path / "run"
    if commands == ALL:
        made = [("run", config, "-o", folder, "--synth")]
    else:
        made = [
            ("train", config, "-o", folder),
            *((verb, folder) for verb in ("freeze", "generate", "estimate", "report")),
        ]
    for arguments in made:
        code, _, err = call(*arguments)
        assert code == 0, err
    shutil.move(folder, tmp_path / "whole")
    whole = Whole(tmp_path / "whole", data, call, folder)
    whole.learn(opened, commands)
    draw = np.random.default_rng(14)
    for number, (path, bit) in enumerate(flips_of(whole.folder, 200, draw)):
        whole.try_flip(path, bit, draw, unread=0.05)
        if number % 20 == 19:
            with capfd.disabled():
                sys.stdout.write(f"{number + 1} flips: {dict(whole.counts)}\n")
    assert whole.counts["refused, exit 2"] > 400


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.deep)])
def test_flipped_bits_of_an_interrupted_training(tmp_path, call, clock, opened, monkeypatch, count):
    """Its files are in no record yet: the checkpoints' own checksums are what tells."""
    config, data = make_config(tmp_path)
    folder = tmp_path / "whole"

    def stop(done: float, total: float, text: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("codesign.train.train", lambda *given, **named: train(*given, **{**named, "progress": stop}))
        assert call("train", config, "-o", folder)[0] == 130
    whole = Whole(folder, data, call, tmp_path / "run")
    whole.learn(opened, ("train",))
    draw = np.random.default_rng(5)
    for path, bit in flips_of(folder, count, draw):
        # What opens a checkpoint is not Python, and is not seen.
        whole.try_flip(path, bit, draw, unread=1.0)
    assert whole.counts["refused, exit 2"] >= count // 2
    assert json.loads((folder / MANIFEST).read_text())["stages"]["train"]["status"] == "interrupted"
