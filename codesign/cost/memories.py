"""What a synthesis tool builds a memory from: block RAM, distributed RAM or logic, and how many of them.

The rules are those of yosys' ``memory_libmap`` (passes/memory/memory_libmap.cc, version 0.70) with the libraries of the
families (share/*/brams*.txt and lutrams*.txt there): every kind of RAM that can serve the memory is tried in every
width, and the cheapest is taken.

    parts = words over the words of one RAM, rounded up          addresses that are decoded outside of it
    cells = parts * width over the RAM's width, rounded up       parts of a narrow memory share a RAM, side by side
    cost  = (cost - scale) * cells + scale * parts * width / the RAM's width
            + 1/2 of the bits chosen from when reading + 1/2 of the write enables + 2 for everything emulated

Logic costs 1/16 a bit if nothing writes it, else 1, rounded down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from codesign.machine.plan import Memory

FAMILIES = ("ecp5", "ice40", "xilinx", "gowin")

MemoryKind = Literal["block", "lutram", "logic", "spram"]
# How a memory is read and written: only read; never both at one address in a clock; both, the read showing the word
# before; without a clock.
Access = Literal["rom", "apart", "old", "comb"]

ROM_BIT_COST = 1 / 16
RAM_BIT_COST = 1.0
MUX_COST = 0.5
EMULATION_COST = 2.0
# Points of what is emulated: a port of its own for reading, and registers and a comparison around a RAM that does not
# show the word before.
READ_PORT = 1
READ_FIRST = 6


@dataclass(frozen=True)
class Ram:
    """A kind of RAM of a family.

    address_bits : of its narrowest words. widths : of its words, ascending; each is twice the one before, or with
    parity bits more. cost, scale : as in the formula. byte : bits of a write enable, 0 for one of the whole word.
    write : widths of the write port, None for all. blocks : native blocks that one counts as. reads_old : whether it
    shows the word before when the same address is written.
    """

    kind: MemoryKind
    address_bits: int
    widths: tuple[int, ...]
    cost: float
    scale: float = 0.0
    byte: int = 0
    write: tuple[int, ...] | None = None
    blocks: float = 1.0
    reads_old: bool = False


_WIDE = (1, 2, 4, 9, 18, 36)
LIBRARY: dict[str, tuple[Ram, ...]] = {
    "ecp5": (
        Ram("lutram", 4, (4,), 4, reads_old=True),
        Ram("block", 14, _WIDE[:-1], 128, byte=9),
        Ram("block", 14, _WIDE, 128, byte=9, write=(36,)),
    ),
    "ice40": (
        Ram("block", 11, (2, 4, 8, 16), 64, write=(2, 4, 8)),
        Ram("block", 11, (2, 4, 8, 16), 64, byte=1, write=(16,)),
    ),
    "xilinx": (
        Ram("lutram", 5, (6,), 8, scale=7, reads_old=True),
        Ram("lutram", 6, (3,), 8, scale=7, reads_old=True),
        Ram("lutram", 5, (4,), 8, scale=8, reads_old=True),
        Ram("lutram", 6, (2,), 8, scale=8, reads_old=True),
        Ram("lutram", 7, (1,), 8, scale=8, reads_old=True),
        Ram("block", 14, _WIDE, 129, byte=9, blocks=0.5, reads_old=True),
        Ram("block", 15, (*_WIDE, 72), 257, byte=9, reads_old=True),
    ),
    "gowin": (
        Ram("lutram", 4, (4,), 4, scale=4, reads_old=True),
        Ram("block", 14, _WIDE, 128, byte=9),
    ),
}
# Of an iCE40 UP5K.
SPRAM_SHAPE = (16384, 16)


@dataclass(frozen=True)
class Built:
    """What a memory becomes.

    blocks : native blocks, halves of Xilinx' RAMB36 as 0.5. cells : RAMs of any kind. parts : what reads choose from.
    emulated : whether registers around it show the word before a write.
    """

    kind: MemoryKind
    blocks: float = 0.0
    cells: int = 0
    parts: int = 1
    emulated: bool = False


def access(memory: Memory) -> Access:
    """How a memory of a machine is used."""
    if not memory.clocked:
        return "comb"
    if memory.has_image:
        return "apart" if memory.loadable else "rom"
    # Queues are never read where they are written.
    return "apart" if memory.role == "queues" else "old"


def built(memory: Memory, family: str) -> Built:
    """What a family's tools build a memory from."""
    return _built(memory.depth, memory.width, access(memory), memory.style, family)


@lru_cache(maxsize=1 << 16)
def _built(depth: int, width: int, how: Access, style: str, family: str) -> Built:
    if style == "spram":
        return Built("spram", cells=-(-depth // SPRAM_SHAPE[0]) * -(-width // SPRAM_SHAPE[1]))
    bit_cost = ROM_BIT_COST if how == "rom" else RAM_BIT_COST
    # A style that the family has no RAM for is no choice.
    asked = {"block": "block", "distributed": "lutram"}.get(style)
    best, least = Built("logic"), float(int(depth * width * bit_cost))
    if asked is not None and any(ram.kind == asked and _serves(ram, how) for ram in LIBRARY[family]):
        least = float("inf")
    for ram in LIBRARY[family]:
        if not _serves(ram, how) or (asked is not None and ram.kind != asked):
            continue
        emulated = how == "old" and not ram.reads_old
        for cells, parts, cost in _shapes(ram, depth, width, written=how != "rom"):
            cost += EMULATION_COST * (READ_PORT + READ_FIRST * emulated)
            if cost < least:
                least = cost
                best = Built(ram.kind, cells * ram.blocks if ram.kind == "block" else 0.0, cells, parts, emulated)
    return best


def _serves(ram: Ram, how: Access) -> bool:
    """Whether such a RAM can be used so: block RAM needs a clock, distributed RAM is not for read-only memories."""
    return how != "comb" if ram.kind == "block" else how != "rom"


def _shapes(ram: Ram, depth: int, width: int, *, written: bool) -> list[tuple[int, int, float]]:
    """Cells, parts and cost of a memory in every width of a RAM."""
    found = []
    ports = ram.write if written and ram.write is not None else ram.widths
    # A port narrower than its narrowest width is emulated by write enables, down to the bits of one.
    fewest = min(min(ports), ram.byte) if ram.byte else min(ports)
    for number, base in enumerate(ram.widths):
        if written and base < fewest and base < min(ports):
            continue
        unit = min(base, max(ports))
        byte = 1 if not written else ram.byte if 0 < ram.byte <= unit else unit
        bits = -(-width // byte) * byte
        parts = -(-depth // (1 << (ram.address_bits - number)))
        cells = -(-parts * bits // unit)
        cost = (ram.cost - ram.scale) * cells + ram.scale * parts * width / unit
        cost += MUX_COST * (parts - 1) * width
        if written and parts > 1:
            cost += MUX_COST * parts
        found.append((cells, parts, cost))
    return found


def image_blocks(depth: int, width: int, family: str) -> float:
    """Native blocks of a read-only memory in block RAM."""
    return _built(depth, width, "rom", "block", family).blocks
