"""What ill-formed input means: the input guard's documented rule as a model, and ill-formed samples to try.

For each word, in this order:

1. While dropping, the word is ignored; dropping stops after a word with tlast.
2. An event whose source is out of range (bit 1), or was seen since the last end (bit 0), is ignored.
3. The T-th end without tlast ends the sample and starts dropping (bit 3).
4. tlast before the T-th end inserts the missing ends (bit 2); with coding 'current' tlast is what ends the sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from sim.words import FIRST, LAST, InputEncoder, Words

DUPLICATE, OUT_OF_RANGE, EARLY_LAST, MISSING_LAST = 1, 2, 4, 8


def interpret(encoder: InputEncoder, network: FrozenNetwork, streams: Sequence[Words]) -> tuple[Stimulus, int]:
    """Samples that the guard lets through, and the sticky error bits, for words sent one after the other."""
    timesteps, n_inputs = network.timesteps, network.n_inputs
    samples: list[np.ndarray] = []
    errors, ends, dropping = 0, 0, False
    seen: set[int] = set()
    shape = (n_inputs,) if encoder.is_current else (timesteps, n_inputs)
    current = np.zeros(shape, np.uint8)
    index_of = encoder.index_of(n_inputs)
    for word in np.concatenate(streams):
        last = bool(word & LAST)
        address, extra = encoder.split(word)
        source = int(index_of[address])
        if dropping:
            dropping = not last
            continue
        is_end = not encoder.is_current and extra == encoder.end
        if not is_end:
            if source < 0:
                errors |= OUT_OF_RANGE
            elif source in seen:
                errors |= DUPLICATE
            else:
                seen.add(source)
                current[source if encoder.is_current else (ends, source)] = extra if encoder.is_current else 1
        else:
            seen.clear()
            ends += 1
            if ends == timesteps and not last:
                errors |= MISSING_LAST
                dropping = True
        if last and not encoder.is_current and ends < timesteps:
            errors |= EARLY_LAST
        if last or ends == timesteps:
            samples.append(current)
            current, ends = np.zeros(shape, np.uint8), 0
            seen.clear()
    stacked = np.stack(samples)
    labels = np.full(len(samples), -1, np.int32)
    if encoder.is_current:
        return Stimulus(n_inputs, timesteps, labels, values=stacked), errors
    return Stimulus.from_dense(stacked, labels), errors


def violations(
    encoder: InputEncoder, stimulus: Stimulus, n_inputs: int, rng: np.random.Generator
) -> list[tuple[str, Words]]:
    """Ill-formed variants of the first sample of ``stimulus``: (kind, words), each ending with tlast or overrun."""
    good = encoder.sample(stimulus, 0) & ~(FIRST | LAST)
    result: list[tuple[str, Words]] = []

    def add(kind: str, parts: Sequence[Words | np.uint64], last: bool = True) -> None:
        words = np.concatenate([np.atleast_1d(part) for part in parts]).astype(np.uint64)
        words[0] |= FIRST
        if last:
            words[-1] |= LAST
        result.append((kind, words))

    events = [word for word in good if encoder.is_current or encoder.split(word)[1] == encoder.event]
    place = int(rng.integers(0, len(good)))
    repeated = np.uint64(events[int(rng.integers(len(events)))]) if events else encoder.word(0, 1)
    if encoder.is_current:
        source = encoder.split(repeated)[0]
        other = encoder.word(source, int(rng.integers(0, 1 << encoder.extra.width)))
        add("duplicate", [good[:place], other, good[place:], repeated])
    else:
        event = encoder.word(encoder.split(repeated)[0], encoder.event)
        add("duplicate", [good[:place], event, event, good[place:]])
    free = np.flatnonzero(encoder.index_of(n_inputs) < 0)
    if free.size:
        outside = int(free[rng.integers(free.size)])
        extra = (1 << encoder.extra.width) - 1 if encoder.is_current else encoder.event
        add("index_out_of_range", [good[:place], encoder.word(outside, extra), good[place:]])
        add("index_out_of_range_last", [good[:place], encoder.word(outside, extra)])
    if not encoder.is_current:
        end = encoder.word(0, encoder.end)
        cut = int(rng.integers(1, len(good))) if len(good) > 1 else 1
        if len(good) > 1:
            add("early_tlast", [good[:cut]])
            add("early_tlast_first_word", [good[:1]])
            add("early_tlast_duplicate", [good[:cut], encoder.word(0, encoder.event), encoder.word(0, encoder.event)])
        add("early_tlast_on_event", [good[:-1], encoder.word(encoder.address(n_inputs - 1), encoder.event)])
        add("missing_tlast", [good], last=False)
        add("too_many_words", [good, encoder.word(0, encoder.event), end, end])
    return result
