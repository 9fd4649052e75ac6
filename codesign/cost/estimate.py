"""Cost of a mapped network without simulation or synthesis: memory, cycles, area.

Memory bits follow from the mapping and are exact. So are the cycles of real samples (:mod:`codesign.cost.clocks`). What
looks at thousands of machines, or has mean rates alone, takes a max-plus recurrence over the engines instead
(:func:`cycle_estimate`), which is near. Area is :mod:`codesign.cost.area`'s,
energy :mod:`codesign.cost.energy`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError, entries_for
from codesign.contract import golden
from codesign.contract.network import INPUT, FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.area import machine_area
from codesign.cost.clocks import exact_cycles, parts
from codesign.cost.energy import energy_estimate
from codesign.cost.memories import FAMILIES
from codesign.machine.mapping import HardwareMap, LayerMap
from codesign.machine.plan import (
    INPUT_CLOCKS,
    READOUT_CLOCKS,
    TOKEN_CLOCKS,
    CollectorPlan,
    EnginePlan,
    MachinePlan,
)
from codesign.machine.schedules import collects
from codesign.machine.streams import address_within

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


MAX_SAMPLES = 100
# Steps of parts, most of them fetchers, in which exact clocks are told: seconds.
MOST_STEPS = 100_000_000
# Rows inside a fetcher without a queue.
UNQUEUED = 2
# Clocks from the last event of an accumulation to its sweep, and from the sweep to the first row, about.
TURN_CLOCKS = 4
STRETCH = 2048
# Clocks from a sample's last end to the first event that its collector sends.
COLLECTOR_CLOCKS = 4


@dataclass(frozen=True)
class Activity:
    """What reaches a layer in each timestep of N samples.

    events : float64 (N, steps, projections); clocks in which the events of each projection come, one of each stream in
        a clock, and of the input no more than a beat's words. steps is 1 for input currents, else the timesteps.
    arrived, looked_up : float64 (N,); events that come, and those whose rows are looked up, of which there are fewer
        where a sample is walked at once.
    loads : float64 (N, accumulations, lanes * streams); clocks in which each lane walks the rows of each stream.
        accumulations is 1 where a sample is walked at once, else the timesteps.
    operations : float64 (N, accumulations); synapses that all lanes walk. Fewer than loads where a word holds no
        synapse, or a tap of a convolution lands beside the picture.
    clocks : float64 (N, accumulations); until the last lane is done, if lanes wait for events and for room in each
        other's queues; at least the fullest lane's load.
    scans : float64 (N,); clocks in which a collector sends a sample that nothing holds up; 0 without one.
    """

    events: Float
    arrived: Float
    looked_up: Float
    loads: Float
    operations: Float
    clocks: Float
    scans: Float


def source_rates(network: FrozenNetwork, stimulus: Stimulus, trace: golden.Trace | None = None) -> list[Float]:
    """Mean events (nonzero values with coding 'current') per sample that each source of each layer sends.

    float64 (n_in,) for every layer, sources projection by projection. ``trace`` : the golden model's on these samples,
    with spikes, if there is one.
    """
    found = layer_events(network, stimulus, trace)
    return [events.sum(axis=(0, 1), dtype=np.float64) / len(stimulus) for events in found]


def layer_events(
    network: FrozenNetwork, stimulus: Stimulus, trace: golden.Trace | None = None
) -> list[npt.NDArray[np.bool_]]:
    """Which sources of each layer send an event in every single accumulation.

    bool (N, steps, n_in) for every layer, sources projection by projection; steps is 1 for input currents, else the
    timesteps. A layer's own events come a timestep later. ``trace`` : as of :func:`source_rates`.
    """
    spikes = (trace or golden.run(network, stimulus, membranes=False)).spikes
    first = stimulus.dense() != 0 if stimulus.values is None else (stimulus.values != 0)[:, None, :]

    def sent(source: int, index: int) -> npt.NDArray[np.bool_]:
        if source == INPUT:
            return first
        if source == index:
            return np.concatenate([np.zeros_like(spikes[index][:, :1]), spikes[index][:, :-1]], axis=1)
        return spikes[source]

    return [
        np.concatenate([sent(projection.source, index) for projection in layer.projections], axis=2)
        for index, layer in enumerate(network.layers)
    ]


def source_events(network: FrozenNetwork, stimulus: Stimulus, trace: golden.Trace | None = None) -> list[Bool]:
    """Which sources of each layer send an event in every single accumulation, as placement takes it.

    bool (n_steps, n_in) for every layer; steps are samples for the first layer of coding 'current', else timesteps.
    ``trace`` : as of :func:`source_rates`.
    """
    return [events.reshape(-1, events.shape[-1]) for events in layer_events(network, stimulus, trace)]


def landing(layer: LayerMap) -> Int:
    """int64 (n_in,): synaptic operations of an event of each source, over all lanes.

    Of a convolution these are the taps that land; those that fall off the target's border are walked in vain.
    """
    if layer.synapse_step is None:
        return layer.walked(layer.row_count).sum(axis=0)
    # Taps of each row by their step along y and x, which is what decides where they land.
    most_y, most_x = (max(int(steps[axis].max(initial=0)) for steps in layer.synapse_step) for axis in (0, 1))
    taps = np.zeros((layer.n_rows, most_y + 1, most_x + 1), np.int64)
    for counts, (step_y, step_x) in zip(layer.row_count, layer.synapse_step, strict=True):
        np.add.at(taps, (np.repeat(np.arange(layer.n_rows), counts), step_y, step_x), 1)
    found = []
    for link in layer.projections:
        part = np.zeros(link.n_in, np.int64)
        reach_y, reach_x = link.reach
        for y in range(most_y + 1):
            for x in range(most_x + 1):
                part += taps[link.source_row, y, x] * ((reach_y >> y) & (reach_x >> x) & 1)
        found.append(np.where(link.source_row >= 0, part, 0))
    return np.concatenate(found)


def arrivals(network: FrozenNetwork, mapping: HardwareMap, index: int) -> Int:
    """int64 (n_in,): the sources of a layer in the order in which their events arrive.

    Inputs come as they are numbered, neurons slot by slot of the sweep before, lane by lane, and what is collected by
    address; of several projections those of one are taken to come after those of the other.
    """
    found, first = [], 0
    for link in mapping.layers[index].projections:
        sender = None if link.source == INPUT else mapping.layers[link.source]
        if collects(network, index, mapping.layers[index].schedule):
            order = np.argsort(link.source_address)
        else:
            order = np.arange(link.n_in) if sender is None else np.lexsort((sender.lane, sender.slot))
        found.append(first + order)
        first += link.n_in
    return np.concatenate(found)


def walking_clocks(events: Bool, walked: Int, order: Int, held: int, head: int, words: Int | None = None) -> Float:
    """Clocks from the first event of an accumulation until the last lane has walked its rows.

    An event a clock comes to all lanes at once, and only if each has room for its row: a lane that has many taps in a
    stretch of rows holds up the others, which a picture's events make last, since those of one channel come together.

    events : bool (N, steps, n_in). walked : int64 (lanes, n_in); clocks that each lane walks for each source.
    order : int64 (n_in,); sources as they arrive. held : rows that a lane keeps waiting, the one that it walks apart.
    words : int64 (n_in,); where a collector sends them, the word that holds each source's mask: words of which no mask
        leaves take a clock each.
    head : clocks for which events have come before lanes may walk, those of the sweep before.

    Returns float64 (N, steps). Long accumulations are cut into stretches of ``STRETCH`` events, after each of which all
    lanes are taken to meet.
    """
    flat = events.reshape(-1, events.shape[-1])[:, order]
    found = np.zeros(len(flat))
    # Events that nobody walks are taken without waiting.
    lengths = walked[:, order].T
    where, source = np.nonzero(flat)
    if not where.size or not lengths.any():
        return found.reshape(events.shape[:2])
    first = np.searchsorted(where, np.arange(len(flat)))
    within = np.arange(where.size) - first[where]
    parts = -(-np.bincount(where, minlength=len(flat)) // STRETCH)
    begins = np.cumsum(parts) - parts
    part, place = begins[where] + within // STRETCH, within % STRETCH
    padded = np.full((place.max() + 1, parts.sum()), -1)
    padded[place, part] = source
    # Clocks from the event before, at least.
    spacing = np.ones_like(padded)
    if words is not None:
        word = words[order][source]
        spacing[place, part] = np.maximum(1, word - np.where(within > 0, np.roll(word, 1), -1))
    # The longest first, so that those still going on are always the first ones.
    sizes = np.count_nonzero(padded >= 0, axis=0)
    longest = np.argsort(-sizes, kind="stable")
    padded, spacing, sizes = padded[:, longest], spacing[:, longest], sizes[longest]
    lanes = walked.shape[0]
    taken = np.full(padded.shape[1], -1 - head, np.int64)
    done = np.zeros((padded.shape[1], lanes), np.int64)
    # When the last rows of each lane began, the oldest at ``count % held``.
    began = np.full((padded.shape[1], lanes, held), -1 - head, np.int64)
    count = np.zeros((padded.shape[1], lanes), np.int64)
    for step in range(len(padded)):
        alive = int(np.searchsorted(-sizes, -step))
        row = lengths[padded[step, :alive]]
        oldest = (count[:alive] % held)[:, :, None]
        room = np.take_along_axis(began[:alive], oldest, 2)[:, :, 0].max(axis=1)
        taken[:alive] = np.maximum(taken[:alive] + spacing[step, :alive], room)
        walks = row > 0
        begin = np.maximum(done[:alive], taken[:alive, None])
        np.put_along_axis(
            began[:alive],
            oldest,
            np.where(walks, begin, np.take_along_axis(began[:alive], oldest, 2)[:, :, 0])[:, :, None],
            2,
        )
        done[:alive] = np.where(walks, begin + row, done[:alive])
        count[:alive] += walks
    clocks = np.empty(padded.shape[1])
    clocks[longest] = done.max(axis=1)
    np.add.at(found, np.repeat(np.arange(len(flat)), parts), clocks)
    return found.reshape(events.shape[:2])


def activity(
    network: FrozenNetwork, mapping: HardwareMap, stimulus: Stimulus, trace: golden.Trace | None = None
) -> list[Activity]:
    """Activity of every layer on real samples, by the golden model (``trace``, if it ran already)."""
    return [
        layer_activity(network, mapping, layer.index, found)
        for layer, found in zip(mapping.layers, layer_events(network, stimulus, trace), strict=True)
    ]


def layer_activity(network: FrozenNetwork, mapping: HardwareMap, index: int, found: Bool) -> Activity:
    """Activity of one layer; ``found`` : its events, as of :func:`layer_events`."""
    layer = mapping.layers[index]
    held = UNQUEUED if layer.fetchers == 1 else mapping.choices.queue_depth
    sweeps = network.timesteps if layer.schedule == "sample" else 1
    head = sweeps * layer.n_slots + TURN_CLOCKS
    arrives, arrived = _arriving(mapping, layer, found.astype(np.float64)), _counted(found)
    if masks := collects(network, index, layer.schedule):
        found = np.logical_or.reduce(found, axis=1, keepdims=True)
    rows = found.astype(np.float64)
    return Activity(
        arrives,
        arrived,
        _counted(found),
        rows @ _walked_apart(layer).astype(np.float64).T,
        rows @ landing(layer).astype(np.float64),
        _walking_clocks(network, mapping, layer, found, held, head),
        _scan_clocks(network, layer, found[:, 0]) if masks else np.zeros(len(found)),
    )


def _counted(events: Bool) -> Float:
    """float64 (N,): all events of each sample."""
    return np.count_nonzero(events, axis=(1, 2)).astype(np.float64)


def _of_streams(layer: LayerMap) -> Bool:
    """bool (streams, n_in): the sources whose events come in each stream."""
    return layer.source_stream == np.arange(layer.streams)[:, None]


def _walked_apart(layer: LayerMap) -> Int:
    """int64 (lanes * streams, n_in): clocks that each lane walks for an event of each source, stream by stream."""
    walked = layer.walked(layer.row_lengths)
    return (walked[:, None] * _of_streams(layer)).reshape(-1, layer.n_in)


def _arriving(mapping: HardwareMap, layer: LayerMap, events: Float) -> Float:
    """float64 (..., projections): clocks in which ``events`` (..., n_in) come."""
    of_streams, found = _of_streams(layer), []
    for link, first in zip(layer.projections, [0, *_ends(layer)], strict=True):
        part = slice(first, first + link.n_in)
        counts = events[..., part] @ of_streams[:, part].T.astype(np.float64)
        clocks = counts.max(axis=-1)
        if link.source == INPUT:
            clocks = np.maximum(clocks, np.ceil(counts.sum(axis=-1) / mapping.choices.input_words))
        found.append(clocks if layer.streams > 1 else counts[..., 0])
    return np.stack(found, axis=-1)


def _walking_clocks(
    network: FrozenNetwork, mapping: HardwareMap, layer: LayerMap, events: Bool, held: int, head: int
) -> Float:
    """float64 (N, steps): :func:`walking_clocks` of the stream that takes longest."""
    walked, order = layer.walked(layer.row_lengths), arrivals(network, mapping, layer.index)
    words = np.concatenate(_mask_words(network, layer)) if collects(network, layer.index, layer.schedule) else None
    found = [walking_clocks(events & own, walked * own, order, held, head, words) for own in _of_streams(layer)]
    return np.max(found, axis=0)


def _collectors(network: FrozenNetwork, layer: LayerMap) -> list[CollectorPlan]:
    """Those of a layer's projections."""
    timesteps = layer.capacity.timesteps if layer.capacity else network.timesteps
    return [CollectorPlan.of(link, timesteps, layer.index) for link in layer.projections]


