"""Bytes and frames on a UART: receiver, transmitter, and the stuffing and checking of frames.

Baud rates are whole divisors of the clock.
"""

# ruff: noqa: SIM117 -- an m.If inside another is not the same as both in one `with` when m.Elif follows.
# Amaranth makes interface members and context managers at run time, where the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.crc.catalog import CRC16_IBM_3740
from amaranth.lib.wiring import In, Out

from boards.protocol import CRC_BYTES
from codesign.basics.errors import InputError

MIN_DIVISOR = 4
MAX_DIVISOR = 65535
MAX_BAUD_ERROR = 0.02


def uart_divisor(clock_hz: float, baud: float) -> tuple[int, float]:
    """Clocks per bit and the relative baud error that rounding them leaves.

    Raises InputError if the clock is too slow for ``baud`` or the error is beyond 2 %: a receiver that samples in
    the middle of the tenth bit bears 5 % in all, the sender's error and the synchroniser's clock included.
    """
    divisor = round(clock_hz / baud)
    if not MIN_DIVISOR <= divisor <= MAX_DIVISOR:
        raise InputError(
            f"baud {baud:g}: {clock_hz / baud:.1f} clocks per bit at {clock_hz / 1e6:g} MHz, "
            f"expected {MIN_DIVISOR}..{MAX_DIVISOR}"
        )
    error = clock_hz / divisor / baud - 1
    if abs(error) > MAX_BAUD_ERROR:
        raise InputError(
            f"baud {baud:g}: {divisor} clocks per bit at {clock_hz / 1e6:g} MHz are {error:+.1%} off; "
            f"choose another rate, such as {clock_hz / divisor:.0f}"
        )
    return divisor, error


def check_divisor(divisor: int) -> int:
    """The divisor, if it is within range. Raises ValueError otherwise."""
    if not MIN_DIVISOR <= divisor <= MAX_DIVISOR:
        raise ValueError(f"divisor must be {MIN_DIVISOR}..{MAX_DIVISOR}, not {divisor!r}")
    return divisor


