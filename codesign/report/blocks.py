"""What a page is made of: sections of blocks, rendered by one template with every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from codesign.basics.files import write_text
from codesign.report.interactive import embedded, plotly_packed
from codesign.report.plots import to_svg

if TYPE_CHECKING:
    from codesign.report.collect import Record

TEMPLATES = Path(__file__).resolve().parent / "templates"

UNMEASURED = "not measured"
Width = Literal["full", "half", "third", "two-thirds"]
Mood = Literal["good", "bad", "open"]
Block = dict[str, Any]
LETTERS = [chr(ord("a") + index) for index in range(26)]


@dataclass(frozen=True)
class Section:
    """A card of the page. ``key`` is its anchor and makes the ids of its figures unique."""

    key: str
    title: str
    width: Width = "full"
    blocks: list[Block] = field(default_factory=list)

    def figure(self, figure: Figure, description: str, caption: str = "") -> None:
        self.panels([(figure, description)], caption)

    def panels(self, figures: Sequence[tuple[Figure, str]], caption: str = "") -> None:
        """Figures side by side, as many in a row as there is room for; each with what a screen reader says."""
        drawn = [
            Markup(to_svg(figure, f"{self.key}{len(self.blocks)}{letter}", description))
            for letter, (figure, description) in zip(LETTERS, figures, strict=False)
        ]
        self.blocks.append({"kind": "figures", "figures": drawn})
        if caption:
            self.caption(caption)

    def caption(self, text: str) -> None:
        self.blocks.append({"kind": "caption", "text": text})

    def text(self, text: str) -> None:
        self.blocks.append({"kind": "text", "text": text})

    def heading(self, text: str) -> None:
        self.blocks.append({"kind": "heading", "text": text})

    def code(self, text: str) -> None:
        self.blocks.append({"kind": "code", "text": text})

    def alert(self, mood: Mood, title: str, text: str) -> None:
        self.blocks.append({"kind": "alert", "mood": mood, "title": title, "text": text})

    def missing(self, what: str, command: str = "", state: str = UNMEASURED) -> None:
        self.blocks.append({"kind": "missing", "what": what, "command": command, "state": state})

    def facts(self, rows: Sequence[tuple[str, object]]) -> None:
        self.blocks.append({"kind": "facts", "rows": [(name, str(value)) for name, value in rows]})

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]], bad: Sequence[int] = ()) -> None:
        self.blocks.append({"kind": "table", "head": list(head), "rows": [list(row) for row in rows], "bad": list(bad)})

    def links(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Rows of (text of the link, its address, text behind it)."""
        self.blocks.append({"kind": "links", "rows": list(rows)})

    def closer(self, text: str, data: dict[str, Any]) -> None:
        """A figure that a reader may ask for beside the still ones; ``text`` is on its button.

        data : what ``templates/closer.js.j2`` draws, of the ``kind`` "curves" or "traces".
        """
        self.blocks.append({"kind": "closer", "text": text, "data": embedded(data)})

    def samples(self, items: Sequence[dict[str, Any]]) -> None:
        self.blocks.append({"kind": "samples", "items_": list(items)})


def state_of(record: Record, verb: str) -> str:
    """Why a stage has left nothing that counts."""
    status = str(record.run.stage(verb).get("status"))
    return {"done": "out of date", "failed": "failed", "interrupted": "interrupted"}.get(status, UNMEASURED)


def gap(section: Section, record: Record, what: str, verb: str) -> None:
    """Say that something is missing, why, and which command makes it."""
    state = {"failed": f"`{verb}` failed", "interrupted": f"`{verb}` was interrupted"}
    found = state_of(record, verb)
    section.missing(what, f"codesign {verb} {record.name}", state.get(found, found))


def tile(name: str, value: str, note: str = "", *, bad: bool = False) -> dict[str, Any]:
    """A number of the headline."""
    return {"name": name, "value": value, "note": note, "bad": bad}


def write_page(
    path: Path,
    *,
    title: str,
    subtitle: str,
    verdict: tuple[Mood, str, str] | None,
    tiles: Sequence[dict[str, Any]],
    sections: Sequence[Section],
    footer: str,
) -> None:
    """Write one self-contained HTML page, atomically."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        verdict=None if verdict is None else dict(zip(("mood", "title", "text"), verdict, strict=True)),
        tiles=tiles,
        sections=sections,
        footer=footer,
        plotly=plotly_packed() if any(block["kind"] == "closer" for item in sections for block in item.blocks) else "",
    )
    write_text(path, page)


def number(value: Any, digits: int = 0, unit: str = "") -> str:
    """A figure for reading; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,.{digits}f}{unit}"


def share(value: Any, digits: int = 1) -> str:
    """A fraction as percent; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}%}"
