"""Which multiplications a synthesis tool gives to DSP blocks, and how many each takes.

The rules are those of yosys' ``mul2dsp`` with each family's sizes (synth_ecp5, synth_xilinx for 7 series, synth_gowin,
version 0.70): both operands, and for Xilinx the product, have fewest bits; wider operands are cut into parts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Multiplier:
    """A family's multiplier: widest operands, the wider first, the fewest bits of both and of the product, and the
    fewest that are left of a wider operand for another block."""

    widest: tuple[int, int]
    narrowest: int
    product: int = 0
    left: int = 1

    def blocks(self, wide: int, narrow: int) -> int:
        counts = [
            max(1, bits // most + (bits % most >= self.left))
            for bits, most in zip((wide, narrow), self.widest, strict=True)
        ]
        return counts[0] * counts[1]


MULTIPLIERS: dict[str, tuple[Multiplier, ...]] = {
    "ecp5": (Multiplier((18, 18), 2, left=2),),
    "ice40": (),
    "xilinx": (Multiplier((25, 18), 2, 9),),
    # The smaller is taken where it is enough.
    "gowin": (Multiplier((9, 9), 4), Multiplier((18, 18), 4, left=4)),
}

# Where the tool lets multiplications that are never needed at once share a multiplier before it maps them.
SHARING = ("ecp5", "ice40", "gowin")


def multiplier_blocks(first: int, second: int, family: str, used: int | None = None) -> int:
    """DSP blocks of a product of two signed numbers of so many bits; 0 if it is built from logic.

    used : bits of the product that anything reads, if not all.
    """
    wide, narrow = max(first, second), min(first, second)
    product = min(first + second, used or first + second)
    counts = [
        kind.blocks(wide, narrow)
        for kind in MULTIPLIERS[family]
        if narrow >= kind.narrowest and product >= kind.product
    ]
    return min(counts, default=0)
