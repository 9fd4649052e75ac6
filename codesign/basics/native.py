"""Libraries in C++, compiled at first use with the machine's own compiler and kept in the cache.

They are plain C behind ctypes: nobody's headers are needed, and who has no compiler does without them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from codesign.basics import children
from codesign.basics.errors import OutputError
from codesign.basics.files import atomic_path

COMPILERS = ("c++", "g++", "clang++")
COMPILE_SECONDS = 120


def build(
    name: str, sources: Sequence[Path], choices: Sequence[Sequence[str]], headers: Sequence[Path] = ()
) -> Path | None:
    """Compile ``sources`` to a shared library, unless the cache has it; None if there is no compiler that can.

    choices : flags, of which the first that the compiler takes are used. headers : what the sources include.
    """
    compiler = (
        shlex.split(os.environ.get("CXX", ""))
        or [path for path in map(shutil.which, COMPILERS) if path is not None][:1]
    )
    if not compiler:
        return None
    for flags in choices:
        command = [*compiler, *flags, "-fPIC", "-shared"]
        try:
            # What the compiler says it would do names its version and the processor that -march=native stands for.
            plan = _run([*command, "-###", "-x", "c++", "-E", "-"])
            texts = [path.read_bytes() for path in (*sources, *headers)]
            key = hashlib.sha256(b"\0".join([*texts, plan.encode()])).hexdigest()[:32]
            path = Path(platformdirs.user_cache_dir("codesign")) / "libraries" / f"{name}-{key}.so"
            if not path.is_file():
                with atomic_path(path) as temporary:
                    _run([*command, *map(str, sources), "-o", str(temporary)])
            return path
        except (OSError, OutputError, subprocess.SubprocessError):
            continue
    return None


def opened(path: Path | None) -> ctypes.CDLL | None:
    """A library that was built; None if it was not, or if this machine cannot load it."""
    try:
        return None if path is None else ctypes.CDLL(str(path))
    except OSError:
        return None


def _run(command: list[str]) -> str:
    code, text = children.run(command, COMPILE_SECONDS)
    if code:
        raise subprocess.CalledProcessError(code, command, text)
    return text
