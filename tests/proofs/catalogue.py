# amaranth: UnusedElaboratable=no

"""All proofs: what is shown, of which component, how far it reaches, and the defects that break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from amaranth.hdl import unsigned

from codesign.contract.network import FrozenLayer, FrozenNetwork, InputCoding, Leak
from codesign.machine.choices import Choices, Pipeline
from codesign.machine.encoding import PLAIN, Encoding
from codesign.machine.mapping import map_network
from codesign.machine.plan import Clocks, CollectorPlan, plan_machine
from rtl_templates.accelerator import Accelerator
from rtl_templates.accumulation import Accumulation
from rtl_templates.beats import BeatSplitter
from rtl_templates.collector import EventCollector
from rtl_templates.engine import LayerEngine
from rtl_templates.fetcher import SynapseFetcher
from rtl_templates.folded import FoldedEngine
from rtl_templates.guard import InputGuard
from rtl_templates.memories import StreamFifo
from rtl_templates.readout import Readout
from rtl_templates.serializer import SpikeSerializer

from .collector import CollectorHarness
from .defects import Defect, Edit, Narrower
from .engines import DecisionHarness, EngineHarness
from .harness import Harness
from .lif import COMPARES, BankHarness, bank_layer, every_mode
from .streams import PortRuleHarness, ProgressHarness, RuleHarness


@dataclass(frozen=True)
class Proof:
    """One proof.

    name : as `python -m tests.proofs NAME` takes it.
    states : the property. of : component and widths.
    mode : `prove` (k-induction: at every time) or `bmc` (within ``depth`` clocks of the start).
    start : `reset` (from registers and memories that held anything) or `any state`.
    harness : makes the harness. defects : what must break it.
    cover_depth : clocks within which every cover is reached.
    fast : part of the default tests.
    """

    name: str
    states: str
    of: str
    mode: str
    depth: int
    harness: Callable[[], Harness]
    defects: tuple[Defect, ...]
    cover_depth: int
    start: str = "reset"
    fast: bool = False


_SUFFIX: dict[Pipeline, str] = {"deep": "", "short": "-short"}
_REMARK: dict[Pipeline, str] = {"deep": "", "short": ", short pipeline"}
FLIP = {">=": ">", ">": ">="}
LEAKS = {
    "none": (Leak(), Leak("shift", 1)),
    "shift": (Leak("shift", 2), Leak("shift", 3)),
    "multiply": (Leak("multiply", 3, 5), Leak("multiply", 3, 6)),
}
# By membrane width. 16 bits and 8-bit weights are what a trained network has.
SIZES: dict[int, dict[str, Any]] = {
    4: {"weights": [3, -4, 3, -3], "threshold": [5, 9], "bias": [0, -3], "reset_value": -2, "fraction_bits": 1},
    10: {
        "weights": [31, -31, 31, -31],
        "threshold": [150, 77],
        "bias": [5, -40],
        "reset_value": -37,
        "fraction_bits": 2,
    },
    16: {"weights": [127, -127], "threshold": [9000, 15], "bias": [7, -300], "reset_value": 99, "fraction_bits": 6},
}


def _bank_depth(n_slots: int, window: int, is_current: bool, pipeline: Pipeline = "deep") -> int:
    """Clocks of reset, sweeps, window and waiting."""
    sweep = n_slots + Clocks.of(pipeline, PLAIN, has_sum=is_current).write
    return 1 + sweep + window + 4 + sweep * (2 if is_current else 1)


def _modes(width: int, leak: Leak) -> list[FrozenLayer]:
    return every_mode(leak, n_out=2, membrane_width=width, **SIZES[width])


def _fire(
    width: int,
    kind: str,
    input_bits: int,
    *,
    modes: slice = slice(None),
    fast: bool = False,
    pipeline: Pipeline = "deep",
) -> Proof:
    leak, other = LEAKS[kind]
    coding = "current" if input_bits else "events"
    # As many synapses as reach the bounds of the sum.
    window = len(SIZES[width]["weights"]) // 2
    layers = _modes(width, leak)[modes]

    def harness(**seeded) -> Harness:
        return BankHarness(layers, input_bits=input_bits, window=window, pipeline=pipeline, **seeded)

    def built(name: str, change: Callable[[FrozenLayer], FrozenLayer]) -> Defect:
        return Defect(name, harness=lambda: harness(built=[change(layer) for layer in layers]))

    resets = {"subtract": "zero", "zero": "subtract", "value": "none", "none": "value"}
    defects = {
        "none": built("compare flipped", lambda layer: replace(layer, compare=FLIP[layer.compare])),
        "shift": built("another leak", lambda layer: replace(layer, leak=other)),
        "multiply": built("another reset", lambda layer: replace(layer, reset=resets[layer.reset])),
    }
    depth = _bank_depth(2, window, input_bits > 0, pipeline)
    names = "all resets and compares" if modes == slice(None) else ", ".join(f"{x.reset} {x.compare}" for x in layers)
    return Proof(
        f"fire-{coding}-{kind}-{width}" + ("" if modes == slice(None) else f"-{len(layers)}") + _SUFFIX[pipeline],
        "a sweep is sum, leak, bias, compare, reset and saturation, exactly",
        f"NeuronBank, W = {width}, {coding}, leak {kind}, {names}" + _REMARK[pipeline],
        "bmc",
        depth,
        harness,
        tuple(defects.values()) if fast else (defects[kind],),
        depth,
        fast=fast,
    )


def _integrator() -> Proof:
    layer = bank_layer(n_out=2, membrane_width=10, leak=Leak("shift", 2), reset="none", **SIZES[10])

    def harness(**seeded) -> Harness:
        return BankHarness([layer], window=2, readout="membrane_last", **seeded)

    depth = _bank_depth(2, 2, False)
    return Proof(
        "fire-integrator",
        "a layer of a membrane readout shows u and never fires",
        "NeuronBank, W = 10, events, leak shift",
        "bmc",
        depth,
        harness,
        (Defect("another leak", harness=lambda: harness(built=[replace(layer, leak=Leak("shift", 1))])),),
        depth,
    )


def _forwarding(input_bits: int, pipeline: Pipeline = "deep") -> Proof:
    coding = "current" if input_bits else "events"
    window = 5
    # Narrow numbers: what is forwarded to whom does not depend on their width.
    layer = bank_layer(n_out=2, membrane_width=4, weights=[1, -1] * 3, threshold=[2, 1], bias=[0, 1])

    def harness(**seeded) -> Harness:
        return BankHarness([layer], input_bits=input_bits, window=window, pipeline=pipeline, **seeded)

    def dropped(which: str) -> Defect:
        return Defect(
            f"{which} synapse not forwarded",
            Edit(Accumulation, rf"forward_{which}_1\.eq\(", f"forward_{which}_1.eq(0 & ", "__init__"),
            harness,
        )

    depth = _bank_depth(2, window, input_bits > 0, pipeline)
    # A short pipeline has nothing between the synapse that reads and the one that writes.
    pairs = (dropped("near"), dropped("far")) if pipeline == "deep" else (dropped("far"),)
    return Proof(
        f"forwarding-{coding}{_SUFFIX[pipeline]}",
        "synapses of any slots in any clocks add up as in a memory that is written at once",
        f"NeuronBank, {coding}, every pattern of {window} clocks on 2 slots{_REMARK[pipeline]}",
        "bmc",
        depth,
        harness,
        (*pairs, Defect("sum one bit narrower", harness=lambda: harness(narrower=1))),
        depth,
        fast=not input_bits,
    )


def _network(
    *, current: bool = False, layers: int = 1, timesteps: int = 1, readout: str = "spike_count"
) -> FrozenNetwork:
    """A tiny network, whose first layer's sums go as far as their widths."""
    return FrozenNetwork.from_arrays(
        [np.array([[3, -4], [3, -4]]), np.array([[2, -3], [-1, 3]])][:layers],
        threshold=[4, 2][:layers],
        bias=[1, 0][:layers],
        timesteps=timesteps,
        readout=readout,
        reset="subtract" if readout == "spike_count" else "none",
        coding=InputCoding("current", 2) if current else InputCoding("events"),
        leak=Leak("shift", 1),
        membrane_width=[5, 4][:layers],
    )


