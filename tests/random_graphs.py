"""Random NIR graphs, mostly wrong: nodes of any type with parameters of any shape, wired in any way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from codesign.interchange.nodes import NEURONS, PARAMETERS, Graph, Node

SHAPES = [(), (1,), (4,), (6,), (2, 3, 3), (1, 2, 3, 3), (18,), (0,), (2, 9), (4, 6), (3, 1, 2)]
LINEAR = ("Linear", "Affine", "Scale", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten")


def random_value(rng: np.random.Generator, name: str) -> Any:
    if name == "weight":
        shape = tuple(int(size) for size in rng.choice([1, 2, 3, 4, 6, 18], int(rng.choice([2, 2, 3, 4]))))
        return rng.normal(size=shape)
    if name in ("stride", "padding", "dilation", "kernel_size"):
        if name == "padding" and rng.random() < 0.2:
            return str(rng.choice(["same", "valid"]))
        return (
            rng.integers(-1 if rng.random() < 0.1 else int(name != "padding"), 4, int(rng.choice([1, 2, 2, 3]))) * 1.0
        )
    if name == "groups":
        return np.array(float(rng.integers(0, 3)))
    shape = SHAPES[rng.integers(len(SHAPES))]
    if name in ("shape", "input_shape", "input_type"):
        return np.array(SHAPES[rng.integers(len(SHAPES))], float)
    return np.full(shape, rng.choice([0.0, 0.5, 2.0, 4.0, -1.0], p=[0.1, 0.2, 0.3, 0.3, 0.1]))


def fitting(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Parameters of a node that fits a signal of ``shape``, and the shape of what it gives."""
    count = int(np.prod(shape))
    if kind in NEURONS:
        names = (*PARAMETERS[kind][0], *(name for name in PARAMETERS[kind][1] if rng.random() < 0.3))
        size = shape if rng.random() < 0.5 else ()
        return {
            name: np.full(size, 0.0 if name.startswith("v_l") else rng.choice([1.0, 2.0, 4.0])) for name in names
        }, shape
    if kind == "Conv2d" and len(shape) == 3:
        taps = [int(rng.integers(1, min(size, 3) + 1)) for size in shape[1:]]
        given = {"stride": np.ones(2), "padding": np.zeros(2), "dilation": np.ones(2), "groups": np.ones(())}
        given["bias"] = np.array([0.5, 0.0])
        out = (2, *(size - tap + 1 for size, tap in zip(shape[1:], taps, strict=True)))
        return {**given, "weight": rng.normal(size=(2, shape[0], *taps))}, out
    if kind == "SumPool2d" and len(shape) == 3:
        return {"kernel_size": np.ones(2), "stride": np.ones(2), "padding": np.zeros(2)}, shape
    if kind == "Scale":
        return {"scale": rng.normal(size=shape)}, shape
    if kind == "Flatten":
        return {}, (count,)
    n_out = int(rng.choice([4, 6, 18]))
    return {"weight": rng.normal(size=(n_out, count)), "bias": rng.normal(size=n_out)}, (n_out,)


def random_graph(rng: np.random.Generator, wrong: float = 0.05) -> Graph:
    """A graph of up to 8 nodes between an Input and an Output; each may be ``wrong``, and so may its edges."""
    nodes: dict[str, Node] = {}
    shape = SHAPES[int(rng.choice([2, 3, 4, 6]))]
    nodes["input"] = Node("input", "Input", {"shape": np.array(shape, float)})
    shape = shape[1:] if len(shape) == 4 else shape
    for index in range(int(rng.integers(1, 8))):
        kind = str(
            rng.choice(
                ("LIF", "IF", "CubaLIF", "LI") if index % 2 else ("Affine", "Conv2d", "SumPool2d", "Scale", "Flatten")
            )
        )
        parameters, after = fitting(rng, kind, shape)
        kind = "Affine" if "weight" in parameters and "stride" not in parameters else kind
        kind = "Affine" if kind in ("Conv2d", "SumPool2d") and "stride" not in parameters else kind
        if rng.random() < wrong:
            kind = str(rng.choice([*NEURONS, *LINEAR, "Input", "Output"]))
            parameters = {name: random_value(rng, name) for name in PARAMETERS[kind][0]}
        nodes[str(index)], shape = Node(str(index), kind, parameters), after
    nodes["output"] = Node("output", "Output", {"shape": np.array(shape, float)})
    names = list(nodes)
    edges = list(pairwise(names))
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 3))):
            # Into the input leads no edge that is right.
            ends = names if rng.random() < wrong else names[1:]
            edges.append((str(rng.choice(names)), str(rng.choice(ends))))
    if rng.random() < 2 * wrong:
        edges.pop(int(rng.integers(len(edges))))
    return Graph(nodes, tuple(dict.fromkeys(edges)))
