"""Sparse training of feed-forward spiking networks with PQ-adaptive rewiring.

Layer-wise over all timesteps, sparse from the first step, resumable after every epoch. Knows nothing of hardware.
"""

from codesign.train.loop import TrainResult, train

__all__ = ["TrainResult", "train"]
