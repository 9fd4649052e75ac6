"""Sparse training of spiking networks: architecture, dynamics, losses, rewiring, the integer forward.

Layer-wise over all timesteps, sparse from the first step, resumable after every epoch. Knows nothing of hardware.
"""

from codesign.train.loop import TrainResult, train

__all__ = ["TrainResult", "train"]
