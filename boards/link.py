"""UART link between a host and an accelerator: gateware.

The protocol is described in docs/link.md. In short: frames are ``COBS(payload + CRC-16) + 0x00``; the first
payload byte is the kind, the second a tag that every reply repeats.

Flow control. An accelerator may stop taking input words for as long as its output words are not taken, and a UART
cannot be stopped. So a sample is sent in *chunks* of at most ``CHUNK_BYTES``, each of which fits the link's buffer
whole, and the host sends the next one only after the link has said that the accelerator took the last word of the
one before. No byte can be lost whatever the baud rate, the accelerator's speed and the number of its output words;
a host that breaks the rule is told so (error ``OVERRUN``). As a chunk is complete before its first word is handed
on, its CRC is known by then: a corrupted frame never reaches the accelerator. Every error resets the accelerator,
so that after one no sample is under way.

Baud rates are whole divisors of the clock: 1 Mbaud is exact at 12 MHz and at 25 MHz.
"""

# ruff: noqa: SIM117 -- an m.If inside another is not the same as both in one `with` when m.Elif follows.
# Amaranth makes interface members and context managers at run time, where the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.crc.catalog import CRC16_IBM_3740
from amaranth.lib.wiring import In, Out

from boards.protocol import (
    BUFFER_BYTES,
    CRC_BYTES,
    HEADER_BYTES,
    PROTOCOL_VERSION,
    Command,
    ErrorCode,
    Reply,
    word_bytes,
)
from boards.uart import CobsDecoder, FrameTransmitter, UartReceiver, UartTransmitter, check_divisor

RESET_CLOCKS = 8


