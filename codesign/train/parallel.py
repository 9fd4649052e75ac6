"""Data-parallel training: one process per device, started by ``torchrun``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from codesign.basics.processes import process_count, process_rank
from codesign.train.losses import sample_weights


@dataclass(frozen=True)
class Group:
    """The processes of a training run. ``rank`` 0 writes files; all compute the same weights."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the group."""
        return nn.parallel.DistributedDataParallel(network) if self.size > 1 else network

    def part(
        self, inputs: Tensor, target: Tensor, class_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, float | Tensor]:
        """This process's samples of a batch, and the factor on their mean loss.

        Samples are the axis before the last of ``inputs``. With the factors, the average of the group's gradients is
        the gradient of the whole batch's mean, by class weights (classes,) if there are any. A process for which no
        sample is left repeats one with factor 0.
        """
        if self.size == 1:
            return inputs, target, 1.0
        count = len(target)
        mine = torch.arange(count, device=target.device)[self.rank :: self.size]
        factor: float | Tensor = len(mine) * self.size / count
        if class_weights is not None:
            weights = sample_weights(target, class_weights)
            factor = weights[mine].sum() * self.size / weights.sum()
        if not len(mine):
            mine = torch.zeros(1, dtype=torch.int64, device=target.device)
        return inputs.index_select(inputs.dim() - 2, mine), target[mine], factor

    def sum(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the group."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def share_buffers(self, network: nn.Module) -> None:
        """Give every process the first one's buffers (running statistics)."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            dist.barrier()


def join(device: str) -> tuple[Group, str]:
    """Join torchrun's group; the group and this process's own device."""
    group = Group(process_rank(), process_count())
    if group.size == 1:
        return group, device
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return group, device
