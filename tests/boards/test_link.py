"""The link's gateware in Amaranth's simulator, part by part and whole."""

import random
from collections import deque

import pytest
from amaranth.hdl import Array, Elaboratable, Module, Signal
from amaranth.sim import Simulator
from cobs import cobs

from boards.link import HostLink
from boards.protocol import (
    CHUNK_BYTES,
    Command,
    ErrorCode,
    Frame,
    FrameError,
    Reply,
    crc16,
    decode_frame,
    encode_frame,
)
from boards.uart import CobsDecoder, FrameTransmitter, UartReceiver, UartTransmitter, uart_divisor
from codesign.basics.errors import InputError


def simulate(component: Elaboratable, *benches, processes=()) -> None:
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    for process in processes:
        simulator.add_testbench(process, background=True)
    simulator.run()


async def send_bits(ctx, line, data: bytes, divisor: float, stop: int = 1) -> None:
    """Drive a UART line; ``divisor`` may be off by a few percent, and has its own phase."""
    time = 0.37
    for byte in data:
        for bit in (0, *((byte >> i) & 1 for i in range(8)), stop):
            ctx.set(line, bit)
            await ctx.delay((divisor + time % 1e-9) * 1e-6)
        ctx.set(line, 1)


async def receive_bits(ctx, line, divisor: int, into: list[int], n_bytes: int) -> None:
    while len(into) < n_bytes:
        if ctx.get(line):
            await ctx.edge(line, 0)
        await ctx.delay(divisor / 2 * 1e-6)
        byte = 0
        assert ctx.get(line) == 0
        for bit in range(8):
            await ctx.delay(divisor * 1e-6)
            byte |= ctx.get(line) << bit
        await ctx.delay(divisor * 1e-6)
        assert ctx.get(line) == 1, "no stop bit"
        into.append(byte)


@pytest.mark.parametrize(("divisor", "skew"), [(4, 1.0), (5, 1.0), (12, 0.97), (12, 1.03), (25, 0.97), (25, 1.03)])
def test_receiver_reads_back_to_back_bytes_at_any_phase(divisor, skew):
    receiver = UartReceiver(divisor)
    sent = bytes([0x00, 0xFF, 0x55, 0xAA, 0x80, 0x01, *random.Random(divisor).randbytes(20)])
    got: list[tuple[int, int]] = []

    async def drive(ctx):
        await ctx.delay(0.4e-6)
        await send_bits(ctx, receiver.rx, sent, divisor * skew)
        await ctx.delay(2 * divisor * 1e-6)
        assert got == [(byte, 0) for byte in sent]

    async def collect(ctx):
        async for _, _, valid, data, error in ctx.tick().sample(receiver.valid, receiver.data, receiver.error):
            if valid:
                got.append((data, error))

    simulate(receiver, drive, processes=[collect])


def test_receiver_marks_a_low_stop_bit_and_ignores_a_short_glitch():
    receiver = UartReceiver(12)
    got: list[tuple[int, int]] = []

    async def drive(ctx):
        ctx.set(receiver.rx, 0)
        await ctx.delay(3e-6)
        ctx.set(receiver.rx, 1)
        await ctx.delay(150e-6)
        assert got == []
        await send_bits(ctx, receiver.rx, b"\xa5", 12, stop=0)
        await ctx.delay(30e-6)
        await send_bits(ctx, receiver.rx, b"\x5a", 12)
        await ctx.delay(30e-6)
        assert got[0] == (0xA5, 1)
        assert got[-1] == (0x5A, 0)

    async def collect(ctx):
        async for _, _, valid, data, error in ctx.tick().sample(receiver.valid, receiver.data, receiver.error):
            if valid:
                got.append((data, error))

    simulate(receiver, drive, processes=[collect])


@pytest.mark.parametrize("divisor", [4, 12])
def test_transmitter_sends_ten_bit_times_a_byte(divisor):
    transmitter = UartTransmitter(divisor)
    sent = bytes([0x00, 0xFF, 0x5A, 0x01])
    got: list[int] = []

    async def drive(ctx):
        clocks = 0
        for byte in sent:
            ctx.set(transmitter.data, byte)
            ctx.set(transmitter.valid, 1)
            while not ctx.get(transmitter.ready):
                await ctx.tick()
                clocks += 1
            await ctx.tick()
            clocks += 1
        ctx.set(transmitter.valid, 0)
        assert clocks <= 3 * (10 * divisor + 1) + 1
        for _ in range(12 * divisor):
            await ctx.tick()
        assert bytes(got) == sent

    async def collect(ctx):
        await receive_bits(ctx, transmitter.tx, divisor, got, len(sent))

    simulate(transmitter, drive, processes=[collect])


