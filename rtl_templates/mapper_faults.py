"""Faults of the mapper: bundles as a mapper with a defect would give them, of a machine that was delivered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from codesign.contract.network import FrozenNetwork
from codesign.machine.layouts import LEAKS, index_width
from codesign.machine.mapping import HardwareMap, LayerMap, encoded
from codesign.machine.pictures import PictureInput
from rtl_templates.bundle import write_bundle

Defect = Callable[[LayerMap, np.random.Generator], LayerMap | None]


@dataclass(frozen=True, eq=False)
class MapperFault:
    """One fault, of the machine whose placement is ``mapping``.

    layer : index of the layer that is placed wrongly. defect : gives the wrong placement, None where there is no place
    for it.
    """

    name: str
    layer: int
    defect: Defect
    network: FrozenNetwork
    mapping: HardwareMap
    top: str

    def make(self, folder: Path, rng: np.random.Generator) -> bool:
        """Write the bundle of the wrong placement, all choices the machine's own; False if there is none."""
        layers = self.mapping.layers
        wrong = self.defect(layers[self.layer], rng)
        if wrong is None:
            return False
        wrong = _in_order(wrong)
        if self.mapping.choices.synapses == "compact" and _has_repeated_slots(wrong):
            return False
        mapping = replace(self.mapping, layers=(*layers[: self.layer], wrong, *layers[self.layer + 1 :]))
        write_bundle(self.network, encoded(mapping), folder, name=self.top)
        return True


def mapper_faults(network: FrozenNetwork, mapping: HardwareMap, top: str) -> list[MapperFault]:
    """Every fault of the mapper, of a machine with this placement; ``top`` is the name of its top module."""
    count = len(mapping.layers)
    taps = next((layer.index for layer in mapping.layers if _is_convolution(layer)), None)
    found = [(name, range(count)[at], defect) for name, at, defect in DEFECTS]
    if taps is not None:
        found += [(name, taps, defect) for name, defect in TAP_DEFECTS]
    return [MapperFault(name, at, defect, network, mapping, top) for name, at, defect in found]


