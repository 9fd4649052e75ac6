"""RTL mutants of what pictures add: readers, place counters, and taps that land. Each is made only where it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from codesign.contract import golden
from codesign.contract.sidecar import LayerEntry, Picture
from sim.mutants.edits import RtlEdit
from sim.mutants.scene import Absent, Scene
from sim.mutants.walks import Axes, Axis, Land

Int = npt.NDArray[np.int64]

PICTURE, TAPS = "picture", "taps"
# An entry of a reader's tables.
ENTRY = (
    r"(?m)^(?P<head>\s*\d+'h(?P<key>[0-9a-f]+):\s*(?P<what>row|base|reach)_(?P<axis>[yx]) = (?P<size>\d+)'h)"
    r"[0-9a-f]+;"
)
PART = r"\[[0-9:]+\]"
# What registers of an engine without FIFO wait for.
MOVES = r"(?:if \(moves\) begin\s+)?"


def picture_edits(scene: Scene) -> Iterator[RtlEdit]:
    """Faults of the parts that pictures have, of the first layer in which the samples show each."""
    readers = [
        (entry.index, number)
        for entry in scene.sidecar.layers
        for number, projection in enumerate(entry.projections)
        if projection.reads is not None
    ]
    for table in TABLES:
        for index, number in readers:
            if table.shows(scene, index, number):
                yield table.edit(scene, index, number)
                break
    index = scene.tap_layer
    if index is not None:
        yield from (edit for edit, shown in _landings(scene, index) if shown())
    for parts in (_addresses, _counters, _parameters):
        yield from parts(scene)


# Tables of the readers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TableFault:
    """A fault in what a reader's tables hold. ``wrong`` gives the tables that it makes; None if it makes none."""

    name: str
    reason: str
    wrong: Callable[[Scene, int, int], Axes | None]

    def tables(self, scene: Scene, index: int, number: int) -> Axes | None:
        """The wrong tables, their entries cut to the signals' bits."""
        picture, right = scene.reads(index, number).picture, scene.axes(index, number)
        wrong = self.wrong(scene, index, number)
        if wrong is None:
            return None
        # A coordinate that can only be 0 has no table.
        sides = {"y": picture.height, "x": picture.width}
        axes = {name: getattr(wrong if side > 1 else right, name) for name, side in sides.items()}
        return Axes(**{name: axis.cut_to(getattr(right, name)) for name, axis in axes.items()})

    def shows(self, scene: Scene, index: int, number: int) -> bool:
        tables = self.tables(scene, index, number)
        return tables is not None and scene.shows_reading(index, number, tables)

    def edit(self, scene: Scene, index: int, number: int) -> RtlEdit:
        tables = self.tables(scene, index, number)
        assert tables is not None

        def entered(match: re.Match[str]) -> str:
            column = getattr(tables, match["axis"]).columns[match["what"]]
            return f"{match['head']}{int(column[int(match['key'], 16)]):x};"

        return RtlEdit(
            self.name, PICTURE, rf"{scene.reader(index, number)}(?:_\d)?", ENTRY, entered, self.reason, every=True
        )


def _not_divided(scene: Scene, index: int, number: int) -> Axes | None:
    reads = scene.reads(index, number)
    if reads.pool == 1:
        return None
    right, wrong = scene.axes(index, number), scene.axes(index, number, pool=1)
    if reads.convolution is not None:
        return wrong
    # The rows are those of the pooled picture.
    rows = (np.arange(reads.picture.height) * reads.pooled[1], np.arange(reads.picture.width))
    return Axes(*(replace(axis, row=row) for axis, row in zip((right.y, right.x), rows, strict=True)))


def _left_over(scene: Scene, index: int, number: int) -> Axes | None:
    return None if scene.reads(index, number).pool == 1 else scene.axes(index, number, drops=False)


def _no_padding(scene: Scene, index: int, number: int) -> Axes | None:
    kernel = scene.reads(index, number).convolution
    return scene.axes(index, number, padding=0) if kernel is not None and kernel.padding else None


