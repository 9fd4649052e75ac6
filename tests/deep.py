"""`python -m tests.deep`: deep tests and proofs in parts, those first that have not run on the present sources.

A part is a file of deep tests, or a proof. tests/deep.json remembers for each the sources that it ran on (a hash of
what it can reach by imports), what came of it, and of a file which of its tests have passed on these
sources. It is written after each part, also of one that was stopped, and the next run does only what is left.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from codesign.basics import children
from codesign.basics.files import write_text

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "tests" / "deep.json"
PACKAGES = ("codesign", "rtl_templates", "sim", "boards", "benchmarks", "examples")
# What every part depends on, whatever it imports.
COMMON = ("pyproject.toml", "requirements.lock", "requirements-deep.lock", "tests/conftest.py")
PART_SECONDS = 4 * 3600
PLUGIN = "tests.deep_plugin"
FACADE = ROOT / "codesign" / "__init__.py"


@dataclass(frozen=True)
class Part:
    """``name`` in the ledger; ``file`` from which its sources are found; ``command`` that runs it."""

    name: str
    file: Path
    command: tuple[str, ...]


def parts(jobs: int = 1) -> list[Part]:
    """All parts: files with a deep test, then proofs."""
    from tests.proofs.catalogue import all_proofs

    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(isinstance(node, ast.Attribute) and node.attr == "deep" for node in tree):
            name = str(path.relative_to(ROOT))
            workers = ("-n", str(jobs)) if jobs > 1 else ()
            found.append(Part(name, path, ("pytest", "-q", "-m", "deep", "-p", PLUGIN, *workers, name)))
    program = ROOT / "tests" / "proofs" / "__main__.py"
    found += [
        Part(f"proof {proof.name}", program, ("tests.proofs", proof.name, "--jobs", str(jobs)))
        for proof in all_proofs()
    ]
    return found


def sources(file: Path) -> list[Path]:
    """Every file of ours that ``file`` reaches by imports, at whatever depth of the code they stand.

    A string that is a module's name counts as an import (``python -m``, ``import_module``). Files that are not Python,
    such as templates, Verilog and kernels, count where a file that is reached has their name as a text, or their
    folder's if one that is reached lies beside that folder. Those that nothing names count where anything of their
    package is reached.
    """
    reached: set[Path] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        if path.suffix != ".py":
            continue
        conftest = path.parent / "conftest.py"
        if conftest.is_file():
            waiting.append(conftest)
        waiting += _reached_from(path)
    packages = {path.relative_to(ROOT).parts[0] for path in reached}
    named = {path for path, is_named in _data_files().items() if is_named}
    found = {path for path in _data_files() if path not in named and path.relative_to(ROOT).parts[0] in packages}
    found |= {path for path in named if _named(path, reached)}
    # Kernels name headers, templates other templates.
    while reached != (more := reached | found):
        reached = more
        found = {path for path in named - reached if _named(path, reached)}
    return sorted(reached | {ROOT / name for name in COMMON})


@functools.cache
def _data_files() -> dict[Path, bool]:
    """Files of the packages that are not Python, and whether any other file of the packages names them; a package's own
    name, which many texts are, names none."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*")) if path.is_file()]
    files = [path for path in files if path.suffix != ".pyc" and "releases" not in path.parts]
    tops = {ROOT / package for package in PACKAGES}
    return {path: _named(path, files, by_folder=path.parent not in tops) for path in files if path.suffix != ".py"}


def _named(path: Path, others: Collection[Path], *, by_folder: bool = True) -> bool:
    """Whether one of the others has a data file's name, or its folder's, as a text."""
    beside = path.parent.parent == ROOT or any(other.parent == path.parent.parent for other in others)
    wanted = {path.name, path.parent.name} if beside and by_folder else {path.name}
    return any(not wanted.isdisjoint(_texts(other)) for other in others if other != path)


@functools.cache
def _texts(path: Path) -> frozenset[str]:
    """Last parts of the texts in a source file, which may be names of files and folders."""
    if path.suffix != ".py":
        found = re.findall(r"""["']([\w./-]+)["']""", path.read_text(encoding="utf-8", errors="replace"))
    else:
        nodes = _run(_tree(path))
        found = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return frozenset(text.rsplit("/", 1)[-1] for text in found)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _reached_from(path: Path) -> tuple[Path, ...]:
    return tuple({found for name in _imported(path) for found in _files_of(name, path.parent)})