def _in_order(layer: LayerMap) -> LayerMap:
    """The same rows with their synapses one after the other by address and slot, as the mapper leaves them."""
    slots, weights, sources, targets, steps = [], [], [], [], []
    for lane in range(layer.lanes):
        starts, counts = layer.row_start[lane], layer.row_count[lane]
        parts = [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        order = np.concatenate([part[np.argsort(layer.synapse_slot[lane][part], kind="stable")] for part in parts])
        order = order.astype(np.int64)
        slots.append(layer.synapse_slot[lane][order])
        weights.append(layer.synapse_weight[lane][order])
        sources.append(layer.synapse_source[lane][order])
        targets.append(layer.synapse_target[lane][order])
        if layer.synapse_step is not None:
            steps.append(layer.synapse_step[lane][:, order])
    row_start = np.cumsum(layer.row_count, axis=1) - layer.row_count
    row_start[layer.row_count == 0] = 0
    return replace(
        layer,
        row_start=row_start,
        synapse_slot=tuple(slots),
        synapse_weight=tuple(weights),
        synapse_source=tuple(sources),
        synapse_target=tuple(targets),
        synapse_step=None if layer.synapse_step is None else tuple(steps),
    )


def _has_repeated_slots(layer: LayerMap) -> bool:
    """True if a row reaches a slot twice, which gaps cannot say."""
    for lane in range(layer.lanes):
        rows = np.repeat(np.arange(layer.n_rows), layer.row_count[lane])
        pairs = np.stack([rows, layer.synapse_slot[lane]])
        if np.unique(pairs, axis=1).shape[1] != rows.size:
            return True
    return False


def _swap_columns(array: np.ndarray, one: int, other: int) -> np.ndarray:
    changed = array.copy()
    changed[:, [one, other]] = array[:, [other, one]]
    return changed


def _swap_slots(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Two neurons of a lane are swapped in the synapses, and nowhere else."""
    if layer.synapse_step is not None:
        return _swap_channels(layer, rng) if _is_convolution(layer) else None
    if layer.n_slots < 2:
        return None
    lane = int(rng.integers(layer.lanes))
    one, other = (int(k) for k in rng.choice(layer.n_slots, 2, replace=False))
    slots = layer.synapse_slot[lane].copy()
    slots[layer.synapse_slot[lane] == one] = other
    slots[layer.synapse_slot[lane] == other] = one
    return replace(layer, synapse_slot=(*layer.synapse_slot[:lane], slots, *layer.synapse_slot[lane + 1 :]))


def _swap_rows(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Two sources address each other's rows."""
    # Several sources of a picture may share a row.
    rows = list(dict.fromkeys(layer.source_row[layer.source_row >= 0].tolist()))
    if len(rows) < 2:
        return None
    one, other = (rows[int(k)] for k in rng.choice(len(rows), 2, replace=False))
    return replace(
        layer,
        row_start=_swap_columns(layer.row_start, one, other),
        row_count=_swap_columns(layer.row_count, one, other),
    )


def _drop_last_synapse(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """The last synapse of one row is dropped."""
    lanes, addresses = np.nonzero(layer.row_count)
    if lanes.size == 0:
        return None
    at = int(rng.integers(lanes.size))
    count = layer.row_count.copy()
    count[lanes[at], addresses[at]] -= 1
    return replace(layer, row_count=count)


def _rotate_parameters(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """The parameters of a lane's slots are rotated by one; of channels that have one word, by a channel."""
    return _rotate(layer, list(layer.parameters), rng)


def _rotate_leaks(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """The same for leaks alone, so that neurons leak as others do whose thresholds they do not have."""
    return _rotate(layer, [name for name in LEAKS if name in layer.parameters], rng)


def _rotate(layer: LayerMap, names: Sequence[str], rng: np.random.Generator) -> LayerMap | None:
    by = layer.n_slots // layer.parameter_depth
    if layer.parameter_depth < 2 or all(layer.parameters[name].constant is not None for name in names):
        return None
    lane = int(rng.integers(layer.lanes))
    parts = {name: layer.parameters[name] for name in names}
    rotated = {name: part.with_slots(lane, np.roll(part.slots[lane], by)) for name, part in parts.items()}
    return replace(layer, parameters=layer.parameters | rotated)


def _exchange_lanes(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Two lanes get each other's rows and synapses."""
    if layer.lanes < 2:
        return None
    order = np.arange(layer.lanes)
    one, other = (int(k) for k in rng.choice(layer.lanes, 2, replace=False))
    order[[one, other]] = order[[other, one]]
    names = ["synapse_slot", "synapse_weight", "synapse_source", "synapse_target"]
    names += ["synapse_step"] if layer.synapse_step is not None else []
    parts = {name: tuple(getattr(layer, name)[lane] for lane in order) for name in names}
    return replace(layer, row_start=layer.row_start[order], row_count=layer.row_count[order], **parts)


def _slot_overflow(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Synapses of every lane's last slot wrap to slot 0, as if a lane had been filled beyond its slots."""
    if layer.synapse_step is not None:
        return _channel_overflow(layer) if _is_convolution(layer) else None
    if layer.n_slots < 2:
        return None
    slots = tuple(np.where(slot == layer.n_slots - 1, 0, slot) for slot in layer.synapse_slot)
    return replace(layer, synapse_slot=slots)


def _narrow_weights(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Weights lose their lowest bit."""
    return replace(layer, synapse_weight=tuple(weight >> 1 << 1 for weight in layer.synapse_weight))


# Convolutions ---------------------------------------------------------------------------------------


def _is_convolution(layer: LayerMap) -> bool:
    """Whether a layer's only projection is a convolution."""
    return layer.synapse_step is not None and len(layer.projections) == 1


def _reads(layer: LayerMap) -> PictureInput:
    """How such a layer reads."""
    reads = layer.projections[0].reads
    assert reads is not None
    return reads


def _kernel(layer: LayerMap) -> tuple[int, int]:
    kernel = _reads(layer).kernel
    assert kernel is not None
    return kernel


@dataclass(frozen=True, eq=False)
class _Taps:
    """The taps of a lane, int64 (n,) each: channels of source and target by their places, and places in the kernel."""

    channel: np.ndarray
    rank: np.ndarray
    ky: np.ndarray
    kx: np.ndarray


def _taps(layer: LayerMap, lane: int) -> _Taps:
    reads, picture = _reads(layer), layer.picture
    assert picture is not None and layer.synapse_step is not None
    rows = np.repeat(np.arange(layer.n_rows), layer.row_count[lane])
    phase_y, phase_x = np.divmod(rows & ((1 << reads.row_bits) - 1), reads.phases[1])
    step_y, step_x = layer.synapse_step[lane]
    first = layer.synapse_slot[lane] + step_y * picture[2] + step_x
    rank = (first & ((1 << index_width(layer.n_slots)) - 1)) // (picture[1] * picture[2])
    return _Taps(rows >> reads.row_bits, rank, phase_y + reads.stride * step_y, phase_x + reads.stride * step_x)


def _with_taps(layer: LayerMap, change: Callable[[_Taps], _Taps], *, phases: bool = True) -> LayerMap:
    """The layer with other taps in each lane; without ``phases`` all lie in the row of phase 0."""
    reads, picture = _reads(layer), layer.picture
    assert picture is not None
    counts = np.zeros_like(layer.row_count)
    slots, weights, sources, targets, steps = [], [], [], [], []
    for lane in range(layer.lanes):
        taps = change(_taps(layer, lane))
        step_y, phase_y = np.divmod(taps.ky, reads.stride)
        step_x, phase_x = np.divmod(taps.kx, reads.stride)
        row = (taps.channel << reads.row_bits) | (phase_y * reads.phases[1] + phase_x) * phases
        slot = taps.rank * (picture[1] * picture[2]) - step_y * picture[2] - step_x
        order = np.argsort(row, kind="stable")
        counts[lane] = np.bincount(row, minlength=layer.n_rows)
        slots.append(slot[order])
        weights.append(layer.synapse_weight[lane][order])
        sources.append(layer.synapse_source[lane][order])
        targets.append(layer.synapse_target[lane][order])
        steps.append(np.stack([step_y, step_x])[:, order])
    starts = np.cumsum(counts, axis=1) - counts
    starts[counts == 0] = 0
    return replace(
        layer,
        row_start=starts,
        row_count=counts,
        synapse_slot=tuple(slots),
        synapse_weight=tuple(weights),
        synapse_source=tuple(sources),
        synapse_target=tuple(targets),
        synapse_step=tuple(steps),
    )


def _swap_channels(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Two channels of every lane are swapped in the taps, and nowhere else."""
    if layer.n_ranks < 2:
        return None
    order = np.arange(layer.n_ranks)
    one, other = rng.choice(layer.n_ranks, 2, replace=False)
    order[[one, other]] = order[[other, one]]
    return _with_taps(layer, lambda taps: replace(taps, rank=order[taps.rank]))


def _channel_overflow(layer: LayerMap) -> LayerMap | None:
    """Taps of every lane's last channel reach its first."""
    if layer.n_ranks < 2:
        return None
    return _with_taps(layer, lambda taps: replace(taps, rank=np.where(taps.rank == layer.n_ranks - 1, 0, taps.rank)))


def _flip_kernel(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """The kernel is turned round, as in a convolution of signal processing."""
    height, width = _kernel(layer)
    return _with_taps(layer, lambda taps: replace(taps, ky=height - 1 - taps.ky, kx=width - 1 - taps.kx))


def _transpose_kernel(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Height and width of the kernel are exchanged."""
    height, width = _kernel(layer)
    return _with_taps(layer, lambda taps: replace(taps, ky=taps.kx, kx=taps.ky)) if height == width > 1 else None


def _move_taps(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """All taps move along one side of the kernel, round its end."""
    side = int(rng.integers(2))
    name, size = ("ky", "kx")[side], _kernel(layer)[side]
    if size < 2:
        return None
    return _with_taps(layer, lambda taps: replace(taps, **{name: (getattr(taps, name) + 1) % size}))


def _one_phase(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """The taps of all phases of a stride lie in one row."""
    return _with_taps(layer, lambda taps: taps, phases=False) if _reads(layer).rows_per_channel > 1 else None


def _offsets_cut(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Offsets below 0 are 0, as if they did not count modulo the slots."""
    assert layer.picture is not None and layer.synapse_step is not None
    slots = []
    for lane in range(layer.lanes):
        step_y, step_x = layer.synapse_step[lane]
        offset = _taps(layer, lane).rank * (layer.picture[1] * layer.picture[2]) - step_y * layer.picture[2] - step_x
        slots.append(np.maximum(offset, 0))
    return replace(layer, synapse_slot=tuple(slots))


def _exchange_steps(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Steps along y and x stand in each other's fields, and nothing else is wrong."""
    assert layer.synapse_step is not None
    steps_y, steps_x = _reads(layer).steps
    # A step must fit the field that it is written into.
    if index_width(steps_y) != index_width(steps_x):
        return None
    return replace(layer, synapse_step=tuple(step[::-1] for step in layer.synapse_step))


# Of the first convolution.
TAP_DEFECTS: Sequence[tuple[str, Defect]] = (
    ("kernel turned round", _flip_kernel),
    ("height and width of the kernel exchanged", _transpose_kernel),
    ("taps moved along the kernel", _move_taps),
    ("taps of all phases in one row", _one_phase),
    ("offsets below 0 cut off", _offsets_cut),
    ("steps of y and x exchanged", _exchange_steps),
)

# Name, layer (from the end if negative), defect.
DEFECTS: Sequence[tuple[str, int, Defect]] = (
    ("two neurons swapped in the synapses alone", 0, _swap_slots),
    ("two sources swapped in the first layer", 0, _swap_rows),
    ("two sources swapped in the last layer", -1, _swap_rows),
    ("last synapse of a row dropped", 0, _drop_last_synapse),
    ("parameters of a lane rotated", 0, _rotate_parameters),
    ("leaks of a lane rotated", 0, _rotate_leaks),
    ("two lanes exchanged", 0, _exchange_lanes),
    ("slot overflow wraps", 0, _slot_overflow),
    ("weights lose their lowest bit", 0, _narrow_weights),
)
