"""Batch norm over the images of several processes, for any module that calls torch's, on any device.

torch's own SyncBatchNorm works on GPUs only, and replaces the modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class JointBatchNorm(TorchFunctionMode):
    """Inside this context `functional.batch_norm` in training takes mean and variance over the batches of all processes of a group."""

    def __init__(self, group: distributed.ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Meet every call of a function of torch."""
        if function is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None,
        training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if not training:
            return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        mean, variance, n = joint_moments(x, self.group)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.detach().to(running_mean), momentum)
                running_var.lerp_((variance.detach() * n / (n - 1)).to(running_var), momentum)
        scale = (variance + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        return torch.addcmul(shift.reshape(shape), x.float(), scale.reshape(shape)).to(x.dtype)


def joint_moments(x: Tensor, group: distributed.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all processes, float32 (c,), and how many values they are taken over, float32 ().

    The moments of the processes are joined as in Chan et al. 1983, "Algorithms for Computing the Sample Variance"; gradients flow to
    the images of every process.

    Args:
        x: (n, c, ...), n of this process.
        group: the processes.
    """
    variance, mean = torch.var_mean(x.float(), dim=[0, *range(2, x.ndim)], correction=0)
    count = mean.new_tensor([x.numel() / x.shape[1]])
    every: Tensor = _Gather.apply(torch.cat([mean, variance, count]), group)
    channels = x.shape[1]
    means, variances, counts = every[:, :channels], every[:, channels:-1], every[:, -1:]
    shares = counts / counts.sum()
    overall = (shares * means).sum(dim=0)
    return overall, (shares * (variances + (means - overall).square())).sum(dim=0), counts.sum()


class _Gather(torch.autograd.Function):
    """The tensor of each process, stacked; each receives the sum of the gradients that its own has caused anywhere."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: distributed.ProcessGroup) -> Tensor:
        ctx.group = group
        every = [torch.empty_like(own) for _ in range(group.size())]
        distributed.all_gather(every, own.contiguous(), group=group)
        return torch.stack(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous()
        distributed.all_reduce(total, group=ctx.group)
        return total[ctx.group.rank()], None
