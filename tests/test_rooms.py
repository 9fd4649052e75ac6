"""The rooms of ARCHITECTURE.md are the layers that import-linter checks."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_rooms_in_the_text_are_the_layers_that_are_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (rooms,) = (c for c in contracts if c.get("containers") == ["codesign"])
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Rooms")[1].split("\n## ")[0]
    table = text.split("| needs |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == rooms["layers"]
    folders = {path.name for path in (ROOT / "codesign").iterdir() if (path / "__init__.py").is_file()}
    assert rooms["exhaustive"] and folders == set(rooms["layers"])
    # No loose module beside the rooms.
    assert {path.name for path in (ROOT / "codesign").glob("*.py")} == {"__init__.py", "__main__.py"}
