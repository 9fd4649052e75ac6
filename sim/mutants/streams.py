"""RTL mutants of several events a clock: who takes an event, whose sums are added, whom a sweep waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from codesign.contract.network import INPUT
from sim.mutants.edits import RtlEdit, driver, to
from sim.mutants.scene import Row, Scene

STREAMS = "streams"
# Words that a walker has left when the others wait, for a sweep that does not wait for it to show.
BACKLOG = 4


def stream_edits(scene: Scene) -> Iterator[RtlEdit]:
    """Faults of a machine that takes several events a clock, where the samples show them."""
    if scene.choices.event_streams == 1:
        return
    if _neighbours_show(scene):
        yield RtlEdit(
            "inputs in the neighbouring stream", STREAMS, "guard", driver(r"belongs_\d+"), to(r"(\g<value>) ^ 1'h1"),
            "the golden model in which neighbouring inputs walk each other's rows differs", every=True,
        )  # fmt: skip
    serializer = "engine0_hidden_serializer_1" if scene.choices.folded else "serializer0_1"
    if scene.last > 0 and _hidden_shows(scene):
        yield RtlEdit(
            "hidden events of a stream lost", STREAMS, serializer, driver("own"), to("1'h0"),
            "the golden model without these spikes differs",
        )  # fmt: skip
    if scene.shows_rows(lambda rows: [row for row in rows if row.stream != 1], scene.engine_layers()):
        yield RtlEdit(
            "sum of a stream left out", STREAMS, r"engine0_neurons\d+_sum1", driver("operand"), to("1'h0"),
            "the golden model without the synapses of its sources differs",
        )  # fmt: skip
    late = _late_stream(scene)
    if late is not None:
        yield RtlEdit(
            "sweep does not wait for a stream", STREAMS, "engine0", driver(f"waits_{late}"), to("1'h1"),
            "its lanes still walk rows when those of the others have ended",
        )  # fmt: skip


def _neighbours_show(scene: Scene) -> bool:
    """Whether it shows that an input walks the row of the one whose lowest bit is the other."""
    (entry, *_), bit = scene.sidecar.layers, 1
    number = next((n for n, part in enumerate(entry.projections) if part.source == INPUT), None)
    if number is None:
        return False
    reads = entry.projections[number].reads
    if reads is not None:
        address = scene.addresses(0, number)
        return scene.shows_reading(0, number, address=address ^ (bit << reads.picture.place_bits))
    if not scene.is_plain(0):
        return False

    def fault(rows: list[Row]) -> list[Row]:
        by_source = {row.source: row for row in rows}
        # What has no neighbour walks nothing.
        pairs = [(row, row.source ^ bit) for row in rows]
        return [replace(by_source[other], source=row.source) for row, other in pairs if other in by_source]

    return scene.shows_rows(fault, [0])


def _hidden_shows(scene: Scene) -> bool:
    """Whether it shows that the first layer's spikes of stream 1 do not reach the layers that read them."""
    reads = [
        (entry.index, number)
        for entry in scene.sidecar.layers
        for number, part in enumerate(entry.projections)
        if part.source == 0 and entry.index > 0
    ]
    if scene.choices.folded:
        # In one engine all spikes that are read pass there.
        reads = [
            (entry.index, number)
            for entry in scene.sidecar.layers
            for number, part in enumerate(entry.projections)
            if part.source != INPUT
        ]
    if reads != [(1, 0)]:
        return False
    if scene.is_plain(1):
        return scene.shows_rows(lambda rows: [row for row in rows if row.stream != 1], [1])
    layers = list(scene.network.layers)
    events = scene.events(1, {}, {})
    kept = replace(events, row=np.where(events.stream == 1, -1, events.row))
    layers[1] = scene.with_reached(1, scene.reached(1, kept))
    return scene.shows(scene.network.with_layers(layers))


def _late_stream(scene: Scene) -> int | None:
    """A stream that has far more to walk for the first layer than the others in some accumulation that counts."""
    if len(scene.sidecar.layers[0].projections) > 1:
        return None
    values, lanes = scene.stimulus.values, range(scene.sidecar.layers[0].lanes)
    sent = scene.stimulus.dense() & scene.counts[:, :, None] if values is None else (values != 0)[:, None]
    collects = scene.collecting_layer == 0
    sent = np.asarray(sent.any(axis=1) if collects else sent.reshape(-1, sent.shape[-1])).astype(np.int64)
    waits = scene.mask_words(0) if collects else 0
    loads = np.zeros((scene.choices.event_streams, len(sent)), np.int64)
    busiest = np.zeros_like(loads)
    for lane in lanes:
        rows = scene.rows(0, lane)
        stream, words = np.array([row.stream for row in rows]), np.array([row.words.size for row in rows])
        for number in range(len(loads)):
            load = sent @ np.where(stream == number, words, 0)
            loads[number] = np.maximum(loads[number], load)
            busiest[number] = sent @ (stream == number) + waits
    for number in range(len(loads)):
        others = np.delete(np.maximum(loads, busiest), number, axis=0).max(axis=0)
        if (loads[number] > np.maximum(others, busiest[number]) + BACKLOG).any():
            return number
    return None
