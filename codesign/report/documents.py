"""What the report reads of what stages leave in a run directory, and the check that it is there.

The stages write more than that; what the report does not read is not looked at. ``None``: not measured.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codesign.basics.errors import InputError

Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Whole = Annotated[int, Field(ge=0, le=1 << 62)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class FineTuning(_Document):
    epoch: Annotated[int, Field(ge=0, le=1 << 31)]
    validation_accuracy: Number | None = None
    validation_loss: Number | None = None


class Freezing(_Document):
    """What freezing has recorded in the manifest. Lists are by layer."""

    fine_tuning: list[FineTuning] = []
    accuracy_validation: Number | None = None
    accuracy_validation_float: Number | None = None
    classes: Annotated[list[Annotated[str, Field(max_length=1 << 12)]], Field(max_length=1 << 12)] = []
    sample_shape: Annotated[list[Annotated[int, Field(ge=1, le=1 << 31)]], Field(max_length=8)] = []
    neurons: list[Whole] = []
    synapses: list[Whole] = []
    removed_neurons: list[Whole] = []
    neurons_without_path: list[Whole] = []
    weights_rounded_to_zero: list[Whole] = []


Share = Annotated[float, Field(ge=0, le=1)]


class ImportChange(_Document):
    where: str
    text: str


class ImportedLayer(_Document):
    layer: str
    float_spikes: Whole
    frozen_spikes: Whole
    jaccard: Number
    f1: Number
    lag: Annotated[int, Field(ge=-1000, le=1000)]


class ImportMeasured(_Document):
    samples: Whole
    layers: list[ImportedLayer]
    same_decisions: Share
    accuracy_float: Share | None
    accuracy_frozen: Share | None
    saturations: Whole


class Variant(_Document):
    """A row of what bits, or densities, cost."""

    bits: Whole | None = None
    density: Share | None = None
    synapses: Whole
    same_decisions: Share
    accuracy: Share | None


class Variants(_Document):
    samples: Whole
    accuracy_float: Share | None = None
    rows: list[Variant]
    tuned: list[Variant] | None = None


class BitsChosen(_Document):
    bits: list[Whole]
    samples: Whole
    accuracy_float: Share
    accuracy: Share


class Pruning(_Document):
    density: Share
    weights: list[Whole]
    kept: list[Whole]
    trade_off: Variants | None


class ImportSamples(_Document):
    training: Whole
    choosing: Whole
    calibration: Whole
    reported: Whole


class ImportTuning(_Document):
    epochs: Whole
    epoch: Whole
    history: list[FineTuning]


class Imported(_Document):
    """``import.json``."""

    network_hash: str
    file: str
    source: str
    supported: list[str]
    changed: list[ImportChange]
    unsupported: list[str]
    samples: ImportSamples | None = None
    measured: ImportMeasured | None = None
    bits_chosen: BitsChosen | None = None
    bit_costs: Variants | None = None
    fine_tuning: ImportTuning | None = None
    pruning: Pruning | None = None
    note: str | None = None


class Phase(_Document):
    samples: Whole | None = None
    mismatches: Whole | None = None
    comparisons: dict[str, Whole] = {}


class LayerClocks(_Document):
    synaptic_operations: Number
    lane_use: Number | None
    accumulate_clocks: Number | None = None
    sweep_clocks: Number | None = None
    idle_clocks: Number | None = None


class Decoder(_Document):
    equal: bool
    compared: Whole
    differences: Whole
    first: Any = None


class ToldClocks(_Document):
    """Samples whose clocks were told without simulation: how many were compared, and how many are equal."""

    compared: Whole
    equal: Whole
    first: str | None


class Verification(_Document):
    """``verify/verification.json``."""

    network_hash: str
    files_hash: str = ""
    passed: bool
    samples: Annotated[int, Field(ge=0, le=1 << 31)]
    mismatches: Whole
    accuracy_hardware: Number | None = None
    saturations: Whole | None = None
    simulated_cycles: Whole | None = None
    cycles_per_sample: Number | None = None
    latency_cycles: Number | None = None
    interval_cycles: Number | None = None
    comparisons: dict[str, Whole]
    first_divergence: dict[str, Any] | None
    decoder: Decoder
    phases: dict[str, Phase]
    layers: list[LayerClocks]
    told_clocks: ToldClocks | None = None


class Mutant(_Document):
    kind: str
    caught: bool


class Control(_Document):
    caught: bool
    error: str | None


class Mutants(_Document):
    """``verify/mutants.json``."""

    mutants: list[Mutant]
    control: Control


class Cells(_Document):
    lut: Number
    ff: Number
    bram: Number
    dsp: Number
    lut_cells: Number


class Placed(_Document):
    lut: Number | None = None
    ff: Number | None = None
    bram: Number | None = None
    dsp: Number | None = None
    fmax_mhz: Number | None
    seeds: dict[str, Number]
    device: str
    speed_grade: str | None
    package: str | None
    reason: str | None


class BlockMemories(_Document):
    summary: str


class Synthesis(_Document):
    """``synth/synth.json``."""

    network_hash: str
    sources: dict[str, str] = {}
    area: dict[str, Cells]
    placed: dict[str, Placed]
    block_ram: dict[str, BlockMemories] | None = None


class EstimatedPart(_Document):
    component: str
    layer: int | None
    lut: Number
    ff: Number
    bram: Number
    dsp: Number


class EstimatedArea(_Document):
    lut: Number | None
    ff: Number | None
    bram: Number | None
    dsp: Number | None
    error: dict[str, dict[str, Number]] | None
    parts: list[EstimatedPart]


class EstimatedEnergy(_Document):
    sample_pj: Number
    source: str
    not_counted: str


class ScheduleCost(_Document):
    walks: Number
    clocks: Number
    memory_bits: Number


class LayerSchedules(_Document):
    schedule: str
    timestep: ScheduleCost | None
    sample: ScheduleCost | None


class EstimatedCycles(_Document):
    latency_cycles: Number
    interval_cycles: Number | None
    samples: Whole | None = None
    exact: bool = False
    synaptic_operations: list[Number] = []


class DenseMachine(_Document):
    memory_bits: dict[str, Whole]
    area: dict[str, EstimatedArea]
    cycles: EstimatedCycles | None
    energy: EstimatedEnergy | None


class Dense(_Document):
    """The same network with every connection."""

    synapses: Whole
    weight_memory_bits: Whole
    assumed: str
    estimate: DenseMachine | None
    reason: str | None


class Estimate(_Document):
    """``estimate.json``."""

    network_hash: str
    lanes: list[Whole] = []
    early_exit: str | Whole | None = None
    latency_cycles: Number | None = None
    interval_cycles: Number | None = None
    memory_bits: dict[str, Whole] = {}
    area: dict[str, EstimatedArea]
    cycles: EstimatedCycles | None = None
    energy: EstimatedEnergy | None = None
    schedules: list[LayerSchedules] | None = None
    dense: Dense | None = None


class Build(_Document):
    """``build/<board>/build.json``."""

    network_hash: str
    sources: dict[str, str] = {}
    board: str
    device: str
    used: dict[str, Number]
    budget: dict[str, Number]
    bitstream: str
    bitstream_sha256: str
    clock_mhz: Number
    fmax_mhz: Number


class EpochLayer(_Document):
    density: Number | None = None
    index: Number | None = None
    firing_rate: Number | None = None


class EpochBudget(_Document):
    weight_bits: Whole
    estimated: dict[str, Number]
    needed: dict[str, Number]
    fits: bool


class Epoch(_Document):
    """A row of ``metrics.jsonl``."""

    epoch: Annotated[int, Field(ge=0, le=1 << 31)]
    density: Number | None = None
    loss: Number | None = None
    validation_loss: Number | None = None
    training_accuracy: Number | None = None
    validation_accuracy: Number | None = None
    layers: list[EpochLayer] | None = None
    budget: EpochBudget | None = None


def check(document: dict[str, Any], form: type[BaseModel], where: str) -> dict[str, Any]:
    """The document, if it has the form. Raises InputError naming the first value that has not."""
    try:
        form.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {place}: {first['msg']}; make it again") from None
    return document
