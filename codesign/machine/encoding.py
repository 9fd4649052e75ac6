"""How a lane's rows and synapses lie in its memories.

Plain words are ``{start, count}`` for every source and ``{slot, weight}`` for every synapse. Three encodings make them
smaller, each for some logic behind the memory:

- grouped rows: one word ``{start, count0, count1, ...}`` for several sources, whose rows lie one after the other; the
  start of a later one is ``start`` plus the counts before it;
- gaps: in place of the slot, the number of slots passed over since the synapse before it in the row (since -1 for the
  first). The greatest code, ``2^gap_bits - 1``, passes over so many slots and holds no synapse: an *escape* word, which
  costs a clock as a synapse does;
- a codebook: in place of the weight, the number of one of the few values that occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from codesign.machine.layouts import Field, Record, index_width

Int = npt.NDArray[np.int64]

ROW_GROUPS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Encoding:
    """What is stored; the default is plain words.

    row_group : sources of one row word, a power of two.
    gap_bits : bits of a gap; None for slots themselves.
    codebook : ascending weights, which codes stand for; None for weights themselves.
    """

    row_group: int = 1
    gap_bits: int | None = None
    codebook: tuple[int, ...] | None = None

    @property
    def escape(self) -> int:
        """The gap that holds no synapse, and how many slots it passes over."""
        assert self.gap_bits is not None
        return (1 << self.gap_bits) - 1

    @property
    def is_plain(self) -> bool:
        return self == PLAIN

    def row_record(self, n_words: int, longest_row: int) -> Record:
        """Word of the row table of a lane with so many synapse words, at most ``longest_row`` of them in a row."""
        start, bits = Field("start", index_width(max(1, n_words))), index_width(longest_row + 1)
        if self.row_group == 1:
            return Record((start, Field("count", bits)))
        return Record((start, *(Field(f"count{k}", bits) for k in range(self.row_group))))

    def synapse_record(self, n_slots: int, weight_bits: int) -> Record:
        """Word of the synapse memory."""
        place = Field("slot", index_width(n_slots)) if self.gap_bits is None else Field("gap", self.gap_bits)
        if self.codebook is None:
            return Record((place, Field("weight", weight_bits, signed=True)))
        return Record((place, Field("code", index_width(len(self.codebook)))))

    def synapse_columns(self, row_count: Int, slot: Int, weight: Int) -> tuple[dict[str, Int], Int]:
        """Fields of a lane's synapse words, and the words of each row, escapes included.

        row_count : int64 (n_rows,), synapses of each row. slot, weight : int64 (n,), row by row, slots ascending.
        """
        if self.gap_bits is None:
            places, words, row_words = {"slot": slot}, np.ones(slot.size, np.int64), row_count
        else:
            gap = gaps(row_count, slot)
            words = gap // self.escape + 1
            gap, row_words = gap % self.escape, _row_sums(row_count, words)
            last = np.cumsum(words) - 1
            spread = np.full(int(words.sum()), self.escape, np.int64)
            spread[last] = gap
            places = {"gap": spread}
        values = np.zeros(int(words.sum()), np.int64)
        coded = weight if self.codebook is None else np.searchsorted(self.codebook, weight)
        values[np.cumsum(words) - 1] = coded
        return places | {"weight" if self.codebook is None else "code": values}, row_words

    def row_columns(self, row_start: Int, row_words: Int) -> dict[str, Int]:
        """Fields of a lane's row table, of int64 (n_rows,) words; a group's rows must lie one after the other."""
        if self.row_group == 1:
            return {"start": row_start, "count": row_words}
        missing = -row_words.size % self.row_group
        counts = np.pad(row_words, (0, missing)).reshape(-1, self.row_group)
        first = np.cumsum(row_words) - row_words
        starts = np.where(counts.any(axis=1), first[:: self.row_group], 0)
        return {"start": starts, **{f"count{k}": counts[:, k] for k in range(self.row_group)}}

    def describe(self) -> dict[str, int | list[int] | None]:
        """JSON form, as in the sidecar."""
        codebook = None if self.codebook is None else list(self.codebook)
        return {"row_group": self.row_group, "gap_bits": self.gap_bits, "codebook": codebook}


PLAIN = Encoding()


def row_entry(word: Record) -> Record:
    """One source's row, {start, count}, as it is looked up in a word of the row table."""
    start, count = word.fields[:2]
    return Record((start, Field("count", count.width)))


def gaps(row_count: Int, slot: Int) -> Int:
    """Slots passed over before each synapse, int64 (n,)."""
    before = np.concatenate([[-1], slot[:-1]])
    first = (np.cumsum(row_count) - row_count)[row_count > 0]
    before[first] = -1
    return slot - before - 1


def smallest(lanes: Sequence[tuple[Int, Int, Int]], n_slots: int, weight_bits: int) -> Encoding:
    """The encoding of the fewest bits, rows and synapses together; of equals the plainest.

    lanes : (row_count, slot, weight) of each lane, as :meth:`Encoding.synapse_columns` takes them.
    """
    held = np.unique(np.concatenate([weight for _, _, weight in lanes]))
    books: list[tuple[int, ...] | None] = [None]
    if held.size > 0 and index_width(held.size) < weight_bits:
        books.append(tuple(held.tolist()))
    distances = [gaps(count, slot) for count, slot, _ in lanes]
    best, fewest = PLAIN, None
    for gap_bits in (None, *range(1, index_width(n_slots))):
        trial = Encoding(1, gap_bits)
        words = [np.ones(gap.size, np.int64) if gap_bits is None else gap // trial.escape + 1 for gap in distances]
        rows = [_row_sums(count, found) for (count, _, _), found in zip(lanes, words, strict=True)]
        n_words = [max(1, int(found.sum())) for found in words]
        longest = max(int(row.max()) for row in rows)
        for group, book in product(ROW_GROUPS, books):
            encoding = Encoding(group, gap_bits, book)
            row_bits = encoding.row_record(max(n_words), longest).width * -(-rows[0].size // group) * len(lanes)
            bits = row_bits + sum(n_words) * encoding.synapse_record(n_slots, weight_bits).width
            if fewest is None or bits < fewest:
                best, fewest = encoding, bits
    return best


def _row_sums(row_count: Int, values: Int) -> Int:
    """Sum of the values of each row, int64 (n_rows,)."""
    total = np.concatenate([[0], np.cumsum(values)])
    ends = np.cumsum(row_count)
    return total[ends] - total[ends - row_count]
