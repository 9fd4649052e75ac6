"""Bitstreams, and what is said when a design does not fit."""

import pytest

from boards import build as build_module
from boards.build import build
from boards.registry import BOARDS
from boards.synth import Design
from codesign.basics.errors import CapacityError, InputError
from codesign.basics.files import file_hash

pytestmark = pytest.mark.hardware


def test_unknown_board_and_bad_baud_are_refused_before_anything_runs(tiny, tmp_path):
    with pytest.raises(InputError, match="none of icebreaker, ulx3s-25f"):
        build(tiny.bundle, "nexys", tmp_path / "out")
    with pytest.raises(InputError, match="clocks per bit"):
        build(tiny.bundle, "icebreaker", tmp_path / "out", baud=6e6)
    assert not (tmp_path / "out").exists()


def test_too_large_design_says_by_how_much_and_what_would_fit(tiny):
    design, board = Design.load(tiny.bundle), BOARDS["icebreaker"]
    utilisation = {
        "ICESTORM_LC": {"used": 6000, "available": 5280},
        "ICESTORM_RAM": {"used": 31, "available": 30},
        "ICESTORM_DSP": {"used": 0, "available": 8},
    }
    with pytest.raises(CapacityError) as caught:
        build_module._check_capacity(utilisation, design, board)
    message = str(caught.value)
    assert message.startswith("icebreaker (iCE40UP5K): snn needs 6000 of 5280 logic cells (720 too many), ")
    assert "31 of 30 block RAMs (1 too many)" in message
    assert "of the synapses at these weight bits" in message
    assert message.endswith("or the board ulx3s-25f")
    assert "\n" not in message


@pytest.mark.deep
@pytest.mark.parametrize("name", list(BOARDS))
def test_bitstream_of_each_board_meets_its_clock(tiny, tmp_path, name):
    result = build(tiny.bundle, name, tmp_path)
    assert result["fmax_mhz"] >= result["clock_mhz"]
    assert file_hash(tmp_path / result["bitstream"]) == result["bitstream_sha256"]
    assert (tmp_path / result["bitstream"]).stat().st_size > 50_000
    assert result["sources"] == Design.load(tiny.bundle).sources
    assert 0 < result["used"]["lut"] <= result["budget"]["lut"]
    again = build(tiny.bundle, name, tmp_path / "again")
    assert again["bitstream_sha256"] == result["bitstream_sha256"]
