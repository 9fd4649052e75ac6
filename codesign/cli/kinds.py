"""What a command's argument is: told from its name and what lies in it, before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from codesign.basics.errors import NO_CONFIGURATION, InputError
from codesign.basics.files import input_size
from codesign.records.names import MANIFEST

Kind = Literal["config", "run", "network", "bundle"]
NAMES: dict[Kind, str] = {
    "config": "a configuration (.toml)",
    "run": "a run directory",
    "network": "a frozen network",
    "bundle": "a bundle",
}


def kind_of(path: Path) -> Kind:
    """What ``path`` holds. Raises InputError naming what was expected."""
    if os.path.isdir(path):  # noqa: PTH112 - pathlib's raises for a name that is too long
        if (path / MANIFEST).is_file():
            return "run"
        if (path / "design.json").is_file():
            return "bundle"
        raise InputError(f"{path}: neither a run directory ({MANIFEST}) nor a bundle (design.json)")
    if path.suffix == ".toml":
        input_size(path, NO_CONFIGURATION)
        return "config"
    input_size(path, "no such file or folder")
    return "network"


def expect(*kinds: Kind) -> Callable[[Path], Path]:
    """Check of an argument, whose path must be one of ``kinds``; raises InputError."""

    def check(path: Path) -> Path:
        kind = kind_of(path)
        if kind not in kinds:
            raise InputError(f"{path}: is {NAMES[kind]}; expected {' or '.join(NAMES[name] for name in kinds)}")
        return path

    return check
