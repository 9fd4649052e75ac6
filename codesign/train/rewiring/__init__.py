"""Sparse structure learning for any torch model: which connections there are, and how they change during training.

The PQ index measures how unequal the magnitudes of the active weights are. From it follows a lower bound on the
number of weights worth keeping, and from that the fraction to rewire (Diao et al., ICLR 2023; Shen et al., ICLR 2025).
Knows torch and nothing of spiking networks, data or hardware.
"""

from codesign.basics.sparsity import keep_bound, pq_index
from codesign.train.rewiring.ratios import rewiring_fraction
from codesign.train.rewiring.rewirer import LayerChange, PQRewirer
from codesign.train.rewiring.schedule import change_epochs, fall_epochs, turning_point
from codesign.train.rewiring.start import first_mask, layer_counts

__all__ = [
    "LayerChange",
    "PQRewirer",
    "change_epochs",
    "fall_epochs",
    "first_mask",
    "keep_bound",
    "layer_counts",
    "pq_index",
    "rewiring_fraction",
    "turning_point",
]
