"""The rules of memories are yosys' own: over shapes, accesses and styles it chooses the same."""

import json
from pathlib import Path

import numpy as np
import pytest

from boards.calibrate import MEMORIES
from boards.tools import run_tool
from codesign.cost.memories import FAMILIES, _built

BODIES = {
    "rom": "always @(posedge clk) if (en) q <= words[a];",
    "apart": "always @(posedge clk) if (we) words[b] <= x; else if (en) q <= words[a];",
    "old": "always @(posedge clk) begin if (we) words[b] <= x; if (en) q <= words[a]; end",
    "comb": "always @(posedge clk) if (we) words[b] <= x;\nalways @* q = words[a];",
}
DEEPEST = {"rom": 9000, "apart": 3000, "old": 3000, "comb": 64}


def random_memory(rng: np.random.Generator) -> tuple[int, int, str, str]:
    how = str(rng.choice(list(BODIES)))
    styles = {"rom": ["auto", "block"], "comb": ["auto"]}.get(how, ["auto", "block", "distributed"])
    style = str(rng.choice(styles))
    most = 256 if style == "distributed" else DEEPEST[how]
    return int(np.exp(rng.uniform(np.log(4), np.log(most)))), int(rng.integers(1, 41)), how, style


def verilog(name: str, memory: tuple[int, int, str, str], image: str) -> str:
    depth, width, how, style = memory
    bits = max(1, (depth - 1).bit_length())
    attribute = "" if style == "auto" else f'(* ram_style = "{style}" *) '
    fill = f'initial $readmemh("{image}", words);\n' if how == "rom" else ""
    return (
        f"module {name}(input clk, en, we, input [{bits - 1}:0] a, b, input [{width - 1}:0] x,\n"
        f"  output reg [{width - 1}:0] q);\n{attribute}reg [{width - 1}:0] words [0:{depth - 1}];\n"
        f"{fill}{BODIES[how]}\nendmodule\n"
    )


def chosen_by_yosys(folder: Path, family: str, memories: list[tuple[int, int, str, str]]) -> list[tuple[str, int]]:
    """Kind and RAMs of each memory."""
    rng = np.random.default_rng(1)
    text = []
    for number, (depth, width, _, _) in enumerate(memories):
        # Every bit differs somewhere: yosys drops what is the same in all words.
        words = [0, (1 << width) - 1, *(int(rng.integers(1 << 62)) % (1 << width) for _ in range(depth - 2))]
        (folder / f"{number}.mem").write_text("".join(f"{word:x}\n" for word in words))
        text.append(verilog(f"m{number}", memories[number], f"{number}.mem"))
    (folder / "memories.v").write_text("".join(text))
    script = f"read_verilog memories.v\nproc\nopt\nmemory -nomap\nmemory_libmap {MEMORIES[family][1]}\n"
    (folder / "map.ys").write_text(script + "write_json mapped.json\n")
    run_tool("yosys", ["-q", "map.ys"], cwd=folder, log=folder / "map.log")
    modules = json.loads((folder / "mapped.json").read_text())["modules"]
    found = []
    for number in range(len(memories)):
        types = [cell["type"] for cell in modules[f"m{number}"]["cells"].values()]
        rams = [kind for kind in types if kind.startswith("$__")]
        distributed = [kind for kind in rams if "LUTRAM" in kind or "DPR16X4" in kind]
        found.append(("lutram" if distributed else "block" if rams else "logic", len(rams)))
    return found


def random_memories(family: str, seed: int, count: int) -> list[tuple[int, int, str, str]]:
    rng = np.random.default_rng(seed)
    memories = [random_memory(rng) for _ in range(count)]
    return [memory for memory in memories if family != "ice40" or memory[3] != "distributed"]


def differences(folder: Path, family: str, memories: list[tuple[int, int, str, str]]) -> list[str]:
    expected = [_built(*memory, family) for memory in memories]
    return [
        f"{memory}: {told.kind} {told.cells}, yosys {kind} {rams}"
        for memory, told, (kind, rams) in zip(
            memories, expected, chosen_by_yosys(folder, family, memories), strict=True
        )
        if (told.kind, told.cells) != (kind, rams)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_memories_become_what_yosys_makes_of_them(tmp_path, family):
    assert differences(tmp_path, family, random_memories(family, seed=1, count=25)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_read_only_memories_that_cost_as_much_in_logic(tmp_path, family):
    """Costs are compared with the whole points of logic, of 16 bits each."""
    last = max(depth for depth in range(500, 3000) if _built(depth, 1, "rom", "auto", family).kind == "logic")
    memories = [(depth, 1, "rom", "auto") for depth in range(last - 16, last + 18)]
    memories += [(depth, 3, "rom", "auto") for depth in range((last - 16) // 3, (last + 18) // 3)]
    assert differences(tmp_path, family, memories) == []


def test_another_cost_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("codesign.cost.memories.MUX_COST", 4.0)
    monkeypatch.setattr("codesign.cost.memories._built", _built.__wrapped__)
    rng = np.random.default_rng(3)
    memories = [(int(rng.integers(300, 9000)), int(rng.integers(4, 40)), "rom", "block") for _ in range(30)]
    told = [_built.__wrapped__(*memory, "ecp5").cells for memory in memories]
    assert told != [rams for _, rams in chosen_by_yosys(tmp_path, "ecp5", memories)]


@pytest.mark.deep
@pytest.mark.parametrize("family", FAMILIES)
def test_two_thousand_memories_become_what_yosys_makes_of_them(tmp_path, family):
    assert differences(tmp_path, family, random_memories(family, seed=2, count=2000)) == []
