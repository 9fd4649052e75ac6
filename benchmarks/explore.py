"""What a second worker brings a search: `python -m benchmarks.explore [SPACE] [--networks N] [--pairs N] [--json]`.

The same study is done with one worker and with two, in turns, each by a process of its own in an empty folder, so that
both pay for what they start. Shown are the seconds of each, the ratio of each pair and its median, and the load before
each. Whatever else runs makes the second worker worth less. The points have to be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomlkit

from codesign.explore import load_space

EXAMPLE = Path(__file__).parents[1] / "examples" / "explore.toml"


def study(space: Path, workers: int, folder: Path) -> dict[str, Any]:
    """``{"workers", "seconds", "load", "points"}`` of one study. Raises CalledProcessError if it fails."""
    load, begun = os.getloadavg()[0], time.perf_counter()
    command = [sys.executable, "-m", "codesign", "explore", str(space), "-o", str(folder), "--workers", str(workers)]
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - begun
    table = json.loads((folder / "explore.json").read_text(encoding="utf-8"))
    points = [(point["name"], point["choices"], point["metrics"], point["front"]) for point in table["points"]]
    return {"workers": workers, "seconds": seconds, "load": load, "points": points}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space", type=Path, nargs="?", default=EXAMPLE, help="a space file; default: the example's")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    # No point is made and simulated: that is other work than the search's.
    space = {**tomllib.loads(options.space.read_text(encoding="utf-8")), "front": {"most": 0}}
    space["budget"] = {"networks": options.networks}
    space["base"] = dict(load_space(options.space).base)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as name:
        (Path(name) / "space.toml").write_text(tomlkit.dumps(space), encoding="utf-8")
        for pair in range(options.pairs):
            for workers in (1, 2):
                row = study(Path(name) / "space.toml", workers, Path(name) / f"{pair}-{workers}")
                if rows and row["points"] != rows[0]["points"]:
                    sys.exit(f"{workers} workers: other points than those of the first study")
                rows.append(row)
                if not options.json:
                    print(f"{workers} workers: {row['seconds']:.1f} s, load before {row['load']:.1f}", flush=True)
    ratios = [one["seconds"] / two["seconds"] for one, two in zip(rows[::2], rows[1::2], strict=True)]
    found = {
        "networks": options.networks,
        "studies": [{key: value for key, value in row.items() if key != "points"} for row in rows],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"2 workers are {found['ratio']:.2f} times as fast as 1 (pairs: {', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
