"""Plugin of pytest for :mod:`tests.deep`: leaves out what has passed, and notes what becomes of each of the others.

A line of JSON each: first ``{"collected": N}``, then ``{"test", "outcome", "seconds"}`` as a test ends, so that a run
that is stopped loses only the test that it was at. Tests that would begin too late are skipped and not noted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

LATE = "no time left"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep-passed", type=Path, help="JSON list of tests to leave out")
    parser.addoption("--deep-outcomes", type=Path, help="file for what becomes of the tests")
    parser.addoption("--deep-until", type=float, default=float("inf"), help="no test begins after it (seconds, epoch)")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Outcomes(config), "deep-outcomes")


class Outcomes:
    def __init__(self, config: pytest.Config) -> None:
        given: Any = config.getoption
        self._passed = set(json.loads(given("--deep-passed").read_text()))
        self._until = given("--deep-until")
        # Workers of a run in several processes report to the one that started them.
        self._file = None if hasattr(config, "workerinput") else given("--deep-outcomes")
        self._found: dict[str, tuple[str, float]] = {}

    # After pytest's own, which leaves out what is not deep.
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._note({"collected": len(items)})
        left_out = [item for item in items if item.nodeid in self._passed]
        items[:] = [item for item in items if item.nodeid not in self._passed]
        config.hook.pytest_deselected(items=left_out)

    def pytest_runtest_setup(self) -> None:
        if time.time() > self._until:
            pytest.skip(LATE)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome, seconds = self._found.pop(report.nodeid, ("passed", 0.0))
        if report.skipped and LATE in str(report.longrepr):
            outcome = "late"
        elif outcome == "passed":
            outcome = report.outcome
        self._found[report.nodeid] = (outcome, seconds + report.duration)
        if report.when == "teardown" and outcome != "late":
            self._note({"test": report.nodeid, "outcome": outcome, "seconds": round(seconds + report.duration, 1)})

    def _note(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(line)}\n")
