"""Which machine for a frozen network: all ranked by estimate, the best placed and routed, the winner verified."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codesign.basics.errors import CapacityError, InputError, MismatchError
from codesign.basics.progress import Progress, silent
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.clocks import check_clocks, exact_cycles
from codesign.cost.estimate import checked_clock, source_events
from codesign.cost.search import LIMITS, MEASURES, Objective, Wish, exclusion, rank, search
from codesign.machine.choices import DEFAULTS, PIPELINES, Choices, Pipeline, chosen, keys
from codesign.machine.mapping import HardwareMap, map_network
from codesign.machine.plan import plan_machine

PLACED = ("lut", "ff", "bram", "dsp")
# Samples that the winner is simulated with.
VERIFIED_SAMPLES = 50
# Rows that are shown: the best, whose clocks are exact.
SHOWN = 10


@dataclass(frozen=True)
class Target:
    """What a machine is to run on.

    name : as asked. family, budget : of the device, without a board's link. place : its name for place and route, None
    if there are no tools for it here. clocks : MHz that times are taken at, of each pipeline, ``assumed`` unless given
    or a board's. board : whether a board's link is to reach the machine.
    """

    name: str
    family: str
    budget: Mapping[str, float]
    place: str | None
    clocks: Mapping[Pipeline, float]
    assumed: bool
    board: bool


def find_target(name: str, clock_mhz: float | None = None) -> Target:
    """The board, device or part of that name.

    Raises InputError if there is none, or no clock for it, for a clock that is none, and for one that a board does not
    have.
    """
    from boards.registry import BOARDS, TARGETS, TYPICAL_MHZ, find_device, find_room

    device = find_device(name)
    board = BOARDS.get(name)
    clock = None if board is None else board.clock_hz / 1e6
    if clock_mhz is not None:
        clock_mhz = checked_clock(clock_mhz)
        if clock is not None and clock != clock_mhz:
            raise InputError(f"--clock-mhz {clock_mhz:g}: {name} has a clock of {clock:g} MHz; leave it out")
        clock = clock_mhz
    place = next((target for target, found in TARGETS.items() if found is device), None)
    budget: dict[str, float] = dict(find_room(name).budget)
    clocks = TYPICAL_MHZ.get(name) if clock is None else dict.fromkeys(PIPELINES, clock)
    if clocks is None:
        raise InputError(f"{name}: nothing is known of its clock; give one with --clock-mhz")
    return Target(name, device.family, budget, place, clocks, clock_mhz is None and board is None, board is not None)


def tune(
    network: FrozenNetwork,
    samples: Stimulus,
    target: str,
    *,
    minimise: Objective = "latency",
    within: Mapping[str, float] | None = None,
    allow: Sequence[str] = (),
    clock_mhz: float | None = None,
    place: int = 3,
    seeds: Sequence[int] = (1, 2, 3),
    output: str | Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Machines of ``network`` for ``target``, best first, as rows that ``pandas.DataFrame`` takes.

    samples : calibration samples, which guide the placement and whose events the cycles count.
    target : a board, device or part (:func:`codesign.boards_table`).
    minimise : "latency", "area" (logic cells) or "energy". within : limits, any of latency_us, interval_us, cycles,
        lut, ff, bram, dsp, energy_nj, and clock_mhz, which placed machines have to reach.
    allow : what a host agrees to, of input_checks, counters and output_spikes, which a machine may leave out, and
        input_words, four a beat.
    clock_mhz : for times before a machine is placed; by default a board's, or what is typical of the
        device and the pipeline.
    place : how many of the best are placed and routed, 0 for none; ``seeds`` of place and route.
    output : folder for logs and reports of the tools.

    Of each row: ``lanes``, every choice of hardware, the estimated figures, ``exact`` (whether clocks and times are
    those that simulation has, of the first 50 samples; so for the best ten and for what is placed), ``excluded`` (why
    it cannot be within the limits, or None), and where it was placed ``placed_lut`` and so on, ``placed_mhz``,
    ``placed_latency_us`` and ``missed`` (the limits that it does not keep, in words, "" if it keeps all). Placed rows
    that keep the limits come first. Raises InputError for what there is none of, CapacityError if no machine can be
    within the limits.

    >>> import codesign, numpy as np
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> samples = codesign.Stimulus.from_dense(np.ones((1, 3, 2), bool))
    >>> rows = codesign.tune(network, samples, "ecp5-25f", minimise="area", place=0)
    >>> rows[0]["lanes"], rows[0]["excluded"]
    ([1], None)
    """
    found = find_target(target, clock_mhz)
    wish = Wish(found.family, found.budget, found.clocks, minimise, dict(within or {}), tuple(allow), found.board)
    network.require_hardware()
    if not len(samples):
        raise InputError("tune needs samples whose events it counts; there are none")
    if place and found.place is None:
        raise InputError(f"{target}: there is no place and route for it here; use place = 0 (--place 0)")
    rows = [_flat(row) for row in _told(network, samples, search(network, samples, wish, progress), wish)]
    if rows[0]["excluded"] is not None:
        raise CapacityError(
            f"{target}: no machine of this network is within the limits; the nearest, lanes "
            f"{', '.join(map(str, rows[0]['lanes']))}, takes {rows[0]['excluded']}"
        )
    placing = _worth_placing(rows, place, wish)
    for number, row in enumerate(placing):
        progress(number, len(placing), f"place and route, lanes {', '.join(map(str, row['lanes']))}")
        _tell(network, samples, row, row, wish)
        row |= place_machine(
            network, samples, row, found, seeds, None if output is None else Path(output) / f"placed{number}"
        )
        row["missed"] = _missed(row, wish)
    return _best_first(rows, wish)


