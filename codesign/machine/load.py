"""Compiles a frozen network into a load image of a loadable machine.

Everything that is known of the machine is in its bundle's sidecar. A network that the machine cannot run is refused
here, in one line; the machine itself knows an image of another machine by its layout id.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import Sidecar
from codesign.machine.capacity import HASH_BYTES, LAYOUT_BYTES, MAGIC, Capacity, LoadMemory, check_terms
from codesign.machine.mapping import HardwareMap, map_loaded


@dataclass(frozen=True)
class Load:
    """A network for one machine.

    image : what goes into the machine's port ``l_axis``, byte by byte.
    sidecar : the machine's, with this network's hash, inputs, timesteps and placement, so that words and probes can be
        read; its ``files`` and images are still those of the delivered bundle.
    """

    image: bytes
    sidecar: Sidecar


def compile_load(network: FrozenNetwork, sidecar: Sidecar) -> Load:
    """Load image of ``network`` for the machine that ``sidecar`` (a bundle's design.json) describes.

    Deterministic. Raises UnsupportedError if the machine is not loadable or its fixed terms differ, CapacityError if
    the network exceeds its capacity, and InputError if the sidecar is damaged.
    """
    load = sidecar.load
    if load is None:
        raise UnsupportedError("the machine is not loadable; generate it with hardware.loadable = true")
    capacity = Capacity.from_json(load.capacity.model_dump())
    network.require_hardware()
    if not network.is_plain_chain:
        raise UnsupportedError(
            "a loadable machine is a chain of layers; this network has pictures, skips or recurrence"
        )
    check_terms(network, capacity, load.fixed.model_dump())
    layout = capacity.layout_id(network)
    if f"{layout:016x}" != load.layout:
        raise InputError("design.json: capacity and layout id do not belong together; generate the bundle again")
    mapping = map_loaded(network, capacity)
    return Load(load_image(network, mapping, capacity), _sidecar(network, mapping, sidecar))


def load_image(network: FrozenNetwork, mapping: HardwareMap, capacity: Capacity) -> bytes:
    """Load image of a network, placed as ``mapping`` says, for a machine of this capacity."""
    body = b"".join(
        [
            MAGIC,
            capacity.layout_id(network).to_bytes(LAYOUT_BYTES, "little"),
            int(network.hash[:16], 16).to_bytes(HASH_BYTES, "little"),
            _registers(network, capacity),
            *(_contents(mapping, memory) for memory in capacity.memories),
        ]
    )
    return body + zlib.crc32(body).to_bytes(4, "little")


def _registers(network: FrozenNetwork, capacity: Capacity) -> bytes:
    record = capacity.registers
    return int(record.pack(capacity.register_values(network))[0]).to_bytes(record.stream_width // 8, "little")


def _contents(mapping: HardwareMap, memory: LoadMemory) -> bytes:
    found = mapping.engines[memory.layer].words(memory.role, memory.lane, memory.stream)
    if memory.word_bytes <= 8:
        return found.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : memory.word_bytes].tobytes()
    return b"".join(int(word).to_bytes(memory.word_bytes, "little") for word in found)


def _sidecar(network: FrozenNetwork, mapping: HardwareMap, machine: Sidecar) -> Sidecar:
    document = machine.to_json() | {
        "network_hash": network.hash,
        "timesteps": network.timesteps,
        "coding": network.coding.kind,
        "n_inputs": network.n_inputs,
    }
    for entry, layer in zip(document["layers"], mapping.layers, strict=True):
        entry |= {
            "n_in": layer.n_in,
            "projections": [
                {**part, "n_in": link.n_in} for part, link in zip(entry["projections"], layer.projections, strict=True)
            ],
            "n_out": layer.n_out,
            "lane": layer.lane.tolist(),
            "slot": layer.slot.tolist(),
            "source_address": layer.source_address.tolist(),
            "weight_bits": layer.weight_bits,
        }
    return Sidecar.from_json(document)
