"""Reads a delivered bundle: the sidecar, and whether every file is the one that the sidecar describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.files import file_hash

FORMAT_NAME = "codesign-bundle"
FORMAT_VERSION = 2
SIDECAR = "design.json"

_REQUIRED = (
    *("name", "network_hash", "files", "ports", "timesteps", "coding", "readout", "n_inputs", "n_outputs"),
    *("input_word", "output_word", "input_kinds", "output_kinds", "protocol_errors", "layers", "shape"),
)


def read_sidecar(bundle: Path) -> dict[str, Any]:
    """The sidecar of a bundle. Raises InputError if it is missing, damaged or of another version."""
    path = bundle / SIDECAR
    if not path.is_file():
        raise InputError(f"{path}: no such sidecar; `codesign generate` writes a bundle")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not JSON ({error}); generate the bundle again") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT_NAME:
        raise InputError(f"{path}: not the sidecar of an accelerator bundle")
    if document.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {document.get('version')!r}, this codesign reads {FORMAT_VERSION}; "
            "generate it again"
        )
    missing = [name for name in _REQUIRED if name not in document]
    if missing:
        raise InputError(f"{path}: {missing[0]!r} is missing; generate the bundle again")
    outside = [name for name in _named_files(document) if not _is_inside(name)]
    if outside:
        raise InputError(f"{path}: names the file {outside[0]!r}, which is not in the bundle; generate it again")
    return document


def _named_files(sidecar: dict[str, Any]) -> list[Any]:
    """What the sidecar has others read or copy as files of its bundle."""
    boot = (sidecar.get("load") or {}).get("boot")
    images = [memory["image"] for memory in memory_images(sidecar)]
    return [*sidecar["files"], *images, *([] if boot is None else [boot])]


def _is_inside(name: object) -> bool:
    """True for a relative path that does not lead upwards."""
    return isinstance(name, str) and bool(name) and not Path(name).is_absolute() and ".." not in Path(name).parts


def memory_images(sidecar: dict[str, Any]) -> list[dict[str, Any]]:
    """Every memory image once: the layers of a folded engine share theirs."""
    return list({memory["image"]: memory for layer in sidecar["layers"] for memory in layer["memories"]}.values())


def check_files(bundle: Path, sidecar: dict[str, Any]) -> None:
    """Raise InputError unless every file is there and is the one that the sidecar describes."""
    altered = altered_files(bundle, sidecar)
    if altered:
        raise InputError(
            f"{bundle / altered[0]}: not the file that design.json describes (sha256 differs); generate it again"
        )


def altered_files(bundle: Path, sidecar: dict[str, Any]) -> list[str]:
    """Files of the bundle whose hash is not the one that the sidecar states.

    Raises InputError if a file is missing or an image has not the stated depth and width: Verilator takes a missing or
    short ``$readmemh`` image for zeros, so this comes before each simulation.
    """
    altered = []
    for name, expected in sidecar["files"].items():
        path = bundle / name
        if not path.is_file():
            raise InputError(f"{path}: missing from the bundle; generate it again")
        if file_hash(path) != expected:
            altered.append(name)
    for memory in memory_images(sidecar):
        if memory["image"] not in sidecar["files"]:
            raise InputError(f"{bundle / memory['image']}: design.json states no hash of it; generate it again")
        read_image(bundle, memory)
    return altered


def read_image(bundle: Path, memory: dict[str, Any]) -> list[int]:
    """Words of one ``$readmemh`` image. Raises InputError unless it has exactly the stated depth and width."""
    path = bundle / memory["image"]
    if not path.is_file():
        raise InputError(f"{path}: missing from the bundle; generate it again")
    try:
        tokens = [
            token for line in path.read_text(encoding="ascii").splitlines() for token in line.partition("//")[0].split()
        ]
        values = [int(token, 16) for token in tokens]
    except ValueError as error:
        raise InputError(f"{path}: not a $readmemh image ({error})") from None
    if len(values) != memory["depth"]:
        raise InputError(f"{path}: {len(values)} words, design.json states {memory['depth']}; generate it again")
    if values and not 0 <= min(values) <= max(values) < 1 << memory["width"]:
        raise InputError(f"{path}: a word exceeds {memory['width']} bits; generate it again")
    return values


def unpack(words: list[int], memory: dict[str, Any]) -> dict[str, npt.NDArray[np.int64]]:
    """Fields of image words by name, int64 (depth,), from the offsets and widths in the sidecar."""
    columns = {}
    for item in memory["fields"]:
        offset, width = item["offset"], item["width"]
        raw = [(word >> offset) & ((1 << width) - 1) for word in words]
        if item["signed"]:
            raw = [value - (1 << width) if value >> (width - 1) else value for value in raw]
        columns[item["name"]] = np.array(raw, np.int64)
    return columns
