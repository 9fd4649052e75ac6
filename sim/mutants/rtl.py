"""RTL mutants: faults in the delivered Verilog, each with the machines that it is for and the samples that show it.

Most faults replace what drives a signal by its name, which the generator's tools keep, whatever stands on the right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.errors import ToolError
from codesign.contract import golden
from codesign.contract.network import INPUT, FrozenLayer, Int, Leak
from codesign.contract.network.limits import MAX_REFRACTORY
from sim.mutants.edits import CONSTANT, Applies, RtlEdit, apply_rtl_edit, driver, to
from sim.mutants.pictures import picture_edits
from sim.mutants.scene import Mutant, Row, Scene
from sim.mutants.schedules import schedule_edits
from sim.mutants.streams import stream_edits
from sim.mutants.turns import turn_edits

BACKLOG = 4
# Samples that are decided with so many events left: in one of them an event waits for one of its readers alone.
DECIDED, LEFT = 3, 8


def _previous(match: re.Match[str]) -> str:
    """The same text with its sized constant one less."""
    return f"{match['head']}{match['size']}'h{int(match['value'], 16) - 1:x}"


def _shift_more(match: re.Match[str]) -> str:
    high, low = int(match["high"]), int(match["low"])
    return f"$signed(membrane) - $signed(membrane[{high}:{min(high, low + 1)}])"


def _flip_hash(match: re.Match[str]) -> str:
    return f"{match['head']}{int(match['value'], 16) ^ 1:016x}"


def _first_part(match: re.Match[str]) -> str:
    """The second lane is given what the first one is given."""
    high, low = int(match["high"]), int(match["low"])
    return f"{match['head']}[{high - low}:0]"


# Which machines, and which samples show it ---------------------------------------------------------


def _loadable(scene: Scene) -> bool:
    return scene.choices.loadable


def _lanes(scene: Scene, layer: int) -> int:
    return int(scene.sidecar.layers[layer].lanes)


def _any_layer_spikes(scene: Scene) -> bool:
    return any(scene.spiking(layer) for layer in scene.engine_layers())


def _subtracts(scene: Scene) -> bool:
    """A spike of the first layer leaves a membrane that is not clipped, with reset 'subtract'."""
    layer, membranes = scene.network.layers[0], scene.trace.membranes[0]
    inside = (membranes > layer.membrane_min) & (membranes < layer.membrane_max)
    at_once = layer.reset == "subtract" and not layer.reset_delay
    return at_once and scene.spiking(0) and bool((scene.spikes(0) & inside).any())


def _leak_changed(change: Callable[[Leak], Leak]) -> Applies:
    def applies(scene: Scene) -> bool:
        def changed(_: int, layer: FrozenLayer) -> FrozenLayer:
            return replace(layer, leak=change(layer.leak))

        return scene.network.layers[0].leak.kind != "none" and scene.shows_layers(changed, scene.engine_layers())

    return applies


def _leak_shift(scene: Scene) -> bool:
    """The leaks are one shift, in the logic, and the next one shows."""
    entries = [scene.sidecar.layers[layer] for layer in scene.engine_layers()]
    ((kind, shift), *others) = {(entry.leak, entry.leak_shift) for entry in entries}
    if others or kind != "shift" or shift is None:
        return False
    if not 0 < shift < min(scene.network.layers[entry.index].membrane_width - 2 for entry in entries):
        return False
    return _leak_changed(lambda leak: Leak("shift", shift + 1))(scene)


def _leak_in_memory(name: str) -> Applies:
    """A leak's number is in memory, and shows with its lowest bit inverted."""

    def applies(scene: Scene) -> bool:
        def changed(_: int, layer: FrozenLayer) -> FrozenLayer:
            return layer.with_numbers(**{name: layer.numbers[name] ^ 1}) if name in layer.numbers else layer

        entry = scene.sidecar.layers[0]
        held = {field.name for memory in entry.memories if memory.role == "parameters" for field in memory.fields}
        return name in held and scene.shows_layers(changed, scene.engine_layers())

    return applies


def _late(scene: Scene) -> FrozenLayer | None:
    """The first layer, if its resets are late and nothing but the input reaches it."""
    layer = scene.network.layers[0]
    return layer if layer.reset_delay and all(part.source == INPUT for part in layer.projections) else None


