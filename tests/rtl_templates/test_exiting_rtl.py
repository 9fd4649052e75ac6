# amaranth: UnusedElaboratable=no

"""Early exit in the RTL: equal to the golden model, and every part of it is needed."""

import numpy as np
import pytest
from amaranth.hdl import signed
from exiting_networks import exiting_network
from proofs.defects import Edit
from stream_benches import clocked
from vector_bench import check, sample_words, simulate

from codesign.basics.errors import InputError
from codesign.contract.early_exit import exit_timesteps
from codesign.machine.choices import Choices
from codesign.machine.layouts import DECISION
from codesign.machine.mapping import map_network
from rtl_templates.accelerator import Accelerator
from rtl_templates.early_exit import LeadTracker
from rtl_templates.guard import InputGuard
from rtl_templates.readout import Readout


def feed(dut, ctx, index, value):
    ctx.set(dut.index, index)
    ctx.set(dut.value, int(value))
    ctx.set(dut.valid, 1)


@pytest.mark.parametrize("rule", ["certain", 1, 2])
@pytest.mark.parametrize(("n_outputs", "rises"), [(2, True), (5, True), (2, False), (7, False)])
def test_lead_tracker_follows_the_rule(rule, n_outputs, rises):
    """``rises``: counts, given where they grow; else any values, given for all classes in every timestep."""
    timesteps, samples = 6, 12
    rng = np.random.default_rng(n_outputs)
    steps = rng.random((samples, timesteps, n_outputs)) < rng.random((samples, 1, n_outputs))
    values = steps.cumsum(axis=1) if rises else rng.integers(-4, 5, steps.shape)
    dut = LeadTracker(signed(5), n_outputs, timesteps, rule)
    leaves = []

    async def bench(ctx):
        for sample in range(samples):
            for t in range(timesteps):
                ctx.set(dut.clear, t == 0 or not rises)
                await ctx.tick()
                ctx.set(dut.clear, 0)
                ctx.set(dut.left, timesteps - 1 - t)
                chosen = rng.permutation(np.flatnonzero(steps[sample, t])) if rises else range(n_outputs)
                for index in chosen:
                    feed(dut, ctx, int(index), values[sample, t, index])
                    await ctx.tick()
                ctx.set(dut.valid, 0)
                await ctx.tick().repeat(LeadTracker.LATENCY - 1)
                leaves.append(ctx.get(dut.leaves))

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.run()
    found = np.array(leaves, bool).reshape(samples, timesteps)[:, :-1]
    wanted = np.stack([exit_timesteps(values[:, t:], rule) == 0 for t in range(timesteps - 1)], axis=1)
    assert np.array_equal(found, wanted) and wanted.any() and not wanted.all()


def run(seed, *, folded=False, rule="certain", calm=False, lanes=None, choices=None, **options):
    """Odd seeds with random gaps and backpressure, every third with a reset in the middle."""
    rng = np.random.default_rng(seed)
    network, stimulus = exiting_network(seed, rule=rule, **options)
    lanes = lanes or ([2] * len(network.layers) if folded else [1 + (seed + i) % 3 for i in range(len(network.layers))])
    choices = Choices(
        shape="folded" if folded else "streaming",
        early_exit=rule,
        queue_depth=int(rng.choice([2, 8])),
        **choices or {},
    )
    mapping = map_network(network, lanes, None, choices)
    words = [word for sample in range(len(stimulus)) for word in sample_words(network, stimulus, sample, rng)]
    observed = simulate(
        network, mapping, words, decisions=len(stimulus),
        limit=2_500 if calm else 200_000,
        rng=rng if seed % 2 and not calm else None,
        reset_at=int(rng.integers(1, len(words) + 1)) if seed % 3 == 0 and not calm else None,
    )  # fmt: skip
    check(network, mapping, stimulus, observed)
    assert observed.protocol_error == 0


OPTIONS = [
    {},
    {"coding": "current"},
    {"rule": 2},
    {"readout": "membrane_max", "rule": 40},
    {"readout": "membrane_sum", "rule": 60, "coding": "current"},
    {"sizes": (6, 2, 12)},
    {"sizes": (8, 4)},
]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5])
def test_networks_with_early_exit_equal_the_golden_model(seed, folded):
    run(seed, folded=folded, **OPTIONS[seed])


@pytest.mark.deep
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("seed", range(100, 170))
def test_many_networks_with_early_exit_equal_the_golden_model(seed, folded):
    run(seed, folded=folded, **OPTIONS[seed % len(OPTIONS)])


