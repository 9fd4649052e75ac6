"""Networks of codesign as NIR files, and back.

NIR says what it can: weights, pools and leaks, in the timestep of ``dt`` as Euler's integrators take them (tau = dt /
(1 - decay), r and w_in so that gains are 1). What it cannot say, the kind of reset, its delay, the comparison, integers
and widths, is in the network's own file, which lies in the metadata byte for byte: read back as ``--source codesign``
nothing is lost.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError
from codesign.basics.files import atomic_path
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import INPUT, Convolution, FrozenLayer, FrozenNetwork, Projection
from codesign.contract.network.terms import rest_text
from codesign.interchange.hdf5 import Tree, read_tree
from codesign.quantise.integers import kept_fraction

NAME = "codesign"
DT = 1e-4
KINDS = ("frozen", "float")
MAX_DENSE = 1 << 27

Float = npt.NDArray[np.float64]
# Of each node its type and its parameters.
Nodes = dict[str, tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Export:
    """What was written: the number of nodes, and what of the network other readers of the file do not learn."""

    nodes: int
    unsaid: tuple[str, ...]


def in_float(network: FrozenNetwork) -> FloatNetwork:
    """The float network with a frozen one's integers; what its leaks round and its widths clip is left out."""
    scale = network.source_max(0) if network.coding.is_current else 1
    return FloatNetwork(
        tuple(_float_layer(layer, index, scale) for index, layer in enumerate(network.layers)),
        network.timesteps,
        network.coding,
        network.readout,
    )


def _float_layer(layer: FrozenLayer, index: int, input_scale: int) -> FloatLayer:
    def projection(found: Projection) -> Projection:
        factor = 2.0**layer.fraction_bits * (input_scale if found.source == INPUT else 1)
        connections = found.connections.with_weights(found.connections.weights * factor)
        return Projection(found.source, connections, found.pool, found.fixed)

    return FloatLayer.from_projections(
        [projection(found) for found in layer.projections],
        name=f"layer{index}",
        shape=layer.shape,
        threshold=layer.threshold,
        bias=layer.bias,
        decay=kept_fraction(layer.leak),
        current_decay=None if layer.current_leak is None else kept_fraction(layer.current_leak),
        reset=layer.reset,
        reset_value=float(layer.reset_value),
        reset_delay=layer.reset_delay,
        compare=layer.compare,
        refractory=layer.refractory,
    )


def graph(network: FloatNetwork, dt: float) -> tuple[Nodes, list[tuple[str, str]], list[str]]:
    """Nodes, edges, and what they do not say. Raises UnsupportedError for what NIR has no node for."""
    unsaid: list[str] = []
    first = network.layers[0].projections[0].source_shape
    nodes: Nodes = {"input": ("Input", {"shape": np.array(first or (network.n_inputs,))})}
    shapes: dict[int, tuple[int, ...]] = {INPUT: first or (network.n_inputs,)}
    edges: list[tuple[str, str]] = []
    names = {INPUT: "input", **{index: f"layer{index}" for index in range(len(network.layers))}}
    for index, layer in enumerate(network.layers):
        shapes[index] = layer.shape or (layer.n_out,)
        bias = layer.bias
        for number, projection in enumerate(layer.projections):
            chain, used = _chain(projection, shapes[projection.source], layer, bias, f"layer{index}")
            bias = bias if not used else np.zeros_like(bias)
            parts = [f"layer{index}.projection{number}.{name}" for name, _ in chain]
            nodes |= {part: node for part, (_, node) in zip(parts, chain, strict=True)}
            way = [names[projection.source], *parts, names[index]]
            edges += list(pairwise(way))
        if np.any(bias != 0):
            unsaid.append(f"layer{index}: a bias that differs within a channel")
        silent = index == len(network.layers) - 1 and network.membrane_readout
        nodes[names[index]] = _neuron(layer, shapes[index], dt, silent)
        unsaid += [f"layer{index}: {text}" for text in _unsaid(layer, silent)]
    last = len(network.layers) - 1
    nodes["output"] = ("Output", {"shape": np.array(shapes[last])})
    edges.append((names[last], "output"))
    coding = f"input coding {network.coding.kind}"
    coding += f" of {network.coding.input_bits} bits" if network.coding.is_current else ""
    unsaid += [f"a timestep of {dt:g}", coding, f"readout {network.readout}", f"{network.timesteps} timesteps"]
    return nodes, edges, unsaid