def _imported(path: Path) -> set[str]:
    """Names of modules, or of what is in them, that a file imports or names, for type checking apart."""
    here = path.relative_to(ROOT).parent.parts
    names: set[str] = set()
    for node in _run(_tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(here[: len(here) - node.level + 1]) + "." if node.level else ""
            module = f"{parent}{node.module or ''}".strip(".")
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Also within programs that tests hand to another interpreter. What the package looks up when it is asked
            # for it has a colon behind it.
            names.update(re.findall(rf"\b(?:{'|'.join(PACKAGES)}|tests)(?:\.\w+)+\b(?![\w.]*:)", node.value))
        elif isinstance(node, (ast.List, ast.Tuple, ast.Call)):
            words = [item.value for item in _items(node) if isinstance(item, ast.Constant)]
            names.update(f"{name}.__main__" for flag, name in pairwise(words) if flag == "-m" and name in PACKAGES)
    # Who imports the package may use anything that it offers.
    if "codesign" in names and path != FACADE and FACADE.is_file():
        names.update(re.findall(r"\b(codesign(?:\.\w+)+):", FACADE.read_text(encoding="utf-8")))
    return names


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes without those that only a type checker sees, and without docstrings."""
    if _is_text(node):
        return
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children = iter(node.orelse)
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _run(child)


def _items(node: ast.List | ast.Tuple | ast.Call) -> list[ast.expr]:
    return node.args if isinstance(node, ast.Call) else node.elts


def _files_of(name: str, folder: Path) -> Iterator[Path]:
    """Files that an import of ``name`` runs, packages on the way included; none for what is not ours."""
    for base in (ROOT, ROOT / "tests", folder):
        place = base
        for part in name.split("."):
            place = place / part
            for path in (place / "__init__.py", place.with_suffix(".py")):
                if path.is_file():
                    yield path


@functools.cache
def _file_hash(path: Path) -> bytes:
    """Hash of a file, of Python's as it runs: without comments, docstrings and the layout of its lines."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).digest()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [item for item in node.body if not _is_text(item)]
    return hashlib.sha256(ast.unparse(tree).encode()).digest()


def _is_text(node: ast.AST) -> bool:
    """Whether it is a docstring, or a text that stands alone in another place."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@functools.cache
def fingerprint(file: Path) -> str:
    """Hash of the names and contents of the sources of ``file``."""
    digest = hashlib.sha256()
    for path in sources(file):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + _file_hash(path))
    return digest.hexdigest()[:16]


CACHED = (_data_files, _texts, _tree, _reached_from, _file_hash, fingerprint)


def read_ledger(path: Path = LEDGER) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_ledger(ledger: dict[str, dict[str, Any]], path: Path = LEDGER) -> None:
    """One line per part, sorted, so that two branches rarely touch the same line."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}" for name, entry in sorted(ledger.items())]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def why_stale(entry: dict[str, Any] | None, now: str) -> str | None:
    """Reason to run a part whose sources have the hash ``now``; None if it has passed on them."""
    if entry is None:
        return "has never run"
    when = f"at {entry['revision']} on {entry['date']}"
    if entry["sources"] != now:
        return f"sources changed since it ran {when}: {entry['detail']}"
    return None if entry["outcome"] == "passed" else f"{entry['outcome']} {when}: {entry['detail']}"


def stalest_first(stale: Iterable[Part], ledger: dict[str, dict[str, Any]]) -> list[Part]:
    """Never run, then by the date of the last run."""
    return sorted(stale, key=lambda part: (ledger.get(part.name, {}).get("date", ""), part.name))


@dataclass(frozen=True)
class Outcome:
    """What came of a part: passed, part (what ran has passed, and more is left), failed, skipped or timeout.

    passed : tests of a file, by their names in it, that have passed on the present sources, now or before; empty for a
        proof. interrupted : whether the user did not want to wait.
    """

    word: str
    detail: str
    seconds: float
    passed: tuple[str, ...] = ()
    interrupted: bool = False