def _of_taps(change: Callable[[Axes, Picture], Axes]) -> Callable[..., Axes | None]:
    """Other tables for a convolution."""

    def wrong(scene: Scene, index: int, number: int) -> Axes | None:
        picture = scene.sidecar.layers[index].picture
        if scene.reads(index, number).convolution is None or picture is None:
            return None
        return change(scene.axes(index, number), picture)

    return wrong


def _no_phase(axes: Axes, picture: Picture) -> Axes:
    return Axes(replace(axes.y, row=0 * axes.y.row), axes.x)


def _row_late(axes: Axes, picture: Picture) -> Axes:
    return Axes(replace(axes.y, base=axes.y.base + picture.width), axes.x)


def _column_late(axes: Axes, picture: Picture) -> Axes:
    return Axes(axes.y, replace(axes.x, base=axes.x.base + 1))


def _everywhere(axis: Axis) -> Axis:
    return replace(axis, reach=np.where(axis.reach > 0, (1 << int(axis.reach.max()).bit_length()) - 1, 0))


TABLES = (
    TableFault(
        "pooled coordinates not divided", "the golden model in which the pool does not divide differs", _not_divided
    ),
    TableFault(
        "rows that fill no window kept", "the golden model in which they add to other windows differs", _left_over
    ),
    TableFault("padding forgotten in the reader", "the golden model without padding differs", _no_padding),
    TableFault(
        "phase of a row ignored", "the golden model that walks the taps of phase 0 differs", _of_taps(_no_phase)
    ),
    TableFault("base a row late", "the golden model with taps a row further down differs", _of_taps(_row_late)),
    TableFault(
        "base a column late", "the golden model with taps a column further right differs", _of_taps(_column_late)
    ),
    TableFault(
        "reach along y forgotten",
        "the golden model in which taps wrap at the upper and lower border differs",
        _of_taps(lambda axes, *_: Axes(_everywhere(axes.y), axes.x)),
    ),
    TableFault(
        "reach along x forgotten",
        "the golden model in which taps wrap at the left and right border differs",
        _of_taps(lambda axes, *_: Axes(axes.y, _everywhere(axes.x))),
    ),
)

# Taps ----------------------------------------------------------------------------------------------


def _landings(scene: Scene, index: int) -> Iterator[tuple[RtlEdit, Callable[[], bool]]]:
    """Faults of the landing in every fetcher of a convolution, and whether each shows."""
    fetchers = rf"{scene.engine(index)}_fetcher\d+(?:_\d)?"

    # Layers that share an engine share its fetchers.
    layers = [layer for layer in scene.same_engine(index) if scene.has_taps(layer)]

    def checks(left: str) -> tuple[str, str]:
        """Pattern and replacement of the checks of a tap, x, then y."""
        return r"= & \{ (?P<x>\\\$\d+ ), (?P<y>\\\$\d+ ), decoding \};", left

    def edit(name: str, what: tuple[str, str], reason: str) -> RtlEdit:
        return RtlEdit(name, TAPS, fetchers, *what, reason)

    def shown(land: Land) -> Callable[[], bool]:
        return lambda: scene.shows_walking(layers, land=land)

    yield (
        edit("taps land beyond every border", checks("= decoding;"), "the golden model without borders differs"),
        shown(lambda reach_y, reach_x, dy, dx: np.ones(dy.size, bool)),
    )
    yield (
        edit(
            "taps land beyond the borders of y",
            checks(r"= & { \g<x>, decoding };"),
            "the golden model without the upper and lower border differs",
        ),
        shown(lambda reach_y, reach_x, dy, dx: (reach_x >> dx & 1).astype(bool)),
    )
    yield (
        edit(
            "taps land beyond the borders of x",
            checks(r"= & { \g<y>, decoding };"),
            "the golden model without the left and right border differs",
        ),
        shown(lambda reach_y, reach_x, dy, dx: (reach_y >> dy & 1).astype(bool)),
    )
    shifted = rf"(?P<head>= word_tag{PART} >> )(?P<dy>taken{PART})(?P<mid>;.*?= word_tag{PART} >> )(?P<dx>taken{PART});"
    yield (
        edit(
            "steps of y and x exchanged",
            (rf"(?s){shifted}", r"\g<head>\g<dx>\g<mid>\g<dy>;"),
            "the golden model with these borders differs",
        ),
        shown(lambda reach_y, reach_x, dy, dx: (reach_y >> dx & reach_x >> dy & 1).astype(bool)),
    )

    def without_base() -> bool:
        return scene.shows_walking(layers, lambda events: replace(events, base=0 * events.base))

    yield (
        edit(
            "base not added",
            (rf"= (?P<slot>taken{PART}) \+ word_tag{PART};", r"= \g<slot>;"),
            "the golden model whose taps land at their offsets differs",
        ),
        without_base,
    )


