"""Optimizers over two groups of weights: those that decay, and biases and norms that do not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coverslip.config import TrainingConfig


def build_optimizer(parts: list[tuple[nn.Module, float]], config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that the config names.

    Args:
        parts: modules with their learning rate as a share of `config.learning_rate`.
        config: optimizer, momentum, learning rate and weight decay.
    """
    groups: list[dict[str, Any]] = []
    for module, share in parts:
        trainable = [weight for weight in module.parameters() if weight.requires_grad]
        for decays, weights in (
            (True, [weight for weight in trainable if weight.ndim > 1]),
            (False, [weight for weight in trainable if weight.ndim <= 1]),
        ):
            if weights:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": weights, "weight_decay": decay, "share": share, "lr": config.learning_rate * share})
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=0.9, eps=1e-7)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, fused=False, foreach=True)
    return torch.optim.AdamW(groups, foreach=True)


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group, each by its share."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["share"]