def _mask_words(network: FrozenNetwork, layer: LayerMap) -> list[Int]:
    """int64 (n_in,) of each projection: the word that holds each source's mask, in the collector of its stream."""
    return [
        address_within(link.source_address, link.place_bits, link.streams) >> collector.group_bits
        for link, collector in zip(layer.projections, _collectors(network, layer), strict=True)
    ]


def _scan_clocks(network: FrozenNetwork, layer: LayerMap, fired: Bool) -> Float:
    """float64 (N,): clocks in which the collectors of a layer send a sample: a clock for each source that has
    ``fired``, bool (N, n_in), and for each word without any. Of several projections one event comes in a clock."""
    found = np.zeros(len(fired))
    words, collectors = _mask_words(network, layer), _collectors(network, layer)
    for stream in range(layer.streams):
        clocks, sent, first = np.zeros(len(fired)), np.zeros(len(fired)), 0
        for link, word, collector in zip(layer.projections, words, collectors, strict=True):
            own = fired[:, first : first + link.n_in] & (link.source_stream == stream)
            first += link.n_in
            held = np.zeros((len(fired), collector.depth), bool)
            sample, source = np.nonzero(own)
            held[sample, word[source]] = True
            count = own.sum(axis=1)
            sent += count
            clocks = np.maximum(clocks, count + collector.depth - held.sum(axis=1))
        found = np.maximum(found, np.maximum(clocks, sent))
    return found


