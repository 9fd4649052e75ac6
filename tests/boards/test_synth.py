"""Area and clock of a bundle: what is counted, what the wrapper costs, what is cached."""

import json
import shutil

import pytest

from boards import synth
from boards.synth import FLOWS, Design, count_cells, synth_bundle, used_resources, wrapper_source
from boards.tools import KilledError
from codesign.basics.errors import InputError, OutputError, ToolError
from codesign.config import SynthConfig

pytestmark = pytest.mark.hardware


def test_cells_are_counted_by_name_and_prefix():
    cells = {"SB_DFF": 3, "SB_DFFESR": 4, "SB_LUT4": 5, "SB_RAM40_4KNR": 2}
    assert count_cells(cells, FLOWS["ice40"].ffs) == 7
    assert count_cells(cells, FLOWS["ice40"].luts) == 5
    assert count_cells(cells, FLOWS["ice40"].brams) == 2
    assert count_cells({"RAMB18E1": 3, "RAMB36E1": 1}, FLOWS["xilinx"].brams) == 2.5


def test_resources_come_from_either_family_s_report():
    ice40 = {"ICESTORM_LC": {"used": 5, "available": 9}, "ICESTORM_RAM": {"used": 1, "available": 2}}
    assert used_resources(ice40) == {"lut": 5, "bram": 1}
    ecp5 = {
        "TRELLIS_COMB": {"used": 5, "available": 9},
        "TRELLIS_FF": {"used": 4, "available": 9},
        "DP16KD": {"used": 1, "available": 2},
        "MULT18X18D": {"used": 0, "available": 3},
    }
    assert used_resources(ecp5, "available") == {"lut": 9, "ff": 9, "bram": 2, "dsp": 3}


def test_wrapper_registers_every_port(tiny):
    design = Design.load(tiny.bundle)
    text = wrapper_source(design)
    ports = {port.name: port.width for port in design.sidecar.ports}
    n_in = ports["s_axis_tdata"] + 3
    n_out = ports["m_axis_tdata"] + 4 + ports["protocol_error"] + 64
    assert f"reg [{n_in - 1}:0] in;" in text
    assert f"reg [{n_out - 1}:0] captured, folded;" in text
    assert "network_hash(" not in text


def test_ecp5_area_and_clock_are_consistent_and_cached(tiny, tmp_path, monkeypatch):
    config = SynthConfig.model_validate({"families": ["ecp5"], "fmax": ["ecp5-25f"], "seeds": [1, 2]})
    seen = []
    result = synth_bundle(tiny.bundle, config, tmp_path, lambda done, total, text="": seen.append((done, total)))
    area, placed = result["area"]["ecp5"], result["placed"]["ecp5-25f"]
    assert seen[-1] == (len(seen), len(seen))
    assert area["lut"] > area["lut_cells"] > 100
    assert area["ff"] > 100
    # The wrapper is subtracted: what is left is the accelerator packed alone.
    assert placed["ff"] == area["ff"]
    assert placed["lut"] == pytest.approx(area["lut"], abs=8)
    assert placed["bram"] == area["bram"]
    assert set(placed["seeds"]) == {"1", "2"}
    assert min(placed["seeds"].values()) <= result["fmax_mhz"]["ecp5-25f"] <= max(placed["seeds"].values())
    assert result["sources"] == Design.load(tiny.bundle).sources
    assert json.loads((tmp_path / "synth.json").read_text()) == result

    monkeypatch.setattr(synth, "run_tool", None)
    assert synth_bundle(tiny.bundle, config, tmp_path / "again") == result


USED = {name: {"used": 9, "available": 99} for name in ("TRELLIS_COMB", "TRELLIS_FF", "DP16KD")}