# Addresses that pictures send ----------------------------------------------------------------------


def _sent_on(scene: Scene, index: int) -> bool:
    """Whether a layer's events go to the next layer alone, which has no others."""
    readers = [
        (entry.index, len(entry.projections))
        for entry in scene.sidecar.layers
        for projection in entry.projections
        if projection.source == index
    ]
    return readers == [(index + 1, 1)]


def _channels(scene: Scene, index: int) -> tuple[Int, Int, Int]:
    """Rank, lane and place within its channel of each source of a layer that reads a picture of a layer."""
    before = scene.sidecar.layers[index - 1]
    lane_bits, place_bits = (before.lanes - 1).bit_length(), scene.reads(index, 0).picture.place_bits
    address = scene.addresses(index, 0)
    channel = address >> place_bits
    return channel >> lane_bits, channel & ((1 << lane_bits) - 1), address & ((1 << place_bits) - 1)


def _addresses(scene: Scene) -> Iterator[RtlEdit]:
    """Faults of the address that leaves a picture's sweep, where lane and rank both have bits.

    Addresses within one of several streams lack bits of it.
    """

    def has_parts(entry: LayerEntry) -> bool:
        picture = entry.picture
        if picture is None or not _sent_on(scene, entry.index) or not picture.place_bits:
            return False
        return entry.lanes > 1 and entry.n_slots > picture.size

    index = scene.first(has_parts)
    if index is None or scene.choices.event_streams > 1 or scene.choices.folded:
        return
    entry = scene.sidecar.layers[index]
    assert entry.picture is not None
    rank, lane, place = _channels(scene, index + 1)
    lane_bits, place_bits = (entry.lanes - 1).bit_length(), entry.picture.place_bits
    rank_bits = (entry.n_slots // entry.picture.size - 1).bit_length()
    parts = rf"= \{{ (?P<rank>word{PART}), lane, (?P<place>word{PART}) \}};"
    faults = (
        ("lane and rank exchanged", r"= { lane, \g<rank>, \g<place> };", lane << rank_bits | rank),
        ("rank cut off", rf"= {{ {rank_bits}'h0, lane, \g<place> }};", lane),
        ("channel without its lane", rf"= {{ \g<rank>, {lane_bits}'h0, \g<place> }};", rank << lane_bits),
    )
    for name, replacement, channel in faults:
        if scene.shows_reading(index + 1, 0, address=channel << place_bits | place):
            reason = "the golden model in which events come from these channels differs"
            yield RtlEdit(name, PICTURE, f"serializer{index}", parts, replacement, reason)


def _counters(scene: Scene) -> Iterator[RtlEdit]:
    """The place counter of a picture whose width is no power of two wraps at the next one."""

    def is_odd(entry: LayerEntry) -> bool:
        width = entry.picture.width if entry.picture else 1
        return _sent_on(scene, entry.index) and width & (width - 1) > 0

    index = scene.first(is_odd)
    if index is None or scene.choices.folded or not _misplaced_shows(scene, index):
        return
    yield RtlEdit(
        "x does not wrap at the width",
        PICTURE,
        f"engine{index}_place",
        rf"(?P<head>(?P<next>\\\$\d+ ) = x;\s+{MOVES}if \(step\) begin\s+(?P=next) = )[^;]+;",
        r"\g<head>x + 1'h1;",
        "the layer behind is sent events of other places, and its golden model differs",
    )


def _misplaced_shows(scene: Scene, index: int) -> bool:
    """Whether it shows in the layer behind that x counts on to a power of two; the counters go on from sweep to sweep,
    that after the reset included."""
    entry, network = scene.sidecar.layers[index], scene.network
    picture, lane_bits = entry.picture, (entry.lanes - 1).bit_length()
    assert picture is not None
    ranks = entry.n_slots // picture.size
    # With early exit nobody knows how many sweeps the first sample takes.
    samples = 1 if scene.choices.exits else len(scene.stimulus)
    places, x, y, rank = [], 0, 0, 0
    for _ in range((1 + samples * network.timesteps) * entry.n_slots):
        places.append((rank << (lane_bits + picture.place_bits)) | (y << picture.x_bits) | x)
        if x == picture.width - 1:
            rank = (rank + (y == picture.height - 1)) % ranks
            y = (y + 1) % picture.height
        x = (x + 1) % (1 << picture.x_bits)
    sent = np.reshape(places, (-1, entry.n_slots))[1:, list(entry.slot)]
    sent |= np.asarray(entry.lane) << picture.place_bits
    span = ranks << (lane_bits + picture.place_bits)
    source, target, weight = scene.reached(index + 1, scene.events(index + 1, {}, {0: np.arange(span, dtype=np.int64)}))
    shape = (span, scene.sidecar.layers[index + 1].n_out)
    weights: Any = scipy.sparse.csr_matrix((weight, (source, target)), shape=shape)
    fired = scene.trace.spikes[index][:samples].reshape(-1, entry.n_out)
    sweep, neuron = np.nonzero(fired)
    sent_by = (np.ones(sweep.size, np.int64), (sweep, sent[sweep, neuron]))
    events: Any = scipy.sparse.csr_matrix(sent_by, shape=(len(fired), span))
    sums = (events @ weights).toarray()
    found = golden.lif_steps(
        network.layers[index + 1],
        np.reshape(sums, (samples, network.timesteps, -1)),
        spiking=scene.spiking(index + 1),
    )
    pairs = ((found.spikes, scene.trace.spikes[index + 1]), (found.membranes, scene.trace.membranes[index + 1]))
    counts = scene.counts[:samples, :, None]
    return any(bool(((ours != theirs[:samples]) & counts).any()) for ours, theirs in pairs)


def _parameters(scene: Scene) -> Iterator[RtlEdit]:
    """The counter of the channels' parameters steps with every slot."""
    for index, entry in enumerate(scene.sidecar.layers if not scene.choices.folded else ()):
        try:
            depth = scene.memory(index, "parameters", 0).depth
        except Absent:
            continue
        if entry.picture is None or not 1 < depth < entry.n_slots or entry.n_slots != depth * entry.picture.size:
            continue
        rank, lane, held = np.asarray(entry.slot) % depth, np.asarray(entry.lane), {}
        for name in scene.table(index, "parameters", 0):
            columns = np.array([scene.table(index, "parameters", each)[name] for each in range(entry.lanes)])
            held[name] = columns[lane, rank]
        layers = list(scene.network.layers)
        layers[index] = scene.with_numbers(index, layers[index], held)
        if scene.shows(scene.network.with_layers(layers)):
            yield RtlEdit(
                "a word of parameters for each slot",
                PICTURE,
                f"engine{index}_parameter_place",
                rf"(?P<head>= rank;\s+{MOVES}if \()\\\$\d+ (?=\))",
                r"\g<head>step",
                "the golden model with the parameters of other channels differs",
            )
            return
