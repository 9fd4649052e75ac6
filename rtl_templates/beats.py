"""From wide input beats to single words."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Elaboratable, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


def beat_layout(words: int, width: int) -> data.StructLayout:
    """A beat: ``words`` words of ``width`` bits, the first in the least significant bits, ``tkeep`` and ``tlast``."""
    return data.StructLayout(
        {"words": data.ArrayLayout(unsigned(width), words), "keep": unsigned(words * width // 8), "last": unsigned(1)}
    )


class BeatSplitter(wiring.Component):
    """Sends the words of a beat on, one a clock, in order.

    Operation: the first word of a beat always counts, the others up to the first whose lowest byte is not kept. The
    last one that counts carries ``last``. Latency 1 clock; no bubble between beats.

    Parameters
    ----------
    words : words of a beat, 2 or more.
    width : bits of a word, whole bytes.

    Members
    -------
    i : In(stream of beat_layout); o : Out(stream of {word, last}).

    Raises
    ------
    ValueError if ``words`` is below 2 or ``width`` no number of whole bytes.
    """

    def __init__(self, words: int, width: int):
        if words < 2:
            raise ValueError(f"words {words!r} of a beat must be 2 or more")
        if width < 8 or width % 8:
            raise ValueError(f"width {width!r} of a word must be whole bytes")
        self._words = words
        self._width = width
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(words, width))),
                "o": Out(stream.Signature(data.StructLayout({"word": unsigned(width), "last": unsigned(1)}))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        words = [Signal(self._width, name=f"word{k}", reset_less=True) for k in range(self._words)]
        # Bit k: word k waits. Words move down as they are sent.
        waiting = Signal(self._words)
        last = Signal()
        moves = Signal()
        step = self._width // 8
        counts = [self.i.valid, *(self.i.payload.keep[k * step] for k in range(1, self._words))]
        m.d.comb += [
            self.o.valid.eq(waiting[0]),
            self.o.payload.word.eq(words[0]),
            self.o.payload.last.eq(last & ~waiting[1]),
            moves.eq(~waiting[0] | self.o.ready),
            self.i.ready.eq(moves & ~waiting[1]),
        ]
        with m.If(self.i.ready):
            m.d.sync += [
                waiting.eq(Cat(Cat(counts[: k + 1]).all() for k in range(self._words))),
                last.eq(self.i.payload.last),
                *(word.eq(self.i.payload.words[k]) for k, word in enumerate(words)),
            ]
        with m.Elif(moves):
            m.d.sync += [waiting.eq(waiting >> 1), *(word.eq(above) for word, above in pairwise(words))]
        return m
