"""Arguments and options that commands share, declared once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from codesign.cli.kinds import Kind, expect

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR",
        help="folder of the results; of a configuration runs/NAME, of a run the run itself",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change one key of the configuration, e.g. train.epochs=5"),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="seed of the training")]
Compute = Annotated[str, typer.Option("--device", help="what trains: cpu, cuda, cuda:N or auto")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout and nothing else")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
Force = Annotated[bool, typer.Option("--force", help="do it again even if nothing changed")]


def among(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell offers in place of a word that is begun."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def example_names() -> list[str]:
    from codesign.config import examples

    return examples.example_names()


def board_names() -> Iterable[str]:
    from boards.registry import BOARDS

    return BOARDS


def target_names() -> list[str]:
    """Boards, devices and parts."""
    from boards.registry import BOARDS, PARTS, TARGETS

    return [*BOARDS, *TARGETS, *PARTS]


def data_set_names() -> list[str]:
    from codesign.data import describe

    return [entry["name"] for entry in describe() if entry["can_download"]]


Fpga = Annotated[
    str | None, typer.Option("--device", help="refuse what does not fit this FPGA", autocompletion=among(target_names))
]


def argument(*kinds: Kind, help: str) -> Any:
    """An argument that is one of ``kinds``, which is checked before anything heavy is imported."""
    return typer.Argument(metavar="|".join(kinds).upper(), callback=expect(*kinds), help=help)


def arguments(*kinds: Kind, help: str) -> Any:
    """One argument or several, each as :func:`argument`."""
    check = expect(*kinds)
    return typer.Argument(
        metavar=f"{'|'.join(kinds).upper()}...", callback=lambda paths: [check(path) for path in paths], help=help
    )
