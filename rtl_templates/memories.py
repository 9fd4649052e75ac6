"""Memories: read-only ones that become ``$readmemh`` images in the bundle, and a stream FIFO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, Mux, Shape, ShapeLike, Signal, Value, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from codesign.layouts import index_width
from codesign.mapping import BLOCK_ROM_BITS
from rtl_templates.arithmetic import wrap


@dataclass(frozen=True)
class BundlePlatform:
    """Platform of the Verilog bundle: ROMs become instances of ``rom_module`` that read image files.

    Those of :data:`codesign.mapping.BLOCK_ROM_BITS` and more are of ``<rom_module>_block``, which asks the tools for
    block memory. Without a platform (simulation in Python) a ROM is an initialised memory.
    """

    rom_module: str

    def module(self, bits: int) -> str:
        """Module of a ROM of so many bits."""
        return self.rom_module + ("_block" if bits >= BLOCK_ROM_BITS else "")


class Rom(wiring.Component):
    """Read-only memory with a registered output.

    Operation: in a clock with ``en`` the word at ``addr`` is read and shown on ``data`` from the next clock on,
    until the next read. Latency 1, throughput 1 word a clock. ``data`` is undefined before the first read.

    Parameters
    ----------
    shape : shape of a word.
    words : contents as unsigned integers, at least one.
    image : path of the image in the bundle, relative to its folder.

    Members
    -------
    en : In(1); addr : In(index_width(depth)); data : Out(shape).

    Raises
    ------
    ValueError if ``words`` is empty.
    """

    def __init__(self, shape: ShapeLike, words: Sequence[int], image: str):
        if len(words) < 1:
            raise ValueError(f"words {words!r} of {image} must hold at least one word")
        self._words = words
        self._image = image
        self._width = Shape.cast(shape).width
        super().__init__({"en": In(1), "addr": In(index_width(len(words))), "data": Out(shape)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        data = Signal(self._width)
        m.d.comb += Value.cast(self.data).eq(data)
        if isinstance(platform, BundlePlatform):
            m.submodules.rom = Instance(
                platform.module(self._width * len(self._words)),
                p_WIDTH=self._width,
                p_DEPTH=len(self._words),
                p_ADDRESS_WIDTH=len(self.addr),
                p_FILE=self._image,
                i_clk=ClockSignal(),
                i_en=self.en,
                i_addr=self.addr,
                o_data=data,
            )
        else:
            words = [int(word) for word in self._words]
            m.submodules.rom = rom = memory.Memory(shape=unsigned(self._width), depth=max(2, len(words)), init=words)
            port = rom.read_port()
            m.d.comb += [port.en.eq(self.en), port.addr.eq(self.addr), data.eq(port.data)]
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