def _ends(layer: LayerMap) -> list[int]:
    """Where the sources of one projection end and those of the next begin."""
    return np.cumsum([link.n_in for link in layer.projections])[:-1].tolist()


def _sent(plan: MachinePlan, activities: Sequence[Activity], source: int, sample: int) -> Float | None:
    """float64 (steps,): events that a population sends; None if no layer reads it in the same timestep."""
    for layer, part in zip(plan.mapping.layers, activities, strict=True):
        for number, link in enumerate(layer.projections):
            if link.source == source != layer.index:
                return part.events[sample, :, number]
    return None


def mean_activity(network: FrozenNetwork, mapping: HardwareMap, rates: Sequence[npt.NDArray]) -> list[Activity]:
    """Activity of one sample whose events are the mean ones, spread evenly over the timesteps.

    ``rates`` : per layer, float (n_in,); events (for 'current': nonzero values) per sample of each source. Raises
    InputError for rates of another form, and for numbers that are no rates.
    """
    result = []
    for layer, rates_of in zip(mapping.layers, _checked_rates(network, rates), strict=True):
        arriving = 1 if layer.index == 0 and network.coding.is_current else network.timesteps
        steps, scans, sent = arriving, np.zeros(1), rates_of
        if collects(network, layer.index, layer.schedule):
            # Sources that fire at all, if they do so in any timesteps.
            steps, sent = 1, 1 - (1 - np.minimum(rates_of / arriving, 1)) ** arriving
            depth = max(collector.depth for collector in _collectors(network, layer))
            scans = np.maximum(depth, _arriving(mapping, layer, sent).sum(axis=-1, keepdims=True))
        loads = _walked_apart(layer) @ sent
        operations = float(landing(layer) @ sent)

        def spread(clocks: Float, steps: int) -> Float:
            return np.broadcast_to(clocks / steps, (1, steps, clocks.size)).copy()

        result.append(
            Activity(
                spread(_arriving(mapping, layer, rates_of), arriving),
                rates_of.sum(keepdims=True),
                sent.sum(keepdims=True),
                spread(loads.astype(np.float64), steps),
                np.full((1, steps), operations / steps),
                np.full((1, steps), float(loads.max()) / steps),
                scans,
            )
        )
    return result


