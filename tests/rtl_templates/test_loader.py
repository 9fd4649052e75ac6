# amaranth: UnusedElaboratable=no

"""The network loader alone: what it writes, what it refuses, and what it leaves as it was."""

import numpy as np
import pytest
from amaranth.hdl import ResetInserter, Signal
from loadable import flipped, port_hash
from stream_benches import clocked

from codesign.contract.network import FrozenNetwork
from codesign.machine.capacity import HEADER_BYTES, LAYOUT_BYTES, LOAD_ERRORS, MAGIC, CapacityOptions
from codesign.machine.load import compile_load
from codesign.machine.mapping import LOADABLE, map_loaded, map_network
from rtl_templates.bundle import write_bundle
from rtl_templates.loader import DOES_NOT_FIT, WRONG_CHECKSUM, WRONG_HASH, WRONG_LENGTH, NetworkLoader


def network_of(n_in, hidden, threshold, **parameters):
    """Sizes and thresholds of one or two bytes, more lanes than one, and a last layer of another shape."""
    weights = [np.resize([3, 0, -2, 1], (n_in, hidden)), np.resize([1, -1, 0], (hidden, 3))]
    return FrozenNetwork.from_arrays(weights, threshold=threshold, bias=[2, -1], **parameters)


OWN = network_of(4, 3, 5, timesteps=2, membrane_width=10)
OTHER = network_of(3, 5, 9, timesteps=3, membrane_width=[7, 10])
MACHINE = map_network(
    OWN, [2, 1], None, LOADABLE, capacity=CapacityOptions(inputs=5, neurons=[6], timesteps=3, synapses=16)
)
CAPACITY = MACHINE.capacity


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    sidecar = write_bundle(OWN, MACHINE, tmp_path_factory.mktemp("loader") / "b")
    return compile_load(OTHER, sidecar).image


def expected_writes(network):
    """(memory, address, data) of a whole load, in order."""
    mapping, found = map_loaded(network, CAPACITY), []
    for number, memory in enumerate(CAPACITY.memories):
        words = mapping.engines[memory.layer].words(memory.role, memory.lane)
        found += [(number, address, int(word)) for address, word in enumerate(words)]
    return found


class Bench:
    """Sends images, a list of (bytes, expected hash), and records bus writes and the status after each."""

    def __init__(self, images, *, rng=None, idle_after=0, reset_at=None):
        self.images, self.rng, self.idle_after, self.reset_at = images, rng, idle_after, reset_at
        self.dut = NetworkLoader(OWN, CAPACITY)
        self.writes, self.status, self.clocks, self.held, self.loaded_during = [], [], [], [], []
        self.reset = Signal()
        simulator = clocked(ResetInserter(self.reset)(self.dut))
        simulator.add_testbench(self.send)
        simulator.add_testbench(self.watch, background=True)
        simulator.run()

    async def send(self, ctx):
        dut = self.dut
        for data, expected in self.images:
            ctx.set(dut.expected_hash, expected)
            ctx.set(dut.idle, self.idle_after == 0)
            taken, clock = 0, 0
            for clock in range(20 * len(data) + self.idle_after + 200):
                offers = taken < len(data) and (self.rng is None or self.rng.random() < 0.6)
                if ctx.get(dut.i.valid) and not offers and not self.was_taken:
                    offers = True  # an offered byte stays
                ctx.set(dut.i.valid, offers)
                if offers:
                    ctx.set(dut.i.payload.data, data[taken])
                    ctx.set(dut.i.payload.last, taken == len(data) - 1)
                if clock == self.idle_after:
                    ctx.set(dut.idle, 1)
                if clock < self.idle_after:
                    assert not ctx.get(dut.i.ready)
                self.was_taken = bool(offers and ctx.get(dut.i.ready))
                if self.reset_at is not None and taken == self.reset_at:
                    self.reset_at = None
                    ctx.set(self.reset, 1)
                    await ctx.tick()
                    ctx.set(self.reset, 0)
                    self.was_taken = False
                    continue
                await ctx.tick()
                taken += self.was_taken
                if taken == len(data) and self.was_taken:
                    break
            assert taken == len(data)
            self.clocks.append(clock + 1)
            ctx.set(dut.i.valid, 0)
            await ctx.tick().repeat(3)
            self.status.append(
                (ctx.get(dut.load_error), ctx.get(dut.loaded), ctx.get(dut.network_hash), ctx.get(dut.hold))
            )
            self.registers = {field.name: ctx.get(dut.registers[field.name]) for field in CAPACITY.registers}

    was_taken = False

    async def watch(self, ctx):
        bus = self.dut.bus
        async for _, _, valid, memory, address, data, loaded, held in ctx.tick().sample(
            bus.valid, bus.memory, bus.address, bus.data, self.dut.loaded, self.dut.hold
        ):
            if valid:
                assert not loaded and held, "nothing may be written while a network is in"
                self.writes.append((memory, address, data))


