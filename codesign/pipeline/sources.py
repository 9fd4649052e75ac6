"""Which source files a stage's result depends on: found from imports, so that no list has to be kept.

From the function that does a stage's work the pipeline's own modules, which bind everything together, are followed
definition by definition; other modules are followed whole. A module depends on the packages that hold it, on the
modules that it imports, also inside of functions, and on those that it names in full as a text, because child processes
are started by name. It also depends on data files of its package: those of which it has the name, or the folder's name,
as a text.

Imports are found by a pattern, which takes milliseconds for all of them; a test holds it against Python's own parser.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from codesign.basics.version import VERSION

PACKAGES = ("codesign", "rtl_templates", "sim", "boards")
PIPELINE = "codesign.pipeline"
ROOT = Path(__file__).resolve().parents[2]

_FOR_TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:(?:[ \t][^\n]*)?\n)+", re.MULTILINE)
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([^\n]+))", re.MULTILINE
)
_TEXT = re.compile(r"""["']([\w.]+)["']""")


def module_sources(work: Callable[..., Any], without: Collection[str] = ()) -> frozenset[Path]:
    """Source and data files that the stage function ``work`` depends on, those of the pipeline left out.

    ``without`` names modules that are not followed, because the work does not use them this time.
    """
    return _closure(_reached(work.__module__, work.__name__)[1], frozenset(without))


@cache
def code_hash(work: Callable[..., Any], without: frozenset[str] = frozenset()) -> str:
    """sha256 (hex) of the version and of all source text that the stage function ``work`` depends on."""
    digest = hashlib.sha256(VERSION.encode())
    for name, text in sorted(_reached(work.__module__, work.__name__)[0].items()):
        digest.update(f"{name}\0{text}\0".encode())
    for path in sorted(module_sources(work, without)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + _bytes(path) + b"\0")
    return digest.hexdigest()


def imported_modules(text: str) -> set[str]:
    """Modules of our packages that a source text imports, anywhere but for type checking, or names as a text."""
    text = _FOR_TYPES.sub("", text)
    found: set[str] = set()
    for source, names, plain in _IMPORT.findall(text):
        if source:
            found |= _imported_from(source, re.findall(r"(\w+)(?:[ \t]+as[ \t]+\w+)?[ \t]*(?:[,)\n#]|$)", names))
        else:
            found |= {item.split()[0] for item in plain.split(",") if item.strip()}
    found |= set(_TEXT.findall(text))
    return {name for name in found if name in _modules()}


@cache
def _modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package by its ``__init__.py``."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def _data_files() -> dict[str, list[Path]]:
    """Files of the packages that are no modules, by their own and their folder's name, below the package's name."""
    found: dict[str, list[Path]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "py.typed":
                for name in (path.name, path.parent.name):
                    found.setdefault(f"{package}/{name}", []).append(path)
    return found


def _imported_from(source: str, names: Iterable[str]) -> set[str]:
    return {source, *(f"{source}.{name}" for name in names)}


@cache
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _neighbours(module: str) -> tuple[frozenset[str], frozenset[Path]]:
    """Modules and data files that a module depends on directly."""
    text = _bytes(_modules()[module]).decode()
    parts = module.split(".")
    parents = {".".join(parts[:count]) for count in range(1, len(parts))}
    texts = set(_TEXT.findall(text))
    files = {path for name in texts for path in _data_files().get(f"{parts[0]}/{name}", [])}
    return frozenset(imported_modules(text) | parents), frozenset(files)


@cache
def _closure(roots: frozenset[str], without: frozenset[str]) -> frozenset[Path]:
    todo, seen, files = set(roots), set(without), set()
    while todo:
        module = todo.pop()
        if module in seen or module == PIPELINE or module.startswith(f"{PIPELINE}."):
            continue
        seen.add(module)
        modules, data = _neighbours(module)
        todo |= modules
        files |= {_modules()[module], *data}
    return frozenset(files)


@cache
def _reached(module: str, name: str) -> tuple[dict[str, str], frozenset[str]]:
    """What a definition of a pipeline module leads to: texts of the pipeline's definitions by name, other modules."""
    texts: dict[str, str] = {}
    outside: set[str] = set()
    todo = [(module, name)]
    while todo:
        where, what = todo.pop()
        if f"{where}.{what}" in texts:
            continue
        definition = _definitions(where).get(what)
        if definition is None:
            continue
        node, text = definition
        texts[f"{where}.{what}"] = text
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            uses: Iterator[tuple[str, str]] = _targets(node, {what})
        else:
            uses = _uses(where, node)
        for other, used in uses:
            if other == where or other.startswith(f"{PIPELINE}."):
                todo.append((other, used))
            else:
                outside |= {found for found in _imported_from(other, [used]) if found in _modules()}
    return texts, frozenset(outside)


@cache
def _definitions(module: str) -> dict[str, tuple[ast.stmt, str]]:
    """Top-level statements of a module with their texts, by each name that they bind."""
    if module not in _modules():
        return {}
    text = _bytes(_modules()[module]).decode()
    lines = text.splitlines()
    found: dict[str, tuple[ast.stmt, str]] = {}
    for node in ast.parse(text).body:
        names: list[str] = []
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names = [
                item.id for item in ast.walk(node) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
            ]
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        segment = "\n".join(lines[first - 1 : node.end_lineno])
        found.update(dict.fromkeys(names, (node, segment)))
    return found


def _uses(module: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a definition refers to, annotations left out."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from _targets(node, {alias.name for alias in node.names} | {alias.asname or "" for alias in node.names})
        return
    if isinstance(node, ast.Name):
        yield module, node.id
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _uses(module, item)


def _targets(node: ast.Import | ast.ImportFrom, names: Collection[str]) -> Iterator[tuple[str, str]]:
    for alias in node.names:
        if alias.name in names or alias.asname in names:
            if isinstance(node, ast.ImportFrom):
                yield node.module or "", alias.name
            else:
                yield alias.name, ""
