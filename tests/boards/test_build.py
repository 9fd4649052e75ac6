"""Bitstreams, and what is said when a design does not fit."""

import json

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
    with pytest.raises(CapacityError, match=r"needs 5 of 4 single-port RAMs .1 too many.; what would fit: fewer lanes"):
        build_module._check_capacity({"ICESTORM_SPRAM": {"used": 5, "available": 4}}, design, board)


@pytest.mark.parametrize("mhz", [11.9, 12.5])
def test_a_design_that_is_too_slow_for_the_board_leaves_no_bitstream(tiny, tmp_path, monkeypatch, mhz):
    def run_tool(name, arguments, *, cwd, log):
        if name.startswith("nextpnr"):
            report = {"fmax": {"clk": {"achieved": mhz}}, "utilization": {"ICESTORM_LC": {"used": 9, "available": 99}}}
            (cwd / "report.json").write_text(json.dumps(report))
        if name == "icepack":
            (cwd / "top.bin").write_bytes(b"bits")

    monkeypatch.setattr(build_module, "run_tool", run_tool)
    (tmp_path / "top.bin").write_bytes(b"of an earlier machine")
    if mhz < 12:
        with pytest.raises(CapacityError, match=r"reaches 11\.9 MHz, the board's clock is 12 MHz"):
            build(tiny.bundle, "icebreaker", tmp_path)
        assert not list(tmp_path.glob("*.bin"))
    else:
        assert build(tiny.bundle, "icebreaker", tmp_path)["fmax_mhz"] == mhz
        assert (tmp_path / "top.bin").read_bytes() == b"bits"


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