def _engine(
    depth: int, *, folded: bool, current: bool = False, lanes: int = 1, fast: bool = False, variant: str = ""
) -> Proof:
    n_layers = 2 if folded else 1
    network = _network(current=current, layers=n_layers, timesteps=2)
    lean = variant == "lean"
    choices = Choices(
        shape="folded" if folded else "streaming",
        queue_depth=2,
        pipeline="short" if variant in ("short", "lean") else "deep",
        lockstep=lean,
        spike_fifos=not lean,
        output_spikes=not lean,
    )
    mapping = map_network(network, [lanes] * n_layers, None, choices)
    if variant == "encoded":
        # Gaps of one bit: the second slot of a row that lacks the first needs an escape.
        layers = tuple(replace(layer, encoding=Encoding(2, 1, (-4, 3))) for layer in mapping.layers)
        mapping = replace(mapping, layers=layers)
    shape, coding = "folded" if folded else "streaming", "current" if current else "events"
    name = "FoldedEngine" if folded else "LayerEngine"
    layers, of_lanes = "2 layers" if folded else "1 layer", "1 lane" if lanes == 1 else f"{lanes} lanes"

    def harness() -> Harness:
        return EngineHarness(network, mapping, ends=1 if current else 2, gaps=not folded)

    early = Edit(SynapseFetcher, r"\& ~walking\)", ")")
    remark = {
        "": "",
        "short": ", short pipeline",
        "encoded": ", rows in groups, gaps, codes",
        "lean": ", lock step, no FIFO, counts, short pipeline",
    }[variant]
    moving = Defect("moves on while it stands still", Edit(LayerEngine, r"EnableInserter\(moves\)\(m\)", "m"), harness)
    return Proof(
        f"engine-{shape}-{coding}" + (f"-{lanes}" if lanes > 1 else "") + (variant and f"-{variant}"),
        "every membrane and spike of two timesteps is the arithmetic's: with the emitted weights no sum overflows, and "
        "none is missed",
        f"{name}, 2 inputs, {layers} of 2, {of_lanes}, {coding}" + (", input without gaps" if folded else "") + remark,
        "bmc",
        depth,
        harness,
        (
            Defect("sums one bit narrower", Narrower(), harness),
            Defect("sweep before the last synapse", early, harness),
            *([moving] if lean else []),
        ),
        depth,
        fast=fast,
    )


