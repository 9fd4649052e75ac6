"""Area and clock figures of a delivered bundle, from yosys and nextpnr, as JSON.

What is synthesised is the delivered Verilog, unmodified. Figures of a family:

- ``lut``: what the family fills its fabric with. ECP5: nextpnr's TRELLIS_COMB (carry and distributed RAM included).
  iCE40: nextpnr's ICESTORM_LC. Both after packing the accelerator alone, for the family's largest device.
  Xilinx 7-series: yosys LUT1-6. Gowin: yosys LUT1-4 + ALU.
- ``lut_cells``: raw yosys LUT cells. They leave out carry and memory in other ways in every family: not comparable.
- ``lutram_cells``: distributed RAM cells, which Xilinx and Gowin build from LUTs that ``lut`` does not count.
- ``ff``, ``bram``, ``dsp``: flip-flops, native memory blocks (a RAMB18 is half a RAMB36), multiplier blocks.

The clock is found by placing and routing the accelerator in an *out-of-context wrapper*: every input port is driven
by a shift register, every output port ends in a register, and these are folded into one pin by a chain of
exclusive-ors, so that every path starts and ends in a register and few pins are used. The accelerator is synthesised
alone and only then linked into the wrapper, whose cells are therefore known and subtracted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import platformdirs

from boards.block_memories import block_memories, mapped_memories, meant_for_block
from boards.registry import TARGETS, Device
from boards.tools import KilledError, last_error, run_parallel, run_tool, tool_version
from codesign.basics.errors import CodesignWarning, InputError, ToolError
from codesign.basics.files import explain_write_errors, write_json
from codesign.basics.progress import Progress, silent
from codesign.config import Family, SynthConfig
from codesign.contract.sidecar import Sidecar, read_sidecar
from sim.bundle import check_files
from sim.facts import check_facts

CACHE_VERSION = 2
PACK_ONLY = "--pack-only"
CACHE_LIMIT_BYTES = 512 << 20
WORKERS = 2
GOAL_MHZ = {"ice40-up5k": 30, "ice40-hx8k": 100, "ecp5-25f": 120, "ecp5-85f": 120}
PACK_TARGET = {"ice40": "ice40-hx8k", "ecp5": "ecp5-85f"}

CellCounts = dict[str, int]


@dataclass(frozen=True)
class Flow:
    """How yosys maps to a family, and what its cells count as.

    Each pattern is a cell's name, or a prefix that ends in ``*``, and its weight.
    """

    family: Family
    command: str
    luts: Mapping[str, float]
    lutrams: Mapping[str, float]
    ffs: Mapping[str, float]
    brams: Mapping[str, float]
    dsps: Mapping[str, float]
    # What the names of block RAM begin with where yosys maps memories, before it names the cells.
    block_maps: tuple[str, ...]


_ICE40_CELLS: dict[str, Any] = {
    "luts": {"SB_LUT4": 1},
    "lutrams": {},
    "ffs": {"SB_DFF*": 1},
    "brams": {"SB_RAM40_4K*": 1},
    "dsps": {"SB_MAC16": 1},
    "block_maps": ("$__ICE40_RAM4K_",),
}
FLOWS: dict[str, Flow] = {
    "ice40": Flow("ice40", "synth_ice40", **_ICE40_CELLS),
    "ice40-dsp": Flow("ice40", "synth_ice40 -dsp", **_ICE40_CELLS),
    "ecp5": Flow(
        "ecp5",
        "synth_ecp5",
        luts={"LUT4": 1},
        lutrams={"TRELLIS_DPR16X4": 1},
        ffs={"TRELLIS_FF": 1},
        brams={"DP16KD": 1, "PDPW16KD": 1},
        dsps={"MULT18X18D": 1},
        block_maps=("$__DP16KD_", "$__PDPW16KD_"),
    ),
    "xilinx": Flow(
        "xilinx",
        "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf",
        luts={f"LUT{n}": 1 for n in range(1, 7)},
        lutrams={"RAM32*": 1, "RAM64*": 1, "RAM128*": 1, "RAM256*": 1, "SRL*": 1},
        ffs={"FD*": 1},
        brams={"RAMB36E1": 1, "RAMB18E1": 0.5},
        dsps={"DSP48E1": 1},
        block_maps=("$__XILINX_BLOCKRAM_",),
    ),
    "gowin": Flow(
        "gowin",
        "synth_gowin -noiopads",
        luts={f"LUT{n}": 1 for n in range(1, 5)},
        lutrams={"RAM16S*": 1},
        ffs={"DFF*": 1},
        brams={"SP": 1, "SPX9": 1, "SDPB": 1, "SDPX9B": 1, "DPB": 1, "DPX9B": 1, "pROM*": 1},
        dsps={"MULT*": 1, "PADD*": 1, "ALU54*": 1},
        block_maps=("$__GOWIN_SP_", "$__GOWIN_SDP_", "$__GOWIN_DP_"),
    ),
}


@dataclass(frozen=True)
class Design:
    """The part of a bundle that is synthesised."""

    folder: Path
    sidecar: Sidecar

    @classmethod
    def load(cls, bundle: Path) -> Design:
        """Read a bundle. Raises InputError if a file is missing or is not the one that the sidecar describes, and
        MismatchError if the sidecar says what is not true of the Verilog."""
        sidecar = read_sidecar(bundle)
        check_files(bundle, sidecar)
        if sidecar.verilog not in sidecar.files:
            raise InputError(f"{bundle}: design.json lists no {sidecar.verilog}; generate the bundle again")
        check_facts(bundle, sidecar)
        return cls(bundle, sidecar)

    @property
    def name(self) -> str:
        return self.sidecar.name

    @property
    def sources(self) -> dict[str, str]:
        """sha256 by path of the files that synthesis reads: the Verilog and its memory images."""
        images = sorted(memory.image for memory in self.sidecar.images)
        return {name: self.sidecar.files[name] for name in (self.sidecar.verilog, *images)}

    def copy_sources(self, folder: Path) -> None:
        """Copy what synthesis reads below ``folder``, where the images' relative paths lead."""
        for name in self.sources:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, target)


