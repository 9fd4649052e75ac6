"""The search for a machine: what it varies, how it ranks, what it refuses; places and verifies in deep tests."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest

from codesign.basics.errors import CapacityError, InputError, MismatchError
from codesign.cli import main
from codesign.contract.network import FrozenNetwork, InputCoding, Leak
from codesign.contract.stimulus import Stimulus
from codesign.cost.area import machine_area
from codesign.cost.clocks import exact_cycles
from codesign.cost.estimate import estimate
from codesign.cost.search import Machines, Wish, exclusion, rank, search, variants
from codesign.machine.choices import DEFAULTS, PIPELINES, Choices, keys
from codesign.machine.plan import plan_machine
from codesign.pipeline.tuning import (
    VERIFIED_SAMPLES,
    _worth_placing,
    choices_of,
    find_target,
    hardware_keys,
    mapped,
    tune,
)
from codesign.records.rundir import RunDirectory

ROOMY = {"lut": 10**6, "ff": 10**6, "bram": 10**4, "dsp": 10**4}


@pytest.fixture(scope="module")
def network() -> FrozenNetwork:
    rng = np.random.default_rng(3)
    weights = [rng.integers(-7, 8, shape) * (rng.random(shape) < 0.7) for shape in ((12, 6), (6, 3))]
    return FrozenNetwork.from_arrays(
        weights, threshold=[30, 12], timesteps=4, coding=InputCoding("current", 3), leak=Leak("shift", 2)
    )


@pytest.fixture(scope="module")
def samples() -> Stimulus:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 8, (12, 12)) * (rng.random((12, 12)) < 0.4)
    return Stimulus(12, 4, np.full(12, -1, np.int32), values=values.astype(np.uint8))


def wish(**given) -> Wish:
    return Wish(**{"family": "ecp5", "budget": ROOMY, "clocks": dict.fromkeys(PIPELINES, 50.0), **given})


@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        Choices(lockstep=True, pipeline="short"),
        Choices(synapses="compact"),
        Choices(event_streams=2, input_words=4),
        Choices(event_streams=4, schedule="sample", pipeline="short"),
        Choices(schedule="sample"),
    ],
)
def test_shared_work_gives_the_figures_of_a_whole_estimate(network, samples, choices):
    """Parts that are made once for several machines are those of each."""
    machines = Machines(network, samples, "ecp5")
    for lanes in ((1, 1), (3, 2), (3, 1), (2, 2)):
        found = machines.all(lanes, choices, 50.0)
        plan = plan_machine(network, machines.mapping(lanes, choices))
        area = machine_area(plan, "ecp5")
        for kind in ("lut", "ff", "bram", "dsp"):
            assert found[kind] == pytest.approx(area[kind], abs=1)
        whole = estimate(plan, stimulus=samples.take(slice(0, 10)), exact=False)
        assert found["cycles"] == pytest.approx(whole["cycles"]["latency_cycles"])
        assert found["energy_nj"] == pytest.approx(whole["energy"]["sample_pj"] / 1000)


def test_objectives_find_what_they_ask_for(network, samples):
    fast, small, frugal = (search(network, samples, wish(minimise=what))[0] for what in ("latency", "area", "energy"))
    assert fast["estimated"]["cycles"] < small["estimated"]["cycles"]
    assert small["estimated"]["lut"] < fast["estimated"]["lut"]
    assert frugal["estimated"]["energy_nj"] <= min(row["estimated"]["energy_nj"] for row in (fast, small))


def test_where_clocks_count_several_events_a_clock_and_whole_samples_are_looked_at(network, samples):
    fast, small = (list(variants(wish(minimise=what), network, (3, 2))) for what in ("latency", "area"))
    assert {choices.event_streams for choices in fast} == {1, 2, 4}
    assert {choices.schedule for choices in fast} == {"timestep", "sample"}
    assert {(choices.event_streams, choices.schedule) for choices in small} == {(1, "timestep")}
    limited = list(variants(wish(minimise="area", within={"cycles": 100}), network, (3, 2)))
    assert len(limited) == len(fast)


def test_many_inputs_on_many_lanes_are_fastest_with_several_events_a_clock():
    rng = np.random.default_rng(6)
    weights = [rng.integers(-7, 8, shape) * (rng.random(shape) < 0.1) for shape in ((300, 32), (32, 3))]
    wide = FrozenNetwork.from_arrays(weights, threshold=[30, 12], timesteps=4)
    events = Stimulus.from_dense(rng.random((6, 4, 300)) < 0.3)
    machines = Machines(wide, events, "ecp5")
    asked = wish(allowed=("input_words",))
    clocks = {choices: machines.cycles((12, 1), choices)["cycles"] for choices in variants(asked, wide, (12, 1))}
    best = min(clocks, key=lambda choices: clocks[choices])
    one = min(found for choices, found in clocks.items() if choices.event_streams == 1)
    assert best.event_streams == 4 and clocks[best] < 0.7 * one


def test_limits_exclude_and_say_by_how_much(network, samples):
    rows = search(network, samples, wish(minimise="area", within={"latency_us": 1.2}))
    assert rows[0]["excluded"] is None and rows[0]["estimated"]["latency_us"] <= 1.2
    late = [row for row in rows if row["excluded"] and row["estimated"]]
    assert late and all("of 1.2 us from first input to decision" in row["excluded"] for row in late)


def test_machines_with_fewer_lanes_that_are_too_large_spare_the_rest(network, samples):
    rows = search(network, samples, wish(within={"dsp": 1}))
    skipped = [row for row in rows if row["estimated"] is None]
    assert skipped and all("are too large already" in row["excluded"] for row in skipped)
    assert all(row["lanes"][0] > 1 for row in skipped)


def test_folded_machines_are_looked_at_whatever_streaming_ones_take():
    """Engines of four layers are too large on a lane each; one engine for all is not, on two lanes neither."""
    rng = np.random.default_rng(1)
    widths = (12, 8, 8, 8, 4)
    deep = FrozenNetwork.from_arrays(
        [rng.integers(-3, 4, shape) for shape in pairwise(widths)], threshold=8, timesteps=6
    )
    events = Stimulus.from_dense(rng.random((4, 6, 12)) < 0.25)
    rows = search(deep, events, wish(minimise="area", within={"lut": 900}))
    kept = {(row["choices"].get("shape", "streaming"), *row["lanes"]) for row in rows if row["excluded"] is None}
    assert kept == {("folded", 1, 1, 1, 1), ("folded", 2, 2, 2, 2)}
    spared = {row["excluded"].partition(" are ")[0] for row in rows if row["estimated"] is None}
    assert "streaming machines on lanes 1, 1, 1, 1" in spared
    assert {tuple(row["lanes"]) for row in rows if row["choices"].get("shape") == "folded"} == {
        (count,) * 4 for count in (1, 2, 3, 4, 5, 6, 8)
    }


def test_none_of_a_resource_can_be_asked_for():
    figures = {"lut": 1, "ff": 1, "bram": 1, "dsp": 0, "cycles": 9, "latency_us": 9, "interval_us": 9, "energy_nj": 1}
    asked = wish(within={"dsp": 0})
    with_some = {**figures, "dsp": 2, "latency_us": 1}
    rows = [
        {"lanes": [1], "choices": {}, "estimated": found, "excluded": exclusion(asked, found)}
        for found in (with_some, {**figures, "exact": True})
    ]
    assert [row["estimated"]["dsp"] for row in rank(rows, asked)] == [0, 2]
    assert [row["excluded"] for row in rank(rows, asked)] == [None, "at least 2 of 0 DSP blocks"]


def test_what_a_host_has_to_agree_to_is_left_out_where_it_is_allowed_alone(network):
    plain = list(variants(wish(), network, (2, 1)))
    assert all(choices.input_checks and choices.counters and choices.output_spikes for choices in plain)
    lean = list(variants(wish(allowed=("input_checks", "counters", "output_spikes")), network, (2, 1)))
    assert not any(choices.input_checks or choices.counters or choices.output_spikes for choices in lean)
    assert {choices.input_words for choices in plain + lean} == {1}
    assert {choices.input_words for choices in variants(wish(allowed=("input_words",)), network, (2, 1))} == {4}
    assert all(not choices.loadable and choices.early_exit == "off" for choices in plain + lean)


def test_a_candidate_that_may_be_within_the_limits_comes_after_those_that_are():
    asked = wish(minimise="area", within={"lut": 1000.0})
    figures = {"ff": 1, "bram": 1, "dsp": 0, "cycles": 9, "latency_us": 9, "interval_us": 9, "energy_nj": 1}
    rows = [
        {"lanes": [1], "choices": {}, "estimated": {"lut": lut, **figures}, "excluded": None}
        for lut in (1010, 990, 5000)
    ]
    assert [row["estimated"]["lut"] for row in rank(rows, asked)] == [990, 1010, 5000]


def test_what_may_keep_the_limits_and_would_be_better_is_placed_too():
    asked = wish(within={"lut": 1000.0})
    figures = {"pipeline": "deep", "excluded": None, "ff": 1, "bram": 1, "dsp": 0, "interval_us": 9}

    def of(lut, cycles, **given):
        return {**figures, "lut": lut, "cycles": cycles, "latency_us": cycles / 50, "energy_nj": 1, **given}

    rows = [of(900, 100), of(890, 110), of(900, 100), of(1010, 90), of(1020, 120), of(880, 130, pipeline="short")]
    chosen = [(row["lut"], row["pipeline"]) for row in _worth_placing(rows, 9, asked)]
    assert chosen == [(900, "deep"), (1010, "deep"), (880, "short"), (890, "deep")]
    smallest = wish(minimise="area")
    assert [row["lut"] for row in _worth_placing(rows, 2, smallest)] == [900, 890]


def test_rows_are_a_table_and_lead_to_the_machine(network, samples):
    rows = tune(network, samples, "ecp5-25f", minimise="area", place=0)
    assert {"lanes", "shape", "pipeline", "lut", "ff", "bram", "cycles", "latency_us", "excluded"} <= set(rows[0])
    json.dumps(rows)
    best = rows[0]
    assert best["exact"] and not rows[-1]["exact"]
    plan = plan_machine(network, mapped(network, samples, best))
    assert exact_cycles(plan, samples.take(slice(0, VERIFIED_SAMPLES)))["latency_cycles"] == best["cycles"]
    area = machine_area(plan_machine(network, mapped(network, samples, best)), "ecp5")
    assert best["lut"] == pytest.approx(area["lut"], abs=1)
    assert set(hardware_keys(best)) <= {"lanes", *vars(choices_of(best))}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"minimise": "power"}, "minimise 'power' is none of latency, area, energy"),
        ({"within": {"luts": 3}}, "limit 'luts' is none of latency_us"),
        ({"within": {"lut": -1}}, "limit lut = -1 must be 0 or more"),
        ({"within": {"dsp": float("nan")}}, "limit dsp = nan must be 0 or more"),
        ({"within": {"cycles": 0}}, "limit cycles = 0 must be above 0"),
        ({"clock_mhz": 0}, "clock_mhz = 0 must be a number above 0"),
        ({"clock_mhz": -1.0}, "clock_mhz = -1.0 must be a number above 0"),
        ({"allow": ["early_exit"]}, "allowed 'early_exit' is none of input_checks"),
        ({"target": "ecp6"}, "device 'ecp6' is none of ecp5-25f"),
        ({"target": "artix7-100t"}, "nothing is known of its clock; give one with --clock-mhz"),
        (
            {"target": "icebreaker", "clock_mhz": 100.0},
            "--clock-mhz 100: icebreaker has a clock of 12 MHz",
        ),
        ({"clock_mhz": float("inf")}, "clock_mhz = inf must be a number above 0"),
        ({"clock_mhz": 0.0}, "clock_mhz = 0.0 must be a number above 0"),
        ({"target": "artix7-100t", "clock_mhz": 100.0}, "there is no place and route for it here; use place = 0"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(network, samples, given, line):
    with pytest.raises(InputError, match=line.replace("(", "[(]")) as error:
        tune(network, samples, **{"target": "ecp5-25f", **given})
    assert "\n" not in str(error.value)


def test_a_result_says_that_its_first_machine_is_not_verified_yet(network, samples, tmp_path, monkeypatch):
    network.save(tmp_path / "mine.safetensors")
    samples.save(tmp_path / "samples.npz")

    def stopped(*_):
        assert json.loads((tmp_path / "out" / "tune.json").read_text())["rows"]
        raise MismatchError("hardware differs")

    monkeypatch.setattr("codesign.cli.tuning.build_winner", stopped)
    row = {**tune_row(), "excluded": None}
    monkeypatch.setattr("codesign.cli.tuning.tune", lambda *_, **__: [row])
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["tune", "mine.safetensors", "--target", "ecp5-25f", "--samples", "samples.npz", "-o", "out"]) == 4
    found = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert found["verified"] is None and found["hardware"] is None


def tune_row() -> dict[str, object]:
    """A row of the table with the defaults."""
    return {"lanes": [1, 1], **{key: getattr(DEFAULTS, key) for key in keys()}}


@pytest.mark.parametrize("occupied", [True, False])
def test_where_nothing_can_be_written_is_said_before_the_search(
    network, samples, tmp_path, monkeypatch, capsys, occupied
):
    network.save(tmp_path / "n.safetensors")
    samples.save(tmp_path / "s.npz")
    folder = tmp_path / "run"
    if occupied:
        RunDirectory.create(folder)
    else:
        monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    options = ("--target", "ecp5-25f", "--samples", str(tmp_path / "s.npz"), "-o", str(folder))
    assert main(["tune", str(tmp_path / "n.safetensors"), *options]) == 7
    words = f"{folder}: is a run directory" if occupied else f"{tmp_path}: not writable"
    assert capsys.readouterr().err.startswith(f"codesign: {words}")


def test_limits_that_nobody_keeps_name_the_nearest(network, samples):
    with pytest.raises(
        CapacityError, match=r"no machine of this network is within .* nearest, lanes \d.* at least .* of 50 lo"
    ):
        tune(network, samples, "ecp5-25f", within={"lut": 50}, place=0)


def test_boards_have_their_clock_and_room_for_their_link(network):
    board = find_target("icebreaker")
    assert (set(board.clocks.values()), board.assumed, board.place) == ({12}, False, "ice40-up5k")
    assert board.budget["lut"] < find_target("ice40-up5k").budget["lut"]
    assert find_target("ice40-up5k").assumed
    of_board = Wish(board.family, board.budget, board.clocks, allowed=("input_checks",), board=True)
    assert list(variants(of_board, network, (1, 1))) == []


@pytest.mark.deep
def test_the_best_are_placed_and_keep_the_limits(network, samples, tmp_path):
    rows = tune(network, samples, "ecp5-25f", minimise="area", place=2, seeds=(1,), output=tmp_path)
    assert rows[0]["missed"] == "" and rows[0]["placed_mhz"] > 20
    assert abs(rows[0]["placed_lut"] / rows[0]["lut"] - 1) < 0.25
