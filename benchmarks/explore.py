"""Searches, measured: `python -m benchmarks.explore workers|killed|samplers [SPACE] [--networks N] [--json]`.

workers : the same study with one worker and with two, in turns, each by a process of its own in an empty folder, so
    that both pay for what they start. Shown are the seconds of each, the ratio of each pair and its median, and the
    load before each. Whatever else runs makes the second worker worth less.
killed : the study undisturbed, and once more with two workers of which one is killed every ``--every`` seconds, as is
    the command itself once, which is then given again.
samplers : the hypervolume that each sampler reaches with as many networks, seed by seed.

Of the first two the points have to be the same; the program ends with 1 if they are not. No point is generated or
placed: that is other work than the search's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tomlkit

from codesign.explore import load_space
from codesign.explore.fronts import hypervolume, scaled
from codesign.explore.points import REFERENCE

EXAMPLE = Path(__file__).parents[1] / "examples" / "explore.toml"


def shortened(path: Path, folder: Path, networks: int, **search: Any) -> Path:
    """A space file in ``folder`` like that at ``path``, of so many networks, with nothing made of its front.

    search : other keys of its own.
    """
    space = {**tomllib.loads(path.read_text(encoding="utf-8")), "front": {"most": 0}, "budget": {"networks": networks}}
    space |= {"base": dict(load_space(path).base), **search}
    written = folder / f"space-{'-'.join(map(str, search.values()))}.toml"
    written.write_text(space_text(space), encoding="utf-8")
    return written


def space_text(space: dict[str, Any]) -> str:
    """A space as a file has it. In line, ranges stay in their place: the order of the axes decides what is sampled."""
    axes = {}
    for key, axis in space["axes"].items():
        axes[key] = axis
        if isinstance(axis, dict):
            axes[key] = tomlkit.inline_table()
            axes[key].update(axis)
    return tomlkit.dumps({**space, "axes": axes})


def command(space: Path, folder: Path, workers: int) -> list[str]:
    return [sys.executable, "-m", "codesign", "explore", str(space), "-o", str(folder), "--workers", str(workers)]


def table(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "explore.json").read_text(encoding="utf-8"))


def points(folder: Path) -> list[tuple[Any, ...]]:
    """What two studies have to share: every point's name, choices and figures, and whether it is of the front."""
    return [(point["name"], point["choices"], point["metrics"], point["front"]) for point in table(folder)["points"]]


def study(space: Path, workers: int, folder: Path) -> dict[str, Any]:
    """``{"workers", "seconds", "load", "points"}`` of one study. Raises CalledProcessError if it fails."""
    load, begun = os.getloadavg()[0], time.perf_counter()
    subprocess.run(command(space, folder, workers), check=True, capture_output=True)
    return {"workers": workers, "seconds": time.perf_counter() - begun, "load": load, "points": points(folder)}


def worker_processes(pid: int) -> list[int]:
    """Worker processes of a study's process: children of the process from which they are forked."""
    import psutil

    try:
        servers = [child for child in psutil.Process(pid).children() if "forkserver" in " ".join(child.cmdline())]
        return [worker.pid for server in servers for worker in server.children() if worker.num_threads() > 3]
    except psutil.NoSuchProcess:
        return []


