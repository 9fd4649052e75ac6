"""Choices of hardware that both the configuration and the mapping name."""

from __future__ import annotations

from typing import Literal

StateMemory = Literal["auto", "block", "distributed"]
Synapses = Literal["plain", "compact"]
Pipeline = Literal["deep", "short"]

__all__ = ["Pipeline", "StateMemory", "Synapses"]
