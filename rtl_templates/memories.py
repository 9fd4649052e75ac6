"""Memories: those that become ``$readmemh`` images in the bundle, read-only or loadable, and a stream FIFO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, Mux, Shape, ShapeLike, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.machine.capacity import Capacity, Role
from codesign.machine.choices import BLOCK_ROM_BITS
from codesign.machine.engine_map import EngineMap
from codesign.machine.layouts import index_width
from rtl_templates.arithmetic import wrap


@dataclass(frozen=True)
class BundlePlatform:
    """Platform of the Verilog bundle: ROMs become instances of ``rom_module`` that read image files.

    Those that can be loaded are of ``ram_module``. Memories of ``block_rom_bits`` and more are of ``<module>_block``,
    which asks the tools for block memory; those of ``spram_module`` are for single-port RAM and read no image. Without
    a platform (simulation in Python) a ROM is an initialised memory.
    """

    rom_module: str
    ram_module: str
    spram_module: str
    block_rom_bits: int = BLOCK_ROM_BITS

    def module(self, bits: int, *, loadable: bool) -> str:
        """Module of a memory of so many bits."""
        return (self.ram_module if loadable else self.rom_module) + ("_block" if bits >= self.block_rom_bits else "")


def load_bus(capacity: Capacity) -> data.StructLayout:
    """What a load sends to all memories at once: with ``valid``, ``data`` for an ``address`` of a ``memory``.

    ``memory`` is a number in the order of :attr:`codesign.machine.capacity.Capacity.memories`.
    """
    memories = capacity.memories
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "memory": unsigned(index_width(len(memories))),
            "address": unsigned(max(index_width(memory.depth) for memory in memories)),
            "data": unsigned(max(memory.record.width for memory in memories)),
        }
    )


def load_place(placement: EngineMap, role: Role, lane: int, stream: int = 0) -> tuple[int, data.StructLayout] | None:
    """Number of a memory on the load bus, and the bus; None if the machine is not loadable."""
    capacity = placement.capacity
    if capacity is None:
        return None
    return capacity.number(placement.index, role, lane, stream), load_bus(capacity)


class Rom(wiring.Component):
    """Memory with a registered output that is read-only in operation.

    Operation: in a clock with ``en`` the word at ``addr`` is read and shown on ``data`` from the next clock on,
    until the next read. Latency 1, throughput 1 word a clock. ``data`` is undefined before the first read. If the
    memory can be loaded, a clock in which ``load`` names it writes a word and reads none.

    Parameters
    ----------
    shape : shape of a word.
    words : contents as unsigned integers, at least one.
    image : path of the image in the bundle, relative to its folder.
    place : the memory's number on the load bus, and the bus's layout; None if it cannot be loaded.
    starts_empty : whether it is of single-port RAM, and holds nothing before a load.

    Members
    -------
    en : In(1); addr : In(index_width(depth)); data : Out(shape).
    load : In(load_bus), if it can be loaded. Nothing may be read in a clock with ``load.valid``.

    Raises
    ------
    ValueError if ``words`` is empty, or if a memory that starts empty cannot be loaded.
    """

    def __init__(
        self,
        shape: ShapeLike,
        words: Sequence[int],
        image: str,
        place: tuple[int, data.StructLayout] | None = None,
        *,
        starts_empty: bool = False,
    ):
        if len(words) < 1:
            raise ValueError(f"words {words!r} of {image} must hold at least one word")
        if starts_empty and place is None:
            raise ValueError(f"{image} starts empty and cannot be loaded")
        self._starts_empty = starts_empty
        self._words = words
        self._image = image
        self._place = place
        self._width = Shape.cast(shape).width
        members = {"en": In(1), "addr": In(index_width(len(words))), "data": Out(shape)}
        super().__init__(members | ({"load": In(place[1])} if place else {}))

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        data = Signal(self._width)
        m.d.comb += Value.cast(self.data).eq(data)
        write_en, write_addr, write_data = Signal(), Signal.like(self.addr), Signal(self._width)
        if self._place:
            m.d.comb += [
                write_en.eq(self.load.valid & (self.load.memory == self._place[0])),
                write_addr.eq(wrap(self.load.address, self.addr.shape())),
                write_data.eq(wrap(self.load.data, unsigned(self._width))),
            ]
        if isinstance(platform, BundlePlatform):
            module = platform.module(self._width * len(self._words), loadable=bool(self._place))
            m.submodules.rom = Instance(
                platform.spram_module if self._starts_empty else module,
                p_WIDTH=self._width,
                p_DEPTH=len(self._words),
                p_ADDRESS_WIDTH=len(self.addr),
                **({} if self._starts_empty else {"p_FILE": self._image}),
                i_clk=ClockSignal(),
                i_en=self.en,
                i_addr=self.addr,
                o_data=data,
                **(
                    {"i_write_en": write_en, "i_write_addr": write_addr, "i_write_data": write_data}
                    if self._place
                    else {}
                ),
            )
        else:
            words = [0 if self._starts_empty else int(word) for word in self._words]
            m.submodules.rom = rom = memory.Memory(shape=unsigned(self._width), depth=max(2, len(words)), init=words)
            port = rom.read_port()
            m.d.comb += [port.en.eq(self.en & ~write_en), port.addr.eq(self.addr), data.eq(port.data)]
            if self._place:
                write = rom.write_port()
                m.d.comb += [write.en.eq(write_en), write.addr.eq(write_addr), write.data.eq(write_data)]
        return m


class StreamFifo(wiring.Component):
    """FIFO of a stream in one synchronous memory.

    Operation: words leave in order. Latency 2 clocks, throughput 1 word a clock. Reads never meet a write to the
    same address, so that no memory needs to be transparent.

    Parameters
    ----------
    shape : shape of a word.
    depth : words in the memory, a power of two, 2 or more; one more waits at the output.

    Members
    -------
    i : In(stream); o : Out(stream); level : Out(range(depth + 1)), words in the memory.

    Raises
    ------
    ValueError if ``depth`` is not such a power of two.
    """

    def __init__(self, shape: ShapeLike, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth {depth!r} must be a power of two, 2 or more")
        self._shape = shape
        self._depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        width = Shape.cast(self._shape).width
        m.submodules.storage = storage = memory.Memory(shape=unsigned(width), depth=self._depth, init=[])
        write, read = storage.write_port(), storage.read_port()
        # Counts of the words that went in and out, modulo twice the depth: their difference is the level.
        counter = unsigned(self._depth.bit_length())
        address = unsigned(len(read.addr))
        head = Signal(counter)
        tail = Signal(counter)
        push = Signal()
        pull = Signal()
        m.d.comb += [
            self.level.eq(wrap(tail - head, counter)),
            self.i.ready.eq(~((tail ^ head) == self._depth)),
            push.eq(self.i.valid & self.i.ready),
            pull.eq((tail != head) & (~self.o.valid | self.o.ready)),
            write.en.eq(push),
            write.addr.eq(wrap(tail, address)),
            write.data.eq(Value.cast(self.i.payload)),
            read.en.eq(pull),
            read.addr.eq(wrap(head, address)),
            Value.cast(self.o.payload).eq(read.data),
        ]
        with m.If(push):
            m.d.sync += tail.eq(wrap(tail + 1, counter))
        with m.If(pull):
            m.d.sync += [head.eq(wrap(head + 1, counter)), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m


def next_index(index: Signal, count: int) -> Value:
    """``index`` + 1 modulo ``count``."""
    following = wrap(index + 1, index.shape())
    if count == 1 << len(index):
        return following
    return Mux(index == count - 1, 0, following)