def _told(network: FrozenNetwork, samples: Stimulus, rows: list[dict[str, Any]], wish: Wish) -> list[dict[str, Any]]:
    """The rows with exact clocks of those that are shown, in the order that they then have."""
    while True:
        near = [row for row in rows[:SHOWN] if row["estimated"] is not None and not row["estimated"]["exact"]]
        if not near:
            return rows
        for row in near:
            if not _tell(network, samples, row["estimated"], _flat(row), wish):
                return rows
            row["excluded"] = exclusion(wish, row["estimated"])
        rows = rank(rows, wish)


def _tell(
    network: FrozenNetwork, samples: Stimulus, figures: dict[str, Any], row: Mapping[str, Any], wish: Wish
) -> bool:
    """Replace the clocks in ``figures`` by those of simulation, of the samples that a winner is simulated with; False
    if there is no compiler. row : of the machine, flat."""
    if figures["exact"]:
        return True
    plan = plan_machine(network, mapped(network, samples, row))
    clocks = exact_cycles(plan, _simulated(samples))
    if clocks is None:
        return False
    latency, interval = clocks["latency_cycles"], clocks["interval_cycles"] or clocks["latency_cycles"]
    assert latency is not None and interval is not None
    figures |= {
        "cycles": latency,
        "latency_us": latency / wish.clocks[row["pipeline"]],
        "interval_us": interval / wish.clocks[row["pipeline"]],
        "exact": True,
    }
    return True


def _simulated(samples: Stimulus) -> Stimulus:
    """What a winner is simulated with."""
    return samples.take(slice(0, min(VERIFIED_SAMPLES, len(samples))))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    choices = {key: row["choices"].get(key, getattr(DEFAULTS, key)) for key in keys()}
    figures = row["estimated"] or {}
    return {"lanes": row["lanes"], **choices, **figures, "excluded": row["excluded"]}


def choices_of(row: Mapping[str, Any]) -> Choices:
    """The choices of a row."""
    return Choices(**{key: row[key] for key in keys()})


def mapped(network: FrozenNetwork, samples: Stimulus, row: Mapping[str, Any]) -> HardwareMap:
    """The placement of a row's machine, as ``codesign generate`` makes it."""
    return map_network(network, row["lanes"], source_events(network, samples), choices_of(row))


def _worth_placing(rows: list[dict[str, Any]], count: int, wish: Wish) -> list[dict[str, Any]]:
    """The best by estimate, no two with the same figures; where time counts, of each pipeline, whose clocks differ;
    and of those that may keep the limits, though by estimate they do not, the ones that would be better."""
    timed = wish.board or not {"latency_us", "interval_us", "clock_mhz"}.isdisjoint(
        (*(wish.within or {}), MEASURES[wish.minimise][0])
    )
    best = rows[0][MEASURES[wish.minimise][0]] if wish.over(rows[0]) <= 0 else math.inf
    seen: set[tuple[Any, ...]] = set()
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        figures = tuple(row.get(kind) for kind in (*PLACED, "cycles"))
        if row["excluded"] is not None or figures in seen:
            continue
        seen.add(figures)
        over = wish.over(row) > 0
        if not over or row[MEASURES[wish.minimise][0]] < best:
            groups.setdefault((row["pipeline"] if timed else "", over), []).append(row)
    return [row for turn in zip_longest(*groups.values()) for row in turn if row is not None][:count]