GOOD = (0, 1, port_hash(OTHER), 0)
STAYS = (1, port_hash(OWN), 0)
LOST = (0, 0, 1)


def bits(*errors):
    return sum(1 << error for error in errors)


def masked(writes):
    """Bus data beyond a memory's width is not its own."""
    widths = [memory.record.width for memory in CAPACITY.memories]
    return [(number, address, data & ((1 << widths[number]) - 1)) for number, address, data in writes]


@pytest.mark.parametrize("seed", [None, 1])
def test_a_whole_image_is_written_with_and_without_gaps(image, seed):
    bench = Bench([(image, 0)], rng=None if seed is None else np.random.default_rng(seed))
    assert bench.status == [GOOD]
    assert masked(bench.writes) == expected_writes(OTHER)
    assert bench.registers == CAPACITY.register_values(OTHER)
    if seed is None:
        assert bench.clocks[0] <= len(image) + 5, "a byte a clock"


def test_it_starts_with_the_build_network(image):
    bench = Bench([(b"no", 0)])
    assert bench.status == [(bits(WRONG_LENGTH), *STAYS)] and not bench.writes
    assert bench.registers == CAPACITY.register_values(OWN)


def test_an_image_waits_until_the_machine_is_idle(image):
    bench = Bench([(image, 0)], idle_after=70)
    assert bench.status == [GOOD] and bench.clocks[0] > len(image) + 70


@pytest.mark.parametrize("place", [0, len(MAGIC), len(MAGIC) + LAYOUT_BYTES - 1])
def test_another_magic_or_layout_writes_nothing(image, place):
    bench = Bench([(flipped(image, place), 0), (image, 0)])
    assert bench.status == [(bits(DOES_NOT_FIT), *STAYS), GOOD]
    assert masked(bench.writes) == expected_writes(OTHER)


@pytest.mark.parametrize("difference", [1, 1 << 31, 1 << 63])
def test_another_hash_than_the_expected_writes_nothing(image, difference):
    bench = Bench([(image, port_hash(OTHER) ^ difference)])
    assert bench.status == [(bits(WRONG_HASH), *STAYS)] and not bench.writes
    assert Bench([(image, port_hash(OTHER))]).status == [GOOD]


@pytest.mark.parametrize("place", [HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 9, -5, -1])
def test_a_flipped_bit_leaves_no_network_until_the_next_good_image(image, place):
    bench = Bench([(flipped(image, place % len(image)), 0), (image, 0)])
    assert bench.status == [(bits(WRONG_CHECKSUM), *LOST), GOOD]


@pytest.mark.parametrize("length", [1, HEADER_BYTES - 1, HEADER_BYTES])
def test_an_image_cut_in_its_header_writes_nothing(image, length):
    bench = Bench([(image[:length], 0), (image, 0)])
    assert bench.status == [(bits(WRONG_LENGTH), *STAYS), GOOD]


@pytest.mark.parametrize("cut", [HEADER_BYTES + 1, -9, -4, -1])
def test_an_image_cut_later_leaves_no_network(image, cut):
    bench = Bench([(image[: cut % len(image)], 0), (image, 0)])
    assert bench.status == [(bits(WRONG_LENGTH), *LOST), GOOD]


@pytest.mark.parametrize("more", [1, 40])
def test_an_image_that_goes_on_leaves_no_network(image, more):
    bench = Bench([(image + bytes(more), 0), (image, 0)])
    assert bench.status == [(bits(WRONG_LENGTH), *LOST), GOOD]


def test_a_refused_image_after_a_lost_one_leaves_the_machine_without_network(image):
    bench = Bench([(image[:-1], 0), (flipped(image, 0), 0), (image, 0)])
    assert bench.status == [(bits(WRONG_LENGTH), *LOST), (bits(DOES_NOT_FIT), *LOST), GOOD]


@pytest.mark.parametrize("place", [5, HEADER_BYTES + 1, HEADER_BYTES + 60])
def test_a_reset_in_an_image_drops_its_rest_and_keeps_what_is_in(image, place):
    """What follows the reset is no image; whether a network is left depends on what was written."""
    bench = Bench([(image, 0), (image, 0)], reset_at=place)
    kept = STAYS if place < HEADER_BYTES else LOST
    assert bench.status[0][1:] == kept and bench.status[0][0] in (bits(DOES_NOT_FIT), bits(WRONG_LENGTH))
    assert bench.status[1] == GOOD


def test_error_names_have_a_bit_each():
    assert len(LOAD_ERRORS) == 4 and [DOES_NOT_FIT, WRONG_HASH, WRONG_LENGTH, WRONG_CHECKSUM] == [0, 1, 2, 3]


def test_a_capacity_of_other_layers_is_refused():
    with pytest.raises(ValueError, match="network of 1 layers for a capacity of 2"):
        NetworkLoader(OTHER.with_layers(OTHER.layers[:1]), CAPACITY)
