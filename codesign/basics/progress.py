"""How long work tells whoever started it where it is."""

from __future__ import annotations

import time
from typing import Protocol


class Progress(Protocol):
    """Called as often as there is news: ``progress(done, total, text)``.

    ``done`` of ``total`` units of one step (``total`` 0 if unknown); ``text`` is a short remark such as
    ``"validation 96.7 %"``.
    """

    def __call__(self, done: float, total: float, text: str = "") -> None: ...


def silent(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""


class News:
    """Whether it is time to tell of work inside a step's unit, such as an epoch: every ``seconds`` at most."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds, self._told = seconds, time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._told < self._seconds:
            return False
        self._told = now
        return True
