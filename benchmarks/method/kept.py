"""The study's finished runs that the repository keeps: a line of JSON each, without the course of training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.method.plan import Run
from codesign.basics.files import write_text

KEPT = Path(__file__).with_name("runs.jsonl")


def _name(document: Mapping[str, Any]) -> str:
    return Run(document["set"], document["preset"], document["target_density"], document["seed"]).name


def kept(path: Path = KEPT) -> dict[str, dict[str, Any]]:
    """Results by the name of their run; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {_name(document): document for document in map(json.loads, lines)}


def keep(documents: Iterable[Mapping[str, Any]], path: Path = KEPT) -> None:
    """Add results to those that are kept, in place of older ones of the same run."""
    found: dict[str, Mapping[str, Any]] = dict(kept(path))
    for document in documents:
        found[_name(document)] = {key: value for key, value in document.items() if key != "trajectory"}
    write_text(path, "".join(f"{json.dumps(found[name], sort_keys=True)}\n" for name in sorted(found)))
