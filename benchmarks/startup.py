"""How soon the command line answers: `python -m benchmarks.startup [--tree DIR]... [--repeats N] [--json]`.

Each command is started several times; shown are the shortest wall-clock time and the least CPU time (the two differ
where the machine is busy), and how many modules it imported. `--tree` names checkouts to compare; default: this one.
A first start, which compiles to bytecode, is not counted: an installation has it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

COMMANDS = ("--version", "--help", "boards", "data list", "doctor --help", "runn x", "run none.toml")


def measure(words: str, tree: Path, repeats: int, folder: Path) -> dict[str, Any]:
    """``{seconds, cpu_seconds, modules}`` of one command; bytecode is kept below ``folder``."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(folder)}
    command = [sys.executable, "-m", "codesign", *words.split()]
    walls, cpus = [], []
    for count in range(repeats + 1):
        before, start = _children_cpu(), time.perf_counter()
        subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        if count:
            walls.append(time.perf_counter() - start)
            cpus.append(_children_cpu() - before)
    traced = [sys.executable, "-X", "importtime", *command[1:]]
    told = subprocess.run(traced, cwd=folder, env=environment, capture_output=True, text=True, check=False).stderr
    modules = sum(line.startswith("import time:") for line in told.splitlines()) - 1
    return {"seconds": min(walls), "cpu_seconds": min(cpus), "modules": modules}


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, action="append", help="a checkout")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    trees = [tree.resolve() for tree in options.tree or [Path(__file__).parents[1]]]
    rows = []
    with TemporaryDirectory() as folder:
        for words in COMMANDS:
            for tree in trees:
                row = {"command": words, "tree": str(tree), **measure(words, tree, options.repeats, Path(folder))}
                rows.append(row)
                if not options.json:
                    print(
                        f"{words:15} {row['seconds']:.2f} s, {row['cpu_seconds']:.2f} s of CPU, "
                        f"{row['modules']:4} modules  {tree}"
                    )
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
