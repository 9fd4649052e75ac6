"""Writes another network into a loadable machine."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from codesign.contract.network import FrozenNetwork
from codesign.machine.capacity import (
    CRC_BYTES,
    HASH_BYTES,
    HEADER_BYTES,
    LAYOUT_BYTES,
    LOAD_ERRORS,
    MAGIC,
    Capacity,
    LoadMemory,
)
from codesign.machine.layouts import index_width
from rtl_templates.arithmetic import record_layout, wrap
from rtl_templates.memories import load_bus

DOES_NOT_FIT, WRONG_HASH, WRONG_LENGTH, WRONG_CHECKSUM = range(len(LOAD_ERRORS))


class NetworkLoader(wiring.Component):
    """Takes load images, bytes of an AXI4-Stream, checks them, and writes memories and registers.

    An image: magic, layout id, network hash, registers, every memory in the order of
    :attr:`codesign.machine.capacity.Capacity.memories`, CRC-32 (ISO-HDLC) of all that; numbers and words little-endian
    in whole bytes, ``last`` on the last byte.

    Operation: an image waits until ``idle``. Its header is judged before anything is written: with another magic,
    layout id or hash the rest is dropped, and the network that was loaded stays. Then ``loaded`` and ``network_hash``
    are 0 until the whole image is in and its length and checksum are right; if they are not, until an image's are.
    Throughput one byte a clock; the judgement of the header takes one clock, that of the checksum another. A word is on
    the bus one clock after its last byte.

    Registers, hash and ``loaded`` survive ``rst``, as the memories do; an image that ``rst`` cuts off is dropped. They
    start with the build network, or with none if the machine ``starts_empty``.

    Parameters
    ----------
    network : the build network.
    capacity : of the machine.
    starts_empty : whether memories hold no network before the first load.

    Members
    -------
    i : In(stream of {data, last}).
    expected_hash : In(64); only a network of this hash is taken, any if 0.
    idle : In(1), no sample is inside or half sent, and none can come in while ``hold``.
    hold : Out(1), no sample may begin; also while no whole network is in.
    loaded : Out(1), a whole network is in.
    load_error : Out(4), bits as codesign.machine.capacity.LOAD_ERRORS; cleared when the next image begins.
    network_hash : Out(64), 0 while no whole network is in.
    registers : Out(record of codesign.machine.capacity.Capacity.registers).
    bus : Out(load_bus).

    Raises
    ------
    ValueError if the network does not have the capacity's layers.
    """

    def __init__(self, network: FrozenNetwork, capacity: Capacity, *, starts_empty: bool = False):
        if len(network.layers) != len(capacity.layers):
            raise ValueError(f"network of {len(network.layers)} layers for a capacity of {len(capacity.layers)}")
        self._capacity = capacity
        self._starts_empty = starts_empty
        self._start_hash = 0 if starts_empty else int(network.hash[:16], 16)
        self._start_registers = int(capacity.registers.pack(capacity.register_values(network))[0])
        self._identity = MAGIC + capacity.layout_id(network).to_bytes(LAYOUT_BYTES, "little")
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"data": 8, "last": 1}))),
                "expected_hash": In(64),
                "idle": In(1),
                "hold": Out(1),
                "loaded": Out(1),
                "load_error": Out(len(LOAD_ERRORS)),
                "network_hash": Out(64),
                "registers": Out(record_layout(capacity.registers)),
                "bus": Out(load_bus(capacity)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        register_bytes = self._capacity.registers.stream_width // 8
        byte, last = self.i.payload.data, self.i.payload.last
        take = Signal()
        count = Signal(range(max(HEADER_BYTES, register_bytes, CRC_BYTES)))
        identical = Signal()
        incoming = Signal(8 * HASH_BYTES, reset_less=True)
        whole = Signal(init=not self._starts_empty, reset_less=True)
        held_hash = Signal(64, init=self._start_hash, reset_less=True)
        registers = Signal(8 * register_bytes, init=self._start_registers, reset_less=True)
        asked = Signal()
        begins = Signal()
        counted = Signal()
        words_done = Signal()
        error = Signal(len(LOAD_ERRORS))
        m.submodules.checksum = crc = CRC32_ISO_HDLC().create()
        m.d.comb += [
            take.eq(self.i.valid & self.i.ready),
            crc.data.eq(byte),
            crc.start.eq(begins),
            crc.valid.eq(take),
            self.loaded.eq(whole),
            self.network_hash.eq(held_hash),
            Value.cast(self.registers).eq(wrap(registers, unsigned(len(Value.cast(self.registers))))),
        ]
        m.d.sync += self.load_error.eq(Mux(begins, 0, self.load_error | error))
        with m.If(take):
            m.d.sync += count.eq(Mux(counted, 0, wrap(count + 1, count.shape())))
        identity = Signal(8)
        with m.Switch(count):
            for place, value in enumerate(self._identity):
                with m.Case(place):
                    m.d.comb += identity.eq(value)

        def ends_early() -> None:
            with m.If(take & last):
                m.d.comb += error[WRONG_LENGTH].eq(1)
                m.next = "idle"

        m.d.comb += self.hold.eq(1)
        with m.FSM() as fsm:
            with m.State("idle"):
                # A registered request, so that no path leads from the one port's valid to the other's ready.
                m.d.sync += asked.eq(self.i.valid)
                m.d.comb += self.hold.eq(asked | ~whole)
                with m.If(asked & self.idle):
                    m.d.comb += begins.eq(1)
                    m.d.sync += [asked.eq(0), count.eq(0), identical.eq(1)]
                    m.next = "header"
            with m.State("header"):
                m.d.comb += [self.i.ready.eq(1), counted.eq(count == HEADER_BYTES - 1)]
                with m.If(take):
                    m.d.sync += [
                        incoming.eq(Cat(incoming[8:], byte)),
                        identical.eq(identical & ((byte == identity) | (count >= len(self._identity)))),
                    ]
                    with m.If(counted):
                        m.next = "judge"
                ends_early()
            with m.State("judge"):
                m.d.comb += [
                    error[DOES_NOT_FIT].eq(~identical),
                    error[WRONG_HASH].eq(identical & ~self._is_expected(incoming)),
                ]
                with m.If(error.any()):
                    m.next = "drop"
                with m.Else():
                    m.d.sync += [whole.eq(0), held_hash.eq(0)]
                    m.next = "registers"
            with m.State("registers"):
                m.d.comb += [self.i.ready.eq(1), counted.eq(count == register_bytes - 1)]
                with m.If(take):
                    m.d.sync += registers.eq(Cat(registers[8:], byte))
                    with m.If(counted):
                        m.next = "words"
                ends_early()
            with m.State("words"):
                m.d.comb += [self.i.ready.eq(1), counted.eq(1)]
                with m.If(take & words_done):
                    m.next = "checksum"
                ends_early()
            with m.State("checksum"):
                m.d.comb += [self.i.ready.eq(1), counted.eq(count == CRC_BYTES - 1)]
                with m.If(counted):
                    with m.If(take):
                        m.d.comb += error[WRONG_LENGTH].eq(~last)
                        m.next = "drop"
                    with m.If(take & last):
                        m.next = "end"
                with m.Else():
                    ends_early()
            with m.State("end"):
                m.d.comb += error[WRONG_CHECKSUM].eq(~crc.match_detected)
                with m.If(crc.match_detected):
                    m.d.sync += [whole.eq(1), held_hash.eq(incoming)]
                m.next = "idle"
            with m.State("drop"):
                m.d.comb += [self.i.ready.eq(1), self.hold.eq(~whole)]
                with m.If(take & last):
                    m.next = "idle"
        self._words(m, fsm.ongoing("words") & take, begins, words_done)
        return m

    def _is_expected(self, found: Value) -> Value:
        return (self.expected_hash == found) | (self.expected_hash == 0)

    def _words(self, m: Module, take: Value, begins: Signal, done: Signal) -> None:
        """Puts bytes together and counts bytes, addresses, memories that are alike, and groups of those.

        ``done`` : the next byte is the last of the last word.
        """
        groups: list[list[LoadMemory]] = []
        for memory in self._capacity.memories:
            if memory.lane == memory.stream == 0:
                groups.append([])
            groups[-1].append(memory)
        most_bytes = max(memory.word_bytes for memory in self._capacity.memories)
        group = Signal(unsigned(index_width(len(groups))))
        lane = Signal(unsigned(index_width(max(map(len, groups)))))
        number = Signal.like(self.bus.memory)
        address = Signal.like(self.bus.address)
        position = Signal(unsigned(index_width(most_bytes)))
        word = Signal(8 * most_bytes, reset_less=True)
        last_byte = Signal()
        last_address = Signal()
        last_lane = Signal()
        with m.Switch(group):
            for index, alike in enumerate(groups):
                with m.Case(index):
                    m.d.comb += [
                        last_byte.eq(position == alike[0].word_bytes - 1),
                        last_address.eq(address == alike[0].depth - 1),
                        last_lane.eq(lane == len(alike) - 1),
                    ]
        m.d.comb += [
            done.eq(last_byte & last_address & last_lane & (group == len(groups) - 1)),
            self.bus.data.eq(wrap(word, self.bus.data.shape())),
        ]
        m.d.sync += [
            self.bus.valid.eq(take & last_byte),
            self.bus.memory.eq(number),
            self.bus.address.eq(address),
        ]
        with m.If(begins):
            m.d.sync += [group.eq(0), lane.eq(0), number.eq(0), address.eq(0), position.eq(0)]
        with m.If(take):
            with m.Switch(position):
                for place in range(most_bytes):
                    with m.Case(place):
                        m.d.sync += word[8 * place : 8 * place + 8].eq(self.i.payload.data)
            m.d.sync += position.eq(wrap(position + 1, position.shape()))
            with m.If(last_byte):
                m.d.sync += [position.eq(0), address.eq(wrap(address + 1, address.shape()))]
                with m.If(last_address):
                    m.d.sync += [
                        address.eq(0),
                        number.eq(wrap(number + 1, number.shape())),
                        lane.eq(wrap(lane + 1, lane.shape())),
                    ]
                    with m.If(last_lane):
                        m.d.sync += [lane.eq(0), group.eq(wrap(group + 1, group.shape()))]
