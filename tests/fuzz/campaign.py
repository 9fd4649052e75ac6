"""Many cases over several workers, and the judgement of each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.targets import TARGETS, Target
from tests.progress_lines import is_progress

SECONDS = 2.0
SLOWER = 2.0
"""A command that takes more than a second on the intact file may take so many times that on a damaged one."""
BYTES = 1 << 30
CODES = (2, 3, 4, 6, 7)
ROOT = Path(__file__).resolve().parents[2]
# A step that is announced is no error, whether or not it has a number.
STEP = re.compile(r"(\[\d+/\d+\] )?[a-z]+( .*)?( [\d.]+ s)?$")


@dataclass
class Result:
    """Cases by outcome (exit code), and those that ended as none may."""

    outcomes: Counter[str] = field(default_factory=Counter)
    by_target: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0


def judge(answer: dict[str, Any]) -> list[str]:
    """What is wrong with the end of a case; nothing for most."""
    code, err = answer["code"], answer["err"]
    lines = [line for line in err.splitlines() if line and not line.startswith("codesign: warning: ")]
    said = [line for line in lines if line.startswith("codesign: ")]
    wrong = []
    if code != 0 and code not in CODES:
        wrong.append(f"exit code {code}")
    if len(said) != (code != 0):
        wrong.append(f"{len(said)} lines for exit code {code}")
    others = [line for line in lines if not line.startswith("codesign: ") and not is_progress(line)]
    if not all(map(STEP.match, others)) or "Traceback" in err:
        wrong.append("more than one line")
    if "fault in codesign" in err:
        wrong.append("called a fault")
    if any(len(line) > 2000 for line in said):
        wrong.append("a line of thousands of characters")
    if answer["seconds"] > max(SECONDS, SLOWER * answer["undamaged"]):
        wrong.append(f"{answer['seconds']:.1f} s")
    if answer["peak"] > BYTES:
        wrong.append(f"{answer['peak'] >> 20} MiB")
    if answer["out"].startswith("{"):
        try:
            json.loads(answer["out"], parse_constant=lambda name: [][0])
        except (ValueError, IndexError):
            wrong.append("the result is not JSON")
    return wrong


def choose(count: int, seed: int, *, deep: bool, names: Sequence[str] = ()) -> list[tuple[str, int]]:
    """``count`` cases over the targets, by their weights; the same for the same seed."""
    chosen: list[Target] = [
        target for target in TARGETS.values() if (deep or not target.deep) and (not names or target.name in names)
    ]
    weights = np.array([target.weight for target in chosen])
    shares = np.maximum(1, np.floor(count * weights / weights.sum()).astype(int))
    cases = [(target.name, index) for target, share in zip(chosen, shares) for index in range(int(share))]
    order = np.random.default_rng(seed).permutation(len(cases))
    return [cases[index] for index in order]


def campaign(
    prepared: Path,
    cases: Iterable[tuple[str, int]],
    seed: int,
    *,
    workers: int = 1,
    show: Callable[[str], None] | None = None,
) -> Result:
    """Run cases and judge them. ``show`` is told of each fault as it is found."""
    result, todo = Result(), list(cases)

    def work(part: list[tuple[str, int]]) -> None:
        while part:
            done = 0
            for answer in _answers(prepared, seed, part):
                done += 1
                wrong = judge(answer)
                result.outcomes["fault" if wrong else str(answer["code"])] += 1
                result.by_target[answer["target"]] += 1
                result.slowest = max(result.slowest, answer["seconds"])
                result.largest = max(result.largest, answer["peak"])
                if wrong:
                    last = (answer["err"].strip().splitlines() or [""])[-1][:400]
                    fault = (
                        f"{', '.join(wrong)}: {answer['label'][:200]}: {last} (python -m tests.fuzz --seed {seed} "
                        f"--target '{answer['target']}' --case {answer['index']})"
                    )
                    result.faults.append(fault)
                    if show:
                        show(fault)
            if done < len(part):
                name, index = part[done]
                fault = f"the process died: --seed {seed} --target '{name}' --case {index}"
                result.outcomes["fault"] += 1
                result.faults.append(fault)
                if show:
                    show(fault)
            part = part[done + 1 :]

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(work, todo[start::workers]) for start in range(workers)]:
            future.result()
    return result


def _answers(prepared: Path, seed: int, cases: list[tuple[str, int]]) -> Iterable[dict[str, Any]]:
    """Answers of one worker process, until all cases are answered or it dies."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.worker", str(prepared), str(seed)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            for name, index in cases:
                try:
                    print(name, index, file=process.stdin, flush=True)
                except BrokenPipeError:
                    return
                line = process.stdout.readline()
                if not line:
                    return
                yield json.loads(line)
        finally:
            process.kill()
