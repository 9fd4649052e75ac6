"""Bitstreams: a delivered bundle behind the host link on a board, with the open tools.

The steps are Amaranth's build plan for the board (yosys, nextpnr, packer), run one by one: whether the design fits is
asked before place and route, and Ctrl-C stops the tool that runs.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boards.host import DEFAULT_BAUD
from boards.registry import BOARDS, Board, find_board
from boards.synth import Design, used_resources
from boards.tools import compiled_tool, run_tool, tool_version
from boards.top import BoardTop, PlatformTop, board_verilog, check_ports
from boards.uart import uart_divisor
from codesign.basics.errors import CapacityError, ToolError
from codesign.basics.files import explain_write_errors, file_hash, write_json, write_text
from codesign.basics.progress import Progress, silent
from codesign.cost.area import RESOURCES
from codesign.cost.memories import image_blocks

TOP = "top"
REPORT = "report.json"
RESULT = "build.json"
DEFAULT_SEED = 1
CURES = {
    "lut": "fewer lanes",
    "ff": "fewer lanes",
    "bram": "a lower density, fewer neurons or fewer lanes",
    "dsp": "fewer lanes in the first layer",
    "spram": "fewer lanes, or hardware.synapse_memory = 'auto'",
}


def build(
    bundle: str | Path,
    board_name: str,
    folder: str | Path,
    *,
    seed: int = DEFAULT_SEED,
    baud: float = DEFAULT_BAUD,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Build a bitstream in ``folder``, which is made or reused; returns what is also written to build.json.

    ``{board, device, network_hash, clock_mhz, fmax_mhz, baud, baud_error, seed, bitstream, bitstream_sha256, sources
    {path: sha256}, used {lut, ff, bram, dsp}, budget {..}, utilisation {cell: {used, available}}, tools {..}}``;
    ``sources`` are the delivered files, whose hashes were compared after the build with those in the sidecar.
    ``board_top.v`` beside the bitstream is the same top for simulation.

    Raises CapacityError if the design does not fit the device or misses the board's clock, InputError for a damaged
    bundle or an unknown board, ToolError if a tool is missing or fails.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> _ = codesign.generate_bundle(network, codesign.map_hardware(network), "bundle")
    >>> codesign.build_bitstream("bundle", "icebreaker", "out")["bitstream"]  # doctest: +SKIP
    'top.bin'
    >>> codesign.build_bitstream("bundle", "icebraker", "out")
    Traceback (most recent call last):
    codesign.basics.errors.InputError: board 'icebraker' is none of icebreaker, ulx3s-25f; did you mean 'icebreaker'?
    """
    folder = Path(folder)
    board = find_board(board_name)
    design = Design.load(Path(bundle))
    divisor, baud_error = uart_divisor(board.clock_hz, baud)
    check_ports(design.sidecar)
    _check_memories(design, board)
    bitstream = folder / f"{TOP}{board.bitstream}"
    names = _tool_names(board)
    versions = {name: tool_version(name) for name in names}
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (folder / RESULT, bitstream):
            stale.unlink(missing_ok=True)

    plan = _platform(board).prepare(
        PlatformTop(_with_files(design, divisor)),
        TOP,
        emit_src=False,
        debug_verilog=False,
        read_verilog_opts="-defer",
        synth_opts="-dsp" if board.device.family == "ice40" and board.device.uses_dsp else "",
        nextpnr_opts=f"--report {REPORT} --seed {seed} --timing-allow-fail",
    )
    with explain_write_errors(folder):
        plan.extract(folder)
    write_text(folder / "board_top.v", board_verilog(design.sidecar, divisor))
    commands = json.loads(plan.files[f"build_{TOP}.json"])["commands"]
    for step, (tool, *arguments) in enumerate(commands):
        progress(step, len(commands), tool)
        if tool.startswith("nextpnr"):
            # Without its output: nextpnr-ecp5 fails to write the configuration of what is not placed.
            output = arguments.index("--asc" if board.device.family == "ice40" else "--textcfg")
            pack = [*arguments[:output], *arguments[output + 2 :], "--pack-only"]
            run_tool(tool, pack, cwd=folder, log=folder / f"{tool}-pack.log")
            _check_capacity(_report(folder)["utilization"], design, board)
        try:
            run_tool(tool, arguments, cwd=folder, log=folder / f"{tool}.log")
        except ToolError as error:
            if tool.startswith("nextpnr") and "place" in str(error):
                raise CapacityError(f"{board.name}: {error}; use {CURES['lut']} or {CURES['bram']}") from None
            raise
        if tool.startswith("nextpnr"):
            # Before anything is packed: a bitstream that is too slow for the board's clock is none.
            _check_clock(_reached(folder), board)
    progress(len(commands), len(commands), "done")

    utilisation = _report(folder)["utilization"]
    if not bitstream.is_file():
        raise ToolError(f"{commands[-1][0]} made no {bitstream.name}; see the logs in {folder}")
    for path, digest in design.sources.items():
        if file_hash(folder / path) != digest:
            bitstream.unlink()
            raise ToolError(f"{folder / path}: changed during the build; build again")
    result = {
        "board": board.name,
        "device": board.device.name,
        "network_hash": design.sidecar.network_hash,
        "clock_mhz": board.clock_hz / 1e6,
        "fmax_mhz": round(_reached(folder), 2),
        "baud": baud,
        "baud_error": baud_error,
        "seed": seed,
        "bitstream": bitstream.name,
        "bitstream_sha256": file_hash(bitstream),
        "sources": design.sources,
        "used": used_resources(utilisation),
        "budget": dict(board.device.budget),
        "utilisation": {name: item for name, item in utilisation.items() if item["used"]},
        "tools": versions,
    }
    write_json(folder / RESULT, result)
    return result


