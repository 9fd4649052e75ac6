"""What `codesign tune` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import write_json, write_text
from codesign.cli.console import Table, console
from codesign.cli.kinds import kind_of
from codesign.cli.targets import check_writable, overridden
from codesign.config import Config, HardwareConfig
from codesign.config.text import config_toml
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.search import Objective
from codesign.pipeline.tuning import SHOWN, build_winner, find_target, hardware_keys, tune, winner
from codesign.records.names import MANIFEST, NETWORK
from codesign.records.rundir import RunDirectory

RESULT = "tune.json"


def run(
    source: Path,
    target: str,
    minimise: str,
    within: Sequence[str],
    allow: Sequence[str],
    clock_mhz: float | None,
    place: int,
    samples: Path | None,
    output: Path | None,
) -> None:
    found = find_target(target, clock_mhz)
    limits = _limits(within)
    network, stimulus, config = _read(source, samples)
    if output is None and kind_of(source) != "run":
        raise InputError(f"{source}: a frozen network alone needs -o DIR, the folder that the results go to")
    folder = output or source / "tune" / target
    if (folder / MANIFEST).is_file():
        raise OutputError(f"{folder}: is a run directory, which keeps its own machine; choose another folder with -o")
    check_writable(folder)
    console.folder = folder
    console.step("search")
    rows = tune(
        network,
        stimulus,
        target,
        minimise=cast("Objective", minimise),
        within=limits,
        allow=[name for names in allow for name in names.split(",")],
        clock_mhz=clock_mhz,
        place=place,
        output=folder,
        progress=console.progress,
    )
    document: dict[str, Any] = {
        "target": target,
        "network_hash": network.hash,
        "minimise": minimise,
        "within": limits,
        "clock_mhz": dict(found.clocks),
        "clock_assumed": found.assumed,
        "candidates": len(rows),
        "excluded": sum(row["excluded"] is not None for row in rows),
        "rows": rows,
        # Not known until the first is simulated.
        "hardware": None,
        "verified": None,
    }
    write_json(folder / RESULT, document)
    chosen = winner(rows, target)
    console.step("generate and verify")
    hardware = hardware_keys(chosen)
    verified = build_winner(network, stimulus, chosen, folder, config.hardware.name, console.progress)
    write_text(folder / "config.toml", _configuration(config, hardware, source))
    document |= {"hardware": hardware, "verified": verified}
    write_json(folder / RESULT, document)
    shown = {**document, "folder": str(folder), "rows": rows[:SHOWN]}
    console.finish(shown, _table(document, folder))


def _limits(texts: Sequence[str]) -> dict[str, float]:
    """``latency_us=10 lut=2000`` as numbers."""
    found: dict[str, float] = {}
    for text in (part for given in texts for part in given.replace(",", " ").split()):
        key, _, value = text.partition("=")
        try:
            found[key] = float(value)
        except ValueError:
            raise InputError(f"--within {text}: expected KEY=NUMBER, such as latency_us=10") from None
    return found


def _read(source: Path, samples: Path | None) -> tuple[FrozenNetwork, Stimulus, Config]:
    from codesign.pipeline.work import load_calibration

    if kind_of(source) == "run":
        run = RunDirectory.open(source)
        run.check(NETWORK)
        network = FrozenNetwork.load(source / NETWORK)
        stimulus = Stimulus.load(samples, network.n_outputs) if samples else load_calibration(source)
        if stimulus is None:
            raise InputError(f"{source}: has no calibration samples; give some with --samples FILE")
        return network, stimulus, run.read_config([])
    network = FrozenNetwork.load(source)
    if samples is None:
        raise InputError(f"{source}: a frozen network alone needs --samples FILE, whose events are counted")
    return network, Stimulus.load(samples, network.n_outputs), overridden([], network)


def _configuration(config: Config, hardware: Mapping[str, Any], source: Path) -> str:
    """The configuration with the winner's hardware; of a network without one, [hardware] alone."""
    section = HardwareConfig.model_validate({"name": config.hardware.name, **hardware})
    changed = config.model_copy(update={"hardware": section})
    return config_toml(changed, None if kind_of(source) == "run" else {"hardware": ()})


def _table(document: Mapping[str, Any], folder: Path) -> Table:
    """The best machines: estimated and, where they were placed, measured."""
    table = Table("lanes", "machine", "lut", "ff", "bram", "dsp", "clocks", "us", "placed")
    for row in document["rows"][:SHOWN]:
        choices = hardware_keys(row)
        del choices["lanes"]
        placed = ""
        if row.get("placed_mhz"):
            placed = (
                f"{row['placed_lut']} lut, {row['placed_bram']:g} bram, {row['placed_mhz']:.1f} MHz, "
                f"{row['placed_latency_us']:.2f} us"
            )
        if row.get("missed"):
            placed += f" misses {row['missed']}"
        figures = [f"{row[kind]:g}" if kind in row else "" for kind in ("lut", "ff", "bram", "dsp")]
        table.add_row(
            ", ".join(map(str, row["lanes"])),
            ", ".join(f"{key} {_word(value)}" for key, value in choices.items()) or "defaults",
            *figures,
            f"{row['cycles']:.0f}" if "cycles" in row else "",
            f"{row['latency_us']:.2f}" if "latency_us" in row else "",
            placed or (row["excluded"] or ""),
        )
    assumed = ", assumed" if document["clock_assumed"] else ""
    table.caption = (
        f"{document['candidates']} machines, {document['excluded']} beyond the limits; times at "
        f"{_clocks(document['clock_mhz'])}{assumed}. The first is in {folder}: config.toml, bundle, {RESULT}; "
        f"{document['verified']['comparisons']} values compared, {document['verified']['mismatches']} different"
    )
    return table


def _clocks(clocks: Mapping[str, float]) -> str:
    if len(set(clocks.values())) == 1:
        return f"{next(iter(clocks.values())):g} MHz"
    return " and ".join(f"{mhz:g} MHz ({pipeline})" for pipeline, mhz in clocks.items())


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
