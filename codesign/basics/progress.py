"""How long work tells whoever started it where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as often as there is news: ``progress(done, total, text)``.

    ``done`` of ``total`` units of one step (``total`` 0 if unknown); ``text`` is a short remark such as
    ``"validation 96.7 %"``.
    """

    def __call__(self, done: float, total: float, text: str = "") -> None: ...


def silent(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""