def test_decoder_equals_the_cobs_library_and_survives_damage():
    decoder = CobsDecoder()
    rng = random.Random(1)
    contents = [b"\0", b"\0\0\0", b"a", bytes(range(1, 255)), bytes(range(1, 256)), bytes(300), b"\1" * 254 + b"\0"]
    contents += [bytes(rng.choice((0, 0, 1, 255, rng.randrange(256))) for _ in range(n)) for n in range(1, 60)]
    got: list[tuple[bytes, int]] = []
    current = bytearray()

    async def drive(ctx):
        async def feed(data: bytes, error: int = 0) -> None:
            for byte in data:
                ctx.set(decoder.data, byte)
                ctx.set(decoder.error, error)
                ctx.set(decoder.valid, 1)
                await ctx.tick()
                ctx.set(decoder.valid, 0)
                if rng.random() < 0.3:
                    await ctx.tick()

        for content in contents:
            await feed(cobs.encode(content) + b"\0")
            await ctx.tick().repeat(2)
            assert got.pop() == (content, 0)
        await feed(b"\0\0")
        assert got == []
        await feed(b"\5ab\0")
        await ctx.tick().repeat(2)
        assert got.pop()[1] == 1
        await feed(b"\2")
        await feed(b"x", error=1)
        await feed(b"y\0")
        await ctx.tick().repeat(2)
        assert got.pop()[1] == 1
        await feed(cobs.encode(b"fine") + b"\0")
        await ctx.tick().repeat(2)
        assert got.pop() == (b"fine", 0)

    async def collect(ctx):
        ports = (decoder.out_valid, decoder.out_data, decoder.end, decoder.damaged)
        async for _, _, valid, data, end, damaged in ctx.tick().sample(*ports):
            if valid:
                current.append(data)
            if end:
                got.append((bytes(current), damaged))
                current.clear()

    simulate(decoder, drive, processes=[collect])


def test_frame_transmitter_equals_the_host_encoder():
    frames = FrameTransmitter(24)
    rng = random.Random(2)
    payloads = [bytes(rng.choice((0, 0, rng.randrange(256))) for _ in range(n)) for n in range(2, 25)]
    payloads += [bytes(n) for n in (2, 24)] + [b"\xff" * 24]
    got = bytearray()
    current = Array(Signal(8, name=f"byte{i}") for i in range(28))
    m = Module()
    m.submodules.frames = frames
    m.d.comb += frames.byte.eq(current[frames.index])

    async def drive(ctx):
        for payload in payloads:
            for signal, byte in zip(current, payload.ljust(28, b"\xee"), strict=True):
                ctx.set(signal, byte)
            ctx.set(frames.length, len(payload))
            ctx.set(frames.start, 1)
            await ctx.tick()
            ctx.set(frames.start, 0)
            got.clear()
            done = False
            while not done:
                ready = rng.random() < 0.7
                ctx.set(frames.ready, ready)
                if ready and ctx.get(frames.valid):
                    got.append(ctx.get(frames.data))
                done = bool(ctx.get(frames.done))
                await ctx.tick()
            frame = Frame(payload[0], payload[1], payload[2:])
            assert bytes(got) == encode_frame(frame)
            assert decode_frame(bytes(got[:-1])) == frame

    simulate(m, drive)


