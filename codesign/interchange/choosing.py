"""What bits of the weights cost on samples, and the fewest that an accuracy allows.

The samples are those that also decide widths: they choose, and nothing else is reported on them. No membrane that has
these widths saturates on them, so that networks with bounds in their place decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.contract import floating, golden
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus

BITS = range(8, 1, -1)
# Of the tables, which take a run for each number of bits and each density.
MAX_SAMPLES, MAX_REPORTED = 256, 1024
BATCH = 32

# A frozen network of a float one, with these bits for each layer.
Freeze = Callable[[FloatNetwork, list[int]], FrozenNetwork]


@dataclass(frozen=True)
class Chosen:
    """Bits of each layer, chosen on ``samples`` samples for an accuracy of at least ``floor``.

    alike : bits of all layers that were tried first, and their accuracy; the last ones held.
    steps : after them, in order: the layer and its bits that were tried, the accuracy and whether it held.
    """

    bits: tuple[int, ...]
    samples: int
    accuracy_float: float
    accuracy: float
    floor: float
    alike: tuple[tuple[int, float], ...]
    steps: tuple[tuple[int, int, float, bool], ...]


def has_labels(stimulus: Stimulus | None) -> bool:
    return stimulus is not None and bool(np.any(stimulus.labels >= 0))


def decisions(network: FloatNetwork | FrozenNetwork, stimulus: Stimulus) -> npt.NDArray[np.int32]:
    """int32 (N,): the network's, a batch at a time."""
    run = floating.run if isinstance(network, FloatNetwork) else golden.run
    parts = [stimulus.take(slice(start, start + BATCH)) for start in range(0, len(stimulus), BATCH)]
    return np.concatenate([run(network, part, membranes=False).decisions for part in parts])  # type: ignore[arg-type]


def accuracy(found: npt.NDArray[np.int32], stimulus: Stimulus) -> float | None:
    """Of decisions, over the samples that have a label; None if none has."""
    known = stimulus.labels >= 0
    return float(np.mean(found[known] == stimulus.labels[known])) if known.any() else None


def costs(
    name: str,
    reference: FloatNetwork,
    variants: Sequence[tuple[float, FrozenNetwork]],
    stimulus: Stimulus,
    most: int = MAX_SAMPLES,
) -> dict[str, Any]:
    """Each variant beside the float network, on the first ``most`` samples: a table of the document.

    name : what the number of a variant is, and its key in the rows. Beside it ``synapses``, ``same_decisions`` (0..1)
    and ``accuracy``, None without labels.
    """
    few = stimulus.take(slice(0, most))
    exact = decisions(reference, few)
    rows = []
    for number, frozen in variants:
        found = decisions(frozen, few)
        same = float(np.mean(found == exact))
        rows.append(
            {name: number, "synapses": frozen.n_synapses, "same_decisions": same, "accuracy": accuracy(found, few)}
        )
    return {"samples": len(few), "accuracy_float": accuracy(exact, few), "rows": rows}


def fewest_bits(
    reference: FloatNetwork, network: FloatNetwork, freeze: Freeze, start: int, drop: float, stimulus: Stimulus | None
) -> Chosen:
    """Bits of each layer, ``start`` at most, whose accuracy on these samples is at most ``drop`` (0..1) below that of
    ``reference``.

    First the fewest bits that hold for all layers alike: accuracy is not monotone in them, so that a descent by single
    bits may end early. From there one bit of one layer at a time, the one that saves the most bits of weights first; a
    layer whose step does not hold is left at its bits. Raises InputError without labels, and where no bits hold.
    """
    if not 0 <= drop < 1:
        raise InputError(f"--max-accuracy-drop {drop:g} is outside 0..1; it is a fraction, .01 for one percent")
    if not BITS[-1] <= start <= BITS[0]:
        raise InputError(f"weight_bits = {start!r} is outside {BITS[-1]}..{BITS[0]}")
    if stimulus is None or not has_labels(stimulus):
        raise InputError("--max-accuracy-drop needs --samples with labels (y), whose accuracy it holds")
    exact = accuracy(decisions(reference, stimulus), stimulus)
    assert exact is not None
    floor = exact - drop

    def measured(frozen: FrozenNetwork) -> float:
        found = accuracy(decisions(frozen, stimulus), stimulus)
        assert found is not None
        return found

    alike: list[tuple[int, float]] = []
    for count in range(BITS[-1], start + 1):
        alike.append((count, measured(freeze(network, [count] * len(network.layers)))))
        if holds(alike[-1][1], floor):
            break
    first, now = alike[-1]
    if not holds(now, floor):
        raise InputError(
            f"--max-accuracy-drop {drop:g}: weights of {start} bits have an accuracy of {100 * now:.2f} % on the "
            f"samples that choose, {100 * exact:.2f} % in float, and no fewer bits hold; raise it or --weight-bits"
        )
    bits = [first] * len(network.layers)
    frozen = freeze(network, bits)
    steps: list[tuple[int, int, float, bool]] = []
    open_layers = set(range(len(bits))) if first > BITS[-1] else set()
    while open_layers:
        tried = {}
        for index in open_layers:
            fewer = freeze(network, [count - (layer == index) for layer, count in enumerate(bits)])
            tried[index] = memory(frozen, bits)[index] - memory(fewer, bits, less=index)[index], fewer
        layer = max(sorted(tried), key=lambda index: tried[index][0])
        fewer = tried[layer][1]
        found = measured(fewer)
        steps.append((layer, bits[layer] - 1, found, held := holds(found, floor)))
        if held:
            bits[layer] -= 1
            frozen, now = fewer, found
        if not held or bits[layer] == BITS[-1]:
            open_layers.remove(layer)
    return Chosen(tuple(bits), len(stimulus), exact, now, floor, tuple(alike), tuple(steps))


def holds(found: float, floor: float) -> bool:
    """Whether an accuracy is not below the floor; both are quotients, of which the last place says nothing."""
    return found >= floor - 1e-12


def memory(network: FrozenNetwork, bits: Sequence[int], less: int | None = None) -> list[int]:
    """Bits of the weights by layer: weights that are stored, times the bits of each."""
    return [
        sum(p.connections.n_weights for p in layer.projections) * (bits[index] - (index == less))
        for index, layer in enumerate(network.layers)
    ]
