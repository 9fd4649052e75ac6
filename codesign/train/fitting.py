"""What the network in training would ask of a hardware budget, quantised as it is now."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from codesign.basics.errors import UnsupportedError
from codesign.config import FreezeConfig
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.contract.stimulus import Stimulus
from codesign.cost.budget import Budget, Demand, demands, nearest, quantising
from codesign.train.batches import Batches
from codesign.train.model import SpikingNetwork
from codesign.train.quantised import CALIBRATION_MARGIN, QuantisedNetwork

WIDTH_SAMPLES = 512
BATCH = 256
# Stands for an active weight of exactly 0, so that its connection counts.
TINY = 1e-12


class BudgetCheck:
    """Asks after a hardware budget of a float network and its masks, at any time of the training.

    The network is quantised by the rules of freezing, without its fine-tuning. That errs on the large side: every
    connection counts as a synapse, also one whose weight rounds to 0, only neurons from which no path of connections
    leads to the next layers are taken for dead, and membranes get the wider margin. The same weights and masks give
    the same answer.

    Parameters
    ----------
    training : encoded training samples; the first 512 show how wide membranes must be.
    validation : encoded validation samples; the first 100 are counted for the cycles.
    """

    def __init__(
        self, budget: Budget, config: FreezeConfig, coding: InputCoding, training: Stimulus, validation: Stimulus
    ) -> None:
        self.budget, self.config, self.coding = budget, config, coding
        self.validation = validation
        self._batches = Batches(training.take(slice(0, WIDTH_SAMPLES)), 1.0)

    @property
    def key(self) -> dict[str, Any]:
        """What the answers depend on beside network and data, in JSON's types."""
        return {"budget": self.budget.document(), "freeze": quantising(self.config)}

    def demands(self, network: SpikingNetwork, masks: Mapping[str, Tensor], weight_bits: int) -> list[Demand]:
        """Demands at one number of bits, by lanes. UnsupportedError if there is no hardware of such a network."""
        # Fine-tuning keeps connections, so that these stay dead; which others never fire it may still change.
        alive = remove_dead_code(self.frozen(network, masks, weight_bits), silent=False)
        return demands(alive, self.budget, self.validation, weight_bits)

    def least(self, network: SpikingNetwork, masks: Mapping[str, Tensor]) -> Demand:
        """The demand that decides whether density falls on: at the fewest bits, on the lanes that suit best."""
        return nearest(self.demands(network, masks, min(self.budget.weight_bits)), self.budget)

    @torch.no_grad()
    def frozen(self, network: SpikingNetwork, masks: Mapping[str, Tensor], weight_bits: int) -> FrozenNetwork:
        """The network in integers, with one synapse per active connection."""
        twin = copy.deepcopy(network).cpu().eval()
        parameters = dict(twin.named_parameters())
        for name, mask in masks.items():
            parameters[name].masked_fill_(mask.cpu() & (parameters[name] == 0), TINY)
        model = QuantisedNetwork(twin, self.config.model_copy(update={"weight_bits": weight_bits}), self.coding).eval()
        for layer in model.populations:
            for projection in layer.projections:
                weight = projection.weight
                if weight is None:
                    continue
                unit = torch.from_numpy(layer.scale.step / projection.gain).reshape(-1, *[1] * (weight.dim() - 1))
                one = torch.where(weight < 0, -unit, unit).to(weight.dtype)
                rounded = projection.integer_weight(layer.scale, torch.float64)
                lost = projection.get_buffer("mask") & (rounded == 0)
                weight.copy_(torch.where(lost, one, weight))
        if self.config.membrane_width is None:
            widths = model.membrane_widths(self._batches.ordered(BATCH), CALIBRATION_MARGIN)
        else:
            widths = [self.config.membrane_width] * len(model.plans)
        frozen = model.export(widths)
        problem = frozen.hardware_support()
        if problem is not None:
            raise UnsupportedError(f"[budget] needs an accelerator, and there is none of this network yet: {problem}")
        return frozen