def _checked_rates(network: FrozenNetwork, rates: Sequence[npt.NDArray]) -> list[Float]:
    """As float64; raises what :func:`mean_activity` raises."""
    if len(rates) != len(network.layers):
        raise InputError(entries_for("rates", len(rates), len(network.layers)))
    found = []
    for index, (given, layer) in enumerate(zip(rates, network.layers, strict=True)):
        array = np.asarray(given)
        numbers = array.dtype.kind in "biuf" and bool(np.all(np.isfinite(array)) and np.all(array >= 0))
        if array.shape != (layer.n_sources,) or not numbers:
            raise InputError(f"rates of layer {index} must be {layer.n_sources} numbers of 0 or more")
        found.append(array.astype(np.float64))
    return found


def checked_clock(clock_mhz: float) -> float:
    """A clock that times can be taken at. Raises InputError."""
    if not 0 < clock_mhz < float("inf"):
        raise InputError(f"clock_mhz = {clock_mhz!r} must be a number above 0")
    return clock_mhz


def cycle_estimate(plan: MachinePlan, activities: Sequence[Activity]) -> dict[str, Any]:
    """Clocks of samples, alone and back to back.

    The engines are taken as a pipeline of stations. A layer's sweep of timestep t starts when its fullest lane has
    walked its rows, one synapse a clock, and the timestep's end has come; it reads ``n_slots`` slots, one a clock,
    and its events reach the next layer one a clock. A lane walks rows of t + 1 once its sweep of t has passed; until
    then its queue takes as many rows as it holds, and the events behind them wait; so do lanes for each other
    (:func:`walking_clocks`). Where a sample is walked at once one accumulation is followed by T sweeps; a collector
    before it sends when the sample is whole, a word or an event a clock. Limited FIFOs are taken
    as unlimited. Against simulation of 20 samples each, seven networks of :mod:`boards.calibrate` (with which
    ``TURN_CLOCKS`` was chosen): latency within 4 %, interval within 5 %, five of the intervals within 0.5 %. Chains of
    convolutions and pools: of examples/digits-conv.toml, and of the shape of examples/mnist-conv.toml, latency within
    1 %, interval within 2 %; ten random ones: interval within 2 %, and where sweeps wait for room in a FIFO, one was
    6.3 % too few; latency within 3 % or, where it is short, 10 clocks.

    Early exit is not counted: all samples are taken as whole. Nor is what sweeps wait for without FIFOs behind them.

    Returns ``latency_cycles`` (first input word to decision, samples alone), ``interval_cycles`` (between decisions,
    back to back; None for a single sample), ``accumulate_cycles`` and ``sweep_cycles`` per layer and sample,
    ``lane_use`` per layer (synapses over lanes x streams x accumulate cycles), ``synaptic_operations`` per layer and
    sample.
    """
    layers, timesteps = plan.mapping.layers, plan.network.timesteps
    n_samples = len(activities[0].events)
    peaks = [part.clocks for part in activities]
    latencies, decisions = [], []
    free = [0.0] * len(layers)
    input_free = readout_free = 0.0
    for sample in range(n_samples):
        alone = _decision(plan, activities, peaks, sample, [0.0] * len(free), 0.0, 0.0)
        latencies.append(alone[0])
        decision, free, input_free = _decision(plan, activities, peaks, sample, free, input_free, readout_free)
        readout_free = decision
        decisions.append(decision)
    fills = [engine.clocks.fill for engine in plan.engines for _ in engine.layers]
    accumulate = [float((peak + fill * (peak > 0)).sum(axis=1).mean()) for peak, fill in zip(peaks, fills, strict=True)]
    synapses = [float(part.operations.sum(axis=1).mean()) for part in activities]
    return {
        "latency_cycles": float(np.mean(latencies)),
        "interval_cycles": float(np.diff(decisions).mean()) if n_samples > 1 else None,
        "accumulate_cycles": accumulate,
        "sweep_cycles": [layer.n_slots * timesteps for layer in layers],
        "lane_use": [
            total / (layer.lanes * layer.streams * clocks) if clocks else None
            for layer, total, clocks in zip(layers, synapses, accumulate, strict=True)
        ],
        "synaptic_operations": synapses,
    }