def disturbed(space: Path, folder: Path, every: float, *, commands: int = 1, workers: int = 2) -> dict[str, Any]:
    """A study of which one worker is killed every so many seconds, in turns, and the command after every third of
    these, ``commands`` times in all.

    Returns ``{"workers_killed", "commands_killed", "seconds"}``. Raises RuntimeError if the command ends with an error.
    """
    killed, stopped, begun = 0, 0, time.perf_counter()
    running = subprocess.Popen(command(space, folder, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            if running.wait(every) != 0:
                raise RuntimeError(f"{folder}: the study ended with {running.returncode}")
            break
        except subprocess.TimeoutExpired:
            pass
        if stopped < commands and killed >= 3 * (stopped + 1):
            running.send_signal(signal.SIGKILL)
            running.wait()
            stopped += 1
            running = subprocess.Popen(
                command(space, folder, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        elif found := worker_processes(running.pid):
            os.kill(found[killed % len(found)], signal.SIGKILL)
            killed += 1
    return {"workers_killed": killed, "commands_killed": stopped, "seconds": time.perf_counter() - begun}


def compare_workers(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    space, rows = shortened(given.space, work, given.networks), []
    for pair in range(given.pairs):
        for workers in (1, 2):
            row = study(space, workers, work / f"{pair}-{workers}")
            if rows and row["points"] != rows[0]["points"]:
                sys.exit(f"{workers} workers: other points than those of the first study")
            rows.append(row)
            say(given, f"{workers} workers: {row['seconds']:.1f} s, load before {row['load']:.1f}")
    ratios = [one["seconds"] / two["seconds"] for one, two in zip(rows[::2], rows[1::2], strict=True)]
    say(
        given,
        f"2 workers are {statistics.median(ratios):.2f} times as fast as 1 "
        f"(pairs: {', '.join(f'{ratio:.2f}' for ratio in ratios)})",
    )
    return {
        "networks": given.networks,
        "studies": [{key: value for key, value in row.items() if key != "points"} for row in rows],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def compare_killed(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    space = shortened(given.space, work, given.networks)
    if given.whole is None:
        whole = study(space, 2, work / "whole")
        say(given, f"undisturbed: {len(whole['points'])} points in {whole['seconds']:.1f} s")
    else:
        whole = {"points": points(given.whole), "seconds": None}
    found = disturbed(space, work / "killed", given.every)
    say(
        given,
        f"{found['workers_killed']} workers and {found['commands_killed']} command killed: {found['seconds']:.1f} s",
    )
    if points(work / "killed") != whole["points"]:
        sys.exit("the disturbed study has other points")
    folders = [network["folder"] for network in table(work / "killed")["networks"]]
    say(given, f"the same {len(whole['points'])} points of {len(set(folders))} networks")
    return {"networks": given.networks, "points": len(whole["points"]), "undisturbed": whole["seconds"], **found}


def costs(document: dict[str, Any]) -> list[tuple[int, list[float]]]:
    """(network, objectives to be small) of the points that keep the constraints."""
    aims = {name: -1.0 if aim == "maximise" else 1.0 for name, aim in document["space"]["objectives"].items()}
    kept = [point for point in document["points"] if not point["broken"] and not point["unknown"]]
    return [(point["network"], [sign * point["metrics"][name] for name, sign in aims.items()]) for point in kept]


def compare_samplers(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Objectives are scaled over the points of all studies; the reference is a tenth beyond the worst."""
    found: dict[tuple[str, int], list[tuple[int, list[float]]]] = {}
    for seed in range(given.seeds):
        for sampler in ("tpe", "random"):
            space = shortened(given.space, work, given.networks, sampler=sampler, seed=seed)
            folder = work / f"{sampler}-{seed}"
            shared = ["--networks", str(work / "networks")]
            subprocess.run([*command(space, folder, 2), *shared], check=True, capture_output=True)
            found[sampler, seed] = costs(table(folder))
    every = np.array([row for rows in found.values() for _, row in rows])
    low, high = every.min(axis=0), every.max(axis=0)
    volumes = {}
    for (sampler, seed), rows in found.items():
        volumes[f"{sampler} {seed}"] = reached = []
        for count in range(4, given.networks + 1, 4):
            part = [row for network, row in rows if network < count]
            reached.append(hypervolume(scaled(part, low, high), [REFERENCE] * len(low)) / REFERENCE ** len(low))
        say(given, f"{sampler:6} seed {seed}: {', '.join(f'{volume:.3f}' for volume in reached)}")
    return {"networks": list(range(4, given.networks + 1, 4)), "hypervolume": volumes}


def say(given: argparse.Namespace, text: str) -> None:
    if not given.json:
        print(text, flush=True)


QUESTIONS = {"workers": compare_workers, "killed": compare_killed, "samplers": compare_samplers}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("space", type=Path, nargs="?", default=EXAMPLE, help="a space file; default: the example's")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3, help="workers: studies with one and with two")
    parser.add_argument("--every", type=float, default=60, help="killed: seconds from one killed worker to the next")
    parser.add_argument("--whole", type=Path, help="killed: a finished study to compare with; default: it is made")
    parser.add_argument("--seeds", type=int, default=3, help="samplers: studies of each")
    parser.add_argument("--work", type=Path, help="folder where the studies stay; default: none stays")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as name:
        work = given.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        found = QUESTIONS[given.question](given, work)
    if given.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
