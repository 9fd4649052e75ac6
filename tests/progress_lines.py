"""How a line of progress on stderr looks: every test that leaves such lines out asks here."""

from __future__ import annotations

import re

# What codesign.cli.console writes every few seconds where no bar can be drawn: indented, the share done at its end.
# Three steps of verification do not know theirs; they are named, as other words would hide a second line of an error.
_PROGRESS = re.compile(
    r"  ((.+, )?\d+ %(, .+ left)?"
    r"|building the simulator|recording a waveform of the divergence|making [a-z]+ mutants)$"
)


def is_progress(line: str) -> bool:
    """True for a line that says how far a step is, to its end; False for one that announces or ends a step."""
    return _PROGRESS.match(line) is not None
