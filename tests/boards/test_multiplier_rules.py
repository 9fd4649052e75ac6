"""The rules of multipliers are yosys' own, over widths that a datapath has."""

import json
from collections import Counter

import pytest

from boards.calibrate import MEMORIES
from boards.synth import FLOWS
from boards.tools import run_tool
from codesign.cost.multipliers import multiplier_blocks

WIDTHS = [(a, b) for a in (2, 3, 4, 6, 8, 9, 10, 14, 18, 20, 24, 26) for b in (2, 3, 4, 5, 8, 9, 10) if b <= a]


def counted(folder, family: str) -> list[int]:
    """DSP blocks that yosys takes for each product."""
    parts, ports, uses = [], [], []
    for number, (a, b) in enumerate(WIDTHS):
        parts.append(
            f"module m{number}(input signed [{a - 1}:0] a, input signed [{b - 1}:0] b,\n"
            f"  output signed [{a + b - 1}:0] y); assign y = a * b; endmodule\n"
        )
        ports.append(f"input [{a - 1}:0] a{number}, input [{b - 1}:0] b{number}, output [{a + b - 1}:0] y{number}")
        uses.append(f"m{number} i{number}(a{number}, b{number}, y{number});\n")
    (folder / "products.v").write_text(f"{''.join(parts)}module top({', '.join(ports)});\n{''.join(uses)}endmodule\n")
    script = f"read_verilog products.v\n{FLOWS[family].command} -top top -run begin:{MEMORIES[family][0]}\n"
    (folder / "map.ys").write_text(script + "select top\nwrite_json -selected mapped.json\n")
    run_tool("yosys", ["-q", "map.ys"], cwd=folder, log=folder / "map.log")
    cells = json.loads((folder / "mapped.json").read_text())["modules"]["top"]["cells"]
    found = Counter(
        name.partition(".")[0].removeprefix("$flatten\\").lstrip("\\")
        for name, cell in cells.items()
        if cell["type"].startswith(("MULT", "DSP48"))
    )
    return [found[f"i{number}"] for number in range(len(WIDTHS))]


@pytest.mark.parametrize("family", ["ecp5", "xilinx", "gowin"])
def test_products_take_the_blocks_that_yosys_gives_them(tmp_path, family):
    told = [multiplier_blocks(a, b, family) for a, b in WIDTHS]
    wrong = {
        widths: (mine, yosys)
        for widths, mine, yosys in zip(WIDTHS, told, counted(tmp_path, family), strict=True)
        if mine != yosys
    }
    assert wrong == {}


def test_ice40_has_none_without_being_asked():
    assert all(multiplier_blocks(a, b, "ice40") == 0 for a, b in WIDTHS)