def place_machine(
    network: FrozenNetwork,
    samples: Stimulus,
    row: Mapping[str, Any],
    target: Target,
    seeds: Sequence[int],
    folder: Path | None,
) -> dict[str, Any]:
    """``placed_lut`` and so on of a row's machine, ``placed_mhz``, None if it does not fit, and times at that clock.

    folder : for the bundle, logs and reports of the tools; None keeps none.
    """
    from boards.synth import synth_bundle
    from codesign.config import SynthConfig
    from rtl_templates.bundle import write_bundle

    config = SynthConfig.model_validate({"families": [], "fmax": [target.place], "seeds": list(seeds)})
    with TemporaryDirectory(prefix="codesign-tune-") as temporary:
        work = Path(temporary) if folder is None else folder
        write_bundle(network, mapped(network, samples, row), work / "bundle")
        entry = synth_bundle(work / "bundle", config, work / "synth")["placed"][target.place]
    mhz = entry["fmax_mhz"]
    # A board's clock is what it is.
    assumed = target.clocks[row["pipeline"]]
    clock = min(mhz, assumed) if mhz and target.board else mhz
    times = {
        f"placed_{kind}": row["cycles"] / clock if kind == "latency_us" else row[kind] * assumed / clock
        for kind in ("latency_us", "interval_us")
        if clock
    }
    return {**{f"placed_{kind}": entry[kind] for kind in PLACED}, "placed_mhz": mhz, **times}


def _missed(row: Mapping[str, Any], wish: Wish) -> str:
    """What of the limits a placed machine does not keep."""
    found = []
    limits = dict(wish.limits)
    clock = limits.pop("clock_mhz", wish.clocks[row["pipeline"]] if wish.board else None)
    if row["placed_mhz"] is None:
        return "does not fit the device"
    if clock is not None and row["placed_mhz"] < clock:
        found.append(f"{row['placed_mhz']:.1f} of {clock:g} MHz")
    for kind, limit in limits.items():
        value = row.get(f"placed_{kind}", row.get(kind))
        if value is not None and value > limit:
            found.append(f"{value:.4g} of {limit:g} {LIMITS[kind]}")
    return ", ".join(found)


def _best_first(rows: list[dict[str, Any]], wish: Wish) -> list[dict[str, Any]]:
    """Placed machines that keep the limits, then those that were not placed, in their order."""
    kept = [row for row in rows if row.get("missed") == ""]
    kept.sort(key=lambda row: tuple(row.get(f"placed_{name}", row[name]) for name in MEASURES[wish.minimise]))
    return kept + [row for row in rows if row.get("missed") != ""]


def winner(rows: Sequence[Mapping[str, Any]], target: str) -> Mapping[str, Any]:
    """The row to build. Raises CapacityError if machines were placed and none keeps the limits."""
    placed = [row for row in rows if "missed" in row]
    if placed and placed[0]["missed"]:
        raise CapacityError(
            f"{target}: none of the {len(placed)} machines that were placed keeps the limits; the nearest, lanes "
            f"{', '.join(map(str, placed[0]['lanes']))}, has {placed[0]['missed']}; place more (--place)"
        )
    return rows[0]


def build_winner(
    network: FrozenNetwork,
    samples: Stimulus,
    row: Mapping[str, Any],
    folder: Path,
    name: str = "snn",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Generate a row's bundle in ``folder``/bundle and simulate it; exact, or MismatchError.

    Returns samples, comparisons and mismatches, what the simulation took, latency_cycles and interval_cycles, and
    told_clocks (:func:`codesign.cost.clocks.check_clocks`; None without a compiler).
    """
    from rtl_templates.bundle import write_bundle
    from sim.verify import verify_bundle

    mapping = mapped(network, samples, row)
    write_bundle(network, mapping, folder / "bundle", name=name)
    found = verify_bundle(
        folder / "bundle", network, _simulated(samples), folder / "verify", waves=False, progress=progress
    )
    if not found.passed:
        raise MismatchError(f"{folder / 'bundle'}: hardware differs from software: {found.first_difference}")
    told = check_clocks(plan_machine(network, mapping), _simulated(samples), found.times)
    return {
        "samples": found.samples,
        "comparisons": sum(found.comparisons.values()),
        "mismatches": found.mismatches,
        "latency_cycles": found.latency_cycles,
        "interval_cycles": found.interval_cycles,
        "told_clocks": None if told is None else told.document(),
    }


def hardware_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """``[hardware]`` of a row: lanes and the choices that are not the default."""
    choices = choices_of(row)
    return {"lanes": list(row["lanes"]), **{key: getattr(choices, key) for key in chosen(choices)}}
