"""What is read is checked before it is read, and what is written is JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import (
    atomic_path,
    input_size,
    json_text,
    parse_json,
    read_json,
    read_text,
    shown,
    write_text,
)


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


def test_a_folder_or_an_endless_name_is_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, message in (("folder", "is a folder"), ("x" * 300, "the name is too long")):
        with pytest.raises(OutputError, match=message), atomic_path(tmp_path / name) as temporary:
            temporary.write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_long_name_is_shown_in_part() -> None:
    assert shown(Path("short")) == "short"
    assert len(shown(Path("x" * 5000))) < 200


def test_a_name_that_is_no_text_is_written_as_escapes(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "caf\udce9 \u00e9")
    assert (tmp_path / "a").read_bytes() == b"caf\\udce9 \xc3\xa9"
