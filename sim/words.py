"""Input words from stimuli, and fields of recorded words. The sidecar says where the fields are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.contract.sidecar import Sidecar, Word
from codesign.contract.stimulus import Stimulus

LAST = np.uint64(1 << 56)
FIRST = np.uint64(1 << 57)

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Field:
    """A field of a word: ``width`` bits from bit ``offset``."""

    offset: int
    width: int
    signed: bool


def fields(word: Word) -> dict[str, Field]:
    """Fields of one word of the sidecar, by name."""
    return {item.name: Field(item.offset, item.width, item.signed) for item in word.fields}


def extract(words: npt.NDArray[np.uint32], field: Field) -> npt.NDArray[np.int64]:
    """Values of a field, int64 (n,), from words (n, k): 32-bit pieces, least significant first."""
    if field.width == 0:
        return np.zeros(len(words), np.int64)
    if field.width > 64:
        raise InputError(f"a field of {field.width} bits cannot be read, the limit is 64")
    piece, shift = divmod(field.offset, 32)
    value = words[:, piece].astype(np.uint64) >> np.uint64(shift)
    have = 32 - shift
    while have < field.width:
        piece += 1
        value |= words[:, piece].astype(np.uint64) << np.uint64(have)
        have += 32
    if field.width < 64:
        value &= np.uint64((1 << field.width) - 1)
    result = value.view(np.int64)
    if field.signed and field.width < 64:
        sign = np.int64(1 << (field.width - 1))
        result = (result ^ sign) - sign
    return result


class InputEncoder:
    """Turns samples of a stimulus into input words, flags in the top byte (see ``tb/stream_source.sv``)."""

    def __init__(self, sidecar: Sidecar) -> None:
        layout = fields(sidecar.input_word)
        self.is_current = sidecar.coding == "current"
        self.source = layout["source"]
        self.extra = layout["value" if self.is_current else "kind"]
        self.event, self.end = sidecar.input_kinds.event, sidecar.input_kinds.end
        self._addresses = sidecar.input_addresses
        self._streams = sidecar.event_streams
        self._place_bits = sidecar.input_picture.place_bits if sidecar.input_picture else 0

    def word(self, source: Any, extra: Any) -> Any:
        """Word(s) from a source and a kind, or a value with coding 'current'. Does not check the range."""
        mask = np.uint64((1 << self.source.width) - 1)
        packed = (np.asarray(source, np.uint64) & mask) << np.uint64(self.source.offset)
        return packed | (np.asarray(extra, np.uint64) << np.uint64(self.extra.offset))

    def address(self, sources: Any) -> Any:
        """What the field ``source`` holds for inputs of these indices."""
        return sources if self._addresses is None else np.asarray(self._addresses, np.int64)[sources]

    def index_of(self, n_inputs: int) -> npt.NDArray[np.int64]:
        """int64 (2**width,): input of each value of the field ``source``, -1 where there is none."""
        found = np.full(1 << self.source.width, -1, np.int64)
        found[self.address(np.arange(n_inputs))] = np.arange(n_inputs)
        return found

    def split(self, word: Any) -> tuple[int, int]:
        """Source and kind (or value) of one word."""
        number = int(word)
        return tuple((number >> field.offset) & ((1 << field.width) - 1) for field in (self.source, self.extra))  # type: ignore[return-value]

    def ordered(self, sources: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Inputs in an order in which a beat holds words for every stream of events, as far as there are."""
        stream = (np.asarray(self.address(sources), np.int64) >> self._place_bits) % self._streams
        before = np.array([int((stream[:place] == own).sum()) for place, own in enumerate(stream)], np.int64)
        return sources[np.lexsort((stream, before))]

    def sample(self, stimulus: Stimulus, index: int, rng: np.random.Generator | None = None) -> Words:
        """Words of one sample; ``rng`` shuffles the order of sources where it is free."""
        if self.is_current:
            assert stimulus.values is not None
            values = stimulus.values[index]
            sources = self.ordered(np.flatnonzero(values))
            if rng is not None:
                silent = np.flatnonzero(values == 0)
                sources = rng.permutation(np.concatenate([sources, silent[: int(rng.integers(3))]]))
            if sources.size == 0:
                sources = np.zeros(1, np.int64)
            words = self.word(self.address(sources), values[sources])
        else:
            parts = []
            for timestep in range(stimulus.timesteps):
                sources = self.ordered(stimulus.events(index, timestep))
                if rng is not None:
                    sources = rng.permutation(sources)
                parts += [self.word(self.address(sources), self.event), np.atleast_1d(self.word(0, self.end))]
            words = np.concatenate(parts)
        words = words.astype(np.uint64)
        words[0] |= FIRST
        words[-1] |= LAST
        return words

    def samples(self, stimulus: Stimulus, rng: np.random.Generator | None = None) -> list[Words]:
        """Words of every sample."""
        return [self.sample(stimulus, index, rng) for index in range(len(stimulus))]


def write_words(path: Path, samples: Sequence[Words]) -> None:
    """Word file of one segment, big-endian as ``$fread`` expects it."""
    words = np.concatenate(samples) if samples else np.zeros(0, np.uint64)
    path.write_bytes(words.astype(">u8").tobytes())
