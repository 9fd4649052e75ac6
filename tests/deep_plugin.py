"""Plugin of pytest for :mod:`tests.deep`: leaves out what has passed, and notes what becomes of each of the others.

A line of JSON each: first ``{"collected": N}``, then ``{"test", "outcome", "seconds"}`` as a test ends, so that a run
that is stopped loses only the test that it was at. Tests that would begin too late do not run, and are not noted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest


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
        self._file = given("--deep-outcomes")
        # Workers of a run in several processes collect; the one that started them is told what becomes of the tests.
        self._is_worker = hasattr(config, "workerinput")
        self._found: dict[str, tuple[str, float]] = {}

    # After pytest's own, which leaves out what is not deep.
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._note({"collected": len(items)})
        left_out = [item for item in items if item.nodeid in self._passed]
        items[:] = [item for item in items if item.nodeid not in self._passed]
        config.hook.pytest_deselected(items=left_out)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        return True if time.time() > self._until else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome, seconds = self._found.pop(report.nodeid, ("passed", 0.0))
        if outcome == "passed":
            outcome = report.outcome
        self._found[report.nodeid] = (outcome, seconds + report.duration)
        if report.when == "teardown" and not self._is_worker:
            self._note({"test": report.nodeid, "outcome": outcome, "seconds": round(seconds + report.duration, 1)})

    def _note(self, line: dict[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
