"""Damaged files end in a result or in one line, whatever was done to them; the fuzzers see what they are there for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import mutations
from tests.fuzz.campaign import Result, campaign, choose, judge
from tests.fuzz.targets import TARGETS, prepare

FILES = 200
DEEP_FILES = 20_500


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    prepare(folder)
    return folder


@pytest.fixture
def seed() -> Iterator[int]:
    """``CODESIGN_FUZZ_SEED``, or else always the same cases."""
    yield int(os.environ.get("CODESIGN_FUZZ_SEED", "0"))


def shown(result: Result, seed: int) -> str:
    text = "\n".join(result.faults[:40])
    return f"seed {seed}, outcomes {dict(result.outcomes)}: {len(result.faults)} cases ended as none may\n{text}"


@pytest.mark.hardware
def test_damaged_files_end_in_a_result_or_in_one_line(prepared: Path, seed: int) -> None:
    cases = choose(FILES, seed, deep=False)
    result = campaign(prepared, cases, seed)
    assert not result.faults, shown(result, seed)
    assert sum(result.outcomes.values()) == len(cases) >= 0.9 * FILES
    assert set(result.by_target) == {name for name, target in TARGETS.items() if not target.deep}
    # A campaign that only breaks what is checked first would find nothing.
    assert result.outcomes["0"] > 0.03 * FILES


@pytest.mark.deep
@pytest.mark.hardware
def test_many_damaged_files_end_in_a_result_or_in_one_line(prepared: Path, seed: int) -> None:
    cases = choose(DEEP_FILES, seed + 1, deep=True)
    result = campaign(prepared, cases, seed + 1)
    print(f"seed {seed + 1}: {dict(result.outcomes)}, {result.slowest} s, {result.largest >> 20} MiB at most")  # noqa: T201
    assert not result.faults, shown(result, seed + 1)
    assert sum(result.outcomes.values()) >= 20_000


def test_a_case_is_made_again_from_its_seed() -> None:
    content = b'{"a": [1, 2, {"b": null}], "c": "text"}'
    for index in range(50):
        first, again = (mutations.damage(content, "json", np.random.default_rng([1, index])) for _ in range(2))
        assert first == again
    assert len({mutations.damage(content, "json", np.random.default_rng([1, index])) for index in range(50)}) > 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": 1}, "exit code 1"),
        ({"code": 5}, "exit code 5"),
        ({"code": 2, "err": ""}, "0 lines for exit code 2"),
        ({"code": 0, "err": "codesign: something\n"}, "1 lines for exit code 0"),
        ({"err": "codesign: a\ncodesign: b\n"}, "2 lines for exit code 2"),
        ({"err": "Traceback (most recent call last):\ncodesign: a\n"}, "more than one line"),
        ({"err": "  simulating, 94 %, 0 s left of it all.\ncodesign: a\n"}, "more than one line"),
        ({"err": "codesign: a fault in codesign (KeyError)\n"}, "called a fault"),
        ({"seconds": 2.5}, "2.5 s"),
        ({"peak": 2 << 30}, "2048 MiB"),
        ({"code": 0, "err": "", "out": '{"a": NaN}'}, "the result is not JSON"),
    ],
)
def test_what_may_not_be_is_seen(change: dict[str, object], words: str) -> None:
    answer: dict[str, object] = {
        "code": 2,
        "out": "",
        "err": "freeze\n  quantised, epoch 1 of 1, 77 %\n"
        "[1/1] verify\n  simulating, 94 %, 0 s left\ncodesign: what, where\n",
    }
    answer |= {"seconds": 0.1, "undamaged": 0.1, "peak": 1 << 28}
    assert judge(answer) == []
    assert words in judge({**answer, **change})


def test_a_worker_that_dies_is_a_fault_of_its_case(tmp_path: Path) -> None:
    result = campaign(tmp_path, [("no such target", 0)], 0)
    assert "the process died" in result.faults[0]
