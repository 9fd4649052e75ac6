"""The wheel holds everything that the packages read, and its command works."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("codesign", "rtl_templates", "sim", "boards")


@pytest.mark.deep
def test_wheel_installs_and_runs(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "examples", source / "examples")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "build", "--wheel", "-o", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")

    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {p.relative_to(source).as_posix() for name in PACKAGES for p in (source / name).rglob("*") if p.is_file()}
    assert wanted <= packed, sorted(wanted - packed)

    # A source tree on the path would be imported in the wheel's place.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", wheel], check=True, capture_output=True)
    purelib = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    def codesign(*arguments):
        return subprocess.run(
            [environment / "bin" / "codesign", *arguments], cwd=tmp_path, capture_output=True, text=True
        )

    shown = codesign("--help")
    assert shown.returncode == 0, shown.stderr
    assert "verified FPGA hardware" in shown.stdout
    assert codesign("init", "mine.toml").returncode == 0
    assert codesign("init", "conv.toml", "--example", "mnist-conv").returncode == 0
    assert (tmp_path / "conv.toml").read_bytes() == (ROOT / "examples" / "mnist-conv.toml").read_bytes()
    demo = codesign("demo")
    assert demo.returncode == 0 and "360 samples, 0 mismatches" in demo.stdout, demo.stderr
    program = "\n".join(f"import {name}; assert {name}.__file__.startswith({str(environment)!r})" for name in PACKAGES)
    subprocess.run([python, "-c", program], cwd=tmp_path, check=True)
