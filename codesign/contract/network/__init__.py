"""The frozen network: the integer contract between training and hardware.

A :class:`FrozenNetwork` holds everything that the golden model, the mapper and the testbench need,
and nothing else. It is stored as one safetensors file: integer arrays as tensors and one JSON
document as metadata. Files are validated on load, sizes before any array is read.

Nothing here imports another part of codesign but its errors and atomic file writes, and nothing here
simulates: the arithmetic is :mod:`codesign.contract.golden`.
"""

from codesign.contract.network.connections import Connections, Convolution, Projection, SumPool, Synapses
from codesign.contract.network.file import FORMAT_NAME, FORMAT_VERSION, MAX_METADATA_BYTES
from codesign.contract.network.layer import FrozenLayer
from codesign.contract.network.limits import INPUT, MAX_LAYERS, MAX_SYNAPSES, MAX_TIMESTEPS, MAX_WIDTH, OWN, PREVIOUS
from codesign.contract.network.network import FrozenNetwork
from codesign.contract.network.terms import (
    CodingKind,
    CompareKind,
    InputCoding,
    Int,
    Leak,
    LeakKind,
    ReadoutKind,
    ResetKind,
    signed_width,
)

__all__ = [
    "FORMAT_NAME",
    "FORMAT_VERSION",
    "INPUT",
    "MAX_LAYERS",
    "MAX_METADATA_BYTES",
    "MAX_SYNAPSES",
    "MAX_TIMESTEPS",
    "MAX_WIDTH",
    "OWN",
    "PREVIOUS",
    "CodingKind",
    "CompareKind",
    "Connections",
    "Convolution",
    "FrozenLayer",
    "FrozenNetwork",
    "InputCoding",
    "Int",
    "Leak",
    "LeakKind",
    "Projection",
    "ReadoutKind",
    "ResetKind",
    "SumPool",
    "Synapses",
    "signed_width",
]