class ChunkFeeder(wiring.Component):
    """Hands a chunk's words from the buffer to the accelerator, ``2 * b + 1`` clocks per word of b bytes.

    Parameters
    ----------
    width : bits of a word; it takes whole bytes, low byte first.

    Members
    -------
    enable : In(1), high from the clock in which the chunk is complete until ``done``.
    length : In(10), bytes of the chunk, a multiple of the word's bytes and not 0; stable while ``enable``.
    last : In(1), the chunk ends a sample; stable while ``enable``.
    address, data : Out(10), In(8), the buffer's read port; data one clock after its address.
    tdata, tvalid, tready, tlast : Out(width), Out(1), In(1), Out(1), the words.
    done : Out(1), one clock: the last word has been taken.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(
            {
                "enable": In(1),
                "length": In(range(BUFFER_BYTES + 1)),
                "last": In(1),
                "address": Out(range(BUFFER_BYTES + 1)),
                "data": In(8),
                "tdata": Out(width),
                "tvalid": Out(1),
                "tready": In(1),
                "tlast": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        n_bytes = word_bytes(self.width)
        word = Signal(n_bytes * 8)
        fetched = Signal(range(n_bytes + 1))
        ended = self.address == self.length
        m.d.comb += [self.tdata.eq(word), self.tlast.eq(self.last & ended)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [self.address.eq(0), fetched.eq(0)]
                with m.If(self.enable):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.next = "DATA"
            with m.State("DATA"):
                m.d.sync += [
                    word.eq(Cat(word, self.data)[8:]),
                    self.address.eq(self.address + 1),
                    fetched.eq(fetched + 1),
                ]
                m.next = "ADDRESS"
                with m.If(fetched == n_bytes - 1):
                    m.d.sync += fetched.eq(0)
                    m.next = "WORD"
            with m.State("WORD"):
                m.d.comb += self.tvalid.eq(1)
                with m.If(self.tready):
                    m.next = "ADDRESS"
                    with m.If(ended):
                        m.d.comb += self.done.eq(1)
                        # One clock for `enable` to fall.
                        m.next = "ENDED"
            with m.State("ENDED"):
                m.next = "IDLE"
        return m


class HostLink(wiring.Component):
    """The protocol: frames on a UART in, stream words to and from an accelerator out.

    A chunk of n words of b bytes is handed to the accelerator within about ``n * (2 * b + 1)`` clocks if it takes them
    at once. Each output word becomes one frame of ``b + 7`` bytes on the line; the accelerator waits meanwhile.

    Parameters
    ----------
    input_width, output_width : bits of the accelerator's stream words.
    divisor : clocks per bit of the UART, 4 or more.

    Members
    -------
    rx, tx : In(1), Out(1), the UART's lines, idle high.
    s_tdata, s_tvalid, s_tready, s_tlast : input words for the accelerator; tlast on a sample's last.
    m_tdata, m_tvalid, m_tready, m_tlast : output words; must not change while they wait, as AXI4-Stream says.
    accelerator_rst : Out(1), synchronous reset of the accelerator, high for 8 clocks.
    busy, protocol_error, saturation_count, cycle_count, network_hash : the accelerator's status ports.
    """

    def __init__(self, input_width: int, output_width: int, divisor: int) -> None:
        self.input_width, self.output_width = input_width, output_width
        self.divisor = check_divisor(divisor)
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "s_tdata": Out(input_width),
                "s_tvalid": Out(1),
                "s_tready": In(1),
                "s_tlast": Out(1),
                "m_tdata": In(output_width),
                "m_tvalid": In(1),
                "m_tready": Out(1),
                "m_tlast": In(1),
                "accelerator_rst": Out(1),
                "busy": In(1),
                "protocol_error": In(4),
                "saturation_count": In(32),
                "cycle_count": In(32),
                "network_hash": In(64),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        in_bytes, out_bytes = word_bytes(self.input_width), word_bytes(self.output_width)

        m.submodules.receiver = receiver = UartReceiver(self.divisor)
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.check = check = CRC16_IBM_3740().create()
        m.submodules.buffer = buffer = memory.Memory(shape=8, depth=BUFFER_BYTES, init=[])
        m.d.comb += [
            receiver.rx.eq(self.rx),
            decoder.data.eq(receiver.data),
            decoder.valid.eq(receiver.valid),
            decoder.error.eq(receiver.error),
            check.data.eq(decoder.out_data),
            check.valid.eq(decoder.out_valid),
        ]

        # Requests: set by the receiving side, cleared by the sending side.
        reset_wanted, reset_reply = Signal(), Signal()
        identity_wanted, accepted_wanted, error_wanted = Signal(), Signal(), Signal()
        error_code = Signal(ErrorCode)
        command_tag, sample_tag = Signal(8), Signal(8)

        # Receiving: the parts of a frame, as they come.
        header = HEADER_BYTES
        kind, tag = Signal(8), Signal(8)
        count = Signal(range(BUFFER_BYTES + header + 1))
        overrun = Signal()
        feeding, last_chunk = Signal(), Signal()
        chunk_length = Signal(range(BUFFER_BYTES + 1))
        phase = Signal(range(max(in_bytes, 2)))
        write = buffer.write_port()
        is_chunk = (kind == Command.CHUNK) | (kind == Command.LAST_CHUNK)
        m.d.comb += [
            write.addr.eq(count - header),
            write.data.eq(decoder.out_data),
            write.en.eq(decoder.out_valid & (count >= header) & is_chunk & ~feeding),
        ]
        with m.If(decoder.out_valid):
            with m.If(count == 0):
                m.d.sync += kind.eq(decoder.out_data)
            with m.Elif(count == 1):
                m.d.sync += [tag.eq(decoder.out_data), overrun.eq(0), phase.eq(0)]
            with m.Else():
                # `phase` counts payload and CRC bytes modulo the word's bytes.
                m.d.sync += phase.eq(Mux(phase == in_bytes - 1, 0, phase + 1))
                with m.If((count == BUFFER_BYTES + header) | (is_chunk & feeding)):
                    m.d.sync += overrun.eq(1)
            with m.If(count != BUFFER_BYTES + header):
                m.d.sync += count.eq(count + 1)

        def refuse(code: ErrorCode) -> None:
            m.d.sync += [error_wanted.eq(1), error_code.eq(code), reset_wanted.eq(1)]

        with m.If(decoder.end):
            m.d.sync += [count.eq(0), command_tag.eq(tag)]
            m.d.comb += check.start.eq(1)
            with m.If(decoder.damaged):
                refuse(ErrorCode.BAD_FRAME)
            with m.Elif((count < header + CRC_BYTES) | (~overrun & ~check.match_detected)):
                refuse(ErrorCode.BAD_CRC)
            with m.Elif(overrun):
                refuse(ErrorCode.OVERRUN)
            with m.Elif(is_chunk):
                with m.If((phase != CRC_BYTES % in_bytes) | (count == header + CRC_BYTES)):
                    refuse(ErrorCode.BAD_LENGTH)
                with m.Elif(reset_wanted | self.accelerator_rst):
                    refuse(ErrorCode.OVERRUN)
                with m.Else():
                    m.d.sync += [
                        feeding.eq(1),
                        last_chunk.eq(kind == Command.LAST_CHUNK),
                        sample_tag.eq(tag),
                        chunk_length.eq(count - header - CRC_BYTES),
                    ]
            with m.Elif((kind != Command.IDENTIFY) & (kind != Command.RESET)):
                refuse(ErrorCode.UNKNOWN_COMMAND)
            with m.Elif(count != header + CRC_BYTES):
                refuse(ErrorCode.BAD_LENGTH)
            with m.Elif(kind == Command.IDENTIFY):
                m.d.sync += identity_wanted.eq(1)
            with m.Else():
                m.d.sync += [reset_wanted.eq(1), reset_reply.eq(1)]

        # Feeding: words from the buffer to the accelerator.
        read = buffer.read_port()
        m.submodules.feeder = feeder = ResetInserter(self.accelerator_rst)(ChunkFeeder(self.input_width))
        m.d.comb += [
            feeder.enable.eq(feeding),
            feeder.length.eq(chunk_length),
            feeder.last.eq(last_chunk),
            read.addr.eq(feeder.address),
            feeder.data.eq(read.data),
            self.s_tdata.eq(feeder.tdata),
            self.s_tvalid.eq(feeder.tvalid & ~self.accelerator_rst),
            self.s_tlast.eq(feeder.tlast),
            feeder.tready.eq(self.s_tready),
        ]
        with m.If(feeder.done):
            m.d.sync += [feeding.eq(0), accepted_wanted.eq(1)]

        # Sending: one frame at a time; the accelerator is reset only between frames.
        # What is sent must not change while it is sent.
        status = Signal(8)
        counters = Signal(64)
        identity = [
            Const(PROTOCOL_VERSION, 8),
            status,
            Const(in_bytes, 8),
            Const(out_bytes, 8),
            *(self.network_hash.word_select(index, 8) for index in reversed(range(8))),
        ]
        identity += [counters.word_select(index, 8) for index in range(8)]
        beat = Signal(8)
        output_bytes = Signal(out_bytes * 8)
        m.d.comb += output_bytes.eq(self.m_tdata)
        output_data = [beat, *(output_bytes.word_select(index, 8) for index in range(out_bytes)), status]
        replies: dict[Reply, tuple[Any, list[Any]]] = {
            Reply.IDENTITY: (command_tag, identity),
            Reply.RESET_DONE: (command_tag, []),
            Reply.ACCEPTED: (sample_tag, []),
            Reply.OUTPUT: (sample_tag, output_data[:-1]),
            Reply.LAST_OUTPUT: (sample_tag, output_data),
            Reply.ERROR: (command_tag, [error_code]),
        }
        longest = max(len(data) for _, data in replies.values()) + header
        m.submodules.frames = frames = FrameTransmitter(longest)
        m.submodules.transmitter = transmitter = UartTransmitter(self.divisor)
        m.d.comb += [
            self.tx.eq(transmitter.tx),
            transmitter.data.eq(frames.data),
            transmitter.valid.eq(frames.valid),
            frames.ready.eq(transmitter.ready),
        ]
        reply = Signal(Reply)
        reply_tag = Signal(8)
        timer = Signal(range(RESET_CLOCKS))
        with m.Switch(reply):
            for value, (_, data) in replies.items():
                with m.Case(value):
                    parts = [value.value, reply_tag, *data]
                    m.d.comb += [frames.length.eq(len(parts)), frames.byte.eq(Array(parts)[frames.index])]

        def send(value: Reply) -> None:
            m.d.sync += [
                reply.eq(value),
                reply_tag.eq(replies[value][0]),
                status.eq(Cat(self.protocol_error, self.busy)),
            ]
            m.next = "SEND"

        with m.FSM(init="RESET"):
            with m.State("RESET"):
                m.d.comb += self.accelerator_rst.eq(1)
                m.d.sync += timer.eq(timer + 1)
                # What the sample before left behind goes with it.
                m.d.sync += [feeding.eq(0), accepted_wanted.eq(0), beat.eq(0), reset_wanted.eq(0)]
                with m.If(timer == RESET_CLOCKS - 1):
                    m.next = "IDLE"
            with m.State("IDLE"):
                with m.If(reset_wanted):
                    m.next = "RESET"
                with m.Elif(error_wanted):
                    m.d.sync += error_wanted.eq(0)
                    send(Reply.ERROR)
                with m.Elif(reset_reply):
                    m.d.sync += reset_reply.eq(0)
                    send(Reply.RESET_DONE)
                with m.Elif(identity_wanted):
                    m.d.sync += [identity_wanted.eq(0), counters.eq(Cat(self.saturation_count, self.cycle_count))]
                    send(Reply.IDENTITY)
                with m.Elif(accepted_wanted):
                    m.d.sync += accepted_wanted.eq(0)
                    send(Reply.ACCEPTED)
                with m.Elif(self.m_tvalid & self.m_tlast):
                    send(Reply.LAST_OUTPUT)
                with m.Elif(self.m_tvalid):
                    send(Reply.OUTPUT)
            with m.State("SEND"):
                m.d.comb += frames.start.eq(1)
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(frames.done):
                    with m.If((reply == Reply.OUTPUT) | (reply == Reply.LAST_OUTPUT)):
                        m.d.comb += self.m_tready.eq(1)
                        m.d.sync += beat.eq(Mux(reply == Reply.LAST_OUTPUT, 0, beat + 1))
                    m.next = "IDLE"
        return m
