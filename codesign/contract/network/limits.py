"""Sizes that a frozen network may have, and the names of projections' sources."""

from __future__ import annotations

MAX_LAYERS = 64
MAX_PROJECTIONS = 16
MAX_WIDTH = 1 << 20
MAX_SYNAPSES = 1 << 28
MAX_TIMESTEPS = 1 << 16
# Numbers of a kernel: along an axis taps times targets, and together taps times channels of targets.
MAX_REACH = 1 << 24
MAX_CONSTANT = 1 << 40
# Of a float network, weights included: beyond it a number is a mistake of its file, and products might not be finite.
MAX_FLOAT = 1e30
# Bits of a stored membrane or synaptic current.
MAX_STATE_WIDTH = 48
# Timesteps of rest after a spike.
MAX_REFRACTORY = MAX_TIMESTEPS

INPUT = -1
"""Source of a projection: the network's input."""
PREVIOUS = -2
"""Source of a projection of a layer that is not yet in a network: the layer before it, or else the input."""
OWN = -3
"""Source of a projection of a layer that is not yet in a network: the layer itself (recurrent)."""
# Sides of a kernel in hardware: the sidecar's reader allocates by it.
MAX_KERNEL = 64
# Pairs of a source and a neuron in hardware, or taps that a convolution may have: the image decoder has one number for
# each.
MAX_PAIRS = 1 << 28
