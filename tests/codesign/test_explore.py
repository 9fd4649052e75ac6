"""Exploration: the front, what points share, what a failing or interrupted point leaves behind."""

import json
import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest

import codesign.explore as exploration
from codesign.basics.errors import AlteredError, InputError, MismatchError, OutputError
from codesign.basics.files import file_hash, write_json
from codesign.config import Config, parse_config
from codesign.contract.network import FrozenNetwork
from codesign.explore import design_points, explore, pareto_front, point_config
from codesign.machine.mapping import map_network
from codesign.machine.plan import MEMORY_ROLES, plan_machine
from codesign.records.rundir import RunDirectory
from codesign.report.exploration import write_exploration
from rtl_templates.bundle import _sidecar


def test_front_keeps_what_nothing_beats():
    costs, values = [1, 2, 3, 4, 5], [0.5, 0.7, 0.6, 0.9, 0.9]
    assert pareto_front(costs, values) == [0, 1, 3]


def test_front_keeps_equal_points_and_drops_the_dearer_of_equal_worth():
    assert pareto_front([2, 1, 1, 3], [0.5, 0.4, 0.4, 0.5]) == [1, 2, 0]
    assert pareto_front([1, 1], [0.3, 0.4]) == [1]
    assert pareto_front([], []) == []


@pytest.mark.parametrize("seed", range(20))
def test_front_agrees_with_the_definition(seed):
    import random

    draw = random.Random(seed)
    points = [(draw.randint(1, 6), draw.randint(1, 6)) for _ in range(12)]

    def beaten(point):
        return any(c <= point[0] and v >= point[1] and (c, v) != point for c, v in points)

    found = pareto_front([cost for cost, _ in points], [value for _, value in points])
    assert sorted(found) == [index for index, point in enumerate(points) if not beaten(point)]


def small_config(**grid):
    grid = {"density": [0.4, 0.2], "weight_bits": [4], "lanes": [1, 2], **grid}
    return parse_config({"explore": grid})


def test_grid_has_every_combination_once():
    names = [point.name for point in design_points(small_config(density=[0.4, 0.2, 0.4]))]
    assert names == ["d0.4-w4-l1", "d0.4-w4-l2", "d0.2-w4-l1", "d0.2-w4-l2"]


def test_a_point_changes_its_cell_alone():
    config = small_config()
    chosen = point_config(config, design_points(config)[3])
    assert chosen.train.rewiring.target_density == 0.2
    assert (chosen.freeze.weight_bits, chosen.hardware.lanes) == (4, 2)
    assert chosen.verify.samples == config.explore.verify_samples
    assert (chosen.data, chosen.network) == (config.data, config.network)


def test_a_density_above_the_start_is_refused():
    with pytest.raises(InputError, match=re.escape("explore.density: 0.8 exceeds train.rewiring.start_density = 0.5")):
        design_points(small_config(density=[0.8]))


def test_a_dense_training_cannot_be_explored():
    config = parse_config({"train": {"rewiring": {"preset": "dense"}}})
    with pytest.raises(InputError, match="preset is 'dense'"):
        design_points(config)


