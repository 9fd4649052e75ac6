"""NIR files: from the graph of nodes to a float network of populations, in the meaning of the framework that wrote it.

Neurons become populations; what lies between them, linear nodes, becomes their projections. A neuron's own spikes come
back a timestep later, all others in the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import INPUT, Convolution, InputCoding, Projection, ReadoutKind
from codesign.contract.network.limits import MAX_LAYERS, MAX_PROJECTIONS, MAX_TIMESTEPS, MAX_WIDTH
from codesign.contract.network.terms import rest_text
from codesign.interchange.facts import Asked, Facts, Findings
from codesign.interchange.nodes import SILENT, Graph, Node, Shape, read_graph, same_neurons, squeezed
from codesign.interchange.operators import Operator, Stage, applied, check_size, operator, path
from codesign.interchange.sources import Terms, terms_of
from codesign.quantise.integers import Change

Float = npt.NDArray[np.float64]
MAX_AXES = 6
MEMBRANES: tuple[ReadoutKind, ...] = ("membrane_last", "membrane_sum", "membrane_max")


@dataclass(frozen=True)
class Imported:
    """A float network and what its import found."""

    network: FloatNetwork
    findings: Findings


def read_nir(file: Path, source: str, facts: Facts) -> Imported:
    """The network of a NIR file in the meaning of ``source``.

    Raises InputError, with the file's name in front, for a file that is no whole graph or a fact that nothing says (the
    line names the option), and UnsupportedError for what a float network does not hold.
    """
    graph, asked = read_graph(file), Asked(facts)
    try:
        found = build(graph, source, asked)
        asked.check(source)
    except (InputError, UnsupportedError) as error:
        raise type(error)(f"{file}: {error}") from None
    return found


def build(graph: Graph, source: str, facts: Asked) -> Imported:
    """The network of a graph in the meaning of ``source``. Raises as :func:`read_nir`, without a file's name."""
    return _Builder(graph, source, facts).build()


@dataclass(frozen=True)
class _Path:
    """From a population, by name, through stages; ``nodes`` are those of the way."""

    source: str
    stages: tuple[Stage, ...] = ()
    nodes: tuple[str, ...] = ()
    learned: bool = False