def _rules() -> list[Proof]:
    network, two = _network(layers=1, timesteps=2), _network(layers=2, timesteps=2)
    queues = Choices(queue_depth=2)
    streaming, folded = (
        map_network(two, [2, 1], None, queues),
        map_network(two, [2, 2], None, replace(queues, shape="folded")),
    )
    lean = map_network(two, [2, 1], None, replace(queues, lockstep=True, pipeline="short", spike_fifos=False))
    folded_lean = map_network(two, [2, 2], None, replace(queues, shape="folded", spike_fifos=False))
    guard = Defect("word overwritten", Edit(InputGuard, r"(?<=free\.eq\()self\.o\.ready", "1"))
    full = r"~self\.o\.valid \| self\.o\.ready"
    readout = Defect("word overwritten", Edit(Readout, rf"(?<=free\.eq\(){full}", "1", "_collect"))
    passing = Defect("word overwritten", Edit(Readout, rf"(?<=ready\.eq\(){full}", "1", "_pass"))
    last = _network(layers=1, timesteps=2, readout="membrane_last")
    splitter = Defect("beat overwritten", Edit(BeatSplitter, r"moves & ~waiting\[1\]", "1"))
    fifo = Defect("word overwritten", Edit(StreamFifo, r"\(~self\.o\.valid \| self\.o\.ready\)", "1"))
    serializer = Defect("next event without ready", Edit(SpikeSerializer, r"m\.Elif\(self\.o\.ready\)", "m.Else()"))
    found: list[tuple[str, str, Callable[[], Harness], Defect, int, bool]] = [
        (
            "guard",
            "InputGuard, 2 inputs, events",
            lambda: RuleHarness(InputGuard(network)),
            guard,
            14,
            False,
        ),
        (
            "guard-current",
            "InputGuard, 2 inputs, current",
            lambda: RuleHarness(InputGuard(_network(current=True))),
            guard,
            14,
            False,
        ),
        (
            "fifo",
            "StreamFifo, 4 words of 4 bits",
            lambda: RuleHarness(StreamFifo(unsigned(4), 4)),
            fifo,
            8,
            False,
        ),
        (
            "serializer",
            "SpikeSerializer, 2 lanes",
            lambda: RuleHarness(SpikeSerializer(plan_machine(two, streaming).engines[0].sweep_word)),
            serializer,
            8,
            True,
        ),
        (
            "readout",
            "Readout, 2 classes",
            lambda: RuleHarness(Readout(plan_machine(network, map_network(network, [1])))),
            readout,
            14,
            False,
        ),
        (
            "readout-last",
            "Readout, 2 classes, membrane_last",
            lambda: RuleHarness(Readout(plan_machine(last, map_network(last, [1])))),
            passing,
            10,
            False,
        ),
        (
            "splitter",
            "BeatSplitter, 2 words of 8 bits",
            lambda: RuleHarness(BeatSplitter(2, 8)),
            splitter,
            8,
            True,
        ),
        (
            "engine-streaming",
            "LayerEngine.o, 2 lanes",
            lambda: RuleHarness(LayerEngine(plan_machine(two, streaming).engines[0])),
            fifo,
            26,
            False,
        ),
        (
            "engine-lean",
            "LayerEngine.o, 2 lanes in lock step, no FIFO",
            lambda: RuleHarness(LayerEngine(plan_machine(two, lean).engines[0])),
            Defect("word overwritten", Edit(LayerEngine, rf"(?<=moves\.eq\(){full}", "1")),
            26,
            False,
        ),
        (
            "engine-folded",
            "FoldedEngine.o, 2 lanes",
            lambda: RuleHarness(FoldedEngine(two, plan_machine(two, folded).engines[0])),
            Defect("word withdrawn", Edit(StreamFifo, r"m\.Elif\(self\.o\.ready\)", "m.Else()")),
            66,
            False,
        ),
        (
            "engine-folded-lean",
            "FoldedEngine.o, 2 lanes, no FIFO",
            lambda: RuleHarness(FoldedEngine(two, plan_machine(two, folded_lean).engines[0])),
            Defect("word overwritten", Edit(FoldedEngine, r"(?<=moves\.eq\()~leaves \| self\.o\.ready", "1")),
            66,
            False,
        ),
        (
            "top-streaming",
            "Accelerator m_axis, streaming, 2 layers",
            lambda: PortRuleHarness(Accelerator(plan_machine(two, streaming))),
            readout,
            60,
            False,
        ),
        (
            "top-folded",
            "Accelerator m_axis, folded, 2 layers",
            lambda: PortRuleHarness(Accelerator(plan_machine(two, folded))),
            readout,
            60,
            False,
        ),
    ]
    return [
        Proof(
            f"stream-{name}",
            "a word that is offered stays the same until it is taken, whatever comes in",
            of,
            "prove",
            10,
            harness,
            (replace(defect, harness=harness),),
            cover,
            fast=fast,
        )
        for name, of, harness, defect, cover, fast in found
    ]