def wrapper_source(design: Design) -> str:
    """Verilog of the out-of-context wrapper and a black box of the accelerator.

    A constant network hash stays unconnected; all other ports are registered.
    """
    ports, constants = design.sidecar.ports, () if design.sidecar.load else ("network_hash",)
    inputs = [(p.name, p.width) for p in ports if p.direction == "input" and p.name not in ("clk", "rst")]
    outputs = [(p.name, p.width) for p in ports if p.direction == "output" and p.name not in constants]
    n_in, n_out = sum(w for _, w in inputs), sum(w for _, w in outputs)
    links = [".clk(clk)", ".rst(rst_q)"]
    for names, bus in ((inputs, "in"), (outputs, "out")):
        position = 0
        for name, width in names:
            links.append(f".{name}({bus}[{position + width - 1}:{position}])")
            position += width
    declarations = ", ".join(f"{p.direction} [{p.width - 1}:0] {p.name}" for p in ports)
    return f"""\
(* blackbox *) module {design.name}({declarations});
endmodule
module out_of_context(input clk, input rst, input serial_in, output serial_out);
  reg rst_q;
  reg [{n_in - 1}:0] in;
  wire [{n_out - 1}:0] out;
  reg [{n_out - 1}:0] captured, folded;
  always @(posedge clk) begin
    rst_q <= rst;
    in <= {{in, serial_in}};
    captured <= out;
    folded <= captured ^ {{folded, 1'b0}};
  end
  assign serial_out = folded[{n_out - 1}];
  {design.name} accelerator({", ".join(links)});
endmodule
"""