def run_part(part: Part, passed: Iterable[str] = (), until: float = float("inf")) -> Outcome:
    """Run a part; of a file without the tests that have ``passed``, and without beginning one after ``until``."""
    begin = time.monotonic()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    is_file, interrupted = part.command[0] == "pytest", False
    before = set(passed)
    with tempfile.TemporaryDirectory() as folder:
        known, outcomes = Path(folder) / "passed.json", Path(folder) / "outcomes.jsonl"
        known.write_text(json.dumps([f"{part.name}::{test}" for test in sorted(before)]))
        outcomes.touch()
        noted = ("--deep-passed", known, "--deep-outcomes", outcomes, f"--deep-until={until}") if is_file else ()
        try:
            code, output = children.run(
                [sys.executable, "-m", *part.command, *map(str, noted)],
                PART_SECONDS,
                ROOT,
                os.environ | {"PYTHONPATH": path},
            )
            word = "passed" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            output, word = "", "timeout"
        except KeyboardInterrupt:
            if not is_file:
                raise
            output, word, interrupted = "", "part", True
        lines = [json.loads(line) for line in outcomes.read_text(encoding="utf-8").splitlines()]
    seconds = time.monotonic() - begin
    told = [line.strip("= ") for line in output.splitlines() if line.strip("= ")]
    detail = re.sub(r" in [\d.]+s.*", "", told[-1])[:200] if told else ""
    if word == "failed":
        sys.stdout.write(output)
    if not is_file:
        return Outcome(word, detail, seconds)
    # Every worker of several collects them all.
    collected = max((line.get("collected", 0) for line in lines), default=0)
    by_word: dict[str, list[str]] = {}
    for line in lines:
        if "test" in line:
            by_word.setdefault(line["outcome"], []).append(line["test"].partition("::")[2])
    all_passed = tuple(sorted(before | set(by_word.get("passed", ()))))
    counts = [f"{len(all_passed)} of {collected} passed"]
    counts += [f"{len(tests)} {name}" for name, tests in by_word.items() if name != "passed"]
    if word == "passed":
        # A file whose tests were all skipped has shown nothing.
        left = collected - len(all_passed) - len(by_word.get("skipped", ()))
        word = "part" if left else "passed" if all_passed else "skipped"
    return Outcome(word, ", ".join(counts), seconds, all_passed, interrupted=interrupted)


def revision() -> str:
    """Short name of the commit, with -dirty for what is not committed."""
    done = subprocess.run(["git", "describe", "--always", "--exclude=*"], cwd=ROOT, capture_output=True, text=True)
    # The ledger itself changes with every part.
    changed = ["git", "diff", "--quiet", "HEAD", "--", ".", ":(exclude)tests/deep.json"]
    if done.stdout and subprocess.run(changed, cwd=ROOT, capture_output=True).returncode:
        return f"{done.stdout.strip()}-dirty"
    return done.stdout.strip() or "unknown"


def main(
    arguments: list[str] | None = None,
    *,
    ledger: Path = LEDGER,
    find: Callable[[int], list[Part]] = parts,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Exit code 0 if all that ran has passed, else 1; 2 for bad use."""
    parser = argparse.ArgumentParser(prog="python -m tests.deep", description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="only parts whose name holds one of these; then also those up to date")
    parser.add_argument("--stale", action="store_true", help="list what has not passed on the present sources, and end")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing that would end later")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    every = find(options.jobs)
    chosen = [part for part in every if not options.names or any(name in part.name for name in options.names)]
    if not chosen:
        parser.error(f"no part is called {options.names[0]!r}; --stale lists them")
    entries = read_ledger(ledger)
    reasons = {part.name: why_stale(entries.get(part.name), fingerprint(part.file)) for part in chosen}
    stale = stalest_first((part for part in chosen if reasons[part.name]), entries)
    if options.stale:
        for part in stale:
            _say(f"{part.name:45} {reasons[part.name]}")
        _say(f"{len(chosen) - len(stale)} of {len(chosen)} parts have passed on these sources")
        return 0
    end = clock() + 60 * options.minutes
    failed = left = 0
    todo = stalest_first(chosen, entries) if options.names else stale
    for number, part in enumerate(todo, 1):
        entry = entries.get(part.name, {})
        is_file = part.command[0] == "pytest"
        if clock() + (0 if is_file else entry.get("seconds", 0)) >= end:
            left += 1
            continue
        for cached in CACHED:
            cached.cache_clear()
        before = fingerprint(part.file)
        known = entry.get("passed", ()) if entry.get("sources") == before and reasons[part.name] else ()
        found = run_part(part, known, time.time() + end - clock())
        # Other runs may have written meanwhile.
        entries = read_ledger(ledger)
        entries[part.name] = {
            "sources": before,
            "revision": revision(),
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            "seconds": round(found.seconds),
            "outcome": found.word,
            "detail": found.detail,
        } | ({"passed": list(found.passed)} if found.word != "passed" and found.passed else {})
        known_parts = {each.name for each in every}
        write_ledger({name: item for name, item in entries.items() if name in known_parts}, ledger)
        if found.interrupted:
            raise KeyboardInterrupt
        failed += found.word not in ("passed", "part")
        left += found.word == "part"
        _say(f"[{number}/{len(todo)}] {found.word:8} {part.name:45} {found.seconds:6.0f} s  {found.detail}")
    _say(f"{failed} did not pass, {left} left for want of time" if failed or left else "all passed")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