@pytest.fixture
def nextpnr_says(tiny, tmp_path, monkeypatch):
    """Synthesise for one target with a nextpnr that answers as given where it would route; all else is real."""
    monkeypatch.setenv("CODESIGN_CACHE", str(tmp_path / "cache"))
    real = synth.run_tool

    def synthesise(answer):
        def run_tool(name, arguments, *, cwd, log, stop=None):
            if not name.startswith("nextpnr") or synth.PACK_ONLY in arguments:
                return real(name, arguments, cwd=cwd, log=log, stop=stop)
            log.write_text("Info: placed 0 cells\n")
            return answer(cwd, log, arguments)

        monkeypatch.setattr(synth, "run_tool", run_tool)
        config = SynthConfig.model_validate({"families": [], "fmax": ["ecp5-25f"], "seeds": [1, 2]})
        return synth_bundle(tiny.bundle, config, tmp_path / "work")["placed"]["ecp5-25f"]

    return synthesise


def test_a_killed_place_and_route_is_no_design_that_does_not_fit(nextpnr_says, tmp_path):
    def killed(cwd, log, arguments):
        raise KilledError("nextpnr-ecp5 was killed by signal 15: Info: placed 0 cells (log: x)")

    with pytest.raises(KilledError, match="killed by signal 15"):
        nextpnr_says(killed)

    def halfway(cwd, log, arguments):
        (cwd / "report.json").write_text(json.dumps({"fmax": {}, "utilization": USED}))

    # Twice: a report without a clock is not kept.
    for _ in range(2):
        with pytest.raises(ToolError, match="nextpnr-ecp5 for ecp5-25f reports 0 clocks, expected 1; it was stopped"):
            nextpnr_says(halfway)


@pytest.mark.parametrize("routed", [[], ["1"]])
def test_a_seed_that_finds_no_placement_is_named(nextpnr_says, routed):
    def answer(cwd, log, arguments):
        if arguments[arguments.index("--seed") + 1] not in routed:
            raise ToolError("nextpnr-ecp5 failed: ERROR: failed to place chain (log: x)")
        (cwd / "report.json").write_text(json.dumps({"fmax": {"clk": {"achieved": 77.0}}, "utilization": USED}))

    placed = nextpnr_says(answer)
    assert "seed 2: nextpnr-ecp5 failed: ERROR: failed to place chain" in placed["reason"]
    assert list(placed["seeds"]) == routed and placed["fmax_mhz"] == (77.0 if routed else None)


def test_results_that_another_process_removes_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CODESIGN_CACHE", str(tmp_path))
    made, entry = [], tmp_path / "synthesis" / "entry"

    def work(folder):
        (folder / "netlist").write_bytes(bytes(4000))
        made.append(folder)
        return {"cells": {"LUT4": len(made)}}

    def cached():
        return synth._cached(entry, "result.json", work)["cells"]["LUT4"]

    assert (cached(), cached()) == (1, 1)
    synth.prune_cache(100)
    # However small the cache is, what was used last stays.
    assert cached() == 1
    (entry / "result.json").unlink()
    assert (cached(), cached()) == (2, 2) and (entry / "netlist").is_file()
    # Removed right after it was made, by another process that makes room.
    monkeypatch.setattr(synth, "prune_cache", lambda: shutil.rmtree(entry))
    shutil.rmtree(entry)
    assert cached() == 3
    assert not [path for path in entry.parent.iterdir() if path.name.startswith(".")]


def test_a_file_in_the_way_of_the_results_is_named(tiny, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out: a file is in the way of this folder"):
        synth_bundle(tiny.bundle, SynthConfig(), tmp_path / "out")


def test_damaged_bundle_is_refused(tiny, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny.bundle, bundle)
    image = next((bundle / "images").iterdir())
    image.unlink()
    with pytest.raises(InputError, match=f"{image.name}: missing from the bundle"):
        synth_bundle(bundle, SynthConfig(), tmp_path / "work")


@pytest.mark.deep
def test_every_family_and_target_gives_figures(tiny, tmp_path):
    config = SynthConfig.model_validate(
        {
            "families": ["ecp5", "ice40", "xilinx", "gowin"],
            "fmax": ["ecp5-25f", "ecp5-85f", "ice40-hx8k", "ice40-up5k"],
            "seeds": [1],
        }
    )
    result = synth_bundle(tiny.bundle, config, tmp_path)
    assert all(entry["lut"] > 100 and entry["ff"] > 100 for entry in result["area"].values())
    assert all(value > 10 for value in result["fmax_mhz"].values())
    assert result["placed"]["ice40-up5k"]["budget"]["lut"] == 5280
