"""From events of single timesteps to one event of each source for a whole sample, with a mask of its timesteps."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.layouts import index_width
from codesign.machine.plan import CollectorPlan
from rtl_templates.arithmetic import wrap
from rtl_templates.fetcher import event_layout


class EventCollector(wiring.Component):
    """Collects a sample, then sends each source that has fired once, with a mask of the timesteps in which it has.

    Operation: there are two banks of words, which hold the masks of neighbouring sources. An event sets a bit: its word
    is read, changed and written, 3 clocks with forwarding, so that an event may come in every clock. The sample's last
    end gives the bank over and takes the other one, if that is empty. A bank that was given over is read word by word
    and cleared; the masks of a word that are not 0 leave, lowest address first, then the end of the sample. Words
    without any take a clock. After reset both banks are cleared, since memories are not by ``rst``.

    Throughput: an event a clock in; out an event, or a word that holds none, a clock. Latency: 4 clocks from the last
    end to the first event, if it is in the bank's first word.

    Nothing that is collected waits for what comes later, and whole samples are taken in: whoever sends to it is never
    kept waiting by the sample that it is sending, only by two before.

    Parameters
    ----------
    plan : of the collector. is_free : whether the number of timesteps is the signal ``last_timestep``.

    Members
    -------
    i : In(stream of event_layout); events, each of a source at most once in a timestep, and ends of timesteps.
    o : Out(stream of event_layout with a value); events, whose value has bit t set if the source fired in timestep t,
        and ends of samples.
    last_timestep : In, of a loadable machine: T - 1.
    """

    def __init__(self, plan: CollectorPlan, *, is_free: bool = False):
        self._plan = plan
        self._is_free = is_free
        super().__init__(
            {
                "i": In(stream.Signature(event_layout(plan.span))),
                "o": Out(stream.Signature(event_layout(plan.span, plan.timesteps))),
                **({"last_timestep": In(index_width(plan.timesteps))} if is_free else {}),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        plan = self._plan
        group = 1 << plan.group_bits
        word, address = unsigned(plan.width), unsigned(index_width(plan.depth))
        banks, writes, reads = [], [], []
        for number in range(2):
            m.submodules[f"masks{number}"] = bank = memory.Memory(shape=word, depth=plan.depth, init=[])
            banks.append(bank)
            writes.append(bank.write_port())
            reads.append(bank.read_port())

        clearing = Signal(init=1)
        cleared = Signal(address)
        # Banks that hold a whole sample; which one is collected in, and which one is sent.
        full = Signal(2)
        into = Signal()
        outof = Signal()
        timestep = Signal(index_width(plan.timesteps))
        ends = Signal()
        gives = Signal()
        last: Value | int = self.last_timestep if self._is_free else plan.timesteps - 1
        event = self.i.payload
        accepts = Signal()
        m.d.comb += [
            self.i.ready.eq(~clearing & ~full.bit_select(into, 1)),
            accepts.eq(self.i.valid & self.i.ready & ~event.end),
            ends.eq(self.i.valid & self.i.ready & event.end),
            gives.eq(ends & (timestep == last)),
        ]
        with m.If(ends):
            m.d.sync += timestep.eq(Mux(gives, 0, wrap(timestep + 1, timestep.shape())))
        with m.If(gives):
            m.d.sync += into.eq(~into)
        with m.If(clearing):
            m.d.sync += cleared.eq(wrap(cleared + 1, address))
            with m.If(cleared == plan.depth - 1):
                m.d.sync += clearing.eq(0)

        # Collecting: read in clock 0, chosen in 1, changed and written in 2. What the event before has set is not yet
        # in the memory then, nor met when it was read.
        valid_1, valid_2 = Signal(), Signal()
        bank_1, bank_2 = Signal(), Signal()
        place_1, place_2 = Signal(address), Signal(address)
        # Verilog has no signals of no bits; of a word of one source this is a constant.
        member_1, step_1 = Signal(max(1, plan.group_bits)), Signal.like(timestep, name="step_1")
        bit_1, bit_2 = Signal(word), Signal(word)
        forward_near_1, forward_near_2, forward_far_1 = Signal(), Signal(), Signal()
        operand, changed, last_written = Signal(word), Signal(word), Signal(word)
        place = wrap(event.source[plan.group_bits :], address)
        member = event.source[: plan.group_bits]
        m.d.comb += bit_1.eq(Cat((member_1 == k) & (step_1 == t) for k in range(group) for t in range(plan.timesteps)))
        met = accepts & valid_1 & (into == bank_1) & (place == place_1)
        far = accepts & valid_2 & (into == bank_2) & (place == place_2)
        m.d.sync += [
            valid_1.eq(accepts),
            bank_1.eq(into),
            place_1.eq(place),
            member_1.eq(member),
            step_1.eq(timestep),
            forward_near_1.eq(met),
            forward_far_1.eq(far),
            valid_2.eq(valid_1),
            bank_2.eq(bank_1),
            place_2.eq(place_1),
            bit_2.eq(bit_1),
            forward_near_2.eq(forward_near_1),
            operand.eq(Mux(forward_far_1, last_written, Mux(bank_1, reads[1].data, reads[0].data))),
            last_written.eq(changed),
        ]
        m.d.comb += changed.eq(Mux(forward_near_2, last_written, operand) | bit_2)

        # Sending: a word is read, waits in the memory's register, and then in `held`, from which its masks leave.
        ripe = Signal()
        settled = ~(valid_1 & (bank_1 == outof)) & ~(valid_2 & (bank_2 == outof))
        at = Signal(unsigned(len(cleared) + 1))
        fetches, fetched, fetched_at = Signal(), Signal(), Signal(address)
        moves = Signal()
        held, held_at = Signal(word), Signal(address)
        left = Signal(group)
        remains = Signal(group)
        done = Signal()
        words_left = at != plan.depth
        m.d.comb += [
            ripe.eq(full.bit_select(outof, 1) & settled),
            fetches.eq(ripe & words_left & (~fetched | moves)),
            # All but the lowest one.
            remains.eq(left & (left - 1)),
            moves.eq(fetched & (~left.any() | (self.o.ready & ~remains.any()))),
            done.eq(full.bit_select(outof, 1) & ~words_left & ~fetched & ~left.any()),
        ]
        with m.If(fetches):
            m.d.sync += [at.eq(wrap(at + 1, at.shape())), fetched.eq(1), fetched_at.eq(wrap(at, address))]
        with m.Elif(moves):
            m.d.sync += fetched.eq(0)
        from_bank = Mux(outof, reads[1].data, reads[0].data)
        masks = [from_bank.word_select(k, plan.timesteps) for k in range(group)]
        with m.If(moves):
            m.d.sync += [held.eq(from_bank), held_at.eq(fetched_at), left.eq(Cat(mask.any() for mask in masks))]
        with m.Elif(self.o.ready):
            m.d.sync += left.eq(remains)
        first = Signal(unsigned(max(1, plan.group_bits)))
        for k in reversed(range(group)):
            with m.If(left[k]):
                m.d.comb += first.eq(k)
        out = self.o.payload
        source = Cat(first[: plan.group_bits], held_at)
        m.d.comb += [
            self.o.valid.eq(left.any() | done),
            out.end.eq(~left.any()),
            out.source.eq(wrap(source, out.source.shape())),
            out.value.eq(Array(held.word_select(k, plan.timesteps) for k in range(group))[first]),
        ]
        closes = Signal()
        m.d.comb += closes.eq(done & self.o.ready)
        with m.If(closes):
            m.d.sync += [at.eq(0), outof.eq(~outof)]

        for number, (write, read) in enumerate(zip(writes, reads, strict=True)):
            with m.If(gives & (into == number)):
                m.d.sync += full[number].eq(1)
            with m.Elif(closes & (outof == number)):
                m.d.sync += full[number].eq(0)
            collects = Signal(name=f"collects{number}")
            empties = Signal(name=f"empties{number}")
            m.d.comb += [
                collects.eq(valid_2 & (bank_2 == number)),
                empties.eq(moves & (outof == number)),
                read.en.eq(Mux(full[number], fetches & (outof == number), accepts & (into == number))),
                read.addr.eq(Mux(full[number], wrap(at, address), place)),
                write.en.eq(clearing | collects | empties),
                write.addr.eq(Mux(clearing, cleared, Mux(collects, place_2, fetched_at))),
                write.data.eq(Mux(collects, changed, 0)),
            ]
        return m
