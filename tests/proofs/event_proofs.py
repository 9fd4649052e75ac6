# amaranth: UnusedElaboratable=no

"""Proofs of what carries events: forks, merges, serializers, FIFOs, and the guard that withdraws what is dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from codesign.contract.network import FrozenNetwork
from codesign.machine.layouts import input_word
from codesign.machine.plan import SweepWord
from rtl_templates.guard import InputGuard, TrustedInput
from rtl_templates.memories import StreamFifo
from rtl_templates.parallel_guard import ParallelGuard
from rtl_templates.serializer import SpikeSerializer
from rtl_templates.streams import EventMerge, StreamBuffer, StreamFork

from .defects import Defect, Edit
from .events import (
    FifoHarness,
    ForkHarness,
    MergeHarness,
    MergeProgressHarness,
    SerializerHarness,
    SerializerProgressHarness,
    SkipHarness,
    WithdrawsHarness,
)
from .harness import Harness
from .proof import Proof


def _seeded(harness: Callable[[], Harness], *found: tuple[str, type, str, str] | tuple[str, type, str, str, str]):
    """Defects of (name, component, pattern, text, and perhaps the method)."""
    return tuple(Defect(name, Edit(owner, *edit), harness) for name, owner, *edit in found)


def _fork(count: int, *, withdraws: bool = False, fast: bool = False) -> Proof:
    def harness() -> Harness:
        return ForkHarness(count, withdraws=withdraws)

    found = [
        ("word goes when one reader has it", StreamFork, r"takes\.all\(\)", "takes.any()"),
        ("word given twice", StreamFork, r"self\.i\.valid & ~has\[number\]", "self.i.valid"),
        ("next word kept from a reader", StreamFork, r"takes & ~moves\.replicate\(self\._count\)", "takes"),
    ]
    if withdraws:
        found = [("withdrawn word not forgotten", StreamFork, r"if self\._withdraws:", "if False:"), *found[1:]]
    return Proof(
        f"fork-{count}" + ("-withdraws" if withdraws else ""),
        "every word once to each reader, and the next when all have it"
        + ("; the word after a withdrawn one is again for all" if withdraws else ""),
        f"StreamFork, {count} readers" + (", withdraws" if withdraws else ""),
        "bmc",
        10,
        harness,
        _seeded(harness, *found),
        10,
        fast=fast,
    )


def _merge(delayed: Sequence[bool], timesteps: int, depth: int, cover: int) -> Proof:
    def harness() -> Harness:
        return MergeHarness(delayed, timesteps)

    late = ", ".join(f"sender {number} delayed" for number, found in enumerate(delayed) if found)
    found = [
        ("event taken without room", EventMerge, r"~others\.any\(\) & moves", "~others.any()"),
        ("two senders at once", EventMerge, r" & ~others\.any\(\)", ""),
        ("end of the first that ends", EventMerge, r"ended\.all\(\)", "ended.any()"),
        (
            "sender that has ended goes on",
            EventMerge,
            r"sender\.valid & ~ended\[number\] & ~sender",
            "sender.valid & ~sender",
        ),
    ]
    if late:
        found[1:3] = [
            ("delayed sender waited for in every timestep", EventMerge, r"ended\.eq\(0\)", "ended.eq(silent)")
        ]
    return Proof(
        f"merge-{len(delayed)}" + ("-delayed" if late else ""),
        "every event once, in its sender's order and timestep; one end when all have ended",
        f"EventMerge, {len(delayed)} senders, {timesteps} timesteps" + (f", {late}" if late else ""),
        "bmc",
        depth,
        harness,
        _seeded(harness, *found),
        cover,
    )


def _serializer(name: str, word: SweepWord, streams: int, depth: int, *, fast: bool = False) -> Proof:
    def harness() -> Harness:
        return SerializerHarness(word, streams)

    single = word.lanes == 1 and streams == 1
    if single:
        found = [
            ("end lost behind an event", SpikeSerializer, r"self\.o\.ready & ~more", "self.o.ready", "_single"),
            ("event sent again as end", SpikeSerializer, r"sent\.eq\(more\)", "sent.eq(0)", "_single"),
        ]
    else:
        found = [
            ("last event of a word lost", SpikeSerializer, r"~rest\.any\(\) & ~word\.end", "~rest.any()"),
            ("event sent twice", SpikeSerializer, r"word\.mask\.eq\(rest\)", "word.mask.eq(word.mask)"),
        ]
    if streams > 1:
        found += [
            ("events of other streams", SpikeSerializer, r"word\.mask\.eq\(own\)", "word.mask.eq(self.i.payload.mask)"),
            (
                "ends without an event of its own lost",
                SpikeSerializer,
                r"own\.any\(\) \| self\.i\.payload\.end",
                "own.any()",
            ),
        ]
    text = f"{word.lanes} lane{'s' if word.lanes > 1 else ''}" + (f", {streams} streams" if streams > 1 else "")
    text += ", of a picture" if word.place_bits else ""
    text += f", values of {word.value_width} bits" if word.value_width else ""
    return Proof(
        f"serializer-{name}",
        "every lane of every word is an event once, in its stream and timestep, with its value; ends in every stream",
        f"SpikeSerializer{' and StreamFork' if streams > 1 else ''}, {text}",
        "bmc",
        depth,
        harness,
        _seeded(harness, *found),
        depth,
        fast=fast,
    )


def _fifo(depth: int) -> Proof:
    def harness() -> Harness:
        return FifoHarness(depth)

    return Proof(
        f"fifo-{depth}",
        "the n-th word that goes in is the n-th that comes out, and one goes in until it is full",
        f"StreamFifo, {depth} words",
        "bmc",
        8 + 3 * depth,
        harness,
        _seeded(
            harness,
            ("written when full", StreamFifo, r"~\(\(tail \^ head\) == self\._depth\)", "1"),
            ("full one word early", StreamFifo, r"\(tail \^ head\) == self\._depth", "self.level >= self._depth - 1"),
            ("word at the output overwritten", StreamFifo, r"\(~self\.o\.valid \| self\.o\.ready\)", "1"),
        ),
        8 + 3 * depth,
    )


def _progress() -> list[Proof]:
    def merge() -> Harness:
        return MergeProgressHarness([False, True, False], 2, 8)

    def serializer() -> Harness:
        return SerializerProgressHarness(SweepWord(2, 2), 2, 7)

    def skip() -> Harness:
        return SkipHarness(2, 9)

    any_state = "any state"
    return [
        Proof(
            "progress-merge",
            "one of the senders, which always offer, is taken at least every 8 clocks, and a word given, for a sink "
            "that takes at least every second clock",
            "EventMerge, 3 senders, one delayed, 2 timesteps",
            "bmc",
            10,
            merge,
            _seeded(
                merge,
                ("ends never", EventMerge, r"moves & ended\.all\(\)", "0"),
                (
                    "those that have ended stop the others",
                    EventMerge,
                    r"~others\.any\(\) & moves",
                    "~others.any() & moves & ~ended.any()",
                ),
            ),
            14,
            start=any_state,
        ),
        Proof(
            "progress-serializers",
            "a word is taken at least every 7 clocks from a source that always offers, for sinks that take at least "
            "every second clock",
            "SpikeSerializer and StreamFork, 2 lanes, 2 streams",
            "bmc",
            9,
            serializer,
            _seeded(
                serializer,
                (
                    "takes nothing when it is empty",
                    SpikeSerializer,
                    r"~valid \| \(self\.o\.ready & last\)",
                    "valid & self.o.ready & last",
                ),
                ("word never ends", SpikeSerializer, r"self\.o\.ready & last", "0"),
            ),
            13,
            start=any_state,
        ),
        Proof(
            "progress-skip",
            "a population that a layer and the one behind it read is taken at least every 9 clocks, however small the "
            "FIFO; the layer between is any that keeps to the order of timesteps",
            "StreamFork, StreamFifo of 2 words and EventMerge",
            "bmc",
            22,
            skip,
            _seeded(
                skip,
                (
                    "no event of a timestep in which another has ended",
                    EventMerge,
                    r"~others\.any\(\) & moves",
                    "~others.any() & moves & ~ended.any()",
                ),
                ("fork waits for all to be ready at once", StreamFork, r"takes\.eq\(has \| ", "takes.eq("),
            ),
            22,
        ),
    ]


def _withdraws(network: FrozenNetwork) -> list[Proof]:
    width = input_word(network).stream_width

    def checked() -> Harness:
        return WithdrawsHarness(InputGuard(network, can_drop=True))

    def trusted() -> Harness:
        return WithdrawsHarness(TrustedInput(network, can_drop=True), trusts=True)

    def parallel() -> Harness:
        return WithdrawsHarness(ParallelGuard(network, 1, width, 2, can_drop=True), buffered=True)

    found = [
        (
            "guard",
            "InputGuard",
            checked,
            [
                ("an end at once in place of a dropped event", InputGuard, "passes if self._can_drop else s", "s"),
                ("word overwritten", InputGuard, r"(?<=free\.eq\()self\.o\.ready", "1"),
            ],
            18,
        ),
        (
            "trusted",
            "TrustedInput",
            trusted,
            [("ends are dropped, too", TrustedInput, "self.drop & ~ends", "self.drop")],
            8,
        ),
        (
            "parallel",
            "ParallelGuard, 2 streams",
            parallel,
            [("word overwritten in the buffer", StreamBuffer, r"~self\.o\.valid \| self\.o\.ready", "1")],
            18,
        ),
    ]
    return [
        Proof(
            f"withdraws-{name}",
            "a word that is offered stays until it is taken, or is dropped and goes for a clock without any; ends stay",
            f"{of}, 2 inputs, events, drops",
            "bmc",
            depth,
            harness,
            _seeded(harness, *defects),
            depth,
        )
        for name, of, harness, defects, depth in found
    ]


def event_proofs(network: FrozenNetwork) -> list[Proof]:
    """Every proof of what carries events. network : with 2 inputs and 2 timesteps."""
    return [
        _fork(2),
        _fork(2, withdraws=True, fast=True),
        _fork(3, withdraws=True),
        _merge([False, False], 2, 14, 14),
        _merge([False, True], 2, 14, 14),
        _merge([False, False, True], 2, 12, 14),
        _serializer("1", SweepWord(1, 4), 1, 10),
        _serializer("3", SweepWord(3, 2, value_width=2), 1, 14),
        _serializer("2-streams", SweepWord(2, 4), 2, 14),
        _serializer("4-streams", SweepWord(2, 4), 4, 12),
        _serializer("picture-2-streams", SweepWord(2, 4, place_bits=1), 2, 14),
        _fifo(2),
        _fifo(4),
        *_progress(),
        *_withdraws(network),
    ]
