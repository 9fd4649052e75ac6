from amaranth.hdl import Const, Module, Signal, signed, unsigned
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.machine.layouts import Field, Record
from rtl_templates.arithmetic import popcount, record_layout, saturate, times, wrap


def evaluate(*expressions):
    """Values of constant expressions."""
    m = Module()
    outputs = [Signal(expression.shape()) for expression in expressions]
    for output, expression in zip(outputs, expressions, strict=True):
        m.d.comb += output.eq(expression)
    result = []

    async def bench(ctx):
        result.extend(ctx.get(output) for output in outputs)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_saturate_clips_to_the_range_and_says_so(width, narrow, data):
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    values = [low, high, 0, data.draw(st.integers(low, high))]
    limits = -(1 << (narrow - 1)), (1 << (narrow - 1)) - 1
    for value in values:
        result, clipped = evaluate(*saturate(Const(value, signed(width)), narrow))
        expected = min(max(value, limits[0]), limits[1])
        assert (result, clipped) == (expected, expected != value)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.booleans(), st.integers(1, 16), st.booleans(), st.data())
def test_wrap_keeps_what_fits_and_is_modular_otherwise(width, is_signed, target, target_signed, data):
    shape = (signed if is_signed else unsigned)(width)
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if is_signed else (0, (1 << width) - 1)
    value = data.draw(st.integers(low, high))
    (result,) = evaluate(wrap(Const(value, shape), (signed if target_signed else unsigned)(target)))
    assert (result - value) % (1 << target) == 0
    floor, top = (-(1 << (target - 1)), (1 << (target - 1)) - 1) if target_signed else (0, (1 << target) - 1)
    assert floor <= result <= top


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=33))
def test_popcount_counts(bits):
    assert evaluate(popcount([Const(bit, 1) for bit in bits])) == [sum(bits)]


def test_times_multiplies_without_a_multiplier():
    for factor in range(1, 33):
        values = [0, 1, 5, 127]
        assert evaluate(*(times(Const(value, unsigned(7)), factor) for value in values)) == [v * factor for v in values]
        assert "*" not in repr(times(Signal(7), factor))


def test_layout_and_record_agree_on_every_bit():
    record = Record((Field("a", 3), Field("b", 5, signed=True), Field("c", 1)))
    layout = record_layout(record)
    assert layout.size == record.width
    assert [layout[field.name].offset for field in record.fields] == [record.offset(f.name) for f in record.fields]
    assert layout["b"].shape == signed(5)
