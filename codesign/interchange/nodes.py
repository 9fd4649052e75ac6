"""Nodes and edges of a NIR file, checked: every parameter is there, of its kind, finite and of a size that fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network.limits import MAX_WIDTH
from codesign.interchange.hdf5 import Tree, check_floats, read_tree

Float = npt.NDArray[np.float64]
Shape = tuple[int, ...]

# Parameters that a type must have, and those that it may have.
CONVOLUTION = ("weight", "bias", "stride", "padding", "dilation", "groups")
POOL = ("kernel_size", "stride", "padding")
PARAMETERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Input": (("shape",), ()),
    "Output": (("shape",), ()),
    "Linear": (("weight",), ()),
    "Affine": (("weight", "bias"), ()),
    "Scale": (("scale",), ()),
    "Conv1d": (CONVOLUTION, ("input_shape",)),
    "Conv2d": (CONVOLUTION, ("input_shape",)),
    "SumPool2d": (POOL, ()),
    "AvgPool2d": (POOL, ()),
    "Flatten": ((), ("input_type", "start_dim", "end_dim")),
    "Threshold": (("threshold",), ()),
    "IF": (("r", "v_threshold"), ("v_reset",)),
    "LIF": (("tau", "r", "v_leak", "v_threshold"), ("v_reset",)),
    "CubaLIF": (("tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "w_in"), ("v_reset",)),
    "LI": (("tau", "r", "v_leak"), ()),
    "CubaLI": (("tau_mem", "tau_syn", "r", "v_leak", "w_in"), ()),
    "I": (("r",), ()),
}
NEURONS = ("Threshold", "IF", "LIF", "CubaLIF", "LI", "CubaLI", "I")
# Neurons without a threshold: they integrate and do not fire.
SILENT = ("LI", "CubaLI", "I")
MAX_NODES = 1024
MAX_EDGES = 8192
# What a text may be in place of a number.
PADDINGS = ("same", "valid")


@dataclass(frozen=True)
class Node:
    """A node with its parameters by name: float64 arrays, or the text of a padding."""

    name: str
    type: str
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def is_neuron(self) -> bool:
        return self.type in NEURONS

    def array(self, name: str) -> Float:
        return self.parameters[name]

    def numbers(self, *names: str) -> list[Float]:
        """Parameters of a neuron broadcast to one shape; 0 for a ``v_reset`` that the file leaves out.

        Raises InputError if their shapes do not go together.
        """
        found = [self.parameters[name] if name in self.parameters else np.zeros(()) for name in names]
        try:
            # Before it is allocated: two small arrays may make a huge one.
            if prod(np.broadcast_shapes(*(array.shape for array in found))) > MAX_WIDTH:
                raise InputError(f"{self.name}: its parameters are of more than {MAX_WIDTH} neurons")
            return [np.array(array) for array in np.broadcast_arrays(*found)]
        except InputError:
            raise
        except ValueError:
            shapes = ", ".join(f"{name} {_shape(array.shape)}" for name, array in zip(names, found, strict=True))
            raise InputError(f"{self.name}: parameters of different shapes ({shapes})") from None

    @property
    def shape(self) -> Shape:
        """Of a neuron's parameters together; () if all are single numbers."""
        arrays = self.numbers(*(name for name in self.parameters))
        shape = squeezed(arrays[0].shape) if arrays else ()
        return () if prod(shape) == 1 else shape

    def whole(self, name: str, count: int) -> tuple[int, ...]:
        """``count`` integers of a parameter that has one or ``count``. Raises InputError for anything else."""
        array = self.parameters[name]
        values = array.reshape(-1).tolist() if isinstance(array, np.ndarray) else []
        if len(values) not in (1, count) or any(not float(value).is_integer() for value in values):
            raise InputError(f"{self.name}: {name} is {_value(array)}, expected {count} whole numbers")
        if any(abs(value) > MAX_WIDTH for value in values):
            raise InputError(f"{self.name}: {name} is {_value(array)}, beyond {MAX_WIDTH}")
        whole = [int(value) for value in values]
        return tuple(whole * count if len(whole) == 1 else whole)


def squeezed(shape: Shape) -> Shape:
    """The shape of a picture without the leading 1 of a batch: (C, H, W) of (1, C, H, W)."""
    return shape[1:] if len(shape) == 4 and shape[0] == 1 else shape


def same_neurons(one: Shape, other: Shape) -> bool:
    """True if two shapes count the same neurons in the same order: one is flat, (n,) or (1, n), or they are alike.

    Of as many axes they are the same, else the same but for axes of 1.
    """
    if any(len(shape) in (1, 2) and all(size == 1 for size in shape[:-1]) for shape in (one, other)):
        return prod(one) == prod(other)
    if len(one) == len(other):
        return one == other
    return [size for size in one if size != 1] == [size for size in other if size != 1]


