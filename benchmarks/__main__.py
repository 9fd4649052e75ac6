"""Every measurement, one command: `python -m benchmarks [PART ...]`.

Parts: pipeline (speed of the parts of a run), scale, density, accelerator (the design points, with others' figures
beside them). Figures are kept in benchmarks/releases/VERSION.json, each part with the revision that it was measured
on; a part that is not asked for stays as it is. The documentation's tables are made of them (benchmarks.tables).
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import accelerator, density, pipeline, scale, tables
from codesign.basics.files import write_json
from codesign.report.explorer import read_peers

HERE = Path(__file__).parent
PARTS: dict[str, Callable[[Sequence[str]], Any]] = {
    "pipeline": pipeline.main,
    "scale": scale.main,
    "density": density.main,
    "accelerator": accelerator.main,
}


def revision() -> str | None:
    """Commit of the checkout, with a + if files differ from it; None outside of one."""
    try:
        commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
        commit, changes = (
            subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("+" if changes else "")


def keep(path: Path, part: str, figures: Any) -> None:
    """Put a part's figures into the release's file. Rows of designs that were not measured again stay."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    measured = revision()
    if part == "accelerator":
        designs = kept.get(part, {})
        figures = designs | {row["design"]: {"revision": measured, **row} for row in figures}
    else:
        figures = {"revision": measured, **figures}
    write_json(path, {**kept, "version": version("codesign"), part: figures})


def peers() -> str:
    """Others' figures on the same tasks, each with its source."""
    document = read_peers()
    lines = []
    for row in document["peers"]:
        figures = ", ".join(f"{row[key]:,g} {unit}" for key, unit in document["units"].items() if key in row)
        lines.append(f"{row['name']:22} {row['task']}, {row['device']}: {figures} ({row['source']})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="every measurement")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--design", action="append", default=[], help="of part accelerator; default: all")
    parser.add_argument("--releases", type=Path, default=HERE / "releases", help="folder of the kept figures")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    options.releases.mkdir(parents=True, exist_ok=True)
    for part in options.parts or PARTS:
        given = [word for name in options.design for word in ("--design", name)] if part == "accelerator" else []
        keep(options.releases / f"{version('codesign')}.json", part, PARTS[part](given))
        if part == "accelerator":
            print(peers())
    if options.releases == HERE / "releases":
        tables.main()


if __name__ == "__main__":
    main()
