"""Tables of the documentation that are made from kept figures: `python -m benchmarks.tables` writes them again.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``. A test holds the pages against the figures of the
newest file in benchmarks/releases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from codesign.basics.files import write_text
from codesign.report.explorer import read_peers

ROOT = Path(__file__).resolve().parents[1]
RELEASES = ROOT / "benchmarks" / "releases"
PAGES = (ROOT / "docs" / "accelerator.md", ROOT / "docs" / "results.md", ROOT / "docs" / "peers.md")
MARKED = re.compile(r"(?s)(<!-- table (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)")


def newest(folder: Path = RELEASES) -> dict[str, Any]:
    """Figures of the release with the highest number."""
    numbered = {tuple(map(int, path.stem.split("."))): path for path in folder.glob("*.json")}
    return json.loads(numbered[max(numbered)].read_text(encoding="utf-8"))


def _row(*cells: Any) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _table(titles: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    return "\n".join([_row(*titles), "|" + "---|" * len(titles), *(_row(*row) for row in rows)])


def _machine(figures: Mapping[str, Any]) -> str:
    lanes = ", ".join(map(str, figures["lanes"][:1] if len(set(figures["lanes"])) == 1 else figures["lanes"]))
    streams = figures.get("event_streams", 1)
    parallel = f", {streams} events a clock" if streams > 1 else ""
    return f"{figures['shape']}, lanes {lanes}{parallel}, {figures['input_bits_per_clock']} bits a beat"


def _placed(figures: Mapping[str, Any], target: str) -> tuple[str, ...]:
    """Logic, flip-flops, blocks, DSPs and clock on a device."""
    area, seeds = figures["area"][target], figures["placed_seeds"][target]
    clock = f"{figures['fmax_mhz'][target]:.1f} ({', '.join(f'{mhz:.1f}' for mhz in seeds.values())})"
    return (*(f"{area[kind]:,}" for kind in ("lut", "ff", "bram", "dsp")), clock)


def mnist_designs(kept: Mapping[str, Any]) -> str:
    """Every design of MNIST's small network, on every device that it was placed on."""
    rows = [
        (
            f"*{name}*",
            _machine(figures),
            target,
            *_placed(figures, target),
            f"{figures['latency_cycles']:,.0f}",
            f"**{figures['latency_us'][target]:.2f}**",
            f"{figures['interval_us'][target]:.2f}",
            f"{figures['synapses']:,}",
            f"{figures['accuracy_hardware']:.2%}",
            figures["revision"][:7],
        )
        for name, figures in kept["accelerator"].items()
        if not name.startswith("events")
        for target in sorted(figures["placed_seeds"], reverse=True)
    ]
    titles = ("point", "machine", "device", "logic", "flip-flops", "block RAM", "DSP", "clock, MHz (seeds)")
    last = ("clocks per image", "us per image", "us, back to back", "synapses", "accuracy", "revision")
    return _table((*titles, *last), rows)


def mnist_points(kept: Mapping[str, Any]) -> str:
    """The designs of the goals, in short."""
    rows = [
        (f"*{name}*", target, *_placed(figures, target), f"{figures['latency_us'][target]:.2f}")
        for name in ("small", "balanced", "fast")
        for figures in [kept["accelerator"][name]]
        for target in sorted(figures["placed_seeds"], reverse=True)
    ]
    titles = ("point", "device", "logic", "flip-flops", "block RAM", "DSP", "clock, MHz (seeds)", "us per image")
    return _table(titles, rows)


def event_designs(kept: Mapping[str, Any]) -> str:
    """Every design of the network of binary events."""
    rows = [
        (
            f"*{name}*",
            _machine(figures),
            target,
            *_placed(figures, target),
            f"{figures['cycles_per_timestep']:.1f}",
            figures["revision"][:7],
        )
        for name, figures in kept["accelerator"].items()
        if name.startswith("events")
        for target in figures["placed_seeds"]
    ]
    titles = ("point", "machine", "device", "logic", "flip-flops", "block RAM", "DSP", "clock, MHz (seeds)")
    return _table((*titles, "clocks per timestep", "revision"), rows)


def peers(kept: Mapping[str, Any]) -> str:
    """Others' figures, each with its source."""
    document = read_peers()
    units = document["units"]
    rows = [
        (
            row["name"],
            row["task"],
            row["device"],
            *(f"{row[key]:,g}" if key in row else "" for key in units),
            row["source"],
        )
        for row in document["peers"]
    ]
    return _table(("work", "task, network", "device", *units.values(), "source"), rows)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "mnist-designs": mnist_designs,
    "mnist-points": mnist_points,
    "event-designs": event_designs,
    "peers": peers,
}


def filled(page: str, kept: Mapping[str, Any]) -> str:
    """The page with its tables as the figures have them. Raises KeyError for a table that nobody makes."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found['name']](kept)}\n\n{found[3]}", page)


def main() -> None:
    kept = newest()
    for path in PAGES:
        write_text(path, filled(path.read_text(encoding="utf-8"), kept))


if __name__ == "__main__":
    main()