def _chain(
    projection: Projection, shape: tuple[int, ...], layer: FloatLayer, bias: Float, where: str
) -> tuple[list[tuple[str, tuple[str, dict[str, Any]]]], bool]:
    """Named linear nodes of a projection, and whether they took the layer's bias."""
    chain: list[tuple[str, tuple[str, dict[str, Any]]]] = []
    if projection.pool is not None:
        size = np.full(2, projection.pool.size)
        chain.append(("pool", ("SumPool2d", {"kernel_size": size, "stride": size, "padding": np.zeros(2, np.int64)})))
        shape = projection.pool.out_shape
    connections = projection.connections
    if isinstance(connections, Convolution):
        by_channel = bias.reshape(connections.out_channels, -1)
        whole = bool(np.all(by_channel == by_channel[:, :1]))
        parameters = {
            "input_shape": np.array(connections.in_shape[1:]),
            "weight": connections.dense(),
            "stride": np.full(2, connections.stride),
            "padding": np.full(2, connections.padding),
            "dilation": np.ones(2, np.int64),
            "groups": 1,
            "bias": by_channel[:, 0].copy() if whole else np.zeros(connections.out_channels),
        }
        return [*chain, ("conv", ("Conv2d", parameters))], whole
    if connections.n_in * connections.n_out > MAX_DENSE:
        raise UnsupportedError(f"{where}: NIR stores every weight, {connections.n_in * connections.n_out} here")
    if len(shape) > 1:
        chain.append(("flatten", ("Flatten", {"shape": np.array(shape), "start_dim": 0, "end_dim": -1})))
    weight = connections.dense().T.copy()
    if np.any(bias != 0):
        return [*chain, ("affine", ("Affine", {"weight": weight, "bias": bias}))], True
    return [*chain, ("linear", ("Linear", {"weight": weight}))], True


def _neuron(layer: FloatLayer, shape: tuple[int, ...], dt: float, silent: bool) -> tuple[str, dict[str, Any]]:
    def full(values: Any) -> Float:
        return np.broadcast_to(np.asarray(values, np.float64), (prod(shape),)).reshape(shape).copy()

    value = layer.reset_value if layer.reset == "value" else 0.0
    fires: dict[str, Any] = {} if silent else {"v_threshold": full(layer.threshold), "v_reset": full(value)}
    if layer.current_decay is None and np.all(layer.decay == 1):
        return ("I" if silent else "IF"), {"r": full(1 / dt), **fires}
    tau, r = _time_constant(layer.decay, dt)
    rest = {"v_leak": full(0.0), **fires}
    if layer.current_decay is None:
        return ("LI" if silent else "LIF"), {"tau": full(tau), "r": full(r), **rest}
    syn, w_in = _time_constant(layer.current_decay, dt)
    currents = {"tau_syn": full(syn), "tau_mem": full(tau), "r": full(r), "w_in": full(w_in)}
    return ("CubaLI" if silent else "CubaLIF"), {**currents, **rest}


def _time_constant(decay: Float, dt: float) -> tuple[Float, Float]:
    """tau and the gain that undoes dt / tau. Without a leak beside leaky ones tau is as large as it can be told."""
    forgets = np.maximum(1 - decay, 1e-12)
    return dt / forgets, 1 / forgets


def _unsaid(layer: FloatLayer, silent: bool) -> list[str]:
    found = []
    if not silent and layer.reset in ("subtract", "none"):
        found.append(f"reset {layer.reset}" + (", a timestep late" if layer.reset_delay else ""))
    if not silent and layer.compare == ">=":
        found.append("fires at the threshold")
    if layer.refractory:
        found.append(rest_text(layer.refractory))
    return found


