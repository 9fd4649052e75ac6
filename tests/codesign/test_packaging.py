"""The wheel holds everything that the packages read, and what it installs works: with everything, and without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import codesign

ROOT = Path(__file__).parents[2]
PACKAGES = ("codesign", "rtl_templates", "sim", "boards")
# What comes with torch, or needs it.
TORCH = ("torch", "functorch", "snntorch", "nirtorch")

pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """What a wheel is made of, and nothing else of the repository."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "-o", folder, source], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


class Environment:
    """A fresh one with the wheel, in a folder of its own. Dependencies are those of this interpreter, by link, but for
    packages that it is to be ``without``; of the repository nothing is on the path."""

    def __init__(self, folder: Path, wheel: Path, without: Sequence[str] = ()) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir()
        self._binaries = folder / "venv" / "bin"
        venv.create(folder / "venv", with_pip=True)
        self.run("-m", "pip", "install", "--no-deps", str(wheel))
        packages = folder / "packages"
        packages.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            name = path.name.partition("-")[0].lower()
            if path.suffix != ".pth" and name not in (*without, *PACKAGES, "__editable__"):
                (packages / path.name).symlink_to(path)
        purelib = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
        (Path(purelib) / "dependencies.pth").write_text(str(packages))

    def run(self, *arguments: str, program: str = "python") -> str:
        """What a program of it prints, started in the empty folder. It must succeed."""
        # A source tree on the path would be imported in the wheel's place.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        found = subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    def check_origin(self) -> None:
        for name in PACKAGES:
            assert self.run("-c", f"import {name}; print({name}.__file__)").startswith(str(self._binaries.parent))


def test_the_wheel_holds_every_file(source: Path, wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {p.relative_to(source).as_posix() for name in PACKAGES for p in (source / name).rglob("*") if p.is_file()}
    assert wanted <= packed, sorted(wanted - packed)


@pytest.mark.hardware
def test_wheel_installs_and_runs(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, wheel)
    environment.check_origin()
    assert "verified FPGA hardware" in environment.run("--help", program="codesign")
    environment.run("init", "mine.toml", program="codesign")
    environment.run("init", "conv.toml", "--example", "mnist-conv", program="codesign")
    assert (environment.folder / "conv.toml").read_bytes() == (ROOT / "examples" / "mnist-conv.toml").read_bytes()
    assert "360 samples, 0 mismatches" in environment.run("demo", program="codesign")


@pytest.mark.hardware
def test_the_tutorial_runs_in_an_environment_with_the_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, wheel)
    environment.check_origin()
    shutil.copy(ROOT / "examples" / "own_loop.py", environment.folder)
    shown = environment.run("own_loop.py", "runs/own-loop")
    assert "verified  64 samples, 0 mismatches" in shown
    assert (environment.folder / "runs/own-loop/bundle/own_loop.v").is_file()


WITHOUT_TORCH = """
import importlib.util
import codesign

assert importlib.util.find_spec("torch") is None
network, samples = codesign.FrozenNetwork.load("mine.safetensors"), codesign.Stimulus.load("samples.npz")
print(*codesign.run_golden(network, samples).decisions)
"""


def test_host_client_and_golden_prediction_run_where_torch_is_not(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, wheel, without=TORCH)
    environment.check_origin()
    network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]], [[2, -1], [1, 2]]], threshold=4, timesteps=3)
    samples = codesign.Stimulus.from_dense(np.arange(24).reshape(4, 3, 2) % 3 > 0, labels=[0, 1, 0, 1])
    network.save(environment.folder / "mine.safetensors")
    samples.save(environment.folder / "samples.npz")
    decided = codesign.run_golden(network, samples).decisions
    assert environment.run("-c", WITHOUT_TORCH).split() == [str(number) for number in decided]
    # The client against a board made of Python, by its own tests.
    shutil.copy(ROOT / "tests" / "boards" / "test_host.py", environment.folder)
    assert " passed" in environment.run("-m", "pytest", "-q", "test_host.py")
