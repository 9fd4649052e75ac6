"""Boards and synthesis targets, as data: devices, packages, clocks and budgets.

Budgets count native resources: ``lut`` in ICESTORM_LC (iCE40: a LUT and a flip-flop) or TRELLIS_COMB (ECP5), ``bram``
in SB_RAM40_4K (4 Kbit) or DP16KD (18 Kbit). They are what nextpnr reports as available.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from codesign.basics.errors import InputError

if TYPE_CHECKING:
    from codesign.machine.choices import Pipeline

NextpnrFamily = Literal["ice40", "ecp5"]


@dataclass(frozen=True)
class Device:
    """An FPGA that nextpnr knows.

    name, package, speed_grade : as on the part; a speed grade of "" where the family has none.
    family : family of the tools.
    options : nextpnr's options that choose the part.
    budget : native resources by kind: lut, ff, bram, dsp.
    uses_dsp : whether multipliers are mapped to DSP blocks.
    """

    name: str
    package: str
    speed_grade: str
    family: NextpnrFamily
    options: tuple[str, ...]
    budget: Mapping[str, int]

    @property
    def uses_dsp(self) -> bool:
        return self.budget["dsp"] > 0


UP5K = Device(
    "iCE40UP5K", "SG48", "", "ice40", ("--up5k", "--package", "sg48"),
    {"lut": 5280, "ff": 5280, "bram": 30, "dsp": 8, "spram": 4},
)  # fmt: skip
HX8K = Device(
    "iCE40HX8K", "CT256", "", "ice40", ("--hx8k", "--package", "ct256"),
    {"lut": 7680, "ff": 7680, "bram": 32, "dsp": 0},
)  # fmt: skip
ECP5_25F = Device(
    "LFE5U-25F", "CABGA381", "6", "ecp5", ("--25k", "--package", "CABGA381", "--speed", "6"),
    {"lut": 24288, "ff": 24288, "bram": 56, "dsp": 28},
)  # fmt: skip
ECP5_85F = Device(
    "LFE5U-85F", "CABGA381", "6", "ecp5", ("--85k", "--package", "CABGA381", "--speed", "6"),
    {"lut": 83640, "ff": 83640, "bram": 208, "dsp": 156},
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An FPGA that estimates are held against, and that no tool here places.

    name, family, budget : as of :class:`Device`; ``bram`` in RAMB36 (36 Kbit, Xilinx) or BSRAM (18 Kbit, Gowin).
    """

    name: str
    family: Literal["xilinx", "gowin"]
    budget: Mapping[str, int]


# Xilinx: DS180, 7 series overview. Gowin: DS117, DS102.
PARTS: dict[str, Part] = {
    "artix7-35t": Part("XC7A35T", "xilinx", {"lut": 20800, "ff": 41600, "bram": 50, "dsp": 90}),
    "artix7-100t": Part("XC7A100T", "xilinx", {"lut": 63400, "ff": 126800, "bram": 135, "dsp": 240}),
    "artix7-200t": Part("XC7A200T", "xilinx", {"lut": 134600, "ff": 269200, "bram": 365, "dsp": 740}),
    "kintex7-325t": Part("XC7K325T", "xilinx", {"lut": 203800, "ff": 407600, "bram": 445, "dsp": 840}),
    "zynq-7020": Part("XC7Z020", "xilinx", {"lut": 53200, "ff": 106400, "bram": 140, "dsp": 220}),
    "gw1nr-9": Part("GW1NR-9", "gowin", {"lut": 8640, "ff": 6480, "bram": 26, "dsp": 20}),
    "gw2ar-18": Part("GW2AR-18", "gowin", {"lut": 20736, "ff": 15552, "bram": 46, "dsp": 48}),
}

TARGETS: dict[str, Device] = {
    "ecp5-25f": ECP5_25F,
    "ecp5-85f": ECP5_85F,
    "ice40-hx8k": HX8K,
    "ice40-up5k": UP5K,
}

# Clocks that machines of each pipeline reach on them, for times before one is placed: medians of what
# `python -m benchmarks.tuning` and `codesign tune` have placed, rounded down.
TYPICAL_MHZ: dict[str, dict[Pipeline, float]] = {
    "ecp5-25f": {"deep": 95.0, "short": 68.0},
    "ecp5-85f": {"deep": 78.0, "short": 65.0},
    "ice40-hx8k": {"deep": 93.0, "short": 97.0},
    "ice40-up5k": {"deep": 28.0, "short": 31.0},
}


@dataclass(frozen=True)
class Board:
    """A development board with a UART on its USB connector.

    platform : class name in ``amaranth_boards.<module>``.
    bitstream : suffix of the file that the programmer takes.
    programmer : the usual command that loads it, for the user; nothing here runs it.
    link : most native resources that the UART link takes beside an accelerator, by kind.
    """

    name: str
    title: str
    device: Device
    clock_hz: float
    module: str
    platform: str
    bitstream: str
    programmer: str
    link: Mapping[str, int]


BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board(
            "icebreaker", "iCEBreaker 1.0", UP5K, 12e6, "icebreaker", "ICEBreakerPlatform", ".bin", "iceprog",
            {"lut": 850, "bram": 1},
        ),
        Board(
            "ulx3s-25f", "ULX3S with LFE5U-25F", ECP5_25F, 25e6, "ulx3s", "ULX3S_25F_Platform", ".bit",
            "openFPGALoader -b ulx3s", {"lut": 1000, "ff": 330, "bram": 1},
        ),
    )
}  # fmt: skip


def find_board(name: str) -> Board:
    """Board of that name. Raises InputError naming the boards there are."""
    if name not in BOARDS:
        near = difflib.get_close_matches(name, BOARDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"board {name!r} is none of {', '.join(BOARDS)}{hint}")
    return BOARDS[name]


def find_device(name: str) -> Device | Part:
    """The FPGA of that name, or of the board of that name. Raises InputError naming those there are."""
    if name in BOARDS:
        return BOARDS[name].device
    found: Device | Part | None = TARGETS.get(name) or PARTS.get(name)
    if found is None:
        raise InputError(f"device {name!r} is none of {', '.join((*TARGETS, *PARTS, *BOARDS))}")
    return found


@dataclass(frozen=True)
class Room:
    """What an FPGA, or a board beside its link, has for an accelerator: ``budget`` by kind of native resource."""

    name: str
    family: str
    budget: Mapping[str, int]


def find_room(name: str) -> Room:
    """Of the FPGA or board of that name. Raises InputError naming those there are."""
    device = find_device(name)
    if name not in BOARDS:
        return Room(name, device.family, device.budget)
    link = BOARDS[name].link
    left = {kind: count - link.get(kind, 0) for kind, count in device.budget.items()}
    return Room(f"{name} beside its link", device.family, left)


def boards_table() -> list[dict[str, Any]]:
    """One row per board: name, title, device with package and grade, clock in MHz, budget."""
    return [
        {
            "name": board.name,
            "title": board.title,
            "device": "-".join(filter(None, (board.device.name, board.device.speed_grade + board.device.package))),
            "family": board.device.family,
            "clock_mhz": board.clock_hz / 1e6,
            "budget": dict(board.device.budget),
        }
        for board in BOARDS.values()
    ]


def devices_table() -> list[dict[str, Any]]:
    """One row per FPGA: name, part, family, whether it is placed and routed here, budget."""
    return [
        {"name": name, "part": part.name, "family": part.family, "placed": name in TARGETS, "budget": dict(part.budget)}
        for name, part in {**TARGETS, **PARTS}.items()
    ]
