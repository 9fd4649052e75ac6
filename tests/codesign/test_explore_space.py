"""Space files: what is searched, and what is wrong with it before anything is trained."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import pytest

from codesign.basics.errors import CodesignError, InputError, UnsupportedError
from codesign.explore.sampling import _distribution, _every
from codesign.explore.space import METRICS, _axis, differences, load_space, parse_space

GOOD: dict[str, Any] = {
    "base": {"network": {"hidden": [8], "timesteps": 4}},
    "axes": {"train.rewiring.target_density": {"low": 0.1, "high": 0.4, "log": True}, "hardware.lanes": [1, 2]},
    "objectives": {"accuracy": "maximise", "cycles": "minimise"},
    "budget": {"networks": 3},
}


def space(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def axes(**more: Any) -> dict[str, Any]:
    return {**GOOD["axes"], **{key.replace("__", "."): value for key, value in more.items()}}


def test_axes_are_trained_or_enumerated():
    found = parse_space(GOOD)
    assert [axis.key for axis in found.trained_axes] == ["train.rewiring.target_density"]
    assert [axis.key for axis in found.hardware_axes] == ["hardware.lanes"]
    assert found.config({"train.rewiring.target_density": 0.2}).train.rewiring.target_density == 0.2
    assert found.config({}).train.threads == 1


def test_machines_are_all_that_are_built_each_once():
    choices = {
        "hardware.lanes": [1, 2, 2],
        "hardware.lockstep": [False, True],
        "hardware.shape": ["streaming", "folded"],
    }
    machines, refused = parse_space(space(axes=choices)).machines({})
    assert len(machines) == 6 and len(refused) == 2
    assert all("is not built together with" in entry["reason"] for entry in refused)


def test_goals_that_lead_to_the_same_machine_are_one():
    machines, _ = parse_space(space(axes={"hardware.goal": ["small", "fast"], "hardware.shape": ["folded"]})).machines(
        {}
    )
    assert [machine.choices["hardware.goal"] for machine in machines] == ["small", "fast"]
    explicit = {"hardware.goal": ["small", "tiny"], "hardware.shape": ["folded"], "hardware.pipeline": ["short"],
                "hardware.input_checks": [False], "hardware.counters": [False], "hardware.spike_fifos": [False],
                "hardware.lanes": [1]}  # fmt: skip
    assert len(parse_space(space(axes=explicit)).machines({})[0]) == 1
    # A goal also decides which schedules are worth their memory.
    decided = {"lanes": 2, "event_streams": 2, "input_words": 4, "queue_depth": 4, "state_memory": "block"}
    for schedule, count in (("auto", 2), ("sample", 1)):
        base = {**GOOD["base"], "hardware": {**decided, "schedule": schedule}}
        goals = parse_space(space(base=base, axes={"hardware.goal": ["balanced", "fast"]}))
        assert len(goals.machines({})[0]) == count


def test_whole_numbers_of_hardware_are_listed():
    found = parse_space(space(axes=axes(hardware__queue_depth={"low": 2, "high": 16, "log": True})))
    assert found.hardware_axes[1].values == (2, 4, 8, 16)
    found = parse_space(space(axes=axes(hardware__queue_depth={"low": 2, "high": 9, "step": 3})))
    assert found.hardware_axes[1].values == (2, 5, 8)


@pytest.mark.parametrize(
    ("given", "tried", "every"),
    [
        ({"low": 2, "high": 9, "step": 2}, (2, 6, 8), [2, 4, 6, 8]),
        ({"low": 2, "high": 5}, (2, 4, 5), [2, 3, 4, 5]),
        ({"low": 0.1, "high": 0.3, "step": 0.1}, (0.1, 0.2, 0.3), [0.1, 0.2, 0.3]),
        ({"low": 0, "high": 0.7, "step": 0.25}, (0, 0.25, 0.5), [0.0, 0.25, 0.5]),
        ({"low": 0.01, "high": 0.04, "log": True}, (0.01, 0.02, 0.04), None),
    ],
)
def test_what_is_tried_before_training_is_what_can_be_sampled(given, tried, every):
    key = "train.learning_rate"
    axis = _axis(key, given, "space")
    assert axis.ends == tried and axis.size == (len(every) if every else math.inf)
    with warnings.catch_warnings():
        # Optuna warns of a range that its steps do not end.
        warnings.simplefilter("error")
        distribution = _distribution(axis)
    assert all(distribution._contains(value) for value in [*tried, *(_every(axis) if every else [])])
    assert every is None or (_every(axis) == every and (distribution.low, distribution.high) == (every[0], every[-1]))
    if every and isinstance(every[0], float):
        assert list(_axis("hardware.lanes", given, "space").values or ()) == every


def test_limits_that_differ_have_texts_that_differ():
    near = space(
        constraints=["memory_bits <= 1234567", "memory_bits <= 1234568", "memory_bits <= 1e6", "density <= .1"]
    )
    assert [limit.text for limit in parse_space(near).limits] == [
        "memory_bits <= 1234567", "memory_bits <= 1234568", "memory_bits <= 1e+06", "density <= 0.1"
    ]  # fmt: skip


def test_entries_of_lists_are_keys_too():
    base = {"network": {"layers": [{"kind": "conv", "channels": 2}, {"kind": "pool"}]}}
    found = parse_space(space(base=base, axes=axes(network__layers__0__channels=[2, 4])))
    assert found.config({"network.layers.0.channels": 4}).network.layers[0].channels == 4  # type: ignore[index, union-attr]


def test_a_space_reads_its_base_beside_it(tmp_path):
    (tmp_path / "base.toml").write_text('[data]\nset = "npz"\npath = "mine.npz"\n[network]\nhidden = [5]\n')
    (tmp_path / "space.toml").write_text(
        'base = "base.toml"\n[objectives]\naccuracy = "maximise"\n[budget]\nnetworks = 1\n'
        '[axes]\n"freeze.weight_bits" = [4]\n'
    )
    found = load_space(tmp_path / "space.toml", ["network.timesteps=3"]).config({})
    assert (found.network.hidden, found.network.timesteps) == ([5], 3)
    assert found.data.path == str(tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {}}, "space: axes: there are none, so there is nothing to search"),
        ({"axis": {}}, "space: unknown key 'axis'; did you mean 'axes'?"),
        (
            {"axes": axes(train__epoch=[3])},
            "axes.train.epoch = 3 goes with no .*: unknown key 'train.epoch'; did you mean 'epochs'",
        ),
        (
            {"axes": axes(verify__samples=[3])},
            "axes.verify.samples: axes are keys of data, network, train, freeze, hardware",
        ),
        ({"axes": axes(freeze__weight_bits=[])}, "axes.freeze.weight_bits: an empty list has no values"),
        ({"axes": axes(freeze__weight_bits=[4, 9])}, "axes.freeze.weight_bits = 9 goes with no values"),
        ({"axes": axes(freeze__weight_bits=3)}, r"expected a list of values or \{low, high\} \(given 3\)"),
        (
            {"axes": axes(freeze__weight_bits={"low": 5, "high": 3})},
            "axes.freeze.weight_bits: configuration: low = 5 is not below high = 3",
        ),
        ({"axes": axes(freeze__weight_bits={"low": 3, "hihg": 5})}, "unknown key 'hihg'; did you mean 'high'"),
        (
            {"axes": axes(train__rewiring__target_density={"low": 0.1, "high": 0.8})},
            "axes.train.rewiring.target_density = 0.8 .*must not exceed start_density",
        ),
        (
            {"axes": axes(hardware__queue_depth={"low": 2, "high": 64.5})},
            "hardware is enumerated; give a list, whole numbers or a step",
        ),
        ({"axes": {"network.layers.3.channels": [2]}}, "axes.network.layers.3.channels"),
        ({"objectives": {}}, "objectives: there are none"),
        ({"objectives": {"speed": "maximise"}}, "objectives: 'speed' is none of accuracy"),
        ({"objectives": {"accuracy": "highest"}}, "objectives.accuracy: Input should be 'minimise' or 'maximise'"),
        ({"objectives": {"lut": "minimise"}}, "lut counts the cells of a device; name it with device = "),
        ({"objectives": {"latency_us": "minimise"}}, "latency_us needs clock_mhz, or a board as the device"),
        ({"device": "ecp6"}, "device: device 'ecp6' is none of"),
        ({"constraints": ["fits icebraker"]}, "constraints: 'fits icebraker': device 'icebraker' is none of"),
        ({"constraints": ["cycles < 5"]}, "'cycles < 5' is neither 'fits DEVICE' nor like 'lut <= 2000'"),
        ({"constraints": ["speed <= 5"]}, "constraints: 'speed' is none of"),
        ({"constraints": ["accuracy >= 1.2"]}, "'accuracy >= 1.2' is kept by nothing; accuracy is 0 to 1"),
        ({"constraints": ["synapses <= -1"]}, "'synapses <= -1' is kept by nothing; synapses is at least 0"),
        ({"constraints": ["cycles >= 90", "cycles <= 80"]}, "'cycles <= 80' and 'cycles >= 90' contradict each other"),
        (
            {"constraints": ["latency_us <= 0.2"], "clock_mhz": 10},
            "'latency_us <= 0.2' is 2 clocks; a sample of 4 timesteps takes a clock each",
        ),
        ({"budget": {}}, "budget: give networks, points or minutes"),
        ({"base": {"budget": {"lut": 100, "target": "ecp5-25f"}}}, r"base: \[budget\] chooses bits and lanes"),
        ({"base": {"train": 3}}, "base: train: Input should be a valid dictionary"),
        (
            {"axes": axes(network__timesteps={"low": 1, "high": 10**400})},
            "axes.network.timesteps: high: Input should be",
        ),
        (
            {"axes": axes(train__learning_rate={"low": 0.1, "high": 1e300, "step": 1e-9})},
            "step = 1e-09 gives more than 1e\\+15 values",
        ),
        ({"base": "no.toml"}, "no.toml: no such configuration"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes, message):
    with pytest.raises(CodesignError, match=message) as found:
        parse_space(space(**changes))
    assert "\n" not in str(found.value)


def test_a_machine_that_is_never_built_is_refused_as_the_table_says():
    with pytest.raises(UnsupportedError, match=r"synapse_memory = .spram.* needs hardware.loadable = true"):
        parse_space(space(axes=axes(hardware__synapse_memory=["auto", "spram"])))
    assert parse_space(space(axes=axes(hardware__synapse_memory=["auto", "spram"], hardware__loadable=[False, True])))


def test_a_space_file_that_is_none_is_named(tmp_path):
    (tmp_path / "space.toml").write_text("axes = [")
    with pytest.raises(InputError, match=r"space.toml: not TOML"):
        load_space(tmp_path / "space.toml")
    with pytest.raises(InputError, match="no such space file"):
        load_space(tmp_path / "none.toml")


def test_a_plain_configuration_is_no_space(tmp_path):
    (tmp_path / "config.toml").write_text("[network]\nhidden = [8]\n")
    with pytest.raises(InputError, match="is a configuration, no space of a search; `codesign run` takes it"):
        load_space(tmp_path / "config.toml")


def test_what_differs_is_said():
    ours, theirs = parse_space(GOOD), parse_space(space(seed=3, axes=axes(hardware__lanes=[1, 4])))
    found = list(differences(ours.document, theirs.document))
    assert found == ["seed is 3 there and 0 here", "axes.hardware.lanes is [1, 4] there and [1, 2] here"]
    assert not list(differences(ours.document, parse_space(space(budget={"minutes": 3})).document))
    back = dict(reversed(ours.document["axes"].items()))
    turned = {**ours.document, "axes": back}
    assert [line.partition(" there")[0] for line in differences(ours.document, turned)] == [
        f"axes are in the order {', '.join(back)}"
    ]


def test_every_metric_is_documented():
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "docs" / "exploring.md").read_text(encoding="utf-8")
    assert [name for name in METRICS if not re.search(rf"`{name}`", text)] == []
