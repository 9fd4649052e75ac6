"""Reads a delivered bundle: whether every file is the one that the sidecar describes, and the words of its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.basics.files import file_hash
from codesign.contract.sidecar import SIDECAR, MemoryImage, Sidecar, read_sidecar

__all__ = ["SIDECAR", "altered_files", "check_files", "read_image", "read_sidecar", "unpack"]

# Bytes of a word's line beyond its digits: the line end and a comment.
MAX_COMMENT = 200


def check_files(bundle: Path, sidecar: Sidecar) -> None:
    """Raise InputError unless every file is there and is the one that the sidecar describes."""
    altered = altered_files(bundle, sidecar)
    if altered:
        raise InputError(
            f"{bundle / altered[0]}: not the file that design.json describes (sha256 differs); generate it again"
        )


def altered_files(bundle: Path, sidecar: Sidecar) -> list[str]:
    """Files of the bundle whose hash is not the one that the sidecar states.

    Raises InputError if a file is missing or an image has not the stated depth and width: Verilator takes a missing or
    short ``$readmemh`` image for zeros, so this comes before each simulation.
    """
    altered = []
    for name, expected in sidecar.files.items():
        path = bundle / name
        if not path.is_file():
            raise InputError(f"{path}: missing from the bundle; generate it again")
        if file_hash(path) != expected:
            altered.append(name)
    for memory in sidecar.images:
        if memory.image not in sidecar.files:
            raise InputError(f"{bundle / memory.image}: design.json states no hash of it; generate it again")
        read_image(bundle, memory)
    return altered


def read_image(bundle: Path, memory: MemoryImage) -> list[int]:
    """Words of one ``$readmemh`` image. Raises InputError unless it has exactly the stated depth and width."""
    path = bundle / memory.image
    if not path.is_file():
        raise InputError(f"{path}: missing from the bundle; generate it again")
    # A digit for every four bits, and a line end.
    if path.stat().st_size > (memory.depth + 1) * (memory.width // 4 + MAX_COMMENT):
        raise InputError(f"{path}: more than the {memory.depth} words that design.json states; generate it again")
    try:
        tokens = [
            token for line in path.read_text(encoding="ascii").splitlines() for token in line.partition("//")[0].split()
        ]
        values = [int(token, 16) for token in tokens]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a $readmemh image ({str(error)[:100]})") from None
    if len(values) != memory.depth:
        raise InputError(f"{path}: {len(values)} words, design.json states {memory.depth}; generate it again")
    if values and not 0 <= min(values) <= max(values) < 1 << memory.width:
        raise InputError(f"{path}: a word exceeds {memory.width} bits; generate it again")
    return values


def unpack(words: list[int], memory: MemoryImage) -> dict[str, npt.NDArray[np.int64]]:
    """Fields of image words by name, int64 (depth,), from the offsets and widths in the sidecar."""
    columns = {}
    for item in memory.fields:
        raw = [(word >> item.offset) & ((1 << item.width) - 1) for word in words]
        if item.signed:
            raw = [value - (1 << item.width) if value >> (item.width - 1) else value for value in raw]
        columns[item.name] = np.array(raw, np.int64)
    return columns
