"""What people read: the pages build strictly, links lead somewhere, the README stays short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]
README_LINES = 120
SENTENCE_WORDS = 25


def prose(text: str) -> str:
    """The text without code, tables, pictures and headings; links as their words."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    kept = [line for line in text.splitlines() if not re.match(r"\s{4}|\||#|!\[", line)]
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", "\n".join(kept))


def sentences(text: str) -> list[str]:
    """Sentences of prose; an item of a list and a paragraph end one too. A dot inside a word or number does not."""
    blocks = re.split(r"\n\s*\n|\n(?=- )", prose(text))
    return [part for block in blocks for part in re.split(r"(?<=[.:;!?])\s+", " ".join(block.split())) if part]


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    assert [part for part in sentences(text) if len(part.split()) > SENTENCE_WORDS] == []


def test_long_sentences_are_seen() -> None:
    text = "# Title\n\nOne " + "word " * 30 + "end. Two.\n\n    " + "code " * 40 + "\n\n| " + "cell " * 40 + "|\n"
    assert [len(part.split()) for part in sentences(text)] == [32, 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    found = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={"NO_MKDOCS_2_WARNING": "1"}
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert (tmp_path / "site" / "index.html").is_file()
    # Nothing is fetched from anywhere when a page is read.
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', page) == []


@pytest.mark.parametrize("command", re.findall(r"`codesign ([a-z]+)", (ROOT / "docs/commands.md").read_text()))
def test_documented_commands_exist(command: str) -> None:
    from typer.main import get_command

    from codesign.cli.app import app

    assert command in get_command(app).commands  # type: ignore[attr-defined]


def quoted() -> list[str]:
    """Pieces of messages that the page of errors quotes: what stands between its dots."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (?!you see|---|code|\d+ )(.*?) \|", text)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    pieces = [piece.strip(" :;,") for quote in quotes for piece in quote.split("...")]
    return sorted({piece for piece in pieces if len(piece) > 4 and not piece.startswith(("--", "data.", "codesign "))})


def test_messages_that_the_page_of_errors_quotes_exist() -> None:
    sources = [*(ROOT / "codesign").rglob("*.py"), *(ROOT / "boards").rglob("*.py"), *(ROOT / "sim").rglob("*.py")]
    text = "".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")) for path in sources)
    assert [piece for piece in quoted() if piece not in text] == []


def test_messages_are_quoted() -> None:
    assert len(quoted()) > 12


def test_recordings_are_cut_into_windows_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    import codesign

    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    code = next(block.split("```")[0] for block in text.split("```python\n")[1:] if "def windows" in block)
    labels = np.repeat([0, 1, 0, 1], 450)
    times = np.arange(0, 1800, 3)
    recordings = [((times, times % 5, labels), split) for split in ("train", "validation", "test")]
    monkeypatch.chdir(tmp_path)
    exec(code, {"recordings": recordings})
    config = codesign.parse_config({"data": {"set": "npz", "path": "windows.npz"}})
    dataset = codesign.load_dataset(config.data)
    # Of 17 windows of each recording two hold a change at 450 ms, one that at 900 ms, two that at 1,350 ms.
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [12, 12, 12]
