"""From a float network to a frozen one: scales, leaks that hardware has, widths. Numpy alone, without fine-tuning.

What becomes another number on the way is listed with its size (:class:`Change`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, UnsupportedError, entries_for
from codesign.contract import golden
from codesign.contract.floating import FloatLayer, FloatNetwork
from codesign.contract.network import (
    INPUT,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    Leak,
    Projection,
    signed_width,
)
from codesign.contract.network.connections import is_whole
from codesign.contract.network.terms import plain_number, rest_text
from codesign.contract.scaling import (
    LayerScale,
    Scale,
    layer_scale,
    leak_bits,
    nearest_multipliers,
    nearest_shifts,
    scale_of,
)
from codesign.contract.stimulus import Stimulus

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

LEAK_TOLERANCE = 0.005
# Bits of membranes beyond those of fine-tuned networks, which learn what the rounding of a leak takes away.
EXTRA_BITS = 2
MARGIN = 1.25
LEAST_WIDTH = 4
MAX_SHIFT = 12
MULTIPLIER_BITS = range(8, 17)
# Wider membranes, which bounds alone may ask for, are cut to this; what 40 bits hold is not reached in practice.
MAX_BOUND_WIDTH = 40
# Below this a leak counts as kept: it is what float32 rounds away in a file.
EXACT = 1e-5
CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Change:
    """Something that is another in the result than in the source.

    where : layer or node. what : the term. text : one line. amount : its size, where there is a number for it.
    """

    where: str
    what: str
    text: str
    amount: float | None = None

    def document(self) -> dict[str, Any]:
        return {"where": self.where, "what": self.what, "text": self.text, "amount": self.amount}


@dataclass(frozen=True)
class Quantised:
    """A frozen network, the scale of each layer, and what changed."""

    network: FrozenNetwork
    scales: tuple[LayerScale, ...]
    changes: tuple[Change, ...]


def quantise(
    network: FloatNetwork,
    calibration: Stimulus | None = None,
    *,
    weight_bits: int | Sequence[int] = 8,
    scale: Scale = "neuron",
    leak_tolerance: float = LEAK_TOLERANCE,
    margin: float = MARGIN,
    drop_refractory: bool = False,
) -> Quantised:
    """The frozen network that is nearest to ``network``, layer by layer, by the rounding of its numbers.

    calibration : samples whose membranes, ``margin`` times over (1 or more), decide the membranes' widths; without them
        bounds do, which follow from the weights and are wider.
    weight_bits : 2..8, of all layers or of each.
    scale : whether neurons (of a convolution: channels) have a step of the weights each, or share the layer's. A last
        layer that only integrates and one that is reset to a value share theirs in any case.
    leak_tolerance : the largest relative change of 1 - decay that a leak of hardware may have.
    drop_refractory : leave out refractory periods, whose counters a machine then does not need, and list them.

    Raises InputError if the network or an argument is not valid, a leak is beyond its tolerance or a scale cannot be
    found, and UnsupportedError for what a frozen network does not hold.

    >>> import codesign
    >>> network = codesign.FloatNetwork.from_arrays([[[0.5, -0.25], [1.0, 0.75]]], timesteps=3, decay=0.9)
    >>> found = codesign.quantise_network(network, weight_bits=4)
    >>> found.network.layers[0].dense().tolist(), found.network.layers[0].leak.kind
    ([[4, -2], [7, 7]], 'multiply')
    >>> found.changes[0].text
    'decay 0.9 becomes 461 / 2^9: 1 - decay changes by 0.39 %'
    """
    network.validate()
    bits = _bits_by_layer(weight_bits, len(network.layers))
    if scale not in get_args(Scale):
        raise InputError(f"scale {scale!r} is none of {', '.join(get_args(Scale))}")
    for name, value, low in (("leak_tolerance", leak_tolerance, 0.0), ("margin", margin, 1.0)):
        number = plain_number(value)
        if type(number) not in (int, float) or not low <= number < math.inf:
            raise InputError(f"{name} = {value!r} is no number of {low:g} or more")
    changes: list[Change] = []
    if drop_refractory:
        network = network.with_layers(
            [_without_refractory(layer, index, changes) for index, layer in enumerate(network.layers)]
        )
    made = [_layer(network, index, bits[index], scale, leak_tolerance, changes) for index in range(len(bits))]
    wide = FrozenNetwork(tuple(layer for layer, _ in made), network.timesteps, network.coding, network.readout)
    bounded = _with_bounds(wide, changes)
    frozen = bounded if calibration is None else _calibrated(bounded, calibration, margin)
    changes.append(_width_change(bounded, frozen, calibration))
    frozen.validate()
    return Quantised(frozen, tuple(found for _, found in made), tuple(changes))


def _bits_by_layer(weight_bits: Any, n_layers: int) -> list[int]:
    """The bits of each layer's weights. Raises InputError unless they are one number of 2..8, or one for each layer."""
    given = plain_number(weight_bits)
    bits = [plain_number(found) for found in given] if np.iterable(given) else [given] * n_layers
    if len(bits) != n_layers:
        raise InputError(entries_for("weight_bits", len(bits), n_layers))
    for wrong in (found for found in bits if not is_whole(found, 2, 8)):
        raise InputError(f"weight_bits = {wrong!r} is outside 2..8")
    return bits


