"""Mutants: deliberate faults in delivered files and in the mapper, which the testbench must catch.

Nothing that the golden model reads is touched. Data mutants change the delivered memory images, RTL mutants the
delivered Verilog, mapper mutants the placement before a bundle is generated from it. The sidecar's hashes are
stamped again, so that it is the simulation which has to find the fault. A mutant of data or mapping is drawn until
the golden model of what its images say differs from the original on the verified samples: those that cannot be
seen from outside are not in the list. RTL mutants carry the reason why each can be seen. A mutant that does
not build is an error, never caught.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codesign import golden
from codesign.encoding import PLAIN
from codesign.errors import CodesignError, InputError, ToolError, UnsupportedError
from codesign.files import file_hash, write_json, write_text
from codesign.mapping import HardwareMap, LayerMap, map_network
from codesign.network import FrozenLayer, FrozenNetwork
from codesign.progress import Progress, silent
from codesign.sidecar import SIDECAR, MemoryImage, Sidecar, WordField, read_sidecar
from codesign.stimulus import Stimulus
from sim.bundle import read_image
from sim.decoder import compare_decoded, decode_bundle
from sim.verify import verify_bundle

MUTANT_SAMPLES = 6
DRAWS = 60


class NotApplicable(Exception):
    """The bundle has no place for this mutant."""


@dataclass(frozen=True)
class Mutant:
    """A mutated bundle to simulate, or the reason why there is none."""

    name: str
    kind: str
    bundle: Path
    reason: str
    error: str | None = None


def run_mutants(
    bundle: Path,
    network: FrozenNetwork,
    stimulus: Stimulus,
    work: Path,
    *,
    samples: int = MUTANT_SAMPLES,
    seed: int = 1,
    workers: int = 2,
    kinds: Sequence[str] = ("data", "rtl", "mapper"),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Make and simulate every mutant of a bundle on the first ``samples`` samples, and the unmutated control.

    Returns ``{"mutants": [{"name", "kind", "caught", "first_divergence", "decoder_catches", "reason", "error"}],
    "control": {...}, "caught", "total"}``. ``caught`` means that the simulation found a differing value;
    ``decoder_catches`` whether decoding the images alone would have shown the fault (None for RTL).
    ``work`` is emptied first. Raises InputError if the bundle is not of the network,
    UnsupportedError if the accelerator does not cover the network, or the bundle is folded, loadable or lean.
    """
    network.require_hardware()
    bundle, work = Path(bundle), Path(work)
    sidecar = read_sidecar(bundle)
    if sidecar.shape != "streaming":
        raise UnsupportedError(f"{bundle}: mutants are made of shape 'streaming' alone, this bundle is folded")
    for layer in sidecar.layers:
        if layer.lockstep or not layer.fifo_depth or layer.encoding.model_dump() != PLAIN.describe():
            raise UnsupportedError(
                f"{bundle}: mutants are made of machines with plain synapses, FIFOs and lanes of their own; generate "
                "one without hardware.synapses, lockstep and spike_fifos to have them"
            )
    if sidecar.load:
        raise UnsupportedError(f"{bundle}: mutants are made of machines with one network, this one is loadable")
    chosen = stimulus.take(slice(0, samples))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    makers = {"data": _data_mutants, "rtl": _rtl_mutants, "mapper": _mapper_mutants}
    mutants: list[Mutant] = []
    for kind in kinds:
        progress(0, 0, f"making {kind} mutants")
        mutants += makers[kind](bundle, network, chosen, work, np.random.default_rng([seed, *kind.encode()]))
    control = Mutant("unmutated", "control", bundle, "must pass")
    done = 0

    def simulate(mutant: Mutant) -> dict[str, Any]:
        nonlocal done
        result = _simulate(mutant, network, chosen, work / mutant.kind / mutant.name.replace(" ", "_") / "work", seed)
        done += 1
        progress(done, len(mutants) + 1, mutant.name)
        return result

    with ThreadPoolExecutor(max_workers=workers) as pool:
        results = list(pool.map(simulate, [control, *mutants]))
    return {
        "mutants": results[1:],
        "control": results[0],
        "caught": sum(bool(result["caught"]) for result in results[1:]),
        "total": len(mutants),
    }