@pytest.mark.parametrize(
    "network",
    [
        {"layers": [{"kind": "conv", "channels": 2}, {"kind": "pool"}]},
        {"hidden": [4], "learn_leak": "neuron"},
    ],
)
def test_convolutions_pools_and_leaks_per_neuron_are_explored_too(network):
    assert len(design_points(parse_config({"network": network, "explore": {"lanes": [1, 2]}}))) > 1


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an exploration"):
        explore(small_config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@cache
def any_sidecar() -> str:
    network = FrozenNetwork.from_arrays([np.ones((3, 2), int)], threshold=2, timesteps=2)
    return json.dumps(_sidecar(plan_machine(network, map_network(network, [1])), "snn"))


def sidecar_with(**bits: int) -> dict:
    """A sidecar that differs from a true one in the bits of memory that it states."""
    memory_bits = {role: bits.get(role, 0) for role in MEMORY_ROLES}
    return {**json.loads(any_sidecar()), "memory_bits": memory_bits}


@dataclass
class FakeStages:
    """Stands for the pipeline: writes small outputs, records them, and counts what was really done."""

    done: list[tuple[str, str]] = field(default_factory=list)
    fail: dict[tuple[str, str], BaseException] = field(default_factory=dict)

    def __call__(self, context, names):
        run, config = context.run, context.config
        name, point = names[0], run.path.name
        if run.stage(name).get("status") == "done":
            run.check(*run.stage(name)["outputs"])
            return
        if (point, name) in self.fail:
            raise self.fail[point, name]
        self.done.append((point, name))
        density, lanes = config.train.rewiring.target_density, config.hardware.lanes
        outputs = {
            "train": ("checkpoints/best", {}),
            "freeze": ("network.safetensors", {}),
            "generate": ("bundle/design.json", sidecar_with(rows=10 * lanes, synapses=int(1000 * density))),
            "estimate": (
                "estimate.json",
                {"area": {"ecp5": {"lut": 100 * lanes}}, "latency_cycles": 1000 / lanes},
            ),
            "verify": ("verify/verification.json", {}),
            "synth": ("synth/synth.json", {}),
        }
        path, document = outputs[name]
        write_json(run.path / path, document)
        record = {"status": "done", "outputs": {path: file_hash(run.path / path)}, "seconds": 0.1}
        if name == "freeze":
            # The test accuracy says the opposite of the validation accuracy: whoever chose by it is found out.
            record["accuracy_validation"] = 0.5 + density
            run.figures["accuracy_frozen"] = 0.9 - density
        elif name == "verify":
            record["cycles"] = {"latency": 1010 / lanes}
            run.figures.update(samples_verified=config.verify.samples, mismatches=0)
        elif name == "synth":
            run.figures["area"] = {"ecp5": {"lut": 110 * lanes}}
        run.set_stage(name, record)
        run.save()


@pytest.fixture
def stages(monkeypatch):
    fake = FakeStages()
    monkeypatch.setattr(exploration, "run_stages", fake)
    monkeypatch.setattr("codesign.report.exploration.write_exploration", lambda folder, document: None)
    return fake


def by_name(document):
    return {point["name"]: point for point in document["points"]}


def test_training_and_freezing_are_shared(tmp_path, stages):
    explore(small_config(), tmp_path / "out")
    assert [work for work in stages.done if work[1] in ("train", "freeze")] == [
        ("d0.4", "train"),
        ("d0.2", "train"),
        ("d0.4-w4", "freeze"),
        ("d0.2-w4", "freeze"),
    ]
    point = RunDirectory.open(tmp_path / "out" / "points" / "d0.2-w4-l2")
    assert point.outputs_intact("train") and point.outputs_intact("freeze") and point.outputs_intact("generate")


def test_candidates_are_chosen_by_validation_accuracy_and_estimates(tmp_path, stages):
    document = explore(small_config(), tmp_path / "out")
    points = by_name(document)
    # Density 0.4 is better on the validation set and worse on the test set: at equal cost it is the one chosen.
    assert document["front"] == {
        "area": ["d0.4-w4-l1"],
        "memory": ["d0.4-w4-l1", "d0.2-w4-l1"],
        "latency": ["d0.4-w4-l2"],
    }
    chosen = {"d0.4-w4-l1", "d0.4-w4-l2", "d0.2-w4-l1"}
    for stage in ("verify", "synth"):
        assert {point for point, done in stages.done if done == stage} == chosen
    assert {name for name, point in points.items() if point["measured"]["area"]} == chosen
    assert {name for name, point in points.items() if point["samples_verified"]} == chosen
    assert points["d0.4-w4-l1"]["cost"]["area"] == 110 and points["d0.2-w4-l2"]["cost"]["area"] == 200


def test_unverified_points_are_not_said_to_be_verified(tmp_path, stages):
    points = by_name(explore(small_config(verify="none", synthesise="none"), tmp_path / "out"))
    assert all(point["samples_verified"] is None for point in points.values())
    assert not any(point["measured"]["area"] or point["measured"]["latency"] for point in points.values())
    assert {stage for _, stage in stages.done} == {"train", "freeze", "generate", "estimate"}


def test_everything_is_measured_on_request(tmp_path, stages):
    points = by_name(explore(small_config(verify="all", synthesise="all"), tmp_path / "out"))
    assert all(point["measured"] == {"area": True, "memory": True, "latency": True} for point in points.values())


def test_a_second_call_does_nothing_again(tmp_path, stages):
    first = explore(small_config(), tmp_path / "out")
    count = len(stages.done)
    assert explore(small_config(), tmp_path / "out") == first
    assert len(stages.done) == count


def test_a_larger_grid_keeps_the_points_there_are(tmp_path, stages):
    explore(small_config(), tmp_path / "out")
    stages.done.clear()
    explore(small_config(lanes=[1, 2, 4]), tmp_path / "out")
    assert {point for point, stage in stages.done if stage == "generate"} == {"d0.4-w4-l4", "d0.2-w4-l4"}


def test_a_failing_point_leaves_the_others_usable(tmp_path, stages):
    stages.fail["d0.4-w4-l2", "generate"] = InputError("no such lane")
    stages.fail["d0.4-w4-l1", "verify"] = MismatchError("spikes differ")
    document = explore(small_config(verify="all"), tmp_path / "out")
    points = by_name(document)
    assert points["d0.4-w4-l2"]["status"] == "failed" and points["d0.4-w4-l2"]["error"] == "no such lane"
    assert points["d0.4-w4-l1"]["error"] == "spikes differ"
    assert points["d0.2-w4-l1"]["status"] == points["d0.2-w4-l2"]["status"] == "done"
    page = write_exploration(tmp_path / "out", document).read_text()
    assert "d0.4-w4-l2 failed." in page and "no such lane" in page


def test_a_failing_training_fails_its_points_alone(tmp_path, stages):
    stages.fail["d0.4", "train"] = InputError("no data")
    points = by_name(explore(small_config(), tmp_path / "out"))
    assert [points[name]["status"] for name in sorted(points)] == ["done", "done", "failed", "failed"]


def test_no_point_at_all_is_an_error(tmp_path, stages):
    stages.fail["d0.4", "train"] = stages.fail["d0.2", "train"] = InputError("no data")
    with pytest.raises(InputError, match="no data"):
        explore(small_config(), tmp_path / "out")


def test_an_interrupted_exploration_keeps_its_points_and_goes_on(tmp_path, stages):
    stages.fail["d0.2-w4-l1", "generate"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        explore(small_config(), tmp_path / "out")
    table = by_name(json.loads((tmp_path / "out" / "explore.json").read_text()))
    assert table["d0.4-w4-l1"]["status"] == "done" and table["d0.2-w4-l1"]["status"] == "waiting"
    stages.fail.clear()
    stages.done.clear()
    points = by_name(explore(small_config(), tmp_path / "out"))
    assert all(point["status"] == "done" for point in points.values())
    assert ("d0.4-w4-l1", "generate") not in stages.done and ("d0.4", "train") not in stages.done


@pytest.mark.parametrize(
    "error", [OutputError("out: the disk is full"), OSError(28, "No space left on device"), AlteredError("x: differs")]
)
def test_a_fault_of_the_folder_ends_the_exploration(tmp_path, stages, error):
    """It is not of the design: the points after it would fail of it too."""
    stages.fail["d0.4-w4-l2", "generate"] = error
    with pytest.raises(type(error)):
        explore(small_config(), tmp_path / "out")
    table = by_name(json.loads((tmp_path / "out" / "explore.json").read_text()))
    assert [table[name]["status"] for name in table] == ["done", "waiting", "waiting", "waiting"]


@pytest.mark.parametrize(
    ("path", "maker"),
    [
        ("shared/d0.4/checkpoints/best", "train"),
        ("shared/d0.4-w4/network.safetensors", "freeze"),
        ("points/d0.4-w4-l1/estimate.json", "estimate"),
        ("points/d0.4-w4-l1/bundle/design.json", "generate"),
    ],
)
def test_an_altered_file_of_an_exploration_is_refused_by_name(tmp_path, stages, path, maker):
    explore(small_config(), tmp_path / "out")
    count = len(stages.done)
    with (tmp_path / "out" / path).open("a") as file:
        file.write(" ")
    with pytest.raises(AlteredError, match=rf"{path.split('/')[-1]}: differs from what `{maker}` has recorded"):
        explore(small_config(), tmp_path / "out")
    assert len(stages.done) == count


def test_progress_ends_at_its_total(tmp_path, stages):
    calls = []
    explore(small_config(), tmp_path / "out", progress=lambda done, total, text="": calls.append((done, total)))
    assert all(done <= total for done, total in calls)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_page_and_pictures_are_there_and_self_contained(tmp_path, stages):
    page = write_exploration(tmp_path / "out", explore(small_config(), tmp_path / "out")).read_text()
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "Pareto front" in page and "d0.4-w4-l1" in page and "(estimated)" in page
    assert (tmp_path / "out" / "explore.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "out" / "explore.svg").read_text()


def test_the_default_grid_is_valid():
    assert len(design_points(Config())) == 24


def test_only_an_exploration_is_gone_on_with(tmp_path):
    config = parse_config({"explore": {"density": [0.4], "weight_bits": [4], "lanes": [1]}})
    project = tmp_path / "project"
    (project / "shared").mkdir(parents=True)
    with pytest.raises(OutputError, match="not empty and not an exploration"):
        explore(config, project)
    assert [path.name for path in project.iterdir()] == ["shared"]
    (project / "explore.json").write_text('{"format": "something else"}')
    with pytest.raises(OutputError, match="not the table of an exploration"):
        explore(config, project)
    (project / "explore.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deep"):
        explore(config, project)


@pytest.mark.deep
@pytest.mark.hardware
def test_real_points_are_trained_simulated_and_drawn(tmp_path):
    config = parse_config(
        {
            "network": {"hidden": [12], "timesteps": 4, "readout": "spike_count"},
            "train": {"epochs": 8, "batch_size": 64, "learning_rate": 0.01, "threads": 1},
            "freeze": {"epochs": 2},
            "verify": {"stress_samples": 2},
            "explore": {
                "density": [0.4], "weight_bits": [4], "lanes": [1, 2],
                "verify": "all", "verify_samples": 3, "synthesise": "none",
            },
        }
    )  # fmt: skip
    document = explore(config, tmp_path / "out")
    points = by_name(document)
    assert [point["status"] for point in points.values()] == ["done", "done"], document
    for point in points.values():
        assert (point["samples_verified"], point["mismatches"]) == (3, 0)
        assert point["measured"] == {"area": False, "memory": True, "latency": True}
        assert point["validation_accuracy"] > 0.3
    assert points["d0.4-w4-l2"]["cost"]["latency"] < points["d0.4-w4-l1"]["cost"]["latency"]
    assert (tmp_path / "out" / "explore.png").is_file()
    again = []
    explore(config, tmp_path / "out", progress=lambda done, total, text="": again.append(text))
    assert not any("validation" in text for text in again)
