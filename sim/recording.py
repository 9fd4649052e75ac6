"""What the monitors of the testbench recorded in one segment, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.contract.sidecar import LayerEntry, Sidecar, Word
from sim.harness import words
from sim.words import Field, extract, fields

Int = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerRecording:
    """Sweep clocks of one layer, in order.

    slots : int64 (n,); spikes : bool (n, lanes); membranes : int64 (n, lanes); currents : int64 (n, lanes), None of a
    layer without synaptic currents.
    """

    slots: Int
    spikes: npt.NDArray[np.bool_]
    membranes: Int
    currents: Int | None = None


@dataclass(frozen=True, eq=False)
class Recording:
    """One segment: from reset, or the end of the segment before it, to the end of its last sample.

    ``output`` has int64 columns kind, timestep, index, value, last, busy, cycle, cycle_count by beat.
    ``starts`` are the cycles in which first words were accepted. ``status`` are counters at the end;
    ``clocks`` (n_layers, 4) are the clocks in each phase (idle, accumulate, sweep, clear).
    """

    layers: tuple[LayerRecording, ...]
    output: dict[str, Int]
    starts: Int
    status: dict[str, int]
    clocks: Int


def read_recording(folder: Path, segment: int, sidecar: Sidecar) -> Recording:
    """Read the files that the testbench wrote for ``segment``."""
    status: dict[str, int] = {}
    clocks = []
    for line in (folder / f"segment{segment}_status.txt").read_text().splitlines():
        name, *values = line.split()
        if name.startswith("clocks"):
            clocks.append([int(value) for value in values])
        else:
            status[name] = int(values[0])
    return Recording(
        tuple(_read_layer(folder / f"segment{segment}_layer{entry.index}.bin", entry) for entry in sidecar.layers),
        _read_output(folder / f"segment{segment}_output.bin", sidecar.output_word),
        np.fromfile(folder / f"segment{segment}_starts.bin", "<u8").astype(np.int64),
        status,
        np.array(clocks, np.int64),
    )


def sample_arrays(
    recording: Recording, sidecar: Sidecar, timesteps: int, sample: int
) -> dict[str, npt.NDArray[Any]] | None:
    """What the layers did in the ``sample``-th sample of a segment, neurons in the frozen network's order.

    ``spikes<layer>`` bool and ``membranes<layer>`` int64, each (timesteps, n_out); None if a sweep is missing.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for entry, layer in zip(sidecar.layers, recording.layers, strict=True):
        clocks = timesteps * entry.n_slots
        part = slice(sample * clocks, (sample + 1) * clocks)
        if len(layer.slots) < part.stop:
            return None
        for name in ("spikes", "membranes"):
            swept = getattr(layer, name)[part].reshape(timesteps, entry.n_slots, -1)
            arrays[f"{name}{entry.index}"] = swept[:, entry.slot, entry.lane]
    return arrays


def _records(path: Path, size: int) -> npt.NDArray[np.uint32]:
    flat = np.fromfile(path, "<u4")
    return flat[: flat.size // size * size].reshape(-1, size)


def _read_layer(path: Path, entry: LayerEntry) -> LayerRecording:
    lanes, width, current = entry.lanes, entry.membrane_width, entry.current_width
    n_spike = words(lanes)
    records = _records(path, 1 + n_spike + words(lanes * (width + (current or 0))))
    spikes, states = records[:, 1 : 1 + n_spike], records[:, 1 + n_spike :]

    def by_lane(start: int, width: int) -> Int:
        return np.stack([extract(states, Field(start + lane * width, width, True)) for lane in range(lanes)], axis=1)

    return LayerRecording(
        records[:, 0].astype(np.int64),
        np.stack([extract(spikes, Field(lane, 1, False)) != 0 for lane in range(lanes)], axis=1),
        by_lane(0, width),
        None if current is None else by_lane(lanes * width, current),
    )


def _read_output(path: Path, word: Word) -> dict[str, Int]:
    records = _records(path, 4 + words(word.width))
    head = records[:, :4].astype(np.int64)
    columns = {name: extract(records[:, 4:], field) for name, field in fields(word).items()}
    return {
        **{
            name: columns.get(name, np.zeros(len(records), np.int64)) for name in ("kind", "timestep", "index", "value")
        },
        "cycle": head[:, 0] | head[:, 1] << 32,
        "cycle_count": head[:, 2],
        "busy": head[:, 3] & 1,
        "last": head[:, 3] >> 1,
    }
