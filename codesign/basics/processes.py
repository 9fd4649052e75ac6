"""Which of torchrun's processes this is, without importing torch."""

from __future__ import annotations

import os


def process_rank() -> int:
    """0 for the first process, and without torchrun."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