def _gathers(scene: Scene) -> FrozenLayer | None:
    """The first layer, if it has a synaptic current and nothing but the input reaches it."""
    layer = scene.network.layers[0]
    return layer if layer.has_current and all(part.source == INPUT for part in layer.projections) else None


def _late_is_forgotten(scene: Scene) -> bool:
    def changed(_: int, layer: FrozenLayer) -> FrozenLayer:
        return replace(layer, reset="none", reset_delay=False) if layer.reset_delay else layer

    return _late(scene) is not None and scene.shows_layers(changed, scene.engine_layers())


def _late_and_at_once(scene: Scene) -> bool:
    """The first spike of a neuron leaves a membrane that shows what is subtracted."""
    layer = _late(scene)
    if layer is None:
        return False
    fired, membranes = scene.trace.spikes[0], scene.trace.membranes[0]
    after = membranes - layer.threshold
    inside = (membranes > layer.membrane_min) & (membranes < layer.membrane_max)
    inside &= (after >= layer.membrane_min) & (after <= layer.membrane_max) & (layer.threshold != 0)
    first = fired & (np.cumsum(fired, axis=1) == 1)
    return bool((first & inside & scene.counts[:, :, None]).any())


def _late_is_halved(scene: Scene) -> bool:
    """The membrane in the timestep after a neuron's first spike shows that less was subtracted."""
    layer = _late(scene)
    if layer is None:
        return False
    fired, membranes = scene.trace.spikes[0], scene.trace.membranes[0][:, 1:]
    inside = (membranes > layer.membrane_min) & (membranes < layer.membrane_max)
    first = (fired & (np.cumsum(fired, axis=1) == 1))[:, :-1] & (layer.threshold >> 1 != layer.threshold)
    return bool((first & inside & scene.counts[:, 1:, None]).any())


def _current_keeps(scene: Scene) -> bool:
    """The golden model whose currents do not leak differs."""

    def changed(_: int, layer: FrozenLayer) -> FrozenLayer:
        return replace(layer, current_leak=Leak()) if layer.has_current else layer

    return _gathers(scene) is not None and scene.shows_layers(changed, scene.engine_layers())


def _arriving(scene: Scene, **changed: Any) -> Int:
    """int64 (N, T, n_out): what arrives at the first layer, bias included, with some of its fields ``changed``."""
    # It is the membrane of neurons that forget all and do nothing else.
    alone = replace(
        scene.network.layers[0],
        leak=Leak("multiply", 0, 0),
        reset="none",
        reset_delay=False,
        refractory=0,
        current_leak=None,
        current_width=0,
        membrane_width=48,
        **changed,
    )
    network = scene.network.with_layers([alone, *scene.network.layers[1:]])
    return golden.run(network, scene.stimulus).membranes[0]


def _rests(change: Callable[[int], int]) -> Applies:
    """The golden model with another refractory period differs."""

    def applies(scene: Scene) -> bool:
        def changed(_: int, layer: FrozenLayer) -> FrozenLayer:
            return replace(layer, refractory=change(layer.refractory)) if layer.refractory else layer

        return scene.shows_layers(changed, scene.engine_layers())

    return applies


def _rest_is_disturbed(scene: Scene) -> bool:
    """In a neuron's first timestep of rest something arrives that shows in its membrane."""
    layer = scene.network.layers[0]
    if any(part.source != INPUT for part in layer.projections):
        return False
    # A bias is in the state, where nothing is added to it in a rest, but beside a current.
    gathered = scene.trace.currents[0] if layer.has_current else _arriving(scene, bias=np.zeros_like(layer.bias))
    fired, membranes = scene.trace.spikes[0], scene.trace.membranes[0]
    first = np.zeros_like(fired)
    first[:, 1:] = (fired & (np.cumsum(fired, axis=1) == 1))[:, :-1]
    # What is clipped may be the limit that it stood at before.
    shows = np.clip(membranes + gathered, layer.membrane_min, layer.membrane_max) != membranes
    return bool((first & scene.resting(0) & shows & scene.counts[:, :, None]).any())


def _fires_in_rest(scene: Scene) -> bool:
    """In a neuron's first timestep of rest its membrane is beyond the threshold."""
    layer, membranes = scene.network.layers[0], scene.trace.membranes[0]
    reached = membranes > layer.threshold if layer.compare == ">" else membranes >= layer.threshold
    return bool((scene.resting(0) & reached & scene.counts[:, :, None]).any())