# The last layer is the slowest, so that the stages before it are in the next sample when a sample is decided.
RACE = {"sizes": (6, 3, 12), "lanes": [3, 1], "calm": True}
FALLING = {"readout": "membrane_sum", "rule": 60}
# One reader of a population is ahead of another when the sample is decided, and no FIFO keeps what it has.
SKIP = {"seed": 6, "skips": True, "sizes": (8, 9, 6, 4), "lanes": [1, 1, 1], "choices": {"spike_fifos": False}}
STREAMS = {"seed": 6, "sizes": (8, 9, 4), "lanes": [2, 2], "choices": {"spike_fifos": False, "event_streams": 2}}
DEFECTS = {
    "a timestep early": (Edit(Readout, r"_last_timestep - ended", "_last_timestep - 1 - ended", "_collect"), {}),
    "first class wins every tie": (Edit(LeadTracker, r"first_index < second_index", "1"), {}),
    "no class wins a tie": (Edit(LeadTracker, r"first_index < second_index", "0"), {"seed": 1}),
    "lead of the sample before": (Edit(Readout, r"else decides", "else 0", "_collect"), {}),
    "lead of the timestep before": (
        Edit(Readout, r"\(judged \| decides\)", "0", "_collect"),
        FALLING,
    ),
    "spikes after the exit": (Edit(Readout, r"is_update & ~exited", "is_update", "_collect"), {"seed": 1}),
    "guard drops the next sample": (Edit(Accelerator, r"readout.exited & \(in_flight == 0\)", "readout.exited"), RACE),
    "engines silent in the next sample": (
        Edit(Accelerator, r"readout.exited & \(ahead == 0\)", "readout.exited"),
        RACE,
    ),
    "exit lasts": (Edit(Readout, r"exited\.eq\(0\)", "exited.eq(exited)", "_collect"), {}),
    "decides in timestep 0": (Edit(Readout, r"word\.timestep\.eq\(ended\)", "word.timestep.eq(0)", "_collect"), {}),
    "a word that one reader has is silenced": (Edit(Accelerator, r"silent = Mux\(.*\)", "pass"), SKIP),
    "a word that one stream has is silenced": (Edit(Accelerator, r"silent = Mux\(.*\)", "pass"), STREAMS),
}


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("seed", [1, 3])
def test_samples_that_race_each_other_are_kept_apart(seed, folded):
    run(seed, folded=folded, **RACE | ({"lanes": [2, 2]} if folded else {}))


@pytest.mark.parametrize("options", [{}, {"seed": 1}, RACE, FALLING, SKIP, STREAMS], ids=range(6))
def test_what_the_defects_break_is_sound(options):
    run(**{"seed": 4, "calm": True, **options})


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_caught(name):
    edit, options = DEFECTS[name]
    with edit.applied(), pytest.raises(AssertionError):
        run(**{"seed": 4, "calm": True, **options})


def test_dropped_events_are_still_checked():
    """Both a repeated and a foreign event of a dropped part are errors, and tlast still ends the sample."""
    network, _ = exiting_network(1)
    dut = InputGuard(network, can_drop=True)
    got = []

    async def bench(ctx):
        ctx.set(dut.drop, 1)
        ctx.set(dut.o.ready, 1)
        for source, kind, last in ((3, 0, 0), (2, 0, 0), (3, 0, 0), (1, 1, 0), (3, 0, 1)):
            ctx.set(dut.i.payload.word.source, source)
            ctx.set(dut.i.payload.word.kind, kind)
            ctx.set(dut.i.payload.last, last)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.protocol_error) == 0b0101
        assert not ctx.get(dut.in_progress)

    async def watch(ctx):
        async for _, _, valid, end in ctx.tick().sample(dut.o.valid, dut.o.payload.end):
            if valid:
                got.append(end)

    simulator = clocked(dut)
    simulator.add_testbench(bench)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    assert got == [1] * network.timesteps


def test_without_early_exit_decisions_name_no_timestep():
    network, stimulus = exiting_network(1)
    words = sample_words(network, stimulus, 0, np.random.default_rng(0))
    found = simulate(network, map_network(network, [1, 1]), words, decisions=1)
    assert [word["timestep"] for word in found.words if word["kind"] == DECISION] == [0]


def test_a_rule_that_the_network_cannot_follow_is_refused():
    network, _ = exiting_network(1)
    with pytest.raises(InputError, match="neither 'off'"):
        map_network(network, [1, 1], None, Choices(early_exit=0))
    with pytest.raises(ValueError, match="n_outputs 1 must be 2 or more"):
        LeadTracker(signed(4), 1, 3, "certain")
    with pytest.raises(ValueError, match="no lead to track"):
        LeadTracker(signed(4), 2, 3, "off")
