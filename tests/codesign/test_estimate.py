"""Estimates: memory is exact, cycles follow the recurrence, area grows with what is built, fits says why not."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from random_networks import random_stimulus as random_picture_stimulus
from random_structures import random_structure

from boards.registry import find_room
from codesign.basics.errors import InputError
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus
from codesign.cost.area import block_ram, fits, machine_area
from codesign.cost.coefficients import MODELS
from codesign.cost.energy import ADDED_BIT_PJ, MEMORY_BIT_PJ
from codesign.cost.estimate import activity, cycle_estimate, estimate, layer_events, mean_activity, walking_clocks
from codesign.cost.memories import FAMILIES, built, image_blocks
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from codesign.machine.plan import Memory, plan_machine


def random_network(
    widths: tuple[int, ...], *, coding: str = "events", timesteps: int = 5, density: float = 0.3, seed: int = 0
) -> FrozenNetwork:
    rng = np.random.default_rng(seed)
    weights = [
        rng.integers(-7, 8, (n_in, n_out)) * (rng.random((n_in, n_out)) < density)
        for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)  # noqa: RUF007
    ]
    return FrozenNetwork.from_arrays(
        weights,
        threshold=[rng.integers(8, 16, n) for n in widths[1:]],
        timesteps=timesteps,
        coding=InputCoding("current", 3) if coding == "current" else InputCoding("events"),
    )


def random_stimulus(network: FrozenNetwork, samples: int, rate: float = 0.3) -> Stimulus:
    rng = np.random.default_rng(1)
    if network.coding.is_current:
        values = rng.integers(0, 8, (samples, network.n_inputs)) * (rng.random((samples, network.n_inputs)) < rate)
        return Stimulus(
            network.n_inputs, network.timesteps, np.full(samples, -1, np.int32), values=values.astype(np.uint8)
        )
    return Stimulus.from_dense(rng.random((samples, network.timesteps, network.n_inputs)) < rate)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(
    ("coding", "widths", "lanes", "queue_depth"),
    [
        ("events", (9, 1), [1], 8),
        ("events", (30, 17, 5), [4, 2], 2),
        ("current", (30, 17, 5), [4, 1], 8),
        ("current", (32, 20, 9, 3), [8, 1, 3], 4),
    ],
)
def test_memory_bits_are_those_of_the_generated_bundle(coding, widths, lanes, queue_depth, folded):
    from rtl_templates import bundle

    network = random_network(widths, coding=coding)
    choices = Choices(shape="folded" if folded else "streaming", queue_depth=queue_depth)
    mapping = map_network(network, lanes[:1] * len(lanes) if folded else lanes, None, choices)
    sidecar = bundle._sidecar(plan_machine(network, mapping), "snn")
    assert estimate(plan_machine(network, mapping))["memory_bits"] == sidecar["memory_bits"]


@pytest.mark.parametrize("coding", ["events", "current"])
def test_memory_bits_of_lean_machines_are_those_of_the_generated_bundle(coding):
    from rtl_templates import bundle

    network = random_network((30, 17, 5), coding=coding)
    lean = Choices(lockstep=True, spike_fifos=False, output_spikes=False)
    mapping = map_network(network, [4, 2], None, lean)
    sidecar = bundle._sidecar(plan_machine(network, mapping), "snn")
    result = estimate(plan_machine(network, mapping))
    assert result["memory_bits"] == sidecar["memory_bits"]
    plain = estimate(plan_machine(network, map_network(network, [4, 2])))
    assert result["area"]["ecp5"]["lut"] < plain["area"]["ecp5"]["lut"]


def test_small_images_go_where_they_are_told():
    network = random_network((64, 32, 10), density=0.1)
    machines = [map_network(network, [1, 1], None, Choices(block_rom_bits=bits)) for bits in (0, 512, 10**6)]
    blocks = [estimate(plan_machine(network, mapping))["area"]["ice40"]["bram"] for mapping in machines]
    assert blocks[0] > blocks[1] >= blocks[2]


def test_blocks_take_the_best_mode():
    assert image_blocks(256, 16, "ice40") == 1
    assert image_blocks(2048, 2, "ice40") == 1
    assert image_blocks(1024, 18, "ecp5") == 1
    # A few words too many share a wider block with the rest, behind a multiplexer.
    assert image_blocks(257, 8, "ice40") == 1
    assert image_blocks(257, 16, "ice40") == 2
    assert image_blocks(1100, 20, "xilinx") == 1
    assert [image_blocks(*shape, "xilinx") for shape in ((300, 36), (1000, 18), (900, 20))] == [0.5, 0.5, 1]


def kind(memory: Memory, family: str) -> str:
    return built(memory, family).kind


def test_memories_go_where_they_cost_least():
    assert kind(Memory("synapses", 0, 2100, 12), "ecp5") == "block"
    assert kind(Memory("rows", 0, 31, 16), "ecp5") == "logic"
    assert kind(Memory("rows", 0, 32, 16, style="block"), "ecp5") == "block"
    assert kind(Memory("synapses", 0, 32, 16, style="spram"), "ice40") == "spram"
    assert kind(Memory("state", 0, 64, 16), "ecp5") == "lutram"
    assert kind(Memory("state", 0, 64, 16, style="block"), "ecp5") == "block"
    assert kind(Memory("state", 0, 2000, 16, style="distributed"), "ecp5") == "lutram"
    assert kind(Memory("state", 0, 64, 16), "ice40") == "block"
    assert kind(Memory("queues", 0, 8, 16, clocked=False), "ice40") == "logic"


@pytest.mark.parametrize("coding", ["events", "current"])
def test_activity_counts_every_synaptic_operation(coding):
    network = random_network((20, 12, 4), coding=coding)
    mapping = map_network(network, [3, 2])
    stimulus = random_stimulus(network, 6)
    counted = activity(network, mapping, stimulus)
    expected = golden.run(network, stimulus).synaptic_operations
    for index, part in enumerate(counted):
        assert part.loads.shape == (6, 1 if coding == "current" and index == 0 else 5, mapping.layers[index].lanes)
        np.testing.assert_array_equal(part.loads.sum(axis=(1, 2)), expected[:, index])


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("seed", range(12))
def test_operations_of_pictures_are_those_that_land(seed, streams):
    rng = np.random.default_rng(seed)
    network = random_structure(rng, chain=True, side=7, kernel=4, channels=5)
    stimulus = random_picture_stimulus(rng, network, 5)
    lanes = [int(rng.integers(1, 4)) for _ in network.layers]
    mapping = map_network(network, lanes, None, Choices(event_streams=streams))
    trace = golden.run(network, stimulus)
    counted = activity(network, mapping, stimulus, trace)
    rates = [part / len(stimulus) for part in summed_events(network, stimulus, trace)]
    for index, part in enumerate(counted):
        np.testing.assert_array_equal(part.operations.sum(axis=1), trace.synaptic_operations[:, index])
        assert np.all(part.loads.sum(axis=2) >= part.operations)
        assert np.all(part.clocks >= part.loads.max(axis=2))
        assert np.all(part.clocks <= part.events.sum(axis=2) + part.loads.sum(axis=2))
        mean = mean_activity(network, mapping, rates)[index]
        assert mean.operations.sum() == pytest.approx(trace.synaptic_operations[:, index].mean())


def clocks_one_by_one(events: np.ndarray, walked: np.ndarray, order: np.ndarray, held: int, head: int) -> int:
    """Clocks of one accumulation, event by event and lane by lane."""
    began: list[list[int]] = [[] for _ in walked]
    done = [0] * len(walked)
    taken = -1 - head
    for source in (source for source in order if events[source]):
        taken += 1
        taken = max([taken, *(starts[-held] for starts in began if len(starts) >= held)])
        for lane, length in enumerate(walked[:, source]):
            if length:
                began[lane].append(max(done[lane], taken))
                done[lane] = began[lane][-1] + int(length)
    return max(done)


@pytest.mark.parametrize(("held", "head"), [(1, 0), (2, 5), (8, 3)])
def test_lanes_wait_for_events_and_for_each_other(held, head, monkeypatch):
    rng = np.random.default_rng(held)
    walked = rng.integers(0, 6, (3, 40)) * (rng.random((3, 40)) < 0.8)
    events = rng.random((7, 4, 40)) < rng.random((7, 4, 1))
    order = rng.permutation(40)
    found = walking_clocks(events, walked, order, held, head)
    expected = [[clocks_one_by_one(part, walked, order, held, head) for part in sample] for sample in events]
    np.testing.assert_array_equal(found, expected)
    assert walking_clocks(np.zeros((2, 3, 40), bool), walked, order, held, head).tolist() == [[0.0] * 3] * 2
    monkeypatch.setattr("codesign.cost.estimate.STRETCH", 10)
    cut = walking_clocks(events, walked, order, held, head)
    # Lanes meet after every stretch, and the door is open again.
    assert np.all(cut >= (events.astype(np.int64) @ walked.T).max(axis=2))


def summed_events(network: FrozenNetwork, stimulus: Stimulus, trace: golden.Trace) -> list[np.ndarray]:
    """Events of each source of each layer, over all samples."""
    first = (stimulus.values != 0).sum(axis=0) if network.coding.is_current else stimulus.dense().sum(axis=(0, 1))
    return [first, *(fired.sum(axis=(0, 1)) for fired in trace.spikes[:-1])]


def test_logic_of_every_structure_is_estimated():
    rng = np.random.default_rng(1)
    network = random_structure(rng, chain=True, side=7, kernel=4, channels=5)
    while network.is_plain_chain:
        network = random_structure(rng, chain=True, side=7, kernel=4, channels=5)
    plan = plan_machine(network, map_network(network, [2] * len(network.layers)))
    area = estimate(plan)["area"]
    for family in FAMILIES:
        assert area[family]["lut"] > 100 and area[family]["ff"] > 100 and area[family]["error"]["lut"]["low"] > 0
        assert area[family]["bram"] == block_ram(plan.memories, family)


@pytest.mark.parametrize("folded", [False, True])
def test_parts_add_up_and_every_memory_is_in_one(folded):
    network = random_network((64, 48, 10), coding="current")
    choices = Choices(shape="folded" if folded else "streaming", input_words=2)
    plan = plan_machine(network, map_network(network, [2, 2], None, choices))
    for family in FAMILIES:
        area = machine_area(plan, family)
        assert area["bram"] == sum(part["bram"] for part in area["parts"]) == block_ram(plan.memories, family)
        for figure in ("lut", "ff", "dsp"):
            assert abs(area[figure] - sum(part[figure] for part in area["parts"])) < len(area["parts"])
        layers = {part["layer"] for part in area["parts"]}
        assert layers == ({None, 0} if folded else {None, 0, 1})


def test_mean_rates_give_the_mean_activity():
    network = random_network((20, 12, 4))
    mapping = map_network(network, [2, 1])
    stimulus = random_stimulus(network, 8)
    trace = golden.run(network, stimulus)
    rates = [stimulus.dense().sum(axis=1).mean(axis=0), trace.spikes[0].sum(axis=1).mean(axis=0)]
    exact, mean = activity(network, mapping, stimulus), mean_activity(network, mapping, rates)
    for a, b in zip(exact, mean, strict=True):
        assert b.events.sum() == pytest.approx(a.events.sum(axis=(1, 2)).mean())
        np.testing.assert_allclose(b.loads.sum(axis=1)[0], a.loads.sum(axis=1).mean(axis=0))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"clock_mhz": 0}, "clock_mhz = 0 must be a number above 0"),
        ({"clock_mhz": -5.0}, "clock_mhz = -5.0 must be a number above 0"),
        ({"clock_mhz": float("nan")}, "clock_mhz = nan must be a number above 0"),
        ({"rates": [np.ones(3)]}, "rates has 1 entry for 2 layers"),
        ({"rates": [np.ones(3), np.ones(3)]}, "rates of layer 1 must be 2 numbers of 0 or more"),
        ({"rates": [np.array([1, np.nan, 1]), np.ones(2)]}, "rates of layer 0 must be 3 numbers of 0 or more"),
        ({"rates": [np.ones(3), -np.ones(2)]}, "rates of layer 1 must be 2 numbers of 0 or more"),
    ],
)
def test_what_no_estimate_can_be_made_of_is_one_line(given, line):
    network = random_network((3, 2, 2))
    with pytest.raises(InputError, match=line):
        estimate(plan_machine(network, map_network(network, [1, 1])), **given)


def test_more_lanes_and_fewer_events_take_fewer_cycles():
    network = random_network((64, 48, 10), density=0.8)
    stimulus = random_stimulus(network, 10)

    def cycles(lanes: list[int], samples: Stimulus = stimulus) -> dict:
        mapping = map_network(network, lanes)
        return cycle_estimate(plan_machine(network, mapping), activity(network, mapping, samples))

    one, four = cycles([1, 1]), cycles([4, 4])
    assert four["latency_cycles"] < one["latency_cycles"] / 2
    assert one["interval_cycles"] <= one["latency_cycles"]
    assert cycles([1, 1], random_stimulus(network, 10, rate=0.05))["interval_cycles"] < one["interval_cycles"]
    assert all(0 < use <= 1 for use in one["lane_use"])
    slowest = max(a + s for a, s in zip(one["accumulate_cycles"], one["sweep_cycles"], strict=True))
    assert slowest * 0.95 <= one["interval_cycles"] <= slowest * 1.3


@pytest.mark.parametrize("schedule", ["timestep", "sample"])
@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("coding", ["events", "current"])
def test_energy_counts_events_and_words_however_many_come_in_a_clock(coding, streams, schedule):
    network = random_network((20, 12, 4), coding=coding)
    stimulus, timesteps = random_stimulus(network, 6), network.timesteps
    choices = Choices(event_streams=streams, schedule=schedule, input_words=streams)
    plan = plan_machine(network, map_network(network, [3, 2], None, choices))
    found = estimate(plan, stimulus=stimulus, exact=False)["energy"]["by_layer"]
    for layer, engine, events, energy in zip(
        plan.mapping.layers, plan.engines, layer_events(network, stimulus), found, strict=True
    ):
        masks = engine.collects
        arrived = events.sum() / len(stimulus)
        looked_up = events.any(axis=1).sum() / len(stimulus) if masks else arrived
        bits = looked_up * layer.lanes * engine.placement.row_record.width
        for collector in filter(None, engine.collectors):
            bits += 2 * (arrived + streams * collector.depth) * collector.width
        assert energy["rows"] == pytest.approx(bits * MEMORY_BIT_PJ)
        # A memory of sums for each stream, read in each sweep and cleared when they are used up.
        widths = engine.widths
        sums = streams * widths.accumulator
        held = sum(memory.bits for memory in engine.memories if memory.role == "state")
        assert held == engine.lanes * engine.state_depth * (sums + widths.swept)
        clears = 1 if layer.schedule == "sample" else timesteps
        passed = (timesteps + clears) * sums + timesteps * (2 * widths.swept + engine.placement.parameter_record.width)
        added = 3 * timesteps * widths.potential * ADDED_BIT_PJ
        assert energy["sweeps"] == pytest.approx(layer.lanes * layer.n_slots * (passed * MEMORY_BIT_PJ + added))


def test_without_samples_there_are_no_cycles():
    network = random_network((20, 12, 4))
    result = estimate(plan_machine(network, map_network(network, [1, 1])))
    assert result["cycles"] is None and result["latency_us"] is None
    assert result["memory_bits"]["synapses"] > 0


def test_area_grows_with_lanes_in_every_fitted_family():
    network = random_network((64, 48, 10))
    small, large = (estimate(plan_machine(network, map_network(network, lanes))) for lanes in ([1, 1], [8, 2]))
    assert set(MODELS) == set(FAMILIES)
    for family in FAMILIES:
        for figure in ("lut", "ff"):
            assert 0 < small["area"][family][figure] < large["area"][family][figure]


def test_fits_names_what_is_too_much_and_by_how_much():
    network = random_network((400, 300, 10), density=0.5)
    mapping = map_network(network, [1, 1])
    result = estimate(plan_machine(network, mapping))
    blocks = result["area"]["ice40"]["bram"]
    budget = {"lut": 5280, "ff": 5280, "bram": 30, "dsp": 8}
    device = SimpleNamespace(family="ice40", budget=budget)
    (line,) = [reason for reason in fits(result, "small", device) if "block RAMs" in reason]
    assert line.startswith(f"small: about {blocks:g} of 30 block RAMs ({blocks - 30:g} too many, {blocks / 30:.0%}); ")
    assert "neither fewer weight bits nor a tenth of the density alone would do (at least " in line
    half = result["area"]["ice40"]["bram_by_density"]["0.5"]
    middling = SimpleNamespace(family="ice40", budget={**budget, "bram": half})
    (line,) = [reason for reason in fits(result, "half", middling) if "block RAMs" in reason]
    assert "with 50% of its density it would fit" in line
    roomy = SimpleNamespace(family="ice40", budget=dict.fromkeys(budget, 10**9))
    assert fits(result, "large", roomy) == []


def test_memory_of_fewer_bits_and_synapses_is_that_of_such_a_network():
    rng = np.random.default_rng(1)
    dense = [rng.integers(-31, 32, shape) for shape in ((200, 90), (90, 10))]
    at: dict[str, list[float]] = {"plain": [], "bits": [], "density": []}
    # Every second source of a lane has no synapses: half of them are left on each lane.
    halved = [weights * (np.arange(len(weights)) % 2 == 0)[:, None] for weights in dense]
    clipped = [np.sign(weights) * np.minimum(abs(weights), 7) for weights in dense]
    for name, weights in (("plain", dense), ("bits", clipped), ("density", halved)):
        network = FrozenNetwork.from_arrays(weights, threshold=9, timesteps=2)
        result = estimate(plan_machine(network, map_network(network, [2, 1])))
        at[name] = [result["area"][family]["bram"] for family in FAMILIES]
        if name == "plain":
            told = {
                key: [result["area"][family][key] for family in FAMILIES] for key in ("bram_by_bits", "bram_by_density")
            }
    assert [blocks["4"] for blocks in told["bram_by_bits"]] == at["bits"] < at["plain"]
    # Rows are narrower too where a lane has fewer synapses.
    assert [blocks["0.5"] for blocks in told["bram_by_density"]] >= at["density"]
    assert [blocks["0.5"] for blocks in told["bram_by_density"]] < at["plain"]


def test_a_machine_that_a_family_has_not_has_no_figures_there():
    network = random_network((12, 8, 4))
    plan = plan_machine(network, map_network(network, [1, 1], None, Choices(state_memory="distributed")))
    result = estimate(plan)
    assert result["area"]["ice40"]["lut"] is None and result["area"]["ecp5"]["lut"] > 100
    device = SimpleNamespace(family="ice40", budget={"lut": 1, "ff": 1, "bram": 30, "dsp": 8})
    assert fits(result, "tiny", device) == ["tiny: iCE40 has no distributed RAM"]


def test_a_device_without_a_resource_is_compared_in_it_only_if_that_is_used():
    result = {"area": {"ice40": {"reason": None, "lut": 10, "ff": 10, "bram": 2, "dsp": 0, "spram": 6}}}
    result["area"]["ice40"] |= {"bram_by_bits": {}, "bram_by_density": {"0.5": 1}}
    device = SimpleNamespace(family="ice40", budget={"lut": 20, "bram": 4, "spram": 4})
    assert fits(result, "it", device) == ["it: about 6 of 4 single-port RAMs (2 too many, 150%); use fewer lanes"]
    del device.budget["spram"]
    assert fits(result, "it", device) == ["it: about 6 of 0 single-port RAMs (6 too many); use fewer lanes"]
    result["area"]["ice40"]["spram"] = 0
    assert fits(result, "it", device) == []


def test_a_board_has_room_beside_its_link():
    area = {"reason": None, "lut": 5280, "ff": 10, "bram": 30, "dsp": 0, "spram": 0}
    result = {"area": {"ice40": {**area, "bram_by_bits": {}, "bram_by_density": {"0.5": 1}}}}
    assert fits(result, "ice40-up5k", find_room("ice40-up5k")) == []
    board = find_room("icebreaker")
    lines = fits(result, board.name, board)
    assert [line.partition(" (")[0] for line in lines] == [
        "icebreaker beside its link: about 5280 of 4430 logic cells",
        "icebreaker beside its link: about 30 of 29 block RAMs",
    ]


def test_late_resets_take_no_state_of_their_own_and_synaptic_currents_one():
    network = random_network((12, 8, 4))
    bits, fires, flip_flops = {}, {}, {}
    for name, terms in {
        "neither": {},
        "late": {"reset_delay": True},
        "currents": {"current_leak": Leak("shift", 1), "current_width": 9},
    }.items():
        changed = network.with_layers([replace(layer, **terms) for layer in network.layers])
        plan = plan_machine(changed, map_network(changed, [1, 1]))
        result = estimate(plan)
        bits[name], fires[name] = result["memory_bits"]["state"], [engine.clocks.fire for engine in plan.engines]
        flip_flops[name] = result["area"]["ecp5"]["ff"]
    # What is subtracted may take a bit more.
    assert bits["neither"] <= bits["late"] <= bits["neither"] + 12
    # The sums, and their bits, have gone from the membranes to the currents.
    assert bits["currents"] > bits["neither"] + 12 * 4
    assert flip_flops["neither"] < flip_flops["late"] < flip_flops["currents"]
    assert fires["late"] == fires["neither"] == [4, 4] and fires["currents"] == [5, 5]


def test_xilinx_counts_half_blocks():
    assert block_ram([Memory("synapses", 0, 1024, 12)], "xilinx") == 0.5


def test_estimate_needs_neither_amaranth_nor_torch():
    code = (
        "import sys; sys.modules['amaranth'] = sys.modules['torch'] = None\n"
        "import codesign.cost.estimate, numpy as np\n"
        "from codesign.machine.mapping import map_network\n"
        "from codesign.contract.network import FrozenNetwork\n"
        "from codesign.machine.plan import Memory, plan_machine\n"
        "n = FrozenNetwork.from_arrays([np.ones((3, 2), int)], threshold=2, timesteps=2)\n"
        "plan = plan_machine(n, map_network(n, [1]))\n"
        "assert codesign.cost.estimate.estimate(plan)['area']['ecp5']['lut'] is not None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
