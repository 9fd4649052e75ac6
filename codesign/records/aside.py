"""What a stage replaces, put aside in the run directory until the stage has succeeded.

``.before/`` holds the files of the last result below ``files/``, with the manifest and the configuration of then and a
note of what was moved. It is dropped once the manifest says that the stage is done, and put back if it fails; after a
command was killed, by the next one that opens the folder. Each step leaves a state from which that can be done.

``.begun/<stage>/`` holds what an interrupted stage has made, and its record, where a result was put back beside it: the
same command goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from codesign.basics.errors import InputError
from codesign.basics.files import explain_write_errors, read_json, write_bytes, write_json
from codesign.records.names import CONFIG, MANIFEST

BEFORE, BEGUN = ".before", ".begun"
FILES, NOTE, RECORD = "files", "note.json", "record.json"
UNFINISHED = ("running", "interrupted")


def is_inside(path: str) -> bool:
    """True if ``path`` is one below the folder that it starts from."""
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and not PurePosixPath(path).is_absolute()


def remember(folder: Path, stage: str, outputs: Collection[str], *, resumable: bool) -> None:
    """Note that ``stage`` is about to replace ``outputs``; nothing is moved yet."""
    made = folder / f"{BEFORE}.new"
    with explain_write_errors(folder):
        _remove(made)
        _remove(folder / BEFORE)
        (made / FILES).mkdir(parents=True)
        for name in (MANIFEST, CONFIG):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, made / name)
        moved = [name for name in outputs if (folder / name).exists()]
        write_json(made / NOTE, {"stage": stage, "outputs": list(outputs), "moved": moved, "resumable": resumable})
        made.replace(folder / BEFORE)


def move(folder: Path, outputs: Collection[str]) -> None:
    """Move what is there of ``outputs`` to where :func:`put_back` finds it."""
    _move(folder, folder / BEFORE / FILES, outputs)


def put_back(folder: Path) -> bool:
    """Undo the stage that was at work, unless it is done; True if there was anything to put back.

    What a resumable stage has made before it was interrupted is kept (:func:`begun`). Raises InputError for a note that
    is none.
    """
    before = folder / BEFORE
    if not (before / NOTE).is_file():
        return False
    note = _read_note(before / NOTE)
    record = read_json(folder / MANIFEST).get("stages", {}).get(note["stage"], {})
    if record.get("status") == "done":
        drop(folder)
        return False
    kept = [name for name in note["moved"] if not (before / FILES / name).exists()]
    made = [name for name in note["outputs"] if name not in kept and (folder / name).exists()]
    with explain_write_errors(folder):
        if note["resumable"] and record.get("status") in UNFINISHED and made:
            apart = folder / BEGUN / note["stage"]
            if begun(folder, note["stage"]).get("key") != record.get("key"):
                _remove(apart)
            apart.mkdir(parents=True, exist_ok=True)
            write_json(apart / RECORD, record)
            _move(folder, apart, made)
        for name in made:
            _remove(folder / name)
        _move(before / FILES, folder, note["moved"])
    for name in (CONFIG, MANIFEST):
        if (before / name).is_file():
            write_bytes(folder / name, (before / name).read_bytes())
    drop(folder)
    return True


def drop(folder: Path) -> None:
    """Forget what was put aside."""
    with explain_write_errors(folder):
        # Without its note it is nothing to put back, however far its removal comes.
        (folder / BEFORE / NOTE).unlink(missing_ok=True)
        _remove(folder / BEFORE)


def begun(folder: Path, stage: str) -> Mapping[str, Any]:
    """The record of an interrupted stage that is kept beside a result; empty if there is none."""
    path = folder / BEGUN / stage / RECORD
    record = read_json(path) if path.is_file() else {}
    return record if type(record.get("seconds")) in (int, float) else {}


def take_up(folder: Path, stage: str, outputs: Collection[str]) -> None:
    """Move what the interrupted stage has made to its place."""
    _move(folder / BEGUN / stage, folder, outputs)


def drop_begun(folder: Path, stage: str) -> None:
    """Forget what an interrupted stage has made."""
    with explain_write_errors(folder):
        _remove(folder / BEGUN / stage)
        if (folder / BEGUN).is_dir() and not any((folder / BEGUN).iterdir()):
            (folder / BEGUN).rmdir()


def _read_note(path: Path) -> dict[str, Any]:
    """The note of :func:`remember`. InputError if it has another form, or names what is not in the run directory."""
    note = read_json(path)
    lists = [note.get("outputs"), note.get("moved"), [note.get("stage")]]
    names = [name for found in lists if isinstance(found, list) for name in found]
    if (
        not all(isinstance(found, list) for found in lists)
        or not all(isinstance(name, str) and is_inside(name) for name in names)
        or not isinstance(note.get("resumable"), bool)
    ):
        raise InputError(f"{path}: damaged; delete {path.parent} to keep the run directory as it is")
    return note


def _move(source: Path, target: Path, names: Collection[str]) -> None:
    with explain_write_errors(target):
        for name in names:
            if (source / name).exists():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                _remove(target / name)
                (source / name).replace(target / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
