"""What workers do, with networks that are really trained, and who the workers are."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.explore import disturbed, space_text
from codesign.basics.errors import InputError, OutputError, ToolError
from codesign.cli import main
from codesign.config import HardwareConfig, hardware_config, parse_config, parse_section
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.cost.mapping import map_hardware
from codesign.explore import explore as explore_designs
from codesign.explore import jobs, rows_of, run_study
from codesign.explore.points import explicit_hardware, points_of, shortage
from codesign.explore.space import Machine, parse_space
from codesign.explore.workers import Job, workers
from codesign.records.names import NETWORK
from codesign.records.rundir import RunDirectory
from tests.fake_study import essence

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "base": {
        "data": {"train_limit": 200, "test_limit": 60},
        "network": {"hidden": [6], "timesteps": 2},
        "train": {"epochs": 3, "batch_size": 64, "rewiring": {"epochs_per_iteration": 1}},
        "freeze": {"epochs": 0},
    },
    "axes": {
        "train.rewiring.target_density": {"low": 0.15, "high": 0.5},
        "freeze.weight_bits": [3, 5],
        "hardware.lanes": [1, 2],
        "hardware.goal": ["small", "balanced"],
    },
    "device": "ecp5-25f",
    "objectives": {"accuracy": "maximise", "cycles": "minimise"},
    "batch": 2,
    "budget": {"networks": 2},
    "front": {"most": 0},
}


def explore(
    folder: Path, count: int | None = 1, scheduler: str | None = None, networks: Path | None = None, **changes: Any
) -> dict[str, Any]:
    space = parse_space({**TINY, **changes})
    return run_study(space, folder, count, scheduler, networks, "cpu", lambda *_: None)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder of a finished study, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("trained") / "study"
    explore(folder)
    return folder


def table(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "explore.json").read_text(encoding="utf-8"))


def test_networks_are_run_folders_and_points_are_made_again_by_their_command(tmp_path, study, monkeypatch):
    document = table(study)
    assert len(document["points"]) == 8 and document["complete"]
    for network in document["networks"]:
        run = RunDirectory.open(network["folder"])
        assert run.outputs_intact("train") and run.outputs_intact("freeze")
        assert run.figures["network_hash"] == network["network_hash"]
    # Test accuracies are there for the front, and nowhere else.
    assert {point["front"] for point in document["points"] if point["test_accuracy"] is not None} == {True}
    # The command leads to the same network on the same machine.
    point = document["points"][-1]
    words = shlex.split(point["command"])
    monkeypatch.chdir(tmp_path)
    for stage in ("train", "freeze", "estimate"):
        arguments = words[2:] if stage == "train" else [words[4]]
        assert main([stage, *arguments]) == 0
    again = json.loads((tmp_path / words[4] / "estimate.json").read_text())
    assert again["latency_cycles"] == point["metrics"]["cycles"] and again["lanes"] == point["lanes"]


def test_sampling_looks_at_no_test_sample(tmp_path, study, monkeypatch):
    """With test accuracies that say the opposite the same points are found."""
    whole = table(study)
    shutil.copytree(study / "networks", tmp_path / "networks")
    freeze = jobs.freeze_network

    def blind(*arguments, **more):
        found = freeze(*arguments, **more)
        run = RunDirectory.open(arguments[1].frozen)
        run.figures["accuracy_frozen"] = 1 - run.figures["accuracy_frozen"]
        run.save()
        return found

    monkeypatch.setattr("codesign.explore.study.freeze_network", blind)
    turned = explore(tmp_path / "turned", networks=tmp_path / "networks")
    assert essence(turned) == essence(whole)
    pairs = zip(whole["points"], turned["points"])
    assert all(a["test_accuracy"] == pytest.approx(1 - b["test_accuracy"]) for a, b in pairs if a["front"])


def test_freezings_share_a_training(tmp_path):
    axes = {"freeze.weight_bits": [3, 4], "hardware.lanes": [1]}
    explore(tmp_path / "study", axes=axes)
    names = sorted(path.name for path in (tmp_path / "study" / "networks").iterdir())
    assert len(names) == 3 and sum("-" in name for name in names) == 2
    assert len({name.partition("-")[0] for name in names}) == 1


def test_estimates_are_kept_as_long_as_they_hold(study, monkeypatch):
    first = table(study)
    estimate = jobs.estimate_machines
    count = []
    monkeypatch.setattr(jobs, "estimate_machines", lambda *given: count.append(1) or estimate(*given))
    assert explore(study) == first and count == []
    path = study / "estimates" / "000.json"
    path.write_text(path.read_text().replace('"key": "', '"key": "0'))
    assert explore(study) == first and count == [1]


def test_who_comes_second_waits_and_finds_the_work_done(tmp_path):
    job = jobs.NetworkJob(tmp_path, jobs.without_machine(parse_config(TINY["base"])))
    run = RunDirectory.create(job.trained)
    with run.locked():
        waiting = threading.Thread(target=jobs.train_network, args=(jobs.stamp(), job))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(60)
    assert RunDirectory.open(job.trained).outputs_intact("train")


def test_another_codesign_is_refused(tmp_path):
    job = jobs.NetworkJob(tmp_path, parse_config({}))
    with pytest.raises(
        ToolError, match=r"worker here: has codesign .*, the study is of 0.0.9 \(abc\); install the same"
    ):
        jobs.train_network("0.0.9 (abc)", job)
    with pytest.raises(OutputError, match=r"cannot write .*; studies need a folder that all workers see"):
        jobs.check_worker(jobs.stamp(), tmp_path / "elsewhere")


def network_and_samples(widths: tuple[int, ...], timesteps: int, density: float) -> tuple[FrozenNetwork, Stimulus]:
    """A network and samples that it decides rightly, all of them."""
    rng = np.random.default_rng(1)
    weights = [rng.integers(-3, 4, shape) * (rng.random(shape) < density) for shape in pairwise(widths)]
    network = FrozenNetwork.from_arrays(weights, threshold=8, timesteps=timesteps)
    drive = rng.random((24, timesteps, widths[0])) < 0.25
    return network, Stimulus.from_dense(drive, labels=golden.run(network, Stimulus.from_dense(drive)).decisions)


def test_the_accuracy_of_a_machine_is_of_the_samples_that_freezing_chose_by(study):
    run = RunDirectory.open(table(study)["networks"][0]["folder"])
    network = FrozenNetwork.load(run.path / NETWORK)
    samples = jobs._validation(jobs._context(run, run.read_config([]), "cpu"))
    assert jobs.exit_accuracy(network, samples, "off") == run.stage("freeze")["accuracy_validation"]


def test_a_machine_that_ends_samples_at_a_margin_has_the_accuracy_of_that():
    network, samples = network_and_samples((20, 30, 4), 20, 1)
    machines = [HardwareConfig(early_exit=rule) for rule in ("off", "certain", 1, 4)]
    off, certain, low, high = jobs.estimate_machines(network, machines, samples, lambda: samples)
    assert "accuracy" not in off and "accuracy" not in certain
    right = golden.run(network, samples, early_exit=1).decisions == samples.labels
    assert low["accuracy"] == right.mean() < high["accuracy"] <= 1
    # What the rest of the sample would take is in no figure.
    assert off["energy_nj"] > 0 and all(row["energy_nj"] is None for row in (certain, low, high))
    assert all(row["cycles"] is None or row["exact_cycles"] for row in (certain, low, high))
    (alone,) = jobs.estimate_machines(network, machines[2:3], samples)
    assert alone["accuracy"] is None
    space = parse_space({**TINY, "base": {}, "axes": {"hardware.early_exit": ["off", 1]}})
    found = {"accuracy": 1.0, "density": 0.5, "synapses": 9, "weight_bits": 3, "machines": [off, low]}
    points = points_of(space, 0, found, [Machine({}, machines[0]), Machine({}, machines[2])])
    assert [point.metrics["accuracy"] for point in points] == [1.0, low["accuracy"]]


def test_a_point_is_the_machine_that_was_estimated():
    """Its schedules were chosen by a goal, which the point does not name."""
    network, samples = network_and_samples((60, 120, 120, 5), 16, 0.5)
    hardware = hardware_config(network, goal="fast", lanes=[8, 8, 2])
    (row,) = jobs.estimate_machines(network, [hardware], samples)
    assert row["schedule"] not in ("auto", "timestep")
    point = parse_section(HardwareConfig, explicit_hardware(hardware, row["lanes"], row["schedule"]), "point")
    assert point.goal is None and "auto" not in (point.lanes, point.schedule)
    assert jobs.estimate_machines(network, [point], samples) == [row]
    assert map_hardware(network, point, samples).choices == map_hardware(network, hardware, samples).choices


def test_whether_a_machine_fits():
    area = {
        "ice40": {"lut": 4000, "ff": 9000, "bram": 29.0, "dsp": 0, "spram": 4},
        "ecp5": {"lut": None, "ff": 1, "bram": 99.0, "dsp": 0, "spram": 0},
    }
    assert shortage(area, "ice40-up5k") == 0
    area["ice40"]["spram"] = 3
    assert shortage(area, "ice40-up5k") == pytest.approx(-1 / 30)
    area["ice40"]["spram"] = 5
    assert shortage(area, "icebreaker") == 1 / 4
    # Another iCE40 has none.
    assert shortage(area, "ice40-hx8k") == 5
    area["ice40"]["spram"] = 0
    # The board's link takes the last block.
    assert shortage(area, "icebreaker") == 0
    area["ice40"]["lut"] = 5000
    assert shortage(area, "icebreaker") > 0  # type: ignore[operator]
    area["ice40"]["lut"] = None
    assert shortage(area, "icebreaker") is None
    # Too many blocks are too many, whatever the logic.
    assert shortage(area, "ecp5-25f") == pytest.approx(43 / 56)


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("codesign.explore.workers.TIMEOUT", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(ToolError, match=f"--scheduler {address}: does not answer within 1 s") as found:
            explore(tmp_path / "study", None, address)
        assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="--workers is the number of processes here"):
        explore(tmp_path / "other", 2, "tcp://127.0.0.1:9")
    assert not (tmp_path / "other").exists()
    with pytest.raises(ToolError, match="does not answer"):
        explore_designs(TINY, tmp_path / "study", scheduler="tcp://127.0.0.1:9")


def dies_once(mark: str) -> int:
    """Kills its process the first time."""
    path = Path(mark)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def fails_to_write(folder: str) -> None:
    raise OutputError(f"{folder}: the disk is full; free some space and run the command again")


def test_a_worker_that_dies_does_its_job_again_elsewhere(tmp_path):
    with workers(2, None, tmp_path, jobs.stamp(), lambda *_: None) as found:
        assert found.count == 2
        done = dict(found.results([Job("a", dies_once, (str(tmp_path / "mark"),)), Job("b", os.getpid, ())]))
        assert set(done) == {"a", "b"} and all(pid != os.getpid() for pid in done.values())
        with pytest.raises(OutputError, match="the disk is full"):
            list(found.results([Job("c", fails_to_write, ("there",))]))


def test_the_job_script_of_a_cluster_is_rendered():
    """As far as it goes without SLURM: the lines that docs/scale.md shows lead to this script."""
    from dask_jobqueue.slurm import SLURMJob

    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    code = next(block for block in text.split("```python\n")[1:] if "SLURMCluster" in block).split("```")[0]
    options = eval(f"dict({code.split('SLURMCluster(')[1].split(')')[0]})")
    script = SLURMJob(scheduler="tcp://10.0.0.1:8786", name="codesign", **options).job_script()
    assert "#SBATCH --cpus-per-task=8" in script and "export OMP_NUM_THREADS=1" in script
    assert "tcp://10.0.0.1:8786" in script and "--nworkers 8" in script and "--nthreads 1" in script


@pytest.mark.deep
@pytest.mark.hardware
def test_points_of_the_front_are_verified_and_placed(tmp_path):
    front = {"most": 1, "verify_samples": 3, "place": ["ecp5-25f"]}
    document = explore(tmp_path / "study", front=front, constraints=["lut >= 1"])
    made = [point for point in document["points"] if point["folder"]]
    assert len(made) == 1 and (tmp_path / "study" / made[0]["folder"] / "report.html").is_file()
    estimate = json.loads((tmp_path / "study" / made[0]["folder"] / "estimate.json").read_text())
    assert estimate["latency_cycles"] == made[0]["metrics"]["cycles"]
    assert sum(estimate["memory_bits"].values()) == made[0]["metrics"]["memory_bits"]
    assert (made[0]["measured"]["samples_verified"], made[0]["measured"]["mismatches"]) == (3, 0)
    assert made[0]["measured"]["fmax_mhz"]["ecp5-25f"] > 20 and made[0]["measured"]["area"]["lut"] > 100


@pytest.mark.deep
def test_two_workers_one_killed_again_and_again_lose_nothing(tmp_path):
    """A worker is killed every five seconds, and the command once; the points are those of one process."""
    budget = {"networks": 24}
    whole = explore(tmp_path / "whole", budget=budget)
    (tmp_path / "space.toml").write_text(space_text({**TINY, "budget": budget}))
    found = disturbed(tmp_path / "space.toml", tmp_path / "study", 5)
    assert found["workers_killed"] > 0 and found["commands_killed"] == 1
    document = table(tmp_path / "study")
    assert essence(document) == essence(whole)
    assert len({network["folder"] for network in document["networks"]}) == 24
    assert len(rows_of(document)) == len(rows_of(whole))
