"""Mutants of the sidecar: every leaf of ``design.json`` altered, one at a time.

A mutant is a legal JSON document that differs from the bundle's in one value. It counts as caught if it is refused on
reading, or if :func:`sim.facts.compare_facts` finds a fact that is not true, or the images do not decode to the frozen
network. Nothing has to be simulated for that. Hashes of files are right in every mutant but those that alter them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import SIDECAR, Sidecar, read_sidecar
from sim.bundle import altered_files
from sim.decoder import compare_decoded_sidecar
from sim.facts import compare_facts

Step = str | int

# Other legal values of the words that a sidecar may hold.
WORDS: tuple[tuple[str, ...], ...] = (
    ("input", "output"),
    ("high", "low"),
    ("rows", "synapses", "parameters"),
    ("deep", "short"),
    ("streaming", "folded"),
    ("spike_count", "membrane_last", "membrane_sum", "membrane_max"),
    ("current", "rate", "latency", "events", "delta"),
    ("off", "certain"),
    (">=", ">"),
    ("none", "subtract", "zero"),
    ("source", "kind", "value", "timestep", "index"),
    (
        *("start", "count", "slot", "weight", "gap", "code", "threshold", "bias", "leak_shift", "leak_multiplier"),
        *("current_leak_shift", "current_leak_multiplier"),
    ),
    ("none", "shift", "multiply"),
)


@dataclass(frozen=True)
class SidecarMutant:
    """A document with one altered leaf. name : the leaf's place and what was done to it."""

    name: str
    document: dict[str, Any]


def sidecar_mutants(sidecar: Sidecar, ways: int | None = None) -> Iterator[SidecarMutant]:
    """Every leaf of a sidecar altered in every way that its kind allows, and every list shortened and reordered.

    ways : alterations of each leaf and list, at most; None for all.
    """
    original = sidecar.to_json()
    for path, value in leaves(original):
        for what, other in islice(_others(value), ways):
            document = copy.deepcopy(original)
            _set(document, path, other)
            yield SidecarMutant(f"{'.'.join(map(str, path))} {what}", document)
    for name, value in _legal_pictures(sidecar):
        path = ("layers", *name)
        document = copy.deepcopy(original)
        _set(document, path, value)
        yield SidecarMutant(f"{'.'.join(map(str, path))} a picture of one place", document)
    for path, value in _containers(original):
        for what, other in islice(_reordered(value), ways):
            document = copy.deepcopy(original)
            _set(document, path, other)
            yield SidecarMutant(f"{'.'.join(map(str, path))} {what}", document)


def caught(bundle: Path, document: dict[str, Any], network: FrozenNetwork) -> str | None:
    """How a mutant of the bundle's sidecar was caught, in one line; None if it was not. Raises nothing else."""
    try:
        sidecar = Sidecar.from_json(document)
        found = compare_facts(bundle, sidecar, network).differences
        if found:
            return str(found[0])
        altered = altered_files(bundle, sidecar)
        if altered:
            return f"{altered[0]} altered since generation"
        decoded = compare_decoded_sidecar(bundle, sidecar, network)
    except InputError as error:
        return str(error)
    return None if decoded["equal"] else decoded["first"]


def run_sidecar_mutants(bundle: Path, network: FrozenNetwork, ways: int | None = 2) -> list[dict[str, Any]]:
    """Mutants of a bundle's sidecar, gathered by its first key, as entries of ``mutants.json``.

    An entry is caught if all of its mutants are; ``reason`` says how many there were, or which one was not.
    """
    escaped: dict[str, list[str]] = {}
    made: dict[str, int] = {}
    for mutant in sidecar_mutants(read_sidecar(bundle), ways):
        key = mutant.name.partition(" ")[0].partition(".")[0]
        made[key] = made.get(key, 0) + 1
        if caught(bundle, mutant.document, network) is None:
            escaped.setdefault(key, []).append(mutant.name)
    return [
        {
            "name": f"{SIDECAR}: {key}" + (f" ({escaped[key][0]})" if key in escaped else ""),
            "kind": "sidecar",
            "component": "sidecar",
            "caught": key not in escaped,
            "first_divergence": None,
            "decoder_catches": None,
            "reason": f"{count} alterations, {len(escaped.get(key, []))} not found",
            "error": None,
        }
        for key, count in made.items()
    ]


def leaves(document: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Every value that holds no other, with its place. Of a list of numbers, the first and the last."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from leaves(value, (*path, key))
    elif isinstance(document, list) and document:
        numbers = all(isinstance(item, int) for item in document)
        for place in sorted({0, len(document) - 1}) if numbers else range(len(document)):
            yield from leaves(document[place], (*path, place))
    else:
        yield path, document


def _containers(document: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Any]]:
    if isinstance(document, dict | list):
        if path:
            yield path, document
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in items:
            yield from _containers(value, (*path, key))


def _legal_pictures(sidecar: Sidecar) -> Iterator[tuple[tuple[Step, ...], dict[str, Any]]]:
    """Pictures of one place for layers that have none, with their sizes right: what is no picture stated as one."""
    for entry in sidecar.layers:
        if entry.picture is None:
            yield (entry.index, "picture"), _one_place(entry.n_out)
        for number, projection in enumerate(entry.projections):
            if projection.reads is None:
                reads = {"picture": _one_place(projection.n_in), "pool": 1, "convolution": None}
                yield (entry.index, "projections", number, "reads"), reads


def _one_place(channels: int) -> dict[str, int]:
    return {"channels": channels, "height": 1, "width": 1}


def _others(value: Any) -> Iterator[tuple[str, Any]]:
    """Values of the same kind, and null in place of a value or a value in place of null."""
    if isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, int):
        # The likeliest first.
        for other in dict.fromkeys((value + 1, value - 1, 2 * value + 1, 1, 0, -value)):
            if other != value:
                yield f"= {other}", other
    elif isinstance(value, str):
        for words in WORDS:
            if value in words:
                yield from ((f"= {other!r}", other) for other in words if other != value)
        other = value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
        yield f"= {other!r}", other
        yield "with a letter more", f"{value}0"
        if value.isdigit() or value in ("off", "certain"):
            yield "= 1", 1
    elif value is None:
        yield from ((f"= {other!r}", other) for other in (0, 1, 7, "boot.bin", [0, 1]))
    elif isinstance(value, list | dict):
        yield "= null", None
    if value is not None and not isinstance(value, list | dict):
        yield "= null", None


def _reordered(value: Any) -> Iterator[tuple[str, Any]]:
    """A list or an object with one item less, and a list in another order."""
    if isinstance(value, dict):
        for key in value:
            yield f"without {key}", {name: item for name, item in value.items() if name != key}
        yield "= null", None
        return
    if value:
        yield "without its last item", value[:-1]
        yield "without its first item", value[1:]
        yield "with an item twice", [*value, value[-1]]
    for what, other in (("reversed", value[::-1]), ("rotated", [*value[1:], *value[:1]])):
        if other != value:
            yield what, other


def _set(document: Any, path: tuple[Step, ...], value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value