def _current_wraps(scene: Scene) -> bool:
    """The first clipping of a neuron's current shows that it is not clipped."""
    layer = _gathers(scene)
    if layer is None or layer.current_leak is None or not scene.spiking(0):
        return False
    arriving = _arriving(scene)
    currents = scene.trace.currents[0]
    before = np.concatenate([np.zeros_like(currents[:, :1]), currents[:, :-1]], axis=1)
    exact = layer.current_leak(before) + arriving
    clipped = exact != currents
    # What is left of the lowest bits may be the limit itself.
    shows = (exact - currents) % (1 << layer.current_width) != 0
    first = clipped & (np.cumsum(clipped, axis=1) == 1)
    return bool((first & shows & scene.counts[:, :, None]).any())


def _without_weights(scene: Scene) -> bool:
    def silenced(index: int, _: FrozenLayer) -> FrozenLayer:
        none = np.zeros(0, np.int64)
        return scene.with_reached(index, (none, none, none))

    return scene.shows_layers(silenced, scene.engine_layers())


def _state_left(scene: Scene) -> bool:
    """A sample that runs to its end, and is not the last, leaves a membrane, or a synaptic current, that is not 0 after
    its leak."""
    for index in scene.engine_layers():
        layer = scene.network.layers[index]
        left = layer.leak(scene.trace.membranes[index][:, -1]) * ~scene.resting(index)[:, -1]
        if layer.reset_delay:
            left = left - scene.trace.spikes[index][:, -1] * layer.threshold
        if layer.current_leak is not None:
            left = np.stack([left, layer.current_leak(scene.trace.currents[index][:, -1])], axis=-1)
        whole = scene.counts[:, -1][:-1]
        if whole.size and bool((left[:-1] != 0)[whole].any()):
            return True
    return False


def _state_left_without_exit(scene: Scene) -> bool:
    return not scene.choices.exits and _state_left(scene)


def _timesteps(scene: Scene) -> bool:
    return scene.network.timesteps > 1 and not _loadable(scene)


def _has_slots(scene: Scene) -> bool:
    return any(scene.sidecar.layers[layer].n_slots > 1 for layer in scene.engine_layers())


def _repeat_first(rows: list[Row]) -> list[Row]:
    """Each row walks its first word again and again."""
    found = []
    for row in rows:
        if not row.words.size:
            continue
        first = np.zeros(row.words.size, np.int64)
        found.append(replace(row, slots=row.slots[first], weights=row.weights[first], holds=row.holds[first]))
    return found


def _repeat_first_gap(rows: list[Row]) -> list[Row]:
    """The same where words hold gaps: the first one passes over its slots again and again."""
    found = []
    for row in rows:
        count = row.words.size
        if count and row.holds[0]:
            slots = (row.slots[0] + 1) * np.arange(1, count + 1) - 1
            found.append(replace(row, slots=slots, weights=row.weights[[0] * count], holds=row.holds[[0] * count]))
        elif count:
            found.append(replace(row, holds=np.zeros(count, bool)))
    return found


def _gaps(scene: Scene) -> bool:
    return scene.sidecar.layers[0].encoding.gap_bits is not None


def _cut(rows: list[Row]) -> list[Row]:
    """Each row ends after its first word."""
    first = slice(0, 1)
    return [replace(row, slots=row.slots[first], weights=row.weights[first], holds=row.holds[first]) for row in rows]


def _stands_still(scene: Scene) -> bool:
    fault = _repeat_first_gap if _gaps(scene) else _repeat_first
    return scene.shows_rows(fault, scene.engine_layers())


def _every_row_opens(scene: Scene) -> bool:
    """Gaps count from slot 0 in every word."""

    def fault(rows: list[Row]) -> list[Row]:
        found = []
        for row in rows:
            before = (
                np.concatenate(([0], np.cumsum(np.diff(row.slots, prepend=-1))))[:-1] if row.words.size else row.slots
            )
            found.append(replace(row, slots=row.slots - before))
        return found

    return _gaps(scene) and scene.shows_rows(fault, scene.engine_layers())