def _simulate(mutant: Mutant, network: FrozenNetwork, stimulus: Stimulus, work: Path, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": mutant.name,
        "kind": mutant.kind,
        "caught": False,
        "first_divergence": None,
        "decoder_catches": None,
        "reason": mutant.reason,
        "error": mutant.error,
    }
    if mutant.error is not None:
        return result
    try:
        if mutant.kind in ("data", "mapper", "control"):
            result["decoder_catches"] = not compare_decoded(mutant.bundle, network)["equal"]
        verification = verify_bundle(
            mutant.bundle,
            network,
            stimulus,
            work,
            stress_samples=2,
            seed=seed,
            waves=False,
            workers=1,
            latency=False,
            decode=False,
            optimise="-O0",
        )
    except ToolError as error:
        return {**result, "error": str(error)}
    first = verification.first_divergence
    return {
        **result,
        "caught": verification.mismatches > 0,
        "first_divergence": first.to_json() if first is not None else None,
    }


# Files ------------------------------------------------------------------------------------------


def _copy(bundle: Path, work: Path, kind: str, name: str) -> Path:
    target = work / kind / name.replace(" ", "_") / "bundle"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bundle, target)
    return target


def _stamp(bundle: Path, changed: str) -> None:
    """Write the hash of a changed file into the sidecar."""
    document = json.loads((bundle / SIDECAR).read_text(encoding="utf-8"))
    document["files"][changed] = file_hash(bundle / changed)
    write_json(bundle / SIDECAR, document)


def _memory(sidecar: Sidecar, layer: int, role: str, lane: int) -> MemoryImage:
    for memory in sidecar.layers[layer].memories:
        if memory.role == role and memory.lane == lane:
            return memory
    raise NotApplicable(f"layer {layer} has no {role} memory")


def _field(memory: MemoryImage, name: str) -> WordField:
    for field in memory.fields:
        if field.name == name:
            return field
    raise NotApplicable(f"{memory.image} has no field {name}")


def _get(word: int, field: WordField) -> int:
    value = (word >> field.offset) & ((1 << field.width) - 1)
    return value - (1 << field.width) if field.signed and value >> (field.width - 1) else value


def _put(word: int, field: WordField, value: int) -> int:
    low = -(1 << (field.width - 1)) if field.signed else 0
    if not low <= value < low + (1 << field.width):
        raise NotApplicable("the value does not fit its field")
    mask = (1 << field.width) - 1
    return (word & ~(mask << field.offset)) | ((value & mask) << field.offset)


def _change_word(bundle: Path, memory: MemoryImage, address: int, field: str, change: Callable[[int], int]) -> None:
    words = read_image(bundle, memory)
    described = _field(memory, field)
    words[address] = _put(words[address], described, change(_get(words[address], described)))
    _write_image(bundle, memory, words)