@dataclass(frozen=True)
class Graph:
    """Nodes by name and edges between them; nested graphs are taken apart, ``outer/inner`` names what was inside."""

    nodes: dict[str, Node]
    edges: tuple[tuple[str, str], ...]
    repeated_edges: int = 0

    def before(self, name: str) -> list[str]:
        return [a for a, b in self.edges if b == name]


def read_graph(path: Path) -> Graph:
    """The graph of a NIR file.

    Raises InputError in one line, with the file's name in front, for a file that is no whole graph, and
    UnsupportedError for a type of node that is not known.
    """
    tree = read_tree(path, "no such NIR file")
    root = tree.get("node")
    if not isinstance(root, dict):
        raise InputError(f"{path}: not a NIR file (no group 'node' in it)")
    check_floats(path, root.get("nodes"))
    try:
        nodes, edges = _graph(root, "")
    except (InputError, UnsupportedError) as error:
        raise type(error)(f"{path}: {error}") from None
    distinct = tuple(dict.fromkeys(edges))
    return Graph(nodes, distinct, len(edges) - len(distinct))


def _graph(group: Tree, prefix: str) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """Nodes and edges of a group of type NIRGraph, and of the graphs in it."""
    where = prefix.rstrip("/") or "the graph"
    if group.get("type") != "NIRGraph":
        raise InputError(f"{where}: its type is {_value(group.get('type'))}, expected NIRGraph")
    entries, listed = group.get("nodes"), group.get("edges")
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{where}: has no group of nodes")
    if not isinstance(listed, list) or any(not isinstance(row, list) or len(row) != 2 for row in listed):
        raise InputError(f"{where}: its edges are no list of pairs of names")
    if len(listed) > MAX_EDGES:
        raise InputError(f"{where}: {len(listed)} edges, the limit is {MAX_EDGES}")
    nodes: dict[str, Node] = {}
    inner: dict[str, tuple[list[str], list[str]]] = {}
    edges: list[tuple[str, str]] = []
    for name, entry in entries.items():
        full = f"{prefix}{name}"
        if not isinstance(entry, dict):
            raise InputError(f"{full}: is a data set, expected the group of a node")
        if entry.get("type") == "NIRGraph":
            found, more = _graph(entry, f"{full}/")
            nodes |= found
            edges += more
            ports = [[key for key in found if found[key].type == kind and _is_port(key, full)] for kind in _PORTS]
            inner[name] = ports[0], ports[1]
        else:
            nodes[full] = _node(full, entry)
        if len(nodes) > MAX_NODES:
            raise InputError(f"{where}: more than {MAX_NODES} nodes")
    for a, b in listed:
        for end in (a, b):
            if end not in entries:
                raise InputError(f"{where}: an edge {a} -> {b} names {end!r}, which is no node of it")
        starts, ends = (inner[a][1] if a in inner else [prefix + a]), (inner[b][0] if b in inner else [prefix + b])
        for side, name, what in ((starts, a, "Output"), (ends, b, "Input")):
            if len(side) != 1:
                raise InputError(f"{prefix}{name}: a graph within has {len(side)} {what} nodes, expected one")
        edges.append((starts[0], ends[0]))
    return nodes, edges


_PORTS = ("Input", "Output")


def _is_port(key: str, outer: str) -> bool:
    """True for a node of the graph itself, not of one within it."""
    return "/" not in key.removeprefix(f"{outer}/")


def _node(name: str, entry: Tree) -> Node:
    kind = entry.get("type")
    if not isinstance(kind, str):
        raise InputError(f"{name}: has no type")
    if kind not in PARAMETERS:
        raise UnsupportedError(f"{name}: nodes of type {kind[:60]!r} are not read; {', '.join(PARAMETERS)} are")
    required, optional = PARAMETERS[kind]
    parameters: dict[str, Any] = {}
    for key in (*required, *optional):
        if key not in entry:
            if key in required:
                raise InputError(f"{name}: {kind} without {key!r}; export the network again with a newer NIR")
            continue
        value = entry[key]
        if key == "padding" and isinstance(value, str) and value in PADDINGS:
            parameters[key] = value
            continue
        if not isinstance(value, np.ndarray):
            what = "a group" if isinstance(value, dict) else "text"
            raise InputError(f"{name}: {key} is {what}, expected numbers")
        # A signalling NaN of another width is one here.
        with np.errstate(invalid="ignore"):
            array = value.astype(np.float64)
        if key.startswith("tau") and np.isposinf(array).any() and not np.isnan(array).any():
            raise InputError(
                f"{name}: {key} is infinite: no leak, as snnTorch writes a beta or alpha of 1; export the network with "
                "one just below 1"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{name}: {key} holds NaN or infinite values")
        parameters[key] = array
    return Node(name, kind, parameters)


def _shape(shape: Any) -> str:
    return "()" if not shape else str(tuple(shape))


def _value(value: Any) -> str:
    text = str(value.tolist() if isinstance(value, np.ndarray) and value.size <= 8 else value)
    return text if len(text) <= 60 else f"{text[:60]}..."
