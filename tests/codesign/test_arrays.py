"""npz files that lie about their sizes, or hold something other than numbers, are refused before they take memory."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.basics.arrays import checked_labels, checked_offsets, read_npz
from codesign.basics.errors import InputError


def header(shape: object, descr: object = "<f8", version: bytes = b"\x01\x00") -> bytes:
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def refusal(path: Path) -> str:
    """The one line with which ``path`` is refused, within a few MB of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ") and len(text) < 300 + len(str(path))
    return text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((1 << 40, 1 << 10)), "takes the file beyond"),
        (header((1 << 4000,)), "takes the file beyond"),
        (header((1 << 28,)) + bytes(80), "needs 2147483648 bytes, the file has 80"),
        (header((4,)) + bytes(33), "needs 32 bytes, the file has 33"),
        (header((-1,)) + bytes(8), "has the shape (-1,)"),
        (header((1,) * 40) + bytes(8), "has the shape (1, 1,"),
        (header((1 << 62,), "<U0"), "expected numbers or text"),
        (header((2,), "|O") + bytes(16), "holds Python objects"),
        (header((2,), [("a", "<i4"), ("b", "<f4")]) + bytes(16), "expected numbers or text"),
        (header((2,), "<c16") + bytes(32), "is complex128, expected numbers"),
        (header((2,), "nonsense") + bytes(16), "truncated or not an npz file"),
        (header("x"), "truncated or not an npz file"),
        (header((2,), version=b"\x02\x00") + bytes(16), "npy version 2.0"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 5000) + b"-" * 4999 + b"1", "truncated or not an npz file"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 5000) + b"(" * 5000, "truncated or not an npz file"),
        (b"not an array", "truncated or not an npz file"),
        (b"", "truncated or not an npz file"),
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_asked_for(tmp_path, content, message) -> None:
    assert message in refusal(archive(tmp_path / "a.npz", {"x.npy": content}))


def test_arrays_packed_a_thousand_to_one_are_refused_beyond_a_limit(tmp_path, monkeypatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(30_000), y=np.zeros(30_000), z=np.zeros(30_000))
    assert len(read_npz(tmp_path / "a.npz")) == 3
    monkeypatch.setattr("codesign.basics.arrays.MAX_PACKED_BYTES", 600_000)
    assert "'z' unpacks" in refusal(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **read_npz(tmp_path / "a.npz", ("x", "y")), z=np.zeros(30_000))
    assert len(read_npz(tmp_path / "b.npz")) == 3


def test_a_directory_of_a_million_entries_is_not_read(tmp_path) -> None:
    path = archive(tmp_path / "a.npz", {"x.npy": header((1,)) + bytes(8)})
    body = path.read_bytes()
    at, end = body.rindex(b"PK\x01\x02"), bytearray(body[body.rindex(b"PK\x05\x06") :])
    entry = body[at : body.rindex(b"PK\x05\x06")]
    end[12:16] = struct.pack("<I", len(entry) * 100_000)
    path.write_bytes(body[:at] + entry * 100_000 + bytes(end))
    assert "its directory takes" in refusal(path)


def test_foreign_packing_and_names_twice_are_refused(tmp_path) -> None:
    content = header((1,)) + bytes(8)
    assert "packed in another way" in refusal(archive(tmp_path / "a.npz", {"x.npy": content}, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("x.npy", content)
        file.writestr("x.npy", content)
    assert "'x' is in it twice" in refusal(tmp_path / "b.npz")


def test_encrypted_members_are_refused(tmp_path) -> None:
    body = bytearray(archive(tmp_path / "a.npz", {"x.npy": header((1,)) + bytes(8)}).read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(mark) + place] |= 1
    (tmp_path / "a.npz").write_bytes(body)
    assert "encrypted" in refusal(tmp_path / "a.npz")


def test_arrays_come_back_in_native_order_and_only_those_asked_for(tmp_path) -> None:
    np.savez_compressed(
        tmp_path / "a.npz", x=np.arange(6, dtype=">f4").reshape(2, 3, order="F"), t=np.array(["a"]), o=np.array([{}])
    )
    arrays = read_npz(tmp_path / "a.npz", ("x", "t", "z"))
    assert arrays.keys() == {"x", "t"}
    assert arrays["x"].dtype == np.dtype("=f4") and arrays["x"].tolist() == [[0, 2, 4], [1, 3, 5]]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    np.savez_compressed(path, x=np.arange(40.0), n=np.array(3), t=np.array(["one", "two"]))
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body)
    try:
        read_npz(path)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_labels_and_offsets_of_every_integer_dtype(dtype) -> None:
    assert checked_labels(np.array([0, 4], dtype), 5, "here").dtype == np.int32
    assert checked_offsets(np.array([0, 3, 3, 7], dtype), 3, 7, "here").tolist() == [0, 3, 3, 7]
    with pytest.raises(InputError, match=r"here: label 4 is outside 0\.\.3"):
        checked_labels(np.array([0, 4], dtype), 4, "here")
    largest = np.iinfo(dtype).max
    with pytest.raises(InputError, match="offsets do not rise"):
        checked_offsets(np.array([0, largest, 0, largest], dtype), 3, int(largest), "here")


def test_booleans_are_labels_of_two_classes() -> None:
    assert checked_labels(np.array([True, False]), 2, "here").tolist() == [1, 0]
