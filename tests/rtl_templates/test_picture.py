# amaranth: UnusedElaboratable=no
"""The reader of a picture's events against PictureInput of codesign.machine.pictures, and the counter of places."""

from itertools import product

import numpy as np
import pytest
from stream_benches import clocked, drive, record, watch_stability

from codesign.contract.network import (
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Projection,
    SumPool,
    Synapses,
)
from codesign.machine.mapping import map_network
from codesign.machine.pictures import addresses, low_bits, side_bits
from codesign.machine.plan import EnginePlan, plan_machine
from rtl_templates.picture import PicturePlace, PictureReader

# Shapes with odd and even sides, sides of one, and powers of two.
SHAPES = ((1, 5, 7), (2, 4, 3), (3, 1, 6), (1, 9, 1), (2, 8, 4))


def engine_plan(shape, pool, kernel=None, stride=1, padding=0, coding="events") -> EnginePlan | None:
    """Plan of an engine that reads a picture; None if no window fits."""
    if pool > min(shape[1:]):
        return None
    window = SumPool(shape, pool)
    seen = window.out_shape
    if kernel is None:
        connections = Synapses.from_dense(np.ones((window.n_out, 3), np.int64))
    else:
        if padding >= max(kernel) or any(size + 2 * padding < taps for size, taps in zip(seen[1:], kernel)):
            return None
        connections = Convolution.from_dense(np.ones((2, seen[0], *kernel), np.int64), seen, stride, padding)
    layer = FrozenLayer.from_projections([Projection(-1, connections, window)], threshold=1)
    network = FrozenNetwork((layer,), 1, InputCoding(coding, 3 if coding == "current" else 0))
    return plan_machine(network, map_network(network, [2])).engines[0]


def fields_of(layout, word: int) -> dict[str, int]:
    return {name: word >> field.offset & ((1 << field.width) - 1) for name, field in layout if field.width}


def check_reader(plan: EnginePlan, rng: np.random.Generator) -> int:
    """Every address once, in random order, ends between them; returns how many events lead somewhere."""
    (link,) = plan.projections
    reads = link.reads
    _, height, width = reads.shape
    source = rng.permutation(link.span)
    value = rng.integers(1, 8, source.size)
    given, want = [], []
    dut = PictureReader(plan)
    into, out = dut.i.payload.shape(), dut.o.payload.shape()
    for address, number in zip(source.tolist(), value.tolist()):
        while rng.random() < 0.2:
            given.append(1)
            want.append(None)
        word = address << into["source"].offset
        if plan.widths.value:
            word |= number << into["value"].offset
        given.append(word)
        x, y = address & ((1 << side_bits(width)) - 1), address >> side_bits(width) & ((1 << side_bits(height)) - 1)
        # An address that no neuron has leads nowhere.
        row = int(reads.rows(np.array([address]))[0]) if x < width and y < height else -1
        if row < 0:
            continue
        found = {"end": 0, "source": row}
        if plan.widths.value:
            found["value"] = number
        if reads.is_convolution:
            # Bases count modulo the slots' power of two, as the taps' offsets do.
            base = int(reads.y.base[y] + reads.x.base[x]) & ((1 << out["base"].width) - 1)
            found |= {"base": base, "reach_y": int(reads.y.reach[y]), "reach_x": int(reads.x.reach[x])}
        want.append(found)
    given.append(1)
    want.append(None)
    got, problems = [], []
    gap, stall = (float(rng.choice([0.0, 0.5])) for _ in range(2))
    simulator = clocked(dut)
    simulator.add_testbench(drive(dut.i, given, rng, gap))
    simulator.add_testbench(record(dut.o, got, len(want), np.random.default_rng(1), stall))
    simulator.add_testbench(watch_stability(dut.o, problems), background=True)
    simulator.run()
    assert not problems
    for word, expected in zip(got, want, strict=True):
        found = fields_of(out, word)
        assert found["end"] == (expected is None)
        assert expected is None or found == expected
    return sum(expected is not None for expected in want)


def check_readers(shape, pool: int, part: slice) -> None:
    """A part of the readers of a picture behind a pool: single synapses, and every kernel, stride and padding."""
    rng = np.random.default_rng([pool, *shape])
    sizes = [(1, 1), (2, 3), (3, 3), (5, 2), (1, 4), (4, 5)]
    cases = [(None, 1, 0), *product(sizes, (1, 2, 3), (0, 1, 2))]
    plans = [plan for case in cases if (plan := engine_plan(shape, pool, *case)) is not None]
    led = [check_reader(plan, rng) for plan in plans[part]]
    assert (led and max(led) > 0) or pool > min(shape[1:])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_every_address_leads_where_the_picture_says(shape, pool) -> None:
    check_readers(shape, pool, slice(0, None, 4))


@pytest.mark.deep
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_every_address_of_every_reader_leads_where_the_picture_says(shape, pool) -> None:
    check_readers(shape, pool, slice(None))


def test_values_pass_with_their_events() -> None:
    for kernel in (None, (3, 2)):
        plan = engine_plan((2, 5, 6), 2 if kernel is None else 1, kernel, 2, 1, "current")
        assert plan is not None and plan.widths.value == 3
        assert check_reader(plan, np.random.default_rng(4)) > 0


def test_an_engine_that_reads_no_picture_has_no_reader() -> None:
    network = FrozenNetwork.from_arrays([np.ones((3, 2), np.int64)], threshold=1, timesteps=1)
    with pytest.raises(ValueError, match="reads no picture"):
        PictureReader(plan_machine(network, map_network(network, [1])).engines[0])


def test_every_neuron_has_an_address_that_is_read() -> None:
    plan = engine_plan((2, 5, 6), 1, (3, 3), 1, 1)
    assert plan is not None
    shape = plan.projections[0].reads.shape
    rows = plan.projections[0].reads.rows(addresses(shape, np.arange(shape[0])))
    assert np.all(rows >= 0) and plan.projections[0].span == shape[0] << low_bits(shape)


@pytest.mark.parametrize(
    ("ranks", "height", "width"), [(1, 1, 5), (3, 1, 1), (2, 4, 3), (3, 5, 4), (5, 1, 12), (1, 7, 2)]
)
def test_places_count_through_every_slot_and_begin_again(ranks, height, width) -> None:
    dut, seen = PicturePlace((ranks, height, width)), []
    rng = np.random.default_rng(3)
    parts = {name: getattr(dut, name) for name in ("x", "y", "rank")}

    async def bench(ctx) -> None:
        while len(seen) < 3 * ranks * height * width:
            steps = int(rng.random() < 0.7)
            ctx.set(dut.step, steps)
            if steps:
                seen.append(tuple(ctx.get(part) if len(part) else 0 for part in parts.values()))
            await ctx.tick()

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == 3 * [(x, y, rank) for rank, y, x in product(range(ranks), range(height), range(width))]
