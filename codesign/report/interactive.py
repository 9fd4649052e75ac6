"""Plotly in a page that opens offline: its program, compressed, and the figures that a page's own script draws.

The program is in the page once. A page unpacks it when its reader asks for the first figure, so that opening a page
costs nothing. Of the bundles of Plotly the Python package brings only the whole one: 4.8 MB, here 2.0 MB of base64 of
gzip. The smaller bundles would be a third of that, but have no package here.
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup


@lru_cache(maxsize=1)
def plotly_packed() -> Markup:
    """Plotly's program as base64 of gzip; the same bytes every time."""
    program = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return Markup(base64.b64encode(gzip.compress(program, 9, mtime=0)).decode())


def embedded(document: Any) -> Markup:
    """JSON that ends no element of the page, whatever stands in it."""
    return Markup(json.dumps(document, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))