def _first_members(scene: Scene) -> bool:
    """Every source walks the row of its group's first source."""
    groups = [scene.sidecar.layers[layer].encoding.row_group for layer in scene.engine_layers()]
    if groups[0] == 1:
        return False

    def fault(rows: list[Row]) -> list[Row]:
        by_address = {(row.stream, row.address): row for row in rows}
        found = []
        for row in rows:
            first = by_address.get((row.stream, row.address - row.address % groups[0]))
            if first is not None:
                found.append(replace(first, source=row.source))
        return found

    return scene.shows_rows(fault, scene.engine_layers())


def _second_lane_as_first(scene: Scene) -> bool:
    """In lock step: lane 1 is given lane 0's synapses."""
    entry = scene.sidecar.layers[0]
    if not entry.lockstep:
        return False
    first = {row.source: row for row in scene.rows(0, 0)}

    def fault(rows: list[Row]) -> list[Row]:
        # Of several streams, those of the first.
        return [replace(first[row.source], lane=1) if row.place == (1, 0) else row for row in rows]

    return scene.shows_rows(fault, [0])


def _collides(distance: int) -> Applies:
    """A lane of the first layer adds to one slot ``distance`` clocks apart, and loses a weight without forwarding.

    Lanes walk the rows of an accumulation's events in order, one word a clock. Within a row there is no bubble, nor
    between the rows of events that follow each other, in the lane that has had the most words, if those are more than
    there were events: events come one a clock, or later where a collector sends them. The neuron's membrane must be one
    that is neither clipped nor reset to a value, so that it tells the sum, and so must its synaptic current.
    """

    def applies(scene: Scene) -> bool:
        entry, layer = scene.sidecar.layers[0], scene.network.layers[0]
        if len(entry.projections) > 1:
            # Nobody knows in which order the events of several come.
            return False
        streams, membranes = scene.choices.event_streams, scene.trace.membranes[0]
        walkers = [(lane, stream) for lane in range(entry.lanes) for stream in range(streams)]
        tells = (membranes > layer.membrane_min) & (membranes < layer.membrane_max) & scene.counts[:, :, None]
        if layer.has_current:
            currents = scene.trace.currents[0]
            tells &= (currents > layer.current_min) & (currents < layer.current_max)
        if layer.reset in ("zero", "value"):
            tells &= ~scene.trace.spikes[0]
        tells &= ~scene.resting(0)
        neuron = np.full((entry.lanes, entry.n_slots), -1, np.int64)
        neuron[list(entry.lane), list(entry.slot)] = np.arange(entry.n_out)
        streams_of = [row.stream for row in scene.rows(0, 0)]
        rows = {
            place: {row.source: row for row in scene.rows(0, place[0]) if row.stream == place[1]} for place in walkers
        }
        for sample in range(len(scene.stimulus)):
            for walk, timesteps, waits in scene.accumulations(sample):
                lines: dict[tuple[int, int], list[tuple[int, int, int]]] = {place: [] for place in walkers}
                last: dict[int, int] = {}
                for position, (source, timestep) in enumerate(zip(walk.tolist(), timesteps.tolist(), strict=True)):
                    # With several streams nobody counts on when an event comes, but that no clock brings two of one.
                    stream = streams_of[source]
                    before = {place: len(line) for place, line in lines.items()}
                    for place in (place for place in walkers if place[1] == stream):
                        lane, line, row = place[0], lines[place], rows[place][source]
                        slots, weights = np.where(row.holds, row.slots, -1).tolist(), row.weights.tolist()
                        line += zip(slots, weights, [timestep] * len(slots))
                        late = before[place] == max(before.values()) and before[place] > position + waits + BACKLOG
                        follows = stream in last and rows[place][last[stream]].words.size >= distance
                        for at in range(before[place], len(line)):
                            if at - distance < before[place] and not (late and follows):
                                continue
                            slot, weight, shown = line[at - distance]
                            between = [other for other, *_ in line[at - distance + 1 : at]]
                            if line[at][0] != slot or slot < 0 or not weight or slot in between:
                                continue
                            if neuron[lane, slot] >= 0 and tells[sample, shown, neuron[lane, slot]]:
                                return True
                    last[stream] = source
        return False

    return applies


def _deep(scene: Scene) -> bool:
    return scene.choices.pipeline == "deep"


def _near(scene: Scene) -> bool:
    return _deep(scene) and _collides(1)(scene)


