"""The float network: what a network is before it has integers, whoever trained it.

:class:`FloatNetwork` holds populations with float weights and neuron terms, in the form that docs/networks.md gives
("Networks from elsewhere"). :func:`run` is its arithmetic, which measurements compare with. No torch, and nothing here
knows where a network comes from.
"""

from codesign.contract.floating.network import FloatLayer, FloatNetwork
from codesign.contract.floating.run import FloatTrace, run

__all__ = ["FloatLayer", "FloatNetwork", "FloatTrace", "run"]