def test_crc_is_the_catalogue_s_and_finds_every_damaged_byte():
    assert crc16(b"123456789") == bytes.fromhex("29b1")
    line = bytearray(encode_frame(Frame(1, 2, b"\0spikes\0"))[:-1])
    for position in range(len(line)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(line)
            damaged[position] ^= flip
            with pytest.raises(FrameError):
                decode_frame(bytes(damaged))


def test_divisors_are_exact_for_both_boards_and_bad_rates_are_refused():
    assert uart_divisor(12e6, 1e6) == (12, 0)
    assert uart_divisor(25e6, 1e6) == (25, 0)
    with pytest.raises(InputError, match="clocks per bit"):
        uart_divisor(12e6, 4e6)
    with pytest.raises(InputError, match="off; choose"):
        uart_divisor(12e6, 2.6e6)


class FakeAccelerator:
    """Takes words with pauses and answers each with itself (if ``quiet``, only a sample's last)."""

    def __init__(self, link: HostLink, quiet: bool = False, stuck: bool = False) -> None:
        self.link, self.quiet, self.stuck = link, quiet, stuck
        self.taken: list[tuple[int, int]] = []
        self.resets = 0

    async def run(self, ctx):
        link, rng, pending = self.link, random.Random(3), deque()
        previous_reset = 0
        while True:
            reset = ctx.get(link.accelerator_rst)
            self.resets += reset and not previous_reset
            previous_reset = reset
            if reset:
                pending.clear()
            ready = not self.stuck and not reset and len(pending) < 3 and rng.random() < 0.5
            ctx.set(link.s_tready, ready)
            ctx.set(link.m_tvalid, bool(pending))
            if pending:
                ctx.set(link.m_tdata, pending[0][0])
                ctx.set(link.m_tlast, pending[0][1])
            if pending and ctx.get(link.m_tready):
                pending.popleft()
            if ready and ctx.get(link.s_tvalid):
                word, last = ctx.get(link.s_tdata), ctx.get(link.s_tlast)
                self.taken.append((word, last))
                if last or not self.quiet:
                    pending.append((word, last))
            await ctx.tick()


class LinkBench:
    """A link with a fake accelerator, and a host end on its UART."""

    def __init__(self, input_width: int = 16, output_width: int = 24, divisor: int = 4, **options) -> None:
        self.link = HostLink(input_width, output_width, divisor)
        self.accelerator = FakeAccelerator(self.link, **options)
        self.received = bytearray()
        self.divisor = divisor

    def run(self, bench) -> None:
        async def collect(ctx):
            await receive_bits(ctx, self.link.tx, self.divisor, self.received, 1 << 30)  # type: ignore[arg-type]

        async def drive(ctx):
            ctx.set(self.link.network_hash, 0x0123456789ABCDEF)
            await ctx.delay(20e-6)
            await bench(self, ctx)

        simulate(self.link, drive, processes=[self.accelerator.run, collect])

    async def send(self, ctx, frame: Frame | bytes) -> None:
        await send_bits(ctx, self.link.rx, frame if isinstance(frame, bytes) else encode_frame(frame), self.divisor)

    async def frames(self, ctx, count: int, timeout: int = 20000) -> list[Frame]:
        for _ in range(timeout):
            if self.received.count(0) >= count:
                lines = bytes(self.received).split(b"\0")
                assert lines[-1] == b""
                self.received.clear()
                return [decode_frame(line) for line in lines[:-1]]
            await ctx.tick()
        raise AssertionError(f"{self.received.count(0)} of {count} frames came")


def words(frames: list[Frame], kind: Reply) -> list[int]:
    return [int.from_bytes(frame.data[1:4], "little") for frame in frames if frame.kind == kind]


@pytest.mark.parametrize("input_width", [8, 16, 24])
def test_sample_in_two_chunks_reaches_the_accelerator_whole(input_width):
    rng = random.Random(input_width)
    size = input_width // 8
    values = [rng.randrange(1 << input_width) for _ in range(24)]
    data = b"".join(value.to_bytes(size, "little") for value in values)

    async def bench(self, ctx):
        await self.send(ctx, Frame(Command.CHUNK, 7, data[: 10 * size]))
        first = await self.frames(ctx, 11)
        assert sum(frame == Frame(Reply.ACCEPTED, 7) for frame in first) == 1
        await self.send(ctx, Frame(Command.LAST_CHUNK, 8, data[10 * size :]))
        second = await self.frames(ctx, 15)
        assert sum(frame == Frame(Reply.ACCEPTED, 8) for frame in second) == 1
        assert self.accelerator.taken == [(value, int(i == 23)) for i, value in enumerate(values)]
        outputs = [f for f in first + second if f.kind in (Reply.OUTPUT, Reply.LAST_OUTPUT)]
        assert [f.data[0] for f in outputs] == list(range(24))
        assert [int.from_bytes(f.data[1:4], "little") for f in outputs] == values
        assert [f.kind for f in outputs].index(Reply.LAST_OUTPUT) == 23
        assert self.accelerator.resets == 1

    LinkBench(input_width).run(bench)


def test_longest_chunk_is_kept_while_the_accelerator_takes_nothing():
    data = bytes(range(254)) + bytes(range(256))
    assert len(data) == CHUNK_BYTES

    async def bench(self, ctx):
        await self.send(ctx, Frame(Command.LAST_CHUNK, 1, data))
        await ctx.tick().repeat(500)
        assert self.accelerator.taken == [] and not self.received
        self.accelerator.stuck = False
        frames = await self.frames(ctx, 2)
        taken = b"".join(word.to_bytes(2, "little") for word, _ in self.accelerator.taken)
        assert taken == data
        assert [last for _, last in self.accelerator.taken] == [0] * 254 + [1]
        assert {frame.kind for frame in frames} == {Reply.ACCEPTED, Reply.LAST_OUTPUT}

    LinkBench(stuck=True, quiet=True).run(bench)


def test_identity_reports_widths_hash_status_and_counters():
    async def bench(self, ctx):
        ctx.set(self.link.saturation_count, 0x01020304)
        ctx.set(self.link.cycle_count, 0xA0B0C0D0)
        ctx.set(self.link.protocol_error, 0b0101)
        ctx.set(self.link.busy, 1)
        await self.send(ctx, Frame(Command.IDENTIFY, 0xFE))
        (frame,) = await self.frames(ctx, 1)
        assert (frame.kind, frame.tag) == (Reply.IDENTITY, 0xFE)
        assert frame.data == bytes([1, 0b10101, 2, 3]) + bytes.fromhex("0123456789abcdef04030201d0c0b0a0")

    LinkBench().run(bench)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\x09abc\0", ErrorCode.BAD_FRAME),
        (encode_frame(Frame(Command.LAST_CHUNK, 1, b"abcd")).replace(b"c", b"d"), ErrorCode.BAD_CRC),
        (cobs.encode(b"a") + b"\0", ErrorCode.BAD_CRC),
        (encode_frame(Frame(0x77, 1)), ErrorCode.UNKNOWN_COMMAND),
        (encode_frame(Frame(Command.LAST_CHUNK, 1, b"abc")), ErrorCode.BAD_LENGTH),
        (encode_frame(Frame(Command.CHUNK, 1)), ErrorCode.BAD_LENGTH),
        (encode_frame(Frame(Command.RESET, 1, b"ab")), ErrorCode.BAD_LENGTH),
        (encode_frame(Frame(Command.CHUNK, 1, bytes(CHUNK_BYTES + 2))), ErrorCode.OVERRUN),
    ],
)
def test_wrong_frame_is_named_resets_the_accelerator_and_leaves_the_link_working(line, code):
    async def bench(self, ctx):
        await self.send(ctx, line)
        (frame,) = await self.frames(ctx, 1)
        assert frame.kind == Reply.ERROR
        assert frame.data == bytes([code])
        assert self.accelerator.taken == []
        assert self.accelerator.resets == 2
        await self.send(ctx, Frame(Command.LAST_CHUNK, 5, b"\1\2"))
        frames = await self.frames(ctx, 2)
        assert words(frames, Reply.LAST_OUTPUT) == [0x0201]
        assert all(frame.tag == 5 for frame in frames)

    LinkBench().run(bench)


