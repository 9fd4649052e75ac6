"""Tables of the documentation that are made from kept figures: `python -m benchmarks.tables` writes them again.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``. A test holds the pages against the figures of the
newest file in benchmarks/releases.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accelerator import DESIGNS
from codesign.basics.files import write_text
from codesign.machine.goals import GOALS
from codesign.report.explorer import read_peers

ROOT = Path(__file__).resolve().parents[1]
RELEASES = ROOT / "benchmarks" / "releases"
PAGES = (ROOT / "README.md", ROOT / "docs" / "accelerator.md", ROOT / "docs" / "results.md", ROOT / "docs" / "peers.md")
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
    hardware = figures.get("hardware", {})
    more = f", {streams} events a clock" if streams > 1 else ""
    more += ", in lock step" * hardware.get("lockstep", False) + ", no FIFOs" * (not hardware.get("spike_fifos", True))
    return f"{figures['shape']}, lanes {lanes}{more}, {figures['input_bits_per_clock']} bits a beat"


Column = Callable[[str, Mapping[str, Any], str], str]


def _cells(kind: str) -> Column:
    return lambda name, figures, target: f"{figures['area'][target][kind]:,}"


def _clock(name: str, figures: Mapping[str, Any], target: str) -> str:
    seeds = ", ".join(f"{mhz:.1f}" for mhz in figures["placed_seeds"][target].values())
    return f"{figures['fmax_mhz'][target]:.1f} ({seeds})"


# What a column says of a design (its name and figures) on a device.
COLUMNS: dict[str, Column] = {
    "point": lambda name, figures, target: f"*{name}*",
    "machine": lambda name, figures, target: _machine(figures),
    "device": lambda name, figures, target: target,
    "logic": _cells("lut"),
    "flip-flops": _cells("ff"),
    "block RAM": _cells("bram"),
    "DSP": _cells("dsp"),
    "clock, MHz (seeds)": _clock,
    "clocks per image": lambda name, figures, target: f"{figures['latency_cycles']:,.0f}",
    "us per image": lambda name, figures, target: f"{figures['latency_us'][target]:.2f}",
    "us, back to back": lambda name, figures, target: f"{figures['interval_us'][target]:.2f}",
    "clocks per timestep": lambda name, figures, target: f"{figures['cycles_per_timestep']:.1f}",
    "synapses": lambda name, figures, target: f"{figures['synapses']:,}",
    "accuracy": lambda name, figures, target: f"{figures['accuracy_hardware']:.2%}",
    "revision": lambda name, figures, target: figures["revision"][:7],
}
PLACED = ("logic", "flip-flops", "block RAM", "DSP", "clock, MHz (seeds)")


def designs(network: str, columns: Sequence[str], goals: bool = False) -> Callable[[Mapping[str, Any]], str]:
    """Makes the table of the design points of a network, on every device that each was placed on.

    network : of :class:`benchmarks.accelerator.DesignPoint`. columns : of :data:`COLUMNS`. goals : only those that have
    a goal's name.
    """

    def table(kept: Mapping[str, Any]) -> str:
        rows = [
            tuple(COLUMNS[column](name, figures, target) for column in columns)
            for name, figures in kept["accelerator"].items()
            if DESIGNS[name].network == network and (name in GOALS or not goals)
            for target in sorted(figures["placed_seeds"], reverse=True)
        ]
        return _table(tuple(columns), rows)

    return table


def _range(values: Sequence[float], form: str) -> str:
    """One value, or the least and the greatest of the seeds."""
    low, high = min(values), max(values)
    return f"{low:{form}}" + (f" to {high:{form}}" if high > low else "")


def _accuracy(figures: Mapping[str, Any], *, each: bool) -> str:
    """Mean and standard deviation over the seeds, in %; ``each``: and every seed's."""
    values, form = figures["accuracy"], f".{figures['decimals']}f"
    if len(values) == 1:
        return f"{values[0]:{form}} %" + figures.get("accuracy_note", "") * each
    seeds = ", ".join(f"{value:{form}}" for value in values)
    told = f" ({seeds}; seeds 0 to {len(values) - 1})" if each else f" ({len(values)} seeds)"
    text = f"{statistics.mean(values):{form}} % ± {statistics.stdev(values):{form}}{told}"
    return text + figures.get("accuracy_note", "") * each


def _lanes(lanes: Sequence[int]) -> str:
    return f"{', '.join(map(str, lanes))} lane{'s' * (list(lanes) != [1])}"


def _clocks(figures: Mapping[str, Any]) -> str:
    """``cycles``: a sample's latency where an ``interval`` is kept beside it, else as samples back to back take it."""
    return "latency " * ("interval" in figures) + _range(figures["cycles"], ",")


def examples(kept: Mapping[str, Any]) -> str:
    """What became of every example that was run to its end."""
    rows = []
    for name, figures in kept["examples"].items():
        density = f"{_range(figures['density'], '.1f')} % ({_range(figures['synapses'], ',')})"
        if work := figures.get("synaptic_operations"):
            counted = _range(work, ",") if max(work) < 1e6 else f"{max(work) / 1e6:.2f} million"
            density += f", {counted} synaptic operations"
        verified = f"{figures['verified']:,} of {figures['test']:,}{figures.get('of', '')}, {figures['differing']}"
        if compared := figures.get("spikes_and_membranes"):
            verified += f" ({compared:,} spikes and membranes)"
        cycles = _clocks(figures)
        if interval := figures.get("interval"):
            cycles += f", a decision every {interval:,}"
        cycles += f" ({'folded, ' * figures.get('folded', False)}{_lanes(figures['lanes'])})"
        accuracy = _accuracy(figures, each=True)
        rows.append((f"`{name}`", figures["network"], accuracy, density, verified, cycles, figures["whole_run"]))
    titles = ("example", "network, timesteps", "accuracy", "density (synapses)", "verified in RTL, differing values",
              "clocks per sample", "whole run")  # fmt: skip
    return _table(titles, rows)


def chosen_examples(kept: Mapping[str, Any]) -> str:
    """The README's: those with a ``short`` description."""
    rows = [
        (
            f"`{name}`",
            figures["short"],
            _accuracy(figures, each=False),
            _range(figures["synapses"], ","),
            f"{figures['verified']:,} of {figures['test']:,}, {figures['differing']}",
            f"{_clocks(figures)} on {_lanes([sum(figures['lanes'])])}",
        )
        for name, figures in kept["examples"].items()
        if "short" in figures
    ]
    titles = ("example", "network", "accuracy", "synapses", "simulated in RTL, values that differ", "clocks per sample")
    return _table(titles, rows)


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
    "mnist-designs": designs(
        "mnist",
        (
            "point",
            "machine",
            "device",
            *PLACED,
            "clocks per image",
            "us per image",
            "us, back to back",
            "synapses",
            "accuracy",
            "revision",
        ),
    ),
    "mnist-points": designs("mnist", ("point", "device", *PLACED, "us per image"), goals=True),
    "event-designs": designs("events", ("point", "machine", "device", *PLACED, "clocks per timestep", "revision")),
    "peers": peers,
    "examples": examples,
    "chosen-examples": chosen_examples,
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
