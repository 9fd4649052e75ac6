"""Defects that are seeded into the delivered components: a proof that still passes then proves nothing."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from codesign.machine.plan import Widths


@dataclass(frozen=True)
class Edit:
    """One edit of a component's source: every place that matches ``pattern`` becomes ``text``.

    owner : the class. method : its method. Raises LookupError where the pattern is not found, so that no defect gets
    lost when a component is rewritten.
    """

    owner: type
    pattern: str
    text: str
    method: str = "elaborate"

    @contextmanager
    def applied(self) -> Iterator[None]:
        original = getattr(self.owner, self.method)
        source = textwrap.dedent(inspect.getsource(original))
        changed, count = re.subn(self.pattern, self.text, source)
        if not count:
            raise LookupError(f"{self.owner.__name__}.{self.method} has no {self.pattern!r}: seed this defect anew")
        names: dict[str, Any] = {}
        # Annotations stay unevaluated, as in the component's own file.
        exec(compile(f"from __future__ import annotations\n{changed}", "<defect>", "exec"), original.__globals__, names)
        with patch.object(self.owner, self.method, names[self.method]):
            yield


@dataclass(frozen=True)
class Narrower:
    """Accumulators of one bit less than the weights need."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        original = Widths.of_layer

        def narrow(*arguments: Any, **keywords: Any) -> Widths:
            return narrowed(original(*arguments, **keywords), 1)

        with patch.object(Widths, "of_layer", narrow):
            yield


def narrowed(widths: Widths, bits: int) -> Widths:
    """Widths whose accumulator is so many bits too narrow."""
    if widths.has_sum:
        return replace(widths, sum=widths.sum - bits)
    return replace(widths, state=widths.state - bits, potential=widths.potential - bits)


@dataclass(frozen=True)
class Defect:
    """What is wrong, and how it gets into the component: an edit, or a harness whose component is made otherwise."""

    name: str
    edit: Edit | Narrower | None = None
    harness: Callable[[], Any] | None = None
