"""What is read is checked before it is read, and what is written is JSON."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import (
    atomic_folder,
    atomic_path,
    explain_write_errors,
    input_size,
    json_text,
    parse_json,
    read_json,
    read_text,
    shown,
    write_text,
)
from codesign.basics.processes import process_count, process_rank
from codesign.cli.failure import explain
from codesign.contract.network import FrozenNetwork
from codesign.train import checkpoint


def test_the_size_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    assert input_size(tmp_path / "a", limit=3) == 3
    with pytest.raises(InputError, match="a: 3 bytes, the limit is 2"):
        input_size(tmp_path / "a", limit=2)


def test_what_is_no_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "none", "none: gone"),
        (tmp_path / "a" / "b", "b: gone"),
        (tmp_path, "is a folder, a file is expected"),
        (tmp_path / "pipe", "pipe: is a pipe or device"),
        (Path("/dev/zero"), "/dev/zero: is a pipe or device"),
        (tmp_path / ("x" * 5000), "cannot be read"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_text(path, "gone")
        assert len(str(caught.value)) < 400
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="a: permission to read it is denied"):
        read_text(tmp_path / "a")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(InputError, match="17179869184 bytes, the limit is"):
        read_json(tmp_path / "a")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(InputError, match="no UTF-8 at byte 2"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated or not JSON"),
        ('{"a": ', "truncated or not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a": Infinity}', "Infinity is no number"),
        ('{"a": -1e999}', "beyond every number"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "'b' twice in one object"),
        ('{"a":' + "[" * 200_000, "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "truncated or not JSON"),
    ],
)
def test_json_that_no_writer_writes_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_json(text, "file")
    assert str(caught.value).startswith("file: ")


def test_json_is_read_as_it_was_written() -> None:
    document: dict[str, Any] = {"a": [1, 2.5, None, True, "\u00e9"], "b": {"c": {}}}
    assert parse_json(json_text(document), "") == document


def test_numbers_that_json_lacks_are_written_as_null() -> None:
    text = json_text({"a": float("nan"), "b": [float("inf"), (1, float("-inf"))]})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, [1, None]]}
    given = json_text({"a": np.float32("nan"), "b": np.arange(2)}, default=lambda value: value.tolist())
    assert json.loads(given, parse_constant=pytest.fail) == {"a": None, "b": [0, 1]}


def test_a_folder_or_an_endless_name_is_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, message in (("folder", "is a folder"), ("x" * 300, "the name is too long")):
        with pytest.raises(OutputError, match=message), atomic_path(tmp_path / name) as temporary:
            temporary.write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EFBIG, "the file is larger than the disk or `ulimit -f` allows"),
        (errno.EIO, "the disk reports an error"),
        (errno.EROFS, "not writable, the file system is read-only"),
        (errno.EACCES, "not writable; choose another folder"),
    ],
)
def test_why_nothing_can_be_written_is_said_in_one_line(number: int, words: str, capsys) -> None:
    error = OSError(number, os.strerror(number), "a/b")
    with pytest.raises(OutputError, match=f"^a/b: .*{words}"), explain_write_errors(Path("a/b")):
        raise error
    assert explain(error, []) == OutputError.exit_code
    assert f"codesign: a/b: {words}" in capsys.readouterr().err


@pytest.fixture
def little_room() -> Iterator[None]:
    """Files of 4 KiB at most, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_networks_and_checkpoints_say_that_there_is_no_room(tmp_path: Path, little_room: None) -> None:
    network = FrozenNetwork.from_arrays([np.full((50, 50), 3)], threshold=100, timesteps=1)
    for write in (network.save, lambda path: checkpoint.save(path, {"a": torch.zeros(5000)}, {})):
        with pytest.raises(OutputError, match="net: the file is larger than"):
            write(tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_what_is_written_has_the_mode_of_other_files(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "a")
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "a").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_folder_is_replaced_whole_whatever_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"

    def write(text: str) -> None:
        with atomic_folder(path) as temporary:
            for name in ("a", "b"):
                (temporary / name).write_text(text)

    def found() -> set[str]:
        return {file.read_text() for file in path.iterdir()} if len(list(path.iterdir())) == 2 else set()

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    write("old")
    with monkeypatch.context() as patch:
        # As the new folder takes its place.
        whole = Path.replace
        patch.setattr(Path, "replace", lambda of, to: stopped() if (of / "a").read_text() == "new" else whole(of, to))
        with pytest.raises(KeyboardInterrupt):
            write("new")
    assert found() == {"old"} and [entry.name for entry in tmp_path.iterdir()] == ["folder"]
    with monkeypatch.context() as patch:
        # As the old one is removed.
        patch.setattr(shutil, "rmtree", lambda folder, **_: (next(Path(folder).iterdir()).unlink(), stopped()))
        with pytest.raises(KeyboardInterrupt):
            write("new")
    assert found() == {"new"}


def test_a_link_to_a_folder_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    for name, target in (("link", "target"), ("broken", "nothing")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with atomic_folder(tmp_path / name) as temporary:
            (temporary / "a").touch()
        assert not (tmp_path / name).is_symlink() and (tmp_path / name / "a").is_file()
    assert not list((tmp_path / "target").iterdir())
    (tmp_path / "file").write_text("a")
    with (
        pytest.raises(OutputError, match="file: a file is in the way of this folder"),
        atomic_folder(tmp_path / "file"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "a"
    assert {entry.name for entry in tmp_path.iterdir()} == {"target", "link", "broken", "file"}


def test_a_long_name_is_shown_in_part() -> None:
    assert shown(Path("short")) == "short"
    assert len(shown(Path("x" * 5000))) < 200


def test_a_name_that_is_no_text_is_written_as_escapes(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "caf\udce9 \u00e9")
    assert (tmp_path / "a").read_bytes() == b"caf\\udce9 \xc3\xa9"


def test_which_process_of_how_many_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, rank, count in ((None, 0, 1), ("", 0, 1), ("3", 3, 3)):
        for name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
            if text is not None:
                monkeypatch.setenv(name, text)
        assert (process_rank(), process_count()) == (rank, count)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InputError, match="environment variable RANK is 'first', not the number that torchrun sets"):
        process_rank()
