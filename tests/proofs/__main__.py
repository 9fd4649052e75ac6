"""`python -m tests.proofs [NAME ...]`: runs proofs, their covers and their defects, and prints a table."""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .catalogue import all_proofs
from .check import Verdict, check
from .proof import Proof


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 if every proof holds, is not vacuous, and breaks with each of its defects; else 1, 2 for bad use."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("names", nargs="*", help="proofs, or beginnings of several names; all by default")
    parser.add_argument("--list", action="store_true", help="list the proofs and end")
    parser.add_argument("--fast", action="store_true", help="those of the default tests alone")
    parser.add_argument("--jobs", type=int, default=1, help="proofs at a time")
    parser.add_argument("--keep", type=Path, help="folder for everything that the tools write; temporary by default")
    parser.add_argument("--waveform", action="store_true", help="write traces as VCD too (slow); goes with --keep")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one run of the solver may take")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/proofs.md")
    options = parser.parse_args(arguments)
    proofs = [proof for proof in all_proofs() if proof.fast or not options.fast]
    for name in options.names:
        if not any(proof.name.startswith(name) for proof in proofs):
            parser.error(f"no proof is called {name!r}; --list names them")
    if options.names:
        # A whole name is that proof, also where others begin with it.
        whole = {proof.name for proof in proofs} & set(options.names)
        beginnings = tuple(set(options.names) - whole)
        proofs = [proof for proof in proofs if proof.name in whole or proof.name.startswith(beginnings)]
    if options.list:
        for proof in proofs:
            _say(f"{proof.name:28} {'fast' if proof.fast else '    '} {proof.of}: {proof.states}")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        verdicts = _run(proofs, options.keep or Path(temporary), options)
    _say(_markdown(verdicts) if options.markdown else _table(verdicts))
    failed = [verdict.proof.name for verdict in verdicts if not verdict.ok]
    _say(
        f"{len(verdicts) - len(failed)} of {len(verdicts)} proofs hold"
        + "".join(f"\nfailed: {name}" for name in failed)
    )
    return 1 if failed else 0


def _run(proofs: list[Proof], folder: Path, options: argparse.Namespace) -> list[Verdict]:
    verdicts = {}
    keywords = {"waveform": options.waveform, "timeout": options.timeout}
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        futures = [pool.submit(check, proof, folder / proof.name, **keywords) for proof in proofs]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                verdict = future.result()
                verdicts[verdict.proof.name] = verdict
                _say(f"[{done}/{len(proofs)}] {verdict.line}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [verdicts[proof.name] for proof in proofs]


def _table(verdicts: list[Verdict]) -> str:
    return "\n".join(["", *(verdict.line for verdict in verdicts), ""])


def _markdown(verdicts: list[Verdict]) -> str:
    rows = ["| proof | component | mode, depth, start | seconds | defects that break it |", "|---|---|---|---|---|"]
    for verdict in verdicts:
        proof = verdict.proof
        rows.append(
            f"| `{proof.name}` | {proof.of} | {verdict.mode} | {verdict.seconds:.0f} | "
            f"{', '.join(defect.name for defect in proof.defects)} |"
        )
    return "\n".join(rows)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
