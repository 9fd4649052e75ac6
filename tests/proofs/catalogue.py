# amaranth: UnusedElaboratable=no

"""All proofs: what is shown, of which component, how far it reaches, and the defects that break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from amaranth.hdl import unsigned

from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.machine.choices import Choices
from codesign.machine.encoding import Encoding
from codesign.machine.mapping import map_network
from codesign.machine.plan import CollectorPlan, plan_machine
from rtl_templates.accelerator import Accelerator
from rtl_templates.beats import BeatSplitter
from rtl_templates.collector import EventCollector
from rtl_templates.engine import Engine
from rtl_templates.fetcher import SynapseFetcher
from rtl_templates.guard import InputGuard
from rtl_templates.memories import StreamFifo
from rtl_templates.readout import Readout
from rtl_templates.serializer import SpikeSerializer

from .bank_proofs import bank_proofs
from .collector import CollectorHarness
from .defects import Defect, Edit, Narrower
from .engines import DecisionHarness, EngineHarness
from .event_proofs import event_proofs
from .harness import Harness
from .pictures import picture_proofs
from .proof import Proof
from .streams import PortRuleHarness, ProgressHarness, RuleHarness


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
    moving = Defect("moves on while it stands still", Edit(Engine, r"EnableInserter\(moves\)\(m\)", "m"), harness)
    return Proof(
        f"engine-{shape}-{coding}" + (f"-{lanes}" if lanes > 1 else "") + (variant and f"-{variant}"),
        "every membrane and spike of two timesteps is the arithmetic's: with the emitted weights no sum overflows, and "
        "none is missed",
        f"Engine, 2 inputs, {layers} of 2, {of_lanes}, {coding}" + (", input without gaps" if folded else "") + remark,
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
            "Engine.o, 1 layer, 2 lanes",
            lambda: RuleHarness(Engine(plan_machine(two, streaming).engines[0])),
            fifo,
            26,
            False,
        ),
        (
            "engine-lean",
            "Engine.o, 1 layer, 2 lanes in lock step, no FIFO",
            lambda: RuleHarness(Engine(plan_machine(two, lean).engines[0])),
            Defect("word overwritten", Edit(Engine, rf"(?<=moves\.eq\(){full}", "1")),
            26,
            False,
        ),
        (
            "engine-folded",
            "Engine.o, 2 layers, 2 lanes",
            lambda: RuleHarness(Engine(plan_machine(two, folded).engines[0])),
            Defect("word withdrawn", Edit(StreamFifo, r"m\.Elif\(self\.o\.ready\)", "m.Else()")),
            66,
            False,
        ),
        (
            "engine-folded-lean",
            "Engine.o, 2 layers, 2 lanes, no FIFO",
            lambda: RuleHarness(Engine(plan_machine(two, folded_lean).engines[0])),
            Defect("word overwritten", Edit(Engine, rf"(?<=moves\.eq\(){full}", "1")),
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
    return [
        *bank_proofs(),
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
        *event_proofs(_network(timesteps=2)),
        *picture_proofs(),
        *_rules(),
        *_progress(),
        *(_decision(folded=folded, current=current) for folded in (False, True) for current in (False, True)),
        _decision(folded=False, lean=True),
    ]


__all__ = ["Proof", "all_proofs"]
