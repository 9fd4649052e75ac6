"""Choices of hardware that both the configuration and the mapping name."""

from __future__ import annotations

from typing import Literal

StateMemory = Literal["auto", "block", "distributed"]
Synapses = Literal["plain", "compact"]
Pipeline = Literal["deep", "short"]
SynapseMemory = Literal["auto", "spram"]

# Read-only memories of as many bits ask for block memory: left to themselves, tools build twice as much from logic.
BLOCK_ROM_BITS = 512

__all__ = ["BLOCK_ROM_BITS", "Pipeline", "StateMemory", "SynapseMemory", "Synapses"]