def synth_bundle(
    bundle: str | Path,
    config: SynthConfig | None = None,
    work: str | Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """All figures that ``config`` asks for, also written to ``work``/synth.json; logs are kept in ``work``, if given.

    Returns ``{name, network_hash, sources {path: sha256}, tools {name: version}, area {family: {lut, lut_cells,
    lutram_cells, ff, bram, dsp}}, block_ram {flow: {meant, elsewhere {memory: cell}, summary}},
    cells {family: {cell: count}}, fmax_mhz {target: MHz or None},
    placed {target: {device, package, speed_grade, goal_mhz, seeds {seed: MHz}, lut, ff, bram, dsp, wrapper {..},
    budget {..}, reason}}}``. ``fmax_mhz`` is the median of the seeds; None, with ``reason``, if the accelerator
    does not fit the target. ``block_ram`` has the memories that ask for block RAM by an attribute, and those that
    are not there, which are warned of.

    Results are cached by what was synthesised, how, and by which tools. Raises ToolError if a tool is missing or
    fails, InputError if the bundle is damaged.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> _ = codesign.generate_bundle(network, codesign.map_hardware(network), "bundle")
    >>> wanted = codesign.parse_config({"synth": {"families": ["ice40"], "fmax": []}}).synth
    >>> list(codesign.synthesise_bundle("bundle", wanted)["area"])  # doctest: +SKIP
    ['ice40']
    >>> codesign.synthesise_bundle("nowhere", wanted)
    Traceback (most recent call last):
    codesign.basics.errors.InputError: nowhere/design.json: no such sidecar; `codesign generate` writes a bundle
    """
    with TemporaryDirectory(prefix="codesign-synth-") if work is None else nullcontext(work) as folder:
        return _synth(Path(bundle), config or SynthConfig(), Path(folder), progress)


def _synth(bundle: Path, config: SynthConfig, work: Path, progress: Progress) -> dict[str, Any]:
    design = Design.load(bundle)
    with explain_write_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    jobs = _Jobs(design, work)
    flows = {family: FLOWS[family] for family in config.families}
    for target in config.fmax:
        flows.setdefault(_target_flow(TARGETS[target]), FLOWS[_target_flow(TARGETS[target])])
    families = [family for family in config.families if family in PACK_TARGET]
    total = len(flows) + len(families) + len(config.fmax) * len(config.seeds)
    steps = _Steps(progress, total)

    yosys = dict(
        zip(
            flows,
            run_parallel([partial(steps.run, f"yosys {name}", partial(jobs.yosys, name)) for name in flows], WORKERS),
            strict=True,
        )
    )
    pack = [partial(steps.run, f"pack {family}", partial(jobs.pack, family)) for family in families]
    place = [
        partial(steps.run, f"nextpnr {target} seed {seed}", partial(jobs.place, target, seed))
        for target in config.fmax
        for seed in config.seeds
    ]
    done = run_parallel([*pack, *place], WORKERS)
    packed = dict(zip(families, done, strict=False))
    placed = iter(done[len(families) :])

    area = {family: _area(FLOWS[family], yosys[family]["cells"], packed.get(family)) for family in config.families}
    targets = {}
    for target in config.fmax:
        reports = {seed: next(placed) for seed in config.seeds}
        targets[target] = _placed(target, yosys[_target_flow(TARGETS[target])], reports)
    meant = meant_for_block(design.folder / design.sidecar.verilog, design.name)
    block_ram = {
        flow: block_memories(meant, found["memories"], FLOWS[flow].block_maps) for flow, found in yosys.items()
    }
    for flow, found in block_ram.items():
        if found["elsewhere"]:
            warnings.warn(f"{flow}: block RAM holds {found['summary']}", CodesignWarning, stacklevel=3)
    result = {
        "name": design.name,
        "network_hash": design.sidecar.network_hash,
        "sources": design.sources,
        "tools": jobs.tools,
        "area": area,
        "block_ram": block_ram,
        "cells": {family: yosys[family]["cells"] for family in config.families},
        "fmax_mhz": {target: entry["fmax_mhz"] for target, entry in targets.items()},
        "placed": targets,
    }
    write_json(work / "synth.json", result)
    return result


def _target_flow(device: Device) -> str:
    return "ice40-dsp" if device.family == "ice40" and device.uses_dsp else device.family


class _Steps:
    """Counts finished jobs of several threads for one progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0
        self.lock = threading.Lock()

    def run(self, text: str, job: Any, stop: threading.Event) -> Any:
        result = job(stop)
        with self.lock:
            self.done += 1
            self.progress(self.done, self.total, text)
        return result


class _Jobs:
    """Single tool runs on one design, each cached."""

    def __init__(self, design: Design, work: Path) -> None:
        self.design, self.work = design, work
        self.tools = {name: tool_version(name) for name in ("yosys", "nextpnr-ice40", "nextpnr-ecp5")}
        self.wrapper = wrapper_source(design)

    def yosys(self, flow: str, stop: threading.Event) -> dict[str, Any]:
        """Cells of the accelerator and of the wrapper, and the folder of both netlists."""
        script = _yosys_script(self.design.name, FLOWS[flow].command, netlists=FLOWS[flow].family in PACK_TARGET)
        key = _key("yosys", self.tools["yosys"], self.design.sources, script, self.wrapper)
        entry = _cache() / key

        def work(folder: Path) -> dict[str, Any]:
            self.design.copy_sources(folder)
            (folder / "wrapper.v").write_text(self.wrapper)
            (folder / "synth.ys").write_text(script)
            log = self.work / f"yosys-{flow}.log"
            run_tool("yosys", ["-l", "yosys.log", "-q", "synth.ys"], cwd=folder, log=log, stop=stop)
            shutil.copyfile(folder / "yosys.log", log)
            result = {
                "cells": _cell_counts(folder / "accelerator_stat.json"),
                "wrapper_cells": _cell_counts(folder / "wrapper_stat.json"),
                "memories": mapped_memories(log.read_text(encoding="utf-8", errors="replace"), self.design.name),
            }
            for path in list(folder.iterdir()):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in ("accelerator.json", "wrapped.json"):
                    path.unlink()
            return result

        return {**_cached(entry, "result.json", work), "folder": entry}

    def pack(self, family: str, stop: threading.Event) -> dict[str, Any]:
        """nextpnr's report on the accelerator alone after packing."""
        return self._nextpnr(family, PACK_TARGET[family], "accelerator", [PACK_ONLY], f"pack-{family}", stop)

    def place(self, target: str, seed: int, stop: threading.Event) -> dict[str, Any]:
        """nextpnr's report on the wrapped accelerator; after packing alone if it does not fit.

        ``failure`` is the tool's line where it fits and no placement or route was found.
        """
        flow = _target_flow(TARGETS[target])
        packed = self._nextpnr(flow, target, "wrapped", [PACK_ONLY], f"nextpnr-{target}-pack", stop)
        if any(entry["used"] > entry["available"] for entry in packed["utilization"].values()):
            return packed
        options = ["--seed", str(seed), "--freq", str(GOAL_MHZ[target]), "--timing-allow-fail"]
        try:
            return self._nextpnr(flow, target, "wrapped", options, f"nextpnr-{target}-seed{seed}", stop)
        except KilledError:
            raise
        except ToolError as error:
            if not any(word in str(error) for word in ("place", "route", "legal", "BEL")):
                raise
            return {**packed, "failure": str(error)}

    def _nextpnr(
        self, flow: str, target: str, netlist: str, options: list[str], name: str, stop: threading.Event
    ) -> dict[str, Any]:
        device = TARGETS[target]
        tool = f"nextpnr-{device.family}"
        arguments = [*device.options, *options]
        folder = self.yosys(flow, stop)["folder"]
        key = _key("nextpnr", self.tools[tool], folder.name, netlist, *arguments)
        entry = _cache() / key

        def work(output: Path) -> dict[str, Any]:
            source, log = os.path.relpath(folder / f"{netlist}.json", output), self.work / f"{name}.log"
            told = [*arguments, "--json", source, "--report", "report.json", "--quiet"]
            run_tool(tool, told, cwd=output, log=log, stop=stop)
            report = json.loads((output / "report.json").read_text())
            if PACK_ONLY not in options and len(report["fmax"]) != 1:
                # So ends one that was stopped from outside; the next attempt is to place again.
                raise KilledError(
                    f"{tool} for {target} reports {len(report['fmax'])} clocks, expected 1; it was stopped before "
                    f"it had routed, or the design has no clock: {last_error(log)} (log: {log})"
                )
            return {name: report[name] for name in ("fmax", "utilization")}

        return _cached(entry, "report.json", work)


def _yosys_script(name: str, command: str, *, netlists: bool) -> str:
    # Deferred: a module with a file name as parameter cannot be elaborated without it.
    lines = [f"read_verilog -defer {name}.v", f"{command} -top {name}", "tee -q -o accelerator_stat.json stat -json"]
    if netlists:
        lines += ["write_json accelerator.json"]
    lines += [
        "design -stash accelerator",
        "read_verilog wrapper.v",
        f"{command} -top out_of_context",
        "tee -q -o wrapper_stat.json stat -json",
    ]
    if netlists:
        lines += [
            f"delete ={name}",
            f"design -copy-from accelerator -as {name} {name}",
            "hierarchy -top out_of_context",
            "flatten",
            "opt_clean",
            "write_json wrapped.json",
        ]
    return "\n".join(lines) + "\n"


def _cell_counts(path: Path) -> CellCounts:
    """Cells by type of the only module in a yosys statistics file."""
    document = json.loads(path.read_text())
    cells = document["design"].get("num_cells_by_type", {})
    return {name: count for name, count in sorted(cells.items()) if not name.startswith("$")}


def count_cells(cells: Mapping[str, int], patterns: Mapping[str, float]) -> float:
    """Weighted sum of the cells that match a name, or a prefix that ends in ``*``."""
    total = sum(
        count * weight
        for name, count in cells.items()
        for pattern, weight in patterns.items()
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
    )
    return int(total) if total == int(total) else total


def _area(flow: Flow, cells: CellCounts, packed: dict[str, Any] | None) -> dict[str, float]:
    lut_cells = count_cells(cells, flow.luts)
    if packed is not None:
        lut = used_resources(packed["utilization"])["lut"]
    else:
        lut = lut_cells + (cells.get("ALU", 0) if flow.family == "gowin" else 0)
    return {
        "lut": lut,
        "lut_cells": lut_cells,
        "lutram_cells": count_cells(cells, flow.lutrams),
        "ff": count_cells(cells, flow.ffs),
        "bram": count_cells(cells, flow.brams),
        "dsp": count_cells(cells, flow.dsps),
    }


def used_resources(utilization: Mapping[str, Mapping[str, int]], kind: str = "used") -> dict[str, int]:
    """lut, bram, dsp, and ff where it is counted apart (ECP5), from a nextpnr report."""
    names = {
        "lut": ("ICESTORM_LC", "TRELLIS_COMB"),
        "ff": ("TRELLIS_FF",),
        "bram": ("ICESTORM_RAM", "DP16KD"),
        "spram": ("ICESTORM_SPRAM",),
        "dsp": ("ICESTORM_DSP", "MULT18X18D"),
    }
    return {
        resource: sum(utilization[name][kind] for name in cells if name in utilization)
        for resource, cells in names.items()
        if any(name in utilization for name in cells)
    }


def _placed(target: str, yosys: dict[str, Any], reports: dict[int, dict[str, Any]]) -> dict[str, Any]:
    device = TARGETS[target]
    first = next(iter(reports.values()))
    flow = FLOWS[_target_flow(device)]
    used = used_resources(first["utilization"])
    wrapper_ffs = int(count_cells(yosys["wrapper_cells"], flow.ffs))
    # In an iCE40 each exclusive-or shares its logic cell with the register it feeds.
    wrapper_luts = wrapper_ffs if device.family == "ice40" else int(count_cells(yosys["wrapper_cells"], flow.luts))
    entry: dict[str, Any] = {
        "device": device.name,
        "package": device.package,
        "speed_grade": device.speed_grade,
        "goal_mhz": GOAL_MHZ[target],
        "lut": used["lut"] - wrapper_luts,
        "ff": used["ff"] - wrapper_ffs if "ff" in used else int(count_cells(yosys["cells"], flow.ffs)),
        "bram": used["bram"],
        "dsp": used.get("dsp", 0),
        "spram": used.get("spram", 0),
        "wrapper": {"lut": wrapper_luts, "ff": wrapper_ffs},
        "budget": dict(device.budget),
        "seeds": {},
        "fmax_mhz": None,
        "reason": None,
    }
    over = {
        name: (item["used"], item["available"])
        for name, item in first["utilization"].items()
        if item["used"] > item["available"]
    }
    if over:
        entry["reason"] = "does not fit: " + ", ".join(
            f"{used} of {there} {name}" for name, (used, there) in over.items()
        )
        return entry
    for seed, report in reports.items():
        if "failure" in report:
            entry["reason"] = f"seed {seed}: {report['failure']}"
            continue
        entry["seeds"][str(seed)] = round(next(iter(report["fmax"].values()))["achieved"], 2)
    if entry["seeds"]:
        entry["fmax_mhz"] = round(statistics.median(entry["seeds"].values()), 2)
    return entry


def _key(*parts: Any) -> str:
    text = json.dumps([CACHE_VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _cache() -> Path:
    """Folder of cached results: $CODESIGN_CACHE, or the user's cache folder."""
    chosen = os.environ.get("CODESIGN_CACHE")
    return (Path(chosen) if chosen else Path(platformdirs.user_cache_dir("codesign"))) / "synthesis"


def _cached(entry: Path, name: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The result in the file ``name`` of the folder ``entry``, else that of ``work``, which is kept there.

    ``work`` gets an empty folder, which becomes the entry with what is left in it. Another process may remove entries
    at any time (:func:`prune_cache`), or make the same one first.
    """
    with suppress(FileNotFoundError):
        result = json.loads((entry / name).read_text())
        os.utime(entry)
        return result
    with explain_write_errors(entry.parent):
        entry.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        text = json.dumps(work(folder))
        (folder / name).write_text(text)
        if entry.is_dir() and not (entry / name).is_file():
            # What is left of one whose removal was interrupted.
            shutil.rmtree(entry, ignore_errors=True)
        try:
            folder.rename(entry)
        except OSError:
            if not entry.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    prune_cache()
    return json.loads(text)


def prune_cache(limit_bytes: int = CACHE_LIMIT_BYTES) -> None:
    """Remove the results that were used longest ago until the cache holds at most ``limit_bytes``.

    The one used last stays, however large it is: somebody is about to read it.
    """
    entries = []
    for folder in _cache().iterdir():
        # Another process may remove an entry meanwhile.
        with suppress(OSError):
            if not folder.name.startswith("."):
                size = sum(path.stat().st_size for path in folder.iterdir())
                entries.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries)[:-1]:
        if total <= limit_bytes:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