class UartReceiver(wiring.Component):
    """Asynchronous receiver, 8 data bits, no parity, one stop bit.

    Every bit is sampled once, in its middle; a byte appears half a bit time into its stop bit.

    Parameters
    ----------
    divisor : clocks per bit, 4 or more.

    Members
    -------
    rx : In(1), the line, idle high; asynchronous, synchronised here.
    data : Out(8), valid with ``valid``.
    valid : Out(1), one clock per byte; there is no backpressure.
    error : Out(1), with ``valid``: the stop bit was low, so that ``data`` is not to be trusted.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = check_divisor(divisor)
        super().__init__({"rx": In(1, init=1), "data": Out(8), "valid": Out(1), "error": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line = Signal(2, init=0b11)
        level = line[1]
        timer = Signal(range(self.divisor))
        remaining = Signal(range(11))
        shifter = Signal(9)
        m.d.comb += [self.data.eq(shifter[:8]), self.error.eq(~shifter[8])]
        m.d.sync += [line.eq(Cat(self.rx, line[0])), self.valid.eq(0)]
        with m.If(remaining == 0):
            with m.If(~level):
                # The synchroniser and the two clocks until the timer runs take the rest of half a bit.
                m.d.sync += [timer.eq(self.divisor // 2 - 1), remaining.eq(10)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif((remaining == 10) & level):
            m.d.sync += remaining.eq(0)
        with m.Else():
            m.d.sync += [
                timer.eq(self.divisor - 1),
                shifter.eq(Cat(shifter[1:], level)),
                remaining.eq(remaining - 1),
                self.valid.eq(remaining == 1),
            ]
        return m


class UartTransmitter(wiring.Component):
    """Asynchronous transmitter, 8 data bits, no parity, one stop bit; 10 bit times per byte, without pauses.

    Parameters
    ----------
    divisor : clocks per bit, 4 or more.

    Members
    -------
    data : In(8), taken in the clock in which ``valid`` and ``ready`` are both high.
    valid : In(1).
    ready : Out(1).
    tx : Out(1), the line, idle high.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = check_divisor(divisor)
        super().__init__({"data": In(8), "valid": In(1), "ready": Out(1), "tx": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        timer = Signal(range(self.divisor))
        remaining = Signal(range(11))
        shifter = Signal(9, init=0x1FF)
        level = Signal(init=1)
        m.d.comb += [self.tx.eq(level), self.ready.eq((remaining == 0) & (timer == 0))]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(remaining != 0):
            m.d.sync += [
                level.eq(shifter[0]),
                shifter.eq(Cat(shifter[1:], Const(1, 1))),
                remaining.eq(remaining - 1),
                timer.eq(self.divisor - 1),
            ]
        with m.Elif(self.valid):
            m.d.sync += [level.eq(0), shifter.eq(Cat(self.data, Const(1, 1))), remaining.eq(9)]
            m.d.sync += timer.eq(self.divisor - 1)
        return m


class CobsDecoder(wiring.Component):
    """Undoes consistent-overhead byte stuffing; at most one byte out for one byte in, one clock later.

    Members
    -------
    data, valid, error : In(8), In(1), In(1), a received byte; ``error`` marks a damaged one.
    out_data, out_valid : Out(8), Out(1), a decoded byte.
    end : Out(1), one clock per frame that was not empty: its delimiter came.
    damaged : Out(1), with ``end``: a byte was damaged, or the last block was cut short.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "data": In(8),
                "valid": In(1),
                "error": In(1),
                "out_data": Out(8),
                "out_valid": Out(1),
                "end": Out(1),
                "damaged": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        remaining = Signal(8)
        started = Signal()
        full = Signal()
        bad = Signal()
        m.d.sync += [self.out_valid.eq(0), self.end.eq(0)]
        with m.If(self.valid & self.error):
            m.d.sync += [bad.eq(1), started.eq(1)]
        with m.Elif(self.valid & (self.data == 0)):
            m.d.sync += [
                self.end.eq(started),
                self.damaged.eq(bad | (remaining != 0)),
                remaining.eq(0),
                started.eq(0),
                bad.eq(0),
            ]
        with m.Elif(self.valid & (remaining == 0)):
            # A new block: the one before stood for a zero, unless it was a full one.
            m.d.sync += [
                self.out_data.eq(0),
                self.out_valid.eq(started & ~full),
                remaining.eq(self.data - 1),
                full.eq(self.data == 0xFF),
                started.eq(1),
            ]
        with m.Elif(self.valid):
            m.d.sync += [self.out_data.eq(self.data), self.out_valid.eq(1), remaining.eq(remaining - 1)]
        return m


class FrameTransmitter(wiring.Component):
    """Sends one frame: appends the CRC, stuffs, appends the delimiter.

    The payload is not buffered: its bytes are asked for by index, up to three times each, and must not change until
    ``done``. A frame of n payload bytes occupies the line for n + 4 bytes.

    Parameters
    ----------
    max_length : greatest payload length, up to 250.

    Members
    -------
    start : In(1), begin a frame; ignored unless ``idle``.
    length : In, payload bytes, stable from ``start`` to ``done``.
    index : Out, the payload byte that is wanted.
    byte : In(8), payload byte ``index``, in the same clock.
    idle : Out(1).
    done : Out(1), one clock, when the delimiter has been handed to the UART.
    data, valid, ready : Out(8), Out(1), In(1), bytes for the UART.
    """

    def __init__(self, max_length: int) -> None:
        if not 1 <= max_length <= 250:
            raise ValueError(f"max_length must be 1..250, not {max_length!r}")
        self.max_length = max_length
        self.counter_shape = range(max_length + CRC_BYTES + 2)
        super().__init__(
            {
                "start": In(1),
                "length": In(self.counter_shape),
                "index": Out(self.counter_shape),
                "byte": In(8),
                "idle": Out(1),
                "done": Out(1),
                "data": Out(8),
                "valid": Out(1),
                "ready": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC16_IBM_3740().create()
        # `block` is where a block's first byte is, `position` walks, `zero` is where the block's zero was found.
        block = Signal(self.counter_shape)
        position = Signal(self.counter_shape)
        zero = Signal(self.counter_shape)
        byte = Signal(8)
        total = Signal(self.counter_shape)
        m.d.comb += [
            self.index.eq(position),
            total.eq(self.length + CRC_BYTES),
            crc.data.eq(self.byte),
        ]
        with m.If(position < self.length):
            m.d.comb += byte.eq(self.byte)
        with m.Elif(position == self.length):
            m.d.comb += byte.eq(crc.crc[8:])
        with m.Else():
            m.d.comb += byte.eq(crc.crc[:8])
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), crc.start.eq(1)]
                m.d.sync += [position.eq(0), block.eq(0)]
                with m.If(self.start):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += crc.valid.eq(1)
                m.d.sync += position.eq(position + 1)
                with m.If(position + 1 == self.length):
                    m.d.sync += position.eq(0)
                    m.next = "SCAN"
            with m.State("SCAN"):
                with m.If((position == total) | (byte == 0)):
                    m.d.sync += [zero.eq(position), position.eq(block)]
                    m.next = "CODE"
                with m.Else():
                    m.d.sync += position.eq(position + 1)
            with m.State("CODE"):
                m.d.comb += [self.valid.eq(1), self.data.eq(zero - block + 1)]
                with m.If(self.ready):
                    m.next = "DATA"
            with m.State("DATA"):
                with m.If(position == zero):
                    m.d.sync += [block.eq(zero + 1), position.eq(zero + 1)]
                    m.next = "SCAN"
                    with m.If(zero == total):
                        m.next = "DELIMITER"
                with m.Else():
                    m.d.comb += [self.valid.eq(1), self.data.eq(byte)]
                    with m.If(self.ready):
                        m.d.sync += position.eq(position + 1)
            with m.State("DELIMITER"):
                m.d.comb += [self.valid.eq(1), self.data.eq(0), self.done.eq(self.ready)]
                with m.If(self.ready):
                    m.next = "IDLE"
        return m
