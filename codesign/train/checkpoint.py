"""Checkpoints: one safetensors file each, tensors plus a JSON document, whole or absent.

The file states a checksum of all of them, which every load compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codesign.basics.errors import InputError
from codesign.basics.files import write_bytes
from codesign.contract.network.file import check_header

MAX_HEADER_BYTES = 1 << 24
LAST, BEST = "last.safetensors", "best.safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and document atomically."""
    from safetensors.torch import save as packed_bytes

    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # As it will be read: keys as text.
    document = json.loads(json.dumps(document))
    metadata = {"checksum": checksum(packed, document), "document": document}
    # Not by the library, whose errors do not say that a disk is full.
    write_bytes(path, packed_bytes(packed, metadata={"codesign": json.dumps(metadata, sort_keys=True)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and document of a checkpoint.

    Raises InputError if it is missing, truncated, something else, or not what was saved. Checkpoints of earlier
    versions state no checksum and are taken as they are.
    """
    from safetensors import SafetensorError, safe_open

    check_header(path, "no such checkpoint; `codesign train` writes one", MAX_HEADER_BYTES)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("codesign")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if text is None:
            raise InputError(f"{path}: not a checkpoint (no codesign metadata)")
        metadata = json.loads(text)
    except (SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: truncated or not a checkpoint ({error})") from None
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: not a checkpoint (its metadata is no JSON object)")
    if not {"checksum", "document"} & metadata.keys():
        return tensors, metadata
    document = metadata.get("document")
    if not isinstance(document, dict) or metadata.get("checksum") != checksum(tensors, document):
        raise InputError(f"{path}: damaged: its content does not have the checksum that it states; train again")
    return tensors, document


def load_chosen(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
    """Tensors and document of a checkpoint file, or of the chosen one of a run folder, and where it is.

    Raises InputError as :func:`load`, and for a chosen one of another training than the last one beside it.
    """
    if path.is_dir():
        path = path / "checkpoints" / BEST
    tensors, document = load(path)
    last = path.with_name(LAST)
    if path.name == BEST and last.is_file() and document.get("key") != load(last)[1].get("key"):
        raise InputError(f"{path}: of another training than {LAST} beside it; train again")
    return tensors, document, path


def load_start(path: Path) -> tuple[dict[str, Tensor], Path]:
    """What ``train.start`` names, by :func:`load_chosen`. InputError, too, for weights that are not finite."""
    try:
        tensors, _, path = load_chosen(path)
    except InputError as error:
        raise InputError(f"train.start: {error}") from None
    for name, tensor in sorted(weights(tensors).items()):
        if not torch.isfinite(tensor).all():
            raise InputError(f"train.start: {path}: {name} is not finite; start with another training")
    return tensors, path


def checksum(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    """sha256 (hex) of the document and of each tensor's name, type, shape and values."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's state among the tensors of a checkpoint."""
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hex) of the network's state among the tensors of a checkpoint, whatever else there is."""
    return checksum(weights(tensors), {})


def restore_network(
    network: torch.nn.Module, tensors: Mapping[str, Tensor], cure: str = "train again or use the run's own config.toml"
) -> None:
    """Load the tensors ``model.<name>`` into ``network``. InputError, with a ``cure``, if they are not its state."""
    found = weights(tensors)
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        have, want = found.get(name), wanted.get(name)
        if have is None or want is None or have.shape != want.shape:
            raise InputError(
                f"not a checkpoint of the configured network: {name} is {_size(have)}, the configuration says "
                f"{_size(want)}; {cure}"
            )
    network.load_state_dict(found)


def _size(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else " x ".join(str(size) for size in tensor.shape) or "a number"


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's per-parameter state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": value
        for index, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`optimizer_tensors`. InputError for the state of a parameter that the optimizer has not."""
    document = optimizer.state_dict()
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            index, _, key = name.removeprefix("optimizer.").partition(".")
            shape = shapes[int(index)] if index.isdecimal() and int(index) < len(shapes) else None
            if shape is None or tensor.shape not in (shape, ()):
                raise InputError(f"not a state of this optimizer: {name} is {_size(tensor)}; train again")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": document["param_groups"]})
