"""What is meant for block RAM, and where yosys has put it."""

import pytest

from benchmarks.accelerator import event_network
from boards import synth
from boards.block_memories import LOGIC, block_memories, mapped_memories, meant_for_block
from boards.synth import FLOWS, synth_bundle
from codesign.basics.errors import CodesignWarning
from codesign.config import SynthConfig
from codesign.machine.choices import Choices
from codesign.machine.goals import GOALS
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle

pytestmark = pytest.mark.hardware

VERILOG = """module top_rom(input wire clk, output reg [3:0] data);
  (* rom_style = "block" *)
  reg [3:0] words [0:31];
  reg [3:0] spare [0:31];
  always @(posedge clk) data <= words[data] ^ spare[data];
endmodule
module top(input wire clk, output wire [3:0] a, output wire [3:0] b);
  top_rom first (.clk(clk), .data(a));
  top_rom second (.clk(clk), .data(b));
  (* ram_style = "distributed" *)
  reg [3:0] own [0:31];
  always @(posedge clk) own[a] <= b;
endmodule
"""
LOG = """mapping memory top.first.words via $__DP16KD_
mapping memory top.first.spare via $__TRELLIS_DPR16X4_
mapping memory top.second.words via $__TRELLIS_DPR16X4_
"""


def test_memories_are_found_by_their_attribute_in_every_instance(tmp_path):
    (tmp_path / "top.v").write_text(VERILOG)
    assert meant_for_block(tmp_path / "top.v", "top") == ["first.words", "second.words"]


def test_what_is_elsewhere_is_named():
    mapped = mapped_memories(LOG, "top")
    assert len(mapped) == 3
    found = block_memories(["first.words", "second.words", "third.words"], mapped, FLOWS["ecp5"].block_maps)
    assert found == {
        "meant": 3,
        "elsewhere": {"second.words": "$__TRELLIS_DPR16X4_", "third.words": LOGIC},
        "summary": "1 of 3 memories that ask for it; elsewhere: second.words ($__TRELLIS_DPR16X4_), "
        "third.words (logic)",
    }
    found = block_memories(["first.words"], mapped, FLOWS["ecp5"].block_maps)
    assert found["summary"] == "1 of 1 memories that ask for it"


def test_synthesis_says_where_the_memories_are(tiny, tmp_path, monkeypatch):
    config = SynthConfig.model_validate({"families": ["ecp5"], "fmax": []})
    found = synth_bundle(tiny.bundle, config, tmp_path)["block_ram"]["ecp5"]
    assert found["meant"] > 0 and not found["elsewhere"]
    monkeypatch.setattr(synth, "mapped_memories", lambda log, top: {})
    monkeypatch.setenv("CODESIGN_CACHE", str(tmp_path / "cache"))
    with pytest.warns(CodesignWarning, match=r"ecp5: block RAM holds 0 of \d+ memories that ask for it; elsewhere: "):
        synth_bundle(tiny.bundle, config, tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("goal", sorted(GOALS))
def test_every_goals_block_memories_are_block_ram_in_every_family(goal, tmp_path):
    network = event_network()
    choices = {**GOALS[goal].choices}
    if "schedule" in choices:
        choices["schedule"] = "sample"
    lanes = [1, 1] if choices.get("shape") == "folded" else [3, 2]
    write_bundle(network, map_network(network, lanes, None, Choices(**choices)), tmp_path / "bundle")
    config = SynthConfig.model_validate({"families": ["ecp5", "ice40", "xilinx", "gowin"], "fmax": []})
    found = synth_bundle(tmp_path / "bundle", config, tmp_path / "work")["block_ram"]
    assert set(found) == {"ecp5", "ice40", "xilinx", "gowin"}
    assert all(entry["meant"] > 0 and not entry["elsewhere"] for entry in found.values()), found
