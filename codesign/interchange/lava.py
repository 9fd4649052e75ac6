"""lava-dl's ``.net`` files: integer networks of Loihi neurons, which stay the integers that they are.

    i = i * (4096 - iDecay) / 4096 + (sum << (6 + wgtExp))
    v = v * (4096 - vDecay) / 4096 + i + (bias << 6)
    s = v > vThMant << 6, then v = 0 for refDelay timesteps

An iDecay of 4096 lets no current outlive its timestep, so that the bias may be part of it; with another iDecay a bias
is refused. A refDelay of 1 is no refractory period. Loihi rounds both products toward zero, hardware downwards. Axes
are (channels, x, y), weights as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network import (
    Connections,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    Synapses,
)
from codesign.contract.network.limits import MAX_LAYERS, MAX_TIMESTEPS
from codesign.interchange.facts import Asked, Facts, Findings
from codesign.interchange.hdf5 import Tree, check_floats, read_tree
from codesign.interchange.nodes import Node, Shape, same_neurons, squeezed
from codesign.interchange.operators import Unrolled, from_matrix, operator
from codesign.quantise.integers import Change

NAME = "lava"
DECAY_BITS = 12
STATE_BITS = 6
# Of Loihi's membrane and current, the sign among them.
STATE_WIDTH = 24
THRESHOLD_BITS = 17
LARGEST_WEIGHT = 127
MAX_EXPONENT = 8
NEURON_TYPES = ("LOIHI", "CUBA")


@dataclass(frozen=True)
class ImportedIntegers:
    """A frozen network and what its import found."""

    network: FrozenNetwork
    findings: Findings


def read_net(file: Path, facts: Facts) -> ImportedIntegers:
    """The frozen network of a ``.net`` file.

    Raises InputError, with the file's name in front, for a file of another form or a fact that nothing says (the line
    names the option), and UnsupportedError for a kind of layer or neuron that a frozen network does not hold.
    """
    tree = read_tree(file, "no such lava-dl network")
    check_floats(file, tree.get("layer"))
    try:
        return _network(tree, facts)
    except (InputError, UnsupportedError) as error:
        raise type(error)(f"{file}: {error}") from None


def _network(tree: Tree, facts: Facts) -> ImportedIntegers:
    asked = Asked(facts)
    layers = tree.get("layer")
    if not isinstance(layers, dict) or not layers:
        raise InputError("not a lava-dl network (no group 'layer' in it)")
    if len(layers) > MAX_LAYERS:
        raise UnsupportedError(f"{len(layers)} layers, the limit is {MAX_LAYERS}")
    numbers = [str(index) for index in range(len(layers))]
    if set(numbers) != set(layers):
        raise InputError(f"layers are {', '.join(sorted(layers))}, expected 0..{len(layers) - 1}")
    found, frozen = Findings(), []
    shape: Shape | None = None
    for number in numbers:
        entry, where = layers[number], f"layer {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{where}: is a data set, expected a group")
        kind = _text(entry, "type", where)
        if kind == "input":
            if shape is not None:
                raise InputError(f"{where}: a second input")
            shape = tuple(_whole(entry, "shape", where))
            found.supported.append(f"input: {shape}, events; the input layer's own neurons belong to the encoder")
        elif shape is None:
            raise InputError(f"{where}: comes before the input layer")
        elif kind == "flatten":
            shape = (prod(shape),)
        elif kind in ("conv", "dense"):
            layer, shape = _layer(entry, kind, shape, len(frozen), where, found)
            frozen.append(layer)
        else:
            raise UnsupportedError(f"{where}: layers of type {kind!r} are not read; input, flatten, conv and dense are")
    if not frozen:
        raise InputError("has no layer with neurons")
    readout = asked.needed(
        "readout", "the network", "how a decision is read is not in the file", "--readout spike_count"
    )
    if readout != "spike_count":
        raise InputError(f"--readout {readout}: the last layer fires and is reset; --readout spike_count")
    timesteps = asked.needed(
        "timesteps", "the network", "how many timesteps a sample has is not in the file", "--timesteps N"
    )
    if not 1 <= timesteps <= MAX_TIMESTEPS:
        raise InputError(f"--timesteps {timesteps} is outside 1..{MAX_TIMESTEPS}")
    network = FrozenNetwork(tuple(frozen), timesteps, InputCoding("events"), "spike_count")
    network.validate()
    asked.check(NAME)
    return ImportedIntegers(network, found)


def _layer(entry: Tree, kind: str, shape: Shape, index: int, where: str, found: Findings) -> tuple[FrozenLayer, Shape]:
    neuron = entry.get("neuron")
    if not isinstance(neuron, dict):
        raise InputError(f"{where}: has no group 'neuron'")
    at = f"{where}: neuron"
    name = _text(neuron, "type", at)
    if name not in NEURON_TYPES:
        raise UnsupportedError(f"{at}: type {name!r} is not read; {', '.join(NEURON_TYPES)} are")
    if np.any(_array(entry, "delay", where, np.zeros(1)) != 0) or _number(neuron, "gradedSpike", at, 0):
        raise UnsupportedError(f"{where}: delays and graded spikes are not built in the frozen network")
    decays = {key: _number(neuron, key, at) for key in ("iDecay", "vDecay")}
    for key, value in decays.items():
        if not 0 <= value <= 1 << DECAY_BITS:
            raise InputError(f"{at}: {key} = {value} is outside 0..{1 << DECAY_BITS}")
    exponent, refractory = _number(neuron, "wgtExp", at, 0), _number(neuron, "refDelay", at, 1) - 1
    if not -STATE_BITS <= exponent <= MAX_EXPONENT or refractory < 0:
        raise InputError(f"{at}: wgtExp = {exponent} or refDelay = {refractory + 1} is outside its range")
    terms = _terms(decays["iDecay"], refractory, at)
    connections, out_shape = _connections(entry, kind, shape, where)
    connections, halvings = _byte_weights(connections, where)
    bias = _integers(_array(entry, "bias", where, np.zeros(1)), f"{where}: bias")
    if terms and np.any(bias != 0):
        raise UnsupportedError(f"{where}: a bias of the membrane beside a current that outlives its timestep")
    threshold = _number(neuron, "vThMant", at)
    if not 0 <= threshold < 1 << THRESHOLD_BITS:
        raise InputError(f"{at}: vThMant = {threshold} is outside 0..{(1 << THRESHOLD_BITS) - 1}")
    layer = FrozenLayer.from_projections(
        [Projection(index - 1, connections)],
        threshold=threshold << STATE_BITS,
        bias=(bias if bias.size > 1 else bias[0]) << STATE_BITS,
        leak=_leak(decays["vDecay"]),
        reset="zero",
        compare=">",
        fraction_bits=STATE_BITS + exponent + halvings,
        membrane_width=STATE_WIDTH,
        **({"shape": out_shape} if len(out_shape) == 3 else {}),
        **terms,
    )
    found.supported.append(
        f"{where}: {kind} to {out_shape}, {layer.n_synapses} weights, {name} neurons, iDecay {decays['iDecay']}, "
        f"vDecay {decays['vDecay']}, threshold > {threshold} << {STATE_BITS}"
    )
    if any(0 < decay < 1 << DECAY_BITS for decay in decays.values()):
        found.changed.append(
            Change(
                where, "leak", "negative states leak downwards, Loihi rounds them toward zero: one step at most", 1.0
            )
        )
    return layer, out_shape


def _terms(current_decay: int, refractory: int, where: str) -> dict[str, Any]:
    """Parameters of the frozen layer for a current that outlives its timestep."""
    if refractory:
        raise UnsupportedError(
            f"{where}: refDelay {refractory + 1}: lava-dl's own reader passes over it, Loihi does not, so that the "
            "file does not say whether neurons rest; only 1 is read"
        )
    if current_decay == 1 << DECAY_BITS:
        return {}
    return {"current_leak": _leak(current_decay), "current_width": STATE_WIDTH}


def _leak(decay: int) -> Leak:
    """The leak that keeps (4096 - decay) / 4096."""
    return Leak() if decay == 0 else Leak("multiply", DECAY_BITS, (1 << DECAY_BITS) - decay)


def _connections(entry: Tree, kind: str, shape: Shape, where: str) -> tuple[Any, Shape]:
    """Connections in float64, and the shape that they lead to."""
    weight = _array(entry, "weight", where)
    if kind == "dense":
        if weight.ndim > 2 and prod(weight.shape[2:]) == 1:
            weight = weight.reshape(weight.shape[:2])
        made = operator(Node(where, "Linear", {"weight": weight}), shape)
    else:
        if weight.ndim == 5 and weight.shape[4] == 1:
            weight = weight[..., 0]
        parameters = {name: _array(entry, name, where, default) for name, default in _CONVOLUTION.items()}
        outs = weight.shape[0] if weight.ndim else 0
        parameters |= {"weight": weight, "bias": np.zeros(outs)}
        made = operator(Node(where, "Conv2d", parameters), shape)
    stage = made.stages[0]
    out = tuple(_whole(entry, "shape", where)) if "shape" in entry else made.shape
    if not same_neurons(out, made.shape):
        raise InputError(f"{where}: shape is {out}, its weights give {made.shape}")
    return (from_matrix(stage.matrix) if isinstance(stage, Unrolled) else stage), squeezed(made.shape)


_CONVOLUTION = {
    "stride": np.ones(1), "padding": np.zeros(1), "dilation": np.ones(1), "groups": np.ones(1),
}  # fmt: skip


def _byte_weights(connections: Any, where: str) -> tuple[Connections, int]:
    """The connections with int8 weights, halved as often as that takes and loses nothing; and how often."""
    weights = _integers(connections.weights, f"{where}: weight")
    halvings = 0
    while np.abs(weights).max(initial=0) > LARGEST_WEIGHT and not np.any(weights & 1):
        weights, halvings = weights >> 1, halvings + 1
    if np.abs(weights).max(initial=0) > LARGEST_WEIGHT:
        raise UnsupportedError(f"{where}: a weight of {int(np.abs(weights).max()) << halvings} needs more than 8 bits")
    assert isinstance(connections, Synapses | Convolution)
    return connections.with_weights(weights.astype(np.int8)), halvings


# Entries of groups ---------------------------------------------------------------------------------


def _array(entry: Tree, key: str, where: str, default: np.ndarray | None = None) -> np.ndarray:
    value = entry.get(key, default)
    if not isinstance(value, np.ndarray) or value.size == 0:
        what = "missing" if value is None else "no array of numbers"
        raise InputError(f"{where}: {key} is {what}")
    with np.errstate(invalid="ignore"):
        array = value.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{where}: {key} holds NaN or infinite values")
    return array


def _integers(array: np.ndarray, where: str) -> np.ndarray:
    if np.any(array != np.round(array)) or np.any(np.abs(array) > 1 << 30):
        raise InputError(f"{where} holds {_first(array)}, expected whole numbers")
    return array.astype(np.int64)


def _first(array: np.ndarray) -> str:
    wrong = array[(array != np.round(array)) | (np.abs(array) > 1 << 30)]
    return f"{float(wrong.flat[0]):g}"


def _whole(entry: Tree, key: str, where: str) -> list[int]:
    values = _integers(_array(entry, key, where).reshape(-1), f"{where}: {key}").tolist()
    if not values or len(values) > 4 or min(values) < 1 or prod(values) > 1 << 20:
        raise InputError(f"{where}: {key} is {values[:8]}, expected sizes of at most {1 << 20} together")
    return values


def _number(entry: Tree, key: str, where: str, default: int | None = None) -> int:
    array = _array(entry, key, where, None if default is None else np.full(1, default, np.float64))
    if array.size != 1:
        raise InputError(f"{where}: {key} has the shape {array.shape}, expected one number")
    return int(_integers(array.reshape(-1), f"{where}: {key}")[0])


def _text(entry: Tree, key: str, where: str) -> str:
    value = entry.get(key)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} is missing or no text")
    return value[:60]