def _write_image(bundle: Path, memory: MemoryImage, words: Sequence[int]) -> None:
    digits = -(-memory.width // 4)
    write_text(bundle / memory.image, "".join(f"{word:0{digits}x}\n" for word in words))
    _stamp(bundle, memory.image)


# Observability ----------------------------------------------------------------------------------


def _differs(bundle: Path, network: FrozenNetwork, stimulus: Stimulus) -> bool:
    """True if the golden model of what the images say differs from the original's on these samples."""
    layers = []
    try:
        for have, layer in zip(decode_bundle(bundle), network.layers, strict=True):
            layers.append(
                replace(
                    FrozenLayer.from_dense(have.weights, bias=have.bias, threshold=layer.threshold),
                    **{
                        name: getattr(layer, name)
                        for name in (
                            *("leak", "reset", "reset_value", "compare", "fraction_bits", "membrane_width"),
                            *("trained_index", "trained_width"),
                        )
                    },
                    threshold=have.threshold
                    if layer is not network.layers[-1] or not network.membrane_readout
                    else layer.threshold,
                )
            )
        mutated = golden.run(network.with_layers(layers), stimulus)
    except (InputError, IndexError):
        return True
    original = golden.run(network, stimulus)
    return any(
        not np.array_equal(ours, theirs)
        for ours, theirs in zip(mutated.membranes + mutated.spikes, original.membranes + original.spikes, strict=True)
    )


# Data -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Synapse:
    """Where one synapse of a source that fires lies: layer, lane, row address, synapse address, row length."""

    layer: int
    lane: int
    row: int
    address: int
    first: int
    count: int


def _active_synapses(bundle: Path, network: FrozenNetwork, stimulus: Stimulus, layer: int) -> list[_Synapse]:
    """Synapses of a layer whose source sends an event in the stimulus."""
    sidecar = read_sidecar(bundle)
    if layer == 0:
        active = stimulus.values.any(axis=0) if stimulus.values is not None else stimulus.dense().any(axis=(0, 1))
    else:
        active = golden.run(network, stimulus, membranes=False).spikes[layer - 1].any(axis=(0, 1))
    entry = sidecar.layers[layer]
    found = []
    for lane in range(entry.lanes):
        memory = _memory(sidecar, layer, "rows", lane)
        rows, start, count = read_image(bundle, memory), _field(memory, "start"), _field(memory, "count")
        for source in np.flatnonzero(active):
            row = entry.source_address[int(source)]
            first, length = _get(rows[row], start), _get(rows[row], count)
            found += [_Synapse(layer, lane, row, first + k, first, length) for k in range(length)]
    return found


def _data_edits(network: FrozenNetwork) -> Iterator[tuple[str, Callable[[Path, Stimulus, np.random.Generator], None]]]:
    """(name, edit) of every data mutant; an edit changes a copied bundle or raises NotApplicable."""
    last = len(network.layers) - 1

    def synapse(layer: int, field: str, change: Callable[[int], int]) -> Callable[..., None]:
        def edit(bundle: Path, stimulus: Stimulus, rng: np.random.Generator) -> None:
            found = _active_synapses(bundle, network, stimulus, layer)
            if not found:
                raise NotApplicable(f"no source of layer {layer} fires")
            at = found[int(rng.integers(len(found)))]
            _change_word(bundle, _memory(read_sidecar(bundle), layer, "synapses", at.lane), at.address, field, change)

        return edit

    def slot(layer: int) -> Callable[..., None]:
        def edit(bundle: Path, stimulus: Stimulus, rng: np.random.Generator) -> None:
            entry = read_sidecar(bundle).layers[layer]
            found = _active_synapses(bundle, network, stimulus, layer)
            if not found:
                raise NotApplicable(f"no source of layer {layer} fires")
            at = found[int(rng.integers(len(found)))]
            used = [s for s, lane in zip(entry.slot, entry.lane, strict=True) if lane == at.lane]
            memory = _memory(read_sidecar(bundle), layer, "synapses", at.lane)
            now = _get(read_image(bundle, memory)[at.address], _field(memory, "slot"))
            others = [s for s in used if s != now]
            if not others:
                raise NotApplicable("a lane of one neuron")
            target = int(rng.choice(others))
            _change_word(bundle, memory, at.address, "slot", lambda _: target)

        return edit

    def row(layer: int, field: str, change: int) -> Callable[..., None]:
        def edit(bundle: Path, stimulus: Stimulus, rng: np.random.Generator) -> None:
            found = _active_synapses(bundle, network, stimulus, layer)
            if not found:
                raise NotApplicable(f"no source of layer {layer} fires")
            at = found[int(rng.integers(len(found)))]
            sidecar = read_sidecar(bundle)
            depth = _memory(sidecar, layer, "synapses", at.lane).depth
            if change > 0 and at.first + at.count + change > depth:
                raise NotApplicable("the last row")
            _change_word(bundle, _memory(sidecar, layer, "rows", at.lane), at.row, field, lambda value: value + change)

        return edit

    def parameter(layer: int, field: str, change: Callable[[int], int]) -> Callable[..., None]:
        def edit(bundle: Path, stimulus: Stimulus, rng: np.random.Generator) -> None:
            sidecar = read_sidecar(bundle)
            entry = sidecar.layers[layer]
            neuron = int(rng.integers(entry.n_out))
            memory = _memory(sidecar, layer, "parameters", entry.lane[neuron])
            _change_word(bundle, memory, entry.slot[neuron], field, change)

        return edit

    def swap_synapses(bundle: Path, stimulus: Stimulus, rng: np.random.Generator) -> None:
        found = _active_synapses(bundle, network, stimulus, 0)
        if len(found) < 2:
            raise NotApplicable("fewer than two synapses")
        one, other = (found[int(k)] for k in rng.choice(len(found), 2, replace=False))
        if one.lane != other.lane:
            raise NotApplicable("not in one lane")
        memory = _memory(read_sidecar(bundle), 0, "synapses", one.lane)
        words = read_image(bundle, memory)
        words[one.address], words[other.address] = words[other.address], words[one.address]
        _write_image(bundle, memory, words)

    yield "weight plus one in the first layer", synapse(0, "weight", lambda value: value + 1)
    yield "weight minus one in the first layer", synapse(0, "weight", lambda value: value - 1)
    yield "weight plus one in the last layer", synapse(last, "weight", lambda value: value + 1)
    yield "weight sign in the first layer", synapse(0, "weight", lambda value: -value)
    yield "weight sign in the last layer", synapse(last, "weight", lambda value: -value)
    yield "weight lost", synapse(0, "weight", lambda value: 0)
    yield "target moved in the first layer", slot(0)
    yield "target moved in the last layer", slot(last)
    yield "row starts one late", row(0, "start", 1)
    yield "row starts one early", row(0, "start", -1)
    yield "row one longer", row(0, "count", 1)
    yield "row one shorter", row(0, "count", -1)
    yield "row one shorter in the last layer", row(last, "count", -1)
    yield "two synapses exchanged", swap_synapses
    for layer in dict.fromkeys((0, last)):
        yield f"threshold plus one in layer {layer}", parameter(layer, "threshold", lambda value: value + 1)
        yield f"bias plus one in layer {layer}", parameter(layer, "bias", lambda value: value + 1)


def _data_mutants(
    bundle: Path, network: FrozenNetwork, stimulus: Stimulus, work: Path, rng: np.random.Generator
) -> list[Mutant]:
    mutants = []
    for name, edit in _data_edits(network):
        for _ in range(DRAWS):
            copy = _copy(bundle, work, "data", name)
            try:
                edit(copy, stimulus, rng)
            except NotApplicable:
                continue
            if _differs(copy, network, stimulus):
                reason = "the golden model of the changed images differs on the verified samples"
                mutants.append(Mutant(name, "data", copy, reason))
                break
    return mutants


# RTL --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What decides whether a fault in the Verilog can be seen."""

    bundle: Path
    network: FrozenNetwork
    stimulus: Stimulus
    trace: golden.Trace


# A class's value against the best so far; it comes from the memory, or with readout membrane_last from the token.
BETTER = r"(?P<new>\$signed\((?:old|i__payload\[[0-9:]+\])\)) > \$signed\(best\)"


@dataclass(frozen=True)
class RtlEdit:
    """A textual edit of the delivered Verilog.

    Every module whose name (below the top's) matches ``module`` must hold ``pattern`` exactly once, or at least
    once if ``every``; each match is replaced. ``applies`` tells whether the fault can be seen.
    """

    name: str
    module: str
    pattern: str
    replacement: str | Callable[[re.Match[str]], str]
    reason: str
    every: bool = False
    applies: Callable[[Scene], bool] = lambda scene: True


def _previous(match: re.Match[str]) -> str:
    """The same text with its sized constant one less."""
    value = int(match["value"], 16)
    return f"{match['head']}{match['size']}'h{value - 1:x}"


def _shift_more(match: re.Match[str]) -> str:
    high, low = int(match["high"]), int(match["low"])
    return f"$signed(membrane) - $signed(membrane[{high}:{min(high, low + 1)}])"


def _flip_hash(match: re.Match[str]) -> str:
    return f"{match['head']}{int(match['value'], 16) ^ 1:016x}"


def _inverted(match: re.Match[str]) -> str:
    return f"$signed(difference) {'<' if match['operator'] == '>=' else '<='} $signed(1'h0)"


def _is_counted(scene: Scene) -> bool:
    return scene.network.readout == "spike_count" and bool(scene.trace.values.any())


def _spiking_first(scene: Scene) -> bool:
    return (len(scene.network.layers) > 1 or not scene.network.membrane_readout) and bool(scene.trace.spikes[0].any())


def _has_tie(scene: Scene) -> bool:
    best = scene.trace.values == scene.trace.values.max(axis=1, keepdims=True)
    return bool((best.sum(axis=1) > 1).any())


def _leaks(scene: Scene) -> bool:
    layer = scene.network.layers[0]
    membranes = scene.trace.membranes[0][:, :-1]
    return layer.leak.kind != "none" and bool(np.any(layer.leak(membranes) != membranes))


def _leaks_by_shift(scene: Scene) -> bool:
    layer = scene.network.layers[0]
    membranes = scene.trace.membranes[0][:, :-1]
    return layer.leak.kind == "shift" and bool(
        np.any(membranes >> layer.leak.shift != membranes >> (layer.leak.shift + 1))
    )


def _collisions(scene: Scene, distance: int) -> int:
    """Times that a lane of the first layer adds to one slot ``distance`` clocks apart, with work waiting.

    Lanes walk the rows of a sample's events in order, one synapse a clock, as long as the next row has arrived:
    events come one a clock, so that a lane that has had more synapses than there were events has no bubble.
    """
    sidecar = read_sidecar(scene.bundle)
    entry, found = sidecar.layers[0], 0
    walks = []
    for sample in range(len(scene.stimulus)):
        if scene.stimulus.values is not None:
            walks.append(np.flatnonzero(scene.stimulus.values[sample]))
        else:
            walks += [scene.stimulus.events(sample, timestep) for timestep in range(scene.network.timesteps)]
    for lane in range(entry.lanes):
        rows = _memory(sidecar, 0, "rows", lane)
        synapses = _memory(sidecar, 0, "synapses", lane)
        start, count, slot = _field(rows, "start"), _field(rows, "count"), _field(synapses, "slot")
        row_words = read_image(scene.bundle, rows)
        slots = [_get(word, slot) for word in read_image(scene.bundle, synapses)]
        for walk in walks:
            line: list[int] = []
            for position, source in enumerate(walk):
                word = row_words[entry.source_address[int(source)]]
                first = _get(word, start)
                before = len(line)
                line += slots[first : first + _get(word, count)]
                if before > position + BACKLOG:
                    found += sum(
                        at >= distance
                        and line[at] == line[at - distance]
                        and line[at] not in line[at - distance + 1 : at]
                        for at in range(before, len(line))
                    )
    return found


BACKLOG = 4
COLLISIONS = 2
NEURONS = r"engine0_neurons\d+"
CONSTANT = r"(?P<size>\d+)'h(?P<value>[0-9a-f]+)"

RTL_EDITS = (
    RtlEdit(
        "compare operator inverted",
        NEURONS,
        r"\$signed\(difference\) (?P<operator>>=|>) \$signed\(1'h0\)",
        _inverted,
        "every sweep that fires is silent, and the other way round",
        every=True,
        applies=_spiking_first,
    ),
    RtlEdit(
        "threshold off by one",
        NEURONS,
        r"difference <= (?P<value>[^;]+);",
        r"difference <= \g<value> - 1'h1;",
        "with reset 'subtract' each spike leaves a membrane that is one less",
        applies=lambda scene: _spiking_first(scene) and scene.network.layers[0].reset == "subtract",
    ),
    RtlEdit(
        "leak forgotten",
        NEURONS,
        r"leaked <= [^;]+;",
        "leaked <= membrane;",
        "some membrane is not a fixed point of the leak before the last timestep",
        applies=_leaks,
    ),
    RtlEdit(
        "leak shift off by one",
        NEURONS,
        r"\$signed\(membrane\) - \$signed\(membrane\[(?P<high>\d+):(?P<low>\d+)\]\)",
        _shift_more,
        "some membrane leaks another amount with a shift of k + 1",
        applies=_leaks_by_shift,
    ),
    RtlEdit(
        "near forwarding removed",
        NEURONS,
        r"forward_near_1 <= [^;]+;",
        "forward_near_1 <= 1'h0;",
        "two synapses of one slot in consecutive clocks lose the first weight",
        applies=lambda scene: _collisions(scene, 1) >= COLLISIONS,
    ),
    RtlEdit(
        "far forwarding removed",
        NEURONS,
        r"forward_far_1 <= [^;]+;",
        "forward_far_1 <= 1'h0;",
        "two synapses of one slot two clocks apart lose the first weight",
        applies=lambda scene: _collisions(scene, 2) >= COLLISIONS,
    ),
    RtlEdit(
        "state survives the sample",
        NEURONS,
        r"= write_initial \?",
        "= 1'h0 ?",
        "the second sample starts from the first one's membranes",
    ),
    RtlEdit(
        "sums never written",
        NEURONS,
        r"= valid_2 \| (?P<other>write_valid|clear_valid);",
        r"= \g<other>;",
        "no event reaches a membrane",
    ),
    RtlEdit(
        "membranes one behind",
        NEURONS,
        r"last_written <= [^;]+;",
        "last_written <= operand;",
        "a forwarded sum lacks the weight before it",
        applies=lambda scene: _collisions(scene, 1) + _collisions(scene, 2) >= COLLISIONS,
    ),
    RtlEdit(
        "sweep one slot short",
        r"engine0",
        rf"(?P<head>is_end_0 = slot_0 == ){CONSTANT}",
        _previous,
        "the last slot of each lane is never swept",
    ),
    RtlEdit(
        "last timestep one early",
        r"engine0",
        rf"(?P<head>last_timestep = timestep == ){CONSTANT}",
        _previous,
        "the state is cleared before the last timestep",
        applies=lambda scene: scene.network.timesteps > 1,
    ),
    RtlEdit(
        "synapse address stands still",
        r"engine0_fetcher\d+",
        r"(?P<head>assign \\\$\d+  = \\addr\$\d+  \+ )1'h1;",
        r"\g<head>1'h0;",
        "rows of two synapses or more add their first one again",
    ),
    RtlEdit(
        "readout ends a timestep early",
        r"readout",
        rf"(?P<head>assign \\\$\d+  = timestep == ){CONSTANT}",
        _previous,
        "values and decision leave before the last timestep is counted",
        applies=lambda scene: scene.network.timesteps > 1,
    ),
    RtlEdit(
        "readout counts twice",
        r"readout",
        r"\$signed\(old\) \+ \$signed\(2'h1\)",
        "$signed(old) + $signed(3'h2)",
        "every class that spikes has twice its value",
        applies=_is_counted,
    ),
    RtlEdit(
        "argmax takes the least",
        r"readout",
        BETTER,
        r"\g<new> < $signed(best)",
        "some sample's classes differ, and the greatest is not the least",
        applies=lambda scene: bool((scene.trace.values.argmin(axis=1) != scene.trace.values.argmax(axis=1)).any()),
    ),
    RtlEdit(
        "tie to the highest class",
        r"readout",
        BETTER,
        r"\g<new> >= $signed(best)",
        "some sample has two greatest values",
        applies=_has_tie,
    ),
    RtlEdit(
        "cycle counter skips",
        r"",
        r"cycle_count \+ 1'h1",
        "cycle_count + 2'h2",
        "the counter is compared with the testbench's own",
    ),
    RtlEdit(
        "saturations not counted",
        r"",
        r"saturation_count \+ saturated",
        "saturation_count",
        "some membrane saturates",
        applies=lambda scene: bool(scene.trace.saturations.any()),
    ),
    RtlEdit(
        "network hash of another network",
        r"",
        r"(?P<head>network_hash = 64'h)(?P<value>[0-9a-f]+)",
        _flip_hash,
        "the hash is compared",
    ),
    RtlEdit(
        "decision without tlast",
        r"",
        r"assign m_axis_tlast = [^;]+;",
        "assign m_axis_tlast = 1'h0;",
        "no sample ever ends",
    ),
)


def apply_rtl_edit(text: str, top: str, edit: RtlEdit) -> str:
    """Edited Verilog. Raises ToolError unless the pattern is where it must be."""
    name = re.escape(f"{top}_") + edit.module if edit.module else re.escape(top)
    module = re.compile(rf"^module {name}\s*\(.*?^endmodule", re.MULTILINE | re.DOTALL)
    pieces, position, modules = [], 0, 0
    for found in module.finditer(text):
        body, count = re.subn(edit.pattern, edit.replacement, found.group())
        if count == 0 or (count > 1 and not edit.every):
            line = found.group().splitlines()[0][:60]
            raise ToolError(
                f"mutant {edit.name!r}: {count} matches in {line!r}, expected {'some' if edit.every else 1}"
            )
        pieces += [text[position : found.start()], body]
        position, modules = found.end(), modules + 1
    if modules == 0:
        raise ToolError(f"mutant {edit.name!r}: no module matches {name}")
    return "".join([*pieces, text[position:]])


def _rtl_mutants(
    bundle: Path, network: FrozenNetwork, stimulus: Stimulus, work: Path, rng: np.random.Generator
) -> list[Mutant]:
    scene = Scene(bundle, network, stimulus, golden.run(network, stimulus))
    top = read_sidecar(bundle).name
    text = (bundle / f"{top}.v").read_text(encoding="utf-8")
    mutants = []
    for edit in RTL_EDITS:
        if not edit.applies(scene):
            continue
        try:
            changed = apply_rtl_edit(text, top, edit)
        except CodesignError as error:
            mutants.append(Mutant(edit.name, "rtl", bundle, edit.reason, error=str(error)))
            continue
        copy = _copy(bundle, work, "rtl", edit.name)
        write_text(copy / f"{top}.v", changed)
        _stamp(copy, f"{top}.v")
        mutants.append(Mutant(edit.name, "rtl", copy, edit.reason))
    return mutants


# Mapper -----------------------------------------------------------------------------------------


def _swap_columns(array: np.ndarray, one: int, other: int) -> np.ndarray:
    changed = array.copy()
    changed[:, [one, other]] = array[:, [other, one]]
    return changed


def _swap_slots(layer: LayerMap, rng: np.random.Generator) -> LayerMap:
    """Two neurons of a lane are swapped in the synapses, and nowhere else."""
    if layer.n_slots < 2:
        raise NotApplicable("one slot")
    lane = int(rng.integers(layer.lanes))
    one, other = (int(k) for k in rng.choice(layer.n_slots, 2, replace=False))
    slots = layer.synapse_slot[lane].copy()
    slots[layer.synapse_slot[lane] == one] = other
    slots[layer.synapse_slot[lane] == other] = one
    return replace(layer, synapse_slot=(*layer.synapse_slot[:lane], slots, *layer.synapse_slot[lane + 1 :]))


def _swap_rows(layer: LayerMap, rng: np.random.Generator) -> LayerMap:
    """Two sources address each other's rows."""
    if layer.n_in < 2:
        raise NotApplicable("one source")
    one, other = (int(layer.source_address[int(k)]) for k in rng.choice(layer.n_in, 2, replace=False))
    return replace(
        layer,
        row_start=_swap_columns(layer.row_start, one, other),
        row_count=_swap_columns(layer.row_count, one, other),
    )


def _drop_last_synapse(layer: LayerMap, rng: np.random.Generator) -> LayerMap:
    """The last synapse of one row is dropped."""
    lanes, addresses = np.nonzero(layer.row_count)
    if lanes.size == 0:
        raise NotApplicable("no synapses")
    at = int(rng.integers(lanes.size))
    count = layer.row_count.copy()
    count[lanes[at], addresses[at]] -= 1
    return replace(layer, row_count=count)


def _permute_parameters(layer: LayerMap, rng: np.random.Generator) -> LayerMap:
    """The parameters of a lane's slots are rotated by one."""
    if layer.n_slots < 2 or (layer.threshold is not None and layer.bias is not None):
        raise NotApplicable("no parameters in memory")
    lane = int(rng.integers(layer.lanes))
    threshold, bias = layer.slot_threshold.copy(), layer.slot_bias.copy()
    threshold[lane], bias[lane] = np.roll(threshold[lane], 1), np.roll(bias[lane], 1)
    return replace(layer, slot_threshold=threshold, slot_bias=bias)


def _exchange_lanes(layer: LayerMap, rng: np.random.Generator) -> LayerMap:
    """Two lanes get each other's rows and synapses."""
    if layer.lanes < 2:
        raise NotApplicable("one lane")
    order = np.arange(layer.lanes)
    one, other = (int(k) for k in rng.choice(layer.lanes, 2, replace=False))
    order[[one, other]] = order[[other, one]]
    return replace(
        layer,
        row_start=layer.row_start[order],
        row_count=layer.row_count[order],
        synapse_slot=tuple(layer.synapse_slot[k] for k in order),
        synapse_weight=tuple(layer.synapse_weight[k] for k in order),
    )


def _slot_overflow(layer: LayerMap, rng: np.random.Generator) -> LayerMap:
    """Synapses of every lane's last slot wrap to slot 0, as if a lane had been filled beyond its slots."""
    if layer.n_slots < 2:
        raise NotApplicable("one slot")
    slots = tuple(np.where(slot == layer.n_slots - 1, 0, slot) for slot in layer.synapse_slot)
    return replace(layer, synapse_slot=slots)


def _narrow_weights(layer: LayerMap, rng: np.random.Generator) -> LayerMap:
    """Weights lose their lowest bit."""
    return replace(layer, synapse_weight=tuple(weight >> 1 << 1 for weight in layer.synapse_weight))


MAPPER_EDITS: tuple[tuple[str, int, Callable[[LayerMap, np.random.Generator], LayerMap]], ...] = (
    ("two neurons swapped in the synapses alone", 0, _swap_slots),
    ("two sources swapped in the first layer", 0, _swap_rows),
    ("two sources swapped in the last layer", -1, _swap_rows),
    ("last synapse of a row dropped", 0, _drop_last_synapse),
    ("parameters of a lane rotated", 0, _permute_parameters),
    ("two lanes exchanged", 0, _exchange_lanes),
    ("slot overflow wraps", 0, _slot_overflow),
    ("weights lose their lowest bit", 0, _narrow_weights),
)


def _mapper_mutants(
    bundle: Path, network: FrozenNetwork, stimulus: Stimulus, work: Path, rng: np.random.Generator
) -> list[Mutant]:
    from rtl_templates.bundle import write_bundle

    sidecar = read_sidecar(bundle)
    original = map_network(network, [layer.lanes for layer in sidecar.layers])
    mutants = []
    for name, position, edit in MAPPER_EDITS:
        index = position % len(network.layers)
        for _ in range(DRAWS):
            try:
                layer = edit(original.layers[index], rng)
            except NotApplicable:
                break
            mapping = HardwareMap(
                original.network_hash, (*original.layers[:index], layer, *original.layers[index + 1 :])
            )
            target = work / "mapper" / name.replace(" ", "_") / "bundle"
            write_bundle(network, mapping, target, name=sidecar.name)
            if _differs(target, network, stimulus):
                reason = "the golden model of the generated images differs on the verified samples"
                mutants.append(Mutant(name, "mapper", target, reason))
                break
    return mutants