def _with_files(design: Design, divisor: int) -> BoardTop:
    """Top that hands the delivered files to the platform."""
    contents = {name: (design.folder / name).read_bytes() for name in design.sources}

    class DeliveredTop(BoardTop):
        def elaborate(self, platform: Any) -> Any:
            for name, content in contents.items():
                platform.add_file(name, content)
            return super().elaborate(platform)

    return DeliveredTop(design.sidecar, divisor)


def _platform(board: Board) -> Any:
    """Amaranth's platform of a board, with the tools of this environment."""
    for name in _tool_names(board):
        os.environ[name.upper().replace("-", "_")] = compiled_tool(name)
    return getattr(importlib.import_module(f"amaranth_boards.{board.module}"), board.platform)()


def _tool_names(board: Board) -> list[str]:
    return ["yosys", f"nextpnr-{board.device.family}", "icepack" if board.device.family == "ice40" else "ecppack"]


def _report(folder: Path) -> dict[str, Any]:
    """What nextpnr has said last."""
    return json.loads((folder / REPORT).read_text(encoding="utf-8"))


def _reached(folder: Path) -> float:
    """MHz of the slowest clock."""
    return min(clock["achieved"] for clock in _report(folder)["fmax"].values())


def _check_clock(mhz: float, board: Board) -> None:
    if mhz < board.clock_hz / 1e6:
        raise CapacityError(
            f"{board.name}: the design reaches {mhz:.1f} MHz, the board's clock is {board.clock_hz / 1e6:g} MHz; "
            f"try another seed, fewer lanes, or {_other_boards(board)}"
        )


def _check_memories(design: Design, board: Board) -> None:
    """Refuse at once what cannot fit: memory images beyond the device's block RAM, whatever synthesis does."""
    blocks = sum(image_blocks(memory.depth, memory.width, board.device.family) for memory in design.sidecar.images)
    there = board.device.budget["bram"]
    if blocks > 2 * there:
        raise CapacityError(_too_large(design, board, {"bram": (blocks, there)}, "about "))


def _check_capacity(utilisation: dict[str, dict[str, int]], design: Design, board: Board) -> None:
    used, there = used_resources(utilisation), used_resources(utilisation, "available")
    over = {name: (used[name], there[name]) for name in used if used[name] > there[name]}
    if over:
        raise CapacityError(_too_large(design, board, over))


def _too_large(design: Design, board: Board, over: Mapping[str, tuple[float, int]], about: str = "") -> str:
    """One line: what is too much, by how much, and what would fit."""
    parts = [
        f"{about}{used:g} of {there} {RESOURCES[name]} ({used - there:g} too many)"
        for name, (used, there) in over.items()
    ]
    cures = [CURES[name] for name in over]
    if "bram" in over:
        used, there = over["bram"]
        blocks = [
            image_blocks(memory.depth, memory.width, board.device.family)
            for memory in design.sidecar.images
            if memory.role == "synapses"
        ]
        kept = sum(blocks) - (used - there)
        if kept > 0:
            cures.insert(0, f"about {kept / sum(blocks):.0%} of the synapses at these weight bits")
    return (
        f"{board.name} ({board.device.name}): {design.name} needs {', '.join(parts)}; "
        f"what would fit: {', or '.join(cures)}, or {_other_boards(board)}"
    )


def _other_boards(board: Board) -> str:
    larger = [
        other.name
        for other in BOARDS.values()
        if other.device.budget["lut"] > board.device.budget["lut"] and other.name != board.name
    ]
    return f"the board {larger[0]}" if larger else "a larger device"