def _far(scene: Scene) -> bool:
    # A short pipeline writes a sum in the clock after its word was read, a deep one in the second.
    return _collides(2 if _deep(scene) else 1)(scene)


def _several_spikes(scene: Scene) -> bool:
    """A word of the last layer's sweep holds something of two lanes or more."""
    last, entry = scene.last, scene.sidecar.layers[scene.last]
    if entry.lanes < 2:
        return False
    if scene.network.membrane_readout or scene.choices.counts:
        return True
    fired = np.zeros((entry.n_slots, *scene.spikes(last).shape[:2]), np.int64)
    np.add.at(fired, np.array(entry.slot), np.moveaxis(scene.spikes(last), 2, 0).astype(np.int64))
    return bool((fired > 1).any())


def _spike_at_the_end(scene: Scene) -> bool:
    """The last word of a sweep of a last layer of one lane holds something beside the end."""
    last, entry = scene.last, scene.sidecar.layers[scene.last]
    if entry.lanes > 1:
        return False
    if scene.network.membrane_readout or scene.choices.counts:
        return True
    neuron = entry.slot.index(entry.n_slots - 1)
    return bool(scene.spikes(last)[:, :, neuron].any())


def _collects(scene: Scene) -> bool:
    """The readout counts spikes in a memory of its own."""
    readout = scene.network.readout == "spike_count" and not scene.choices.counts
    return readout and bool(scene.trace.values.any())


def _has_tie(scene: Scene) -> bool:
    best = scene.trace.values == scene.trace.values.max(axis=1, keepdims=True)
    return bool((best.sum(axis=1) > 1).any())


def _least_differs(scene: Scene) -> bool:
    return bool((scene.trace.values.argmin(axis=1) != scene.trace.values.argmax(axis=1)).any())


def _counts_to_the_end(scene: Scene) -> bool:
    return _timesteps(scene) and bool(scene.counts[:, -1].any())


def _exits_early(scene: Scene) -> bool:
    return scene.choices.exits and bool((~scene.counts[:, -1]).any())


def _withdraws(scene: Scene) -> bool:
    """Several projections read what the guard may withdraw, and samples that are decided have much left to withdraw."""
    readers = sum(part.source == INPUT for layer in scene.network.layers for part in layer.projections)
    if readers < 2 or not _exits_early(scene) or scene.stimulus.is_current:
        return False
    # Several streams are buffered, so that nothing is withdrawn; who collects masks hardly ever keeps others waiting.
    if scene.choices.event_streams > 1 or scene.choices.schedule != "timestep":
        return False
    left = (scene.stimulus.dense() & ~scene.counts[:, :, None]).sum(axis=(1, 2))
    return bool((left >= LEFT).sum() >= DECIDED)


def _exits_late(scene: Scene) -> bool:
    return scene.choices.exits and bool((scene.trace.exits > 0).any())


def _neighbours_exchanged(scene: Scene) -> bool:
    """Rows exchanged with their neighbours show; only for a machine that is loaded."""

    def fault(rows: list[Row]) -> list[Row]:
        by_address = {(row.stream, row.address): row for row in rows}
        found = []
        for row in rows:
            other = by_address.get((row.stream, row.address ^ 1))
            if other is not None:
                found.append(replace(other, source=row.source))
        return found

    return _loadable(scene) and scene.shows_rows(fault, scene.engine_layers())


NEURONS = r"engine0_neurons\d+"
# Where sums are added up: in a lane's neurons, or apart for each of several streams of events.
SUMS = r"engine0_neurons\d+@SUMS@"
FETCHERS = r"engine0_fetcher\d+(?:_\d)?"
# Behind the last engine.
LAST_SERIALIZER = "serializer@LAST@"
# A class's value against the best so far; it comes from the memory, or from the token where values pass through.
BETTER = r"(?P<new>\$signed\((?:old|i__payload\[[0-9:]+\])\)) > \$signed\(best\)"

