"""Every command that README and documentation show: its words exist, and those on lines of their own have run."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from codesign.cli.app import app
from tests.documented import COMMANDS, ROOT, Command, shown
from tests.documented_runs import FIRST, WAYS, Planned, line_of, outcome, outcomes, plans, prepare, say, shell, summary
from tests.requirements import REQUIREMENTS, need

TARGETS = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))


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
        needed = [
            parameter for parameter in found.params if parameter.required and parameter.param_type_name == "option"
        ]
        missing = [parameter.opts[0] for parameter in needed if not {*parameter.opts} & {*left}]
        # A name only, or a command that is shortened, says none of them.
        if missing and left and "..." not in left:
            return f"{named} needs {', '.join(missing)}"
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
        ("codesign export runs/mine", "codesign export needs -o"),
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


# Words that stand for a reader's own, and what shortens a command.
PLACEHOLDER = re.compile(r"\b(CONFIG|DIR|RUN|NET|NETWORK|BUNDLE|FILE|SPACE|NAME|A B)\b|\.\.\.|<|\||/path/")


def test_every_command_runs_or_says_why_not() -> None:
    """What runs is a whole command; what runs as another, or not at all, has a reason; no way is left without one."""
    found = plans()
    assert len(found) > 90
    for item in found:
        said = line_of(item.command)
        assert item.why or item.run == said, said
        # A shell's own signs are no placeholders.
        whole = re.sub(r">/dev/null|\S+ > \S+|\|\|", "", item.run or "")
        assert not PLACEHOLDER.search(whole), item.run
    assert sorted(line_of(item.command) for item in found if item.run is None) == [
        "codesign data get <set>",
        "codesign data get mnist",
        "pip install dask-jobqueue",
    ]
    lines = {line_of(command) for command in COMMANDS}
    assert [way.line for way in WAYS if not any(re.fullmatch(way.line, line) for line in lines)] == []
    assert [way.needs for way in WAYS if way.needs and way.needs.split()[0] not in REQUIREMENTS] == []


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    command = Command(ROOT / "README.md", "codesign run nothing.toml", True)
    failed = outcome(Planned(command, "codesign run nothing.toml"), tmp_path)
    assert failed.word == "failed" and "nothing.toml: no such configuration" in failed.text
    assert outcome(Planned(command, None, "the reason"), tmp_path).text == "the reason"
    assert outcome(Planned(command, "true"), tmp_path).word == "ran"


@pytest.mark.deep
@pytest.mark.hardware
def test_documented_commands_run(tmp_path: Path) -> None:
    """All of them, in order; a failure does not stop the rest."""
    need("iverilog")
    folder = tmp_path / "clone"
    folder.mkdir()
    prepare(folder)
    for line in FIRST:
        assert shell(line, folder).returncode == 0, line
    found = []
    for item in outcomes(folder):
        say(item)
        found.append(item)
    say(summary(found))
    assert [str(item) for item in found if item.word == "failed"] == []
