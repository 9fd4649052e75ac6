"""NIR files for tests, written with h5py: small graphs of one's own choice, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Nodes = Mapping[str, Mapping[str, Any]]


def write_nir(path: Path, nodes: Nodes, edges: Sequence[tuple[str, str]]) -> Path:
    """A NIR file of nodes, each its parameters with its ``type``; a node with ``nodes`` is a graph of its own."""
    with h5py.File(path, "w") as file:
        file.create_dataset("version", data="1.0.8", dtype=h5py.string_dtype())
        _group(file.create_group("node"), {"type": "NIRGraph", "nodes": nodes, "edges": edges})
    return path


def _group(group: h5py.Group, entry: Mapping[str, Any]) -> None:
    for name, value in entry.items():
        if name == "nodes":
            inner = group.create_group("nodes")
            for key, node in value.items():
                _group(inner.create_group(key), node)
        elif name == "edges":
            pairs = np.array(value, dtype=h5py.string_dtype()).reshape(-1, 2)
            group.create_dataset("edges", data=pairs, dtype=h5py.string_dtype())
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        else:
            group.create_dataset(name, data=np.asarray(value))


def node(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"type": kind, **parameters}


def port(kind: str, *shape: int) -> dict[str, Any]:
    return node(kind, shape=np.array(shape, np.int64))


def lif(n: int | tuple[int, ...] = 1, *, tau: Any = 2.0, r: Any = 1.0, threshold: Any = 1.0, leak: Any = 0.0) -> dict:
    """A LIF node with n neurons, in float32 as frameworks write them."""
    full = {"tau": tau, "r": r, "v_threshold": threshold, "v_leak": leak}
    return node("LIF", **{name: np.full(n, value, np.float32) for name, value in full.items()})


def chain(path: Path, *nodes: Mapping[str, Any], n_in: Any = 1, n_out: Any = 1) -> Path:
    """A NIR file of nodes one after the other, between an Input and an Output; they are named 0, 1, ..."""
    shapes = [(size,) if isinstance(size, int) else size for size in (n_in, n_out)]
    named = {str(index): found for index, found in enumerate(nodes)}
    names = ["input", *named, "output"]
    whole = {"input": port("Input", *shapes[0]), **named, "output": port("Output", *shapes[1])}
    return write_nir(path, whole, list(pairwise(names)))
