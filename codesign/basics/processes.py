"""Which of torchrun's processes this is, without importing torch."""

from __future__ import annotations

import os

from codesign.basics.errors import InputError


def process_rank() -> int:
    """0 for the first process, and without torchrun."""
    return _number("RANK", 0)


def process_count() -> int:
    """1 without torchrun."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not (text.isascii() and text.isdecimal()):
        raise InputError(
            f"the environment variable {name} is {text[:40]!r}, not the number that torchrun sets; unset it"
        )
    return int(text or default)
