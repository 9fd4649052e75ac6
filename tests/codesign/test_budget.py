"""Hardware budgets: limits and choices, the formula, what place and route rejects, and what a run does then."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from codesign.basics.errors import CapacityError, InputError, UnsupportedError
from codesign.basics.progress import silent
from codesign.config import Config, load_config, parse_config
from codesign.config.text import config_toml
from codesign.contract.network import (
    INPUT,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Projection,
    SumPool,
    Synapses,
)
from codesign.contract.stimulus import Stimulus
from codesign.cost.budget import Budget, Demand, demands, nearest, preferred, relative_errors, shortage
from codesign.cost.coefficients import MODELS
from codesign.cost.estimate import estimate
from codesign.machine.choices import Choices
from codesign.machine.mapping import map_network
from codesign.machine.plan import plan_machine
from codesign.pipeline import work
from codesign.pipeline.budget import Choice, Placed, choose_frozen, place, resolve_budget
from codesign.pipeline.runner import run_stages
from codesign.pipeline.stage import Context
from codesign.records.rundir import RunDirectory
from codesign.report import plots, write_report


def make_budget(family=None, overhead=None, lanes=(1, 2, 4), bits=(4, 6), **limits) -> Budget:
    return Budget("it", family, limits, overhead or {}, None, bits, lanes)


def make_demand(lanes: int, needed: Mapping[str, float], limits: Mapping[str, float], bits: int = 4) -> Demand:
    return Demand(bits, lanes, needed, needed, limits)


# Configuration.


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"budget": {"lanes": [1]}}, "lanes needs a limit"),
        ({"budget": {"board": "b", "target": "ecp5-25f"}}, "exclude each other"),
        ({"budget": {"lut": 100}}, "lut needs a board or a target"),
        ({"budget": {"cycles": 5, "latency_us": 5.0, "board": "b"}}, "exclude each other"),
        ({"budget": {"latency_us": 5.0}}, "latency_us needs a board"),
        ({"budget": {"latency_us": 5.0, "target": "ecp5-25f"}}, "latency_us needs a board, or clock_mhz"),
        ({"budget": {"cycles": 5, "clock_mhz": 12.0}}, "clock_mhz needs a target or latency_us"),
        ({"budget": {"board": "b", "latency_us": 5.0, "clock_mhz": 12.0}}, "a board has its own clock"),
        ({"budget": {"board": "b", "clock_mhz": 12.0}}, "clock_mhz needs a target"),
        ({"budget": {"board": "b"}, "hardware": {"lanes": 2}}, r"hardware\.lanes and \[budget\] exclude each other"),
        ({"budget": {"board": "b"}, "freeze": {"weight_bits": 4}}, r"freeze\.weight_bits and \[budget\] exclude"),
        ({"budget": {"board": "b"}, "train": {"rewiring": {"preset": "dense"}}}, "needs a density that falls"),
        ({"budget": {"board": "b"}, "train": {"rewiring": {"preset": "static"}}}, "needs a density that falls"),
        ({"budget": {"board": "b"}, "train": {"rewiring": {"preset": "set"}}}, "needs a density that falls"),
        ({"budget": {"board": "b"}, "train": {"rewiring": {"stop_at": "turning-point"}}}, "exclude each other"),
        ({"budget": {"board": "b", "weight_bits": []}}, "weight_bits"),
        ({"budget": {"bord": "b"}}, "did you mean 'board'"),
    ],
)
def test_contradictions_are_refused_in_one_line(document, message):
    with pytest.raises(InputError, match=message) as error:
        parse_config(document)
    assert "\n" not in str(error.value)


def test_a_budget_survives_being_written_down(tmp_path):
    config = parse_config({"budget": {"board": "icebreaker", "lanes": [1, 4], "latency_us": 100.0}})
    path = tmp_path / "config.toml"
    path.write_text(config_toml(config))
    assert load_config(path).budget == config.budget
    assert not Config().budget.active


def test_limits_come_from_the_board_and_what_narrows_it():
    config = parse_config({"budget": {"board": "icebreaker", "lut": 4000, "bram": 99, "latency_us": 100.0}})
    found = resolve_budget(config)
    assert found is not None
    assert found.limits == {"lut": 4000, "bram": 30, "dsp": 8, "spram": 4, "cycles": 1200}
    assert (found.family, found.clock_mhz, found.weight_bits, found.lanes) == ("ice40", 12, (4, 5, 6), (1, 2, 4, 8))
    assert found.overhead["lut"] > 0
    # The formula times 1 + margin reaches what it may be off by.
    for kind, error in {"lut": MODELS["ice40"].lut.low, "bram": 0, "dsp": 0, "cycles": 0.05}.items():
        assert (1 - error) * (1 + found.margins[kind]) == pytest.approx(1)


def test_a_target_has_no_link_and_the_clock_that_is_asked():
    given = {"target": "ecp5-25f", "clock_mhz": 50.0, "latency_us": 10.0, "lanes": [4, 1, 4]}
    found = resolve_budget(parse_config({"budget": given}))
    assert found is not None
    assert found.limits == {"lut": 24288, "ff": 24288, "bram": 56, "dsp": 28, "cycles": 500}
    assert (found.overhead, found.clock_mhz, found.lanes) == ({}, 50, (1, 4))


def test_memory_alone_needs_no_device():
    found = resolve_budget(parse_config({"budget": {"memory_bits": 5000}}))
    assert found is not None
    assert (found.family, found.limits, found.name) == (None, {"memory_bits": 5000}, "the budget")


def test_a_time_alone_needs_a_clock_and_no_device():
    found = resolve_budget(parse_config({"budget": {"latency_us": 40.0, "clock_mhz": 80.0}}))
    assert found is not None
    assert (found.family, found.limits, found.clock_mhz) == (None, {"cycles": 3200}, 80)


def test_no_budget_and_unknown_boards():
    assert resolve_budget(Config()) is None
    with pytest.raises(InputError, match="did you mean 'icebreaker'"):
        resolve_budget(parse_config({"budget": {"board": "icebraker"}}))


# The formula.


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(4)
    weights = [rng.integers(-7, 8, shape) * (rng.random(shape) < 0.4) for shape in ((20, 24), (24, 5))]
    return FrozenNetwork.from_arrays(
        weights, threshold=[30, 20], timesteps=4, coding=InputCoding("current", 2), membrane_width=10
    )


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(5)
    return Stimulus(20, 4, np.zeros(6, np.int32), values=rng.integers(0, 4, (6, 20)).astype(np.uint8))


def test_demands_are_estimates_with_link_and_margin(network, samples):
    budget = make_budget("ecp5", {"lut": 500.0, "bram": 2.0}, lut=9000, ff=9000, bram=5, cycles=900)
    found = demands(network, budget, samples, 6)
    assert [(demand.weight_bits, demand.lanes) for demand in found] == [(6, 1), (6, 2), (6, 4)]
    for demand in found:
        document = estimate(plan_machine(network, map_network(network, [demand.lanes] * 2)), stimulus=samples)
        area = document["area"]["ecp5"]
        assert demand.estimated["lut"] == area["lut"] + 500
        assert demand.estimated["bram"] == area["bram"] + 2
        assert demand.needed["lut"] == pytest.approx((area["lut"] + 500) / (1 - MODELS["ecp5"].lut.low))
        assert demand.needed["bram"] == area["bram"] + 2
        assert demand.needed["cycles"] == pytest.approx(demand.estimated["cycles"] / 0.95)
    assert found[0].estimated["cycles"] > found[2].estimated["cycles"]


def test_without_a_device_memory_and_cycles_alone_are_estimated(network, samples):
    found = demands(network, make_budget(memory_bits=10), samples, 4)
    assert set(found[0].needed) == {"memory_bits", "cycles"}
    assert all(demand.over == ["memory_bits"] and not demand.fits and demand.excess > 1 for demand in found)


def picture_network() -> FrozenNetwork:
    """Six channels of 3 x 3 taps on 8 x 8 inputs, pooled, and four classes."""
    rng = np.random.default_rng(4)
    kernel = rng.integers(-7, 8, (6, 1, 3, 3)) * (rng.random((6, 1, 3, 3)) < 0.5)
    matrix = rng.integers(-7, 8, (96, 4)) * (rng.random((96, 4)) < 0.4)
    layers = (
        FrozenLayer.from_projections(
            [Projection(INPUT, Convolution.from_dense(kernel, (1, 8, 8), 1, 1))], threshold=20
        ),
        FrozenLayer.from_projections([Projection(0, Synapses.from_dense(matrix), SumPool((6, 8, 8), 2))], threshold=20),
    )
    return FrozenNetwork(layers, 4, InputCoding("current", 3), "spike_count")


def test_a_budget_counts_convolutions_as_all_networks():
    network = picture_network()
    values = np.random.default_rng(5).integers(0, 8, (12, 64)).astype(np.uint8)
    samples = Stimulus(64, 4, np.full(12, -1, np.int32), values=values)
    found = demands(network, make_budget(lanes=(1, 4), memory_bits=10**6, cycles=10**6), samples, 4)
    for demand in found:
        planned = plan_machine(network, map_network(network, [demand.lanes] * 2))
        assert demand.estimated["memory_bits"] == sum(planned.memory_bits.values())
    assert found[1].estimated["cycles"] < found[0].estimated["cycles"]
    on_device = demands(network, make_budget(family="ecp5", lut=1000), samples, 4)
    assert all(demand.estimated["lut"] > 100 for demand in on_device)


def test_a_machine_that_the_family_has_not_is_refused(network, samples):
    distributed = Choices(state_memory="distributed")
    budget = replace(make_budget(family="ice40", lut=1000), choices=distributed)
    with pytest.raises(UnsupportedError, match="it: iCE40 has no distributed RAM"):
        demands(network, budget, samples, 4)


@pytest.mark.parametrize("layers", [[{"kind": "conv", "channels": 2}], [{"kind": "pool"}]])
def test_a_device_may_limit_convolutions_and_pools(layers):
    assert parse_config({"network": {"layers": layers}, "budget": {"target": "ecp5-25f"}}).budget.active


def test_the_most_lanes_are_preferred_and_with_a_limit_in_time_the_fewest():
    area = make_budget(lut=100)
    found = [make_demand(lanes, {"lut": 30.0 * lanes}, area.limits) for lanes in (1, 2, 4)]
    assert [demand.lanes for demand in preferred(found, area)] == [2, 1]
    timed = make_budget(lut=100, cycles=60)
    found = [make_demand(lanes, {"lut": 20.0 * lanes, "cycles": 100 / lanes}, timed.limits) for lanes in (1, 2, 4)]
    assert [demand.lanes for demand in preferred(found, timed)] == [2, 4]
    assert nearest(found, timed).lanes == 2


def test_the_nearest_of_those_that_do_not_fit_exceeds_least():
    budget = make_budget(lut=100, cycles=10)
    found = [make_demand(lanes, {"lut": 60.0 * lanes, "cycles": 30 / lanes}, budget.limits) for lanes in (1, 2, 4)]
    assert nearest(found, budget).lanes == 2
    assert found[0].excess == 3


def test_what_there_is_none_of_may_be_used_not_at_all():
    budget = make_budget(dsp=0)
    assert make_demand(1, {"dsp": 0.0}, budget.limits).fits
    assert make_demand(1, {"dsp": 1.0}, budget.limits).excess == math.inf


def test_a_shortage_says_what_by_how_much_and_what_would_help():
    budget = make_budget("ice40", lut=100, memory_bits=50)
    text = shortage(make_demand(2, {"lut": 130.0, "memory_bits": 80.0}, budget.limits), budget)
    assert text.startswith("it: at 4 bits on 2 lanes the network needs about 130 of 100 logic cells (30 too many, with")
    assert "about 80 of 50 bits of memory (30 too many); use fewer lanes in budget.lanes, or a lower" in text
    assert "\n" not in text


def test_errors_are_relative_to_the_measurement():
    assert relative_errors({"lut": 90, "bram": 3, "cycles": 5}, {"lut": 100, "bram": 0}) == {"lut": -0.1, "bram": None}


# The choice.


class Fake:
    """A run whose formula finds these (bits, lanes) to fit, best first."""

    def __init__(self, folder, fitting):
        config = parse_config({"budget": {"memory_bits": 100, "weight_bits": [4, 6], "lanes": [1, 2, 4]}})
        self.context = Context(RunDirectory.create(folder), config)
        self.fitting = fitting
        bits = sorted({bits for bits, _ in fitting})
        self.context.run.set_stage("train", {"budget": {"weight_bits": bits}})
        self.budget = make_budget(memory_bits=100)

    @property
    def choice(self):
        return Choice(self.context)

    def freeze(self):
        def attempt(bits):
            fits = {lanes for entry, lanes in self.fitting if entry == bits}
            needs = [(lanes, {"memory_bits": 50.0 if lanes in fits else 100.0 + lanes}) for lanes in (1, 2, 4)]
            return bits, [make_demand(lanes, needed, self.budget.limits, bits) for lanes, needed in needs]

        bits, record = choose_frozen(self.choice, self.budget, attempt)
        self.context.run.set_stage("freeze", {"budget": record})
        return bits, record


def test_the_most_bits_come_first_then_the_most_lanes(tmp_path):
    fake = Fake(tmp_path, [(4, 1), (4, 2), (6, 1), (6, 2)])
    bits, record = fake.freeze()
    assert (bits, record["lanes"], record["fits_by_formula"], record["passed_over"]) == (6, [2, 1], True, [])
    assert fake.choice.lanes == [2, 1]


def test_rejections_take_fewer_lanes_then_fewer_bits_then_end(tmp_path):
    fake = Fake(tmp_path, [(4, 1), (6, 1), (6, 4)])
    fake.freeze()
    assert fake.choice.reject(6, 4, "a") == "generate"
    assert fake.choice.lanes == [1]
    assert fake.choice.reject(6, 1, "b") == "freeze"
    assert fake.choice.bits == [4]
    assert fake.freeze()[0] == 4
    assert fake.choice.lanes == [1]
    assert fake.choice.reject(4, 1, "c") is None
    assert [item["reason"] for item in fake.choice.rejected] == ["a", "b", "c"]
    assert fake.choice.exhausted == [6, 4]
    fake.choice.forget()
    assert fake.choice.bits == [6, 4]


def test_rejections_belong_to_one_configuration(tmp_path):
    fake = Fake(tmp_path, [(4, 1), (6, 1)])
    fake.freeze()
    fake.choice.reject(6, 1, "too large")
    changed = fake.context.config.model_copy(update={"hardware": fake.context.config.hardware.model_copy()})
    assert Choice(Context(fake.context.run, changed)).exhausted == [6]
    other = parse_config({"budget": {"memory_bits": 101}})
    assert Choice(Context(fake.context.run, other)).rejected == []


def test_bits_whose_frozen_network_outgrew_the_budget_are_passed_over(tmp_path):
    fake = Fake(tmp_path, [(4, 1), (6, 1)])
    fake.fitting = [(4, 1)]
    bits, record = fake.freeze()
    assert (bits, record["passed_over"]) == (4, [6])


def test_place_and_route_decides_where_every_frozen_network_outgrew_the_budget(tmp_path):
    fake = Fake(tmp_path, [(4, 1), (6, 1)])
    fake.fitting = []
    bits, record = fake.freeze()
    assert (bits, record["lanes"], record["fits_by_formula"]) == (4, [1], False)


# The whole path. Small, and without a device: what place and route would say is told to it.

SETTINGS = {
    "data": {"train_limit": 256, "test_limit": 40, "validation": 100},
    "network": {"hidden": [16], "timesteps": 4, "readout": "spike_count"},
    "train": {
        "threads": 1,
        "epochs": 8,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "rewiring": {"target_density": 0.1, "epochs_per_iteration": 1},
    },
    "freeze": {"epochs": 1},
    "budget": {"memory_bits": 6600, "weight_bits": [3, 4], "lanes": [1, 2]},
}
PATH = ("train", "freeze", "generate", "estimate", "budget", "report")


def run(folder, settings=SETTINGS, names=PATH, announced=None):
    directory = RunDirectory.create(folder)
    with directory.locked():
        announce = None if announced is None else lambda _, __, stage, event: announced.append((stage.name, event))
        try:
            run_stages(Context(directory, parse_config(settings)), names, announce=announce)
        finally:
            directory = RunDirectory.open(folder)
    return directory


@pytest.fixture(scope="module")
def refused_once(tmp_path_factory):
    """A run whose first choice place and route refuses."""
    folder, said = tmp_path_factory.mktemp("refused"), ["1 cell too many"]
    patch = pytest.MonkeyPatch()
    real = work.place

    def refuse(*arguments):
        found = real(*arguments)
        return Placed(found.measured, None, said.pop()) if said else found

    patch.setattr(work, "place", refuse)
    announced = []
    directory = run(folder, announced=announced)
    patch.undo()
    return directory, [name for name, event in announced if event == "start"]


def test_a_refused_choice_is_made_anew_with_less(refused_once):
    directory, started = refused_once
    document = directory.manifest["budget"]
    (item,) = document["rejected"]
    assert item["reason"] == "1 cell too many"
    assert (document["lanes"], document["weight_bits"]) != (item["lanes"], item["weight_bits"])
    assert started[:5] == ["train", "freeze", "generate", "estimate", "budget"]
    assert started.count("budget") == started.count("generate") == 2
    assert document["fits"]
    assert document["measured"]["memory_bits"] <= 6600
    assert document["error"] == {"memory_bits": 0.0}
    sidecar = json.loads((directory.path / "bundle" / "design.json").read_text())
    assert [layer["lanes"] for layer in sidecar["layers"]] == [document["lanes"]] * 2
    frozen = FrozenNetwork.load(directory.path / "network.safetensors")
    assert max(layer.weight_bits for layer in frozen.layers) <= document["weight_bits"]


def test_a_second_run_repeats_nothing(refused_once):
    announced = []
    directory = run(refused_once[0].path, announced=announced)
    assert {event for _, event in announced} == {"skip"}
    assert directory.manifest["budget"] == refused_once[0].manifest["budget"]


def test_the_report_shows_the_way_to_the_budget(refused_once, tmp_path):
    shutil.copytree(refused_once[0].path, tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "Hardware budget: the budget" in page
    assert "limit 6,600" in page
    assert "1 cell too many" in page
    assert "Fits." in page


def test_a_single_command_does_not_go_back(refused_once, monkeypatch):
    monkeypatch.setattr(work, "place", lambda *_: Placed({}, None, "too large"))
    directory = RunDirectory.open(refused_once[0].path)
    before = json.dumps(directory.manifest)
    with pytest.raises(CapacityError, match=r"does not fit: too large"), directory.locked():
        run_stages(Context(directory, parse_config(SETTINGS)), ["budget"], force=True)
    RunDirectory(directory.path, json.loads(before)).save()


def test_an_impossible_budget_keeps_what_was_trained(tmp_path):
    settings = SETTINGS | {"budget": {"memory_bits": 500, "weight_bits": [3], "lanes": [1]}}
    with pytest.raises(CapacityError, match=r"of 500 bits of memory \(\d+ too many\).*0\.0997 is the lowest") as error:
        run(tmp_path, settings)
    assert error.value.exit_code == 6
    assert (tmp_path / "checkpoints" / "best.safetensors").is_file()
    assert not (tmp_path / "network.safetensors").exists()
    assert "Does not fit." in (tmp_path / "report.html").read_text()
    seconds = RunDirectory.open(tmp_path).stage("train")["seconds"]
    digest = (tmp_path / "checkpoints" / "best.safetensors").read_bytes()
    with pytest.raises(CapacityError):
        run(tmp_path, settings)
    assert (tmp_path / "checkpoints" / "best.safetensors").read_bytes() == digest
    assert RunDirectory.open(tmp_path).stage("train")["seconds"] >= seconds


def test_convolutions_are_trained_to_a_time_without_a_device(tmp_path):
    network = {"layers": [{"kind": "conv", "channels": 4, "stride": 2}], "timesteps": 4, "readout": "spike_count"}
    budget = {"latency_us": 8.0, "clock_mhz": 50.0, "weight_bits": [4], "lanes": [1, 2, 4]}
    directory = run(tmp_path, SETTINGS | {"network": network, "budget": budget})
    document = directory.manifest["budget"]
    assert (document["limits"], document["clock_mhz"], document["family"]) == ({"cycles": 400}, 50, None)
    found = {demand["lanes"]: demand for demand in directory.stage("freeze")["budget"]["demands"]}
    assert next(lanes for lanes, demand in found.items() if demand["fits"]) == document["lanes"] > 1
    assert found[document["lanes"]]["needed"]["cycles"] <= 400 < found[1]["needed"]["cycles"]
    assert "without a device to place on" in (tmp_path / "report.html").read_text()


# Place and route, its tools replaced.


@pytest.fixture
def bundle(refused_once):
    return refused_once[0].path / "bundle"


@pytest.mark.parametrize(
    ("used", "limit", "reason"),
    [(900, 1000, None), (1001, 1000, "1001 of 1000 logic cells")],
)
def test_what_a_board_uses_is_compared_with_narrower_limits(tmp_path, bundle, monkeypatch, used, limit, reason):
    import boards.build

    answer = {"used": {"lut": used, "bram": 3, "dsp": 0}, "fmax_mhz": 20.5}
    monkeypatch.setattr(boards.build, "build", lambda *_, **__: answer)
    config = parse_config({"budget": {"board": "icebreaker", "lut": limit}})
    budget = resolve_budget(config)
    assert budget is not None
    found = place(bundle, config, budget, tmp_path, silent)
    assert found.reason == reason
    assert (found.measured["lut"], found.measured["bram"], found.fmax_mhz) == (used, 3, 20.5)


def test_a_board_that_overflows_is_a_reason_not_an_error(tmp_path, bundle, monkeypatch):
    import boards.build

    def overflow(*_, **__):
        raise CapacityError("31 of 30 block RAMs")

    monkeypatch.setattr(boards.build, "build", overflow)
    config = parse_config({"budget": {"board": "icebreaker"}})
    budget = resolve_budget(config)
    assert budget is not None
    assert place(bundle, config, budget, tmp_path, silent).reason == "31 of 30 block RAMs"


def test_a_target_must_reach_its_clock(tmp_path, bundle, monkeypatch):
    import boards.synth

    entry = {"lut": 900, "ff": 800, "bram": 2, "dsp": 0, "fmax_mhz": 80.0, "reason": None}
    asked = []

    def synth(path, options, folder, progress):
        asked.append((options.families, options.fmax, options.seeds))
        return {"placed": {"ecp5-25f": entry}}

    monkeypatch.setattr(boards.synth, "synth_bundle", synth)
    for clock, reason in ((80.0, None), (90.0, "reaches 80.0 MHz of 90 MHz")):
        config = parse_config({"budget": {"target": "ecp5-25f", "clock_mhz": clock}})
        budget = resolve_budget(config)
        assert budget is not None
        assert place(bundle, config, budget, tmp_path, silent).reason == reason
    assert asked == [([], ["ecp5-25f"], [1])] * 2


# The picture.


def test_the_first_epoch_at_the_final_density():
    assert plots.settled_from([0.5, 0.4, 0.3, 0.3, 0.3]) == 2
    assert plots.settled_from([0.5]) == 0
    assert plots.settled_from([0.3, 0.5, 0.3]) == 2