def _decision(
    plan: MachinePlan,
    activities: Sequence[Activity],
    peaks: Sequence[Float],
    sample: int,
    free: list[float],
    input_free: float,
    readout_free: float,
) -> tuple[float, list[float], float]:
    """Clock of a sample's decision, when each layer may walk again, and when the input port is free."""
    network = plan.network
    if plan.choices.folded:
        decision, now = _folded_decision(
            network, plan.engines[0], activities, [peak[sample] for peak in peaks], sample, input_free
        )
        return max(decision, readout_free + READOUT_CLOCKS + network.n_outputs), free, now
    first: list[float] = []
    last: list[float] = []
    now = input_free
    entering = _sent(plan, activities, INPUT, sample)
    assert entering is not None
    for count in entering:
        first.append(now + INPUT_CLOCKS)
        now += count + (0 if network.coding.is_current else 1)
        last.append(now + INPUT_CLOCKS)
    # First event and end of each timestep of what each population sends.
    sent = {INPUT: (first, last)}
    after = list(free)
    for engine, peak in zip(plan.engines, peaks, strict=True):
        layer, clocks = engine.layers[0], engine.clocks
        fire, stages = clocks.fire, clocks.write
        event_clocks, barrier_clocks = clocks.fetch, clocks.barrier
        # Clocks from the end of a sweep until rows may start.
        settling = clocks.settling - 1
        go = after[layer.index]
        swept = go - settling
        starts: list[float] = []
        heard = [sent[link.source] for link in layer.projections if link.source != layer.index]
        first, last = ([choose(times) for times in zip(*part)] for choose, part in zip((min, max), zip(*heard)))
        if engine.collects:
            # Whole samples come in while the ones before are walked; then a sample's events leave as one accumulation.
            begins = last[-1] + COLLECTOR_CLOCKS
            first, last = [begins], [begins + activities[layer.index].scans[sample]]
        own = activities[layer.index].events[sample][:, [link.source == layer.index for link in layer.projections]]
        for step in range(len(first)):
            if any(engine.delayed) and step > 0:
                # Its own events begin with the sweep before.
                last[step] = max(last[step], starts[-1] + fire + TOKEN_CLOCKS + max(layer.n_slots, own[step].max()))
            start = last[step] + event_clocks
            if peak[sample, step] > 0:
                start = max(start, max(go, first[step] + event_clocks) + peak[sample, step] + barrier_clocks)
            else:
                # No row, no walk: sweeps follow each other as soon as slot 0 has been written.
                start = max(start, swept + (1 if layer.n_slots > stages else stages))
            sweeps = network.timesteps if engine.keeps_sums else 1
            spacing = layer.n_slots if layer.n_slots > stages else layer.n_slots + stages
            starts += [start + k * spacing for k in range(sweeps)]
            swept = starts[-1] + layer.n_slots
            go = swept + settling
            if layer.index == 0 and not engine.collects:
                # Words of the next timestep wait until the lanes have walked those before.
                pushed = max(0.0, start - barrier_clocks - now)
                now += pushed if step + 1 == len(first) else 0.0
        after[layer.index] = go
        fired = _sent(plan, activities, layer.index, sample)
        first = [start + fire + TOKEN_CLOCKS for start in starts]
        last = []
        for t, start in enumerate(starts):
            tokens = 0.0 if fired is None else float(fired[t])
            last.append(max(start + layer.n_slots, first[t] - fire + tokens) + fire + TOKEN_CLOCKS)
        sent[layer.index] = first, last
    decision = max(last[-1], readout_free) + READOUT_CLOCKS + network.n_outputs
    return decision, after, now