def test_second_chunk_before_the_first_is_accepted_is_an_overrun():
    async def bench(self, ctx):
        await self.send(ctx, Frame(Command.CHUNK, 1, b"abcd"))
        await self.send(ctx, Frame(Command.CHUNK, 2, b"efgh"))
        (frame,) = await self.frames(ctx, 1)
        assert (frame.kind, frame.data) == (Reply.ERROR, bytes([ErrorCode.OVERRUN]))
        assert self.accelerator.taken == []

    LinkBench(stuck=True).run(bench)


def test_reset_ends_a_sample_that_hangs_and_identify_works_meanwhile():
    async def bench(self, ctx):
        await self.send(ctx, Frame(Command.CHUNK, 1, b"abcd"))
        await self.send(ctx, Frame(Command.IDENTIFY, 2))
        (frame,) = await self.frames(ctx, 1)
        assert (frame.kind, frame.tag) == (Reply.IDENTITY, 2)
        await self.send(ctx, Frame(Command.RESET, 3))
        (frame,) = await self.frames(ctx, 1)
        assert frame == Frame(Reply.RESET_DONE, 3)
        assert self.accelerator.resets == 2
        self.accelerator.stuck = False
        await self.send(ctx, Frame(Command.LAST_CHUNK, 4, b"xy"))
        frames = await self.frames(ctx, 2)
        assert self.accelerator.taken == [(int.from_bytes(b"xy", "little"), 1)]
        assert words(frames, Reply.LAST_OUTPUT) == [int.from_bytes(b"xy", "little")]

    LinkBench(stuck=True).run(bench)