RTL_EDITS = (
    RtlEdit(
        "compare inverted", "neurons", NEURONS, driver("spike"), to(r"~(\g<value>)"),
        "in the first timestep every spike is wrong", applies=_any_layer_spikes,
    ),
    RtlEdit(
        "threshold off by one", "neurons", NEURONS, driver("difference"), to(r"\g<value> - 1'h1"),
        "with reset 'subtract' a spike leaves a membrane that is one less", applies=_subtracts,
    ),
    RtlEdit(
        "leak forgotten", "neurons", NEURONS, driver("leaked"), to("membrane"),
        "the golden model without the leak differs", applies=_leak_changed(lambda leak: Leak()),
    ),
    RtlEdit(
        "leak shift off by one", "neurons", NEURONS,
        r"\$signed\(membrane\) - \$signed\(membrane\[(?P<high>\d+):(?P<low>\d+)\]\)", _shift_more,
        "the golden model with a shift of k + 1 differs", every=True, applies=_leak_shift,
    ),
    RtlEdit(
        "leak shift in memory off by one", "neurons", NEURONS, r">>> leak_shift;", ">>> (leak_shift ^ 1'h1);",
        "the golden model with the lowest bit of each shift inverted differs", every=True,
        applies=_leak_in_memory("leak_shift"),
    ),
    RtlEdit(
        "leak multiplier in memory off by one", "neurons", NEURONS,
        r"\{ 1'h0, leak_multiplier \}", "{ 1'h0, leak_multiplier ^ 1'h1 }",
        "the golden model with the lowest bit of each multiplier inverted differs", every=True,
        applies=_leak_in_memory("leak_multiplier"),
    ),
    RtlEdit(
        "current leak shift in memory off by one", "neurons", NEURONS, r">>> current_leak_shift;",
        ">>> (current_leak_shift ^ 1'h1);", "the golden model with the lowest bit of each shift inverted differs",
        every=True, applies=_leak_in_memory("current_leak_shift"),
    ),
    RtlEdit(
        "current leak multiplier in memory off by one", "neurons", NEURONS,
        r"\{ 1'h0, current_leak_multiplier \}", "{ 1'h0, current_leak_multiplier ^ 1'h1 }",
        "the golden model with the lowest bit of each multiplier inverted differs", every=True,
        applies=_leak_in_memory("current_leak_multiplier"),
    ),
    RtlEdit(
        "delayed reset forgotten", "neurons", NEURONS, driver("owed"), to("1'h0"),
        "the golden model without a reset differs", applies=_late_is_forgotten,
    ),
    RtlEdit(
        "delayed reset decayed", "neurons", NEURONS, driver("owed"), to(r"$signed(\g<value>) >>> 1'h1"),
        "half of the threshold is subtracted a timestep after a spike", applies=_late_is_halved,
    ),
    RtlEdit(
        "reset not delayed", "neurons", NEURONS, driver("kept"), to(r"spike ? difference : \g<value>"),
        "a spike leaves a membrane that is less by the threshold", applies=_late_and_at_once,
    ),
    RtlEdit(
        "current not leaked", "neurons", NEURONS, driver("current_leaked"), to("current"),
        "the golden model whose currents do not leak differs", applies=_current_keeps,
    ),
    RtlEdit(
        "current not saturated", "neurons", NEURONS, driver("synaptic"), to("$signed(gathered)"),
        "a current that does not fit keeps its lowest bits", applies=_current_wraps,
    ),
    RtlEdit(
        "rest forgotten", "neurons", NEURONS, driver("resting"), to("1'h0"),
        "the golden model without a refractory period differs", applies=_rests(lambda _: 0),
    ),
    RtlEdit(
        "rest never ends", "neurons", NEURONS, driver("rest_less"), to("rest_left"),
        "the golden model with the longest refractory period differs", applies=_rests(lambda _: MAX_REFRACTORY),
    ),
    RtlEdit(
        "rest is disturbed", "neurons", NEURONS, driver("closed"), to("1'h0"),
        "what arrives shows in a membrane at rest", applies=_rest_is_disturbed,
    ),
    RtlEdit(
        "fires in rest", "neurons", NEURONS, driver("quiet"), to("1'h0"),
        "a membrane at rest is beyond the threshold", applies=_fires_in_rest,
    ),
    RtlEdit(
        "near forwarding removed", "neurons", SUMS, driver("forward_near_1"), to("1'h0"),
        "two synapses of one slot in consecutive clocks lose the first weight", applies=_near,
    ),
    RtlEdit(
        "far forwarding removed", "neurons", SUMS, driver("forward_far_1"), to("1'h0"),
        "a sum is read in the clock in which it is written", applies=_far,
    ),
    RtlEdit(
        "membranes one behind", "neurons", SUMS, driver("last_written"), to("operand"),
        "a forwarded sum lacks the weight before it", applies=_far,
    ),
    RtlEdit(
        "state survives the sample", "neurons", NEURONS, r"= write_initial \?", "= 1'h0 ?",
        "the next sample starts from this one's membranes", every=True, applies=_state_left,
    ),
    RtlEdit(
        "sums never written", "neurons", SUMS, r"= valid_2 \| (?P<other>\w+);", r"= \g<other>;",
        "the golden model without weights differs", applies=_without_weights,
    ),
    RtlEdit(
        "synapse address stands still", "fetcher", FETCHERS,
        r"(?P<head>assign \\\$\d+  = \\addr\$\d+  \+ )1'h1;", r"\g<head>1'h0;",
        "the golden model whose rows repeat their first word differs", applies=_stands_still,
    ),
    RtlEdit(
        "rows end after their first word", "fetcher", FETCHERS, driver("is_final"), to("1'h1"),
        "the golden model with the first word of each row alone differs",
        applies=lambda scene: scene.shows_rows(_cut, scene.engine_layers()),
    ),
    RtlEdit(
        "gaps count from slot 0", "encoding", FETCHERS, driver("opening"), to("1'h1"),
        "the golden model with these targets differs", applies=_every_row_opens,
    ),
    RtlEdit(
        "row of the group's first source", "encoding", FETCHERS, driver("member"), to("1'h0"),
        "the golden model with these rows differs", applies=_first_members,
    ),
    RtlEdit(
        "second lane walks the first one's synapses", "lock step", "engine0",
        r"(?P<head>neurons1 \((?:[^;]*?)\.synapse0?\([^\s\[]+ ?)\[(?P<high>\d+):(?P<low>\d+)\]", _first_part,
        "the golden model with these synapses differs", applies=_second_lane_as_first,
    ),
    RtlEdit(
        "sweep of one slot", "sweep", "engine0", driver("is_end_0"), to("slot_0 == 1'h0"),
        "other slots are never swept", applies=_has_slots,
    ),
    RtlEdit(
        "sweep one slot short", "sweep", "engine0", rf"(?P<head>is_end_0 = slot_0 == ){CONSTANT}", _previous,
        "the last slot is never swept", applies=lambda scene: not scene.choices.folded and _has_slots(scene),
    ),
    RtlEdit(
        "sample never ends", "sweep", "engine0", driver("last_timestep"), to("1'h0"),
        "the next sample starts from this one's membranes", applies=_state_left_without_exit,
    ),
    RtlEdit(
        "last timestep one early", "sweep", "engine0", rf"(?P<head>last_timestep = timestep == ){CONSTANT}", _previous,
        "the state is cleared before the last timestep",
        applies=lambda scene: _timesteps(scene) and _state_left_without_exit(scene),
    ),
    RtlEdit(
        "only the first lane of a word is sent", "serializer", LAST_SERIALIZER, driver("rest"), to("1'h0"),
        "two lanes have something to say at once", applies=_several_spikes,
    ),
    RtlEdit(
        "end lost behind a spike", "serializer", LAST_SERIALIZER, driver("more"), to("1'h0"),
        "the last slot has something to say", applies=_spike_at_the_end,
    ),
    RtlEdit(
        "readout ends a timestep early", "readout", "readout", rf"(?P<head>assign \\\$\d+  = timestep == ){CONSTANT}",
        _previous, "values and decision leave before the last timestep is counted", every=True,
        applies=_counts_to_the_end,
    ),
    RtlEdit(
        "readout counts twice", "readout", "readout", r"\$signed\(old\) \+ \$signed\(2'h1\)",
        "$signed(old) + $signed(3'h2)", "every class that spikes has twice its value", applies=_collects,
    ),
    RtlEdit(
        "argmax takes the least", "readout", "readout", BETTER, r"\g<new> < $signed(best)",
        "the least of some sample's values is not the greatest", applies=_least_differs,
    ),
    RtlEdit(
        "tie to the highest class", "readout", "readout", BETTER, r"\g<new> >= $signed(best)",
        "some sample has two greatest values", applies=_has_tie,
    ),
    RtlEdit(
        "every event is a repetition", "guard", "guard@CHECKS@", driver("duplicate"), to("1'h1"),
        "no event reaches the first layer, and each is an error",
        applies=lambda scene: scene.choices.input_checks and scene.has_events,
    ),
    RtlEdit(
        "repetitions are not seen", "guard", "guard@CHECKS@", driver("duplicate"), to("1'h0"),
        "the samples with a repetition run as if it were none, without an error",
        applies=lambda scene: scene.choices.input_checks,
    ),
    RtlEdit(
        "ends are not seen", "trusted input", "guard", driver("ends"), to("1'h0"),
        "no sample ever ends", applies=lambda scene: not scene.choices.input_checks,
    ),
    RtlEdit(
        "second word of a beat sent twice", "beats", "splitter", r"(?P<head>assign o__payload\[\d+:0\] = )word0;",
        r"\g<head>word1;", "an event is lost, or one comes twice",
        applies=lambda scene: (
            scene.choices.input_words > 1 and scene.choices.event_streams == 1 and scene.has_events
        ),
    ),
    RtlEdit(
        "exits at once", "early exit", "readout_tracker", driver("leaves"), to("1'h1"),
        "some sample does not exit after its first timestep", applies=_exits_late,
    ),
    RtlEdit(
        "never exits", "early exit", "readout_tracker", driver("leaves"), to("1'h0"),
        "some sample exits before its last timestep", applies=_exits_early,
    ),
    RtlEdit(
        "exits not counted", "early exit", "exit_counters", r"exit_count \+ [^;]+;", "exit_count;",
        "some sample exits before its last timestep",
        applies=lambda scene: scene.choices.counters and _exits_early(scene),
    ),
    RtlEdit(
        "withdrawn event not forgotten", "fork", "fork_input", r"(?P<head>end else begin\s+\S+\s*= )\d+'h0;",
        r"\g<head>has;", "a reader that has it misses the word after it", applies=_withdraws,
    ),
    RtlEdit(
        "words loaded beside their place", "loader", "loader", r"(?P<head>\\\$\d+ \[\d+:\d+\] = )address;",
        r"\g<head>address ^ 1'h1;", "the golden model with neighbouring rows exchanged differs",
        applies=_neighbours_exchanged, loads=True,
    ),
    RtlEdit(
        "cycle counter skips", "counters", "", r"cycle_count \+ 1'h1", "cycle_count + 2'h2",
        "the counter is compared with the testbench's own", applies=lambda scene: scene.choices.counters,
    ),
    RtlEdit(
        "saturations not counted", "counters", "", r"saturation_count \+ saturated", "saturation_count",
        "some membrane saturates",
        applies=lambda scene: scene.choices.counters and bool(scene.trace.saturations.any()),
    ),
    RtlEdit(
        "network hash of another network", "top", "", r"(?P<head>network_hash = 64'h)(?P<value>[0-9a-f]+)", _flip_hash,
        "the hash is compared", applies=lambda scene: not _loadable(scene),
    ),
    RtlEdit(
        "decision without tlast", "top", "", r"assign m_axis_tlast = [^;]+;", "assign m_axis_tlast = 1'h0;",
        "no sample ever ends",
    ),
)  # fmt: skip


def rtl_mutants(scene: Scene, work: Path) -> list[Mutant]:
    """The RTL mutants that the machine has a place for and the samples show; bundles in folders of ``work``."""
    top = scene.sidecar.name
    text = (scene.bundle / f"{top}.v").read_text(encoding="utf-8")
    mutants = []
    several = scene.choices.event_streams > 1
    places = {"@LAST@": "0" if scene.choices.folded else f"{scene.last}"}
    places |= {"@SUMS@": r"_sum\d" if several else "", "@CHECKS@": r"_check\d" if several else ""}
    for edit in (*RTL_EDITS, *picture_edits(scene), *stream_edits(scene), *schedule_edits(scene), *turn_edits(scene)):
        if not edit.applies(scene):
            continue
        target, error = work / edit.name.replace(" ", "_") / "bundle", None
        try:
            changed = apply_rtl_edit(text, top, edit, places)
        except ToolError as failure:
            target, error = scene.bundle, str(failure)
        else:
            scene.write_verilog(scene.copy(target), changed)
        mutants.append(Mutant(edit.name, "rtl", edit.component, target, edit.reason, error, edit.loads))
    return mutants