def _folded_decision(
    network: FrozenNetwork,
    engine: EnginePlan,
    activities: Sequence[Activity],
    peaks: Sequence[Float],
    sample: int,
    now: float,
) -> tuple[float, float]:
    """Clock of a sample's decision, and when the one engine, which does one thing after the other, is free again."""
    is_current = network.coding.is_current
    clocks = engine.clocks
    fire, stages = clocks.fire, clocks.write
    event_clocks, barrier_clocks = clocks.fetch, clocks.barrier
    # First event of the sweep before, and its begin, from which on events of the next turn are taken.
    token = begin = now
    for t in range(network.timesteps):
        for layer, peak in zip(engine.layers, peaks, strict=True):
            if layer.index > 0 or t == 0 or not is_current:
                first, last = _taken(engine, activities[layer.index], layer.index, sample, t, begin, token, now)
                walked = max(now + 1, first + event_clocks) + peak[t]
                now = begin = max(walked + barrier_clocks, last + event_clocks)
            token = now + fire + TOKEN_CLOCKS
            now += layer.n_slots + stages
    return now + TOKEN_CLOCKS + READOUT_CLOCKS + network.n_outputs, now


def _taken(
    engine: EnginePlan, activity: Activity, layer: int, sample: int, t: int, begin: float, token: float, now: float
) -> tuple[float, float]:
    """Clocks of the first event and of the end that come to a layer, link by link, one event of each stream a clock.

    begin : when what is kept may come. token : when the sweep before sends its first event. now : when that is over.
    """
    starts, end = [], begin
    for link in engine.links:
        if link.layer != layer:
            continue
        events = float(activity.events[sample, t, link.number])
        if link.way == "port":
            start = max(now + INPUT_CLOCKS, end)
            end = start + events + (0 if engine.widths.value else 1)
        elif link.way == "passed":
            start = max(token, end)
            end = max(now - 1, start + events)
        else:
            start = end + 1
            end = start + events
        starts.append(start if events else end)
    return min(starts), end


