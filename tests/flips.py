"""Single flipped bits: what a failing disk or memory does to a file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def flips(path: Path, count: int, seed: int) -> Iterator[int]:
    """Flip ``count`` bits of the file, one at a time, each put back before the next; yields the number of the bit."""
    whole = path.read_bytes()
    for bit in np.random.default_rng(seed).choice(8 * len(whole), min(count, 8 * len(whole)), replace=False):
        flip(path, int(bit))
        yield int(bit)
        path.write_bytes(whole)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of the file in place."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