def write_nir(network: FrozenNetwork | FloatNetwork, path: str | Path, dt: float = DT) -> Export:
    """Write a network as a NIR file (atomically), with the network itself in its metadata.

    ``dt`` : length of a timestep in seconds, by which decays become time constants. What NIR does not say is listed.
    Raises InputError for a network that is not valid and a ``dt`` that is not positive.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> codesign.export_network(network, "net.nir").unsaid[0]
    'layer0: reset subtract'
    """
    import nir

    path = Path(path)
    if not 0 < dt < float("inf"):
        raise InputError(f"--dt {dt!r} is no length of a timestep; it is positive")
    network.validate()
    whole = isinstance(network, FrozenNetwork)
    nodes, edges, unsaid = graph(in_float(network) if whole else network, dt)
    if whole:
        unsaid.append("integers: rounding of leaks, widths of states")
    made = nir.NIRGraph(
        {name: _nir_node(kind, parameters) for name, (kind, parameters) in nodes.items()},
        edges,
        metadata={
            "codesign_kind": KINDS[0] if whole else KINDS[1],
            "codesign_network": np.frombuffer(_file_of(network), np.uint8),
            "codesign_dt": np.float64(dt),
        },
        type_check=False,
    )
    with atomic_path(path) as temporary:
        nir.write(temporary, made)
    return Export(len(nodes), tuple(unsaid))


def _nir_node(kind: str, parameters: dict[str, Any]) -> Any:
    import nir

    if kind in ("Input", "Output"):
        return getattr(nir, kind)({kind.lower(): parameters["shape"]})
    if kind == "Flatten":
        return nir.Flatten({"input": parameters["shape"]}, parameters["start_dim"], parameters["end_dim"])
    return getattr(nir, kind)(**parameters)


def _file_of(network: FrozenNetwork | FloatNetwork) -> bytes:
    with tempfile.TemporaryDirectory(prefix="codesign-export-") as folder:
        path = Path(folder) / "network"
        network.save(path)
        return path.read_bytes()


def read_own(path: Path) -> FrozenNetwork | FloatNetwork:
    """The network that a NIR file of :func:`write_nir` holds.

    Raises InputError, with the file's name in front, if it holds none, or if its graph is not that of the network.
    """
    tree = read_tree(path, "no such NIR file")
    root = tree.get("node")
    metadata = root.get("metadata") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(metadata, dict):
        raise InputError(f"{path}: holds no network of codesign's; name the framework that wrote it with --source")
    content, dt = metadata.get("codesign_network"), metadata.get("codesign_dt")
    kind = metadata.get("codesign_kind")
    whole = isinstance(content, np.ndarray) and content.dtype == np.uint8 and content.ndim == 1
    known = isinstance(dt, np.ndarray) and dt.shape == () and 0 < float(dt) < float("inf")
    if not whole or content is None or kind not in KINDS or not known or dt is None:
        raise InputError(f"{path}: the network of codesign's in its metadata is damaged; export it again")
    with tempfile.TemporaryDirectory(prefix="codesign-import-") as folder:
        inner = Path(folder) / "network"
        inner.write_bytes(content.tobytes())
        try:
            network = (FrozenNetwork if kind == "frozen" else FloatNetwork).load(inner)
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'{inner}: ')}") from None
    nodes, edges, _ = graph(in_float(network) if isinstance(network, FrozenNetwork) else network, float(dt))
    if not _is_graph(root, nodes, edges):
        raise InputError(
            f"{path}: its graph is not that of the network in its metadata: it was changed after the export; name the "
            "framework that changed it with --source"
        )
    return network


def _is_graph(root: Tree, nodes: Nodes, edges: list[tuple[str, str]]) -> bool:
    """True if a file's graph has these nodes, with every parameter, and these edges."""
    found, listed = root.get("nodes"), root.get("edges")
    if not isinstance(found, dict) or not isinstance(listed, list) or set(found) != set(nodes):
        return False
    if {tuple(edge) for edge in listed} != set(edges):
        return False
    for name, (kind, parameters) in nodes.items():
        entry = found[name]
        if not isinstance(entry, dict) or entry.get("type") != kind:
            return False
        for key, value in parameters.items():
            stored = entry.get("input_type" if kind == "Flatten" and key == "shape" else key)
            if not isinstance(stored, np.ndarray) or not np.array_equal(stored, np.asarray(value)):
                return False
    return True


__all__ = ["DT", "NAME", "Export", "in_float", "read_own", "write_nir"]
