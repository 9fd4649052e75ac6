"""What a proof is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .defects import Defect
from .harness import Harness


@dataclass(frozen=True)
class Proof:
    """One proof.

    name : as `python -m tests.proofs NAME` takes it.
    states : the property. of : component and widths.
    mode : `prove` (k-induction: at every time) or `bmc` (within ``depth`` clocks of the start).
    start : `reset` (from registers and memories that held anything) or `any state`.
    harness : makes the harness. defects : what must break it.
    cover_depth : clocks within which every cover is reached.
    fast : part of the default tests.
    """

    name: str
    states: str
    of: str
    mode: str
    depth: int
    harness: Callable[[], Harness]
    defects: tuple[Defect, ...]
    cover_depth: int
    start: str = "reset"
    fast: bool = False
