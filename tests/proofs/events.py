# amaranth: UnusedElaboratable=no

"""Where streams of events part, meet, wait and become single events: every word once for every reader, in order."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream

from codesign.machine.plan import SweepWord
from rtl_templates.memories import StreamFifo
from rtl_templates.serializer import serialized, sweep_word_layout
from rtl_templates.streams import EventMerge, StreamFork, join

from .harness import Harness
from .streams import patient, within

# An event of the harnesses' own.
EVENT = data.StructLayout({"end": unsigned(1), "source": unsigned(3)})


class ForkHarness(Harness):
    """Every word of a fork once to each reader, and the next when all have it.

    withdraws : a word that waits may be withdrawn, for a clock without any: each reader has it or not, and the word
        after it is again for all.
    """

    def __init__(self, count: int, *, withdraws: bool = False):
        super().__init__()
        self.dut = StreamFork(unsigned(3), count, withdraws=withdraws)
        self.withdraws = withdraws

    def build(self) -> None:
        m, dut = self.m, self.dut
        m.submodules.dut = dut
        self.source(dut.i, "i")
        kept = self.offered(dut.i, "i")
        gone = self.register(self.running & dut.i.valid & ~dut.i.ready, "waited") & ~dut.i.valid
        if self.withdraws:
            self.assume(kept | ~dut.i.valid, self.stalled(dut.i, "i"), gone)
        else:
            self.assume(kept, self.stalled(dut.i, "i"))
        leaves = []
        for number, output in enumerate(dut.outputs):
            self.sink(output, f"o{number}")
            # Whether this reader has taken the word that is offered.
            has = Signal(name=f"has{number}")
            taken = output.valid & output.ready
            with m.If(self.running):
                m.d.sync += has.eq(dut.i.valid & ~dut.i.ready & (has | taken))
            self.require(output.valid == (dut.i.valid & ~has))
            self.require(~output.valid | (output.payload == dut.i.payload))
            leaves.append(has | taken)
            self.cover(has & dut.i.valid & ~dut.i.ready)
        # The word goes in the clock in which the last reader takes it.
        self.require(~dut.i.valid | (dut.i.ready == Cat(leaves).all()))
        if self.withdraws:
            self.cover(gone & self.register(Cat(leaves).any(), "some"))


class MergeHarness(Harness):
    """Every event of a merge once, in its sender's order and in its timestep; one end when all senders have ended.

    One sender is looked at, any. Timesteps of samples are numbered on both sides. Senders keep the rule of streams, and
    nothing else: they may be any number of timesteps apart. A delayed sender begins with a sample's second timestep.
    """

    def __init__(self, delayed: Sequence[bool], timesteps: int):
        super().__init__()
        self.delayed, self.timesteps = delayed, timesteps
        self.dut = EventMerge(EVENT, delayed, timesteps)

    def build(self) -> None:
        m, dut, count = self.m, self.dut, len(self.delayed)
        m.submodules.dut = dut
        self.sink(dut.o, "o")
        chosen = self.constant(range(count), "chosen")
        if count & (count - 1):
            self.assume(chosen < count, chosen == count - 1)
        # Who sends it stands in an event's lowest bits.
        sender_bits = (count - 1).bit_length()

        def follows(at: Value, first: int) -> Value:
            """The number of the timestep after ``at``: samples are of ``timesteps`` numbers, beginning with 0."""
            last = at % self.timesteps == self.timesteps - 1
            return (at + 1 + Mux(last, first, 0))[: len(at)]

        found, takes = [], []
        for number, (sender, late) in enumerate(zip(dut.inputs, self.delayed, strict=True)):
            self.source(sender, f"i{number}")
            self.assume(self.offered(sender, f"i{number}"), self.stalled(sender, f"i{number}"))
            own = sender.payload.source[:sender_bits] == number
            self.assume(~sender.valid | sender.payload.end | own, sender.valid & ~sender.payload.end)
            # The timestep that it is in: those before it have ended.
            at = Signal(unsigned(5), init=int(late), name=f"at{number}")
            taken = self.running & sender.valid & sender.ready
            with m.If(taken & sender.payload.end):
                m.d.sync += at.eq(follows(at, int(late)))
            found.append(at)
            takes.append(taken)

        gives = dut.o.valid & dut.o.ready & self.running
        out = Signal(unsigned(5))
        with m.If(gives & dut.o.payload.end):
            m.d.sync += out.eq(out + 1)
        # What the chosen sender has sent and the merge has not yet given.
        inside, word, of_step = Signal(), Signal(EVENT), Signal(unsigned(5))
        is_event = dut.o.valid & ~dut.o.payload.end
        of_chosen = is_event & (dut.o.payload.source[:sender_bits] == chosen)
        sender = Array(Cat(Value.cast(entry.payload)) for entry in dut.inputs)[chosen]
        event_taken = Array(takes)[chosen] & ~sender[0]
        with m.If(event_taken):
            m.d.sync += [inside.eq(1), Value.cast(word).eq(sender), of_step.eq(Array(found)[chosen])]
        with m.Elif(gives & of_chosen):
            m.d.sync += inside.eq(0)
        self.require(of_chosen == inside)
        self.require(~of_chosen | (Value.cast(dut.o.payload) == Value.cast(word)))
        self.require(~of_chosen | (of_step == out))
        # Nothing is taken on top of what has not been given.
        self.require(~(event_taken & inside) | (gives & of_chosen))
        # An event is of some sender.
        self.require(~is_event | (dut.o.payload.source[:sender_bits] < count))
        ends = dut.o.valid & dut.o.payload.end
        at = Array(found)[chosen]
        # An end is that of a timestep which every sender has left, or in which it has nothing to say.
        self.require(~ends | ((at - out)[:5].as_signed() > 0))
        self.cover(of_chosen & inside & (out == 1), ends & (out == self.timesteps), ends & ((at - out)[:5] > 1))


class MergeProgressHarness(Harness):
    """From any state, senders that always offer a word and a fair sink: a merge takes or gives one at least every
    ``limit`` clocks, and takes one at least every ``taken``."""

    any_state = True

    def __init__(self, delayed: Sequence[bool], timesteps: int, limit: int):
        super().__init__()
        self.dut, self.limit = EventMerge(EVENT, delayed, timesteps), limit

    def build(self) -> None:
        m, dut = self.m, self.dut
        m.submodules.dut = dut
        self.sink(dut.o, "o")
        taken = []
        for number, sender in enumerate(dut.inputs):
            self.source(sender, f"i{number}")
            self.assume(sender.valid, sender.ready)
            self.assume(self.offered(sender, f"i{number}"), self.stalled(sender, f"i{number}"))
            taken.append(sender.valid & sender.ready)
        patient(self, dut.o.ready, 1)
        within(self, Cat(taken).any(), self.limit, "taken")
        within(self, dut.o.valid, self.limit, "given")


class SerializerHarness(Harness):
    """Every lane of every sweep word is an event once, in its stream and timestep, with its value; every end in every
    stream, behind the events of its timestep.

    One address of one stream is looked at, any. What it is to say is queued from the clock on in which a word is
    offered: of several streams one may have taken it before the others.
    """

    def __init__(self, word: SweepWord, streams: int):
        super().__init__()
        self.word, self.streams = word, streams

    def build(self) -> None:
        m, word = self.m, self.word
        words = stream.Signature(sweep_word_layout(word)).create()
        outputs = serialized(m, words, word, self.streams, "dut")
        self.source(words, "i")
        given = words.payload
        self.assume(self.offered(words, "i"), self.stalled(words, "i"))
        self.assume(~words.valid | given.mask.any() | given.end, words.valid & given.mask.any() & given.end)
        for number, output in enumerate(outputs):
            self.sink(output, f"o{number}")

        # From an event's stream and address to its slot and lane, as docs/machine.md has them.
        bits, place = (self.streams - 1).bit_length(), word.place_bits
        number = self.constant(range(self.streams), "number") if bits else Const(0, 0)
        address = self.constant(outputs[0].payload.source.shape(), "address")
        unit = Cat(number, address[place:])
        lane, rank = unit[: word.lane_bits], unit[word.lane_bits :]
        slot = Cat(address[:place], rank)
        fires = Signal()
        of_lane = Array(given.mask)[lane] if word.lanes > 1 else given.mask
        m.d.comb += fires.eq(of_lane & (given.slot == slot) & (lane < word.lanes))
        value: Value = Const(0, 0)
        if word.value_width:
            value = Array(Value.cast(given["values"][at]) for at in range(word.lanes))[lane]

        begins = Signal()
        m.d.comb += begins.eq(self.running & words.valid & ~self.register(words.valid & ~words.ready, "waited"))
        room = 8
        pushed, popped = Signal(range(2 * room)), Signal(range(2 * room))
        queue = Array(Signal(1 + len(value), name=f"queued{at}") for at in range(room))
        event, end = Cat(Const(0, 1), value), Cat(Const(1, 1), Const(0, len(value)))
        with m.If(begins):
            m.d.sync += pushed.eq(pushed + fires + given.end)
            with m.If(fires):
                m.d.sync += queue[pushed[:3]].eq(event)
            with m.If(given.end):
                m.d.sync += queue[(pushed + fires)[:3]].eq(end)
        is_known, head = Signal(), Signal(1 + len(value))
        m.d.comb += [
            is_known.eq((pushed != popped) | (begins & (fires | given.end))),
            head.eq(Mux(pushed != popped, queue[popped[:3]], Mux(fires, event, end))),
        ]
        said, ready, found = Signal(), Signal(), Signal(1 + len(value))
        for at, output in enumerate(outputs):
            token = output.payload
            own = [token.value] if word.value_width else []
            with m.If(number == at):
                m.d.comb += [
                    said.eq(output.valid & (token.end | (token.source == address))),
                    ready.eq(output.ready),
                    found.eq(Mux(token.end, end, Cat(Const(0, 1), *own))),
                ]
        with m.If(self.running & said & ready):
            m.d.sync += popped.eq(popped + 1)
        self.require(~said | (is_known & (found == head)))
        # No more waits than a word in a serializer and the one behind it say.
        self.require((pushed - popped)[: len(pushed)] <= 4)
        self.cover(said & ready & ~found[0], said & ready & found[0] & (popped == 2))


class SerializerProgressHarness(Harness):
    """From any state, with words that are always offered and fair sinks: one is taken within ``limit`` clocks."""

    any_state = True

    def __init__(self, word: SweepWord, streams: int, limit: int):
        super().__init__()
        self.word, self.streams, self.limit = word, streams, limit

    def build(self) -> None:
        m = self.m
        words = stream.Signature(sweep_word_layout(self.word)).create()
        for number, output in enumerate(serialized(m, words, self.word, self.streams, "dut")):
            self.sink(output, f"o{number}")
            patient(self, output.ready, 1)
        self.source(words, "i")
        self.assume(words.valid, words.ready)
        self.assume(self.offered(words, "i"), self.stalled(words, "i"))
        within(self, words.ready, self.limit, "taken")


class FifoHarness(Harness):
    """The n-th word that goes into a FIFO is the n-th that comes out, any n; it takes words until it is full."""

    def __init__(self, depth: int):
        super().__init__()
        self.depth, self.dut = depth, StreamFifo(unsigned(2), depth)

    def build(self) -> None:
        m, dut = self.m, self.dut
        m.submodules.dut = dut
        self.source(dut.i, "i")
        self.sink(dut.o, "o")
        number = self.constant(4, "number")
        came, went = Signal(unsigned(5)), Signal(unsigned(5))
        word = Signal(unsigned(2))
        comes, goes = self.running & dut.i.valid & dut.i.ready, self.running & dut.o.valid & dut.o.ready
        m.d.sync += [came.eq(came + comes), went.eq(went + goes)]
        with m.If(comes & (came == number)):
            m.d.sync += word.eq(dut.i.payload)
        self.require(~(dut.o.valid & (went == number)) | ((came > number) & (dut.o.payload == word)))
        self.require(~dut.o.valid | (came != went))
        # One more waits at the output.
        self.require(dut.i.ready == ((came - went)[:5] - dut.o.valid < self.depth))
        self.cover(goes & (went == number) & (number == 2 * self.depth), ~dut.i.ready)


class SkipHarness(Harness):
    """A population that a layer reads and the one behind it, which waits for both: nothing stops.

    A fork, a FIFO and a merge are the delivered ones. The layer between is any that keeps to the order of timesteps: it
    takes words at least every second clock until it has an end, and then sends an event or none and that end.
    """

    def __init__(self, depth: int, limit: int):
        super().__init__()
        self.depth, self.limit = depth, limit

    def build(self) -> None:
        m = self.m
        m.submodules.fork = fork = StreamFork(EVENT, 2)
        m.submodules.fifo = fifo = StreamFifo(EVENT, self.depth)
        m.submodules.merge = merge = EventMerge(EVENT, [False, False], 2)
        self.source(fork.i, "i")
        self.assume(fork.i.valid, fork.i.ready)
        self.assume(self.offered(fork.i, "i"), self.stalled(fork.i, "i"))
        join(m, fork.outputs[1], fifo.i)
        join(m, fifo.o, merge.inputs[1])
        inner, sent = fork.outputs[0], merge.inputs[0]
        owes, spoke, takes = Signal(), Signal(), self.free(1, "takes")
        m.d.comb += [inner.ready.eq(takes & ~owes), sent.valid.eq(owes)]
        speaks = self.free(1, "speaks")
        m.d.comb += Value.cast(sent.payload).eq(Cat(~speaks | spoke, self.free(3, "inner")))
        self.assume(self.offered(sent, "sent"), self.stalled(sent, "sent"))
        patient(self, takes, 1)
        with m.If(self.running & inner.valid & inner.ready & inner.payload.end):
            m.d.sync += [owes.eq(1), spoke.eq(0)]
        with m.Elif(self.running & sent.valid & sent.ready):
            m.d.sync += [owes.eq(~sent.payload.end), spoke.eq(1)]
        self.sink(merge.o, "o")
        patient(self, merge.o.ready, 1)
        within(self, fork.i.ready, self.limit, "taken")
        self.cover(merge.o.valid & merge.o.payload.end, ~fifo.i.ready)


class WithdrawsHarness(Harness):
    """A guard that drops events: a word that is offered stays until it is taken, or goes for a clock without any; an
    end stays. This is what a fork behind it takes for granted.

    trusts : whether the guard passes on what comes, which then has to keep the rule of streams.
    buffered : whether what is offered is buffered and stays, dropped or not.
    """

    def __init__(self, dut, *, trusts: bool = False, buffered: bool = False):
        super().__init__()
        self.dut, self.trusts, self.buffered = dut, trusts, buffered

    def build(self) -> None:
        m, dut = self.m, self.dut
        m.submodules.dut = dut
        outputs = dut.outputs if hasattr(dut, "outputs") else [dut.o]
        self.source(dut.i, "i")
        if self.trusts:
            self.assume(self.offered(dut.i, "i"), self.stalled(dut.i, "i"))
        drop = self.free(1, "drop")
        m.d.comb += dut.drop.eq(drop)
        for number, output in enumerate(outputs):
            self.sink(output, f"o{number}")
            kept = self.offered(output, f"o{number}")
            waited = self.register(self.running & output.valid & ~output.ready, f"waited{number}")
            was_end = self.register(output.payload.end, f"was_end{number}")
            self.cover(waited & output.valid & was_end)
            if self.buffered:
                self.require(kept)
                continue
            self.require(kept | (drop & ~output.valid & ~was_end))
            self.cover(waited & ~output.valid)
