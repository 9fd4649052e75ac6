from dataclasses import replace

import numpy as np
import pytest

from codesign.contract.network import FrozenNetwork
from codesign.machine.choices import Choices
from codesign.machine.encoding import PLAIN, ROW_GROUPS, Encoding, smallest
from codesign.machine.engine_map import EngineMap
from codesign.machine.mapping import HardwareMap, map_network


def rows(rng, n_rows=13, n_slots=40, density=0.2, values=(-7, -1, 2, 5)):
    """(row_count, slot, weight) of a lane."""
    mask = rng.random((n_rows, n_slots)) < density
    _, slot = np.nonzero(mask)
    return mask.sum(axis=1), slot, rng.choice(values, slot.size)


def decoded(encoding, columns, row_columns, n_rows):
    """Synapses of each row, word by word, as the hardware walks them."""
    counts = [row_columns[name] for name in row_columns if name != "start"]
    found = []
    for row in range(n_rows):
        group, member = divmod(row, encoding.row_group)
        start = int(row_columns["start"][group]) + sum(int(count[group]) for count in counts[:member])
        line, at = [], 0
        for word in range(start, start + int(counts[member][group])):
            value = (
                int(columns["weight"][word]) if encoding.codebook is None else encoding.codebook[columns["code"][word]]
            )
            if encoding.gap_bits is None:
                line.append((int(columns["slot"][word]), value))
                continue
            gap = int(columns["gap"][word])
            at += gap
            if gap < (1 << encoding.gap_bits) - 1:
                line.append((at, value))
                at += 1
        found.append(line)
    return found


@pytest.mark.parametrize("row_group", ROW_GROUPS)
@pytest.mark.parametrize("gap_bits", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.4, 1.0])
def test_encoded_rows_hold_the_same_synapses(row_group, gap_bits, coded, density):
    count, slot, weight = rows(np.random.default_rng(1), density=density)
    encoding = Encoding(row_group, gap_bits, (-7, -1, 2, 5) if coded else None)
    columns, lengths = encoding.synapse_columns(count, slot, weight)
    starts = np.where(lengths > 0, np.cumsum(lengths) - lengths, 0)
    table = encoding.row_columns(starts, lengths)
    assert next(iter(columns.values())).size == lengths.sum()
    ends = np.cumsum(count)
    expected = [
        list(zip(slot[a:b].tolist(), weight[a:b].tolist(), strict=True))
        for a, b in zip(ends - count, ends, strict=True)
    ]
    assert decoded(encoding, columns, table, count.size) == expected
    # Every field fits its word.
    encoding.synapse_record(40, 4).pack(columns)
    encoding.row_record(int(lengths.sum()), int(lengths.max())).pack(table)


def bits(encoding, lanes, n_slots, weight_bits):
    found = [encoding.synapse_columns(*lane) for lane in lanes]
    words = [lengths for _, lengths in found]
    row = encoding.row_record(max(int(n.sum()) for n in words), max(int(n.max()) for n in words))
    table = len(encoding.row_columns(np.zeros_like(words[0]), words[0])["start"])
    memory = sum(max(1, int(n.sum())) for n in words) * encoding.synapse_record(n_slots, weight_bits).width
    return row.width * table * len(lanes) + memory


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.9])
def test_the_smallest_encoding_is_the_smallest(density):
    rng = np.random.default_rng(0)
    lanes = [rows(rng, density=density) for _ in range(3)]
    tried = [
        Encoding(group, gap, book)
        for group in ROW_GROUPS
        for gap in (None, 1, 2, 3, 4, 5)
        for book in (None, (-7, -1, 2, 5))
    ]
    chosen = smallest(lanes, 40, 4)
    assert chosen in tried
    assert (
        bits(chosen, lanes, 40, 4)
        == min(bits(encoding, lanes, 40, 4) for encoding in tried)
        < bits(PLAIN, lanes, 40, 4)
    )


def test_codes_only_where_they_are_narrower():
    count, slot, weight = rows(np.random.default_rng(0), values=(-1, 1))
    assert smallest([(count, slot, weight)], 40, 2).codebook == (-1, 1)
    assert smallest([(count, slot, weight)], 40, 1).codebook is None


def test_an_empty_layer_has_an_encoding():
    empty = np.zeros(5, np.int64)
    assert smallest([(empty, empty[:0], empty[:0])], 8, 2).codebook is None


def test_compact_memory_counts_what_is_stored():
    rng = np.random.default_rng(3)
    weights = [rng.integers(-7, 8, (60, 40)) * (rng.random((60, 40)) < 0.1), np.ones((40, 5), int)]
    network = FrozenNetwork.from_arrays(weights, threshold=3, timesteps=2)
    for shape in ("streaming", "folded"):
        plain = map_network(network, [2, 2], None, Choices(shape=shape))
        compact = map_network(network, [2, 2], None, Choices(shape=shape, synapses="compact"))
        assert isinstance(compact, HardwareMap)
        for holder in compact.engines:
            assert holder.row_words(0).size == holder.row_depth
            assert holder.synapse_words(0).size == holder.table_lengths[0].sum()
            back = EngineMap(tuple(replace(layer, encoding=PLAIN) for layer in holder.layers))
            (want,) = (engine for engine in plain.engines if engine.index == holder.index)
            np.testing.assert_array_equal(back.row_words(1), want.row_words(1))
        for have, want in zip(compact.layers, plain.layers, strict=True):
            assert not have.encoding.is_plain and want.encoding.is_plain
            assert have.row_lengths.sum() >= have.row_count.sum() == want.row_lengths.sum()
