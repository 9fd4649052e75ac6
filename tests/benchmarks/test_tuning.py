from dataclasses import replace

import pytest

from benchmarks import accelerator, tables
from benchmarks.tuning import agreement, spread
from codesign.basics.errors import CapacityError
from codesign.cost.search import AGREED, LIMITS, OBJECTIVES
from codesign.machine.choices import DEFAULTS, keys


def test_points_ask_for_what_there_is_and_are_kept():
    kept = tables.newest()["accelerator"]
    assert set(kept) == set(accelerator.DESIGNS)
    for name, design in accelerator.DESIGNS.items():
        assert design.minimise in OBJECTIVES and set(design.within) <= set(LIMITS) and set(design.allow) <= set(AGREED)
        assert {design.target, *design.also} == set(kept[name]["placed_seeds"])
        for kind in set(design.within) & set(kept[name]["area"][design.target]):
            assert kept[name]["area"][design.target][kind] <= design.within[kind], (name, kind)


@pytest.mark.deep
def test_a_point_is_what_the_search_finds(tmp_path):
    design = replace(accelerator.DESIGNS["events-small"], within={"bram": 4, "cycles": 2900})
    network, _, calibration = accelerator.load(design, tmp_path, None)
    row = accelerator.searched(network, design, calibration, tmp_path / "tune", [1])[0]
    assert row["exact"] and row["cycles"] <= 2900 and row["placed_bram"] <= 4 and row["missed"] == ""
    with pytest.raises(CapacityError, match="no machine of this network is within the limits"):
        accelerator.searched(network, replace(design, within={"cycles": 90}), calibration, tmp_path / "tune", [1])


def test_agreement_counts_every_machine_once_and_devices_apart():
    def row(lut, placed, question="events-small", **given):
        figures = {"lut": lut, "placed_lut": placed, "latency_us": 1000 / lut, "placed_latency_us": lut, "lanes": [lut]}
        choices = {key: getattr(DEFAULTS, key) for key in keys()}
        return {"design": question, "target": "ice40-hx8k", "placed_mhz": 9.0, **choices, **figures, **given}

    rows = [row(1, 10), row(2, 30), row(3, 20), row(3, 20, "events-fast")]
    found = agreement(
        [
            *rows,
            row(4, 0, placed_mhz=None),
            row(5, 1, "small", target="ecp5-25f"),
            row(6, 2, "small", target="ecp5-25f"),
        ]
    )
    assert found["ice40-hx8k"] == {"machines": 3, "lut": pytest.approx(1 / 3), "latency_us": pytest.approx(-1)}
    assert found["ecp5-25f"]["lut"] == pytest.approx(1)


def test_a_spread_takes_even_steps_of_what_was_not_placed():
    def row(lut, **given):
        return {"lut": lut, "ff": 1, "bram": 1, "cycles": 1, "excluded": None, **given}

    rows = [row(0, placed_mhz=9.0), *(row(lut) for lut in (1, 2, 2, 3, 4, 5, 6)), row(7, excluded="too large")]
    assert [found["lut"] for found in spread(rows, 3)] == [2, 4, 6]
    assert [found["lut"] for found in spread(rows, 9)] == [1, 2, 3, 4, 5, 6]
    assert spread(rows, 0) == []