class _Builder:
    def __init__(self, graph: Graph, source: str, facts: Asked) -> None:
        self._graph, self._source, self._facts = graph, source, facts
        self._found = Findings()
        self._input = self._port("Input")
        self._output = self._port("Output")
        self._shapes: dict[str, Shape] = {}
        self._inputs: dict[str, Shape] = {}
        self._operators: dict[str, Operator] = {}
        self._paths: dict[str, list[_Path]] = {}
        self._constants: dict[str, Float | None] = {}

    def build(self) -> Imported:
        self._infer()
        reaching = self._reaching(self._output.name)
        for name in (name for name in self._graph.nodes if name not in reaching):
            self._found.changed.append(Change(name, "node", "leads to no output and is left out"))
        populations = [name for name in self._ordered(reaching) if self._is_population(name)]
        readout = self._readout_node(populations)
        names = [*(name for name in populations if name != readout.name), readout.name]
        if len(names) > MAX_LAYERS:
            raise UnsupportedError(f"{len(names)} populations, the limit is {MAX_LAYERS}")
        kind = self._readout(readout)
        places = {self._input.name: INPUT, **{name: index for index, name in enumerate(names)}}
        layers = tuple(
            self._layer(readout, places, silent=kind in MEMBRANES)
            if name == readout.name
            else self._layer(self._graph.nodes[name], places, silent=False)
            for name in names
        )
        if self._graph.repeated_edges:
            text = f"{self._graph.repeated_edges} edges are listed twice and count once"
            self._found.changed.append(Change("graph", "edges", text, float(self._graph.repeated_edges)))
        bits = self._facts.get("input_bits")
        coding = InputCoding("current", bits) if bits else InputCoding("events")
        said = f"currents of {bits} bits that stand for 0..1" if bits else "events, one a source and timestep at most"
        self._found.supported.insert(0, f"input: {self._shapes[self._input.name]}, {said}")
        network = FloatNetwork(layers, self._timesteps(), coding, kind)
        network.validate()
        return Imported(network, self._found)

    # Facts of the whole network -----------------------------------------------------------------

    def _timesteps(self) -> int:
        found = self._facts.needed(
            "timesteps", "the network", "how many timesteps a sample has is not in the file", "--timesteps N"
        )
        if not 1 <= found <= MAX_TIMESTEPS:
            raise InputError(f"--timesteps {found} is outside 1..{MAX_TIMESTEPS}")
        return found

    def _readout(self, node: Node) -> ReadoutKind:
        fires = node.type not in SILENT and node.is_neuron
        choices = ("spike_count",) if fires else MEMBRANES
        option = f"--readout {'|'.join(choices)}"
        option += f", or a membrane readout with --reset {node.name}=none" if fires else ""
        kind = self._facts.needed("readout", node.name, "how a decision is read is not in the file", option)
        if kind == "spike_count" and not fires:
            raise InputError(f"{node.name}: emits no spikes to count; --readout is one of {', '.join(MEMBRANES)}")
        return kind

    # The graph ----------------------------------------------------------------------------------

    def _port(self, kind: str) -> Node:
        found = [node for name, node in self._graph.nodes.items() if node.type == kind and "/" not in name]
        if not found:
            raise InputError(f"the graph has no {kind} node; export the network again")
        if len(found) > 1:
            raise UnsupportedError(f"the graph has {len(found)} {kind} nodes; one is read")
        return found[0]

    def _is_population(self, name: str) -> bool:
        return name in self._graph.nodes and self._graph.nodes[name].is_neuron

    def _is_source(self, name: str) -> bool:
        return name == self._input.name or self._is_population(name)

    def _infer(self) -> None:
        """Shapes of all nodes that the input reaches, and what each linear node does; a node as soon as one that leads
        to it is known, so that recurrence is no obstacle."""
        size = tuple(int(length) for length in self._input.array("shape").reshape(-1))
        if not size or min(size) < 1 or any(not float(x).is_integer() for x in self._input.array("shape").reshape(-1)):
            raise InputError(f"{self._input.name}: shape {size} is no shape of an input")
        if len(size) > MAX_AXES or prod(size) > MAX_WIDTH:
            raise InputError(f"{self._input.name}: shape {size[:MAX_AXES]} is of more than {MAX_WIDTH} inputs")
        back = self._graph.before(self._input.name)
        if back:
            raise UnsupportedError(f"{back[0]} -> {self._input.name}: an edge into the input, which samples alone feed")
        self._shapes[self._input.name] = squeezed(size)
        waiting = [self._input.name]
        after: dict[str, list[str]] = {}
        for a, b in self._graph.edges:
            after.setdefault(a, []).append(b)
        while waiting:
            name = waiting.pop()
            for follower in after.get(name, []):
                given, node = self._shapes[name], self._graph.nodes[follower]
                if follower in self._shapes:
                    self._agree(node, given)
                    continue
                self._given(node, given)
                waiting.append(follower)
        if self._output.name not in self._shapes:
            raise InputError(f"{self._output.name}: nothing leads from the input to the output")

    def _given(self, node: Node, given: Shape) -> None:
        self._inputs[node.name] = given
        if node.is_neuron:
            own = node.shape
            if own and not same_neurons(own, given):
                raise InputError(f"{node.name}: its parameters are of shape {own}, the graph gives it {given}")
            # A flat list of parameters does not undo a picture.
            self._shapes[node.name] = own if len(own) > len(given) else given
        elif node is self._output:
            check_size(node, "shape", tuple(int(size) for size in node.array("shape").reshape(-1)), given)
            self._shapes[node.name] = given
        else:
            self._operators[node.name] = operator(node, given)
            self._shapes[node.name] = self._operators[node.name].shape

    def _agree(self, node: Node, given: Shape) -> None:
        first = self._inputs.get(node.name, self._shapes[node.name])
        if not same_neurons(first, given):
            raise InputError(f"{node.name}: is given {first} by one node and {given} by another")

    def _reaching(self, name: str) -> set[str]:
        found, waiting = {name}, [name]
        before: dict[str, list[str]] = {}
        for a, b in self._graph.edges:
            before.setdefault(b, []).append(a)
        while waiting:
            for a in before.get(waiting.pop(), []):
                if a not in found:
                    found.add(a)
                    waiting.append(a)
        unreached = sorted(found - self._shapes.keys())
        if unreached:
            raise InputError(f"{unreached[0]}: nothing leads to it from the input")
        return found

    def _ordered(self, names: set[str]) -> list[str]:
        """The nodes so that all come after those that lead to them, but for the recurrence of a neuron to itself.

        Raises InputError for a circle without a neuron, and UnsupportedError for one through several.
        """
        edges = [(a, b) for a, b in self._graph.edges if a in names and b in names]
        linear = [(a, b) for a, b in edges if not (self._is_source(a) or self._is_source(b))]
        left = _circle({name for name in names if not self._is_source(name)}, linear)
        if left:
            raise InputError(f"a circle without a neuron, which would need its own result: {', '.join(left)}")
        for name in _sorted({name for name in names if not self._is_source(name)}, linear):
            self._trace(name)
        populations = {name for name in names if self._is_population(name)}
        for name in populations:
            self._paths[name] = self._gather(name)
        between = [
            (way.source, name) for name in populations for way in self._paths[name]
            if way.source in populations and way.source != name
        ]  # fmt: skip
        left = _circle(populations, between)
        if left:
            raise UnsupportedError(f"recurrence through several populations ({', '.join(left)}); each may read itself")
        return _sorted(populations, between)

    def _trace(self, name: str) -> None:
        """Paths and constant of a linear node, of those before it."""
        found = self._operators.get(name) or Operator((), self._shapes[name])
        self._paths[name] = [
            replace(
                way, stages=way.stages + found.stages, nodes=(*way.nodes, name), learned=way.learned or found.learned
            )
            for way in self._gather(name)
        ]
        constant = self._constant_into(name)
        constant = None if constant is None else applied(found.stages, constant)
        if found.bias is not None:
            constant = found.bias if constant is None else constant + found.bias
        self._constants[name] = constant

    def _gather(self, name: str) -> list[_Path]:
        ways: list[_Path] = []
        for before in self._graph.before(name):
            ways += [_Path(before)] if self._is_source(before) else self._paths.get(before, [])
        if len(ways) > MAX_PROJECTIONS:
            raise UnsupportedError(f"{name}: {len(ways)} ways lead to it, the limit is {MAX_PROJECTIONS}")
        return ways

    def _constant_into(self, name: str) -> Float | None:
        given = [self._constants.get(before) for before in self._graph.before(name)]
        present = [constant for constant in given if constant is not None]
        return sum(present[1:], present[0]) if present else None

    def _readout_node(self, populations: list[str]) -> Node:
        """The population that the output shows; one without a memory where the output is a weighted sum."""
        ways = self._gather(self._output.name)
        plain = len(ways) == 1 and not ways[0].stages and self._constant_into(self._output.name) is None
        if plain and self._is_population(ways[0].source):
            last = ways[0].source
            onward = [name for name in populations if name != last and any(w.source == last for w in self._paths[name])]
            if onward:
                raise UnsupportedError(f"{last}: the output's population also feeds {onward[0]}")
            return self._graph.nodes[last]
        return Node(self._output.name, "sum")

    # Populations --------------------------------------------------------------------------------

    def _layer(self, node: Node, places: dict[str, int], *, silent: bool) -> FloatLayer:
        ways = self._paths[node.name] if node.name in self._paths else self._gather(node.name)
        terms = self._terms(node, silent)
        shape = self._shapes[node.name]
        n_out = prod(shape)
        gain = _spread(terms.gain, n_out, f"{node.name}: gain")
        ways = sorted(ways, key=lambda way: (places[way.source] == places.get(node.name), places[way.source]))
        if all(way.source == node.name for way in ways):
            raise InputError(f"{node.name}: nothing but itself leads to it")
        projections = [self._projection(way, places, gain, node) for way in ways]
        constant = self._constant_into(node.name)
        bias = _spread(terms.bias, n_out, f"{node.name}: bias")
        if constant is not None:
            bias = bias + gain * constant
        # What a convolution reaches is a picture, also where the graph flattens it at once.
        pictures = [found.connections.out_shape for found in projections if isinstance(found.connections, Convolution)]
        own = squeezed(shape)
        pictures += [(own[0], own[1], own[2])] if len(own) == 3 else []
        layer = FloatLayer.from_projections(
            projections,
            name=node.name[-200:],
            shape=pictures[0] if pictures else None,
            bias=bias,
            **self._numbers(node, terms, n_out),
            reset="none" if silent else terms.reset,
            reset_delay=terms.reset_delay and not silent,
            compare=terms.compare,
            refractory=0 if silent else terms.refractory,
        )
        self._found.supported.append(self._described(node, layer))
        self._found.supported += [f"{node.name}: {text}" for text in terms.said]
        return layer

    @staticmethod
    def _numbers(node: Node, terms: Terms, n_out: int) -> dict[str, Any]:
        values = {
            "decay": terms.decay,
            "threshold": 1.0 if terms.threshold is None else terms.threshold,
            "reset_value": terms.reset_value,
        }
        if terms.current_decay is not None:
            values["current_decay"] = terms.current_decay
        return {name: _spread(value, n_out, f"{node.name}: {name}") for name, value in values.items()}

    def _terms(self, node: Node, silent: bool) -> Terms:
        if not node.is_neuron:
            return Terms(0.0, 1.0, None, ">=", said=("a weighted sum, kept for no timestep",))
        terms = terms_of(self._source, node, self._facts)
        if terms.threshold is None and not silent:
            raise UnsupportedError(f"{node.name}: {node.type} sends values, not spikes, to other neurons")
        if silent and terms.threshold is not None and terms.reset != "none":
            raise InputError(
                f"{node.name}: fires and is reset, its membrane is no readout; add --reset {node.name}=none if it was "
                "trained without a reset, else --readout spike_count"
            )
        return terms

    def _projection(self, way: _Path, places: dict[str, int], gain: Float, node: Node) -> Projection:
        where = " -> ".join((way.source, *way.nodes, node.name))
        found = path(way.stages, self._shapes[way.source], gain, way.learned, where)
        if found.unrolled:
            self._found.supported.append(
                f"{where}: multiplied out into {found.connections.n_weights} single synapses, exactly"
            )
        return Projection(places[way.source], found.connections, found.pool, found.fixed)

    def _described(self, node: Node, layer: FloatLayer) -> str:
        parts = [f"{layer.n_out} neurons"]
        if node.is_neuron:
            parts.append("IF" if np.all(layer.decay == 1) else f"decay {_range(layer.decay)}")
        if layer.current_decay is not None:
            parts.append(f"current decay {_range(layer.current_decay)}")
        if node.type not in SILENT and node.is_neuron:
            reset = layer.reset + (f" {_range(layer.reset_value)}" if layer.reset == "value" else "")
            late = ", a timestep late" if layer.reset_delay else ""
            parts.append(f"threshold {layer.compare} {_range(layer.threshold)}, reset {reset}{late}")
        if layer.refractory:
            parts.append(rest_text(layer.refractory))
        return f"{node.name}: {node.type}, {', '.join(parts)}"


def _spread(value: Any, n_out: int, what: str) -> Float:
    array = np.asarray(value, np.float64)
    if array.size not in (1, n_out):
        raise InputError(f"{what} has the shape {array.shape} for {n_out} neurons")
    return np.broadcast_to(array.reshape(-1), (n_out,)).copy()


def _range(values: Float) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if low == high else f"{low:.6g}..{high:.6g}"


def _sorted(names: set[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Names so that each comes after those with an edge to it, and else by name; without those on a circle."""
    edges = list(edges)
    missing = dict.fromkeys(names, 0)
    after: dict[str, list[str]] = {name: [] for name in names}
    for a, b in edges:
        missing[b] += 1
        after[a].append(b)
    ready, found = sorted(name for name in names if not missing[name]), []
    while ready:
        name = ready.pop(0)
        found.append(name)
        for follower in after[name]:
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
        ready.sort()
    return found


def _circle(names: set[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Names on or behind a circle, at most three; none if there is no circle."""
    return sorted(names - set(_sorted(names, edges)))[:3]
