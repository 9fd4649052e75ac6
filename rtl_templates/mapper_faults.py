"""Faults of the mapper: bundles as a mapper with a defect would give them, of a machine that was delivered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from codesign.mapping import HardwareMap, LayerMap, encoded
from codesign.network import FrozenNetwork
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
    return [
        MapperFault(name, range(len(mapping.layers))[at], defect, network, mapping, top) for name, at, defect in DEFECTS
    ]


def _in_order(layer: LayerMap) -> LayerMap:
    """The same rows with their synapses one after the other by address and slot, as the mapper leaves them."""
    slots, weights, sources, targets = [], [], [], []
    for lane in range(layer.lanes):
        starts, counts = layer.row_start[lane], layer.row_count[lane]
        parts = [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        order = np.concatenate([part[np.argsort(layer.synapse_slot[lane][part], kind="stable")] for part in parts])
        order = order.astype(np.int64)
        slots.append(layer.synapse_slot[lane][order])
        weights.append(layer.synapse_weight[lane][order])
        sources.append(layer.synapse_source[lane][order])
        targets.append(layer.synapse_target[lane][order])
    row_start = np.cumsum(layer.row_count, axis=1) - layer.row_count
    row_start[layer.row_count == 0] = 0
    return replace(
        layer,
        row_start=row_start,
        synapse_slot=tuple(slots),
        synapse_weight=tuple(weights),
        synapse_source=tuple(sources),
        synapse_target=tuple(targets),
    )


def _has_repeated_slots(layer: LayerMap) -> bool:
    """True if a row reaches a slot twice, which gaps cannot say."""
    for lane in range(layer.lanes):
        rows = np.repeat(np.arange(layer.n_addresses), layer.row_count[lane])
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
    if layer.n_in < 2:
        return None
    one, other = (int(layer.source_address[int(k)]) for k in rng.choice(layer.n_in, 2, replace=False))
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
    """The parameters of a lane's slots are rotated by one."""
    if layer.n_slots < 2 or (layer.threshold is not None and layer.bias is not None):
        return None
    lane = int(rng.integers(layer.lanes))
    threshold, bias = layer.slot_threshold.copy(), layer.slot_bias.copy()
    threshold[lane], bias[lane] = np.roll(threshold[lane], 1), np.roll(bias[lane], 1)
    return replace(layer, slot_threshold=threshold, slot_bias=bias)


def _exchange_lanes(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Two lanes get each other's rows and synapses."""
    if layer.lanes < 2:
        return None
    order = np.arange(layer.lanes)
    one, other = (int(k) for k in rng.choice(layer.lanes, 2, replace=False))
    order[[one, other]] = order[[other, one]]
    parts = {
        name: tuple(getattr(layer, name)[lane] for lane in order)
        for name in ("synapse_slot", "synapse_weight", "synapse_source", "synapse_target")
    }
    return replace(layer, row_start=layer.row_start[order], row_count=layer.row_count[order], **parts)


def _slot_overflow(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Synapses of every lane's last slot wrap to slot 0, as if a lane had been filled beyond its slots."""
    if layer.n_slots < 2:
        return None
    slots = tuple(np.where(slot == layer.n_slots - 1, 0, slot) for slot in layer.synapse_slot)
    return replace(layer, synapse_slot=slots)


def _narrow_weights(layer: LayerMap, rng: np.random.Generator) -> LayerMap | None:
    """Weights lose their lowest bit."""
    return replace(layer, synapse_weight=tuple(weight >> 1 << 1 for weight in layer.synapse_weight))


# Name, layer (from the end if negative), defect.
DEFECTS: Sequence[tuple[str, int, Defect]] = (
    ("two neurons swapped in the synapses alone", 0, _swap_slots),
    ("two sources swapped in the first layer", 0, _swap_rows),
    ("two sources swapped in the last layer", -1, _swap_rows),
    ("last synapse of a row dropped", 0, _drop_last_synapse),
    ("parameters of a lane rotated", 0, _rotate_parameters),
    ("two lanes exchanged", 0, _exchange_lanes),
    ("slot overflow wraps", 0, _slot_overflow),
    ("weights lose their lowest bit", 0, _narrow_weights),
)