def _progress() -> list[Proof]:
    network, two = _network(timesteps=2), _network(layers=2, timesteps=2)
    streaming = map_network(two, [2, 1])
    stuck = Edit(StreamFifo, r"\(tail != head\) \&", "(tail == head) &")
    found = [
        (
            "fifo",
            "StreamFifo, 4 words of 2 bits",
            lambda: ProgressHarness(StreamFifo(unsigned(2), 4), 5),
            Defect("output never loaded", stuck),
            5,
        ),
        (
            "serializer",
            "SpikeSerializer, 2 lanes",
            lambda: ProgressHarness(SpikeSerializer(plan_machine(two, streaming).engines[0].sweep_word), 7),
            Defect("word never ends", Edit(SpikeSerializer, r"& last\)", "& ~last)")),
            7,
        ),
        (
            "guard",
            "InputGuard, 2 inputs, 2 timesteps",
            lambda: ProgressHarness(InputGuard(network), 12, gives=False),
            Defect("dropped words stay", Edit(InputGuard, r"consume\.eq\(~clearing\)", "consume.eq(0)")),
            12,
        ),
        (
            "readout",
            "Readout, 2 classes",
            lambda: ProgressHarness(Readout(plan_machine(network, map_network(network, [1]))), 16, gives=False),
            Defect("waits at the values", Edit(Readout, r"done\.eq\(~sends \| free\)", "done.eq(~sends)", "_collect")),
            16,
        ),
    ]
    return [
        Proof(
            f"progress-{name}",
            f"takes a word at least every {limit} clocks from a source that always offers, for a sink that takes at "
            "least every second clock",
            of,
            "bmc",
            limit + 2,
            harness,
            (replace(defect, harness=harness),),
            limit + 6,
            start="any state",
            fast=name == "fifo",
        )
        for name, of, harness, defect, limit in found
    ]


