import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.machine.encoding import PLAIN
from codesign.machine.layouts import (
    Field,
    Record,
    index_width,
    input_word,
    output_word,
    parameter_width,
    parameter_word,
)

fields = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=5)


@given(fields, st.randoms(use_true_random=False))
def test_unpack_inverts_pack_at_any_width(shapes, random):
    record = Record(tuple(Field(f"f{i}", width, signed) for i, (width, signed) in enumerate(shapes)))
    values = {field.name: [field.limits[0], field.limits[1], random.randint(*field.limits)] for field in record.fields}
    words = record.pack(values)
    assert all(0 <= int(word) < 1 << record.width for word in words)
    unpacked = record.unpack(words)
    for name, column in values.items():
        assert unpacked[name].tolist() == column


def test_first_field_is_in_the_least_significant_bits():
    record = Record((Field("low", 3), Field("high", 4, signed=True)))
    assert record.pack({"low": [5], "high": [-1]}).tolist() == [0b1111_101]
    assert (record.width, record.stream_width, record.offset("low"), record.offset("high")) == (7, 8, 0, 3)
    with pytest.raises(KeyError):
        record.offset("middle")


def test_scalars_are_broadcast():
    record = Record((Field("a", 4), Field("b", 1)))
    assert record.pack({"a": [1, 2, 3], "b": 1}).tolist() == [17, 18, 19]


@pytest.mark.parametrize(
    "values",
    [{"a": 16, "b": 0}, {"a": -1, "b": 0}, {"a": 0, "b": 8}, {"a": 0, "b": -9}, {"a": 0}, {"a": 0, "b": 0, "c": 0}],
)
def test_values_that_do_not_fit_are_refused(values):
    with pytest.raises(ValueError):
        Record((Field("a", 4), Field("b", 4, signed=True))).pack(values)


@pytest.mark.parametrize(("count", "width"), [(1, 1), (2, 1), (3, 2), (64, 6), (65, 7), (784, 10)])
def test_an_index_has_at_least_one_bit(count, width):
    assert index_width(count) == width


def test_words_of_a_network():
    weights = [np.ones((784, 10), int)]
    events = FrozenNetwork.from_arrays(weights, threshold=1, timesteps=8)
    assert [(f.name, f.width) for f in input_word(events)] == [("source", 10), ("kind", 1)]
    assert [(f.name, f.width) for f in output_word(events)] == [
        ("kind", 2),
        ("timestep", 3),
        ("index", 4),
        ("value", 5),
    ]
    current = FrozenNetwork.from_arrays(weights, threshold=1, timesteps=8, coding=InputCoding("current", 4))
    assert [(f.name, f.width) for f in input_word(current)] == [("source", 10), ("value", 4)]


def test_words_of_memories():
    assert [(f.name, f.width, f.signed) for f in PLAIN.synapse_record(1, 2)] == [
        ("slot", 1, False),
        ("weight", 2, True),
    ]
    ranges = {"leak_shift": (0, 5), "bias": (0, 8), "threshold": (-8, 7), "leak_multiplier": (0, 0)}
    word = parameter_word({name: parameter_width(name, *limits) for name, limits in ranges.items()})
    found = [(field.name, field.width, field.signed) for field in word]
    assert found == [("threshold", 4, True), ("bias", 5, True), ("leak_shift", 3, False), ("leak_multiplier", 1, False)]
    assert parameter_word({}).fields == ()