def estimate(
    plan: MachinePlan,
    *,
    stimulus: Stimulus | None = None,
    rates: Sequence[npt.NDArray] | None = None,
    clock_mhz: float = 50.0,
    trace: golden.Trace | None = None,
    exact: bool = True,
) -> dict[str, Any]:
    """Everything that can be said before simulation and synthesis.

    stimulus : samples whose events are counted (the first 100); without it, ``rates`` (mean events per sample and
        source of every layer); without both there are no cycles.
    clock_mhz : clock that the latency assumes.
    trace : the golden model's on ``stimulus``, at most 100 samples, if it ran already.
    exact : whether the clocks of samples are to be those of simulation; False saves their time.

    Returns ``memory_bits`` by kind (rows, synapses, parameters, state, queues), ``bits_per_synapse``, ``placement``
    (padding and balance by layer, see :meth:`codesign.machine.mapping.HardwareMap.report`), ``cycles`` (see
    :func:`cycle_estimate`, or None; ``exact`` in it says whether latency and interval are those that simulation has, of
    the first ``samples``, fewer than given where they take long), ``latency_us`` and ``interval_us`` at ``clock_mhz``,
    ``area`` by family (:func:`codesign.cost.area.machine_area`), ``energy`` of a mean sample
    (:func:`codesign.cost.energy.energy_estimate`; None without events).

    Raises InputError for rates that are none of the network's and for a clock that is not above 0.

    >>> import codesign, numpy as np
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> plan = codesign.plan_machine(network, codesign.map_hardware(network))
    >>> samples = codesign.Stimulus.from_dense(np.ones((1, 3, 2), bool))
    >>> found = codesign.estimate_machine(plan, stimulus=samples, clock_mhz=50)
    >>> found["latency_us"] == found["cycles"]["latency_cycles"] / 50, sorted(found["area"])
    (True, ['ecp5', 'gowin', 'ice40', 'xilinx'])
    """
    network, mapping, bits, clock_mhz = plan.network, plan.mapping, plan.memory_bits, checked_clock(clock_mhz)
    activities: list[Activity] | None = None
    cycles: dict[str, Any] | None = None
    if stimulus is not None and len(stimulus):
        chosen = stimulus.take(slice(0, MAX_SAMPLES))
        trace = trace or golden.run(network, chosen, membranes=False)
        activities = activity(network, mapping, chosen, trace)
        cycles = {**cycle_estimate(plan, activities), "exact": False, "samples": len(chosen)}
        if exact:
            cycles |= _exact(plan, chosen, trace, cycles["latency_cycles"] + (cycles["interval_cycles"] or 0))
    elif rates is not None:
        activities = mean_activity(network, mapping, rates)
        cycles = {**cycle_estimate(plan, activities), "exact": False, "samples": 0}
    return {
        "network_hash": network.hash,
        "lanes": mapping.lanes,
        "memory_bits": bits,
        "bits_per_synapse": (bits["rows"] + bits["synapses"]) / max(1, network.n_synapses),
        "placement": mapping.report(),
        "cycles": cycles,
        "clock_mhz": clock_mhz,
        "latency_us": cycles["latency_cycles"] / clock_mhz if cycles else None,
        "interval_us": cycles["interval_cycles"] / clock_mhz if cycles and cycles["interval_cycles"] else None,
        "area": {family: machine_area(plan, family) for family in FAMILIES},
        "energy": None if activities is None else activity_energy(plan, activities),
    }


def _exact(plan: MachinePlan, stimulus: Stimulus, trace: golden.Trace, clocks: float) -> dict[str, Any]:
    """Exact clocks in place of near ones, of the first samples; nothing without a compiler. clocks : of a sample, alone
    and back to back, about."""
    count = min(len(stimulus), max(2, int(MOST_STEPS / (clocks * parts(plan)))))
    few = slice(0, count)
    spikes = [part[few] for part in trace.spikes]
    found = exact_cycles(plan, stimulus.take(few), replace(trace, spikes=spikes, exits=trace.exits[few]))
    return {} if found is None else {**found, "exact": True, "samples": count}


def activity_energy(plan: MachinePlan, activities: Sequence[Activity]) -> dict[str, Any]:
    """Energy of a mean sample of these activities."""
    return energy_estimate(
        plan,
        [float(part.looked_up.mean()) for part in activities],
        [float(part.loads.sum(axis=(1, 2)).mean()) for part in activities],
        [float(part.arrived.mean()) for part in activities],
    )
