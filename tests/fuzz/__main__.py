"""``python -m tests.fuzz``: a campaign of any size, or one case again."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.campaign import campaign, choose
from tests.fuzz.targets import TARGETS, make_case, prepare


def say(text: object) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--target", action="append", default=[], choices=list(TARGETS), help="these targets only")
    parser.add_argument("--case", type=int, help="one case of --target, its folder kept")
    parser.add_argument("--prepared", type=Path, help="folder of the undamaged files; made if it is not there")
    options = parser.parse_args()
    prepared = options.prepared or Path(tempfile.mkdtemp(prefix="fuzz-prepared-"))
    if not (prepared / "events.npz").exists():
        prepare(prepared)
    if options.case is not None:
        from tests.fuzz.worker import run

        folder = Path(tempfile.mkdtemp(prefix="fuzz-case-"))
        case = make_case(prepared, folder, TARGETS[options.target[0]], options.seed, options.case)
        print(case.label[:500], case.arguments, run(case), sep="\n")  # noqa: T201
        return 0
    started = time.monotonic()
    cases = choose(options.files, options.seed, deep=True, names=options.target)
    found = campaign(prepared, cases, options.seed, workers=options.workers, show=say)
    say(f"seed {options.seed}: {sum(found.outcomes.values())} files in {time.monotonic() - started:.0f} s")
    say(f"exit codes {dict(sorted(found.outcomes.items()))}, {found.slowest:.2f} s, {found.largest >> 20} MiB at most")
    say(dict(found.by_target))
    return bool(found.faults)


if __name__ == "__main__":
    sys.exit(main())