def _decision(*, folded: bool, current: bool = False, lean: bool = False) -> Proof:
    # As small as a network can be, one source of which has no synapse: what waits for what is all the same.
    network = FrozenNetwork.from_arrays(
        [np.array([[0], [1]])],
        threshold=[1],
        timesteps=1,
        coding=InputCoding("current", 1) if current else InputCoding("events"),
        membrane_width=2,
    )
    choices = Choices(
        shape="folded" if folded else "streaming",
        queue_depth=2,
        pipeline="short" if lean else "deep",
        spike_fifos=not lean,
        output_spikes=not lean,
    )
    mapping = map_network(network, [1], None, choices)
    shape, coding = "folded" if folded else "streaming", "current" if current else "events"
    taken, decided, depth = (36, 36, 46) if folded else (32, 28, 40)

    def harness() -> Harness:
        return DecisionHarness(network, mapping, taken=taken, decided=decided)

    return Proof(
        f"decision-{shape}-{coding}" + ("-lean" if lean else ""),
        f"an offered word waits less than {taken} clocks, a decision within {decided} of the sample's end or "
        "of the decision before it; a word is always offered, the sink takes one at least every second clock",
        f"Accelerator, {shape}, 2 inputs, 1 class, 1 timestep, {coding}"
        + (", no FIFOs, counts alone, short pipeline" if lean else ""),
        "bmc",
        depth,
        harness,
        (Defect("end of a timestep not seen", Edit(SynapseFetcher, r"\& ~walking\)", "& walking)"), harness),),
        depth,
    )


def _collector(timesteps: int, span: int, depth: int) -> Proof:
    plan = CollectorPlan(span, timesteps, 0)

    def harness() -> Harness:
        return CollectorHarness(plan)

    defects = [
        Defect("event after another not forwarded", Edit(EventCollector, r"1\.eq\(met\)", "1.eq(0)"), harness),
        Defect("sent before the last event is in", Edit(EventCollector, r"settled = .*", "settled = 1"), harness),
    ]
    # It holds nothing where one word holds all.
    last = Defect("last word left out", Edit(EventCollector, r"at != plan\.depth", "at != plan.depth - 1"), harness)
    return Proof(
        f"collector-{timesteps}",
        "of any source each sample's mask leaves once, when the sample is whole, and is that of the timesteps in which "
        "it fired",
        f"EventCollector, {span} sources, {timesteps} timesteps, {plan.depth} words a bank",
        "bmc",
        depth,
        harness,
        (*defects, *([last] if plan.span > 1 << plan.group_bits else [])),
        depth,
    )


def all_proofs() -> list[Proof]:
    """Every proof, the cheap ones first within each kind."""
    fires = [_fire(width, kind, bits) for width in (4, 10) for bits in (0, 2) for kind in LEAKS]
    return [
        _fire(4, "multiply", 0, modes=slice(0, None, 5), fast=True),
        *fires,
        *(_fire(16, kind, 0) for kind in ("none", "shift")),
        _integrator(),
        *(
            _fire(width, kind, bits, pipeline="short")
            for width, kind, bits in ((4, "multiply", 0), (10, "shift", 0), (4, "shift", 2))
        ),
        *(_forwarding(bits) for bits in (0, 2)),
        *(_forwarding(bits, "short") for bits in (0, 2)),
        _engine(30, folded=False),
        _engine(36, folded=False, current=True),
        _engine(30, folded=False, lanes=2),
        _engine(26, folded=False, variant="short"),
        _engine(32, folded=False, current=True, variant="short"),
        _engine(34, folded=False, variant="encoded"),
        _engine(28, folded=False, lanes=2, variant="lean"),
        _engine(80, folded=True),
        _collector(1, 64, 20),
        _collector(2, 4, 22),
        *_rules(),
        *_progress(),
        *(_decision(folded=folded, current=current) for folded in (False, True) for current in (False, True)),
        _decision(folded=False, lean=True),
    ]


__all__ = ["COMPARES", "Proof", "all_proofs"]
