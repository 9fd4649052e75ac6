"""`pytest --quick`: the tests that tests/quick.txt names; `--touched` says which modules of the packages they run.

Every run ends with where its time went, by folder.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path
from types import FrameType

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LIST = HERE / "quick.txt"
PACKAGES = ("codesign", "rtl_templates", "sim", "boards")
# They run in processes of their own only: inside the simulator, under `python -m`, or by torchrun.
ELSEWHERE = {
    "boards/calibrate.py",
    "boards/uart_testbench.py",
    "codesign/__main__.py",
    "codesign/train/kernels/fused.py",
    "sim/framing.py",
    "sim/launch.py",
    "sim/load_testbench.py",
    "sim/testbench.py",
}

_touched: set[str] = set()
_seconds: dict[str, float] = defaultdict(float)
_counts: Counter[str] = Counter()


def listed() -> list[str]:
    """Lines of the list: a file, or a file and a test (all its parameters), relative to the root."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only the tests that tests/quick.txt names")
    parser.addoption("--touched", action="store_true", help="fail if a module of the packages ran in no test (slow)")


def pytest_configure(config: pytest.Config) -> None:
    _touched.clear()
    _seconds.clear()
    _counts.clear()
    if config.getoption("--touched"):
        if getattr(config.option, "numprocesses", None):
            raise pytest.UsageError("--touched works in one process; leave out -n")
        threading.settrace(_trace)
        sys.settrace(_trace)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without a listed test are not even imported."""
    if not config.getoption("--quick") or collection_path.suffix != ".py" or collection_path.name == "conftest.py":
        return None
    files = {ROOT / line.partition("::")[0] for line in listed()}
    return None if collection_path in files else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        return
    lines = set(listed())
    kept, dropped, found = [], [], set()
    for item in items:
        # A test's own parameters are not part of its name here.
        names = {item.nodeid.partition("::")[0], item.nodeid.partition("[")[0]} & lines
        found |= names
        (kept if names else dropped).append(item)
    items[:] = kept
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    files = {item.nodeid.partition("::")[0] for item in kept + dropped}
    lost = sorted(line for line in lines - found if line.partition("::")[0] in files)
    lost += sorted(line for line in lines if not (ROOT / line.partition("::")[0]).is_file())
    if lost:
        raise pytest.UsageError(f"tests/quick.txt: there is no {', '.join(lost)}")


def _trace(frame: FrameType, event: str, argument: object) -> None:
    code = frame.f_code
    if code.co_name != "<module>":
        _touched.add(code.co_filename)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # A test may leave the tracing off: what it traces with restores what it found, or nothing.
    if item.config.getoption("--touched"):
        threading.settrace(_trace)
        sys.settrace(_trace)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    pytest_runtest_setup(item)


def modules() -> set[str]:
    """Modules of the packages, relative to the root."""
    return {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def has_functions(module: str) -> bool:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))


def _ran() -> set[str]:
    """Modules of which a function ran; of those without any, the ones that were imported."""
    imported = {str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}
    return {
        module
        for module in modules()
        if str(ROOT / module) in (_touched if has_functions(module) else imported | _touched)
    }


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if not config.getoption("--touched"):
        return
    sys.settrace(None)
    if hasattr(config, "workeroutput"):
        config.workeroutput["touched"] = sorted(_ran())
        return
    _touched.update(str(ROOT / module) for module in _ran())
    if _left() and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    _touched.update(str(ROOT / module) for module in getattr(node, "workeroutput", {}).get("touched", ()))


def _left() -> list[str]:
    return sorted(modules() - ELSEWHERE - {str(Path(name).relative_to(ROOT)) for name in _touched if _is_ours(name)})


def _is_ours(name: str) -> bool:
    return Path(name).is_relative_to(ROOT)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    folder = str(Path(report.nodeid.partition("::")[0]).parent)
    _seconds[folder] += report.duration
    _counts[folder] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _seconds:
        terminalreporter.section("time by folder, of all processes")
        for folder, seconds in sorted(_seconds.items(), key=lambda item: -item[1]):
            terminalreporter.line(f"{seconds:8.1f} s {_counts[folder]:6} tests  {folder}")
        terminalreporter.line(f"{sum(_seconds.values()):8.1f} s {sum(_counts.values()):6} tests")
    if config.getoption("--touched"):
        left = _left()
        terminalreporter.section("modules that ran in no test")
        terminalreporter.line("\n".join(left) or "none")
