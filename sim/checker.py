"""Compares what the accelerator did with what the golden model says, value by value, and counts the comparisons.

Pure functions on arrays: no simulator is involved, so that the checker itself can be tested.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import LayerEntry, Sidecar
from sim.recording import LayerRecording, Recording


@dataclass(frozen=True)
class Divergence:
    """The first differing value. Fields that do not apply to ``what`` are None.

    sample : index within the verified stimulus; ``phase`` names the part of the testbench.
    """

    sample: int | None
    timestep: int | None
    layer: int | None
    neuron: int | None
    what: str
    expected: Any
    got: Any
    phase: str = ""
    waveform: str | None = None

    @property
    def order(self) -> tuple[float, ...]:
        """Earliest first: sample, timestep, layer, neuron; what has no timestep comes at the sample's end. A machine
        that stands still comes before what it then does not do."""
        far = float("inf")
        sample, *place = (
            far if value is None else value for value in (self.sample, self.timestep, self.layer, self.neuron)
        )
        return (sample, self.what != "hang", *place)

    def __str__(self) -> str:
        place = ", ".join(
            f"{name} {value}"
            for name in ("phase", "sample", "timestep", "layer", "neuron")
            if (value := getattr(self, name)) not in (None, "")
        )
        return f"{place}: {self.what}: expected {self.expected}, got {self.got}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Comparison:
    """Running count of compared and differing values."""

    phase: str
    counts: dict[str, int] = field(default_factory=dict)
    mismatches: int = 0
    first: Divergence | None = None

    def note(self, divergence: Divergence) -> None:
        """Remember the earliest divergence."""
        if self.first is None or divergence.order < self.first.order:
            self.first = divergence

    def values(
        self,
        what: str,
        expected: npt.NDArray[Any],
        got: npt.NDArray[Any],
        axes: tuple[str, ...],
        samples: npt.NDArray[np.integer] | None = None,
        where: npt.NDArray[np.bool_] | None = None,
        **place: int,
    ) -> None:
        """Compare two arrays; ``axes`` names their dimensions (sample, timestep, neuron).

        ``where`` : elements that are compared, of the arrays' shape; default all.
        """
        chosen = np.ones(expected.shape, bool) if where is None else where
        self.counts[what] = self.counts.get(what, 0) + int(np.count_nonzero(chosen))
        different = np.flatnonzero((expected != got) & chosen)
        if different.size == 0:
            return
        self.mismatches += int(different.size)
        at = np.unravel_index(int(different[0]), expected.shape)
        coordinates: dict[str, Any] = {
            "sample": None, "timestep": None, "layer": None, "neuron": None, **place, **dict(zip(axes, map(int, at)))
        }  # fmt: skip
        if samples is not None and coordinates["sample"] is not None:
            coordinates["sample"] = int(samples[coordinates["sample"]])
        self.note(Divergence(**coordinates, what=what, expected=int(expected[at]), got=int(got[at]), phase=self.phase))

    def value(self, what: str, expected: int, got: int, **place: int) -> None:
        """Compare one value."""
        self.counts[what] = self.counts.get(what, 0) + 1
        if expected != got:
            self.mismatches += 1
            coordinates: dict[str, Any] = {"sample": None, "timestep": None, "layer": None, "neuron": None, **place}
            self.note(Divergence(**coordinates, what=what, expected=expected, got=got, phase=self.phase))


def check_segment(
    comparison: Comparison,
    network: FrozenNetwork,
    sidecar: Sidecar,
    expected: golden.Trace,
    recording: Recording,
    samples: npt.NDArray[np.integer],
    *,
    protocol_error: int = 0,
    hung: bool = False,
) -> None:
    """Compare a recorded segment, which started with a reset, with the golden trace of the same samples.

    ``samples`` are the indices by which samples are reported. Compared: every spike, stored membrane and synaptic
    current of every layer and timestep, the sweep's order, output spikes as sets per timestep, readout values,
    decisions, the order and the unused fields of output words, the saturation count, protocol errors, the
    network hash, the cycle counter, and that nothing follows the last decision.

    With early exit (``expected`` is a trace with it) spikes and membranes are those of the timesteps that count; the
    others depend on when the input came. There must be sweeps for all, and no output spikes of the others. The
    saturation count is at least that of the timesteps that count, and equal if all of them do. Decisions say after
    which timestep they were made, and the counters of exits, timesteps and latency are compared.
    """
    count = len(samples)
    exits = sidecar.exits_early
    saturations = int(expected.saturations.sum())
    if hung:
        done = min(int(recording.output["last"].sum()), count - 1)
        comparison.value("hang", 0, 1, sample=int(samples[done]))
    for entry, layer in zip(sidecar.layers, recording.layers, strict=True):
        _check_layer(comparison, entry, layer, expected, samples)
    _check_output(
        comparison,
        network,
        expected,
        recording.output,
        samples,
        exits=exits,
        output_spikes=sidecar.output_spikes,
    )
    status = recording.status
    counters = sidecar.counters
    if not counters or (expected.exits == network.timesteps - 1).all():
        wanted = saturations & 0xFFFFFFFF if counters else 0
        comparison.value("saturation_count", wanted, status["saturation_count"])
    else:
        comparison.value("saturations_missed", 0, max(0, saturations - status["saturation_count"]))
    if exits:
        _check_exit_counters(comparison, network, expected, recording, counters=counters)
    comparison.value("protocol_error", protocol_error, status["protocol_error"])
    comparison.value("network_hash", int(network.hash[:16], 16), status["network_hash"])
    comparison.value("unstable_output_words", 0, status["unstable"])
    comparison.value("busy_after_last_decision", 0, status["busy"])
    comparison.value("first_words", count, len(recording.starts))
    # The counter must advance by one a clock, whatever its value at the start; or stand still, if there is none.
    output = recording.output
    cycles = np.append(output["cycle"], status["cycle"])
    counter = np.append(output["cycle_count"], status["cycle_count"])
    elapsed, counted = int(cycles[-1] - cycles[0]) & 0xFFFFFFFF, int(counter[-1] - counter[0]) & 0xFFFFFFFF
    comparison.value("cycle_count", elapsed if counters else 0, counted)
    if len(output["cycle"]):
        comparison.value("busy_at_decision", int(output["last"].sum()), int((output["busy"] & output["last"]).sum()))


def _check_exit_counters(
    comparison: Comparison, network: FrozenNetwork, expected: golden.Trace, recording: Recording, *, counters: bool
) -> None:
    """Exits and timesteps of all samples, and the latency of the last one; all 0 without ``counters``."""
    status = recording.status
    decided = recording.output["cycle"][recording.output["last"] == 1]
    latency = int(decided[-1] - recording.starts[-1]) if decided.size and recording.starts.size else 0
    early = int((expected.exits < network.timesteps - 1).sum())
    timesteps = int((expected.exits + 1).sum())
    for name, wanted in (("exit_count", early), ("timestep_count", timesteps), ("latency_cycles", latency)):
        comparison.value(name, wanted if counters else 0, status[name])


def _check_layer(
    comparison: Comparison,
    entry: LayerEntry,
    recording: LayerRecording,
    expected: golden.Trace,
    samples: npt.NDArray[np.integer],
) -> None:
    n_slots, index = entry.n_slots, entry.index
    spikes = expected.spikes[index]
    count, timesteps, n_out = spikes.shape
    counts = np.broadcast_to((np.arange(timesteps) <= expected.exits[:, None])[:, :, None], spikes.shape)
    sweeps = count * timesteps
    slots = recording.slots
    wanted = np.tile(np.arange(n_slots), sweeps)
    shared = min(slots.size, wanted.size)
    wrong = np.flatnonzero(slots[:shared] != wanted[:shared])
    whole = (int(wrong[0]) if wrong.size else shared) // n_slots
    comparison.value("sweep_order", 0, int(wrong.size), layer=index)
    comparison.value("sweep_clocks", int(wanted.size), int(slots.size), layer=index)
    if whole < sweeps:
        comparison.note(
            Divergence(
                int(samples[whole // timesteps]),
                whole % timesteps,
                index,
                None,
                "sweep",
                f"slots 0..{n_slots - 1} once",
                slots[whole * n_slots : (whole + 1) * n_slots].tolist()[:16],
                comparison.phase,
            )
        )
    lane = np.asarray(entry.lane, np.int64)
    slot = np.asarray(entry.slot, np.int64)
    lanes = recording.spikes.shape[1]
    kept = whole * n_slots
    recorded = [
        ("spikes", spikes, recording.spikes),
        ("membranes", expected.membranes[index], recording.membranes),
    ]
    if recording.currents is not None:
        recorded.append(("currents", expected.currents[index], recording.currents))
    for what, want, have in recorded:
        # Missing sweeps are compared too, against a value that differs everywhere.
        table = have[:kept].reshape(whole, n_slots, lanes)[:, slot, lane]
        got = np.where(want.reshape(sweeps, n_out) == 0, 1, 0).astype(np.int64)
        got[:whole] = table
        comparison.values(
            what,
            want.astype(np.int64),
            got.reshape(want.shape),
            ("sample", "timestep", "neuron"),
            samples,
            counts,
            layer=index,
        )


def _check_output(
    comparison: Comparison,
    network: FrozenNetwork,
    expected: golden.Trace,
    output: dict[str, npt.NDArray[np.int64]],
    samples: npt.NDArray[np.integer],
    *,
    exits: bool,
    output_spikes: bool,
) -> None:
    count, timesteps, n_outputs = expected.spikes[-1].shape
    last_layer = len(network.layers) - 1
    kind, timestep, index, value = (output[name] for name in ("kind", "timestep", "index", "value"))
    sample = np.cumsum(output["last"]) - output["last"]
    inside = sample < count
    comparison.value("words_after_last_decision", 0, int((~inside).sum()))

    # Spikes: every cell (sample, timestep, class) must hold exactly as many words as the golden model has spikes, or
    # none at all if they are not sent.
    of_spike = inside & (kind == 0)
    in_range = of_spike & (timestep < timesteps) & (index < n_outputs)
    comparison.value("output_words_out_of_range", 0, int((of_spike & ~in_range).sum()))
    cells = (sample * timesteps + timestep) * n_outputs + index
    got = np.bincount(cells[in_range], minlength=count * timesteps * n_outputs).reshape(expected.spikes[-1].shape)
    counts = (np.arange(timesteps) <= expected.exits[:, None]) & output_spikes
    comparison.values(
        "output_spikes",
        (expected.spikes[-1] & counts[:, :, None]).astype(np.int64),
        got,
        ("sample", "timestep", "neuron"),
        samples,
        layer=last_layer,
    )

    # Values: the k-th word of kind 1 of a sample belongs to class k.
    of_value = inside & (kind == 1)
    rank = _rank_within(sample, of_value)
    values = np.where(expected.values == 0, 1, 0)
    classes = np.tile(np.arange(n_outputs), (count, 1))
    got_classes = np.full((count, n_outputs), -1, np.int64)
    fits = of_value & (rank < n_outputs)
    values[sample[fits], rank[fits]] = value[fits]
    got_classes[sample[fits], rank[fits]] = index[fits]
    comparison.values("values", expected.values, values, ("sample", "neuron"), samples, layer=last_layer)
    comparison.values("value_classes", classes, got_classes, ("sample", "neuron"), samples, layer=last_layer)
    comparison.value("extra_value_words", 0, int((of_value & ~fits).sum()))

    of_decision = inside & (kind == 2)
    decisions = np.full(count, -1, np.int64)
    decisions[sample[of_decision]] = index[of_decision]
    comparison.values("decisions", expected.decisions.astype(np.int64), decisions, ("sample",), samples)
    made = np.full(count, -1, np.int64)
    made[sample[of_decision]] = timestep[of_decision]
    comparison.values(
        "decision_timesteps", expected.exits if exits else np.zeros_like(made), made, ("sample",), samples
    )

    # Framing: one decision a sample, on its last word; kinds in order; timesteps in order; unused fields 0.
    number = np.bincount(sample[of_decision], minlength=count)[:count]
    comparison.values("decision_words", np.ones(count, np.int64), number, ("sample",), samples)
    comparison.value("tlast", 0, int((inside & ((kind == 2) != (output["last"] == 1))).sum()))
    same = inside[1:] & (sample[1:] == sample[:-1])
    order = kind * timesteps + np.where(kind == 0, timestep, 0)
    comparison.value("output_order", 0, int((same & (order[1:] < order[:-1])).sum()))
    unused = ((kind != 0) & (kind != 2) & (timestep != 0)) | ((kind != 1) & (value != 0)) | (kind > 2)
    comparison.value("unused_fields", 0, int((inside & unused).sum()))


def _rank_within(sample: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Position of each chosen word among the chosen ones of its sample."""
    running = np.cumsum(chosen)
    before = np.zeros(int(sample.max(initial=0)) + 1, np.int64)
    first = np.flatnonzero(np.diff(sample, prepend=-1) > 0) if sample.size else np.zeros(0, np.int64)
    before[sample[first]] = running[first] - chosen[first]
    return running - 1 - before[sample]


def expected_counts(network: FrozenNetwork, n_samples: int, n_timesteps: int | None = None) -> dict[str, int]:
    """How many values of each kind a complete comparison of ``n_samples`` in one segment must make.

    ``n_timesteps`` : timesteps that count, of all samples together; default all.
    """
    steps = network.timesteps * n_samples if n_timesteps is None else n_timesteps
    neurons = sum(layer.n_out for layer in network.layers) * steps
    with_current = sum(layer.n_out for layer in network.layers if layer.has_current) * steps
    return {
        **({"currents": with_current} if with_current else {}),
        "spikes": neurons,
        "membranes": neurons,
        "output_spikes": network.n_outputs * network.timesteps * n_samples,
        "values": network.n_outputs * n_samples,
        "decisions": n_samples,
        "decision_timesteps": n_samples,
    }


def merge_counts(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Sum of counts by name."""
    total: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