def snapped_leak(decay: Float, tolerance: float, where: str, what: str) -> tuple[Leak, Change | None]:
    """The cheapest leak of hardware within ``tolerance``: none, then a shift, then a multiplier of the fewest bits.

    The change is that of 1 - decay, relative: of the rate at which the membrane forgets. Raises InputError naming the
    option if no leak is near enough, or a decay is outside 0..1.
    """
    if decay.min() < 0 or decay.max() > 1:
        raise InputError(f"{where}: {what} {decay.max() if decay.max() > 1 else decay.min():g} is outside 0..1")
    best: tuple[float, Leak] | None = None
    for leak in _candidates(decay):
        worst = float(_relative_change(leak, decay).max())
        if best is None or worst < best[0]:
            best = worst, leak
        if worst <= tolerance:
            break
    assert best is not None
    worst, leak = best
    if worst > tolerance:
        raise InputError(
            f"{where}: {what} {_span(decay)} is {100 * worst:.3g} % off the nearest leak of hardware in 1 - decay; "
            f"accept it with a leak tolerance of {math.ceil(1000 * worst) / 1000:g}"
        )
    if worst <= EXACT:
        return leak, None
    return leak, Change(
        where,
        what,
        f"{what} {_span(decay)} becomes {_leak_text(leak)}: 1 - {what} changes by {100 * worst:.2g} %",
        worst,
    )


def _candidates(decay: Float) -> list[Leak]:
    found = [Leak()] if np.all(decay >= 1) else []
    shifts = np.where(decay < 0.25, 0, nearest_shifts(decay, MAX_SHIFT))
    found.append(Leak("shift", _shared(shifts)))
    found += [Leak("multiply", n, _shared(nearest_multipliers(decay, n))) for n in MULTIPLIER_BITS]
    return found


def kept_fraction(leak: Leak) -> Any:
    """What a leak leaves of a membrane, as a fraction: a float, or float64 (n_out,)."""
    if leak.kind == "none":
        return 1.0
    if leak.kind == "shift":
        return 1 - 2.0 ** -np.asarray(leak.shift, np.float64)
    return np.asarray(leak.multiplier) / 2.0 ** np.asarray(leak.shift)


def _relative_change(leak: Leak, decay: Float) -> Float:
    difference = np.abs(kept_fraction(leak) - decay)
    # Against a decay of 1 every leak is too much, however small.
    return np.divide(difference, 1 - decay, out=np.where(difference > 0, np.inf, 0.0), where=decay < 1)


def _shared(values: Int) -> int | Int:
    return int(values[0]) if np.all(values == values[0]) else values


def _span(values: Float) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if high - low < 1e-9 else f"{low:.6g}..{high:.6g}"


