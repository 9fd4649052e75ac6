"""What the commands show that need no run: boards, data sets, this machine, an empty configuration.

Nothing heavy is imported, so that they answer at once.
"""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

from codesign.basics.errors import InputError, OutputError, ToolError
from codesign.cli.console import Table, console


def boards() -> None:
    from boards.registry import boards_table, devices_table

    rows, devices = boards_table(), devices_table()
    table = Table("board", "what", "device", "MHz", "budget")
    for row in rows:
        budget = ", ".join(f"{count} {kind}" for kind, count in row["budget"].items())
        table.add_row(row["name"], row["title"], row["device"], f"{row['clock_mhz']:g}", budget)
    for row in devices:
        budget = ", ".join(f"{count} {kind}" for kind, count in row["budget"].items())
        what = f"{row['family']} FPGA" + ("" if row["placed"] else ", estimated only")
        table.add_row(row["name"], what, row["part"], "", budget)
    console.finish({"boards": rows, "devices": devices}, table)


def init(path: Path, example: str | None, *, force: bool) -> None:
    from codesign.basics.files import write_text

    if path.suffix != ".toml":
        raise InputError(f"{path}: the name of a configuration ends in .toml")
    if path.exists() and not force:
        raise OutputError(f"{path}: exists already; choose another name, or --force replaces it")
    if example is None:
        from codesign.config.text import config_template

        text = config_template()
    else:
        from codesign.config import examples

        text = examples.example(example).read_text(encoding="utf-8")
    write_text(path, text)
    document = tomllib.loads(text)
    # Spaces of a search have axes, and a configuration of their networks.
    space = "axes" in document
    name = (document["base"] if space else document)["data"]["set"]
    where = "base.data" if space else "data"
    console.finish(
        {"config": str(path)},
        f"{path} is ready: `codesign {'explore' if space else 'run'} {shlex.quote(str(path))}`\n"
        f"It takes the data set {name}. For data of your own, set {where}.set to npz and {where}.path to your file.",
    )


def doctor() -> None:
    from codesign.cli.doctor import examine

    checks = examine()
    table = Table("", "what", "found", "what to do")
    for check in checks:
        table.add_row("ok" if check.ok else "missing" if check.needed else "-", check.name, check.found, check.advice)
    missing = [check.name for check in checks if check.needed and not check.ok]
    console.finish({"ok": not missing, "checks": [check.as_dict() for check in checks]}, table)
    if missing:
        raise ToolError(f"missing: {', '.join(missing)}; `codesign doctor` says what to do")


def data_list() -> None:
    from codesign.data import describe

    entries = describe()
    table = Table("set", "what", "found")
    for entry in entries:
        table.add_row(entry["name"], entry["summary"], entry["found"] or "-")
    console.finish({"sets": entries}, table)


def data_get(name: str) -> None:
    from codesign.data import download

    def progress(done: float, total: float, text: str = "") -> None:
        if done == 0:
            console.step(f"download {name}")
        console.progress(done, total, text)

    folder = download(name, progress=progress)
    console.finish({"set": name, "path": str(folder)}, f"{name}: {folder}")
