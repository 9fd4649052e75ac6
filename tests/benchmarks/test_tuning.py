import pytest

from benchmarks import accelerator, tables
from benchmarks.tuning import QUESTIONS, agreement, spread
from codesign.cost.search import LIMITS, OBJECTIVES
from codesign.machine.choices import DEFAULTS, keys


def test_questions_are_of_kept_points():
    kept = tables.newest()["accelerator"]
    for name, question in QUESTIONS.items():
        assert name in accelerator.DESIGNS and question.minimise in OBJECTIVES
        assert set(question.within) <= set(LIMITS) & {"cycles", *kept[name]["area"][question.target]}


def test_agreement_counts_every_machine_once_and_devices_apart():
    def row(lut, placed, question="events-small", **given):
        figures = {"lut": lut, "placed_lut": placed, "latency_us": 1000 / lut, "placed_latency_us": lut, "lanes": [lut]}
        choices = {key: getattr(DEFAULTS, key) for key in keys()}
        return {"question": question, "target": "ice40-hx8k", "placed_mhz": 9.0, **choices, **figures, **given}

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
