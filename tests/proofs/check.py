"""A proof counts if it holds, if all its covers are reached, and if each of its defects breaks it."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from . import sby
from .defects import Defect
from .harness import Harness, emit
from .proof import Proof

# A defect is in a component's class while its harness is emitted: one at a time.
EMITTING = threading.Lock()


@dataclass
class Verdict:
    """What came of a proof: the statuses of its tasks, by name, and how long they took."""

    proof: Proof
    statuses: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        wanted = {"proof": "PASS", "cover": "PASS", **{defect.name: "FAIL" for defect in self.proof.defects}}
        return self.statuses == wanted

    @property
    def mode(self) -> str:
        kind = "k-induction" if self.proof.mode == "prove" else f"BMC, {self.proof.depth} clocks"
        return f"{kind}, from {self.proof.start}"

    @property
    def line(self) -> str:
        statuses = ", ".join(f"{name} {status}" for name, status in self.statuses.items())
        notes = "".join(f"\n{note}" for note in self.notes)
        head = f"{'ok  ' if self.ok else 'BAD '} {self.proof.name:28} {self.seconds:6.1f} s"
        return f"{head}  {self.mode}: {statuses}{notes}"


def check(proof: Proof, folder: Path, *, waveform: bool = False, timeout: float = 600) -> Verdict:
    """Run a proof, its covers and its defects in ``folder``; ``waveform`` as for :func:`.sby.run`."""
    verdict = Verdict(proof)

    def task(name: str, rtlil: str, mode: str, depth: int, wanted: str) -> None:
        place = folder / name.replace(" ", "-")
        result = sby.run(rtlil, place, mode=mode, depth=depth, waveform=waveform, timeout=timeout)
        status = result.status
        if status == "FAIL" and mode != "cover" and result.trace is None:
            status = "FAIL without a counterexample"
        verdict.statuses[name] = status
        verdict.seconds += result.seconds
        if status != wanted:
            verdict.notes.append(result.summary)

    text = emitted(proof.harness)
    task("proof", text, proof.mode, proof.depth, "PASS")
    task("cover", text, "cover", proof.cover_depth, "PASS")
    for defect in proof.defects:
        try:
            text = seeded(defect)
        except LookupError as error:
            verdict.statuses[defect.name] = "LOST"
            verdict.notes.append(str(error))
            continue
        # A defect must be shown by a run of the component, which the induction does not give.
        task(defect.name, text, "bmc", max(proof.depth, proof.cover_depth), "FAIL")
    return verdict


def emitted(harness) -> str:
    """RTLIL of a harness."""
    with EMITTING:
        built: Harness = harness()
        return emit(built)


def seeded(defect: Defect) -> str:
    """RTLIL of a harness whose component has the defect."""
    if defect.harness is None:
        raise ValueError(f"defect {defect.name!r} has no harness")
    with EMITTING, defect.edit.applied() if defect.edit else nullcontext():
        return emit(defect.harness())
