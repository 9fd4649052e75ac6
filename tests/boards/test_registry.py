"""Boards as data."""

import importlib
import re

import pytest

from boards.registry import BOARDS, PARTS, TARGETS, boards_table, find_board, find_device
from codesign.basics.errors import InputError


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_board_agrees_with_its_platform(board):
    platform = getattr(importlib.import_module(f"amaranth_boards.{board.module}"), board.platform)()
    assert platform.default_clk_frequency == board.clock_hz
    assert platform.device == board.device.name
    # nextpnr and the platform name ECP5 packages differently: CABGA381, BG381.
    assert re.sub(r"\D", "", board.device.package) == re.sub(r"\D", "", platform.package)
    assert getattr(platform, "speed", "") == board.device.speed_grade


def test_table_has_one_row_per_board_with_its_budget():
    rows = {row["name"]: row for row in boards_table()}
    assert set(rows) == set(BOARDS)
    assert rows["icebreaker"]["budget"] == {"lut": 5280, "ff": 5280, "bram": 30, "dsp": 8, "spram": 4}
    assert rows["ulx3s-25f"]["device"] == "LFE5U-25F-6CABGA381"
    assert rows["ulx3s-25f"]["clock_mhz"] == 25


def test_unknown_board_names_its_neighbour():
    with pytest.raises(InputError, match=r"board 'icebraker' is none of .*; did you mean 'icebreaker'"):
        find_board("icebraker")


def test_every_configured_target_has_a_device():
    assert set(TARGETS) == {"ecp5-25f", "ecp5-85f", "ice40-hx8k", "ice40-up5k"}
    assert all(device.budget["lut"] > 0 and device.options for device in TARGETS.values())


def test_an_estimate_may_be_held_against_a_part_that_nothing_places():
    assert [find_device(name).family for name in ("artix7-100t", "gw2ar-18", "icebreaker")] == [
        "xilinx",
        "gowin",
        "ice40",
    ]
    assert not {*PARTS} & {*TARGETS, *BOARDS}
    kinds = {frozenset(part.budget) for part in PARTS.values()}
    assert kinds == {frozenset(("lut", "ff", "bram", "dsp"))}
    with pytest.raises(InputError, match=r"device 'artix' is none of ecp5-25f, .*artix7-35t, .*icebreaker"):
        find_device("artix")
