"""Derives every fact of the sidecar again and compares.

Sources are the delivered Verilog (:mod:`sim.netlist`), the images and files of the bundle, the rules of docs/machine.md
("Ports of the top module", "Loadable networks", "The bundle"), and the frozen network where it is given. What is stated
and cannot be derived from one of them is no part of the sidecar. Fields that have one legal value are constants of
:class:`codesign.contract.sidecar.Sidecar`; where the simulation drives the accelerator by them, it proves them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.errors import MismatchError
from codesign.contract.network import INPUT, Convolution, FrozenNetwork, Leak, LeakKind, signed_width
from codesign.contract.network.terms import LEAK_NUMBERS
from codesign.contract.sidecar import (
    SIDECAR,
    LayerEntry,
    LayerRoom,
    MemoryImage,
    Picture,
    ProjectionEntry,
    Sidecar,
    WordField,
)
from sim.decoder import NUMBERS
from sim.delivered import described_choices
from sim.netlist import Netlist, read_netlist

PROBES = ("valid", "slot", "spikes", "membranes", "phase")
CURRENTS = "currents"
ROLES = ("rows", "synapses", "parameters")
LOAD_HEADER_BYTES, LOAD_CHECKSUM_BYTES = 20, 4
FILES = ("README.md", "files.f", "lint.vlt", "probes.vlt", "timing.svg")
FOLDERS = ("images", "constraints", "vectors")
STATE_ARRAYS = ("accumulator", "state", "seen", "values")
HEADER_BYTES = 4096


@dataclass(frozen=True)
class Difference:
    """A fact that is not as derived. place : of the sidecar, as "layers.0.n_in". source : what it was derived from."""

    place: str
    stated: Any
    derived: Any
    source: str

    def __str__(self) -> str:
        return f"{SIDECAR}: {self.place} is {_short(self.stated)}, {self.source} has {_short(self.derived)}"


@dataclass(frozen=True)
class Facts:
    """Outcome of :func:`compare_facts`: facts that were compared, and those that differ."""

    compared: int = 0
    differences: tuple[Difference, ...] = ()


def compare_facts(bundle: Path, sidecar: Sidecar, network: FrozenNetwork | None = None) -> Facts:
    """Compare every fact of ``sidecar`` with what can be derived; without ``network`` only what needs none.

    Raises InputError if the Verilog cannot be read by Verilator, ToolError without Verilator.
    """
    netlist = read_netlist(bundle / sidecar.verilog, sidecar.name)
    checks = _Checks(bundle, sidecar, netlist, network)
    checks.files()
    checks.interface()
    checks.choices()
    for entry in sidecar.layers:
        checks.layer(entry)
    checks.memory_bits()
    checks.load()
    if network is not None:
        checks.network(network)
    return Facts(checks.compared, tuple(checks.differences))


def check_facts(bundle: Path, sidecar: Sidecar, network: FrozenNetwork | None = None) -> None:
    """Raise MismatchError that names the first fact which is not true; else as :func:`compare_facts`."""
    differences = compare_facts(bundle, sidecar, network).differences
    if differences:
        first, *others = differences
        more = f" and {len(others)} more" if others else ""
        raise MismatchError(f"{bundle}: {first}{more}; generate it again")


class _Checks:
    """One comparison of a sidecar; each method covers a part of it."""

    def __init__(self, bundle: Path, sidecar: Sidecar, netlist: Netlist, network: FrozenNetwork | None) -> None:
        self.bundle, self.sidecar, self.netlist, self._network = bundle, sidecar, netlist, network
        self.folded = "engine0.probe0_valid" in netlist.signals
        self.room = sidecar.load.capacity if sidecar.load else None
        self.most_timesteps = self.room.timesteps if self.room else sidecar.timesteps
        self.compared = 0
        self.differences: list[Difference] = []

    def same(self, place: str, stated: Any, derived: Any, source: str) -> None:
        self.compared += 1
        # True is 1 to Python, and to no other reader of JSON.
        if stated != derived or type(stated) is not type(derived):
            self.differences.append(Difference(place, stated, derived, source))

    def files(self) -> None:
        """The list of files, and the tools that the Verilog's header names."""
        sidecar, name = self.sidecar, self.sidecar.name
        expected = {*FILES, sidecar.verilog, f"{name}_instance.v", f"{name}.core"}
        expected |= {memory.image for memory in sidecar.images}
        expected |= {f"constraints/{name}.{suffix}" for suffix in ("sdc", "xdc", "lpf", "pcf")}
        expected |= {
            path.relative_to(self.bundle).as_posix()
            for folder in FOLDERS
            for path in (self.bundle / folder).rglob("*")
            if path.is_file()
        }
        if any(path.startswith("vectors/") for path in expected):
            expected.add(f"{name}_tb.v")
        if (self.bundle / "boot.bin").is_file():
            expected.add("boot.bin")
        self.same("files", sorted(sidecar.files), sorted(expected), "the bundle")
        with (self.bundle / sidecar.verilog).open("rb") as file:
            header = file.read(HEADER_BYTES).decode("utf-8", "replace")
        tools = dict(re.findall(r"([a-z-]+) (\S+?)(?:, |$)", _after(header, "// Tools: ")))
        self.same("tools", dict(sidecar.tools), tools, sidecar.verilog)
        pipelines = dict(enumerate(_after(header, "// Pipeline of each layer: ").split(", ")))
        for entry in sidecar.layers:
            found = pipelines.get(entry.index, "no word of it")
            self.same(f"layers.{entry.index}.pipeline", entry.pipeline, found, sidecar.verilog)

    def interface(self) -> None:
        """Ports, and the places of the words' fields."""
        sidecar, room = self.sidecar, self.room
        n_inputs = room.n_inputs if room else sidecar.n_inputs
        picture = sidecar.input_picture
        if picture is not None:
            n_inputs = picture.channels << picture.place_bits
        timesteps = self.most_timesteps
        source = ("source", _index_width(n_inputs), False)
        extra = ("value", sidecar.input_bits, False) if sidecar.coding == "current" else ("kind", 1, False)
        self._word("input_word", [source, extra])
        value = room.value_width if room else self._value_width()
        shown = [("kind", 2, False), ("timestep", _index_width(timesteps), False)]
        shown += [("index", _index_width(sidecar.n_outputs), False), ("value", value, True)]
        self._word("output_word", shown)
        beat = sidecar.input_words * sidecar.input_word.width
        ports = [
            *(("clk", "input", 1), ("rst", "input", 1), ("s_axis_tdata", "input", beat)),
            *([("s_axis_tkeep", "input", beat // 8)] if sidecar.input_words > 1 else []),
            *(("s_axis_tvalid", "input", 1), ("s_axis_tready", "output", 1), ("s_axis_tlast", "input", 1)),
            *(("m_axis_tdata", "output", sidecar.output_word.width), ("m_axis_tvalid", "output", 1)),
            *(("m_axis_tready", "input", 1), ("m_axis_tlast", "output", 1), ("busy", "output", 1)),
            *(("protocol_error", "output", 4), ("saturation_count", "output", 32), ("cycle_count", "output", 32)),
            ("network_hash", "output", 64),
        ]
        if sidecar.load:
            ports += [("l_axis_tdata", "input", 8), ("l_axis_tvalid", "input", 1), ("l_axis_tready", "output", 1)]
            ports += [("l_axis_tlast", "input", 1), ("expected_hash", "input", 64), ("loaded", "output", 1)]
            ports += [("load_error", "output", 4)]
        if sidecar.exits_early:
            ports += [(name, "output", 32) for name in ("latency_cycles", "exit_count", "timestep_count")]
        stated = [(port.name, port.direction, port.width) for port in sidecar.ports]
        there = {name: (name, *kind) for name, kind in self.netlist.ports.items()}
        for place in range(max(len(stated), len(ports))):
            have, want = _item(stated, place), _item(ports, place)
            self.same(f"ports.{place}", have, want, "docs/machine.md")
            if have is not None:
                self.same(f"ports.{place}", have, there.pop(have[0], None), f"the module {sidecar.name}")
        for name, port in there.items():
            self.same(f"ports.{name}", None, port, f"the module {sidecar.name}")

    def choices(self) -> None:
        """What the accelerator was built with and without."""
        sidecar, netlist = self.sidecar, self.netlist
        verilog, constants = sidecar.verilog, netlist.constants
        self.same("clock", [("POS", sidecar.clock)], sorted(netlist.clocks), verilog)
        self.same("input_checks", sidecar.input_checks, "protocol_error" not in constants, verilog)
        self.same("counters", sidecar.counters, "cycle_count" not in constants, verilog)
        sends = sidecar.readout != "spike_count" or "readout.sends_spikes" in netlist.signals
        self.same("output_spikes", sidecar.output_spikes, sends, verilog)
        beat = netlist.ports.get("s_axis_tkeep", ("", 1))[1] * 8
        words = beat // sidecar.input_word.width if "s_axis_tkeep" in netlist.ports else 1
        self.same("input_words", sidecar.input_words, words, verilog)
        rule: Any = "off"
        if "exit_count" in netlist.ports:
            rule = netlist.margins[0] if len(netlist.margins) == 1 else "certain"
        self.same("early_exit", sidecar.early_exit, rule, verilog)
        self.same("shape", sidecar.shape, "folded" if self.folded else "streaming", verilog)
        self.same("load", sidecar.load is not None, "l_axis_tdata" in netlist.ports, verilog)

    def layer(self, entry: LayerEntry) -> None:
        """A layer on its engine: sizes, memories, probes, placement."""
        index, where = entry.index, f"layers.{entry.index}"
        verilog, netlist = self.sidecar.verilog, self.netlist
        engine = "engine0" if self.folded else f"engine{index}"
        scope = f"{engine}.probe{index}_" if self.folded else f"{engine}.probe_"
        slots = self._most(entry)
        widths = {
            "valid": 1,
            "slot": netlist.signals.get(f"{scope}slot"),
            "spikes": entry.lanes,
            "membranes": entry.lanes * entry.membrane_width,
            "phase": 2,
        }
        for name in PROBES:
            path = f"{scope}{name}"
            self.same(f"{where}.probe.{name}", getattr(entry.probe, name), path, verilog)
            self.same(f"{where}.probe.{name}: width", widths[name], netlist.signals.get(path), verilog)
        path = f"{scope}{CURRENTS}"
        self.same(f"{where}.probe.{CURRENTS}", entry.probe.currents, path if path in netlist.signals else None, verilog)
        width = None if entry.current_width is None else entry.lanes * entry.current_width
        self.same(f"{where}.probe.{CURRENTS}: width", width, netlist.signals.get(path), verilog)
        arrays = {path: memory for path, memory in netlist.memories.items() if path.startswith(f"{engine}.")}
        # Of several streams of events each has its fetchers, and its sums in each lane.
        several = self.sidecar.event_streams > 1
        first_sum = "neurons0.sum0" if several else "neurons0"
        of_lanes = rf"{engine}\.neurons\d+" + (r"\.sum0" if several else "")
        lanes = sum(re.fullmatch(rf"{of_lanes}\.accumulator", path) is not None for path in arrays)
        of_stream = "_0" if several else ""
        fetchers = sum(re.fullmatch(rf"{engine}\.fetcher\d+{of_stream}\.rows\..*", path) is not None for path in arrays)
        sums = sum(re.fullmatch(rf"{engine}\.neurons0(\.sum\d)?\.accumulator", path) is not None for path in arrays)
        self.same(f"event_streams: those of layer {index}", self.sidecar.event_streams, sums, verilog)
        self.same(f"{where}.lanes", entry.lanes, lanes, verilog)
        self.same(f"{where}.lockstep", entry.lockstep, fetchers < lanes, verilog)
        size = entry.picture.size if entry.picture else 1
        self.same(f"{where}.n_slots", entry.n_slots, -(-(slots // size) // entry.lanes) * size, "its neurons and lanes")
        # What collects events stands before the engine, for each projection and stream.
        collectors = [
            path for path in netlist.memories if re.fullmatch(rf"collector{index}_\d+(_\d)?\.masks[01]", path)
        ]
        is_current = index == 0 and self.sidecar.coding == "current"
        collects = len(collectors) > 0
        schedule = "sample" if is_current or collects else "timestep"
        self.same(f"{where}.schedule", entry.schedule, schedule, verilog)
        wanted = 2 * len(entry.projections) * self.sidecar.event_streams if collects else 0
        self.same(f"{where}.schedule: banks of masks", wanted, len(collectors), verilog)
        sums_in_word = self.most_timesteps if collects else 1
        accumulator, state = arrays.get(f"{engine}.{first_sum}.accumulator"), arrays.get(f"{engine}.neurons0.state")
        depth = sum_width = state_width = current_width = None
        if accumulator is not None:
            depth = accumulator.depth
            # Counts of the last layer's spikes, and timesteps of rest, lie below the state.
            counts = index == len(self.sidecar.layers) - 1 and described_choices(self.sidecar).counts
            counted = _index_width(self.most_timesteps + 1) if counts else 0
            rest = max(other.refractory for other in (self.sidecar.layers if self.folded else [entry]))
            counted += _index_width(rest + 1) if rest else 0
            held = accumulator if state is None else state
            state_width = held.width - counted
            has_sum = self.folded or several or schedule == "sample"
            has_current = any(re.fullmatch(rf"{engine}\.probe\d*_{CURRENTS}", path) for path in netlist.signals)
            if state is not None and has_sum:
                sum_width = accumulator.width // sums_in_word
                self.same(f"{where}.sum_width: sums", accumulator.width, sum_width * sums_in_word, verilog)
            if has_current and has_sum:
                # Both states lie in one word: one has what the other leaves.
                current_width, state_width = (
                    state_width - entry.state_width,
                    state_width - (entry.current_state_width or 0),
                )
            elif has_current:
                current_width = accumulator.width
        first, base = self._bases(index)
        if index == len(self.sidecar.layers) - 1:
            self.same(f"{where}.n_slots", max(2, first + entry.n_slots), depth, f"the memory of {verilog}")
        self.same(f"{where}.state_width", entry.state_width, state_width, verilog)
        self.same(f"{where}.sum_width", entry.sum_width, sum_width, verilog)
        self.same(f"{where}.current_state_width", entry.current_state_width, current_width, verilog)
        queue, fifo = arrays.get(f"{engine}.fetcher0{of_stream}.queue"), arrays.get(f"{engine}.fifo.storage")
        self.same(f"{where}.queue_depth", entry.queue_depth, queue.depth if queue else 0, verilog)
        self.same(f"{where}.fifo_depth", entry.fifo_depth, fifo.depth if fifo else 0, verilog)
        self.same(f"{where}.slot_base", entry.slot_base, first, "the layers before it")
        self.same(f"{where}.parameter_base", entry.parameter_base, self._parameter_base(index), "the layers before it")
        self._placement(entry, base)
        self._memories(entry, engine)

    def _bases(self, index: int) -> tuple[int, int]:
        """First slot and first row of a layer: behind those before it, at the next multiple of a power of two that
        holds the layer, where layers share memories; else 0."""
        slot = row = 0
        for entry in self.sidecar.layers[: index + 1] if self.folded else ():
            rows = self._rows(entry.index)
            slot, row = _aligned(slot, entry.n_slots), _aligned(row, rows)
            if entry.index < index:
                slot, row = slot + entry.n_slots, row + rows
        return slot, row

    def _parameter_base(self, index: int) -> int:
        """First word of a layer's parameters, as :meth:`_bases`."""
        base = 0
        for entry in self.sidecar.layers[: index + 1] if self.folded else ():
            base = _aligned(base, _parameter_words(entry))
            base += _parameter_words(entry) if entry.index < index else 0
        return base

    def _rows(self, index: int) -> int:
        """Rows of a layer in a row table: one for each hardware index of the layer before, or those of its channels."""
        return sum(self._projection_rows(projection) for projection in self.sidecar.layers[index].projections)

    def _projection_rows(self, projection: ProjectionEntry) -> int:
        """Rows of a projection in the tables of each stream of events; loadable machines have room for more inputs."""
        reads = projection.reads
        if projection.source == INPUT:
            units = self.room.n_inputs if self.room else projection.n_in
            if reads is not None:
                units = reads.picture.channels
        else:
            sender = self.sidecar.layers[projection.source]
            units = sender.n_slots // (1 if reads is None else reads.picture.size) << _lane_bits(sender)
        units = -(-units // self.sidecar.event_streams)
        return units << (0 if reads is None else reads.row_bits)

    def _most(self, entry: LayerEntry) -> int:
        """Neurons for which the layer has slots."""
        room = self._room(entry.index)
        return room.n_out if room else entry.n_out

    def _room(self, index: int) -> LayerRoom | None:
        return self.room.layers[index] if self.room and index < len(self.room.layers) else None

    def _placement(self, entry: LayerEntry, base: int) -> None:
        """Places of the last layer's neurons, and the addresses of all sources. Images hold the other places."""
        where = f"layers.{entry.index}"
        size = entry.picture.size if entry.picture else 1
        if entry.index == len(self.sidecar.layers) - 1:
            unit, place = np.divmod(np.arange(entry.n_out), size)
            slot = unit // entry.lanes * size + place
            self.same(f"{where}.lane", entry.lane, tuple((unit % entry.lanes).tolist()), "the order of classes")
            self.same(f"{where}.slot", entry.slot, tuple(slot.tolist()), "the order of classes")
        found: list[int] = []
        for number, projection in enumerate(entry.projections):
            self.same(f"{where}.projections.{number}.row_base", projection.row_base, base, "the rows before it")
            base += self._projection_rows(projection)
            found += self._addresses(projection)
        source = "the placement of the layers before" if entry.index else "the order of inputs"
        self.same(f"{where}.source_address", entry.source_address, tuple(found), source)

    def _addresses(self, projection: ProjectionEntry) -> list[int]:
        """Address of each source of a projection in events."""
        numbers, reads = np.arange(projection.n_in), projection.reads
        unit = numbers if reads is None else numbers // reads.picture.size
        if projection.source != INPUT:
            sender = self.sidecar.layers[projection.source]
            rank = np.asarray(sender.slot) // (sender.picture.size if sender.picture else 1)
            unit = (rank << _lane_bits(sender)) | np.asarray(sender.lane)
        # A sender of another size has no such places; the addresses then differ in number.
        if reads is None or unit.size != projection.n_in:
            return unit.tolist()
        y, x = np.divmod(numbers % reads.picture.size, reads.picture.width)
        return ((unit << reads.picture.place_bits) | (y << reads.picture.x_bits) | x).tolist()

    def _memories(self, entry: LayerEntry, engine: str) -> None:
        """Role, lane, name, shape and fields of each memory; encodings."""
        where, verilog = f"layers.{entry.index}", self.sidecar.verilog
        there = {}
        for path, memory in self.netlist.memories.items():
            found = re.fullmatch(rf"{engine}\.(?:fetcher|neurons)(\d+)(?:_(\d))?\.(rows|synapses|parameters)\..*", path)
            if found:
                there[found[3], int(found[1]), int(found[2] or 0)] = memory
        stated = [(memory.role, memory.lane, memory.stream) for memory in entry.memories]
        order = sorted(
            there, key=lambda memory: (memory[1], memory[0] == "parameters", memory[2], ROLES.index(memory[0]))
        )
        self.same(f"{where}.memories", stated, order, verilog)
        for place, memory in enumerate(entry.memories):
            at, delivered = f"{where}.memories.{place}", there.get((memory.role, memory.lane, memory.stream))
            if delivered is None:
                continue
            parts = [] if self.folded else [f"l{entry.index}"]
            if not entry.lockstep or memory.role == "parameters":
                parts.append(f"p{memory.lane}")
            if self.sidecar.event_streams > 1 and memory.role != "parameters":
                parts.append(f"s{memory.stream}")
            image = f"images/{'_'.join([*parts, memory.role])}.mem"
            self.same(f"{at}.image", memory.image, image, "its role, lane and stream")
            if not delivered.module.endswith("_spram"):
                self.same(f"{at}.image", memory.image, delivered.file, verilog)
            self.same(f"{at}.depth", memory.depth, delivered.depth, verilog)
            self.same(f"{at}.width", memory.width, delivered.width, verilog)
            self._fields(at, memory, entry)
        self._encoding(entry)

    def _fields(self, at: str, memory: MemoryImage, entry: LayerEntry) -> None:
        """Names and signs by the rule, places one after the other; what they hold is decoded from the images."""
        encoding, names = entry.encoding, []
        if memory.role == "rows":
            group = encoding.row_group
            names = ["start", *(["count"] if group == 1 else [f"count{k}" for k in range(group)])]
        elif memory.role == "synapses":
            one = ["slot" if encoding.gap_bits is None else "gap", "weight" if encoding.codebook is None else "code"]
            served = self.sidecar.layers if self.folded else [entry]
            if any(
                part.reads is not None and part.reads.convolution is not None
                for other in served
                for part in other.projections
            ):
                one += ["dy", "dx"]
            names = [f"{name}{lane}" for lane in range(entry.lanes) for name in one] if entry.lockstep else one
        else:
            # What a layer does not use is there only if it shares its memory with others that do.
            used = _used(entry.spiking, entry.leak, entry.current_leak) | {field.name for field in memory.fields}
            names = [name for name in NUMBERS if getattr(entry, name) is None and name in used]
        self.same(f"{at}.fields: names", [field.name for field in memory.fields], names, "the layer's encoding")
        self._contiguous(at, memory.fields, memory.width)
        for field in memory.fields:
            signed = field.name.rstrip("0123456789") in ("weight", "threshold", "bias")
            self.same(f"{at}.fields.{field.name}.signed", field.signed, signed, "docs/machine.md")
        if memory.role == "rows":
            counts = {field.width for field in memory.fields[1:]}
            self.same(f"{at}.fields: widths of counts", len(counts), 1, "docs/machine.md")
        if memory.role == "synapses" and encoding.gap_bits is not None:
            gap = next((field.width for field in memory.fields if field.name == "gap"), None)
            self.same(f"{at}.fields.gap.width", gap, encoding.gap_bits, "the layer's encoding")
        if memory.role == "synapses" and encoding.codebook is not None:
            code = next((field.width for field in memory.fields if field.name == "code"), None)
            self.same(f"{at}.fields.code.width", code, _index_width(len(encoding.codebook)), "the layer's encoding")

    def _encoding(self, entry: LayerEntry) -> None:
        """Codes stand for the weights that occur, in ascending order."""
        book, network = entry.encoding.codebook, self._network
        if book is None or network is None or len(network.layers) != len(self.sidecar.layers):
            return
        layers = network.layers if self.folded else [network.layers[entry.index]]
        weights = [projection.connections.weights for layer in layers for projection in layer.projections]
        held = np.unique(np.concatenate(weights))
        self.same(f"layers.{entry.index}.encoding.codebook", book, tuple(held.tolist()), "the frozen network")

    def _contiguous(self, at: str, fields: Sequence[WordField], width: int | None) -> None:
        offset = 0
        for field in fields:
            self.same(f"{at}.fields.{field.name}.offset", field.offset, offset, "the fields before it")
            offset += field.width
        if width is not None:
            self.same(f"{at}.width", width, offset, "the sum of its fields")

    def _word(self, name: str, fields: list[tuple[str, int, bool]]) -> None:
        word = getattr(self.sidecar, name)
        offset, wanted = 0, []
        for field, width, signed in fields:
            wanted.append((field, offset, width, signed))
            offset += width
        stated = [(field.name, field.offset, field.width, field.signed) for field in word.fields]
        for place in range(max(len(stated), len(wanted))):
            self.same(f"{name}.fields.{place}", _item(stated, place), _item(wanted, place), "docs/machine.md")
        self.same(f"{name}.width", word.width, -(-offset // 8) * 8, "the sum of its fields")

    def _value_width(self) -> int:
        """Bits of a readout value: those of the network's, else what the word states."""
        if self._network is not None:
            return signed_width(*self._network.value_range())
        return next((field.width for field in self.sidecar.output_word.fields if field.name == "value"), 0)

    def memory_bits(self) -> None:
        """Bits of all memories of the Verilog by what they hold."""
        bits: dict[str, int] = dict.fromkeys((*ROLES, "state", "queues"), 0)
        for path, memory in self.netlist.memories.items():
            parts = path.split(".")
            role = next((part for part in parts[1:-1] if part in ROLES), None)
            held = role or ("state" if parts[-1] in STATE_ARRAYS else "queues")
            bits[held] += memory.depth * memory.width
        for held, count in bits.items():
            self.same(f"memory_bits.{held}", getattr(self.sidecar.memory_bits, held), count, self.sidecar.verilog)

    def load(self) -> None:
        """Registers, order of memories, sizes and layout id of load images."""
        load, sidecar = self.sidecar.load, self.sidecar
        if load is None:
            return
        room = load.capacity
        self.same("load.capacity.layers: number", len(room.layers), len(sidecar.layers), "the list of layers")
        self.same("load.capacity.streams", room.streams, sidecar.event_streams, "the list of memories")
        locked = any(entry.lockstep for entry in sidecar.layers)
        self.same("load.capacity.lockstep", room.lockstep, locked, "the list of layers")
        self.same("load.fixed.layers: number", len(load.fixed.layers), len(sidecar.layers), "the list of layers")
        if len(room.layers) != len(sidecar.layers):
            return
        registers = [("last_timestep", _index_width(room.timesteps)), ("n_inputs", room.n_inputs.bit_length())]
        registers += [
            (f"clip{index}", layer.membrane_width - 1)
            for index, layer in enumerate(room.layers)
            if layer.threshold_width
        ]
        offset, wanted = 0, []
        for name, width in registers:
            wanted.append((name, offset, width, False))
            offset += width
        stated = [(field.name, field.offset, field.width, field.signed) for field in load.registers]
        for place in range(max(len(stated), len(wanted))):
            self.same(f"load.registers.{place}", _item(stated, place), _item(wanted, place), "its capacity")
        images = [
            memory
            for entry in sidecar.layers
            for role in ROLES
            for memory in sorted(entry.memories, key=lambda memory: (memory.lane, memory.stream))
            if memory.role == role
        ]
        self.same("load.memories", list(load.memories), [memory.image for memory in images], "the list of layers")
        size = LOAD_HEADER_BYTES + -(-offset // 8) + LOAD_CHECKSUM_BYTES
        size += sum(memory.depth * -(-memory.width // 8) for memory in images)
        self.same("load.image_bytes", load.image_bytes, size, "the list of memories")
        terms = [load.format, room.model_dump(mode="json"), load.fixed.model_dump(mode="json")]
        text = json.dumps(terms, sort_keys=True)
        layout = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        self.same("load.layout", load.layout, f"{layout:016x}", "its capacity and fixed terms")
        empty = any(memory.module.endswith("_spram") for memory in self.netlist.memories.values())
        self.same("load.boot", load.boot, "boot.bin" if empty else None, sidecar.verilog)
        for entry, layer in zip(sidecar.layers, room.layers, strict=True):
            where = f"load.capacity.layers.{entry.index}"
            self.same(f"{where}.lanes", layer.lanes, entry.lanes, "the list of layers")
            self.same(f"{where}.membrane_width", layer.membrane_width, entry.membrane_width, "the list of layers")
            self.same(f"{where}.state_width", layer.state_width, entry.state_width, "the list of layers")
            for name in ("current_width", "current_state_width"):
                self.same(f"{where}.{name}", getattr(layer, name), getattr(entry, name) or 0, "the list of layers")
            self._capacity(where, entry, layer)

    def _capacity(self, where: str, entry: LayerEntry, layer: LayerRoom) -> None:
        """Capacities that memories show."""
        fields = {field.name: field.width for memory in entry.memories for field in memory.fields}
        weight = fields.get("weight0" if entry.lockstep else "weight")
        self.same(f"{where}.weight_bits", layer.weight_bits, weight, "the synapse memory")
        self.same(f"{where}.bias_width", layer.bias_width, fields.get("bias"), "the parameter memory")
        for name in NUMBERS:
            if name == "bias":
                continue
            stated = getattr(layer, f"{name}_width")
            self.same(f"{where}.{name}_width", stated, fields.get(name, 0), "the parameter memory")
        for memory in entry.memories:
            depths = {"rows": self._rows(entry.index), "synapses": layer.synapses, "parameters": entry.n_slots}
            self.same(f"{where}: depth of {memory.image}", depths[memory.role], memory.depth, "the list of memories")

    def network(self, network: FrozenNetwork) -> None:
        """What the frozen network says."""
        sidecar, source = self.sidecar, "the frozen network"
        self.same("network_hash", sidecar.network_hash, network.hash, source)
        stored = self.netlist.constants.get("network_hash")
        if stored is not None:
            self.same("network_hash", sidecar.network_hash[:16], f"{stored:016x}", sidecar.verilog)
        facts = {
            "timesteps": network.timesteps,
            "coding": network.coding.kind,
            "input_bits": network.coding.input_bits,
            "readout": network.readout,
            "n_inputs": network.n_inputs,
            "n_outputs": network.n_outputs,
        }
        for name, derived in facts.items():
            self.same(name, getattr(sidecar, name), derived, source)
        self.same("layers: number", len(sidecar.layers), len(network.layers), source)
        for entry, layer in zip(sidecar.layers, network.layers):
            where, room = f"layers.{entry.index}", self._room(entry.index)
            spiking = not (network.membrane_readout and entry.index == len(network.layers) - 1)
            self.same(f"{where}.n_in", entry.n_in, layer.n_sources, source)
            picture = None if entry.picture is None else _sizes(entry.picture)
            self.same(f"{where}.picture", picture, _placed_picture(network, entry.index), source)
            stated = [part.model_dump(exclude={"row_base"}) for part in entry.projections]
            self.same(f"{where}.projections", stated, _projections(network, entry.index), source)
            self.same(f"{where}.n_out", entry.n_out, layer.n_out, source)
            self.same(f"{where}.spiking", entry.spiking, spiking, source)
            self.same(f"{where}.weight_bits", entry.weight_bits, layer.weight_bits, source)
            self.same(f"{where}.fraction_bits", entry.fraction_bits, layer.fraction_bits, source)
            if room is None:
                self.same(f"{where}.membrane_width", entry.membrane_width, layer.membrane_width, source)
            held = {field.name for memory in entry.memories if memory.role == "parameters" for field in memory.fields}
            self.same(f"{where}.leak", entry.leak, layer.leak.kind, source)
            current_leak = None if layer.current_leak is None else layer.current_leak.kind
            self.same(f"{where}.current_leak", entry.current_leak, current_leak, source)
            self.same(f"{where}.refractory", entry.refractory, layer.refractory, source)
            if room is None:
                self.same(f"{where}.current_width", entry.current_width, layer.current_width or None, source)
            used = _used(spiking, layer.leak.kind, current_leak)
            placed = _placed_picture(network, entry.index)
            alike = placed is not None and all(
                bool(np.all(numbers == numbers[:, :1]))
                for numbers in (layer.numbers[name].reshape(placed[0], -1) for name in used)
            )
            # A loadable machine has no pictures.
            self.same(f"{where}.channel_parameters", entry.channel_parameters, alike, source)
            for name in NUMBERS:
                known = name in used - held - layer.varying
                constant = int(layer.numbers[name][0]) if known else None
                self.same(f"{where}.{name}", getattr(entry, name), constant, source)
        if sidecar.load is not None:
            self._fixed(network)

    def _fixed(self, network: FrozenNetwork) -> None:
        """Terms that every network on a loadable machine has."""
        assert self.sidecar.load is not None
        fixed, source = self.sidecar.load.fixed, "the frozen network"
        coding = "current" if network.coding.kind == "current" else "events"
        self.same("load.fixed.coding", fixed.coding, coding, source)
        self.same("load.fixed.input_bits", fixed.input_bits, network.coding.input_bits, source)
        self.same("load.fixed.readout", fixed.readout, network.readout, source)
        self.same("load.fixed.n_outputs", fixed.n_outputs, network.n_outputs, source)
        for index, (entry, layer) in enumerate(zip(fixed.layers, network.layers)):
            where, room = f"load.fixed.layers.{index}", self._room(index)
            spiking = not (network.membrane_readout and index == len(network.layers) - 1)
            self.same(f"{where}.leak", entry.leak, _formula("v", layer.leak, room, "leak"), source)
            current = None
            if layer.current_leak is not None:
                current = _formula("i", layer.current_leak, room, "current_leak")
                # A layer that integrates cannot saturate, in however many bits.
                current += f" in {layer.current_width} bits" if spiking else ""
            self.same(f"{where}.current", entry.current, current, source)
            reset = f"value {layer.reset_value}" if layer.reset == "value" else layer.reset
            reset += " a timestep late" if layer.reset_delay else ""
            reset += f" then rest {layer.refractory}" if layer.refractory else ""
            self.same(f"{where}.reset", entry.reset, reset, source)
            self.same(f"{where}.compare", entry.compare, layer.compare, source)
            self.same(f"{where}.fraction_bits", entry.fraction_bits, layer.fraction_bits, source)


def _formula(x: str, leak: Leak, room: LayerRoom | None, which: str) -> str:
    """A leak of ``x``, called ``which``; of what is loaded the letter of docs/contract.md stands there."""
    k = n = str(np.ravel(leak.shift)[0])
    m = str(np.ravel(leak.multiplier)[0])
    if room and getattr(room, f"{which}_shift_width"):
        k, n = "k", "n"
    if room and getattr(room, f"{which}_multiplier_width"):
        m = "m"
    return {"none": "none", "shift": f"{x} - ({x} >> {k})", "multiply": f"({x} * {m}) >> {n}"}[leak.kind]


def _used(spiking: bool, leak: LeakKind, current_leak: LeakKind | None) -> set[str]:
    """What a layer uses of :data:`sim.decoder.NUMBERS`."""
    of_current = () if current_leak is None else LEAK_NUMBERS[current_leak]
    return {
        "bias",
        *(["threshold"] if spiking else []),
        *(f"leak_{name}" for name in LEAK_NUMBERS[leak]),
        *(f"current_leak_{name}" for name in of_current),
    }


def _parameter_words(entry: LayerEntry) -> int:
    """Words of a layer's parameters in a lane."""
    return entry.n_slots // (entry.picture.size if entry.channel_parameters and entry.picture else 1)


def _aligned(place: int, size: int) -> int:
    """The first multiple from ``place`` on of the least power of two that is not below ``size``."""
    step = 1 << (size - 1).bit_length()
    return -(-place // step) * step


def _lane_bits(entry: LayerEntry) -> int:
    return (entry.lanes - 1).bit_length()


def _index_width(count: int) -> int:
    """Bits of an index into ``count`` things, at least 1."""
    return max(1, (count - 1).bit_length())


def _sizes(picture: Picture) -> tuple[int, int, int]:
    return picture.channels, picture.height, picture.width


def _placed_picture(network: FrozenNetwork, source: int) -> tuple[int, int, int] | None:
    """Shape of a population whose lanes own channels: one of a convolution, or what is read as a picture."""
    if source != INPUT and any(
        isinstance(projection.connections, Convolution) for projection in network.layers[source].projections
    ):
        return network.layers[source].shape
    for layer in network.layers:
        for projection in layer.projections:
            if projection.source == source and projection.source_shape is not None:
                return projection.source_shape
    return None


def _projections(network: FrozenNetwork, index: int) -> list[dict[str, Any]]:
    """The sidecar's ``projections`` of a layer; single synapses without pool read a picture if one sends."""
    found = []
    for projection in network.layers[index].projections:
        shape = projection.source_shape or _placed_picture(network, projection.source)
        reads = kernel = None
        if isinstance(projection.connections, Convolution):
            height, width = projection.connections.kernel
            stride, padding = projection.connections.stride, projection.connections.padding
            kernel = {"height": height, "width": width, "stride": stride, "padding": padding}
        if shape is not None:
            picture = dict(zip(("channels", "height", "width"), shape, strict=True))
            pool = projection.pool.size if projection.pool else 1
            reads = {"picture": picture, "pool": pool, "convolution": kernel}
        found.append({"source": projection.source, "n_in": projection.n_sources, "reads": reads})
    return found


def _item(items: Sequence[Any], place: int) -> Any:
    return items[place] if place < len(items) else None


def _after(header: str, mark: str) -> str:
    """The rest of the header's line that begins with ``mark``."""
    return next((line.removeprefix(mark).strip() for line in header.splitlines() if line.startswith(mark)), "")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


__all__ = ["Difference", "Facts", "check_facts", "compare_facts"]
