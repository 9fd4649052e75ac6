"""The sections ``[hardware]``, ``[budget]``, ``[verify]`` and ``[synth]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from codesign.basics.errors import InputError, entries_for
from codesign.config.base import AUTO, Count, Family, Lanes, Section, Target
from codesign.config.sections import parse_section
from codesign.contract.early_exit import MAX_MARGIN
from codesign.contract.hdl_names import TopName
from codesign.contract.network import FrozenNetwork
from codesign.machine.choices import (
    DEFAULTS,
    INPUT_WORDS,
    QUEUE_DEPTHS,
    Choices,
    Pipeline,
    Shape,
    StateMemory,
    SynapseMemory,
    Synapses,
    check,
    keys,
)
from codesign.machine.goals import GOALS, Goal, expanded
from codesign.machine.schedules import Schedule


class CapacityConfig(Section):
    """What a loadable machine is to hold at most; what is left out is as the network needs that it is built with."""

    inputs: Count | None = Field(default=None, description="inputs")
    timesteps: Count | None = Field(default=None, description="timesteps")
    neurons: list[Count] | None = Field(default=None, description="neurons of each hidden layer")
    synapses: list[Count] | Count | None = Field(
        default=None,
        description="words of each lane's synapse memory, one number or one per layer; default: what the fullest lane "
        "needs, to the next power of two",
    )
    weight_bits: int | None = Field(default=None, ge=2, le=8)
    membrane_width: int | None = Field(default=None, ge=4, le=32)
    headroom: int = Field(default=1, ge=0, le=16, description="bits beyond this network's weighted sums and biases")


class HardwareConfig(Section):
    """Shape of the accelerator."""

    goal: Goal | None = Field(
        default=None,
        description="what the machine is to be; decides the keys below that are not given, and the lanes. "
        + "; ".join(f"{name}: {aim.text}" for name, aim in GOALS.items()),
    )
    lanes: list[Lanes] | Lanes | Literal["auto"] = Field(
        default=1,
        description="lanes of every layer, or one number per layer; auto, which is the default with a goal: as many as "
        "the goal asks for, from what the calibration samples make each layer do",
    )
    shape: Shape = Field(
        default=DEFAULTS.shape,
        description="streaming: an engine per layer, all at work at once; folded: one engine, layers in turn, smaller",
    )
    queue_depth: int = Field(
        default=DEFAULTS.queue_depth,
        ge=QUEUE_DEPTHS[0],
        le=QUEUE_DEPTHS[1],
        description="events that a lane may lag behind",
    )
    input_words: int = Field(
        default=DEFAULTS.input_words,
        ge=INPUT_WORDS[0],
        le=INPUT_WORDS[1],
        description="words of an input beat; boards' links send one",
    )
    event_streams: Literal[1, 2, 4] = Field(
        default=1,
        description="events that each layer takes in a clock: a lane walks the rows of as many at once, out of row "
        "tables and synapse memories of their own; for many lanes, which starve on one event a clock",
    )
    schedule: Schedule | Literal["auto"] | list[Schedule] = Field(
        default="timestep",
        description="how often a layer walks a source's row, one word for all layers or one for each: timestep, in "
        "every timestep in which the source fires; sample, once a sample for all timesteps, which takes masks, a sum "
        "for each timestep, and the whole sample before the layer says anything; auto: what the goal makes of the "
        "calibration samples, layer by layer. Input currents are walked once in any case",
    )
    input_checks: bool = Field(
        default=True,
        description="false: the host keeps the rules of the input, and what breaks them is undefined; boards need true",
    )
    counters: bool = Field(default=True, description="count saturations and clocks; false: the ports stay 0")
    state_memory: StateMemory = Field(
        default="auto", description="membranes in block or distributed memory, or as the synthesis tool likes"
    )
    synapse_memory: SynapseMemory = Field(
        default="auto",
        description="spram: synapses in single-port RAM (iCE40 UP5K), which needs loadable = true; the machine starts "
        "without a network, and its first load is the bundle's boot.bin",
    )
    synapses: Synapses = Field(
        default="plain",
        description="compact: rows in groups, gaps for slots and codes for weights, whichever take the fewest bits in "
        "each layer; less memory for more logic",
    )
    pipeline: Pipeline = Field(
        default="deep",
        description="short: fewer registers in the lanes, so fewer cells and clocks, and a slower clock",
    )
    lockstep: bool = Field(
        default=False,
        description="a layer's lanes walk each row together, from one memory: less logic and fewer memories, and lanes "
        "wait for each other (shape 'streaming', plain synapses)",
    )
    spike_fifos: bool = Field(
        default=True,
        description="FIFOs behind the layers; false: a layer waits for the one behind it",
    )
    output_spikes: bool = Field(
        default=True,
        description="send the last layer's spikes; false: only counts, which then lie beside the membranes, and the "
        "decision (readout spike_count)",
    )
    block_rom_bits: int = Field(
        default=DEFAULTS.block_rom_bits,
        ge=0,
        description="rows, synapses and parameters of as many bits ask for block memory; less is left to the tool",
    )
    early_exit: Literal["off", "certain"] | Annotated[int, Field(ge=1, le=MAX_MARGIN)] = Field(
        default="off",
        description="decide a sample before its last timestep: certain, when no class can overtake any more (readout "
        "spike_count), or when the first class leads by this margin; adds latency counters",
    )
    name: TopName = Field(default="snn", description="name of the top module")
    loadable: bool = Field(
        default=False, description="other networks can be loaded while the machine runs (shape 'streaming')"
    )
    capacity: CapacityConfig = CapacityConfig()

    @model_validator(mode="after")
    def _loads(self) -> HardwareConfig:
        if not self.loadable and self.capacity != CapacityConfig():
            raise ValueError("capacity is that of a loadable machine; it needs loadable = true")
        return self

    @property
    def choices(self) -> Choices:
        """What the machine is, beside its lanes and capacity."""
        return Choices(**{key: getattr(self, key) for key in keys()})


Limit = Annotated[int, Field(ge=1)]


class BudgetConfig(Section):
    """Hardware that the network must fit: density falls, and weight bits and lanes are chosen, until it does.

    A board, whose link counts too, or a device out of the tools' targets; each with narrower limits where given. Memory
    and cycles can be limited without a device. train.rewiring.target_density is then only the lowest density; the
    fewest weight bits decide where density stops, and the trained network gets the most that fit.
    """

    board: str | None = Field(default=None, description="a board, see `codesign boards`")
    target: Target | None = Field(default=None, description="a device instead of a board")
    lut: Limit | None = Field(default=None, description="logic: ICESTORM_LC (iCE40) or TRELLIS_COMB (ECP5)")
    bram: Limit | None = Field(default=None, description="native memory blocks: 4 Kbit (iCE40) or 18 Kbit (ECP5)")
    memory_bits: Limit | None = Field(default=None, description="bits of all memories, whatever they are built from")
    cycles: Limit | None = Field(
        default=None,
        description="mean clocks from the first input to the decision; with early exit as if samples were whole",
    )
    latency_us: float | None = Field(
        default=None, gt=0, description="the same as a time, at the clock of the board or at clock_mhz"
    )
    clock_mhz: float | None = Field(
        default=None, gt=0, description="clock that a target must reach; without a target, what latency_us assumes"
    )
    weight_bits: list[Annotated[int, Field(ge=2, le=8)]] = Field(
        default=[4, 5, 6], min_length=1, description="choices; the most bits that fit are taken"
    )
    lanes: list[Lanes] = Field(
        default=[1, 2, 4, 8],
        min_length=1,
        description="choices, for every layer; the most that fit are taken, or the fewest that meet a limit in time",
    )

    @property
    def active(self) -> bool:
        """True if there is a limit."""
        return any(getattr(self, name) is not None for name in (*self._sources, *self._limits))

    _sources = ("board", "target")
    _limits = ("lut", "bram", "memory_bits", "cycles", "latency_us")

    @model_validator(mode="after")
    def _consistent(self) -> BudgetConfig:
        given = [name for name in type(self).model_fields if name in self.model_fields_set]
        if given and not self.active:
            raise ValueError(f"{given[0]} needs a limit: board, target, {', '.join(self._limits)}")
        if self.board is not None and self.target is not None:
            raise ValueError("board and target exclude each other")
        for name in ("lut", "bram"):
            if getattr(self, name) is not None and self.board is None and self.target is None:
                raise ValueError(f"{name} needs a board or a target, whose units it counts")
        if self.cycles is not None and self.latency_us is not None:
            raise ValueError("cycles and latency_us exclude each other")
        if self.clock_mhz is not None and (self.board is not None or (self.target is None and self.latency_us is None)):
            raise ValueError("clock_mhz needs a target or latency_us; a board has its own clock")
        if self.latency_us is not None and self.board is None and self.clock_mhz is None:
            raise ValueError("latency_us needs a board, or clock_mhz")
        return self


class VerifyConfig(Section):
    """What is simulated."""

    samples: Count | None = Field(default=None, description="test samples simulated; default all")
    stress_samples: Count = Field(default=16, description="samples repeated under random backpressure and resets")
    seed: int = Field(default=1, ge=0)


class SynthConfig(Section):
    """Which tools give area and clock figures."""

    families: list[Family] = Field(default=["ecp5", "ice40"], description="area from yosys")
    fmax: list[Target] = Field(default=["ecp5-25f"], description="clock and placed area from nextpnr")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[1, 2, 3], min_length=1, description="nextpnr seeds")


def hardware_config(network: FrozenNetwork, **options: Any) -> HardwareConfig:
    """The section ``[hardware]`` for a frozen network that comes without a configuration.

    ``options`` are the section's keys; a ``goal`` decides the others as far as they go with this network, and with them
    the lanes. Raises InputError for keys and values that there are none of, UnsupportedError for choices that do not go
    together or with the network.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> codesign.hardware_config(network, goal="small").shape, codesign.hardware_config(network, lanes=2).lanes
    ('folded', 2)
    >>> codesign.hardware_config(network, lane=2)
    Traceback (most recent call last):
    codesign.basics.errors.InputError: hardware: unknown key 'lane'; did you mean 'lanes'?
    """
    hardware = parse_section(HardwareConfig, options, "hardware")
    if hardware.goal is not None:
        given = {key: getattr(hardware, key) for key in keys() if key in options}
        structured = not network.is_plain_chain
        decided = expanded(hardware.goal, given, readout=network.readout, structured=structured)
        hardware = parse_section(HardwareConfig, {"lanes": AUTO, **decided, **options}, "hardware")
    count = len(network.layers)
    if isinstance(hardware.lanes, list) and len(hardware.lanes) != count:
        raise InputError(entries_for("hardware.lanes", len(hardware.lanes), count))
    check(hardware.choices, network, lanes=lanes_per_layer(hardware, count))
    return hardware


def lanes_per_layer(config: HardwareConfig, n_layers: int) -> list[int] | None:
    """Lanes of each layer; one number stands for all. None if they are to be chosen."""
    if config.lanes == "auto":
        return None
    return list(config.lanes) if isinstance(config.lanes, list) else [config.lanes] * n_layers
