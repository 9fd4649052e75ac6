"""Ways to damage a file: bits, lengths, nesting, each leaf of what has a structure replaced by what does not belong.

Every function is a pure function of the content and a random generator, so that a case is made again from its seed.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Rng = np.random.Generator
Damaged = tuple[str, bytes]
"""What was done, in words, and the content after it."""

DEPTH = 100_000
MANY = 50_000

# JSON texts that stand for a leaf; not all of them can be made by a serialiser.
LEAVES = (
    *("null", "true", "false", "-1", "0", "1", "2", "0.5", "1e400", "-1e400", "NaN", "Infinity"),
    *("1000000000000", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "1" * 5000, "1e-320"),
    *('""', '"x"', '"' + "x" * 100_000 + '"', '"\\ud800"', '"\\u0000"', '"../../x"', '"a\\nb"'),
    *("[]", "{}", "[[[]]]", "[null]", '["x"]', "[1,2,3]", '{"x":1}', "[" * DEPTH + "]" * DEPTH),
)

TOML_LEAVES = (
    *(
        "true",
        "false",
        "-1",
        "0",
        "1",
        "2",
        "0.5",
        "inf",
        "-inf",
        "nan",
        "1e400",
        "1000000000000",
        "9223372036854775808",
    ),
    *("1" * 5000, '""', '"x"', '"' + "x" * 100_000 + '"', '"\\u0000"', "1979-05-27", "07:32:00", "0x10", "[]", "{}"),
    *("[[[]]]", '["x"]', "[1, 2, 3]", "[0.5, 1e400]", "{x = 1}", "[" * 5000 + "]" * 5000, "", "= 1", "x"),
)


def any_bytes(content: bytes, rng: Rng) -> Damaged:
    """Bits flipped, an end cut off, a part doubled, zeroed or overwritten: nothing of the form is known."""
    kind = rng.choice(["flip", "flip", "flip", "cut", "cut", "zero", "double", "noise", "empty"], p=None)
    data = bytearray(content)
    if not data or kind == "empty":
        return "empty", b"" if rng.random() < 0.5 else bytes(1)
    at = int(rng.integers(len(data)))
    length = int(min(len(data) - at, 1 << rng.integers(1, 10)))
    if kind == "flip":
        places = [(int(rng.integers(len(data))), int(rng.integers(8))) for _ in range(int(rng.choice([1, 1, 1, 2, 8])))]
        for place, bit in places:
            data[place] ^= 1 << bit
        return f"bits {places}", bytes(data)
    if kind == "cut":
        return f"cut at {at}", bytes(data[:at])
    if kind == "zero":
        data[at : at + length] = bytes(length)
    elif kind == "double":
        data[at:at] = data[at : at + length]
    else:
        data[at : at + length] = rng.bytes(length)
    return f"{kind} {at}..{at + length}", bytes(data)


# JSON ------------------------------------------------------------------------------------------------


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every value below ``document``, containers included."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def _marked(document: Any, path: tuple[Any, ...], mark: Any) -> Any:
    """A copy of the document with another value at ``path``."""
    if not path:
        return mark
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = _marked(document[path[0]], path[1:], mark)
    return copy


def json_text(text: str, rng: Rng) -> tuple[str, str]:
    """A JSON text with one value replaced, left out, doubled or given company."""
    document = json.loads(text)
    paths = list(leaves(document))
    if not paths:
        return "root", str(rng.choice(LEAVES))
    # Short lists of long ones: a path of every shape is as likely as any other.
    shapes: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for path in paths:
        shapes.setdefault(tuple("#" if isinstance(part, int) else part for part in path), []).append(path)
    shape = list(shapes)[int(rng.integers(len(shapes)))]
    path = shapes[shape][int(rng.integers(len(shapes[shape])))]
    where = "/".join(map(str, path))
    mark = "\x7fhere\x7f"
    kind = str(rng.choice(["value", "value", "value", "value", "gone", "twice", "many", "near"]))
    marked = json.dumps(_marked(document, path, mark))
    quoted = json.dumps(mark)
    old = document
    for part in path:
        old = old[part]
    if kind == "near" and isinstance(old, int | float) and not isinstance(old, bool):
        new = json.dumps(old + int(rng.choice([-1, 1, 2, 1000])))
        return f"{where} = {new}", marked.replace(quoted, new)
    if kind == "gone" and isinstance(path[-1], str):
        parent = document
        for part in path[:-1]:
            parent = parent[part]
        parent = {key: value for key, value in parent.items() if key != path[-1]}
        return f"{where} left out", json.dumps(_marked(document, path[:-1], parent))
    if kind == "twice" and isinstance(path[-1], str):
        key = json.dumps(path[-1])
        return f"{where} twice", marked.replace(quoted, f"{json.dumps(old)}, {key}: {rng.choice(LEAVES[:10])}")
    if kind == "many":
        many = ", ".join(f'"k{index}": 1' for index in range(MANY)) if rng.random() < 0.5 else None
        new = "{" + many + "}" if many else "[" + "{}," * MANY + "1]"
        return f"{where} = {MANY} entries", marked.replace(quoted, new)
    new = str(rng.choice(LEAVES))
    return f"{where} = {new[:40]}", marked.replace(quoted, new)


def json_file(content: bytes, rng: Rng) -> Damaged:
    label, text = json_text(content.decode(), rng)
    return label, text.encode("utf-8", "surrogatepass")


def json_lines(content: bytes, rng: Rng) -> Damaged:
    """One line of a file of JSON lines damaged, doubled or replaced."""
    lines = content.decode().splitlines()
    index = int(rng.integers(len(lines)))
    kind = str(rng.choice(["value", "value", "value", "line", "double"]))
    if kind == "double":
        lines.insert(index, lines[index])
        return f"line {index} twice", "\n".join(lines).encode() + b"\n"
    label, lines[index] = json_text(lines[index], rng) if kind == "value" else ("line", str(rng.choice(LEAVES)))
    return f"line {index}: {label}", "\n".join(lines).encode() + b"\n"


# TOML ------------------------------------------------------------------------------------------------


def toml_file(content: bytes, rng: Rng) -> Damaged:
    """One ``key = value`` of a TOML file replaced, left out or doubled, or a table put in."""
    lines = content.decode().splitlines()
    places = [index for index, line in enumerate(lines) if re.match(r"\s*[\w.-]+\s*=", line)]
    kind = str(rng.choice(["value", "value", "value", "value", "gone", "twice", "key", "deep", "section"]))
    if not places or kind == "deep":
        deep = str(
            rng.choice([".".join(["a"] * 3000) + " = 1", "[" + ".".join(["a"] * 3000) + "]", "x = " + "[" * 9000])
        )
        return "deep key", "\n".join([deep, *lines]).encode()
    index = places[int(rng.integers(len(places)))]
    key = lines[index].split("=")[0].strip()
    if kind == "gone":
        del lines[index]
    elif kind == "twice":
        lines.insert(index, lines[index])
    elif kind == "key":
        lines[index] = f"{rng.choice(['x', key + 'x', 'a.b.c', key.upper()])} = 1"
    elif kind == "section":
        sections = [at for at, line in enumerate(lines) if line.startswith("[")]
        at = int(rng.choice(sections)) if sections else 0
        lines[at] = str(rng.choice(["[x]", "[[train]]", "[train.rewiring.x]", "[]", "[data]", lines[at][:-1]]))
    else:
        value = str(rng.choice(TOML_LEAVES))
        lines[index] = f"{key} = {value}"
        return f"{key} = {value[:40]}", "\n".join(lines).encode() + b"\n"
    return f"{kind} {key}", "\n".join(lines).encode() + b"\n"


def overrides(content: bytes, rng: Rng) -> str:
    """A ``--set`` argument: a key of a TOML file, a section or nonsense, with a value that it should not have."""
    paths = [
        ".".join(path) for path in leaves(tomllib.loads(content.decode())) if all(isinstance(p, str) for p in path)
    ]
    key = str(rng.choice([*paths, *paths, "x", "", "train", "a.b.c.d", ".", ".".join(["a"] * 2000)]))
    return f"{key}={rng.choice(TOML_LEAVES)}" if rng.random() < 0.95 else key


# safetensors -----------------------------------------------------------------------------------------


def safetensors_file(content: bytes, rng: Rng) -> Damaged:
    """Header, metadata or contents of a safetensors file changed; the rest of the form is kept."""
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    kind = str(rng.choice(["metadata", "metadata", "metadata", "entry", "dtype", "shape", "length", "values", "gone"]))
    if kind == "metadata" and "codesign" in header.get("__metadata__", {}):
        label, text = json_text(header["__metadata__"]["codesign"], rng)
        header["__metadata__"]["codesign"] = text
        return f"metadata {label}", _safetensors(json.dumps(header), data)
    if kind == "dtype":
        header[name]["dtype"] = str(rng.choice(["F32", "F64", "I8", "I16", "I32", "I64", "U8", "BOOL", "BF16", "X"]))
        return f"{name} dtype {header[name]['dtype']}", _safetensors(json.dumps(header), data)
    if kind == "shape":
        count = int(np.prod(header[name]["shape"]))
        shapes: list[list[int]] = [[], [count + 1], [1, count], [0], [count, 1, 1], [1 << 62, 4], [1 << 40]]
        header[name]["shape"] = shapes[int(rng.integers(len(shapes)))]
        return f"{name} shape {header[name]['shape']}", _safetensors(json.dumps(header), data)
    if kind == "length":
        length = int(rng.choice([0, 1, size - 1, size + 1, 1 << 20, (1 << 63) - 1]))
        return f"header of {length}", struct.pack("<Q", length) + content[8:]
    if kind == "values":
        start, end = header[name]["data_offsets"]
        filled = bytearray(data)
        fill = rng.choice(["zeros", "ones", "noise", "small", "wrapping"])
        new = {"zeros": bytes(end - start), "ones": b"\xff" * (end - start), "noise": rng.bytes(end - start)}
        if header[name]["dtype"] == "I64" and end - start >= 40:
            # Both ends as they are, and between them steps that rise in arithmetic that wraps.
            steps = struct.pack("<2q", (1 << 63) - 1, -(1 << 63)) + b"\xff" * (end - start - 32)
            new["wrapping"] = data[start : start + 8] + steps + data[end - 8 : end]
        filled[start:end] = new.get(str(fill)) or bytes(int(rng.integers(4)) for _ in range(end - start))
        return f"{name} {fill}", _safetensors(json.dumps(header), bytes(filled))
    if kind == "gone":
        del header[name]
        return f"{name} left out", _safetensors(json.dumps(header), data)
    label, text = json_text(json.dumps(header), rng)
    return f"header {label}", _safetensors(text, data)


def _safetensors(header: str, data: bytes) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


# npz -------------------------------------------------------------------------------------------------

NPY_HEADERS = (
    "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<i8', 'fortran_order': False, 'shape': ('x',), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': [('a', '<i8'), ('a', '<i8')], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': ['<i8'], 'fortran_order': 1, 'shape': 3, }",
    "{'descr': '<i8', 'shape': (1,), }",
    "[" * 9000,
    "(" * 90 + ")" * 90,
    "__import__('os').getcwd()",
    "",
)


def _replacements(array: np.ndarray, rng: Rng) -> tuple[str, Any]:
    numeric = array if array.dtype.kind in "iufb" else np.zeros(array.shape, np.int64)
    makers: dict[str, Callable[[], Any]] = {
        "0-d": lambda: np.asarray(numeric.reshape(-1)[0] if numeric.size else 0),
        "0-d null": lambda: np.array(None, object),
        "objects": lambda: np.array([None, {}, "x"], object),
        "float": lambda: numeric.astype(np.float64),
        "float with nan": lambda: np.where(np.arange(numeric.size).reshape(numeric.shape) == 0, np.nan, numeric),
        "inf": lambda: np.full(numeric.shape, np.inf),
        "1e300": lambda: np.full(numeric.shape, 1e300),
        "float16": lambda: numeric.astype(np.float16),
        "complex": lambda: numeric.astype(np.complex64),
        "text": lambda: np.full(numeric.shape, "x"),
        "bytes": lambda: np.full(numeric.shape, b"x"),
        "bool": lambda: numeric.astype(bool),
        "dates": lambda: np.full(numeric.shape, np.datetime64("2000-01-01")),
        "record": lambda: np.zeros(numeric.shape, [("a", "<i4"), ("b", "<f4")]),
        "int8": lambda: numeric.astype(np.int8),
        "uint64": lambda: numeric.astype(np.uint64),
        "big-endian": lambda: numeric.astype(numeric.dtype.newbyteorder(">")),
        "largest": lambda: np.full(numeric.shape, np.iinfo(np.int64).max),
        "lowest": lambda: np.full(numeric.shape, np.iinfo(np.int64).min),
        "minus one": lambda: np.full(numeric.shape, -1),
        "10**12": lambda: np.full(numeric.shape, 10**12),
        "plus one": lambda: numeric + 1,
        "zeros": lambda: np.zeros_like(numeric),
        "reversed": lambda: numeric.reshape(-1)[::-1].reshape(numeric.shape),
        "empty": lambda: np.zeros(0, numeric.dtype),
        "empty rows": lambda: np.zeros((0, *numeric.shape[1:]), numeric.dtype),
        "one row less": lambda: numeric[:-1] if numeric.ndim else numeric,
        "one row more": lambda: np.concatenate([numeric, numeric[:1]]) if numeric.ndim else np.stack([numeric] * 2),
        "flat": lambda: numeric.reshape(-1),
        "one axis more": lambda: numeric[..., None],
        "list of one": lambda: numeric.reshape(-1)[:1],
        "32 axes": lambda: np.zeros((1,) * 32, numeric.dtype),
        "huge": lambda: np.broadcast_to(numeric.reshape(-1)[:1], (1 << 16,)) if numeric.size else numeric,
    }  # fmt: skip
    name = list(makers)[int(rng.integers(len(makers)))]
    with np.errstate(all="ignore"):
        return name, makers[name]()


def npz_file(content: bytes, rng: Rng) -> Damaged:
    """One array of an npz file replaced, renamed or left out, or its header forged."""
    members = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            members[name] = archive.read(name)
    name = list(members)[int(rng.integers(len(members)))]
    kind = str(rng.choice(["array", "array", "array", "header", "gone", "name", "raw", "twice", "bomb"]))
    repeated = False
    label = f"{name} {kind}"
    if kind == "array":
        array = np.load(io.BytesIO(members[name]), allow_pickle=False)
        what, new = _replacements(array, rng)
        buffer = io.BytesIO()
        np.save(buffer, new, allow_pickle=True)
        members[name], label = buffer.getvalue(), f"{name}: {what}"
    elif kind == "header":
        text = NPY_HEADERS[int(rng.integers(len(NPY_HEADERS)))]
        members[name], label = _npy(text, b"\0" * 64), f"{name} header {text[:60]}"
    elif kind == "bomb":
        text = "{'descr': '|u1', 'fortran_order': False, 'shape': (100000000,), }"
        members[name] = _npy(text, bytes(100_000_000))
    elif kind == "gone":
        del members[name]
    elif kind == "name":
        members[str(rng.choice(["x.npy", "../x.npy", "x", ".npy", "labels.npy", "n" * 60_000]))] = members.pop(name)
    elif kind == "raw":
        label, members[name] = any_bytes(members[name], rng)
        label = f"{name}: {label}"
    else:
        repeated = True
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.9 or kind == "bomb" else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for other, data in members.items():
            archive.writestr(other, data)
        if repeated:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                archive.writestr(name, members[name])
    return label, buffer.getvalue()


def _npy(header: str, data: bytes) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + data


# Text ------------------------------------------------------------------------------------------------


def text_file(content: bytes, rng: Rng) -> Damaged:
    """One word of a text replaced."""
    words = re.split(rb"(\s+)", content)
    index = int(rng.integers(len(words)))
    values = [
        b"",
        b"x",
        b"-1",
        b"0",
        b"ffffffffffffffffff",
        b"1" * 5000,
        b"\xff\xfe",
        b"@100000000",
        b"//",
        b"\0",
        b"/*",
    ]
    words[index] = values[int(rng.integers(len(values)))]
    return f"word {index} = {words[index][:20]!r}", b"".join(words)


# Checksums -------------------------------------------------------------------------------------------


def without_checksum(content: bytes, form: str) -> bytes:
    """The file as an earlier version wrote it, without a checksum of its own: damage is then left to the checks."""
    if form == "safetensors":
        size = struct.unpack("<Q", content[:8])[0]
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        document = json.loads(header.get("__metadata__", {}).get("codesign", "{}"))
        document.pop("hash", None)
        document = document["document"] if "checksum" in document else document
        header["__metadata__"] = {"codesign": json.dumps(document)}
        return _safetensors(json.dumps(header), data)
    if form == "json":
        document = json.loads(content)
        if document.pop("checksum", None) is not None:
            document["version"] = 1
        return json.dumps(document).encode()
    return content


FORMS: dict[str, Callable[[bytes, Rng], Damaged]] = {
    "json": json_file,
    "json lines": json_lines,
    "toml": toml_file,
    "safetensors": safetensors_file,
    "npz": npz_file,
    "text": text_file,
    # Of what no mutation knows the inside.
    "bytes": any_bytes,
}


def damage(content: bytes, form: str, rng: Rng) -> Damaged:
    """What was done, and the damaged content: two times in three within the form, else anywhere."""
    if rng.random() < 2 / 3:
        with_structure = FORMS[form](content, rng)
        if with_structure[1] != content:
            return with_structure
    return any_bytes(content, rng)