def _leak_text(leak: Leak) -> str:
    if isinstance(leak.shift, np.ndarray) or isinstance(leak.multiplier, np.ndarray):
        kept = np.asarray(kept_fraction(leak))
        form = "1 - 2^-k" if leak.kind == "shift" else f"m / 2^{leak.shift}"
        return f"{form} of each neuron, {_span(kept)}"
    return f"1 - 2^-{leak.shift}" if leak.kind == "shift" else f"{leak.multiplier} / 2^{leak.shift}"


def _named(layer: FloatLayer, index: int) -> str:
    return f"layer {index}" + (f" ({layer.name})" if layer.name else "")


def _without_refractory(layer: FloatLayer, index: int, changes: list[Change]) -> FloatLayer:
    if layer.refractory:
        text = f"a neuron {rest_text(layer.refractory)}; in integers it does not"
        changes.append(Change(_named(layer, index), "refractory", text, float(layer.refractory)))
    return replace(layer, refractory=0)


def _layer(
    network: FloatNetwork, index: int, bits: int, kind: Scale, tolerance: float, changes: list[Change]
) -> tuple[FrozenLayer, LayerScale]:
    """A layer in integers, its membrane as wide as there is, and its scale."""
    layer = network.layers[index]
    where = _named(layer, index)
    silent = index == len(network.layers) - 1 and network.membrane_readout
    kind = scale_of(kind, silent=silent, reset_to_value=layer.reset == "value")
    leak, change = snapped_leak(layer.decay, tolerance, where, "decay")
    changes += [] if change is None else [change]
    terms, precision = _terms(layer, tolerance, where, changes)
    gains = [network.input_scale if projection.source == INPUT else 1.0 for projection in layer.projections]
    owners = [_owner(layer, projection, kind) for projection in layer.projections]
    count = 1 if kind == "layer" else _n_groups(layer)
    groups = [
        np.concatenate(
            [p.connections.weights[owner == group] * gain for p, gain, owner in zip(layer.projections, gains, owners)]
        )
        for group in range(count)
    ]
    fixed = [
        float(np.abs(p.connections.weights).max(initial=0)) * gain
        for p, gain in zip(layer.projections, gains)
        if p.fixed
    ]
    found = layer_scale(
        groups,
        bits,
        max(leak_bits(leak.kind, leak.shift, leak.multiplier), precision) + EXTRA_BITS,
        None,
        where,
        identity=max(fixed, default=0.0),
        threshold=_references(layer, groups, silent),
    )
    found = found if silent else _aligned(found, layer.threshold.reshape(count, -1))
    unit = np.repeat(found.unit, layer.n_out // count)
    if not silent and np.any(np.round(unit * layer.threshold) > 1 << 40):
        raise UnsupportedError(f"{where}: a threshold of {layer.threshold.max():g} is beyond 2^40 steps of its weights")
    projections = [
        _projection(p, gain / found.step[owner], found.limit)
        for p, gain, owner in zip(layer.projections, gains, owners)
    ]
    changes.append(_weight_change(where, layer, projections, gains, owners, found, bits))
    frozen = FrozenLayer.from_projections(
        projections,
        bias=_whole(layer.bias * unit, where, "bias"),
        threshold=1 if silent else _whole(layer.threshold * unit, where, "threshold"),
        leak=leak,
        reset=layer.reset,
        reset_value=_reset_value(layer, unit, where),
        compare=layer.compare,
        fraction_bits=found.fraction_bits,
        membrane_width=MAX_BOUND_WIDTH,
        shape=layer.shape,
        **terms,
    )
    return frozen, found


def _terms(layer: FloatLayer, tolerance: float, where: str, changes: list[Change]) -> tuple[dict[str, Any], int]:
    """Parameters of the frozen layer for the terms that a layer may have, and bits below the threshold they need."""
    terms: dict[str, Any] = {"reset_delay": layer.reset_delay, "refractory": layer.refractory}
    if layer.current_decay is None:
        return terms, 0
    leak, change = snapped_leak(layer.current_decay, tolerance, where, "current decay")
    changes += [] if change is None else [change]
    return {**terms, "current_leak": leak, "current_width": MAX_BOUND_WIDTH}, leak_bits(
        leak.kind, leak.shift, leak.multiplier
    )


def _aligned(scale: LayerScale, thresholds: Float) -> LayerScale:
    """The scale with steps moved, by less than half a unit of the membrane, so that thresholds are whole.

    thresholds : (G, neurons of the group). Without it a threshold of a hundred units would be off by half a percent for
    all spikes of its neurons; weights are off by as much only each for itself. A group of several thresholds keeps its
    step.
    """
    alike = np.all(thresholds == thresholds[:, :1], axis=1) & (thresholds[:, 0] > 0)
    exact = np.where(alike, scale.unit * thresholds[:, 0], 1.0)
    step = scale.step * exact / np.where(alike, np.maximum(np.round(exact), 1), 1.0)
    return replace(scale, step=step, unit=2.0**scale.fraction_bits / step)


def _owner(layer: FloatLayer, projection: Projection, kind: Scale) -> Int:
    """int64 (n_weights,): the group of each weight's target."""
    connections = projection.connections
    if kind == "layer":
        return np.zeros(connections.n_weights, np.int64)
    if isinstance(connections, Convolution):
        return connections.out_channel.astype(np.int64)
    return connections.targets.astype(np.int64) // (layer.n_out // _n_groups(layer))


def _n_groups(layer: FloatLayer) -> int:
    """Groups of scale 'neuron': channels where a convolution ends, which has its taps for all of a channel."""
    convolved = any(isinstance(projection.connections, Convolution) for projection in layer.projections)
    return layer.shape[0] if convolved and layer.shape is not None else layer.n_out


def _references(layer: FloatLayer, groups: Sequence[Float], silent: bool) -> Float:
    """float64 (G,), positive: what the precision of each group is measured by, its least threshold.

    Its largest weight where there is no threshold to reach.
    """
    heaviest = np.array([float(np.abs(weights).max(initial=0.0)) for weights in groups])
    heaviest = np.where(heaviest > 0, heaviest, max(float(heaviest.max(initial=0.0)), 1.0))
    if silent:
        return heaviest
    thresholds = layer.threshold.reshape(len(groups), -1)
    least = np.min(thresholds, axis=1, where=thresholds > 0, initial=np.inf)
    return np.where(np.isfinite(least), least, heaviest)


def _projection(projection: Projection, factor: Float, limit: int) -> Projection:
    """The projection in integers: weights times ``factor`` (n_weights,), rounded and clipped, zeros left out."""
    connections = projection.connections
    whole = np.clip(np.round(connections.weights * factor), -limit, limit).astype(np.int8)
    if projection.fixed:
        # An identity stays one, however light.
        whole = np.where(whole == 0, np.sign(connections.weights), whole).astype(np.int8)
    return replace(projection, connections=connections.with_weights(whole))


def _weight_change(
    where: str,
    layer: FloatLayer,
    projections: Sequence[Projection],
    gains: Sequence[float],
    owners: Sequence[Int],
    scale: LayerScale,
    bits: int,
) -> Change:
    count = sum(projection.connections.n_weights for projection in layer.projections)
    kept = sum(projection.connections.n_weights for projection in projections)
    clipped, error, power = 0, 0.0, 0.0
    for projection, gain, owner in zip(layer.projections, gains, owners, strict=True):
        exact = projection.connections.weights * gain / scale.step[owner]
        whole = np.clip(np.round(exact), -scale.limit, scale.limit)
        clipped += int(np.count_nonzero(np.abs(exact) > scale.limit + 0.5))
        steps = scale.step[owner]
        error += float((((exact - whole) * steps) ** 2).sum())
        power += float(((exact * steps) ** 2).sum())
    relative = math.sqrt(error / power) if power else 0.0
    text = f"{count} weights of {bits} bits, {100 * relative:.2g} % of their size lost in rounding"
    text += f", {count - kept} become 0" if kept < count else ""
    text += f", {clipped} are clipped" if clipped else ""
    return Change(where, "weights", text, relative)


def _whole(values: Float, where: str, what: str) -> Int:
    if np.any(np.abs(values) > float(1 << 40)):
        raise UnsupportedError(f"{where}: a {what} is beyond 2^40 steps of the membrane")
    return np.round(values).astype(np.int64)


def _reset_value(layer: FloatLayer, unit: Float, where: str) -> int:
    if layer.reset != "value":
        return 0
    values = _whole(layer.reset_value * unit, where, "reset value")
    if np.any(values != values[0]):
        raise UnsupportedError(
            f"{where}: neurons are reset to different values, {values.min()} to {values.max()} steps of the membrane; "
            "hardware has one value a layer"
        )
    return int(values[0])


# Widths --------------------------------------------------------------------------------------------


def _with_bounds(network: FrozenNetwork, changes: list[Change]) -> FrozenNetwork:
    """The network with membranes and currents as wide as their bounds over all inputs, by the weights."""
    layers = []
    for index, layer in enumerate(network.layers):
        source_max = network.source_max(index)
        low, high = layer.unsaturated_range(network.timesteps, source_max)
        if layer.reset_delay:
            # What leaks between a spike and the subtraction of its threshold: the least that the latter leaves.
            low -= int((layer.threshold - layer.leak.exact(layer.threshold)).max(initial=0))
        found = {"membrane": signed_width(min(low, layer.reset_value), max(high, layer.reset_value))}
        if layer.has_current:
            found["current"] = signed_width(*layer.unsaturated_current_range(network.timesteps, source_max))
        for state, width in found.items():
            if width > MAX_BOUND_WIDTH:
                text = f"a {state} of up to {width} bits is cut to {MAX_BOUND_WIDTH} and may saturate"
                changes.append(Change(f"layer {index}", state, text, float(width)))
        layers.append(_widened(layer, found, MAX_BOUND_WIDTH))
    return network.with_layers(layers)


def _widened(layer: FrozenLayer, widths: dict[str, int], most: int) -> FrozenLayer:
    """The layer with these widths by state, at least 4 bits and at most ``most``."""
    fields = {f"{state}_width": min(most, max(LEAST_WIDTH, width)) for state, width in widths.items()}
    return replace(layer, **fields)


def _calibrated(network: FrozenNetwork, calibration: Stimulus, margin: float) -> FrozenNetwork:
    """The network with membranes and currents that hold those of the samples, ``margin`` times over; none wider.

    A last layer that only integrates keeps its bounds: it must not saturate.
    """
    network.validate()
    extremes: list[dict[str, tuple[int, int]]] = [{} for _ in network.layers]
    for start in range(0, len(calibration), CALIBRATION_BATCH):
        trace = golden.run(network, calibration.take(slice(start, start + CALIBRATION_BATCH)), spikes=False)
        for index, layer in enumerate(network.layers):
            states = {"membrane": trace.membranes[index]} | (
                {"current": trace.currents[index]} if layer.has_current else {}
            )
            for state, values in states.items():
                low, high = extremes[index].get(state, (0, 0))
                extremes[index][state] = min(low, int(values.min())), max(high, int(values.max()))
    layers = []
    for index, layer in enumerate(network.layers):
        if index == len(network.layers) - 1 and network.membrane_readout:
            layers.append(layer)
            continue
        widths = {}
        for state, (low, high) in extremes[index].items():
            least, most = math.floor(low * margin), math.ceil(high * margin)
            if state == "membrane":
                least, most = min(least, layer.reset_value), max(most, layer.reset_value)
            widths[state] = min(signed_width(least, most), getattr(layer, f"{state}_width"))
        layers.append(_widened(layer, widths, MAX_BOUND_WIDTH))
    return network.with_layers(layers)


def _width_change(bounded: FrozenNetwork, frozen: FrozenNetwork, calibration: Stimulus | None) -> Change:
    widths = _widths(frozen)
    if calibration is None:
        return Change("network", "widths", f"{widths} bits, by bounds of the weights: nothing was measured")
    text = f"{widths} bits by {len(calibration)} samples, bounds would need {_widths(bounded)}; beyond they saturate"
    return Change("network", "widths", text)


def _widths(network: FrozenNetwork) -> str:
    membranes = "membranes of " + ", ".join(str(layer.membrane_width) for layer in network.layers)
    currents = [str(layer.current_width) for layer in network.layers if layer.has_current]
    return membranes + (f" and currents of {', '.join(currents)}" if currents else "")
