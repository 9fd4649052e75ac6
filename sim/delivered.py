"""Which choices a delivered machine was generated with, from the facts that its bundle states."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from codesign.contract.sidecar import Sidecar, SynapseEncoding, read_sidecar
from codesign.machine.choices import DEFAULTS, Choices, Shape, as_chosen

STATE = re.compile(r'\(\* ram_style = "(?P<style>block|distributed)" \*\)\n\s*reg (\[\d+:0\] )?(state|accumulator) ')
IMAGE = re.compile(
    r"^\s*\S+_r[oa]m(?P<block>_block)? #\(\n"
    r"(?:\s*\.BUNDLE_DIR\(BUNDLE_DIR\),\n)?"
    r"\s*\.ADDRESS_WIDTH\(32'd\d+\),\n"
    r"\s*\.DEPTH\(32'd(?P<depth>\d+)\),\n"
    r'\s*\.FILE\("[^"]*"\),\n'
    r"\s*\.WIDTH\(32'd(?P<width>\d+)\)",
    re.MULTILINE,
)


def described_choices(sidecar: Sidecar) -> Choices:
    """The choices that a sidecar tells: all but what memories ask the synthesis tool for, which is the default here.

    A choice that makes no difference to the machine is the default: no queue depth without a queue, for one.
    Raises InputError for a value out of range.
    """
    layers = sidecar.layers
    folded, load = sidecar.shape == "folded", sidecar.load
    depths = [layer.queue_depth for layer in layers if layer.queue_depth]
    plain = SynapseEncoding(row_group=1, gap_bits=None, codebook=None)
    shape: Shape = "folded" if folded else "streaming"
    return Choices(
        shape=shape,
        queue_depth=depths[0] if depths else DEFAULTS.queue_depth,
        input_words=sidecar.input_words,
        event_streams=sidecar.event_streams,
        schedule=as_chosen([layer.schedule for layer in layers], is_current=sidecar.coding == "current"),
        input_checks=sidecar.input_checks,
        counters=sidecar.counters,
        synapse_memory="spram" if load is not None and load.boot is not None else "auto",
        synapses="compact" if any(layer.encoding != plain for layer in layers) else "plain",
        pipeline=layers[0].pipeline,
        lockstep=any(layer.lockstep for layer in layers),
        spike_fifos=layers[0].fifo_depth > 0,
        output_spikes=sidecar.output_spikes,
        early_exit=sidecar.early_exit,
        loadable=load is not None,
    )


def delivered_choices(bundle: Path) -> Choices:
    """All choices of a bundle: those of the sidecar, and what the Verilog's memories ask the synthesis tool for.

    A bundle that is generated from the same network, placement and these choices has the same files, byte for byte.
    Raises InputError for a damaged sidecar.
    """
    sidecar = read_sidecar(bundle)
    text = (bundle / f"{sidecar.name}.v").read_text(encoding="utf-8")
    found = STATE.search(text)
    style: Any = found["style"] if found else "auto"
    return replace(described_choices(sidecar), state_memory=style, block_rom_bits=_block_rom_bits(text))


def _block_rom_bits(text: str) -> int:
    """The default if it divides memories that ask for blocks from the others as they are, else a number that does."""
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for found in IMAGE.finditer(text):
        sizes[found["block"] is not None].append(int(found["depth"]) * int(found["width"]))
    most = max(sizes[False], default=-1)
    least = min(sizes[True], default=max(most + 1, DEFAULTS.block_rom_bits))
    return DEFAULTS.block_rom_bits if most < DEFAULTS.block_rom_bits <= least else least
